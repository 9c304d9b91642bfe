//! Someone sits at an editor: documents with unsaved text, writes that are held, a
//! review that takes back what an agent wrote.
//!
//! Its randomness is a stream of its own, so that the worlds without it stay as they
//! were.

use std::collections::BTreeSet;
use std::rc::Rc;

use s0_replica::engine::{Event, HoldEnd, LocalWrite, ResolveError};
use s0_replica::state::What;
use s0_tree::{Content, TreePath};

use super::World;
use crate::fs::Node;

/// The name of files that would run on the user's machine.
pub(crate) const GUARDED: &str = "grd.rc";

/// The stream that says whether there is a desk in a world, and what is done there.
pub(super) fn desk(seed: u64) -> Option<fastrand::Rng> {
    let mut rng = fastrand::Rng::with_seed(seed ^ 0x0064_6573_6b00_0000);
    (rng.u8(..) < 90).then_some(rng)
}

impl World {
    /// One thing that is done at an editor, on some machine.
    pub(super) fn sit_at_editor(&mut self) {
        let Some(mut rng) = self.desk.take() else { return };
        let at = rng.usize(..self.machines.len());
        if self.machines[at].replica.is_some() && !self.machines[at].site.borrow().crashed {
            match rng.u8(..100) {
                0..=24 => self.type_something(at, &mut rng),
                25..=39 => self.save_or_give_up(at, &mut rng),
                40..=54 => self.settle_some_held(at, &mut rng),
                55..=84 => self.write_for_the_user(at, &mut rng),
                _ => self.review(at),
            }
        }
        self.desk = Some(rng);
    }

    fn files(&self, at: usize) -> Vec<(TreePath, Rc<[u8]>)> {
        let site = self.machines[at].site.borrow();
        let files =
            site.fs.walk().into_iter().filter_map(|(path, inode)| {
                Some((TreePath::new(&path).ok()?, site.fs.data(inode)?))
            });
        files.filter(|(path, _)| !path.as_str().starts_with(".s0")).collect()
    }

    fn tell_unsaved(&mut self, at: usize, documents: BTreeSet<TreePath>) {
        // What was known before is free to come once this is, not a moment earlier.
        self.machines[at].site.borrow_mut().unsaved.retain(|path| documents.contains(path));
        self.deliver(at, Event::Unsaved(documents.clone()));
        if self.machines[at].replica.is_some() {
            self.machines[at].site.borrow_mut().unsaved = documents;
        }
    }

    fn type_something(&mut self, at: usize, rng: &mut fastrand::Rng) {
        let files = self.files(at);
        if files.is_empty() {
            return;
        }
        let mut documents = self.machines[at].site.borrow().unsaved.clone();
        // Whoever types into what was taken has seen it come: that is a text of its own.
        self.tell_unsaved(at, documents.clone());
        documents.insert(files[rng.usize(..files.len())].0.clone());
        self.count("unsaved");
        self.tell_unsaved(at, documents);
    }

    fn save_or_give_up(&mut self, at: usize, rng: &mut fastrand::Rng) {
        let mut documents = self.machines[at].site.borrow().unsaved.clone();
        let Some(path) = documents.iter().nth(rng.usize(..documents.len().max(1))).cloned() else {
            return;
        };
        if rng.bool() {
            self.machines[at].site.borrow_mut().save(path.as_str());
        }
        documents.remove(&path);
        self.tell_unsaved(at, documents);
    }

    fn settle_some_held(&mut self, at: usize, rng: &mut fastrand::Rng) {
        let Some(replica) = &self.machines[at].replica else { return };
        let held: Vec<TreePath> = replica.held().into_keys().collect();
        if held.is_empty() {
            return;
        }
        let path = held[rng.usize(..held.len())].clone();
        let end = if rng.bool() { HoldEnd::Take } else { HoldEnd::Discard };
        self.settle_hold(at, &path, end);
    }

    fn settle_hold(&mut self, at: usize, path: &TreePath, end: HoldEnd) {
        self.tell(&format!("m{at} settles what is held at {path}: {end:?}"));
        self.count(match end {
            HoldEnd::Take => "held taken",
            HoldEnd::Discard => "held discarded",
        });
        let known = self.known_to_who_decides();
        let machine = &mut self.machines[at];
        let Some(replica) = &mut machine.replica else { return };
        let held = replica.held_content(path).and_then(|content| self.service.bytes(content));
        let settled = replica.settle_held(path, end, self.now);
        let mut site = machine.site.borrow_mut();
        if settled.is_ok() && end == HoldEnd::Take {
            // It comes now, unsaved text or not.
            site.unsaved.remove(path);
            site.let_in.extend(held.clone());
        }
        // What is held may be gone from the Volume by now.
        site.seen.extend(known.into_iter().chain(held));
    }

    /// Whatever is held at the end of a run is decided about. Says whether there was any.
    pub(super) fn leave_the_desk(&mut self) -> bool {
        let mut any = false;
        for at in 0..self.machines.len() {
            if !self.machines[at].site.borrow().unsaved.is_empty() {
                self.tell_unsaved(at, BTreeSet::new());
                any = true;
            }
            let Some(replica) = &self.machines[at].replica else { continue };
            for path in replica.held().into_keys().collect::<Vec<_>>() {
                let take = self.desk.as_mut().is_some_and(fastrand::Rng::bool);
                let end = if take { HoldEnd::Take } else { HoldEnd::Discard };
                self.settle_hold(at, &path, end);
                any = true;
            }
        }
        any
    }

    /// A review writes in the user's name, sometimes knowing an older state.
    fn write_for_the_user(&mut self, at: usize, rng: &mut fastrand::Rng) {
        let files = self.files(at);
        if files.is_empty() {
            return;
        }
        let (path, old) = files[rng.usize(..files.len())].clone();
        let is_current = rng.u8(..) < 200;
        let expected = What::File(if is_current {
            Content::of(&old)
        } else {
            Content::of(b"what was there before")
        });
        let fresh = self.registry.borrow_mut().fresh("review", rng);
        // It is nobody's work until it is where it shall be.
        self.registry.borrow_mut().excuse(&fresh);
        let write = match rng.u8(..10) {
            0..=5 => LocalWrite::File { bytes: fresh.to_vec(), mode: 0o644 },
            6 | 7 => LocalWrite::Remove,
            8 => LocalWrite::Mode(0o755),
            _ => LocalWrite::Rename(
                TreePath::new(&format!("moved{}", rng.u8(..))).unwrap_or_default(),
            ),
        };
        let replaces = matches!(write, LocalWrite::File { .. } | LocalWrite::Remove);
        if replaces {
            self.registry.borrow_mut().forgiven = Some((old.clone(), false));
        }
        self.tell(&format!("m{at} writes for the user at {path}: {write:?}"));
        let machine = &mut self.machines[at];
        let Some(replica) = &mut machine.replica else { return };
        let is_unsaved = machine.site.borrow_mut().unsaved.remove(&path);
        let done = replica.write_local(&path, Some(&expected), write, self.now);
        let mut site = machine.site.borrow_mut();
        if is_unsaved {
            site.unsaved.insert(path.clone());
        }
        site.account();
        let files: Vec<_> =
            site.fs.walk().into_iter().filter_map(|(_, inode)| site.fs.data(inode)).collect();
        let (is_there, old_is_there) = (files.contains(&fresh), files.contains(&old));
        drop(site);
        let registry = &mut *self.registry.borrow_mut();
        if is_there && done.is_ok() {
            registry.written.insert(fresh, false);
        }
        let gone = registry.forgiven.take().is_some_and(|(_, gone)| gone);
        match &done {
            Ok(()) if !is_current => {
                registry.violate(format!("{path}: written over what was not expected"));
            }
            Err(ResolveError::Changed(_) | ResolveError::NotYet(_)) if gone => {
                registry.violate(format!("{path}: a refused write has taken it away"));
            }
            Err(ResolveError::Changed(_) | ResolveError::NotYet(_)) => {}
            // What was displaced goes when no program has it open any more. Who fails
            // on the way has done it, or has not.
            _ if replaces && !old_is_there => registry.excuse(&old),
            _ => {}
        }
        self.count(match done {
            Ok(()) => "written for the user",
            Err(_) => "write for the user refused",
        });
    }

    /// The review hears what was applied, and notes which contents it was told of.
    pub(super) fn review(&mut self, at: usize) {
        let machine = &mut self.machines[at];
        let Some(replica) = &mut machine.replica else { return };
        let applied: Vec<u64> = replica.state().applied.keys().copied().collect();
        let told: Vec<_> = replica.state().applied.values().cloned().collect();
        if replica.heard(&applied).is_err() {
            return self.stop(at);
        }
        for applied in told {
            if let Some((What::File(content), _)) = applied.after {
                self.count("reviewed");
                self.machines[at].told.insert(content.id);
            }
        }
    }

    /// What an agent wrote and lies on a user's disk is in the review, or its user did
    /// something about it.
    pub(super) fn check_review(&mut self) -> Result<(), String> {
        if self.desk.is_none() {
            return Ok(());
        }
        let by_users = self
            .service
            .journal
            .iter()
            .filter(|entry| entry.actor.replica.is_some() && entry.actor.sandbox.is_none());
        let by_users: BTreeSet<_> =
            by_users.filter_map(|entry| Some(entry.content()?.id)).collect();
        for at in 0..self.machines.len() {
            self.review(at);
            let machine = &self.machines[at];
            if machine.sandbox {
                continue;
            }
            let site = machine.site.borrow();
            for (path, inode) in site.fs.walk() {
                let Node::File(data) = &site.fs.inodes[&inode].node else { continue };
                let text = String::from_utf8_lossy(data);
                let content = Content::of(data).id;
                let told = machine.told.contains(&content) || by_users.contains(&content);
                // What the user moved out of the way in the moment of its coming is known.
                let ignored = path.split('/').any(|name| name.starts_with("ign"));
                if !ignored && self.is_by_agent(&text) && !told && !site.handled.contains(data) {
                    return Err(format!(
                        "{}: no review was told of {text:?} at {path}",
                        machine.id
                    ));
                }
            }
        }
        Ok(())
    }

    fn is_by_agent(&self, text: &str) -> bool {
        let who = text.split(' ').next().unwrap_or_default();
        let machine = who.strip_prefix('m').and_then(|number| number.parse::<usize>().ok());
        who == "agent" || machine.is_some_and(|at| self.machines.get(at).is_some_and(|m| m.sandbox))
    }
}
