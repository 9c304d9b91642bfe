//! The host's end of the control socket.

use std::sync::Arc;
use std::time::{Duration, Instant};

use s0_replica::engine::{ForgetError, Notice, Resume, Status};
use s0_replica::shell::run;
use s0_replica::state::ConflictStatus;
use s0_tree::TreePath;
use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::sync::broadcast::error::RecvError;

use crate::conflicts;
use crate::holds::{self, Guest};
use crate::host::Host;
use crate::platform::{Listener, Stream};
use crate::protocol::{Answer, Apart, HostStatus, News, Request};
use crate::review;

/// The longest request, in bytes: many thousand paths.
const MAX_REQUEST: u64 = 16 << 20;
/// Verifying waits this long for what is on its way.
const BEFORE_VERIFY: Duration = Duration::from_secs(30);

/// Answers guests, each in a task of its own.
pub(crate) async fn serve(host: Arc<Host>, listener: Listener) {
    // Dropping them with this ends all conversations.
    let mut guests = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let host = host.clone();
                    guests.spawn(async move {
                        if let Err(error) = talk(&host, stream).await {
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

async fn talk(host: &Host, stream: Stream) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let guest = Guest::new(host);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut stream).take(MAX_REQUEST).read_until(b'\n', &mut line).await?;
        if read == 0 {
            return Ok(());
        }
        let request: Request = match serde_json::from_slice(&line) {
            Ok(request) => request,
            Err(error) => {
                let message = format!("the host does not understand this: {error}");
                write(stream.get_mut(), &Answer::Error { message }).await?;
                // Whatever follows cannot be told from the rest of it.
                return Ok(());
            }
        };
        match request {
            Request::Subscribe => return feed(host, &mut stream).await,
            Request::Content { path, side } => match conflicts::content(host, path, side).await {
                Ok((size, mut bytes)) => {
                    write(stream.get_mut(), &Answer::Content { size }).await?;
                    let mut left = size;
                    while left > 0 {
                        // The guest notices when bytes are missing.
                        let Some(piece) = bytes.recv().await else { return Ok(()) };
                        let piece =
                            &piece[..piece.len().min(usize::try_from(left).unwrap_or(usize::MAX))];
                        stream.get_mut().write_all(piece).await?;
                        left -= piece.len() as u64;
                    }
                }
                Err(message) => write(stream.get_mut(), &Answer::Error { message }).await?,
            },
            Request::Unsaved { documents } => {
                let told = guest.unsaved(documents).await;
                let answer = told.map_or_else(|message| Answer::Error { message }, |()| Answer::Ok);
                write(stream.get_mut(), &answer).await?;
            }
            Request::HeldContent { path } => match holds::content(host, &path).await {
                Ok(bytes) => {
                    write(stream.get_mut(), &Answer::Content { size: bytes.len() as u64 }).await?;
                    stream.get_mut().write_all(&bytes).await?;
                }
                Err(message) => write(stream.get_mut(), &Answer::Error { message }).await?,
            },
            request => {
                let answer = answer(host, request).await;
                write(stream.get_mut(), &answer).await?;
            }
        }
    }
}

async fn write(stream: &mut Stream, message: &impl Serialize) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    stream.write_all(&line).await
}

async fn answer(host: &Host, request: Request) -> Answer {
    match try_answer(host, request).await {
        Ok(answer) => answer,
        Err(message) => Answer::Error { message },
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

async fn try_answer(host: &Host, request: Request) -> Result<Answer, String> {
    let replica = &host.replica;
    Ok(match request {
        Request::Ping => Answer::Ok,
        Request::Status => {
            let report = replica.status().await.map_err(text)?;
            Answer::Status(Box::new(host.status(report)))
        }
        Request::Flush { timeout_ms } => {
            let begun = Instant::now();
            let flushed = replica.flush(Duration::from_millis(timeout_ms)).await.map_err(text)?;
            let ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            Answer::Flushed { done: flushed.done, unfinished: flushed.unfinished, ms }
        }
        Request::Verify => {
            replica.flush(BEFORE_VERIFY).await.map_err(text)?;
            // In one go, so that both are about the same moment.
            let verified = replica.ask(|engine, _| (engine.verify(), engine.status()));
            let (differences, status) = verified.await.map_err(text)?;
            Answer::Verified { differences: differences.map_err(text)?, apart: apart(&status) }
        }
        Request::Conflicts => Answer::Conflicts { conflicts: conflicts::list(host).await? },
        Request::Resolve { paths, way } => {
            Answer::Resolved { paths: conflicts::resolve(host, &paths, way).await? }
        }
        Request::Resume { confirm_deletions } => {
            let how = if confirm_deletions { Resume::ConfirmDeletions } else { Resume::Again };
            let report = replica.resume(how).await.map_err(text)?;
            Answer::Status(Box::new(host.status(report)))
        }
        Request::Release { paths } => {
            let released =
                replica.ask(move |engine, now| engine.release(&paths, now).map_err(text));
            Answer::Released { count: released.await.map_err(text)?? }
        }
        Request::Rename { path, to } => {
            review::rename(host, &path, to).await?;
            Answer::Ok
        }
        Request::Review => Answer::Review(Box::new(review::view(host).await)),
        Request::ReviewFile { path } => {
            Answer::ReviewFile(Box::new(review::file(host, &path).await))
        }
        Request::Keep { choice } => {
            let (done, left) = review::keep(host, choice).await?;
            Answer::Decided { done, left }
        }
        Request::Revert { choice } => {
            let (done, left) = review::revert(host, choice).await?;
            Answer::Decided { done, left }
        }
        Request::SettleHeld { path, end } => {
            Answer::HoldSettled { beside: holds::settle(host, path, end).await? }
        }
        Request::CopyBeside { path } => {
            Answer::HoldSettled { beside: Some(holds::copy_beside(host, &path).await?) }
        }
        Request::Forget { paths } => forget(host, paths).await?,
        Request::Stop => {
            host.stop.send_replace(true);
            Answer::Ok
        }
        // Those have answers of their own.
        Request::Subscribe
        | Request::Content { .. }
        | Request::HeldContent { .. }
        | Request::Unsaved { .. } => Answer::Ok,
    })
}

/// What a verification does not compare.
fn apart(status: &Status) -> Apart {
    let (open, left): (Vec<_>, Vec<_>) =
        status.conflicts.iter().partition(|(_, it)| it.status == ConflictStatus::Open);
    let paths = |of: Vec<(&TreePath, _)>| of.into_iter().map(|(path, _)| path.clone()).collect();
    Apart {
        conflicts: paths(open),
        left: paths(left),
        withheld: status.withheld.len(),
        ignored: status.ignored_incoming,
    }
}

/// Paths that are on their way are tried again for a while.
async fn forget(host: &Host, paths: Vec<TreePath>) -> Result<Answer, String> {
    let deadline = Instant::now() + conflicts::PATIENCE;
    loop {
        let these = paths.clone();
        let tried = host.replica.ask(move |engine, now| engine.forget_synced(&these, now));
        match tried.await.map_err(text)? {
            Ok(count) => return Ok(Answer::Forgotten { count }),
            Err(ForgetError::NotYet(_)) if Instant::now() < deadline => {
                tokio::time::sleep(conflicts::AGAIN).await;
            }
            Err(error) => return Err(error.to_string()),
        }
    }
}

impl Host {
    fn status(&self, report: run::Report) -> HostStatus {
        let attachment = &self.attachment;
        HostStatus {
            root: attachment.root.clone(),
            volume_id: attachment.volume_id.clone(),
            replica_id: attachment.replica_id.clone(),
            sandbox_id: attachment.sandbox_id.clone(),
            pid: std::process::id(),
            server: attachment.service.url().ok(),
            report,
        }
    }
}

/// Tells how it is, and what happens until the guest hangs up.
async fn feed(host: &Host, stream: &mut BufReader<Stream>) -> std::io::Result<()> {
    // Before the first status, so that nothing comes between the two.
    let mut news = host.replica.subscribe();
    let mut reviewed = host.review.subscribe();
    write(stream.get_mut(), &Answer::Ok).await?;
    let mut unheard = [0; 64];
    let mut is_behind = true;
    loop {
        if std::mem::take(&mut is_behind) {
            let Ok(report) = host.replica.status().await else { return Ok(()) };
            let status = Box::new(host.status(report));
            write(stream.get_mut(), &News::Status { status }).await?;
        }
        let item = tokio::select! {
            item = news.recv() => match item {
                Ok(run::News::Notice(notice)) => told(notice),
                Ok(run::News::Status(report)) => {
                    News::Status { status: Box::new(host.status((*report).clone())) }
                }
                Err(RecvError::Lagged(count)) => {
                    is_behind = true;
                    News::Missed { count }
                }
                Err(RecvError::Closed) => return Ok(()),
            },
            Ok(()) = reviewed.changed() => {
                News::Review { version: *reviewed.borrow_and_update() }
            }
            // A listener says nothing; its silence ends when it hangs up.
            read = stream.read(&mut unheard) => match read? {
                0 => return Ok(()),
                _ => continue,
            },
        };
        write(stream.get_mut(), &item).await?;
    }
}

fn told(notice: Notice) -> News {
    match notice {
        Notice::Uploaded { path, removed } => News::Uploaded { path, removed },
        Notice::Applied { path, removed, actor, .. } => {
            News::Applied { path, removed, actor: actor.map(|actor| actor.to_string()) }
        }
        Notice::Conflict { path, reason } => News::Conflict { path, reason },
        Notice::Settled { path, resolution } => News::Settled { path, resolution },
        Notice::Kept { path, at } => News::Kept { path, at },
        Notice::DirectoryKept(path) => News::DirectoryKept { path },
        Notice::Problem { path, why } => News::Problem { path, why },
        Notice::Halted(halt) => News::Halted { why: halt.to_string() },
        Notice::Connection(connected) => News::Connection { connected },
    }
}
