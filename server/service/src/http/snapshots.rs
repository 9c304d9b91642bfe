//! Snapshots, and going back to them.

use s0_api::times::fixed;
use s0_api::volumes::{NewSnapshot, Snapshot};
use s0_tree::{News, Origin, Source, Tree};
use serde_json::{Map, json};

use super::{Answered, At, State, Whole, deleted, made, ok, volumes};
use crate::journal::SnapshotRecord;
use crate::problem::Problem;
use crate::service::{Caller, Service, now};
use crate::volume::{Hot, Needs, new_id, pack, unpack};

const UNKNOWN: Problem = Problem::NotFound("snapshot not found");

pub(super) fn as_documented(volume: &str, record: &SnapshotRecord) -> Snapshot {
    Snapshot {
        id: record.id.clone(),
        volume_id: volume.into(),
        name: record.name.clone(),
        description: record.description.clone(),
        size_bytes: record.size,
        created_at: fixed(record.created),
        expires_at: None,
    }
}

/// Takes a snapshot of a tree that is committed.
pub(super) async fn take(
    service: &Service,
    hot: &Hot,
    tree: Tree,
    name: String,
    description: String,
) -> Result<SnapshotRecord, Problem> {
    let record = SnapshotRecord {
        id: new_id(),
        name,
        description,
        seq: tree.head(),
        size: tree.size_bytes(),
        created: now(),
    };
    let checkpoint = pack(tree).await?;
    service.journal.create_snapshot(&hot.record.id, record.clone(), checkpoint).await?;
    Ok(record)
}

/// A snapshot of this Volume.
pub(super) async fn find(
    service: &Service,
    hot: &Hot,
    snapshot: &str,
) -> Result<SnapshotRecord, Problem> {
    let all = service.journal.snapshots(&hot.record.id).await?;
    all.into_iter().find(|record| record.id == snapshot).ok_or(UNKNOWN)
}

/// The tree of a snapshot.
pub(super) async fn tree_of(
    service: &Service,
    hot: &Hot,
    snapshot: &SnapshotRecord,
) -> Result<Tree, Problem> {
    let kept = service.journal.checkpoint(&hot.record.id, snapshot.seq).await?;
    let lost = || Problem::Internal(format!("the tree of snapshot {} is missing", snapshot.id));
    Ok(unpack(kept.ok_or_else(lost)?.packed).await?)
}

pub(super) async fn create(
    service: State,
    caller: Caller,
    At(id): At<String>,
    body: Whole,
) -> Answered {
    caller.may("sandboxvolume:write")?;
    let new: NewSnapshot = body.json()?;
    if new.name.trim().is_empty() {
        return Err(Problem::bad("name is required"));
    }
    let hot = volumes::named(&service, &caller, &id).await?;
    let tree = hot.committed().ledger.tree().clone();
    let record = take(&service, &hot, tree, new.name, new.description).await?;
    made(&as_documented(&id, &record))
}

pub(super) async fn list(service: State, caller: Caller, At(id): At<String>) -> Answered {
    caller.may("sandboxvolume:read")?;
    volumes::named(&service, &caller, &id).await?;
    let all = service.journal.snapshots(&id).await?;
    ok(&all.iter().map(|record| as_documented(&id, record)).collect::<Vec<_>>())
}

pub(super) async fn get(
    service: State,
    caller: Caller,
    At((id, snapshot)): At<(String, String)>,
) -> Answered {
    caller.may("sandboxvolume:read")?;
    let hot = service.volume(&caller, &id).await;
    let hot = hot.map_err(|problem| problem.not_found_as("snapshot not found"))?;
    ok(&as_documented(&id, &find(&service, &hot, &snapshot).await?))
}

pub(super) async fn delete(
    service: State,
    caller: Caller,
    At((id, snapshot)): At<(String, String)>,
) -> Answered {
    caller.may("sandboxvolume:delete")?;
    volumes::named(&service, &caller, &id).await?;
    service.journal.delete_snapshot(&id, &snapshot).await?;
    deleted()
}

/// Goes back by ordinary entries, so that everyone learns of it. Names that a
/// replica cannot hold today stay away, each recorded as a conflict.
pub(super) async fn restore(
    service: State,
    caller: Caller,
    At((id, snapshot)): At<(String, String)>,
) -> Answered {
    caller.may("sandboxvolume:write")?;
    let hot = service.volume(&caller, &id).await;
    let hot = hot.map_err(|problem| problem.not_found_as("snapshot not found"))?;
    let record = find(&service, &hot, &snapshot).await?;
    let then = tree_of(&service, &hot, &record).await?;
    let held_back = hot
        .commit(Needs::default(), move |draft| {
            let (uid, gid) = draft.ledger.owner();
            let source = Source::Sandbox;
            let origin = Origin { source, time: draft.time, uid, gid, ..Origin::default() };
            let changes = s0_tree::restore(draft.ledger.tree(), &then);
            let about = |_: &_, _: &_| Map::from_iter([("restore".into(), json!(record.id))]);
            let admitted = draft.admit(&origin, &changes, &News::default(), &about)?;
            Ok(admitted.conflicts.len())
        })
        .await?;
    match held_back {
        0 => ok(&json!({"status": "restored"})),
        conflicts => ok(&json!({"status": "restored", "conflicts": conflicts})),
    }
}
