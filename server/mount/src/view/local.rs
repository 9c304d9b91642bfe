//! What is done here at once, and committed later: new files, and what is written.

use std::ffi::OsStr;
use std::io;
use std::ops::Range;

use s0_tree::{AttributeChange, MAX_PATH_BYTES, Place, Seq, Time, portable_issues};

use super::{FRESH, Fresh, Inode, Is, Open, View, valid};
use crate::draft::{Draft, Piece};
use crate::kernel::answer::{Errno, FileKind};
use crate::kernel::request::{Handle, Ino};

/// The longest file, in bytes: what a recipe can name, with room to spare.
const MAX_FILE: u64 = 1 << 40;

impl View {
    /// Opens a file.
    pub(crate) fn open(&mut self, ino: Ino, append: bool) -> Result<Handle, Errno> {
        if self.attr(ino)?.kind == FileKind::Directory {
            return Err(Errno::ISDIR);
        }
        self.inode(ino)?.opens += 1;
        let handle = self.next_handle();
        self.opens.insert(handle, Open { ino, append });
        Ok(handle)
    }

    /// Closes a file. What is dirty stays until it is committed.
    pub(crate) fn close(&mut self, handle: Handle) {
        let Some(open) = self.opens.remove(&handle) else { return };
        if let Some(inode) = self.inodes.get_mut(&open.ino) {
            inode.opens = inode.opens.saturating_sub(1);
            let gone = matches!(&inode.is, Is::Gone(gone) if gone.unseen.is_none());
            let clean = inode.draft.as_ref().is_some_and(|draft| !draft.is_dirty());
            if inode.opens == 0 && (gone || clean) {
                inode.draft = None;
            }
            self.sweep(open.ino);
        }
    }

    /// Where a name is to be made, if it can be, as far as that is known here.
    pub(crate) fn may_make(&self, parent: Ino, name: &OsStr) -> Result<Place, Errno> {
        let parent = self.directory(parent)?;
        let name = valid(name)?;
        if self.path_at(parent, &name)?.as_str().len() > MAX_PATH_BYTES {
            return Err(Errno::NAMETOOLONG);
        }
        if self.child(parent, &name).is_some() {
            return Err(Errno::EXIST);
        }
        Ok(Place { parent, name })
    }

    /// Whether a registered replica could not hold this name.
    pub(crate) fn is_refused(&self, place: &Place) -> bool {
        let name = place.name.as_str();
        let collides = self.tree.collision(place.parent, &place.name, self.policy, None).is_some();
        let fresh = |other: &Place| {
            other.parent == place.parent
                && other.name != place.name
                && self.policy.same_name(other.name.as_str(), name)
        };
        collides
            || !portable_issues(name, self.policy).is_empty()
            || (self.policy.is_folding() && self.fresh.keys().any(fresh))
    }

    /// Makes a file here; it is committed with what is written to it. With `cut`, it is empty
    /// also where another makes one at the same time.
    pub(crate) fn make(
        &mut self,
        at: Place,
        (mode, cut): (u32, bool),
        (uid, gid): (u32, u32),
        now: Time,
    ) -> Ino {
        self.last += 1;
        let ino = Ino(FRESH + self.last);
        let gid = self.group_in(&at, gid);
        let mode = mode & 0o7777;
        let fresh = Fresh { at: at.clone(), mode, uid, gid, made: now, orphaned: None };
        let mut inode = Inode::of(Is::Fresh(fresh));
        let mut draft = Draft::of(None, now);
        draft.touch();
        if cut {
            draft.begin_empty();
        }
        inode.draft = Some(draft);
        self.inodes.insert(ino, inode);
        self.fresh.insert(at, ino);
        ino
    }

    /// The group of what is made in a directory: the directory's, where it says so.
    pub(super) fn group_in(&self, at: &Place, gid: u32) -> u32 {
        let directory = self.tree.node(at.parent).map(|node| &node.attributes);
        directory.filter(|it| it.mode & 0o2000 != 0).map_or(gid, |it| it.gid)
    }

    /// The draft of a file; made where there is none.
    fn draft(&mut self, ino: Ino) -> Result<&mut Draft, Errno> {
        let node = self.node(ino);
        let (content, version) = match node {
            Some(node) => (Some(node.content().ok_or(Errno::INVAL)?), node.version),
            None => (None, Seq(0)),
        };
        let mtime = node.map_or(Time(0), |node| node.attributes.mtime);
        let inode = self.inode(ino)?;
        if inode.refused {
            return Err(Errno::STALE);
        }
        if inode.draft.is_none() {
            inode.based = version;
        }
        Ok(inode.draft.get_or_insert_with(|| Draft::of(content, mtime)))
    }

    /// Whether there is room for a file to become this long, beside what is written to
    /// others and not committed.
    fn check_room(&self, ino: Ino, size: u64) -> Result<(), Errno> {
        if size > MAX_FILE {
            return Err(Errno::FBIG);
        }
        if self.quota.bytes.is_none() {
            return Ok(());
        }
        let committed = |ino| self.content(ino).map_or(0, |content| content.size);
        let used = self.tree.usage();
        let others = self.inodes.iter().filter(|(other, _)| **other != ino);
        let dirty = others.filter_map(|(other, inode)| {
            let draft = inode.draft.as_ref().filter(|draft| draft.is_dirty())?;
            Some((*other, draft.size()))
        });
        let after = dirty.chain([(ino, size)]).fold(used, |used, (ino, size)| {
            let old = committed(ino);
            used.rewritten(old, size.max(old))
        });
        if self.quota.allows(used, after) { Ok(()) } else { Err(Errno::DQUOT) }
    }

    /// Writes. Gives where: of what is appended the kernel may not know.
    pub(crate) fn write(
        &mut self,
        handle: Handle,
        offset: u64,
        data: &[u8],
        kill_ids: bool,
        now: Time,
    ) -> Result<u64, Errno> {
        let open = self.opened(handle).ok_or(Errno::BADF)?;
        let end = offset.checked_add(data.len() as u64).ok_or(Errno::FBIG)?;
        self.check_room(open.ino, end)?;
        let draft = self.draft(open.ino)?;
        let done = if open.append {
            draft.append(data, now)
        } else {
            draft.write(offset, data, now).map(|()| offset)
        };
        self.note_ids(open.ino, kill_ids);
        done.map_err(|error| of_io(&error))
    }

    /// Cuts or extends a file.
    pub(crate) fn truncate(
        &mut self,
        ino: Ino,
        size: u64,
        kill_ids: bool,
        now: Time,
    ) -> Result<(), Errno> {
        if self.attr(ino)?.kind == FileKind::Directory {
            return Err(Errno::ISDIR);
        }
        self.check_room(ino, size)?;
        self.draft(ino)?.truncate(size, now).map_err(|error| of_io(&error))?;
        self.note_ids(ino, kill_ids);
        Ok(())
    }

    /// Writes zeros, as far as the file reaches.
    pub(crate) fn clear(&mut self, ino: Ino, range: Range<u64>, now: Time) -> Result<(), Errno> {
        static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];
        let end = range.end.min(self.attr(ino)?.size);
        let mut at = range.start;
        while at < end {
            let length = (end - at).min(ZEROS.len() as u64);
            let zeros = &ZEROS[..usize::try_from(length).unwrap_or(ZEROS.len())];
            self.draft(ino)?.write(at, zeros, now).map_err(|error| of_io(&error))?;
            at += length;
        }
        Ok(())
    }

    fn note_ids(&mut self, ino: Ino, kill_ids: bool) {
        if kill_ids && let Some(inode) = self.inodes.get_mut(&ino) {
            inode.kill_ids = true;
        }
    }

    /// Where the bytes of a range of a file are.
    pub(crate) fn pieces(&self, ino: Ino, range: Range<u64>) -> Result<Vec<Piece>, Errno> {
        if let Some(draft) = self.inodes.get(&ino).and_then(|inode| inode.draft.as_ref()) {
            return Ok(draft.pieces(range));
        }
        let content = self.node(ino).and_then(s0_tree::Node::content).ok_or(Errno::INVAL)?;
        let end = range.end.min(content.size);
        let some = range.start < end;
        Ok(some.then_some(Piece::Base(content, range.start..end)).into_iter().collect())
    }

    /// Reads bytes that are in a file's draft.
    pub(crate) fn read_own(&self, ino: Ino, offset: u64, into: &mut [u8]) -> Result<(), Errno> {
        let inode = self.inodes.get(&ino);
        let draft = inode.and_then(|inode| inode.draft.as_ref()).ok_or(Errno::AGAIN)?;
        draft.read_own(offset, into).map_err(|_| Errno::AGAIN)
    }

    /// Sets the access time of a node, which is kept here only.
    pub(crate) fn set_atime(&mut self, ino: Ino, time: Time) {
        if let Ok(inode) = self.inode(ino) {
            inode.atime = Some(time);
        }
    }

    /// Changes the attributes of a new file, or of one without a name; false when it is
    /// a node of the tree, whose attributes are the journal's.
    pub(crate) fn set_here(&mut self, ino: Ino, set: &AttributeChange) -> bool {
        let Some(inode) = self.inodes.get_mut(&ino) else { return false };
        match &mut inode.is {
            Is::Fresh(fresh) => {
                fresh.mode = set.mode.map_or(fresh.mode, |mode| mode & 0o7777);
                fresh.uid = set.uid.unwrap_or(fresh.uid);
                fresh.gid = set.gid.unwrap_or(fresh.gid);
            }
            Is::Gone(gone) => {
                let attributes = &mut gone.node.attributes;
                attributes.mode = set.mode.map_or(attributes.mode, |mode| mode & 0o7777);
                attributes.uid = set.uid.unwrap_or(attributes.uid);
                attributes.gid = set.gid.unwrap_or(attributes.gid);
                attributes.mtime = set.mtime.unwrap_or(attributes.mtime);
            }
            Is::Node(_) => return false,
        }
        if let (Some(mtime), Some(draft)) = (set.mtime, &mut inode.draft) {
            draft.mtime = mtime;
        }
        if set.mode.is_some() {
            inode.kill_ids = false;
        }
        true
    }
}

/// What a failure of the local disk is to a program.
fn of_io(error: &io::Error) -> Errno {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Errno::NOSPC,
        _ => Errno::IO,
    }
}
