//! What is left to review once all that came back to the reviewed text is out.

use std::borrow::Cow;
use std::collections::BTreeSet;

use crate::compare::common;
use crate::lines::{Line, Marks};

/// Puts the lines in order after a change.
///
/// Within a hunk, a line that was removed and is there again is settled. With
/// `thorough`, so is one that came back elsewhere, as when an agent moves a block
/// and then moves it back. That can redraw hunks, so it is for what was written,
/// and not for a Keep or Revert, which touch what was chosen and nothing else.
pub(crate) fn settle(mut lines: Vec<Line<'_>>, thorough: bool) -> Vec<Line<'_>> {
    give_ends(&mut lines);
    let mut lines = settle_hunks(&lines);
    if is_settled(&lines) {
        // A change of a change may have led back to where it began.
        lines.retain(|line| line.marks.is_current());
        lines.iter_mut().for_each(|line| line.marks = Marks::default());
    } else if thorough && has_line_on_both_sides(&lines) {
        lines = realigned(&lines).unwrap_or(lines);
    }
    drop_unseen(lines)
}

/// The parts of a text, with an end given to each line before the last that has
/// none: what was the last line may have others after it now.
pub(crate) fn whole_lines<'a>(
    parts: impl Iterator<Item = &'a str> + Clone,
) -> impl Iterator<Item = &'a str> {
    let end = line_end(parts.clone());
    let mut last_is_whole = true;
    parts.flat_map(move |part| {
        let before = if last_is_whole { "" } else { end };
        last_is_whole = part.ends_with('\n');
        [before, part]
    })
}

/// The line end of a text: that of its first line that has one.
fn line_end<'a>(mut parts: impl Iterator<Item = &'a str>) -> &'static str {
    let first = parts.find_map(|part| part.find('\n').map(|end| &part[..end]));
    if first.is_some_and(|line| line.ends_with('\r')) { "\r\n" } else { "\n" }
}

/// Gives an end to a line of the current text, or to one that was removed from the
/// reviewed text, if lines follow it there. It has that end from then on. A line of
/// both texts stays as it is in the current one.
fn give_ends(lines: &mut [Line<'_>]) {
    let end = line_end(lines.iter().map(|line| line.text.as_ref()));
    let last_current = lines.iter().rposition(|line| line.marks.is_current());
    let last_reviewed = lines.iter().rposition(|line| line.marks.is_reviewed());
    for (at, line) in lines.iter_mut().enumerate() {
        let last = if line.marks.is_current() { last_current } else { last_reviewed };
        if Some(at) != last && !line.text.ends_with('\n') {
            line.text.to_mut().push_str(end);
        }
    }
}

/// Lines that follow each other and are all settled, or all not: these are hunks.
fn runs<'a, 'b>(lines: &'b [Line<'a>]) -> impl Iterator<Item = &'b [Line<'a>]> {
    lines.chunk_by(|a, b| a.marks.is_settled() == b.marks.is_settled())
}

fn settle_hunks<'a>(lines: &[Line<'a>]) -> Vec<Line<'a>> {
    let mut out = Vec::with_capacity(lines.len());
    for run in runs(lines) {
        let realigned = if run[0].marks.is_settled() { None } else { realigned(run) };
        match realigned {
            Some(run) => out.extend(run),
            None => out.extend_from_slice(run),
        }
    }
    out
}

/// Drops what one agent added and another removed where nothing else is left of
/// the hunk: there is nothing to see, and so nothing to decide.
fn drop_unseen(lines: Vec<Line<'_>>) -> Vec<Line<'_>> {
    let is_seen = |line: &Line<'_>| line.marks.is_reviewed() || line.marks.is_current();
    if lines.iter().all(is_seen) {
        return lines;
    }
    runs(&lines).filter(|run| run.iter().any(is_seen)).flatten().cloned().collect()
}

/// Whether the current text is the reviewed one.
fn is_settled(lines: &[Line<'_>]) -> bool {
    let text = |has: fn(Marks) -> bool| {
        let lines = lines.iter().filter(move |line| has(line.marks));
        whole_lines(lines.map(|line| line.text.as_ref())).filter(|part| !part.is_empty())
    };
    text(Marks::is_reviewed).eq(text(Marks::is_current))
}

fn has_line_on_both_sides(lines: &[Line<'_>]) -> bool {
    let side = |has: fn(Marks) -> bool| {
        let lines = lines.iter().filter(move |line| !line.marks.is_settled() && has(line.marks));
        lines.map(|line| line.text.as_ref())
    };
    let removed: BTreeSet<&str> = side(Marks::is_reviewed).collect();
    !removed.is_empty() && side(Marks::is_current).any(|line| removed.contains(line))
}

/// The lines as a comparison of the reviewed text with the current one has them,
/// if it finds fewer differences and each is one that somebody is known to have
/// made.
fn realigned<'a>(lines: &[Line<'a>]) -> Option<Vec<Line<'a>>> {
    let places = |has: fn(Marks) -> bool| -> Vec<usize> {
        (0..lines.len()).filter(|at| has(lines[*at].marks)).collect()
    };
    let (reviewed, current) = (places(Marks::is_reviewed), places(Marks::is_current));
    let texts = |places: &[usize]| -> Vec<&str> {
        places.iter().map(|at| lines[*at].text.as_ref()).collect()
    };
    let pairs = common(&texts(&reviewed), &texts(&current));
    if pairs.iter().all(|(was, is)| reviewed[*was] == current[*is]) {
        return None;
    }
    let mut out = Vec::with_capacity(lines.len());
    let (mut was_at, mut is_at, mut at) = (0, 0, 0);
    for (was, is) in pairs.into_iter().chain([(reviewed.len(), current.len())]) {
        let removed = &reviewed[was_at..was];
        let added = &current[is_at..is];
        if removed.iter().any(|at| lines[*at].marks.is_current())
            || added.iter().any(|at| lines[*at].marks.is_reviewed())
        {
            return None;
        }
        out.extend(removed.iter().map(|at| lines[*at].clone()));
        // With the lines that were added go those that another agent removed
        // again, in their order.
        let end = current.get(is).copied().unwrap_or(lines.len());
        out.extend(lines[at..end].iter().filter(|line| line.marks.added.is_some()).cloned());
        if let Some(line) = lines.get(end) {
            let text: Cow<'a, str> = line.text.clone();
            out.push(Line { text, marks: Marks::default() });
        }
        (was_at, is_at, at) = (was + 1, is + 1, end + 1);
    }
    Some(out)
}
