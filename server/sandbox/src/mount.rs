//! Mounting a file system in a sandbox that is served from outside.
//!
//! Who serves it cannot enter the sandbox: it has threads. A helper, a process of its own, does
//! ([`help`]): it opens `/dev/fuse` and mounts there, and sends the descriptor back over the
//! socket that is its standard input.
//!
//! If the helper dies in between, its descriptor is closed, so that what it may have mounted is
//! dead; [`unmount`] takes it away. If the one outside dies, the sandbox does, and every mount.

use std::ffi::{CString, OsString};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, mkdirat, openat2};
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use s0_mount::Performer;
use serde::{Deserialize, Serialize};

use crate::layout::mount_point;
use crate::platform::{self, Held, Process};

/// What the kind of file system is called in `/proc/…/mountinfo`.
const KIND: &str = "fuse.s0";
/// What stands there as its source.
const SOURCE: &str = "s0";

/// Why nothing was mounted or unmounted.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct MountError(String);

impl From<io::Error> for MountError {
    fn from(error: io::Error) -> Self {
        Self(error.to_string())
    }
}

/// A mount that waits to be served.
#[derive(Debug)]
pub struct FuseMount {
    /// `/dev/fuse`. When it is closed, the mount is dead.
    pub fuse: OwnedFd,
    /// The user that may use it, as requests name it and attributes must: a number of the user
    /// namespace that the mount belongs to, and 0 where that is one of bubblewrap's.
    pub uid: u32,
    /// Its group, in the same way.
    pub gid: u32,
}

/// What the helper says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Said {
    /// With the descriptor.
    Mounted {
        uid: u32,
        gid: u32,
    },
    Unmounted,
    Failed(String),
}

/// Mounts at a directory of the sandbox whose first process is `init`. `program` must know how to
/// be a helper; see [`help`]. It may be called by a process with threads, and blocks for some
/// milliseconds.
///
/// `options` are FUSE's beside `fd`, `rootmode`, `user_id` and `group_id`, such as
/// `default_permissions,allow_other`.
///
/// # Errors
/// Nothing was mounted; or the helper was killed, and [`unmount`] makes sure.
pub fn mount(
    program: &Path,
    init: Process,
    path: &Path,
    options: &str,
) -> Result<FuseMount, MountError> {
    let path = mount_point(path).map_err(|error| MountError(error.to_string()))?;
    match ask_helper(program, init, &path, &["--options", options])? {
        (Said::Mounted { uid, gid }, Some(fuse)) => Ok(FuseMount { fuse, uid, gid }),
        (said, _) => Err(unexpected(&said)),
    }
}

/// Takes what [`mount`] mounted at a directory of the sandbox away. Who has files of it open goes on
/// with them as long as it is served.
///
/// # Errors
/// Nothing is mounted there, or it cannot be asked.
pub fn unmount(program: &Path, init: Process, path: &Path) -> Result<(), MountError> {
    match ask_helper(program, init, path, &["--unmount"])? {
        (Said::Unmounted, _) => Ok(()),
        (said, _) => Err(unexpected(&said)),
    }
}

/// What does things once more on what [`mount`] mounted, so that watchers in the sandbox hear of
/// them. It has to be inside: nobody else is let into a mount of another user namespace.
///
/// # Errors
/// The mount cannot be found from outside.
pub(crate) fn performer(program: &Path, init: Process, path: &Path) -> io::Result<Performer> {
    let inside = path.strip_prefix("/").unwrap_or(path);
    let outside = Path::new("/proc").join(init.pid.to_string()).join("root").join(inside);
    let device = s0_mount::platform::device_of(&outside)?.to_string();
    let mut arguments = asked_of(init, path);
    arguments.extend(["--perform-on".into(), device.into()]);
    Ok(Performer { program: program.to_owned(), arguments })
}

/// Is what [`performer`] starts.
///
/// # Errors
/// The sandbox has ended, or cannot be entered.
pub fn perform(pid: u32, started: Option<u64>, path: &Path, device: u64) -> io::Result<()> {
    platform::enter_to_mount(&hold(pid, started)?, || Ok(()))?;
    s0_mount::perform_all(path, device)
}

/// How a helper is told what to help with.
fn asked_of(init: Process, path: &Path) -> Vec<OsString> {
    let (pid, started) = (init.pid.to_string(), init.started.to_string());
    let words = ["sandbox-mount-helper", "--pid", &pid, "--started", &started, "--path"];
    words.iter().map(OsString::from).chain([path.into()]).collect()
}

#[cfg(fuzzing)]
pub(crate) fn again(said: &[u8]) -> Option<Vec<u8>> {
    let said: Said = serde_json::from_slice(said).ok()?;
    serde_json::to_vec(&said).ok()
}

fn unexpected(said: &Said) -> MountError {
    MountError(match said {
        Said::Failed(why) => why.clone(),
        other => format!("the helper said something else than was asked: {other:?}"),
    })
}

fn ask_helper(
    program: &Path,
    init: Process,
    path: &Path,
    more: &[&str],
) -> Result<(Said, Option<OwnedFd>), MountError> {
    let (ours, its) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .map_err(io::Error::from)?;
    let mut command = Command::new(program);
    command.args(asked_of(init, path)).args(more);
    command.current_dir("/").stdin(Stdio::from(its)).stdout(Stdio::null());
    let mut helper = command.spawn()?;
    // It holds the helper's end.
    drop(command);
    let received = receive(&ours);
    helper.wait()?;
    received
}

fn receive(socket: &OwnedFd) -> Result<(Said, Option<OwnedFd>), MountError> {
    let mut bytes = [0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut with = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        let mut into = [IoSliceMut::new(&mut bytes)];
        recvmsg(socket, &mut into, &mut with, RecvFlags::CMSG_CLOEXEC)
    });
    let length = received.map_err(io::Error::from)?.bytes;
    if length == 0 {
        return Err(MountError("the helper ended without a word; see the warden's log".into()));
    }
    let fd = with.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    let said = serde_json::from_slice(&bytes[..length]).map_err(io::Error::from)?;
    Ok((said, fd))
}

fn send(said: &Said, fd: Option<&OwnedFd>) -> io::Result<()> {
    let bytes = serde_json::to_vec(said)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut with = SendAncillaryBuffer::new(&mut space);
    let fds = fd.map(|fd| [fd.as_fd()]);
    if let Some(fds) = &fds {
        with.push(SendAncillaryMessage::ScmRights(fds));
    }
    sendmsg(io::stdin(), &[IoSlice::new(&bytes)], &mut with, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// What a helper shall do.
#[derive(Debug)]
pub enum Help<'a> {
    /// Mount, with these options.
    Mount(&'a str),
    /// Take a mount away.
    Unmount,
}

/// Is the helper: does what it shall at a path of the sandbox of process `pid`, and says so on
/// the socket that is standard input. This process must have one thread.
///
/// # Errors
/// Nobody could be told. What else goes wrong is told there.
pub fn help(pid: u32, started: Option<u64>, path: &Path, what: &Help<'_>) -> io::Result<()> {
    let done = hold(pid, started).and_then(|init| match what {
        Help::Mount(options) => {
            let fuse = mount_inside(&init, path, options)?;
            let (uid, gid) = platform::user_and_group();
            Ok((Said::Mounted { uid, gid }, Some(fuse)))
        }
        Help::Unmount => {
            // What else is there is the sandbox's own directory, and stays.
            if platform::mounted_at(&init, path)?.as_deref() != Some(KIND) {
                return Err(at(path, rustix::io::Errno::INVAL));
            }
            platform::enter_to_mount(&init, || Ok(()))?;
            // By its path: what is mounted there may be dead, and cannot be opened.
            rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
                .map_err(|error| at(path, error))?;
            Ok((Said::Unmounted, None))
        }
    });
    match done {
        Ok((said, fd)) => send(&said, fd.as_ref()),
        Err(error) => send(&Said::Failed(error.to_string()), None),
    }
}

fn hold(pid: u32, started: Option<u64>) -> io::Result<Held> {
    let now = Process::of(pid);
    let init = match started {
        Some(started) => Process { pid, started },
        None => now?,
    };
    init.hold()?.ok_or_else(|| io::Error::other("the sandbox has ended"))
}

fn mount_inside(init: &Held, path: &Path, options: &str) -> io::Result<OwnedFd> {
    mount_point(path).map_err(io::Error::other)?;
    let fuse = platform::enter_to_mount(init, || {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        rustix::fs::open("/dev/fuse", flags, Mode::empty()).map_err(|error| {
            io::Error::other(format!(
                "/dev/fuse: {error}; mounts need FUSE (`modprobe fuse`), and leave to open it"
            ))
        })
    })?;
    go_to(path)?;
    let (uid, gid) = platform::user_and_group();
    let mut all = format!("fd={},rootmode=40000,user_id={uid},group_id={gid}", fuse.as_raw_fd());
    if !options.is_empty() {
        all = format!("{all},{options}");
    }
    let all = CString::new(all)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount(SOURCE, ".", KIND, flags, all.as_c_str()).map_err(
        |error| match error {
            rustix::io::Errno::INVAL => io::Error::other(format!(
                "{}: the system does not take the options {options:?}",
                path.display()
            )),
            error => at(path, error),
        },
    )?;
    Ok(fuse)
}

/// Makes a directory inside the current one, and the directory itself where it is missing. Who is
/// inside may change the path meanwhile, so that it is gone once, and no link is followed.
fn go_to(path: &Path) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = |above: BorrowedFd<'_>, path: &Path| {
        openat2(above, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)
    };
    let mut directory = open(CWD, Path::new("/"))?;
    for name in path.iter().skip(1).map(Path::new) {
        directory = match open(directory.as_fd(), name) {
            Err(rustix::io::Errno::NOENT) => {
                match mkdirat(&directory, name, Mode::from_raw_mode(0o755)) {
                    Ok(()) | Err(rustix::io::Errno::EXIST) => open(directory.as_fd(), name),
                    Err(error) => return Err(missing(path, error)),
                }
            }
            opened => opened,
        }
        .map_err(|error| at(path, error))?;
    }
    Ok(rustix::process::fchdir(directory)?)
}

fn missing(path: &Path, error: rustix::io::Errno) -> io::Error {
    let path = path.display();
    io::Error::other(format!(
        "{path}: there is no such directory in the sandbox, and it cannot be made there ({error}); \
         choose one below /tmp, or name it with `--path` when you make a sandbox"
    ))
}

fn at(path: &Path, error: rustix::io::Errno) -> io::Error {
    let why = match error {
        rustix::io::Errno::LOOP => "a part of it is a symbolic link".into(),
        rustix::io::Errno::NOENT => "there is no such directory in the sandbox".into(),
        rustix::io::Errno::NOTDIR => "it is no directory".into(),
        rustix::io::Errno::INVAL => "nothing is mounted there".into(),
        other => other.to_string(),
    };
    io::Error::other(format!("{}: {why}", path.display()))
}
