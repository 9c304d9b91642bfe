//! The ledger: the service's memory of one Volume, and all that it decides.
//!
//! Pure and synchronous: times, ids and what is held are passed in. The Volume's
//! task admits on a clone and keeps it once the entries are on disk; the
//! simulator drives the same code. Cloning is O(1), so a clone is the point to
//! roll back to.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::sync::Arc;

use imbl::OrdMap;
use s0_api::mounts::{ID_PREFIX, IN_FLIGHT};
use s0_api::sync::{Answer, Outcome, Registered, Registration, Submission, SubmitError};
use s0_tree::{
    Action, Actor, Batch, Change, ContentId, Entry, Expected, Hash, Misfit, News, NodeId, Origin,
    Policy, Quota, RequestId, Seq, Source, Time, Tree, TreePath, Verdict, admit_batch, fold,
};
use serde::{Deserialize, Serialize};

mod admitted;
mod answered;

pub use admitted::{Admitted, NewConflict, Submitted};
pub use answered::Answered;

use admitted::base;

/// One Volume: its tree, who replicates it, and what it last answered them.
#[derive(Debug, Clone)]
pub struct Ledger {
    epoch: Arc<str>,
    owner: (u32, u32),
    tree: Tree,
    policy: Policy,
    quota: Quota,
    replicas: OrdMap<Arc<str>, Arc<ReplicaRecord>>,
    /// Names that a mount has made and not committed yet, so that no other makes them.
    /// They are memory: a service that starts knows none.
    reserved: OrdMap<TreePath, Arc<str>>,
}

/// What the service knows of a replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaRecord {
    /// Its id, chosen by the client.
    pub id: Arc<str>,
    /// What it said of itself last.
    pub registration: Registration,
    /// The instance in charge; zero for clients that never took one.
    pub instance: u64,
    /// The last submission that was answered. Stores keep it beside the record,
    /// which changes more often.
    #[serde(skip)]
    pub last: Option<Arc<Answered>>,
    /// Up to where it has read the journal.
    pub cursor: Seq,
    /// When it registered first.
    pub created: Time,
    /// When its registration or cursor last changed.
    pub updated: Time,
    /// When it was last heard of.
    pub seen: Time,
}

/// Why a cursor cannot be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CursorError {
    /// The replica is not registered.
    #[error("the replica is not registered with the Volume")]
    UnknownReplica,
    /// The cursor is above the Volume's head.
    #[error("sync cursor ahead of head")]
    AheadOfHead,
    /// The cursor is below the one that is stored.
    #[error("sync cursor regression")]
    Regression,
}

impl Ledger {
    /// The ledger of a new Volume.
    #[must_use]
    pub fn new(epoch: String) -> Self {
        Self {
            epoch: epoch.into(),
            owner: (0, 0),
            tree: Tree::default(),
            policy: Policy::default(),
            quota: Quota::default(),
            replicas: OrdMap::new(),
            reserved: OrdMap::new(),
        }
    }

    /// The ledger of a Volume that was stored: a checkpoint, and the entries
    /// after it.
    ///
    /// # Errors
    /// An entry does not fit: the journal is damaged, or of a newer program.
    pub fn rebuild(
        epoch: String,
        checkpoint: Tree,
        tail: impl Iterator<Item = Entry>,
        replicas: Vec<ReplicaRecord>,
    ) -> Result<Self, Misfit> {
        let mut ledger = Self::new(epoch);
        ledger.tree = checkpoint;
        for entry in tail {
            fold(&mut ledger.tree, &entry)?;
        }
        for replica in replicas {
            ledger.replicas.insert(replica.id.clone(), Arc::new(replica));
        }
        ledger.agree_on_policy();
        Ok(ledger)
    }

    /// The same with an owner for the nodes that replicas create.
    #[must_use]
    pub fn owned_by(mut self, uid: u32, gid: u32) -> Self {
        self.owner = (uid, gid);
        self
    }

    /// The same with a limit to what it may hold.
    #[must_use]
    pub fn within(mut self, quota: Quota) -> Self {
        self.quota = quota;
        self
    }

    /// How much it may hold.
    #[must_use]
    pub fn quota(&self) -> Quota {
        self.quota
    }

    /// The tree at the head.
    #[must_use]
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// The seq of the last entry.
    #[must_use]
    pub fn head(&self) -> Seq {
        self.tree.head()
    }

    /// What the registered replicas can hold.
    #[must_use]
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// The epoch.
    #[must_use]
    pub fn epoch(&self) -> &str {
        &self.epoch
    }

    /// User and group of the nodes that replicas create.
    #[must_use]
    pub fn owner(&self) -> (u32, u32) {
        self.owner
    }

    /// A registered replica.
    #[must_use]
    pub fn replica(&self, id: &str) -> Option<&ReplicaRecord> {
        self.replicas.get(id).map(Arc::as_ref)
    }

    /// All registered replicas, in the order of their ids.
    pub fn replicas(&self) -> impl Iterator<Item = &ReplicaRecord> {
        self.replicas.values().map(Arc::as_ref)
    }

    /// Registers a replica, or hears from it again. When it takes an instance,
    /// requests of lower ones are refused from then on. Its cursor stays.
    pub fn register(&mut self, id: &str, registration: &Registration, time: Time) -> Registered {
        let known = self.replicas.get(id).map(|known| ReplicaRecord::clone(known));
        let mut record = known.unwrap_or_else(|| ReplicaRecord {
            id: id.into(),
            registration: registration.clone(),
            instance: 0,
            last: None,
            cursor: Seq(0),
            created: time,
            updated: time,
            seen: time,
        });
        record.registration.clone_from(registration);
        record.instance += u64::from(registration.take_instance);
        record.updated = time;
        record.seen = time;
        let registered = Registered {
            instance: record.instance,
            last_number: record.last.as_ref().map_or(0, |last| last.number),
            epoch: self.epoch.to_string(),
            head: self.head(),
            cursor: record.cursor,
        };
        self.keep(record);
        self.agree_on_policy();
        registered
    }

    /// Forgets a replica: it no longer has a say in names, and pins no entries.
    /// Says whether it was known.
    pub fn unregister(&mut self, id: &str) -> bool {
        let known = self.replicas.remove(id).is_some();
        self.agree_on_policy();
        known
    }

    /// Notes up to where a replica has read.
    ///
    /// # Errors
    /// The cursor is not between the one before and the head.
    pub fn set_cursor(&mut self, id: &str, cursor: Seq, time: Time) -> Result<(), CursorError> {
        let known = self.replica(id).ok_or(CursorError::UnknownReplica)?;
        if cursor > self.head() {
            return Err(CursorError::AheadOfHead);
        }
        if cursor < known.cursor {
            return Err(CursorError::Regression);
        }
        self.keep(ReplicaRecord { cursor, updated: time, seen: time, ..known.clone() });
        Ok(())
    }

    /// The mounts that are registered.
    pub fn mounts(&self) -> impl Iterator<Item = Arc<str>> {
        self.replicas.keys().filter(|id| id.starts_with(ID_PREFIX)).cloned()
    }

    /// Mounts that were not heard of since then are not registered any more. Gives them.
    pub fn forget_mounts(&mut self, since: Time, but: impl Fn(&str) -> bool) -> Vec<Arc<str>> {
        let silent = |id: &str| self.replica(id).is_some_and(|known| known.seen < since);
        let gone: Vec<_> = self.mounts().filter(|id| silent(id) && !but(id)).collect();
        for id in &gone {
            self.unregister(id);
        }
        gone
    }

    /// Notes that a replica was heard of.
    pub fn saw(&mut self, id: &str, time: Time) {
        if let Some(known) = self.replica(id) {
            self.keep(ReplicaRecord { seen: time, ..known.clone() });
        }
    }

    /// Whether nothing has a name, and no other mount is to have it.
    pub fn is_free(&self, mount: &str, path: &TreePath) -> bool {
        self.tree.lookup(path).is_none()
            && self.reserved.get(path).is_none_or(|other| **other == *mount)
    }

    /// Keeps a free name for a mount: no other mount can make it before this one has committed
    /// it, or gives it up.
    pub fn reserve(&mut self, mount: &Arc<str>, path: &TreePath) {
        self.reserved.insert(path.clone(), mount.clone());
    }

    /// Keeps the names that are kept in another ledger of the same Volume.
    pub fn reserve_as(&mut self, other: Self) {
        self.reserved = other.reserved;
    }

    /// A mount gives up a name that it reserved; without one, all of them.
    pub fn release(&mut self, mount: &str, path: Option<&TreePath>) {
        match path {
            Some(path) if self.reserved.get(path).is_some_and(|it| **it == *mount) => {
                self.reserved.remove(path);
            }
            Some(_) => {}
            None => {
                let others = self.reserved.iter().filter(|(_, other)| ***other != *mount);
                self.reserved = others.map(|(path, it)| (path.clone(), it.clone())).collect();
            }
        }
    }

    /// A change that makes what another mount has reserved: it expects what is nowhere.
    fn barred(&self, mount: &str, change: &Change) -> Option<Change> {
        let (Action::Create { path, .. }
        | Action::Link { path, .. }
        | Action::Rename { to: path, .. }) = &change.action
        else {
            return None;
        };
        self.reserved.get(path).filter(|other| ***other != *mount)?;
        let nowhere = Some(Expected::Node { id: NodeId(u64::MAX), version: Seq(0) });
        let mut barred = change.clone();
        match &change.action {
            Action::Rename { .. } => barred.expect_to = nowhere,
            _ => barred.expect = nowhere,
        }
        Some(barred)
    }

    /// Admits a submission of one of our replicas. It is folded into this
    /// ledger's tree at once; whoever cannot commit it drops the ledger.
    ///
    /// # Errors
    /// The submission as a whole is not admitted; nothing of it was done.
    pub fn submit(
        &mut self,
        replica: &str,
        instance: u64,
        submission: &Submission,
        time: Time,
        new_conflict_id: &mut dyn FnMut() -> String,
        has_content: &dyn Fn(ContentId) -> bool,
    ) -> Result<Submitted, SubmitError> {
        let known = self.replica(replica).ok_or(SubmitError::UnknownReplica)?;
        match instance.cmp(&known.instance) {
            Ordering::Less => return Err(SubmitError::Fenced { current: known.instance }),
            Ordering::Equal => {}
            // It was never given out, or before the journal was brought back from a
            // backup. A host that registers again gets one that counts.
            Ordering::Greater => return Err(SubmitError::UnknownReplica),
        }
        let body = body_hash(submission);
        if let Some(last) = &known.last {
            if submission.number < last.oldest() {
                return Err(SubmitError::Superseded { last: last.number });
            }
            if let Some(same) = last.to(submission.number) {
                if body != same.body {
                    return Err(SubmitError::Reused { number: same.number });
                }
                let answer = same.answer.clone();
                return Ok(Submitted {
                    entries: Vec::new(),
                    conflicts: Vec::new(),
                    answer,
                    repeated: true,
                });
            }
        }
        let mut missing: Vec<ContentId> = submission
            .changes
            .iter()
            .filter_map(Change::content)
            .map(|content| content.id)
            .filter(|id| !has_content(*id))
            .collect();
        missing.sort_unstable();
        missing.dedup();
        if !missing.is_empty() {
            return Err(SubmitError::MissingContents { ids: missing });
        }
        let sandbox: Option<Arc<str>> = known.registration.sandbox_id.as_deref().map(Arc::from);
        let origin = Origin {
            source: if sandbox.is_some() { Source::Sandbox } else { Source::Replica },
            actor: Actor { replica: Some(known.id.clone()), sandbox, process: None },
            request: Some(RequestId(submission.number.to_string().into())),
            time,
            uid: self.owner.0,
            gid: self.owner.1,
        };
        let known = known.clone();
        let mut changes = Cow::Borrowed(&submission.changes);
        if !self.reserved.is_empty() {
            let own = |change: &Change| self.barred(replica, change).unwrap_or(change.clone());
            changes = Cow::Owned(submission.changes.iter().map(own).collect());
        }
        let admitted = self
            .admit_within(self.quota, &origin, &changes, &News::default(), new_conflict_id)
            .map_err(|(index, why)| SubmitError::Invalid { index, why: why.into() })?;
        if !self.reserved.is_empty() {
            for entry in &admitted.entries {
                self.reserved.remove(&entry.path);
            }
        }
        let answer = Answer { head: self.head(), outcomes: admitted.outcomes };
        let (number, earlier) = (submission.number, Vec::new());
        let last = Answered { number, body, answer: answer.clone(), earlier };
        let kept = if replica.starts_with(ID_PREFIX) { 2 * IN_FLIGHT } else { 1 };
        let last = last.on_top_of(known.last.as_deref(), kept);
        self.keep(ReplicaRecord { last: Some(Arc::new(last)), seen: time, ..known });
        let Admitted { entries, conflicts, .. } = admitted;
        Ok(Submitted { entries, conflicts, answer, repeated: false })
    }

    /// Admits changes that come with no number: of the documented API, of the
    /// file API, of a restore. Contents must have been looked for before. The quota is
    /// for whoever asks: all of it together may fit where one step would not.
    ///
    /// # Errors
    /// The index of a change that would be wrong in any tree, and why; nothing
    /// was done.
    pub fn admit(
        &mut self,
        origin: &Origin,
        changes: &[Change],
        news: &News,
        new_conflict_id: &mut dyn FnMut() -> String,
    ) -> Result<Admitted, (usize, &'static str)> {
        self.admit_within(Quota::default(), origin, changes, news, new_conflict_id)
    }

    fn admit_within(
        &mut self,
        quota: Quota,
        origin: &Origin,
        changes: &[Change],
        news: &News,
        new_conflict_id: &mut dyn FnMut() -> String,
    ) -> Result<Admitted, (usize, &'static str)> {
        let batch = Batch { origin, policy: self.policy, quota, news, changes };
        let (entries, verdicts) = admit_batch(&mut self.tree, &batch)?;
        let mut conflicts = Vec::new();
        let outcomes = changes
            .iter()
            .zip(verdicts)
            .map(|(change, verdict)| match verdict {
                Verdict::Accepted { seq, node } => Outcome::Accepted { seq, node },
                Verdict::Held { node, version } => Outcome::Held { node, version },
                Verdict::NoRoom => Outcome::NoRoom,
                Verdict::Refused { by } => Outcome::Refused { by },
                Verdict::Conflict { reason, .. }
                    if change.looks_again && !reason.is_about_names() =>
                {
                    Outcome::Stale { reason }
                }
                Verdict::Conflict { reason, at, path, existing } => {
                    let id = new_conflict_id();
                    let node = existing.and_then(|(node, _)| self.tree.node(node));
                    conflicts.push(NewConflict {
                        id: id.clone(),
                        replica: origin.actor.replica.as_deref().map(String::from),
                        sandbox: origin.actor.sandbox.as_deref().map(String::from),
                        change: change.clone(),
                        reason,
                        at,
                        path: path.clone(),
                        fell_with: None,
                        existing,
                        existing_content: node.and_then(s0_tree::Node::content),
                        base: base(change),
                        time: origin.time,
                    });
                    Outcome::Conflict { id, reason, path }
                }
            })
            .collect();
        Ok(Admitted { entries, conflicts, outcomes })
    }

    fn keep(&mut self, record: ReplicaRecord) {
        self.replicas.insert(record.id.clone(), Arc::new(record));
    }

    fn agree_on_policy(&mut self) {
        self.policy = self
            .replicas()
            .map(|replica| replica.registration.capabilities.policy())
            .fold(Policy::default(), Policy::and);
    }
}

/// The name of a submission's exact text, by which a repetition is known.
fn body_hash(submission: &Submission) -> Hash {
    // Serialising plain data into memory does not fail; if it ever did, the
    // empty text would at worst make a repetition look like a reuse.
    Hash::of(&serde_json::to_vec(submission).unwrap_or_default())
}

#[cfg(test)]
mod tests;
