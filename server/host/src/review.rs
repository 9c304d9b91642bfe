//! The review of what sandboxes wrote here: fed from the replica, kept beside its
//! state, decided on by guests.
//!
//! The replica remembers each such write until it was taken in here and written
//! down. So neither a crash nor a pause loses one; at worst one is taken in twice.

mod decide;
mod observe;

use std::collections::VecDeque;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use s0_replica::engine::Notice;
use s0_replica::shell::run;
use s0_replica::state::Applied;
use s0_review::{Body, Hunk, Observed, Review, Version, Write};
use s0_tree::{ContentId, Time, TreePath};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Mutex, MutexGuard, watch};

use crate::host::Host;
use crate::platform;
use crate::protocol::{FileView, ItemView, ReviewView};
use observe::Seen;

/// Writes that are taken in at a time.
const AT_ONCE: usize = 256;
/// Contents that are kept at hand: the next write begins with what this one left.
const AT_HAND: usize = 64;
/// How long to wait before something is tried again.
const AGAIN: Duration = Duration::from_secs(2);

/// The review of one workspace.
pub(crate) struct Reviewer {
    file: PathBuf,
    inner: Mutex<Inner>,
    version: watch::Sender<Version>,
    /// The version that the file holds.
    written: AtomicU64,
}

struct Inner {
    review: Review,
    recent: VecDeque<(ContentId, Arc<[u8]>)>,
}

impl Reviewer {
    /// The review that was kept at `file`. One that cannot be read is put aside.
    pub(crate) fn open(file: PathBuf) -> Self {
        let review = match std::fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                let aside = file.with_extension("damaged");
                tracing::error!(%error, "the review cannot be read; it is {} now", aside.display());
                let _ = std::fs::rename(&file, aside);
                Review::default()
            }),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::error!(%error, "the review cannot be read");
                }
                Review::default()
            }
        };
        let written = review.version().0.into();
        let version = watch::Sender::new(review.version());
        Self {
            file,
            inner: Mutex::new(Inner { review, recent: VecDeque::new() }),
            version,
            written,
        }
    }

    /// The version of the whole, as it changes.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Version> {
        self.version.subscribe()
    }

    /// Writes the review down and says that it has changed, if it has. Says whether what
    /// it holds would outlast this process.
    fn keep(&self, review: &Review) -> bool {
        if review.version().0 == self.written.load(Ordering::SeqCst) {
            return true;
        }
        let staged = self.file.with_extension("new");
        let write = || {
            let mut out = platform::private_file(&staged, false)?;
            out.set_len(0)?;
            out.write_all(&serde_json::to_vec(review)?)?;
            out.sync_all()?;
            std::fs::rename(&staged, &self.file)
        };
        let written = write();
        if written.is_ok() {
            self.written.store(review.version().0, Ordering::SeqCst);
        }
        if let Err(error) = &written {
            tracing::error!(%error, "the review cannot be kept; it goes on in memory");
        }
        self.version.send_replace(review.version());
        written.is_ok()
    }
}

/// Feeds the review as long as the host runs.
pub(crate) async fn run(host: Arc<Host>) {
    let mut news = host.replica.subscribe();
    // What is under review may have been edited while no host ran.
    observe_all(&host).await;
    let mut again = true;
    loop {
        if again {
            again = match take_in(&host).await {
                Ok(more) => more,
                Err(error) => {
                    tracing::debug!(error, "what was written is reviewed later");
                    tokio::time::sleep(AGAIN).await;
                    true
                }
            };
        }
        if again {
            continue;
        }
        match news.recv().await {
            Ok(run::News::Notice(Notice::Applied { .. })) => again = true,
            Ok(run::News::Notice(Notice::Uploaded { path, .. })) => observe(&host, &path).await,
            Ok(_) => {}
            Err(RecvError::Lagged(_)) => {
                observe_all(&host).await;
                again = true;
            }
            Err(RecvError::Closed) => return,
        }
    }
}

/// Takes in what the replica remembers. Says whether there is more.
async fn take_in(host: &Host) -> Result<bool, String> {
    let mut inner = host.review.inner.lock().await;
    let asked = host.replica.ask(|engine, _| {
        let applied = engine.state().applied.iter().take(AT_ONCE);
        applied.map(|(at, it)| (*at, it.clone())).collect::<Vec<_>>()
    });
    let applied = asked.await.map_err(|error| error.to_string())?;
    if applied.is_empty() {
        return Ok(false);
    }
    for (_, it) in &applied {
        inner.take_in(host, it).await?;
    }
    if !host.review.keep(&inner.review) {
        // The replica remembers them until they are written down.
        return Err("the review cannot be kept".into());
    }
    let numbers: Vec<u64> = applied.iter().map(|(at, _)| *at).collect();
    let heard = host.replica.ask(move |engine, _| engine.heard(&numbers));
    heard.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    Ok(applied.len() == AT_ONCE)
}

impl Inner {
    async fn take_in(&mut self, host: &Host, it: &Applied) -> Result<(), String> {
        let before = self.seen_as(host, it.before.as_ref()).await?;
        let after = self.seen_as(host, it.after.as_ref()).await?;
        let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let time = Time(i64::try_from(time.as_nanos()).unwrap_or(i64::MAX));
        let write = Write { seq: it.version, actor: it.actor.clone(), time };
        let (before, after) =
            (before.as_ref().map(Seen::observed), after.as_ref().map(Seen::observed));
        match (&it.from, &after) {
            (Some(from), Some(after)) => {
                self.review.renamed(from, &it.path, after, None, &write);
            }
            _ => self.review.applied(&it.path, before.as_ref(), after.as_ref(), &write),
        }
        Ok(())
    }
}

/// The review, with all that the replica has applied: what the disk holds beyond that
/// is the user's.
async fn caught_up(host: &Host) -> MutexGuard<'_, Inner> {
    // What cannot be taken in now is taken in later, and then not as the user's.
    while let Ok(true) = take_in(host).await {}
    host.review.inner.lock().await
}

/// What is at a path counts as the user's, as far as it is not known.
async fn observe(host: &Host, path: &TreePath) {
    let mut inner = caught_up(host).await;
    inner.observe(host, path).await;
    host.review.keep(&inner.review);
}

async fn observe_all(host: &Host) {
    let mut inner = caught_up(host).await;
    let paths: Vec<TreePath> = inner.review.items().map(|item| item.path.clone()).collect();
    for path in paths {
        inner.observe(host, &path).await;
    }
    host.review.keep(&inner.review);
}

impl Inner {
    async fn observe(&mut self, host: &Host, path: &TreePath) {
        if self.review.item(path).is_none() {
            return;
        }
        match observe::at(host, path).await {
            Ok(seen) => {
                self.review.edited(path, seen.as_ref().map(Seen::observed).as_ref());
            }
            Err(error) => tracing::debug!(%path, error, "it cannot be looked at for the review"),
        }
    }
}

/// All that is to be reviewed.
pub(crate) async fn view(host: &Host) -> ReviewView {
    let inner = caught_up(host).await;
    let review = &inner.review;
    let items = review.items().map(|item| {
        let lines = review.hunks(item.path).iter().fold((0, 0), |(added, removed), hunk| {
            (added + hunk.current.len(), removed + hunk.reviewed.len())
        });
        ItemView {
            path: item.path.clone(),
            version: item.version,
            change: item.change,
            hunks: item.hunks,
            lines,
            renamed_from: item.renamed_from.cloned(),
            mode: item.mode,
            edited: item.edited,
            writes: item.writes.into_iter().cloned().collect(),
            now: item.now.cloned(),
        }
    });
    ReviewView {
        version: review.version(),
        items: items.collect(),
        reviewed: review.reviewed().cloned().collect(),
        unlisted: review.unlisted(),
    }
}

/// One file as it is now.
pub(crate) async fn file(host: &Host, path: &TreePath) -> FileView {
    let mut inner = caught_up(host).await;
    let Ok(seen) = observe::at(host, path).await else { return FileView::default() };
    let observed = seen.as_ref().map(Seen::observed);
    inner.review.edited(path, observed.as_ref());
    host.review.keep(&inner.review);
    let version = inner.review.item(path).map(|item| item.version);
    let text = |observed: &Observed<'_>| {
        observed.bytes.and_then(|bytes| String::from_utf8(bytes.to_vec()).ok())
    };
    let hunks: Vec<Hunk> = inner.review.hunks(path);
    let reviewed = match inner.review.baseline(path) {
        Some(Body::Text(text)) => Some(text),
        _ => None,
    };
    FileView { version, reviewed, current: observed.as_ref().and_then(text), hunks }
}

pub(crate) use decide::{keep, rename, revert};
