//! The state database gives back what was committed.

use std::collections::BTreeSet;

use proptest::prelude::*;
use s0_api::sync::{Answer, Outcome, Submission};
use s0_replica::disk::{Abilities, IntentId, RootIdentity, Seen, Stat};
use s0_replica::shell::store::SqliteStore;
use s0_replica::state::{
    Applied, Conflict, ConflictStatus, Facts, Intent, Outgoing, Phase, Print, Record, Remote, Row,
    Sent, Settlement, State, Store, What,
};
use s0_tree::{Actor, Content, Name, NodeId, Place, Reason, Seq, TreePath};

/// What can be compared of a state.
fn shape(state: &State) -> impl PartialEq + std::fmt::Debug + use<> {
    let rows: Vec<_> = state.synced.iter().map(|(place, row)| (place, row.clone())).collect();
    let places: Vec<BTreeSet<Place>> = rows
        .iter()
        .map(|(_, row)| state.synced.places(row.node).iter().cloned().collect())
        .collect();
    (
        (rows, places, state.synced.len()),
        state.intents.clone(),
        state.outgoing.clone(),
        state.conflicts.clone(),
        state.settled.clone(),
        state.withheld.clone(),
        state.kept.clone(),
        state.applied.clone(),
        state.facts.clone(),
    )
}

fn name() -> impl Strategy<Value = Name> {
    prop::sample::select(vec!["a", "b", "é", "with space", "c.txt"])
        .prop_map(|text| Name::new(text).unwrap())
}

fn path() -> impl Strategy<Value = TreePath> {
    prop::collection::vec(name(), 1..3)
        .prop_map(|names| names.iter().fold(TreePath::root(), |path, name| path.join(name)))
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..6_u64, Just(u64::MAX), Just(1 << 63)]
}

fn node() -> impl Strategy<Value = NodeId> {
    number().prop_map(NodeId)
}

fn place() -> impl Strategy<Value = Place> {
    (node(), name()).prop_map(|(parent, name)| Place { parent, name })
}

fn content() -> impl Strategy<Value = Content> {
    (0..5_u8).prop_map(|byte| Content::of(&[byte]))
}

fn what() -> impl Strategy<Value = What> {
    prop_oneof![
        content().prop_map(What::File),
        Just(What::Directory),
        Just(What::Symlink("../x".into())),
    ]
}

fn stat() -> impl Strategy<Value = Stat> {
    (number(), any::<i64>(), any::<i64>(), number(), any::<Option<i64>>()).prop_map(
        |(size, mtime, ctime, inode, born)| Stat {
            kind: Seen::File,
            mode: 0o644,
            size,
            mtime,
            ctime,
            inode,
            born,
        },
    )
}

fn print() -> impl Strategy<Value = Print> {
    (stat(), any::<i64>(), any::<bool>()).prop_map(|(stat, seen, open)| Print { stat, seen, open })
}

fn row() -> impl Strategy<Value = Row> {
    (node(), number(), what(), prop::option::of(print())).prop_map(
        |(node, version, what, print)| Row {
            // A node is of one kind, and the root has no row.
            node: NodeId(if what.is_directory() { 1 + node.0 % 8 } else { 8 | node.0 }),
            version: Seq(version),
            what,
            mode: 0o600,
            print,
        },
    )
}

fn applied() -> impl Strategy<Value = Applied> {
    let side = || prop::option::of((what(), 0..0o1000_u32));
    (path(), prop::option::of(path()), side(), side(), number()).prop_map(
        |(path, from, before, after, version)| Applied {
            path,
            from,
            before,
            after,
            actor: Actor { sandbox: Some("sb".into()), ..Actor::default() },
            version: Seq(version),
        },
    )
}

fn intent() -> impl Strategy<Value = Intent> {
    (place(), path(), prop::option::of(row()), prop::option::of((node(), what())), any::<bool>())
        .prop_map(|(place, path, before, after, swapped)| Intent {
            place,
            path,
            before,
            after: after.map(|(node, what)| Remote { node, version: Seq(3), what, mode: 0o755 }),
            phase: if swapped { Phase::Swapped } else { Phase::Planned },
            actor: None,
        })
}

fn outgoing() -> impl Strategy<Value = Outgoing> {
    let sent = (path(), prop::option::of((what(), print())), prop::option::of(place())).prop_map(
        |(path, local, from)| Sent {
            path,
            local: local.map(|(what, print)| (what, 0o644, Some(print))),
            renamed: from.is_some(),
            parent: from.as_ref().map(|from| from.parent),
            from,
        },
    );
    (number(), prop::collection::vec(sent, 0..3), any::<bool>()).prop_map(
        |(number, sent, answered)| Outgoing {
            submission: Submission { number, changes: Vec::new() },
            sent,
            inline: Vec::new(),
            answer: answered.then(|| Answer {
                head: Seq(9),
                outcomes: vec![Outcome::Held { node: None, version: Seq(9) }],
            }),
        },
    )
}

fn record() -> impl Strategy<Value = Record> {
    let conflict = (prop::option::of(what()), prop::option::of(what()), path()).prop_map(
        |(base, mine, other)| Conflict {
            id: "c1".into(),
            reason: Reason::ConcurrentUpdate,
            status: ConflictStatus::Open,
            base,
            mine,
            other,
            time: -1,
        },
    );
    let facts = (prop::option::of("[a-z]{0,3}"), number(), number(), any::<bool>()).prop_map(
        |(epoch, cursor, last, initialised)| Facts {
            root: epoch.clone().map(|marker| RootIdentity {
                marker: Some(marker),
                device: cursor,
                inode: 3,
            }),
            epoch,
            cursor: Seq(cursor),
            number: last,
            last_intent: IntentId(last),
            abilities: initialised.then_some(Abilities {
                case_sensitive: true,
                case_preserving: true,
                unicode_insensitive: false,
                windows_names: last % 2 == 0,
                modes: true,
                symlinks: true,
                exchange: cursor % 2 == 0,
                grain: 7,
            }),
            initialised,
            boot: initialised.then(|| "boot".into()),
        },
    );
    prop_oneof![
        6 => (place(), prop::option::of(row())).prop_map(|(place, row)| Record::Synced(place, row)),
        1 => (place(), place(), row())
            .prop_map(|(from, to, row)| Record::Moved { from, to, row }),
        2 => (number(), prop::option::of(intent()))
            .prop_map(|(id, intent)| Record::Intent(IntentId(id), intent)),
        2 => prop::option::of(outgoing())
            .prop_map(|outgoing| Record::Outgoing(outgoing.map(Box::new))),
        1 => (path(), prop::option::of(conflict)).prop_map(|(p, c)| Record::Conflict(p, c)),
        1 => ("[a-c]", any::<Option<bool>>()).prop_map(|(id, ignored)| Record::Settled(
            id,
            ignored.map(|ignored| Settlement { ignored, resolution: "kept_mine".into() }),
        )),
        1 => (path(), any::<bool>()).prop_map(|(path, is)| Record::Withheld(path, is)),
        1 => (path(), any::<bool>()).prop_map(|(path, is)| Record::Kept(path, is)),
        1 => (number(), prop::option::of(applied())).prop_map(|(at, applied)| {
            Record::Applied(at, applied.map(Box::new))
        }),
        1 => facts.prop_map(Record::Facts),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]
    #[test]
    fn a_loaded_state_is_the_applied_state(
        batches in prop::collection::vec(
            (prop::collection::vec(record(), 0..12), any::<bool>()),
            1..8,
        )
    ) {
        let dir = tempfile::tempdir().unwrap();
        let db = dir.path().join("state.db");
        let mut applied = State::default();
        let mut store = SqliteStore::open(&db).unwrap();
        for (records, durable) in &batches {
            records.iter().for_each(|record| applied.apply(record.clone()));
            let (rows, _) = applied.synced.take_changes();
            store.commit(records, &rows, *durable).unwrap();
        }
        prop_assert_eq!(shape(&store.load().unwrap()), shape(&applied));
        drop(store);
        let mut reopened = SqliteStore::open(&db).unwrap();
        prop_assert_eq!(shape(&reopened.load().unwrap()), shape(&applied));
    }
}

#[test]
fn one_process_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("state.db");
    let first = SqliteStore::open(&db).unwrap();
    let error = SqliteStore::open(&db).unwrap_err().to_string();
    assert!(error.contains("another process"), "{error}");
    drop(first);
    SqliteStore::open(&db).unwrap();
}

#[test]
fn a_database_of_the_first_schema_is_read_on() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("state.db");
    let mut store = SqliteStore::open(&db).unwrap();
    let kept = TreePath::new("kept").unwrap();
    let (place, row) = (
        Place { parent: NodeId::ROOT, name: Name::new("f").unwrap() },
        Row {
            node: NodeId(1 << 63),
            version: Seq(7),
            what: What::File(Content::of(b"text")),
            mode: 0o640,
            print: None,
        },
    );
    let records =
        [Record::Kept(kept.clone(), true), Record::Synced(place.clone(), Some(row.clone()))];
    store.commit(&records, &[(place.clone(), Some(row.clone()))], true).unwrap();
    drop(store);
    let old = rusqlite::Connection::open(&db).unwrap();
    old.execute("UPDATE synced SET row = ?", [serde_json::to_string(&row).unwrap()]).unwrap();
    old.execute_batch(
        "DROP TABLE applied; CREATE TABLE outgoing_inline (bytes); PRAGMA user_version = 1",
    )
    .unwrap();
    drop(old);
    for _ in 0..2 {
        let mut store = SqliteStore::open(&db).unwrap();
        let state = store.load().unwrap();
        assert!(state.kept.contains(&kept));
        assert_eq!(state.synced.iter().collect::<Vec<_>>(), [(place.clone(), &row)]);
    }
}

#[test]
fn newer_and_damaged_databases_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("state.db");
    drop(SqliteStore::open(&db).unwrap());
    rusqlite::Connection::open(&db).unwrap().pragma_update(None, "user_version", 7).unwrap();
    let error = SqliteStore::open(&db).unwrap_err().to_string();
    assert!(error.contains("newer software"), "{error}");

    let other = dir.path().join("other.db");
    drop(SqliteStore::open(&other).unwrap());
    rusqlite::Connection::open(&other)
        .unwrap()
        .execute("INSERT INTO facts VALUES (0, '{')", [])
        .unwrap();
    let error = SqliteStore::open(&other).unwrap().load().unwrap_err().to_string();
    assert!(error.contains("damaged"), "{error}");

    let third = dir.path().join("third.db");
    std::fs::write(&third, "this is no database at all, though it has enough bytes").unwrap();
    assert!(SqliteStore::open(&third).is_err());
}

#[test]
fn twenty_thousand_rows_are_kept_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = SqliteStore::open(&dir.path().join("state.db")).unwrap();
    let rows: Vec<_> = (0..20_000_u64)
        .map(|index| {
            let name = Name::new(&format!("file-{index}.txt")).unwrap();
            let stat = Stat {
                kind: Seen::File,
                mode: 0o644,
                size: index,
                mtime: 1_700_000_000_000_000_000,
                ctime: 1_700_000_000_000_000_000,
                inode: index,
                born: Some(1_700_000_000_000_000_000),
            };
            let row = Row {
                node: NodeId(index + 1),
                version: Seq(index + 1),
                what: What::File(Content::of(&index.to_be_bytes())),
                mode: 0o644,
                print: Some(Print { stat, seen: 1_700_000_000_000_000_000, open: false }),
            };
            (Place { parent: NodeId::ROOT, name }, Some(row))
        })
        .collect();
    store.commit(&[], &rows, true).unwrap();
    let state = store.load().unwrap();
    assert_eq!(state.synced.len(), 20_000);
}
