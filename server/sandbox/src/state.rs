//! Which sandboxes there are on this machine: a directory with one for each.

use std::fs::{File, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::platform::{self, Process};

const RECORD: &str = "sandbox.json";
const SOCKET: &str = "control";
const LOG: &str = "warden.log";
/// Held by the warden as long as it lives.
const LOCK: &str = "lock";
/// Held for the moment in which a sandbox is made or removed.
const MAKING: &str = "making.lock";
/// How long another one may take to make a sandbox's directory, or to remove some.
const MAKES: Duration = Duration::from_secs(20);
/// How long a process may take to end that was killed.
const ENDS: Duration = Duration::from_secs(10);
/// Letters that are told apart when they are read out.
const LETTERS: &[u8] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// The state of sandboxes cannot be used.
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
    #[error("{} cannot be read: {why}; something else has written to it", .path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// Somebody else makes or removes a sandbox, and does not come to an end.
    #[error("another s0 has been making or removing a sandbox for long ({} is locked); end it", .0.display())]
    Making(PathBuf),
    /// The name is another's.
    #[error("the sandbox {id} is named {name} already; choose another name, or stop that one")]
    NameTaken {
        /// The name.
        name: String,
        /// The other.
        id: String,
    },
}

fn file(path: &Path) -> impl Fn(io::Error) -> StateError + '_ {
    move |error| StateError::File { path: path.into(), error }
}

/// A sandbox, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// `sb_…`.
    pub id: String,
    /// Its name, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// When it was made (RFC 3339).
    pub created_at: String,
    /// Directories that are its own, where Volumes can be mounted.
    pub paths: Vec<PathBuf>,
    /// The home of its processes.
    pub home: PathBuf,
    /// Directories of the host that are empty inside.
    pub hidden: Vec<PathBuf>,
    /// Its warden, once that runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warden: Option<Process>,
    /// Its first process, once that runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<Process>,
}

/// A sandbox that was found.
#[derive(Debug)]
pub struct Listed {
    /// Where its state is.
    pub directory: SandboxDir,
    /// What it is.
    pub record: Record,
    /// Whether it has a warden; if not, it has ended.
    pub lives: bool,
}

impl Listed {
    /// Ends it without asking its warden, which may hang. Its state stays.
    ///
    /// # Errors
    /// It cannot be ended.
    pub fn kill(&self) -> Result<(), StateError> {
        let at = file(self.directory.path());
        // The warden first: it would only take time to notice. Its end alone ends the sandbox.
        for process in [self.record.warden, self.record.init].into_iter().flatten() {
            if let Some(held) = process.hold().map_err(&at)? {
                held.kill();
                if !held.ends_within(ENDS).map_err(&at)? {
                    let pid = process.pid;
                    let error =
                        io::Error::other(format!("process {pid} was killed and is still there"));
                    return Err(at(error));
                }
            }
        }
        Ok(())
    }
}

/// The sandboxes of this user on this machine.
#[derive(Debug, Clone)]
pub struct Sandboxes(PathBuf);

/// The state of one sandbox.
#[derive(Debug, Clone)]
pub struct SandboxDir(PathBuf);

/// A new sandbox that has no warden yet. What is locked goes to that one.
#[derive(Debug)]
pub(crate) struct New {
    pub(crate) directory: SandboxDir,
    pub(crate) lock: File,
}

impl Sandboxes {
    /// Those whose state is in `state`, which need not exist.
    #[must_use]
    pub fn new(state: &Path) -> Self {
        Self(state.join("sandboxes"))
    }

    /// The state of a sandbox.
    #[must_use]
    pub fn sandbox(&self, id: &str) -> SandboxDir {
        SandboxDir(self.0.join(id))
    }

    fn lock(&self) -> Result<File, StateError> {
        platform::private_directory(&self.0).map_err(file(&self.0))?;
        let path = self.0.join(MAKING);
        let lock = platform::private_file(&path).map_err(file(&path))?;
        let deadline = Instant::now() + MAKES;
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(lock),
                Err(TryLockError::Error(error)) => return Err(file(&path)(error)),
                Err(TryLockError::WouldBlock) if Instant::now() > deadline => {
                    return Err(StateError::Making(path));
                }
                Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    }

    pub(crate) fn make(&self, mut record: Record) -> Result<New, StateError> {
        let _making = self.lock()?;
        if let Some(name) = &record.name
            && let Some(other) = self.look()?.into_iter().find(|other| {
                other.lives
                    && (other.record.name.as_ref() == Some(name) || other.record.id == *name)
            })
        {
            return Err(StateError::NameTaken { name: name.clone(), id: other.record.id });
        }
        record.id = new_id();
        let directory = self.sandbox(&record.id);
        platform::private_directory(&directory.0).map_err(file(&directory.0))?;
        let path = directory.lock();
        let lock = platform::private_file(&path).map_err(file(&path))?;
        lock.lock().map_err(file(&path))?;
        directory.save(&record)?;
        Ok(New { directory, lock })
    }

    /// All that are there, the oldest first, also those that have ended and nobody has removed.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn list(&self) -> Result<Vec<Listed>, StateError> {
        if !self.0.exists() {
            return Ok(Vec::new());
        }
        let _making = self.lock()?;
        self.look()
    }

    /// Removes what is left of those that have ended, and gives them.
    ///
    /// # Errors
    /// Something cannot be read or removed.
    pub fn clean(&self) -> Result<Vec<Listed>, StateError> {
        if !self.0.exists() {
            return Ok(Vec::new());
        }
        let _making = self.lock()?;
        let mut ended = self.look()?;
        ended.retain(|it| !it.lives);
        for directory in self.directories()? {
            if !directory.has_warden()? {
                directory.remove()?;
            }
        }
        Ok(ended)
    }

    fn directories(&self) -> Result<Vec<SandboxDir>, StateError> {
        let entries = std::fs::read_dir(&self.0).map_err(file(&self.0))?;
        let paths = entries.map(|entry| Ok(entry.map_err(file(&self.0))?.path()));
        let paths = paths.filter(|path| path.as_ref().map_or(true, |path| path.is_dir()));
        paths.map(|path| path.map(SandboxDir)).collect()
    }

    fn look(&self) -> Result<Vec<Listed>, StateError> {
        let mut found = Vec::new();
        for directory in self.directories()? {
            let lives = directory.has_warden()?;
            // There is none in one that its warden is removing now.
            if let Ok(Some(record)) = directory.load() {
                found.push(Listed { directory, record, lives });
            }
        }
        found.sort_by(|a, b| {
            let key = |it: &Listed| (it.record.created_at.clone(), it.record.id.clone());
            key(a).cmp(&key(b))
        });
        Ok(found)
    }
}

/// Random, so that it names no other one on any machine.
/// Now, as it is written down; to the second.
pub(crate) fn now() -> String {
    let now = OffsetDateTime::now_utc();
    let now = now.replace_nanosecond(0).unwrap_or(now);
    // Years have four digits.
    now.format(&Rfc3339).unwrap_or_default()
}

fn new_id() -> String {
    let letter = |_| char::from(LETTERS[fastrand::usize(..LETTERS.len())]);
    format!("sb_{}", (0..16).map(letter).collect::<String>())
}

impl SandboxDir {
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The warden's log.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.0.join(LOG)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.0.join(SOCKET)
    }

    fn lock(&self) -> PathBuf {
        self.0.join(LOCK)
    }

    /// Whether somebody holds its lock.
    fn has_warden(&self) -> Result<bool, StateError> {
        let path = self.lock();
        match File::open(&path) {
            Ok(lock) => match lock.try_lock_shared() {
                Ok(()) => Ok(false),
                Err(TryLockError::WouldBlock) => Ok(true),
                Err(TryLockError::Error(error)) => Err(file(&path)(error)),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(file(&path)(error)),
        }
    }

    /// What it is, if it is there.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn load(&self) -> Result<Option<Record>, StateError> {
        let path = self.0.join(RECORD);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(file(&path)(error)),
        };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| StateError::Damaged { path, why: error.to_string() })
    }

    /// Writes what it is, as a whole or not at all.
    pub(crate) fn save(&self, record: &Record) -> Result<(), StateError> {
        let (path, staged) = (self.0.join(RECORD), self.0.join("sandbox.new"));
        let write = || {
            let mut out = platform::private_file(&staged)?;
            out.set_len(0)?;
            out.write_all(&serde_json::to_vec_pretty(record)?)?;
            std::fs::rename(&staged, &path)
        };
        write().map_err(file(&path))
    }

    /// Removes the state of one that has ended. Another one may be doing the same.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn remove(&self) -> Result<(), StateError> {
        // First what makes it a sandbox, so that no half of one is found.
        for gone in [std::fs::remove_file(self.0.join(RECORD)), std::fs::remove_dir_all(&self.0)] {
            match gone {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(file(&self.0)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: Option<&str>) -> Record {
        Record {
            id: String::new(),
            name: name.map(str::to_owned),
            created_at: "2026-01-01T00:00:00Z".into(),
            paths: vec!["/workspace".into()],
            home: "/home/ann".into(),
            hidden: Vec::new(),
            warden: None,
            init: None,
        }
    }

    #[test]
    fn one_without_a_warden_has_ended_and_is_removed_once() {
        let dir = tempfile::tempdir().unwrap();
        let all = Sandboxes::new(dir.path());
        assert!(all.list().unwrap().is_empty());
        assert!(all.clean().unwrap().is_empty());
        let (one, two) = (all.make(record(None)).unwrap(), all.make(record(None)).unwrap());
        assert_ne!(one.directory.path(), two.directory.path());
        drop(one.lock);
        let lives: Vec<bool> = all.list().unwrap().iter().map(|it| it.lives).collect();
        assert_eq!(lives.iter().filter(|lives| **lives).count(), 1);
        let ended = all.clean().unwrap();
        assert_eq!(ended.len(), 1);
        assert!(!one.directory.path().exists() && two.directory.path().exists());
        assert!(all.clean().unwrap().is_empty());
    }

    #[test]
    fn a_half_removed_one_is_removed_whole() {
        let dir = tempfile::tempdir().unwrap();
        let all = Sandboxes::new(dir.path());
        let one = all.make(record(None)).unwrap();
        std::fs::remove_file(one.directory.path().join(RECORD)).unwrap();
        std::fs::remove_file(one.directory.lock()).unwrap();
        assert!(all.list().unwrap().is_empty());
        all.clean().unwrap();
        assert!(!one.directory.path().exists());
    }

    #[test]
    fn a_name_is_one_sandboxs_as_long_as_it_lives() {
        let dir = tempfile::tempdir().unwrap();
        let all = Sandboxes::new(dir.path());
        let one = all.make(record(Some("agent"))).unwrap();
        assert!(matches!(all.make(record(Some("agent"))), Err(StateError::NameTaken { .. })));
        all.make(record(Some("other"))).unwrap();
        drop(one.lock);
        all.make(record(Some("agent"))).unwrap();
    }

    #[test]
    fn state_is_the_users_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let one = Sandboxes::new(dir.path()).make(record(None)).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(one.directory.path()), 0o700);
        assert_eq!(mode(&one.directory.path().join(RECORD)), 0o600);
    }
}
