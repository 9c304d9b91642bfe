//! Listing directories, and watching them from before that on.
//!
//! A look at the whole workspace lists one directory after the other, which is
//! mostly calls of the system. A second thread lists from the other end: a
//! listing is as good a little later, as what changes after it is reported.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use s0_tree::{Name, TreePath};

use super::access::{RootAccess, STATE_DIR_NAME, is_state_dir};
use super::watch::Watcher;
use crate::disk::{DiskError, DiskResult, Listing, Seen, Stat};
use crate::platform::{self, Directory};

/// Fewer directories are not worth a thread.
const WORTH: usize = 64;
/// The most entries that are listed ahead and wait for the engine.
const AHEAD: usize = 50_000;

/// What is said of a listed name that nothing can be found out about.
const UNKNOWN: Stat =
    Stat { kind: Seen::Unknown, mode: 0, size: 0, mtime: 0, ctime: 0, inode: 0, born: None };

/// What lists the directories of a root. A clone is for another thread.
#[derive(Debug, Clone)]
pub(super) struct Lister {
    pub(super) access: RootAccess,
    pub(super) watcher: Option<Arc<Watcher>>,
}

impl Lister {
    pub(super) fn list(&self, directory: &TreePath) -> DiskResult<Listing> {
        let opened = self.access.directory(directory)?;
        self.watch(directory, &opened);
        let names = platform::names(&opened)?;
        if names.iter().any(|name| name == b".git") {
            self.watch_repository(directory);
        }
        if directory.is_root() && !names.iter().any(|raw| raw == STATE_DIR_NAME.as_bytes()) {
            // A removed directory that is still open looks empty, and an emptied
            // root must not look as if the user had deleted it all.
            return Err(DiskError::RootGone);
        }
        let mut listing = Listing::default();
        for raw in names {
            let Some(name) = str::from_utf8(&raw).ok().and_then(|text| Name::new(text).ok()) else {
                listing.unnameable.push(String::from_utf8_lossy(&raw).into_owned());
                continue;
            };
            if directory.is_root() && is_state_dir(name.as_str()) {
                continue;
            }
            match platform::stat_at(&opened, name.as_str()) {
                Ok(Some(stat)) => listing.entries.push((name, self.access.shown(stat))),
                // What vanished meanwhile is not a child any more.
                Ok(None) => {}
                // It is this name's problem, and none of the others'.
                Err(_) => listing.entries.push((name, UNKNOWN)),
            }
        }
        Ok(listing)
    }

    fn watch(&self, directory: &TreePath, opened: &Directory) {
        let Some(watcher) = &self.watcher else { return };
        if let Err(error) = watcher.watch_opened(directory, opened) {
            // The watcher knows what it had no watch for.
            tracing::debug!(%directory, %error, "a directory is not watched");
        }
    }

    fn watch_repository(&self, directory: &TreePath) {
        let Some(watcher) = &self.watcher else { return };
        if let Err(error) = watcher.watch_repository(directory) {
            tracing::debug!(%directory, %error, "a repository is not watched");
        }
    }
}

/// Directories that are listed ahead. Dropping it ends that.
#[derive(Debug)]
pub(super) struct Ahead {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    work: Mutex<Work>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Work {
    todo: BTreeSet<TreePath>,
    /// What is being listed.
    busy: Option<TreePath>,
    done: HashMap<TreePath, DiskResult<Listing>>,
    /// How many entries are in what is done.
    entries: usize,
    ended: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, work: MutexGuard<'a, Work>) -> MutexGuard<'a, Work> {
        self.changed.wait(work).unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ahead {
    /// Begins to list, if that is worth it.
    pub(super) fn begin(lister: &Lister, directories: Vec<TreePath>) -> Option<Self> {
        // Without a watcher nothing would say what has changed since.
        if directories.len() < WORTH || lister.watcher.is_none() {
            return None;
        }
        let todo = directories.into_iter().collect();
        let shared =
            Arc::new(Shared { work: Work { todo, ..Work::default() }.into(), ..Shared::default() });
        let (theirs, lister) = (shared.clone(), lister.clone());
        let thread = std::thread::Builder::new().name("listing".into());
        let thread = thread.spawn(move || list_ahead(&theirs, &lister)).ok()?;
        Some(Self { shared, thread: Some(thread) })
    }

    /// The listing, if it has been made or is being made.
    pub(super) fn take(&self, directory: &TreePath) -> Option<DiskResult<Listing>> {
        let mut work = self.shared.lock();
        while work.busy.as_ref() == Some(directory) {
            work = self.shared.wait(work);
        }
        work.todo.remove(directory);
        let done = work.done.remove(directory)?;
        work.entries -= size(&done);
        self.shared.changed.notify_all();
        Some(done)
    }
}

fn list_ahead(shared: &Shared, lister: &Lister) {
    let mut work = shared.lock();
    loop {
        while work.entries > AHEAD && !work.ended {
            work = shared.wait(work);
        }
        let next = work.todo.pop_last().filter(|_| !work.ended);
        let Some(next) = next else { return };
        work.busy = Some(next.clone());
        drop(work);
        let listing = lister.list(&next);
        work = shared.lock();
        work.busy = None;
        work.entries += size(&listing);
        work.done.insert(next, listing);
        shared.changed.notify_all();
    }
}

fn size(listing: &DiskResult<Listing>) -> usize {
    listing.as_ref().map_or(0, |listing| listing.entries.len())
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.shared.lock().ended = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
