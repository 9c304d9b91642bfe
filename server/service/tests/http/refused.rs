//! Conflicts, and that nothing that was refused is lost.

use reqwest::Method;
use s0_api::Client;
use s0_api::documented::{ConflictStatus, SyncConflict};
use s0_api::sync::Capabilities;
use s0_service::journal::Journal;
use s0_service::sqlite::SqliteJournal;
use s0_tree::{Content, Seq};
use serde_json::{Value, json};

use crate::changes::{Replica, reasons, write};
use crate::rig::{Rig, code, config, create, registration, submission};

async fn payload(rig: &Rig, volume: &str, conflict: &Value) -> Vec<u8> {
    let reference = conflict["metadata"]["content_ref"].as_str().unwrap();
    let read = rig.client.replay_payload(volume, reference).await.unwrap();
    Client::collect(read).await.unwrap()
}

#[tokio::test]
async fn what_falls_with_a_conflict_is_kept_as_well() {
    let rig = Rig::start().await;
    let volume = rig.volume().await;
    let a = Replica::linux(&rig, &volume, "a").await;
    let b = Replica::linux(&rig, &volume, "b").await;
    a.send("1", 0, json!([write("/x", b"theirs")])).await;
    let done = b
        .send(
            "1",
            0,
            json!([
                write("/x", b"mine"),
                write("/x", b"mine, later"),
                write("/x/y", b"mine, below"),
                write("/free", b"fine"),
            ]),
        )
        .await;
    assert_eq!(done["accepted"].as_array().unwrap().len(), 1);
    assert_eq!(reasons(&done), ["concurrent_update"; 3]);
    let conflicts = done["conflicts"].as_array().unwrap();
    for (conflict, text) in conflicts.iter().zip(["mine", "mine, later", "mine, below"]) {
        assert_eq!(payload(&rig, &volume, conflict).await, text.as_bytes());
    }
    assert_eq!(conflicts[2]["metadata"]["fell_with"], conflicts[0]["id"]);
    assert_eq!(conflicts[2]["path"], "/x/y");
    assert_eq!(rig.client.conflicts(&volume, None).await.unwrap().len(), 3);
    // Sent again, it is answered again.
    assert_eq!(b.try_send("1", 0, json!([])).await.0, 409);
}

fn strict() -> Value {
    json!({"platform": "windows"})
}

#[tokio::test]
async fn a_conflict_says_what_is_wrong_with_which_name() {
    let rig = Rig::start().await;
    let volume = rig.volume().await;
    let a = Replica::linux(&rig, &volume, "a").await;
    a.send("1", 0, json!([write("/Readme", b"1")])).await;
    Replica::register(&rig, &volume, "w", strict()).await;
    let done = a.send("2", 1, json!([write("/aux/x", b"2"), write("/README", b"2")])).await;
    let issues = |at: usize| &done["conflicts"][at]["metadata"]["issues"];
    let reserved = json!([{"code": "windows_reserved_name", "path": "/aux",
        "normalized_path": "/aux", "segment": "aux"}]);
    assert_eq!(issues(0), &reserved, "the directory that was to be made is the trouble");
    let collision = json!([{"code": "casefold_collision", "path": "/README",
        "normalized_path": "/readme", "paths": ["/README", "/Readme"]}]);
    assert_eq!(issues(1), &collision);

    // A submission says the same.
    rig.client.register(&volume, "ours", &registration()).await.unwrap();
    let sent = submission(1, &[create("aux", Content::empty())]);
    rig.client.submit(&volume, "ours", 1, &sent, &[]).await.unwrap();
    let newest: SyncConflict = rig.client.conflicts(&volume, None).await.unwrap().remove(0);
    let metadata = newest.metadata.unwrap();
    assert_eq!(metadata["issues"], reserved);
    let capabilities = Capabilities {
        case_sensitive: false,
        unicode_normalization_insensitive: true,
        windows_compatible_paths: true,
    };
    assert_eq!(metadata["capabilities"], json!(capabilities));
}

#[tokio::test]
async fn what_is_tried_often_is_recorded_once() {
    let rig = Rig::start().await;
    let volume = rig.volume().await;
    Replica::register(&rig, &volume, "w", strict()).await;
    let open = async || rig.client.conflicts(&volume, Some(ConflictStatus::Open)).await.unwrap();
    for number in 0..5 {
        let text = format!("log line {number}");
        rig.client.write_file(&volume, "aux.log", text).await.unwrap_err();
        rig.client.write_file(&volume, "nul", "x".to_owned()).await.unwrap_err();
    }
    assert_eq!(open().await.len(), 2);
    // What was settled and comes again is new.
    let settled = open().await.remove(0);
    rig.client
        .set_conflict(&volume, &settled.id, ConflictStatus::Resolved, "renamed", "")
        .await
        .unwrap();
    rig.client.write_file(&volume, "nul", "x".to_owned()).await.unwrap_err();
    assert_eq!(open().await.len(), 2);
    assert_eq!(rig.client.conflicts(&volume, None).await.unwrap().len(), 3);
}

#[tokio::test]
async fn a_restore_names_all_that_it_could_not_bring_back() {
    let rig = Rig::start().await;
    let volume = rig.volume().await;
    rig.write(&volume, "aux/deep/x", "old").await;
    let snapshot = rig.client.create_snapshot(&volume, "before", "").await.unwrap();
    rig.client.remove_file(&volume, "aux").await.unwrap();
    Replica::register(&rig, &volume, "w", strict()).await;
    let route = format!("/api/v1/sandboxvolumes/{volume}/snapshots/{}/restore", snapshot.id);
    let answer = rig.data(Method::POST, &route, ()).await;
    assert_eq!(answer, json!({"status": "restored", "conflicts": 3}));
    let all = rig.client.conflicts(&volume, None).await.unwrap();
    let paths: Vec<&str> = all.iter().map(|one| one.path.as_str()).collect();
    assert_eq!(paths, ["/aux/deep/x", "/aux/deep", "/aux"]);
    assert_eq!(payload(&rig, &volume, &json!(all[0])).await, b"old");
}

#[tokio::test]
async fn an_upload_is_not_judged_by_half_of_what_others_did() {
    let rig = Rig::start().await;
    let volume = rig.volume().await;
    let a = Replica::linux(&rig, &volume, "a").await;
    for number in 0..5 {
        rig.write(&volume, &format!("f{number}"), "theirs").await;
    }
    let sync = a.sync.clone();
    let dir = rig.shut_down().await;
    let config = config(dir.path());
    let rig = Rig::at(dir, config).await;
    let a = Replica { rig: &rig, sync, id: "a" };
    // It is in memory, and does not know yet that its upkeep has cut the journal.
    rig.client.tree(&volume).await.unwrap();
    let journal = SqliteJournal::open(&rig.dir.path().join("journal.db")).unwrap();
    journal.retain(&volume, Seq(3), Seq(0)).await.unwrap();
    let answer = a.try_send("1", 1, json!([write("/f1", b"mine")])).await;
    assert_eq!(code(&answer), (409, "conflict"));
    assert_eq!(answer.1["error"]["details"]["reason"], "reseed_required");
    assert_eq!(rig.read(&volume, "f1").await, b"theirs");
    // What comes after is judged by itself.
    let done = a.send("2", 3, json!([write("/f4", b"mine"), write("/new", b"mine")])).await;
    assert_eq!(reasons(&done), ["concurrent_update"]);
    assert_eq!(done["conflicts"][0]["metadata"]["latest_seq"], 5);
}
