//! Conflicts: what the user is asked, and the ways out.

use std::collections::BTreeSet;

use s0_tree::{NodeId, TreePath};

use super::need::ANOTHER_SPELLING;
use super::remote::decided;
use super::{Done, Local, Notice, Replica, Stop};
use crate::disk::{Disk, DiskError};
use crate::state::{ConflictStatus, Record, Row, Settlement, Store};

/// A way out of a conflict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WayOut {
    /// The local path is right as it stands now.
    Mark,
    /// The Volume's version is right; the local one goes. The conflict's record
    /// keeps it.
    TakeTheirs,
    /// The local file moves beside its path, and the Volume's comes.
    KeepBoth,
    /// Neither side is changed, and nothing waits for it any more.
    Ignore,
}

/// The node of what was agreed on with nobody: none of the Volume's has this id.
pub(super) const NOBODY: NodeId = NodeId(u64::MAX);

/// Why a way out is not open.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// There is no conflict at the path.
    #[error("there is no conflict at {0}; `s0 sync conflicts list` shows those that are open")]
    NoConflict(TreePath),
    /// No write is held at the path.
    #[error("no write is held at {0}; `s0 sync held list` shows those that are")]
    NothingHeld(TreePath),
    /// The Volume's side is not known now.
    #[error("the Volume cannot be reached now; try again when `s0 sync status` says connected")]
    Offline,
    /// The file was edited after the conflict was recorded.
    #[error(
        "{0} was edited after the conflict was recorded, and that edit is stored nowhere else; \
         merge, keep both, or mark it as it stands"
    )]
    Edited(TreePath),
    /// A merge takes a file here and one in the Volume.
    #[error(
        "{0} is not a file on both sides, so there is nothing to merge; take theirs, keep both, or \
         mark it as it stands"
    )]
    NotTwoFiles(TreePath),
    /// There is nothing local to keep.
    #[error("nothing of yours is left at {0}; take theirs, or mark the removal as it stands")]
    NothingLeft(TreePath),
    /// A directory that is synced elsewhere has come to this path.
    #[error(
        "the Volume has moved a directory of this workspace to {0}; keep both, or give yours \
         another name"
    )]
    DirectoryInTheWay(TreePath),
    /// The Volume holds something at this path that no replica holds.
    #[error(
        "the Volume has a named pipe at {0}, which cannot be here; take theirs, keep both, or \
         remove it there with `s0 volume files rm`"
    )]
    PipeInTheWay(TreePath),
    /// The path holds something else than what a write in its place was made for.
    #[error("{0} has changed since; look at it again")]
    Changed(TreePath),
    /// Everything stopped.
    #[error("syncing is halted; `s0 sync status` says why")]
    Halted,
    /// Something must finish first.
    #[error("{0} is still being worked on; try again in a moment")]
    NotYet(TreePath),
    /// The disk would not.
    #[error("{0}: {1}")]
    Disk(TreePath, DiskError),
    /// The engine must be opened again.
    #[error(transparent)]
    Stop(#[from] Stop),
}

impl<D: Disk, S: Store> Replica<D, S> {
    /// Whether a path, or a directory above it, is in conflict or left in one.
    pub(super) fn in_conflict(&self, path: &TreePath) -> bool {
        let conflicts = &self.state.conflicts;
        !conflicts.is_empty()
            && (conflicts.contains_key(path)
                || path.ancestors().any(|at| conflicts.contains_key(&at)))
    }

    pub(super) fn has_open_conflicts(&self) -> bool {
        self.state.conflicts.values().any(|conflict| conflict.status == ConflictStatus::Open)
    }

    /// Ends conflicts that have nothing to be about any more: the user has gone
    /// back to what was synced, or both sides have come to hold the same.
    pub(super) fn settle_conflicts(&mut self) -> Done {
        if self.state.conflicts.is_empty() || !self.looked || self.remote.is_none() {
            return Ok(());
        }
        let paths: Vec<_> = self.state.conflicts.keys().cloned().collect();
        for path in paths {
            let unsure = self.dirty.contains_key(&path)
                || path.ancestors().any(|above| self.dirty.contains_key(&above))
                || self.is_outgoing(&path)
                || self.problems.get(&path).is_some_and(|why| why != ANOTHER_SPELLING);
            if unsure {
                continue;
            }
            let over = match self.local_at(&path) {
                None => true,
                Some(Local::Gone) => {
                    // With the file its name is no trouble any more.
                    self.state.conflicts[&path].reason.is_about_names()
                        || self.remote_for(&path).is_none()
                }
                Some(Local::There { what, .. }) => {
                    let theirs = self.remote_for(&path);
                    theirs.is_some_and(|it| it.what == *what && !self.is_moved(it.node))
                }
                Some(Local::Moved { .. }) => false,
            };
            if over {
                self.end_conflict(&path, "vanished", Vec::new())?;
                self.adopt(&path)?;
            }
        }
        Ok(())
    }

    /// How the disk differs from synced at a path: what is below a directory
    /// that is gone is gone with it.
    pub(super) fn local_at(&self, path: &TreePath) -> Option<&Local> {
        if let Some(local) = self.changed.get(path) {
            return Some(local);
        }
        self.row_at(path)?;
        let gone = |above| match self.changed.get(&above) {
            Some(Local::Gone) => true,
            Some(Local::There { what, .. }) => !what.is_directory(),
            _ => false,
        };
        path.ancestors().any(gone).then_some(&Local::Gone)
    }

    /// Ends the conflict of a path.
    ///
    /// # Errors
    /// There is none, or this way out is not open now.
    pub fn resolve(&mut self, path: &TreePath, way: WayOut, now: u64) -> Result<(), ResolveError> {
        self.look_at_conflict(path, now)?;
        match way {
            WayOut::Mark => self.mark(path),
            WayOut::TakeTheirs => self.take_theirs(path),
            // Where the directory is gone from the Volume there is one to keep, and
            // the same directory would refuse it by any other name.
            WayOut::KeepBoth if self.is_orphan(path) => self.mark(path),
            WayOut::KeepBoth => self.keep_both(path),
            WayOut::Ignore => {
                let conflict = self.state.conflicts.get(path).cloned().map(|conflict| {
                    crate::state::Conflict { status: ConflictStatus::Ignored, ..conflict }
                });
                self.end_conflict(path, "ignored", vec![Record::Conflict(path.clone(), conflict)])?;
                Ok(())
            }
        }
    }

    /// Whether a synced directory above a path is gone from the Volume.
    fn is_orphan(&self, path: &TreePath) -> bool {
        let Some(tree) = &self.remote else { return false };
        path.ancestors()
            .filter_map(|above| self.row_at(&above))
            .any(|(_, row)| tree.node(row.node).is_none())
    }

    /// Decisions are about what is there now, not what was when it was last seen.
    pub(super) fn look_at_conflict(
        &mut self,
        path: &TreePath,
        now: u64,
    ) -> Result<(), ResolveError> {
        self.now = now;
        if !self.state.conflicts.contains_key(path) {
            return Err(ResolveError::NoConflict(path.clone()));
        }
        if self.remote.is_none() {
            return Err(ResolveError::Offline);
        }
        if !self.looked || self.is_outgoing(path) {
            return Err(ResolveError::NotYet(path.clone()));
        }
        self.touch(path.clone(), now, true);
        self.look()?;
        if self.dirty.contains_key(path) {
            return Err(ResolveError::NotYet(path.clone()));
        }
        Ok(())
    }

    /// Removes a conflict and tells the service. Other records go with it.
    pub(super) fn end_conflict(
        &mut self,
        path: &TreePath,
        resolution: &str,
        more: Vec<Record>,
    ) -> Done {
        let Some(conflict) = self.state.conflicts.get(path) else { return Ok(()) };
        let id = conflict.id.clone();
        let settlement =
            Settlement { ignored: resolution == "ignored", resolution: resolution.to_owned() };
        let mut records = vec![Record::Conflict(path.clone(), None)];
        records.push(Record::Settled(id.clone(), Some(settlement.clone())));
        records.extend(more);
        self.commit(records, true)?;
        self.effects.push_back(super::Effect::Settle(id, settlement));
        self.notice(Notice::Settled { path: path.clone(), resolution: resolution.to_owned() });
        // What waited for it may be anywhere.
        self.reconsider = true;
        Ok(())
    }

    /// What the disk holds is offered again, now knowing what the Volume has.
    fn mark(&mut self, path: &TreePath) -> Result<(), ResolveError> {
        let at = self.place_at(path);
        let stands = at
            .as_ref()
            .is_some_and(|at| self.remote.as_ref().is_some_and(|tree| tree.at_place(at).is_some()));
        if stands && at.is_some_and(|at| self.remote_at(&at).is_none()) {
            return Err(ResolveError::PipeInTheWay(path.clone()));
        }
        let mut records = self.give_up_missing_parents(path)?;
        if let (Some(place), true) = (self.place_at(path), records.is_empty()) {
            let local_directory = match self.local_at(path) {
                Some(Local::There { what, .. }) => what.is_directory(),
                Some(Local::Moved { .. }) => true,
                Some(Local::Gone) => false,
                None => self.row(&place).is_some_and(|row| row.what.is_directory()),
            };
            match self.remote_at(&place) {
                Some(remote) => {
                    let both = local_directory && remote.what.is_directory();
                    let agreed = Record::Synced(place.clone(), Some(decided(&remote)));
                    records.push(agreed);
                    if !both {
                        records.extend(self.agree_below(path, remote.node)?);
                    }
                }
                None => {
                    let moved = match self.changed.get(path) {
                        Some(Local::Moved { node }) => Some(*node),
                        _ => None,
                    };
                    let old = moved.and_then(|node| self.state.synced.home(node).cloned());
                    let row = old.as_ref().and_then(|old| self.row(old)).cloned();
                    let lives = moved
                        .and_then(|node| super::paths::remote_node(self.remote.as_ref()?, node));
                    match (old, row, lives) {
                        // The Volume has moved it too; the user knows, and moves
                        // it here.
                        (Some(old), Some(row), Some(remote)) => {
                            let row = Row { version: remote.version, ..row };
                            records.push(Record::Synced(old, Some(row)));
                        }
                        (old, ..) => {
                            records.extend(old.map(|old| Record::Synced(old, None)));
                            if moved.is_some() {
                                self.moved.remove(path);
                                self.changed.remove(path);
                            }
                            records.push(Record::Synced(place, None));
                        }
                    }
                }
            }
        }
        let decided: Vec<_> = records
            .iter()
            .filter_map(|record| match record {
                Record::Synced(place, Some(_)) => self.disk_path(place),
                _ => None,
            })
            .collect();
        self.end_conflict(path, "marked", records)?;
        for path in decided {
            self.touch(path, self.now, false);
        }
        self.touch(path.clone(), self.now, true);
        Ok(())
    }

    /// All that the Volume has in a directory is known to the user who decides
    /// about the directory.
    fn agree_below(&self, path: &TreePath, top: NodeId) -> Result<Vec<Record>, ResolveError> {
        let Some(tree) = &self.remote else { return Ok(Vec::new()) };
        let below: Vec<_> = tree.walk_below(path.clone(), top).collect();
        // A file may be synced at two places, so one at the top is in nobody's way.
        let top = tree.node(top).map(|node| (top, node));
        let all = below.iter().map(|(_, id, node)| (*id, *node)).chain(top);
        let inner = all.filter(|(_, node)| node.directory().is_some());
        let directories: BTreeSet<NodeId> = inner.map(|(id, _)| id).collect();
        // A directory can be synced at one place only.
        let elsewhere = |id: &NodeId| {
            self.state.synced.home(*id).is_some_and(|home| tree.at_place(home) != Some(*id))
        };
        if directories.iter().any(elsewhere) {
            return Err(ResolveError::DirectoryInTheWay(path.clone()));
        }
        let mut records = Vec::new();
        for (path, id, node) in below {
            let Some(there) = super::paths::remote_node(tree, id) else {
                return Err(ResolveError::PipeInTheWay(path));
            };
            let places = node.places.iter().filter(|at| directories.contains(&at.parent));
            records.extend(places.map(|at| Record::Synced(at.clone(), Some(decided(&there)))));
        }
        Ok(records)
    }

    /// Directories above that the Volume has no more become new ones, once
    /// nothing else that was synced is left in them.
    fn give_up_missing_parents(&mut self, path: &TreePath) -> Result<Vec<Record>, ResolveError> {
        let mut records = Vec::new();
        let above: Vec<TreePath> = path.ancestors().collect();
        for directory in above {
            let Some((place, row)) = self.row_at(&directory).map(|(p, r)| (p, r.clone())) else {
                continue;
            };
            let lives = self.remote.as_ref().is_some_and(|tree| tree.node(row.node).is_some());
            if lives {
                continue;
            }
            for (below, _, row) in self.rows_below(&directory) {
                let on_the_way = path.is_at_or_below(&below) || below.is_at_or_below(path);
                let stays = self.changed.contains_key(&below)
                    || self.in_conflict(&below)
                    || (row.what.is_directory() && self.has_news_below(&below));
                if !on_the_way && !stays {
                    return Err(ResolveError::NotYet(path.clone()));
                }
            }
            records.push(Record::Synced(place, None));
            self.touch(directory, self.now, true);
            break;
        }
        Ok(records)
    }

    fn take_theirs(&mut self, path: &TreePath) -> Result<(), ResolveError> {
        let Some(place) = self.place_at(path) else {
            return Err(ResolveError::NotYet(path.clone()));
        };
        let mine = self.state.conflicts.get(path).and_then(|conflict| conflict.mine.clone());
        let mut records = Vec::new();
        match self.local_at(path).cloned() {
            None => {}
            Some(Local::Gone) => {
                // The directories above come back with it.
                for above in path.ancestors() {
                    if let (Some(Local::Gone), Some((place, _))) =
                        (self.changed.get(&above), self.row_at(&above))
                    {
                        self.incoming.insert(place.clone());
                        records.push(Record::Synced(place, None));
                        self.changed.remove(&above);
                    }
                }
                records.push(Record::Synced(place, None));
            }
            Some(Local::There { what, mode, print }) => {
                if mine.as_ref() != Some(&what) {
                    return Err(ResolveError::Edited(path.clone()));
                }
                if what.is_directory() {
                    return Err(ResolveError::NotYet(path.clone()));
                }
                // Of no version of the Volume's, so that whatever it has is brought.
                let node = self.row(&place).map_or(NOBODY, |row| row.node);
                let version = s0_tree::Seq(0);
                let row = Row { node, version, what, mode, print: Some(print) };
                records.push(Record::Synced(place, Some(row)));
            }
            Some(Local::Moved { node }) => {
                let home = self.state.synced.home(node).cloned();
                let home = home.and_then(|place| self.disk_path(&place));
                let Some(home) = home else { return Err(ResolveError::NotYet(path.clone())) };
                self.disk
                    .rename(path, &home)
                    .map_err(|error| ResolveError::Disk(path.clone(), error))?;
                self.moved.remove(path);
                self.touch(home, self.now, true);
            }
        }
        self.forget(path);
        self.end_conflict(path, "took_theirs", records)?;
        self.touch(path.clone(), self.now, true);
        Ok(())
    }

    fn keep_both(&mut self, path: &TreePath) -> Result<(), ResolveError> {
        // A directory that the Volume still has is no addition.
        let shared = self.row_at(path).is_some_and(|(_, row)| {
            let lives = self.remote.as_ref().is_some_and(|tree| tree.node(row.node).is_some());
            row.what.is_directory() && lives
        });
        let kept = match self.changed.get(path) {
            Some(Local::There { what, .. }) => !what.is_directory() || !shared,
            _ => false,
        };
        let Some(((above, name), place)) = path.split().zip(self.place_at(path)) else {
            return Err(ResolveError::NotYet(path.clone()));
        };
        if !kept {
            return Err(ResolveError::NothingLeft(path.clone()));
        }
        for number in 1..=1000 {
            let Some(name) = super::apply::beside(name.as_str(), number) else { continue };
            let at = above.join(&name);
            match self.disk.rename(path, &at) {
                Ok(()) => {
                    self.forget(path);
                    let records = vec![Record::Synced(place, None)];
                    self.end_conflict(path, "kept_both", records)?;
                    self.touch(path.clone(), self.now, true);
                    self.touch(at, self.now, true);
                    return Ok(());
                }
                Err(DiskError::Exists) => {}
                Err(error) => return Err(ResolveError::Disk(path.clone(), error)),
            }
        }
        Err(ResolveError::Disk(path.clone(), DiskError::Exists))
    }

    /// Lets paths that wait for the user's word be uploaded; all of them when
    /// `paths` is empty. Says how many there were.
    ///
    /// # Errors
    /// The state database failed.
    pub fn release(&mut self, paths: &[TreePath], now: u64) -> Result<usize, Stop> {
        self.now = now;
        let chosen: Vec<_> = self
            .state
            .withheld
            .iter()
            .filter(|held| {
                paths.is_empty()
                    || paths.iter().any(|p| held.is_at_or_below(p) || p.is_at_or_below(held))
            })
            .cloned()
            .collect();
        let records = chosen.iter().map(|path| Record::Withheld(path.clone(), false)).collect();
        self.commit(records, true)?;
        self.stir();
        Ok(chosen.len())
    }
}
