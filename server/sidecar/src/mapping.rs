//! Lines of one text in another: a review speaks of the file, an editor shows a
//! buffer.

use std::ops::Range;

use imara_diff::{Algorithm, Diff, InternedInput};

/// Where the lines of one text are in another.
pub(crate) struct Mapping {
    /// Lines that differ, of the one and the other.
    hunks: Vec<(Range<usize>, Range<usize>)>,
}

impl Mapping {
    pub(crate) fn new(from: &str, to: &str) -> Self {
        if from == to {
            return Self { hunks: Vec::new() };
        }
        let input = InternedInput::new(from, to);
        let mut diff = Diff::compute(Algorithm::Histogram, &input);
        diff.postprocess_lines(&input);
        let range = |range: Range<u32>| range.start as usize..range.end as usize;
        Self { hunks: diff.hunks().map(|hunk| (range(hunk.before), range(hunk.after))).collect() }
    }

    /// Where these lines are. Those that are not there any more are left out; of none
    /// that are left, it is an empty range at the place where they were.
    pub(crate) fn lines(&self, lines: &Range<usize>) -> Range<usize> {
        let start = self.line(lines.start);
        if lines.is_empty() {
            return start..start;
        }
        start..self.line(lines.end).max(start)
    }

    /// Where the place before a line is.
    fn line(&self, line: usize) -> usize {
        let after = self.hunks.partition_point(|(from, _)| from.start < line);
        match after.checked_sub(1).map(|last| &self.hunks[last]) {
            None => line,
            Some((from, to)) if line < from.end => to.end.min(to.start + (line - from.start)),
            Some((from, to)) => to.end + (line - from.end),
        }
    }

    /// Where the texts differ, in lines of the one and the other.
    pub(crate) fn differences(&self) -> &[(Range<usize>, Range<usize>)] {
        &self.hunks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_again_around_edits() {
        let from = "a\nb\nc\nd\ne\n";
        let same = Mapping::new(from, from);
        assert_eq!(same.lines(&(1..3)), 1..3);
        let longer = Mapping::new(from, "new\na\nb\nc\nd\ne\n");
        assert_eq!(longer.lines(&(1..3)), 2..4);
        assert_eq!(longer.lines(&(2..2)), 3..3);
        let cut = Mapping::new(from, "a\nd\ne\n");
        assert_eq!(cut.lines(&(1..3)), 1..1);
        assert_eq!(cut.lines(&(1..4)), 1..2);
        assert_eq!(cut.lines(&(4..5)), 2..3);
        let edited = Mapping::new(from, "a\nB\nC\nd\ne\n");
        assert_eq!(edited.lines(&(1..3)), 1..3);
        assert_eq!(edited.lines(&(3..5)), 3..5);
    }
}
