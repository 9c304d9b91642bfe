//! The content store: chunks and recipes that are too large for the journal's
//! transactions, behind one trait. Every store passes [`conformance`].

use async_trait::async_trait;
use bytes::Bytes;
use s0_tree::ContentId;

use crate::journal::Kept;

#[cfg(test)]
pub(crate) mod conformance;

/// A store of chunks and recipes, each team's apart from the others'. Names are
/// hashes, so what is held never changes.
#[async_trait]
pub trait Contents: Send + Sync + 'static {
    /// Keeps these; they are durable when this returns. What is held already in
    /// its true length is passed over.
    async fn put(&self, team: &str, contents: Vec<(ContentId, Bytes)>) -> Kept<()>;
    /// The bytes, which have the hash that the name says; `None` when they are
    /// not held.
    async fn get(&self, team: &str, id: ContentId) -> Kept<Option<Bytes>>;
    /// The length in bytes, if it is held.
    async fn size(&self, team: &str, id: ContentId) -> Kept<Option<u64>>;
    /// Whether it is held, by a look at its bytes. What is damaged is taken out of
    /// the way, so that it can be put again.
    async fn verify(&self, team: &str, id: ContentId) -> Kept<bool>;
}
