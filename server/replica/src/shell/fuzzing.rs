//! What `tests/fuzz` reaches of the shell, and nobody else.

use std::path::Path;

use ignore::Match;
use s0_tree::{Place, TreePath};

use super::{git_index, pattern};
use crate::state::{Row, State};

/// The tracked paths of a Git index.
#[must_use]
pub fn git_index(bytes: &[u8]) -> Option<Vec<String>> {
    git_index::parse(bytes).map(|parsed| parsed.tracked.names().map(str::to_owned).collect())
}

/// What a file of ignore rules says of a path: ignored, let in, or nothing.
#[must_use]
pub fn ignores(rules: &str, fold_case: bool, path: &str, is_directory: bool) -> Option<bool> {
    match pattern::compile(rules, fold_case).matched(Path::new(path), is_directory) {
        Match::None => None,
        Match::Ignore(_) => Some(true),
        Match::Whitelist(_) => Some(false),
    }
}

/// The rows that a damaged state database may hold, as they are taken in, and as often
/// changed. Gives those that are left, each with where it is for the Volume.
#[must_use]
pub fn synced(rows: Vec<(Place, Row)>, then: Vec<(Place, Option<Row>)>) -> Vec<(Place, Row)> {
    let mut state = State::with_rows(rows.into_iter());
    for (place, row) in then {
        state.apply(crate::state::Record::Synced(place, row));
    }
    let left: Vec<_> = state.synced.iter().map(|(place, row)| (place, row.clone())).collect();
    for (place, row) in &left {
        let mut steps = 0;
        let mut at = place.parent;
        while let Some(home) = state.synced.home(at) {
            at = home.parent;
            steps += 1;
            assert!(steps <= left.len(), "{place:?} ({row:?}) hangs on itself");
        }
        assert_eq!(at, s0_tree::NodeId::ROOT, "{place:?} hangs on nothing");
        let is_one = !row.what.is_directory() || state.synced.places(row.node).len() == 1;
        assert!(is_one, "the directory {:?} is synced twice", row.node);
    }
    left
}

/// A path for [`ignores`] as a workspace has them.
#[must_use]
pub fn path(text: &str) -> Option<TreePath> {
    TreePath::new(text).ok().filter(|path| !path.is_root())
}
