-- Activities on offer in task queues, and limits of these; what the columns mean stands in the migration
-- of the SQLite store.
CREATE TABLE perdure_task (
    id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    run bigint NOT NULL,
    execution bigint NOT NULL,
    activity bigint NOT NULL,
    attempt bigint NOT NULL,
    queue text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    lane text COLLATE "C" NOT NULL,
    rank bigint NOT NULL,
    stage smallint NOT NULL,
    created_at bigint NOT NULL,
    not_before bigint NOT NULL,
    due bigint NOT NULL,
    lost bigint NOT NULL,
    owner bigint,
    claimed_at bigint,
    call bytea NOT NULL
);
CREATE UNIQUE INDEX perdure_task_by_run ON perdure_task (run, activity);
CREATE INDEX perdure_task_ready ON perdure_task (queue, rank, lane, name, id) WHERE stage = 0;
CREATE INDEX perdure_task_known ON perdure_task (queue, name) WHERE stage = 0;
CREATE INDEX perdure_task_delayed ON perdure_task (not_before) WHERE stage = 1;
CREATE INDEX perdure_task_due ON perdure_task (due) WHERE stage IN (0, 1) AND due > 0;
CREATE INDEX perdure_task_claimed ON perdure_task (queue, lane) WHERE stage = 2;
CREATE INDEX perdure_task_by_owner ON perdure_task (owner) WHERE owner IS NOT NULL;

CREATE TABLE perdure_queue (
    queue text COLLATE "C" PRIMARY KEY,
    max_open bigint NOT NULL,
    max_per_key bigint NOT NULL,
    spacing bigint NOT NULL,
    burst bigint NOT NULL,
    arrival bigint NOT NULL DEFAULT 0
);

ALTER TABLE perdure_worker ADD COLUMN activities text NOT NULL DEFAULT '[]';
