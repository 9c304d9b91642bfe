//! Contents: how the bytes of a file are named.
//!
//! A content is cut into chunks where its own bytes say so (FastCDC, 2020
//! version: Xia et al., "The Design of Fast Content-Defined Chunking"), so that
//! a small edit of a large file leaves most chunks as they were. A content of
//! one chunk is named by its SHA-256; a larger one by the hash of its recipe,
//! the list of its chunks. The same bytes have the same name everywhere: the
//! chunk sizes are part of the format.

use std::fmt;
use std::io::{self, Read};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

use crate::text;

const MIN_CHUNK: usize = 64 * 1024;
const AVERAGE_CHUNK: usize = 128 * 1024;
/// The largest chunk, in bytes.
pub const MAX_CHUNK: usize = 512 * 1024;

/// Contents up to this size, in bytes, have exactly one chunk and travel inside
/// the requests, events and transactions that name them.
pub const INLINE_LIMIT: u64 = MIN_CHUNK as u64;

/// The kinds of content names in binary formats.
const CHUNK: u8 = 0;
const RECIPE: u8 = 1;

const HEX: [u8; 16] = *b"0123456789abcdef";

const RECIPE_HEAD: &[u8] = b"s0 recipe 1\n";

/// A SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// The SHA-256 of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Reads 64 lower-case hexadecimal digits.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return None;
        }
        let value = |digit: u8| match digit {
            b'0'..=b'9' => Some(digit - b'0'),
            b'a'..=b'f' => Some(digit - b'a' + 10),
            _ => None,
        };
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = value(pair[0])? << 4 | value(pair[1])?;
        }
        Some(Self(hash))
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Whole journals are made of these, so it is written in one go.
        let mut digits = [0; 64];
        for (pair, byte) in digits.chunks_exact_mut(2).zip(self.0) {
            pair.copy_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
        f.write_str(str::from_utf8(&digits).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::read(deserializer, |text| Self::from_hex(text).ok_or("not 64 hexadecimal digits"))
    }
}

/// The name of a content.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ContentId {
    /// One chunk: the SHA-256 of the bytes. Written `sha256:…`.
    Chunk(Hash),
    /// Several chunks: the SHA-256 of the encoded [`Recipe`]. Written `recipe:…`.
    Recipe(Hash),
}

impl ContentId {
    /// Reads `sha256:…` or `recipe:…`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once(':')? {
            ("sha256", hex) => Hash::from_hex(hex).map(Self::Chunk),
            ("recipe", hex) => Hash::from_hex(hex).map(Self::Recipe),
            _ => None,
        }
    }

    /// The hash, whichever it is of.
    #[must_use]
    pub fn hash(self) -> Hash {
        match self {
            Self::Chunk(hash) | Self::Recipe(hash) => hash,
        }
    }
}

impl fmt::Display for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chunk(hash) => write!(f, "sha256:{hash}"),
            Self::Recipe(hash) => write!(f, "recipe:{hash}"),
        }
    }
}

impl fmt::Debug for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// In binary formats the hash comes as its bytes, after one byte for the kind.
impl Serialize for ContentId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            return serializer.collect_str(self);
        }
        let (kind, hash) = match self {
            Self::Chunk(hash) => (CHUNK, hash),
            Self::Recipe(hash) => (RECIPE, hash),
        };
        let mut bytes = [kind; 33];
        bytes[1..].copy_from_slice(&hash.0);
        serializer.serialize_bytes(&bytes)
    }
}

impl<'de> Deserialize<'de> for ContentId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            return text::read(deserializer, |text| Self::parse(text).ok_or(NO_CONTENT_NAME));
        }
        deserializer.deserialize_bytes(Packed)
    }
}

const NO_CONTENT_NAME: &str = "not a content name";

/// Reads a [`ContentId`] of a binary format.
struct Packed;

impl serde::de::Visitor<'_> for Packed {
    type Value = ContentId;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the 33 bytes of a content name")
    }

    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<ContentId, E> {
        let read = || {
            let (kind, hash) = bytes.split_first()?;
            let hash = Hash(hash.try_into().ok()?);
            match *kind {
                CHUNK => Some(ContentId::Chunk(hash)),
                RECIPE => Some(ContentId::Recipe(hash)),
                _ => None,
            }
        };
        read().ok_or_else(|| E::custom(NO_CONTENT_NAME))
    }
}

/// A file's content: its name and its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Content {
    /// The name.
    pub id: ContentId,
    /// The length in bytes.
    pub size: u64,
}

impl Content {
    /// The content of bytes that are at hand.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        if bytes.len() as u64 <= INLINE_LIMIT {
            return Self { id: ContentId::Chunk(Hash::of(bytes)), size: bytes.len() as u64 };
        }
        let mut builder = ContentBuilder::default();
        for chunk in fastcdc::v2020::FastCDC::new(bytes, MIN_CHUNK, AVERAGE_CHUNK, MAX_CHUNK) {
            let part = &bytes[chunk.offset..chunk.offset + chunk.length];
            builder.push(Hash::of(part), part.len());
        }
        builder.finish().0
    }

    /// The content of an empty file.
    #[must_use]
    pub fn empty() -> Self {
        Self::of(b"")
    }

    /// Whether the content is one chunk small enough to travel inline.
    #[must_use]
    pub fn is_inline(&self) -> bool {
        self.size <= INLINE_LIMIT
    }
}

/// One chunk of a recipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkRef {
    /// The SHA-256 of its bytes.
    pub hash: Hash,
    /// Its length in bytes.
    pub size: u32,
}

/// The chunks of a content, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recipe {
    /// The chunks.
    pub chunks: Vec<ChunkRef>,
}

/// A recipe that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the recipe is damaged")]
pub struct BadRecipe;

impl Recipe {
    /// The content that the recipe describes.
    #[must_use]
    pub fn content(&self) -> Content {
        let size = self.chunks.iter().map(|chunk| u64::from(chunk.size)).sum();
        let id = match self.chunks.as_slice() {
            [] => ContentId::Chunk(Hash::of(b"")),
            [only] => ContentId::Chunk(only.hash),
            _ => ContentId::Recipe(Hash::of(&self.encode())),
        };
        Content { id, size }
    }

    /// The recipe as bytes, whose SHA-256 names the content.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(RECIPE_HEAD.len() + self.chunks.len() * 36);
        bytes.extend_from_slice(RECIPE_HEAD);
        for chunk in &self.chunks {
            bytes.extend_from_slice(&chunk.hash.0);
            bytes.extend_from_slice(&chunk.size.to_be_bytes());
        }
        bytes
    }

    /// Reads what [`Recipe::encode`] wrote.
    ///
    /// # Errors
    /// The bytes are not a recipe of two chunks or more, of legal sizes.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadRecipe> {
        let body = bytes.strip_prefix(RECIPE_HEAD).ok_or(BadRecipe)?;
        let (rows, rest) = body.as_chunks::<36>();
        if rows.len() < 2 || !rest.is_empty() {
            return Err(BadRecipe);
        }
        let chunks = rows.iter().map(|row| {
            let (hash, size) = row.split_at(32);
            let size = u32::from_be_bytes(size.try_into().map_err(|_| BadRecipe)?);
            if size == 0 || size as usize > MAX_CHUNK {
                return Err(BadRecipe);
            }
            Ok(ChunkRef { hash: Hash(hash.try_into().map_err(|_| BadRecipe)?), size })
        });
        Ok(Self { chunks: chunks.collect::<Result<_, _>>()? })
    }
}

/// One chunk's bytes.
#[derive(Debug, Clone)]
pub struct Chunk {
    /// Name and length.
    pub at: ChunkRef,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// Cuts a reader into chunks, holding one of them in memory at a time.
pub struct Chunker<R: Read>(Cutter<R>);

impl<R: Read> Chunker<R> {
    /// Cuts what `reader` gives.
    pub fn new(reader: R) -> Self {
        Self(Cutter::new(reader))
    }
}

impl<R: Read> Iterator for Chunker<R> {
    type Item = io::Result<Chunk>;
    fn next(&mut self) -> Option<Self::Item> {
        let chunk = self.0.next()?;
        Some(chunk.map(|bytes| {
            #[expect(clippy::cast_possible_truncation, reason = "a chunk has at most 512 KiB")]
            let size = bytes.len() as u32;
            Chunk { at: ChunkRef { hash: Hash::of(&bytes), size }, bytes }
        }))
    }
}

/// The same without the hashes, for whoever hashes elsewhere.
pub struct Cutter<R: Read>(fastcdc::v2020::StreamCDC<R>);

impl<R: Read> Cutter<R> {
    /// Cuts what `reader` gives.
    pub fn new(reader: R) -> Self {
        Self(fastcdc::v2020::StreamCDC::new(reader, MIN_CHUNK, AVERAGE_CHUNK, MAX_CHUNK))
    }
}

impl<R: Read> Iterator for Cutter<R> {
    type Item = io::Result<Vec<u8>>;
    fn next(&mut self) -> Option<Self::Item> {
        let chunk = self.0.next()?;
        Some(chunk.map(|chunk| chunk.data).map_err(io::Error::from))
    }
}

/// Collects chunks into a content.
#[derive(Debug, Default)]
pub struct ContentBuilder(Recipe);

impl ContentBuilder {
    /// Adds the next chunk.
    pub fn push(&mut self, hash: Hash, size: usize) {
        #[expect(clippy::cast_possible_truncation, reason = "a chunk has at most 512 KiB")]
        self.0.chunks.push(ChunkRef { hash, size: size as u32 });
    }

    /// The content of all that was added, and its recipe.
    #[must_use]
    pub fn finish(self) -> (Content, Recipe) {
        (self.0.content(), self.0)
    }
}

/// Names what `reader` gives, without keeping it.
///
/// # Errors
/// Those of the reader.
pub fn describe(reader: impl Read) -> io::Result<(Content, Recipe)> {
    let mut builder = ContentBuilder::default();
    for chunk in Chunker::new(reader) {
        builder.0.chunks.push(chunk?.at);
    }
    Ok(builder.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(len: usize) -> Vec<u8> {
        let mut state = 7_u64;
        std::iter::repeat_with(|| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as u8
        })
        .take(len)
        .collect()
    }

    #[test]
    fn a_stream_and_a_slice_have_one_name() {
        for len in [0, 1, 65_535, 65_536, 65_537, 600_000, 3_000_000] {
            let bytes = noise(len);
            let (streamed, recipe) = describe(&bytes[..]).unwrap();
            assert_eq!(streamed, Content::of(&bytes), "{len} bytes");
            assert_eq!(streamed.size, len as u64);
            if recipe.chunks.len() > 1 {
                assert_eq!(Recipe::decode(&recipe.encode()).unwrap(), recipe);
            }
            assert_eq!(len as u64 <= INLINE_LIMIT, streamed.is_inline());
            if streamed.is_inline() {
                assert_eq!(streamed.id, ContentId::Chunk(Hash::of(&bytes)));
            }
        }
    }

    #[test]
    fn a_small_edit_keeps_most_chunks() {
        let mut bytes = noise(3_000_000);
        let (_, before) = describe(&bytes[..]).unwrap();
        bytes.insert(1_500_000, 1);
        let (_, after) = describe(&bytes[..]).unwrap();
        let new = after.chunks.iter().filter(|chunk| !before.chunks.contains(chunk)).count();
        assert!(new <= 2, "{new} of {} chunks changed", after.chunks.len());
    }

    #[test]
    fn damaged_recipes_are_refused() {
        let recipe = describe(&noise(600_000)[..]).unwrap().1.encode();
        for bad in [&b""[..], b"s0 recipe 1\n", &recipe[..recipe.len() - 1], &recipe[1..]] {
            assert_eq!(Recipe::decode(bad), Err(BadRecipe));
        }
    }

    #[test]
    fn names_of_contents_round_trip() {
        let id = Content::of(b"x").id;
        assert_eq!(ContentId::parse(&id.to_string()), Some(id));
        for bad in ["", "sha256", "sha256:", "sha1:00", "sha256:ABCD"] {
            assert_eq!(ContentId::parse(bad), None);
        }
    }
}
