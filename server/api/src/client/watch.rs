//! Watching files over a WebSocket.

use futures_util::{SinkExt as _, StreamExt as _};
use reqwest::StatusCode;
use reqwest::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::{client::generate_key, derive_accept_key};
use tokio_tungstenite::tungstenite::{Message, protocol::Role};

use super::{Client, IDLE, STREAM_IDLE, builder, whole};
use crate::error::Error;
use crate::watch::Told;

/// Changes of files, as they are told.
pub struct Watch {
    socket: WebSocketStream<reqwest::Upgraded>,
}

impl Client {
    /// Watches a path, and with `recursive` all below it.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn watch_files(
        &self,
        volume: &str,
        path: &str,
        recursive: bool,
    ) -> Result<Watch, Error> {
        let mut url = self.url(&[volume, "files", "watch"])?;
        // A connection of its own: HTTP/2 has no upgrades.
        let http = builder(&url, IDLE).http1_only().build()?;
        url.set_query(None);
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
        let mut socket = WebSocketStream::from_raw_socket(io, Role::Client, None).await;
        let ask = serde_json::json!({
            "action": "subscribe", "path": path, "recursive": recursive,
        });
        socket.send(Message::text(ask.to_string())).await.map_err(broken)?;
        Ok(Watch { socket })
    }
}

impl Watch {
    /// What is told next.
    ///
    /// # Errors
    /// The connection ended, whoever ended it.
    pub async fn next(&mut self) -> Result<Told, Error> {
        loop {
            // The service says something every 15 seconds.
            let heard = tokio::time::timeout(STREAM_IDLE, self.socket.next()).await;
            let heard = heard.map_err(|_| Error::Unavailable("it has fallen silent".into()))?;
            match heard {
                Some(Ok(Message::Text(text))) => {
                    return serde_json::from_str(&text)
                        .map_err(|error| Error::Protocol(error.to_string()));
                }
                Some(Ok(Message::Close(frame))) => {
                    let why = frame.map(|frame| frame.reason.to_string());
                    let why = why.filter(|why| !why.is_empty());
                    return Err(Error::Unavailable(
                        why.unwrap_or_else(|| "it has ended the watch".into()),
                    ));
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(broken(error)),
                None => return Err(Error::Unavailable("it has ended the watch".into())),
            }
        }
    }
}

#[allow(clippy::needless_pass_by_value, reason = "it is what `map_err` gives")]
fn broken(error: tokio_tungstenite::tungstenite::Error) -> Error {
    Error::Unavailable(error.to_string())
}
