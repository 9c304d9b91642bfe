//! Sandboxes: process trees with a mount namespace of their own, for agents on this machine.
//!
//! A [`Sandboxes`] directory knows which ones there are. Each sandbox is kept by a
//! [warden](warden), a process outside, which starts [`bwrap`](bwrap) and answers on a
//! control socket; [`init`](inside) is the first process inside. Commands come in from
//! outside ([`exec`]), and so do mounts ([`mount`]).
//!
//! ```text
//! s0 sandbox exec ──────────── setns, fork ─────────────┐
//! s0 sandbox-warden ── bwrap ── init (process 1 inside) ├── COMMAND
//!   └ s0 sandbox-mount-helper ── setns, mount           │
//! ```
//!
//! # Invariants
//!
//! - Whoever dies takes what depends on it along. Init ends when its warden does: the kernel
//!   closes the pipe that it reads (the leash), and sends it a signal. With init, the kernel
//!   ends every process inside, and with the last of them every mount goes.
//! - A warden lives exactly as long as the lock of its sandbox is held. It is handed over from
//!   who makes the sandbox, and never free in between.
//! - No process is signalled or entered by its number alone: [`Process`] has its start time, and
//!   is held by a descriptor first.
//! - What a command inside has of the host is what the layout gives it, read-only: no homes,
//!   no sockets in `/run`, no state of s0, no environment with tokens.
//!
//! # What must never enter
//!
//! What is in Volumes: a mount is served by `s0-mount`, and only begun and ended here. A token
//! that opens more than one Volume. Words for the terminal.

mod attend;
mod bwrap;
mod client;
pub mod exec;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod inside;
mod layout;
pub mod mount;
mod mounts;
mod platform;
pub mod protocol;
mod spawn;
mod state;
mod terminal;
pub mod warden;

pub use client::{Control, ControlError};
pub use layout::{PathError, mount_point};
pub use mounts::Find;
pub use platform::Process;
pub use spawn::{SpawnError, Spawned, Wanted, spawn};
pub use state::{Listed, Record, SandboxDir, Sandboxes, StateError};
