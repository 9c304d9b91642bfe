//! Random histories of a Volume, and what must hold after each of their steps.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::sample::{Index, select};
use s0_tree::{
    Action, AttributeChange, Batch, Change, Content, Entry, Expected, Name, New, News, NodeId,
    Origin, Policy, Quota, RenameHow, Seq, Time, Tree, TreePath, Usage, Verdict, admit_batch,
};

/// Few names, so that steps meet; several spellings of one name, so that they
/// collide; and one that Windows refuses.
pub(crate) const NAMES: [&str; 9] =
    ["a", "b", "c", "A", "B", "\u{e9}", "e\u{301}", "E\u{301}", "aux.c"];

/// Targets of links; the last two are of no link that any system can hold.
const TARGETS: [&str; 4] = ["a", "../b", "", "a\0b\0symlink a"];

pub(crate) fn name() -> impl Strategy<Value = Name> {
    select(&NAMES[..]).prop_map(|name| Name::new(name).unwrap())
}

pub(crate) fn policy() -> impl Strategy<Value = Policy> {
    any::<(bool, bool, bool)>().prop_map(
        |(case_insensitive, unicode_insensitive, windows_names)| Policy {
            case_insensitive,
            unicode_insensitive,
            windows_names,
        },
    )
}

pub(crate) fn content() -> impl Strategy<Value = Content> {
    (0..4_u8).prop_map(|byte| Content::of(&[byte]))
}

/// A path that is chosen when the tree is known, so that most steps do something.
#[derive(Debug, Clone)]
pub(crate) enum Spot {
    /// One that is there.
    Live(Index),
    /// A name in a directory that is there.
    In(Index, Name),
    /// Wherever that is.
    Anywhere(Vec<Name>),
}

impl Spot {
    fn path(&self, tree: &Tree) -> TreePath {
        let root = || std::iter::once(TreePath::root());
        match self {
            Self::Live(index) => {
                let paths: Vec<_> = tree.walk().map(|(path, ..)| path).chain(root()).collect();
                index.get(&paths).clone()
            }
            Self::In(index, name) => {
                let directories = tree.walk().filter(|(.., node)| node.directory().is_some());
                let paths: Vec<_> = root().chain(directories.map(|(path, ..)| path)).collect();
                index.get(&paths).join(name)
            }
            Self::Anywhere(names) => names.iter().fold(TreePath::root(), |at, name| at.join(name)),
        }
    }
}

fn spot() -> impl Strategy<Value = Spot> {
    prop_oneof![
        4 => any::<Index>().prop_map(Spot::Live),
        4 => (any::<Index>(), name()).prop_map(|(index, name)| Spot::In(index, name)),
        1 => prop::collection::vec(name(), 0..4).prop_map(Spot::Anywhere),
    ]
}

/// Where something new goes.
fn new_spot() -> impl Strategy<Value = Spot> {
    prop_oneof![
        6 => (any::<Index>(), name()).prop_map(|(index, name)| Spot::In(index, name)),
        1 => spot(),
    ]
}

/// What a step says that it expects.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Hope {
    /// Nothing.
    Unstated,
    /// What is there.
    Right,
    /// What was there before the last change.
    Late,
    /// Another node than the one that is there.
    Other(u64),
    /// That nothing is there.
    Absent,
}

impl Hope {
    fn about(self, path: &TreePath, tree: &Tree) -> Option<Expected> {
        let found = tree.at(path).map(|(id, node)| (id, node.version));
        Some(match (self, found) {
            (Self::Unstated, _) => return None,
            (Self::Other(id), _) => Expected::Node { id: NodeId(id), version: Seq(id) },
            (Self::Absent, _) | (_, None) => Expected::Absent,
            (Self::Right, Some((id, version))) => Expected::Node { id, version },
            (Self::Late, Some((id, version))) => {
                Expected::Node { id, version: Seq(version.0.saturating_sub(1)) }
            }
        })
    }
}

fn hope() -> impl Strategy<Value = Hope> {
    prop_oneof![
        6 => Just(Hope::Unstated),
        8 => Just(Hope::Right),
        1 => Just(Hope::Late),
        1 => (1..9_u64).prop_map(Hope::Other),
        1 => Just(Hope::Absent),
    ]
}

#[derive(Debug, Clone)]
enum Verb {
    Create(Spot, New, AttributeChange),
    Write(Spot, Content, AttributeChange),
    Append(Spot, Content),
    Truncate(Spot, Content),
    Attributes(Spot, AttributeChange),
    Link(Spot, Spot),
    Rename(Spot, Spot, RenameHow),
    Remove(Spot),
}

/// One step: something to do, with what it expects to find.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    verb: Verb,
    hope: Hope,
    hope_to: Hope,
    make_parents: bool,
}

impl Step {
    pub(crate) fn change(&self, tree: &Tree) -> Change {
        let at = |spot: &Spot| spot.path(tree);
        let action = match self.verb.clone() {
            Verb::Create(spot, what, set) => Action::Create { path: at(&spot), what, set },
            Verb::Write(spot, content, set) => Action::Write { path: at(&spot), content, set },
            Verb::Append(spot, content) => Action::Append { path: at(&spot), added: 1, content },
            Verb::Truncate(spot, content) => Action::Truncate { path: at(&spot), content },
            Verb::Attributes(spot, set) => Action::Attributes { path: at(&spot), set },
            Verb::Link(new, old) => Action::Link { path: at(&new), existing: at(&old) },
            Verb::Rename(from, to, how) => Action::Rename { from: at(&from), to: at(&to), how },
            Verb::Remove(spot) => Action::Remove { path: at(&spot) },
        };
        let (first, second) = match &action {
            Action::Rename { from, to, .. } => (from, Some(to)),
            Action::Link { path, existing } => (existing, Some(path)),
            Action::Create { path, .. }
            | Action::Write { path, .. }
            | Action::Append { path, .. }
            | Action::Truncate { path, .. }
            | Action::Attributes { path, .. }
            | Action::Remove { path } => (path, None),
        };
        let expect = self.hope.about(first, tree);
        let expect_to = second.and_then(|second| self.hope_to.about(second, tree));
        Change { expect, expect_to, make_parents: self.make_parents, ..Change::unstated(action) }
    }
}

pub(crate) fn new() -> impl Strategy<Value = New> {
    prop_oneof![
        4 => content().prop_map(|content| New::File { content }),
        4 => Just(New::Directory),
        1 => select(&TARGETS[..]).prop_map(|target| New::Symlink { target: target.into() }),
        1 => Just(New::Fifo),
    ]
}

fn mode() -> impl Strategy<Value = AttributeChange> {
    let mode = prop::option::of(select(vec![0o644, 0o755, 0o1600]));
    mode.prop_map(|mode| AttributeChange { mode, ..AttributeChange::default() })
}

fn attributes() -> impl Strategy<Value = AttributeChange> {
    let xattr =
        (select(vec!["user.a", "user.b"]), prop::option::of(prop::collection::vec(0..2_u8, 0..2)));
    let xattrs = prop::collection::btree_map(xattr.0.prop_map(String::from), xattr.1, 0..2);
    let owner = || prop::option::of(0..2_u32);
    (mode(), owner(), owner(), prop::option::of(0..3_i64), xattrs).prop_map(
        |(set, uid, gid, mtime, xattrs)| AttributeChange {
            uid,
            gid,
            mtime: mtime.map(Time),
            xattrs,
            ..set
        },
    )
}

pub(crate) fn how() -> impl Strategy<Value = RenameHow> {
    select(vec![RenameHow::Replace, RenameHow::NoReplace, RenameHow::Exchange])
}

/// The steps that a naive model can follow: one place for each node.
pub(crate) fn plain_step() -> impl Strategy<Value = Step> {
    let verb = prop_oneof![
        5 => (new_spot(), new(), mode()).prop_map(|(at, what, set)| Verb::Create(at, what, set)),
        3 => (spot(), content(), mode()).prop_map(|(at, it, set)| Verb::Write(at, it, set)),
        4 => (spot(), new_spot(), how()).prop_map(|(from, to, how)| Verb::Rename(from, to, how)),
        1 => (spot(), spot(), how()).prop_map(|(from, to, how)| Verb::Rename(from, to, how)),
        2 => spot().prop_map(Verb::Remove),
    ];
    let hopes = (hope(), hope());
    (verb, hopes).prop_map(|(verb, (hope, hope_to))| Step {
        verb,
        hope,
        hope_to,
        make_parents: false,
    })
}

/// Every kind of step.
pub(crate) fn step() -> impl Strategy<Value = Step> {
    let verb = prop_oneof![
        2 => (spot(), content()).prop_map(|(at, content)| Verb::Append(at, content)),
        1 => (spot(), content()).prop_map(|(at, content)| Verb::Truncate(at, content)),
        2 => (spot(), attributes()).prop_map(|(at, set)| Verb::Attributes(at, set)),
        3 => (new_spot(), spot()).prop_map(|(new, old)| Verb::Link(new, old)),
    ];
    let rest = (verb, hope(), hope()).prop_map(|(verb, hope, hope_to)| Step {
        verb,
        hope,
        hope_to,
        make_parents: false,
    });
    (prop_oneof![2 => plain_step(), 1 => rest], prop::bool::weighted(0.2))
        .prop_map(|(step, make_parents)| Step { make_parents, ..step })
}

/// A Volume's life so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    pub(crate) tree: Tree,
    pub(crate) entries: Vec<Entry>,
}

impl History {
    /// Admits one step after the other, each as a request of its own. What is
    /// refused changes nothing.
    pub(crate) fn live(&mut self, steps: &[Step], policy: Policy) {
        for step in steps {
            let change = step.change(&self.tree);
            let before = self.tree.clone();
            let time = Time(self.entries.len() as i64);
            match admit_all(&mut self.tree, std::slice::from_ref(&change), policy, time) {
                Ok((entries, verdicts)) => {
                    let refused = matches!(verdicts[0], Verdict::Conflict { .. });
                    assert!(!refused || entries.is_empty(), "{change:?} is refused and journaled");
                    self.entries.extend(entries);
                }
                Err(_) => assert_eq!(self.tree, before, "{change:?} is invalid"),
            }
        }
    }
}

pub(crate) type Admitted = Result<(Vec<Entry>, Vec<Verdict>), (usize, &'static str)>;

pub(crate) fn admit_all(
    tree: &mut Tree,
    changes: &[Change],
    policy: Policy,
    time: Time,
) -> Admitted {
    admit_within(tree, changes, (policy, Quota::default()), time)
}

pub(crate) fn admit_within(
    tree: &mut Tree,
    changes: &[Change],
    (policy, quota): (Policy, Quota),
    time: Time,
) -> Admitted {
    let origin = Origin { time, ..Origin::default() };
    admit_batch(tree, &Batch { origin: &origin, policy, quota, news: &News::default(), changes })
}

/// What a tree holds, as a person would list it.
pub(crate) fn listing(tree: &Tree) -> BTreeMap<String, (New, u32)> {
    let row = |(path, _, node): (TreePath, _, &s0_tree::Node)| {
        (path.to_string(), (node.kind_value(), node.attributes.mode))
    };
    tree.walk().map(row).collect()
}

/// Panics unless the tree is one: everything hangs on the root, at the places
/// that it says, and nothing twice that may be there once only.
pub(crate) fn check_sound(tree: &Tree) {
    let (mut seen, mut paths) = (BTreeSet::new(), BTreeSet::new());
    // In a sound tree nothing is deeper than there are nodes.
    for (path, id, node) in tree.walk() {
        assert!(path.depth() <= tree.len(), "{path} goes round in a circle");
        assert_eq!(tree.lookup(&path), Some(id), "{path}");
        assert!(path.parent().is_some_and(|above| above.is_root() || paths.contains(&above)));
        assert!(node.directory().is_none() || node.places.len() == 1, "{path}");
        assert!(node.version <= tree.head() && id.0 <= tree.head().0, "{path} is of the future");
        let stays_at = |place| tree.path_of_place(place).as_ref() == Some(&path);
        assert!(node.places.iter().any(stays_at), "{path} is at none of its node's places");
        assert!(node.places.iter().all(|place| tree.at_place(place) == Some(id)), "{path}");
        assert_eq!(tree.lookup(&tree.path_of(id).unwrap()), Some(id));
        seen.insert(id);
        assert!(paths.insert(path), "a path comes twice");
    }
    assert_eq!(seen.len(), tree.len(), "some nodes hang on nothing");
    let places: usize = seen.iter().map(|id| tree.node(*id).unwrap().places.len()).sum();
    assert_eq!(paths.len(), places, "some places are empty");
    assert!(tree.node(NodeId::ROOT).is_some_and(|root| root.places.is_empty()));
    let bytes = tree.contents().map(|content| content.size).sum();
    assert_eq!(tree.usage(), Usage { bytes, inodes: tree.len() as u64 });
}

/// Panics if two live siblings are one name under the policy, or if the tree
/// finds other collisions than a look at every sibling does.
pub(crate) fn check_names(tree: &Tree, policy: Policy) {
    let directories = tree.walk().filter(|(.., node)| node.directory().is_some());
    let ids = std::iter::once(NodeId::ROOT).chain(directories.map(|(_, id, _)| id));
    for id in ids {
        let directory = tree.node(id).and_then(s0_tree::Node::directory).unwrap();
        let siblings: Vec<&Name> = directory.iter().map(|(name, _)| name).collect();
        for name in NAMES.map(|name| Name::new(name).unwrap()) {
            let same = |other: &&Name| policy.same_name(other.as_str(), name.as_str());
            let others: Vec<_> =
                siblings.iter().copied().filter(same).filter(|it| **it != name).collect();
            let found = tree.collision(id, &name, policy, None);
            assert_eq!(found.is_some(), !others.is_empty(), "{name} among {siblings:?}");
            assert!(found.is_none_or(|found| others.contains(&&found)));
            assert!(others.is_empty() || !siblings.contains(&&name), "{name} and {others:?}");
        }
    }
}
