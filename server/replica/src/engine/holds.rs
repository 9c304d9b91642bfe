//! Holds: writes of the Volume that are not let onto the disk yet.
//!
//! A document with unsaved text in an editor is an edit in progress, so what comes
//! for it waits until the text is saved, given up or settled. And what would run
//! on this machine by itself waits until the user lets it in, when a sandbox wrote
//! it, or when nobody knows who did.

use std::collections::{BTreeMap, BTreeSet};

use s0_tree::{Actor, Place, Seq, TreePath};
use serde::{Deserialize, Serialize};

use super::applied::is_by_user;
use super::look::below;
use super::{Replica, ResolveError};
use crate::disk::Disk;
use crate::state::{Record, Remote, Store};

/// Why a write of the Volume is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoldReason {
    /// An editor has unsaved text there.
    Unsaved,
    /// It would run on this machine, and nobody has let it in.
    Guarded,
}

impl HoldReason {
    /// The reason in words.
    #[must_use]
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Unsaved => "what came for it is held, since an editor has unsaved text of it",
            Self::Guarded => {
                "it would run on this machine, so it is held until you let it in: `s0 sync held allow`"
            }
        }
    }
}

/// A write of the Volume that is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Why.
    pub why: HoldReason,
    /// Who wrote it, as far as that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<Actor>,
    /// Whether it is a removal.
    pub removed: bool,
}

/// How a hold ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoldEnd {
    /// This version comes.
    Take,
    /// What is here stays, and goes to the Volume in its place.
    Discard,
}

/// What is held, and what was let in.
#[derive(Debug, Default)]
pub(super) struct Holds {
    /// Documents with unsaved text.
    unsaved: BTreeSet<TreePath>,
    /// Versions that the user has let in, out of which hold; no version: its removal.
    let_in: BTreeMap<Place, (Option<Seq>, HoldReason)>,
    /// Held now, as far as it was looked at.
    now: BTreeMap<TreePath, (Place, Held)>,
}

impl Holds {
    /// What was let in is held again.
    pub(super) fn forget_let_in(&mut self) {
        self.let_in.clear();
    }
}

impl<D: Disk, S: Store> Replica<D, S> {
    /// These documents, and no others, have unsaved text.
    pub(super) fn unsaved(&mut self, documents: BTreeSet<TreePath>) {
        if self.holds.unsaved == documents {
            return;
        }
        // What was let in under a text is not let in under a newer one.
        let newer: Vec<&TreePath> = documents.difference(&self.holds.unsaved).collect();
        let mut let_in = std::mem::take(&mut self.holds.let_in);
        let_in.retain(|place, (_, why)| {
            *why == HoldReason::Guarded
                || self.disk_path(place).is_none_or(|path| !newer.contains(&&path))
        });
        self.holds.let_in = let_in;
        self.holds.unsaved = documents;
        self.stir();
    }

    /// Whether an editor has unsaved text of a document.
    pub(super) fn has_unsaved(&self, path: &TreePath) -> bool {
        self.holds.unsaved.contains(path)
    }

    /// Why what the Volume has at a place must not come yet.
    pub(super) fn hold(
        &self,
        place: &Place,
        path: &TreePath,
        remote: Option<&Remote>,
        actor: Option<&Actor>,
    ) -> Option<HoldReason> {
        let version = remote.map(|remote| remote.version);
        let let_in = self.holds.let_in.get(place);
        let let_in = let_in.filter(|(let_in, _)| *let_in == version).map(|(_, why)| *why);
        if self.has_unsaved(path) && let_in != Some(HoldReason::Unsaved) {
            return Some(HoldReason::Unsaved);
        }
        let is_content = remote.is_some_and(|remote| !remote.what.is_directory());
        (let_in.is_none() && is_content && !is_by_user(actor) && self.rules.is_guarded(path))
            .then_some(HoldReason::Guarded)
    }

    /// Notes that a write is held, or is not any more.
    pub(super) fn note_hold(&mut self, path: &TreePath, held: Option<(Place, Held)>) {
        match held {
            Some(held) => {
                self.holds.now.insert(path.clone(), held);
            }
            None => {
                self.holds.now.remove(path);
            }
        }
    }

    /// Whether something is held at a path, or below it.
    pub(super) fn is_held_back(&self, path: &TreePath) -> bool {
        self.holds.now.contains_key(path) || below(&self.holds.now, path).next().is_some()
    }

    /// The writes that are held, by path.
    pub fn held(&self) -> BTreeMap<TreePath, Held> {
        self.holds.now.iter().map(|(path, (_, held))| (path.clone(), held.clone())).collect()
    }

    /// What is held at a path: the file that it would be, if it would be one.
    pub fn held_content(&self, path: &TreePath) -> Option<s0_tree::Content> {
        let (place, _) = self.holds.now.get(path)?;
        match self.remote_at(place)?.what {
            crate::state::What::File(content) => Some(content),
            _ => None,
        }
    }

    /// Ends a hold.
    ///
    /// # Errors
    /// Nothing is held there, or it cannot end yet.
    pub fn settle_held(
        &mut self,
        path: &TreePath,
        end: HoldEnd,
        now: u64,
    ) -> Result<(), ResolveError> {
        self.now = now;
        let Some((place, Held { why, .. })) = self.holds.now.get(path).cloned() else {
            return Err(ResolveError::NothingHeld(path.clone()));
        };
        let remote = self.remote_at(&place);
        match end {
            HoldEnd::Take => {
                let version = remote.map(|remote| remote.version);
                self.holds.let_in.insert(place, (version, why));
            }
            HoldEnd::Discard => {
                if self.is_outgoing(path) {
                    return Err(ResolveError::NotYet(path.clone()));
                }
                // Known to the user, who has decided against it: what the disk holds is an
                // edit of it, and is sent as one.
                let row = remote.as_ref().map(super::remote::decided);
                self.commit(vec![Record::Synced(place, row)], true)?;
                self.touch(path.clone(), self.now, false);
            }
        }
        self.note_hold(path, None);
        self.stir();
        Ok(())
    }
}
