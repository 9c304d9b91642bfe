//! A hot Volume: the one task that admits its changes, and what others see.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use s0_api::documented::CompatibilityIssue;
use s0_api::sync::Capabilities;
use s0_tree::{
    Change, Content, Entry, News, Origin, Policy, Reason, Seq, Time, TreePath, Usage,
    portable_issues,
};
use serde_json::{Map, Value, json};
use tokio::sync::{mpsc, oneshot, watch};

use crate::journal::{Append, ConflictRecord, RequestRecord, VolumeRecord};
use crate::ledger::{Admitted, Ledger, NewConflict};
use crate::mounts::Mounts;
use crate::problem::Problem;

mod load;
mod ring;
mod since;
mod task;
mod upkeep;

pub(crate) use ring::{Published, Ring, event_bytes, publish};
pub(crate) use since::Since;
pub(crate) use task::{PAGE, Stores, open};
pub(crate) use upkeep::{Retention, pack, unpack};

/// How hard a tree is packed: half of it are hashes, which nothing makes smaller.
const PACKED: i32 = 1;

/// What is committed, at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Committed {
    pub(crate) ledger: Ledger,
    /// Entries up to this one are gone.
    pub(crate) retained_after: Seq,
}

impl Committed {
    pub(crate) fn head(&self) -> Seq {
        self.ledger.head()
    }
}

/// What the task shows to all who read.
#[derive(Debug)]
pub(crate) struct Shared {
    committed: watch::Sender<Arc<Committed>>,
    ring: Mutex<Ring>,
    gone: AtomicBool,
    /// The tree, packed for replicas that start: many sandboxes start at once, and a
    /// host starts again on a Volume that rests.
    packed: tokio::sync::Mutex<Option<Packed>>,
    mounts: Mutex<Mounts>,
    /// Tells that mounts came, went, or saw something.
    mounts_changed: watch::Sender<()>,
}

/// A packed tree, and what it is of.
#[derive(Debug)]
struct Packed {
    epoch: String,
    head: Seq,
    bytes: Bytes,
}

impl Shared {
    fn new(committed: Arc<Committed>, ring: Ring) -> Self {
        Self {
            committed: watch::Sender::new(committed),
            ring: Mutex::new(ring),
            gone: AtomicBool::new(false),
            packed: tokio::sync::Mutex::default(),
            mounts: Mutex::default(),
            mounts_changed: watch::Sender::default(),
        }
    }

    /// Does something with the mounts of the Volume, and tells those who wait for them.
    pub(crate) fn with_mounts<T>(&self, work: impl FnOnce(&mut Mounts) -> T) -> T {
        let done = work(&mut self.mounts.lock().unwrap_or_else(PoisonError::into_inner));
        self.mounts_changed.send_replace(());
        done
    }

    /// Looks at the mounts of the Volume.
    pub(crate) fn mounts<T>(&self, look: impl FnOnce(&Mounts) -> T) -> T {
        look(&self.mounts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Tells whenever mounts came, went, or saw something.
    pub(crate) fn mounts_changed(&self) -> watch::Receiver<()> {
        self.mounts_changed.subscribe()
    }

    /// The recent entries after `after`, when they are still in memory.
    pub(crate) fn recent(&self, after: Seq, limit: usize) -> Option<Vec<Arc<Published>>> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner).after(after, limit)
    }
}

/// A hot Volume, as requests hold it.
#[derive(Debug)]
pub(crate) struct Hot {
    pub(crate) record: VolumeRecord,
    pub(crate) shared: Arc<Shared>,
    jobs: mpsc::Sender<Job>,
    keeps: mpsc::Sender<Keep>,
}

/// What a mount asks of a name that it is about to make. Nothing of it is stored, so it is
/// answered while a group is being appended.
enum Keep {
    Reserve { mount: Arc<str>, path: TreePath, granted: oneshot::Sender<bool> },
    Release { mount: Arc<str>, path: TreePath },
}

impl Keep {
    /// Answers by all that the ledger may be next.
    fn answer(self, ledgers: &mut [&mut Ledger]) {
        match self {
            Self::Reserve { mount, path, granted } => {
                let free = ledgers.iter().all(|ledger| ledger.is_free(&mount, &path));
                if free {
                    ledgers.iter_mut().for_each(|ledger| ledger.reserve(&mount, &path));
                }
                // Whoever asked may be gone; then all that it kept is released.
                let _ = granted.send(free);
            }
            Self::Release { mount, path } => {
                ledgers.iter_mut().for_each(|ledger| ledger.release(&mount, Some(&path)));
            }
        }
    }
}

/// What the task has to know of a job before it runs.
#[derive(Default)]
pub(crate) struct Needs {
    /// It is known again by its request's record: what was committed without a
    /// word can be admitted again, and is answered and not done again.
    pub(crate) repeatable: bool,
    /// What is to be looked up for a documented upload.
    pub(crate) upload: Option<UploadNeeds>,
}

/// What a documented upload needs to know.
pub(crate) struct UploadNeeds {
    /// The replica that sent it.
    pub(crate) replica: String,
    /// The client's name for it.
    pub(crate) request: String,
    /// The entry after which it needs to know what others did. Asked when its
    /// request has been looked up; for most uploads there is nothing to read.
    pub(crate) since: Box<Base>,
}

type Base = dyn Fn(&Draft) -> Option<Seq> + Send + Sync;
type Settle = Box<dyn FnOnce() + Send>;
type Run = dyn FnMut(&mut Draft) -> (bool, Settle) + Send;

/// Something to admit. It may run more than once, each time on a fresh draft:
/// when another service was faster, what it admitted before is dropped.
struct Job {
    needs: Needs,
    /// Runs; says whether its part of the draft is to be kept, and gives what
    /// answers once that is committed.
    run: Box<Run>,
    /// Answers that it was not committed.
    fail: Box<dyn FnOnce(Problem) + Send>,
}

/// What is admitted and not yet committed.
pub(crate) struct Draft {
    pub(crate) ledger: Ledger,
    pub(crate) append: Append,
    /// The request that the job needed to know, if it was answered before.
    pub(crate) answered: Option<RequestRecord>,
    /// What the job needed to know of others, or why that is not known.
    pub(crate) since: Result<Since, Problem>,
    /// Conflicts that those who asked were told of. They are recorded for others,
    /// once, however often somebody tries.
    told: Vec<ConflictRecord>,
    pub(crate) retained_after: Seq,
    /// When the group is admitted.
    pub(crate) time: Time,
}

impl Draft {
    /// Admits changes that nobody sends again, and notes what is to be kept of
    /// them: whatever is refused becomes a conflict. What each adds to its own
    /// metadata comes from `about`.
    pub(crate) fn admit(
        &mut self,
        origin: &Origin,
        changes: &[Change],
        news: &News,
        about: &dyn Fn(&Self, &NewConflict) -> Map<String, Value>,
    ) -> Result<Admitted, Problem> {
        let used = self.ledger.tree().usage();
        let mut admitted = self
            .ledger
            .admit(origin, changes, news, &mut new_id)
            .map_err(|(_, why)| Problem::BadRequest(format!("invalid sync change: {why}")))?;
        self.check_room(used)?;
        admitted.record_fallen(changes, &mut new_id);
        for conflict in &admitted.conflicts {
            let more = about(self, conflict);
            let record = self.conflict_record(conflict, more);
            self.append.conflicts.push(record);
        }
        self.note_entries(&admitted.entries);
        Ok(admitted)
    }

    /// The same for changes that are all admitted or not at all; inside, the
    /// reason why not. A name that a replica cannot hold is recorded as a
    /// conflict even so, so that its people learn of it.
    pub(crate) fn admit_whole(
        &mut self,
        origin: &Origin,
        changes: &[Change],
    ) -> Result<Result<(), Problem>, Problem> {
        let before = self.ledger.clone();
        let admitted = self
            .ledger
            .admit(origin, changes, &News::default(), &mut new_id)
            .map_err(|(_, why)| Problem::bad(why))?;
        self.check_room(before.tree().usage())?;
        let Some(conflict) = admitted.conflicts.first() else {
            self.note_entries(&admitted.entries);
            return Ok(Ok(()));
        };
        self.ledger = before;
        if conflict.reason.is_about_names() {
            let record = self.conflict_record(conflict, Map::new());
            self.told.push(record);
        }
        let reason = serde_json::to_value(conflict.reason).unwrap_or_default();
        let why = match conflict.reason {
            Reason::DirectoryNotEmpty => "directory not empty".into(),
            Reason::ConcurrentUpdate if conflict.existing.is_some() => "path already exists".into(),
            Reason::ConcurrentUpdate | Reason::ParentChanged => "path is not a directory".into(),
            Reason::PathTooLong => "the path would be too long".into(),
            _ => format!("the name cannot be held: {}", reason.as_str().unwrap_or_default()),
        };
        let details = json!({"reason": reason, "path": conflict.path});
        Ok(Err(Problem::Conflict(why, Some(details))))
    }

    /// Refuses all that was admitted since this much was used, when there is no room.
    fn check_room(&self, used: Usage) -> Result<(), Problem> {
        let quota = self.ledger.quota();
        if quota.allows(used, self.ledger.tree().usage()) {
            return Ok(());
        }
        Err(Problem::NoRoom(quota, used))
    }

    /// Records a conflict for others, if it is not recorded yet.
    pub(crate) fn tell(&mut self, record: ConflictRecord) {
        self.told.push(record);
    }

    pub(crate) fn note_entries(&mut self, entries: &[Entry]) {
        let contents = entries.iter().filter_map(Entry::content);
        self.append.names.extend(contents.map(|content| content.id));
        self.append.entries.extend_from_slice(entries);
    }

    /// What is recorded of a conflict. It keeps all contents that it names readable.
    pub(crate) fn conflict_record(
        &mut self,
        conflict: &NewConflict,
        more: Map<String, Value>,
    ) -> ConflictRecord {
        let mut metadata = conflict_metadata(conflict, self.ledger.policy());
        metadata.extend(more);
        let contents = [conflict.change.content(), conflict.existing_content];
        self.append.names.extend(contents.into_iter().flatten().map(|content| content.id));
        let reason = serde_json::to_value(conflict.reason).unwrap_or_default();
        ConflictRecord {
            id: conflict.id.clone(),
            replica: conflict.replica.clone(),
            path: conflict.change.path().to_string(),
            old_path: conflict.change.old_path().map(ToString::to_string),
            existing: conflict.existing.map(|(_, version)| version),
            reason: reason.as_str().unwrap_or_default().into(),
            status: s0_api::documented::ConflictStatus::Open,
            metadata: Value::Object(metadata),
            created: conflict.time,
            updated: conflict.time,
        }
    }

    pub(crate) fn note_replica(&mut self, id: &str) {
        self.append.replicas.retain(|other| &*other.id != id);
        self.append.replicas.extend(self.ledger.replica(id).cloned());
    }
}

/// What every conflict says of itself.
fn conflict_metadata(conflict: &NewConflict, policy: Policy) -> Map<String, Value> {
    let mut all = Map::new();
    let mut put = |key: &str, value: Value| {
        all.insert(key.into(), value);
    };
    put("change", json!(conflict.change));
    put("existing_path", json!(conflict.path));
    if conflict.reason.is_about_names() {
        put("issues", json!(issues(conflict, policy)));
        put("capabilities", json!(Capabilities::from(policy)));
    }
    if let Some(first) = &conflict.fell_with {
        put("fell_with", json!(first));
    }
    if let Some(sandbox) = &conflict.sandbox {
        put("sandbox_id", json!(sandbox));
    }
    if let Some(process) = &conflict.change.by {
        put("process", json!(process));
    }
    if let Some((node, _)) = conflict.existing {
        put("existing_node", json!(node));
    }
    if let Some((node, version)) = conflict.base {
        put("base_node", json!(node));
        put("base_version", json!(version));
    }
    for (content, key) in
        [(conflict.change.content(), ""), (conflict.existing_content, "existing_")]
    {
        for (name, value) in content.map(|content| content_keys(key, content)).into_iter().flatten()
        {
            put(&name, value);
        }
    }
    all
}

/// What is the matter with a name.
fn issues(conflict: &NewConflict, policy: Policy) -> Vec<CompatibilityIssue> {
    let name = conflict.at.name();
    let own = name.iter().flat_map(|name| portable_issues(name.as_str(), policy));
    let own: Vec<_> = own.map(|issue| CompatibilityIssue::of_name(&conflict.at, issue)).collect();
    if !own.is_empty() {
        return own;
    }
    let both = BTreeSet::from([conflict.at.clone(), conflict.path.clone()]);
    vec![CompatibilityIssue::of_collision(&both)]
}

/// How a conflict's metadata name a content.
pub(crate) fn content_keys(prefix: &str, content: Content) -> [(String, Value); 2] {
    [
        (format!("{prefix}content_ref"), json!(content.id)),
        (format!("{prefix}size_bytes"), json!(content.size)),
    ]
}

/// A new random id, as UUID.
pub(crate) fn new_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

type Waiting<T> = Mutex<Option<oneshot::Sender<Result<T, Problem>>>>;

fn give<T>(waiting: &Waiting<T>, result: Result<T, Problem>) {
    let waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(waiting) = waiting {
        // Whoever asked may have hung up; it is done all the same.
        let _ = waiting.send(result);
    }
}

/// Something that is in line to be committed.
pub(crate) struct Committing<T>(oneshot::Receiver<Result<T, Problem>>);

impl<T> Committing<T> {
    /// Waits until it is committed.
    pub(crate) async fn done(self) -> Result<T, Problem> {
        self.0.await.map_err(|_| Problem::NotFound("not found"))?
    }
}

impl Hot {
    /// What is committed now.
    pub(crate) fn committed(&self) -> Arc<Committed> {
        self.shared.committed.borrow().clone()
    }

    /// The tree of what is committed now, packed, and what that is.
    pub(crate) async fn packed_tree(&self) -> Result<(Arc<Committed>, Bytes), Problem> {
        let mut packed = self.shared.packed.lock().await;
        let committed = self.committed();
        let (epoch, head) = (committed.ledger.epoch(), committed.head());
        if let Some(packed) = &*packed
            && (packed.epoch.as_str(), packed.head) == (epoch, head)
        {
            return Ok((committed.clone(), packed.bytes.clone()));
        }
        let tree = committed.ledger.tree().clone();
        let work = move || zstd::encode_all(&tree.encode()[..], PACKED);
        let failed = |error: &dyn std::fmt::Display| Problem::Internal(error.to_string());
        let bytes = tokio::task::spawn_blocking(work).await.map_err(|e| failed(&e))?;
        let bytes = Bytes::from(bytes.map_err(|e| failed(&e))?);
        *packed = Some(Packed { epoch: epoch.into(), head, bytes: bytes.clone() });
        Ok((committed.clone(), bytes))
    }

    /// Says that the Volume was deleted, to those who read along.
    pub(crate) fn close(&self) {
        self.shared.gone.store(true, Ordering::Release);
        self.shared.committed.send_modify(|_| {});
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.shared.gone.load(Ordering::Acquire)
    }

    /// Whether the task has ended: nothing can be committed through this any more.
    pub(crate) fn has_ended(&self) -> bool {
        self.jobs.is_closed()
    }

    /// Tells of every commit from now on.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<Committed>> {
        self.shared.committed.subscribe()
    }

    /// Keeps a name for a mount. Whether it was free.
    pub(crate) async fn reserve(&self, mount: Arc<str>, path: TreePath) -> Result<bool, Problem> {
        let gone = || Problem::NotFound("not found");
        let (granted, answer) = oneshot::channel();
        let asked = Keep::Reserve { mount, path, granted };
        self.keeps.send(asked).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())
    }

    /// Gives up a name that was kept for a mount.
    pub(crate) async fn release(&self, mount: Arc<str>, path: TreePath) {
        // When the task has ended, nothing is kept any more.
        let _ = self.keeps.send(Keep::Release { mount, path }).await;
    }

    /// Has `work` admitted and committed, together with what others wait for.
    /// When it fails, what it did to the draft is dropped.
    pub(crate) async fn commit<T: Send + 'static>(
        &self,
        needs: Needs,
        work: impl FnMut(&mut Draft) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        self.begin(needs, work).await?.done().await
    }

    /// The same, in two steps: first it is in line, behind all that was before it.
    pub(crate) async fn begin<T: Send + 'static>(
        &self,
        needs: Needs,
        mut work: impl FnMut(&mut Draft) -> Result<T, Problem> + Send + 'static,
    ) -> Result<Committing<T>, Problem> {
        let (answer, answered) = oneshot::channel();
        let answer = Arc::new(Mutex::new(Some(answer)));
        let failed = answer.clone();
        let run = move |draft: &mut Draft| {
            let result = work(draft);
            let keep = result.is_ok();
            let answer = answer.clone();
            let settle: Settle = Box::new(move || give(&answer, result));
            (keep, settle)
        };
        let job = Job {
            needs,
            run: Box::new(run),
            fail: Box::new(move |problem| give(&failed, Err(problem))),
        };
        let gone = || Problem::NotFound("not found");
        self.jobs.send(job).await.map_err(|_| gone())?;
        Ok(Committing(answered))
    }
}
