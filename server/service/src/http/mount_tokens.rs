//! Tokens for mounts: each for one Volume only, and only as long as it is used.

use s0_api::times::rfc3339;
use s0_api::tokens::{MountToken, NewMountToken, Permission};
use s0_api::volumes::Deleted;

use super::State;
use super::answers::{Made, MadeOf, Told, ok};
use super::asked::{JsonOrNone, Named, OrMount, ReadVolume, Volume};
use crate::journal::Purpose;
use crate::problem::Problem;

pub(super) async fn create(
    service: State,
    volume: Volume<ReadVolume>,
    JsonOrNone(asked): JsonOrNone<NewMountToken>,
) -> MadeOf<MountToken> {
    // What nobody asked for is not given.
    let read_only = asked.read_only.unwrap_or(true);
    if !read_only && volume.caller.may(Permission::WriteVolume).is_err() {
        return Err(Problem::Forbidden("the token may only read; mount the Volume read-only"));
    }
    let purpose = Purpose::Mount { volume: volume.id().into(), read_only };
    let (token, record) = service.limited_token(&volume.caller, purpose).await?;
    let expires_at = record.expires.map(rfc3339).unwrap_or_default();
    Ok(Made(MountToken { id: record.id, token, expires_at }))
}

/// Whoever has the token may end it, and so may the token with which it was made, and an admin.
pub(super) async fn delete(
    service: State,
    volume: Volume<OrMount<ReadVolume>>,
    Named(id): Named,
) -> Told<Deleted> {
    let of_here = |purpose: &Purpose| match purpose {
        Purpose::Mount { volume: known, .. } => known == volume.id(),
    };
    let all = service.journal.limited_tokens(volume.team()).await?;
    let found = all.into_iter().find(|token| token.id == id);
    if let Some((token, limit)) = found.and_then(|it| it.limit.clone().map(|limit| (it, limit)))
        && of_here(&limit.purpose)
    {
        let caller = &volume.caller;
        if ![token.hash, limit.parent].contains(&caller.token.hash) {
            caller.is_admin()?;
        }
        service.journal.delete_token(token.hash).await?;
    }
    ok(Deleted { deleted: true })
}
