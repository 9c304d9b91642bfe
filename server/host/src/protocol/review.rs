//! The review, as guests see it and decide on it.

use s0_review::{Change, Hunk, HunkId, Reviewed, State, Version, Write};
use s0_tree::{Actor, TreePath};
use serde::{Deserialize, Serialize};

/// What is to be reviewed, and what was.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReviewView {
    /// The version of the whole.
    pub version: Version,
    /// By path.
    pub items: Vec<ItemView>,
    /// What was kept lately, newest first.
    pub reviewed: Vec<Reviewed>,
    /// How many writes are not listed, because there were too many.
    pub unlisted: u64,
}

/// One path under review.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemView {
    /// The path.
    pub path: TreePath,
    /// The version of this item.
    pub version: Version,
    /// What became of it.
    pub change: Change,
    /// How many hunks it has; nothing when it is reviewed as a whole.
    pub hunks: Option<usize>,
    /// How many lines were added and removed.
    pub lines: (usize, usize),
    /// Where it was when it was reviewed.
    pub renamed_from: Option<TreePath>,
    /// The mode that was reviewed, and the one it has.
    pub mode: Option<(u32, u32)>,
    /// Whether the user has changed it since, as a whole.
    pub edited: bool,
    /// Who wrote, oldest first.
    pub writes: Vec<Write>,
    /// What is there now.
    pub now: Option<State>,
}

/// One file under review, with its texts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileView {
    /// The version of the item; nothing when nothing is under review there.
    pub version: Option<Version>,
    /// The text that was reviewed last, if it is one.
    pub reviewed: Option<String>,
    /// The text that the file holds, if it is one.
    pub current: Option<String>,
    /// Where they differ.
    pub hunks: Vec<Hunk>,
}

/// What is kept or reverted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Choice {
    /// Some hunks of a file.
    Hunks {
        /// The file.
        path: TreePath,
        /// They.
        hunks: Vec<HunkId>,
    },
    /// A path as a whole, as it is now or as it was at a version.
    Path {
        /// The path.
        path: TreePath,
        /// The version that was looked at.
        version: Option<Version>,
        /// Only what this agent wrote.
        agent: Option<Actor>,
    },
    /// Everything, as it is now or as it was at a version.
    All {
        /// The version that was looked at.
        version: Option<Version>,
        /// Only what this agent wrote.
        agent: Option<Actor>,
    },
}

/// What a decision did not do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotDone {
    /// Where.
    pub path: TreePath,
    /// Why.
    pub why: String,
}
