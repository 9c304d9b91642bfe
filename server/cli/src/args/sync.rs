//! The arguments of `s0 sync`.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use s0_replica::shell::guarded::Guarded;
use s0_tree::Seq;

/// A sandbox's id: it is shown beside all that the sandbox writes.
fn sandbox_id(text: &str) -> Result<String, String> {
    if text.trim().is_empty() {
        return Err("it is empty".into());
    }
    if *crate::screen::plain(text) != *text {
        return Err("it has a character that cannot be seen".into());
    }
    Ok(text.to_owned())
}

/// A pattern of what is not synced: one line of a `.gitignore` that says something.
fn pattern(text: &str) -> Result<String, String> {
    if text.trim().is_empty() || text.starts_with('#') {
        return Err("it matches nothing".into());
    }
    if text.chars().any(char::is_control) {
        return Err("it is not one line; give --ignore once for each pattern".into());
    }
    // Among the rules of a file such a line is passed over; here somebody waits for it.
    let mut rules = ignore::gitignore::GitignoreBuilder::new("/");
    rules.add_line(None, text).map_err(|error| format!("it is no pattern: {error}"))?;
    Ok(text.to_owned())
}

/// A pattern of guarded paths.
fn guard(text: &str) -> Result<String, String> {
    if text.trim().is_empty() {
        return Err("it matches nothing; --no-guard guards nothing".into());
    }
    Guarded::new(&[text]).map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}

/// A path as it was after an entry of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PathAt {
    pub(crate) path: PathBuf,
    pub(crate) seq: Seq,
}

fn path_at(text: &str) -> Result<PathAt, String> {
    let parts = text.rsplit_once('@').filter(|(path, _)| !path.is_empty());
    let parsed = parts.and_then(|(path, seq)| Some((path, seq.parse().ok()?)));
    let (path, seq) = parsed.ok_or(
        "a version is a path, @ and a number, such as main.rs@17; `s0 sync history PATH` lists \
         those of a path",
    )?;
    Ok(PathAt { path: path.into(), seq: Seq(seq) })
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
    ///
    /// Starts the host of the workspace, and returns when both sides are equal or what
    /// is left waits for you. Nothing is deleted on either side. Exit code as of
    /// `status`. `s0 volume create` makes a Volume, `s0 up` one for a directory.
    #[command(after_help = "\
Examples:
  s0 sync attach vol_123 ~/work/project
  s0 sync attach vol_123 ~/work/project --init-from volume
                                       on a second machine: local files wait for `include`
  s0 sync attach vol_123 --ignore '*.bin' --ignore /data/
                                       the directory here, without some of it
  s0 sync attach vol_123 /workspace --as sandbox --sandbox-id sb_1
                                       in a sandbox: what an agent writes bears the name sb_1")]
    Attach {
        /// The Volume's id; `s0 volume list` shows them
        volume: String,
        /// The directory, made if missing; without it, the current one
        directory: Option<PathBuf>,
        /// How to begin when both sides hold files [default: auto]
        #[arg(long, value_enum, value_name = "SIDE")]
        init_from: Option<InitFrom>,
        /// Stay, and tell what happens, until Ctrl-C
        #[arg(long)]
        foreground: bool,
        /// Stand for a sandbox: an agent works in this directory
        #[arg(long = "as", value_enum, value_name = "ROLE", requires = "sandbox_id")]
        role: Option<Role>,
        /// The sandbox's id, by which its writes are known
        #[arg(long, requires = "role", value_name = "ID", value_parser = sandbox_id)]
        sandbox_id: Option<String>,
        /// What an open conflict holds back [default: workspace; path for a sandbox]
        #[arg(long, value_enum, value_name = "WHAT")]
        pause: Option<Pause>,
        /// What stays on each side, as a line of a `.gitignore`; may be given again
        #[arg(long, value_name = "PATTERN", value_parser = pattern)]
        ignore: Vec<String>,
        /// What sandboxes write there is held until you let it in, instead of the usual
        ///
        /// A name anywhere, or a path with a slash; may be given again. The usual: .vscode,
        /// .idea, .envrc, .husky and others that editors, shells and tools run by themselves.
        /// `s0 sync held` lists what is held.
        #[arg(long, value_name = "PATTERN", value_parser = guard, conflicts_with = "role")]
        guard: Vec<String>,
        /// Hold nothing: let all that sandboxes write in at once
        #[arg(long, conflicts_with_all = ["guard", "role"])]
        no_guard: bool,
        /// Return at once, not when both sides are equal
        #[arg(long, conflicts_with = "foreground")]
        no_wait: bool,
    },
    /// Stop syncing a workspace; its files and the Volume stay
    ///
    /// Ends its host, and forgets what was agreed on. `stop` only ends the host.
    Detach {
        /// The workspace's directory, its Volume or its replica (see `list`); without it, the
        /// workspace around you
        target: Option<String>,
        /// End a host that does not answer, too; that loses nothing
        #[arg(long)]
        force: bool,
        /// Remove what this machine knows of the workspace, which detaching does anyway
        #[arg(long)]
        purge_state: bool,
    },
    /// List the workspaces that are attached on this machine
    ///
    /// The state is that of `status`, or: stopped (no host runs; `start`), no answer (the
    /// host hangs), damaged (its record cannot be read).
    List,
    /// Say how the workspace is, and what is in the way
    ///
    /// Exit code 0: in sync, or on the way; 3: uploads wait for conflicts;
    /// 4: halted; 5: the service cannot be reached, or the Volume is gone; 1: no host
    /// runs.
    Status,
    /// Show the log of the workspace's host: what came and went, and every trouble
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
    /// For scripts: when it returns with 0, all that was written here before is in the
    /// Volume, and all that the Volume held is here. 3: not everything, and the rest is
    /// listed.
    Flush {
        /// How many seconds to wait at most
        #[arg(long, default_value_t = 30.0, value_name = "SECONDS")]
        timeout: f64,
    },
    /// Read every file and compare with the Volume
    ///
    /// Exit code 0: equal; 1: not, and the differences are listed; 3: paths are in
    /// conflict. What is meant to differ is not compared, and said: files that wait for
    /// `include`, what ignore rules keep away, conflicts that you left as they are.
    Verify,
    /// See and settle conflicts
    ///
    /// A conflict is a path that both sides changed without having seen each other's
    /// change, or a name that some machine cannot hold. Your file stays as it is,
    /// and so does the Volume's. Until all are settled, uploads of the workspace wait
    /// (with `--pause path`: those of the path).
    Conflicts {
        #[command(subcommand)]
        command: Conflicts,
    },
    /// See, let in or discard writes that are held
    ///
    /// What a sandbox writes where it would run on this machine by itself (`.envrc`,
    /// `.vscode/`, `.husky/` and the like) waits until you let it in, and so does what
    /// comes for a document of which an editor has unsaved text.
    #[command(after_help = "\
Examples:
  s0 sync held list
  s0 volume files cat VOLUME .envrc        read it before you let it in
  s0 sync held allow .envrc
  s0 sync held discard .vscode             yours stay, and go to the Volume")]
    Held {
        #[command(subcommand)]
        command: Held,
    },
    /// List the versions that a path had, newest first
    ///
    /// Whatever anybody wrote to the Volume made a version, known by the number of its
    /// journal entry, SEQ. A file is followed over its renames, and a path that is gone
    /// has a history as well. It goes back as far as the service retains the journal.
    #[command(after_help = "\
Examples:
  s0 sync history src/main.rs
  s0 sync show src/main.rs@17              read what entry 17 made of it
  diff <(s0 sync show main.rs@17) main.rs  compare that with what is here
  s0 sync restore src/main.rs@17           bring it back")]
    History {
        /// The path, as it is now or was last
        path: PathBuf,
        /// How many versions
        #[arg(short = 'n', long = "versions", default_value_t = 20, value_name = "N")]
        limit: usize,
        /// Only what was at this very path, not where its file was before a rename
        #[arg(long)]
        no_follow: bool,
    },
    /// Print what a path held after an entry of the journal
    ///
    /// The bytes of a file as they were, or the target of a symbolic link. SEQ may be any
    /// retained entry, not only one that `history` lists for the path.
    #[command(after_help = "\
Examples:
  s0 sync show src/main.rs@17
  s0 sync show logo.png@17 > old-logo.png")]
    Show {
        /// The path, and the entry after which it is looked at
        #[arg(value_name = "PATH@SEQ", value_parser = path_at)]
        version: PathAt,
        /// Only what was at this very path, not where its file was before a rename
        #[arg(long)]
        no_follow: bool,
    },
    /// Bring back what a path held after an entry of the journal
    ///
    /// It is written to the Volume like any other change: attached workspaces follow,
    /// and what you have edited here and not sent yet becomes a conflict, never lost. If
    /// somebody writes to the path at the same moment, nothing is written.
    #[command(after_help = "\
Examples:
  s0 sync restore src/main.rs@17           it holds again what entry 17 made of it
  s0 sync restore src/main.rs@17 --seen 23
                                           only if no entry after 23 has changed it

For a whole directory, take a snapshot before a big change: `s0 volume snapshot --help`.")]
    Restore {
        /// The path as it is now or was last, and the entry after which it was right
        #[arg(value_name = "PATH@SEQ", value_parser = path_at)]
        version: PathAt,
        /// The last entry that you have seen; nothing is written if a later one changed
        /// the path
        #[arg(long, value_name = "SEQ")]
        seen: Option<u64>,
        /// Only what was at this very path, not where its file was before a rename
        #[arg(long)]
        no_follow: bool,
    },
    /// Go on after a halt
    ///
    /// Syncing halts when the directory is gone or emptied, when most files vanish at
    /// once, or when the disk is full. `status` says which. Repair that, then resume.
    Resume {
        /// The files vanished because you removed them: remove them in the Volume, too
        #[arg(long)]
        confirm_deletions: bool,
    },
    /// Upload local files that wait for your word (after `--init-from volume`)
    ///
    /// `status` lists those that wait.
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
    ///
    /// What is written meanwhile is synced after `start`.
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
pub(crate) enum Held {
    /// List the writes that are held
    List,
    /// Let them in as they are now; a later version is held again
    Allow {
        /// Files, or directories with all below
        #[arg(required = true)]
        paths: Vec<PathBuf>,
    },
    /// Keep what is here; it goes to the Volume in their place
    Discard {
        /// Files, or directories with all below
        #[arg(required = true)]
        paths: Vec<PathBuf>,
    },
    /// Keep what is here, and put them beside it
    KeepBoth {
        /// Files, or directories with all below
        #[arg(required = true)]
        paths: Vec<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Conflicts {
    /// List conflicts
    List,
    /// Show a conflict and its ways out, or the content of one of its sides
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
