//! The engine on a real disk: what stands in its way belongs to its path, and
//! is no removal.

mod mount;
mod room;
mod volume;

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use mount::Mount;
use room::{Room, path, workspace};
use s0_replica::disk::IntentId;
use s0_replica::engine::{Event, Hint, Init};
use s0_replica::state::{Intent, Phase, Record, Remote, Store};
use s0_tree::Place;
use volume::{At, tree};

#[test]
fn what_a_mount_covers_is_not_removed_and_what_it_holds_is_not_synced() {
    let mut room = Room::synced(&[
        ("d", At::Directory),
        ("d/f", At::File("x")),
        ("d/inner", At::Directory),
        ("d/inner/g", At::File("y")),
        ("top", At::File("z")),
    ]);
    let Some(mount) = Mount::tmpfs(&room.at("d")) else { return };
    fs::create_dir(room.at("new")).unwrap();
    let _other = Mount::tmpfs(&room.at("new")).unwrap();
    for theirs in ["d/f", "d/theirs", "new/theirs"] {
        fs::write(room.at(theirs), "not the workspace's").unwrap();
    }
    let touched = ["d", "d/f", "d/inner/g", "d/theirs", "new", "new/theirs"];
    room.tell(Event::Touched(touched.map(|at| (path(at), Hint::Complete)).into()));
    assert_eq!(room.settle(), Vec::<String>::new());
    assert_eq!(room.look(), Vec::<String>::new());
    for mounted in ["d", "new"] {
        let problem = room.problem(mounted).unwrap_or_default();
        assert!(problem.contains("file system is mounted"), "{mounted}: {problem}");
    }
    assert!(room.engine.row_for(&path("d/inner/g")).is_some());
    let differences = room.engine.verify().unwrap();
    assert_eq!(differences.iter().map(|it| it.path.as_str()).collect::<Vec<_>>(), ["d", "new"]);

    drop(mount);
    fs::write(room.at("d/f"), "edited").unwrap();
    let sent = room.look();
    assert_eq!(sent.len(), 1, "{sent:?}");
    assert_eq!(room.problem("d"), None);
}

#[test]
fn what_was_about_to_be_written_where_nothing_can_be_seen_is_left_for_later() {
    let all = [("d", At::Directory), ("d/dead", At::Directory), ("d/dead/f", At::File("x"))];
    let mut room = Room::synced(&all);
    let row = room.engine.row_for(&path("d/dead/f")).unwrap();
    let parent = room.engine.row_for(&path("d/dead")).unwrap().node;
    let place = Place { parent, name: path("f").name().unwrap() };
    let after =
        Remote { node: row.node, version: row.version, what: row.what.clone(), mode: 0o600 };
    let intent = Intent {
        place,
        path: path("d/dead/f"),
        before: Some(row.clone()),
        after: Some(after),
        phase: Phase::Planned,
        actor: None,
    };
    let intent = Record::Intent(IntentId(8), Some(intent));
    room.engine.store().commit(&[intent], &[], true).unwrap();
    let Some(mount) = Mount::dead(&room.at("d/dead")) else { return };
    let mut room = room.reopened();
    assert!(room.problem("d/dead/f").is_some());
    assert_eq!(room.engine.state().intents.len(), 1);
    drop(mount);
    room = room.reopened();
    assert_eq!(room.problem("d/dead/f"), None);
    assert_eq!(room.engine.state().intents.len(), 0);
    assert_eq!(fs::read_to_string(room.at("d/dead/f")).unwrap(), "x");
}

#[test]
fn a_name_that_cannot_be_read_is_its_own_problem() {
    let mut room = Room::synced(&[
        ("d", At::Directory),
        ("d/dead", At::Directory),
        ("d/dead/f", At::File("x")),
        ("d/other", At::File("y")),
    ]);
    let Some(_mount) = Mount::dead(&room.at("d/dead")) else { return };
    fs::write(room.at("d/other"), "edited").unwrap();
    let sent = room.look();
    assert!(sent.len() == 1 && sent[0].contains("other"), "{sent:?}");
    assert!(room.problem("d/dead").is_some() && room.problem("d").is_none());
    assert!(room.engine.row_for(&path("d/dead/f")).is_some());
}

#[test]
fn verify_goes_on_after_what_cannot_be_read() {
    let mut room =
        Room::synced(&[("a", At::Directory), ("a/link", At::Link("target")), ("b", At::File("x"))]);
    fs::remove_file(room.at("a/link")).unwrap();
    symlink(Path::new(std::ffi::OsStr::from_bytes(b"not utf-8: \xff")), room.at("a/link")).unwrap();
    fs::write(room.at("b"), "y").unwrap();
    let differences = room.engine.verify().unwrap();
    let told: Vec<_> = differences.iter().map(|it| (it.path.as_str(), it.why.as_str())).collect();
    assert_eq!(
        told,
        [("a/link", "the target of the link is not UTF-8"), ("b", "the contents differ")]
    );
}

#[test]
fn what_waits_for_the_users_word_costs_little() {
    let dir = workspace();
    for number in 0..8000 {
        fs::write(dir.path().join(format!("root/{number}")), "x").unwrap();
    }
    let mut room = Room::connected(dir, Init::Volume, tree(&[("theirs", At::File("y"))]));
    room.settle();
    assert_eq!(room.engine.status().withheld.len(), 8000);
    let begun = Instant::now();
    for _ in 0..20 {
        assert_eq!(room.engine.pending().uploads, 0);
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[test]
fn the_ends_of_a_move_that_are_heard_of_apart_are_looked_at_together() {
    let all = [("d", At::Directory), ("d/a", At::File("x")), ("d/e", At::Directory)];
    for (from, to) in [("d/a", "b"), ("d", "c"), ("d/a", "d/e/a")] {
        let mut room = Room::synced(&all);
        fs::rename(room.at(from), room.at(to)).unwrap();
        let (from, to) = (path(from), path(to));
        room.tell(Event::Touched(vec![(from.clone(), Hint::Unsettled)]));
        room.now += 30;
        room.engine.step(room.now).unwrap();
        let moved = [(to.clone(), Hint::Complete), (to.clone(), Hint::MovedFrom(from.clone()))];
        room.tell(Event::Touched(moved.into()));
        let sent = room.settle();
        assert!(sent.len() == 1 && sent[0].contains("Rename"), "{from} -> {to}: {sent:?}");
    }
}
