//! What `tests/fuzz` reaches of a host, and nobody else.

use crate::diff3;

/// One text of three, and how many overlaps it has.
#[must_use]
pub fn merge(base: Option<&str>, mine: &str, theirs: &str) -> (String, usize) {
    let merged = diff3::merge(base, mine, theirs);
    (merged.text, merged.overlaps)
}
