//! The tree of a Volume, and everything that can be decided about it by thinking alone.
//!
//! A Volume is a journal; its tree is the [fold](fold()) of that journal. This
//! crate holds the names, the operations, the journal entries, the fold, the
//! admission of changes, the difference of two trees, the past of a tree and the
//! description of contents. The service, the replica, the mount and the simulator
//! all call the same code, which is why they agree.
//!
//! # Invariants
//!
//! - [`fold()`] is the only writer of a [`Tree`]. It is total and deterministic:
//!   the same entries make the same tree everywhere, and an entry that does not
//!   fit changes nothing.
//! - A [`NodeId`] is the seq of the entry that created the node, so ids are
//!   never reused within a journal. A node's version is the seq that last
//!   changed it.
//! - Cloning a [`Tree`] is O(1): a snapshot, a long read and a rollback are clones.
//! - Whatever depends on the tree is a conflict of one change; only what would
//!   be wrong in any tree is invalid.
//!
//! # What must never enter
//!
//! Files, sockets, clocks, randomness, threads, async. Readers may be passed in
//! (contents are described from them); none is ever opened here. Paths and names
//! are validated on construction and on deserialisation, so no other room checks
//! them again.

mod admission;
mod batch;
mod change;
mod checkpoint;
mod content;
mod diff;
mod digest;
mod entry;
mod fold;
mod names;
mod node;
mod past;
mod path;
mod quota;
mod text;
mod trail;
mod tree;

pub use admission::{Accepted, Reason, Refusal, admit};
pub use batch::{Batch, Origin, Verdict, admit_batch};
pub use change::{Action, Change, Expected, New, News, Touch};
pub use checkpoint::{BadCheckpoint, MAX_CHECKPOINT_BYTES};
pub use content::{
    BadRecipe, Chunk, ChunkRef, Chunker, Content, ContentBuilder, ContentId, Cutter, Hash,
    INLINE_LIMIT, MAX_CHUNK, Recipe, describe,
};
pub use diff::{Difference, diff, restore};
pub use digest::{digest, digest_of};
pub use entry::{Actor, Entry, FORMAT, Op, RenameHow, RequestId, Source};
pub use fold::{Misfit, fold};
pub use names::{Issue, IssueCode, Policy, comparison_key, portable_issues};
pub use node::{
    AttributeChange, Attributes, Kind, MAX_XATTR_BYTES, Node, NodeId, Place, Seq, Time,
};
pub use past::Past;
pub use path::{InvalidPath, MAX_NAME_BYTES, MAX_PATH_BYTES, Name, TreePath};
pub use quota::{Quota, Usage};
pub use trail::{Made, PathChange, PathKind, PathState, PathVersion, Trail};
pub use tree::Tree;
