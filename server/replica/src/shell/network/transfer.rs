//! Contents on their way in. Large ones are never held whole.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::StreamExt;
use s0_api::Error;
use s0_tree::{Chunker, Content, ContentId, Hash, MAX_CHUNK, Recipe, TreePath};
use tokio::sync::mpsc;

use super::Session;
use crate::disk::{DiskError, IntentId, Spot};
use crate::engine::{Event, Fetched};
use crate::shell::access::{FileReader, PartWriter};

/// The most small contents, and bytes of them, in one request.
const SMALL_AT_ONCE: (usize, u64) = (1000, 8 << 20);
/// Requests for small contents that are under way at one time.
const SMALL_REQUESTS: usize = 4;
/// The bytes of a large content that are held at one time.
pub(super) const PIECE: usize = 2 << 20;
/// Chunks larger than this have no room in a part's buffer beside others.
const CHUNKS_IN_PIECE: usize = PIECE / MAX_CHUNK;

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
pub(super) enum Broken {
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
    (reuse, held): (TreePath, Option<Content>),
) {
    let Some(_turn) = session.turn(content.size).await else { return };
    let fetched = match download(&session, slot, content, (reuse.clone(), held)).await {
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
    (reuse, held): (TreePath, Option<Content>),
) -> Result<(), Broken> {
    let recipe = recipe(session, content).await?;
    let known = match held.filter(|held| matches!(held.id, ContentId::Recipe(_))) {
        // If nobody knows it any more, the file can still be read.
        Some(held) => self::recipe(session, held).await.ok(),
        None => None,
    };
    let access = session.access.clone();
    let (mut local, part) = tokio::task::spawn_blocking(move || {
        let part = access.part(slot)?;
        let local = access.open(&Spot::Path(reuse)).ok().map(|file| match known {
            Some(recipe) => Local::known(file, &recipe),
            None => Local::read(file),
        });
        Ok::<_, DiskError>((local, part))
    })
    .await??;
    // One piece is written while the next one is looked for.
    let mut writing = tokio::task::spawn_blocking(move || Ok::<PartWriter, Broken>(part));
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
        let mut part = writing.await??;
        writing = tokio::task::spawn_blocking(move || {
            for chunk in chunks {
                let bytes = have.get(&chunk.hash).ok_or(Broken::Wrong)?;
                if bytes.len() != chunk.size as usize {
                    return Err(Broken::Wrong);
                }
                part.write(bytes)?;
            }
            Ok::<PartWriter, Broken>(part)
        });
    }
    let part = writing.await??;
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

    /// The same for a file that held this. What it has no more is found out when it
    /// is taken.
    fn known(file: FileReader, recipe: &Recipe) -> Self {
        let (mut chunks, mut offset) = (HashMap::new(), 0);
        for chunk in &recipe.chunks {
            chunks.insert(chunk.hash, (offset, chunk.size as usize));
            offset += u64::from(chunk.size);
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

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

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
