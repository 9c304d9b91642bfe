//! A host: holds the locks, runs the replica, answers guests.

use std::fs::{File, TryLockError};
use std::future::Future;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use s0_replica::disk::DiskError;
use s0_replica::engine::Config;
use s0_replica::shell::disk::{Marker, RootDisk, STATE_DIR_NAME};
use s0_replica::shell::run::{self, Handle, Setup};
use tokio::sync::watch;

use crate::client::{Control, ControlError};
use crate::control;
use crate::platform;
use crate::protocol::Request;
use crate::state::{Attachment, AttachmentDir, StateError};

/// How long another host may take to end when it was asked to.
const TAKE_OVER: Duration = Duration::from_secs(20);

/// Why a host does not run.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// Another one does.
    #[error(
        "another host{} runs this workspace already; `s0 sync stop` ends it",
        .pid.map_or(String::new(), |pid| format!(" (process {pid})"))
    )]
    Running {
        /// The other's process, when it says so.
        pid: Option<u32>,
    },
    /// Another one did not end.
    #[error("the other host was asked to end, and did not: {0}")]
    NotTakenOver(String),
    /// The state.
    #[error(transparent)]
    State(#[from] StateError),
    /// A file or the socket.
    #[error("{}: {error}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The workspace.
    #[error("{}: {error}", .root.display())]
    Root {
        /// It.
        root: PathBuf,
        /// Why.
        error: DiskError,
    },
}

fn at(path: &Path) -> impl Fn(io::Error) -> HostError + '_ {
    move |error| HostError::File { path: path.into(), error }
}

/// Makes a directory ready to be a workspace: its marker and staging area.
///
/// # Errors
/// The directory cannot be used.
pub fn prepare(root: &Path) -> Result<(), HostError> {
    RootDisk::open(root, Marker::Create)
        .map(drop)
        .map_err(|error| HostError::Root { root: root.into(), error })
}

/// Takes away what [`prepare`] made, if nothing of the user's is in it. Says
/// whether it did.
///
/// # Errors
/// Something cannot be removed.
pub fn clear(root: &Path) -> io::Result<bool> {
    let own = root.join(STATE_DIR_NAME);
    let empty = |name: &str| match std::fs::read_dir(own.join(name)) {
        Ok(mut entries) => entries.next().is_none(),
        Err(_) => true,
    };
    if !own.is_dir() || own.is_symlink() {
        return Ok(true);
    }
    if !empty("staging") {
        return Ok(false);
    }
    let gone = |done: io::Result<()>| match done {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    if let Ok(cookies) = std::fs::read_dir(own.join("cookies")) {
        for cookie in cookies.filter_map(Result::ok) {
            gone(std::fs::remove_file(cookie.path()))?;
        }
    }
    for name in ["staging", "cookies"] {
        gone(std::fs::remove_dir(own.join(name)))?;
    }
    for name in ["id", "clock", ".gitignore", ROOT_LOCK] {
        gone(std::fs::remove_file(own.join(name)))?;
    }
    // What nobody here made stays, and so does the directory then.
    Ok(std::fs::remove_dir(&own).is_ok())
}

/// The lock in the root's own directory, for hosts with other state directories.
const ROOT_LOCK: &str = "lock";

/// A file whose lock this process holds.
struct Lock {
    _file: File,
}

impl Lock {
    fn take(path: &Path) -> Result<Self, HostError> {
        let mut file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path)
            .map_err(at(path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(HostError::Running { pid: pid(&mut file) });
            }
            Err(TryLockError::Error(error)) => return Err(at(path)(error)),
        }
        let write = |file: &mut File| {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
        };
        write(&mut file).map_err(at(path))?;
        Ok(Self { _file: file })
    }
}

/// The process that a lock's file names.
fn pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// The process that holds the lock of an attachment, or held it last.
pub(crate) fn last_pid(directory: &AttachmentDir) -> Option<u32> {
    pid(&mut File::open(directory.lock()).ok()?)
}

/// Takes the lock of an attachment. One that is about to end is waited for; one
/// that goes on is asked to end if its place is to be taken over.
async fn lock(directory: &AttachmentDir, take_over: bool) -> Result<Lock, HostError> {
    let path = directory.lock();
    let deadline = Instant::now() + TAKE_OVER;
    let mut asked = false;
    loop {
        let taken = Lock::take(&path);
        if !matches!(taken, Err(HostError::Running { .. })) || Instant::now() > deadline {
            return taken;
        }
        match Control::connect(directory).await {
            Ok(mut other) if take_over && !asked => {
                if let Err(error) = other.ask(&Request::Stop).await {
                    return Err(HostError::NotTakenOver(error.to_string()));
                }
                asked = true;
            }
            Ok(_) if !asked => return taken,
            Ok(_) | Err(ControlError::NotRunning) => {}
            Err(error) => return Err(HostError::NotTakenOver(error.to_string())),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Whether no host runs an attachment, not even one that is about to end.
#[must_use]
pub fn has_ended(directory: &AttachmentDir) -> bool {
    match File::open(directory.lock()) {
        Ok(file) => !matches!(file.try_lock(), Err(TryLockError::WouldBlock)),
        Err(_) => true,
    }
}

/// What guests are answered from.
pub(crate) struct Host {
    pub(crate) attachment: Attachment,
    pub(crate) replica: Handle,
    /// Set when a guest asks for the end.
    pub(crate) stop: watch::Sender<bool>,
}

/// Runs a host until `stop` is ready, a guest asks for the end, or another host
/// takes over.
///
/// # Errors
/// It cannot run; see [`HostError`].
pub async fn run(
    directory: &AttachmentDir,
    take_over: bool,
    stop: impl Future<Output = ()> + Send,
) -> Result<(), HostError> {
    let attachment = directory.load()?;
    let _lock = lock(directory, take_over).await?;
    let own = attachment.root.join(STATE_DIR_NAME);
    // Without the directory the replica halts, and says why.
    let _root_lock = if own.is_dir() { Some(Lock::take(&own.join(ROOT_LOCK))?) } else { None };
    let socket = directory.socket();
    let listener = platform::listen(&socket).map_err(at(&socket))?;

    let service = attachment.service.clone();
    let setup = Setup {
        root: attachment.root.clone(),
        marker: Marker::Expect,
        database: directory.database(),
        config: Config {
            init: attachment.init.into(),
            pause: attachment.pause.into(),
            ..Config::default()
        },
        ignore: attachment.ignore.clone(),
        volume: attachment.volume_id.clone(),
        replica: attachment.replica_id.clone(),
        display_name: format!("{}:{}", platform::host_name(), attachment.root.display()),
        sandbox: attachment.sandbox_id.clone(),
        connect: Arc::new(move || service.client()),
    };
    tracing::info!(
        root = %attachment.root.display(),
        volume = attachment.volume_id,
        replica = attachment.replica_id,
        "the host starts"
    );
    let (replica, thread) =
        run::start(setup, &tokio::runtime::Handle::current()).map_err(at(directory.path()))?;
    let (stop_asked, mut asked) = watch::channel(false);
    let host = Arc::new(Host { attachment, replica: replica.clone(), stop: stop_asked });
    let serving = tokio::spawn(control::serve(host, listener));

    tokio::select! {
        () = stop => {}
        _ = asked.wait_for(|asked| *asked) => {}
    }
    // Whoever comes now finds no host, and waits for the lock.
    let _ = std::fs::remove_file(&socket);
    replica.stop();
    // The thread finishes its step, which may be writing to the disk.
    let joined = tokio::task::spawn_blocking(move || thread.join()).await;
    if !matches!(joined, Ok(Ok(()))) {
        tracing::error!("the replica's thread ended badly");
    }
    // The guest that asked hears the end as the end of its connection.
    serving.abort();
    tracing::info!("the host has ended");
    Ok(())
}
