//! Watches the directories of a root that the engine asks for, one by one, so
//! that ignored ones cost nothing.
//!
//! Events are hints: they say where to look, in the order in which things
//! happened, and may come twice. A directory that appears (created or moved
//! there) must be watched again by whoever hears of it, even if its name was
//! watched before, and listed after that: what happened in it before the watch
//! was there is not reported.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind, RenameMode};
use notify::{Config, ErrorKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use s0_tree::TreePath;

use super::access::{COOKIES, STATE_DIR_NAME};
use crate::disk::DiskError;
use crate::platform::{self, Directory};

/// A repository, in its work tree, and the directory in it of `exclude`.
const GIT: &str = ".git";
const GIT_INFO: &str = ".git/info";

/// Something that happened below the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchEvent {
    /// A file was closed by someone who had it open for writing.
    Closed(TreePath),
    /// Something was moved to this path.
    MovedTo(TreePath),
    /// What was moved from the first path is at the second; told after both.
    Moved(TreePath, TreePath),
    /// Something was moved away from this path.
    MovedFrom(TreePath),
    /// Something was made at this path.
    Created(TreePath),
    /// A file was written, or a directory changed in a way that cannot be told
    /// by path: it must be listed.
    Modified(TreePath),
    /// Something was removed.
    Removed(TreePath),
    /// Permission bits, times or the number of names changed.
    Attributes(TreePath),
    /// Events were lost: everything must be looked at again.
    Overflow,
    /// All that happened before this cookie was made has been reported.
    Cookie(String),
    /// The root was moved or removed, or its state directory was.
    RootGone,
}

/// Why a directory is not watched.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The system allows no more watches.
    #[error("the system allows no more watches")]
    LimitReached,
    /// It is not there, or is no directory.
    #[error("it is not a directory, or is gone")]
    Gone,
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// Watches one root. Dropping it ends that.
pub struct Watcher {
    inner: Mutex<Inner>,
    root: PathBuf,
    held: Directory,
}

struct Inner {
    notify: RecommendedWatcher,
    /// What is watched, with the inode that each path had then: a directory
    /// keeps its watch, under its old name, when it is moved.
    watched: HashMap<TreePath, u64>,
    paths: HashMap<u64, TreePath>,
    /// Directories for which the system had no watch left.
    refused: BTreeSet<TreePath>,
}

impl Watcher {
    /// Starts watching `root` itself (not what is below it) and its cookies. Its
    /// state directory must be there. `sink` is called on the watcher's thread
    /// and must return quickly; it must not call the watcher.
    ///
    /// # Errors
    /// The root is not there, or cannot be watched.
    pub fn start(
        root: &Path,
        sink: impl Fn(WatchEvent) + Send + Sync + 'static,
    ) -> Result<Self, WatchError> {
        let root = std::fs::canonicalize(root).map_err(other)?;
        let held = platform::open_root(&root).map_err(other)?;
        let translate = Translate { root: root.clone(), cookies: cookies(&root) };
        let notify = RecommendedWatcher::new(
            move |event| translate.each(event, &sink),
            Config::default().with_follow_symlinks(false),
        )
        .map_err(|error| watch_error(&error))?;
        let inner = Inner {
            notify,
            watched: HashMap::new(),
            paths: HashMap::new(),
            refused: BTreeSet::new(),
        };
        let watcher = Self { inner: Mutex::new(inner), root, held };
        watcher.remove_cookies().map_err(other)?;
        watcher.add(&cookies(&watcher.root))?;
        watcher.watch(&TreePath::root())?;
        Ok(watcher)
    }

    /// Watches the directory at `path`, not what is below it. If it was watched
    /// under another name, it is not any more under that name.
    ///
    /// # Errors
    /// It is not watched.
    pub fn watch(&self, path: &TreePath) -> Result<(), WatchError> {
        let done = self.try_watch(path);
        let mut inner = self.inner();
        if matches!(done, Err(WatchError::LimitReached)) {
            if inner.refused.is_empty() {
                tracing::warn!("the system allows no more watches");
            }
            inner.refused.insert(path.clone());
        } else {
            // It is watched, or not there any more.
            inner.refused.remove(path);
        }
        done
    }

    /// Whether the system had a watch for each directory that was asked for. If
    /// not, a cookie proves nothing.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.inner().refused.is_empty()
    }

    /// Asks again for the watches that the system did not have. What happened in
    /// those directories before is not reported.
    pub fn watch_refused(&self) {
        loop {
            let next = self.inner().refused.first().cloned();
            let Some(path) = next else { return };
            if matches!(self.watch(&path), Err(WatchError::LimitReached)) {
                return;
            }
        }
    }

    fn try_watch(&self, path: &TreePath) -> Result<(), WatchError> {
        let inode = platform::beneath(&self.held, path.as_str())
            .and_then(|directory| platform::stat_of(&directory))
            .map_err(|error| match error {
                DiskError::NotFound | DiskError::NotADirectory | DiskError::RootGone => {
                    WatchError::Gone
                }
                other => WatchError::Other(other.to_string()),
            })?
            .inode;
        // The system has one watch for each inode. If an old name of it were
        // given up only after this one is watched, this watch would go with it.
        let old = self.inner().paths.get(&inode).cloned();
        if let Some(old) = old.filter(|old| old != path) {
            self.unwatch(&old);
        }
        // And the name may have a watch on a directory that is no longer there.
        self.unwatch_one(path);
        self.add(&self.absolute(path))?;
        let mut inner = self.inner();
        inner.watched.insert(path.clone(), inode);
        inner.paths.insert(inode, path.clone());
        Ok(())
    }

    /// Watches what decides about ignoring in the repository of the work tree at
    /// `path`, if it has one: its index and its `info/exclude`. A repository that
    /// is kept elsewhere is not watched.
    ///
    /// # Errors
    /// It is not watched. That there is none is no error.
    pub fn watch_repository(&self, path: &TreePath) -> Result<(), WatchError> {
        for inner in [GIT, GIT_INFO] {
            let absolute = self.absolute(path).join(inner);
            let tree = absolute.strip_prefix(&self.root).ok().and_then(Path::to_str);
            let Some(Ok(tree)) = tree.map(TreePath::new) else { return Ok(()) };
            match self.watch(&tree) {
                Err(WatchError::Gone) => return Ok(()),
                done => done?,
            }
        }
        Ok(())
    }

    /// Stops watching what is at `path` and below.
    pub fn unwatch(&self, path: &TreePath) {
        let below: Vec<TreePath> = {
            let inner = self.inner();
            inner.watched.keys().filter(|other| other.is_at_or_below(path)).cloned().collect()
        };
        below.iter().for_each(|path| self.unwatch_one(path));
    }

    /// Whether the directory was watched under this name, last.
    #[must_use]
    pub fn is_watched(&self, path: &TreePath) -> bool {
        self.inner().watched.contains_key(path)
    }

    /// Makes a cookie and returns its name. When the sink is given the same
    /// name, it has been given all that happened before this call in the
    /// directories that were watched.
    ///
    /// # Errors
    /// It cannot be made: the disk is full, or the state directory is gone.
    pub fn cookie(&self) -> io::Result<String> {
        self.remove_cookies()?;
        let name = uuid::Uuid::new_v4().to_string();
        let path = format!("{STATE_DIR_NAME}/{COOKIES}");
        let made = platform::beneath(&self.held, &path)
            .and_then(|directory| platform::create_new(&directory, &name));
        made.map_err(|error| io::Error::other(error.to_string()))?;
        Ok(name)
    }

    /// Those that nobody has heard of yet are heard of all the same: what counts
    /// is that they were made.
    fn remove_cookies(&self) -> io::Result<()> {
        let remove = || {
            let path = format!("{STATE_DIR_NAME}/{COOKIES}");
            let directory = platform::beneath(&self.held, &path)?;
            for name in platform::names(&directory)? {
                match platform::unlink(&directory, &String::from_utf8_lossy(&name)) {
                    Ok(()) | Err(DiskError::NotFound) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        };
        remove().map_err(|error: DiskError| io::Error::other(error.to_string()))
    }

    fn add(&self, path: &Path) -> Result<(), WatchError> {
        let added = self.inner().notify.watch(path, RecursiveMode::NonRecursive);
        added.map_err(|error| watch_error(&error))
    }

    fn unwatch_one(&self, path: &TreePath) {
        let mut inner = self.inner();
        let Some(inode) = inner.watched.remove(path) else { return };
        if inner.paths.get(&inode) == Some(path) {
            inner.paths.remove(&inode);
        }
        // It is not there any more if the directory was removed or moved.
        let _ = inner.notify.unwatch(&self.absolute(path));
    }

    fn absolute(&self, path: &TreePath) -> PathBuf {
        if path.is_root() { self.root.clone() } else { self.root.join(path.as_str()) }
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Watcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watcher").field("root", &self.root).finish_non_exhaustive()
    }
}

fn cookies(root: &Path) -> PathBuf {
    root.join(STATE_DIR_NAME).join(COOKIES)
}

/// Makes our events of those of `notify`.
struct Translate {
    root: PathBuf,
    cookies: PathBuf,
}

/// Where an absolute path leads.
enum Where {
    /// Below the root, or it.
    Tree(TreePath),
    /// A name that no Volume can hold, in this directory.
    Unnameable(TreePath),
    /// The state directory itself.
    State,
    /// A cookie.
    Cookie(String),
    /// Anything else.
    Elsewhere,
}

impl Translate {
    fn each(
        &self,
        event: notify::Result<notify::Event>,
        sink: &(dyn Fn(WatchEvent) + Send + Sync),
    ) {
        let event = match event {
            Ok(event) => event,
            // Whatever it is, something may have been missed.
            Err(error) => {
                tracing::warn!(%error, "the watcher failed");
                return sink(WatchEvent::Overflow);
            }
        };
        if event.need_rescan() {
            return sink(WatchEvent::Overflow);
        }
        let Some(path) = event.paths.first() else { return };
        // A directory that is watched tells of its own move without a tracker;
        // the directory above has told it better.
        let own_move = event.attrs.tracker().is_none();
        match self.find(path) {
            Where::Tree(path) if path.is_root() => {
                if self.is_end_of_root(event.kind) {
                    sink(WatchEvent::RootGone);
                }
            }
            Where::Tree(from) if is_pair(event.kind) => {
                if let Some(Where::Tree(to)) = event.paths.get(1).map(|to| self.find(to)) {
                    sink(WatchEvent::Moved(from, to));
                }
            }
            Where::Tree(path) => {
                if let Some(event) = tree_event(event.kind, own_move, path) {
                    sink(event);
                }
            }
            Where::Unnameable(parent) => {
                if tree_event(event.kind, own_move, parent.clone()).is_some() {
                    sink(WatchEvent::Modified(parent));
                }
            }
            Where::State => {
                if is_end(event.kind) {
                    sink(WatchEvent::RootGone);
                }
            }
            Where::Cookie(name) => {
                if matches!(event.kind, EventKind::Create(_)) {
                    sink(WatchEvent::Cookie(name));
                }
            }
            Where::Elsewhere => {}
        }
    }

    fn find(&self, path: &Path) -> Where {
        if let Ok(cookie) = path.strip_prefix(&self.cookies) {
            return match cookie.to_str() {
                // The cookies' directory itself: whatever happened to it, the
                // state directory is not what it was.
                Some("") => Where::State,
                Some(name) => Where::Cookie(name.into()),
                None => Where::Elsewhere,
            };
        }
        let Ok(inner) = path.strip_prefix(&self.root) else { return Where::Elsewhere };
        if inner == OsStr::new(STATE_DIR_NAME) {
            return Where::State;
        }
        if inner.starts_with(STATE_DIR_NAME) {
            return Where::Elsewhere;
        }
        let tree = |path: &Path| path.to_str().and_then(|text| TreePath::new(text).ok());
        if let Some(path) = tree(inner) {
            return if is_of_no_concern(&path) { Where::Elsewhere } else { Where::Tree(path) };
        }
        match inner.parent().and_then(tree) {
            Some(parent) => Where::Unnameable(parent),
            // Only directories with good names are watched.
            None => Where::Elsewhere,
        }
    }

    /// An open directory gets no event when it is removed, and what holds it open
    /// is the disk; but its last change is one of its number of names.
    fn is_end_of_root(&self, kind: EventKind) -> bool {
        is_end(kind) || (is_metadata(kind) && !self.root.is_dir())
    }
}

/// Git writes much in its directories, and few files of it matter here.
fn is_of_no_concern(path: &TreePath) -> bool {
    let mut names = path.as_str().split('/').skip_while(|name| *name != GIT);
    names.next().is_some()
        && !matches!(
            (names.next(), names.next(), names.next()),
            (None | Some("index" | "info"), None, None) | (Some("info"), Some("exclude"), None)
        )
}

/// The work tree whose repository is to be watched anew, because a directory of
/// it has appeared.
pub(super) fn new_repository(event: &WatchEvent) -> Option<TreePath> {
    let (WatchEvent::Created(path) | WatchEvent::MovedTo(path)) = event else { return None };
    let git = if path.name()?.as_str() == "info" { path.parent()? } else { path.clone() };
    if git.name()?.as_str() == GIT { git.parent() } else { None }
}

fn is_end(kind: EventKind) -> bool {
    matches!(kind, EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(RenameMode::From)))
}

fn is_pair(kind: EventKind) -> bool {
    matches!(kind, EventKind::Modify(ModifyKind::Name(RenameMode::Both)))
}

fn is_metadata(kind: EventKind) -> bool {
    matches!(kind, EventKind::Modify(ModifyKind::Metadata(_)))
}

fn tree_event(kind: EventKind, own_move: bool, path: TreePath) -> Option<WatchEvent> {
    Some(match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => WatchEvent::Closed(path),
        EventKind::Create(_) => WatchEvent::Created(path),
        EventKind::Remove(_) => WatchEvent::Removed(path),
        EventKind::Modify(ModifyKind::Name(RenameMode::From)) if !own_move => {
            WatchEvent::MovedFrom(path)
        }
        EventKind::Modify(ModifyKind::Name(RenameMode::To)) => WatchEvent::MovedTo(path),
        // The two sides of a rename were reported already, one by one.
        EventKind::Modify(ModifyKind::Name(RenameMode::From | RenameMode::Both)) => return None,
        EventKind::Modify(ModifyKind::Metadata(_)) => WatchEvent::Attributes(path),
        EventKind::Modify(_) | EventKind::Any | EventKind::Other => WatchEvent::Modified(path),
        EventKind::Access(_) => return None,
    })
}

fn watch_error(error: &notify::Error) -> WatchError {
    match &error.kind {
        ErrorKind::MaxFilesWatch => WatchError::LimitReached,
        ErrorKind::PathNotFound => WatchError::Gone,
        _ => WatchError::Other(error.to_string()),
    }
}

fn other(error: impl std::fmt::Display) -> WatchError {
    WatchError::Other(error.to_string())
}
