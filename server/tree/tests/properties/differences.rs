//! The difference of two trees of one history, and the way back.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use s0_tree::{New, Node, NodeId, Policy, Time, Tree, TreePath, Verdict, diff, digest, restore};

use crate::history::{History, Step, admit_all, listing, step};
use crate::times;

fn steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), 0..most)
}

/// A path with everything about it that a restore brings back.
fn details(tree: &Tree) -> BTreeMap<TreePath, (New, u32, u32, u32, String)> {
    let row = |(path, _, node): (TreePath, NodeId, &Node)| {
        let it = &node.attributes;
        (path, (node.kind_value(), it.mode, it.uid, it.gid, format!("{:?}", it.xattrs)))
    };
    tree.walk().map(row).collect()
}

proptest! {
    #![proptest_config(times(256))]

    #[test]
    fn a_difference_is_what_two_listings_differ_in(both in steps(25), later in steps(15)) {
        let mut story = History::default();
        story.live(&both, Policy::default());
        let a = story.tree.clone();
        prop_assert_eq!(diff(&a, &a), vec![]);
        story.live(&later, Policy::default());
        for (a, b) in [(&a, &story.tree), (&story.tree, &a)] {
            let (in_a, in_b) = (details(a), details(b));
            let paths: BTreeSet<_> = in_a.keys().chain(in_b.keys()).collect();
            let differ = |path: &&&TreePath| in_a.get(**path) != in_b.get(**path);
            let expected: BTreeSet<_> = paths.iter().filter(differ).copied().cloned().collect();
            let found = diff(a, b);
            let mut seen = BTreeSet::new();
            for one in &found {
                prop_assert_eq!(one.before, a.lookup(&one.path));
                prop_assert_eq!(one.after, b.lookup(&one.path));
                let children_came_first =
                    seen.iter().any(|other: &TreePath| other.is_at_or_below(&one.path));
                prop_assert!(!children_came_first, "{} comes late or twice", one.path);
                seen.insert(one.path.clone());
            }
            prop_assert_eq!(seen, expected);
        }
    }

    #[test]
    fn a_restore_leads_from_any_tree_of_a_history_to_any_other(
        both in steps(25), later in steps(15),
    ) {
        let mut story = History::default();
        story.live(&both, Policy::default());
        let then = story.tree.clone();
        story.live(&later, Policy::default());
        for (from, to) in [(&story.tree, &then), (&then, &story.tree)] {
            let changes = restore(from, to);
            let mut tree = from.clone();
            let (_, verdicts) = admit_all(&mut tree, &changes, Policy::default(), Time(0)).unwrap();
            for (verdict, change) in verdicts.iter().zip(&changes) {
                let refused = matches!(verdict, Verdict::Conflict { .. } | Verdict::Refused { .. });
                prop_assert!(!refused, "{:?}: {:?}", change, verdict);
            }
            prop_assert_eq!(listing(&tree), listing(to));
            prop_assert_eq!(details(&tree), details(to));
            prop_assert_eq!(digest(&tree), digest(to));
            prop_assert_eq!(diff(&tree, to), vec![]);
        }
    }
}
