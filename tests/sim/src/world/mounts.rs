//! Mounts beside the machines: sandboxes whose programs see the Volume as a directory. In some
//! of the worlds; their randomness is a stream of its own, so that the others stay as they were.
//!
//! # What is checked
//!
//! - What `close` or `fsync` has confirmed is in the journal or in a conflict's record.
//! - What is appended stands behind what was there, once.
//! - A mount replaces nothing of a developer's that its programs never saw.
//! - When `close` has returned, every other mount that answers shows it.
//! - In the end every mount shows exactly the tree.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use s0_api::mounts::{LEASE_MS, Said};
use s0_mount::simulated::ROOT;
use s0_tree::{Kind, RenameHow, TreePath};

use super::World;
use super::connections::{Connection, Down, Stage};
use crate::lines;
use crate::mount::{Program, Running, Up};

/// The pause between attempts to connect, in milliseconds.
const AGAIN: u64 = 250;
/// The Volume's directories, as machines make them, too.
const DIRS: &[&str] = &["d", "e", "d/f", "e/g"];

pub(super) struct Mounts {
    pub(super) rng: fastrand::Rng,
    pub(super) connections: Vec<Connection>,
    pub(super) known: s0_service::simulated::Mounts,
    points: Vec<Point>,
    sessions: u64,
    ids: u64,
    /// Nothing new is begun, and nothing breaks.
    resting: bool,
    /// When the service began that runs now.
    pub(super) service_began: u64,
}

/// Where something is mounted, most of the time.
#[derive(Default)]
struct Point {
    running: Option<Running>,
    /// The epoch that it knows.
    epoch: String,
    connection: Option<u64>,
    /// When it is mounted, or connected, the next time.
    again: u64,
    /// It is to be unmounted.
    ending: bool,
}

/// The mounts of a world, if it has any.
pub(super) fn mounts(seed: u64) -> Option<Mounts> {
    let mut rng = fastrand::Rng::with_seed(seed ^ 0x006d_6f75_6e74_0000);
    let any = rng.u8(..) < 110;
    let points = (0..rng.usize(1..4)).map(|_| Point::default()).collect();
    any.then(|| Mounts {
        rng,
        connections: Vec::new(),
        known: s0_service::simulated::Mounts::default(),
        points,
        sessions: 0,
        ids: 0,
        resting: false,
        service_began: 0,
    })
}

impl Mounts {
    fn connection(&mut self, id: u64) -> Option<&mut Connection> {
        self.connections.iter_mut().find(|connection| connection.id == id)
    }

    fn of_point(&mut self, at: usize) -> Option<&mut Connection> {
        let id = self.points[at].connection?;
        self.connection(id)
    }

    /// The mount hangs up: of what it sent last the service may not hear.
    fn hang_up(&mut self, at: usize, now: u64) {
        let Some(id) = self.points[at].connection.take() else { return };
        let Some(index) = self.connections.iter().position(|it| it.id == id) else { return };
        let arrive = self.rng.usize(..=self.connections[index].up.len());
        let connection = &mut self.connections[index];
        connection.heard = false;
        connection.down.clear();
        connection.up.truncate(arrive);
        let point = &mut self.points[at];
        point.again = now + AGAIN;
        if let Some(running) = &point.running {
            running.mount.borrow_mut().disconnected();
        }
    }

    /// Some path, of what is there or of what is not.
    fn path(&mut self, names: &[&str], tree: &s0_tree::Tree) -> Vec<String> {
        let all: Vec<TreePath> = tree.walk().map(|(path, ..)| path).collect();
        let text = if !all.is_empty() && self.rng.u8(..) < 160 {
            all[self.rng.usize(..all.len())].to_string()
        } else {
            let name = names[self.rng.usize(..names.len())];
            match self.rng.u8(..3) {
                0 => format!("{}/{name}", DIRS[self.rng.usize(..DIRS.len())]),
                _ => name.to_owned(),
            }
        };
        text.split('/').map(str::to_owned).collect()
    }

    fn directory(&mut self) -> Vec<String> {
        let text = DIRS[self.rng.usize(..DIRS.len())];
        text.split('/').map(str::to_owned).collect()
    }

    fn program(&mut self, names: &[&str], tree: &s0_tree::Tree) -> Program {
        let path = self.path(names, tree);
        match self.rng.u8(..100) {
            0..=24 => Program::Save(path, self.rng.u8(..) < 60, self.rng.u8(..) < 60),
            25..=54 => Program::Append(path, self.rng.u32(1..4), self.rng.u8(..) < 60),
            55..=64 => Program::Replace(path),
            65..=67 => Program::Empty(path),
            68..=73 => Program::MakeDirectory(self.directory()),
            74 => Program::MakeLink(path),
            75..=81 => Program::Remove(path, false),
            82..=83 => Program::Remove(self.directory(), true),
            84..=93 => {
                let to = if self.rng.bool() { self.path(names, tree) } else { self.directory() };
                // What a replica does with a directory that gets a name which it ignores is no
                // matter of mounts.
                if path.iter().chain(&to).any(|name| name.starts_with("ign")) {
                    return Program::Append(path, 1, false);
                }
                let ways = [RenameHow::Replace, RenameHow::NoReplace, RenameHow::Exchange];
                Program::Rename(path, to, ways[self.rng.usize(..3)])
            }
            94..=96 => Program::Link(path, self.path(names, tree)),
            _ => Program::Mode(path, if self.rng.bool() { 0o755 } else { 0o600 }),
        }
    }
}

impl World {
    /// What happens at the mounts in one step of the world.
    pub(super) fn use_mounts(&mut self) {
        let Some(mut mounts) = self.mounts.take() else { return };
        for _ in 0..mounts.rng.u32(2..8) {
            let at = mounts.rng.usize(..mounts.points.len());
            match mounts.rng.u8(..) {
                0..=29 => self.begin_program(&mut mounts, at),
                30..=139 => self.run_mount(&mut mounts, at),
                140..=254 => self.serve_connections(&mut mounts),
                255 if mounts.rng.bool() => self.mount_trouble(&mut mounts, at),
                255 => {}
            }
        }
        self.mounts = Some(mounts);
    }

    /// The same at the end of a run, when everything is done by everybody.
    pub(super) fn rest_mounts(&mut self) {
        let Some(mut mounts) = self.mounts.take() else { return };
        mounts.resting = true;
        for at in 0..mounts.points.len() {
            self.run_mount(&mut mounts, at);
        }
        self.serve_connections(&mut mounts);
        self.mounts = Some(mounts);
    }

    /// Whether nothing is left to do, or what is.
    pub(super) fn mounts_are_still(&self) -> Result<(), String> {
        let head = self.service.head();
        for point in self.mounts.iter().flat_map(|mounts| &mounts.points) {
            let Some(running) = &point.running else { return Err("it is not mounted".into()) };
            let mount = running.mount.borrow();
            if running.busy() > 0 || !mount.is_still(head) {
                return Err(format!("{} tasks of {}", running.busy(), mount.in_words()));
            }
        }
        Ok(())
    }

    fn begin_program(&mut self, mounts: &mut Mounts, at: usize) {
        let program = mounts.program(&self.names, self.service.tree());
        let Point { running: Some(running), ending: false, .. } = &mut mounts.points[at] else {
            return;
        };
        if running.busy() < 4 && running.mount.borrow().is_mounted() {
            let mount = running.mount.borrow();
            self.tell(&format!("{} {program:?}", mount.session));
            drop(mount);
            running.start(program);
        }
    }

    /// Whoever looks at a mount's point finds it mounted, by and by.
    fn run_mount(&mut self, mounts: &mut Mounts, at: usize) {
        if mounts.points[at].running.is_none() {
            if self.now < mounts.points[at].again {
                return;
            }
            self.start_mount(mounts, at);
        }
        self.hear_service(mounts, at);
        let now = self.now;
        let (resting, point) = (mounts.resting, &mut mounts.points[at]);
        let Some(running) = &mut point.running else { return };
        running.mount.borrow_mut().now = now;
        if point.connection.is_none() && now >= point.again {
            mounts.ids += 1;
            let after = running.mount.borrow_mut().connecting();
            let due = now + mounts.rng.u64(..30);
            let stage = Stage::Asked { after, epoch: point.epoch.clone(), due };
            let mount = running.mount.borrow();
            let (session, known) = (mount.session.clone(), mount.known.clone());
            mounts.connections.push(Connection::new(mounts.ids, session, known, stage));
            point.connection = Some(mounts.ids);
        }
        running.run(now);
        let mut sent = running.mount.borrow_mut().send();
        let ends = point.ending && !resting && {
            let mount = running.mount.borrow();
            running.busy() == 0 && sent.is_empty() && mount.is_still(mount.files.tree().head())
        };
        if ends {
            sent.push(Up::Say(Said::Bye));
        }
        let (closed, counted, said, violation) = {
            let mount = &mut *running.mount.borrow_mut();
            let counted = std::mem::take(&mut mount.counted);
            let said = std::mem::take(&mut mount.said);
            (std::mem::take(&mut mount.closed), counted, said, mount.violation.take())
        };
        let deaf = running.mount.borrow().is_deaf();
        for what in counted {
            self.count(what);
        }
        for what in said {
            self.tell(&what);
        }
        if let Some(violation) = violation {
            self.registry.borrow_mut().violate(violation);
        }
        if let Some(id) = point.connection
            && let Some(connection) = mounts.connections.iter_mut().find(|it| it.id == id)
        {
            for up in sent {
                let due = Connection::due(&connection.up, now, &mut mounts.rng);
                connection.up.push_back((due, up));
            }
        }
        self.look_elsewhere(mounts, at, &closed);
        if ends {
            self.count("unmounted");
            self.end_mount(mounts, at, true);
        } else if deaf {
            self.count("mount gives its connection up");
            mounts.hang_up(at, now);
        }
    }

    fn start_mount(&mut self, mounts: &mut Mounts, at: usize) {
        mounts.sessions += 1;
        let session: Arc<str> = format!("mnt_{}", mounts.sessions).into();
        self.tell(&format!("{session} is mounted"));
        let rng = fastrand::Rng::with_seed(mounts.rng.u64(..));
        let tree = self.service.tree().clone();
        let (lines, contents) = (self.lines.clone(), &self.service.contents);
        let running = Running::new(session, tree, contents, lines, rng, self.now);
        let epoch = self.service.epoch().to_owned();
        mounts.points[at] = Point { running: Some(running), epoch, ..Point::default() };
        self.count("mounted");
    }

    /// What has arrived at a mount.
    fn hear_service(&mut self, mounts: &mut Mounts, at: usize) {
        let now = self.now;
        loop {
            let Some(connection) = mounts.of_point(at) else { return };
            if connection.stalled > now {
                return;
            }
            let Some((due, _)) = connection.down.front() else {
                if !connection.open {
                    mounts.hang_up(at, now);
                }
                return;
            };
            if *due > now {
                return;
            }
            let Some((_, down)) = connection.down.pop_front() else { return };
            let Some(running) = &mounts.points[at].running else { return };
            let mount = running.mount.clone();
            mount.borrow_mut().now = now;
            let heard = match down {
                Down::Lost => {
                    self.count("mount lost its Volume");
                    return self.end_mount(mounts, at, false);
                }
                Down::Told(told, bytes) => mount.borrow_mut().hear(told, bytes),
            };
            let Ok(ups) = heard else { return mounts.hang_up(at, now) };
            let Some(index) = mounts.points[at].connection else { return };
            let Mounts { connections, rng, .. } = mounts;
            let Some(connection) = connections.iter_mut().find(|it| it.id == index) else { return };
            for up in ups {
                let due = Connection::due(&connection.up, now, rng);
                connection.up.push_back((due, up));
            }
        }
    }

    pub(super) fn serve_connections(&mut self, mounts: &mut Mounts) {
        for at in 0..mounts.connections.len() {
            self.serve_connection(mounts, at);
        }
        mounts.connections.retain(|it| it.open || (it.heard && !it.down.is_empty()));
    }

    /// When `close` has returned, everybody who answers shows it.
    fn look_elsewhere(&mut self, mounts: &Mounts, at: usize, closed: &[s0_tree::Seq]) {
        let Some(seq) = closed.iter().max() else { return };
        for (other, point) in mounts.points.iter().enumerate() {
            let Some(running) = point.running.as_ref().filter(|_| other != at) else { continue };
            let mount = &mut *running.mount.borrow_mut();
            mount.now = self.now;
            let head = mount.files.tree().head();
            // What it has done itself it shows before it is told.
            let others = |entry: &&s0_tree::Entry| {
                entry.seq > head && entry.actor.replica.as_deref() != Some(&*mount.session)
            };
            let journal = &self.service.journal;
            if !journal.iter().filter(others).any(|entry| entry.seq <= *seq) {
                continue;
            }
            // A service that begins anew knows no mounts until they come back, and does not wait
            // for those that go by what they know meanwhile.
            let is_unknown = mounts.service_began > 0 && self.now < mounts.service_began + LEASE_MS;
            if mount.is_mounted() && mount.is_current() && head < *seq && is_unknown {
                self.count("mount unknown to a new service");
                continue;
            }
            if mount.is_mounted() && mount.is_current() && head < *seq {
                let what = format!("{} shows {head}, and {seq} was closed", mount.session);
                self.registry.borrow_mut().violate(what);
            }
        }
    }

    /// A mount's process ends; in order, or not.
    fn end_mount(&mut self, mounts: &mut Mounts, at: usize, in_order: bool) {
        let Some(running) = mounts.points[at].running.take() else { return };
        let session = running.mount.borrow().session.clone();
        self.tell(&format!("{session} ends, in order: {in_order}"));
        self.lines.borrow_mut().mount_dies(&session);
        if in_order {
            // The Bye arrives.
            if let Some(connection) = mounts.of_point(at) {
                connection.heard = false;
                connection.down.clear();
            }
            mounts.points[at].connection = None;
        } else {
            mounts.hang_up(at, self.now);
        }
        mounts.points[at].again = self.now + mounts.rng.u64(..4000);
    }

    fn mount_trouble(&mut self, mounts: &mut Mounts, at: usize) {
        match mounts.rng.u8(..10) {
            0..=1 if mounts.points[at].running.is_some() => {
                self.count("mount killed");
                self.end_mount(mounts, at, false);
            }
            2..=5 => {
                self.count("mount cut off");
                mounts.hang_up(at, self.now);
            }
            6..=8 => {
                let until = self.now + mounts.rng.u64(..6000);
                if let Some(connection) = mounts.of_point(at) {
                    connection.stalled = until;
                }
            }
            _ => mounts.points[at].ending = mounts.points[at].running.is_some(),
        }
    }

    /// Every mount shows the tree and nothing else, and what was confirmed is there.
    pub(super) fn compare_mounts(&self) -> Result<(), String> {
        let tree = self.service.tree();
        let volume: BTreeMap<String, String> = tree
            .walk()
            .map(|(path, _, node)| {
                let what = match &node.kind {
                    Kind::Directory(_) => "directory".to_owned(),
                    Kind::Symlink(target) => format!("link {target}"),
                    Kind::File(content) => {
                        let bytes = self.service.bytes(*content).unwrap_or_default();
                        format!("file {}", String::from_utf8_lossy(&bytes))
                    }
                    Kind::Fifo => "fifo".to_owned(),
                };
                (path.to_string(), what)
            })
            .collect();
        for point in self.mounts.iter().flat_map(|mounts| &mounts.points) {
            let Some(running) = &point.running else { continue };
            let mount = &mut *running.mount.borrow_mut();
            if mount.files.tree() != tree {
                return Err(format!("{} has another tree", mount.session));
            }
            let mut shown = BTreeMap::new();
            let mut left = vec![(ROOT, String::new())];
            while let Some((directory, above)) = left.pop() {
                for (name, ino) in mount.files.list(directory).unwrap_or_default() {
                    let path = format!("{above}{name}");
                    let Ok(found) = mount.files.stat(ino) else { continue };
                    let what = if found.is_directory {
                        left.push((ino, format!("{path}/")));
                        "directory".to_owned()
                    } else if found.is_file {
                        format!("file {}", String::from_utf8_lossy(&mount.shown(ino)))
                    } else {
                        let target = mount.files.target(ino);
                        target.map_or("fifo".to_owned(), |target| format!("link {target}"))
                    };
                    shown.insert(path, what);
                }
            }
            for path in volume.keys().chain(shown.keys()) {
                let (is, should) = (shown.get(path), volume.get(path));
                if is != should {
                    let who = &mount.session;
                    return Err(format!("{who} shows {path} as {is:?}, it is {should:?}"));
                }
            }
        }
        self.compare_lines()
    }

    fn compare_lines(&self) -> Result<(), String> {
        let registry = self.registry.borrow();
        let known = registry.known.iter().map(|data: &Rc<[u8]>| &**data);
        for (line, was_stale) in self.lines.borrow().lost(known) {
            if was_stale && lines::TAKEN_MAY_BE_LOST {
                self.count("mount's taken line lost");
                continue;
            }
            return Err(format!("{line}, is lost"));
        }
        Ok(())
    }
}
