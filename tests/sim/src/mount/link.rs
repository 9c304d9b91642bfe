//! The mount's side of its connection, as `link.rs` of `server/mount` has it: changes go out in the
//! order in which they were asked for, and what is under way is sent again on a new connection.

use std::collections::VecDeque;
use std::rc::Rc;

use s0_api::mounts::{IN_FLIGHT, OWN_LEASE_MS, Said, Told};
use s0_api::sync::{Submission, SubmitError};
use s0_mount::simulated::{AGAIN, INVALID};
use s0_tree::{Seq, TreePath};

use super::{BEAT, Done, Mount, Order, SILENT, Sent, Up, Wanted};

/// The connection is of no use any more.
#[derive(Debug)]
pub struct Broken;

impl Mount {
    pub(super) fn say(&mut self, said: Said) {
        self.orders.push_back(Order::Say(said));
    }

    pub(super) fn id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    fn keep_names(&mut self) {
        self.alone = false;
        for path in self.files.made() {
            self.ask_to_keep(path);
        }
    }

    /// Asks that a name be kept. Gives the number of the answer.
    pub(super) fn ask_to_keep(&mut self, path: TreePath) -> u64 {
        let id = self.id();
        self.asked.insert(id, path.clone());
        self.say(Said::Reserve { id, path });
        id
    }

    fn kept(&mut self, id: u64, granted: bool) {
        let Some(path) = self.asked.remove(&id) else { return };
        if self.reserving.contains(&id) {
            self.reserved.insert(id, granted);
            return;
        }
        let again = self.asked.values().any(|other| *other == path);
        if granted && !again && !self.files.made().contains(&path) {
            self.counted.push("mount gave back a name that it asked for");
            self.say(Said::Release { path });
        }
    }

    /// Directories were moved or removed: what was made in them has other names to be kept.
    pub(super) fn move_names(&mut self, before: &[TreePath]) {
        if self.alone {
            return;
        }
        let after = self.files.made();
        for path in before.iter().filter(|path| !after.contains(path)) {
            self.say(Said::Release { path: path.clone() });
        }
        for path in after.into_iter().filter(|path| !before.contains(path)) {
            self.ask_to_keep(path);
        }
    }

    /// The connection broke.
    pub fn disconnected(&mut self) {
        self.welcomed = false;
    }

    /// A connection is asked for: after which entry.
    pub fn connecting(&mut self) -> Seq {
        self.connected = self.now;
        self.files.tree().head()
    }

    /// Whether the service has been silent for so long that the connection is broken.
    pub fn is_deaf(&self) -> bool {
        let last = self.answered.map_or(self.connected, |heard| heard.max(self.connected));
        let patience = if self.welcomed { SILENT } else { OWN_LEASE_MS };
        self.now - last > patience
    }

    /// What goes out now.
    pub fn send(&mut self) -> Vec<Up> {
        let mut out = Vec::new();
        while let Some(order) = self.orders.pop_front() {
            match order {
                Order::Change(wanted) => self.waiting.push_back(*wanted),
                Order::Say(said) if self.welcomed => out.push(Up::Say(said)),
                // What is held and waited for is said again; what is given back is not.
                Order::Say(said @ Said::Release { .. }) => self.unsaid.push(said),
                Order::Say(_) => {}
            }
        }
        if !self.welcomed {
            return out;
        }
        out.extend(self.send_next());
        if self.told_kernel < self.files.tree().head() && self.rng.u8(..) < 200 {
            self.told_kernel = self.files.tree().head();
        }
        if self.now >= self.beat_due || self.said_seen < self.told_kernel {
            self.beat_due = self.now + BEAT;
            self.said_seen = self.told_kernel;
            self.beat.0 += 1;
            self.beat.1 = self.beat.1.or(Some((self.beat.0, self.now)));
            out.push(Up::Say(Said::Seen { seq: self.told_kernel, beat: self.beat.0 }));
        }
        out
    }

    fn send_next(&mut self) -> Option<Up> {
        let last = self.last?;
        if self.waiting.is_empty() || self.under_way.len() >= IN_FLIGHT {
            return None;
        }
        if !self.under_way.is_empty() && self.waiting.iter().all(|it| it.taken.is_none()) {
            return None;
        }
        let count = self.rng.usize(1..=self.waiting.len());
        let wanted: Vec<Wanted> = self.waiting.drain(..count).collect();
        let changes = wanted.iter().map(|wanted| wanted.change.clone()).collect();
        let sent = Sent {
            submission: Submission { number: last + 1, changes },
            inline: wanted.iter().filter_map(|wanted| wanted.inline.clone()).collect(),
            keeps: wanted.iter().map(|wanted| wanted.keeps).collect(),
        };
        self.last = Some(last + 1);
        self.under_way.push_back((last + 1, sent.clone(), wanted));
        Some(Up::Submit(sent))
    }

    /// Takes what the service tells; gives what goes out at once.
    pub fn hear(&mut self, told: Told, bytes: Option<Rc<[u8]>>) -> Result<Vec<Up>, Broken> {
        match told {
            Told::Welcome { last_number } => {
                self.last = Some(self.last.unwrap_or(0).max(last_number));
                self.beat.1 = None;
                // What was asked on a connection that broke is not answered.
                let waits = &self.reserving;
                self.asked.retain(|id, _| waits.contains(id));
                self.keep_names();
                self.welcomed = true;
                let unsaid = std::mem::take(&mut self.unsaid).into_iter().map(Up::Say);
                let again = self.under_way.iter().map(|(_, sent, _)| Up::Submit(sent.clone()));
                let out: Vec<Up> = unsaid.chain(again).collect();
                if !self.under_way.is_empty() {
                    self.counted.push("mount sends again");
                }
                return Ok(out);
            }
            Told::Head { policy, quota, .. } => {
                self.files.set_terms(policy, quota);
                self.has_terms = true;
            }
            Told::Entry { entry, .. } => self.fold(&entry, bytes),
            Told::Taken { number } => {
                let of_it = self.under_way.iter_mut().find(|(it, ..)| *it == number);
                for wanted in of_it.into_iter().flat_map(|(.., wanted)| wanted) {
                    if let Some(taken) = wanted.taken.take() {
                        taken.set(Some(number));
                    }
                }
            }
            Told::Answer { number, head, outcomes, settled } => {
                if settled {
                    self.settled = self.settled.max(head);
                }
                for (wanted, outcome) in self.answered(number)?.into_iter().zip(outcomes) {
                    wanted.done.replace(Some(Ok(Done { outcome, head })));
                }
            }
            Told::Refused { number, error } => {
                if let SubmitError::Fenced { .. } | SubmitError::UnknownReplica = error {
                    return Err(Broken);
                }
                let mut again = VecDeque::new();
                for (at, wanted) in self.answered(number)?.into_iter().enumerate() {
                    match &error {
                        // A kernel sees to it that nothing is exchanged with what is in it.
                        SubmitError::Invalid { index, .. } if *index == at => {
                            self.counted.push("mount asked what is wrong anywhere");
                            wanted.done.replace(Some(Err(INVALID)));
                        }
                        SubmitError::Invalid { .. } => again.push_back(wanted),
                        _ => drop(wanted.done.replace(Some(Err(AGAIN)))),
                    }
                }
                again.append(&mut self.waiting);
                self.waiting = again;
            }
            Told::Alone => self.alone = true,
            Told::Company => {
                self.keep_names();
                self.say(Said::Company);
            }
            Told::Settled { seq } => self.settled = self.settled.max(seq),
            Told::Heard { beat, behind } => {
                if let Some((said, at)) = self.beat.1
                    && beat >= said
                {
                    self.answered = Some(at);
                    if behind && self.heard.is_some() {
                        self.counted.push("mount behind");
                    } else {
                        self.heard = Some(at);
                    }
                    self.beat.1 = None;
                }
            }
            Told::Reserved { id, granted } => self.kept(id, granted),
            _ => {}
        }
        Ok(Vec::new())
    }

    fn answered(&mut self, number: u64) -> Result<Vec<Wanted>, Broken> {
        let at = self.under_way.iter().position(|(it, ..)| *it == number).ok_or(Broken)?;
        self.under_way.remove(at).map(|(.., wanted)| wanted).ok_or(Broken)
    }
}
