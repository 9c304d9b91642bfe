//! How values lie in columns.

use s0_tree::{Content, ContentId, Hash, Seq, Time};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::journal::{Kept, StoreError};

pub(super) fn id_bytes(id: ContentId) -> [u8; 33] {
    let mut bytes = [0; 33];
    bytes[0] = u8::from(matches!(id, ContentId::Recipe(_)));
    bytes[1..].copy_from_slice(&id.hash().0);
    bytes
}

pub(super) fn id_from(bytes: &[u8]) -> Kept<ContentId> {
    let (kind, hash) = bytes.split_first().ok_or_else(damaged)?;
    let hash = hash_from(hash)?;
    match kind {
        0 => Ok(ContentId::Chunk(hash)),
        1 => Ok(ContentId::Recipe(hash)),
        _ => Err(damaged()),
    }
}

pub(super) fn hash_from(bytes: &[u8]) -> Kept<Hash> {
    bytes.try_into().map(Hash).map_err(|_| damaged())
}

pub(super) fn content_from(id: &[u8], size: i64) -> Kept<Content> {
    Ok(Content { id: id_from(id)?, size: size.cast_unsigned() })
}

/// SQLite's integers are signed; seqs and sizes stay far below the sign.
pub(super) fn number(value: u64) -> i64 {
    value.cast_signed()
}

pub(super) fn seq(value: i64) -> Seq {
    Seq(value.cast_unsigned())
}

pub(super) fn time(value: i64) -> Time {
    Time(value)
}

pub(super) fn to_json(value: &impl Serialize) -> Kept<String> {
    serde_json::to_string(value).map_err(|error| StoreError::Failed(error.to_string()))
}

pub(super) fn from_json<T: DeserializeOwned>(text: &str) -> Kept<T> {
    serde_json::from_str(text).map_err(|error| {
        let what = "a row of the database is damaged or newer than this program";
        StoreError::Damaged(format!("{what}: {error}"))
    })
}

pub(super) fn damaged() -> StoreError {
    StoreError::Damaged("a row of the database is damaged".into())
}
