//! What a review is told, and what it lists.

use std::sync::Arc;

use s0_tree::{Actor, Content, New, Seq, Time, TreePath};
use serde::{Deserialize, Serialize};

use crate::hunk::Version;
use crate::text::text_of;

/// One write by a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Write {
    /// The journal entry.
    pub seq: Seq,
    /// Who made it.
    pub actor: Actor,
    /// When the service admitted it.
    pub time: Time,
}

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// What it is; a file with its content.
    pub what: New,
    /// The low twelve permission bits.
    pub mode: u32,
}

/// What the caller sees at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed<'a> {
    /// What is there.
    pub state: State,
    /// The bytes of a file, which are those of its content. Without them, as for a
    /// file that is too large to be read for a review, the file is reviewed as a
    /// whole.
    pub bytes: Option<&'a [u8]>,
}

impl<'a> Observed<'a> {
    /// The text, if this is a file that can be reviewed line by line.
    pub(crate) fn text(&self) -> Option<&'a str> {
        match self.state.what {
            New::File { .. } => self.bytes.and_then(text_of),
            _ => None,
        }
    }

    /// What it takes to write this again.
    pub(crate) fn body(&self) -> Body {
        self.text().map_or_else(|| Body::of(&self.state.what), |text| Body::Text(text.into()))
    }
}

/// What is to be written, or was reviewed, at a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    /// A file with this text.
    Text(String),
    /// A file with this content, which the caller finds at hand or in the Volume.
    File(Content),
    /// A symbolic link with this target.
    Symlink(Arc<str>),
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
}

impl Body {
    pub(crate) fn of(what: &New) -> Self {
        match what {
            New::File { content } => Self::File(*content),
            New::Directory => Self::Directory,
            New::Symlink { target } => Self::Symlink(target.clone()),
            New::Fifo => Self::Fifo,
        }
    }

    /// Whether writing this would lead to what is seen.
    pub(crate) fn is(&self, seen: &Observed<'_>) -> bool {
        match (self, &seen.state.what) {
            (Self::Text(text), New::File { content }) => match seen.bytes {
                Some(bytes) => text.as_bytes() == bytes,
                None => {
                    content.size == text.len() as u64 && Content::of(text.as_bytes()) == *content
                }
            },
            (body, what) => *body == Self::of(what),
        }
    }
}

/// What became of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// It is new.
    Created,
    /// It is gone.
    Removed,
    /// Its content, or what it is, is another one.
    Content,
    /// Only its name or mode is another one.
    Attributes,
}

/// One thing under review, as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item<'a> {
    /// Where it is, or was when it was removed.
    pub path: &'a TreePath,
    /// The version of this item, for a [`Part::File`](crate::Part::File).
    pub version: Version,
    /// What became of it.
    pub change: Change,
    /// How many hunks it has; `None` when it is reviewed as a whole.
    pub hunks: Option<usize>,
    /// Where it was when it was last reviewed, if a sandbox renamed it.
    pub renamed_from: Option<&'a TreePath>,
    /// The mode that was reviewed, and the one it has, if they differ.
    pub mode: Option<(u32, u32)>,
    /// Whether the user has changed it since, as a whole. It can then be kept, and
    /// not be reverted.
    pub edited: bool,
    /// Who wrote what is to be reviewed, oldest first.
    pub writes: Vec<&'a Write>,
    /// What is there now; `None` when it was removed.
    pub now: Option<&'a State>,
}

/// Something that the user kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reviewed {
    /// Where it was then.
    #[serde(deserialize_with = "TreePath::recorded")]
    pub path: TreePath,
    /// The newest write of this agent that was kept there.
    pub write: Write,
}
