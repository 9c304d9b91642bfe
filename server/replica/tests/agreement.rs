//! What the engine makes of a Volume that does the unexpected: on a real disk.

mod room;
mod volume;

use std::fs;

use room::{Room, path, workspace};
use s0_api::sync::{Answer, Outcome, Registered};
use s0_replica::engine::{Event, Halt, Hint, Init, Pending, Resume};
use s0_replica::shell::disk::{Marker, RootDisk};
use s0_tree::Reason;
use volume::{At, removed, renamed, tree};

#[test]
fn a_journal_that_lost_its_end_takes_nothing_away() {
    let mut room = Room::synced(&[("old", At::File("1")), ("new", At::File("2"))]);
    let older = tree(&[("old", At::File("1"))]);
    let (epoch, head) = ("e".to_owned(), older.head());
    room.tell(Event::Offline);
    let registered = Registered {
        instance: 2,
        last_number: 0,
        epoch: epoch.clone(),
        head,
        cursor: s0_tree::Seq(0),
    };
    room.tell(Event::Online(registered));
    room.tell(Event::Tree { epoch, tree: older, since: None });
    let sent = room.settle();
    assert!(sent.len() == 1 && sent[0].contains("new"), "{sent:?}");
    assert_eq!(fs::read_to_string(room.at("new")).unwrap(), "2");
}

#[test]
fn a_synced_directory_may_move_under_an_ignored_name() {
    let all = [
        (".gitignore", At::File("node_modules\n")),
        ("build", At::Directory),
        ("build/f", At::File("x")),
    ];
    let mut room = Room::synced(&all);
    let entry = renamed(&tree(&all), "build", "node_modules");
    room.tell(Event::Entries(vec![(entry, None)]));
    assert_eq!(room.settle(), Vec::<String>::new());
    assert_eq!(room.engine.pending(), Pending::default());
    assert_eq!(fs::read_to_string(room.at("node_modules/f")).unwrap(), "x");
    assert!(!room.at("build").exists());
}

#[test]
fn a_directory_that_moves_where_nothing_follows_stays_behind() {
    let all = [
        (".gitignore", At::File("out\n")),
        ("out", At::Directory),
        ("build", At::Directory),
        ("build/f", At::File("x")),
    ];
    for to in [".git", "out/build"] {
        let mut room = Room::synced(&[
            (".gitignore", At::File("out\n")),
            ("build", At::Directory),
            ("build/f", At::File("x")),
        ]);
        // The Volume has a directory that is ignored here.
        let there = tree(&all);
        let (epoch, head) = ("f".to_owned(), there.head());
        room.tell(Event::Offline);
        let registered = Registered {
            instance: 2,
            last_number: 0,
            epoch: epoch.clone(),
            head,
            cursor: s0_tree::Seq(0),
        };
        room.tell(Event::Online(registered));
        room.tell(Event::Tree { epoch, tree: there.clone(), since: None });
        assert_eq!(room.settle(), Vec::<String>::new());
        room.tell(Event::Entries(vec![(renamed(&there, "build", to), None)]));
        assert_eq!(room.settle(), Vec::<String>::new(), "{to}");
        assert_eq!(room.engine.pending(), Pending::default(), "{to}");
        assert!(room.engine.status().withheld.contains(&path("build")), "{to}");
        assert_eq!(fs::read_to_string(room.at("build/f")).unwrap(), "x");
    }
}

#[test]
fn what_an_earlier_attachment_left_in_staging_stays() {
    let dir = workspace();
    let root = dir.path().join("root");
    drop(RootDisk::open(&root, Marker::Create).unwrap());
    let left = [root.join(".s0/staging/2"), root.join(".s0/staging/5")];
    left.iter().for_each(|at| fs::write(at, "somebody's").unwrap());
    let mut room =
        Room::connected(dir, Init::Auto, tree(&[("a", At::Link("x")), ("b", At::Link("y"))]));
    room.settle();
    assert_eq!(room.engine.pending(), Pending::default());
    assert!(room.at("a").is_symlink() && room.at("b").is_symlink());
    for at in left {
        assert_eq!(fs::read_to_string(at).unwrap(), "somebody's");
    }
}

#[test]
fn nothing_is_left_of_what_was_in_a_directory_that_both_sides_removed() {
    let all = [("d", At::Directory)];
    let mut room = Room::synced(&all);
    fs::write(room.at("d/q?"), "mine").unwrap();
    assert_eq!(room.look().len(), 1);
    let reason = Reason::WindowsForbiddenCharacter;
    let outcome = Outcome::Conflict { id: "c".into(), reason, path: path("d/q?") };
    let head = tree(&all).head();
    room.tell(Event::Answered(1, Ok(Answer { head, outcomes: vec![outcome] })));
    room.settle();
    assert_eq!(room.engine.state().conflicts.len(), 1);
    fs::remove_dir_all(room.at("d")).unwrap();
    room.tell(Event::Entries(vec![(removed(&tree(&all), "d"), None)]));
    room.settle();
    room.look();
    assert!(room.engine.state().conflicts.is_empty());
    assert_eq!(room.engine.pending(), Pending::default());
}

#[test]
fn a_removal_in_conflict_does_not_keep_the_guard_away() {
    let names: Vec<String> = (0..300).map(|number| format!("{number:03}")).collect();
    let all: Vec<_> = names.iter().map(|name| (name.as_str(), At::File("x"))).collect();
    let mut room = Room::synced(&all);
    let head = tree(&all).head();
    // What has been here for a while.
    room.now += 200_000;
    fs::remove_file(room.at("000")).unwrap();
    assert_eq!(room.look().len(), 1);
    let outcome =
        Outcome::Conflict { id: "c".into(), reason: Reason::ConcurrentUpdate, path: path("000") };
    room.tell(Event::Answered(1, Ok(Answer { head, outcomes: vec![outcome] })));
    room.settle();
    room.engine.resume(Resume::ConfirmDeletions, room.now).unwrap();
    room.settle();
    for name in &names[1..200] {
        fs::remove_file(room.at(name)).unwrap();
    }
    room.look();
    let halt = room.engine.status().halt;
    assert!(matches!(halt, Some(Halt::Vanished { .. })), "{halt:?}");
}

#[test]
fn nothing_is_removed_when_the_first_of_many_that_vanished_is_heard_of() {
    let names: Vec<String> =
        (0..300).map(|number| format!("d{}/{number:03}", number % 7)).collect();
    let directories: Vec<String> = (0..7).map(|number| format!("d{number}")).collect();
    let mut all: Vec<_> = directories.iter().map(|name| (name.as_str(), At::Directory)).collect();
    all.extend(names.iter().map(|name| (name.as_str(), At::File("x"))));
    let mut room = Room::synced(&all);
    room.now += 200_000;
    for name in &directories[..6] {
        fs::remove_dir_all(room.at(name)).unwrap();
    }
    // The watcher has more to tell.
    room.tell(Event::Touched(vec![(path("d0"), Hint::Unsettled)]));
    assert_eq!(room.settle(), Vec::<String>::new());
    let halt = room.engine.status().halt;
    assert!(matches!(halt, Some(Halt::Vanished { paths, .. }) if paths > 250), "{halt:?}");
}

#[test]
fn links_that_could_lead_out_are_not_made() {
    let mut room = Room::connected(
        workspace(),
        Init::Auto,
        tree(&[
            ("p", At::Directory),
            ("p/up", At::Link("..")),
            ("p/out", At::Link("../..")),
            ("twice", At::Link("p/up/..")),
            ("beside", At::Link("p/./up")),
        ]),
    );
    room.settle();
    assert!(room.at("p/up").is_symlink() && room.at("beside").is_symlink());
    for out in ["p/out", "twice"] {
        assert!(!room.at(out).is_symlink(), "{out}");
        assert!(room.problem(out).unwrap_or_default().contains("leads out"), "{out}");
    }
}

#[test]
fn a_name_that_is_no_text_is_told_of_until_it_is_gone() {
    use std::os::unix::ffi::OsStrExt as _;
    let mut room = Room::synced(&[("d", At::Directory), ("d/a", At::File("1"))]);
    for directory in ["", "d"] {
        let odd = room.at(directory).join(std::ffi::OsStr::from_bytes(b"odd-\xff"));
        fs::write(&odd, "x").unwrap();
        room.look();
        assert!(room.problem(directory).is_some_and(|why| why.contains("UTF-8")), "{directory:?}");
        fs::remove_file(&odd).unwrap();
        room.look();
        assert_eq!(room.problem(directory), None, "{directory:?}");
    }
}
