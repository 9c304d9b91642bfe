//! Where things are: places in the Volume, paths on the disk.
//!
//! Rows are kept by place, so a directory that moves takes its rows along. Most
//! of the time a row's path on disk is the chain of its names; a directory that
//! the user has just moved is in `moved` until the Volume knows.

use s0_tree::{Name, NodeId, Place, TreePath};

use super::Replica;
use crate::disk::{Disk, DiskResult, Listing, Stat};
use crate::state::{Print, Remote, Row, Store, What};

impl<D: Disk, S: Store> Replica<D, S> {
    /// Where a synced directory is on the disk.
    pub(super) fn directory_path(&self, directory: NodeId) -> Option<TreePath> {
        if directory == NodeId::ROOT {
            return Some(TreePath::root());
        }
        if let Some((path, _)) = self.moved.iter().find(|(_, node)| **node == directory) {
            return Some(path.clone());
        }
        self.disk_path(self.state.synced.home(directory)?)
    }

    /// Where a place is on the disk, if its directory is there.
    pub(super) fn disk_path(&self, place: &Place) -> Option<TreePath> {
        Some(self.directory_path(place.parent)?.join(&place.name))
    }

    /// The synced directory at a path of the disk.
    pub(super) fn directory_at(&self, path: &TreePath) -> Option<NodeId> {
        if path.is_root() {
            return Some(NodeId::ROOT);
        }
        if self.moved.is_empty() {
            return path.names().try_fold(NodeId::ROOT, |parent, name| {
                let row = self.row(&Place { parent, name })?;
                row.what.is_directory().then_some(row.node)
            });
        }
        if let Some(node) = self.moved.get(path) {
            return Some(*node);
        }
        let row = self.row(&self.place_at(path)?)?;
        let here = row.what.is_directory() && !self.is_moved(row.node);
        here.then_some(row.node)
    }

    /// The place of a path of the disk, if its directory is synced.
    pub(super) fn place_at(&self, path: &TreePath) -> Option<Place> {
        let (parent, name) = path.split()?;
        Some(Place { parent: self.directory_at(&parent)?, name })
    }

    /// The row of a path of the disk.
    pub(super) fn row_at(&self, path: &TreePath) -> Option<(Place, &Row)> {
        let place = self.place_at(path)?;
        let row = self.row(&place)?;
        let elsewhere = row.what.is_directory() && self.is_moved(row.node);
        (!elsewhere).then_some((place, row))
    }

    pub(super) fn is_moved(&self, node: NodeId) -> bool {
        !self.moved.is_empty() && self.moved.values().any(|other| *other == node)
    }

    /// Whether a node is a synced directory that is not at this path of the disk.
    pub(super) fn is_elsewhere(&self, node: NodeId, path: &TreePath) -> bool {
        let is_directory = |home| self.row(home).is_some_and(|row| row.what.is_directory());
        self.state.synced.home(node).is_some_and(is_directory)
            && self.directory_path(node).is_some_and(|there| there != *path)
    }

    /// Where the user has moved the directory that is synced at this path.
    pub(super) fn moved_away(&self, path: &TreePath) -> Option<&TreePath> {
        let row = self.row(&self.place_at(path)?)?;
        self.moved.iter().find(|(_, node)| **node == row.node).map(|(there, _)| there)
    }

    /// The directories that have changed places all around, so that none of their
    /// moves can be told before the others; none if the one at `path` is not such.
    pub(super) fn circle(&self, path: &TreePath) -> Vec<(TreePath, NodeId)> {
        let next = |at: &&TreePath| self.moved_away(at);
        let way = std::iter::successors(self.moved_away(path), next).take(self.moved.len());
        let mut circle: Vec<_> = way.map(|at| (at.clone(), self.moved[at])).collect();
        let end = circle.iter().position(|(at, _)| at == path);
        circle.truncate(end.map_or(0, |end| end + 1));
        circle
    }

    /// The Volume's path for a path of the disk: that of the directory's node,
    /// wherever the Volume has it now. None in a directory that the user has moved
    /// and the Volume has not any more: by that path, it would be another's.
    pub(super) fn volume_path(&self, path: &TreePath) -> Option<TreePath> {
        let Some((parent, name)) = path.split() else { return Some(path.clone()) };
        let node = self.directory_at(&parent);
        let known = node.and_then(|node| self.remote.as_ref()?.path_of(node));
        let above = match known {
            None if self.moved.contains_key(&parent) => return None,
            None => self.volume_path(&parent)?,
            Some(above) => above,
        };
        Some(above.join(&name))
    }

    /// What the Volume holds at a place.
    pub(super) fn remote_at(&self, place: &Place) -> Option<Remote> {
        let tree = self.remote.as_ref()?;
        let id = tree.at_place(place)?;
        remote_node(tree, id)
    }

    /// What the Volume holds at a path of the disk, whether or not the
    /// directories above are synced.
    pub(super) fn remote_for(&self, path: &TreePath) -> Option<Remote> {
        match self.place_at(path) {
            Some(place) => self.remote_at(&place),
            None => {
                let tree = self.remote.as_ref()?;
                remote_node(tree, tree.lookup(path)?)
            }
        }
    }

    /// Whether a file is for certain the one that was seen.
    pub(super) fn is_same(&self, print: &Print, stat: &Stat) -> bool {
        print.stat == *stat && !self.is_racy(print)
    }

    /// Whether a change right after the look may have left no trace.
    pub(super) fn is_racy(&self, print: &Print) -> bool {
        let grain = self.disk.abilities().grain;
        let unsure = grain > 0 && print.stat.mtime.max(print.stat.ctime) + grain > print.seen;
        self.distrust || print.open || unsure
    }

    /// Whether two modes are one, as far as the root keeps modes.
    pub(super) fn same_mode(&self, what: &What, a: u32, b: u32) -> bool {
        a & 0o777 == b & 0o777 || matches!(what, What::Symlink(_)) || !self.disk.abilities().modes
    }
}

/// Where names are one name in several spellings.
impl<D: Disk, S: Store> Replica<D, S> {
    /// Whether a name is one with another in this root.
    pub(super) fn is_one_name(&self, a: &Name, b: &Name) -> bool {
        let abilities = self.disk.abilities();
        let policy = s0_tree::Policy {
            case_insensitive: !abilities.case_sensitive,
            unicode_insensitive: abilities.unicode_insensitive,
            windows_names: false,
        };
        policy.same_name(a.as_str(), b.as_str())
    }

    /// A synced sibling that this root takes for the same name.
    pub(super) fn namesake(&self, place: &Place) -> Option<Name> {
        let abilities = self.disk.abilities();
        if abilities.case_sensitive && !abilities.unicode_insensitive {
            return None;
        }
        let mut siblings = self.state.synced.children(place.parent).map(|(name, _)| name);
        siblings.find(|name| **name != place.name && self.is_one_name(name, &place.name)).cloned()
    }

    /// Whether something local that nobody has synced has the same name, in
    /// another spelling.
    pub(super) fn has_new_namesake(&self, path: &TreePath) -> bool {
        let abilities = self.disk.abilities();
        if abilities.case_sensitive && !abilities.unicode_insensitive {
            return false;
        }
        let Some((above, name)) = path.split() else { return false };
        super::look::below(&self.changed, &above)
            .filter(|other| other.depth() == path.depth() && *other != path)
            .filter(|other| matches!(self.changed[*other], super::Local::There { .. }))
            .filter_map(TreePath::name)
            .any(|other| self.is_one_name(&other, &name))
    }

    /// The children of a directory, by the names that they have in the Volume:
    /// a root that does not keep spellings cannot say them itself.
    pub(super) fn listed(&mut self, path: &TreePath) -> DiskResult<Listing> {
        let mut listing = self.disk.list(path)?;
        if self.disk.abilities().case_preserving {
            return Ok(listing);
        }
        let Some(directory) = self.directory_at(path) else { return Ok(listing) };
        for (name, _) in &mut listing.entries {
            if let Some(spelled) = self.spelled(directory, name) {
                *name = spelled;
            }
        }
        Ok(listing)
    }

    /// How a listed name is spelled: as it is synced, or else as the Volume has it.
    fn spelled(&self, directory: NodeId, name: &Name) -> Option<Name> {
        let here = Place { parent: directory, name: name.clone() };
        if self.row(&here).is_some() {
            return None;
        }
        self.namesake(&here).or_else(|| {
            let children = self.remote.as_ref()?.node(directory)?.directory()?;
            if children.get(name).is_some() {
                return None;
            }
            children
                .iter()
                .map(|(other, _)| other)
                .find(|other| self.is_one_name(other, name))
                .cloned()
        })
    }

    /// A path that a watcher told of, as the listing would spell it. `None`
    /// when only the directory can say what it is.
    pub(super) fn spelled_path(&self, path: &TreePath) -> Option<TreePath> {
        if self.disk.abilities().case_preserving {
            return Some(path.clone());
        }
        let mut at = TreePath::root();
        for name in path.names() {
            let directory = self.directory_at(&at)?;
            let known = self.row(&Place { parent: directory, name: name.clone() }).is_some();
            let name = if known { name } else { self.spelled(directory, &name)? };
            at = at.join(&name);
        }
        Some(at)
    }
}

/// A node as a replica applies it; nothing for kinds that it does not.
pub(super) fn remote_node(tree: &s0_tree::Tree, id: NodeId) -> Option<Remote> {
    let node = tree.node(id)?;
    let what = match &node.kind {
        s0_tree::Kind::File(content) => What::File(*content),
        s0_tree::Kind::Directory(_) => What::Directory,
        s0_tree::Kind::Symlink(target) => What::Symlink(target.clone()),
        s0_tree::Kind::Fifo => return None,
    };
    Some(Remote { node: id, version: node.version, what, mode: node.attributes.mode & 0o777 })
}
