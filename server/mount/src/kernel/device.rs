//! The device that requests are read from and answers are written to.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno as Os;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::yield_now;

use super::answer::{Answer, Errno, error};
use super::request::{Head, Operation, parse};
use super::{MAX_IO, MINOR};

/// What a mount asks of the kernel; the bits of `FUSE_INIT`.
mod wanted {
    pub(super) const ASYNC_READ: u64 = 1;
    pub(super) const POSIX_LOCKS: u64 = 1 << 1;
    pub(super) const EXPORT_SUPPORT: u64 = 1 << 4;
    pub(super) const BIG_WRITES: u64 = 1 << 5;
    pub(super) const FLOCK_LOCKS: u64 = 1 << 10;
    pub(super) const DO_READDIRPLUS: u64 = 1 << 13;
    pub(super) const READDIRPLUS_AUTO: u64 = 1 << 14;
    pub(super) const PARALLEL_DIROPS: u64 = 1 << 18;
    pub(super) const MAX_PAGES: u64 = 1 << 22;
    pub(super) const CACHE_SYMLINKS: u64 = 1 << 23;
    /// What others write is told; sizes and times alone make no cached byte stale.
    pub(super) const EXPLICIT_INVAL_DATA: u64 = 1 << 25;
    /// What is written loses its set-user-id bit by our hand, so that the kernel need not
    /// ask for `security.capability` before each write.
    pub(super) const HANDLE_KILLPRIV_V2: u64 = 1 << 28;
    pub(super) const INIT_EXT: u64 = 1 << 30;
}

/// All of them. Not among them: `WRITEBACK_CACHE`, with which the kernel would own sizes
/// and times, and cut what others wrote; `ATOMIC_O_TRUNC`, with which it asks for a file to
/// be cut before it has looked whether the file is a program that runs.
const WANTED: u64 = wanted::ASYNC_READ
    | wanted::POSIX_LOCKS
    | wanted::EXPORT_SUPPORT
    | wanted::BIG_WRITES
    | wanted::FLOCK_LOCKS
    | wanted::DO_READDIRPLUS
    | wanted::READDIRPLUS_AUTO
    | wanted::PARALLEL_DIROPS
    | wanted::MAX_PAGES
    | wanted::CACHE_SYMLINKS
    | wanted::EXPLICIT_INVAL_DATA
    | wanted::HANDLE_KILLPRIV_V2
    | wanted::INIT_EXT;

/// How many requests are served before all else gets its turn.
const AT_ONCE: usize = 32;

/// What is waited for on the device: a device that was unmounted is in error, and never readable.
const AWAITED: Interest = Interest::READABLE.add(Interest::ERROR);

/// The device of one mount. Clones are the same one.
#[derive(Debug, Clone)]
pub(crate) struct Device(Arc<File>);

impl Device {
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Self> {
        let flags = fcntl_getfl(&fd)?;
        fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
        Ok(Self(Arc::new(fd.into())))
    }

    /// Reads requests until the mount is gone, and gives each to `serve`, which must not block.
    /// The first one is answered here.
    ///
    /// This is a task beside those that `serve` starts, and not a thread of its own: most
    /// requests are answered by the thread that reads them, and to wake another one takes
    /// longer than the answer.
    pub(crate) async fn serve(&self, mut serve: impl FnMut(Head, Operation<'_>)) -> io::Result<()> {
        // The largest write, and its head; the kernel asks for a page of room.
        let mut buffer = vec![0; MAX_IO as usize + 4096];
        let fd = self.0.as_fd();
        #[expect(unsafe_code, reason = "it is how a file that is none of Tokio's is waited for")]
        // SAFETY: what is borrowed here stays open, and the same, for as long as this waits.
        let device = unsafe { AsyncFd::register_with_interest(fd, AWAITED) }?;
        loop {
            let mut ready = device.ready(AWAITED).await?;
            for _ in 0..AT_ONCE {
                let length = match (&*self.0).read(&mut buffer) {
                    Ok(length) => length,
                    Err(error) => match Os::from_io_error(&error) {
                        // Unmounted, or the connection was ended.
                        Some(Os::NODEV | Os::CONNABORTED) => return Ok(()),
                        Some(Os::AGAIN) => {
                            ready.clear_ready();
                            break;
                        }
                        // A request that was taken back before it was read.
                        Some(Os::NOENT | Os::INTR) => continue,
                        _ => return Err(error),
                    },
                };
                match parse(&buffer[..length]) {
                    Ok((head, Operation::Init { major, max_readahead, flags, .. })) => {
                        self.agree(head, major, max_readahead, flags);
                    }
                    Ok((head, Operation::Destroy)) => {
                        self.answer(&head, Ok(Answer::done()));
                        return Ok(());
                    }
                    Ok((head, operation)) => serve(head, operation),
                    Err(malformed) => return Err(io::Error::other(malformed)),
                }
            }
            drop(ready);
            yield_now().await;
        }
    }

    fn agree(&self, head: Head, major: u32, max_readahead: u32, flags: u64) {
        if major < 7 {
            return self.answer(&head, Err(Errno(rustix::io::Errno::PROTO.raw_os_error())));
        }
        // A kernel of a later major version asks again with the one it is answered.
        let pages = u16::try_from(MAX_IO / 4096).unwrap_or(u16::MAX);
        let answer = Answer::init(max_readahead.min(MAX_IO), flags & WANTED, MAX_IO, pages);
        tracing::debug!(minor = MINOR, flags = format!("{:#x}", flags & WANTED), "agreed");
        self.answer(&head, Ok(answer));
    }

    /// Answers a request.
    pub(crate) fn answer(&self, head: &Head, answer: Result<Answer, Errno>) {
        let bytes = match answer {
            Ok(answer) => answer.to(head.unique),
            Err(errno) => error(head.unique, errno),
        };
        // It was taken back meanwhile (ENOENT), or the mount is gone; nobody waits for it.
        let _ = (&*self.0).write(&bytes);
    }

    /// Tells the kernel that something is stale; see [`super::answer::stale_node`]. To hear of a
    /// name it waits for requests of the same directory, so that must be told by a thread
    /// that none of them waits for. False when it does not know what is meant.
    pub(crate) fn tell(&self, what: &[u8]) -> bool {
        // A message is taken whole or not at all. ENOENT: it does not know it anyway.
        rustix::io::write(&*self.0, what) != Err(Os::INVAL)
    }
}
