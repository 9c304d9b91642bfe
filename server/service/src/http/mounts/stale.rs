//! What a mount was told is taken, and that did not fit when its turn came.
//!
//! `close` has returned by then. The mount tries again, over what stands there now; when it
//! cannot any more, this records what was written as a conflict.

use std::sync::Arc;
use std::time::Instant;

use s0_api::sync::{Answer, Outcome};
use s0_tree::{Actor, Change, News, Origin, Source};
use serde_json::Map;
use tokio::sync::watch;

use super::super::replicas::read_submission;
use super::{Mount, Submitted};
use crate::mounts::StaleClose;
use crate::volume::Needs;

impl Mount {
    /// Notes what of a submission that was taken has to be tried again.
    pub(super) fn note_stale(&self, submitted: &Submitted, answer: Option<&Answer>) {
        let (Some(body), Some(answer)) = (&submitted.taken, answer) else { return };
        let again =
            |outcome: &Outcome| matches!(outcome, Outcome::Stale { .. } | Outcome::Refused { .. });
        if !answer.outcomes.iter().any(again) {
            return;
        }
        let Ok((submission, mut inline)) = read_submission(body) else { return };
        for (index, change) in submission.changes.into_iter().enumerate() {
            if answer.outcomes.get(index).is_some_and(again) {
                let content = change.content().and_then(|it| inline.remove_entry(&it.id));
                let number = submission.number;
                self.stale.note(StaleClose { number, index, change, content });
            }
        }
    }

    /// Waits until the mount counts no more. False when it has come back.
    pub(super) async fn has_lapsed(&self, closing: &mut watch::Receiver<bool>) -> bool {
        if *closing.borrow_and_update() {
            // It is the service that ends; the mount comes back to the next one.
            return false;
        }
        let shared = &self.hot.shared;
        let until = shared.mounts(|all| all.counts_until(&self.session, self.connection));
        if let Some(until) = until {
            tokio::select! {
                () = tokio::time::sleep_until(until.into()) => {}
                // It did not come back so far, and nobody will know then.
                _ = closing.changed() => {}
            }
            shared.with_mounts(|all| all.expire(Instant::now()));
        }
        !shared.mounts(|all| all.is_newer(&self.session, self.connection))
    }

    /// Records what the mount does not try again: each is a conflict, unless it fits now.
    pub(super) async fn record_stale(&self) {
        for StaleClose { change, content, .. } in self.stale.take() {
            let change = Change { looks_again: false, ..change };
            let session = self.session.clone();
            tracing::warn!(session = &*session, path = %change.path(), "it did not try again");
            let recorded = self.hot.commit(Needs::default(), move |draft| {
                let known = draft.ledger.replica(&session);
                let sandbox = known.and_then(|it| it.registration.sandbox_id.as_deref());
                let actor = Actor {
                    replica: Some(session.clone()),
                    sandbox: sandbox.map(Arc::from),
                    process: None,
                };
                let (uid, gid) = draft.ledger.owner();
                let origin = Origin {
                    source: Source::Sandbox,
                    actor,
                    request: None,
                    time: draft.time,
                    uid,
                    gid,
                };
                draft.append.inline.extend(content.clone());
                let changes = std::slice::from_ref(&change);
                draft.admit(&origin, changes, &News::default(), &|_, _| Map::new()).map(drop)
            });
            if let Err(problem) = recorded.await {
                tracing::error!(?problem, "what a mount had closed is not recorded");
            }
        }
    }
}
