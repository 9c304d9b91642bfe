//! Linux's inotify: one watch for each directory, and what it tells.
//!
//! The crate `notify`, which wraps it, asks for a message to its thread and back
//! for each watch, which was most of the time of a start, and it wakes this
//! program whenever anybody opens a file.

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
pub(crate) use rustix::fs::inotify::ReadFlags as What;
use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};
use rustix::io::{Errno, write};

use super::Directory;

/// Bytes of events that are read at once.
const PIECE: usize = 64 << 10;

/// What is asked of a directory: what changes in it, and the end of it.
const WANTED: WatchFlags = WatchFlags::ATTRIB
    .union(WatchFlags::CREATE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR);

/// The number of a watch. Each directory has one, whatever its name.
pub(crate) type Watch = i32;

/// Why there is no watch.
pub(crate) enum NoWatch {
    /// The system allows no more.
    Limit,
    /// There is no such directory.
    Gone,
    /// Anything else.
    Other(String),
}

impl From<Errno> for NoWatch {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::NOSPC => Self::Limit,
            Errno::NOENT | Errno::NOTDIR => Self::Gone,
            other => Self::Other(other.to_string()),
        }
    }
}

/// One event, as the system tells it.
pub(crate) struct Told<'a> {
    pub(crate) watch: Watch,
    pub(crate) what: What,
    /// The same for both sides of a rename.
    pub(crate) pair: u32,
    /// The name in the directory; none when it is the directory's own event.
    pub(crate) name: Option<&'a [u8]>,
}

/// An inotify instance. A clone is the same one.
#[derive(Clone)]
pub(crate) struct Instance(Arc<OwnedFd>);

impl Instance {
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self(inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?.into()))
    }

    /// Watches this very directory, whatever is at its path by now. Where there is
    /// no `/proc` it has to be found by its path again.
    pub(crate) fn watch(&self, directory: &Directory, path: &Path) -> Result<Watch, NoWatch> {
        let held = format!("/proc/self/fd/{}", directory.as_raw_fd());
        let made = match inotify::add_watch(&*self.0, held, WANTED) {
            Err(Errno::NOENT) => {
                inotify::add_watch(&*self.0, path, WANTED | WatchFlags::DONT_FOLLOW)
            }
            made => made,
        };
        Ok(made?)
    }

    /// Ends a watch. The system may have ended it before, with the directory.
    pub(crate) fn unwatch(&self, watch: Watch) {
        let _ = inotify::remove_watch(&*self.0, watch);
    }

    /// Starts a thread that gives each event to `each`.
    pub(crate) fn read(
        &self,
        mut each: impl FnMut(&Told<'_>) + Send + 'static,
    ) -> std::io::Result<Reading> {
        let instance = self.0.clone();
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let stopped = stop.clone();
        let thread = std::thread::Builder::new().name("watcher".into()).spawn(move || {
            let mut buffer = vec![MaybeUninit::uninit(); PIECE];
            while wait(&instance, &stopped) {
                if let Err(error) = read(&instance, &mut buffer, &mut each) {
                    tracing::warn!(%error, "the watcher failed");
                    // Whatever it is, something may have been missed.
                    each(&Told { watch: -1, what: What::QUEUE_OVERFLOW, pair: 0, name: None });
                }
            }
        })?;
        Ok(Reading { stop, thread: Some(thread) })
    }
}

/// Waits for events. Says whether to go on.
fn wait(instance: &OwnedFd, stopped: &OwnedFd) -> bool {
    let mut ready = [PollFd::new(instance, PollFlags::IN), PollFd::new(stopped, PollFlags::IN)];
    match poll(&mut ready, None) {
        Ok(_) => ready[1].revents().is_empty(),
        Err(error) => error == Errno::INTR,
    }
}

/// The thread that reads. Dropping this ends it.
pub(crate) struct Reading {
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

/// Reads all that has happened.
fn read(
    instance: &OwnedFd,
    buffer: &mut [MaybeUninit<u8>],
    each: &mut impl FnMut(&Told<'_>),
) -> Result<(), Errno> {
    let mut reader = Reader::new(instance, buffer);
    loop {
        match reader.next() {
            Ok(event) => each(&Told {
                watch: event.wd(),
                what: event.events(),
                pair: event.cookie(),
                name: event.file_name().map(std::ffi::CStr::to_bytes),
            }),
            Err(Errno::AGAIN) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let _ = write(&*self.stop, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
