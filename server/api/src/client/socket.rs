//! WebSockets of the service.

use reqwest::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use reqwest::{StatusCode, Url};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::{client::generate_key, derive_accept_key};
use tokio_tungstenite::tungstenite::protocol::Role;

use super::{Client, IDLE, builder, whole};
use crate::error::Error;

pub(super) type Socket = WebSocketStream<reqwest::Upgraded>;

impl Client {
    /// Connects to a route that is a WebSocket.
    pub(super) async fn socket(&self, url: Url) -> Result<Socket, Error> {
        // A connection of its own: HTTP/2 has no upgrades.
        let http = builder(&url, IDLE).http1_only().build()?;
        let key = generate_key();
        let asked = http
            .get(url)
            .bearer_auth(&self.token)
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, "websocket")
            .header("sec-websocket-version", "13")
            .header(SEC_WEBSOCKET_KEY, &key);
        let answer = asked.send().await?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            let status = answer.status().as_u16();
            return Err(Error::from_answer(status, &whole(answer).await?));
        }
        let accepted = answer.headers().get(SEC_WEBSOCKET_ACCEPT);
        if accepted.is_none_or(|it| it.as_bytes() != derive_accept_key(key.as_bytes()).as_bytes()) {
            return Err(Error::Protocol("it is no WebSocket".into()));
        }
        let io = answer.upgrade().await?;
        Ok(WebSocketStream::from_raw_socket(io, Role::Client, None).await)
    }
}

#[allow(clippy::needless_pass_by_value, reason = "it is what `map_err` gives")]
pub(super) fn broken(error: tokio_tungstenite::tungstenite::Error) -> Error {
    Error::Unavailable(error.to_string())
}
