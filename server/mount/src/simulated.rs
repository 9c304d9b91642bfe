//! What `tests/sim` drives of a mount, and nobody else: the view with its drafts and the
//! changes that it comes to, without a kernel, a clock or a network.

use std::ffi::OsStr;
use std::ops::Range;
use std::sync::Arc;

use s0_tree::{
    AttributeChange, Change, Content, Entry, New, NodeId, Place, Policy, Quota, Reason, RenameHow,
    Time, Tree, TreePath,
};

use crate::draft;
use crate::kernel::answer::{Attr, Errno, FileKind};
use crate::kernel::request::{Handle, Ino};
use crate::view::{self, Committed, View};

/// Why an operation fails, as the kernel is told.
pub type Failure = i32;
/// Whoever was faster made the name.
pub const EXIST: Failure = Errno::EXIST.0;
/// Its directory is gone.
pub const NOT_FOUND: Failure = Errno::NOENT.0;
/// The service cannot be asked, or does not count.
pub const IO: Failure = Errno::IO.0;
/// It cannot be done now.
pub const AGAIN: Failure = Errno::AGAIN.0;
/// A developer saved the file meanwhile, or it is gone.
pub const STALE: Failure = Errno::STALE.0;
/// It took too long.
pub const TIMED_OUT: Failure = Errno::TIMEDOUT.0;
/// The request is wrong.
pub const INVALID: Failure = Errno::INVAL.0;
/// The quota is used up.
pub const NO_ROOM: Failure = Errno::DQUOT.0;

/// The number of the root.
pub const ROOT: u64 = Ino::ROOT.0;

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Its number.
    pub ino: u64,
    /// It is a file, and not a directory or something else.
    pub is_file: bool,
    /// It is a directory.
    pub is_directory: bool,
    /// It has a name.
    pub is_named: bool,
    /// How many bytes it has.
    pub size: u64,
}

impl From<Attr> for Found {
    fn from(attr: Attr) -> Self {
        Self {
            ino: attr.ino.0,
            is_file: attr.kind == FileKind::File,
            is_directory: attr.kind == FileKind::Directory,
            is_named: attr.links > 0,
            size: attr.size,
        }
    }
}

/// Where a part of a file's bytes is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// In the draft.
    Own(Range<u64>),
    /// In a content of the Volume.
    Base(Content, Range<u64>),
    /// Nowhere: zeros.
    Hole(Range<u64>),
}

/// A commit that has begun.
#[derive(Debug, Clone, Copy)]
pub struct Commit(view::Commit);

impl Commit {
    /// How many bytes it has.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.0.size
    }
}

/// Where a name is to be made.
#[derive(Debug, Clone)]
pub struct Slot(Place);

/// An operation on names or attributes. Directories are numbers.
#[derive(Debug, Clone)]
pub enum Ask {
    /// `mkdir`.
    MakeDirectory(u64, String),
    /// `symlink`.
    MakeLink(u64, String, String),
    /// `unlink`; with `true`, `rmdir`.
    Remove(u64, String, bool),
    /// `renameat2`.
    Rename((u64, String), (u64, String), RenameHow),
    /// `link`: the file, and its new name.
    Link(u64, (u64, String)),
    /// `chmod`.
    Mode(u64, u32),
}

/// What an operation comes to.
#[derive(Debug, Clone)]
pub enum Asked {
    /// A change of the journal.
    Change(Box<Change>),
    /// A file must be committed first.
    Commit(u64),
    /// It is done; the journal knows nothing of it.
    Done,
}

/// What a refusal is to a program.
#[must_use]
pub fn failure_of(reason: Reason) -> Failure {
    crate::names::errno_of(reason).0
}

/// The files of a mount, as they are shown.
#[derive(Debug)]
pub struct Files(View);

type Done<T> = Result<T, Failure>;

fn failed(errno: Errno) -> Failure {
    errno.0
}

impl Files {
    /// Those of a tree, as the mount with this id shows them.
    #[must_use]
    pub fn new(tree: Tree, session: Arc<str>) -> Self {
        Self(View::new(tree, session))
    }

    /// The tree, as far as the journal is folded.
    #[must_use]
    pub fn tree(&self) -> &Tree {
        self.0.tree()
    }

    /// Folds an entry in.
    ///
    /// # Errors
    /// It does not fit.
    pub fn fold(&mut self, entry: &Entry) -> Result<(), String> {
        self.0.fold(entry).map(drop).map_err(|misfit| misfit.to_string())
    }

    /// What the Volume takes.
    pub fn set_terms(&mut self, policy: Policy, quota: Quota) {
        self.0.set_terms(policy, quota);
    }

    /// The number of a node.
    #[must_use]
    pub fn ino(&self, node: NodeId) -> u64 {
        self.0.ino(node).0
    }

    /// Looks a name up; the kernel knows its node from then on.
    ///
    /// # Errors
    /// As the kernel is told.
    pub fn lookup(&mut self, parent: u64, name: &str) -> Done<Option<Found>> {
        let found = self.0.lookup(Ino(parent), OsStr::new(name)).map_err(failed)?;
        Ok(found.map(Found::from))
    }

    /// The kernel forgets a node that it looked up so often.
    pub fn forget(&mut self, ino: u64, lookups: u64) {
        self.0.forget(Ino(ino), lookups);
    }

    /// What a node is.
    ///
    /// # Errors
    /// As the kernel is told.
    pub fn stat(&self, ino: u64) -> Done<Found> {
        self.0.attr(Ino(ino)).map(Found::from).map_err(failed)
    }

    /// The names in a directory.
    ///
    /// # Errors
    /// As the kernel is told.
    pub fn list(&mut self, ino: u64) -> Done<Vec<(String, u64)>> {
        let handle = self.0.open_directory(Ino(ino)).map_err(failed)?;
        let names = self.0.names(Ino(ino), handle, true).map_err(failed)?;
        self.0.close_directory(handle);
        // The directory itself, and the one above.
        let names = names.iter().skip(2);
        let names = names.map(|(name, ino, _)| (name.to_string_lossy().into_owned(), ino.0));
        let mut names: Vec<_> = names.collect();
        names.sort_unstable();
        Ok(names)
    }

    /// The target of a link.
    ///
    /// # Errors
    /// As the kernel is told.
    pub fn target(&self, ino: u64) -> Done<Arc<str>> {
        self.0.target(Ino(ino)).map_err(failed)
    }

    /// Where a name is to be made, if it can be.
    ///
    /// # Errors
    /// As the kernel is told.
    pub fn may_make(&self, parent: u64, name: &str) -> Done<Slot> {
        self.0.may_make(Ino(parent), OsStr::new(name)).map(Slot).map_err(failed)
    }

    /// Whether a registered replica could not hold this name.
    #[must_use]
    pub fn is_refused(&self, slot: &Slot) -> bool {
        self.0.is_refused(&slot.0)
    }

    /// What is sent of a name that is refused, so that it is recorded.
    ///
    /// # Errors
    /// As the kernel is told.
    pub fn ask_refused(&self, slot: &Slot) -> Done<Change> {
        self.0.ask_refused(&slot.0).map_err(failed)
    }

    /// The path of a name that is to be made.
    ///
    /// # Errors
    /// As the kernel is told.
    pub fn path_of(&self, slot: &Slot) -> Done<TreePath> {
        self.0.path_of(&slot.0).map_err(failed)
    }

    /// Makes a file here; with `cut` it is empty also where another makes one.
    pub fn make(&mut self, slot: Slot, cut: bool, now: Time) -> u64 {
        let ino = self.0.make(slot.0, (0o644, cut), (0, 0), now);
        // As the kernel, which is told of it.
        let _ = self.0.known(ino);
        ino.0
    }

    /// The paths of files that were made here and are not committed.
    #[must_use]
    pub fn made(&self) -> Vec<TreePath> {
        let mut made = self.0.fresh_paths();
        made.sort_unstable();
        made
    }

    /// Whether an entry takes the files in a directory elsewhere, or away.
    #[must_use]
    pub fn moves_directory(&self, entry: &Entry) -> bool {
        self.0.moves_directory(entry)
    }

    /// Opens a file.
    ///
    /// # Errors
    /// As the kernel is told.
    pub fn open(&mut self, ino: u64, append: bool) -> Done<u64> {
        self.0.open(Ino(ino), append).map(|handle| handle.0).map_err(failed)
    }

    /// Closes it for good.
    pub fn close(&mut self, handle: u64) {
        self.0.close(Handle(handle));
    }

    /// Writes to an open file; where.
    ///
    /// # Errors
    /// As the kernel is told.
    pub fn write(&mut self, handle: u64, offset: u64, data: &[u8], now: Time) -> Done<u64> {
        self.0.write(Handle(handle), offset, data, false, now).map_err(failed)
    }

    /// Cuts or extends a file.
    ///
    /// # Errors
    /// As the kernel is told.
    pub fn truncate(&mut self, ino: u64, size: u64, now: Time) -> Done<()> {
        self.0.truncate(Ino(ino), size, false, now).map_err(failed)
    }

    /// Where the bytes of a file's beginning are.
    ///
    /// # Errors
    /// As the kernel is told.
    pub fn pieces(&self, ino: u64, size: u64) -> Done<Vec<Piece>> {
        let pieces = self.0.pieces(Ino(ino), 0..size).map_err(failed)?;
        let of = |piece| match piece {
            draft::Piece::Own(range) => Piece::Own(range),
            draft::Piece::Base(content, range) => Piece::Base(content, range),
            draft::Piece::Hole(range) => Piece::Hole(range),
        };
        Ok(pieces.into_iter().map(of).collect())
    }

    /// Reads bytes of a file's draft.
    ///
    /// # Errors
    /// As the kernel is told.
    pub fn read_own(&self, ino: u64, offset: u64, into: &mut [u8]) -> Done<()> {
        self.0.read_own(Ino(ino), offset, into).map_err(failed)
    }

    /// The files that have something to commit, in order.
    #[must_use]
    pub fn dirty(&self) -> Vec<u64> {
        let mut dirty: Vec<u64> = self.0.dirty().into_iter().map(|ino| ino.0).collect();
        dirty.sort_unstable();
        dirty
    }

    /// Whether a file has something to commit.
    #[must_use]
    pub fn is_dirty(&self, ino: u64) -> bool {
        self.0.is_dirty(Ino(ino))
    }

    /// Whether all that there is to commit of it is that it is empty.
    #[must_use]
    pub fn is_only_empty(&self, ino: u64) -> bool {
        self.0.is_only_empty(Ino(ino))
    }

    /// Begins to commit a file.
    pub fn begin_commit(&mut self, ino: u64) -> Option<Commit> {
        self.0.begin_commit(Ino(ino)).map(Commit)
    }

    /// The change that commits it.
    ///
    /// # Errors
    /// As the kernel is told.
    pub fn commit_change(
        &mut self,
        ino: u64,
        commit: &Commit,
        content: Content,
    ) -> Done<Option<Change>> {
        self.0.commit_change(Ino(ino), &commit.0, content).map_err(failed)
    }

    /// The change that sets its time.
    #[must_use]
    pub fn time_change(&self, ino: u64, commit: &Commit) -> Option<Change> {
        self.0.time_change(Ino(ino), &commit.0)
    }

    /// A commit ended as a node, or without one in a recorded conflict.
    pub fn end_commit(
        &mut self,
        ino: u64,
        commit: &Commit,
        content: Content,
        node: Option<NodeId>,
    ) -> bool {
        let ended = node.map_or(Committed::Conflict, Committed::As);
        self.0.end_commit(Ino(ino), &commit.0, content, ended)
    }

    /// Nobody waits for a commit any more.
    pub fn give_up_commit(&mut self, ino: u64) {
        self.0.give_up_commit(Ino(ino));
    }

    /// Nothing came of a commit.
    pub fn abandon_commit(&mut self, ino: u64) {
        self.0.abandon_commit(Ino(ino));
    }

    /// What an operation comes to.
    ///
    /// # Errors
    /// As the kernel is told.
    pub fn ask(&mut self, ask: &Ask) -> Done<Asked> {
        let asked = match ask {
            Ask::MakeDirectory(parent, name) => {
                let how = (Some(0o755), (0, 0));
                self.0.ask_make(Ino(*parent), OsStr::new(name), New::Directory, how)
            }
            Ask::MakeLink(parent, name, target) => {
                let what = New::Symlink { target: target.as_str().into() };
                self.0.ask_make(Ino(*parent), OsStr::new(name), what, (None, (0, 0)))
            }
            Ask::Remove(parent, name, directory) => {
                self.0.ask_remove(Ino(*parent), OsStr::new(name), *directory)
            }
            Ask::Rename((from, name), (to, new), how) => {
                let (from, to) = ((Ino(*from), OsStr::new(name)), (Ino(*to), OsStr::new(new)));
                self.0.ask_rename(from, to, *how)
            }
            Ask::Link(ino, (parent, name)) => {
                self.0.ask_link(Ino(*ino), Ino(*parent), OsStr::new(name))
            }
            Ask::Mode(ino, mode) => self.0.ask_attributes(Ino(*ino), AttributeChange::mode(*mode)),
        };
        asked.map_err(failed).map(|asked| match asked {
            view::Asked::Change(change) => Asked::Change(change),
            view::Asked::Commit(ino) => Asked::Commit(ino.0),
            view::Asked::Done => Asked::Done,
        })
    }
}
