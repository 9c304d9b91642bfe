//! Applying: compare and swap, and look at what came out.
//!
//! The order is: intent durable; stage and sync; swap; sync the directories;
//! commit what is synced. Whatever is displaced is the user's until it has been
//! compared, and stays in its slot until no program can write to it any more.

use std::sync::Arc;

use s0_tree::TreePath;

use super::conflicts::NOBODY;
use super::displaced::is_one_file;
use super::{Done, Notice, Replica};
use crate::disk::{Description, Disk, DiskError, IntentId, Spot, Stat};
use crate::state::{Intent, Phase, Print, Record, Row, Store, What};

/// How a swap went.
pub(super) enum Swapped {
    /// The disk holds what it shall; the print is of that.
    Done { print: Option<Print>, displaced: Option<(IntentId, Stat)> },
    /// The disk was not what is synced; it is as it was. When the staged file
    /// has been at the path for a moment, its stat from then.
    Changed(Option<Stat>),
    /// A program has the file open for writing.
    Busy,
    /// The disk would not; it is as it was.
    Failed(DiskError),
    /// The disk would not go on halfway. What came out, perhaps the user's, is
    /// in a slot of the intent.
    Stranded(DiskError),
}

impl<D: Disk, S: Store> Replica<D, S> {
    /// Applies the intents whose contents are here, in one batch.
    pub(super) fn apply_ready(&mut self) -> Done {
        if self.ready.is_empty() {
            return Ok(());
        }
        self.check_root()?;
        if self.halt.is_some() {
            return Ok(());
        }
        let mut staged = Vec::new();
        for (slot, bytes) in std::mem::take(&mut self.ready) {
            let Some(intent) = self.state.intents.get(&slot).cloned() else { continue };
            if !self.is_current(&intent) {
                self.abandon(slot, true)?;
                continue;
            }
            match self.stage(slot, &intent, bytes.as_deref()) {
                Ok(()) | Err(DiskError::Exists) => staged.push((slot, intent)),
                Err(DiskError::Full) => {
                    self.abandon(slot, true)?;
                    self.stop_with(super::Halt::DiskFull);
                }
                Err(error) => {
                    self.abandon(slot, false)?;
                    self.give_way(&intent.path, &error);
                }
            }
        }
        let new: Vec<_> =
            staged.iter().filter(|(_, it)| it.after.is_some()).map(|(slot, _)| *slot).collect();
        if !new.is_empty()
            && let Err(error) = self.disk.sync_staged(&new)
        {
            // Nothing has been swapped yet, so nothing is at stake.
            if let (DiskError::Other(_), Some((_, intent))) = (&error, staged.first()) {
                let why = format!("what came in could not be made durable: {error}");
                self.notice(Notice::Problem { path: intent.path.clone(), why });
            }
            for (slot, _) in staged {
                self.abandon(slot, true)?;
            }
            self.retry_in(1000);
            if matches!(error, DiskError::Full) {
                self.stop_with(super::Halt::DiskFull);
            }
            return Ok(());
        }
        self.swap_all(staged)
    }

    fn stage(
        &mut self,
        slot: IntentId,
        intent: &Intent,
        bytes: Option<&[u8]>,
    ) -> Result<(), DiskError> {
        match intent.after.as_ref().map(|after| (&after.what, after.mode)) {
            None => Ok(()),
            Some((What::File(_), mode)) => match bytes {
                Some(bytes) => self.disk.stage_file(slot, bytes, mode),
                None => self.disk.stage_part(slot, mode),
            },
            Some((What::Symlink(target), _)) => self.disk.stage_link(slot, target),
            Some((What::Directory, _)) => Ok(()),
        }
    }

    /// Whether the Volume and what is synced are still what an intent is about.
    fn is_current(&self, intent: &Intent) -> bool {
        let wanted = self.remote_at(&intent.place).filter(|remote| {
            // What is of another kind comes once the old thing is gone.
            let before = intent.before.as_ref().map(|row| row.what.is_directory());
            before.is_none_or(|before| before == remote.what.is_directory())
        });
        wanted == intent.after
            && self.row(&intent.place) == intent.before.as_ref()
            && self.disk_path(&intent.place).as_ref() == Some(&intent.path)
            && !self.in_conflict(&intent.path)
            && !self.is_outgoing(&intent.path)
            && self
                .hold(&intent.place, &intent.path, intent.after.as_ref(), intent.actor.as_ref())
                .is_none()
    }

    fn swap_all(&mut self, staged: Vec<(IntentId, Intent)>) -> Done {
        let (mut records, mut done) = (Vec::new(), Vec::new());
        for (slot, intent) in staged {
            match self.swap(slot, &intent) {
                Swapped::Done { print, displaced } => done.push((slot, intent, print, displaced)),
                Swapped::Changed(shown) => {
                    self.touch(intent.path.clone(), self.now, true);
                    self.deactivate(slot, &intent.place);
                    self.waiting.insert(intent.place.clone());
                    match shown {
                        None => self.abandon(slot, false)?,
                        Some(stat) => {
                            let after = intent.after.as_ref().map(|after| after.what.clone());
                            if let Some(content) = after {
                                self.leave(slot, slot, &intent, content, Some(stat));
                            }
                        }
                    }
                }
                Swapped::Busy => {
                    self.abandon(slot, false)?;
                    self.waiting.insert(intent.place);
                    self.retry_in(100);
                }
                Swapped::Failed(error) => {
                    self.abandon(slot, false)?;
                    self.give_way(&intent.path, &error);
                    self.waiting.insert(intent.place);
                }
                Swapped::Stranded(error) => {
                    self.deactivate(slot, &intent.place);
                    self.leave_slots(slot, &intent, &intent.contents())?;
                    self.give_way(&intent.path, &error);
                    self.waiting.insert(intent.place);
                }
            }
        }
        if done.is_empty() {
            return Ok(());
        }
        let mut directories: Vec<TreePath> =
            done.iter().filter_map(|(_, intent, ..)| intent.path.parent()).collect();
        directories.sort();
        directories.dedup();
        self.disk_sync(&directories);
        let (mut notices, mut ahead) = (Vec::new(), 0);
        for (slot, intent, print, displaced) in done {
            let row = intent.after.as_ref().map(|after| Row {
                node: after.node,
                version: after.version,
                what: after.what.clone(),
                mode: after.mode,
                print,
            });
            records.push(Record::Synced(intent.place.clone(), row));
            self.deactivate(slot, &intent.place);
            if let Some((at, stat)) = displaced {
                if let Some(row) = &intent.before {
                    self.leave(slot, at, &intent, row.what.clone(), Some(stat));
                }
                let intent = Intent { phase: Phase::Swapped, ..intent.clone() };
                records.push(Record::Intent(slot, Some(intent)));
            } else {
                records.push(Record::Intent(slot, None));
            }
            let before = intent.before.as_ref().map(|row| (row.what.clone(), row.mode));
            let after = intent.after.as_ref().map(|after| (after.what.clone(), after.mode));
            let version = intent.after.as_ref().map(|after| after.version);
            let actor = intent.actor.as_ref();
            let review =
                self.for_review(ahead, &intent.path, None, (before, after), actor, version);
            ahead += u64::from(review.is_some());
            records.extend(review);
            notices.push(Notice::Applied {
                path: intent.path.clone(),
                removed: intent.after.is_none(),
                actor: intent.actor,
                before: intent.before.map(|row| row.what),
                after: intent.after.map(|after| after.what),
            });
        }
        self.commit(records, false)?;
        self.stir();
        for notice in notices {
            self.notice(notice);
        }
        Ok(())
    }

    /// Brings what is staged to its path, if the disk still holds what was there
    /// before.
    pub(super) fn swap(&mut self, slot: IntentId, intent: &Intent) -> Swapped {
        let path = &intent.path;
        let found = match self.disk.stat(&Spot::Path(path.clone())) {
            Ok(found) => found,
            Err(error) => return Swapped::Failed(error),
        };
        let result = match (&intent.before, found) {
            (None, None) => self.swap_in(slot, path),
            (Some(row), Some(stat)) => {
                if !self.is_synced_file(row, &stat, path) {
                    return Swapped::Changed(None);
                }
                if self.disk.has_writer(&Spot::Path(path.clone())) == Some(true) {
                    return Swapped::Busy;
                }
                match (&intent.after, self.disk.abilities().exchange) {
                    (Some(_), true) => self.swap_over(slot, path, &stat, row),
                    (Some(_), false) => self.swap_by_steps(slot, path, &stat, row),
                    (None, _) => self.swap_out(slot, path, &stat, row),
                }
            }
            _ => return Swapped::Changed(None),
        };
        result.unwrap_or_else(|error| match error {
            DiskError::Exists => {
                let absent = matches!(self.disk.stat(&Spot::Path(path.clone())), Ok(None));
                if absent { Swapped::Failed(error) } else { Swapped::Changed(None) }
            }
            error => Swapped::Failed(error),
        })
    }

    /// Whether the disk holds what is synced: by its stat, or by its content
    /// where the stat cannot tell.
    fn is_synced_file(&mut self, row: &Row, stat: &Stat, path: &TreePath) -> bool {
        let Some(print) = row.print else { return false };
        if print.stat != *stat {
            return false;
        }
        if !self.is_racy(&print) {
            return true;
        }
        self.content_of(&Spot::Path(path.clone())).as_ref() == Some(&row.what)
    }

    /// What a file or link holds, read now.
    pub(super) fn content_of(&mut self, spot: &Spot) -> Option<What> {
        let stat = self.disk.stat(spot).ok()??;
        match stat.kind {
            crate::disk::Seen::Symlink => {
                Some(What::Symlink(Arc::from(self.disk.read_link(spot).ok()?)))
            }
            crate::disk::Seen::File => {
                match self.disk.describe(std::slice::from_ref(spot)).pop()? {
                    Ok(Description::Stable { content, .. }) => Some(What::File(content)),
                    _ => None,
                }
            }
            crate::disk::Seen::Directory => Some(What::Directory),
            crate::disk::Seen::Other | crate::disk::Seen::Mount | crate::disk::Seen::Unknown => {
                None
            }
        }
    }

    /// Something new comes where nothing is.
    fn swap_in(&mut self, slot: IntentId, path: &TreePath) -> Result<Swapped, DiskError> {
        let seen = self.disk.now();
        let staged = self.disk.stat(&Spot::Staged(slot))?.ok_or(DiskError::NotFound)?;
        self.disk.place(slot, path)?;
        let print = self.print_of(path, staged, seen)?;
        Ok(Swapped::Done { print: Some(print), displaced: None })
    }

    /// The print of what was just swapped in. If it is not the staged file any
    /// more, a user was quick; then the staged file's own stat makes the next
    /// look see the difference.
    fn print_of(&mut self, path: &TreePath, staged: Stat, seen: i64) -> Result<Print, DiskError> {
        let now = self.disk.stat(&Spot::Path(path.clone()))?;
        let same = |stat: &Stat| {
            stat.inode == staged.inode
                && stat.mtime == staged.mtime
                && stat.size == staged.size
                && stat.mode == staged.mode
        };
        match now {
            Some(stat) if same(&stat) => Ok(Print { stat, seen, open: false }),
            _ => {
                self.touch(path.clone(), self.now, false);
                Ok(Print { stat: staged, seen, open: false })
            }
        }
    }

    /// The staged file and the synced one change places; then what came out is
    /// looked at.
    fn swap_over(
        &mut self,
        slot: IntentId,
        path: &TreePath,
        was: &Stat,
        row: &Row,
    ) -> Result<Swapped, DiskError> {
        let seen = self.disk.now();
        let staged = self.disk.stat(&Spot::Staged(slot))?.ok_or(DiskError::NotFound)?;
        self.disk.exchange(slot, path)?;
        Ok(self.check_over(slot, path, was, row, (staged, seen)).unwrap_or_else(Swapped::Stranded))
    }

    /// What came out of an exchange is compared.
    fn check_over(
        &mut self,
        slot: IntentId,
        path: &TreePath,
        was: &Stat,
        row: &Row,
        (staged, seen): (Stat, i64),
    ) -> Result<Swapped, DiskError> {
        let out = self.disk.stat(&Spot::Staged(slot))?.ok_or(DiskError::NotFound)?;
        if self.is_what_was(&out, was, row, slot) {
            let print = self.print_of(path, staged, seen)?;
            return Ok(Swapped::Done { print: Some(print), displaced: Some((slot, out)) });
        }
        // Not what was compared: it is the user's. Put it back, and see what
        // comes out this time.
        match self.disk.exchange(slot, path) {
            Ok(()) => {}
            Err(DiskError::NotFound) => {
                // The user has removed the new file in that instant.
                self.put_back(slot, path)?;
                return Ok(Swapped::Changed(None));
            }
            Err(error) => return Err(error),
        }
        let back = self.disk.stat(&Spot::Staged(slot))?.ok_or(DiskError::NotFound)?;
        if !is_one_file(&back, &staged) {
            // The user replaced the new file in that instant, and this is the
            // replacement: the newer of two files of the user's. It belongs at
            // the path, the older one beside it.
            match self.disk.exchange(slot, path) {
                Ok(()) | Err(DiskError::NotFound) => self.keep_beside(slot, path)?,
                Err(error) => return Err(error),
            }
            return Ok(Swapped::Changed(None));
        }
        // Somebody may have opened it while it was there.
        Ok(Swapped::Changed(Some(back)))
    }

    /// Without exchange: the synced file steps aside, the staged one comes.
    fn swap_by_steps(
        &mut self,
        slot: IntentId,
        path: &TreePath,
        was: &Stat,
        row: &Row,
    ) -> Result<Swapped, DiskError> {
        let aside = slot.aside();
        let seen = self.disk.now();
        let staged = self.disk.stat(&Spot::Staged(slot))?.ok_or(DiskError::NotFound)?;
        self.disk.take(path, aside)?;
        Ok(self.check_steps(slot, path, was, row, (staged, seen)).unwrap_or_else(Swapped::Stranded))
    }

    /// What stepped aside is compared; then the staged file takes its place.
    fn check_steps(
        &mut self,
        slot: IntentId,
        path: &TreePath,
        was: &Stat,
        row: &Row,
        (staged, seen): (Stat, i64),
    ) -> Result<Swapped, DiskError> {
        let aside = slot.aside();
        let out = self.disk.stat(&Spot::Staged(aside))?.ok_or(DiskError::NotFound)?;
        if !self.is_what_was(&out, was, row, aside) {
            self.put_back(aside, path)?;
            return Ok(Swapped::Changed(None));
        }
        match self.disk.place(slot, path) {
            Ok(()) => {}
            Err(DiskError::Exists) if row.node == NOBODY => {
                // The user has put something new there, so that the old file is
                // in no merge, and perhaps nowhere else either.
                self.keep_beside(aside, path)?;
                return Ok(Swapped::Changed(None));
            }
            // The user has put something new there. The old file is known to the
            // Volume, and goes when no program writes to it any more.
            Err(DiskError::Exists) => return Err(DiskError::Exists),
            Err(error) => {
                self.put_back(aside, path)?;
                return Err(error);
            }
        }
        let print = self.print_of(path, staged, seen)?;
        Ok(Swapped::Done { print: Some(print), displaced: Some((aside, out)) })
    }

    /// The synced file is taken away.
    fn swap_out(
        &mut self,
        slot: IntentId,
        path: &TreePath,
        was: &Stat,
        row: &Row,
    ) -> Result<Swapped, DiskError> {
        self.disk.take(path, slot)?;
        Ok(self.check_out(slot, path, was, row).unwrap_or_else(Swapped::Stranded))
    }

    /// What was taken away is compared.
    fn check_out(
        &mut self,
        slot: IntentId,
        path: &TreePath,
        was: &Stat,
        row: &Row,
    ) -> Result<Swapped, DiskError> {
        let out = self.disk.stat(&Spot::Staged(slot))?.ok_or(DiskError::NotFound)?;
        if !self.is_what_was(&out, was, row, slot) {
            self.put_back(slot, path)?;
            return Ok(Swapped::Changed(None));
        }
        Ok(Swapped::Done { print: None, displaced: Some((slot, out)) })
    }

    /// Whether what came out is what was compared just before. Moving it has
    /// changed its ctime, and nothing else.
    fn is_what_was(&mut self, out: &Stat, was: &Stat, row: &Row, slot: IntentId) -> bool {
        let same = is_one_file(out, was);
        let grain = self.disk.abilities().grain;
        if !same || grain == 0 || out.mtime + grain <= self.disk.now() {
            return same;
        }
        self.content_of(&Spot::Staged(slot)).as_ref() == Some(&row.what)
    }

    /// Something of the user's goes back to its path, or, when that has been
    /// taken meanwhile, beside it.
    pub(super) fn put_back(&mut self, slot: IntentId, path: &TreePath) -> Result<(), DiskError> {
        match self.disk.place(slot, path) {
            Ok(()) => {
                self.touch(path.clone(), self.now, true);
                Ok(())
            }
            Err(DiskError::Exists | DiskError::NotFound | DiskError::NotADirectory) => {
                self.keep_beside(slot, path)
            }
            Err(error) => Err(error),
        }
    }

    /// Puts something of the user's beside its path, under a free name, where
    /// it is an ordinary new file for everyone.
    pub(super) fn keep_beside(&mut self, slot: IntentId, path: &TreePath) -> Result<(), DiskError> {
        let mut above = path.parent().unwrap_or_default();
        let name = path.name().map(|name| name.as_str().to_owned()).unwrap_or_default();
        loop {
            for number in 1..=1000 {
                let Some(name) = beside(&name, number) else { continue };
                let at = above.join(&name);
                match self.disk.place(slot, &at) {
                    Ok(()) => {
                        self.touch(at.clone(), self.now, false);
                        self.notice(Notice::Kept { path: path.clone(), at });
                        return Ok(());
                    }
                    Err(DiskError::Exists) => {}
                    Err(DiskError::NotFound | DiskError::NotADirectory) if !above.is_root() => {
                        break;
                    }
                    Err(error) => return Err(error),
                }
            }
            // Its directory is gone as well: the next one above will do.
            match above.parent() {
                Some(parent) => above = parent,
                None => return Err(DiskError::Exists),
            }
        }
    }

    pub(super) fn disk_sync(&mut self, directories: &[TreePath]) {
        if let Err(error) = self.disk.sync_directories(directories) {
            // What was swapped stays swapped; a crash now may bring the old
            // names back, and recovery compares contents, not claims.
            self.notice(Notice::Problem {
                path: directories.first().cloned().unwrap_or_default(),
                why: format!("the directory could not be made durable: {error}"),
            });
        }
    }
}

/// `notes.txt` becomes `notes.s0-kept-1.txt`.
pub(super) fn beside(name: &str, number: usize) -> Option<s0_tree::Name> {
    let (stem, extension) = match name.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() => (stem, format!(".{extension}")),
        _ => (name, String::new()),
    };
    let mark = format!(".s0-kept-{number}{extension}");
    let room = s0_tree::MAX_NAME_BYTES.saturating_sub(mark.len());
    let end = (0..=room.min(stem.len())).rev().find(|at| stem.is_char_boundary(*at))?;
    s0_tree::Name::new(&format!("{}{mark}", &stem[..end])).ok()
}
