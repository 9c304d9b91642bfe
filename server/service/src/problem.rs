//! Why a request is not answered as asked.

use s0_api::sync::SubmitError;
use s0_tree::{Quota, Seq, Usage};
use serde_json::{Value, json};

use crate::journal::StoreError;

/// The reasons, apart from how HTTP says them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Problem {
    BadRequest(String),
    Unauthorized(&'static str),
    Forbidden(&'static str),
    NotFound(&'static str),
    MethodNotAllowed,
    /// One of a documented status and code of its own.
    Documented(u16, &'static str, String),
    Conflict(String, Option<Value>),
    TooLarge(&'static str),
    RangeNotSatisfiable(u64),
    Submit(SubmitError),
    /// The Volume's quota, and how much of it is used.
    NoRoom(Quota, Usage),
    /// The service's own failure. The text is for its log, not for clients.
    Internal(String),
    /// Something that may work later. The text is for the log.
    Unavailable(String),
    /// The service has no room for it. The text is for the log.
    Full(String),
}

impl Problem {
    pub(crate) const FORBIDDEN: Self = Self::Forbidden("insufficient permissions");

    #[expect(clippy::needless_pass_by_value, reason = "it maps errors that it is given")]
    pub(crate) fn bad(why: impl ToString) -> Self {
        Self::BadRequest(why.to_string())
    }

    pub(crate) fn conflict(why: impl Into<String>) -> Self {
        Self::Conflict(why.into(), None)
    }

    /// The same, where what is not found has a name of its own.
    pub(crate) fn not_found_as(self, what: &'static str) -> Self {
        match self {
            Self::NotFound(_) => Self::NotFound(what),
            other => other,
        }
    }

    pub(crate) fn reseed(retained_after: Seq, head: Seq) -> Self {
        let details = json!({
            "reason": "reseed_required",
            "retained_after_seq": retained_after,
            "head_seq": head,
        });
        Self::Conflict("sync reseed required".into(), Some(details))
    }

    pub(crate) fn epoch_changed(epoch: &str, head: Seq) -> Self {
        let details = json!({"reason": "epoch_changed", "epoch": epoch, "head_seq": head});
        Self::Conflict("the Volume's journal is another one".into(), Some(details))
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Failed(why) => Self::Unavailable(why),
            StoreError::Full(why) => Self::Full(why),
            StoreError::Damaged(why) => Self::Internal(why),
        }
    }
}
