//! What sandboxes wrote here, kept until a review has heard of it.
//!
//! It is recorded together with the agreement that the write brought, so that
//! neither a crash nor a slow review makes it forgotten.

use s0_tree::{Actor, Seq, TreePath};

use super::{Done, Replica};
use crate::disk::Disk;
use crate::state::{Applied, Record, Store, What};

/// What is at a path, with its permission bits; nothing, if absent.
pub(super) type Side = Option<(What, u32)>;

/// Writes that may wait for a review. Further ones count as reviewed.
const WAITING: usize = 20_000;

/// Whether this is a person's own write, as far as anybody knows: through a
/// replica that stands for no sandbox.
pub(super) fn is_by_user(actor: Option<&Actor>) -> bool {
    actor.is_some_and(|actor| actor.replica.is_some() && actor.sandbox.is_none())
}

impl<D: Disk, S: Store> Replica<D, S> {
    /// The record of an applied write, if a review wants it. Of one that nobody knows
    /// the author of, the disk was told with everything else at a start; it is no news.
    /// `ahead` is how many such records are on their way already.
    pub(super) fn for_review(
        &self,
        ahead: u64,
        path: &TreePath,
        from: Option<&TreePath>,
        (before, after): (Side, Side),
        actor: Option<&Actor>,
        version: Option<Seq>,
    ) -> Option<Record> {
        let actor = actor.filter(|actor| self.config.review && !is_by_user(Some(actor)))?;
        if self.state.applied.len() >= WAITING {
            return None;
        }
        let head = self.remote.as_ref().map_or(self.state.facts.cursor, s0_tree::Tree::head);
        let applied = Applied {
            path: path.clone(),
            from: from.cloned(),
            before,
            after,
            actor: actor.clone(),
            version: version.unwrap_or(head),
        };
        Some(Record::Applied(self.next_applied() + ahead, Some(Box::new(applied))))
    }

    fn next_applied(&self) -> u64 {
        self.state.applied.last_key_value().map_or(0, |(last, _)| last + 1)
    }

    /// A review has heard of these writes, and has written that down.
    ///
    /// # Errors
    /// The state database failed.
    pub fn heard(&mut self, applied: &[u64]) -> Done {
        self.commit(applied.iter().map(|at| Record::Applied(*at, None)).collect(), false)
    }
}
