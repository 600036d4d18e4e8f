-- Runs whose history begins with a copy: of which run, up to which of its events, and why.
-- The origin's own history may be closed, and is not touched; this is where it is asked.
CREATE TABLE perdure_fork (
    run INTEGER PRIMARY KEY,
    origin INTEGER NOT NULL,
    event INTEGER NOT NULL,
    how TEXT NOT NULL
);
CREATE INDEX perdure_fork_by_origin ON perdure_fork (origin);
