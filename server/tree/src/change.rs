//! Changes: what a client asks for, by path, with what it expects to find.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::content::Content;
use crate::entry::RenameHow;
use crate::names::comparison_key;
use crate::node::{AttributeChange, NodeId, Seq};
use crate::path::TreePath;

/// What is to be created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum New {
    /// A regular file.
    File {
        /// Its content.
        #[serde(flatten)]
        content: Content,
    },
    /// An empty directory.
    Directory,
    /// A symbolic link.
    Symlink {
        /// Where it points, as text; never followed.
        target: Arc<str>,
    },
    /// A named pipe.
    Fifo,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum Action {
    /// Make something where nothing is.
    Create {
        /// Where.
        path: TreePath,
        /// What.
        what: New,
        /// Attributes; a mode that is absent is 0644, or 0755 for a directory.
        #[serde(default)]
        set: AttributeChange,
    },
    /// Give a file another whole content; makes it where nothing is.
    Write {
        /// The file.
        path: TreePath,
        /// Its content after.
        content: Content,
        /// Attributes that change with it.
        #[serde(default)]
        set: AttributeChange,
    },
    /// Add to the end of a file.
    Append {
        /// The file.
        path: TreePath,
        /// How many bytes are added.
        added: u64,
        /// The whole content after.
        content: Content,
    },
    /// Cut or extend a file.
    Truncate {
        /// The file.
        path: TreePath,
        /// The whole content after.
        content: Content,
    },
    /// Change attributes.
    Attributes {
        /// The node.
        path: TreePath,
        /// What changes.
        set: AttributeChange,
    },
    /// Give a file one more name.
    Link {
        /// The new name.
        path: TreePath,
        /// The file.
        existing: TreePath,
    },
    /// Move something.
    Rename {
        /// From where.
        from: TreePath,
        /// To where.
        to: TreePath,
        /// What happens at the destination.
        #[serde(default)]
        how: RenameHow,
    },
    /// Remove a file, a link or an empty directory.
    Remove {
        /// What.
        path: TreePath,
    },
}

/// What a client expects at a path, from what it last agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expected {
    /// Nothing is there.
    Absent,
    /// This node, in this version.
    Node {
        /// Its id.
        id: NodeId,
        /// Its version.
        version: Seq,
    },
}

/// An action with its expectations. An expectation that is not stated is judged
/// by the request's base seq, as the documented API does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// What to do.
    #[serde(flatten)]
    pub action: Action,
    /// What is expected at the path (for a rename: at `from`; for a link: of
    /// the existing file).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect: Option<Expected>,
    /// What is expected at the destination of a rename.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect_to: Option<Expected>,
    /// Make missing directories above, as the documented API does.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub make_parents: bool,
    /// The process that asks, as `name[pid]`, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Arc<str>>,
    /// Whoever asks looks again by himself when something else is there than he expects.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub looks_again: bool,
}

impl Change {
    /// An action with an expectation at its path.
    #[must_use]
    pub fn new(action: Action, expect: Expected) -> Self {
        Self { expect: Some(expect), ..Self::unstated(action) }
    }

    /// An action without stated expectations.
    #[must_use]
    pub fn unstated(action: Action) -> Self {
        Self {
            action,
            expect: None,
            expect_to: None,
            make_parents: false,
            by: None,
            looks_again: false,
        }
    }

    /// The path that the change is about; for a rename the new one.
    #[must_use]
    pub fn path(&self) -> &TreePath {
        match &self.action {
            Action::Create { path, .. }
            | Action::Write { path, .. }
            | Action::Append { path, .. }
            | Action::Truncate { path, .. }
            | Action::Attributes { path, .. }
            | Action::Link { path, .. }
            | Action::Rename { to: path, .. }
            | Action::Remove { path } => path,
        }
    }

    /// The old path of a rename.
    #[must_use]
    pub fn old_path(&self) -> Option<&TreePath> {
        match &self.action {
            Action::Rename { from, .. } => Some(from),
            _ => None,
        }
    }

    /// All paths that the change touches.
    pub fn paths(&self) -> impl Iterator<Item = &TreePath> {
        std::iter::once(self.path()).chain(self.old_path())
    }

    /// The attributes that the change sets.
    pub(crate) fn set(&self) -> Option<&AttributeChange> {
        match &self.action {
            Action::Create { set, .. }
            | Action::Write { set, .. }
            | Action::Attributes { set, .. } => Some(set),
            _ => None,
        }
    }

    /// The content that the change brings.
    #[must_use]
    pub fn content(&self) -> Option<Content> {
        match &self.action {
            Action::Create { what: New::File { content }, .. }
            | Action::Write { content, .. }
            | Action::Append { content, .. }
            | Action::Truncate { content, .. } => Some(*content),
            _ => None,
        }
    }
}

/// A path that somebody else touched after a request's base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Touch {
    /// The newest such entry.
    pub seq: Seq,
    /// The path as that entry spells it.
    pub path: TreePath,
    /// Whether the entry took the path away (a remove, or a rename's old end).
    pub gone: bool,
}

/// What others did between a request's base and the head, by comparison key of
/// the path. It stands in for expectations that a client does not state.
#[derive(Debug, Clone, Default)]
pub struct News(HashMap<String, Touch>);

impl News {
    /// Notes a touch; the newest of a path counts.
    pub fn note(&mut self, touch: Touch) {
        self.0.insert(comparison_key(touch.path.as_str()), touch);
    }

    /// What touched `path` itself.
    #[must_use]
    pub fn at(&self, path: &TreePath) -> Option<&Touch> {
        if self.0.is_empty() {
            return None;
        }
        self.0.get(&comparison_key(path.as_str()))
    }

    /// What took away a directory above `path`.
    #[must_use]
    pub fn gone_above(&self, path: &TreePath) -> Option<&Touch> {
        if self.0.is_empty() {
            return None;
        }
        path.ancestors().find_map(|above| self.at(&above).filter(|touch| touch.gone))
    }
}
