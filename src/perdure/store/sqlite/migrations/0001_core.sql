-- Runs, their histories and what wakes them.
--
-- Status codes are those of perdure.values.states.CODES: 0 pending, 1 running, 2 waiting, 3 paused,
-- 4 parked; from 5 on the run has ended. Times are microseconds since 1970.

CREATE TABLE perdure_worker (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    epoch INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('live', 'left', 'dead')),
    name TEXT NOT NULL,
    pid INTEGER NOT NULL,
    host TEXT NOT NULL,
    started_at INTEGER NOT NULL,
    lease_until INTEGER NOT NULL,
    last_batch INTEGER NOT NULL DEFAULT 0,
    -- How many of its runs were taken from it one by one: its next batch looks which.
    recalled INTEGER NOT NULL DEFAULT 0,
    workflows TEXT NOT NULL,
    queues TEXT NOT NULL
);

-- Facts of a start; they never change, except that a run can be moved to another `version`. `execution` is the number of the execution's first run.
CREATE TABLE perdure_run (
    run INTEGER PRIMARY KEY,
    run_id TEXT NOT NULL UNIQUE,
    execution INTEGER NOT NULL,
    namespace TEXT NOT NULL,
    workflow_id TEXT NOT NULL,
    workflow TEXT NOT NULL,
    version TEXT NOT NULL,
    queue TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    parent_execution INTEGER,
    parent_event INTEGER,
    parent_close TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    begins_at INTEGER,
    created_by TEXT,
    correlation_id TEXT,
    tenant TEXT,
    tags TEXT
);
CREATE INDEX perdure_run_by_workflow_id ON perdure_run (namespace, workflow_id, run);
CREATE INDEX perdure_run_by_execution ON perdure_run (execution);
CREATE INDEX perdure_run_by_parent ON perdure_run (parent_execution) WHERE parent_execution IS NOT NULL;
CREATE INDEX perdure_run_by_workflow ON perdure_run (workflow, run);
CREATE INDEX perdure_run_by_correlation_id ON perdure_run (correlation_id, run) WHERE correlation_id IS NOT NULL;
CREATE INDEX perdure_run_by_tenant ON perdure_run (tenant, run) WHERE tenant IS NOT NULL;

-- What changes. Not written when only the history grows: `length` is right while `owner` is null.
CREATE TABLE perdure_state (
    run INTEGER PRIMARY KEY,
    execution INTEGER NOT NULL,
    status INTEGER NOT NULL,
    owner INTEGER,
    wake_at INTEGER,
    length INTEGER NOT NULL,
    closed_at INTEGER,
    reason TEXT,
    detail TEXT,
    unblock TEXT,
    waits TEXT,
    since INTEGER NOT NULL,
    progress TEXT,
    lost_by INTEGER,
    suspected INTEGER NOT NULL DEFAULT 0,
    unread INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX perdure_state_by_status ON perdure_state (status, run);
CREATE INDEX perdure_state_due ON perdure_state (wake_at, run)
    WHERE owner IS NULL AND wake_at IS NOT NULL AND status IN (0, 2, 3, 4);
CREATE INDEX perdure_state_pending ON perdure_state (wake_at, run) WHERE status = 0;
CREATE INDEX perdure_state_by_owner ON perdure_state (owner) WHERE owner IS NOT NULL;
CREATE INDEX perdure_state_claimable ON perdure_state (run) WHERE status = 1 AND owner IS NULL;
CREATE INDEX perdure_state_unserved ON perdure_state (run)
    WHERE status = 4 AND reason IN ('unknown_workflow', 'unserved_queue');

CREATE TABLE perdure_memo (
    run INTEGER PRIMARY KEY,
    memo TEXT NOT NULL
);

-- One row per turn, in the order of commits. Keyed by (run, first) instead, each turn would rewrite
-- a page of its own: eight times the log, a sixth of the speed at 500 runs of 40 turns.
CREATE TABLE perdure_history (
    id INTEGER PRIMARY KEY,
    run INTEGER NOT NULL,
    first INTEGER NOT NULL,
    count INTEGER NOT NULL,
    time INTEGER NOT NULL,
    applied INTEGER NOT NULL,
    worker INTEGER NOT NULL,
    crc INTEGER NOT NULL,
    payload BLOB NOT NULL
);
CREATE UNIQUE INDEX perdure_history_by_run ON perdure_history (run, first);

CREATE TABLE perdure_inbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    execution INTEGER NOT NULL,
    sender TEXT NOT NULL,
    seq INTEGER NOT NULL,
    event BLOB NOT NULL,
    is_control INTEGER NOT NULL,
    created_at INTEGER NOT NULL
);
CREATE INDEX perdure_inbox_by_execution ON perdure_inbox (execution);

-- The last accepted number of each sender: a repeated post is refused also after its row was read.
CREATE TABLE perdure_sender (
    sender TEXT PRIMARY KEY,
    seq INTEGER NOT NULL,
    at INTEGER NOT NULL
) WITHOUT ROWID;

-- Who is told of an execution's end: an execution, or a mailbox.
CREATE TABLE perdure_watch (
    id INTEGER PRIMARY KEY,
    target INTEGER NOT NULL,
    watcher INTEGER,
    mailbox TEXT,
    way TEXT NOT NULL,
    ref INTEGER NOT NULL,
    asked_by TEXT NOT NULL
);
CREATE INDEX perdure_watch_by_target ON perdure_watch (target);
CREATE INDEX perdure_watch_by_watcher ON perdure_watch (watcher) WHERE watcher IS NOT NULL;
CREATE INDEX perdure_watch_by_mailbox ON perdure_watch (mailbox) WHERE mailbox IS NOT NULL;

-- Addresses of callers outside. `until`: when one that nobody keeps open is forgotten.
CREATE TABLE perdure_mailbox (
    mailbox TEXT PRIMARY KEY,
    until INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE perdure_mail (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    mailbox TEXT NOT NULL,
    event BLOB NOT NULL
);
CREATE INDEX perdure_mail_by_mailbox ON perdure_mail (mailbox);

-- Search attributes. `form`: null for text and numbers, -1 for a boolean, else the place in a list.
CREATE TABLE perdure_attr (
    namespace TEXT NOT NULL,
    key TEXT NOT NULL,
    value NOT NULL,
    run INTEGER NOT NULL,
    form INTEGER,
    PRIMARY KEY (namespace, key, value, run)
) WITHOUT ROWID;
CREATE INDEX perdure_attr_by_run ON perdure_attr (run, key);

CREATE TABLE perdure_definition (
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    code TEXT NOT NULL,
    source TEXT NOT NULL,
    queue TEXT NOT NULL,
    is_active INTEGER NOT NULL,
    registered_at INTEGER NOT NULL,
    PRIMARY KEY (name, version)
);

-- Concurrency limits, as the worker that joined last says; 0 is none. Empty while nothing is limited.
CREATE TABLE perdure_limit (
    workflow TEXT PRIMARY KEY,
    max_open INTEGER NOT NULL,
    max_per_key INTEGER NOT NULL,
    on_limit TEXT NOT NULL,
    pool TEXT NOT NULL,
    pool_max INTEGER NOT NULL
) WITHOUT ROWID;

-- Open executions of limited workflows. `place` is that of perdure.values.concurrency.Place: 0 held
-- and 1 ready are in the queue, 2 has a slot, 3 is delayed until `since`, 4 is paused. `deadline`:
-- when a queued one is out of time.
CREATE TABLE perdure_slot (
    execution INTEGER PRIMARY KEY,
    workflow TEXT NOT NULL,
    key TEXT NOT NULL,
    priority INTEGER NOT NULL,
    since INTEGER NOT NULL,
    deadline INTEGER,
    place INTEGER NOT NULL
);
CREATE INDEX perdure_slot_by_workflow ON perdure_slot (workflow, place, key);
CREATE INDEX perdure_slot_ready ON perdure_slot (workflow, priority DESC, since, execution) WHERE place = 1;
CREATE INDEX perdure_slot_of_key ON perdure_slot (workflow, key, place, priority DESC, since, execution)
    WHERE place IN (0, 1);
CREATE INDEX perdure_slot_delayed ON perdure_slot (since) WHERE place = 3;

-- How far the open runs of a workflow were checked against the code that serves it.
CREATE TABLE perdure_sweep (
    workflow TEXT NOT NULL,
    scope TEXT NOT NULL,
    code TEXT NOT NULL,
    began_at INTEGER NOT NULL,
    since INTEGER NOT NULL,
    after INTEGER NOT NULL,
    worker INTEGER NOT NULL,
    PRIMARY KEY (workflow, scope)
) WITHOUT ROWID;

CREATE TABLE perdure_question (
    id TEXT PRIMARY KEY,
    execution INTEGER NOT NULL,
    name TEXT NOT NULL,
    args BLOB NOT NULL,
    deadline INTEGER NOT NULL,
    update_id TEXT NOT NULL,
    answer BLOB
);
CREATE INDEX perdure_question_by_deadline ON perdure_question (deadline);

-- What attempts under way last said of themselves, for the attempt after a crash.
CREATE TABLE perdure_beat (
    run INTEGER NOT NULL,
    activity INTEGER NOT NULL,
    details BLOB NOT NULL,
    PRIMARY KEY (run, activity)
) WITHOUT ROWID;

-- The deciding rows of transactional activities: whoever deletes one, decides.
CREATE TABLE perdure_open_tx (
    run INTEGER NOT NULL,
    activity INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    PRIMARY KEY (run, activity, attempt)
) WITHOUT ROWID;
