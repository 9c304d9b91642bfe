//! The documented way to read the journal, and to write to it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderMap;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use s0_api::documented::{
    AppendRequest, AppendResult, ChangeList, ChangeRequest, journal_entry, slashed,
};
use s0_tree::{
    Action, Actor, Change, Content, ContentId, Entry, Hash, News, Origin, RequestId, Seq, Source,
    Touch, portable_issues,
};
use serde_json::{Map, Value, json};
use tokio::time::{Instant, timeout_at};

use super::replicas::{as_capabilities, leased};
use super::{Answered, At, Params, State, Whole, as_value, conflicts, ok, ranges};
use crate::holdings::{Holdings, Taken};
use crate::journal::RequestRecord;
use crate::ledger::NewConflict;
use crate::problem::Problem;
use crate::service::{Caller, Service, now};
use crate::volume::{Draft, Hot, Needs};

/// The longest that a request for entries waits.
const MAX_WAIT: u64 = 55_000;

fn sha256_of(wholes: &HashMap<ContentId, Hash>, content: Content) -> Option<Hash> {
    match content.id {
        ContentId::Chunk(hash) => Some(hash),
        ContentId::Recipe(_) => wholes.get(&content.id).copied(),
    }
}

pub(super) async fn list(
    service: State,
    caller: Caller,
    At(id): At<String>,
    params: Params,
) -> Answered {
    caller.may("sandboxvolume:read")?;
    let after = u64::try_from(params.number("after")?.unwrap_or(0)).unwrap_or(0);
    let (after, limit) = (Seq(after), params.limit()?);
    let wait = params.number("wait_ms")?.and_then(|wait| u64::try_from(wait).ok()).unwrap_or(0);
    let hot = service.volume(&caller, &id).await?;
    let mut changed = hot.subscribe();
    let mut closing = service.closing.clone();
    let deadline = Instant::now() + Duration::from_millis(wait.min(MAX_WAIT));
    let mut committed = changed.borrow_and_update().clone();
    while committed.head() <= after && wait > 0 && !hot.is_gone() && !*closing.borrow() {
        let news = async {
            tokio::select! { _ = changed.changed() => {}, _ = closing.changed() => {} }
        };
        if timeout_at(deadline, news).await.is_err() {
            break;
        }
        committed = changed.borrow_and_update().clone();
    }
    if after < committed.retained_after {
        return Err(Problem::reseed(committed.retained_after, committed.head()));
    }
    let entries = entries(&service, &hot, after, limit, committed.head()).await?;
    if entries.first().is_some_and(|first| first.seq != after.next()) {
        // Let go between the look at the floor and the look at the journal.
        return Err(Problem::reseed(Seq(entries[0].seq.0 - 1), committed.head()));
    }
    let tree = committed.ledger.tree();
    // A link brings the content of the file that it names.
    let mut contents = Vec::new();
    for entry in &entries {
        let named = || tree.node(entry.node()).and_then(s0_tree::Node::content);
        contents.extend(entry.content().or_else(named));
    }
    let wholes = service.holdings.wholes(&caller.team, contents).await;
    let names = (id.as_str(), caller.team.as_str());
    let changes = entries
        .iter()
        .map(|entry| journal_entry(entry, names, tree, &|content| sha256_of(&wholes, content)))
        .collect();
    ok(&ChangeList {
        head_seq: committed.head().0,
        retained_after_seq: committed.retained_after.0,
        changes,
    })
}

async fn entries(
    service: &Service,
    hot: &Hot,
    after: Seq,
    limit: usize,
    head: Seq,
) -> Result<Vec<Arc<Entry>>, Problem> {
    let mut entries: Vec<Arc<Entry>> = match hot.shared.recent(after, limit) {
        Some(recent) => recent.iter().map(|published| published.entry.clone()).collect(),
        None if after >= head => Vec::new(),
        None => {
            let stored = service.journal.entries(&hot.record.id, after, limit).await?;
            stored.into_iter().map(Arc::new).collect()
        }
    };
    entries.retain(|entry| entry.seq <= head);
    Ok(entries)
}

pub(super) async fn payload(
    service: State,
    caller: Caller,
    At(id): At<String>,
    params: Params,
    headers: HeaderMap,
) -> Answered {
    caller.may("sandboxvolume:read")?;
    let asked = params.text("content_ref").and_then(ContentId::parse);
    let asked = asked.ok_or_else(|| Problem::bad("invalid sync replay payload reference"))?;
    service.volume(&caller, &id).await?;
    let content = visible(&service, &caller, &id, asked).await?;
    ranges::answer(&service.holdings, &caller.team, content, &headers).await
}

/// The content of a reference, when the Volume names it.
async fn visible(
    service: &Service,
    caller: &Caller,
    volume: &str,
    asked: ContentId,
) -> Result<Content, Problem> {
    let mut candidates: Vec<ContentId> = vec![asked];
    if let ContentId::Chunk(whole) = asked {
        let same = service.journal.contents_of_whole(&caller.team, whole).await?;
        candidates.extend(same.into_iter().map(|content| content.id));
    }
    let named = service.journal.named(volume, candidates).await?;
    for id in named {
        if let Some(content) = service.holdings.content(&caller.team, id).await? {
            return Ok(content);
        }
    }
    Err(Problem::NotFound("not found"))
}

/// A documented change with its content taken in.
#[derive(Debug, Clone)]
struct Prepared {
    /// None for `invalidate`, which changes no tree.
    action: Option<Action>,
    taken: Option<Taken>,
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
    Ok(Prepared { action, taken })
}

async fn prepare_all(
    service: &Service,
    caller: &Caller,
    volume: &str,
    changes: &[ChangeRequest],
) -> Result<Vec<Prepared>, Problem> {
    let mut prepared = Vec::with_capacity(changes.len());
    for change in changes {
        let held = match change.content_ref.as_deref().filter(|text| !text.is_empty()) {
            Some(text) if change.content_base64.is_none() => {
                let id = ContentId::parse(text).ok_or_else(|| invalid("content_ref is no name"))?;
                Some(visible(service, caller, volume, id).await?)
            }
            _ => None,
        };
        prepared.push(prepare(&service.holdings, &caller.team, held, change).await?);
    }
    Ok(prepared)
}

pub(super) async fn append(
    service: State,
    caller: Caller,
    At((id, replica)): At<(String, String)>,
    body: Whole,
) -> Answered {
    caller.may("sandboxvolume:write")?;
    let request: AppendRequest = body.json()?;
    drop(body);
    if request.request_id.trim().is_empty() {
        return Err(Problem::bad("invalid sync request id"));
    }
    let asked = as_value(&(request.base_seq, &request.changes))?;
    let body = Hash::of(asked.to_string().as_bytes());
    let hot = service.volume(&caller, &id).await?;
    // What is wrong with the changes is said after what is wrong with the
    // request, as documented.
    let prepared = prepare_all(&service, &caller, &id, &request.changes).await;
    let base = Seq(request.base_seq);
    let needs = Needs {
        request: Some((replica.clone(), request.request_id.clone())),
        entries_after: Some(base),
    };
    let upload = Upload { replica, request: request.request_id, base, body, prepared };
    let record = hot.record.clone();
    let answer = hot
        .commit(needs, move |draft| {
            if let Some(known) = upload.check(draft)? {
                return Ok(known);
            }
            let admitted = upload.admit(draft)?;
            let names = (record.id.as_str(), record.team.as_str());
            let wholes = upload.wholes();
            let tree = draft.ledger.tree();
            let documented = |entry: &Entry| {
                journal_entry(entry, names, tree, &|content| sha256_of(&wholes, content))
            };
            let conflicts = draft.append.conflicts.iter();
            let result = AppendResult {
                head_seq: draft.ledger.head().0,
                accepted: admitted.iter().map(documented).collect(),
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
    ok(&answer)
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
        let unknown = Problem::NotFound("not found");
        let cursor = draft.ledger.replica(&self.replica).ok_or(unknown)?.cursor;
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
        let news = self.news(&draft.entries);
        let base = self.base;
        let about = |draft: &Draft, conflict: &NewConflict| about(draft, conflict, base);
        let admitted = draft.admit(&origin, &changes, &news, &about)?;
        draft.ledger.saw(&self.replica, draft.time);
        draft.note_replica(&self.replica);
        Ok(admitted.entries)
    }

    /// What others did since the base.
    fn news(&self, entries: &[Arc<Entry>]) -> News {
        let mut news = News::default();
        for entry in entries {
            if entry.actor.replica.as_deref() == Some(&self.replica) {
                continue;
            }
            let gone = matches!(entry.op, s0_tree::Op::Remove { .. });
            if let Some(old) = &entry.old_path {
                news.note(Touch { seq: entry.seq, path: old.clone(), gone: true });
            }
            news.note(Touch { seq: entry.seq, path: entry.path.clone(), gone });
        }
        news
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
fn about(draft: &Draft, conflict: &NewConflict, base: Seq) -> Map<String, Value> {
    let mut all = Map::from_iter([("base_seq".into(), json!(base))]);
    let mut put = |key: &str, value: Value| all.insert(key.into(), value);
    if conflict.reason.is_about_names() {
        let policy = draft.ledger.policy();
        let path = conflict.change.path();
        let name = path.name();
        let issues = name.iter().flat_map(|name| portable_issues(name.as_str(), policy));
        let issues: Vec<Value> = issues
            .map(|issue| json!({"code": issue.code, "path": slashed(path), "segment": issue.segment}))
            .collect();
        put("issues", json!(issues));
        put("capabilities", json!(as_capabilities(policy)));
    }
    let latest = conflict.existing.map(|(_, version)| version);
    let touches = |entry: &&Arc<Entry>| match latest {
        Some(version) => entry.seq == version,
        None => conflict
            .change
            .paths()
            .any(|path| entry.path == *path || entry.old_path.as_ref() == Some(path)),
    };
    if let Some(entry) = draft.entries.iter().rev().find(touches) {
        let sha256 = |_| None;
        let told = journal_entry(entry, ("", ""), draft.ledger.tree(), &sha256);
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
    }
    all
}
