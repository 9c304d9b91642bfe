//! Conflicts, as guests see and settle them.

use std::io::Read as _;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use s0_replica::disk::{Description, Disk, Spot};
use s0_replica::engine::{ResolveError, WayOut};
use s0_replica::shell::access::FileReader;
use s0_replica::shell::run::Engine;
use s0_replica::state::{Conflict, What};
use s0_tree::{Content, Kind, TreePath};
use tokio::sync::mpsc;

use crate::host::Host;
use crate::merge::merge;
use crate::protocol::{ConflictView, ResolvedPath, Side, Thing, Way};

/// How long what is still being worked on is tried again.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);
pub(crate) const AGAIN: Duration = Duration::from_millis(50);
/// Bytes in one piece of a content.
const PIECE: usize = 64 * 1024;

/// All conflicts, by path.
pub(crate) async fn list(host: &Host) -> Result<Vec<ConflictView>, String> {
    let listed = host.replica.ask(|engine, _| {
        let conflicts = &engine.state().conflicts;
        conflicts.iter().map(|(path, conflict)| view(engine, path, conflict)).collect()
    });
    listed.await.map_err(|error| error.to_string())
}

fn view(engine: &Engine, path: &TreePath, conflict: &Conflict) -> ConflictView {
    ConflictView {
        path: path.clone(),
        reason: conflict.reason,
        status: conflict.status,
        id: conflict.id.clone(),
        base: conflict.base.as_ref().map(Thing::from),
        mine: conflict.mine.as_ref().map(Thing::from),
        theirs: theirs(engine, &conflict.other).as_ref().map(Thing::from),
        other: conflict.other.clone(),
        time: conflict.time,
    }
}

/// What the Volume has at a path, as far as it is known here.
fn theirs(engine: &Engine, path: &TreePath) -> Option<What> {
    let (_, node) = engine.remote()?.at(path)?;
    match &node.kind {
        Kind::File(content) => Some(What::File(*content)),
        Kind::Directory(_) => Some(What::Directory),
        Kind::Symlink(target) => Some(What::Symlink(target.clone())),
        Kind::Fifo => None,
    }
}

/// Ends conflicts, one by one; one that cannot end does not keep the others.
pub(crate) async fn resolve(
    host: &Host,
    paths: &[TreePath],
    way: Way,
) -> Result<Vec<ResolvedPath>, String> {
    let known =
        host.replica.ask(|engine, _| engine.state().conflicts.keys().cloned().collect::<Vec<_>>());
    let known = known.await.map_err(|error| error.to_string())?;
    let below = |path: &TreePath| paths.is_empty() || paths.iter().any(|p| path.is_at_or_below(p));
    let mut chosen: Vec<_> = known.iter().filter(|path| below(path)).cloned().collect();
    for path in paths {
        // The engine says that there is none.
        if !known.iter().any(|known| known.is_at_or_below(path)) {
            chosen.push(path.clone());
        }
    }
    let mut done = Vec::with_capacity(chosen.len());
    for path in chosen {
        done.push(resolve_one(host, path, way).await?);
    }
    Ok(done)
}

async fn resolve_one(host: &Host, path: TreePath, way: Way) -> Result<ResolvedPath, String> {
    let way = match way {
        Way::Mark | Way::KeepMine => WayOut::Mark,
        Way::TakeTheirs => WayOut::TakeTheirs,
        Way::KeepBoth => WayOut::KeepBoth,
        Way::Ignore => WayOut::Ignore,
        Way::Merge => return merge(host, path).await,
    };
    let deadline = Instant::now() + PATIENCE;
    loop {
        let at = path.clone();
        let tried = host.replica.ask(move |engine, now| engine.resolve(&at, way, now));
        let error = match tried.await.map_err(|error| error.to_string())? {
            Err(ResolveError::NotYet(_)) if Instant::now() < deadline => {
                tokio::time::sleep(AGAIN).await;
                continue;
            }
            tried => tried.err().map(|error| error.to_string()),
        };
        return Ok(ResolvedPath { path, overlaps: 0, error });
    }
}

/// The content of one side of a conflict: its length, and its bytes in pieces.
pub(crate) async fn content(
    host: &Host,
    path: TreePath,
    side: Side,
) -> Result<(u64, mpsc::Receiver<Vec<u8>>), String> {
    let found = host.replica.ask(move |engine, _| find(engine, &path, side));
    match found.await.map_err(|error| error.to_string())?? {
        Found::File(content, Some(mut file)) => {
            let (send, receive) = mpsc::channel(4);
            tokio::task::spawn_blocking(move || {
                loop {
                    let mut piece = vec![0; PIECE];
                    let read = file.read(&mut piece).unwrap_or(0);
                    piece.truncate(read);
                    if read == 0 || send.blocking_send(piece).is_err() {
                        return;
                    }
                }
            });
            Ok((content.size, receive))
        }
        Found::File(content, None) => download(host, content).await,
        Found::Text(text) => {
            let (send, receive) = mpsc::channel(1);
            let bytes = text.into_bytes();
            let size = bytes.len() as u64;
            // There is room for one.
            let _ = send.try_send(bytes);
            Ok((size, receive))
        }
    }
}

enum Found {
    /// A file; open, where the disk still has this content.
    File(Content, Option<FileReader>),
    /// The target of a link.
    Text(String),
}

fn find(engine: &mut Engine, path: &TreePath, side: Side) -> Result<Found, String> {
    let conflict = engine.state().conflicts.get(path).cloned().ok_or_else(|| {
        format!("there is no conflict at {path}; `s0 sync conflicts list` shows those that are")
    })?;
    let (what, word) = match side {
        Side::Mine => (conflict.mine, "this workspace had"),
        Side::Theirs => (theirs(engine, &conflict.other), "the Volume has"),
        Side::Base => (conflict.base, "before the conflict there was"),
    };
    match what {
        None => Err(format!("{word} nothing at {path}")),
        Some(What::Directory) => Err(format!("{word} a directory at {path}")),
        Some(What::Symlink(target)) => Ok(Found::Text(target.to_string())),
        Some(What::File(content)) => {
            let mut local = None;
            let spot = Spot::Path(path.clone());
            if side == Side::Mine
                && let Some(Ok(Description::Stable { content: there, .. })) =
                    engine.disk().describe(std::slice::from_ref(&spot)).pop()
                && there == content
            {
                local = engine.disk().access().open(&spot).ok();
            }
            Ok(Found::File(content, local))
        }
    }
}

async fn download(host: &Host, content: Content) -> Result<(u64, mpsc::Receiver<Vec<u8>>), String> {
    let client = host.attachment.service.client()?;
    let volume = &host.attachment.volume_id;
    let mut stream =
        client.content(volume, content.id, None).await.map_err(|error| error.to_string())?;
    let (send, receive) = mpsc::channel(4);
    tokio::spawn(async move {
        while let Some(piece) = stream.next().await {
            match piece {
                Ok(piece) => {
                    if send.send(piece.to_vec()).await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "a side of a conflict could not be read to its end");
                    return;
                }
            }
        }
    });
    Ok((content.size, receive))
}
