//! Contents: where they are cut, and how they are named.

use std::collections::HashSet;
use std::io::{self, Read};

use proptest::prelude::*;
use s0_tree::{Chunker, Content, ContentId, Hash, MAX_CHUNK, Recipe, describe};

use crate::times;

/// Bytes that look random, the same for one seed.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

/// Contents of all sizes; some of them with long stretches of one byte.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let len = prop_oneof![0..200_usize, 60_000..70_000_usize, 0..1_200_000_usize];
    (any::<u64>(), len, prop::option::of(0..1_200_000_usize)).prop_map(|(seed, len, flat)| {
        let mut bytes = noise(seed, len);
        if let Some(flat) = flat {
            let end = len.min(flat + 600_000);
            bytes[flat.min(len)..end].fill(0);
        }
        bytes
    })
}

/// Gives a few bytes at a time, as pipes and networks do.
struct Sips<'a> {
    left: &'a [u8],
    sip: usize,
}

impl Read for Sips<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let sip = into.len().min(self.sip);
        self.left.read(&mut into[..sip])
    }
}

proptest! {
    #![proptest_config(times(24))]

    #[test]
    fn chunks_are_the_content_in_pieces(bytes in bytes(), sip in 1..100_000_usize) {
        let mut joined = Vec::new();
        let chunks: Vec<_> = Chunker::new(&bytes[..]).map(Result::unwrap).collect();
        for chunk in &chunks {
            prop_assert!(!chunk.bytes.is_empty() && chunk.bytes.len() <= MAX_CHUNK);
            prop_assert_eq!(chunk.at.size as usize, chunk.bytes.len());
            prop_assert_eq!(chunk.at.hash, Hash::of(&chunk.bytes));
            joined.extend_from_slice(&chunk.bytes);
        }
        prop_assert!(joined == bytes);
        let (content, recipe) = describe(Sips { left: &bytes, sip }).unwrap();
        prop_assert_eq!(content, Content::of(&bytes));
        prop_assert_eq!(content.size, bytes.len() as u64);
        let cut: Vec<_> = chunks.iter().map(|chunk| chunk.at).collect();
        prop_assert_eq!(&recipe.chunks, &cut);
        prop_assert_eq!(recipe.content(), content);
        if cut.len() > 1 {
            prop_assert_eq!(Recipe::decode(&recipe.encode()), Ok(recipe));
        }
    }

    #[test]
    fn a_few_bytes_change_a_few_chunks(
        seed in any::<u64>(), at in 0..2_000_000_usize, edit in prop::collection::vec(any::<u8>(), 1..20),
        cut in 0..20_usize,
    ) {
        let before = noise(seed, 2_000_000);
        let mut after = before.clone();
        let end = after.len().min(at + cut);
        after.splice(at..end, edit);
        let known: HashSet<Hash> =
            Chunker::new(&before[..]).map(|chunk| chunk.unwrap().at.hash).collect();
        let chunks: Vec<_> = Chunker::new(&after[..]).map(Result::unwrap).collect();
        let new = chunks.iter().filter(|chunk| !known.contains(&chunk.at.hash)).count();
        prop_assert!(new <= 5, "{} of {} chunks are new", new, chunks.len());
    }
}

proptest! {
    #![proptest_config(times(256))]

    #[test]
    fn a_recipe_is_read_only_as_it_was_written(
        head in prop::bool::weighted(0.9), rows in prop::collection::vec(any::<u8>(), 0..150),
        size in prop::option::of(0..600_000_u32),
    ) {
        let mut bytes = if head { b"s0 recipe 1\n".to_vec() } else { Vec::new() };
        bytes.extend(rows);
        if let Some(size) = size {
            bytes.truncate(12 + 72);
            bytes.resize(12 + 72, 7);
            for end in [12 + 36, 12 + 72] {
                bytes[end - 4..end].copy_from_slice(&size.to_be_bytes());
            }
        }
        if let Ok(recipe) = Recipe::decode(&bytes) {
            prop_assert_eq!(recipe.encode(), bytes);
            prop_assert!(recipe.chunks.len() >= 2);
            let legal = |size: u32| size > 0 && size as usize <= MAX_CHUNK;
            prop_assert!(recipe.chunks.iter().all(|chunk| legal(chunk.size)));
        }
    }

    #[test]
    fn names_of_contents_are_read_as_they_are_written(text in "(sha256|recipe|md5)?:?[0-9a-fA-F]{60,66}") {
        if let Some(id) = ContentId::parse(&text) {
            prop_assert_eq!(id.to_string(), &*text);
            prop_assert!(matches!(id, ContentId::Chunk(_)) == text.starts_with("sha256:"));
        }
        let id = ContentId::Recipe(Hash::of(text.as_bytes()));
        prop_assert_eq!(ContentId::parse(&id.to_string()), Some(id));
        prop_assert_eq!(Hash::from_hex(&id.hash().to_string()), Some(id.hash()));
    }
}
