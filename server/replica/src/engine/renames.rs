//! Renames: what was moved here is told as one thing that has moved.

use std::collections::{BTreeSet, HashMap};

use s0_tree::{Action, Change, Expected, Name, NodeId, Place, RenameHow, TreePath, comparison_key};

use super::upload::Draft;
use super::{Local, Replica};
use crate::disk::Disk;
use crate::state::{Record, Row, Sent, Store, What};

impl<D: Disk, S: Store> Replica<D, S> {
    /// Renames: a directory that was found elsewhere; a file whose old name is
    /// gone and whose inode, with its birth or its content, is at a new one.
    pub(super) fn draft_renames(
        &mut self,
        paths: &[TreePath],
        draft: &mut Draft,
    ) -> Result<BTreeSet<TreePath>, super::Stop> {
        let mut used = BTreeSet::new();
        let mut gave_up = Vec::new();
        let mut gone: HashMap<u64, (TreePath, Place, Row)> = HashMap::new();
        for path in paths {
            if let (Some(Local::Gone), Some((place, row))) =
                (self.changed.get(path), self.row_at(path))
                && let Some(print) = row.print
                && !row.what.is_directory()
            {
                gone.insert(print.stat.inode, (path.clone(), place, row.clone()));
            }
        }
        let vanished = self.vanished_names();
        for path in paths {
            if draft.is_full() || draft.is_apart(path) {
                continue;
            }
            let (from, row, print) = match self.changed.get(path) {
                Some(Local::Moved { node }) => {
                    let node = *node;
                    let from = self.state.synced.home(node).cloned();
                    let row = from.as_ref().and_then(|from| self.row(from)).cloned();
                    let (Some(from), Some(row), None) = (from, row, self.row_at(path)) else {
                        self.unmove(path, node);
                        continue;
                    };
                    let print = row.print;
                    (from, row, print)
                }
                Some(Local::There { what, print, .. }) => {
                    let Some((_, from, row)) = gone.get(&print.stat.inode) else { continue };
                    let same_birth = row.print.is_some_and(|old| {
                        old.stat.born.is_some() && old.stat.born == print.stat.born
                    });
                    let same_kind =
                        matches!(what, What::File(_)) == matches!(row.what, What::File(_));
                    if !same_kind || !(same_birth || row.what == *what) {
                        continue;
                    }
                    // What was moved and edited is moved first, and looked at
                    // again afterwards.
                    let print = (row.what == *what).then_some(*print);
                    (from.clone(), row.clone(), print)
                }
                _ => continue,
            };
            if let Some(there) = self.moved_away(path).cloned() {
                // All of them become what their places say: while one of them counts
                // as moved, the next look finds the others moved as well.
                let circle = self.circle(path);
                for (path, node) in &circle {
                    self.unmove(path, *node);
                }
                if !circle.is_empty() {
                    continue;
                }
                if !self.in_conflict(&there) {
                    // The Volume has another here until the move of that is told.
                    continue;
                }
            }
            let taken = self.row_at(path).is_some();
            let Some(above) = path.parent() else { continue };
            let homeless = self.directory_at(&above).is_none();
            if homeless && !self.changed.contains_key(&above) && !self.dirty.contains_key(&above) {
                self.touch(above, self.now + self.config.settle, false);
            }
            if taken || self.follows_removal(path, &from, &vanished) {
                continue;
            }
            let (old, Some(new)) = (self.volume_path_of(&from), self.volume_path(path)) else {
                continue;
            };
            if old.as_ref().is_none_or(|old| new.is_at_or_below(old)) {
                // The Volume has moved it above its own new place, or to where the
                // new directory is that it was put into, or knows nothing of where
                // it was. No rename says that; what is here is new, and what is
                // there comes.
                if let Some(Local::Moved { node }) = self.changed.get(path).cloned() {
                    gave_up.push((path.clone(), node, from));
                }
                continue;
            }
            let Some(old) = old.filter(|_| !homeless) else { continue };
            let mut change = Change::new(
                Action::Rename { from: old.clone(), to: new.clone(), how: RenameHow::NoReplace },
                Expected::Node { id: row.node, version: row.version },
            );
            change.expect_to = Some(Expected::Absent);
            if draft.is_apart(&old) || draft.is_apart(&new) || !self.may_offer(&change) {
                continue;
            }
            let local = Some((row.what.clone(), row.mode, print));
            let parent = path.parent().and_then(|above| self.directory_at(&above));
            let sent =
                Sent { path: path.clone(), local, from: Some(from.clone()), parent, renamed: true };
            draft.push(change, sent);
            draft.apart.extend([old, new, path.clone()]);
            draft.apart.extend(self.disk_path(&from));
            used.insert(path.clone());
        }
        for (path, node, home) in gave_up {
            self.unmove(&path, node);
            self.commit(vec![Record::Synced(home, None)], false)?;
            self.reconsider = true;
        }
        Ok(used)
    }

    /// What is gone, by its directory and by what its name is one with.
    fn vanished_names(&self) -> HashMap<(NodeId, String), Vec<TreePath>> {
        let mut vanished: HashMap<_, Vec<_>> = HashMap::new();
        let gone = self.changed.iter().filter(|(_, local)| matches!(local, Local::Gone));
        for (path, _) in gone {
            if let Some((Place { parent, name }, _)) = self.row_at(path) {
                let key = (parent, comparison_key(name.as_str()));
                vanished.entry(key).or_default().push(path.clone());
            }
        }
        vanished
    }

    /// Whether something is gone from beside `path` whose name is one with its own,
    /// here or on another replica: until the removal is told, which comes after
    /// renames, that is in the way of what came from `from`. A removal that waits
    /// itself is not waited for.
    fn follows_removal(
        &self,
        path: &TreePath,
        from: &Place,
        vanished: &HashMap<(NodeId, String), Vec<TreePath>>,
    ) -> bool {
        let Some(Place { parent, name }) = self.place_at(path) else { return false };
        let key = (parent, comparison_key(name.as_str()));
        let is_one = |other: &Name| {
            self.is_one_name(other, &name) || self.policy.same_name(other.as_str(), name.as_str())
        };
        let is_in_the_way = |at: &&TreePath| {
            let left = |node: &NodeId| self.disk_path(self.state.synced.home(*node)?);
            at.name().is_some_and(|other| is_one(&other))
                && self.place_at(at).as_ref() != Some(from)
                && !self.state.conflicts.keys().any(|other| other.is_at_or_below(at))
                && !self.moved.values().filter_map(left).any(|other| other.is_at_or_below(at))
        };
        vanished.get(&key).into_iter().flatten().any(|at| is_in_the_way(&at))
    }

    /// A directory that was moved, but can no longer be told as a move: it is
    /// gone from one place and there at another.
    fn unmove(&mut self, path: &TreePath, node: s0_tree::NodeId) {
        self.moved.remove(path);
        self.changed.remove(path);
        self.touch(path.clone(), self.now, true);
        let home = self.state.synced.home(node).cloned();
        if let Some(home) = home.and_then(|home| self.disk_path(&home)) {
            self.touch(home, self.now, true);
        }
    }

    /// The Volume's path of a synced place.
    fn volume_path_of(&self, place: &Place) -> Option<TreePath> {
        let tree = self.remote.as_ref()?;
        match self.row(place).and_then(|row| tree.path_of(row.node)) {
            // A rename says where the node is, wherever the Volume has it; the
            // expectation says whether that is as it was.
            Some(path) => Some(path),
            None => {
                let above =
                    tree.path_of(place.parent).or_else(|| self.directory_path(place.parent))?;
                Some(above.join(&place.name))
            }
        }
    }
}
