//! Downloads: what to do about places at which the Volume has moved on.
//!
//! A place waits while the disk holds something there that is not synced: that
//! is the upload's to offer first, and the service's to call a conflict.

use std::sync::Arc;

use s0_tree::{ContentId, Place};

use super::need::Need;
use super::{Done, Effect, Fetched, Link, Replica};
use crate::disk::{Disk, DiskError, IntentId, StagedName};
use crate::state::{Facts, Intent, Record, Store, What};

/// How many intents are under way at a time.
const INTENTS: usize = 512;
/// How many places one step plans.
const PLANS_PER_STEP: usize = 8192;
/// Bytes of contents that came with the journal and are kept until applied.
const CACHE_BUDGET: usize = 64 << 20;

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

    /// Whether there is something to plan, and room for what comes of it.
    pub(super) fn may_plan(&self) -> bool {
        self.link == Link::Following && !self.incoming.is_empty() && self.active.len() < INTENTS
    }

    fn plan(&mut self) -> Done {
        let (mut intents, mut planned) = (Vec::new(), 0);
        let mut touched_directories = Vec::new();
        let mut taken = std::collections::HashSet::new();
        while planned < PLANS_PER_STEP && self.active.len() + intents.len() < INTENTS {
            let Some(place) = self.incoming.pop_first() else { break };
            planned += 1;
            if !taken.insert(place.clone()) {
                // It has an intent of this very round.
                self.waiting.insert(place);
                continue;
            }
            match self.need(&place) {
                Need::Nothing => {}
                Need::Wait => {
                    self.waiting.insert(place.clone());
                }
                Need::Remember(records) => self.commit(records, false)?,
                Need::Intend(intent) => {
                    intents.push(*intent);
                    continue;
                }
                direct => {
                    if !self.do_now(&place, direct, &mut touched_directories)? {
                        self.waiting.insert(place.clone());
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
                        held: match intent.before.as_ref().map(|row| &row.what) {
                            Some(What::File(held)) => Some(*held),
                            _ => None,
                        },
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
                    self.waiting.insert(intent.place);
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
            self.incoming.insert(intent.place);
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
