//! Contents on their way, in and out. Large ones are never held whole.

use std::collections::HashMap;
use std::io::Read as _;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use s0_api::Error;
use s0_tree::{Chunker, Content, ContentBuilder, ContentId, Hash, MAX_CHUNK, Recipe, TreePath};
use tokio::sync::mpsc;
use tokio::time::{Duration, sleep};

use super::Session;
use crate::disk::{DiskError, IntentId, Spot};
use crate::engine::{Event, Fetched, Hint};
use crate::shell::access::{FileReader, PartWriter};

/// The most small contents, and bytes of them, in one request.
const SMALL_AT_ONCE: (usize, u64) = (1000, 8 << 20);
/// Requests for small contents that are under way at one time.
const SMALL_REQUESTS: usize = 4;
/// The bytes of a large content that are held at one time.
const PIECE: usize = 2 << 20;
/// Chunks larger than this have no room in a part's buffer beside others.
const CHUNKS_IN_PIECE: usize = PIECE / MAX_CHUNK;
/// The pause after an upload that the network broke off.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// A small content that an intent waits for.
pub(super) struct Wanted {
    pub(super) slot: IntentId,
    pub(super) content: Content,
}

/// Fetches small contents, as many in one request as have been asked for.
pub(super) async fn fetch_small(session: Session, mut queue: mpsc::UnboundedReceiver<Wanted>) {
    let slots = Arc::new(tokio::sync::Semaphore::new(SMALL_REQUESTS));
    let mut requests = tokio::task::JoinSet::new();
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let Some(first) = queue.recv().await else { return };
        let mut bytes = first.content.size;
        let mut batch = vec![first];
        while batch.len() < SMALL_AT_ONCE.0 && bytes < SMALL_AT_ONCE.1 {
            let Ok(next) = queue.try_recv() else { break };
            bytes += next.content.size;
            batch.push(next);
        }
        let session = session.clone();
        requests.spawn(async move {
            fetch_batch(&session, batch).await;
            drop(slot);
        });
        while requests.try_join_next().is_some() {}
    }
}

async fn fetch_batch(session: &Session, batch: Vec<Wanted>) {
    let mut waiting: HashMap<ContentId, Vec<IntentId>> = HashMap::new();
    for wanted in batch {
        waiting.entry(wanted.content.id).or_default().push(wanted.slot);
    }
    let ids: Vec<_> = waiting.keys().copied().collect();
    let fetched = async {
        let mut frames = session.client.fetch_chunks(&session.volume, None, &ids).await?;
        while let Some(frame) = frames.next().await {
            let (id, bytes) = frame?;
            let bytes: Arc<[u8]> = bytes.into();
            for slot in waiting.remove(&id).unwrap_or_default() {
                session.tell(Event::Fetched(slot, Fetched::Bytes(bytes.clone())));
            }
        }
        Ok::<_, Error>(())
    };
    if let Err(error) = fetched.await {
        tracing::warn!(%error, "contents could not be fetched; they are asked for again");
    }
    for slot in waiting.into_values().flatten() {
        session.tell(Event::Fetched(slot, Fetched::Failed));
    }
}

/// Why a transfer did not come to its end.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Network(#[from] Error),
    #[error("the disk: {0}")]
    Disk(#[from] DiskError),
    #[error("the disk: {0}")]
    Read(#[from] std::io::Error),
    #[error("the file changed while it was read")]
    Changed,
    #[error("the service gave something else than was asked for")]
    Wrong,
    #[error("it was stopped")]
    Stopped,
}

impl Broken {
    /// Whether it breaks off again until somebody makes room.
    fn is_full_disk(&self) -> bool {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        match self {
            Self::Disk(error) => matches!(error, DiskError::Full),
            Self::Read(error) => matches!(error.kind(), StorageFull | QuotaExceeded),
            Self::Network(_) | Self::Changed | Self::Wrong | Self::Stopped => false,
        }
    }
}

impl From<tokio::task::JoinError> for Broken {
    fn from(_: tokio::task::JoinError) -> Self {
        Self::Stopped
    }
}

/// Downloads a large content into the part of its slot.
pub(super) async fn fetch_large(
    session: Session,
    slot: IntentId,
    content: Content,
    reuse: TreePath,
) {
    let Ok(_turn) = session.large.clone().acquire_owned().await else { return };
    let fetched = match download(&session, slot, content, reuse.clone()).await {
        Ok(()) => Fetched::Part,
        Err(error) if error.is_full_disk() => {
            tracing::warn!(path = %reuse, "a download broke off: the disk is full");
            Fetched::NoRoom
        }
        Err(error) => {
            tracing::warn!(path = %reuse, %error, "a download broke off; it starts again");
            Fetched::Failed
        }
    };
    session.tell(Event::Fetched(slot, fetched));
}

async fn download(
    session: &Session,
    slot: IntentId,
    content: Content,
    reuse: TreePath,
) -> Result<(), Broken> {
    let recipe = recipe(session, content).await?;
    let access = session.access.clone();
    let (mut local, mut part) = tokio::task::spawn_blocking(move || {
        let part = access.part(slot)?;
        Ok::<_, DiskError>((access.open(&Spot::Path(reuse)).ok().map(Local::read), part))
    })
    .await??;
    for chunks in recipe.chunks.chunks(CHUNKS_IN_PIECE) {
        let mut have: HashMap<Hash, Vec<u8>> = HashMap::new();
        if let Some(mut source) = local.take() {
            let wanted: Vec<_> = chunks.iter().map(|chunk| chunk.hash).collect();
            (source, have) = tokio::task::spawn_blocking(move || {
                let have = source.take(&wanted);
                (source, have)
            })
            .await?;
            local = Some(source);
        }
        let mut missing: Vec<_> = chunks
            .iter()
            .filter(|chunk| !have.contains_key(&chunk.hash))
            .map(|chunk| ContentId::Chunk(chunk.hash))
            .collect();
        missing.sort_unstable();
        missing.dedup();
        if !missing.is_empty() {
            let of = Some(content);
            let mut frames = session.client.fetch_chunks(&session.volume, of, &missing).await?;
            while let Some(frame) = frames.next().await {
                let (id, bytes) = frame?;
                have.insert(id.hash(), bytes);
            }
        }
        let chunks = chunks.to_vec();
        part = tokio::task::spawn_blocking(move || {
            for chunk in chunks {
                let bytes = have.get(&chunk.hash).ok_or(Broken::Wrong)?;
                if bytes.len() != chunk.size as usize {
                    return Err(Broken::Wrong);
                }
                part.write(bytes)?;
            }
            Ok::<PartWriter, Broken>(part)
        })
        .await??;
    }
    tokio::task::spawn_blocking(move || part.finish()).await??;
    Ok(())
}

/// The chunks of a content. What the name of the content says is checked here,
/// what the names of the chunks say wherever they come from, so that the whole
/// is what was asked for.
async fn recipe(session: &Session, content: Content) -> Result<Recipe, Broken> {
    let ContentId::Recipe(_) = content.id else {
        let size = u32::try_from(content.size).map_err(|_| Broken::Wrong)?;
        let only = s0_tree::ChunkRef { hash: content.id.hash(), size };
        return Ok(Recipe { chunks: vec![only] });
    };
    let mut frames = session.client.fetch_chunks(&session.volume, None, &[content.id]).await?;
    let (id, bytes) = frames.next().await.ok_or(Broken::Wrong)??;
    let recipe = Recipe::decode(&bytes).map_err(|_| Broken::Wrong)?;
    if id != content.id || recipe.content() != content {
        return Err(Broken::Wrong);
    }
    Ok(recipe)
}

/// A local file that may hold most of what is wanted.
struct Local {
    file: FileReader,
    chunks: HashMap<Hash, (u64, usize)>,
}

impl Local {
    /// Reads it once to know its chunks; as far as it can be read.
    fn read(mut file: FileReader) -> Self {
        let (mut chunks, mut offset) = (HashMap::new(), 0);
        for chunk in Chunker::new(&mut file).map_while(Result::ok) {
            chunks.insert(chunk.at.hash, (offset, chunk.bytes.len()));
            offset += chunk.bytes.len() as u64;
        }
        Self { file, chunks }
    }

    /// Those of the wanted chunks that it still has.
    fn take(&mut self, wanted: &[Hash]) -> HashMap<Hash, Vec<u8>> {
        let mut found = HashMap::new();
        for hash in wanted {
            let Some((offset, size)) = self.chunks.get(hash) else { continue };
            match self.file.read_range(*offset, *size) {
                Ok(bytes) if Hash::of(&bytes) == *hash => {
                    found.insert(*hash, bytes);
                }
                // Somebody writes to it.
                _ => {
                    self.chunks.remove(hash);
                }
            }
        }
        found
    }
}

/// Uploads a file, if it still holds what it is thought to.
pub(super) async fn upload(session: Session, path: TreePath, content: Content) {
    let Ok(_turn) = session.large.clone().acquire_owned().await else { return };
    let done = send(&session, path.clone(), content).await;
    if let Err(error) = &done {
        tracing::info!(%path, %error, "an upload broke off");
        if matches!(error, Broken::Network(_)) {
            sleep(AFTER_FAILURE).await;
        } else {
            // It is not what it was thought to be, or cannot be read. The watcher
            // may have said nothing, or may have said it before the last look.
            session.tell(Event::Touched(vec![(path, Hint::Unsettled)]));
        }
    }
    session.tell(Event::Uploaded(content.id, done.is_ok()));
}

async fn send(session: &Session, path: TreePath, content: Content) -> Result<(), Broken> {
    let access = session.access.clone();
    let (pieces, mut read) = mpsc::channel::<Vec<(ContentId, Bytes)>>(1);
    let reader = tokio::task::spawn_blocking(move || {
        let mut file = access.open(&Spot::Path(path))?;
        let mut builder = ContentBuilder::default();
        let (mut piece, mut bytes) = (Vec::new(), 0);
        for chunk in Chunker::new((&mut file).take(content.size.saturating_add(1))) {
            let chunk = chunk?;
            builder.push(chunk.at.hash, chunk.bytes.len());
            bytes += chunk.bytes.len();
            piece.push((ContentId::Chunk(chunk.at.hash), Bytes::from(chunk.bytes)));
            if bytes >= PIECE {
                bytes = 0;
                let full = std::mem::take(&mut piece);
                pieces.blocking_send(full).map_err(|_| Broken::Stopped)?;
            }
        }
        if !piece.is_empty() {
            pieces.blocking_send(piece).map_err(|_| Broken::Stopped)?;
        }
        let (read, recipe) = builder.finish();
        if read != content || !file.is_unchanged()? {
            return Err(Broken::Changed);
        }
        Ok(recipe)
    });
    while let Some(piece) = read.recv().await {
        send_missing(session, piece).await?;
    }
    let recipe = reader.await??;
    if matches!(content.id, ContentId::Recipe(_)) {
        let recipe = (content.id, Bytes::from(recipe.encode()));
        send_missing(session, vec![recipe]).await?;
    }
    Ok(())
}

async fn send_missing(session: &Session, mut piece: Vec<(ContentId, Bytes)>) -> Result<(), Broken> {
    let ids: Vec<_> = piece.iter().map(|(id, _)| *id).collect();
    let missing = session.client.missing(&session.volume, &ids).await?;
    piece.retain(|(id, _)| missing.contains(id));
    if !piece.is_empty() {
        session.client.upload(&session.volume, piece).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io;

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
            large: Arc::new(tokio::sync::Semaphore::new(1)),
            useful: Arc::default(),
        };
        for name in ["emptied", "removed"] {
            let path = TreePath::new(name).unwrap();
            upload(session.clone(), path.clone(), Content::of(&[7; 100_000])).await;
            let told: Vec<_> = inbox.try_iter().collect();
            let [Message::Network(_, first, _), Message::Network(_, last, _)] = &told[..] else {
                panic!("{} messages about {name}", told.len());
            };
            assert!(matches!(first, Event::Touched(paths) if paths[0].0 == path), "{name}");
            assert!(matches!(last, Event::Uploaded(_, false)), "{name}");
        }
    }

    #[test]
    fn only_a_full_disk_is_one() {
        for kind in [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded] {
            assert!(Broken::from(io::Error::from(kind)).is_full_disk());
        }
        assert!(Broken::from(DiskError::Full).is_full_disk());
        for other in [
            Broken::from(DiskError::Denied),
            Broken::from(io::Error::from(io::ErrorKind::PermissionDenied)),
            Broken::Stopped,
            Broken::Wrong,
        ] {
            assert!(!other.is_full_disk(), "{other}");
        }
    }

    #[test]
    fn a_write_to_a_full_device_is_known() {
        use std::io::Write as _;
        // Where the system has no such device, there is nothing to see.
        let Ok(mut full) = std::fs::File::options().write(true).open("/dev/full") else { return };
        let error = full.write_all(b"x").map_err(crate::platform::io_error).unwrap_err();
        assert!(Broken::from(error).is_full_disk());
    }
}
