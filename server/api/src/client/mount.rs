//! What a mount of a Volume asks.

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio_tungstenite::tungstenite::Message;

use super::Client;
use super::socket::{Socket, broken};
use crate::error::Error;
use crate::mounts::{MountQuery, Said, Told};

/// The end of a mount's connection that hears.
pub struct MountReader(SplitStream<Socket>);

/// The end of a mount's connection that speaks.
pub struct MountWriter(SplitSink<Socket, Message>);

impl Client {
    /// Connects a mount. `session` is its own name, the same when it comes back.
    ///
    /// # Errors
    /// See [`Error`]; the access mode may not let it.
    pub async fn mount(
        &self,
        volume: &str,
        session: &str,
        query: &MountQuery,
    ) -> Result<(MountWriter, MountReader), Error> {
        let url = self.url(&[volume, "mounts", session])?;
        let asked = self.http.get(url).query(query).build()?;
        let (writer, reader) = self.socket(asked.url().clone()).await?.split();
        Ok((MountWriter(writer), MountReader(reader)))
    }
}

impl MountReader {
    /// What is told next; none when the connection ended.
    ///
    /// # Errors
    /// The connection is broken, or says what is none of its messages.
    pub async fn next(&mut self) -> Result<Option<Told>, Error> {
        loop {
            match self.0.next().await {
                Some(Ok(Message::Text(text))) => {
                    let told = serde_json::from_str(&text);
                    return told.map(Some).map_err(|error| Error::Protocol(error.to_string()));
                }
                Some(Ok(Message::Close(_))) | None => return Ok(None),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(broken(error)),
            }
        }
    }
}

impl MountWriter {
    /// Says something.
    ///
    /// # Errors
    /// The connection is broken.
    pub async fn say(&mut self, said: &Said) -> Result<(), Error> {
        let text =
            serde_json::to_string(said).map_err(|error| Error::BadRequest(error.to_string()))?;
        self.0.send(Message::text(text)).await.map_err(broken)
    }

    /// Sends what [`write_submission`](crate::mounts::write_submission) made.
    ///
    /// # Errors
    /// The connection is broken.
    pub async fn submit(&mut self, submission: Bytes) -> Result<(), Error> {
        self.0.send(Message::Binary(submission)).await.map_err(broken)
    }
}
