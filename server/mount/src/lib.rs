//! The FUSE mount of a Volume: a sandbox sees an ordinary directory.
//!
//! The whole tree is in memory, folded by `s0-tree` as everywhere, so that looking never
//! crosses the network; what changes is told by the service, and the kernel's caches are
//! kept until then. What is written stays in a draft until the file is closed or synced,
//! and is one entry of the journal then.
//!
//! # Invariants
//!
//! - What the journal has is only told by the journal: an answer is given when its entries
//!   are folded, and the kernel is told of what others did before the service is told that
//!   this mount has seen it.
//! - `close` and `fsync` return when the entry is committed, and every other mount has seen
//!   it or does not count any more.
//! - No request waits without a bound, except for a lock that somebody holds; and that can
//!   be interrupted.
//! - A mount that has not heard the service for two seconds goes by nothing that it knows:
//!   it answers with errors, and the kernel's caches are dropped.
//! - What is here and not committed is never written over by what comes in.
//!
//! # What must never enter
//!
//! Decisions about the tree (they are `s0-tree`'s), a path resolved on the local disk but
//! the mount point itself, the writeback cache of the kernel.

mod cache;
mod commit;
mod contents;
mod core;
mod draft;
mod echo;
#[cfg(fuzzing)]
pub mod fuzzing;
mod kernel;
mod link;
mod locks;
mod names;
pub mod platform;
mod ranges;
mod reach;
mod reserves;
mod serve;
#[doc(hidden)]
pub mod simulated;
mod view;

pub use crate::core::{MountError, Mounted, Options, Performer, mount};
pub use crate::echo::perform_all;
pub use crate::reach::Reach;
