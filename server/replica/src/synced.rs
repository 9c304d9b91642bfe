//! What disk and Volume last agreed on: the rows, as a tree.
//!
//! Rows are kept by place, that is by the id of the directory's node and a
//! name, so a directory that moves takes its rows along.
//!
//! # Invariants
//!
//! - A row is in the root, or in a directory that is synced. Where nothing is
//!   agreed on about a directory, nothing is about what is in it.
//! - A directory's node is synced at one place.
//!
//! They hold after every call, whatever it was given: each says what becomes of
//! the rows that would break them.

use std::collections::{BTreeMap, HashMap, HashSet};

use s0_tree::{Name, NodeId, Place, Seq};

use crate::state::{Row, What};

/// What became of one place.
pub type RowChange = (Place, Option<Row>);

/// The rows, found by place, by node and by the inode of a directory.
#[derive(Debug, Clone, Default)]
pub struct Synced {
    rows: BTreeMap<NodeId, BTreeMap<Name, Row>>,
    places: HashMap<NodeId, Vec<Place>>,
    directories: HashMap<u64, NodeId>,
    count: usize,
    /// What has changed since this was asked last, for the store.
    changes: Vec<RowChange>,
    /// Directories that are not synced any more where they were.
    released: Vec<Released>,
}

/// A directory that is not synced any more where it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Released {
    /// The node that it was.
    pub was: NodeId,
    /// When that node is synced elsewhere now: the id that this directory goes
    /// by, with its rows. No node of the Volume has it.
    pub is: Option<NodeId>,
}

impl Synced {
    /// The rows that a store kept, in any order. What no directory leads to is
    /// let go of, and so is what cannot be: a store may be damaged.
    pub(crate) fn restore(rows: impl Iterator<Item = (Place, Row)>) -> Self {
        let mut by_parent: HashMap<NodeId, Vec<(Name, Row)>> = HashMap::new();
        for (place, row) in rows {
            by_parent.entry(place.parent).or_default().push((place.name, row));
        }
        let (mut synced, mut lost) = (Self::default(), Vec::new());
        let mut known = HashSet::from([NodeId::ROOT]);
        let mut directories = vec![NodeId::ROOT];
        while let Some(parent) = directories.pop() {
            let mut rows = Vec::new();
            for (name, row) in by_parent.remove(&parent).unwrap_or_default() {
                let place = Place { parent, name };
                let is_directory = row.what.is_directory();
                let is_second = is_directory && synced.home(row.node).is_some();
                if is_second || known.contains(&row.node) {
                    lost.push((place, None));
                    continue;
                }
                if is_directory {
                    known.insert(row.node);
                    directories.push(row.node);
                }
                synced.index(&place, &row);
                rows.push((place.name, row));
            }
            if !rows.is_empty() {
                // They come in order, and are put in at once.
                synced.rows.insert(parent, rows.into_iter().collect());
            }
        }
        for (parent, rows) in by_parent {
            lost.extend(rows.into_iter().map(|(name, _)| (Place { parent, name }, None)));
        }
        synced.changes = lost;
        synced
    }

    /// The row of a place.
    #[must_use]
    pub fn get(&self, place: &Place) -> Option<&Row> {
        self.child(place.parent, &place.name)
    }

    /// The row of a name in a directory.
    #[must_use]
    pub fn child(&self, directory: NodeId, name: &Name) -> Option<&Row> {
        self.rows.get(&directory)?.get(name)
    }

    /// The rows in a directory.
    pub fn children(&self, directory: NodeId) -> impl Iterator<Item = (&Name, &Row)> {
        self.rows.get(&directory).into_iter().flatten()
    }

    /// The directories that have rows, with these.
    pub(crate) fn directories(
        &self,
    ) -> impl Iterator<Item = (NodeId, impl Iterator<Item = (&Name, &Row)>)> {
        self.rows.iter().map(|(directory, rows)| (*directory, rows.iter()))
    }

    /// Where a node is synced; several places for a hard-linked file.
    #[must_use]
    pub fn places(&self, node: NodeId) -> &[Place] {
        self.places.get(&node).map_or(&[], Vec::as_slice)
    }

    /// The place of a synced directory; none for the root.
    #[must_use]
    pub fn home(&self, directory: NodeId) -> Option<&Place> {
        self.places(directory).first()
    }

    /// The synced directory that has this inode.
    #[must_use]
    pub fn directory_by_inode(&self, inode: u64) -> Option<NodeId> {
        self.directories.get(&inode).copied()
    }

    /// All rows.
    pub fn iter(&self) -> impl Iterator<Item = (Place, &Row)> {
        self.rows.iter().flat_map(|(parent, rows)| {
            rows.iter().map(|(name, row)| (Place { parent: *parent, name: name.clone() }, row))
        })
    }

    /// How many rows there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Notes what is agreed on at a place. Where a directory becomes another
    /// one, its rows stay in it. A directory whose node was synced elsewhere
    /// leaves a [`Released`] one there, with its rows. Nothing is noted of a
    /// place whose directory is not synced, nor of what no Volume has.
    pub(crate) fn agree(&mut self, mut place: Place, row: Row) {
        if !self.is_synced(place.parent) || self.is_another_kind(&row) {
            return;
        }
        if row.what.is_directory() {
            let elsewhere = self.home(row.node).filter(|home| **home != place).cloned();
            if let Some(home) = elsewhere {
                let nobody = self.release(&home);
                if place.parent == row.node {
                    place.parent = nobody;
                }
            }
        }
        let old = self.get(&place).filter(|old| old.what.is_directory()).map(|old| old.node);
        match old {
            Some(_) if !row.what.is_directory() => self.forget(&place),
            Some(old) if old != row.node => {
                self.insert(place, row.clone());
                self.hand_over(old, row.node);
                return;
            }
            _ => {}
        }
        self.insert(place, row);
    }

    /// Nothing is agreed on at a place any more, nor below.
    pub(crate) fn forget(&mut self, place: &Place) {
        let Some(row) = self.remove(place) else { return };
        if row.what.is_directory() {
            self.released.push(Released { was: row.node, is: None });
            self.forget_below(row.node);
        }
    }

    /// What was synced at `from` is at `to`, with all that is below.
    pub(crate) fn move_to(&mut self, from: &Place, to: Place, row: Row) {
        let same = self.get(from).is_some_and(|old| old.node == row.node);
        let into_itself = || self.above(to.parent).any(|above| above == row.node);
        if !same || *from == to {
            return self.agree(to, row);
        }
        if into_itself() || !self.is_synced(to.parent) {
            return self.forget(from);
        }
        self.forget(&to);
        self.remove(from);
        self.insert(to, row);
    }

    /// What the store has not been told yet, and what was released meanwhile.
    pub fn take_changes(&mut self) -> (Vec<RowChange>, Vec<Released>) {
        (std::mem::take(&mut self.changes), std::mem::take(&mut self.released))
    }

    fn is_synced(&self, directory: NodeId) -> bool {
        let is_directory = |place| self.get(place).is_some_and(|row| row.what.is_directory());
        directory == NodeId::ROOT || self.home(directory).is_some_and(is_directory)
    }

    /// Whether the node is known not to be what the row says. That never changes in
    /// a Volume, and nothing is the root but the root.
    fn is_another_kind(&self, row: &Row) -> bool {
        let known = self.home(row.node).and_then(|home| self.get(home));
        row.node == NodeId::ROOT
            || known.is_some_and(|known| known.what.is_directory() != row.what.is_directory())
    }

    /// A directory and those above it, up to the root.
    fn above(&self, directory: NodeId) -> impl Iterator<Item = NodeId> {
        std::iter::successors(Some(directory), |at| self.home(*at).map(|home| home.parent))
    }

    /// The directory at a place is nobody's from now on.
    fn release(&mut self, home: &Place) -> NodeId {
        let Some(row) = self.get(home).cloned() else { return NodeId::ROOT };
        let free = (0..).map(|n| NodeId(1 << 63 | n)).find(|id| !self.places.contains_key(id));
        let nobody = free.unwrap_or(NodeId(u64::MAX));
        let was = row.node;
        self.insert(home.clone(), Row { node: nobody, version: Seq(0), ..row });
        self.hand_over(was, nobody);
        self.released.push(Released { was, is: Some(nobody) });
        nobody
    }

    fn hand_over(&mut self, from: NodeId, to: NodeId) {
        for (name, row) in self.rows.get(&from).cloned().into_iter().flatten() {
            self.remove(&Place { parent: from, name: name.clone() });
            self.insert(Place { parent: to, name }, row);
        }
    }

    fn forget_below(&mut self, directory: NodeId) {
        let names: Vec<Name> = self.children(directory).map(|(name, _)| name.clone()).collect();
        for name in names {
            self.forget(&Place { parent: directory, name });
        }
    }

    fn insert(&mut self, place: Place, row: Row) {
        self.changes.push((place.clone(), Some(row.clone())));
        self.take(&place);
        self.index(&place, &row);
        self.rows.entry(place.parent).or_default().insert(place.name, row);
    }

    /// Notes where a row's node is.
    fn index(&mut self, place: &Place, row: &Row) {
        if let (What::Directory, Some(print)) = (&row.what, &row.print) {
            self.directories.insert(print.stat.inode, row.node);
        }
        self.places.entry(row.node).or_default().push(place.clone());
        self.count += 1;
    }

    fn remove(&mut self, place: &Place) -> Option<Row> {
        let row = self.take(place)?;
        self.changes.push((place.clone(), None));
        Some(row)
    }

    fn take(&mut self, place: &Place) -> Option<Row> {
        let rows = self.rows.get_mut(&place.parent)?;
        let row = rows.remove(&place.name)?;
        if rows.is_empty() {
            self.rows.remove(&place.parent);
        }
        self.count -= 1;
        if let (What::Directory, Some(print)) = (&row.what, &row.print)
            && self.directories.get(&print.stat.inode) == Some(&row.node)
        {
            self.directories.remove(&print.stat.inode);
        }
        if let Some(places) = self.places.get_mut(&row.node) {
            places.retain(|other| other != place);
            if places.is_empty() {
                self.places.remove(&row.node);
            }
        }
        Some(row)
    }
}

#[cfg(test)]
mod tests;
