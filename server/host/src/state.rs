//! What is attached on this machine: the state directory.

use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use s0_api::Client;
use s0_replica::engine::{Init, Pause};
use serde::{Deserialize, Serialize};

use crate::platform;

const ATTACHMENT: &str = "attachment.json";
const DATABASE: &str = "state.db";
const LOG: &str = "log";
const SOCKET: &str = "host.sock";
const LOCK: &str = "host.lock";
/// What the service calls the files in its data directory that clients read.
const SERVICE_FILE: &str = "service.json";
const TOKEN_FILE: &str = "token";
/// What the service locks there as long as it runs.
const SERVICE_LOCK: &str = "lock";

/// The state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A file cannot be read or written.
    #[error("{}: {error}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A file does not say what it should.
    #[error("{} cannot be read: {why}; detach the workspace and attach it again", .path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

fn file(path: &Path) -> impl Fn(io::Error) -> StateError + '_ {
    move |error| StateError::File { path: path.into(), error }
}

/// Where a token comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Token {
    /// A file that holds it.
    File(PathBuf),
    /// It was given by hand, and is kept here.
    Text(Secret),
}

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(a token)")
    }
}

/// Where a service is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceAddress {
    /// The one on this machine with this data directory. Its address is looked
    /// up there each time, since it may have another one after a restart.
    Local(PathBuf),
    /// One with a fixed address.
    Remote {
        /// The address.
        url: String,
        /// The token.
        token: Token,
    },
}

impl ServiceAddress {
    /// The address as it is now.
    ///
    /// # Errors
    /// The service of this machine does not run; in words for people.
    pub fn url(&self) -> Result<String, String> {
        match self {
            Self::Remote { url, .. } => Ok(url.clone()),
            Self::Local(data_dir) => local_url(data_dir).ok_or_else(|| {
                let data_dir = data_dir.display();
                format!("no service runs; `s0 serve --background --data-dir {data_dir}` starts one")
            }),
        }
    }

    /// A client of the service.
    ///
    /// # Errors
    /// Its address or its token cannot be found; in words for people.
    pub fn client(&self) -> Result<Client, String> {
        let url = self.url()?;
        let read = |path: &Path| {
            std::fs::read_to_string(path)
                .map_err(|error| format!("the token file {}: {error}", path.display()))
        };
        let token = match self {
            Self::Local(data_dir) => read(&data_dir.join(TOKEN_FILE))?,
            Self::Remote { token: Token::File(path), .. } => read(path)?,
            Self::Remote { token: Token::Text(Secret(text)), .. } => text.clone(),
        };
        Client::new(&url, token.trim()).map_err(|error| error.to_string())
    }
}

/// Where the service of a data directory is, if it runs.
fn local_url(data_dir: &Path) -> Option<String> {
    #[derive(Deserialize)]
    struct ServiceFile {
        url: String,
    }
    let said = std::fs::read(data_dir.join(SERVICE_FILE)).ok()?;
    let found: ServiceFile = serde_json::from_slice(&said).ok()?;
    // A service that was killed leaves its file, and anybody may listen at its
    // port now. The lock went with the process.
    service_runs(data_dir).then_some(found.url)
}

/// Whether a service holds a data directory, answering or not.
#[must_use]
pub fn service_runs(data_dir: &Path) -> bool {
    File::open(data_dir.join(SERVICE_LOCK))
        .is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// How a replica begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InitFrom {
    /// An empty side takes the other; what differs is a conflict.
    #[default]
    Auto,
    /// Files that the Volume does not have wait for the user's word.
    Volume,
    /// Where files differ, the local ones go over the Volume's.
    Local,
}

impl From<InitFrom> for Init {
    fn from(init: InitFrom) -> Self {
        match init {
            InitFrom::Auto => Self::Auto,
            InitFrom::Volume => Self::Volume,
            InitFrom::Local => Self::Local,
        }
    }
}

/// What an open conflict holds back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PauseOn {
    /// All uploads of the workspace.
    #[default]
    Workspace,
    /// Its path.
    Path,
}

impl From<PauseOn> for Pause {
    fn from(pause: PauseOn) -> Self {
        match pause {
            PauseOn::Workspace => Self::Workspace,
            PauseOn::Path => Self::Path,
        }
    }
}

/// A directory that is attached to a Volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The replica's random name.
    pub replica_id: String,
    /// The Volume.
    pub volume_id: String,
    /// The directory.
    pub root: PathBuf,
    /// The service.
    pub service: ServiceAddress,
    /// The sandbox whose writes it carries, if it stands for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox_id: Option<String>,
    /// What an open conflict holds back.
    #[serde(default)]
    pub pause: PauseOn,
    /// How it began.
    #[serde(default)]
    pub init: InitFrom,
    /// Globs that are not synced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignore: Vec<String>,
}

/// The state of all hosts of this user on this machine.
#[derive(Debug, Clone)]
pub struct StateDir(PathBuf);

/// The state of one attachment.
#[derive(Debug, Clone)]
pub struct AttachmentDir(PathBuf);

impl StateDir {
    /// The state directory at `path`, which need not exist.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        // A host that is started in another directory must find the same.
        Self(std::path::absolute(&path).unwrap_or(path))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The state of a replica.
    #[must_use]
    pub fn attachment(&self, replica: &str) -> AttachmentDir {
        AttachmentDir(self.0.join("replicas").join(replica))
    }

    /// All that is attached, by root.
    ///
    /// # Errors
    /// The directory cannot be read. What is damaged is left out, and logged.
    pub fn list(&self) -> Result<Vec<(AttachmentDir, Attachment)>, StateError> {
        let path = self.0.join("replicas");
        let entries = match std::fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(file(&path)(error)),
        };
        let mut found = Vec::new();
        for entry in entries {
            let directory = AttachmentDir(entry.map_err(file(&path))?.path());
            match directory.load() {
                Ok(attachment) => found.push((directory, attachment)),
                // One that is being made or removed now.
                Err(StateError::File { error, .. }) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => tracing::warn!(%error, "an attachment is left out"),
            }
        }
        found.sort_by(|a, b| a.1.root.cmp(&b.1.root));
        Ok(found)
    }

    /// The attachment of `directory`, or of the nearest one above it.
    ///
    /// # Errors
    /// The state directory cannot be read.
    pub fn find(
        &self,
        directory: &Path,
    ) -> Result<Option<(AttachmentDir, Attachment)>, StateError> {
        let directory = canonical(directory);
        let mut all = self.list()?;
        all.retain(|(_, attachment)| directory.starts_with(&attachment.root));
        Ok(all.into_iter().max_by_key(|(_, attachment)| attachment.root.as_os_str().len()))
    }
}

/// The path without links, as far as it exists.
pub(crate) fn canonical(path: &Path) -> PathBuf {
    std::fs::canonicalize(path)
        .or_else(|_| std::path::absolute(path))
        .unwrap_or_else(|_| path.to_owned())
}

impl AttachmentDir {
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The host's log.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.0.join(LOG)
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.0.join(DATABASE)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.0.join(SOCKET)
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.0.join(LOCK)
    }

    /// What is attached.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn load(&self) -> Result<Attachment, StateError> {
        let path = self.0.join(ATTACHMENT);
        let bytes = std::fs::read(&path).map_err(file(&path))?;
        serde_json::from_slice(&bytes)
            .map_err(|error| StateError::Damaged { path, why: error.to_string() })
    }

    /// Writes what is attached, as a whole or not at all.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn save(&self, attachment: &Attachment) -> Result<(), StateError> {
        platform::create_private_directory(&self.0).map_err(file(&self.0))?;
        let (path, staged) = (self.0.join(ATTACHMENT), self.0.join("attachment.new"));
        let write = || {
            let mut out = platform::private_file(&staged, false)?;
            out.set_len(0)?;
            out.write_all(&serde_json::to_vec_pretty(attachment)?)?;
            out.sync_all()?;
            std::fs::rename(&staged, &path)
        };
        write().map_err(file(&path))
    }

    /// Forgets the attachment. The workspace keeps its files.
    ///
    /// # Errors
    /// Something cannot be removed.
    pub fn remove(&self) -> Result<(), StateError> {
        // First what makes it an attachment, so that no half of one is found.
        match std::fs::remove_file(self.0.join(ATTACHMENT)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(file(&self.0)(error));
            }
            _ => {}
        }
        std::fs::remove_dir_all(&self.0).map_err(file(&self.0))
    }
}
