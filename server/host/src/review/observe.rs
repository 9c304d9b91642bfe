//! What is seen at a path, with the bytes of what may be a text.

use std::io::Read as _;
use std::sync::Arc;

use s0_replica::disk::{Disk, DiskError, Seen as Kind, Spot};
use s0_replica::state::What;
use s0_review::{MAX_TEXT_BYTES, Observed, State};
use s0_tree::{Content, New, TreePath};

use super::{AT_HAND, Inner};
use crate::contents::fetch_if_there;
use crate::host::Host;

/// What is at a path.
pub(super) struct Seen {
    state: State,
    bytes: Option<Arc<[u8]>>,
}

impl Seen {
    pub(super) fn observed(&self) -> Observed<'_> {
        Observed { state: self.state.clone(), bytes: self.bytes.as_deref() }
    }
}

impl Inner {
    /// What the replica says that there was, with the bytes.
    pub(super) async fn seen_as(
        &mut self,
        host: &Host,
        what: Option<&(What, u32)>,
    ) -> Result<Option<Seen>, String> {
        let Some((what, mode)) = what else { return Ok(None) };
        let (what, bytes) = match what {
            What::File(content) => {
                (New::File { content: *content }, self.bytes(host, *content).await?)
            }
            What::Directory => (New::Directory, None),
            What::Symlink(target) => (New::Symlink { target: target.clone() }, None),
        };
        Ok(Some(Seen { state: State { what, mode: *mode }, bytes }))
    }

    async fn bytes(&mut self, host: &Host, content: Content) -> Result<Option<Arc<[u8]>>, String> {
        if content.size > MAX_TEXT_BYTES as u64 {
            return Ok(None);
        }
        if let Some((_, bytes)) = self.recent.iter().find(|(id, _)| *id == content.id) {
            return Ok(Some(bytes.clone()));
        }
        // What is not retained any more is reviewed as a whole.
        let Some(bytes) = fetch_if_there(host, content).await? else { return Ok(None) };
        let bytes: Arc<[u8]> = bytes.into();
        self.recent.push_front((content.id, bytes.clone()));
        self.recent.truncate(AT_HAND);
        Ok(Some(bytes))
    }
}

/// What the disk holds at a path.
pub(super) async fn at(host: &Host, path: &TreePath) -> Result<Option<Seen>, String> {
    let spot = Spot::Path(path.clone());
    let found = host.replica.ask(move |engine, _| {
        let disk = engine.disk();
        let Some(stat) = disk.stat(&spot)? else { return Ok(None) };
        let mode = stat.mode & 0o777;
        Ok(match stat.kind {
            Kind::File => Some((Found::File(disk.access().open(&spot)?), mode)),
            Kind::Symlink => Some((Found::Symlink(disk.read_link(&spot)?), mode)),
            Kind::Directory => Some((Found::Directory, mode)),
            Kind::Other | Kind::Mount | Kind::Unknown => None,
        })
    });
    let found = found.await.map_err(|error| error.to_string())?;
    let (found, mode) = match found {
        Ok(Some(found)) => found,
        Ok(None) | Err(DiskError::NotFound | DiskError::NotADirectory) => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let (what, bytes) = match found {
        Found::Directory => (New::Directory, None),
        Found::Symlink(target) => (New::Symlink { target: target.into() }, None),
        Found::File(mut file) => {
            let read = tokio::task::spawn_blocking(move || {
                if file.stat().size > MAX_TEXT_BYTES as u64 {
                    let (content, _) = s0_tree::describe(&mut file)?;
                    return Ok((content, None));
                }
                let mut bytes = Vec::new();
                (&mut file).take(MAX_TEXT_BYTES as u64 + 1).read_to_end(&mut bytes)?;
                Ok::<_, std::io::Error>((Content::of(&bytes), Some(Arc::from(bytes))))
            });
            let read = read.await.map_err(|error| error.to_string())?;
            let (content, bytes) = read.map_err(|error| error.to_string())?;
            (New::File { content }, bytes)
        }
    };
    Ok(Some(Seen { state: State { what, mode }, bytes }))
}

enum Found {
    File(s0_replica::shell::access::FileReader),
    Symlink(String),
    Directory,
}
