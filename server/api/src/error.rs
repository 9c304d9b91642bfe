//! What can go wrong between client and service.

use s0_tree::Seq;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The documented error envelope's inner part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorBody {
    /// `bad_request`, `unauthorized`, `forbidden`, `not_found`, `conflict`,
    /// `quota_exceeded`, `unavailable`, `internal_error`.
    pub code: String,
    /// For people.
    pub message: String,
    /// More, where documented.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Value>,
}

/// Why a request was not answered as asked.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// The token is missing, wrong, expired, or does not allow this.
    #[error(
        "the service refused the token: {0}. Use the one in the service's token file, or one that may do this"
    )]
    Unauthorized(String),
    /// The service does not know it, or another team owns it.
    #[error("the service does not know what was asked for: {0}")]
    NotFound(String),
    /// It does not go with what is there.
    #[error("the service refused it: {message}")]
    Conflict {
        /// Why.
        message: String,
        /// More, where documented.
        details: Option<Value>,
    },
    /// The cursor is below the retained journal.
    #[error(
        "the journal is retained only after entry {retained_after}; start from the Volume's current tree"
    )]
    ReseedRequired {
        /// The floor.
        retained_after: Seq,
        /// The head.
        head: Seq,
    },
    /// The Volume's journal is another one than the reader knew.
    #[error("the Volume's journal was replaced (epoch {epoch}); compare with its current tree")]
    EpochChanged {
        /// The epoch now.
        epoch: String,
        /// The head now.
        head: Seq,
    },
    /// The request itself is wrong.
    #[error("the service did not accept the request: {0}")]
    BadRequest(String),
    /// The service cannot be reached, or did not answer in time.
    #[error("the service is not available: {0}. Check that it runs, and its address")]
    Unavailable(String),
    /// The Volume's quota is used up.
    #[error("{0}. Remove something, or give the Volume a larger quota")]
    NoRoom(String),
    /// The service failed.
    #[error("the service failed: {0}. Its log says more")]
    Server(String),
    /// What was answered is not what the API says.
    #[error("the answer cannot be understood: {0}. Is this an s0 service, and of this version?")]
    Protocol(String),
}

impl Error {
    /// Whether the same request may succeed later without anything else done.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Server(_))
    }

    pub(crate) fn from_answer(status: u16, body: &[u8]) -> Self {
        let Some(ErrorBody { message, details, .. }) = error_body(body) else {
            let start: String = String::from_utf8_lossy(body).chars().take(200).collect();
            let said = format!("status {status}: {start}");
            return match status {
                401 | 403 => Self::Unauthorized(said),
                404 => Self::NotFound(said),
                502..=504 => Self::Unavailable(said),
                500.. => Self::Server(said),
                _ => Self::Protocol(said),
            };
        };
        match status {
            401 | 403 => Self::Unauthorized(message),
            404 => Self::NotFound(message),
            409 => Self::from_conflict(message, details),
            429 | 502 | 503 => Self::Unavailable(message),
            507 => Self::NoRoom(message),
            400..500 => Self::BadRequest(message),
            _ => Self::Server(message),
        }
    }

    fn from_conflict(message: String, details: Option<Value>) -> Self {
        let seq = |key: &str| {
            Seq(details.as_ref().and_then(|all| all.get(key)).and_then(Value::as_u64).unwrap_or(0))
        };
        let text =
            |key: &str| details.as_ref().and_then(|all| all.get(key)).and_then(Value::as_str);
        match text("reason") {
            Some("reseed_required") => Self::ReseedRequired {
                retained_after: seq("retained_after_seq"),
                head: seq("head_seq"),
            },
            Some("epoch_changed") => Self::EpochChanged {
                epoch: text("epoch").unwrap_or_default().into(),
                head: seq("head_seq"),
            },
            _ => Self::Conflict { message, details },
        }
    }
}

/// The error part of an envelope.
pub(crate) fn error_body(body: &[u8]) -> Option<ErrorBody> {
    #[derive(Deserialize)]
    struct Envelope {
        error: ErrorBody,
    }
    serde_json::from_slice::<Envelope>(body).ok().map(|envelope| envelope.error)
}

impl From<reqwest::Error> for Error {
    fn from(error: reqwest::Error) -> Self {
        // The outermost layer says only where it happened; its causes say what.
        let mut said = String::new();
        let mut cause: Option<&dyn std::error::Error> = Some(&error);
        while let Some(error) = cause {
            said = error.to_string();
            cause = error.source();
        }
        let late = if error.is_timeout() { "no answer in time: " } else { "" };
        Self::Unavailable(format!("{late}{said}"))
    }
}
