//! A guest's end of the control socket.

use std::io;
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};

use crate::host::last_pid;
use crate::platform::{self, Stream};
use crate::protocol::{Answer, News, Request, Side};
use crate::state::AttachmentDir;

/// How long a host that lives may take to say so, however busy its replica is.
const LIVES: Duration = Duration::from_secs(5);

/// Why a host was not heard.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// There is none.
    #[error("no host runs this workspace; `s0 sync start` starts one")]
    NotRunning,
    /// There is one, and it says nothing.
    #[error(
        "the host{} does not answer; it may be stopped (`kill -CONT` lets it go on) or hang{}",
        .pid.map_or(String::new(), |pid| format!(" (process {pid})")),
        .pid.map_or(String::new(), |pid| format!(": `kill -9 {pid}` ends it, which loses nothing"))
    )]
    NoAnswer {
        /// Its process, when that is known.
        pid: Option<u32>,
    },
    /// The connection broke.
    #[error("the host hung up: {0}; its log (`s0 sync logs`) says more")]
    Broken(io::Error),
    /// It said something that cannot be understood.
    #[error(
        "the host's answer cannot be understood: {0}. Is it of another version? `s0 sync stop` and `start`"
    )]
    Answer(String),
    /// It said no.
    #[error("{0}")]
    Refused(String),
}

/// A connection to a host.
pub struct Control {
    stream: BufReader<Stream>,
}

impl Control {
    /// Connects to the host of an attachment, and hears that it lives.
    ///
    /// # Errors
    /// None runs, or it does not answer.
    pub async fn connect(directory: &AttachmentDir) -> Result<Self, ControlError> {
        // A process that is stopped still has a socket that takes connections.
        let greeted = async {
            let mut control = Self::open(directory).await?;
            match control.ask(&Request::Ping).await {
                Ok(_) => Ok(control),
                // One of an earlier version does not know the question, but lives.
                Err(ControlError::Refused(_)) => Self::open(directory).await,
                Err(error) => Err(error),
            }
        };
        match tokio::time::timeout(LIVES, greeted).await {
            Ok(control) => control,
            Err(_) => Err(ControlError::NoAnswer { pid: last_pid(directory) }),
        }
    }

    async fn open(directory: &AttachmentDir) -> Result<Self, ControlError> {
        match platform::connect(&directory.socket()).await {
            Ok(stream) => Ok(Self { stream: BufReader::new(stream) }),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                ) =>
            {
                Err(ControlError::NotRunning)
            }
            Err(error) => Err(ControlError::Broken(error)),
        }
    }

    /// Asks, and waits for the answer. What the host refuses is an error.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub async fn ask(&mut self, request: &Request) -> Result<Answer, ControlError> {
        let mut line =
            serde_json::to_vec(request).map_err(|error| ControlError::Answer(error.to_string()))?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line).await.map_err(ControlError::Broken)?;
        match self.read().await? {
            Answer::Error { message } => Err(ControlError::Refused(message)),
            answer => Ok(answer),
        }
    }

    /// One side of a conflict, as bytes.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub async fn content(
        mut self,
        path: s0_tree::TreePath,
        side: Side,
    ) -> Result<Content, ControlError> {
        match self.ask(&Request::Content { path, side }).await? {
            Answer::Content { size } => {
                Ok(Content { size, bytes: Box::new(self.stream.take(size)) })
            }
            other => Err(ControlError::Answer(format!("{other:?}"))),
        }
    }

    /// What is held at a path, as bytes.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub async fn held_content(mut self, path: s0_tree::TreePath) -> Result<Content, ControlError> {
        match self.ask(&Request::HeldContent { path }).await? {
            Answer::Content { size } => {
                Ok(Content { size, bytes: Box::new(self.stream.take(size)) })
            }
            other => Err(ControlError::Answer(format!("{other:?}"))),
        }
    }

    /// The status, as [`News::Status`], and what happens from now on. A feed that has missed
    /// something tells the status again.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub async fn subscribe(mut self) -> Result<Feed, ControlError> {
        self.ask(&Request::Subscribe).await?;
        Ok(Feed { control: self, line: Vec::new() })
    }

    async fn read<T: DeserializeOwned>(&mut self) -> Result<T, ControlError> {
        let mut line = Vec::new();
        self.read_line(&mut line).await
    }

    /// Reads on where an earlier call that was given up stopped.
    async fn read_line<T: DeserializeOwned>(
        &mut self,
        line: &mut Vec<u8>,
    ) -> Result<T, ControlError> {
        self.stream.read_until(b'\n', line).await.map_err(ControlError::Broken)?;
        if !line.ends_with(b"\n") {
            return Err(ControlError::Broken(io::ErrorKind::UnexpectedEof.into()));
        }
        let read = serde_json::from_slice(line);
        line.clear();
        read.map_err(|error| ControlError::Answer(error.to_string()))
    }
}

/// One side of a conflict.
pub struct Content {
    /// Its length.
    pub size: u64,
    /// Its bytes.
    pub bytes: Box<dyn AsyncRead + Send + Unpin>,
}

/// What happens.
pub struct Feed {
    control: Control,
    line: Vec<u8>,
}

impl Feed {
    /// The next news. May be given up and called again.
    ///
    /// # Errors
    /// The host has ended.
    pub async fn next(&mut self) -> Result<News, ControlError> {
        self.control.read_line(&mut self.line).await
    }
}
