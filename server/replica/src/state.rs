//! What a replica remembers, in memory and in its state database.
//!
//! The state changes by [`Record`]s only. The engine commits records to the
//! [`Store`] and applies the same records to its own [`State`], so what it
//! knows and what it will know after a restart cannot come apart.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use s0_api::sync::{Answer, Submission};
use s0_tree::{Actor, Content, ContentId, NodeId, Place, Reason, Seq, TreePath};
use serde::{Deserialize, Serialize};

use crate::disk::{Abilities, IntentId, RootIdentity, Stat};
use crate::synced::{RowChange, Synced};

/// What a replica syncs of a path, beside its mode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum What {
    /// A file with this content.
    File(Content),
    /// A directory.
    Directory,
    /// A link with this target.
    Symlink(Arc<str>),
}

impl What {
    /// Whether it is a directory.
    #[must_use]
    pub fn is_directory(&self) -> bool {
        *self == Self::Directory
    }
}

/// A file as it was seen when its content was known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Print {
    /// The stat.
    pub stat: Stat,
    /// When, by the file system's clock. A change close before may have left
    /// no trace in the stat.
    pub seen: i64,
    /// A program had it open for writing then. What it writes into memory that it
    /// has mapped leaves no trace in the stat, so this one is never trusted.
    #[serde(default)]
    pub open: bool,
}

/// What disk and Volume last agreed on, for one place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The Volume's node.
    pub node: NodeId,
    /// Its version.
    pub version: Seq,
    /// What it is.
    pub what: What,
    /// Its permission bits.
    pub mode: u32,
    /// The file on disk that was this. `None` when the disk is known to hold
    /// something else that the user decided to send.
    pub print: Option<Print>,
}

/// What the Volume holds at a place, as far as a replica applies it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remote {
    /// The node.
    pub node: NodeId,
    /// Its version.
    pub version: Seq,
    /// What it is.
    pub what: What,
    /// Its permission bits.
    pub mode: u32,
}

/// How far an intent has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// The disk holds what it did before, or, after a crash, perhaps what it
    /// shall hold.
    Planned,
    /// The disk holds what it shall; what it held before is in the staging slot.
    Swapped,
}

/// Something that is about to be done to the disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// Where in the Volume.
    pub place: Place,
    /// Where on the disk.
    pub path: TreePath,
    /// What disk and Volume agreed on.
    pub before: Option<Row>,
    /// What the disk shall hold.
    pub after: Option<Remote>,
    /// How far it has come.
    pub phase: Phase,
    /// Who wrote it, to tell the user.
    pub actor: Option<Actor>,
}

impl Intent {
    /// What the Volume has or had of it: what the disk shall hold, then what it held.
    pub(crate) fn contents(&self) -> Vec<What> {
        let after = self.after.as_ref().map(|after| after.what.clone());
        let before = self.before.as_ref().map(|row| row.what.clone());
        after.into_iter().chain(before).collect()
    }
}

/// A change that was sent, with what is known of the disk if it is accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// Where on the disk.
    pub path: TreePath,
    /// What the disk held, its mode, and the stat from when it was read (`None`
    /// when the disk holds something else by now); nothing for a removal.
    pub local: Option<(What, u32, Option<Print>)>,
    /// The place that the change takes it from: the place of the row for a
    /// removal, the old place for a rename.
    pub from: Option<Place>,
    /// The synced directory that it goes into; none for a directory that the
    /// same submission makes. The path may lead elsewhere when the answer comes.
    pub parent: Option<s0_tree::NodeId>,
    /// Whether it is a rename.
    pub renamed: bool,
}

/// A submission on its way. It is sent word for word until it is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outgoing {
    /// What the service is told.
    pub submission: Submission,
    /// For each change, what it means here.
    pub sent: Vec<Sent>,
    /// The small contents that it brings, which stores do not keep: the files have
    /// them. After a restart a submission that had not arrived is sent without, so
    /// that the service asks for what it lacks, and what is on the disk then is
    /// planned anew.
    #[serde(skip)]
    pub inline: Vec<(ContentId, Arc<[u8]>)>,
    /// The answer, once it has come. What it says counts when the journal has
    /// been folded as far as the answer's head.
    pub answer: Option<Answer>,
}

/// Where a conflict stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConflictStatus {
    /// Waiting for the user; uploads pause.
    Open,
    /// Left as it is: neither side is changed.
    Ignored,
}

/// A conflict of this replica that is not resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    /// The service's id for it.
    pub id: String,
    /// Why.
    pub reason: Reason,
    /// Where it stands.
    pub status: ConflictStatus,
    /// What both sides agreed on before.
    pub base: Option<What>,
    /// What this side had when it was refused; absent: removed.
    pub mine: Option<What>,
    /// The path of what stands in the way.
    pub other: TreePath,
    /// When it was recorded, in nanoseconds since the Unix epoch.
    pub time: i64,
}

/// A sandbox's write that is on the disk, until a review has heard of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The path.
    pub path: TreePath,
    /// Where it was, if it was renamed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<TreePath>,
    /// What was there, with its permission bits.
    pub before: Option<(What, u32)>,
    /// What is there.
    pub after: Option<(What, u32)>,
    /// Who wrote it.
    pub actor: Actor,
    /// The entry that it came with, or, of a removal, one that is not older.
    pub version: Seq,
}

/// One change of the state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// The agreement of a place, or that there is none any more, there and below.
    Synced(Place, Option<Row>),
    /// What was synced at one place is at another, with all that is below.
    Moved {
        /// The old place.
        from: Place,
        /// The new one.
        to: Place,
        /// What is agreed on there.
        row: Row,
    },
    /// An intent, or that it is done with.
    Intent(IntentId, Option<Intent>),
    /// The submission on its way, or that there is none.
    Outgoing(Option<Box<Outgoing>>),
    /// The conflict of a path, or that it is resolved.
    Conflict(TreePath, Option<Conflict>),
    /// A conflict's end that the service has not been told yet, with the word
    /// for it; or that it has been told.
    Settled(String, Option<Settlement>),
    /// A local path that waits for the user's word before it is uploaded.
    Withheld(TreePath, bool),
    /// A directory that the Volume has not, kept because of what is in it.
    Kept(TreePath, bool),
    /// A write that a review has to hear of, by the order in which it was applied; or
    /// that it has heard of it.
    Applied(u64, Option<Box<Applied>>),
    /// Facts about the replica as a whole.
    Facts(Facts),
}

/// How a conflict ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settlement {
    /// Ignored, not resolved.
    pub ignored: bool,
    /// `marked`, `merged`, `took_theirs`, `kept_both`, `ignored`, `vanished`.
    pub resolution: String,
}

/// Facts about the replica as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Facts {
    /// The Volume's epoch, once known.
    pub epoch: Option<String>,
    /// How far the journal was folded when this was written. Says nothing about
    /// the disk.
    pub cursor: Seq,
    /// The number of the last submission.
    pub number: u64,
    /// The last intent id.
    pub last_intent: IntentId,
    /// Which directory the root is.
    pub root: Option<RootIdentity>,
    /// What its file system could do when it was attached.
    #[serde(default)]
    pub abilities: Option<Abilities>,
    /// Whether the first look through the workspace has been taken.
    pub initialised: bool,
    /// The run of the operating system in which a host last started, unless it
    /// ended in order.
    #[serde(default)]
    pub boot: Option<String>,
}

/// Everything that a replica remembers.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// Rows by place.
    pub synced: Synced,
    /// Intents that are not done with.
    pub intents: BTreeMap<IntentId, Intent>,
    /// The submission on its way.
    pub outgoing: Option<Box<Outgoing>>,
    /// Conflicts by path.
    pub conflicts: BTreeMap<TreePath, Conflict>,
    /// Ends of conflicts that the service has not been told.
    pub settled: BTreeMap<String, Settlement>,
    /// Local paths that wait for the user's word.
    pub withheld: BTreeSet<TreePath>,
    /// Directories that are kept because of what is in them.
    pub kept: BTreeSet<TreePath>,
    /// Writes that a review has not heard of yet, in the order in which they were applied.
    pub applied: BTreeMap<u64, Applied>,
    /// The rest.
    pub facts: Facts,
}

impl State {
    /// A state that has these rows and nothing else, as a store loads it. They
    /// may come in any order.
    #[must_use]
    pub fn with_rows(rows: impl Iterator<Item = (Place, Row)>) -> Self {
        Self { synced: Synced::restore(rows), ..Self::default() }
    }

    /// Applies a record.
    pub fn apply(&mut self, record: Record) {
        match record {
            Record::Synced(place, Some(row)) => self.synced.agree(place, row),
            Record::Synced(place, None) => self.synced.forget(&place),
            Record::Moved { from, to, row } => self.synced.move_to(&from, to, row),
            Record::Intent(id, intent) => put(&mut self.intents, id, intent),
            Record::Outgoing(outgoing) => self.outgoing = outgoing,
            Record::Conflict(path, conflict) => put(&mut self.conflicts, path, conflict),
            Record::Settled(id, settlement) => put(&mut self.settled, id, settlement),
            Record::Withheld(path, is) => put_one(&mut self.withheld, path, is),
            Record::Kept(path, is) => put_one(&mut self.kept, path, is),
            Record::Applied(number, applied) => {
                put(&mut self.applied, number, applied.map(|applied| *applied));
            }
            Record::Facts(facts) => self.facts = facts,
        }
    }
}

fn put<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    };
}

fn put_one(set: &mut BTreeSet<TreePath>, path: TreePath, is: bool) {
    if is {
        set.insert(path);
    } else {
        set.remove(&path);
    }
}

/// The state database is gone, full or damaged.
#[derive(Debug, thiserror::Error)]
#[error("the state database cannot be used: {0}")]
pub struct StoreError(pub String);

/// Where records are kept.
pub trait Store {
    /// Makes records permanent, all or none. What they come down to for single
    /// places is in `rows`, in order. When `durable` is set they survive a power
    /// cut from then on; otherwise from the next durable commit on, and in order.
    /// Calls take effect in the order in which they are made.
    ///
    /// # Errors
    /// They may or may not be kept; the replica must stop and load again.
    fn commit(
        &mut self,
        records: &[Record],
        rows: &[RowChange],
        durable: bool,
    ) -> Result<(), StoreError>;

    /// All that was committed.
    ///
    /// # Errors
    /// It cannot be read, or was written by newer software.
    fn load(&mut self) -> Result<State, StoreError>;
}
