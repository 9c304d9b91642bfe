//! Requests to the service, and what it keeps packed.

use std::sync::OnceLock;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode, header};
use s0_service::fuzzing;
use tokio::runtime::Runtime;
use tower::ServiceExt;

use crate::{joined, parts};

const TOKEN: &str = "fuzz";

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
    })
}

/// One service for the whole run. A Volume of its own keeps inputs apart.
///
/// # Panics
/// Within a runtime, the first time.
fn routes() -> Router {
    static ROUTES: OnceLock<(tempfile::TempDir, Router)> = OnceLock::new();
    let (_, routes) = ROUTES.get_or_init(|| {
        let memory = std::path::Path::new("/dev/shm");
        let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let dir = dir.unwrap();
        let routes = runtime().block_on(fuzzing::routes(dir.path(), TOKEN)).unwrap();
        (dir, routes)
    });
    routes.clone()
}

async fn ask(
    routes: &Router,
    method: &str,
    uri: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Option<(StatusCode, String, Vec<u8>)> {
    let mut request = Request::builder()
        .method(method)
        .uri(uri)
        .header(header::AUTHORIZATION, format!("Bearer {TOKEN}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::from(body.to_vec())).ok()?;
    let answer = routes.clone().oneshot(request).await.unwrap();
    let status = answer.status();
    let kind = answer.headers().get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default().to_owned();
    // Streams do not end; their head is enough.
    let body = match kind.as_str() {
        "text/event-stream" => Vec::new(),
        _ => to_bytes(answer.into_body(), 16 << 20).await.unwrap_or_default().to_vec(),
    };
    Some((status, kind, body))
}

/// Requests, one in each part: a line `METHOD PATH`, lines of headers, an empty line, the body.
/// `{v}` is a Volume. Each gets an answer below 500, in the envelope; after all of them
/// the journal has no gap and the tree can be read.
pub(crate) fn http(data: &[u8]) {
    let routes = &routes();
    runtime().block_on(async {
        let (status, _, made) =
            ask(routes, "POST", "/api/v1/sandboxvolumes", &[], b"{}").await.unwrap();
        assert_eq!(status, StatusCode::CREATED);
        let made: serde_json::Value = serde_json::from_slice(&made).unwrap();
        let id = made["data"]["id"].as_str().unwrap().to_owned();
        let volume = format!("/api/v1/sandboxvolumes/{id}");
        for part in parts(data).take(8) {
            let at = part.windows(2).position(|two| two == b"\n\n").unwrap_or(part.len());
            let (head, body) = part.split_at(at);
            let body = body.strip_prefix(b"\n\n").unwrap_or(body);
            let Ok(head) = std::str::from_utf8(head) else { continue };
            let mut lines = head.lines();
            let Some((method, uri)) = lines.next().and_then(|line| line.split_once(' ')) else {
                continue;
            };
            let uri = uri.replace("{v}", &volume);
            let headers: Vec<_> = lines.filter_map(|line| line.split_once(": ")).collect();
            // A reader of the stream that waits would be waited for.
            let Some((status, kind, answer)) = ask(routes, method, &uri, &headers, body).await
            else {
                continue;
            };
            assert!(
                status.as_u16() < 500,
                "{method} {uri}: {status}: {}",
                String::from_utf8_lossy(&answer)
            );
            if status.is_client_error() && method != "HEAD" {
                assert!(
                    kind.starts_with("application/json"),
                    "{method} {uri}: {status} as {kind:?}"
                );
                let said: serde_json::Value = serde_json::from_slice(&answer).unwrap();
                assert_eq!(said["success"], false, "{method} {uri}: {said}");
                assert!(said["error"]["code"].is_string(), "{method} {uri}: {said}");
            }
        }
        let (status, _, page) =
            ask(routes, "GET", &format!("{volume}/sync/changes?limit=2048"), &[], b"")
                .await
                .unwrap();
        if status.is_success() {
            let page: serde_json::Value = serde_json::from_slice(&page).unwrap();
            for (at, entry) in page["data"]["changes"].as_array().unwrap().iter().enumerate() {
                assert_eq!(entry["seq"], at + 1, "the journal has a gap");
            }
            let (_, _, packed) =
                ask(routes, "GET", &format!("{volume}/sync/tree"), &[], b"").await.unwrap();
            assert!(fuzzing::unpack(&packed).await.is_some(), "the tree cannot be read");
        }
        ask(routes, "DELETE", &volume, &[], b"").await.unwrap();
    });
}

pub(crate) fn http_seeds() -> Vec<Vec<u8>> {
    let register = "PUT {v}/sync/replicas/r\ncontent-type: application/json\n\n{\"platform\":\"linux\",\"case_sensitive\":true}";
    let write = "POST {v}/files?path=/a.txt\n\nhello";
    vec![
        joined([
            write,
            "GET {v}/files?path=/a.txt\nrange: bytes=1-2\n\n",
            "GET {v}/files/stat?path=/a.txt\n\n",
        ]),
        joined([
            register,
            "POST {v}/sync/replicas/r/changes\ncontent-type: application/json\n\n{\"request_id\":\"1\",\"base_seq\":0,\"changes\":[{\"event_type\":\"create\",\"path\":\"/x\",\"content_base64\":\"aGk=\"},{\"event_type\":\"create\",\"entry_kind\":\"symlink\",\"path\":\"/l\",\"link_target\":\"x\"}]}",
        ]),
        joined([
            register,
            "POST {v}/sync/replicas/r/submit\ncontent-type: application/json\n\n{\"number\":1,\"instance\":\"i\",\"base\":0,\"changes\":[]}",
            "PUT {v}/sync/replicas/r/cursor\n\n{\"last_applied_seq\":1}",
        ]),
        joined([
            write,
            "POST {v}/files/move\n\n{\"source\":\"/a.txt\",\"destination\":\"/b/c.txt\"}",
            "DELETE {v}/files?path=/b&recursive=true\n\n",
            "GET {v}/files/list?path=/\n\n",
        ]),
        joined([
            write,
            "POST {v}/snapshots\n\n{\"name\":\"s\"}",
            "GET {v}/snapshots\n\n",
            "POST {v}/fork\n\n{}",
            "GET {v}/sync/history?path=/a.txt\n\n",
        ]),
        joined([
            "POST {v}/sync/contents\n\n\0",
            "POST {v}/sync/contents/missing\n\n{\"ids\":[]}",
            "POST {v}/sync/contents/fetch\n\n{\"ids\":[]}",
            "POST {v}/sync/bootstrap\n\n{}",
        ]),
        joined([
            write,
            "POST {v}/files/clone\n\n{\"entries\":[]}",
            "GET {v}/sync/changes?after=0&limit=1\n\n",
            "GET {v}/sync/events?after=0\n\n",
            "GET {v}/sync/conflicts?status=open\n\n",
        ]),
        joined([
            "POST /api-keys\n\n{\"name\":\"k\",\"roles\":[\"viewer\"]}",
            "GET /api-keys/current\n\n",
            "GET /openapi.json\n\n",
            "GET {v}/sync/replay-payload?content_ref=sha256:00\n\n",
        ]),
    ]
}

/// `Range`, as a model of HTTP says; and paths of the file API, which never climb out.
pub(crate) fn ranges(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (size, header) = text.split_once(' ').unwrap_or(("10", text));
    let size = size.parse().unwrap_or(10_u64);
    match fuzzing::range(header, size) {
        Ok(Some(range)) => {
            assert!(
                range.start < range.end && range.end <= size,
                "{header:?} of {size}: {range:?}"
            );
            let spec = header.strip_prefix("bytes=").unwrap().trim();
            let (first, last) = spec.split_once('-').unwrap();
            match (first.parse::<u64>(), last.parse::<u64>()) {
                (Ok(first), Ok(last)) => {
                    assert_eq!((range.start, range.end - 1), (first, last.min(size - 1)));
                }
                (Ok(first), Err(_)) => assert_eq!((range.start, range.end), (first, size)),
                (Err(_), Ok(length)) => {
                    assert_eq!((range.end, range.end - range.start), (size, length.min(size)));
                }
                (Err(_), Err(_)) => panic!("{header:?} is no range"),
            }
        }
        Ok(None) | Err(()) => {}
    }
    if let Some(path) = fuzzing::clean(text) {
        // Space around a path is taken away; between slashes it stays.
        let again = fuzzing::clean(&format!("/{path}/"));
        assert_eq!(again.as_ref(), Some(&path), "{text:?} is not clean yet");
        assert!(path.names().all(|name| name.as_str() != ".."));
    }
}

pub(crate) fn range_seeds() -> Vec<Vec<u8>> {
    [
        "10 bytes=0-4",
        "10 bytes=5-",
        "10 bytes=-3",
        "0 bytes=0-",
        "9 bytes=8-18446744073709551615",
        "/a/../../b",
        " x / y ",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into()
}

/// A checkpoint as a store gives it.
pub(crate) fn packed(data: &[u8]) {
    // What is unpacked may be large, up to the limit; here no input is worth that much.
    if let Some(tree) = runtime().block_on(fuzzing::unpack(data)) {
        assert!(s0_tree::Tree::decode(&tree.encode()).is_ok());
    }
}

pub(crate) fn packed_seeds() -> Vec<Vec<u8>> {
    crate::tree::tree_seeds().iter().map(|tree| zstd::encode_all(&tree[..], 3).unwrap()).collect()
}
