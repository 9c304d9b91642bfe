//! The connection of a mount: what is committed goes out, what is written comes in, and
//! a write is settled once every other mount has seen it.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use futures_util::{SinkExt as _, StreamExt as _};
use s0_api::mounts::{ID_PREFIX, IN_FLIGHT, LockSpace, MountQuery, Said, Told};
use s0_api::sync::{Answer, StreamEvent};
use s0_api::tokens::Permission;
use s0_tree::{Policy, Quota, Seq};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::answers::Answered;
use super::asked::{Named, OrMount, Params, ReadVolume, Volume};
use super::replicas::begin_submission;
use super::watch::Upgrade;
use super::{LARGE, State, check_id};
use crate::caller::Caller;
use crate::metrics::Open;
use crate::mounts::{Asked, Saw, Settled, StaleCloses};
use crate::problem::Problem;
use crate::service::Service;
use crate::volume::{Committed, Hot, Needs};

mod join;
mod stale;

/// How many entries are told before the mount is heard again.
const AT_ONCE: usize = 256;
/// How many submissions of a mount may be under way, those that it sends again among them.
const UNDER_WAY: usize = 2 * IN_FLIGHT;
/// How much a mount may ask for while others are waited for.
const MOST_ASKS: usize = 65_536;
/// How often mounts that fell silent are looked for.
const LOOK: Duration = Duration::from_millis(500);
/// How often the token is looked at.
const CHECK: Duration = Duration::from_secs(15);
/// How long a mount may take to read one message.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) async fn connect(
    service: State,
    volume: Volume<OrMount<ReadVolume>>,
    Named(session): Named,
    Params(query): Params<MountQuery>,
    Upgrade(upgrade): Upgrade,
) -> Answered {
    let Volume { caller, hot, .. } = volume;
    if !query.read_only {
        caller.may(Permission::WriteVolume)?;
    }
    check_id("the mount's id", &session)?;
    if !session.starts_with(ID_PREFIX) {
        return Err(Problem::bad("the ids of mounts begin with mnt_"));
    }
    check_id("sandbox_id", query.sandbox_id.as_deref().unwrap_or_default())?;
    let committed = hot.subscribe();
    let now = committed.borrow().clone();
    let (head, epoch) = (now.head(), now.ledger.epoch());
    let after = Seq(query.after);
    if after > head || query.epoch != epoch {
        return Err(Problem::epoch_changed(epoch, head));
    }
    if after < now.retained_after {
        return Err(Problem::reseed(now.retained_after, head));
    }
    let session: Arc<str> = session.into();
    let (tell, told) = mpsc::unbounded_channel();
    let mode = hot.record.access_mode;
    let seen = (after, query.read_only);
    let connection = hot
        .shared
        .with_mounts(|all| all.join(&session, seen, mode, tell, Instant::now()))
        .map_err(Problem::conflict)?;
    join::wait_for_others(&hot, &session, connection, after).await?;
    let (instance, last_number) = join::register(&hot, &session, &query, after).await?;
    let stale = hot.shared.mounts(|all| all.stale_closes(&session));
    let open = service.metrics.stream();
    let closing = service.closing.clone();
    let mount = Mount {
        _open: open,
        service: service.0,
        caller,
        hot,
        session,
        connection,
        instance,
        read_only: query.read_only,
        at: after,
        terms: None,
        // Of what was answered before, it may not have been told that it is settled.
        owed: Some(after),
        stale,
        has_said: false,
        asks: Vec::new(),
    };
    let upgrade = upgrade.max_message_size(LARGE).max_frame_size(LARGE);
    Ok(upgrade.on_upgrade(move |socket| mount.run(socket, last_number, committed, told, closing)))
}

/// A submission that is being committed, and what becomes of it.
type Submitting = Pin<Box<dyn Future<Output = (Submitted, Result<Answer, Problem>)> + Send>>;

/// A submission, by its number; with its bytes when the mount was told that it is taken.
struct Submitted {
    number: u64,
    taken: Option<Bytes>,
}

/// The connection is of no use any more, or the mount has ended.
enum Ended {
    Broken,
    Bye,
}

struct Mount {
    _open: Open,
    service: Arc<Service>,
    caller: Caller,
    hot: Arc<Hot>,
    session: Arc<str>,
    connection: u64,
    instance: u64,
    read_only: bool,
    /// Up to where it was told.
    at: Seq,
    terms: Option<(Policy, Quota)>,
    /// Its newest entry that is answered and not settled.
    owed: Option<Seq>,
    /// What it was told is taken, and has to try again.
    stale: StaleCloses,
    /// It has said what it holds.
    has_said: bool,
    /// What it asks for that another may hold, who has not said so yet.
    asks: Vec<Said>,
}

impl Mount {
    async fn run(
        mut self,
        mut socket: WebSocket,
        last_number: u64,
        mut committed: watch::Receiver<Arc<Committed>>,
        mut locks: mpsc::UnboundedReceiver<Told>,
        mut closing: watch::Receiver<bool>,
    ) {
        let mut answers = FuturesUnordered::new();
        let welcome = tell(&mut socket, &Told::Welcome { last_number }).await;
        let ended = match welcome {
            Ok(()) => {
                self.serve(&mut socket, &mut committed, &mut locks, &mut answers, &mut closing)
                    .await
            }
            Err(ended) => ended,
        };
        while let Some((submitted, answer)) = answers.next().await {
            self.note_stale(&submitted, answer.as_ref().ok());
        }
        if self.hot.shared.mounts(|all| !all.is_newer(&self.session, self.connection)) {
            self.release_all().await;
        }
        let frame = CloseFrame { code: close_code::AWAY, reason: "".into() };
        // Whoever has hung up already need not be told.
        let _ = timeout(LOOK, socket.send(Message::Close(Some(frame)))).await;
        let is_gone = matches!(ended, Ended::Bye)
            || (!self.stale.is_empty() && self.has_lapsed(&mut closing).await);
        if is_gone {
            self.record_stale().await;
        }
        if matches!(ended, Ended::Bye) {
            self.hot.shared.with_mounts(|all| all.leave(&self.session, self.connection));
            let session = self.session.clone();
            let forgotten = self.hot.commit(Needs::default(), move |draft| {
                if draft.ledger.unregister(&session) {
                    draft.append.forgotten.push(session.clone());
                }
                Ok(())
            });
            if let Err(problem) = forgotten.await {
                tracing::info!(?problem, "a mount that ended is still registered");
            }
        }
    }

    async fn serve(
        &mut self,
        socket: &mut WebSocket,
        committed: &mut watch::Receiver<Arc<Committed>>,
        locks: &mut mpsc::UnboundedReceiver<Told>,
        answers: &mut FuturesUnordered<Submitting>,
        closing: &mut watch::Receiver<bool>,
    ) -> Ended {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut checked = Instant::now();
        let mut mounts = self.hot.shared.mounts_changed();
        loop {
            if self.hot.is_gone() || *closing.borrow_and_update() {
                return Ended::Broken;
            }
            let now = committed.borrow_and_update().clone();
            if let Err(ended) = self.news(socket, &now).await {
                return ended;
            }
            let settled = self.settle(socket).await;
            let grace = match self.answer_asks(socket).await {
                Ok(until) => until,
                Err(ended) => return ended,
            };
            let lapse = match settled {
                Ok(at) => at.into_iter().chain(grace).min().map(tokio::time::Instant::from_std),
                Err(ended) => return ended,
            };
            if self.at < now.head() {
                // What is heard goes first, so that a long tail does not make it deaf.
                match timeout(Duration::ZERO, socket.recv()).await {
                    Ok(heard) => match self.hear(socket, heard).await {
                        Ok(submitting) => {
                            answers.extend(submitting);
                            continue;
                        }
                        Err(ended) => return ended,
                    },
                    Err(_) => continue,
                }
            }
            let done = tokio::select! {
                heard = socket.recv(), if answers.len() < UNDER_WAY => {
                    let heard = self.hear(socket, heard).await;
                    heard.map(|submitting| answers.extend(submitting))
                }
                Some((submitted, answer)) = answers.next() => {
                    self.note_stale(&submitted, answer.as_ref().ok());
                    if self.stale.are_too_many() {
                        self.record_stale().await;
                    }
                    self.answer(socket, submitted.number, answer).await
                }
                Some(told) = locks.recv() => tell(socket, &told).await,
                changed = committed.changed() => changed.map_err(|_| Ended::Broken),
                _ = mounts.changed(), if self.owed.is_some() || !self.asks.is_empty() => Ok(()),
                () = lapses(lapse) => Ok(()),
                changed = closing.changed() => changed.map_err(|_| Ended::Broken),
                _ = look.tick() => {
                    if self.hot.shared.mounts(|all| all.has_lapsed(Instant::now())) {
                        self.hot.shared.with_mounts(|all| all.expire(Instant::now()));
                    }
                    if checked.elapsed() < CHECK {
                        Ok(())
                    } else if self.service.is_good(&self.caller).await {
                        checked = Instant::now();
                        Ok(())
                    } else {
                        Err(Ended::Broken)
                    }
                }
            };
            if let Err(ended) = done {
                return ended;
            }
        }
    }

    /// Tells what was committed.
    async fn news(&mut self, socket: &mut WebSocket, now: &Committed) -> Result<(), Ended> {
        if self.at < now.head() {
            let recent = match self.hot.shared.recent(self.at, AT_ONCE) {
                Some(recent) => recent,
                None => super::events::stored(&self.service, &self.hot, self.at, now.head())
                    .await
                    .map_err(|_| Ended::Broken)?,
            };
            if recent.is_empty() {
                return Err(Ended::Broken);
            }
            for published in recent {
                // A gap: what comes next was let go. It comes again and is told so.
                if published.entry.seq != self.at.next() {
                    return Err(Ended::Broken);
                }
                self.at = published.entry.seq;
                feed(socket, published.json()).await?;
                if published.entry.actor.replica.as_deref() == Some(&*self.session) {
                    let seq = self.at;
                    self.hot.shared.with_mounts(|all| all.did(&self.session, self.connection, seq));
                }
            }
        }
        let terms = (now.ledger.policy(), now.ledger.quota());
        if self.at == now.head() && self.terms != Some(terms) {
            self.terms = Some(terms);
            let (head, epoch) = (now.head(), now.ledger.epoch().into());
            let event = StreamEvent::Head { head, epoch, policy: terms.0, quota: terms.1 };
            let json = serde_json::to_vec(&event).map_err(|_| Ended::Broken)?;
            feed(socket, json.into()).await?;
        }
        flush(socket).await
    }

    async fn hear(
        &mut self,
        socket: &mut WebSocket,
        heard: Option<Result<Message, axum::Error>>,
    ) -> Result<Option<Submitting>, Ended> {
        match heard {
            Some(Ok(Message::Text(text))) => match serde_json::from_str(&text) {
                Ok(said) if self.has_to_wait(&said) => {
                    self.asks.push(said);
                    let bounded = self.asks.len() <= MOST_ASKS;
                    if bounded { Ok(None) } else { Err(Ended::Broken) }
                }
                Ok(said) => self.do_as_said(socket, said).await.map(|()| None),
                Err(_) => Err(Ended::Broken),
            },
            Some(Ok(Message::Binary(body))) => self.submit(socket, body).await,
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => Ok(None),
            Some(Ok(Message::Close(_)) | Err(_)) | None => Err(Ended::Broken),
        }
    }

    /// Whether something may be another's that has not said so since the service began.
    fn has_to_wait(&self, said: &Said) -> bool {
        let about_others = !matches!(
            said,
            Said::Seen { .. } | Said::Concluded { .. } | Said::Locks | Said::Company | Said::Bye
        );
        // What it holds comes first, and is no question.
        about_others
            && self.has_said
            && self.hot.shared.mounts(|all| all.awaits_until(Instant::now()).is_some())
    }

    /// Does what had to wait, when it has no more to; gives until when it has.
    async fn answer_asks(&mut self, socket: &mut WebSocket) -> Result<Option<Instant>, Ended> {
        if self.asks.is_empty() {
            return Ok(None);
        }
        let until = self.hot.shared.mounts(|all| all.awaits_until(Instant::now()));
        if until.is_none() {
            for said in std::mem::take(&mut self.asks) {
                self.do_as_said(socket, said).await?;
            }
        }
        Ok(until)
    }

    async fn do_as_said(&mut self, socket: &mut WebSocket, said: Said) -> Result<(), Ended> {
        let (shared, session) = (&self.hot.shared, &self.session);
        match said {
            Said::Seen { seq, beat } => {
                let seq = seq.min(self.at);
                let now = Instant::now();
                let head = self.hot.subscribe().borrow().head();
                let saw =
                    shared.with_mounts(|all| all.saw(session, self.connection, (seq, head), now));
                let behind = saw.ok_or(Ended::Broken)? == Saw::Behind;
                tell(socket, &Told::Heard { beat, behind }).await
            }
            Said::Reserve { id, path } => {
                let granted = self.hot.reserve(session.clone(), path).await;
                let granted = granted.map_err(|_| Ended::Broken)?;
                tell(socket, &Told::Reserved { id, granted }).await
            }
            Said::Release { path } => {
                self.hot.release(session.clone(), path).await;
                Ok(())
            }
            Said::Lock { id, node, space, holder, range, wait, pid } => {
                let asked = Asked { id, node, space, holder, range, pid };
                match shared.with_mounts(|all| all.lock(session, self.connection, asked, wait)) {
                    Some(told) => tell(socket, &told).await,
                    None => Ok(()),
                }
            }
            Said::Cancel { id } => {
                shared.with_mounts(|all| all.change_locks(|locks| locks.cancel(session, id)));
                Ok(())
            }
            Said::Unlock { node, space, holder, start, end } => {
                shared.with_mounts(|all| {
                    all.change_locks(|it| it.unlock(session, (node, space), holder, (start, end)));
                });
                Ok(())
            }
            Said::Test { id, node, holder, range } => {
                let space = LockSpace::Ranges;
                let asked = Asked { id, node, space, holder, range, pid: 0 };
                let told = shared.mounts(|all| all.test(session, &asked));
                tell(socket, &told).await
            }
            Said::Locks => {
                self.has_said = true;
                shared.with_mounts(|all| all.said_locks(session, self.connection));
                Ok(())
            }
            Said::Company => {
                shared.with_mounts(|all| all.knows_company(session, self.connection));
                Ok(())
            }
            Said::Concluded { number, change } => {
                self.stale.concluded(number, change);
                Ok(())
            }
            Said::Bye => Err(Ended::Bye),
        }
    }

    /// Puts a submission in line, before the next message is heard: they are committed in the
    /// order in which they came.
    async fn submit(
        &mut self,
        socket: &mut WebSocket,
        body: Bytes,
    ) -> Result<Option<Submitting>, Ended> {
        let number = number_of(&body).filter(|_| !self.read_only).ok_or(Ended::Broken)?;
        let who = (&*self.session, self.instance);
        let team = &self.caller.team;
        let begun = begin_submission(&self.service, team, &self.hot, who, body.clone()).await;
        match begun {
            Ok(committing) => {
                let taken = self.settled().by_all.is_none().then_some(body);
                let told = match &taken {
                    Some(_) => tell(socket, &Told::Taken { number }).await,
                    None => Ok(()),
                };
                let submitted = Submitted { number, taken };
                let done = Box::pin(async move { (submitted, committing.done().await) });
                // It is committed even if nobody hears of it.
                told.map(|()| Some(done as Submitting))
            }
            Err(problem) => self.answer(socket, number, Err(problem)).await.map(|()| None),
        }
    }

    async fn answer(
        &mut self,
        socket: &mut WebSocket,
        number: u64,
        answer: Result<Answer, Problem>,
    ) -> Result<(), Ended> {
        match answer {
            Ok(Answer { head, outcomes }) => {
                // Its entries go first.
                while self.at < head {
                    let now = self.hot.committed();
                    self.news(socket, &now).await?;
                }
                let settled = self.settled().covers(head);
                if !settled {
                    self.owed = self.owed.max(Some(head));
                }
                tell(socket, &Told::Answer { number, head, outcomes, settled }).await
            }
            Err(Problem::Submit(error)) => tell(socket, &Told::Refused { number, error }).await,
            Err(problem) => {
                tracing::warn!(?problem, "a mount's changes were not committed");
                let full = matches!(problem, Problem::Full(_));
                tell(socket, &Told::Failed { number, full }).await
            }
        }
    }

    /// Gives up all names that were kept, behind what is in line to be committed.
    async fn release_all(&self) {
        let session = self.session.clone();
        let released = self.hot.commit(Needs::default(), move |draft| {
            draft.ledger.release(&session, None);
            Ok(())
        });
        if let Err(problem) = released.await {
            // The Volume is gone, or is read anew; either way nothing is reserved.
            tracing::debug!(?problem, "names were not given up");
        }
    }

    fn settled(&self) -> Settled {
        self.hot.shared.mounts(|all| all.settled(&self.session, Instant::now()))
    }

    /// Tells when what it wrote is seen by all; gives when that may change by itself.
    async fn settle(&mut self, socket: &mut WebSocket) -> Result<Option<Instant>, Ended> {
        let Some(seq) = self.owed else { return Ok(None) };
        let settled = self.settled();
        if !settled.covers(seq) {
            return Ok(settled.at);
        }
        self.owed = None;
        tell(socket, &Told::Settled { seq }).await?;
        Ok(None)
    }
}

/// The number of a submission, without reading all of it.
pub(super) fn number_of(body: &[u8]) -> Option<u64> {
    #[derive(serde::Deserialize)]
    struct Numbered {
        number: u64,
    }
    let (length, rest) = body.split_first_chunk::<4>()?;
    let json = rest.get(..u32::from_be_bytes(*length) as usize)?;
    serde_json::from_slice::<Numbered>(json).ok().map(|it| it.number)
}

async fn lapses(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

async fn feed(socket: &mut WebSocket, json: Bytes) -> Result<(), Ended> {
    let text = json.try_into().map_err(|_| Ended::Broken)?;
    let fed = timeout(PATIENCE, socket.feed(Message::Text(text))).await;
    fed.map_err(|_| Ended::Broken)?.map_err(|_| Ended::Broken)
}

async fn flush(socket: &mut WebSocket) -> Result<(), Ended> {
    let flushed = timeout(PATIENCE, socket.flush()).await;
    flushed.map_err(|_| Ended::Broken)?.map_err(|_| Ended::Broken)
}

async fn tell(socket: &mut WebSocket, told: &Told) -> Result<(), Ended> {
    let json = serde_json::to_vec(told).map_err(|_| Ended::Broken)?;
    feed(socket, json.into()).await?;
    flush(socket).await
}
