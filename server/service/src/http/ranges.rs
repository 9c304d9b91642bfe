//! Parts of a content.

use std::ops::Range;

use aide::OperationOutput;
use aide::generate::GenContext;
use aide::openapi::{Operation, Response as Described};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use s0_tree::Content;

use super::answers::streamed;
use super::document::{self, OCTETS};
use crate::holdings::Holdings;
use crate::problem::Problem;

/// The part that is asked for; `None` for all of it. Several parts at once, and
/// what is no range, are answered by all of it, as HTTP allows.
pub(super) fn asked(headers: &HeaderMap, size: u64) -> Result<Option<Range<u64>>, Problem> {
    let Some(spec) = headers
        .get(header::RANGE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("bytes="))
    else {
        return Ok(None);
    };
    let Some((first, last)) = spec.trim().split_once('-') else { return Ok(None) };
    let range = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if first <= last => first..last.saturating_add(1).min(size),
        (Ok(first), Err(_)) if last.is_empty() => first..size,
        (Err(_), Ok(length)) if first.is_empty() => size.saturating_sub(length)..size,
        _ => return Ok(None),
    };
    if range.start >= range.end {
        return Err(Problem::RangeNotSatisfiable(size));
    }
    Ok(Some(range))
}

/// A content, or a part of it.
pub(super) struct Ranged(Response);

impl IntoResponse for Ranged {
    fn into_response(self) -> Response {
        self.0
    }
}

impl OperationOutput for Ranged {
    type Inner = ();
    fn inferred_responses(
        ctx: &mut GenContext,
        _: &mut Operation,
    ) -> Vec<(Option<u16>, Described)> {
        let mut all = document::failures(ctx, &[416]);
        all.push((Some(200), document::response("All of it.", OCTETS, None)));
        all.push((Some(206), document::response("The range.", OCTETS, None)));
        all
    }
}

/// A content, or the part of it that is asked for.
pub(super) async fn answer(
    holdings: &Holdings,
    team: &str,
    content: Content,
    headers: &HeaderMap,
) -> Result<Ranged, Problem> {
    let part = asked(headers, content.size)?;
    let range = part.clone().unwrap_or(0..content.size);
    let body = holdings.stream(team, content, range.clone()).await?;
    let mut answer: Response = streamed("application/octet-stream", body);
    let mut put = |name, value: String| {
        if let Ok(value) = HeaderValue::from_str(&value) {
            answer.headers_mut().insert(name, value);
        }
    };
    put(header::ACCEPT_RANGES, "bytes".into());
    put(header::CONTENT_LENGTH, (range.end - range.start).to_string());
    if part.is_some() {
        let (first, last) = (range.start, range.end - 1);
        put(header::CONTENT_RANGE, format!("bytes {first}-{last}/{}", content.size));
        *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    Ok(Ranged(answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read() {
        let read = |text: &str, size| {
            let headers = HeaderMap::from_iter([(header::RANGE, text.parse().unwrap())]);
            asked(&headers, size)
        };
        assert_eq!(read("bytes=0-0", 10), Ok(Some(0..1)));
        assert_eq!(read("bytes=2-", 10), Ok(Some(2..10)));
        assert_eq!(read("bytes=-3", 10), Ok(Some(7..10)));
        assert_eq!(read("bytes=-30", 10), Ok(Some(0..10)));
        assert_eq!(read("bytes=5-99", 10), Ok(Some(5..10)));
        for whole in ["bytes=5-2", "bytes=x", "items=1-2", "bytes=0-1,3-4", "bytes=-"] {
            assert_eq!(read(whole, 10), Ok(None), "{whole}");
        }
        assert_eq!(read("bytes=10-", 10), Err(Problem::RangeNotSatisfiable(10)));
        assert_eq!(read("bytes=-5", 0), Err(Problem::RangeNotSatisfiable(0)));
        assert_eq!(read("bytes=0-18446744073709551615", 4), Ok(Some(0..4)));
    }
}
