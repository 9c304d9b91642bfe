//! The run loop: one thread that owns the engine, and what reaches it.
//!
//! Everything comes in through one channel: what the watcher saw, what the
//! network answered, what a user asks. The thread takes in all that waits, lets
//! the engine do what can be done now, hands its effects to the network, and
//! sleeps until the next message or until the engine wants to be called again.

mod flush;
mod handle;
mod report;
mod watching;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use s0_api::sync::{Capabilities, Registered, Registration};
use s0_tree::{Seq, TreePath};
use tokio::sync::{OwnedSemaphorePermit, broadcast};

use super::disk::{Marker, RootDisk};
use super::guarded::Guarded;
use super::network::{Command, Network};
use super::rules::GitRules;
use super::store::SqliteStore;
use super::watch::{WatchEvent, Watcher};
use crate::disk::{Disk, DiskError};
use crate::engine::{Config, Effect, Event, Halt, Hint, Replica, Resume, Stop};
use watching::{Inlet, hint};

pub use super::network::Connect;
pub use flush::{Flushed, Unfinished};
pub use handle::{Handle, NotRunning};
pub use report::{News, Report};

/// The engine as it runs here.
pub type Engine = Replica<RootDisk, SqliteStore>;

/// How often the engine is loaded again after a failure, before a user must say so.
const RELOADS: u32 = 5;
/// Failures are counted together when less than this lies between the end of one
/// reload and the next failure, in milliseconds: it takes a while to register and
/// to fetch the tree before the same thing can fail again.
const LATELY: u64 = 60 * 1000;
/// Messages that are taken in before the engine gets its turn.
const MESSAGES_AT_ONCE: usize = 10_000;
/// When the engine asks for its next turn at once this often, and nothing comes
/// of it, it waits for something that only a message can bring.
const RESTLESS: [(u32, Duration); 2] =
    [(50, Duration::from_millis(20)), (3, Duration::from_millis(1))];
/// What listeners may leave unread.
const NEWS_KEPT: usize = 4096;

/// What a replica runs with.
pub struct Setup {
    /// The workspace.
    pub root: PathBuf,
    /// Whether the root was attached before.
    pub marker: Marker,
    /// The state database.
    pub database: PathBuf,
    /// The engine's choices.
    pub config: Config,
    /// Globs of the settings that are not synced.
    pub ignore: Vec<String>,
    /// What a sandbox wrote there waits until the user lets it in.
    pub guarded: Guarded,
    /// The Volume.
    pub volume: String,
    /// This replica.
    pub replica: String,
    /// What people shall call it.
    pub display_name: String,
    /// The sandbox whose writes this replica carries, if it stands for one.
    pub sandbox: Option<String>,
    /// Finds the service.
    pub connect: Connect,
}

/// What reaches the thread.
pub(super) enum Message {
    /// An event of the watcher. It counts against a limit until it has been taken in.
    Watch(WatchEvent, Option<OwnedSemaphorePermit>),
    Unreachable(String),
    Connected(u64, Registered),
    Lost(u64, String),
    /// An event of the session with this number. What it carries counts against
    /// a limit until it has been taken in.
    Network(u64, Event, Option<OwnedSemaphorePermit>),
    /// The Volume's head, for a flush; nothing when it could not be asked.
    Head(u64, Option<Seq>),
    Ask(Box<dyn FnOnce(&mut RunLoop) + Send>),
    Stop,
}

/// Starts the replica on a thread of its own, with its network on `runtime`.
///
/// # Errors
/// The thread cannot be made.
pub fn start(
    setup: Setup,
    runtime: &tokio::runtime::Handle,
) -> std::io::Result<(Handle, JoinHandle<()>)> {
    let (sender, inbox) = mpsc::channel();
    let (network, commands) = tokio::sync::mpsc::unbounded_channel();
    let driver = Network {
        connect: setup.connect.clone(),
        volume: setup.volume.as_str().into(),
        replica: setup.replica.as_str().into(),
        out: sender.clone(),
    };
    runtime.spawn(driver.run(commands));
    let news = broadcast::Sender::new(NEWS_KEPT);
    let handle = Handle::new(sender.clone(), news.clone());
    let thread = std::thread::Builder::new().name("replica".into()).spawn(move || {
        let now = Instant::now();
        let mut this = RunLoop {
            setup,
            inbox,
            inlet: Arc::new(Inlet::new(sender)),
            network,
            news,
            started: now,
            engine: Err(Asleep::new("it is starting".into(), None)),
            watcher: None,
            session: 0,
            unreachable: None,
            swept: 0,
            root_seen: 0,
            failures: Failures::default(),
            flushes: flush::Flushes::default(),
            restless: 0,
            reported: None,
            report_at: now,
            stopping: false,
        };
        this.open();
        this.run();
    })?;
    Ok((handle, thread))
}

/// Why there is no engine, until a user says to try again.
struct Asleep {
    why: String,
    halt: Option<Halt>,
}

impl Asleep {
    fn new(why: String, halt: Option<Halt>) -> Self {
        Self { why, halt }
    }
}

/// Failures of the engine that came close after one another.
#[derive(Default)]
struct Failures {
    count: u32,
    /// When the last one had been dealt with.
    over: Option<u64>,
}

impl Failures {
    /// Counts one more. Returns how many there have been lately.
    fn add(&mut self, now: u64) -> u32 {
        let lately = self.over.is_some_and(|over| now < over + LATELY);
        self.count = if lately { self.count + 1 } else { 1 };
        self.count
    }
}

/// The thread's own.
pub(super) struct RunLoop {
    setup: Setup,
    inbox: Receiver<Message>,
    inlet: Arc<Inlet>,
    network: tokio::sync::mpsc::UnboundedSender<Command>,
    news: broadcast::Sender<News>,
    started: Instant,
    engine: Result<Box<Engine>, Asleep>,
    watcher: Option<Arc<Watcher>>,
    /// The number of the session, when connected; the last one otherwise.
    session: u64,
    /// Why the service is not reached.
    unreachable: Option<String>,
    /// When the whole workspace was looked through last.
    swept: u64,
    /// When it was last made sure that the root is the same directory.
    root_seen: u64,
    failures: Failures,
    flushes: flush::Flushes,
    /// Turns in a row after which the engine wanted another one at once, and in
    /// which it did nothing that can be seen.
    restless: u32,
    reported: Option<Arc<Report>>,
    report_at: Instant,
    stopping: bool,
}

impl RunLoop {
    /// The engine's time: milliseconds since the start.
    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn run(mut self) {
        loop {
            let wake = self.turn().unwrap_or_else(|stop| {
                self.reload(&stop);
                Some(self.now())
            });
            if self.stopping {
                break;
            }
            let wait = self.wait_until(wake);
            match self.inbox.recv_timeout(wait) {
                Ok(message) => {
                    if let Err(stop) = self.take_in(message) {
                        self.reload(&stop);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let _ = self.network.send(Command::Disconnect);
        if let Err(stop) = self.close() {
            tracing::warn!(%stop, "not left in order; files will be read again after a power cut");
        }
    }

    /// Leaves everything in order. What is known of the files is then believed in
    /// the next run of the operating system too, so it is made to last first.
    fn close(&mut self) -> Result<(), Stop> {
        let Ok(engine) = &mut self.engine else { return Ok(()) };
        engine.disk().sync_all()?;
        engine.close()
    }

    /// Lets the engine work once. Returns when it wants to be called again.
    fn turn(&mut self) -> Result<Option<u64>, Stop> {
        let now = self.now();
        self.look_around(now)?;
        let wake = match &mut self.engine {
            Ok(engine) => engine.step(now)?,
            Err(_) => None,
        };
        let visible = self.hand_out();
        let again = wake.is_some_and(|at| at <= self.now());
        self.restless = if again && !visible { self.restless.saturating_add(1) } else { 0 };
        self.check_flushes();
        self.report();
        Ok(wake)
    }

    /// How long to wait for a message.
    fn wait_until(&self, wake: Option<u64>) -> Duration {
        let now = self.now();
        let look = self.next_look();
        let wake = wake.map_or(look, |at| at.min(look));
        let mut wait = Duration::from_millis(wake.saturating_sub(now));
        if let Some((_, pause)) = RESTLESS.iter().find(|(turns, _)| self.restless > *turns) {
            wait = wait.max(*pause);
        }
        if let Some(at) = self.flushes.next_look() {
            wait = wait.min(at.saturating_duration_since(Instant::now()));
        }
        if self.news.receiver_count() > 0 && self.report_is_due() {
            wait = wait.min(self.report_at.saturating_duration_since(Instant::now()));
        }
        wait
    }

    /// Takes in a message and all that wait behind it.
    fn take_in(&mut self, first: Message) -> Result<(), Stop> {
        let mut touched = Vec::new();
        let mut next = Some(first);
        for _ in 0..MESSAGES_AT_ONCE {
            let Some(message) = next.or_else(|| self.inbox.try_recv().ok()) else { break };
            next = None;
            match message {
                Message::Watch(event, _permit) => {
                    self.watch_new_repository(&event);
                    match hint(event) {
                        Ok(touch) => touched.push(touch),
                        Err(event) => {
                            // In order: a cookie says what was before it.
                            self.touched(&mut touched)?;
                            self.watched(event)?;
                        }
                    }
                }
                other => self.take_one(other)?,
            }
            if self.stopping {
                break;
            }
        }
        self.touched(&mut touched)
    }

    fn touched(&mut self, touched: &mut Vec<(TreePath, Hint)>) -> Result<(), Stop> {
        if touched.is_empty() {
            return Ok(());
        }
        self.handle(Event::Touched(std::mem::take(touched)))
    }

    fn take_one(&mut self, message: Message) -> Result<(), Stop> {
        match message {
            Message::Watch(event, _permit) => self.watched(event),
            Message::Unreachable(why) => {
                self.unreachable = Some(why);
                Ok(())
            }
            Message::Connected(session, registered) => {
                self.session = session;
                self.unreachable = None;
                self.handle(Event::Online(registered))
            }
            Message::Lost(session, why) => {
                if session != self.session {
                    return Ok(());
                }
                self.unreachable = Some(why);
                self.handle(Event::Offline)
            }
            Message::Network(session, event, _permit) => {
                if session == self.session {
                    self.handle(event)
                } else {
                    Ok(())
                }
            }
            Message::Head(flush, head) => {
                self.flushes.heard_head(flush, head);
                Ok(())
            }
            Message::Ask(question) => {
                question(self);
                Ok(())
            }
            Message::Stop => {
                self.stopping = true;
                Ok(())
            }
        }
    }

    fn handle(&mut self, event: Event) -> Result<(), Stop> {
        let now = self.now();
        match &mut self.engine {
            Ok(engine) => engine.handle(event, now),
            Err(_) => Ok(()),
        }
    }

    /// Hands the engine's effects to the network, and its notices to listeners.
    /// Says whether there were any.
    fn hand_out(&mut self) -> bool {
        let Ok(engine) = &mut self.engine else { return false };
        let (mut any, mut outside) = (false, Vec::new());
        for effect in engine.effects() {
            any = true;
            match effect {
                Effect::Notice(notice) => {
                    report::log(&notice);
                    let _ = self.news.send(News::Notice(notice));
                }
                other => outside.push(other),
            }
        }
        if !outside.is_empty() {
            let _ = self.network.send(Command::Perform(self.session, outside));
        }
        any
    }

    /// Opens everything anew: disk, watcher, state, engine, connection.
    fn open(&mut self) {
        // The old engine holds the lock of the state database.
        self.engine = Err(Asleep::new("it is starting".into(), None));
        self.watcher = None;
        match self.try_open() {
            Ok(engine) => {
                self.engine = Ok(Box::new(engine));
                // Before the first look, which asks for the watches.
                if let Err(error) = self.start_watcher() {
                    tracing::warn!(%error, "the workspace is not watched");
                }
            }
            Err(asleep) => {
                tracing::error!(why = asleep.why, "the replica cannot run");
                let _ = self.network.send(Command::Disconnect);
                self.engine = Err(asleep);
            }
        }
        // Nothing that the old session was asked for concerns the new engine, and it
        // looks through the whole workspace first.
        self.session = 0;
        self.swept = self.now();
    }

    fn try_open(&mut self) -> Result<Engine, Asleep> {
        let disk = RootDisk::open(&self.setup.root, self.setup.marker);
        let disk = disk.map_err(|error| match error {
            DiskError::RootGone => Asleep::new(Halt::RootGone.to_string(), Some(Halt::RootGone)),
            other => Asleep::new(format!("the workspace cannot be opened: {other}"), None),
        })?;
        // From here on a root without its marker is another one.
        self.setup.marker = Marker::Expect;
        let store = SqliteStore::open(&self.setup.database)
            .map_err(|error| Asleep::new(error.to_string(), None))?;
        let abilities = disk.abilities();
        let rules = GitRules::new(disk.access(), &self.setup.ignore);
        let rules = rules.guarding(self.setup.guarded.clone());
        let registration = Registration {
            display_name: self.setup.display_name.clone(),
            platform: std::env::consts::OS.into(),
            root_path: self.setup.root.display().to_string(),
            case_sensitive: abilities.case_sensitive,
            capabilities: Capabilities {
                case_sensitive: abilities.case_sensitive,
                unicode_normalization_insensitive: abilities.unicode_insensitive,
                windows_compatible_paths: abilities.windows_names,
            },
            take_instance: true,
            sandbox_id: self.setup.sandbox.clone(),
        };
        // Loading takes a while with many files, and what the service has to say to
        // the engine waits until it hears.
        let _ = self.network.send(Command::Connect(Box::new(registration), disk.access()));
        let config = self.setup.config.clone();
        Replica::open(config, disk, store, Box::new(rules), self.now())
            .map_err(|stop| Asleep::new(stop.to_string(), None))
    }

    /// The engine does not know any more what is true: it loads again, a few
    /// times, and then waits for a user.
    fn reload(&mut self, stop: &Stop) {
        let failures = self.failures.add(self.now());
        tracing::error!(%stop, failures, "the engine stopped; it is loaded again");
        if failures > RELOADS {
            let _ = self.network.send(Command::Disconnect);
            self.engine = Err(Asleep::new(stop.to_string(), None));
        } else {
            std::thread::sleep(Duration::from_millis(100 << failures));
            self.open();
        }
        self.failures.over = Some(self.now());
    }

    /// Goes on after a halt.
    fn resume(&mut self, how: Resume) -> Result<(), Stop> {
        let now = self.now();
        let about_root = |halt: &Halt| {
            matches!(halt, Halt::RootGone | Halt::RootReplaced | Halt::AbilitiesChanged { .. })
        };
        if let Ok(engine) = &mut self.engine
            && !engine.status().halt.as_ref().is_some_and(about_root)
        {
            return engine.resume(how, now);
        }
        // What was watched and held open may be another directory by now, and
        // whatever failed before may be mended.
        self.failures = Failures::default();
        self.open();
        match &mut self.engine {
            Ok(engine) if how == Resume::ConfirmDeletions => engine.resume(how, now),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_far_from_the_start_are_counted_too() {
        // Each reload works for a while before the same thing fails again.
        let (mut failures, mut now) = (Failures::default(), 3_600_000);
        for count in 1..=RELOADS + 1 {
            assert_eq!(failures.add(now), count);
            failures.over = Some(now + 3000);
            now += 15_000;
        }
        // What is long past is another story.
        now += LATELY;
        assert_eq!(failures.add(now), 1);
    }
}
