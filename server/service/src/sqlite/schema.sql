-- Everything hangs on a Volume's number, which is never reused.
CREATE TABLE volumes (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    team TEXT NOT NULL,
    user TEXT NOT NULL,
    source TEXT,
    access_mode TEXT NOT NULL,
    uid INTEGER NOT NULL,
    gid INTEGER NOT NULL,
    epoch TEXT NOT NULL,
    created INTEGER NOT NULL,
    updated INTEGER NOT NULL,
    head INTEGER NOT NULL,
    retained_after INTEGER NOT NULL,
    quota_bytes INTEGER,
    quota_inodes INTEGER,
    used_bytes INTEGER,
    used_inodes INTEGER
) STRICT;
CREATE INDEX volumes_by_team ON volumes (team, created);

CREATE TABLE entries (
    volume INTEGER NOT NULL REFERENCES volumes ON DELETE CASCADE,
    seq INTEGER NOT NULL,
    time INTEGER NOT NULL,
    node INTEGER NOT NULL,
    content BLOB,
    size INTEGER,
    entry TEXT NOT NULL,
    PRIMARY KEY (volume, seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX contents_by_node ON entries (volume, node, seq) WHERE content IS NOT NULL;

-- What clients noted with changes that became entries.
CREATE TABLE notes (
    volume INTEGER NOT NULL REFERENCES volumes ON DELETE CASCADE,
    seq INTEGER NOT NULL,
    note TEXT NOT NULL,
    PRIMARY KEY (volume, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE replicas (
    volume INTEGER NOT NULL REFERENCES volumes ON DELETE CASCADE,
    id TEXT NOT NULL,
    cursor INTEGER NOT NULL,
    record TEXT NOT NULL,
    answered TEXT,
    PRIMARY KEY (volume, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE requests (
    volume INTEGER NOT NULL REFERENCES volumes ON DELETE CASCADE,
    replica TEXT NOT NULL,
    request TEXT NOT NULL,
    body BLOB NOT NULL,
    answer TEXT NOT NULL,
    head INTEGER NOT NULL,
    PRIMARY KEY (volume, replica, request)
) STRICT;

CREATE TABLE conflicts (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    volume INTEGER NOT NULL REFERENCES volumes ON DELETE CASCADE,
    id TEXT NOT NULL,
    status TEXT NOT NULL,
    record TEXT NOT NULL,
    UNIQUE (volume, id)
) STRICT;
CREATE INDEX conflicts_by_status ON conflicts (volume, status, number);

CREATE TABLE checkpoints (
    volume INTEGER NOT NULL REFERENCES volumes ON DELETE CASCADE,
    seq INTEGER NOT NULL,
    packed BLOB NOT NULL,
    PRIMARY KEY (volume, seq)
) STRICT;

CREATE TABLE snapshots (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    volume INTEGER NOT NULL REFERENCES volumes ON DELETE CASCADE,
    id TEXT NOT NULL,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    seq INTEGER NOT NULL,
    size INTEGER NOT NULL,
    created INTEGER NOT NULL,
    UNIQUE (volume, id)
) STRICT;

-- Contents are a team's. An id is a byte for its kind and the hash.
CREATE TABLE inline (
    team TEXT NOT NULL,
    id BLOB NOT NULL,
    bytes BLOB NOT NULL,
    PRIMARY KEY (team, id)
) STRICT;

CREATE TABLE leases (
    team TEXT NOT NULL,
    id BLOB NOT NULL,
    until INTEGER NOT NULL,
    PRIMARY KEY (team, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE wholes (
    team TEXT NOT NULL,
    id BLOB NOT NULL,
    size INTEGER NOT NULL,
    sha256 BLOB NOT NULL,
    PRIMARY KEY (team, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX wholes_by_hash ON wholes (team, sha256);

-- Which Volume names, or named, which content: who may see it.
CREATE TABLE names (
    volume INTEGER NOT NULL REFERENCES volumes ON DELETE CASCADE,
    id BLOB NOT NULL,
    PRIMARY KEY (volume, id)
) STRICT, WITHOUT ROWID;

-- A limited token has one that it was made with, its parent, and a purpose.
CREATE TABLE tokens (
    hash BLOB PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    team TEXT NOT NULL,
    user TEXT NOT NULL,
    name TEXT NOT NULL,
    platform INTEGER NOT NULL,
    roles TEXT NOT NULL,
    active INTEGER NOT NULL,
    expires INTEGER,
    created INTEGER NOT NULL,
    updated INTEGER NOT NULL,
    parent BLOB REFERENCES tokens ON DELETE CASCADE,
    purpose TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX tokens_by_parent ON tokens (parent) WHERE parent IS NOT NULL;
