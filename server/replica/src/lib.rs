//! The local replica of a Volume: a directory that is kept equal to it.
//!
//! [`engine`] decides and applies; it is a state machine that does no I/O of its
//! own. [`disk`] and [`state`] say what it asks of a disk and of a store.
//! [`shell`] is the real world: files, watches, SQLite.
//!
//! # Invariants
//!
//! - The cursor says what is folded into remote, never what is on disk.
//! - Only a verified operation changes synced, never a scan: an answered upload
//!   of exactly the bytes that were read, an apply whose outcome was looked at,
//!   or the finding that disk and Volume hold the same.
//! - Nothing on disk is replaced or removed without comparing it with synced
//!   first and with what came out afterwards; what differs is the user's.
//! - Staging files are deleted only when their content is known to the Volume
//!   and no program can write to them.
//! - A submission is durable before it is sent, and is sent word for word until
//!   it is answered.
//!
//! # What must never enter
//!
//! Rename over an existing file. Recursive deletion. Clearing and refilling a
//! directory. Following a link. A clock or a thread in the engine.

pub mod disk;
pub mod engine;
mod platform;
pub mod shell;
pub mod state;
pub mod synced;
