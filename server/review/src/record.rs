//! One path under review: what was reviewed there, what is there now, and who made
//! the difference.

use s0_tree::TreePath;
use serde::{Deserialize, Serialize};

use crate::choice::same_agent;
use crate::hunk::{Hunk, Version, hunks};
use crate::item::{Body, Change, Item, Observed, State, Write};
use crate::lines::Lines;

/// One path under review.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) version: Version,
    /// What is there; `None` when a sandbox removed it.
    pub(crate) now: Option<State>,
    /// The mode that was reviewed; `None` when nothing was there.
    pub(crate) reviewed_mode: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) renamed: Option<Renamed>,
    pub(crate) inside: Inside,
    /// Who made what differs beside lines: the latest write of each agent.
    pub(crate) by: Vec<Write>,
    /// Whether the user has changed since what is reviewed as a whole.
    #[serde(default)]
    pub(crate) edited: bool,
}

/// That a sandbox gave it another path.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Renamed {
    #[serde(deserialize_with = "TreePath::recorded")]
    pub(crate) from: TreePath,
    pub(crate) write: Write,
}

/// What was reviewed, and how it is compared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Inside {
    /// Line by line: there is a text on both sides, or nothing on one of them.
    Lines(Lines),
    /// As a whole; nothing was there when there is none.
    Whole(Option<Body>),
}

impl Record {
    /// What is seen there, all of it reviewed.
    pub(crate) fn unchanged(seen: Option<&Observed<'_>>) -> Self {
        Self {
            version: Version::default(),
            now: seen.map(|seen| seen.state.clone()),
            reviewed_mode: seen.map(|seen| seen.state.mode),
            renamed: None,
            inside: match seen.map(Observed::body) {
                None => Inside::Lines(Lines::default()),
                Some(Body::Text(text)) => Inside::Lines(Lines::new(&text)),
                Some(body) => Inside::Whole(Some(body)),
            },
            by: Vec::new(),
            edited: false,
        }
    }

    /// A sandbox's write made it into what is seen.
    pub(crate) fn written(&mut self, seen: Option<&Observed<'_>>, write: &Write) {
        if let (true, Some(now)) = (self.edited, &self.now) {
            // Of a whole file the user's changes cannot be told from an agent's, so
            // a revert of this write has to stop there.
            self.inside = Inside::Whole(Some(Body::of(&now.what)));
            self.reviewed_mode = Some(now.mode);
            self.edited = false;
        }
        let mode = |state: &State| state.mode;
        let mut as_a_whole = self.now.as_ref().map(mode) != seen.map(|seen| seen.state.mode);
        match seen.map_or(Some(""), Observed::text) {
            Some(text) => {
                if let Inside::Whole(reviewed) = &self.inside {
                    match reviewed {
                        None => self.inside = Inside::Lines(Lines::default()),
                        Some(Body::Text(text)) => self.inside = Inside::Lines(Lines::new(text)),
                        Some(_) => as_a_whole = true,
                    }
                }
                if let Inside::Lines(lines) = &mut self.inside {
                    lines.written(text, write);
                }
                if self.is_beyond_limits() {
                    self.review_as_a_whole();
                }
            }
            None => {
                self.review_as_a_whole();
                as_a_whole = true;
            }
        }
        self.now = seen.map(|seen| seen.state.clone());
        if as_a_whole {
            self.add_writer(write);
        }
        self.tidy();
    }

    /// The user, or something else here, made it into what is seen.
    pub(crate) fn edited(&mut self, seen: &Observed<'_>) {
        self.rebase(seen);
        let is_other = self.now.as_ref().is_none_or(|now| now.what != seen.state.what);
        match (&mut self.inside, seen.text()) {
            (Inside::Lines(lines), Some(text)) => {
                lines.edited(text);
                if self.is_beyond_limits() {
                    self.review_as_a_whole();
                }
            }
            (Inside::Lines(_), None) => {
                self.review_as_a_whole();
                self.edited = true;
            }
            (Inside::Whole(Some(reviewed)), _) if reviewed.is(seen) => self.edited = false,
            (Inside::Whole(_), _) => self.edited |= is_other,
        }
        let is_other_mode = self.now.as_ref().is_none_or(|now| now.mode != seen.state.mode);
        if is_other_mode && self.reviewed_mode.is_some() {
            self.reviewed_mode = Some(seen.state.mode);
        }
        self.now = Some(seen.state.clone());
        self.tidy();
    }

    /// What is seen was reviewed, if only the name or the mode is under review: its
    /// text was not held for that.
    pub(crate) fn rebase(&mut self, seen: &Observed<'_>) {
        if self.is_content_reviewed() {
            self.inside = Self::unchanged(Some(seen)).inside;
        }
    }

    /// From now on its content is compared as a whole. The reviewed text stays.
    pub(crate) fn review_as_a_whole(&mut self) {
        if let Inside::Lines(lines) = &self.inside {
            let reviewed = self.reviewed_mode.map(|_| Body::Text(lines.reviewed()));
            let writes = lines.writes().to_vec();
            self.inside = Inside::Whole(reviewed);
            writes.iter().for_each(|write| self.add_writer(write));
        }
    }

    fn is_beyond_limits(&self) -> bool {
        matches!(&self.inside, Inside::Lines(lines) if !lines.is_within_limits())
    }

    fn add_writer(&mut self, write: &Write) {
        self.by.retain(|other| !same_agent(&other.actor, &write.actor));
        self.by.push(write.clone());
    }

    /// Lets go of what no longer differs.
    pub(crate) fn tidy(&mut self) {
        if let (Inside::Lines(lines), Some(now), None) =
            (&self.inside, &self.now, self.reviewed_mode)
            && lines.has_reviewed()
        {
            // A new file of which some lines were reviewed, or are the user's own,
            // was itself reviewed: it can no longer be removed to revert it.
            self.reviewed_mode = Some(now.mode);
        }
        if !self.differs_as_a_whole() {
            self.by.clear();
            self.edited = false;
        }
    }

    /// Whether there is a difference beside lines and the name.
    pub(crate) fn differs_as_a_whole(&self) -> bool {
        self.now.as_ref().map(|now| now.mode) != self.reviewed_mode || self.is_another_whole()
    }

    /// Whether it is reviewed as a whole and has another content, or is something
    /// else, than what was reviewed.
    pub(crate) fn is_another_whole(&self) -> bool {
        match (&self.inside, &self.now) {
            (Inside::Lines(_), _) | (Inside::Whole(None), None) => false,
            (Inside::Whole(Some(reviewed)), Some(now)) => {
                !reviewed.is(&Observed { state: now.clone(), bytes: None })
            }
            (Inside::Whole(_), _) => true,
        }
    }

    /// Whether it is there, and was, with the same content.
    fn is_content_reviewed(&self) -> bool {
        self.now.is_some()
            && self.reviewed_mode.is_some()
            && !self.is_another_whole()
            && !self.has_hunks()
    }

    fn has_hunks(&self) -> bool {
        matches!(&self.inside, Inside::Lines(lines) if lines.differs())
    }

    /// Whether nothing is left to review.
    pub(crate) fn is_settled(&self) -> bool {
        !self.differs_as_a_whole() && !self.has_hunks() && self.renamed.is_none()
    }

    /// How many bytes of text are held.
    pub(crate) fn bytes(&self) -> usize {
        match &self.inside {
            Inside::Lines(lines) => lines.bytes(),
            Inside::Whole(Some(Body::Text(text))) => text.len(),
            Inside::Whole(_) => 0,
        }
    }

    /// The hunks of a file that is there and is reviewed line by line.
    pub(crate) fn hunks(&self) -> Vec<Hunk> {
        match (&self.inside, &self.now) {
            (Inside::Lines(lines), Some(_)) => hunks(lines, self.version),
            _ => Vec::new(),
        }
    }

    /// What was reviewed there; `None` when nothing was.
    pub(crate) fn reviewed(&self) -> Option<Body> {
        self.reviewed_mode?;
        match &self.inside {
            Inside::Lines(lines) => Some(Body::Text(lines.reviewed())),
            Inside::Whole(reviewed) => reviewed.clone(),
        }
    }

    /// All writes that made something that is to be reviewed, oldest first.
    pub(crate) fn writes(&self) -> Vec<&Write> {
        let lines = match &self.inside {
            Inside::Lines(lines) => lines.writes(),
            Inside::Whole(_) => &[],
        };
        let renamed = self.renamed.iter().map(|renamed| &renamed.write);
        let mut writes: Vec<&Write> = lines.iter().chain(&self.by).chain(renamed).collect();
        writes.sort_by_key(|write| write.seq);
        writes.dedup();
        writes
    }

    pub(crate) fn item<'a>(&'a self, path: &'a TreePath) -> Item<'a> {
        let change = match (self.reviewed_mode, &self.now) {
            (None, _) => Change::Created,
            (_, None) => Change::Removed,
            _ if self.is_another_whole() || self.has_hunks() => Change::Content,
            _ => Change::Attributes,
        };
        let is_by_lines = matches!(self.inside, Inside::Lines(_)) && self.now.is_some();
        let modes = self.reviewed_mode.zip(self.now.as_ref().map(|now| now.mode));
        Item {
            path,
            version: self.version,
            change,
            hunks: is_by_lines.then(|| self.hunks().len()),
            renamed_from: self.renamed.as_ref().map(|renamed| &renamed.from),
            mode: modes.filter(|(was, is)| was != is),
            edited: self.edited,
            writes: self.writes(),
            now: self.now.as_ref(),
        }
    }
}
