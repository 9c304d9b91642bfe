//! A tree as bytes, for checkpoints and for clients that start afresh.

use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use crate::change::New;
use crate::content::{Content, ContentId};
use crate::node::{Attributes, Directory, Kind, Node, NodeId, Place, Seq, Time};
use crate::tree::Tree;

/// The most bytes that [`Tree::decode`] reads: about four million nodes.
pub const MAX_CHECKPOINT_BYTES: usize = 1 << 30;

/// The layout that [`Tree::encode`] writes: `MessagePack`. The first one was JSON; the
/// second did not say when nodes changed.
const LAYOUT: u8 = 3;

/// Bytes that are not a checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum BadCheckpoint {
    /// Not readable at all.
    #[error("the checkpoint cannot be read: {0}")]
    Syntax(String),
    /// Written by newer software.
    #[error("the checkpoint has layout {0}, which this program does not know")]
    Layout(u8),
    /// Readable, but not a tree.
    #[error("the checkpoint is not a tree: {0}")]
    Shape(&'static str),
    /// Over [`MAX_CHECKPOINT_BYTES`].
    #[error("the checkpoint is too large")]
    TooLarge,
}

/// The whole, in this order and without names for its parts.
#[derive(Serialize, Deserialize)]
struct Checkpoint<R> {
    #[serde(rename = "format")]
    layout: u8,
    head: Seq,
    nodes: Vec<R>,
}

/// A node of the first layout.
#[derive(Deserialize)]
struct FirstRow {
    id: NodeId,
    version: Seq,
    attributes: Attributes,
    places: Vec<Place>,
    what: New,
}

/// A node. What most nodes have not is at the end, in one part, so that it takes a byte.
#[derive(Serialize, Deserialize)]
struct Row {
    id: NodeId,
    version: Seq,
    mode: u32,
    mtime: Time,
    places: Vec<Place>,
    what: What,
    more: Option<More>,
    /// Where that is not `mtime`.
    #[serde(default)]
    changed: Option<Time>,
}

#[derive(Serialize, Deserialize)]
enum What {
    #[serde(rename = "f")]
    File(ContentId, u64),
    #[serde(rename = "d")]
    Directory,
    #[serde(rename = "l")]
    Symlink(Arc<str>),
    #[serde(rename = "p")]
    Fifo,
}

#[derive(Serialize, Deserialize)]
struct More {
    uid: u32,
    gid: u32,
    xattrs: Option<Arc<BTreeMap<String, Vec<u8>>>>,
}

impl Row {
    fn of(id: NodeId, node: &Node) -> Self {
        let Attributes { mode, uid, gid, mtime, xattrs } = node.attributes.clone();
        let plain = uid == 0 && gid == 0 && xattrs.is_none();
        Self {
            id,
            version: node.version,
            mode,
            mtime,
            places: node.places.clone(),
            what: match &node.kind {
                Kind::File(content) => What::File(content.id, content.size),
                Kind::Directory(_) => What::Directory,
                Kind::Symlink(target) => What::Symlink(target.clone()),
                Kind::Fifo => What::Fifo,
            },
            more: (!plain).then_some(More { uid, gid, xattrs }),
            changed: (node.changed != mtime).then_some(node.changed),
        }
    }

    /// The node, a directory without its children.
    fn into_node(self) -> (NodeId, Node) {
        let More { uid, gid, xattrs } = self.more.unwrap_or(More { uid: 0, gid: 0, xattrs: None });
        let kind = match self.what {
            What::File(id, size) => Kind::File(Content { id, size }),
            What::Directory => Kind::Directory(Directory::default()),
            What::Symlink(target) => Kind::Symlink(target),
            What::Fifo => Kind::Fifo,
        };
        let attributes = Attributes { mode: self.mode, uid, gid, mtime: self.mtime, xattrs };
        let changed = self.changed.unwrap_or(self.mtime);
        (self.id, Node { version: self.version, changed, attributes, places: self.places, kind })
    }
}

impl FirstRow {
    fn into_node(self) -> (NodeId, Node) {
        let kind = match self.what {
            New::File { content } => Kind::File(content),
            New::Directory => Kind::Directory(Directory::default()),
            New::Symlink { target } => Kind::Symlink(target),
            New::Fifo => Kind::Fifo,
        };
        let Self { id, version, attributes, places, .. } = self;
        (id, Node { version, changed: attributes.mtime, attributes, places, kind })
    }
}

impl Tree {
    /// The tree as bytes that [`Tree::decode`] reads. Not compressed.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let nodes = self.nodes.iter().map(|(id, node)| Row::of(*id, node)).collect();
        let checkpoint = Checkpoint { layout: LAYOUT, head: self.head, nodes };
        rmp_serde::to_vec(&checkpoint).unwrap_or_default()
    }

    /// Reads what [`Tree::encode`] wrote, and checks that it is a tree.
    ///
    /// # Errors
    /// The bytes are damaged, too many, or of a newer layout.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadCheckpoint> {
        if bytes.len() > MAX_CHECKPOINT_BYTES {
            return Err(BadCheckpoint::TooLarge);
        }
        let syntax = |error: &dyn std::fmt::Display| BadCheckpoint::Syntax(error.to_string());
        if bytes.first() == Some(&b'{') {
            let read: Checkpoint<FirstRow> =
                serde_json::from_slice(bytes).map_err(|error| syntax(&error))?;
            Self::of_nodes(read.layout, read.head, read.nodes.into_iter().map(FirstRow::into_node))
        } else {
            let read: Checkpoint<Row> =
                rmp_serde::from_slice(bytes).map_err(|error| syntax(&error))?;
            Self::of_nodes(read.layout, read.head, read.nodes.into_iter().map(Row::into_node))
        }
    }

    fn of_nodes(
        layout: u8,
        head: Seq,
        nodes: impl Iterator<Item = (NodeId, Node)>,
    ) -> Result<Self, BadCheckpoint> {
        if layout > LAYOUT {
            return Err(BadCheckpoint::Layout(layout));
        }
        let mut tree = Self { head, nodes: OrdMap::new(), bytes: 0 };
        let mut links = Vec::new();
        for (id, node) in nodes {
            if id.0 > head.0 || node.version > head {
                return Err(BadCheckpoint::Shape("a node is newer than the tree"));
            }
            let places = &node.places;
            let many = matches!(node.kind, Kind::Directory(_)) && places.len() > 1;
            if many || (id == NodeId::ROOT) != places.is_empty() {
                return Err(BadCheckpoint::Shape("a node has a wrong number of places"));
            }
            links.extend(places.iter().cloned().map(|place| (place, id)));
            if tree.insert(id, node).is_some() {
                return Err(BadCheckpoint::Shape("two nodes have one id"));
            }
        }
        if tree.node(NodeId::ROOT).and_then(Node::directory).is_none() {
            return Err(BadCheckpoint::Shape("there is no root"));
        }
        for (place, id) in links {
            let directory = tree.node(place.parent).and_then(Node::directory);
            match directory.map(|directory| directory.get(&place.name)) {
                Some(None) => tree.attach(place.parent, &place.name, id),
                Some(Some(_)) => return Err(BadCheckpoint::Shape("two nodes are at one place")),
                None => return Err(BadCheckpoint::Shape("a node is in what is no directory")),
            }
        }
        // A cycle of directories hangs on nothing: the walk from the root misses it.
        let places: usize = tree.nodes.values().map(|node| node.places.len()).sum();
        if tree.walk().count() != places {
            return Err(BadCheckpoint::Shape("some nodes hang on nothing"));
        }
        Ok(tree)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{Batch, Origin, admit_batch};
    use crate::change::{Action, Change, Expected, News};
    use crate::names::Policy;
    use crate::node::AttributeChange;
    use crate::path::TreePath;
    use crate::quota::Quota;

    #[test]
    fn a_tree_of_every_kind_round_trips() {
        let kinds = [
            ("d", New::Directory),
            ("d/file", New::File { content: Content::of(b"text") }),
            ("d/link", New::Symlink { target: "file".into() }),
            ("pipe", New::Fifo),
        ];
        let changes = kinds.map(|(path, what)| {
            let (path, set) = (TreePath::new(path).unwrap(), AttributeChange::mode(0o640));
            Change::new(Action::Create { path, what, set }, Expected::Absent)
        });
        let mut tree = Tree::default();
        let origin = Origin::default();
        let batch = Batch {
            origin: &origin,
            policy: Policy::default(),
            quota: Quota::default(),
            news: &News::default(),
            changes: &changes,
        };
        admit_batch(&mut tree, &batch).unwrap();
        assert_eq!(tree.len(), 4);
        assert_eq!(Tree::decode(&tree.encode()).unwrap(), tree);
    }

    #[test]
    fn a_checkpoint_of_the_first_layout_is_read() {
        let id = Content::of(b"text").id;
        let text = format!(
            r#"{{"format":1,"head":3,"nodes":[
            {{"id":0,"version":0,"attributes":{{"mode":493,"uid":0,"gid":0,"mtime":0}},
              "places":[],"what":{{"kind":"directory"}}}},
            {{"id":2,"version":3,"attributes":{{"mode":416,"uid":1,"gid":2,"mtime":5,
              "xattrs":{{"user.x":[7]}}}},
              "places":[{{"parent":0,"name":"f"}}],
              "what":{{"kind":"file","id":"{id}","size":4}}}}]}}"#
        );
        let tree = Tree::decode(text.as_bytes()).unwrap();
        let (_, node) = tree.at(&TreePath::new("f").unwrap()).unwrap();
        assert_eq!(node.kind, Kind::File(Content { id, size: 4 }));
        assert_eq!((node.attributes.uid, node.attributes.gid), (1, 2));
        assert_eq!(Tree::decode(&tree.encode()).unwrap(), tree);
        let later = text.replace(r#""format":1"#, r#""format":4"#);
        assert!(matches!(Tree::decode(later.as_bytes()), Err(BadCheckpoint::Layout(4))));
    }
}
