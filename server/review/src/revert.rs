//! What a revert comes to, in an order in which it can be done.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use s0_tree::TreePath;

use crate::choice::{Left, Why};
use crate::item::{Body, State};

/// One ordinary local write. It is done only if what it expects is found, by the
/// same comparison and exchange as any write to the user's disk; otherwise it is
/// not done, and what is there now is told to the review.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Make this, in the place of what is expected.
    Write {
        /// Where.
        path: TreePath,
        /// What.
        body: Body,
        /// The permission bits after.
        mode: u32,
        /// What is there; nothing, if absent.
        expect: Option<State>,
    },
    /// Remove this. A directory goes only if it is empty.
    Remove {
        /// Where.
        path: TreePath,
        /// What is there.
        expect: State,
    },
    /// Rename this, with all that is in it, to where nothing is.
    Rename {
        /// Where it is.
        from: TreePath,
        /// Where it goes.
        to: TreePath,
    },
    /// Set the permission bits.
    SetMode {
        /// Where.
        path: TreePath,
        /// The permission bits after.
        mode: u32,
        /// What is there.
        expect: State,
    },
}

/// What it takes to revert what was chosen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reversion {
    /// What to do, in this order. Each action is by itself: when one is refused,
    /// those after it may still be done, or be refused as well.
    pub actions: Vec<Action>,
    /// What was chosen and stays as it is.
    pub left: Vec<Left>,
}

impl Reversion {
    /// Puts the actions of many paths, which are in the order of the paths, in one in
    /// which they can be done.
    pub(crate) fn new(actions: Vec<Action>, mut left: Vec<Left>) -> Self {
        let is_directory = |state: &State| matches!(state.what, s0_tree::New::Directory);
        let mut removals = Vec::new();
        let mut directories = Vec::new();
        let mut writes = Vec::new();
        let mut renames = Vec::new();
        let mut last = Vec::new();
        for action in actions {
            match action {
                Action::Remove { path, expect } if is_directory(&expect) => {
                    last.push((path, expect));
                }
                Action::Remove { .. } => removals.push(action),
                Action::Write { body: Body::Directory, .. } => directories.push(action),
                Action::Write { .. } | Action::SetMode { .. } => writes.push(action),
                Action::Rename { from, to } => renames.push((from, to)),
            }
        }
        // Files go before what is renamed comes to their place; directories come
        // before what is in them, and go after it. All paths are those of now, so
        // renames come after the writes, and those inside of a directory before
        // its own.
        let mut actions = removals;
        actions.append(&mut directories);
        actions.append(&mut writes);
        order(renames, &mut actions, &mut left);
        actions
            .extend(last.into_iter().rev().map(|(path, expect)| Action::Remove { path, expect }));
        Self { actions, left }
    }
}

/// Orders renames so that each goes to where nothing is any more.
fn order(mut renames: Vec<(TreePath, TreePath)>, out: &mut Vec<Action>, left: &mut Vec<Left>) {
    renames.sort_by_key(|(from, _)| Reverse(from.depth()));
    loop {
        let taken: BTreeSet<TreePath> = renames.iter().map(|(from, _)| from.clone()).collect();
        let (waiting, free): (Vec<_>, Vec<_>) =
            renames.into_iter().partition(|(_, to)| taken.contains(to));
        if free.is_empty() {
            let circle = |(path, _)| Left { path, why: Why::Circle };
            left.extend(waiting.into_iter().map(circle));
            return;
        }
        out.extend(free.into_iter().map(|(from, to)| Action::Rename { from, to }));
        renames = waiting;
    }
}
