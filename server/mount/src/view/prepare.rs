//! The changes that operations on names and attributes come to. Each goes by the tree as
//! it is now; a change that was stale is prepared again, and is then refused as it should.

use std::collections::BTreeMap;
use std::ffi::OsStr;

use s0_tree::{Action, AttributeChange, Change, Expected, New, NodeId, Place, RenameHow, TreePath};

use super::{Is, View, valid};
use crate::kernel::answer::{Errno, FileKind};
use crate::kernel::request::Ino;

/// What an operation comes to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Asked {
    /// A change of the journal.
    Change(Box<Change>),
    /// A file must be committed first.
    Commit(Ino),
    /// It is done; the journal knows nothing of it.
    Done,
}

impl Asked {
    fn of(action: Action, expect: Expected) -> Self {
        Self::change(Change::new(action, expect))
    }

    fn change(change: Change) -> Self {
        Self::Change(Box::new(Change { looks_again: true, ..change }))
    }
}

/// Who makes something: user and group.
pub(crate) type Owner = (u32, u32);

impl View {
    /// Makes a directory, a link, a pipe, or an empty file.
    pub(crate) fn ask_make(
        &self,
        parent: Ino,
        name: &OsStr,
        what: New,
        (mode, (uid, gid)): (Option<u32>, Owner),
    ) -> Result<Asked, Errno> {
        let at = self.may_make(parent, name)?;
        let gid = self.group_in(&at, gid);
        let inherits = what == New::Directory
            && self.tree.node(at.parent).is_some_and(|it| it.attributes.mode & 0o2000 != 0);
        let mode = mode.map(|mode| mode & 0o7777 | if inherits { 0o2000 } else { 0 });
        let set =
            AttributeChange { mode, uid: Some(uid), gid: Some(gid), ..AttributeChange::default() };
        let path = self.path_at(at.parent, &at.name)?;
        Ok(Asked::of(Action::Create { path, what, set }, Expected::Absent))
    }

    /// Takes a name away.
    pub(crate) fn ask_remove(
        &mut self,
        parent: Ino,
        name: &OsStr,
        directory: bool,
    ) -> Result<Asked, Errno> {
        let parent = self.directory(parent)?;
        let name = valid(name).map_err(|_| Errno::NOENT)?;
        let ino = self.child(parent, &name).ok_or(Errno::NOENT)?;
        match (self.attr(ino)?.kind, directory) {
            (FileKind::Directory, false) => return Err(Errno::ISDIR),
            (FileKind::Directory, true) => self.check_empty(ino)?,
            (_, true) => return Err(Errno::NOTDIR),
            (_, false) => {}
        }
        let Some(id) = self.node_id(ino) else {
            // A new file that is being committed is one in a moment.
            return Ok(if self.drop_fresh(ino) { Asked::Done } else { Asked::Commit(ino) });
        };
        let path = self.path_at(parent, &name)?;
        Ok(Asked::of(Action::Remove { path }, self.expected(id)?))
    }

    /// Moves something.
    pub(crate) fn ask_rename(
        &self,
        (from, name): (Ino, &OsStr),
        (to, new): (Ino, &OsStr),
        how: RenameHow,
    ) -> Result<Asked, Errno> {
        let (from_dir, to_dir) = (self.directory(from)?, self.directory(to)?);
        let name = valid(name).map_err(|_| Errno::NOENT)?;
        let new = valid(new)?;
        let moved = self.child(from_dir, &name).ok_or(Errno::NOENT)?;
        let over = self.child(to_dir, &new);
        for ino in [Some(moved), over].into_iter().flatten() {
            if self.node_id(ino).is_none() {
                return Ok(Asked::Commit(ino));
            }
        }
        let id = self.node_id(moved).ok_or(Errno::NOENT)?;
        let (from, to) = (self.path_at(from_dir, &name)?, self.path_at(to_dir, &new)?);
        let Some(over) = over else {
            if how == RenameHow::Exchange {
                return Err(Errno::NOENT);
            }
            let change = Change {
                expect_to: Some(Expected::Absent),
                ..Change::new(Action::Rename { from, to, how }, self.expected(id)?)
            };
            return self.moved(id, to_dir, change);
        };
        let other = self.node_id(over).ok_or(Errno::NOENT)?;
        match how {
            RenameHow::NoReplace => return Err(Errno::EXIST),
            // Two names of one file: rename(2) does nothing.
            _ if other == id => return Ok(Asked::Done),
            RenameHow::Exchange => {}
            RenameHow::Replace => match (self.attr(moved)?.kind, self.attr(over)?.kind) {
                (FileKind::Directory, FileKind::Directory) => self.check_empty(over)?,
                (FileKind::Directory, _) => return Err(Errno::NOTDIR),
                (_, FileKind::Directory) => return Err(Errno::ISDIR),
                _ => {}
            },
        }
        let change = Change {
            expect_to: Some(self.expected(other)?),
            ..Change::new(Action::Rename { from, to, how }, self.expected(id)?)
        };
        self.moved(id, to_dir, change)
    }

    /// A move, unless it is one of a directory into itself.
    fn moved(&self, id: NodeId, mut to: NodeId, change: Change) -> Result<Asked, Errno> {
        while to != NodeId::ROOT {
            if to == id {
                return Err(Errno::INVAL);
            }
            let above = self.tree.node(to).and_then(|node| node.places.first());
            to = above.ok_or(Errno::NOENT)?.parent;
        }
        if change.path().as_str().len() > s0_tree::MAX_PATH_BYTES {
            return Err(Errno::NAMETOOLONG);
        }
        Ok(Asked::change(change))
    }

    /// Gives a file one more name.
    pub(crate) fn ask_link(&self, ino: Ino, parent: Ino, name: &OsStr) -> Result<Asked, Errno> {
        let at = self.may_make(parent, name)?;
        if self.attr(ino)?.kind == FileKind::Directory {
            return Err(Errno::PERM);
        }
        let id = match self.inodes.get(&ino).map(|inode| &inode.is) {
            Some(Is::Fresh(_)) => return Ok(Asked::Commit(ino)),
            Some(Is::Gone(_)) => return Err(Errno::NOENT),
            _ => self.node_id(ino).ok_or(Errno::NOENT)?,
        };
        let existing = self.tree.path_of(id).ok_or(Errno::NOENT)?;
        let path = self.path_at(at.parent, &at.name)?;
        Ok(Asked::of(Action::Link { path, existing }, self.expected(id)?))
    }

    /// Changes attributes of a node.
    pub(crate) fn ask_attributes(
        &mut self,
        ino: Ino,
        set: AttributeChange,
    ) -> Result<Asked, Errno> {
        // What is on its way to the journal says what was set before.
        let is_under_way =
            |inode: &super::Inode| matches!(inode.is, Is::Fresh(_)) && !inode.committing.is_empty();
        if self.inodes.get(&ino).is_some_and(is_under_way) {
            return Ok(Asked::Commit(ino));
        }
        if self.set_here(ino, &set) {
            return Ok(Asked::Done);
        }
        let id = self.node_id(ino).ok_or(Errno::STALE)?;
        if id == NodeId::ROOT {
            return Err(Errno::PERM);
        }
        if let Some(inode) = self.inodes.get_mut(&ino) {
            if let (Some(mtime), Some(draft)) = (set.mtime, &mut inode.draft) {
                draft.mtime = mtime;
            }
            inode.kill_ids &= set.mode.is_none();
        }
        let path = self.tree.path_of(id).ok_or(Errno::STALE)?;
        Ok(Asked::of(Action::Attributes { path, set }, self.expected(id)?))
    }

    /// Sets an extended attribute, or removes it. `exists` says whether it must be there.
    pub(crate) fn ask_xattr(
        &self,
        ino: Ino,
        name: &OsStr,
        value: Option<&[u8]>,
        exists: Option<bool>,
    ) -> Result<Asked, Errno> {
        let name = name.to_str().filter(|name| name.starts_with("user."));
        let name = name.ok_or(Errno::NOTSUP)?;
        if matches!(self.inodes.get(&ino).map(|inode| &inode.is), Some(Is::Fresh(_))) {
            return Ok(Asked::Commit(ino));
        }
        let id = self.node_id(ino).filter(|id| *id != NodeId::ROOT).ok_or(Errno::PERM)?;
        let there = self.xattrs(ino).any(|(other, _)| other == name);
        match exists {
            Some(true) if !there => return Err(Errno::NODATA),
            Some(false) if there => return Err(Errno::EXIST),
            _ => {}
        }
        let others = self.xattrs(ino).filter(|(other, _)| *other != name);
        let bytes: usize = others.map(|(name, value)| name.len() + value.len()).sum();
        if bytes + name.len() + value.map_or(0, <[u8]>::len) > s0_tree::MAX_XATTR_BYTES {
            return Err(Errno::NOSPC);
        }
        let xattrs = BTreeMap::from([(name.to_owned(), value.map(<[u8]>::to_vec))]);
        let set = AttributeChange { xattrs, ..AttributeChange::default() };
        let path = self.tree.path_of(id).ok_or(Errno::STALE)?;
        Ok(Asked::of(Action::Attributes { path, set }, self.expected(id)?))
    }

    /// The file that must be committed before it can be locked: the service knows files
    /// by their nodes.
    pub(crate) fn lockable(&self, ino: Ino) -> Result<Result<NodeId, Ino>, Errno> {
        match self.inodes.get(&ino).map(|inode| &inode.is) {
            Some(Is::Fresh(_)) => Ok(Err(ino)),
            // Its name is gone, and with it whoever could lock it from elsewhere.
            Some(Is::Gone(_)) => Err(Errno::NOENT),
            _ => self.node_id(ino).map(Ok).ok_or(Errno::STALE),
        }
    }

    /// A change of something at a place that no replica can hold: it is sent, so that it
    /// is recorded.
    pub(crate) fn ask_refused(&self, at: &Place) -> Result<Change, Errno> {
        let path: TreePath = self.path_at(at.parent, &at.name)?;
        let what = New::File { content: s0_tree::Content::empty() };
        let action = Action::Create { path, what, set: AttributeChange::default() };
        Ok(Change { looks_again: true, ..Change::new(action, Expected::Absent) })
    }

    fn expected(&self, id: NodeId) -> Result<Expected, Errno> {
        let node = self.tree.node(id).ok_or(Errno::NOENT)?;
        Ok(Expected::Node { id, version: node.version })
    }

    fn check_empty(&self, ino: Ino) -> Result<(), Errno> {
        let id = self.directory(ino)?;
        let node = self.tree.node(id).and_then(s0_tree::Node::directory);
        let fresh = self.fresh.keys().any(|place| place.parent == id);
        if fresh || node.is_some_and(|directory| !directory.is_empty()) {
            return Err(Errno::NOTEMPTY);
        }
        Ok(())
    }
}
