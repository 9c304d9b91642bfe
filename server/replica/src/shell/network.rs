//! The network side of a replica: one connection to the service, kept up, and
//! the engine's effects carried out over it.
//!
//! A connection is a *session*: a registration with its instance number, the
//! stream of events, and all requests made since. When the stream is lost,
//! everything of the session is given up and the next one starts with a new
//! registration, so that an answer to an old question can never be taken for
//! one to a new question.

mod follow;
mod send;
mod transfer;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use bytes::Bytes;
use s0_api::documented::ConflictStatus;
use s0_api::sync::{Registered, Registration, SubmitError};
use s0_api::{Client, Error, SubmitFailure};
use s0_tree::{Seq, TreePath};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;

use super::access::RootAccess;
use super::run::Message;
use crate::engine::{Effect, Event};
use crate::state::Settlement;

/// The shortest and the longest pause between two attempts.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// A session that lived this long was a good one, whatever ended it.
const GOOD_SESSION: Duration = Duration::from_secs(5);
/// How often the service is told the cursor at most.
const CURSOR_EVERY: Duration = Duration::from_secs(1);
/// Large files are uploaded, and downloaded, so many shares of 256 KiB at one time:
/// two that are cut into pieces, or many that take no more room than those.
const SHARES: (usize, u64) = (16, 256 << 10);

/// Finds the service, anew for each session: a service on this machine may have
/// another address after it was restarted.
pub type Connect = Arc<dyn Fn() -> Result<Client, String> + Send + Sync>;

/// What the network is told.
#[derive(Debug)]
pub(super) enum Command {
    /// Registers, and keeps trying.
    Connect(Box<Registration>, RootAccess),
    /// Ends the session, and registers no more.
    Disconnect,
    /// Does what the engine asks, in the session of this number.
    Perform(u64, Vec<Effect>),
    /// Asks for the Volume's head, for the flush of this number.
    Head(u64),
}

/// The task that does all this. It ends when its commands do.
pub(super) struct Network {
    pub(super) connect: Connect,
    pub(super) volume: Arc<str>,
    pub(super) replica: Arc<str>,
    pub(super) out: Sender<Message>,
}

/// What each request of a session needs. A clone is the same session.
#[derive(Clone)]
struct Session {
    number: u64,
    client: Client,
    volume: Arc<str>,
    replica: Arc<str>,
    instance: u64,
    epoch: watch::Sender<String>,
    access: RootAccess,
    out: Sender<Message>,
    /// Takes the reason for which the session must end.
    lost: mpsc::UnboundedSender<String>,
    large: Arc<Semaphore>,
    /// Something came across: an entry, or the answer to a submission.
    useful: Arc<AtomicBool>,
}

impl Session {
    /// Hands an event to the engine. It is gone only when everything ends.
    fn tell(&self, event: Event) {
        let _ = self.out.send(Message::Network(self.number, event, None));
    }

    /// Waits for the turn of a large file.
    async fn turn(&self, size: u64) -> Option<OwnedSemaphorePermit> {
        let most = SHARES.0 as u64 / 2;
        let shares = u32::try_from(size.div_ceil(SHARES.1).clamp(1, most)).ok()?;
        self.large.clone().acquire_many_owned(shares).await.ok()
    }

    fn was_useful(&self) {
        self.useful.store(true, Relaxed);
    }

    fn end(&self, why: &Error) {
        let _ = self.lost.send(why.to_string());
    }
}

/// Pauses that grow, with jitter, so that many clients do not come back at once.
struct Backoff {
    next: Duration,
    /// The last attempt failed.
    failed: bool,
}

impl Backoff {
    fn new() -> Self {
        Self { next: PAUSES.0, failed: false }
    }

    fn failed(&mut self) {
        self.failed = true;
    }

    /// Begins again with the shortest pause.
    fn reset(&mut self) {
        self.next = PAUSES.0;
    }

    async fn pause_after_failure(&mut self) {
        if self.failed {
            let jitter = rand::random_range(0.5..1.0);
            sleep(self.next.mul_f64(jitter)).await;
            self.next = (self.next * 2).min(PAUSES.1);
            self.failed = false;
        }
    }
}

impl Network {
    pub(super) async fn run(self, mut commands: mpsc::UnboundedReceiver<Command>) {
        let mut wanted: Option<(Box<Registration>, RootAccess)> = None;
        let mut backoff = Backoff::new();
        let mut number = 0;
        loop {
            let command = match &wanted {
                None => commands.recv().await,
                Some((registration, access)) => {
                    match self.connect(registration, &mut backoff, &mut commands).await {
                        Err(command) => command,
                        Ok(connected) => {
                            number += 1;
                            let session = self.session(
                                number,
                                connected,
                                access,
                                &mut backoff,
                                &mut commands,
                            );
                            match session.await {
                                // If that was the end of all commands, the next attempt
                                // to connect hears of it.
                                None => continue,
                                command => command,
                            }
                        }
                    }
                }
            };
            match command {
                None => return,
                Some(Command::Connect(registration, access)) => {
                    wanted = Some((registration, access));
                }
                Some(Command::Disconnect) => wanted = None,
                Some(other) => self.without_session(&other),
            }
        }
    }

    /// Answers what can only be done in a session.
    fn without_session(&self, command: &Command) {
        // Other commands are of a session that has ended: the next one is asked again.
        if let Command::Head(flush) = *command {
            let _ = self.out.send(Message::Head(flush, None));
        }
    }

    /// Registers, however long it takes, or until a command (or the end of all
    /// commands) ends that. What only a session can do must not: a flush asks
    /// again and again, and the answer to a registration takes its time.
    async fn connect(
        &self,
        registration: &Registration,
        backoff: &mut Backoff,
        commands: &mut mpsc::UnboundedReceiver<Command>,
    ) -> Result<(Client, Registered), Option<Command>> {
        let mut register = pin!(self.register(registration, backoff));
        loop {
            tokio::select! {
                command = commands.recv() => match command {
                    Some(command @ (Command::Head(_) | Command::Perform(..))) => {
                        self.without_session(&command);
                    }
                    other => return Err(other),
                },
                registered = &mut register => return Ok(registered),
            }
        }
    }

    async fn register(
        &self,
        registration: &Registration,
        backoff: &mut Backoff,
    ) -> (Client, Registered) {
        loop {
            backoff.pause_after_failure().await;
            let attempt = async {
                let client = (self.connect)()?;
                let registered = client.register(&self.volume, &self.replica, registration).await;
                registered.map(|registered| (client, registered)).map_err(|error| match error {
                    Error::NotFound(_) => format!(
                        "the Volume {} does not exist any more, or never did at this service; \
                         `s0 sync detach` ends the attachment, and another Volume can be attached \
                         then. The files here stay",
                        self.volume
                    ),
                    other => other.to_string(),
                })
            };
            match attempt.await {
                Ok(done) => return done,
                Err(why) => {
                    let _ = self.out.send(Message::Unreachable(why));
                }
            }
            backoff.failed();
        }
    }

    /// Runs a session until it is lost, or a command ends it.
    async fn session(
        &self,
        number: u64,
        (client, registered): (Client, Registered),
        access: &RootAccess,
        backoff: &mut Backoff,
        commands: &mut mpsc::UnboundedReceiver<Command>,
    ) -> Option<Command> {
        let begun = Instant::now();
        let (lost, mut ended) = mpsc::unbounded_channel();
        let session = Session {
            number,
            client,
            volume: self.volume.clone(),
            replica: self.replica.clone(),
            instance: registered.instance,
            epoch: watch::Sender::new(registered.epoch.clone()),
            access: access.clone(),
            out: self.out.clone(),
            lost,
            large: Arc::new(Semaphore::new(SHARES.0)),
            useful: Arc::default(),
        };
        // Dropping these ends all that was asked for in this session.
        let mut work = Work::start(session.clone());
        if number == 1 {
            work.fetch_tree_ahead();
        }
        let _ = self.out.send(Message::Connected(number, registered));
        loop {
            tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::Perform(of, effects)) => {
                        if of == number {
                            effects.into_iter().for_each(|effect| work.perform(effect));
                        }
                    }
                    Some(Command::Head(flush)) => work.ask_head(flush),
                    other => return other,
                },
                why = ended.recv() => {
                    let why = why.unwrap_or_default();
                    tracing::info!(why, "the connection is lost");
                    let _ = self.out.send(Message::Lost(number, why));
                    if session.useful.load(Relaxed) || begun.elapsed() > GOOD_SESSION {
                        backoff.reset();
                    }
                    backoff.failed();
                    return None;
                }
                Some(_) = work.tasks.join_next(), if !work.tasks.is_empty() => {}
            }
        }
    }
}

/// What goes on in a session.
struct Work {
    session: Session,
    tasks: JoinSet<()>,
    stream: Option<AbortHandle>,
    /// The tree, fetched while the engine was loading its state and looking at the disk.
    ahead: Option<follow::Ahead>,
    small: mpsc::UnboundedSender<transfer::Wanted>,
    offered: mpsc::UnboundedSender<send::Offered>,
    cursor: watch::Sender<Option<Seq>>,
    /// How many submissions in a row were not answered.
    unanswered: Arc<AtomicU32>,
}

impl Work {
    fn start(session: Session) -> Self {
        let mut tasks = JoinSet::new();
        let (small, queue) = mpsc::unbounded_channel();
        tasks.spawn(transfer::fetch_small(session.clone(), queue));
        let (offered, queue) = mpsc::unbounded_channel();
        tasks.spawn(send::upload_together(session.clone(), queue));
        let (cursor, told) = watch::channel(None);
        tasks.spawn(tell_cursor(session.clone(), told));
        Self {
            session,
            tasks,
            stream: None,
            ahead: None,
            small,
            offered,
            cursor,
            unanswered: Arc::default(),
        }
    }

    /// An engine that starts asks for the tree first, once it gets to it.
    fn fetch_tree_ahead(&mut self) {
        let (fetched, ahead) = oneshot::channel();
        let session = self.session.clone();
        self.tasks.spawn(async move {
            let _ = fetched.send(session.client.tree(&session.volume).await);
        });
        self.ahead = Some(ahead);
    }

    fn perform(&mut self, effect: Effect) {
        let session = self.session.clone();
        match effect {
            Effect::FetchTree { since } => {
                self.tasks.spawn(follow::fetch_tree(session, self.ahead.take(), since));
            }
            Effect::Follow(after) => {
                let stream = self.tasks.spawn(follow::follow(session, after));
                if let Some(old) = self.stream.replace(stream) {
                    old.abort();
                }
            }
            Effect::Submit(submission, inline) => {
                let unanswered = self.unanswered.clone();
                self.tasks.spawn(async move {
                    submit(session, &submission, inline, &unanswered).await;
                });
            }
            Effect::Fetch { slot, content, reuse, held } => {
                if content.is_inline() {
                    // The queue lives as long as the session does.
                    let _ = self.small.send(transfer::Wanted { slot, content });
                } else {
                    self.tasks.spawn(transfer::fetch_large(session, slot, content, (reuse, held)));
                }
            }
            Effect::Upload { path, content, .. } if send::is_together(content) => {
                let _ = self.offered.send(send::Offered { path, content });
            }
            Effect::Upload { path, content, recipe } => {
                self.tasks.spawn(send::upload(session, path, content, recipe));
            }
            Effect::Cursor(cursor) => {
                self.cursor.send_replace(Some(cursor));
            }
            Effect::Author(path, entry) => {
                self.tasks.spawn(author(session, path, entry));
            }
            Effect::Settle(id, settlement) => {
                self.tasks.spawn(settle(session, id, settlement));
            }
            // Those are for people; the run loop hands them on.
            Effect::Notice(_) => {}
        }
    }

    fn ask_head(&mut self, flush: u64) {
        let session = self.session.clone();
        self.tasks.spawn(async move {
            let asked = session.client.replica(&session.volume, &session.replica).await;
            let head = asked.ok().map(|envelope| Seq(envelope.head_seq));
            let _ = session.out.send(Message::Head(flush, head));
        });
    }
}

async fn submit(
    session: Session,
    submission: &s0_api::sync::Submission,
    inline: Vec<(s0_tree::ContentId, Arc<[u8]>)>,
    unanswered: &AtomicU32,
) {
    let inline: Vec<_> =
        inline.into_iter().map(|(id, bytes)| (id, Bytes::from_owner(bytes))).collect();
    let Session { client, volume, replica, instance, .. } = &session;
    let number = submission.number;
    match client.submit(volume, replica, *instance, submission, &inline).await {
        Ok(answer) => {
            session.was_useful();
            unanswered.store(0, Relaxed);
            session.tell(Event::Answered(number, Ok(answer)));
        }
        Err(SubmitFailure::Refused(refused)) => {
            unanswered.store(0, Relaxed);
            if refused == SubmitError::UnknownReplica {
                session.end(&Error::NotFound(refused.to_string()));
            }
            session.tell(Event::Answered(number, Err(refused)));
        }
        Err(SubmitFailure::Transport(error) | SubmitFailure::Server(error)) => {
            let before = unanswered.fetch_add(1, Relaxed).min(10);
            tracing::warn!(number, %error, "a submission was not answered; it is sent again");
            sleep((PAUSES.0 * 2_u32.pow(before)).min(PAUSES.1)).await;
            if error.is_transient() || matches!(error, Error::Protocol(_)) {
                session.tell(Event::Unanswered(number));
            } else {
                // The session is not what the service thinks it is.
                session.end(&error);
            }
        }
    }
}

/// Tells the latest cursor, once in a while.
async fn tell_cursor(session: Session, mut cursor: watch::Receiver<Option<Seq>>) {
    while cursor.changed().await.is_ok() {
        let Some(seq) = *cursor.borrow_and_update() else { continue };
        let told = session.client.set_cursor(&session.volume, &session.replica, seq).await;
        if let Err(error) = told {
            // It only says what may be forgotten; the next one says it as well.
            tracing::debug!(%error, "the cursor was not told");
        }
        sleep(CURSOR_EVERY).await;
    }
}

/// Finds out who made the entry that a path's version came with.
async fn author(session: Session, path: TreePath, entry: Seq) {
    let mut backoff = Backoff::new();
    loop {
        let asked = session.client.path_history(&session.volume, &path, false, None, 1).await;
        let actor = match asked {
            Err(error) if error.is_transient() => {
                backoff.failed();
                backoff.pause_after_failure().await;
                continue;
            }
            Err(_) => None,
            Ok(history) => {
                let latest = history.versions.into_iter().next();
                latest.filter(|version| version.seq == entry).and_then(|version| version.actor)
            }
        };
        return session.tell(Event::Author(entry, actor));
    }
}

/// Tells the service how a conflict ended, however long that takes.
async fn settle(session: Session, id: String, settlement: Settlement) {
    let status =
        if settlement.ignored { ConflictStatus::Ignored } else { ConflictStatus::Resolved };
    let mut backoff = Backoff::new();
    loop {
        let told = session
            .client
            .set_conflict(&session.volume, &id, status, &settlement.resolution, "")
            .await;
        match told {
            Err(error) if error.is_transient() => {
                backoff.failed();
                backoff.pause_after_failure().await;
            }
            // Whoever settled it before: the service knows of no open one.
            Ok(_) | Err(_) => return session.tell(Event::SettlementHeard(id)),
        }
    }
}
