//! The tree: nodes by id, in persistent maps.

use std::sync::Arc;

use imbl::OrdMap;

use crate::content::Content;
use crate::names::{Policy, comparison_key};
use crate::node::{Attributes, Directory, Kind, Node, NodeId, Place, Seq, Time};
use crate::path::{Name, TreePath};
use crate::quota::Usage;

/// A Volume's tree at one seq. Cloning is O(1); clones share what they have in
/// common.
#[derive(Debug, Clone, PartialEq)]
pub struct Tree {
    pub(crate) head: Seq,
    pub(crate) nodes: OrdMap<NodeId, Arc<Node>>,
    /// The sum of the sizes of all regular files, kept by whoever changes nodes.
    pub(crate) bytes: u64,
}

impl Default for Tree {
    fn default() -> Self {
        let root = Node {
            version: Seq(0),
            changed: Time(0),
            attributes: Attributes { mode: 0o755, uid: 0, gid: 0, mtime: Time(0), xattrs: None },
            places: Vec::new(),
            kind: Kind::Directory(Directory::default()),
        };
        Self { head: Seq(0), nodes: OrdMap::unit(NodeId::ROOT, Arc::new(root)), bytes: 0 }
    }
}

impl Tree {
    /// The seq of the last entry folded in.
    #[must_use]
    pub fn head(&self) -> Seq {
        self.head
    }

    /// How many nodes there are, the root not counted.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len() - 1
    }

    /// Whether there is nothing but the root.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The node with this id.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(&id).map(Arc::as_ref)
    }

    /// The node at `path`.
    #[must_use]
    pub fn lookup(&self, path: &TreePath) -> Option<NodeId> {
        path.names().try_fold(NodeId::ROOT, |at, name| self.child(at, &name))
    }

    /// The node at `path`, with its id.
    #[must_use]
    pub fn at(&self, path: &TreePath) -> Option<(NodeId, &Node)> {
        let id = self.lookup(path)?;
        Some((id, self.node(id)?))
    }

    /// The child of directory `parent` called `name`.
    #[must_use]
    pub fn child(&self, parent: NodeId, name: &Name) -> Option<NodeId> {
        self.node(parent)?.directory()?.get(name)
    }

    /// The node at a place.
    #[must_use]
    pub fn at_place(&self, place: &Place) -> Option<NodeId> {
        self.child(place.parent, &place.name)
    }

    /// A path of the node; a hard-linked file's first.
    #[must_use]
    pub fn path_of(&self, id: NodeId) -> Option<TreePath> {
        if id == NodeId::ROOT {
            return Some(TreePath::root());
        }
        self.path_of_place(self.node(id)?.places.first()?)
    }

    /// The path of a place.
    #[must_use]
    pub fn path_of_place(&self, place: &Place) -> Option<TreePath> {
        let (mut names, mut above) = (vec![&place.name], place.parent);
        while above != NodeId::ROOT {
            let place = self.node(above)?.places.first()?;
            names.push(&place.name);
            above = place.parent;
        }
        Some(TreePath::of_names(names.into_iter().rev()))
    }

    /// A live sibling that is the same name as `name` under `policy`, in
    /// another spelling. The name `except` does not count.
    #[must_use]
    pub fn collision(
        &self,
        parent: NodeId,
        name: &Name,
        policy: Policy,
        except: Option<&Name>,
    ) -> Option<Name> {
        if !policy.is_folding() {
            return None;
        }
        let directory = self.node(parent)?.directory()?;
        let key = comparison_key(name.as_str());
        // Names that are their own key are not in `folded`; look for that one directly.
        let plain = Name::new(&key).ok().filter(|plain| directory.children.contains_key(plain));
        let folded = directory.folded.get(key.as_str()).map(|names| names.iter().cloned());
        plain
            .into_iter()
            .chain(folded.into_iter().flatten())
            .filter(|other| Some(other) != except)
            .find(|other| other != name && policy.same_name(other.as_str(), name.as_str()))
    }

    /// Every node but the root, once, in the order of their ids.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &Node)> + '_ {
        let nodes = self.nodes.iter().map(|(id, node)| (*id, &**node));
        nodes.filter(|(id, _)| *id != NodeId::ROOT)
    }

    /// Every path below the root with its node, parents before children,
    /// siblings in the byte order of their names. A hard-linked file comes once
    /// for each place.
    pub fn walk(&self) -> impl Iterator<Item = (TreePath, NodeId, &Node)> + '_ {
        self.walk_below(TreePath::root(), NodeId::ROOT)
    }

    /// The same, below one directory, whose path is given.
    #[expect(clippy::needless_pass_by_value, reason = "callers have no further use for it")]
    pub fn walk_below(
        &self,
        path: TreePath,
        directory: NodeId,
    ) -> impl Iterator<Item = (TreePath, NodeId, &Node)> + '_ {
        let children = |path: &TreePath, id: NodeId| {
            let directory = self.node(id).and_then(Node::directory);
            let mut below: Vec<_> = directory
                .into_iter()
                .flat_map(|directory| directory.iter())
                .map(|(name, id)| (path.join(name), id))
                .collect();
            below.reverse();
            below
        };
        let mut stack = children(&path, directory);
        std::iter::from_fn(move || {
            let (path, id) = stack.pop()?;
            stack.extend(children(&path, id));
            Some((path, id, self.node(id)?))
        })
    }

    /// How much is in it. It is known without looking.
    #[must_use]
    pub fn usage(&self) -> Usage {
        Usage { bytes: self.bytes, inodes: self.len() as u64 }
    }

    /// All contents that the tree names.
    pub fn contents(&self) -> impl Iterator<Item = Content> + '_ {
        self.nodes.values().filter_map(|node| node.content())
    }
}

// What only the fold and the checkpoint reader call.
impl Tree {
    pub(crate) fn insert(&mut self, id: NodeId, node: Node) -> Option<Arc<Node>> {
        self.bytes = self.bytes.saturating_add(size(&node));
        let old = self.nodes.insert(id, Arc::new(node));
        self.bytes = self.bytes.saturating_sub(old.as_deref().map_or(0, size));
        old
    }

    pub(crate) fn remove(&mut self, id: NodeId) {
        let old = self.nodes.remove(&id);
        self.bytes = self.bytes.saturating_sub(old.as_deref().map_or(0, size));
    }

    /// Gives a file another content.
    pub(crate) fn write(&mut self, id: NodeId, content: Content) {
        let Some(node) = self.nodes.get_mut(&id).map(Arc::make_mut) else { return };
        self.bytes = self.bytes.saturating_sub(size(node)).saturating_add(content.size);
        node.kind = Kind::File(content);
    }

    /// For changes that leave the content as it is.
    pub(crate) fn edit(&mut self, id: NodeId) -> Option<&mut Node> {
        self.nodes.get_mut(&id).map(Arc::make_mut)
    }

    pub(crate) fn attach(&mut self, parent: NodeId, name: &Name, child: NodeId) {
        if let Some(Kind::Directory(directory)) = self.edit(parent).map(|node| &mut node.kind) {
            directory.children.insert(name.clone(), child);
            let key = comparison_key(name.as_str());
            if key != name.as_str() {
                let mut names = directory.folded.get(key.as_str()).map_or(vec![], |n| n.to_vec());
                // In order, so that equal trees are equal however they came about.
                if let Err(at) = names.binary_search(name) {
                    names.insert(at, name.clone());
                }
                directory.folded.insert(key.into(), names.into());
            }
        }
    }

    pub(crate) fn detach(&mut self, parent: NodeId, name: &Name) {
        if let Some(Kind::Directory(directory)) = self.edit(parent).map(|node| &mut node.kind) {
            directory.children.remove(name);
            let key = comparison_key(name.as_str());
            if let Some(names) = directory.folded.get(key.as_str()) {
                let left: Vec<_> = names.iter().filter(|other| *other != name).cloned().collect();
                if left.is_empty() {
                    directory.folded.remove(key.as_str());
                } else {
                    directory.folded.insert(key.into(), left.into());
                }
            }
        }
    }
}

fn size(node: &Node) -> u64 {
    node.content().map_or(0, |content| content.size)
}
