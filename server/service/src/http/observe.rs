//! What is counted and noted of every request. Neither says who asked with which token,
//! nor what for: a query can name a file.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tracing::{Instrument, debug, debug_span, info};

use super::answers::Answered;
use crate::caller::Caller;
use crate::metrics::Answer;
use crate::problem::Problem;
use crate::service::Service;
use crate::volume::new_id;

/// What takes longer than this until it is answered is noted.
const SLOW: Duration = Duration::from_secs(1);
/// By this an answer is found again in the log.
const REQUEST_ID: &str = "x-request-id";

/// A method as a label; clients may invent any.
fn named(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

pub(super) async fn observe(
    State(service): State<Arc<Service>>,
    request: Request,
    next: Next,
) -> Response {
    let began = Instant::now();
    let method = named(request.method());
    let route = request.extensions().get::<MatchedPath>();
    let route = route.map_or("none", MatchedPath::as_str).to_owned();
    let id = new_id();
    let span = debug_span!("request", id, method, route);
    let mut response = next.run(request).instrument(span.clone()).await;
    let (status, took) = (response.status().as_u16(), began.elapsed());
    let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    let _within = span.enter();
    if took >= SLOW {
        info!(status, ms, "a slow answer");
    } else {
        debug!(status, ms, "answered");
    }
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    service.metrics.answered(&Answer { method: method.into(), route, status }, took);
    response
}

/// For Prometheus, with the service's own token.
pub(super) async fn metrics(State(service): State<Arc<Service>>, caller: Caller) -> Answered {
    if !caller.token.platform {
        return Err(Problem::Forbidden("only the service's own token reads its metrics"));
    }
    let kind = format!("{}; version=1.0.0; charset=utf-8", super::METRICS);
    Ok(([(header::CONTENT_TYPE, kind)], service.metrics()).into_response())
}
