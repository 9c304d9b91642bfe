//! What the engine asks of a disk. The real one is in `shell`, the simulated
//! one in the simulator; both keep the promises made here.
//!
//! Every path is resolved beneath the root without following a link. Nothing
//! here replaces anything silently: each call that could, says `Exists`.

use s0_tree::{Content, Name, Recipe, TreePath};
use serde::{Deserialize, Serialize};

/// What kind of thing a name leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seen {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A socket, a device, a pipe: nothing that a replica syncs.
    Other,
    /// A place at which another file system is mounted. What it covers is not
    /// gone, and what it holds is not the workspace's.
    Mount,
    /// A name in a listing whose kind cannot be found out; `Disk::stat` says why.
    Unknown,
}

impl Seen {
    /// Whether a rule that is about directories alone may be about this.
    #[must_use]
    pub fn may_be_directory(self) -> bool {
        matches!(self, Self::Directory | Self::Mount | Self::Unknown)
    }
}

/// What the disk says of a file without reading it. Times are nanoseconds since
/// the Unix epoch, by the file system's own clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stat {
    /// Its kind.
    pub kind: Seen,
    /// The low nine permission bits; what the file was given last where the
    /// root keeps no modes.
    pub mode: u32,
    /// Length in bytes.
    pub size: u64,
    /// Last change of the contents.
    pub mtime: i64,
    /// Last change of anything.
    pub ctime: i64,
    /// Inode number: reused by many file systems as soon as it is free.
    pub inode: u64,
    /// Birth time, where the file system keeps one.
    pub born: Option<i64>,
}

/// What reading a file gave.
#[derive(Debug, Clone)]
pub enum Description {
    /// The content, with the stat from before and after reading, which were equal.
    Stable {
        /// The stat.
        stat: Stat,
        /// The content that was read.
        content: Content,
        /// The bytes, when the content is small enough to travel inline.
        bytes: Option<Vec<u8>>,
        /// The chunks of a content that has several.
        recipe: Option<Recipe>,
        /// Whether a program has it open for writing, as far as that can be known.
        open: bool,
    },
    /// It changed while it was read, several times over; look again later.
    Changing,
}

/// The id of an intent, and the name of its file in the staging directory.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct IntentId(pub u64);

impl IntentId {
    /// The second slot that an intent owns: intents have even ids. Roots that
    /// cannot exchange use it for what they displace.
    #[must_use]
    pub fn aside(self) -> Self {
        Self(self.0 + 1)
    }
}

/// A location on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spot {
    /// A path below the root.
    Path(TreePath),
    /// A slot of the staging directory.
    Staged(IntentId),
}

/// What is in the staging directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StagedName {
    /// A whole staged thing, or one that an apply displaced.
    Whole(IntentId),
    /// Something staged that is not whole yet.
    Part(IntentId),
    /// Something that no replica put there.
    Foreign(String),
}

/// The children of a directory.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    /// Names that a Volume can hold.
    pub entries: Vec<(Name, Stat)>,
    /// Names that it cannot (not UTF-8), as far as they can be shown.
    pub unnameable: Vec<String>,
}

/// What the root can do, probed and not guessed from the operating system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Abilities {
    /// `Foo` and `foo` are two names.
    pub case_sensitive: bool,
    /// A listing shows names as they were given. Where it does not, the spelling
    /// of a name is what the Volume has.
    pub case_preserving: bool,
    /// Two spellings of `é` are one name.
    pub unicode_insensitive: bool,
    /// Names that Windows refuses are refused.
    pub windows_names: bool,
    /// Permission bits stay as they are set.
    pub modes: bool,
    /// Symbolic links can be made.
    pub symlinks: bool,
    /// Two files can be exchanged in one step.
    pub exchange: bool,
    /// How far apart two changes must be to have different times, in
    /// nanoseconds; zero when every change after a look is seen.
    pub grain: i64,
}

impl Abilities {
    /// What these say that `earlier` did not, in words; nothing when what was known
    /// of the files holds on. The grain is measured anew each time and may differ.
    pub(crate) fn news_since(&self, earlier: &Self) -> Vec<&'static str> {
        let Self {
            case_sensitive,
            case_preserving,
            unicode_insensitive,
            windows_names,
            modes,
            symlinks,
            exchange,
            grain: _,
        } = *self;
        let pairs = [
            (
                (case_sensitive, earlier.case_sensitive),
                ["`Foo` and `foo` are one name", "`Foo` and `foo` are two names"],
            ),
            (
                (case_preserving, earlier.case_preserving),
                ["names lose their spelling", "names keep their spelling"],
            ),
            (
                (unicode_insensitive, earlier.unicode_insensitive),
                ["two spellings of `é` are two names", "two spellings of `é` are one name"],
            ),
            (
                (windows_names, earlier.windows_names),
                [
                    "names that Windows refuses can be made",
                    "names that Windows refuses are refused",
                ],
            ),
            ((modes, earlier.modes), ["permission bits get lost", "permission bits are kept"]),
            (
                (symlinks, earlier.symlinks),
                ["symbolic links cannot be made", "symbolic links can be made"],
            ),
            (
                (exchange, earlier.exchange),
                ["files cannot be exchanged in one step", "files can be exchanged in one step"],
            ),
        ];
        let differs = pairs.into_iter().filter(|((now, then), _)| now != then);
        differs.map(|((now, _), words)| words[usize::from(now)]).collect()
    }
}

/// Which directory the root is: if any of this changes, it is another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootIdentity {
    /// The random id in the root's marker file; `None` when the file is not there.
    pub marker: Option<String>,
    /// The id of the file system; zero where it has none of its own.
    pub device: u64,
    /// The root directory's inode; zero where the file system has no id, since it
    /// may number its files anew with each mount.
    pub inode: u64,
}

/// Why the disk did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// Nothing is there.
    #[error("it does not exist")]
    NotFound,
    /// Something is there already.
    #[error("something is there already")]
    Exists,
    /// The directory has contents.
    #[error("the directory is not empty")]
    NotEmpty,
    /// A part of the path is no directory, or is a link.
    #[error("a part of its path is not a directory")]
    NotADirectory,
    /// The target lies on another file system than the staging directory.
    #[error("it lies on another file system than the workspace")]
    OtherDevice,
    /// The file system cannot hold the name.
    #[error("the file system cannot hold this name")]
    BadName,
    /// Not allowed.
    #[error("permission denied")]
    Denied,
    /// Nobody may write there.
    #[error("the file system is read-only")]
    ReadOnly,
    /// No space, or no quota, is left.
    #[error("the disk is full")]
    Full,
    /// The root itself is gone, or is not the directory that was attached.
    #[error("the workspace directory is gone or is another one")]
    RootGone,
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// The result of a disk call.
pub type DiskResult<T> = Result<T, DiskError>;

/// The disk below one root.
pub trait Disk {
    /// What the root can do.
    fn abilities(&self) -> Abilities;

    /// Which directory the root is now.
    ///
    /// # Errors
    /// `RootGone` when there is none.
    fn identity(&mut self) -> DiskResult<RootIdentity>;

    /// The present moment by the file system's clock, in nanoseconds.
    fn now(&mut self) -> i64;

    /// What is at `at`; `None` when nothing is, or a directory above is missing.
    /// On a root where `Foo` and `foo` are one name, only the spelling that the
    /// disk has counts, if it keeps spellings.
    ///
    /// # Errors
    /// It cannot be known.
    fn stat(&mut self, at: &Spot) -> DiskResult<Option<Stat>>;

    /// These directories will be listed soon, in any order, so that a disk can begin.
    /// What it has begun and nobody asked for ends with the next call.
    fn will_list(&mut self, _directories: Vec<TreePath>) {}

    /// The children of a directory, in any order. The staging directory and the
    /// marker are left out. If anything watches, changes in the directory are
    /// reported from before that on, so that nothing falls between.
    ///
    /// # Errors
    /// It is no directory, or cannot be read.
    fn list(&mut self, directory: &TreePath) -> DiskResult<Listing>;

    /// Where the link at `at` points.
    ///
    /// # Errors
    /// It is no link, or its target is not UTF-8.
    fn read_link(&mut self, at: &Spot) -> DiskResult<String>;

    /// Reads files: stat, read, stat, and again if they differ. A real disk
    /// reads several at once. Inline contents come with their bytes.
    fn describe(&mut self, files: &[Spot]) -> Vec<DiskResult<Description>>;

    /// Whether some process has the file open for writing. `None` where that
    /// cannot be known.
    fn has_writer(&mut self, at: &Spot) -> Option<bool>;

    /// Writes the part of a slot: a file that may yet be lost or torn.
    ///
    /// # Errors
    /// `Full`.
    fn stage_file(&mut self, slot: IntentId, bytes: &[u8], mode: u32) -> DiskResult<()>;

    /// Finishes a part that was downloaded.
    ///
    /// # Errors
    /// There is none.
    fn stage_part(&mut self, slot: IntentId, mode: u32) -> DiskResult<()>;

    /// Makes a link as the part of a slot.
    ///
    /// # Errors
    /// Links cannot be made here.
    fn stage_link(&mut self, slot: IntentId, target: &str) -> DiskResult<()>;

    /// Makes the parts of these slots durable, and only then whole: what has a
    /// slot's whole name is complete, whenever the power is cut.
    ///
    /// # Errors
    /// `Exists` when a slot holds something whole already. Some may be whole.
    fn sync_staged(&mut self, slots: &[IntentId]) -> DiskResult<()>;

    /// Returns when the names in these directories would survive a power cut.
    /// A directory that is no longer there is no error.
    ///
    /// # Errors
    /// They might not.
    fn sync_directories(&mut self, directories: &[TreePath]) -> DiskResult<()>;

    /// Moves the staged thing to `path`, where nothing is.
    ///
    /// # Errors
    /// `Exists` when something is there; then nothing happened.
    fn place(&mut self, slot: IntentId, path: &TreePath) -> DiskResult<()>;

    /// Exchanges the staged thing with what is at `path`, in one step.
    ///
    /// # Errors
    /// Nothing is there, or the root cannot exchange.
    fn exchange(&mut self, slot: IntentId, path: &TreePath) -> DiskResult<()>;

    /// Moves what is at `path` into the slot, which is free.
    ///
    /// # Errors
    /// Nothing is there, or the slot is taken.
    fn take(&mut self, path: &TreePath, slot: IntentId) -> DiskResult<()>;

    /// Moves what is at `from` to `to`, where nothing is.
    ///
    /// # Errors
    /// `Exists` when something is there; then nothing happened.
    fn rename(&mut self, from: &TreePath, to: &TreePath) -> DiskResult<()>;

    /// Makes a directory.
    ///
    /// # Errors
    /// `Exists` when something is there.
    fn make_directory(&mut self, path: &TreePath, mode: u32) -> DiskResult<()>;

    /// Removes an empty directory.
    ///
    /// # Errors
    /// `NotEmpty` when it is not.
    fn remove_directory(&mut self, path: &TreePath) -> DiskResult<()>;

    /// Sets the permission bits of a file or directory.
    ///
    /// # Errors
    /// Nothing is there.
    fn set_mode(&mut self, path: &TreePath, mode: u32) -> DiskResult<()>;

    /// Deletes the file or link in the slot, or its unfinished download.
    ///
    /// # Errors
    /// Nothing is there.
    fn discard(&mut self, name: &StagedName) -> DiskResult<()>;

    /// What is in the staging directory.
    ///
    /// # Errors
    /// It cannot be read.
    fn staged(&mut self) -> DiskResult<Vec<StagedName>>;
}

/// Which paths are not synced unless they are already.
pub trait Rules {
    /// Whether the rules ignore `path`, as long as it is not synced.
    fn is_ignored(&mut self, path: &TreePath, is_directory: bool) -> bool;

    /// Told of each path that changed. Says whether the rules did, so that the
    /// workspace must be looked through again.
    fn changed(&mut self, path: &TreePath) -> bool;

    /// Whether what is at `path` would run on this machine, so that the user must
    /// let it in.
    fn is_guarded(&self, path: &TreePath) -> bool;

    /// Whether Git tracks `path` or something below it, so that no rule ignores it.
    fn is_tracked(&mut self, path: &TreePath) -> bool;

    /// Forgets what was read: the rules may have changed, and nobody has told yet.
    fn read_again(&mut self);
}
