//! Admission, beside a model that knows nothing but a list of paths.

use std::collections::BTreeMap;

use proptest::prelude::*;
use s0_tree::{
    Action, AttributeChange, Change, Content, Expected, New, NodeId, Policy, RenameHow, Seq, Time,
    Tree, TreePath, Verdict, portable_issues,
};

use crate::history::{History, Step, admit_all, plain_step, policy};
use crate::times;

/// What is at a path, as the model has it.
#[derive(Debug, Clone, PartialEq)]
struct Thing {
    id: NodeId,
    version: Seq,
    what: New,
    mode: u32,
}

/// What becomes of a change.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    Accepted,
    Held,
    Conflict,
    Invalid,
}

/// A Volume as a list of paths.
#[derive(Debug, Clone, Default, PartialEq)]
struct Model {
    head: Seq,
    things: BTreeMap<String, Thing>,
}

/// What a model is after a change, or why it stays as it is.
type Outcome = Result<Model, Fate>;

fn above(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(above, _)| above)
}

fn last(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

fn is_below(path: &str, other: &str) -> bool {
    path.starts_with(&format!("{other}/"))
}

fn stated_mode(change: &Change) -> Option<u32> {
    match &change.action {
        Action::Create { set, .. } | Action::Write { set, .. } => set.mode,
        _ => None,
    }
}

impl Model {
    fn of(tree: &Tree) -> Self {
        let thing = |(path, id, node): (TreePath, NodeId, &s0_tree::Node)| {
            let (version, mode, what) = (node.version, node.attributes.mode, node.kind_value());
            (path.to_string(), Thing { id, version, what, mode })
        };
        Self { head: tree.head(), things: tree.walk().map(thing).collect() }
    }

    fn judge(&self, change: &Change, policy: Policy) -> Outcome {
        if change.paths().any(TreePath::is_root) {
            return Err(Fate::Invalid);
        }
        if let Action::Create { what: New::Symlink { target }, .. } = &change.action
            && (target.is_empty() || target.contains('\0'))
        {
            return Err(Fate::Invalid);
        }
        match &change.action {
            Action::Create { path, what, .. } => self.create(path.as_str(), what, change, policy),
            Action::Write { path, content, .. } => {
                let what = New::File { content: *content };
                self.write(path.as_str(), &what, change, policy)
            }
            Action::Rename { from, to, how } => {
                self.rename(from.as_str(), to.as_str(), *how, change, policy)
            }
            Action::Remove { path } => self.remove(path.as_str(), change),
            other => unreachable!("the model does not know {other:?}"),
        }
    }

    fn create(&self, path: &str, what: &New, change: &Change, policy: Policy) -> Outcome {
        if let Some(thing) = self.things.get(path) {
            return Err(if thing.what == *what { Fate::Held } else { Fate::Conflict });
        }
        if !self.has_room_for(path, None, policy) || !self.is_as(change.expect, path) {
            return Err(Fate::Conflict);
        }
        let usual = if *what == New::Directory { 0o755 } else { 0o644 };
        let mode = stated_mode(change).unwrap_or(usual);
        let version = self.head.next();
        let thing = Thing { id: NodeId(version.0), version, what: what.clone(), mode };
        Ok(self.with(|things| things.insert(path.into(), thing)))
    }

    fn write(&self, path: &str, what: &New, change: &Change, policy: Policy) -> Outcome {
        let Some(thing) = self.things.get(path) else {
            return self.create(path, what, change, policy);
        };
        let mode = stated_mode(change).unwrap_or(thing.mode);
        if thing.what == *what && thing.mode == mode {
            return Err(Fate::Held);
        }
        if !self.is_as(change.expect, path) || !matches!(thing.what, New::File { .. }) {
            return Err(Fate::Conflict);
        }
        let thing = Thing { id: thing.id, version: self.head.next(), what: what.clone(), mode };
        Ok(self.with(|things| things.insert(path.into(), thing)))
    }

    fn remove(&self, path: &str, change: &Change) -> Outcome {
        if !self.things.contains_key(path) {
            let elsewhere = matches!(change.expect, Some(Expected::Node { id, .. })
                if id == NodeId::ROOT || self.things.values().any(|thing| thing.id == id));
            return Err(if elsewhere { Fate::Conflict } else { Fate::Held });
        }
        if !self.is_as(change.expect, path) || self.has_children(path) {
            return Err(Fate::Conflict);
        }
        Ok(self.with(|things| things.remove(path)))
    }

    fn rename(
        &self,
        from: &str,
        to: &str,
        how: RenameHow,
        change: &Change,
        policy: Policy,
    ) -> Outcome {
        if is_below(to, from) {
            return Err(Fate::Invalid);
        }
        let id_at = |path| self.things.get(path).map(|thing| thing.id);
        if let Some(Expected::Node { id, .. }) = change.expect
            && id_at(to) == Some(id)
            && id_at(from) != Some(id)
        {
            return Err(Fate::Held);
        }
        let Some(moved) = self.things.get(from) else {
            let nothing_expected = change.expect == Some(Expected::Absent);
            return Err(if nothing_expected { Fate::Invalid } else { Fate::Conflict });
        };
        if from == to {
            return Err(Fate::Held);
        }
        if !self.has_room_for(to, Some(from), policy)
            || !self.is_as(change.expect, from)
            || !self.is_as(change.expect_to, to)
        {
            return Err(Fate::Conflict);
        }
        let is_directory = |thing: &Thing| thing.what == New::Directory;
        match (how, self.things.get(to)) {
            (RenameHow::NoReplace, Some(_)) | (RenameHow::Exchange, None) => {
                return Err(Fate::Conflict);
            }
            (RenameHow::Exchange, Some(_)) if is_below(from, to) => return Err(Fate::Invalid),
            (RenameHow::Replace, Some(other))
                if is_directory(moved) != is_directory(other) || self.has_children(to) =>
            {
                return Err(Fate::Conflict);
            }
            _ => {}
        }
        let mut after = Self { head: self.head.next(), things: BTreeMap::new() };
        for (path, thing) in &self.things {
            let rebased = |old: &str, new: &str| {
                (path == old || is_below(path, old)).then(|| path.replacen(old, new, 1))
            };
            let back = (how == RenameHow::Exchange).then(|| rebased(to, from)).flatten();
            let replaced = how == RenameHow::Replace && path == to;
            let new = rebased(from, to).or(back).unwrap_or_else(|| path.clone());
            let itself = path == from || (how == RenameHow::Exchange && path == to);
            let version = if itself { after.head } else { thing.version };
            if !replaced {
                after.things.insert(new, Thing { version, ..thing.clone() });
            }
        }
        Ok(after)
    }

    fn with<T>(&self, change: impl FnOnce(&mut BTreeMap<String, Thing>) -> T) -> Self {
        let mut after = Self { head: self.head.next(), things: self.things.clone() };
        change(&mut after.things);
        after
    }

    fn has_children(&self, path: &str) -> bool {
        self.things.keys().any(|other| is_below(other, path))
    }

    /// Whether `path` can become live: in a directory, under a name that all
    /// replicas hold, beside nothing that is the same name for one of them.
    fn has_room_for(&self, path: &str, moved: Option<&str>, policy: Policy) -> bool {
        let parent = above(path);
        let in_directory = parent.is_empty()
            || self.things.get(parent).is_some_and(|thing| thing.what == New::Directory);
        let collides = self.things.keys().any(|other| {
            other != path
                && moved != Some(other)
                && above(other) == parent
                && policy.same_name(last(other), last(path))
        });
        in_directory && !collides && portable_issues(last(path), policy).is_empty()
    }

    fn is_as(&self, expected: Option<Expected>, path: &str) -> bool {
        let found = self.things.get(path);
        match expected {
            None => true,
            Some(Expected::Absent) => found.is_none(),
            Some(Expected::Node { id, version }) => {
                found.is_some_and(|thing| thing.id == id && thing.version == version)
            }
        }
    }
}

fn fate(verdict: &Verdict) -> Fate {
    match verdict {
        Verdict::Accepted { .. } => Fate::Accepted,
        Verdict::Held { .. } => Fate::Held,
        Verdict::Conflict { .. } | Verdict::Refused { .. } => Fate::Conflict,
        Verdict::NoRoom => panic!("there is no quota"),
    }
}

fn steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(plain_step(), 0..most)
}

#[test]
fn a_rename_frees_only_the_name_that_it_is_from() {
    let path = |text| TreePath::new(text).unwrap();
    let what = New::File { content: Content::empty() };
    let changes = [
        Action::Create { path: path("a"), what, set: AttributeChange::default() },
        Action::Link { path: path("b"), existing: path("a") },
        Action::Rename { from: path("a"), to: path("B"), how: RenameHow::Replace },
        Action::Rename { from: path("b"), to: path("B"), how: RenameHow::Replace },
    ];
    let policy = Policy { case_insensitive: true, ..Policy::default() };
    let mut tree = Tree::default();
    let fates = changes.map(|action| {
        let change = Change::unstated(action);
        let (_, verdicts) = admit_all(&mut tree, &[change], policy, Time(0)).unwrap();
        fate(&verdicts[0])
    });
    assert_eq!(fates, [Fate::Accepted, Fate::Accepted, Fate::Conflict, Fate::Accepted]);
}

proptest! {
    #![proptest_config(times(256))]

    #[test]
    fn one_change_at_a_time_is_judged_as_the_model_judges(
        steps in steps(40), policy in policy(),
    ) {
        let (mut tree, mut model) = (Tree::default(), Model::default());
        for step in &steps {
            let change = step.change(&tree);
            let before = tree.clone();
            let admitted = admit_all(&mut tree, std::slice::from_ref(&change), policy, Time(0));
            let found = match &admitted {
                Ok((_, verdicts)) => fate(&verdicts[0]),
                Err(_) => Fate::Invalid,
            };
            match model.judge(&change, policy) {
                Ok(after) => {
                    prop_assert_eq!(found, Fate::Accepted, "{:?}", change);
                    model = after;
                }
                Err(fate) => {
                    prop_assert_eq!(found, fate, "{:?}", change);
                    prop_assert_eq!(&tree, &before);
                }
            }
            prop_assert_eq!(&Model::of(&tree), &model, "{:?}", change);
        }
    }

    #[test]
    fn what_touches_a_refused_path_is_refused_with_it(
        before in steps(20), request in steps(12), policy in policy(),
    ) {
        let mut story = History::default();
        story.live(&before, policy);
        // All of a request is written before any of it is done.
        let changes: Vec<Change> = request.iter().map(|step| step.change(&story.tree)).collect();
        let mut model = Model::of(&story.tree);
        let mut refused: Vec<(usize, &TreePath)> = Vec::new();
        let mut expected = Vec::new();
        let mut invalid = None;
        for (index, change) in changes.iter().enumerate() {
            let touches = |(by, other): &(usize, &TreePath)| {
                let near = |own: &TreePath| own.is_at_or_below(other) || other.is_at_or_below(own);
                change.paths().any(near).then_some(*by)
            };
            let by = refused.iter().find_map(touches);
            let judged = if by.is_some() { Err(Fate::Conflict) } else { model.judge(change, policy) };
            match judged {
                Ok(after) => {
                    model = after;
                    expected.push((Fate::Accepted, None));
                }
                Err(Fate::Invalid) => {
                    invalid = Some(index);
                    break;
                }
                Err(fate) => expected.push((fate, by)),
            }
            if expected.last().is_some_and(|(fate, _)| *fate == Fate::Conflict) {
                refused.extend(change.paths().map(|path| (index, path)));
            }
        }
        let untouched = story.tree.clone();
        match admit_all(&mut story.tree, &changes, policy, Time(0)) {
            Ok((entries, verdicts)) => {
                let by = |verdict: &Verdict| match verdict {
                    Verdict::Refused { by } => Some(*by),
                    _ => None,
                };
                let found: Vec<_> = verdicts.iter().map(|it| (fate(it), by(it))).collect();
                prop_assert_eq!(invalid, None);
                prop_assert_eq!(found, expected);
                prop_assert_eq!(Model::of(&story.tree), model);
                let accepted = verdicts.iter().filter(|it| fate(it) == Fate::Accepted).count();
                prop_assert_eq!(entries.len(), accepted);
            }
            Err((index, _)) => {
                prop_assert_eq!(Some(index), invalid);
                prop_assert_eq!(story.tree, untouched);
            }
        }
    }
}
