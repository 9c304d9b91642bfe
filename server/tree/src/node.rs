//! Nodes: what the tree holds.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use crate::content::Content;
use crate::path::Name;

/// The number of a journal entry within its Volume: gap-free, from 1. Zero is
/// the state before the first entry.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Seq(pub u64);

impl Seq {
    /// The seq after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A node's identity: the seq of the entry that created it. The root is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(pub u64);

impl NodeId {
    /// The root directory, which no entry creates.
    pub const ROOT: Self = Self(0);
}

/// Nanoseconds since the Unix epoch.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Time(pub i64);

/// The most bytes that the extended attributes of a node have, names and values
/// together: what Linux lets a file system hold.
pub const MAX_XATTR_BYTES: usize = 64 * 1024;

/// Extended attributes by name. Shared, since most nodes have none.
type Xattrs = Option<Arc<BTreeMap<String, Vec<u8>>>>;

/// What a node has beside its kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes {
    /// The low twelve permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last change of the contents.
    pub mtime: Time,
    /// Extended attributes of the `user.` namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xattrs: Xattrs,
}

impl Attributes {
    /// How many bytes the extended attributes have, names and values together.
    pub(crate) fn xattr_bytes(&self) -> usize {
        self.xattrs.iter().flat_map(|all| all.iter()).map(|(name, it)| name.len() + it.len()).sum()
    }
}

/// A change of attributes; what is absent stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AttributeChange {
    /// New permission bits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// New owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// New group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
    /// New modification time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtime: Option<Time>,
    /// Extended attributes to set, or to remove where the value is absent.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub xattrs: BTreeMap<String, Option<Vec<u8>>>,
}

impl AttributeChange {
    /// A change of permission bits only.
    #[must_use]
    pub fn mode(mode: u32) -> Self {
        Self { mode: Some(mode), ..Self::default() }
    }

    /// How many bytes of extended attributes this sets or removes.
    pub(crate) fn xattr_bytes(&self) -> usize {
        let value = |value: &Option<Vec<u8>>| value.as_ref().map_or(0, Vec::len);
        self.xattrs.iter().map(|(name, it)| name.len() + value(it)).sum()
    }

    /// Applies this change to `attributes`.
    pub(crate) fn apply(&self, attributes: &mut Attributes) {
        if let Some(mode) = self.mode {
            attributes.mode = mode & 0o7777;
        }
        attributes.uid = self.uid.unwrap_or(attributes.uid);
        attributes.gid = self.gid.unwrap_or(attributes.gid);
        attributes.mtime = self.mtime.unwrap_or(attributes.mtime);
        if !self.xattrs.is_empty() {
            let mut all = attributes.xattrs.as_deref().cloned().unwrap_or_default();
            for (name, value) in &self.xattrs {
                match value {
                    Some(value) => all.insert(name.clone(), value.clone()),
                    None => all.remove(name),
                };
            }
            attributes.xattrs = (!all.is_empty()).then(|| Arc::new(all));
        }
    }
}

/// A directory and a name in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place {
    /// The directory.
    pub parent: NodeId,
    /// The name in it.
    pub name: Name,
}

/// What a node is.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// A regular file.
    File(Content),
    /// A directory and its children.
    Directory(Directory),
    /// A symbolic link and its target, which is never followed here.
    Symlink(Arc<str>),
    /// A named pipe.
    Fifo,
}

impl Kind {
    /// A word for people.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Directory(_) => "directory",
            Self::Symlink(_) => "symlink",
            Self::Fifo => "fifo",
        }
    }
}

/// The children of a directory, by name; and for those names that are not their
/// own comparison key, the names by key, so that collisions are found without
/// looking at every sibling.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Directory {
    pub(crate) children: OrdMap<Name, NodeId>,
    pub(crate) folded: OrdMap<Arc<str>, Arc<[Name]>>,
}

impl Directory {
    /// The child called `name`.
    #[must_use]
    pub fn get(&self, name: &Name) -> Option<NodeId> {
        self.children.get(name).copied()
    }

    /// The children in the byte order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&Name, NodeId)> + '_ {
        self.children.iter().map(|(name, id)| (name, *id))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.children.is_empty()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.children.len()
    }
}

/// One thing in the tree.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// The seq of the entry that last changed this node itself: its contents,
    /// attributes or places. A directory's version does not follow its children.
    pub version: Seq,
    /// When anything about the node changed last: its contents, attributes, places, or
    /// a directory's children.
    pub changed: Time,
    /// Mode, owner, times.
    pub attributes: Attributes,
    /// Where the node is: one place, or several for a hard-linked file. Empty
    /// for the root only.
    pub places: Vec<Place>,
    /// What it is.
    pub kind: Kind,
}

impl Node {
    /// The content of a regular file.
    #[must_use]
    pub fn content(&self) -> Option<Content> {
        match &self.kind {
            Kind::File(content) => Some(*content),
            _ => None,
        }
    }

    /// The children of a directory.
    #[must_use]
    pub fn directory(&self) -> Option<&Directory> {
        match &self.kind {
            Kind::Directory(directory) => Some(directory),
            _ => None,
        }
    }
}
