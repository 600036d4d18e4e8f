-- Activities on offer in task queues (perdure.store.offers). `stage`: 0 ready, 1 delayed (until
-- `not_before`), 2 claimed (by worker `owner`), 3 lost. `rank` is the negative priority. `due`: when it
-- fails if nobody carries it out by then, 0 for never.
CREATE TABLE perdure_task (
    id INTEGER PRIMARY KEY,
    run INTEGER NOT NULL,
    execution INTEGER NOT NULL,
    activity INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    queue TEXT NOT NULL,
    name TEXT NOT NULL,
    lane TEXT NOT NULL,
    rank INTEGER NOT NULL,
    stage INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    not_before INTEGER NOT NULL,
    due INTEGER NOT NULL,
    lost INTEGER NOT NULL,
    owner INTEGER,
    claimed_at INTEGER,
    call BLOB NOT NULL
);
CREATE UNIQUE INDEX perdure_task_by_run ON perdure_task (run, activity);
CREATE INDEX perdure_task_ready ON perdure_task (queue, rank, lane, name, id) WHERE stage = 0;
CREATE INDEX perdure_task_known ON perdure_task (queue, name) WHERE stage = 0;
CREATE INDEX perdure_task_delayed ON perdure_task (not_before) WHERE stage = 1;
CREATE INDEX perdure_task_due ON perdure_task (due) WHERE stage IN (0, 1) AND due > 0;
CREATE INDEX perdure_task_claimed ON perdure_task (queue, lane) WHERE stage = 2;
CREATE INDEX perdure_task_by_owner ON perdure_task (owner) WHERE owner IS NOT NULL;

-- Limits of task queues over all workers; 0 is none. `arrival`: the theoretical arrival time of the rate.
CREATE TABLE perdure_queue (
    queue TEXT PRIMARY KEY,
    max_open INTEGER NOT NULL,
    max_per_key INTEGER NOT NULL,
    spacing INTEGER NOT NULL,
    burst INTEGER NOT NULL,
    arrival INTEGER NOT NULL DEFAULT 0
);

-- The activities that a worker knows by name, as JSON.
ALTER TABLE perdure_worker ADD COLUMN activities TEXT NOT NULL DEFAULT '[]';
