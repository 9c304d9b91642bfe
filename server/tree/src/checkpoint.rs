//! A tree as bytes, for checkpoints and for clients that start afresh.

use std::sync::Arc;

use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use crate::change::New;
use crate::entry::FORMAT;
use crate::node::{Attributes, Directory, Kind, Node, NodeId, Place, Seq};
use crate::tree::Tree;

/// The most bytes that [`Tree::decode`] reads: about four million nodes.
pub const MAX_CHECKPOINT_BYTES: usize = 1 << 30;

/// Bytes that are not a checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum BadCheckpoint {
    /// Not readable at all.
    #[error("the checkpoint cannot be read: {0}")]
    Syntax(#[from] serde_json::Error),
    /// Written by newer software.
    #[error("the checkpoint has format {0}, which this program does not know")]
    Format(u8),
    /// Readable, but not a tree.
    #[error("the checkpoint is not a tree: {0}")]
    Shape(&'static str),
    /// Over [`MAX_CHECKPOINT_BYTES`].
    #[error("the checkpoint is too large")]
    TooLarge,
}

#[derive(Serialize, Deserialize)]
struct Checkpoint {
    format: u8,
    head: Seq,
    nodes: Vec<Row>,
}

#[derive(Serialize, Deserialize)]
struct Row {
    id: NodeId,
    version: Seq,
    attributes: Attributes,
    places: Vec<Place>,
    // Not flattened: a content has an id of its own.
    what: New,
}

impl Tree {
    /// The tree as bytes that [`Tree::decode`] reads. Not compressed.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let row = |(id, node): (&NodeId, &Arc<Node>)| Row {
            id: *id,
            version: node.version,
            attributes: node.attributes.clone(),
            places: node.places.clone(),
            what: match &node.kind {
                Kind::File(content) => New::File { content: *content },
                Kind::Directory(_) => New::Directory,
                Kind::Symlink(target) => New::Symlink { target: target.clone() },
                Kind::Fifo => New::Fifo,
            },
        };
        let checkpoint = Checkpoint {
            format: FORMAT,
            head: self.head,
            nodes: self.nodes.iter().map(row).collect(),
        };
        serde_json::to_vec(&checkpoint).unwrap_or_default()
    }

    /// Reads what [`Tree::encode`] wrote, and checks that it is a tree.
    ///
    /// # Errors
    /// The bytes are damaged, too many, or of a newer format.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadCheckpoint> {
        if bytes.len() > MAX_CHECKPOINT_BYTES {
            return Err(BadCheckpoint::TooLarge);
        }
        let checkpoint: Checkpoint = serde_json::from_slice(bytes)?;
        if checkpoint.format > FORMAT {
            return Err(BadCheckpoint::Format(checkpoint.format));
        }
        let mut tree = Self { head: checkpoint.head, nodes: OrdMap::new(), bytes: 0 };
        let mut links = Vec::new();
        for Row { id, version, attributes, places, what } in checkpoint.nodes {
            if id.0 > checkpoint.head.0 || version > checkpoint.head {
                return Err(BadCheckpoint::Shape("a node is newer than the tree"));
            }
            let kind = match what {
                New::File { content } => Kind::File(content),
                New::Directory => Kind::Directory(Directory::default()),
                New::Symlink { target } => Kind::Symlink(target),
                New::Fifo => Kind::Fifo,
            };
            let many = matches!(kind, Kind::Directory(_)) && places.len() > 1;
            if many || (id == NodeId::ROOT) != places.is_empty() {
                return Err(BadCheckpoint::Shape("a node has a wrong number of places"));
            }
            links.extend(places.iter().cloned().map(|place| (place, id)));
            let node = Node { version, attributes, places, kind };
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
    use crate::content::Content;
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
}
