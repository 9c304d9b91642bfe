//! Names that the service keeps for this mount, so that no other mount makes them, from when a file
//! is made until it is committed.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use s0_api::mounts::Said;
use s0_tree::TreePath;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::core::Core;
use crate::kernel::answer::Errno;

/// How long the service may take to keep a name.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the service was asked to keep, by the numbers of its answers.
pub(crate) type Reserves = Mutex<HashMap<u64, Reserve>>;

/// A name that is to be kept.
#[derive(Debug)]
pub(crate) struct Reserve {
    path: TreePath,
    /// Whoever waits to make it.
    waits: Option<oneshot::Sender<bool>>,
}

impl Core {
    /// Has a name kept for this mount, until it is committed. Whether it was free.
    pub(crate) async fn reserve(&self, path: TreePath) -> Result<bool, Errno> {
        let (reserved, waits) = oneshot::channel();
        self.ask_to_keep(path, Some(reserved));
        let granted = timeout(PATIENCE, waits).await.map_err(|_| Errno::TIMEDOUT)?;
        granted.map_err(|_| Errno::IO)
    }

    /// Has the names kept of what was made and is not committed: others may be there now.
    pub(crate) fn keep_names(&self) {
        let view = self.view();
        self.is_alone.store(false, Ordering::Relaxed);
        // Of a name that another took meanwhile, the commit tells.
        for path in view.fresh_paths() {
            self.ask_to_keep(path, None);
        }
    }

    /// The same on a new connection: what was asked on the one that broke is not answered.
    pub(crate) fn keep_names_again(&self) {
        let mut reserves = self.reserves.lock().unwrap_or_else(PoisonError::into_inner);
        reserves.retain(|_, it| it.waits.as_ref().is_some_and(|waits| !waits.is_closed()));
        drop(reserves);
        self.keep_names();
    }

    fn ask_to_keep(&self, path: TreePath, waits: Option<oneshot::Sender<bool>>) {
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        let mut reserves = self.reserves.lock().unwrap_or_else(PoisonError::into_inner);
        reserves.insert(id, Reserve { path: path.clone(), waits });
        self.link.say(Said::Reserve { id, path });
    }

    /// The service has answered.
    pub(crate) fn kept(&self, id: u64, granted: bool) {
        let reserves = || self.reserves.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Reserve { path, waits }) = reserves().remove(&id) else { return };
        let awaited = waits.is_some_and(|waits| waits.send(granted).is_ok());
        if !granted || awaited || self.view().fresh_paths().contains(&path) {
            return;
        }
        // It was committed or removed meanwhile, or whoever wanted it gave up waiting. Nobody
        // else could ever have it.
        let reserves = reserves();
        if !reserves.values().any(|other| other.path == path) {
            self.link.say(Said::Release { path });
        }
    }

    /// Directories were moved or removed: what was made in them has other names to be kept.
    pub(crate) fn move_names(&self, before: &[TreePath]) {
        if self.is_alone.load(Ordering::Relaxed) {
            return;
        }
        let after = self.view().fresh_paths();
        for path in before.iter().filter(|path| !after.contains(path)) {
            self.link.say(Said::Release { path: path.clone() });
        }
        for path in after.into_iter().filter(|path| !before.contains(path)) {
            self.ask_to_keep(path, None);
        }
    }
}
