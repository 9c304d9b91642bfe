//! What holds for all operations alike, asked of every one that the description names.

use bytes::Bytes;
use reqwest::Method;
use s0_service::journal::Journal;
use s0_service::sqlite::SqliteJournal;
use s0_tree::{Hash, Time};
use serde_json::{Value, json};

use super::{Operation, VOLUMES};
use crate::rig::{Rig, code};

/// An address of the operation: of this Volume, and of nothing that is there else.
pub(super) fn address(operation: &Operation, volume: &str) -> String {
    let path = operation.1.replace("{volume}", volume);
    path.split('/')
        .map(|part| if part.starts_with('{') { "x" } else { part })
        .collect::<Vec<_>>()
        .join("/")
}

fn method(operation: &Operation) -> Method {
    operation.0.parse().unwrap()
}

async fn described(rig: &Rig, status: u16) -> Vec<Operation> {
    let document = rig.document().await;
    let mut all = document.operations();
    all.retain(|operation| document.described(operation).contains_key(&status));
    assert!(!all.is_empty(), "{status}");
    all
}

pub(super) async fn without_a_token(rig: &Rig) {
    let volume = rig.volume().await;
    let journal = SqliteJournal::open(&rig.database()).unwrap();
    let ended = rig.token_of("local", "admin").await;
    let mut old = journal.token(Hash::of(ended.as_bytes())).await.unwrap().unwrap();
    (old.hash, old.id, old.expires) = (Hash::of(b"old"), "old".into(), Some(Time(1)));
    journal.put_token(old.clone()).await.unwrap();
    (old.hash, old.id) = (Hash::of(ended.as_bytes()), "ended".into());
    (old.expires, old.active) = (None, false);
    journal.put_token(old).await.unwrap();
    let ended = format!("Bearer {ended}");
    let basic = format!("Basic {}", rig.token);
    let open = ["/healthz", "/readyz", "/openapi.json"];
    for operation in rig.document().await.operations() {
        if open.contains(&operation.1.as_str()) {
            continue;
        }
        let address = address(&operation, &volume);
        for value in ["", "Bearer ", "Bearer wrong", "Bearer old", &ended, &basic, &rig.token] {
            let headers = [("authorization", value)];
            let headers = if value.is_empty() { &headers[..0] } else { &headers[..] };
            let answer = rig.ask(method(&operation), &address, headers, ()).await;
            let said = (answer.status, answer.json()["error"]["code"].clone());
            assert_eq!(said, (401, json!("unauthorized")), "{operation:?} with {value:?}");
        }
    }
}

pub(super) async fn without_permission(rig: &Rig) {
    let volume = rig.volume().await;
    let builder = rig.token_of("local", "builder").await;
    let viewer = rig.token_of("local", "viewer").await;
    let developer = rig.token_of("local", "developer").await;
    let document = rig.document().await;
    for operation in described(rig, 403).await {
        // Whatever a role allows, it may ask what it is; limited tokens may not.
        if operation.1 == "/api-keys/current" {
            continue;
        }
        let address = address(&operation, &volume);
        let ask = async |token: &str| {
            rig.as_bearer(Some(token), method(&operation), &address, json!({"name": "n"})).await
        };
        let refused = ask(&builder).await;
        assert_eq!(code(&refused), (403, "forbidden"), "{operation:?}");
        let security = &document.operation(&operation)["security"][0]["token"];
        let permission = security[0].as_str().unwrap_or_default();
        // Those of tokens are for admins alone.
        assert_eq!(ask(&developer).await.0 == 403, permission.is_empty(), "{operation:?}");
        let reads = permission.ends_with(":read");
        assert_eq!(ask(&viewer).await.0 != 403, reads, "{operation:?}");
    }
}

/// A Volume of another team answers as one that is not there, word for word.
pub(super) async fn of_another_team(rig: &Rig) {
    let other = rig.token_of("apart", "admin").await;
    let volume = rig.volume().await;
    for operation in described(rig, 404).await {
        if !operation.1.contains("{volume}") {
            continue;
        }
        let ask = async |volume: &str| {
            let address = address(&operation, volume);
            rig.as_bearer(Some(&other), method(&operation), &address, json!({"name": "n"})).await
        };
        let foreign = ask(&volume).await;
        assert_eq!(code(&foreign), (404, "not_found"), "{operation:?}");
        // A Volume that is not there is deleted already.
        if operation != ("DELETE".into(), format!("{VOLUMES}/{{volume}}")) {
            assert_eq!(ask("absent").await, foreign, "{operation:?}");
        }
    }
    let here = rig.data(Method::GET, &format!("{VOLUMES}/{volume}"), ()).await;
    assert_eq!(here["id"], json!(volume), "nothing was done");
    let list = rig.as_bearer(Some(&other), Method::GET, VOLUMES, ()).await.1;
    assert_eq!(list["data"], json!([]));
}

pub(super) async fn with_broken_paths(rig: &Rig) {
    let volume = rig.volume().await;
    let document = rig.document().await;
    for operation in document.operations() {
        if operation.1.contains('{') {
            let broken = operation.1.replacen('{', "%FF{", 1);
            let address = address(&(operation.0.clone(), broken.replace("%FF{", "{")), "%FF");
            let address = if operation.1.contains("{volume}") {
                address
            } else {
                address.replace("/x", "/%FF")
            };
            let answer = rig.raw(method(&operation), &address, ()).await;
            assert_eq!(code(&answer), (400, "bad_request"), "{operation:?} {address}");
        }
        if document.operation(&operation)["parameters"].is_array() {
            let address = format!("{}?path=%FF", address(&operation, &volume));
            let answer = rig.raw(method(&operation), &address, ()).await;
            assert_eq!(code(&answer), (400, "bad_request"), "{operation:?} {address}");
        }
    }
}

pub(super) async fn with_wrong_bodies(rig: &Rig) {
    let volume = rig.volume().await;
    let document = rig.document().await;
    for operation in document.operations() {
        let body = &document.operation(&operation)["requestBody"];
        let json = body["content"].get("application/json").is_some();
        // The bytes of a file are never wrong.
        let is_file = operation.1.ends_with("/files");
        if body.is_null() || is_file {
            continue;
        }
        let address = format!("{}?instance=1", address(&operation, &volume));
        // As it is documented.
        let of_sandboxes = operation.1.contains("{sandbox}/sandboxvolumes");
        let expected = if of_sandboxes { "invalid_request" } else { "bad_request" };
        for wrong in
            [&b"x"[..], b"[]", b"[{}]", b"null", b"\"t\"", b"{", b"{\"a\":", b"{\"\xff\": 1}"]
        {
            let answer = rig.raw(method(&operation), &address, wrong.to_vec()).await;
            let said = String::from_utf8_lossy(wrong);
            assert_eq!(code(&answer), (400, expected), "{operation:?} {said}");
        }
        if json && body["required"] == true {
            let answer = rig.raw(method(&operation), &address, ()).await;
            assert_eq!(code(&answer), (400, expected), "{operation:?} without a body");
        }
    }
}

pub(super) async fn with_large_bodies(rig: &Rig) {
    let volume = rig.volume().await;
    let (small, list, large) = (1024 * 1024, 32 * 1024 * 1024, 160 * 1024 * 1024);
    // Spaces go before any JSON.
    let spaces = Bytes::from(vec![b' '; large + 1]);
    for operation in described(rig, 413).await {
        let limit = match operation.1.rsplit('/').next().unwrap() {
            "files" if operation.0 == "GET" => continue,
            "files" => 104_857_600,
            "changes" | "submit" => large,
            "missing" | "fetch" => list,
            _ => small,
        };
        let address = format!("{}?path=f&instance=1", address(&operation, &volume));
        let over = rig.raw(method(&operation), &address, spaces.slice(..=limit)).await;
        assert_eq!(code(&over), (413, "bad_request"), "{operation:?}");
        let full = rig.raw(method(&operation), &address, spaces.slice(..limit)).await;
        assert_ne!(full.0, 413, "{operation:?}");
    }
    assert!(rig.client.stat_file(&volume, "f").await.unwrap().size == 104_857_600);
}

pub(super) async fn with_wrong_methods(rig: &Rig) {
    let volume = rig.volume().await;
    let document = rig.document().await;
    let all = document.operations();
    for operation in &all {
        for other in ["GET", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "QUERY"] {
            let asked = (other.to_owned(), operation.1.clone());
            if all.contains(&asked) {
                continue;
            }
            let address = address(operation, &volume);
            // `/{id}` and `/current` are one address.
            let same = document.template(&address).unwrap();
            if same != operation.1 {
                continue;
            }
            let answer = rig.raw(method(&asked), &address, ()).await;
            assert_eq!(code(&answer), (405, "bad_request"), "{asked:?}");
        }
    }
    for unknown in ["/", "/api/v1", "/api/v1/sandboxvolumes/x/none", "/api/v1/sandboxes"] {
        let answer = rig.raw(Method::GET, unknown, ()).await;
        assert_eq!(code(&answer), (404, "not_found"), "{unknown}");
    }
}

/// Whatever fails says so in the envelope, and nothing of how it failed.
fn says_nothing(answer: &Value) {
    let said = answer.to_string().to_lowercase();
    for word in ["sql", "table", "column", "row", "json", "expected", "token", "/"] {
        assert!(!said.contains(word), "{said}");
    }
}

pub(super) async fn when_the_store_fails(rig: &Rig) {
    let volume = rig.volume().await;
    let database = rusqlite::Connection::open(rig.database()).unwrap();
    for (table, open) in [("tokens", false), ("volumes", true)] {
        let rename = |from: &str, to: &str| {
            database.execute_batch(&format!("ALTER TABLE {from} RENAME TO {to}")).unwrap();
        };
        rename(table, "elsewhere");
        for operation in described(rig, 503).await {
            if (operation.1 == "/readyz") == open {
                let answer = rig.raw(method(&operation), &address(&operation, &volume), ()).await;
                assert_eq!(code(&answer), (503, "unavailable"), "{operation:?}");
                says_nothing(&answer.1);
            }
        }
        rename("elsewhere", table);
    }
}

pub(super) async fn when_the_store_is_damaged(rig: &Rig) {
    let volume = rig.volume().await;
    let database = rusqlite::Connection::open(rig.database()).unwrap();
    let damage = |sql: &str| assert_eq!(database.execute(sql, []).unwrap(), 1);
    damage("UPDATE tokens SET roles = 'damaged' WHERE id = 'local'");
    damage(
        "INSERT INTO volumes (id, team, user, access_mode, uid, gid, epoch, created, updated,
         head, retained_after) VALUES ('', 'none', '', 'damaged', 0, 0, '', 0, 0, 0, 0)",
    );
    for operation in described(rig, 500).await {
        let answer = rig.raw(method(&operation), &address(&operation, &volume), ()).await;
        assert_eq!(code(&answer), (500, "internal_error"), "{operation:?}");
        says_nothing(&answer.1);
    }
    damage("UPDATE tokens SET roles = '[\"admin\"]' WHERE id = 'local'");
    damage("DELETE FROM volumes WHERE id = ''");
}
