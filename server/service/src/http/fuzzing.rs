//! What `tests/fuzz` reaches of the service, and nobody else.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderMap, HeaderValue, header};
use bytes::Bytes;
use s0_api::sync::Submission;
use s0_tree::{ContentId, Tree, TreePath};
use tokio::sync::watch;

use crate::contents::Contents;
use crate::disk::DiskContents;
use crate::holdings::Holdings;
use crate::journal::Journal;
use crate::serve::{Config, local_token};
use crate::service::Service;
use crate::sqlite::SqliteJournal;

/// The routes of a service in this directory, which know one token.
#[must_use]
pub async fn routes(data_dir: &Path, token: &str) -> Option<Router> {
    let journal: Arc<dyn Journal> =
        Arc::new(SqliteJournal::open(&data_dir.join("journal.db")).ok()?);
    let contents: Arc<dyn Contents> =
        Arc::new(DiskContents::open(&data_dir.join("contents")).ok()?);
    journal.put_token(local_token(token)).await.ok()?;
    let holdings = Holdings::new(journal.clone(), contents);
    let config = Config::new(data_dir.to_owned(), "127.0.0.1:0".parse().ok()?);
    // Nobody closes it; the sender must live as long as the routes.
    let (close, closing) = watch::channel(false);
    std::mem::forget(close);
    let service = Arc::new(Service::new(journal, holdings, config.retention(), closing));
    Some(super::routes(service))
}

/// The part of so many bytes that a `Range` header asks for; `Err` when there is none.
///
/// # Errors
/// It lies outside.
pub fn range(header: &str, size: u64) -> Result<Option<Range<u64>>, ()> {
    let mut headers = HeaderMap::new();
    let Ok(value) = HeaderValue::from_str(header) else { return Ok(None) };
    headers.insert(header::RANGE, value);
    super::ranges::asked(&headers, size).map_err(drop)
}

/// A path as the file API takes it.
#[must_use]
pub fn clean(text: &str) -> Option<TreePath> {
    super::files::clean(text).ok()
}

/// The tree of a checkpoint.
pub async fn unpack(packed: &[u8]) -> Option<Tree> {
    crate::volume::unpack(packed.to_vec().into()).await.ok()
}

/// A submission of a replica or a mount, with the contents that come with it in the order of their
/// names; none when it is none.
#[must_use]
pub fn submission(body: Vec<u8>) -> Option<(Submission, Vec<(ContentId, Bytes)>)> {
    let (submission, inline) = super::replicas::read_submission(&body.into()).ok()?;
    let mut inline: Vec<_> = inline.into_iter().collect();
    inline.sort_unstable_by_key(|(id, _)| *id);
    Some((submission, inline))
}

/// The number of a submission, as it is known before the rest is read.
#[must_use]
pub fn submission_number(body: &[u8]) -> Option<u64> {
    super::mounts::number_of(body)
}
