//! Merging the two files of a conflict.
//!
//! The texts are read and merged here; the engine puts the result in the place
//! of the local file if both sides are still what was read, and otherwise says
//! that it is not time yet, and all begins anew.

use std::io::Read as _;
use std::time::Instant;

use s0_replica::disk::Spot;
use s0_replica::engine::{ResolveError, Sides};
use s0_replica::shell::access::FileReader;
use s0_tree::{Content, TreePath};

use crate::conflicts::{AGAIN, PATIENCE};
use crate::contents::fetch;
use crate::diff3::{self, Merged};
use crate::host::Host;
use crate::protocol::ResolvedPath;

/// Larger files are not merged, in bytes.
const LARGEST: u64 = 8 << 20;
const OTHER_WAYS: &str = "keep yours, take theirs or keep both";

/// How one attempt ended.
enum Tried {
    /// The merge is at the path, with so many overlaps.
    Merged(usize),
    /// Something moved meanwhile.
    NotYet(String),
    /// It cannot be merged.
    Refused(String),
}

/// Merges the conflict at a path. One with overlaps stays open.
pub(crate) async fn merge(host: &Host, path: TreePath) -> Result<ResolvedPath, String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (overlaps, error) = match try_merge(host, &path).await? {
            Tried::NotYet(_) if Instant::now() < deadline => {
                tokio::time::sleep(AGAIN).await;
                continue;
            }
            Tried::Merged(overlaps) => (overlaps, None),
            Tried::NotYet(why) | Tried::Refused(why) => (0, Some(why)),
        };
        return Ok(ResolvedPath { path, overlaps, error });
    }
}

async fn try_merge(host: &Host, path: &TreePath) -> Result<Tried, String> {
    let at = path.clone();
    let found = host.replica.ask(move |engine, now| {
        let sides = engine.sides(&at, now)?;
        let mine = engine.disk().access().open(&Spot::Path(at.clone()));
        Ok((sides, mine.map_err(|error| ResolveError::Disk(at, error))?))
    });
    let (sides, mine) = match found.await.map_err(|error| error.to_string())? {
        Ok(found) => found,
        Err(error) => return Ok(said(&error)),
    };
    let all = [Some(sides.mine), Some(sides.theirs), sides.base];
    if all.into_iter().flatten().any(|content| content.size > LARGEST) {
        let why = format!("{path} is too large to be merged (more than 8 MiB); {OTHER_WAYS}");
        return Ok(Tried::Refused(why));
    }
    let Some(mine) = read(mine, sides.mine).await? else {
        return Ok(Tried::NotYet(ResolveError::NotYet(path.clone()).to_string()));
    };
    let theirs = fetch(host, sides.theirs).await?;
    let base = match sides.base {
        Some(base) => Some(fetch(host, base).await?),
        None => None,
    };
    let (Some(mine), Some(theirs), Some(base)) =
        (text(mine), text(theirs), base.map_or(Some(None), |base| text(base).map(Some)))
    else {
        let why = format!("{path} is not text (UTF-8) on both sides; {OTHER_WAYS}");
        return Ok(Tried::Refused(why));
    };
    if diff3::has_markers(&mine) {
        return Ok(Tried::Refused(format!(
            "{path} has the marks of an earlier merge; settle what is between them, then \
             `s0 sync conflicts mark {path}`"
        )));
    }
    let merged = move || diff3::merge(base.as_deref(), &mine, &theirs);
    let merged = tokio::task::spawn_blocking(merged).await.map_err(|error| error.to_string())?;
    put(host, path, sides, merged).await
}

async fn put(
    host: &Host,
    path: &TreePath,
    sides: Sides,
    Merged { text, overlaps }: Merged,
) -> Result<Tried, String> {
    let at = path.clone();
    let done = host
        .replica
        .ask(move |engine, now| engine.merge(&at, sides, text.as_bytes(), overlaps == 0, now));
    Ok(match done.await.map_err(|error| error.to_string())? {
        Ok(()) => Tried::Merged(overlaps),
        Err(error) => said(&error),
    })
}

fn said(error: &ResolveError) -> Tried {
    match error {
        ResolveError::NotYet(_) => Tried::NotYet(error.to_string()),
        error => Tried::Refused(error.to_string()),
    }
}

/// The local file; nothing if it is not what it was any more.
async fn read(mut file: FileReader, wanted: Content) -> Result<Option<Vec<u8>>, String> {
    let read = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        (&mut file).take(LARGEST + 1).read_to_end(&mut bytes).map(|_| bytes)
    });
    let read = read.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    Ok((Content::of(&read) == wanted).then_some(read))
}

fn text(bytes: Vec<u8>) -> Option<String> {
    String::from_utf8(bytes).ok().filter(|text| !text.contains('\0'))
}
