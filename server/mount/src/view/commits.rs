//! How what was written here becomes an entry of the journal.

use std::collections::HashMap;

use s0_tree::{
    Action, AttributeChange, Change, Content, Expected, Kind, New, Node, NodeId, Place, Seq, Time,
};

use super::{Attempt, Gone, Inode, Is, Unseen, View, without_ids};
use crate::kernel::answer::Errno;
use crate::kernel::request::Ino;

/// A draft that is to be committed, as it is at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Commit {
    pub(crate) generation: u64,
    pub(crate) size: u64,
    mtime: Time,
    /// The version that it is over, of a file that the journal knows. What comes in while the
    /// content is put together is not in it.
    based: Option<Seq>,
}

/// How a commit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Committed {
    /// It is in the journal, or was there already, as this node.
    As(NodeId),
    /// A replica wrote the file meanwhile, or took it away; what was written here is a
    /// recorded conflict.
    Conflict,
}

impl View {
    /// Whether a file has something to commit.
    pub(crate) fn is_dirty(&self, ino: Ino) -> bool {
        let draft = self.inodes.get(&ino).and_then(|inode| inode.draft.as_ref());
        draft.is_some_and(crate::draft::Draft::is_dirty)
    }

    /// Whether all that there is to commit of a file is that it is empty. A shell that sends a
    /// program's output to a file closes it once before anything is written.
    pub(crate) fn is_only_empty(&self, ino: Ino) -> bool {
        let draft = self.inodes.get(&ino).and_then(|inode| inode.draft.as_ref());
        draft.is_some_and(|draft| draft.size() == 0)
    }

    /// The files that have something to commit.
    pub(crate) fn dirty(&self) -> Vec<Ino> {
        let kept = |inode: &Inode| !matches!(&inode.is, Is::Gone(gone) if gone.unseen.is_none());
        let kept = self.inodes.iter().filter(|(_, inode)| kept(inode));
        kept.map(|(ino, _)| *ino).filter(|ino| self.is_dirty(*ino)).collect()
    }

    /// Begins to commit a file; none when there is nothing to commit, as of one that has
    /// no name any more.
    pub(crate) fn begin_commit(&mut self, ino: Ino) -> Option<Commit> {
        let inode = self.inodes.get_mut(&ino)?;
        let draft = inode.draft.as_mut().filter(|draft| draft.is_dirty())?;
        if matches!(&inode.is, Is::Gone(gone) if gone.unseen.is_none()) {
            return None;
        }
        let commit = Commit {
            generation: draft.begin_commit(),
            size: draft.size(),
            mtime: draft.mtime,
            based: matches!(inode.is, Is::Node(_)).then_some(inode.based),
        };
        inode.committing.push(Attempt { generation: commit.generation, content: None });
        Some(commit)
    }

    /// The change that commits a file with this content. It goes by what the tree is now,
    /// so it is asked for again when it was stale.
    pub(crate) fn commit_change(
        &mut self,
        ino: Ino,
        commit: &Commit,
        content: Content,
    ) -> Result<Option<Change>, Errno> {
        let inode = self.inodes.get_mut(&ino).ok_or(Errno::STALE)?;
        if let Some(attempt) = inode.committing.last_mut() {
            attempt.content = Some(content);
        }
        let inode = self.inodes.get(&ino).ok_or(Errno::STALE)?;
        let mut set = AttributeChange { mtime: Some(commit.mtime), ..AttributeChange::default() };
        match &inode.is {
            Is::Gone(gone) => Ok(gone.unseen.as_ref().map(|Unseen { path, id, version }| {
                let action = Action::Write { path: path.clone(), content, set };
                Change::new(action, Expected::Node { id: *id, version: *version })
            })),
            Is::Fresh(fresh) => {
                let path = match &fresh.orphaned {
                    Some(path) => path.clone(),
                    None => self.path_at(fresh.at.parent, &fresh.at.name)?,
                };
                let mode = if inode.kill_ids { without_ids(fresh.mode) } else { fresh.mode };
                set.mode = Some(mode);
                set.uid = Some(fresh.uid);
                set.gid = Some(fresh.gid);
                let action = Action::Create { path, what: New::File { content }, set };
                let change = Change::new(action, Expected::Absent);
                // What stands there and cannot be made one with it stays: that is a conflict.
                let there = self.tree.at_place(&fresh.at);
                let is_taken = there.is_some_and(|id| !self.is_adoptable(id));
                Ok(Some(Change { looks_again: !is_taken && fresh.orphaned.is_none(), ..change }))
            }
            Is::Node(id) => {
                let node = self.tree.node(*id).ok_or(Errno::STALE)?;
                let path = self.tree.path_of(*id).ok_or(Errno::STALE)?;
                if inode.kill_ids {
                    set.mode = Some(without_ids(node.attributes.mode));
                }
                // A new file that another has made meanwhile is over nothing of his yet.
                let version = commit.based.unwrap_or(Seq(0));
                let expect = Expected::Node { id: *id, version };
                let change = Change::new(Action::Write { path, content, set }, expect);
                // What a replica wrote unseen is not written over: that is a conflict.
                // Only what was put together since, though: it is looked at again where it was not.
                let is_settled = inode.overtaken && commit.based == Some(inode.based);
                Ok(Some(Change { looks_again: !is_settled, ..change }))
            }
        }
    }

    /// The change that sets a file's time where its content was in the tree already.
    pub(crate) fn time_change(&self, ino: Ino, commit: &Commit) -> Option<Change> {
        let id = self.node_id(ino)?;
        let node = self.tree.node(id)?;
        if node.attributes.mtime == commit.mtime {
            return None;
        }
        let set = AttributeChange { mtime: Some(commit.mtime), ..AttributeChange::default() };
        let expect = Expected::Node { id, version: node.version };
        let change = Change::new(Action::Attributes { path: self.tree.path_of(id)?, set }, expect);
        Some(Change { looks_again: true, ..change })
    }

    /// A commit ended; what was written since it began is dirty still. When it was journaled,
    /// its entry has said so already. False when what it found has been written over since.
    pub(crate) fn end_commit(
        &mut self,
        ino: Ino,
        commit: &Commit,
        content: Content,
        ended: Committed,
    ) -> bool {
        if let Committed::As(node) = ended {
            let is_fresh = self.made(ino).is_some();
            if is_fresh && self.tree.node(node).is_none() {
                // It was another's that had the same in it, or came to a directory that had the
                // path by then; and is gone already. Here it is as it was.
                self.abandon_commit(ino);
                return false;
            }
            self.became(ino, node);
        }
        let node = self.node(ino).map(|node| (node.version, node.content()));
        let Some(inode) = self.inodes.get_mut(&ino) else { return true };
        let told = !inode.ended(|attempt| attempt.generation == commit.generation);
        match ended {
            Committed::As(_) if told => {}
            Committed::As(_) => {
                let Some((version, Some(held))) = node else { return true };
                if held != content {
                    return false;
                }
                inode.kill_ids = false;
                inode.based = version;
                if let Some(draft) = &mut inode.draft {
                    draft.commit(commit.generation, content);
                }
            }
            // What was written since is in no conflict yet, and will be.
            Committed::Conflict
                if inode.draft.as_ref().is_some_and(|it| it.is_newer(commit.generation)) => {}
            Committed::Conflict => {
                // It is kept in the conflict; here is what the Volume has.
                inode.draft = None;
                inode.overtaken = false;
                if inode.lose_its_name(&mut self.fresh) {
                    inode.refused = true;
                } else if let Is::Gone(gone) = &mut inode.is {
                    gone.unseen = None;
                }
            }
        }
        if let Some(inode) = self.inodes.get_mut(&ino)
            && inode.draft.as_ref().is_some_and(|draft| !draft.is_dirty())
        {
            // All that is in it is in the tree.
            inode.draft = None;
        }
        self.sweep(ino);
        true
    }

    /// Nobody waits for a commit any more. Once it was sent, it may be done all the same, and is
    /// known by what it brings then.
    pub(crate) fn give_up_commit(&mut self, ino: Ino) {
        let attempts = self.inodes.get(&ino).map(|inode| &inode.committing);
        let last = attempts.and_then(|attempts| attempts.last());
        if last.is_some_and(|attempt| attempt.content.is_none()) {
            self.abandon_commit(ino);
        }
    }

    /// Nothing came of a commit; what was written stays, and is tried again. A new file whose
    /// place was taken meanwhile is the file that is there.
    pub(crate) fn abandon_commit(&mut self, ino: Ino) {
        let Some(inode) = self.inodes.get_mut(&ino) else { return };
        let Some(last) = inode.committing.pop() else { return };
        let mut ended = vec![last];
        if last.content.is_some() {
            // It was answered, and what was sent before it, too.
            ended.append(&mut inode.committing);
        }
        if let Some(draft) = &mut inode.draft {
            ended.iter().for_each(|attempt| draft.abandon_commit(attempt.generation));
        }
        if !inode.committing.is_empty() {
            return;
        }
        let by_replica = std::mem::take(&mut inode.contested);
        if let Is::Fresh(fresh) = &inode.is
            && let Some(id) = self.tree.at_place(&fresh.at)
        {
            self.adopt_as(ino, id, by_replica);
        }
    }

    /// A new file is a node of the tree now.
    pub(super) fn became(&mut self, ino: Ino, node: NodeId) {
        let Some(inode) = self.inodes.get_mut(&ino) else { return };
        if let Is::Fresh(fresh) = &inode.is {
            self.fresh.remove(&fresh.at);
            inode.is = Is::Node(node);
            self.aliases.insert(node, ino);
            self.nodes.insert(ino, node);
        }
    }

    /// Gives up a new file that was never committed: its name is taken away.
    pub(crate) fn drop_fresh(&mut self, ino: Ino) -> bool {
        let Some(inode) = self.inodes.get_mut(&ino) else { return false };
        inode.committing.is_empty() && inode.lose_its_name(&mut self.fresh)
    }
}

impl Inode {
    /// A new file is one without a name from now on. Whether it was one.
    fn lose_its_name(&mut self, all: &mut HashMap<Place, Ino>) -> bool {
        let Is::Fresh(fresh) = &self.is else { return false };
        all.remove(&fresh.at);
        self.is = Is::Gone(Box::new(gone(fresh.mode, fresh.made)));
        true
    }

    /// A commit ended, and with it those that began before. Whether it was on its way.
    pub(super) fn ended(&mut self, which: impl Fn(&Attempt) -> bool) -> bool {
        let at = self.committing.iter().rposition(which);
        at.is_some_and(|at| self.committing.drain(..=at).count() > 0)
    }
}

/// What is left of a file that no journal knew.
fn gone(mode: u32, made: Time) -> Gone {
    let attributes = s0_tree::Attributes { mode, uid: 0, gid: 0, mtime: made, xattrs: None };
    let kind = Kind::File(Content::empty());
    let node = Node { version: Seq(0), changed: made, attributes, places: Vec::new(), kind };
    Gone { node, unseen: None }
}
