//! Volumes: make, list, fork, delete.

use std::sync::Arc;

use s0_api::times::rfc3339;
use s0_api::volumes::{AccessMode, NewVolume, SandboxVolume};

use super::{Answered, At, State, Whole, deleted, made, ok};
use crate::journal::{Start, VolumeRecord};
use crate::problem::Problem;
use crate::service::{Caller, Service, now};
use crate::volume::{Hot, new_id, pack};

fn as_documented(record: &VolumeRecord) -> SandboxVolume {
    SandboxVolume {
        id: record.id.clone(),
        team_id: record.team.clone(),
        user_id: record.user.clone(),
        source_volume_id: record.source.clone(),
        default_posix_uid: Some(record.uid.into()),
        default_posix_gid: Some(record.gid.into()),
        access_mode: record.access_mode,
        created_at: rfc3339(record.created),
        updated_at: rfc3339(record.updated),
    }
}

fn access_mode(new: &NewVolume) -> Result<AccessMode, Problem> {
    match new.access_mode.as_deref().map(str::trim) {
        None | Some("") => Ok(AccessMode::default()),
        Some(text) => AccessMode::parse(text)
            .ok_or_else(|| Problem::bad("invalid access_mode: it is RWO, ROX or RWX")),
    }
}

/// Both or neither; `None` for neither.
fn owner(new: &NewVolume) -> Result<Option<(u32, u32)>, Problem> {
    let id = |id: i64| {
        u32::try_from(id).map_err(|_| Problem::bad("default_posix_uid and _gid are 0 to 2^32-1"))
    };
    match (new.default_posix_uid, new.default_posix_gid) {
        (None, None) => Ok(None),
        (Some(uid), Some(gid)) => Ok(Some((id(uid)?, id(gid)?))),
        _ => Err(Problem::bad("default_posix_uid and default_posix_gid go together")),
    }
}

/// A Volume of the caller's team, on those routes that say what is not found.
pub(super) async fn named(
    service: &Service,
    caller: &Caller,
    id: &str,
) -> Result<Arc<Hot>, Problem> {
    let found = service.volume(caller, id).await;
    found.map_err(|problem| problem.not_found_as("volume not found"))
}

pub(super) async fn create(service: State, caller: Caller, body: Whole) -> Answered {
    caller.may("sandboxvolume:create")?;
    let new: NewVolume = body.json()?;
    let (access_mode, time) = (access_mode(&new)?, now());
    let (uid, gid) = owner(&new)?.unwrap_or((0, 0));
    let record = VolumeRecord {
        id: new_id(),
        team: caller.team,
        user: caller.user,
        source: None,
        access_mode,
        uid,
        gid,
        epoch: new_id(),
        created: time,
        updated: time,
    };
    service.journal.create_volume(record.clone(), None).await?;
    made(&as_documented(&record))
}

pub(super) async fn list(service: State, caller: Caller) -> Answered {
    caller.may("sandboxvolume:read")?;
    let all = service.journal.volumes(&caller.team).await?;
    ok(&all.iter().map(as_documented).collect::<Vec<_>>())
}

pub(super) async fn get(service: State, caller: Caller, At(id): At<String>) -> Answered {
    caller.may("sandboxvolume:read")?;
    match service.journal.volume(&id).await? {
        Some(record) if record.team == caller.team => ok(&as_documented(&record)),
        _ => Err(Problem::NotFound("not found")),
    }
}

/// Nothing is mounted in a way that a deletion would hurt: readers of a deleted
/// Volume learn that it is gone. So `force` makes no difference.
pub(super) async fn delete(service: State, caller: Caller, At(id): At<String>) -> Answered {
    caller.may("sandboxvolume:delete")?;
    if let Some(record) = service.journal.volume(&id).await? {
        if record.team != caller.team {
            return Err(Problem::NotFound("not found"));
        }
        service.journal.delete_volume(&id).await?;
        service.close(&id);
    }
    deleted()
}

pub(super) async fn fork(
    service: State,
    caller: Caller,
    At(id): At<String>,
    body: Whole,
) -> Answered {
    caller.may("sandboxvolume:write")?;
    let new: NewVolume = body.json_or_default()?;
    let (access_mode, time) = (access_mode(&new)?, now());
    let owner = owner(&new)?;
    let source = named(&service, &caller, &id).await?;
    let (uid, gid) = owner.unwrap_or((source.record.uid, source.record.gid));
    let tree = source.committed().ledger.tree().clone();
    let contents = tree.contents().map(|content| content.id).collect();
    let start = Start { checkpoint: pack(tree).await?, contents };
    let record = VolumeRecord {
        id: new_id(),
        team: caller.team,
        user: caller.user,
        source: Some(id),
        access_mode,
        uid,
        gid,
        epoch: new_id(),
        created: time,
        updated: time,
    };
    service.journal.create_volume(record.clone(), Some(start)).await?;
    made(&as_documented(&record))
}
