-- How long executions are kept that were started with a retention of their own. What the columns mean
-- is said in the migration of the same name of the SQLite store.
CREATE TABLE perdure_keep (
    execution bigint NOT NULL PRIMARY KEY,
    keep_for bigint NOT NULL,
    due bigint
);
CREATE INDEX perdure_keep_due ON perdure_keep (due, execution) WHERE due IS NOT NULL;
