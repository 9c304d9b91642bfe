//! Conflicts: list and settle.

use s0_api::documented::{ConflictList, ConflictStatus, SetConflict, SyncConflict};
use s0_api::times::rfc3339;
use s0_tree::comparison_key;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::State;
use super::answers::{Told, ok};
use super::asked::{Json, Named, Params, ReadVolume, Volume, WriteVolume, limited, number};
use crate::journal::{ConflictRecord, VolumeRecord};
use crate::problem::Problem;
use crate::service::now;

pub(super) fn as_documented(volume: &VolumeRecord, record: &ConflictRecord) -> SyncConflict {
    let path = format!("/{}", record.path);
    SyncConflict {
        id: record.id.clone(),
        volume_id: volume.id.clone(),
        team_id: volume.team.clone(),
        replica_id: record.replica.clone(),
        normalized_path: format!("/{}", comparison_key(&record.path)),
        incoming_path: Some(path.clone()),
        path,
        artifact_path: String::new(),
        incoming_old_path: record.old_path.as_ref().map(|path| format!("/{path}")),
        existing_seq: record.existing.map(|seq| seq.0),
        reason: record.reason.clone(),
        status: record.status,
        metadata: Some(record.metadata.clone()),
        created_at: rfc3339(record.created),
        updated_at: rfc3339(record.updated),
    }
}

/// Which conflicts.
#[derive(Deserialize, JsonSchema)]
pub(super) struct Which {
    /// `open`, `resolved` or `ignored`; all when absent, none of any other.
    status: Option<String>,
    /// At most how many: 256 when absent, at most 2048.
    #[serde(default, deserialize_with = "number")]
    limit: Option<i64>,
}

pub(super) async fn list(
    service: State,
    volume: Volume<ReadVolume>,
    Params(which): Params<Which>,
) -> Told<ConflictList> {
    let status = which.status.filter(|text| !text.is_empty());
    let found = service.journal.conflicts(volume.id(), status, limited(which.limit)).await?;
    let conflicts = found.iter().map(|record| as_documented(&volume.hot.record, record)).collect();
    ok(ConflictList { conflicts })
}

pub(super) async fn set(
    service: State,
    volume: Volume<WriteVolume>,
    Named(conflict): Named,
    Json(asked): Json<SetConflict>,
) -> Told<SyncConflict> {
    let status = match asked.status.trim() {
        "resolved" => ConflictStatus::Resolved,
        "ignored" => ConflictStatus::Ignored,
        _ => return Err(Problem::bad("invalid sync conflict status")),
    };
    let time = now();
    let mut added = vec![("resolved_at".into(), json!(rfc3339(time)))];
    for (key, text) in [("resolution", asked.resolution), ("note", asked.note)] {
        if !text.is_empty() {
            added.push((key.into(), json!(text)));
        }
    }
    let settled = service.journal.set_conflict(volume.id(), &conflict, status, added, time).await?;
    let settled = settled.ok_or(Problem::NotFound("not found"))?;
    ok(as_documented(&volume.hot.record, &settled))
}
