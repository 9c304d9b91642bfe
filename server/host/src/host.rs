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
use s0_replica::shell::guarded::{GUARDED, Guarded};
use s0_replica::shell::own::OwnDirectory;
use s0_replica::shell::run::{self, Handle, Setup};
use tokio::sync::watch;

use crate::client::{Control, ControlError};
use crate::control;
use crate::holds::Unsaved;
use crate::platform;
use crate::protocol::Request;
use crate::review::{self, Reviewer};
use crate::state::{Attachment, AttachmentDir, StateError};

/// How long another host may take to end when it was asked to.
const TAKE_OVER: Duration = Duration::from_secs(30);

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
    #[error("the host that runs does not end: {0}")]
    NotTakenOver(String),
    /// One with another state directory does.
    #[error(
        "another host{} syncs {} already, for another state directory (--state-dir); attach it \
         in one of them only",
        .pid.map_or(String::new(), |pid| format!(" (process {pid})")),
        .root.display()
    )]
    RootTaken {
        /// The workspace.
        root: PathBuf,
        /// The other's process, when it says so.
        pid: Option<u32>,
    },
    /// It was detached, or never attached.
    #[error("this workspace is not attached any more; `s0 sync attach` attaches it")]
    NotAttached,
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

/// The lock in the root's own directory, for hosts with other state directories.
const ROOT_LOCK: &str = "lock";

/// A file whose lock this process holds.
struct Lock {
    _file: File,
}

impl Lock {
    fn take(mut file: File, path: &Path) -> Result<Self, HostError> {
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

    /// The lock of an attachment.
    fn of(directory: &AttachmentDir) -> Result<Self, HostError> {
        let path = directory.lock();
        match platform::private_lock(&path) {
            Ok(file) => Self::take(file, &path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(HostError::NotAttached),
            Err(error) => Err(at(&path)(error)),
        }
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

/// A root that no host syncs as long as this lives, whatever its state directory.
pub struct HeldRoot {
    path: PathBuf,
    own: OwnDirectory,
    lock: Lock,
    /// Nobody had prepared it before.
    pub is_new: bool,
}

impl HeldRoot {
    /// Takes a root. Its own directory is made if it is missing.
    ///
    /// # Errors
    /// A host syncs it, or it cannot be used.
    pub fn take(root: &Path) -> Result<Self, HostError> {
        let (own, is_new) = OwnDirectory::make(root).map_err(of_root(root))?;
        let lock = lock_root(root, &own)?;
        Ok(Self { path: root.into(), own, lock, is_new })
    }

    /// Takes a root that was prepared before; `None` for another one.
    ///
    /// # Errors
    /// A host syncs it, or it cannot be used.
    pub fn find(root: &Path) -> Result<Option<Self>, HostError> {
        match OwnDirectory::find(root) {
            Ok(Some(own)) => {
                let lock = lock_root(root, &own)?;
                Ok(Some(Self { path: root.into(), own, lock, is_new: false }))
            }
            Ok(None) | Err(DiskError::RootGone) => Ok(None),
            Err(error) => Err(of_root(root)(error)),
        }
    }

    /// Makes the directory ready to be a workspace: its marker and staging area.
    ///
    /// # Errors
    /// The directory cannot be used.
    pub fn prepare(&self) -> Result<(), HostError> {
        let prepared = RootDisk::open(&self.path, Marker::Create).map(drop);
        prepared
            .map_err(|error| match error {
                DiskError::NotADirectory => DiskError::Other(format!(
                    "a link or a file in {STATE_DIR_NAME} is where s0 needs a directory; remove \
                 {STATE_DIR_NAME}"
                )),
                other => other,
            })
            .map_err(of_root(&self.path))
    }

    /// Takes away what was made in it, if nothing of the user's is there. Says
    /// whether it did.
    ///
    /// # Errors
    /// Something cannot be removed.
    pub fn clear(self) -> Result<bool, HostError> {
        let cleared = self.own.clear(&[ROOT_LOCK]).map_err(of_root(&self.path));
        drop(self.lock);
        cleared
    }
}

fn of_root(root: &Path) -> impl Fn(DiskError) -> HostError + '_ {
    move |error| HostError::Root { root: root.into(), error }
}

fn lock_root(root: &Path, own: &OwnDirectory) -> Result<Lock, HostError> {
    let path = root.join(STATE_DIR_NAME).join(ROOT_LOCK);
    let file = own.file(ROOT_LOCK).map_err(|error| at(&path)(io::Error::other(error)))?;
    Lock::take(file, &path).map_err(|error| match error {
        HostError::Running { pid } => HostError::RootTaken { root: root.into(), pid },
        other => other,
    })
}

/// An attachment that no host runs as long as this lives.
pub struct Claim {
    _lock: Lock,
}

/// Ends the host of an attachment, if there is one, and keeps others from starting.
///
/// # Errors
/// It does not end, or the attachment is gone.
pub async fn claim(directory: &AttachmentDir) -> Result<Claim, HostError> {
    lock(directory, true).await.map(|lock| Claim { _lock: lock })
}

/// Takes the lock of an attachment. One that is about to end is waited for; one
/// that goes on is asked to end if its place is to be taken over.
async fn lock(directory: &AttachmentDir, take_over: bool) -> Result<Lock, HostError> {
    let deadline = Instant::now() + TAKE_OVER;
    let mut asked = false;
    loop {
        let taken = Lock::of(directory);
        if !matches!(taken, Err(HostError::Running { .. })) {
            return taken;
        }
        if Instant::now() > deadline {
            let why = "it goes on; its log (`s0 sync logs`) may say why";
            return if asked { Err(HostError::NotTakenOver(why.into())) } else { taken };
        }
        match Control::connect(directory).await {
            // Each one that answers: when one ends, another that waited may begin.
            Ok(mut other) if take_over => match other.ask(&Request::Stop).await {
                // One that ends at once hangs up.
                Ok(_) | Err(ControlError::Broken(_)) => asked = true,
                Err(error) => return Err(HostError::NotTakenOver(error.to_string())),
            },
            Ok(_) => return taken,
            Err(ControlError::NotRunning | ControlError::Broken(_)) => {}
            Err(error) => return Err(HostError::NotTakenOver(error.to_string())),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The guarded paths of an attachment. A sandbox's own has none.
fn guarded(attachment: &Attachment) -> Guarded {
    let guarded = match &attachment.guarded {
        _ if attachment.sandbox_id.is_some() => return Guarded::default(),
        Some(patterns) => Guarded::new(patterns),
        None => Guarded::new(GUARDED),
    };
    guarded.unwrap_or_else(|error| {
        tracing::warn!(%error, "the guarded paths cannot be used; the usual ones are");
        Guarded::new(GUARDED).unwrap_or_default()
    })
}

/// What guests are answered from.
pub(crate) struct Host {
    pub(crate) attachment: Attachment,
    pub(crate) replica: Handle,
    pub(crate) unsaved: Unsaved,
    pub(crate) review: Reviewer,
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
    let _lock = lock(directory, take_over).await?;
    // Only now: whoever held the lock may have detached the workspace.
    let attachment = directory.load_if_attached()?.ok_or(HostError::NotAttached)?;
    let _root = match HeldRoot::find(&attachment.root) {
        // Without the directory the replica halts, and says why.
        Err(HostError::Root { error: DiskError::Denied, .. }) => None,
        found => found?,
    };
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
            review: attachment.sandbox_id.is_none(),
            ..Config::default()
        },
        ignore: attachment.ignore.clone(),
        guarded: guarded(&attachment),
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
    let host = Arc::new(Host {
        attachment,
        replica: replica.clone(),
        unsaved: Unsaved::default(),
        review: Reviewer::open(directory.review()),
        stop: stop_asked,
    });
    let reviewing = tokio::spawn(review::run(host.clone()));
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
    reviewing.abort();
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
            room.prepare("one");
            room.directory.save(&room.attachment("one")).unwrap();
            room
        }

        fn root(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        fn prepare(&self, root: &str) {
            HeldRoot::take(&self.root(root)).unwrap().prepare().unwrap();
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
                guarded: None,
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
        assert!(platform::private_lock(&room.root("lock")).is_err());
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
        assert!(!HeldRoot::take(&room.root("one")).unwrap().clear().unwrap());
        assert_eq!(room.text("elsewhere/precious"), "mine");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_take_over_hears_of_no_answer_and_of_another_attachment() {
        let room = Room::new();
        std::fs::create_dir(room.root("two")).unwrap();
        room.prepare("two");
        let other = Lock::of(&room.directory).unwrap();
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
        let _other = Lock::of(&room.directory).unwrap();
        let _stuck = platform::listen(&room.directory.socket()).unwrap();
        let taken = lock(&room.directory, true);
        let taken = tokio::time::timeout(Duration::from_secs(20), taken).await.unwrap();
        assert!(matches!(taken, Err(HostError::NotTakenOver(_))));
    }
}
