//! The engine: three trees, and what to do about them.
//!
//! *Remote* is the journal folded up to the cursor. *Synced* is what disk and
//! Volume last agreed on, place by place. *Local* is the disk, of which only
//! what differs from synced is kept in mind. The engine makes them equal.
//!
//! Events come in through [`Replica::handle`] and the user's commands; work on
//! the disk is done in [`Replica::step`], through the [`Disk`]; what concerns
//! the network goes out as [`Effect`]s. There is no clock, no thread and no
//! socket in here, so the simulator drives the very same code.

mod answer;
mod applied;
mod apply;
mod authors;
mod config;
mod conflicts;
mod direct;
mod displaced;
mod download;
mod events;
mod forget;
mod guard;
mod holds;
mod list;
mod look;
mod merge;
mod need;
mod paths;
mod put;
mod read;
mod recover;
mod remote;
mod renames;
mod status;
mod upload;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use s0_tree::{ContentId, NodeId, Place, Policy, Quota, Recipe, Tree, TreePath};

use crate::disk::{Disk, DiskError, IntentId, Rules};
use crate::state::{Print, Record, Row, State, Store, StoreError, What};
use crate::synced::Released;

pub use config::{Config, Init, Pause};
pub use conflicts::{ResolveError, WayOut};
pub use events::{Effect, Event, Fetched, Hint, Notice};
pub use forget::ForgetError;
pub use guard::{Halt, Resume};
pub use holds::{Held, HoldEnd, HoldReason};
pub use merge::Sides;
pub use put::LocalWrite;
pub use status::{Condition, Difference, Pending, Progress, Status, VerifyError};

/// A path that must be looked at.
#[derive(Debug, Clone, Copy)]
struct Dirt {
    /// When it may be, in the engine's milliseconds.
    due: u64,
    /// When it was first touched.
    first: u64,
    /// How much of what is below must be looked at too.
    reach: Reach,
}

/// How far a look goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    /// The path alone.
    Itself,
    /// A directory and its children.
    Children,
    /// Everything below.
    All,
}

impl Reach {
    /// How far a look goes at the children.
    fn below(self) -> Self {
        if self == Self::All { Self::All } else { Self::Itself }
    }
}

/// What the disk holds at a path, where that is not what is synced.
#[derive(Debug, Clone)]
enum Local {
    /// Nothing any more.
    Gone,
    /// This.
    There { what: What, mode: u32, print: Print },
    /// The synced directory that was elsewhere.
    Moved { node: NodeId },
}

/// How often a path may be sent: a bucket of milliseconds that fills with time.
#[derive(Debug, Clone, Copy)]
struct Heat {
    /// What the bucket held when the path was sent last.
    credit: u64,
    /// When that was.
    last: u64,
}

impl Heat {
    /// What one upload costs: five a second can go on for ever.
    const COST: u64 = 200;
    /// The size of the bucket: so many can follow each other at once.
    const MOST: u64 = 10 * Self::COST;

    fn credit_at(self, now: u64) -> u64 {
        (self.credit + now.saturating_sub(self.last)).min(Self::MOST)
    }

    /// When the path may be sent again.
    fn cool_at(self) -> u64 {
        self.last + Self::COST.saturating_sub(self.credit)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    Offline,
    /// Connected; the journal is not followed yet.
    Joining,
    Following,
}

/// The replica of a Volume in one directory.
pub struct Replica<D, S> {
    config: Config,
    disk: D,
    store: S,
    rules: Box<dyn Rules + Send>,
    state: State,
    now: u64,

    dirty: BTreeMap<TreePath, Dirt>,
    changed: BTreeMap<TreePath, Local>,
    /// Bytes of changed files, as far as the budget goes; the rest is read again.
    bytes: HashMap<TreePath, Arc<[u8]>>,
    bytes_held: usize,
    /// The chunks of the large file that was read last, so that it is not read once
    /// more to be sent.
    recipe: Option<(ContentId, Arc<Recipe>)>,
    /// Synced directories that the user moved, by where they are now.
    moved: BTreeMap<TreePath, NodeId>,
    problems: BTreeMap<TreePath, String>,
    heat: HashMap<TreePath, Heat>,
    uploaded: HashSet<ContentId>,
    uploading: HashSet<ContentId>,
    /// The number of the submission that the network has been handed.
    sending: Option<u64>,
    /// The paths that it speaks of.
    in_flight: HashSet<TreePath>,

    link: Link,
    remote: Option<Tree>,
    policy: Policy,
    quota: Quota,
    /// What the last plan left out because the Volume has no room for it.
    no_room: BTreeSet<TreePath>,
    told_cursor: s0_tree::Seq,
    incoming: BTreeSet<Place>,
    waiting: BTreeSet<Place>,
    retry: Option<u64>,
    /// Each place is to be compared again.
    reconsider: bool,
    active: BTreeMap<Place, IntentId>,
    ready: BTreeMap<IntentId, Option<Arc<[u8]>>>,
    cache: HashMap<ContentId, Arc<[u8]>>,
    cache_held: usize,
    displaced: BTreeMap<IntentId, displaced::Displaced>,
    ignored_incoming: BTreeSet<TreePath>,
    holds: holds::Holds,
    authors: authors::Authors,
    abandoned: Vec<IntentId>,

    second_look: Option<u64>,
    /// The first look through the workspace since the start is done.
    looked: bool,
    /// Until then, no stat is trusted.
    distrust: bool,
    halt: Option<Halt>,
    /// The Volume's head is below what was followed: its journal was brought back
    /// from a backup, whatever its epoch says.
    rewound: bool,
    deletions_confirmed: bool,
    /// Everything was looked at since so many removals waited.
    surveyed: bool,
    removals: Option<guard::Removals>,
    elders: guard::Elders,
    effects: VecDeque<Effect>,
}

/// The engine must be loaded again from its store.
#[derive(Debug, thiserror::Error)]
pub enum Stop {
    /// The state database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The disk failed while the state was being recovered.
    #[error("the workspace cannot be read: {0}")]
    Disk(#[from] DiskError),
}

type Done = Result<(), Stop>;

impl<D: Disk, S: Store> Replica<D, S> {
    /// Loads a replica and recovers what a crash may have left behind.
    ///
    /// # Errors
    /// The state database or the root cannot be read.
    pub fn open(
        config: Config,
        disk: D,
        mut store: S,
        rules: Box<dyn Rules + Send>,
        now: u64,
    ) -> Result<Self, Stop> {
        let state = store.load()?;
        let elders = guard::Elders::at_start(now, &state.synced);
        let mut replica = Self {
            config,
            disk,
            store,
            rules,
            state,
            now,
            dirty: BTreeMap::new(),
            changed: BTreeMap::new(),
            bytes: HashMap::new(),
            bytes_held: 0,
            recipe: None,
            moved: BTreeMap::new(),
            problems: BTreeMap::new(),
            heat: HashMap::new(),
            uploaded: HashSet::new(),
            uploading: HashSet::new(),
            sending: None,
            in_flight: HashSet::new(),
            link: Link::Offline,
            remote: None,
            policy: Policy::default(),
            quota: Quota::default(),
            no_room: BTreeSet::new(),
            told_cursor: s0_tree::Seq(0),
            incoming: BTreeSet::new(),
            waiting: BTreeSet::new(),
            retry: None,
            reconsider: false,
            active: BTreeMap::new(),
            ready: BTreeMap::new(),
            cache: HashMap::new(),
            cache_held: 0,
            displaced: BTreeMap::new(),
            ignored_incoming: BTreeSet::new(),
            holds: holds::Holds::default(),
            authors: authors::Authors::default(),
            abandoned: Vec::new(),
            second_look: None,
            looked: false,
            distrust: false,
            halt: None,
            rewound: false,
            deletions_confirmed: false,
            surveyed: false,
            removals: None,
            elders,
            effects: VecDeque::new(),
        };
        let left_in = replica.state.facts.boot.as_ref();
        replica.distrust = left_in.is_some_and(|boot| *boot != replica.config.boot);
        replica.check_root()?;
        if replica.halt.is_none() {
            replica.recover()?;
        }
        if !replica.distrust {
            replica.note_boot()?;
        }
        replica.touch(TreePath::root(), now, true);
        Ok(replica)
    }

    /// Writes down that what is known of the disk holds in this run of the
    /// operating system. Until it does, a restart must read the files again too.
    fn note_boot(&mut self) -> Done {
        let boot = Some(self.config.boot.clone());
        let facts = crate::state::Facts { boot, ..self.state.facts.clone() };
        self.commit(vec![Record::Facts(facts)], true)
    }

    /// Takes in what happened outside. Nothing is done to the disk.
    ///
    /// # Errors
    /// The state database failed; the replica must be opened again.
    pub fn handle(&mut self, event: Event, now: u64) -> Done {
        self.now = now;
        match event {
            Event::Touched(paths) => {
                for (path, hint) in paths {
                    self.hear(&path, &hint);
                }
            }
            Event::Rescan(path) => self.touch(path, self.now, true),
            Event::Online(registered) => self.online(&registered)?,
            Event::Offline => self.offline(),
            Event::Tree { epoch, tree, since } => {
                self.take_tree(epoch, tree, since.as_deref())?;
            }
            Event::Entries(entries) => self.take_entries(entries),
            Event::Unsaved(documents) => self.unsaved(documents),
            Event::Terms(policy, quota) => (self.policy, self.quota) = (policy, quota),
            Event::CannotFollow => {
                if self.link != Link::Offline {
                    self.link = Link::Joining;
                    let since = self.authors_after(self.told_cursor);
                    self.effects.push_back(Effect::FetchTree { since });
                }
            }
            Event::Answered(number, answer) => self.answered(number, answer)?,
            Event::Unanswered(number) => {
                if self.state.outgoing.as_ref().is_some_and(|o| o.submission.number == number) {
                    self.sending = None;
                }
            }
            Event::Fetched(slot, fetched) => self.fetched(slot, fetched),
            Event::Uploaded(id, done) => {
                self.uploading.remove(&id);
                if done {
                    self.uploaded.insert(id);
                } else {
                    self.retry_in(200);
                }
            }
            Event::Author(entry, actor) => self.author(entry, actor),
            Event::SettlementHeard(id) => {
                if self.state.settled.contains_key(&id) {
                    self.commit(vec![Record::Settled(id, None)], false)?;
                }
            }
        }
        Ok(())
    }

    /// Does what can be done now: looks at paths, applies what came in, sends
    /// what changed. Returns when it wants to be called again at the latest, in
    /// the engine's milliseconds.
    ///
    /// # Errors
    /// The state database failed; the replica must be opened again.
    pub fn step(&mut self, now: u64) -> Result<Option<u64>, Stop> {
        self.now = now;
        if self.halt.is_some() {
            return Ok(None);
        }
        self.age();
        let more = self.look()?;
        if !self.looked && self.dirty.is_empty() {
            self.looked = true;
            if std::mem::take(&mut self.distrust) {
                self.note_boot()?;
            }
        }
        if self.halt.is_some() {
            return Ok(None);
        }
        self.begin()?;
        self.finish_answer()?;
        self.settle_conflicts()?;
        self.download()?;
        self.clear_displaced()?;
        self.upload()?;
        self.tell_cursor();
        // What is on its way is looked at when the answer has come.
        let looks = self.dirty.iter().filter(|(path, _)| !self.is_outgoing(path));
        let due = looks.map(|(_, dirt)| dirt.due).min();
        // What was applied may have made room for what had to wait.
        let more = more || self.may_plan();
        let wake = [due, self.retry, more.then_some(now)].into_iter().flatten().min();
        Ok(wake.map(|at| at.max(now)))
    }

    /// Leaves everything in order, for a clean end of the program.
    ///
    /// # Errors
    /// The state database failed.
    pub fn close(&mut self) -> Done {
        let boot = if self.distrust { self.state.facts.boot.clone() } else { None };
        let facts = crate::state::Facts { boot, ..self.state.facts.clone() };
        self.commit(vec![Record::Facts(facts)], true)
    }

    /// What is to be done outside, in order.
    pub fn effects(&mut self) -> impl Iterator<Item = Effect> + use<'_, D, S> {
        self.effects.drain(..)
    }

    /// The disk, for the shell.
    pub fn disk(&mut self) -> &mut D {
        &mut self.disk
    }

    /// The store, for tests that look into it.
    pub fn store(&mut self) -> &mut S {
        &mut self.store
    }

    /// The Volume's tree as far as the journal has been followed.
    pub fn remote(&self) -> Option<&Tree> {
        self.remote.as_ref()
    }

    /// What is remembered.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Commits records and takes them over. The only way to change the state.
    fn commit(&mut self, records: Vec<Record>, durable: bool) -> Done {
        if records.is_empty() {
            return Ok(());
        }
        let (agreements, others): (Vec<_>, Vec<_>) = records
            .into_iter()
            .partition(|record| matches!(record, Record::Synced(..) | Record::Moved { .. }));
        for record in agreements {
            if let Record::Synced(place, Some(row)) = &record
                && let Some(old) = self.row(place)
                && old.node != row.node
                && self.is_moved(old.node)
            {
                // The rows of a directory that is elsewhere are not about what comes
                // to its old place.
                self.state.apply(Record::Synced(place.clone(), None));
            }
            self.state.apply(self.respelled(record));
        }
        let (rows, released) = self.state.synced.take_changes();
        self.store.commit(&others, &rows, durable)?;
        for record in others {
            self.state.apply(record);
        }
        for released in released {
            self.heed_released(released);
        }
        Ok(())
    }

    /// A directory that is agreed on under another spelling of its name is moved
    /// there: a root that takes both for one name has no second one to leave behind.
    fn respelled(&self, record: Record) -> Record {
        let Record::Synced(to, Some(row)) = record else { return record };
        let home = self.state.synced.home(row.node).filter(|_| row.what.is_directory());
        let is_spelling = |from: &&Place| {
            from.parent == to.parent
                && from.name != to.name
                && self.is_one_name(&from.name, &to.name)
        };
        match home.filter(is_spelling).cloned() {
            Some(from) => Record::Moved { from, to, row },
            None => Record::Synced(to, Some(row)),
        }
    }

    /// A directory is not synced any more where it was. If the Volume's is
    /// elsewhere, what is in this one is compared place by place, and goes.
    fn heed_released(&mut self, released: Released) {
        let moved = self.moved.iter().find(|(_, node)| **node == released.was);
        if let Some(path) = moved.map(|(path, _)| path.clone()) {
            self.moved.remove(&path);
            self.forget(&path);
            self.touch(path, self.now, true);
        }
        let Some(nobody) = released.is else { return };
        self.expect_rows(nobody, nobody);
        let Some(home) = self.state.synced.home(nobody).cloned() else { return };
        if let Some(path) = self.disk_path(&home) {
            self.touch(path, self.now, true);
        }
        self.incoming.insert(home);
    }

    fn notice(&mut self, notice: Notice) {
        self.effects.push_back(Effect::Notice(notice));
    }

    /// Asks to be called again within `milliseconds`.
    fn retry_in(&mut self, milliseconds: u64) {
        let at = self.now + milliseconds;
        self.retry = Some(self.retry.map_or(at, |other| other.min(at)));
    }

    /// Places that waited are looked at again: something has changed.
    fn stir(&mut self) {
        self.incoming.append(&mut self.waiting);
    }

    fn row(&self, place: &Place) -> Option<&Row> {
        self.state.synced.get(place)
    }
}
