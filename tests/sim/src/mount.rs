//! A mount: its files are the real ones. What waits is played here as `server/mount` does it:
//! its link to the service, commits, and changes of names.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use s0_api::mounts::{OWN_LEASE_MS, Said};
use s0_api::sync::{Outcome, Submission};
use s0_mount::simulated::{Failure, Files, IO, TIMED_OUT};
use s0_tree::{
    Change, Content, ContentId, Entry, Op, RenameHow, Seq, Source, Time, Tree, TreePath,
};

use crate::lines;

mod commit;
mod link;
mod programs;

pub use programs::Program;

/// How often the service is told that the mount is there, in milliseconds.
const BEAT: u64 = 500;
/// How long a connection may be silent.
const SILENT: u64 = 2 * OWN_LEASE_MS;
/// How often what is written to files that stay open is committed.
const COMMIT_EVERY: u64 = 1000;

/// What became of a change.
#[derive(Debug, Clone)]
struct Done {
    outcome: Outcome,
    head: Seq,
}

/// A change that is to be committed.
struct Wanted {
    change: Change,
    inline: Option<(ContentId, Arc<[u8]>)>,
    /// Whoever is content when the service has it; the number that it was sent with.
    taken: Option<Rc<Cell<Option<u64>>>>,
    done: Rc<RefCell<Option<Result<Done, Failure>>>>,
    /// Nothing of the file was taken away: what it becomes begins with what it was.
    keeps: bool,
}

/// A submission as it is sent.
#[derive(Clone)]
pub struct Sent {
    pub submission: Submission,
    pub inline: Vec<(ContentId, Arc<[u8]>)>,
    /// Which changes only add to what was there.
    pub keeps: Vec<bool>,
}

/// What a mount sends.
pub enum Up {
    Say(Said),
    Submit(Sent),
}

enum Order {
    Change(Box<Wanted>),
    Say(Said),
}

/// What the mount's programs can know of what others wrote.
#[derive(Debug, Default)]
pub struct Knowledge {
    /// All that is folded.
    pub folded: BTreeSet<ContentId>,
    /// That without what a developer wrote to a file which has a draft.
    pub seen: BTreeSet<ContentId>,
}

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// The process of a mount.
pub struct Mount {
    pub session: Arc<str>,
    pub files: Files,
    pub rng: fastrand::Rng,
    pub now: u64,
    pub lines: lines::Shared,
    pub known: Rc<RefCell<Knowledge>>,
    pub violation: Option<String>,
    pub counted: Vec<&'static str>,
    /// What a trace shall say.
    pub said: Vec<String>,
    /// Up to where the journal was when `close` returned, since it was last looked at.
    pub closed: Vec<Seq>,
    /// Its Volume is not what it was.
    pub lost: bool,
    /// It knows all that was committed when it was connected.
    has_terms: bool,
    contents: HashMap<ContentId, Rc<[u8]>>,
    /// A developer's contents below drafts.
    unseen: Vec<(ContentId, u64)>,
    /// New files whose directory is gone.
    homeless: BTreeSet<u64>,
    /// Files of which something was taken away here.
    cuts: BTreeSet<u64>,
    alone: bool,
    /// When that was said which the service heard last.
    answered: Option<u64>,
    /// The same, when all had been seen that others go by.
    heard: Option<u64>,
    beat: (u64, Option<(u64, u64)>),
    beat_due: u64,
    connected: u64,
    /// Up to where the kernel was told.
    told_kernel: Seq,
    said_seen: Seq,
    orders: VecDeque<Order>,
    waiting: VecDeque<Wanted>,
    unsaid: Vec<Said>,
    under_way: VecDeque<(u64, Sent, Vec<Wanted>)>,
    last: Option<u64>,
    welcomed: bool,
    settled: Seq,
    turns: BTreeSet<u64>,
    /// Those in which names are being changed.
    directories: BTreeSet<u64>,
    /// Names that are to be kept, by the numbers of the answers.
    asked: BTreeMap<u64, TreePath>,
    /// Those that somebody waits for.
    reserving: BTreeSet<u64>,
    reserved: BTreeMap<u64, bool>,
    ids: u64,
    failures: BTreeMap<u64, Failure>,
    patience: u64,
    commit_due: u64,
    was_dirty: Vec<u64>,
    spawned: Vec<Task>,
}

/// A mount that runs, and all that waits in it.
pub struct Running {
    pub mount: Handle,
    tasks: Vec<Task>,
}

/// What the tasks of a mount have in common.
pub type Handle = Rc<RefCell<Mount>>;

impl Running {
    pub fn new(
        session: Arc<str>,
        tree: Tree,
        contents: &HashMap<ContentId, Rc<[u8]>>,
        lines: lines::Shared,
        mut rng: fastrand::Rng,
        now: u64,
    ) -> Self {
        let all = tree.walk().filter_map(|(_, _, node)| Some(node.content()?.id));
        let folded: BTreeSet<ContentId> = all.collect();
        let known = Knowledge { seen: folded.clone(), folded };
        let head = tree.head();
        let mount = Mount {
            files: Files::new(tree, session.clone()),
            session,
            now,
            lines,
            known: Rc::new(RefCell::new(known)),
            violation: None,
            counted: Vec::new(),
            said: Vec::new(),
            closed: Vec::new(),
            lost: false,
            has_terms: false,
            contents: contents.clone(),
            unseen: Vec::new(),
            homeless: BTreeSet::new(),
            cuts: BTreeSet::new(),
            alone: false,
            answered: None,
            heard: None,
            beat: (0, None),
            beat_due: 0,
            connected: 0,
            told_kernel: head,
            said_seen: head,
            orders: VecDeque::new(),
            waiting: VecDeque::new(),
            unsaid: Vec::new(),
            under_way: VecDeque::new(),
            last: None,
            welcomed: false,
            settled: Seq(0),
            turns: BTreeSet::new(),
            directories: BTreeSet::new(),
            asked: BTreeMap::new(),
            reserving: BTreeSet::new(),
            reserved: BTreeMap::new(),
            ids: 0,
            failures: BTreeMap::new(),
            patience: if rng.bool() { 30_000 } else { 1500 },
            rng,
            commit_due: now + COMMIT_EVERY,
            was_dirty: Vec::new(),
            spawned: Vec::new(),
        };
        Self { mount: Rc::new(RefCell::new(mount)), tasks: Vec::new() }
    }

    /// Starts a program.
    pub fn start(&mut self, program: Program) {
        let task = programs::run(self.mount.clone(), program);
        self.tasks.push(Box::pin(task));
    }

    /// How many programs, and other tasks, there are.
    pub fn busy(&self) -> usize {
        self.tasks.len()
    }

    /// Every task does what it can.
    pub fn run(&mut self, now: u64) {
        self.mount.borrow_mut().now = now;
        self.commit_now_and_then();
        let mut context = Context::from_waker(Waker::noop());
        self.tasks.retain_mut(|task| task.as_mut().poll(&mut context) == Poll::Pending);
        let mount = &mut *self.mount.borrow_mut();
        self.tasks.append(&mut mount.spawned);
        mount.note_seen();
    }

    fn commit_now_and_then(&mut self) {
        let mount = &mut *self.mount.borrow_mut();
        if mount.now < mount.commit_due {
            return;
        }
        mount.commit_due = mount.now + COMMIT_EVERY;
        let dirty = mount.files.dirty();
        for ino in dirty.iter().filter(|ino| mount.was_dirty.contains(ino)) {
            let (handle, ino) = (self.mount.clone(), *ino);
            self.tasks.push(Box::pin(async move {
                let _ = commit::commit(&handle, ino).await;
            }));
        }
        mount.was_dirty = dirty;
    }
}

/// Waits until something may have changed.
async fn pause() {
    let mut paused = false;
    std::future::poll_fn(|_| {
        if std::mem::replace(&mut paused, true) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

impl Mount {
    fn note(&mut self, what: &str) {
        let session = &self.session;
        self.said.push(format!("{session} {what}"));
    }

    fn violate(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    pub(crate) fn time(&self) -> Time {
        Time(i64::try_from(self.now).unwrap_or(0) * 1_000_000)
    }

    /// Whether what is known here counts.
    pub fn is_current(&self) -> bool {
        self.heard.is_some_and(|at| self.now - at < OWN_LEASE_MS)
    }

    /// Whether it is mounted: it knows all that there was, and is heard.
    pub fn is_mounted(&self) -> bool {
        self.has_terms && self.heard.is_some()
    }

    /// Whether nothing is left to do.
    pub fn is_still(&self, head: Seq) -> bool {
        self.is_mounted()
            && self.welcomed
            && self.files.tree().head() == head
            && self.files.dirty().iter().all(|ino| self.homeless.contains(ino))
            && self.under_way.is_empty()
            && self.waiting.is_empty()
            && self.orders.is_empty()
    }

    /// What is left to do, for whoever looks for it.
    pub fn in_words(&self) -> String {
        format!(
            "{} at {}, welcomed {}, heard {:?}, dirty {:?}, {} under way, {} wait",
            self.session,
            self.files.tree().head(),
            self.welcomed,
            self.heard,
            self.files.dirty(),
            self.under_way.len(),
            self.waiting.len(),
        )
    }

    fn fold(&mut self, entry: &Entry, bytes: Option<Rc<[u8]>>) {
        let going = match &entry.op {
            Op::Remove { node, .. } => Some(*node),
            Op::Rename { how: RenameHow::Replace, displaced, .. } => *displaced,
            _ => None,
        };
        let last_name = |node: &s0_tree::NodeId| {
            self.files.tree().node(*node).is_some_and(|node| node.places.len() == 1)
        };
        if let Some(node) = going.filter(last_name) {
            // As anywhere else: what is written to a file goes with its last name.
            let ino = self.files.ino(node);
            if self.files.is_dirty(ino) {
                self.counted.push("mount's file removed under a draft");
            }
            let shown = self.shown(ino);
            self.lines.borrow_mut().excuse(&shown);
        }
        let met = match &entry.op {
            Op::Create { at, .. } | Op::Link { at, .. } | Op::Rename { to: at, .. } => {
                let parent = self.files.ino(at.parent);
                let found = self.files.lookup(parent, at.name.as_str()).ok().flatten();
                found.map(|found| {
                    self.files.forget(found.ino, 1);
                    found.ino
                })
            }
            _ => None,
        };
        let before = if self.files.moves_directory(entry) { self.files.made() } else { Vec::new() };
        if let Err(why) = self.files.fold(entry) {
            self.violate(format!("{}: entry {} does not fit: {why}", self.session, entry.seq));
        }
        if !before.is_empty() {
            self.move_names(&before);
        }
        let content = self.files.tree().node(entry.node()).and_then(s0_tree::Node::content);
        let Some(content) = content else { return };
        if let Some(bytes) = bytes {
            self.contents.insert(content.id, bytes);
        }
        self.note(&format!("folds {}: {:?} of node {}", entry.seq, entry.op, entry.node().0));
        let known = &mut *self.known.borrow_mut();
        known.folded.insert(content.id);
        let ino = self.files.ino(entry.node());
        let below = [Some(ino), met].into_iter().flatten().find(|ino| self.files.is_dirty(*ino));
        match below.filter(|_| entry.source == Source::Replica && entry.content().is_some()) {
            Some(ino) => self.unseen.push((content.id, ino)),
            None => drop(known.seen.insert(content.id)),
        }
    }

    /// What is below no draft any more is what programs see.
    fn note_seen(&mut self) {
        let files = &self.files;
        let (below, seen): (Vec<_>, Vec<_>) =
            self.unseen.drain(..).partition(|(_, ino)| files.is_dirty(*ino));
        self.unseen = below;
        self.known.borrow_mut().seen.extend(seen.into_iter().map(|(content, _)| content));
        self.cuts.retain(|ino| files.is_dirty(*ino));
    }

    /// The bytes of a content.
    pub fn bytes(&self, content: Content) -> Rc<[u8]> {
        self.contents.get(&content.id).cloned().unwrap_or_default()
    }

    /// All that a file shows now.
    pub fn shown(&self, ino: u64) -> Vec<u8> {
        use s0_mount::simulated::Piece;
        let mut all = Vec::new();
        for piece in self.files.pieces(ino, u64::MAX).unwrap_or_default() {
            let (Piece::Own(range) | Piece::Base(_, range) | Piece::Hole(range)) = &piece;
            let length = usize::try_from(range.end - range.start).unwrap_or(0);
            let mut part = vec![0; length];
            match &piece {
                Piece::Own(range) => drop(self.files.read_own(ino, range.start, &mut part)),
                Piece::Base(content, range) => {
                    let from = usize::try_from(range.start).unwrap_or(0);
                    part = self.bytes(*content)[from..from + length].to_vec();
                }
                Piece::Hole(_) => {}
            }
            all.extend(part);
        }
        all
    }

    /// How a request begins: nothing is done while the service is not heard.
    fn request(&self) -> Result<(), Failure> {
        if self.is_current() { Ok(()) } else { Err(IO) }
    }
}

/// Waits for as long as a mount waits for the service.
async fn within<T>(
    mount: &Handle,
    mut ready: impl FnMut(&mut Mount) -> Option<T>,
) -> Result<T, Failure> {
    let until = {
        let mount = mount.borrow();
        mount.now + mount.patience
    };
    loop {
        if let Some(ready) = ready(&mut mount.borrow_mut()) {
            return Ok(ready);
        }
        if mount.borrow().now >= until {
            return Err(TIMED_OUT);
        }
        pause().await;
    }
}
