//! The digest: one hash for all that replicas agree on.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use crate::content::Hash;
use crate::node::{Kind, Node};
use crate::path::TreePath;
use crate::tree::Tree;

/// A hash over the path, kind, permission bits and content of everything in the
/// tree. Owner and times are not part of it: replicas do not sync them.
#[must_use]
pub fn digest(tree: &Tree) -> Hash {
    digest_of(tree.walk().map(|(path, _, node)| (path, describe(node))))
}

/// The same for any description of a tree, in any order.
#[must_use]
pub fn digest_of(things: impl Iterator<Item = (TreePath, String)>) -> Hash {
    let sorted: BTreeMap<TreePath, String> = things.collect();
    let mut hasher = Sha256::new();
    for (path, what) in sorted {
        hasher.update(path.as_str());
        hasher.update([0]);
        hasher.update(what);
        hasher.update([0]);
    }
    Hash(hasher.finalize().into())
}

/// A node in the words of [`digest_of`]: kind, mode and content. Links have no
/// mode of their own on most systems.
fn describe(node: &Node) -> String {
    let mode = node.attributes.mode & 0o777;
    match &node.kind {
        Kind::File(content) => format!("file {mode:o} {} {}", content.id, content.size),
        Kind::Directory(_) => format!("directory {mode:o}"),
        Kind::Symlink(target) => format!("symlink {target}"),
        Kind::Fifo => format!("fifo {mode:o}"),
    }
}
