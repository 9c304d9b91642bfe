//! Checkpoints: what is written is read, and what is read is a tree.

use proptest::prelude::*;
use proptest::sample::Index;
use s0_tree::{Policy, Tree};

use crate::history::{History, check_names, check_sound, step};
use crate::times;

fn tree() -> impl Strategy<Value = Tree> {
    prop::collection::vec(step(), 0..25).prop_map(|steps| {
        let mut story = History::default();
        story.live(&steps, Policy::default());
        story.tree
    })
}

fn check_read(bytes: &[u8]) {
    if let Ok(tree) = Tree::decode(bytes) {
        check_sound(&tree);
        check_names(&tree, Policy::default());
        assert_eq!(Tree::decode(&tree.encode()).unwrap(), tree);
    }
}

proptest! {
    #![proptest_config(times(256))]

    #[test]
    fn a_tree_is_read_as_it_was_written(tree in tree()) {
        prop_assert_eq!(Tree::decode(&tree.encode()).unwrap(), tree);
    }

    #[test]
    fn any_bytes_make_a_tree_or_none(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        check_read(&bytes);
    }

    #[test]
    fn flipped_bits_make_a_tree_or_none(
        tree in tree(), flips in prop::collection::vec((any::<Index>(), 0..8_u8), 1..4),
    ) {
        let mut bytes = tree.encode();
        for (at, bit) in flips {
            *at.get_mut(&mut bytes[..]) ^= 1 << bit;
        }
        check_read(&bytes);
    }

    /// Small numbers are what a checkpoint's structure is made of: ids and parents.
    #[test]
    fn exchanged_numbers_make_a_tree_or_none(
        tree in tree(), changes in prop::collection::vec((any::<Index>(), 0..32_u8), 1..4),
    ) {
        let mut bytes = tree.encode();
        let small: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] < 32).collect();
        for (at, number) in changes {
            bytes[*at.get(&small)] = number;
        }
        check_read(&bytes);
    }
}
