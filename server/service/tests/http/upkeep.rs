//! `fsck` on whole and on damaged data, and the drill: a backup, the loss of everything,
//! and the way back.

use std::fs;
use std::path::{Path, PathBuf};

use reqwest::Method;
use rusqlite::Connection;
use s0_api::Error;
use s0_service::{Check, Finding, Kind, Report, backup, fsck, restore};
use s0_tree::{Seq, digest};
use serde_json::json;

use crate::rig::{Rig, config};

const LARGE: usize = 3_000_000;

fn large() -> Vec<u8> {
    // Bytes without a pattern, so that they are cut into several chunks.
    let mut state = 7_u64;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    (0..LARGE).map(|_| next()).collect()
}

/// A service with a Volume that has all that can be damaged, and its id.
async fn filled() -> (Rig, String) {
    let rig = Rig::with(|config| {
        config.checkpoint_every = 10;
        config.retention_entries = Some(40);
    })
    .await;
    let volume = rig.volume().await;
    let put = async |path: &str, bytes: Vec<u8>| {
        let at = format!("/api/v1/sandboxvolumes/{volume}/files?path={path}");
        rig.data(Method::POST, &at, bytes).await;
    };
    put("kept.txt", b"kept in the first snapshot".to_vec()).await;
    rig.client.create_snapshot(&volume, "first", "").await.unwrap();
    put("large.bin", large()).await;
    put("kept.txt", b"kept as it is now".to_vec()).await;
    for number in 0..70 {
        put(&format!("many/{number}.txt"), format!("text {number}").into_bytes()).await;
    }
    (rig, volume)
}

async fn look(dir: &Path, check: Check) -> Report {
    fsck(dir, check, &mut |_| {}).await.unwrap()
}

async fn findings(dir: &Path) -> Vec<Finding> {
    look(dir, Check::default()).await.findings
}

/// The files of large contents, the largest first.
fn files(dir: &Path, kind: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut stack = vec![dir.join("contents")];
    while let Some(directory) = stack.pop() {
        for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                stack.push(entry.path());
            } else if entry.path().to_str().unwrap().contains(kind) {
                found.push(entry.path());
            }
        }
    }
    found.sort_by_key(|path| std::cmp::Reverse(fs::metadata(path).unwrap().len()));
    found
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn whole_data_has_no_findings_while_the_service_writes() {
    let (rig, volume) = filled().await;
    let dir = rig.dir.path().to_owned();
    let write = async {
        for number in 0..150 {
            let at = format!("/api/v1/sandboxvolumes/{volume}/files?path=more/{number}.txt");
            rig.data(Method::POST, &at, format!("more {number}").into_bytes()).await;
        }
    };
    let looks = async {
        for _ in 0..10 {
            assert_eq!(findings(&dir).await, []);
        }
    };
    tokio::join!(write, looks);
    let mut steps = 0;
    let report = fsck(&dir, Check::default(), &mut |_| steps += 1).await.unwrap();
    assert_eq!((report.volumes, &report.findings), (1, &vec![]));
    assert!(
        report.entries >= 40 && report.checkpoints >= 3 && report.contents >= 220,
        "{report:?}"
    );
    assert!(report.bytes >= LARGE as u64 && steps > 1);
    let quick = look(&dir, Check { quick: true, ..Check::default() }).await;
    assert_eq!((quick.findings, quick.contents, quick.bytes), (vec![], report.contents, 0));
}

#[tokio::test]
async fn each_damage_is_found_and_told_where_it_is() {
    let (rig, volume) = filled().await;
    let dir = rig.shut_down().await;
    let at = dir.path();
    let database = Connection::open(at.join("journal.db")).unwrap();
    let one = |sql: &str| -> i64 { database.query_row(sql, [], |row| row.get(0)).unwrap() };
    let first =
        one("SELECT min(seq) FROM checkpoints WHERE seq >= (SELECT retained_after FROM volumes)");
    let inside = first + 3;
    let whole = "SELECT group_concat(v, '|') FROM (SELECT quote(entry) v FROM entries)";
    let before: String = database.query_row(whole, [], |row| row.get(0)).unwrap();

    // What is done, and undone; and the one thing that is found.
    let cases: [(&str, String, String, Kind, String, &str); 6] = [
        (
            "an entry is lost",
            format!("CREATE TABLE saved AS SELECT * FROM entries WHERE seq = {inside};
                     DELETE FROM entries WHERE seq = {inside}"),
            "INSERT INTO entries SELECT * FROM saved; DROP TABLE saved".into(),
            Kind::Journal,
            format!("entry {inside}"),
            "missing",
        ),
        (
            "an entry is another",
            format!("CREATE TABLE saved AS SELECT * FROM entries WHERE seq = {inside};
                     UPDATE entries SET entry = replace(entry, '\"parent\":', '\"parent\":99')
                     WHERE seq = {inside}"),
            format!("UPDATE entries SET entry = (SELECT entry FROM saved) WHERE seq = {inside};
                     DROP TABLE saved"),
            Kind::Journal,
            format!("entry {inside}"),
            "does not fit the tree",
        ),
        (
            "a checkpoint is another's",
            format!("CREATE TABLE saved AS SELECT * FROM checkpoints;
                     UPDATE checkpoints SET packed = (SELECT packed FROM checkpoints
                     WHERE seq = {first}) WHERE seq > {first}"),
            "DELETE FROM checkpoints; INSERT INTO checkpoints SELECT * FROM saved; DROP TABLE saved".into(),
            Kind::Checkpoint,
            "checkpoint".into(),
            "it is the tree of entry",
        ),
        (
            "the sum is wrong",
            "UPDATE volumes SET used_bytes = used_bytes + 1".into(),
            "UPDATE volumes SET used_bytes = used_bytes - 1".into(),
            Kind::Usage,
            String::new(),
            "is there",
        ),
        (
            "a small content is damaged",
            "UPDATE inline SET bytes = CAST('kept as it Is now' AS BLOB) WHERE bytes = CAST('kept as it is now' AS BLOB)".into(),
            "UPDATE inline SET bytes = CAST('kept as it is now' AS BLOB) WHERE bytes = CAST('kept as it Is now' AS BLOB)".into(),
            Kind::Content,
            "kept.txt".into(),
            "damaged",
        ),
        (
            "a content that only a snapshot names is lost",
            "CREATE TABLE saved AS SELECT * FROM inline WHERE bytes = CAST('kept in the first snapshot' AS BLOB);
             DELETE FROM inline WHERE bytes = CAST('kept in the first snapshot' AS BLOB)".into(),
            "INSERT INTO inline SELECT * FROM saved; DROP TABLE saved".into(),
            Kind::Content,
            "kept.txt in snapshot".into(),
            "is missing",
        ),
    ];
    for (what, damage, mend, kind, place, why) in cases {
        database.execute_batch(&damage).unwrap();
        let found = findings(at).await;
        assert!(!found.is_empty(), "{what} is not found");
        let told = |it: &Finding| {
            it.kind == kind
                && it.place.starts_with(&place)
                && it.why.contains(why)
                && it.volume.as_deref() == Some(&*volume)
        };
        assert!(found.iter().all(told), "{what}: {found:?}");
        database.execute_batch(&mend).unwrap();
        assert_eq!(findings(at).await, [], "{what} is mended");
    }
    let after: String = database.query_row(whole, [], |row| row.get(0)).unwrap();
    assert_eq!(before, after);

    // Large contents: of a chunk, a recipe, and both kinds of harm.
    for kind in ["chunks", "recipes"] {
        let file = files(at, kind).remove(0);
        let bytes = fs::read(&file).unwrap();
        for harm in ["flipped", "gone"] {
            if harm == "gone" {
                fs::remove_file(&file).unwrap()
            } else {
                flip(&file)
            }
            let found = findings(at).await;
            let told = |it: &Finding| it.kind == Kind::Content && it.place.contains("large.bin");
            assert!(!found.is_empty() && found.iter().all(told), "{kind} {harm}: {found:?}");
            fs::write(&file, &bytes).unwrap();
        }
    }
    assert_eq!(findings(at).await, []);

    // What is set aside can be sent again.
    let file = files(at, "chunks").remove(0);
    flip(&file);
    let aside = Check { set_aside: true, ..Check::default() };
    assert!(!look(at, aside).await.findings.is_empty());
    assert!(!file.exists() && file.with_extension("damaged").exists());
    let again = config(at);
    let rig = Rig::at(dir, again).await;
    let path = format!("/api/v1/sandboxvolumes/{volume}/files?path=large.bin");
    rig.data(Method::POST, &path, large()).await;
    assert_eq!(findings(rig.dir.path()).await, []);
}

#[tokio::test]
async fn a_backup_is_made_beside_the_service_and_brought_back() {
    let (rig, volume) = filled().await;
    let kept = tempfile::tempdir().unwrap();
    let kept = kept.path().join("backup");
    let (made, first) = backup(rig.dir.path(), &kept, &mut |_| {}).await.unwrap();
    assert_eq!(made.volumes, std::slice::from_ref(&volume));
    assert!(first.new > 2 && first.new == first.contents && first.damaged.is_empty(), "{first:?}");
    let old = rig.client.tree(&volume).await.unwrap();
    // It is data like any other, and can be looked at.
    assert_eq!(findings(&kept).await, []);

    // Again, and only what is new is copied.
    let write = async |path: &str, text: &str| {
        let at = format!("/api/v1/sandboxvolumes/{volume}/files?path={path}");
        rig.data(Method::POST, &at, text.as_bytes().to_vec()).await;
    };
    write("later.bin", &"later ".repeat(50_000)).await;
    let (_, second) = backup(rig.dir.path(), &kept, &mut |_| {}).await.unwrap();
    assert_eq!((second.new, second.contents), (second.contents - first.contents, second.contents));
    assert!(second.new > 0 && second.bytes < LARGE as u64, "{second:?}");
    let (epoch, tree) = rig.client.tree(&volume).await.unwrap();
    assert_ne!(old.1, tree);
    write("lost.txt", "after the backup").await;
    let head = rig.client.tree(&volume).await.unwrap().1.head();

    // Nothing is brought back over a service's data.
    let refused = restore(&kept, rig.dir.path(), &mut |_| {}).await.unwrap_err();
    assert!(refused.to_string().contains("another service"), "{refused}");
    let token = rig.token.clone();
    let dir = rig.shut_down().await;
    let refused = restore(&kept, dir.path(), &mut |_| {}).await.unwrap_err();
    assert!(refused.to_string().contains("move them away first"), "{refused}");
    let none = restore(&dir.path().join("none"), dir.path(), &mut |_| {}).await.unwrap_err();
    assert!(none.to_string().contains("backup.json"), "{none}");
    drop(dir);

    let dir = tempfile::tempdir().unwrap();
    // One that broke off does not keep the next from being done.
    fs::write(dir.path().join("journal.new"), "torn").unwrap();
    let (found, copied) = restore(&kept, dir.path(), &mut |_| {}).await.unwrap();
    assert_eq!((found.volumes, copied.new), (vec![volume.clone()], second.contents));
    assert_eq!(findings(dir.path()).await, []);
    let again = config(dir.path());
    let rig = Rig::at(dir, again).await;
    assert_ne!(rig.token, token, "the token of the directory is not in a backup");
    let (now, back) = rig.client.tree(&volume).await.unwrap();
    assert_eq!(digest(&back), digest(&tree));
    assert_ne!(now, epoch);
    let known = rig.client.events(&volume, head, Some(&epoch)).await.err().unwrap();
    assert!(matches!(known, Error::EpochChanged { head, .. } if head == tree.head()), "{known:?}");
    assert!(tree.head() < head && tree.head() > Seq(0));
    let at = format!("/api/v1/sandboxvolumes/{volume}/files?path=large.bin");
    let token = format!("Bearer {}", rig.token);
    let bytes = rig.ask(Method::GET, &at, &[("authorization", token.as_str())], ()).await.bytes;
    assert!(bytes[..] == large()[..]);
}

#[tokio::test]
async fn a_backup_tells_what_it_could_not_copy() {
    let (rig, _) = filled().await;
    let file = files(rig.dir.path(), "chunks").remove(0);
    flip(&file);
    let kept = tempfile::tempdir().unwrap();
    let (_, copied) = backup(rig.dir.path(), kept.path(), &mut |_| {}).await.unwrap();
    assert_eq!(copied.damaged, [file]);
    assert_eq!(json!(copied)["damaged"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn no_database_is_put_where_another_one_was() {
    let (rig, volume) = filled().await;
    let kept = tempfile::tempdir().unwrap();
    backup(rig.dir.path(), kept.path(), &mut |_| {}).await.unwrap();
    let dir = rig.shut_down().await;
    let before = fs::read(dir.path().join("journal.db")).unwrap();
    // A service's own data is no backup, whether it runs or not, and whatever else is there.
    for more in [None, Some("backup.json")] {
        if let Some(name) = more {
            fs::copy(kept.path().join(name), dir.path().join(name)).unwrap();
        }
        let refused = backup(dir.path(), dir.path(), &mut |_| {}).await.unwrap_err();
        assert!(refused.to_string().contains("another directory"), "{refused}");
        assert_eq!(fs::read(dir.path().join("journal.db")).unwrap(), before);
    }
    // What a database leaves beside it would be taken for the next one's.
    for rest in ["journal.db-wal", "journal.db-shm"] {
        let other = tempfile::tempdir().unwrap();
        fs::write(other.path().join(rest), "of another database").unwrap();
        let refused = restore(kept.path(), other.path(), &mut |_| {}).await.unwrap_err();
        assert!(refused.to_string().contains("move them away first"), "{refused}");
        assert!(!other.path().join("journal.db").exists());
        let refused = backup(dir.path(), other.path(), &mut |_| {}).await.unwrap_err();
        assert!(refused.to_string().contains("another directory"), "{refused}");
    }
    assert_eq!(look(dir.path(), Check::default()).await.volumes, 1, "{volume} is as it was");
}
