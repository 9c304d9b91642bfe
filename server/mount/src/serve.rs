//! One request after the other: what can be answered at once is, all else gets a task.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::pin::pin;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use rustix::fs::OFlags;
use s0_api::mounts::OWN_LEASE_MS;
use tokio::sync::oneshot;

use crate::core::{Core, Tell, now};
use crate::draft::Piece;
use crate::kernel::answer::{Answer, Attr, BLOCK, Errno, Listing, Space};
use crate::kernel::request::{Handle, Head, Ino, Operation, SetAttr};
use crate::view::Stale;

/// How long the kernel may go by what it was told. Until it is told otherwise, really.
pub(crate) const VALID: Duration = Duration::from_secs(3600);
/// How long it may remember that there is nothing by a name; names that it does not know
/// cannot all be taken back when the service is not heard any more.
const VALID_ABSENCE: Duration = Duration::from_millis(OWN_LEASE_MS / 2);
/// How long an interrupted request may still take: most signals end nothing.
const GRACE: Duration = Duration::from_secs(2);
/// `FOPEN_KEEP_CACHE`: what is stale is told.
pub(crate) const KEEP_CACHE: u32 = 1 << 1;
/// `FOPEN_DIRECT_IO`.
const DIRECT_IO: u32 = 1;
/// `FOPEN_CACHE_DIR`.
const CACHE_DIR: u32 = 1 << 3;
/// What there is room for where no quota says it, in bytes.
const ROOM: u64 = 1 << 40;
/// The same for files and directories.
const NODES: u64 = 1 << 30;

pub(crate) type Answered = Result<Answer, Errno>;

impl Core {
    /// Answers a request, now or from a task.
    pub(crate) fn serve(self: &Arc<Self>, head: Head, operation: Operation<'_>) {
        match operation {
            Operation::Forget { lookups } => return self.view().forget(head.node, lookups),
            Operation::ForgetMany(all) => {
                let mut view = self.view();
                return all.into_iter().for_each(|(ino, lookups)| view.forget(ino, lookups));
            }
            Operation::Interrupt { unique } => return self.interrupt(unique),
            Operation::Release { handle, owner, unlock } => {
                return self.release(head, handle, unlock.then_some(owner));
            }
            Operation::ReleaseDir { handle } => {
                self.view().close_directory(handle);
                return self.device.answer(&head, Ok(Answer::done()));
            }
            _ => {}
        }
        if !self.is_current() {
            return self.device.answer(&head, Err(Errno::IO));
        }
        if let Some(answer) = self.answer_echo(&head, &operation) {
            return self.device.answer(&head, answer);
        }
        if let Some(answer) = self.at_once(head, operation) {
            self.device.answer(&head, answer);
        }
    }

    /// The answer, unless a task gives it.
    fn at_once(self: &Arc<Self>, head: Head, operation: Operation<'_>) -> Option<Answered> {
        let ino = head.node;
        Some(match operation {
            Operation::Lookup { name } => {
                let found = self.view().lookup(ino, name);
                found.map(|found| {
                    let valid = if found.is_some() { VALID } else { VALID_ABSENCE };
                    Answer::entry(found.as_ref(), valid)
                })
            }
            Operation::GetAttr => self.view().attr(ino).map(|attr| Answer::attr(&attr, VALID)),
            Operation::ReadLink => {
                self.view().target(ino).map(|target| Answer::bytes(target.as_bytes()))
            }
            Operation::Open { flags } => self.open(ino, flags),
            Operation::SetAttr(set) if set.is_cut() => self.cut_open(ino, set),
            Operation::OpenDir => {
                let opened = self.view().open_directory(ino);
                opened.map(|handle| Answer::opened(handle, KEEP_CACHE | CACHE_DIR))
            }
            Operation::ReadDir { handle, offset, size, plus } => {
                self.list(ino, handle, (offset, size), plus)
            }
            Operation::Read { offset, size, .. } => {
                return self.read(head, offset, size);
            }
            Operation::Write { handle, offset, data, kill_ids } => {
                self.write(handle, offset, data, kill_ids)
            }
            Operation::StatFs => Ok(Answer::space(&self.space())),
            Operation::FSyncDir | Operation::Access => Ok(Answer::done()),
            Operation::GetXattr { name, size } => self.xattr(ino, name, size),
            Operation::ListXattr { size } => self.xattr_names(ino, size),
            Operation::FAllocate { handle, offset, length, mode } => {
                self.allocate(handle, (offset, length), mode)
            }
            Operation::Seek { offset, whence, .. } => self.seek(ino, offset, whence),
            Operation::Other(_) | Operation::CopyRange { .. } => Err(Errno::NOSYS),
            slow => return self.slow(head, slow),
        })
    }

    /// Gives a request a task, which can be interrupted.
    pub(crate) fn spawn(
        self: &Arc<Self>,
        head: Head,
        work: impl Future<Output = Answered> + Send + 'static,
    ) {
        let (interrupt, interrupted) = oneshot::channel();
        self.interrupts().insert(head.unique, interrupt);
        let core = self.clone();
        self.runtime.spawn(async move {
            let mut work = pin!(work);
            let grace = async {
                if interrupted.await.is_err() {
                    std::future::pending::<()>().await;
                }
                tokio::time::sleep(GRACE).await;
            };
            let answer = tokio::select! {
                done = &mut work => Some(done),
                () = grace => None,
            };
            core.interrupts().remove(&head.unique);
            if let Some(answer) = answer {
                return core.device.answer(&head, answer);
            }
            core.device.answer(&head, Err(Errno::INTR));
            // It is done all the same, and the kernel must not go by its not being done.
            let _ = work.await;
            let known = core.view().all_known();
            core.tell(Tell::Stale(known));
        });
    }

    fn interrupts(
        &self,
    ) -> std::sync::MutexGuard<'_, std::collections::HashMap<u64, oneshot::Sender<()>>> {
        self.interrupts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a request that waits for as long as it takes, and is told when it is
    /// interrupted.
    pub(crate) fn interruptible(&self, unique: u64) -> oneshot::Receiver<()> {
        let (interrupt, interrupted) = oneshot::channel();
        self.interrupts().insert(unique, interrupt);
        interrupted
    }

    pub(crate) fn uninterruptible(&self, unique: u64) {
        self.interrupts().remove(&unique);
    }

    fn interrupt(&self, unique: u64) {
        // One that is answered already, or that takes no time, is not among them.
        if let Some(interrupt) = self.interrupts().remove(&unique) {
            let _ = interrupt.send(());
        }
    }

    fn open(&self, ino: Ino, flags: u32) -> Answered {
        let append = OFlags::from_bits_retain(flags).contains(OFlags::APPEND);
        let handle = self.view().open(ino, append)?;
        Ok(Answer::opened(handle, opened_for(append)))
    }

    /// Cuts or extends a file that is open: it is committed when it is closed.
    fn cut_open(&self, ino: Ino, set: SetAttr) -> Answered {
        let mut view = self.view();
        view.truncate(ino, set.size.unwrap_or(0), set.kill_ids, now())?;
        view.attr(ino).map(|attr| Answer::attr(&attr, VALID))
    }

    fn list(&self, ino: Ino, handle: Handle, (offset, size): (u64, u32), plus: bool) -> Answered {
        let mut view = self.view();
        let names = view.names(ino, handle, offset == 0)?;
        let mut listing = Listing::new(size);
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        for (at, (name, child, kind)) in names.iter().enumerate().skip(from) {
            let next = at as u64 + 1;
            // The directory itself and the one above are not looked up.
            let dots = at < 2;
            let attr = if plus && !dots { view.attr(*child).ok() } else { None };
            let with = plus.then_some((attr.as_ref(), VALID));
            if !listing.add(name, (*child, *kind), next, with) {
                break;
            }
            if attr.is_some() {
                // It is counted as looked up.
                view.known(*child)?;
            }
        }
        Ok(listing.answer())
    }

    /// Reads what is at hand; for all else there is a task.
    fn read(self: &Arc<Self>, head: Head, offset: u64, size: u32) -> Option<Answered> {
        let range = offset..offset.saturating_add(u64::from(size));
        let pieces = match self.view().pieces(head.node, range) {
            Ok(pieces) => pieces,
            Err(errno) => return Some(Err(errno)),
        };
        let length: u64 = pieces.iter().map(Piece::length).sum();
        let mut answer = Answer::for_bytes(usize::try_from(length).unwrap_or(0));
        if self.read_at_hand(head.node, &pieces, answer.room()) {
            return Some(Ok(answer));
        }
        let core = self.clone();
        self.spawn(head, async move {
            core.read_pieces(head.node, &pieces, answer.room()).await?;
            Ok(answer)
        });
        None
    }

    fn read_at_hand(&self, ino: Ino, pieces: &[Piece], into: &mut [u8]) -> bool {
        let mut rest = into;
        for piece in pieces {
            let length = usize::try_from(piece.length()).unwrap_or(0);
            let (part, after) = rest.split_at_mut(length);
            let done = match piece {
                Piece::Own(range) => self.view().read_own(ino, range.start, part).is_ok(),
                Piece::Base(content, range) => self.contents.read_cached(*content, range, part),
                Piece::Hole(_) => true,
            };
            if !done {
                return false;
            }
            rest = after;
        }
        true
    }

    /// The same from the service.
    pub(crate) async fn read_pieces(
        &self,
        ino: Ino,
        pieces: &[Piece],
        into: &mut [u8],
    ) -> Result<(), Errno> {
        let mut rest = into;
        for piece in pieces {
            let length = usize::try_from(piece.length()).unwrap_or(0);
            let (part, after) = rest.split_at_mut(length);
            match piece {
                Piece::Own(range) => self.view().read_own(ino, range.start, part)?,
                Piece::Base(content, range) => {
                    self.contents.read(*content, range.clone(), part).await?;
                }
                Piece::Hole(_) => {}
            }
            rest = after;
        }
        Ok(())
    }

    fn write(&self, handle: Handle, offset: u64, data: &[u8], kill_ids: bool) -> Answered {
        let mut view = self.view();
        let at = view.write(handle, offset, data, kill_ids, now())?;
        if at != offset
            && let Some(open) = view.opened(handle)
        {
            // It was appended behind what the kernel does not know of.
            let stale = Stale::Node { ino: open.ino, contents: true };
            self.tell(Tell::Stale(vec![stale]));
        }
        Ok(Answer::written(u32::try_from(data.len()).unwrap_or(u32::MAX)))
    }

    fn space(&self) -> Space {
        let view = self.view();
        let (used, quota) = (view.tree().usage(), view.quota());
        let bytes = quota.bytes.unwrap_or(used.bytes.saturating_add(ROOM));
        let inodes = quota.inodes.unwrap_or(used.inodes.saturating_add(NODES));
        Space {
            blocks: bytes / BLOCK,
            free: bytes.saturating_sub(used.bytes) / BLOCK,
            inodes,
            free_inodes: inodes.saturating_sub(used.inodes),
        }
    }

    fn xattr(&self, ino: Ino, name: &OsStr, size: u32) -> Answered {
        if !name.as_bytes().starts_with(b"user.") {
            return Err(Errno::NOTSUP);
        }
        let view = self.view();
        let found = view.xattrs(ino).find(|(other, _)| other.as_bytes() == name.as_bytes());
        give(found.ok_or(Errno::NODATA)?.1, size)
    }

    fn xattr_names(&self, ino: Ino, size: u32) -> Answered {
        let mut names = Vec::new();
        for (name, _) in self.view().xattrs(ino) {
            names.extend_from_slice(name.as_bytes());
            names.push(0);
        }
        give(&names, size)
    }

    fn allocate(&self, handle: Handle, (offset, length): (u64, u64), mode: u32) -> Answered {
        const KEEP_SIZE: u32 = 1;
        const PUNCH_HOLE: u32 = 2;
        const ZERO_RANGE: u32 = 0x10;
        let mut view = self.view();
        let open = view.opened(handle).ok_or(Errno::BADF)?;
        let end = offset.checked_add(length).ok_or(Errno::FBIG)?;
        let size = view.attr(open.ino)?.size;
        if mode & !(KEEP_SIZE | PUNCH_HOLE | ZERO_RANGE) != 0 {
            return Err(Errno::NOTSUP);
        }
        if mode & KEEP_SIZE == 0 && end > size {
            view.truncate(open.ino, end, false, now())?;
        }
        if mode & (PUNCH_HOLE | ZERO_RANGE) != 0 {
            view.clear(open.ino, offset..end, now())?;
        }
        Ok(Answer::done())
    }

    /// Holes are not told apart from zeros.
    fn seek(&self, ino: Ino, offset: u64, whence: u32) -> Answered {
        const DATA: u32 = 3;
        const HOLE: u32 = 4;
        let size = self.view().attr(ino)?.size;
        match whence {
            DATA | HOLE if offset >= size => Err(Errno::NXIO),
            DATA => Ok(Answer::offset(offset)),
            HOLE => Ok(Answer::offset(size)),
            _ => Err(Errno::INVAL),
        }
    }
}

/// An extended attribute, or how long it is.
fn give(bytes: &[u8], size: u32) -> Answered {
    let length = u32::try_from(bytes.len()).map_err(|_| Errno::RANGE)?;
    match size {
        0 => Ok(Answer::xattr_size(length)),
        size if size < length => Err(Errno::RANGE),
        _ => Ok(Answer::bytes(bytes)),
    }
}

/// How the kernel is to use an open file. What is appended must come as one piece, since others may
/// append in between; through its cache the kernel sends a piece for each page, and keeps it
/// where it thinks that the end is.
pub(crate) fn opened_for(append: bool) -> u32 {
    if append { DIRECT_IO } else { KEEP_CACHE }
}

/// A node that was made, for the kernel.
pub(crate) fn entry(attr: &Attr) -> Answer {
    Answer::entry(Some(attr), VALID)
}
