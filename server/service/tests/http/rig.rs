//! A real service on a free port, and a client of it.

use std::path::Path;

use bytes::Bytes;
use reqwest::{Method, StatusCode};
use s0_api::Client;
use s0_api::sync::{Capabilities, Registration, Submission};
use s0_api::volumes::NewVolume;
use s0_service::{Config, Running, TOKEN_FILE, serve};
use s0_tree::{Action, AttributeChange, Change, Content, ContentId, Expected, New, TreePath};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::oneshot;

pub(crate) struct Rig {
    pub(crate) dir: TempDir,
    pub(crate) client: Client,
    pub(crate) token: String,
    pub(crate) url: String,
    stop: Option<oneshot::Sender<()>>,
    running: Option<Running>,
    http: reqwest::Client,
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
        Self { dir, client, token, url, stop: Some(stop), running: Some(running), http }
    }

    /// Shuts the service down as its operator would.
    pub(crate) async fn shut_down(mut self) -> TempDir {
        drop(self.stop.take());
        self.running.take().unwrap().wait().await.unwrap();
        self.dir
    }

    pub(crate) async fn volume(&self) -> String {
        self.client.create_volume(&NewVolume::default()).await.unwrap().id
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
        let mut request = self.http.request(method, format!("{}{path}", self.url));
        if let Some(token) = token {
            request = request.bearer_auth(token);
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
        let status = answer.status();
        let bytes = answer.bytes().await.unwrap();
        let value: Value = serde_json::from_slice(&bytes).unwrap_or_else(|_| {
            assert!(status.is_success(), "{status} without an envelope: {bytes:?}");
            Value::String(String::from_utf8_lossy(&bytes).into())
        });
        if status.is_client_error() || status.is_server_error() {
            assert_eq!(value["success"], false);
            assert!(value["error"]["code"].is_string() && value["error"]["message"].is_string());
        }
        (status.as_u16(), value)
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
