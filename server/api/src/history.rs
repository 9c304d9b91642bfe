//! The history of paths: what our route `/sync/history` and those below it say.

use s0_tree::{Actor, InvalidPath, PathChange, PathState, Seq, Source, TreePath};
use schemars::JsonSchema;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

use crate::schema;

/// One version of a path: what it was after an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PathVersion {
    /// The entry; of [`PathChange::Earlier`], the last one that is not retained.
    #[schemars(with = "u64")]
    pub seq: Seq,
    /// When the entry was admitted, as RFC 3339; nothing where there is no entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// On whose side the entry arose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::Source>")]
    pub source: Option<Source>,
    /// Who made the entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::Actor>")]
    pub actor: Option<Actor>,
    /// What the entry did.
    #[serde(flatten)]
    #[schemars(with = "schema::PathChange")]
    pub change: PathChange,
    /// The path after it, or where nothing is after it.
    #[serde(deserialize_with = "TreePath::recorded")]
    #[schemars(with = "String")]
    pub path: TreePath,
    /// What was there after it, as far as it is retained.
    #[serde(flatten)]
    #[schemars(with = "schema::PathState")]
    pub state: PathState,
}

/// Versions of a path, newest first. `GET /sync/history`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PathHistory {
    /// The Volume's head when it was asked.
    #[serde(rename = "head_seq")]
    #[schemars(with = "u64")]
    pub head: Seq,
    /// Entries up to this one are gone, and history with them.
    #[serde(rename = "retained_after_seq")]
    #[schemars(with = "u64")]
    pub retained_after: Seq,
    /// The versions.
    pub versions: Vec<PathVersion>,
}

/// What a path was after one entry. `GET /sync/history/version`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PathAt {
    /// The Volume's head when it was asked.
    #[serde(rename = "head_seq")]
    #[schemars(with = "u64")]
    pub head: Seq,
    /// Entries up to this one are gone.
    #[serde(rename = "retained_after_seq")]
    #[schemars(with = "u64")]
    pub retained_after: Seq,
    /// The path after that entry; another one where there was a rename since.
    #[serde(deserialize_with = "TreePath::recorded")]
    #[schemars(with = "String")]
    pub path: TreePath,
    /// What was there.
    #[serde(flatten)]
    #[schemars(with = "schema::PathState")]
    pub state: PathState,
}

/// Which version of a path is meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PathVersionId {
    /// The path, as it is now or was last.
    #[serde(deserialize_with = "asked")]
    #[schemars(with = "String")]
    pub path: TreePath,
    /// The entry after which it is looked at.
    #[schemars(with = "u64")]
    pub at: Seq,
    /// Whether to look where its file was before a rename; else at this very path.
    #[serde(default = "follows")]
    pub follow: bool,
}

fn follows() -> bool {
    true
}

/// A path that is asked for: relative, or with one leading slash.
///
/// # Errors
/// It is not clean, or too long.
pub fn asked_path(text: &str) -> Result<TreePath, InvalidPath> {
    TreePath::new(text.strip_prefix('/').unwrap_or(text))
}

fn asked<'de, D: Deserializer<'de>>(deserializer: D) -> Result<TreePath, D::Error> {
    asked_path(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

/// A version that is to come back. `POST /sync/history/restore`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RestorePath {
    /// Which.
    #[serde(flatten)]
    pub version: PathVersionId,
    /// The entry up to which the one who asks has seen what became of the path. What
    /// is newer is not written over; without it, nothing that comes later than the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<u64>")]
    pub seen: Option<Seq>,
}

/// A version that is back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RestoredPath {
    /// The entry that brought it back; none when the path was so already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<u64>")]
    pub seq: Option<Seq>,
    /// The path that it is at.
    #[schemars(with = "String")]
    pub path: TreePath,
    /// What is there now.
    #[serde(flatten)]
    #[schemars(with = "schema::PathState")]
    pub state: PathState,
}
