//! The arguments.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory as _, Parser, Subcommand};

use crate::screen::Format;

mod sandbox;
mod service;
mod sync;
mod token;
mod volume;

pub(crate) use sandbox::{InSandbox, NewSandbox, Sandbox, SandboxVolume};
pub(crate) use service::Service;
pub(crate) use sync::{Conflicts, Held, InitFrom, PathAt, Pause, Role, Side, Sync};
pub(crate) use token::Token;
pub(crate) use volume::{Files, Limit, Quota, Snapshot, Volume};

/// Options that all commands take come last in every help, under this.
const EVERYWHERE: &str = "With every command";

const EXAMPLES: &str = "\
Examples:
  s0 up                                    keep this directory in a Volume, and watch
  s0 up --tour                             see all of it in a temporary directory
  s0 sync attach VOLUME ~/work/project     the same, in the background
  s0 sync attach VOLUME /workspace --as sandbox --sandbox-id sb_1
                                           give an agent the same files
  s0 sync status                           how the workspace around you is
  s0 sync conflicts list                   what both sides changed unseen
  s0 doctor                                what is in the way on this machine

Exit codes:
  0  as asked                              3  conflicts are open, or not everything is across
  1  it failed, or the answer is no        4  the workspace is halted
  2  the arguments are wrong               5  the service cannot be reached, or the Volume is gone

Which service: --server and --token; else SANDBOX0_BASE_URL and SANDBOX0_TOKEN; else a profile
of ~/.config/s0/config.toml; else the service of this machine. A profile looks like this, in a
file for you alone (chmod 600):
  [profiles.work]
  base_url = \"https://s0.example.com\"
  token = \"…\"                              or token_file = \"…\"";

/// Keeps a local directory and a cloud Volume equal, while agents work in it.
#[derive(Debug, Parser)]
#[command(
    name = "s0",
    version,
    after_help = EXAMPLES,
    max_term_width = 100
)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,

    /// What is printed: table (for people), json or yaml (for programs)
    #[arg(
        short, long, global = true, value_enum, default_value_t, value_name = "FORMAT",
        hide_possible_values = true, help_heading = EVERYWHERE
    )]
    pub(crate) output: Format,
    /// The service's address; without it, a profile's, or the service of this machine
    #[arg(
        long, global = true, env = "SANDBOX0_BASE_URL", value_name = "URL",
        hide_env_values = true, help_heading = EVERYWHERE
    )]
    pub(crate) server: Option<String>,
    /// The token for the service; without it, a profile's, or the one of this machine's service
    #[arg(
        long, global = true, env = "SANDBOX0_TOKEN",
        hide_env_values = true, help_heading = EVERYWHERE
    )]
    pub(crate) token: Option<String>,
    /// The profile: a service by name, from the file of profiles
    #[arg(
        long, global = true, env = "S0_PROFILE", value_name = "NAME",
        hide_env_values = true, help_heading = EVERYWHERE
    )]
    pub(crate) profile: Option<String>,
    /// The file of profiles [default: ~/.config/s0/config.toml]
    #[arg(
        long, global = true, env = "S0_CONFIG", value_name = "FILE",
        hide_env_values = true, help_heading = EVERYWHERE
    )]
    pub(crate) config: Option<PathBuf>,
    /// Where it is kept what is attached on this machine [default: ~/.local/state/s0]
    #[arg(
        long, global = true, env = "S0_STATE_DIR", value_name = "DIR",
        hide_env_values = true, help_heading = EVERYWHERE
    )]
    pub(crate) state_dir: Option<PathBuf>,
    /// Where this machine's service keeps its data [default: ~/.local/share/s0]
    #[arg(
        long, global = true, env = "S0_DATA_DIR", value_name = "DIR",
        hide_env_values = true, help_heading = EVERYWHERE
    )]
    pub(crate) data_dir: Option<PathBuf>,
}

impl Args {
    /// The arguments of this process. It ends here when they are wrong.
    pub(crate) fn of_process() -> Self {
        Self::try_parse_from(of_editors(std::env::args_os())).unwrap_or_else(|mut error| {
            // Hidden commands are not for people, also where one is missing.
            if let Some(ContextValue::Strings(names)) = error.get(ContextKind::ValidSubcommand) {
                let all = Self::command();
                let is_shown = |name: &&String| {
                    all.find_subcommand(name).is_none_or(|command| !command.is_hide_set())
                };
                let shown = names.iter().filter(is_shown).cloned().collect();
                error.insert(ContextKind::ValidSubcommand, ContextValue::Strings(shown));
            }
            error.exit()
        })
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Keep a directory in a Volume and show what happens
    ///
    /// Starts this machine's service if none answers, makes or finds the Volume
    /// of the directory, keeps both equal and tells what happens, until Ctrl-C. It
    /// also prints the line with which an agent joins. What is attached once stays
    /// attached: the same again goes on where this ended.
    Up {
        /// The directory; without it, the current one
        directory: Option<PathBuf>,
        /// Show everything once, in temporary directories, and end
        #[arg(long, conflicts_with = "directory")]
        tour: bool,
    },
    /// Attach directories to Volumes, and look after them
    ///
    /// An attached directory is a workspace. For each one a process in the background,
    /// its host, keeps it and its Volume equal, in both directions. What both sides
    /// changed without having seen each other's change is a conflict: both versions
    /// are kept, and you choose.
    ///
    /// Most days: attach once; `status` to see how it is, `conflicts list` when it
    /// is blocked, `flush` to be sure that everything has arrived.
    Sync {
        /// The workspace; without it, the one around the current directory
        #[arg(short = 'C', long, global = true, value_name = "DIR", help_heading = EVERYWHERE)]
        workspace: Option<PathBuf>,
        #[command(subcommand)]
        command: Sync,
    },
    /// Make, look into and delete Volumes
    ///
    /// A Volume is what workspaces are kept equal with: a tree of files, and the journal
    /// of every write to it. `files` reads and writes it without a workspace;
    /// a snapshot keeps a state of it, to go back to.
    Volume {
        #[command(subcommand)]
        command: Volume,
    },
    /// Run agents in sandboxes on this machine
    ///
    /// A sandbox is a group of processes with files of its own: it sees the host's files and cannot
    /// write them, nor see homes and temporary files. Its home, `/tmp` and its directories
    /// (`/workspace`, or those of --path) begin empty, are its own and go with it. It shares the
    /// host's network. Linux only; needs bubblewrap.
    Sandbox {
        #[command(subcommand)]
        command: Sandbox,
    },
    /// Make, list and revoke tokens of the service
    ///
    /// A token says who may do what: it belongs to a team, whose Volumes it opens, and
    /// has roles and an end. The service's own, in its data directory, may do everything.
    Token {
        #[command(subcommand)]
        command: Token,
    },
    /// Run a Volume service
    ///
    /// Prints its address when it is ready. Clients on this machine find it, and
    /// its token, through the data directory. `s0 up` starts one by itself.
    Serve {
        #[command(flatten)]
        options: ServeOptions,
        /// Leave it running and return
        #[arg(long)]
        background: bool,
        /// End the one that runs
        #[arg(long, conflicts_with = "background")]
        stop: bool,
        #[arg(long, hide = true)]
        detached: bool,
    },
    /// Look after what a service keeps: check it, back it up, bring it back
    ///
    /// All of it is about the data directory of this machine's service (`--data-dir` names
    /// another one).
    Service {
        #[command(subcommand)]
        command: Service,
    },
    /// Serve an editor as a language server (`s0-sync-lsp --stdio` is the same)
    ///
    /// Editors start it: see the extensions for VS Code and Neovim. Any LSP client gets
    /// diagnostics, quick fixes and code lenses from it.
    Lsp {
        /// Speak on standard input and output
        #[arg(long, required_unless_present = "print_config_schema")]
        stdio: bool,
        /// Print the JSON schema of the settings, and end
        #[arg(long)]
        print_config_schema: bool,
        /// The editor's process, as some clients say it
        #[arg(long = "clientProcessId", hide = true)]
        client_process_id: Option<u32>,
    },
    /// Look for what is in the way of syncing on this machine
    ///
    /// Checks the service, its token and the clock, what the system allows (inotify), what
    /// the file system of a workspace can do, and how the workspaces are. Exit code 0: nothing
    /// fails; 1: something does, and each line says what to do.
    Doctor {
        /// The directory whose file system is tried; without it, the workspace around you
        directory: Option<PathBuf>,
    },
    /// Print what makes a shell complete this program's words
    #[command(after_help = "\
Examples:
  s0 completions bash > ~/.local/share/bash-completion/completions/s0
  s0 completions zsh > ~/.zfunc/_s0        with `fpath+=~/.zfunc` before `compinit` in ~/.zshrc
  s0 completions fish > ~/.config/fish/completions/s0.fish")]
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Write the manual: one page for each command
    #[command(after_help = "\
Example:
  s0 man ~/.local/share/man/man1 && man s0-sync-attach")]
    Man {
        /// The directory, made if missing
        directory: PathBuf,
    },
    /// Run the host of an attached workspace (started by others)
    #[command(hide = true)]
    Host {
        #[arg(long)]
        replica: String,
        #[arg(long)]
        take_over: bool,
    },
    /// Serve a mount of a Volume (started by others)
    #[command(hide = true)]
    MountHost(MountOptions),
    /// Do on a mount once more what others did (started by mounts)
    #[command(hide = true)]
    MountEcho {
        #[arg(long)]
        root: PathBuf,
        #[arg(long)]
        device: u64,
    },
    /// Keep a sandbox (started by others)
    #[command(hide = true)]
    SandboxWarden {
        #[arg(long)]
        id: String,
        /// End with whoever has the other end of standard input
        #[arg(long)]
        leashed: bool,
    },
    /// Mount in a sandbox, and send the descriptor over standard input (started by wardens)
    #[command(hide = true)]
    SandboxMountHelper {
        /// The sandbox's first process
        #[arg(long)]
        pid: u32,
        /// When it was started, in ticks since the system was
        #[arg(long)]
        started: Option<u64>,
        #[arg(long)]
        path: PathBuf,
        #[arg(long, default_value = "")]
        options: String,
        #[arg(long, conflicts_with = "options")]
        unmount: bool,
        /// Instead, do on what is mounted there once more what others did, if it is this device
        #[arg(long, conflicts_with_all = ["options", "unmount"])]
        perform_on: Option<u64>,
    },
    /// Write files as an agent (started by the tour)
    #[command(hide = true)]
    TourAgent { root: PathBuf },
}

/// What is mounted where.
#[derive(Debug, clap::Args)]
pub(crate) struct MountOptions {
    /// The Volume
    #[arg(long, value_name = "VOLUME")]
    pub(crate) volume_id: String,
    /// The directory; made if missing
    #[arg(long, value_name = "DIR")]
    pub(crate) path: PathBuf,
    /// Whose writes it carries
    #[arg(long, value_name = "ID")]
    pub(crate) sandbox_id: Option<String>,
    /// Nothing can be written through it
    #[arg(long)]
    pub(crate) read_only: bool,
    /// How large its cache on the local disk becomes
    #[arg(long, default_value = "2GiB", value_name = "SIZE")]
    pub(crate) cache: bytesize::ByteSize,
}

impl Command {
    /// Whether it enters a sandbox, which the system allows to a process with one thread.
    pub(crate) fn needs_one_thread(&self) -> bool {
        matches!(self, Self::Sandbox { .. } | Self::SandboxMountHelper { .. })
    }

    /// Whether it goes on in the background when its starter has ended.
    pub(crate) fn is_detached(&self) -> bool {
        matches!(
            self,
            Self::Host { .. }
                | Self::MountHost(_)
                | Self::SandboxWarden { .. }
                | Self::Serve { detached: true, .. }
        )
    }
}

/// The arguments with the command `lsp`, where an editor leaves it out.
pub(crate) fn of_editors(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = arguments.collect();
    let flag = |it: &OsString| it == "--stdio" || it == "--print-config-schema";
    if arguments.iter().any(flag) && !arguments.iter().any(|it| it == "lsp") {
        arguments.insert(1, "lsp".into());
    }
    arguments
}

/// How a log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ServeOptions {
    /// The address to listen at; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDRESS")]
    pub(crate) listen: SocketAddr,
    /// How many entries of each journal are retained; up to four times as many for
    /// replicas that have not read them
    #[arg(long, value_name = "N")]
    pub(crate) retention_entries: Option<u64>,
    /// How many entries lie between checkpoints
    #[arg(long, value_name = "N")]
    pub(crate) checkpoint_every: Option<u64>,
    /// Listen where other machines can reach it, without TLS
    #[arg(long)]
    pub(crate) allow_insecure: bool,
    /// How the log looks: `text`, or `json`, one object in a line
    #[arg(long, value_enum, default_value_t, env = "S0_LOG_FORMAT", hide_env_values = true)]
    pub(crate) log_format: LogFormat,
    /// Say, once, that the data was brought back by other means than `s0 service restore`:
    /// replicas then compare all that they have with it, instead of going on from where they were
    #[arg(long)]
    pub(crate) restored_from_backup: bool,
}
