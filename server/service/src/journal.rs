//! The journal store: what must be kept of Volumes, behind one trait.
//!
//! Every store passes [`conformance`], which says in code what the words below
//! mean.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use s0_api::documented::ConflictStatus;
use s0_api::tokens::Role;
use s0_api::volumes::AccessMode;
use s0_tree::{Content, ContentId, Entry, Hash, NodeId, Quota, Seq, Time, Usage};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ledger::{Answered, ReplicaRecord};

#[cfg(test)]
pub(crate) mod conformance;

/// A Volume, without what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeRecord {
    /// Its id.
    pub id: String,
    /// The team that owns it.
    pub team: String,
    /// Who made it.
    pub user: String,
    /// The Volume that it is a fork of.
    pub source: Option<String>,
    /// Who may write it.
    pub access_mode: AccessMode,
    /// Owner of what writers without an identity create.
    pub uid: u32,
    /// Group of the same.
    pub gid: u32,
    /// Its epoch.
    pub epoch: String,
    /// How much it may hold.
    pub quota: Quota,
    /// How much it holds; a program that did not count may have written it last.
    pub used: Option<Usage>,
    /// When it was made.
    pub created: Time,
    /// When it last changed.
    pub updated: Time,
}

/// A tree as a store keeps it: compressed, at its seq.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The tree's head.
    pub seq: Seq,
    /// The tree.
    pub packed: Bytes,
}

/// What a Volume starts with when it is a fork.
#[derive(Debug, Clone)]
pub struct Start {
    /// The source's tree; the new journal goes on from its seq.
    pub checkpoint: Checkpoint,
    /// The contents that the tree names.
    pub contents: Vec<ContentId>,
}

/// All that is needed to have a Volume in memory.
#[derive(Debug, Clone)]
pub struct Stored {
    /// The Volume.
    pub record: VolumeRecord,
    /// The seq of the last entry.
    pub head: Seq,
    /// Entries up to this one are gone.
    pub retained_after: Seq,
    /// The seqs of all checkpoints, oldest first.
    pub checkpoints: Vec<Seq>,
    /// The registered replicas.
    pub replicas: Vec<ReplicaRecord>,
}

/// What commits together.
#[derive(Debug, Clone, Default)]
pub struct Append {
    /// The Volume.
    pub volume: String,
    /// The head on which the entries follow.
    pub head: Seq,
    /// The entries, in order.
    pub entries: Vec<Entry>,
    /// What clients noted with some of them.
    pub notes: Vec<(Seq, Value)>,
    /// Small contents that they name.
    pub inline: Vec<(ContentId, Bytes)>,
    /// Contents that the Volume names from now on.
    pub names: Vec<ContentId>,
    /// Replicas that are forgotten, with their answers and requests; before
    /// anything below is kept.
    pub forgotten: Vec<Arc<str>>,
    /// Replicas that are new or changed.
    pub replicas: Vec<ReplicaRecord>,
    /// Submissions that were answered, by replica.
    pub answers: Vec<(Arc<str>, Arc<Answered>)>,
    /// Documented requests that were answered.
    pub requests: Vec<RequestRecord>,
    /// Conflicts that are new.
    pub conflicts: Vec<ConflictRecord>,
    /// How much the Volume may hold from now on, if that changes.
    pub quota: Option<Quota>,
    /// How much it holds after the entries.
    pub used: Usage,
    /// When.
    pub time: Time,
}

impl Append {
    /// Whether there is nothing to keep.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
            && self.replicas.is_empty()
            && self.forgotten.is_empty()
            && self.answers.is_empty()
            && self.requests.is_empty()
            && self.conflicts.is_empty()
            && self.quota.is_none()
    }
}

impl Append {
    /// Adds what is to commit after this, in the same transaction.
    pub(crate) fn extend(&mut self, later: Self) {
        self.entries.extend(later.entries);
        self.notes.extend(later.notes);
        self.inline.extend(later.inline);
        self.names.extend(later.names);
        for id in later.forgotten {
            self.replicas.retain(|replica| replica.id != id);
            self.answers.retain(|(replica, _)| *replica != id);
            self.requests.retain(|request| *request.replica != *id);
            self.forgotten.push(id);
        }
        for replica in later.replicas {
            self.replicas.retain(|known| known.id != replica.id);
            self.replicas.push(replica);
        }
        for (id, answered) in later.answers {
            self.answers.retain(|(known, _)| *known != id);
            self.answers.push((id, answered));
        }
        self.requests.extend(later.requests);
        self.conflicts.extend(later.conflicts);
        self.quota = later.quota.or(self.quota);
    }
}

/// A documented request that was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestRecord {
    /// The replica that sent it.
    pub replica: String,
    /// The client's name for it.
    pub request: String,
    /// The SHA-256 of what it asked.
    pub body: Hash,
    /// The answer, as JSON.
    pub answer: String,
    /// The head after it: the record may go when the replica has read this far.
    pub head: Seq,
}

/// A conflict.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConflictRecord {
    /// Its id.
    pub id: String,
    /// The replica whose change was refused, if it came from one.
    pub replica: Option<String>,
    /// The path of the refused change.
    pub path: String,
    /// The old path of a refused rename.
    pub old_path: Option<String>,
    /// The version of what stands in the way.
    pub existing: Option<Seq>,
    /// Why.
    pub reason: String,
    /// Whether it still stands.
    pub status: ConflictStatus,
    /// More, as the API gives it.
    pub metadata: Value,
    /// When it was recorded.
    pub created: Time,
    /// When it last changed.
    pub updated: Time,
}

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotRecord {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// For people.
    pub description: String,
    /// The head of its tree.
    pub seq: Seq,
    /// The sum of the sizes of its regular files.
    pub size: u64,
    /// When it was made.
    pub created: Time,
}

/// What a token lets its bearer do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRecord {
    /// The SHA-256 of the token. The token itself is kept nowhere.
    pub hash: Hash,
    /// The id by which it is spoken of.
    pub id: String,
    /// The team.
    pub team: String,
    /// The user.
    pub user: String,
    /// For people.
    pub name: String,
    /// Whether it is the service's own, which may make tokens for any team.
    pub platform: bool,
    /// What it may do.
    pub roles: Vec<Role>,
    /// Whether it opens anything.
    pub active: bool,
    /// When it ceases, if it does.
    pub expires: Option<Time>,
    /// When it was made.
    pub created: Time,
    /// When it last changed.
    pub updated: Time,
    /// What it is limited to, if it was made with another token and for one thing.
    pub limit: Option<Limit>,
}

/// The limits of a token that was made with another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// The SHA-256 of the other token, without which this one opens nothing.
    pub parent: Hash,
    /// All that it is for.
    pub purpose: Purpose,
}

/// What a limited token is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// A mount.
    Mount {
        /// Of this Volume.
        volume: String,
        /// Through which nothing is written.
        read_only: bool,
    },
    /// Letting the service reach a sandbox.
    Attend {
        /// This one.
        sandbox: String,
    },
}

/// A store that failed. Whether the last write was done is unknown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It could not be done now; later it may.
    #[error("{0}")]
    Failed(String),
    /// There is no room for it. Nothing was changed.
    #[error("{0}")]
    Full(String),
    /// What is stored is not what was kept, or of a newer program. It will not
    /// mend by itself.
    #[error("{0}")]
    Damaged(String),
}

/// Does what takes long on a thread that may wait.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Kept<T> + Send + 'static,
) -> Kept<T> {
    let stopped = |error: tokio::task::JoinError| StoreError::Failed(error.to_string());
    tokio::task::spawn_blocking(work).await.map_err(stopped)?
}

/// Why an append was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The head is another one. Nothing was written.
    #[error("the journal's head is {0}")]
    HeadMoved(Seq),
    /// There is no such Volume any more. Nothing was written.
    #[error("the Volume was deleted")]
    Gone,
    /// Whether it was done is unknown.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The result of most calls of a store.
pub type Kept<T> = Result<T, StoreError>;

/// A store of journals and of what goes with them. What a call that writes has
/// answered is durable.
#[async_trait]
pub trait Journal: Send + Sync + 'static {
    /// Makes a Volume; a fork starts with its source's tree.
    async fn create_volume(&self, record: VolumeRecord, start: Option<Start>) -> Kept<()>;
    /// A Volume.
    async fn volume(&self, id: &str) -> Kept<Option<VolumeRecord>>;
    /// The Volumes of a team, or of all, newest first.
    async fn volumes(&self, team: Option<String>) -> Kept<Vec<VolumeRecord>>;
    /// Deletes a Volume with all that belongs to it. Says whether it was there.
    async fn delete_volume(&self, id: &str) -> Kept<bool>;
    /// Gives every Volume another epoch, made of `seed`: the store was brought
    /// back from a backup, and readers may know entries that it does not. Limited tokens
    /// are forgotten: nothing that they were made for goes on.
    async fn renew_epochs(&self, seed: &str) -> Kept<()>;
    /// What is needed to have a Volume in memory.
    async fn load(&self, volume: &str) -> Kept<Option<Stored>>;
    /// Appends if the head is `append.head`: all of it, or nothing.
    async fn append(&self, append: Append) -> Result<(), AppendError>;
    /// Entries after `after`, in order, at most `limit`.
    async fn entries(&self, volume: &str, after: Seq, limit: usize) -> Kept<Vec<Entry>>;
    /// What clients noted with entries after `after`, up to `until`.
    async fn notes(&self, volume: &str, after: Seq, until: Seq) -> Kept<HashMap<Seq, Value>>;
    /// The content that a file had in a version, as far as entries are retained.
    async fn content_of(&self, volume: &str, node: NodeId, version: Seq) -> Kept<Option<Content>>;

    /// Small contents of a team, of those that are held.
    async fn inline(&self, team: &str, ids: Vec<ContentId>) -> Kept<Vec<(ContentId, Bytes)>>;
    /// Keeps small contents that nothing names yet.
    async fn put_inline(&self, team: &str, contents: Vec<(ContentId, Bytes)>) -> Kept<()>;
    /// Notes that a team holds these until `until` even if nothing names them.
    async fn lease(&self, team: &str, ids: Vec<ContentId>, until: Time) -> Kept<()>;
    /// Those of `ids` that an entry, conflict or tree of the Volume names or named.
    async fn named(&self, volume: &str, ids: Vec<ContentId>) -> Kept<BTreeSet<ContentId>>;
    /// Keeps the hash of the whole of a content.
    async fn put_whole(&self, team: &str, content: Content, sha256: Hash) -> Kept<()>;
    /// The hash of the whole of a content, if it was kept.
    async fn whole_of(&self, team: &str, id: ContentId) -> Kept<Option<Hash>>;
    /// The contents whose whole has the hash.
    async fn contents_of_whole(&self, team: &str, sha256: Hash) -> Kept<Vec<Content>>;

    /// A documented request that was answered.
    async fn request(
        &self,
        volume: &str,
        replica: &str,
        request: &str,
    ) -> Kept<Option<RequestRecord>>;
    /// Conflicts, newest first; of one status, or all.
    async fn conflicts(
        &self,
        volume: &str,
        status: Option<String>,
        limit: usize,
    ) -> Kept<Vec<ConflictRecord>>;
    /// Settles a conflict: its status, and what is added to its metadata.
    async fn set_conflict(
        &self,
        volume: &str,
        id: &str,
        status: ConflictStatus,
        added: Vec<(String, Value)>,
        time: Time,
    ) -> Kept<Option<ConflictRecord>>;

    /// Keeps a checkpoint.
    async fn put_checkpoint(&self, volume: &str, checkpoint: Checkpoint) -> Kept<()>;
    /// The checkpoint at a seq.
    async fn checkpoint(&self, volume: &str, seq: Seq) -> Kept<Option<Checkpoint>>;
    /// The seqs of all checkpoints, oldest first.
    async fn checkpoints(&self, volume: &str) -> Kept<Vec<Seq>>;
    /// The first entry after `after` that was admitted at `time` or later.
    async fn first_since(&self, volume: &str, after: Seq, time: Time) -> Kept<Option<Seq>>;
    /// Lets go of entries up to `floor`, of checkpoints below `checkpoints_from`
    /// that no snapshot names, and of request records that are read past.
    async fn retain(&self, volume: &str, floor: Seq, checkpoints_from: Seq) -> Kept<()>;

    /// Keeps a snapshot with its tree.
    async fn create_snapshot(
        &self,
        volume: &str,
        snapshot: SnapshotRecord,
        checkpoint: Checkpoint,
    ) -> Kept<()>;
    /// A Volume's snapshots, newest first.
    async fn snapshots(&self, volume: &str) -> Kept<Vec<SnapshotRecord>>;
    /// Deletes a snapshot. Says whether it was there.
    async fn delete_snapshot(&self, volume: &str, id: &str) -> Kept<bool>;

    /// Keeps a token, in place of one with the same hash.
    async fn put_token(&self, token: TokenRecord) -> Kept<()>;
    /// Forgets a token, and those that were made with it. Says whether it was there.
    async fn delete_token(&self, hash: Hash) -> Kept<bool>;
    /// What a token lets its bearer do, by its hash.
    async fn token(&self, hash: Hash) -> Kept<Option<TokenRecord>>;
    /// The tokens of a team, or of all, newest first, without those that are limited.
    async fn tokens(&self, team: Option<String>) -> Kept<Vec<TokenRecord>>;
    /// The limited tokens of a team, newest first.
    async fn limited_tokens(&self, team: &str) -> Kept<Vec<TokenRecord>>;
    /// Lets a limited token that is there live until `until`, if it would end earlier.
    async fn prolong_token(&self, hash: Hash, until: Time) -> Kept<()>;
    /// Forgets the limited tokens that ended before `before`; the others live until `until`
    /// then, if that is said.
    async fn keep_limited_tokens(&self, before: Time, until: Option<Time>) -> Kept<()>;

    /// What the store finds wrong with itself, in words. It reads all that is stored.
    async fn check(&self) -> Kept<Vec<String>>;
}
