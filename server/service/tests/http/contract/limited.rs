//! Tokens that are made for one thing: what they open, and that they open nothing else.

use reqwest::Method;
use s0_api::Client;
use s0_api::mounts::MountQuery;
use s0_api::sandboxes::{Ask, Asked, MountList, MountStatus, Replied, Reply, VolumeMounted, Why};
use s0_service::journal::Journal;
use s0_service::sqlite::SqliteJournal;
use s0_tree::{ContentId, Hash};
use serde_json::{Value, json};
use tokio::sync::mpsc;

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
    fill(rig, &reads);
    assert_eq!(code(&make(rig, &viewer, &id, json!({})).await), (409, "conflict"));
    unfill(rig);
}

/// As many tokens as a team may have, made of one.
fn fill(rig: &Rig, token: &str) {
    let copy = "INSERT INTO tokens SELECT randomblob(32), 'n' || value, team, user, name, platform,
        roles, active, expires, created, updated, parent, purpose FROM tokens, generated
        WHERE hash = ?1";
    let many = format!(
        "WITH RECURSIVE generated(value) AS (SELECT 1 UNION ALL
        SELECT value + 1 FROM generated WHERE value < 10000) {copy}"
    );
    let database = rusqlite::Connection::open(rig.database()).unwrap();
    assert_eq!(database.execute(&many, [Hash::of(token.as_bytes()).0]).unwrap(), 10_000);
}

fn unfill(rig: &Rig) {
    let database = rusqlite::Connection::open(rig.database()).unwrap();
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

const SANDBOX: &str = "/api/v1/sandboxes/sb_1";

/// A warden that answers what it is told to, and says what it was asked.
async fn attend(
    mut connection: s0_api::Attendance,
    mut replies: mpsc::UnboundedReceiver<Option<Reply>>,
    asks: mpsc::UnboundedSender<Ask>,
) {
    while let Ok(Some(Asked { id, ask })) = connection.next().await {
        asks.send(ask).unwrap();
        match replies.recv().await {
            Some(Some(reply)) => connection.reply(&Replied { id, reply }).await.unwrap(),
            // It hangs up.
            _ => return,
        }
    }
}

pub(super) async fn sandboxes(rig: &Rig) {
    let (id, other) = (rig.volume().await, rig.token_of("afar", "admin").await);
    let (developer, viewer) =
        (rig.token_of("local", "developer").await, rig.token_of("local", "viewer").await);
    let foreign = rig.as_bearer(Some(&other), Method::POST, VOLUMES, json!({})).await.1;
    let foreign = foreign["data"]["id"].as_str().unwrap();
    let client = |token: &str| Client::new(&rig.url, token).unwrap();
    let go = async |what: &str, with: &str, body: Value| {
        let method = if what == "status" { Method::GET } else { Method::POST };
        let route = format!("{SANDBOX}/sandboxvolumes/{what}");
        rig.as_bearer(Some(with), method, &route, body).await
    };
    let to_mount = json!({"sandboxvolume_id": id, "mount_point": "/w", "sandbox_id": "sb_1",
        "volume_config": {"cache_size": "1G"}});
    let to_unmount = json!({"sandboxvolume_id": id, "mount_session_id": "mnt_1"});
    let nowhere = async |with: &str| {
        for (what, body) in [("mount", &to_mount), ("unmount", &to_unmount), ("status", &json!({}))]
        {
            let answer = go(what, with, body.clone()).await;
            assert_eq!(code(&answer), (404, "not_found"), "{what}: {answer:?}");
            assert!(answer.1["error"]["message"].as_str().unwrap().contains("no connection"));
        }
    };
    nowhere(&rig.token).await;

    // A token that lets the service reach this sandbox, and is good for nothing else.
    let tokens = format!("{SANDBOX}/attend-tokens");
    let made = rig.as_bearer(Some(&developer), Method::POST, &tokens, ()).await;
    assert_eq!(made.0, 201);
    let (token_id, token) = (made.1["data"]["id"].clone(), made.1["data"]["token"].clone());
    let (token_id, token) = (token_id.as_str().unwrap(), token.as_str().unwrap());
    let own = [format!("{SANDBOX}/attend"), format!("{SANDBOX}/attend-tokens/x")];
    for operation in rig.document().await.operations() {
        if ["/healthz", "/readyz", "/openapi.json"].contains(&operation.1.as_str()) {
            continue;
        }
        for sandbox in ["sb_1", "sb_2"] {
            let path = operation.1.replace("{sandbox}", sandbox);
            let address = address(&(operation.0.clone(), path), &id);
            let method = operation.0.parse().unwrap();
            let answer = rig.as_bearer(Some(token), method, &address, json!({})).await;
            let opens = own.contains(&address) && ["GET", "DELETE"].contains(&&*operation.0);
            assert_eq!(code(&answer) != DENIED, opens, "{operation:?}: {answer:?}");
        }
    }
    let attend_route = format!("{SANDBOX}/attend");
    let note = async |status| {
        rig.seen.note(rig.document().await, &Method::GET, &attend_route, status);
    };
    let (reply, replies) = mpsc::unbounded_channel();
    let (asks, mut asked) = mpsc::unbounded_channel();
    let connection = client(token).attend("sb_1").await.unwrap();
    note(101).await;
    let warden = tokio::spawn(attend(connection, replies, asks));
    let taken = client(&rig.token).attend("sb_1").await.err().unwrap();
    assert!(matches!(taken, s0_api::Error::Conflict { .. }), "{taken}");
    note(409).await;
    nowhere(&other).await;

    // What is asked for goes on to it, with a token for this Volume.
    let mounted = VolumeMounted {
        sandboxvolume_id: id.clone(),
        mount_point: "/w".into(),
        mounted_at: "2026-01-01T00:00:00Z".into(),
        mount_session_id: "mnt_1".into(),
    };
    reply.send(Some(Reply::Mounted(mounted.clone()))).unwrap();
    let answer = go("mount", &developer, to_mount.clone()).await;
    assert_eq!((answer.0, &answer.1["data"]), (200, &json!(mounted)));
    let Some(Ask::Mount { volume_id, mount_point, read_only, token: of_mount }) =
        asked.recv().await
    else {
        panic!("something else was asked")
    };
    assert_eq!((&volume_id, &*mount_point, read_only), (&id, "/w", false));
    assert_eq!(client(&of_mount.token).volume(&id).await.unwrap().id, id);
    assert_eq!(code(&go("mount", &viewer, to_mount.clone()).await), DENIED);
    for (body, expected) in [
        (json!({"mount_point": "/w"}), (400, "invalid_sandboxvolume_id")),
        (json!({"sandboxvolume_id": "none", "mount_point": "/w"}), (404, "not_found")),
        (json!({"sandboxvolume_id": foreign, "mount_point": "/w"}), (404, "not_found")),
    ] {
        assert_eq!(code(&go("mount", &developer, body).await), expected);
    }
    for (why, status) in [
        (Why::InvalidMountPoint, 400),
        (Why::AlreadyMounted, 409),
        (Why::MountInProgress, 409),
        (Why::MountPointInUse, 409),
        (Why::MountFailed, 500),
    ] {
        reply.send(Some(Reply::Refused(why.with("so it is")))).unwrap();
        let answer = go("mount", &developer, to_mount.clone()).await;
        assert_eq!(code(&answer), (status, why.as_str()));
        assert_eq!(answer.1["error"]["message"], "so it is");
    }
    let all = MountList {
        mounts: vec![MountStatus {
            mount: mounted,
            state: "mounted".into(),
            mounted_duration_sec: 3,
        }],
    };
    reply.send(Some(Reply::Status(all.clone()))).unwrap();
    assert_eq!(go("status", &viewer, json!({})).await.1["data"], json!(all));
    reply.send(Some(Reply::Unmounted)).unwrap();
    let answer = go("unmount", &developer, to_unmount.clone()).await;
    assert_eq!(answer.1["data"], json!({"unmounted": true}));
    assert_eq!(code(&go("unmount", &viewer, to_unmount.clone()).await), DENIED);
    for (key, value, expected) in [
        ("sandboxvolume_id", json!(" "), "invalid_sandboxvolume_id"),
        ("mount_session_id", json!(null), "invalid_mount_session_id"),
    ] {
        let mut body = to_unmount.clone();
        body[key] = value;
        assert_eq!(code(&go("unmount", &developer, body).await), (400, expected));
    }
    reply.send(Some(Reply::Refused(Why::UnmountFailed.with("no")))).unwrap();
    let answer = go("unmount", &developer, to_unmount.clone()).await;
    assert_eq!(code(&answer), (500, "unmount_failed"));

    // A warden that comes again has taken its own place; one that hangs up answers nobody.
    let again = client(token).attend("sb_1").await.unwrap();
    warden.await.unwrap();
    let (reply, replies) = mpsc::unbounded_channel();
    let (asks, _asked) = mpsc::unbounded_channel();
    let warden = tokio::spawn(attend(again, replies, asks));
    reply.send(None).unwrap();
    assert_eq!(code(&go("mount", &developer, to_mount.clone()).await), (500, "mount_failed"));
    warden.await.unwrap();
    nowhere(&developer).await;

    let end = async |with: &str, sandbox: &str, token: &str| {
        let route = format!("/api/v1/sandboxes/{sandbox}/attend-tokens/{token}");
        rig.as_bearer(Some(with), Method::DELETE, &route, ()).await
    };
    assert_eq!(end(&developer, "sb_2", token_id).await.0, 200, "it is not there");
    assert_eq!(end(token, "sb_1", token_id).await.1["data"], json!({"deleted": true}));
    assert!(client(token).attend("sb_1").await.is_err());
    // A team cannot fill the store.
    let made = rig.as_bearer(Some(&developer), Method::POST, &tokens, ()).await.1;
    fill(rig, made["data"]["token"].as_str().unwrap());
    let answer = rig.as_bearer(Some(&developer), Method::POST, &tokens, ()).await;
    assert_eq!(code(&answer), (409, "conflict"));
    let answer = go("mount", &developer, to_mount.clone()).await;
    assert_eq!(code(&answer), (404, "not_found"));
    unfill(rig);
}
