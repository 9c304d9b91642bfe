//! A warden: the process outside that keeps one sandbox.
//!
//! What it must hold, it has as its standard streams from who started it: on input the leash
//! of that one, if the sandbox shall end with it; on output the sandbox's lock; on error the log.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::process::Child;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::unix::pipe::Receiver;
use tokio::process::ChildStdin;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::attend::Attending;
use crate::bwrap::{self, Begun};
use crate::inside;
use crate::mounts::{Find, Mounts};
use crate::platform::{self, Held, Listener, Process, Stream};
use crate::protocol::{Answer, Request, Status};
use crate::state::{Record, SandboxDir, StateError};

/// How long the processes of a sandbox have when they were asked to end.
const ASKED: Duration = Duration::from_secs(5);
/// How long the system may take to end those that were not asked. One that is outside and
/// stands still can keep a dead one from being buried.
const KILLED: Duration = Duration::from_secs(5);
/// The longest request.
const MAX_REQUEST: u64 = 1 << 20;

/// Why a warden does not run.
#[derive(Debug, thiserror::Error)]
pub enum WardenError {
    /// The state.
    #[error(transparent)]
    State(#[from] StateError),
    /// There is no such sandbox.
    #[error("there is no sandbox {}; `s0 sandbox create` makes one", .0.display())]
    Unknown(PathBuf),
    /// Bubblewrap, or the system.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What all conversations share.
struct Warden {
    record: Record,
    own: Process,
    init: Process,
    mounts: Arc<Mounts>,
    attending: Arc<Attending>,
    /// Takes whether to use force.
    stop: mpsc::UnboundedSender<bool>,
}

/// Keeps a sandbox until it ends: by itself, by a guest's word, by `end`, or, if it is leashed,
/// with who started this process. `find` finds the services of Volumes. To be called in the main thread, which starts bubblewrap:
/// when that thread ends, the sandbox does.
///
/// # Errors
/// It cannot be started, or its state cannot be removed.
pub async fn run(
    directory: &SandboxDir,
    is_leashed: bool,
    end: impl Future<Output = ()>,
    find: Arc<Find>,
) -> Result<(), WardenError> {
    let record = directory.load()?;
    let mut record = record.ok_or_else(|| WardenError::Unknown(directory.path().into()))?;
    let program = bwrap::find().ok_or_else(|| io::Error::other("bubblewrap is missing"))?;
    let own = Process::own()?;
    record.warden = Some(own);
    // Whoever loses patience with what comes next knows whom to end.
    directory.save(&record)?;
    let Begun { bwrap, leash, init } = bwrap::begin(&program, &record)?;
    record.init = Some(init.process);
    directory.save(&record)?;
    let listener = platform::listen(&directory.socket())?;
    let (stop, stops) = mpsc::unbounded_channel();
    tracing::info!(init = init.process.pid, "the sandbox runs");
    let itself = std::env::current_exe()?;
    let mounts = Arc::new(Mounts::new(record.id.clone(), init.process, itself, find.clone()));
    let attending = Arc::new(Attending::new(record.id.clone(), find, mounts.clone()));
    let (init_process, ending) = (init.process, attending.clone());
    let warden =
        Warden { own, init: init_process, mounts: mounts.clone(), attending, record, stop };
    let warden = Arc::new(warden);
    let ended = init.end()?;
    let mut keeping = Keeping { init, ended, leash: ChildStdin::from_std(leash)?, bwrap };
    let kept = async {
        keeping.keep(stops, is_leashed, end).await;
        keeping.bury();
        tokio::join!(mounts.end(), ending.end());
        directory.remove()
    };
    // The conversations go on while the sandbox ends; guests wait for their end.
    tokio::select! {
        removed = kept => Ok(removed?),
        () = serve(warden, listener) => Ok(()),
    }
}

struct Keeping {
    init: Held,
    /// Readable when init has ended.
    ended: AsyncFd<File>,
    leash: ChildStdin,
    bwrap: Child,
}

impl Keeping {
    /// Returns when the sandbox has ended, or nothing more can be done.
    async fn keep(
        &mut self,
        mut stops: mpsc::UnboundedReceiver<bool>,
        is_leashed: bool,
        end: impl Future<Output = ()>,
    ) {
        tokio::select! {
            _ = self.ended.readable() => return tracing::info!("the sandbox ended by itself"),
            force = stops.recv() => {
                if force == Some(false) && self.ask(&mut stops).await {
                    return;
                }
            }
            () = end => {
                if self.ask(&mut stops).await {
                    return;
                }
            }
            () = unleashed(is_leashed) => tracing::info!("who started the sandbox has ended"),
        }
        self.init.kill();
        if tokio::time::timeout(KILLED, self.ended.readable()).await.is_err() {
            tracing::warn!("the sandbox is dead, and somebody outside keeps it from being buried");
        }
    }

    /// Asks all processes to end; says whether they did. Somebody may lose patience.
    async fn ask(&mut self, stops: &mut mpsc::UnboundedReceiver<bool>) -> bool {
        if self.leash.write_all(inside::END).await.is_err() {
            return false;
        }
        let deadline = tokio::time::sleep(ASKED);
        tokio::pin!(deadline);
        loop {
            tokio::select! {
                _ = self.ended.readable() => return true,
                () = &mut deadline => return false,
                force = stops.recv() => if force == Some(true) { return false },
            }
        }
    }

    /// Bubblewrap waits for init, for which nobody waits here any more.
    fn bury(&mut self) {
        let buried = self.bwrap.kill().and_then(|()| self.bwrap.wait());
        if let Err(error) = buried {
            tracing::warn!(%error, "bubblewrap could not be ended");
        }
    }
}

/// Returns when who started this process has ended, if that matters.
async fn unleashed(is_leashed: bool) {
    if is_leashed {
        let fd = io::stdin().as_fd().try_clone_to_owned();
        if let Ok(mut end) = fd.and_then(Receiver::from_owned_fd) {
            while matches!(end.read(&mut [0]).await, Ok(1..)) {}
            return;
        }
    }
    std::future::pending().await
}

/// Answers guests, each in a task of its own.
async fn serve(warden: Arc<Warden>, listener: Listener) {
    // Dropping them with this ends all conversations.
    let mut guests = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let warden = warden.clone();
                    guests.spawn(async move {
                        if let Err(error) = talk(&warden, stream).await {
                            tracing::debug!(%error, "a guest is gone");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a guest could not be let in");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_) = guests.join_next(), if !guests.is_empty() => {}
        }
    }
}

async fn talk(warden: &Warden, stream: Stream) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        if (&mut stream).take(MAX_REQUEST).read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
        let answer = match serde_json::from_slice(&line) {
            Ok(request) => warden.answer(request).await,
            Err(error) => {
                Answer::Error { message: format!("the warden does not understand this: {error}") }
            }
        };
        let mut line = serde_json::to_vec(&answer)?;
        line.push(b'\n');
        stream.get_mut().write_all(&line).await?;
    }
}

impl Warden {
    async fn answer(&self, request: Request) -> Answer {
        let done = |done: Result<(), String>| match done {
            Ok(()) => Answer::Ok,
            Err(message) => Answer::Error { message },
        };
        match request {
            Request::Ping => Answer::Ok,
            Request::Status => Answer::Status(Status {
                id: self.record.id.clone(),
                warden: self.own,
                init: self.init,
                mounts: self.mounts.list().await,
            }),
            Request::Mount(asked) => {
                let mounted = self.mounts.mount(asked).await;
                done(mounted.map(drop).map_err(|refusal| refusal.message))
            }
            Request::Attend(asked) => {
                self.attending.begin(asked);
                Answer::Ok
            }
            Request::Unmount { path } => done(self.mounts.unmount(&path).await),
            Request::Stop { force } => {
                // Nobody takes it when the sandbox ends already, which is what is wanted.
                let _ = self.stop.send(force);
                Answer::Ok
            }
        }
    }
}
