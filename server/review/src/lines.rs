//! The lines of a file under review: the reviewed text and the current one as one
//! sequence, in which each line knows who added it and who removed it.
//!
//! A line that nobody added was reviewed; a line that nobody removed is there now.
//! So the reviewed text is the lines without `added`, the current one the lines
//! without `removed`. A line with both was added by one agent and removed by
//! another: it is in neither text, and is here so that undoing the second agent
//! gives what the first one wrote.
//!
//! To keep is then to forget that a line was added, and to drop one that was
//! removed. To revert is to drop a line that was added, and to forget that one was
//! removed. The user is one more writer, whose changes are kept at once.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::choice::{Choice, same_agent};
use crate::compare::{common, common_end, common_start, differences};
use crate::item::Write;
use crate::settle::{settle, whole_lines};
use crate::text::{MAX_TEXT_BYTES, MAX_TEXT_LINES, count_lines, lines_of};

/// Who added and who removed a line, as places in the list of writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Marks {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) added: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) removed: Option<u32>,
}

impl Marks {
    pub(crate) fn is_reviewed(self) -> bool {
        self.added.is_none()
    }

    pub(crate) fn is_current(self) -> bool {
        self.removed.is_none()
    }

    /// Whether there is nothing to review in such a line.
    pub(crate) fn is_settled(self) -> bool {
        self == Self::default()
    }
}

/// Stands for the user in the marks while an edit is taken in.
const USER: u32 = u32::MAX;

/// One line while it is worked on.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Line<'a> {
    pub(crate) text: Cow<'a, str>,
    pub(crate) marks: Marks,
}

/// Lines that follow each other and have equal marks. All but the last end in
/// `\n`, so that nothing is lost by putting them together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Block {
    pub(crate) text: String,
    #[serde(flatten)]
    pub(crate) marks: Marks,
}

/// Both texts of a file under review.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(try_from = "Stored")]
pub(crate) struct Lines {
    /// The writes that the marks name, in the order in which they were applied.
    writes: Vec<Write>,
    blocks: Vec<Block>,
    /// What was asked to be reverted in just this state. The text that comes of
    /// it is then taken for that, and not compared line by line: among equal
    /// lines a comparison can only guess which of them went.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    asked: Option<Choice>,
}

impl Lines {
    /// A text of which nothing is to be reviewed.
    pub(crate) fn new(reviewed: &str) -> Self {
        let block = |text: &str| Block { text: text.into(), marks: Marks::default() };
        let blocks = if reviewed.is_empty() { Vec::new() } else { vec![block(reviewed)] };
        Self { writes: Vec::new(), blocks, asked: None }
    }

    pub(crate) fn reviewed(&self) -> String {
        self.text(Marks::is_reviewed)
    }

    pub(crate) fn current(&self) -> String {
        self.text(Marks::is_current)
    }

    fn text(&self, has: fn(Marks) -> bool) -> String {
        let blocks = self.blocks.iter().filter(|block| has(block.marks));
        whole_lines(blocks.map(|block| block.text.as_str())).collect()
    }

    pub(crate) fn writes(&self) -> &[Write] {
        &self.writes
    }

    /// Whether any line of the reviewed text is left.
    pub(crate) fn has_reviewed(&self) -> bool {
        self.blocks.iter().any(|block| block.marks.is_reviewed())
    }

    /// Whether the texts differ.
    pub(crate) fn differs(&self) -> bool {
        self.blocks.iter().any(|block| !block.marks.is_settled())
    }

    pub(crate) fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// How many bytes of text are held.
    pub(crate) fn bytes(&self) -> usize {
        self.blocks.iter().map(|block| block.text.len()).sum()
    }

    /// Whether this can go on being reviewed line by line. Agents who remove each
    /// other's lines without end are the one way to come to this.
    pub(crate) fn is_within_limits(&self) -> bool {
        let lines: usize = self.blocks.iter().map(|block| count_lines(&block.text)).sum();
        self.bytes() <= 4 * MAX_TEXT_BYTES && lines <= 4 * MAX_TEXT_LINES
    }

    /// Takes in that the text is now `after`, by a sandbox's write.
    pub(crate) fn written(&mut self, after: &str, write: &Write) {
        self.observe(after, Some(write));
    }

    /// Takes in that the text is now `after`, by the user or anything else here.
    ///
    /// What the user adds is reviewed, and so is the removal of what the user
    /// removes, an agent's lines included. Where the user replaces an agent's
    /// line that itself replaced a reviewed one, the reviewed line still counts
    /// as removed by the agent: to revert brings it back beside the user's line,
    /// where it can be seen. To drop it instead would lose it unseen.
    pub(crate) fn edited(&mut self, after: &str) {
        if let Some(choice) = self.asked.take() {
            let reverted = self.reverted(&choice);
            if reverted.current() == after {
                *self = reverted;
                return;
            }
        }
        self.observe(after, None);
    }

    fn observe(&mut self, after: &str, write: Option<&Write>) {
        let who = match write {
            Some(write) => {
                self.writes.push(write.clone());
                u32::try_from(self.writes.len() - 1).unwrap_or(USER)
            }
            None => USER,
        };
        // Of a long file only what is near to a difference is looked at line by line.
        let (head, tail) = untouched(&self.blocks, after);
        let inside = &after[head..after.len() - tail];
        let mut lines = settle(self.take_in(&self.lines_within(head, tail), inside, who), true);
        if who == USER {
            lines = settle(kept(lines, |_, mark| mark == USER), false);
        }
        let mut blocks = Vec::new();
        push(&mut blocks, Marks::default(), &after[..head]);
        let packed = Self::packed(&lines, &self.writes);
        packed.blocks.iter().for_each(|block| push(&mut blocks, block.marks, &block.text));
        push(&mut blocks, Marks::default(), &after[after.len() - tail..]);
        *self = Self { blocks, ..packed };
    }

    /// Keeps what was chosen, and says whose it was.
    pub(crate) fn keep(&mut self, choice: &Choice) -> Vec<Write> {
        let mut taken = vec![false; self.writes.len()];
        let lines = kept(self.lines(), |hunk, mark| {
            let takes = choice.takes(hunk, &self.writes[mark as usize]);
            taken[mark as usize] |= takes;
            takes
        });
        let packed = Self::packed(&settle(lines, false), &self.writes);
        let writes = self.writes.iter().zip(taken).filter(|(_, taken)| *taken);
        let writes = writes.map(|(write, _)| write.clone()).collect();
        *self = packed;
        writes
    }

    /// What comes of a revert of what was chosen.
    pub(crate) fn reverted(&self, choice: &Choice) -> Self {
        let takes = |hunk, mark: u32| choice.takes(hunk, &self.writes[mark as usize]);
        let mut lines = Vec::new();
        for (hunk, mut line) in by_hunk(self.lines()) {
            if line.marks.added.is_some_and(|mark| takes(hunk, mark)) {
                continue;
            }
            line.marks.removed = line.marks.removed.filter(|mark| !takes(hunk, *mark));
            lines.push(line);
        }
        Self::packed(&settle(lines, false), &self.writes)
    }

    /// The same, and from now on that text means that this was reverted.
    pub(crate) fn ask_to_revert(&mut self, choice: &Choice) -> Self {
        self.asked = Some(choice.clone());
        self.reverted(choice)
    }

    fn lines(&self) -> Vec<Line<'_>> {
        self.lines_within(0, 0)
    }

    /// The lines without so many bytes of the first and of the last block.
    fn lines_within(&self, head: usize, tail: usize) -> Vec<Line<'_>> {
        let mut all = Vec::new();
        for (at, Block { text, marks }) in self.blocks.iter().enumerate() {
            let start = if at == 0 { head } else { 0 };
            let end = text.len() - if at + 1 == self.blocks.len() { tail } else { 0 };
            let lines = lines_of(&text[start..end]);
            all.extend(lines.map(|line| Line { text: Cow::Borrowed(line), marks: *marks }));
        }
        all
    }

    fn packed(lines: &[Line<'_>], writes: &[Write]) -> Self {
        let named = lines.iter().flat_map(|line| [line.marks.added, line.marks.removed]).flatten();
        let mut places = vec![None; writes.len()];
        named.for_each(|mark| places[mark as usize] = Some(0));
        let mut left = Vec::new();
        for (place, write) in places.iter_mut().zip(writes) {
            if place.is_some() {
                *place = u32::try_from(left.len()).ok();
                left.push(write.clone());
            }
        }
        let place = |mark: Option<u32>| mark.and_then(|mark| places[mark as usize]);
        let mut blocks: Vec<Block> = Vec::new();
        for line in lines {
            let marks =
                Marks { added: place(line.marks.added), removed: place(line.marks.removed) };
            push(&mut blocks, marks, &line.text);
        }
        Self { writes: left, blocks, asked: None }
    }

    /// The lines once `who` made their current text into `after`.
    fn take_in<'a>(&self, lines: &[Line<'a>], after: &'a str, who: u32) -> Vec<Line<'a>> {
        let there: Vec<usize> =
            (0..lines.len()).filter(|at| lines[*at].marks.is_current()).collect();
        let current: Vec<&str> = there.iter().map(|at| lines[*at].text.as_ref()).collect();
        let after: Vec<&str> = lines_of(after).collect();
        let found = differences(&current, &after);
        let is_added = |at: usize| lines.get(at).is_some_and(|line| line.marks.added.is_some());

        let mut out = Vec::with_capacity(lines.len() + after.len().saturating_sub(current.len()));
        let mut at = 0;
        for difference in found {
            // From the last line that stays to the next one that does. What lies
            // between also has lines that went earlier.
            let start = difference.before.start.checked_sub(1).map_or(0, |last| there[last] + 1);
            let end = there.get(difference.before.end).copied().unwrap_or(lines.len());
            out.extend_from_slice(&lines[at..start]);
            let gap = Gap {
                writes: &self.writes,
                who,
                // The user's lines do not part an agent's line from the one in
                // whose place it stands.
                first: who == USER && is_added(end) && !(start > 0 && is_added(start - 1)),
            };
            gap.fill(&lines[start..end], &after[difference.after], &mut out);
            at = end;
        }
        out.extend_from_slice(&lines[at..]);
        out
    }
}

/// Adds lines at the end.
fn push(blocks: &mut Vec<Block>, marks: Marks, text: &str) {
    match blocks.last_mut() {
        Some(block) if block.marks == marks && block.text.ends_with('\n') => {
            block.text.push_str(text);
        }
        _ if text.is_empty() => {}
        _ => blocks.push(Block { text: text.into(), marks }),
    }
}

/// How many bytes at the beginning and at the end of a text are settled and stay as
/// they are: whole lines, and far enough from what differs to play no part in it.
fn untouched(blocks: &[Block], after: &str) -> (usize, usize) {
    let settled = |block: Option<&'_ Block>| {
        block.filter(|block| block.marks.is_settled()).map_or(0, |block| block.text.len())
    };
    let first = settled(blocks.first());
    let head = blocks.first().map_or(0, |block| common_start(&block.text[..first], after));
    let used = if blocks.len() == 1 { head } else { 0 };
    let last = settled(blocks.last());
    let tail = blocks.last().filter(|_| last > used);
    (head, tail.map_or(0, |block| common_end(&block.text[used..], &after[head..])))
}

/// A place at which a write replaced lines by others.
struct Gap<'a> {
    writes: &'a [Write],
    who: u32,
    /// Whether new lines go before all others, rather than after.
    first: bool,
}

impl Gap<'_> {
    /// What is at this place after the write. A line that was removed here before
    /// and is among the new ones is that line again. The user's changes of line
    /// ends alone, as when one writes on after a last line, leave a line whose it is.
    fn fill<'a>(&self, old: &[Line<'a>], new: &[&'a str], out: &mut Vec<Line<'a>>) {
        let is_user = self.who == USER;
        let may_stay = |at: &usize| is_user || !old[*at].marks.is_current();
        let places: Vec<usize> = (0..old.len()).filter(may_stay).collect();
        let again = if places.is_empty() {
            Vec::new()
        } else if is_user {
            fn key(text: &str) -> &str {
                text.trim_end_matches(['\r', '\n'])
            }
            let texts: Vec<&str> = places.iter().map(|at| key(&old[*at].text)).collect();
            common(&texts, &new.iter().map(|text| key(text)).collect::<Vec<_>>())
        } else {
            let texts: Vec<&str> = places.iter().map(|at| old[*at].text.as_ref()).collect();
            common(&texts, new)
        };
        let mut at = (0, 0);
        for (which, there) in again {
            let here = places[which];
            self.replace(&old[at.0..here], &new[at.1..there], out);
            let mut marks = old[here].marks;
            if is_user && !marks.is_current() {
                // What the user brings back is the user's.
                marks.added = marks.added.map(|_| USER);
            }
            marks.removed = None;
            out.push(Line { text: Cow::Borrowed(new[there]), marks });
            at = (here + 1, there + 1);
        }
        self.replace(&old[at.0..], &new[at.1..], out);
    }

    /// Puts the new lines where the last line was that they replace.
    fn replace<'a>(&self, old: &[Line<'a>], new: &[&'a str], out: &mut Vec<Line<'a>>) {
        let last = old.iter().rposition(|line| line.marks.is_current()).map(|last| last + 1);
        let place = last.unwrap_or(if self.first { 0 } else { old.len() });
        let removed = |line: &Line<'a>| {
            let mut line = line.clone();
            if line.marks.is_current() {
                // Nobody will ever undo one half of what one agent did.
                if line.marks.added.is_some_and(|by| self.is_own(by)) {
                    return None;
                }
                line.marks.removed = Some(self.who);
            }
            Some(line)
        };
        let marks = Marks { added: Some(self.who), removed: None };
        out.extend(old[..place].iter().filter_map(removed));
        out.extend(new.iter().map(|text| Line { text: Cow::Borrowed(text), marks }));
        out.extend(old[place..].iter().filter_map(removed));
    }

    fn is_own(&self, by: u32) -> bool {
        let actor = |mark: u32| self.writes.get(mark as usize).map(|write| &write.actor);
        match (actor(by), actor(self.who)) {
            (Some(a), Some(b)) => same_agent(a, b),
            _ => by == self.who,
        }
    }
}

/// Each line with the number of the hunk that it is in; what is settled has the
/// number of the next one.
fn by_hunk<'a>(lines: Vec<Line<'a>>) -> impl Iterator<Item = (usize, Line<'a>)> {
    let mut hunk = 0;
    let mut inside = false;
    lines.into_iter().map(move |line| {
        let settled = line.marks.is_settled();
        if inside && settled {
            hunk += 1;
        }
        inside = !settled;
        (hunk, line)
    })
}

/// The lines once what `takes` says was kept.
fn kept<'a>(lines: Vec<Line<'a>>, mut takes: impl FnMut(usize, u32) -> bool) -> Vec<Line<'a>> {
    let mut left = Vec::with_capacity(lines.len());
    for (hunk, mut line) in by_hunk(lines) {
        line.marks.added = line.marks.added.filter(|mark| !takes(hunk, *mark));
        if !line.marks.removed.is_some_and(|mark| takes(hunk, mark)) {
            left.push(line);
        }
    }
    left
}

/// Lines as they come from outside.
#[derive(Deserialize)]
struct Stored {
    writes: Vec<Write>,
    blocks: Vec<Block>,
    #[serde(default)]
    asked: Option<Choice>,
}

impl TryFrom<Stored> for Lines {
    type Error = &'static str;

    fn try_from(Stored { writes, blocks, asked }: Stored) -> Result<Self, Self::Error> {
        let marks = blocks.iter().flat_map(|block| [block.marks.added, block.marks.removed]);
        if marks.flatten().any(|mark| mark as usize >= writes.len()) {
            return Err("a line names a write that is not there");
        }
        if blocks.iter().any(|block| block.text.is_empty()) {
            return Err("a block without a line");
        }
        let current = blocks.iter().filter(|block| block.marks.is_current());
        let mut parts: Vec<&str> = current.map(|block| block.text.as_str()).collect();
        parts.pop();
        if parts.iter().any(|text| !text.ends_with('\n')) {
            return Err("a line of the current text has no end");
        }
        Ok(Self { writes, blocks, asked })
    }
}
