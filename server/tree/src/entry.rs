//! Operations and journal entries.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};

use crate::change::New;
use crate::content::Content;
use crate::node::{AttributeChange, Attributes, NodeId, Place, Seq, Time};
use crate::path::TreePath;

/// The format that this code writes. Entries of a newer format are refused by
/// the fold, never guessed at.
pub const FORMAT: u8 = 1;

/// How a rename treats what stands at its destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RenameHow {
    /// As rename(2): a file replaces a file, a directory an empty directory.
    #[default]
    Replace,
    /// The destination must be free.
    NoReplace,
    /// Both exist and change places.
    Exchange,
}

/// What an entry does to the tree, by node id.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op {
    /// Makes a node, whose id is the entry's seq.
    Create {
        /// Where.
        at: Place,
        /// What.
        what: New,
        /// Mode, owner, times.
        attributes: Attributes,
    },
    /// Gives a file one more place.
    Link {
        /// The file.
        node: NodeId,
        /// The new place.
        at: Place,
    },
    /// Replaces the whole content of a file.
    Write {
        /// The file.
        node: NodeId,
        /// The content after.
        content: Content,
        /// Attributes that change with it; always the modification time.
        set: AttributeChange,
    },
    /// Adds to the end of a file.
    Append {
        /// The file.
        node: NodeId,
        /// How many bytes were added.
        added: u64,
        /// The whole content after.
        content: Content,
        /// Attributes that change with it.
        set: AttributeChange,
    },
    /// Cuts or extends a file; its length after is the content's.
    Truncate {
        /// The file.
        node: NodeId,
        /// The whole content after.
        content: Content,
        /// Attributes that change with it.
        set: AttributeChange,
    },
    /// Changes mode, owner, times, extended attributes.
    Attributes {
        /// The node.
        node: NodeId,
        /// What changes.
        set: AttributeChange,
    },
    /// Moves a node to another place.
    Rename {
        /// The node at `from`.
        node: NodeId,
        /// Where it was.
        from: Place,
        /// Where it goes.
        to: Place,
        /// What happens at the destination.
        how: RenameHow,
        /// The node that stood at `to`: replaced, or exchanged.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        displaced: Option<NodeId>,
    },
    /// Takes a node out of a place; with its last place the node goes.
    Remove {
        /// The node.
        node: NodeId,
        /// The place.
        at: Place,
    },
}

/// On whose side an entry arose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A replica on a developer's machine.
    Replica,
    /// A sandbox, or a direct call of the file API.
    Sandbox,
}

/// Who made an entry.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Actor {
    /// The replica through which the write came, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica: Option<Arc<str>>,
    /// The sandbox, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<Arc<str>>,
    /// The process that wrote, as `name[pid]`, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<Arc<str>>,
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = self.sandbox.as_deref().or(self.replica.as_deref()).unwrap_or("api");
        match &self.process {
            Some(process) => write!(f, "{who} ({process})"),
            None => f.write_str(who),
        }
    }
}

/// A client's name for a request: sent again word for word, it is answered
/// again, not done again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestId(pub Arc<str>);

/// One row of the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The format of this row.
    pub format: u8,
    /// Its number in the Volume.
    pub seq: Seq,
    /// When the service admitted it.
    pub time: Time,
    /// On whose side it arose.
    pub source: Source,
    /// Who made it.
    pub actor: Actor,
    /// The request that it belongs to, if the client named it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<RequestId>,
    /// What it does.
    #[serde(flatten)]
    pub op: Op,
    /// The path that it touched, at that time; for a rename the new one.
    #[serde(deserialize_with = "TreePath::recorded")]
    pub path: TreePath,
    /// The old path of a rename.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "old_path")]
    pub old_path: Option<TreePath>,
}

/// Where there is an old path, it is recorded like the new one.
fn old_path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<TreePath>, D::Error> {
    #[derive(Deserialize)]
    struct Recorded(#[serde(deserialize_with = "TreePath::recorded")] TreePath);
    Ok(Option::<Recorded>::deserialize(deserializer)?.map(|Recorded(path)| path))
}

impl Entry {
    /// The content that this entry gives a file.
    #[must_use]
    pub fn content(&self) -> Option<Content> {
        match &self.op {
            Op::Create { what: New::File { content }, .. }
            | Op::Write { content, .. }
            | Op::Append { content, .. }
            | Op::Truncate { content, .. } => Some(*content),
            _ => None,
        }
    }

    /// The permission bits that this entry gives its node.
    pub(crate) fn mode(&self) -> Option<u32> {
        match &self.op {
            Op::Create { attributes, .. } => Some(attributes.mode),
            Op::Write { set, .. }
            | Op::Append { set, .. }
            | Op::Truncate { set, .. }
            | Op::Attributes { set, .. } => set.mode.map(|mode| mode & 0o7777),
            Op::Link { .. } | Op::Rename { .. } | Op::Remove { .. } => None,
        }
    }

    /// The places at which something may be different after this entry, beside
    /// all places of [`Entry::node`].
    #[must_use]
    pub fn places(&self) -> Vec<Place> {
        match &self.op {
            Op::Create { at, .. } | Op::Link { at, .. } | Op::Remove { at, .. } => vec![at.clone()],
            Op::Rename { from, to, .. } => vec![from.clone(), to.clone()],
            _ => Vec::new(),
        }
    }

    /// The node that the entry is about.
    #[must_use]
    pub fn node(&self) -> NodeId {
        match &self.op {
            Op::Create { .. } => NodeId(self.seq.0),
            Op::Link { node, .. }
            | Op::Write { node, .. }
            | Op::Append { node, .. }
            | Op::Truncate { node, .. }
            | Op::Attributes { node, .. }
            | Op::Rename { node, .. }
            | Op::Remove { node, .. } => *node,
        }
    }
}
