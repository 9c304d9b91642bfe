//! The documented sync routes, as clients other than ours use them.

use std::collections::BTreeMap;
use std::io::Read;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use s0_api::documented::{BootstrapRequest, ConflictStatus};
use s0_api::{Client, Error};
use s0_tree::{Hash, Seq};
use serde_json::{Value, json};

use crate::rig::{Rig, code, noise};

pub(crate) struct Replica<'a> {
    pub(crate) rig: &'a Rig,
    pub(crate) sync: String,
    pub(crate) id: &'a str,
}

impl<'a> Replica<'a> {
    pub(crate) async fn register(rig: &'a Rig, volume: &str, id: &'a str, body: Value) -> Self {
        let sync = format!("/api/v1/sandboxvolumes/{volume}/sync");
        let this = Self { rig, sync, id };
        let data = rig.data(Method::PUT, &this.route(""), body).await;
        assert_eq!(data["replica"]["id"], id);
        this
    }

    pub(crate) async fn linux(rig: &'a Rig, volume: &str, id: &'a str) -> Self {
        let body = json!({"platform": "linux", "case_sensitive": true});
        Self::register(rig, volume, id, body).await
    }

    fn route(&self, more: &str) -> String {
        format!("{}/replicas/{}{more}", self.sync, self.id)
    }

    pub(crate) async fn try_send(&self, request: &str, base: u64, changes: Value) -> (u16, Value) {
        let body = json!({"request_id": request, "base_seq": base, "changes": changes});
        self.rig.raw(Method::POST, &self.route("/changes"), body).await
    }

    pub(crate) async fn send(&self, request: &str, base: u64, changes: Value) -> Value {
        let (status, mut answer) = self.try_send(request, base, changes).await;
        assert_eq!(status, 200, "{answer}");
        answer["data"].take()
    }
}

pub(crate) fn write(path: &str, text: &[u8]) -> Value {
    json!({"event_type": "write", "path": path, "content_base64": STANDARD.encode(text)})
}

pub(crate) fn reasons(answer: &Value) -> Vec<&str> {
    let all = answer["conflicts"].as_array().unwrap().iter();
    all.map(|one| one["reason"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_replica_uploads_and_another_reads_it() {
    let rig = Rig::start().await;
    let volume = rig.volume().await;
    let a = Replica::linux(&rig, &volume, "a").await;
    let large = noise(300_000);
    let done = a
        .send(
            "1",
            0,
            json!([
                {"event_type": "create", "path": "/src", "entry_kind": "directory"},
                write("/src/deep/main.rs", b"fn main() {}"),
                write("/large.bin", &large),
                {"event_type": "chmod", "path": "/src/deep/main.rs", "mode": 0o755},
                {"event_type": "rename", "old_path": "/large.bin", "path": "/bin/large"},
                {"event_type": "create", "path": "/empty"},
                {"event_type": "remove", "path": "/never/was"},
                {"event_type": "invalidate", "path": "/"},
            ]),
        )
        .await;
    assert_eq!(done["conflicts"], json!([]));
    let accepted = done["accepted"].as_array().unwrap();
    let told: Vec<(&str, &str)> = accepted
        .iter()
        .map(|one| (one["event_type"].as_str().unwrap(), one["path"].as_str().unwrap()))
        .collect();
    assert_eq!(
        told,
        [
            ("create", "/src"),
            ("create", "/src/deep"),
            ("create", "/src/deep/main.rs"),
            ("create", "/large.bin"),
            ("chmod", "/src/deep/main.rs"),
            ("create", "/bin"),
            ("rename", "/bin/large"),
            ("create", "/empty"),
        ]
    );
    let list = rig.client.changes(&volume, Seq(0), 0, 0).await.unwrap();
    assert_eq!(serde_json::to_value(&list.changes).unwrap(), done["accepted"]);
    assert_eq!((list.head_seq, list.retained_after_seq), (8, 0));
    for (at, bytes) in [(2, &b"fn main() {}"[..]), (3, &large[..])] {
        let entry = &list.changes[at];
        let hash = Hash::of(bytes).to_string();
        assert_eq!(entry.content_sha256.as_deref(), Some(hash.as_str()));
        assert_eq!(entry.content_ref, Some(format!("sha256:{hash}")));
        assert_eq!(entry.size_bytes, Some(bytes.len() as i64));
        let reference = entry.content_ref.as_deref().unwrap();
        let read = rig.client.replay_payload(&volume, reference).await.unwrap();
        assert!(Client::collect(read).await.unwrap() == bytes);
        // Another Volume does not name it.
        let other = rig.volume().await;
        let hidden = rig.client.replay_payload(&other, reference).await.err().unwrap();
        assert!(matches!(hidden, Error::NotFound(_)));
    }
    assert_eq!(list.changes[6].old_path.as_deref(), Some("/large.bin"));
    assert_eq!(list.changes[4].mode, Some(0o755));
    let page = rig.client.changes(&volume, Seq(2), 3, 0).await.unwrap();
    assert_eq!(page.changes.iter().map(|one| one.seq).collect::<Vec<_>>(), [3, 4, 5]);
    let bad = format!("{}/replay-payload?content_ref=md5:1", a.sync);
    assert_eq!(code(&rig.raw(Method::GET, &bad, ()).await), (400, "bad_request"));
    let bad = format!("{}/changes?after=x", a.sync);
    assert_eq!(code(&rig.raw(Method::GET, &bad, ()).await), (400, "bad_request"));
    let ahead = rig.client.changes(&volume, Seq(99), 0, 0).await.unwrap();
    assert!(ahead.changes.is_empty());
}

#[tokio::test]
async fn a_request_is_done_once_and_its_name_is_not_reused() {
    let rig = Rig::start().await;
    let volume = rig.volume().await;
    let a = Replica::linux(&rig, &volume, "a").await;
    let first = a.send("q", 0, json!([write("/x", b"1")])).await;
    assert_eq!(a.send("q", 0, json!([write("/x", b"1")])).await, first);
    let reused = a.try_send("q", 0, json!([write("/x", b"2")])).await;
    assert_eq!(reused.1["error"]["message"], "sync request id reused with different payload");
    // Two that arrive together, too.
    let (one, two) = tokio::join!(
        a.send("t", 1, json!([write("/y", b"1")])),
        a.send("t", 1, json!([write("/y", b"1")]))
    );
    assert_eq!(one, two);
    assert_eq!(rig.client.tree(&volume).await.unwrap().1.head(), Seq(2));
    // Names are a replica's own.
    let b = Replica::linux(&rig, &volume, "b").await;
    assert_eq!(b.send("q", 2, json!([write("/z", b"1")])).await["head_seq"], 3);
}

#[tokio::test]
async fn the_documented_errors() {
    let rig = Rig::start().await;
    let volume = rig.volume().await;
    let a = Replica::linux(&rig, &volume, "a").await;
    let unknown = Replica { rig: &rig, sync: a.sync.clone(), id: "none" };
    assert_eq!(code(&unknown.try_send("1", 0, json!([])).await), (404, "not_found"));
    assert_eq!(rig.raw(Method::GET, &unknown.route(""), ()).await.0, 404);
    a.send("1", 0, json!([write("/x", b"1"), write("/y", b"1")])).await;
    let says = async |answer: (u16, Value), message: &str| {
        assert_eq!((answer.0, &answer.1["error"]["message"]), (409, &json!(message)));
    };
    says(a.try_send("2", 9, json!([])).await, "sync cursor ahead of head").await;
    let cursor = async |seq: u64| {
        rig.raw(Method::PUT, &a.route("/cursor"), json!({"last_applied_seq": seq})).await
    };
    says(cursor(3).await, "sync cursor ahead of head").await;
    assert_eq!(cursor(2).await.1["data"]["replica"]["last_applied_seq"], 2);
    says(cursor(1).await, "sync cursor regression").await;
    says(a.try_send("3", 1, json!([])).await, "sync cursor regression").await;
    for (what, changes) in [
        ("an event type", json!([{"event_type": "explode", "path": "/x"}])),
        (
            "a hash",
            json!([{"event_type": "write", "path": "/x", "content_base64": "aGk=",
                           "content_sha256": "00"}]),
        ),
        (
            "a size",
            json!([{"event_type": "write", "path": "/x", "content_base64": "aGk=",
                           "size_bytes": 3}]),
        ),
        ("base64", json!([{"event_type": "write", "path": "/x", "content_base64": "%"}])),
        ("no content", json!([{"event_type": "write", "path": "/x"}])),
        ("no mode", json!([{"event_type": "chmod", "path": "/x"}])),
        ("no old path", json!([{"event_type": "rename", "path": "/x"}])),
    ] {
        let both = json!([write("/not/done", b"1"), changes[0]]);
        assert_eq!(code(&a.try_send(what, 2, both).await), (400, "bad_request"), "{what}");
    }
    assert_eq!(code(&a.try_send("", 2, json!([])).await), (400, "bad_request"));
    assert_eq!(rig.client.tree(&volume).await.unwrap().1.head(), Seq(2), "nothing was done");
    // A replica that is forgotten is unknown, and does not decide about names.
    rig.client.unregister(&volume, "a").await.unwrap();
    assert_eq!(code(&a.try_send("4", 2, json!([])).await), (404, "not_found"));
}

#[tokio::test]
async fn unseen_changes_conflict_and_keep_both_contents() {
    let rig = Rig::start().await;
    let volume = rig.volume().await;
    let a = Replica::linux(&rig, &volume, "a").await;
    let b = Replica::linux(&rig, &volume, "b").await;
    a.send("1", 0, json!([write("/x", b"base"), write("/d/y", b"1"), write("/e/z", b"1")])).await;
    a.send(
        "2",
        5,
        json!([
            write("/x", b"theirs"),
            {"event_type": "remove", "path": "/d/y"},
            {"event_type": "rename", "old_path": "/e", "path": "/moved"},
        ]),
    )
    .await;
    let done = b
        .send(
            "1",
            5,
            json!([
                write("/x", b"mine"),
                write("/d/y", b"mine"),
                write("/e/z", b"mine"),
                write("/free", b"fine"),
            ]),
        )
        .await;
    // The third is below a directory that was renamed away.
    assert_eq!(reasons(&done), ["concurrent_update"; 3]);
    assert_eq!(done["accepted"].as_array().unwrap().len(), 1);
    let conflict = &done["conflicts"][0];
    assert_eq!(conflict["replica_id"], "b");
    assert_eq!((&conflict["path"], &conflict["existing_seq"]), (&json!("/x"), &json!(6)));
    assert_eq!(conflict["metadata"]["latest_replica_id"], "a");
    assert_eq!(conflict["metadata"]["base_seq"], 5);
    for (key, text) in [("content_ref", "mine"), ("existing_content_ref", "theirs")] {
        let reference = conflict["metadata"][key].as_str().unwrap();
        let read = rig.client.replay_payload(&volume, reference).await.unwrap();
        assert_eq!(Client::collect(read).await.unwrap(), text.as_bytes());
    }
    // Nothing is written into the tree.
    assert_eq!(rig.read(&volume, "x").await, b"theirs");
    assert_eq!(rig.client.list_files(&volume, "/").await.unwrap().len(), 4);

    // A replica's own writes are not news to it.
    let own = a.send("3", 5, json!([write("/x", b"again")])).await;
    assert_eq!(own["conflicts"], json!([]));

    let open = rig.client.conflicts(&volume, Some(ConflictStatus::Open)).await.unwrap();
    assert_eq!(open.len(), 3);
    let id = conflict["id"].as_str().unwrap();
    let settled = rig
        .client
        .set_conflict(&volume, id, ConflictStatus::Resolved, "keep_theirs", "talked")
        .await
        .unwrap();
    assert_eq!(settled.status, ConflictStatus::Resolved);
    assert_eq!(settled.metadata.unwrap()["note"], "talked");
    assert_eq!(rig.client.conflicts(&volume, Some(ConflictStatus::Open)).await.unwrap().len(), 2);
    assert_eq!(rig.client.conflicts(&volume, None).await.unwrap().len(), 3);
    let route = format!("{}/conflicts", a.sync);
    let none = rig.data(Method::GET, &format!("{route}?status=odd"), ()).await;
    assert_eq!(none["conflicts"], json!([]));
    let bad = rig.raw(Method::PUT, &format!("{route}/{id}"), json!({"status": "open"})).await;
    assert_eq!(code(&bad), (400, "bad_request"));
    let unknown =
        rig.raw(Method::PUT, &format!("{route}/none"), json!({"status": "ignored"})).await;
    assert_eq!(code(&unknown), (404, "not_found"));
}

#[tokio::test]
async fn names_that_a_replica_cannot_hold_conflict() {
    let rig = Rig::start().await;
    let volume = rig.volume().await;
    let a = Replica::linux(&rig, &volume, "a").await;
    a.send("1", 0, json!([write("/Readme", b"1"), write("/é", b"1")])).await;
    let windows = Replica::register(&rig, &volume, "w", json!({"platform": "windows"})).await;
    let shown = rig.data(Method::GET, &windows.route(""), ()).await;
    assert_eq!(
        shown["replica"]["capabilities"],
        json!({"case_sensitive": false, "unicode_normalization_insensitive": true,
               "windows_compatible_paths": true})
    );
    let done = a
        .send(
            "2",
            2,
            json!([
                write("/README", b"2"),
                write("/e\u{301}", b"2"),
                write("/con.txt", b"2"),
                write("/dot.", b"2"),
                write("/what?", b"2"),
                write("/bell\u{7}", b"2"),
                {"event_type": "rename", "old_path": "/Readme", "path": "/readme"},
                write("/fine", b"2"),
            ]),
        )
        .await;
    assert_eq!(
        reasons(&done),
        [
            "casefold_collision",
            "casefold_collision",
            "windows_reserved_name",
            "windows_trailing_dot_space",
            "windows_forbidden_character",
            "windows_control_character",
        ]
    );
    let metadata = &done["conflicts"][2]["metadata"];
    assert_eq!(metadata["issues"][0]["code"], "windows_reserved_name");
    assert_eq!(metadata["capabilities"]["windows_compatible_paths"], true);
    assert_eq!(done["accepted"].as_array().unwrap().len(), 2);
    // The file API refuses too, and the replica's people learn of it.
    let refused = rig.client.write_file(&volume, "aux", "x".to_owned()).await;
    assert!(matches!(refused, Err(Error::Conflict { .. })), "{refused:?}");
    let newest = &rig.client.conflicts(&volume, None).await.unwrap()[0];
    assert_eq!((newest.path.as_str(), newest.replica_id.as_deref()), ("/aux", None));

    rig.client.unregister(&volume, "w").await.unwrap();
    rig.write(&volume, "aux", "x").await;
}

#[tokio::test]
async fn waiting_for_changes_ends_with_the_first() {
    let rig = Rig::start().await;
    let volume = rig.volume().await;
    let start = Instant::now();
    let none = rig.client.changes(&volume, Seq(0), 0, 100).await.unwrap();
    assert!(none.changes.is_empty() && start.elapsed() >= Duration::from_millis(100));
    let client = rig.client.clone();
    let id = volume.clone();
    let waiting = tokio::spawn(async move { client.changes(&id, Seq(0), 0, 30_000).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    rig.write(&volume, "x", "1").await;
    assert_eq!(waiting.await.unwrap().unwrap().changes.len(), 1);
}

#[tokio::test]
async fn a_bootstrap_is_a_tree_and_where_to_read_on() {
    let rig = Rig::start().await;
    let volume = rig.volume().await;
    let a = Replica::linux(&rig, &volume, "a").await;
    let large = noise(700_000);
    let long = format!("/long/{}/{}", "x".repeat(120), "y".repeat(120));
    a.send("1", 0, json!([
        write("/b/2", b"two"),
        write("/a", b"one"),
        write("/b/1", &large),
        write(&long, b"far"),
        {"event_type": "create", "path": "/link", "entry_kind": "symlink", "link_target": "b/2"},
        {"event_type": "chmod", "path": "/a", "mode": 0o755},
    ]))
    .await;
    let boot = rig.client.bootstrap(&volume, &BootstrapRequest::default()).await.unwrap();
    assert_eq!(boot.replay_after_seq, rig.client.tree(&volume).await.unwrap().1.head().0);
    assert!(boot.snapshot.name.starts_with("sync-bootstrap-"));
    rig.write(&volume, "later", "not in it").await;

    let packed = rig.client.bootstrap_archive(&volume, &boot.snapshot.id).await.unwrap();
    let packed = Client::collect(packed).await.unwrap();
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(&packed[..]));
    let mut found = BTreeMap::new();
    let mut order = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        if let Some(target) = entry.link_name_bytes() {
            bytes.extend_from_slice(&target);
        }
        order.push(name.clone());
        found.insert(name, (bytes, entry.header().mode().unwrap()));
    }
    let top: Vec<&str> = order.iter().map(String::as_str).filter(|name| name.len() < 20).collect();
    assert_eq!(top, ["a", "b/", "b/1", "b/2", "link", "long/"]);
    assert_eq!(found["a"], (b"one".to_vec(), 0o755));
    assert!(found["b/1"].0 == large);
    assert_eq!(found["link"].0, b"b/2");
    assert_eq!(found[&long[1..]].0, b"far");

    let route = format!("{}/bootstrap/archive", a.sync);
    assert_eq!(code(&rig.raw(Method::GET, &route, ()).await), (400, "bad_request"));
    let unknown = rig.raw(Method::GET, &format!("{route}?snapshot_id=none"), ()).await;
    assert_eq!(code(&unknown), (404, "not_found"));

    // A tree that the replica cannot hold.
    a.send("2", boot.replay_after_seq, json!([write("/A", b"1"), write("/nul", b"1")])).await;
    let windows = json!({"capabilities": {"case_sensitive": false,
        "unicode_normalization_insensitive": false, "windows_compatible_paths": true}});
    let answer = rig.raw(Method::POST, &format!("{}/bootstrap", a.sync), windows).await;
    assert_eq!(answer.0, 409);
    let details = &answer.1["error"]["details"];
    assert_eq!(details["reason"], "namespace_incompatible");
    assert_eq!(details["capabilities"]["unicode_normalization_insensitive"], true);
    assert_eq!(details["issues"][0]["code"], "casefold_collision");
    assert_eq!(details["issues"][0]["paths"], json!(["/A", "/a"]));
    assert_eq!(details["issues"][1]["code"], "windows_reserved_name");
}
