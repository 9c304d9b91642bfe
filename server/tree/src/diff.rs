//! The difference of two trees of one Volume, and the changes that undo it.

use std::collections::{BTreeMap, HashSet};

use imbl::ordmap::DiffItem;

use crate::change::{Action, Change, Expected, New};
use crate::node::{AttributeChange, Attributes, Directory, Kind, Node, NodeId};
use crate::path::{Name, TreePath};
use crate::tree::Tree;

/// A path at which two trees differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The path.
    pub path: TreePath,
    /// What is there in the first tree.
    pub before: Option<NodeId>,
    /// What is there in the second.
    pub after: Option<NodeId>,
}

/// The paths at which `a` and `b` differ in what they hold there, parents first.
/// A directory differs by itself only, not because its children do.
///
/// The cost follows the number of changed nodes, not the size of the trees, as
/// long as both came from one history and share their maps.
#[must_use]
pub fn diff(a: &Tree, b: &Tree) -> Vec<Difference> {
    let mut touched = HashSet::new();
    for item in a.nodes.diff(&b.nodes) {
        let (id, before, after) = match item {
            DiffItem::Add(id, after) => (*id, None, Some(after)),
            DiffItem::Remove(id, before) => (*id, Some(before), None),
            DiffItem::Update { old: (id, old), new: (_, new) } => (*id, Some(old), Some(new)),
        };
        for (tree, node) in [(a, before), (b, after)] {
            let Some(node) = node else { continue };
            touched.insert(id);
            for place in &node.places {
                // Everything above must be descended into on both sides.
                let mut at = place.parent;
                while touched.insert(at) {
                    match tree.node(at).and_then(|node| node.places.first()) {
                        Some(place) => at = place.parent,
                        None => break,
                    }
                }
            }
        }
    }
    let mut found = Vec::new();
    if !touched.contains(&NodeId::ROOT) {
        return found;
    }
    let mut pairs = children(a, b, &TreePath::root(), NodeId::ROOT, NodeId::ROOT);
    while let Some(Difference { path, before, after }) = pairs.pop() {
        if before == after && before.is_some_and(|id| !touched.contains(&id)) {
            continue;
        }
        let (old, new) = (before.and_then(|id| a.node(id)), after.and_then(|id| b.node(id)));
        let is_directory = |node: Option<&Node>| node.and_then(Node::directory).is_some();
        if !same(old, new) {
            found.push(Difference { path: path.clone(), before, after });
        }
        match (before, after) {
            (Some(before), Some(after)) if is_directory(old) && is_directory(new) => {
                pairs.extend(children(a, b, &path, before, after));
            }
            _ => {
                let gone = before.into_iter().flat_map(|id| a.walk_below(path.clone(), id));
                found.extend(gone.map(|(path, id, _)| Difference {
                    path,
                    before: Some(id),
                    after: None,
                }));
                let come = after.into_iter().flat_map(|id| b.walk_below(path.clone(), id));
                found.extend(come.map(|(path, id, _)| Difference {
                    path,
                    before: None,
                    after: Some(id),
                }));
            }
        }
    }
    found
}

/// What two directories hold under each name of either, the last name first.
fn children(a: &Tree, b: &Tree, path: &TreePath, in_a: NodeId, in_b: NodeId) -> Vec<Difference> {
    let mut pairs: BTreeMap<&Name, (Option<NodeId>, Option<NodeId>)> = BTreeMap::new();
    let (in_a, in_b) = (a.node(in_a), b.node(in_b));
    for (name, id) in in_a.and_then(Node::directory).into_iter().flat_map(Directory::iter) {
        pairs.entry(name).or_default().0 = Some(id);
    }
    for (name, id) in in_b.and_then(Node::directory).into_iter().flat_map(Directory::iter) {
        pairs.entry(name).or_default().1 = Some(id);
    }
    let pairs = pairs.into_iter().rev();
    pairs
        .map(|(name, (before, after))| Difference { path: path.join(name), before, after })
        .collect()
}

fn same(a: Option<&Node>, b: Option<&Node>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => {
            same_kind(a, b) && a.kind_value() == b.kind_value() && unstamped(a) == unstamped(b)
        }
        (None, None) => true,
        _ => false,
    }
}

fn same_kind(a: &Node, b: &Node) -> bool {
    std::mem::discriminant(&a.kind) == std::mem::discriminant(&b.kind)
}

/// Attributes without the time, which a restore does not bring back by itself.
fn unstamped(node: &Node) -> Attributes {
    Attributes { mtime: crate::node::Time(0), ..node.attributes.clone() }
}

impl Node {
    /// What to create to have this node again. A directory comes empty.
    #[must_use]
    pub fn kind_value(&self) -> New {
        match &self.kind {
            Kind::File(content) => New::File { content: *content },
            Kind::Directory(_) => New::Directory,
            Kind::Symlink(target) => New::Symlink { target: target.clone() },
            Kind::Fifo => New::Fifo,
        }
    }
}

/// The changes that make `now` hold what `then` holds, in an order in which
/// each is possible. Hard links come back as separate files.
#[must_use]
pub fn restore(now: &Tree, then: &Tree) -> Vec<Change> {
    let (mut removes, mut puts) = (Vec::new(), Vec::new());
    for Difference { path, before, after } in diff(now, then) {
        let old = before.and_then(|id| Some((id, now.node(id)?)));
        let new = after.and_then(|id| then.node(id));
        if let (Some((id, old)), Some(new)) = (old, new)
            && can_become(old, new)
        {
            let set = settings(old, new);
            let action = match &new.kind {
                Kind::File(content) if old.content() != Some(*content) => {
                    Action::Write { path, content: *content, set }
                }
                _ => Action::Attributes { path, set },
            };
            puts.push(Change::new(action, Expected::Node { id, version: old.version }));
            continue;
        }
        if let Some((id, old)) = old {
            let remove = Action::Remove { path: path.clone() };
            removes.push(if is_linked(old) {
                // The removal of one of its names makes a version of the others.
                Change::unstated(remove)
            } else {
                Change::new(remove, Expected::Node { id, version: old.version })
            });
        }
        if let Some(new) = new {
            let (what, set) = (new.kind_value(), settings(new, new));
            puts.push(Change::new(Action::Create { path, what, set }, Expected::Absent));
        }
    }
    // Children go before their directory; `diff` gives parents first.
    removes.reverse();
    removes.append(&mut puts);
    removes
}

/// Whether changing `old` where it is can make it `new`. What is written to one
/// name of a linked file is in all of them, and a link's target never changes.
fn can_become(old: &Node, new: &Node) -> bool {
    let same_target = !matches!(old.kind, Kind::Symlink(_)) || old.kind_value() == new.kind_value();
    same_kind(old, new) && same_target && !is_linked(old)
}

fn is_linked(node: &Node) -> bool {
    node.places.len() > 1
}

fn settings(from: &Node, to: &Node) -> AttributeChange {
    let (old, new) = (from.attributes.xattrs.as_deref(), to.attributes.xattrs.as_deref());
    let mut xattrs = BTreeMap::new();
    for name in old.into_iter().flat_map(|all| all.keys()) {
        xattrs.insert(name.clone(), None);
    }
    for (name, value) in new.into_iter().flatten() {
        xattrs.insert(name.clone(), Some(value.clone()));
    }
    AttributeChange {
        mode: Some(to.attributes.mode),
        uid: Some(to.attributes.uid),
        gid: Some(to.attributes.gid),
        mtime: None,
        xattrs,
    }
}
