//! Snapshots, and going back to them.

use s0_api::times::fixed;
use s0_api::volumes::{Deleted, NewSnapshot, Restored, Restoring, Snapshot};
use s0_tree::{News, Tree};
use serde_json::{Map, json};

use super::State;
use super::answers::{Made, MadeOf, Told, ok};
use super::asked::{
    AsSnapshot, AsVolume, DeleteVolume, Json, Named, Params, ReadVolume, Volume, WriteVolume,
};
use super::files::restorer;
use crate::journal::SnapshotRecord;
use crate::problem::Problem;
use crate::service::{Service, now};
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
        size: tree.usage().bytes,
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
    volume: Volume<WriteVolume, AsVolume>,
    Json(new): Json<NewSnapshot>,
) -> MadeOf<Snapshot> {
    if new.name.trim().is_empty() {
        return Err(Problem::bad("name is required"));
    }
    let tree = volume.hot.committed().ledger.tree().clone();
    let record = take(&service, &volume.hot, tree, new.name, new.description).await?;
    Ok(Made(as_documented(volume.id(), &record)))
}

pub(super) async fn list(
    service: State,
    volume: Volume<ReadVolume, AsVolume>,
) -> Told<Vec<Snapshot>> {
    let all = service.journal.snapshots(volume.id()).await?;
    ok(all.iter().map(|record| as_documented(volume.id(), record)).collect())
}

pub(super) async fn get(
    service: State,
    volume: Volume<ReadVolume, AsSnapshot>,
    Named(snapshot): Named,
) -> Told<Snapshot> {
    ok(as_documented(volume.id(), &find(&service, &volume.hot, &snapshot).await?))
}

pub(super) async fn delete(
    service: State,
    volume: Volume<DeleteVolume, AsVolume>,
    Named(snapshot): Named,
) -> Told<Deleted> {
    service.journal.delete_snapshot(volume.id(), &snapshot).await?;
    ok(Deleted { deleted: true })
}

/// Goes back by ordinary entries, so that everyone learns of it. Names that a
/// replica cannot hold today stay away, each recorded as a conflict.
pub(super) async fn restore(
    service: State,
    volume: Volume<WriteVolume, AsSnapshot>,
    Named(snapshot): Named,
    Params(by): Params<Restoring>,
) -> Told<Restored> {
    let hot = volume.hot;
    let record = find(&service, &hot, &snapshot).await?;
    let then = tree_of(&service, &hot, &record).await?;
    let conflicts = hot
        .commit(Needs::default(), move |draft| {
            let origin = restorer(draft, &by)?;
            let changes = s0_tree::restore(draft.ledger.tree(), &then);
            let about = |_: &_, _: &_| Map::from_iter([("restore".into(), json!(record.id))]);
            let admitted = draft.admit(&origin, &changes, &News::default(), &about)?;
            Ok(admitted.conflicts.len())
        })
        .await?;
    ok(Restored { status: "restored".into(), conflicts })
}
