//! Quotas: nothing grows above them, and nothing else is kept from changing.

use proptest::prelude::*;
use s0_tree::{Policy, Quota, Time, Tree, Usage, Verdict};

use crate::history::{admit_all, admit_within, check_sound, step};
use crate::times;

fn quota() -> impl Strategy<Value = Quota> {
    let limit = |most| prop::option::of(0..most);
    (limit(40_u64), limit(8_u64)).prop_map(|(bytes, inodes)| Quota { bytes, inodes })
}

proptest! {
    #![proptest_config(times(256))]

    #[test]
    fn what_a_quota_refuses_would_have_grown_above_it(
        steps in prop::collection::vec((step(), quota()), 0..40),
    ) {
        let (mut tree, policy) = (Tree::default(), Policy::default());
        for (at, (step, quota)) in steps.iter().enumerate() {
            let (change, time) = ([step.change(&tree)], Time(at as i64));
            let mut free = tree.clone();
            let mut bound = tree.clone();
            let without = admit_all(&mut free, &change, policy, time);
            let within = admit_within(&mut bound, &change, (policy, *quota), time);
            let above = |limit: Option<u64>, before: u64, after: u64| {
                after > before && limit.is_some_and(|limit| after > limit)
            };
            // Directories that are made on the way count one by one; all of it is
            // refused or nothing.
            let (before, after): (Usage, Usage) = (tree.usage(), free.usage());
            let too_much = above(quota.bytes, before.bytes, after.bytes)
                || above(quota.inodes, before.inodes, after.inodes);
            match &within {
                Ok((entries, verdicts)) if verdicts[0] == Verdict::NoRoom => {
                    // With the directories above it, what is asked may be wrong as well.
                    let done = |it: &Verdict| {
                        matches!(it, Verdict::Accepted { .. } | Verdict::Held { .. })
                    };
                    let fits = without.as_ref().is_ok_and(|(_, verdicts)| done(&verdicts[0]));
                    prop_assert!(
                        too_much || (change[0].make_parents && !fits),
                        "{change:?} was refused at {before:?}, {quota:?}"
                    );
                    prop_assert!(entries.is_empty() && bound == tree);
                }
                _ => {
                    prop_assert_eq!(&without, &within);
                    prop_assert!(!too_much, "{change:?} was let in at {before:?}, {quota:?}");
                    prop_assert_eq!(&bound, &free);
                }
            }
            check_sound(&bound);
            prop_assert_eq!(Tree::decode(&bound.encode()).unwrap().usage(), bound.usage());
            // What was let in without a quota stands, as when one is made smaller.
            tree = free;
        }
    }
}

#[test]
fn what_follows_a_change_without_room_below_its_path_falls_with_it() {
    let changes = ["d", "d/e", "f"].map(crate::limits::make_directory);
    let mut tree = Tree::default();
    let quota = Quota { bytes: None, inodes: Some(0) };
    let (entries, verdicts) =
        admit_within(&mut tree, &changes, (Policy::default(), quota), Time(0)).unwrap();
    assert_eq!(entries, []);
    assert_eq!(verdicts, [Verdict::NoRoom, Verdict::Refused { by: 0 }, Verdict::NoRoom]);
}
