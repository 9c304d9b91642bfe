//! Contents on their way out: of files that are too large to go with a submission.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::sync::Arc;

use bytes::Bytes;
use s0_tree::{Chunker, Content, ContentBuilder, ContentId, Recipe, TreePath};
use tokio::sync::mpsc;
use tokio::time::{Duration, sleep};

use super::Session;
use super::transfer::{Broken, PIECE};
use crate::disk::Spot;
use crate::engine::{Event, Hint};
use crate::shell::access::RootAccess;

/// The pause after an upload that the network broke off.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// How many chunks the service is asked about at once.
const ASKED_AT_ONCE: usize = 10_000;

/// A file whose content the service must have.
pub(super) struct Offered {
    pub(super) path: TreePath,
    pub(super) content: Content,
}

/// Whether several such files go up in one request.
pub(super) fn is_together(content: Content) -> bool {
    content.size <= PIECE as u64
}

/// Uploads files of a moderate size, as many in one request as wait and are not too
/// much to be held: each request is a round trip, and a wait for the service's disk.
pub(super) async fn upload_together(session: Session, mut queue: mpsc::UnboundedReceiver<Offered>) {
    let mut requests = tokio::task::JoinSet::new();
    while let Some(first) = queue.recv().await {
        let Some(turn) = session.turn(PIECE as u64).await else { return };
        let mut bytes = first.content.size;
        let mut batch = vec![first];
        while bytes < PIECE as u64 {
            let Ok(next) = queue.try_recv() else { break };
            bytes += next.content.size;
            batch.push(next);
        }
        let session = session.clone();
        requests.spawn(async move {
            send_together(&session, batch).await;
            drop(turn);
        });
        while requests.try_join_next().is_some() {}
    }
}

async fn send_together(session: &Session, batch: Vec<Offered>) {
    let (access, files) = (session.access.clone(), batch);
    let read = tokio::task::spawn_blocking(move || {
        let cut = |it: Offered| {
            let done = cut(&access, &it.path, it.content);
            (it, done)
        };
        files.into_iter().map(cut).collect::<Vec<_>>()
    });
    // It ends when everything does.
    let Ok(read) = read.await else { return };
    let (mut chunks, mut recipes) = (BTreeMap::new(), BTreeMap::new());
    let mut whole = Vec::new();
    for (it, done) in read {
        match done {
            Ok((cut, recipe)) => {
                chunks.extend(cut);
                if let ContentId::Recipe(_) = it.content.id {
                    recipes.insert(it.content.id, Bytes::from(recipe.encode()));
                }
                whole.push(it);
            }
            Err(error) => ended(session, it.path, it.content, Err(error)).await,
        }
    }
    // A recipe after its chunks.
    let frames = chunks.into_iter().chain(recipes).collect();
    let done = send_missing(session, frames).await;
    if done.is_err() {
        sleep(AFTER_FAILURE).await;
    }
    for Offered { path, content } in whole {
        match &done {
            Ok(()) => session.tell(Event::Uploaded(content.id, true)),
            Err(error) => {
                tracing::info!(%path, %error, "an upload broke off");
                session.tell(Event::Uploaded(content.id, false));
            }
        }
    }
}

type Cut = (Vec<(ContentId, Bytes)>, Recipe);

/// Reads a file whole, if it still holds what it is thought to.
fn cut(access: &RootAccess, path: &TreePath, content: Content) -> Result<Cut, Broken> {
    let mut file = access.open(&Spot::Path(path.clone()))?;
    let (mut builder, mut chunks) = (ContentBuilder::default(), Vec::new());
    for chunk in Chunker::new((&mut file).take(content.size.saturating_add(1))) {
        let chunk = chunk?;
        builder.push(chunk.at.hash, chunk.bytes.len());
        chunks.push((ContentId::Chunk(chunk.at.hash), Bytes::from(chunk.bytes)));
    }
    let (read, recipe) = builder.finish();
    if read != content || !file.is_unchanged()? {
        return Err(Broken::Changed);
    }
    Ok((chunks, recipe))
}

/// Uploads a file, if it still holds what it is thought to.
pub(super) async fn upload(
    session: Session,
    path: TreePath,
    content: Content,
    recipe: Option<Arc<Recipe>>,
) {
    let Some(_turn) = session.turn(content.size).await else { return };
    let done = send(&session, path.clone(), content, recipe).await;
    ended(&session, path, content, done).await;
}

/// Tells how an upload ended.
async fn ended(session: &Session, path: TreePath, content: Content, done: Result<(), Broken>) {
    let is_done = done.is_ok();
    if let Err(error) = done {
        tracing::info!(%path, %error, "an upload broke off");
        if matches!(error, Broken::Network(_)) {
            sleep(AFTER_FAILURE).await;
        } else {
            // It is not what it was thought to be, or cannot be read. The watcher
            // may have said nothing, or may have said it before the last look.
            session.tell(Event::Touched(vec![(path, Hint::Unsettled)]));
        }
    }
    session.tell(Event::Uploaded(content.id, is_done));
}

/// Looks first which chunks there are, and then reads again those that the service
/// lacks: after a small change these are few.
async fn send(
    session: &Session,
    path: TreePath,
    content: Content,
    recipe: Option<Arc<Recipe>>,
) -> Result<(), Broken> {
    let access = session.access.clone();
    let looked = tokio::task::spawn_blocking(move || {
        let mut file = access.open(&Spot::Path(path))?;
        if let Some(recipe) = recipe {
            return if file.stat().size == content.size {
                Ok((file, recipe))
            } else {
                Err(Broken::Changed)
            };
        }
        let mut builder = ContentBuilder::default();
        for chunk in Chunker::new((&mut file).take(content.size.saturating_add(1))) {
            let chunk = chunk?;
            builder.push(chunk.at.hash, chunk.bytes.len());
        }
        let (read, recipe) = builder.finish();
        if read != content || !file.is_unchanged()? {
            return Err(Broken::Changed);
        }
        Ok((file, Arc::new(recipe)))
    });
    let (mut file, recipe) = looked.await??;
    let mut ids: Vec<_> = recipe.chunks.iter().map(|it| ContentId::Chunk(it.hash)).collect();
    ids.sort_unstable();
    ids.dedup();
    let mut missing = BTreeSet::new();
    for some in ids.chunks(ASKED_AT_ONCE) {
        missing.extend(session.client.missing(&session.volume, some).await?);
    }
    let mut places = Vec::new();
    let mut offset = 0;
    for chunk in &recipe.chunks {
        let id = ContentId::Chunk(chunk.hash);
        if missing.remove(&id) {
            places.push((id, offset, chunk.size as usize));
        }
        offset += u64::from(chunk.size);
    }
    let mut places = places.into_iter().peekable();
    while places.peek().is_some() {
        let (mut some, mut bytes) = (Vec::new(), 0);
        while bytes < PIECE
            && let Some(place) = places.next()
        {
            bytes += place.2;
            some.push(place);
        }
        let read = tokio::task::spawn_blocking(move || {
            let mut piece = Vec::with_capacity(some.len());
            for (id, offset, size) in some {
                let bytes = file.read_range(offset, size)?;
                // Exactly what was hashed goes up, whoever writes meanwhile.
                if s0_tree::Hash::of(&bytes) != id.hash() {
                    return Err(Broken::Changed);
                }
                piece.push((id, Bytes::from(bytes)));
            }
            Ok((file, piece))
        });
        let piece;
        (file, piece) = read.await??;
        session.client.upload(&session.volume, piece).await?;
    }
    if matches!(content.id, ContentId::Recipe(_)) {
        let recipe = (content.id, Bytes::from(recipe.encode()));
        send_missing(session, vec![recipe]).await?;
    }
    Ok(())
}

async fn send_missing(session: &Session, mut piece: Vec<(ContentId, Bytes)>) -> Result<(), Broken> {
    let ids: Vec<_> = piece.iter().map(|(id, _)| *id).collect();
    if ids.is_empty() {
        return Ok(());
    }
    let missing: BTreeSet<_> =
        session.client.missing(&session.volume, &ids).await?.into_iter().collect();
    piece.retain(|(id, _)| missing.contains(id));
    if !piece.is_empty() {
        session.client.upload(&session.volume, piece).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::disk::{Marker, RootDisk};
    use crate::shell::run::Message;

    #[tokio::test]
    async fn a_file_that_is_not_what_it_was_is_looked_at_again() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("emptied"), "").unwrap();
        let (out, inbox) = std::sync::mpsc::channel();
        let session = Session {
            number: 1,
            // Nothing is sent of a file that has nothing to send.
            client: s0_api::Client::new("http://127.0.0.1:9", "t").unwrap(),
            volume: "v".into(),
            replica: "r".into(),
            instance: 1,
            epoch: tokio::sync::watch::Sender::default(),
            access: RootDisk::open(dir.path(), Marker::Create).unwrap().access(),
            out,
            lost: mpsc::unbounded_channel().0,
            large: Arc::new(tokio::sync::Semaphore::new(16)),
            useful: Arc::default(),
        };
        for name in ["emptied", "removed"] {
            let path = TreePath::new(name).unwrap();
            let content = Content::of(&[7; 100_000]);
            for together in [false, true] {
                if together {
                    let path = path.clone();
                    send_together(&session, vec![Offered { path, content }]).await;
                } else {
                    upload(session.clone(), path.clone(), content, None).await;
                }
                let told: Vec<_> = inbox.try_iter().collect();
                let [Message::Network(_, first, _), Message::Network(_, last, _)] = &told[..]
                else {
                    panic!("{} messages about {name}", told.len());
                };
                assert!(matches!(first, Event::Touched(paths) if paths[0].0 == path), "{name}");
                assert!(matches!(last, Event::Uploaded(_, false)), "{name}");
            }
        }
    }
}
