//! Volumes: make, list, fork, delete.

use s0_api::times::rfc3339;
use s0_api::volumes::{AccessMode, ChangeVolume, Deleted, NewVolume, SandboxVolume};
use s0_tree::{Quota, Usage};
use schemars::JsonSchema;
use serde::Deserialize;

use super::State;
use super::answers::{Made, MadeOf, Told, ok};
use super::asked::{
    AsVolume, CreateVolume, DeleteVolume, Json, JsonOrNone, May, Named, OrMount, Params,
    ReadVolume, Volume, WriteVolume,
};
use crate::journal::{Start, VolumeRecord};
use crate::problem::Problem;
use crate::service::now;
use crate::volume::{Draft, Needs, new_id, pack};

fn as_documented(record: &VolumeRecord) -> SandboxVolume {
    SandboxVolume {
        id: record.id.clone(),
        team_id: record.team.clone(),
        user_id: record.user.clone(),
        source_volume_id: record.source.clone(),
        default_posix_uid: Some(record.uid.into()),
        default_posix_gid: Some(record.gid.into()),
        access_mode: record.access_mode,
        quota_bytes: record.quota.bytes,
        quota_inodes: record.quota.inodes,
        used_bytes: record.used.map(|used| used.bytes),
        used_inodes: record.used.map(|used| used.inodes),
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

/// Databases count in signed numbers.
const MAX_QUOTA: u64 = i64::MAX as u64;

fn checked(quota: Quota) -> Result<Quota, Problem> {
    if quota.bytes.max(quota.inodes).is_some_and(|limit| limit > MAX_QUOTA) {
        return Err(Problem::bad("a quota is at most 2^63-1"));
    }
    Ok(quota)
}

/// What is not said is as it was.
fn quota(new: &NewVolume, was: Quota) -> Result<Quota, Problem> {
    let bytes = new.quota_bytes.or(was.bytes);
    checked(Quota { bytes, inodes: new.quota_inodes.or(was.inodes) })
}

pub(super) async fn create(
    service: State,
    May { caller, .. }: May<CreateVolume>,
    Json(new): Json<NewVolume>,
) -> MadeOf<SandboxVolume> {
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
        quota: quota(&new, Quota::default())?,
        used: Some(Usage::default()),
        created: time,
        updated: time,
    };
    service.journal.create_volume(record.clone(), None).await?;
    Ok(Made(as_documented(&record)))
}

pub(super) async fn list(
    service: State,
    May { caller, .. }: May<ReadVolume>,
) -> Told<Vec<SandboxVolume>> {
    let all = service.journal.volumes(Some(caller.team)).await?;
    ok(all.iter().map(as_documented).collect())
}

pub(super) async fn get(
    service: State,
    May { caller, .. }: May<OrMount<ReadVolume>>,
    Named(id): Named,
) -> Told<SandboxVolume> {
    match service.journal.volume(&id).await? {
        Some(record) if record.team == caller.team => ok(as_documented(&record)),
        _ => Err(Problem::NotFound("not found")),
    }
}

/// How a Volume is to be deleted.
#[derive(Deserialize, JsonSchema)]
pub(super) struct HowToDelete {
    /// `true` where it is to go although it is mounted: what is open there fails from then on.
    force: Option<String>,
}

pub(super) async fn delete(
    service: State,
    May { caller, .. }: May<DeleteVolume>,
    Named(id): Named,
    Params(how): Params<HowToDelete>,
) -> Told<Deleted> {
    let force = how.force.is_some_and(|force| force.trim().eq_ignore_ascii_case("true"));
    if let Some(record) = service.journal.volume(&id).await? {
        if record.team != caller.team {
            return Err(Problem::NotFound("not found"));
        }
        if !force && service.is_mounted(&id) {
            return Err(Problem::conflict("the Volume is mounted; unmount it, or use force"));
        }
        service.journal.delete_volume(&id).await?;
        service.close(&id);
    }
    ok(Deleted { deleted: true })
}

/// Changes the quota. A smaller one takes nothing away: it only keeps more from coming.
pub(super) async fn change(
    service: State,
    volume: Volume<WriteVolume>,
    Json(asked): Json<ChangeVolume>,
) -> Told<SandboxVolume> {
    let change = move |draft: &mut Draft| {
        let was = draft.ledger.quota();
        let bytes = asked.quota_bytes.unwrap_or(was.bytes);
        let quota = checked(Quota { bytes, inodes: asked.quota_inodes.unwrap_or(was.inodes) })?;
        draft.ledger = draft.ledger.clone().within(quota);
        draft.append.quota = Some(quota);
        Ok(())
    };
    volume.hot.commit(Needs { repeatable: true, upload: None }, change).await?;
    let record = service.journal.volume(volume.id()).await?;
    ok(as_documented(&record.ok_or(Problem::NotFound("not found"))?))
}

pub(super) async fn fork(
    service: State,
    source: Volume<WriteVolume, AsVolume>,
    JsonOrNone(new): JsonOrNone<NewVolume>,
) -> MadeOf<SandboxVolume> {
    let (access_mode, time) = (access_mode(&new)?, now());
    let kept = (source.hot.record.uid, source.hot.record.gid);
    let (uid, gid) = owner(&new)?.unwrap_or(kept);
    let committed = source.hot.committed();
    let tree = committed.ledger.tree().clone();
    let used = Some(tree.usage());
    let contents = tree.contents().map(|content| content.id).collect();
    let start = Start { checkpoint: pack(tree).await?, contents };
    let record = VolumeRecord {
        id: new_id(),
        source: Some(source.id().into()),
        team: source.caller.team,
        user: source.caller.user,
        access_mode,
        uid,
        gid,
        epoch: new_id(),
        quota: quota(&new, committed.ledger.quota())?,
        used,
        created: time,
        updated: time,
    };
    service.journal.create_volume(record.clone(), Some(start)).await?;
    Ok(Made(as_documented(&record)))
}
