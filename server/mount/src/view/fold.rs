//! What the journal brings, and what becomes stale by it.

use std::ffi::OsStr;

use s0_tree::{
    Entry, Kind, Misfit, Name, New, NodeId, Op, Place, RenameHow, Seq, Source, Time, fold,
};

use super::{Attempt, Gone, Is, Unseen, View};
use crate::draft::Draft;
use crate::echo::{At, Echo};
use crate::kernel::request::Ino;

/// Something that the kernel must not go by any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stale {
    /// A node's attributes, and with `contents` its bytes.
    Node { ino: Ino, contents: bool },
    /// A name: what it stands for, or that it stands for nothing.
    Name { parent: Ino, name: Name },
}

/// The places to which an operation brings a node.
fn places_taken(op: &Op) -> Vec<&Place> {
    match op {
        Op::Create { at, .. } | Op::Link { at, .. } => vec![at],
        Op::Rename { from, to, how: RenameHow::Exchange, .. } => vec![from, to],
        Op::Rename { to, .. } => vec![to],
        _ => Vec::new(),
    }
}

/// What an entry of others means to the kernel.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct News {
    /// It was done here: the kernel has done it, and nobody waits for that.
    pub(crate) is_own: bool,
    pub(crate) stale: Vec<Stale>,
    /// The same as something to be done once more.
    pub(crate) echo: Option<Echo>,
}

impl View {
    /// Folds an entry in. Gives what the kernel must look at again: of what others did
    /// all, of what was done here nothing, since the kernel did it.
    pub(crate) fn fold(&mut self, entry: &Entry) -> Result<News, Misfit> {
        let own = entry.actor.replica.as_deref() == Some(&*self.session);
        let before = if own { None } else { self.echo_of_removal(&entry.op) };
        self.keep_what_goes(&entry.op, !own && entry.source == Source::Replica);
        let meets = places_taken(&entry.op).into_iter().find_map(|at| self.fresh.get(at).copied());
        let told = own.then(|| self.told_of(&entry.op)).flatten();
        fold(&mut self.tree, entry)?;
        if !self.adopt(entry, own) {
            self.carry_over(entry, own);
        }
        self.follow_displaced(&entry.op);
        if let Some((ino, time)) = told
            && let Some(inode) = self.inodes.get_mut(&ino)
        {
            inode.changed = Some((entry.seq, time));
        }
        if own {
            return Ok(News { is_own: true, ..News::default() });
        }
        let mut stale = self.stale(&entry.op);
        if let Some(ino) = meets {
            // The kernel knows the name as that of the new file, which it is one with now, or
            // which is on its way. To make it once more would make another of it.
            stale.retain(|stale| stale.directory().is_none());
            stale.push(Stale::Node { ino, contents: true });
            return Ok(News { is_own: false, stale, echo: None });
        }
        let echo = if stale.is_empty() { None } else { before.or_else(|| self.echo(&entry.op)) };
        Ok(News { is_own: false, stale, echo })
    }

    /// What was told here of when a file changed that is committed now.
    fn told_of(&self, op: &Op) -> Option<(Ino, Time)> {
        let ino = match op {
            Op::Create { at, .. } => *self.fresh.get(at)?,
            Op::Write { node, .. } => self.ino(*node),
            _ => return None,
        };
        self.inodes.get(&ino)?.draft.as_ref()?;
        Some((ino, self.attr(ino).ok()?.ctime))
    }

    fn at(&self, place: &Place) -> Option<At> {
        let path = self.tree.path_of_place(place)?;
        Some(At { parent: self.ino(place.parent), name: place.name.clone(), path })
    }

    /// What takes a node away is told by what it was before.
    fn echo_of_removal(&mut self, op: &Op) -> Option<Echo> {
        match op {
            Op::Remove { node, at } => {
                let (at, attr) = (self.at(at)?, self.attr(self.ino(*node)).ok()?);
                // The kernel may have to be told of it once more, though it is gone.
                self.inode(attr.ino).ok()?;
                Some(Echo::Removed { at, attr })
            }
            Op::Rename { node, from, to, how, displaced } => {
                let attr = self.attr(self.ino(*node)).ok()?;
                let over = match displaced {
                    Some(over) => Some(self.attr(self.ino(*over)).ok()?),
                    None => None,
                };
                for attr in [Some(&attr), over.as_ref()].into_iter().flatten() {
                    self.inode(attr.ino).ok()?;
                }
                let (from, to) = (self.at(from)?, self.at(to)?);
                Some(match (how, over) {
                    (RenameHow::Exchange, Some(back)) => {
                        Echo::Exchanged { one: from, other: to, moved: attr, back }
                    }
                    (_, over) => Echo::Moved { from, to, attr, over },
                })
            }
            _ => None,
        }
    }

    fn echo(&self, op: &Op) -> Option<Echo> {
        match op {
            Op::Create { at, what, .. } => {
                let attr = self.attr(self.ino(self.tree.at_place(at)?)).ok()?;
                let target = match what {
                    New::Symlink { target } => Some(target.to_string()),
                    _ => None,
                };
                Some(Echo::Made { at: self.at(at)?, attr, target })
            }
            Op::Link { node, at } => {
                let place = self.tree.node(*node)?.places.iter().find(|place| *place != at)?;
                let existing = self.tree.path_of_place(place)?;
                Some(Echo::Linked { at: self.at(at)?, existing, ino: self.ino(*node) })
            }
            Op::Write { node, .. } | Op::Append { node, .. } | Op::Truncate { node, .. } => {
                let at = self.at(self.tree.node(*node)?.places.first()?)?;
                Some(Echo::Written { at, ino: self.ino(*node) })
            }
            Op::Attributes { node, .. } => {
                let found = self.tree.node(*node)?;
                if matches!(found.kind, Kind::Symlink(_)) {
                    return None;
                }
                let at = self.at(found.places.first()?)?;
                let (ino, mode) = (self.ino(*node), found.attributes.mode);
                Some(Echo::Touched { at, ino, mode })
            }
            Op::Rename { .. } | Op::Remove { .. } => None,
        }
    }

    /// Keeps nodes that lose their last name while they are open here, or known. What a replica
    /// takes away has not seen what is written here and not committed.
    fn keep_what_goes(&mut self, op: &Op, unseen: bool) {
        let going = match op {
            Op::Remove { node, .. } => Some(*node),
            Op::Rename { how: RenameHow::Replace, displaced, .. } => *displaced,
            _ => None,
        };
        let Some(id) = going else { return };
        let ino = self.ino(id);
        let Some(node) = self.tree.node(id).filter(|node| node.places.len() == 1) else { return };
        let path = self.tree.path_of(id).filter(|_| unseen);
        if let Some(inode) = self.inodes.get_mut(&ino) {
            let mut node = node.clone();
            node.places.clear();
            let dirty = inode.draft.as_ref().is_some_and(Draft::is_dirty);
            let path = path.clone().filter(|_| dirty);
            let unseen = path.map(|path| Unseen { path, id, version: inode.based });
            inode.is = Is::Gone(Box::new(Gone { node, unseen }));
        }
        if let Some(path) = path {
            for (place, ino) in self.fresh.iter().filter(|(place, _)| place.parent == id) {
                if let Some(Is::Fresh(fresh)) = self.inodes.get_mut(ino).map(|it| &mut it.is) {
                    fresh.orphaned = Some(path.join(&place.name));
                }
            }
        }
        self.aliases.remove(&id);
        self.nodes.remove(&ino);
    }

    /// Where a file of others has come to the place of a new one of this mount, they are one:
    /// what was written here is over what it holds. Whether that was so.
    fn adopt(&mut self, entry: &Entry, own: bool) -> bool {
        let come = places_taken(&entry.op);
        let mut adopted = false;
        for place in come {
            let Some(ino) = self.fresh.get(place).copied() else { continue };
            let Some(id) = self.tree.at_place(place) else { continue };
            let brings = |attempt: &Attempt| attempt.content == entry.content();
            let is_commit = matches!(entry.op, Op::Create { what: New::File { .. }, .. })
                && self.inodes.get(&ino).is_some_and(|inode| inode.committing.iter().any(brings));
            if own && is_commit {
                self.became(ino, id);
                continue;
            }
            // Something else of this mount's that came late is as what others do.
            let by_replica = entry.source == Source::Replica;
            match self.inodes.get_mut(&ino) {
                // Its commit is on its way, and may still find the place free.
                Some(inode) if !inode.committing.is_empty() => inode.contested |= by_replica,
                _ => adopted |= self.adopt_as(ino, id, by_replica),
            }
        }
        adopted
    }

    /// Whether a new file can be one with a node: it is a file, and has no number here yet.
    pub(super) fn is_adoptable(&self, id: NodeId) -> bool {
        let is_file = self.tree.node(id).is_some_and(|node| node.content().is_some());
        is_file && !self.aliases.contains_key(&id) && !self.inodes.contains_key(&self.ino(id))
    }

    /// Makes a new file one with a node of others.
    pub(super) fn adopt_as(&mut self, ino: Ino, id: NodeId, by_replica: bool) -> bool {
        if !self.is_adoptable(id) {
            return false;
        }
        let node = self.tree.node(id).map(|node| (node.version, node.content()));
        let Some((version, Some(content))) = node else { return false };
        self.became(ino, id);
        if let Some(inode) = self.inodes.get_mut(&ino) {
            // What a developer made unseen is not written over: with whatever version there is,
            // that is a conflict.
            let is_over = !by_replica
                && inode.draft.as_mut().is_none_or(|draft| draft.rebase(content).is_ok());
            inode.based = if is_over { version } else { Seq(0) };
            inode.overtaken |= !is_over;
        }
        true
    }

    /// Drafts follow what happens to their files.
    fn carry_over(&mut self, entry: &Entry, own: bool) {
        let id = entry.node();
        let ino = self.ino(id);
        let Some(inode) = self.inodes.get_mut(&ino) else { return };
        let (Some(draft), false) = (&mut inode.draft, matches!(inode.is, Is::Gone(_))) else {
            return;
        };
        let Some(content) = entry.content() else {
            // A change of something else: the content is as it was, unless it was another's.
            if !inode.overtaken {
                inode.based = entry.seq;
            }
            return;
        };
        if own {
            // At once: what others write next is over it. It may be one that nobody waits for any
            // more, while another is on its way that brings what was written since.
            let brings = |attempt: &Attempt| attempt.content == Some(content);
            if let Some(attempt) = inode.committing.iter().rfind(|it| brings(it)) {
                draft.commit(attempt.generation, content);
                inode.kill_ids = false;
                inode.ended(brings);
            }
            inode.based = entry.seq;
        } else if entry.source == Source::Replica && draft.is_dirty() {
            inode.overtaken = true;
        } else if draft.rebase(content).is_ok() {
            inode.based = entry.seq;
        } else {
            // What is here cannot be put over it, so it is not: see the conflict.
            inode.overtaken = true;
        }
    }

    /// What a rename exchanges with its node, or takes one of several names from, is of another
    /// version then; its content is as it was.
    fn follow_displaced(&mut self, op: &Op) {
        let Op::Rename { displaced: Some(id), .. } = op else { return };
        let version = self.tree.node(*id).map(|node| node.version);
        if let (Some(version), Some(inode)) = (version, self.inodes.get_mut(&self.ino(*id)))
            && inode.draft.is_some()
            && !inode.overtaken
        {
            inode.based = version;
        }
    }

    /// What of the kernel's knowledge an entry of others ends.
    fn stale(&self, op: &Op) -> Vec<Stale> {
        let mut stale = Vec::new();
        match op {
            Op::Create { at, .. } => self.stale_place(at, &mut stale),
            Op::Link { node, at } | Op::Remove { node, at } => {
                self.stale_place(at, &mut stale);
                self.stale_node(*node, false, &mut stale);
            }
            Op::Write { node, .. } | Op::Append { node, .. } | Op::Truncate { node, .. } => {
                self.stale_node(*node, true, &mut stale);
                self.stale_above(*node, &mut stale);
            }
            Op::Attributes { node, .. } => {
                self.stale_node(*node, false, &mut stale);
                self.stale_above(*node, &mut stale);
            }
            Op::Rename { node, from, to, displaced, .. } => {
                self.stale_place(from, &mut stale);
                self.stale_place(to, &mut stale);
                self.stale_node(*node, false, &mut stale);
                if let Some(other) = displaced {
                    self.stale_node(*other, false, &mut stale);
                }
            }
        }
        stale
    }

    fn stale_place(&self, at: &Place, stale: &mut Vec<Stale>) {
        let parent = self.ino(at.parent);
        if self.is_known(parent) {
            stale.push(Stale::Name { parent, name: at.name.clone() });
            // The list of its names, and its times.
            stale.push(Stale::Node { ino: parent, contents: true });
        }
    }

    fn stale_node(&self, node: NodeId, contents: bool, stale: &mut Vec<Stale>) {
        let ino = self.ino(node);
        if self.is_known(ino) {
            stale.push(Stale::Node { ino, contents });
        }
    }

    /// A file that the kernel does not know has nothing stale, but who watches its directory
    /// is to hear of it.
    fn stale_above(&self, node: NodeId, stale: &mut Vec<Stale>) {
        let above = self.tree.node(node).and_then(|node| node.places.first());
        if let Some(place) = above.filter(|_| stale.is_empty()) {
            let ino = self.ino(place.parent);
            if self.is_known(ino) {
                stale.push(Stale::Node { ino, contents: false });
            }
        }
    }

    /// All that the kernel knows: for a mount that has lost touch.
    pub(crate) fn all_known(&self) -> Vec<Stale> {
        let known = self.inodes.iter().filter(|(_, inode)| inode.lookups > 0);
        let mut stale: Vec<Stale> = vec![Stale::Node { ino: Ino::ROOT, contents: true }];
        for (ino, inode) in known {
            stale.push(Stale::Node { ino: *ino, contents: true });
            let places = match &inode.is {
                Is::Node(id) => self.tree.node(*id).map_or(&[][..], |node| &node.places),
                Is::Fresh(fresh) => std::slice::from_ref(&fresh.at),
                Is::Gone(_) => &[],
            };
            stale.extend(
                places
                    .iter()
                    .map(|at| Stale::Name { parent: self.ino(at.parent), name: at.name.clone() }),
            );
        }
        stale
    }
}

impl Stale {
    /// The directory that the kernel must have to itself to hear this.
    pub(crate) fn directory(&self) -> Option<Ino> {
        match self {
            Self::Name { parent, .. } => Some(*parent),
            Self::Node { .. } => None,
        }
    }

    /// The message to the kernel.
    pub(crate) fn message(&self) -> Vec<u8> {
        use crate::kernel::answer::{stale_name, stale_node};
        match self {
            Self::Node { ino, contents } => stale_node(*ino, *contents),
            Self::Name { parent, name } => stale_name(*parent, OsStr::new(name.as_str())),
        }
    }
}
