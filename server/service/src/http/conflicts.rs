//! Conflicts: list and settle.

use s0_api::documented::{ConflictList, ConflictStatus, SetConflict, SyncConflict};
use s0_api::times::rfc3339;
use s0_tree::comparison_key;
use serde_json::json;

use super::{Answered, At, Params, State, Whole, ok};
use crate::journal::{ConflictRecord, VolumeRecord};
use crate::problem::Problem;
use crate::service::{Caller, now};

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

pub(super) async fn list(
    service: State,
    caller: Caller,
    At(id): At<String>,
    params: Params,
) -> Answered {
    caller.may("sandboxvolume:read")?;
    let limit = params.limit()?;
    let hot = service.volume(&caller, &id).await?;
    let status = params.text("status").filter(|text| !text.is_empty()).map(String::from);
    let found = service.journal.conflicts(&id, status, limit).await?;
    let conflicts = found.iter().map(|record| as_documented(&hot.record, record)).collect();
    ok(&ConflictList { conflicts })
}

pub(super) async fn set(
    service: State,
    caller: Caller,
    At((id, conflict)): At<(String, String)>,
    body: Whole,
) -> Answered {
    caller.may("sandboxvolume:write")?;
    let asked: SetConflict = body.json()?;
    let status = match asked.status.trim() {
        "resolved" => ConflictStatus::Resolved,
        "ignored" => ConflictStatus::Ignored,
        _ => return Err(Problem::bad("invalid sync conflict status")),
    };
    let hot = service.volume(&caller, &id).await?;
    let time = now();
    let mut added = vec![("resolved_at".into(), json!(rfc3339(time)))];
    for (key, text) in [("resolution", asked.resolution), ("note", asked.note)] {
        if !text.is_empty() {
            added.push((key.into(), json!(text)));
        }
    }
    let settled = service.journal.set_conflict(&id, &conflict, status, added, time).await?;
    ok(&as_documented(&hot.record, &settled.ok_or(Problem::NotFound("not found"))?))
}
