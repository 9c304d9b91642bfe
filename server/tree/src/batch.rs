//! The changes of one request, admitted in order.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::admission::{Accepted, Reason, Refusal, admit};
use crate::change::{Action, Change, New, News};
use crate::entry::{Actor, Entry, FORMAT, Op, RequestId, Source};
use crate::fold::fold;
use crate::names::Policy;
use crate::node::{AttributeChange, Node, NodeId, Seq, Time};
use crate::path::TreePath;
use crate::quota::{Quota, Usage};
use crate::tree::Tree;

/// Who asks, and when: what a request's entries have in common.
#[derive(Debug, Clone)]
pub struct Origin {
    /// On whose side the request arose.
    pub source: Source,
    /// Who made it.
    pub actor: Actor,
    /// Its name, if it has one.
    pub request: Option<RequestId>,
    /// When it is admitted.
    pub time: Time,
    /// The owner of new nodes.
    pub uid: u32,
    /// The group of new nodes.
    pub gid: u32,
}

impl Default for Origin {
    fn default() -> Self {
        Self {
            source: Source::Replica,
            actor: Actor::default(),
            request: None,
            time: Time(0),
            uid: 0,
            gid: 0,
        }
    }
}

/// A request as admission sees it.
pub struct Batch<'a> {
    /// Who asks.
    pub origin: &'a Origin,
    /// What the registered replicas can hold.
    pub policy: Policy,
    /// How much the Volume may hold.
    pub quota: Quota,
    /// What others did since the request's base, for changes that state no
    /// expectation.
    pub news: &'a News,
    /// What is asked.
    pub changes: &'a [Change],
}

/// What became of one change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// Journaled. The node's version is the seq.
    Accepted {
        /// The entry.
        seq: Seq,
        /// The node.
        node: NodeId,
    },
    /// The tree held it already.
    Held {
        /// The node that is there, if any.
        node: Option<NodeId>,
        /// Its version; of an absence, the head.
        version: Seq,
    },
    /// Refused, and to be recorded as a conflict.
    Conflict {
        /// Why.
        reason: Reason,
        /// The path that cannot be as asked: one of the change's own, or that of a
        /// directory that was to be made above it.
        at: TreePath,
        /// The path of what stands in the way.
        path: TreePath,
        /// What stands in the way: id and version.
        existing: Option<(NodeId, Seq)>,
    },
    /// There is no room for it in the Volume's quota. Nothing is recorded.
    NoRoom,
    /// Refused because it touches a path at, above or below that of a change
    /// refused earlier in the same request.
    Refused {
        /// The index of that change.
        by: usize,
    },
}

/// Admits the changes of a batch one after the other, each against the tree
/// that the earlier ones made. Returns the entries, already folded into `tree`,
/// and one verdict for each change.
///
/// # Errors
/// The index of a change that would be wrong in any tree, and why; `tree` is
/// then unchanged, and nothing of the request is done.
#[expect(clippy::type_complexity, reason = "entries and verdicts, or which change and why")]
pub fn admit_batch(
    tree: &mut Tree,
    batch: &Batch<'_>,
) -> Result<(Vec<Entry>, Vec<Verdict>), (usize, &'static str)> {
    let mut work = tree.clone();
    let (mut entries, mut verdicts) = (Vec::new(), Vec::with_capacity(batch.changes.len()));
    let mut refused = Refused::default();
    for (index, change) in batch.changes.iter().enumerate() {
        let verdict = if let Some(by) = change.paths().filter_map(|own| refused.near(own)).min() {
            Verdict::Refused { by }
        } else {
            let admitted = if change.make_parents {
                with_parents(&mut work, change, batch)
            } else {
                one(&mut work, change, batch).map(|(entry, held)| (Vec::from_iter(entry), held))
            };
            match admitted {
                Ok((new, held)) => {
                    let last: Option<&Entry> = new.last();
                    let verdict = match (last, held) {
                        (_, Some((node, version))) => Verdict::Held { node, version },
                        (Some(entry), None) => {
                            Verdict::Accepted { seq: entry.seq, node: entry.node() }
                        }
                        (None, None) => Verdict::Held { node: None, version: work.head() },
                    };
                    entries.extend(new);
                    verdict
                }
                Err(Refusal::Invalid(why)) => return Err((index, why)),
                Err(Refusal::NoRoom) => Verdict::NoRoom,
                Err(Refusal::Conflict { reason, at, existing }) => {
                    let (path, existing) = match existing {
                        Some((path, id, version)) => (path, Some((id, version))),
                        None => (change.path().clone(), None),
                    };
                    Verdict::Conflict { reason, at, path, existing }
                }
            }
        };
        if !matches!(verdict, Verdict::Accepted { .. } | Verdict::Held { .. }) {
            change.paths().for_each(|path| refused.note(path, index));
        }
        verdicts.push(verdict);
    }
    *tree = work;
    Ok((entries, verdicts))
}

/// The paths of the refused changes of a request, each with the index of the
/// first. A request may have many thousands, so they are found by path.
#[derive(Default)]
struct Refused {
    at: HashMap<TreePath, usize>,
    /// By the directories above them.
    below: HashMap<TreePath, usize>,
}

impl Refused {
    fn note(&mut self, path: &TreePath, index: usize) {
        self.at.entry(path.clone()).or_insert(index);
        for above in above(path) {
            // Above a directory that is known, all are.
            if self.below.contains_key(&above) {
                break;
            }
            self.below.insert(above, index);
        }
    }

    /// The first refused change at, above or below `path`.
    fn near(&self, path: &TreePath) -> Option<usize> {
        if self.at.is_empty() {
            return None;
        }
        let above = above(path).filter_map(|above| self.at.get(&above));
        above.chain(self.at.get(path)).chain(self.below.get(path)).min().copied()
    }
}

/// The directories above a path, innermost first.
fn above(path: &TreePath) -> impl Iterator<Item = TreePath> {
    std::iter::successors(path.parent(), TreePath::parent)
}

type Held = Option<(Option<NodeId>, Seq)>;

/// Admits one change. A refusal leaves the tree as it was.
fn one(
    tree: &mut Tree,
    change: &Change,
    batch: &Batch<'_>,
) -> Result<(Option<Entry>, Held), Refusal> {
    let op = match admit(tree, change, batch.policy, batch.news, batch.origin)? {
        Accepted::Held(found) => {
            let held = found.map_or((None, tree.head()), |(id, version)| (Some(id), version));
            return Ok((None, Some(held)));
        }
        Accepted::New(op) => op,
    };
    // An op that reaches a node through another of its places says the path
    // that was asked for.
    let old_path = matches!(op, Op::Rename { .. }).then(|| change.old_path().cloned()).flatten();
    let mut actor = batch.origin.actor.clone();
    actor.process = change.by.clone().or(actor.process);
    let entry = Entry {
        format: FORMAT,
        seq: tree.head().next(),
        time: batch.origin.time,
        source: batch.origin.source,
        actor,
        request: batch.origin.request.clone(),
        op,
        path: change.path().clone(),
        old_path,
    };
    if !batch.quota.allows(tree.usage(), usage_after(tree, &entry.op)) {
        return Err(Refusal::NoRoom);
    }
    // In place: with a copy of the tree beside it, each fold would copy what it touches.
    fold(tree, &entry).map_err(|_| Refusal::Invalid("the change does not fit any tree"))?;
    Ok((Some(entry), None))
}

/// How much there is after an op that fits the tree, where that is more than before.
fn usage_after(tree: &Tree, op: &Op) -> Usage {
    let used = tree.usage();
    match op {
        Op::Create { what: New::File { content }, .. } => {
            used.plus(Usage { bytes: content.size, inodes: 1 })
        }
        Op::Create { .. } => used.plus(Usage { bytes: 0, inodes: 1 }),
        Op::Write { node, content, .. }
        | Op::Append { node, content, .. }
        | Op::Truncate { node, content, .. } => {
            let old = tree.node(*node).and_then(Node::content).map_or(0, |content| content.size);
            used.rewritten(old, content.size)
        }
        Op::Link { .. } | Op::Attributes { .. } | Op::Rename { .. } | Op::Remove { .. } => used,
    }
}

/// The change preceded by the directories that it needs. Either all or none of
/// them are admitted.
fn with_parents(
    tree: &mut Tree,
    change: &Change,
    batch: &Batch<'_>,
) -> Result<(Vec<Entry>, Held), Refusal> {
    let (mut work, mut entries) = (tree.clone(), Vec::new());
    for path in change.path().ancestors() {
        if work.lookup(&path).is_some() {
            continue;
        }
        let set = AttributeChange::default();
        let make = Change::unstated(Action::Create { path, what: New::Directory, set });
        entries.extend(one(&mut work, &make, batch)?.0);
    }
    let (entry, held) = one(&mut work, change, batch)?;
    entries.extend(entry);
    *tree = work;
    Ok((entries, held))
}
