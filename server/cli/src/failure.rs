//! How a command ends.

use std::process::ExitCode;

use crate::screen::plain;

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
    kind: Kind,
}

/// What some failures are more than that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The service does not know what was asked for.
    NotFound,
    /// Whoever read the output has gone.
    Unread,
    Other,
}

/// How a command ends.
pub(crate) type Done = Result<ExitCode, Failure>;

impl Failure {
    pub(crate) fn other(message: impl Into<String>) -> Self {
        Self::with_code(message, code::FAILED)
    }

    pub(crate) fn with_code(message: impl Into<String>, code: u8) -> Self {
        Self { message: message.into(), code, kind: Kind::Other }
    }

    /// Of a file of the user's.
    pub(crate) fn file(path: &std::path::Path, error: &std::io::Error) -> Self {
        use std::io::ErrorKind;
        let next = match error.kind() {
            ErrorKind::NotFound => "; check the path",
            ErrorKind::PermissionDenied => "; `ls -ld` says who may: its owner can give you leave",
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "; make room, and try again",
            ErrorKind::ReadOnlyFilesystem => "; choose a place on a disk that can be written",
            ErrorKind::NotADirectory => "; a part of the path is a file: check the path",
            _ => "",
        };
        Self::other(format!("{}: {error}{next}", path.display()))
    }

    /// The same in better words.
    pub(crate) fn saying(self, message: impl Into<String>) -> Self {
        Self { message: message.into(), ..self }
    }

    /// Of standard output.
    pub(crate) fn output(error: &std::io::Error) -> Self {
        let mut failure = Self::other(format!("the output cannot be written: {error}"));
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            failure.kind = Kind::Unread;
        }
        failure
    }

    /// What the service does not know, by name, and what to do. Other failures stay.
    pub(crate) fn named(self, what: &str, next: &str) -> Self {
        if self.is_not_found() {
            return self.saying(format!("{}; {next}", plain(what)));
        }
        self
    }

    pub(crate) fn is_not_found(&self) -> bool {
        self.kind == Kind::NotFound
    }

    /// Nobody reads any more, which is how `| head` ends and no failure.
    pub(crate) fn is_unread(&self) -> bool {
        self.kind == Kind::Unread
    }

    pub(crate) fn code(&self) -> ExitCode {
        ExitCode::from(self.number())
    }

    /// The same, as a number.
    pub(crate) fn number(&self) -> u8 {
        if self.is_unread() { 0 } else { self.code }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<s0_api::Error> for Failure {
    fn from(error: s0_api::Error) -> Self {
        let code = match &error {
            s0_api::Error::Unavailable(_) => code::OFFLINE,
            _ => code::FAILED,
        };
        let next = match &error {
            s0_api::Error::Unauthorized(_) => " (`s0 doctor` says where it comes from)",
            s0_api::Error::Unavailable(_) => " (`s0 doctor` says which one that is, and tries it)",
            _ => "",
        };
        let mut failure = Self::with_code(one_line(&error) + next, code);
        if matches!(error, s0_api::Error::NotFound(_)) {
            failure.kind = Kind::NotFound;
        }
        failure
    }
}

macro_rules! other {
    ($($error:ty),*) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::other(one_line(error))
            }
        })*
    };
}

/// What a failure of another room says. It may hold names that others chose.
fn one_line(error: impl std::fmt::Display) -> String {
    plain(&error.to_string()).into_owned()
}

impl From<s0_host::SpawnError> for Failure {
    fn from(error: s0_host::SpawnError) -> Self {
        // It quotes lines of the log, in which names are plain.
        Self::other(error.to_string())
    }
}

impl From<s0_sandbox::SpawnError> for Failure {
    fn from(error: s0_sandbox::SpawnError) -> Self {
        // The same.
        Self::other(error.to_string())
    }
}

other!(
    s0_host::ControlError,
    s0_host::HostError,
    s0_host::StateError,
    s0_sandbox::ControlError,
    s0_sandbox::StateError,
    s0_sandbox::exec::ExecError,
    s0_sandbox::warden::WardenError,
    s0_service::ServeError,
    std::io::Error,
    serde_json::Error
);
