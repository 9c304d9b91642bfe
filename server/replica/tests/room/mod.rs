//! A workspace on a real disk, its engine, and a Volume that is played by hand.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use s0_api::sync::Registered;
use s0_replica::engine::{Config, Effect, Event, Init, Pending, Replica};
use s0_replica::shell::disk::{Marker, RootDisk};
use s0_replica::shell::guarded::{GUARDED, Guarded};
use s0_replica::shell::rules::GitRules;
use s0_replica::shell::store::SqliteStore;
use s0_tree::{Tree, TreePath};

use crate::volume::{At, tree};

pub(crate) struct Room {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) engine: Replica<RootDisk, SqliteStore>,
    pub(crate) now: u64,
}

impl Room {
    /// A workspace that is in sync with a Volume that holds all this.
    pub(crate) fn synced(all: &[(&str, At)]) -> Self {
        let dir = workspace();
        let root = dir.path().join("root");
        for (path, what) in all {
            let at = root.join(path);
            match what {
                At::Directory => fs::create_dir(&at).unwrap(),
                At::File(text) => fs::write(&at, text).unwrap(),
                At::Link(target) => symlink(target, &at).unwrap(),
            }
            if let At::Directory | At::File(_) = what {
                let mode = if at.is_dir() { 0o755 } else { 0o644 };
                fs::set_permissions(&at, fs::Permissions::from_mode(mode)).unwrap();
            }
        }
        let mut room = Self::connected(dir, Init::Auto, tree(all));
        assert_eq!(room.settle(), Vec::<String>::new(), "what is equal is not sent");
        assert_eq!(room.engine.pending(), Pending::default());
        assert_eq!(room.engine.status().progress.synced, all.len());
        room
    }

    /// A replica that has been given the Volume's tree, and has done nothing yet.
    pub(crate) fn connected(dir: tempfile::TempDir, init: Init, tree: Tree) -> Self {
        Self::configured(dir, Config { init, review: true, ..Config::default() }, tree)
    }

    /// The same, with these choices.
    pub(crate) fn configured(dir: tempfile::TempDir, config: Config, tree: Tree) -> Self {
        let disk = RootDisk::open(&dir.path().join("root"), Marker::Create).unwrap();
        let guarded = Guarded::new(GUARDED).unwrap();
        let rules = Box::new(GitRules::new(disk.access(), &[]).guarding(guarded));
        let store = SqliteStore::open(&dir.path().join("state.db")).unwrap();
        let engine = Replica::open(config, disk, store, rules, 0).unwrap();
        let mut room = Self { dir, engine, now: 0 };
        let (epoch, head) = ("e".to_owned(), tree.head());
        let registered = Registered {
            instance: 1,
            last_number: 0,
            epoch: epoch.clone(),
            head,
            cursor: s0_tree::Seq(0),
        };
        room.tell(Event::Online(registered));
        room.tell(Event::Tree { epoch, tree, since: None });
        room
    }

    /// The program ends without a word and starts again.
    pub(crate) fn reopened(self) -> Self {
        let Self { dir, engine, now } = self;
        drop(engine);
        let disk = RootDisk::open(&dir.path().join("root"), Marker::Expect).unwrap();
        let rules = Box::new(GitRules::new(disk.access(), &[]));
        let store = SqliteStore::open(&dir.path().join("state.db")).unwrap();
        let engine = Replica::open(Config::default(), disk, store, rules, now).unwrap();
        Self { dir, engine, now }
    }

    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join("root").join(path)
    }

    pub(crate) fn tell(&mut self, event: Event) {
        self.engine.handle(event, self.now).unwrap();
    }

    /// Everything is looked at. Gives what would be sent.
    pub(crate) fn look(&mut self) -> Vec<String> {
        self.tell(Event::Rescan(TreePath::root()));
        self.settle()
    }

    /// Lets the engine work until it wants nothing for a while.
    pub(crate) fn settle(&mut self) -> Vec<String> {
        let mut sent = Vec::new();
        let end = self.now + 5000;
        loop {
            let wake = self.engine.step(self.now).unwrap();
            for effect in self.engine.effects() {
                if let Effect::Submit(submission, _) = effect {
                    sent.extend(submission.changes.iter().map(|change| format!("{change:?}")));
                }
            }
            match wake {
                Some(at) if at <= end => self.now = self.now.max(at) + 1,
                _ => return sent,
            }
        }
    }

    /// One step, and what it wants done outside.
    pub(crate) fn effects(&mut self) -> Vec<Effect> {
        self.engine.step(self.now).unwrap();
        self.engine.effects().collect()
    }

    pub(crate) fn problem(&self, at: &str) -> Option<String> {
        self.engine.status().problems.get(&path(at)).cloned()
    }
}

pub(crate) fn workspace() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("root")).unwrap();
    dir
}

pub(crate) fn path(text: &str) -> TreePath {
    TreePath::new(text).unwrap()
}
