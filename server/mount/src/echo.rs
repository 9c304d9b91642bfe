//! What others do is done once more on the mount itself, by ordinary calls of the system.
//!
//! The kernel tells its watchers (inotify) of what programs do, not of what a file system
//! says has changed. So a thread of the mount makes, moves, writes and removes on the mount
//! what is made, moved, written and removed already; the mount knows the thread, and
//! answers that it is done. Watchers hear what they would of a program, and the kernel's
//! names are right without being dropped.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno as Os;
use s0_tree::{Name, TreePath};

use crate::core::Core;
use crate::kernel::answer::{Answer, Attr, Errno, FileKind};
use crate::kernel::request::{Head, Ino, Operation};
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

/// The thread that does things once more.
#[derive(Debug)]
pub(crate) struct Echoes {
    /// Where the mount is reached, and by which device it is known to be this one.
    root: PathBuf,
    device: u64,
    /// The thread; zero before it has begun.
    thread: AtomicU32,
    doing: Mutex<Option<Echo>>,
}

impl Echoes {
    pub(crate) fn new(root: PathBuf, device: u64) -> Self {
        Self { root, device, thread: AtomicU32::new(0), doing: Mutex::new(None) }
    }

    /// The calling thread is the one.
    pub(crate) fn begin(&self) {
        let thread = rustix::thread::gettid().as_raw_nonzero().get();
        self.thread.store(thread.cast_unsigned(), Ordering::Release);
    }

    fn doing(&self) -> std::sync::MutexGuard<'_, Option<Echo>> {
        self.doing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something once more. False when it cannot; then the kernel is to be told.
    pub(crate) fn echo(&self, echo: &Echo) -> bool {
        // Opened each time: a mount whose root is held open cannot be unmounted.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Ok(root) = rustix::fs::open(&self.root, flags, Mode::empty()) else { return false };
        if rustix::fs::fstat(&root).map_or(0, |stat| stat.st_dev) != self.device {
            // What is there is not the mount, or not any more.
            return false;
        }
        *self.doing() = Some(echo.clone());
        let done = perform(root.as_fd(), echo);
        *self.doing() = None;
        if let Err(error) = done {
            tracing::debug!(%error, ?echo, "a change was not done once more");
        }
        done.is_ok()
    }

    /// What is being done, when it is this thread that asks.
    fn of(&self, head: &Head) -> Option<Echo> {
        if head.pid == 0 || head.pid != self.thread.load(Ordering::Acquire) {
            return None;
        }
        self.doing().clone()
    }
}

type Done = Result<(), Os>;

fn perform(root: BorrowedFd<'_>, echo: &Echo) -> Done {
    match echo {
        Echo::Made { at, attr, target } => {
            let (dir, name) = place(root, at)?;
            let mode = Mode::from_raw_mode(attr.mode);
            match attr.kind {
                FileKind::File => {
                    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                    rustix::fs::openat(&dir, name, flags, mode).map(drop)
                }
                FileKind::Directory => rustix::fs::mkdirat(&dir, name, mode),
                FileKind::Symlink => {
                    rustix::fs::symlinkat(target.as_deref().unwrap_or("."), &dir, name)
                }
                FileKind::Fifo => {
                    rustix::fs::mknodat(&dir, name, rustix::fs::FileType::Fifo, mode, 0)
                }
            }
        }
        Echo::Linked { at, existing, .. } => {
            let (dir, name) = place(root, at)?;
            rustix::fs::linkat(root, existing.as_str(), &dir, name, AtFlags::empty())
        }
        Echo::Written { at, .. } => {
            let (dir, name) = place(root, at)?;
            let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let file = rustix::fs::openat(&dir, name, flags, Mode::empty())?;
            let size = rustix::fs::fstat(&file)?.st_size;
            rustix::fs::ftruncate(&file, size.cast_unsigned())
        }
        Echo::Touched { at, mode, .. } => {
            let (dir, name) = place(root, at)?;
            let mode = Mode::from_raw_mode(*mode);
            rustix::fs::chmodat(&dir, name, mode, AtFlags::empty())
        }
        Echo::Removed { at, attr } => {
            let (dir, name) = place(root, at)?;
            let directory = attr.kind == FileKind::Directory;
            let flags = if directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
            rustix::fs::unlinkat(&dir, name, flags)
        }
        Echo::Moved { from, to, .. } => {
            let (from_dir, from) = place(root, from)?;
            let (to_dir, to) = place(root, to)?;
            rustix::fs::renameat(&from_dir, from, &to_dir, to)
        }
        Echo::Exchanged { one, other, .. } => {
            let (one_dir, one) = place(root, one)?;
            let (other_dir, other) = place(root, other)?;
            rustix::fs::renameat_with(&one_dir, one, &other_dir, other, RenameFlags::EXCHANGE)
        }
    }
}

/// The directory of a place, and the name in it. Links on the way are not followed: what
/// the tree says is a directory is one.
fn place<'a>(root: BorrowedFd<'_>, at: &'a At) -> Result<(OwnedFd, &'a str), Os> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let above = at.path.parent().filter(|above| !above.is_root());
    let path = above.as_ref().map_or(".", |above| above.as_str());
    let dir = rustix::fs::openat(root, path, flags, Mode::empty())?;
    Ok((dir, at.name.as_str()))
}

impl Core {
    /// Answers the thread that does things once more; none where what it asks is not part
    /// of that, and is answered as anybody's.
    pub(crate) fn answer_echo(&self, head: &Head, operation: &Operation<'_>) -> Option<Answered> {
        let echo = self.echoes.as_ref()?.of(head)?;
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
