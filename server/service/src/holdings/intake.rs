//! How the bytes of a whole file become a content.

use std::io::{self, Read};

use bytes::{Buf, Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use s0_tree::{Chunk, Chunker, Content, ContentBuilder, ContentId, Hash, INLINE_LIMIT, Time};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::{BATCH, Holdings};
use crate::problem::Problem;

/// A file that was taken in.
#[derive(Debug, Clone)]
pub(crate) struct Taken {
    pub(crate) content: Content,
    /// The bytes, when they are to be committed with the entry that names them.
    pub(crate) inline: Option<Bytes>,
    /// The SHA-256 of the whole.
    pub(crate) sha256: Hash,
}

impl Taken {
    fn small(bytes: Bytes) -> Self {
        Self { content: Content::of(&bytes), sha256: Hash::of(&bytes), inline: Some(bytes) }
    }
}

/// The body of a request, as a blocking reader that hashes what it gives.
struct BodyReader {
    pieces: mpsc::Receiver<Bytes>,
    piece: Bytes,
    hasher: Sha256,
}

impl Read for &mut BodyReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.piece = piece,
                None => return Ok(0),
            }
        }
        let length = into.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut into[..length]);
        self.hasher.update(&into[..length]);
        Ok(length)
    }
}

impl Holdings {
    /// Takes in the bytes of a file of at most `limit` bytes. A small one is
    /// only described; a larger one is cut, and durable when this returns.
    pub(crate) async fn take_in<E: std::fmt::Display>(
        &self,
        team: &str,
        body: impl Stream<Item = Result<Bytes, E>> + Send,
        limit: u64,
        now: Time,
    ) -> Result<Taken, Problem> {
        let mut body = std::pin::pin!(body);
        let mut start = BytesMut::new();
        let mut length = 0;
        let mut next = async || -> Result<Option<Bytes>, Problem> {
            let cut = |error| Problem::BadRequest(format!("the body ended early: {error}"));
            let piece = body.next().await.transpose().map_err(cut)?;
            length += piece.as_ref().map_or(0, |piece| piece.len() as u64);
            if length > limit {
                return Err(Problem::TooLarge("file too large"));
            }
            Ok(piece)
        };
        while start.len() as u64 <= INLINE_LIMIT {
            match next().await? {
                Some(piece) => start.extend_from_slice(&piece),
                None => return Ok(Taken::small(start.freeze())),
            }
        }
        let (send_piece, pieces) = mpsc::channel(16);
        let (send_chunk, mut chunks) = mpsc::channel::<Chunk>(16);
        let cutting = tokio::task::spawn_blocking(move || {
            let mut reader = BodyReader { pieces, piece: start.freeze(), hasher: Sha256::new() };
            for chunk in Chunker::new(&mut reader) {
                if send_chunk.blocking_send(chunk?).is_err() {
                    break;
                }
            }
            Ok::<_, io::Error>(Hash(reader.hasher.finalize().into()))
        });
        let feed = async {
            while let Some(piece) = next().await? {
                if send_piece.send(piece).await.is_err() {
                    break;
                }
            }
            drop(send_piece);
            Ok::<_, Problem>(())
        };
        let keep = async {
            let mut builder = ContentBuilder::default();
            let (mut batch, mut size) = (Vec::new(), 0);
            while let Some(chunk) = chunks.recv().await {
                builder.push(chunk.at.hash, chunk.bytes.len());
                size += chunk.bytes.len();
                batch.push((ContentId::Chunk(chunk.at.hash), Bytes::from(chunk.bytes)));
                if size >= BATCH {
                    self.put(team, std::mem::take(&mut batch), now).await?;
                    size = 0;
                }
            }
            self.put(team, batch, now).await?;
            let (content, recipe) = builder.finish();
            if matches!(content.id, ContentId::Recipe(_)) {
                self.put(team, vec![(content.id, recipe.encode().into())], now).await?;
            }
            Ok::<_, Problem>(content)
        };
        let (fed, content) = tokio::join!(feed, keep);
        fed?;
        let content = content?;
        let failed = |error: &dyn std::fmt::Display| Problem::Internal(error.to_string());
        let sha256 = cutting.await.map_err(|e| failed(&e))?.map_err(|e| failed(&e))?;
        if matches!(content.id, ContentId::Recipe(_)) {
            self.journal.put_whole(team, content, sha256).await?;
        }
        Ok(Taken { content, inline: None, sha256 })
    }

    /// The same for bytes that are at hand.
    pub(crate) async fn take_in_bytes(
        &self,
        team: &str,
        bytes: Bytes,
        now: Time,
    ) -> Result<Taken, Problem> {
        if bytes.len() as u64 <= INLINE_LIMIT {
            return Ok(Taken::small(bytes));
        }
        let body = futures_util::stream::iter([Ok::<_, io::Error>(bytes)]);
        self.take_in(team, body, u64::MAX, now).await
    }
}
