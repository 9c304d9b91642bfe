//! What others do is done once more on the mount itself, by ordinary calls of the system.
//!
//! The kernel tells its watchers (inotify) of what programs do, not of what a file system
//! says has changed. So a process of the mount's makes, moves, writes and removes on the mount
//! what is made, moved, written and removed already; the mount knows the process, and
//! answers that it is done. Watchers hear what they would of a program, and the kernel's
//! names are right without being dropped.
//!
//! It is a process of its own, without the device: it waits in the kernel for directories that
//! programs hold, and they may wait for the mount. A thread of the mount that waited there
//! would keep the device open when the mount is killed, and nobody would ever be let go.

use std::ffi::OsStr;
use std::io::{self, BufRead as _, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::Errno as Os;
use s0_tree::{Name, TreePath};
use serde::{Deserialize, Serialize};

use crate::core::{Core, Performer};
use crate::kernel::answer::{Answer, Attr, Errno, FileKind};
use crate::kernel::request::{Head, Ino, Operation};
use crate::platform;
use crate::serve::{Answered, KEEP_CACHE, VALID, entry};

/// A name in a directory: as the kernel knows it, and as calls of the system find it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct At {
    pub(crate) parent: Ino,
    pub(crate) name: Name,
    pub(crate) path: TreePath,
}

/// Something that was done elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Echo {
    /// A node has come to a place; a link's target goes with it.
    Made { at: At, attr: Attr, target: Option<String> },
    /// A file has one more name.
    Linked { at: At, existing: TreePath, ino: Ino },
    /// A file has other bytes.
    Written { at: At, ino: Ino },
    /// A node has other attributes.
    Touched { at: At, ino: Ino, mode: u32 },
    /// A node is gone from a place.
    Removed { at: At, attr: Attr },
    /// A node has moved, to where another was, if there was one.
    Moved { from: At, to: At, attr: Attr, over: Option<Attr> },
    /// Two nodes have changed places.
    Exchanged { one: At, other: At, moved: Attr, back: Attr },
}

impl Echo {
    /// The node that is no more.
    pub(crate) fn gone(&self) -> Option<Ino> {
        match self {
            Self::Removed { attr, .. } => Some(attr.ino),
            Self::Moved { over, .. } => over.as_ref().map(|over| over.ino),
            _ => None,
        }
    }

    /// The directories that the kernel holds meanwhile.
    pub(crate) fn directory(&self) -> Option<Ino> {
        match self {
            Self::Made { at, .. } | Self::Linked { at, .. } | Self::Removed { at, .. } => {
                Some(at.parent)
            }
            Self::Moved { to, .. } => Some(to.parent),
            Self::Exchanged { one, .. } => Some(one.parent),
            Self::Written { .. } | Self::Touched { .. } => None,
        }
    }
}

/// What the process is asked, one line of JSON each. It answers with one byte.
#[derive(Debug, Serialize, Deserialize)]
enum Deed {
    File { at: String, mode: u32 },
    Directory { at: String, mode: u32 },
    Symlink { at: String, target: String },
    Fifo { at: String, mode: u32 },
    Link { at: String, existing: String },
    Write { at: String },
    Mode { at: String, mode: u32 },
    Unlink { at: String },
    RmDir { at: String },
    Rename { from: String, to: String },
    Exchange { one: String, other: String },
}

impl Echo {
    fn deed(&self) -> Deed {
        let path = |at: &At| at.path.to_string();
        match self {
            Self::Made { at, attr, target } => {
                let (at, mode) = (path(at), attr.mode);
                match attr.kind {
                    FileKind::File => Deed::File { at, mode },
                    FileKind::Directory => Deed::Directory { at, mode },
                    FileKind::Fifo => Deed::Fifo { at, mode },
                    FileKind::Symlink => {
                        Deed::Symlink { at, target: target.clone().unwrap_or_default() }
                    }
                }
            }
            Self::Linked { at, existing, .. } => {
                Deed::Link { at: path(at), existing: existing.to_string() }
            }
            Self::Written { at, .. } => Deed::Write { at: path(at) },
            Self::Touched { at, mode, .. } => Deed::Mode { at: path(at), mode: *mode },
            Self::Removed { at, attr } if attr.kind == FileKind::Directory => {
                Deed::RmDir { at: path(at) }
            }
            Self::Removed { at, .. } => Deed::Unlink { at: path(at) },
            Self::Moved { from, to, .. } => Deed::Rename { from: path(from), to: path(to) },
            Self::Exchanged { one, other, .. } => {
                Deed::Exchange { one: path(one), other: path(other) }
            }
        }
    }
}

/// The process that does things once more.
#[derive(Debug)]
pub(crate) struct Echoes {
    process: u32,
    ends: Mutex<Ends>,
    doing: Mutex<Option<Echo>>,
}

#[derive(Debug)]
struct Ends {
    child: Child,
    asks: ChildStdin,
    answers: ChildStdout,
}

impl Drop for Ends {
    fn drop(&mut self) {
        // It may wait for a directory of the mount, which is gone in a moment.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Echoes {
    /// Starts the process.
    pub(crate) fn start(performer: &Performer) -> io::Result<Self> {
        let mut child = Command::new(&performer.program)
            .args(&performer.arguments)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (asks, answers) = (child.stdin.take(), child.stdout.take());
        let (Some(asks), Some(answers)) = (asks, answers) else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        let process = child.id();
        let ends = Mutex::new(Ends { child, asks, answers });
        Ok(Self { process, ends, doing: Mutex::new(None) })
    }

    fn doing(&self) -> MutexGuard<'_, Option<Echo>> {
        self.doing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something once more. False when it cannot; then the kernel is to be told.
    pub(crate) fn echo(&self, echo: &Echo) -> bool {
        let Ok(mut line) = serde_json::to_vec(&echo.deed()) else { return false };
        line.push(b'\n');
        *self.doing() = Some(echo.clone());
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        let mut done = [0];
        let asked = ends.asks.write_all(&line);
        let answered = asked.and_then(|()| ends.answers.read_exact(&mut done));
        *self.doing() = None;
        answered.is_ok() && done == *DONE
    }

    /// Whether it is this process that asks.
    pub(crate) fn is_asking(&self, head: &Head) -> bool {
        head.pid != 0 && head.pid == self.process
    }

    /// What is being done, when it is this process that asks.
    fn of(&self, head: &Head) -> Option<Echo> {
        if self.is_asking(head) { self.doing().clone() } else { None }
    }
}

const DONE: &[u8; 1] = b"y";
const NOT_DONE: &[u8; 1] = b"n";

/// Is the process: does what it is asked on standard input, on the mount at `root`, and answers
/// on standard output. Returns when nobody asks any more.
///
/// # Errors
/// It cannot be asked.
pub fn perform_all(root: &Path, device: u64) -> io::Result<()> {
    // Where the mount is killed, nobody closes the pipe while this waits for a directory.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    let mut answers = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        let done = serde_json::from_str(&line?).is_ok_and(|deed| {
            // Opened each time: a mount whose root is held open cannot be unmounted.
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let Ok(root) = rustix::fs::open(root, flags, Mode::empty()) else { return false };
            // What is there may not be the mount, or not any more.
            platform::device_of_opened(&root).is_ok_and(|there| there == device)
                && perform(root.as_fd(), &deed).is_ok()
        });
        answers.write_all(if done { DONE } else { NOT_DONE })?;
        answers.flush()?;
    }
    Ok(())
}

#[cfg(fuzzing)]
pub(crate) fn again(line: &[u8]) -> Option<Vec<u8>> {
    let deed: Deed = serde_json::from_str(std::str::from_utf8(line).ok()?).ok()?;
    serde_json::to_vec(&deed).ok()
}

fn perform(root: BorrowedFd<'_>, deed: &Deed) -> Result<(), Os> {
    let mode = |mode: &u32| Mode::from_raw_mode(*mode);
    match deed {
        Deed::File { at, mode: bits } => {
            let (dir, name) = place(root, at)?;
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            rustix::fs::openat(&dir, name, flags, mode(bits)).map(drop)
        }
        Deed::Directory { at, mode: bits } => {
            let (dir, name) = place(root, at)?;
            rustix::fs::mkdirat(&dir, name, mode(bits))
        }
        Deed::Symlink { at, target } => {
            let (dir, name) = place(root, at)?;
            rustix::fs::symlinkat(target.as_str(), &dir, name)
        }
        Deed::Fifo { at, mode: bits } => {
            let (dir, name) = place(root, at)?;
            rustix::fs::mknodat(&dir, name, rustix::fs::FileType::Fifo, mode(bits), 0)
        }
        Deed::Link { at, existing } => {
            let (dir, name) = place(root, at)?;
            rustix::fs::linkat(root, existing.as_str(), &dir, name, AtFlags::empty())
        }
        Deed::Write { at } => {
            let (dir, name) = place(root, at)?;
            let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let file = rustix::fs::openat(&dir, name, flags, Mode::empty())?;
            let size = rustix::fs::fstat(&file)?.st_size;
            rustix::fs::ftruncate(&file, size.cast_unsigned())
        }
        Deed::Mode { at, mode: bits } => {
            let (dir, name) = place(root, at)?;
            rustix::fs::chmodat(&dir, name, mode(bits), AtFlags::empty())
        }
        Deed::Unlink { at } => {
            let (dir, name) = place(root, at)?;
            rustix::fs::unlinkat(&dir, name, AtFlags::empty())
        }
        Deed::RmDir { at } => {
            let (dir, name) = place(root, at)?;
            rustix::fs::unlinkat(&dir, name, AtFlags::REMOVEDIR)
        }
        Deed::Rename { from, to } => {
            let (from_dir, from) = place(root, from)?;
            let (to_dir, to) = place(root, to)?;
            rustix::fs::renameat(&from_dir, from, &to_dir, to)
        }
        Deed::Exchange { one, other } => {
            let (one_dir, one) = place(root, one)?;
            let (other_dir, other) = place(root, other)?;
            rustix::fs::renameat_with(&one_dir, one, &other_dir, other, RenameFlags::EXCHANGE)
        }
    }
}

/// The directory of a place, and the name in it. A link at the end is not followed; those on
/// the way are what the tree says are directories.
fn place<'a>(root: BorrowedFd<'_>, at: &'a str) -> Result<(OwnedFd, &'a str), Os> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let (above, name) = at.rsplit_once('/').unwrap_or((".", at));
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let dir = rustix::fs::openat2(root, above, flags, Mode::empty(), resolve)?;
    Ok((dir, name))
}

impl Core {
    /// Answers the process that does things once more; none where what it asks is not part
    /// of that, and is answered as anybody's.
    pub(crate) fn answer_echo(&self, head: &Head, operation: &Operation<'_>) -> Option<Answered> {
        let echoes = self.echoes.as_ref()?;
        if matches!(operation, Operation::Flush { .. }) && echoes.is_asking(head) {
            // It has written nothing. What others have is committed when they close it: to
            // wait for that here would keep other mounts waiting, which that may wait for.
            return Some(Ok(Answer::done()));
        }
        let echo = echoes.of(head)?;
        let is = |at: &At, name: &OsStr| head.node == at.parent && *name == *at.name.as_str();
        match (&echo, operation) {
            (Echo::Made { at, .. } | Echo::Linked { at, .. }, Operation::Lookup { name })
                if is(at, name) =>
            {
                Some(Err(Errno::NOENT))
            }
            (Echo::Made { at, attr, .. }, Operation::Create { name, .. }) if is(at, name) => {
                let mut view = self.view();
                Some(view.known(attr.ino).and_then(|attr| {
                    let handle = view.open(attr.ino, false)?;
                    Ok(Answer::created(&attr, VALID, handle, KEEP_CACHE))
                }))
            }
            (
                Echo::Made { at, attr, .. },
                Operation::MkDir { name, .. }
                | Operation::MkNod { name, .. }
                | Operation::SymLink { name, .. },
            ) if is(at, name) => Some(self.view().known(attr.ino).map(|attr| entry(&attr))),
            (Echo::Linked { ino, .. }, Operation::Link { node, .. }) if node == ino => {
                Some(self.view().known(*ino).map(|attr| entry(&attr)))
            }
            (Echo::Written { ino, .. } | Echo::Touched { ino, .. }, Operation::SetAttr(_))
                if head.node == *ino =>
            {
                Some(self.view().attr(*ino).map(|attr| Answer::attr(&attr, VALID)))
            }
            (Echo::Removed { at, attr }, Operation::Lookup { name }) if is(at, name) => {
                Some(Ok(self.ghost(attr)))
            }
            (Echo::Removed { .. }, Operation::Unlink { .. } | Operation::RmDir { .. })
            | (Echo::Moved { .. } | Echo::Exchanged { .. }, Operation::Rename { .. }) => {
                Some(Ok(Answer::done()))
            }
            (Echo::Moved { from, attr, .. }, Operation::Lookup { name }) if is(from, name) => {
                Some(Ok(self.ghost(attr)))
            }
            (Echo::Moved { to, over, .. }, Operation::Lookup { name }) if is(to, name) => {
                Some(over.as_ref().map(|over| self.ghost(over)).ok_or(Errno::NOENT))
            }
            (Echo::Exchanged { one, moved, .. }, Operation::Lookup { name }) if is(one, name) => {
                Some(Ok(self.ghost(moved)))
            }
            (Echo::Exchanged { other, back, .. }, Operation::Lookup { name })
                if is(other, name) =>
            {
                Some(Ok(self.ghost(back)))
            }
            _ => None,
        }
    }

    /// A node as it was at a place, for the moment in which it is taken from there.
    fn ghost(&self, attr: &Attr) -> Answer {
        self.view().known_ghost(attr.ino);
        Answer::entry(Some(attr), std::time::Duration::ZERO)
    }
}
