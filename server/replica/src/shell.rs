//! The thin shell around the engine: a real disk, real ignore rules, a real
//! state database and a watcher. It does what it is told and decides nothing
//! about syncing.

pub mod access;
pub mod disk;
#[cfg(fuzzing)]
pub mod fuzzing;
mod git_index;
pub mod guarded;
mod listing;
mod network;
pub mod own;
mod pattern;
mod place;
mod probe;
mod root;
pub mod rules;
pub mod run;
pub mod store;
pub mod watch;
