//! The documented way to read the journal.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderMap;
use s0_api::documented::{ChangeList, journal_entry};
use s0_tree::{Content, ContentId, Entry, Hash, Seq};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};

use super::State;
use super::answers::{Told, ok};
use super::asked::{Params, ReadVolume, Volume, limited, number};
use super::ranges::{self, Ranged};
use crate::problem::Problem;
use crate::service::Service;
use crate::volume::Hot;

/// The longest that a request for entries waits.
const MAX_WAIT: u64 = 55_000;

pub(super) fn sha256_of(wholes: &HashMap<ContentId, Hash>, content: Content) -> Option<Hash> {
    match content.id {
        ContentId::Chunk(hash) => Some(hash),
        ContentId::Recipe(_) => wholes.get(&content.id).copied(),
    }
}

/// Which entries.
#[derive(Deserialize, JsonSchema)]
pub(super) struct Which {
    /// Those after this seq; from the first when absent.
    #[serde(default, deserialize_with = "number")]
    after: Option<i64>,
    /// At most how many: 256 when absent, at most 2048.
    #[serde(default, deserialize_with = "number")]
    limit: Option<i64>,
    /// For how many milliseconds to wait when there are none, at most 55 000.
    #[serde(default, deserialize_with = "number")]
    wait_ms: Option<i64>,
    /// Whether symbolic links are known, if this is `true`; else one that comes is an
    /// `invalidate`.
    symlinks: Option<String>,
}

pub(super) async fn list(
    service: State,
    volume: Volume<ReadVolume>,
    Params(which): Params<Which>,
) -> Told<ChangeList> {
    let positive = |number: Option<i64>| number.and_then(|it| u64::try_from(it).ok()).unwrap_or(0);
    let (after, limit) = (Seq(positive(which.after)), limited(which.limit));
    let wait = positive(which.wait_ms);
    let links = which.symlinks.as_deref() == Some("true");
    let Volume { caller, hot, .. } = volume;
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
    let until = entries.last().map_or(after, |entry| entry.seq);
    let mut notes = service.journal.notes(&hot.record.id, after, until).await?;
    let names = (hot.record.id.as_str(), caller.team.as_str());
    let changes = entries
        .iter()
        .map(|entry| {
            let sha256 = |content| sha256_of(&wholes, content);
            let told = journal_entry(entry, names, tree, &sha256);
            let told = told.noted(notes.remove(&entry.seq));
            if links { told } else { told.without_links() }
        })
        .collect();
    ok(ChangeList {
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

/// Which content.
#[derive(Deserialize, JsonSchema)]
pub(super) struct Payload {
    /// `sha256:` and 64 digits, as an entry or a conflict names it.
    #[schemars(required)]
    content_ref: Option<String>,
}

pub(super) async fn payload(
    service: State,
    volume: Volume<ReadVolume>,
    Params(asked): Params<Payload>,
    headers: HeaderMap,
) -> Result<Ranged, Problem> {
    let asked = asked.content_ref.as_deref().and_then(ContentId::parse);
    let asked = asked.ok_or_else(|| Problem::bad("invalid sync replay payload reference"))?;
    let content = visible(&service, volume.team(), volume.id(), asked).await?;
    ranges::answer(&service.holdings, volume.team(), content, &headers).await
}

/// The content of a reference, when the Volume names it.
pub(super) async fn visible(
    service: &Service,
    team: &str,
    volume: &str,
    asked: ContentId,
) -> Result<Content, Problem> {
    let mut candidates: Vec<ContentId> = vec![asked];
    if let ContentId::Chunk(whole) = asked {
        let same = service.journal.contents_of_whole(team, whole).await?;
        candidates.extend(same.into_iter().map(|content| content.id));
    }
    let named = service.journal.named(volume, candidates).await?;
    for id in named {
        if let Some(content) = service.holdings.content(team, id).await? {
            return Ok(content);
        }
    }
    Err(Problem::NotFound("not found"))
}
