//! Listing a directory: its children beside those that are synced, and beside
//! what is noted of them.

use std::collections::{BTreeSet, HashSet};

use s0_tree::{MAX_PATH_BYTES, Name, NodeId, TreePath};

use super::look::below;
use super::{Done, Reach, Replica};
use crate::disk::{Disk, DiskError, Seen, Stat};
use crate::state::Store;

impl<D: Disk, S: Store> Replica<D, S> {
    /// Compares a directory's children with its rows.
    pub(super) fn list(
        &mut self,
        path: &TreePath,
        reach: Reach,
        unread: &mut Vec<(TreePath, Stat)>,
    ) -> Done {
        let listing = match self.listed(path) {
            Ok(listing) => listing,
            Err(DiskError::NotFound | DiskError::NotADirectory) if !path.is_root() => {
                self.touch(path.clone(), self.now, false);
                return Ok(());
            }
            Err(error) => {
                self.problem(path, &error);
                return Ok(());
            }
        };
        if path.is_root() {
            // Nothing compares the root; what was wrong with it is said again.
            self.problems.remove(path);
        }
        for name in listing.unnameable {
            // The path of the problem is its directory's: the name has no path.
            self.problems.insert(path.clone(), format!("the name {name:?} is not UTF-8"));
        }
        let is_child = |other: &&TreePath| other.depth() == path.depth() + 1;
        let mut unlisted: BTreeSet<_> =
            below(&self.changed, path).filter(is_child).cloned().collect();
        // What is wrong with something of the Volume's is wrong before it is here.
        let local = |other: &&TreePath| self.remote_for(other).is_none();
        unlisted.extend(below(&self.problems, path).filter(is_child).filter(local).cloned());
        // It may come by now; a look at everything finds out.
        let kept_out = |other: &&TreePath| reach == Reach::All && !local(other);
        let mut kept_out: BTreeSet<_> =
            below(&self.problems, path).filter(is_child).filter(kept_out).cloned().collect();
        let directory = self.directory_at(path);
        let missing = directory.map_or_else(Vec::new, |node| self.missing(node, &listing.entries));
        let untouched = directory.filter(|_| self.is_untouched_below(path));
        for (name, stat) in listing.entries {
            if untouched.is_some_and(|node| self.is_unchanged_file(node, &name, &stat)) {
                continue;
            }
            let child = path.join(&name);
            kept_out.remove(&child);
            if child.as_str().len() > MAX_PATH_BYTES {
                // It has no path that could be told, so its directory's is.
                let why = format!("what is in it has a path of more than {MAX_PATH_BYTES} bytes");
                self.problems.insert(path.clone(), why);
                continue;
            }
            unlisted.remove(&child);
            if self.is_outgoing(&child) {
                self.touch_to(child, self.now, reach);
                continue;
            }
            let wanted = self.dirty.remove(&child).map_or(reach, |dirt| dirt.reach.max(reach));
            self.compare(&child, Some(stat), wanted, unread)?;
        }
        for name in missing {
            let child = path.join(&name);
            if self.is_outgoing(&child) {
                self.touch(child, self.now, false);
            } else {
                self.compare(&child, None, Reach::Itself, unread)?;
            }
        }
        for child in kept_out {
            if let Some(place) = self.place_at(&child) {
                self.problems.remove(&child);
                self.incoming.insert(place);
            }
        }
        for child in unlisted {
            if self.is_outgoing(&child) {
                self.touch(child, self.now, false);
            } else if self.row_at(&child).is_none() {
                self.problems.remove(&child);
                self.vanished(&child, false);
            }
        }
        Ok(())
    }

    /// The children that the rows have and the listing has not.
    fn missing(&self, directory: NodeId, listed: &[(Name, Stat)]) -> Vec<Name> {
        let synced = || self.state.synced.children(directory).map(|(name, _)| name);
        let there =
            listed.iter().filter(|(name, _)| self.state.synced.child(directory, name).is_some());
        if there.count() == synced().count() {
            return Vec::new();
        }
        let listed: HashSet<_> = listed.iter().map(|(name, _)| name).collect();
        synced().filter(|name| !listed.contains(name)).cloned().collect()
    }

    /// Whether nothing is noted of what is in a directory that a look would have to
    /// take back.
    fn is_untouched_below(&self, path: &TreePath) -> bool {
        let none = |mut below: Box<dyn Iterator<Item = &TreePath> + '_>| below.next().is_none();
        self.in_flight.is_empty()
            && self.moved.is_empty()
            && self.state.kept.is_empty()
            && none(Box::new(below(&self.dirty, path)))
            && none(Box::new(below(&self.changed, path)))
            && none(Box::new(below(&self.problems, path)))
    }

    /// Whether a listed file is as it is synced. Of nearly all files of nearly all
    /// looks that is all there is to know.
    fn is_unchanged_file(&self, directory: NodeId, name: &Name, stat: &Stat) -> bool {
        stat.kind == Seen::File
            && !name.as_str().starts_with('.')
            && self.state.synced.child(directory, name).is_some_and(|row| self.is_clean(row, stat))
    }
}
