//! The documented sync messages, and the total mapping between their six event
//! types and our operations.

use std::collections::BTreeSet;

use s0_tree::{Issue, IssueCode, Source, TreePath};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::schema;
use crate::sync::Capabilities;
use crate::volumes::Snapshot;

mod mapping;

pub use mapping::{BadChange, journal_entry, normalized, slashed};

/// Reads JSON's null as if the field were absent, in requests that are documented:
/// clients in other languages send it for a text that is not there.
pub(crate) fn null_is_absent<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// A replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SyncReplica {
    /// Its id.
    pub id: String,
    /// Its Volume.
    pub volume_id: String,
    /// The Volume's team.
    pub team_id: String,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub display_name: String,
    /// `linux`, `macos`, `windows`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub platform: String,
    /// The attached directory.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub root_path: String,
    /// Equal to `capabilities.case_sensitive`.
    pub case_sensitive: bool,
    /// What names can be, merged over all replicas.
    pub capabilities: Capabilities,
    /// When it was last heard of.
    pub last_seen_at: String,
    /// Its cursor.
    pub last_applied_seq: u64,
    /// When it registered first.
    pub created_at: String,
    /// When it last changed.
    pub updated_at: String,
}

/// A replica, and where the journal ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReplicaEnvelope {
    /// The replica.
    pub replica: SyncReplica,
    /// The head.
    pub head_seq: u64,
}

/// A registration as others than our own replicas send it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct RegisterRequest {
    /// For people.
    #[serde(default, deserialize_with = "null_is_absent")]
    pub display_name: String,
    /// `linux`, `macos`, `windows`.
    #[serde(default, deserialize_with = "null_is_absent")]
    pub platform: String,
    /// The attached directory.
    #[serde(default, deserialize_with = "null_is_absent")]
    pub root_path: String,
    /// Used when `capabilities` is absent.
    #[serde(default, deserialize_with = "null_is_absent")]
    pub case_sensitive: bool,
    /// What the root can hold.
    #[serde(default)]
    pub capabilities: Option<Capabilities>,
    /// See [`crate::sync::Registration::take_instance`].
    #[serde(default, deserialize_with = "null_is_absent")]
    pub take_instance: bool,
    /// See [`crate::sync::Registration::sandbox_id`].
    #[serde(default)]
    pub sandbox_id: Option<String>,
}

impl RegisterRequest {
    /// The capabilities under the documented rules: those that were given, or
    /// what the platform implies.
    #[must_use]
    pub fn effective(&self) -> Capabilities {
        let mut all = self.capabilities.unwrap_or_else(|| {
            let platform = self.platform.trim().to_ascii_lowercase();
            let windows = matches!(platform.as_str(), "windows" | "win32");
            let folds = windows || matches!(platform.as_str(), "darwin" | "macos");
            Capabilities {
                case_sensitive: self.case_sensitive && !folds,
                unicode_normalization_insensitive: folds,
                windows_compatible_paths: windows,
            }
        });
        all.unicode_normalization_insensitive |= !all.case_sensitive;
        all
    }
}

/// What an entry of the journal is, in the documented words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventType {
    /// Something came.
    Create,
    /// A file has another content.
    Write,
    /// Something went.
    Remove,
    /// Something moved.
    Rename,
    /// Attributes changed.
    Chmod,
    /// Look again: the other words do not say what happened.
    Invalidate,
}

impl EventType {
    /// Reads the documented text, in any case and with spaces around it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        serde_json::from_value(Value::String(text.trim().to_ascii_lowercase())).ok()
    }
}

/// A journal entry as documented.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SyncJournalEntry {
    /// Its number.
    pub seq: u64,
    /// The Volume.
    pub volume_id: String,
    /// The Volume's team.
    pub team_id: String,
    /// On whose side it arose.
    #[schemars(with = "schema::Source")]
    pub source: Source,
    /// The replica that sent it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica_id: Option<String>,
    /// What it is.
    pub event_type: EventType,
    /// The path, with a leading slash; for a rename the new one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// The path's comparison key.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub normalized_path: String,
    /// The old path of a rename.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_path: Option<String>,
    /// Its comparison key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub normalized_old_path: Option<String>,
    /// Whether something went.
    pub tombstone: bool,
    /// `file`, `directory`, or `symlink`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry_kind: Option<String>,
    /// Where a symbolic link points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_target: Option<String>,
    /// Permission bits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<i64>,
    /// `sha256:` and the hash of the whole content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_ref: Option<String>,
    /// The hash of the whole content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_sha256: Option<String>,
    /// The length of the content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<i64>,
    /// More.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Value>,
    /// When it was admitted.
    pub created_at: String,
}

/// Entries after a cursor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ChangeList {
    /// The head.
    pub head_seq: u64,
    /// The journal is retained after this entry.
    pub retained_after_seq: u64,
    /// The entries, in order.
    pub changes: Vec<SyncJournalEntry>,
}

/// One change of a documented upload.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct ChangeRequest {
    /// What to do.
    #[serde(default, deserialize_with = "null_is_absent")]
    pub event_type: String,
    /// Where; for a rename the new path.
    #[serde(
        default,
        deserialize_with = "null_is_absent",
        skip_serializing_if = "String::is_empty"
    )]
    pub path: String,
    /// The old path of a rename.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_path: Option<String>,
    /// `file` (when absent), `directory` or `symlink`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry_kind: Option<String>,
    /// Where a symbolic link points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_target: Option<String>,
    /// The whole content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_base64: Option<String>,
    /// A content that the service holds already, instead of its bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_ref: Option<String>,
    /// Permission bits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<i64>,
    /// The hash of the content, to be checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_sha256: Option<String>,
    /// The length of the content, to be checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<i64>,
    /// More; of no consequence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Value>,
}

/// A documented upload.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct AppendRequest {
    /// The client's name for it.
    #[serde(default, deserialize_with = "null_is_absent")]
    pub request_id: String,
    /// Up to where the client had read.
    #[serde(deserialize_with = "null_is_absent")]
    pub base_seq: u64,
    /// The changes, in order.
    #[serde(deserialize_with = "null_is_absent")]
    pub changes: Vec<ChangeRequest>,
}

/// The answer to an [`AppendRequest`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AppendResult {
    /// The head.
    pub head_seq: u64,
    /// What was journaled.
    pub accepted: Vec<SyncJournalEntry>,
    /// What was not.
    pub conflicts: Vec<SyncConflict>,
}

/// Whether a conflict still stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ConflictStatus {
    /// It does.
    Open,
    /// Somebody resolved it.
    Resolved,
    /// Somebody said to ignore it.
    Ignored,
}

impl ConflictStatus {
    /// The documented text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Resolved => "resolved",
            Self::Ignored => "ignored",
        }
    }
}

/// A conflict. Its metadata name the contents of both sides, where they are
/// files: `content_ref` the refused one, `existing_content_ref` the one that
/// stands, `base_content_ref` the one that both came from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SyncConflict {
    /// Its id.
    pub id: String,
    /// The Volume.
    pub volume_id: String,
    /// The Volume's team.
    pub team_id: String,
    /// The replica whose change was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica_id: Option<String>,
    /// The path of the refused change.
    pub path: String,
    /// Its comparison key.
    pub normalized_path: String,
    /// Always empty: nothing is written into the tree.
    #[serde(default)]
    pub artifact_path: String,
    /// The path of the refused change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incoming_path: Option<String>,
    /// The old path of a refused rename.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incoming_old_path: Option<String>,
    /// The version of what stands in the way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub existing_seq: Option<u64>,
    /// Why.
    pub reason: String,
    /// Whether it still stands.
    pub status: ConflictStatus,
    /// More.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Value>,
    /// When it was recorded.
    pub created_at: String,
    /// When it last changed.
    pub updated_at: String,
}

/// Conflicts, newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ConflictList {
    /// Them.
    pub conflicts: Vec<SyncConflict>,
}

/// How a conflict was settled.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct SetConflict {
    /// `resolved` or `ignored`.
    #[serde(default, deserialize_with = "null_is_absent")]
    pub status: String,
    /// In one word.
    #[serde(
        default,
        deserialize_with = "null_is_absent",
        skip_serializing_if = "String::is_empty"
    )]
    pub resolution: String,
    /// For people.
    #[serde(
        default,
        deserialize_with = "null_is_absent",
        skip_serializing_if = "String::is_empty"
    )]
    pub note: String,
}

/// A cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SetCursor {
    /// Up to where the replica has read.
    pub last_applied_seq: u64,
}

/// What a bootstrap is to be like.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct BootstrapRequest {
    /// The snapshot's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_name: Option<String>,
    /// The snapshot's description.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_description: Option<String>,
    /// True when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub case_sensitive: Option<bool>,
    /// What the root can hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Capabilities>,
}

/// A tree to start from, and the entry after which to read on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Bootstrap {
    /// The snapshot.
    pub snapshot: Snapshot,
    /// Its head.
    pub replay_after_seq: u64,
    /// Where its archive is.
    pub archive_download_path: String,
}

/// A name that a replica cannot hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CompatibilityIssue {
    /// The kind of trouble.
    #[schemars(with = "schema::IssueCode")]
    pub code: IssueCode,
    /// The path.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// Its comparison key.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub normalized_path: String,
    /// The paths that collide.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// The part of the path that is the trouble.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub segment: String,
}

impl CompatibilityIssue {
    /// The trouble with the last name of a path.
    #[must_use]
    pub fn of_name(path: &TreePath, issue: Issue) -> Self {
        Self {
            code: issue.code,
            path: slashed(path),
            normalized_path: normalized(path),
            paths: Vec::new(),
            segment: issue.segment,
        }
    }

    /// The trouble with paths that are one path to some replica.
    #[must_use]
    pub fn of_collision(paths: &BTreeSet<TreePath>) -> Self {
        Self {
            code: IssueCode::CasefoldCollision,
            path: paths.first().map(slashed).unwrap_or_default(),
            normalized_path: paths.first().map(normalized).unwrap_or_default(),
            paths: paths.iter().map(slashed).collect(),
            segment: String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_imply_capabilities() {
        let of = |platform: &str, case_sensitive| {
            let all = RegisterRequest {
                platform: platform.into(),
                case_sensitive,
                ..RegisterRequest::default()
            }
            .effective();
            (
                all.case_sensitive,
                all.unicode_normalization_insensitive,
                all.windows_compatible_paths,
            )
        };
        assert_eq!(of("linux", true), (true, false, false));
        assert_eq!(of("linux", false), (false, true, false));
        assert_eq!(of("Darwin", true), (false, true, false));
        assert_eq!(of("win32", true), (false, true, true));
    }

    #[test]
    fn null_is_what_is_absent() {
        let nulls = r#"{"display_name": null, "platform": null, "root_path": null,
            "case_sensitive": null, "capabilities": null, "take_instance": null, "sandbox_id": null}"#;
        let read: RegisterRequest = serde_json::from_str(nulls).unwrap();
        assert_eq!(read, RegisterRequest::default());
        let nulls = r#"{"request_id": null, "base_seq": null,
            "changes": [{"event_type": "remove", "path": "/x", "old_path": null, "mode": null}]}"#;
        let read: AppendRequest = serde_json::from_str(nulls).unwrap();
        assert_eq!((read.request_id.as_str(), read.base_seq), ("", 0));
        assert!(serde_json::from_str::<AppendRequest>("{}").is_err(), "they are required");
        let nulls = r#"{"status": "ignored", "resolution": null, "note": null}"#;
        assert_eq!(serde_json::from_str::<SetConflict>(nulls).unwrap().note, "");
        let nulls = r#"{"name": "n", "description": null}"#;
        assert_eq!(
            serde_json::from_str::<crate::volumes::NewSnapshot>(nulls).unwrap().description,
            ""
        );
    }
}
