//! The replica's own directory in a root, for those who attach, hold and detach
//! roots.
//!
//! It may have come with somebody's repository. So no link in it is followed, and
//! only what this replica makes is removed.

use std::fs::File;
use std::path::Path;

use super::access::{COOKIES, STAGING, STATE_DIR_NAME};
use super::root::{CLOCK, GIT_RULES, MARKER};
use crate::disk::{DiskError, DiskResult, Seen};
use crate::platform::{self, Directory};

/// The own directory of a root, held open.
#[derive(Debug)]
pub struct OwnDirectory {
    root: Directory,
    own: Directory,
}

impl OwnDirectory {
    /// Opens it; `None` when the root has none.
    ///
    /// # Errors
    /// There is no such root, or something else has the name.
    pub fn find(root: &Path) -> DiskResult<Option<Self>> {
        let root = platform::open_root(root)?;
        match platform::beneath(&root, STATE_DIR_NAME) {
            Ok(own) => Ok(Some(Self { root, own })),
            Err(DiskError::NotFound) => Ok(None),
            Err(DiskError::NotADirectory) => Err(DiskError::Other(format!(
                "{STATE_DIR_NAME} in it is a link or a file, where s0 needs a directory of its \
                 own; remove it"
            ))),
            Err(error) => Err(error),
        }
    }

    /// Opens it, and makes it when it is missing. Says whether it was.
    ///
    /// # Errors
    /// There is no such root, or something else has the name.
    pub fn make(root: &Path) -> DiskResult<(Self, bool)> {
        if let Some(found) = Self::find(root)? {
            return Ok((found, false));
        }
        super::root::make_if_missing(&platform::open_root(root)?, STATE_DIR_NAME)?;
        Self::find(root)?.map(|made| (made, true)).ok_or(DiskError::NotFound)
    }

    /// Opens a file in it to read and write, and makes it when it is missing.
    ///
    /// # Errors
    /// Something that is no regular file has the name.
    pub fn file(&self, name: &str) -> DiskResult<File> {
        // Opening a pipe or a device can have effects, so that only a file is opened.
        if platform::stat_at(&self.own, name)?.is_some_and(|found| found.kind != Seen::File) {
            return Err(not_ours());
        }
        let file = platform::open_or_create(&self.own, name)?;
        if platform::stat_of(&file)?.kind != Seen::File {
            return Err(not_ours());
        }
        Ok(file)
    }

    /// Removes what replicas and their hosts (`others`) make, and then the
    /// directory, unless something of the user's is in it: then it says no.
    ///
    /// # Errors
    /// Something cannot be removed.
    pub fn clear(self, others: &[&str]) -> DiskResult<bool> {
        // Staged files are somebody's data, as far as anybody here knows.
        if let Some(staging) = self.directory(STAGING)?
            && !platform::names(&staging)?.is_empty()
        {
            return Ok(false);
        }
        if let Some(cookies) = self.directory(COOKIES)? {
            for name in platform::names(&cookies)? {
                let name = String::from_utf8_lossy(&name);
                if uuid::Uuid::try_parse(&name).is_ok() {
                    remove_file(&cookies, &name)?;
                }
            }
        }
        for name in [STAGING, COOKIES] {
            if self.directory(name)?.is_some() {
                remove_directory(&self.own, name)?;
            }
        }
        for name in [MARKER, CLOCK, GIT_RULES].iter().chain(others) {
            remove_file(&self.own, name)?;
        }
        remove_directory(&self.root, STATE_DIR_NAME)
    }

    /// A real directory in it.
    fn directory(&self, name: &str) -> DiskResult<Option<Directory>> {
        match platform::beneath(&self.own, name) {
            Ok(found) => Ok(Some(found)),
            Err(DiskError::NotFound | DiskError::NotADirectory) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn not_ours() -> DiskError {
    DiskError::Other("it is a link, or something else that s0 did not make; remove it".into())
}

/// Removes a regular file. What else has the name is not ours.
fn remove_file(directory: &Directory, name: &str) -> DiskResult<()> {
    if platform::stat_at(directory, name)?.is_none_or(|found| found.kind != Seen::File) {
        return Ok(());
    }
    match platform::unlink(directory, name) {
        Err(DiskError::NotFound) => Ok(()),
        done => done,
    }
}

/// Removes a directory, if it is empty. Says whether it is gone.
fn remove_directory(above: &Directory, name: &str) -> DiskResult<bool> {
    match platform::remove_directory(above, name) {
        Ok(()) | Err(DiskError::NotFound) => Ok(true),
        Err(DiskError::NotEmpty) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::os::unix::fs::symlink;

    #[test]
    fn no_link_in_it_is_followed() {
        let base = tempfile::tempdir().unwrap();
        let (root, precious) = (base.path().join("root"), base.path().join("precious"));
        std::fs::create_dir(&root).unwrap();
        std::fs::write(&precious, "mine").unwrap();
        let (own, new) = OwnDirectory::make(&root).unwrap();
        assert!(new);
        symlink(&precious, root.join(".s0/lock")).unwrap();
        assert!(own.file("lock").unwrap_err().to_string().contains("it is a link"));
        std::fs::create_dir(root.join(".s0/other")).unwrap();
        assert!(own.file("other").is_err());
        own.file("fine").unwrap().write_all(b"x").unwrap();
        assert_eq!(std::fs::read(&precious).unwrap(), b"mine");

        let (elsewhere, second) = (base.path().join("elsewhere"), base.path().join("second"));
        std::fs::create_dir_all(&second).unwrap();
        std::fs::create_dir(&elsewhere).unwrap();
        symlink(&elsewhere, second.join(".s0")).unwrap();
        for refused in [OwnDirectory::find(&second).unwrap_err(), {
            OwnDirectory::make(&second).map(drop).unwrap_err()
        }] {
            assert!(refused.to_string().contains(".s0 in it is a link"), "{refused}");
        }
    }

    #[test]
    fn clearing_removes_only_what_replicas_make() {
        let base = tempfile::tempdir().unwrap();
        let root = base.path().join("root");
        let names = ["id", "clock", ".gitignore", "lock"];
        std::fs::create_dir_all(root.join(".s0/staging")).unwrap();
        std::fs::create_dir_all(root.join(".s0/cookies")).unwrap();
        names.iter().for_each(|name| std::fs::write(root.join(".s0").join(name), "").unwrap());
        let cookie = root.join(".s0/cookies").join(uuid::Uuid::new_v4().to_string());
        std::fs::write(&cookie, "").unwrap();
        std::fs::write(root.join(".s0/cookies/notes.txt"), "mine").unwrap();
        let clear = || OwnDirectory::find(&root).unwrap().unwrap().clear(&["lock"]).unwrap();
        assert!(!clear());
        assert_eq!(std::fs::read(root.join(".s0/cookies/notes.txt")).unwrap(), b"mine");
        assert!(!cookie.exists() && !root.join(".s0/id").exists());
        std::fs::remove_file(root.join(".s0/cookies/notes.txt")).unwrap();
        assert!(clear());
        assert!(!root.join(".s0").exists());

        // The directory of the cookies leads elsewhere, where files look like them.
        let elsewhere = base.path().join("elsewhere");
        std::fs::create_dir_all(root.join(".s0")).unwrap();
        std::fs::create_dir(&elsewhere).unwrap();
        let theirs = elsewhere.join(uuid::Uuid::new_v4().to_string());
        std::fs::write(&theirs, "theirs").unwrap();
        symlink(&elsewhere, root.join(".s0/cookies")).unwrap();
        assert!(!clear());
        assert!(theirs.exists());
    }
}
