//! The service as a program: tokens, its directory, and what a crash leaves.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use reqwest::Method;
use s0_api::{Client, Error};
use s0_service::journal::{Checkpoint, Journal};
use s0_service::sqlite::SqliteJournal;
use s0_service::{Config, SERVICE_FILE, ServeError, ServiceFile, TOKEN_FILE, serve};
use s0_tree::{Content, Hash, Seq, Time};
use serde_json::json;

use crate::rig::{Rig, code, config, create, inline, registration, submission};

#[tokio::test]
async fn tokens_decide_who_may_do_what() {
    let rig = Rig::start().await;
    let volume = rig.volume().await;
    rig.write(&volume, "x", "secret").await;
    let others = rig.token_of("others", "admin").await;
    let viewer = rig.token_of("local", "viewer").await;
    let builder = rig.token_of("local", "builder").await;
    let journal = SqliteJournal::open(&rig.database()).unwrap();
    let mut old = journal.token(Hash::of(viewer.as_bytes())).await.unwrap().unwrap();
    (old.hash, old.id, old.expires) = (Hash::of(b"old"), "old".into(), Some(Time(1)));
    journal.put_token(old).await.unwrap();
    let base = format!("/api/v1/sandboxvolumes/{volume}");
    for bad in [None, Some("wrong"), Some("old"), Some("")] {
        let answer = rig.as_bearer(bad, Method::GET, &base, ()).await;
        assert_eq!(code(&answer), (401, "unauthorized"));
    }
    // Nothing tells a foreign Volume from one that does not exist.
    for (method, path) in [
        (Method::GET, ""),
        (Method::DELETE, ""),
        (Method::GET, "/files?path=x"),
        (Method::GET, "/files/list?path=/"),
        (Method::GET, "/snapshots"),
        (Method::GET, "/sync/changes"),
        (Method::GET, "/sync/conflicts"),
        (Method::GET, "/sync/events"),
        (Method::GET, "/sync/tree"),
        (Method::POST, "/fork"),
        (Method::POST, "/sync/bootstrap"),
    ] {
        let path = format!("{base}{path}");
        let foreign = rig.as_bearer(Some(&others), method.clone(), &path, ()).await;
        assert_eq!(foreign.0, 404, "{method} {path}");
        if method != Method::DELETE {
            let absent = path.replace(&volume, "absent");
            assert_eq!(rig.as_bearer(Some(&others), method, &absent, ()).await, foreign);
        }
    }
    let list = rig.as_bearer(Some(&others), Method::GET, "/api/v1/sandboxvolumes", ()).await;
    assert_eq!(list.1["data"], json!([]));
    // The same bytes of another team are neither seen nor shared.
    let others = Client::new(&rig.url, &others).unwrap();
    let theirs = others.create_volume(&s0_api::volumes::NewVolume::default()).await.unwrap();
    let id = Content::of(b"secret").id;
    assert_eq!(others.missing(&theirs.id, &[id]).await.unwrap(), [id]);

    let viewer = Client::new(&rig.url, &viewer).unwrap();
    assert_eq!(
        Client::collect(viewer.read_file(&volume, "x").await.unwrap()).await.unwrap(),
        b"secret"
    );
    let refused = viewer.write_file(&volume, "x", "y").await;
    assert_eq!(refused, Err(Error::Unauthorized("insufficient permissions".into())));
    assert!(matches!(viewer.delete_volume(&volume, true).await, Err(Error::Unauthorized(_))));
    let nothing = Client::new(&rig.url, &builder).unwrap();
    assert!(matches!(nothing.volumes().await, Err(Error::Unauthorized(_))));
    rig.client.health().await.unwrap();
    Client::new(&rig.url, "").unwrap().health().await.unwrap();

    // The token itself is nowhere in the database.
    drop(journal);
    for file in ["journal.db", "journal.db-wal"] {
        let bytes = std::fs::read(rig.dir.path().join(file)).unwrap_or_default();
        let token = rig.token.as_bytes();
        assert!(!bytes.windows(token.len()).any(|window| window == token), "{file}");
    }
}

#[tokio::test]
async fn a_directory_has_one_service() {
    let rig = Rig::start().await;
    let said = std::fs::read(rig.dir.path().join(SERVICE_FILE)).unwrap();
    let said: ServiceFile = serde_json::from_slice(&said).unwrap();
    assert_eq!(said, ServiceFile { url: rig.url.clone(), pid: std::process::id() });
    let second = serve(config(rig.dir.path()), std::future::pending()).await.unwrap_err();
    assert!(
        matches!(second, ServeError::Running { pid: Some(pid), .. } if pid == std::process::id())
    );
    assert!(second.to_string().contains(&std::process::id().to_string()));
    let token = rig.token.clone();
    // A stream does not keep the service from ending.
    let volume = rig.volume().await;
    let events = rig.client.events(&volume, Seq(0), None).await.unwrap();
    let dir = rig.shut_down().await;
    drop(events);
    assert!(!dir.path().join(SERVICE_FILE).exists());
    let config = config(dir.path());
    let rig = Rig::at(dir, config).await;
    assert_eq!(rig.token, token, "the token stays");
    assert!(rig.client.volume(&volume).await.is_ok());
}

#[tokio::test]
async fn an_address_that_others_reach_is_refused_without_tls() {
    let dir = tempfile::tempdir().unwrap();
    let open = Config::new(dir.path().into(), "0.0.0.0:0".parse().unwrap());
    let refused = serve(open.clone(), std::future::pending()).await.unwrap_err();
    assert!(matches!(refused, ServeError::Insecure(_)));
    assert!(refused.to_string().contains("--allow-insecure"));
    let asked = Config { allow_insecure: true, ..open };
    let running = serve(asked, std::future::pending()).await.unwrap();
    assert!(running.url().starts_with("http://127.0.0.1:"));
}

#[tokio::test]
async fn after_a_backup_readers_compare_instead_of_trusting() {
    let rig = Rig::start().await;
    let volume = rig.volume().await;
    rig.write(&volume, "x", "1").await;
    let (epoch, tree) = rig.client.tree(&volume).await.unwrap();
    let dir = rig.shut_down().await;
    let again = Config { restored_from_backup: true, ..config(dir.path()) };
    let rig = Rig::at(dir, again).await;
    let known = rig.client.events(&volume, tree.head(), Some(&epoch)).await.err().unwrap();
    let Error::EpochChanged { epoch: now, head } = known else { panic!("{known:?}") };
    assert_eq!((rig.client.tree(&volume).await.unwrap(), head), ((now, tree), Seq(1)));
}

#[tokio::test]
async fn a_damaged_volume_is_a_failure_and_not_unknown() {
    let rig = Rig::start().await;
    let volume = rig.volume().await;
    rig.write(&volume, "x", "1").await;
    let snapshot = rig.client.create_snapshot(&volume, "s", "").await.unwrap().id;
    let dir = rig.shut_down().await;
    let database = dir.path().join("journal.db");
    let journal = SqliteJournal::open(&database).unwrap();
    journal.retain(&volume, Seq(1), Seq(9)).await.unwrap();
    let bad = Checkpoint { seq: Seq(1), packed: bytes::Bytes::from_static(b"bad") };
    journal.put_checkpoint(&volume, bad).await.unwrap();
    drop(journal);
    let config = config(dir.path());
    let rig = Rig::at(dir, config).await;
    let base = format!("/api/v1/sandboxvolumes/{volume}");
    for path in ["/files/list?path=/", &format!("/snapshots/{snapshot}"), "/sync/tree"] {
        let answer = rig.raw(Method::GET, &format!("{base}{path}"), ()).await;
        assert_eq!(code(&answer), (500, "internal_error"), "{path}");
    }
    let restore = format!("{base}/snapshots/{snapshot}/restore");
    assert_eq!(rig.raw(Method::POST, &restore, ()).await.0, 500);
}

const CHILD_DIR: &str = "S0_SERVICE_TEST_DIR";

/// The service of the next test, in a process that can be killed.
#[test]
#[ignore = "started by `what_was_answered_survives_a_kill`"]
fn child_service() {
    let Ok(dir) = std::env::var(CHILD_DIR) else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let running = serve(config(dir.as_ref()), std::future::pending()).await.unwrap();
        use std::io::Write;
        let mut out = std::io::stdout();
        writeln!(out, "\nurl {}", running.url()).unwrap();
        out.flush().unwrap();
        running.wait().await.unwrap();
    });
}

#[tokio::test]
async fn what_was_answered_survives_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "running::child_service", "--ignored", "--nocapture"])
        .env(CHILD_DIR, dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let url = lines
        .map(Result::unwrap)
        .find_map(|line| line.strip_prefix("url ").map(String::from))
        .unwrap();
    let token = std::fs::read_to_string(dir.path().join(TOKEN_FILE)).unwrap();
    let client = Client::new(&url, &token).unwrap();
    let volume = client.create_volume(&s0_api::volumes::NewVolume::default()).await.unwrap().id;
    client.register(&volume, "a", &registration()).await.unwrap();
    let sent = |number: u64| {
        let text = format!("text {number}");
        let change = create(&format!("f{number}"), Content::of(text.as_bytes()));
        (submission(number, &[change]), inline(&[&text]))
    };
    let killer = tokio::task::spawn_blocking(move || {
        std::thread::sleep(std::time::Duration::from_millis(300));
        child.kill().unwrap();
        child.wait().unwrap();
    });
    let mut answers = Vec::new();
    let lost = loop {
        let number = answers.len() as u64 + 1;
        let (submission, inline) = sent(number);
        match client.submit(&volume, "a", 1, &submission, &inline).await {
            Ok(answer) => answers.push(answer),
            Err(_) => break number,
        }
    };
    killer.await.unwrap();
    assert!(!answers.is_empty(), "something was answered before the kill");

    // The lock went with the process; the file of the dead service is replaced.
    let config = config(dir.path());
    let rig = Rig::at(dir, config).await;
    let (_, tree) = rig.client.tree(&volume).await.unwrap();
    assert!(tree.len() >= answers.len());
    for number in 1..lost {
        let read = rig.read(&volume, &format!("f{number}")).await;
        assert_eq!(read, format!("text {number}").as_bytes());
    }
    let registered = rig.client.register(&volume, "a", &registration()).await.unwrap();
    assert_eq!(registered.instance, 2);
    assert!(registered.last_number == lost || registered.last_number == lost - 1);
    // Sent again: the one whose answer was lost is done once, done or not before.
    let (again, inline) = sent(lost);
    let answer = rig.client.submit(&volume, "a", 2, &again, &inline).await.unwrap();
    assert_eq!(answer.head, Seq(lost));
    assert_eq!(rig.client.tree(&volume).await.unwrap().1.len() as u64, lost);
}
