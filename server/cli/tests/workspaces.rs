//! Two workspaces of one Volume, as their users see them.

mod machine;

use machine::{Machine, Service, names, text, until};
use serde_json::Value;

fn attached(service: &Service) -> (String, Machine, Machine) {
    let volume = service.volume();
    let (laptop, sandbox) = (service.machine("laptop"), service.machine("sandbox"));
    laptop.write("shared.txt", "base\n");
    laptop.says(&["sync", "attach", &volume]);
    let root = sandbox.root.to_str().unwrap();
    let stands_for = ["--as", "sandbox", "--sandbox-id", "sb_1"];
    sandbox.says(&[&["sync", "attach", &volume, root][..], &stands_for].concat());
    (volume, laptop, sandbox)
}

#[test]
fn edits_cross_both_ways_and_detaching_keeps_them() {
    let service = Service::start();
    let (volume, laptop, sandbox) = attached(&service);
    assert_eq!(sandbox.read("shared.txt").as_deref(), Some("base\n"));

    laptop.write("shared.txt", "edited\n");
    sandbox.waits_for("shared.txt", "edited\n");
    sandbox.write("made.txt", "by the agent\n");
    laptop.waits_for("made.txt", "by the agent\n");
    laptop.flush();
    sandbox.flush();

    let (code, status) = laptop.json(&["sync", "status"]);
    assert_eq!((code, status["condition"].as_str()), (0, Some("in_sync")), "{status}");
    assert_eq!(status["volume_id"], volume.as_str());
    assert_eq!(status["root"], laptop.root.to_str().unwrap());
    let (code, verified) = sandbox.json(&["sync", "verify"]);
    assert_eq!((code, &verified["equal"]), (0, &Value::Bool(true)), "{verified}");
    assert_eq!(laptop.says(&["volume", "files", "cat", &volume, "made.txt"]), "by the agent\n");
    assert!(laptop.says(&["sync", "logs"]).contains("shared.txt"));

    laptop.says(&["sync", "detach"]);
    assert_eq!(names(&laptop.root), ["made.txt", "shared.txt"]);
    assert_eq!(laptop.json(&["sync", "list"]).1, Value::Array(Vec::new()));
    assert_eq!(laptop.run(&["sync", "status"]).status.code(), Some(1));
}

#[test]
fn a_conflict_blocks_until_it_is_marked() {
    let service = Service::start();
    let (_volume, laptop, sandbox) = attached(&service);
    laptop.says(&["sync", "stop"]);
    assert_eq!(laptop.json(&["sync", "status"]).1["condition"], "stopped");
    sandbox.write("shared.txt", "theirs\n");
    sandbox.flush();
    laptop.write("shared.txt", "mine\n");
    assert_eq!(laptop.run(&["sync", "start"]).status.code(), Some(3));
    assert_eq!(laptop.json(&["sync", "status"]).0, 3);

    let (_, conflicts) = laptop.json(&["sync", "conflicts", "list"]);
    assert_eq!(conflicts[0]["path"], "shared.txt");
    assert_eq!(conflicts[0]["reason"], "concurrent_update");
    assert_eq!(conflicts[0]["status"], "open");
    for (side, holds) in [("mine", "mine\n"), ("theirs", "theirs\n"), ("base", "base\n")] {
        let show = ["sync", "conflicts", "show", "shared.txt", "--side", side];
        assert_eq!(laptop.says(&show), holds, "{side}");
    }
    assert_eq!(laptop.read("shared.txt").as_deref(), Some("mine\n"));

    laptop.write("waits.txt", "until then\n");
    let (code, flushed) = laptop.json(&["sync", "flush"]);
    assert_eq!((code, &flushed["done"]), (3, &Value::Bool(false)), "{flushed}");
    assert!(flushed["unfinished"].as_array().unwrap().len() == 2, "{flushed}");
    assert_eq!(sandbox.read("waits.txt"), None);

    assert_eq!(laptop.run(&["sync", "conflicts", "mark", "other"]).status.code(), Some(1));
    laptop.says(&["sync", "conflicts", "mark", "shared.txt"]);
    sandbox.waits_for("shared.txt", "mine\n");
    sandbox.waits_for("waits.txt", "until then\n");
    laptop.flush();
}

#[test]
fn taking_theirs_and_keeping_both_end_conflicts_too() {
    let service = Service::start();
    let (_volume, laptop, sandbox) = attached(&service);
    for way in ["--take-theirs", "--keep-both"] {
        laptop.flush();
        sandbox.flush();
        laptop.flush();
        laptop.says(&["sync", "stop"]);
        sandbox.write("shared.txt", &format!("theirs {way}\n"));
        sandbox.flush();
        laptop.write("shared.txt", &format!("mine {way}\n"));
        assert_eq!(laptop.run(&["sync", "start"]).status.code(), Some(3));
        laptop.says(&["sync", "conflicts", "resolve", "--all", way]);
        laptop.waits_for("shared.txt", &format!("theirs {way}\n"));
    }
    laptop.flush();
    let mut kept = names(&laptop.root);
    kept.retain(|name| name != ".s0" && name != "shared.txt");
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert_eq!(laptop.read(&kept[0]).as_deref(), Some("mine --keep-both\n"));
    sandbox.waits_for(&kept[0], "mine --keep-both\n");
}

#[test]
fn a_second_host_says_who_runs_and_takes_over_when_told() {
    let service = Service::start();
    let (_volume, laptop, _sandbox) = attached(&service);
    let (_, status) = laptop.json(&["sync", "status"]);
    let pid = status["pid"].as_u64().unwrap();
    let replica = status["replica_id"].as_str().unwrap();
    let second = laptop.run(&["host", "--replica", replica]);
    assert_eq!(second.status.code(), Some(1));
    assert!(text(&second.stderr).contains(&format!("process {pid}")), "{second:?}");

    let mut third = laptop.command(&["host", "--replica", replica, "--take-over"]);
    third.stderr(std::process::Stdio::null());
    let mut third = third.spawn().unwrap();
    let wanted = Some(u64::from(third.id()));
    until("the new host answers", || laptop.json(&["sync", "list"]).1[0]["pid"].as_u64() == wanted);
    laptop.write("shared.txt", "after\n");
    laptop.flush();
    laptop.says(&["sync", "stop"]);
    assert!(third.wait().unwrap().success());
}

#[test]
fn attaching_refuses_what_cannot_go_well() {
    let service = Service::start();
    let (volume, laptop, _sandbox) = attached(&service);
    let inner = laptop.root.join("inner");
    let refused = [
        (vec!["sync", "attach", "no-such-volume", "../elsewhere"], "does not know"),
        (vec!["sync", "attach", &volume, inner.to_str().unwrap()], "lie within each other"),
    ];
    for (arguments, why) in refused {
        let output = laptop.run(&arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(text(&output.stderr).contains(why), "{}", text(&output.stderr));
    }
}

#[test]
fn large_files_cross_and_so_do_edits_in_their_middle() {
    let service = Service::start();
    let (_volume, laptop, sandbox) = attached(&service);
    let mut state = 7_u64;
    let mut bytes: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_be_bytes()[0]
    })
    .take(5_000_000)
    .collect();
    let crosses = |bytes: &[u8]| {
        std::fs::write(laptop.root.join("large.bin"), bytes).unwrap();
        laptop.flush();
        sandbox.flush();
        assert!(std::fs::read(sandbox.root.join("large.bin")).unwrap() == bytes);
    };
    crosses(&bytes);
    bytes.splice(2_000_000..2_000_010, *b"another middle");
    crosses(&bytes);
    // One chunk, but too large to travel inline.
    crosses(&bytes[..65_537]);
    assert!(names(&sandbox.root.join(".s0/staging")).is_empty());
}

#[test]
fn files_that_the_volume_does_not_have_wait_when_it_comes_first() {
    let service = Service::start();
    let (volume, laptop, _sandbox) = attached(&service);
    let second = service.machine("second");
    second.write("private.txt", "mine\n");
    let root = second.root.to_str().unwrap();
    second.says(&["sync", "attach", &volume, root, "--init-from", "volume"]);
    assert_eq!(second.read("shared.txt").as_deref(), Some("base\n"));
    second.flush();
    assert_eq!(second.json(&["sync", "status"]).1["withheld"][0], "private.txt");
    assert_eq!(laptop.read("private.txt"), None);
    second.says(&["sync", "include", "private.txt"]);
    laptop.waits_for("private.txt", "mine\n");
}

#[test]
fn a_workspace_that_is_gone_halts_and_goes_on_when_it_is_back() {
    let service = Service::start();
    let (_volume, laptop, sandbox) = attached(&service);
    let away = laptop.root.with_extension("away");
    let elsewhere = service.machine("elsewhere");
    let near = laptop.root.to_str().unwrap().to_owned();
    let status = || {
        let mut command = elsewhere.command(&["-o", "json", "sync", "status", "-C", &near]);
        command.arg("--state-dir").arg(&laptop.state).output().unwrap()
    };
    std::fs::rename(&laptop.root, &away).unwrap();
    until("it halts", || status().status.code() == Some(4));
    assert!(text(&status().stdout).contains("root_gone"));
    std::fs::rename(&away, &laptop.root).unwrap();
    assert_eq!(status().status.code(), Some(4), "nobody has said to go on");
    laptop.says(&["sync", "resume"]);
    laptop.write("shared.txt", "back\n");
    sandbox.waits_for("shared.txt", "back\n");
}

#[test]
fn a_service_that_restarts_is_found_again() {
    let mut service = Service::start();
    let (_volume, laptop, sandbox) = attached(&service);
    service.stop();
    until("it is offline", || laptop.run(&["sync", "status"]).status.code() == Some(5));
    laptop.write("offline.txt", "kept\n");
    let (code, flushed) = laptop.json(&["sync", "flush", "--timeout", "0.3"]);
    assert_eq!((code, &flushed["done"]), (3, &Value::Bool(false)), "{flushed}");
    let unfinished = flushed["unfinished"].as_array().unwrap();
    let paths: Vec<_> = unfinished.iter().map(|it| it["path"].as_str().unwrap()).collect();
    assert_eq!(paths, [".", "offline.txt"], "what is about the workspace as a whole has its name");
    service.start_again();
    sandbox.waits_for("offline.txt", "kept\n");
}

#[test]
fn a_file_cannot_be_a_workspace() {
    let service = Service::start();
    let (volume, laptop) = (service.volume(), service.machine("laptop"));
    laptop.write("file", "x");
    for target in ["file", "file/below"] {
        let refused = laptop.run(&["sync", "attach", &volume, target]);
        let said = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(1), "{said}");
        assert!(said.contains("file is not a directory"), "{said}");
    }
}

#[test]
fn a_service_is_told_once_that_its_data_is_a_backup() {
    let mut service = Service::start();
    let (volume, operator) = (service.volume(), service.machine("operator"));
    let data = service.base.path().join("data");
    let epoch = || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let said: Value =
            serde_json::from_slice(&std::fs::read(data.join("service.json")).unwrap()).unwrap();
        let token = std::fs::read_to_string(data.join("token")).unwrap();
        let client = s0_api::Client::new(said["url"].as_str().unwrap(), token.trim()).unwrap();
        runtime.block_on(client.tree(&volume)).unwrap().0
    };
    let before = epoch();
    let restored = ["serve", "--background", "--restored-from-backup"];
    let running = operator.run(&restored);
    assert!(text(&running.stderr).contains("a service runs already"), "{running:?}");
    assert!(!running.status.success());
    operator.says(&["serve", "--stop"]);
    operator.says(&restored);
    let after = epoch();
    operator.says(&["serve", "--stop"]);
    assert_ne!(before, after);
    service.start_again();
    assert_eq!(epoch(), after);
}

#[test]
fn up_ends_well_at_its_first_line() {
    use std::io::{BufRead as _, BufReader, Read as _};
    let service = Service::start();
    let laptop = service.machine("laptop");
    let mut up = laptop.command(&["up"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(up.stdout.take().unwrap());
    out.read_line(&mut String::new()).unwrap();
    let pid = up.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert_eq!(up.wait().unwrap().code(), Some(0), "{rest}");
}

#[test]
fn up_tells_that_it_connects_before_it_is_offline() {
    use std::io::{BufRead as _, BufReader};
    let service = Service::start();
    let laptop = service.machine("laptop");
    let mut up = laptop.command(&["up"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let out = BufReader::new(up.stdout.take().unwrap());
    let state = out.lines().map_while(Result::ok).find(|line| line.starts_with("= "));
    let pid = up.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    up.wait().unwrap();
    assert!(!state.as_deref().unwrap().contains("offline"), "{state:?}");
}

#[test]
fn a_repository_that_appears_later_decides_what_is_ignored() {
    let service = Service::start();
    let (_volume, laptop, sandbox) = attached(&service);
    std::fs::create_dir_all(laptop.root.join(".git/info")).unwrap();
    laptop.write(".git/info/exclude", "*.log\n");
    // What is written before the replica has heard of the rules is synced.
    std::thread::sleep(std::time::Duration::from_millis(500));
    laptop.write("x.log", "x\n");
    laptop.write("y.txt", "y\n");
    sandbox.waits_for("y.txt", "y\n");
    laptop.flush();
    sandbox.flush();
    assert_eq!(sandbox.read("x.log"), None);
    laptop.write(".git/info/exclude", "");
    sandbox.waits_for("x.log", "x\n");
}
