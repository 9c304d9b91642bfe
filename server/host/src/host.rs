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
    // What a link leads to is not what was made here.
    if ["staging", "cookies"].iter().any(|name| own.join(name).is_symlink()) {
        return Ok(false);
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
        let mut file = platform::open_lock(path).map_err(at(path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let read = (&mut file).take(32).read_to_string(&mut text);
                let pid = read.ok().and_then(|_| text.trim().parse().ok());
                return Err(HostError::Running { pid });
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

/// Takes the lock of an attachment. One that is about to end is waited for; one
/// that goes on is asked to end if its place is to be taken over.
async fn lock(
    directory: &AttachmentDir,
    take_over: bool,
    patience: Duration,
) -> Result<Lock, HostError> {
    let path = directory.lock();
    let deadline = Instant::now() + patience;
    let mut asked = false;
    loop {
        let taken = Lock::take(&path);
        if !matches!(taken, Err(HostError::Running { .. })) || Instant::now() > deadline {
            return taken;
        }
        match Control::connect(directory).await {
            Ok(mut other) if take_over && !asked => {
                let left = deadline.saturating_duration_since(Instant::now());
                match tokio::time::timeout(left, other.ask(&Request::Stop)).await {
                    // It may end before its answer is written.
                    Ok(Ok(_) | Err(ControlError::Broken(_))) => asked = true,
                    Ok(Err(error)) => return Err(HostError::NotTakenOver(error.to_string())),
                    // It takes connections, or the system does for it, and is stuck.
                    Err(_) => return Err(HostError::NotTakenOver("it does not answer".into())),
                }
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
    // First, so that nothing is made for what is not attached.
    directory.load()?;
    let _lock = lock(directory, take_over, TAKE_OVER).await?;
    // While the other host ended, it may have been attached anew, or detached.
    let attachment = directory.load()?;
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
            boot: platform::boot_id(),
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use s0_replica::shell::store::SqliteStore;
    use s0_replica::state::Store as _;

    use super::*;
    use crate::protocol::Answer;
    use crate::state::{InitFrom, PauseOn, ServiceAddress, StateDir};

    struct Room {
        dir: tempfile::TempDir,
        directory: AttachmentDir,
    }

    impl Room {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let directory = StateDir::new(dir.path().join("state")).attachment("r");
            let room = Self { dir, directory };
            std::fs::create_dir_all(room.root("one")).unwrap();
            prepare(&room.root("one")).unwrap();
            room.directory.save(&room.attachment("one")).unwrap();
            room
        }

        fn root(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        fn attachment(&self, root: &str) -> Attachment {
            Attachment {
                replica_id: "r".into(),
                volume_id: "v".into(),
                root: self.root(root),
                // Nobody is there.
                service: ServiceAddress::Local(self.root("no-service")),
                sandbox_id: None,
                pause: PauseOn::default(),
                init: InitFrom::default(),
                ignore: Vec::new(),
            }
        }

        fn text(&self, name: &str) -> String {
            std::fs::read_to_string(self.root(name)).unwrap()
        }
    }

    async fn status(directory: &AttachmentDir) -> crate::protocol::HostStatus {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if let Ok(mut control) = Control::connect(directory).await
                && let Ok(Answer::Status(status)) = control.ask(&Request::Status).await
            {
                return *status;
            }
            assert!(Instant::now() < deadline, "the host does not answer");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[test]
    fn a_link_in_the_place_of_a_lock_is_not_followed() {
        let room = Room::new();
        std::fs::write(room.root("precious"), "mine").unwrap();
        symlink(room.root("precious"), room.root("lock")).unwrap();
        assert!(matches!(Lock::take(&room.root("lock")), Err(HostError::File { .. })));
        assert_eq!(room.text("precious"), "mine");
    }

    #[test]
    fn what_a_link_leads_to_is_not_cleared() {
        let room = Room::new();
        std::fs::create_dir(room.root("elsewhere")).unwrap();
        std::fs::write(room.root("elsewhere/precious"), "mine").unwrap();
        let cookies = room.root("one").join(STATE_DIR_NAME).join("cookies");
        std::fs::remove_dir(&cookies).unwrap();
        symlink(room.root("elsewhere"), &cookies).unwrap();
        assert!(!clear(&room.root("one")).unwrap());
        assert_eq!(room.text("elsewhere/precious"), "mine");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_take_over_hears_of_no_answer_and_of_another_attachment() {
        let room = Room::new();
        std::fs::create_dir(room.root("two")).unwrap();
        prepare(&room.root("two")).unwrap();
        let other = Lock::take(&room.directory.lock()).unwrap();
        let listener = platform::listen(&room.directory.socket()).unwrap();
        let directory = room.directory.clone();
        let host = tokio::spawn(async move { run(&directory, true, std::future::pending()).await });

        // The other host ends before it has answered, and not before the user has
        // attached another directory.
        let asked = tokio::time::timeout(Duration::from_secs(30), listener.accept()).await;
        let (mut guest, _) = asked.unwrap().unwrap();
        guest.readable().await.unwrap();
        room.directory.save(&room.attachment("two")).unwrap();
        let mut request = [0; 1024];
        assert!(tokio::io::AsyncReadExt::read(&mut guest, &mut request).await.unwrap() > 0);
        drop((guest, listener, other));

        assert_eq!(status(&room.directory).await.root, room.root("two"));
        let mut control = Control::connect(&room.directory).await.unwrap();
        let _ = control.ask(&Request::Stop).await;
        host.await.unwrap().unwrap();
        // That was an end in order.
        let mut store = SqliteStore::open(&room.directory.database()).unwrap();
        assert_eq!(store.load().unwrap().facts.boot, None);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_host_that_is_stuck_is_not_waited_for_without_end() {
        let room = Room::new();
        let _other = Lock::take(&room.directory.lock()).unwrap();
        let _stuck = platform::listen(&room.directory.socket()).unwrap();
        let taken = lock(&room.directory, true, Duration::from_millis(100));
        let taken = tokio::time::timeout(Duration::from_secs(20), taken).await.unwrap();
        assert!(matches!(taken, Err(HostError::NotTakenOver(_))));
    }
}
