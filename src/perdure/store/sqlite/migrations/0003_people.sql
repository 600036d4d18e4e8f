-- Human tasks. `event` of `run` asked for it; both are null for one that no run asked for. Status codes
-- are those of perdure.values.people.CODES: 0 open, 1 claimed (until `claimed_until`: then it counts as
-- open), from 2 on closed. `form`, `data` and `value` are JSON.
CREATE TABLE perdure_human_task (
    id TEXT PRIMARY KEY,
    namespace TEXT NOT NULL,
    run INTEGER,
    execution INTEGER,
    event INTEGER,
    status INTEGER NOT NULL,
    name TEXT NOT NULL,
    title TEXT NOT NULL,
    description TEXT NOT NULL,
    role TEXT,
    assignee TEXT,
    priority INTEGER NOT NULL,
    form TEXT,
    data TEXT,
    created_at INTEGER NOT NULL,
    due_at INTEGER,
    remind_at INTEGER,
    claimed_by TEXT,
    claimed_at INTEGER,
    claimed_until INTEGER,
    closed_at INTEGER,
    closed_by TEXT,
    value TEXT,
    comment TEXT NOT NULL DEFAULT ''
);
CREATE INDEX perdure_human_task_by_run ON perdure_human_task (run, event);
-- The order of a list of open ones: by when they are due, those without at last, then by age.
CREATE INDEX perdure_human_task_open ON perdure_human_task (coalesce(due_at, 9223372036854775807), id)
    WHERE status IN (0, 1);
CREATE INDEX perdure_human_task_open_by_role
    ON perdure_human_task (role, coalesce(due_at, 9223372036854775807), id) WHERE status IN (0, 1);
CREATE INDEX perdure_human_task_open_by_assignee
    ON perdure_human_task (assignee, coalesce(due_at, 9223372036854775807), id) WHERE status IN (0, 1);
