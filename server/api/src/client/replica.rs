//! What a replica asks.

use std::io;
use std::ops::Range;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use reqwest::{Body, Method};
use s0_tree::{Content, ContentId, MAX_CHECKPOINT_BYTES, Seq, Tree};

use super::{
    ByteStream, Client, Done, EventStream, FrameStream, SubmitFailure, data, good, json, opened,
    whole,
};
use crate::documented::{
    AppendRequest, AppendResult, Bootstrap, BootstrapRequest, ChangeList, ReplicaEnvelope,
    SetCursor,
};
use crate::error::{Error, error_body};
use crate::event_stream::EventReader;
use crate::frames::{FrameReader, write_frame};
use crate::mounts::write_submission;
use crate::sync::{Answer, Fetch, HaveList, Registered, Registration, Submission};

impl Client {
    /// Registers a replica, or says that it is still there.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn register(
        &self,
        volume: &str,
        replica: &str,
        registration: &Registration,
    ) -> Result<Registered, Error> {
        self.put(&[volume, "sync", "replicas", replica], registration).await
    }

    /// A replica, as the service knows it.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn replica(&self, volume: &str, replica: &str) -> Result<ReplicaEnvelope, Error> {
        self.get(&[volume, "sync", "replicas", replica]).await
    }

    /// Makes the service forget a replica.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn unregister(&self, volume: &str, replica: &str) -> Result<(), Error> {
        let request = self.request(Method::DELETE, &[volume, "sync", "replicas", replica])?;
        data::<Done>(request).await.map(|_| ())
    }

    /// Says up to where a replica has read.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn set_cursor(&self, volume: &str, replica: &str, cursor: Seq) -> Result<(), Error> {
        let body = SetCursor { last_applied_seq: cursor.0 };
        let parts = [volume, "sync", "replicas", replica, "cursor"];
        self.put::<Done>(&parts, &body).await.map(|_| ())
    }

    /// Sends changes, with the small contents that they bring.
    ///
    /// # Errors
    /// See [`SubmitFailure`].
    pub async fn submit(
        &self,
        volume: &str,
        replica: &str,
        instance: u64,
        submission: &Submission,
        inline: &[(ContentId, Bytes)],
    ) -> Result<Answer, SubmitFailure> {
        let parts = [volume, "sync", "replicas", replica, "submit"];
        let request = self.request(Method::POST, &parts).map_err(SubmitFailure::Server)?;
        let body = write_submission(submission, inline).map_err(SubmitFailure::Server)?;
        let transport = |error: reqwest::Error| SubmitFailure::Transport(error.into());
        let request = request.query(&[("instance", instance)]).body(body);
        let answer = request.send().await.map_err(transport)?;
        let status = answer.status();
        let body = whole(answer).await.map_err(SubmitFailure::Transport)?;
        if status.is_success() {
            return opened(&body).map_err(SubmitFailure::Transport);
        }
        let refusal = error_body(&body)
            .and_then(|error| error.details)
            .and_then(|details| serde_json::from_value(details).ok());
        Err(match refusal {
            Some(refusal) => SubmitFailure::Refused(refusal),
            None => match Error::from_answer(status.as_u16(), &body) {
                // A proxy's words do not say whether the service had it done.
                error @ Error::Unavailable(_) => SubmitFailure::Transport(error),
                error => SubmitFailure::Server(error),
            },
        })
    }

    /// The events after a cursor. With an epoch, the journal must be that one.
    /// The stream ends with an error, whatever ends it.
    ///
    /// # Errors
    /// [`Error::ReseedRequired`], [`Error::EpochChanged`], or another.
    pub async fn events(
        &self,
        volume: &str,
        after: Seq,
        epoch: Option<&str>,
    ) -> Result<EventStream, Error> {
        let url = self.url(&[volume, "sync", "events"])?;
        let mut request =
            self.streams.get(url).bearer_auth(&self.token).query(&[("after", after.0)]);
        if let Some(epoch) = epoch {
            request = request.query(&[("epoch", epoch)]);
        }
        let request = request.header("accept", "text/event-stream");
        let body = good(request.send().await?).await?.bytes_stream();
        let state = Some((body, EventReader::default()));
        Ok(Box::pin(stream::unfold(state, |state| async {
            let (mut body, mut reader) = state?;
            loop {
                match reader.next_event() {
                    Ok(Some(event)) => return Some((Ok(event), Some((body, reader)))),
                    Ok(None) => {}
                    Err(bad) => return Some((Err(Error::Protocol(bad.to_string())), None)),
                }
                match body.next().await {
                    Some(Ok(piece)) => reader.push(&piece),
                    Some(Err(error)) => return Some((Err(error.into()), None)),
                    None => {
                        let said = "the stream of events ended".into();
                        return Some((Err(Error::Unavailable(said)), None));
                    }
                }
            }
        })))
    }

    /// The Volume's tree as it is committed now, with its epoch.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn tree(&self, volume: &str) -> Result<(String, Tree), Error> {
        let answer = self.request(Method::GET, &[volume, "sync", "tree"])?.send().await?;
        let answer = good(answer).await?;
        let epoch = answer.headers().get("x-s0-epoch").and_then(|value| value.to_str().ok());
        let epoch = epoch.ok_or_else(|| Error::Protocol("the tree has no epoch".into()))?.into();
        let packed = whole(answer).await?;
        let unpack = move || {
            let mut bytes = Vec::new();
            let limit = MAX_CHECKPOINT_BYTES as u64 + 1;
            zstd::Decoder::new(&packed[..])
                .and_then(|unpacked| {
                    io::copy(&mut io::Read::take(unpacked, limit), &mut bytes)?;
                    Ok(())
                })
                .map_err(|error| Error::Protocol(error.to_string()))?;
            Tree::decode(&bytes).map_err(|error| Error::Protocol(error.to_string()))
        };
        let tree = tokio::task::spawn_blocking(unpack)
            .await
            .map_err(|error| Error::Protocol(error.to_string()))??;
        Ok((epoch, tree))
    }

    /// Which of these chunks and recipes the service lacks.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn missing(&self, volume: &str, ids: &[ContentId]) -> Result<Vec<ContentId>, Error> {
        let have = HaveList { ids: ids.to_vec() };
        let lacks: HaveList = self.post(&[volume, "sync", "contents", "missing"], &have).await?;
        Ok(lacks.ids)
    }

    /// Sends chunks and recipes as they come; a recipe after its chunks. They
    /// are durable when this returns.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn upload_chunks<S>(&self, volume: &str, frames: S) -> Result<(), Error>
    where
        S: Stream<Item = io::Result<(ContentId, Bytes)>> + Send + 'static,
    {
        let pieces = frames.map(|frame| {
            frame.map(|(id, bytes)| {
                let mut piece = Vec::with_capacity(crate::frames::FRAME_HEAD + bytes.len());
                write_frame(&mut piece, id, &bytes);
                Bytes::from(piece)
            })
        });
        let request = self.request(Method::POST, &[volume, "sync", "contents"])?;
        data::<Done>(request.body(Body::wrap_stream(pieces))).await.map(|_| ())
    }

    /// The same for chunks that are at hand.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn upload(&self, volume: &str, frames: Vec<(ContentId, Bytes)>) -> Result<(), Error> {
        self.upload_chunks(volume, stream::iter(frames.into_iter().map(Ok))).await
    }

    /// Chunks and recipes, in the order in which they are asked for. Chunks of
    /// a larger content are given only when `of` names it.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn fetch_chunks(
        &self,
        volume: &str,
        of: Option<Content>,
        ids: &[ContentId],
    ) -> Result<FrameStream, Error> {
        let fetch = Fetch { of, ids: ids.to_vec() };
        let request = self.request(Method::POST, &[volume, "sync", "contents", "fetch"])?;
        let body = good(json(request, &fetch)?.send().await?).await?.bytes_stream();
        let state = Some((body, FrameReader::default()));
        Ok(Box::pin(stream::unfold(state, |state| async {
            let (mut body, mut reader) = state?;
            loop {
                let bad = |said: String| Some((Err(Error::Protocol(said)), None));
                match reader.next_frame() {
                    Ok(Some(frame)) => return Some((Ok(frame), Some((body, reader)))),
                    Ok(None) => {}
                    Err(error) => return bad(error.to_string()),
                }
                match body.next().await {
                    Some(Ok(piece)) => reader.push(&piece),
                    Some(Err(error)) => return Some((Err(error.into()), None)),
                    None => return reader.finish().err().and_then(|error| bad(error.to_string())),
                }
            }
        })))
    }

    /// A whole content, or the bytes of it in `range`.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn content(
        &self,
        volume: &str,
        id: ContentId,
        range: Option<Range<u64>>,
    ) -> Result<ByteStream, Error> {
        let name = id.to_string();
        let mut request = self.request(Method::GET, &[volume, "sync", "contents", &name])?;
        if let Some(range) = range {
            if range.is_empty() {
                return Ok(Box::pin(stream::empty()));
            }
            request = request.header("range", format!("bytes={}-{}", range.start, range.end - 1));
        }
        super::stream(request).await
    }

    /// The documented list of entries after a cursor; waits up to `wait_ms` for
    /// the first.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn changes(
        &self,
        volume: &str,
        after: Seq,
        limit: u32,
        wait_ms: u64,
    ) -> Result<ChangeList, Error> {
        let request = self.request(Method::GET, &[volume, "sync", "changes"])?.query(&[
            ("after", after.0.to_string()),
            ("limit", limit.to_string()),
            ("wait_ms", wait_ms.to_string()),
            ("symlinks", "true".into()),
        ]);
        data(request).await
    }

    /// The documented upload of changes.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn append_changes(
        &self,
        volume: &str,
        replica: &str,
        request: &AppendRequest,
    ) -> Result<AppendResult, Error> {
        self.post(&[volume, "sync", "replicas", replica, "changes"], request).await
    }

    /// The documented whole content of a journal entry.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn replay_payload(
        &self,
        volume: &str,
        content_ref: &str,
    ) -> Result<ByteStream, Error> {
        let request = self.request(Method::GET, &[volume, "sync", "replay-payload"])?;
        super::stream(request.query(&[("content_ref", content_ref)])).await
    }

    /// The documented start of a replica: a snapshot, and where to read on.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn bootstrap(
        &self,
        volume: &str,
        request: &BootstrapRequest,
    ) -> Result<Bootstrap, Error> {
        self.post(&[volume, "sync", "bootstrap"], request).await
    }

    /// The archive of a bootstrap, a gzipped tar.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn bootstrap_archive(
        &self,
        volume: &str,
        snapshot: &str,
    ) -> Result<ByteStream, Error> {
        let request = self.request(Method::GET, &[volume, "sync", "bootstrap", "archive"])?;
        super::stream(request.query(&[("snapshot_id", snapshot)])).await
    }
}

impl Client {
    /// Collects a stream of bytes, for contents that are known to be small.
    ///
    /// # Errors
    /// Those of the stream.
    pub async fn collect(mut stream: ByteStream) -> Result<Vec<u8>, Error> {
        let mut all = Vec::new();
        while let Some(piece) = stream.next().await {
            all.extend_from_slice(&piece?);
        }
        Ok(all)
    }
}
