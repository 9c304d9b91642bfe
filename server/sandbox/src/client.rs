//! A guest's end of the control socket.
//!
//! It blocks, since who enters a sandbox must have one thread only.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::time::Duration;

use crate::platform::{self, GuestStream, Held};
use crate::protocol::{Answer, Request, Status};
use crate::state::SandboxDir;

/// How long a warden that lives may take to say so.
const LIVES: Duration = Duration::from_secs(5);
/// How long it may take to do what it is asked.
const ANSWER: Duration = Duration::from_secs(60);
/// How long one may take to end its sandbox: its processes have five seconds of that.
const ENDING: Duration = Duration::from_secs(25);
/// The longest answer.
const LONGEST: u64 = 1 << 20;

/// Why a warden was not heard.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// There is none, or not yet.
    #[error("the sandbox has ended")]
    NotRunning,
    /// It says nothing.
    #[error(
        "the sandbox's warden does not answer; `s0 sandbox stop --force` ends it and the sandbox"
    )]
    NoAnswer,
    /// The connection broke.
    #[error("the sandbox's warden hung up: {0}; has the sandbox been stopped?")]
    Broken(io::Error),
    /// It said something that cannot be understood.
    #[error("the warden's answer cannot be understood: {0}. Is it of another version of s0?")]
    Answer(String),
    /// It said no.
    #[error("{0}")]
    Refused(String),
}

impl From<io::Error> for ControlError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Self::NotRunning,
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::NoAnswer,
            _ => Self::Broken(error),
        }
    }
}

/// A connection to a warden.
pub struct Control {
    stream: BufReader<GuestStream>,
    /// Held from the beginning: who has entered the sandbox since sees other processes.
    warden: Option<Held>,
}

impl Control {
    /// Connects to the warden of a sandbox.
    ///
    /// # Errors
    /// None runs.
    pub fn connect(directory: &SandboxDir) -> Result<Self, ControlError> {
        let stream = platform::connect(&directory.socket())?;
        stream.set_write_timeout(Some(LIVES))?;
        stream.set_read_timeout(Some(LIVES))?;
        let mut control = Self { stream: BufReader::new(stream), warden: None };
        control.warden = control.status()?.warden.hold()?;
        control.stream.get_mut().set_read_timeout(Some(ANSWER))?;
        Ok(control)
    }

    /// Asks, and waits for the answer. What the warden refuses is an error.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn ask(&mut self, request: &Request) -> Result<Answer, ControlError> {
        let understood = |error: serde_json::Error| ControlError::Answer(error.to_string());
        let mut line = serde_json::to_vec(request).map_err(understood)?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line)?;
        line.clear();
        (&mut self.stream).take(LONGEST).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Err(ControlError::Broken(io::ErrorKind::UnexpectedEof.into()));
        }
        match serde_json::from_slice(&line).map_err(understood)? {
            Answer::Error { message } => Err(ControlError::Refused(message)),
            answer => Ok(answer),
        }
    }

    /// How the sandbox is.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn status(&mut self) -> Result<Status, ControlError> {
        match self.ask(&Request::Status)? {
            Answer::Status(status) => Ok(status),
            other => Err(ControlError::Answer(format!("{other:?}"))),
        }
    }

    /// Ends the sandbox, and returns when nothing is left of it.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn stop(mut self, force: bool) -> Result<(), ControlError> {
        self.ask(&Request::Stop { force })?;
        self.stream.get_mut().set_read_timeout(Some(ENDING))?;
        match self.stream.read(&mut [0]) {
            Ok(0) => {}
            Ok(_) => return Err(ControlError::Answer("more than was asked for".into())),
            // It went, and what others had said was still unread.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            Err(error) => return Err(error.into()),
        }
        // It has nothing left to do but to end.
        match self.warden.map(|warden| warden.ends_within(LIVES)).transpose()? {
            Some(false) => Err(ControlError::NoAnswer),
            _ => Ok(()),
        }
    }
}
