//! How types of `s0-tree` look in JSON, for the schemas of our messages. That room
//! knows no schemas, so these stand for its types; tests hold real answers against
//! them.

#![expect(dead_code, reason = "only their schemas are of use")]

use schemars::JsonSchema;

/// A content: its name, `sha256:…` or `recipe:…`, and its length.
#[derive(JsonSchema)]
pub(crate) struct Content {
    id: String,
    size: u64,
}

/// On whose side an entry arose.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub(crate) enum Source {
    Replica,
    Sandbox,
}

/// Who made an entry.
#[derive(JsonSchema)]
pub(crate) struct Actor {
    replica: Option<String>,
    sandbox: Option<String>,
    process: Option<String>,
}

/// What is wrong with a name on some platform.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub(crate) enum IssueCode {
    CasefoldCollision,
    WindowsReservedName,
    WindowsTrailingDotSpace,
    WindowsForbiddenCharacter,
    WindowsControlCharacter,
}

/// Why a change is a conflict.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub(crate) enum Reason {
    ConcurrentUpdate,
    CasefoldCollision,
    CaseOnlyRenameConflict,
    WindowsReservedName,
    WindowsTrailingDotSpace,
    WindowsForbiddenCharacter,
    WindowsControlCharacter,
    ParentChanged,
    DirectoryNotEmpty,
    PathTooLong,
}

/// What an entry did to a path.
#[derive(JsonSchema)]
#[schemars(tag = "change", rename_all = "snake_case")]
pub(crate) enum PathChange {
    Created,
    Linked,
    Written,
    Attributes,
    Renamed { from: String },
    RenamedAway { to: String },
    Removed,
    Earlier,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum PathKind {
    Absent,
    File,
    Directory,
    Symlink,
    Fifo,
    Unknown,
}

/// What was at a path, as far as it is retained.
#[derive(JsonSchema)]
pub(crate) struct PathState {
    kind: PathKind,
    content: Option<Content>,
    mode: Option<u32>,
    target: Option<String>,
}
