//! Tokens for mounts: each for one Volume only, and only as long as it is used.

use s0_api::tokens::{LimitedToken, NewMountToken, Permission};
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
) -> MadeOf<LimitedToken> {
    // What nobody asked for is not given.
    let read_only = asked.read_only.unwrap_or(true);
    if !read_only && volume.caller.may(Permission::WriteVolume).is_err() {
        return Err(Problem::Forbidden("the token may only read; mount the Volume read-only"));
    }
    let purpose = Purpose::Mount { volume: volume.id().into(), read_only };
    Ok(Made(service.limited_token(&volume.caller, purpose).await?))
}

pub(super) async fn delete(
    service: State,
    volume: Volume<OrMount<ReadVolume>>,
    Named(id): Named,
) -> Told<Deleted> {
    let of_here = |purpose: &Purpose| matches!(purpose, Purpose::Mount { volume: it, .. } if it == volume.id());
    service.end_limited_token(&volume.caller, &id, of_here).await?;
    ok(Deleted { deleted: true })
}
