//! Who made what the Volume has and the disk has not yet.
//!
//! The tree says what there is, not whose it is; holds and the review have to know.
//! The journal says it while it is followed. After a start, what came since the disk
//! last had all of it is read again for this; what is not in there is asked for.

use std::collections::{BTreeMap, HashMap};

use s0_tree::{Actor, Entry, NodeId, Op, Place, Seq, Tree};

use super::applied::is_by_user;
use super::{Effect, Replica};
use crate::disk::Disk;
use crate::state::{Remote, Store};

/// What is known of authors.
#[derive(Debug, Default)]
pub(super) struct Authors {
    /// Of a node, which version of it is whose.
    nodes: HashMap<NodeId, (Seq, Actor)>,
    /// Who made entries, of which that was asked; nothing while it was only asked.
    asked: BTreeMap<Seq, Option<Option<Actor>>>,
    /// Everything since the disk last had all of the Volume was read, so that what is
    /// not known is little, and is asked for.
    is_complete: bool,
}

impl Authors {
    /// Notes whose an entry is, which `tree` has folded. Who only renames, or changes
    /// modes, of what has not come yet takes over nobody's content.
    fn note(&mut self, tree: &Tree, entry: &Entry, is_here: impl Fn(NodeId, Seq) -> bool) {
        let brings = entry.content().is_some() || matches!(entry.op, Op::Create { .. });
        let displaced = match &entry.op {
            Op::Rename { displaced, .. } => *displaced,
            _ => None,
        };
        for node in [Some(entry.node()), displaced].into_iter().flatten() {
            let version = tree.node(node).map_or(entry.seq, |node| node.version);
            let actor = match self.nodes.get(&node) {
                Some((seq, other))
                    if !brings && !is_by_user(Some(other)) && !is_here(node, *seq) =>
                {
                    other.clone()
                }
                _ => entry.actor.clone(),
            };
            self.nodes.insert(node, (version, actor));
        }
    }
}

impl<D: Disk, S: Store> Replica<D, S> {
    /// Notes whose entries are, which the tree of the Volume has folded.
    pub(super) fn note_authors<'a>(&mut self, entries: impl IntoIterator<Item = &'a Entry>) {
        let Some(tree) = &self.remote else { return };
        let synced = &self.state.synced;
        for entry in entries {
            self.authors.note(tree, entry, |node, seq| {
                let row = synced.home(node).and_then(|home| synced.get(home));
                row.is_some_and(|row| row.version >= seq)
            });
        }
    }

    /// The Volume's tree came as a whole, with what was made since the disk last had
    /// all of it, if that is retained.
    pub(super) fn start_authors(&mut self, since: Option<&[Entry]>) {
        self.authors = Authors { is_complete: since.is_some(), ..Authors::default() };
        self.note_authors(since.unwrap_or_default());
    }

    /// Where to read on from, to know the authors of what is not here yet.
    pub(super) fn authors_after(&self, told: Seq) -> Option<Seq> {
        let facts = &self.state.facts;
        (self.config.review && facts.initialised).then(|| told.min(facts.cursor))
    }

    /// Who made what the Volume has at a place, or took away what it had.
    pub(super) fn author_of(&self, place: &Place) -> Option<Actor> {
        let remote = self.remote_at(place);
        let node = remote.as_ref().map(|remote| remote.node);
        let node = node.or_else(|| self.row(place).map(|row| row.node))?;
        let known = self.authors.nodes.get(&node);
        let Some(remote) = remote else { return known.map(|(_, actor)| actor.clone()) };
        let known = known.filter(|(version, _)| *version == remote.version);
        let asked = || self.authors.asked.get(&remote.version)?.clone().flatten();
        known.map(|(_, actor)| actor.clone()).or_else(asked)
    }

    /// Whether it is worth waiting for the answer who made this.
    pub(super) fn awaits_author(&mut self, remote: &Remote) -> bool {
        let wanted = self.config.review && self.authors.is_complete && !remote.what.is_directory();
        wanted && {
            self.ask_author(remote.node, remote.version);
            self.authors.asked.get(&remote.version).is_some_and(Option::is_none)
        }
    }

    /// Asks once who made a version of a node.
    pub(super) fn ask_author(&mut self, node: NodeId, entry: Seq) {
        let path = self.remote.as_ref().and_then(|tree| tree.path_of(node));
        let Some(path) = path.filter(|_| !self.authors.asked.contains_key(&entry)) else { return };
        self.authors.asked.insert(entry, None);
        self.effects.push_back(Effect::Author(path, entry));
    }

    /// It is known, or nobody knows.
    pub(super) fn author(&mut self, entry: Seq, actor: Option<Actor>) {
        self.authors.asked.insert(entry, Some(actor));
        self.stir();
    }

    /// What was asked and not answered is asked again.
    pub(super) fn forget_asked_authors(&mut self) {
        self.authors.asked.retain(|_, answer| answer.is_some());
    }

    /// The disk has all of the Volume.
    pub(super) fn forget_authors(&mut self) {
        self.authors.nodes.clear();
        self.authors.asked.clear();
    }
}
