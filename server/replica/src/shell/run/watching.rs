//! What the run loop does for the watcher: it takes in its events, and looks
//! through the workspace where they are not enough.

use std::sync::Arc;

use s0_tree::TreePath;

use super::{Event, Message, RunLoop, Stop};
use crate::engine::Hint;
use crate::shell::watch::{self, WatchError, WatchEvent, Watcher};

/// The whole workspace is looked through this often: what is written through a
/// memory map raises no event.
const SWEEP: u64 = 5 * 60 * 1000;
/// The same while some directories are not watched.
const SWEEP_UNWATCHED: u64 = 10 * 1000;
impl RunLoop {
    /// Whether something may change here without an event.
    pub(super) fn is_unwatched(&self) -> bool {
        self.watcher.as_ref().is_none_or(|watcher| !watcher.is_complete())
    }

    pub(super) fn next_sweep(&self) -> u64 {
        self.swept + if self.is_unwatched() { SWEEP_UNWATCHED } else { SWEEP }
    }

    /// Looks through the whole workspace. What could not be watched before may be
    /// by now: the look comes after that, and finds what was not told.
    pub(super) fn sweep(&mut self) -> Result<(), Stop> {
        self.swept = self.now();
        match &self.watcher {
            Some(watcher) => watcher.watch_refused(),
            // That there is none was said when the engine was loaded.
            None => drop(self.start_watcher()),
        }
        self.handle(Event::Rescan(TreePath::root()))
    }

    /// Watches the root of the engine's disk, if the system lets it.
    pub(super) fn start_watcher(&mut self) -> Result<(), WatchError> {
        let Ok(engine) = &mut self.engine else { return Ok(()) };
        if engine.status().halt.is_some() {
            // Who knows which directory is there.
            return Ok(());
        }
        let sender = self.sender.clone();
        let watcher = Watcher::start(&self.setup.root, move |event| {
            // The thread has ended, and the watcher will in a moment.
            let _ = sender.send(Message::Watch(event));
        })?;
        let watcher = Arc::new(watcher);
        engine.disk().set_watcher(watcher.clone());
        self.watcher = Some(watcher);
        Ok(())
    }

    /// The engine asks for no watch on what is never synced, but hears of what
    /// changes the rules. It is told of the event after this, and reads them then.
    pub(super) fn watch_new_repository(&self, event: &WatchEvent) {
        let (Some(watcher), Some(at)) = (&self.watcher, watch::new_repository(event)) else {
            return;
        };
        if let Err(error) = watcher.watch_repository(&at) {
            tracing::debug!(%at, %error, "a repository is not watched");
        }
    }

    /// What the watcher says about itself rather than about a path.
    pub(super) fn watched(&mut self, event: WatchEvent) -> Result<(), Stop> {
        if let WatchEvent::Cookie(name) = event {
            self.flushes.heard_cookie(&name);
            return Ok(());
        }
        // Overflow, the end of the root, and whatever else is no hint.
        self.handle(Event::Rescan(TreePath::root()))
    }
}

/// What the engine is told of a path; other events are given back.
pub(super) fn hint(event: WatchEvent) -> Result<(TreePath, Hint), WatchEvent> {
    match event {
        WatchEvent::Closed(path) | WatchEvent::MovedTo(path) => Ok((path, Hint::Complete)),
        WatchEvent::MovedFrom(path)
        | WatchEvent::Created(path)
        | WatchEvent::Modified(path)
        | WatchEvent::Removed(path)
        | WatchEvent::Attributes(path) => Ok((path, Hint::Unsettled)),
        WatchEvent::Overflow | WatchEvent::Cookie(_) | WatchEvent::RootGone => Err(event),
    }
}
