//! Journals in an SQLite database. Nothing outside this module names SQLite.
//!
//! One connection writes, on its own thread; a few read, on theirs. The
//! write-ahead log lets them go on at once, and `synchronous=FULL` makes every
//! commit durable before it is answered.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;

use async_trait::async_trait;
use bytes::Bytes;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};
use s0_api::documented::ConflictStatus;
use s0_tree::{Content, ContentId, Entry, Hash, NodeId, Seq, Time};
use serde_json::Value;
use tokio::sync::oneshot;

use crate::journal::{
    Append, AppendError, Checkpoint, ConflictRecord, Journal, Kept, RequestRecord, SnapshotRecord,
    Start, StoreError, Stored, TokenRecord, VolumeRecord,
};

mod read;
mod rows;
mod write;

/// The schema that this program writes.
const VERSION: i64 = 4;
const READERS: usize = 3;
/// Pages that are kept in memory, in KiB, by the connection that writes and by each
/// that reads. The system's own cache has the file.
const CACHES: (i64, i64) = (8192, 2048);

type Work = Box<dyn FnOnce(&mut Connection) + Send>;

/// Journals in one database file.
pub struct SqliteJournal {
    writer: mpsc::Sender<Work>,
    readers: mpsc::Sender<Work>,
    #[cfg(test)]
    pub(crate) faults: Faults,
}

/// Where the next append fails, for tests of those who append.
#[cfg(test)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    BeforeCommit,
    AfterCommit,
}

#[cfg(test)]
#[derive(Debug, Default)]
pub(crate) struct Faults(Mutex<Option<Fault>>);

#[cfg(test)]
impl Faults {
    pub(crate) fn set(&self, fault: Fault) {
        *self.0.lock().unwrap() = Some(fault);
    }

    fn take(&self, fault: Fault) -> bool {
        self.0.lock().unwrap().take_if(|next| *next == fault).is_some()
    }
}

/// Why a database cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It was written by a newer program.
    #[error(
        "the database has version {0}, and this program knows versions up to {VERSION}; install a newer version"
    )]
    Newer(i64),
    /// It was written by an older program, and is only to be read.
    #[error(
        "the database has version {0}, and this program reads version {VERSION}; start the service once, which brings it up"
    )]
    Older(i64),
    /// It is no database, or not whole.
    #[error(
        "it is damaged ({0}), and was not changed. Move it away with what is beside it, and bring \
         a backup back with `s0 service restore`; what is attached keeps its files"
    )]
    Damaged(String),
    /// Anything else.
    #[error("the database cannot be opened: {0}")]
    Failed(String),
}

impl From<rusqlite::Error> for OpenError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
        match error.sqlite_error_code() {
            Some(DatabaseCorrupt | NotADatabase) => Self::Damaged(error.to_string()),
            _ => Self::Failed(error.to_string()),
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        let why = format!("the database failed: {error}");
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => Self::Full(why),
            _ => Self::Failed(why),
        }
    }
}

impl SqliteJournal {
    /// Opens the database at `path`, which is made if it is not there.
    ///
    /// # Errors
    /// It cannot be opened, or a newer program wrote it.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let mut connection = Connection::open(path)?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        configure(&connection, CACHES.0)?;
        connection.pragma_update(None, "synchronous", "full")?;
        migrate(&mut connection)?;
        Self::start(path, connection)
    }

    /// Opens the database at `path` to look at it, beside a service that may run on it.
    /// Whatever would write fails.
    ///
    /// # Errors
    /// It cannot be opened, is not there, or another version of the program wrote it.
    pub fn open_to_read(path: &Path) -> Result<Self, OpenError> {
        let connection = reader(path)?;
        match version(&connection)? {
            VERSION => Self::start(path, connection),
            0 => Err(OpenError::Failed("it is no journal of a service".into())),
            older @ ..VERSION => Err(OpenError::Older(older)),
            newer => Err(OpenError::Newer(newer)),
        }
    }

    fn start(path: &Path, writing: Connection) -> Result<Self, OpenError> {
        let reading = (0..READERS).map(|_| reader(path)).collect::<Result<_, _>>()?;
        let start = |name: &str, connections| {
            serve(name, connections).map_err(|error| OpenError::Failed(error.to_string()))
        };
        Ok(Self {
            writer: start("journal-writer", vec![writing])?,
            readers: start("journal-reader", reading)?,
            #[cfg(test)]
            faults: Faults::default(),
        })
    }

    /// Writes all of it, as it is at one moment, to a database at `path`, where nothing
    /// may be. Others go on meanwhile.
    pub(crate) async fn copy_to(&self, path: &Path) -> Kept<()> {
        let path = path.to_str().map(str::to_owned);
        let path = path.ok_or_else(|| StoreError::Failed("the path is not UTF-8".into()))?;
        self.read(move |db| {
            db.execute("VACUUM INTO ?", [path])?;
            Ok(())
        })
        .await
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Kept<T> + Send + 'static,
    ) -> Kept<T> {
        ask(&self.readers, |connection: &mut Connection| work(connection)).await
    }

    /// Does the work in one transaction.
    async fn write<T: Send + 'static, E: From<StoreError> + Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        ask(&self.writer, |connection: &mut Connection| {
            let transaction = connection
                .transaction_with_behavior(TransactionBehavior::Immediate)
                .map_err(StoreError::from)?;
            let done = work(&transaction)?;
            transaction.commit().map_err(StoreError::from)?;
            Ok(done)
        })
        .await
    }
}

/// Gives every Volume of a database that was brought back another epoch. Nobody else has
/// it open; it is one file when this returns.
///
/// # Errors
/// It cannot be opened or written, or a newer program wrote it.
pub(crate) fn renew_epochs(path: &Path, seed: &str) -> Result<(), OpenError> {
    let mut connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "delete")?;
    connection.pragma_update(None, "synchronous", "full")?;
    migrate(&mut connection)?;
    write::renew_epochs(&connection, seed).map_err(|why| OpenError::Failed(why.to_string()))?;
    connection.close().map_err(|(_, error)| error.into())
}

fn reader(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    configure(&connection, CACHES.1)?;
    Ok(connection)
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

fn configure(connection: &Connection, cache: i64) -> rusqlite::Result<()> {
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "cache_size", -cache)?;
    connection.busy_timeout(std::time::Duration::from_secs(10))?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(())
}

fn migrate(connection: &mut Connection) -> Result<(), OpenError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Exclusive)?;
    let found = version(&transaction)?;
    const STEPS: [&str; 3] = [
        include_str!("sqlite/from_1.sql"),
        include_str!("sqlite/from_2.sql"),
        include_str!("sqlite/from_3.sql"),
    ];
    match found {
        VERSION => {}
        0 => transaction.execute_batch(include_str!("sqlite/schema.sql"))?,
        1..VERSION => {
            for (from, step) in (1..).zip(STEPS).filter(|(from, _)| *from >= found) {
                tracing::info!(from, "the database is brought to the next version");
                transaction.execute_batch(step)?;
            }
        }
        other => return Err(OpenError::Newer(other)),
    }
    transaction.pragma_update(None, "user_version", VERSION)?;
    Ok(transaction.commit()?)
}

/// Gives each connection a thread. They take work in turn, and end when nobody
/// can send any more.
fn serve(name: &str, connections: Vec<Connection>) -> std::io::Result<mpsc::Sender<Work>> {
    let (sender, receiver) = mpsc::channel::<Work>();
    let receiver = Arc::new(Mutex::new(receiver));
    for mut connection in connections {
        let receiver = receiver.clone();
        thread::Builder::new().name(name.into()).spawn(move || {
            loop {
                let next = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
                let Ok(work) = next else { break };
                work(&mut connection);
            }
        })?;
    }
    Ok(sender)
}

async fn ask<T: Send + 'static, E: From<StoreError> + Send + 'static>(
    thread: &mpsc::Sender<Work>,
    work: impl FnOnce(&mut Connection) -> Result<T, E> + Send + 'static,
) -> Result<T, E> {
    let stopped = || StoreError::Failed("the database's thread has stopped".into());
    let (answer, answered) = oneshot::channel();
    let work: Work = Box::new(move |connection| {
        // Whoever asked may have gone; the work counts all the same.
        let _ = answer.send(work(connection));
    });
    thread.send(work).map_err(|_| stopped())?;
    answered.await.map_err(|_| stopped())?
}

#[async_trait]
impl Journal for SqliteJournal {
    async fn create_volume(&self, record: VolumeRecord, start: Option<Start>) -> Kept<()> {
        self.write(move |db| write::create_volume(db, &record, start)).await
    }

    async fn volume(&self, id: &str) -> Kept<Option<VolumeRecord>> {
        let id = id.to_owned();
        self.read(move |db| read::volume(db, &id)).await
    }

    async fn volumes(&self, team: Option<String>) -> Kept<Vec<VolumeRecord>> {
        self.read(move |db| read::volumes(db, team.as_deref())).await
    }

    async fn delete_volume(&self, id: &str) -> Kept<bool> {
        let id = id.to_owned();
        self.write(move |db| write::delete_volume(db, &id)).await
    }

    async fn renew_epochs(&self, seed: &str) -> Kept<()> {
        let seed = seed.to_owned();
        self.write(move |db| write::renew_epochs(db, &seed)).await
    }

    async fn load(&self, volume: &str) -> Kept<Option<Stored>> {
        let volume = volume.to_owned();
        self.read(move |db| read::load(db, &volume)).await
    }

    async fn append(&self, append: Append) -> Result<(), AppendError> {
        #[cfg(test)]
        if self.faults.take(Fault::BeforeCommit) {
            return Err(StoreError::Failed("a fault before the commit".into()).into());
        }
        let done = self.write(move |db| write::append(db, &append)).await;
        #[cfg(test)]
        if self.faults.take(Fault::AfterCommit) {
            return Err(StoreError::Failed("a fault after the commit".into()).into());
        }
        done
    }

    async fn entries(&self, volume: &str, after: Seq, limit: usize) -> Kept<Vec<Entry>> {
        let volume = volume.to_owned();
        self.read(move |db| read::entries(db, &volume, after, limit)).await
    }

    async fn notes(&self, volume: &str, after: Seq, until: Seq) -> Kept<HashMap<Seq, Value>> {
        let volume = volume.to_owned();
        self.read(move |db| read::notes(db, &volume, after, until)).await
    }

    async fn content_of(&self, volume: &str, node: NodeId, version: Seq) -> Kept<Option<Content>> {
        let volume = volume.to_owned();
        self.read(move |db| read::content_of(db, &volume, node, version)).await
    }

    async fn inline(&self, team: &str, ids: Vec<ContentId>) -> Kept<Vec<(ContentId, Bytes)>> {
        let team = team.to_owned();
        self.read(move |db| read::inline(db, &team, &ids)).await
    }

    async fn put_inline(&self, team: &str, contents: Vec<(ContentId, Bytes)>) -> Kept<()> {
        let team = team.to_owned();
        self.write(move |db| write::put_inline(db, &team, &contents)).await
    }

    async fn lease(&self, team: &str, ids: Vec<ContentId>, until: Time) -> Kept<()> {
        let team = team.to_owned();
        self.write(move |db| write::lease(db, &team, &ids, until)).await
    }

    async fn named(&self, volume: &str, ids: Vec<ContentId>) -> Kept<BTreeSet<ContentId>> {
        let volume = volume.to_owned();
        self.read(move |db| read::named(db, &volume, &ids)).await
    }

    async fn put_whole(&self, team: &str, content: Content, sha256: Hash) -> Kept<()> {
        let team = team.to_owned();
        self.write(move |db| write::put_whole(db, &team, content, sha256)).await
    }

    async fn whole_of(&self, team: &str, id: ContentId) -> Kept<Option<Hash>> {
        let team = team.to_owned();
        self.read(move |db| read::whole_of(db, &team, id)).await
    }

    async fn contents_of_whole(&self, team: &str, sha256: Hash) -> Kept<Vec<Content>> {
        let team = team.to_owned();
        self.read(move |db| read::contents_of_whole(db, &team, sha256)).await
    }

    async fn request(
        &self,
        volume: &str,
        replica: &str,
        request: &str,
    ) -> Kept<Option<RequestRecord>> {
        let [volume, replica, request] = [volume, replica, request].map(String::from);
        self.read(move |db| read::request(db, &volume, &replica, &request)).await
    }

    async fn conflicts(
        &self,
        volume: &str,
        status: Option<String>,
        limit: usize,
    ) -> Kept<Vec<ConflictRecord>> {
        let volume = volume.to_owned();
        self.read(move |db| read::conflicts(db, &volume, status.as_deref(), limit)).await
    }

    async fn set_conflict(
        &self,
        volume: &str,
        id: &str,
        status: ConflictStatus,
        added: Vec<(String, Value)>,
        time: Time,
    ) -> Kept<Option<ConflictRecord>> {
        let [volume, id] = [volume, id].map(String::from);
        self.write(move |db| write::set_conflict(db, &volume, &id, status, added, time)).await
    }

    async fn put_checkpoint(&self, volume: &str, checkpoint: Checkpoint) -> Kept<()> {
        let volume = volume.to_owned();
        self.write(move |db| write::put_checkpoint(db, &volume, &checkpoint)).await
    }

    async fn checkpoint(&self, volume: &str, seq: Seq) -> Kept<Option<Checkpoint>> {
        let volume = volume.to_owned();
        self.read(move |db| read::checkpoint(db, &volume, seq)).await
    }

    async fn checkpoints(&self, volume: &str) -> Kept<Vec<Seq>> {
        let volume = volume.to_owned();
        self.read(move |db| read::checkpoints(db, &volume)).await
    }

    async fn first_since(&self, volume: &str, after: Seq, time: Time) -> Kept<Option<Seq>> {
        let volume = volume.to_owned();
        self.read(move |db| read::first_since(db, &volume, after, time)).await
    }

    async fn retain(&self, volume: &str, floor: Seq, checkpoints_from: Seq) -> Kept<()> {
        let volume = volume.to_owned();
        self.write(move |db| write::retain(db, &volume, floor, checkpoints_from)).await
    }

    async fn create_snapshot(
        &self,
        volume: &str,
        snapshot: SnapshotRecord,
        checkpoint: Checkpoint,
    ) -> Kept<()> {
        let volume = volume.to_owned();
        self.write(move |db| write::create_snapshot(db, &volume, &snapshot, &checkpoint)).await
    }

    async fn snapshots(&self, volume: &str) -> Kept<Vec<SnapshotRecord>> {
        let volume = volume.to_owned();
        self.read(move |db| read::snapshots(db, &volume)).await
    }

    async fn delete_snapshot(&self, volume: &str, id: &str) -> Kept<bool> {
        let [volume, id] = [volume, id].map(String::from);
        self.write(move |db| write::delete_snapshot(db, &volume, &id)).await
    }

    async fn put_token(&self, token: TokenRecord) -> Kept<()> {
        self.write(move |db| write::put_token(db, &token)).await
    }

    async fn delete_token(&self, hash: Hash) -> Kept<bool> {
        self.write(move |db| write::delete_token(db, hash)).await
    }

    async fn token(&self, hash: Hash) -> Kept<Option<TokenRecord>> {
        self.read(move |db| read::token(db, hash)).await
    }

    async fn tokens(&self, team: Option<String>) -> Kept<Vec<TokenRecord>> {
        self.read(move |db| read::tokens(db, team.as_deref())).await
    }

    async fn limited_tokens(&self, team: &str) -> Kept<Vec<TokenRecord>> {
        let team = team.to_owned();
        self.read(move |db| read::limited_tokens(db, &team)).await
    }

    async fn prolong_token(&self, hash: Hash, until: Time) -> Kept<()> {
        self.write(move |db| write::prolong_token(db, hash, until)).await
    }

    async fn keep_limited_tokens(&self, before: Time, until: Option<Time>) -> Kept<()> {
        self.write(move |db| write::keep_limited_tokens(db, before, until)).await
    }

    async fn check(&self) -> Kept<Vec<String>> {
        self.read(read::check).await
    }
}

#[cfg(test)]
mod tests;
