//! What is attached on this machine: the state directory.

use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use s0_api::Client;
use s0_replica::engine::{Init, Pause};
use serde::{Deserialize, Serialize};

use crate::platform;

const ATTACHMENT: &str = "attachment.json";
const DATABASE: &str = "state.db";
const LOG: &str = "log";
const REVIEW: &str = "review.json";
const SOCKET: &str = "host.sock";
const LOCK: &str = "host.lock";
/// What the service calls the files in its data directory that clients read.
const SERVICE_FILE: &str = "service.json";
const TOKEN_FILE: &str = "token";
/// What the service locks there as long as it runs.
const SERVICE_LOCK: &str = "lock";
/// The lock of the state directory, for those who attach.
const STATE_LOCK: &str = "attach.lock";
/// How long another one may take to attach.
const ATTACHING: Duration = Duration::from_secs(60);

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
    #[error(
        "{} cannot be read: {why}. `s0 sync detach {}` forgets the attachment; the workspace can be \
         attached again then",
        .path.display(),
        .path.parent().and_then(Path::file_name).unwrap_or_default().display()
    )]
    Damaged {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// Somebody else attaches.
    #[error("another s0 has been attaching a directory for a minute ({} is locked); end it", .0.display())]
    Attaching(PathBuf),
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

/// The same without the token, for whoever has another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServicePlace {
    /// On this machine, with this data directory.
    Local(PathBuf),
    /// At a fixed address.
    Remote(String),
}

impl ServicePlace {
    /// The address as it is now.
    ///
    /// # Errors
    /// The service of this machine does not run; in words for people.
    pub fn url(&self) -> Result<String, String> {
        match self {
            Self::Remote(url) => Ok(url.clone()),
            Self::Local(data_dir) => local_url(data_dir).ok_or_else(|| {
                let data_dir = data_dir.display();
                format!("no service runs; `s0 serve --background --data-dir {data_dir}` starts one")
            }),
        }
    }
}

impl ServiceAddress {
    /// Where it is.
    #[must_use]
    pub fn place(&self) -> ServicePlace {
        match self {
            Self::Local(data_dir) => ServicePlace::Local(data_dir.clone()),
            Self::Remote { url, .. } => ServicePlace::Remote(url.clone()),
        }
    }

    /// The address as it is now.
    ///
    /// # Errors
    /// The service of this machine does not run; in words for people.
    pub fn url(&self) -> Result<String, String> {
        self.place().url()
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
    /// Guarded paths; the usual ones when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guarded: Option<Vec<String>>,
}

/// Held while something is attached; see [`StateDir::lock`].
pub struct StateLock {
    _file: File,
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

    /// Keeps others from attaching as long as the lock lives, so that what was
    /// looked up stays true until it is saved.
    ///
    /// # Errors
    /// Somebody holds it for long, or it cannot be made.
    pub async fn lock(&self) -> Result<StateLock, StateError> {
        platform::create_private_directory(&self.0).map_err(file(&self.0))?;
        let path = self.0.join(STATE_LOCK);
        let lock = platform::private_lock(&path).map_err(file(&path))?;
        let deadline = Instant::now() + ATTACHING;
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(StateLock { _file: lock }),
                Err(TryLockError::Error(error)) => return Err(file(&path)(error)),
                Err(TryLockError::WouldBlock) if Instant::now() > deadline => {
                    return Err(StateError::Attaching(path));
                }
                Err(TryLockError::WouldBlock) => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
    }

    /// All that is attached, by root.
    ///
    /// # Errors
    /// The directory cannot be read. What is damaged is left out; see
    /// [`damaged`](Self::damaged).
    pub fn list(&self) -> Result<Vec<(AttachmentDir, Attachment)>, StateError> {
        let mut found = Vec::new();
        for directory in self.directories()? {
            // There is nothing in one that is being made or removed now.
            if let Ok(Some(attachment)) = directory.load_if_attached() {
                found.push((directory, attachment));
            }
        }
        found.sort_by(|a, b| a.1.root.cmp(&b.1.root));
        Ok(found)
    }

    /// The attachments that cannot be read, and why.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn damaged(&self) -> Result<Vec<(AttachmentDir, StateError)>, StateError> {
        let mut found = Vec::new();
        for directory in self.directories()? {
            if let Err(damage) = directory.load_if_attached() {
                found.push((directory, damage));
            }
        }
        Ok(found)
    }

    fn directories(&self) -> Result<Vec<AttachmentDir>, StateError> {
        let path = self.0.join("replicas");
        let entries = match std::fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(file(&path)(error)),
        };
        let each = entries.map(|entry| Ok(AttachmentDir(entry.map_err(file(&path))?.path())));
        each.collect()
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
#[must_use]
pub fn canonical(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    for existing in path.ancestors() {
        if let Ok(mut found) = std::fs::canonicalize(existing) {
            // What is not there is no link, so that `..` means what it says.
            for part in path.strip_prefix(existing).unwrap_or(Path::new("")).components() {
                match part {
                    Component::ParentDir => drop(found.pop()),
                    part => found.push(part),
                }
            }
            return found;
        }
    }
    path
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
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

    /// Whether no host runs because the last one was ended in order: one that was killed
    /// leaves its socket.
    #[must_use]
    pub fn was_stopped(&self) -> bool {
        !self.socket().exists()
    }

    pub(crate) fn review(&self) -> PathBuf {
        self.0.join(REVIEW)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.0.join(SOCKET)
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.0.join(LOCK)
    }

    /// The replica that it is of.
    #[must_use]
    pub fn replica(&self) -> String {
        self.0.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// What is attached, if anything is.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn load_if_attached(&self) -> Result<Option<Attachment>, StateError> {
        let path = self.0.join(ATTACHMENT);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if is_missing(&error) => return Ok(None),
            Err(error) => return Err(file(&path)(error)),
        };
        serde_json::from_slice(&bytes)
            .map(Some)
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
