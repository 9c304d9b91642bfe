//! Hunks: the differences of a file, as they are shown and decided on.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::item::Write;
use crate::lines::{Lines, Marks};
use crate::text::count_lines;

/// The number of a state of a review. It grows with each change of the review and
/// is never used again.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Version(pub u64);

/// The name of a hunk. It holds for one version of its file: in any other it names
/// nothing, so that a decision never meets another hunk than the one that was
/// looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HunkId {
    /// The version of the file.
    pub version: Version,
    /// The number of the hunk in it, from the top, beginning with 0.
    pub number: usize,
}

/// What a hunk does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HunkKind {
    /// There are new lines.
    Added,
    /// Lines are in the place of others.
    Changed,
    /// Lines are gone.
    Removed,
}

/// A place at which the current text differs from the reviewed one. Between two
/// hunks is at least one line that both texts have.
///
/// Lines are counted from 0 and end in `\n`; ranges are half open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hunk {
    /// Its name.
    pub id: HunkId,
    /// What it does.
    pub kind: HunkKind,
    /// The lines of the reviewed text that are gone.
    pub reviewed: Range<usize>,
    /// The lines of the current text that are new.
    pub current: Range<usize>,
    /// The writes that made it, oldest first. A Keep or Revert of any of them
    /// changes the hunk.
    pub writes: Vec<Write>,
    /// Who removed each line of `reviewed`, as a place in `writes`.
    pub removed_by: Vec<usize>,
    /// Who added each line of `current`, as a place in `writes`.
    pub added_by: Vec<usize>,
}

/// The hunks of a file, from the top.
pub(crate) fn hunks(lines: &Lines, version: Version) -> Vec<Hunk> {
    let mut found = Vec::new();
    let (mut reviewed, mut current) = (0, 0);
    for run in lines.blocks().chunk_by(|a, b| a.marks.is_settled() == b.marks.is_settled()) {
        let count = |has: fn(Marks) -> bool| -> usize {
            run.iter().filter(|block| has(block.marks)).map(|block| count_lines(&block.text)).sum()
        };
        let was = reviewed..reviewed + count(Marks::is_reviewed);
        let is = current..current + count(Marks::is_current);
        (reviewed, current) = (was.end, is.end);
        if run[0].marks.is_settled() {
            continue;
        }
        let key = |mark: &u32| (lines.writes()[*mark as usize].seq, *mark);
        let mut marks: Vec<u32> = run
            .iter()
            .flat_map(|block| [block.marks.added, block.marks.removed])
            .flatten()
            .collect();
        marks.sort_unstable_by_key(key);
        marks.dedup();
        let mut removed_by = Vec::with_capacity(was.len());
        let mut added_by = Vec::with_capacity(is.len());
        for block in run {
            let place = |mark| marks.binary_search_by_key(&key(&mark), key).unwrap_or_default();
            let count = count_lines(&block.text);
            match (block.marks.added, block.marks.removed) {
                (None, Some(mark)) => removed_by.extend(std::iter::repeat_n(place(mark), count)),
                (Some(mark), None) => added_by.extend(std::iter::repeat_n(place(mark), count)),
                _ => {}
            }
        }
        found.push(Hunk {
            id: HunkId { version, number: found.len() },
            kind: match (was.is_empty(), is.is_empty()) {
                (true, _) => HunkKind::Added,
                (_, true) => HunkKind::Removed,
                _ => HunkKind::Changed,
            },
            reviewed: was,
            current: is,
            writes: marks.iter().map(|mark| lines.writes()[*mark as usize].clone()).collect(),
            removed_by,
            added_by,
        });
    }
    found
}
