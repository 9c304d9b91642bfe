//! The task that owns a hot Volume.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use s0_tree::{ContentId, Entry, NodeId, Seq, Time};
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tracing::warn;

use super::load::load;
use super::{
    Committed, Draft, Hot, Job, Needs, Retention, Ring, Settle, Shared, content_keys, publish, upkeep,
};
use crate::journal::{Append, AppendError, Journal, RequestRecord};
use crate::ledger::Ledger;
use crate::problem::Problem;

/// How many jobs may wait; more must wait to wait.
const WAITING: usize = 256;
/// How many jobs commit together.
const GROUP: usize = 256;
/// How often others may be faster before it is called a failure.
const ATTEMPTS: usize = 8;
/// How many entries are read at once.
pub(crate) const PAGE: usize = 1024;

/// What a Volume's task works with.
#[derive(Clone)]
pub(crate) struct Stores {
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) retention: Retention,
    pub(crate) clock: fn() -> Time,
}

struct Task {
    stores: Stores,
    volume: String,
    team: String,
    ledger: Ledger,
    retained_after: Seq,
    checkpoint: Seq,
    /// The journal may hold more than the ledger knows.
    stale: bool,
    shared: Arc<Shared>,
    upkeep: Option<JoinHandle<Option<upkeep::Done>>>,
}

/// Brings a Volume into memory and starts its task. `forget` is asked when
/// nothing happened for a while; it says whether the Volume was let go.
pub(crate) async fn open(
    stores: Stores,
    volume: &str,
    idle: Duration,
    forget: impl Fn() -> bool + Send + 'static,
) -> Result<Option<Arc<Hot>>, Problem> {
    let Some((stored, ledger, checkpoint)) = load(&*stores.journal, volume).await? else {
        return Ok(None);
    };
    let committed = Committed { ledger: ledger.clone(), retained_after: stored.retained_after };
    let shared = Arc::new(Shared {
        committed: watch::Sender::new(Arc::new(committed)),
        ring: Mutex::new(Ring::new(ledger.head())),
        gone: AtomicBool::new(false),
    });
    let (jobs, waiting) = mpsc::channel(WAITING);
    let task = Task {
        stores,
        volume: volume.into(),
        team: stored.record.team.clone(),
        ledger,
        retained_after: stored.retained_after,
        checkpoint,
        stale: false,
        shared: shared.clone(),
        upkeep: None,
    };
    let hot = Arc::new(Hot { record: stored.record, shared, jobs });
    tokio::spawn(task.run(waiting, idle, forget));
    Ok(Some(hot))
}

impl Task {
    async fn run(
        mut self,
        mut waiting: mpsc::Receiver<Job>,
        idle: Duration,
        forget: impl Fn() -> bool,
    ) {
        loop {
            tokio::select! {
                first = waiting.recv() => {
                    let Some(first) = first else { break };
                    let mut group = vec![first];
                    while group.len() < GROUP {
                        let Ok(next) = waiting.try_recv() else { break };
                        group.push(next);
                    }
                    if !self.commit(group).await {
                        break;
                    }
                    self.keep_up();
                }
                done = async { match &mut self.upkeep {
                    Some(running) => running.await,
                    None => std::future::pending().await,
                } } => {
                    self.upkeep = None;
                    if let Ok(Some(done)) = done {
                        self.checkpoint = done.checkpoint;
                        self.retained_after = self.retained_after.max(done.retained_after);
                        self.show();
                    }
                }
                () = tokio::time::sleep(idle) => {
                    if self.upkeep.is_none() && forget() {
                        break;
                    }
                }
            }
        }
    }

    /// Commits a group. False when the Volume is gone.
    async fn commit(&mut self, mut group: Vec<Job>) -> bool {
        for _ in 0..ATTEMPTS {
            match self.attempt(&mut group).await {
                Ok(settles) => {
                    settles.into_iter().for_each(|settle| settle());
                    return true;
                }
                Err(Failure::Moved) => {}
                Err(Failure::Problem(problem)) => {
                    warn!(volume = self.volume, ?problem, "a group was not committed");
                    group.into_iter().for_each(|job| (job.fail)(problem.clone()));
                    return !matches!(problem, Problem::NotFound(_));
                }
            }
        }
        let problem = Problem::Unavailable("others were faster every time".into());
        group.into_iter().for_each(|job| (job.fail)(problem.clone()));
        true
    }

    /// Admits a group on a draft, appends it, and shows it.
    async fn attempt(&mut self, group: &mut [Job]) -> Result<Vec<Settle>, Failure> {
        if self.stale {
            self.reload().await?;
        }
        let mut ledger = self.ledger.clone();
        let mut append = Append {
            volume: self.volume.clone(),
            head: ledger.head(),
            time: (self.stores.clock)(),
            ..Append::default()
        };
        let mut settles = Vec::with_capacity(group.len());
        for job in group {
            let mut draft = self.draft(&ledger, &append, &job.needs).await?;
            let (keep, settle) = (job.run)(&mut draft);
            if keep {
                ledger = draft.ledger;
                append.extend(draft.append);
            }
            settles.push(settle);
        }
        if append.is_empty() {
            return Ok(settles);
        }
        self.find_bases(&mut append).await?;
        let (entries, inline) = (append.entries.clone(), append.inline.clone());
        match self.stores.journal.append(append).await {
            Ok(()) => {}
            Err(AppendError::HeadMoved(_)) => {
                self.stale = true;
                return Err(Failure::Moved);
            }
            Err(AppendError::Gone) => return Err(Problem::NotFound("not found").into()),
            Err(AppendError::Store(error)) => {
                // Whether it was done is unknown, so what is known is read again.
                self.stale = true;
                return Err(Problem::from(error).into());
            }
        }
        self.ledger = ledger;
        self.publish(entries, inline.into_iter().collect()).await;
        self.show();
        Ok(settles)
    }

    /// A draft for the next job, with what it needs to know.
    async fn draft(
        &self,
        ledger: &Ledger,
        append: &Append,
        needs: &Needs,
    ) -> Result<Draft, Problem> {
        let mut answered = None;
        if let Some((replica, request)) = &needs.request {
            let same =
                |record: &&RequestRecord| record.replica == *replica && record.request == *request;
            answered = match append.requests.iter().find(same) {
                Some(waiting) => Some(waiting.clone()),
                None => self.stores.journal.request(&self.volume, replica, request).await?,
            };
        }
        let mut entries = Vec::new();
        if let Some(after) = needs.entries_after.filter(|after| *after < ledger.head()) {
            entries = self.committed_after(after).await?;
            let new = append.entries.iter().filter(|entry| entry.seq > after);
            entries.extend(new.cloned().map(Arc::new));
        }
        Ok(Draft {
            ledger: ledger.clone(),
            append: Append::default(),
            answered,
            entries,
            retained_after: self.retained_after,
            time: append.time,
        })
    }

    async fn committed_after(&self, after: Seq) -> Result<Vec<Arc<Entry>>, Problem> {
        if let Some(recent) = self.shared.recent(after, usize::MAX) {
            return Ok(recent.iter().map(|published| published.entry.clone()).collect());
        }
        let (mut found, mut at) = (Vec::new(), after);
        while at < self.ledger.head() {
            let page = self.stores.journal.entries(&self.volume, at, PAGE).await?;
            let Some(last) = page.last() else { break };
            at = last.seq;
            found.extend(page.into_iter().map(Arc::new));
        }
        Ok(found)
    }

    /// Finds the contents that both sides of new conflicts came from, as far as
    /// the journal still knows.
    async fn find_bases(&self, append: &mut Append) -> Result<(), Problem> {
        for at in 0..append.conflicts.len() {
            let metadata = &append.conflicts[at].metadata;
            let number = |key: &str| metadata.get(key).and_then(Value::as_u64);
            let (Some(node), Some(version)) = (number("base_node"), number("base_version")) else {
                continue;
            };
            let (node, version) = (NodeId(node), Seq(version));
            let of_node = |entry: &&Entry| entry.node() == node && entry.seq <= version;
            let here = append.entries.iter().rev().filter(of_node);
            let base = match here.filter_map(Entry::content).next() {
                Some(content) => Some(content),
                None => self.stores.journal.content_of(&self.volume, node, version).await?,
            };
            if let (Some(content), Value::Object(metadata)) =
                (base, &mut append.conflicts[at].metadata)
            {
                metadata.extend(content_keys("base_", content));
                append.names.push(content.id);
            }
        }
        Ok(())
    }

    /// Puts committed entries where streams find them.
    async fn publish(&self, entries: Vec<Entry>, mut inline: HashMap<ContentId, Bytes>) {
        let lacking: Vec<ContentId> = entries
            .iter()
            .filter_map(Entry::content)
            .filter(|content| content.is_inline() && !inline.contains_key(&content.id))
            .map(|content| content.id)
            .collect();
        if !lacking.is_empty() {
            // Without its text an event only costs its reader one request more.
            inline
                .extend(self.stores.journal.inline(&self.team, lacking).await.unwrap_or_default());
        }
        let mut ring = self.shared.ring.lock().unwrap_or_else(PoisonError::into_inner);
        for entry in entries {
            ring.push(publish(entry, &inline));
        }
    }

    fn show(&self) {
        let committed =
            Committed { ledger: self.ledger.clone(), retained_after: self.retained_after };
        self.shared.committed.send_replace(Arc::new(committed));
    }

    /// Reads again what is stored, after another service wrote or a write failed.
    async fn reload(&mut self) -> Result<(), Problem> {
        let loaded = load(&*self.stores.journal, &self.volume).await?;
        let (stored, ledger, checkpoint) = loaded.ok_or(Problem::NotFound("not found"))?;
        self.retained_after = stored.retained_after;
        self.checkpoint = checkpoint;
        self.ledger = ledger;
        // Streams that need what the ring does not have read the journal.
        *self.shared.ring.lock().unwrap_or_else(PoisonError::into_inner) =
            Ring::new(self.ledger.head());
        self.stale = false;
        self.show();
        Ok(())
    }

    /// Starts a checkpoint when enough has happened since the last.
    fn keep_up(&mut self) {
        let since = self.ledger.head().0.saturating_sub(self.checkpoint.0);
        if self.upkeep.is_none() && since >= self.stores.retention.checkpoint_every() {
            let replicas = self.ledger.replicas().cloned().collect();
            let work = upkeep::run(
                self.stores.clone(),
                self.volume.clone(),
                self.ledger.tree().clone(),
                self.retained_after,
                replicas,
            );
            self.upkeep = Some(tokio::spawn(work));
        }
    }
}

/// Why a group was not committed.
enum Failure {
    /// Another service appended first: admit again, on what it made.
    Moved,
    Problem(Problem),
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}
