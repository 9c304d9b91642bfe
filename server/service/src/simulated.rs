//! What `tests/sim` drives of the service beside its ledger, and nobody else: which mounts
//! there are, and what they have seen.

use std::sync::Arc;
use std::time::{Duration, Instant};

use s0_api::mounts::Told;
use s0_api::volumes::AccessMode;
use s0_tree::Seq;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

pub use crate::mounts::Saw;

/// The mounts of a Volume. Times are milliseconds since it was made.
#[derive(Debug)]
pub struct Mounts {
    all: crate::mounts::Mounts,
    begun: Instant,
}

/// What a mount is told of others.
#[derive(Debug)]
pub struct Tellings(UnboundedReceiver<Told>);

impl Iterator for Tellings {
    type Item = Told;

    /// The next that was told so far.
    fn next(&mut self) -> Option<Told> {
        self.0.try_recv().ok()
    }
}

impl Default for Mounts {
    fn default() -> Self {
        Self { all: crate::mounts::Mounts::default(), begun: Instant::now() }
    }
}

impl Mounts {
    fn at(&self, now: u64) -> Instant {
        self.begun + Duration::from_millis(now)
    }

    /// A mount connects, or comes back. Gives the number of its connection.
    pub fn join(&mut self, session: &Arc<str>, seen: Seq, now: u64) -> Option<(u64, Tellings)> {
        let (tell, told) = unbounded_channel();
        let (mode, now) = (AccessMode::ReadWriteMany, self.at(now));
        let joined = self.all.join(session, (seen, false), mode, tell, now);
        joined.ok().map(|connection| (connection, Tellings(told)))
    }

    /// A mount has said which names it has made while it was alone.
    pub fn knows_company(&mut self, session: &str, connection: u64) {
        self.all.knows_company(session, connection);
    }

    /// Whether a mount that comes has to wait for others. Those that ended meanwhile are let
    /// go of.
    pub fn has_to_wait(&mut self, session: &str, now: u64) -> bool {
        let now = self.at(now);
        if self.all.waits_until(session).is_some_and(|until| until <= now) {
            self.all.expire(now);
        }
        self.all.waits_until(session).is_some()
    }

    /// A mount counts from now on, and has seen the journal up to an entry; the other is the
    /// newest. False when the connection is not its newest.
    pub fn begin(&mut self, session: &str, connection: u64, to: (Seq, Seq), now: u64) -> bool {
        let now = self.at(now);
        self.all.begin(session, connection, to, now)
    }

    /// A mount has seen the journal up to an entry; the other is the newest. None when the
    /// connection is not its newest.
    pub fn saw(&mut self, session: &str, connection: u64, to: (Seq, Seq), now: u64) -> Option<Saw> {
        let now = self.at(now);
        self.all.saw(session, connection, to, now)
    }

    /// Whether a mount has come back with a newer connection.
    #[must_use]
    pub fn is_newer(&self, session: &str, connection: u64) -> bool {
        self.all.is_newer(session, connection)
    }

    /// A mount is told of an entry of its own.
    pub fn did(&mut self, session: &str, connection: u64, seq: Seq) {
        self.all.did(session, connection, seq);
    }

    /// A mount ends.
    pub fn leave(&mut self, session: &str, connection: u64) {
        self.all.leave(session, connection);
    }

    /// Lets go of mounts that do not count any more.
    pub fn expire(&mut self, now: u64) {
        let now = self.at(now);
        if self.all.has_lapsed(now) {
            self.all.expire(now);
        }
    }

    /// Whether all mounts but one have seen the journal up to an entry; without one, whether
    /// there is nobody whom one would have to wait for.
    #[must_use]
    pub fn have_seen(&self, but: &str, seq: Option<Seq>, now: u64) -> bool {
        let settled = self.all.settled(but, self.at(now));
        seq.map_or(settled.by_all.is_none(), |seq| settled.covers(seq))
    }
}
