//! Backups of a data directory, and how one is brought back.
//!
//! A backup is a directory with the journals' database as it was at one moment and all
//! contents that it can name. It is made while the service runs: contents never change
//! and are durable before an entry names them, so those that are there after the
//! database was copied are enough. A backup that is made again over an earlier one copies
//! only what is new; until the last step the earlier one stays whole.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use s0_tree::{Hash, Time};
use serde::{Deserialize, Serialize};

use crate::journal::{Journal, blocking};
use crate::platform;
use crate::serve::{ServeError, TOKEN_FILE, at, lock, opening, replace};
use crate::service::now;
use crate::sqlite::{self, SqliteJournal};

/// The name of the file that says what a backup is; a directory without it is none.
const MANIFEST: &str = "backup.json";
const JOURNAL: &str = "journal.db";
const CONTENTS: &str = "contents";
/// What is not whole yet.
const NEW: &str = "journal.new";

/// What a backup holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    /// The version of the program that made it.
    pub version: String,
    /// When its journals were copied, in seconds since 1970.
    pub time: i64,
    /// Its Volumes.
    pub volumes: Vec<String>,
}

/// What was copied.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Copied {
    /// How many contents are in the copy.
    pub contents: usize,
    /// How many of them were copied now.
    pub new: usize,
    /// How many bytes those have.
    pub bytes: u64,
    /// Contents that are damaged, and are not in the copy.
    pub damaged: Vec<PathBuf>,
}

/// Makes a backup of a data directory in `target`, or brings one there up to date.
/// `progress` hears of each step.
///
/// # Errors
/// Something cannot be read or written, or somebody else is writing this backup. What
/// was a backup there still is one.
pub async fn backup(
    data_dir: &Path,
    target: &Path,
    progress: &mut (dyn FnMut(&Copied) + Send),
) -> Result<(Backup, Copied), ServeError> {
    let source = data_dir.join(JOURNAL);
    let journal = SqliteJournal::open_to_read(&source).map_err(opening(&source))?;
    platform::make_private_directory(target).map_err(at(target))?;
    let _alone = lock(target)?;
    let is_backup = target.join(MANIFEST).exists() && !target.join(TOKEN_FILE).exists();
    let allowed: &[&str] = if is_backup { &[JOURNAL] } else { &[] };
    no_database_in(target, allowed, "a service has used this; back up into another directory")?;
    let new = target.join(NEW);
    remove_if_there(&new)?;
    let Time(nanoseconds) = now();
    journal.copy_to(&new).await?;
    platform::make_private(&new).map_err(at(&new))?;
    sync(&new)?;
    let copy = SqliteJournal::open_to_read(&new).map_err(opening(&new))?;
    let volumes = copy.volumes(None).await?.into_iter().map(|volume| volume.id).collect();
    drop(copy);
    let copied = copy_contents(data_dir, target, progress).await?;
    let made = Backup {
        version: env!("CARGO_PKG_VERSION").into(),
        time: nanoseconds / 1_000_000_000,
        volumes,
    };
    fs::rename(&new, target.join(JOURNAL)).map_err(at(target))?;
    let manifest = serde_json::to_vec_pretty(&made).map_err(|error| at(target)(error.into()))?;
    replace(&target.join(MANIFEST), &manifest)?;
    Ok((made, copied))
}

/// Brings a backup back into a data directory that holds no journals. Every Volume has a
/// new epoch then, so that replicas compare what they have with it, path by path.
///
/// # Errors
/// There is no backup, the data directory is in use, or something cannot be read or
/// written. The same may be asked for again.
pub async fn restore(
    backup: &Path,
    data_dir: &Path,
    progress: &mut (dyn FnMut(&Copied) + Send),
) -> Result<(Backup, Copied), ServeError> {
    let manifest = backup.join(MANIFEST);
    let text = fs::read(&manifest).map_err(at(&manifest))?;
    let found: Backup = serde_json::from_slice(&text).map_err(|why| at(&manifest)(why.into()))?;
    platform::make_private_directory(data_dir).map_err(at(data_dir))?;
    let _alone = lock(data_dir)?;
    let journal = data_dir.join(JOURNAL);
    let why = "a service has its journals here already; move them away first, with the contents";
    no_database_in(data_dir, &[], why)?;
    let copied = copy_contents(backup, data_dir, progress).await?;
    let new = data_dir.join(NEW);
    remove_if_there(&new)?;
    let from = backup.join(JOURNAL);
    let (source, staged) = (from.clone(), new.clone());
    blocking(move || Ok(fs::copy(source, staged))).await?.map_err(at(&from))?;
    platform::make_private(&new).map_err(at(&new))?;
    let seed = uuid::Uuid::new_v4().to_string();
    sqlite::renew_epochs(&new, &seed).map_err(opening(&new))?;
    sync(&new)?;
    fs::rename(&new, &journal).map_err(at(&journal))?;
    platform::sync_directory(data_dir).map_err(at(data_dir))?;
    Ok((found, copied))
}

/// Refuses where a database is, but for what is `allowed`, or what one has left: it would
/// be lost, or be taken for a part of the one that is put there.
fn no_database_in(directory: &Path, allowed: &[&str], why: &'static str) -> Result<(), ServeError> {
    for name in [JOURNAL, "journal.db-wal", "journal.db-shm"] {
        let path = directory.join(name);
        if !allowed.contains(&name) && fs::symlink_metadata(&path).is_ok() {
            return Err(at(&path)(io::Error::new(io::ErrorKind::AlreadyExists, why)));
        }
    }
    Ok(())
}

fn remove_if_there(path: &Path) -> Result<(), ServeError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(path)(error)),
        _ => Ok(()),
    }
}

fn sync(path: &Path) -> Result<(), ServeError> {
    File::options().write(true).open(path).and_then(|file| file.sync_all()).map_err(at(path))
}

/// Copies the contents that the other has not, each after a look at its bytes; all are
/// durable then.
async fn copy_contents(
    from: &Path,
    to: &Path,
    progress: &mut (dyn FnMut(&Copied) + Send),
) -> Result<Copied, ServeError> {
    let (from, to) = (from.join(CONTENTS), to.join(CONTENTS));
    fs::create_dir_all(&to).map_err(at(&to))?;
    let whole = platform::FileSystem::of(&to).map_err(at(&to))?;
    let mut copied = Copied::default();
    // A directory of contents: a team, a kind, the first two digits.
    for directory in directories(&from, 3)? {
        let below = directory.strip_prefix(&from).unwrap_or(&directory).to_owned();
        let (source, target) = (directory, to.join(below));
        let done = blocking(move || Ok(copy_directory(&source, &target))).await??;
        copied.contents += done.contents;
        copied.new += done.new;
        copied.bytes += done.bytes;
        copied.damaged.extend(done.damaged);
        progress(&copied);
    }
    match whole {
        Some(whole) => whole.sync().map_err(at(&to))?,
        None => {
            for directory in directories(&to, 3)? {
                for (path, _) in contents(&directory)? {
                    sync(&path)?;
                }
                platform::sync_directory(&directory).map_err(at(&directory))?;
            }
        }
    }
    Ok(copied)
}

fn copy_directory(from: &Path, to: &Path) -> Result<Copied, ServeError> {
    let mut copied = Copied::default();
    fs::create_dir_all(to).map_err(at(to))?;
    for (path, hash) in contents(from)? {
        let target = to.join(path.file_name().unwrap_or_default());
        let length = fs::metadata(&path).map_err(at(&path))?.len();
        if fs::metadata(&target).is_ok_and(|there| there.len() == length) {
            copied.contents += 1;
            continue;
        }
        let bytes = fs::read(&path).map_err(at(&path))?;
        if Hash::of(&bytes).to_string() != hash {
            copied.damaged.push(path);
            continue;
        }
        // A copy that breaks off has no name by which it is believed.
        let staged = target.with_extension("new");
        fs::write(&staged, &bytes).map_err(at(&staged))?;
        fs::rename(&staged, &target).map_err(at(&target))?;
        copied.contents += 1;
        copied.new += 1;
        copied.bytes += length;
    }
    Ok(copied)
}

/// The directories at a depth below `root`, in order.
fn directories(root: &Path, depth: usize) -> Result<Vec<PathBuf>, ServeError> {
    let mut level = vec![root.to_owned()];
    for _ in 0..depth {
        let mut next = Vec::new();
        for directory in level {
            for entry in fs::read_dir(&directory).map_err(at(&directory))? {
                let entry = entry.map_err(at(&directory))?;
                if entry.file_type().map_err(at(&directory))?.is_dir() {
                    next.push(entry.path());
                }
            }
        }
        next.sort();
        level = next;
    }
    Ok(level)
}

/// The contents in a directory, with the hashes that their names are. What is staged or
/// was set aside has another name.
fn contents(directory: &Path) -> Result<Vec<(PathBuf, String)>, ServeError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(at(directory))? {
        let entry = entry.map_err(at(directory))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            found.push((entry.path(), name));
        }
    }
    found.sort();
    Ok(found)
}
