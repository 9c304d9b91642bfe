//! The disk of a simulated machine, as the engine sees it. Users act between
//! any two calls, and a crash may come in any of them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use s0_replica::disk::{
    Abilities, Description, Disk, DiskError, DiskResult, IntentId, Listing, RootIdentity, Seen,
    Spot, StagedName, Stat,
};
use s0_replica::state::{Record, State, Store, StoreError};
use s0_replica::synced::RowChange;
use s0_tree::{Content, Name, TreePath};

use crate::coverage::Coverage;
use crate::fs::{Error, Fs, Node, Who};
use crate::site::Site;

/// The engine's handle on a machine.
#[derive(Clone)]
pub struct SimDisk(pub Rc<RefCell<Site>>);

fn text(spot: &Spot) -> String {
    match spot {
        Spot::Path(path) => path.as_str().to_owned(),
        Spot::Staged(slot) => whole(*slot),
    }
}

fn whole(slot: IntentId) -> String {
    format!(".s0/staging/{}", slot.0)
}

fn part(slot: IntentId) -> String {
    format!(".s0/staging/{}.part", slot.0)
}

fn translate(error: Error) -> DiskError {
    match error {
        Error::NotFound => DiskError::NotFound,
        Error::Exists => DiskError::Exists,
        Error::NotEmpty => DiskError::NotEmpty,
        Error::NotADirectory => DiskError::NotADirectory,
        Error::BadName => DiskError::BadName,
        Error::Invalid => DiskError::Other("invalid".into()),
    }
}

fn crashed() -> DiskError {
    DiskError::Other("crashed".into())
}

impl SimDisk {
    /// Does one call: users act first; a crash comes before or after it.
    fn call<T>(
        &self,
        kind: &'static str,
        work: impl FnOnce(&mut Fs) -> Result<T, Error>,
    ) -> DiskResult<T> {
        let site = &mut *self.0.borrow_mut();
        if site.crashed {
            return Err(crashed());
        }
        site.interrupt();
        let crash = site.crash_now(kind);
        if crash && site.rng.bool() {
            return Err(crashed());
        }
        site.fs.who = Who::Engine;
        let done = work(&mut site.fs).map_err(translate);
        site.fs.who = Who::Actor;
        site.account();
        if crash { Err(crashed()) } else { done }
    }
}

impl SimDisk {
    /// The engine is about to change what is at a path.
    fn look_at_put(&self, path: &TreePath, slot: Option<IntentId>) {
        let site = &mut *self.0.borrow_mut();
        if site.crashed {
            return;
        }
        let inode = slot.and_then(|slot| site.fs.find_exact(&whole(slot)));
        let data = inode.and_then(|inode| site.fs.data(inode));
        site.look_at_put(path.as_str(), data.as_ref(), crate::world::GUARDED);
    }
}

fn stat_of(fs: &Fs, inode: u64) -> Stat {
    let entry = &fs.inodes[&inode];
    let (kind, size) = match &entry.node {
        Node::File(data) => (Seen::File, data.len() as u64),
        Node::Dir(_) => (Seen::Directory, 0),
        Node::Link(target) => (Seen::Symlink, target.len() as u64),
    };
    Stat {
        kind,
        mode: entry.mode,
        size,
        mtime: entry.mtime,
        ctime: entry.ctime,
        inode,
        born: fs.traits.born.then_some(entry.born),
    }
}

impl Disk for SimDisk {
    fn abilities(&self) -> Abilities {
        let traits = self.0.borrow().fs.traits;
        Abilities {
            case_sensitive: !traits.case_insensitive,
            case_preserving: traits.preserving,
            unicode_insensitive: traits.case_insensitive,
            windows_names: traits.windows_names,
            modes: traits.modes,
            symlinks: true,
            exchange: traits.exchange,
            grain: traits.grain,
        }
    }

    fn identity(&mut self) -> DiskResult<RootIdentity> {
        let site = self.0.borrow();
        if site.crashed {
            return Err(crashed());
        }
        Ok(RootIdentity { marker: Some("marker".into()), device: 1, inode: 1 })
    }

    fn now(&mut self) -> i64 {
        self.0.borrow_mut().fs.clock()
    }

    fn stat(&mut self, at: &Spot) -> DiskResult<Option<Stat>> {
        self.call("stat", |fs| Ok(fs.find_exact(&text(at)).map(|inode| stat_of(fs, inode))))
    }

    fn list(&mut self, directory: &TreePath) -> DiskResult<Listing> {
        {
            let fs = &mut self.0.borrow_mut().fs;
            if let Some(inode) = fs.find_exact(directory.as_str()) {
                fs.watched.insert(inode, directory.as_str().to_owned());
            }
        }
        self.call("list", |fs| {
            let inode = fs.find_exact(directory.as_str()).ok_or(Error::NotFound)?;
            let Node::Dir(children) = &fs.inodes[&inode].node else {
                return Err(Error::NotADirectory);
            };
            let entries = children
                .iter()
                .filter(|(name, _)| !(directory.is_root() && *name == ".s0"))
                .filter_map(|(name, child)| Some((Name::new(name).ok()?, stat_of(fs, *child))))
                .collect();
            Ok(Listing { entries, unnameable: Vec::new() })
        })
    }

    fn read_link(&mut self, at: &Spot) -> DiskResult<String> {
        self.call("read_link", |fs| {
            let inode = fs.find_exact(&text(at)).ok_or(Error::NotFound)?;
            match &fs.inodes[&inode].node {
                Node::Link(target) => Ok(target.clone()),
                _ => Err(Error::Invalid),
            }
        })
    }

    fn describe(&mut self, files: &[Spot]) -> Vec<DiskResult<Description>> {
        files
            .iter()
            .map(|spot| {
                self.call("describe", |fs| {
                    let inode = fs.find_exact(&text(spot)).ok_or(Error::NotFound)?;
                    let Some(data) = fs.data(inode) else { return Err(Error::Invalid) };
                    Ok(Description::Stable {
                        stat: stat_of(fs, inode),
                        content: Content::of(&data),
                        bytes: Some(data.to_vec()),
                        recipe: None,
                        open: fs.writers.contains_key(&inode),
                    })
                })
            })
            .collect()
    }

    fn has_writer(&mut self, at: &Spot) -> Option<bool> {
        let site = self.0.borrow();
        let inode = site.fs.find_exact(&text(at))?;
        Some(site.fs.writers.contains_key(&inode))
    }

    fn stage_file(&mut self, slot: IntentId, bytes: &[u8], mode: u32) -> DiskResult<()> {
        self.call("stage_file", |fs| {
            let _ = fs.unlink(&part(slot));
            fs.create(&part(slot), bytes, mode).map(drop)
        })
    }

    fn stage_part(&mut self, slot: IntentId, mode: u32) -> DiskResult<()> {
        self.call("stage_part", |fs| fs.chmod(&part(slot), mode))
    }

    fn stage_link(&mut self, slot: IntentId, target: &str) -> DiskResult<()> {
        self.call("stage_link", |fs| {
            let _ = fs.unlink(&part(slot));
            fs.symlink(&part(slot), target).map(drop)
        })
    }

    fn sync_staged(&mut self, slots: &[IntentId]) -> DiskResult<()> {
        for slot in slots {
            self.call("sync_staged", |fs| {
                fs.sync_file(&part(*slot));
                fs.rename(&part(*slot), &whole(*slot), false)
            })?;
        }
        Ok(())
    }

    fn sync_directories(&mut self, _: &[TreePath]) -> DiskResult<()> {
        self.call("sync_directories", |fs| {
            fs.sync_file(".s0");
            Ok(())
        })
    }

    fn place(&mut self, slot: IntentId, path: &TreePath) -> DiskResult<()> {
        self.look_at_put(path, Some(slot));
        self.call("place", |fs| fs.rename(&whole(slot), path.as_str(), false))
    }

    fn exchange(&mut self, slot: IntentId, path: &TreePath) -> DiskResult<()> {
        self.0.borrow_mut().meddle(path.as_str());
        self.look_at_put(path, Some(slot));
        self.call("exchange", |fs| {
            if !fs.traits.exchange {
                return Err(Error::Invalid);
            }
            fs.exchange(&whole(slot), path.as_str())
        })
    }

    fn take(&mut self, path: &TreePath, slot: IntentId) -> DiskResult<()> {
        self.0.borrow_mut().meddle(path.as_str());
        self.look_at_put(path, None);
        self.call("take", |fs| {
            fs.find_exact(path.as_str()).ok_or(Error::NotFound)?;
            fs.rename(path.as_str(), &whole(slot), false)
        })
    }

    fn rename(&mut self, from: &TreePath, to: &TreePath) -> DiskResult<()> {
        self.call("rename", |fs| fs.rename(from.as_str(), to.as_str(), false))
    }

    fn make_directory(&mut self, path: &TreePath, mode: u32) -> DiskResult<()> {
        self.call("make_directory", |fs| fs.mkdir(path.as_str(), mode).map(drop))
    }

    fn remove_directory(&mut self, path: &TreePath) -> DiskResult<()> {
        self.call("remove_directory", |fs| fs.rmdir(path.as_str()))
    }

    fn set_mode(&mut self, path: &TreePath, mode: u32) -> DiskResult<()> {
        self.call("set_mode", |fs| fs.chmod(path.as_str(), mode))
    }

    fn discard(&mut self, name: &StagedName) -> DiskResult<()> {
        self.call("discard", |fs| match name {
            StagedName::Whole(slot) => fs.unlink(&whole(*slot)),
            StagedName::Part(slot) => fs.unlink(&part(*slot)),
            StagedName::Foreign(_) => Err(Error::Invalid),
        })
    }

    fn staged(&mut self) -> DiskResult<Vec<StagedName>> {
        self.call("staged", |fs| {
            let inode = fs.find(".s0/staging").ok_or(Error::NotFound)?;
            let Node::Dir(children) = &fs.inodes[&inode].node else { return Err(Error::Invalid) };
            Ok(children
                .keys()
                .map(|name| match name.strip_suffix(".part") {
                    Some(number) => number.parse().map(|n| StagedName::Part(IntentId(n))),
                    None => name.parse().map(|n| StagedName::Whole(IntentId(n))),
                })
                .map(|name| name.unwrap_or_else(|_| StagedName::Foreign("?".into())))
                .collect())
        })
    }
}

type Commit = (Vec<Record>, Vec<RowChange>);

/// The state database of a simulated machine.
#[derive(Default)]
pub struct Durable {
    log: Vec<Commit>,
    /// How much of the log survives a power cut.
    safe: usize,
}

/// The engine's handle on it.
pub struct SimStore {
    pub site: Rc<RefCell<Site>>,
    pub durable: Rc<RefCell<Durable>>,
}

impl SimStore {
    pub fn new(site: Rc<RefCell<Site>>, durable: Rc<RefCell<Durable>>) -> Self {
        Self { site, durable }
    }
}

impl Durable {
    /// Loses some of what was not durable.
    pub fn power_cut(&mut self) {
        self.log.truncate(self.safe);
    }
}

impl Store for SimStore {
    fn commit(
        &mut self,
        records: &[Record],
        rows: &[RowChange],
        durable: bool,
    ) -> Result<(), StoreError> {
        let site = &mut *self.site.borrow_mut();
        if site.crashed {
            return Err(StoreError("crashed".into()));
        }
        site.interrupt();
        let crash = site.crash_now(if durable { "commit durable" } else { "commit" });
        if crash && site.rng.bool() {
            return Err(StoreError("crashed".into()));
        }
        if site.fs.trace.is_some() {
            for (place, row) in rows {
                let what = row.as_ref().map(|row| (row.node.0, row.version.0, &row.what));
                site.fs.tell(&format!("row {}/{} {what:?}", place.parent.0, place.name));
            }
        }
        let mut log = self.durable.borrow_mut();
        log.log.push((records.to_vec(), rows.to_vec()));
        if durable || site.rng.u8(..) < 20 {
            // Now and then the system writes by itself.
            log.safe = log.log.len();
        }
        for record in records {
            Coverage::record(&site.coverage, record);
        }
        if crash { Err(StoreError("crashed".into())) } else { Ok(()) }
    }

    fn load(&mut self) -> Result<State, StoreError> {
        let log = &self.durable.borrow().log;
        let mut rows = BTreeMap::new();
        for (place, row) in log.iter().flat_map(|(_, rows)| rows) {
            rows.insert(place.clone(), row.clone());
        }
        let rows = rows.into_iter().filter_map(|(place, row)| Some((place, row?)));
        let mut state = State::with_rows(rows);
        for record in log.iter().flat_map(|(records, _)| records) {
            if !matches!(record, Record::Synced(..) | Record::Moved { .. }) {
                state.apply(record.clone());
            }
        }
        if let Some(outgoing) = &mut state.outgoing {
            // No store keeps the bytes.
            outgoing.inline.clear();
        }
        Ok(state)
    }
}
