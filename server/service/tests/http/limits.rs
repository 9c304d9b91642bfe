//! What is too long, too large or too many, and what is written differently.

use reqwest::Method;
use s0_api::sync::SubmitError;
use s0_api::{Error, SubmitFailure};
use s0_tree::{Action, AttributeChange, Change, MAX_XATTR_BYTES, Seq};
use serde_json::{Value, json};

use crate::rig::{Rig, code, config, create, path, registration, submission};

const VOLUMES: &str = "/api/v1/sandboxvolumes";

#[tokio::test]
async fn nothing_gets_a_path_that_cannot_be_told() {
    let rig = Rig::start().await;
    let volume = rig.volume().await;
    let deep = format!("a{}/f", format!("/{}", "n".repeat(200)).repeat(20));
    rig.write(&volume, &deep, "deep").await;
    let longer = "x".repeat(200);
    let refused = rig.client.move_file(&volume, "a", &longer).await.unwrap_err();
    let Error::Conflict { message, details } = refused else { panic!("{refused:?}") };
    assert_eq!(message, "the path would be too long");
    assert_eq!(details.unwrap()["reason"], "path_too_long");
    // It is told to who asks, and nothing is left to settle.
    assert!(rig.client.conflicts(&volume, None).await.unwrap().is_empty());
    rig.client.move_file(&volume, "a", "b").await.unwrap();
    rig.client.remove_file(&volume, "b").await.unwrap();
    let dir = rig.shut_down().await;
    let config = config(dir.path());
    let rig = Rig::at(dir, config).await;
    assert!(rig.client.tree(&volume).await.unwrap().1.is_empty());
}

#[tokio::test]
async fn ids_and_requests_have_limits() {
    let rig = Rig::start().await;
    let volume = rig.volume().await;
    let replicas = format!("{VOLUMES}/{volume}/sync/replicas");
    let long = "i".repeat(257);
    let put =
        async |id: &str, body: Value| rig.raw(Method::PUT, &format!("{replicas}/{id}"), body).await;
    assert_eq!(code(&put(&long, json!({})).await), (400, "bad_request"));
    assert_eq!(code(&put("r", json!({"sandbox_id": long})).await), (400, "bad_request"));
    assert_eq!(put(&long[1..], json!({"sandbox_id": &long[1..]})).await.0, 200);
    let changes = format!("{replicas}/{}/changes", &long[1..]);
    let send = async |request: &str, changes_of: Vec<Value>| {
        let body = json!({"request_id": request, "base_seq": 0, "changes": changes_of});
        rig.raw(Method::POST, &changes, body).await
    };
    assert_eq!(code(&send(&long, vec![]).await), (400, "bad_request"));
    assert_eq!(send(&long[1..], vec![]).await.0, 200);
    let nothing = json!({"event_type": "invalidate"});
    let too_many = send("many", vec![nothing.clone(); 20_001]).await;
    assert_eq!(code(&too_many), (413, "bad_request"));
    assert_eq!(send("many", vec![nothing; 20_000]).await.0, 200);
    assert_eq!(rig.client.tree(&volume).await.unwrap().1.head(), Seq(0));

    rig.client.register(&volume, "a", &registration()).await.unwrap();
    let xattrs = [("user.x".to_owned(), Some(vec![0; MAX_XATTR_BYTES]))].into_iter().collect();
    let set = AttributeChange { xattrs, ..AttributeChange::default() };
    let large = Change::unstated(Action::Attributes { path: path("f"), set });
    let first = create("f", s0_tree::Content::empty());
    let sent = submission(1, &[first, large]);
    let answer = rig.client.submit(&volume, "a", 1, &sent, &[]).await;
    assert!(matches!(answer, Err(SubmitFailure::Refused(SubmitError::Invalid { index: 1, .. }))));
}

#[tokio::test]
async fn null_is_taken_as_absent() {
    let rig = Rig::start().await;
    let volume = rig.volume().await;
    let base = format!("{VOLUMES}/{volume}");
    let nulls = json!({"display_name": null, "platform": null, "root_path": null,
        "case_sensitive": true, "capabilities": null});
    rig.data(Method::PUT, &format!("{base}/sync/replicas/r"), nulls).await;
    let nulls = json!({"name": "n", "description": null});
    rig.data(Method::POST, &format!("{base}/snapshots"), nulls).await;
    let nulls = json!({"snapshot_name": null, "snapshot_description": null,
        "case_sensitive": null, "capabilities": null});
    rig.data(Method::POST, &format!("{base}/sync/bootstrap"), nulls).await;
    let nulls = json!({"request_id": "1", "base_seq": 0, "changes": [{"event_type": "create",
        "path": "/x", "old_path": null, "entry_kind": null, "content_base64": null, "mode": null,
        "content_sha256": null, "size_bytes": null, "metadata": null}]});
    rig.data(Method::POST, &format!("{base}/sync/replicas/r/changes"), nulls).await;
    let nulls = json!({"access_mode": null, "default_posix_uid": null, "default_posix_gid": null});
    rig.data(Method::POST, VOLUMES, nulls).await;
}
