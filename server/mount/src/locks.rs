//! Locks of files: the service knows who has which, for all mounts.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use s0_api::mounts::{Holder, LockSpace, Range, Said, Told};
use s0_tree::NodeId;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::core::Core;
use crate::kernel::answer::{Answer, Errno};
use crate::kernel::request::{Head, Ino, Lock, LockKind, LockOwner};

/// How long the service may take to answer about a lock that is not waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// A lock that was asked for.
#[derive(Debug)]
pub(crate) struct Pending {
    node: NodeId,
    lock: Lock,
    wait: bool,
    told: oneshot::Sender<Told>,
}

/// A lock that is held, so that it can be taken again from a service that began anew.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Held {
    node: NodeId,
    lock: Lock,
}

/// Takes a part of what an owner holds away.
fn give_back(held: &mut Vec<Held>, node: NodeId, part: &Lock) {
    let mut kept = Vec::with_capacity(held.len() + 1);
    for it in held.drain(..) {
        let Held { lock, .. } = it;
        let is_other = (it.node, lock.owner, lock.whole) != (node, part.owner, part.whole);
        if is_other || lock.end < part.start || lock.start > part.end {
            kept.push(it);
            continue;
        }
        if lock.start < part.start {
            kept.push(Held { lock: Lock { end: part.start - 1, ..lock }, ..it });
        }
        if lock.end > part.end {
            kept.push(Held { lock: Lock { start: part.end + 1, ..lock }, ..it });
        }
    }
    *held = kept;
}

fn space(lock: &Lock) -> LockSpace {
    if lock.whole { LockSpace::Whole } else { LockSpace::Ranges }
}

fn range(lock: &Lock) -> Range {
    Range { start: lock.start, end: lock.end, exclusive: lock.kind == LockKind::Write }
}

impl Core {
    /// The node of a file that is to be locked, which a new one has once it is committed.
    async fn locked_node(self: &Arc<Self>, ino: Ino) -> Result<NodeId, Errno> {
        let known = self.view().lockable(ino)?;
        match known {
            Ok(node) => Ok(node),
            Err(ino) => {
                self.commit(ino, None).await?;
                self.view().lockable(ino)?.map_err(|_| Errno::IO)
            }
        }
    }

    /// Asks the service about a lock; the number, and where the answer comes.
    fn ask_lock(&self, node: NodeId, lock: Lock, wait: bool) -> (u64, oneshot::Receiver<Told>) {
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        let (told, tells) = oneshot::channel();
        let pending = Pending { node, lock, wait, told };
        self.locks.lock().unwrap_or_else(PoisonError::into_inner).insert(id, pending);
        (id, tells)
    }

    pub(crate) fn get_lock(self: &Arc<Self>, head: Head, lock: Lock) {
        let core = self.clone();
        self.spawn(head, async move {
            let node = core.locked_node(head.node).await?;
            let (id, tells) = core.ask_lock(node, lock, false);
            let (holder, range) = (Holder(lock.owner.0), range(&lock));
            core.link.say(Said::Test { id, node, holder, range });
            let told = timeout(PATIENCE, tells).await.map_err(|_| Errno::TIMEDOUT)?;
            match told.map_err(|_| Errno::IO)? {
                Told::Busy { range: Some(range), pid, .. } => {
                    let kind = if range.exclusive { LockKind::Write } else { LockKind::Read };
                    let other = Lock { start: range.start, end: range.end, kind, pid, ..lock };
                    Ok(Answer::lock(Some(&other)))
                }
                _ => Ok(Answer::lock(None)),
            }
        });
    }

    pub(crate) fn set_lock(self: &Arc<Self>, head: Head, lock: Lock, wait: bool) {
        if lock.kind == LockKind::Free {
            return self.free(head, lock);
        }
        let core = self.clone();
        let mut interrupted = self.interruptible(head.unique);
        self.runtime.spawn(async move {
            let done = core.take(&head, lock, wait, &mut interrupted).await;
            core.uninterruptible(head.unique);
            core.device.answer(&head, done.map(|()| Answer::done()));
        });
    }

    async fn take(
        self: &Arc<Self>,
        head: &Head,
        lock: Lock,
        wait: bool,
        interrupted: &mut oneshot::Receiver<()>,
    ) -> Result<(), Errno> {
        let node = self.locked_node(head.node).await?;
        let locker = (head.node, lock.owner);
        self.lockers.lock().unwrap_or_else(PoisonError::into_inner).insert(locker);
        let (id, mut tells) = self.ask_lock(node, lock, wait);
        self.link.say(said(id, node, &lock, wait));
        let bound = async {
            if wait { std::future::pending().await } else { tokio::time::sleep(PATIENCE).await }
        };
        let told = tokio::select! {
            told = &mut tells => told.map_err(|_| Errno::IO)?,
            Ok(()) = interrupted => {
                self.link.say(Said::Cancel { id });
                return Err(Errno::INTR);
            }
            () = bound => {
                self.link.say(Said::Cancel { id });
                return Err(Errno::TIMEDOUT);
            }
        };
        match told {
            Told::Locked { .. } => Ok(()),
            Told::Deadlock { .. } => Err(Errno::DEADLK),
            Told::TooMany { .. } => Err(Errno::NOLCK),
            _ => Err(Errno::AGAIN),
        }
    }

    /// Gives a lock back: what was written under it first.
    fn free(self: &Arc<Self>, head: Head, lock: Lock) {
        let core = self.clone();
        self.spawn(head, async move {
            core.commit_and_settle(head.node, None).await?;
            let node = core.locked_node(head.node).await?;
            let (space, holder) = (space(&lock), Holder(lock.owner.0));
            let (start, end) = (lock.start, lock.end);
            core.forget_held(node, &lock);
            core.link.say(Said::Unlock { node, space, holder, start, end });
            Ok(Answer::done())
        });
    }

    /// An open file of a process is closed: POSIX takes all its locks away.
    pub(crate) fn unlock_all(&self, ino: Ino, owner: LockOwner) {
        self.unlock(ino, owner, LockSpace::Ranges);
    }

    /// An open file is closed for good, and `flock`'s lock of it goes.
    pub(crate) fn unlock_whole(&self, ino: Ino, owner: LockOwner) {
        self.unlock(ino, owner, LockSpace::Whole);
    }

    fn unlock(&self, ino: Ino, owner: LockOwner, space: LockSpace) {
        let mut lockers = self.lockers.lock().unwrap_or_else(PoisonError::into_inner);
        if !lockers.remove(&(ino, owner)) {
            return;
        }
        drop(lockers);
        if let Ok(Ok(node)) = self.view().lockable(ino) {
            let whole = space == LockSpace::Whole;
            let (kind, pid) = (LockKind::Free, 0);
            self.forget_held(node, &Lock { owner, start: 0, end: u64::MAX, kind, pid, whole });
            let holder = Holder(owner.0);
            self.link.say(Said::Unlock { node, space, holder, start: 0, end: u64::MAX });
        }
    }

    /// The service answers about a lock.
    pub(crate) fn heard_of_lock(&self, told: Told) {
        let (Told::Locked { id }
        | Told::Busy { id, .. }
        | Told::Deadlock { id }
        | Told::TooMany { id }) = &told
        else {
            return;
        };
        let pending = self.locks.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
        let Some(Pending { node, lock, told: waits, .. }) = pending else { return };
        let locked = matches!(told, Told::Locked { .. });
        if locked && !waits.is_closed() {
            self.forget_held(node, &lock);
            let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            held.push(Held { node, lock });
        }
        if waits.send(told).is_err() && locked {
            // Whoever waited was interrupted just before it was his.
            let (space, holder) = (space(&lock), Holder(lock.owner.0));
            let (start, end) = (lock.start, lock.end);
            self.link.say(Said::Unlock { node, space, holder, start, end });
        }
    }

    fn forget_held(&self, node: NodeId, part: &Lock) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        give_back(&mut held, node, part);
    }

    /// Says again which locks are held and waited for.
    pub(crate) fn take_locks_again(&self) {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for Held { node, lock } in held {
            // Nobody waits for the answer: it is held, unless another took it while the
            // service knew of nobody.
            let id = self.ids.fetch_add(1, Ordering::Relaxed);
            self.link.say(said(id, node, &lock, false));
        }
        self.link.say(Said::Locks);
        let pending = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        for (id, Pending { node, lock, wait, .. }) in pending.iter() {
            self.link.say(said(*id, *node, lock, *wait));
        }
    }
}

fn said(id: u64, node: NodeId, lock: &Lock, wait: bool) -> Said {
    let (space, holder, range) = (space(lock), Holder(lock.owner.0), range(lock));
    Said::Lock { id, node, space, holder, range, wait, pid: lock.pid }
}
