//! What every journal store does.

use s0_api::sync::{Answer, Capabilities, Outcome, Registration};
use s0_tree::{
    Action, AttributeChange, Batch, Change, Expected, New, News, Origin, Quota, Tree, TreePath,
    Usage, admit_batch,
};

use super::*;

fn volume(id: &str, team: &str, created: i64) -> VolumeRecord {
    VolumeRecord {
        id: id.into(),
        team: team.into(),
        user: "u".into(),
        source: None,
        access_mode: AccessMode::ReadWriteMany,
        uid: 1,
        gid: 2,
        epoch: format!("epoch of {id}"),
        quota: Quota { bytes: Some(1 << 40), inodes: None },
        used: Some(Usage::default()),
        created: Time(created),
        updated: Time(created),
    }
}

fn make(tree: &mut Tree, time: i64, path: &str, text: &str) -> Entry {
    let what = New::File { content: Content::of(text.as_bytes()) };
    let path = TreePath::new(path).unwrap();
    let set = AttributeChange::default();
    let changes = [Change::new(Action::Create { path, what, set }, Expected::Absent)];
    let origin = Origin { time: Time(time), ..Origin::default() };
    let batch = Batch {
        origin: &origin,
        policy: s0_tree::Policy::default(),
        quota: Quota::default(),
        news: &News::default(),
        changes: &changes,
    };
    admit_batch(tree, &batch).unwrap().0.remove(0)
}

fn replica(id: &str, cursor: u64) -> ReplicaRecord {
    let capabilities = Capabilities {
        case_sensitive: true,
        unicode_normalization_insensitive: false,
        windows_compatible_paths: false,
    };
    ReplicaRecord {
        id: id.into(),
        registration: Registration {
            display_name: "d".into(),
            platform: "linux".into(),
            root_path: "/r".into(),
            case_sensitive: true,
            capabilities,
            take_instance: true,
            sandbox_id: None,
        },
        instance: 3,
        last: None,
        cursor: Seq(cursor),
        created: Time(1),
        updated: Time(2),
        seen: Time(3),
    }
}

fn answered(number: u64) -> Arc<Answered> {
    let outcomes = vec![Outcome::Accepted { seq: Seq(1), node: NodeId(1) }];
    let answer = Answer { head: Seq(1), outcomes };
    let earlier = Vec::new();
    Arc::new(Answered { number, body: Hash::of(b"body"), answer, earlier })
}

fn conflict(id: &str, status: ConflictStatus) -> ConflictRecord {
    ConflictRecord {
        id: id.into(),
        replica: Some("r".into()),
        path: "a".into(),
        old_path: None,
        existing: Some(Seq(1)),
        reason: "concurrent_update".into(),
        status,
        metadata: serde_json::json!({"base_seq": 0}),
        created: Time(5),
        updated: Time(5),
    }
}

/// `open` gives the store as it was left, every time.
pub(crate) async fn suite<S: Journal>(open: impl Fn() -> S) {
    volumes(&open()).await;
    appends(&open).await;
    failed_appends_leave_nothing(&open()).await;
    contents(&open()).await;
    conflicts(&open()).await;
    checkpoints_and_retention(&open()).await;
    forks(&open()).await;
    tokens(&open).await;
    limited_tokens(&open).await;
    epochs(&open()).await;
}

async fn volumes(store: &impl Journal) {
    assert_eq!(store.volume("none").await.unwrap(), None);
    for (id, team, created) in [("v1", "team", 1), ("v2", "team", 2), ("v3", "other", 3)] {
        store.create_volume(volume(id, team, created), None).await.unwrap();
    }
    assert!(store.create_volume(volume("v1", "other", 9), None).await.is_err(), "taken");
    assert_eq!(store.volume("v1").await.unwrap(), Some(volume("v1", "team", 1)));
    let ids = |all: Vec<VolumeRecord>| all.into_iter().map(|one| one.id).collect::<Vec<_>>();
    assert_eq!(ids(store.volumes(Some("team".into())).await.unwrap()), ["v2", "v1"]);
    let stored = store.load("v1").await.unwrap().unwrap();
    assert_eq!((stored.head, stored.retained_after), (Seq(0), Seq(0)));
    assert!(stored.checkpoints.is_empty() && stored.replicas.is_empty());
    assert!(store.delete_volume("v2").await.unwrap());
    assert!(!store.delete_volume("v2").await.unwrap());
    assert!(store.load("v2").await.unwrap().is_none());
    let append = Append { volume: "v2".into(), ..Append::default() };
    assert_eq!(store.append(append).await, Err(AppendError::Gone));
}

async fn appends<S: Journal>(open: &impl Fn() -> S) {
    let store = open();
    store.create_volume(volume("a", "team", 1), None).await.unwrap();
    let mut tree = Tree::default();
    let entries = vec![make(&mut tree, 10, "x", "one"), make(&mut tree, 20, "y", "two")];
    let request = RequestRecord {
        replica: "r".into(),
        request: "q".into(),
        body: Hash::of(b"q"),
        answer: "{}".into(),
        head: Seq(2),
    };
    let one = entries[0].content().unwrap().id;
    let append = Append {
        volume: "a".into(),
        head: Seq(0),
        entries: entries.clone(),
        notes: vec![(Seq(2), serde_json::json!({"by": "hand"}))],
        inline: vec![(one, Bytes::from_static(b"one"))],
        names: vec![one],
        replicas: vec![replica("r", 0)],
        forgotten: Vec::new(),
        answers: vec![("r".into(), answered(7))],
        requests: vec![request.clone()],
        conflicts: vec![conflict("c", ConflictStatus::Open)],
        quota: Some(Quota { bytes: None, inodes: Some(7) }),
        used: tree.usage(),
        time: Time(30),
    };
    store.append(append).await.unwrap();
    drop(store);

    let store = open();
    let stored = store.load("a").await.unwrap().unwrap();
    assert_eq!((stored.head, stored.record.updated), (Seq(2), Time(30)));
    assert_eq!(stored.record.quota, Quota { bytes: None, inodes: Some(7) });
    assert_eq!(stored.record.used, Some(Usage { bytes: 6, inodes: 2 }));
    let known = ReplicaRecord { last: Some(answered(7)), ..replica("r", 0) };
    assert_eq!(stored.replicas, std::slice::from_ref(&known));
    assert_eq!(store.entries("a", Seq(0), 10).await.unwrap(), entries);
    assert_eq!(store.entries("a", Seq(0), 1).await.unwrap(), entries[..1]);
    assert_eq!(store.entries("a", Seq(1), 10).await.unwrap(), entries[1..]);
    assert_eq!(store.entries("a", Seq(2), 10).await.unwrap(), []);
    let noted = store.notes("a", Seq(1), Seq(2)).await.unwrap();
    assert_eq!(noted, HashMap::from([(Seq(2), serde_json::json!({"by": "hand"}))]));
    for (after, until) in [(0, 1), (2, 9)] {
        assert!(store.notes("a", Seq(after), Seq(until)).await.unwrap().is_empty());
    }
    assert_eq!(store.request("a", "r", "q").await.unwrap(), Some(request));
    assert_eq!(store.request("a", "r", "other").await.unwrap(), None);
    assert_eq!(store.named("a", vec![one]).await.unwrap().len(), 1);
    assert_eq!(store.inline("team", vec![one]).await.unwrap()[0].1, &b"one"[..]);
    let content = store.content_of("a", NodeId(1), Seq(9)).await.unwrap();
    assert_eq!(content, entries[0].content());
    assert_eq!(store.content_of("a", NodeId(2), Seq(1)).await.unwrap(), None);
    assert_eq!(store.first_since("a", Seq(0), Time(11)).await.unwrap(), Some(Seq(2)));
    assert_eq!(store.first_since("a", Seq(0), Time(21)).await.unwrap(), None);

    // A record that changes keeps the answer; a replica that goes takes its requests along.
    let moved = Append {
        used: tree.usage(),
        volume: "a".into(),
        head: Seq(2),
        replicas: vec![replica("r", 2)],
        ..Append::default()
    };
    store.append(moved.clone()).await.unwrap();
    let stored = store.load("a").await.unwrap().unwrap();
    assert_eq!(stored.replicas[0].last, known.last);
    assert_eq!(stored.replicas[0].cursor, Seq(2));
    let forget = Append { forgotten: vec!["r".into()], replicas: Vec::new(), ..moved };
    store.append(forget).await.unwrap();
    assert!(store.load("a").await.unwrap().unwrap().replicas.is_empty());
    assert_eq!(store.request("a", "r", "q").await.unwrap(), None);
}

async fn failed_appends_leave_nothing(store: &impl Journal) {
    store.create_volume(volume("f", "team", 1), None).await.unwrap();
    let mut tree = Tree::default();
    let first = make(&mut tree, 1, "x", "f-one");
    let second = make(&mut tree, 1, "y", "f-two");
    let good = Append { volume: "f".into(), entries: vec![first.clone()], ..Append::default() };
    store.append(good.clone()).await.unwrap();
    assert_eq!(store.append(good.clone()).await, Err(AppendError::HeadMoved(Seq(1))));
    let id = second.content().unwrap().id;
    let bad = Append {
        head: Seq(1),
        entries: vec![second, first],
        inline: vec![(id, Bytes::from_static(b"f-two"))],
        conflicts: vec![conflict("f", ConflictStatus::Open)],
        replicas: vec![replica("f", 0)],
        ..good
    };
    assert!(matches!(store.append(bad).await, Err(AppendError::Store(_))));
    let stored = store.load("f").await.unwrap().unwrap();
    assert_eq!((stored.head, stored.replicas.len()), (Seq(1), 0));
    assert_eq!(store.entries("f", Seq(0), 9).await.unwrap().len(), 1);
    assert!(store.inline("team", vec![id]).await.unwrap().is_empty());
    assert!(store.conflicts("f", None, 9).await.unwrap().is_empty());
}

async fn contents(store: &impl Journal) {
    let (content, bytes) = (Content::of(b"inline"), Bytes::from_static(b"inline"));
    let twice = vec![(content.id, bytes.clone()), (content.id, bytes.clone())];
    store.put_inline("team", twice).await.unwrap();
    store.lease("team", vec![content.id], Time(100)).await.unwrap();
    store.lease("team", vec![content.id], Time(50)).await.unwrap();
    let both = vec![Content::of(b"absent").id, content.id];
    assert_eq!(store.inline("team", both).await.unwrap(), [(content.id, bytes)]);
    assert!(store.inline("other", vec![content.id]).await.unwrap().is_empty());
    assert!(store.named("a", vec![content.id]).await.unwrap().is_empty());
    let whole = Hash::of(b"whole");
    assert_eq!(store.whole_of("team", content.id).await.unwrap(), None);
    for _ in 0..2 {
        store.put_whole("team", content, whole).await.unwrap();
    }
    assert_eq!(store.whole_of("team", content.id).await.unwrap(), Some(whole));
    assert_eq!(store.contents_of_whole("team", whole).await.unwrap(), [content]);
    assert!(store.contents_of_whole("other", whole).await.unwrap().is_empty());
}

async fn conflicts(store: &impl Journal) {
    store.create_volume(volume("c", "team", 1), None).await.unwrap();
    let all = ["1", "2", "3"].map(|id| conflict(id, ConflictStatus::Open));
    let append = Append { volume: "c".into(), conflicts: all.to_vec(), ..Append::default() };
    store.append(append).await.unwrap();
    let added = vec![("note".into(), serde_json::json!("done"))];
    let set = |id| store.set_conflict("c", id, ConflictStatus::Resolved, added.clone(), Time(9));
    assert_eq!(set("none").await.unwrap(), None);
    let settled = set("2").await.unwrap().unwrap();
    assert_eq!((settled.status, settled.updated), (ConflictStatus::Resolved, Time(9)));
    assert_eq!(settled.metadata, serde_json::json!({"base_seq": 0, "note": "done"}));
    let ids = async |status: Option<&str>, limit| {
        let found = store.conflicts("c", status.map(String::from), limit).await.unwrap();
        found.into_iter().map(|one| one.id).collect::<Vec<_>>()
    };
    assert_eq!(ids(None, 9).await, ["3", "2", "1"]);
    assert_eq!(ids(None, 2).await, ["3", "2"]);
    assert_eq!(ids(Some("open"), 9).await, ["3", "1"]);
    assert_eq!(ids(Some("resolved"), 9).await, ["2"]);
    assert!(ids(Some("nonsense"), 9).await.is_empty());
}

fn packed(seq: u64) -> Checkpoint {
    Checkpoint { seq: Seq(seq), packed: Bytes::from(format!("tree {seq}")) }
}

async fn checkpoints_and_retention(store: &impl Journal) {
    store.create_volume(volume("k", "team", 1), None).await.unwrap();
    let mut tree = Tree::default();
    let entries = (1..=8).map(|at| make(&mut tree, at, &format!("{at}"), "")).collect();
    let note = |seq| (Seq(seq), serde_json::json!(seq));
    let notes = vec![note(4), note(5)];
    let append = Append { volume: "k".into(), entries, notes, ..Append::default() };
    store.append(append).await.unwrap();
    for seq in [2, 4, 6] {
        store.put_checkpoint("k", packed(seq)).await.unwrap();
    }
    let snapshot = |id: &str, seq| SnapshotRecord {
        id: id.into(),
        name: "n".into(),
        description: String::new(),
        seq: Seq(seq),
        size: 5,
        created: Time(1),
    };
    store.create_snapshot("k", snapshot("s2", 2), packed(2)).await.unwrap();
    store.create_snapshot("k", snapshot("s3", 3), packed(3)).await.unwrap();
    assert_eq!(store.checkpoint("k", Seq(4)).await.unwrap(), Some(packed(4)));
    assert_eq!(store.checkpoint("k", Seq(5)).await.unwrap(), None);
    store.retain("k", Seq(4), Seq(6)).await.unwrap();
    let stored = store.load("k").await.unwrap().unwrap();
    assert_eq!((stored.head, stored.retained_after), (Seq(8), Seq(4)));
    assert_eq!(stored.checkpoints, [Seq(2), Seq(3), Seq(6)]);
    assert_eq!(store.checkpoints("k").await.unwrap(), [Seq(2), Seq(3), Seq(6)]);
    let left = store.entries("k", Seq(0), 99).await.unwrap();
    assert_eq!(left.iter().map(|entry| entry.seq.0).collect::<Vec<_>>(), [5, 6, 7, 8]);
    assert_eq!(store.notes("k", Seq(0), Seq(99)).await.unwrap(), HashMap::from([note(5)]));
    // The floor never sinks.
    store.retain("k", Seq(1), Seq(1)).await.unwrap();
    assert_eq!(store.load("k").await.unwrap().unwrap().retained_after, Seq(4));
    let found = store.snapshots("k").await.unwrap();
    assert_eq!(found, [snapshot("s3", 3), snapshot("s2", 2)]);
    assert!(store.delete_snapshot("k", "s2").await.unwrap());
    assert!(!store.delete_snapshot("k", "s2").await.unwrap());
    store.retain("k", Seq(4), Seq(6)).await.unwrap();
    assert_eq!(store.checkpoints("k").await.unwrap(), [Seq(3), Seq(6)]);
}

async fn forks(store: &impl Journal) {
    let id = Content::of(b"forked").id;
    let start = Start { checkpoint: packed(5), contents: vec![id] };
    let record = VolumeRecord { source: Some("k".into()), ..volume("fork", "team", 9) };
    store.create_volume(record, Some(start)).await.unwrap();
    let stored = store.load("fork").await.unwrap().unwrap();
    assert_eq!((stored.head, stored.retained_after), (Seq(5), Seq(5)));
    assert_eq!(stored.checkpoints, [Seq(5)]);
    assert_eq!(store.checkpoint("fork", Seq(5)).await.unwrap(), Some(packed(5)));
    assert_eq!(store.named("fork", vec![id]).await.unwrap().len(), 1);
    assert!(store.delete_volume("k").await.unwrap());
    assert!(store.load("fork").await.unwrap().is_some());
    assert!(store.snapshots("k").await.unwrap().is_empty());
}

async fn tokens<S: Journal>(open: &impl Fn() -> S) {
    let token = |text: &str, team: &str, created| TokenRecord {
        hash: Hash::of(text.as_bytes()),
        id: format!("id of {text}"),
        team: team.into(),
        user: "u".into(),
        name: "for the laptop".into(),
        platform: false,
        roles: vec![Role::Viewer, Role::Builder],
        active: true,
        expires: Some(Time(9)),
        created: Time(created),
        updated: Time(created),
        limit: None,
    };
    let (first, second) = (token("secret", "team", 1), token("other", "team", 2));
    let local = TokenRecord { platform: true, expires: None, ..token("local", "local", 3) };
    for token in [&first, &second, &local] {
        open().put_token(token.clone()).await.unwrap();
        assert_eq!(open().token(token.hash).await.unwrap().as_ref(), Some(token));
    }
    assert_eq!(open().token(Hash::of(b"wrong")).await.unwrap(), None);
    let all = open().tokens(None).await.unwrap();
    assert_eq!(all, [local.clone(), second.clone(), first.clone()], "newest first");
    let ended = TokenRecord { active: false, updated: Time(5), ..first };
    open().put_token(ended.clone()).await.unwrap();
    assert_eq!(open().tokens(Some("team".into())).await.unwrap(), [second.clone(), ended]);
    assert!(open().delete_token(second.hash).await.unwrap());
    assert!(!open().delete_token(second.hash).await.unwrap());
    assert_eq!(open().token(second.hash).await.unwrap(), None);
    assert_eq!(open().tokens(None).await.unwrap().len(), 2);
}

async fn limited_tokens<S: Journal>(open: &impl Fn() -> S) {
    let hash = |text: &str| Hash::of(text.as_bytes());
    let token = |text: &str, expires, limit| TokenRecord {
        hash: hash(text),
        id: format!("id of {text}"),
        team: "limited".into(),
        user: "u".into(),
        name: String::new(),
        platform: false,
        roles: Vec::new(),
        active: true,
        expires,
        created: Time(1),
        updated: Time(1),
        limit,
    };
    let mount = |text: &str, parent: &str, expires| {
        let purpose = Purpose::Mount { volume: "v".into(), read_only: true };
        token(text, Some(Time(expires)), Some(Limit { parent: hash(parent), purpose }))
    };
    let store = open();
    let made = mount("m1", "p1", 10);
    assert!(store.put_token(made.clone()).await.is_err(), "made with nothing");
    for parent in ["p1", "p2"] {
        store.put_token(token(parent, None, None)).await.unwrap();
    }
    for made in [made.clone(), mount("m2", "p1", 20), mount("m3", "p2", 30)] {
        store.put_token(made).await.unwrap();
    }
    assert_eq!(store.token(made.hash).await.unwrap().as_ref(), Some(&made));
    assert_eq!(store.tokens(Some("limited".into())).await.unwrap().len(), 2);
    let ends = async || {
        let all = open().limited_tokens("limited").await.unwrap();
        let end = |it: TokenRecord| (it.id.replace("id of ", ""), it.expires.unwrap().0);
        all.into_iter().map(end).collect::<Vec<_>>()
    };
    let known = |all: &[(&str, i64)]| {
        all.iter().map(|(id, end)| ((*id).to_owned(), *end)).collect::<Vec<_>>()
    };
    assert_eq!(ends().await, known(&[("m1", 10), ("m2", 20), ("m3", 30)]));
    store.prolong_token(hash("m1"), Time(25)).await.unwrap();
    store.prolong_token(hash("m3"), Time(25)).await.unwrap();
    store.prolong_token(hash("p1"), Time(25)).await.unwrap();
    store.prolong_token(hash("none"), Time(25)).await.unwrap();
    assert_eq!(ends().await, known(&[("m1", 25), ("m2", 20), ("m3", 30)]));
    assert_eq!(store.token(hash("p1")).await.unwrap().unwrap().expires, None);
    store.keep_limited_tokens(Time(25), None).await.unwrap();
    assert_eq!(ends().await, known(&[("m1", 25), ("m3", 30)]));
    store.keep_limited_tokens(Time(25), Some(Time(27))).await.unwrap();
    assert_eq!(ends().await, known(&[("m1", 27), ("m3", 27)]));
    // What is kept again keeps what was made with it; what goes takes it along.
    store.put_token(token("p1", None, None)).await.unwrap();
    assert_eq!(ends().await.len(), 2);
    assert!(store.delete_token(hash("p1")).await.unwrap());
    assert_eq!(ends().await, known(&[("m3", 27)]));
    assert!(store.delete_token(hash("m3")).await.unwrap());
    assert_eq!(ends().await, known(&[]));
    // A backup brings none back.
    store.put_token(mount("m4", "p2", 40)).await.unwrap();
    store.renew_epochs("another").await.unwrap();
    assert_eq!(ends().await, known(&[]));
    assert!(store.delete_token(hash("p2")).await.unwrap());
}

async fn epochs(store: &impl Journal) {
    let epoch = async |id: &str| store.volume(id).await.unwrap().unwrap().epoch;
    let before = [epoch("a").await, epoch("f").await];
    store.renew_epochs("seed").await.unwrap();
    assert_eq!(store.check().await.unwrap(), Vec::<String>::new());
    let teams = store.volumes(None).await.unwrap().into_iter().map(|volume| volume.team);
    assert!(teams.collect::<BTreeSet<_>>().len() > 1, "those of all teams");
    let after = [epoch("a").await, epoch("f").await];
    assert!(after.iter().all(|epoch| !before.contains(epoch)));
    assert_ne!(after[0], after[1]);
}
