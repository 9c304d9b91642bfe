//! Tokens that are made for one thing: what they open, and that they open nothing else.

use reqwest::Method;
use s0_api::Client;
use s0_api::mounts::MountQuery;
use s0_service::journal::Journal;
use s0_service::sqlite::SqliteJournal;
use s0_tree::{ContentId, Hash};
use serde_json::{Value, json};

use super::everywhere::address;
use super::{Operation, VOLUMES};
use crate::rig::{Rig, code, config};

const DENIED: (u16, &str) = (403, "forbidden");
const CURRENT: &str = "/api-keys/current";

/// A token for a mount of a Volume, made with another token.
async fn make(rig: &Rig, with: &str, volume: &str, body: Value) -> (u16, Value) {
    let route = format!("{VOLUMES}/{volume}/mount-tokens");
    rig.as_bearer(Some(with), Method::POST, &route, body).await
}

/// What a mount asks for, and the permission that it needs.
fn of_mounts() -> Vec<(Operation, bool)> {
    let volume = |method: &str, below: &str, writes| {
        ((method.to_owned(), format!("{VOLUMES}/{{volume}}{below}")), writes)
    };
    vec![
        volume("GET", "", false),
        volume("GET", "/sync/tree", false),
        volume("POST", "/sync/contents/fetch", false),
        volume("GET", "/mounts/{session}", false),
        volume("DELETE", "/mount-tokens/{token}", false),
        volume("POST", "/sync/contents", true),
        volume("POST", "/sync/contents/missing", true),
    ]
}

pub(super) async fn mount_tokens(rig: &Rig) {
    let (id, other) = (rig.volume().await, rig.volume().await);
    let viewer = rig.token_of("local", "viewer").await;
    let developer = rig.token_of("local", "developer").await;
    let (status, made) = make(rig, &developer, &id, json!({"read_only": false})).await;
    assert_eq!(status, 201);
    let writes = made["data"]["token"].as_str().unwrap().to_owned();
    let written = made["data"]["id"].as_str().unwrap().to_owned();
    let hour = s0_api::times::parse(made["data"]["expires_at"].as_str().unwrap()).unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let left = hour.0 / 1_000_000_000 - now.as_secs().cast_signed();
    assert!((3500..=3600).contains(&left), "{left}");
    // Whoever only reads gets no more, and nobody gets what was not asked for.
    let refused = make(rig, &viewer, &id, json!({"read_only": false})).await;
    assert_eq!(code(&refused), DENIED);
    assert!(refused.1["error"]["message"].as_str().unwrap().contains("read-only"));
    let reads = make(rig, &viewer, &id, json!({})).await.1["data"].clone();
    let reads = reads["token"].as_str().unwrap().to_owned();

    // Only what a mount needs, and of its Volume only.
    for operation in rig.document().await.operations() {
        if ["/healthz", "/readyz", "/openapi.json"].contains(&operation.1.as_str()) {
            continue;
        }
        let wanted = of_mounts().into_iter().find(|(of_mount, _)| *of_mount == operation);
        let ask = async |token: &str, volume: &str| {
            let address = address(&operation, volume);
            rig.as_bearer(Some(token), operation.0.parse().unwrap(), &address, json!({})).await
        };
        for (token, may_write) in [(&writes, true), (&reads, false)] {
            let here = ask(token, &id).await;
            let opens = wanted.as_ref().is_some_and(|(_, writes)| may_write || !writes);
            assert_eq!(code(&here) != DENIED, opens, "{operation:?}: {here:?}");
            assert_eq!(code(&ask(token, &other).await), DENIED, "{operation:?}");
            assert_eq!(code(&ask(token, "absent").await), DENIED, "{operation:?}");
        }
    }

    // A mount's own client.
    let client = |token: &str| Client::new(&rig.url, token).unwrap();
    rig.write(&id, "f", "12").await;
    let (epoch, tree) = client(&reads).tree(&id).await.unwrap();
    let query = |read_only| MountQuery {
        after: tree.head().0,
        epoch: epoch.clone(),
        sandbox_id: None,
        host: "h".into(),
        mount_point: "/w".into(),
        read_only,
    };
    let connect = async |token: &str, session: &str, read_only| {
        client(token).mount(&id, session, &query(read_only)).await
    };
    connect(&writes, "mnt_limited_1", false).await.unwrap();
    connect(&reads, "mnt_limited_2", true).await.unwrap();
    let refused = connect(&reads, "mnt_limited_3", false).await.err().unwrap();
    assert!(matches!(refused, s0_api::Error::Unauthorized(_)), "{refused}");
    let content = ContentId::Chunk(Hash::of(b"12"));
    drop(client(&reads).fetch_chunks(&id, None, &[content]).await.unwrap());
    client(&writes).upload(&id, vec![(content, b"12".to_vec().into())]).await.unwrap();
    client(&reads).upload(&id, vec![(content, b"12".to_vec().into())]).await.unwrap_err();

    // They are no API keys, and the token itself is kept nowhere.
    let keys = rig.data(Method::GET, "/api-keys", ()).await.to_string();
    assert!(!keys.contains(&written));
    let journal = SqliteJournal::open(&rig.database()).unwrap();
    let kept = journal.token(Hash::of(writes.as_bytes())).await.unwrap().unwrap();
    assert!(!format!("{kept:?}").contains(&writes));

    // Whose they are.
    let route = |volume: &str, token: &str| format!("{VOLUMES}/{volume}/mount-tokens/{token}");
    let end =
        async |with: &str, route: &str| rig.as_bearer(Some(with), Method::DELETE, route, ()).await;
    assert_eq!(code(&end(&viewer, &route(&id, &written)).await), DENIED);
    assert_eq!(code(&end(&reads, &route(&id, &written)).await), DENIED);
    let opens = async |token: &str| client(token).volume(&id).await.is_ok();
    let done = json!({"deleted": true});
    assert_eq!(end(&developer, &route(&other, &written)).await.1["data"], done, "it is not there");
    assert!(opens(&writes).await);
    for with in ["itself", "its maker", "an admin"] {
        let made = make(rig, &developer, &id, json!({})).await.1["data"].clone();
        let (made_id, token) = (made["id"].as_str().unwrap(), made["token"].as_str().unwrap());
        let with = match with {
            "itself" => token,
            "its maker" => &developer,
            _ => &rig.token,
        };
        assert!(opens(token).await);
        assert_eq!(end(with, &route(&id, made_id)).await.1["data"], done);
        assert!(!opens(token).await);
    }
    assert_eq!(end(&developer, &route(&id, "none")).await.1["data"], done);

    // It ends with the token that it was made with.
    let own = rig.as_bearer(Some(&developer), Method::GET, CURRENT, ()).await.1;
    let key = own["data"]["api_key"]["id"].as_str().unwrap().to_owned();
    rig.data(Method::POST, &format!("/api-keys/{key}/deactivate"), ()).await;
    assert!(!opens(&writes).await);
    assert!(opens(&reads).await);

    // A team cannot fill the store.
    let copy = "INSERT INTO tokens SELECT randomblob(32), 'n' || value, team, user, name, platform,
        roles, active, expires, created, updated, parent, purpose FROM tokens, generated
        WHERE hash = ?1";
    let many = format!(
        "WITH RECURSIVE generated(value) AS (SELECT 1 UNION ALL
        SELECT value + 1 FROM generated WHERE value < 10000) {copy}"
    );
    let database = rusqlite::Connection::open(rig.database()).unwrap();
    database.execute(&many, [Hash::of(reads.as_bytes()).0]).unwrap();
    assert_eq!(code(&make(rig, &viewer, &id, json!({})).await), (409, "conflict"));
    database.execute("DELETE FROM tokens WHERE id GLOB 'n[0-9]*'", []).unwrap();
}

#[tokio::test]
async fn a_mount_goes_on_with_its_token_when_the_service_starts_again() {
    let rig = Rig::start().await;
    let id = rig.volume().await;
    let token = rig.client.create_mount_token(&id, false).await.unwrap().token;
    let dir = rig.shut_down().await;
    let config = config(dir.path());
    let rig = Rig::at(dir, config).await;
    let mount = Client::new(&rig.url, &token).unwrap();
    assert_eq!(mount.volume(&id).await.unwrap().id, id);
    // The token of the directory is the one that it was made with; another file, another token.
    let dir = rig.shut_down().await;
    std::fs::remove_file(dir.path().join(s0_service::TOKEN_FILE)).unwrap();
    let config = crate::rig::config(dir.path());
    let rig = Rig::at(dir, config).await;
    let mount = Client::new(&rig.url, &token).unwrap();
    assert!(matches!(mount.volume(&id).await, Err(s0_api::Error::Unauthorized(_))));
}
