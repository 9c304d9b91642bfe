//! The arguments.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

use crate::screen::Format;

const EXAMPLES: &str = "\
Examples:
  s0 up                                    keep this directory in a Volume, and watch
  s0 up --tour                             see all of it in a temporary directory
  s0 sync attach VOLUME ~/work/project     the same, in the background
  s0 sync attach VOLUME /workspace --as sandbox --sandbox-id sb_1
                                           give an agent the same files
  s0 sync status                           how the workspace around you is
  s0 sync conflicts list                   what both sides changed unseen";

/// Keeps a local directory and a cloud Volume equal, while agents work in it.
#[derive(Debug, Parser)]
#[command(name = "s0", version, after_help = EXAMPLES, max_term_width = 100)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,

    /// What the output is for
    #[arg(short, long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) output: Format,
    /// The service's address; without it, the service of this machine
    #[arg(long, global = true, env = "SANDBOX0_BASE_URL", value_name = "URL")]
    pub(crate) server: Option<String>,
    /// The token for the service; without it, the one of this machine's service
    #[arg(long, global = true, env = "SANDBOX0_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// Where the state of this user's workspaces is
    #[arg(long, global = true, env = "S0_STATE_DIR", value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// Where this machine's service keeps its data
    #[arg(long, global = true, env = "S0_DATA_DIR", value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Keep a directory in a Volume and show what happens
    ///
    /// Starts this machine's service if none answers, makes or finds the Volume
    /// of the directory, keeps both equal and tells what happens, until Ctrl-C.
    Up {
        /// The directory; without it, the current one
        directory: Option<PathBuf>,
        /// Show everything once, in temporary directories, and end
        #[arg(long, conflicts_with = "directory")]
        tour: bool,
    },
    /// Attach directories to Volumes, and look after them
    Sync {
        /// The workspace; without it, the one around the current directory
        #[arg(short = 'C', long, global = true, value_name = "DIR")]
        workspace: Option<PathBuf>,
        #[command(subcommand)]
        command: Sync,
    },
    /// Make, look into and delete Volumes
    Volume {
        #[command(subcommand)]
        command: Volume,
    },
    /// Run a Volume service
    ///
    /// Prints its address when it is ready. Clients on this machine find it, and
    /// its token, through the data directory.
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
    /// Run the host of an attached workspace (started by others)
    #[command(hide = true)]
    Host {
        #[arg(long)]
        replica: String,
        #[arg(long)]
        take_over: bool,
    },
    /// Write files as an agent (started by the tour)
    #[command(hide = true)]
    TourAgent { root: PathBuf },
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
    /// Say, once, that the data was brought back from a backup: replicas then compare
    /// all that they have with it, instead of going on from where they were
    #[arg(long)]
    pub(crate) restored_from_backup: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum InitFrom {
    /// An empty side takes the other; what differs is a conflict
    Auto,
    /// Local files that the Volume does not have wait for your word
    Volume,
    /// Where files differ, the local ones go over the Volume's
    Local,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Pause {
    /// All uploads of the workspace
    Workspace,
    /// Only the path in conflict
    Path,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// Writes count as those of the sandbox `--sandbox-id`
    Sandbox,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Sync {
    /// Attach a directory to a Volume and keep both equal
    #[command(after_help = "\
Examples:
  s0 sync attach vol_123 ~/work/project
  s0 sync attach vol_123 ~/work/project --init-from volume
  s0 sync attach vol_123 /workspace --as sandbox --sandbox-id sb_1")]
    Attach {
        /// The Volume
        volume: String,
        /// The directory, made if missing; without it, the current one
        directory: Option<PathBuf>,
        /// How to begin when both sides hold files
        #[arg(long, value_enum, default_value = "auto", value_name = "SIDE")]
        init_from: InitFrom,
        /// Stay, and tell what happens, until Ctrl-C
        #[arg(long)]
        foreground: bool,
        /// Stand for a sandbox
        #[arg(long = "as", value_enum, value_name = "ROLE", requires = "sandbox_id")]
        role: Option<Role>,
        /// The sandbox
        #[arg(long, requires = "role", value_name = "ID")]
        sandbox_id: Option<String>,
        /// What an open conflict holds back [default: workspace; path for a sandbox]
        #[arg(long, value_enum, value_name = "WHAT")]
        pause: Option<Pause>,
        /// Return at once, not when both sides are equal
        #[arg(long, conflicts_with = "foreground")]
        no_wait: bool,
    },
    /// Stop syncing a workspace; its files and the Volume stay
    Detach {
        /// The directory or the Volume; without it, the workspace around you
        target: Option<String>,
    },
    /// List the workspaces that are attached on this machine
    List,
    /// How the workspace is
    ///
    /// Exit code 0: in sync, or on the way; 3: uploads wait for conflicts;
    /// 4: halted; 5: the service cannot be reached; 1: no host runs.
    Status,
    /// Show the host's log
    Logs {
        /// Go on as it grows
        #[arg(short, long)]
        follow: bool,
        /// How many lines of it
        #[arg(short = 'n', long, default_value_t = 50, value_name = "N")]
        lines: usize,
    },
    /// Wait until everything is across, both ways
    ///
    /// Exit code 0: it is; 3: not everything, and the rest is listed.
    Flush {
        /// How many seconds to wait at most
        #[arg(long, default_value_t = 30.0, value_name = "SECONDS")]
        timeout: f64,
    },
    /// Read every file and compare with the Volume
    ///
    /// Exit code 0: equal; 1: not, and the differences are listed.
    Verify,
    /// See and settle conflicts
    Conflicts {
        #[command(subcommand)]
        command: Conflicts,
    },
    /// Go on after a halt
    Resume {
        /// The files that vanished were meant to
        #[arg(long)]
        confirm_deletions: bool,
    },
    /// Upload local files that wait for your word (after `--init-from volume`)
    Include {
        /// Files, or directories with all below
        #[arg(required_unless_present = "all")]
        paths: Vec<PathBuf>,
        /// All of them
        #[arg(long, conflicts_with = "paths")]
        all: bool,
    },
    /// Stop syncing paths that ignore rules match; nothing is removed anywhere
    ///
    /// A rule keeps new paths from being synced; what was synced before goes on
    /// being synced until it is forgotten. The local files stay, the Volume's stay,
    /// and neither side hears of the other's changes while a rule matches.
    #[command(after_help = "\
Example: you have synced a build directory, and do not want to any more.
  echo '/build/' >> .s0ignore              the rule first (or .gitignore)
  s0 sync forget build

A rule in .git/info/exclude holds on this machine only. Take the rule away, and the
path is synced again; if its sides differ by then, that is a conflict.")]
    Forget {
        /// Files, or directories with all below
        #[arg(required = true)]
        paths: Vec<PathBuf>,
    },
    /// Start the workspace's host
    ///
    /// Shows progress, and returns when both sides are equal, or when what is left
    /// waits for you or for the service. Exit code as of `status`: 0: in sync; 3:
    /// uploads wait for conflicts; 4: halted; 5: the service cannot be reached.
    #[command(after_help = "\
Examples:
  s0 sync start                            and wait until both sides are equal
  s0 sync start --no-wait && make          the rest goes on in the background;
  s0 sync flush                            a flush waits for it, when you want to")]
    Start {
        /// Return as soon as the host runs
        #[arg(long)]
        no_wait: bool,
    },
    /// End the workspace's host; the workspace stays attached
    Stop,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Side {
    /// What this workspace had
    Mine,
    /// What the Volume has
    Theirs,
    /// What both had before
    Base,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Conflicts {
    /// List conflicts
    List,
    /// Show a conflict, or the content of one of its sides
    Show {
        /// The path
        path: PathBuf,
        /// Print this side's content, as it is
        #[arg(long, value_enum)]
        side: Option<Side>,
    },
    /// Say that the local file is right as it stands; uploads go on
    #[command(after_help = "\
Examples:
  s0 sync conflicts mark src/main.rs       after you have repaired it
  s0 sync conflicts mark --all
  s0 sync conflicts mark notes --ignore    leave both sides as they are")]
    Mark {
        /// Files, or directories with all conflicts below
        #[arg(required_unless_present = "all")]
        paths: Vec<PathBuf>,
        /// All conflicts
        #[arg(long, conflicts_with = "paths")]
        all: bool,
        /// Leave both sides as they are; nothing waits for it any more
        #[arg(long)]
        ignore: bool,
    },
    /// Choose a side, or merge
    ///
    /// Exit code 0: settled; 3: a merge has overlaps, which are marked in the
    /// file and wait for you; 1: something could not be done.
    #[command(group = clap::ArgGroup::new("way").required(true), after_help = "\
Examples:
  s0 sync conflicts resolve src/main.rs --merge   what each side changed, in one text
  s0 sync conflicts resolve docs --take-theirs    all conflicts below docs
  s0 sync conflicts resolve --all --keep-mine

Where both sides changed the same lines, --merge writes both into the file, between
<<<<<<< mine and >>>>>>> theirs, and the conflict stays open: nothing with such marks
goes to the Volume. Edit the file, then:
  s0 sync conflicts mark src/main.rs")]
    Resolve {
        /// Files, or directories with all conflicts below
        #[arg(required_unless_present = "all")]
        paths: Vec<PathBuf>,
        /// All conflicts
        #[arg(long, conflicts_with = "paths")]
        all: bool,
        /// The local file goes to the Volume
        #[arg(long, group = "way")]
        keep_mine: bool,
        /// The Volume's file comes here
        #[arg(long, group = "way")]
        take_theirs: bool,
        /// The local file moves aside, and the Volume's comes
        #[arg(long, group = "way")]
        keep_both: bool,
        /// What each side changed goes into one text (UTF-8, up to 8 MiB)
        #[arg(long, group = "way")]
        merge: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Volume {
    /// Make a Volume and print its id
    Create {
        /// Who may write it from where: RWO, ROX or RWX
        #[arg(long, default_value = "RWX", value_name = "MODE")]
        access_mode: String,
    },
    /// Show a Volume
    Get {
        /// The Volume
        volume: String,
    },
    /// List Volumes
    List,
    /// Delete a Volume with its journal and snapshots
    Delete {
        /// The Volume
        volume: String,
        /// Even if it is in use
        #[arg(long)]
        force: bool,
    },
    /// Make a Volume that starts as another one is now
    Fork {
        /// The other one
        volume: String,
        /// Who may write the new one from where
        #[arg(long, value_name = "MODE")]
        access_mode: Option<String>,
    },
    /// Read and write files in a Volume
    Files {
        #[command(subcommand)]
        command: Files,
    },
    /// Snapshots of a Volume
    Snapshot {
        #[command(subcommand)]
        command: Snapshot,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Files {
    /// List a directory
    Ls {
        /// The Volume
        volume: String,
        /// The directory
        #[arg(default_value = "/")]
        path: String,
    },
    /// Print a file
    Cat {
        /// The Volume
        volume: String,
        /// The file
        path: String,
    },
    /// Show what is at a path
    Stat {
        /// The Volume
        volume: String,
        /// The path
        path: String,
    },
    /// Make a directory
    Mkdir {
        /// The Volume
        volume: String,
        /// The directory
        path: String,
        /// With those above it; one that is there is fine
        #[arg(short, long)]
        parents: bool,
    },
    /// Remove a file, or a directory with all below
    Rm {
        /// The Volume
        volume: String,
        /// The path
        path: String,
    },
    /// Move a file or directory
    Mv {
        /// The Volume
        volume: String,
        /// From where
        from: String,
        /// To where
        to: String,
    },
    /// Copy a local file, or a directory with all below, into a Volume
    Upload {
        /// The Volume
        volume: String,
        /// The local path
        local: PathBuf,
        /// The path in the Volume
        path: String,
    },
    /// Copy a file, or a directory with all below, out of a Volume
    Download {
        /// The Volume
        volume: String,
        /// The path in the Volume
        path: String,
        /// The local path; without it, the name in the current directory
        local: Option<PathBuf>,
    },
    /// Write standard input into a file
    #[command(after_help = "Example:\n  echo done | s0 volume files write vol_123 notes.txt")]
    Write {
        /// The Volume
        volume: String,
        /// The file
        path: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Snapshot {
    /// Take a snapshot and print its id
    Create {
        /// The Volume
        volume: String,
        /// Its name
        #[arg(long, default_value = "snapshot")]
        name: String,
        /// What it is for
        #[arg(long, default_value = "")]
        description: String,
    },
    /// List snapshots
    List {
        /// The Volume
        volume: String,
    },
    /// Show a snapshot
    Get {
        /// The Volume
        volume: String,
        /// The snapshot
        snapshot: String,
    },
    /// Delete a snapshot
    Delete {
        /// The Volume
        volume: String,
        /// The snapshot
        snapshot: String,
    },
    /// Make the Volume hold what the snapshot holds
    Restore {
        /// The Volume
        volume: String,
        /// The snapshot
        snapshot: String,
    },
}
