//! What depends on the operating system: processes, namespaces, private files, sockets.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use rustix::thread::{
    CapabilitySet, ThreadNameSpaceType, move_into_link_name_space, move_into_thread_name_spaces,
};
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The listening end of a control socket.
pub(crate) type Listener = tokio::net::UnixListener;
/// A warden's end of a connection over a control socket.
pub(crate) type Stream = tokio::net::UnixStream;
/// A guest's end.
pub(crate) type GuestStream = std::os::unix::net::UnixStream;

/// The longest address of a socket that every Unix takes.
const SOCKET_ADDRESS: usize = 100;

/// A process, told from a later one with the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// When it was started, in ticks since the system was.
    pub started: u64,
}

impl Process {
    /// The process that has this number now.
    ///
    /// # Errors
    /// None has it.
    pub fn of(pid: u32) -> io::Result<Self> {
        let said = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let started = started(&said).ok_or_else(|| io::Error::other("no start time"))?;
        Ok(Self { pid, started })
    }

    /// This one.
    pub(crate) fn own() -> io::Result<Self> {
        Self::of(std::process::id())
    }

    /// Takes hold of it, if it is there.
    pub(crate) fn hold(&self) -> io::Result<Option<Held>> {
        let number = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        let number = number.ok_or_else(|| io::Error::other("no process has this number"))?;
        let fd = match pidfd_open(number, PidfdFlags::empty()) {
            Ok(fd) => fd,
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // Looked at after it was taken hold of: if it is this one now, it was then.
        match Self::of(self.pid) {
            Ok(now) if now == *self => Ok(Some(Held { process: *self, fd })),
            _ => Ok(None),
        }
    }
}

/// The start time in what `/proc/PID/stat` says. A program's name may have spaces and
/// parentheses in it.
fn started(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

/// A process whose number goes to no other as long as this lives.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) process: Process,
    fd: OwnedFd,
}

impl AsFd for Held {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Held {
    /// Ends it, whether it listens or not. One that has ended already is as good.
    pub(crate) fn kill(&self) {
        let _ = pidfd_send_signal(&self.fd, Signal::KILL);
    }

    /// What becomes readable when it ends.
    pub(crate) fn end(&self) -> io::Result<AsyncFd<File>> {
        watched(self.fd.try_clone()?.into(), Interest::READABLE)
    }

    /// Waits until it has ended; says whether it did.
    pub(crate) fn ends_within(&self, limit: Duration) -> io::Result<bool> {
        readable_within(self.fd.as_fd(), limit)
    }
}

/// A file whose readiness can be waited for.
pub(crate) fn watched(file: File, interest: Interest) -> io::Result<AsyncFd<File>> {
    // SAFETY: a file owns its descriptor, which is one and the same and open as long as it lives.
    #[expect(unsafe_code, reason = "what is safe of it is to be removed")]
    let watched = unsafe { AsyncFd::register_with_interest(file, interest) };
    watched.map_err(|error| error.into_parts().1)
}

fn readable_within(fd: BorrowedFd<'_>, limit: Duration) -> io::Result<bool> {
    let limit = limit.try_into().map_err(io::Error::other)?;
    let mut polled = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    Ok(rustix::io::retry_on_intr(|| poll(&mut polled, Some(&limit)))? > 0)
}

/// The namespace of a process that a link in `/proc/PID/ns` stands for.
fn name_space(of: &str, kind: &str) -> io::Result<File> {
    File::open(format!("/proc/{of}/ns/{kind}"))
}

fn is_ours(user_name_space: &File) -> io::Result<bool> {
    let (its, ours) = (user_name_space.metadata()?, name_space("self", "user")?.metadata()?);
    Ok((its.dev(), its.ino()) == (ours.dev(), ours.ino()))
}

/// Enters the namespaces of a process, as one of its own kind. What is started from now on is
/// in its process namespace; this process itself stays where it was in that respect.
///
/// The system refuses it to a process with more than one thread.
pub(crate) fn enter(init: &Held) -> io::Result<()> {
    let mut kinds = ThreadNameSpaceType::MOUNT
        | ThreadNameSpaceType::PROCESS_ID
        | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
        | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME;
    let user = name_space(&init.process.pid.to_string(), "user")?;
    // The system refuses to be asked for the one where we are.
    if !is_ours(&user)? {
        kinds |= ThreadNameSpaceType::USER;
    }
    Ok(move_into_thread_name_spaces(init.as_fd(), kinds)?)
}

/// Enters the mount namespace of a process, as one who may mount there. `between` runs when
/// that is so and the files are still those of the host.
///
/// The system refuses it to a process with more than one thread.
pub(crate) fn enter_to_mount<T>(
    init: &Held,
    between: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    let of = init.process.pid.to_string();
    let mounts = name_space(&of, "mnt")?;
    // Not the one of its processes: theirs is a child of it without rights over mounts.
    let user = owner(&mounts)?;
    // The number may have become another's before those were opened, and not since.
    if init.ends_within(Duration::ZERO)? {
        return Err(io::Error::from(rustix::io::Errno::SRCH));
    }
    if !is_ours(&user)? {
        move_into_link_name_space(user.as_fd(), None)?;
    }
    let done = between()?;
    move_into_link_name_space(mounts.as_fd(), None)?;
    Ok(done)
}

/// The user namespace that a namespace belongs to.
fn owner(name_space: &File) -> io::Result<File> {
    /// `NS_GET_USERNS` of `linux/nsfs.h`.
    const GET_USER_NAME_SPACE: libc::Ioctl = 0xb701;
    // SAFETY: it takes no argument, and gives a new descriptor or an error; nobody else has
    // that descriptor.
    #[expect(unsafe_code, reason = "no crate asks this question")]
    unsafe {
        let fd = libc::ioctl(name_space.as_raw_fd(), GET_USER_NAME_SPACE);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(File::from_raw_fd(fd)) }
    }
}

/// What kind of file system is uppermost at a place, as a process sees it.
pub(crate) fn mounted_at(process: &Held, place: &Path) -> io::Result<Option<String>> {
    let table = std::fs::read_to_string(format!("/proc/{}/mountinfo", process.process.pid))?;
    Ok(uppermost(&table, place).map(str::to_owned))
}

/// The kind in a table of mounts, in which those that cover others come later.
fn uppermost<'a>(table: &'a str, place: &Path) -> Option<&'a str> {
    let line = table.lines().rfind(|line| {
        line.split(' ').nth(4).is_some_and(|at| unescaped(at) == place.as_os_str().as_bytes())
    });
    line?.split_once(" - ")?.1.split(' ').next()
}

/// A name in a table of mounts: blanks, line ends and backslashes are octal there.
fn unescaped(name: &str) -> Vec<u8> {
    let mut pieces = name.split('\\');
    let mut bytes = pieces.next().unwrap_or_default().as_bytes().to_vec();
    for piece in pieces {
        match piece.split_at_checked(3).map(|(code, rest)| (u8::from_str_radix(code, 8), rest)) {
            Some((Ok(byte), rest)) => {
                bytes.push(byte);
                bytes.extend_from_slice(rest.as_bytes());
            }
            _ => bytes.extend_from_slice(piece.as_bytes()),
        }
    }
    bytes
}

/// What root may do inside: what it needs to be root of its own files, and nothing that
/// reaches the host (mounts, devices, modules, the network's set-up).
pub(crate) const KEPT: [(&str, CapabilitySet); 10] = [
    ("CAP_CHOWN", CapabilitySet::CHOWN),
    ("CAP_DAC_OVERRIDE", CapabilitySet::DAC_OVERRIDE),
    ("CAP_FOWNER", CapabilitySet::FOWNER),
    ("CAP_FSETID", CapabilitySet::FSETID),
    ("CAP_KILL", CapabilitySet::KILL),
    ("CAP_NET_BIND_SERVICE", CapabilitySet::NET_BIND_SERVICE),
    ("CAP_SETFCAP", CapabilitySet::SETFCAP),
    ("CAP_SETGID", CapabilitySet::SETGID),
    ("CAP_SETPCAP", CapabilitySet::SETPCAP),
    ("CAP_SETUID", CapabilitySet::SETUID),
];

/// Gives up, for all that this process starts, what nothing inside may do.
pub(crate) fn give_up_rights() -> io::Result<()> {
    rustix::thread::set_no_new_privs(true)?;
    if !is_root() {
        // What others start has no rights in any case.
        return Ok(());
    }
    for number in 0..u64::BITS {
        let right = CapabilitySet::from_bits_retain(1 << number);
        if KEPT.iter().any(|(_, kept)| *kept == right) {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(right) {
            // The system knows no right with this number, nor a higher one.
            Err(rustix::io::Errno::INVAL) => break,
            done => done?,
        }
    }
    Ok(())
}

/// Ends this process when the one that started it ends.
pub(crate) fn end_with_parent() -> io::Result<()> {
    Ok(rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?)
}

/// Leaves the terminal and the process group of whoever started this process.
pub(crate) fn lead_session() -> io::Result<()> {
    Ok(rustix::process::setsid().map(drop)?)
}

/// Asks all processes of this process namespace to end, but this one, which is its first.
pub(crate) fn ask_all_to_end() {
    // To the group of process 1, says the system, is to all.
    let _ = rustix::process::kill_process_group(Pid::INIT, Signal::TERM);
}

/// Whether the first process of a process namespace is the only one.
pub(crate) fn is_alone() -> bool {
    rustix::process::test_kill_process_group(Pid::INIT) == Err(rustix::io::Errno::SRCH)
}

/// Buries the children that have ended.
pub(crate) fn bury() {
    use rustix::process::{WaitOptions, wait};
    while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
}

/// Sends a signal to a child, and to its group where it leads one.
pub(crate) fn pass_on(child: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(child).ok().and_then(Pid::from_raw) {
        // It leads no group yet when it has only just begun.
        let _ = rustix::process::kill_process_group(pid, signal)
            .or_else(|_| rustix::process::kill_process(pid, signal));
    }
}

/// A pipe whose writing end the programs that this process starts have, too.
pub(crate) fn pipe_to_hand_down() -> io::Result<(File, OwnedFd)> {
    use rustix::io::FdFlags;
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    rustix::io::fcntl_setfd(&write, FdFlags::empty())?;
    Ok((read.into(), write))
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// This process's user and group, as numbers of its user namespace.
pub(crate) fn user_and_group() -> (u32, u32) {
    (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}

/// Makes a directory, and those above it, for the user alone.
pub(crate) fn private_directory(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Opens a file for writing, and makes it, for the user alone, when it is not there. A link in
/// its place is not followed.
pub(crate) fn private_file(path: &Path) -> io::Result<File> {
    let no_link = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).map_err(io::Error::other)?;
    File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o600)
        .custom_flags(no_link)
        .open(path)
}

/// Opens a control socket for the user alone.
pub(crate) fn listen(path: &Path) -> io::Result<Listener> {
    // The directory is the user's alone, so that nobody comes in between.
    let (address, _held) = address(path)?;
    let listener = Listener::bind(address)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Connects to a control socket.
pub(crate) fn connect(path: &Path) -> io::Result<GuestStream> {
    let (address, _held) = address(path)?;
    GuestStream::connect(address)
}

/// An address of a socket that is short enough. A long one goes by way of its directory,
/// which is held open meanwhile.
fn address(path: &Path) -> io::Result<(PathBuf, Option<File>)> {
    if path.as_os_str().as_bytes().len() <= SOCKET_ADDRESS {
        return Ok((path.to_owned(), None));
    }
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok((path.to_owned(), None));
    };
    let held = File::open(directory)?;
    let by = held.as_raw_fd();
    Ok((Path::new("/proc/self/fd").join(by.to_string()).join(name), Some(held)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_time_is_read_whatever_the_programs_name() {
        let said = "7 (a) b (c)) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 99 1";
        assert_eq!(started(said), Some(4711));
        assert_eq!(started("7"), None);
    }

    #[test]
    fn the_uppermost_mount_counts() {
        let table = "\
            30 1 0:9 / / rw - tmpfs tmpfs rw\n\
            31 30 0:8 / /a\\040b rw,nosuid shared:1 - tmpfs tmpfs rw\n\
            32 31 0:7 / /a\\040b rw - fuse.s0 s0 rw,fd=3\n\
            33 30 0:6 / /a\\134 rw - ext4 /dev/x rw\n";
        assert_eq!(uppermost(table, Path::new("/a b")), Some("fuse.s0"));
        assert_eq!(uppermost(table, Path::new("/a\\")), Some("ext4"));
        assert_eq!(uppermost(table, Path::new("/a")), None);
        assert_eq!(uppermost(table, Path::new("/")), Some("tmpfs"));
    }

    #[test]
    fn a_process_is_told_from_a_later_one_with_its_number() {
        let own = Process::own().unwrap();
        assert!(own.hold().unwrap().is_some());
        let other = Process { started: own.started + 1, ..own };
        assert!(other.hold().unwrap().is_none());
    }

    #[test]
    fn one_that_has_ended_cannot_be_held() {
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let process = Process::of(child.id()).unwrap();
        let held = process.hold().unwrap().unwrap();
        assert!(!held.ends_within(Duration::ZERO).unwrap());
        held.kill();
        assert!(held.ends_within(Duration::from_secs(20)).unwrap());
        child.wait().unwrap();
        assert!(process.hold().unwrap().is_none());
    }
}
