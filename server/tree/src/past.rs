//! What a tree was some entries ago, from its journal alone.

use std::collections::HashMap;

use crate::content::Content;
use crate::entry::{Entry, FORMAT, Op};
use crate::fold::Misfit;
use crate::node::{Node, NodeId, Place, Seq};
use crate::path::TreePath;
use crate::tree::Tree;

/// A tree as it was before its last entries, which are taken back one by one, the
/// newest first.
///
/// Where things were is known exactly: entries say all that they moved. What a
/// file held is known where no entry that was taken back has changed it since; what was
/// written over is in an older entry, or in a checkpoint.
#[derive(Debug, Clone)]
pub struct Past {
    head: Tree,
    seq: Seq,
    /// What was at the places that entries changed.
    places: HashMap<Place, Option<NodeId>>,
    changed: HashMap<NodeId, Changed>,
}

/// The oldest entries, of those that were taken back, that changed a node.
#[derive(Debug, Clone, Copy, Default)]
struct Changed {
    content: Option<Seq>,
    mode: Option<Seq>,
}

/// What is known of a node at one moment.
pub(crate) struct Known<'a> {
    /// The node in some tree. Its kind never changes, nor does a link's target.
    pub(crate) node: Option<&'a Node>,
    pub(crate) content: Option<Content>,
    pub(crate) mode: Option<u32>,
}

impl Past {
    /// Begins with a tree as it is.
    #[must_use]
    pub fn new(head: Tree) -> Self {
        let seq = head.head();
        Self { head, seq, places: HashMap::new(), changed: HashMap::new() }
    }

    /// The seq after which things were as this says.
    #[must_use]
    pub fn seq(&self) -> Seq {
        self.seq
    }

    /// Takes back the entry at [`Past::seq`].
    ///
    /// # Errors
    /// It is another entry, or one of a newer program; nothing is changed then.
    pub fn take_back(&mut self, entry: &Entry) -> Result<(), Misfit> {
        if entry.format > FORMAT {
            return Err(Misfit::Format(entry.seq, entry.format));
        }
        if entry.seq != self.seq || self.seq == Seq(0) {
            return Err(Misfit::Gap { head: self.seq, found: entry.seq });
        }
        match &entry.op {
            Op::Create { at, .. } | Op::Link { at, .. } => {
                self.places.insert(at.clone(), None);
            }
            Op::Remove { node, at } => {
                self.places.insert(at.clone(), Some(*node));
            }
            Op::Rename { node, from, to, displaced, .. } => {
                self.places.insert(from.clone(), Some(*node));
                self.places.insert(to.clone(), *displaced);
            }
            Op::Write { .. } | Op::Append { .. } | Op::Truncate { .. } | Op::Attributes { .. } => {}
        }
        let (content, mode) = (entry.content().is_some(), entry.mode().is_some());
        if content || mode {
            let changed = self.changed.entry(entry.node()).or_default();
            changed.content = if content { Some(entry.seq) } else { changed.content };
            changed.mode = if mode { Some(entry.seq) } else { changed.mode };
        }
        self.seq = Seq(entry.seq.0 - 1);
        Ok(())
    }

    /// The node that was at `path`.
    #[must_use]
    pub fn lookup(&self, path: &TreePath) -> Option<NodeId> {
        path.names().try_fold(NodeId::ROOT, |parent, name| {
            let place = Place { parent, name };
            match self.places.get(&place) {
                Some(was) => *was,
                None => self.head.at_place(&place),
            }
        })
    }

    /// What is known of a node, as far as the tree at the head says it.
    pub(crate) fn known(&self, node: NodeId) -> Known<'_> {
        self.known_from(&self.head, node)
    }

    /// What a tree of the same journal, not older than this, says of a node as it
    /// was at this moment.
    pub(crate) fn known_from<'a>(&self, tree: &'a Tree, id: NodeId) -> Known<'a> {
        let (node, (content, mode)) = (tree.node(id), self.is_still(id, tree.head()));
        Known {
            node,
            content: node.filter(|_| content).and_then(Node::content),
            mode: node.filter(|_| mode).map(|node| node.attributes.mode),
        }
    }

    /// Whether a node's content and its mode after `seq` are what they were at this
    /// moment. Of the entries in between the oldest that changed them is known; when
    /// that is newer than `seq`, all are.
    pub(crate) fn is_still(&self, node: NodeId, seq: Seq) -> (bool, bool) {
        let changed = self.changed.get(&node).copied().unwrap_or_default();
        let still = |change: Option<Seq>| change.is_none_or(|change| seq < change);
        (still(changed.content), still(changed.mode))
    }
}
