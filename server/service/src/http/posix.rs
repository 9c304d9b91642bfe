//! What the identity of a Volume's file API may do with what is in the tree. Replicas are
//! not asked: they hold the whole tree on their disks.

use s0_tree::{Node, NodeId, Tree, TreePath};

use crate::problem::Problem;
use crate::volume::Draft;

pub(super) const READ: u32 = 4;
pub(super) const WRITE: u32 = 2;
/// Searching a directory.
pub(super) const PASS: u32 = 1;

const STICKY: u32 = 0o1000;
const DENIED: Problem = Problem::Forbidden("permission denied");

/// A user and a group.
#[derive(Debug, Clone, Copy)]
pub(super) struct Identity(pub(super) u32, pub(super) u32);

impl Identity {
    pub(super) fn of(draft: &Draft) -> Self {
        let (uid, gid) = draft.ledger.owner();
        Self(uid, gid)
    }

    fn owns(self, id: NodeId, node: &Node) -> bool {
        // No entry made the root: it is whose the Volume is.
        id == NodeId::ROOT || node.attributes.uid == self.0
    }

    /// Refuses unless all of `wanted` is allowed.
    pub(super) fn may(self, (id, node): (NodeId, &Node), wanted: u32) -> Result<(), Problem> {
        let Self(uid, gid) = self;
        let shift = match (self.owns(id, node), node.attributes.gid == gid) {
            (true, _) => 6,
            (false, true) => 3,
            (false, false) => 0,
        };
        let allowed = (node.attributes.mode >> shift) & 7;
        if uid == 0 || allowed & wanted == wanted { Ok(()) } else { Err(DENIED) }
    }

    /// What is at the path, when all above it are directories that may be passed.
    pub(super) fn find<'a>(
        self,
        tree: &'a Tree,
        path: &TreePath,
    ) -> Result<Option<(NodeId, &'a Node)>, Problem> {
        for above in path.ancestors() {
            let Some(found) = tree.at(&above) else { return Ok(None) };
            if found.1.directory().is_none() {
                return Err(Problem::conflict("path is not a directory"));
            }
            self.may(found, PASS)?;
        }
        Ok(tree.at(path))
    }

    /// Refuses unless something may be made at the path, with the directories above it.
    pub(super) fn make(self, tree: &Tree, path: &TreePath) -> Result<(), Problem> {
        let root = tree.node(NodeId::ROOT).map(|root| (NodeId::ROOT, root));
        let nearest = path.ancestors().map_while(|above| tree.at(&above)).last().or(root);
        nearest.map_or(Ok(()), |directory| self.may(directory, WRITE | PASS))
    }

    /// Refuses unless the name may go from its directory.
    pub(super) fn unlink(
        self,
        tree: &Tree,
        path: &TreePath,
        found: (NodeId, &Node),
    ) -> Result<(), Problem> {
        let Some(above) = path.parent().and_then(|above| tree.at(&above)) else { return Ok(()) };
        self.may(above, WRITE | PASS)?;
        let sticky = above.1.attributes.mode & STICKY != 0;
        let own = self.0 == 0 || self.owns(above.0, above.1) || self.owns(found.0, found.1);
        if sticky && !own { Err(DENIED) } else { Ok(()) }
    }

    /// The same with all that is below.
    pub(super) fn remove(
        self,
        tree: &Tree,
        path: &TreePath,
        found: (NodeId, &Node),
    ) -> Result<(), Problem> {
        self.unlink(tree, path, found)?;
        let below = tree.walk_below(path.clone(), found.0);
        for (path, id, node) in std::iter::once((path.clone(), found.0, found.1)).chain(below) {
            if node.directory().is_some_and(|directory| directory.iter().next().is_some()) {
                self.may((id, node), READ | WRITE | PASS)?;
            }
            if id != found.0 {
                self.unlink(tree, &path, (id, node))?;
            }
        }
        Ok(())
    }
}
