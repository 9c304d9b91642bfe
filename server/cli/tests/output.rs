//! What is printed, for people and for programs, and what is written for them.

mod machine;

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::{Command, Stdio};

use machine::{Machine, Service, failure, names, s0, signal, text, until};
use serde_json::Value;

fn attached() -> (Service, String, Machine) {
    let service = Service::start();
    let (volume, laptop) = (service.volume(), service.machine("laptop"));
    laptop.says(&["sync", "attach", &volume]);
    (service, volume, laptop)
}

#[test]
fn an_open_conflict_is_not_equal() {
    let (service, volume, laptop) = attached();
    let sandbox = service.machine("sandbox");
    laptop.write("shared.txt", "base\n");
    laptop.flush();
    laptop.says(&["sync", "stop"]);
    let stands_for = ["--as", "sandbox", "--sandbox-id", "sb_1"];
    sandbox.says(&[&["sync", "attach", &volume][..], &stands_for].concat());
    sandbox.write("shared.txt", "theirs\n");
    sandbox.flush();
    laptop.write("shared.txt", "mine\n");
    assert_eq!(laptop.run(&["sync", "start"]).status.code(), Some(3));

    let (code, verified) = laptop.json(&["sync", "verify"]);
    assert_eq!((code, &verified["equal"]), (3, &Value::Bool(false)), "{verified}");
    assert_eq!(verified["apart"]["conflicts"][0], "shared.txt");
    let said = text(&laptop.run(&["sync", "verify"]).stdout);
    assert!(said.contains("shared.txt") && said.contains("in conflict"), "{said}");

    laptop.says(&["sync", "conflicts", "mark", "shared.txt", "--ignore"]);
    let said = laptop.says(&["sync", "verify"]);
    assert!(said.contains("but for 1 conflict left as it is"), "{said}");
}

#[test]
fn what_is_set_apart_is_said() {
    let (service, volume, laptop) = attached();
    laptop.write("kept-away.log", "x\n");
    laptop.flush();
    let second = service.machine("second");
    second.write(".s0ignore", "*.log\n");
    second.write("private.txt", "mine\n");
    second.says(&["sync", "attach", &volume, "--init-from", "volume"]);
    second.flush();
    let (code, verified) = second.json(&["sync", "verify"]);
    assert_eq!((code, &verified["equal"]), (0, &Value::Bool(true)), "{verified}");
    assert_eq!(verified["apart"]["withheld"], 2, "{verified}");
    assert_eq!(verified["apart"]["ignored"], 1, "{verified}");
    let said = second.says(&["sync", "verify"]);
    assert!(said.contains("equal, but for 2 local paths waiting"), "{said}");
}

#[test]
fn names_do_not_command_the_terminal() {
    let (_service, volume, laptop) = attached();
    let name = "evil\u{1b}[2J\u{202e}\n= in sync";
    laptop.write(name, "x");
    laptop.flush();
    for arguments in [
        &["volume", "files", "ls", &volume][..],
        &["sync", "logs"],
        &["sync", "conflicts", "show", name],
        &["volume", "get", name],
    ] {
        let output = laptop.run(arguments);
        let said = text(&output.stdout) + &text(&output.stderr);
        assert!(said.contains("evil"), "{arguments:?}: {said}");
        assert!(!said.contains(['\u{1b}', '\u{202e}']), "{arguments:?}: {said:?}");
        assert!(!said.lines().any(|line| line.starts_with("= in sync")), "{said}");
    }
}

#[test]
fn programs_hear_of_failures_as_json() {
    let (_service, volume, laptop) = attached();
    let said = laptop.fails(1, &["-o", "json", "volume", "get", "vol_none"]);
    let said: Value = serde_json::from_str(&said).unwrap();
    assert!(said["error"].as_str().unwrap().contains("does not know"), "{said}");
    assert_eq!(said["exit_code"], 1);
    let logged = laptop.says(&["-o", "json", "sync", "logs"]);
    assert!(logged.lines().count() > 1);
    for line in logged.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        assert!(line["line"].is_string());
    }
    assert!(laptop.fails(1, &["volume", "files", "rm", &volume, "/none"]).contains("/none"));
}

#[test]
fn a_second_up_begins_with_how_things_are() {
    use std::io::{BufRead as _, BufReader};
    let (_service, _volume, laptop) = attached();
    let up = || {
        let mut up = laptop.command(&["-o", "json", "up"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(up.stdout.take().unwrap()).read_line(&mut line).unwrap();
        (up, line)
    };
    // The host has nothing new to say to the second one.
    let (first, (second, line)) = (up(), up());
    for mut up in [first.0, second] {
        signal(up.id(), "-INT");
        assert!(up.wait().unwrap().success());
    }
    let said: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(
        (&said["event"], &said["status"]["condition"]),
        (&"status".into(), &"in_sync".into())
    );
}

#[test]
fn a_second_up_ends_in_words_that_are_so() {
    let (service, _volume, laptop) = attached();
    let log = |name: &str| std::fs::File::create(service.base.path().join(name)).unwrap();
    let said = |name: &str| std::fs::read_to_string(service.base.path().join(name)).unwrap();
    let mut up = laptop.command(&["up"]).stdout(log("first")).spawn().unwrap();
    until("it follows", || said("first").contains("= in sync"));
    signal(up.id(), "-INT");
    assert!(up.wait().unwrap().success());
    assert!(said("first").contains("goes on; `s0 sync stop -C"), "{}", said("first"));
    assert!(said("first").contains("--state-dir"), "{}", said("first"));

    let mut up = laptop.command(&["up"]).stdout(log("second")).spawn().unwrap();
    until("it follows", || said("second").contains("= in sync"));
    laptop.says(&["sync", "stop"]);
    assert!(up.wait().unwrap().success());
    assert!(said("second").contains("has ended"), "{}", said("second"));
}

#[test]
fn up_says_what_to_do_when_the_service_dies() {
    let mut service = Service::start();
    let laptop = service.machine("a laptop's");
    let log = service.base.path().join("log");
    let out = std::fs::File::create(&log).unwrap();
    let mut up = laptop.command(&["up"]).stdout(out).spawn().unwrap();
    let said = || std::fs::read_to_string(&log).unwrap();
    until("it is in sync", || said().contains("= in sync"));
    service.stop();
    until("it tells of the trouble", || said().contains("s0 serve --background"));
    signal(up.id(), "-INT");
    assert!(up.wait().unwrap().success());
    assert!(said().contains("-C '") && said().contains("--data-dir "), "{}", said());
}

#[test]
fn the_line_to_join_is_about_the_service_that_was_asked_for() {
    use std::io::{BufRead as _, BufReader};
    let service = Service::start();
    let base = service.base.path();
    let said = std::fs::read_to_string(service.data().join("service.json")).unwrap();
    let said: Value = serde_json::from_str(&said).unwrap();
    let url = said["url"].as_str().unwrap();
    let token = std::fs::read_to_string(service.data().join("token")).unwrap();
    let root = base.join("project");
    let mut up = s0();
    up.arg("up").arg(&root).arg("--state-dir").arg(base.join("state")).arg("--server").arg(url);
    up.env("SANDBOX0_TOKEN", token.trim()).env("HOME", base);
    let mut up = up.stdout(Stdio::piped()).spawn().unwrap();
    let out = BufReader::new(up.stdout.take().unwrap());
    let lines: Vec<_> =
        out.lines().map_while(Result::ok).take_while(|line| !line.starts_with("= ")).collect();
    signal(up.id(), "-INT");
    assert!(up.wait().unwrap().success());
    let all = lines.join("\n");
    assert!(all.contains(&format!("--server {url}")), "{all}");
    assert!(all.contains("$SANDBOX0_TOKEN") && !all.contains(token.trim()), "{all}");
    assert!(!all.contains("the service of this machine"), "{all}");
}

#[test]
fn output_that_cannot_be_written_is_a_failure_and_one_that_nobody_reads_is_none() {
    let (_service, volume, laptop) = attached();
    laptop.write("large.txt", &"line\n".repeat(100_000));
    laptop.flush();
    for arguments in [&["sync", "list"][..], &["volume", "files", "cat", &volume, "large.txt"]] {
        let mut full = laptop.command(arguments);
        full.stdout(std::fs::File::options().write(true).open("/dev/full").unwrap());
        let said = failure(1, full);
        assert!(said.contains("output"), "{said}");
    }
    let mut cat = laptop.command(&["volume", "files", "cat", &volume, "large.txt"]);
    let mut cat = cat.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(cat.stdout.take());
    let output = cat.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""));
}

#[test]
fn a_download_replaces_only_what_it_is_told_to() {
    let service = Service::start();
    let (volume, laptop) = (service.volume(), service.machine("laptop"));
    let precious = service.base.path().join("precious");
    std::fs::write(&precious, "mine\n").unwrap();
    laptop.write("upload", "theirs\n");
    let run = |arguments: &[&str]| laptop.says(&[&["volume", "files"], arguments].concat());
    run(&["upload", &volume, "upload", "/d/file"]);
    run(&["download", &volume, "/d/file", "fresh"]);
    assert_eq!(laptop.read("fresh").as_deref(), Some("theirs\n"));

    let refused = |target: &str, flag: &[&str]| {
        let arguments = ["volume", "files", "download", &volume, "/d/file", target];
        laptop.fails(1, &[&arguments[..], flag].concat())
    };
    laptop.write("there", "mine\n");
    assert!(refused("there", &[]).contains("--force"));
    symlink(&precious, laptop.root.join("link")).unwrap();
    symlink(precious.with_extension("none"), laptop.root.join("dangling")).unwrap();
    for target in ["link", "dangling"] {
        refused(target, &[]);
        refused(target, &["--force"]);
    }
    assert_eq!(laptop.read("there").as_deref(), Some("mine\n"));
    run(&["download", &volume, "/d/file", "there", "--force"]);
    assert_eq!(laptop.read("there").as_deref(), Some("theirs\n"));

    // Nor through a directory that is a link.
    let elsewhere = service.base.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    symlink(&elsewhere, laptop.root.join("d")).unwrap();
    laptop.fails(1, &["volume", "files", "download", &volume, "/d", "d"]);
    assert!(names(&elsewhere).is_empty());
    assert_eq!(std::fs::read_to_string(&precious).unwrap(), "mine\n");
    assert!(names(&laptop.root).iter().all(|name| !name.starts_with(".s0-download")));
}

#[test]
fn only_files_are_uploaded_and_programs_stay_programs() {
    let service = Service::start();
    let (volume, laptop) = (service.volume(), service.machine("laptop"));
    let fifo = laptop.root.join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let said = laptop.fails(1, &["volume", "files", "upload", &volume, "fifo", "/fifo"]);
    assert!(said.contains("neither a file nor a directory"), "{said}");

    laptop.write("run.sh", "#!/bin/sh\n");
    let executable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(laptop.root.join("run.sh"), executable).unwrap();
    laptop.says(&["volume", "files", "upload", &volume, "run.sh", "/bin/run.sh"]);
    laptop.says(&["volume", "files", "download", &volume, "/bin", "bin"]);
    let mode = laptop.root.join("bin/run.sh").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o111, 0o111, "{mode:o}");
}

#[test]
fn what_is_not_for_people_is_not_shown() {
    for arguments in [&[][..], &["-o", "json"], &["--help"], &["hos"]] {
        let output = s0().args(arguments).output().unwrap();
        let said = text(&output.stdout) + &text(&output.stderr);
        assert!(said.contains("Usage: s0"), "{arguments:?}: {said}");
        assert!(!said.contains("tour-agent") && !said.contains("host,"), "{arguments:?}: {said}");
    }
}
