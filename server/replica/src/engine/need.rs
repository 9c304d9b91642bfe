//! What a place needs, at which the Volume is not as synced.

use s0_tree::{NodeId, Place, TreePath, comparison_key};

use super::look::leads_out;
use super::{Held, Local, Replica};
use crate::disk::{Disk, Spot};
use crate::state::{Intent, Phase, Record, Remote, Row, Store, What};

/// Why a name cannot come to a root that folds names.
pub(super) const ANOTHER_SPELLING: &str = "another spelling of this name is on the disk";

/// What a place needs.
pub(super) enum Need {
    /// Nothing, now or ever, until something new is heard of it.
    Nothing,
    /// Something else must happen first.
    Wait,
    /// Only what is remembered changes.
    Remember(Vec<Record>),
    /// A directory to make.
    MakeDirectory(TreePath, Remote),
    /// An empty directory to remove.
    RemoveDirectory(TreePath),
    /// Permission bits to set.
    SetMode(TreePath, Row, Remote),
    /// Something to move from another place.
    Move { from: Place, old: TreePath, new: TreePath, row: Row, remote: Remote },
    /// Content to bring, or a file or link to take away.
    Intend(Box<Intent>),
}

impl<D: Disk, S: Store> Replica<D, S> {
    /// Decides what a place needs. Looks, but changes nothing.
    pub(super) fn need(&mut self, place: &Place) -> Need {
        let Some(path) = self.disk_path(place) else {
            // Its directory is not here yet; making that one brings this back.
            return Need::Nothing;
        };
        self.note_hold(&path, None);
        let remote = self.remote_at(place);
        let row = self.row(place).cloned();
        if self.active.contains_key(place) {
            return Need::Wait;
        }
        if let (Some(remote), Some(row)) = (&remote, &row)
            && remote.node == row.node
            && remote.version == row.version
            && remote.what == row.what
            && self.same_mode(&remote.what, remote.mode, row.mode)
        {
            if row.print.is_none() && !self.changed.contains_key(&path) {
                // The user decided about it, but the disk holds something else.
                self.touch(path, self.now, false);
            }
            return Need::Nothing;
        }
        if remote.is_none() && row.is_none() {
            return Need::Nothing;
        }
        let is_git = |path: &TreePath| path.names().any(|n| comparison_key(n.as_str()) == ".git");
        if is_git(&path) || path.names().next().is_some_and(|n| super::guard::is_own(n.as_str())) {
            return Need::Nothing;
        }
        if self.in_conflict(&path) {
            return Need::Nothing;
        }
        if self.is_outgoing(&path) || self.dirty.contains_key(&path) {
            return Need::Wait;
        }
        if self.is_in_missing(&path) {
            // The user has removed the directory that this belongs into.
            return match (&remote, &row) {
                (None, Some(_)) => self.both_removed(place, &path),
                _ => Need::Wait,
            };
        }
        if row.is_none() && matches!(self.changed.get(&path), Some(Local::Gone)) {
            // There is nothing that it could be missing from.
            self.changed.remove(&path);
        }
        match self.changed.get(&path) {
            None => {}
            Some(Local::Gone) if remote.is_none() => {
                self.changed.remove(&path);
                return self.both_removed(place, &path);
            }
            Some(Local::Moved { .. } | Local::Gone) => return self.need_moved(place, &path),
            Some(Local::There { .. }) => {
                // Equal on both sides is no difference; anything else is the
                // upload's to offer first.
                if self.adopt(&path).is_err() || self.changed.contains_key(&path) {
                    return Need::Wait;
                }
                return Need::Nothing;
            }
        }
        if self.state.withheld.contains(&path) {
            return Need::Wait;
        }
        if row.is_none() {
            let directory = remote.as_ref().is_some_and(|remote| remote.what.is_directory());
            // What is synced elsewhere is not ignored when it comes here.
            let known = remote.as_ref().and_then(|it| self.state.synced.home(it.node));
            if !(directory && known.is_some()) && self.rules.is_ignored(&path, directory) {
                self.ignored_incoming.insert(path);
                return Need::Nothing;
            }
            if remote.as_ref().is_some_and(|remote| self.is_crowded(place, remote.node)) {
                self.refuse(&path, ANOTHER_SPELLING.into());
            }
            if self.problems.contains_key(&path) {
                return Need::Wait;
            }
        }
        let actor = self.author_of(place);
        if let Some(why) = self.hold(place, &path, remote.as_ref(), actor.as_ref()) {
            if let (None, Some(remote)) = (&actor, &remote) {
                self.ask_author(remote.node, remote.version);
            }
            let held = Held { why, actor, removed: remote.is_none() };
            self.note_hold(&path, Some((place.clone(), held)));
            return Need::Wait;
        }
        if let (None, Some(remote)) = (&actor, &remote)
            && self.awaits_author(remote)
        {
            return Need::Wait;
        }
        if row.as_ref().is_some_and(|row| row.what.is_directory() && self.is_moved(row.node)) {
            // The user moved it, and is to be heard first.
            return Need::Wait;
        }
        match (row, remote) {
            (None, None) => Need::Nothing,
            (Some(row), None) => self.need_removal(place, path, row),
            (None, Some(remote)) => self.need_arrival(place, path, remote),
            (Some(row), Some(remote)) => self.need_update(place, path, row, remote),
        }
    }

    /// Removed on both sides. Whatever was below is gone with it; where the
    /// Volume has moved it elsewhere it arrives there as something new.
    fn both_removed(&mut self, place: &Place, path: &TreePath) -> Need {
        let own = self.row(place).map(|row| (place.clone(), row.clone()));
        let below = self.rows_below(path).into_iter().map(|(_, place, row)| (place, row));
        for (place, row) in own.into_iter().chain(below) {
            if let Some(home) = self.new_home(row.node, &place) {
                self.incoming.insert(home);
            }
        }
        // The directory that it was in may wait to be empty, and nothing is done on the
        // disk that would have it considered again.
        if let Some(home) = self.state.synced.home(place.parent).cloned()
            && self.waiting.remove(&home)
        {
            self.incoming.insert(home);
        }
        Need::Remember(vec![Record::Synced(place.clone(), None)])
    }

    /// The user moved or removed what the Volume changed.
    fn need_moved(&mut self, place: &Place, path: &TreePath) -> Need {
        let Some(Local::Moved { node }) = self.changed.get(path) else { return Need::Wait };
        let node = *node;
        let Some(remote) = self.remote_at(place).filter(|remote| remote.node == node) else {
            return Need::Wait;
        };
        // Moved to the same place on both sides.
        let Some(old) = self.state.synced.home(node).cloned() else { return Need::Wait };
        let Some(row) = self.row(&old).cloned() else { return Need::Wait };
        self.moved.remove(path);
        self.changed.remove(path);
        self.touch(path.clone(), self.now, true);
        self.incoming.insert(old.clone());
        // Its mode is compared next.
        self.incoming.insert(place.clone());
        let row = Row { version: remote.version, ..row };
        Need::Remember(vec![Record::Moved { from: old, to: place.clone(), row }])
    }

    fn need_removal(&mut self, place: &Place, path: TreePath, row: Row) -> Need {
        let moved_to = self.new_home(row.node, place);
        if let Some(home) = moved_to
            && (row.what.is_directory() || self.row(&home).is_none())
        {
            // Considered where it goes; if that cannot be yet, a directory
            // waits too. A file can be fetched again.
            let may_come = self.is_reachable_home(row.node)
                && (row.what.is_directory() || self.is_free(&home));
            self.incoming.insert(home);
            if may_come {
                return Need::Wait;
            }
            if row.what.is_directory() {
                return self.stay_behind(place, path);
            }
        }
        self.need_plain_removal(place, path, row)
    }

    /// Whether the user has removed a directory above a path.
    fn is_in_missing(&self, path: &TreePath) -> bool {
        path.ancestors().any(|above| {
            matches!(
                self.changed.get(&above),
                Some(Local::Gone | Local::There { what: What::File(_) | What::Symlink(_), .. })
            )
        })
    }

    /// Whether nothing keeps a file from coming to a place right away.
    fn is_free(&mut self, place: &Place) -> bool {
        let Some(path) = self.disk_path(place) else { return false };
        let (remote, actor) = (self.remote_at(place), self.author_of(place));
        self.row(place).is_none()
            && self.hold(place, &path, remote.as_ref(), actor.as_ref()).is_none()
            && !self.is_in_missing(&path)
            && !self.in_conflict(&path)
            && !self.changed.contains_key(&path)
            && !self.dirty.contains_key(&path)
            && !self.problems.contains_key(&path)
            && !self.is_outgoing(&path)
            && !remote.is_some_and(|remote| self.is_crowded(place, remote.node))
            && !self.rules.is_ignored(&path, false)
    }

    /// Whether another node is synced under a name that this root takes for
    /// the same. A node that is only spelled anew is not in its own way; a link
    /// that stays beside it is.
    fn is_crowded(&self, place: &Place, node: NodeId) -> bool {
        self.namesake(place).is_some_and(|name| {
            let other = Place { parent: place.parent, name };
            self.row(&other).is_some_and(|row| row.node != node || !self.has_left(&other, node))
        }) || self.disk_path(place).is_some_and(|path| self.has_new_namesake(&path))
    }

    /// Whether the Volume has a node no longer at a place.
    fn has_left(&self, place: &Place, node: NodeId) -> bool {
        self.remote.as_ref().is_some_and(|tree| tree.at_place(place) != Some(node))
    }

    /// Whether a node is synced somewhere that is not in the directory at `path`.
    fn is_synced_outside(&self, node: NodeId, path: &TreePath) -> bool {
        let mut places = self.state.synced.places(node).iter();
        places.any(|at| self.disk_path(at).is_some_and(|at| !at.is_at_or_below(path)))
    }

    /// Whether there is something in a directory that the Volume has not seen.
    pub(super) fn has_news_below(&self, path: &TreePath) -> bool {
        super::look::below(&self.changed, path)
            .any(|below| !matches!(self.changed[below], Local::Gone))
    }

    fn need_plain_removal(&mut self, place: &Place, path: TreePath, row: Row) -> Need {
        if !row.what.is_directory() {
            if self.is_being_written(&path) {
                return Need::Wait;
            }
            return self.intent(place, path, Some(row), None);
        }
        if self.state.synced.children(row.node).next().is_some() {
            return Need::Wait;
        }
        Need::RemoveDirectory(path)
    }

    /// Whether the directory at `path` can be moved to a place: that is on the disk,
    /// and not in the directory itself.
    fn may_move(&self, path: &TreePath, home: &Place) -> bool {
        self.directory_path(home.parent).is_some_and(|above| !above.is_at_or_below(path))
    }

    /// Where the Volume has a node that is synced at `place`, if that is
    /// elsewhere.
    fn new_home(&self, node: NodeId, place: &Place) -> Option<Place> {
        let places = &self.remote.as_ref()?.node(node)?.places;
        if places.contains(place) {
            return None;
        }
        places.iter().find(|home| self.row(home).is_none_or(|row| row.node != node)).cloned()
    }

    /// Whether the new home of a node is one to which it may come: not under `.git`,
    /// and not ignored. A directory is synced already, so that its own name cannot
    /// ignore it any more; only one above it can.
    fn is_reachable_home(&mut self, node: NodeId) -> bool {
        let Some(tree) = &self.remote else { return false };
        let (Some(path), Some(there)) = (tree.path_of(node), tree.node(node)) else {
            return false;
        };
        if path.names().any(|name| comparison_key(name.as_str()) == ".git") {
            return false;
        }
        if there.directory().is_none() {
            return !self.rules.is_ignored(&path, false);
        }
        let above = there.places.first().map(|place| place.parent);
        above.is_some_and(|above| self.directory_path(above).is_some())
            || path.parent().is_none_or(|above| !self.rules.is_ignored(&above, true))
    }

    /// The Volume has moved a directory to where this side does not follow. It
    /// stays, as a local one that waits for the user's word.
    fn stay_behind(&mut self, place: &Place, path: TreePath) -> Need {
        self.touch(path.clone(), self.now, true);
        Need::Remember(vec![Record::Synced(place.clone(), None), Record::Withheld(path, true)])
    }

    fn need_arrival(&mut self, place: &Place, path: TreePath, remote: Remote) -> Need {
        if let What::Symlink(target) = &remote.what
            && (leads_out(&path, target) || !self.disk.abilities().symlinks)
        {
            self.refuse(&path, super::look::leading_out(target));
            return Need::Wait;
        }
        // What is only spelled anew keeps its place on a root that folds names: its
        // content can come when the spelling has.
        let is_respelling =
            |old: &Place| old.parent == place.parent && self.is_one_name(&old.name, &place.name);
        let places = self.state.synced.places(remote.node).iter();
        let old_place = places
            .filter(|old| *old != place && self.has_left(old, remote.node))
            .max_by_key(|old| is_respelling(old))
            .map(|old| (old.clone(), is_respelling(old)));
        if let Some((from, respelled)) = old_place
            && let Some(row) = self.row(&from).cloned()
            && let Some(old) = self.disk_path(&from)
        {
            let busy = self.is_moved(row.node)
                || self.active.contains_key(&from)
                || self.is_outgoing(&old)
                || self.dirty.contains_key(&old)
                || self.changed.contains_key(&old)
                || self.in_conflict(&old)
                || self.has_unsaved(&old);
            if row.what.is_directory() {
                if busy || path.is_at_or_below(&old) {
                    return Need::Wait;
                }
                return Need::Move { from, old, new: path, row, remote };
            }
            if busy && respelled {
                return Need::Wait;
            }
            if !busy && (respelled || row.what == remote.what) {
                return Need::Move { from, old, new: path, row, remote };
            }
        }
        if remote.what.is_directory() {
            return Need::MakeDirectory(path, remote);
        }
        self.intent(place, path, None, Some(remote))
    }

    fn need_update(&mut self, place: &Place, path: TreePath, row: Row, remote: Remote) -> Need {
        let remembered =
            |row: Row, remote: &Remote| Row { node: remote.node, version: remote.version, ..row };
        if row.what.is_directory() && remote.what.is_directory() {
            if row.node == remote.node {
                if !self.same_mode(&remote.what, row.mode, remote.mode) {
                    return Need::SetMode(path, row, remote);
                }
            } else if self.is_moved(remote.node) {
                // The user has that one elsewhere, and is to be heard first. Were it
                // agreed on here, the answer to that move would take it away again,
                // and nobody would look at what stands here.
                return Need::Wait;
            } else {
                let lives =
                    self.new_home(row.node, place).filter(|_| self.is_reachable_home(row.node));
                match lives {
                    // Where its new home is free it goes there, and this place
                    // is free then.
                    Some(home)
                        if self.row(&home).is_none()
                            && !self.is_crowded(&home, row.node)
                            && self.may_move(&path, &home) =>
                    {
                        self.incoming.insert(home);
                        return Need::Wait;
                    }
                    // Directories have changed places in a circle, or this one went
                    // into one that was in it. It stays and becomes the other;
                    // what is in it then differs, and is brought file by file.
                    Some(home) => {
                        self.incoming.insert(home);
                    }
                    // It goes, and the other comes from where it was.
                    None if self.is_synced_outside(remote.node, &path)
                        && self.new_home(row.node, place).is_none()
                        && !self.has_news_below(&path) =>
                    {
                        self.waiting.insert(place.clone());
                        return self.need_plain_removal(place, path, row);
                    }
                    // The other was in this one, and comes up to take its
                    // place; or nobody had it; or something new keeps this one
                    // here, which belongs to the other now.
                    None => {}
                }
                self.expect_children(remote.node);
                self.expect_rows(row.node, remote.node);
                // Its mode is compared next.
                self.incoming.insert(place.clone());
            }
            let row = remembered(row, &remote);
            return Need::Remember(vec![Record::Synced(place.clone(), Some(row))]);
        }
        if row.what.is_directory() || remote.what.is_directory() {
            // Of another kind: the old one goes first, then the new one comes.
            self.waiting.insert(place.clone());
            return self.need_removal(place, path, row);
        }
        if row.what == remote.what {
            if self.same_mode(&remote.what, row.mode, remote.mode) {
                if row.print.is_none() {
                    // The disk holds something else, which is not noted any more.
                    self.touch(path, self.now, false);
                }
                let row = Row { mode: remote.mode, ..remembered(row, &remote) };
                return Need::Remember(vec![Record::Synced(place.clone(), Some(row))]);
            }
            return Need::SetMode(path, row, remote);
        }
        if let What::Symlink(target) = &remote.what
            && (leads_out(&path, target) || !self.disk.abilities().symlinks)
        {
            self.refuse(&path, super::look::leading_out(target));
            return Need::Wait;
        }
        if self.is_being_written(&path) {
            return Need::Wait;
        }
        self.intent(place, path, Some(row), Some(remote))
    }

    /// A file that a program has open for writing waits until it is closed.
    fn is_being_written(&mut self, path: &TreePath) -> bool {
        let busy = self.disk.has_writer(&Spot::Path(path.clone())) == Some(true);
        if busy {
            self.retry_in(100);
        }
        busy
    }

    fn intent(
        &self,
        place: &Place,
        path: TreePath,
        before: Option<Row>,
        after: Option<Remote>,
    ) -> Need {
        Need::Intend(Box::new(Intent {
            place: place.clone(),
            path,
            before,
            after,
            phase: Phase::Planned,
            actor: self.author_of(place),
        }))
    }
}
