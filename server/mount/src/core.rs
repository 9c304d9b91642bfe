//! A running mount: what its parts have in common, and how it begins and ends.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use s0_api::mounts::{MountQuery, Said, Told};
use s0_tree::{Entry, Hash, Policy, Quota, Seq, Time};
use tokio::sync::{oneshot, watch};

use crate::cache::Cache;
use crate::contents::Contents;
use crate::echo::Echoes;
use crate::kernel::answer::{Errno, stale_names};
use crate::kernel::device::Device;
use crate::kernel::request::{Ino, LockOwner};
use crate::link::{Connection, Incoming, LEASE, Link, Whereto};
use crate::locks::{Held, Pending};
use crate::reach::Reach;
use crate::reserves::Reserves;
use crate::view::{News, Stale, View};

/// How long a mount may take to know all that there is.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often what is written to files that stay open is committed.
const COMMIT_EVERY: Duration = Duration::from_secs(1);

/// What a mount needs to know.
#[derive(Debug, Clone)]
pub struct Options {
    /// The service, with a token that may read the Volume, or write it.
    pub service: Reach,
    /// The Volume.
    pub volume: String,
    /// The sandbox that it is for, if it is for one.
    pub sandbox: Option<String>,
    /// The directory, for people.
    pub mount_point: String,
    /// The machine, for people.
    pub host: String,
    /// Nothing is written through it.
    pub read_only: bool,
    /// What does things once more on the mount, so that watchers hear of them.
    pub performer: Option<Performer>,
    /// Where the cache lies.
    pub cache_directory: PathBuf,
    /// How large it becomes, in bytes.
    pub cache_bytes: u64,
}

/// How a process is started that calls [`crate::perform_all`]. The mount's user must be let in
/// there: that is a matter of the namespaces that it was mounted in.
#[derive(Debug, Clone)]
pub struct Performer {
    /// The program.
    pub program: PathBuf,
    /// What it is told.
    pub arguments: Vec<OsString>,
}

/// Why a Volume cannot be mounted.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The service.
    #[error(transparent)]
    Service(#[from] s0_api::Error),
    /// The cache.
    #[error("the cache in {} cannot be made: {error}", directory.display())]
    Cache {
        /// Where.
        directory: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The kernel.
    #[error("the mount cannot be served: {0}")]
    Kernel(#[from] std::io::Error),
}

/// What the thread that talks to the kernel is to say.
pub(crate) enum Tell {
    Stale(Vec<Stale>),
    News(Box<News>),
    /// What is known here counts again, now that all before this was said.
    Current,
    /// All up to this entry was said.
    Seen(Seq),
}

/// What the parts of a mount have in common.
pub(crate) struct Core {
    view: Mutex<View>,
    pub(crate) contents: Contents,
    pub(crate) link: Link,
    pub(crate) device: Device,
    pub(crate) echoes: Option<Arc<Echoes>>,
    pub(crate) runtime: tokio::runtime::Handle,
    tells: Mutex<Sender<Tell>>,
    is_current: AtomicBool,
    /// No other mount is there, and none comes before this one was told.
    pub(crate) is_alone: AtomicBool,
    /// When that was said which the service heard last; none before it has heard anything.
    heard: Mutex<Option<Instant>>,
    /// The directory of which the kernel is being told that a name is stale. It waits there
    /// for whoever changes names in it.
    telling: watch::Sender<Option<Ino>>,
    /// Those who can be interrupted, by the numbers of their requests.
    pub(crate) interrupts: Mutex<HashMap<u64, oneshot::Sender<()>>>,
    /// Locks that were asked for.
    pub(crate) locks: Mutex<HashMap<u64, Pending>>,
    /// Locks that are held.
    pub(crate) held: Mutex<Vec<Held>>,
    /// Names that the service was asked to keep.
    pub(crate) reserves: Reserves,
    /// Who has taken locks of which file, so that `close` need not ask of all.
    pub(crate) lockers: Mutex<HashSet<(Ino, LockOwner)>>,
    pub(crate) ids: AtomicU64,
    /// What went wrong with files after they were closed.
    pub(crate) failures: Mutex<HashMap<Ino, Errno>>,
    /// What the service took of files and could not commit; it is tried again here.
    pub(crate) stale: Mutex<HashMap<Ino, Vec<(u64, usize)>>>,
    /// One commit of a file at a time.
    commits: Mutex<HashMap<Ino, Arc<tokio::sync::Mutex<()>>>>,
    lost: watch::Sender<Option<String>>,
    /// It knows all that was committed when it was connected, and the service has heard it.
    caught_up: watch::Sender<(bool, bool)>,
}

/// A mount that runs.
pub struct Mounted {
    core: Arc<Core>,
    session: Arc<str>,
    serving: tokio::task::JoinHandle<std::io::Result<()>>,
    linked: tokio::task::JoinHandle<()>,
    lost: watch::Receiver<Option<String>>,
}

/// Serves a Volume on a device that is mounted somewhere.
///
/// # Errors
/// See [`MountError`].
pub async fn mount(options: Options, device: OwnedFd) -> Result<Mounted, MountError> {
    let Options { service, volume, sandbox, .. } = options.clone();
    let (epoch, tree) = service.client().tree(&volume).await?;
    let directory = options.cache_directory.clone();
    let cache = Cache::new(&directory, options.cache_bytes)
        .map_err(|error| MountError::Cache { directory, error })?;
    let session: Arc<str> = format!("mnt_{}", uuid::Uuid::new_v4().simple()).into();
    let query = MountQuery {
        after: tree.head().0,
        epoch,
        sandbox_id: sandbox,
        host: options.host,
        mount_point: options.mount_point,
        read_only: options.read_only,
    };
    let head = tree.head();
    let view = View::new(tree, session.clone());
    let to = Whereto {
        service: service.clone(),
        volume: volume.clone(),
        session: session.clone(),
        query,
    };
    let (tells, told) = channel();
    let (seen, sees) = watch::channel(head);
    let (lost, loses) = watch::channel(None);
    let (link, orders) = Link::new();
    let runtime = one_thread()?;
    let core = Arc::new(Core {
        view: Mutex::new(view),
        contents: Contents::new(service, volume, cache),
        link,
        device: Device::new(device)?,
        echoes: options.performer.as_ref().and_then(start_echoes),
        runtime: runtime.clone(),
        tells: Mutex::new(tells),
        is_current: AtomicBool::new(true),
        is_alone: AtomicBool::new(false),
        heard: Mutex::new(None),
        telling: watch::Sender::new(None),
        interrupts: Mutex::default(),
        locks: Mutex::default(),
        held: Mutex::default(),
        reserves: Mutex::default(),
        lockers: Mutex::default(),
        ids: AtomicU64::new(1),
        failures: Mutex::default(),
        stale: Mutex::default(),
        commits: Mutex::default(),
        lost,
        caught_up: watch::Sender::new((false, false)),
    });
    let connection = Connection::open(to, orders, core.clone(), sees);
    let connected = runtime.spawn(connection).await;
    let connected = connected.map_err(|_| s0_api::Error::Unavailable("it was ended".into()))??;
    let linked = runtime.spawn(connected);
    // What others have closed before this one is there is what it shows.
    let mut caught_up = core.caught_up.subscribe();
    let caught = tokio::time::timeout(PATIENCE, caught_up.wait_for(|it| *it == (true, true))).await;
    if !matches!(caught, Ok(Ok(_))) {
        return Err(s0_api::Error::Unavailable("it does not say what there is".into()).into());
    }
    let (device, telling) = (core.device.clone(), core.telling.clone());
    std::thread::Builder::new().name("stale".into()).spawn({
        let core = Arc::downgrade(&core);
        move || tell_kernel(&core, &device, &told, &telling, &seen)
    })?;
    let served = core.clone();
    let serving = runtime.spawn(async move {
        let device = served.device.clone();
        device.serve(|head, operation| served.serve(head, operation)).await
    });
    runtime.spawn(commit_now_and_then(Arc::downgrade(&core)));
    Ok(Mounted { core, session, serving, linked, lost: loses })
}

fn start_echoes(performer: &Performer) -> Option<Arc<Echoes>> {
    match Echoes::start(performer) {
        Ok(echoes) => Some(Arc::new(echoes)),
        Err(error) => {
            tracing::warn!(%error, "watchers in the mount will not hear of what others do");
            None
        }
    }
}

/// A thread for all that waits for the kernel or the service. What one request wakes is mostly
/// another task of the same mount, and to wake a thread takes longer than most of them do.
fn one_thread() -> std::io::Result<tokio::runtime::Handle> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    std::thread::Builder::new()
        .name("link".into())
        .spawn(move || runtime.block_on(std::future::pending::<()>()))?;
    Ok(handle)
}

/// Tells the kernel what is stale. The kernel may let this wait for requests of the same
/// directory; nobody waits for this thread but other mounts.
fn tell_kernel(
    core: &Weak<Core>,
    device: &Device,
    told: &Receiver<Tell>,
    telling: &watch::Sender<Option<Ino>>,
    seen: &watch::Sender<Seq>,
) {
    let echoes = core.upgrade().and_then(|core| core.echoes.clone());
    let tell = |stale: &Stale| {
        let directory = stale.directory();
        if directory.is_some() {
            telling.send_replace(directory);
        }
        device.tell(&stale.message());
        if directory.is_some() {
            telling.send_replace(None);
        }
    };
    // Names one by one only where the kernel cannot be told of all of them, for which it waits
    // for nobody.
    let tell_names = |names: &[Stale]| {
        if !names.is_empty() && !device.tell(&stale_names()) {
            names.iter().for_each(tell);
        }
    };
    while let Ok(told) = told.recv() {
        match told {
            Tell::Stale(stale) => {
                let (names, nodes): (Vec<_>, Vec<_>) =
                    stale.into_iter().partition(|stale| stale.directory().is_some());
                nodes.iter().for_each(tell);
                tell_names(&names);
            }
            Tell::News(news) => {
                let News { stale, echo, .. } = *news;
                let (names, nodes): (Vec<_>, Vec<_>) =
                    stale.into_iter().partition(|stale| stale.directory().is_some());
                nodes.iter().for_each(tell);
                let echoed = echoes.as_ref().zip(echo).is_some_and(|(echoes, echo)| {
                    telling.send_replace(echo.directory());
                    let echoed = echoes.echo(&echo);
                    telling.send_replace(None);
                    if let (Some(gone), Some(core)) = (echo.gone(), core.upgrade()) {
                        // It was kept for this.
                        core.view().forget(gone, 0);
                    }
                    echoed
                });
                if !echoed {
                    tell_names(&names);
                }
            }
            Tell::Current => {
                if let Some(core) = core.upgrade() {
                    core.is_current.store(true, Ordering::Release);
                }
            }
            Tell::Seen(seq) => {
                seen.send_replace(seq);
            }
        }
    }
}

/// Commits what was written to files that stay open, so that others see a log grow.
async fn commit_now_and_then(core: Weak<Core>) {
    let mut tick = tokio::time::interval(COMMIT_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut before = HashSet::new();
    loop {
        tick.tick().await;
        let Some(core) = core.upgrade() else { return };
        let dirty: HashSet<Ino> = core.view().dirty().into_iter().collect();
        for ino in &dirty {
            if before.contains(ino) {
                // Its next close says what is the matter, if anything is.
                let _ = core.commit(*ino, None).await;
            }
        }
        before = dirty;
    }
}

impl Mounted {
    /// The name by which the service knows it, `mnt_…`.
    #[must_use]
    pub fn session(&self) -> &str {
        &self.session
    }

    /// Waits until it was unmounted, or has lost what it shows; gives why, then.
    pub async fn ended(&mut self) -> Option<String> {
        tokio::select! {
            _ = &mut self.serving => None,
            lost = self.lost.wait_for(Option::is_some) => {
                lost.ok().and_then(|why| why.clone())
            }
        }
    }

    /// Ends it, once it was unmounted: commits what is not, and gives locks back. Gives how
    /// many files could not be committed.
    pub async fn end(self) -> usize {
        let mut left = 0;
        let dirty = self.core.view().dirty();
        for ino in dirty {
            left += usize::from(self.core.commit(ino, None).await.is_err());
        }
        self.core.link.end();
        // It is bounded by itself.
        let _ = self.linked.await;
        left
    }
}

impl Core {
    pub(crate) fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether what is known here counts.
    pub(crate) fn is_current(&self) -> bool {
        // By the clock, too: a process that stood still has been told nothing yet.
        let heard = *self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_current.load(Ordering::Acquire) && heard.is_some_and(|at| at.elapsed() < LEASE)
    }

    /// Whether no other mount is there. It stays so while the view is held.
    pub(crate) fn is_alone(&self) -> bool {
        self.is_alone.load(Ordering::Relaxed)
    }

    /// Has the kernel told that something is stale.
    pub(crate) fn tell(&self, tell: Tell) {
        let tells = self.tells.lock().unwrap_or_else(PoisonError::into_inner);
        // The thread ends with the mount.
        let _ = tells.send(tell);
    }

    /// Waits until every other mount has seen the journal up to an entry that changed names
    /// in these directories.
    ///
    /// The kernel holds a directory while names in it are changed. If it has to be told of a
    /// name in it meanwhile, another mount waits for that; and if that mount is who has yet
    /// to see this entry, each would wait for the other. So this ends the wait.
    pub(crate) async fn settle_names(&self, directories: [Ino; 2], seq: Seq) -> Result<(), Errno> {
        let mut telling = self.telling.subscribe();
        let held = telling.wait_for(|it| it.is_some_and(|it| directories.contains(&it)));
        tokio::select! {
            done = self.link.settle(seq) => done,
            _ = held => Ok(()),
        }
    }

    /// One at a time commits a file.
    pub(crate) fn commit_turn(&self, ino: Ino) -> Arc<tokio::sync::Mutex<()>> {
        let mut commits = self.commits.lock().unwrap_or_else(PoisonError::into_inner);
        if commits.len() > 1024 {
            commits.retain(|_, turn| Arc::strong_count(turn) > 1);
        }
        commits.entry(ino).or_default().clone()
    }
}

impl Incoming for Core {
    fn head(&self) -> Seq {
        self.view().head()
    }

    fn entry(&self, entry: &Entry, text: Option<&str>) -> Result<(), String> {
        if let Some(text) = text {
            self.contents.keep(Hash::of(text.as_bytes()), text.as_bytes());
        }
        let (news, before) = {
            let mut view = self.view();
            let before = view.moves_directory(entry).then(|| view.fresh_paths());
            (view.fold(entry).map_err(|misfit| misfit.to_string())?, before)
        };
        if let Some(before) = before.filter(|before| !before.is_empty()) {
            self.move_names(&before);
        }
        if news.is_own {
            return Ok(());
        }
        if !news.stale.is_empty() {
            self.tell(Tell::News(Box::new(news)));
        }
        self.tell(Tell::Seen(entry.seq));
        Ok(())
    }

    fn terms(&self, policy: Policy, quota: Quota) {
        self.view().set_terms(policy, quota);
        self.caught_up.send_modify(|it| it.0 = true);
    }

    fn reconnected(&self) {
        // With its locks, it has said all that it holds.
        self.keep_names_again();
        self.take_locks_again();
    }

    fn reserved(&self, id: u64, granted: bool) {
        self.kept(id, granted);
    }

    fn lock(&self, told: Told) {
        self.heard_of_lock(told);
    }

    fn alone(&self) {
        self.is_alone.store(true, Ordering::Relaxed);
    }

    fn company(&self) {
        self.keep_names();
        self.link.say(Said::Company);
    }

    fn heard(&self, said: Instant) {
        let is_first = self.heard.lock().unwrap_or_else(PoisonError::into_inner).is_none();
        if !is_first && !self.is_current() {
            // Nobody has waited until the kernel knew what came meanwhile.
            self.lapsed();
            self.tell(Tell::Current);
        }
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Some(said);
        self.caught_up.send_if_modified(|it| !std::mem::replace(&mut it.1, true));
    }

    fn lapsed(&self) {
        if self.is_current.swap(false, Ordering::AcqRel) {
            tracing::warn!("the service is not heard: what is known here does not count");
            let known = self.view().all_known();
            self.tell(Tell::Stale(known));
        }
    }

    fn lost(&self, why: String) {
        tracing::warn!(why, "the mount has lost its Volume");
        self.lost.send_replace(Some(why));
    }
}

/// The time.
pub(crate) fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}
