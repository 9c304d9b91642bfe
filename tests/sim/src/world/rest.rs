//! The end of a run: the world must come to rest, and conflicts to an end.

use std::rc::Rc;

use s0_replica::engine::{Pending, WayOut};
use s0_replica::state::ConflictStatus;
use s0_tree::{Content, TreePath};

use super::{ROUNDS, World};
use crate::coverage::Coverage;

impl World {
    /// Actors stop, everything heals, and the world must come to rest; then the
    /// conflicts are settled, and it must come to rest again, with all equal.
    pub(super) fn settle_down(&mut self) -> Result<(), String> {
        self.loss = 0;
        for machine in &self.machines {
            let site = &mut *machine.site.borrow_mut();
            if !site.fs.writers.is_empty() {
                Coverage::count(&self.coverage, "open writer");
            }
            site.active = false;
            site.crash_in = None;
            site.crash_at = None;
        }
        for round in 0..30 {
            // For a while programs still have their files open.
            if round == 1 {
                for machine in &self.machines {
                    machine.site.borrow_mut().close_all();
                }
            }
            if round > 0 {
                self.rest()?;
                let (left, settled) = (self.leave_the_desk(), self.settle_some(round)?);
                if !settled && !left {
                    return Ok(());
                }
            } else {
                for _ in 0..20 {
                    self.round();
                    self.verdict()?;
                }
            }
        }
        Err("conflicts do not end".into())
    }

    pub(super) fn round(&mut self) {
        self.pass(60);
        for at in 0..self.machines.len() {
            self.run_machine(at);
            self.pump(at);
        }
        self.rest_mounts();
        self.serve();
        self.commit();
    }

    pub(super) fn rest(&mut self) -> Result<(), String> {
        let mut quiet = 0;
        for _ in 0..ROUNDS {
            self.round();
            self.verdict()?;
            let head = self.service.head();
            let still = self.messages.is_empty()
                && self.mounts_are_still().is_ok()
                && self.machines.iter().all(|machine| {
                    machine.replica.as_ref().is_some_and(|replica| {
                        let blocked = replica
                            .state()
                            .conflicts
                            .values()
                            .any(|conflict| conflict.status == ConflictStatus::Open);
                        let pending = replica.pending();
                        let uploads = if blocked { 0 } else { pending.uploads };
                        machine.online
                            && machine.inbox.is_empty()
                            && machine.following == Some(head)
                            && replica.state().outgoing.is_none()
                            && replica.state().intents.is_empty()
                            && Pending { uploads, ..pending } == Pending::default()
                            && replica.status().halt.is_none()
                    })
                });
            quiet = if still { quiet + 1 } else { 0 };
            if quiet == 8 {
                return Ok(());
            }
        }
        let mut why = String::from("it does not come to rest:");
        if let Err(left) = self.mounts_are_still() {
            why += &format!(" {left}");
        }
        for machine in &self.machines {
            let Some(replica) = &machine.replica else { continue };
            let status = replica.status();
            let still = Pending { uploads: 0, ..status.pending } == Pending::default()
                && replica.state().intents.is_empty()
                && machine.inbox.is_empty()
                && replica.state().outgoing.is_none()
                && (status.pending.uploads == 0 || !replica.state().conflicts.is_empty());
            if still {
                continue;
            }
            why += &format!(
                "\n{} {:?} {:?} halt {:?} outgoing {:?}\n{}",
                machine.id,
                status.condition,
                status.pending,
                status.halt,
                replica.state().outgoing.as_ref().map(|outgoing| &outgoing.submission),
                replica.debug(),
            );
        }
        Err(why)
    }

    /// Settles the open conflicts, each in some way. Says whether there were any.
    pub(super) fn settle_some(&mut self, round: u32) -> Result<bool, String> {
        let mut any = false;
        for at in 0..self.machines.len() {
            let Some(replica) = &self.machines[at].replica else { continue };
            let open: Vec<_> = replica
                .state()
                .conflicts
                .iter()
                .filter(|(_, conflict)| conflict.status == ConflictStatus::Open)
                .map(|(path, conflict)| (path.clone(), conflict.reason))
                .collect();
            for (path, reason) in open {
                any = true;
                self.settle_one(at, &path, reason.is_about_names(), round);
                self.verdict()?;
            }
        }
        Ok(any)
    }

    pub(super) fn settle_one(&mut self, at: usize, path: &TreePath, name: bool, round: u32) {
        let now = self.now;
        if name {
            // The user gives the file a name that everyone can hold.
            let site = &mut *self.machines[at].site.borrow_mut();
            site.fs.who = crate::fs::Who::Actor;
            let to = format!("renamed{}", self.rng.u32(..));
            if site.fs.rename(path.as_str(), &to, false).is_err() {
                let _ = site.fs.unlink(path.as_str());
            }
            site.account();
            return;
        }
        let way = match self.rng.u8(..4) {
            0 => WayOut::Mark,
            1 => WayOut::TakeTheirs,
            2 => WayOut::KeepBoth,
            // Meanwhile new conflicts arise, so that this must have an end.
            _ if round > 10 => WayOut::Mark,
            _ => return self.merge(at, path),
        };
        let below = self.known_to_who_decides();
        let Some(replica) = &mut self.machines[at].replica else { return };
        let ways = [way, WayOut::Mark, WayOut::KeepBoth, WayOut::TakeTheirs];
        let mut tried = ways.map(|way| (way, None));
        for (way, result) in &mut tried {
            let settled = replica.resolve(path, *way, now);
            let done = settled.is_ok();
            *result = Some(settled);
            if done {
                break;
            }
        }
        let settled = tried.iter().any(|(_, result)| matches!(result, Some(Ok(()))));
        self.tell(&format!("m{at} settles {path}: {tried:?}"));
        if settled {
            self.machines[at].site.borrow_mut().decide(below);
        }
    }

    /// The user merges while programs go on and the machine may fail. What comes
    /// of it is settled in the next round.
    pub(super) fn merge(&mut self, at: usize, path: &TreePath) {
        let below = self.known_to_who_decides();
        let machine = &mut self.machines[at];
        let Some(replica) = &mut machine.replica else { return };
        let Ok(sides) = replica.sides(path, self.now) else { return };
        let merged = self.registry.borrow_mut().fresh("merged", &mut self.rng);
        let mine = machine.site.borrow().fs.contents();
        let mine = mine.into_iter().find(|data| Content::of(data) == sides.mine);
        let crash_in = (self.rng.u8(..) < 80).then(|| self.rng.u32(..20));
        let haste = std::mem::replace(&mut machine.site.borrow_mut().haste, 20);
        machine.site.borrow_mut().active = true;
        machine.site.borrow_mut().crash_in = crash_in;
        let done = replica.merge(path, sides, &merged, self.rng.bool(), self.now);
        let site = &mut *machine.site.borrow_mut();
        (site.active, site.crash_in, site.haste) = (false, None, haste);
        site.close_all();
        let replaced = self.registry.borrow().written.get(&merged) == Some(&true);
        let is_merged = |(_, inode): &(String, u64)| site.fs.data(*inode).as_ref() == Some(&merged);
        let is_there = replaced || site.fs.walk().iter().any(is_merged);
        // One of them is where its writer wanted it, the other is in it or was
        // never there.
        let gone = if is_there { mine.as_ref() } else { Some(&merged) };
        gone.into_iter().for_each(|data| self.registry.borrow_mut().excuse(data));
        // Even if it failed: it may have done so after all was said and done.
        site.decide(below);
        if done.is_err() {
            Coverage::count(&self.coverage, "merge refused");
        }
    }

    /// Whoever decides has looked at what the Volume has.
    pub(super) fn known_to_who_decides(&self) -> Vec<Rc<[u8]>> {
        let nodes = self.service.tree().walk().map(|(_, _, node)| node);
        nodes.filter_map(|node| self.service.bytes(node.content()?)).collect()
    }
}
