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
    /// Mount this Volume at the first of these directories
    #[arg(long, value_name = "VOLUME")]
    pub(crate) volume_id: Option<String>,
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
    ///
    /// With a Volume, the command has its files at /workspace, and what it writes is in the
    /// Volume, and on the disk of whoever attached it, while it still runs.
    #[command(after_help = "\
Examples:
  s0 sandbox run --volume-id VOLUME -- agent 'fix the failing test'
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
    /// Mount Volumes in sandboxes, or right here
    ///
    /// Inside, a mounted Volume is an ordinary directory. Many sandboxes can mount one Volume
    /// at once (access mode RWX); a write that was closed in one is what the next `open` in
    /// another finds. It needs FUSE; where there is none, `s0 sync attach VOLUME DIR --as sandbox`
    /// keeps a plain directory equal to the Volume.
    Volume {
        #[command(subcommand)]
        command: SandboxVolume,
    },
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

/// Where a Volume is, or is to be, mounted.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct MountPoint {
    /// The directory
    #[arg(long, value_name = "DIR", default_value = "/workspace")]
    pub(crate) path: PathBuf,
    /// The sandbox's id or name; without it, right here, outside of any
    #[arg(short, long, value_name = "SANDBOX")]
    pub(crate) sandbox_id: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SandboxVolume {
    /// Mount a Volume
    ///
    /// In a sandbox it is served with a token for this Volume alone, which ends with the
    /// mount. Who may only read mounts with --read-only.
    #[command(after_help = "\
Examples:
  s0 sandbox volume mount --volume-id VOLUME --path /workspace --sandbox-id sb_x7k2
  s0 sandbox volume mount --volume-id VOLUME --path ~/look --read-only")]
    Mount {
        /// The Volume
        #[arg(long, value_name = "VOLUME")]
        volume_id: String,
        #[command(flatten)]
        at: MountPoint,
        /// Nothing can be written through it
        #[arg(long)]
        read_only: bool,
        /// How large its cache on the local disk becomes
        #[arg(long, default_value = "2GiB", value_name = "SIZE")]
        cache: bytesize::ByteSize,
    },
    /// Take a mount away; what was written is in the Volume then
    Unmount {
        #[command(flatten)]
        at: MountPoint,
    },
    /// Show what is mounted
    Status {
        /// The sandbox's id or name; without it, all sandboxes and what is mounted right here
        #[arg(short, long, value_name = "SANDBOX")]
        sandbox_id: Option<String>,
    },
}

fn variable(text: &str) -> Result<(OsString, OsString), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.into())),
        _ => Err("write it as NAME=VALUE".into()),
    }
}
