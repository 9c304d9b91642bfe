//! What a synchroniser of this kind has done to its users: on a real disk, with
//! a Volume that judges as the service does. `tests/deck.md` says which is which.

mod played;
mod room;
mod volume;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;

use played::Played;
use room::path;
use s0_replica::engine::{Condition, Event, Halt, Init, Pause, Pending, WayOut};
use s0_replica::state::{ConflictStatus, What};
use s0_tree::{Action, AttributeChange, Content, New, Reason, RenameHow};
use volume::At;

fn remove(at: &str) -> Action {
    Action::Remove { path: path(at) }
}

fn link(at: &str, target: &str) -> Action {
    let what = New::Symlink { target: target.into() };
    Action::Create { path: path(at), what, set: AttributeChange::default() }
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn file(text: &str) -> What {
    What::File(Content::of(text.as_bytes()))
}

/// The names in the workspace, without what is ours.
fn names(played: &Played) -> Vec<String> {
    let all = fs::read_dir(played.room.at("")).unwrap();
    let names = all.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name != ".s0").collect();
    names.sort();
    names
}

#[test]
fn a_conflict_takes_nothing_from_either_side() {
    let mut played = Played::synced(&[
        (".gitignore", At::File(".env\n")),
        ("a", At::File("base")),
        ("b", At::File("base")),
    ]);
    fs::write(played.room.at(".env"), "secret").unwrap();
    played.agent_writes("a", "theirs");
    fs::write(played.room.at("a"), "mine").unwrap();
    played.look();
    assert_eq!(played.refused, [("a".to_owned(), Reason::ConcurrentUpdate)]);
    // The entries go on, and so does the replica's life.
    played.agent_writes("b", "theirs too");
    played.agent_writes("a", "theirs, later");
    played.rest();
    played.reseed();
    let mut played = played.restarted();
    played.look();
    assert_eq!((played.disk("a"), played.volume("a")), (some("mine"), some("theirs, later")));
    assert_eq!((played.disk("b"), played.disk(".env")), (some("theirs too"), some("secret")));
    let conflict = played.room.engine.state().conflicts[&path("a")].clone();
    assert_eq!(conflict.status, ConflictStatus::Open);
    assert_eq!(conflict.base, Some(file("base")));
    assert_eq!(conflict.mine, Some(file("mine")));
    // No record of it is put among the user's files.
    assert_eq!(names(&played), [".env", ".gitignore", "a", "b"]);
    assert_eq!(played.tree.len(), 3);
}

#[test]
fn a_conflict_holds_back_no_more_than_it_is_told_to() {
    for pause in [Pause::Workspace, Pause::Path] {
        let all = [("a", At::File("1")), ("b", At::File("1")), ("c", At::File("1"))];
        let mut played = Played::pausing(pause, &all);
        played.agent_writes("a", "theirs");
        fs::write(played.room.at("a"), "mine").unwrap();
        played.look();
        assert_eq!(played.refused.len(), 1);
        // What comes down is never held back.
        fs::write(played.room.at("b"), "mine").unwrap();
        played.agent_writes("c", "theirs");
        played.look();
        played.rest();
        assert_eq!(played.disk("c"), some("theirs"), "{pause:?}");
        let sent = if pause == Pause::Path { "mine" } else { "1" };
        assert_eq!(played.volume("b"), some(sent), "{pause:?}");
        let now = played.room.now;
        played.room.engine.resolve(&path("a"), WayOut::Mark, now).unwrap();
        played.look();
        assert_eq!((played.volume("a"), played.volume("b")), (some("mine"), some("mine")));
    }
}

#[test]
fn an_answer_skips_nothing_that_others_wrote() {
    let mut played =
        Played::synced(&[("a", At::File("1")), ("b", At::File("1")), ("c", At::File("1"))]);
    // Entries of others are between what is known here and the head that is answered.
    played.agent_writes("a", "the agent's");
    played.agent_writes("c", "the agent's");
    fs::write(played.room.at("b"), "mine").unwrap();
    fs::write(played.room.at("c"), "mine").unwrap();
    fs::write(played.room.at("new"), "mine").unwrap();
    // What was accepted is not taken for removed before its entry is here; were it removed,
    // nothing could bring it back.
    played.fetches = false;
    played.look();
    assert_eq!((played.disk("new"), played.volume("new")), (some("mine"), some("mine")));
    played.fetches = true;
    played.rest();
    assert_eq!((played.disk("a"), played.volume("b")), (some("the agent's"), some("mine")));
    assert_eq!(played.refused, [("c".to_owned(), Reason::ConcurrentUpdate)]);
    assert_eq!((played.disk("c"), played.volume("c")), (some("mine"), some("the agent's")));
    assert_eq!(played.room.engine.status().cursor, played.tree.head());
}

#[test]
fn a_new_tree_clears_nothing() {
    let mut played = Played::synced(&[
        (".gitignore", At::File(".env\nnode_modules/\n")),
        ("edited", At::File("1")),
        ("removed", At::File("1")),
        ("theirs", At::File("1")),
        ("theirs gone", At::File("1")),
    ]);
    played.room.tell(Event::Offline);
    fs::create_dir(played.room.at("node_modules")).unwrap();
    for (name, text) in
        [(".env", "secret"), ("node_modules/m", "m"), ("edited", "mine"), ("new", "mine")]
    {
        fs::write(played.room.at(name), text).unwrap();
    }
    fs::remove_file(played.room.at("removed")).unwrap();
    played.agent_writes("theirs", "2");
    played.agent(remove("theirs gone"));
    played.reseed();
    played.look();
    assert_eq!(played.refused, []);
    let expected = [".env", ".gitignore", "edited", "new", "node_modules", "theirs"];
    assert_eq!(names(&played), expected);
    assert_eq!(played.disk("node_modules/m"), some("m"));
    for (name, text) in [("edited", "mine"), ("new", "mine"), ("theirs", "2")] {
        assert_eq!((played.disk(name), played.volume(name)), (some(text), some(text)), "{name}");
    }
    assert_eq!((played.volume("removed"), played.tree.len()), (None, 4));
}

#[test]
fn a_file_that_is_renamed_over_another_replaces_that_one_only() {
    let mut played = Played::synced(&[(".gitignore", At::File(".env\n")), ("a", At::File("1"))]);
    fs::write(played.room.at(".env"), "secret").unwrap();
    fs::write(played.room.at("fresh"), "not sent yet").unwrap();
    played.agent_writes("a.tmp", "2");
    let (from, to) = (path("a.tmp"), path("a"));
    played.agent(Action::Rename { from, to, how: RenameHow::Replace });
    played.rest();
    assert_eq!(names(&played), [".env", ".gitignore", "a", "fresh"]);
    assert_eq!((played.disk("a"), played.disk("fresh")), (some("2"), some("not sent yet")));
    played.look();
    assert_eq!((played.refused.len(), played.volume("fresh")), (0, some("not sent yet")));
}

#[test]
fn what_came_down_half_is_no_removal() {
    let all = [
        ("d", At::Directory),
        ("d/x", At::File("x")),
        ("out", At::Link("../../..")),
        ("y", At::File("y")),
        ("z", At::Link("y")),
    ];
    let mut played = Played::meeting(&[], Init::Auto, &all);
    played.fetches = false;
    played.rest();
    assert!(played.room.at("d").is_dir() && played.disk("d/x").is_none());
    played = played.restarted();
    played.look();
    assert_eq!((played.sent.len(), played.tree.len()), (0, 5));
    played.fetches = true;
    played = played.restarted();
    played.look();
    assert_eq!((played.sent.len(), played.tree.len()), (0, 5));
    assert_eq!((played.disk("d/x"), played.disk("z")), (some("x"), some("y")));
}

#[test]
fn an_emptied_workspace_empties_no_volume() {
    let names: Vec<String> = (0..12).map(|number| format!("f{number}")).collect();
    let all: Vec<_> = names.iter().map(|name| (name.as_str(), At::File("x"))).collect();
    let mut played = Played::synced(&all);
    names.iter().for_each(|name| fs::remove_file(played.room.at(name)).unwrap());
    played.look();
    let halt = played.room.engine.status().halt;
    assert!(matches!(halt, Some(Halt::Vanished { paths: 12, .. })), "{halt:?}");
    assert_eq!((played.sent.len(), played.tree.len()), (0, 12));
    // The whole directory is gone, and is not made again.
    let played = Played::synced(&all);
    fs::rename(played.room.at(""), played.room.dir.path().join("away")).unwrap();
    let mut played = played;
    played.room.tell(Event::Rescan(path("")));
    while played.room.engine.status().halt.is_none() {
        assert_eq!(played.room.settle(), Vec::<String>::new());
    }
    assert_eq!(played.room.engine.status().halt, Some(Halt::RootGone));
    assert!(!played.room.at("").exists());
}

#[test]
fn what_is_edited_while_entries_come_is_sent() {
    let mut played = Played::synced(&[("a", At::File("1")), ("b", At::File("1"))]);
    played.agent_writes("a", "AAAA");
    played.rest();
    assert_eq!(played.disk("a"), some("AAAA"));
    // At once, as long as before, and unseen by any watcher.
    fs::write(played.room.at("a"), "BBBB").unwrap();
    fs::write(played.room.at("b"), "2").unwrap();
    fs::write(played.room.at("c"), "new").unwrap();
    played.agent_writes("d", "theirs");
    played.rest();
    played.look();
    fs::write(played.room.at("e"), "also new").unwrap();
    fs::write(played.room.at("b"), "3").unwrap();
    let mut played = played.restarted();
    played.look();
    let all = [("a", "BBBB"), ("b", "3"), ("c", "new"), ("d", "theirs"), ("e", "also new")];
    for (name, text) in all {
        assert_eq!((played.disk(name), played.volume(name)), (some(text), some(text)), "{name}");
    }
    assert_eq!(played.refused, []);
}

#[test]
fn nothing_is_replaced_or_removed_unseen() {
    let mut played = Played::synced(&[
        (".gitignore", At::File("*.log\n")),
        ("a", At::File("1")),
        ("b", At::File("1")),
        ("d", At::Directory),
        ("d/x", At::File("1")),
    ]);
    // No watcher tells of these.
    for (name, text) in [("a", "mine"), ("b", "mine"), ("d/it.log", "ignored"), ("d/new", "mine")] {
        fs::write(played.room.at(name), text).unwrap();
    }
    played.agent_writes("a", "theirs");
    played.agent(remove("b"));
    played.agent(remove("d/x"));
    played.agent(remove("d"));
    played.rest();
    assert_eq!((played.disk("a"), played.disk("b")), (some("mine"), some("mine")));
    assert_eq!((played.disk("d/it.log"), played.disk("d/new")), (some("ignored"), some("mine")));
    assert_eq!(played.disk("d/x"), None);
    played.look();
    assert_eq!((played.disk("d/it.log"), played.disk("d/new")), (some("ignored"), some("mine")));
    assert_eq!((played.disk("a"), played.volume("a")), (some("mine"), some("theirs")));
}

#[test]
fn what_others_make_comes_whole_or_not_yet() {
    let mut played = Played::synced(&[("a", At::File("1"))]);
    played.fetches = false;
    played.agent_writes("new/deep", "text");
    played.agent_writes("a", "2");
    played.rest();
    assert_eq!((played.disk("new/deep"), played.disk("a")), (None, some("1")));
    assert_ne!(played.room.engine.status().condition, Condition::InSync);
    played.fetches = true;
    played.rest();
    assert_eq!((played.disk("new/deep"), played.disk("a")), (some("text"), some("2")));
    played.look();
    assert_eq!(played.sent.len(), 0);
    assert_eq!(played.room.engine.pending(), Pending::default());
}

#[test]
fn a_first_meeting_agrees_on_nothing_that_differs() {
    for init in [Init::Auto, Init::Volume] {
        let all =
            [("same", At::File("x")), ("other", At::File("theirs")), ("third", At::File("3"))];
        let mut played = Played::meeting(&[("same", "x"), ("other", "mine")], init, &all);
        played.rest();
        played.look();
        let refused: Vec<&str> = played.refused.iter().map(|(at, _)| at.as_str()).collect();
        assert_eq!(refused, ["other"], "{init:?}");
        assert_eq!((played.disk("other"), played.volume("other")), (some("mine"), some("theirs")));
        assert_eq!((played.disk("third"), played.sent.len()), (some("3"), 1));
    }
}

#[test]
fn a_file_becomes_a_directory_and_the_other_way_round() {
    let all = [("d", At::Directory), ("d/f", At::File("1")), ("x", At::File("1"))];
    let mut played = Played::synced(&all);
    fs::remove_file(played.room.at("x")).unwrap();
    fs::create_dir(played.room.at("x")).unwrap();
    fs::write(played.room.at("x/in"), "2").unwrap();
    fs::remove_dir_all(played.room.at("d")).unwrap();
    fs::write(played.room.at("d"), "2").unwrap();
    played.look();
    assert_eq!(played.refused, []);
    assert_eq!((played.volume("x/in"), played.volume("d")), (some("2"), some("2")));
    assert_eq!((played.tree.len(), played.room.engine.pending()), (3, Pending::default()));
}

#[test]
fn a_removed_directory_takes_nothing_of_others_along() {
    let all = [("d", At::Directory), ("d/a", At::File("1")), ("other", At::File("1"))];
    let mut played = Played::synced(&all);
    played.agent_writes("d/new", "the agent's");
    fs::remove_dir_all(played.room.at("d")).unwrap();
    fs::write(played.room.at("other"), "2").unwrap();
    played.look();
    assert_eq!(played.volume("d/new"), some("the agent's"));
    // What was sent with it is not held up.
    assert_eq!((played.volume("d/a"), played.volume("other")), (None, some("2")));
}

#[test]
fn what_cannot_be_synced_stops_nothing_else_and_is_told_until_it_is_gone() {
    let mut played = Played::synced(&[(".gitignore", At::File("venv/\n")), ("a", At::File("1"))]);
    fs::create_dir_all(played.room.at("venv/bin")).unwrap();
    symlink("/usr/bin/python3", played.room.at("venv/bin/python")).unwrap();
    symlink("nowhere", played.room.at("dangling")).unwrap();
    let socket = UnixListener::bind(played.room.at("socket")).unwrap();
    fs::write(played.room.at("a"), "2").unwrap();
    played.look();
    assert_eq!(played.volume("a"), some("2"));
    assert!(played.tree.lookup(&path("dangling")).is_some());
    assert!(played.tree.lookup(&path("venv")).is_none());
    // No success of something else takes the word back.
    for turn in 0..3 {
        assert!(played.room.problem("socket").is_some(), "{turn}");
        fs::write(played.room.at("a"), format!("turn {turn}")).unwrap();
        played.agent_writes("b", &format!("turn {turn}"));
        played.look();
        played.rest();
        played.reseed();
    }
    drop(socket);
    fs::remove_file(played.room.at("socket")).unwrap();
    played.look();
    assert_eq!(played.room.engine.status().problems.len(), 0);
    assert_eq!(played.room.engine.status().condition, Condition::InSync);
}

#[test]
fn one_entry_that_cannot_come_makes_no_edits_of_the_others() {
    let mut played = Played::synced(&[("a", At::File("1"))]);
    played.agent_writes("a", "2");
    played.agent(link("out", "../../.."));
    played.agent_writes("b", "2");
    played.rest();
    assert!(played.room.problem("out").is_some());
    assert_eq!((played.disk("a"), played.disk("b")), (some("2"), some("2")));
    let mut played = played.restarted();
    played.look();
    assert_eq!((played.sent.len(), played.refused.len()), (0, 0));
    assert_eq!(played.room.engine.status().cursor, played.tree.head());
}

#[test]
fn a_mode_alone_crosses_both_ways() {
    let mut played = Played::synced(&[("a", At::File("1")), ("b", At::File("1"))]);
    fs::set_permissions(played.room.at("a"), fs::Permissions::from_mode(0o755)).unwrap();
    played.agent(Action::Attributes { path: path("b"), set: AttributeChange::mode(0o755) });
    played.look();
    played.rest();
    for name in ["a", "b"] {
        let mode = fs::metadata(played.room.at(name)).unwrap().permissions().mode() & 0o7777;
        let there = played.tree.at(&path(name)).unwrap().1.attributes.mode;
        assert_eq!((mode, there), (0o755, 0o755), "{name}");
    }
}

#[test]
fn what_is_not_ignored_any_more_is_sent() {
    let mut played = Played::synced(&[(".gitignore", At::File("*.log\n/out/\n"))]);
    fs::create_dir(played.room.at("out")).unwrap();
    fs::write(played.room.at("a.log"), "1").unwrap();
    fs::write(played.room.at("out/o"), "1").unwrap();
    played.look();
    assert_eq!(played.sent.len(), 0);
    fs::write(played.room.at(".gitignore"), "*.log\n").unwrap();
    played.look();
    assert_eq!((played.volume("out/o"), played.volume("a.log")), (some("1"), None));
    fs::remove_file(played.room.at(".gitignore")).unwrap();
    played.look();
    assert_eq!((played.volume("a.log"), played.tree.len()), (some("1"), 3));
}

#[test]
fn nothing_comes_into_a_repository() {
    let mut played = Played::synced(&[("a", At::File("1")), ("sub", At::Directory)]);
    for repository in [".git", "sub/.git"] {
        fs::create_dir(played.room.at(repository)).unwrap();
        fs::write(played.room.at(repository).join("HEAD"), "mine").unwrap();
    }
    for repository in [".git", "sub/.git", ".GIT", "new/.git"] {
        played.agent_writes(&format!("{repository}/HEAD"), "theirs");
        played.agent_writes(&format!("{repository}/hooks/post-checkout"), "evil");
    }
    played.agent_writes("hook", "evil");
    let (from, to) = (path("hook"), path(".git/hooks/pre-commit"));
    played.agent(Action::Rename { from, to, how: RenameHow::NoReplace });
    played.agent_writes("b", "after those");
    played.rest();
    played.reseed();
    played.look();
    assert_eq!(played.disk("b"), some("after those"));
    for repository in [".git", "sub/.git"] {
        assert_eq!(played.disk(&format!("{repository}/HEAD")), some("mine"));
        assert!(!played.room.at(repository).join("hooks").exists(), "{repository}");
    }
    assert!(!played.room.at(".GIT").exists() && !played.room.at("new/.git").exists());
    assert_eq!(played.sent.len(), 0);
}
