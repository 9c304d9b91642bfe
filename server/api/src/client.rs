//! The typed client.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use reqwest::{Method, RequestBuilder, Response, Url};
use s0_tree::ContentId;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Error;
use crate::sync::{StreamEvent, SubmitError};

mod attend;
mod files;
mod history;
mod mount;
mod replica;
mod socket;
mod tokens;
mod volume;
mod watch;

pub use attend::Attendance;
pub use mount::{MountReader, MountWriter};
pub use watch::Watch;

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a request may be silent.
const IDLE: Duration = Duration::from_secs(60);
/// How long a stream of events may be silent; the service says something every
/// 15 seconds.
const STREAM_IDLE: Duration = Duration::from_secs(45);
/// The most bytes of an answer that is read whole.
const MAX_ANSWER: usize = 256 * 1024 * 1024;

/// The bytes of a content, as they arrive.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes, Error>> + Send>>;
/// The events of a Volume, as they arrive.
pub type EventStream = Pin<Box<dyn Stream<Item = Result<StreamEvent, Error>> + Send>>;
/// Chunks and recipes, as they arrive; the bytes have the hash.
pub type FrameStream = Pin<Box<dyn Stream<Item = Result<(ContentId, Vec<u8>), Error>> + Send>>;

/// Whether the service at an address is one of this machine: whether its name says so,
/// not what a name server says.
#[must_use]
pub fn is_this_machine(base_url: &str) -> bool {
    let Ok(url) = Url::parse(base_url) else { return false };
    // An address in brackets is one of version 6.
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse().is_ok_and(|at: std::net::IpAddr| at.is_loopback())
}

/// Why a submission was not answered.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SubmitFailure {
    /// The service answered that it will not do it; nothing was done.
    #[error(transparent)]
    Refused(SubmitError),
    /// No answer came: whether it was done is unknown, and sending it again,
    /// word for word, is safe.
    #[error(transparent)]
    Transport(Error),
    /// The service answered with an error of another kind; nothing was done.
    #[error(transparent)]
    Server(Error),
}

/// A client of one service. Clones share connections.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    streams: reqwest::Client,
    base: Arc<Url>,
    token: Arc<str>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The token stays out of every log.
        f.debug_struct("Client").field("base", &self.base.as_str()).finish_non_exhaustive()
    }
}

impl Client {
    /// A client of the service at `base_url` (`http://127.0.0.1:7070`), that
    /// shows `token`. Nothing is sent yet.
    ///
    /// # Errors
    /// The address is not one, or TLS cannot be set up.
    pub fn new(base_url: &str, token: &str) -> Result<Self, Error> {
        let base: Url = base_url.trim_end_matches('/').parse().map_err(|_| {
            Error::BadRequest(format!("{base_url:?} is not an address such as http://host:7070"))
        })?;
        if !matches!(base.scheme(), "http" | "https") {
            let said =
                format!("{base_url:?}: the scheme {} is neither http nor https", base.scheme());
            return Err(Error::BadRequest(said));
        }
        let build = |idle| builder(&base, idle).build().map_err(Error::from);
        Ok(Self {
            http: build(IDLE)?,
            streams: build(STREAM_IDLE)?,
            base: Arc::new(base),
            token: token.trim().into(),
        })
    }

    /// The address of the service.
    #[must_use]
    pub fn base_url(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// Whether the service answers at all. Needs no token.
    ///
    /// # Errors
    /// It does not.
    pub async fn health(&self) -> Result<(), Error> {
        let mut url = Url::clone(&self.base);
        url.set_path("/healthz");
        let answer = self.http.get(url).send().await?;
        good(answer).await.map(|_| ())
    }

    /// The time on the service's clock, in whole seconds, if it says it. Needs no token.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn clock(&self) -> Result<Option<SystemTime>, Error> {
        let mut url = Url::clone(&self.base);
        url.set_path("/healthz");
        let answer = good(self.http.get(url).send().await?).await?;
        let said = answer.headers().get("date").and_then(|date| date.to_str().ok());
        let form = &time::format_description::well_known::Rfc2822;
        Ok(said.and_then(|it| time::OffsetDateTime::parse(it, form).ok()).map(Into::into))
    }

    /// The URL of a path below `/api/v1/sandboxvolumes`; each part is escaped.
    fn url(&self, parts: &[&str]) -> Result<Url, Error> {
        self.url_of(&["api", "v1", "sandboxvolumes"], parts)
    }

    fn url_of(&self, prefix: &[&str], parts: &[&str]) -> Result<Url, Error> {
        let mut url = Url::clone(&self.base);
        url.path_segments_mut()
            .map_err(|()| Error::BadRequest("the service's address cannot have a path".into()))?
            .pop_if_empty()
            .extend(prefix)
            .extend(parts);
        // An id that is empty, `.` or `..` is dropped by URLs, which would make
        // the address that of something else.
        if parts.iter().any(|part| matches!(*part, "" | "." | "..")) {
            return Err(Error::BadRequest("an id is empty or made of dots".into()));
        }
        Ok(url)
    }

    fn request(&self, method: Method, parts: &[&str]) -> Result<RequestBuilder, Error> {
        Ok(self.http.request(method, self.url(parts)?).bearer_auth(&self.token))
    }

    /// A request about the service itself, not about Volumes.
    fn of_service(&self, method: Method, parts: &[&str]) -> Result<RequestBuilder, Error> {
        Ok(self.http.request(method, self.url_of(&[], parts)?).bearer_auth(&self.token))
    }

    async fn get<T: DeserializeOwned>(&self, parts: &[&str]) -> Result<T, Error> {
        data(self.request(Method::GET, parts)?).await
    }

    async fn put<T: DeserializeOwned>(
        &self,
        parts: &[&str],
        body: &(impl Serialize + Sync),
    ) -> Result<T, Error> {
        data(json(self.request(Method::PUT, parts)?, body)?).await
    }

    async fn post<T: DeserializeOwned>(
        &self,
        parts: &[&str],
        body: &(impl Serialize + Sync),
    ) -> Result<T, Error> {
        data(json(self.request(Method::POST, parts)?, body)?).await
    }
}

/// What connections to a service are made of.
fn builder(base: &Url, idle: Duration) -> reqwest::ClientBuilder {
    // Fails only when the program installed one before, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let loopback = base.host_str().is_some_and(|host| {
        let bare = host.trim_matches(['[', ']']);
        host == "localhost"
            || bare.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
    });
    let mut builder = reqwest::Client::builder()
        .connect_timeout(CONNECT)
        .read_timeout(idle)
        .tcp_nodelay(true)
        .redirect(reqwest::redirect::Policy::none());
    if loopback {
        builder = builder.no_proxy();
    }
    if base.scheme() == "http" {
        // Plain connections need no certificates, and loading them takes time.
        builder = builder.tls_certs_only([]);
    }
    builder
}

/// A request with a JSON body.
fn json(request: RequestBuilder, body: &impl Serialize) -> Result<RequestBuilder, Error> {
    let body = serde_json::to_vec(body).map_err(|error| Error::BadRequest(error.to_string()))?;
    Ok(request.header("content-type", "application/json").body(body))
}

/// The answer, when it is a success.
async fn good(answer: Response) -> Result<Response, Error> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let body = whole(answer).await?;
    Err(Error::from_answer(status.as_u16(), &body))
}

/// The body of an answer, up to a limit.
async fn whole(answer: Response) -> Result<Vec<u8>, Error> {
    let mut body = Vec::new();
    let mut pieces = answer.bytes_stream();
    while let Some(piece) = pieces.next().await {
        let piece = piece?;
        if body.len() + piece.len() > MAX_ANSWER {
            return Err(Error::Protocol("it is too long".into()));
        }
        body.extend_from_slice(&piece);
    }
    Ok(body)
}

/// Sends, and takes the data out of the envelope.
async fn data<T: DeserializeOwned>(request: RequestBuilder) -> Result<T, Error> {
    let answer = good(request.send().await?).await?;
    opened(&whole(answer).await?)
}

/// The data in an envelope.
fn opened<T: DeserializeOwned>(body: &[u8]) -> Result<T, Error> {
    #[derive(serde::Deserialize)]
    struct Envelope<T> {
        data: T,
    }
    let envelope: Envelope<T> =
        serde_json::from_slice(body).map_err(|error| Error::Protocol(error.to_string()))?;
    Ok(envelope.data)
}

/// Sends, and gives the body as it arrives.
async fn stream(request: RequestBuilder) -> Result<ByteStream, Error> {
    let answer = good(request.send().await?).await?;
    Ok(Box::pin(answer.bytes_stream().map(|piece| piece.map_err(Error::from))))
}

/// What an answer says when there is nothing to say.
#[derive(serde::Deserialize)]
struct Done {}

#[cfg(test)]
mod tests {
    use super::is_this_machine;

    #[test]
    fn this_machine_is_known_by_its_name() {
        for own in [
            "http://127.0.0.1:7070",
            "http://localhost:1/x",
            "https://[::1]:7070",
            "http://127.9.9.9",
        ] {
            assert!(is_this_machine(own), "{own}");
        }
        for other in [
            "http://10.0.0.1",
            "http://localhost.example.com",
            "http://[::2]",
            "http://127.0.0.1.nip.io",
            "127.0.0.1",
            "",
        ] {
            assert!(!is_this_machine(other), "{other}");
        }
    }
}
