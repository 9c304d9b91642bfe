//! What became of changes: entries, outcomes and conflicts.

use std::collections::HashMap;

use s0_api::sync::{Answer, Outcome};
use s0_tree::{Change, Content, Entry, Expected, NodeId, Reason, Seq, Time, TreePath};

/// An admitted submission.
#[derive(Debug, Clone, PartialEq)]
pub struct Submitted {
    /// The entries to append, in order.
    pub entries: Vec<Entry>,
    /// The conflicts to record.
    pub conflicts: Vec<NewConflict>,
    /// What to answer once those are durable.
    pub answer: Answer,
    /// This is the stored answer to a repeated request: nothing is to commit.
    pub repeated: bool,
}

/// What became of changes that did not come as a submission.
#[derive(Debug, Clone, PartialEq)]
pub struct Admitted {
    /// The entries to append, in order.
    pub entries: Vec<Entry>,
    /// The conflicts to record.
    pub conflicts: Vec<NewConflict>,
    /// One outcome for each change.
    pub outcomes: Vec<Outcome>,
}

impl Admitted {
    /// Makes conflicts of the changes that fell with an earlier one, each for that
    /// one's reason. For clients that do not send them again: what such a change
    /// brings would be named nowhere.
    pub(crate) fn record_fallen(
        &mut self,
        changes: &[Change],
        new_conflict_id: &mut dyn FnMut() -> String,
    ) {
        let mut recorded = std::mem::take(&mut self.conflicts).into_iter();
        let mut by_change: HashMap<usize, NewConflict> = HashMap::new();
        for (index, (outcome, change)) in self.outcomes.iter_mut().zip(changes).enumerate() {
            let conflict = match outcome {
                Outcome::Conflict { .. } => recorded.next(),
                Outcome::Refused { by } => {
                    by_change.get(by).map(|first| first.fell(change, new_conflict_id()))
                }
                _ => None,
            };
            let Some(conflict) = conflict else { continue };
            let NewConflict { id, reason, path, .. } = conflict.clone();
            *outcome = Outcome::Conflict { id, reason, path };
            self.conflicts.push(conflict.clone());
            by_change.insert(index, conflict);
        }
    }

    /// Whether every change is in the tree now.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.outcomes
            .iter()
            .all(|outcome| matches!(outcome, Outcome::Accepted { .. } | Outcome::Held { .. }))
    }
}

/// A conflict that is to be recorded. It names all that is needed to find the
/// contents of both sides, and of their base.
#[derive(Debug, Clone, PartialEq)]
pub struct NewConflict {
    /// Its id.
    pub id: String,
    /// The replica whose change was refused, if it came from one.
    pub replica: Option<String>,
    /// The sandbox whose change was refused, if it came from one.
    pub sandbox: Option<String>,
    /// The change.
    pub change: Change,
    /// Why.
    pub reason: Reason,
    /// The path that cannot be as asked: one of the change's own, or that of a
    /// directory that was to be made above it.
    pub at: TreePath,
    /// The path of what stands in the way.
    pub path: TreePath,
    /// The conflict of the earlier change with which this one fell.
    pub fell_with: Option<String>,
    /// What stands in the way: id and version.
    pub existing: Option<(NodeId, Seq)>,
    /// The content of what stands in the way, when it is a file.
    pub existing_content: Option<Content>,
    /// What the one who asked had last agreed on: id and version.
    pub base: Option<(NodeId, Seq)>,
    /// When.
    pub time: Time,
}

impl NewConflict {
    /// The conflict of a change that falls with this one.
    fn fell(&self, change: &Change, id: String) -> Self {
        let here = self.path == *change.path();
        Self {
            id,
            fell_with: Some(self.fell_with.clone().unwrap_or_else(|| self.id.clone())),
            existing_content: self.existing_content.filter(|_| here),
            base: base(change),
            change: change.clone(),
            ..self.clone()
        }
    }
}

/// What the one who asks had last agreed on: id and version.
pub(super) fn base(change: &Change) -> Option<(NodeId, Seq)> {
    match change.expect {
        Some(Expected::Node { id, version }) => Some((id, version)),
        _ => None,
    }
}
