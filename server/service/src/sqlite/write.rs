//! What is written to the database, each in the one transaction that it is given.

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, params};
use s0_api::documented::ConflictStatus;
use s0_tree::{Content, ContentId, Hash, Seq, Time};
use serde_json::Value;

use super::read;
use super::rows::{id_bytes, number, seq, to_json};
use crate::journal::{
    Append, AppendError, Checkpoint, ConflictRecord, Kept, SnapshotRecord, Start, StoreError,
    TokenRecord, VolumeRecord,
};

pub(super) fn create_volume(
    db: &Connection,
    record: &VolumeRecord,
    start: Option<Start>,
) -> Kept<()> {
    let head = start.as_ref().map_or(0, |start| number(start.checkpoint.seq.0));
    db.execute(
        "INSERT INTO volumes (id, team, user, source, access_mode, uid, gid, epoch, created,
                              updated, head, retained_after, quota_bytes, quota_inodes,
                              used_bytes, used_inodes)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?11, ?11, ?, ?, ?, ?)",
        params![
            record.id,
            record.team,
            record.user,
            record.source,
            record.access_mode.as_str(),
            record.uid,
            record.gid,
            record.epoch,
            record.created.0,
            record.updated.0,
            head,
            record.quota.bytes.map(number),
            record.quota.inodes.map(number),
            record.used.map(|used| number(used.bytes)),
            record.used.map(|used| number(used.inodes)),
        ],
    )?;
    let volume = db.last_insert_rowid();
    if let Some(Start { checkpoint, contents }) = start {
        insert_checkpoint(db, volume, &checkpoint)?;
        name_contents(db, volume, &contents)?;
    }
    Ok(())
}

pub(super) fn delete_volume(db: &Connection, id: &str) -> Kept<bool> {
    Ok(db.execute("DELETE FROM volumes WHERE id = ?", [id])? > 0)
}

pub(super) fn renew_epochs(db: &Connection, seed: &str) -> Kept<()> {
    db.execute("DELETE FROM tokens WHERE parent IS NOT NULL", [])?;
    db.execute("UPDATE volumes SET epoch = ? || '.' || number", [seed])?;
    Ok(())
}

pub(super) fn append(db: &Connection, append: &Append) -> Result<(), AppendError> {
    append_rows(db, append)?.map_err(|head| match head {
        Some(head) => AppendError::HeadMoved(head),
        None => AppendError::Gone,
    })
}

/// The inner error is the head that is there, or none without a Volume.
fn append_rows(db: &Connection, append: &Append) -> Kept<Result<(), Option<Seq>>> {
    let found: Option<(i64, String, i64)> = db
        .prepare_cached("SELECT number, team, head FROM volumes WHERE id = ?")?
        .query_row([&append.volume], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    let Some((volume, team, head)) = found else { return Ok(Err(None)) };
    if seq(head) != append.head {
        return Ok(Err(Some(seq(head))));
    }
    let mut insert = db.prepare_cached(
        "INSERT INTO entries (volume, seq, time, node, content, size, entry)
         VALUES (?, ?, ?, ?, ?, ?, ?)",
    )?;
    let mut last = append.head;
    for entry in &append.entries {
        if entry.seq != last.next() {
            return Err(StoreError::Failed(format!("entry {} does not follow {last}", entry.seq)));
        }
        last = entry.seq;
        let content = entry.content();
        insert.execute(params![
            volume,
            number(entry.seq.0),
            entry.time.0,
            number(entry.node().0),
            content.map(|content| id_bytes(content.id)),
            content.map(|content| number(content.size)),
            to_json(entry)?,
        ])?;
    }
    for (seq, note) in &append.notes {
        db.prepare_cached("INSERT INTO notes (volume, seq, note) VALUES (?, ?, ?)")?
            .execute(params![volume, number(seq.0), to_json(note)?])?;
    }
    db.prepare_cached(
        "UPDATE volumes SET head = ?, updated = max(updated, ?), used_bytes = ?, used_inodes = ?
         WHERE number = ?",
    )?
    .execute(params![
        number(last.0),
        append.time.0,
        number(append.used.bytes),
        number(append.used.inodes),
        volume
    ])?;
    if let Some(quota) = append.quota {
        db.prepare_cached("UPDATE volumes SET quota_bytes = ?, quota_inodes = ? WHERE number = ?")?
            .execute(params![quota.bytes.map(number), quota.inodes.map(number), volume])?;
    }
    put_inline(db, &team, &append.inline)?;
    name_contents(db, volume, &append.names)?;
    for replica in &append.forgotten {
        for table in ["replicas WHERE volume = ? AND id", "requests WHERE volume = ? AND replica"] {
            db.execute(&format!("DELETE FROM {table} = ?"), params![volume, replica])?;
        }
    }
    for replica in &append.replicas {
        db.prepare_cached(
            "INSERT INTO replicas (volume, id, cursor, record) VALUES (?, ?, ?, ?)
             ON CONFLICT DO UPDATE SET cursor = excluded.cursor, record = excluded.record",
        )?
        .execute(params![
            volume,
            replica.id,
            number(replica.cursor.0),
            to_json(replica)?
        ])?;
    }
    for (replica, answered) in &append.answers {
        db.prepare_cached("UPDATE replicas SET answered = ? WHERE volume = ? AND id = ?")?
            .execute(params![to_json(&**answered)?, volume, replica])?;
    }
    for record in &append.requests {
        db.prepare_cached(
            "INSERT INTO requests (volume, replica, request, body, answer, head)
             VALUES (?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![
            volume,
            record.replica,
            record.request,
            record.body.0,
            record.answer,
            number(record.head.0),
        ])?;
    }
    for conflict in &append.conflicts {
        db.prepare_cached(
            "INSERT INTO conflicts (volume, id, status, record) VALUES (?, ?, ?, ?)",
        )?
        .execute(params![
            volume,
            conflict.id,
            conflict.status.as_str(),
            to_json(conflict)?
        ])?;
    }
    Ok(Ok(()))
}

fn name_contents(db: &Connection, volume: i64, ids: &[ContentId]) -> Kept<()> {
    let mut insert = db.prepare_cached("INSERT OR IGNORE INTO names (volume, id) VALUES (?, ?)")?;
    for id in ids {
        insert.execute(params![volume, id_bytes(*id)])?;
    }
    Ok(())
}

pub(super) fn put_inline(db: &Connection, team: &str, contents: &[(ContentId, Bytes)]) -> Kept<()> {
    let mut insert =
        db.prepare_cached("INSERT OR IGNORE INTO inline (team, id, bytes) VALUES (?, ?, ?)")?;
    for (id, bytes) in contents {
        insert.execute(params![team, id_bytes(*id), &bytes[..]])?;
    }
    Ok(())
}

pub(super) fn lease(db: &Connection, team: &str, ids: &[ContentId], until: Time) -> Kept<()> {
    let mut insert = db.prepare_cached(
        "INSERT INTO leases (team, id, until) VALUES (?, ?, ?)
         ON CONFLICT DO UPDATE SET until = max(until, excluded.until)",
    )?;
    for id in ids {
        insert.execute(params![team, id_bytes(*id), until.0])?;
    }
    Ok(())
}

pub(super) fn put_whole(db: &Connection, team: &str, content: Content, sha256: Hash) -> Kept<()> {
    db.prepare_cached("INSERT OR IGNORE INTO wholes (team, id, size, sha256) VALUES (?, ?, ?, ?)")?
        .execute(params![team, id_bytes(content.id), number(content.size), sha256.0])?;
    Ok(())
}

pub(super) fn set_conflict(
    db: &Connection,
    volume: &str,
    id: &str,
    status: ConflictStatus,
    added: Vec<(String, Value)>,
    time: Time,
) -> Kept<Option<ConflictRecord>> {
    let Some(volume) = read::number_of(db, volume)? else { return Ok(None) };
    let Some(mut record) = read::conflict(db, volume, id)? else { return Ok(None) };
    record.status = status;
    record.updated = time;
    if !record.metadata.is_object() {
        record.metadata = Value::Object(serde_json::Map::new());
    }
    if let Value::Object(metadata) = &mut record.metadata {
        metadata.extend(added);
    }
    db.execute(
        "UPDATE conflicts SET status = ?, record = ? WHERE volume = ? AND id = ?",
        params![status.as_str(), to_json(&record)?, volume, id],
    )?;
    Ok(Some(record))
}

fn known(db: &Connection, volume: &str) -> Kept<i64> {
    read::number_of(db, volume)?.ok_or_else(|| StoreError::Failed("the Volume was deleted".into()))
}

// There is one tree at a seq, so what was stored of it before says the same, or
// is damaged.
fn insert_checkpoint(db: &Connection, volume: i64, checkpoint: &Checkpoint) -> Kept<()> {
    db.execute(
        "INSERT INTO checkpoints (volume, seq, packed) VALUES (?, ?, ?)
         ON CONFLICT DO UPDATE SET packed = excluded.packed",
        params![volume, number(checkpoint.seq.0), &checkpoint.packed[..]],
    )?;
    Ok(())
}

pub(super) fn put_checkpoint(db: &Connection, volume: &str, checkpoint: &Checkpoint) -> Kept<()> {
    insert_checkpoint(db, known(db, volume)?, checkpoint)
}

pub(super) fn retain(db: &Connection, volume: &str, floor: Seq, checkpoints_from: Seq) -> Kept<()> {
    let volume = known(db, volume)?;
    let (floor, from) = (number(floor.0), number(checkpoints_from.0));
    for table in ["entries", "notes"] {
        let delete = format!("DELETE FROM {table} WHERE volume = ? AND seq <= ?");
        db.execute(&delete, params![volume, floor])?;
    }
    db.execute(
        "UPDATE volumes SET retained_after = max(retained_after, ?) WHERE number = ?",
        params![floor, volume],
    )?;
    db.execute(
        "DELETE FROM checkpoints WHERE volume = ?1 AND seq < ?2
         AND seq NOT IN (SELECT seq FROM snapshots WHERE volume = ?1)",
        params![volume, from],
    )?;
    // A client may still repeat its last request after it has read past it, so
    // only records that are below the floor as well go.
    db.execute(
        "DELETE FROM requests WHERE volume = ?1 AND head <= ?2 AND head < coalesce(
           (SELECT cursor FROM replicas WHERE volume = ?1 AND id = requests.replica), ?2 + 1)",
        params![volume, floor],
    )?;
    Ok(())
}

pub(super) fn create_snapshot(
    db: &Connection,
    volume: &str,
    snapshot: &SnapshotRecord,
    checkpoint: &Checkpoint,
) -> Kept<()> {
    let volume = known(db, volume)?;
    insert_checkpoint(db, volume, checkpoint)?;
    db.execute(
        "INSERT INTO snapshots (volume, id, name, description, seq, size, created)
         VALUES (?, ?, ?, ?, ?, ?, ?)",
        params![
            volume,
            snapshot.id,
            snapshot.name,
            snapshot.description,
            number(snapshot.seq.0),
            number(snapshot.size),
            snapshot.created.0,
        ],
    )?;
    Ok(())
}

pub(super) fn delete_snapshot(db: &Connection, volume: &str, id: &str) -> Kept<bool> {
    let Some(volume) = read::number_of(db, volume)? else { return Ok(false) };
    let gone =
        db.execute("DELETE FROM snapshots WHERE volume = ? AND id = ?", params![volume, id])?;
    Ok(gone > 0)
}

pub(super) fn put_token(db: &Connection, token: &TokenRecord) -> Kept<()> {
    db.execute(
        // Not `OR REPLACE`, which would take away what was made with it.
        "INSERT INTO tokens (hash, id, team, user, name, platform, roles, active, expires,
             created, updated, parent, purpose)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (hash) DO UPDATE SET id = excluded.id, team = excluded.team,
             user = excluded.user, name = excluded.name, platform = excluded.platform,
             roles = excluded.roles, active = excluded.active, expires = excluded.expires,
             created = excluded.created, updated = excluded.updated, parent = excluded.parent,
             purpose = excluded.purpose",
        params![
            token.hash.0,
            token.id,
            token.team,
            token.user,
            token.name,
            token.platform,
            to_json(&token.roles)?,
            token.active,
            token.expires.map(|time| time.0),
            token.created.0,
            token.updated.0,
            token.limit.as_ref().map(|limit| limit.parent.0),
            token.limit.as_ref().map(|limit| to_json(&limit.purpose)).transpose()?,
        ],
    )?;
    Ok(())
}

pub(super) fn prolong_token(db: &Connection, hash: Hash, until: Time) -> Kept<()> {
    db.execute(
        "UPDATE tokens SET expires = ?2 WHERE hash = ?1 AND parent IS NOT NULL AND expires < ?2",
        params![hash.0, until.0],
    )?;
    Ok(())
}

pub(super) fn keep_limited_tokens(db: &Connection, before: Time, until: Option<Time>) -> Kept<()> {
    db.execute("DELETE FROM tokens WHERE parent IS NOT NULL AND expires < ?", [before.0])?;
    if let Some(until) = until {
        db.execute("UPDATE tokens SET expires = ? WHERE parent IS NOT NULL", [until.0])?;
    }
    Ok(())
}

pub(super) fn delete_token(db: &Connection, hash: Hash) -> Kept<bool> {
    Ok(db.execute("DELETE FROM tokens WHERE hash = ?", [hash.0])? > 0)
}
