//! Trees taken back entry by entry, and the trails of paths, beside the trees that
//! were really there.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::sample::Index;
use s0_tree::{
    Entry, Kind, NodeId, Op, Past, PathChange, PathKind, PathState, PathVersion, Policy, Seq,
    Trail, Tree, TreePath, fold,
};

use crate::history::{History, step};
use crate::times;

/// The trees after each entry, the first of them empty.
fn trees(entries: &[Entry]) -> Vec<Tree> {
    let mut trees = vec![Tree::default()];
    for entry in entries {
        let mut next = trees[trees.len() - 1].clone();
        fold(&mut next, entry).unwrap();
        trees.push(next);
    }
    trees
}

fn paths(trees: &[Tree]) -> Vec<TreePath> {
    let all: BTreeSet<TreePath> =
        trees.iter().flat_map(|tree| tree.walk().map(|(path, ..)| path)).collect();
    all.into_iter().collect()
}

/// What a tree holds at a path.
fn state(tree: &Tree, path: &TreePath) -> PathState {
    let mut state = PathState { kind: PathKind::Absent, content: None, mode: None, target: None };
    let Some((_, node)) = tree.at(path) else { return state };
    state.mode = Some(node.attributes.mode);
    state.kind = match &node.kind {
        Kind::File(content) => {
            state.content = Some(*content);
            PathKind::File
        }
        Kind::Directory(_) => PathKind::Directory,
        Kind::Symlink(target) => {
            state.target = Some(target.clone());
            PathKind::Symlink
        }
        Kind::Fifo => PathKind::Fifo,
    };
    state
}

/// Panics where what is known is wrong. The mode of what is no file is not looked for.
fn check(found: &PathVersion, tree: &Tree, is_whole: bool) {
    let mut real = state(tree, &found.path);
    if real.kind != PathKind::File || (!is_whole && found.state.mode.is_none()) {
        real.mode = found.state.mode;
    }
    if !is_whole && found.state.content.is_none() {
        real.content = None;
    }
    if !is_whole && found.state.kind == PathKind::Unknown && real.kind != PathKind::Absent {
        real = PathState { kind: PathKind::Unknown, target: None, ..real };
    }
    assert_eq!(found.state, real, "{found:?}");
}

/// Panics unless a change is what its entry did.
fn check_change(found: &PathVersion, entry: &Entry, trees: &[Tree]) {
    let (after, before) = (&trees[entry.seq.0 as usize], &trees[entry.seq.0 as usize - 1]);
    let path = &found.path;
    let is_so = match (&found.change, &entry.op) {
        (PathChange::Created, Op::Create { .. }) | (PathChange::Linked, Op::Link { .. }) => {
            before.lookup(path).is_none() && after.lookup(path) == Some(entry.node())
        }
        (PathChange::Written, Op::Write { .. } | Op::Append { .. } | Op::Truncate { .. })
        | (PathChange::Attributes, Op::Attributes { .. }) => {
            after.lookup(path) == Some(entry.node())
        }
        (PathChange::Renamed { from }, Op::Rename { .. }) => {
            from != path && before.lookup(from) == after.lookup(path)
        }
        (PathChange::RenamedAway { to }, Op::Rename { .. }) => {
            after.lookup(path).is_none() && before.lookup(path) == after.lookup(to)
        }
        (PathChange::Removed, Op::Remove { .. }) => before.lookup(path) == Some(entry.node()),
        _ => false,
    };
    assert!(is_so, "{found:?} by {entry:?}");
}

/// The seqs at which a path by itself became another one.
fn changes_at(path: &TreePath, entries: &[Entry], trees: &[Tree]) -> Vec<Seq> {
    let is_change = |entry: &&Entry| {
        let (after, before) = (&trees[entry.seq.0 as usize], &trees[entry.seq.0 as usize - 1]);
        let (now, then) = (after.lookup(path), before.lookup(path));
        let moves = matches!(
            entry.op,
            Op::Create { .. } | Op::Link { .. } | Op::Remove { .. } | Op::Rename { .. }
        );
        now != then || (!moves && now == Some(entry.node()))
    };
    entries.iter().rev().filter(is_change).map(|entry| entry.seq).collect()
}

fn walk(trail: &mut Trail, entries: &[Entry], down_to: Seq) {
    while trail.seq() > down_to {
        trail.take_back(&entries[trail.seq().0 as usize - 1]).unwrap();
    }
}

proptest! {
    #![proptest_config(times(256))]

    #[test]
    fn entries_taken_back_leave_what_was_there(
        steps in prop::collection::vec(step(), 0..40),
    ) {
        let mut story = History::default();
        story.live(&steps, Policy::default());
        let trees = trees(&story.entries);
        let paths = paths(&trees);
        let mut past = Past::new(story.tree.clone());
        for entry in story.entries.iter().rev() {
            let other = Entry { seq: entry.seq.next(), ..entry.clone() };
            prop_assert!(past.take_back(&other).is_err());
            past.take_back(entry).unwrap();
            prop_assert_eq!(past.seq().next(), entry.seq);
            let then = &trees[past.seq().0 as usize];
            for path in &paths {
                prop_assert_eq!(past.lookup(path), then.lookup(path), "{} at {}", path, past.seq());
            }
        }
        prop_assert_eq!(past.lookup(&TreePath::root()), Some(NodeId::ROOT));
    }

    #[test]
    fn a_trail_tells_what_was_there(
        steps in prop::collection::vec(step(), 1..40), at in any::<Index>(), follow: bool,
        floor in any::<Index>(), kept in any::<Index>(),
    ) {
        let mut story = History::default();
        story.live(&steps, Policy::default());
        let (entries, trees) = (&story.entries, trees(&story.entries));
        let paths = paths(&trees);
        prop_assume!(!paths.is_empty());
        let path = at.get(&paths);
        let floor = Seq(floor.index(trees.len()) as u64);
        let tree = || story.tree.clone();
        let all = |limit| Trail::new(tree(), path.clone(), follow, Seq(u64::MAX), limit);

        // The journal is whole, and so is what is known.
        let mut trail = all(usize::MAX);
        walk(&mut trail, entries, Seq(0));
        prop_assert!(trail.is_known());
        let whole = trail.into_versions();
        for found in &whole {
            let entry = &entries[found.seq.0 as usize - 1];
            check(found, &trees[found.seq.0 as usize], true);
            check_change(found, entry, &trees);
            prop_assert_eq!(found.made.as_ref().map(|made| made.time), Some(entry.time));
        }
        if follow {
            prop_assert_eq!(whole.is_empty(), changes_at(path, entries, &trees).is_empty());
        } else {
            let seqs: Vec<Seq> = whole.iter().map(|found| found.seq).collect();
            prop_assert_eq!(seqs, changes_at(path, entries, &trees));
            prop_assert!(whole.iter().all(|found| found.path == *path));
        }

        // Where each version goes on in the one before it, nothing is missing between.
        for pair in whole.windows(2) {
            let (after, before) = (&pair[0], &pair[1]);
            let came = match &after.change {
                PathChange::Renamed { from } if follow => {
                    let tree = &trees[after.seq.0 as usize - 1];
                    if tree.lookup(&after.path).is_some() { &after.path } else { from }
                }
                _ => &after.path,
            };
            let then = state(&trees[after.seq.0 as usize - 1], came);
            prop_assert!(then.kind == before.state.kind || before.state.kind == PathKind::Absent);
        }

        // A part of the journal says a part of it, and nothing wrong.
        let mut trail = all(usize::MAX);
        walk(&mut trail, entries, floor);
        trail.mark();
        let could = trail.could_learn_at(floor);
        let mut learned = trail.clone();
        learned.learn_from(&trees[floor.0 as usize]);
        prop_assert!(could || learned.is_known() == trail.is_known());
        let kept = kept.index(trees.len());
        let (before, could) = (trail.clone(), trail.could_learn_at(Seq(kept as u64)));
        trail.learn_from(&trees[kept]);
        if !could {
            prop_assert_eq!(before.into_versions(), trail.clone().into_versions());
        }
        let part = trail.into_versions();
        prop_assert_eq!(part.len() - 1, whole.iter().filter(|it| it.seq > floor).count());
        for found in &part {
            check(found, &trees[found.seq.0 as usize], false);
        }
        let mark = &learned.into_versions()[part.len() - 1];
        check(mark, &trees[floor.0 as usize], true);

        // Pages are the same list.
        let mut pages = Vec::new();
        let mut before = Seq(u64::MAX);
        loop {
            let mut trail = Trail::new(tree(), path.clone(), follow, before, 2);
            while !trail.is_complete() && trail.seq() > Seq(0) {
                let seq = trail.seq();
                walk(&mut trail, entries, Seq(seq.0 - 1));
            }
            let page = trail.into_versions();
            let Some(last) = page.last() else { break };
            before = last.seq;
            pages.extend(page);
        }
        prop_assert_eq!(pages, whole);
    }
}
