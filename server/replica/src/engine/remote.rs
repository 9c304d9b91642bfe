//! The Volume's side: connection, journal, tree, epoch.

use std::collections::BTreeMap;
use std::sync::Arc;

use s0_api::sync::Registered;
use s0_tree::{Entry, Name, Node, NodeId, Place, Tree, TreePath, fold};

use super::{Done, Effect, Init, Link, Local, Notice, Replica};
use crate::disk::Disk;
use crate::state::{Facts, Record, Row, Store};

impl<D: Disk, S: Store> Replica<D, S> {
    /// Connected: follow the journal where it can be followed, and fetch the
    /// tree where it cannot.
    pub(super) fn online(&mut self, registered: &Registered) -> Done {
        if self.link == Link::Offline {
            self.notice(Notice::Connection(true));
        }
        self.link = Link::Joining;
        self.sending = None;
        let known = self.state.facts.epoch.as_deref() == Some(registered.epoch.as_str());
        let head = self.remote.as_ref().map(Tree::head);
        self.rewound |= known && registered.head < head.unwrap_or(self.state.facts.cursor);
        match head {
            Some(head) if known && !self.rewound => {
                self.link = Link::Following;
                self.effects.push_back(Effect::Follow(head));
            }
            _ => {
                self.told_cursor = registered.cursor;
                let since =
                    self.authors_after(registered.cursor).filter(|_| known && !self.rewound);
                self.effects.push_back(Effect::FetchTree { since });
            }
        }
        if known && registered.last_number > self.state.facts.number {
            // The state database is older than what the service remembers of
            // us; its numbers must not be used again.
            let facts = Facts { number: registered.last_number, ..self.state.facts.clone() };
            self.commit(vec![Record::Facts(facts)], true)?;
        }
        for (id, settlement) in self.state.settled.clone() {
            self.effects.push_back(Effect::Settle(id, settlement));
        }
        Ok(())
    }

    pub(super) fn offline(&mut self) {
        self.forget_asked_authors();
        if self.link != Link::Offline {
            self.notice(Notice::Connection(false));
        }
        self.link = Link::Offline;
        self.sending = None;
        self.uploading.clear();
        let slots: Vec<_> = self.active.values().copied().collect();
        for slot in slots {
            // Whatever was being fetched is asked for again.
            if !self.ready.contains_key(&slot) {
                self.fetched(slot, super::Fetched::Failed);
            }
        }
    }

    /// Takes the Volume's whole tree: at the start, and whenever the journal
    /// cannot be followed. Every place that is not as synced is considered;
    /// nothing is cleared.
    pub(super) fn take_tree(&mut self, epoch: String, tree: Tree, since: Option<&[Entry]>) -> Done {
        if self.link == Link::Offline {
            return Ok(());
        }
        let other_epoch = self.state.facts.epoch.as_ref().is_some_and(|known| *known != epoch);
        let anew = other_epoch || self.rewound;
        let older = self.remote.as_ref().is_some_and(|old| tree.head() < old.head());
        if !anew && older {
            return Ok(());
        }
        self.rewound = false;
        let head = tree.head();
        self.remote = Some(tree);
        let facts = Facts { epoch: Some(epoch), cursor: head, ..self.state.facts.clone() };
        if anew {
            // Its versions have the numbers of others.
            self.holds.forget_let_in();
            self.match_anew(facts)?;
            self.start_authors(None);
        } else {
            self.start_authors(since);
            self.commit(vec![Record::Facts(facts)], false)?;
        }
        self.link = Link::Following;
        self.effects.push_back(Effect::Follow(head));
        self.consider_everything();
        if !self.disk.abilities().case_preserving {
            // Only now is it known how the Volume spells what is on the disk.
            self.touch(TreePath::root(), self.now, true);
        }
        Ok(())
    }

    /// Considers each place at which Volume and synced differ.
    pub(super) fn consider_everything(&mut self) {
        let Some(tree) = &self.remote else { return };
        let mut places = Vec::new();
        let directories = std::iter::once(NodeId::ROOT).chain(tree.nodes().map(|(id, _)| id));
        for parent in directories {
            self.differing(tree, parent, |name| places.push(Place { parent, name: name.clone() }));
        }
        for (parent, rows) in self.state.synced.directories() {
            if tree.node(parent).and_then(Node::directory).is_none() {
                places.extend(rows.map(|(name, _)| Place { parent, name: name.clone() }));
            }
        }
        for place in places {
            self.incoming.insert(place);
        }
        self.stir();
    }

    /// Gives the names in one of the Volume's directories at which Volume and synced
    /// differ. Both have them in one order, so that each is looked at once.
    fn differing(&self, tree: &Tree, parent: NodeId, mut give: impl FnMut(&Name)) {
        let Some(directory) = tree.node(parent).and_then(Node::directory) else { return };
        let mut rows = self.state.synced.children(parent).peekable();
        for (name, id) in directory.iter() {
            while let Some((gone, _)) = rows.next_if(|(other, _)| *other < name) {
                give(gone);
            }
            let row = rows.next_if(|(other, _)| *other == name).map(|(_, row)| row);
            let agreed = row.zip(tree.node(id)).is_some_and(|(row, node)| {
                row.node == id
                    && row.version == node.version
                    && self.same_mode(&row.what, row.mode, node.attributes.mode)
            });
            if !agreed {
                give(name);
            }
        }
        rows.for_each(|(gone, _)| give(gone));
    }

    /// The journal was brought back from a backup: versions and ids mean
    /// nothing any more. What is equal is matched by content; of the rest
    /// nothing is agreed on, so that nothing is removed and nothing overwritten.
    fn match_anew(&mut self, facts: Facts) -> Done {
        let rows: BTreeMap<TreePath, (Place, Row)> = self
            .state
            .synced
            .iter()
            .filter_map(|(place, row)| Some((self.disk_path(&place)?, (place, row.clone()))))
            .collect();
        let mut records: Vec<_> =
            self.state.synced.iter().map(|(place, _)| Record::Synced(place, None)).collect();
        let mut directories: BTreeMap<TreePath, NodeId> = BTreeMap::new();
        directories.insert(TreePath::root(), NodeId::ROOT);
        let mut by_depth: Vec<_> = rows.into_iter().collect();
        by_depth.sort_by_key(|(path, _)| path.depth());
        for (path, (_, row)) in by_depth {
            let Some((above, name)) = path.split() else { continue };
            let Some(parent) = directories.get(&above).copied() else { continue };
            let place = Place { parent, name };
            let Some(remote) = self.remote_at(&place) else { continue };
            if remote.what != row.what || !self.same_mode(&row.what, row.mode, remote.mode) {
                continue;
            }
            if remote.what.is_directory() {
                directories.insert(path, remote.node);
            }
            let row = Row { node: remote.node, version: remote.version, ..row };
            records.push(Record::Synced(place, Some(row)));
        }
        for path in self.state.conflicts.keys() {
            records.push(Record::Conflict(path.clone(), None));
        }
        records.push(Record::Outgoing(None));
        records.push(Record::Facts(facts));
        self.in_flight.clear();
        self.moved.clear();
        self.changed.clear();
        self.bytes.clear();
        self.bytes_held = 0;
        self.incoming.clear();
        self.waiting.clear();
        self.uploaded.clear();
        for slot in self.active.values().copied().collect::<Vec<_>>() {
            self.abandon(slot, false)?;
        }
        self.commit(records, true)?;
        self.touch(TreePath::root(), self.now, true);
        Ok(())
    }

    /// Folds the next entries into remote, and notes the places that they touch.
    pub(super) fn take_entries(&mut self, entries: Vec<(Entry, Option<Arc<[u8]>>)>) {
        if self.link != Link::Following {
            return;
        }
        for (entry, bytes) in entries {
            let Some(tree) = &mut self.remote else { return };
            if entry.seq <= tree.head() {
                continue;
            }
            let before: Vec<Place> = displaced_places(tree, &entry);
            if fold(tree, &entry).is_err() {
                // A gap, or an entry of newer software: the tree as a whole
                // says what the entry would have.
                self.link = Link::Joining;
                let since = self.authors_after(self.told_cursor);
                self.effects.push_back(Effect::FetchTree { since });
                return;
            }
            let places = tree.node(entry.node()).map(|node| node.places.clone());
            self.note_authors([&entry]);
            for place in before.into_iter().chain(entry.places()).chain(places.unwrap_or_default())
            {
                self.waiting.remove(&place);
                self.incoming.insert(place);
            }
            if let (Some(content), Some(bytes)) = (entry.content(), bytes) {
                self.keep_content(content.id, bytes);
            }
        }
        self.stir();
    }

    /// The first look through the workspace is done and the Volume is known:
    /// what the start mode says about differences is done once.
    pub(super) fn begin(&mut self) -> Done {
        if self.state.facts.initialised || self.remote.is_none() || !self.dirty.is_empty() {
            return Ok(());
        }
        let mut records = Vec::new();
        let there: Vec<TreePath> = self
            .changed
            .iter()
            .filter(|(_, local)| matches!(local, Local::There { .. }))
            .map(|(path, _)| path.clone())
            .collect();
        for path in there {
            match (self.config.init, self.remote_for(&path)) {
                (Init::Volume, None) => records.push(Record::Withheld(path, true)),
                (Init::Local, Some(remote)) => {
                    let Some(place) = self.place_at(&path) else { continue };
                    let same_kind = match self.changed.get(&path) {
                        Some(Local::There { what, .. }) => {
                            what.is_directory() == remote.what.is_directory()
                        }
                        _ => false,
                    };
                    if same_kind {
                        records.push(Record::Synced(place, Some(decided(&remote))));
                    }
                }
                _ => {}
            }
        }
        let facts = Facts { initialised: true, ..self.state.facts.clone() };
        records.push(Record::Facts(facts));
        self.commit(records, true)?;
        self.stir();
        Ok(())
    }

    /// Tells the service how far the disk has followed, when it has.
    pub(super) fn tell_cursor(&mut self) {
        let Some(tree) = &self.remote else { return };
        let head = tree.head();
        let idle = self.incoming.is_empty() && self.active.is_empty() && self.ready.is_empty();
        if self.link != Link::Following || !idle {
            return;
        }
        if self.waiting.is_empty() {
            self.forget_authors();
        }
        if head > self.told_cursor {
            self.told_cursor = head;
            self.effects.push_back(Effect::Cursor(head));
        }
    }
}

/// The row of a place at which the user decided to send what the disk holds,
/// knowing what the Volume has.
pub(super) fn decided(remote: &crate::state::Remote) -> Row {
    Row {
        node: remote.node,
        version: remote.version,
        what: remote.what.clone(),
        mode: remote.mode,
        print: None,
    }
}

/// The other places of what an entry displaces or removes: a hard-linked file's
/// version changes at all of them.
fn displaced_places(tree: &Tree, entry: &Entry) -> Vec<Place> {
    let node = match &entry.op {
        s0_tree::Op::Rename { displaced: Some(other), .. } => *other,
        s0_tree::Op::Remove { node, .. } => *node,
        _ => return Vec::new(),
    };
    tree.node(node).map(|node| node.places.clone()).unwrap_or_default()
}
