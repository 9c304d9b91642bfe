//! Access to a root from any thread: what network code needs of it while the
//! engine works with its [`RootDisk`](super::disk::RootDisk).

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use s0_tree::{TreePath, comparison_key};

use crate::disk::{Abilities, DiskError, DiskResult, IntentId, Seen, Spot, Stat};
use crate::platform::{self, Directory};

/// The directory in each root that belongs to the replica and is never synced.
pub const STATE_DIR_NAME: &str = ".s0";

/// The staging directory, in the state directory.
pub(super) const STAGING: &str = "staging";
/// The directory of the watcher's cookies, in the state directory.
pub(super) const COOKIES: &str = "cookies";

/// How long one call of write(2) can take, in nanoseconds: it moves at most
/// 2 GiB, and mostly from memory to memory.
const LONGEST_WRITE: i64 = 2_000_000_000;

/// What a file's mode is said to be where the root keeps no modes.
const FIXED_FILE_MODE: u32 = 0o644;
/// The same for a directory.
const FIXED_DIRECTORY_MODE: u32 = 0o755;

/// An open root. Clones are the same root.
#[derive(Debug, Clone)]
pub struct RootAccess(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    root: Directory,
    path: PathBuf,
    abilities: Abilities,
}

/// Where something is: a directory that is held open, and a name in it.
#[derive(Debug)]
pub(super) struct Located {
    pub(super) directory: Directory,
    pub(super) name: String,
}

impl Located {
    pub(super) fn at(&self) -> (&Directory, &str) {
        (&self.directory, &self.name)
    }

    pub(super) fn stat(&self) -> DiskResult<Option<Stat>> {
        platform::stat_at(&self.directory, &self.name)
    }
}

impl RootAccess {
    pub(super) fn new(root: Directory, path: PathBuf, abilities: Abilities) -> Self {
        Self(Arc::new(Shared { root, path, abilities }))
    }

    pub(super) fn root(&self) -> &Directory {
        &self.0.root
    }

    pub(super) fn path(&self) -> &Path {
        &self.0.path
    }

    /// What the root can do.
    #[must_use]
    pub fn abilities(&self) -> Abilities {
        self.0.abilities
    }

    /// Finds the directory that holds `at`, anew for each call: a directory that
    /// was kept open could have been moved, even out of the root.
    pub(super) fn locate(&self, at: &Spot) -> DiskResult<Located> {
        let path = match at {
            Spot::Staged(slot) => {
                return Ok(Located { directory: self.staging()?, name: slot_name(*slot) });
            }
            Spot::Path(path) => path,
        };
        let Some((parent, name)) = path.split() else {
            // Good for looking at the root; nothing else works with this name.
            let directory = platform::beneath(self.root(), "")?;
            return Ok(Located { directory, name: ".".into() });
        };
        if path.as_str().split('/').next().is_some_and(is_state_dir) {
            return Err(DiskError::Denied);
        }
        let directory = platform::beneath(self.root(), parent.as_str())?;
        Ok(Located { directory, name: name.as_str().into() })
    }

    /// Opens the directory at `path`.
    pub(super) fn directory(&self, path: &TreePath) -> DiskResult<Directory> {
        if path.as_str().split('/').next().is_some_and(is_state_dir) {
            return Err(DiskError::Denied);
        }
        platform::beneath(self.root(), path.as_str())
    }

    pub(super) fn staging(&self) -> DiskResult<Directory> {
        let path = format!("{STATE_DIR_NAME}/{STAGING}");
        platform::beneath(self.root(), &path).map_err(|error| match error {
            // Who deletes it deletes the marker too, and the engine must stop
            // rather than start afresh.
            DiskError::NotFound | DiskError::NotADirectory => DiskError::RootGone,
            other => other,
        })
    }

    /// The stat as the engine shall see it.
    pub(super) fn shown(&self, mut stat: Stat) -> Stat {
        if !self.0.abilities.modes {
            stat.mode = match stat.kind {
                Seen::Directory => FIXED_DIRECTORY_MODE,
                _ => FIXED_FILE_MODE,
            };
        }
        stat
    }

    /// Starts the download of a slot, in place of one that was not finished.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn part(&self, slot: IntentId) -> DiskResult<PartWriter> {
        let file = platform::create_or_empty(&self.staging()?, &part_name(slot))?;
        Ok(PartWriter { file })
    }

    /// Opens a regular file for reading beside the engine, for an upload or to
    /// reuse parts of it.
    ///
    /// # Errors
    /// It is not there, or is no regular file.
    pub fn open(&self, at: &Spot) -> DiskResult<FileReader> {
        let found = self.locate(at)?;
        // Opening a device can have effects, so that only a file is opened.
        match found.stat()? {
            None => return Err(DiskError::NotFound),
            Some(stat) if stat.kind != Seen::File => return Err(platform::not_a_file()),
            Some(_) => {}
        }
        let file = platform::open_for_reading(&found.directory, &found.name)?;
        let before = platform::stat_of(&file)?;
        if before.kind != Seen::File {
            return Err(platform::not_a_file());
        }
        Ok(FileReader { before: self.shown(before), access: self.clone(), file })
    }

    /// Reads a part of a file; less than `len` bytes where it ends before.
    ///
    /// # Errors
    /// It is not there, is no regular file, or cannot be read.
    pub fn read_range(&self, at: &Spot, offset: u64, len: usize) -> DiskResult<Vec<u8>> {
        self.open(at)?.read_range(offset, len)
    }
}

pub(super) fn slot_name(slot: IntentId) -> String {
    slot.0.to_string()
}

pub(super) fn part_name(slot: IntentId) -> String {
    format!("{}.part", slot.0)
}

/// Whether a name in the root is the replica's own directory, on any file system.
pub(super) fn is_state_dir(name: &str) -> bool {
    comparison_key(name) == STATE_DIR_NAME
}

/// A download on its way into the staging directory. Dropping it keeps what was
/// written; [`Disk::stage_part`](crate::disk::Disk::stage_part) finishes it.
#[derive(Debug)]
pub struct PartWriter {
    file: File,
}

impl PartWriter {
    /// Adds the next bytes.
    ///
    /// # Errors
    /// `Full`, mostly.
    pub fn write(&mut self, bytes: &[u8]) -> DiskResult<()> {
        self.file.write_all(bytes).map_err(platform::io_error)
    }

    /// Ends the download. It survives a power cut only after
    /// [`Disk::sync_staged`](crate::disk::Disk::sync_staged).
    ///
    /// # Errors
    /// Those of the disk.
    pub fn finish(mut self) -> DiskResult<()> {
        self.file.flush().map_err(platform::io_error)
    }
}

/// A file that is read from start to end, or in parts, while others may write it.
#[derive(Debug)]
pub struct FileReader {
    file: File,
    before: Stat,
    access: RootAccess,
}

impl FileReader {
    /// What the file was when it was opened.
    #[must_use]
    pub fn stat(&self) -> Stat {
        self.before
    }

    /// Whether the open file is still what it was when it was opened. Ask after
    /// reading: only then were the bytes those of one moment.
    ///
    /// # Errors
    /// It cannot be known.
    pub fn is_unchanged(&self) -> DiskResult<bool> {
        let now = self.access.shown(platform::stat_of(&self.file)?);
        let before = &self.before;
        Ok((before.size, before.mtime, before.ctime, before.inode)
            == (now.size, now.mtime, now.ctime, now.inode))
    }

    /// Whether some program has the file open for writing, or mapped so that it
    /// can write, as far as that can be known.
    #[must_use]
    pub fn is_open_for_writing(&self) -> bool {
        platform::has_writer(&self.file) == Some(true)
    }

    /// Whether the file had changed just before it was opened: a write may be going
    /// on, since the times change when a write begins, and not again while its
    /// bytes arrive one page after the other.
    #[must_use]
    pub fn has_just_changed(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let age = i64::try_from(now.as_nanos()).unwrap_or(i64::MAX) - self.before.ctime;
        age < LONGEST_WRITE
    }

    /// Reads a part; less than `len` bytes where the file ends before.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read_range(&mut self, offset: u64, len: usize) -> DiskResult<Vec<u8>> {
        self.file.seek(SeekFrom::Start(offset)).map_err(platform::io_error)?;
        let mut bytes = Vec::with_capacity(len.min(1 << 20));
        (&mut self.file).take(len as u64).read_to_end(&mut bytes).map_err(platform::io_error)?;
        Ok(bytes)
    }
}

impl Read for FileReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer)
    }
}

impl Seek for FileReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}
