//! The documented start of a replica: a snapshot, and its archive.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::pin::Pin;

use axum::http::{HeaderValue, header};
use bytes::{Buf, Bytes};
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::{Stream, StreamExt, stream};
use s0_api::documented::{
    Bootstrap, BootstrapRequest, CompatibilityIssue, RegisterRequest, normalized,
};
use s0_api::times::compact;
use s0_tree::{Content, Kind, Policy, Tree, TreePath, portable_issues};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::answers::{Answered, Made, MadeOf, streamed};
use super::asked::{JsonOrNone, Params, ReadVolume, Volume, WriteVolume};
use super::{State, snapshots};
use crate::holdings::Holdings;
use crate::journal::{Kept, StoreError};
use crate::problem::Problem;
use crate::service::now;
use crate::volume::new_id;

pub(super) async fn bootstrap(
    service: State,
    volume: Volume<WriteVolume>,
    JsonOrNone(asked): JsonOrNone<BootstrapRequest>,
) -> MadeOf<Bootstrap> {
    let (id, hot) = (volume.id(), &volume.hot);
    let capabilities = RegisterRequest {
        case_sensitive: asked.case_sensitive.unwrap_or(true),
        capabilities: asked.capabilities,
        ..RegisterRequest::default()
    }
    .effective();
    // Tree and head are of one moment, and the snapshot is of that tree.
    let tree = hot.committed().ledger.tree().clone();
    let issues = issues(&tree, capabilities.policy());
    if !issues.is_empty() {
        let details = json!({
            "reason": "namespace_incompatible",
            "snapshot_id": new_id(),
            "capabilities": capabilities,
            "issues": issues,
        });
        let why = "the tree cannot be represented on the replica";
        return Err(Problem::Conflict(why.into(), Some(details)));
    }
    let name = asked.snapshot_name.filter(|name| !name.trim().is_empty());
    let name = name.unwrap_or_else(|| format!("sync-bootstrap-{}", compact(now())));
    let description = asked.snapshot_description.unwrap_or_default();
    let record = snapshots::take(&service, hot, tree, name, description).await?;
    let archive =
        format!("/api/v1/sandboxvolumes/{id}/sync/bootstrap/archive?snapshot_id={}", record.id);
    Ok(Made(Bootstrap {
        snapshot: snapshots::as_documented(id, &record),
        replay_after_seq: record.seq.0,
        archive_download_path: archive,
    }))
}

/// What of a tree cannot be held under a policy, sorted as documented.
fn issues(tree: &Tree, policy: Policy) -> Vec<CompatibilityIssue> {
    let mut issues = Vec::new();
    let mut collisions: BTreeMap<String, BTreeSet<TreePath>> = BTreeMap::new();
    for (path, _, _) in tree.walk() {
        let Some((above, name)) = path.split() else { continue };
        for issue in portable_issues(name.as_str(), policy) {
            issues.push(CompatibilityIssue::of_name(&path, issue));
        }
        let parent = tree.lookup(&above);
        if let Some(other) = parent.and_then(|parent| tree.collision(parent, &name, policy, None)) {
            let all = collisions.entry(normalized(&path)).or_default();
            all.extend([above.join(&other), path]);
        }
    }
    issues.extend(collisions.values().map(CompatibilityIssue::of_collision));
    issues.sort_by(|a, b| {
        (a.code, &a.normalized_path, &a.path).cmp(&(b.code, &b.normalized_path, &b.path))
    });
    issues
}

/// Which archive.
#[derive(Deserialize, JsonSchema)]
pub(super) struct Which {
    /// The snapshot's id.
    #[schemars(required)]
    snapshot_id: Option<String>,
}

pub(super) async fn archive(
    service: State,
    volume: Volume<ReadVolume>,
    Params(which): Params<Which>,
) -> Answered {
    let asked = which.snapshot_id.filter(|text| !text.is_empty());
    let asked = asked.ok_or_else(|| Problem::bad("snapshot_id is required"))?;
    let Volume { caller, hot, .. } = volume;
    let record = snapshots::find(&service, &hot, &asked).await?;
    let tree = snapshots::tree_of(&service, &hot, &record).await?;
    let (pieces, body) = mpsc::channel::<Kept<Bytes>>(4);
    let contents = Contents {
        holdings: service.holdings.clone(),
        team: caller.team,
        runtime: Handle::current(),
    };
    tokio::task::spawn_blocking(move || {
        let failed = pieces.clone();
        if let Err(error) = write_archive(&tree, &contents, Pieces(pieces)) {
            // Without its end the archive is visibly truncated. Nobody is left
            // to be told when the reader has gone.
            let _ = failed
                .blocking_send(Err(StoreError::Failed(format!("an archive broke off: {error}"))));
        }
    });
    let body = stream::unfold(body, async |mut body| Some((body.recv().await?, body)));
    let mut answer = streamed("application/gzip", body);
    let name = format!("attachment; filename=\"sync-bootstrap-{}.tar.gz\"", record.id);
    if let Ok(name) = HeaderValue::from_str(&name) {
        answer.headers_mut().insert(header::CONTENT_DISPOSITION, name);
    }
    Ok(answer)
}

/// The body of an answer, as a writer.
struct Pieces(mpsc::Sender<Kept<Bytes>>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .blocking_send(Ok(Bytes::copy_from_slice(bytes)))
            .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Contents {
    holdings: Holdings,
    team: String,
    runtime: Handle,
}

impl Contents {
    fn open(&self, content: Content) -> io::Result<ContentReader<'_>> {
        let opened = self.holdings.stream(&self.team, content, 0..content.size);
        let stream = self.runtime.block_on(opened).map_err(io::Error::other)?;
        Ok(ContentReader { runtime: &self.runtime, stream: Box::pin(stream), piece: Bytes::new() })
    }
}

/// A content as a blocking reader.
struct ContentReader<'a> {
    runtime: &'a Handle,
    stream: Pin<Box<dyn Stream<Item = Kept<Bytes>> + Send>>,
    piece: Bytes,
}

impl Read for ContentReader<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.runtime.block_on(self.stream.next()) {
                Some(piece) => self.piece = piece.map_err(io::Error::other)?,
                None => return Ok(0),
            }
        }
        let length = into.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut into[..length]);
        Ok(length)
    }
}

/// Directories before their children, siblings in byte order, as the tree walks.
fn write_archive(tree: &Tree, contents: &Contents, out: Pieces) -> io::Result<()> {
    let out = io::BufWriter::with_capacity(64 * 1024, out);
    let mut archive = tar::Builder::new(GzEncoder::new(out, Compression::fast()));
    for (path, _, node) in tree.walk() {
        let mut entry = tar::Header::new_gnu();
        entry.set_mode(node.attributes.mode);
        entry.set_uid(node.attributes.uid.into());
        entry.set_gid(node.attributes.gid.into());
        entry.set_mtime(u64::try_from(node.attributes.mtime.0 / 1_000_000_000).unwrap_or(0));
        entry.set_size(0);
        match &node.kind {
            Kind::Directory(_) => {
                entry.set_entry_type(tar::EntryType::Directory);
                archive.append_data(&mut entry, format!("{path}/"), io::empty())?;
            }
            Kind::Symlink(target) => {
                entry.set_entry_type(tar::EntryType::Symlink);
                archive.append_link(&mut entry, path.as_str(), &**target)?;
            }
            Kind::File(content) => {
                entry.set_entry_type(tar::EntryType::Regular);
                entry.set_size(content.size);
                archive.append_data(&mut entry, path.as_str(), contents.open(*content)?)?;
            }
            // Pipes have no content to begin from, and would only stop the others.
            Kind::Fifo => {}
        }
    }
    archive.into_inner()?.finish()?.flush()
}
