//! Mounts in sandboxes, as who serves them makes them: from a process with threads.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use s0_sandbox::mount::{mount, unmount};
use s0_sandbox::{Control, Process, Sandboxes, SpawnError, Wanted, spawn};

/// What is mounted at a place of a sandbox, the uppermost last.
fn kinds(init: Process, at: &str) -> Vec<String> {
    let table = std::fs::read_to_string(format!("/proc/{}/mountinfo", init.pid)).unwrap();
    let lines = table.lines().filter(|line| line.split(' ').nth(4) == Some(at));
    let kind = |line: &str| line.split_once(" - ")?.1.split(' ').next().map(str::to_owned);
    lines.filter_map(kind).collect()
}

#[test]
fn a_mount_is_made_inside_and_its_descriptor_is_outside() {
    let program = Path::new(env!("CARGO_BIN_EXE_s0"));
    let state = tempfile::tempdir().unwrap();
    let sandboxes = Sandboxes::new(state.path());
    let wanted = Wanted {
        paths: vec!["/workspace".into()],
        home: PathBuf::from("/home/user"),
        is_leashed: true,
        ..Wanted::default()
    };
    let made = match spawn(program, state.path(), &sandboxes, wanted) {
        // End to end, such a machine is said to be one that skips these tests.
        Err(SpawnError::NoBubblewrap) => return,
        made => made.unwrap(),
    };
    let (init, at) = (made.status.init, Path::new("/workspace"));
    let mounted = match mount(program, init, at, "default_permissions,allow_other") {
        Err(error) if error.to_string().contains("/dev/fuse") => return,
        mounted => mounted.unwrap(),
    };
    assert_eq!(kinds(init, "/workspace"), ["tmpfs", "fuse.s0"]);
    let mut request = vec![0; 1 << 20];
    let mut fuse = File::from(mounted.fuse);
    assert!(fuse.read(&mut request).unwrap() > 8);
    // The first word of every mount: FUSE_INIT.
    assert_eq!(request[4..8], 26u32.to_ne_bytes());
    drop(fuse);
    unmount(program, init, at).unwrap();
    assert_eq!(kinds(init, "/workspace"), ["tmpfs"]);

    for (path, why) in [
        ("/", "all of it"),
        ("/usr/missing", "no such directory"),
        ("/etc/passwd", "is no directory"),
    ] {
        let refused = mount(program, init, Path::new(path), "").unwrap_err().to_string();
        assert!(refused.contains(why), "{path}: {refused}");
    }
    let refused = mount(program, init, at, "no_such_option").unwrap_err().to_string();
    assert!(refused.contains("options \"no_such_option\""), "{refused}");
    let refused = unmount(program, init, at).unwrap_err().to_string();
    assert!(refused.contains("nothing is mounted there"), "{refused}");
    let later = Process { started: init.started + 1, ..init };
    let refused = mount(program, later, at, "").unwrap_err().to_string();
    assert!(refused.contains("has ended"), "{refused}");

    Control::connect(&made.directory).unwrap().stop(false).unwrap();
    assert!(!made.directory.path().exists());
}
