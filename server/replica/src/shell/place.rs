//! Moving something to a name that is free, on every kind of file system.

use crate::disk::{DiskError, DiskResult, Seen};
use crate::platform::{self, Directory, Renamed};

/// A name in a directory that is held open.
type At<'a> = (&'a Directory, &'a str);

/// Moves something out of the staging directory to a free name.
pub(super) fn place(from: At<'_>, to: At<'_>) -> DiskResult<()> {
    match platform::rename_to_free(from, to)? {
        Renamed::Done => Ok(()),
        Renamed::Unsupported => place_without_rename(from, to),
    }
}

/// Does what [`place`] does where the file system has no call for it. Nobody
/// else touches the staged name, so that it can be deleted once the other is there.
fn place_without_rename(from: At<'_>, to: At<'_>) -> DiskResult<()> {
    let stat = platform::stat_at(from.0, from.1)?.ok_or(DiskError::NotFound)?;
    match stat.kind {
        Seen::Directory => return rename_directory_to_free(from, to),
        Seen::Symlink => {
            let target = platform::read_link(from.0, from.1)?;
            platform::make_link(to.0, to.1, &target)?;
        }
        Seen::File | Seen::Other => platform::hard_link(from, to)?,
        Seen::Mount | Seen::Unknown => return Err(DiskError::OtherDevice),
    }
    platform::unlink(from.0, from.1)
}

/// Renames a directory to a name that is free as far as can be seen. What takes
/// the name meanwhile is safe: the kernel replaces nothing by a directory but
/// an empty directory.
pub(super) fn rename_directory_to_free(from: At<'_>, to: At<'_>) -> DiskResult<()> {
    if platform::stat_at(to.0, to.1)?.is_some() {
        return Err(DiskError::Exists);
    }
    platform::rename_over(from, to)
}
