//! Running a command in a sandbox, from outside.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::task::Poll;

use rustix::process::Signal;
use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal as Caught, SignalKind, signal};

use crate::inside;
use crate::layout::PROGRAM;
use crate::platform::{self, Process};
use crate::terminal::{Inner, Terminal};

/// What a command has of its caller's environment. The rest, tokens perhaps, stays outside.
const PASSED: [&str; 9] =
    ["PATH", "TERM", "COLORTERM", "NO_COLOR", "LANG", "LANGUAGE", "TZ", "USER", "LOGNAME"];
/// What says in which sandbox a process is.
const SANDBOX_ID: &str = "S0_SANDBOX_ID";

/// Why a command was not run.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The sandbox is not there any more.
    #[error("the sandbox has ended")]
    Ended,
    /// Its namespaces are closed to this process.
    #[error("the sandbox cannot be entered: {0}; it belongs to the user who made it")]
    Enter(io::Error),
    /// There is no such place inside.
    #[error("there is no directory {} in the sandbox", .0.display())]
    NoDirectory(PathBuf),
    /// There is none to give it.
    #[error("standard input is no terminal; leave `--tty` out")]
    NoTerminal,
    /// The system.
    #[error("the command cannot be started: {0}")]
    Io(#[from] io::Error),
}

/// A command for a sandbox.
#[derive(Debug)]
pub struct Exec<'a> {
    /// The sandbox's id.
    pub id: &'a str,
    /// Its first process.
    pub init: Process,
    /// Its home.
    pub home: &'a Path,
    /// Where the command begins.
    pub directory: &'a Path,
    /// What is added to its environment.
    pub environment: &'a [(OsString, OsString)],
    /// Whether it gets a terminal of its own.
    pub tty: bool,
    /// The program and its arguments.
    pub command: &'a [OsString],
}

impl Exec<'_> {
    /// Runs it, with this process's standard streams, and gives its exit code: 128 and the
    /// signal's number when it was killed. Signals that ask this process to end go to it.
    ///
    /// This process must have one thread, gets no second one, and sees the sandbox's files from
    /// here on.
    ///
    /// # Errors
    /// It was not run.
    pub async fn run(&self) -> Result<u8, ExecError> {
        let terminal = self.tty.then(Terminal::take).transpose();
        let terminal = terminal.map_err(|_| ExecError::NoTerminal)?;
        let init = self.init.hold()?.ok_or(ExecError::Ended)?;
        platform::enter(&init).map_err(ExecError::Enter)?;
        // Before anything of this process's is inside, whatever is there now.
        platform::give_up_rights()?;
        if !self.directory.is_dir() {
            return Err(ExecError::NoDirectory(self.directory.into()));
        }
        let mut signals = Signals::catch()?;
        let status = match &terminal {
            None => {
                let child = self.command(inside::COMMAND).spawn()?;
                signals.pass_on_until_end(child, || {}).await?
            }
            Some(terminal) => {
                let (inner, [input, output, error]) = Inner::open(terminal)?;
                let mut command = self.command(inside::COMMAND_ON_TERMINAL);
                let child = command.stdin(input).stdout(output).stderr(error).spawn()?;
                // They are open here, too, and the end of the others would not be heard.
                drop(command);
                let ended = signals.pass_on_until_end(child, || inner.resize(terminal));
                inner.relay(terminal, ended).await?
            }
        };
        Ok(exit_code(status))
    }

    fn command(&self, word: &str) -> Command {
        // Not `/proc/self/exe`, which would be the host's file, and could be written inside.
        let mut command = Command::new(PROGRAM);
        command.arg(word).args(self.command).current_dir(self.directory);
        command.env_clear();
        let is_passed = |name: &OsStr| {
            let name = name.to_string_lossy();
            PASSED.contains(&&*name) || name.starts_with("LC_")
        };
        command.envs(std::env::vars_os().filter(|(name, _)| is_passed(name)));
        command.env("HOME", self.home).env(SANDBOX_ID, self.id);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}

fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

/// Signals to this process that are about the command.
struct Signals([(Caught, Signal); 5]);

impl Signals {
    fn catch() -> io::Result<Self> {
        Ok(Self([
            (signal(SignalKind::interrupt())?, Signal::INT),
            (signal(SignalKind::terminate())?, Signal::TERM),
            (signal(SignalKind::hangup())?, Signal::HUP),
            (signal(SignalKind::quit())?, Signal::QUIT),
            (signal(SignalKind::window_change())?, Signal::WINCH),
        ]))
    }

    async fn next(&mut self) -> Signal {
        std::future::poll_fn(|context| {
            let mut all = self.0.iter_mut();
            let heard = all.find_map(|(caught, signal)| {
                caught.poll_recv(context).is_ready().then_some(*signal)
            });
            heard.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// Waits for the command. A terminal outside that was `resized` is no signal to it: it has
    /// none, or one of its own.
    async fn pass_on_until_end(
        &mut self,
        mut child: Child,
        resized: impl Fn(),
    ) -> io::Result<ExitStatus> {
        loop {
            tokio::select! {
                ended = child.wait() => return ended,
                signal = self.next() => match (signal, child.id()) {
                    (Signal::WINCH, _) => resized(),
                    // Its number is its own as long as it was not waited for, and none after that.
                    (signal, Some(pid)) => platform::pass_on(pid, signal),
                    (_, None) => {}
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_of_shells() {
        assert_eq!(exit_code(ExitStatus::from_raw(0)), 0);
        assert_eq!(exit_code(ExitStatus::from_raw(7 << 8)), 7);
        assert_eq!(exit_code(ExitStatus::from_raw(9)), 137);
        assert_eq!(exit_code(ExitStatus::from_raw(15)), 143);
    }
}
