//! What differs between operating systems.

use std::fs::File;
use std::io;
use std::path::Path;

/// Makes the names in a directory durable.
#[cfg(unix)]
pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Makes the names in a directory durable: elsewhere the file system does so
/// by itself, and offers no call for it.
#[cfg(not(unix))]
pub(crate) fn sync_directory(_: &Path) -> io::Result<()> {
    Ok(())
}

/// A file system that makes all that is in it durable at once, which takes far
/// less time than one file after the other.
#[cfg(target_os = "linux")]
#[derive(Debug)]
pub(crate) struct FileSystem(File);

#[cfg(target_os = "linux")]
impl FileSystem {
    /// The file system of a directory; `None` where it cannot do this. A write
    /// that fails is known of by those that were opened before it.
    pub(crate) fn of(directory: &Path) -> io::Result<Option<Self>> {
        File::open(directory).map(|opened| Some(Self(opened)))
    }

    /// Makes everything durable that was written to it.
    pub(crate) fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(&self.0)?)
    }
}

/// A file system that makes all that is in it durable at once: there is none.
#[cfg(not(target_os = "linux"))]
#[derive(Debug)]
pub(crate) enum FileSystem {}

#[cfg(not(target_os = "linux"))]
impl FileSystem {
    /// Each file and directory has to be made durable by itself.
    pub(crate) fn of(_: &Path) -> io::Result<Option<Self>> {
        Ok(None)
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        match *self {}
    }
}

/// Makes a file that only its owner can read.
#[cfg(unix)]
pub(crate) fn create_private(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options().write(true).create_new(true).mode(0o600).open(path)
}

/// Makes a file; access follows the directory's.
#[cfg(not(unix))]
pub(crate) fn create_private(path: &Path) -> io::Result<File> {
    File::options().write(true).create_new(true).open(path)
}

/// Makes a directory that only its owner can enter, or one that is there such a
/// directory.
#[cfg(unix)]
pub(crate) fn make_private_directory(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    if path.metadata()?.permissions().mode() & 0o1000 != 0 {
        let why = "the directory is one that users share; name one of your own";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    make_private(path).map(|_| ())
}

/// Makes a directory; access follows the one above.
#[cfg(not(unix))]
pub(crate) fn make_private_directory(path: &Path) -> io::Result<()> {
    std::fs::create_dir_all(path)
}

/// Takes a file or directory from all but its owner, who must be this user. Says
/// whether others had access.
#[cfg(unix)]
pub(crate) fn make_private(path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let found = path.metadata()?;
    let user = rustix::process::geteuid();
    if found.uid() != user.as_raw() && !user.is_root() {
        let why = format!("it belongs to another user ({})", found.uid());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    let mode = found.permissions().mode() & 0o7777;
    if mode & 0o077 == 0 {
        return Ok(false);
    }
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode & 0o700))?;
    Ok(true)
}

/// Access follows the directory's.
#[cfg(not(unix))]
pub(crate) fn make_private(_: &Path) -> io::Result<bool> {
    Ok(false)
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_private_is_its_owners_alone() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("a/b");
        make_private_directory(&directory).unwrap();
        make_private_directory(&directory).unwrap();
        let file = directory.join("token");
        create_private(&file).unwrap();
        assert!(create_private(&file).is_err(), "never somebody else's file");
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&directory), mode(&file)), (0o700, 0o600));
        assert!(!make_private(&file).unwrap());
        // What others could see is closed to them.
        for (path, open) in [(&directory, 0o755), (&file, 0o644)] {
            std::fs::set_permissions(path, PermissionsExt::from_mode(open)).unwrap();
        }
        make_private_directory(&directory).unwrap();
        assert!(make_private(&file).unwrap());
        assert_eq!((mode(&directory), mode(&file)), (0o700, 0o600));
        // What all share is nobody's to close.
        std::fs::set_permissions(&directory, PermissionsExt::from_mode(0o1777)).unwrap();
        assert!(make_private_directory(&directory).is_err());
        assert_eq!(mode(&directory), 0o777);
    }
}
