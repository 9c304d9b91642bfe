//! What this program is inside a sandbox: its first process, and each command's beginning.
//!
//! These two read no options as others do, since their environment is the command's.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::Receiver;
use tokio::signal::unix::{SignalKind, signal};

use crate::platform;

/// The word for the first process.
pub(crate) const INIT: &str = "sandbox-init";
/// The word for a command's beginning.
pub(crate) const COMMAND: &str = "sandbox-command";
/// The same, with standard input as its terminal.
pub(crate) const COMMAND_ON_TERMINAL: &str = "sandbox-command-on-terminal";

/// What a warden writes on the leash to have all processes asked to end.
pub(crate) const END: &[u8] = b"e";
/// How often it is looked whether those that were asked have ended.
const LOOK: Duration = Duration::from_millis(5);

/// What shells say of a command that is not there, and of one that cannot be run.
const NOT_FOUND: u8 = 127;
const CANNOT_RUN: u8 = 126;

/// Is what the arguments of this process say, if they are about the inside of a sandbox.
#[must_use]
pub fn run() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    let first = arguments.next()?;
    let on_terminal = first == COMMAND_ON_TERMINAL;
    if on_terminal || first == COMMAND {
        return Some(be_command(on_terminal, arguments));
    }
    (first == INIT).then(|| match init() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("the sandbox's first process: {error}"));
            ExitCode::FAILURE
        }
    })
}

fn say(text: &str) {
    // There is nobody else to tell.
    let _ = writeln!(io::stderr().lock(), "s0: {text}");
}

/// The first process: buries what ends, and ends with its warden.
fn init() -> io::Result<()> {
    // Elsewhere, all processes would be those of the machine.
    if std::process::id() != 1 {
        return Err(io::Error::other("it is one only inside of a sandbox"));
    }
    platform::end_with_parent()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut children = signal(SignalKind::child())?;
        let mut leash = Receiver::from_owned_fd(io::stdin().as_fd().try_clone_to_owned()?)?;
        io::stdout().write_all(b"r").and_then(|()| io::stdout().flush())?;
        let mut heard = [0];
        loop {
            tokio::select! {
                _ = children.recv() => platform::bury(),
                read = leash.read(&mut heard) => match read? {
                    // The warden has ended. With this process, the system ends all others.
                    0 => return Ok(()),
                    _ => break,
                },
            }
        }
        platform::ask_all_to_end();
        // The warden waits only for so long, and then ends this process.
        loop {
            platform::bury();
            if platform::is_alone() {
                return Ok(());
            }
            let again = tokio::time::timeout(LOOK, leash.read(&mut heard));
            if let Ok(Ok(0) | Err(_)) = again.await {
                return Ok(());
            }
        }
    })
}

/// Becomes a command that was started from outside.
fn be_command(on_terminal: bool, command: impl Iterator<Item = OsString>) -> ExitCode {
    let command: Vec<OsString> = command.collect();
    let Some((program, arguments)) = command.split_first() else {
        say("no command was given");
        return ExitCode::from(CANNOT_RUN);
    };
    if let Err(error) = prepare(on_terminal) {
        say(&format!("the command cannot be prepared: {error}"));
        return ExitCode::from(CANNOT_RUN);
    }
    let error = Command::new(program).args(arguments).exec();
    say(&failed(program, &error));
    let is_missing = error.kind() == io::ErrorKind::NotFound;
    ExitCode::from(if is_missing { NOT_FOUND } else { CANNOT_RUN })
}

fn failed(program: &OsStr, error: &io::Error) -> String {
    let program = program.display();
    match error.kind() {
        io::ErrorKind::NotFound => format!("{program}: there is no such command in the sandbox"),
        io::ErrorKind::PermissionDenied => format!("{program}: it may not be run: {error}"),
        _ => format!("{program}: {error}"),
    }
}

fn prepare(on_terminal: bool) -> io::Result<()> {
    // If the one outside was killed in the moment before this, the command runs on until the
    // sandbox is stopped: from in here, nobody can see who is outside.
    platform::end_with_parent()?;
    // The terminal of the one outside would take what is written into it for what was typed.
    platform::lead_session()?;
    if on_terminal {
        rustix::process::ioctl_tiocsctty(io::stdin())?;
    }
    Ok(())
}
