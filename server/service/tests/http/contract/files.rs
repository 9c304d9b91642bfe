//! Files: their bytes, directories, moves, clones, modes, watches.

use bytes::Bytes;
use reqwest::Method;
use s0_api::sync::Submission;
use s0_tree::{Action, AttributeChange, Change, ContentBuilder, ContentId, New};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::VOLUMES;
use crate::rig::{Rig, code, path, registration};

const CONFLICT: (u16, &str) = (409, "conflict");
const MISSING: (u16, &str) = (404, "not_found");
const BAD: (u16, &str) = (400, "bad_request");

pub(super) async fn bytes(rig: &Rig) {
    let id = rig.volume().await;
    let files = format!("{VOLUMES}/{id}/files");
    let at = |path: &str| format!("{files}?path={path}");
    let written = rig.data(Method::POST, &at("/a/b"), b"0123456789".to_vec()).await;
    assert_eq!(written, json!({"written": true}));
    assert_eq!(rig.data(Method::POST, &at("empty"), ()).await, json!({"written": true}));
    let token = format!("Bearer {}", rig.token);
    let read = async |path: &str, name: &str, value: &str| {
        let headers = [("authorization", token.as_str()), (name, value)];
        rig.ask(Method::GET, &at(path), &headers, ()).await
    };
    let whole = read("%20a//./x/../b", "accept", "*/*").await;
    assert_eq!((whole.status, &whole.bytes[..]), (200, &b"0123456789"[..]));
    assert_eq!(whole.header("content-type"), "application/octet-stream");
    let part = read("a/b", "range", "bytes=2-4").await;
    assert_eq!((part.status, &part.bytes[..]), (206, &b"234"[..]));
    assert_eq!(part.header("content-range"), "bytes 2-4/10");
    assert_eq!(read("a/b", "range", "bytes=10-").await.status, 416);
    for name in ["accept", "content-type"] {
        let told = read("a/b", name, "text/plain, application/json").await.json();
        assert_eq!(told["data"], json!({"content": "MDEyMzQ1Njc4OQ==", "encoding": "base64"}));
    }
    for (method, path, expected) in [
        (Method::GET, "", BAD),
        (Method::GET, "..", BAD),
        (Method::GET, "none", MISSING),
        (Method::GET, "none/below", MISSING),
        (Method::GET, "a", CONFLICT),
        (Method::GET, "a/b/below", CONFLICT),
        (Method::POST, "", BAD),
        (Method::POST, "/", BAD),
        (Method::POST, "a", CONFLICT),
        (Method::POST, "a/b/below", CONFLICT),
        (Method::DELETE, "", BAD),
        (Method::DELETE, "/./", BAD),
        (Method::DELETE, "a/b/below", CONFLICT),
    ] {
        let answer = rig.raw(method.clone(), &at(path), ()).await;
        assert_eq!(code(&answer), expected, "{method} {path:?}");
    }
    for path in ["a", "none", "empty"] {
        assert_eq!(rig.data(Method::DELETE, &at(path), ()).await, json!({"deleted": true}));
    }
    // One file that is larger than JSON may carry, of one chunk again and again.
    let chunk = Bytes::from(vec![0; 512 * 1024]);
    let mut builder = ContentBuilder::default();
    (0..201).for_each(|_| builder.push(s0_tree::Hash::of(&chunk), chunk.len()));
    let (content, recipe) = builder.finish();
    let frames = vec![
        (ContentId::Chunk(s0_tree::Hash::of(&chunk)), chunk),
        (content.id, recipe.encode().into()),
    ];
    rig.client.upload(&id, frames).await.unwrap();
    rig.client.register(&id, "r", &registration()).await.unwrap();
    let (what, set) = (New::File { content }, AttributeChange::default());
    let changes = vec![Change::unstated(Action::Create { path: path("huge"), what, set })];
    rig.client.submit(&id, "r", 1, &Submission { number: 1, changes }, &[]).await.unwrap();
    assert_eq!(read("huge", "accept", "application/json").await.status, 413);
    assert_eq!(read("huge", "range", "bytes=0-1").await.status, 206);
}

pub(super) async fn directories(rig: &Rig) {
    let id = rig.volume().await;
    let files = format!("{VOLUMES}/{id}/files");
    let make = async |path: &str, more: &str| {
        rig.raw(Method::POST, &format!("{files}?path={path}&mkdir=true{more}"), ()).await
    };
    let made = make("d", "").await;
    assert_eq!((made.0, &made.1["data"]), (201, &json!({"created": true})));
    rig.write(&id, "d/f", "12").await;
    assert_eq!(code(&make("d", "").await), CONFLICT);
    assert_eq!(make("d", "&recursive=true").await.0, 201);
    assert_eq!(make("x/y/z", "&recursive=true").await.0, 201);
    let lacking = make("n/y", "").await;
    assert_eq!((lacking.0, &lacking.1["error"]["message"]), (404, &json!("directory not found")));
    for path in ["d/f", "d/f/below"] {
        assert_eq!(code(&make(path, "&recursive=true").await), CONFLICT);
    }
    assert_eq!(code(&make("/", "").await), BAD);

    let get = async |what: &str, path: &str| {
        rig.raw(Method::GET, &format!("{files}/{what}?path={path}"), ()).await
    };
    let root = get("stat", "/").await.1;
    assert_eq!((&root["data"]["name"], &root["data"]["type"]), (&json!("/"), &json!("dir")));
    let file = &get("stat", "d/f").await.1["data"];
    let said = ["name", "path", "type", "size", "mode", "is_link"].map(|key| file[key].clone());
    let expected =
        [json!("f"), json!("/d/f"), json!("file"), json!(2), json!("0644"), json!(false)];
    assert_eq!(said, expected);
    let list = get("list", "/").await.1;
    let names: Vec<&Value> =
        list["data"]["entries"].as_array().unwrap().iter().map(|it| &it["name"]).collect();
    assert_eq!(names, ["d", "x"]);
    for (what, path, expected) in [
        ("stat", "", BAD),
        ("stat", "none", MISSING),
        ("stat", "d/f/below", CONFLICT),
        ("list", "", BAD),
        ("list", "none", MISSING),
        ("list", "d/f", CONFLICT),
    ] {
        assert_eq!(code(&get(what, path).await), expected, "{what} {path:?}");
    }
    // A link is told of as itself.
    let replica = format!("{VOLUMES}/{id}/sync/replicas/r");
    rig.data(Method::PUT, &replica, json!({"case_sensitive": true})).await;
    let head = rig.client.tree(&id).await.unwrap().1.head();
    let link = json!({"event_type": "create", "path": "/l", "entry_kind": "symlink",
        "link_target": "d/f"});
    let body = json!({"request_id": "1", "base_seq": head, "changes": [link]});
    rig.data(Method::POST, &format!("{replica}/changes"), body).await;
    for (query, kind, event) in
        [("&symlinks=true", Some("symlink"), "create"), ("", None, "invalidate")]
    {
        let route = format!("{VOLUMES}/{id}/sync/changes?after={}{query}", head);
        let entry = &rig.data(Method::GET, &route, ()).await["changes"][0];
        assert_eq!((entry["entry_kind"].as_str(), &entry["event_type"]), (kind, &json!(event)));
        assert_eq!(entry["link_target"], "d/f");
    }
    let link = &get("stat", "l").await.1["data"];
    assert_eq!((&link["type"], &link["is_link"]), (&json!("symlink"), &json!(true)));
    assert_eq!((&link["link_target"], &link["size"]), (&json!("d/f"), &json!(3)));
    assert_eq!(rig.raw(Method::GET, &format!("{files}?path=l"), ()).await.0, 409, "not followed");
}

pub(super) async fn moves(rig: &Rig) {
    let id = rig.volume().await;
    rig.write(&id, "f", "1").await;
    rig.write(&id, "d/g", "2").await;
    let route = format!("{VOLUMES}/{id}/files/move");
    let go = async |source: &str, destination: &str| {
        let body = json!({"source": source, "destination": destination});
        rig.raw(Method::POST, &route, body).await
    };
    assert_eq!(go("f", "/n/e/w").await.1["data"], json!({"moved": true}));
    assert_eq!(go("n/e/w", "d/g").await.0, 200, "as rename(2) does");
    assert_eq!(rig.read(&id, "d/g").await, b"1");
    for (source, destination, expected) in [
        ("none", "x", MISSING),
        ("", "x", BAD),
        ("d", "", BAD),
        ("d", "/", BAD),
        ("/", "x", BAD),
        ("d", "d/g/below", CONFLICT),
        ("d/g", "n", CONFLICT),
        ("n", "d/g", CONFLICT),
        ("n", "d", CONFLICT),
    ] {
        assert_eq!(code(&go(source, destination).await), expected, "{source:?} {destination:?}");
    }
}

pub(super) async fn clones(rig: &Rig) {
    let (source, target) = (rig.volume().await, rig.volume().await);
    rig.write(&source, "d/f", "shared").await;
    rig.write(&target, "there", "old").await;
    let route = format!("{VOLUMES}/{target}/files/clone");
    let file = |to: &str, more: Value| {
        let mut file = json!({"source_volume_id": source, "source_path": "/d/f",
            "target_path": to});
        file.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        file
    };
    let clone = async |entries: Vec<Value>| {
        rig.raw(Method::POST, &route, json!({"entries": entries})).await
    };
    let parents = json!({"create_parents": true});
    let two = vec![file("a/b", parents), file("there", json!({"overwrite": true}))];
    let told = clone(two).await.1;
    let first = json!({"source_volume_id": source, "source_path": "/d/f", "target_path": "a/b",
        "mode": "cow", "size_bytes": 6});
    assert_eq!(told["data"]["entries"][0], first);
    for path in ["a/b", "there"] {
        assert_eq!(rig.read(&target, path).await, b"shared");
    }
    let none = json!({"source_path": "/none"});
    let nowhere = json!({"source_volume_id": "none"});
    let directory = json!({"source_path": "/d"});
    for (entries, expected) in [
        (vec![], BAD),
        (vec![file("/", json!({}))], BAD),
        (vec![file("x", json!({})), file("/x", json!({}))], BAD),
        (vec![file("x", json!({})); 1001], BAD),
        (vec![file("x", none)], MISSING),
        (vec![file("x", nowhere)], MISSING),
        (vec![file("n/x", json!({}))], MISSING),
        (vec![file("x", directory)], CONFLICT),
        // All or nothing.
        (vec![file("x", json!({})), file("there", json!({}))], CONFLICT),
        (vec![file("a", json!({"overwrite": true}))], CONFLICT),
    ] {
        assert_eq!(code(&clone(entries.clone()).await), expected, "{entries:?}");
    }
    let parted = json!({"entries": [file("x", json!({}))], "atomic": false});
    assert_eq!(code(&rig.raw(Method::POST, &route, parted).await), BAD);
    let stat = format!("{VOLUMES}/{target}/files/stat?path=x");
    assert_eq!(rig.raw(Method::GET, &stat, ()).await.0, 404);
}

/// The file API works as the Volume's user, whom modes concern.
pub(super) async fn modes(rig: &Rig) {
    let body = json!({"default_posix_uid": 1000, "default_posix_gid": 1000});
    let made = rig.data(Method::POST, VOLUMES, body).await;
    let id = made["id"].as_str().unwrap();
    for path in ["open/f", "shut/f", "unread/f", "sticky/f", "secret"] {
        rig.write(id, path, "1").await;
    }
    let replica = format!("{VOLUMES}/{id}/sync/replicas/r");
    rig.data(Method::PUT, &replica, json!({"case_sensitive": true})).await;
    let chmod = |path: &str, mode: u32| json!({"event_type": "chmod", "path": path, "mode": mode});
    let head = rig.client.tree(id).await.unwrap().1.head();
    let body = json!({"request_id": "1", "base_seq": head, "changes": [chmod("/open", 0o555),
        chmod("/shut", 0o600), chmod("/unread", 0o333), chmod("/sticky", 0o1777), chmod("/secret", 0o200)]});
    rig.data(Method::POST, &format!("{replica}/changes"), body).await;
    let files = format!("{VOLUMES}/{id}/files");
    let denied = async |method: Method, route: &str, body: Value| {
        let answer = rig.raw(method, &format!("{files}{route}"), body).await;
        assert_eq!(code(&answer), (403, "forbidden"), "{route}");
        assert_eq!(answer.1["error"]["message"], "permission denied", "{route}");
    };
    let nothing = json!({});
    denied(Method::GET, "?path=secret", nothing.clone()).await;
    denied(Method::GET, "?path=shut/f", nothing.clone()).await;
    denied(Method::GET, "/stat?path=shut/f", nothing.clone()).await;
    denied(Method::GET, "/list?path=unread", nothing.clone()).await;
    denied(Method::POST, "?path=open/new", nothing.clone()).await;
    denied(Method::POST, "?path=open/new/deep", nothing.clone()).await;
    denied(Method::POST, "?path=open/new&mkdir=true", nothing.clone()).await;
    denied(Method::DELETE, "?path=open/f", nothing.clone()).await;
    denied(Method::DELETE, "?path=unread", nothing).await;
    for (source, destination) in [("open/f", "x"), ("secret", "open/x"), ("secret", "shut/x")] {
        let body = json!({"source": source, "destination": destination});
        denied(Method::POST, "/move", body).await;
    }
    let file = json!({"source_volume_id": id, "source_path": "secret", "target_path": "x"});
    denied(Method::POST, "/clone", json!({"entries": [file]})).await;
    // What is allowed goes on: a file of a directory that must not be changed, and one that
    // may be written but not read.
    rig.write(id, "open/f", "2").await;
    rig.write(id, "secret", "2").await;
    assert_eq!(rig.read(id, "unread/f").await, b"1");
    // A fork for the superuser knows no modes.
    let body = json!({"default_posix_uid": 0, "default_posix_gid": 0});
    let fork = rig.data(Method::POST, &format!("{VOLUMES}/{id}/fork"), body).await;
    assert_eq!(rig.read(fork["id"].as_str().unwrap(), "secret").await, b"2");
    // And one for somebody else what others may do.
    let body = json!({"default_posix_uid": 2000, "default_posix_gid": 2000});
    let fork = rig.data(Method::POST, &format!("{VOLUMES}/{id}/fork"), body).await;
    let theirs = fork["id"].as_str().unwrap();
    let write = format!("{VOLUMES}/{theirs}/files?path=open/f");
    assert_eq!(code(&rig.raw(Method::POST, &write, ()).await), (403, "forbidden"));
    assert_eq!(rig.read(theirs, "open/f").await, b"2");
    rig.write(theirs, "sticky/own", "2").await;
    rig.client.remove_file(theirs, "sticky/own").await.unwrap();
    let remove = format!("{VOLUMES}/{theirs}/files?path=sticky/f");
    assert_eq!(code(&rig.raw(Method::DELETE, &remove, ()).await), (403, "forbidden"));
}

pub(super) async fn watches(rig: &Rig) {
    let id = rig.volume().await;
    let route = format!("{VOLUMES}/{id}/files/watch");
    assert_eq!(code(&rig.raw(Method::GET, &route, ()).await), BAD, "no upgrade");
    let mut request = format!("{}{route}", rig.url.replace("http", "ws")).into_client_request();
    let token = format!("Bearer {}", rig.token).parse().unwrap();
    request.as_mut().unwrap().headers_mut().insert("authorization", token);
    let (_, answer) = tokio_tungstenite::connect_async(request.unwrap()).await.unwrap();
    let status = answer.status().as_u16();
    rig.seen.note(rig.document().await, &Method::GET, &route, status);
    assert_eq!(status, 101);
}

/// The connection of a mount, and what it keeps from being deleted.
pub(super) async fn mounts(rig: &Rig) {
    let id = rig.volume().await;
    let epoch = rig.client.tree(&id).await.unwrap().0;
    let query = format!("after=0&epoch={epoch}&host=h&mount_point=/w");
    let route = |session: &str, query: &str| format!("{VOLUMES}/{id}/mounts/{session}?{query}");
    let good = route("mnt_1", &query);
    assert_eq!(code(&rig.raw(Method::GET, &good, ()).await), BAD, "no upgrade");
    let connect = async |route: &str| {
        let url = format!("{}{route}", rig.url.replace("http", "ws"));
        let mut request = url.into_client_request().unwrap();
        let token = format!("Bearer {}", rig.token).parse().unwrap();
        request.headers_mut().insert("authorization", token);
        let connected = tokio_tungstenite::connect_async(request).await;
        let (socket, status) = match connected {
            Ok((socket, answer)) => (Some(socket), answer.status().as_u16()),
            Err(tokio_tungstenite::tungstenite::Error::Http(answer)) => {
                (None, answer.status().as_u16())
            }
            Err(other) => panic!("{other}"),
        };
        rig.seen.note(rig.document().await, &Method::GET, route, status);
        (socket, status)
    };
    for bad in [
        route("1", &query),
        route("mnt_1", "after=0"),
        route("mnt_1", &query.replace("after=0", "after=x")),
    ] {
        assert_eq!(connect(&bad).await.1, 400, "{bad}");
    }
    for unknown in [query.replace("after=0", "after=9"), query.replace(&epoch, "another")] {
        assert_eq!(connect(&route("mnt_1", &unknown)).await.1, 409, "{unknown}");
    }
    let (socket, status) = connect(&good).await;
    assert_eq!(status, 101);
    // The Volume's mode is RWO, as the API makes it.
    assert_eq!(connect(&route("mnt_2", &query)).await.1, 409);
    let reads = format!("{query}&read_only=true");
    assert_eq!(connect(&route("mnt_3", &reads)).await.1, 101);
    let volume = format!("{VOLUMES}/{id}");
    assert_eq!(code(&rig.raw(Method::DELETE, &volume, ()).await), (409, "conflict"));
    let forced = format!("{volume}?force=true");
    assert_eq!(rig.data(Method::DELETE, &forced, ()).await, json!({"deleted": true}));
    drop(socket);
}
