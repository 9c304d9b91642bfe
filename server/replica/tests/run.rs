//! The run loop and its network, with a service that does as the test wants.

mod limits;
mod volume;

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use limits::WATCHERS;
use s0_api::sync::StreamEvent;
use s0_replica::engine::Config;
use s0_replica::shell::disk::Marker;
use s0_replica::shell::guarded::Guarded;
use s0_replica::shell::run::{self, Handle, Report, Setup};
use s0_replica::shell::store::SqliteStore;
use s0_replica::state::{Facts, Record, Row, Store, What};
use s0_tree::{Content, NodeId, Place, Policy, Tree};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use volume::{At, tree};

const DEADLINE: Duration = Duration::from_secs(60);

/// What the service does with a request, where not all is well.
#[derive(Clone, Copy)]
enum Says {
    Error(u16),
    Nonsense,
    /// What it should, after a while.
    Slowly(Duration),
}

/// A service with one Volume, whose journal ends with its tree.
struct Service {
    address: SocketAddr,
    registrations: Arc<Mutex<Vec<Instant>>>,
}

impl Service {
    async fn start(
        tree: Tree,
        but: impl Fn(&str) -> Option<Says> + Copy + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let registrations = Arc::new(Mutex::new(Vec::new()));
        let seen = registrations.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tree, seen) = (tree.clone(), seen.clone());
                tokio::spawn(async move {
                    // A client that hangs up is none of its concern.
                    let _ = talk(stream, &tree, but, &seen).await;
                });
            }
        });
        Self { address, registrations }
    }

    fn registrations(&self) -> Vec<Instant> {
        self.registrations.lock().unwrap().clone()
    }
}

/// Reads a request: its method and the last word of its address that matters.
async fn request(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).await?;
    let mut words = head.split_whitespace();
    let (method, url) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let known = ["submit", "cursor", "tree", "events", "replicas"];
    let what = known.into_iter().find(|what| url.contains(what)).unwrap_or_default();
    Ok(format!("{} {what}", method.to_uppercase()))
}

async fn talk(
    mut stream: TcpStream,
    tree: &Tree,
    but: impl Fn(&str) -> Option<Says>,
    seen: &Mutex<Vec<Instant>>,
) -> std::io::Result<()> {
    let request = request(&mut stream).await?;
    if request == "PUT replicas" {
        seen.lock().unwrap().push(Instant::now());
    }
    let said = but(&request);
    if let Some(Says::Slowly(pause)) = said {
        tokio::time::sleep(pause).await;
    }
    let head = tree.head();
    let (status, body) = match (said, request.as_str()) {
        (Some(Says::Error(status)), _) => (status, Vec::new()),
        (Some(Says::Nonsense), _) => (200, b"nonsense".to_vec()),
        (_, "PUT replicas") => {
            let data = format!(r#"{{"instance":1,"last_number":0,"epoch":"e","head_seq":{head}}}"#);
            (200, format!(r#"{{"data":{data}}}"#).into_bytes())
        }
        (_, "GET tree") => (200, zstd::encode_all(&tree.encode()[..], 1)?),
        (_, "GET events") => {
            let policy = Policy::default();
            let event = StreamEvent::Head {
                head,
                epoch: "e".into(),
                policy,
                quota: s0_tree::Quota::default(),
            };
            (200, format!("data: {}\n\n", serde_json::to_string(&event)?).into_bytes())
        }
        _ => (503, Vec::new()),
    };
    let head = format!("HTTP/1.1 {status} x\r\nconnection: close\r\nx-s0-epoch: e\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(&body).await?;
    if status == 200 && request == "GET events" {
        // The stream stays open until the client hangs up.
        let _ = stream.read_u8().await;
    }
    Ok(())
}

/// A workspace, and what a replica of it needs.
struct Room {
    dir: tempfile::TempDir,
}

impl Room {
    fn new(files: &[(&str, &str)]) -> Self {
        let room = Self { dir: tempfile::tempdir().unwrap() };
        fs::create_dir(room.dir.path().join("root")).unwrap();
        files.iter().for_each(|(name, text)| room.write(name, text));
        room
    }

    fn write(&self, name: &str, text: &str) {
        let at = self.dir.path().join("root").join(name);
        fs::write(&at, text).unwrap();
        fs::set_permissions(&at, fs::Permissions::from_mode(0o644)).unwrap();
    }

    fn database(&self) -> PathBuf {
        self.dir.path().join("state.db")
    }

    fn start(&self, service: Option<&Service>, boot: &str) -> Running {
        let address = service.map(|service| format!("http://{}", service.address));
        let setup = Setup {
            root: self.dir.path().join("root"),
            marker: Marker::Create,
            database: self.database(),
            config: Config { boot: boot.into(), ..Config::default() },
            ignore: Vec::new(),
            guarded: Guarded::default(),
            volume: "v".into(),
            replica: "r".into(),
            display_name: "r".into(),
            sandbox: None,
            connect: Arc::new(move || {
                let address = address.as_deref().ok_or("nobody is there")?;
                s0_api::Client::new(address, "t").map_err(|error| error.to_string())
            }),
        };
        let (handle, thread) = run::start(setup, &tokio::runtime::Handle::current()).unwrap();
        Running { handle, thread: Some(thread) }
    }
}

struct Running {
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    async fn wait_for(&self, what: &str, is: impl Fn(&Report) -> bool) -> Report {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let report = self.handle.status().await.unwrap();
            if is(&report) {
                return report;
            }
            assert!(Instant::now() < deadline, "not {what}: {report:#?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn wait_for_uploads(&self, count: usize) -> Report {
        let what = format!("{count} to upload");
        self.wait_for(&what, |it| it.status.pending.uploads == count).await
    }

    /// Ends it in order.
    async fn end(mut self) {
        self.handle.stop();
        let thread = self.thread.take().unwrap();
        tokio::task::spawn_blocking(move || thread.join().unwrap()).await.unwrap();
    }
}

async fn until(what: &str, is: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !is() {
        assert!(Instant::now() < deadline, "not {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn facts(room: &Room) -> Facts {
    SqliteStore::open(&room.database()).unwrap().load().unwrap().facts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_registers_and_no_more_is_not_stormed() {
    // The stream is refused, the tree cannot be read, a submission is refused.
    for broken in ["GET events", "GET tree", "POST submit"] {
        let room = Room::new(&[("mine", "x")]);
        let but = move |request: &str| {
            (request == broken).then_some(match broken {
                "GET events" => Says::Error(503),
                "GET tree" => Says::Nonsense,
                _ => Says::Error(401),
            })
        };
        let service = Service::start(Tree::default(), but).await;
        let running = room.start(Some(&service), "");
        until("registered six times", || service.registrations().len() >= 6).await;
        let seen = service.registrations();
        // Five pauses that double from 100 ms, each shortened to a half at most.
        let took = seen[5] - seen[0];
        assert!(took >= Duration::from_millis(1550), "{broken}: six times in {took:?}");
        running.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flush_does_not_keep_a_slow_service_from_being_reached() {
    let room = Room::new(&[]);
    let slowly = Says::Slowly(Duration::from_millis(600));
    let but = move |request: &str| (request == "PUT replicas").then_some(slowly);
    let service = Service::start(Tree::default(), but).await;
    let running = room.start(Some(&service), "");
    let flushing = running.handle.clone();
    let flush = tokio::spawn(async move { flushing.flush(DEADLINE).await });
    running.wait_for("connected", |it| it.status.connected).await;
    flush.abort();
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_in_order_is_remembered_and_a_power_cut_is_not_trusted() {
    let room = Room::new(&[("f", "x")]);
    let tree = tree(&[("f", At::File("x"))]);
    let service = Service::start(tree, |_| None).await;
    let running = room.start(Some(&service), "one");
    running.wait_for("synced", |it| it.status.progress.synced == 1).await;
    running.end().await;
    assert_eq!(facts(&room).boot, None);

    // The same stat, and another content than is remembered, as a power cut makes
    // it; and no end in order.
    let cut_power = || {
        let mut store = SqliteStore::open(&room.database()).unwrap();
        let state = store.load().unwrap();
        let place = Place { parent: NodeId::ROOT, name: s0_tree::Name::new("f").unwrap() };
        let row = state.synced.get(&place).unwrap().clone();
        let mut print = row.print.unwrap();
        // The file has rested for long, so that its stat would be believed.
        print.seen += 3_600_000_000_000;
        let what = What::File(Content::of(b"y"));
        let row = Row { what, print: Some(print), ..row };
        let facts = Facts { boot: Some("one".into()), ..state.facts };
        store.commit(&[Record::Facts(facts)], &[(place, Some(row))], true).unwrap();
    };
    for (boot, uploads) in [("one", 0), ("two", 1)] {
        cut_power();
        let running = room.start(None, boot);
        let looked = |it: &Report| {
            it.status.pending.looks == 0 && it.trouble.as_deref() == Some("nobody is there")
        };
        let report = running.wait_for("looked through", looked).await;
        assert_eq!(report.status.pending.uploads, uploads, "after a start in {boot}");
        running.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_watcher_the_workspace_is_looked_through_until_there_is_one() {
    let this = "without_a_watcher_the_workspace_is_looked_through_until_there_is_one";
    if !limits::lowered_for(this, WATCHERS, 0) {
        return;
    }
    let room = Room::new(&[("f", "x"), ("g", "x")]);
    let tree = tree(&[("f", At::File("x")), ("g", At::File("x"))]);
    let service = Service::start(tree, |_| None).await;
    let running = room.start(Some(&service), "");
    let synced = running.wait_for("synced", |it| it.status.progress.synced == 2).await;
    assert!(synced.trouble.is_some_and(|trouble| trouble.contains("no more watches")));
    room.write("f", "edited");
    let seen = running.wait_for_uploads(1).await;
    assert!(seen.trouble.is_some(), "one look is not the end of the trouble");
    limits::set(WATCHERS, 16);
    running.wait_for("watched", |it| it.trouble.is_none()).await;
    room.write("g", "edited");
    running.wait_for_uploads(2).await;
    running.end().await;
}
