//! Forgetting: what ignore rules match stops being synced here.
//!
//! Rules un-invite and never remove, so what was synced before a rule came goes
//! on being synced. To forget it is to drop what was agreed on about it, and
//! nothing else: disk and Volume stay as they are. From then on the rules keep
//! its two sides apart, like those of anything that was never synced.

use std::collections::HashSet;

use s0_tree::{NodeId, Place, TreePath};

use super::{Replica, Stop};
use crate::disk::Disk;
use crate::state::{Record, Row, Store};

/// Why a path cannot be forgotten.
#[derive(Debug, thiserror::Error)]
pub enum ForgetError {
    /// Everything.
    #[error("the workspace as a whole cannot be forgotten; `s0 sync detach` stops syncing it")]
    Root,
    /// It is not synced.
    #[error("{0} is not synced here, so there is nothing to forget")]
    NotSynced(TreePath),
    /// It would be synced again.
    #[error(
        "no ignore rule matches {0}, so it would be synced again at once; add it to .s0ignore \
         (or to .gitignore, or for this machine alone to .git/info/exclude) first"
    )]
    NotIgnored(TreePath),
    /// It would be synced again, since no rule ignores what Git tracks.
    #[error(
        "Git tracks {0}, or something in it, and what Git tracks is synced whatever the ignore \
         rules say; `git rm --cached` comes first"
    )]
    Tracked(TreePath),
    /// The user is asked about it.
    #[error("{0} is in conflict; settle that first, see `s0 sync conflicts list`")]
    InConflict(TreePath),
    /// The Volume is being told of it.
    #[error("{0} is on its way to the Volume; try again when `s0 sync status` says in sync")]
    NotYet(TreePath),
    /// The engine must be opened again.
    #[error(transparent)]
    Stop(#[from] Stop),
}

impl<D: Disk, S: Store> Replica<D, S> {
    /// Drops what is agreed on about paths and all below them. Says how many
    /// paths that were. Either all are forgotten, or none.
    ///
    /// # Errors
    /// One of them cannot be.
    pub fn forget_synced(&mut self, paths: &[TreePath], now: u64) -> Result<usize, ForgetError> {
        self.now = now;
        // Who writes a rule and forgets may be quicker than the watcher, which then
        // finds that everything was read already.
        self.rules.read_again();
        self.rules_changed();
        let mut places = HashSet::new();
        for path in paths {
            places.extend(self.forgettable(path)?);
        }
        let records = places.iter().map(|place| Record::Synced(place.clone(), None)).collect();
        self.commit(records, true)?;
        for path in paths {
            self.forget_below(path);
            self.forget(path);
        }
        Ok(places.len())
    }

    /// The places at and below a path, if all of them can be forgotten.
    fn forgettable(&mut self, path: &TreePath) -> Result<Vec<Place>, ForgetError> {
        if path.is_root() {
            return Err(ForgetError::Root);
        }
        let below = |other: &TreePath| other.is_at_or_below(path);
        if self.in_conflict(path) || self.state.conflicts.keys().any(below) {
            return Err(ForgetError::InConflict(path.clone()));
        }
        if self.moved.keys().any(below) {
            return Err(ForgetError::NotYet(path.clone()));
        }
        let Some((place, row)) = self.row_at(path).map(|(place, row)| (place, row.clone())) else {
            return Err(ForgetError::NotSynced(path.clone()));
        };
        let mut rows = vec![(path.clone(), place, row)];
        rows.extend(self.rows_below(path));
        if self.is_on_the_way(path, &rows) {
            return Err(ForgetError::NotYet(path.clone()));
        }
        for (path, _, row) in &rows {
            if !self.rules.is_ignored(path, row.what.is_directory()) {
                return Err(match self.rules.is_tracked(path) {
                    true => ForgetError::Tracked(path.clone()),
                    false => ForgetError::NotIgnored(path.clone()),
                });
            }
        }
        Ok(rows.into_iter().map(|(_, place, _)| place).collect())
    }

    /// Whether an answer would bring rows back, or a directory that the user has
    /// moved out is still in there for the Volume. Intents need no care: one
    /// whose row is gone is given up.
    fn is_on_the_way(&self, path: &TreePath, rows: &[(TreePath, Place, Row)]) -> bool {
        let is_theirs = |place: &Place| rows.iter().any(|(_, other, _)| other == place);
        let sent = self.state.outgoing.iter().flat_map(|outgoing| &outgoing.sent);
        let mut sent = sent.filter(|sent| {
            let to = sent.parent.zip(sent.path.name());
            let to = to.map(|(parent, name)| Place { parent, name });
            sent.path.is_at_or_below(path) || sent.from.iter().chain(&to).any(is_theirs)
        });
        let is_home = |node: &NodeId| {
            let homes = self.state.synced.places(*node);
            homes.iter().any(|home| rows.iter().any(|(_, _, row)| row.node == home.parent))
        };
        sent.next().is_some() || self.moved.values().any(is_home)
    }
}
