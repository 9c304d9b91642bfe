use s0_api::sync::Capabilities;
use s0_tree::{Action, AttributeChange, Content, New, Reason};

use super::*;

fn registration(take_instance: bool) -> Registration {
    Registration {
        display_name: "laptop".into(),
        platform: "linux".into(),
        root_path: "/w".into(),
        case_sensitive: true,
        capabilities: Capabilities {
            case_sensitive: true,
            unicode_normalization_insensitive: false,
            windows_compatible_paths: false,
        },
        take_instance,
        sandbox_id: None,
    }
}

fn path(text: &str) -> TreePath {
    TreePath::new(text).unwrap()
}

fn create(at: &str, text: &str) -> Change {
    let what = New::File { content: Content::of(text.as_bytes()) };
    let set = AttributeChange::default();
    Change::new(Action::Create { path: path(at), what, set }, Expected::Absent)
}

fn write(at: &str, text: &str, expect: Expected) -> Change {
    let (content, set) = (Content::of(text.as_bytes()), AttributeChange::default());
    Change::new(Action::Write { path: path(at), content, set }, expect)
}

fn ids() -> impl FnMut() -> String {
    let mut next = 0;
    move || {
        next += 1;
        format!("conflict-{next}")
    }
}

fn submit(
    ledger: &mut Ledger,
    replica: &str,
    number: u64,
    changes: &[Change],
) -> Result<Submitted, SubmitError> {
    let submission = Submission { number, changes: changes.to_vec() };
    ledger.submit(replica, 1, &submission, Time(9), &mut ids(), &|_| true)
}

fn volume() -> Ledger {
    let mut ledger = Ledger::new("e".into()).owned_by(7, 8);
    for id in ["a", "b"] {
        ledger.register(id, &registration(true), Time(1));
    }
    ledger
}

#[test]
fn a_submission_becomes_entries_with_their_origin() {
    let mut ledger = volume();
    let done = submit(&mut ledger, "a", 1, &[create("x", "1"), create("y", "2")]).unwrap();
    assert_eq!(done.entries.iter().map(|entry| entry.seq.0).collect::<Vec<_>>(), [1, 2]);
    assert_eq!((done.answer.head, ledger.head()), (Seq(2), Seq(2)));
    let entry = &done.entries[0];
    assert_eq!(entry.source, Source::Replica);
    assert_eq!(entry.actor.replica.as_deref(), Some("a"));
    assert_eq!(entry.request, Some(RequestId("1".into())));
    let node = ledger.tree().at(&path("x")).unwrap().1;
    assert_eq!((node.attributes.uid, node.attributes.gid, node.attributes.mtime), (7, 8, Time(9)));
}

#[test]
fn a_replica_that_stands_for_a_sandbox_writes_as_that_sandbox() {
    let mut ledger = volume();
    let mut as_sandbox = registration(true);
    as_sandbox.sandbox_id = Some("sb".into());
    ledger.register("s", &as_sandbox, Time(1));
    let entry = submit(&mut ledger, "s", 1, &[create("x", "1")]).unwrap().entries.remove(0);
    assert_eq!((entry.source, entry.actor.sandbox.as_deref()), (Source::Sandbox, Some("sb")));
}

#[test]
fn a_repetition_is_answered_again_and_not_done_again() {
    let mut ledger = volume();
    let first = submit(&mut ledger, "a", 1, &[create("x", "1")]).unwrap();
    // Even when the contents are no longer held.
    let submission = Submission { number: 1, changes: vec![create("x", "1")] };
    let again = ledger.submit("a", 1, &submission, Time(10), &mut ids(), &|_| false).unwrap();
    assert!(again.repeated && !first.repeated);
    assert_eq!(again.answer, first.answer);
    assert!(again.entries.is_empty() && again.conflicts.is_empty());
    assert_eq!(ledger.head(), Seq(1));
}

#[test]
fn numbers_are_answered_in_order() {
    let mut ledger = volume();
    submit(&mut ledger, "a", 1, &[create("x", "1")]).unwrap();
    submit(&mut ledger, "a", 2, &[create("y", "1")]).unwrap();
    let superseded = submit(&mut ledger, "a", 1, &[create("x", "1")]);
    assert_eq!(superseded, Err(SubmitError::Superseded { last: 2 }));
    let reused = submit(&mut ledger, "a", 2, &[create("z", "1")]);
    assert_eq!(reused, Err(SubmitError::Reused { number: 2 }));
    // Another replica counts for itself.
    assert!(submit(&mut ledger, "b", 1, &[create("z", "1")]).is_ok());
    let known = ledger.register("a", &registration(false), Time(3));
    assert_eq!((known.instance, known.last_number, known.head), (1, 2, Seq(3)));
}

#[test]
fn a_newer_instance_fences_the_older() {
    let mut ledger = volume();
    assert_eq!(ledger.register("a", &registration(true), Time(2)).instance, 2);
    let fenced = submit(&mut ledger, "a", 1, &[create("x", "1")]);
    assert_eq!(fenced, Err(SubmitError::Fenced { current: 2 }));
    assert_eq!(submit(&mut ledger, "c", 1, &[]), Err(SubmitError::UnknownReplica));
}

#[test]
fn an_instance_that_was_never_given_out_has_to_register() {
    let mut ledger = volume();
    let submission = Submission { number: 1, changes: vec![create("x", "1")] };
    let mut sent =
        |instance| ledger.submit("a", instance, &submission, Time(9), &mut ids(), &|_| true);
    assert_eq!(sent(2), Err(SubmitError::UnknownReplica));
    assert_eq!(sent(u64::MAX), Err(SubmitError::UnknownReplica));
    assert!(sent(1).is_ok());
}

#[test]
fn what_fell_with_a_conflict_can_be_recorded_too() {
    let mut ledger = volume();
    submit(&mut ledger, "a", 1, &[create("x", "theirs")]).unwrap();
    let changes = [create("x", "1"), create("x/y", "2"), create("x/y/z", "3"), create("z", "4")];
    let mut ids = ids();
    let mut admitted =
        ledger.admit(&Origin::default(), &changes, &News::default(), &mut ids).unwrap();
    assert_eq!(admitted.conflicts.len(), 1);
    admitted.record_fallen(&changes, &mut ids);
    let told = |one: &NewConflict| (one.id.clone(), one.change.content(), one.fell_with.clone());
    let content = |text: &str| Some(Content::of(text.as_bytes()));
    let (first, fell) = ("conflict-1".to_owned(), Some("conflict-1".to_owned()));
    assert_eq!(
        admitted.conflicts.iter().map(told).collect::<Vec<_>>(),
        [
            (first, content("1"), None),
            ("conflict-2".into(), content("2"), fell.clone()),
            ("conflict-3".into(), content("3"), fell),
        ]
    );
    let both = admitted.conflicts.iter().map(|one| (one.reason, one.existing_content));
    let reason = Reason::ConcurrentUpdate;
    assert_eq!(
        both.collect::<Vec<_>>(),
        [(reason, content("theirs")), (reason, None), (reason, None)]
    );
    assert!(matches!(&admitted.outcomes[2], Outcome::Conflict { id, .. } if id == "conflict-3"));
    assert!(matches!(admitted.outcomes[3], Outcome::Accepted { .. }));
}

#[test]
fn missing_contents_and_invalid_changes_leave_no_trace() {
    let mut ledger = volume();
    let submission = Submission { number: 1, changes: vec![create("x", "1"), create("y", "1")] };
    let content = Content::of(b"1").id;
    let lacking = ledger.submit("a", 1, &submission, Time(2), &mut ids(), &|_| false);
    assert_eq!(lacking, Err(SubmitError::MissingContents { ids: vec![content] }));
    assert_eq!(ledger.head(), Seq(0));
    let root = Change::unstated(Action::Remove { path: TreePath::root() });
    let invalid = submit(&mut ledger, "a", 1, &[create("x", "1"), root]);
    assert!(matches!(invalid, Err(SubmitError::Invalid { index: 1, .. })));
    assert_eq!(ledger.head(), Seq(0));
    // The number is still free.
    assert!(submit(&mut ledger, "a", 1, &[create("x", "1")]).is_ok());
}

#[test]
fn a_conflict_names_both_contents_and_their_base() {
    let mut ledger = volume();
    submit(&mut ledger, "a", 1, &[create("x", "base")]).unwrap();
    let base = Expected::Node { id: NodeId(1), version: Seq(1) };
    submit(&mut ledger, "b", 1, &[write("x", "theirs", base)]).unwrap();
    let done = submit(&mut ledger, "a", 2, &[write("x", "mine", base), create("z", "")]).unwrap();
    let [conflict] = &done.conflicts[..] else { panic!("{:?}", done.conflicts) };
    assert_eq!(conflict.change.content(), Some(Content::of(b"mine")));
    assert_eq!(conflict.existing, Some((NodeId(1), Seq(2))));
    assert_eq!(conflict.existing_content, Some(Content::of(b"theirs")));
    assert_eq!(conflict.base, Some((NodeId(1), Seq(1))));
    assert_eq!(conflict.replica.as_deref(), Some("a"));
    assert!(matches!(
        &done.answer.outcomes[..],
        [
            Outcome::Conflict { id, reason: Reason::ConcurrentUpdate, .. },
            Outcome::Accepted { seq: Seq(3), .. },
        ] if *id == conflict.id
    ));
}

#[test]
fn a_clone_is_the_point_to_roll_back_to() {
    let mut ledger = volume();
    submit(&mut ledger, "a", 1, &[create("x", "1")]).unwrap();
    let mut attempt = ledger.clone();
    submit(&mut attempt, "a", 2, &[create("y", "1")]).unwrap();
    attempt.register("c", &registration(true), Time(5));
    assert_eq!(ledger.head(), Seq(1));
    assert!(ledger.replica("c").is_none());
    // What was dropped can be admitted again, as if for the first time.
    let again = submit(&mut ledger, "a", 2, &[create("y", "1")]).unwrap();
    assert!(!again.repeated);
    assert_eq!(ledger.tree(), attempt.tree());
}

#[test]
fn the_policy_is_that_of_the_replicas_that_are_registered() {
    let mut ledger = volume();
    assert_eq!(ledger.policy(), Policy::default());
    let mut windows = registration(false);
    windows.capabilities = Capabilities {
        case_sensitive: false,
        unicode_normalization_insensitive: true,
        windows_compatible_paths: true,
    };
    ledger.register("w", &windows, Time(2));
    let done = submit(&mut ledger, "a", 1, &[create("aux.txt", ""), create("ok", "")]).unwrap();
    assert_eq!(done.conflicts[0].reason, Reason::WindowsReservedName);
    assert!(ledger.unregister("w") && !ledger.unregister("w"));
    assert!(submit(&mut ledger, "a", 2, &[create("aux.txt", "")]).unwrap().conflicts.is_empty());
}

#[test]
fn cursors_only_go_forward_and_not_past_the_head() {
    let mut ledger = volume();
    submit(&mut ledger, "a", 1, &[create("x", "1"), create("y", "")]).unwrap();
    assert_eq!(ledger.set_cursor("a", Seq(3), Time(3)), Err(CursorError::AheadOfHead));
    assert_eq!(ledger.set_cursor("a", Seq(2), Time(3)), Ok(()));
    assert_eq!(ledger.set_cursor("a", Seq(1), Time(3)), Err(CursorError::Regression));
    assert_eq!(ledger.set_cursor("q", Seq(1), Time(3)), Err(CursorError::UnknownReplica));
    ledger.register("a", &registration(true), Time(4));
    assert_eq!(ledger.replica("a").unwrap().cursor, Seq(2));
}

#[test]
fn a_rebuilt_ledger_is_the_one_that_was_stored() {
    let mut ledger = volume();
    let mut entries = submit(&mut ledger, "a", 1, &[create("x", "1")]).unwrap().entries;
    let checkpoint = ledger.tree().clone();
    entries.clear();
    entries.extend(submit(&mut ledger, "a", 2, &[create("y", "1")]).unwrap().entries);
    let replicas: Vec<_> = ledger.replicas().cloned().collect();
    let rebuilt =
        Ledger::rebuild("e".into(), checkpoint, entries.clone().into_iter(), replicas).unwrap();
    assert_eq!(rebuilt.tree(), ledger.tree());
    let mut rebuilt = rebuilt;
    assert!(submit(&mut rebuilt, "a", 2, &[create("y", "1")]).unwrap().repeated);
    let gap = Ledger::rebuild("e".into(), Tree::default(), entries.into_iter(), Vec::new());
    assert!(matches!(gap, Err(Misfit::Gap { .. })));
}

#[test]
fn a_conflict_of_one_replica_stops_no_other() {
    let mut ledger = volume();
    submit(&mut ledger, "a", 1, &[create("x", "1"), create("shared", "1")]).unwrap();
    let stale = Expected::Node { id: NodeId(1), version: Seq(9) };
    for number in 1..=300 {
        let done = submit(&mut ledger, "b", number, &[write("x", "mine", stale)]).unwrap();
        assert_eq!(done.conflicts.len(), 1);
    }
    // Neither the others, nor what else it has to say itself.
    let shared = Expected::Node { id: NodeId(2), version: Seq(2) };
    let done = submit(&mut ledger, "a", 2, &[write("shared", "2", shared), create("y", "")]);
    assert!(done.unwrap().conflicts.is_empty());
    let own = Expected::Node { id: NodeId(1), version: Seq(1) };
    assert!(submit(&mut ledger, "a", 3, &[write("x", "2", own)]).unwrap().conflicts.is_empty());
    assert!(submit(&mut ledger, "b", 301, &[create("z", "")]).unwrap().conflicts.is_empty());
    assert_eq!(ledger.head(), Seq(6));
}
