//! Halts: when going on could do damage, everything stops and says so.

use s0_tree::{Seq, TreePath};
use serde::{Deserialize, Serialize};

use super::{Done, Local, Notice, Replica};
use crate::disk::{Disk, DiskError};
use crate::state::{Facts, Record, Row, Store};
use crate::synced::Synced;

/// The directory in the root that holds the marker and the staging area.
pub(super) const STATE_DIRECTORY: &str = ".s0";

/// Why everything stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "halt", rename_all = "snake_case")]
pub enum Halt {
    /// The workspace directory is gone.
    RootGone,
    /// Another directory is where the workspace was, or another file system.
    RootReplaced,
    /// The root's file system is not what it was: what is known of the names and
    /// modes in it does not hold.
    AbilitiesChanged {
        /// What is so now that was not.
        now: String,
    },
    /// Most of what was synced has vanished at once.
    Vanished {
        /// How many paths.
        paths: usize,
        /// Of how many.
        of: usize,
    },
    /// There is no space left.
    DiskFull,
    /// Another host has taken over this replica.
    Fenced,
}

impl std::fmt::Display for Halt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::RootGone => f.write_str(
                "the workspace directory is gone; nothing was removed from the Volume. Bring it \
                 back (or mount it) and run `s0 sync resume`, or `s0 sync detach`",
            ),
            Self::RootReplaced => f.write_str(
                "another directory is where the workspace was; nothing was changed. Put the right \
                 one back and run `s0 sync resume`, or detach and attach this one anew",
            ),
            Self::AbilitiesChanged { now } => write!(
                f,
                "the workspace's file system has changed its abilities: {now}; nothing was \
                 changed. Mount it as it was and run `s0 sync resume`, or `s0 sync detach` and \
                 attach it anew, which compares every file",
            ),
            Self::Vanished { paths, of } => write!(
                f,
                "{paths} of {of} synced paths have vanished from the workspace within a minute; the \
                 rest of the removals is held back. If you meant it, run `s0 sync resume \
                 --confirm-deletions`; if not, bring the files back (the Volume's journal has all \
                 of them) and run `s0 sync resume`",
            ),
            Self::DiskFull => {
                f.write_str("the disk is full; nothing is lost. Make room and run `s0 sync resume`")
            }
            Self::Fenced => f.write_str(
                "another host has taken over this workspace; this one does nothing any more",
            ),
        }
    }
}

/// How a halt ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resume {
    /// Look again.
    Again,
    /// What vanished was meant to.
    ConfirmDeletions,
}

/// Whether a name in the root is ours: under every spelling that a root could
/// take for it.
pub(super) fn is_own(name: &str) -> bool {
    s0_tree::comparison_key(name) == STATE_DIRECTORY
}

impl<D: Disk, S: Store> Replica<D, S> {
    /// Stops everything, once.
    pub(super) fn stop_with(&mut self, halt: Halt) {
        if self.halt.is_none() {
            self.notice(Notice::Halted(halt.clone()));
            self.halt = Some(halt);
        }
    }

    /// Goes on after a halt.
    ///
    /// # Errors
    /// The state database failed.
    pub fn resume(&mut self, how: Resume, now: u64) -> Done {
        self.now = now;
        if self.halt == Some(Halt::Fenced) {
            return Ok(());
        }
        self.halt = None;
        self.deletions_confirmed = how == Resume::ConfirmDeletions;
        self.check_root()?;
        if self.halt.is_none() {
            self.touch(TreePath::root(), now, true);
            self.stir();
        }
        Ok(())
    }

    /// Makes sure that the root is still the directory that was attached, when nothing
    /// else asks: what covers it tells nobody.
    ///
    /// # Errors
    /// The state database failed.
    pub fn look_at_root(&mut self, now: u64) -> Done {
        self.now = now;
        if self.halt.is_none() { self.check_root() } else { Ok(()) }
    }

    /// Makes sure that the root is still the directory that was attached.
    pub(super) fn check_root(&mut self) -> Done {
        let found = match self.disk.identity() {
            Ok(found) => found,
            Err(DiskError::RootGone) => {
                self.stop_with(Halt::RootGone);
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let abilities = self.disk.abilities();
        let Facts { root, abilities: could, .. } = &self.state.facts;
        if root.as_ref().is_some_and(|known| *known != found) {
            self.stop_with(Halt::RootReplaced);
            return Ok(());
        }
        let news = could.map(|could| abilities.news_since(&could)).unwrap_or_default();
        if !news.is_empty() {
            self.stop_with(Halt::AbilitiesChanged { now: news.join(", ") });
            return Ok(());
        }
        if root.is_none() || could.is_none() {
            let (root, abilities) = (Some(found), Some(abilities));
            let facts = Facts { root, abilities, ..self.state.facts.clone() };
            self.commit(vec![Record::Facts(facts)], true)?;
        }
        Ok(())
    }

    /// Stops before many removals are sent that nobody may have meant: of half
    /// of all paths at once or within a while, counting those that have been here
    /// for longer than that; or of everything.
    pub(super) fn guard_deletions(&mut self) {
        // What is in conflict is not on its way, and says nothing of the rest.
        let gone = self.changed.iter().filter(|(_, local)| matches!(local, Local::Gone));
        let gone = gone.filter(|(path, _)| !self.in_conflict(path));
        let (mut waiting, mut old) = (0, 0);
        for (path, _) in gone {
            let below = self.rows_below(path);
            waiting += 1 + below.len();
            let own = self.row_at(path).map(|(_, row)| row);
            let rows = below.iter().map(|(_, _, row)| row).chain(own);
            old += rows.filter(|row| self.elders.has(row)).count();
        }
        if waiting == 0 {
            self.surveyed = false;
            if self.state.outgoing.is_none() {
                self.deletions_confirmed = false;
            }
        }
        if self.deletions_confirmed || waiting == 0 {
            return;
        }
        let window = self.removals.filter(|lately| self.now < lately.since + WINDOW);
        let paths = old + window.map_or(0, |lately| lately.count);
        let of = window.map_or(0, |lately| lately.of).max(self.state.synced.len());
        let most = paths > 100 && paths * 2 > of;
        let everything = waiting >= self.state.synced.len() && of >= EMPTIED;
        if most || everything {
            self.stop_with(Halt::Vanished { paths: paths.max(waiting), of });
        } else if old >= EMPTIED && !self.surveyed {
            // These may be the first that were heard of out of many that went at once:
            // none is sent before everything has been looked at.
            self.surveyed = true;
            self.touch(TreePath::root(), self.now, true);
        }
    }

    /// Lets time pass for what counts as old.
    pub(super) fn age(&mut self) {
        let head = self.remote.as_ref().map_or(self.state.facts.cursor, s0_tree::Tree::head);
        let Elders { since, next, .. } = self.elders;
        if self.now >= since + WINDOW {
            // After a long silence what was the head then is old as well.
            let until = if self.now >= since + 2 * WINDOW { head } else { next };
            self.elders = Elders { since: self.now, until, next: head };
        }
    }

    /// Counts removals that the Volume has accepted.
    pub(super) fn count_removals(&mut self, count: usize) {
        if self.deletions_confirmed {
            self.removals = None;
            return;
        }
        let now = self.now;
        let of = self.state.synced.len();
        let fresh = Removals { since: now, count: 0, of };
        let lately = self.removals.filter(|lately| now < lately.since + WINDOW).unwrap_or(fresh);
        self.removals = Some(Removals { count: lately.count + count, ..lately });
    }
}

/// How long, in milliseconds, removals count together.
const WINDOW: u64 = 60_000;
/// A workspace of so many paths is not emptied without a question.
const EMPTIED: usize = 10;

/// What has been here for a while. What a program makes and removes again within
/// a minute, as builds do, is nobody's loss.
#[derive(Debug, Clone, Copy)]
pub(super) struct Elders {
    /// When this was reckoned.
    since: u64,
    /// What is of this version or older is old.
    until: Seq,
    /// What the head was then: it will be old next time.
    next: Seq,
}

impl Elders {
    /// At the start everything that is remembered is old.
    pub(super) fn at_start(now: u64, synced: &Synced) -> Self {
        let until = synced.iter().map(|(_, row)| row.version).max().unwrap_or_default();
        Self { since: now, until, next: until }
    }

    pub(super) fn has(self, row: &Row) -> bool {
        row.version <= self.until
    }
}

/// The removals of the last while.
#[derive(Debug, Clone, Copy)]
pub(super) struct Removals {
    since: u64,
    count: usize,
    /// How many paths were synced when it began.
    of: usize,
}
