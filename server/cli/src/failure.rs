//! How a command ends.

use std::process::ExitCode;

/// The exit codes beside 0 (as asked) and 2 (the arguments are wrong).
pub(crate) mod code {
    /// It failed, or the answer is no.
    pub(crate) const FAILED: u8 = 1;
    /// Conflicts are open, or not everything is across.
    pub(crate) const BLOCKED: u8 = 3;
    /// The replica halted.
    pub(crate) const HALTED: u8 = 4;
    /// The service cannot be reached.
    pub(crate) const OFFLINE: u8 = 5;
}

/// Why a command failed, and what to do.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    code: u8,
}

/// How a command ends.
pub(crate) type Done = Result<ExitCode, Failure>;

impl Failure {
    pub(crate) fn other(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: code::FAILED }
    }

    pub(crate) fn with_code(message: impl Into<String>, code: u8) -> Self {
        Self { message: message.into(), code }
    }

    /// Of a file of the user's.
    pub(crate) fn file(path: &std::path::Path, error: &std::io::Error) -> Self {
        Self::other(format!("{}: {error}", path.display()))
    }

    pub(crate) fn code(&self) -> ExitCode {
        ExitCode::from(self.code)
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<s0_api::Error> for Failure {
    fn from(error: s0_api::Error) -> Self {
        let code = match error {
            s0_api::Error::Unavailable(_) => code::OFFLINE,
            _ => code::FAILED,
        };
        Self::with_code(error.to_string(), code)
    }
}

macro_rules! other {
    ($($error:ty),*) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::other(error.to_string())
            }
        })*
    };
}

other!(
    s0_host::ControlError,
    s0_host::HostError,
    s0_host::SpawnError,
    s0_host::StateError,
    s0_service::ServeError,
    std::io::Error,
    serde_json::Error
);
