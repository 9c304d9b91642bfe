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
    pid: u32,
}

#[derive(Debug)]
struct Waiting {
    owner: Owner,
    id: u64,
    range: Range,
    pid: u32,
}

#[derive(Debug, Default)]
struct OfFile {
    held: Vec<Held>,
    waiting: VecDeque<Waiting>,
}

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
    fn set(&mut self, owner: &Owner, (start, end): (u64, u64), lock: Option<(bool, u32)>) {
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
                kept.push(Held { owner: owner.clone(), range, pid: held.pid });
            }
            if held.range.end > end {
                let range = Range { start: end + 1, ..held.range };
                kept.push(Held { owner: owner.clone(), range, pid: held.pid });
            }
        }
        if let Some((exclusive, pid)) = lock {
            let range = Range { start, end, exclusive };
            kept.push(Held { owner: owner.clone(), range, pid });
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
            let Waiting { owner, id, range, pid } = waiting;
            self.set(&owner, (range.start, range.end), Some((range.exclusive, pid)));
            granted.push((owner.0, Told::Locked { id }));
        }
    }
}

impl Locks {
    /// Takes a lock, or says what is in its way. None while it waits.
    pub(super) fn lock(&mut self, session: &Arc<str>, asked: Asked, wait: bool) -> Option<Told> {
        let Asked { id, node, space, holder, range, pid } = asked;
        let owner = (session.clone(), holder);
        let file = self.0.entry((node, space)).or_default();
        let busy = file.in_the_way(&owner, range).next().map(|held| (held.range, held.pid));
        let Some((other, holds)) = busy else {
            file.set(&owner, (range.start, range.end), Some((range.exclusive, pid)));
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
        file.waiting.push_back(Waiting { owner, id, range, pid });
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
        let (range, pid) = held.map_or((None, 0), |held| (Some(held.range), held.pid));
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
        assert!(is_taken(locks.lock(&a, asked(1, 1, 1, (0, 99), true), false)));
        assert!(!is_taken(locks.lock(&b, asked(2, 1, 1, (40, 40), false), false)));
        locks.unlock(&a, (NodeId(1), LockSpace::Ranges), Holder(1), (40, 49));
        assert!(is_taken(locks.lock(&b, asked(3, 1, 1, (40, 49), true), false)));
        for at in [39, 50] {
            assert!(!is_taken(locks.lock(&b, asked(4, 1, 1, (at, at), false), false)));
        }
        // To a lock that others may share.
        assert!(is_taken(locks.lock(&a, asked(5, 1, 1, (0, 9), false), false)));
        assert!(is_taken(locks.lock(&b, asked(6, 1, 1, (5, 5), false), false)));
        assert!(!is_taken(locks.lock(&b, asked(7, 1, 1, (5, 5), true), false)));
    }

    #[test]
    fn who_waits_is_told_in_turn_and_a_dead_mount_lets_go() {
        let (mut locks, a, b, c) =
            (Locks::default(), Arc::from("a"), Arc::from("b"), Arc::from("c"));
        assert!(is_taken(locks.lock(&a, asked(1, 1, 1, ALL, true), true)));
        assert_eq!(locks.lock(&b, asked(2, 1, 1, ALL, true), true), None);
        assert_eq!(locks.lock(&c, asked(3, 1, 1, ALL, true), true), None);
        let granted = locks.drop_session("a");
        assert_eq!(granted, [(b.clone(), Told::Locked { id: 2 })]);
        assert_eq!(locks.cancel(&c, 3).len(), 1);
        assert!(locks.unlock(&b, (NodeId(1), LockSpace::Ranges), Holder(1), ALL).is_empty());
        assert!(locks.0.is_empty());
    }

    #[test]
    fn two_that_would_wait_for_each_other_are_told() {
        let (mut locks, a, b) = (Locks::default(), Arc::from("a"), Arc::from("b"));
        assert!(is_taken(locks.lock(&a, asked(1, 1, 1, ALL, true), true)));
        assert!(is_taken(locks.lock(&b, asked(2, 2, 1, ALL, true), true)));
        assert_eq!(locks.lock(&a, asked(3, 2, 1, ALL, true), true), None);
        let told = locks.lock(&b, asked(4, 1, 1, ALL, true), true);
        assert_eq!(told, Some(Told::Deadlock { id: 4 }));
    }
}
