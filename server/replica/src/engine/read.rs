//! Reading what a stat does not tell, and knowing again what was known.

use std::sync::Arc;

use s0_tree::TreePath;

use super::{Done, Local, Replica};
use crate::disk::{Description, Disk, DiskError, Spot, Stat};
use crate::state::{Print, Record, Row, Store, What};

/// How many files are read at once: as many small contents are in memory.
pub(super) const READS_AT_ONCE: usize = 256;
/// Bytes of changed files that are kept until they are sent.
pub(super) const BYTES_BUDGET: usize = 32 << 20;

impl<D: Disk, S: Store> Replica<D, S> {
    /// Reads the files whose stat does not say enough.
    pub(super) fn read(&mut self, files: &[(TreePath, Stat)]) -> Done {
        for batch in files.chunks(READS_AT_ONCE) {
            self.read_some(batch)?;
        }
        Ok(())
    }

    fn read_some(&mut self, files: &[(TreePath, Stat)]) -> Done {
        let spots: Vec<_> = files.iter().map(|(path, _)| Spot::Path(path.clone())).collect();
        let read = self.disk.describe(&spots);
        let files = files.iter().cloned();
        let mut records = Vec::new();
        for ((path, _), description) in files.zip(read) {
            match description {
                Ok(Description::Stable { stat, content, bytes, recipe, open }) => {
                    let seen = self.disk.now();
                    let print = Print { stat, seen, open };
                    let what = What::File(content);
                    let mode = stat.mode & 0o777;
                    if let Some((place, row)) = self.row_at(&path)
                        && row.what == what
                        && self.same_mode(&what, row.mode, mode)
                    {
                        let row = Row { print: Some(print), ..row.clone() };
                        records.push(Record::Synced(place, Some(row)));
                        self.forget(&path);
                        continue;
                    }
                    if let Some((place, row)) = self.row_at(&path)
                        && row.what != what
                        && row.print.is_some_and(|print| print.stat == stat)
                    {
                        // A power cut has left another content under the stat that is
                        // known. The next look would trust that again, and see nothing.
                        let row = Row { print: None, ..row.clone() };
                        self.commit(vec![Record::Synced(place, Some(row))], false)?;
                    }
                    self.forget(&path);
                    self.changed.insert(path.clone(), Local::There { what, mode, print });
                    self.recipe =
                        recipe.map(|recipe| (content.id, recipe.into())).or(self.recipe.take());
                    if let Some(bytes) = bytes
                        && self.bytes_held + bytes.len() <= BYTES_BUDGET
                    {
                        self.bytes_held += bytes.len();
                        self.bytes.insert(path.clone(), Arc::from(bytes));
                    }
                    self.adopt(&path)?;
                }
                Ok(Description::Changing) => self.touch(path, self.now + 100, false),
                Err(DiskError::NotFound | DiskError::NotADirectory) => {
                    self.touch(path, self.now, false);
                }
                Err(error) => self.problem(&path, &error),
            }
        }
        self.commit(records, false)
    }

    /// A directory that is new here may be one that was synced elsewhere: the
    /// old name is gone, and inode and birth are the same.
    pub(super) fn find_moved(&mut self, path: &TreePath, stat: &Stat) {
        let Some(node) = self.state.synced.directory_by_inode(stat.inode) else { return };
        let Some(place) = self.state.synced.home(node).cloned() else { return };
        let Some(row) = self.row(&place) else { return };
        let same = row.print.is_some_and(|print| {
            print.stat.inode == stat.inode && print.stat.born == stat.born && stat.born.is_some()
        });
        let Some(old) = self.directory_path(node) else { return };
        let inside = path.is_at_or_below(&old);
        let row_here = self.row_at(path).is_some();
        let Some(parent) = path.parent() else { return };
        if !same || inside || row_here || self.directory_at(&parent).is_none() {
            return;
        }
        match self.disk.stat(&Spot::Path(old.clone())) {
            Ok(Some(other)) if other.inode == stat.inode => return,
            Ok(_) => {}
            Err(_) => return,
        }
        // Whatever stands there now is looked at afresh, unless it is another one that
        // was moved there: two that have changed places would have each look at the
        // one forget the other.
        if self.moved.get(&old).is_none_or(|there| *there == node) {
            self.forget_below(&old);
            self.forget(&old);
            self.moved.remove(&old);
            self.touch(old, self.now, true);
        }
        let home = self.disk_path(&place);
        if home.as_ref() != Some(path) {
            self.moved.insert(path.clone(), node);
            self.changed.insert(path.clone(), Local::Moved { node });
        }
        if let Some(home) = home {
            self.changed.remove(&home);
            // Whatever stands in its old place now is looked at afresh.
            self.touch(home, self.now, true);
        }
    }

    /// Takes what the disk holds for synced when the Volume holds the same.
    pub(super) fn adopt(&mut self, path: &TreePath) -> Done {
        if self.is_outgoing(path) {
            return Ok(());
        }
        let (Some(place), Some(local)) = (self.place_at(path), self.changed.get(path)) else {
            return Ok(());
        };
        let (Local::There { what, mode, print }, Some(remote)) =
            (local.clone(), self.remote_at(&place))
        else {
            return Ok(());
        };
        if what != remote.what {
            return Ok(());
        }
        let row = self.row(&place);
        let of_a_moved_one = row.is_some_and(|row| self.is_moved(row.node));
        if of_a_moved_one || self.is_moved(remote.node) {
            // The row, or the Volume's directory, is one that the user has elsewhere.
            return Ok(());
        }
        let agreed =
            row.is_some_and(|row| row.version == remote.version && row.node == remote.node);
        if agreed && !self.same_mode(&what, mode, remote.mode) {
            // Only the mode differs, and it is ours to send.
            return Ok(());
        }
        // What is new on both sides with one content is one thing. Where the
        // modes differ the Volume's is applied afterwards, by the download.
        let rekeyed = row
            .filter(|row| row.what.is_directory() && row.node != remote.node)
            .map(|row| row.node);
        if let Some(old) = rekeyed {
            self.expect_rows(old, remote.node);
        }
        let row = Row {
            node: remote.node,
            version: remote.version,
            what: what.clone(),
            mode: if self.disk.abilities().modes { mode } else { remote.mode },
            print: Some(print),
        };
        self.commit(vec![Record::Synced(place.clone(), Some(row))], false)?;
        self.forget(path);
        self.incoming.insert(place);
        if what.is_directory() {
            self.expect_children(remote.node);
        }
        Ok(())
    }
}
