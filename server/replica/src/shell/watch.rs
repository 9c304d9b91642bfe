//! Watches the directories of a root that the engine asks for, one by one, so
//! that ignored ones cost nothing.
//!
//! Events are hints: they say where to look, in the order in which things
//! happened, and may come twice. A directory that appears (created or moved
//! there) must be watched again by whoever hears of it, even if its name was
//! watched before, and listed after that: what happened in it before the watch
//! was there is not reported.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use s0_tree::{Name, TreePath};

use super::access::{COOKIES, STATE_DIR_NAME};
use crate::disk::DiskError;
use crate::platform::inotify::{Instance, NoWatch, Reading, Told, Watch, What};
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
    inotify: Instance,
    names: Arc<Mutex<Names>>,
    /// Directories for which the system had no watch left.
    refused: Mutex<BTreeSet<TreePath>>,
    root: PathBuf,
    held: Directory,
    _reading: Reading,
}

/// The names of what is watched. It stays locked from before a watch is made until
/// its name is known, so that no event comes from a watch without a name.
#[derive(Default)]
struct Names {
    /// The watch of the cookies' directory.
    cookies: Option<Watch>,
    /// The others: each has one name, and each name one watch.
    paths: HashMap<Watch, TreePath>,
    watches: BTreeMap<TreePath, Watch>,
}

impl Names {
    /// The watch is that of this path. Returns the one that the path had before, of a
    /// directory that is no longer there.
    fn call(&mut self, watch: Watch, path: &TreePath) -> Option<Watch> {
        let before = self.watches.insert(path.clone(), watch).filter(|before| *before != watch);
        if let Some(before) = before {
            self.paths.remove(&before);
        }
        // A directory keeps its watch when it is moved.
        if let Some(old) = self.paths.insert(watch, path.clone()).filter(|old| old != path) {
            self.watches.remove(&old);
        }
        before
    }

    fn forget(&mut self, watch: Watch) {
        if let Some(path) = self.paths.remove(&watch) {
            self.watches.remove(&path);
        }
    }

    /// Forgets the watches of what is at `path` and below, and returns them.
    fn forget_below(&mut self, path: &TreePath) -> Vec<Watch> {
        let below: Vec<_> = self
            .watches
            .range(path.clone()..)
            .take_while(|(other, _)| other.as_str().starts_with(path.as_str()))
            .filter(|(other, _)| other.is_at_or_below(path))
            .map(|(_, watch)| *watch)
            .collect();
        below.iter().for_each(|watch| self.forget(*watch));
        below
    }
}

impl Watcher {
    /// Starts watching `root` itself (not what is below it) and its cookies. Its
    /// state directory must be there. `sink` is called on the watcher's thread
    /// and must return quickly.
    ///
    /// # Errors
    /// The root is not there, or cannot be watched.
    pub fn start(
        root: &Path,
        sink: impl Fn(WatchEvent) + Send + Sync + 'static,
    ) -> Result<Self, WatchError> {
        let root = std::fs::canonicalize(root).map_err(other)?;
        let held = platform::open_root(&root).map_err(other)?;
        let names = Arc::new(Mutex::new(Names::default()));
        let inotify = Instance::new().map_err(other)?;
        let mut translate = Translate {
            inotify: inotify.clone(),
            names: names.clone(),
            root: root.clone(),
            from: None,
        };
        let reading = inotify.read(move |told| translate.each(told, &sink)).map_err(other)?;
        let refused = Mutex::default();
        let watcher = Self { inotify, names, refused, root, held, _reading: reading };
        watcher.remove_cookies().map_err(other)?;
        watcher.watch_cookies()?;
        watcher.watch(&TreePath::root())?;
        Ok(watcher)
    }

    /// Watches the directory at `path`, not what is below it. If it was watched
    /// under another name, it is not any more under that name.
    ///
    /// # Errors
    /// It is not watched.
    pub fn watch(&self, path: &TreePath) -> Result<(), WatchError> {
        let opened = self.open(path.as_str());
        self.note(path, opened.and_then(|opened| self.try_watch(path, &opened)))
    }

    /// The same, of a directory that was opened at `path`.
    pub(super) fn watch_opened(
        &self,
        path: &TreePath,
        opened: &Directory,
    ) -> Result<(), WatchError> {
        self.note(path, self.try_watch(path, opened))
    }

    fn note(&self, path: &TreePath, done: Result<(), WatchError>) -> Result<(), WatchError> {
        let mut refused = locked(&self.refused);
        if matches!(done, Err(WatchError::LimitReached)) {
            if refused.is_empty() {
                tracing::warn!("the system allows no more watches");
            }
            refused.insert(path.clone());
        } else {
            // It is watched, or not there any more.
            refused.remove(path);
        }
        done
    }

    /// Whether the system had a watch for each directory that was asked for. If
    /// not, a cookie proves nothing.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        locked(&self.refused).is_empty()
    }

    /// Asks again for the watches that the system did not have. What happened in
    /// those directories before is not reported.
    pub fn watch_refused(&self) {
        loop {
            let next = locked(&self.refused).first().cloned();
            let Some(path) = next else { return };
            if matches!(self.watch(&path), Err(WatchError::LimitReached)) {
                return;
            }
        }
    }

    fn try_watch(&self, path: &TreePath, opened: &Directory) -> Result<(), WatchError> {
        let mut names = locked(&self.names);
        let watch = self.inotify.watch(opened, &self.absolute(path)).map_err(watch_error)?;
        if let Some(before) = names.call(watch, path) {
            self.inotify.unwatch(before);
        }
        Ok(())
    }

    fn watch_cookies(&self) -> Result<(), WatchError> {
        let path = format!("{STATE_DIR_NAME}/{COOKIES}");
        let directory = self.open(&path)?;
        let mut names = locked(&self.names);
        let watch = self.inotify.watch(&directory, &self.root.join(path)).map_err(watch_error)?;
        names.cookies = Some(watch);
        Ok(())
    }

    fn open(&self, path: &str) -> Result<Directory, WatchError> {
        platform::beneath(&self.held, path).map_err(|error| match error {
            DiskError::NotFound | DiskError::NotADirectory | DiskError::RootGone => {
                WatchError::Gone
            }
            error => WatchError::Other(error.to_string()),
        })
    }

    /// Watches what decides about ignoring in the repository of the work tree at
    /// `path`, if it has one: its index and its `info/exclude`. A repository that
    /// is kept elsewhere is not watched.
    ///
    /// # Errors
    /// It is not watched. That there is none is no error.
    pub fn watch_repository(&self, path: &TreePath) -> Result<(), WatchError> {
        for inner in [GIT, GIT_INFO] {
            let inner = if path.is_root() { inner.into() } else { format!("{path}/{inner}") };
            let Ok(inner) = TreePath::new(&inner) else { return Ok(()) };
            match self.watch(&inner) {
                Err(WatchError::Gone) => return Ok(()),
                done => done?,
            }
        }
        Ok(())
    }

    /// Whether the directory was watched under this name, last.
    #[must_use]
    pub fn is_watched(&self, path: &TreePath) -> bool {
        locked(&self.names).watches.contains_key(path)
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

    fn absolute(&self, path: &TreePath) -> PathBuf {
        if path.is_root() { self.root.clone() } else { self.root.join(path.as_str()) }
    }
}

impl std::fmt::Debug for Watcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watcher").field("root", &self.root).finish_non_exhaustive()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes our events of the system's.
struct Translate {
    inotify: Instance,
    names: Arc<Mutex<Names>>,
    root: PathBuf,
    /// What was moved away last, until it is known where it went.
    from: Option<(u32, TreePath)>,
}

/// Where an event was.
enum Where {
    /// In the directory of the cookies: a cookie, or nothing for the directory itself.
    Cookies(Option<String>),
    /// At the root itself.
    Root,
    /// At the state directory in the root.
    State,
    /// Below the root.
    Tree(TreePath),
    /// At a name that no Volume can hold, in this directory.
    Unnameable(TreePath),
    /// Where nothing matters, or at a directory that its own directory tells of.
    Elsewhere,
}

impl Translate {
    fn each(&mut self, told: &Told<'_>, sink: &(dyn Fn(WatchEvent) + Send + Sync)) {
        let what = told.what;
        if what.contains(What::QUEUE_OVERFLOW) {
            return sink(WatchEvent::Overflow);
        }
        match self.find(told) {
            Where::Cookies(Some(name)) => {
                if what.contains(What::CREATE) {
                    sink(WatchEvent::Cookie(name));
                }
            }
            // Whatever happened to it, the state directory is not what it was.
            Where::Cookies(None) => {
                if is_end(what) {
                    sink(WatchEvent::RootGone);
                }
            }
            Where::State => {
                if what.intersects(What::DELETE | What::MOVED_FROM) {
                    sink(WatchEvent::RootGone);
                }
            }
            // An open directory gets no event when it is removed, and what holds it
            // open is the disk; but its last change is one of its number of names.
            Where::Root => {
                if is_end(what) || (what.contains(What::ATTRIB) && !self.root.is_dir()) {
                    sink(WatchEvent::RootGone);
                }
            }
            Where::Unnameable(parent) => sink(WatchEvent::Modified(parent)),
            Where::Tree(path) => self.tell(told, path, sink),
            Where::Elsewhere => {}
        }
    }

    fn tell(&mut self, told: &Told<'_>, path: TreePath, sink: &(dyn Fn(WatchEvent) + Send + Sync)) {
        let is = |what: What| told.what.contains(what);
        if is(What::MOVED_FROM) {
            if is(What::ISDIR) {
                // Where it is now, if it is in the root, it is watched again.
                let watches = locked(&self.names).forget_below(&path);
                watches.into_iter().for_each(|watch| self.inotify.unwatch(watch));
            }
            self.from = Some((told.pair, path.clone()));
            sink(WatchEvent::MovedFrom(path));
        } else if is(What::MOVED_TO) {
            sink(WatchEvent::MovedTo(path.clone()));
            if let Some((_, from)) = self.from.take().filter(|(pair, _)| *pair == told.pair) {
                sink(WatchEvent::Moved(from, path));
            }
        } else if is(What::CREATE) {
            sink(WatchEvent::Created(path));
        } else if is(What::DELETE) {
            sink(WatchEvent::Removed(path));
        } else if is(What::CLOSE_WRITE) {
            sink(WatchEvent::Closed(path));
        } else if is(What::ATTRIB) {
            sink(WatchEvent::Attributes(path));
        } else {
            sink(WatchEvent::Modified(path));
        }
    }

    fn find(&self, told: &Told<'_>) -> Where {
        let mut names = locked(&self.names);
        if names.cookies == Some(told.watch) {
            let name = told.name.map(|name| String::from_utf8_lossy(name).into_owned());
            return Where::Cookies(name);
        }
        // A watch that was given up may have something to tell still.
        let Some(directory) = names.paths.get(&told.watch).cloned() else {
            return Where::Elsewhere;
        };
        if told.what.contains(What::IGNORED) {
            names.forget(told.watch);
        }
        let Some(name) = told.name else {
            return if directory.is_root() { Where::Root } else { Where::Elsewhere };
        };
        if directory.is_root() && name == STATE_DIR_NAME.as_bytes() {
            return Where::State;
        }
        match str::from_utf8(name).ok().and_then(|name| Name::new(name).ok()) {
            Some(name) => {
                let path = directory.join(&name);
                if is_of_no_concern(&path) { Where::Elsewhere } else { Where::Tree(path) }
            }
            None if is_of_no_concern(&directory) => Where::Elsewhere,
            None => Where::Unnameable(directory),
        }
    }
}

/// Whether a directory that tells of itself is not what it was.
fn is_end(what: What) -> bool {
    let ends = What::DELETE_SELF | What::MOVE_SELF | What::UNMOUNT | What::IGNORED;
    what.intersects(ends)
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

fn watch_error(why: NoWatch) -> WatchError {
    match why {
        NoWatch::Limit => WatchError::LimitReached,
        NoWatch::Gone => WatchError::Gone,
        NoWatch::Other(why) => WatchError::Other(why),
    }
}

fn other(error: impl std::fmt::Display) -> WatchError {
    WatchError::Other(error.to_string())
}
