//! The bytes of contents: from the cache, or from the service, which is read ahead.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use s0_api::Error;
use s0_tree::{Content, ContentId, Hash, Recipe};
use tokio::time::timeout;

use crate::cache::Cache;
use crate::kernel::answer::Errno;
use crate::reach::Reach;

/// How much is read ahead of a reader of a large file, in bytes.
const AHEAD: u64 = 4 * 1024 * 1024;
/// How many recipes are kept.
const RECIPES: usize = 1024;
/// How long a fetch may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a fetch is tried.
const TRIES: u32 = 3;
/// The pause before a fetch is tried again, the first time.
const AGAIN: Duration = Duration::from_millis(200);

/// The chunks of a large content, and where each begins.
#[derive(Debug)]
pub(crate) struct Chunks {
    starts: Vec<u64>,
    recipe: Recipe,
}

impl Chunks {
    fn new(recipe: Recipe) -> Self {
        let mut at = 0;
        let starts = recipe.chunks.iter().map(|chunk| {
            let start = at;
            at += u64::from(chunk.size);
            start
        });
        Self { starts: starts.collect(), recipe }
    }

    /// The parts of chunks that a range of the content is made of.
    fn parts(&self, range: &Range<u64>) -> impl Iterator<Item = Part> {
        let first = self.starts.partition_point(|start| *start <= range.start).saturating_sub(1);
        let Range { start, end } = *range;
        let chunks = self.starts[first..].iter().zip(&self.recipe.chunks[first..]);
        chunks.take_while(move |(at, _)| **at < end).map(move |(at, chunk)| {
            let from = start.max(*at) - at;
            let until = end.min(at + u64::from(chunk.size)) - at;
            Part { chunk: chunk.hash, range: narrow(from)..narrow(until) }
        })
    }
}

/// A part of a chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    chunk: Hash,
    range: Range<u32>,
}

/// Offsets within a chunk fit by far.
fn narrow(offset: u64) -> u32 {
    u32::try_from(offset).unwrap_or(u32::MAX)
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Contents {
    service: Reach,
    volume: String,
    cache: Mutex<Cache>,
    recipes: Mutex<HashMap<Hash, Arc<Chunks>>>,
}

impl Contents {
    pub(crate) fn new(service: Reach, volume: String, cache: Cache) -> Self {
        Self { service, volume, cache: Mutex::new(cache), recipes: Mutex::default() }
    }

    /// Keeps bytes that are at hand.
    pub(crate) fn keep(&self, chunk: Hash, bytes: &[u8]) {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).put(chunk, bytes);
    }

    /// Keeps the recipe of a content that was made here.
    pub(crate) fn keep_recipe(&self, content: Content, recipe: Recipe) {
        if let ContentId::Recipe(hash) = content.id {
            let mut recipes = self.recipes.lock().unwrap_or_else(PoisonError::into_inner);
            if recipes.len() >= RECIPES {
                recipes.clear();
            }
            recipes.insert(hash, Arc::new(Chunks::new(recipe)));
        }
    }

    fn known_chunks(&self, content: Content) -> Option<Arc<Chunks>> {
        let recipes = self.recipes.lock().unwrap_or_else(PoisonError::into_inner);
        recipes.get(&content.id.hash()).cloned()
    }

    /// The parts of a range, where they can be told without asking.
    fn parts(&self, content: Content, range: &Range<u64>) -> Option<Vec<Part>> {
        match content.id {
            ContentId::Chunk(chunk) => {
                Some(vec![Part { chunk, range: narrow(range.start)..narrow(range.end) }])
            }
            ContentId::Recipe(_) => Some(self.known_chunks(content)?.parts(range).collect()),
        }
    }

    /// Reads a range from the cache. False when some of it is not there.
    pub(crate) fn read_cached(
        &self,
        content: Content,
        range: &Range<u64>,
        into: &mut [u8],
    ) -> bool {
        self.put_together(content, range, &HashMap::new(), into)
    }

    /// Reads a range, from the service what is not in the cache, and what comes next with it.
    pub(crate) async fn read(
        &self,
        content: Content,
        range: Range<u64>,
        into: &mut [u8],
    ) -> Result<(), Errno> {
        for tried in 0..TRIES {
            if self.read_cached(content, &range, into) {
                return Ok(());
            }
            match timeout(PATIENCE, self.fetch(content, &range)).await {
                Ok(Ok(fetched)) if self.put_together(content, &range, &fetched, into) => {
                    return Ok(());
                }
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::warn!(%error, "a content cannot be read"),
                Err(_) => return Err(Errno::TIMEDOUT),
            }
            tokio::time::sleep(AGAIN * tried).await;
        }
        Err(Errno::IO)
    }

    /// The same as from the cache, which may have no room for what was fetched.
    fn put_together(
        &self,
        content: Content,
        range: &Range<u64>,
        fetched: &HashMap<Hash, Vec<u8>>,
        into: &mut [u8],
    ) -> bool {
        let Some(parts) = self.parts(content, range) else { return false };
        let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rest = into;
        for Part { chunk, range } in parts {
            let length = (range.end - range.start) as usize;
            let Some((part, after)) = rest.split_at_mut_checked(length) else { return false };
            let bytes = fetched.get(&chunk);
            match bytes.and_then(|it| it.get(range.start as usize..range.end as usize)) {
                Some(bytes) => part.copy_from_slice(bytes),
                None if cache.read(chunk, range, part) => {}
                None => return false,
            }
            rest = after;
        }
        rest.is_empty()
    }

    async fn fetch(
        &self,
        content: Content,
        range: &Range<u64>,
    ) -> Result<HashMap<Hash, Vec<u8>>, Error> {
        if let ContentId::Recipe(_) = content.id
            && self.known_chunks(content).is_none()
        {
            let mut frames =
                self.service.client().fetch_chunks(&self.volume, None, &[content.id]).await?;
            while let Some(frame) = frames.next().await {
                let recipe = Recipe::decode(&frame?.1);
                let recipe = recipe.map_err(|error| Error::Protocol(error.to_string()))?;
                self.keep_recipe(content, recipe);
            }
        }
        let ahead = range.start..(range.end.saturating_add(AHEAD)).min(content.size);
        let parts = self.parts(content, &ahead).unwrap_or_default();
        let missing: Vec<ContentId> = {
            let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
            let missing = parts.iter().filter(|part| !cache.has(part.chunk));
            missing.map(|part| ContentId::Chunk(part.chunk)).collect()
        };
        let of = matches!(content.id, ContentId::Recipe(_)).then_some(content);
        let mut frames = self.service.client().fetch_chunks(&self.volume, of, &missing).await?;
        let mut fetched = HashMap::new();
        while let Some(frame) = frames.next().await {
            let (id, bytes) = frame?;
            self.keep(id.hash(), &bytes);
            fetched.insert(id.hash(), bytes);
        }
        Ok(fetched)
    }

    /// Makes sure that the service has chunks, and after them their recipe.
    pub(crate) async fn upload(&self, frames: Vec<(ContentId, Bytes)>) -> Result<(), Error> {
        let ids: Vec<ContentId> = frames.iter().map(|(id, _)| *id).collect();
        let missing = self.service.client().missing(&self.volume, &ids).await?;
        let lacks = frames.into_iter().filter(|(id, _)| missing.contains(id)).collect::<Vec<_>>();
        if lacks.is_empty() {
            Ok(())
        } else {
            self.service.client().upload(&self.volume, lacks).await
        }
    }
}
