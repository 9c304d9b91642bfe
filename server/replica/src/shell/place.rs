//! Moving something to a name that is free, on every kind of file system.

use super::access::Located;
use crate::disk::{DiskError, DiskResult, Seen};
use crate::platform::{self, Renamed};

/// Moves something out of the staging directory to a free name.
pub(super) fn place(from: &Located, to: &Located) -> DiskResult<()> {
    match platform::rename_to_free(from.at(), to.at())? {
        Renamed::Done => Ok(()),
        Renamed::Unsupported => place_without_rename(from, to),
    }
}

/// Does what [`place`] does where the file system has no call for it. Nobody
/// else touches the staged name, so that it can be deleted once the other is there.
fn place_without_rename(from: &Located, to: &Located) -> DiskResult<()> {
    let stat = from.stat()?.ok_or(DiskError::NotFound)?;
    match stat.kind {
        Seen::Directory => return rename_directory_to_free(from, to),
        Seen::Symlink => {
            let target = platform::read_link(&from.directory, &from.name)?;
            platform::make_link(&to.directory, &to.name, &target)?;
        }
        Seen::File | Seen::Other => platform::hard_link(from.at(), to.at())?,
        Seen::Mount | Seen::Unknown => return Err(DiskError::OtherDevice),
    }
    platform::unlink(&from.directory, &from.name)
}

/// Renames a directory to a name that is free as far as can be seen. What takes
/// the name meanwhile is safe: the kernel replaces nothing by a directory but
/// an empty directory.
pub(super) fn rename_directory_to_free(from: &Located, to: &Located) -> DiskResult<()> {
    if to.stat()?.is_some() {
        return Err(DiskError::Exists);
    }
    platform::rename_over(from.at(), to.at())
}
