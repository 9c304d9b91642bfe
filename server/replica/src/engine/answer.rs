//! Answers: what was accepted is synced, what was refused is a conflict.
//!
//! An answer counts once the journal has been followed as far as it. Directories
//! may have become others meanwhile, so each outcome is put where its node is.

use s0_api::sync::{Answer, Outcome, SubmitError};
use s0_tree::{Change, Expected, Place, Seq, TreePath};

use super::{Done, Halt, Local, Notice, Replica};
use crate::disk::Disk;
use crate::state::{Conflict, ConflictStatus, Facts, Outgoing, Record, Row, Sent, Store};

impl<D: Disk, S: Store> Replica<D, S> {
    /// An answer has come, or a refusal of the submission as a whole.
    pub(super) fn answered(&mut self, number: u64, answer: Result<Answer, SubmitError>) -> Done {
        let Some(outgoing) = &self.state.outgoing else { return Ok(()) };
        if outgoing.submission.number != number || outgoing.answer.is_some() {
            return Ok(());
        }
        self.sending = None;
        match answer {
            Ok(answer) if answer.outcomes.len() == outgoing.sent.len() => {
                let outgoing = Outgoing { answer: Some(answer), ..(**outgoing).clone() };
                // The answer can be had again, so it need not be durable.
                self.commit(vec![Record::Outgoing(Some(Box::new(outgoing)))], false)
            }
            Err(SubmitError::Fenced { .. }) => {
                self.stop_with(Halt::Fenced);
                Ok(())
            }
            Err(SubmitError::UnknownReplica) => {
                // The next registration makes us known.
                self.retry_in(1000);
                Ok(())
            }
            Err(SubmitError::MissingContents { ids }) => {
                // It was not admitted, and cannot be any more: the contents
                // never came with it. Plan anew.
                for id in ids {
                    self.uploaded.remove(&id);
                }
                self.drop_outgoing(None)
            }
            Err(SubmitError::Superseded { last }) => self.drop_outgoing(Some(last)),
            Ok(_) | Err(SubmitError::Reused { .. } | SubmitError::Invalid { .. }) => {
                let why = "the service refused it as invalid".to_owned();
                for sent in outgoing.sent.clone() {
                    self.refuse(&sent.path, why.clone());
                }
                self.drop_outgoing(None)
            }
        }
    }

    /// Gives up the submission on its way; what it spoke of is looked at again.
    fn drop_outgoing(&mut self, number: Option<u64>) -> Done {
        let Some(outgoing) = self.state.outgoing.clone() else { return Ok(()) };
        let number = number.unwrap_or(0).max(self.state.facts.number);
        let facts = Facts { number, ..self.state.facts.clone() };
        self.commit(vec![Record::Outgoing(None), Record::Facts(facts)], true)?;
        self.in_flight.clear();
        for sent in &outgoing.sent {
            self.touch(sent.path.clone(), self.now, false);
        }
        self.retry_in(100);
        Ok(())
    }

    /// Once the journal has been followed as far as the answer, what was
    /// accepted is synced and what was refused is a conflict.
    pub(super) fn finish_answer(&mut self) -> Done {
        let (Some(tree), Some(outgoing)) = (&self.remote, &self.state.outgoing) else {
            return Ok(());
        };
        if outgoing.answer.as_ref().is_none_or(|answer| tree.head() < answer.head) {
            return Ok(());
        }
        let head = tree.head();
        let Some(outgoing) = self.state.outgoing.clone() else { return Ok(()) };
        let Some(answer) = &outgoing.answer else { return Ok(()) };
        let mut records = Vec::new();
        let mut notices = Vec::new();
        let mut directories = std::collections::HashMap::new();
        let removals = outgoing.sent.iter().zip(&answer.outcomes).filter(|(sent, outcome)| {
            let row = sent.from.as_ref().and_then(|from| self.row(from));
            sent.local.is_none()
                && matches!(outcome, Outcome::Accepted { .. })
                && row.is_some_and(|row| self.elders.has(row))
        });
        self.count_removals(removals.count());
        let sent = outgoing.submission.changes.iter().zip(outgoing.sent);
        for ((change, sent), outcome) in sent.zip(&answer.outcomes) {
            let sent = &Sent { from: self.still_at(change, &sent), ..sent };
            match outcome {
                Outcome::Accepted { seq, node } => {
                    self.accepted(sent, *node, *seq, &mut directories, &mut records);
                    let removed = sent.local.is_none();
                    notices.push(Notice::Uploaded { path: sent.path.clone(), removed });
                }
                Outcome::Held { node: Some(node), version } if sent.local.is_some() => {
                    if self.is_another_directory(sent, *node) {
                        self.touch(sent.path.clone(), self.now, true);
                    } else if self.is_held(sent, *node) {
                        self.accepted(sent, *node, *version, &mut directories, &mut records);
                    } else {
                        self.held_in_part(sent, &mut records);
                    }
                }
                Outcome::Held { .. } => {
                    if sent.local.is_none() {
                        self.removed(sent, &mut records);
                    }
                }
                Outcome::Conflict { id, reason, path } => {
                    let conflict = Conflict {
                        id: id.clone(),
                        reason: *reason,
                        status: ConflictStatus::Open,
                        base: self.row_at(&sent.path).map(|(_, row)| row.what.clone()),
                        mine: sent.local.as_ref().map(|(what, ..)| what.clone()),
                        other: path.clone(),
                        time: self.disk.now(),
                    };
                    records.push(Record::Conflict(sent.path.clone(), Some(conflict)));
                    notices.push(Notice::Conflict { path: sent.path.clone(), reason: *reason });
                }
                // The second is for those who ask for it, which a replica does not.
                Outcome::Refused { .. } | Outcome::Stale { .. } => self.retry_in(200),
                // Others were faster. The next plan knows what room is left.
                Outcome::NoRoom => self.retry_in(1000),
            }
        }
        let facts = Facts { cursor: head, ..self.state.facts.clone() };
        records.push(Record::Outgoing(None));
        records.push(Record::Facts(facts));
        self.commit(records, true)?;
        self.in_flight.clear();
        // Others may have put something into what we thought of as new.
        for node in directories.values() {
            self.expect_children(*node);
        }
        for notice in notices {
            self.notice(notice);
        }
        self.stir();
        Ok(())
    }

    fn accepted(
        &mut self,
        sent: &Sent,
        node: s0_tree::NodeId,
        version: Seq,
        directories: &mut std::collections::HashMap<TreePath, s0_tree::NodeId>,
        records: &mut Vec<Record>,
    ) {
        if sent.renamed
            && let Some(old) = sent.from.as_ref().and_then(|from| self.disk_path(from))
            && matches!(self.changed.get(&old), Some(Local::Gone))
        {
            self.changed.remove(&old);
        }
        let Some((what, mode, print)) = sent.local.clone() else {
            return self.removed(sent, records);
        };
        let Some((above, _)) = sent.path.split() else { return };
        let parent = directories.get(&above).copied().or(sent.parent);
        let Some(place) = self.accepted_at(node, sent, parent) else {
            // Its directory was refused, so this was too.
            self.touch(sent.path.clone(), self.now, true);
            return;
        };
        // The user may have moved its directory since.
        let path = self.disk_path(&place).unwrap_or_else(|| sent.path.clone());
        if what.is_directory() {
            directories.insert(sent.path.clone(), node);
        }
        // Unless the user has moved it on meanwhile.
        if self.moved.get(&sent.path) == Some(&node) {
            self.moved.remove(&sent.path);
        }
        self.forget(&sent.path);
        // What happened to it while it was on its way may have gone unnoticed.
        self.touch(sent.path.clone(), self.now, false);
        if path != sent.path {
            self.forget(&path);
            self.touch(path, self.now, true);
        }
        // The Volume may have given it another mode, or moved on since.
        self.incoming.insert(place.clone());
        let row = Row { node, version, what, mode, print };
        records.push(match sent.from.clone() {
            Some(from) => Record::Moved { from, to: place, row },
            None => Record::Synced(place, Some(row)),
        });
    }

    /// What was sent as removed is gone from the Volume.
    fn removed(&mut self, sent: &Sent, records: &mut Vec<Record>) {
        records.extend(sent.from.clone().map(|from| Record::Synced(from, None)));
        if matches!(self.changed.get(&sent.path), Some(Local::Gone)) {
            self.changed.remove(&sent.path);
        }
        // Something may have come there while it was on its way.
        let now_at = sent.from.as_ref().and_then(|from| self.disk_path(from));
        for path in now_at.into_iter().chain([sent.path.clone()]) {
            self.touch(path, self.now, false);
        }
    }

    /// Whether the Volume's node holds what was sent, and not only the mode of it.
    fn is_held(&self, sent: &Sent, node: s0_tree::NodeId) -> bool {
        let there = self.remote.as_ref().and_then(|tree| super::paths::remote_node(tree, node));
        let what = sent.local.as_ref().map(|(what, ..)| what);
        there.as_ref().map(|there| &there.what) == what
    }

    /// Whether the Volume's node is a directory that is somewhere else here: by the
    /// path that was told it has come between.
    fn is_another_directory(&self, sent: &Sent, node: s0_tree::NodeId) -> bool {
        sent.local.as_ref().is_some_and(|(what, ..)| what.is_directory())
            && self.is_elsewhere(node, &sent.path)
    }

    /// The Volume has the mode that was sent, for something else that this side
    /// has not seen: only the mode is agreed on.
    fn held_in_part(&mut self, sent: &Sent, records: &mut Vec<Record>) {
        let Some((what, mode, print)) = sent.local.clone() else { return };
        if let Some((place, row)) = self.row_at(&sent.path)
            && row.what == what
        {
            let row = Row { mode, print, ..row.clone() };
            self.incoming.insert(place.clone());
            records.push(Record::Synced(place, Some(row)));
            self.forget(&sent.path);
        }
        self.touch(sent.path.clone(), self.now, false);
    }

    /// Where the node is synced now that a change takes away from its place. The
    /// directory there may have become another one while it was on its way. Whatever
    /// the disk holds at that place, the Volume has no such node there any more: what was
    /// agreed on goes, and what is there is new, or the next download would take it away.
    fn still_at(&self, change: &Change, sent: &Sent) -> Option<Place> {
        let from = sent.from.as_ref()?;
        let Some(Expected::Node { id, .. }) = change.expect else { return Some(from.clone()) };
        let here =
            |place: &&Place| sent.renamed || self.disk_path(place).as_ref() == Some(&sent.path);
        let places = self.state.synced.places(id);
        places.iter().find(|place| *place == from).or_else(|| places.iter().find(here)).cloned()
    }

    /// The place of what was accepted. The Volume goes by paths, and the directory
    /// that it was sent into may have become another one since.
    fn accepted_at(
        &self,
        node: s0_tree::NodeId,
        sent: &Sent,
        parent: Option<s0_tree::NodeId>,
    ) -> Option<Place> {
        let there = self.remote.as_ref().and_then(|tree| tree.node(node));
        let mut places = there.into_iter().flat_map(|there| &there.places);
        let here = places.find(|place| self.disk_path(place).as_ref() == Some(&sent.path));
        let assumed = || Some(Place { parent: parent?, name: sent.path.name()? });
        here.cloned().or_else(assumed)
    }
}
