//! Volumes, files and snapshots, as documented.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::documented::null_is_absent;

/// Who may write a Volume from where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum AccessMode {
    /// One owner reads and writes.
    #[default]
    #[serde(rename = "RWO")]
    ReadWriteOnce,
    /// Many read.
    #[serde(rename = "ROX")]
    ReadOnlyMany,
    /// Many read and write.
    #[serde(rename = "RWX")]
    ReadWriteMany,
}

impl AccessMode {
    /// Reads the documented text, in any case and with spaces around it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text.trim().to_ascii_uppercase().as_str() {
            "RWO" => Some(Self::ReadWriteOnce),
            "ROX" => Some(Self::ReadOnlyMany),
            "RWX" => Some(Self::ReadWriteMany),
            _ => None,
        }
    }

    /// The documented text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReadWriteOnce => "RWO",
            Self::ReadOnlyMany => "ROX",
            Self::ReadWriteMany => "RWX",
        }
    }
}

/// A Volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SandboxVolume {
    /// Its id.
    pub id: String,
    /// The team that it belongs to.
    pub team_id: String,
    /// Who made it.
    pub user_id: String,
    /// The Volume that it is a fork of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_volume_id: Option<String>,
    /// Owner of what writers without an identity create.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_posix_uid: Option<i64>,
    /// Group of the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_posix_gid: Option<i64>,
    /// Who may write it.
    #[serde(default)]
    pub access_mode: AccessMode,
    /// How many bytes of files it may hold; without it, as many as there is room for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota_bytes: Option<u64>,
    /// How many files, directories, links and pipes it may hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota_inodes: Option<u64>,
    /// How many bytes of files it holds. Absent when that is not known before the next
    /// write: it was last written by a version that did not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_bytes: Option<u64>,
    /// How many files, directories, links and pipes it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_inodes: Option<u64>,
    /// When it was made.
    pub created_at: String,
    /// When it last changed.
    pub updated_at: String,
}

/// What a new Volume, or a fork, is to be like. The mode is a text here,
/// because the documented API takes any case and spaces.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct NewVolume {
    /// See [`SandboxVolume::access_mode`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_mode: Option<String>,
    /// See [`SandboxVolume::default_posix_uid`]; both or neither.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_posix_uid: Option<i64>,
    /// See [`SandboxVolume::default_posix_gid`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_posix_gid: Option<i64>,
    /// See [`SandboxVolume::quota_bytes`]. A fork has its source's unless it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota_bytes: Option<u64>,
    /// See [`SandboxVolume::quota_inodes`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota_inodes: Option<u64>,
}

/// What is to change of a Volume. What is absent stays; null takes a limit away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct ChangeVolume {
    /// See [`SandboxVolume::quota_bytes`].
    #[serde(default, deserialize_with = "stated", skip_serializing_if = "Option::is_none")]
    pub quota_bytes: Option<Option<u64>>,
    /// See [`SandboxVolume::quota_inodes`].
    #[serde(default, deserialize_with = "stated", skip_serializing_if = "Option::is_none")]
    pub quota_inodes: Option<Option<u64>>,
}

/// Null is an answer, and not the lack of one.
fn stated<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Option<u64>>, D::Error> {
    Option::deserialize(from).map(Some)
}

/// What kind of thing a path is, in the file API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FileType {
    /// A regular file, and whatever else has no word here.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
}

/// What the file API says of a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FileInfo {
    /// The last part of the path; `/` for the root.
    pub name: String,
    /// The path from the root of the Volume, with a leading slash.
    pub path: String,
    /// What is there.
    #[serde(rename = "type")]
    pub kind: FileType,
    /// Length in bytes.
    pub size: u64,
    /// Four octal digits.
    pub mode: String,
    /// Last change of the contents.
    pub mod_time: String,
    /// Whether it is a symbolic link.
    pub is_link: bool,
    /// Where the link points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_target: Option<String>,
}

/// The children of a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FileList {
    /// Them.
    pub entries: Vec<FileInfo>,
}

/// From where to where a file is moved.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Move {
    /// From where.
    #[serde(default, deserialize_with = "null_is_absent")]
    pub source: String,
    /// To where.
    #[serde(default, deserialize_with = "null_is_absent")]
    pub destination: String,
}

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Snapshot {
    /// Its id.
    pub id: String,
    /// Its Volume.
    pub volume_id: String,
    /// Its name, which need not be unique.
    pub name: String,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The sum of the sizes of its regular files.
    pub size_bytes: u64,
    /// When it was made.
    pub created_at: String,
    /// When it will go, if it will.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
}

/// What a new snapshot is called.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct NewSnapshot {
    /// Its name.
    #[serde(default, deserialize_with = "null_is_absent")]
    pub name: String,
    /// For people.
    #[serde(
        default,
        deserialize_with = "null_is_absent",
        skip_serializing_if = "String::is_empty"
    )]
    pub description: String,
}

/// That something is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Deleted {
    /// True.
    pub deleted: bool,
}

/// That a directory was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Created {
    /// True.
    pub created: bool,
}

/// That a file was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Written {
    /// True.
    pub written: bool,
}

/// That something was moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Moved {
    /// True.
    pub moved: bool,
}

/// A file's bytes, for clients that want JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FileContent {
    /// The bytes, in that encoding.
    pub content: String,
    /// `base64`.
    pub encoding: String,
}

/// The query of a restore.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Restoring {
    /// The replica whose user asks. What comes back is that user's, so that no review
    /// lists it as somebody else's. Without it, it is nobody's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica_id: Option<String>,
}

/// That a Volume is as its snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Restored {
    /// `restored`.
    pub status: String,
    /// How much of it a replica cannot hold today. It stays away, and each is a conflict.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub conflicts: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// How files are cloned. It makes no difference here: contents are shared, and never
/// change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CloneMode {
    /// Sharing what can be shared.
    #[default]
    CowOrCopy,
    /// Copying.
    Copy,
    /// Sharing, or not at all.
    CowRequired,
}

/// Files of Volumes that are to be in another one too.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct CloneFiles {
    /// Which, and where to.
    #[serde(default, deserialize_with = "null_is_absent")]
    pub entries: Vec<CloneFile>,
    /// How.
    #[serde(default, deserialize_with = "null_is_absent")]
    pub mode: CloneMode,
    /// All or nothing; only true is possible.
    #[serde(default)]
    pub atomic: Option<bool>,
}

/// One file that is to be in another Volume too.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct CloneFile {
    /// The Volume that has it, of the same team.
    pub source_volume_id: String,
    /// Its path there.
    pub source_path: String,
    /// The path that it is to have.
    pub target_path: String,
    /// Whether to replace a file that is there.
    #[serde(default, deserialize_with = "null_is_absent")]
    pub overwrite: bool,
    /// Whether to make missing directories above it.
    #[serde(default, deserialize_with = "null_is_absent")]
    pub create_parents: bool,
}

/// A file that was cloned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClonedFile {
    /// The Volume that had it.
    pub source_volume_id: String,
    /// Its path there.
    pub source_path: String,
    /// Its path here.
    pub target_path: String,
    /// `copy` where that was asked for, else `cow`.
    pub mode: String,
    /// Its length.
    pub size_bytes: u64,
}

/// Files that were cloned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClonedFiles {
    /// Them, in the order in which they were asked for.
    pub entries: Vec<ClonedFile>,
}

/// How the service is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Health {
    /// `ok`.
    pub status: String,
    /// Its clock, in seconds since the Unix epoch.
    pub timestamp: i64,
}
