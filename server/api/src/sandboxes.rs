//! Mounting Volumes in sandboxes that run, by HTTP; and what the service and the warden of such
//! a sandbox say to each other about it, over a WebSocket that the warden makes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::documented::null_is_absent;
use crate::tokens::LimitedToken;

/// What shall be mounted where.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct MountVolume {
    /// The Volume.
    #[serde(default, deserialize_with = "null_is_absent")]
    pub sandboxvolume_id: String,
    /// A directory of the sandbox.
    #[serde(default, deserialize_with = "null_is_absent")]
    pub mount_point: String,
    /// The sandbox again; nothing is done with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox_id: Option<String>,
    /// Settings of an older kind of mount; nothing is done with them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_config: Option<Value>,
}

/// A Volume that was mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VolumeMounted {
    /// The Volume.
    pub sandboxvolume_id: String,
    /// Where.
    pub mount_point: String,
    /// Since when.
    pub mounted_at: String,
    /// The name of this mount, `mnt_…`.
    pub mount_session_id: String,
}

/// Which mount shall end.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct UnmountVolume {
    /// The Volume.
    #[serde(default, deserialize_with = "null_is_absent")]
    pub sandboxvolume_id: String,
    /// The name of the mount.
    #[serde(default, deserialize_with = "null_is_absent")]
    pub mount_session_id: String,
}

/// That a mount is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VolumeUnmounted {
    /// True.
    pub unmounted: bool,
}

/// What is mounted in a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MountList {
    /// It.
    pub mounts: Vec<MountStatus>,
}

/// How a mount is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MountStatus {
    /// Which it is.
    #[serde(flatten)]
    pub mount: VolumeMounted,
    /// `mounted`.
    pub state: String,
    /// For how long.
    pub mounted_duration_sec: u64,
}

/// What the service asks a warden.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// A number that the answer bears.
    pub id: u64,
    /// It.
    #[serde(flatten)]
    pub ask: Ask,
}

/// What a warden can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Ask {
    /// To mount a Volume.
    Mount {
        /// The Volume.
        volume_id: String,
        /// A directory of the sandbox.
        mount_point: String,
        /// Nothing is written through it.
        read_only: bool,
        /// What opens the Volume.
        token: LimitedToken,
    },
    /// To end a mount, if it is there.
    Unmount {
        /// The Volume.
        volume_id: String,
        /// The mount.
        session: String,
    },
    /// What is mounted.
    Status,
}

/// What a warden answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replied {
    /// The number of what was asked.
    pub id: u64,
    /// It.
    #[serde(flatten)]
    pub reply: Reply,
}

/// What there is to answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// It is mounted.
    Mounted(VolumeMounted),
    /// It is not mounted any more.
    Unmounted,
    /// What is mounted.
    Status(MountList),
    /// It was not done.
    Refused(Refusal),
}

/// Why a warden did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// In a word.
    pub why: Why,
    /// In words for people.
    pub message: String,
}

/// A documented reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// Nothing can be mounted there.
    InvalidMountPoint,
    /// It is mounted there.
    AlreadyMounted,
    /// Something is being mounted or unmounted.
    MountInProgress,
    /// Something else is mounted there.
    MountPointInUse,
    /// It did not work.
    MountFailed,
    /// It did not work.
    UnmountFailed,
}

impl Why {
    /// The documented text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidMountPoint => "invalid_mount_point",
            Self::AlreadyMounted => "already_mounted",
            Self::MountInProgress => "mount_in_progress",
            Self::MountPointInUse => "mount_point_in_use",
            Self::MountFailed => "mount_failed",
            Self::UnmountFailed => "unmount_failed",
        }
    }

    /// A refusal for this reason.
    #[expect(clippy::needless_pass_by_value, reason = "it maps errors that it is given")]
    pub fn with(self, message: impl ToString) -> Refusal {
        Refusal { why: self, message: message.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_flat_and_keep_tokens_to_themselves() {
        let token =
            LimitedToken { id: "t".into(), token: "secret".into(), expires_at: String::new() };
        let ask =
            Ask::Mount { volume_id: "v".into(), mount_point: "/w".into(), read_only: true, token };
        let asked = Asked { id: 1, ask };
        assert!(!format!("{asked:?}").contains("secret"));
        let json = serde_json::to_string(&asked).unwrap();
        assert!(json.starts_with(r#"{"id":1,"ask":"mount","volume_id":"v","#), "{json}");
        assert_eq!(serde_json::from_str::<Asked>(&json).unwrap(), asked);
        for why in [Why::AlreadyMounted, Why::MountFailed] {
            assert_eq!(serde_json::to_value(why).unwrap(), why.as_str());
            let replied = Replied { id: 2, reply: Reply::Refused(why.with("no")) };
            let json = serde_json::to_string(&replied).unwrap();
            assert_eq!(serde_json::from_str::<Replied>(&json).unwrap(), replied);
        }
    }
}
