//! The documented way to read the journal.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderMap;
use s0_api::documented::{ChangeList, journal_entry};
use s0_tree::{Content, ContentId, Entry, Hash, Seq};
use tokio::time::{Instant, timeout_at};

use super::{Answered, At, Params, State, ok, ranges};
use crate::problem::Problem;
use crate::service::{Caller, Service};
use crate::volume::Hot;

/// The longest that a request for entries waits.
const MAX_WAIT: u64 = 55_000;

pub(super) fn sha256_of(wholes: &HashMap<ContentId, Hash>, content: Content) -> Option<Hash> {
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

/// Entries after `after`, at most `limit`, none above `head`.
pub(super) async fn entries(
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
pub(super) async fn visible(
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
