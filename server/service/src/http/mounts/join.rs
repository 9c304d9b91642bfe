//! How a mount comes: it waits for those that were alone, and is registered.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use s0_api::mounts::{MountQuery, OWN_LEASE_MS};
use s0_api::sync::Registration;
use s0_tree::{Policy, Seq, Time};

use crate::problem::Problem;
use crate::volume::{Hot, Needs};

/// When a mount is forgotten that ended without a word, in nanoseconds after it was heard of last: a
/// day. Until then it may come back with what it has not committed.
const FORGOTTEN_AFTER: i64 = 24 * 3600 * 1_000_000_000;

/// Waits until each mount that was alone has said which names it has made.
pub(super) async fn wait_for_others(
    hot: &Hot,
    session: &str,
    connection: u64,
    seen: Seq,
) -> Result<(), Problem> {
    let mut changed = hot.shared.mounts_changed();
    // By then one that is not heard does not go by what it knows, and this one counts still.
    let patience = Instant::now() + Duration::from_millis(OWN_LEASE_MS);
    while let Some(until) = hot.shared.mounts(|all| all.waits_until(session)) {
        tokio::select! {
            _ = changed.changed() => {}
            () = tokio::time::sleep_until(until.min(patience).into()) => {
                hot.shared.with_mounts(|all| {
                    all.expire(Instant::now());
                    if Instant::now() >= patience {
                        all.evict_silent(session);
                    }
                });
            }
        }
    }
    // It counts from now on.
    let head = hot.subscribe().borrow().head();
    let to = (seen, head);
    if hot.shared.with_mounts(|all| all.begin(session, connection, to, Instant::now())) {
        Ok(())
    } else {
        Err(Problem::Unavailable("another mount did not answer in time; try again".into()))
    }
}

/// A mount writes as a replica does whose disk is always up to date.
pub(super) async fn register(
    hot: &Hot,
    session: &Arc<str>,
    query: &MountQuery,
    after: Seq,
) -> Result<(u64, u64), Problem> {
    let registration = Registration {
        display_name: format!("{}:{}", query.host, query.mount_point),
        platform: "linux".into(),
        root_path: query.mount_point.clone(),
        case_sensitive: true,
        capabilities: Policy::default().into(),
        take_instance: true,
        // Without a sandbox of its own a mount is its own sandbox: what comes through it
        // is no user's edit.
        sandbox_id: Some(query.sandbox_id.clone().unwrap_or_else(|| session.to_string())),
    };
    let session = session.clone();
    let here: HashSet<_> = hot.shared.mounts(|all| all.sessions().cloned().collect());
    hot.commit(Needs::default(), move |draft| {
        let long_ago = Time(draft.time.0 - FORGOTTEN_AFTER);
        let gone = draft.ledger.forget_mounts(long_ago, |id| here.contains(id));
        draft.append.forgotten.extend(gone);
        let known = draft.ledger.register(&session, &registration, draft.time);
        if known.cursor < after {
            // It was compared with the head; a reader behind it pins what it needs.
            let _ = draft.ledger.set_cursor(&session, after, draft.time);
        }
        draft.note_replica(&session);
        Ok((known.instance, known.last_number))
    })
    .await
}
