//! The documented routes: volumes, files, snapshots, forks.

use crate::rig::{Rig, code, noise, path, registration};
use futures_util::StreamExt;
use reqwest::Method;
use s0_api::sync::Registration;
use s0_api::volumes::{FileType, NewVolume, Restoring};
use s0_api::{Client, Error};
use s0_tree::Seq;
use serde_json::json;

const VOLUMES: &str = "/api/v1/sandboxvolumes";

#[tokio::test]
async fn volumes_are_made_listed_and_deleted() {
    let rig = Rig::start().await;
    assert_eq!(rig.data(Method::GET, VOLUMES, ()).await, json!([]));
    let body = json!({"access_mode": " rwx ", "default_posix_uid": 5, "default_posix_gid": 6,
                      "cache_size": "1G", "prefetch": 3});
    let made = rig.raw(Method::POST, VOLUMES, body).await;
    assert_eq!(made.0, 201);
    let volume = &made.1["data"];
    assert_eq!(volume["access_mode"], "RWX");
    assert_eq!(
        (&volume["default_posix_uid"], &volume["default_posix_gid"]),
        (&json!(5), &json!(6))
    );
    assert!(volume.get("source_volume_id").is_none());
    let id = volume["id"].as_str().unwrap();
    let second = rig.volume().await;
    let ids: Vec<String> =
        rig.client.volumes().await.unwrap().into_iter().map(|one| one.id).collect();
    assert_eq!(ids, [second.as_str(), id], "newest first");
    let plain = rig.client.volume(&second).await.unwrap();
    assert_eq!(plain.access_mode.as_str(), "RWO");
    assert_eq!((plain.default_posix_uid, plain.default_posix_gid), (Some(0), Some(0)));

    for bad in [
        json!({"access_mode": "sometimes"}),
        json!({"default_posix_uid": 1}),
        json!({"default_posix_uid": -1, "default_posix_gid": 1}),
        json!("text"),
        json!(1),
        json!(null),
        json!([]),
        json!([{}]),
        json!(["RWX"]),
    ] {
        let answer = rig.raw(Method::POST, VOLUMES, bad.clone()).await;
        assert_eq!(code(&answer), (400, "bad_request"), "{bad}");
    }
    assert_eq!(rig.raw(Method::POST, VOLUMES, ()).await.0, 400, "an empty body");
    let unknown = format!("{VOLUMES}/none");
    assert_eq!(code(&rig.raw(Method::GET, &unknown, ()).await), (404, "not_found"));
    let gone = json!({"deleted": true});
    assert_eq!(rig.data(Method::DELETE, &unknown, ()).await, gone);
    assert_eq!(rig.data(Method::DELETE, &format!("{VOLUMES}/{id}?force=true"), ()).await, gone);
    assert!(matches!(rig.client.volume(id).await, Err(Error::NotFound(_))));
    assert_eq!(code(&rig.raw(Method::PUT, VOLUMES, ()).await), (405, "bad_request"));
    assert_eq!(code(&rig.raw(Method::GET, "/elsewhere", ()).await), (404, "not_found"));
}

#[tokio::test]
async fn files_are_written_read_moved_and_removed() {
    let rig = Rig::start().await;
    let id = rig.volume().await;
    let files = format!("{VOLUMES}/{id}/files");
    let done = rig.data(Method::POST, &format!("{files}?path=/a/b/c.txt"), b"hi".to_vec()).await;
    assert_eq!(done, json!({"written": true}));
    assert_eq!(rig.read(&id, "a/b/c.txt").await, b"hi");
    let head = rig.client.tree(&id).await.unwrap().1.head();
    rig.write(&id, "a/b/c.txt", "hi").await;
    assert_eq!(rig.client.tree(&id).await.unwrap().1.head(), head, "equal is not written again");

    let info = rig.client.stat_file(&id, "/a/./x/../b/c.txt").await.unwrap();
    assert_eq!((info.name.as_str(), info.path.as_str()), ("c.txt", "/a/b/c.txt"));
    assert_eq!((info.kind, info.size, info.mode.as_str()), (FileType::File, 2, "0644"));
    let root = rig.client.stat_file(&id, "/").await.unwrap();
    assert_eq!((root.name.as_str(), root.path.as_str(), root.kind), ("/", "/", FileType::Dir));
    let names = |all: Vec<s0_api::volumes::FileInfo>| {
        all.into_iter().map(|one| one.name).collect::<Vec<_>>()
    };
    assert_eq!(names(rig.client.list_files(&id, "a").await.unwrap()), ["b"]);

    // JSON, when it is asked for.
    let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
    let read = http
        .get(format!("{}{files}?path=a/b/c.txt", rig.url))
        .bearer_auth(&rig.token)
        .header("accept", "application/json");
    let body: serde_json::Value =
        serde_json::from_slice(&read.send().await.unwrap().bytes().await.unwrap()).unwrap();
    assert_eq!(body["data"], json!({"content": "aGk=", "encoding": "base64"}));

    // Directories.
    let mkdir = async |path: &str, more: &str| {
        rig.raw(Method::POST, &format!("{files}?path={path}&mkdir=true{more}"), ()).await
    };
    assert_eq!(mkdir("d", "").await.0, 201);
    assert_eq!(code(&mkdir("d", "").await), (409, "conflict"));
    assert_eq!(mkdir("d", "&recursive=true").await.0, 201);
    assert_eq!(code(&mkdir("x/y", "").await), (404, "not_found"));
    assert_eq!(mkdir("x/y", "&recursive=true").await.0, 201);
    assert_eq!(code(&mkdir("a/b/c.txt", "&recursive=true").await), (409, "conflict"));

    // Moves, as rename(2) does, and with the directories above.
    rig.client.move_file(&id, "a/b/c.txt", "n/e/w.txt").await.unwrap();
    assert_eq!(rig.read(&id, "n/e/w.txt").await, b"hi");
    rig.write(&id, "other", "2").await;
    rig.client.move_file(&id, "other", "n/e/w.txt").await.unwrap();
    assert_eq!(rig.read(&id, "n/e/w.txt").await, b"2");
    assert!(matches!(rig.client.move_file(&id, "none", "z").await, Err(Error::NotFound(_))));
    let onto = rig.client.move_file(&id, "d", "n").await;
    assert!(matches!(onto, Err(Error::Conflict { .. })), "a directory that is not empty: {onto:?}");
    let lacking = rig.raw(Method::POST, &format!("{files}/move"), json!({"source": "a"})).await;
    assert_eq!(code(&lacking), (400, "bad_request"));
    let into = rig.client.move_file(&id, "n", "n/e/n").await;
    assert!(matches!(into, Err(Error::BadRequest(_))), "{into:?}");

    // Errors.
    for (method, path, expected) in [
        (Method::GET, "?path=none", (404, "not_found")),
        (Method::GET, "?path=n", (409, "conflict")),
        (Method::GET, "?path=n/e/w.txt/below", (409, "conflict")),
        (Method::GET, "", (400, "bad_request")),
        (Method::GET, "?path=/", (400, "bad_request")),
        (Method::DELETE, "?path=/", (400, "bad_request")),
        (Method::DELETE, "?path=/..", (400, "bad_request")),
        (Method::POST, "?path=n", (409, "conflict")),
        (Method::POST, "?path=n/e/w.txt/below", (409, "conflict")),
        (Method::GET, "/list?path=none", (404, "not_found")),
        (Method::GET, "/list?path=n/e/w.txt", (409, "conflict")),
        (Method::GET, "/stat?path=none", (404, "not_found")),
        (Method::PUT, "?path=a", (405, "bad_request")),
    ] {
        let answer = rig.raw(method.clone(), &format!("{files}{path}"), ()).await;
        assert_eq!(code(&answer), expected, "{method} {path}: {}", answer.1);
    }

    // Removes go down, and of nothing are fine.
    rig.client.remove_file(&id, "n").await.unwrap();
    rig.client.remove_file(&id, "n").await.unwrap();
    assert!(matches!(rig.client.stat_file(&id, "n/e/w.txt").await, Err(Error::NotFound(_))));
}

#[tokio::test]
async fn paths_never_leave_the_volume() {
    let rig = Rig::start().await;
    let id = rig.volume().await;
    let files = format!("{VOLUMES}/{id}/files");
    // The file API cleans, and cannot climb.
    rig.write(&id, "../../../etc/passwd", "mine").await;
    assert_eq!(rig.read(&id, "etc/passwd").await, b"mine");
    for hostile in ["C:/x", "a%00b", &"x".repeat(300)] {
        let answer = rig.raw(Method::POST, &format!("{files}?path={hostile}"), ()).await;
        assert_eq!(code(&answer), (400, "bad_request"), "{hostile}");
    }
    // The sync API cleans nothing.
    rig.data(
        Method::PUT,
        &format!("{VOLUMES}/{id}/sync/replicas/r"),
        json!({"case_sensitive": true}),
    )
    .await;
    for hostile in ["../x", "/../x", "a/../../x", "//x", "a//b", "C:/x", "a\u{0}b", "/"] {
        let body = json!({"request_id": hostile, "base_seq": 0,
            "changes": [{"event_type": "remove", "path": hostile}]});
        let route = format!("{VOLUMES}/{id}/sync/replicas/r/changes");
        assert_eq!(code(&rig.raw(Method::POST, &route, body).await), (400, "bad_request"));
    }
    assert_eq!(rig.client.tree(&id).await.unwrap().1.len(), 2);
}

#[tokio::test]
async fn large_files_are_cut_and_read_in_parts() {
    let rig = Rig::start().await;
    let id = rig.volume().await;
    for length in [65_536, 65_537, 300_000, 5_000_000] {
        let bytes = noise(length);
        rig.client.write_file(&id, "big", bytes.clone()).await.unwrap();
        assert_eq!(rig.read(&id, "big").await, bytes, "{length} bytes");
        let (_, tree) = rig.client.tree(&id).await.unwrap();
        let content = tree.at(&path("big")).unwrap().1.content().unwrap();
        assert_eq!(content, s0_tree::Content::of(&bytes), "one name for the same bytes");
        let (from, to) = (length as u64 / 3, length as u64 - 5);
        let part = rig.client.content(&id, content.id, Some(from..to)).await.unwrap();
        let part = Client::collect(part).await.unwrap();
        assert!(part == bytes[from as usize..to as usize], "a part of {length} bytes");
    }
    let over = vec![0; 104_857_601];
    let answer = rig.client.write_file(&id, "over", over).await;
    assert!(matches!(answer, Err(Error::BadRequest(why)) if why.contains("too large")));
}

#[tokio::test]
async fn snapshots_are_kept_and_gone_back_to() {
    let rig = Rig::start().await;
    let id = rig.volume().await;
    rig.write(&id, "kept", "one").await;
    rig.write(&id, "lost", "two").await;
    let snapshots = format!("{VOLUMES}/{id}/snapshots");
    assert_eq!(rig.data(Method::GET, &snapshots, ()).await, json!([]));
    let taken = rig.client.create_snapshot(&id, "before", "the agent").await.unwrap();
    assert_eq!((taken.size_bytes, taken.description.as_str()), (6, "the agent"));
    assert!(taken.created_at.ends_with('Z') && !taken.created_at.contains('.'));
    for bad in [json!({}), json!({"name": "  "})] {
        assert_eq!(code(&rig.raw(Method::POST, &snapshots, bad).await), (400, "bad_request"));
    }

    rig.write(&id, "kept", "changed").await;
    rig.client.remove_file(&id, "lost").await.unwrap();
    rig.write(&id, "new/file", "x").await;
    let before = rig.client.tree(&id).await.unwrap().1.head();
    let mut events = rig.client.events(&id, before, None).await.unwrap();
    rig.client.restore_snapshot(&id, &taken.id, &Restoring::default()).await.unwrap();
    assert_eq!(rig.read(&id, "kept").await, b"one");
    assert_eq!(rig.read(&id, "lost").await, b"two");
    assert!(matches!(rig.client.stat_file(&id, "new").await, Err(Error::NotFound(_))));

    // Whoever reads along learns of it, entry by entry.
    let list = rig.client.changes(&id, before, 0, 0).await.unwrap();
    assert_eq!(list.changes.len(), 4);
    let mut streamed = 0;
    while streamed < 4 {
        if let s0_api::sync::StreamEvent::Entry { .. } = events.next().await.unwrap().unwrap() {
            streamed += 1;
        }
    }
    // Again is nothing new.
    rig.client.restore_snapshot(&id, &taken.id, &Restoring::default()).await.unwrap();
    assert_eq!(rig.client.tree(&id).await.unwrap().1.head(), Seq(before.0 + 4));

    // It can be a user's doing, through that user's replica.
    let of = |sandbox: Option<&str>| Registration {
        sandbox_id: sandbox.map(String::from),
        ..registration()
    };
    rig.client.register(&id, "laptop", &of(None)).await.unwrap();
    rig.client.register(&id, "agents", &of(Some("sb_1"))).await.unwrap();
    rig.write(&id, "kept", "changed again").await;
    let at = rig.client.tree(&id).await.unwrap().1.head();
    let by = |replica: &str| Restoring { replica_id: Some(replica.into()) };
    let refused = rig.client.restore_snapshot(&id, &taken.id, &by("agents")).await;
    assert!(matches!(refused, Err(Error::BadRequest(_))), "{refused:?}");
    let refused = rig.client.restore_snapshot(&id, &taken.id, &by("nobody")).await;
    assert!(matches!(refused, Err(Error::NotFound(_))), "{refused:?}");
    assert_eq!(rig.client.tree(&id).await.unwrap().1.head(), at);
    rig.client.restore_snapshot(&id, &taken.id, &by("laptop")).await.unwrap();
    let list = rig.client.changes(&id, at, 0, 0).await.unwrap();
    assert_eq!(list.changes.len(), 1);
    assert_eq!(list.changes[0].replica_id.as_deref(), Some("laptop"));

    let other = rig.volume().await;
    for (volume, snapshot) in [(&id, "none"), (&other, taken.id.as_str())] {
        let found = rig.client.snapshot(volume, snapshot).await;
        assert_eq!(found, Err(Error::NotFound("snapshot not found".into())));
        let restored = rig.client.restore_snapshot(volume, snapshot, &Restoring::default()).await;
        assert!(matches!(restored, Err(Error::NotFound(_))));
    }
    rig.client.delete_snapshot(&id, &taken.id).await.unwrap();
    rig.client.delete_snapshot(&id, &taken.id).await.unwrap();
    assert!(rig.client.snapshots(&id).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_fork_goes_its_own_way() {
    let rig = Rig::start().await;
    let id = rig.volume().await;
    rig.write(&id, "shared", "one").await;
    let large = noise(400_000);
    rig.client.write_file(&id, "large", large.clone()).await.unwrap();
    let (epoch, source) = rig.client.tree(&id).await.unwrap();
    let fork = rig.client.fork_volume(&id, &NewVolume::default()).await.unwrap();
    assert_eq!(fork.source_volume_id.as_deref(), Some(id.as_str()));
    let (fork_epoch, tree) = rig.client.tree(&fork.id).await.unwrap();
    assert_eq!(tree, source);
    assert_ne!(epoch, fork_epoch);
    rig.write(&fork.id, "shared", "fork").await;
    rig.write(&id, "shared", "source").await;
    assert_eq!(rig.client.tree(&fork.id).await.unwrap().1.head(), source.head().next());
    assert_eq!(rig.read(&fork.id, "shared").await, b"fork");
    assert_eq!(rig.read(&id, "shared").await, b"source");
    rig.client.delete_volume(&id, false).await.unwrap();
    assert_eq!(rig.read(&fork.id, "large").await, large);
    // What came before the fork is not in its journal.
    let early = rig.client.changes(&fork.id, Seq(0), 0, 0).await;
    assert!(matches!(early, Err(Error::ReseedRequired { .. })), "{early:?}");
    let answer = rig.raw(Method::POST, &format!("{VOLUMES}/none/fork"), ()).await;
    assert_eq!(answer.1["error"]["message"], "volume not found");
}
