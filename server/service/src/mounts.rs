//! The mounts of a Volume: what each has seen, how long it counts, and the locks that are
//! held through them.
//!
//! A mount keeps what it knows in its kernel's caches, and is told what others change. A
//! write is *settled* when every other mount has seen it, or does not count any more: then
//! an `open` anywhere finds it. A mount that is not heard of for [`LEASE`] does not count;
//! it knows by its own clock, and sooner, that it may not go by its caches any more.
//!
//! All of this is memory. A service that starts knows only which mounts there were; they come
//! back with what they hold. Until they have said that, or cannot hold it any more, nobody gets
//! anything that one of them may have.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use s0_api::mounts::{LEASE_MS, Told};
use s0_api::volumes::AccessMode;
use s0_tree::Seq;
use tokio::sync::mpsc::UnboundedSender;

mod locks;
mod stale;

pub(crate) use locks::{Asked, Locks};
pub(crate) use stale::{StaleClose, StaleCloses};

/// How long a mount counts that is not heard of.
const LEASE: Duration = Duration::from_millis(LEASE_MS);

/// All mounts of a Volume.
#[derive(Debug, Default)]
pub(crate) struct Mounts {
    sessions: HashMap<Arc<str>, Session>,
    locks: Locks,
    connections: u64,
    /// Those that may come back to a service that began anew.
    awaited: HashSet<Arc<str>>,
    /// When they do not count any more.
    awaited_until: Option<Instant>,
}

#[derive(Debug)]
struct Session {
    /// Which of the session's connections it is; an older one has nothing to say.
    connection: u64,
    seen: Seq,
    /// What others may go by since it did not count: it goes by what it knows when it has seen that.
    goes_by: Seq,
    /// Entries of its own that come after that: it has done them, and does not say so.
    own: VecDeque<Seq>,
    heard: Instant,
    read_only: bool,
    company: Company,
    stale: StaleCloses,
    /// How it is told of locks and of others.
    tell: UnboundedSender<Told>,
}

/// What a mount knows of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Company {
    /// There may be some.
    Known,
    /// There is none: it makes names that nobody knows.
    None,
    /// It is being told that one comes.
    Told,
}

/// Whether a mount that was heard may go by what it knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Saw {
    /// It may.
    All,
    /// Not yet: it has not seen what others were told is seen by all while it did not count.
    Behind,
}

impl Session {
    fn counts_until(&self) -> Instant {
        self.heard + LEASE
    }

    /// It has seen all up to an entry, and what it did itself right after.
    fn saw(&mut self, seq: Seq) {
        self.seen = self.seen.max(seq);
        while let Some(own) = self.own.front()
            && *own <= self.seen.next()
        {
            self.seen = self.seen.max(*own);
            self.own.pop_front();
        }
    }
}

/// Up to where everybody has seen the journal, and when that may change by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Settled {
    /// None when there is nobody whom one would have to wait for.
    pub(crate) by_all: Option<Seq>,
    /// When the next of them does not count any more.
    pub(crate) at: Option<Instant>,
}

impl Settled {
    /// Whether an entry is seen by all.
    pub(crate) fn covers(self, seq: Seq) -> bool {
        self.by_all.is_none_or(|all| seq <= all)
    }
}

impl Mounts {
    /// The service begins, and there were these mounts.
    pub(crate) fn wait_for(&mut self, known: impl IntoIterator<Item = Arc<str>>, now: Instant) {
        self.awaited.extend(known);
        self.awaited_until = Some(now + LEASE);
    }

    /// Until when one may come back that has not said what it holds.
    pub(crate) fn awaits_until(&self, now: Instant) -> Option<Instant> {
        self.awaited_until.filter(|until| *until > now && !self.awaited.is_empty())
    }

    /// The mounts that are connected, or were a moment ago.
    pub(crate) fn sessions(&self) -> impl Iterator<Item = &Arc<str>> {
        self.sessions.keys()
    }

    fn is_here(&mut self, session: &str) {
        if self.awaited.remove(session) {
            self.tell_of_company();
        }
    }

    /// A mount connects, or comes back. Gives the number of its connection.
    ///
    /// # Errors
    /// The Volume's access mode does not let it; why, in words.
    pub(crate) fn join(
        &mut self,
        session: &Arc<str>,
        (seen, read_only): (Seq, bool),
        mode: AccessMode,
        tell: UnboundedSender<Told>,
        now: Instant,
    ) -> Result<u64, &'static str> {
        self.expire(now);
        if mode == AccessMode::ReadOnlyMany && !read_only {
            return Err("the Volume's access mode is ROX: mount it read-only");
        }
        let others = self.sessions.iter().any(|(id, other)| id != session && !other.read_only);
        if mode == AccessMode::ReadWriteOnce && !read_only && others {
            return Err("the Volume's access mode is RWO, and it is mounted already");
        }
        self.locks.forget_waiting(session);
        self.connections += 1;
        let connection = self.connections;
        let own = VecDeque::new();
        // One that comes back beside others has not said yet what it made while it was alone.
        let unsaid = self.sessions.get(session).is_some_and(|it| it.company != Company::Known);
        let beside = self.sessions.keys().any(|id| id != session);
        let company = if unsaid && beside { Company::None } else { Company::Known };
        let stale = self.stale_closes(session);
        let (goes_by, heard) = (seen, now);
        let joined =
            Session { connection, seen, goes_by, own, heard, read_only, company, stale, tell };
        self.sessions.insert(session.clone(), joined);
        self.tell_of_company();
        Ok(connection)
    }

    /// Tells a mount that it is alone, or that it is so no more.
    fn tell_of_company(&mut self) {
        let alone = self.sessions.len() == 1 && self.awaited.is_empty();
        for known in self.sessions.values_mut() {
            let (company, told) = match known.company {
                Company::Known if alone => (Company::None, Told::Alone),
                Company::None if !alone => (Company::Told, Told::Company),
                _ => continue,
            };
            known.company = company;
            // As in `tell_all`.
            let _ = known.tell.send(told);
        }
    }

    /// A mount has said which names it has made while it was alone.
    pub(crate) fn knows_company(&mut self, session: &str, connection: u64) {
        if let Some(known) = self.sessions.get_mut(session)
            && known.connection == connection
            && known.company == Company::Told
        {
            known.company = Company::Known;
            self.tell_of_company();
        }
    }

    /// Until when a mount that comes has to wait for others, which may have made names that
    /// nobody knows.
    pub(crate) fn waits_until(&self, but: &str) -> Option<Instant> {
        let others = self.sessions.iter().filter(|(id, _)| ***id != *but);
        let unknown = others.filter(|(_, known)| known.company != Company::Known);
        unknown.map(|(_, known)| known.counts_until()).max()
    }

    /// A mount counts from now on, and has seen the journal up to an entry; the other is the
    /// newest. False when the connection is not its newest.
    pub(crate) fn begin(
        &mut self,
        session: &str,
        connection: u64,
        (seen, head): (Seq, Seq),
        now: Instant,
    ) -> bool {
        let known = self.sessions.get_mut(session);
        let Some(known) = known.filter(|known| known.connection == connection) else {
            return false;
        };
        known.saw(seen);
        (known.heard, known.goes_by) = (now, head);
        true
    }

    /// A mount has seen the journal up to an entry; the other is the newest. None when the
    /// connection is not its newest.
    pub(crate) fn saw(
        &mut self,
        session: &str,
        connection: u64,
        (seen, head): (Seq, Seq),
        now: Instant,
    ) -> Option<Saw> {
        let known = self.sessions.get_mut(session)?;
        if known.connection != connection {
            return None;
        }
        if known.counts_until() <= now {
            known.goes_by = head;
        }
        known.saw(seen);
        known.heard = now;
        Some(if known.seen < known.goes_by { Saw::Behind } else { Saw::All })
    }

    /// Whether a mount has come back with a newer connection.
    pub(crate) fn is_newer(&self, session: &str, connection: u64) -> bool {
        self.sessions.get(session).is_some_and(|known| known.connection > connection)
    }

    /// Until when a mount counts, by one of its connections.
    pub(crate) fn counts_until(&self, session: &str, connection: u64) -> Option<Instant> {
        let known = self.sessions.get(session).filter(|known| known.connection == connection);
        known.map(Session::counts_until)
    }

    /// What a mount has to try again.
    pub(crate) fn stale_closes(&self, session: &str) -> StaleCloses {
        self.sessions.get(session).map(|known| known.stale.clone()).unwrap_or_default()
    }

    /// A mount is told of an entry of its own.
    pub(crate) fn did(&mut self, session: &str, connection: u64, seq: Seq) {
        if let Some(known) = self.sessions.get_mut(session)
            && known.connection == connection
        {
            known.own.push_back(seq);
            known.saw(known.seen);
        }
    }

    /// A mount ends: nobody waits for it, and its locks are free.
    pub(crate) fn leave(&mut self, session: &str, connection: u64) {
        if self.sessions.get(session).is_some_and(|known| known.connection == connection) {
            self.sessions.remove(session);
            let granted = self.locks.drop_session(session);
            self.tell_all(granted);
            self.awaited.remove(session);
            self.tell_of_company();
        }
    }

    /// Whether something is mounted.
    pub(crate) fn any(&self, now: Instant) -> bool {
        self.sessions.values().any(|session| session.counts_until() > now)
    }

    /// Whether there are mounts that do not count any more.
    pub(crate) fn has_lapsed(&self, now: Instant) -> bool {
        let awaits_nobody = !self.awaited.is_empty() && self.awaits_until(now).is_none();
        awaits_nobody || self.sessions.values().any(|session| session.counts_until() <= now)
    }

    /// Lets go of mounts that do not count any more.
    pub(crate) fn expire(&mut self, now: Instant) {
        if self.awaits_until(now).is_none() {
            self.awaited.clear();
        }
        self.evict(|_, known| known.counts_until() <= now);
    }

    /// Lets go of those who do not say which names they made while they were alone. They come
    /// back, and have them kept then.
    pub(crate) fn evict_silent(&mut self, but: &str) {
        self.evict(|id, known| id != but && known.company != Company::Known);
    }

    fn evict(&mut self, whom: impl Fn(&str, &Session) -> bool) {
        let evicted: Vec<_> = self
            .sessions
            .iter()
            .filter(|(id, known)| whom(id, known))
            .map(|(id, _)| id.clone())
            .collect();
        for session in &evicted {
            self.sessions.remove(session);
            let granted = self.locks.drop_session(session);
            self.tell_all(granted);
        }
        self.tell_of_company();
    }

    /// Up to where all mounts but one have seen the journal.
    pub(crate) fn settled(&self, but: &str, now: Instant) -> Settled {
        let others = self.sessions.iter().filter(|(id, _)| ***id != *but);
        let counting = others.filter(|(_, session)| session.counts_until() > now);
        let (mut by_all, mut at): (Option<Seq>, Option<Instant>) = (None, None);
        for (_, session) in counting {
            by_all = Some(by_all.map_or(session.seen, |all| all.min(session.seen)));
            let until = session.counts_until();
            at = Some(at.map_or(until, |at| at.min(until)));
        }
        Settled { by_all, at }
    }

    /// Takes a lock, or says what is in its way; a mount that waits is told later.
    pub(crate) fn lock(
        &mut self,
        session: &Arc<str>,
        connection: u64,
        asked: Asked,
        wait: bool,
    ) -> Option<Told> {
        self.locks.lock(session, connection, asked, wait)
    }

    /// A mount has said again all locks that it holds.
    pub(crate) fn said_locks(&mut self, session: &str, connection: u64) {
        let granted = self.locks.drop_unsaid(session, connection);
        self.tell_all(granted);
        self.is_here(session);
    }

    /// Does what a mount says about locks it has or waits for.
    pub(crate) fn change_locks(
        &mut self,
        change: impl FnOnce(&mut Locks) -> Vec<(Arc<str>, Told)>,
    ) {
        let granted = change(&mut self.locks);
        self.tell_all(granted);
    }

    /// What is in the way of a lock.
    pub(crate) fn test(&self, session: &str, asked: &Asked) -> Told {
        self.locks.test(session, asked)
    }

    fn tell_all(&self, granted: Vec<(Arc<str>, Told)>) {
        for (session, told) in granted {
            if let Some(session) = self.sessions.get(&session) {
                // A connection that just broke: the mount comes back, or its lease ends.
                let _ = session.tell.send(told);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;

    fn join(
        mounts: &mut Mounts,
        id: &str,
        mode: AccessMode,
        now: Instant,
    ) -> Result<u64, &'static str> {
        mounts.join(&id.into(), (Seq(5), false), mode, unbounded_channel().0, now)
    }

    #[test]
    fn a_mount_that_did_not_count_goes_by_nothing_until_it_has_seen_what_others_go_by() {
        let (mut mounts, begin) = (Mounts::default(), Instant::now());
        let other = join(&mut mounts, "b", AccessMode::ReadWriteMany, begin).unwrap();
        assert!(mounts.begin("b", other, (Seq(5), Seq(7)), begin));
        let mut saw = |seen, head, now| mounts.saw("b", other, (Seq(seen), Seq(head)), now);
        assert_eq!(saw(6, 8, begin), Some(Saw::Behind));
        // What comes while it counts is waited for.
        assert_eq!(saw(7, 8, begin), Some(Saw::All));
        let late = begin + LEASE;
        assert_eq!(saw(8, 9, late), Some(Saw::Behind));
        assert_eq!(saw(9, 10, late), Some(Saw::All));
    }

    #[test]
    fn a_write_is_settled_when_all_others_have_seen_it_or_are_gone() {
        let (mut mounts, begin) = (Mounts::default(), Instant::now());
        let mode = AccessMode::ReadWriteMany;
        join(&mut mounts, "a", mode, begin).unwrap();
        assert!(mounts.settled("a", begin).covers(Seq(100)));
        let other = join(&mut mounts, "b", mode, begin).unwrap();
        assert!(mounts.settled("a", begin).covers(Seq(5)));
        assert!(!mounts.settled("a", begin).covers(Seq(6)));
        assert_eq!(mounts.saw("b", other, (Seq(6), Seq(9)), begin), Some(Saw::All));
        assert!(mounts.settled("a", begin).covers(Seq(6)));
        // It falls silent.
        let late = begin + LEASE;
        assert!(!mounts.settled("a", late - Duration::from_millis(1)).covers(Seq(9)));
        assert!(mounts.settled("a", late).covers(Seq(9)));
        // What it does itself it need not say, once it has seen what came before.
        mounts.did("b", other, Seq(8));
        assert!(!mounts.settled("a", begin).covers(Seq(8)));
        assert_eq!(mounts.saw("b", other, (Seq(7), Seq(9)), begin), Some(Saw::All));
        assert!(mounts.settled("a", begin).covers(Seq(8)));
        // An old connection has nothing to say.
        let newer = join(&mut mounts, "b", mode, late).unwrap();
        assert_eq!(mounts.saw("b", other, (Seq(9), Seq(9)), late), None);
        mounts.leave("b", other);
        assert!(!mounts.settled("a", late).covers(Seq(7)));
        mounts.leave("b", newer);
        assert!(mounts.settled("a", late).covers(Seq(7)));
    }

    #[test]
    fn a_mount_that_is_alone_is_told_before_another_begins() {
        let (mut mounts, now) = (Mounts::default(), Instant::now());
        let come = |mounts: &mut Mounts, id: &str| {
            let (tell, told) = unbounded_channel();
            let mode = AccessMode::ReadWriteMany;
            (mounts.join(&id.into(), (Seq(5), false), mode, tell, now).unwrap(), told)
        };
        let (first, mut told) = come(&mut mounts, "a");
        assert_eq!(mounts.waits_until("a"), None);
        assert_eq!(told.try_recv(), Ok(Told::Alone));
        let (second, mut told_second) = come(&mut mounts, "b");
        assert_eq!(told.try_recv(), Ok(Told::Company));
        assert_eq!(mounts.waits_until("b"), Some(now + LEASE));
        // It comes back before it has answered, and is told again.
        mounts.knows_company("a", first + 9);
        let (first, mut told) = come(&mut mounts, "a");
        assert_eq!(told.try_recv(), Ok(Told::Company));
        assert_eq!(mounts.waits_until("b"), Some(now + LEASE));
        mounts.knows_company("a", first);
        assert_eq!(mounts.waits_until("b"), None);
        mounts.leave("b", second);
        assert_eq!(told.try_recv(), Ok(Told::Alone));
        assert!(told_second.try_recv().is_err());
        // The other is gone when it answers: it is alone again.
        let (second, _) = come(&mut mounts, "b");
        assert_eq!(told.try_recv(), Ok(Told::Company));
        mounts.leave("b", second);
        mounts.knows_company("a", first);
        assert_eq!(told.try_recv(), Ok(Told::Alone));
        // It comes back alone, and is told so once more.
        let (_, mut told) = come(&mut mounts, "a");
        assert_eq!(told.try_recv(), Ok(Told::Alone));
    }

    #[test]
    fn a_service_that_begins_waits_for_the_mounts_that_there_were() {
        let (mut mounts, now) = (Mounts::default(), Instant::now());
        mounts.wait_for(["a".into(), "b".into()], now);
        assert_eq!(mounts.awaits_until(now), Some(now + LEASE));
        let (tell, mut told) = unbounded_channel();
        let mode = AccessMode::ReadWriteMany;
        let back = mounts.join(&"a".into(), (Seq(5), false), mode, tell, now).unwrap();
        mounts.said_locks("a", back);
        assert!(told.try_recv().is_err(), "the other may come back");
        assert!(mounts.awaits_until(now).is_some());
        // It does not.
        let late = now + LEASE;
        assert!(mounts.saw("a", back, (Seq(5), Seq(5)), late).is_some() && mounts.has_lapsed(late));
        mounts.expire(late);
        assert_eq!((mounts.awaits_until(late), told.try_recv()), (None, Ok(Told::Alone)));
    }

    #[test]
    fn access_modes_govern_mounts() {
        let (mut mounts, now) = (Mounts::default(), Instant::now());
        assert!(join(&mut mounts, "a", AccessMode::ReadOnlyMany, now).is_err());
        join(&mut mounts, "a", AccessMode::ReadWriteOnce, now).unwrap();
        join(&mut mounts, "a", AccessMode::ReadWriteOnce, now).unwrap();
        assert!(join(&mut mounts, "b", AccessMode::ReadWriteOnce, now).is_err());
        let read_only = (Seq(0), true);
        let tell = unbounded_channel().0;
        mounts.join(&"c".into(), read_only, AccessMode::ReadWriteOnce, tell, now).unwrap();
        join(&mut mounts, "b", AccessMode::ReadWriteOnce, now + LEASE).unwrap();
    }
}
