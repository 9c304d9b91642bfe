//! The running service: its directory, its lock, its token, its socket.

use std::fs::{self, File, TryLockError};
use std::future::Future;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use s0_api::tokens::Role;
use s0_tree::Hash;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::caller::forget_unused_tokens;
use crate::disk::DiskContents;
use crate::holdings::Holdings;
use crate::journal::{Journal, StoreError, TokenRecord};
use crate::service::{Service, now};
use crate::sqlite::{OpenError, SqliteJournal};
use crate::volume::Retention;
use crate::{connections, http, platform};

/// How long requests in progress may take to end when the service shuts down.
const GRACE: Duration = Duration::from_secs(10);
/// The team and the user of the token that the service makes itself.
const LOCAL: &str = "local";
/// The name of the token's file in the data directory.
pub const TOKEN_FILE: &str = "token";
/// The name of the file that says where the service is.
pub const SERVICE_FILE: &str = "service.json";

/// How a service is to run.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where journals, contents and the token are.
    pub data_dir: PathBuf,
    /// The address to listen at. Port 0 takes any that is free.
    pub listen: SocketAddr,
    /// How many entries of a Volume are retained, and up to four times as many for
    /// live replicas that have not read them. When absent, 100 000 and all of the
    /// last seven days, and up to ten times as many for such replicas.
    pub retention_entries: Option<u64>,
    /// How many entries lie between checkpoints.
    pub checkpoint_every: u64,
    /// Listens at an address that other machines reach, without TLS. Tokens and
    /// files can then be read on the way.
    pub allow_insecure: bool,
    /// The data directory was brought back from a backup. Every Volume gets a
    /// new epoch, so that replicas compare instead of trusting their cursors.
    /// To be asked for once.
    pub restored_from_backup: bool,
}

impl Config {
    /// A service on this machine alone.
    #[must_use]
    pub fn new(data_dir: PathBuf, listen: SocketAddr) -> Self {
        Self {
            data_dir,
            listen,
            retention_entries: None,
            checkpoint_every: 4096,
            allow_insecure: false,
            restored_from_backup: false,
        }
    }

    pub(crate) fn retention(&self) -> Retention {
        let day = Duration::from_secs(24 * 60 * 60);
        Retention {
            entries: self.retention_entries.unwrap_or(100_000).max(1),
            age: self.retention_entries.is_none().then_some(day * 7),
            unread: if self.retention_entries.is_some() { 4 } else { 10 },
            checkpoint_every: self.checkpoint_every,
            pinned: day * 30,
        }
    }
}

/// Where a running service is: what its [`SERVICE_FILE`] says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceFile {
    /// Its address.
    pub url: String,
    /// Its process.
    pub pid: u32,
}

/// Why a service does not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Other machines could reach it, and read what passes.
    #[error(
        "{0} can be reached from other machines, and the service speaks no TLS: put a proxy with \
         TLS before it, or ask for this by name (--allow-insecure)"
    )]
    Insecure(SocketAddr),
    /// Another service runs there.
    #[error("another service{} uses {}", .pid.map_or(String::new(), |pid| format!(" (process {pid})")), .data_dir.display())]
    Running {
        /// The directory.
        data_dir: PathBuf,
        /// The other's process, when it says so.
        pid: Option<u32>,
    },
    /// The address cannot be had.
    #[error("cannot listen at {address}: {error}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// A file of the data directory.
    #[error("{}: {error}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The journals.
    #[error("{}: {error}", .path.display())]
    Open {
        /// Its file.
        path: PathBuf,
        /// Why.
        error: OpenError,
    },
    /// The journals.
    #[error(transparent)]
    Store(#[from] StoreError),
}

pub(crate) fn at(path: &Path) -> impl Fn(io::Error) -> ServeError + '_ {
    move |error| ServeError::File { path: path.into(), error }
}

pub(crate) fn opening(path: &Path) -> impl Fn(OpenError) -> ServeError + '_ {
    move |error| ServeError::Open { path: path.into(), error }
}

/// A service that runs. Dropping it stops it at once, as a crash would.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    url: String,
    task: Option<JoinHandle<io::Result<()>>>,
}

impl Running {
    /// The address that it listens at.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where clients on this machine find it.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Waits until it has shut down.
    ///
    /// # Errors
    /// The socket failed.
    pub async fn wait(mut self) -> io::Result<()> {
        match self.task.take() {
            Some(task) => task.await.unwrap_or_else(|error| Err(io::Error::other(error))),
            None => Ok(()),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// Starts a service. It shuts down when `shutdown` is ready: it takes no more
/// requests, answers those that it has, and ends its streams.
///
/// # Errors
/// It cannot start; see [`ServeError`].
pub async fn serve(
    config: Config,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<Running, ServeError> {
    if !config.listen.ip().is_loopback() && !config.allow_insecure {
        return Err(ServeError::Insecure(config.listen));
    }
    let data_dir = config.data_dir.clone();
    platform::make_private_directory(&data_dir).map_err(at(&data_dir))?;
    let lock = lock(&data_dir)?;
    // What one that was killed has left says where anybody may listen now.
    let _ = fs::remove_file(data_dir.join(SERVICE_FILE));
    let token = token(&data_dir)?;
    let path = data_dir.join("journal.db");
    let journal = SqliteJournal::open(&path).map_err(opening(&path))?;
    let journal = Arc::new(journal);
    let contents = data_dir.join("contents");
    let contents = Arc::new(DiskContents::open(&contents).map_err(at(&contents))?);
    if config.restored_from_backup {
        journal.renew_epochs(&uuid::Uuid::new_v4().to_string()).await?;
        info!("every Volume has a new epoch");
    }
    // The file is the truth: what was in it before opens nothing any more.
    let local = local_token(&token);
    for old in journal.tokens(None).await?.into_iter().filter(|token| token.platform) {
        // What was made with it would go with it.
        if old.hash != local.hash {
            journal.delete_token(old.hash).await?;
        }
    }
    journal.put_token(local).await?;
    let holdings = Holdings::new(journal.clone(), contents);
    let (close, closing) = watch::channel(false);
    let service = Arc::new(Service::new(journal, holdings, config.retention(), closing));
    service.keep_limited_tokens().await?;

    let listen = |error| ServeError::Listen { address: config.listen, error };
    let listener = TcpListener::bind(config.listen).await.map_err(listen)?;
    let address = listener.local_addr().map_err(listen)?;
    let url = url(address);
    announce(&data_dir, &url)?;
    info!(url, data_dir = %data_dir.display(), "the service listens");

    let mut stopped = close.subscribe();
    let stop = async move {
        shutdown.await;
        close.send_replace(true);
    };
    tokio::spawn(forget_unused_tokens(service.clone()));
    let server = connections::serve(listener, http::routes(service), stop);
    let task = tokio::spawn(async move {
        let late = async {
            // The sender lives in the server; when it is dropped, so is this.
            while !*stopped.borrow_and_update() {
                if stopped.changed().await.is_err() {
                    break;
                }
            }
            tokio::time::sleep(GRACE).await;
        };
        let ended = tokio::select! {
            ended = server => ended,
            () = late => Ok(()),
        };
        if let Err(error) = fs::remove_file(data_dir.join(SERVICE_FILE)) {
            warn!(%error, "the service's file stays");
        }
        drop(lock);
        ended
    });
    Ok(Running { address, url, task: Some(task) })
}

/// The address for clients on this machine.
fn url(address: SocketAddr) -> String {
    let mut address = address;
    if address.ip().is_unspecified() {
        match address {
            SocketAddr::V4(_) => address.set_ip([127, 0, 0, 1].into()),
            SocketAddr::V6(_) => address.set_ip(std::net::Ipv6Addr::LOCALHOST.into()),
        }
    }
    format!("http://{address}")
}

/// Takes the directory for this process. The lock goes with the process, however
/// it ends.
pub(crate) fn lock(data_dir: &Path) -> Result<File, ServeError> {
    let path = data_dir.join("lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(at(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let said = fs::read(data_dir.join(SERVICE_FILE)).unwrap_or_default();
            let pid = serde_json::from_slice::<ServiceFile>(&said).ok().map(|file| file.pid);
            Err(ServeError::Running { data_dir: data_dir.into(), pid })
        }
        Err(TryLockError::Error(error)) => Err(at(&path)(error)),
    }
}

/// A new random token, of the documented look.
pub(crate) fn new_token() -> String {
    let random = || uuid::Uuid::new_v4().simple();
    format!("s0_{LOCAL}_{}{}", random(), random())
}

/// The token of this machine's user, made at the first start.
fn token(data_dir: &Path) -> Result<String, ServeError> {
    let path = data_dir.join(TOKEN_FILE);
    match File::open(&path) {
        Ok(file) => {
            if platform::make_private(&path).map_err(at(&path))? {
                warn!(path = %path.display(), "others could read the token; remove it for a new one");
            }
            let mut token = String::new();
            file.take(4096).read_to_string(&mut token).map_err(at(&path))?;
            let token = token.trim();
            if token.is_empty() {
                let why = "the file is empty; remove it, and a new token is made";
                return Err(at(&path)(io::Error::new(io::ErrorKind::InvalidData, why)));
            }
            Ok(token.into())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let token = new_token();
            replace(&path, format!("{token}\n").as_bytes())?;
            Ok(token)
        }
        Err(error) => Err(at(&path)(error)),
    }
}

pub(crate) fn local_token(token: &str) -> TokenRecord {
    let time = now();
    TokenRecord {
        hash: Hash::of(token.as_bytes()),
        id: LOCAL.into(),
        team: LOCAL.into(),
        user: LOCAL.into(),
        name: "the token in the service's directory".into(),
        platform: true,
        roles: vec![Role::Admin],
        active: true,
        expires: None,
        created: time,
        updated: time,
        limit: None,
    }
}

fn announce(data_dir: &Path, url: &str) -> Result<(), ServeError> {
    let file = ServiceFile { url: url.into(), pid: std::process::id() };
    let path = data_dir.join(SERVICE_FILE);
    let json = serde_json::to_vec(&file).map_err(|error| at(&path)(io::Error::other(error)))?;
    replace(&path, &json)
}

/// Writes a private file as a whole or not at all.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), ServeError> {
    let staged = path.with_extension("new");
    let write = || {
        match fs::remove_file(&staged) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = platform::create_private(&staged)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&staged, path)?;
        path.parent().map_or(Ok(()), platform::sync_directory)
    };
    write().map_err(at(path))
}
