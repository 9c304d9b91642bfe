//! The documented sync routes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use s0_tree::Hash;
use serde_json::{Value, json};

use super::VOLUMES;
use crate::rig::{Rig, code};

const BAD: (u16, &str) = (400, "bad_request");
const MISSING: (u16, &str) = (404, "not_found");

async fn replica(rig: &Rig, volume: &str, id: &str) -> String {
    let route = format!("{VOLUMES}/{volume}/sync/replicas/{id}");
    rig.data(Method::PUT, &route, json!({"platform": "linux", "case_sensitive": true})).await;
    route
}

fn write(path: &str, text: &str) -> Value {
    json!({"event_type": " WRITE ", "path": path, "content_base64": STANDARD.encode(text)})
}

async fn send(rig: &Rig, replica: &str, request: &str, base: u64, all: Value) -> (u16, Value) {
    let body = json!({"request_id": request, "base_seq": base, "changes": all});
    rig.raw(Method::POST, &format!("{replica}/changes"), body).await
}

/// A fork retains nothing that was before it.
async fn fork(rig: &Rig) -> String {
    let id = rig.volume().await;
    rig.write(&id, "a", "1").await;
    rig.write(&id, "b", "1").await;
    let fork = rig.data(Method::POST, &format!("{VOLUMES}/{id}/fork"), ()).await;
    fork["id"].as_str().unwrap().to_owned()
}

fn is_reseed(answer: &(u16, Value)) {
    assert_eq!((answer.0, &answer.1["error"]["message"]), (409, &json!("sync reseed required")));
    let details = json!({"reason": "reseed_required", "retained_after_seq": 2, "head_seq": 2});
    assert_eq!(answer.1["error"]["details"], details);
}

pub(super) async fn replicas(rig: &Rig) {
    let id = rig.volume().await;
    let all = format!("{VOLUMES}/{id}/sync/replicas");
    let put = async |name: &str, body: Value| {
        rig.data(Method::PUT, &format!("{all}/{name}"), body).await["replica"].clone()
    };
    let a = json!({"display_name": "mine", "platform": "linux", "root_path": "/w",
        "case_sensitive": true, "more": "is ignored"});
    let told = put("a", a).await;
    let said = ["id", "volume_id", "team_id", "display_name", "platform", "root_path"]
        .map(|key| told[key].as_str().unwrap().to_owned());
    assert_eq!(said, ["a", &id, "local", "mine", "linux", "/w"]);
    assert_eq!((&told["case_sensitive"], &told["last_applied_seq"]), (&json!(true), &json!(0)));
    let able = |sensitive, unicode, windows| {
        json!({"case_sensitive": sensitive, "unicode_normalization_insensitive": unicode,
            "windows_compatible_paths": windows})
    };
    assert_eq!(told["capabilities"], able(true, false, false));
    // The policy is merged over all that are registered, and follows when one goes.
    let given = json!({"capabilities": able(true, true, false), "case_sensitive": false});
    assert_eq!(put("b", given).await["capabilities"], able(true, true, false));
    assert_eq!(
        put("c", json!({"platform": "Darwin"})).await["capabilities"],
        able(false, true, false)
    );
    assert_eq!(
        put("d", json!({"platform": "win32"})).await["capabilities"],
        able(false, true, true)
    );
    assert_eq!(put("e", json!({})).await["capabilities"], able(false, true, true));
    for gone in ["b", "c", "d", "e", "none"] {
        let gone = rig.data(Method::DELETE, &format!("{all}/{gone}"), ()).await;
        assert_eq!(gone, json!({"deleted": true}));
    }
    let told = rig.data(Method::GET, &format!("{all}/a"), ()).await;
    assert_eq!(told["replica"]["capabilities"], able(true, false, false));
    assert_eq!(told["head_seq"], 0);
    assert_eq!(code(&rig.raw(Method::GET, &format!("{all}/none"), ()).await), MISSING);
    let lacking = json!({"capabilities": {"case_sensitive": true}});
    assert_eq!(code(&rig.raw(Method::PUT, &format!("{all}/a"), lacking).await), BAD);

    // Cursors.
    rig.write(&id, "x", "1").await;
    rig.write(&id, "x", "2").await;
    let cursor = async |name: &str, seq: Value| {
        let body = json!({"last_applied_seq": seq});
        rig.raw(Method::PUT, &format!("{all}/{name}/cursor"), body).await
    };
    assert_eq!(cursor("a", json!(2)).await.1["data"]["replica"]["last_applied_seq"], 2);
    for (seq, why) in [(3, "sync cursor ahead of head"), (1, "sync cursor regression")] {
        let answer = cursor("a", json!(seq)).await;
        assert_eq!((answer.0, &answer.1["error"]["message"]), (409, &json!(why)));
    }
    assert_eq!(put("a", json!({})).await["last_applied_seq"], 2, "it stays");
    for bad in [json!(-1), json!("1"), json!(null), json!(1.5)] {
        assert_eq!(code(&cursor("a", bad).await), BAD);
    }
    assert_eq!(code(&cursor("none", json!(1)).await), MISSING);
    let fork = fork(rig).await;
    let in_fork = replica(rig, &fork, "r").await;
    let body = json!({"last_applied_seq": 1});
    is_reseed(&rig.raw(Method::PUT, &format!("{in_fork}/cursor"), body).await);
}

pub(super) async fn bootstraps(rig: &Rig) {
    let id = rig.volume().await;
    rig.write(&id, "d/f", "1").await;
    let route = format!("{VOLUMES}/{id}/sync/bootstrap");
    let (status, told) = rig.raw(Method::POST, &route, ()).await;
    let data = &told["data"];
    let name = data["snapshot"]["name"].as_str().unwrap();
    assert!(status == 201 && name.starts_with("sync-bootstrap-20") && name.len() == 30, "{name}");
    assert_eq!(data["replay_after_seq"], 2);
    let path = data["archive_download_path"].as_str().unwrap();
    let snapshot = data["snapshot"]["id"].as_str().unwrap();
    assert_eq!(path, format!("{route}/archive?snapshot_id={snapshot}"));
    let token = format!("Bearer {}", rig.token);
    let archive = rig.ask(Method::GET, path, &[("authorization", &token)], ()).await;
    assert_eq!((archive.status, archive.header("cache-control")), (200, "no-store"));
    let named = format!("attachment; filename=\"sync-bootstrap-{snapshot}.tar.gz\"");
    assert_eq!(archive.header("content-disposition"), named);
    assert_eq!(archive.bytes[..2], [0x1f, 0x8b], "gzip");
    let get =
        async |query: &str| rig.raw(Method::GET, &format!("{route}/archive{query}"), ()).await;
    assert_eq!(code(&get("").await), BAD);
    assert_eq!(code(&get("?snapshot_id=").await), BAD);
    assert_eq!(code(&get("?snapshot_id=none").await), MISSING);
    // Names that the replica cannot hold.
    for path in ["A", "a", "con"] {
        rig.write(&id, path, "1").await;
    }
    let windows = json!({"snapshot_name": "mine", "case_sensitive": null, "capabilities":
        {"case_sensitive": false, "unicode_normalization_insensitive": true,
         "windows_compatible_paths": true}});
    let refused = rig.raw(Method::POST, &route, windows).await;
    assert_eq!(code(&refused), (409, "conflict"));
    let details = &refused.1["error"]["details"];
    assert_eq!(details["reason"], "namespace_incompatible");
    let codes: Vec<&Value> =
        details["issues"].as_array().unwrap().iter().map(|issue| &issue["code"]).collect();
    assert_eq!(codes, ["casefold_collision", "windows_reserved_name"]);
    assert!(details["snapshot_id"].is_string() && details["capabilities"].is_object());
}

pub(super) async fn journal(rig: &Rig) {
    let id = rig.volume().await;
    rig.write(&id, "a", "12").await;
    rig.write(&id, "b", "12").await;
    let sync = format!("{VOLUMES}/{id}/sync");
    let get = async |route: &str| rig.raw(Method::GET, &format!("{sync}{route}"), ()).await;
    let told = get("/changes?after=1&limit=1&wait_ms=").await.1;
    let entry = &told["data"]["changes"][0];
    assert_eq!(
        (&told["data"]["head_seq"], &told["data"]["retained_after_seq"]),
        (&json!(2), &json!(0))
    );
    assert_eq!(
        (&entry["seq"], &entry["source"], &entry["event_type"]),
        (&json!(2), &json!("sandbox"), &json!("create"))
    );
    for never in ["old_path", "normalized_old_path", "replica_id"] {
        assert!(entry.get(never).is_none(), "{never}");
    }
    let hash = Hash::of(b"12").to_string();
    assert_eq!((&entry["content_sha256"], &entry["size_bytes"]), (&json!(hash), &json!(2)));
    for (query, seqs) in [("?limit=0", 2), ("?limit=-1", 2), ("?limit=9999", 2), ("?after=99", 0)] {
        let all = get(&format!("/changes{query}")).await.1["data"]["changes"].clone();
        assert_eq!(all.as_array().unwrap().len(), seqs, "{query}");
    }
    for bad in ["?after=x", "?limit=x", "?after=1.5"] {
        assert_eq!(code(&get(&format!("/changes{bad}")).await), BAD);
    }
    let fork = fork(rig).await;
    is_reseed(&rig.raw(Method::GET, &format!("{VOLUMES}/{fork}/sync/changes?after=1"), ()).await);

    let payload = format!("/replay-payload?content_ref=sha256:{hash}");
    assert_eq!(get(&payload).await.0, 200);
    let token = format!("Bearer {}", rig.token);
    let part = async |range: &str| {
        let headers = [("authorization", token.as_str()), ("range", range)];
        rig.ask(Method::GET, &format!("{sync}{payload}"), &headers, ()).await
    };
    let (half, beyond) = (part("bytes=1-").await, part("bytes=2-").await);
    assert_eq!((half.status, &half.bytes[..], beyond.status), (206, &b"2"[..], 416));
    assert_eq!(half.header("cache-control"), "no-store");
    let upper = format!("?content_ref=sha256:{}", hash.to_uppercase());
    for bad in ["", "?content_ref=", "?content_ref=md5:00", "?content_ref=sha256:00", &upper] {
        let answer = get(&format!("/replay-payload{bad}")).await;
        assert_eq!(code(&answer), BAD, "{bad}");
        let why = "invalid sync replay payload reference";
        assert_eq!(answer.1["error"]["message"], why);
    }
    let unknown = Hash::of(b"unknown");
    let unknown = get(&format!("/replay-payload?content_ref=sha256:{unknown}")).await;
    assert_eq!(code(&unknown), MISSING);
}

pub(super) async fn uploads(rig: &Rig) {
    let id = rig.volume().await;
    let a = replica(rig, &id, "a").await;
    let noted = json!({"event_type": "write", "path": "/d/x", "content_base64": "aGk=",
        "metadata": {"why": "by hand", "sandbox_id": "mine"}});
    let all = json!([noted, {"event_type": "invalidate"}]);
    let (status, told) = send(rig, &a, "1", 0, all.clone()).await;
    assert_eq!((status, &told["data"]["head_seq"]), (200, &json!(2)));
    let accepted = told["data"]["accepted"].as_array().unwrap();
    assert!(accepted[0].get("metadata").is_none(), "a directory on the way has no note");
    let metadata = json!({"why": "by hand", "sandbox_id": "mine"});
    assert_eq!(accepted[1]["metadata"], metadata);
    let told = send(rig, &a, "1", 0, all).await;
    assert_eq!(told.1["data"]["accepted"][1]["metadata"], metadata, "it is answered again");
    let list = rig.data(Method::GET, &format!("{VOLUMES}/{id}/sync/changes"), ()).await;
    assert_eq!(list["changes"][1]["metadata"], metadata);

    // The documented checks, in their order.
    let conflict = async |request: &str, base, changes, why: &str| {
        let answer = send(rig, &a, request, base, changes).await;
        assert_eq!((answer.0, &answer.1["error"]["message"]), (409, &json!(why)));
    };
    conflict("1", 0, json!([]), "sync request id reused with different payload").await;
    conflict("2", 9, json!([]), "sync cursor ahead of head").await;
    let cursor = json!({"last_applied_seq": 2});
    rig.data(Method::PUT, &format!("{a}/cursor"), cursor).await;
    conflict("2", 1, json!([]), "sync cursor regression").await;
    let unknown = format!("{VOLUMES}/{id}/sync/replicas/none");
    assert_eq!(code(&send(rig, &unknown, "1", 0, json!([])).await), MISSING);
    let fork = fork(rig).await;
    let in_fork = replica(rig, &fork, "r").await;
    is_reseed(&send(rig, &in_fork, "1", 1, json!([])).await);
    for (what, bad) in [
        ("no event", json!({"path": "/x"})),
        ("no path", json!({"event_type": "remove"})),
        ("the root", json!({"event_type": "remove", "path": "/"})),
        ("a climb", json!({"event_type": "remove", "path": "/../x"})),
        ("a kind", json!({"event_type": "create", "path": "/x", "entry_kind": "door"})),
        ("a mode", json!({"event_type": "chmod", "path": "/x", "mode": -1})),
        ("metadata", json!({"event_type": "remove", "path": "/x", "metadata": "text"})),
        (
            "much metadata",
            json!({"event_type": "remove", "path": "/x",
            "metadata": {"much": "m".repeat(5000)}}),
        ),
    ] {
        let answer = send(rig, &a, what, 2, json!([bad])).await;
        assert_eq!(code(&answer), BAD, "{what}");
        let said = answer.1["error"]["message"].as_str().unwrap();
        assert!(said.starts_with("invalid sync change"), "{what}: {said}");
    }
    for id in ["", "  "] {
        let answer = send(rig, &a, id, 2, json!([])).await;
        assert_eq!(
            (answer.0, &answer.1["error"]["message"]),
            (400, &json!("invalid sync request id"))
        );
    }
    let many = json!({"event_type": "invalidate"});
    assert_eq!(send(rig, &a, "many", 2, json!(vec![many; 20_001])).await.0, 413);

    // A creation never takes away what is there; a removal of nothing is fine.
    let all = json!([
        {"event_type": "create", "path": "/d", "entry_kind": "directory"},
        {"event_type": "create", "path": "/d/x"},
        {"event_type": "remove", "path": "/none"},
        {"event_type": "rename", "old_path": "/none", "path": "/y"},
        {"event_type": "chmod", "path": "/none", "mode": 1},
    ]);
    let told = send(rig, &a, "3", 2, all).await.1;
    assert_eq!(told["data"]["accepted"], json!([]));
    let paths: Vec<&Value> =
        told["data"]["conflicts"].as_array().unwrap().iter().map(|it| &it["path"]).collect();
    assert_eq!(paths, ["/d/x", "/y", "/none"]);
    assert_eq!(rig.read(&id, "d/x").await, b"hi");
    let told = send(rig, &a, "4", 2, json!([{"event_type": "remove", "path": "/d"}])).await.1;
    assert_eq!(told["data"]["conflicts"][0]["reason"], "directory_not_empty");
}

pub(super) async fn conflicts(rig: &Rig) {
    let id = rig.volume().await;
    let (a, b) = (replica(rig, &id, "a").await, replica(rig, &id, "b").await);
    send(rig, &a, "1", 0, json!([write("/x", "theirs"), write("/y", "theirs")])).await;
    let told = send(rig, &b, "1", 0, json!([write("/x", "mine"), write("/y", "mine")])).await.1;
    let first = &told["data"]["conflicts"][0];
    let said = [
        "replica_id",
        "path",
        "normalized_path",
        "artifact_path",
        "incoming_path",
        "reason",
        "status",
    ]
    .map(|key| first[key].as_str().unwrap());
    assert_eq!(said, ["b", "/x", "/x", "", "/x", "concurrent_update", "open"]);
    assert_eq!(first["existing_seq"], 1);
    let metadata = &first["metadata"];
    let said =
        ["latest_path", "latest_event", "latest_source", "latest_replica_id", "latest_platform"]
            .map(|key| metadata[key].as_str().unwrap());
    assert_eq!(said, ["/x", "create", "replica", "a", "linux"]);
    assert_eq!((&metadata["latest_seq"], &metadata["base_seq"]), (&json!(1), &json!(0)));
    let all = format!("{VOLUMES}/{id}/sync/conflicts");
    let list = async |query: &str| {
        let told = rig.data(Method::GET, &format!("{all}{query}"), ()).await;
        told["conflicts"].as_array().unwrap().len()
    };
    let set =
        async |id: &str, body: Value| rig.raw(Method::PUT, &format!("{all}/{id}"), body).await;
    let name = first["id"].as_str().unwrap();
    let settled =
        set(name, json!({"status": "resolved", "resolution": "keep", "note": "n"})).await.1;
    let said = ["resolution", "note"].map(|key| settled["data"]["metadata"][key].clone());
    assert_eq!(said, [json!("keep"), json!("n")]);
    assert!(settled["data"]["metadata"]["resolved_at"].is_string());
    assert_eq!(set(name, json!({"status": "ignored"})).await.1["data"]["status"], "ignored");
    assert_eq!([list("").await, list("?limit=1").await, list("?status=open").await], [2, 1, 1]);
    assert_eq!([list("?status=ignored").await, list("?status=odd").await], [1, 0]);
    for bad in [json!({}), json!({"status": "open"}), json!({"status": "what"})] {
        let answer = set(name, bad).await;
        let why = "invalid sync conflict status";
        assert_eq!((answer.0, &answer.1["error"]["message"]), (400, &json!(why)));
    }
    assert_eq!(code(&set("none", json!({"status": "ignored"})).await), MISSING);
    assert_eq!(code(&rig.raw(Method::GET, &format!("{all}?limit=x"), ()).await), BAD);
}
