-- How users' data is kept; see the migration of the SQLite store.
CREATE TABLE perdure_identity (
    id text NOT NULL
);
INSERT INTO perdure_identity (id) SELECT replace(gen_random_uuid()::text, '-', '');

CREATE TABLE perdure_codec (
    codec text NOT NULL,
    sample bytea NOT NULL
);

CREATE TABLE perdure_blob (
    name text COLLATE "C" PRIMARY KEY,
    run bigint NOT NULL,
    first bigint NOT NULL
);
