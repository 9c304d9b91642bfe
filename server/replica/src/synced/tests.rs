//! The invariants hold whatever is agreed on, in any order.

use std::collections::BTreeMap;

use proptest::prelude::*;
use s0_tree::{Content, Name, NodeId, Place, Seq};

use super::Synced;
use crate::state::{Row, What};

#[derive(Debug, Clone)]
enum Step {
    Agree(Place, Row),
    Forget(Place),
    Move(Place, Place, NodeId),
}

fn place() -> impl Strategy<Value = Place> {
    (0_u64..12, prop::sample::select(vec!["a", "b", "c"]))
        .prop_map(|(parent, name)| Place { parent: NodeId(parent), name: Name::new(name).unwrap() })
}

fn row(node: u64, directory: bool) -> Row {
    let what = if directory { What::Directory } else { What::File(Content::of(b"x")) };
    Row { node: NodeId(node), version: Seq(1), what, mode: 0o755, print: None }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (place(), 1_u64..6).prop_map(|(place, node)| Step::Agree(place, row(node, true))),
        2 => (place(), 10_u64..13).prop_map(|(place, node)| Step::Agree(place, row(node, false))),
        1 => place().prop_map(Step::Forget),
        3 => (place(), place(), 1_u64..6).prop_map(|(a, b, node)| Step::Move(a, b, NodeId(node))),
    ]
}

fn apply(synced: &mut Synced, step: Step) {
    match step {
        Step::Agree(place, row) => synced.agree(place, row),
        Step::Forget(place) => synced.forget(&place),
        Step::Move(from, to, node) => {
            // Mostly of what is there, sometimes of something else.
            let node = synced.get(&from).map_or(node, |row| row.node);
            let directory = synced.get(&from).is_none_or(|row| row.what.is_directory());
            synced.move_to(&from, to, row(node.0, directory));
        }
    }
}

fn check(synced: &Synced) {
    let mut count = 0;
    for (place, row) in synced.iter() {
        count += 1;
        assert!(synced.places(row.node).contains(&place));
        if row.what.is_directory() {
            assert_eq!(synced.places(row.node).len(), 1, "{:?} is at several places", row.node);
        }
        assert!(synced.is_synced(place.parent));
        let root = synced.above(place.parent).take(100).any(|at| at == NodeId::ROOT);
        assert!(root, "{place:?} is in no directory");
    }
    assert_eq!(count, synced.len());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]
    #[test]
    fn every_row_is_in_a_directory_and_every_directory_at_one_place(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut synced = Synced::default();
        let mut stored = BTreeMap::new();
        for step in steps {
            apply(&mut synced, step);
            check(&synced);
            for (place, row) in synced.take_changes().0 {
                match row {
                    Some(row) => stored.insert(place, row),
                    None => stored.remove(&place),
                };
            }
            let rows: BTreeMap<_, _> =
                synced.iter().map(|(place, row)| (place, row.clone())).collect();
            prop_assert_eq!(&stored, &rows);
        }
        let mut restored = Synced::restore(stored.clone().into_iter());
        check(&restored);
        prop_assert_eq!(restored.take_changes().0, vec![]);
        let rows: BTreeMap<_, _> = restored.iter().map(|(place, row)| (place, row.clone())).collect();
        prop_assert_eq!(rows, stored);
    }
}

fn at(parent: u64, name: &str) -> Place {
    Place { parent: NodeId(parent), name: Name::new(name).unwrap() }
}

#[test]
fn a_directory_that_is_elsewhere_leaves_its_rows_to_nobody() {
    let mut synced = Synced::default();
    synced.agree(at(0, "a"), row(1, true));
    synced.agree(at(1, "file"), row(10, false));
    synced.agree(at(0, "b"), row(1, true));
    let (_, released) = synced.take_changes();
    assert_eq!(released.len(), 1);
    assert_eq!(synced.home(NodeId(1)), Some(&at(0, "b")));
    let nobody = released[0].is.unwrap();
    assert_eq!(synced.home(nobody), Some(&at(0, "a")));
    assert_eq!(synced.children(NodeId(1)).count(), 0);
    assert_eq!(synced.children(nobody).count(), 1);
}

#[test]
fn a_directory_that_becomes_another_keeps_its_rows() {
    let mut synced = Synced::default();
    synced.agree(at(0, "a"), row(1, true));
    synced.agree(at(1, "file"), row(10, false));
    synced.agree(at(0, "a"), row(2, true));
    assert!(synced.get(&at(2, "file")).is_some());
    assert!(synced.get(&at(1, "file")).is_none());
}

#[test]
fn a_file_in_place_of_a_directory_forgets_what_was_in_it() {
    let mut synced = Synced::default();
    synced.agree(at(0, "a"), row(1, true));
    synced.agree(at(1, "file"), row(10, false));
    synced.agree(at(0, "a"), row(11, false));
    assert_eq!(synced.len(), 1);
}

#[test]
fn nothing_is_agreed_on_in_a_directory_that_is_not_synced() {
    let mut synced = Synced::default();
    synced.agree(at(1, "file"), row(10, false));
    assert!(synced.is_empty());
}

#[test]
fn a_move_takes_along_what_is_below() {
    let mut synced = Synced::default();
    synced.agree(at(0, "a"), row(1, true));
    synced.agree(at(1, "file"), row(10, false));
    synced.move_to(&at(0, "a"), at(0, "b"), row(1, true));
    assert!(synced.get(&at(1, "file")).is_some());
    assert_eq!(synced.home(NodeId(1)), Some(&at(0, "b")));
    assert_eq!(synced.take_changes().1, vec![]);
}

#[test]
fn what_no_directory_leads_to_is_let_go_of_and_told() {
    let rows = vec![(at(0, "a"), row(1, true)), (at(7, "orphan"), row(10, false))];
    let mut synced = Synced::restore(rows.into_iter());
    assert_eq!(synced.len(), 1);
    assert_eq!(synced.take_changes().0, vec![(at(7, "orphan"), None)]);
}

#[test]
fn rows_of_a_damaged_store_are_a_tree_all_the_same() {
    let cases: [&[(Place, Row)]; 4] = [
        // A directory at two places.
        &[(at(0, "a"), row(1, true)), (at(0, "b"), row(1, true)), (at(1, "f"), row(2, false))],
        // The root in itself.
        &[(at(0, "a"), row(0, true)), (at(0, "f"), row(2, false))],
        // Two directories, each in the other; a directory in itself.
        &[(at(0, "f"), row(9, false)), (at(1, "a"), row(2, true)), (at(2, "a"), row(1, true))],
        // A node that is a directory and a file.
        &[(at(0, "a"), row(1, true)), (at(1, "b"), row(1, false)), (at(0, "c"), row(2, false))],
    ];
    for rows in cases {
        let mut synced = Synced::restore(rows.iter().cloned());
        check(&synced);
        let (told, _) = synced.take_changes();
        for (place, row) in rows {
            let kept = synced.get(place) == Some(row);
            assert!(kept || told.contains(&(place.clone(), None)), "{place:?} is not told of");
        }
        for (place, row) in rows {
            synced.agree(place.clone(), row.clone());
            check(&synced);
        }
    }
}
