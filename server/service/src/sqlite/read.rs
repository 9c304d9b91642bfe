//! What is read from the database.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row, params};
use s0_api::volumes::AccessMode;
use s0_tree::{Content, ContentId, Entry, Hash, NodeId, Quota, Seq, Time, Usage};
use serde_json::Value;

use super::rows::{content_from, damaged, from_json, hash_from, id_bytes, number, seq, time};
use crate::journal::{
    Checkpoint, ConflictRecord, Kept, Limit, RequestRecord, SnapshotRecord, Stored, TokenRecord,
    VolumeRecord,
};
use crate::ledger::{Answered, ReplicaRecord};

const VOLUME: &str =
    "SELECT id, team, user, source, access_mode, uid, gid, epoch, created, updated, quota_bytes,
            quota_inodes, used_bytes, used_inodes FROM volumes";

/// The Volume's number, by which all else is found.
pub(super) fn number_of(db: &Connection, volume: &str) -> Kept<Option<i64>> {
    let mut statement = db.prepare_cached("SELECT number FROM volumes WHERE id = ?")?;
    Ok(statement.query_row([volume], |row| row.get(0)).optional()?)
}

fn volume_row(row: &Row<'_>) -> rusqlite::Result<Kept<VolumeRecord>> {
    let mode: String = row.get(4)?;
    let count = |at: usize| -> rusqlite::Result<Option<u64>> {
        Ok(row.get::<_, Option<i64>>(at)?.and_then(|count| u64::try_from(count).ok()))
    };
    let used = |(bytes, inodes)| Usage { bytes, inodes };
    let record = |access_mode| -> rusqlite::Result<VolumeRecord> {
        Ok(VolumeRecord {
            id: row.get(0)?,
            team: row.get(1)?,
            user: row.get(2)?,
            source: row.get(3)?,
            access_mode,
            uid: row.get(5)?,
            gid: row.get(6)?,
            epoch: row.get(7)?,
            quota: Quota { bytes: count(10)?, inodes: count(11)? },
            used: count(12)?.zip(count(13)?).map(used),
            created: time(row.get(8)?),
            updated: time(row.get(9)?),
        })
    };
    AccessMode::parse(&mode).map(record).transpose().map(|record| record.ok_or_else(damaged))
}

pub(super) fn volume(db: &Connection, id: &str) -> Kept<Option<VolumeRecord>> {
    let mut statement = db.prepare_cached(&format!("{VOLUME} WHERE id = ?"))?;
    statement.query_row([id], volume_row).optional()?.transpose()
}

pub(super) fn volumes(db: &Connection, team: Option<&str>) -> Kept<Vec<VolumeRecord>> {
    let sql = format!("{VOLUME} WHERE ?1 IS NULL OR team = ?1 ORDER BY created DESC, number DESC");
    let mut statement = db.prepare_cached(&sql)?;
    let rows = statement.query_map([team], volume_row)?.collect::<rusqlite::Result<Vec<_>>>()?;
    rows.into_iter().collect()
}

pub(super) fn load(db: &Connection, id: &str) -> Kept<Option<Stored>> {
    // One transaction, so that all of it is of one moment.
    let db = db.unchecked_transaction()?;
    let Some(record) = volume(&db, id)? else { return Ok(None) };
    let (volume, head, retained_after) = db.query_row(
        "SELECT number, head, retained_after FROM volumes WHERE id = ?",
        [id],
        |row| Ok((row.get::<_, i64>(0)?, seq(row.get(1)?), seq(row.get(2)?))),
    )?;
    let checkpoints = checkpoints_of(&db, volume)?;
    let mut statement =
        db.prepare_cached("SELECT record, answered FROM replicas WHERE volume = ? ORDER BY id")?;
    let rows = statement
        .query_map([volume], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<Vec<(String, Option<String>)>>>()?;
    let replica = |(record, answered): (String, Option<String>)| -> Kept<ReplicaRecord> {
        let mut record: ReplicaRecord = from_json(&record)?;
        let answered = answered.as_deref().map(from_json::<Answered>).transpose()?;
        record.last = answered.map(Into::into);
        Ok(record)
    };
    let replicas = rows.into_iter().map(replica).collect::<Kept<_>>()?;
    Ok(Some(Stored { record, head, retained_after, checkpoints, replicas }))
}

pub(super) fn entries(db: &Connection, volume: &str, after: Seq, limit: usize) -> Kept<Vec<Entry>> {
    let Some(volume) = number_of(db, volume)? else { return Ok(Vec::new()) };
    let mut statement = db.prepare_cached(
        "SELECT entry FROM entries WHERE volume = ? AND seq > ? ORDER BY seq LIMIT ?",
    )?;
    let rows = statement
        .query_map(params![volume, number(after.0), number(limit as u64)], |row| row.get(0))?
        .collect::<rusqlite::Result<Vec<String>>>()?;
    rows.iter().map(|row| from_json(row)).collect()
}

pub(super) fn content_of(
    db: &Connection,
    volume: &str,
    node: NodeId,
    version: Seq,
) -> Kept<Option<Content>> {
    let Some(volume) = number_of(db, volume)? else { return Ok(None) };
    let mut statement = db.prepare_cached(
        "SELECT content, size FROM entries
         WHERE volume = ? AND node = ? AND seq <= ? AND content IS NOT NULL
         ORDER BY seq DESC LIMIT 1",
    )?;
    let row: Option<(Vec<u8>, i64)> = statement
        .query_row(params![volume, number(node.0), number(version.0)], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()?;
    row.map(|(id, size)| content_from(&id, size)).transpose()
}

pub(super) fn inline(
    db: &Connection,
    team: &str,
    ids: &[ContentId],
) -> Kept<Vec<(ContentId, Bytes)>> {
    let mut statement = db.prepare_cached("SELECT bytes FROM inline WHERE team = ? AND id = ?")?;
    let mut found = Vec::new();
    for id in ids {
        let bytes: Option<Vec<u8>> =
            statement.query_row(params![team, id_bytes(*id)], |row| row.get(0)).optional()?;
        found.extend(bytes.map(|bytes| (*id, Bytes::from(bytes))));
    }
    Ok(found)
}

pub(super) fn named(db: &Connection, volume: &str, ids: &[ContentId]) -> Kept<BTreeSet<ContentId>> {
    let Some(volume) = number_of(db, volume)? else { return Ok(BTreeSet::new()) };
    let mut statement = db.prepare_cached("SELECT 1 FROM names WHERE volume = ? AND id = ?")?;
    let mut found = BTreeSet::new();
    for id in ids {
        if statement.exists(params![volume, id_bytes(*id)])? {
            found.insert(*id);
        }
    }
    Ok(found)
}

pub(super) fn whole_of(db: &Connection, team: &str, id: ContentId) -> Kept<Option<Hash>> {
    let mut statement = db.prepare_cached("SELECT sha256 FROM wholes WHERE team = ? AND id = ?")?;
    let found: Option<Vec<u8>> =
        statement.query_row(params![team, id_bytes(id)], |row| row.get(0)).optional()?;
    found.map(|hash| hash_from(&hash)).transpose()
}

pub(super) fn contents_of_whole(db: &Connection, team: &str, sha256: Hash) -> Kept<Vec<Content>> {
    let mut statement =
        db.prepare_cached("SELECT id, size FROM wholes WHERE team = ? AND sha256 = ?")?;
    let rows = statement
        .query_map(params![team, sha256.0], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<Vec<(Vec<u8>, i64)>>>()?;
    rows.iter().map(|(id, size)| content_from(id, *size)).collect()
}

pub(super) fn request(
    db: &Connection,
    volume: &str,
    replica: &str,
    request: &str,
) -> Kept<Option<RequestRecord>> {
    let Some(volume) = number_of(db, volume)? else { return Ok(None) };
    let mut statement = db.prepare_cached(
        "SELECT body, answer, head FROM requests WHERE volume = ? AND replica = ? AND request = ?",
    )?;
    let row: Option<(Vec<u8>, String, i64)> = statement
        .query_row(params![volume, replica, request], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .optional()?;
    row.map(|(body, answer, head)| {
        Ok(RequestRecord {
            replica: replica.into(),
            request: request.into(),
            body: hash_from(&body)?,
            answer,
            head: seq(head),
        })
    })
    .transpose()
}

pub(super) fn conflicts(
    db: &Connection,
    volume: &str,
    status: Option<&str>,
    limit: usize,
) -> Kept<Vec<ConflictRecord>> {
    let Some(volume) = number_of(db, volume)? else { return Ok(Vec::new()) };
    let mut statement = db.prepare_cached(
        "SELECT record FROM conflicts WHERE volume = ?1 AND (?2 IS NULL OR status = ?2)
         ORDER BY number DESC LIMIT ?3",
    )?;
    let rows = statement
        .query_map(params![volume, status, number(limit as u64)], |row| row.get(0))?
        .collect::<rusqlite::Result<Vec<String>>>()?;
    rows.iter().map(|row| from_json(row)).collect()
}

pub(super) fn conflict(db: &Connection, volume: i64, id: &str) -> Kept<Option<ConflictRecord>> {
    let mut statement =
        db.prepare_cached("SELECT record FROM conflicts WHERE volume = ? AND id = ?")?;
    let row: Option<String> =
        statement.query_row(params![volume, id], |row| row.get(0)).optional()?;
    row.map(|row| from_json(&row)).transpose()
}

fn checkpoint_row(row: &Row<'_>) -> rusqlite::Result<Checkpoint> {
    let packed: Vec<u8> = row.get(1)?;
    Ok(Checkpoint { seq: seq(row.get(0)?), packed: packed.into() })
}

pub(super) fn checkpoint(db: &Connection, volume: &str, at: Seq) -> Kept<Option<Checkpoint>> {
    let Some(volume) = number_of(db, volume)? else { return Ok(None) };
    let mut statement =
        db.prepare_cached("SELECT seq, packed FROM checkpoints WHERE volume = ? AND seq = ?")?;
    Ok(statement.query_row(params![volume, number(at.0)], checkpoint_row).optional()?)
}

pub(super) fn checkpoints(db: &Connection, volume: &str) -> Kept<Vec<Seq>> {
    let Some(volume) = number_of(db, volume)? else { return Ok(Vec::new()) };
    checkpoints_of(db, volume)
}

fn checkpoints_of(db: &Connection, volume: i64) -> Kept<Vec<Seq>> {
    let mut statement =
        db.prepare_cached("SELECT seq FROM checkpoints WHERE volume = ? ORDER BY seq")?;
    let rows = statement.query_map([volume], |row| Ok(seq(row.get(0)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub(super) fn first_since(
    db: &Connection,
    volume: &str,
    after: Seq,
    since: Time,
) -> Kept<Option<Seq>> {
    let Some(volume) = number_of(db, volume)? else { return Ok(None) };
    // Old entries are at the front, and few are older than the limit when this
    // is asked regularly, so the walk is short.
    let mut statement = db.prepare_cached(
        "SELECT seq FROM entries WHERE volume = ? AND seq > ? AND time >= ? ORDER BY seq LIMIT 1",
    )?;
    let row = statement
        .query_row(params![volume, number(after.0), since.0], |row| Ok(seq(row.get(0)?)))
        .optional()?;
    Ok(row)
}

pub(super) fn snapshots(db: &Connection, volume: &str) -> Kept<Vec<SnapshotRecord>> {
    let Some(volume) = number_of(db, volume)? else { return Ok(Vec::new()) };
    let mut statement = db.prepare_cached(
        "SELECT id, name, description, seq, size, created FROM snapshots
         WHERE volume = ? ORDER BY number DESC",
    )?;
    let rows = statement.query_map([volume], |row| {
        Ok(SnapshotRecord {
            id: row.get(0)?,
            name: row.get(1)?,
            description: row.get(2)?,
            seq: seq(row.get(3)?),
            size: row.get::<_, i64>(4)?.cast_unsigned(),
            created: time(row.get(5)?),
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub(super) fn notes(
    db: &Connection,
    volume: &str,
    after: Seq,
    until: Seq,
) -> Kept<HashMap<Seq, Value>> {
    let Some(volume) = number_of(db, volume)? else { return Ok(HashMap::new()) };
    let mut statement =
        db.prepare_cached("SELECT seq, note FROM notes WHERE volume = ? AND seq > ? AND seq <= ?")?;
    let of = params![volume, number(after.0), number(until.0)];
    let rows = statement
        .query_map(of, |row| Ok((seq(row.get(0)?), row.get::<_, String>(1)?)))?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    rows.into_iter().map(|(seq, note)| Ok((seq, from_json(&note)?))).collect()
}

const TOKEN: &str = "SELECT hash, id, team, user, name, platform, roles, active, expires, created,
     updated, parent, purpose FROM tokens";

pub(super) fn token(db: &Connection, hash: Hash) -> Kept<Option<TokenRecord>> {
    let mut statement = db.prepare_cached(&format!("{TOKEN} WHERE hash = ?"))?;
    statement.query_row([hash.0], token_of).optional()?.transpose()
}

pub(super) fn tokens(db: &Connection, team: Option<&str>) -> Kept<Vec<TokenRecord>> {
    let mut statement = db.prepare_cached(&format!(
        "{TOKEN} WHERE parent IS NULL AND (?1 IS NULL OR team = ?1) ORDER BY created DESC, id"
    ))?;
    let rows = statement.query_map([team], token_of)?;
    rows.collect::<rusqlite::Result<Vec<_>>>()?.into_iter().collect()
}

pub(super) fn limited_tokens(db: &Connection, team: &str) -> Kept<Vec<TokenRecord>> {
    let mut statement = db.prepare_cached(&format!(
        "{TOKEN} WHERE parent IS NOT NULL AND team = ? ORDER BY created DESC, id"
    ))?;
    let rows = statement.query_map([team], token_of)?;
    rows.collect::<rusqlite::Result<Vec<_>>>()?.into_iter().collect()
}

fn token_of(row: &Row<'_>) -> rusqlite::Result<Kept<TokenRecord>> {
    let roles: String = row.get(6)?;
    let token = TokenRecord {
        hash: Hash(row.get(0)?),
        id: row.get(1)?,
        team: row.get(2)?,
        user: row.get(3)?,
        name: row.get(4)?,
        platform: row.get(5)?,
        roles: Vec::new(),
        active: row.get(7)?,
        expires: row.get::<_, Option<i64>>(8)?.map(Time),
        created: time(row.get(9)?),
        updated: time(row.get(10)?),
        limit: None,
    };
    let (parent, purpose): (Option<[u8; 32]>, Option<String>) = (row.get(11)?, row.get(12)?);
    let limit = match (parent, purpose) {
        (None, None) => Ok(None),
        (Some(parent), Some(purpose)) => {
            from_json(&purpose).map(|purpose| Some(Limit { parent: Hash(parent), purpose }))
        }
        // Half of a limit must not count as none.
        _ => Err(damaged()),
    };
    Ok(limit.and_then(|limit| Ok(TokenRecord { roles: from_json(&roles)?, limit, ..token })))
}

/// What the database finds wrong with its pages, indices and references.
pub(super) fn check(db: &Connection) -> Kept<Vec<String>> {
    let mut statement = db.prepare("PRAGMA integrity_check(100)")?;
    let mut found: Vec<String> = statement
        .query_map([], |row| row.get::<_, String>(0))?
        .filter(|row| row.as_ref().ok().map(String::as_str) != Some("ok"))
        .collect::<rusqlite::Result<_>>()?;
    let mut statement = db.prepare("PRAGMA foreign_key_check")?;
    let of = |row: &Row<'_>| {
        let (table, parent): (String, String) = (row.get(0)?, row.get(2)?);
        Ok(format!("a row of {table} belongs to no row of {parent}"))
    };
    found.extend(statement.query_map([], of)?.collect::<rusqlite::Result<Vec<_>>>()?);
    Ok(found)
}
