//! What the run loop does for the watcher: it takes in its events, as many as
//! there is room for, and looks through the workspace where they are not enough.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;

use s0_tree::TreePath;
use tokio::sync::Semaphore;

use super::{Event, Message, RunLoop, Stop};
use crate::engine::Hint;
use crate::shell::watch::{self, WatchError, WatchEvent, Watcher};

/// The whole workspace is looked through this often: what is written through a
/// memory map raises no event.
const SWEEP: u64 = 5 * 60 * 1000;
/// The same while some directories are not watched.
const SWEEP_UNWATCHED: u64 = 10 * 1000;
/// This often it is made sure that the root is where it was.
const ROOT_AGAIN: u64 = 10 * 1000;
/// Events of the watcher that may wait; in place of more there is one that says
/// that some were lost.
const EVENTS_AHEAD: usize = 1 << 16;

/// The watcher's way into the inbox. It never waits, and never grows.
pub(super) struct Inlet {
    sender: Sender<Message>,
    room: Arc<Semaphore>,
    /// Events were lost, and the one that says so waits in the inbox.
    overflowed: AtomicBool,
}

impl Inlet {
    pub(super) fn new(sender: Sender<Message>) -> Self {
        Self {
            sender,
            room: Semaphore::new(EVENTS_AHEAD).into(),
            overflowed: AtomicBool::new(false),
        }
    }

    fn tell(&self, event: WatchEvent) {
        let message = match self.room.clone().try_acquire_owned() {
            Ok(permit) => Message::Watch(event, Some(permit)),
            Err(_) if self.overflowed.swap(true, Ordering::SeqCst) => return,
            Err(_) => Message::Watch(WatchEvent::Overflow, None),
        };
        // The thread has ended, and the watcher will in a moment.
        let _ = self.sender.send(message);
    }

    /// What is lost from now on is not covered by the look that follows.
    fn heard_overflow(&self) {
        self.overflowed.store(false, Ordering::SeqCst);
    }
}

impl RunLoop {
    /// Whether something may change here without an event.
    pub(super) fn is_unwatched(&self) -> bool {
        self.watcher.as_ref().is_none_or(|watcher| !watcher.is_complete())
    }

    fn next_sweep(&self) -> u64 {
        self.swept + if self.is_unwatched() { SWEEP_UNWATCHED } else { SWEEP }
    }

    /// When something is looked at though nothing was heard.
    pub(super) fn next_look(&self) -> u64 {
        self.next_sweep().min(self.root_seen + ROOT_AGAIN)
    }

    /// Looks at what is due.
    pub(super) fn look_around(&mut self, now: u64) -> Result<(), Stop> {
        if now >= self.next_sweep() {
            self.sweep()?;
        }
        if now >= self.root_seen + ROOT_AGAIN {
            self.look_at_root()?;
        }
        Ok(())
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

    /// Whether the root is still the directory that was attached. A mount over it
    /// makes no event, and hides what the user writes.
    pub(super) fn look_at_root(&mut self) -> Result<(), Stop> {
        self.root_seen = self.now();
        match &mut self.engine {
            Ok(engine) => engine.look_at_root(self.root_seen),
            Err(_) => Ok(()),
        }
    }

    /// Watches the root of the engine's disk, if the system lets it.
    pub(super) fn start_watcher(&mut self) -> Result<(), WatchError> {
        let Ok(engine) = &mut self.engine else { return Ok(()) };
        if engine.status().halt.is_some() {
            // Who knows which directory is there.
            return Ok(());
        }
        let inlet = self.inlet.clone();
        let watcher = Watcher::start(&self.setup.root, move |event| inlet.tell(event))?;
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
        match event {
            WatchEvent::Cookie(name) => {
                self.flushes.heard_cookie(&name);
                return Ok(());
            }
            WatchEvent::Overflow => {
                self.inlet.heard_overflow();
                // Cookies may be among what was lost. The look says more than they.
                self.flushes.will_look();
            }
            // The end of the root, and whatever else is no hint.
            _ => {}
        }
        self.handle(Event::Rescan(TreePath::root()))
    }
}

/// What the engine is told of a path; other events are given back.
pub(super) fn hint(event: WatchEvent) -> Result<(TreePath, Hint), WatchEvent> {
    match event {
        WatchEvent::Closed(path) | WatchEvent::MovedTo(path) => Ok((path, Hint::Complete)),
        WatchEvent::Moved(from, to) => Ok((to, Hint::MovedFrom(from))),
        WatchEvent::MovedFrom(path)
        | WatchEvent::Created(path)
        | WatchEvent::Modified(path)
        | WatchEvent::Removed(path)
        | WatchEvent::Attributes(path) => Ok((path, Hint::Unsettled)),
        WatchEvent::Overflow | WatchEvent::Cookie(_) | WatchEvent::RootGone => Err(event),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn event(number: usize) -> WatchEvent {
        WatchEvent::Closed(TreePath::new(&format!("f{number}")).unwrap())
    }

    #[test]
    fn what_waits_is_bounded_and_what_is_lost_is_said_once() {
        let (sender, inbox) = mpsc::channel();
        let inlet = Inlet::new(sender);
        let read = || {
            inbox.try_iter().map(|message| match message {
                Message::Watch(event, _permit) => event,
                _ => panic!("only events are sent"),
            })
        };
        for round in 0..2 {
            (0..EVENTS_AHEAD + 1000).for_each(|number| inlet.tell(event(number)));
            let heard: Vec<_> = read().collect();
            assert_eq!(heard.len(), EVENTS_AHEAD + 1, "round {round}");
            assert_eq!(heard[EVENTS_AHEAD - 1], event(EVENTS_AHEAD - 1));
            assert_eq!(heard[EVENTS_AHEAD], WatchEvent::Overflow);
            inlet.heard_overflow();
            inlet.tell(event(7));
            assert_eq!(read().collect::<Vec<_>>(), [event(7)]);
        }
    }
}
