//! Merging: one text of base, mine and theirs takes the place of the local file.
//!
//! The text is made outside; it comes here with the [`Sides`] that it was made
//! of, and only if they are still what stands there does it come to the disk.
//! For the rest of the engine this is like a save of the user's: what was synced
//! stays what it is, and a crash leaves an open conflict with one text or the
//! other at its path. It is staged, exchanged and compared as everything is.
//! What it displaces may be an edit that is stored nowhere else; that is in the
//! merge, so it goes when the merge is on the disk for certain and no program
//! writes to it any more. An edit that the merge does not know is never displaced.

use s0_tree::{Content, Place, Seq, TreePath};

use super::apply::Swapped;
use super::conflicts::NOBODY;
use super::remote::decided;
use super::{Local, Replica, ResolveError};
use crate::disk::{Disk, IntentId};
use crate::state::{Facts, Intent, Phase, Print, Record, Remote, Row, Store, What};

/// What a merge is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sides {
    /// What both had before, if that was a file.
    pub base: Option<Content>,
    /// The local file as it stands now.
    pub mine: Content,
    /// What the Volume has now.
    pub theirs: Content,
}

/// A conflict with a file on both sides.
struct TwoFiles {
    sides: Sides,
    place: Place,
    remote: Remote,
    mode: u32,
    print: Print,
}

impl<D: Disk, S: Store> Replica<D, S> {
    /// What a merge of the conflict at a path would be made of.
    ///
    /// # Errors
    /// There is no conflict, or not a file on both sides.
    pub fn sides(&mut self, path: &TreePath, now: u64) -> Result<Sides, ResolveError> {
        Ok(self.two_files(path, now)?.sides)
    }

    fn two_files(&mut self, path: &TreePath, now: u64) -> Result<TwoFiles, ResolveError> {
        self.look_at_conflict(path, now)?;
        let Some(place) = self.place_at(path) else {
            return Err(ResolveError::NotYet(path.clone()));
        };
        let base = match self.state.conflicts.get(path).and_then(|it| it.base.as_ref()) {
            Some(What::File(base)) => Some(*base),
            _ => None,
        };
        let remote = self.remote_at(&place);
        match (self.local_at(path), remote) {
            (
                Some(Local::There { what: What::File(mine), mode, print }),
                Some(remote @ Remote { what: What::File(theirs), .. }),
            ) => {
                let sides = Sides { base, mine: *mine, theirs };
                Ok(TwoFiles { sides, place, mode: *mode, print: *print, remote })
            }
            // The local file is what was synced: the conflict is about to end.
            (None, _) => Err(ResolveError::NotYet(path.clone())),
            _ => Err(ResolveError::NotTwoFiles(path.clone())),
        }
    }

    /// Puts a merge of `sides` in the place of the local file. With `ends`, the
    /// conflict ends, and the merge is offered as an edit that knows both sides;
    /// without, there are overlaps to settle by hand, and it stays open.
    ///
    /// # Errors
    /// `NotYet` when the sides are others by now; nothing has changed then.
    pub fn merge(
        &mut self,
        path: &TreePath,
        sides: Sides,
        text: &[u8],
        ends: bool,
        now: u64,
    ) -> Result<(), ResolveError> {
        let it = self.two_files(path, now)?;
        if it.sides != sides {
            return Err(ResolveError::NotYet(path.clone()));
        }
        let agreed = Record::Synced(it.place.clone(), Some(decided(&it.remote)));
        let mut records = self.put_merge(path, &it, text)?;
        if ends {
            records.push(agreed);
            self.end_conflict(path, "merged", records)?;
        } else {
            self.commit(records, true)?;
        }
        self.forget(path);
        self.touch(path.clone(), now, true);
        Ok(())
    }

    /// Brings the merge to the disk. The records say that it is there.
    fn put_merge(
        &mut self,
        path: &TreePath,
        it: &TwoFiles,
        text: &[u8],
    ) -> Result<Vec<Record>, ResolveError> {
        let merged = Content::of(text);
        if merged == it.sides.mine {
            return Ok(Vec::new());
        }
        let (mode, version) = (it.mode, Seq(0));
        let mine = What::File(it.sides.mine);
        let before = Row { node: NOBODY, version, what: mine.clone(), mode, print: Some(it.print) };
        let after = Remote { node: NOBODY, version, what: What::File(merged), mode };
        let intent = Intent {
            place: it.place.clone(),
            path: path.clone(),
            before: Some(before),
            after: Some(after),
            phase: Phase::Planned,
            actor: None,
        };
        // Each intent owns two slots; see `IntentId::aside`.
        let slot = IntentId(self.state.facts.last_intent.0 + 2);
        let facts = Facts { last_intent: slot, ..self.state.facts.clone() };
        let planned = Record::Intent(slot, Some(intent.clone()));
        self.commit(vec![planned, Record::Facts(facts)], true)?;
        let staged = self.disk.stage_file(slot, text, mode);
        if let Err(error) = staged.and_then(|()| self.disk.sync_staged(&[slot])) {
            self.abandon(slot, false)?;
            return Err(ResolveError::Disk(path.clone(), error));
        }
        let error = match self.swap(slot, &intent) {
            Swapped::Done { displaced, .. } => {
                // The old file may go only when the merge cannot any more.
                self.disk_sync(&[path.parent().unwrap_or_default()]);
                if let Some((at, stat)) = displaced {
                    self.leave(slot, at, &intent, mine, Some(stat));
                }
                let intent = Intent { phase: Phase::Swapped, ..intent };
                return Ok(vec![Record::Intent(slot, Some(intent))]);
            }
            Swapped::Changed(_) | Swapped::Busy => ResolveError::NotYet(path.clone()),
            Swapped::Failed(error) | Swapped::Stranded(error) => {
                ResolveError::Disk(path.clone(), error)
            }
        };
        // The merge is in the slot, or something of the user's that came out and
        // could not go back: that is for those to tell who clear the slots.
        self.leave_slots(slot, &intent, &[What::File(merged)])?;
        Err(error)
    }
}
