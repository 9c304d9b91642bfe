//! Contents as files: `<root>/<team>/<kind>/<first two digits>/<hash>`.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use s0_tree::{ContentId, Hash};
use tracing::warn;

use crate::contents::Contents;
use crate::journal::{Kept, StoreError, blocking};
use crate::platform;

/// So few contents are made durable one by one. More of them are, with all else
/// that was written to the file system, at once.
const ONE_BY_ONE: usize = 4;

/// A directory of contents.
#[derive(Debug, Clone)]
pub struct DiskContents {
    root: Arc<Path>,
    staged: Arc<AtomicU64>,
    making: Arc<Mutex<()>>,
}

impl DiskContents {
    /// Contents below `root`, which is made if it is not there.
    ///
    /// # Errors
    /// The directory cannot be made or cleared of what a crash left behind.
    pub fn open(root: &Path) -> io::Result<Self> {
        // What is staged was never answered for, so it belongs to nobody.
        let staging = root.join("staging");
        match fs::remove_dir_all(&staging) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::create_dir_all(&staging)?;
        platform::sync_directory(root)?;
        Ok(Self { root: root.into(), staged: Arc::default(), making: Arc::default() })
    }

    /// Contents below `root`, to look at them beside a service that may run on them.
    pub(crate) fn open_to_read(root: &Path) -> Self {
        Self { root: root.into(), staged: Arc::default(), making: Arc::default() }
    }

    fn path(&self, team: &str, id: ContentId) -> PathBuf {
        // Names of teams come from outside and may be no file names.
        let team = Hash::of(team.as_bytes()).to_string();
        let kind = match id {
            ContentId::Chunk(_) => "chunks",
            ContentId::Recipe(_) => "recipes",
        };
        let hash = id.hash().to_string();
        let mut path = self.root.join(&team[..32]);
        path.extend([kind, &hash[..2], &hash]);
        path
    }

    fn put_all(&self, team: &str, contents: &[(ContentId, Bytes)]) -> io::Result<()> {
        let staging = self.root.join("staging");
        // Opened before anything is written, so that it knows of all that fails.
        let whole =
            if contents.len() > ONE_BY_ONE { platform::FileSystem::of(&staging)? } else { None };
        let mut staged = Vec::new();
        let mut directories = BTreeSet::new();
        for (id, bytes) in contents {
            let path = self.path(team, *id);
            if let Some(directory) = path.parent() {
                self.make_directory(directory)?;
                directories.insert(directory.to_owned());
            }
            // Another call may have put it there and not yet made its name
            // durable, so the directory is synced in any case.
            if size(&path)? == Some(bytes.len() as u64) {
                continue;
            }
            let number = self.staged.fetch_add(1, Ordering::Relaxed);
            let temporary = staging.join(number.to_string());
            let mut file = File::create_new(&temporary)?;
            file.write_all(bytes)?;
            if whole.is_none() {
                file.sync_all()?;
            }
            staged.push((temporary, path));
        }
        // What has its name is whole, whenever the power goes.
        if let Some(whole) = &whole
            && !staged.is_empty()
        {
            whole.sync()?;
        }
        for (temporary, path) in staged {
            fs::rename(temporary, path)?;
        }
        match &whole {
            Some(whole) => whole.sync(),
            None => directories.iter().try_for_each(|at| platform::sync_directory(at)),
        }
    }

    /// Makes a directory, and the names of all that were missing durable.
    fn make_directory(&self, directory: &Path) -> io::Result<()> {
        // Whoever finds a directory made finds it durable too.
        let _one_at_a_time = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        let mut missing = Vec::new();
        for above in directory.ancestors() {
            if above == &*self.root || above.is_dir() {
                break;
            }
            missing.push(above);
        }
        if missing.is_empty() {
            return Ok(());
        }
        fs::create_dir_all(directory)?;
        missing.iter().filter_map(|made| made.parent()).try_for_each(platform::sync_directory)
    }
}

/// The length of a file; none when it is not there.
fn size(path: &Path) -> io::Result<Option<u64>> {
    match fs::metadata(path) {
        Ok(found) => Ok(Some(found.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The bytes of a file, which are those of the content.
fn read(path: &Path, id: ContentId) -> io::Result<Option<Bytes>> {
    match fs::read(path) {
        Ok(bytes) if Hash::of(&bytes) == id.hash() => Ok(Some(Bytes::from(bytes))),
        Ok(_) => {
            Err(io::Error::new(io::ErrorKind::InvalidData, format!("{id} is damaged on disk")))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

async fn doing<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Kept<T> {
    let failed = move |error: io::Error| {
        let why = format!("the content store cannot {what}: {error}");
        match error.kind() {
            io::ErrorKind::InvalidData => StoreError::Damaged(why),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Full(why),
            _ => StoreError::Failed(why),
        }
    };
    blocking(move || work().map_err(failed)).await
}

#[async_trait]
impl Contents for DiskContents {
    async fn put(&self, team: &str, contents: Vec<(ContentId, Bytes)>) -> Kept<()> {
        let (store, team) = (self.clone(), team.to_owned());
        doing("write", move || store.put_all(&team, &contents)).await
    }

    async fn get(&self, team: &str, id: ContentId) -> Kept<Option<Bytes>> {
        let path = self.path(team, id);
        doing("read", move || read(&path, id)).await
    }

    async fn size(&self, team: &str, id: ContentId) -> Kept<Option<u64>> {
        let path = self.path(team, id);
        doing("look", move || size(&path)).await
    }

    async fn verify(&self, team: &str, id: ContentId) -> Kept<bool> {
        let path = self.path(team, id);
        doing("look", move || match read(&path, id) {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                warn!(%error, path = %path.display(), "it is set aside");
                fs::rename(&path, path.with_extension("damaged"))?;
                path.parent().map_or(Ok(()), platform::sync_directory)?;
                Ok(false)
            }
            found => Ok(found?.is_some()),
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contents::conformance;

    #[tokio::test]
    async fn conforms() {
        let root = tempfile::tempdir().unwrap();
        let open = || DiskContents::open(root.path()).unwrap();
        conformance::suite(open).await;
    }

    #[tokio::test]
    async fn damage_is_an_error_and_never_an_answer() {
        let root = tempfile::tempdir().unwrap();
        let store = DiskContents::open(root.path()).unwrap();
        let id = ContentId::Chunk(Hash::of(b"whole"));
        store.put("t", vec![(id, Bytes::from_static(b"whole"))]).await.unwrap();
        fs::write(store.path("t", id), b"torn").unwrap();
        let damaged = store.get("t", id).await.unwrap_err();
        assert!(matches!(damaged, StoreError::Damaged(why) if why.contains("damaged")));
    }

    #[tokio::test]
    async fn what_is_damaged_can_be_put_again() {
        let root = tempfile::tempdir().unwrap();
        let store = DiskContents::open(root.path()).unwrap();
        let (id, whole) = (ContentId::Chunk(Hash::of(b"whole")), Bytes::from_static(b"whole"));
        let put = async || store.put("t", vec![(id, whole.clone())]).await.unwrap();
        put().await;
        // A wrong length is seen by all who put it.
        fs::write(store.path("t", id), b"torn").unwrap();
        put().await;
        assert_eq!(store.get("t", id).await.unwrap(), Some(whole.clone()));
        // Wrong bytes, by those who look.
        fs::write(store.path("t", id), b"wrong").unwrap();
        assert!(!store.verify("t", id).await.unwrap());
        assert_eq!(store.size("t", id).await.unwrap(), None);
        put().await;
        assert!(store.verify("t", id).await.unwrap());
        assert_eq!(store.get("t", id).await.unwrap(), Some(whole.clone()));
    }

    #[tokio::test]
    async fn a_batch_is_kept_beside_what_is_there() {
        let root = tempfile::tempdir().unwrap();
        let store = DiskContents::open(root.path()).unwrap();
        let batch: Vec<(ContentId, Bytes)> = (0..200_u32)
            .map(|number| {
                let bytes = Bytes::copy_from_slice(&number.to_be_bytes());
                (ContentId::Chunk(Hash::of(&bytes)), bytes)
            })
            .collect();
        for count in [3, 100, 200, 200] {
            store.put("t", batch[..count].to_vec()).await.unwrap();
            for (id, bytes) in &batch[..count] {
                assert_eq!(store.get("t", *id).await.unwrap().as_ref(), Some(bytes));
            }
            assert_eq!(fs::read_dir(root.path().join("staging")).unwrap().count(), 0);
        }
    }

    #[tokio::test]
    async fn what_a_crash_left_staged_is_cleared() {
        let root = tempfile::tempdir().unwrap();
        DiskContents::open(root.path()).unwrap();
        fs::write(root.path().join("staging/0"), b"half").unwrap();
        DiskContents::open(root.path()).unwrap();
        assert_eq!(fs::read_dir(root.path().join("staging")).unwrap().count(), 0);
    }
}
