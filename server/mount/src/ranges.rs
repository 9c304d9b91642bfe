//! Sets of byte ranges.

use std::collections::BTreeMap;
use std::ops::Range;

/// Ranges of bytes that neither overlap nor touch, by where they start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    /// Adds a range.
    pub(crate) fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let (mut start, mut end) = (range.start, range.end);
        // All that overlaps or touches it starts at or before its end.
        while let Some((&at, &until)) = self.0.range(..=end).next_back()
            && until >= start
        {
            self.0.remove(&at);
            (start, end) = (start.min(at), end.max(until));
        }
        self.0.insert(start, end);
    }

    /// Drops all from `end` on.
    pub(crate) fn truncate(&mut self, end: u64) {
        self.0.split_off(&end);
        if let Some(mut last) = self.0.last_entry()
            && *last.get() > end
        {
            last.insert(end);
        }
    }

    /// Where the last range ends; zero when there is none.
    pub(crate) fn end(&self) -> u64 {
        self.0.last_key_value().map_or(0, |(_, end)| *end)
    }

    /// Cuts `range` into parts that are in the set and parts that are not, in order.
    pub(crate) fn cut(&self, range: Range<u64>) -> Vec<(Range<u64>, bool)> {
        let mut parts = Vec::new();
        let mut at = range.start;
        let before = self.0.range(..=range.start).next_back();
        let after = self.0.range(range.start + 1..range.end.max(range.start + 1));
        for (&start, &end) in before.into_iter().chain(after) {
            let (start, end) = (start.max(at), end.min(range.end));
            if start >= end {
                continue;
            }
            if at < start {
                parts.push((at..start, false));
            }
            parts.push((start..end, true));
            at = end;
        }
        if at < range.end {
            parts.push((at..range.end, false));
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Insert(Range<u64>),
        Truncate(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..60_u64, 0..20_u64).prop_map(|(at, length)| Step::Insert(at..at + length)),
            (0..70_u64).prop_map(Step::Truncate),
        ]
    }

    proptest! {
        #[test]
        fn it_is_a_set_of_bytes(steps in prop::collection::vec(step(), 0..40), from in 0..70_u64, length in 0..30_u64) {
            let (mut ranges, mut model) = (Ranges::default(), [false; 100]);
            for step in steps {
                match step {
                    Step::Insert(range) => {
                        for at in range.clone() { model[at as usize] = true; }
                        ranges.insert(range);
                    }
                    Step::Truncate(end) => {
                        model[end as usize..].fill(false);
                        ranges.truncate(end);
                    }
                }
            }
            let mut at = from;
            for (part, is_in) in ranges.cut(from..from + length) {
                prop_assert_eq!(part.start, at);
                prop_assert!(!part.is_empty());
                prop_assert!(part.clone().all(|byte| model[byte as usize] == is_in));
                at = part.end;
            }
            prop_assert_eq!(at, from + length);
            prop_assert_eq!(ranges.end() as usize, model.iter().rposition(|it| *it).map_or(0, |at| at + 1));
            // None touch.
            let all: Vec<_> = ranges.0.iter().collect();
            prop_assert!(all.windows(2).all(|two| two[0].1 < two[1].0));
        }
    }
}
