//! Locks of files, as `fcntl` and `flock` know them, between mounts.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use s0_api::mounts::{Holder, LockSpace, Range, Told};
use s0_tree::NodeId;

/// A lock that is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    /// The number that the answer bears.
    pub(crate) id: u64,
    pub(crate) node: NodeId,
    pub(crate) space: LockSpace,
    pub(crate) holder: Holder,
    pub(crate) range: Range,
    pub(crate) pid: u32,
}

/// Whose: a holder of one mount.
type Owner = (Arc<str>, Holder);

#[derive(Debug)]
struct Held {
    owner: Owner,
    range: Range,
    by: By,
}

/// Who took a lock, for those who ask, and through which of his mount's connections that was
/// said last.
#[derive(Debug, Clone, Copy)]
struct By {
    pid: u32,
    connection: u64,
}

#[derive(Debug)]
struct Waiting {
    owner: Owner,
    id: u64,
    range: Range,
    by: By,
}

#[derive(Debug, Default)]
struct OfFile {
    held: Vec<Held>,
    waiting: VecDeque<Waiting>,
}

/// How many locks of one file are held or waited for, and how many files have some.
const OF_A_FILE: usize = 4096;
const FILES: usize = 65_536;

/// The locks of a Volume's files.
#[derive(Debug, Default)]
pub(crate) struct Locks(HashMap<(NodeId, LockSpace), OfFile>);

fn meet(a: Range, b: Range) -> bool {
    a.start <= b.end && b.start <= a.end
}

impl OfFile {
    /// What is in the way of a lock.
    fn in_the_way<'a>(&'a self, owner: &'a Owner, range: Range) -> impl Iterator<Item = &'a Held> {
        self.held.iter().filter(move |held| {
            held.owner != *owner
                && meet(held.range, range)
                && (held.range.exclusive || range.exclusive)
        })
    }

    /// Makes a part of the file the owner's, in this way or (without one) not any more.
    fn set(&mut self, owner: &Owner, (start, end): (u64, u64), lock: Option<(bool, By)>) {
        let mut kept = Vec::with_capacity(self.held.len() + 2);
        for held in self.held.drain(..) {
            let whole = Range { start, end, exclusive: false };
            if held.owner != *owner || !meet(held.range, whole) {
                kept.push(held);
                continue;
            }
            // What lies before and behind stays as it is.
            if held.range.start < start {
                let range = Range { end: start - 1, ..held.range };
                kept.push(Held { owner: owner.clone(), range, by: held.by });
            }
            if held.range.end > end {
                let range = Range { start: end + 1, ..held.range };
                kept.push(Held { owner: owner.clone(), range, by: held.by });
            }
        }
        if let Some((exclusive, by)) = lock {
            let range = Range { start, end, exclusive };
            kept.push(Held { owner: owner.clone(), range, by });
        }
        self.held = kept;
    }

    /// Gives those that wait what is free now, in the order in which they came.
    fn grant(&mut self, granted: &mut Vec<(Arc<str>, Told)>) {
        for waiting in std::mem::take(&mut self.waiting) {
            if self.in_the_way(&waiting.owner, waiting.range).next().is_some() {
                self.waiting.push_back(waiting);
                continue;
            }
            let Waiting { owner, id, range, by } = waiting;
            self.set(&owner, (range.start, range.end), Some((range.exclusive, by)));
            granted.push((owner.0, Told::Locked { id }));
        }
    }
}

impl Locks {
    /// Takes a lock, or says what is in its way. None while it waits.
    pub(super) fn lock(
        &mut self,
        session: &Arc<str>,
        connection: u64,
        asked: Asked,
        wait: bool,
    ) -> Option<Told> {
        let Asked { id, node, space, holder, range, pid } = asked;
        let by = By { pid, connection };
        let owner = (session.clone(), holder);
        let known = self.0.get(&(node, space)).map(|file| file.held.len() + file.waiting.len());
        if known.map_or(self.0.len() >= FILES, |count| count >= OF_A_FILE) {
            return Some(Told::TooMany { id });
        }
        let file = self.0.entry((node, space)).or_default();
        let busy = file.in_the_way(&owner, range).next().map(|held| (held.range, held.by.pid));
        let Some((other, holds)) = busy else {
            file.set(&owner, (range.start, range.end), Some((range.exclusive, by)));
            // An upgrade or a downgrade may have made room.
            return Some(Told::Locked { id });
        };
        if !wait {
            return Some(Told::Busy { id, range: Some(other), pid: holds });
        }
        if space == LockSpace::Ranges && self.waits_for(node, &owner, range) {
            return Some(Told::Deadlock { id });
        }
        let file = self.0.entry((node, space)).or_default();
        if space == LockSpace::Whole {
            // `flock` lets go of what it has before it waits for the other kind.
            file.set(&owner, (range.start, range.end), None);
        }
        file.waiting.push_back(Waiting { owner, id, range, by });
        None
    }

    /// Whether one that is in the way of a lock waits, over any others, for its owner.
    fn waits_for(&self, node: NodeId, owner: &Owner, range: Range) -> bool {
        let key = (node, LockSpace::Ranges);
        let mut next: Vec<&Owner> = Vec::new();
        if let Some(file) = self.0.get(&key) {
            next.extend(file.in_the_way(owner, range).map(|held| &held.owner));
        }
        let mut seen = HashSet::new();
        while let Some(other) = next.pop() {
            if other == owner {
                return true;
            }
            if !seen.insert(other) {
                continue;
            }
            for ((_, space), file) in &self.0 {
                if *space != LockSpace::Ranges {
                    continue;
                }
                for waiting in file.waiting.iter().filter(|waiting| waiting.owner == *other) {
                    let ahead = file.in_the_way(&waiting.owner, waiting.range);
                    next.extend(ahead.map(|held| &held.owner));
                }
            }
        }
        false
    }

    /// What is in the way of a lock of ranges.
    pub(super) fn test(&self, session: &str, asked: &Asked) -> Told {
        let owner = (Arc::from(session), asked.holder);
        let file = self.0.get(&(asked.node, asked.space));
        let held = file.and_then(|file| file.in_the_way(&owner, asked.range).next());
        let (range, pid) = held.map_or((None, 0), |held| (Some(held.range), held.by.pid));
        Told::Busy { id: asked.id, range, pid }
    }

    /// Gives a part of a file back.
    pub(crate) fn unlock(
        &mut self,
        session: &Arc<str>,
        (node, space): (NodeId, LockSpace),
        holder: Holder,
        part: (u64, u64),
    ) -> Vec<(Arc<str>, Told)> {
        let mut granted = Vec::new();
        if let Some(file) = self.0.get_mut(&(node, space)) {
            file.set(&(session.clone(), holder), part, None);
            file.grant(&mut granted);
        }
        self.sweep();
        granted
    }

    /// One that waited does not any more, and is told so. One that was granted just now
    /// was told that.
    pub(crate) fn cancel(&mut self, session: &Arc<str>, id: u64) -> Vec<(Arc<str>, Told)> {
        let mut waited = false;
        for file in self.0.values_mut() {
            let before = file.waiting.len();
            file.waiting.retain(|waiting| waiting.owner.0 != *session || waiting.id != id);
            waited |= file.waiting.len() != before;
        }
        self.sweep();
        let told = || (session.clone(), Told::Busy { id, range: None, pid: 0 });
        waited.then(told).into_iter().collect()
    }

    /// A mount has come back: it says again what it waits for.
    pub(super) fn forget_waiting(&mut self, session: &str) {
        for file in self.0.values_mut() {
            file.waiting.retain(|waiting| *waiting.owner.0 != *session);
        }
        self.sweep();
    }

    /// A mount that came back has said again all that it holds. What it did not is free: it was
    /// given back when nobody heard that.
    pub(super) fn drop_unsaid(&mut self, session: &str, connection: u64) -> Vec<(Arc<str>, Told)> {
        let said = |held: &Held| *held.owner.0 != *session || held.by.connection == connection;
        let mut granted = Vec::new();
        for file in self.0.values_mut() {
            let before = file.held.len();
            file.held.retain(said);
            if file.held.len() != before {
                file.grant(&mut granted);
            }
        }
        self.sweep();
        granted
    }

    /// A mount is gone.
    pub(super) fn drop_session(&mut self, session: &str) -> Vec<(Arc<str>, Told)> {
        let mut granted = Vec::new();
        for file in self.0.values_mut() {
            file.waiting.retain(|waiting| *waiting.owner.0 != *session);
            let before = file.held.len();
            file.held.retain(|held| *held.owner.0 != *session);
            if file.held.len() != before {
                file.grant(&mut granted);
            }
        }
        self.sweep();
        granted
    }

    fn sweep(&mut self) {
        self.0.retain(|_, file| !file.held.is_empty() || !file.waiting.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: (u64, u64) = (0, u64::MAX);

    fn asked(id: u64, node: u64, holder: u64, (start, end): (u64, u64), exclusive: bool) -> Asked {
        Asked {
            id,
            node: NodeId(node),
            space: LockSpace::Ranges,
            holder: Holder(holder),
            range: Range { start, end, exclusive },
            pid: 1,
        }
    }

    fn is_taken(told: Option<Told>) -> bool {
        told.is_some_and(|told| matches!(told, Told::Locked { .. }))
    }

    #[test]
    fn a_range_is_split_where_its_owner_unlocks_or_changes_a_part() {
        let (mut locks, a, b) = (Locks::default(), Arc::from("a"), Arc::from("b"));
        assert!(is_taken(locks.lock(&a, 1, asked(1, 1, 1, (0, 99), true), false)));
        assert!(!is_taken(locks.lock(&b, 1, asked(2, 1, 1, (40, 40), false), false)));
        locks.unlock(&a, (NodeId(1), LockSpace::Ranges), Holder(1), (40, 49));
        assert!(is_taken(locks.lock(&b, 1, asked(3, 1, 1, (40, 49), true), false)));
        for at in [39, 50] {
            assert!(!is_taken(locks.lock(&b, 1, asked(4, 1, 1, (at, at), false), false)));
        }
        // To a lock that others may share.
        assert!(is_taken(locks.lock(&a, 1, asked(5, 1, 1, (0, 9), false), false)));
        assert!(is_taken(locks.lock(&b, 1, asked(6, 1, 1, (5, 5), false), false)));
        assert!(!is_taken(locks.lock(&b, 1, asked(7, 1, 1, (5, 5), true), false)));
    }

    #[test]
    fn who_waits_is_told_in_turn_and_a_dead_mount_lets_go() {
        let (mut locks, a, b, c) =
            (Locks::default(), Arc::from("a"), Arc::from("b"), Arc::from("c"));
        assert!(is_taken(locks.lock(&a, 1, asked(1, 1, 1, ALL, true), true)));
        assert_eq!(locks.lock(&b, 1, asked(2, 1, 1, ALL, true), true), None);
        assert_eq!(locks.lock(&c, 1, asked(3, 1, 1, ALL, true), true), None);
        let granted = locks.drop_session("a");
        assert_eq!(granted, [(b.clone(), Told::Locked { id: 2 })]);
        assert_eq!(locks.cancel(&c, 3).len(), 1);
        assert!(locks.unlock(&b, (NodeId(1), LockSpace::Ranges), Holder(1), ALL).is_empty());
        assert!(locks.0.is_empty());
    }

    #[test]
    fn what_a_mount_that_came_back_does_not_say_again_is_free() {
        let (mut locks, a, b) = (Locks::default(), Arc::from("a"), Arc::from("b"));
        for (id, part) in [(1, (0, 9)), (2, (20, 29))] {
            assert!(is_taken(locks.lock(&a, 1, asked(id, 1, 1, part, true), true)));
        }
        assert_eq!(locks.lock(&b, 1, asked(3, 1, 1, (25, 25), true), true), None);
        // The second was given back on a line that was cut.
        assert!(is_taken(locks.lock(&a, 2, asked(4, 1, 1, (0, 9), true), false)));
        assert_eq!(locks.drop_unsaid("a", 2), [(b.clone(), Told::Locked { id: 3 })]);
        assert!(!is_taken(locks.lock(&b, 1, asked(5, 1, 1, (5, 5), true), false)));
    }

    #[test]
    fn there_are_only_so_many() {
        let (mut locks, a) = (Locks::default(), Arc::from("a"));
        for at in 0..OF_A_FILE as u64 {
            assert!(is_taken(locks.lock(&a, 1, asked(at, 1, 1, (2 * at, 2 * at), true), true)));
        }
        let more = locks.lock(&a, 1, asked(9, 1, 1, (u64::MAX, u64::MAX), true), true);
        assert_eq!(more, Some(Told::TooMany { id: 9 }));
    }

    #[test]
    fn two_that_would_wait_for_each_other_are_told() {
        let (mut locks, a, b) = (Locks::default(), Arc::from("a"), Arc::from("b"));
        assert!(is_taken(locks.lock(&a, 1, asked(1, 1, 1, ALL, true), true)));
        assert!(is_taken(locks.lock(&b, 1, asked(2, 2, 1, ALL, true), true)));
        assert_eq!(locks.lock(&a, 1, asked(3, 2, 1, ALL, true), true), None);
        let told = locks.lock(&b, 1, asked(4, 1, 1, ALL, true), true);
        assert_eq!(told, Some(Told::Deadlock { id: 4 }));
    }
}
