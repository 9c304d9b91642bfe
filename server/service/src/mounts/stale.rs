//! Changes that mounts were told are taken, and have to try again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use s0_tree::{Change, ContentId};

/// One of them.
#[derive(Debug)]
pub(crate) struct StaleClose {
    /// The number of its submission.
    pub(crate) number: u64,
    /// Where it was in that.
    pub(crate) index: usize,
    pub(crate) change: Change,
    /// The small content that came with it.
    pub(crate) content: Option<(ContentId, Bytes)>,
}

/// How many a mount may leave waiting; then they are recorded although it is there.
const MOST: usize = 1024;

/// Those of one mount. Clones are the same ones: they outlive each of its connections.
#[derive(Debug, Clone, Default)]
pub(crate) struct StaleCloses(Arc<Mutex<Vec<StaleClose>>>);

impl StaleCloses {
    fn all(&self) -> MutexGuard<'_, Vec<StaleClose>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn note(&self, close: StaleClose) {
        let mut all = self.all();
        // A submission that is sent again is answered again.
        all.retain(|it| (it.number, it.index) != (close.number, close.index));
        all.push(close);
    }

    /// The mount has tried it again, and that was answered.
    pub(crate) fn concluded(&self, number: u64, index: usize) {
        self.all().retain(|it| (it.number, it.index) != (number, index));
    }

    pub(crate) fn are_too_many(&self) -> bool {
        self.all().len() > MOST
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all().is_empty()
    }

    /// Those that are left, for whoever records them.
    pub(crate) fn take(&self) -> Vec<StaleClose> {
        std::mem::take(&mut self.all())
    }
}
