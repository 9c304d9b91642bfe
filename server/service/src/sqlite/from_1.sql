-- The only token of version 1 was that of the service's directory, which is kept anew
-- at each start.
DROP TABLE tokens;
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
    updated INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What clients noted with changes that became entries.
CREATE TABLE notes (
    volume INTEGER NOT NULL REFERENCES volumes ON DELETE CASCADE,
    seq INTEGER NOT NULL,
    note TEXT NOT NULL,
    PRIMARY KEY (volume, seq)
) STRICT, WITHOUT ROWID;
