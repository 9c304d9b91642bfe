//! Watching files over a WebSocket.

use futures_util::{SinkExt as _, StreamExt as _};
use tokio_tungstenite::tungstenite::Message;

use super::socket::{Socket, broken};
use super::{Client, STREAM_IDLE};
use crate::error::Error;
use crate::watch::Told;

/// Changes of files, as they are told.
pub struct Watch {
    socket: Socket,
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
        let url = self.url(&[volume, "files", "watch"])?;
        let mut socket = self.socket(url).await?;
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
