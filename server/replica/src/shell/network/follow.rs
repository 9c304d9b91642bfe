//! The Volume's tree, and the journal's entries as they come.

use std::sync::Arc;

use futures_util::{FutureExt, StreamExt};
use s0_api::Error;
use s0_api::sync::StreamEvent;
use s0_tree::{Entry, Seq, Tree};
use tokio::sync::{Semaphore, oneshot};

use super::Session;
use crate::engine::Event;
use crate::shell::run::Message;

/// The most entries, and bytes that came with them, that are handed on at once.
const BATCH: (usize, usize) = (1024, 4 << 20);
/// The most entries that are read again at a start, to know whose they are.
const MOST_SINCE: u64 = 100_000;
/// Batches of entries that may wait for the engine.
const BATCHES_AHEAD: usize = 4;

/// A tree that was asked for before the engine did.
pub(super) type Ahead = oneshot::Receiver<Result<(String, Tree), Error>>;

pub(super) async fn fetch_tree(session: Session, ahead: Option<Ahead>, since: Option<Seq>) {
    let fetched = async {
        let ahead = match ahead {
            Some(ahead) => ahead.await.ok(),
            None => None,
        };
        let (epoch, tree) = match ahead {
            Some(fetched) => fetched?,
            None => session.client.tree(&session.volume).await?,
        };
        let since = match since {
            Some(since) => entries_between(&session, &epoch, since, tree.head()).await?,
            None => None,
        };
        Ok((epoch, tree, since))
    };
    match fetched.await {
        Ok((epoch, tree, since)) => {
            session.epoch.send_replace(epoch.clone());
            session.tell(Event::Tree { epoch, tree, since });
        }
        Err(error) => session.end(&error),
    }
}

/// The entries after `after` up to `head`, if they are retained and not too many to
/// be held at once.
async fn entries_between(
    session: &Session,
    epoch: &str,
    after: Seq,
    head: Seq,
) -> Result<Option<Vec<Entry>>, Error> {
    let mut entries = Vec::new();
    if after >= head {
        return Ok(Some(entries));
    }
    if head.0 - after.0 > MOST_SINCE {
        return Ok(None);
    }
    let mut stream = match session.client.events(&session.volume, after, Some(epoch)).await {
        Ok(stream) => stream,
        Err(Error::ReseedRequired { .. } | Error::EpochChanged { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    while let Some(event) = stream.next().await {
        match event? {
            StreamEvent::Entry { entry, .. } => {
                let last = entry.seq >= head;
                entries.push(*entry);
                if last {
                    return Ok(Some(entries));
                }
            }
            StreamEvent::Head { .. } => {}
        }
    }
    Err(Error::Unavailable("the stream of events ended".into()))
}

/// Hands on the entries after `after` as they come.
pub(super) async fn follow(session: Session, after: Seq) {
    let epoch = session.epoch.borrow().clone();
    let mut stream = match session.client.events(&session.volume, after, Some(&epoch)).await {
        Ok(stream) => stream,
        Err(Error::ReseedRequired { .. } | Error::EpochChanged { .. }) => {
            return session.tell(Event::CannotFollow);
        }
        Err(error) => return session.end(&error),
    };
    // The engine may be busy with the disk; what it has not taken waits in the
    // service, not here.
    let ahead = Arc::new(Semaphore::new(BATCHES_AHEAD));
    loop {
        let (mut entries, mut bytes) = (Vec::new(), 0);
        let mut next = stream.next().await;
        let failed = loop {
            match next {
                Some(Ok(StreamEvent::Entry { entry, text })) => {
                    bytes += text.as_ref().map_or(0, String::len) + 256;
                    entries.push((*entry, text.map(|text| Arc::from(text.into_bytes()))));
                }
                Some(Ok(StreamEvent::Head { policy, quota, .. })) => {
                    session.tell(Event::Terms(policy, quota));
                }
                Some(Err(error)) => break Some(error),
                None => break Some(Error::Unavailable("the stream of events ended".into())),
            }
            if entries.len() >= BATCH.0 || bytes >= BATCH.1 {
                break None;
            }
            match stream.next().now_or_never() {
                Some(more) => next = more,
                None => break None,
            }
        };
        if !entries.is_empty() {
            let Ok(permit) = ahead.clone().acquire_owned().await else { return };
            session.was_useful();
            let event = Event::Entries(entries);
            let _ = session.out.send(Message::Network(session.number, event, Some(permit)));
        }
        match failed {
            None => {}
            Some(Error::ReseedRequired { .. } | Error::EpochChanged { .. }) => {
                return session.tell(Event::CannotFollow);
            }
            Some(error) => return session.end(&error),
        }
    }
}
