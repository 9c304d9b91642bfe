//! What goes over the control socket: one JSON document per line. A guest sends
//! a [`Request`] and reads an [`Answer`]; after [`Request::Subscribe`] it reads
//! [`News`] until it hangs up.

mod review;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::PathBuf;

use s0_replica::engine::Difference;
use s0_replica::shell::run::{Report, Unfinished};
use s0_replica::state::{ConflictStatus, What};
use s0_tree::{Reason, TreePath};
use serde::{Deserialize, Serialize};

pub use review::{Choice, FileView, ItemView, NotDone, ReviewView};

/// What a guest asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// Do you live? Answered however busy the replica is.
    Ping,
    /// How are you?
    Status,
    /// Wait until everything is across.
    Flush {
        /// How long at most, in milliseconds.
        timeout_ms: u64,
    },
    /// Compare the whole disk with the Volume.
    Verify,
    /// Which conflicts are there?
    Conflicts,
    /// Give the content of one side of a conflict. The answer is followed by
    /// its bytes.
    Content {
        /// The path.
        path: TreePath,
        /// The side.
        side: Side,
    },
    /// End conflicts.
    Resolve {
        /// At and below these paths; all of them when there are none.
        paths: Vec<TreePath>,
        /// How.
        way: Way,
    },
    /// Go on after a halt.
    Resume {
        /// What vanished was meant to.
        confirm_deletions: bool,
    },
    /// Upload files that wait for the user's word.
    Release {
        /// At and below these paths; all of them when there are none.
        paths: Vec<TreePath>,
    },
    /// Stop syncing what ignore rules match; nothing is removed.
    Forget {
        /// At and below these paths.
        paths: Vec<TreePath>,
    },
    /// As long as this guest stays, these documents, and no others of it, have
    /// unsaved text.
    Unsaved {
        /// They.
        documents: BTreeSet<TreePath>,
    },
    /// End the hold of a write.
    SettleHeld {
        /// The path.
        path: TreePath,
        /// How.
        end: HoldWay,
    },
    /// Copy the file at a path beside it, as [`HoldWay::KeepBoth`] puts what is held.
    CopyBeside {
        /// The path.
        path: TreePath,
    },
    /// Give a path another name, at which nothing is.
    Rename {
        /// The path.
        path: TreePath,
        /// The new one.
        to: TreePath,
    },
    /// Give what is held at a path. The answer is followed by its bytes.
    HeldContent {
        /// The path.
        path: TreePath,
    },
    /// What is to be reviewed?
    Review,
    /// What is to be reviewed in one file?
    ReviewFile {
        /// The path.
        path: TreePath,
    },
    /// This counts as reviewed.
    Keep {
        /// What.
        choice: Choice,
    },
    /// Write this back as it was reviewed.
    Revert {
        /// What.
        choice: Choice,
    },
    /// Tell the status, and what happens from now on.
    Subscribe,
    /// End.
    Stop,
}

/// A side of a conflict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// What this workspace had when its change was refused.
    Mine,
    /// What the Volume has.
    Theirs,
    /// What both had before.
    Base,
}

/// How the hold of a write ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoldWay {
    /// It comes.
    Take,
    /// What is here stays, and goes to the Volume in its place.
    Discard,
    /// The same, and it is put beside.
    KeepBoth,
}

/// A way out of a conflict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// The local path is right as it stands.
    Mark,
    /// The same, in other words.
    KeepMine,
    /// The Volume's version comes.
    TakeTheirs,
    /// The local file moves aside, and the Volume's comes.
    KeepBoth,
    /// Both become one text, as far as they can.
    Merge,
    /// Both stay as they are, and nothing waits any more.
    Ignore,
}

/// What a host answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// How it is.
    Status(Box<HostStatus>),
    /// How the flush ended.
    Flushed {
        /// Everything is across.
        done: bool,
        /// What is not.
        unfinished: Vec<Unfinished>,
        /// How long it took, in milliseconds.
        ms: u64,
    },
    /// What the comparison found; nothing when all is equal.
    Verified {
        /// The differences.
        differences: Vec<Difference>,
        /// What was not compared.
        #[serde(default)]
        apart: Apart,
    },
    /// The conflicts.
    Conflicts {
        /// By path.
        conflicts: Vec<ConflictView>,
    },
    /// As many bytes follow this line.
    Content {
        /// How many.
        size: u64,
    },
    /// What became of each conflict.
    Resolved {
        /// By path.
        paths: Vec<ResolvedPath>,
    },
    /// What is to be reviewed.
    Review(Box<ReviewView>),
    /// What is to be reviewed in one file.
    ReviewFile(Box<FileView>),
    /// What was kept or reverted.
    Decided {
        /// How many paths.
        done: usize,
        /// What was chosen and is as it was.
        left: Vec<NotDone>,
    },
    /// The hold has ended.
    HoldSettled {
        /// Where the held one was put, if it was kept.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        beside: Option<TreePath>,
    },
    /// How many paths were released.
    Released {
        /// How many.
        count: usize,
    },
    /// How many paths are not synced any more.
    Forgotten {
        /// How many.
        count: usize,
    },
    /// It is done, or begins now.
    Ok,
    /// It was not done.
    Error {
        /// Why, and what to do.
        message: String,
    },
}

/// What a comparison sets apart: where both sides are meant to differ.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Apart {
    /// Paths with conflicts that wait for the user.
    pub conflicts: Vec<TreePath>,
    /// Paths with conflicts whose sides the user left as they are.
    pub left: Vec<TreePath>,
    /// How many local paths wait for the user's word.
    pub withheld: usize,
    /// How many paths of the Volume ignore rules keep away.
    pub ignored: usize,
}

/// What became of one conflict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvedPath {
    /// The path.
    pub path: TreePath,
    /// At how many places of a merge both sides overlap. They are marked in the
    /// file, and the conflict is still there.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub overlaps: usize,
    /// Why it is still there, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// A host, and how its replica is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostStatus {
    /// The workspace.
    pub root: PathBuf,
    /// The Volume.
    pub volume_id: String,
    /// The replica.
    pub replica_id: String,
    /// The sandbox that it stands for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox_id: Option<String>,
    /// The host's process.
    pub pid: u32,
    /// Where the service is, as far as that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// How it is.
    #[serde(flatten)]
    pub report: Report,
}

/// A conflict, for those who show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConflictView {
    /// The path.
    pub path: TreePath,
    /// Why.
    pub reason: Reason,
    /// Where it stands.
    pub status: ConflictStatus,
    /// The service's id for it.
    pub id: String,
    /// What both had before.
    pub base: Option<Thing>,
    /// What this workspace had when its change was refused; absent: removed.
    pub mine: Option<Thing>,
    /// What the Volume has now.
    pub theirs: Option<Thing>,
    /// The path of what stands in the way.
    pub other: TreePath,
    /// When it was recorded, in nanoseconds since the Unix epoch.
    pub time: i64,
}

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Thing {
    /// A file.
    File {
        /// The name of its content.
        content: String,
        /// Its length in bytes.
        size: u64,
    },
    /// A directory.
    Directory,
    /// A link.
    Symlink {
        /// Where it points.
        target: String,
    },
}

impl From<&What> for Thing {
    fn from(what: &What) -> Self {
        match what {
            What::File(content) => {
                Self::File { content: content.id.to_string(), size: content.size }
            }
            What::Directory => Self::Directory,
            What::Symlink(target) => Self::Symlink { target: target.to_string() },
        }
    }
}

/// What happens, for those who listen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum News {
    /// A local change is in the Volume.
    Uploaded {
        /// The path.
        path: TreePath,
        /// Whether it was a removal.
        removed: bool,
    },
    /// A change of the Volume is on the disk.
    Applied {
        /// The path.
        path: TreePath,
        /// Whether it was a removal.
        removed: bool,
        /// Who made it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        actor: Option<String>,
    },
    /// A conflict was recorded.
    Conflict {
        /// The path.
        path: TreePath,
        /// Why.
        reason: Reason,
    },
    /// A conflict ended.
    Settled {
        /// The path.
        path: TreePath,
        /// How.
        resolution: String,
    },
    /// Something of the user's was put beside its path.
    Kept {
        /// The path.
        path: TreePath,
        /// Where it is now.
        at: TreePath,
    },
    /// A directory that the Volume has not stays.
    DirectoryKept {
        /// The path.
        path: TreePath,
    },
    /// A path cannot be synced.
    Problem {
        /// The path.
        path: TreePath,
        /// Why.
        why: String,
    },
    /// Everything stopped.
    Halted {
        /// Why, and the ways out.
        why: String,
    },
    /// Connected, or not.
    Connection {
        /// Which.
        connected: bool,
    },
    /// There is something else to review, or less.
    Review {
        /// The version of the whole.
        version: s0_review::Version,
    },
    /// The status is another one.
    Status {
        /// It.
        status: Box<HostStatus>,
    },
    /// The listener was too slow.
    Missed {
        /// How many it did not hear.
        count: u64,
    },
}
