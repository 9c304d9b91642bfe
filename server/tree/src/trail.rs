//! The history of a path: what was there, and where that was before.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::change::New;
use crate::content::Content;
use crate::entry::{Actor, Entry, Op, RenameHow, Source};
use crate::fold::Misfit;
use crate::node::{Kind, NodeId, Seq, Time};
use crate::past::{Known, Past};
use crate::path::TreePath;
use crate::tree::Tree;

/// What an entry did to a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum PathChange {
    /// It was made.
    Created,
    /// It was made as one more name of a file.
    Linked,
    /// Its content was written.
    Written,
    /// Its mode, owner, times or extended attributes were changed.
    Attributes,
    /// It came from another path: by itself, or with a directory above it.
    Renamed {
        /// That path.
        #[serde(deserialize_with = "TreePath::recorded")]
        from: TreePath,
    },
    /// It went to another path, and nothing is here any more.
    RenamedAway {
        /// That path.
        #[serde(deserialize_with = "TreePath::recorded")]
        to: TreePath,
    },
    /// It was removed.
    Removed,
    /// Nothing: it was so when the retained journal begins.
    Earlier,
}

/// What can be at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathKind {
    /// Nothing.
    Absent,
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// Something of which nothing is retained but that it was there.
    Unknown,
}

/// What was at a path, as far as it is still known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathState {
    /// What it was.
    pub kind: PathKind,
    /// The content of a file; none when it is not retained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Content>,
    /// Its permission bits; none when they are not retained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// The target of a symbolic link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Arc<str>>,
}

impl PathState {
    const ABSENT: Self = Self { kind: PathKind::Absent, content: None, mode: None, target: None };

    fn of(known: &Known<'_>) -> Self {
        let mut state = Self { kind: PathKind::Unknown, ..Self::ABSENT };
        state.learn(known);
        state
    }

    /// Adds what is known elsewhere.
    fn learn(&mut self, known: &Known<'_>) {
        if let Some(node) = known.node {
            self.kind = match &node.kind {
                Kind::File(_) => PathKind::File,
                Kind::Directory(_) => PathKind::Directory,
                Kind::Symlink(target) => {
                    self.target = Some(target.clone());
                    PathKind::Symlink
                }
                Kind::Fifo => PathKind::Fifo,
            };
        }
        self.content = self.content.or(known.content);
        self.mode = self.mode.or(known.mode);
    }

    /// Adds what an entry says that made the node as it was then.
    fn learn_from(&mut self, entry: &Entry) {
        if let Op::Create { what, .. } = &entry.op {
            self.kind = match what {
                New::File { .. } => PathKind::File,
                New::Directory => PathKind::Directory,
                New::Symlink { target } => {
                    self.target = Some(target.clone());
                    PathKind::Symlink
                }
                New::Fifo => PathKind::Fifo,
            };
        } else if entry.content().is_some() {
            self.kind = PathKind::File;
        }
        self.content = self.content.or(entry.content());
        self.mode = self.mode.or(entry.mode());
    }

    /// Whether older entries could say more that somebody wants to know.
    fn is_open(&self) -> bool {
        match self.kind {
            PathKind::Unknown => true,
            PathKind::File => self.content.is_none() || self.mode.is_none(),
            _ => false,
        }
    }
}

/// Who made an entry, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// When the service admitted it.
    pub time: Time,
    /// On whose side it arose.
    pub source: Source,
    /// Who made it.
    pub actor: Actor,
}

/// What a path was after an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathVersion {
    /// The entry; of [`PathChange::Earlier`], the last one before those that are
    /// looked at.
    pub seq: Seq,
    /// Who made the entry, and when; nobody where there is none.
    pub made: Option<Made>,
    /// What it did.
    pub change: PathChange,
    /// The path after it.
    pub path: TreePath,
    /// What was there after it.
    pub state: PathState,
    node: Option<NodeId>,
}

/// Follows what is at a path back through the journal.
///
/// A node is followed over renames of itself and of the directories above it. Where
/// it came in place of another one, the trail goes on with that one; where it
/// was made, with whatever was at the path before. A trail that does not follow
/// stays at the path.
#[derive(Debug, Clone)]
pub struct Trail {
    past: Past,
    path: TreePath,
    node: Option<NodeId>,
    follow: bool,
    before: Seq,
    limit: usize,
    found: Vec<PathVersion>,
    /// Those of `found` of which not everything is known.
    open: Vec<usize>,
    /// The newest change, wanted or not.
    newest: Option<Seq>,
}

impl Trail {
    /// Begins at `path` in `tree`, to find at most `limit` versions of entries
    /// before `before`.
    #[must_use]
    pub fn new(tree: Tree, path: TreePath, follow: bool, before: Seq, limit: usize) -> Self {
        let node = tree.lookup(&path);
        let (past, found, open) = (Past::new(tree), Vec::new(), Vec::new());
        Self { past, path, node, follow, before, limit, found, open, newest: None }
    }

    /// The entry that is to be taken back next.
    #[must_use]
    pub fn seq(&self) -> Seq {
        self.past.seq()
    }

    /// Whether older entries could add nothing to the versions that are wanted.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.found.len() >= self.limit && self.open.is_empty()
    }

    /// Whether all is known of the versions that were found.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.open.is_empty()
    }

    /// The newest change of those that were taken back.
    #[must_use]
    pub fn newest(&self) -> Option<Seq> {
        self.newest
    }

    /// What was found, newest first.
    #[must_use]
    pub fn versions(&self) -> &[PathVersion] {
        &self.found
    }

    /// The same, as all that is left of the trail.
    #[must_use]
    pub fn into_versions(self) -> Vec<PathVersion> {
        self.found
    }

    /// Takes back the entry at [`Trail::seq`].
    ///
    /// # Errors
    /// It is another entry, or one of a newer program.
    pub fn take_back(&mut self, entry: &Entry) -> Result<(), Misfit> {
        self.past.take_back(entry)?;
        self.learn(|_, version| {
            if version.node == Some(entry.node()) {
                version.state.learn_from(entry);
            }
        });
        let (path, node) = (self.path.clone(), self.node);
        let change = match &entry.op {
            Op::Create { .. } | Op::Link { .. } | Op::Remove { .. } | Op::Rename { .. } => {
                self.go_back(entry)
            }
            _ if node != Some(entry.node()) => None,
            Op::Attributes { .. } => Some(PathChange::Attributes),
            _ => Some(PathChange::Written),
        };
        let Some(change) = change else { return Ok(()) };
        self.newest = self.newest.max(Some(entry.seq));
        if entry.seq < self.before && self.found.len() < self.limit {
            let mut state = self.state(node);
            if node == Some(entry.node()) {
                state.learn_from(entry);
            }
            let Entry { seq, time, source, actor, .. } = entry.clone();
            let made = Some(Made { time, source, actor });
            self.find(PathVersion { seq, made, change, path, state, node });
        }
        Ok(())
    }

    /// Finds what is at the path now, before the entries that were taken back, if
    /// that is wanted: where the retained journal begins, nothing else tells of it.
    pub fn end(&mut self) {
        if self.node.is_none() {
            return;
        }
        self.newest = self.newest.or(Some(self.seq()));
        if self.seq() < self.before && self.found.len() < self.limit {
            self.mark();
        }
    }

    /// Finds what is at the path now, wanted or not, nothing too.
    pub fn mark(&mut self) {
        let (seq, path, node) = (self.seq(), self.path.clone(), self.node);
        let (made, change, state) = (None, PathChange::Earlier, self.state(node));
        self.find(PathVersion { seq, made, change, path, state, node });
    }

    /// Whether a tree at `seq` of the same journal may know more of what was found.
    #[must_use]
    pub fn could_learn_at(&self, seq: Seq) -> bool {
        let open = self.open.iter().map(|at| &self.found[*at]);
        seq >= self.seq()
            && open.filter_map(|version| Some((&version.state, version.node?))).any(
                |(state, node)| {
                    let (content, mode) = self.past.is_still(node, seq);
                    let is_known =
                        (state.content.is_some() || !content) && (state.mode.is_some() || !mode);
                    state.kind == PathKind::Unknown || !is_known
                },
            )
    }

    /// Learns from a tree of the same journal what entries did not say.
    pub fn learn_from(&mut self, tree: &Tree) {
        if tree.head() >= self.seq() {
            self.learn(|past, version| {
                let known = version.node.map(|node| past.known_from(tree, node));
                known.iter().for_each(|known| version.state.learn(known));
            });
        }
    }

    /// Has those versions learn of which not everything is known.
    fn learn(&mut self, learn: impl Fn(&Past, &mut PathVersion)) {
        let Self { past, found, open, .. } = self;
        open.retain(|at| {
            learn(past, &mut found[*at]);
            found[*at].state.is_open()
        });
    }

    fn find(&mut self, version: PathVersion) {
        if version.state.is_open() {
            self.open.push(self.found.len());
        }
        self.found.push(version);
    }

    fn state(&self, node: Option<NodeId>) -> PathState {
        node.map_or(PathState::ABSENT, |node| PathState::of(&self.past.known(node)))
    }

    /// Goes to where the trail leads before an entry that made, moved or removed
    /// something, and which was just taken back. Says what it did to the path.
    fn go_back(&mut self, entry: &Entry) -> Option<PathChange> {
        let here = self.past.lookup(&self.path);
        let from = old_path(entry, &self.path);
        if here == self.node {
            if let (None, Some(from)) = (here, from)
                && self.follow
                && self.took_along(entry)
            {
                self.path = from;
            }
            return None;
        }
        if self.node.is_none() {
            self.node = here;
            let to = new_path(entry, &self.path);
            return Some(to.map_or(PathChange::Removed, |to| PathChange::RenamedAway { to }));
        }
        match (&entry.op, from) {
            (_, Some(from)) => {
                if self.follow && here.is_none() {
                    self.path = from.clone();
                } else {
                    self.node = here;
                }
                Some(PathChange::Renamed { from })
            }
            (op, None) => {
                self.node = here;
                let is_link = matches!(op, Op::Link { .. });
                Some(if is_link { PathChange::Linked } else { PathChange::Created })
            }
        }
    }

    /// Whether a rename moved the directory in which the trail's path would be.
    fn took_along(&self, entry: &Entry) -> bool {
        let moved = self.past.known(entry.node()).node;
        matches!(&entry.op, Op::Rename { displaced: None, .. })
            && moved.is_none_or(|moved| moved.directory().is_some())
    }
}

/// The path that what is at `path` after a rename had before it, if that moved it.
fn old_path(entry: &Entry, path: &TreePath) -> Option<TreePath> {
    let old = entry.old_path.as_ref()?;
    let back = path.rebase(&entry.path, old);
    back.or_else(|| exchanges(entry).then(|| path.rebase(old, &entry.path)).flatten())
}

/// The path that what is at `path` before a rename has after it.
fn new_path(entry: &Entry, path: &TreePath) -> Option<TreePath> {
    let old = entry.old_path.as_ref()?;
    let on = path.rebase(old, &entry.path);
    on.or_else(|| exchanges(entry).then(|| path.rebase(&entry.path, old)).flatten())
}

fn exchanges(entry: &Entry) -> bool {
    matches!(&entry.op, Op::Rename { how: RenameHow::Exchange, .. })
}
