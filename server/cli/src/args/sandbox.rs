//! The arguments of `s0 sandbox`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Subcommand;

/// What a command in a sandbox has.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct InSandbox {
    /// Add a variable to its environment; can be given again
    #[arg(short, long = "env", value_name = "NAME=VALUE", value_parser = variable)]
    pub(crate) env: Vec<(OsString, OsString)>,
    /// Where it begins; without it, the sandbox's first directory
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<PathBuf>,
    /// Give it a terminal of its own, as shells and editors need it
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

/// What a new sandbox is.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct NewSandbox {
    /// A name, which other commands take as well as the id
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// A directory that is the sandbox's own, made if the host has none; can be given again
    #[arg(long = "path", value_name = "DIR", default_value = "/workspace")]
    pub(crate) paths: Vec<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Sandbox {
    /// Make a sandbox that stays, and print its id
    #[command(after_help = "\
Examples:
  s0 sandbox create
  ID=$(s0 sandbox create --name reviewer --path /workspace --path /data)")]
    Create {
        #[command(flatten)]
        new: NewSandbox,
    },
    /// Run a command in a sandbox, and end with its exit code
    ///
    /// It has this command's standard input, output and error. Ctrl-C and SIGTERM go to it. The
    /// exit code is 128 and the signal's number when a signal ended it, 127 when there is no such
    /// command in the sandbox, and 126 when it cannot be run. Of your environment it has the
    /// language, the terminal and PATH; the rest, tokens perhaps, stays outside.
    #[command(after_help = "\
Examples:
  s0 sandbox exec reviewer -- ls -la
  s0 sandbox exec reviewer -t -- bash
  git diff | s0 sandbox exec reviewer -e MODEL=small -w /data -- agent --review")]
    Exec {
        /// The sandbox's id or name
        #[arg(value_name = "SANDBOX")]
        sandbox: String,
        #[command(flatten)]
        inside: InSandbox,
    },
    /// Run a command in a sandbox of its own, which ends with it
    #[command(after_help = "\
Examples:
  s0 sandbox run -- python3 untrusted.py
  s0 sandbox run -t -- bash
  s0 sandbox run --name reviewer --keep -- ./prepare      and then `s0 sandbox exec reviewer`")]
    Run {
        #[command(flatten)]
        new: NewSandbox,
        /// Leave the sandbox there afterwards
        #[arg(long)]
        keep: bool,
        #[command(flatten)]
        inside: InSandbox,
    },
    /// List the sandboxes of this machine
    ///
    /// One whose warden was killed shows as `ended`, once: then it is forgotten.
    List,
    /// End a sandbox with all its processes and mounts
    ///
    /// Its processes are asked first (SIGTERM), and have five seconds.
    Stop {
        /// The sandbox's id or name
        #[arg(value_name = "SANDBOX", required_unless_present = "all")]
        sandbox: Option<String>,
        /// All sandboxes of this machine
        #[arg(long, conflicts_with = "sandbox")]
        all: bool,
        /// Ask nobody: also when the sandbox's warden hangs
        #[arg(long)]
        force: bool,
    },
}

fn variable(text: &str) -> Result<(OsString, OsString), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.into())),
        _ => Err("write it as NAME=VALUE".into()),
    }
}
