//! The connection by which a service reaches the sandbox: what it is asked to mount over HTTP, it
//! asks here. The sandbox goes on as well without it.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use s0_api::sandboxes::{Ask, Asked, MountList, MountStatus, Replied, Reply, VolumeMounted, Why};
use s0_api::{Attendance, Client, Error};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::mounts::{Find, Mounts};
use crate::protocol::{AttendRequest, MountRequest, Mounted};

/// The pauses between attempts to connect, the first and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// How many answers may wait to be sent.
const AT_ONCE: usize = 16;
/// How long the service may take to end the token.
const PATIENCE: Duration = Duration::from_secs(2);
/// How large the cache of a mount becomes, in bytes.
const CACHE: u64 = 2 << 30;

/// Lets at most one service reach a sandbox.
pub(crate) struct Attending {
    sandbox: String,
    find: Arc<Find>,
    mounts: Arc<Mounts>,
    by: Mutex<Option<(Arc<AttendRequest>, tokio::task::AbortHandle)>>,
}

impl Attending {
    pub(crate) fn new(sandbox: String, find: Arc<Find>, mounts: Arc<Mounts>) -> Self {
        Self { sandbox, find, mounts, by: Mutex::default() }
    }

    /// Lets a service reach the sandbox, and no other any more. It is connected to meanwhile.
    pub(crate) fn begin(self: &Arc<Self>, asked: AttendRequest) {
        let asked = Arc::new(asked);
        let (this, by) = (self.clone(), asked.clone());
        let task = tokio::spawn(async move { this.attend(&by).await }).abort_handle();
        let mut now = self.by.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, before)) = now.replace((asked, task)) {
            before.abort();
        }
    }

    /// The sandbox has ended. The token does by itself, where the service cannot be asked.
    pub(crate) async fn end(&self) {
        let by = self.by.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some((asked, task)) = by else { return };
        task.abort();
        if let Ok(client) = self.client(&asked) {
            let ended = client.delete_attend_token(&self.sandbox, &asked.token.id);
            let _ = timeout(PATIENCE, ended).await;
        }
    }

    fn client(&self, asked: &AttendRequest) -> Result<Client, String> {
        let url = (self.find)(&asked.service)?;
        Client::new(&url, &asked.token.token).map_err(|error| error.to_string())
    }

    async fn attend(self: &Arc<Self>, asked: &AttendRequest) {
        let (first, longest) = PAUSES;
        let mut pause = first;
        loop {
            match self.client(asked) {
                Ok(client) => match client.attend(&self.sandbox).await {
                    Ok(connection) => {
                        pause = first;
                        tracing::info!("the service reaches the sandbox");
                        self.serve(asked, connection).await;
                    }
                    Err(error @ Error::Unauthorized(_)) => {
                        tracing::info!(%error, "the service does not reach the sandbox any more");
                        return;
                    }
                    Err(error) => tracing::debug!(%error, "the service is not reached"),
                },
                Err(why) => tracing::debug!(why, "the service is not found"),
            }
            sleep(pause).await;
            pause = longest.min(2 * pause);
        }
    }

    async fn serve(self: &Arc<Self>, asked: &AttendRequest, mut connection: Attendance) {
        let (reply, mut replies) = mpsc::channel(AT_ONCE);
        loop {
            let done = tokio::select! {
                next = connection.next() => match next {
                    Ok(Some(Asked { id, ask })) => {
                        let (this, service) = (self.clone(), asked.service.clone());
                        let reply = reply.clone();
                        // It goes on without the connection: a mount must not end halfway.
                        tokio::spawn(async move {
                            let replied = Replied { id, reply: this.answer(ask, service).await };
                            // The connection has ended; nobody waits.
                            let _ = reply.send(replied).await;
                        });
                        Ok(())
                    }
                    Ok(None) => break,
                    Err(error) => Err(error),
                },
                Some(replied) = replies.recv() => connection.reply(&replied).await,
            };
            if let Err(error) = done {
                tracing::info!(%error, "the connection to the service broke");
                break;
            }
        }
    }

    async fn answer(&self, ask: Ask, service: serde_json::Value) -> Reply {
        match ask {
            Ask::Mount { volume_id, mount_point, read_only, token } => {
                let path = Path::new(&mount_point).to_owned();
                let cache_bytes = CACHE;
                let asked =
                    MountRequest { volume_id, path, read_only, service, token, cache_bytes };
                match self.mounts.mount(asked).await {
                    Ok(mounted) => Reply::Mounted(as_documented(mounted)),
                    Err(refusal) => Reply::Refused(refusal),
                }
            }
            Ask::Unmount { volume_id, session } => {
                match self.mounts.unmount_session(&volume_id, &session).await {
                    Ok(()) => Reply::Unmounted,
                    Err(why) => Reply::Refused(Why::UnmountFailed.with(why)),
                }
            }
            Ask::Status => {
                let all = self.mounts.list().await.into_iter().map(status);
                Reply::Status(MountList { mounts: all.collect() })
            }
        }
    }
}

fn as_documented(mounted: Mounted) -> VolumeMounted {
    VolumeMounted {
        sandboxvolume_id: mounted.volume_id,
        mount_point: mounted.path.display().to_string(),
        mounted_at: mounted.since,
        mount_session_id: mounted.session,
    }
}

fn status(mounted: Mounted) -> MountStatus {
    let since = OffsetDateTime::parse(&mounted.since, &Rfc3339).ok();
    let for_ = since.map_or(0, |since| (OffsetDateTime::now_utc() - since).whole_seconds());
    MountStatus {
        mount: as_documented(mounted),
        state: "mounted".into(),
        mounted_duration_sec: u64::try_from(for_).unwrap_or(0),
    }
}
