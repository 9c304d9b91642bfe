//! The kernel's side of a mount: the protocol of `/dev/fuse`.
//!
//! `fuser`, which speaks it well, answers interrupts with "not implemented", so that a
//! process that waits for a lock could not even be killed, and does not say whether a
//! lock is of `flock` or of `fcntl`. What a mount needs of the protocol is little, so it
//! is here: [`request`] takes requests apart, [`answer`] puts answers together, and
//! [`device`] reads the ones and writes the others.

pub(crate) mod answer;
pub(crate) mod device;
pub(crate) mod request;

/// The version of the protocol that is spoken, of its major version 7.
pub(crate) const MINOR: u32 = 38;
/// How many requests the kernel may have in the air by itself, such as read-ahead.
pub(crate) const MAX_BACKGROUND: u16 = 64;
/// The most bytes that one request reads or writes.
pub(crate) const MAX_IO: u32 = 1024 * 1024;
