//! The HTTP API of the Volume service: wire types, and the typed client.
//!
//! The documented Sandbox0 API (volumes, files, snapshots, sync) is kept as it
//! is, in [`volumes`], [`documented`], [`watch`] and [`tokens`]; what our own replicas need beyond it
//! is in [`sync`], [`history`] and [`frames`].
//!
//! # Invariants
//!
//! - [`documented::journal_entry`] and [`documented::ChangeRequest::action`] are
//!   the only places in which entries and the documented event types meet.
//! - A failure says what caused it and what to do ([`Error`]).
//!
//! # What must never enter
//!
//! Decisions. This room says what messages look like and carries them; what to
//! answer is the service's business, what to send the replica's.

mod client;
pub mod documented;
mod error;
mod event_stream;
pub mod frames;
pub mod history;
pub mod mounts;
pub mod sandboxes;
mod schema;
pub mod sync;
pub mod times;
pub mod tokens;
pub mod volumes;
pub mod watch;

pub use client::{
    Attendance, ByteStream, Client, EventStream, FrameStream, MountReader, MountWriter,
    SubmitFailure, Watch, is_this_machine,
};
pub use error::{Error, ErrorBody};
pub use event_stream::{BadEvent, EventReader};
pub use reqwest::Body;
