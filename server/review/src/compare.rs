//! Where two texts differ.

use std::ops::Range;

use imara_diff::{Algorithm, Diff, IndentHeuristic, IndentLevel, InternedInput, Token};

/// So many equal lines beside a difference take part in placing it: a block that
/// was put between equal neighbours is shown where a reader would have put it.
const CONTEXT: usize = 200;

/// So many lines are compared at once, on each side. Where more of them have no
/// line that is like no other, as in a table of few values, the time that it takes
/// grows faster than they do.
const WINDOW: usize = 4096;

/// So many bytes are compared at once while texts are the same.
const BLOCK: usize = 4096;

/// Lines, and what stands in their place in another text. Between two of them is
/// at least one line that both texts have.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    pub(crate) before: Range<usize>,
    pub(crate) after: Range<usize>,
}

/// Where two texts differ, in order.
pub(crate) fn differences(before: &[&str], after: &[&str]) -> Vec<Difference> {
    let same = |(a, b): &(&&str, &&str)| a == b;
    let prefix = before.iter().zip(after).take_while(same).count();
    if prefix == before.len() && prefix == after.len() {
        return Vec::new();
    }
    let (rest_before, rest_after) = (&before[prefix..], &after[prefix..]);
    let suffix = rest_before.iter().rev().zip(rest_after.iter().rev()).take_while(same).count();
    let first = prefix.saturating_sub(CONTEXT);
    let left_out = suffix.saturating_sub(CONTEXT);

    let mut input = InternedInput::default();
    input.update_before(before[first..before.len() - left_out].iter().copied());
    input.update_after(after[first..after.len() - left_out].iter().copied());
    let mut comparison = Comparison { input: &input, found: Vec::new() };
    comparison.all();
    let moved = |range: Range<usize>| first + range.start..first + range.end;
    let found = comparison.found.into_iter();
    found.map(|it| Difference { before: moved(it.before), after: moved(it.after) }).collect()
}

/// Which lines of two texts are the same ones, in order.
pub(crate) fn common(before: &[&str], after: &[&str]) -> Vec<(usize, usize)> {
    let mut pairs = Vec::new();
    let mut at = (0, 0);
    for difference in differences(before, after) {
        pairs.extend((at.0..difference.before.start).zip(at.1..));
        at = (difference.before.end, difference.after.end);
    }
    pairs.extend((at.0..before.len()).zip(at.1..));
    pairs
}

/// How many bytes two texts have in common at the beginning, in whole lines and
/// without those that take part in placing a difference after them.
pub(crate) fn common_start(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let blocks = a.chunks(BLOCK).zip(b.chunks(BLOCK)).take_while(|(a, b)| a == b).count() * BLOCK;
    let at = blocks.min(a.len()).min(b.len());
    let more = a[at..].iter().zip(&b[at..]).take_while(|(a, b)| a == b).count();
    let ends = a[..at + more].iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n');
    ends.map(|(end, _)| end + 1).nth(CONTEXT).unwrap_or(0)
}

/// The same at the end.
pub(crate) fn common_end(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let blocks = a.rchunks(BLOCK).zip(b.rchunks(BLOCK)).take_while(|(a, b)| a == b).count() * BLOCK;
    let at = blocks.min(a.len()).min(b.len());
    let (rest_a, rest_b) = (&a[..a.len() - at], &b[..b.len() - at]);
    let more = rest_a.iter().rev().zip(rest_b.iter().rev()).take_while(|(a, b)| a == b).count();
    let start = a.len() - at - more;
    let mut ends = a[start..].iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    ends.nth(CONTEXT).map_or(0, |(end, _)| a.len() - start - end - 1)
}

struct Comparison<'a> {
    input: &'a InternedInput<&'a str>,
    found: Vec<Difference>,
}

impl Comparison<'_> {
    fn all(&mut self) {
        let (before, after) = (self.input.before.len(), self.input.after.len());
        if before <= WINDOW && after <= WINDOW {
            return self.take(self.window(0..before, 0..after));
        }
        let mut at = (0, 0);
        for anchor in anchors(self.input) {
            self.between(at.0..anchor.0, at.1..anchor.1);
            at = (anchor.0 + 1, anchor.1 + 1);
        }
        self.between(at.0..before, at.1..after);
    }

    /// Compares window by window. One ends with its last common line, so that the
    /// next begins where the texts are level, unless that would hardly be forward.
    fn between(&mut self, mut before: Range<usize>, mut after: Range<usize>) {
        while !before.is_empty() || !after.is_empty() {
            let was = before.start..before.end.min(before.start + WINDOW);
            let is = after.start..after.end.min(after.start + WINDOW);
            let whole = was == before && is == after;
            let mut found = self.window(was.clone(), is.clone());
            (before.start, after.start) = (was.end, is.end);
            let level = found.last().filter(|last| {
                let is_forward = last.before.start - was.start >= WINDOW / 2
                    || last.after.start - is.start >= WINDOW / 2;
                !whole && is_forward && last.before.end == was.end && last.after.end == is.end
            });
            if let Some(last) = level {
                (before.start, after.start) = (last.before.start, last.after.start);
                found.pop();
            }
            self.take(found);
        }
    }

    fn window(&self, before: Range<usize>, after: Range<usize>) -> Vec<Difference> {
        let (was, is) = (&self.input.before[before.clone()], &self.input.after[after.clone()]);
        let interner = &self.input.interner;
        let mut diff = Diff::default();
        // The other algorithms are quadratic where texts have little in common.
        diff.compute_with(Algorithm::Myers, was, is, interner.num_tokens());
        let indent = |token: Token| IndentLevel::for_ascii_line(interner[token].bytes(), 8);
        diff.postprocess_with(was, is, IndentHeuristic::new(indent));
        let moved =
            |by: usize, range: Range<u32>| by + range.start as usize..by + range.end as usize;
        let moved = |hunk: imara_diff::Hunk| Difference {
            before: moved(before.start, hunk.before),
            after: moved(after.start, hunk.after),
        };
        diff.hunks().map(moved).collect()
    }

    fn take(&mut self, found: Vec<Difference>) {
        for next in found {
            match self.found.last_mut() {
                Some(last)
                    if last.before.end == next.before.start
                        && last.after.end == next.after.start =>
                {
                    (last.before.end, last.after.end) = (next.before.end, next.after.end);
                }
                _ => self.found.push(next),
            }
        }
    }
}

/// Lines that are once in either text, and in one order in both: as many of them
/// as there are.
fn anchors(input: &InternedInput<&str>) -> Vec<(usize, usize)> {
    let tokens = input.interner.num_tokens() as usize;
    let only = |lines: &[Token]| {
        let mut places = vec![None; tokens];
        let mut counts = vec![0_u32; tokens];
        for (at, token) in lines.iter().enumerate() {
            places[token.0 as usize] = Some(at);
            counts[token.0 as usize] += 1;
        }
        places
            .iter_mut()
            .zip(counts)
            .filter(|(_, count)| *count > 1)
            .for_each(|(it, _)| *it = None);
        places
    };
    let (before, after) = (only(&input.before), only(&input.after));
    let mut pairs: Vec<(usize, usize)> =
        before.into_iter().zip(after).filter_map(|(was, is)| was.zip(is)).collect();
    pairs.sort_unstable();

    // The longest increasing subsequence: for each length, the pair that ends the
    // best one, and for each pair the one before it.
    let mut ends: Vec<usize> = Vec::new();
    let mut earlier = vec![None; pairs.len()];
    for (at, (_, is)) in pairs.iter().enumerate() {
        let length = ends.partition_point(|end| pairs[*end].1 < *is);
        earlier[at] = length.checked_sub(1).map(|length| ends[length]);
        match ends.get_mut(length) {
            Some(end) => *end = at,
            None => ends.push(at),
        }
    }
    let mut chain: Vec<_> = std::iter::successors(ends.last().copied(), |at| earlier[*at])
        .map(|at| pairs[at])
        .collect();
    chain.reverse();
    chain
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::lines_of;

    fn found(before: &str, after: &str) -> Vec<Difference> {
        let lines = |text| lines_of(text).collect::<Vec<_>>();
        let (before, after) = (lines(before), lines(after));
        let found = differences(&before, &after);
        let mut at = (0, 0);
        for (number, it) in found.iter().enumerate() {
            assert_eq!(before[at.0..it.before.start], after[at.1..it.after.start]);
            assert!(number == 0 || it.before.start > at.0, "no line between two of {found:?}");
            assert!(!it.before.is_empty() || !it.after.is_empty());
            at = (it.before.end, it.after.end);
        }
        assert_eq!(before[at.0..], after[at.1..]);
        found
    }

    fn numbers(range: Range<usize>) -> String {
        range.map(|at| format!("{at}\n")).collect()
    }

    #[test]
    fn an_added_block_is_shown_where_a_reader_sees_it() {
        let before = "fn a() {\n    1\n}\n\nfn c() {\n    3\n}\n";
        let after = "fn a() {\n    1\n}\n\nfn b() {\n    2\n}\n\nfn c() {\n    3\n}\n";
        assert_eq!(found(before, after), [Difference { before: 4..4, after: 4..8 }]);
    }

    #[test]
    fn long_texts_are_compared_between_lines_that_are_like_no_other() {
        let before = numbers(0..50_000);
        // A line changes, ten thousand lines come, and ten thousand others go.
        let after = before
            .replace("\n9\n", "\nnine\n")
            .replace(&numbers(30_000..40_000), &numbers(60_000..70_000));
        let wanted = [
            Difference { before: 9..10, after: 9..10 },
            Difference { before: 30_000..40_000, after: 30_000..40_000 },
        ];
        assert_eq!(found(&before, &after), wanted);
        let moved = numbers(20_000..50_000) + &numbers(0..20_000);
        assert_eq!(found(&before, &moved).len(), 2);
    }

    #[test]
    fn long_texts_of_few_lines_are_compared_window_by_window() {
        let long = "a\nb\nb\n".repeat(20_000);
        let mut after = long.clone();
        after.insert_str(2 * 50_000, "new\n");
        after.insert_str(2 * 10, "a\n");
        assert_eq!(found(&long, &after).len(), 2);
        assert_eq!(found(&long, &"b\na\n".repeat(30_000)).last().unwrap().after.end, 60_000);
        assert_eq!(found(&long, "b\nb\n").iter().map(|it| it.before.len()).sum::<usize>(), 59_998);
    }

    #[test]
    fn texts_of_few_lines_in_no_order_are_compared_in_bounded_time() {
        let few = |seed: usize| -> String {
            let mut random = seed;
            let next = |_| {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                format!("{}\n", random >> 33 & 3)
            };
            (0..100_000).map(next).collect()
        };
        let begun = std::time::Instant::now();
        assert!(!found(&few(1), &few(2)).is_empty());
        // At once, this takes more than a minute without optimisation.
        assert!(begun.elapsed() < std::time::Duration::from_secs(40), "{:?}", begun.elapsed());
    }
}
