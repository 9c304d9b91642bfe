//! One text of base, mine and theirs.

use std::ops::Range;

use imara_diff::{Algorithm, Diff, InternedInput};

/// What the markers around an overlap begin with, in order.
const MARKERS: [&str; 4] = ["<<<<<<< mine", "||||||| base", "=======", ">>>>>>> theirs"];

/// A merged text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Merged {
    pub(crate) text: String,
    /// How many places both sides changed, each in its way. They are marked.
    pub(crate) overlaps: usize,
}

/// A text as lines, each with its end, and where it differs from another one.
struct Version<'a> {
    lines: Vec<&'a str>,
    /// Lines of the other text, and what is in their place here. Between two of
    /// them is at least one line that both have.
    hunks: Vec<(Range<usize>, Range<usize>)>,
}

impl<'a> Version<'a> {
    fn new(text: &'a str, other: &str) -> Self {
        let input = InternedInput::new(other, text);
        // Others are quadratic where the texts have little in common.
        let mut diff = Diff::compute(Algorithm::Myers, &input);
        // The same change is at the same place on both sides then.
        diff.postprocess_no_heuristic(&input);
        let range = |range: Range<u32>| range.start as usize..range.end as usize;
        let hunks = diff.hunks().map(|hunk| (range(hunk.before), range(hunk.after)));
        Self { lines: text.split_inclusive('\n').collect(), hunks: hunks.collect() }
    }

    /// What is here in the place of these lines of the other text; a hunk is
    /// among them as a whole or not at all.
    fn in_place_of(&self, other: &Range<usize>) -> &[&'a str] {
        // One without lines there is among them also at their very beginning.
        let before = self
            .hunks
            .partition_point(|(there, _)| there.end <= other.start && there.start < other.start);
        let through = self.hunks.partition_point(|(there, _)| there.end <= other.end);
        &self.lines[self.line_after(before, other.start)..self.line_after(through, other.end)]
    }

    /// Where a line of the other text is here, after the first so many hunks.
    fn line_after(&self, hunks: usize, other: usize) -> usize {
        match hunks.checked_sub(1).and_then(|last| self.hunks.get(last)) {
            Some((there, here)) => here.end + (other - there.end),
            None => other,
        }
    }
}

/// Merges by lines. Without a base each place at which the texts differ counts
/// as changed on both sides.
pub(crate) fn merge(base: Option<&str>, mine: &str, theirs: &str) -> Merged {
    let mut out = Output { text: String::new(), overlaps: 0, end: line_end(mine) };
    let Some(base) = base else {
        let (mine, theirs) = (Version::new(mine, mine), Version::new(theirs, mine));
        let mut at = 0;
        for (ours, other) in &theirs.hunks {
            out.lines(&mine.lines[at..ours.start]);
            out.overlap(&mine.lines[ours.clone()], &[], &theirs.lines[other.clone()]);
            at = ours.end;
        }
        out.lines(&mine.lines[at..]);
        return out.done();
    };
    let (mine, theirs) = (Version::new(mine, base), Version::new(theirs, base));
    let base: Vec<&str> = base.split_inclusive('\n').collect();
    let mut at = 0;
    for both in changed(&mine, &theirs) {
        out.lines(&base[at..both.start]);
        let before = &base[both.clone()];
        let (mine, theirs) = (mine.in_place_of(&both), theirs.in_place_of(&both));
        if mine == theirs || theirs == before {
            out.lines(mine);
        } else if mine == before {
            out.lines(theirs);
        } else {
            out.overlap(mine, before, theirs);
        }
        at = both.end;
    }
    out.lines(&base[at..]);
    out.done()
}

/// The lines of the base that either side changed. Changes that touch are one.
fn changed(mine: &Version<'_>, theirs: &Version<'_>) -> Vec<Range<usize>> {
    let mut all: Vec<Range<usize>> =
        mine.hunks.iter().chain(&theirs.hunks).map(|(base, _)| base.clone()).collect();
    all.sort_by_key(|range| (range.start, range.end));
    let mut joined: Vec<Range<usize>> = Vec::with_capacity(all.len());
    for range in all {
        match joined.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}

/// Whether a text still has the markers of an overlap.
pub(crate) fn has_markers(text: &str) -> bool {
    let is = |marker: &'static str| move |line: &str| line.trim_end() == marker;
    let mut lines = text.lines();
    lines.any(is(MARKERS[0])) && lines.any(is(MARKERS[3]))
}

fn line_end(text: &str) -> &'static str {
    let first = text.split_inclusive('\n').next();
    if first.is_some_and(|line| line.ends_with("\r\n")) { "\r\n" } else { "\n" }
}

struct Output {
    text: String,
    overlaps: usize,
    end: &'static str,
}

impl Output {
    fn lines(&mut self, lines: &[&str]) {
        self.text.extend(lines.iter().copied());
    }

    fn overlap(&mut self, mine: &[&str], base: &[&str], theirs: &[&str]) {
        self.overlaps += 1;
        for (marker, lines) in MARKERS.into_iter().zip([mine, base, theirs, &[]]) {
            // The last line of a text may have no end.
            if !self.text.is_empty() && !self.text.ends_with('\n') {
                self.text.push_str(self.end);
            }
            self.text.push_str(marker);
            self.text.push_str(self.end);
            self.lines(lines);
        }
    }

    fn done(self) -> Merged {
        Merged { text: self.text, overlaps: self.overlaps }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(base: &str, mine: &str, theirs: &str) -> (String, usize) {
        let Merged { text, overlaps } = merge(Some(base), mine, theirs);
        (text, overlaps)
    }

    #[test]
    fn changes_at_different_places_are_one_text() {
        let table = [
            ("a\nb\nc\n", "A\nb\nc\n", "a\nb\nC\n", "A\nb\nC\n"),
            ("a\nb\nc\n", "x\na\nb\nc\n", "a\nb\nc\ny\n", "x\na\nb\nc\ny\n"),
            ("a\nb\nc\n", "b\nc\n", "a\nb\n", "b\n"),
            ("a\nb\nc\n", "a\nb\nc", "A\nb\nc\n", "A\nb\nc"),
            ("a\nb\nc\n", "a\nB\nc\n", "a\nB\nc\n", "a\nB\nc\n"),
            ("a\r\nb\r\nc\r\n", "A\r\nb\r\nc\r\n", "a\r\nb\r\nC\r\n", "A\r\nb\r\nC\r\n"),
            ("a\nb\nc\n", "", "a\nb\nc\n", ""),
            ("", "", "a\n", "a\n"),
            ("a\nb\nc\nd\n", "a\nx\nb\nc\nd\n", "a\nb\nc\nD\n", "a\nx\nb\nc\nD\n"),
        ];
        for (base, mine, theirs, wanted) in table {
            assert_eq!(
                merged(base, mine, theirs),
                (wanted.into(), 0),
                "{base:?} {mine:?} {theirs:?}"
            );
            assert_eq!(
                merged(base, theirs, mine),
                (wanted.into(), 0),
                "{base:?} {theirs:?} {mine:?}"
            );
        }
    }

    #[test]
    fn what_both_changed_is_marked() {
        let (text, overlaps) = merged("a\nb\nc\n", "a\nmine\nc\n", "a\ntheirs\nc\n");
        let wanted = "a\n<<<<<<< mine\nmine\n||||||| base\nb\n=======\ntheirs\n>>>>>>> theirs\nc\n";
        assert_eq!((text.as_str(), overlaps), (wanted, 1));
        assert!(has_markers(&text) && !has_markers("<<<<<<< mine\nand no more\n"));
        // Lines without an end, and ends of two characters.
        assert_eq!(
            merged("a", "b", "c").0,
            "<<<<<<< mine\nb\n||||||| base\na\n=======\nc\n>>>>>>> theirs\n"
        );
        assert_eq!(
            merged("a\r\n", "b\r\n", "").0,
            "<<<<<<< mine\r\nb\r\n||||||| base\r\na\r\n=======\r\n>>>>>>> theirs\r\n"
        );
        // Two insertions at one place, and a change beside a removal.
        assert_eq!(merged("a\nb\n", "a\nx\nb\n", "a\ny\nb\n").1, 1);
        assert_eq!(merged("a\nb\n", "A\nb\n", "a\n").1, 1);
    }

    #[test]
    fn without_a_base_all_that_differs_is_marked() {
        let Merged { text, overlaps } =
            merge(None, "title\nmine\nend\n", "title\ntheirs\nend\nmore\n");
        let wanted = "title\n<<<<<<< mine\nmine\n||||||| base\n=======\ntheirs\n>>>>>>> theirs\nend\n\
                      <<<<<<< mine\n||||||| base\n=======\nmore\n>>>>>>> theirs\n";
        assert_eq!((text.as_str(), overlaps), (wanted, 2));
        assert_eq!(merge(None, "a\n", "a\n"), Merged { text: "a\n".into(), overlaps: 0 });
    }

    /// A small generator: the cases are the same in every run.
    struct Random(u64);

    impl Random {
        fn below(&mut self, limit: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (self.0 >> 33) as usize % limit
        }

        fn edited(&mut self, base: &[String]) -> Vec<String> {
            let mut lines = base.to_vec();
            for _ in 0..self.below(5) {
                let at = self.below(lines.len() + 1);
                match self.below(3) {
                    0 => lines.insert(at, format!("new {}\n", self.below(6))),
                    1 if at < lines.len() => drop(lines.remove(at)),
                    _ if at < lines.len() => lines[at] = format!("other {}\n", self.below(6)),
                    _ => {}
                }
            }
            lines
        }
    }

    #[test]
    fn nothing_of_either_side_is_lost() {
        let mut random = Random(1);
        let mut marked = 0;
        for round in 0..20_000 {
            let base: Vec<String> =
                (0..random.below(12))
                    .map(|line| {
                        if round % 2 == 0 { format!("{line}\n") } else { format!("{}\n", line % 3) }
                    })
                    .collect();
            let (mine, theirs) = (random.edited(&base), random.edited(&base));
            let [base, mine, theirs] = [base, mine, theirs].map(|lines| lines.concat());
            let (text, overlaps) = merged(&base, &mine, &theirs);
            marked += overlaps;
            assert_eq!(merged(&base, &theirs, &mine).1, overlaps);
            assert_eq!(merged(&base, &mine, &base), (mine.clone(), 0));
            assert_eq!(merged(&base, &base, &theirs), (theirs.clone(), 0));
            assert_eq!(merged(&base, &mine, &mine), (mine.clone(), 0));
            // A line that only one side put in is in the merge as often as there.
            for side in [&mine, &theirs] {
                for line in side.lines().filter(|line| line.starts_with("new")) {
                    assert!(
                        text.lines().any(|other| other == line),
                        "{base}|{mine}|{theirs}|{text}"
                    );
                }
            }
            if overlaps > 0 {
                assert!(has_markers(&text));
            }
        }
        assert!(marked > 1000, "{marked}");
    }

    #[test]
    fn texts_that_have_little_in_common_are_merged_in_no_time() {
        let lines =
            |name: &str| -> String { (0..100_000).map(|at| format!("{name} {at}\n")).collect() };
        let every_other = |name: &str| lines("a").replace("1\n", &format!("{name}\n"));
        let begun = std::time::Instant::now();
        assert_eq!(merged(&lines("a"), &lines("b"), &lines("c")).1, 1);
        assert_eq!(merged(&lines("a"), &every_other("b"), &every_other("c")).1, 10_000);
        assert!(begun.elapsed() < std::time::Duration::from_secs(10), "{:?}", begun.elapsed());
    }
}
