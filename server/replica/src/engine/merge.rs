//! Merging: one text of base, mine and theirs takes the place of the local file.
//!
//! The text is made outside; it comes here with the [`Sides`] that it was made
//! of, and only if they are still what stands there does it come to the disk.
//! For the rest of the engine this is like a save of the user's: what was synced
//! stays what it is, and a crash leaves an open conflict with one text or the
//! other at its path. It is staged, exchanged and compared as everything is.
//! What it displaces may be an edit that is stored nowhere else; that is in the
//! merge, so it goes when the merge is on the disk for certain and no program
//! writes to it any more. An edit that the merge does not know is never displaced.

use s0_tree::{Content, Place, TreePath};

use super::put::OldFile;
use super::remote::decided;
use super::{Local, Replica, ResolveError};
use crate::disk::Disk;
use crate::state::{Print, Record, Remote, Store, What};

/// What a merge is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sides {
    /// What both had before, if that was a file.
    pub base: Option<Content>,
    /// The local file as it stands now.
    pub mine: Content,
    /// What the Volume has now.
    pub theirs: Content,
}

/// A conflict with a file on both sides.
struct TwoFiles {
    sides: Sides,
    place: Place,
    remote: Remote,
    mode: u32,
    print: Print,
}

impl<D: Disk, S: Store> Replica<D, S> {
    /// What a merge of the conflict at a path would be made of.
    ///
    /// # Errors
    /// There is no conflict, or not a file on both sides.
    pub fn sides(&mut self, path: &TreePath, now: u64) -> Result<Sides, ResolveError> {
        Ok(self.two_files(path, now)?.sides)
    }

    fn two_files(&mut self, path: &TreePath, now: u64) -> Result<TwoFiles, ResolveError> {
        self.look_at_conflict(path, now)?;
        let Some(place) = self.place_at(path) else {
            return Err(ResolveError::NotYet(path.clone()));
        };
        let base = match self.state.conflicts.get(path).and_then(|it| it.base.as_ref()) {
            Some(What::File(base)) => Some(*base),
            _ => None,
        };
        let remote = self.remote_at(&place);
        match (self.local_at(path), remote) {
            (
                Some(Local::There { what: What::File(mine), mode, print }),
                Some(remote @ Remote { what: What::File(theirs), .. }),
            ) => {
                let sides = Sides { base, mine: *mine, theirs };
                Ok(TwoFiles { sides, place, mode: *mode, print: *print, remote })
            }
            // The local file is what was synced: the conflict is about to end.
            (None, _) => Err(ResolveError::NotYet(path.clone())),
            _ => Err(ResolveError::NotTwoFiles(path.clone())),
        }
    }

    /// Puts a merge of `sides` in the place of the local file. With `ends`, the
    /// conflict ends, and the merge is offered as an edit that knows both sides;
    /// without, there are overlaps to settle by hand, and it stays open.
    ///
    /// # Errors
    /// `NotYet` when the sides are others by now; nothing has changed then.
    pub fn merge(
        &mut self,
        path: &TreePath,
        sides: Sides,
        text: &[u8],
        ends: bool,
        now: u64,
    ) -> Result<(), ResolveError> {
        let it = self.two_files(path, now)?;
        if it.sides != sides {
            return Err(ResolveError::NotYet(path.clone()));
        }
        let agreed = Record::Synced(it.place.clone(), Some(decided(&it.remote)));
        let old = OldFile { content: it.sides.mine, mode: it.mode, print: it.print };
        let mut records = self.put_in_place(path, it.place, old, text)?;
        if ends {
            records.push(agreed);
            self.end_conflict(path, "merged", records)?;
        } else {
            self.commit(records, true)?;
        }
        self.forget(path);
        self.touch(path.clone(), now, true);
        Ok(())
    }
}
