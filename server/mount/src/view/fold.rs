//! What the journal brings, and what becomes stale by it.

use std::ffi::OsStr;

use s0_tree::{Entry, Misfit, Name, NodeId, Op, Place, RenameHow, Source, fold};

use super::{Is, View};
use crate::kernel::request::Ino;

/// Something that the kernel must not go by any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stale {
    /// A node's attributes, and with `contents` its bytes.
    Node { ino: Ino, contents: bool },
    /// A name: what it stands for, or that it stands for nothing.
    Name { parent: Ino, name: Name },
}

impl View {
    /// Folds an entry in. Gives what the kernel must look at again: of what others did
    /// all, of what was done here nothing, since the kernel did it.
    pub(crate) fn fold(&mut self, entry: &Entry) -> Result<Vec<Stale>, Misfit> {
        let own = entry.actor.replica.as_deref() == Some(&*self.session);
        self.keep_what_goes(&entry.op);
        fold(&mut self.tree, entry)?;
        self.adopt(entry, own);
        self.carry_over(entry, own);
        Ok(if own { Vec::new() } else { self.stale(&entry.op) })
    }

    /// Keeps nodes that lose their last name while they are open here, or known.
    fn keep_what_goes(&mut self, op: &Op) {
        let going = match op {
            Op::Remove { node, .. } => Some(*node),
            Op::Rename { how: RenameHow::Replace, displaced, .. } => *displaced,
            _ => None,
        };
        let Some(id) = going else { return };
        let ino = self.ino(id);
        let Some(node) = self.tree.node(id).filter(|node| node.places.len() == 1) else { return };
        if let Some(inode) = self.inodes.get_mut(&ino) {
            let mut kept = node.clone();
            kept.places.clear();
            inode.is = Is::Gone(Box::new(kept));
        }
        self.aliases.remove(&id);
        self.nodes.remove(&ino);
    }

    /// Where a node has come to the place of a new file of this mount, that file is the
    /// node: from here the last who writes wins, as with any file that two make.
    fn adopt(&mut self, entry: &Entry, own: bool) {
        let come: Vec<&Place> = match &entry.op {
            Op::Create { at, .. } | Op::Link { at, .. } => vec![at],
            Op::Rename { from, to, how, .. } => match how {
                RenameHow::Exchange => vec![from, to],
                _ => vec![to],
            },
            _ => Vec::new(),
        };
        for place in come {
            let Some(ino) = self.fresh.get(place).copied() else { continue };
            let Some(id) = self.tree.at_place(place) else { continue };
            let is_file = self.tree.node(id).is_some_and(|node| node.content().is_some());
            if self.aliases.contains_key(&id) || !is_file {
                // Something else stands there now. The new file's commit is refused.
                continue;
            }
            self.became(ino, id);
            let version = self.tree.node(id).map(|node| node.version);
            if let Some(inode) = self.inodes.get_mut(&ino) {
                inode.based = version.unwrap_or(inode.based);
                inode.overtaken |= !own && entry.source == Source::Replica;
                if !own && let Some(draft) = &mut inode.draft {
                    // It began as an empty file, whatever the other holds.
                    draft.begin_empty();
                }
            }
        }
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
            // A change of something else: the content is as it was.
            inode.based = entry.seq;
            return;
        };
        if own {
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
            }
            Op::Attributes { node, .. } => self.stale_node(*node, false, &mut stale),
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
