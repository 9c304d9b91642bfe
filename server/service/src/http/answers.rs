//! What handlers answer, and how HTTP says it.

use aide::OperationOutput;
use aide::generate::GenContext;
use aide::openapi::{Operation, Response as Described};
use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use s0_api::ErrorBody;
use s0_api::sync::SubmitError;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;
use tracing::{error, warn};

use super::document::{self, failures};
use crate::journal::StoreError;
use crate::problem::Problem;

/// `{"success": true, "data": …}`
pub(super) struct Data<T>(pub(super) T);

/// The same with the status 201.
pub(super) struct Made<T>(pub(super) T);

pub(super) type Told<T> = Result<Data<T>, Problem>;
pub(super) type MadeOf<T> = Result<Made<T>, Problem>;
/// An answer without an envelope.
pub(super) type Answered = Result<Response, Problem>;

pub(super) fn ok<T>(data: T) -> Told<T> {
    Ok(Data(data))
}

fn envelope(status: StatusCode, data: &impl Serialize) -> Response {
    #[derive(Serialize)]
    struct Envelope<'a, T> {
        success: bool,
        data: &'a T,
    }
    (status, axum::Json(Envelope { success: true, data })).into_response()
}

impl<T: Serialize> IntoResponse for Data<T> {
    fn into_response(self) -> Response {
        envelope(StatusCode::OK, &self.0)
    }
}

impl<T: Serialize> IntoResponse for Made<T> {
    fn into_response(self) -> Response {
        envelope(StatusCode::CREATED, &self.0)
    }
}

impl<T: JsonSchema> OperationOutput for Data<T> {
    type Inner = T;
    fn inferred_responses(
        ctx: &mut GenContext,
        _: &mut Operation,
    ) -> Vec<(Option<u16>, Described)> {
        vec![(Some(200), document::success::<T>(ctx))]
    }
}

impl<T: JsonSchema> OperationOutput for Made<T> {
    type Inner = T;
    fn inferred_responses(
        ctx: &mut GenContext,
        _: &mut Operation,
    ) -> Vec<(Option<u16>, Described)> {
        vec![(Some(201), document::success::<T>(ctx))]
    }
}

/// What every handler may answer that can fail at all.
impl OperationOutput for Problem {
    type Inner = ErrorBody;
    fn inferred_responses(
        ctx: &mut GenContext,
        _: &mut Operation,
    ) -> Vec<(Option<u16>, Described)> {
        failures(ctx, &[500, 503])
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        use StatusCode as S;
        let mut headers = HeaderMap::new();
        let (status, code, message, details) = match self {
            Self::BadRequest(why) => (S::BAD_REQUEST, "bad_request", why, None),
            Self::Unauthorized(why) => (S::UNAUTHORIZED, "unauthorized", why.into(), None),
            Self::Forbidden(why) => (S::FORBIDDEN, "forbidden", why.into(), None),
            Self::NotFound(what) => (S::NOT_FOUND, "not_found", what.into(), None),
            Self::MethodNotAllowed => {
                (S::METHOD_NOT_ALLOWED, "bad_request", "method not allowed".into(), None)
            }
            Self::Documented(status, code, why) => {
                (S::from_u16(status).unwrap_or(S::INTERNAL_SERVER_ERROR), code, why, None)
            }
            Self::Conflict(why, details) => (S::CONFLICT, "conflict", why, details),
            Self::TooLarge(why) => (S::PAYLOAD_TOO_LARGE, "bad_request", why.into(), None),
            Self::RangeNotSatisfiable(size) => {
                if let Ok(value) = format!("bytes */{size}").parse() {
                    headers.insert(header::CONTENT_RANGE, value);
                }
                let why = format!("the range is outside the {size} bytes");
                (S::RANGE_NOT_SATISFIABLE, "bad_request", why, None)
            }
            Self::NoRoom(quota, used) => {
                let details = json!({
                    "reason": "quota_exceeded",
                    "quota_bytes": quota.bytes, "used_bytes": used.bytes,
                    "quota_inodes": quota.inodes, "used_inodes": used.inodes,
                });
                let used = quota.in_words(used);
                let why = format!("the Volume has no room for it: {used} are used");
                (S::INSUFFICIENT_STORAGE, "quota_exceeded", why, Some(details))
            }
            Self::Submit(refusal) => {
                let (status, code) = match refusal {
                    SubmitError::UnknownReplica => (S::NOT_FOUND, "not_found"),
                    SubmitError::Invalid { .. } => (S::BAD_REQUEST, "bad_request"),
                    _ => (S::CONFLICT, "conflict"),
                };
                (status, code, refusal.to_string(), serde_json::to_value(refusal).ok())
            }
            Self::Internal(why) => {
                error!(why, "a request failed");
                let said = "internal server error".into();
                (S::INTERNAL_SERVER_ERROR, "internal_error", said, None)
            }
            Self::Unavailable(why) => {
                warn!(why, "a request could not be done");
                let said = "the store is not available; try again".into();
                (S::SERVICE_UNAVAILABLE, "unavailable", said, None)
            }
            Self::Full(why) => {
                warn!(why, "there is no room for what a request brings");
                let said = "the service's disk is full; nothing was changed. Make room on it, and \
                            try again";
                (S::SERVICE_UNAVAILABLE, "unavailable", said.into(), None)
            }
        };
        let error = ErrorBody { code: code.into(), message, details };
        let body = json!({"success": false, "error": error});
        (status, headers, axum::Json(body)).into_response()
    }
}

/// A body that arrives as it is made.
pub(super) fn streamed(
    content_type: &'static str,
    body: impl Stream<Item = Result<Bytes, StoreError>> + Send + 'static,
) -> Response {
    let body = body.inspect(|piece| {
        if let Err(error) = piece {
            error!(%error, "an answer broke off");
        }
    });
    let headers = [(header::CONTENT_TYPE, content_type), (header::CACHE_CONTROL, "no-store")];
    (headers, Body::from_stream(body)).into_response()
}
