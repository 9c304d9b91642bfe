//! What is Linux's: mounting, and where a mount's figures are.

use std::ffi::{CString, OsString};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, UnmountFlags};

use crate::kernel::MAX_IO;

/// The device that FUSE is spoken on.
pub const DEVICE: &str = "/dev/fuse";

/// What the kind of file system is called where mounts are listed.
const KIND: &str = "fuse.s0";

/// The Volumes that are mounted, and where, as this process sees it.
///
/// # Errors
/// The list cannot be read.
pub fn mounted() -> io::Result<Vec<(String, PathBuf)>> {
    let listed = fs::read_to_string("/proc/self/mountinfo")?;
    let of_line = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let mut after = after.split(' ');
        let (kind, volume) = (after.next()?, after.next()?);
        let at = before.split(' ').nth(4)?;
        (kind == KIND).then(|| (volume.to_owned(), unescaped(at)))
    };
    Ok(listed.lines().filter_map(of_line).collect())
}

/// A path of the list, in which spaces and the like are octal.
fn unescaped(path: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| *first == b'\\');
        let octal = octal.and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

/// Whether this machine can mount at all.
///
/// # Errors
/// It cannot; why.
pub fn can_mount() -> io::Result<()> {
    open_device().map(|_| ())
}

/// Opens the device, for one mount. It must be opened in the user namespace in which it is
/// mounted.
///
/// # Errors
/// There is none, or it may not be opened.
pub fn open_device() -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    Ok(rustix::fs::open(DEVICE, flags, Mode::empty())?)
}

/// What the kernel is told when a device is mounted.
#[must_use]
pub fn mount_options(device: &OwnedFd) -> String {
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    format!(
        "fd={},rootmode=40000,user_id={uid},group_id={gid},default_permissions,allow_other,max_read={MAX_IO}",
        device.as_raw_fd()
    )
}

/// Mounts a device at a directory. The Volume's name is what `mount` shows.
///
/// # Errors
/// It is no directory, or this process may not mount.
pub fn mount_at(
    device: &OwnedFd,
    directory: &Path,
    volume: &str,
    read_only: bool,
) -> io::Result<()> {
    let options = CString::new(mount_options(device)).map_err(io::Error::other)?;
    let mut flags = MountFlags::NOSUID | MountFlags::NODEV;
    if read_only {
        flags |= MountFlags::RDONLY;
    }
    rustix::mount::mount(volume, directory, KIND, flags, options.as_c_str())?;
    Ok(())
}

/// The number of the device that is mounted at a directory. It asks the mount nothing.
///
/// # Errors
/// It cannot be looked at.
pub fn device_of(directory: &Path) -> io::Result<u64> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    device_of_opened(&rustix::fs::open(directory, flags, Mode::empty())?)
}

pub(crate) fn device_of_opened(opened: &OwnedFd) -> io::Result<u64> {
    let wanted = rustix::fs::StatxFlags::empty();
    let flags = rustix::fs::AtFlags::EMPTY_PATH | rustix::fs::AtFlags::STATX_DONT_SYNC;
    let stat = rustix::fs::statx(opened, "", flags, wanted)?;
    Ok(rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor))
}

/// Has the kernel read further ahead than it does by itself.
pub fn read_ahead(directory: &Path) {
    let Ok(stat) = rustix::fs::stat(directory) else { return };
    let (major, minor) = (rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev));
    let setting = format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb");
    // In a sandbox it is not ours to set; reads are smaller then.
    let _ = fs::write(setting, (MAX_IO / 1024).to_string());
}

/// Takes a mount away that nobody uses.
///
/// # Errors
/// Nothing is mounted there, files of it are open, or this process may not.
pub fn unmount(directory: &Path) -> io::Result<()> {
    Ok(rustix::mount::unmount(directory, UnmountFlags::NOFOLLOW)?)
}

/// Takes a mount away. Files that are open in it stay open until they are closed, as long as it
/// is served.
///
/// # Errors
/// Nothing is mounted there, or this process may not.
pub fn detach(directory: &Path) -> io::Result<()> {
    Ok(rustix::mount::unmount(directory, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?)
}
