//! The stream of events.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use axum::response::IntoResponse;
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use s0_api::sync::StreamEvent;
use s0_tree::{ContentId, Entry, Policy, Quota, Seq};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::Instant;

use super::State;
use super::answers::Answered;
use super::asked::{Params, ReadVolume, Volume, number};
use crate::caller::Caller;
use crate::journal::Kept;
use crate::metrics::Open;
use crate::problem::Problem;
use crate::service::Service;
use crate::volume::{Committed, Hot, Published, event_bytes, publish};

/// How often a stream says that it is still there, and its token is looked at.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// How many entries are sent at once, from memory and from the journal.
const RECENT: usize = 256;
const STORED: usize = 64;

/// From where to read.
#[derive(Deserialize, JsonSchema)]
pub(super) struct From {
    /// After this seq; from the first entry when absent. `Last-Event-ID` takes its place.
    #[serde(default, deserialize_with = "number")]
    after: Option<i64>,
    /// The epoch that the reader knows.
    epoch: Option<String>,
}

pub(super) async fn events(
    service: State,
    volume: Volume<ReadVolume>,
    Params(from): Params<From>,
    headers: HeaderMap,
) -> Answered {
    // A reader that reconnects by itself repeats its first address, and says
    // where it was in the header.
    let resumed = headers.get("last-event-id").and_then(|value| value.to_str().ok());
    let after = match resumed.and_then(|text| text.trim().parse().ok()) {
        Some(seq) => Seq(seq),
        None => Seq(u64::try_from(from.after.unwrap_or(0)).map_err(Problem::bad)?),
    };
    let hot = volume.hot;
    let mut committed = hot.subscribe();
    let now = committed.borrow_and_update().clone();
    let (head, epoch) = (now.head(), now.ledger.epoch());
    if after > head || from.epoch.as_deref().is_some_and(|known| known != epoch) {
        return Err(Problem::epoch_changed(epoch, head));
    }
    if after < now.retained_after {
        return Err(Problem::reseed(now.retained_after, head));
    }
    let closing = service.closing.clone();
    let (service, caller) = (service.0, volume.caller);
    let open = service.metrics.stream();
    let (at, told, checked) = (after, None, Instant::now());
    let reader =
        Reader { service, caller, checked, hot, committed, closing, at, told, _open: open };
    let body = stream::unfold(Some(reader), |reader| async {
        let mut reader = reader?;
        match reader.next().await {
            Ok(Some(piece)) => Some((Ok(piece), Some(reader))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    });
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    Ok((headers, Body::from_stream(body)).into_response())
}

fn head_event(committed: &Committed) -> Bytes {
    let (head, epoch) = (committed.head(), committed.ledger.epoch().into());
    let (policy, quota) = terms(committed);
    event_bytes(None, &StreamEvent::Head { head, epoch, policy, quota })
}

/// What a Volume takes.
fn terms(committed: &Committed) -> (Policy, Quota) {
    (committed.ledger.policy(), committed.ledger.quota())
}

/// One who reads along. It keeps nothing but its place: what it has not read
/// yet lies in the Volume's ring, or in the journal.
struct Reader {
    service: Arc<Service>,
    caller: Caller,
    /// When the token was last looked at.
    checked: Instant,
    hot: Arc<Hot>,
    committed: watch::Receiver<Arc<Committed>>,
    closing: watch::Receiver<bool>,
    at: Seq,
    /// What it has been told of what the Volume takes.
    told: Option<(Policy, Quota)>,
    _open: Open,
}

impl Reader {
    /// The next piece of the stream; none when it ends.
    async fn next(&mut self) -> Kept<Option<Bytes>> {
        loop {
            if self.hot.is_gone() || *self.closing.borrow() {
                return Ok(None);
            }
            if self.checked.elapsed() >= KEEPALIVE {
                if !self.service.is_good(&self.caller).await {
                    return Ok(None);
                }
                self.checked = Instant::now();
            }
            let now = self.committed.borrow_and_update().clone();
            if self.told.replace(terms(&now)) != Some(terms(&now)) {
                return Ok(Some(head_event(&now)));
            }
            if self.at < now.head() {
                return self.news(&now).await;
            }
            let changed = tokio::select! {
                changed = self.committed.changed() => changed,
                changed = self.closing.changed() => changed,
                () = tokio::time::sleep(KEEPALIVE) => {
                    return Ok(Some(Bytes::from_static(b":\n\n")));
                }
            };
            if changed.is_err() {
                return Ok(None);
            }
        }
    }

    async fn news(&mut self, now: &Committed) -> Kept<Option<Bytes>> {
        let published = match self.hot.shared.recent(self.at, RECENT) {
            Some(recent) => recent,
            None => stored(&self.service, &self.hot, self.at, now.head()).await?,
        };
        let mut piece = BytesMut::new();
        for published in published {
            // A gap means that what comes next was let go meanwhile. The reader
            // comes again and is told so.
            if published.entry.seq != self.at.next() {
                return Ok((!piece.is_empty()).then(|| piece.freeze()));
            }
            self.at = published.entry.seq;
            piece.extend_from_slice(&published.event);
        }
        if piece.is_empty() {
            return Ok(None);
        }
        if self.at >= now.head() {
            let now = self.committed.borrow_and_update().clone();
            if self.at == now.head() {
                piece.extend_from_slice(&head_event(&now));
            }
        }
        Ok(Some(piece.freeze()))
    }
}

/// Entries that are not in memory any more, up to the head.
pub(super) async fn stored(
    service: &Service,
    hot: &Hot,
    after: Seq,
    head: Seq,
) -> Kept<Vec<Arc<Published>>> {
    let mut entries = service.journal.entries(&hot.record.id, after, STORED).await?;
    entries.retain(|entry| entry.seq <= head);
    let small: Vec<ContentId> = entries
        .iter()
        .filter_map(Entry::content)
        .filter(s0_tree::Content::is_inline)
        .map(|content| content.id)
        .collect();
    let inline = service.journal.inline(&hot.record.team, small).await?;
    let inline = inline.into_iter().collect();
    Ok(entries.into_iter().map(|entry| Arc::new(publish(entry, &inline))).collect())
}
