-- How long executions are kept that were started with a retention of their own. `keep_for`: microseconds
-- after the end; 0 is for ever. `due`: when something of it may go at the earliest (NULL: never).
CREATE TABLE perdure_keep (
    execution INTEGER NOT NULL PRIMARY KEY,
    keep_for INTEGER NOT NULL,
    due INTEGER
);
CREATE INDEX perdure_keep_due ON perdure_keep (due, execution) WHERE due IS NOT NULL;
