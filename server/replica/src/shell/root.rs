//! The replica's own directory in a root, and which root it is.

use std::fs::File;
use std::io::{Read, Write};

use super::access::{COOKIES, STAGING, STATE_DIR_NAME};
use crate::disk::{DiskError, DiskResult, RootIdentity};
use crate::platform::{self, Directory};

/// The name of the marker file in the state directory.
pub(super) const MARKER: &str = "id";
/// The name of the file whose times are looked at to know the time.
pub(super) const CLOCK: &str = "clock";
/// The rules that keep the state directory out of Git.
pub(super) const GIT_RULES: &str = ".gitignore";
/// Longer than any marker.
const MAX_MARKER: u64 = 256;

/// Makes the state directory and what belongs into it, where it is missing.
pub(super) fn create(root: &Directory) -> DiskResult<()> {
    make_if_missing(root, STATE_DIR_NAME)?;
    complete(root)?;
    let state = platform::beneath(root, STATE_DIR_NAME)?;
    // Git shall neither show this directory nor add it.
    write_if_missing(&state, GIT_RULES, "*\n")?;
    write_if_missing(&state, MARKER, &format!("{}\n", uuid::Uuid::new_v4()))?;
    platform::sync(&state, ".")?;
    platform::sync(root, ".")?;
    Ok(())
}

/// Makes the parts of the state directory that nobody misses when they are
/// empty: a copy of a root may lack empty directories.
pub(super) fn complete(root: &Directory) -> DiskResult<()> {
    let state = platform::beneath(root, STATE_DIR_NAME)?;
    for name in [STAGING, COOKIES] {
        make_if_missing(&state, name)?;
        // If something else has the name, this says so.
        platform::beneath(&state, name)?;
    }
    Ok(())
}

pub(super) fn make_if_missing(directory: &Directory, name: &str) -> DiskResult<()> {
    match platform::make_directory(directory, name, 0o700) {
        Ok(()) | Err(DiskError::Exists) => Ok(()),
        Err(error) => Err(error),
    }
}

fn write_if_missing(directory: &Directory, name: &str, text: &str) -> DiskResult<()> {
    let mut file = match platform::create_new(directory, name) {
        Err(DiskError::Exists) => return Ok(()),
        other => other?,
    };
    file.write_all(text.as_bytes()).map_err(platform::io_error)?;
    file.sync_all().map_err(platform::io_error)
}

/// The id in the root's marker file, if it has one.
pub(super) fn marker(root: &Directory) -> DiskResult<Option<String>> {
    let open = || platform::open_for_reading(&platform::beneath(root, STATE_DIR_NAME)?, MARKER);
    let file: File = match open() {
        Ok(file) => file,
        Err(DiskError::NotFound | DiskError::NotADirectory) => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = String::new();
    file.take(MAX_MARKER).read_to_string(&mut text).map_err(platform::io_error)?;
    Ok(Some(text.trim().to_owned()).filter(|id| !id.is_empty()))
}

/// Which root this is.
///
/// A file system without an id of its own (one in user space, one over a network)
/// has another device number with each mount, and may number its files anew. There
/// only the marker is the same after a remount; a root must not be taken for
/// another one for good because it was mounted again. What is lost is that a copy
/// in its place, marker included, goes unnoticed: its files are then compared, and
/// what they lack is held back if it is much.
pub(super) fn identity(root: &Directory) -> DiskResult<RootIdentity> {
    let marker = marker(root)?;
    Ok(match platform::file_system_id(root)? {
        Some(device) => RootIdentity { marker, device, inode: platform::stat_of(root)?.inode },
        None => RootIdentity { marker, device: 0, inode: 0 },
    })
}

/// The present moment by the clock of the root's file system.
pub(super) fn now(root: &Directory) -> DiskResult<i64> {
    let state = platform::beneath(root, STATE_DIR_NAME)?;
    platform::touch(&platform::create_or_empty(&state, CLOCK)?)
}
