//! The HTTP API: routes, envelopes, tokens.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{DefaultBodyLimit, FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use bytes::Bytes;
use s0_api::ErrorBody;
use s0_api::sync::SubmitError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tracing::{error, warn};

use crate::problem::Problem;
use crate::service::{Caller, Service};

mod archive;
mod changes;
mod conflicts;
mod contents;
mod events;
mod files;
mod history;
mod ranges;
mod replicas;
mod snapshots;
mod upload;
mod volumes;

/// The largest body of a request without bytes of files.
const SMALL: usize = 1024 * 1024;
/// The largest body of a request with lists of contents.
const LIST: usize = 32 * 1024 * 1024;
/// The largest body of a request with changes and the contents that they bring.
const LARGE: usize = 160 * 1024 * 1024;

type State = axum::extract::State<Arc<Service>>;
type Answered = Result<Response, Problem>;

/// All routes.
pub(crate) fn routes(service: Arc<Service>) -> Router {
    let limit = DefaultBodyLimit::max;
    let volume = Router::new()
        .route("/", get(volumes::get).delete(volumes::delete))
        .route("/fork", post(volumes::fork))
        .route(
            "/files",
            get(files::read)
                .post(files::write)
                .delete(files::remove)
                .layer(DefaultBodyLimit::disable()),
        )
        .route("/files/stat", get(files::stat))
        .route("/files/list", get(files::list))
        .route("/files/move", post(files::rename))
        .route("/snapshots", get(snapshots::list).post(snapshots::create))
        .route("/snapshots/{snapshot}", get(snapshots::get).delete(snapshots::delete))
        .route("/snapshots/{snapshot}/restore", post(snapshots::restore))
        .route("/sync/bootstrap", post(archive::bootstrap))
        .route("/sync/bootstrap/archive", get(archive::archive))
        .route("/sync/changes", get(changes::list))
        .route("/sync/replay-payload", get(changes::payload))
        .route("/sync/conflicts", get(conflicts::list))
        .route("/sync/conflicts/{conflict}", put(conflicts::set))
        .route(
            "/sync/replicas/{replica}",
            put(replicas::register).get(replicas::get).delete(replicas::unregister),
        )
        .route("/sync/replicas/{replica}/cursor", put(replicas::set_cursor))
        .route("/sync/replicas/{replica}/changes", post(upload::append).layer(limit(LARGE)))
        .route("/sync/replicas/{replica}/submit", post(replicas::submit).layer(limit(LARGE)))
        .route("/sync/events", get(events::events))
        .route("/sync/history", get(history::list))
        .route("/sync/history/version", get(history::version))
        .route("/sync/history/restore", post(history::restore))
        .route("/sync/tree", get(contents::tree))
        .route("/sync/contents", post(contents::upload).layer(DefaultBodyLimit::disable()))
        .route("/sync/contents/missing", post(contents::missing).layer(limit(LIST)))
        .route("/sync/contents/fetch", post(contents::fetch).layer(limit(LIST)))
        .route("/sync/contents/{id}", get(contents::read));
    Router::new()
        .route("/api/v1/sandboxvolumes", get(volumes::list).post(volumes::create))
        .nest("/api/v1/sandboxvolumes/{volume}", volume)
        .route("/healthz", get(async || axum::Json(json!({"status": "ok"}))))
        .method_not_allowed_fallback(async || Problem::MethodNotAllowed)
        .fallback(async || Problem::NotFound("not found"))
        .layer(limit(SMALL))
        .with_state(service)
}

/// The longest id that a client may choose. Ids are in every entry that they made.
const MAX_ID: usize = 256;

/// Refuses an id that is too long.
fn check_id(what: &str, id: &str) -> Result<(), Problem> {
    if id.len() > MAX_ID {
        return Err(Problem::BadRequest(format!("{what} has more than {MAX_ID} bytes")));
    }
    Ok(())
}

/// `{"success": true, "data": …}`
fn envelope(status: StatusCode, data: &impl Serialize) -> Response {
    #[derive(Serialize)]
    struct Envelope<'a, T> {
        success: bool,
        data: &'a T,
    }
    (status, axum::Json(Envelope { success: true, data })).into_response()
}

fn ok(data: &impl Serialize) -> Answered {
    Ok(envelope(StatusCode::OK, data))
}

fn made(data: &impl Serialize) -> Answered {
    Ok(envelope(StatusCode::CREATED, data))
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
            Self::Conflict(why, details) => (S::CONFLICT, "conflict", why, details),
            Self::TooLarge(why) => (S::PAYLOAD_TOO_LARGE, "bad_request", why.into(), None),
            Self::RangeNotSatisfiable(size) => {
                if let Ok(value) = format!("bytes */{size}").parse() {
                    headers.insert(header::CONTENT_RANGE, value);
                }
                let why = format!("the range is outside the {size} bytes");
                (S::RANGE_NOT_SATISFIABLE, "bad_request", why, None)
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
        };
        let error = ErrorBody { code: code.into(), message, details };
        let body = json!({"success": false, "error": error});
        (status, headers, axum::Json(body)).into_response()
    }
}

impl FromRequestParts<Arc<Service>> for Caller {
    type Rejection = Problem;
    async fn from_request_parts(
        parts: &mut Parts,
        service: &Arc<Service>,
    ) -> Result<Self, Problem> {
        let given = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = given
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim())
            .filter(|token| !token.is_empty())
            .ok_or(Problem::Unauthorized("a bearer token is needed"))?;
        service.caller(token).await
    }
}

/// The variable parts of the path, in order.
struct At<T>(T);

impl<T: DeserializeOwned + Send> FromRequestParts<Arc<Service>> for At<T> {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &Arc<Service>) -> Result<Self, Problem> {
        let bad = |rejection: PathRejection| Problem::BadRequest(rejection.body_text());
        let Path(found) = Path::from_request_parts(parts, state).await.map_err(bad)?;
        Ok(Self(found))
    }
}

/// The query of the URL.
struct Params(HashMap<String, String>);

impl FromRequestParts<Arc<Service>> for Params {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, _: &Arc<Service>) -> Result<Self, Problem> {
        Query::try_from_uri(&parts.uri)
            .map(|Query(all)| Self(all))
            .map_err(|rejection| Problem::BadRequest(rejection.body_text()))
    }
}

impl Params {
    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn is_true(&self, name: &str) -> bool {
        self.text(name) == Some("true")
    }

    fn number(&self, name: &str) -> Result<Option<i64>, Problem> {
        let number = |text: &str| {
            text.trim().parse().map_err(|_| Problem::BadRequest(format!("{name} is not a number")))
        };
        self.text(name).filter(|text| !text.is_empty()).map(number).transpose()
    }

    /// A documented limit: 256 when absent or not positive, at most 2048.
    fn limit(&self) -> Result<usize, Problem> {
        let limit = self.number("limit")?.filter(|limit| *limit > 0).unwrap_or(256);
        Ok(usize::try_from(limit).unwrap_or(usize::MAX).min(2048))
    }
}

/// A JSON object. Anything else is refused here: of an array, serde would take
/// the values for those of the fields, in their order.
fn object<T: DeserializeOwned>(json: &[u8], what: &str) -> Result<T, Problem> {
    if json.trim_ascii_start().first() != Some(&b'{') {
        return Err(Problem::BadRequest(format!("the {what} is not a JSON object")));
    }
    serde_json::from_slice(json)
        .map_err(|error| Problem::BadRequest(format!("the {what} cannot be read: {error}")))
}

/// The body of the request, up to the route's limit.
struct Whole(Bytes);

impl FromRequest<Arc<Service>> for Whole {
    type Rejection = Problem;
    async fn from_request(request: Request, state: &Arc<Service>) -> Result<Self, Problem> {
        Bytes::from_request(request, state).await.map(Self).map_err(|rejection| {
            match rejection.status() {
                StatusCode::PAYLOAD_TOO_LARGE => Problem::TooLarge("the body is too large"),
                _ => Problem::BadRequest(rejection.body_text()),
            }
        })
    }
}

impl Whole {
    fn json<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        object(&self.0, "body")
    }

    /// The same where a body may be left out.
    fn json_or_default<T: DeserializeOwned + Default>(&self) -> Result<T, Problem> {
        if self.0.iter().all(u8::is_ascii_whitespace) { Ok(T::default()) } else { self.json() }
    }
}

/// A body that arrives as it is made.
fn streamed(
    content_type: &'static str,
    body: impl futures_util::Stream<Item = Result<Bytes, crate::journal::StoreError>> + Send + 'static,
) -> Response {
    use futures_util::StreamExt;
    let body = body.inspect(|piece| {
        if let Err(error) = piece {
            error!(%error, "an answer broke off");
        }
    });
    let headers = [(header::CONTENT_TYPE, content_type), (header::CACHE_CONTROL, "no-store")];
    (headers, Body::from_stream(body)).into_response()
}

fn deleted() -> Answered {
    ok(&json!({"deleted": true}))
}

fn as_value(value: &impl Serialize) -> Result<Value, Problem> {
    serde_json::to_value(value).map_err(|error| Problem::Internal(error.to_string()))
}
