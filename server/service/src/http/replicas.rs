//! Replicas: who they are, how far they have read, and what they submit.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use s0_api::documented::{RegisterRequest, ReplicaEnvelope, SetCursor, SyncReplica};
use s0_api::frames::FrameReader;
use s0_api::sync::Answer;
use s0_api::sync::{Capabilities, Registered, Registration, Submission};
use s0_api::times::rfc3339;
use s0_api::volumes::Deleted;
use s0_tree::{Change, ContentId, INLINE_LIMIT, Seq, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::answers::{Told, ok};
use super::asked::{Json, Named, Params, ReadVolume, Volume, Whole, WriteVolume, number, object};
use super::{State, check_id};
use crate::journal::VolumeRecord;
use crate::ledger::{CursorError, Ledger, ReplicaRecord, Submitted};
use crate::problem::Problem;
use crate::service::Service;
use crate::volume::{Committing, Hot, Needs, new_id};

const UNKNOWN: Problem = Problem::NotFound("not found");
/// How long a replica counts that takes no instance and is not heard of.
const LEASE: i64 = 5 * 60 * 1_000_000_000;

fn envelope(volume: &VolumeRecord, ledger: &Ledger, replica: &ReplicaRecord) -> ReplicaEnvelope {
    let capabilities = Capabilities::from(ledger.policy());
    ReplicaEnvelope {
        replica: SyncReplica {
            id: replica.id.to_string(),
            volume_id: volume.id.clone(),
            team_id: volume.team.clone(),
            display_name: replica.registration.display_name.clone(),
            platform: replica.registration.platform.clone(),
            root_path: replica.registration.root_path.clone(),
            case_sensitive: capabilities.case_sensitive,
            capabilities,
            last_seen_at: rfc3339(replica.seen),
            last_applied_seq: replica.cursor.0,
            created_at: rfc3339(replica.created),
            updated_at: rfc3339(replica.updated),
        },
        head_seq: ledger.head().0,
    }
}

/// A replica whose lease has not run out. Those that take instances need no
/// lease: a newer instance fences them.
pub(super) fn leased<'a>(
    ledger: &'a Ledger,
    replica: &str,
    now: Time,
) -> Result<&'a ReplicaRecord, Problem> {
    let known = ledger.replica(replica).ok_or(UNKNOWN)?;
    if known.instance == 0 && now.0.saturating_sub(known.seen.0) > LEASE {
        return Err(Problem::conflict("sync replica lease expired"));
    }
    Ok(known)
}

/// What is documented of a replica, and what our own hosts need.
#[derive(Serialize, JsonSchema)]
pub(super) struct Both {
    #[serde(flatten)]
    documented: ReplicaEnvelope,
    instance: u64,
    last_number: u64,
    epoch: String,
    #[schemars(with = "u64")]
    cursor_seq: Seq,
}

pub(super) async fn register(
    volume: Volume<WriteVolume>,
    Named(replica): Named,
    Json(asked): Json<RegisterRequest>,
) -> Told<Both> {
    check_id("the replica's id", &replica)?;
    check_id("sandbox_id", asked.sandbox_id.as_deref().unwrap_or_default())?;
    let capabilities = asked.effective();
    let registration = Registration {
        display_name: asked.display_name,
        platform: asked.platform,
        root_path: asked.root_path,
        case_sensitive: capabilities.case_sensitive,
        capabilities,
        take_instance: asked.take_instance,
        sandbox_id: asked.sandbox_id,
    };
    let hot = volume.hot;
    let record = hot.record.clone();
    let both = hot
        .commit(Needs::default(), move |draft| {
            let Registered { instance, last_number, epoch, cursor, .. } =
                draft.ledger.register(&replica, &registration, draft.time);
            draft.note_replica(&replica);
            let known = draft.ledger.replica(&replica).ok_or(UNKNOWN)?;
            let documented = envelope(&record, &draft.ledger, known);
            Ok(Both { documented, instance, last_number, epoch, cursor_seq: cursor })
        })
        .await?;
    ok(both)
}

pub(super) async fn get(
    volume: Volume<ReadVolume>,
    Named(replica): Named,
) -> Told<ReplicaEnvelope> {
    let hot = volume.hot;
    let committed = hot.committed();
    let known = committed.ledger.replica(&replica).ok_or(UNKNOWN)?;
    ok(envelope(&hot.record, &committed.ledger, known))
}

pub(super) async fn unregister(
    volume: Volume<WriteVolume>,
    Named(replica): Named,
) -> Told<Deleted> {
    volume
        .hot
        .commit(Needs::default(), move |draft| {
            if draft.ledger.unregister(&replica) {
                draft.append.forgotten.push(replica.as_str().into());
            }
            Ok(())
        })
        .await?;
    ok(Deleted { deleted: true })
}

pub(super) async fn set_cursor(
    volume: Volume<WriteVolume>,
    Named(replica): Named,
    Json(cursor): Json<SetCursor>,
) -> Told<ReplicaEnvelope> {
    let cursor = Seq(cursor.last_applied_seq);
    let hot = volume.hot;
    let record = hot.record.clone();
    let answer = hot
        .commit(Needs::default(), move |draft| {
            leased(&draft.ledger, &replica, draft.time)?;
            if cursor < draft.retained_after {
                return Err(Problem::reseed(draft.retained_after, draft.ledger.head()));
            }
            draft.ledger.set_cursor(&replica, cursor, draft.time).map_err(|why| match why {
                CursorError::UnknownReplica => UNKNOWN,
                other => Problem::conflict(other.to_string()),
            })?;
            draft.note_replica(&replica);
            let known = draft.ledger.replica(&replica).ok_or(UNKNOWN)?;
            Ok(envelope(&record, &draft.ledger, known))
        })
        .await?;
    ok(answer)
}

/// The length of the JSON, the JSON, and small contents as frames.
pub(super) fn read_submission(
    body: &Bytes,
) -> Result<(Submission, HashMap<ContentId, Bytes>), Problem> {
    let short = || Problem::bad("the body ends within the submission");
    let (length, rest) = body.split_first_chunk::<4>().ok_or_else(short)?;
    let (json, frames) =
        rest.split_at_checked(u32::from_be_bytes(*length) as usize).ok_or_else(short)?;
    let submission = object(json, "submission")?;
    let mut reader = FrameReader::with_max_recipe(0);
    let mut inline = HashMap::new();
    // In pieces, because what the reader holds is moved with every frame.
    for piece in frames.chunks(256 * 1024) {
        reader.push(piece);
        while let Some((id, bytes)) = reader.next_frame().map_err(Problem::bad)? {
            // A recipe is taken only where its chunks are looked for.
            if bytes.len() as u64 > INLINE_LIMIT || matches!(id, ContentId::Recipe(_)) {
                return Err(Problem::BadRequest(format!("the content {id} cannot go inline")));
            }
            inline.insert(id, bytes.into());
        }
    }
    reader.finish().map_err(Problem::bad)?;
    Ok((submission, inline))
}

/// Who submits.
#[derive(Deserialize, JsonSchema)]
pub(super) struct Host {
    /// The instance that the host was given when it registered.
    #[serde(default, deserialize_with = "number")]
    #[schemars(required)]
    instance: Option<i64>,
}

pub(super) async fn submit(
    service: State,
    volume: Volume<WriteVolume>,
    Named(replica): Named,
    Params(host): Params<Host>,
    body: Whole,
) -> Told<Answer> {
    let instance = host.instance.and_then(|number| u64::try_from(number).ok());
    let instance = instance.ok_or_else(|| Problem::bad("instance is required"))?;
    let Volume { caller, hot, .. } = volume;
    let who = (&*replica, instance);
    let committing = begin_submission(&service, &caller.team, &hot, who, body.0).await?;
    ok(committing.done().await?)
}

/// Puts a submission of a replica or a mount in line; what comes of it is what is answered.
pub(super) async fn begin_submission(
    service: &Service,
    team: &str,
    hot: &Hot,
    (replica, instance): (&str, u64),
    body: Bytes,
) -> Result<Committing<Answer>, Problem> {
    let (submission, inline) = read_submission(&body)?;
    drop(body);
    let held = service.holdings.held(team, &submission.changes, &inline).await?;
    let named = submission.changes.iter().filter_map(Change::content).map(|content| content.id);
    let mut brought: Vec<(ContentId, Bytes)> =
        named.filter_map(|id| Some((id, inline.get(&id)?.clone()))).collect();
    brought.sort_unstable_by_key(|(id, _)| *id);
    brought.dedup_by_key(|(id, _)| *id);
    let needs = Needs { repeatable: true, upload: None };
    let replica = replica.to_owned();
    hot.begin(needs, move |draft| {
        let Submitted { entries, conflicts, answer, repeated } = draft
            .ledger
            .submit(&replica, instance, &submission, draft.time, &mut new_id, &|id| {
                held.contains(&id)
            })
            .map_err(Problem::Submit)?;
        if repeated {
            return Ok(answer);
        }
        draft.append.inline.clone_from(&brought);
        draft.note_entries(&entries);
        for conflict in &conflicts {
            let record = draft.conflict_record(conflict, serde_json::Map::new());
            if conflict.change.looks_again {
                // Programs try again what was refused to them.
                draft.tell(record);
            } else {
                draft.append.conflicts.push(record);
            }
        }
        let known = draft.ledger.replica(&replica).ok_or(UNKNOWN)?;
        let (id, last) = (known.id.clone(), known.last.clone());
        draft.append.answers.extend(last.map(|last| (Arc::clone(&id), last)));
        draft.note_replica(&id);
        Ok(answer)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_replicas_without_instances_need_a_lease() {
        let registration = |take_instance| Registration {
            display_name: String::new(),
            platform: String::new(),
            root_path: String::new(),
            case_sensitive: true,
            capabilities: s0_tree::Policy::default().into(),
            take_instance,
            sandbox_id: None,
        };
        let mut ledger = Ledger::new("e".into());
        ledger.register("theirs", &registration(false), Time(0));
        ledger.register("ours", &registration(true), Time(0));
        assert!(leased(&ledger, "theirs", Time(LEASE)).is_ok());
        let late = leased(&ledger, "theirs", Time(LEASE + 1)).unwrap_err();
        assert_eq!(late, Problem::conflict("sync replica lease expired"));
        assert!(leased(&ledger, "ours", Time(LEASE + 1)).is_ok());
        assert_eq!(leased(&ledger, "none", Time(0)).unwrap_err(), UNKNOWN);
        ledger.saw("theirs", Time(1));
        assert!(leased(&ledger, "theirs", Time(LEASE + 1)).is_ok());
    }
}
