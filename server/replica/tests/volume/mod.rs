//! A Volume's tree, for tests.

#![allow(dead_code, reason = "each test program uses a part of it")]

use s0_tree::{
    Actor, AttributeChange, Attributes, Content, Entry, FORMAT, New, NodeId, Op, Place, RenameHow,
    Source, Time, Tree, TreePath, fold,
};

/// What is at a path: a directory, a file with this text, a link to there.
pub(crate) enum At {
    Directory,
    File(&'static str),
    Link(&'static str),
}

/// A tree that holds these, whose directories come before what is in them.
pub(crate) fn tree(all: &[(&str, At)]) -> Tree {
    let mut tree = Tree::default();
    for (path, what) in all {
        let path = TreePath::new(path).unwrap();
        let (above, name) = path.split().unwrap();
        let parent = if above.is_root() { NodeId::ROOT } else { tree.lookup(&above).unwrap() };
        let (what, mode) = match what {
            At::Directory => (New::Directory, 0o755),
            At::File(text) => (New::File { content: Content::of(text.as_bytes()) }, 0o644),
            At::Link(target) => (New::Symlink { target: (*target).into() }, 0o777),
        };
        let attributes = Attributes { mode, uid: 0, gid: 0, mtime: Time(0), xattrs: None };
        let entry = Entry {
            format: FORMAT,
            seq: tree.head().next(),
            time: Time(0),
            source: Source::Sandbox,
            actor: Actor::default(),
            request: None,
            op: Op::Create { at: Place { parent, name }, what, attributes },
            path,
            old_path: None,
        };
        fold(&mut tree, &entry).unwrap();
    }
    tree
}

/// The entry that moves something in a tree.
pub(crate) fn renamed(tree: &Tree, from: &str, to: &str) -> Entry {
    let (from, to) = (TreePath::new(from).unwrap(), TreePath::new(to).unwrap());
    let place = |path: &TreePath| {
        let (above, name) = path.split().unwrap();
        let parent = if above.is_root() { NodeId::ROOT } else { tree.lookup(&above).unwrap() };
        Place { parent, name }
    };
    Entry {
        format: FORMAT,
        seq: tree.head().next(),
        time: Time(0),
        source: Source::Sandbox,
        actor: Actor::default(),
        request: None,
        op: Op::Rename {
            node: tree.lookup(&from).unwrap(),
            from: place(&from),
            to: place(&to),
            how: RenameHow::NoReplace,
            displaced: None,
        },
        path: to,
        old_path: Some(from),
    }
}

/// The entry that removes something from the root of a tree.
pub(crate) fn removed(tree: &Tree, path: &str) -> Entry {
    let path = TreePath::new(path).unwrap();
    let (_, name) = path.split().unwrap();
    Entry {
        format: FORMAT,
        seq: tree.head().next(),
        time: Time(0),
        source: Source::Sandbox,
        actor: Actor::default(),
        request: None,
        op: Op::Remove {
            node: tree.lookup(&path).unwrap(),
            at: Place { parent: NodeId::ROOT, name },
        },
        path,
        old_path: None,
    }
}

/// The entry that writes a file of a tree.
pub(crate) fn written(tree: &Tree, path: &str, text: &str, actor: Actor) -> Entry {
    let path = TreePath::new(path).unwrap();
    Entry {
        format: FORMAT,
        seq: tree.head().next(),
        time: Time(0),
        source: if actor.sandbox.is_some() { Source::Sandbox } else { Source::Replica },
        actor,
        request: None,
        op: Op::Write {
            node: tree.lookup(&path).unwrap(),
            content: Content::of(text.as_bytes()),
            set: AttributeChange::default(),
        },
        path,
        old_path: None,
    }
}
