//! The task that owns a hot Volume.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use s0_api::documented::ConflictStatus;
use s0_tree::{ContentId, Entry, NodeId, Seq, Time};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::warn;

use super::load::load;
use super::{
    Committed, Draft, Hot, Job, Keep, Needs, Retention, Ring, Settle, Shared, Since, content_keys,
    publish, upkeep,
};
use crate::journal::{Append, AppendError, ConflictRecord, Journal, RequestRecord};
use crate::ledger::Ledger;
use crate::metrics::Metrics;
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
    pub(crate) metrics: Metrics,
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
    keeping: mpsc::Receiver<Keep>,
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
    let shared = Arc::new(Shared::new(Arc::new(committed), Ring::new(ledger.head())));
    shared.with_mounts(|all| all.wait_for(ledger.mounts(), Instant::now()));
    let (jobs, waiting) = mpsc::channel(WAITING);
    let (keeps, keeping) = mpsc::channel(WAITING);
    let task = Task {
        stores,
        volume: volume.into(),
        team: stored.record.team.clone(),
        ledger,
        retained_after: stored.retained_after,
        checkpoint,
        stale: false,
        shared: shared.clone(),
        keeping,
        upkeep: None,
    };
    let hot = Arc::new(Hot { record: stored.record, shared, jobs, keeps });
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
                Some(asked) = self.keeping.recv() => asked.answer(&mut [&mut self.ledger]),
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
        let mut admitted_again = false;
        for _ in 0..ATTEMPTS {
            match self.attempt(&mut group).await {
                Ok(settles) => {
                    settles.into_iter().for_each(|settle| settle());
                    return true;
                }
                Err(Failure::Moved) => {}
                Err(Failure::Unknown(problem)) => {
                    warn!(volume = self.volume, ?problem, "an append failed, or did not say");
                    // Those who read see what was committed, if it was.
                    let known = self.reload().await;
                    let again = known.is_ok() && !std::mem::replace(&mut admitted_again, true);
                    let (repeatable, others): (Vec<_>, Vec<_>) =
                        group.into_iter().partition(|job| again && job.needs.repeatable);
                    others.into_iter().for_each(|job| (job.fail)(problem.clone()));
                    if repeatable.is_empty() {
                        return !matches!(known, Err(Problem::NotFound(_)));
                    }
                    group = repeatable;
                }
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
        let (mut settles, mut told) = (Vec::with_capacity(group.len()), Vec::new());
        let jobs = group.len();
        for job in group {
            let mut draft = self.draft(&ledger, &append, &job.needs).await?;
            let (keep, settle) = (job.run)(&mut draft);
            if keep {
                ledger = draft.ledger;
                append.extend(draft.append);
                told.extend(draft.told);
            }
            settles.push(settle);
        }
        append.conflicts.extend(self.not_open_yet(told).await?);
        if append.is_empty() {
            // What mounts have reserved is nowhere else.
            self.ledger = ledger;
            return Ok(settles);
        }
        self.find_bases(&mut append).await?;
        append.used = ledger.tree().usage();
        let (entries, inline) = (append.entries.clone(), append.inline.clone());
        let (began, conflicts) = (Instant::now(), append.conflicts.len());
        let mut appending = self.stores.journal.append(append);
        let appended = loop {
            tokio::select! {
                done = &mut appending => break done,
                // Names wait for no disk; whether this is committed or not, they are free.
                Some(asked) = self.keeping.recv() => {
                    asked.answer(&mut [&mut self.ledger, &mut ledger]);
                }
            }
        };
        match appended {
            Ok(()) => {
                self.stores.metrics.committed(jobs, entries.len(), conflicts, began.elapsed());
            }
            Err(AppendError::HeadMoved(_)) => {
                self.stale = true;
                return Err(Failure::Moved);
            }
            Err(AppendError::Gone) => return Err(Problem::NotFound("not found").into()),
            Err(AppendError::Store(error)) => {
                self.stores.metrics.commit_failed();
                // Whether it was done is unknown, so what is known is read again.
                self.stale = true;
                return Err(Failure::Unknown(error.into()));
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
        let mut draft = Draft {
            ledger: ledger.clone(),
            append: Append::default(),
            answered: None,
            since: Ok(Since::default()),
            told: Vec::new(),
            retained_after: self.retained_after,
            time: append.time,
        };
        let Some(upload) = &needs.upload else { return Ok(draft) };
        let (replica, request) = (&upload.replica, &upload.request);
        let same =
            |record: &&RequestRecord| record.replica == *replica && record.request == *request;
        draft.answered = match append.requests.iter().find(same) {
            Some(waiting) => Some(waiting.clone()),
            None => self.stores.journal.request(&self.volume, replica, request).await?,
        };
        if let Some(after) = (upload.since)(&draft) {
            draft.since = self.since(after, replica, &append.entries).await;
        }
        Ok(draft)
    }

    /// What happened after an entry, up to what waits to be committed.
    async fn since(&self, after: Seq, replica: &str, waiting: &[Entry]) -> Result<Since, Problem> {
        let mut since = Since::default();
        match self.shared.recent(after, usize::MAX) {
            Some(recent) => recent.iter().for_each(|one| since.note(&one.entry, replica)),
            None => {
                let mut at = after;
                while at < self.ledger.head() {
                    let page = self.stores.journal.entries(&self.volume, at, PAGE).await?;
                    match page.first() {
                        Some(first) if first.seq == at.next() => {}
                        // What comes next was let go while this was asked. Without
                        // it, what others did would be written over unseen.
                        first => {
                            let floor = first.map_or(self.ledger.head().0, |it| it.seq.0 - 1);
                            return Err(Problem::reseed(Seq(floor), self.ledger.head()));
                        }
                    }
                    for entry in page {
                        at = entry.seq;
                        since.note(&Arc::new(entry), replica);
                    }
                }
            }
        }
        for entry in waiting.iter().filter(|entry| entry.seq > after) {
            since.note(&Arc::new(entry.clone()), replica);
        }
        Ok(since)
    }

    /// Those conflicts of which there is no open record with the same path, reason
    /// and actor.
    async fn not_open_yet(
        &self,
        told: Vec<ConflictRecord>,
    ) -> Result<Vec<ConflictRecord>, Problem> {
        if told.is_empty() {
            return Ok(told);
        }
        let status = Some(ConflictStatus::Open.as_str().to_owned());
        let mut open = self.stores.journal.conflicts(&self.volume, status, usize::MAX).await?;
        let known = open.len();
        for record in told {
            let sandbox = |record: &ConflictRecord| record.metadata.get("sandbox_id").cloned();
            let same = |other: &ConflictRecord| {
                (&other.path, &other.old_path, &other.reason, &other.replica)
                    == (&record.path, &record.old_path, &record.reason, &record.replica)
                    && sandbox(other) == sandbox(&record)
            };
            if !open.iter().any(same) {
                open.push(record);
            }
        }
        Ok(open.split_off(known))
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
        let before = std::mem::replace(&mut self.ledger, ledger);
        // What mounts have reserved is nowhere else.
        self.ledger.reserve_as(before);
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
    /// Whether the append was done is not known.
    Unknown(Problem),
    Problem(Problem),
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}
