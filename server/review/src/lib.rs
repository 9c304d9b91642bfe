//! The review of what sandboxes wrote: applied at once, looked at later.
//!
//! The caller tells a [`Review`] what happened at each path: that a sandbox's
//! write was applied, or that the user, or anything else on this machine, edited.
//! The review knows, for each line that differs from what was last reviewed,
//! whose write it is; it shows the differences as hunks; and it says what Keep
//! and Revert come to. Keep moves what counts as reviewed. Revert answers with
//! [`Action`]s, which the caller carries out as ordinary local writes, each with a
//! check of what it expects to find, and then tells as any edit.
//!
//! # Invariants
//!
//! - What the user does counts as reviewed. No Revert takes away a line that the
//!   user wrote, and none brings back a line that the user removed.
//! - A revert never changes the review. What was really written does, when it is
//!   told.
//! - A decision names the version that it was made on, and is refused when that
//!   has moved.
//! - Texts are kept byte by byte: line ends, a missing last one, a byte order mark.
//! - What is beyond a limit is reviewed as a whole, or counted as not listed. It is
//!   never left out without a word.
//! - The reviewed text of a file under review is in the state, so that no revert of
//!   a text needs the network.
//!
//! # What must never enter
//!
//! Files, sockets, clocks, randomness, threads, async. Nothing here writes to a
//! disk or holds an incoming write back: a review is no staging area.

mod choice;
mod compare;
mod hunk;
mod item;
mod keep;
mod lines;
mod record;
mod records;
mod revert;
mod review;
mod settle;
mod text;

pub use choice::{Left, Part, Refused, Selection, Why};
pub use hunk::{Hunk, HunkId, HunkKind, Version};
pub use item::{Body, Change, Item, Observed, Reviewed, State, Write};
pub use records::{FORMAT, MAX_ITEMS, MAX_REVIEWED, MAX_TOTAL_BYTES};
pub use revert::{Action, Reversion};
pub use review::Review;
pub use text::{MAX_TEXT_BYTES, MAX_TEXT_LINES};
