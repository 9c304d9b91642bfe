//! Mounting Volumes in sandboxes that run. Only their wardens know them, so each that can be
//! reached has a connection here, by which what is asked goes on to it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use aide::OperationInput;
use aide::generate::GenContext;
use aide::openapi::{Operation, Response as Described};
use axum::extract::ws::{Message, WebSocket};
use axum::extract::{FromRequest, Request};
use s0_api::mounts::ID_PREFIX;
use s0_api::sandboxes::{
    Ask, Asked, MountList, MountVolume, Refusal, Replied, Reply, UnmountVolume, VolumeMounted,
    VolumeUnmounted, Why,
};
use s0_api::tokens::LimitedToken;
use s0_api::volumes::{AccessMode, Deleted};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::answers::{Answered, Made, MadeOf, Told, ok};
use super::asked::{Json, May, Named, OrWarden, ReadVolume, Sandbox, WriteVolume};
use super::watch::Upgrade;
use super::{State, check_id};
use crate::attended::Wanted;
use crate::caller::Caller;
use crate::journal::Purpose;
use crate::problem::Problem;
use crate::service::Service;

/// How often a silent connection is tried, and the token looked at.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// How long a warden may take to read one message.
const PATIENCE: Duration = Duration::from_secs(60);
/// The largest answer of a warden.
const MAX_REPLY: usize = 1 << 20;

pub(super) async fn create_token(
    service: State,
    May { caller, .. }: May<WriteVolume>,
    Sandbox(sandbox): Sandbox,
) -> MadeOf<LimitedToken> {
    check_id("the sandbox's id", &sandbox)?;
    Ok(Made(service.limited_token(&caller, Purpose::Attend { sandbox }).await?))
}

pub(super) async fn delete_token(
    service: State,
    May { caller, .. }: May<OrWarden<WriteVolume>>,
    Sandbox(sandbox): Sandbox,
    Named(id): Named,
) -> Told<Deleted> {
    let of_here =
        |purpose: &Purpose| matches!(purpose, Purpose::Attend { sandbox: it } if *it == sandbox);
    service.end_limited_token(&caller, &id, of_here).await?;
    ok(Deleted { deleted: true })
}

pub(super) async fn attend(
    service: State,
    May { caller, .. }: May<OrWarden<WriteVolume>>,
    Sandbox(sandbox): Sandbox,
    Upgrade(upgrade): Upgrade,
) -> Answered {
    check_id("the sandbox's id", &sandbox)?;
    let of = caller.token.limit.as_ref().map_or(caller.token.hash, |limit| limit.parent);
    let (connection, wanted) = service.attended.join((&caller.team, &sandbox), of)?;
    let service = service.0;
    let refused = Leave { service, caller, sandbox, connection };
    let upgrade = upgrade.max_message_size(MAX_REPLY).max_frame_size(MAX_REPLY);
    Ok(upgrade.on_upgrade(move |socket| async move { serve(&refused, socket, wanted).await }))
}

/// However a connection ends, nobody is asked by it any more.
struct Leave {
    service: Arc<Service>,
    caller: Caller,
    sandbox: String,
    connection: u64,
}

impl Drop for Leave {
    fn drop(&mut self) {
        self.service.attended.leave((&self.caller.team, &self.sandbox), self.connection);
    }
}

async fn serve(of: &Leave, mut socket: WebSocket, mut wanted: mpsc::Receiver<Wanted>) {
    let mut closing = of.service.closing.clone();
    if *closing.borrow_and_update() {
        return;
    }
    let mut alive = interval(KEEPALIVE);
    alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut last, mut heard) = (0, true);
    let mut waiting: HashMap<u64, oneshot::Sender<Reply>> = HashMap::new();
    loop {
        let message = tokio::select! {
            next = socket.recv() => {
                heard = true;
                match next {
                    Some(Ok(Message::Text(text))) => {
                        let Ok(Replied { id, reply }) = serde_json::from_str(&text) else { return };
                        if let Some(to) = waiting.remove(&id) {
                            // Whoever asked may have given up.
                            let _ = to.send(reply);
                        }
                        continue;
                    }
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                    _ => return,
                }
            }
            next = wanted.recv() => {
                // A newer connection is there.
                let Some((ask, to)) = next else { return };
                last += 1;
                waiting.retain(|_, to| !to.is_closed());
                waiting.insert(last, to);
                let Ok(text) = serde_json::to_string(&Asked { id: last, ask }) else { return };
                Message::text(text)
            }
            _ = alive.tick() => {
                // One that answers no ping is on a machine that is gone.
                if !heard || !of.service.is_good(&of.caller).await {
                    return;
                }
                heard = false;
                Message::Ping(Vec::new().into())
            }
            // It changes once.
            _ = closing.changed() => return,
        };
        if !matches!(timeout(PATIENCE, socket.send(message)).await, Ok(Ok(()))) {
            return;
        }
    }
}

/// A body whose documented refusal has a code of its own.
pub(super) struct Body<T>(T);

impl<T: DeserializeOwned> FromRequest<Arc<Service>> for Body<T> {
    type Rejection = Problem;
    async fn from_request(request: Request, state: &Arc<Service>) -> Result<Self, Problem> {
        match Json::from_request(request, state).await {
            Ok(Json(body)) => Ok(Self(body)),
            Err(Problem::BadRequest(why)) => Err(bad("invalid_request", why)),
            Err(other) => Err(other),
        }
    }
}

impl<T: JsonSchema> OperationInput for Body<T> {
    fn operation_input(ctx: &mut GenContext, operation: &mut Operation) {
        Json::<T>::operation_input(ctx, operation);
    }

    fn inferred_early_responses(
        ctx: &mut GenContext,
        operation: &mut Operation,
    ) -> Vec<(Option<u16>, Described)> {
        Json::<T>::inferred_early_responses(ctx, operation)
    }
}

fn bad(code: &'static str, why: impl Into<String>) -> Problem {
    Problem::Documented(400, code, why.into())
}

fn volume_id(id: &str) -> Result<(), Problem> {
    if id.trim().is_empty() {
        return Err(bad("invalid_sandboxvolume_id", "sandboxvolume_id is required"));
    }
    Ok(())
}

fn refused(Refusal { why, message }: Refusal) -> Problem {
    let status = match why {
        Why::InvalidMountPoint => 400,
        Why::AlreadyMounted | Why::MountInProgress | Why::MountPointInUse => 409,
        Why::MountFailed | Why::UnmountFailed => 500,
    };
    Problem::Documented(status, why.as_str(), message)
}

/// What is said where a warden answered nothing, or something else.
fn unanswered(why: Why) -> Problem {
    refused(why.with("the sandbox did not answer in time; its status shows what is mounted"))
}

pub(super) async fn mount(
    service: State,
    May { caller, .. }: May<WriteVolume>,
    Sandbox(sandbox): Sandbox,
    Body(asked): Body<MountVolume>,
) -> Told<VolumeMounted> {
    volume_id(&asked.sandboxvolume_id)?;
    let of = (caller.team.as_str(), sandbox.as_str());
    service.attended.knows(of)?;
    let hot = service.volume(&caller, &asked.sandboxvolume_id).await;
    let hot = hot.map_err(|problem| problem.not_found_as("volume not found"))?;
    let read_only = hot.record.access_mode == AccessMode::ReadOnlyMany;
    let volume_id = hot.record.id.clone();
    drop(hot);
    let purpose = Purpose::Mount { volume: volume_id.clone(), read_only };
    // The warden ends it, if nothing comes of it.
    let token = service.limited_token(&caller, purpose).await?;
    let ask = Ask::Mount { volume_id, mount_point: asked.mount_point, read_only, token };
    match service.attended.ask(of, ask).await? {
        Some(Reply::Mounted(mounted)) => ok(mounted),
        Some(Reply::Refused(why)) => Err(refused(why)),
        _ => Err(unanswered(Why::MountFailed)),
    }
}

pub(super) async fn unmount(
    service: State,
    May { caller, .. }: May<WriteVolume>,
    Sandbox(sandbox): Sandbox,
    Body(asked): Body<UnmountVolume>,
) -> Told<VolumeUnmounted> {
    volume_id(&asked.sandboxvolume_id)?;
    if !asked.mount_session_id.starts_with(ID_PREFIX) {
        let why = "mount_session_id is the one that was answered, mnt_…";
        return Err(bad("invalid_mount_session_id", why));
    }
    let ask = Ask::Unmount { volume_id: asked.sandboxvolume_id, session: asked.mount_session_id };
    match service.attended.ask((&caller.team, &sandbox), ask).await? {
        Some(Reply::Unmounted) => ok(VolumeUnmounted { unmounted: true }),
        Some(Reply::Refused(why)) => Err(refused(why)),
        _ => Err(unanswered(Why::UnmountFailed)),
    }
}

pub(super) async fn status(
    service: State,
    May { caller, .. }: May<ReadVolume>,
    Sandbox(sandbox): Sandbox,
) -> Told<MountList> {
    match service.attended.ask((&caller.team, &sandbox), Ask::Status).await? {
        Some(Reply::Status(list)) => ok(list),
        _ => Err(Problem::Documented(500, "internal_error", "the sandbox did not answer".into())),
    }
}
