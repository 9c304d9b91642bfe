//! The messages beyond LSP, as `protocol.md` describes them.

use serde::{Deserialize, Serialize};
use tower_lsp::ls_types::notification::Notification;

/// The version of these messages.
pub(crate) const VERSION: u32 = 1;

/// How a folder is, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FolderCondition {
    Detached,
    Stopped,
    Starting,
    InSync,
    Syncing,
    Blocked,
    Offline,
    Halted,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FolderState {
    pub(crate) folder: String,
    pub(crate) condition: FolderCondition,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) root: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) volume: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) replica: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sandbox: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) server: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pending: Option<Pending>,
    pub(crate) conflicts: Vec<Conflict>,
    pub(crate) held: Vec<Held>,
    pub(crate) incoming: Vec<Item>,
    pub(crate) reviewed: Vec<Reviewed>,
    pub(crate) problems: Vec<Problem>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pending {
    pub(crate) uploads: usize,
    pub(crate) downloads: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Problem {
    pub(crate) path: String,
    pub(crate) uri: String,
    pub(crate) why: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Conflict {
    pub(crate) path: String,
    pub(crate) uri: String,
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) status: ConflictStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) base: Option<Thing>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mine: Option<Thing>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) theirs: Option<Thing>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) other: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) suggestion: Option<String>,
    pub(crate) time: i64,
    pub(crate) ways: Vec<Way>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ConflictStatus {
    Open,
    Ignored,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Way {
    KeepMine,
    TakeTheirs,
    KeepBoth,
    Merge,
    Mark,
    Ignore,
    Rename,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Thing {
    File { size: u64 },
    Directory,
    Symlink { target: String },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Held {
    pub(crate) path: String,
    pub(crate) uri: String,
    pub(crate) why: HeldWhy,
    /// It came before it was known that the document has unsaved text, and is on the
    /// disk already.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) written: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) actor: Option<String>,
    pub(crate) kind: HeldKind,
    pub(crate) ways: Vec<HeldWay>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum HeldWhy {
    Unsaved,
    Guarded,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum HeldKind {
    Write,
    Remove,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum HeldWay {
    Take,
    Discard,
    KeepBoth,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Item {
    pub(crate) path: String,
    pub(crate) uri: String,
    pub(crate) kind: ItemKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) from: Option<String>,
    pub(crate) actors: Vec<Actor>,
    pub(crate) hunks: usize,
    pub(crate) added: usize,
    pub(crate) removed: usize,
    pub(crate) time: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ItemKind {
    Created,
    Changed,
    Deleted,
    Renamed,
    Mode,
    Whole,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Actor {
    pub(crate) id: String,
    pub(crate) label: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reviewed {
    pub(crate) path: String,
    pub(crate) uri: String,
    pub(crate) actors: Vec<Actor>,
    pub(crate) time: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DidApply {
    pub(crate) folder: String,
    pub(crate) items: Vec<AppliedItem>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AppliedItem {
    pub(crate) uri: String,
    pub(crate) removed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) actor: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DidChangeContent {
    pub(crate) uris: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FileHunks {
    pub(crate) uri: String,
    pub(crate) document_version: i32,
    pub(crate) version: String,
    pub(crate) hunks: Vec<Hunk>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hunk {
    pub(crate) id: String,
    pub(crate) kind: HunkKind,
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) before: Vec<String>,
    pub(crate) authors: Vec<Author>,
    pub(crate) actors: Vec<Actor>,
    pub(crate) time: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum HunkKind {
    Added,
    Changed,
    Deleted,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Author {
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) actor: Actor,
    pub(crate) time: i64,
}

/// What a client asks, by the name of the method or command.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "method", content = "params")]
pub(crate) enum Ask {
    #[serde(rename = "state")]
    State {},
    #[serde(rename = "attach", rename_all = "camelCase")]
    Attach { folder: String, volume: Option<String>, init_from: Option<String> },
    #[serde(rename = "detach")]
    Detach { folder: String },
    #[serde(rename = "start")]
    Start { folder: String },
    #[serde(rename = "stop")]
    Stop { folder: String },
    #[serde(rename = "resume", rename_all = "camelCase")]
    Resume {
        folder: String,
        #[serde(default)]
        confirm_deletions: bool,
    },
    #[serde(rename = "flush", rename_all = "camelCase")]
    Flush { folder: String, timeout_ms: Option<u64> },
    #[serde(rename = "volumes")]
    Volumes {},
    #[serde(rename = "snapshots")]
    Snapshots { folder: String },
    #[serde(rename = "snapshot")]
    Snapshot { folder: String, name: String },
    #[serde(rename = "restore")]
    Restore { folder: String, snapshot: String },
    #[serde(rename = "fork")]
    Fork { folder: String },
    #[serde(rename = "agent")]
    Agent { folder: String },
    #[serde(rename = "log")]
    Log { folder: String },
    #[serde(rename = "hunks")]
    Hunks { uri: String },
    #[serde(rename = "keep")]
    Keep(Choice),
    #[serde(rename = "revert")]
    Revert(Choice),
    #[serde(rename = "resolve")]
    Resolve { folder: String, paths: Vec<String>, way: Way, name: Option<String> },
    #[serde(rename = "settleHeld")]
    SettleHeld { folder: String, path: String, way: HeldWay },
    #[serde(rename = "compare")]
    Compare { uri: String },
    #[serde(rename = "content")]
    Content { uri: String },
}

/// Those that make sense from a plain client, as commands.
pub(crate) const COMMANDS: &[&str] = &[
    "s0-sync.attach",
    "s0-sync.detach",
    "s0-sync.start",
    "s0-sync.stop",
    "s0-sync.resume",
    "s0-sync.keep",
    "s0-sync.revert",
    "s0-sync.resolve",
    "s0-sync.settleHeld",
    "s0-sync.compare",
];

/// What is kept or reverted: a hunk, a file, or all of a folder.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Choice {
    pub(crate) uri: Option<String>,
    pub(crate) folder: Option<String>,
    pub(crate) hunk: Option<String>,
    pub(crate) version: Option<String>,
    pub(crate) actor: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct DirtyParams {
    pub(crate) uri: String,
    pub(crate) dirty: bool,
}

macro_rules! notification {
    ($name:ident, $params:ty, $method:literal) => {
        pub(crate) enum $name {}
        impl Notification for $name {
            type Params = $params;
            const METHOD: &'static str = $method;
        }
    };
}

notification!(DidChangeState, FolderState, "s0-sync/didChangeState");
notification!(DidApplyNotice, DidApply, "s0-sync/didApply");
notification!(DidChangeContentNotice, DidChangeContent, "s0-sync/didChangeContent");
notification!(DidChangeHunks, FileHunks, "s0-sync/didChangeHunks");

impl Ask {
    /// What is asked under this name with these parameters.
    pub(crate) fn parse(name: &str, params: serde_json::Value) -> Result<Self, String> {
        let params = if params.is_null() { serde_json::json!({}) } else { params };
        serde_json::from_value(serde_json::json!({ "method": name, "params": params }))
            .map_err(|error| format!("{name}: {error}"))
    }
}
