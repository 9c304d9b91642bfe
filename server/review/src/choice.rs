//! What of a review a decision is about.

use std::collections::BTreeSet;

use s0_tree::{Actor, TreePath};
use serde::{Deserialize, Serialize};

use crate::hunk::{HunkId, Version};
use crate::item::Write;

/// What is to be kept or reverted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// Where.
    pub part: Part,
    /// Only what this agent wrote, line by line. An agent is a sandbox, or who
    /// wrote through one replica; its process is not looked at, since agents run a
    /// new one for each command.
    pub agent: Option<Actor>,
}

impl Selection {
    /// Everything in this part, whoever wrote it.
    #[must_use]
    pub fn of(part: Part) -> Self {
        Self { part, agent: None }
    }
}

/// A part of a review, with the version of it that was decided on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Some hunks of one file. What concerns the file as a whole (its name, its
    /// mode) is not among them.
    Hunks {
        /// The file.
        path: TreePath,
        /// Its hunks, which know the version.
        hunks: Vec<HunkId>,
    },
    /// All of one item.
    File {
        /// The item.
        path: TreePath,
        /// Its version, as [`Item::version`](crate::Item::version) had it.
        version: Version,
    },
    /// All items.
    All {
        /// The version of the whole, as
        /// [`Review::version`](crate::Review::version) had it.
        version: Version,
    },
}

/// Why nothing was decided.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is not what it was when the decision was made.
    #[error("this has changed since it was shown: look again")]
    Stale {
        /// Its version now.
        now: Version,
    },
    /// Nothing is under review at this path.
    #[error("{path}: nothing to review here")]
    NothingHere {
        /// The path.
        path: TreePath,
    },
}

/// Something that a decision covered and that stays as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// Where.
    pub path: TreePath,
    /// Why.
    pub why: Why,
}

/// Why a decision did nothing about something that it covered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Why {
    /// Several agents changed the file as a whole, and the decision is about one
    /// of them. What they did cannot be told apart.
    OtherAgents,
    /// The user has changed it since the agent did, and it is reviewed as a whole.
    /// To revert would take the user's change away as well.
    EditedSince,
    /// Renames go in a circle, and no file can be renamed back first.
    Circle,
}

/// What of one item is chosen.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Choice {
    /// Some hunks, by number; otherwise all, and the item as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hunks: Option<BTreeSet<usize>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) agent: Option<Actor>,
}

impl Choice {
    /// Whether a line of this hunk by this write is among it.
    pub(crate) fn takes(&self, hunk: usize, write: &Write) -> bool {
        self.hunks.as_ref().is_none_or(|hunks| hunks.contains(&hunk)) && self.is_by(write)
    }

    /// Whether a write is by the agent that this is about.
    pub(crate) fn is_by(&self, write: &Write) -> bool {
        self.agent.as_ref().is_none_or(|agent| same_agent(agent, &write.actor))
    }
}

/// Whether two writes count as one agent's. See [`Selection::agent`].
pub(crate) fn same_agent(a: &Actor, b: &Actor) -> bool {
    match (&a.sandbox, &b.sandbox) {
        (Some(a), Some(b)) => a == b,
        (None, None) => a.replica == b.replica,
        _ => false,
    }
}
