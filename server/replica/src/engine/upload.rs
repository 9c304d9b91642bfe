//! Uploads: what differs on the disk is offered to the Volume, with what was
//! expected there.
//!
//! One submission is on its way at a time. It is durable before it is sent, is
//! sent word for word until it is answered, and counts when the journal has
//! been followed as far as its answer.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use s0_api::sync::Submission;
use s0_tree::{
    Action, AttributeChange, Change, ContentId, Expected, New, News, NodeId, Origin, Place,
    Refusal, TreePath, Usage, admit,
};

use super::read::{BYTES_BUDGET, READS_AT_ONCE};
use super::{Done, Effect, Heat, Link, Local, Pause, Replica};
use crate::disk::{Description, Disk, Spot};
use crate::state::{Facts, Outgoing, Print, Record, Row, Sent, Store, What};

/// The most changes in one submission.
const CHANGES: usize = 1000;
/// The most bytes of small contents in one submission.
const INLINE_BYTES: usize = 4 << 20;
/// A submission in the making.
#[derive(Default)]
pub(super) struct Draft {
    changes: Vec<Change>,
    sent: Vec<Sent>,
    inline: Vec<(ContentId, Arc<[u8]>)>,
    inline_bytes: usize,
    /// Directories that are made in this submission.
    made: BTreeSet<TreePath>,
    /// Paths that are removed in this submission.
    removed: BTreeSet<TreePath>,
    /// How much the Volume holds after these changes.
    used: Usage,
    /// Nothing at, above or below these goes into the same submission.
    pub(super) apart: Vec<TreePath>,
}

impl Draft {
    pub(super) fn is_full(&self) -> bool {
        self.changes.len() >= CHANGES || self.inline_bytes >= INLINE_BYTES
    }

    pub(super) fn is_apart(&self, path: &TreePath) -> bool {
        self.apart.iter().any(|at| path.is_at_or_below(at) || at.is_at_or_below(path))
    }

    pub(super) fn push(&mut self, change: Change, sent: Sent) {
        self.changes.push(change);
        self.sent.push(sent);
    }
}

impl<D: Disk, S: Store> Replica<D, S> {
    /// Sends what is on its way, or plans the next submission.
    pub(super) fn upload(&mut self) -> Done {
        if self.link != Link::Following || !self.state.facts.initialised {
            return Ok(());
        }
        if self.state.outgoing.is_none() {
            let draft = self.draft()?;
            if draft.changes.is_empty() {
                return Ok(());
            }
            self.check_root()?;
            if self.halt.is_some() {
                return Ok(());
            }
            self.seal(draft)?;
        }
        if let Some(outgoing) = &self.state.outgoing
            && outgoing.answer.is_none()
            && self.sending != Some(outgoing.submission.number)
        {
            self.sending = Some(outgoing.submission.number);
            let submission = Arc::new(outgoing.submission.clone());
            self.effects.push_back(Effect::Submit(submission, outgoing.inline.clone()));
        }
        Ok(())
    }

    /// Makes a draft durable.
    fn seal(&mut self, draft: Draft) -> Done {
        let number = self.state.facts.number + 1;
        for sent in &draft.sent {
            self.heat_up(&sent.path);
        }
        let outgoing = Outgoing {
            submission: Submission { number, changes: draft.changes },
            sent: draft.sent,
            inline: draft.inline,
            answer: None,
        };
        let facts = Facts { number, ..self.state.facts.clone() };
        let records = vec![Record::Outgoing(Some(Box::new(outgoing))), Record::Facts(facts)];
        self.commit(records, true)?;
        self.note_in_flight();
        Ok(())
    }

    /// Notes the paths that the submission on its way speaks of, both ends of
    /// renames among them.
    pub(super) fn note_in_flight(&mut self) {
        let sent = self.state.outgoing.iter().flat_map(|outgoing| &outgoing.sent);
        let paths = sent.flat_map(|sent| {
            let from = sent.from.as_ref().and_then(|from| self.disk_path(from));
            std::iter::once(sent.path.clone()).chain(from)
        });
        self.in_flight = paths.collect();
    }

    /// A path that is sent again and again is sent less and less often.
    fn heat_up(&mut self, path: &TreePath) {
        let now = self.now;
        if self.heat.len() > 10_000 {
            self.heat.retain(|_, heat| heat.credit_at(now) < Heat::MOST);
        }
        let credit = self.heat.get(path).map_or(Heat::MOST, |heat| heat.credit_at(now));
        let credit = credit.saturating_sub(Heat::COST);
        self.heat.insert(path.clone(), Heat { credit, last: now });
    }

    fn draft(&mut self) -> Result<Draft, super::Stop> {
        let used = self.remote.as_ref().map(s0_tree::Tree::usage).unwrap_or_default();
        let mut draft = Draft { used, ..Draft::default() };
        self.no_room.clear();
        // What is gone or was moved has to do with other paths, so then all are looked
        // at together. Otherwise no more of them are than go into one submission.
        let there = |local: &Local| matches!(local, Local::There { .. });
        let together = !self.changed.values().all(there);
        let at_once = if together { usize::MAX } else { CHANGES };
        let mut after = None;
        while !draft.is_full() {
            let from = after.map_or(Bound::Unbounded, Bound::Excluded);
            let next = self.changed.range((from, Bound::Unbounded)).take(at_once);
            let paths: Vec<TreePath> = next.map(|(path, _)| path.clone()).collect();
            after = paths.last().cloned();
            if after.is_none() {
                break;
            }
            self.draft_some(paths, together, &mut draft)?;
        }
        Ok(draft)
    }

    fn draft_some(&mut self, paths: Vec<TreePath>, together: bool, draft: &mut Draft) -> Done {
        for path in &paths {
            // What nobody agreed on cannot be missing.
            if matches!(self.changed.get(path), Some(Local::Gone)) && self.row_at(path).is_none() {
                self.changed.remove(path);
            }
        }
        let candidates: Vec<TreePath> =
            paths.into_iter().filter(|path| self.may_upload(path)).collect();
        let renamed =
            if together { self.draft_renames(&candidates, draft)? } else { BTreeSet::new() };
        for path in candidates.iter().rev() {
            if !draft.is_full() && !draft.is_apart(path) {
                self.draft_removal(path, draft);
            }
        }
        self.read_ahead(&candidates);
        for path in &candidates {
            if draft.is_full() {
                break;
            }
            if !draft.is_apart(path) && !renamed.contains(path) {
                self.draft_put(path, draft)?;
            }
        }
        Ok(())
    }

    /// Reads the small files that come next, several at once, as far as there is room.
    /// What is not as it was seen is left to who sends it.
    fn read_ahead(&mut self, candidates: &[TreePath]) {
        let (mut next, mut size) = (Vec::new(), 0);
        for path in candidates {
            let Some(Local::There { what: What::File(content), print, .. }) =
                self.changed.get(path)
            else {
                continue;
            };
            if content.is_inline()
                && content.size <= self.config.inline_limit
                && !self.bytes.contains_key(path)
            {
                size += usize::try_from(content.size).unwrap_or(usize::MAX);
                next.push((path.clone(), *content, print.stat));
                if size >= INLINE_BYTES || next.len() >= READS_AT_ONCE {
                    break;
                }
            }
        }
        if next.len() < 2 || self.bytes_held + size > BYTES_BUDGET {
            return;
        }
        let spots: Vec<_> = next.iter().map(|(path, ..)| Spot::Path(path.clone())).collect();
        for ((path, content, known), read) in next.into_iter().zip(self.disk.describe(&spots)) {
            if let Ok(Description::Stable { stat, content: now, bytes: Some(bytes), .. }) = read
                && (now, stat) == (content, known)
            {
                self.bytes_held += bytes.len();
                self.bytes.insert(path, Arc::from(bytes));
            }
        }
    }

    /// Whether a changed path may be offered now, as far as itself goes.
    fn may_upload(&mut self, path: &TreePath) -> bool {
        if !self.is_wanted(path) || self.dirty.contains_key(path) {
            return false;
        }
        // The directory may be another one by now, and is looked at next.
        let is_due = |at: TreePath| self.dirty.get(&at).is_some_and(|dirt| dirt.due <= self.now);
        if !self.dirty.is_empty() && (is_due(TreePath::root()) || path.ancestors().any(is_due)) {
            return false;
        }
        if let Some(heat) = self.heat.get(path)
            && self.now < heat.cool_at()
        {
            let wait = heat.cool_at() - self.now;
            self.retry_in(wait);
            return false;
        }
        true
    }

    /// Whether the draft of one change may be sent while conflicts are open.
    pub(super) fn may_offer(&self, change: &Change) -> bool {
        if self.config.pause == Pause::Path || !self.has_open_conflicts() {
            return true;
        }
        let Some(tree) = &self.remote else { return false };
        let judged = admit(tree, change, self.policy, &News::default(), &Origin::default());
        matches!(judged, Err(Refusal::Conflict { .. }))
    }

    /// What is gone, or is of another kind now, is removed: children first.
    fn draft_removal(&mut self, path: &TreePath, draft: &mut Draft) {
        let Some((place, row)) = self.row_at(path).map(|(place, row)| (place, row.clone())) else {
            return;
        };
        let other_kind = match self.changed.get(path) {
            Some(Local::Gone) => true,
            Some(Local::There { what, .. }) => {
                std::mem::discriminant(what) != std::mem::discriminant(&row.what)
                    || (matches!(what, What::Symlink(_)) && *what != row.what)
            }
            _ => false,
        };
        if !other_kind {
            return;
        }
        let mut below = self.rows_below(path);
        below.reverse();
        below.push((path.clone(), place, row));
        for (path, place, row) in below {
            let is_directory = row.what.is_directory();
            // What is left in a directory keeps it: a child whose removal waits, or
            // one that was moved out and is still in there for the Volume.
            let holds =
                |(name, _): (&s0_tree::Name, &Row)| !draft.removed.contains(&path.join(name));
            let blocked = draft.removed.contains(&path)
                || (is_directory && self.state.synced.children(row.node).any(holds))
                || self.in_conflict(&path)
                || (is_directory && self.state.conflicts.keys().any(|c| c.is_at_or_below(&path)))
                || draft.is_apart(&path);
            let Some(at) = self.volume_path(&path) else { continue };
            if blocked || draft.is_apart(&at) {
                continue;
            }
            let change = Change::new(
                Action::Remove { path: at },
                Expected::Node { id: row.node, version: row.version },
            );
            let elsewhere = |this: &Self| {
                // Ours by name only: the Volume has moved the node away.
                this.remote.as_ref().is_some_and(|t| t.at_place(&place) != Some(row.node))
                    && this.remote.as_ref().is_some_and(|t| t.node(row.node).is_some())
            };
            if !elsewhere(self) && !self.may_offer(&change) {
                continue;
            }
            let freed = self.held_by(&change);
            draft.used.bytes = draft.used.bytes.saturating_sub(freed.bytes);
            draft.used.inodes = draft.used.inodes.saturating_sub(freed.inodes);
            draft.removed.insert(path.clone());
            let parent = Some(place.parent);
            draft.push(
                change,
                Sent { path, local: None, from: Some(place), parent, renamed: false },
            );
        }
    }

    /// The rows below a path of the disk, with their paths, parents first.
    pub(super) fn rows_below(&self, path: &TreePath) -> Vec<(TreePath, Place, Row)> {
        let mut found = Vec::new();
        let Some(node) = self.directory_at(path) else { return found };
        let mut stack = vec![(path.clone(), node)];
        while let Some((above, directory)) = stack.pop() {
            for (name, row) in self.state.synced.children(directory) {
                let path = above.join(name);
                if row.what.is_directory() && self.is_moved(row.node) {
                    // It is elsewhere on the disk, with all that is in it.
                    continue;
                }
                if row.what.is_directory() {
                    stack.push((path.clone(), row.node));
                }
                let place = Place { parent: directory, name: name.clone() };
                found.push((path, place, row.clone()));
            }
        }
        found
    }

    /// What is there is created or written, parents first.
    fn draft_put(&mut self, path: &TreePath, draft: &mut Draft) -> Done {
        let Some(Local::There { what, mode, print }) = self.changed.get(path).cloned() else {
            return Ok(());
        };
        let Some(above) = path.parent() else { return Ok(()) };
        if self.directory_at(&above).is_none() && !draft.made.contains(&above) {
            if !self.changed.contains_key(&above) && !self.dirty.contains_key(&above) {
                // Its directory was forgotten when it stopped being synced.
                self.touch(above, self.now + self.config.settle, false);
            }
            return Ok(());
        }
        if self.moved_away(path).is_some_and(|there| !self.in_conflict(there)) {
            // The Volume has the directory here until its move has been told.
            return Ok(());
        }
        let set = if self.disk.abilities().modes && !matches!(what, What::Symlink(_)) {
            AttributeChange::mode(mode)
        } else {
            AttributeChange::default()
        };
        let row = self.row_at(path).map(|(_, row)| row.clone());
        let Some(at) = self.volume_path(path).filter(|at| !draft.is_apart(at)) else {
            return Ok(());
        };
        if what.is_directory() && self.is_told_of_another(&at, path) {
            return Ok(());
        }
        let change = match &row {
            Some(row)
                if std::mem::discriminant(&row.what) == std::mem::discriminant(&what)
                    && !matches!(what, What::Symlink(_)) =>
            {
                let expect = Expected::Node { id: row.node, version: row.version };
                let action = match &what {
                    What::File(content) if row.what != what => {
                        let set = if self.same_mode(&what, mode, row.mode) {
                            AttributeChange::default()
                        } else {
                            set
                        };
                        Action::Write { path: at, content: *content, set }
                    }
                    _ => Action::Attributes { path: at, set },
                };
                Change::new(action, expect)
            }
            replaced => {
                // Something of another kind: its removal must be in this draft.
                if replaced.is_some() && !draft.removed.contains(path) {
                    return Ok(());
                }
                let what = match &what {
                    What::File(content) => New::File { content: *content },
                    What::Directory => New::Directory,
                    What::Symlink(target) => New::Symlink { target: target.clone() },
                };
                Change::new(Action::Create { path: at, what, set }, Expected::Absent)
            }
        };
        if !self.may_offer(&change) {
            return Ok(());
        }
        let used = self.used_after(&change, draft.used);
        if !self.quota.allows(draft.used, used) {
            self.no_room.insert(path.clone());
            return Ok(());
        }
        if let What::File(content) = &what
            && change.content().is_some()
            && !self.provide(path, *content, &print, draft)
        {
            return Ok(());
        }
        if what.is_directory() {
            draft.made.insert(path.clone());
        }
        let local = Some((what, mode, Some(print)));
        let parent = self.directory_at(&above);
        draft.used = used;
        draft.push(change, Sent { path: path.clone(), local, from: None, parent, renamed: false });
        Ok(())
    }

    /// How much of the Volume goes with what a change is about.
    fn held_by(&self, change: &Change) -> Usage {
        let node = self.remote.as_ref().and_then(|tree| tree.at(change.path()));
        let last = |(_, node): &(NodeId, &s0_tree::Node)| node.places.len() < 2;
        let held = |(_, node): (NodeId, &s0_tree::Node)| Usage {
            bytes: node.content().map_or(0, |content| content.size),
            inodes: 1,
        };
        node.filter(last).map(held).unwrap_or_default()
    }

    /// How much the Volume holds after a change that puts something there.
    fn used_after(&self, change: &Change, used: Usage) -> Usage {
        let size = change.content().map_or(0, |content| content.size);
        match &change.action {
            Action::Create { .. } => used.plus(Usage { bytes: size, inodes: 1 }),
            Action::Write { path, .. } => {
                let node = self.remote.as_ref().and_then(|tree| tree.at(path));
                let old = node.and_then(|(_, node)| node.content());
                used.rewritten(old.map_or(0, |content| content.size), size)
            }
            _ => used,
        }
    }

    /// Whether the Volume has no room for this, or for a directory above it.
    pub(super) fn has_no_room(&self, path: &TreePath) -> bool {
        let mut here = std::iter::once(path.clone()).chain(path.ancestors());
        !self.no_room.is_empty() && here.any(|at| self.no_room.contains(&at))
    }

    /// What is told of all that the Volume has no room for.
    pub(super) fn why_no_room(&self) -> String {
        let used = self.remote.as_ref().map(s0_tree::Tree::usage).unwrap_or_default();
        format!(
            "the Volume has no room for it: {} are used; remove something, or give it a larger \
             quota with `s0 volume set`",
            self.quota.in_words(used)
        )
    }

    /// Whether the Volume has a directory at `at` that is somewhere else here: until
    /// that one has moved, a new one at `path` cannot be told from it.
    fn is_told_of_another(&self, at: &TreePath, path: &TreePath) -> bool {
        let there = self.remote.as_ref().and_then(|tree| tree.lookup(at));
        there.is_some_and(|node| self.is_elsewhere(node, path))
    }

    /// Makes sure that the service will have a content: small ones go along,
    /// large ones must be there before.
    fn provide(
        &mut self,
        path: &TreePath,
        content: s0_tree::Content,
        print: &Print,
        draft: &mut Draft,
    ) -> bool {
        if content.size > self.config.inline_limit || !content.is_inline() {
            if self.uploaded.contains(&content.id) {
                return true;
            }
            if self.uploading.len() < 64 && self.uploading.insert(content.id) {
                let recipe = self.recipe.as_ref().filter(|(id, _)| *id == content.id);
                let recipe = recipe.map(|(_, recipe)| recipe.clone());
                self.effects.push_back(Effect::Upload { path: path.clone(), content, recipe });
            }
            return false;
        }
        let bytes = match self.bytes.get(path) {
            Some(bytes) => bytes.clone(),
            None => {
                let read = self.disk.describe(&[Spot::Path(path.clone())]).pop();
                match read {
                    Some(Ok(Description::Stable {
                        stat,
                        content: now,
                        bytes: Some(bytes),
                        ..
                    })) if now == content && stat == print.stat => Arc::from(bytes),
                    _ => {
                        self.touch(path.clone(), self.now, false);
                        return false;
                    }
                }
            }
        };
        draft.inline_bytes += bytes.len();
        draft.inline.push((content.id, bytes));
        true
    }
}
