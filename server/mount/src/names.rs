//! Operations that change names and attributes: each is committed before it is answered.

use std::ffi::{OsStr, OsString};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::OFlags;
use s0_api::mounts::Said;
use s0_api::sync::Outcome;
use s0_tree::{
    Action, AttributeChange, Change, Content, MAX_PATH_BYTES, New, NodeId, Reason, RenameHow, Seq,
};

use crate::core::{Core, now};
use crate::kernel::answer::{Answer, Errno};
use crate::kernel::request::{Handle, Head, Ino, LockOwner, Operation, SetAttr, SetTime};
use crate::serve::{Answered, VALID, entry, opened_for};
use crate::view::{Asked, View};

/// How often an operation is tried that others were faster than.
const TRIES: usize = 32;
/// The pause after the service could not commit.
const AGAIN: Duration = Duration::from_millis(100);

/// The kinds of nodes that `mknod` makes, in a mode's high bits.
const KIND: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;
const FIFO: u32 = 0o010_000;

/// What a node became, or where the journal was after it.
struct Changed {
    node: Option<NodeId>,
    head: Seq,
}

impl Core {
    /// Starts what is not answered at once; gives an answer where there is one after all.
    #[expect(clippy::needless_pass_by_value, reason = "the request is used up by it")]
    #[expect(clippy::too_many_lines, reason = "one arm for each request")]
    pub(crate) fn slow(self: &Arc<Self>, head: Head, operation: Operation<'_>) -> Option<Answered> {
        let (core, ino, owner) = (self.clone(), head.node, (head.uid, head.gid));
        let by = by(&head);
        match operation {
            Operation::MkDir { name, mode } => {
                let name = name.to_owned();
                self.spawn(head, async move {
                    core.make(ino, name, New::Directory, (Some(mode), owner), by).await
                });
            }
            Operation::SymLink { name, target } => {
                let Some(target) = target.to_str() else { return Some(Err(Errno::ILSEQ)) };
                if target.len() > MAX_PATH_BYTES {
                    return Some(Err(Errno::NAMETOOLONG));
                }
                let (name, what) = (name.to_owned(), New::Symlink { target: target.into() });
                self.spawn(
                    head,
                    async move { core.make(ino, name, what, (None, owner), by).await },
                );
            }
            Operation::MkNod { name, mode } => {
                let what = match mode & KIND {
                    REGULAR | 0 => New::File { content: Content::empty() },
                    FIFO => New::Fifo,
                    // Devices and sockets are of one machine; a Volume is not.
                    _ => return Some(Err(Errno::PERM)),
                };
                let name = name.to_owned();
                self.spawn(head, async move {
                    core.make(ino, name, what, (Some(mode), owner), by).await
                });
            }
            Operation::Create { name, mode, flags } => {
                return self.create(head, name, mode, OFlags::from_bits_retain(flags));
            }
            Operation::Unlink { name } | Operation::RmDir { name } => {
                let (name, directory) =
                    (name.to_owned(), matches!(operation, Operation::RmDir { .. }));
                self.spawn(head, async move {
                    let ask = |view: &mut View| view.ask_remove(ino, &name, directory);
                    let changed = core.change(ask, by).await?;
                    if changed.node.is_none() {
                        core.give_up(ino, &name);
                    }
                    core.settle_names([ino, ino], changed.head).await?;
                    Ok(Answer::done())
                });
            }
            Operation::Rename { name, to, new, flags } => {
                let how = match flags {
                    0 => RenameHow::Replace,
                    1 => RenameHow::NoReplace,
                    2 => RenameHow::Exchange,
                    _ => return Some(Err(Errno::INVAL)),
                };
                let (name, new) = (name.to_owned(), new.to_owned());
                self.spawn(head, async move {
                    let ask = |view: &mut View| view.ask_rename((ino, &name), (to, &new), how);
                    let changed = core.change(ask, by).await?;
                    core.settle_names([ino, to], changed.head).await?;
                    Ok(Answer::done())
                });
            }
            Operation::Link { node, name } => {
                let name = name.to_owned();
                self.spawn(head, async move {
                    let ask = |view: &mut View| view.ask_link(node, ino, &name);
                    let changed = core.change(ask, by).await?;
                    core.settle_names([ino, ino], changed.head).await?;
                    let attr = core.view().known(node)?;
                    Ok(entry(&attr))
                });
            }
            Operation::SetAttr(set) => {
                self.spawn(head, async move { core.set_attr(ino, set, by).await });
            }
            Operation::SetXattr { name, value, flags } => {
                let exists = match flags {
                    0 => None,
                    1 => Some(false),
                    2 => Some(true),
                    _ => return Some(Err(Errno::INVAL)),
                };
                let (name, value) = (name.to_owned(), value.to_vec());
                self.spawn(head, async move {
                    let ask = |view: &mut View| view.ask_xattr(ino, &name, Some(&value), exists);
                    core.change(ask, by).await.map(|_| Answer::done())
                });
            }
            Operation::RemoveXattr { name } => {
                let name = name.to_owned();
                self.spawn(head, async move {
                    let ask = |view: &mut View| view.ask_xattr(ino, &name, None, Some(true));
                    core.change(ask, by).await.map(|_| Answer::done())
                });
            }
            Operation::Flush { owner } => return self.flush(head, owner, by),
            Operation::FSync => {
                self.spawn(head, async move {
                    core.commit_and_settle(ino, by).await?;
                    core.failed(ino).map(|()| Answer::done())
                });
            }
            Operation::SyncFs => {
                self.spawn(head, async move {
                    let dirty = core.view().dirty();
                    for ino in dirty {
                        core.commit_and_settle(ino, by.clone()).await?;
                    }
                    Ok(Answer::done())
                });
            }
            Operation::GetLock(lock) => self.get_lock(head, lock),
            Operation::SetLock { lock, wait } => self.set_lock(head, lock, wait),
            _ => return Some(Err(Errno::NOSYS)),
        }
        None
    }

    /// Has a change committed. It is asked for again for as long as others are faster.
    async fn change(
        self: &Arc<Self>,
        ask: impl Fn(&mut View) -> Result<Asked, Errno>,
        by: Option<Arc<str>>,
    ) -> Result<Changed, Errno> {
        for _ in 0..TRIES {
            let asked = ask(&mut self.view())?;
            let change = match asked {
                Asked::Change(change) => *change,
                Asked::Commit(ino) => {
                    self.commit(ino, by.clone()).await?;
                    continue;
                }
                Asked::Done => return Ok(Changed { node: None, head: Seq(0) }),
            };
            match self.submit(change, by.clone()).await {
                Ok(Some(changed)) => return Ok(changed),
                Ok(None) => {}
                Err(Errno::AGAIN) => tokio::time::sleep(AGAIN).await,
                Err(errno) => return Err(errno),
            }
        }
        Err(Errno::IO)
    }

    /// Submits a change; none when something else is there than it expects.
    async fn submit(&self, change: Change, by: Option<Arc<str>>) -> Result<Option<Changed>, Errno> {
        let makes = matches!(change.action, Action::Create { .. });
        let done = self.link.submit(Change { by, ..change }, None, None).await?;
        match done.outcome {
            Outcome::Accepted { node, .. } => {
                Ok(Some(Changed { node: Some(node), head: done.head }))
            }
            // It is as it was to become.
            Outcome::Held { node, .. } if !makes => Ok(Some(Changed { node, head: done.head })),
            // What was to be made is there already: so says the next look at the tree.
            Outcome::Held { .. } | Outcome::Stale { .. } | Outcome::Refused { .. } => Ok(None),
            Outcome::Conflict { reason, .. } => Err(errno_of(reason)),
            Outcome::NoRoom => Err(Errno::DQUOT),
        }
    }

    async fn make(
        self: &Arc<Self>,
        parent: Ino,
        name: OsString,
        what: New,
        how: (Option<u32>, (u32, u32)),
        by: Option<Arc<str>>,
    ) -> Answered {
        let ask = |view: &mut View| view.ask_make(parent, &name, what.clone(), how);
        let changed = self.change(ask, by).await?;
        self.settle_names([parent, parent], changed.head).await?;
        let mut view = self.view();
        let ino = view.ino(changed.node.ok_or(Errno::IO)?);
        let attr = view.known(ino)?;
        Ok(entry(&attr))
    }

    /// Makes a file and opens it. Without `O_EXCL`, or when no other mount is there, nobody
    /// needs to be asked: it is made here, and committed with what is written to it.
    fn create(
        self: &Arc<Self>,
        head: Head,
        name: &OsStr,
        mode: u32,
        flags: OFlags,
    ) -> Option<Answered> {
        let (parent, owner) = (head.node, (head.uid, head.gid));
        let exclusive = flags.contains(OFlags::EXCL);
        let mut view = self.view();
        let at = match view.may_make(parent, name) {
            Ok(at) => at,
            Err(Errno::EXIST) if !exclusive => {
                // Another made it since the kernel looked.
                let there = view.lookup(parent, name);
                drop(view);
                let there = there.and_then(|attr| attr.ok_or(Errno::STALE));
                return Some(there.and_then(|attr| self.created(attr.ino, flags)));
            }
            Err(errno) => return Some(Err(errno)),
        };
        let refused = view.is_refused(&at);
        if !refused && (!exclusive || self.is_alone()) {
            let cut = exclusive || flags.contains(OFlags::TRUNC);
            let ino = view.make(at, (mode, cut), owner, now());
            let known = view.known(ino);
            drop(view);
            return Some(known.and_then(|_| self.created(ino, flags)));
        }
        let path = view.path_of(&at);
        drop(view);
        let (core, by) = (self.clone(), by(&head));
        self.spawn(head, async move {
            if refused {
                // It is sent all the same, so that it is recorded.
                let change = core.view().ask_refused(&at)?;
                core.submit(change, by).await?;
                // The replica that could not hold it has just gone.
            }
            if !core.reserve(path?).await? {
                return Err(Errno::EXIST);
            }
            let ino = {
                let mut view = core.view();
                let ino = view.make(at, (mode, true), owner, now());
                view.known(ino)?;
                ino
            };
            core.created(ino, flags)
        });
        None
    }

    /// A new file was removed before it was committed: its name is kept no longer.
    fn give_up(&self, parent: Ino, name: &OsStr) {
        if let Ok(path) = self.view().path_in(parent, name) {
            self.link.say(Said::Release { path });
        }
    }

    /// Opens what was just made and is known to the kernel.
    fn created(&self, ino: Ino, flags: OFlags) -> Answered {
        let mut view = self.view();
        let append = flags.contains(OFlags::APPEND);
        let handle = view.open(ino, append)?;
        if flags.contains(OFlags::TRUNC) && view.attr(ino)?.size > 0 {
            view.truncate(ino, 0, false, now())?;
        }
        let attr = view.attr(ino)?;
        Ok(Answer::created(&attr, VALID, handle, opened_for(append)))
    }

    async fn set_attr(self: &Arc<Self>, ino: Ino, set: SetAttr, by: Option<Arc<str>>) -> Answered {
        let at = now();
        let time = |set: SetTime| match set {
            SetTime::Now => at,
            SetTime::To(time) => time,
        };
        if let Some(size) = set.size {
            self.view().truncate(ino, size, set.kill_ids, at)?;
            if !set.by_handle {
                self.commit_and_settle(ino, by.clone()).await?;
            }
        }
        if let Some(atime) = set.atime {
            self.view().set_atime(ino, time(atime));
        }
        let change = AttributeChange {
            mode: set.mode.map(|mode| mode & 0o7777),
            uid: set.uid,
            gid: set.gid,
            mtime: set.mtime.map(time),
            ..AttributeChange::default()
        };
        if change != AttributeChange::default() {
            let ask = |view: &mut View| view.ask_attributes(ino, change.clone());
            self.change(ask, by).await?;
        }
        let attr = self.view().attr(ino)?;
        Ok(Answer::attr(&attr, VALID))
    }

    fn flush(
        self: &Arc<Self>,
        head: Head,
        owner: LockOwner,
        by: Option<Arc<str>>,
    ) -> Option<Answered> {
        let (core, ino) = (self.clone(), head.node);
        // Nobody but who is told of it later could look: it is committed with what is written, or
        // when it is closed for good.
        let waits = self.is_alone() && self.view().is_only_empty(ino);
        if waits || !self.view().is_dirty(ino) {
            self.unlock_all(ino, owner);
            return Some(self.failed(ino).map(|()| Answer::done()));
        }
        self.spawn(head, async move {
            let done = core.commit_for_close(ino, by).await;
            core.unlock_all(ino, owner);
            done.map(|()| Answer::done())
        });
        None
    }

    /// A file is closed for good. What was written through a memory map comes only now.
    pub(crate) fn release(self: &Arc<Self>, head: Head, handle: Handle, unlock: Option<LockOwner>) {
        if let Some(owner) = unlock {
            self.unlock_whole(head.node, owner);
        }
        self.view().close(handle);
        self.device.answer(&head, Ok(Answer::done()));
        if self.view().is_dirty(head.node) {
            let (core, ino) = (self.clone(), head.node);
            self.runtime.spawn(async move {
                if let Err(errno) = core.commit(ino, None).await {
                    tracing::warn!(?errno, "what was written last is tried again");
                }
            });
        }
    }
}

/// What a refusal is to a program.
pub(crate) fn errno_of(reason: Reason) -> Errno {
    match reason {
        Reason::CasefoldCollision | Reason::CaseOnlyRenameConflict => Errno::EXIST,
        Reason::WindowsReservedName
        | Reason::WindowsTrailingDotSpace
        | Reason::WindowsForbiddenCharacter
        | Reason::WindowsControlCharacter => Errno::INVAL,
        Reason::DirectoryNotEmpty => Errno::NOTEMPTY,
        Reason::PathTooLong => Errno::NAMETOOLONG,
        Reason::ParentChanged => Errno::NOENT,
        Reason::ConcurrentUpdate => Errno::STALE,
    }
}

/// The process that asks, as `name[pid]`.
fn by(head: &Head) -> Option<Arc<str>> {
    let name = std::fs::read_to_string(format!("/proc/{}/comm", head.pid)).ok()?;
    Some(format!("{}[{}]", name.trim_end(), head.pid).into())
}
