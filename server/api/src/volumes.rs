//! Volumes, files and snapshots, as documented.

use serde::{Deserialize, Serialize};

use crate::documented::null_is_absent;

/// Who may write a Volume from where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// When it was made.
    pub created_at: String,
    /// When it last changed.
    pub updated_at: String,
}

/// What a new Volume, or a fork, is to be like. The mode is a text here,
/// because the documented API takes any case and spaces.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
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
}

/// What kind of thing a path is, in the file API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileList {
    /// Them.
    pub entries: Vec<FileInfo>,
}

/// From where to where a file is moved.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Move {
    /// From where.
    #[serde(default, deserialize_with = "null_is_absent")]
    pub source: String,
    /// To where.
    #[serde(default, deserialize_with = "null_is_absent")]
    pub destination: String,
}

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
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
