//! The watcher says where to look, whatever way files are saved and moved.

mod limits;

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use limits::WATCHES;
use s0_replica::disk::{Disk as _, DiskError, Listing};
use s0_replica::shell::disk::{Marker, RootDisk};
use s0_replica::shell::watch::{WatchError, WatchEvent, Watcher};
use s0_tree::TreePath;

struct Room {
    dir: tempfile::TempDir,
    watcher: Arc<Watcher>,
    events: Receiver<WatchEvent>,
    disk: RootDisk,
}

impl Room {
    fn new(directories: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(&root).unwrap();
        for directory in directories {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        let disk = RootDisk::open(&root, Marker::Create).unwrap();
        let (sender, events) = channel();
        let watcher = Watcher::start(&root, move |event| {
            let _ = sender.send(event);
        })
        .unwrap();
        for directory in directories {
            watcher.watch(&path(directory)).unwrap();
        }
        Self { dir, watcher: watcher.into(), events, disk }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root().join(path)
    }

    /// Runs a script. What is to be closed at a known moment is written so, and not by this
    /// process: a child that another test forks has our open files too, until it is what it runs.
    fn shell(&self, script: &str) {
        let done = Command::new("sh").current_dir(self.root()).args(["-ec", script]).output();
        let done = done.unwrap();
        assert!(done.status.success(), "{script}: {}", String::from_utf8_lossy(&done.stderr));
    }

    /// All events up to now: a cookie proves that there are no more.
    fn events(&self) -> Vec<WatchEvent> {
        let cookie = WatchEvent::Cookie(self.watcher.cookie().unwrap());
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut events = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let event = self.events.recv_timeout(left).unwrap();
            if event == cookie {
                return events;
            }
            events.push(event);
        }
    }

    fn wait_for(&self, wanted: &WatchEvent) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while self
            .events
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            .unwrap_or_else(|_| panic!("{wanted:?} did not come"))
            != *wanted
        {}
    }
}

fn path(text: &str) -> TreePath {
    TreePath::new(text).unwrap()
}

/// Whether these come in this order, others between them allowed.
fn assert_order(events: &[WatchEvent], wanted: &[WatchEvent]) {
    let mut rest = events.iter();
    for one in wanted {
        assert!(rest.any(|event| event == one), "{one:?} is not in its place in {events:#?}");
    }
}

fn created(at: &str) -> WatchEvent {
    WatchEvent::Created(path(at))
}

fn closed(at: &str) -> WatchEvent {
    WatchEvent::Closed(path(at))
}

fn moved_from(at: &str) -> WatchEvent {
    WatchEvent::MovedFrom(path(at))
}

fn moved_to(at: &str) -> WatchEvent {
    WatchEvent::MovedTo(path(at))
}

fn removed(at: &str) -> WatchEvent {
    WatchEvent::Removed(path(at))
}

#[test]
fn ways_of_saving() {
    let room = Room::new(&["d"]);
    room.shell("echo one > d/f");
    assert_order(&room.events(), &[created("d/f"), closed("d/f")]);
    room.shell("echo two > d/f");
    let events = room.events();
    assert_order(&events, &[WatchEvent::Modified(path("d/f")), closed("d/f")]);
    assert!(!events.contains(&created("d/f")));
    // Written beside, then renamed over.
    room.shell("echo three > d/.f.tmp; mv d/.f.tmp d/f");
    assert_order(&room.events(), &[closed("d/.f.tmp"), moved_from("d/.f.tmp"), moved_to("d/f")]);
    // Vim with backup: the old one moves away, a new one is written.
    room.shell("mv d/f d/f~; echo four > d/f; rm d/f~");
    assert_order(
        &room.events(),
        &[moved_from("d/f"), moved_to("d/f~"), created("d/f"), closed("d/f"), removed("d/f~")],
    );
    room.shell("chmod 600 d/f");
    assert_eq!(room.events(), [WatchEvent::Attributes(path("d/f"))]);
    room.shell("ln d/f d/g; rm d/f");
    assert_order(&room.events(), &[created("d/g"), removed("d/f")]);
    room.shell("cat d/g; ls d; cat .s0/id; touch .s0/staging/x");
    assert_eq!(room.events(), [], "reading is not changing, and the state directory is ours");
}

#[test]
fn only_what_was_asked_for_is_watched() {
    let room = Room::new(&["d"]);
    fs::create_dir_all(room.at("ignored/deep")).unwrap();
    fs::create_dir_all(room.at("d/inner")).unwrap();
    assert_order(&room.events(), &[created("ignored"), created("d/inner")]);
    room.shell("touch ignored/f ignored/deep/f d/inner/f");
    assert_eq!(room.events(), []);
    room.watcher.watch(&path("d/inner")).unwrap();
    room.shell("touch d/inner/g");
    assert_order(&room.events(), &[created("d/inner/g")]);
    room.shell("touch d/h");
    assert_order(&room.events(), &[created("d/h")]);
    assert!(matches!(room.watcher.watch(&path("none")), Err(WatchError::Gone)));
    assert!(matches!(room.watcher.watch(&path("d/h")), Err(WatchError::Gone)));
    std::os::unix::fs::symlink("/", room.at("link")).unwrap();
    assert!(matches!(room.watcher.watch(&path("link")), Err(WatchError::Gone)));
    assert!(matches!(room.watcher.watch(&path("link/tmp")), Err(WatchError::Gone)));
}

#[test]
fn watching_a_directory_again_loses_nothing_below() {
    let room = Room::new(&["a", "a/b", "a/b/c"]);
    // What an engine does for a listing that goes no deeper.
    room.watcher.watch(&path("a")).unwrap();
    room.watcher.watch(&TreePath::root()).unwrap();
    assert!(room.watcher.is_watched(&path("a/b/c")));
    room.shell("touch a/x a/b/y a/b/c/z");
    assert_order(&room.events(), &[created("a/x"), created("a/b/y"), created("a/b/c/z")]);
}

#[test]
fn what_the_system_had_no_watch_for_is_asked_for_again() {
    // The root, its cookies, and two more.
    if !limits::lowered_for("what_the_system_had_no_watch_for_is_asked_for_again", WATCHES, 4) {
        return;
    }
    let room = Room::new(&["a", "b"]);
    assert!(room.watcher.is_complete());
    for name in ["c", "d"] {
        fs::create_dir(room.at(name)).unwrap();
        assert!(matches!(room.watcher.watch(&path(name)), Err(WatchError::LimitReached)));
    }
    room.watcher.watch_refused();
    assert!(!room.watcher.is_complete());
    limits::set(WATCHES, 100);
    fs::remove_dir(room.at("d")).unwrap();
    room.watcher.watch_refused();
    assert!(room.watcher.is_complete(), "one is watched, one is gone");
    room.shell("touch c/f");
    assert_order(&room.events(), &[created("c/f")]);
}

#[test]
fn directories_that_move() {
    let room = Room::new(&["a", "a/b", "c"]);
    let outside = room.dir.path().join("outside");
    // Within the root, in either order of hearing of it.
    for (from, to) in [("a", "c/a"), ("c/a", "a")] {
        room.shell(&format!("mv {from} {to}"));
        let (from, to) = (path(from), path(to));
        let events = room.events();
        assert_order(
            &events,
            &[
                WatchEvent::MovedFrom(from.clone()),
                WatchEvent::MovedTo(to.clone()),
                WatchEvent::Moved(from.clone(), to.clone()),
            ],
        );
        let inner = to.join(&s0_tree::Name::new("b").unwrap());
        room.watcher.watch(&to).unwrap();
        room.watcher.watch(&inner).unwrap();
        assert!(room.watcher.is_watched(&to) && !room.watcher.is_watched(&from));
        room.shell(&format!("touch {to}/x {inner}/y; rm {to}/x {inner}/y"));
        let events = room.events();
        let under = |event: &WatchEvent| format!("{event:?}").contains(to.as_str());
        assert_order(&events, &[created(&format!("{to}/x")), created(&format!("{inner}/y"))]);
        assert!(events.iter().all(under), "{events:?}");
    }
    // Out of the root: it is not heard of any more.
    fs::rename(room.at("a"), &outside).unwrap();
    assert_order(&room.events(), &[moved_from("a")]);
    fs::write(outside.join("x"), "").unwrap();
    fs::write(outside.join("b/x"), "").unwrap();
    assert_eq!(room.events(), []);
    // And in again.
    fs::rename(&outside, room.at("c/back")).unwrap();
    assert_order(&room.events(), &[moved_to("c/back")]);
    room.watcher.watch(&path("c/back")).unwrap();
    room.shell("touch c/back/z");
    assert_order(&room.events(), &[created("c/back/z")]);
}

#[test]
fn a_name_that_is_taken_again_is_watched_again() {
    let room = Room::new(&["d"]);
    for round in 0..50 {
        room.shell("rm -r d; mkdir d");
        assert_order(&room.events(), &[removed("d"), created("d")]);
        room.watcher.watch(&path("d")).unwrap();
        room.shell("touch d/f");
        let events = room.events();
        assert!(events.contains(&created("d/f")), "round {round}: {events:?}");
    }
    // A directory takes the name of another one.
    room.shell("mkdir e; mv d f; mv e d");
    room.events();
    room.watcher.watch(&path("d")).unwrap();
    room.watcher.watch(&path("f")).unwrap();
    room.shell("touch d/x f/y");
    assert_order(&room.events(), &[created("d/x"), created("f/y")]);
}

/// What an engine does: watch what appears, then list it.
fn follow(room: &Room, found: &mut Vec<PathBuf>, directory: &Path) {
    let inner = directory.strip_prefix(room.root()).unwrap().to_str().unwrap();
    if room.watcher.watch(&path(inner)).is_err() {
        return;
    }
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        found.push(entry.path());
        if entry.file_type().unwrap().is_dir() {
            follow(room, found, &entry.path());
        }
    }
}

#[test]
fn deep_directories_are_found_by_watching_before_listing() {
    let room = Room::new(&[]);
    for round in 0..20 {
        let deep = format!("r{round}/b/c/d/e/f/g");
        let mut child = Command::new("sh")
            .current_dir(room.root())
            .args(["-ec", &format!("mkdir -p {deep}; echo x > {deep}/file")])
            .spawn()
            .unwrap();
        let wanted = room.at(&deep).join("file");
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut found = Vec::new();
        while !found.contains(&wanted) {
            let left = deadline.saturating_duration_since(Instant::now());
            let event = room.events.recv_timeout(left).expect("the file is found");
            if let WatchEvent::Created(at) | WatchEvent::Closed(at) = event {
                let at = room.at(at.as_str());
                if at.is_dir() {
                    follow(&room, &mut found, &at);
                }
                found.push(at);
            }
        }
        assert!(child.wait().unwrap().success());
    }
}

/// The files of a listing, in order.
fn names(listing: &Listing) -> Vec<String> {
    let mut names: Vec<_> = listing.entries.iter().map(|(name, _)| name.to_string()).collect();
    names.sort();
    names
}

#[test]
fn what_is_listed_ahead_is_true_and_what_changes_after_that_is_told() {
    let mut room = Room::new(&[]);
    let paths: Vec<_> = (0..300).map(|number| path(&format!("d{number:03}"))).collect();
    for path in &paths {
        fs::create_dir(room.at(path.as_str())).unwrap();
        fs::write(room.at(path.as_str()).join("first"), "").unwrap();
    }
    room.events();
    let root = room.root();
    let disk = &mut room.disk;
    disk.set_watcher(room.watcher.clone());
    for _ in 0..20 {
        // One that is gone by then, and nobody asks for the last ones.
        disk.will_list(paths.iter().cloned().chain([path("gone")]).collect());
        for path in paths.iter().take(250) {
            assert!(names(&disk.list(path).unwrap()).contains(&"first".to_owned()), "{path}");
        }
        assert!(matches!(disk.list(&path("gone")), Err(DiskError::NotFound)));
    }
    // A listing that was made may be older than this, but it was watched before.
    disk.will_list(paths.clone());
    let mut unlisted = Vec::new();
    for path in &paths {
        fs::write(root.join(path.as_str()).join("second"), "").unwrap();
        if !names(&disk.list(path).unwrap()).contains(&"second".to_owned()) {
            unlisted.push(created(&format!("{path}/second")));
        }
    }
    disk.will_list(Vec::new());
    let told = room.events();
    assert!(unlisted.iter().all(|event| told.contains(event)), "{unlisted:?}");
    // Nothing is left of what nobody asked for.
    fs::write(room.at("d000/third"), "").unwrap();
    assert!(names(&room.disk.list(&paths[0]).unwrap()).contains(&"third".to_owned()));
}

#[test]
fn names_that_no_volume_has_are_told_by_their_directory() {
    let room = Room::new(&["d"]);
    fs::write(room.at("d").join(std::ffi::OsStr::from_bytes(b"bad\xff")), "").unwrap();
    let events = room.events();
    assert!(!events.is_empty());
    assert!(events.iter().all(|event| *event == WatchEvent::Modified(path("d"))), "{events:?}");
}

#[test]
fn cookies_come_after_what_was_before_them() {
    let room = Room::new(&["d"]);
    for round in 0..200 {
        let name = format!("d/f{round}");
        room.shell(&format!(": >{name}"));
        assert_order(&room.events(), &[created(&name), closed(&name)]);
    }
    assert_eq!(fs::read_dir(room.at(".s0/cookies")).unwrap().count(), 1);
    let two = [room.watcher.cookie().unwrap(), room.watcher.cookie().unwrap()];
    two.into_iter().for_each(|name| room.wait_for(&WatchEvent::Cookie(name)));
    let again = Watcher::start(&room.root(), |_| {}).unwrap();
    assert_eq!(fs::read_dir(room.at(".s0/cookies")).unwrap().count(), 0);
    drop(again);
}

#[test]
fn a_burst_loses_nothing_or_says_so() {
    let room = Room::new(&["d"]);
    room.shell("for name in $(seq 20000); do echo >d/$name; done");
    let events = room.events();
    if !events.contains(&WatchEvent::Overflow) {
        let closed = events.iter().filter(|event| matches!(event, WatchEvent::Closed(_))).count();
        assert_eq!(closed, 20_000);
    }
}

#[test]
fn the_end_of_the_root_is_told() {
    for script in ["mv root elsewhere", "rm -r root", "rm -r root/.s0", "mv root/.s0 root/x"] {
        let room = Room::new(&["d"]);
        let done = Command::new("sh").current_dir(room.dir.path()).args(["-ec", script]).status();
        assert!(done.unwrap().success());
        room.wait_for(&WatchEvent::RootGone);
        // What is open keeps the removed directory, as it does in a replica.
        drop(room.disk);
    }
}

#[test]
fn only_what_decides_about_ignoring_is_heard_of_a_repository() {
    let room = Room::new(&["a"]);
    room.shell("mkdir -p .git/info a/.git/info a/.git/objects");
    room.watcher.watch_repository(&TreePath::root()).unwrap();
    room.watcher.watch_repository(&path("a")).unwrap();
    room.events();
    room.shell(
        "echo x > .git/index.lock; mv .git/index.lock .git/index
         echo x > .git/HEAD; echo x > a/.git/objects/x; echo x > a/.git/info/attributes
         echo x > a/.git/info/exclude",
    );
    let events = room.events();
    let moved = WatchEvent::MovedTo(path(".git/index"));
    let written = WatchEvent::Closed(path("a/.git/info/exclude"));
    assert!(events.contains(&moved) && events.contains(&written), "{events:?}");
    for event in events {
        let (WatchEvent::Created(at)
        | WatchEvent::MovedTo(at)
        | WatchEvent::Modified(at)
        | WatchEvent::Attributes(at)
        | WatchEvent::Closed(at)) = event
        else {
            panic!("{event:?}");
        };
        assert!([".git/index", "a/.git/info/exclude"].contains(&at.as_str()), "{at}");
    }
}

#[test]
fn no_repository_is_none() {
    let room = Room::new(&["a"]);
    room.shell("echo 'gitdir: elsewhere' > a/.git");
    room.watcher.watch_repository(&TreePath::root()).unwrap();
    room.watcher.watch_repository(&path("a")).unwrap();
}
