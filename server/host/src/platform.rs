//! What depends on the operating system: private files, detaching, the socket.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// The listening end of a control socket.
pub(crate) type Listener = tokio::net::UnixListener;
/// A connection over a control socket.
pub(crate) type Stream = tokio::net::UnixStream;

/// The longest address of a socket that every Unix takes.
const SOCKET_ADDRESS: usize = 100;

/// Makes a directory, and those above it, for the user alone.
pub(crate) fn create_private_directory(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Opens a file for writing, for the user alone.
pub(crate) fn private_file(path: &Path, append: bool) -> io::Result<File> {
    OpenOptions::new().create(true).append(append).write(true).mode(0o600).open(path)
}

/// Opens the file of a lock, and makes it, for the user alone, when it is not there. A link that
/// somebody has put in its place is not followed: what it leads to would be
/// overwritten.
pub(crate) fn private_lock(path: &Path) -> io::Result<File> {
    let no_link = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).map_err(io::Error::other)?;
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o600)
        .custom_flags(no_link)
        .open(path)
}

/// Which run of the operating system this is. Where it does not say, no answer is
/// like an earlier one: files are then read again more often than they need be,
/// and never trusted when they should not.
pub(crate) fn boot_id() -> String {
    let said = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    if !said.trim().is_empty() {
        return said.trim().to_owned();
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("unknown, process {} at {}", std::process::id(), since.as_nanos())
}

/// Leaves the terminal and the process group that started this process, so that
/// neither's end is this process's end.
pub fn detach() {
    // It fails only for a process that leads a group already, which is as good.
    let _ = rustix::process::setsid();
}

/// Opens a control socket for the user alone. Whoever holds the lock of the
/// replica may take the place of a socket that is left over.
pub(crate) fn listen(path: &Path) -> io::Result<Listener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // The directory is the user's alone, so that nobody comes in between.
    let (address, _held) = address(path)?;
    let listener = Listener::bind(address)?;
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    Ok(listener)
}

/// Connects to a control socket.
pub(crate) async fn connect(path: &Path) -> io::Result<Stream> {
    let (address, _held) = address(path)?;
    Stream::connect(address).await
}

/// An address of a socket that is short enough. A long one goes by way of its
/// directory, which is held open meanwhile.
fn address(path: &Path) -> io::Result<(PathBuf, Option<File>)> {
    if path.as_os_str().as_bytes().len() <= SOCKET_ADDRESS {
        return Ok((path.to_owned(), None));
    }
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok((path.to_owned(), None));
    };
    let held = File::open(directory)?;
    let by = std::os::fd::AsRawFd::as_raw_fd(&held);
    Ok((Path::new("/proc/self/fd").join(by.to_string()).join(name), Some(held)))
}

/// The name of this machine, for people.
#[must_use]
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_run_of_the_system_has_one_name() {
        assert!(!boot_id().is_empty());
        // Only Linux gives the run a name.
        if Path::new("/proc/sys/kernel/random/boot_id").exists() {
            assert_eq!(boot_id(), boot_id());
        }
    }
}
