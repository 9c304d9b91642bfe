//! Writes that are held, as guests see and settle them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use s0_replica::disk::Spot;
use s0_replica::engine::{Event, HoldEnd, LocalWrite, ResolveError};
use s0_tree::{Content, Name, TreePath};

use crate::conflicts::{AGAIN, PATIENCE};
use crate::contents::fetch;
use crate::host::Host;
use crate::protocol::HoldWay;

/// Larger files are not put beside, in bytes.
const LARGEST: u64 = 64 << 20;

/// The documents with unsaved text, of each guest that said so.
#[derive(Default)]
pub(crate) struct Unsaved {
    guests: Mutex<BTreeMap<u64, BTreeSet<TreePath>>>,
}

/// A guest that may say which documents have unsaved text. When it is dropped, no
/// document has any of its.
pub(crate) struct Guest<'a> {
    host: &'a Host,
    number: u64,
}

impl Unsaved {
    fn all(&self) -> BTreeSet<TreePath> {
        let guests = self.guests.lock().unwrap_or_else(PoisonError::into_inner);
        guests.values().flatten().cloned().collect()
    }

    fn set(&self, guest: u64, documents: BTreeSet<TreePath>) {
        let mut guests = self.guests.lock().unwrap_or_else(PoisonError::into_inner);
        if documents.is_empty() {
            guests.remove(&guest);
        } else {
            guests.insert(guest, documents);
        }
    }
}

impl<'a> Guest<'a> {
    pub(crate) fn new(host: &'a Host) -> Self {
        Self { host, number: fastrand::u64(..) }
    }

    /// Returns when the replica knows.
    pub(crate) async fn unsaved(&self, documents: BTreeSet<TreePath>) -> Result<(), String> {
        self.host.unsaved.set(self.number, documents);
        let all = self.host.unsaved.all();
        let told = self.host.replica.ask(|engine, now| engine.handle(Event::Unsaved(all), now));
        told.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
    }
}

impl Drop for Guest<'_> {
    fn drop(&mut self) {
        self.host.unsaved.set(self.number, BTreeSet::new());
        let (all, replica) = (self.host.unsaved.all(), self.host.replica.clone());
        // Who hangs up does not wait for it.
        tokio::spawn(async move {
            let _ = replica.ask(|engine, now| engine.handle(Event::Unsaved(all), now)).await;
        });
    }
}

/// What is held at a path.
pub(crate) async fn content(host: &Host, path: &TreePath) -> Result<Vec<u8>, String> {
    match held(host, path).await? {
        Some(content) if content.size > LARGEST => Err(format!("{path} is too large")),
        Some(content) => fetch(host, content).await,
        None => Ok(Vec::new()),
    }
}

async fn held(host: &Host, path: &TreePath) -> Result<Option<Content>, String> {
    let at = path.clone();
    let held = host
        .replica
        .ask(move |engine, _| engine.held().contains_key(&at).then(|| engine.held_content(&at)));
    held.await
        .map_err(|error| error.to_string())?
        .ok_or_else(|| ResolveError::NothingHeld(path.clone()).to_string())
}

/// Ends a hold. Says where the held one was put, if it was kept.
pub(crate) async fn settle(
    host: &Host,
    path: TreePath,
    way: HoldWay,
) -> Result<Option<TreePath>, String> {
    let mut beside = None;
    if way == HoldWay::KeepBoth
        && let Some(content) = held(host, &path).await?
    {
        if content.size > LARGEST {
            return Err(too_large(&path));
        }
        beside = Some(put_beside(host, &path, fetch(host, content).await?).await?);
    }
    let end = match way {
        HoldWay::Take => HoldEnd::Take,
        HoldWay::Discard | HoldWay::KeepBoth => HoldEnd::Discard,
    };
    let deadline = Instant::now() + PATIENCE;
    loop {
        let at = path.clone();
        let ended = host.replica.ask(move |engine, now| engine.settle_held(&at, end, now));
        match ended.await.map_err(|error| error.to_string())? {
            Ok(()) => return Ok(beside),
            Err(ResolveError::NotYet(_)) if Instant::now() < deadline => {
                tokio::time::sleep(AGAIN).await;
            }
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// Copies the file at a path beside it.
pub(crate) async fn copy_beside(host: &Host, path: &TreePath) -> Result<TreePath, String> {
    let spot = Spot::Path(path.clone());
    let opened = host.replica.ask(move |engine, _| engine.disk().access().open(&spot));
    let opened = opened.await.map_err(|error| error.to_string())?;
    let mut file = opened.map_err(|error| format!("{path}: {error}"))?;
    let read = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        (&mut file).take(LARGEST + 1).read_to_end(&mut bytes).map(|_| bytes)
    });
    let bytes =
        read.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    if bytes.len() as u64 > LARGEST {
        return Err(too_large(path));
    }
    put_beside(host, path, bytes).await
}

fn too_large(path: &TreePath) -> String {
    format!("{path} is too large to be put beside (more than 64 MiB)")
}

/// Puts bytes beside a path, under a name that is free.
async fn put_beside(host: &Host, path: &TreePath, bytes: Vec<u8>) -> Result<TreePath, String> {
    for number in 1..=1000 {
        let Some(at) = incoming_name(path, number) else { break };
        let write = LocalWrite::File { bytes: bytes.clone(), mode: 0o644 };
        let there = at.clone();
        let put = host.replica.ask(move |engine, now| engine.write_local(&there, None, write, now));
        match put.await.map_err(|error| error.to_string())? {
            Ok(()) => return Ok(at),
            Err(ResolveError::Changed(_)) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    Err(format!("there is no free name beside {path}"))
}

/// `notes.md` becomes `notes.incoming.md`, then `notes.incoming-2.md`.
fn incoming_name(path: &TreePath, number: u32) -> Option<TreePath> {
    let (above, name) = path.split()?;
    let (stem, extension) = match name.as_str().rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() => (stem, format!(".{extension}")),
        _ => (name.as_str(), String::new()),
    };
    let mark = if number == 1 { ".incoming".into() } else { format!(".incoming-{number}") };
    let room = s0_tree::MAX_NAME_BYTES.saturating_sub(mark.len() + extension.len());
    let end = (0..=room.min(stem.len())).rev().find(|at| stem.is_char_boundary(*at))?;
    Some(above.join(&Name::new(&format!("{}{mark}{extension}", &stem[..end])).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_incoming_one_keeps_its_extension() {
        let name = |path: &str, number| {
            incoming_name(&TreePath::new(path).unwrap(), number).unwrap().to_string()
        };
        assert_eq!(name("a/notes.md", 1), "a/notes.incoming.md");
        assert_eq!(name("a/notes.md", 2), "a/notes.incoming-2.md");
        assert_eq!(name(".envrc", 1), ".envrc.incoming");
        assert!(name(&format!("{}.rs", "\u{e9}".repeat(126)), 1).len() <= s0_tree::MAX_NAME_BYTES);
    }
}
