//! Checkpoints, and how much of the journal is retained.

use std::time::Duration;

use bytes::Bytes;
use s0_tree::{MAX_CHECKPOINT_BYTES, Seq, Time, Tree};
use tracing::{info, warn};

use super::Stores;
use crate::journal::{Checkpoint, Kept, StoreError, blocking};
use crate::ledger::ReplicaRecord;
use crate::problem::Problem;

const LEVEL: i32 = 3;

/// How much of a journal is kept, beside what checkpoints need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Retention {
    /// At least so many entries.
    pub(crate) entries: u64,
    /// And all that are not older; none for the sake of their age when the number
    /// was chosen by whoever runs the service.
    pub(crate) age: Option<Duration>,
    /// And those that a live replica has not read, up to so many times the number.
    pub(crate) unread: u64,
    /// How many entries lie between checkpoints.
    pub(crate) checkpoint_every: u64,
    /// How long a replica that is not heard of keeps entries from going.
    pub(crate) pinned: Duration,
}

impl Retention {
    /// How many entries lie between checkpoints: few enough that the older of
    /// two lets the journal be cut near its limit.
    pub(crate) fn checkpoint_every(&self) -> u64 {
        self.checkpoint_every.min(self.entries / 4).max(1)
    }

    /// The entry up to which entries may go, checkpoints aside. `young` is the
    /// first entry that is not too old.
    fn floor(&self, head: Seq, young: Option<Seq>, replicas: &[ReplicaRecord], now: Time) -> Seq {
        let by_number = head.0.saturating_sub(self.entries);
        let by_age = young.map_or(head.0, |young| young.0.saturating_sub(1));
        let alive = ago(now, self.pinned);
        let pinned = replicas.iter().filter(|replica| replica.seen >= alive);
        let by_replicas = pinned.map(|replica| replica.cursor.0).min().unwrap_or(head.0);
        let most = head.0.saturating_sub(self.entries.saturating_mul(self.unread));
        Seq(by_number.min(by_age).min(by_replicas).max(most))
    }
}

fn ago(now: Time, time: Duration) -> Time {
    Time(now.0.saturating_sub(i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)))
}

/// What upkeep did.
pub(crate) struct Done {
    pub(crate) checkpoint: Seq,
    pub(crate) retained_after: Seq,
}

/// Keeps a checkpoint of `tree`, and lets go of what is not retained.
pub(crate) async fn run(
    stores: Stores,
    volume: String,
    tree: Tree,
    retained_after: Seq,
    replicas: Vec<ReplicaRecord>,
) -> Option<Done> {
    match keep_up(&stores, &volume, tree, retained_after, &replicas).await {
        Ok(done) => Some(done),
        Err(problem) => {
            // The journal is whole without it; the next commit tries again.
            warn!(volume, ?problem, "no checkpoint was made");
            None
        }
    }
}

async fn keep_up(
    Stores { journal, retention, clock, .. }: &Stores,
    volume: &str,
    tree: Tree,
    retained_after: Seq,
    replicas: &[ReplicaRecord],
) -> Result<Done, Problem> {
    let head = tree.head();
    journal.put_checkpoint(volume, pack(tree).await?).await?;
    let checkpoints = journal.checkpoints(volume).await?;
    let mut done = Done { checkpoint: head, retained_after };
    let [.., older, _] = checkpoints[..] else { return Ok(done) };
    // What goes can be made again from the older checkpoint only, so it is read
    // back as it is stored. Where it is damaged, the next two do as well.
    let kept = journal.checkpoint(volume, older).await?;
    unpack(kept.ok_or_else(|| damaged(&"it is missing"))?.packed).await?;
    let now = clock();
    let young = match retention.age {
        Some(age) => journal.first_since(volume, retained_after, ago(now, age)).await?,
        None => None,
    };
    let floor = retention.floor(head, young, replicas, now).min(older).max(retained_after);
    journal.retain(volume, floor, older).await?;
    info!(volume, head = head.0, retained_after = floor.0, "kept a checkpoint");
    done.retained_after = floor;
    Ok(done)
}

/// A tree as stores keep it. What is given was read back and found equal.
pub(crate) async fn pack(tree: Tree) -> Kept<Checkpoint> {
    let work = move || {
        let failed = |why: &dyn std::fmt::Display| {
            StoreError::Failed(format!("a checkpoint cannot be made: {why}"))
        };
        let packed = zstd::encode_all(&tree.encode()[..], LEVEL).map_err(|e| failed(&e))?;
        if read(&packed)? != tree {
            return Err(failed(&"it reads back as another tree"));
        }
        Ok(Checkpoint { seq: tree.head(), packed: packed.into() })
    };
    blocking(work).await
}

/// The tree that [`pack`] made.
pub(crate) async fn unpack(packed: Bytes) -> Kept<Tree> {
    blocking(move || read(&packed)).await
}

fn read(packed: &[u8]) -> Kept<Tree> {
    let decoder = zstd::Decoder::new(packed).map_err(|e| damaged(&e))?;
    let mut bytes = Vec::new();
    let limit = MAX_CHECKPOINT_BYTES as u64 + 1;
    std::io::Read::read_to_end(&mut std::io::Read::take(decoder, limit), &mut bytes)
        .map_err(|e| damaged(&e))?;
    Tree::decode(&bytes).map_err(|e| damaged(&e))
}

fn damaged(why: &dyn std::fmt::Display) -> StoreError {
    StoreError::Damaged(format!("a checkpoint cannot be read: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use s0_api::documented::RegisterRequest;
    use s0_api::sync::Registration;

    use crate::journal::Journal;

    const DAY: i64 = 86_400_000_000_000;

    fn retention(strict: bool) -> Retention {
        Retention {
            entries: 1000,
            age: (!strict).then_some(Duration::from_secs(7 * 86_400)),
            unread: if strict { 4 } else { 10 },
            checkpoint_every: 4096,
            pinned: Duration::from_secs(30 * 86_400),
        }
    }

    fn replica(cursor: u64, seen: i64) -> ReplicaRecord {
        let request = RegisterRequest::default();
        ReplicaRecord {
            id: "r".into(),
            registration: Registration {
                display_name: String::new(),
                platform: String::new(),
                root_path: String::new(),
                case_sensitive: true,
                capabilities: request.effective(),
                take_instance: false,
                sandbox_id: None,
            },
            instance: 0,
            last: None,
            cursor: Seq(cursor),
            created: Time(0),
            updated: Time(0),
            seen: Time(seen),
        }
    }

    #[test]
    fn the_floor() {
        let now = Time(100 * DAY);
        let floor = |strict, head, young: Option<u64>, replicas: &[ReplicaRecord]| {
            retention(strict).floor(Seq(head), young.map(Seq), replicas, now).0
        };
        // By number and age, whichever keeps more.
        assert_eq!(floor(false, 900, None, &[]), 0);
        assert_eq!(floor(false, 5000, None, &[]), 4000);
        assert_eq!(floor(false, 5000, Some(3001), &[]), 3000);
        // A replica that was seen lately keeps what it has not read, up to ten times the number.
        assert_eq!(floor(false, 5000, None, &[replica(2000, now.0 - 29 * DAY)]), 2000);
        assert_eq!(floor(false, 5000, None, &[replica(2000, now.0 - 31 * DAY)]), 4000);
        assert_eq!(floor(false, 50_000, Some(1), &[replica(1, now.0)]), 40_000);
        // Of a number that was asked for, up to four times as many.
        assert_eq!(floor(true, 5000, None, &[]), 4000);
        assert_eq!(floor(true, 5000, None, &[replica(2000, now.0)]), 2000);
        assert_eq!(floor(true, 5000, None, &[replica(1, now.0)]), 1000);
        assert_eq!(floor(true, 5000, None, &[replica(1, now.0 - 31 * DAY)]), 4000);
        assert_eq!(retention(true).checkpoint_every(), 250);
    }

    #[tokio::test]
    async fn nothing_goes_that_only_a_damaged_checkpoint_protects() {
        let dir = tempfile::tempdir().unwrap();
        let journal = crate::sqlite::SqliteJournal::open(&dir.path().join("journal.db")).unwrap();
        let record = crate::journal::VolumeRecord {
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
        journal.create_volume(record, None).await.unwrap();
        let mut trees = vec![Tree::default()];
        for at in 1..=9 {
            let mut tree = trees[at - 1].clone();
            let path = s0_tree::TreePath::new(&format!("d{at}")).unwrap();
            let set = s0_tree::AttributeChange::default();
            let what = s0_tree::New::Directory;
            let make = s0_tree::Change::unstated(s0_tree::Action::Create { path, what, set });
            let batch = s0_tree::Batch {
                origin: &s0_tree::Origin::default(),
                policy: s0_tree::Policy::default(),
                quota: s0_tree::Quota::default(),
                news: &s0_tree::News::default(),
                changes: &[make],
            };
            s0_tree::admit_batch(&mut tree, &batch).unwrap();
            trees.push(tree);
        }
        let bad = Checkpoint { seq: Seq(6), packed: Bytes::from_static(b"bad") };
        journal.put_checkpoint("v", bad).await.unwrap();
        let retention = Retention { entries: 1, ..retention(true) };
        let journal: std::sync::Arc<dyn Journal> = std::sync::Arc::new(journal);
        let metrics = crate::metrics::Metrics::default();
        let stores = Stores { journal: journal.clone(), retention, clock: || Time(1), metrics };
        let floor = async || journal.load("v").await.unwrap().unwrap().retained_after;
        let kept = keep_up(&stores, "v", trees[8].clone(), Seq(0), &[]).await;
        assert!(matches!(kept.err(), Some(Problem::Internal(_))));
        assert_eq!(floor().await, Seq(0));
        // The one that was made then is good, and does from the next time on.
        let kept = keep_up(&stores, "v", trees[9].clone(), Seq(0), &[]).await.unwrap();
        assert_eq!((kept.retained_after, floor().await), (Seq(8), Seq(8)));
        assert_eq!(journal.checkpoints("v").await.unwrap(), [Seq(8), Seq(9)]);
    }

    #[tokio::test]
    async fn a_damaged_checkpoint_is_an_error() {
        let packed = pack(Tree::default()).await.unwrap().packed;
        assert_eq!(unpack(packed.clone()).await.unwrap(), Tree::default());
        assert!(unpack(packed.slice(..packed.len() - 3)).await.is_err());
        assert!(unpack(Bytes::from_static(b"no")).await.is_err());
    }
}
