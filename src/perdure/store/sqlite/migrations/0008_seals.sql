-- How users' data is kept. What this database is called in a blob store, for ever: one row.
CREATE TABLE perdure_identity (
    id TEXT NOT NULL
);
INSERT INTO perdure_identity (id) SELECT lower(hex(randomblob(12)));

-- What data here is sealed with: a known text as each codec, and each key of it, has sealed it.
CREATE TABLE perdure_codec (
    codec TEXT NOT NULL,
    sample BLOB NOT NULL
);

-- Blobs, and the history row that refers to each. Who deletes the row need not know.
CREATE TABLE perdure_blob (
    name TEXT PRIMARY KEY,
    run INTEGER NOT NULL,
    first INTEGER NOT NULL
) WITHOUT ROWID;
