//! The review of a workspace.

use std::collections::{BTreeSet, VecDeque};

use s0_tree::{New, TreePath};
use serde::{Deserialize, Deserializer, Serialize};

use crate::choice::{Choice, Left, Part, Refused, Selection, same_agent};
use crate::hunk::{Hunk, Version};
use crate::item::{Body, Item, Observed, Reviewed, Write};
use crate::record::{Inside, Record, Renamed};
use crate::records::{FORMAT, MAX_REVIEWED, Records};
use crate::revert::Reversion;

/// What sandboxes wrote in a workspace and the user has not yet reviewed.
///
/// It is stored with serde. What does not read as a review of this format is an
/// error.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Review {
    format: Format,
    version: Version,
    unlisted: u64,
    records: Records,
    reviewed: VecDeque<Reviewed>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
struct Format(u8);

impl Default for Format {
    fn default() -> Self {
        Self(FORMAT)
    }
}

impl<'de> Deserialize<'de> for Format {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u8::deserialize(deserializer)? {
            FORMAT => Ok(Self(FORMAT)),
            other => Err(serde::de::Error::custom(format_args!(
                "a review of format {other}, which this version cannot read"
            ))),
        }
    }
}

/// What is told.
impl Review {
    /// A sandbox's write was applied at this path: it was as in `before` and is as
    /// in `after`; where nothing is, there is none. What differs between `before`
    /// and what was told last is taken for the user's.
    pub fn applied(
        &mut self,
        path: &TreePath,
        before: Option<&Observed<'_>>,
        after: Option<&Observed<'_>>,
        write: &Write,
    ) {
        if before.map(|before| &before.state) == after.map(|after| &after.state) {
            return;
        }
        self.edited(path, before);
        let held =
            |seen: Option<&Observed<'_>>| seen.and_then(|seen| seen.bytes).map_or(0, <[u8]>::len);
        let without = |seen: &Observed<'_>| Observed { state: seen.state.clone(), bytes: None };
        let mut record = match self.records.take(path) {
            Some(mut record) => {
                before.into_iter().for_each(|before| record.rebase(before));
                record
            }
            None if self.records.is_full() => {
                self.unlisted += 1;
                return;
            }
            None if self.records.has_room_for(held(before) + held(after)) => {
                Record::unchanged(before)
            }
            None => {
                let mut record = Record::unchanged(before.map(without).as_ref());
                record.written(after.map(without).as_ref(), write);
                return self.place(path.clone(), record);
            }
        };
        record.written(after, write);
        if !self.records.has_room_for(record.bytes()) {
            record.review_as_a_whole();
        }
        self.place(path.clone(), record);
    }

    /// A sandbox renamed what is seen in `moved`, with all that is below it, in the
    /// place of what was at `to`, if anything was.
    pub fn renamed(
        &mut self,
        from: &TreePath,
        to: &TreePath,
        moved: &Observed<'_>,
        replaced: Option<&Observed<'_>>,
        write: &Write,
    ) {
        let is_directory = matches!(moved.state.what, New::Directory);
        self.edited(from, Some(moved));
        self.edited(to, replaced);
        if !is_directory && (replaced.is_some() || self.records.get(to).is_some()) {
            // This is how programs save: the file at `to` has a new content.
            self.applied(from, Some(moved), None, write);
            return self.applied(to, replaced, Some(moved), write);
        }
        self.records.take(to);
        let version = self.next();
        for path in self.records.rename(from, to) {
            self.restate(&path, version);
        }
        let mut record = match self.records.take(to) {
            Some(record) => record,
            None if self.records.is_full() => {
                self.unlisted += 1;
                return;
            }
            None => Record::unchanged(Some(&Observed { state: moved.state.clone(), bytes: None })),
        };
        if record.reviewed_mode.is_some() {
            let first = record.renamed.take().map_or_else(|| from.clone(), |renamed| renamed.from);
            let renamed = Renamed { from: first, write: write.clone() };
            record.renamed = Some(renamed).filter(|renamed| renamed.from != *to);
        }
        self.place(to.clone(), record);
    }

    /// The user, or anything else on this machine, made what is at this path into
    /// what is seen. It may be told as often as one likes, also when nothing is
    /// under review there or nothing has changed; and it is to be told of every
    /// item when a review was read from its store.
    pub fn edited(&mut self, path: &TreePath, now: Option<&Observed<'_>>) {
        let known = self.records.get(path).map(|record| record.now.as_ref());
        if known.is_none_or(|known| known == now.map(|now| &now.state)) {
            return;
        }
        match (self.records.take(path), now) {
            (Some(mut record), Some(now)) => {
                record.edited(now);
                self.place(path.clone(), record);
            }
            // What the user removed is settled.
            _ => _ = self.next(),
        }
    }

    /// The user, or anything else on this machine, renamed what is now seen at
    /// `to`, with all that is below it. The name counts as reviewed.
    pub fn moved(&mut self, from: &TreePath, to: &TreePath, now: &Observed<'_>) {
        let is_directory = matches!(now.state.what, New::Directory);
        if !is_directory && self.records.get(to).is_some() {
            self.edited(from, None);
            return self.edited(to, Some(now));
        }
        self.records.take(to);
        let version = self.next();
        for path in self.records.rename(from, to) {
            self.restate(&path, version);
        }
        if let Some(mut record) = self.records.take(to) {
            record.renamed = None;
            self.place(to.clone(), record);
        }
        self.edited(to, Some(now));
    }

    fn next(&mut self) -> Version {
        self.version = Version(self.version.0 + 1);
        self.version
    }

    fn restate(&mut self, path: &TreePath, version: Version) {
        if let Some(record) = self.records.take(path) {
            self.records.put(path.clone(), Record { version, ..record });
        }
    }

    /// Puts a record that was changed where it belongs, if it is still one.
    fn place(&mut self, path: TreePath, mut record: Record) {
        record.version = self.next();
        if record.now.is_none()
            && let Some(renamed) = record.renamed.take()
        {
            match self.records.take(&renamed.from) {
                None => return self.place(renamed.from, record),
                // A file was renamed out of the way, made anew and then removed under
                // its other name: it has a new content.
                Some(new) if new.reviewed_mode.is_none() => {
                    let text = match &new.inside {
                        Inside::Lines(lines) => Some(lines.current()),
                        Inside::Whole(_) => None,
                    };
                    let bytes = text.as_deref().map(str::as_bytes);
                    let seen = new.now.clone().map(|state| Observed { state, bytes });
                    if let Some(write) = new.writes().last().copied() {
                        record.written(seen.as_ref(), write);
                    }
                    return self.place(renamed.from, record);
                }
                Some(other) => self.records.put(renamed.from.clone(), other),
            }
            record.renamed = Some(renamed);
        }
        if !record.is_settled() {
            self.records.put(path, record);
        }
    }
}

/// What is shown.
impl Review {
    /// The version of the whole, for a [`Part::All`].
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// All that is to be reviewed, by path.
    pub fn items(&self) -> impl Iterator<Item = Item<'_>> {
        self.records.iter().map(|(path, record)| record.item(path))
    }

    /// What is to be reviewed at this path, if anything is.
    #[must_use]
    pub fn item<'a>(&'a self, path: &'a TreePath) -> Option<Item<'a>> {
        self.records.get(path).map(|record| record.item(path))
    }

    /// The hunks of a file, from the top. There are none where the file is reviewed
    /// as a whole.
    #[must_use]
    pub fn hunks(&self, path: &TreePath) -> Vec<Hunk> {
        self.records.get(path).map(Record::hunks).unwrap_or_default()
    }

    /// What was reviewed of what is at this path, to compare with: `None` where
    /// nothing is under review, or nothing was there.
    #[must_use]
    pub fn baseline(&self, path: &TreePath) -> Option<Body> {
        self.records.get(path).and_then(Record::reviewed)
    }

    /// What was kept lately, newest first.
    pub fn reviewed(&self) -> impl Iterator<Item = &Reviewed> {
        self.reviewed.iter()
    }

    /// How many writes are not listed, because there were too many items.
    #[must_use]
    pub fn unlisted(&self) -> u64 {
        self.unlisted
    }
}

/// What is decided.
impl Review {
    /// What was selected counts as reviewed from now on. Answers what stays to be
    /// reviewed all the same.
    ///
    /// # Errors
    /// The selection is of another version, or of nothing. Nothing was kept then.
    pub fn keep(&mut self, selection: &Selection) -> Result<Vec<Left>, Refused> {
        let mut left = Vec::new();
        for (path, choice) in self.chosen(selection)? {
            if let Some(mut record) = self.records.take(&path) {
                let (kept, why) = record.keep(&choice);
                left.extend(why.map(|why| Left { path: path.clone(), why }));
                kept.into_iter().for_each(|write| self.remember(&path, write));
                self.place(path, record);
            }
        }
        if let Selection { part: Part::All { .. }, agent: None } = selection {
            self.unlisted = 0;
        }
        Ok(left)
    }

    /// Says what is to be done so that what was selected is as it was reviewed. The
    /// review changes only when what was done is told, by [`Review::edited`] and
    /// [`Review::moved`].
    ///
    /// # Errors
    /// The selection is of another version, or of nothing.
    pub fn revert(&mut self, selection: &Selection) -> Result<Reversion, Refused> {
        let mut actions = Vec::new();
        let mut left = Vec::new();
        for (path, choice) in self.chosen(selection)? {
            if let Some(mut record) = self.records.take(&path) {
                let (found, why) = record.revert(&path, &choice);
                actions.extend(found);
                left.extend(why.map(|why| Left { path: path.clone(), why }));
                self.records.put(path, record);
            }
        }
        Ok(Reversion::new(actions, left))
    }

    /// What is chosen of each item, if it is still as it was when it was selected.
    fn chosen(&self, selection: &Selection) -> Result<Vec<(TreePath, Choice)>, Refused> {
        let agent = selection.agent.clone();
        let check = |is_same, now| if is_same { Ok(()) } else { Err(Refused::Stale { now }) };
        let record = |path: &TreePath| {
            self.records.get(path).ok_or_else(|| Refused::NothingHere { path: path.clone() })
        };
        Ok(match &selection.part {
            Part::Hunks { path, hunks } => {
                let record = record(path)?;
                let there: BTreeSet<_> = record.hunks().into_iter().map(|hunk| hunk.id).collect();
                check(hunks.iter().all(|hunk| there.contains(hunk)), record.version)?;
                let numbers = hunks.iter().map(|hunk| hunk.number).collect();
                vec![(path.clone(), Choice { hunks: Some(numbers), agent })]
            }
            Part::File { path, version } => {
                let record = record(path)?;
                check(*version == record.version, record.version)?;
                vec![(path.clone(), Choice { hunks: None, agent })]
            }
            Part::All { version } => {
                check(*version == self.version, self.version)?;
                let choice = Choice { hunks: None, agent };
                self.records.paths().into_iter().map(|path| (path, choice.clone())).collect()
            }
        })
    }

    fn remember(&mut self, path: &TreePath, write: Write) {
        let is_same =
            |other: &Reviewed| other.path == *path && same_agent(&other.write.actor, &write.actor);
        self.reviewed.retain(|other| !is_same(other));
        self.reviewed.push_front(Reviewed { path: path.clone(), write });
        self.reviewed.truncate(MAX_REVIEWED);
    }
}
