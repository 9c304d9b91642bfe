use super::*;
use crate::journal::conformance;

#[tokio::test]
async fn conforms() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("journal.db");
    conformance::suite(|| SqliteJournal::open(&path).unwrap()).await;
}

#[test]
fn a_newer_database_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("journal.db");
    drop(SqliteJournal::open(&path).unwrap());
    let connection = Connection::open(&path).unwrap();
    connection.pragma_update(None, "user_version", VERSION + 1).unwrap();
    assert!(
        matches!(SqliteJournal::open(&path), Err(OpenError::Newer(version)) if version == VERSION + 1)
    );
}

#[tokio::test]
async fn a_database_of_version_1_is_brought_up() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("journal.db");
    drop(SqliteJournal::open(&path).unwrap());
    let connection = Connection::open(&path).unwrap();
    // As version 1 had it.
    connection
        .execute_batch(
            "DROP TABLE tokens;
             DROP TABLE notes;
             ALTER TABLE volumes DROP COLUMN quota_bytes;
             ALTER TABLE volumes DROP COLUMN quota_inodes;
             ALTER TABLE volumes DROP COLUMN used_bytes;
             ALTER TABLE volumes DROP COLUMN used_inodes;
             CREATE TABLE tokens (hash BLOB PRIMARY KEY, team TEXT NOT NULL,
                 user TEXT NOT NULL, permissions TEXT NOT NULL, expires INTEGER
             ) STRICT, WITHOUT ROWID;
             INSERT INTO tokens VALUES (x'00', 'local', 'local', '[]', NULL);
             PRAGMA user_version = 1;",
        )
        .unwrap();
    drop(connection);
    conformance::suite(|| SqliteJournal::open(&path).unwrap()).await;
}

#[tokio::test]
async fn tokens_of_version_3_are_kept() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("journal.db");
    drop(SqliteJournal::open(&path).unwrap());
    let connection = Connection::open(&path).unwrap();
    // As version 3 had it.
    connection
        .execute_batch(
            "DROP INDEX tokens_by_parent;
             ALTER TABLE tokens DROP COLUMN parent;
             ALTER TABLE tokens DROP COLUMN purpose;
             INSERT INTO tokens VALUES (zeroblob(32), 'a', 'team', 'user', 'laptop', 0, '[\"viewer\"]',
                 1, NULL, 1, 1);
             PRAGMA user_version = 3;",
        )
        .unwrap();
    drop(connection);
    let journal = SqliteJournal::open(&path).unwrap();
    let token = journal.token(Hash([0; 32])).await.unwrap().unwrap();
    assert_eq!((token.id.as_str(), token.limit), ("a", None));
    assert!(journal.delete_token(Hash([0; 32])).await.unwrap());
    drop(journal);
    conformance::suite(|| SqliteJournal::open(&path).unwrap()).await;
}
