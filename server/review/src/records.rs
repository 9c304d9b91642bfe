//! All paths under review, and the limits of what is held of them.

use std::collections::BTreeMap;
use std::ops::Bound;

use s0_tree::TreePath;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::record::Record;

/// The format of a stored review. Another one is refused, never guessed at.
pub const FORMAT: u8 = 1;
/// The most items that are listed. Changes of further paths are counted.
pub const MAX_ITEMS: usize = 10_000;
/// The most bytes of text that are held for all items together. Further files are
/// reviewed as a whole.
pub const MAX_TOTAL_BYTES: usize = 64 << 20;
/// How much of what was kept is remembered.
pub const MAX_REVIEWED: usize = 200;

/// The records by path.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Records {
    map: BTreeMap<TreePath, Record>,
    bytes: usize,
}

impl Records {
    pub(crate) fn get(&self, path: &TreePath) -> Option<&Record> {
        self.map.get(path)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&TreePath, &Record)> {
        self.map.iter()
    }

    pub(crate) fn paths(&self) -> Vec<TreePath> {
        self.map.keys().cloned().collect()
    }

    /// Takes a record out, to be changed and put back.
    pub(crate) fn take(&mut self, path: &TreePath) -> Option<Record> {
        let record = self.map.remove(path)?;
        self.bytes -= record.bytes();
        Some(record)
    }

    pub(crate) fn put(&mut self, path: TreePath, record: Record) {
        self.bytes += record.bytes();
        if let Some(before) = self.map.insert(path, record) {
            self.bytes -= before.bytes();
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.map.len() >= MAX_ITEMS
    }

    /// Whether so many more bytes of text may be held.
    pub(crate) fn has_room_for(&self, bytes: usize) -> bool {
        self.bytes + bytes <= MAX_TOTAL_BYTES
    }

    /// The paths at and below this one.
    pub(crate) fn within(&self, path: &TreePath) -> Vec<TreePath> {
        let from = (Bound::Included(path.clone()), Bound::Unbounded);
        self.map
            .range(from)
            .map(|(at, _)| at)
            // Names like `a-b` lie between `a` and `a/b`.
            .take_while(|at| at.as_str().starts_with(path.as_str()))
            .filter(|at| at.is_at_or_below(path))
            .cloned()
            .collect()
    }

    /// All that was at or below `from` is at or below `to`. Answers the new paths.
    pub(crate) fn rename(&mut self, from: &TreePath, to: &TreePath) -> Vec<TreePath> {
        let mut renamed = Vec::new();
        for path in self.within(from) {
            if let (Some(record), Some(path)) = (self.take(&path), path.rebase(from, to)) {
                renamed.push((path, record));
            }
        }
        let paths = renamed.iter().map(|(path, _)| path.clone()).collect();
        renamed.into_iter().for_each(|(path, record)| self.put(path, record));
        // What came out of this directory goes back into it, wherever it is.
        for record in self.map.values_mut().filter_map(|record| record.renamed.as_mut()) {
            if record.from != *from
                && let Some(path) = record.from.rebase(from, to)
            {
                record.from = path;
            }
        }
        paths
    }
}

#[derive(Serialize)]
struct Writing<'a> {
    path: &'a TreePath,
    record: &'a Record,
}

#[derive(Deserialize)]
struct Reading {
    #[serde(deserialize_with = "TreePath::recorded")]
    path: TreePath,
    record: Record,
}

impl Serialize for Records {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.map.iter().map(|(path, record)| Writing { path, record }))
    }
}

impl<'de> Deserialize<'de> for Records {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut records = Self::default();
        for Reading { path, record } in Vec::<Reading>::deserialize(deserializer)? {
            records.put(path, record);
        }
        Ok(records)
    }
}
