//! The fold: how an entry changes a tree.

use crate::change::New;
use crate::content::Content;
use crate::entry::{Entry, FORMAT, Op, RenameHow};
use crate::node::{AttributeChange, Directory, Kind, Node, NodeId, Place, Seq, Time};
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
    let now = Now { seq, time: entry.time };
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
            let attributes = attributes.clone();
            let node = Node { version: seq, changed: entry.time, attributes, places, kind };
            tree.insert(id, node);
            attach(tree, at, id, now);
        }
        Op::Link { node, at } => {
            free(tree, at).map_err(shape)?;
            let file = tree.node(*node).ok_or(shape("it links an unknown node"))?;
            if file.directory().is_some() {
                return Err(shape("it links a directory"));
            }
            attach(tree, at, *node, now);
            touch(tree, *node, now, |file| file.places.push(at.clone()));
        }
        Op::Write { node, content, set }
        | Op::Append { node, content, set, .. }
        | Op::Truncate { node, content, set } => {
            write(tree, *node, *content, set, now).map_err(shape)?;
        }
        Op::Attributes { node, set } => {
            tree.node(*node).ok_or(shape("it changes an unknown node"))?;
            touch(tree, *node, now, |node| set.apply(&mut node.attributes));
        }
        Op::Rename { node, from, to, how, displaced } => {
            rename(tree, *node, from, to, *how, *displaced, now).map_err(shape)?;
        }
        Op::Remove { node, at } => {
            occupied(tree, at, *node).map_err(shape)?;
            empty(tree, *node).map_err(shape)?;
            release(tree, *node, at, now);
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

/// The entry that is folded.
#[derive(Clone, Copy)]
struct Now {
    seq: Seq,
    time: Time,
}

fn touch(tree: &mut Tree, id: NodeId, now: Now, change: impl FnOnce(&mut Node)) {
    if let Some(node) = tree.edit(id) {
        node.version = now.seq;
        node.changed = now.time;
        change(node);
    }
}

fn attach(tree: &mut Tree, at: &Place, child: NodeId, now: Now) {
    tree.attach(at.parent, &at.name, child);
    stamp(tree, at.parent, now);
}

fn detach(tree: &mut Tree, at: &Place, now: Now) {
    tree.detach(at.parent, &at.name);
    stamp(tree, at.parent, now);
}

/// A directory's times follow its children; its version does not.
fn stamp(tree: &mut Tree, directory: NodeId, now: Now) {
    if let Some(node) = tree.edit(directory) {
        node.changed = now.time;
        node.attributes.mtime = now.time;
    }
}

fn write(tree: &mut Tree, node: NodeId, content: Content, set: &AttributeChange, now: Now) -> Fits {
    match tree.node(node).map(|node| &node.kind) {
        Some(Kind::File(_)) => {}
        _ => return Err("it writes to what is not a file"),
    }
    tree.write(node, content);
    touch(tree, node, now, |file| set.apply(&mut file.attributes));
    Ok(())
}

/// Takes `at` from the node; with its last place the node goes.
fn release(tree: &mut Tree, node: NodeId, at: &Place, now: Now) {
    detach(tree, at, now);
    let last = tree.edit(node).is_none_or(|node| {
        node.version = now.seq;
        node.changed = now.time;
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
    now: Now,
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
            attach(tree, from, other, now);
            touch(tree, other, now, |other| move_place(&mut other.places, to, from));
        }
        (_, Some(other)) => {
            release(tree, other, to, now);
            detach(tree, from, now);
        }
        (_, None) => detach(tree, from, now),
    }
    attach(tree, to, node, now);
    touch(tree, node, now, |node| move_place(&mut node.places, from, to));
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
