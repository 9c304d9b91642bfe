//! The Volumes that are mounted in a sandbox. The warden serves them from outside.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use s0_api::Client;
use s0_api::sandboxes::{Refusal, Why};
use s0_mount::Reach;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::mount::{self, FuseMount};
use crate::platform::Process;
use crate::protocol::{MountRequest, Mounted};
use crate::state::now;

/// What the kernel does itself: it looks at permissions, and lets every user of the sandbox in.
const OPTIONS: &str = "default_permissions,allow_other,max_read=1048576";

/// How long one mount may wait for another one's beginning.
const TURN: Duration = Duration::from_secs(10);
/// How long the service may take to end a token.
const PATIENCE: Duration = Duration::from_secs(2);

/// All mounts of one sandbox.
pub(crate) struct Mounts {
    sandbox: String,
    init: Process,
    program: PathBuf,
    find: Arc<Find>,
    running: Mutex<Vec<Running>>,
}

/// Finds the address of a service by what a request says of it.
pub type Find = dyn Fn(&serde_json::Value) -> Result<String, String> + Send + Sync;

/// The service as a mount reaches it, with a token for nothing else.
#[derive(Clone)]
struct Access {
    service: Reach,
    volume: String,
    token: String,
}

impl Access {
    fn new(find: Arc<Find>, asked: &MountRequest) -> Result<Self, String> {
        let (said, token) = (asked.service.clone(), asked.token.token.clone());
        let find = move || {
            let url = find(&said)?;
            Client::new(&url, &token).map_err(|error| error.to_string())
        };
        let (volume, token) = (asked.volume_id.clone(), asked.token.id.clone());
        Ok(Self { service: Reach::new(find)?, volume, token })
    }

    /// Ends the token. Where the service cannot be asked, the token ends by itself before long.
    async fn end(self) {
        let client = self.service.client();
        let ended = timeout(PATIENCE, client.delete_mount_token(&self.volume, &self.token)).await;
        let why = match ended {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(late) => late.to_string(),
        };
        tracing::info!(why, "the token of a mount that has ended is not ended yet");
    }
}

struct Running {
    what: Mounted,
    /// Ends it when it is set.
    end: watch::Sender<bool>,
    serving: JoinHandle<()>,
}

impl Running {
    /// Returns when all that was written is committed.
    async fn end(self) -> Result<(), String> {
        self.end.send_replace(true);
        self.serving.await.map_err(|error| error.to_string())
    }
}

impl Mounts {
    pub(crate) fn new(sandbox: String, init: Process, program: PathBuf, find: Arc<Find>) -> Self {
        Self { sandbox, init, program, find, running: Mutex::default() }
    }

    /// What is mounted.
    pub(crate) async fn list(&self) -> Vec<Mounted> {
        let mut running = self.running.lock().await;
        running.retain(|mount| !mount.serving.is_finished());
        running.iter().map(|mount| mount.what.clone()).collect()
    }

    /// Mounts a Volume.
    ///
    /// # Errors
    /// Why not, in words.
    pub(crate) async fn mount(self: &Arc<Self>, asked: MountRequest) -> Result<Mounted, Refusal> {
        let failed = |why: String| Why::MountFailed.with(why);
        let access = Access::new(self.find.clone(), &asked).map_err(failed)?;
        let mounted = self.begin(asked, access.clone()).await;
        if mounted.is_err() {
            access.end().await;
        }
        mounted
    }

    async fn begin(
        self: &Arc<Self>,
        asked: MountRequest,
        access: Access,
    ) -> Result<Mounted, Refusal> {
        let mut running = timeout(TURN, self.running.lock()).await.map_err(|_| {
            Why::MountInProgress.with("another Volume is being mounted just now; try again")
        })?;
        running.retain(|mount| !mount.serving.is_finished());
        let path = crate::layout::mount_point(&asked.path);
        let path = path.map_err(|error| Why::InvalidMountPoint.with(error))?;
        if let Some(other) = running.iter().find(|mount| mount.what.path == path) {
            let known = &other.what.volume_id;
            let same = *known == asked.volume_id;
            let why = if same { Why::AlreadyMounted } else { Why::MountPointInUse };
            return Err(why.with(format!("{known} is mounted at {} already", path.display())));
        }
        let known = access.service.client().volume(&asked.volume_id).await;
        known.map_err(|error| Why::MountFailed.with(error))?;
        let (program, init, at) = (self.program.clone(), self.init, path.clone());
        let options = if asked.read_only { format!("{OPTIONS},ro") } else { OPTIONS.to_owned() };
        let mounting =
            tokio::task::spawn_blocking(move || mount::mount(&program, init, &at, &options));
        let FuseMount { fuse, .. } = mounting
            .await
            .map_err(|error| Why::MountFailed.with(error))?
            .map_err(|error| Why::MountFailed.with(error))?;
        let performer = mount::performer(&self.program, self.init, &path);
        let options = s0_mount::Options {
            service: access.service.clone(),
            volume: asked.volume_id.clone(),
            sandbox: Some(self.sandbox.clone()),
            mount_point: path.display().to_string(),
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            read_only: asked.read_only,
            performer: performer
                .inspect_err(|error| tracing::warn!(%error, "watchers in it will hear nothing"))
                .ok(),
            cache_directory: std::env::temp_dir(),
            cache_bytes: asked.cache_bytes,
        };
        let mut mounted = match s0_mount::mount(options, fuse).await {
            Ok(mounted) => mounted,
            Err(error) => {
                self.take_away(path).await;
                return Err(Why::MountFailed.with(error));
            }
        };
        let session = mounted.session().to_owned();
        let (end, mut ends) = watch::channel(false);
        let (this, at) = (self.clone(), path.clone());
        let serving = tokio::spawn(async move {
            let lost = tokio::select! {
                lost = mounted.ended() => lost,
                _ = ends.wait_for(|end| *end) => None,
            };
            if let Some(why) = lost {
                tracing::warn!(why, path = %at.display(), "a mount has lost its Volume");
            }
            this.take_away(at).await;
            let left = mounted.end().await;
            if left > 0 {
                tracing::error!(left, "files of a mount could not be committed");
            }
            access.end().await;
        });
        let since = now();
        let what = Mounted { volume_id: asked.volume_id, path, session, since };
        tracing::info!(volume = what.volume_id, path = %what.path.display(), "mounted");
        running.push(Running { what: what.clone(), end, serving });
        Ok(what)
    }

    /// Takes a mount away, and returns when all that was written is committed.
    ///
    /// # Errors
    /// Nothing is mounted there.
    pub(crate) async fn unmount(&self, path: &std::path::Path) -> Result<(), String> {
        let mut running = self.running.lock().await;
        let at = running.iter().position(|mount| mount.what.path == path);
        let at = at.ok_or_else(|| {
            format!(
                "nothing is mounted at {}; `s0 sandbox volume status` shows what is",
                path.display()
            )
        })?;
        let mount = running.swap_remove(at);
        drop(running);
        mount.end().await
    }

    /// The same by the name of a mount, if it is there.
    ///
    /// # Errors
    /// It did not end in order.
    pub(crate) async fn unmount_session(&self, volume: &str, session: &str) -> Result<(), String> {
        let mut running = self.running.lock().await;
        let is_meant =
            |mount: &Running| mount.what.session == session && mount.what.volume_id == volume;
        let Some(at) = running.iter().position(is_meant) else { return Ok(()) };
        let mount = running.swap_remove(at);
        drop(running);
        mount.end().await
    }

    /// The sandbox has ended: commits what its processes left.
    pub(crate) async fn end(&self) {
        let running = std::mem::take(&mut *self.running.lock().await);
        for mount in &running {
            mount.end.send_replace(true);
        }
        for mount in running {
            if let Err(error) = mount.end().await {
                tracing::error!(%error, "a mount did not end in order");
            }
        }
    }

    async fn take_away(&self, path: PathBuf) {
        let (program, init) = (self.program.clone(), self.init);
        let done = tokio::task::spawn_blocking(move || mount::unmount(&program, init, &path)).await;
        if let Ok(Err(error)) = done {
            // The sandbox has ended, or somebody unmounted it inside.
            tracing::debug!(%error, "a mount is gone already");
        }
    }
}
