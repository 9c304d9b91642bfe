//! What attaching and detaching refuse, and what they leave behind.

mod machine;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;

use machine::{Machine, Service, failure, names, text, until};

fn replicas(machine: &Machine) -> Vec<String> {
    let all = machine.state.join("replicas");
    if all.exists() { names(&all) } else { Vec::new() }
}

fn volumes(machine: &Machine) -> usize {
    machine.json(&["volume", "list"]).1.as_array().unwrap().len()
}

#[test]
fn a_mistyped_word_detaches_nothing() {
    let service = Service::start();
    let (volume, laptop) = (service.volume(), service.machine("laptop"));
    laptop.says(&["sync", "attach", &volume]);
    std::fs::create_dir(laptop.root.join("part")).unwrap();
    laptop.write("file", "x");
    for target in ["tpyo", "part", "file", "vol_none"] {
        let said = laptop.fails(1, &["sync", "detach", target]);
        assert!(said.contains(target), "{said}");
    }
    for command in ["detach", "stop"] {
        let said = laptop.fails(1, &["sync", command, "-C", "tpyo"]);
        assert!(said.contains("tpyo is not a directory"), "{said}");
    }
    assert_eq!(laptop.json(&["sync", "list"]).1[0]["running"], true);
    // A replica's id names one too, as do a Volume's and the directory.
    let replica = replicas(&laptop).remove(0);
    laptop.says(&["sync", "detach", &replica]);
    for target in [&volume, laptop.root.to_str().unwrap()] {
        laptop.says(&["sync", "attach", &volume]);
        laptop.says(&["sync", "detach", target]);
    }
    assert!(replicas(&laptop).is_empty());
}

#[test]
fn a_workspace_that_is_gone_can_be_detached_by_its_path() {
    let service = Service::start();
    let (volume, laptop) = (service.volume(), service.machine("laptop"));
    let elsewhere = service.machine("elsewhere");
    laptop.says(&["sync", "attach", &volume]);
    std::fs::remove_dir_all(&laptop.root).unwrap();
    let mut detach = elsewhere.command(&["sync", "detach", laptop.root.to_str().unwrap()]);
    assert!(detach.arg("--state-dir").arg(&laptop.state).status().unwrap().success());
    assert!(replicas(&laptop).is_empty());
    std::fs::create_dir(&laptop.root).unwrap();
}

#[test]
fn a_name_that_is_not_utf_8_is_not_the_whole_workspace() {
    let service = Service::start();
    let (volume, laptop) = (service.volume(), service.machine("laptop"));
    laptop.says(&["sync", "attach", &volume]);
    let odd = OsStr::from_bytes(b"odd-\xff.txt");
    for command in [
        &["sync", "conflicts", "resolve", "--take-theirs"][..],
        &["sync", "conflicts", "show"],
        &["sync", "include"],
        &["sync", "forget"],
    ] {
        let mut given = laptop.command(command);
        given.arg(odd);
        let said = failure(1, given);
        assert!(said.contains("odd-") && said.contains("UTF-8"), "{said}");
    }
    let said = laptop.fails(1, &["sync", "conflicts", "show", "."]);
    assert!(said.contains("no conflict at .;"), "{said}");
}

#[test]
fn a_path_through_a_link_into_the_workspace_is_found() {
    let service = Service::start();
    let (volume, laptop) = (service.volume(), service.machine("laptop"));
    laptop.says(&["sync", "attach", &volume]);
    let link = service.base.path().join("link");
    symlink(&laptop.root, &link).unwrap();
    let by = link.join("some/file.txt");
    let said = laptop.fails(1, &["sync", "conflicts", "show", by.to_str().unwrap()]);
    assert!(said.contains("no conflict at some/file.txt"), "{said}");
    let outside = service.base.path().join("data/token");
    let said = laptop.fails(1, &["sync", "conflicts", "show", outside.to_str().unwrap()]);
    assert!(said.contains("is not in"), "{said}");
}

#[test]
fn what_came_in_dot_s0_is_not_believed() {
    let service = Service::start();
    let (volume, laptop) = (service.volume(), service.machine("laptop"));
    let precious = service.base.path().join("precious");
    std::fs::create_dir(&precious).unwrap();
    let file = precious.join("00000000-0000-4000-8000-000000000000");
    std::fs::write(&file, "mine\n").unwrap();
    let own = laptop.root.join(".s0");

    symlink(&precious, &own).unwrap();
    let said = laptop.fails(1, &["sync", "attach", &volume]);
    assert!(said.contains(".s0 in it is a link"), "{said}");
    assert_eq!(names(&precious).len(), 1);
    std::fs::remove_file(&own).unwrap();

    std::fs::create_dir(&own).unwrap();
    symlink(&file, own.join("lock")).unwrap();
    let said = laptop.fails(1, &["sync", "attach", &volume]);
    assert!(said.contains(".s0/lock"), "{said}");
    std::fs::remove_file(own.join("lock")).unwrap();

    laptop.says(&["sync", "attach", &volume]);
    laptop.says(&["sync", "stop"]);
    std::fs::remove_dir_all(own.join("cookies")).unwrap();
    symlink(&precious, own.join("cookies")).unwrap();
    laptop.says(&["sync", "detach"]);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine\n");
    assert!(replicas(&laptop).is_empty());
}

#[test]
fn a_second_state_directory_does_not_disturb_the_first() {
    let service = Service::start();
    let (volume, laptop) = (service.volume(), service.machine("laptop"));
    laptop.says(&["sync", "attach", &volume]);
    let other = Machine {
        root: laptop.root.clone(),
        state: service.base.path().join("other-state"),
        data: service.data(),
    };
    let said = other.fails(1, &["sync", "attach", &volume]);
    assert!(said.contains("another host"), "{said}");
    assert!(replicas(&other).is_empty());
    laptop.write("after.txt", "still synced\n");
    laptop.flush();
    assert_eq!(laptop.json(&["sync", "status"]).1["condition"], "in_sync");
}

#[test]
fn two_that_come_at_once_make_one_attachment() {
    let service = Service::start();
    let laptop = service.machine("laptop");
    let volume = service.volume();
    let attach = || {
        let mut command = laptop.command(&["sync", "attach", &volume]);
        command.stdout(std::process::Stdio::null()).spawn().unwrap()
    };
    let all: Vec<_> = (0..4).map(|_| attach()).collect();
    for mut one in all {
        assert!(one.wait().unwrap().success());
    }
    assert_eq!(replicas(&laptop).len(), 1);
    laptop.says(&["sync", "detach"]);

    let before = volumes(&laptop);
    let log = |name: &str| std::fs::File::create(service.base.path().join(name)).unwrap();
    let mut ups: Vec<_> = (0..3)
        .map(|at| laptop.command(&["up"]).stdout(log(&format!("up-{at}"))).spawn().unwrap())
        .collect();
    for at in 0..3 {
        let said =
            || std::fs::read_to_string(service.base.path().join(format!("up-{at}"))).unwrap();
        until("each says that it is in sync", || said().contains("= in sync"));
    }
    assert_eq!(volumes(&laptop), before + 1);
    assert_eq!(replicas(&laptop).len(), 1);
    let runs = |up: &mut std::process::Child| up.try_wait().unwrap().is_none();
    assert!(ups.iter_mut().all(runs), "none gives up because of another");
    ups.iter().for_each(|up| machine::signal(up.id(), "-INT"));
    for up in &mut ups {
        assert!(up.wait().unwrap().success());
    }
}

#[test]
fn a_place_that_does_not_suit_costs_nothing() {
    let service = Service::start();
    let laptop = service.machine("laptop");
    let before = volumes(&laptop);
    // It holds the data directory; so does this one, by way of a link.
    let base = service.base.path().canonicalize().unwrap();
    let link = base.join("data-link");
    symlink(service.data(), &link).unwrap();
    let inside = service.data().join("new");
    for place in [base.as_path(), &inside, &link.join("new"), "/".as_ref()] {
        laptop.fails(1, &["up", place.to_str().unwrap()]);
    }
    let mut by_link = laptop.command(&["up", inside.to_str().unwrap()]);
    by_link.arg("--state-dir").arg(&laptop.state).arg("--data-dir").arg(&link);
    assert_eq!(by_link.output().unwrap().status.code(), Some(1));
    assert_eq!(volumes(&laptop), before);
    assert!(!inside.exists() && !base.join(".s0").exists());

    let new = laptop.root.join("new/deep");
    let said = laptop.fails(1, &["sync", "attach", "vol_none", new.to_str().unwrap()]);
    assert!(said.contains("does not know"), "{said}");
    assert!(names(&laptop.root).is_empty(), "a directory was made for nothing");
    assert!(replicas(&laptop).is_empty());
}

#[test]
fn a_first_start_that_fails_leaves_no_attachment() {
    let service = Service::start();
    let (volume, laptop) = (service.volume(), service.machine("laptop"));
    // The host cannot listen where something else has the name.
    let mut attach = laptop.command(&["sync", "attach", &volume, "new"]);
    attach.env("S0_LOG", "error");
    let blocker = std::thread::spawn({
        let all = laptop.state.join("replicas");
        move || {
            until("the attachment is saved", || {
                let made = std::fs::read_dir(&all).ok().and_then(|mut all| all.next());
                made.is_some_and(|made| {
                    std::fs::create_dir(made.unwrap().path().join("host.sock")).is_ok()
                })
            });
        }
    });
    let said = failure(1, attach);
    blocker.join().unwrap();
    assert!(said.contains("host.sock"), "{said}");
    assert!(replicas(&laptop).is_empty());
    assert!(names(&laptop.root).is_empty());
}

#[test]
fn attaching_again_with_other_options_says_what_differs() {
    let service = Service::start();
    let (volume, laptop) = (service.volume(), service.machine("laptop"));
    laptop.says(&["sync", "attach", &volume]);
    laptop.says(&["sync", "attach", &volume]);
    for (options, differs) in [
        (&["--as", "sandbox", "--sandbox-id", "sb_1"][..], "as no sandbox"),
        (&["--pause", "path"], "with --pause workspace"),
        (&["--init-from", "volume"], "with --init-from auto"),
        (&["--server", "http://127.0.0.1:1"], "at the service of"),
    ] {
        let said = laptop.fails(1, &[&["sync", "attach", &volume], options].concat());
        assert!(said.contains(differs) && said.contains("s0 sync detach"), "{said}");
    }
}

#[test]
fn a_damaged_attachment_is_shown_and_can_be_forgotten() {
    let service = Service::start();
    let (volume, laptop) = (service.volume(), service.machine("laptop"));
    laptop.says(&["sync", "attach", &volume]);
    laptop.says(&["sync", "stop"]);
    let replica = replicas(&laptop).remove(0);
    let record = laptop.state.join("replicas").join(&replica).join("attachment.json");
    std::fs::write(&record, "{").unwrap();
    let (_, listed) = laptop.json(&["sync", "list"]);
    assert_eq!(listed[0]["condition"], "damaged");
    assert_eq!(listed[0]["replica_id"], replica.as_str());
    let said = laptop.fails(1, &["sync", "status"]);
    assert!(said.contains(&format!("s0 sync detach {replica}")), "{said}");
    laptop.says(&["sync", "detach", &replica]);
    assert!(replicas(&laptop).is_empty());
    laptop.says(&["sync", "attach", &volume]);
}

#[test]
fn detaching_while_a_host_starts_leaves_none() {
    let service = Service::start();
    let (volume, laptop) = (service.volume(), service.machine("laptop"));
    for _ in 0..5 {
        laptop.says(&["sync", "attach", &volume]);
        laptop.says(&["sync", "stop"]);
        let replica = replicas(&laptop).remove(0);
        let mut hosts: Vec<_> = (0..3)
            .map(|_| {
                let mut host = laptop.command(&["host", "--replica", &replica]);
                host.stderr(std::process::Stdio::piped()).spawn().unwrap()
            })
            .collect();
        laptop.says(&["sync", "detach"]);
        until("no host is left", || hosts.iter_mut().all(|it| it.try_wait().unwrap().is_some()));
        for host in hosts {
            let said = text(&host.wait_with_output().unwrap().stderr);
            assert!(!said.contains("panicked"), "{said}");
        }
        assert!(replicas(&laptop).is_empty());
        assert!(names(&laptop.root).is_empty());
    }
}

#[test]
fn a_sandbox_has_an_id_that_can_be_seen() {
    let service = Service::start();
    let (volume, laptop) = (service.volume(), service.machine("laptop"));
    for id in ["", " ", "a\nb", "a\u{1b}[2J", "a\u{202e}b"] {
        let arguments = ["sync", "attach", &volume, "--as", "sandbox", "--sandbox-id", id];
        laptop.fails(2, &arguments);
    }
    assert!(replicas(&laptop).is_empty());
}
