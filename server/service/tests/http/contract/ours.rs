//! What goes beyond the documented routes: contents, events, submissions, history,
//! tokens, health.

use bytes::Bytes;
use reqwest::Method;
use s0_api::sync::Submission;
use s0_tree::{Change, Content, ContentBuilder, ContentId, Hash};
use serde_json::{Value, json};

use super::VOLUMES;
use crate::rig::{Rig, code, create, registration};

const BAD: (u16, &str) = (400, "bad_request");
const MISSING: (u16, &str) = (404, "not_found");
const CONFLICT: (u16, &str) = (409, "conflict");

fn submit_body(number: u64, changes: &[Change]) -> Vec<u8> {
    let submission = Submission { number, changes: changes.to_vec() };
    let json = serde_json::to_vec(&submission).unwrap();
    let mut body = (json.len() as u32).to_be_bytes().to_vec();
    body.extend(json);
    body
}

pub(super) async fn contents(rig: &Rig) {
    let id = rig.volume().await;
    rig.write(&id, "f", "0123456789").await;
    let sync = format!("{VOLUMES}/{id}/sync");
    let token = format!("Bearer {}", rig.token);
    let get = async |route: &str, name: &str, value: &str| {
        let headers = [("authorization", token.as_str()), (name, value)];
        rig.ask(Method::GET, &format!("{sync}{route}"), &headers, ()).await
    };
    let tree = get("/tree", "accept", "*/*").await;
    assert_eq!((tree.status, tree.header("x-s0-head")), (200, "1"));

    // Events, and the readers of another journal.
    assert_eq!(get("/events?after=1", "accept", "*/*").await.status, 200);
    assert_eq!(get("/events?after=2", "accept", "*/*").await.status, 409);
    assert_eq!(get("/events?epoch=other", "accept", "*/*").await.status, 409);
    assert_eq!(get("/events?after=x", "accept", "*/*").await.status, 400);
    assert_eq!(get("/events?after=-1", "accept", "*/*").await.status, 400);

    // Contents.
    let here = Content::of(b"0123456789").id;
    let unknown = Content::of(b"unknown").id;
    let route = format!("/contents/{here}");
    assert_eq!(get(&route, "accept", "*/*").await.bytes, &b"0123456789"[..]);
    assert_eq!(get(&route, "range", "bytes=-2").await.bytes, &b"89"[..]);
    assert_eq!(get(&route, "range", "bytes=10-").await.status, 416);
    for id in [unknown.to_string(), "nonsense".into()] {
        assert_eq!(get(&format!("/contents/{id}"), "accept", "*/*").await.status, 404);
    }
    let post = async |route: &str, body: Value| {
        rig.raw(Method::POST, &format!("{sync}/contents{route}"), body).await
    };
    let lacking = post("/missing", json!({"ids": [here, unknown]})).await.1;
    assert_eq!(lacking["data"]["ids"], json!([unknown]));
    assert_eq!(post("/fetch", json!({"ids": [here]})).await.0, 200);
    assert_eq!(code(&post("/fetch", json!({"ids": [unknown]})).await), MISSING);
    for route in ["/missing", "/fetch"] {
        let many = json!({"ids": vec![here; 200_001]});
        assert_eq!(code(&post(route, many).await), BAD, "{route}");
        assert_eq!(code(&post(route, json!({"ids": ["what"]})).await), BAD, "{route}");
    }
    let mut frames = Vec::new();
    s0_api::frames::write_frame(&mut frames, unknown, b"unknown");
    let upload = format!("{sync}/contents");
    assert_eq!(rig.data(Method::POST, &upload, frames).await, json!({"stored": 1}));
    let mut builder = ContentBuilder::default();
    (0..2).for_each(|_| builder.push(Hash::of(b"nobody has it"), 100_000));
    let (content, recipe) = builder.finish();
    let mut frames = Vec::new();
    s0_api::frames::write_frame(&mut frames, content.id, &recipe.encode());
    let early = rig.raw(Method::POST, &upload, frames).await;
    assert_eq!(code(&early), CONFLICT);
    assert_eq!(early.1["error"]["details"]["reason"], "missing_contents");

    // Submissions.
    let register = serde_json::to_value(registration()).unwrap();
    let told = rig.data(Method::PUT, &format!("{sync}/replicas/r"), register).await;
    assert_eq!((&told["instance"], &told["last_number"]), (&json!(1), &json!(0)));
    assert!(told["epoch"].is_string());
    let submit = async |replica: &str, query: &str, number, changes: &[Change]| {
        let route = format!("{sync}/replicas/{replica}/submit{query}");
        rig.raw(Method::POST, &route, submit_body(number, changes)).await
    };
    let one = [create("new", Content::empty())];
    let done = submit("r", "?instance=1", 1, &one).await.1;
    assert_eq!(done["data"]["outcomes"][0]["outcome"], "accepted");
    assert_eq!(code(&submit("none", "?instance=1", 1, &one).await), MISSING);
    for (query, number, expected, reason) in [
        ("?instance=0", 2, CONFLICT, "fenced"),
        ("?instance=2", 2, MISSING, "unknown_replica"),
        ("?instance=1", 0, CONFLICT, "superseded"),
    ] {
        let answer = submit("r", query, number, &one).await;
        assert_eq!(code(&answer), expected, "{query} {number}");
        assert_eq!(answer.1["error"]["details"]["reason"], reason);
    }
    assert_eq!(code(&submit("r", "", 2, &one).await), BAD);
    assert_eq!(code(&submit("r", "?instance=x", 2, &one).await), BAD);
    let lacking = [create("more", Content { id: ContentId::Chunk(Hash::of(b"x")), size: 1 })];
    let answer = submit("r", "?instance=1", 2, &lacking).await;
    assert_eq!(answer.1["error"]["details"]["reason"], "missing_contents");
}

pub(super) async fn history(rig: &Rig) {
    let id = rig.volume().await;
    rig.write(&id, "f", "1").await;
    rig.write(&id, "f", "2").await;
    let route = format!("{VOLUMES}/{id}/sync/history");
    let get = async |more: &str| rig.raw(Method::GET, &format!("{route}{more}"), ()).await;
    let told = get("?path=/f&limit=1").await.1;
    assert_eq!(told["data"]["versions"][0]["seq"], 2);
    let told = get("/version?path=f&at=1").await.1;
    assert_eq!(told["data"]["content"]["id"], json!(Content::of(b"1").id));
    for bad in [
        "",
        "?path=/",
        "?path=../f",
        "?path=f&before=x",
        "?path=f&before=-1",
        "/version?path=f",
        "/version?at=1",
        "/version?path=f&at=3",
    ] {
        assert_eq!(code(&get(bad).await), BAD, "{bad}");
    }
    assert_eq!(code(&get("?path=never").await), MISSING);
    let restore =
        async |body: Value| rig.raw(Method::POST, &format!("{route}/restore"), body).await;
    assert_eq!(restore(json!({"path": "f", "at": 1})).await.1["data"]["seq"], 3);
    assert_eq!(rig.read(&id, "f").await, b"1");
    assert_eq!(code(&restore(json!({"path": "f", "at": 0})).await), CONFLICT, "it was absent");
    assert_eq!(code(&restore(json!({"path": "f"})).await), BAD);
    // A fork retains nothing that was before it.
    let fork = rig.data(Method::POST, &format!("{VOLUMES}/{id}/fork"), ()).await;
    let fork = fork["id"].as_str().unwrap();
    let gone = format!("{VOLUMES}/{fork}/sync/history/version?path=f&at=1");
    let gone = rig.raw(Method::GET, &gone, ()).await;
    assert_eq!(gone.1["error"]["details"]["reason"], "not_retained");
}

pub(super) async fn tokens(rig: &Rig) {
    const KEYS: &str = "/api-keys";
    let make =
        async |token: &str, body: Value| rig.as_bearer(Some(token), Method::POST, KEYS, body).await;
    let body = json!({"name": "ci", "roles": ["admin", "viewer", "admin"], "expires_in": "30d",
        "team_id": "apart", "scope": "team"});
    let (status, made) = make(&rig.token, body).await;
    let made = &made["data"];
    assert_eq!(
        (status, &made["roles"], &made["scope"]),
        (201, &json!(["admin", "viewer"]), &json!("team"))
    );
    let (admin, id) = (made["key"].as_str().unwrap(), made["id"].as_str().unwrap());
    assert!(admin.starts_with("s0_local_") && admin.len() > 64);
    let days = |one: &Value| {
        let at = |key: &str| s0_api::times::parse(one[key].as_str().unwrap()).unwrap().0;
        (at("expires_at") - at("created_at")) / (24 * 60 * 60 * 1_000_000_000)
    };
    assert_eq!(days(made), 30);
    // What is not asked for is little, and ends.
    let plain = make(admin, json!({"name": "plain"})).await.1["data"].clone();
    assert_eq!(
        (&plain["roles"], &plain["team_id"], days(&plain)),
        (&json!(["viewer"]), &json!("apart"), 90)
    );
    let forever = make(admin, json!({"name": "x", "expires_in": "never"})).await.1;
    assert_eq!(forever["data"]["expires_at"], "9999-12-31T23:59:59Z");
    let viewer = plain["key"].as_str().unwrap();
    for bad in [
        json!({}),
        json!({"name": " "}),
        json!({"name": "n".repeat(257)}),
        json!({"name": "n", "roles": ["king"]}),
        json!({"name": "n", "expires_in": "1h"}),
        json!({"name": "n", "scope": "galaxy"}),
    ] {
        assert_eq!(code(&make(admin, bad.clone()).await), BAD, "{bad}");
    }
    let denied = (403, "forbidden");
    for (token, body) in [
        (viewer, json!({"name": "n"})),
        (admin, json!({"name": "n", "team_id": "local"})),
        (&rig.token, json!({"name": "n", "scope": "platform"})),
    ] {
        assert_eq!(code(&make(token, body.clone()).await), denied, "{body}");
    }
    // An admin sees the own team's, without the tokens themselves.
    let list = async |token: &str| rig.as_bearer(Some(token), Method::GET, KEYS, ()).await.1;
    let all = list(admin).await["data"]["api_keys"].clone();
    let names: Vec<&Value> = all.as_array().unwrap().iter().map(|one| &one["name"]).collect();
    assert_eq!(names, ["x", "plain", "ci"], "newest first");
    assert!(!all.to_string().contains(admin));
    let everything = list(&rig.token).await["data"]["api_keys"].as_array().unwrap().len();
    assert_eq!(everything, 4, "the service's own sees all");
    let current = format!("{KEYS}/current");
    let own = rig.as_bearer(Some(viewer), Method::GET, &current, ()).await.1["data"].clone();
    let permissions = json!(["sandboxvolume:read", "sandboxvolumefile:read"]);
    assert_eq!(
        (&own["api_key"]["permissions"], &own["api_key"]["is_active"]),
        (&permissions, &json!(true))
    );

    // Revoking, and whom it concerns.
    let plain = plain["id"].as_str().unwrap();
    let other = rig.token_of("others", "admin").await;
    let end = async |token: &str, method: Method, id: &str, more: &str| {
        rig.as_bearer(Some(token), method, &format!("{KEYS}/{id}{more}"), ()).await
    };
    for (method, more) in [(Method::POST, "/deactivate"), (Method::DELETE, "")] {
        assert_eq!(code(&end(&other, method.clone(), plain, more).await), MISSING);
        assert_eq!(code(&end(admin, method.clone(), "none", more).await), MISSING);
        assert_eq!(code(&end(admin, method.clone(), "local", more).await), MISSING);
        assert_eq!(code(&end(&rig.token, method.clone(), "local", more).await), denied);
        let done = end(admin, method, plain, more).await;
        assert!(done.0 == 200 && done.1["data"]["message"].is_string());
        assert_eq!(rig.as_bearer(Some(viewer), Method::GET, &current, ()).await.0, 401);
    }
    assert_eq!(end(admin, Method::DELETE, id, "").await.0, 200, "the own one too");
    assert_eq!(rig.as_bearer(Some(admin), Method::GET, &current, ()).await.0, 401);
    // A team cannot fill the store.
    let first = make(&other, json!({"name": "n"})).await.1["data"].clone();
    let database = rusqlite::Connection::open(rig.database()).unwrap();
    let copy = "INSERT INTO tokens SELECT randomblob(32), 'n' || value, team, user, name, platform,
        roles, active, expires, created, updated, parent, purpose FROM tokens, generated
        WHERE id = ?1";
    let many = format!(
        "WITH RECURSIVE generated(value) AS (SELECT 1 UNION ALL
        SELECT value + 1 FROM generated WHERE value < 1000) {copy}"
    );
    database.execute(&many, [first["id"].as_str().unwrap()]).unwrap();
    assert_eq!(code(&make(&other, json!({"name": "n"})).await), CONFLICT);
    database.execute("DELETE FROM tokens WHERE team = 'others'", []).unwrap();
}

pub(super) async fn health(rig: &Rig) {
    for route in ["/healthz", "/readyz"] {
        let told = rig.ask(Method::GET, route, &[], Bytes::new()).await.json();
        assert_eq!((&told["success"], &told["data"]["status"]), (&json!(true), &json!("ok")));
        assert!(told["data"]["timestamp"].as_i64().unwrap() > 1_700_000_000);
    }
    let told = rig.ask(Method::GET, "/openapi.json", &[], ()).await;
    assert_eq!(told.json()["openapi"].as_str().unwrap().split('.').next(), Some("3"));
}

/// The value of a sample: a name with its labels.
fn sample(text: &str, name: &str) -> f64 {
    let line = text.lines().find(|line| line.rsplit_once(' ').is_some_and(|(at, _)| at == name));
    line.and_then(|line| line.rsplit(' ').next()).map_or(0.0, |value| value.parse().unwrap())
}

pub(super) async fn metrics(rig: &Rig) {
    let own = format!("Bearer {}", rig.token);
    let headers = [("authorization", own.as_str())];
    let read = async || {
        let answer = rig.ask(Method::GET, "/metrics", &headers, ()).await;
        assert!(!answer.header("x-request-id").is_empty());
        String::from_utf8(answer.bytes.to_vec()).unwrap()
    };
    let before = read().await;
    assert!(before.ends_with("# EOF\n"), "{before}");
    let id = rig.volume().await;
    let at = format!("{VOLUMES}/{id}/files?path=secret-name.txt");
    for text in ["one", "two"] {
        rig.data(Method::POST, &at, text.as_bytes().to_vec()).await;
    }
    rig.raw(Method::GET, &format!("{VOLUMES}/{id}/files?path=none"), ()).await;
    rig.raw(Method::GET, "/nowhere/at/all", ()).await;
    let stream = rig.client.events(&id, s0_tree::Seq(0), None).await.unwrap();
    let after = read().await;
    let more = |name: &str| sample(&after, name) - sample(&before, name);
    let files = "route=\"/api/v1/sandboxvolumes/{volume}/files\"";
    let requests = |method, status| {
        format!("s0_http_requests_total{{method=\"{method}\",{files},status=\"{status}\"}}")
    };
    assert_eq!(more(&requests("POST", 200)), 2.0, "{after}");
    assert_eq!(more(&requests("GET", 404)), 1.0);
    assert_eq!(more("s0_http_requests_total{method=\"GET\",route=\"none\",status=\"404\"}"), 1.0);
    assert_eq!(more("s0_journal_entries_total"), 2.0);
    assert!(more("s0_journal_commits_total") >= 2.0);
    assert!(more("s0_journal_commit_duration_seconds_sum") > 0.0);
    assert_eq!(more("s0_streams"), 1.0);
    assert!(sample(&after, "s0_hot_volumes") >= 1.0);
    assert!(sample(&after, "s0_start_time_seconds") > 1_700_000_000.0);
    for hidden in [&id, &rig.token, "secret-name", "/nowhere"] {
        assert!(!after.contains(hidden), "{hidden} is told");
    }
    drop(stream);

    let admin = rig.token_of("local", "admin").await;
    assert_eq!(rig.as_bearer(Some(&admin), Method::GET, "/metrics", ()).await.0, 403);
    assert_eq!(rig.as_bearer(None, Method::GET, "/metrics", ()).await.0, 401);
}
