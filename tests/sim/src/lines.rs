//! What programs write through mounts: each write is a text of its own, which can be found
//! again in whatever the file becomes. So nothing that was confirmed is lost unseen, and
//! nothing comes twice.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

/// What the service has taken from a mount alone is lost when the change turns out to be stale, and
/// the mount was killed meanwhile, or finds that the directory is gone: nobody asks again, and no
/// conflict is recorded. To be `false` once the service keeps it.
pub const TAKEN_MAY_BE_LOST: bool = true;

/// How far a line has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Whoever wrote it was told nothing yet.
    Written,
    /// `close` has returned since this submission was taken.
    Taken(u64),
    /// `close` or `fsync` has returned since it is in the journal, or in a conflict.
    Confirmed,
    /// Whoever had seen it took it away, or it went with the mount.
    Excused,
}

#[derive(Debug)]
struct Line {
    session: Arc<str>,
    state: State,
}

/// A submission of a mount.
type Sent = (Arc<str>, u64);

/// All lines of a world.
#[derive(Debug, Default)]
pub struct Lines {
    all: BTreeMap<String, Line>,
    /// What the service has in its hands.
    held: BTreeSet<Sent>,
    /// The part of it that is not durable.
    uncommitted: Vec<Sent>,
    /// What it did not do, expecting to be asked again.
    stale: BTreeSet<Sent>,
    dead: BTreeSet<Arc<str>>,
    /// What could not be kept after `close` had returned.
    late: BTreeSet<String>,
}

/// Shared within one run.
pub type Shared = Rc<RefCell<Lines>>;

/// The lines in a text, in order.
pub fn lines_in(data: &[u8]) -> Vec<&str> {
    let text = std::str::from_utf8(data).unwrap_or_default();
    let parts = text.split('<').skip(1).filter_map(|part| part.split_once('>'));
    parts.map(|(line, _)| line).collect()
}

impl Lines {
    /// A new line of a mount, as it is written.
    pub fn fresh(&mut self, session: &Arc<str>) -> String {
        let line = format!("w{}", self.all.len() + 1);
        let known = Line { session: session.clone(), state: State::Written };
        self.all.insert(line.clone(), known);
        format!("<{line}>")
    }

    /// The lines of a mount in a text of which nobody was told anything yet.
    pub fn written(&self, session: &Arc<str>, data: &[u8]) -> Vec<String> {
        let of_it = |line: &&str| {
            let known = self.all.get(*line);
            known.is_some_and(|it| it.session == *session && it.state == State::Written)
        };
        lines_in(data).into_iter().filter(of_it).map(str::to_owned).collect()
    }

    /// `close` returned; with a number, since that submission was taken.
    pub fn confirm(&mut self, lines: &[String], taken: Option<u64>) {
        for line in lines {
            if let Some(line) = self.all.get_mut(line)
                && line.state == State::Written
            {
                line.state = taken.map_or(State::Confirmed, State::Taken);
            }
        }
    }

    /// Somebody who sees this text takes it away.
    pub fn excuse(&mut self, data: &[u8]) {
        for line in lines_in(data) {
            if let Some(line) = self.all.get_mut(line) {
                line.state = State::Excused;
            }
        }
    }

    /// Whoever wrote this is told that it is not kept.
    pub fn give_up(&mut self, data: &[u8]) {
        for line in lines_in(data) {
            let Some(known) = self.all.get_mut(line) else { continue };
            match known.state {
                State::Written => known.state = State::Excused,
                State::Taken(_) => drop(self.late.insert(line.to_owned())),
                State::Confirmed | State::Excused => {}
            }
        }
    }

    /// The service has a submission; `stale` when it has not done all of it.
    pub fn hold(&mut self, session: &Arc<str>, number: u64, stale: bool) {
        let sent = (session.clone(), number);
        if self.held.insert(sent.clone()) {
            self.uncommitted.push(sent.clone());
        }
        if stale {
            self.stale.insert(sent);
        }
    }

    /// What the service has is durable.
    pub fn commit(&mut self) {
        self.uncommitted.clear();
    }

    /// The service dies.
    pub fn service_dies(&mut self) {
        for sent in std::mem::take(&mut self.uncommitted) {
            self.held.remove(&sent);
        }
        self.excuse_what_both_lost();
    }

    /// A mount dies.
    pub fn mount_dies(&mut self, session: &Arc<str>) {
        self.dead.insert(session.clone());
        let of_it = self.all.values_mut().filter(|line| line.session == *session);
        for line in of_it.filter(|line| line.state == State::Written) {
            line.state = State::Excused;
        }
        self.excuse_what_both_lost();
    }

    /// What was only taken is lost when the mount and the service die.
    fn excuse_what_both_lost(&mut self) {
        for line in self.all.values_mut() {
            if let State::Taken(number) = line.state
                && self.dead.contains(&line.session)
                && !self.held.contains(&(line.session.clone(), number))
            {
                line.state = State::Excused;
            }
        }
    }

    /// The lines that are not in what the Volume knows, though somebody was told that they
    /// are; with whether that is what [`TAKEN_MAY_BE_LOST`] says.
    pub fn lost<'a>(&self, known: impl Iterator<Item = &'a [u8]>) -> Vec<(String, bool)> {
        let known: BTreeSet<&str> = known.flat_map(lines_in).collect();
        let lost = self.all.iter().filter(|(line, _)| !known.contains(line.as_str()));
        let lost = lost.filter_map(|(line, Line { session, state })| match state {
            State::Taken(number) => {
                let gone = self.dead.contains(session) || self.late.contains(line);
                let was_stale = gone && self.stale.contains(&(session.clone(), *number));
                Some((format!("<{line}> of {session}, {state:?}"), was_stale))
            }
            // A mount that lives has committed all that it has.
            State::Written | State::Confirmed => {
                Some((format!("<{line}> of {session}, {state:?}"), false))
            }
            State::Excused => None,
        });
        lost.collect()
    }
}
