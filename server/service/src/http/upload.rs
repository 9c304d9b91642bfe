//! The documented way to write to the journal.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use s0_api::documented::{AppendRequest, AppendResult, ChangeRequest, journal_entry};
use s0_api::sync::Outcome;
use s0_tree::{
    Action, Actor, Change, Content, ContentId, Entry, Hash, Origin, RequestId, Seq, Source,
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::answers::{Told, ok};
use super::asked::{Json, Named, Volume, WriteVolume};
use super::changes::{sha256_of, visible};
use super::replicas::leased;
use super::{State, as_value, check_id, conflicts};
use crate::holdings::{Holdings, Taken};
use crate::journal::RequestRecord;
use crate::ledger::NewConflict;
use crate::problem::Problem;
use crate::service::{Service, now};
use crate::volume::{Draft, Needs, Since, UploadNeeds};

/// How many changes one request may have.
const MAX_CHANGES: usize = 20_000;
/// The largest metadata of one change.
const MAX_NOTE: usize = 4096;
const UNKNOWN: Problem = Problem::NotFound("not found");

/// An answer that is kept as JSON, so that it can be given again word for word.
#[derive(Serialize, JsonSchema)]
#[serde(transparent)]
pub(super) struct Verbatim<T>(#[schemars(with = "T")] Value, #[serde(skip)] PhantomData<T>);

/// A documented change with its content taken in.
#[derive(Debug, Clone)]
struct Prepared {
    /// None for `invalidate`, which changes no tree.
    action: Option<Action>,
    taken: Option<Taken>,
    /// What is to be told with the entry.
    note: Option<Value>,
}

fn invalid(why: impl std::fmt::Display) -> Problem {
    Problem::BadRequest(format!("invalid sync change: {why}"))
}

async fn prepare(
    holdings: &Holdings,
    team: &str,
    held: Option<Content>,
    change: &ChangeRequest,
) -> Result<Prepared, Problem> {
    let bytes = match &change.content_base64 {
        Some(text) => Some(Bytes::from(
            STANDARD.decode(text).map_err(|_| invalid("content_base64 is not base64"))?,
        )),
        None => None,
    };
    let taken = match (bytes, held) {
        (Some(bytes), _) => Some(holdings.take_in_bytes(team, bytes, now()).await?),
        (None, Some(content)) => {
            let sha256 = holdings.whole(team, content).await?;
            Some(Taken { content, inline: None, sha256 })
        }
        (None, None) => None,
    };
    if let Some(taken) = &taken {
        let given = change.content_sha256.as_deref().filter(|text| !text.is_empty());
        if given.is_some_and(|text| !text.eq_ignore_ascii_case(&taken.sha256.to_string())) {
            return Err(invalid("content_sha256 is not the content's"));
        }
        let size = i64::try_from(taken.content.size).unwrap_or(i64::MAX);
        if change.size_bytes.is_some_and(|given| given != size) {
            return Err(invalid("size_bytes is not the content's"));
        }
    }
    let action = change.action(taken.as_ref().map(|taken| taken.content)).map_err(invalid)?;
    let note = change.metadata.clone().filter(|note| !note.is_null());
    if note.as_ref().is_some_and(|note| !note.is_object() || note.to_string().len() > MAX_NOTE) {
        return Err(invalid(format!("metadata is an object of at most {MAX_NOTE} bytes")));
    }
    Ok(Prepared { action, taken, note })
}

async fn prepare_all(
    service: &Service,
    (team, volume): (&str, &str),
    changes: &[ChangeRequest],
) -> Result<Vec<Prepared>, Problem> {
    let mut prepared = Vec::with_capacity(changes.len());
    for change in changes {
        let held = match change.content_ref.as_deref().filter(|text| !text.is_empty()) {
            Some(text) if change.content_base64.is_none() => {
                let id = ContentId::parse(text).ok_or_else(|| invalid("content_ref is no name"))?;
                Some(visible(service, team, volume, id).await?)
            }
            _ => None,
        };
        prepared.push(prepare(&service.holdings, team, held, change).await?);
    }
    Ok(prepared)
}

pub(super) async fn append(
    service: State,
    volume: Volume<WriteVolume>,
    Named(replica): Named,
    Json(request): Json<AppendRequest>,
) -> Told<Verbatim<AppendResult>> {
    if request.request_id.trim().is_empty() {
        return Err(Problem::bad("invalid sync request id"));
    }
    check_id("request_id", &request.request_id)?;
    if request.changes.len() > MAX_CHANGES {
        return Err(Problem::TooLarge("a request has at most 20000 changes"));
    }
    let asked = as_value(&(request.base_seq, &request.changes))?;
    let body = Hash::of(asked.to_string().as_bytes());
    let hot = volume.hot.clone();
    hot.committed().ledger.replica(&replica).ok_or(UNKNOWN)?;
    // What is wrong with the changes is said after what is wrong with the
    // request, as documented.
    let prepared = prepare_all(&service, (volume.team(), volume.id()), &request.changes).await;
    let base = Seq(request.base_seq);
    let upload = Arc::new(Upload { replica, request: request.request_id, base, body, prepared });
    let asked = upload.clone();
    let needs = Needs {
        repeatable: true,
        upload: Some(UploadNeeds {
            replica: upload.replica.clone(),
            request: upload.request.clone(),
            since: Box::new(move |draft| asked.since(draft)),
        }),
    };
    let record = hot.record.clone();
    let answer = hot
        .commit(needs, move |draft| {
            if let Some(known) = upload.check(draft)? {
                return Ok(known);
            }
            let entries = upload.admit(draft)?;
            let names = (record.id.as_str(), record.team.as_str());
            let wholes = upload.wholes();
            let tree = draft.ledger.tree();
            let notes: HashMap<Seq, Value> = draft.append.notes.iter().cloned().collect();
            let documented = |entry: &Entry| {
                let sha256 = |content| sha256_of(&wholes, content);
                let told = journal_entry(entry, names, tree, &sha256);
                told.noted(notes.get(&entry.seq).cloned())
            };
            let conflicts = draft.append.conflicts.iter();
            let result = AppendResult {
                head_seq: draft.ledger.head().0,
                accepted: entries.iter().map(documented).collect(),
                conflicts: conflicts.map(|one| conflicts::as_documented(&record, one)).collect(),
            };
            let answer = as_value(&result)?;
            draft.append.requests.push(RequestRecord {
                replica: upload.replica.clone(),
                request: upload.request.clone(),
                body: upload.body,
                answer: answer.to_string(),
                head: draft.ledger.head(),
            });
            Ok(answer)
        })
        .await?;
    ok(Verbatim(answer, PhantomData))
}

/// A documented upload, ready to be admitted.
struct Upload {
    replica: String,
    request: String,
    base: Seq,
    body: Hash,
    prepared: Result<Vec<Prepared>, Problem>,
}

impl Upload {
    /// The documented checks in their order; the answer, when it was given before.
    fn check(&self, draft: &Draft) -> Result<Option<Value>, Problem> {
        let cursor = draft.ledger.replica(&self.replica).ok_or(UNKNOWN)?.cursor;
        if let Some(known) = &draft.answered {
            if known.body != self.body {
                return Err(Problem::conflict("sync request id reused with different payload"));
            }
            let answer = serde_json::from_str(&known.answer);
            return answer.map(Some).map_err(|error| Problem::Internal(error.to_string()));
        }
        leased(&draft.ledger, &self.replica, draft.time)?;
        if self.base > draft.ledger.head() {
            return Err(Problem::conflict("sync cursor ahead of head"));
        }
        if self.base < draft.retained_after {
            return Err(Problem::reseed(draft.retained_after, draft.ledger.head()));
        }
        if self.base < cursor {
            return Err(Problem::conflict("sync cursor regression"));
        }
        Ok(None)
    }

    /// The entry after which others may have done what matters here: none when
    /// nothing will be admitted, or nothing came after the base.
    fn since(&self, draft: &Draft) -> Option<Seq> {
        let changes = self.prepared.iter().flatten().any(|one| one.action.is_some());
        let wanted = changes && self.base < draft.ledger.head();
        (wanted && matches!(self.check(draft), Ok(None))).then_some(self.base)
    }

    fn admit(&self, draft: &mut Draft) -> Result<Vec<Entry>, Problem> {
        let prepared = self.prepared.as_ref().map_err(Clone::clone)?;
        let actions = prepared.iter().filter_map(|one| one.action.clone());
        let changes: Vec<Change> = actions
            .map(|action| {
                let comes = matches!(
                    action,
                    Action::Create { .. } | Action::Write { .. } | Action::Rename { .. }
                );
                Change { make_parents: comes, ..Change::unstated(action) }
            })
            .collect();
        let taken = prepared.iter().filter_map(|one| one.taken.as_ref());
        let inline = taken.filter_map(|one| Some((one.content.id, one.inline.clone()?)));
        draft.append.inline.extend(inline);
        let sandbox = draft
            .ledger
            .replica(&self.replica)
            .and_then(|known| known.registration.sandbox_id.as_deref())
            .map(Arc::from);
        let (uid, gid) = draft.ledger.owner();
        let origin = Origin {
            source: if sandbox.is_some() { Source::Sandbox } else { Source::Replica },
            actor: Actor { replica: Some(self.replica.as_str().into()), sandbox, process: None },
            request: Some(RequestId(self.request.as_str().into())),
            time: draft.time,
            uid,
            gid,
        };
        let since = std::mem::replace(&mut draft.since, Ok(Since::default()))?;
        let base = self.base;
        let about = |draft: &Draft, conflict: &NewConflict| about(draft, &since, conflict, base);
        let admitted = draft.admit(&origin, &changes, &since.news, &about)?;
        // Directories that were made on the way are entries too; a note is of the
        // change's own.
        let notes = prepared.iter().filter(|one| one.action.is_some()).map(|one| &one.note);
        for (outcome, note) in admitted.outcomes.iter().zip(notes) {
            if let (Outcome::Accepted { seq, .. }, Some(note)) = (outcome, note) {
                draft.append.notes.push((*seq, note.clone()));
            }
        }
        draft.ledger.saw(&self.replica, draft.time);
        draft.note_replica(&self.replica);
        Ok(admitted.entries)
    }

    fn wholes(&self) -> HashMap<ContentId, Hash> {
        let prepared = self.prepared.iter().flatten();
        prepared
            .filter_map(|one| one.taken.as_ref())
            .map(|taken| (taken.content.id, taken.sha256))
            .collect()
    }
}

/// The documented metadata of a conflict.
fn about(draft: &Draft, since: &Since, conflict: &NewConflict, base: Seq) -> Map<String, Value> {
    let mut all = Map::from_iter([("base_seq".into(), json!(base))]);
    let paths = conflict.change.paths().chain([&conflict.path]);
    let Some(entry) = since.latest(paths) else { return all };
    let mut put = |key: &str, value: Value| all.insert(key.into(), value);
    let told = journal_entry(entry, ("", ""), draft.ledger.tree(), &|_| None);
    put("latest_seq", json!(entry.seq));
    put("latest_path", json!(told.path));
    put("latest_event", json!(told.event_type));
    put("latest_source", json!(entry.source));
    if let Some(sandbox) = &entry.actor.sandbox {
        put("latest_sandbox_id", json!(sandbox));
    }
    if let Some(replica) = &entry.actor.replica {
        put("latest_replica_id", json!(replica));
        if let Some(known) = draft.ledger.replica(replica) {
            put("latest_platform", json!(known.registration.platform));
        }
    }
    all
}
