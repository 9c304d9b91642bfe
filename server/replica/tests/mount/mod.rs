//! Mounts below a directory, for tests; only where this may be done.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A mount that ends with this.
pub(crate) struct Mount(PathBuf);

impl Mount {
    /// A new, empty file system.
    pub(crate) fn tmpfs(at: &Path) -> Option<Self> {
        Self::by(r#"mount -t tmpfs none "$0""#, at, Path::new(""))
    }

    /// Another place of `what`.
    pub(crate) fn bind(what: &Path, at: &Path) -> Option<Self> {
        Self::by(r#"mount --bind "$1" "$0""#, at, what)
    }

    /// A file system in user space whose driver has died.
    pub(crate) fn dead(at: &Path) -> Option<Self> {
        let script = r#"exec 3<>/dev/fuse
            mount -i -t fuse -o fd=3,rootmode=40000,user_id=0,group_id=0 none "$0""#;
        Self::by(script, at, Path::new(""))
    }

    fn by(script: &str, at: &Path, other: &Path) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let mut command = Command::new("sh");
        command.args(["-ec", script]).arg(at).arg(other).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success()).then(|| Self(at.to_owned()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).stderr(Stdio::null()).status();
    }
}
