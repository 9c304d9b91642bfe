//! The messages between our own replicas and the service. They carry journal
//! entries and expectations whole, where the documented API has paths only.

use s0_tree::{Change, Content, ContentId, Entry, NodeId, Policy, Quota, Reason, Seq, TreePath};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;

/// What a replica can hold, as the documented API spells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Capabilities {
    /// `Foo` and `foo` are two names.
    pub case_sensitive: bool,
    /// Two spellings of `é` are one name.
    pub unicode_normalization_insensitive: bool,
    /// Names that Windows refuses cannot be held.
    pub windows_compatible_paths: bool,
}

impl Capabilities {
    /// The policy that a Volume with this one replica has. Case-insensitive
    /// implies insensitive to Unicode forms.
    #[must_use]
    pub fn policy(self) -> Policy {
        Policy {
            case_insensitive: !self.case_sensitive,
            unicode_insensitive: self.unicode_normalization_insensitive || !self.case_sensitive,
            windows_names: self.windows_compatible_paths,
        }
    }
}

impl From<Policy> for Capabilities {
    fn from(policy: Policy) -> Self {
        Self {
            case_sensitive: !policy.case_insensitive,
            unicode_normalization_insensitive: policy.unicode_insensitive,
            windows_compatible_paths: policy.windows_names,
        }
    }
}

/// What one of our hosts says of itself when it starts: the documented
/// registration with more fields. Sent with `PUT /sync/replicas/{id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// For people: host name and directory.
    pub display_name: String,
    /// `linux`, `macos`, `windows`.
    pub platform: String,
    /// The attached directory.
    pub root_path: String,
    /// Equal to `capabilities.case_sensitive`.
    pub case_sensitive: bool,
    /// What the root can hold.
    pub capabilities: Capabilities,
    /// Asks for an instance number. Each answer gives a higher one, and
    /// requests of lower instances are refused from then on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub take_instance: bool,
    /// The sandbox whose writes this replica carries, if it stands for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox_id: Option<String>,
}

/// The answer to a [`Registration`], beside the documented fields.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Registered {
    /// The instance number, if one was asked for.
    #[serde(default)]
    pub instance: u64,
    /// The number of the last submission that the service answered.
    #[serde(default)]
    pub last_number: u64,
    /// The Volume's epoch.
    pub epoch: String,
    /// The Volume's head.
    #[serde(rename = "head_seq")]
    #[schemars(with = "u64")]
    pub head: Seq,
    /// How far the replica's disk had come, as it said.
    #[serde(default, rename = "cursor_seq")]
    #[schemars(with = "u64")]
    pub cursor: Seq,
}

/// Changes that a replica sends. Submissions of a replica are numbered from 1
/// without gaps and sent one at a time; the service keeps the answer to the
/// last one, so that it can be given again, and refuses lower numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submission {
    /// The number.
    pub number: u64,
    /// The changes, in order.
    pub changes: Vec<Change>,
}

/// The answer to a [`Submission`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Answer {
    /// The head after the submission.
    #[schemars(with = "u64")]
    pub head: Seq,
    /// One outcome for each change.
    pub outcomes: Vec<Outcome>,
}

/// What became of one change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// Journaled as this entry; the node's version is the seq.
    Accepted {
        /// The entry.
        #[schemars(with = "u64")]
        seq: Seq,
        /// The node.
        #[schemars(with = "u64")]
        node: NodeId,
    },
    /// The tree held it already.
    Held {
        /// The node that is there, if any.
        #[schemars(with = "Option<u64>")]
        node: Option<NodeId>,
        /// Its version; of an absence, the head.
        #[schemars(with = "u64")]
        version: Seq,
    },
    /// Recorded as a conflict.
    Conflict {
        /// The conflict's id.
        id: String,
        /// Why.
        #[schemars(with = "schema::Reason")]
        reason: Reason,
        /// The path of what stands in the way.
        #[serde(deserialize_with = "TreePath::recorded")]
        #[schemars(with = "String")]
        path: TreePath,
    },
    /// Something else is there than was expected, and the change said that whoever asks
    /// looks again ([`Change::looks_again`]). Nothing is recorded.
    Stale {
        /// Why.
        #[schemars(with = "schema::Reason")]
        reason: Reason,
    },
    /// The Volume's quota has no room for it. Nothing is recorded; it may be sent again
    /// once there is room.
    NoRoom,
    /// Refused with an earlier change of the submission that touches the same
    /// path, or one above or below it. Nothing is recorded; it may be sent again.
    Refused {
        /// The index of the earlier change.
        by: usize,
    },
}

/// Why a submission as a whole was not admitted. Nothing of it was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum SubmitError {
    /// The replica is not registered.
    #[error("the replica is not registered with the Volume")]
    UnknownReplica,
    /// A newer host of this replica has taken over.
    #[error("another host has taken over this replica (instance {current})")]
    Fenced {
        /// The instance in charge.
        current: u64,
    },
    /// The number was answered before, and later ones too.
    #[error("submission {last} was answered already")]
    Superseded {
        /// The last number that was answered.
        last: u64,
    },
    /// The number was answered before, for other changes.
    #[error("submission {number} was sent before with other changes")]
    Reused {
        /// The number.
        number: u64,
    },
    /// A change would be wrong in any tree.
    #[error("change {index} is invalid: {why}")]
    Invalid {
        /// Its index.
        index: usize,
        /// Why.
        why: String,
    },
    /// The service does not hold these contents; send them, then the same
    /// submission again.
    #[error("{} contents are missing", ids.len())]
    MissingContents {
        /// Which.
        ids: Vec<ContentId>,
    },
}

/// One event of `GET /sync/events`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum StreamEvent {
    /// Where the journal ends. Sent first, whenever the reader has caught up, and
    /// when the policy has changed.
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
    /// An entry.
    Entry {
        /// It.
        entry: Box<Entry>,
        /// Its content, when that is small and is text.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        text: Option<String>,
    },
}

/// Which of these contents does the service lack? `POST /sync/contents/missing`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HaveList {
    /// Chunks and recipes.
    #[schemars(with = "Vec<String>")]
    pub ids: Vec<ContentId>,
}

/// How many frames were kept. `POST /sync/contents`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Stored {
    /// Their number.
    pub stored: usize,
}

/// A request for contents. `POST /sync/contents/fetch`, answered by frames.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Fetch {
    /// The content whose chunks are asked for, when `ids` are chunks of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::Content>")]
    pub of: Option<Content>,
    /// What is asked for: chunks, or recipes.
    #[schemars(with = "Vec<String>")]
    pub ids: Vec<ContentId>,
}
