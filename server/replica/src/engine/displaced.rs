//! What an apply displaced, until nobody can write to it any more.
//!
//! A program that had the file open before the swap may still write into the
//! old inode, without any event. So a displaced file is kept until it has no
//! writer, compared once more, and only then deleted.

use s0_tree::{Place, TreePath};

use super::conflicts::NOBODY;
use super::{Done, Replica};
use crate::disk::{Disk, DiskError, IntentId, Spot, StagedName, Stat};
use crate::state::{Intent, Record, Row, Store, What};

/// Milliseconds between two looks for writers.
const PROBE: u64 = 200;
/// Milliseconds that a displaced file is kept where writers cannot be seen.
const KEEP_UNSEEN: u64 = 24 * 60 * 60 * 1000;

/// A displaced file in its slot.
#[derive(Debug, Clone)]
pub(super) struct Displaced {
    /// The intent that it belongs to.
    pub(super) slot: IntentId,
    pub(super) place: Place,
    pub(super) path: TreePath,
    /// What was synced when it was at its path; `None` for a file of the
    /// Volume's that never was, or was shown for a moment and taken back.
    pub(super) before: Option<Row>,
    /// What it holds if nobody has written to it. The Volume has that.
    pub(super) content: What,
    /// Its stat when it came out; unknown after a restart.
    pub(super) stat: Option<Stat>,
    pub(super) since: u64,
    pub(super) due: u64,
}

impl<D: Disk, S: Store> Replica<D, S> {
    /// What is in an intent's slots is looked at and let go, or brought back: it
    /// may be the user's unless it is one of the `known` contents.
    pub(super) fn leave_slots(&mut self, slot: IntentId, intent: &Intent, known: &[What]) -> Done {
        let mut empty = true;
        for at in [slot, slot.aside()] {
            let spot = Spot::Staged(at);
            if matches!(self.disk.stat(&spot), Ok(None)) {
                continue;
            }
            let held = self.content_of(&spot);
            let content = known.iter().find(|it| held.as_ref() == Some(it)).or(known.last());
            if let Some(content) = content.cloned() {
                self.leave(slot, at, intent, content, None);
                empty = false;
            }
        }
        let done = empty.then_some(Record::Intent(slot, None));
        self.commit(done.into_iter().collect(), false)
    }

    /// What is in the slot `at` of an intent goes as soon as nobody writes to it,
    /// if it holds `content` then, which the Volume has. `stat` is from when it
    /// held that.
    pub(super) fn leave(
        &mut self,
        slot: IntentId,
        at: IntentId,
        intent: &Intent,
        content: What,
        stat: Option<Stat>,
    ) {
        let displaced = Displaced {
            slot,
            place: intent.place.clone(),
            path: intent.path.clone(),
            // What was written over in the user's name was never agreed on.
            before: intent.before.clone().filter(|row| row.what == content && row.node != NOBODY),
            content,
            stat,
            since: self.now,
            due: self.now,
        };
        self.displaced.insert(at, displaced);
    }

    /// A slot is empty. The intent is done with when it was its last one.
    fn is_empty_now(&mut self, at: IntentId, slot: IntentId, records: &mut Vec<Record>) {
        self.displaced.remove(&at);
        if !self.displaced.values().any(|it| it.slot == slot) {
            records.push(Record::Intent(slot, None));
        }
    }

    /// Deletes what is displaced, unmodified and without writers.
    pub(super) fn clear_displaced(&mut self) -> Done {
        let due: Vec<_> = self
            .displaced
            .iter()
            .filter(|(_, it)| it.due <= self.now)
            .map(|(at, it)| (*at, it.clone()))
            .collect();
        let mut records = Vec::new();
        for (at, it) in due {
            let spot = Spot::Staged(at);
            let writer = self.disk.has_writer(&spot);
            let wait = match writer {
                Some(writer) => writer,
                None => self.now < it.since + KEEP_UNSEEN,
            };
            let found = match self.disk.stat(&spot) {
                Ok(Some(found)) => found,
                Ok(None) => {
                    self.is_empty_now(at, it.slot, &mut records);
                    continue;
                }
                Err(_) => {
                    self.probe_later(at);
                    continue;
                }
            };
            if wait {
                self.probe_later(at);
                continue;
            }
            if self.is_untouched(&it, &found, &spot) {
                match self.disk.discard(&StagedName::Whole(at)) {
                    Ok(()) | Err(DiskError::NotFound) => {
                        self.is_empty_now(at, it.slot, &mut records);
                    }
                    Err(_) => self.probe_later(at),
                }
            } else if self.rescue(at, &it)? {
                self.is_empty_now(at, it.slot, &mut records);
            }
        }
        if !records.is_empty() {
            self.stir();
        }
        self.commit(records, false)
    }

    fn probe_later(&mut self, at: IntentId) {
        let due = self.now + PROBE;
        if let Some(it) = self.displaced.get_mut(&at) {
            it.due = due;
        }
        self.retry_in(PROBE);
    }

    fn is_untouched(&mut self, it: &Displaced, found: &Stat, spot: &Spot) -> bool {
        let same = it.stat.is_some_and(|stat| is_one_file(&stat, found));
        if same && self.disk.abilities().grain == 0 {
            return true;
        }
        self.content_of(spot).as_ref() == Some(&it.content)
    }

    /// A late write went into the displaced file: it is a local edit of what
    /// was synced before. Says whether the slot is free.
    fn rescue(&mut self, at: IntentId, it: &Displaced) -> Result<bool, super::Stop> {
        let row_now = self.row(&it.place).cloned();
        let path_now = self.disk.stat(&Spot::Path(it.path.clone())).ok().flatten();
        let edited = it.before.clone().map(|row| Row { print: None, ..row });
        match (edited, row_now, path_now) {
            // The path holds what was applied, and nobody touched that: the
            // edited file takes its place again, and the edit is offered as one
            // of the version that it was made to.
            (Some(edited), Some(row), Some(stat))
                if self.disk.abilities().exchange
                    && !row.what.is_directory()
                    && row.print.is_some_and(|print| self.is_same(&print, &stat)) =>
            {
                // Should the power go between the two, disk and Volume are found equal
                // and the edit is brought back once more.
                self.commit(vec![Record::Synced(it.place.clone(), Some(edited))], true)?;
                let brought = self.disk.exchange(at, &it.path).is_ok();
                let out = self.disk.stat(&Spot::Staged(at)).ok().flatten();
                if brought && out.is_some_and(|out| is_one_file(&stat, &out)) {
                    // It is the Volume's, and is let go in its turn.
                    let content = row.what.clone();
                    let due = self.now;
                    let it = Displaced { before: None, content, stat: out, due, ..it.clone() };
                    self.touch(it.path.clone(), self.now, false);
                    self.displaced.insert(at, it);
                    self.retry_in(0);
                    return Ok(false);
                }
                self.commit(vec![Record::Synced(it.place.clone(), Some(row))], true)?;
                self.touch(it.path.clone(), self.now, true);
                if !brought {
                    self.probe_later(at);
                    return Ok(false);
                }
                // Newer than both: the user was quick. It belongs at the path, if that
                // is not taken once more, and the other beside it.
                let _ = self.disk.exchange(at, &it.path);
                Ok(self.keep(at, &it.path))
            }
            (Some(edited), None, None) if !self.rules.is_ignored(&it.path, false) => {
                match self.disk.place(at, &it.path) {
                    Ok(()) => {}
                    Err(_) => return Ok(self.keep(at, &it.path)),
                }
                if self.directory_at(&it.path.parent().unwrap_or_default()).is_some() {
                    self.commit(vec![Record::Synced(it.place.clone(), Some(edited))], true)?;
                }
                self.touch(it.path.clone(), self.now, false);
                Ok(true)
            }
            _ => Ok(self.keep(at, &it.path)),
        }
    }

    fn keep(&mut self, at: IntentId, path: &TreePath) -> bool {
        if self.keep_beside(at, path).is_err() {
            self.probe_later(at);
            return false;
        }
        true
    }
}

/// Whether two looks saw one file, unchanged. Moving it changes only its ctime.
pub(super) fn is_one_file(a: &Stat, b: &Stat) -> bool {
    (a.kind, a.inode, a.mtime, a.size) == (b.kind, b.inode, b.mtime, b.size)
}
