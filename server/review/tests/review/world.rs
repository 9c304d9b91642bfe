//! A workspace whose files are a map, with what happens to them told to a review.

use std::collections::{BTreeMap, HashMap};

use s0_review::{
    Action, Body, Hunk, HunkId, Left, Observed, Part, Review, Selection, State, Write,
};
use s0_tree::{Actor, Content, New, Seq, Time, TreePath};

/// What is at a path.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Thing {
    pub(crate) body: Body,
    pub(crate) mode: u32,
}

/// A file with this text.
pub(crate) fn text(text: &str) -> Thing {
    Thing { body: Body::Text(text.into()), mode: 0o644 }
}

/// A file with bytes that are no text, named by a number.
pub(crate) fn binary(number: u8) -> Thing {
    Thing { body: Body::File(Content::of(&[0, number])), mode: 0o644 }
}

pub(crate) fn directory() -> Thing {
    Thing { body: Body::Directory, mode: 0o755 }
}

impl Thing {
    pub(crate) fn with_mode(self, mode: u32) -> Self {
        Self { mode, ..self }
    }

    fn observed(&self) -> Observed<'_> {
        let (what, bytes) = match &self.body {
            Body::Text(text) => {
                let content = Content::of(text.as_bytes());
                (New::File { content }, Some(text.as_bytes()))
            }
            Body::File(content) => (New::File { content: *content }, None),
            Body::Symlink(target) => (New::Symlink { target: target.clone() }, None),
            Body::Directory => (New::Directory, None),
            Body::Fifo => (New::Fifo, None),
        };
        Observed { state: State { what, mode: self.mode }, bytes }
    }
}

pub(crate) fn path(text: &str) -> TreePath {
    TreePath::new(text).unwrap()
}

pub(crate) fn agent(name: &str) -> Actor {
    Actor { sandbox: Some(name.into()), ..Actor::default() }
}

/// The name of the agent of a write.
pub(crate) fn name_of(write: &Write) -> &str {
    write.actor.sandbox.as_deref().unwrap()
}

#[derive(Debug, Clone, Default)]
pub(crate) struct World {
    pub(crate) review: Review,
    pub(crate) files: BTreeMap<String, Thing>,
    seq: u64,
    texts: HashMap<Content, String>,
}

impl World {
    /// A workspace with one file, `f`.
    pub(crate) fn of(content: &str) -> Self {
        let mut world = Self::default();
        world.files.insert("f".into(), text(content));
        world
    }

    fn write(&mut self, name: &str) -> Write {
        self.seq += 1;
        // Agents run a new process for each command.
        let process = Some(format!("sh[{}]", self.seq).into());
        let actor = Actor { process, ..agent(name) };
        Write { seq: Seq(self.seq), actor, time: Time(self.seq as i64) }
    }

    fn put(&mut self, at: &str, thing: Option<Thing>) -> Option<Thing> {
        match thing {
            Some(thing) => {
                if let Body::Text(text) = &thing.body {
                    self.texts.insert(Content::of(text.as_bytes()), text.clone());
                }
                self.files.insert(at.into(), thing)
            }
            None => self.files.remove(at),
        }
    }

    /// An agent's write is applied.
    pub(crate) fn agent(&mut self, name: &str, at: &str, thing: Option<Thing>) {
        let write = self.write(name);
        let before = self.put(at, thing);
        let (before, after) =
            (before.as_ref().map(Thing::observed), self.files.get(at).map(Thing::observed));
        self.review.applied(&path(at), before.as_ref(), after.as_ref(), &write);
        self.check();
    }

    pub(crate) fn agent_renames(&mut self, name: &str, from: &str, to: &str) {
        let write = self.write(name);
        let replaced = self.rename(from, to);
        let moved = self.files[to].observed();
        let replaced = replaced.as_ref().map(Thing::observed);
        self.review.renamed(&path(from), &path(to), &moved, replaced.as_ref(), &write);
        self.check();
    }

    /// The user changes a file, and it is told.
    pub(crate) fn user(&mut self, at: &str, thing: Option<Thing>) {
        self.put(at, thing);
        let now = self.files.get(at).map(Thing::observed);
        self.review.edited(&path(at), now.as_ref());
        self.check();
    }

    pub(crate) fn user_renames(&mut self, from: &str, to: &str) {
        self.rename(from, to);
        self.review.moved(&path(from), &path(to), &self.files[to].observed());
        self.check();
    }

    fn rename(&mut self, from: &str, to: &str) -> Option<Thing> {
        let replaced = self.files.remove(to);
        for (at, thing) in std::mem::take(&mut self.files) {
            let at = path(&at).rebase(&path(from), &path(to)).map_or(at, String::from);
            self.files.insert(at, thing);
        }
        replaced
    }

    pub(crate) fn version(&self, at: &str) -> Part {
        let at = path(at);
        let version = self.review.item(&at).expect("something to review").version;
        Part::File { path: at, version }
    }

    pub(crate) fn all(&self) -> Part {
        Part::All { version: self.review.version() }
    }

    pub(crate) fn hunk(&self, at: &str, number: usize) -> Part {
        let Part::File { path, version } = self.version(at) else { unreachable!() };
        Part::Hunks { path, hunks: vec![HunkId { version, number }] }
    }

    pub(crate) fn hunks(&self, at: &str) -> Vec<Hunk> {
        self.review.hunks(&path(at))
    }

    pub(crate) fn keep(&mut self, part: Part, by: Option<&str>) -> Vec<Left> {
        let left = self.review.keep(&Selection { part, agent: by.map(agent) }).unwrap();
        self.check();
        left
    }

    /// Reverts, does what that takes, and tells it.
    pub(crate) fn revert(&mut self, part: Part, by: Option<&str>) -> Vec<Left> {
        let before = self.review.version();
        let reversion = self.review.revert(&Selection { part, agent: by.map(agent) }).unwrap();
        assert_eq!(self.review.version(), before, "a revert changes nothing by itself");
        for action in reversion.actions {
            self.carry_out(action);
        }
        reversion.left
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Write { path, body, mode, expect } => {
                self.expect(&path, expect.as_ref());
                let body = match body {
                    // The caller finds it by its name.
                    Body::File(content) => match self.texts.get(&content) {
                        Some(text) => Body::Text(text.clone()),
                        None => Body::File(content),
                    },
                    body => body,
                };
                assert!(
                    path.parent().is_none_or(
                        |parent| parent.is_root() || self.files.contains_key(parent.as_str())
                    ),
                    "{path} has no directory"
                );
                self.user(path.as_str(), Some(Thing { body, mode }));
            }
            Action::Remove { path, expect } => {
                self.expect(&path, Some(&expect));
                let below = self.files.keys().filter(|at| at.starts_with(&format!("{path}/")));
                assert_eq!(below.count(), 0, "{path} is not empty");
                self.user(path.as_str(), None);
            }
            Action::Rename { from, to } => {
                assert!(!self.files.contains_key(to.as_str()), "{to} is taken");
                self.user_renames(from.as_str(), to.as_str());
            }
            Action::SetMode { path, mode, expect } => {
                self.expect(&path, Some(&expect));
                let thing = self.files[path.as_str()].clone().with_mode(mode);
                self.user(path.as_str(), Some(thing));
            }
        }
    }

    fn expect(&self, path: &TreePath, state: Option<&State>) {
        let there = self.files.get(path.as_str()).map(|thing| thing.observed().state);
        assert_eq!(there.as_ref(), state, "{path}");
    }

    pub(crate) fn text(&self, at: &str) -> &str {
        match &self.files[at].body {
            Body::Text(text) => text,
            other => panic!("{at} is no text: {other:?}"),
        }
    }

    /// The file with its differences: lines that are gone with `-` and new ones with
    /// `+`, each with its agent.
    pub(crate) fn shown(&self, at: &str) -> Vec<String> {
        let current: Vec<&str> = self.text(at).split_inclusive('\n').collect();
        let Some(Body::Text(reviewed)) = self.review.baseline(&path(at)) else {
            return current.iter().map(|line| format!(" {}", line.trim_end())).collect();
        };
        let reviewed: Vec<&str> = reviewed.split_inclusive('\n').collect();
        let mut shown = Vec::new();
        let mut next = 0;
        for hunk in self.hunks(at) {
            let plain = &current[next..hunk.current.start];
            shown.extend(plain.iter().map(|line| format!(" {}", line.trim_end())));
            let mut show = |sign, lines: &[&str], by: &[usize]| {
                for (line, by) in lines.iter().zip(by) {
                    let name = name_of(&hunk.writes[*by]);
                    shown.push(format!("{sign}{} {name}", line.trim_end()));
                }
            };
            show('-', &reviewed[hunk.reviewed.clone()], &hunk.removed_by);
            show('+', &current[hunk.current.clone()], &hunk.added_by);
            next = hunk.current.end;
        }
        shown.extend(current[next..].iter().map(|line| format!(" {}", line.trim_end())));
        shown
    }

    /// What must hold after each step.
    fn check(&self) {
        for item in self.review.items() {
            let at = item.path.as_str();
            let there = self.files.get(at).map(|thing| thing.observed().state);
            assert_eq!(item.now, there.as_ref(), "{at}");
            let baseline = self.review.baseline(item.path);
            let differs = item.hunks.is_some_and(|hunks| hunks > 0)
                || item.mode.is_some()
                || item.renamed_from.is_some()
                || item.now.is_none() != baseline.is_none()
                || (item.hunks.is_none()
                    && baseline != self.files.get(at).map(|it| it.body.clone()));
            assert!(differs, "{item:?} is settled");
            assert!(!item.writes.is_empty(), "{item:?} is nobody's");
            assert_eq!(item.hunks.unwrap_or(0), self.hunks(at).len());
            if item.hunks.is_some() {
                self.check_hunks(at, baseline);
            }
        }
        let stored = serde_json::to_string(&self.review).unwrap();
        assert_eq!(serde_json::from_str::<Review>(&stored).unwrap(), self.review);
    }

    /// Hunks are in order, apart, and exactly what differs.
    fn check_hunks(&self, at: &str, baseline: Option<Body>) {
        let reviewed = match baseline {
            Some(Body::Text(text)) => text,
            None => String::new(),
            other => panic!("{other:?} has lines"),
        };
        let reviewed: Vec<&str> = reviewed.split_inclusive('\n').collect();
        let current: Vec<&str> = self.text(at).split_inclusive('\n').collect();
        // The last line may have lost its end to the user, while in the reviewed text
        // others follow it.
        let same = |was: &[&str], is: &[&str]| {
            was.len() == is.len()
                && was.iter().zip(is).all(|(was, is)| match is.ends_with('\n') {
                    true => was == is,
                    false => was.trim_end_matches(['\r', '\n']) == *is,
                })
        };
        assert!(reviewed != current || self.hunks(at).is_empty(), "{:?}", self.hunks(at));
        let mut last = (0, 0);
        let hunks = self.hunks(at);
        for (number, hunk) in hunks.iter().enumerate() {
            let (was, is) = (&hunk.reviewed, &hunk.current);
            assert_eq!(hunk.id.number, number);
            assert!(number == 0 || (was.start > last.0 && is.start > last.1), "{hunks:?}");
            assert!(!was.is_empty() || !is.is_empty(), "{hunks:?}");
            assert!(same(&reviewed[last.0..was.start], &current[last.1..is.start]), "{hunks:?}");
            assert_eq!((was.len(), is.len()), (hunk.removed_by.len(), hunk.added_by.len()));
            assert!(hunk.writes.is_sorted_by_key(|write| write.seq) && !hunk.writes.is_empty());
            last = (was.end, is.end);
        }
        assert!(same(&reviewed[last.0..], &current[last.1..]), "{hunks:?}");
    }
}
