//! A real service on a free port, and a client of it.

use std::path::Path;

use bytes::Bytes;
use reqwest::{Method, StatusCode};
use s0_api::Client;
use s0_api::sync::{Capabilities, Registration, Submission};
use s0_api::volumes::NewVolume;
use s0_service::{Config, Running, TOKEN_FILE, serve};
use s0_tree::{Action, AttributeChange, Change, Content, ContentId, Expected, New, TreePath};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::oneshot;

use crate::contract::{Document, Seen};

pub(crate) struct Rig {
    pub(crate) dir: TempDir,
    pub(crate) client: Client,
    pub(crate) token: String,
    pub(crate) url: String,
    stop: Option<oneshot::Sender<()>>,
    running: Option<Running>,
    http: reqwest::Client,
    /// What was answered to requests by hand.
    pub(crate) seen: Seen,
}

/// An answer to a request by hand.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) bytes: Bytes,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap()
    }
}

pub(crate) fn config(dir: &Path) -> Config {
    Config::new(dir.to_owned(), "127.0.0.1:0".parse().unwrap())
}

impl Rig {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(dir.path());
        change(&mut config);
        Self::at(dir, config).await
    }

    pub(crate) async fn at(dir: TempDir, config: Config) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let running = serve(config, async {
            let _ = stopped.await;
        })
        .await
        .unwrap();
        let token = std::fs::read_to_string(dir.path().join(TOKEN_FILE)).unwrap();
        let token = token.trim().to_owned();
        let url = running.url().to_owned();
        let client = Client::new(&url, &token).unwrap();
        let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
        let (stop, running, seen) = (Some(stop), Some(running), Seen::default());
        Self { dir, client, token, url, stop, running, http, seen }
    }

    /// Shuts the service down as its operator would.
    pub(crate) async fn shut_down(mut self) -> TempDir {
        drop(self.stop.take());
        self.running.take().unwrap().wait().await.unwrap();
        self.dir
    }

    /// The service's directory, as long as it runs.
    pub(crate) fn database(&self) -> std::path::PathBuf {
        self.dir.path().join("journal.db")
    }

    pub(crate) async fn volume(&self) -> String {
        self.client.create_volume(&NewVolume::default()).await.unwrap().id
    }

    /// A token of a team, made as its admins make them.
    pub(crate) async fn token_of(&self, team: &str, role: &str) -> String {
        let body = json!({"name": role, "roles": [role], "team_id": team});
        let made = self.data(Method::POST, "/api-keys", body).await;
        made["key"].as_str().unwrap().to_owned()
    }

    /// A request by hand, with the local token; the status and the JSON.
    pub(crate) async fn raw(
        &self,
        method: Method,
        path: &str,
        body: impl Into<Body>,
    ) -> (u16, Value) {
        self.as_bearer(Some(&self.token), method, path, body).await
    }

    pub(crate) async fn as_bearer(
        &self,
        token: Option<&str>,
        method: Method,
        path: &str,
        body: impl Into<Body>,
    ) -> (u16, Value) {
        let authorization = token.map(|token| format!("Bearer {token}"));
        let headers: Vec<_> =
            authorization.as_deref().map(|value| ("authorization", value)).into_iter().collect();
        let Answer { status, bytes, .. } = self.ask(method, path, &headers, body).await;
        let value = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into()));
        (status, value)
    }

    /// A request by hand with nothing but these headers. Whatever is answered must be as
    /// the API's description says.
    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        let mut request = self.http.request(method.clone(), format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = match body.into() {
            Body::Empty => request,
            Body::Json(value) => request
                .header("content-type", "application/json")
                .body(serde_json::to_vec(&value).unwrap()),
            Body::Bytes(bytes) => request.body(bytes),
        }
        .send()
        .await
        .unwrap();
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let kind = headers.get("content-type").and_then(|value| value.to_str().ok());
        let endless = kind.is_some_and(|kind| kind.starts_with("text/event-stream"));
        let bytes = if endless { Bytes::new() } else { answer.bytes().await.unwrap() };
        let answer = Answer { status, headers, bytes };
        if let Err(why) = self.document().await.check(&method, path, &answer) {
            panic!("{method} {path} is not as described: {why}\n{answer:?}");
        }
        self.seen.note(self.document().await, &method, path, status);
        answer
    }

    /// The description of the API, as the service gives it.
    pub(crate) async fn document(&self) -> &'static Document {
        static DOCUMENT: tokio::sync::OnceCell<Document> = tokio::sync::OnceCell::const_new();
        let read = async || {
            let answer = self.http.get(format!("{}/openapi.json", self.url)).send().await.unwrap();
            Document::new(serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap())
        };
        DOCUMENT.get_or_init(read).await
    }

    /// A request by hand that must succeed; its data.
    pub(crate) async fn data(&self, method: Method, path: &str, body: impl Into<Body>) -> Value {
        let (status, mut value) = self.raw(method, path, body).await;
        assert!(StatusCode::from_u16(status).unwrap().is_success(), "{path}: {status} {value}");
        assert_eq!(value["success"], true);
        value["data"].take()
    }

    pub(crate) async fn read(&self, volume: &str, path: &str) -> Vec<u8> {
        Client::collect(self.client.read_file(volume, path).await.unwrap()).await.unwrap()
    }

    pub(crate) async fn write(&self, volume: &str, path: &str, text: &str) {
        self.client.write_file(volume, path, text.to_owned()).await.unwrap();
    }
}

pub(crate) enum Body {
    Empty,
    Json(Value),
    Bytes(Bytes),
}

impl From<()> for Body {
    fn from((): ()) -> Self {
        Self::Empty
    }
}

impl From<Value> for Body {
    fn from(value: Value) -> Self {
        Self::Json(value)
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes.into())
    }
}

pub(crate) fn registration() -> Registration {
    Registration {
        display_name: "laptop: ~/work".into(),
        platform: "linux".into(),
        root_path: "/home/me/work".into(),
        case_sensitive: true,
        capabilities: Capabilities {
            case_sensitive: true,
            unicode_normalization_insensitive: false,
            windows_compatible_paths: false,
        },
        take_instance: true,
        sandbox_id: None,
    }
}

pub(crate) fn path(text: &str) -> TreePath {
    TreePath::new(text).unwrap()
}

pub(crate) fn create(at: &str, content: Content) -> Change {
    let (what, set) = (New::File { content }, AttributeChange::default());
    Change::new(Action::Create { path: path(at), what, set }, Expected::Absent)
}

pub(crate) fn write(at: &str, text: &str, expect: Expected) -> Change {
    let (content, set) = (Content::of(text.as_bytes()), AttributeChange::default());
    Change::new(Action::Write { path: path(at), content, set }, expect)
}

pub(crate) fn inline(texts: &[&str]) -> Vec<(ContentId, Bytes)> {
    texts
        .iter()
        .map(|text| (Content::of(text.as_bytes()).id, Bytes::from(text.as_bytes().to_vec())))
        .collect()
}

pub(crate) fn submission(number: u64, changes: &[Change]) -> Submission {
    Submission { number, changes: changes.to_vec() }
}

/// Bytes that do not compress and have no pattern to cut at.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 88_172_645_463_325_252_u64;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_be_bytes()[3]
    })
    .take(length)
    .collect()
}

pub(crate) fn code(answer: &(u16, Value)) -> (u16, &str) {
    (answer.0, answer.1["error"]["code"].as_str().unwrap_or_default())
}
