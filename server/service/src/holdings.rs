//! The contents that a team holds: small chunks in the journal's database,
//! larger ones and recipes in the content store.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use s0_tree::{Change, Content, ContentId, Hash, INLINE_LIMIT, MAX_CHUNK, Recipe, Time};
use sha2::{Digest, Sha256};
use tracing::warn;

use crate::contents::Contents;
use crate::journal::{Journal, Kept, StoreError};
use crate::problem::Problem;

mod intake;

pub(crate) use intake::Taken;

/// How many bytes of chunks are made durable at once.
pub(crate) const BATCH: usize = 8 * 1024 * 1024;
/// How long contents are held that nothing names yet.
const LEASE: i64 = 24 * 60 * 60 * 1_000_000_000;

#[derive(Clone)]
pub(crate) struct Holdings {
    journal: Arc<dyn Journal>,
    large: Arc<dyn Contents>,
}

fn is_small(id: ContentId, length: usize) -> bool {
    matches!(id, ContentId::Chunk(_)) && length as u64 <= INLINE_LIMIT
}

/// Whether a length can be one in the content store. A file that a crash of the
/// machine emptied is not held.
fn is_large(id: ContentId, size: u64) -> bool {
    match id {
        ContentId::Chunk(_) => size > INLINE_LIMIT && size <= MAX_CHUNK as u64,
        ContentId::Recipe(_) => size > 0,
    }
}

fn lost(id: ContentId) -> StoreError {
    StoreError::Damaged(format!("the content {id} is missing"))
}

impl Holdings {
    pub(crate) fn new(journal: Arc<dyn Journal>, large: Arc<dyn Contents>) -> Self {
        Self { journal, large }
    }

    /// Keeps chunks and recipes, whose bytes have their hashes, durably.
    pub(crate) async fn put(
        &self,
        team: &str,
        contents: Vec<(ContentId, Bytes)>,
        now: Time,
    ) -> Kept<()> {
        let ids = contents.iter().map(|(id, _)| *id).collect();
        let (small, large): (Vec<_>, Vec<_>) =
            contents.into_iter().partition(|(id, bytes)| is_small(*id, bytes.len()));
        if !large.is_empty() {
            self.large.put(team, large).await?;
        }
        if !small.is_empty() {
            self.journal.put_inline(team, small).await?;
        }
        self.lease(team, ids, now).await
    }

    /// Holds these for a day, even if nothing names them.
    pub(crate) async fn lease(&self, team: &str, ids: Vec<ContentId>, now: Time) -> Kept<()> {
        if ids.is_empty() {
            return Ok(());
        }
        self.journal.lease(team, ids, Time(now.0.saturating_add(LEASE))).await
    }

    /// One chunk or recipe.
    pub(crate) async fn get(&self, team: &str, id: ContentId) -> Kept<Option<Bytes>> {
        if id == Content::empty().id {
            return Ok(Some(Bytes::new()));
        }
        if matches!(id, ContentId::Chunk(_))
            && let Some((_, bytes)) = self.journal.inline(team, vec![id]).await?.pop()
        {
            return Ok(Some(bytes));
        }
        self.large.get(team, id).await
    }

    pub(crate) async fn recipe(&self, team: &str, id: ContentId) -> Kept<Option<Recipe>> {
        let Some(bytes) = self.large.get(team, id).await? else { return Ok(None) };
        let damaged = |_| StoreError::Damaged(format!("the stored recipe {id} cannot be read"));
        Recipe::decode(&bytes).map(Some).map_err(damaged)
    }

    /// The content with its true length, if it is held.
    pub(crate) async fn content(&self, team: &str, id: ContentId) -> Kept<Option<Content>> {
        if id == Content::empty().id {
            return Ok(Some(Content::empty()));
        }
        let size = match id {
            ContentId::Recipe(_) => {
                return Ok(self.recipe(team, id).await?.map(|recipe| recipe.content()));
            }
            ContentId::Chunk(_) => match self.journal.inline(team, vec![id]).await?.pop() {
                Some((_, bytes)) => Some(bytes.len() as u64),
                None => self.large.size(team, id).await?.filter(|size| is_large(id, *size)),
            },
        };
        Ok(size.map(|size| Content { id, size }))
    }

    /// The lengths in bytes of those chunks and recipes that are held.
    pub(crate) async fn sizes(
        &self,
        team: &str,
        ids: &[ContentId],
    ) -> Kept<HashMap<ContentId, u64>> {
        let mut sizes = HashMap::from([(Content::empty().id, 0)]);
        for some in ids.chunks(64) {
            let small = self.journal.inline(team, some.to_vec()).await?;
            sizes.extend(small.into_iter().map(|(id, bytes)| (id, bytes.len() as u64)));
            for id in some {
                if !sizes.contains_key(id)
                    && let Some(size) = self.large.size(team, *id).await?
                    && is_large(*id, size)
                {
                    sizes.insert(*id, size);
                }
            }
        }
        Ok(sizes)
    }

    /// Several chunks and recipes, all of which must be held.
    pub(crate) async fn several(
        &self,
        team: &str,
        ids: &[ContentId],
    ) -> Kept<Vec<(ContentId, Bytes)>> {
        let chunks = ids.iter().filter(|id| matches!(id, ContentId::Chunk(_))).copied();
        let small = self.journal.inline(team, chunks.collect()).await?;
        let small: HashMap<ContentId, Bytes> = small.into_iter().collect();
        let mut found = Vec::with_capacity(ids.len());
        for id in ids {
            let bytes = match small.get(id) {
                Some(bytes) => Some(bytes.clone()),
                None => self.get(team, *id).await?,
            };
            found.push((*id, bytes.ok_or_else(|| lost(*id))?));
        }
        Ok(found)
    }

    /// Whether a chunk or recipe of the content store is held, by its bytes. One
    /// that is damaged is not, and can be sent again.
    pub(crate) async fn verify(&self, team: &str, id: ContentId) -> Kept<bool> {
        self.large.verify(team, id).await
    }

    /// Which of the contents that changes bring are held, beside those that
    /// came with them. A length that is not the content's is refused, unless it is
    /// the store's that is wrong.
    pub(crate) async fn held(
        &self,
        team: &str,
        changes: &[Change],
        inline: &HashMap<ContentId, Bytes>,
    ) -> Result<BTreeSet<ContentId>, Problem> {
        let mut held = BTreeSet::new();
        for content in changes.iter().filter_map(Change::content).collect::<BTreeSet<_>>() {
            let found = match inline.get(&content.id) {
                Some(bytes) => Some(Content { id: content.id, size: bytes.len() as u64 }),
                None => match self.content(team, content.id).await {
                    Ok(Some(found))
                        if found != content
                            && !found.is_inline()
                            && !self.verify(team, content.id).await? =>
                    {
                        None
                    }
                    Err(StoreError::Damaged(_)) if !self.verify(team, content.id).await? => None,
                    found => found?,
                },
            };
            match found {
                Some(found) if found == content => {
                    held.insert(content.id);
                }
                Some(found) => {
                    let Content { id, size } = content;
                    let why = format!("the content {id} has {} bytes, not {size}", found.size);
                    return Err(Problem::BadRequest(why));
                }
                None => {}
            }
        }
        Ok(held)
    }

    /// The chunks of a content, with where each starts.
    async fn layout(&self, team: &str, content: Content) -> Kept<Vec<(ContentId, u64, u64)>> {
        let ContentId::Recipe(_) = content.id else {
            return Ok(vec![(content.id, 0, content.size)]);
        };
        let recipe = self.recipe(team, content.id).await?;
        let recipe = recipe.ok_or_else(|| lost(content.id))?;
        let mut start = 0;
        let chunks = recipe.chunks.iter().map(|chunk| {
            let at = start;
            start += u64::from(chunk.size);
            (ContentId::Chunk(chunk.hash), at, u64::from(chunk.size))
        });
        Ok(chunks.collect())
    }

    /// The bytes of a content in `range`, one chunk in memory at a time.
    pub(crate) async fn stream(
        &self,
        team: &str,
        content: Content,
        range: Range<u64>,
    ) -> Kept<impl Stream<Item = Kept<Bytes>> + Send + 'static> {
        let mut parts = self.layout(team, content).await?;
        parts.retain(|(_, at, size)| at + size > range.start && *at < range.end);
        let (holdings, team) = (self.clone(), team.to_owned());
        Ok(stream::iter(parts).then(move |(id, at, size)| {
            let (holdings, team, range) = (holdings.clone(), team.clone(), range.clone());
            async move {
                let bytes = holdings.get(&team, id).await?;
                let bytes = bytes.ok_or_else(|| lost(id))?;
                if bytes.len() as u64 != size {
                    return Err(StoreError::Damaged(format!("the chunk {id} has another length")));
                }
                let from = range.start.saturating_sub(at).min(size);
                let to = (range.end - at).min(size);
                #[expect(clippy::cast_possible_truncation, reason = "both are within a chunk")]
                Ok(bytes.slice(from as usize..to as usize))
            }
        }))
    }

    /// The SHA-256 of the whole of a content: its name, or computed when first
    /// asked, and kept.
    pub(crate) async fn whole(&self, team: &str, content: Content) -> Kept<Hash> {
        if let ContentId::Chunk(hash) = content.id {
            return Ok(hash);
        }
        if let Some(hash) = self.journal.whole_of(team, content.id).await? {
            return Ok(hash);
        }
        let mut hasher = Sha256::new();
        let mut pieces = std::pin::pin!(self.stream(team, content, 0..content.size).await?);
        while let Some(piece) = pieces.next().await {
            hasher.update(piece?);
        }
        let hash = Hash(hasher.finalize().into());
        self.journal.put_whole(team, content, hash).await?;
        Ok(hash)
    }

    /// The hashes of the wholes of several contents. One that cannot be read is
    /// left out: it must not keep the others from being told of.
    pub(crate) async fn wholes(
        &self,
        team: &str,
        contents: impl IntoIterator<Item = Content>,
    ) -> HashMap<ContentId, Hash> {
        let mut known = HashMap::new();
        for content in contents {
            if let Entry::Vacant(unknown) = known.entry(content.id) {
                match self.whole(team, content).await {
                    Ok(hash) => {
                        unknown.insert(hash);
                    }
                    Err(error) => warn!(%error, "a content cannot be read"),
                }
            }
        }
        known
    }
}
