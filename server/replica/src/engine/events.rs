//! What goes into the engine, and what comes out of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use s0_api::sync::{Answer, Registered, Submission, SubmitError};
use s0_tree::{Actor, Content, ContentId, Entry, Policy, Quota, Reason, Recipe, Tree, TreePath};

use super::Halt;
use crate::disk::IntentId;
use crate::state::What;

/// What a watcher says of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hint {
    /// A program that wrote to it closed it, or it was moved here.
    Complete,
    /// It was moved here from that path. Both have been told of by themselves.
    MovedFrom(TreePath),
    /// It was created, modified, moved away, removed, or its attributes changed.
    Unsettled,
}

/// What happened outside.
#[derive(Debug)]
pub enum Event {
    /// These documents, and no others, have unsaved text in an editor.
    Unsaved(BTreeSet<TreePath>),
    /// The watcher saw something at these paths.
    Touched(Vec<(TreePath, Hint)>),
    /// Anything below this path may have changed.
    Rescan(TreePath),
    /// The service answered the registration.
    Online(Registered),
    /// The connection is gone.
    Offline,
    /// The Volume's whole tree, and its epoch.
    Tree {
        /// The epoch.
        epoch: String,
        /// The tree.
        tree: Tree,
        /// The entries up to it that were asked for, if they are retained.
        since: Option<Vec<Entry>>,
    },
    /// The next entries of the journal, some with their contents.
    Entries(Vec<(Entry, Option<Arc<[u8]>>)>),
    /// What names all replicas of the Volume can hold, and how much it may hold.
    Terms(Policy, Quota),
    /// The journal cannot be followed from the cursor.
    CannotFollow,
    /// The answer to the submission with this number.
    Answered(u64, Result<Answer, SubmitError>),
    /// Whether the submission was heard is not known.
    Unanswered(u64),
    /// A content arrived for an intent.
    Fetched(IntentId, Fetched),
    /// A content was uploaded, or was not (the file changed, the line broke).
    Uploaded(ContentId, bool),
    /// Who made this entry, if anybody knows.
    Author(s0_tree::Seq, Option<Actor>),
    /// The service heard of the end of a conflict.
    SettlementHeard(String),
}

/// How a content arrived.
#[derive(Debug)]
pub enum Fetched {
    /// In memory.
    Bytes(Arc<[u8]>),
    /// In the slot's download file, complete and checked.
    Part,
    /// Not at all: the disk is full.
    NoRoom,
    /// Not at all.
    Failed,
}

/// What the engine wants from the network, or wants the user to know.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Fetch the Volume's whole tree.
    FetchTree {
        /// With the entries after this seq, if they are retained.
        since: Option<s0_tree::Seq>,
    },
    /// Follow the journal after this seq.
    Follow(s0_tree::Seq),
    /// Send the submission, with these small contents.
    Submit(Arc<Submission>, Vec<(ContentId, Arc<[u8]>)>),
    /// Fetch a content for an intent. Chunks of it may be in the local file.
    Fetch {
        /// The intent.
        slot: IntentId,
        /// The content.
        content: Content,
        /// A local file that may have most of it.
        reuse: TreePath,
        /// What that file held when it was synced.
        held: Option<Content>,
    },
    /// Upload the content of this file, if that is still what it holds.
    Upload {
        /// The file.
        path: TreePath,
        /// The content.
        content: Content,
        /// Its chunks, if they are still known.
        recipe: Option<Arc<Recipe>>,
    },
    /// Find out who wrote the version of a path that came with this entry.
    Author(TreePath, s0_tree::Seq),
    /// Tell the service how far the disk has followed.
    Cursor(s0_tree::Seq),
    /// Tell the service how a conflict ended.
    Settle(String, crate::state::Settlement),
    /// Tell the user.
    Notice(Notice),
}

/// Something that a user may want to know.
#[derive(Debug, Clone, PartialEq)]
pub enum Notice {
    /// A local change is in the Volume.
    Uploaded {
        /// The path.
        path: TreePath,
        /// Whether it was a removal.
        removed: bool,
    },
    /// A change of the Volume is on the disk.
    Applied {
        /// The path.
        path: TreePath,
        /// Whether it was a removal.
        removed: bool,
        /// Who made it.
        actor: Option<Actor>,
        /// What was there before.
        before: Option<What>,
        /// What is there now.
        after: Option<What>,
    },
    /// A conflict was recorded.
    Conflict {
        /// The path.
        path: TreePath,
        /// Why.
        reason: Reason,
    },
    /// A conflict ended.
    Settled {
        /// The path.
        path: TreePath,
        /// How.
        resolution: String,
    },
    /// Something of the user's was put beside its path.
    Kept {
        /// The path that it belongs to.
        path: TreePath,
        /// Where it is now.
        at: TreePath,
    },
    /// A directory that the Volume has not stays, because of what is in it.
    DirectoryKept(TreePath),
    /// A path cannot be synced.
    Problem {
        /// The path.
        path: TreePath,
        /// Why.
        why: String,
    },
    /// Everything stopped.
    Halted(Halt),
    /// Connected, or not.
    Connection(bool),
}
