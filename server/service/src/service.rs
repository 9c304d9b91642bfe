//! The Volumes that are in memory, and what all requests share.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dashmap::DashMap;
use s0_tree::Time;
use tokio::sync::{OnceCell, Semaphore, watch};

use crate::attended::Attended;
use crate::caller::{Awake, Caller};
use crate::holdings::Holdings;
use crate::journal::Journal;
use crate::metrics::Metrics;
use crate::problem::Problem;
use crate::volume::{self, Hot, Retention, Stores};

/// How long a Volume stays in memory that nobody asks for.
const IDLE: Duration = Duration::from_secs(600);

/// How many histories are followed at once. Each may read all of a retained journal.
const TRAILS: usize = 2;

type HotVolumes = DashMap<String, Arc<OnceCell<Arc<Hot>>>>;

/// What all requests share.
pub(crate) struct Service {
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) holdings: Holdings,
    pub(crate) trails: Semaphore,
    pub(crate) metrics: Metrics,
    hot: Arc<HotVolumes>,
    retention: Retention,
    idle: Duration,
    /// The sandboxes that can be reached.
    pub(crate) attended: Attended,
    /// The clock by which limited tokens end.
    pub(crate) awake: Awake,
    /// Becomes true when the service shuts down.
    pub(crate) closing: watch::Receiver<bool>,
}

/// Now, by the machine's clock.
pub(crate) fn now() -> Time {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Time(since.ok().and_then(|since| i64::try_from(since.as_nanos()).ok()).unwrap_or(0))
}

impl Service {
    pub(crate) fn new(
        journal: Arc<dyn Journal>,
        holdings: Holdings,
        retention: Retention,
        closing: watch::Receiver<bool>,
    ) -> Self {
        let (trails, hot, metrics) = (Semaphore::new(TRAILS), Arc::default(), Metrics::default());
        let (idle, awake) = (IDLE, Awake::since(now()));
        let attended = Attended::default();
        Self { journal, holdings, trails, metrics, hot, retention, idle, attended, awake, closing }
    }

    /// What is counted and measured, for Prometheus.
    pub(crate) fn metrics(&self) -> String {
        self.metrics.text(self.hot.len())
    }

    /// A Volume of the caller's team. Another team's is not found.
    pub(crate) async fn volume(&self, caller: &Caller, id: &str) -> Result<Arc<Hot>, Problem> {
        let not_found = Problem::NotFound("not found");
        let known = self.hot.get(id).map(|cell| cell.clone());
        let ready = known.as_ref().and_then(|cell| cell.get());
        if let Some(hot) = ready
            && !hot.has_ended()
        {
            return if hot.record.team == caller.team { Ok(hot.clone()) } else { Err(not_found) };
        }
        if ready.is_some() {
            self.hot.remove_if(id, |_, cell| cell.get().is_some_and(|hot| hot.has_ended()));
        }
        // Only what is there and the caller's own comes into memory.
        match self.journal.volume(id).await? {
            Some(record) if record.team == caller.team => {}
            _ => return Err(not_found),
        }
        let cell = self.hot.entry(id.into()).or_default().clone();
        let opened = cell.get_or_try_init(|| self.open(id)).await.cloned();
        drop(cell);
        if opened.is_err() {
            // Only when nobody else is bringing it into memory just now.
            self.hot.remove_if(id, |_, cell| cell.get().is_none() && Arc::strong_count(cell) == 1);
        }
        opened
    }

    async fn open(&self, id: &str) -> Result<Arc<Hot>, Problem> {
        let stores = Stores {
            journal: self.journal.clone(),
            retention: self.retention,
            clock: now,
            metrics: self.metrics.clone(),
        };
        let (hot, volume) = (self.hot.clone(), id.to_owned());
        // Requests and streams hold the Volume; when only the map does, and
        // nobody can take it from there meanwhile, it may go.
        let unused = |cell: &Arc<OnceCell<Arc<Hot>>>| {
            Arc::strong_count(cell) == 1
                && cell.get().is_some_and(|hot| Arc::strong_count(hot) == 1)
        };
        let forget = move || {
            hot.remove_if(&volume, |_, cell| unused(cell)).is_some() || !hot.contains_key(&volume)
        };
        let opened = volume::open(stores, id, self.idle, forget).await?;
        opened.ok_or(Problem::NotFound("not found"))
    }

    /// Lets go of a Volume that was deleted, and ends its streams.
    /// Whether a Volume is mounted somewhere.
    pub(crate) fn is_mounted(&self, id: &str) -> bool {
        let hot = self.hot.get(id).and_then(|cell| cell.get().cloned());
        hot.is_some_and(|hot| hot.shared.mounts(|all| all.any(Instant::now())))
    }

    pub(crate) fn close(&self, id: &str) {
        if let Some((_, cell)) = self.hot.remove(id)
            && let Some(hot) = cell.get()
        {
            hot.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use s0_tree::{Action, AttributeChange, Change, New, NodeId, Origin, Seq, TreePath};

    use super::*;
    use crate::disk::DiskContents;
    use crate::journal::{Checkpoint, VolumeRecord};
    use crate::sqlite::{Fault, SqliteJournal};
    use crate::volume::{Needs, pack};

    struct Rig {
        journal: Arc<SqliteJournal>,
        service: Service,
        caller: Caller,
    }

    fn rig(dir: &Path) -> Rig {
        let journal = Arc::new(SqliteJournal::open(&dir.join("journal.db")).unwrap());
        let contents = Arc::new(DiskContents::open(&dir.join("contents")).unwrap());
        let holdings = Holdings::new(journal.clone(), contents);
        let retention = Retention {
            entries: 1000,
            age: None,
            unread: 4,
            checkpoint_every: 4096,
            pinned: Duration::from_secs(1),
        };
        let closing = watch::channel(false).1;
        let mut service = Service::new(journal.clone(), holdings, retention, closing);
        service.idle = Duration::from_millis(30);
        let token = crate::serve::local_token("secret");
        let caller = Caller { team: "t".into(), user: "u".into(), token };
        Rig { journal, service, caller }
    }

    async fn create_volume(rig: &Rig) {
        let record = VolumeRecord {
            id: "v".into(),
            team: "t".into(),
            user: "u".into(),
            source: None,
            access_mode: s0_api::volumes::AccessMode::default(),
            uid: 0,
            gid: 0,
            epoch: "e".into(),
            quota: s0_tree::Quota::default(),
            used: None,
            created: Time(1),
            updated: Time(1),
        };
        rig.journal.create_volume(record, None).await.unwrap();
    }

    async fn directory(hot: &Hot, needs: Needs, name: String) -> Result<(), Problem> {
        hot.commit(needs, move |draft| {
            let path = TreePath::new(&name).map_err(Problem::bad)?;
            let set = AttributeChange::default();
            let action = Action::Create { path, what: New::Directory, set };
            draft.admit_whole(&Origin::default(), &[Change::unstated(action)])
        })
        .await?
    }

    async fn make(hot: &Hot, name: String) -> Result<(), Problem> {
        directory(hot, Needs::default(), name).await
    }

    #[tokio::test]
    async fn two_services_on_one_store_make_one_journal() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (rig(dir.path()), rig(dir.path()));
        create_volume(&one).await;
        let hot = [
            one.service.volume(&one.caller, "v").await.unwrap(),
            two.service.volume(&two.caller, "v").await.unwrap(),
        ];
        for round in 0..20 {
            let (a, b) = tokio::join!(
                make(&hot[0], format!("a{round}")),
                make(&hot[1], format!("b{round}")),
            );
            assert_eq!((a, b), (Ok(()), Ok(())));
        }
        let entries = one.journal.entries("v", Seq(0), 99).await.unwrap();
        let seqs: Vec<u64> = entries.iter().map(|entry| entry.seq.0).collect();
        assert_eq!(seqs, (1..=40).collect::<Vec<_>>());
        // The loser starts over on what the winner made.
        assert_eq!(make(&hot[0], "x".into()).await, Ok(()));
        assert_eq!(make(&hot[1], "y".into()).await, Ok(()));
        assert_eq!(hot[1].committed().ledger.tree().len(), 42);
    }

    #[tokio::test]
    async fn a_failed_append_is_answered_and_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let rig = rig(dir.path());
        create_volume(&rig).await;
        let hot = rig.service.volume(&rig.caller, "v").await.unwrap();
        make(&hot, "a".into()).await.unwrap();
        rig.journal.faults.set(Fault::BeforeCommit);
        assert!(matches!(make(&hot, "b".into()).await, Err(Problem::Unavailable(_))));
        assert_eq!(hot.committed().head(), Seq(1), "nobody sees what was not committed");
        make(&hot, "c".into()).await.unwrap();
        assert!(hot.committed().ledger.tree().node(NodeId(2)).is_some());
        // An append that was done although it said that it failed.
        rig.journal.faults.set(Fault::AfterCommit);
        assert!(matches!(make(&hot, "d".into()).await, Err(Problem::Unavailable(_))));
        assert_eq!(hot.committed().head(), Seq(3), "what was committed is seen at once");
        make(&hot, "e".into()).await.unwrap();
        let committed = hot.committed();
        let names: Vec<String> =
            committed.ledger.tree().walk().map(|(path, _, _)| path.to_string()).collect();
        assert_eq!(names, ["a", "c", "d", "e"]);
        assert_eq!(rig.journal.entries("v", Seq(0), 9).await.unwrap().len(), 4);
    }

    #[tokio::test]
    async fn what_is_known_again_is_admitted_again() {
        let dir = tempfile::tempdir().unwrap();
        let rig = rig(dir.path());
        create_volume(&rig).await;
        let hot = rig.service.volume(&rig.caller, "v").await.unwrap();
        let repeatable = || Needs { repeatable: true, ..Needs::default() };
        for (name, fault) in [("a", Fault::BeforeCommit), ("b", Fault::AfterCommit)] {
            rig.journal.faults.set(fault);
            // Made once, and held when it is admitted for the second time: an agent
            // that makes a directory finds it made.
            let made = directory(&hot, repeatable(), name.into()).await;
            assert_eq!(made, Ok(()), "{fault:?}");
        }
        assert_eq!(rig.journal.entries("v", Seq(0), 9).await.unwrap().len(), 2);
        assert_eq!(hot.committed().head(), Seq(2));
    }

    #[tokio::test]
    async fn a_damaged_checkpoint_gives_way_to_an_older_one() {
        let dir = tempfile::tempdir().unwrap();
        let one = rig(dir.path());
        create_volume(&one).await;
        let hot = one.service.volume(&one.caller, "v").await.unwrap();
        for at in 1..=6 {
            make(&hot, format!("d{at}")).await.unwrap();
            if at == 2 || at == 4 {
                let tree = hot.committed().ledger.tree().clone();
                one.journal.put_checkpoint("v", pack(tree).await.unwrap()).await.unwrap();
            }
        }
        let bad = |seq| Checkpoint { seq: Seq(seq), packed: bytes::Bytes::from_static(b"bad") };
        let opened = async || {
            let rig = rig(dir.path());
            let hot = rig.service.volume(&rig.caller, "v").await?;
            Ok::<_, Problem>(hot.committed().ledger.tree().len())
        };
        one.journal.put_checkpoint("v", bad(5)).await.unwrap();
        one.journal.put_checkpoint("v", bad(4)).await.unwrap();
        assert_eq!(opened().await, Ok(6));
        one.journal.put_checkpoint("v", bad(2)).await.unwrap();
        assert_eq!(opened().await, Ok(6), "the journal is whole");
        one.journal.retain("v", Seq(2), Seq(2)).await.unwrap();
        // Trying again does not help, so it is not said to be unavailable.
        assert!(matches!(opened().await, Err(Problem::Internal(_))));
        let tree = hot.committed().ledger.tree().clone();
        one.journal.put_checkpoint("v", pack(tree).await.unwrap()).await.unwrap();
        assert_eq!(opened().await, Ok(6));
    }

    #[tokio::test]
    async fn a_volume_with_too_long_paths_opens_again() {
        let dir = tempfile::tempdir().unwrap();
        let one = rig(dir.path());
        create_volume(&one).await;
        let (mut tree, mut path) = (s0_tree::Tree::default(), TreePath::root());
        let name = s0_tree::Name::new(&"n".repeat(200)).unwrap();
        let mut entries = Vec::new();
        for parent in 0..30 {
            path = path.join(&name);
            let entry = s0_tree::Entry {
                format: s0_tree::FORMAT,
                seq: tree.head().next(),
                time: Time(1),
                source: s0_tree::Source::Sandbox,
                actor: s0_tree::Actor::default(),
                request: None,
                op: s0_tree::Op::Create {
                    at: s0_tree::Place { parent: NodeId(parent), name: name.clone() },
                    what: New::Directory,
                    attributes: tree.node(NodeId::ROOT).unwrap().attributes.clone(),
                },
                path: path.clone(),
                old_path: None,
            };
            s0_tree::fold(&mut tree, &entry).unwrap();
            entries.push(entry);
        }
        assert!(path.as_str().len() > s0_tree::MAX_PATH_BYTES);
        let append = crate::journal::Append { volume: "v".into(), entries, ..Default::default() };
        one.journal.append(append).await.unwrap();
        let hot = one.service.volume(&one.caller, "v").await.unwrap();
        assert_eq!(hot.committed().ledger.tree(), &tree);
        make(&hot, "more".into()).await.unwrap();
    }

    #[tokio::test]
    async fn a_volume_that_nobody_uses_leaves_memory() {
        let dir = tempfile::tempdir().unwrap();
        let rig = rig(dir.path());
        create_volume(&rig).await;
        let hot = rig.service.volume(&rig.caller, "v").await.unwrap();
        make(&hot, "a".into()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(150)).await;
        assert_eq!(rig.service.hot.len(), 1, "a request or stream still holds it");
        drop(hot);
        while !rig.service.hot.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let hot = rig.service.volume(&rig.caller, "v").await.unwrap();
        make(&hot, "b".into()).await.unwrap();
        assert_eq!(hot.committed().head(), Seq(2));
        assert!(rig.service.volume(&rig.caller, "none").await.is_err());
        assert_eq!(rig.service.hot.len(), 1, "what is not there takes no memory");
    }
}
