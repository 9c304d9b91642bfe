//! The service's side of a mount's connection, as `http/mounts.rs` of `server/service` has it:
//! entries go before the answers that they belong to, and a write is settled once every other
//! mount has seen it. Neither stream is ever out of order; one may stand still, or break.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use s0_api::mounts::{Said, Told};
use s0_api::sync::{Answer, Registration, SubmitError};
use s0_service::simulated::{Saw, Tellings};
use s0_tree::{Policy, Quota, Seq, Time};

use super::World;
use super::mounts::Mounts;
use crate::mount::{Knowledge, Sent, Up};

/// How far a connection is.
pub(super) enum Stage {
    /// It is asked for.
    Asked { after: Seq, epoch: String, due: u64 },
    /// Others have to be told first.
    Waiting { after: Seq },
    /// It is registered with the next commit.
    Registering { after: Seq, commits: u64, last_number: u64 },
    /// It is made.
    Open,
}

/// What comes down.
pub(super) enum Down {
    Told(Told, Option<Rc<[u8]>>),
    /// There is nothing to connect to any more.
    Lost,
}

pub(super) struct Connection {
    pub(super) id: u64,
    pub(super) session: Arc<str>,
    pub(super) known: Rc<RefCell<Knowledge>>,
    pub(super) up: VecDeque<(u64, Up)>,
    pub(super) down: VecDeque<(u64, Down)>,
    /// The mount has not hung up.
    pub(super) heard: bool,
    /// The service has not.
    pub(super) open: bool,
    pub(super) stage: Stage,
    /// Nothing passes until then.
    pub(super) stalled: u64,
    number: u64,
    instance: u64,
    at: Seq,
    terms: Option<(Policy, Quota)>,
    owed: Option<Seq>,
    tellings: Option<Tellings>,
    /// With how often the service had committed before.
    answers: Vec<(u64, u64, Result<Answer, SubmitError>)>,
}

impl Connection {
    pub(super) fn new(
        id: u64,
        session: Arc<str>,
        known: Rc<RefCell<Knowledge>>,
        stage: Stage,
    ) -> Self {
        Self {
            id,
            session,
            known,
            up: VecDeque::new(),
            down: VecDeque::new(),
            heard: true,
            open: true,
            stage,
            stalled: 0,
            number: 0,
            instance: 0,
            at: Seq(0),
            terms: None,
            owed: None,
            tellings: None,
            answers: Vec::new(),
        }
    }

    /// When what is sent now arrives: behind all that was sent before.
    pub(super) fn due<T>(queue: &VecDeque<(u64, T)>, now: u64, rng: &mut fastrand::Rng) -> u64 {
        let before = queue.back().map_or(0, |(due, _)| *due);
        before.max(now + rng.u64(..30))
    }

    fn tell(&mut self, told: Told, bytes: Option<Rc<[u8]>>, now: u64, rng: &mut fastrand::Rng) {
        if self.heard {
            let due = Self::due(&self.down, now, rng);
            self.down.push_back((due, Down::Told(told, bytes)));
        }
    }
}

/// Why the service hangs up.
enum Ended {
    Broken,
    Bye,
}

impl World {
    /// One connection does what it can.
    pub(super) fn serve_connection(&mut self, mounts: &mut Mounts, at: usize) {
        if !mounts.connections[at].open {
            return;
        }
        let done = match mounts.connections[at].stage {
            Stage::Open => self.serve_open(mounts, at),
            _ => self.serve_joining(mounts, at),
        };
        let Err(ended) = done else { return };
        let connection = &mut mounts.connections[at];
        connection.open = false;
        let (session, number) = (connection.session.clone(), connection.number);
        if !mounts.known.is_newer(&session, number) {
            // Behind what is in line to be committed.
            self.service.ledger.release(&session, None);
        }
        if matches!(ended, Ended::Bye) {
            mounts.known.leave(&session, number);
            self.service.ledger.unregister(&session);
        }
    }

    fn serve_joining(&mut self, mounts: &mut Mounts, at: usize) -> Result<(), Ended> {
        let now = self.now;
        let connection = &mut mounts.connections[at];
        let session = connection.session.clone();
        match &connection.stage {
            Stage::Asked { due, .. } if *due > now => {}
            Stage::Asked { after, epoch, .. } => {
                let after = *after;
                let is_other = epoch != self.service.epoch();
                if is_other || after > self.service.head() || after < self.service.floor {
                    let due = Connection::due(&connection.down, now, &mut mounts.rng);
                    connection.down.push_back((due, Down::Lost));
                    connection.open = false;
                    return Ok(());
                }
                let joined = mounts.known.join(&session, after, now).ok_or(Ended::Broken)?;
                (connection.number, connection.tellings) = (joined.0, Some(joined.1));
                connection.stage = Stage::Waiting { after };
            }
            // Whoever has hung up is not waited for.
            Stage::Waiting { .. } if !connection.heard => connection.open = false,
            Stage::Waiting { after } => {
                let after = *after;
                if mounts.known.has_to_wait(&session, now) {
                    self.count("mount waits for another");
                    return Ok(());
                }
                let head = self.service.head();
                if !mounts.known.begin(&session, connection.number, (after, head), now) {
                    connection.open = false;
                    return Ok(());
                }
                let registration = Registration {
                    display_name: session.to_string(),
                    platform: "linux".into(),
                    root_path: "/".into(),
                    case_sensitive: true,
                    capabilities: Policy::default().into(),
                    take_instance: true,
                    sandbox_id: Some(session.to_string()),
                };
                let registered = self.service.register(&session, &registration);
                if registered.cursor < after {
                    let _ = self.service.ledger.set_cursor(&session, after, Time(0));
                }
                connection.instance = registered.instance;
                let (commits, last_number) = (self.service.commits, registered.last_number);
                connection.stage = Stage::Registering { after, commits, last_number };
            }
            Stage::Registering { after, commits, last_number } => {
                if self.service.commits > *commits {
                    let (after, last_number) = (*after, *last_number);
                    (connection.at, connection.owed) = (after, Some(after));
                    connection.stage = Stage::Open;
                    connection.tell(Told::Welcome { last_number }, None, now, &mut mounts.rng);
                }
            }
            Stage::Open => {}
        }
        Ok(())
    }

    fn serve_open(&mut self, mounts: &mut Mounts, at: usize) -> Result<(), Ended> {
        let now = self.now;
        mounts.known.expire(now);
        let Mounts { connections, rng, .. } = mounts;
        let some = rng.u64(1..8);
        self.tell_news(&mut connections[at], (&mut mounts.known, rng), some)?;
        self.settle_mount(mounts, at);
        // What is heard goes in between, in its order.
        let Mounts { connections, rng, .. } = mounts;
        for _ in 0..rng.u32(1..4) {
            let connection = &mut connections[at];
            if connection.stalled > now || connection.up.front().is_none_or(|(due, _)| *due > now) {
                break;
            }
            match connection.up.pop_front() {
                Some((_, Up::Say(said))) => {
                    self.do_as_mount_said(connection, (&mut mounts.known, rng), said)?;
                }
                Some((_, Up::Submit(sent))) => {
                    self.take_submission(connection, (&mut mounts.known, rng), &sent);
                }
                None => break,
            }
        }
        let connection = &mut connections[at];
        let mut tellings = connection.tellings.take();
        while let Some(told) = tellings.as_mut().and_then(Iterator::next) {
            connection.tell(told, None, now, rng);
        }
        connection.tellings = tellings;
        let commits = self.service.commits;
        let ready = connection.answers.iter().filter(|(before, ..)| *before < commits).count();
        if ready > 0 && rng.u8(..) < 200 {
            // Those of one commit come in any order.
            let which = rng.usize(..ready);
            let (_, number, answer) = connection.answers.remove(which);
            self.tell_answer(connection, (&mut mounts.known, rng), number, answer)?;
        }
        if !connection.heard && connection.up.is_empty() {
            return Err(Ended::Broken);
        }
        Ok(())
    }

    fn tell_news(
        &self,
        connection: &mut Connection,
        (known, rng): (&mut s0_service::simulated::Mounts, &mut fastrand::Rng),
        some: u64,
    ) -> Result<(), Ended> {
        if connection.at < self.service.head() {
            let entries = self.service.entries_after(connection.at).ok_or(Ended::Broken)?;
            for entry in entries.into_iter().take(usize::try_from(some).unwrap_or(1)) {
                connection.at = entry.seq;
                let own = entry.actor.replica.as_deref() == Some(&*connection.session);
                let bytes = entry.content().and_then(|content| self.service.bytes(content));
                let told = Told::Entry { entry: Box::new(entry), text: None };
                connection.tell(told, bytes, self.now, rng);
                if own {
                    known.did(&connection.session, connection.number, connection.at);
                }
            }
        }
        let terms = (self.service.ledger.policy(), self.service.ledger.quota());
        if connection.at == self.service.head() && connection.terms != Some(terms) {
            connection.terms = Some(terms);
            let (head, epoch) = (connection.at, self.service.epoch().to_owned());
            let told = Told::Head { head, epoch, policy: terms.0, quota: terms.1 };
            connection.tell(told, None, self.now, rng);
        }
        Ok(())
    }

    fn settle_mount(&mut self, mounts: &mut Mounts, at: usize) {
        let connection = &mut mounts.connections[at];
        let Some(seq) = connection.owed else { return };
        if mounts.known.have_seen(&connection.session, Some(seq), self.now) {
            connection.owed = None;
            self.tell(&format!("{} settled at {seq}", connection.session));
            connection.tell(Told::Settled { seq }, None, self.now, &mut mounts.rng);
        }
    }

    fn do_as_mount_said(
        &mut self,
        connection: &mut Connection,
        (known, rng): (&mut s0_service::simulated::Mounts, &mut fastrand::Rng),
        said: Said,
    ) -> Result<(), Ended> {
        let session = connection.session.clone();
        match said {
            Said::Seen { seq, beat } => {
                let seq = seq.min(connection.at);
                self.tell(&format!("{session} has seen {seq}, beat {beat}"));
                let head = self.service.head();
                let saw = known.saw(&session, connection.number, (seq, head), self.now);
                let behind = saw.ok_or(Ended::Broken)? == Saw::Behind;
                connection.tell(Told::Heard { beat, behind }, None, self.now, rng);
            }
            Said::Reserve { id, path } => {
                let granted = self.service.reserve(&session, &path);
                connection.tell(Told::Reserved { id, granted }, None, self.now, rng);
            }
            Said::Release { path } => self.service.release(&session, Some(&path)),
            Said::Company => known.knows_company(&session, connection.number),
            Said::Bye => return Err(Ended::Bye),
            _ => {}
        }
        Ok(())
    }

    fn take_submission(
        &mut self,
        connection: &mut Connection,
        (known, rng): (&mut s0_service::simulated::Mounts, &mut fastrand::Rng),
        sent: &Sent,
    ) {
        let session = &connection.session;
        let text = serde_json::to_string(&sent.submission).unwrap_or_default();
        self.tell(&format!("{session} submits {text}"));
        let answer = self.service.submit_of_mount(
            (session, connection.instance),
            sent,
            &connection.known.borrow(),
            self.now,
            &mut self.registry.borrow_mut(),
            &mut self.lines.borrow_mut(),
        );
        self.tell(&format!("{session} is answered {answer:?}"));
        let number = sent.submission.number;
        if known.have_seen(session, None, self.now) {
            connection.tell(Told::Taken { number }, None, self.now, rng);
        }
        connection.answers.push((self.service.commits, number, answer));
    }

    fn tell_answer(
        &mut self,
        connection: &mut Connection,
        (known, rng): (&mut s0_service::simulated::Mounts, &mut fastrand::Rng),
        number: u64,
        answer: Result<Answer, SubmitError>,
    ) -> Result<(), Ended> {
        let told = match answer {
            Ok(Answer { head, outcomes }) => {
                // Its entries go first.
                while connection.at < head {
                    self.tell_news(connection, (known, rng), u64::MAX)?;
                }
                let settled = known.have_seen(&connection.session, Some(head), self.now);
                self.tell(&format!("{} settled {settled} at {head}", connection.session));
                if !settled {
                    connection.owed = connection.owed.max(Some(head));
                }
                Told::Answer { number, head, outcomes, settled }
            }
            Err(error) => Told::Refused { number, error },
        };
        connection.tell(told, None, self.now, rng);
        Ok(())
    }

    /// The service dies, and what it knew of mounts with it.
    pub(super) fn forget_mounts(&mut self) {
        self.lines.borrow_mut().service_dies();
        let Some(mounts) = &mut self.mounts else { return };
        mounts.known = s0_service::simulated::Mounts::default();
        mounts.service_began = self.now;
        for connection in mounts.connections.iter_mut().filter(|it| it.open) {
            connection.open = false;
            connection.up.clear();
            let arrive = mounts.rng.usize(..=connection.down.len());
            connection.down.truncate(arrive);
            self.service.release(&connection.session, None);
        }
    }
}
