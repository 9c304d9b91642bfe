//! The service: the real ledger, with commits that can be lost, retention, and
//! backups that bring a Volume's past back.

use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;

use s0_api::sync::{Answer, Outcome, Registered, Registration, Submission, SubmitError};
use s0_service::ledger::{Ledger, Submitted};
use s0_tree::{
    Action, Actor, AttributeChange, Change, Content, ContentId, Entry, Kind, New, News, Node, Op,
    Origin, Reason, RenameHow, Seq, Source, Time, TreePath, fold,
};

use crate::coverage::Shared;
use crate::lines::{Lines, lines_in};
use crate::mount::{Knowledge, Sent};
use crate::site::Registry;

/// What is to be done once a commit is durable.
pub struct Waiting {
    pub machine: usize,
    pub session: u64,
    pub number: u64,
    pub answer: Result<Answer, SubmitError>,
}

/// The simulated service.
pub struct Service {
    /// Admitted, perhaps not committed.
    pub ledger: Ledger,
    /// Committed.
    durable: Ledger,
    pub journal: Vec<Entry>,
    pub uncommitted: Vec<Entry>,
    uncommitted_known: Vec<Rc<[u8]>>,
    pub waiting: Vec<Waiting>,
    /// How often it has committed.
    pub commits: u64,
    pub contents: HashMap<ContentId, Rc<[u8]>>,
    /// Entries up to here are not kept.
    pub floor: Seq,
    backups: Vec<(Ledger, usize)>,
    /// Conflicts that mounts were told of.
    told: BTreeSet<(Arc<str>, TreePath, Reason)>,
    conflicts: u64,
    epochs: u64,
}

impl Default for Service {
    fn default() -> Self {
        Self::new()
    }
}

impl Service {
    pub fn new() -> Self {
        let ledger = Ledger::new("epoch 0".into());
        Self {
            durable: ledger.clone(),
            ledger,
            journal: Vec::new(),
            uncommitted: Vec::new(),
            uncommitted_known: Vec::new(),
            waiting: Vec::new(),
            commits: 0,
            contents: HashMap::new(),
            floor: Seq(0),
            backups: Vec::new(),
            told: BTreeSet::new(),
            conflicts: 0,
            epochs: 0,
        }
    }

    pub fn head(&self) -> Seq {
        self.durable.head()
    }

    /// The entries after a seq, if they are retained.
    pub fn entries_after(&self, after: Seq) -> Option<Vec<Entry>> {
        if after < self.floor || after > self.head() {
            return None;
        }
        Some(self.journal.iter().filter(|entry| entry.seq > after).cloned().collect())
    }

    /// Who made an entry.
    pub fn author(&self, seq: Seq) -> Option<Actor> {
        let entry = self.journal.iter().find(|entry| entry.seq == seq && seq > self.floor);
        entry.map(|entry| entry.actor.clone())
    }

    pub fn tree(&self) -> &s0_tree::Tree {
        self.durable.tree()
    }

    pub fn epoch(&self) -> &str {
        self.durable.epoch()
    }

    pub fn register(&mut self, id: &str, registration: &Registration) -> Registered {
        let registered = self.ledger.register(id, registration, Time(0));
        Registered { head: self.durable.head(), ..registered }
    }

    /// Admits a submission; the answer comes with the next commit.
    #[expect(clippy::too_many_arguments, reason = "a message and where it came from")]
    pub fn submit(
        &mut self,
        id: &str,
        instance: u64,
        submission: &Submission,
        inline: &[(ContentId, std::sync::Arc<[u8]>)],
        now: u64,
        registry: &mut Registry,
        seen: &std::collections::BTreeSet<Rc<[u8]>>,
    ) -> (Result<Answer, SubmitError>, bool) {
        let before = self.ledger.tree().clone();
        match self.admit((id, instance), submission, inline, now) {
            Err(error) => (Err(error), false),
            Ok(submitted) if submitted.repeated => (Ok(submitted.answer), true),
            Ok(submitted) => {
                for (id, bytes) in inline {
                    self.contents.insert(*id, Rc::from(&**bytes));
                }
                let mut tree = before;
                for entry in &submitted.entries {
                    if let Some(lost) = self.replaced(&tree, entry)
                        && !seen.contains(&lost)
                    {
                        let lost = String::from_utf8_lossy(&lost).into_owned();
                        registry.violate(format!(
                            "{id} replaced {lost:?} at {} without ever having seen it",
                            entry.path
                        ));
                    }
                    if fold(&mut tree, entry).is_err() {
                        registry.violate(format!("entry {} does not fit", entry.seq));
                    }
                }
                for conflict in &submitted.conflicts {
                    let both = [conflict.change.content(), conflict.existing_content];
                    for content in both.into_iter().flatten() {
                        self.uncommitted_known.extend(self.bytes(content));
                    }
                }
                self.take(submitted.entries);
                (Ok(submitted.answer), false)
            }
        }
    }

    fn admit(
        &mut self,
        (id, instance): (&str, u64),
        submission: &Submission,
        inline: &[(ContentId, Arc<[u8]>)],
        now: u64,
    ) -> Result<Submitted, SubmitError> {
        let held: Vec<ContentId> = inline.iter().map(|(id, _)| *id).collect();
        let contents = &self.contents;
        let conflicts = &mut self.conflicts;
        self.ledger.submit(
            id,
            instance,
            submission,
            Time(i64::try_from(now).unwrap_or(0)),
            &mut || {
                *conflicts += 1;
                format!("conflict {conflicts}")
            },
            &|id| contents.contains_key(&id) || held.contains(&id),
        )
    }

    /// The same of a mount, with what its programs know. The answer comes with the next commit.
    pub fn submit_of_mount(
        &mut self,
        (session, instance): (&Arc<str>, u64),
        sent: &Sent,
        known: &Knowledge,
        now: u64,
        registry: &mut Registry,
        lines: &mut Lines,
    ) -> Result<Answer, SubmitError> {
        let mut tree = self.ledger.tree().clone();
        let submission = &sent.submission;
        let submitted = self.admit((session, instance), submission, &sent.inline, now)?;
        if submitted.repeated {
            return Ok(submitted.answer);
        }
        for (id, bytes) in &sent.inline {
            let data: Rc<[u8]> = Rc::from(&**bytes);
            // Its lines are looked for, wherever they come to.
            registry.written.entry(data.clone()).or_insert(true);
            self.contents.insert(*id, data);
        }
        let is_done = |outcome: &Outcome| match outcome {
            Outcome::Accepted { .. } | Outcome::Held { .. } => true,
            Outcome::Conflict { reason, .. } => !reason.is_about_names(),
            _ => false,
        };
        for (change, outcome) in submission.changes.iter().zip(&submitted.answer.outcomes) {
            let data = change.content().and_then(|content| self.bytes(content));
            let Some(data) = data.filter(|_| is_done(outcome)) else { continue };
            let lines = lines_in(&data);
            if lines.iter().collect::<BTreeSet<_>>().len() != lines.len() {
                let text = String::from_utf8_lossy(&data).into_owned();
                registry.violate(format!("{session} has a line twice: {text:?}"));
            }
        }
        let stale = !submitted.answer.outcomes.iter().all(is_done);
        lines.hold(session, submission.number, stale);
        let accepted = submitted.answer.outcomes.iter().zip(&sent.keeps);
        let keeps: Vec<Seq> = accepted
            .filter_map(|(outcome, keeps)| match outcome {
                Outcome::Accepted { seq, .. } if *keeps => Some(*seq),
                _ => None,
            })
            .collect();
        for entry in &submitted.entries {
            let knows =
                if matches!(entry.op, Op::Write { .. }) { &known.seen } else { &known.folded };
            if let Some(lost) = self.replaced(&tree, entry) {
                let text = String::from_utf8_lossy(&lost).into_owned();
                if !knows.contains(&Content::of(&lost).id) {
                    registry.violate(format!(
                        "{session} replaced {text:?} at {} without ever having seen it",
                        entry.path
                    ));
                }
                let written = entry.content().and_then(|content| self.bytes(content));
                if keeps.contains(&entry.seq) && written.is_some_and(|it| !it.starts_with(&lost)) {
                    registry.violate(format!(
                        "{session} appended to {text:?} at {}, and it is not there any more",
                        entry.path
                    ));
                }
            }
            if fold(&mut tree, entry).is_err() {
                registry.violate(format!("entry {} does not fit", entry.seq));
            }
        }
        for conflict in &submitted.conflicts {
            // What is only told is recorded if it is the first of its kind.
            let is_told = conflict.change.looks_again;
            let kind = (session.clone(), conflict.path.clone(), conflict.reason);
            if is_told && !self.told.insert(kind) {
                continue;
            }
            let both = [conflict.change.content(), conflict.existing_content];
            for content in both.into_iter().flatten() {
                self.uncommitted_known.extend(self.bytes(content));
            }
        }
        self.take(submitted.entries);
        Ok(submitted.answer)
    }

    /// The content of another that an entry takes out of the tree.
    fn replaced(&self, tree: &s0_tree::Tree, entry: &Entry) -> Option<Rc<[u8]>> {
        let node = match &entry.op {
            Op::Write { node, .. } | Op::Remove { node, .. } => *node,
            Op::Rename { displaced: Some(node), how: RenameHow::Replace, .. } => *node,
            _ => return None,
        };
        let node = tree.node(node)?;
        if node.places.len() > 1 && matches!(entry.op, Op::Remove { .. }) {
            return None;
        }
        self.bytes(node.content()?).filter(|bytes| !bytes.is_empty())
    }

    pub fn bytes(&self, content: Content) -> Option<Rc<[u8]>> {
        self.contents.get(&content.id).cloned()
    }

    fn take(&mut self, entries: Vec<Entry>) {
        for entry in &entries {
            if let Some(content) = entry.content() {
                self.uncommitted_known.extend(self.bytes(content));
            }
        }
        self.uncommitted.extend(entries);
    }

    /// Makes what was admitted durable, and gives the answers that waited.
    pub fn commit(&mut self, registry: &mut Registry) -> Vec<Waiting> {
        self.durable = self.ledger.clone();
        self.commits += 1;
        self.journal.append(&mut self.uncommitted);
        registry.known.extend(self.uncommitted_known.drain(..));
        std::mem::take(&mut self.waiting)
    }

    /// The service dies: what was not committed never was.
    pub fn crash(&mut self, registry: &mut Registry) {
        self.ledger = self.durable.clone();
        self.uncommitted.clear();
        for data in self.uncommitted_known.drain(..) {
            // An agent that wrote it was never told that it is safe.
            if data.starts_with(b"agent") {
                registry.excuse(&data);
            }
        }
        self.waiting.clear();
    }

    pub fn back_up(&mut self) {
        self.backups.push((self.durable.clone(), self.journal.len()));
    }

    /// An operator brings a backup back. Says whether there was one.
    pub fn restore_backup(&mut self, rng: &mut fastrand::Rng, registry: &mut Registry) -> bool {
        if self.backups.is_empty() {
            return false;
        }
        self.crash(registry);
        let (ledger, length) = self.backups[rng.usize(..self.backups.len())].clone();
        self.epochs += 1;
        let replicas = ledger.replicas().cloned().collect();
        let epoch = format!("epoch {}", self.epochs);
        let Ok(ledger) =
            Ledger::rebuild(epoch, ledger.tree().clone(), std::iter::empty(), replicas)
        else {
            return false;
        };
        self.journal.truncate(length);
        self.floor = self.floor.min(ledger.head());
        self.durable = ledger.clone();
        self.ledger = ledger;
        self.backups.clear();
        true
    }

    /// Keeps a name for a mount. Whether it was free.
    pub fn reserve(&mut self, session: &Arc<str>, path: &TreePath) -> bool {
        let ledgers = [&mut self.ledger, &mut self.durable];
        let is_free = ledgers.iter().all(|ledger| ledger.is_free(session, path));
        if is_free {
            ledgers.into_iter().for_each(|ledger| ledger.reserve(session, path));
        }
        is_free
    }

    /// A name is kept no longer; without one, none of a mount's.
    pub fn release(&mut self, session: &str, path: Option<&TreePath>) {
        self.ledger.release(session, path);
        self.durable.release(session, path);
    }

    /// Two spellings of one name, from before anybody registered who minds.
    pub fn start_with_spellings(&mut self, registry: &mut Registry, rng: &mut fastrand::Rng) {
        let changes: Vec<Change> = ["Notes.md", "notes.md"]
            .iter()
            .filter_map(|name| {
                let data = registry.fresh("agent", rng);
                let content = Content::of(&data);
                self.contents.insert(content.id, data);
                let path = TreePath::new(name).ok()?;
                let what = New::File { content };
                let set = AttributeChange::default();
                Some(Change::unstated(Action::Create { path, what, set }))
            })
            .collect();
        let origin = Origin { source: Source::Sandbox, ..Origin::default() };
        let mut no_conflict = || "none".to_owned();
        if let Ok(admitted) =
            self.ledger.admit(&origin, &changes, &News::default(), &mut no_conflict)
        {
            self.take(admitted.entries);
        }
        self.commit(registry);
    }

    /// An agent works in the Volume itself.
    pub fn agent(
        &mut self,
        rng: &mut fastrand::Rng,
        names: &[&str],
        now: u64,
        registry: &mut Registry,
        coverage: &Shared,
    ) {
        let changes = self.agent_changes(rng, names, registry);
        let origin = Origin {
            source: Source::Sandbox,
            actor: Actor { sandbox: Some("sb_sim".into()), ..Actor::default() },
            request: None,
            time: Time(i64::try_from(now).unwrap_or(0)),
            uid: 0,
            gid: 0,
        };
        let brought: Vec<_> = changes.iter().filter_map(Change::content).collect();
        let conflicts = &mut self.conflicts;
        let admitted = self.ledger.admit(&origin, &changes, &News::default(), &mut || {
            *conflicts += 1;
            format!("conflict {conflicts}")
        });
        if let Ok(admitted) = admitted {
            for conflict in &admitted.conflicts {
                let reason = serde_json::to_string(&conflict.reason).unwrap_or_default();
                crate::coverage::Coverage::count(
                    coverage,
                    &format!("conflict {}", reason.trim_matches('"')),
                );
            }
            self.take(admitted.entries);
        }
        let named: std::collections::BTreeSet<_> =
            self.uncommitted.iter().filter_map(Entry::content).collect();
        for content in brought {
            if !named.contains(&content)
                && let Some(bytes) = self.bytes(content)
            {
                registry.excuse(&bytes);
            }
        }
    }

    fn agent_changes(
        &mut self,
        rng: &mut fastrand::Rng,
        names: &[&str],
        registry: &mut Registry,
    ) -> Vec<Change> {
        let tree = self.ledger.tree().clone();
        let all: Vec<(TreePath, bool)> =
            tree.walk().map(|(path, _, node)| (path, node.directory().is_some())).collect();
        let pick = |rng: &mut fastrand::Rng, want_dir: bool| {
            let fit: Vec<_> = all.iter().filter(|(_, is_dir)| *is_dir == want_dir).collect();
            if fit.is_empty() { None } else { Some(fit[rng.usize(..fit.len())].0.clone()) }
        };
        let spelled = all.iter().map(|(path, _)| path.clone()).find(|path| {
            path.name().is_some_and(|name| name.as_str().to_lowercase() == "notes.md")
        });
        let fresh_path = |rng: &mut fastrand::Rng| {
            let name = names[rng.usize(..names.len())];
            let above = if rng.bool() { pick(rng, true) } else { None };
            let text = match above {
                Some(above) => format!("{above}/{name}"),
                None => name.to_owned(),
            };
            TreePath::new(&text).unwrap_or_default()
        };
        let put = |this: &mut Self, rng: &mut fastrand::Rng, registry: &mut Registry| {
            let data = registry.fresh("agent", rng);
            let content = Content::of(&data);
            this.contents.insert(content.id, data);
            content
        };
        let set = AttributeChange::default();
        let actions = match rng.u8(..100) {
            0..=29 => {
                let path = if rng.bool() { pick(rng, false) } else { None };
                let path = path.unwrap_or_else(|| fresh_path(rng));
                vec![Action::Write { path, content: put(self, rng, registry), set }]
            }
            30..=49 => {
                let Some(to) = pick(rng, false) else { return Vec::new() };
                let Ok(from) = TreePath::new(&format!("{to}.swp")) else { return Vec::new() };
                let content = put(self, rng, registry);
                vec![
                    Action::Create { path: from.clone(), what: New::File { content }, set },
                    Action::Rename { from, to, how: RenameHow::Replace },
                ]
            }
            50..=57 => match pick(rng, false) {
                Some(path) => vec![Action::Remove { path }],
                None => return Vec::new(),
            },
            // A file is given another spelling of its name.
            58..=59 => match spelled
                .or_else(|| pick(rng, false))
                .and_then(|from| Some((from.split()?, from)))
            {
                Some(((above, name), from)) => {
                    let name = match rng.u8(..3) {
                        0 => name.as_str().to_uppercase(),
                        1 => name.as_str().to_lowercase(),
                        _ => name.as_str().replace('n', "N"),
                    };
                    let Ok(name) = s0_tree::Name::new(&name) else { return Vec::new() };
                    vec![Action::Rename { to: above.join(&name), from, how: RenameHow::NoReplace }]
                }
                None => return Vec::new(),
            },
            60..=64 => match pick(rng, false) {
                Some(from) => {
                    vec![Action::Rename { from, to: fresh_path(rng), how: RenameHow::Replace }]
                }
                None => return Vec::new(),
            },
            65..=71 => match pick(rng, true) {
                Some(from) => {
                    let to = ["d", "e", "d/f", "e/g", "h"][rng.usize(..5)];
                    let Ok(to) = TreePath::new(to) else { return Vec::new() };
                    vec![Action::Rename { from, to, how: RenameHow::Replace }]
                }
                None => return Vec::new(),
            },
            72..=74 => {
                let is_dir = rng.bool();
                match (pick(rng, is_dir), pick(rng, is_dir)) {
                    (Some(from), Some(to)) => {
                        vec![Action::Rename { from, to, how: RenameHow::Exchange }]
                    }
                    _ => return Vec::new(),
                }
            }
            75..=82 => {
                let path = ["d", "e", "d/f", "e/g", "h"][rng.usize(..5)];
                let Ok(path) = TreePath::new(path) else { return Vec::new() };
                vec![Action::Create { path, what: New::Directory, set }]
            }
            83..=85 => {
                vec![Action::Create {
                    path: fresh_path(rng),
                    what: New::Symlink { target: "a".into() },
                    set,
                }]
            }
            86..=88 => match pick(rng, false) {
                Some(existing) => vec![Action::Link { path: fresh_path(rng), existing }],
                None => return Vec::new(),
            },
            89..=91 => match pick(rng, rng_bool(now_bit(&tree))) {
                Some(path) => {
                    let mode = if rng.bool() { 0o755 } else { 0o700 };
                    vec![Action::Attributes { path, set: AttributeChange::mode(mode) }]
                }
                None => return Vec::new(),
            },
            92 => vec![Action::Create { path: fresh_path(rng), what: New::Fifo, set }],
            _ => match pick(rng, true) {
                Some(top) => {
                    let mut below: Vec<_> = all
                        .iter()
                        .filter(|(path, _)| path.is_at_or_below(&top))
                        .map(|(path, _)| Action::Remove { path: path.clone() })
                        .collect();
                    below.reverse();
                    below
                }
                None => return Vec::new(),
            },
        };
        actions
            .into_iter()
            .filter(|action| Change::unstated(action.clone()).paths().all(|path| !path.is_root()))
            .map(Change::unstated)
            .collect()
    }
}

fn now_bit(tree: &s0_tree::Tree) -> u64 {
    tree.head().0
}

fn rng_bool(bit: u64) -> bool {
    bit.is_multiple_of(2)
}

/// A node in words, for comparing trees and for telling of differences.
pub fn in_words(node: &Node, bytes: Option<Rc<[u8]>>) -> String {
    let mode = node.attributes.mode & 0o777;
    match &node.kind {
        Kind::File(_) => {
            format!("file {mode:o} {}", String::from_utf8_lossy(&bytes.unwrap_or_default()))
        }
        Kind::Directory(_) => format!("directory {mode:o}"),
        Kind::Symlink(target) => format!("symlink {target}"),
        Kind::Fifo => "fifo".into(),
    }
}
