//! What goes over a warden's control socket: one JSON document per line. A guest sends a
//! [`Request`] and reads an [`Answer`].

use std::path::PathBuf;

use s0_api::tokens::LimitedToken;
use serde::{Deserialize, Serialize};

use crate::platform::Process;

/// What a guest asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// Do you live?
    Ping,
    /// How are you?
    Status,
    /// Mount a Volume.
    Mount(MountRequest),
    /// Let a service reach the sandbox from now on.
    Attend(AttendRequest),
    /// Take a mount away.
    Unmount {
        /// Where it is.
        path: PathBuf,
    },
    /// End the sandbox. The connection ends when nothing of it is left.
    Stop {
        /// Without asking its processes first.
        force: bool,
    },
}

/// What shall be mounted where, and how the service is reached.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountRequest {
    /// The Volume.
    pub volume_id: String,
    /// An empty directory of the sandbox.
    pub path: PathBuf,
    /// Nothing can be written through it.
    pub read_only: bool,
    /// Where the service is, in the words of whoever started the warden.
    pub service: serde_json::Value,
    /// What opens the Volume there, and nothing else. It stays with the warden, which ends it
    /// with the mount.
    pub token: LimitedToken,
    /// How large the cache becomes, in bytes.
    pub cache_bytes: u64,
}

impl std::fmt::Debug for MountRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The token stays out of every log.
        f.debug_struct("MountRequest")
            .field("volume_id", &self.volume_id)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// Which service shall reach the sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttendRequest {
    /// Where it is, in the words of whoever started the warden.
    pub service: serde_json::Value,
    /// What lets it reach the sandbox, and nothing else.
    pub token: LimitedToken,
}

/// What the warden answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// It is so.
    Ok,
    /// How the sandbox is.
    Status(Status),
    /// It cannot be done.
    Error {
        /// Why, and what to do.
        message: String,
    },
}

/// How a sandbox is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Its id.
    pub id: String,
    /// Its warden.
    pub warden: Process,
    /// Its first process, as it is seen from outside.
    pub init: Process,
    /// What is mounted in it.
    pub mounts: Vec<Mounted>,
}

/// A Volume that is mounted in a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mounted {
    /// The Volume.
    pub volume_id: String,
    /// Where, inside.
    pub path: PathBuf,
    /// The name of the mount, `mnt_…`.
    pub session: String,
    /// Since when (RFC 3339).
    pub since: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_look_as_they_are_documented() {
        let said = serde_json::to_string(&Request::Stop { force: true }).unwrap();
        assert_eq!(said, r#"{"request":"stop","force":true}"#);
        assert_eq!(
            serde_json::from_str::<Request>(r#"{"request":"ping"}"#).unwrap(),
            Request::Ping
        );
        assert!(serde_json::from_str::<Request>(r#"{"request":"fly"}"#).is_err());
    }
}
