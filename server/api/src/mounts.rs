//! The messages between a mount of a Volume and the service, over one WebSocket.
//!
//! What the service tells is text: the events of the stream as they are
//! ([`StreamEvent`]), and answers. What a mount says is text, too, except that changes
//! come as bytes, with the small contents that they bring.

use bytes::Bytes;
use s0_tree::{ContentId, Entry, NodeId, Policy, Quota, Seq, TreePath};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::frames::write_frame;
use crate::sync::{Outcome, Submission, SubmitError};

/// How long a mount counts that is not heard of, in milliseconds. What it may have in its
/// caches is waited for no longer.
pub const LEASE_MS: u64 = 3000;
/// How long a mount counts itself as current after it was last heard, in milliseconds. It
/// has the rest of [`LEASE_MS`] to make the kernel forget.
pub const OWN_LEASE_MS: u64 = 2000;

/// What the ids of mounts begin with, which are registered beside replicas.
pub const ID_PREFIX: &str = "mnt_";
/// How many submissions a mount sends before the first is answered.
pub const IN_FLIGHT: usize = 8;

/// Who mounts: the query of `GET …/mounts/{session}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MountQuery {
    /// Up to where the mount has folded the journal.
    pub after: u64,
    /// The epoch that it knows.
    pub epoch: String,
    /// The sandbox that it is in, if it is in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox_id: Option<String>,
    /// The machine, for people.
    pub host: String,
    /// The directory, for people.
    pub mount_point: String,
    /// Nothing is written through it.
    #[serde(default)]
    pub read_only: bool,
}

/// Whose lock it is: a process's or an open file's, as its kernel numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Holder(pub u64);

/// A range of bytes of a file, both ends included, and how it is locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// The first byte.
    pub start: u64,
    /// The last byte.
    pub end: u64,
    /// Others may not even read.
    pub exclusive: bool,
}

/// What locks are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LockSpace {
    /// `fcntl`: ranges, of a process.
    Ranges,
    /// `flock`: the whole file, of an open file.
    Whole,
}

/// What a mount says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
pub enum Said {
    /// All up to this entry is folded, and the kernel knows. Said after each news, and
    /// twice a second; answered by [`Told::Heard`].
    Seen {
        /// The entry.
        seq: Seq,
        /// A number that comes back.
        beat: u64,
    },
    /// Keeps a name that is free, so that no other mount makes it, until it is made or
    /// given up.
    Reserve {
        /// A number that the answer bears.
        id: u64,
        /// The path.
        path: TreePath,
    },
    /// Gives up a name.
    Release {
        /// The path.
        path: TreePath,
    },
    /// Takes a lock.
    Lock {
        /// A number that the answer bears.
        id: u64,
        /// The file.
        node: NodeId,
        /// Of what kind.
        space: LockSpace,
        /// For whom.
        holder: Holder,
        /// What.
        range: Range,
        /// Whether to wait for it.
        wait: bool,
        /// The process, for those who ask who holds it.
        pid: u32,
    },
    /// Does not wait for a lock any more.
    Cancel {
        /// The number of its [`Said::Lock`].
        id: u64,
    },
    /// Gives locks back.
    Unlock {
        /// The file.
        node: NodeId,
        /// Of what kind.
        space: LockSpace,
        /// Whose.
        holder: Holder,
        /// The first byte.
        start: u64,
        /// The last byte.
        end: u64,
    },
    /// What was [`Told::Taken`] and was stale then has been tried again, and answered: it need
    /// not be recorded by the service when this mount is gone.
    Concluded {
        /// The number of the submission.
        number: u64,
        /// The index of the change in it.
        change: usize,
    },
    /// It knows that it is not alone any more, and has said which names are to be kept.
    Company,
    /// All locks that are held were said on this connection: what else there is of this mount
    /// was given back when nobody heard it.
    Locks,
    /// Asks what is in the way of a lock.
    Test {
        /// A number that the answer bears.
        id: u64,
        /// The file.
        node: NodeId,
        /// For whom.
        holder: Holder,
        /// What.
        range: Range,
    },
    /// Ends: its locks are given back, and it is waited for no longer.
    Bye,
}

/// What a mount is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Told {
    /// The connection is made.
    Welcome {
        /// The number of the last submission that was answered.
        last_number: u64,
    },
    /// See [`StreamEvent::Head`](crate::sync::StreamEvent::Head).
    Head {
        /// The head.
        head: Seq,
        /// The epoch.
        epoch: String,
        /// What names all registered replicas can hold.
        #[serde(default)]
        policy: Policy,
        /// How much the Volume may hold.
        #[serde(default)]
        quota: Quota,
    },
    /// See [`StreamEvent::Entry`](crate::sync::StreamEvent::Entry).
    Entry {
        /// It.
        entry: Box<Entry>,
        /// Its content, when that is small and is text.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        text: Option<String>,
    },
    /// A submission is in the service's hands, and no other mount has to see it: `close` may
    /// return. If both die now it is lost, if one does it is not: what does not fit then, and is
    /// not tried again by the mount ([`Said::Concluded`]), becomes a conflict.
    Taken {
        /// Its number.
        number: u64,
    },
    /// A submission is committed. Its entries were told before.
    Answer {
        /// Its number.
        number: u64,
        /// The head after it.
        head: Seq,
        /// One outcome for each change.
        outcomes: Vec<Outcome>,
        /// No other mount has to see it first; see [`Told::Settled`].
        settled: bool,
    },
    /// A submission as a whole was not admitted.
    Refused {
        /// Its number.
        number: u64,
        /// Why.
        error: SubmitError,
    },
    /// A submission was not done, for another reason; it may be sent again.
    Failed {
        /// Its number.
        number: u64,
        /// The service's disk is full.
        full: bool,
    },
    /// No other mount is there, and none comes before [`Told::Company`] was answered: names need
    /// not be kept by [`Said::Reserve`].
    Alone,
    /// Another mount comes. It waits until all names are kept that were made meanwhile, and
    /// [`Said::Company`] was said.
    Company,
    /// Every other mount has seen all up to this entry, or its lease has ended.
    Settled {
        /// The entry.
        seq: Seq,
    },
    /// The answer to [`Said::Seen`].
    Heard {
        /// Its number.
        beat: u64,
        /// The mount did not count for a while, and has not seen yet what others were told is seen by
        /// all in that time: it must not go by what it knows.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        behind: bool,
    },
    /// Whether a name is kept.
    Reserved {
        /// The number of its [`Said::Reserve`].
        id: u64,
        /// It was free.
        granted: bool,
    },
    /// The lock is taken.
    Locked {
        /// The number of its [`Said::Lock`].
        id: u64,
    },
    /// The lock is another's; or what is in the way of one that was asked about, if
    /// anything is.
    Busy {
        /// The number of what was asked.
        id: u64,
        /// What is in the way.
        range: Option<Range>,
        /// The process that holds it.
        pid: u32,
    },
    /// The lock would wait for a lock that waits for it.
    Deadlock {
        /// The number of its [`Said::Lock`].
        id: u64,
    },
    /// There are so many locks already that the service keeps no more.
    TooMany {
        /// The number of its [`Said::Lock`].
        id: u64,
    },
}

/// Changes and the small contents that they bring, as bytes: the length of the JSON, the
/// JSON, and frames.
///
/// # Errors
/// There are too many changes for one message.
pub fn write_submission(
    submission: &Submission,
    inline: &[(ContentId, Bytes)],
) -> Result<Vec<u8>, Error> {
    let json =
        serde_json::to_vec(submission).map_err(|error| Error::BadRequest(error.to_string()))?;
    let length = u32::try_from(json.len())
        .map_err(|_| Error::BadRequest("the submission is too large".into()))?;
    let mut body = length.to_be_bytes().to_vec();
    body.extend_from_slice(&json);
    for (id, bytes) in inline {
        write_frame(&mut body, *id, bytes);
    }
    Ok(body)
}
