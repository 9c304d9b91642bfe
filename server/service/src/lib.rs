//! The Volume service: journal, contents, snapshots, streams, HTTP.
//!
//! A Volume is a journal. This room keeps journals and the contents that they
//! name, admits changes into them, and lets others read along. What a change
//! does to a tree is decided in `s0-tree`; how messages look is said in
//! `s0-api`; this room decides who may ask, in which order things happen, and
//! that what was answered is still there after the power went.
//!
//! # Invariants
//!
//! - One task per hot Volume admits changes, on a [`ledger::Ledger`]. A change
//!   is answered after the transaction with its entries is on disk, and nobody
//!   sees an entry before that.
//! - An append is a compare-and-set on the head: entries, small contents,
//!   replica rows, request records and conflicts commit together or not at all.
//! - A large content is durable before the entry that names it.
//! - A content is readable only through a Volume that names it. A Volume of
//!   another team answers exactly as one that does not exist.
//!
//! # What must never enter
//!
//! Decisions about trees, the state of a developer's disk, editors. SQLite has
//! one module, and the operating system another; nothing else names them.

mod attended;
mod backup;
mod caller;
mod connections;
pub mod contents;
pub mod disk;
mod fsck;
mod holdings;
mod http;
pub mod journal;
pub mod ledger;
mod metrics;
mod mounts;
mod platform;
mod problem;
mod serve;
mod service;
#[doc(hidden)]
pub mod simulated;
pub mod sqlite;
mod volume;

pub use backup::{Backup, Copied, backup, restore};
pub use fsck::{Check, Finding, Kind, Report, fsck};
#[cfg(fuzzing)]
pub use http::fuzzing;
pub use serve::{Config, Running, SERVICE_FILE, ServeError, ServiceFile, TOKEN_FILE, serve};
