//! The connection of a link, which is made again when it breaks.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use s0_api::mounts::{IN_FLIGHT, MountQuery, OWN_LEASE_MS, Said, Told, write_submission};
use s0_api::sync::{Submission, SubmitError};
use s0_api::{MountReader, MountWriter};
use s0_tree::Seq;
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::{Done, Incoming, LEASE, Order, Orders, PATIENCE, Wanted, Whereto};
use crate::kernel::answer::Errno;

/// How many changes go in one submission, and how many bytes with them.
const CHANGES: usize = 512;
const BYTES: usize = 8 * 1024 * 1024;
/// How often the service is told that the mount is there.
const BEAT: Duration = Duration::from_millis(500);
/// How long a connection may be silent.
const SILENT: Duration = Duration::from_millis(2 * OWN_LEASE_MS);
/// The pauses between attempts to connect.
const AGAIN: Duration = Duration::from_millis(250);

struct UnderWay {
    number: u64,
    message: Bytes,
    wanted: Vec<Wanted>,
}

/// When the service was last known to hear this mount.
#[derive(Debug, Default)]
struct Beats {
    last: u64,
    said: Option<(u64, Instant)>,
    /// When that was said which the service heard last.
    answered: Option<Instant>,
    /// The same, of what was said by a mount that had seen all that others go by.
    heard: Option<Instant>,
}

/// The connection of a link.
pub(crate) struct Connection {
    to: Whereto,
    incoming: Arc<dyn Incoming>,
    seen: watch::Receiver<Seq>,
    queue: mpsc::UnboundedReceiver<Order>,
    settled: watch::Sender<Seq>,
    waiting: Vec<Wanted>,
    /// What was given back while there was no connection.
    unsaid: Vec<Said>,
    under_way: VecDeque<UnderWay>,
    /// The number of the last submission; known once the service has said it.
    last: Option<u64>,
    beats: Beats,
}

/// Why a connection ended.
enum Ended {
    /// It is to be made again.
    Broken(String),
    /// There is nothing to connect to any more.
    Lost(String),
    /// The mount ends.
    Done,
}

impl Connection {
    /// Connects for the first time. `seen` says up to where the kernel knows.
    pub(crate) async fn open(
        to: Whereto,
        orders: Orders,
        incoming: Arc<dyn Incoming>,
        seen: watch::Receiver<Seq>,
    ) -> Result<impl Future<Output = ()> + Send + use<>, s0_api::Error> {
        let connected = to.service.client().mount(&to.volume, &to.session, &to.query).await?;
        let Orders { queue, settled } = orders;
        let connection = Self {
            to,
            incoming,
            seen,
            queue,
            settled,
            waiting: Vec::new(),
            unsaid: Vec::new(),
            under_way: VecDeque::new(),
            last: None,
            beats: Beats::default(),
        };
        Ok(connection.run(connected))
    }

    async fn run(mut self, first: (MountWriter, MountReader)) {
        let mut connected = Ok(first);
        loop {
            let ended = match connected {
                Ok((writer, reader)) => self.serve(writer, reader).await,
                Err(ended) => ended,
            };
            match ended {
                Ended::Done => return,
                Ended::Lost(why) => {
                    self.fail_all();
                    self.incoming.lapsed();
                    self.incoming.lost(why);
                    return;
                }
                Ended::Broken(why) => tracing::info!(why, "the connection to the service broke"),
            }
            if self.wait_a_moment().await {
                return;
            }
            connected = self.connect().await;
        }
    }

    /// A pause, in which orders are taken. True when the mount ends.
    async fn wait_a_moment(&mut self) -> bool {
        let until = tokio::time::Instant::now() + AGAIN;
        loop {
            self.check_lease();
            tokio::select! {
                () = tokio::time::sleep_until(until) => return false,
                order = self.queue.recv() => match order {
                    Some(Order::Change(wanted)) => self.waiting.push(*wanted),
                    // What is held and waited for is said again; what is given back is not.
                    Some(Order::Say(said @ (Said::Unlock { .. } | Said::Release { .. }))) => {
                        self.unsaid.push(said);
                    }
                    Some(Order::Say(_)) => {}
                    Some(Order::End) | None => return true,
                },
            }
        }
    }

    async fn connect(&mut self) -> Result<(MountWriter, MountReader), Ended> {
        let query = MountQuery { after: self.incoming.head().0, ..self.to.query.clone() };
        self.to.service.look_again();
        let client = self.to.service.client();
        let connecting = client.mount(&self.to.volume, &self.to.session, &query);
        let connected = tokio::select! {
            connected = timeout(PATIENCE, connecting) => connected,
            () = sleep(LEASE) => return Err(Ended::Broken("it takes too long".into())),
        };
        match connected {
            Ok(Ok(connected)) => Ok(connected),
            Ok(Err(error)) if !error.is_transient() => Err(Ended::Lost(error.to_string())),
            Ok(Err(error)) => Err(Ended::Broken(error.to_string())),
            Err(_) => Err(Ended::Broken("it does not answer".into())),
        }
    }

    async fn serve(&mut self, mut writer: MountWriter, mut reader: MountReader) -> Ended {
        let broken = |error: s0_api::Error| Ended::Broken(error.to_string());
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let begun = Instant::now();
        let mut welcomed = false;
        loop {
            // What is new goes behind what goes again.
            if welcomed && let Err(error) = self.send_next(&mut writer).await {
                return broken(error);
            }
            let done = tokio::select! {
                told = reader.next() => match told {
                    Ok(Some(told)) => match self.hear(told) {
                        Ok(true) => {
                            welcomed = true;
                            self.send_again(&mut writer).await
                        }
                        Ok(false) => Ok(()),
                        Err(ended) => return ended,
                    },
                    Ok(None) => return Ended::Broken("it was closed".into()),
                    Err(error) => return broken(error),
                },
                order = self.queue.recv() => match self.take(&mut writer, order).await {
                    Ok(false) => Ok(()),
                    Ok(true) => {
                        let _ = writer.say(&Said::Bye).await;
                        // The service closes it when it has let go of the mount.
                        let closed = async { while let Ok(Some(_)) = reader.next().await {} };
                        let _ = timeout(LEASE, closed).await;
                        return Ended::Done;
                    }
                    Err(error) => Err(error),
                },
                Ok(()) = self.seen.changed() => self.beat(&mut writer).await,
                _ = beat.tick() => {
                    self.check_lease();
                    let last = self.beats.answered.map_or(begun, |heard| heard.max(begun));
                    if last.elapsed() > SILENT {
                        return Ended::Broken("it is silent".into());
                    }
                    self.beat(&mut writer).await
                }
            };
            if let Err(error) = done {
                return broken(error);
            }
        }
    }

    /// Takes an order, and all that wait behind it, so that changes go together. True when
    /// the mount ends.
    async fn take(
        &mut self,
        writer: &mut MountWriter,
        first: Option<Order>,
    ) -> Result<bool, s0_api::Error> {
        let mut next = first;
        loop {
            match next {
                Some(Order::Change(wanted)) => self.waiting.push(*wanted),
                // Whoever has locks waits for his changes before he says more of them.
                Some(Order::Say(said)) => writer.say(&said).await?,
                Some(Order::End) | None => return Ok(true),
            }
            match self.queue.try_recv() {
                Ok(order) => next = Some(order),
                Err(_) => return Ok(false),
            }
        }
    }

    /// Sends what waits, unless an answer is awaited.
    async fn send_next(&mut self, writer: &mut MountWriter) -> Result<(), s0_api::Error> {
        let Some(last) = self.last else { return Ok(()) };
        if self.waiting.is_empty() || self.under_way.len() >= IN_FLIGHT {
            return Ok(());
        }
        // One is enough when nobody waits only for it to be taken: what comes meanwhile goes
        // together.
        if !self.under_way.is_empty() && self.waiting.iter().all(|it| it.taken.is_none()) {
            return Ok(());
        }
        let mut bytes = 0;
        let fits = |wanted: &&Wanted| {
            bytes += wanted.inline.as_ref().map_or(0, |(_, bytes)| bytes.len());
            bytes <= BYTES
        };
        let count = self.waiting.iter().take(CHANGES).take_while(fits).count().max(1);
        let wanted: Vec<Wanted> = self.waiting.drain(..count).collect();
        let submission = Submission {
            number: last + 1,
            changes: wanted.iter().map(|wanted| wanted.change.clone()).collect(),
        };
        let inline: Vec<_> = wanted.iter().filter_map(|wanted| wanted.inline.clone()).collect();
        let message = Bytes::from(write_submission(&submission, &inline)?);
        let number = submission.number;
        self.last = Some(number);
        self.under_way.push_back(UnderWay { number, message: message.clone(), wanted });
        writer.submit(message).await
    }

    /// Sends again all whose end is not known, in their order.
    async fn send_again(&mut self, writer: &mut MountWriter) -> Result<(), s0_api::Error> {
        for said in std::mem::take(&mut self.unsaid) {
            writer.say(&said).await?;
        }
        for under_way in &self.under_way {
            writer.submit(under_way.message.clone()).await?;
        }
        Ok(())
    }

    async fn beat(&mut self, writer: &mut MountWriter) -> Result<(), s0_api::Error> {
        let seq = *self.seen.borrow_and_update();
        self.beats.last += 1;
        let beat = self.beats.last;
        if self.beats.said.is_none() {
            self.beats.said = Some((beat, Instant::now()));
        }
        writer.say(&Said::Seen { seq, beat }).await
    }

    /// Takes what the service tells. True when it is a welcome.
    fn hear(&mut self, told: Told) -> Result<bool, Ended> {
        match told {
            Told::Welcome { last_number } => {
                self.last = Some(self.last.unwrap_or(0).max(last_number));
                self.beats.said = None;
                self.incoming.reconnected();
                return Ok(true);
            }
            Told::Head { policy, quota, .. } => self.incoming.terms(policy, quota),
            Told::Entry { entry, text } => {
                let taken = self.incoming.entry(&entry, text.as_deref());
                taken.map_err(Ended::Lost)?;
            }
            Told::Taken { number } => {
                let of_it = self.under_way.iter_mut().find(|it| it.number == number);
                for wanted in of_it.into_iter().flat_map(|it| &mut it.wanted) {
                    if let Some(taken) = wanted.taken.take() {
                        let _ = taken.send(());
                    }
                }
            }
            Told::Answer { number, head, outcomes, settled } => {
                if settled {
                    self.settle(head);
                }
                let answered = self.answered(number)?.into_iter().zip(outcomes);
                for (index, (wanted, outcome)) in answered.enumerate() {
                    // Whoever asked may have given up; it is done all the same.
                    let _ = wanted.done.send(Ok(Done { outcome, head, which: (number, index) }));
                }
            }
            Told::Refused { number, error } => {
                if let SubmitError::Fenced { .. } | SubmitError::UnknownReplica = error {
                    return Err(Ended::Broken(error.to_string()));
                }
                let wanted = self.answered(number)?;
                self.refused(wanted, &error);
            }
            Told::Failed { number, full } => {
                let wanted = self.answered(number)?;
                let errno = if full { Errno::NOSPC } else { Errno::AGAIN };
                wanted.into_iter().for_each(|it| drop(it.done.send(Err(errno))));
            }
            Told::Alone => self.incoming.alone(),
            Told::Company => self.incoming.company(),
            Told::Settled { seq } => self.settle(seq),
            Told::Heard { beat, behind } => {
                if let Some((said, at)) = self.beats.said
                    && beat >= said
                {
                    self.beats.answered = Some(at);
                    // Before it is mounted the kernel knows nothing that could be old, and what
                    // there was when it came is here with the terms.
                    if !behind || self.beats.heard.is_none() {
                        self.beats.heard = Some(at);
                        self.incoming.heard(at);
                    }
                    self.beats.said = None;
                }
            }
            Told::Reserved { id, granted } => self.incoming.reserved(id, granted),
            Told::Locked { .. }
            | Told::Busy { .. }
            | Told::Deadlock { .. }
            | Told::TooMany { .. } => {
                self.incoming.lock(told);
            }
        }
        Ok(false)
    }

    /// What was settled stays so, whatever is told late.
    fn settle(&self, seq: Seq) {
        self.settled.send_if_modified(|settled| {
            let later = seq > *settled;
            *settled = seq.max(*settled);
            later
        });
    }

    /// Those who wait for the submission with this number.
    fn answered(&mut self, number: u64) -> Result<Vec<Wanted>, Ended> {
        let at = self.under_way.iter().position(|it| it.number == number);
        let under_way = at.and_then(|at| self.under_way.remove(at));
        let under_way = under_way.ok_or("it answers what was not asked");
        under_way.map(|it| it.wanted).map_err(|why| Ended::Broken(why.into()))
    }

    /// A submission was refused as a whole: the one change that is to blame is answered,
    /// the others go again.
    fn refused(&mut self, wanted: Vec<Wanted>, error: &SubmitError) {
        tracing::warn!(%error, "changes were refused");
        let mut again = Vec::with_capacity(wanted.len());
        for (at, wanted) in wanted.into_iter().enumerate() {
            let errno = match error {
                SubmitError::Invalid { index, .. } if *index == at => Errno::INVAL,
                SubmitError::Invalid { .. } => {
                    again.push(wanted);
                    continue;
                }
                // Contents that nothing names are not kept for ever; they are sent again.
                _ => Errno::AGAIN,
            };
            let _ = wanted.done.send(Err(errno));
        }
        again.append(&mut self.waiting);
        self.waiting = again;
    }

    fn check_lease(&self) {
        if self.beats.heard.is_some_and(|heard| heard.elapsed() >= LEASE) {
            self.incoming.lapsed();
        }
    }

    fn fail_all(&mut self) {
        let under_way = self.under_way.drain(..).flat_map(|it| it.wanted);
        for wanted in under_way.chain(self.waiting.drain(..)) {
            let _ = wanted.done.send(Err(Errno::IO));
        }
    }
}
