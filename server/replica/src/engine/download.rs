//! Downloads: what to do about places at which the Volume has moved on.
//!
//! A place waits while the disk holds something there that is not synced: that
//! is the upload's to offer first, and the service's to call a conflict.

use std::sync::Arc;

use s0_tree::{Actor, ContentId, NodeId, Place, TreePath, comparison_key};

use super::look::leads_out;
use super::{Done, Effect, Fetched, Link, Local, Notice, Replica};
use crate::disk::{Disk, DiskError, IntentId, Seen, Spot, StagedName};
use crate::state::{Facts, Intent, Phase, Print, Record, Remote, Row, Store, What};

/// How many intents are under way at a time.
const INTENTS: usize = 512;
/// How many places one step plans.
const PLANS_PER_STEP: usize = 8192;
/// Bytes of contents that came with the journal and are kept until applied.
const CACHE_BUDGET: usize = 64 << 20;

/// Why a name cannot come to a root that folds names.
pub(super) const ANOTHER_SPELLING: &str = "another spelling of this name is on the disk";

/// What a place needs.
enum Need {
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
    /// Plans what can be planned and applies what is ready.
    pub(super) fn download(&mut self) -> Done {
        if self.remote.is_none() {
            return Ok(());
        }
        if self.retry.is_some_and(|at| at <= self.now) {
            self.retry = None;
            self.stir();
        }
        for slot in std::mem::take(&mut self.abandoned) {
            self.abandon(slot, false)?;
        }
        if self.link == Link::Following {
            if std::mem::take(&mut self.reconsider) {
                self.consider_everything();
            }
            self.plan()?;
        }
        self.apply_ready()
    }

    fn plan(&mut self) -> Done {
        let (mut intents, mut planned) = (Vec::new(), 0);
        let mut touched_directories = Vec::new();
        let mut taken = std::collections::HashSet::new();
        while planned < PLANS_PER_STEP && self.active.len() + intents.len() < INTENTS {
            let Some((place, actor)) = self.incoming.pop_first() else { break };
            planned += 1;
            if !taken.insert(place.clone()) {
                // It has an intent of this very round.
                self.waiting.insert(place, actor);
                continue;
            }
            match self.need(&place, actor.as_ref()) {
                Need::Nothing => {}
                Need::Wait => {
                    self.waiting.insert(place.clone(), actor);
                }
                Need::Remember(records) => self.commit(records, false)?,
                Need::Intend(intent) => {
                    intents.push(*intent);
                    continue;
                }
                direct => {
                    if !self.do_now(&place, actor.clone(), direct, &mut touched_directories)? {
                        self.waiting.insert(place.clone(), actor);
                    }
                }
            }
            taken.remove(&place);
        }
        if !self.incoming.is_empty() && planned == PLANS_PER_STEP {
            self.retry_in(0);
        }
        if !touched_directories.is_empty() {
            self.disk_sync(&touched_directories);
        }
        self.intend(intents)
    }

    /// Decides what a place needs. Looks, but changes nothing.
    fn need(&mut self, place: &Place, actor: Option<&Actor>) -> Need {
        let Some(path) = self.disk_path(place) else {
            // Its directory is not here yet; making that one brings this back.
            return Need::Nothing;
        };
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
        if self.is_outgoing(&path) || self.dirty.contains_key(&path) || self.held.contains(&path) {
            return Need::Wait;
        }
        let missing = |above| {
            matches!(
                self.changed.get(&above),
                Some(Local::Gone | Local::There { what: What::File(_) | What::Symlink(_), .. })
            )
        };
        if path.ancestors().any(missing) {
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
            if self.rules.is_ignored(&path, directory) {
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
        if row.as_ref().is_some_and(|row| row.what.is_directory() && self.is_moved(row.node)) {
            // The user moved it, and is to be heard first.
            return Need::Wait;
        }
        match (row, remote) {
            (None, None) => Need::Nothing,
            (Some(row), None) => self.need_removal(place, path, row, actor),
            (None, Some(remote)) => self.need_arrival(place, path, remote, actor),
            (Some(row), Some(remote)) => self.need_update(place, path, row, remote, actor),
        }
    }

    /// Removed on both sides. Whatever was below is gone with it; where the
    /// Volume has moved it elsewhere it arrives there as something new.
    fn both_removed(&mut self, place: &Place, path: &TreePath) -> Need {
        self.reconsider |= !self.rows_below(path).is_empty();
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
        self.incoming.insert(old.clone(), None);
        let row = Row { version: remote.version, ..row };
        Need::Remember(vec![Record::Moved { from: old, to: place.clone(), row }])
    }

    fn need_removal(
        &mut self,
        place: &Place,
        path: TreePath,
        row: Row,
        actor: Option<&Actor>,
    ) -> Need {
        let moved_to = self.new_home(row.node, place);
        if let Some(home) = moved_to
            && (row.what.is_directory() || self.row(&home).is_none())
        {
            // Considered where it goes; if that cannot be yet, a directory
            // waits too. A file can be fetched again.
            let may_come = self.is_reachable_home(row.node)
                && (row.what.is_directory() || self.is_free(&home));
            self.incoming.entry(home).or_insert_with(|| actor.cloned());
            if may_come {
                return Need::Wait;
            }
        }
        self.need_plain_removal(place, path, row, actor)
    }

    /// Whether nothing keeps a file from coming to a place right away.
    fn is_free(&mut self, place: &Place) -> bool {
        let Some(path) = self.disk_path(place) else { return false };
        self.row(place).is_none()
            && !self.in_conflict(&path)
            && !self.changed.contains_key(&path)
            && !self.dirty.contains_key(&path)
            && !self.problems.contains_key(&path)
            && !self.is_outgoing(&path)
            && !self.remote_at(place).is_some_and(|remote| self.is_crowded(place, remote.node))
            && !self.rules.is_ignored(&path, false)
    }

    /// Whether another node is synced under a name that this root takes for
    /// the same. A node that is only spelled anew is not in its own way.
    fn is_crowded(&self, place: &Place, node: NodeId) -> bool {
        self.namesake(place).is_some_and(|name| {
            let other = Place { parent: place.parent, name };
            self.row(&other).is_some_and(|row| row.node != node)
        }) || self.disk_path(place).is_some_and(|path| self.has_new_namesake(&path))
    }

    /// Whether a node is synced somewhere that is not in the directory at `path`.
    fn is_synced_outside(&self, node: NodeId, path: &TreePath) -> bool {
        let mut places = self.state.synced.places(node).iter();
        places.any(|at| self.disk_path(at).is_some_and(|at| !at.is_at_or_below(path)))
    }

    fn need_plain_removal(
        &mut self,
        place: &Place,
        path: TreePath,
        row: Row,
        actor: Option<&Actor>,
    ) -> Need {
        if !row.what.is_directory() {
            if self.is_being_written(&path) {
                return Need::Wait;
            }
            return self.intent(place, path, Some(row), None, actor);
        }
        if self.state.synced.children(row.node).next().is_some() {
            return Need::Wait;
        }
        Need::RemoveDirectory(path)
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

    /// Whether the new home of a node is one to which it may come: not ignored,
    /// not under `.git`.
    fn is_reachable_home(&mut self, node: NodeId) -> bool {
        let Some(path) = self.remote.as_ref().and_then(|tree| tree.path_of(node)) else {
            return false;
        };
        let directory = self.remote.as_ref().and_then(|t| t.node(node)?.directory()).is_some();
        !path.names().any(|name| comparison_key(name.as_str()) == ".git")
            && !self.rules.is_ignored(&path, directory)
    }

    fn need_arrival(
        &mut self,
        place: &Place,
        path: TreePath,
        remote: Remote,
        actor: Option<&Actor>,
    ) -> Need {
        if let What::Symlink(target) = &remote.what
            && (leads_out(&path, target) || !self.disk.abilities().symlinks)
        {
            self.refuse(&path, format!("the link leads out of the workspace: {target}"));
            return Need::Wait;
        }
        let old_place = self.state.synced.places(remote.node).iter().find(|old| {
            *old != place
                && self.remote.as_ref().is_some_and(|t| t.at_place(old) != Some(remote.node))
        });
        if let Some(from) = old_place.cloned()
            && let Some(row) = self.row(&from).cloned()
            && let Some(old) = self.disk_path(&from)
        {
            let busy = self.is_moved(row.node)
                || self.active.contains_key(&from)
                || self.is_outgoing(&old)
                || self.dirty.contains_key(&old)
                || self.changed.contains_key(&old)
                || self.in_conflict(&old);
            if row.what.is_directory() {
                if busy || path.is_at_or_below(&old) {
                    return Need::Wait;
                }
                return Need::Move { from, old, new: path, row, remote };
            }
            // What is only spelled anew keeps its place on a root that folds
            // names: its content can come when the spelling has.
            let respelled =
                from.parent == place.parent && self.is_one_name(&from.name, &place.name);
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
        self.intent(place, path, None, Some(remote), actor)
    }

    fn need_update(
        &mut self,
        place: &Place,
        path: TreePath,
        row: Row,
        remote: Remote,
        actor: Option<&Actor>,
    ) -> Need {
        let remembered =
            |row: Row, remote: &Remote| Row { node: remote.node, version: remote.version, ..row };
        if row.what.is_directory() && remote.what.is_directory() {
            if row.node == remote.node {
                if !self.same_mode(&remote.what, row.mode, remote.mode) {
                    return Need::SetMode(path, row, remote);
                }
            } else {
                let lives =
                    self.new_home(row.node, place).filter(|_| self.is_reachable_home(row.node));
                match lives {
                    // Where its new home is free it goes there, and this place
                    // is free then.
                    Some(home)
                        if self.row(&home).is_none()
                            && self.directory_path(home.parent).is_some() =>
                    {
                        self.incoming.entry(home).or_default();
                        return Need::Wait;
                    }
                    // Directories have changed places in a circle. This one
                    // stays and becomes the other; what is in it then differs,
                    // and is brought file by file.
                    Some(home) => {
                        self.incoming.entry(home).or_default();
                    }
                    // It goes, and the other comes from where it was.
                    None if self.is_synced_outside(remote.node, &path) => {
                        self.waiting.insert(place.clone(), actor.cloned());
                        return self.need_plain_removal(place, path, row, actor);
                    }
                    // The other was in this one, and comes up to take its
                    // place; or nobody had it.
                    None => {}
                }
                self.expect_children(remote.node);
                self.expect_rows(row.node, remote.node);
                // Its mode is compared next.
                self.incoming.insert(place.clone(), actor.cloned());
            }
            let row = remembered(row, &remote);
            return Need::Remember(vec![Record::Synced(place.clone(), Some(row))]);
        }
        if row.what.is_directory() || remote.what.is_directory() {
            // Of another kind: the old one goes first, then the new one comes.
            self.waiting.insert(place.clone(), actor.cloned());
            return self.need_removal(place, path, row, actor);
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
            self.refuse(&path, format!("the link leads out of the workspace: {target}"));
            return Need::Wait;
        }
        if self.is_being_written(&path) {
            return Need::Wait;
        }
        self.intent(place, path, Some(row), Some(remote), actor)
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
        actor: Option<&Actor>,
    ) -> Need {
        Need::Intend(Box::new(Intent {
            place: place.clone(),
            path,
            before,
            after,
            phase: Phase::Planned,
            actor: actor.cloned(),
        }))
    }

    /// What can be done in one call of the disk. Says whether it was.
    fn do_now(
        &mut self,
        place: &Place,
        actor: Option<Actor>,
        need: Need,
        directories: &mut Vec<TreePath>,
    ) -> Result<bool, super::Stop> {
        let removed = matches!(need, Need::RemoveDirectory(_));
        let (path, before, after) = match need {
            Need::MakeDirectory(path, remote) => {
                match self.disk.make_directory(&path, remote.mode) {
                    Ok(()) => {}
                    Err(error) => return Ok(self.give_way(&path, &error)),
                }
                let Some(stat) = self.look_again(&path) else { return Ok(false) };
                self.remember(place, &remote, stat)?;
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
                self.remember(place, &remote, stat)?;
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
                let moved = Row { print, version: remote.version, ..row.clone() };
                self.moved.retain(|_, node| *node != row.node);
                let moved = Record::Moved { from: from.clone(), to: place.clone(), row: moved };
                self.commit(vec![moved], false)?;
                self.rebase_notes(&old, &new);
                directories.extend(old.parent());
                self.incoming.insert(from, None);
                // Its mode, or its content, may have changed as well.
                self.incoming.insert(place.clone(), actor.clone());
                self.touch(new.clone(), self.now, true);
                (new, Some(row.what.clone()), Some(row.what))
            }
            Need::Nothing | Need::Wait | Need::Remember(_) | Need::Intend(_) => return Ok(true),
        };
        directories.extend(path.parent());
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
            _ => print.stat == *stat && !self.is_racy(&print),
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

    fn remember(&mut self, place: &Place, remote: &Remote, stat: crate::disk::Stat) -> Done {
        let row = Row {
            node: remote.node,
            version: remote.version,
            what: remote.what.clone(),
            mode: remote.mode,
            print: Some(Print { stat, seen: self.disk.now() }),
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
            self.incoming.entry(place).or_default();
        }
    }

    /// So must those that are synced in `from` and will be in `to`.
    pub(super) fn expect_rows(&mut self, from: NodeId, to: NodeId) {
        let names: Vec<_> =
            self.state.synced.children(from).map(|(name, _)| name.clone()).collect();
        for name in names {
            self.incoming.entry(Place { parent: to, name }).or_default();
        }
    }

    /// Makes intents durable, and asks for what they need.
    fn intend(&mut self, intents: Vec<Intent>) -> Done {
        if intents.is_empty() {
            return Ok(());
        }
        let mut facts = self.state.facts.clone();
        let mut records = Vec::with_capacity(intents.len() + 1);
        let mut new = Vec::with_capacity(intents.len());
        for intent in intents {
            // Each intent owns two slots; see `IntentId::aside`.
            facts.last_intent = IntentId(facts.last_intent.0 + 2);
            records.push(Record::Intent(facts.last_intent, Some(intent.clone())));
            new.push((facts.last_intent, intent));
        }
        records.push(Record::Facts(Facts { ..facts }));
        self.commit(records, true)?;
        for (slot, intent) in new {
            self.active.insert(intent.place.clone(), slot);
            match intent.after.as_ref().map(|after| &after.what) {
                Some(What::File(content)) => match self.cache.get(&content.id) {
                    Some(bytes) => {
                        self.ready.insert(slot, Some(bytes.clone()));
                    }
                    None => self.effects.push_back(Effect::Fetch {
                        slot,
                        content: *content,
                        reuse: intent.path.clone(),
                    }),
                },
                _ => {
                    self.ready.insert(slot, None);
                }
            }
        }
        Ok(())
    }

    /// A content has arrived, or has not.
    pub(super) fn fetched(&mut self, slot: IntentId, fetched: Fetched) {
        if !self.state.intents.contains_key(&slot) {
            return;
        }
        match fetched {
            Fetched::Bytes(bytes) => {
                self.ready.insert(slot, Some(bytes));
            }
            Fetched::Part => {
                self.ready.insert(slot, None);
            }
            Fetched::Failed | Fetched::NoRoom => {
                if matches!(fetched, Fetched::NoRoom) {
                    self.stop_with(super::Halt::DiskFull);
                }
                // Planned anew, with whatever the Volume holds then.
                if let Some(intent) = self.state.intents.get(&slot).cloned() {
                    self.deactivate(slot, &intent.place);
                    self.waiting.insert(intent.place, intent.actor);
                }
                self.ready.remove(&slot);
                self.abandoned.push(slot);
                self.retry_in(500);
            }
        }
    }

    /// The place is free for another intent.
    pub(super) fn deactivate(&mut self, slot: IntentId, place: &Place) {
        if self.active.get(place) == Some(&slot) {
            self.active.remove(place);
        }
    }

    /// Gives up an intent that has not touched the disk.
    pub(super) fn abandon(&mut self, slot: IntentId, again: bool) -> Done {
        self.ready.remove(&slot);
        let Some(intent) = self.state.intents.get(&slot).cloned() else { return Ok(()) };
        self.deactivate(slot, &intent.place);
        for name in [StagedName::Part(slot), StagedName::Whole(slot)] {
            match self.disk.discard(&name) {
                Ok(()) | Err(DiskError::NotFound) => {}
                Err(error) => {
                    self.problem(&intent.path, &error);
                }
            }
        }
        if again {
            self.incoming.insert(intent.place, intent.actor);
        }
        self.commit(vec![Record::Intent(slot, None)], false)
    }

    /// Keeps a small content that came with the journal.
    pub(super) fn keep_content(&mut self, id: ContentId, bytes: Arc<[u8]>) {
        if self.cache_held + bytes.len() > CACHE_BUDGET {
            self.cache.clear();
            self.cache_held = 0;
        }
        let size = bytes.len();
        if self.cache.insert(id, bytes).is_none() {
            self.cache_held += size;
        }
    }
}
