//! Admission: whether a change may enter the journal, and as which operation.

use serde::{Deserialize, Serialize};

use crate::batch::Origin;
use crate::change::{Action, Change, Expected, New, News};
use crate::entry::{Op, RenameHow};
use crate::names::{IssueCode, Policy, portable_issues};
use crate::node::{
    AttributeChange, Attributes, Directory, Kind, MAX_XATTR_BYTES, Node, NodeId, Place, Seq,
};
use crate::path::{MAX_PATH_BYTES, Name, TreePath};
use crate::tree::Tree;

/// Why a change is a conflict. The first seven are the documented reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Another actor changed this path, unseen by the one who asks.
    ConcurrentUpdate,
    /// The name is one with a live sibling's on some replica.
    CasefoldCollision,
    /// The same, for a rename between two spellings of one name.
    CaseOnlyRenameConflict,
    /// See [`IssueCode::WindowsReservedName`].
    WindowsReservedName,
    /// See [`IssueCode::WindowsTrailingDotSpace`].
    WindowsTrailingDotSpace,
    /// See [`IssueCode::WindowsForbiddenCharacter`].
    WindowsForbiddenCharacter,
    /// See [`IssueCode::WindowsControlCharacter`].
    WindowsControlCharacter,
    /// The directory above was renamed or removed by another actor.
    ParentChanged,
    /// The directory has children that the one who removes it did not remove.
    DirectoryNotEmpty,
    /// What is to be there, or something below it, would have a path of more than
    /// [`MAX_PATH_BYTES`].
    PathTooLong,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 10] = [
        Self::ConcurrentUpdate,
        Self::CasefoldCollision,
        Self::CaseOnlyRenameConflict,
        Self::WindowsReservedName,
        Self::WindowsTrailingDotSpace,
        Self::WindowsForbiddenCharacter,
        Self::WindowsControlCharacter,
        Self::ParentChanged,
        Self::DirectoryNotEmpty,
        Self::PathTooLong,
    ];

    /// Whether the name itself is the trouble, on some replica.
    #[must_use]
    pub fn is_about_names(self) -> bool {
        !matches!(
            self,
            Self::ConcurrentUpdate
                | Self::ParentChanged
                | Self::DirectoryNotEmpty
                | Self::PathTooLong
        )
    }
}

impl From<IssueCode> for Reason {
    fn from(code: IssueCode) -> Self {
        match code {
            IssueCode::CasefoldCollision => Self::CasefoldCollision,
            IssueCode::WindowsReservedName => Self::WindowsReservedName,
            IssueCode::WindowsTrailingDotSpace => Self::WindowsTrailingDotSpace,
            IssueCode::WindowsForbiddenCharacter => Self::WindowsForbiddenCharacter,
            IssueCode::WindowsControlCharacter => Self::WindowsControlCharacter,
        }
    }
}

/// What admission says yes to.
#[derive(Debug, Clone, PartialEq)]
pub enum Accepted {
    /// The operation to journal.
    New(Op),
    /// The tree holds it already; nothing is journaled. The node that is there,
    /// with its version, if any is.
    Held(Option<(NodeId, Seq)>),
}

/// What admission says no to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// It depends on the tree: a conflict of this one change.
    Conflict {
        /// Why.
        reason: Reason,
        /// The path that cannot be as asked: one of the change's own, or that of a
        /// directory that was to be made above it.
        at: TreePath,
        /// What stands in the way, if something does: its path, id and version.
        existing: Option<(TreePath, NodeId, Seq)>,
    },
    /// The Volume's quota has no room for it; [`admit_batch`](crate::admit_batch) says
    /// so, which knows the quota.
    NoRoom,
    /// It would be wrong in any tree.
    Invalid(&'static str),
}

type Judged = Result<Accepted, Refusal>;

/// Judges one change against a tree.
///
/// # Errors
/// The refusal: a conflict, or invalid in any tree.
pub fn admit(tree: &Tree, change: &Change, policy: Policy, news: &News, origin: &Origin) -> Judged {
    let judge = Judge { tree, policy, news, origin };
    if change.paths().any(TreePath::is_root) {
        return Err(Refusal::Invalid("the root cannot be changed"));
    }
    if let Action::Create { what: New::Symlink { target }, .. } = &change.action
        && (target.is_empty() || target.contains('\0') || target.len() > MAX_PATH_BYTES)
    {
        return Err(Refusal::Invalid("no system can hold a link with such a target"));
    }
    if change.set().is_some_and(|set| set.xattr_bytes() > MAX_XATTR_BYTES) {
        return Err(Refusal::Invalid("the extended attributes are too large"));
    }
    match &change.action {
        Action::Create { path, what, set } => judge.create(change, path, what, set),
        Action::Write { path, content, set } => match tree.at(path) {
            Some((id, node)) => {
                // A time alone is not worth an entry; what else is set counts.
                let timeless = AttributeChange { mtime: None, ..set.clone() };
                let after = judge.attributes_after(path, node, &timeless)?;
                let same = node.content() == Some(*content) && after == node.attributes;
                let set = judge.stamped(set);
                judge.content(change, path, (id, node), same, |node| Op::Write {
                    node,
                    content: *content,
                    set,
                })
            }
            None => judge.create(change, path, &New::File { content: *content }, set),
        },
        Action::Append { path, added, content } => {
            let found = judge.find(change, path)?;
            let set = judge.stamped(&AttributeChange::default());
            judge.content(change, path, found, false, |node| Op::Append {
                node,
                added: *added,
                content: *content,
                set,
            })
        }
        Action::Truncate { path, content } => {
            let found = judge.find(change, path)?;
            let same = found.1.content() == Some(*content);
            let set = judge.stamped(&AttributeChange::default());
            judge.content(change, path, found, same, |node| Op::Truncate {
                node,
                content: *content,
                set,
            })
        }
        Action::Attributes { path, set } => judge.attributes(change, path, set),
        Action::Link { path, existing } => judge.link(change, path, existing),
        Action::Rename { from, to, how } => judge.rename(change, from, to, *how),
        Action::Remove { path } => judge.remove(change, path),
    }
}

struct Judge<'a> {
    tree: &'a Tree,
    policy: Policy,
    news: &'a News,
    origin: &'a Origin,
}

impl<'a> Judge<'a> {
    fn create(
        &self,
        change: &Change,
        path: &TreePath,
        what: &New,
        set: &AttributeChange,
    ) -> Judged {
        if let Some((id, node)) = self.tree.at(path) {
            // Equal is equal, however it came about. A mode that differs is not
            // worth a conflict: the Volume's is kept.
            return if node.kind_value() == *what {
                Ok(Accepted::Held(Some((id, node.version))))
            } else {
                Err(self.concurrent(path))
            };
        }
        let at = self.new_place(path, None)?;
        self.expected(change.expect, path)?;
        let default_mode = if *what == New::Directory { 0o755 } else { 0o644 };
        let mut attributes = Attributes {
            mode: default_mode,
            uid: self.origin.uid,
            gid: self.origin.gid,
            mtime: self.origin.time,
            xattrs: None,
        };
        set.apply(&mut attributes);
        Ok(Accepted::New(Op::Create { at, what: what.clone(), attributes }))
    }

    fn content(
        &self,
        change: &Change,
        path: &TreePath,
        (id, node): (NodeId, &Node),
        same: bool,
        op: impl FnOnce(NodeId) -> Op,
    ) -> Judged {
        if same {
            return Ok(Accepted::Held(Some((id, node.version))));
        }
        self.expected(change.expect, path)?;
        if !matches!(node.kind, Kind::File(_)) {
            return Err(self.concurrent(path));
        }
        Ok(Accepted::New(op(id)))
    }

    fn attributes(&self, change: &Change, path: &TreePath, set: &AttributeChange) -> Judged {
        let (id, node) = self.find(change, path)?;
        if self.attributes_after(path, node, set)? == node.attributes {
            return Ok(Accepted::Held(Some((id, node.version))));
        }
        self.expected(change.expect, path)?;
        Ok(Accepted::New(Op::Attributes { node: id, set: set.clone() }))
    }

    /// What a change makes of a node's attributes. Together with those that are
    /// there already they can be too large.
    fn attributes_after(
        &self,
        path: &TreePath,
        node: &Node,
        set: &AttributeChange,
    ) -> Result<Attributes, Refusal> {
        let mut after = node.attributes.clone();
        set.apply(&mut after);
        let grown = after.xattrs != node.attributes.xattrs;
        if grown && after.xattr_bytes() > MAX_XATTR_BYTES {
            return Err(self.concurrent(path));
        }
        Ok(after)
    }

    fn link(&self, change: &Change, path: &TreePath, existing: &TreePath) -> Judged {
        let (id, node) = self.find(change, existing)?;
        if self.tree.lookup(path) == Some(id) {
            return Ok(Accepted::Held(Some((id, node.version))));
        }
        let at = self.new_place(path, None)?;
        self.expected(change.expect, existing)?;
        self.expected(change.expect_to, path)?;
        if node.directory().is_some() || self.tree.lookup(path).is_some() {
            return Err(self.concurrent(path));
        }
        Ok(Accepted::New(Op::Link { node: id, at }))
    }

    fn rename(&self, change: &Change, from: &TreePath, to: &TreePath, how: RenameHow) -> Judged {
        if from != to && to.is_at_or_below(from) {
            return Err(Refusal::Invalid("a directory cannot be moved into itself"));
        }
        let there = self.tree.at(to);
        if let (Some((id, node)), Some(Expected::Node { id: moved, .. })) = (there, change.expect)
            && id == moved
            && self.tree.lookup(from) != Some(moved)
        {
            return Ok(Accepted::Held(Some((id, node.version))));
        }
        let (id, node) = self.find(change, from)?;
        if from == to {
            return Ok(Accepted::Held(Some((id, node.version))));
        }
        let to_place = self.new_place(to, Some(from))?;
        self.expected(change.expect, from)?;
        self.expected(change.expect_to, to)?;
        let displaced = match (how, there) {
            (RenameHow::Replace | RenameHow::Exchange, Some((other, _))) if other == id => {
                // Two names of one hard-linked file: rename(2) does nothing.
                return Ok(Accepted::Held(Some((id, node.version))));
            }
            (RenameHow::NoReplace, Some(_)) | (RenameHow::Exchange, None) => {
                return Err(self.concurrent(to));
            }
            (RenameHow::Exchange, Some((other, _))) => {
                if from.is_at_or_below(to) {
                    return Err(Refusal::Invalid("a directory cannot be moved into itself"));
                }
                Some(other)
            }
            (RenameHow::Replace, Some((other, standing))) => {
                match (node.directory(), standing.directory()) {
                    (Some(_), Some(directory)) if !directory.is_empty() => {
                        return Err(self.conflict(Reason::DirectoryNotEmpty, to));
                    }
                    (Some(_), None) | (None, Some(_)) => return Err(self.concurrent(to)),
                    _ => Some(other),
                }
            }
            (_, None) => None,
        };
        self.fits(node, from, to)?;
        if how == RenameHow::Exchange
            && let Some((_, other)) = there
        {
            self.fits(other, to, from)?;
        }
        let from = self.place(from).ok_or_else(|| self.concurrent(from))?;
        Ok(Accepted::New(Op::Rename { node: id, from, to: to_place, how, displaced }))
    }

    fn remove(&self, change: &Change, path: &TreePath) -> Judged {
        let Some((id, node)) = self.tree.at(path) else {
            // Gone here, but living elsewhere, is not what was asked for.
            return match change.expect {
                Some(Expected::Node { id, .. }) if self.tree.node(id).is_some() => {
                    Err(self.missing(path))
                }
                _ => Ok(Accepted::Held(None)),
            };
        };
        self.expected(change.expect, path)?;
        if node.directory().is_some_and(|directory| !directory.is_empty()) {
            return Err(self.conflict(Reason::DirectoryNotEmpty, path));
        }
        let at = self.place(path).ok_or_else(|| self.concurrent(path))?;
        Ok(Accepted::New(Op::Remove { node: id, at }))
    }

    /// The node at `path`, which must be there.
    fn find(&self, change: &Change, path: &TreePath) -> Result<(NodeId, &'a Node), Refusal> {
        self.tree.at(path).ok_or_else(|| match change.expect {
            Some(Expected::Absent) => Refusal::Invalid("what does not exist cannot be changed"),
            _ => self.missing(path),
        })
    }

    fn place(&self, path: &TreePath) -> Option<Place> {
        let (parent, name) = path.split()?;
        Some(Place { parent: self.tree.lookup(&parent)?, name })
    }

    /// The place of a name that is to become live: its directory exists, and
    /// every registered replica can hold it. `moved` is where a rename takes it from.
    fn new_place(&self, path: &TreePath, moved: Option<&TreePath>) -> Result<Place, Refusal> {
        let Some((above, name)) = path.split() else {
            return Err(Refusal::Invalid("the root cannot be changed"));
        };
        if path.as_str().len() > MAX_PATH_BYTES {
            return Err(self.conflict(Reason::PathTooLong, path));
        }
        if let Some(issue) = portable_issues(name.as_str(), self.policy).first() {
            return Err(self.conflict(issue.code.into(), path));
        }
        let parent = match self.tree.at(&above) {
            Some((id, node)) if node.directory().is_some() => id,
            _ => return Err(self.missing(path)),
        };
        // A rename between two spellings of one name frees the old spelling itself.
        let own = moved.and_then(TreePath::split);
        let own = own.filter(|(from, _)| *from == above).map(|(_, name)| name);
        if let Some(other) = self.tree.collision(parent, &name, self.policy, own.as_ref()) {
            let respelled = |from: &TreePath| self.same_spelling_aside(from, path);
            let reason = if moved.is_some_and(respelled) {
                Reason::CaseOnlyRenameConflict
            } else {
                Reason::CasefoldCollision
            };
            return Err(self.collision(reason, path, &above.join(&other)));
        }
        Ok(Place { parent, name })
    }

    /// Whether all that moves with `node` still has a path that a Volume holds.
    /// Only a move to a longer path can take that away.
    fn fits(&self, node: &Node, from: &TreePath, to: &TreePath) -> Result<(), Refusal> {
        let length = to.as_str().len();
        if length <= from.as_str().len() {
            return Ok(());
        }
        let mut below = vec![(node, length)];
        while let Some((node, length)) = below.pop() {
            if length > MAX_PATH_BYTES {
                return Err(self.conflict(Reason::PathTooLong, to));
            }
            for (name, id) in node.directory().into_iter().flat_map(Directory::iter) {
                let length = length + 1 + name.as_str().len();
                below.extend(self.tree.node(id).map(|node| (node, length)));
            }
        }
        Ok(())
    }

    fn same_spelling_aside(&self, a: &TreePath, b: &TreePath) -> bool {
        let same = |a: Name, b: Name| self.policy.same_name(a.as_str(), b.as_str());
        a.depth() == b.depth() && a.names().zip(b.names()).all(|(a, b)| same(a, b))
    }

    /// Compares what is expected with what is there.
    fn expected(&self, expected: Option<Expected>, path: &TreePath) -> Result<(), Refusal> {
        let found = self.tree.at(path);
        let as_expected = match expected {
            Some(Expected::Absent) => found.is_none(),
            Some(Expected::Node { id, version }) => match found {
                Some((found, node)) => found == id && node.version == version,
                None => return Err(self.missing(path)),
            },
            None => match self.news.at(path) {
                Some(touch) if touch.path != *path && self.policy.is_folding() => {
                    return Err(self.collision(Reason::CasefoldCollision, path, &touch.path));
                }
                Some(touch) => touch.path != *path,
                None if self.news.gone_above(path).is_some() => {
                    return Err(self.conflict(Reason::ParentChanged, path));
                }
                None => true,
            },
        };
        if as_expected { Ok(()) } else { Err(self.concurrent(path)) }
    }

    /// The conflict of a path that is not there: its directory went, or it did.
    fn missing(&self, path: &TreePath) -> Refusal {
        let lives = |above: &TreePath| {
            self.tree.at(above).is_some_and(|(_, node)| node.directory().is_some())
        };
        if path.parent().is_some_and(|above| lives(&above)) {
            self.concurrent(path)
        } else {
            self.conflict(Reason::ParentChanged, path)
        }
    }

    fn concurrent(&self, path: &TreePath) -> Refusal {
        self.conflict(Reason::ConcurrentUpdate, path)
    }

    fn conflict(&self, reason: Reason, path: &TreePath) -> Refusal {
        self.collision(reason, path, path)
    }

    /// The conflict of a path with what stands at another.
    fn collision(&self, reason: Reason, at: &TreePath, other: &TreePath) -> Refusal {
        let existing = self.tree.at(other).map(|(id, node)| (other.clone(), id, node.version));
        Refusal::Conflict { reason, at: at.clone(), existing }
    }

    /// A change of content carries the time at which it was admitted.
    fn stamped(&self, set: &AttributeChange) -> AttributeChange {
        AttributeChange { mtime: Some(set.mtime.unwrap_or(self.origin.time)), ..set.clone() }
    }
}
