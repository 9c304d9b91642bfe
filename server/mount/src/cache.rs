//! Chunks that were fetched or written, on the local disk.
//!
//! The cache is one file without a name, written round and round: what is oldest makes
//! room. It needs no cleaning up after a crash, and nobody else can read it.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use s0_tree::Hash;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    at: u64,
    length: u32,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Cache {
    file: File,
    capacity: u64,
    /// Where the next chunk goes.
    at: u64,
    places: HashMap<Hash, Place>,
    /// In the order in which they were written, from the oldest.
    order: VecDeque<(Hash, Place)>,
}

impl Cache {
    /// A cache of so many bytes in a directory.
    pub(crate) fn new(directory: &Path, capacity: u64) -> io::Result<Self> {
        let file = tempfile::tempfile_in(directory)?;
        Ok(Self { file, capacity, at: 0, places: HashMap::new(), order: VecDeque::new() })
    }

    /// Whether a chunk is there.
    pub(crate) fn has(&self, chunk: Hash) -> bool {
        self.places.contains_key(&chunk)
    }

    /// Reads a part of a chunk, if it is there.
    pub(crate) fn read(&self, chunk: Hash, range: Range<u32>, into: &mut [u8]) -> bool {
        let Some(place) = self.places.get(&chunk) else { return false };
        range.end <= place.length
            && self.file.read_exact_at(into, place.at + u64::from(range.start)).is_ok()
    }

    /// Keeps a chunk. That there is no room on the disk only makes it forgetful.
    pub(crate) fn put(&mut self, chunk: Hash, bytes: &[u8]) {
        let Ok(length) = u32::try_from(bytes.len()) else { return };
        let size = u64::from(length);
        if size == 0 || size > self.capacity || self.has(chunk) {
            return;
        }
        if self.at + size > self.capacity {
            // What is between here and the end goes now, so that the order is that of places.
            self.make_room(self.at..self.capacity);
            self.at = 0;
        }
        let place = Place { at: self.at, length };
        self.make_room(self.at..self.at + size);
        if self.file.write_all_at(bytes, place.at).is_ok() {
            self.places.insert(chunk, place);
            self.order.push_back((chunk, place));
            self.at += size;
        }
    }

    fn make_room(&mut self, range: Range<u64>) {
        while let Some((chunk, place)) = self.order.front()
            && place.at < range.end
            && place.at + u64::from(place.length) > range.start
        {
            self.places.remove(chunk);
            self.order.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_make_room_and_what_is_there_is_right() {
        let dir = tempfile::tempdir().unwrap();
        let mut cache = Cache::new(dir.path(), 10_000).unwrap();
        let chunks: Vec<Vec<u8>> =
            (0..200_usize).map(|n| vec![n as u8; 1 + n * 37 % 900]).collect();
        for (n, bytes) in chunks.iter().enumerate() {
            cache.put(Hash::of(bytes), bytes);
            let mut there = 0;
            for bytes in &chunks[..=n] {
                let mut read = vec![0; bytes.len()];
                if cache.read(Hash::of(bytes), 0..bytes.len() as u32, &mut read) {
                    assert_eq!(&read, bytes);
                    there += bytes.len();
                }
            }
            assert!(there <= 10_000);
            assert!(there > 7_000 || n < 30, "{n}: {there}");
            assert!(cache.has(Hash::of(bytes)));
        }
        assert!(!cache.read(Hash::of(&chunks[199]), 0..9999, &mut [0; 9999]));
    }
}
