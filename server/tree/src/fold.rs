//! The fold: how an entry changes a tree.

use crate::change::New;
use crate::content::Content;
use crate::entry::{Entry, FORMAT, Op, RenameHow};
use crate::node::{AttributeChange, Directory, Kind, Node, NodeId, Place, Seq};
use crate::tree::Tree;

/// Why an entry does not fit a tree. A journal that was written through
/// admission has none of these; a damaged or foreign one may.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// The entry is not the one after the tree's head.
    #[error("entry {found} does not follow {head}")]
    Gap {
        /// The tree's head.
        head: Seq,
        /// The entry's seq.
        found: Seq,
    },
    /// The entry was written by newer software.
    #[error("entry {0} has format {1}, which this program does not know; install a newer version")]
    Format(Seq, u8),
    /// The entry names something that is not as it says.
    #[error("entry {0} does not fit the tree: {1}")]
    Shape(Seq, &'static str),
}

/// Folds `entry` into `tree`. Deterministic; a misfit leaves the tree unchanged.
///
/// # Errors
/// Says why the entry does not fit.
pub fn fold(tree: &mut Tree, entry: &Entry) -> Result<(), Misfit> {
    if entry.format > FORMAT {
        return Err(Misfit::Format(entry.seq, entry.format));
    }
    if entry.seq != tree.head.next() {
        return Err(Misfit::Gap { head: tree.head, found: entry.seq });
    }
    let seq = entry.seq;
    let shape = |why| Misfit::Shape(seq, why);
    match &entry.op {
        Op::Create { at, what, attributes } => {
            free(tree, at).map_err(shape)?;
            let kind = match what {
                New::File { content } => Kind::File(*content),
                New::Directory => Kind::Directory(Directory::default()),
                New::Symlink { target } => Kind::Symlink(target.clone()),
                New::Fifo => Kind::Fifo,
            };
            let id = NodeId(seq.0);
            let places = vec![at.clone()];
            let node = Node { version: seq, attributes: attributes.clone(), places, kind };
            tree.insert(id, node);
            tree.attach(at.parent, &at.name, id);
        }
        Op::Link { node, at } => {
            free(tree, at).map_err(shape)?;
            let file = tree.node(*node).ok_or(shape("it links an unknown node"))?;
            if file.directory().is_some() {
                return Err(shape("it links a directory"));
            }
            tree.attach(at.parent, &at.name, *node);
            touch(tree, *node, seq, |file| file.places.push(at.clone()));
        }
        Op::Write { node, content, set }
        | Op::Append { node, content, set, .. }
        | Op::Truncate { node, content, set } => {
            write(tree, *node, *content, set, seq).map_err(shape)?;
        }
        Op::Attributes { node, set } => {
            tree.node(*node).ok_or(shape("it changes an unknown node"))?;
            touch(tree, *node, seq, |node| set.apply(&mut node.attributes));
        }
        Op::Rename { node, from, to, how, displaced } => {
            rename(tree, *node, from, to, *how, *displaced, seq).map_err(shape)?;
        }
        Op::Remove { node, at } => {
            occupied(tree, at, *node).map_err(shape)?;
            empty(tree, *node).map_err(shape)?;
            release(tree, *node, at, seq);
        }
    }
    tree.head = seq;
    Ok(())
}

type Fits = Result<(), &'static str>;

fn free(tree: &Tree, at: &Place) -> Fits {
    let directory = tree.node(at.parent).and_then(Node::directory).ok_or("no such directory")?;
    if directory.get(&at.name).is_some() { Err("the place is taken") } else { Ok(()) }
}

fn occupied(tree: &Tree, at: &Place, node: NodeId) -> Fits {
    if tree.at_place(at) == Some(node) { Ok(()) } else { Err("another node is at the place") }
}

fn empty(tree: &Tree, node: NodeId) -> Fits {
    match tree.node(node).and_then(Node::directory) {
        Some(directory) if !directory.is_empty() => Err("the directory is not empty"),
        _ => Ok(()),
    }
}

fn touch(tree: &mut Tree, id: NodeId, seq: Seq, change: impl FnOnce(&mut Node)) {
    if let Some(node) = tree.edit(id) {
        node.version = seq;
        change(node);
    }
}

fn write(tree: &mut Tree, node: NodeId, content: Content, set: &AttributeChange, seq: Seq) -> Fits {
    match tree.node(node).map(|node| &node.kind) {
        Some(Kind::File(_)) => {}
        _ => return Err("it writes to what is not a file"),
    }
    tree.write(node, content);
    touch(tree, node, seq, |file| set.apply(&mut file.attributes));
    Ok(())
}

/// Takes `at` from the node; with its last place the node goes.
fn release(tree: &mut Tree, node: NodeId, at: &Place, seq: Seq) {
    tree.detach(at.parent, &at.name);
    let last = tree.edit(node).is_none_or(|node| {
        node.version = seq;
        node.places.retain(|place| place != at);
        node.places.is_empty()
    });
    if last {
        tree.remove(node);
    }
}

fn rename(
    tree: &mut Tree,
    node: NodeId,
    from: &Place,
    to: &Place,
    how: RenameHow,
    displaced: Option<NodeId>,
    seq: Seq,
) -> Fits {
    occupied(tree, from, node)?;
    if from == to || below(tree, to.parent, node) {
        return Err("it moves a node into itself");
    }
    match (how, displaced) {
        (RenameHow::NoReplace | RenameHow::Replace, None) => free(tree, to)?,
        (RenameHow::NoReplace, Some(_)) | (RenameHow::Exchange, None) => {
            return Err("what it displaces does not go with how it moves");
        }
        (RenameHow::Replace, Some(other)) => {
            occupied(tree, to, other)?;
            if other == node {
                return Err("it replaces a node by itself");
            }
            empty(tree, other)?;
        }
        (RenameHow::Exchange, Some(other)) => {
            occupied(tree, to, other)?;
            if other == node {
                return Err("it exchanges a node with itself");
            }
            if below(tree, from.parent, other) {
                return Err("it moves a node into itself");
            }
        }
    }
    let move_place = |places: &mut Vec<Place>, from: &Place, to: &Place| {
        for place in places.iter_mut().filter(|place| *place == from) {
            *place = to.clone();
        }
    };
    match (how, displaced) {
        (RenameHow::Exchange, Some(other)) => {
            tree.attach(from.parent, &from.name, other);
            touch(tree, other, seq, |other| move_place(&mut other.places, to, from));
        }
        (_, Some(other)) => {
            release(tree, other, to, seq);
            tree.detach(from.parent, &from.name);
        }
        (_, None) => tree.detach(from.parent, &from.name),
    }
    tree.attach(to.parent, &to.name, node);
    touch(tree, node, seq, |node| move_place(&mut node.places, from, to));
    Ok(())
}

/// Whether `id` is `top` or lies below it.
fn below(tree: &Tree, mut id: NodeId, top: NodeId) -> bool {
    loop {
        if id == top {
            return true;
        }
        match tree.node(id).and_then(|node| node.places.first()) {
            Some(place) => id = place.parent,
            None => return false,
        }
    }
}
