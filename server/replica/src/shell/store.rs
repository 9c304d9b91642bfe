//! The [`Store`] in an SQLite database.
//!
//! Each kind of record has a table, and a record is kept as the JSON of its type,
//! so that a new field needs no new schema. Rows, of which there is one for each
//! file and all are read at a start, are `MessagePack`, where new fields come last.
//! A lock file beside the database keeps a second process out.

use std::fmt::Display;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, Transaction, params};
use s0_tree::{Name, NodeId, Place, TreePath};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::disk::IntentId;
use crate::platform;
use crate::state::{Outgoing, Record, Row, State, Store, StoreError};
use crate::synced::RowChange;

/// The schema that this software writes.
const SCHEMA: i64 = 4;

const CREATE: &str = "
CREATE TABLE synced (
    parent INTEGER NOT NULL, name TEXT NOT NULL, row BLOB NOT NULL,
    PRIMARY KEY (parent, name)
) WITHOUT ROWID;
CREATE TABLE intents (id INTEGER PRIMARY KEY, intent TEXT NOT NULL);
CREATE TABLE outgoing (only INTEGER PRIMARY KEY CHECK (only = 0), outgoing TEXT NOT NULL);
CREATE TABLE conflicts (path TEXT PRIMARY KEY, conflict TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE settled (id TEXT PRIMARY KEY, settlement TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE withheld (path TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE kept (path TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE facts (only INTEGER PRIMARY KEY CHECK (only = 0), facts TEXT NOT NULL);
";
/// What schema 2 has beyond that.
const CREATE_APPLIED: &str =
    "CREATE TABLE applied (number INTEGER PRIMARY KEY, applied TEXT NOT NULL);";

/// What schema 3 has no more: the bytes of the files of a submission.
const WITHOUT_INLINE: &str = "DROP TABLE IF EXISTS outgoing_inline;";
/// How to go on without the database. What is beside it belongs to it.
const WAY_OUT: &str = "`s0 sync stop`, move it and what begins with its name away, and `s0 sync \
                       start`: disk and Volume are then compared anew, and nothing is removed";

/// The state database of one replica.
#[derive(Debug)]
pub struct SqliteStore {
    db: Connection,
    path: PathBuf,
    /// Whether commits reach the medium before they return.
    durable: bool,
    /// A commit failed, so that nobody knows what the database holds.
    failed: bool,
    /// Dropped last: the lock is held as long as the database is open.
    _lock: File,
}

impl SqliteStore {
    /// Opens the database at `path`, or makes it. Its directory must exist.
    ///
    /// # Errors
    /// Another process has it open; newer software wrote it; it is damaged.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::try_open(path).map_err(|error| at(path, error))
    }

    fn try_open(path: &Path) -> Result<Self, StoreError> {
        let lock = lock(path)?;
        // Made here and not by SQLite, so that only the user can read it.
        platform::open_private(path).map_err(io)?;
        let db = Connection::open(path).map_err(sql)?;
        db.pragma_update(None, "journal_mode", "wal").map_err(sql)?;
        db.pragma_update(None, "synchronous", "full").map_err(sql)?;
        db.set_prepared_statement_cache_capacity(32);
        let mut store = Self { db, path: path.into(), durable: true, failed: false, _lock: lock };
        store.prepare()?;
        Ok(store)
    }

    fn prepare(&mut self) -> Result<(), StoreError> {
        let transaction = self.db.transaction().map_err(sql)?;
        let schema: i64 =
            transaction.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(sql)?;
        match schema {
            SCHEMA => Ok(()),
            0..SCHEMA => {
                if schema == 0 {
                    transaction.execute_batch(CREATE).map_err(sql)?;
                }
                if schema < 2 {
                    transaction.execute_batch(CREATE_APPLIED).map_err(sql)?;
                }
                if schema < 3 {
                    transaction.execute_batch(WITHOUT_INLINE).map_err(sql)?;
                }
                if schema < 4 {
                    pack_rows(&transaction)?;
                }
                transaction.pragma_update(None, "user_version", SCHEMA).map_err(sql)?;
                transaction.commit().map_err(sql)
            }
            other => Err(StoreError(format!(
                "it was written by newer software (schema {other}; this program knows {SCHEMA})"
            ))),
        }
    }

    fn try_commit(
        &mut self,
        records: &[Record],
        rows: &[RowChange],
        durable: bool,
    ) -> Result<(), StoreError> {
        if self.durable != durable {
            let level = if durable { "full" } else { "normal" };
            self.db.pragma_update(None, "synchronous", level).map_err(sql)?;
            self.durable = durable;
        }
        let transaction = self.db.transaction().map_err(sql)?;
        for (place, row) in rows {
            write_row(&transaction, place, row.as_ref())?;
        }
        for record in records {
            write(&transaction, record)?;
        }
        transaction.commit().map_err(sql)
    }
}

impl Store for SqliteStore {
    fn commit(
        &mut self,
        records: &[Record],
        rows: &[RowChange],
        durable: bool,
    ) -> Result<(), StoreError> {
        if self.failed {
            return Err(StoreError("an earlier commit failed; it must be loaded again".into()));
        }
        let done = self.try_commit(records, rows, durable);
        self.failed = done.is_err();
        done.map_err(|error| at(&self.path, error))
    }

    fn load(&mut self) -> Result<State, StoreError> {
        let loaded = self.db.transaction().map_err(sql).and_then(|it| read(&it));
        let state = loaded.map_err(|error| at(&self.path, error))?;
        self.failed = false;
        Ok(state)
    }
}

/// An error with the file that it is about.
fn at(path: &Path, StoreError(why): StoreError) -> StoreError {
    StoreError(format!("{}: {why}", path.display()))
}

/// Takes the lock file beside the database.
fn lock(path: &Path) -> Result<File, StoreError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let file = platform::open_private(&PathBuf::from(name)).map_err(io)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError("another process has it open".into())),
        Err(TryLockError::Error(error)) => Err(io(error)),
    }
}

fn run(
    db: &Transaction<'_>,
    statement: &str,
    values: &[&dyn rusqlite::ToSql],
) -> Result<(), StoreError> {
    let mut statement = db.prepare_cached(statement).map_err(sql)?;
    statement.execute(values).map_err(sql)?;
    Ok(())
}

fn write_row(db: &Transaction<'_>, place: &Place, row: Option<&Row>) -> Result<(), StoreError> {
    let (parent, name) = (number(place.parent.0), place.name.as_str());
    match row {
        Some(row) => run(
            db,
            "INSERT OR REPLACE INTO synced VALUES (?, ?, ?)",
            params![parent, name, pack(row)?],
        ),
        None => run(db, "DELETE FROM synced WHERE parent = ? AND name = ?", params![parent, name]),
    }
}

fn write(db: &Transaction<'_>, record: &Record) -> Result<(), StoreError> {
    let run = |statement: &str, values: &[&dyn rusqlite::ToSql]| run(db, statement, values);
    match record {
        // They come as rows.
        Record::Synced(..) | Record::Moved { .. } => Ok(()),
        Record::Intent(id, Some(intent)) => run(
            "INSERT OR REPLACE INTO intents VALUES (?, ?)",
            params![number(id.0), json(intent)?],
        ),
        Record::Intent(id, None) => run("DELETE FROM intents WHERE id = ?", params![number(id.0)]),
        Record::Outgoing(None) => run("DELETE FROM outgoing", &[]),
        Record::Outgoing(Some(outgoing)) => {
            run("INSERT OR REPLACE INTO outgoing VALUES (0, ?)", params![json(outgoing)?])
        }
        Record::Conflict(path, Some(conflict)) => run(
            "INSERT OR REPLACE INTO conflicts VALUES (?, ?)",
            params![path.as_str(), json(conflict)?],
        ),
        Record::Conflict(path, None) => {
            run("DELETE FROM conflicts WHERE path = ?", params![path.as_str()])
        }
        Record::Settled(id, Some(settlement)) => {
            run("INSERT OR REPLACE INTO settled VALUES (?, ?)", params![id, json(settlement)?])
        }
        Record::Settled(id, None) => run("DELETE FROM settled WHERE id = ?", params![id]),
        Record::Withheld(path, true) => {
            run("INSERT OR REPLACE INTO withheld VALUES (?)", params![path.as_str()])
        }
        Record::Withheld(path, false) => {
            run("DELETE FROM withheld WHERE path = ?", params![path.as_str()])
        }
        Record::Kept(path, true) => {
            run("INSERT OR REPLACE INTO kept VALUES (?)", params![path.as_str()])
        }
        Record::Kept(path, false) => run("DELETE FROM kept WHERE path = ?", params![path.as_str()]),
        Record::Applied(at, Some(applied)) => run(
            "INSERT OR REPLACE INTO applied VALUES (?, ?)",
            params![number(*at), json(applied)?],
        ),
        Record::Applied(at, None) => {
            run("DELETE FROM applied WHERE number = ?", params![number(*at)])
        }
        Record::Facts(facts) => {
            run("INSERT OR REPLACE INTO facts VALUES (0, ?)", params![json(facts)?])
        }
    }
}

/// Everything but the rows goes in as records, so that there is one truth about
/// what a record does.
fn read(db: &Transaction<'_>) -> Result<State, StoreError> {
    let mut state = State::with_rows(read_synced(db)?.into_iter());
    for (path, conflict) in pairs(db, "SELECT path, conflict FROM conflicts")? {
        state.apply(Record::Conflict(tree_path(path)?, Some(parse(&conflict)?)));
    }
    for (id, settlement) in pairs(db, "SELECT id, settlement FROM settled")? {
        state.apply(Record::Settled(id, Some(parse(&settlement)?)));
    }
    for path in rows(db, "SELECT path FROM withheld", |row| row.get(0))? {
        state.apply(Record::Withheld(tree_path(path)?, true));
    }
    for path in rows(db, "SELECT path FROM kept", |row| row.get(0))? {
        state.apply(Record::Kept(tree_path(path)?, true));
    }
    for facts in rows(db, "SELECT facts FROM facts", |row| row.get::<_, String>(0))? {
        state.apply(Record::Facts(parse(&facts)?));
    }
    let intents = rows(db, "SELECT id, intent FROM intents", |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))
    })?;
    for (id, intent) in intents {
        state.apply(Record::Intent(IntentId(id.cast_unsigned()), Some(parse(&intent)?)));
    }
    let applied = rows(db, "SELECT number, applied FROM applied", |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))
    })?;
    for (at, applied) in applied {
        state.apply(Record::Applied(at.cast_unsigned(), Some(parse(&applied)?)));
    }
    state.apply(Record::Outgoing(read_outgoing(db)?));
    Ok(state)
}

fn read_synced(db: &Transaction<'_>) -> Result<Vec<(Place, Row)>, StoreError> {
    read_rows(db, |row| {
        let packed = row.get_ref(2).map_err(sql)?.as_blob().map_err(|error| damaged(&error))?;
        rmp_serde::from_slice(packed).map_err(|error| damaged(&error))
    })
}

/// Schemas before 4 have the rows as JSON.
fn pack_rows(db: &Transaction<'_>) -> Result<(), StoreError> {
    let rows = read_rows(db, |row| {
        parse(row.get_ref(2).map_err(sql)?.as_str().map_err(|error| damaged(&error))?)
    })?;
    rows.iter().try_for_each(|(place, row)| write_row(db, place, Some(row)))
}

fn read_rows(
    db: &Transaction<'_>,
    read: impl Fn(&rusqlite::Row<'_>) -> Result<Row, StoreError>,
) -> Result<Vec<(Place, Row)>, StoreError> {
    let mut statement = db.prepare("SELECT parent, name, row FROM synced").map_err(sql)?;
    let mut found = statement.query([]).map_err(sql)?;
    let mut rows = Vec::new();
    while let Some(row) = found.next().map_err(sql)? {
        let parent: i64 = row.get(0).map_err(sql)?;
        let name = row.get_ref(1).map_err(sql)?.as_str().map_err(|error| damaged(&error))?;
        let name = Name::new(name).map_err(|error| damaged(&error))?;
        rows.push((Place { parent: NodeId(parent.cast_unsigned()), name }, read(row)?));
    }
    Ok(rows)
}

fn read_outgoing(db: &Transaction<'_>) -> Result<Option<Box<Outgoing>>, StoreError> {
    let found = rows(db, "SELECT outgoing FROM outgoing", |row| row.get::<_, String>(0))?;
    found.first().map(|text| parse(text)).transpose()
}

fn rows<T>(
    db: &Transaction<'_>,
    select: &str,
    make: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>, StoreError> {
    let mut statement = db.prepare_cached(select).map_err(sql)?;
    let found = statement.query_map([], make).map_err(sql)?;
    found.collect::<rusqlite::Result<_>>().map_err(sql)
}

fn pairs(db: &Transaction<'_>, select: &str) -> Result<Vec<(String, String)>, StoreError> {
    rows(db, select, |row| Ok((row.get(0)?, row.get(1)?)))
}

/// SQLite's integers are signed; the bits are what counts.
fn number(unsigned: u64) -> i64 {
    unsigned.cast_signed()
}

fn pack(row: &Row) -> Result<Vec<u8>, StoreError> {
    rmp_serde::to_vec(row).map_err(|error| StoreError(error.to_string()))
}

fn json(value: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError(error.to_string()))
}

fn parse<T: DeserializeOwned>(text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|error| damaged(&error))
}

fn tree_path(text: String) -> Result<TreePath, StoreError> {
    TreePath::try_from(text).map_err(|error| damaged(&error))
}

fn damaged(what: &dyn Display) -> StoreError {
    StoreError(format!("it is damaged ({what}). {WAY_OUT}"))
}

#[expect(clippy::needless_pass_by_value, reason = "it is passed to map_err")]
fn sql(error: rusqlite::Error) -> StoreError {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    match error.sqlite_error_code() {
        Some(DatabaseCorrupt | NotADatabase) => damaged(&error),
        _ => StoreError(error.to_string()),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is passed to map_err")]
fn io(error: std::io::Error) -> StoreError {
    StoreError(error.to_string())
}
