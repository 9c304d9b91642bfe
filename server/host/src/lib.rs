//! Hosts: one process per workspace and machine that runs its replica.
//!
//! A [`StateDir`] knows what is attached on this machine. A [host](host::run)
//! holds the lock of one attachment, runs its replica, and answers on a control
//! socket; a [`Control`] asks it. Command line and editors are guests: what they
//! show and change goes over that socket.
//!
//! # Invariants
//!
//! - One host per replica: a lock of the state directory, and one of the root,
//!   are held as long as it runs. The kernel takes them from a process that dies.
//! - State, socket, log and tokens are the user's alone.
//! - Tokens are never logged and never leave over the control socket.
//!
//! # What must never enter
//!
//! Decisions about syncing; they are the replica's. Words for the terminal; they
//! are the command line's.

mod client;
mod conflicts;
mod contents;
mod control;
mod diff3;
#[cfg(fuzzing)]
pub mod fuzzing;
mod holds;
pub mod host;
mod merge;
mod platform;
pub mod protocol;
mod review;
mod spawn;
mod state;

pub use client::{Content, Control, ControlError, Feed};
pub use host::{HostError, run};
pub use platform::{detach, host_name};
pub use spawn::{SpawnError, spawn, tail};
pub use state::{
    Attachment, AttachmentDir, InitFrom, PauseOn, Secret, ServiceAddress, ServicePlace, StateDir,
    StateError, StateLock, Token, canonical, service_runs,
};
