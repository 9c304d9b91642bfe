//! Volumes, forks, snapshots.

use reqwest::Method;
use serde_json::{Value, json};

use super::VOLUMES;
use crate::rig::{Rig, code};

pub(super) async fn volumes(rig: &Rig) {
    let body = json!({"access_mode": " rox ", "cache_size": "1G", "prefetch": 1,
        "buffer_size": "32M", "writeback": false});
    let (status, made) = rig.raw(Method::POST, VOLUMES, body).await;
    assert_eq!((status, &made["data"]["access_mode"]), (201, &json!("ROX")));
    for old in ["cache_size", "prefetch", "buffer_size", "writeback", "source_volume_id"] {
        assert!(made["data"].get(old).is_none(), "{old}");
    }
    let id = made["data"]["id"].as_str().unwrap();
    let one = format!("{VOLUMES}/{id}");
    assert_eq!(rig.data(Method::GET, &one, ()).await, made["data"]);
    assert_eq!(rig.data(Method::GET, VOLUMES, ()).await[0], made["data"], "newest first");
    for bad in [
        json!({"access_mode": "RW"}),
        json!({"default_posix_gid": 1}),
        json!({"default_posix_uid": 1, "default_posix_gid": -1}),
        json!({"default_posix_uid": "1", "default_posix_gid": 1}),
    ] {
        assert_eq!(code(&rig.raw(Method::POST, VOLUMES, bad.clone()).await), BAD, "{bad}");
        let fork = format!("{one}/fork");
        assert_eq!(code(&rig.raw(Method::POST, &fork, bad.clone()).await), BAD, "{bad}");
    }
    let none = format!("{VOLUMES}/none");
    assert_eq!(code(&rig.raw(Method::GET, &none, ()).await), (404, "not_found"));
    for path in [none, format!("{one}?force=true"), format!("{one}?force=what")] {
        assert_eq!(rig.data(Method::DELETE, &path, ()).await, json!({"deleted": true}));
    }
    assert_eq!(rig.raw(Method::GET, &one, ()).await.0, 404);
}

const BAD: (u16, &str) = (400, "bad_request");

pub(super) async fn forks(rig: &Rig) {
    let body = json!({"access_mode": "RWX", "default_posix_uid": 5, "default_posix_gid": 6});
    let source = rig.data(Method::POST, VOLUMES, body).await;
    let id = source["id"].as_str().unwrap();
    let fork =
        async |body: Value| rig.raw(Method::POST, &format!("{VOLUMES}/{id}/fork"), body).await;
    let (status, plain) = fork(json!({})).await;
    assert_eq!(status, 201);
    let plain = &plain["data"];
    assert_eq!((&plain["source_volume_id"], &plain["access_mode"]), (&json!(id), &json!("RWO")));
    assert_eq!((&plain["default_posix_uid"], &plain["default_posix_gid"]), (&json!(5), &json!(6)));
    let other = fork(json!({"default_posix_uid": 7, "default_posix_gid": 8})).await.1;
    assert_eq!(other["data"]["default_posix_uid"], 7);
    let empty = rig.raw(Method::POST, &format!("{VOLUMES}/{id}/fork"), ()).await;
    assert_eq!(empty.0, 201, "the body may be left out");
    let unknown = rig.raw(Method::POST, &format!("{VOLUMES}/none/fork"), ()).await;
    assert_eq!((unknown.0, &unknown.1["error"]["message"]), (404, &json!("volume not found")));
}

pub(super) async fn snapshots(rig: &Rig) {
    let id = rig.volume().await;
    rig.write(&id, "a", "12345").await;
    let all = format!("{VOLUMES}/{id}/snapshots");
    assert_eq!(rig.data(Method::GET, &all, ()).await, json!([]));
    let take = async |name: &str| {
        let (status, made) = rig.raw(Method::POST, &all, json!({"name": name})).await;
        assert_eq!(status, 201);
        made["data"].clone()
    };
    let (first, second) = (take("same").await, take("same").await);
    assert_eq!((&first["size_bytes"], &first["volume_id"]), (&json!(5), &json!(id)));
    let created = first["created_at"].as_str().unwrap();
    assert!(created.len() == 20 && created.ends_with('Z'), "{created}");
    assert!(first.get("expires_at").is_none() && first.get("description").is_none());
    assert_eq!(rig.data(Method::GET, &all, ()).await.as_array().unwrap().len(), 2);
    for bad in [json!({}), json!({"name": " "}), json!({"name": 1})] {
        assert_eq!(code(&rig.raw(Method::POST, &all, bad).await), BAD);
    }
    let one = format!("{all}/{}", first["id"].as_str().unwrap());
    assert_eq!(rig.data(Method::GET, &one, ()).await, first);
    rig.write(&id, "a", "changed").await;
    let restored = rig.data(Method::POST, &format!("{one}/restore"), ()).await;
    assert_eq!(restored, json!({"status": "restored"}));
    assert_eq!(rig.read(&id, "a").await, b"12345");
    let unknown = format!("{all}/none");
    for answer in [
        rig.raw(Method::GET, &unknown, ()).await,
        rig.raw(Method::POST, &format!("{unknown}/restore"), ()).await,
        rig.raw(Method::GET, &format!("{VOLUMES}/none/snapshots/none"), ()).await,
    ] {
        let message = &answer.1["error"]["message"];
        assert_eq!((answer.0, message), (404, &json!("snapshot not found")));
    }
    for answer in [
        rig.raw(Method::POST, &format!("{VOLUMES}/none/snapshots"), json!({"name": "n"})).await,
        rig.raw(Method::GET, &format!("{VOLUMES}/none/snapshots"), ()).await,
    ] {
        assert_eq!((answer.0, &answer.1["error"]["message"]), (404, &json!("volume not found")));
    }
    for path in [one, unknown, format!("{all}/{}", second["id"].as_str().unwrap())] {
        assert_eq!(rig.data(Method::DELETE, &path, ()).await, json!({"deleted": true}));
    }
    assert_eq!(rig.data(Method::GET, &all, ()).await, json!([]));
}

const FULL: (u16, &str) = (507, "quota_exceeded");

pub(super) async fn quotas(rig: &Rig) {
    let large = json!({"quota_bytes": u64::MAX});
    assert_eq!(code(&rig.raw(Method::POST, VOLUMES, large.clone()).await), BAD);
    let made = rig.data(Method::POST, VOLUMES, json!({"quota_bytes": 10, "quota_inodes": 3})).await;
    let told = |volume: &Value| {
        ["quota_bytes", "used_bytes", "quota_inodes", "used_inodes"].map(|key| volume[key].as_u64())
    };
    assert_eq!(told(&made), [Some(10), Some(0), Some(3), Some(0)]);
    let id = made["id"].as_str().unwrap();
    let one = format!("{VOLUMES}/{id}");
    let now = async || told(&rig.data(Method::GET, &one, ()).await);
    let at = |path: &str| format!("{one}/files?path={path}");
    let write = async |path: &str, text: &str| {
        rig.raw(Method::POST, &at(path), text.as_bytes().to_vec()).await
    };
    assert_eq!(write("a", "12345678").await.0, 200);
    let snapshot = format!("{one}/snapshots");
    let snapshot = rig.data(Method::POST, &snapshot, json!({"name": "s"})).await;
    let full = write("b", "123").await;
    assert_eq!(code(&full), FULL);
    let expected = json!({"reason": "quota_exceeded", "quota_bytes": 10, "used_bytes": 8,
        "quota_inodes": 3, "used_inodes": 1});
    assert_eq!(full.1["error"]["details"], expected);
    assert_eq!(write("a", "123").await.0, 200, "what shrinks fits");
    assert_eq!(write("a", "1234567890").await.0, 200, "what is replaced makes room");
    assert_eq!(write("d/e", "").await.0, 200);
    assert_eq!(code(&write("f", "").await), FULL);
    let directory = format!("{}&mkdir=true", at("f"));
    assert_eq!(code(&rig.raw(Method::POST, &directory, ()).await), FULL);
    assert_eq!(now().await, [Some(10), Some(10), Some(3), Some(3)]);

    // A smaller quota takes nothing away.
    assert_eq!(code(&rig.raw(Method::PATCH, &one, large).await), BAD);
    let smaller = rig.data(Method::PATCH, &one, json!({"quota_bytes": 4})).await;
    assert_eq!(told(&smaller), [Some(4), Some(10), Some(3), Some(3)]);
    assert_eq!(write("a", "123456").await.0, 200, "it shrinks, if not as far as the quota");
    assert_eq!(write("a", "12").await.0, 200);
    let clone = format!("{one}/files/clone");
    let entry = json!({"source_volume_id": id, "source_path": "a", "target_path": "g"});
    let clone = async || rig.raw(Method::POST, &clone, json!({"entries": [entry]})).await;
    assert_eq!(code(&clone().await), FULL);
    let restore = format!("{one}/snapshots/{}/restore", snapshot["id"].as_str().unwrap());
    assert_eq!(code(&rig.raw(Method::POST, &restore, ()).await), FULL);
    let version = format!("{one}/sync/history/restore");
    let version = async || {
        let asked = json!({"path": "a", "at": 1});
        rig.raw(Method::POST, &version, asked).await
    };
    assert_eq!(code(&version().await), FULL);
    rig.client.register(id, "r", &crate::rig::registration()).await.unwrap();
    let head =
        rig.data(Method::GET, &format!("{one}/sync/replicas/r"), ()).await["head_seq"].clone();
    let changes = format!("{one}/sync/replicas/r/changes");
    let asked = json!({"request_id": "q", "base_seq": head, "changes": [
        {"event_type": "remove", "path": "d/e"},
        {"event_type": "write", "path": "a", "content_base64": "MTIzNDU="}]});
    let changes = async || rig.raw(Method::POST, &changes, asked.clone()).await;
    assert_eq!(code(&changes().await), FULL);
    assert_eq!(now().await[1], Some(2), "nothing of it was done");

    // More room, or no end of it.
    let more = json!({"quota_bytes": null, "quota_inodes": 5});
    assert_eq!(told(&rig.data(Method::PATCH, &one, more).await)[0], None);
    assert_eq!(changes().await.0, 200);
    assert_eq!(clone().await.0, 200);
    assert_eq!(version().await.0, 200);
    assert_eq!(rig.raw(Method::POST, &restore, ()).await.0, 200);
    assert_eq!(now().await, [None, Some(8), Some(5), Some(1)]);

    // A fork has its source's quota, unless it says.
    let fork = format!("{one}/fork");
    let forked = rig.data(Method::POST, &fork, json!({"quota_bytes": 8})).await;
    assert_eq!(told(&forked), [Some(8), Some(8), Some(5), Some(1)]);
}
