//! The arguments of `s0 service`.

use std::path::PathBuf;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum Service {
    /// Check that all that is kept is there, true, and one with itself
    ///
    /// Every entry of each journal is folded and compared with the checkpoints; every
    /// content that a tree, snapshot, entry or open conflict names is read and compared with
    /// its hash. Nothing is changed, and the service may run meanwhile. Exit code 0: all is
    /// well; 1: something is not, and each line says what and where.
    Fsck {
        /// Look only whether contents are there, and not at their bytes
        #[arg(long)]
        quick: bool,
        /// Put damaged contents out of the way: whoever still has such a file can send it again
        #[arg(long, conflicts_with = "quick")]
        set_aside: bool,
    },
    /// Back up all Volumes into a directory, while the service runs
    ///
    /// The copy is of one moment. Into the directory of an earlier backup only what is new is
    /// copied; until that is done, the earlier one stays whole. Tokens of people are in it as
    /// hashes, the service's own is not.
    #[command(after_help = "\
Examples:
  s0 service backup /mnt/backup/s0                      each night
  s0 service fsck --data-dir /mnt/backup/s0             a backup is data like any other
  s0 service restore /mnt/backup/s0 --data-dir ~/s0     and back")]
    Backup {
        /// The directory, made if missing
        directory: PathBuf,
    },
    /// Bring a backup back into a data directory that has no Volumes
    ///
    /// Every Volume gets a new epoch: workspaces that know more than the backup compare all
    /// that they have with it. What only they have goes up again, what differs is a conflict,
    /// and nothing is deleted from them.
    Restore {
        /// The directory of the backup
        directory: PathBuf,
    },
}
