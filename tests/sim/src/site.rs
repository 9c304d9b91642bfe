//! A machine: its disk, and the people and programs that use it.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

use s0_tree::TreePath;

use crate::coverage::{Coverage, Shared};
use crate::fs::{Fs, Node, Who};

/// Every content that anybody wrote, anywhere.
#[derive(Default)]
pub struct Registry {
    next: u64,
    /// Whether the one who wrote it has replaced or removed it since.
    pub written: HashMap<Rc<[u8]>, bool>,
    /// What the Volume, its journal or a conflict's record holds.
    pub known: BTreeSet<Rc<[u8]>>,
    /// What was ever on the disk of a user's machine, where that matters.
    pub seen_by_users: BTreeSet<Rc<[u8]>>,
    /// What the replica was told to replace, and whether it has.
    pub forgiven: Option<(Rc<[u8]>, bool)>,
    /// The first thing that went wrong.
    pub violation: Option<String>,
}

impl Registry {
    /// A content that nobody has written before.
    pub fn fresh(&mut self, who: &str, rng: &mut fastrand::Rng) -> Rc<[u8]> {
        self.next += 1;
        let filler = if rng.u8(..) < 40 { "x".repeat(rng.usize(40..90)) } else { String::new() };
        let data: Rc<[u8]> = format!("{who} {}{filler}", self.next).into_bytes().into();
        self.written.insert(data.clone(), false);
        data
    }

    /// Its writer has replaced it, so it may go.
    pub fn excuse(&mut self, data: &Rc<[u8]>) {
        if let Some(excused) = self.written.get_mut(data) {
            *excused = true;
        }
    }

    pub fn violate(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }
}

/// A program that has a file open for writing.
struct Handle {
    inode: u64,
    left: u32,
}

/// A machine with a workspace.
pub struct Site {
    pub name: String,
    pub fs: Fs,
    pub rng: fastrand::Rng,
    pub registry: Rc<RefCell<Registry>>,
    pub coverage: Shared,
    pub crashed: bool,
    /// How many calls until the crash.
    pub crash_in: Option<u32>,
    /// Or the kind of call that it comes in.
    pub crash_at: Option<&'static str>,
    /// Whether users act between the engine's calls, in 1/256.
    pub haste: u8,
    /// Whether users work on the very files that the engine takes away.
    pub meddling: bool,
    pub active: bool,
    pub steps: u32,
    handles: Vec<Handle>,
    pub names: Vec<&'static str>,
    /// Contents that were ever at a path of this disk: what its user may know.
    pub seen: BTreeSet<Rc<[u8]>>,
    /// Documents with unsaved text, of which the replica knows.
    pub unsaved: BTreeSet<TreePath>,
    /// Who is no user: sites and the Volume's own agent, where that matters.
    pub agents: Rc<[String]>,
    /// Whether it is a user's machine, on which it matters.
    pub is_users: bool,
    /// Contents that the user has let in, or decided about otherwise.
    pub let_in: BTreeSet<Rc<[u8]>>,
    /// Contents of which no review need be told.
    pub handled: BTreeSet<Rc<[u8]>>,
}

pub const PLAIN: &[&str] = &["a", "b", "c.txt", "notes.md", "x", "y"];
pub const ODD: &[&str] = &[
    "A", "C.TXT", "\u{e9}", "e\u{301}", "CON", "nul.txt", "a.", "q?", "t\tb", "B ", "Notes.md",
    "NOTES.md",
];
const DIRS: &[&str] = &["d", "e", "d/f", "e/g", "D"];

impl Site {
    pub fn new(
        name: &str,
        fs: Fs,
        rng: fastrand::Rng,
        registry: Rc<RefCell<Registry>>,
        coverage: Shared,
        odd: bool,
    ) -> Self {
        let mut names = PLAIN.to_vec();
        if odd {
            names.extend(ODD);
        }
        Self {
            name: name.into(),
            fs,
            rng,
            registry,
            coverage,
            crashed: false,
            crash_in: None,
            crash_at: None,
            haste: 0,
            meddling: false,
            active: true,
            steps: 0,
            handles: Vec::new(),
            names,
            seen: BTreeSet::new(),
            unsaved: BTreeSet::new(),
            agents: Rc::default(),
            is_users: false,
            let_in: BTreeSet::new(),
            handled: BTreeSet::new(),
        }
    }

    /// Whether this very call is the one that never returns.
    pub fn crash_now(&mut self, kind: &'static str) -> bool {
        if self.crash_at == Some(kind) {
            self.crash_at = None;
            self.crash_in = Some(0);
        }
        match &mut self.crash_in {
            Some(0) => {
                self.crash_in = None;
                self.crashed = true;
                Coverage::count(&self.coverage, &format!("crash {kind}"));
                true
            }
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        }
    }

    /// Somebody may do something right now.
    pub fn interrupt(&mut self) {
        if self.active && self.haste > 0 && self.rng.u8(..) < self.haste {
            if self.rng.u8(..) < 60 {
                self.open_some();
            } else {
                self.act();
            }
        }
    }

    /// The engine is about to take the file at `path` away: the worst moment for
    /// a user to write to it.
    pub fn meddle(&mut self, path: &str) {
        if !self.active || !self.meddling || self.crashed || self.rng.bool() {
            return;
        }
        let Some(inode) = self.fs.find_exact(path) else { return };
        if self.fs.data(inode).is_none() {
            return;
        }
        self.steps += 1;
        self.fs.who = Who::Actor;
        if self.rng.bool() {
            // Or to open it, and to write into what was taken away.
            *self.fs.writers.entry(inode).or_default() += 1;
            self.handles.push(Handle { inode, left: 2 });
        } else {
            let data = self.fresh();
            self.fs.write(inode, &data);
            self.fs.close(inode);
        }
        self.note_seen();
        self.account();
    }

    /// A program opens a file and writes to it for a while.
    fn open_some(&mut self) -> Option<()> {
        let (_, inode) = self.existing(|node| matches!(node, Node::File(_)))?;
        *self.fs.writers.entry(inode).or_default() += 1;
        let left = self.rng.u32(1..6);
        self.handles.push(Handle { inode, left });
        Some(())
    }

    /// Looks at what was destroyed, and by whom.
    pub fn account(&mut self) {
        let destroyed = std::mem::take(&mut self.fs.destroyed);
        if destroyed.is_empty() {
            return;
        }
        let registry = &mut *self.registry.borrow_mut();
        for (data, who) in destroyed {
            match who {
                Who::Actor => registry.excuse(&data),
                Who::Engine => {
                    if let Some((forgiven, gone)) = &mut registry.forgiven
                        && *forgiven == data
                    {
                        *gone = true;
                        continue;
                    }
                    let excused = registry.written.get(&data).copied().unwrap_or(false);
                    let elsewhere = || self.fs.contents().contains(&data);
                    if !excused && !registry.known.contains(&data) && !elsewhere() {
                        let text = String::from_utf8_lossy(&data).into_owned();
                        registry.violate(format!("{}: the replica destroyed {text:?}", self.name));
                    }
                }
            }
        }
    }

    pub fn note_seen(&mut self) {
        for (_, inode) in self.fs.walk() {
            if let Some(data) = self.fs.data(inode) {
                if self.is_users {
                    self.registry.borrow_mut().seen_by_users.insert(data.clone());
                }
                self.seen.insert(data);
            }
        }
    }

    /// The user has looked at these and decided something.
    pub fn decide(&mut self, about: Vec<Rc<[u8]>>) {
        self.let_in.extend(about.iter().cloned());
        self.handled.extend(about.iter().cloned());
        self.seen.extend(about);
    }

    /// The replica is about to put this where something would run, or under unsaved
    /// text.
    pub fn look_at_put(&mut self, path: &str, data: Option<&Rc<[u8]>>, guarded: &str) {
        // What is kept beside goes only where nothing is.
        let kept = path.contains("s0-kept");
        if !kept && self.unsaved.iter().any(|document| document.as_str() == path) {
            let what = format!("{}: {path} was written under unsaved text", self.name);
            self.registry.borrow_mut().violate(what);
        }
        let Some(data) = data.filter(|_| self.is_users) else { return };
        if path.split('/').any(|name| name == guarded)
            && self.agents.iter().any(|agent| data.starts_with(format!("{agent} ").as_bytes()))
            && !self.let_in.contains(data)
            && !self.registry.borrow().seen_by_users.contains(data)
        {
            let text = String::from_utf8_lossy(data).into_owned();
            let what = format!("{}: {text:?} came to {path}, which is guarded", self.name);
            self.registry.borrow_mut().violate(what);
        }
    }

    /// The editor saves a document.
    pub fn save(&mut self, path: &str) {
        self.fs.who = Who::Actor;
        let Some(inode) = self.fs.find(path).filter(|inode| self.fs.data(*inode).is_some()) else {
            return;
        };
        self.steps += 1;
        let data = self.fresh();
        self.fs.write(inode, &data);
        self.fs.close(inode);
        self.note_seen();
        self.account();
    }

    fn fresh(&mut self) -> Rc<[u8]> {
        let name = self.name.clone();
        self.registry.borrow_mut().fresh(&name, &mut self.rng)
    }

    fn some_path(&mut self) -> String {
        let name = self.names[self.rng.usize(..self.names.len())];
        let dirs: Vec<String> = self
            .fs
            .walk()
            .into_iter()
            .filter(|(_, inode)| matches!(self.fs.inodes[inode].node, Node::Dir(_)))
            .map(|(path, _)| path)
            .collect();
        if dirs.is_empty() || self.rng.u8(..) < 100 {
            return name.to_owned();
        }
        format!("{}/{name}", dirs[self.rng.usize(..dirs.len())])
    }

    fn existing(&mut self, want: impl Fn(&Node) -> bool) -> Option<(String, u64)> {
        let all: Vec<_> = self
            .fs
            .walk()
            .into_iter()
            .filter(|(_, inode)| want(&self.fs.inodes[inode].node))
            .collect();
        if all.is_empty() { None } else { Some(all[self.rng.usize(..all.len())].clone()) }
    }

    /// One thing that a person or a program does. Failures are theirs.
    pub fn act(&mut self) {
        self.steps += 1;
        self.fs.who = Who::Actor;
        self.note_seen();
        let _ = self.act_once();
        self.note_seen();
        self.account();
    }

    fn act_once(&mut self) -> Option<()> {
        let is_file = |node: &Node| matches!(node, Node::File(_));
        let is_dir = |node: &Node| matches!(node, Node::Dir(_));
        match self.rng.u8(..100) {
            // A plain save: opened, emptied, written, closed.
            0..=17 => {
                let path = self.some_path();
                let data = self.fresh();
                match self.fs.find(&path) {
                    Some(inode) if is_file(&self.fs.inodes[&inode].node) => {
                        self.fs.write(inode, b"");
                        self.fs.write(inode, &data);
                        self.fs.close(inode);
                    }
                    Some(_) => self.registry.borrow_mut().excuse(&data),
                    None => {
                        let mode = if self.rng.bool() { 0o644 } else { 0o755 };
                        match self.fs.create(&path, &data, mode) {
                            Ok(inode) => self.fs.close(inode),
                            Err(_) => self.registry.borrow_mut().excuse(&data),
                        }
                    }
                }
            }
            // An atomic save: a new file, renamed over the old one.
            18..=31 => {
                let (path, _) = self.existing(is_file)?;
                let data = self.fresh();
                let temp = format!("{path}.tmp{}", self.rng.u8(..4));
                match self.fs.create(&temp, &data, 0o644) {
                    Ok(inode) => self.fs.close(inode),
                    Err(_) => {
                        self.registry.borrow_mut().excuse(&data);
                        return None;
                    }
                }
                if self.fs.rename(&temp, &path, true).is_err() {
                    let _ = self.fs.unlink(&temp);
                }
            }
            // Vim: the old one becomes a backup, a new one is written.
            32..=38 => {
                let (path, _) = self.existing(is_file)?;
                let backup = format!("{path}~");
                self.fs.rename(&path, &backup, true).ok()?;
                let data = self.fresh();
                match self.fs.create(&path, &data, 0o644) {
                    Ok(inode) => self.fs.close(inode),
                    Err(_) => self.registry.borrow_mut().excuse(&data),
                }
                if self.rng.u8(..) < 200 {
                    self.fs.unlink(&backup).ok()?;
                }
            }
            39..=44 => self.open_some()?,
            45..=54 => self.write_on()?,
            55..=60 => {
                let (path, _) = self.existing(|node| !matches!(node, Node::Dir(_)))?;
                self.fs.unlink(&path).ok()?;
            }
            61..=66 => {
                let (from, _) = self.existing(is_file)?;
                let to = self.some_path();
                self.fs.rename(&from, &to, self.rng.bool()).ok()?;
            }
            67..=72 => {
                let (from, _) = self.existing(is_dir)?;
                let to = self.some_dir();
                self.fs.rename(&from, &to, false).ok()?;
            }
            73..=80 => {
                let path = self.some_dir();
                self.fs.mkdir(&path, 0o755).ok()?;
            }
            81..=83 => {
                let (path, _) = self.existing(is_dir)?;
                self.fs.rmdir(&path).ok()?;
            }
            // A tree is removed.
            84..=86 => {
                let (path, _) = self.existing(is_dir)?;
                self.remove_tree(&path);
            }
            87..=89 => {
                let (path, inode) = self.existing(|node| !matches!(node, Node::Link(_)))?;
                let modes: &[u32] = if is_dir(&self.fs.inodes[&inode].node) {
                    &[0o755, 0o700]
                } else {
                    &[0o644, 0o755]
                };
                self.fs.chmod(&path, modes[self.rng.usize(..modes.len())]).ok()?;
            }
            90..=92 => {
                let path = self.some_path();
                self.fs.symlink(&path, ["a", "c.txt", "d"][self.rng.usize(..3)]).ok()?;
            }
            93 => {
                let (path, _) = self.existing(is_file)?;
                self.fs.touch(&path);
            }
            // A file becomes a directory, or the other way round.
            94..=95 => {
                let (path, inode) = self.existing(|_| true)?;
                if is_dir(&self.fs.inodes[&inode].node) {
                    self.remove_tree(&path);
                    let data = self.fresh();
                    if self.fs.create(&path, &data, 0o644).is_err() {
                        self.registry.borrow_mut().excuse(&data);
                    }
                } else {
                    self.fs.unlink(&path).ok()?;
                    self.fs.mkdir(&path, 0o755).ok()?;
                }
            }
            // A checkout: several files at once.
            _ => {
                for _ in 0..self.rng.u32(2..6) {
                    let path = self.some_path();
                    let _ = self.fs.unlink(&path);
                    if self.rng.u8(..) < 200 {
                        let data = self.fresh();
                        match self.fs.create(&path, &data, 0o644) {
                            Ok(inode) => self.fs.close(inode),
                            Err(_) => self.registry.borrow_mut().excuse(&data),
                        }
                    }
                }
            }
        }
        Some(())
    }

    fn some_dir(&mut self) -> String {
        DIRS[self.rng.usize(..DIRS.len())].to_owned()
    }

    fn remove_tree(&mut self, path: &str) {
        let below: Vec<_> = self
            .fs
            .walk()
            .into_iter()
            .filter(|(other, _)| other == path || other.starts_with(&format!("{path}/")))
            .collect();
        for (path, inode) in below.into_iter().rev() {
            let _ = match self.fs.inodes.get(&inode).map(|inode| &inode.node) {
                Some(Node::Dir(_)) => self.fs.rmdir(&path),
                Some(_) => self.fs.unlink(&path),
                None => Ok(()),
            };
        }
    }

    /// One of the programs with an open file writes, or closes it.
    fn write_on(&mut self) -> Option<()> {
        if self.handles.is_empty() {
            return None;
        }
        let at = self.rng.usize(..self.handles.len());
        let (inode, left) = (self.handles[at].inode, self.handles[at].left);
        if left > 0 {
            self.handles[at].left -= 1;
            let data = self.fresh();
            if self.fs.path_of(inode).is_some_and(|(_, path)| path.starts_with(".s0/")) {
                Coverage::count(&self.coverage, "late write");
            }
            self.fs.write(inode, &data);
            return Some(());
        }
        self.close_handle(at);
        Some(())
    }

    fn close_handle(&mut self, at: usize) {
        let Handle { inode, .. } = self.handles.swap_remove(at);
        if let Some(count) = self.fs.writers.get_mut(&inode) {
            *count -= 1;
            if *count == 0 {
                self.fs.writers.remove(&inode);
            }
        }
        self.fs.close(inode);
    }

    /// All programs close what they have open.
    pub fn close_all(&mut self) {
        self.fs.who = Who::Actor;
        while !self.handles.is_empty() {
            self.close_handle(0);
        }
        self.account();
    }

    /// The machine has been switched off: no program runs any more.
    pub fn forget_handles(&mut self) {
        self.handles.clear();
    }
}
