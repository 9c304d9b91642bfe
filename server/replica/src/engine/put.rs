//! What is written here for the user: merges, and what a review takes back.
//!
//! For the rest of the engine it is like a save of the user's: it is offered to the
//! Volume as a local edit, and what was synced stays what it is. It is staged,
//! exchanged and compared as everything is, and never put over anything but what
//! it was made for.

use s0_tree::{Content, Place, Seq, TreePath};

use super::apply::Swapped;
use super::conflicts::NOBODY;
use super::{Replica, ResolveError, Stop};
use crate::disk::{Description, Disk, DiskError, IntentId, Seen, Spot, StagedName};
use crate::state::{Facts, Intent, Phase, Print, Record, Remote, Row, Store, What};

/// A write in the user's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalWrite {
    /// A file with these bytes and permission bits. Missing directories are made.
    File {
        /// The bytes.
        bytes: Vec<u8>,
        /// The permission bits.
        mode: u32,
    },
    /// A link with this target.
    Symlink(std::sync::Arc<str>),
    /// A directory with these permission bits.
    Directory(u32),
    /// Nothing any more. A directory goes only if it is empty.
    Remove,
    /// Another path, at which nothing is.
    Rename(TreePath),
    /// Other permission bits.
    Mode(u32),
}

/// The file that is written over.
#[derive(Debug, Clone, Copy)]
pub(super) struct OldFile {
    pub(super) content: Content,
    pub(super) mode: u32,
    pub(super) print: Print,
}

impl<D: Disk, S: Store> Replica<D, S> {
    /// Writes at `path` if that holds what is expected.
    ///
    /// # Errors
    /// `Changed` when it holds something else; nothing was done then. `NotYet` when it
    /// is on its way, and the disk's errors.
    pub fn write_local(
        &mut self,
        path: &TreePath,
        expected: Option<&What>,
        write: LocalWrite,
        now: u64,
    ) -> Result<(), ResolveError> {
        self.now = now;
        self.check_root()?;
        if self.halt.is_some() {
            return Err(ResolveError::Halted);
        }
        if self.is_outgoing(path) || self.has_intent_at(path) {
            return Err(ResolveError::NotYet(path.clone()));
        }
        let file = self.expect(path, expected)?;
        let disk = |error| ResolveError::Disk(path.clone(), error);
        match (write, expected) {
            (LocalWrite::Rename(to), _) => {
                self.make_parents(&to)?;
                self.disk.rename(path, &to).map_err(disk)?;
                self.touch(to, now, true);
            }
            (LocalWrite::Mode(mode), _) => self.disk.set_mode(path, mode).map_err(disk)?,
            (LocalWrite::File { bytes, mode }, Some(What::File(_))) => {
                let Some(old) = file else { return Err(ResolveError::NotYet(path.clone())) };
                let place = self.place_at(path);
                let place = place.ok_or_else(|| ResolveError::NotYet(path.clone()))?;
                let records = self.put_in_place(path, place, old, &bytes)?;
                self.commit(records, true)?;
                if mode != old.mode && self.disk.abilities().modes {
                    self.disk.set_mode(path, mode).map_err(disk)?;
                }
            }
            (write, old) => {
                if let Some(old) = old {
                    self.take_away(path, old)?;
                }
                match write {
                    LocalWrite::Directory(mode) => {
                        self.make_parents(path)?;
                        self.disk.make_directory(path, mode).map_err(disk)?;
                    }
                    LocalWrite::File { .. } | LocalWrite::Symlink(_) => {
                        self.put_new(path, &write)?;
                    }
                    LocalWrite::Remove | LocalWrite::Rename(_) | LocalWrite::Mode(_) => {}
                }
            }
        }
        self.forget(path);
        self.touch(path.clone(), now, true);
        Ok(())
    }

    fn has_intent_at(&self, path: &TreePath) -> bool {
        self.active.values().any(|id| self.state.intents.get(id).is_some_and(|it| it.path == *path))
    }

    /// Makes sure that the disk holds what is expected; of a file, how.
    fn expect(
        &mut self,
        path: &TreePath,
        expected: Option<&What>,
    ) -> Result<Option<OldFile>, ResolveError> {
        let spot = Spot::Path(path.clone());
        let seen = self.disk.now();
        let disk = |error| ResolveError::Disk(path.clone(), error);
        let stat = self.disk.stat(&spot).map_err(disk)?;
        let mut file = None;
        let as_expected = match (expected, stat) {
            (None, None) => true,
            (Some(What::Directory), Some(stat)) => stat.kind == Seen::Directory,
            (Some(What::Symlink(target)), Some(stat)) if stat.kind == Seen::Symlink => {
                self.disk.read_link(&spot).map_err(disk)? == **target
            }
            (Some(What::File(expected)), Some(stat)) if stat.kind == Seen::File => {
                match self.disk.describe(&[spot]).pop() {
                    Some(Ok(Description::Stable { stat, content, open, .. })) => {
                        let print = Print { stat, seen, open };
                        file = Some(OldFile { content, mode: stat.mode & 0o777, print });
                        content == *expected
                    }
                    _ => false,
                }
            }
            _ => false,
        };
        if as_expected { Ok(file) } else { Err(ResolveError::Changed(path.clone())) }
    }

    /// Puts new bytes in the place of a file. The records say that they are there.
    /// What is displaced may be stored nowhere else; it goes when what took its place
    /// is on the disk for certain, and no program writes to it any more.
    pub(super) fn put_in_place(
        &mut self,
        path: &TreePath,
        place: Place,
        old: OldFile,
        bytes: &[u8],
    ) -> Result<Vec<Record>, ResolveError> {
        let new = Content::of(bytes);
        if new == old.content {
            return Ok(Vec::new());
        }
        let (mode, version) = (old.mode, Seq(0));
        let what = What::File(old.content);
        let before =
            Row { node: NOBODY, version, what: what.clone(), mode, print: Some(old.print) };
        let after = Remote { node: NOBODY, version, what: What::File(new), mode };
        let intent = Intent {
            place,
            path: path.clone(),
            before: Some(before),
            after: Some(after),
            phase: Phase::Planned,
            actor: None,
        };
        let slot = self.take_slot(Some(&intent))?;
        let staged = self.disk.stage_file(slot, bytes, mode);
        if let Err(error) = staged.and_then(|()| self.disk.sync_staged(&[slot])) {
            self.abandon(slot, false)?;
            return Err(ResolveError::Disk(path.clone(), error));
        }
        let error = match self.swap(slot, &intent) {
            Swapped::Done { displaced, .. } => {
                // The old file may go only when the new one cannot any more.
                self.disk_sync(&[path.parent().unwrap_or_default()]);
                if let Some((at, stat)) = displaced {
                    self.leave(slot, at, &intent, what, Some(stat));
                }
                let intent = Intent { phase: Phase::Swapped, ..intent };
                return Ok(vec![Record::Intent(slot, Some(intent))]);
            }
            Swapped::Changed(_) | Swapped::Busy => ResolveError::NotYet(path.clone()),
            Swapped::Failed(error) | Swapped::Stranded(error) => {
                ResolveError::Disk(path.clone(), error)
            }
        };
        // What was staged is in the slot, or something of the user's that came out and
        // could not go back: that is for those to tell who clear the slots.
        self.leave_slots(slot, &intent, &[What::File(new)])?;
        Err(error)
    }

    /// Slots that nothing else uses, of an intent if there is one. What a crash leaves
    /// in slots without an intent is nobody's to remove, and stays.
    fn take_slot(&mut self, intent: Option<&Intent>) -> Result<IntentId, Stop> {
        // Each intent owns two slots; see `IntentId::aside`.
        let slot = IntentId(self.state.facts.last_intent.0 + 2);
        let facts = Facts { last_intent: slot, ..self.state.facts.clone() };
        let planned = intent.map(|intent| Record::Intent(slot, Some(intent.clone())));
        self.commit(planned.into_iter().chain([Record::Facts(facts)]).collect(), true)?;
        Ok(slot)
    }

    /// A new file or link comes whole, and only where nothing is.
    fn put_new(&mut self, path: &TreePath, write: &LocalWrite) -> Result<(), ResolveError> {
        self.make_parents(path)?;
        let slot = self.take_slot(None)?;
        let done = match write {
            LocalWrite::File { bytes, mode } => self.disk.stage_file(slot, bytes, *mode),
            LocalWrite::Symlink(target) => self.disk.stage_link(slot, target),
            _ => return Ok(()),
        };
        let done = done.and_then(|()| self.disk.sync_staged(&[slot]));
        match done.and_then(|()| self.disk.place(slot, path)) {
            Ok(()) => {
                self.disk_sync(&[path.parent().unwrap_or_default()]);
                Ok(())
            }
            Err(error) => {
                for staged in [StagedName::Whole(slot), StagedName::Part(slot)] {
                    // It was made here a moment ago, and is in no one's way.
                    let _ = self.disk.discard(&staged);
                }
                Err(match error {
                    DiskError::Exists => ResolveError::Changed(path.clone()),
                    error => ResolveError::Disk(path.clone(), error),
                })
            }
        }
    }

    /// What is there is taken aside, compared once more, and only then goes.
    fn take_away(&mut self, path: &TreePath, old: &What) -> Result<(), ResolveError> {
        let disk = |error| ResolveError::Disk(path.clone(), error);
        if old.is_directory() {
            return self.disk.remove_directory(path).map_err(disk);
        }
        let slot = self.take_slot(None)?;
        self.disk.take(path, slot).map_err(disk)?;
        let spot = Spot::Staged(slot);
        if self.content_of(&spot).as_ref() != Some(old) || self.disk.has_writer(&spot) == Some(true)
        {
            self.put_back(slot, path).map_err(disk)?;
            return Err(ResolveError::Changed(path.clone()));
        }
        if matches!(old, What::File(_)) && self.disk.has_writer(&spot).is_none() {
            // A program may still write to it, and nobody would see. Without an intent it
            // stays in the staging area as somebody's.
            return Ok(());
        }
        self.disk.discard(&StagedName::Whole(slot)).map_err(disk)
    }

    fn make_parents(&mut self, path: &TreePath) -> Result<(), ResolveError> {
        for above in path.ancestors() {
            match self.disk.make_directory(&above, 0o755) {
                Ok(()) => self.touch(above, self.now, false),
                Err(DiskError::Exists) => {}
                Err(error) => return Err(ResolveError::Disk(path.clone(), error)),
            }
        }
        Ok(())
    }
}
