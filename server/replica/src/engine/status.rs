//! What a replica says of itself.

use std::collections::BTreeMap;

use s0_tree::{NodeId, Place, Seq, Tree, TreePath};
use serde::{Deserialize, Serialize};

use super::{Halt, Held, Link, Local, Replica};
use crate::disk::{Description, Disk, DiskError, DiskResult, Seen, Spot};
use crate::state::{Conflict, ConflictStatus, Store, What};

/// The state in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// Everything stopped; the halt says why.
    Halted,
    /// The service cannot be reached. Local changes are kept for later.
    Offline,
    /// Work is going on.
    Syncing,
    /// Uploads wait for conflicts to be settled.
    Blocked,
    /// Disk and Volume are equal, as far as is known.
    InSync,
}

/// What is not done yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Pending {
    /// Paths that must be looked at.
    pub looks: usize,
    /// Local changes that are not in the Volume.
    pub uploads: usize,
    /// Places at which the Volume has moved on.
    pub downloads: usize,
}

/// Progress of what is long: counts of paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Progress {
    /// Agreed on by both sides.
    pub synced: usize,
    /// All that there are to agree on.
    pub total: usize,
}

/// Everything for a status line or a status page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// In one word.
    pub condition: Condition,
    /// Why everything stopped, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub halt: Option<Halt>,
    /// Whether the service answers.
    pub connected: bool,
    /// How far the journal is folded.
    pub cursor: Seq,
    /// What is not done.
    pub pending: Pending,
    /// How far it has come.
    pub progress: Progress,
    /// Conflicts by path, open and ignored.
    pub conflicts: BTreeMap<TreePath, Conflict>,
    /// Paths that cannot be synced, and why.
    pub problems: BTreeMap<TreePath, String>,
    /// Writes of the Volume that are held, by path.
    #[serde(default)]
    pub held: BTreeMap<TreePath, Held>,
    /// Local paths that wait for the user's word.
    pub withheld: Vec<TreePath>,
    /// How many of the Volume's paths are not here because of ignore rules.
    pub ignored_incoming: usize,
}

/// A difference that `verify` found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The path.
    pub path: TreePath,
    /// What is different, in words.
    pub why: String,
}

/// Why disk and Volume cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// There is nothing to compare with.
    #[error(
        "the Volume was not reached yet, so there is nothing to compare with; `s0 sync status` \
         says why"
    )]
    VolumeUnknown,
    /// The disk cannot be read.
    #[error("the workspace cannot be read: {0}")]
    Disk(#[from] DiskError),
}

impl<D: Disk, S: Store> Replica<D, S> {
    /// What this replica says of itself.
    pub fn status(&self) -> Status {
        let pending = self.pending();
        let open = self.has_open_conflicts();
        let quiet = pending == Pending::default() && self.looked;
        let condition = match (&self.halt, self.link) {
            (Some(_), _) => Condition::Halted,
            (None, Link::Offline) => Condition::Offline,
            (None, _) if open => Condition::Blocked,
            (None, Link::Following) if quiet => Condition::InSync,
            (None, _) => Condition::Syncing,
        };
        let total = self.remote.as_ref().map_or(0, |tree| tree.len());
        let new =
            self.changed.values().filter(|local| matches!(local, Local::There { .. })).count();
        let synced = self.state.synced.len();
        Status {
            condition,
            halt: self.halt.clone(),
            connected: self.link == Link::Following,
            cursor: self.remote.as_ref().map_or(self.state.facts.cursor, |tree| tree.head()),
            pending,
            progress: Progress { synced, total: total.max(synced + new) },
            conflicts: self.state.conflicts.clone(),
            problems: self.problems().collect(),
            held: self.held(),
            withheld: self.state.withheld.iter().cloned().collect(),
            ignored_incoming: self.ignored_incoming.len(),
        }
    }

    /// Whether everything is done and nothing waits for anybody. Cheap, and true of
    /// no status but one that is in sync.
    pub fn is_at_rest(&self) -> bool {
        self.link == Link::Following
            && self.looked
            && self.halt.is_none()
            && self.dirty.is_empty()
            && self.second_look.is_none()
            && self.changed.is_empty()
            && self.state.outgoing.is_none()
            && self.state.conflicts.is_empty()
            && self.incoming.is_empty()
            && self.active.is_empty()
            && self.waiting.is_empty()
    }

    /// What is not done yet, without what waits for the user.
    pub fn pending(&self) -> Pending {
        let uploads = self.to_upload().count();
        // What waits may wait for conflicts, or for what cannot be here.
        let blocked = self.has_open_conflicts() || !self.problems.is_empty();
        let waiting = self.waiting.iter().filter(|_| !blocked).filter(|place| {
            self.disk_path(place).is_some_and(|path| !self.waits_for_user(&path))
                && !self.is_agreed(place)
        });
        let outgoing = self.state.outgoing.as_ref().map_or(0, |outgoing| outgoing.sent.len());
        Pending {
            looks: self.dirty.len() + usize::from(self.second_look.is_some()),
            uploads: uploads.max(outgoing),
            downloads: self.incoming.len() + self.active.len() + waiting.count(),
        }
    }

    /// Whether what the Volume has at a path waits for something local, which
    /// counts as an upload or as a question to the user.
    fn waits_for_user(&self, path: &TreePath) -> bool {
        self.problems.contains_key(path)
            || self.is_held_back(path)
            || self.in_conflict(path)
            || self.state.withheld.contains(path)
            || self.changed.contains_key(path)
            || path.ancestors().any(|above| self.changed.contains_key(&above))
            || super::look::below(&self.changed, path).next().is_some()
            || self.state.conflicts.keys().any(|other| other.is_at_or_below(path))
    }

    /// Whether a changed path is on its way to the Volume, as far as the user
    /// has not been asked about it.
    pub(super) fn is_wanted(&self, path: &TreePath) -> bool {
        !self.in_conflict(path)
            && !self.state.withheld.contains(path)
            && !path.ancestors().any(|above| self.state.withheld.contains(&above))
            && !self.is_kept(path)
    }

    /// What is on its way to the Volume, and fits.
    fn to_upload(&self) -> impl Iterator<Item = &TreePath> {
        self.changed.keys().filter(|path| self.is_wanted(path) && !self.has_no_room(path))
    }

    /// What cannot be synced, and why.
    fn problems(&self) -> impl Iterator<Item = (TreePath, String)> {
        let own = self.problems.iter().map(|(path, why)| (path.clone(), why.clone()));
        let why = self.why_no_room();
        let without = self.changed.keys().filter(|path| self.has_no_room(path));
        own.chain(without.map(move |path| (path.clone(), why.clone())))
    }

    /// Whether this is a directory that is here only because of what is in it,
    /// and nothing in there is to be sent.
    fn is_kept(&self, path: &TreePath) -> bool {
        self.state.kept.contains(path)
            && matches!(self.changed.get(path), Some(Local::There { what: What::Directory, .. }))
            && super::look::below(&self.changed, path).next().is_none()
    }

    /// The paths that keep the replica from being done, with why; at most `limit`.
    pub fn unfinished(&self, limit: usize) -> Vec<Difference> {
        let why = |path: &TreePath, why: &str| Difference { path: path.clone(), why: why.into() };
        let conflicts = self
            .state
            .conflicts
            .iter()
            .filter(|(_, conflict)| conflict.status == ConflictStatus::Open)
            .map(|(path, _)| why(path, "in conflict"));
        let problems = self.problems().map(|(path, why)| Difference { path, why });
        let held = self.held().into_iter().map(|(path, held)| why(&path, held.why.in_words()));
        let problems = problems.chain(held);
        let paused =
            if self.has_open_conflicts() { "waits for conflicts" } else { "not uploaded yet" };
        let changed = self.to_upload();
        conflicts.chain(problems).chain(changed.map(|path| why(path, paused))).take(limit).collect()
    }

    /// The paths at which the Volume has moved on, as far as they have one here;
    /// at most `limit`.
    pub fn awaited(&self, limit: usize) -> Vec<TreePath> {
        let places = self.incoming.iter().chain(self.active.keys()).chain(&self.waiting);
        let mut paths: Vec<_> = places
            .filter(|place| !self.is_agreed(place))
            .filter_map(|place| self.disk_path(place))
            .filter(|path| !self.waits_for_user(path))
            .collect();
        paths.sort();
        paths.dedup();
        paths.truncate(limit);
        paths
    }

    fn is_agreed(&self, place: &Place) -> bool {
        let agreed = self.row(place).map(|row| (row.node, row.version));
        agreed == self.remote_at(place).map(|remote| (remote.node, remote.version))
    }

    /// What is synced at a path of the disk.
    pub fn row_for(&self, path: &TreePath) -> Option<crate::state::Row> {
        self.row_at(path).map(|(_, row)| row.clone())
    }

    /// Whether the Volume's side of a path, or of one above it, cannot come
    /// yet.
    pub fn is_waiting(&self, path: &TreePath) -> bool {
        self.waiting
            .iter()
            .filter_map(|place| self.disk_path(place))
            .any(|at| path.is_at_or_below(&at))
    }

    /// The inner state in a line, for whoever looks into a replica that does not
    /// come to rest.
    pub fn debug(&self) -> String {
        use std::fmt::Write;
        let mut text = String::new();
        for (path, local) in &self.changed {
            let what = match local {
                Local::Gone => "gone".to_owned(),
                Local::There { what, .. } => format!("{what:?}"),
                Local::Moved { node } => format!("moved {}", node.0),
            };
            let _ = writeln!(text, "  changed {path}: {what}");
        }
        for (path, conflict) in &self.state.conflicts {
            let _ = writeln!(text, "  conflict {path}: {:?}", conflict.reason);
        }
        for (what, places) in [("incoming", &self.incoming), ("waiting", &self.waiting)] {
            for place in places {
                let path = self.disk_path(place);
                let row = self.row(place).map(|row| (row.node.0, row.version.0, &row.what));
                let remote = self.remote_at(place).map(|it| (it.node.0, it.version.0, it.what));
                let _ = writeln!(
                    text,
                    "  {what} {}/{} at {path:?} synced {row:?} remote {remote:?}",
                    place.parent.0, place.name
                );
            }
        }
        for (id, intent) in &self.state.intents {
            let active = self.active.get(&intent.place) == Some(id);
            let after = intent.after.as_ref().map(|after| &after.what);
            let before = intent.before.as_ref().map(|row| &row.what);
            let _ = writeln!(
                text,
                "  intent {} {:?} {:?} active {active} before {before:?} after {after:?}",
                id.0, intent.path, intent.phase,
            );
        }
        let _ = writeln!(text, "  dirty {:?}", self.dirty.keys());
        let _ = writeln!(text, "  problems {:?} moved {:?}", self.problems, self.moved);
        let _ =
            writeln!(text, "  displaced {:?} kept {:?}", self.displaced.keys(), self.state.kept);
        text
    }

    /// Reads the whole disk and compares it with the Volume as far as the journal
    /// has been followed. What is ignored, in conflict or withheld is left out.
    ///
    /// # Errors
    /// The Volume is not known, or the disk cannot be read.
    pub fn verify(&mut self) -> Result<Vec<Difference>, VerifyError> {
        let tree = self.remote.clone().ok_or(VerifyError::VolumeUnknown)?;
        let mut found = Vec::new();
        let mut files = Vec::new();
        self.verify_directory(&tree, &TreePath::root(), NodeId::ROOT, &mut files, &mut found)?;
        let spots: Vec<_> = files.iter().map(|(path, _)| Spot::Path(path.clone())).collect();
        for batch in spots.chunks(1024).zip(files.chunks(1024)) {
            let read = self.disk.describe(batch.0);
            for ((path, expected), description) in batch.1.iter().zip(read) {
                let why = match description {
                    Ok(Description::Stable { content, .. }) if content == *expected => continue,
                    Ok(Description::Stable { .. }) => "the contents differ".to_owned(),
                    Ok(Description::Changing) => "it keeps changing".to_owned(),
                    Err(error) => error.to_string(),
                };
                found.push(Difference { path: path.clone(), why });
            }
        }
        found.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    }

    fn verify_directory(
        &mut self,
        tree: &Tree,
        path: &TreePath,
        directory: NodeId,
        files: &mut Vec<(TreePath, s0_tree::Content)>,
        found: &mut Vec<Difference>,
    ) -> DiskResult<()> {
        let listing = self.listed(path)?;
        let mut missing: BTreeMap<_, _> = tree
            .node(directory)
            .and_then(|node| node.directory())
            .into_iter()
            .flat_map(|children| children.iter())
            .filter_map(|(name, id)| Some((name.clone(), super::paths::remote_node(tree, id)?)))
            .collect();
        for (name, stat) in listing.entries {
            let child = path.join(&name);
            let is_directory = stat.kind.may_be_directory();
            let apart = self.in_conflict(&child)
                || self.state.withheld.contains(&child)
                || self.is_held_back(&child)
                || self.state.kept.contains(&child)
                || s0_tree::comparison_key(name.as_str()) == ".git"
                || (self.row_at(&child).is_none() && self.rules.is_ignored(&child, is_directory));
            let Some(remote) = missing.remove(&name) else {
                if !apart {
                    found.push(Difference { path: child, why: "only on this disk".into() });
                }
                continue;
            };
            if apart {
                continue;
            }
            let different = match (&remote.what, stat.kind) {
                (What::File(content), Seen::File) => {
                    files.push((child.clone(), *content));
                    None
                }
                (What::Directory, Seen::Directory) => None,
                (What::Symlink(target), Seen::Symlink) => {
                    match self.disk.read_link(&Spot::Path(child.clone())) {
                        Ok(there) if *there == **target => None,
                        Ok(_) => Some("of another kind".to_owned()),
                        Err(error) => Some(error.to_string()),
                    }
                }
                (_, Seen::Mount) => Some(super::look::MOUNTED.to_owned()),
                (_, Seen::Unknown) => Some("it cannot be read".to_owned()),
                _ => Some("of another kind".to_owned()),
            };
            if let Some(why) = different {
                found.push(Difference { path: child, why });
                continue;
            }
            if !self.same_mode(&remote.what, remote.mode, stat.mode) {
                let why = format!("the mode is {:o}, not {:o}", stat.mode, remote.mode);
                found.push(Difference { path: child.clone(), why });
            }
            if stat.kind == Seen::Directory
                && let Err(error) = self.verify_directory(tree, &child, remote.node, files, found)
            {
                // The others can be compared all the same.
                found.push(Difference { path: child, why: error.to_string() });
            }
        }
        for (name, remote) in missing {
            let child = path.join(&name);
            let ignored = self.row_at(&child).is_none()
                && self.rules.is_ignored(&child, remote.what.is_directory());
            if !ignored && !self.in_conflict(&child) {
                found.push(Difference { path: child, why: "only in the Volume".into() });
            }
        }
        Ok(())
    }
}
