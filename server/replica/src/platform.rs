//! All that this crate asks of the operating system beyond `std`.
//!
//! Every call works on a directory that is held open and one name in it, and
//! follows no link. The only way from a path to a directory is [`beneath`],
//! which never leaves the root. Nothing here decides anything.

pub(crate) mod inotify;

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    self, AtFlags, Mode, OFlags, RawDir, RenameFlags, ResolveFlags, Statx, StatxAttributes,
    StatxFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT,
};
use rustix::io::Errno;

use crate::disk::{DiskError, DiskResult, Seen, Stat};

/// An open directory. It may be good for finding names only, not for reading.
pub(crate) type Directory = OwnedFd;

/// `fcntl`'s command to choose the signal of a descriptor, which the crate `libc`
/// lacks.
const F_SETSIG: i32 = 10;

/// How often a resolution is tried again that a rename elsewhere disturbed.
const RESOLVE_TRIES: u32 = 16;
/// Bytes of names that are asked for at once.
const LISTING_PIECE: usize = 64 << 10;

/// Opens the root of a workspace. The way to it may go over links: it was
/// chosen by the user.
pub(crate) fn open_root(path: &Path) -> DiskResult<Directory> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    fs::open(path, flags, Mode::empty()).map_err(|errno| match errno {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NODEV => DiskError::RootGone,
        other => disk_error(other),
    })
}

/// Opens the directory at `path` without leaving `root`, without following a link
/// and without entering what is mounted below it, even what is put there at the
/// same moment. What is mounted below is `OtherDevice`, not `NotFound`: the names
/// that it covers are still there.
pub(crate) fn beneath(root: &Directory, path: &str) -> DiskResult<Directory> {
    if path.is_empty() {
        return root.try_clone().map_err(io_error);
    }
    let how = ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    for _ in 0..RESOLVE_TRIES {
        match fs::openat2(root, path, flags, Mode::empty(), how) {
            Ok(directory) => return Ok(directory),
            Err(Errno::AGAIN | Errno::INTR) => {}
            // Old kernels do not know the call, old sandboxes forbid it, and it
            // takes no path that is longer than PATH_MAX.
            Err(Errno::NOSYS | Errno::PERM | Errno::NAMETOOLONG) => break,
            Err(errno) => return Err(resolve_error(errno)),
        }
    }
    walk(root, path)
}

/// Does what [`beneath`] does one part at a time.
fn walk(root: &Directory, path: &str) -> DiskResult<Directory> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut directory = root.try_clone().map_err(io_error)?;
    for name in path.split('/') {
        let next = fs::openat(&directory, name, flags, Mode::empty()).map_err(resolve_error)?;
        let found = statx(&next, "").map_err(resolve_error)?;
        if is_mounted(&found, &directory).map_err(resolve_error)? {
            return Err(DiskError::OtherDevice);
        }
        directory = next;
    }
    Ok(directory)
}

/// What `name` is; `None` when nothing has that name.
pub(crate) fn stat_at(directory: &Directory, name: &str) -> DiskResult<Option<Stat>> {
    let found = match statx(directory, name) {
        Ok(found) => found,
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(disk_error(errno)),
    };
    let stat = stat_from(&found);
    // The root itself may be where something is mounted.
    if name != "." && is_mounted(&found, directory).map_err(disk_error)? {
        return Ok(Some(Stat { kind: Seen::Mount, ..stat }));
    }
    Ok(Some(stat))
}

/// What an open file is.
pub(crate) fn stat_of(file: impl AsFd) -> DiskResult<Stat> {
    statx(file, "").map(|found| stat_from(&found)).map_err(disk_error)
}

fn statx(at: impl AsFd, name: &str) -> Result<Statx, Errno> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
    let mask = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
    fs::statx(at, name, flags, mask)
}

/// Whether something is mounted at a name that was found in `directory`.
///
/// Kernels before 5.8 do not say so. For them the device number decides, and of
/// directories only: an overlay gives its files the numbers of other devices.
fn is_mounted(found: &Statx, directory: &Directory) -> Result<bool, Errno> {
    if found.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT) {
        return Ok(found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT));
    }
    if !fs::FileType::from_raw_mode(found.stx_mode.into()).is_dir() {
        return Ok(false);
    }
    let own = statx(directory, "")?;
    let device = |of: &Statx| (of.stx_dev_major, of.stx_dev_minor);
    Ok(device(found) != device(&own))
}

fn stat_from(from: &Statx) -> Stat {
    let time = |at: fs::StatxTimestamp| {
        at.tv_sec.saturating_mul(1_000_000_000).saturating_add(i64::from(at.tv_nsec))
    };
    let born = StatxFlags::from_bits_retain(from.stx_mask).contains(StatxFlags::BTIME);
    Stat {
        kind: match fs::FileType::from_raw_mode(from.stx_mode.into()) {
            fs::FileType::RegularFile => Seen::File,
            fs::FileType::Directory => Seen::Directory,
            fs::FileType::Symlink => Seen::Symlink,
            _ => Seen::Other,
        },
        mode: u32::from(from.stx_mode) & 0o777,
        size: from.stx_size,
        mtime: time(from.stx_mtime),
        ctime: time(from.stx_ctime),
        inode: from.stx_ino,
        born: born.then(|| time(from.stx_btime)),
    }
}

/// The id of the file system that a directory lies on, if it has one of its own.
pub(crate) fn file_system_id(directory: &Directory) -> DiskResult<Option<u64>> {
    let fsid = fs::fstatvfs(directory).map_err(disk_error)?.f_fsid;
    Ok((fsid != 0).then_some(fsid))
}

/// The names in a directory, as raw bytes, without `.` and `..`. They are asked
/// for in large pieces: drivers in user space (ntfs-3g is one) lose names when a
/// piece ends in the middle of one of theirs.
pub(crate) fn names(directory: &Directory) -> DiskResult<Vec<Vec<u8>>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let readable = fs::openat(directory, ".", flags, Mode::empty()).map_err(disk_error)?;
    let mut names = Vec::new();
    let mut piece = Vec::with_capacity(LISTING_PIECE);
    let mut entries = RawDir::new(readable, piece.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let entry = match entry {
            // A removed directory that is still open has no names.
            Err(Errno::NOENT) => break,
            entry => entry.map_err(disk_error)?,
        };
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    Ok(names)
}

/// Opens a file for reading without following a link, waiting for anything, or
/// leaving a trace in its access time.
pub(crate) fn open_for_reading(directory: &Directory, name: &str) -> DiskResult<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = match fs::openat(directory, name, flags | OFlags::NOATIME, Mode::empty()) {
        // Only the owner may ask for this.
        Err(Errno::PERM) => fs::openat(directory, name, flags, Mode::empty()),
        other => other,
    };
    match opened {
        Ok(file) => Ok(File::from(file)),
        Err(Errno::LOOP | Errno::NXIO) => Err(not_a_file()),
        Err(errno) => Err(disk_error(errno)),
    }
}

/// The error for something that should be a regular file and is not.
pub(crate) fn not_a_file() -> DiskError {
    DiskError::Other("it is not a regular file".into())
}

/// Makes a file that only its owner can read; `Exists` when the name is taken.
pub(crate) fn create_new(directory: &Directory, name: &str) -> DiskResult<File> {
    create(directory, name, OFlags::EXCL)
}

/// Makes a file that only its owner can read, or empties the one that is there.
pub(crate) fn create_or_empty(directory: &Directory, name: &str) -> DiskResult<File> {
    create(directory, name, OFlags::TRUNC)
}

/// Opens a file of our own in a workspace to read and write, without following a
/// link or waiting, and makes it, readable by its owner only, when it is not there.
pub(crate) fn open_or_create(directory: &Directory, name: &str) -> DiskResult<File> {
    let flags =
        OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    Ok(File::from(fs::openat(directory, name, flags, mode).map_err(disk_error)?))
}

fn create(directory: &Directory, name: &str, how: OFlags) -> DiskResult<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC | how;
    let mode = Mode::RUSR | Mode::WUSR;
    Ok(File::from(fs::openat(directory, name, flags, mode).map_err(disk_error)?))
}

/// Opens `path`, a file of our own outside any workspace, readable by its
/// owner only, and makes it when it is not there.
pub(crate) fn open_private(path: &Path) -> std::io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
    Ok(File::from(fs::open(path, flags, Mode::RUSR | Mode::WUSR)?))
}

/// Where a link points.
pub(crate) fn read_link(directory: &Directory, name: &str) -> DiskResult<String> {
    match fs::readlinkat(directory, name, Vec::new()) {
        Ok(target) => target
            .into_string()
            .map_err(|_| DiskError::Other("the target of the link is not UTF-8".into())),
        Err(Errno::INVAL) => Err(DiskError::Other("it is not a link".into())),
        Err(errno) => Err(disk_error(errno)),
    }
}

/// Makes a link.
pub(crate) fn make_link(directory: &Directory, name: &str, target: &str) -> DiskResult<()> {
    fs::symlinkat(target, directory, name).map_err(disk_error)
}

/// Gives a file a second name, which must be free.
pub(crate) fn hard_link(from: (&Directory, &str), to: (&Directory, &str)) -> DiskResult<()> {
    fs::linkat(from.0, from.1, to.0, to.1, AtFlags::empty()).map_err(disk_error)
}

/// What came of a rename that shall replace nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Renamed {
    /// It is done.
    Done,
    /// Nothing happened. Either the file system cannot rename in this way, or
    /// it refuses the name.
    Unsupported,
}

/// Renames where nothing has the new name; `Exists` otherwise.
pub(crate) fn rename_to_free(
    from: (&Directory, &str),
    to: (&Directory, &str),
) -> DiskResult<Renamed> {
    match fs::renameat_with(from.0, from.1, to.0, to.1, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(Renamed::Done),
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => Ok(Renamed::Unsupported),
        Err(errno) => Err(disk_error(errno)),
    }
}

/// Exchanges what two names stand for.
pub(crate) fn exchange(a: (&Directory, &str), b: (&Directory, &str)) -> DiskResult<()> {
    fs::renameat_with(a.0, a.1, b.0, b.1, RenameFlags::EXCHANGE).map_err(|errno| match errno {
        Errno::INVAL | Errno::NOSYS | Errno::NOTSUP => {
            DiskError::Other("the file system cannot exchange two files".into())
        }
        other => disk_error(other),
    })
}

/// Renames, replacing what has the new name. Only for a new name that nobody
/// else can take.
pub(crate) fn rename_over(from: (&Directory, &str), to: (&Directory, &str)) -> DiskResult<()> {
    fs::renameat(from.0, from.1, to.0, to.1).map_err(disk_error)
}

/// Deletes a name that is not a directory's.
pub(crate) fn unlink(directory: &Directory, name: &str) -> DiskResult<()> {
    fs::unlinkat(directory, name, AtFlags::empty()).map_err(disk_error)
}

/// Makes a directory with exactly these permission bits.
pub(crate) fn make_directory(directory: &Directory, name: &str, mode: u32) -> DiskResult<()> {
    fs::mkdirat(directory, name, bits(mode)).map_err(disk_error)
}

/// Removes an empty directory.
pub(crate) fn remove_directory(directory: &Directory, name: &str) -> DiskResult<()> {
    fs::unlinkat(directory, name, AtFlags::REMOVEDIR).map_err(|errno| match errno {
        Errno::NOTEMPTY | Errno::EXIST => DiskError::NotEmpty,
        other => disk_error(other),
    })
}

/// Sets the permission bits of an open file.
pub(crate) fn set_mode_of(file: &File, mode: u32) -> DiskResult<()> {
    fs::fchmod(file, bits(mode)).map_err(disk_error)
}

/// Sets the permission bits of a file or directory.
pub(crate) fn set_mode(directory: &Directory, name: &str, mode: u32) -> DiskResult<()> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let held = fs::openat(directory, name, flags, Mode::empty()).map_err(disk_error)?;
    if stat_of(&held)?.kind == Seen::Symlink {
        return Err(DiskError::Other("a link has no permission bits".into()));
    }
    // A file that may not be read cannot be opened for `fchmod`; what is held
    // by its name only is reached through the process's own descriptors.
    let own = format!("/proc/self/fd/{}", held.as_raw_fd());
    match fs::chmod(own.as_str(), bits(mode)) {
        Err(Errno::NOENT) => {
            let file = open_for_reading(directory, name)?;
            set_mode_of(&file, mode)
        }
        other => other.map_err(disk_error),
    }
}

fn bits(mode: u32) -> Mode {
    Mode::from_raw_mode(mode & 0o777)
}

/// Returns when the file's bytes, or the directory's names, are on the medium.
/// `None` when the file system cannot do this for one file.
pub(crate) fn sync(directory: &Directory, name: &str) -> DiskResult<Option<()>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match fs::openat(directory, name, flags, Mode::empty()) {
        Ok(file) => file,
        // A link's target lies in the directory entry.
        Err(Errno::LOOP) => return Ok(Some(())),
        // A file that may not be read is synced with all the others.
        Err(Errno::ACCESS) => return Ok(None),
        Err(errno) => return Err(disk_error(errno)),
    };
    match fs::fsync(&file) {
        Ok(()) => Ok(Some(())),
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP | Errno::ROFS) => Ok(None),
        Err(errno) => Err(disk_error(errno)),
    }
}

/// Returns when all that was written to the file system is on the medium.
pub(crate) fn sync_all(directory: &Directory) -> DiskResult<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let readable = fs::openat(directory, ".", flags, Mode::empty()).map_err(disk_error)?;
    fs::syncfs(readable).map_err(disk_error)
}

/// Gives a file the present time as its last change, and returns that time.
pub(crate) fn touch(file: &File) -> DiskResult<i64> {
    let now = |tv_nsec| Timespec { tv_sec: 0, tv_nsec };
    let times = Timestamps { last_access: now(UTIME_OMIT), last_modification: now(UTIME_NOW) };
    fs::futimens(file, &times).map_err(disk_error)?;
    Ok(stat_of(file)?.mtime)
}

/// Whether some process has the file open for writing; `None` where the kernel
/// does not say (another user's file, a network file system).
///
/// A read lease is granted only while nobody has the file open for writing. It
/// is given back at once: while it is held, whoever opens the file for writing
/// waits.
pub(crate) fn has_writer(file: &File) -> Option<bool> {
    let fcntl = |command, argument: i32| {
        // SAFETY: these commands of fcntl take one integer, and the descriptor
        // is open as long as `file` lives.
        #[expect(unsafe_code, reason = "rustix has no leases")]
        unsafe {
            libc::fcntl(file.as_raw_fd(), command, argument)
        }
    };
    // Whoever is kept waiting makes the kernel send a signal to this process.
    // The usual one would end it; this one is ignored unless asked for.
    if fcntl(F_SETSIG, libc::SIGURG) != 0 {
        return None;
    }
    if fcntl(libc::F_SETLEASE, libc::F_RDLCK) == 0 {
        fcntl(libc::F_SETLEASE, libc::F_UNLCK);
        return Some(false);
    }
    let refused = std::io::Error::last_os_error().raw_os_error();
    (refused == Some(libc::EAGAIN)).then_some(true)
}

fn resolve_error(errno: Errno) -> DiskError {
    match errno {
        // No path of a tree leads up, so that this is the border of a mount.
        Errno::XDEV => DiskError::OtherDevice,
        other => disk_error(other),
    }
}

/// The meaning of an error number of a call on one name.
fn disk_error(errno: Errno) -> DiskError {
    match errno {
        Errno::NOENT => DiskError::NotFound,
        Errno::EXIST | Errno::NOTEMPTY => DiskError::Exists,
        Errno::NOTDIR | Errno::LOOP => DiskError::NotADirectory,
        Errno::XDEV => DiskError::OtherDevice,
        Errno::INVAL | Errno::ILSEQ | Errno::NAMETOOLONG => DiskError::BadName,
        Errno::ACCESS | Errno::PERM => DiskError::Denied,
        Errno::ROFS => DiskError::ReadOnly,
        Errno::NOSPC | Errno::DQUOT => DiskError::Full,
        // The medium was taken away or the server of the file system has died.
        Errno::NODEV | Errno::STALE | Errno::NOTCONN => DiskError::RootGone,
        other => DiskError::Other(std::io::Error::from(other).to_string()),
    }
}

/// The meaning of an error of `std`.
#[expect(clippy::needless_pass_by_value, reason = "it is passed to map_err")]
pub(crate) fn io_error(error: std::io::Error) -> DiskError {
    match Errno::from_io_error(&error) {
        // Reading and writing know no names.
        Some(Errno::INVAL) | None => DiskError::Other(error.to_string()),
        Some(errno) => disk_error(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_of_resolving_agree() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("a/b/c")).unwrap();
        std::fs::write(dir.path().join("a/file"), "").unwrap();
        std::os::unix::fs::symlink("b", dir.path().join("a/link")).unwrap();
        let root = open_root(dir.path()).unwrap();
        let mount = dir.path().join("a/mount");
        std::fs::create_dir_all(mount.join("inner")).unwrap();
        let mount_command = |program: &str, arguments: &[&str]| {
            let mut command = std::process::Command::new(program);
            command.args(arguments).arg(&mount).stderr(std::process::Stdio::null());
            command.status().is_ok_and(|status| status.success())
        };
        // Where nothing can be mounted, these are ordinary directories.
        let mounted = mount_command("mount", &["-t", "tmpfs", "none"]);
        std::fs::create_dir_all(mount.join("inner")).unwrap();
        for (at, good) in [
            ("a/b/c", true),
            ("a/mount", !mounted),
            ("a/mount/inner", !mounted),
            ("a/link", false),
            ("a/link/c", false),
            ("a/file", false),
            ("a/none", false),
        ] {
            let word = |result: DiskResult<Directory>| match result {
                Ok(found) => format!("{:?}", stat_of(&found).unwrap().inode),
                Err(error) => error.to_string(),
            };
            let (one, other) = (beneath(&root, at), walk(&root, at));
            assert_eq!(one.is_ok(), good, "{at}");
            assert_eq!(word(one), word(other), "{at}");
        }
        assert!(!mounted || mount_command("umount", &["-l"]));
    }

    #[test]
    fn a_path_longer_than_the_kernel_takes_is_walked() {
        let dir = tempfile::tempdir().unwrap();
        let root = open_root(dir.path()).unwrap();
        let name = "n".repeat(200);
        let mut deep = name.clone();
        make_directory(&root, &name, 0o755).unwrap();
        for _ in 0..30 {
            let parent = beneath(&root, &deep).unwrap();
            make_directory(&parent, &name, 0o755).unwrap();
            deep = format!("{deep}/{name}");
        }
        assert!(deep.len() > 4096);
        assert!(beneath(&root, &deep).is_ok());
    }
}
