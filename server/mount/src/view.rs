//! What the mount shows: the Volume's tree, and over it what was done here and is not in
//! the journal yet.
//!
//! Pure: no files but drafts, no clock, no network. The shell asks it, and tells it of
//! entries and of commits.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;

use s0_tree::{
    Content, Entry, Kind, Name, Node, NodeId, Op, Place, Policy, Quota, Seq, Time, Tree, TreePath,
};

use crate::draft::Draft;
use crate::kernel::answer::{Attr, Errno, FileKind};
use crate::kernel::request::{Handle, Ino};

mod commits;
mod fold;
mod local;
mod prepare;

pub(crate) use commits::{Commit, Committed};
pub(crate) use fold::{News, Stale};
pub(crate) use prepare::Asked;

/// Nodes that were made here are known to the kernel by numbers from here on: what they
/// are called in the journal is decided later. They keep this number.
const FRESH: u64 = 1 << 48;

/// What a number stands for.
#[derive(Debug)]
enum Is {
    /// A node of the tree.
    Node(NodeId),
    /// A new file that is not committed.
    Fresh(Fresh),
    /// A file that has no name any more; it is open, or known to the kernel.
    Gone(Box<Gone>),
}

/// A file that has no name any more.
#[derive(Debug)]
struct Gone {
    /// As it was.
    node: Node,
    /// A replica took it away, and had not seen what is written here: that is a conflict.
    unseen: Option<Unseen>,
}

/// What a draft was over that is gone.
#[derive(Debug)]
struct Unseen {
    path: TreePath,
    id: NodeId,
    version: Seq,
}

/// A new file that is not committed.
#[derive(Debug, Clone)]
struct Fresh {
    at: Place,
    mode: u32,
    uid: u32,
    gid: u32,
    made: Time,
    /// Where it was to be; a replica took the directory away, and had not seen it.
    orphaned: Option<TreePath>,
}

/// A commit that is on its way.
#[derive(Debug, Clone, Copy)]
struct Attempt {
    generation: u64,
    /// What it brings, once that is sent.
    content: Option<Content>,
}

/// What is known of a node beyond the tree.
#[derive(Debug)]
struct Inode {
    is: Is,
    /// How often the kernel looked it up and did not forget it.
    lookups: u64,
    /// How often it is open.
    opens: u32,
    draft: Option<Draft>,
    /// The version that the draft is based on.
    based: Seq,
    /// A replica wrote meanwhile: what is written here is a conflict.
    overtaken: bool,
    /// The commits of it whose end is not known, in order.
    committing: Vec<Attempt>,
    /// A replica made a file at the place of this new one while it was being committed.
    contested: bool,
    /// Something else is in its place, and what was written is in a conflict: it is no file to
    /// write to any more.
    refused: bool,
    /// The permission bits that a write took away.
    kill_ids: bool,
    /// What `stat` says of when it changed last, as long as this is its version: the time here,
    /// which programs were told before the journal gave it one.
    changed: Option<(Seq, Time)>,
    /// Access times are kept here only, and as long as the kernel knows the node.
    atime: Option<Time>,
}

impl Inode {
    fn of(is: Is) -> Self {
        Self {
            is,
            lookups: 0,
            opens: 0,
            draft: None,
            based: Seq(0),
            overtaken: false,
            committing: Vec::new(),
            contested: false,
            refused: false,
            kill_ids: false,
            changed: None,
            atime: None,
        }
    }

    /// Nothing is known of it that the tree does not say.
    fn is_idle(&self) -> bool {
        let settled = self.draft.as_ref().is_none_or(|draft| !draft.is_dirty());
        self.lookups == 0 && self.opens == 0 && settled && self.committing.is_empty()
    }
}

/// An open file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Open {
    pub(crate) ino: Ino,
    pub(crate) append: bool,
}

/// A directory's names, as they were when it was read from the start.
pub(crate) type Names = Arc<Vec<(Box<OsStr>, Ino, FileKind)>>;

/// See the module.
#[derive(Debug)]
pub(crate) struct View {
    tree: Tree,
    policy: Policy,
    quota: Quota,
    /// What entries of this mount bear.
    session: Arc<str>,
    inodes: HashMap<Ino, Inode>,
    /// New files by their places.
    fresh: HashMap<Place, Ino>,
    /// What became of new files, and back.
    nodes: HashMap<Ino, NodeId>,
    aliases: HashMap<NodeId, Ino>,
    opens: HashMap<Handle, Open>,
    listings: HashMap<Handle, Names>,
    last: u64,
}

impl View {
    pub(crate) fn new(tree: Tree, session: Arc<str>) -> Self {
        Self {
            tree,
            policy: Policy::default(),
            quota: Quota::default(),
            session,
            inodes: HashMap::new(),
            fresh: HashMap::new(),
            nodes: HashMap::new(),
            aliases: HashMap::new(),
            opens: HashMap::new(),
            listings: HashMap::new(),
            last: 0,
        }
    }

    pub(crate) fn head(&self) -> Seq {
        self.tree.head()
    }

    pub(crate) fn set_terms(&mut self, policy: Policy, quota: Quota) {
        (self.policy, self.quota) = (policy, quota);
    }

    pub(crate) fn quota(&self) -> Quota {
        self.quota
    }

    pub(crate) fn tree(&self) -> &Tree {
        &self.tree
    }

    /// The number of a node.
    pub(crate) fn ino(&self, node: NodeId) -> Ino {
        self.aliases.get(&node).copied().unwrap_or(Ino(node.0 + 1))
    }

    /// The node of a number, unless it is a new file, or gone.
    fn node_id(&self, ino: Ino) -> Option<NodeId> {
        match self.inodes.get(&ino).map(|inode| &inode.is) {
            Some(Is::Node(node)) => Some(*node),
            Some(Is::Fresh(_) | Is::Gone(_)) => None,
            None if ino.0 >= FRESH => self.nodes.get(&ino).copied(),
            None => Some(NodeId(ino.0.checked_sub(1)?)),
        }
    }

    /// What is known of a number beyond the tree; made where there is nothing yet.
    fn inode(&mut self, ino: Ino) -> Result<&mut Inode, Errno> {
        if !self.inodes.contains_key(&ino) {
            let node = self.node_id(ino).ok_or(Errno::STALE)?;
            self.tree.node(node).ok_or(Errno::STALE)?;
            self.inodes.insert(ino, Inode::of(Is::Node(node)));
        }
        self.inodes.get_mut(&ino).ok_or(Errno::STALE)
    }

    /// The node of a number, also of one that is gone.
    fn node(&self, ino: Ino) -> Option<&Node> {
        match self.inodes.get(&ino).map(|inode| &inode.is) {
            Some(Is::Gone(gone)) => Some(&gone.node),
            Some(Is::Fresh(_)) => None,
            Some(Is::Node(_)) | None => self.tree.node(self.node_id(ino)?),
        }
    }

    /// The node of a directory.
    fn directory(&self, ino: Ino) -> Result<NodeId, Errno> {
        let id = self.node_id(ino).ok_or_else(|| match self.inodes.get(&ino) {
            Some(Inode { is: Is::Fresh(_), .. }) => Errno::NOTDIR,
            _ => Errno::NOENT,
        })?;
        let node = self.tree.node(id).ok_or(Errno::NOENT)?;
        if node.directory().is_some() { Ok(id) } else { Err(Errno::NOTDIR) }
    }

    /// What is called `name` in a directory.
    fn child(&self, parent: NodeId, name: &Name) -> Option<Ino> {
        let place = Place { parent, name: name.clone() };
        let fresh = self.fresh.get(&place).copied();
        fresh.or_else(|| self.tree.at_place(&place).map(|node| self.ino(node)))
    }

    /// Looks a name up, and notes that the kernel knows its node from then on.
    pub(crate) fn lookup(&mut self, parent: Ino, name: &OsStr) -> Result<Option<Attr>, Errno> {
        let directory = self.directory(parent)?;
        // A name that no Volume holds is in none.
        let name = match valid(name) {
            Ok(name) => name,
            Err(Errno::NAMETOOLONG) => return Err(Errno::NAMETOOLONG),
            Err(_) => return Ok(None),
        };
        let Some(ino) = self.child(directory, &name) else { return Ok(None) };
        self.known(ino).map(Some)
    }

    /// Notes that the kernel knows a node, and gives what it is.
    pub(crate) fn known(&mut self, ino: Ino) -> Result<Attr, Errno> {
        self.inode(ino)?.lookups += 1;
        self.attr(ino)
    }

    /// Notes that the kernel knows a node that may be gone already.
    pub(crate) fn known_ghost(&mut self, ino: Ino) {
        if let Ok(inode) = self.inode(ino) {
            inode.lookups += 1;
        }
    }

    /// The kernel forgets a node.
    pub(crate) fn forget(&mut self, ino: Ino, lookups: u64) {
        if let Some(inode) = self.inodes.get_mut(&ino) {
            inode.lookups = inode.lookups.saturating_sub(lookups);
            self.sweep(ino);
        }
    }

    /// Drops what is known of a node, when it is nothing of its own.
    fn sweep(&mut self, ino: Ino) {
        let idle = self.inodes.get(&ino).is_some_and(Inode::is_idle);
        // A new file that was never dirty has been given up by whoever made it.
        if idle
            && let Some(inode) = self.inodes.remove(&ino)
            && let Is::Fresh(fresh) = inode.is
        {
            self.fresh.remove(&fresh.at);
        }
    }

    /// Whether the kernel knows a node.
    fn is_known(&self, ino: Ino) -> bool {
        ino == Ino::ROOT || self.inodes.get(&ino).is_some_and(|inode| inode.lookups > 0)
    }

    /// What a node is.
    pub(crate) fn attr(&self, ino: Ino) -> Result<Attr, Errno> {
        let inode = self.inodes.get(&ino);
        let mut attr = match inode.map(|inode| &inode.is) {
            Some(Is::Fresh(fresh)) => Attr {
                ino,
                kind: FileKind::File,
                mode: fresh.mode,
                links: 1,
                uid: fresh.uid,
                gid: fresh.gid,
                size: 0,
                atime: fresh.made,
                mtime: fresh.made,
                ctime: fresh.made,
            },
            _ => attr_of(ino, self.node(ino).ok_or(Errno::STALE)?),
        };
        if attr.kind == FileKind::Directory {
            // New files in it are not in the tree yet.
            let fresh = self.fresh.iter().filter(|(at, _)| Some(at.parent) == self.node_id(ino));
            for made in fresh.filter_map(|(_, ino)| self.made(*ino)) {
                attr.mtime = attr.mtime.max(made);
                attr.ctime = attr.ctime.max(made);
            }
        }
        let Some(inode) = inode else { return Ok(attr) };
        if let (Some((version, time)), Some(node)) = (inode.changed, self.node(ino))
            && node.version == version
        {
            attr.ctime = time;
        }
        if let Some(draft) = &inode.draft {
            attr.size = draft.size();
            attr.mtime = draft.mtime.max(attr.mtime);
            attr.ctime = attr.ctime.max(draft.mtime);
        }
        if inode.kill_ids {
            attr.mode = without_ids(attr.mode);
        }
        attr.atime = inode.atime.unwrap_or(attr.atime);
        Ok(attr)
    }

    /// When a new file was made.
    fn made(&self, ino: Ino) -> Option<Time> {
        match &self.inodes.get(&ino)?.is {
            Is::Fresh(fresh) => Some(fresh.made),
            _ => None,
        }
    }

    /// The kind of a node, and its number.
    fn kind(&self, node: NodeId) -> FileKind {
        self.tree.node(node).map_or(FileKind::File, |node| kind_of(&node.kind))
    }

    /// Opens a directory.
    pub(crate) fn open_directory(&mut self, ino: Ino) -> Result<Handle, Errno> {
        self.directory(ino)?;
        Ok(self.next_handle())
    }

    /// The names of an open directory. They are looked up when it is read from its start,
    /// and stay as they were while it is read on.
    pub(crate) fn names(&mut self, ino: Ino, handle: Handle, afresh: bool) -> Result<Names, Errno> {
        if !afresh && let Some(names) = self.listings.get(&handle) {
            return Ok(names.clone());
        }
        let id = self.directory(ino)?;
        let node = self.tree.node(id).ok_or(Errno::NOENT)?;
        let above = node.places.first().map_or(Ino::ROOT, |place| self.ino(place.parent));
        let own = |name: &'static str, ino| (OsStr::new(name).into(), ino, FileKind::Directory);
        let mut names = vec![own(".", ino), own("..", above)];
        let children = node.directory().into_iter().flat_map(|it| it.iter());
        names.extend(
            children
                .map(|(name, id)| (OsStr::new(name.as_str()).into(), self.ino(id), self.kind(id))),
        );
        let fresh = self.fresh.iter().filter(|(place, _)| place.parent == id);
        let fresh = fresh.filter(|(place, _)| self.tree.at_place(place).is_none());
        names
            .extend(fresh.map(|(place, ino)| {
                (OsStr::new(place.name.as_str()).into(), *ino, FileKind::File)
            }));
        let names = Arc::new(names);
        self.listings.insert(handle, names.clone());
        Ok(names)
    }

    pub(crate) fn close_directory(&mut self, handle: Handle) {
        self.listings.remove(&handle);
    }

    /// The target of a link.
    pub(crate) fn target(&self, ino: Ino) -> Result<Arc<str>, Errno> {
        match &self.node(ino).ok_or(Errno::STALE)?.kind {
            Kind::Symlink(target) => Ok(target.clone()),
            _ => Err(Errno::INVAL),
        }
    }

    /// The extended attributes of a node.
    pub(crate) fn xattrs(&self, ino: Ino) -> impl Iterator<Item = (&str, &[u8])> {
        let xattrs = self.node(ino).and_then(|node| node.attributes.xattrs.as_deref());
        xattrs.into_iter().flatten().map(|(name, value)| (name.as_str(), value.as_slice()))
    }

    /// The content of a file that has no draft.
    pub(crate) fn content(&self, ino: Ino) -> Option<Content> {
        self.node(ino)?.content()
    }

    pub(crate) fn opened(&self, handle: Handle) -> Option<Open> {
        self.opens.get(&handle).copied()
    }

    fn next_handle(&mut self) -> Handle {
        self.last += 1;
        Handle(self.last)
    }

    /// The paths of new files that are not committed.
    pub(crate) fn fresh_paths(&self) -> Vec<TreePath> {
        self.fresh.keys().filter_map(|at| self.path_of(at).ok()).collect()
    }

    /// Whether an entry takes the files in a directory elsewhere, or away.
    pub(crate) fn moves_directory(&self, entry: &Entry) -> bool {
        matches!(entry.op, Op::Rename { .. } | Op::Remove { .. })
            && self.tree.node(entry.node()).is_some_and(|node| node.directory().is_some())
    }

    /// The path of a place.
    pub(crate) fn path_of(&self, at: &Place) -> Result<TreePath, Errno> {
        self.path_at(at.parent, &at.name)
    }

    /// The path of a name in a directory.
    pub(crate) fn path_in(&self, parent: Ino, name: &OsStr) -> Result<TreePath, Errno> {
        self.path_at(self.directory(parent)?, &valid(name)?)
    }

    fn path_at(&self, parent: NodeId, name: &Name) -> Result<TreePath, Errno> {
        let above = self.tree.path_of(parent).ok_or(Errno::NOENT)?;
        Ok(above.join(name))
    }
}

/// A name as a Volume holds it.
fn valid(name: &OsStr) -> Result<Name, Errno> {
    if name.len() > s0_tree::MAX_NAME_BYTES {
        return Err(Errno::NAMETOOLONG);
    }
    let text = std::str::from_utf8(name.as_bytes()).map_err(|_| Errno::ILSEQ)?;
    Name::new(text).map_err(|_| Errno::INVAL)
}

fn kind_of(kind: &Kind) -> FileKind {
    match kind {
        Kind::File(_) => FileKind::File,
        Kind::Directory(_) => FileKind::Directory,
        Kind::Symlink(_) => FileKind::Symlink,
        Kind::Fifo => FileKind::Fifo,
    }
}

fn attr_of(ino: Ino, node: &Node) -> Attr {
    let size = match &node.kind {
        Kind::File(content) => content.size,
        Kind::Symlink(target) => target.len() as u64,
        Kind::Directory(_) | Kind::Fifo => 0,
    };
    let mode = if matches!(node.kind, Kind::Symlink(_)) { 0o777 } else { node.attributes.mode };
    let links = match &node.kind {
        // A directory's links are not counted; programs take one for "not known".
        Kind::Directory(_) => 1,
        _ => u32::try_from(node.places.len()).unwrap_or(u32::MAX),
    };
    let mtime = node.attributes.mtime;
    Attr {
        ino,
        kind: kind_of(&node.kind),
        mode,
        links,
        uid: node.attributes.uid,
        gid: node.attributes.gid,
        size,
        atime: mtime,
        mtime,
        ctime: node.changed,
    }
}

/// A mode after a write by one who does not own the file.
fn without_ids(mode: u32) -> u32 {
    let group_runs = mode & 0o010 != 0;
    mode & !0o4000 & if group_runs { !0o2000 } else { !0 }
}

#[cfg(test)]
mod tests;
