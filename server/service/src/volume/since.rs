//! What others did to a Volume since an upload's base.

use std::collections::HashMap;
use std::sync::Arc;

use s0_tree::{Entry, News, Op, Touch, TreePath};

/// What happened, by path: however long the journal, it takes no more memory than
/// the paths that were touched.
#[derive(Debug, Default)]
pub(crate) struct Since {
    /// What admission compares with: the others' doings.
    pub(crate) news: News,
    /// The newest entry of each path, whoever made it.
    latest: HashMap<TreePath, Arc<Entry>>,
}

impl Since {
    /// Notes the next entry. Those of `replica` are no news to it.
    pub(crate) fn note(&mut self, entry: &Arc<Entry>, replica: &str) {
        let old = entry.old_path.iter();
        for path in old.clone().chain([&entry.path]) {
            self.latest.insert(path.clone(), entry.clone());
        }
        if entry.actor.replica.as_deref() == Some(replica) {
            return;
        }
        for path in old {
            self.news.note(Touch { seq: entry.seq, path: path.clone(), gone: true });
        }
        let gone = matches!(entry.op, Op::Remove { .. });
        self.news.note(Touch { seq: entry.seq, path: entry.path.clone(), gone });
    }

    /// The newest entry that touched one of these.
    pub(crate) fn latest<'a>(
        &self,
        paths: impl Iterator<Item = &'a TreePath>,
    ) -> Option<&Arc<Entry>> {
        paths.filter_map(|path| self.latest.get(path)).max_by_key(|entry| entry.seq)
    }
}
