//! What is printed, for people and for programs, and what is written for them.

mod machine;

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::Command;

use machine::{Machine, Service, names, text};
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
