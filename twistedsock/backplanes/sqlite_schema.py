"""The tables of the store, and how the tables of older versions become the present ones."""

import sqlite3

_VERSIONS = (
    """
CREATE TABLE store (
    epoch BLOB NOT NULL  -- of all channels without a row in ``channels``
);
CREATE TABLE channels (
    id INTEGER PRIMARY KEY,
    name BLOB NOT NULL UNIQUE,
    epoch BLOB NOT NULL,
    head INTEGER NOT NULL,  -- offset of the newest event
    time INTEGER NOT NULL,  -- of the newest event, in milliseconds since 1970
    checksum INTEGER NOT NULL  -- of name, head and time
);
CREATE TABLE batches (
    channel INTEGER NOT NULL REFERENCES channels (id),
    last INTEGER NOT NULL,   -- offset of the last event
    time INTEGER NOT NULL,   -- of the last event
    size INTEGER NOT NULL,   -- bytes of the payloads
    data BLOB NOT NULL,      -- checksum, and ``sqlite_rows``
    PRIMARY KEY (channel, last)
) WITHOUT ROWID;
CREATE INDEX batches_by_time ON batches (time);
""",
    """
-- The run of the system in which transactions have not been synced, a space and a number, or NULL.
ALTER TABLE store ADD COLUMN unsynced BLOB;
CREATE TABLE keys (
    key BLOB PRIMARY KEY,  -- of a publication
    epoch BLOB NOT NULL,
    first INTEGER NOT NULL,  -- offset of its first event
    time INTEGER NOT NULL    -- of the publication, in milliseconds since 1970
) WITHOUT ROWID;
CREATE INDEX keys_by_time ON keys (time);
CREATE INDEX channels_by_time ON channels (time);
""",
    """
-- SQLite gives large rows of ``batches`` a page of their own, so their data is in this row of ``large_data``. That of
-- older versions stays where it is.
ALTER TABLE batches ADD COLUMN large INTEGER;
CREATE TABLE large_data (
    id INTEGER PRIMARY KEY,
    data BLOB NOT NULL
);
CREATE TRIGGER large_data_of_batches AFTER DELETE ON batches WHEN old.large IS NOT NULL
    BEGIN DELETE FROM large_data WHERE id = old.large; END;
-- Keys of older versions are others, and are remembered for ten minutes only.
DROP TABLE keys;
CREATE TABLE keys (
    key BLOB PRIMARY KEY,  -- of a publication
    fingerprint BLOB NOT NULL,  -- of the request with this key
    epoch BLOB NOT NULL,
    first INTEGER NOT NULL,  -- offset of its first event
    time INTEGER NOT NULL    -- of the publication, in milliseconds since 1970
) WITHOUT ROWID;
CREATE INDEX keys_by_time ON keys (time);
""",
    """
-- The same tables. Rows can have payloads of bytes, which older versions would take for damage.
""",
)

SCHEMA_VERSION = len(_VERSIONS)
"""A file of a newer version is not opened."""


def upgrade(connection: sqlite3.Connection, version: int) -> None:
    """Create the tables, or change those of an older version. Call this in a transaction: a program or machine that
    ends in the middle finds the older version."""
    for statements in _VERSIONS[version:]:
        for statement in statements.split(";\n"):
            connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
