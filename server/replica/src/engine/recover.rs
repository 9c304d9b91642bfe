//! Recovery: what a crash may have left between two lines of an apply.
//!
//! For each intent the disk itself says how far it came. What equals the
//! intent's *after* is synced at its version; everything else is a local edit.
//! Staging files go only when they are known to be ours.

use super::conflicts::NOBODY;
use super::{Done, Replica};
use crate::disk::{Disk, DiskError, IntentId, Spot, StagedName};
use crate::state::{Facts, Intent, Phase, Print, Record, Row, Store};

impl<D: Disk, S: Store> Replica<D, S> {
    /// Brings disk and state together again. Runs before anything else.
    pub(super) fn recover(&mut self) -> Done {
        self.note_in_flight();
        let staged = self.disk.staged()?;
        self.leave_slots_of_others(&staged)?;
        for (slot, intent) in self.state.intents.clone() {
            if staged.contains(&StagedName::Part(slot)) {
                self.drop_staged(&StagedName::Part(slot))?;
            }
            match intent.phase {
                // What is synced was committed; what was displaced may still be there.
                Phase::Swapped => self.leave_slots(slot, &intent, &intent.contents())?,
                Phase::Planned => self.recover_planned(slot, &intent, &staged)?,
            }
        }
        Ok(())
    }

    /// What an earlier attachment left in the staging directory may be somebody's.
    /// Its slots are not used again.
    fn leave_slots_of_others(&mut self, staged: &[StagedName]) -> Done {
        let taken = staged.iter().filter_map(|name| match name {
            StagedName::Whole(slot) | StagedName::Part(slot) => Some(slot.0),
            StagedName::Foreign(_) => None,
        });
        let last = taken.max().unwrap_or(0).next_multiple_of(2);
        if last <= self.state.facts.last_intent.0 {
            return Ok(());
        }
        let facts = Facts { last_intent: IntentId(last), ..self.state.facts.clone() };
        self.commit(vec![Record::Facts(facts)], true)
    }

    fn drop_staged(&mut self, name: &StagedName) -> Result<(), DiskError> {
        match self.disk.discard(name) {
            Err(DiskError::NotFound) | Ok(()) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Whether the swap happened is for the disk to say.
    fn recover_planned(&mut self, slot: IntentId, intent: &Intent, staged: &[StagedName]) -> Done {
        let seen = self.disk.now();
        let spot = Spot::Path(intent.path.clone());
        let mut stat = match self.disk.stat(&spot) {
            Ok(stat) => stat,
            Err(DiskError::RootGone) => return Err(DiskError::RootGone.into()),
            Err(error) => {
                // A later start may see what is there, and what is staged stays until then.
                self.problem(&intent.path, &error);
                return Ok(());
            }
        };
        let open = self.disk.has_writer(&spot) == Some(true);
        let held = self.content_of(&spot);
        let after = intent.after.as_ref().map(|after| after.what.clone());
        let before = intent.before.as_ref().map(|row| row.what.clone());
        let aside = slot.aside();
        // What stepped aside and was not followed by the new file goes back.
        if staged.contains(&StagedName::Whole(aside)) && stat.is_none() && after.is_some() {
            self.put_back(aside, &intent.path)?;
            stat = self.disk.stat(&spot)?;
        }
        let arrived = after.is_some() && held == after;
        let left = after.is_none() && stat.is_none();
        let mut records = Vec::new();
        if (arrived || left) && self.row(&intent.place) == intent.before.as_ref() {
            let row = intent.after.as_ref().zip(stat).map(|(after, stat)| Row {
                node: after.node,
                version: after.version,
                what: after.what.clone(),
                mode: after.mode,
                print: Some(Print { stat, seen, open }),
            });
            // Only the removal of what is in our slot is known to be ours.
            if row.is_some() || staged.contains(&StagedName::Whole(slot)) {
                records.push(Record::Synced(intent.place.clone(), row));
            }
        }
        let mut kept = false;
        for at in [slot, aside] {
            if !staged.contains(&StagedName::Whole(at)) {
                continue;
            }
            let content = self.content_of(&Spot::Staged(at));
            let ours = content.is_some() && content == after;
            // What went into a merge is known as long as the merge is there.
            let merged = intent.before.as_ref().is_some_and(|row| row.node == NOBODY);
            let known = content.is_some() && content == before && (arrived || !merged);
            if ours || known {
                // Staged and never swapped, or swapped out and known.
                if let Some(content) = content {
                    self.leave(slot, at, intent, content, None);
                }
                kept = true;
            } else {
                // Neither the Volume's old content nor its new one: somebody's.
                self.put_back(at, &intent.path)?;
                records.retain(|record| !matches!(record, Record::Synced(..)));
            }
        }
        if kept {
            let intent = Intent { phase: Phase::Swapped, ..intent.clone() };
            records.push(Record::Intent(slot, Some(intent)));
        } else {
            records.push(Record::Intent(slot, None));
        }
        self.touch(intent.path.clone(), self.now, true);
        self.commit(records, true)
    }
}
