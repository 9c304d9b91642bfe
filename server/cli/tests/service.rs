//! The service of this machine: whose it is, and what is said when it does not
//! answer.

mod machine;

use std::io::Read as _;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use machine::{Machine, Service, s0, signal, text, until};

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

/// A service in the background; ended with this.
struct Background(Machine);

impl Background {
    fn start(base: &Path) -> Self {
        let root = base.join("here");
        std::fs::create_dir_all(&root).unwrap();
        let machine = Machine { root, state: base.join("state"), data: base.join("data") };
        machine.says(&["serve", "--background"]);
        Self(machine)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.0.run(&["serve", "--stop"]);
    }
}

#[test]
fn what_the_service_keeps_is_the_users_alone() {
    let base = tempfile::tempdir().unwrap();
    let service = Background::start(base.path());
    let data = base.path().join("data");
    assert_eq!((mode(&data), mode(&data.join("service.log"))), (0o700, 0o600));
    service.0.says(&["serve", "--stop"]);
    // One that an earlier version has made is closed.
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o755)).unwrap();
    let log = data.join("service.log");
    std::fs::set_permissions(&log, std::fs::Permissions::from_mode(0o644)).unwrap();
    service.0.says(&["serve", "--background"]);
    assert_eq!((mode(&data), mode(&log)), (0o700, 0o600));
}

#[test]
fn a_start_that_fails_says_only_why_this_one_did() {
    let base = tempfile::tempdir().unwrap();
    let service = Background::start(base.path());
    service.0.says(&["serve", "--stop"]);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let said = service.0.fails(1, &["serve", "--background", "--listen", &address]);
    assert!(said.contains("cannot listen") && !said.contains("the service listens"), "{said}");
}

#[test]
fn a_service_that_does_not_answer_runs_all_the_same() {
    let base = tempfile::tempdir().unwrap();
    let service = Background::start(base.path());
    let said = std::fs::read_to_string(base.path().join("data/service.json")).unwrap();
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    let pid = u32::try_from(said["pid"].as_u64().unwrap()).unwrap();
    signal(pid, "-STOP");
    let stop = service.0.run(&["serve", "--stop"]);
    let list = service.0.run(&["volume", "list"]);
    signal(pid, "-CONT");
    for (output, code) in [(stop, 1), (list, 5)] {
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains("does not answer"), "{said}");
    }
    assert!(service.0.says(&["serve", "--stop"]).contains("has ended"));
    assert!(service.0.says(&["serve", "--stop"]).contains("no service runs"));
}

#[test]
fn the_token_goes_to_nobody_who_has_the_port_of_a_service_that_was_killed() {
    let mut service = Service::start();
    let (volume, laptop) = (service.volume(), service.machine("laptop"));
    laptop.says(&["sync", "attach", &volume]);
    let said = std::fs::read_to_string(service.data().join("service.json")).unwrap();
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    let address = said["url"].as_str().unwrap().strip_prefix("http://").unwrap().to_owned();
    service.stop();
    let thief = TcpListener::bind(&address).unwrap();
    thief.set_nonblocking(true).unwrap();
    let code = |arguments: &[&str]| laptop.run(arguments).status.code();
    assert_eq!(code(&["volume", "list"]), Some(5));
    until("the host knows that the service is gone", || code(&["sync", "status"]) == Some(5));
    // The host tries again, ever more slowly.
    let deadline = Instant::now() + Duration::from_secs(3);
    while Instant::now() < deadline {
        if let Ok((mut stream, _)) = thief.accept() {
            stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
            let mut bytes = vec![0; 4096];
            let read = stream.read(&mut bytes).unwrap_or(0);
            panic!("somebody was told: {}", String::from_utf8_lossy(&bytes[..read]));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn starting_without_a_service_ends_and_says_how_to_have_one() {
    let mut service = Service::start();
    let (volume, laptop) = (service.volume(), service.machine("laptop"));
    laptop.says(&["sync", "attach", &volume]);
    laptop.says(&["sync", "stop"]);
    service.stop();
    let said = laptop.fails(5, &["sync", "start"]);
    assert!(said.contains("s0 serve --background"), "{said}");
}

#[test]
fn a_host_that_is_stopped_holds_nobody_up() {
    let service = Service::start();
    let (volume, laptop) = (service.volume(), service.machine("laptop"));
    laptop.says(&["sync", "attach", &volume]);
    let second = laptop.root.with_extension("second");
    laptop.says(&["sync", "attach", &volume, second.to_str().unwrap()]);
    let pid = u32::try_from(laptop.json(&["sync", "status"]).1["pid"].as_u64().unwrap()).unwrap();
    signal(pid, "-STOP");
    let (_, listed) = laptop.json(&["sync", "list"]);
    let flushed = laptop.run(&["sync", "flush"]);
    let stopped = laptop.run(&["sync", "stop"]);
    signal(pid, "-CONT");
    assert_eq!(listed[0]["condition"], "no_answer", "{listed}");
    assert_eq!(listed[0]["pid"], pid);
    assert_ne!(listed[1]["condition"], "no_answer", "{listed}");
    for output in [flushed, stopped] {
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(
            said.contains(&format!("process {pid}")) && said.contains("does not answer"),
            "{said}"
        );
    }
    laptop.flush();
    laptop.says(&["sync", "stop", "-C", second.to_str().unwrap()]);
}

#[test]
fn a_volume_that_was_deleted_is_said_to_be_gone() {
    let service = Service::start();
    let (volume, laptop) = (service.volume(), service.machine("laptop"));
    let said = laptop.fails(1, &["volume", "delete", "vol_none"]);
    assert!(said.contains("does not know"), "{said}");
    laptop.says(&["sync", "attach", &volume]);
    let said = laptop.fails(1, &["volume", "delete", &volume]);
    assert!(said.contains("is attached to") && said.contains("--force"), "{said}");
    laptop.says(&["volume", "delete", &volume, "--force"]);
    until("the status says that the Volume is gone", || {
        text(&laptop.run(&["sync", "status"]).stdout).contains("does not exist any more")
    });
    laptop.says(&["sync", "stop"]);
    let said = laptop.fails(5, &["sync", "start"]);
    assert!(said.contains("does not exist any more") && said.contains("s0 sync detach"), "{said}");
    let detached = laptop.run(&["sync", "detach"]);
    assert!(detached.status.success());
    assert_eq!(text(&detached.stderr), "");
}

#[test]
fn a_service_that_starts_while_others_look_has_its_lock() {
    let base = tempfile::tempdir().unwrap();
    let service = Background::start(base.path());
    service.0.says(&["serve", "--stop"]);
    // What one that was killed leaves, so that all look at the lock.
    std::fs::write(
        base.path().join("data/service.json"),
        r#"{"url":"http://127.0.0.1:1","pid":1}"#,
    )
    .unwrap();
    let lock = std::fs::File::open(base.path().join("data/lock")).unwrap();
    lock.lock_shared().unwrap();
    let mut serve = s0();
    serve.arg("--data-dir").arg(base.path().join("data")).args(["serve", "--background"]);
    let mut serve = serve.stdout(std::process::Stdio::null()).spawn().unwrap();
    until("it has begun to try", || {
        let log = std::fs::metadata(base.path().join("data/service.log"));
        log.is_ok_and(|log| log.len() > 0) || serve.try_wait().unwrap().is_none()
    });
    lock.unlock().unwrap();
    assert!(serve.wait().unwrap().success());
}
