//! What the warden of a sandbox asks, and is asked.

use futures_util::{SinkExt as _, StreamExt as _};
use reqwest::Method;
use tokio_tungstenite::tungstenite::Message;

use super::socket::{Socket, broken};
use super::{Client, STREAM_IDLE, data};
use crate::error::Error;
use crate::sandboxes::{Asked, Replied};
use crate::tokens::LimitedToken;
use crate::volumes::Deleted;

const SANDBOXES: [&str; 3] = ["api", "v1", "sandboxes"];

/// A connection by which the service reaches a sandbox.
pub struct Attendance(Socket);

impl Client {
    /// Makes a token with which the service can be let reach a sandbox, and nothing else.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn create_attend_token(&self, sandbox: &str) -> Result<LimitedToken, Error> {
        let url = self.url_of(&SANDBOXES, &[sandbox, "attend-tokens"])?;
        data(self.http.request(Method::POST, url).bearer_auth(&self.token)).await
    }

    /// Ends it.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn delete_attend_token(&self, sandbox: &str, id: &str) -> Result<(), Error> {
        let url = self.url_of(&SANDBOXES, &[sandbox, "attend-tokens", id])?;
        let gone = self.http.request(Method::DELETE, url).bearer_auth(&self.token);
        data::<Deleted>(gone).await.map(|_| ())
    }

    /// Lets the service reach a sandbox.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn attend(&self, sandbox: &str) -> Result<Attendance, Error> {
        self.socket(self.url_of(&SANDBOXES, &[sandbox, "attend"])?).await.map(Attendance)
    }
}

impl Attendance {
    /// What the service asks next; none when the connection ended.
    ///
    /// # Errors
    /// The connection is broken, or says what is none of its messages.
    pub async fn next(&mut self) -> Result<Option<Asked>, Error> {
        loop {
            // The service says something every 15 seconds.
            let heard = tokio::time::timeout(STREAM_IDLE, self.0.next()).await;
            match heard.map_err(|_| Error::Unavailable("it is silent".into()))? {
                Some(Ok(Message::Text(text))) => {
                    let asked = serde_json::from_str(&text);
                    return asked.map(Some).map_err(|error| Error::Protocol(error.to_string()));
                }
                Some(Ok(Message::Close(_))) | None => return Ok(None),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(broken(error)),
            }
        }
    }

    /// Answers.
    ///
    /// # Errors
    /// The connection is broken.
    pub async fn reply(&mut self, replied: &Replied) -> Result<(), Error> {
        let text = serde_json::to_string(replied);
        let text = text.map_err(|error| Error::BadRequest(error.to_string()))?;
        self.0.send(Message::text(text)).await.map_err(broken)
    }
}
