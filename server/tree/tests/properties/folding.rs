//! The fold: total, deterministic, and all that ever makes a tree.

use proptest::prelude::*;
use s0_tree::{
    AttributeChange, Attributes, Entry, FORMAT, Misfit, NodeId, Op, Origin, Place, Policy, Seq,
    Time, Tree, digest, fold,
};

use crate::history::{self, History, check_names, check_sound, listing, policy, step};
use crate::times;

/// Operations that nobody admitted, on nodes that may or may not be there.
fn any_op() -> impl Strategy<Value = Op> {
    let node = || (0..9_u64).prop_map(NodeId);
    let place = || (node(), history::name()).prop_map(|(parent, name)| Place { parent, name });
    let attributes = Attributes { mode: 0o644, uid: 0, gid: 0, mtime: Time(0), xattrs: None };
    let set = AttributeChange::default;
    prop_oneof![
        4 => (place(), history::new()).prop_map(move |(at, what)| {
            Op::Create { at, what, attributes: attributes.clone() }
        }),
        1 => (node(), place()).prop_map(|(node, at)| Op::Link { node, at }),
        1 => (node(), history::content()).prop_map(move |(node, content)| {
            Op::Write { node, content, set: set() }
        }),
        1 => node().prop_map(move |node| Op::Attributes { node, set: set() }),
        4 => (node(), place(), place(), history::how(), prop::option::of(node())).prop_map(
            |(node, from, to, how, displaced)| Op::Rename { node, from, to, how, displaced }
        ),
        2 => (node(), place()).prop_map(|(node, at)| Op::Remove { node, at }),
    ]
}

fn entry(seq: Seq, op: Op) -> Entry {
    let Origin { source, actor, request, time, .. } = Origin::default();
    let path = "a".to_owned().try_into().unwrap();
    Entry { format: FORMAT, seq, time, source, actor, request, op, path, old_path: None }
}

/// Renames that fit say where their node is; chance alone seldom does.
fn aimed(op: Op, tree: &Tree) -> Op {
    let at = |node| tree.node(node).and_then(|node| node.places.first().cloned());
    match op {
        Op::Rename { node, from, to, how, .. } => {
            let from = at(node).unwrap_or(from);
            let displaced = tree.at_place(&to);
            Op::Rename { node, from, to, how, displaced }
        }
        Op::Remove { node, at: place } => Op::Remove { node, at: at(node).unwrap_or(place) },
        other => other,
    }
}

proptest! {
    #![proptest_config(times(1024))]

    #[test]
    fn an_admitted_history_keeps_the_tree_sound(
        steps in prop::collection::vec(step(), 0..40), policy in policy(),
    ) {
        let mut story = History::default();
        for step in &steps {
            story.live(std::slice::from_ref(step), policy);
            check_sound(&story.tree);
            check_names(&story.tree, policy);
        }
    }
}

proptest! {
    #![proptest_config(times(256))]

    #[test]
    fn a_journal_makes_the_same_tree_everywhere(
        steps in prop::collection::vec(step(), 0..40), policy in policy(),
    ) {
        let mut story = History::default();
        story.live(&steps, policy);
        let mut again = Tree::default();
        for (entry, seq) in story.entries.iter().zip(1..) {
            prop_assert_eq!(entry.seq, Seq(seq));
            let written = serde_json::to_vec(entry).unwrap();
            let read: Entry = serde_json::from_slice(&written).unwrap();
            prop_assert_eq!(&read, entry);
            fold(&mut again, &read).unwrap();
        }
        prop_assert_eq!(&again, &story.tree);
        prop_assert_eq!(digest(&again), digest(&story.tree));
    }

    #[test]
    fn a_gap_is_refused_and_changes_nothing(
        steps in prop::collection::vec(step(), 1..20), wrong in 0..60_u64, op in any_op(),
    ) {
        let mut story = History::default();
        story.live(&steps, Policy::default());
        let head = story.tree.head();
        prop_assume!(Seq(wrong) != head.next());
        let before = story.tree.clone();
        let refused = fold(&mut story.tree, &entry(Seq(wrong), op));
        prop_assert_eq!(refused, Err(Misfit::Gap { head, found: Seq(wrong) }));
        prop_assert_eq!(story.tree, before);
    }

    #[test]
    fn whatever_is_folded_fits_or_changes_nothing(
        ops in prop::collection::vec((any_op(), prop::bool::weighted(0.8)), 0..40),
    ) {
        let mut tree = Tree::default();
        for (op, aim) in ops {
            let op = if aim { aimed(op, &tree) } else { op };
            let before = tree.clone();
            let entry = entry(tree.head().next(), op);
            match fold(&mut tree, &entry) {
                Ok(()) => check_sound(&tree),
                Err(_) => prop_assert_eq!(&tree, &before),
            }
        }
    }

    #[test]
    fn trees_have_one_digest_exactly_if_they_list_the_same(
        one in prop::collection::vec(step(), 0..4), other in prop::collection::vec(step(), 0..4),
        both in prop::collection::vec(step(), 0..6),
    ) {
        let digests_and_listings = [one, other].map(|steps| {
            let mut story = History::default();
            story.live(&both, Policy::default());
            story.live(&steps, Policy::default());
            let mut listing = listing(&story.tree);
            for (what, mode) in listing.values_mut() {
                // Links have no mode of their own, and only permission bits are synced.
                let is_link = matches!(what, s0_tree::New::Symlink { .. });
                *mode = if is_link { 0 } else { *mode & 0o777 };
            }
            (digest(&story.tree), listing)
        });
        let [(a, listed_a), (b, listed_b)] = digests_and_listings;
        prop_assert_eq!(a == b, listed_a == listed_b);
    }
}
