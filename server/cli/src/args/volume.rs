//! The arguments of `s0 volume`.

use std::path::PathBuf;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum Volume {
    /// Make a Volume and print its id
    Create {
        /// Who may use it: RWO (one owner), ROX (many read) or RWX (many read and write)
        #[arg(long, default_value = "RWX", value_name = "MODE")]
        access_mode: String,
        #[command(flatten)]
        quota: Quota,
    },
    /// Change how much a Volume may hold
    ///
    /// A smaller quota takes nothing away: it only keeps more from coming. What a
    /// workspace cannot send for lack of room stays there, and goes when there is room.
    #[command(arg_required_else_help = true)]
    Set {
        /// The Volume's id
        volume: String,
        #[command(flatten)]
        quota: Quota,
    },
    /// Show a Volume
    Get {
        /// The Volume's id
        volume: String,
    },
    /// List Volumes
    List,
    /// Delete a Volume with its journal and snapshots, for ever
    ///
    /// Files in attached directories stay.
    Delete {
        /// The Volume's id
        volume: String,
        /// Even if a workspace of this machine is attached to it
        #[arg(long)]
        force: bool,
    },
    /// Make a Volume that starts as another one is now, and print its id
    ///
    /// From then on both go their own ways.
    Fork {
        /// The other one's id
        volume: String,
        /// As of `create`; without it, the default
        #[arg(long, value_name = "MODE")]
        access_mode: Option<String>,
        #[command(flatten)]
        quota: Quota,
    },
    /// Read and write files in a Volume
    ///
    /// Writes count as those of a sandbox, and reach every attached directory at once.
    Files {
        #[command(subcommand)]
        command: Files,
    },
    /// Take snapshots of a Volume, and go back to them
    Snapshot {
        #[command(subcommand)]
        command: Snapshot,
    },
}

/// How much a Volume may hold.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Quota {
    /// The most bytes that its files may have: a number, `500MB`, `10GiB`, or `none`
    #[arg(long, value_name = "SIZE", value_parser = limit_of_bytes)]
    pub(crate) quota_bytes: Option<Limit>,
    /// The most files, directories, links and pipes, or `none`
    #[arg(long, value_name = "NUMBER", value_parser = limit)]
    pub(crate) quota_inodes: Option<Limit>,
}

/// A limit, or that there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limit(pub(crate) Option<u64>);

fn limit(text: &str) -> Result<Limit, String> {
    match text {
        "none" => Ok(Limit(None)),
        number => number
            .parse()
            .map(|number| Limit(Some(number)))
            .map_err(|_| "it is a number, or `none`".to_owned()),
    }
}

fn limit_of_bytes(text: &str) -> Result<Limit, String> {
    match text {
        "none" => Ok(Limit(None)),
        size => size.parse().map(|bytesize::ByteSize(bytes)| Limit(Some(bytes))).map_err(|_| {
            "it is a number of bytes, a size such as 500MB or 10GiB, or `none`".to_owned()
        }),
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Files {
    /// List a directory
    Ls {
        /// The Volume's id
        volume: String,
        /// The directory
        #[arg(default_value = "/")]
        path: String,
    },
    /// Print a file
    Cat {
        /// The Volume's id
        volume: String,
        /// The file
        path: String,
    },
    /// Show what is at a path
    Stat {
        /// The Volume's id
        volume: String,
        /// The path
        path: String,
    },
    /// Make a directory
    Mkdir {
        /// The Volume's id
        volume: String,
        /// The directory
        path: String,
        /// With those above it; one that is there is fine
        #[arg(short, long)]
        parents: bool,
    },
    /// Remove a file, or a directory with all below; attached directories follow
    Rm {
        /// The Volume's id
        volume: String,
        /// The path
        path: String,
    },
    /// Move a file or directory
    Mv {
        /// The Volume's id
        volume: String,
        /// From where
        from: String,
        /// To where
        to: String,
    },
    /// Copy a local file, or a directory with all below, into a Volume
    ///
    /// What the Volume has at the path is replaced. Links in a directory are left out.
    Upload {
        /// The Volume's id
        volume: String,
        /// The local path
        local: PathBuf,
        /// The path in the Volume
        path: String,
    },
    /// Copy a file, or a directory with all below, out of a Volume
    ///
    /// Nothing on the disk is replaced without --force, and no link there is followed.
    /// Links of the Volume are left out.
    Download {
        /// The Volume's id
        volume: String,
        /// The path in the Volume
        path: String,
        /// The local path; without it, the name in the current directory
        local: Option<PathBuf>,
        /// Replace files that are there
        #[arg(long)]
        force: bool,
    },
    /// Write standard input into a file
    #[command(after_help = "Example:\n  echo done | s0 volume files write vol_123 notes.txt")]
    Write {
        /// The Volume's id
        volume: String,
        /// The file
        path: String,
    },
    /// Tell of changes as they are made, until Ctrl-C
    #[command(after_help = "\
Examples:
  s0 volume files watch vol_123            whatever changes
  s0 volume files watch vol_123 src -r     whatever changes below src")]
    Watch {
        /// The Volume's id
        volume: String,
        /// The file or directory
        #[arg(default_value = "/")]
        path: String,
        /// With all below; always so for the whole Volume
        #[arg(short, long)]
        recursive: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Snapshot {
    /// Take a snapshot and print its id
    Create {
        /// The Volume's id
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
        /// The Volume's id
        volume: String,
    },
    /// Show a snapshot
    Get {
        /// The Volume's id
        volume: String,
        /// The snapshot
        snapshot: String,
    },
    /// Delete a snapshot
    Delete {
        /// The Volume's id
        volume: String,
        /// The snapshot
        snapshot: String,
    },
    /// Make the Volume hold what the snapshot holds; attached directories follow
    ///
    /// It is journaled as ordinary writes, so that a snapshot taken before undoes it.
    Restore {
        /// The Volume's id
        volume: String,
        /// The snapshot
        snapshot: String,
    },
}
