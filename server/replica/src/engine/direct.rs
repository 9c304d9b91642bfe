//! What is done in one call of the disk: directories, modes, moves.

use s0_tree::{NodeId, Place, TreePath};

use super::need::{ANOTHER_SPELLING, Need};
use super::{Done, Notice, Replica};
use crate::disk::{Disk, DiskError, Seen, Spot};
use crate::state::{Print, Record, Remote, Row, Store, What};

impl<D: Disk, S: Store> Replica<D, S> {
    /// What can be done in one call of the disk. Says whether it was.
    pub(super) fn do_now(
        &mut self,
        place: &Place,
        need: Need,
        directories: &mut Vec<TreePath>,
    ) -> Result<bool, super::Stop> {
        let removed = matches!(need, Need::RemoveDirectory(_));
        let actor = self.author_of(place);
        let mut review = None;
        let (path, before, after) = match need {
            Need::MakeDirectory(path, remote) => {
                match self.disk.make_directory(&path, remote.mode) {
                    Ok(()) => {}
                    Err(error) => return Ok(self.give_way(&path, &error)),
                }
                let Some(stat) = self.look_again(&path) else { return Ok(false) };
                self.remember(place, &remote, stat, false)?;
                self.expect_children(remote.node);
                // Something may have been put into it already.
                self.touch(path.clone(), self.now, true);
                (path, None, Some(remote.what))
            }
            Need::RemoveDirectory(path) => {
                match self.disk.remove_directory(&path) {
                    Ok(()) | Err(DiskError::NotFound) => {}
                    Err(DiskError::NotEmpty) => return self.keep_directory(place, &path),
                    Err(error) => return Ok(self.give_way(&path, &error)),
                }
                // No look finds it any more.
                self.forget_below(&path);
                self.commit(vec![Record::Synced(place.clone(), None)], false)?;
                (path, Some(What::Directory), None)
            }
            Need::SetMode(path, row, remote) => {
                match self.disk.stat(&Spot::Path(path.clone())) {
                    Ok(Some(stat)) if self.is_still(&row, &stat) => {}
                    _ => return Ok(self.give_way(&path, &DiskError::Exists)),
                }
                if let Err(error) = self.disk.set_mode(&path, remote.mode) {
                    return Ok(self.give_way(&path, &error));
                }
                let Some(stat) = self.look_again(&path) else { return Ok(false) };
                let set = self.same_mode(&row.what, stat.mode, remote.mode);
                let same = row.print.is_some_and(|print| {
                    set && stat.inode == print.stat.inode
                        && (row.what.is_directory()
                            || (stat.mtime == print.stat.mtime && stat.size == print.stat.size))
                });
                if !same {
                    return Ok(self.give_way(&path, &DiskError::Exists));
                }
                let open = row.print.is_some_and(|print| print.open);
                if !row.what.is_directory() {
                    let sides = [row.mode, remote.mode].map(|mode| Some((row.what.clone(), mode)));
                    let version = Some(remote.version);
                    review = self.for_review(0, &path, None, sides.into(), actor.as_ref(), version);
                }
                self.remember(place, &remote, stat, open)?;
                (path, Some(row.what), Some(remote.what))
            }
            Need::Move { from, old, new, row, remote } => {
                let intact = match self.disk.stat(&Spot::Path(old.clone())) {
                    Ok(Some(stat)) => self.is_still(&row, &stat),
                    _ => false,
                };
                if !intact {
                    self.touch(old, self.now, true);
                    return Ok(false);
                }
                if let Err(error) = self.disk.rename(&old, &new) {
                    if matches!(error, DiskError::NotFound) {
                        self.touch(old, self.now, true);
                    }
                    return Ok(self.give_way(&new, &error));
                }
                let Some(stat) = self.look_again(&new) else { return Ok(false) };
                let print = row.print.map(|print| {
                    let same = print.stat.mode == stat.mode
                        && (row.what.is_directory()
                            || (print.stat.mtime == stat.mtime && print.stat.size == stat.size));
                    let stat = if same { stat } else { print.stat };
                    Print { stat, ..print }
                });
                // The version says that all of it is here, not the name alone.
                let whole = row.what == remote.what && row.mode == remote.mode;
                let version = if whole { remote.version } else { row.version };
                let moved = Row { print, version, ..row.clone() };
                self.moved.retain(|_, node| *node != row.node);
                let moved = Record::Moved { from: from.clone(), to: place.clone(), row: moved };
                self.commit(vec![moved], false)?;
                self.rebase_notes(&old, &new);
                directories.extend(old.parent());
                self.incoming.insert(from);
                // Its mode, or its content, may have changed as well.
                self.incoming.insert(place.clone());
                self.touch(new.clone(), self.now, true);
                let side = Some((row.what.clone(), row.mode));
                let sides = (side.clone(), side);
                let version = Some(remote.version);
                review = self.for_review(0, &new, Some(&old), sides, actor.as_ref(), version);
                (new, Some(row.what.clone()), Some(row.what))
            }
            Need::Nothing | Need::Wait | Need::Remember(_) | Need::Intend(_) => return Ok(true),
        };
        directories.extend(path.parent());
        self.commit(review.into_iter().collect(), false)?;
        self.stir();
        self.notice(Notice::Applied { path, removed, actor, before, after });
        Ok(true)
    }

    /// What was noted of paths below a directory follows it.
    fn rebase_notes(&mut self, old: &TreePath, new: &TreePath) {
        let rebase = |path: &TreePath| path.rebase(old, new).filter(|_| path != old);
        let changed: Vec<_> = super::look::below(&self.changed, old).cloned().collect();
        for path in changed {
            self.forget(&path);
            if let Some(path) = rebase(&path) {
                self.touch(path, self.now, true);
            }
        }
        let moved: Vec<_> = super::look::below(&self.moved, old).cloned().collect();
        for path in moved {
            if let (Some(node), Some(path)) = (self.moved.remove(&path), rebase(&path)) {
                self.moved.insert(path, node);
            }
        }
        let dirty: Vec<_> = super::look::below(&self.dirty, old).cloned().collect();
        for path in dirty {
            if let (Some(dirt), Some(path)) = (self.dirty.remove(&path), rebase(&path)) {
                self.touch_to(path, dirt.due, dirt.reach);
            }
        }
    }

    /// Whether a file is the one of the row, as far as its stat tells. A
    /// directory is, as long as it is that directory.
    fn is_still(&self, row: &Row, stat: &crate::disk::Stat) -> bool {
        row.print.is_some_and(|print| match row.what {
            What::Directory => {
                stat.kind == Seen::Directory
                    && print.stat.inode == stat.inode
                    && self.same_mode(&row.what, row.mode, stat.mode)
            }
            // What a program writes into it stays in it, whatever it is called.
            _ => print.stat == *stat && !self.is_racy(&Print { open: false, ..print }),
        })
    }

    fn look_again(&mut self, path: &TreePath) -> Option<crate::disk::Stat> {
        match self.disk.stat(&Spot::Path(path.clone())) {
            Ok(Some(stat)) => Some(stat),
            _ => {
                self.touch(path.clone(), self.now, true);
                None
            }
        }
    }

    fn remember(
        &mut self,
        place: &Place,
        remote: &Remote,
        stat: crate::disk::Stat,
        open: bool,
    ) -> Done {
        let row = Row {
            node: remote.node,
            version: remote.version,
            what: remote.what.clone(),
            mode: remote.mode,
            print: Some(Print { stat, seen: self.disk.now(), open }),
        };
        self.commit(vec![Record::Synced(place.clone(), Some(row))], false)
    }

    /// The disk was not as it was thought to be. Looks again, or notes the
    /// problem. Always says that the work was not done.
    pub(super) fn give_way(&mut self, path: &TreePath, error: &DiskError) -> bool {
        match error {
            DiskError::NotFound | DiskError::NotADirectory => {
                // Whatever is missing is above, if not the path itself.
                self.touch(path.clone(), self.now, true);
                if let Some(above) = path.parent() {
                    self.touch(above, self.now, false);
                }
            }
            DiskError::Exists => {
                // Nothing there by this spelling, and yet in the way: the root
                // takes another name for this one.
                let absent = matches!(self.disk.stat(&Spot::Path(path.clone())), Ok(None));
                if absent && self.row_at(path).is_none() {
                    self.refuse(path, ANOTHER_SPELLING.into());
                } else {
                    self.touch(path.clone(), self.now, true);
                }
            }
            DiskError::Full => self.stop_with(super::Halt::DiskFull),
            error => self.problem(path, error),
        }
        false
    }

    /// A directory that the Volume removed holds something that was never
    /// synced. If that is on its way to be offered, it waits; else it stays.
    fn keep_directory(&mut self, place: &Place, path: &TreePath) -> Result<bool, super::Stop> {
        let pending = super::look::below(&self.changed, path).any(|below| self.is_wanted(below))
            || super::look::below(&self.dirty, path).next().is_some()
            || self.state.conflicts.keys().any(|other| other.is_at_or_below(path))
            || self.in_flight.iter().any(|other| other.is_at_or_below(path))
            || self.displaced.values().any(|it| it.path.is_at_or_below(path))
            || self.active_below(path);
        if pending {
            return Ok(false);
        }
        let unseen = match self.listed(path) {
            Ok(listing) => listing.entries.into_iter().find(|(name, stat)| {
                let child = path.join(name);
                !self.rules.is_ignored(&child, stat.kind == Seen::Directory)
                    && !self.problems.contains_key(&child)
                    && !self.state.withheld.contains(&child)
                    && !self.state.kept.contains(&child)
            }),
            Err(_) => None,
        };
        if unseen.is_some() {
            // Something new that no look has found yet.
            self.touch(path.clone(), self.now, true);
            return Ok(false);
        }
        self.commit(
            vec![Record::Synced(place.clone(), None), Record::Kept(path.clone(), true)],
            false,
        )?;
        // It is a local directory now, and what comes into it may be sent.
        self.touch(path.clone(), self.now, true);
        self.notice(Notice::DirectoryKept(path.clone()));
        self.stir();
        Ok(true)
    }

    fn active_below(&self, path: &TreePath) -> bool {
        self.active.values().any(|id| {
            self.state.intents.get(id).is_some_and(|intent| intent.path.is_at_or_below(path))
        })
    }

    /// The children that the Volume has in a directory must be considered.
    pub(super) fn expect_children(&mut self, directory: NodeId) {
        let Some(children) = self.remote.as_ref().and_then(|t| t.node(directory)?.directory())
        else {
            return;
        };
        for (name, _) in children.iter() {
            let place = Place { parent: directory, name: name.clone() };
            self.incoming.insert(place);
        }
    }

    /// So must those that are synced in `from` and will be in `to`.
    pub(super) fn expect_rows(&mut self, from: NodeId, to: NodeId) {
        let names: Vec<_> =
            self.state.synced.children(from).map(|(name, _)| name.clone()).collect();
        for name in names {
            self.incoming.insert(Place { parent: to, name });
        }
    }
}
