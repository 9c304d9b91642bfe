//! Looking at the disk: which paths are not what is synced.
//!
//! A look never changes what is synced, except to note that a file which was
//! read has the content that it had. What differs goes to `changed`, for the
//! upload to send and the download to stay away from.

use s0_tree::{MAX_PATH_BYTES, NodeId, Place, TreePath, comparison_key};

use super::guard::is_own;
use super::{Dirt, Done, Hint, Local, Notice, Reach, Replica, Stop};
use crate::disk::{Disk, DiskError, Seen, Spot, Stat};
use crate::state::{Print, Record, Row, Store, What};

/// How many paths one step looks at, so that other work gets its turn.
const LOOKS_PER_STEP: usize = 4096;
/// Milliseconds after which a root that does not keep spellings is looked
/// through once more.
const SECOND_LOOK: u64 = 1000;
/// Why what is at a mount is not synced.
pub(super) const MOUNTED: &str =
    "another file system is mounted here, which is not synced; unmount it, or have it ignored";
/// The longest, in milliseconds, that a file which never rests is left alone.
const LONGEST_WAIT: u64 = 1000;

impl<D: Disk, S: Store> Replica<D, S> {
    /// Notes what a watcher said.
    pub(super) fn hear(&mut self, path: &TreePath, hint: &Hint) {
        if let Hint::MovedFrom(from) = hint {
            return self.look_together(from, path);
        }
        if path.names().next().is_some_and(|first| is_own(first.as_str())) {
            return;
        }
        if self.rules.changed(path) {
            self.rules_changed();
        }
        if !self.disk.abilities().case_preserving {
            // What is done by another spelling of a directory's name raises no event
            // for the directory that is watched.
            self.second_look = Some(self.now + SECOND_LOOK);
        }
        let Some(path) = self.spelled_path(path) else {
            // Only a listing of what is known says which name this is.
            let known = path.ancestors().collect::<Vec<_>>().into_iter().rev();
            let above = known.into_iter().find(|above| self.directory_at(above).is_some());
            self.touch_to(above.unwrap_or_default(), self.now + self.config.settle, Reach::All);
            return;
        };
        let known = self.row_at(&path).is_some();
        let heated = self.heat.get(&path).map_or(0, |heat| heat.cool_at());
        let due = match hint {
            Hint::Complete if known => self.now.max(heated),
            _ => (self.now + self.config.settle).max(heated),
        };
        let first = self.dirty.get(&path).map_or(self.now, |dirt| dirt.first);
        let due = due.min(first.max(heated) + LONGEST_WAIT);
        // A moved directory brings children that nothing was heard of.
        if !self.disk.abilities().case_sensitive
            && let Some(above) = path.parent()
        {
            // The name may be in a spelling that is not the disk's.
            self.touch_to(above, due, Reach::Children);
        }
        self.touch(path, due, true);
    }

    /// Both ends of a move are looked at in one go. If the old name were found gone a
    /// moment before the new one is seen, or the other way around, a removal and a
    /// new file would be sent, and the file's history would end.
    fn look_together(&mut self, from: &TreePath, to: &TreePath) {
        let (Some(from), Some(to)) = (self.spelled_path(from), self.spelled_path(to)) else {
            return;
        };
        if self.row_at(&from).is_none() || self.row_at(&to).is_some() {
            return;
        }
        if let (Some(old), Some(new)) = (self.dirty.get(&from), self.dirty.get(&to)) {
            let due = old.due.max(new.due);
            for path in [from, to] {
                self.dirty.entry(path).and_modify(|dirt| dirt.due = due);
            }
        }
    }

    /// Other paths are ignored now, of the disk and of the Volume.
    pub(super) fn rules_changed(&mut self) {
        self.touch(TreePath::root(), self.now, true);
        self.ignored_incoming.clear();
        self.reconsider = true;
    }

    /// Wants `path` looked at, when `due` has come.
    pub(super) fn touch(&mut self, path: TreePath, due: u64, deep: bool) {
        self.touch_to(path, due, if deep { Reach::All } else { Reach::Itself });
    }

    pub(super) fn touch_to(&mut self, path: TreePath, due: u64, reach: Reach) {
        let first = self.now;
        let dirt = self.dirty.entry(path).or_insert(Dirt { due, first, reach });
        dirt.due = due;
        dirt.reach = dirt.reach.max(reach);
    }

    /// Looks at the paths that are due. Says whether more are.
    pub(super) fn look(&mut self) -> Result<bool, Stop> {
        if let Some(at) = self.second_look
            && !self.dirty.contains_key(&TreePath::root())
        {
            self.second_look = None;
            self.touch(TreePath::root(), at, true);
        }
        let due: Vec<TreePath> = self
            .dirty
            .iter()
            .filter(|(path, dirt)| dirt.due <= self.now && !self.is_outgoing(path))
            .take(LOOKS_PER_STEP)
            .map(|(path, _)| path.clone())
            .collect();
        if due.is_empty() {
            return Ok(false);
        }
        self.check_root()?;
        if self.halt.is_some() {
            return Ok(false);
        }
        let mut unread = Vec::new();
        for path in &due {
            // A look at a directory above may have taken care of this one.
            let Some(dirt) = self.dirty.remove(path) else { continue };
            if path.is_root() {
                self.look_at_everything(dirt.reach, &mut unread)?;
                continue;
            }
            match self.disk.stat(&Spot::Path(path.clone())) {
                Ok(stat) => self.compare(path, stat, dirt.reach, &mut unread)?,
                Err(error) => self.problem(path, &error),
            }
        }
        self.read(&unread)?;
        self.stir();
        self.guard_deletions();
        Ok(due.len() == LOOKS_PER_STEP)
    }

    fn look_at_everything(&mut self, reach: Reach, unread: &mut Vec<(TreePath, Stat)>) -> Done {
        if reach == Reach::All {
            self.disk.will_list(self.synced_directories());
        }
        let done = self.list(&TreePath::root(), reach.below(), unread);
        self.disk.will_list(Vec::new());
        done
    }

    /// Where the synced directories are, as far as the user has not moved them.
    fn synced_directories(&self) -> Vec<TreePath> {
        let mut found = Vec::new();
        let mut open = vec![(TreePath::root(), NodeId::ROOT)];
        while let Some((path, node)) = open.pop() {
            let below = self.state.synced.children(node);
            let below = below.filter(|(_, row)| row.what.is_directory());
            open.extend(below.map(|(name, row)| (path.join(name), row.node)));
            found.push(path);
        }
        found
    }

    /// Whether the submission on its way speaks of this path.
    pub(super) fn is_outgoing(&self, path: &TreePath) -> bool {
        self.in_flight.contains(path)
    }

    /// Compares what is at `path` with what is synced there.
    pub(super) fn compare(
        &mut self,
        path: &TreePath,
        stat: Option<Stat>,
        reach: Reach,
        unread: &mut Vec<(TreePath, Stat)>,
    ) -> Done {
        let name = path.name();
        // The event that told of other rules may be among those that were lost.
        let may_rule = name.as_ref().is_some_and(|name| name.as_str().starts_with('.'));
        if may_rule && self.rules.changed(path) {
            self.rules_changed();
        }
        if name.is_some_and(|name| comparison_key(name.as_str()) == ".git") {
            return Ok(());
        }
        if path.as_str().len() > MAX_PATH_BYTES {
            // No Volume takes it. The listing of its directory tells.
            return Ok(());
        }
        let mut reach = reach;
        if self.problems.remove(path).is_some() {
            // It may work now; if not, it says so again. What was wrong with a
            // directory may be a name in it.
            reach = reach.max(Reach::Children);
            if let Some(place) = self.place_at(path) {
                self.incoming.insert(place);
            }
        }
        let synced = self.row_at(path).map(|(place, row)| (place, row.clone()));
        // What answers to this name may be a sibling of another spelling.
        let namesake = synced.is_none()
            && !self.disk.abilities().case_preserving
            && self.place_at(path).is_some_and(|place| self.namesake(&place).is_some());
        let stat = stat.filter(|_| !namesake);
        let is_directory = stat.is_some_and(|stat| stat.kind.may_be_directory());
        if self.state.kept.contains(path) && (!is_directory || synced.is_some()) {
            self.commit(vec![Record::Kept(path.clone(), false)], false)?;
        }
        let Some(stat) = stat else {
            self.vanished(path, synced.is_some());
            return Ok(());
        };
        if synced.is_none()
            && !self.moved.contains_key(path)
            && self.rules.is_ignored(path, is_directory)
        {
            self.forget_below(path);
            self.changed.remove(path);
            return Ok(());
        }
        match stat.kind {
            Seen::Other => {
                self.refuse(path, "it is neither a file, a directory nor a link".into());
            }
            Seen::Mount => self.refuse(path, MOUNTED.into()),
            Seen::Unknown => match self.disk.stat(&Spot::Path(path.clone())) {
                Err(error) => self.problem(path, &error),
                // It can be known by now.
                Ok(_) => self.touch_to(path.clone(), self.now, reach),
            },
            Seen::Directory => self.compare_directory(path, stat, synced, reach, unread)?,
            Seen::File => {
                self.forget_below(path);
                if synced.as_ref().is_some_and(|(_, row)| self.is_clean(row, &stat)) {
                    self.forget(path);
                } else {
                    unread.push((path.clone(), stat));
                }
            }
            Seen::Symlink => {
                self.forget_below(path);
                match self.disk.read_link(&Spot::Path(path.clone())) {
                    Ok(target) if leads_out(path, &target) => {
                        self.refuse(path, leading_out(&target));
                    }
                    Ok(target) => {
                        let what = What::Symlink(target.into());
                        self.differs(path, synced, what, stat)?;
                    }
                    Err(error) => match self.disk.stat(&Spot::Path(path.clone())) {
                        Ok(Some(now)) if now == stat => self.problem(path, &error),
                        // It is no link any more.
                        _ => self.touch(path.clone(), self.now, false),
                    },
                }
            }
        }
        Ok(())
    }

    fn compare_directory(
        &mut self,
        path: &TreePath,
        stat: Stat,
        synced: Option<(Place, Row)>,
        reach: Reach,
        unread: &mut Vec<(TreePath, Stat)>,
    ) -> Done {
        let known = synced.as_ref().is_some_and(|(_, row)| row.what.is_directory())
            || self.moved.contains_key(path);
        if !known && !self.changed.contains_key(path) {
            self.find_moved(path, &stat);
        }
        // Another directory in the place of the one that was seen last has
        // children that no event has told of.
        let another = synced
            .as_ref()
            .is_some_and(|(_, row)| row.print.is_none_or(|print| print.stat.inode != stat.inode));
        let reach = if another { Reach::All } else { reach };
        if let Some(node) = self.moved.get(path).copied() {
            // Its mode is compared once the Volume has it here.
            self.changed.insert(path.clone(), Local::Moved { node });
        } else {
            self.differs(path, synced, What::Directory, stat)?;
        }
        if reach != Reach::Itself || !known {
            self.list(path, reach.below(), unread)?;
        }
        Ok(())
    }

    /// Notes what is at `path`, which may be what is synced after all.
    fn differs(
        &mut self,
        path: &TreePath,
        synced: Option<(Place, Row)>,
        what: What,
        stat: Stat,
    ) -> Done {
        let print = Print { stat, seen: self.disk.now(), open: false };
        let mode = stat.mode & 0o777;
        if let Some((place, row)) = synced
            && row.what == what
            && self.same_mode(&what, row.mode, mode)
        {
            // A directory's own stat follows its children; only its identity counts.
            let stale = match (&what, row.print) {
                (What::Directory, Some(old)) => old.stat.inode != stat.inode,
                (_, Some(old)) => old != print,
                (_, None) => true,
            };
            if stale {
                let row = Row { print: Some(print), ..row };
                self.commit(vec![Record::Synced(place, Some(row))], false)?;
            }
            self.forget(path);
            return Ok(());
        }
        self.changed.insert(path.clone(), Local::There { what, mode, print });
        self.adopt(path)
    }

    /// There is nothing to send of a path.
    pub(super) fn forget(&mut self, path: &TreePath) {
        self.changed.remove(path);
        if let Some(bytes) = self.bytes.remove(path) {
            self.bytes_held -= bytes.len();
        }
    }

    /// Forgets what was noted below a path that is no directory any more.
    pub(super) fn forget_below(&mut self, path: &TreePath) {
        let changed: Vec<_> = below(&self.changed, path).cloned().collect();
        for path in changed {
            self.forget(&path);
        }
        for path in below_or_at(&self.moved, path) {
            let node = self.moved.remove(&path);
            self.changed.remove(&path);
            // It is missing from the place that the Volume knows.
            let home = node.and_then(|node| self.state.synced.home(node).cloned());
            if let Some(home) = home.and_then(|place| self.disk_path(&place)) {
                self.touch(home, self.now, true);
            }
        }
        let dirty: Vec<_> = below(&self.dirty, path).cloned().collect();
        for path in dirty {
            self.dirty.remove(&path);
        }
        let problems: Vec<_> = below(&self.problems, path).cloned().collect();
        for path in problems {
            self.problems.remove(&path);
            self.reconsider = true;
        }
    }

    pub(super) fn vanished(&mut self, path: &TreePath, synced: bool) {
        self.forget_below(path);
        self.forget(path);
        if synced {
            self.changed.insert(path.clone(), Local::Gone);
        }
    }

    pub(super) fn is_clean(&self, row: &Row, stat: &Stat) -> bool {
        matches!(row.what, What::File(_))
            && self.same_mode(&row.what, row.mode, stat.mode)
            && row.print.is_some_and(|print| self.is_same(&print, stat))
    }

    pub(super) fn problem(&mut self, path: &TreePath, error: &DiskError) {
        match error {
            DiskError::RootGone => self.stop_with(super::Halt::RootGone),
            error => self.refuse(path, error.to_string()),
        }
    }

    /// Notes why a path cannot be synced. It stops nothing else.
    pub(super) fn refuse(&mut self, path: &TreePath, why: String) {
        self.forget(path);
        if self.problems.get(path) != Some(&why) {
            self.notice(Notice::Problem { path: path.clone(), why: why.clone() });
            self.problems.insert(path.clone(), why);
        }
    }
}

/// The keys below a path.
pub(super) fn below<'a, V>(
    map: &'a std::collections::BTreeMap<TreePath, V>,
    path: &'a TreePath,
) -> impl Iterator<Item = &'a TreePath> {
    // Keys are in string order, so those with the prefix `path` are together,
    // mixed only with siblings such as `path.txt`.
    map.range(path.clone()..)
        .map(|(key, _)| key)
        .take_while(move |key| key.as_str().starts_with(path.as_str()))
        .filter(move |key| *key != path && key.is_at_or_below(path))
}

fn below_or_at<V>(map: &std::collections::BTreeMap<TreePath, V>, path: &TreePath) -> Vec<TreePath> {
    map.keys().filter(|key| key.is_at_or_below(path)).cloned().collect()
}

/// What is told of a link that is left alone.
pub(super) fn leading_out(target: &str) -> String {
    format!("the link leads out of the workspace, or could: {target}")
}

/// Whether a link's target, taken from the link's directory, could leave the root.
/// Any name in it may be a link itself, so that what goes up again behind a name
/// could be anywhere.
pub(super) fn leads_out(link: &TreePath, target: &str) -> bool {
    if target.starts_with('/') || target.contains('\0') || target.is_empty() {
        return true;
    }
    let (mut depth, mut named) = (link.depth() - 1, false);
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." if depth == 0 || named => return true,
            ".." => depth -= 1,
            _ => named = true,
        }
    }
    false
}
