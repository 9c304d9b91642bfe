//! Trees and contents, as our own replicas read and send them.

use std::collections::{BTreeSet, HashMap};

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use s0_api::frames::{FRAME_HEAD, FrameReader, write_frame};
use s0_api::sync::{Fetch, HaveList, Stored};
use s0_tree::{ContentId, Recipe};
use serde_json::json;

use super::State;
use super::answers::{Answered, Told, ok, streamed};
use super::asked::{Incoming, Json, Named, OrMount, ReadVolume, Volume, WriteVolume};
use super::ranges::{self, Ranged};
use crate::holdings::{BATCH, Holdings};
use crate::problem::Problem;
use crate::service::now;

/// The largest recipe that is taken: of a file of about 58 GiB.
const MAX_RECIPE: usize = 16 * 1024 * 1024;
/// How many contents one request may name.
const MAX_IDS: usize = 200_000;
/// How many contents are read at once for an answer.
const READ: usize = 32;

pub(super) async fn tree(volume: Volume<OrMount<ReadVolume>>) -> Answered {
    let (committed, packed) = volume.hot.packed_tree().await?;
    let mut answer: Response = Body::from(packed).into_response();
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/zstd"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-s0-head", HeaderValue::from(committed.head().0));
    let epoch = HeaderValue::from_str(committed.ledger.epoch());
    headers.insert("x-s0-epoch", epoch.map_err(|error| Problem::Internal(error.to_string()))?);
    Ok(answer)
}

fn bounded(ids: &[ContentId]) -> Result<(), Problem> {
    if ids.len() > MAX_IDS {
        return Err(Problem::BadRequest(format!("a request names at most {MAX_IDS} contents")));
    }
    Ok(())
}

pub(super) async fn missing(
    service: State,
    volume: Volume<OrMount<WriteVolume>>,
    Json(HaveList { mut ids }): Json<HaveList>,
) -> Told<HaveList> {
    bounded(&ids)?;
    let held = service.holdings.sizes(volume.team(), &ids).await?;
    // What is held stays held for as long as the client may need to name it.
    let (have, lack): (Vec<_>, Vec<_>) = ids.drain(..).partition(|id| held.contains_key(id));
    service.holdings.lease(volume.team(), have, now()).await?;
    ok(HaveList { ids: lack })
}

pub(super) async fn upload(
    service: State,
    volume: Volume<OrMount<WriteVolume>>,
    Incoming { body: mut pieces, .. }: Incoming,
) -> Told<Stored> {
    let mut intake = Intake::new(&service.holdings, volume.team());
    let mut reader = FrameReader::with_max_recipe(MAX_RECIPE);
    while let Some(piece) = pieces.next().await {
        let piece =
            piece.map_err(|error| Problem::BadRequest(format!("the body ended early: {error}")))?;
        reader.push(&piece);
        while let Some((id, bytes)) = reader.next_frame().map_err(Problem::bad)? {
            intake.take(id, bytes.into()).await?;
        }
    }
    reader.finish().map_err(Problem::bad)?;
    intake.flush().await?;
    ok(Stored { stored: intake.count })
}

/// Frames on their way into the stores, a batch at a time.
struct Intake<'a> {
    holdings: &'a Holdings,
    team: &'a str,
    batch: Vec<(ContentId, Bytes)>,
    /// Recipes whose chunks are all durable already.
    recipes: Vec<(ContentId, Bytes)>,
    size: usize,
    /// Chunks of this request that are durable already, so that its recipes
    /// need not look for them.
    kept: HashMap<ContentId, u64>,
    count: usize,
}

impl<'a> Intake<'a> {
    fn new(holdings: &'a Holdings, team: &'a str) -> Self {
        let (batch, recipes, kept) = (Vec::new(), Vec::new(), HashMap::new());
        Self { holdings, team, batch, recipes, size: 0, kept, count: 0 }
    }

    async fn take(&mut self, id: ContentId, bytes: Bytes) -> Result<(), Problem> {
        self.size += bytes.len();
        self.count += 1;
        if let ContentId::Recipe(_) = id {
            self.flush_chunks().await?;
            self.check(&bytes).await?;
            self.recipes.push((id, bytes));
        } else {
            self.batch.push((id, bytes));
        }
        if self.size >= BATCH { self.flush().await } else { Ok(()) }
    }

    /// A recipe is kept only when all of its chunks are, in their true lengths,
    /// so that whoever holds a recipe holds the content.
    async fn check(&self, recipe: &Bytes) -> Result<(), Problem> {
        let recipe = Recipe::decode(recipe).map_err(Problem::bad)?;
        if recipe.content().is_inline() {
            // It would be a second name for the same bytes.
            return Err(Problem::bad("a content this small is one chunk"));
        }
        let chunks = recipe.chunks.iter();
        let chunks: BTreeSet<(ContentId, u64)> =
            chunks.map(|chunk| (ContentId::Chunk(chunk.hash), u64::from(chunk.size))).collect();
        let unknown = chunks.iter().map(|(id, _)| *id).filter(|id| !self.kept.contains_key(id));
        let sizes = self.holdings.sizes(self.team, &unknown.collect::<Vec<_>>()).await?;
        let size = |id| self.kept.get(id).or_else(|| sizes.get(id)).copied();
        let wrong: Vec<ContentId> = chunks
            .iter()
            .filter(|(id, length)| size(id) != Some(*length))
            .map(|(id, _)| *id)
            .collect();
        if wrong.is_empty() {
            return Ok(());
        }
        for id in wrong.iter().filter(|id| sizes.contains_key(id)) {
            // It is the recipe that is wrong, or what is stored; and then the
            // client is to find that it is not held.
            self.holdings.verify(self.team, *id).await?;
        }
        let details = json!({"reason": "missing_contents", "ids": wrong});
        Err(Problem::Conflict("chunks of a recipe are not held".into(), Some(details)))
    }

    /// A recipe never comes before its chunks, whenever the power goes.
    async fn flush(&mut self) -> Result<(), Problem> {
        self.flush_chunks().await?;
        self.size = 0;
        let recipes = std::mem::take(&mut self.recipes);
        if recipes.is_empty() {
            return Ok(());
        }
        Ok(self.holdings.put(self.team, recipes, now()).await?)
    }

    async fn flush_chunks(&mut self) -> Result<(), Problem> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let batch = std::mem::take(&mut self.batch);
        self.kept.extend(batch.iter().map(|(id, bytes)| (*id, bytes.len() as u64)));
        Ok(self.holdings.put(self.team, batch, now()).await?)
    }
}

pub(super) async fn fetch(
    service: State,
    volume: Volume<OrMount<ReadVolume>>,
    Json(Fetch { of, ids }): Json<Fetch>,
) -> Answered {
    bounded(&ids)?;
    let visible: BTreeSet<ContentId> = match of {
        None => service.journal.named(volume.id(), ids.clone()).await?,
        Some(of) => {
            let mut visible = service.journal.named(volume.id(), vec![of.id]).await?;
            if !visible.is_empty() && matches!(of.id, ContentId::Recipe(_)) {
                let recipe = service.holdings.recipe(volume.team(), of.id).await?;
                let chunks = recipe.into_iter().flat_map(|recipe| recipe.chunks);
                visible.extend(chunks.map(|chunk| ContentId::Chunk(chunk.hash)));
            }
            visible
        }
    };
    if !ids.iter().all(|id| visible.contains(id)) {
        return Err(Problem::NotFound("a content that the Volume does not name"));
    }
    let (holdings, team) = (service.holdings.clone(), volume.caller.team);
    let groups: Vec<Vec<ContentId>> = ids.chunks(READ).map(<[_]>::to_vec).collect();
    let frames = stream::iter(groups).then(move |group| {
        let (holdings, team) = (holdings.clone(), team.clone());
        async move {
            let found = holdings.several(&team, &group).await?;
            let length = found.iter().map(|(_, bytes)| FRAME_HEAD + bytes.len()).sum();
            let mut body = Vec::with_capacity(length);
            for (id, bytes) in found {
                write_frame(&mut body, id, &bytes);
            }
            Ok(Bytes::from(body))
        }
    });
    Ok(streamed("application/octet-stream", frames))
}

pub(super) async fn read(
    service: State,
    volume: Volume<ReadVolume>,
    Named(content): Named,
    headers: HeaderMap,
) -> Result<Ranged, Problem> {
    let unknown = || Problem::NotFound("not found");
    let content = ContentId::parse(&content).ok_or_else(unknown)?;
    if service.journal.named(volume.id(), vec![content]).await?.is_empty() {
        return Err(unknown());
    }
    let content = service.holdings.content(volume.team(), content).await?.ok_or_else(unknown)?;
    ranges::answer(&service.holdings, volume.team(), content, &headers).await
}
