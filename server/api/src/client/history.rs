//! The history of paths.

use reqwest::Method;
use s0_tree::{Seq, TreePath};

use super::{Client, data, json};
use crate::error::Error;
use crate::history::{PathAt, PathHistory, PathVersionId, RestorePath, RestoredPath};
use crate::volumes::Restoring;

impl Client {
    /// The newest versions of a path, at most `limit`; those of entries before `before`,
    /// if that is given. Without `follow`, only what was at this very path, not
    /// where its file was before a rename.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::NotFound`] where nothing was at the path, as far as the
    /// journal is retained.
    pub async fn path_history(
        &self,
        volume: &str,
        path: &TreePath,
        follow: bool,
        before: Option<Seq>,
        limit: usize,
    ) -> Result<PathHistory, Error> {
        let request = self.request(Method::GET, &[volume, "sync", "history"])?;
        let request = request.query(&[("path", path.as_str())]);
        let mut request = request.query(&[("follow", follow)]).query(&[("limit", limit)]);
        if let Some(before) = before {
            request = request.query(&[("before", before.0)]);
        }
        data(request).await
    }

    /// What a path was after an entry.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::Conflict`] where the entry is not retained.
    pub async fn path_at(&self, volume: &str, version: &PathVersionId) -> Result<PathAt, Error> {
        let request = self.request(Method::GET, &[volume, "sync", "history", "version"])?;
        data(request.query(version)).await
    }

    /// Brings a version of a path back, by an ordinary entry, so that everyone learns
    /// of it.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::Conflict`] where somebody changed the path unseen, or
    /// there is nothing to bring back. Nothing was changed then.
    pub async fn restore_path(
        &self,
        volume: &str,
        restore: &RestorePath,
        restoring: &Restoring,
    ) -> Result<RestoredPath, Error> {
        let request = self.request(Method::POST, &[volume, "sync", "history", "restore"])?;
        data(json(request.query(restoring), restore)?).await
    }
}
