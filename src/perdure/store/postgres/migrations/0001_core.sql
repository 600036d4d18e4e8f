-- Everything that Perdure keeps. What the columns mean is said where they are used, and in the
-- migrations of the SQLite store, whose tables have the same names.
--
-- Status codes are those of perdure.values.states.CODES: 0 pending, 1 running, 2 waiting, 3 paused,
-- 4 parked; from 5 on the run has ended. Times are microseconds since 1970. Texts that are compared
-- by range, or are keys, sort by bytes.

-- The store's clock: leases, and only leases, go by it.
CREATE FUNCTION perdure_now() RETURNS bigint LANGUAGE sql VOLATILE AS
$$ SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint $$;

CREATE TABLE perdure_worker (
    id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    epoch bigint NOT NULL,
    state text NOT NULL CHECK (state IN ('live', 'left', 'dead')),
    name text NOT NULL,
    pid bigint NOT NULL,
    host text NOT NULL,
    started_at bigint NOT NULL,
    lease_until bigint NOT NULL,
    last_batch bigint NOT NULL DEFAULT 0,
    -- How many of its runs were taken from it one by one: its next batch looks which.
    recalled bigint NOT NULL DEFAULT 0,
    workflows text NOT NULL,
    queues text NOT NULL
) WITH (fillfactor = 50);

CREATE SEQUENCE perdure_run_number;

-- Facts of a start; they never change, except that a run can be moved to another `version`.
-- `execution` is the number of the execution's first run, whose row is locked by whoever depends on
-- what becomes of the execution.
CREATE TABLE perdure_run (
    run bigint PRIMARY KEY,
    run_id text COLLATE "C" NOT NULL UNIQUE,
    execution bigint NOT NULL,
    namespace text COLLATE "C" NOT NULL,
    workflow_id text COLLATE "C" NOT NULL,
    workflow text COLLATE "C" NOT NULL,
    version text NOT NULL,
    queue text NOT NULL,
    attempt bigint NOT NULL,
    parent_execution bigint,
    parent_event bigint,
    parent_close text NOT NULL,
    created_at bigint NOT NULL,
    begins_at bigint,
    created_by text,
    correlation_id text COLLATE "C",
    tenant text COLLATE "C",
    tags text
);
CREATE INDEX perdure_run_by_workflow_id ON perdure_run (namespace, workflow_id, run);
CREATE INDEX perdure_run_by_execution ON perdure_run (execution, run);
CREATE INDEX perdure_run_by_parent ON perdure_run (parent_execution) WHERE parent_execution IS NOT NULL;
CREATE INDEX perdure_run_by_workflow ON perdure_run (workflow, run);
CREATE INDEX perdure_run_by_correlation_id ON perdure_run (correlation_id, run) WHERE correlation_id IS NOT NULL;
CREATE INDEX perdure_run_by_tenant ON perdure_run (tenant, run) WHERE tenant IS NOT NULL;

-- What changes. Not written when only the history grows: `length` is right while `owner` is null.
-- Half of each page is free, so that an update that touches no index stays on its page.
CREATE TABLE perdure_state (
    run bigint PRIMARY KEY,
    execution bigint NOT NULL,
    status smallint NOT NULL,
    owner bigint,
    wake_at bigint,
    length bigint NOT NULL,
    closed_at bigint,
    reason text,
    detail text,
    unblock text,
    waits text,
    since bigint NOT NULL,
    progress text,
    lost_by bigint,
    suspected bigint NOT NULL DEFAULT 0,
    unread bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
CREATE INDEX perdure_state_by_status ON perdure_state (status, run);
CREATE INDEX perdure_state_due ON perdure_state (wake_at, run)
    WHERE owner IS NULL AND wake_at IS NOT NULL AND status IN (0, 2, 3, 4);
CREATE INDEX perdure_state_pending ON perdure_state (wake_at, run) WHERE status = 0;
CREATE INDEX perdure_state_by_owner ON perdure_state (owner) WHERE owner IS NOT NULL;
CREATE INDEX perdure_state_claimable ON perdure_state (run) WHERE status = 1 AND owner IS NULL;
CREATE INDEX perdure_state_unserved ON perdure_state (run)
    WHERE status = 4 AND reason IN ('unknown_workflow', 'unserved_queue');

CREATE TABLE perdure_memo (
    run bigint PRIMARY KEY,
    memo text NOT NULL
);

-- One row per turn. `id` is made of the number of the transaction and a place in it, so that whoever
-- reads in the order of ids, up to the oldest transaction that is still open, misses none.
CREATE TABLE perdure_history (
    id bigint PRIMARY KEY,
    run bigint NOT NULL,
    first bigint NOT NULL,
    count bigint NOT NULL,
    time bigint NOT NULL,
    applied bigint NOT NULL,
    worker bigint NOT NULL,
    crc bigint NOT NULL,
    payload bytea NOT NULL
);
CREATE UNIQUE INDEX perdure_history_by_run ON perdure_history (run, first);

CREATE TABLE perdure_inbox (
    id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    execution bigint NOT NULL,
    sender text NOT NULL,
    seq bigint NOT NULL,
    event bytea NOT NULL,
    is_control bigint NOT NULL,
    created_at bigint NOT NULL
);
CREATE INDEX perdure_inbox_by_execution ON perdure_inbox (execution);

CREATE TABLE perdure_sender (
    sender text COLLATE "C" PRIMARY KEY,
    seq bigint NOT NULL,
    at bigint NOT NULL
);

CREATE TABLE perdure_watch (
    id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    target bigint NOT NULL,
    watcher bigint,
    mailbox text,
    way text NOT NULL,
    ref bigint NOT NULL,
    asked_by text NOT NULL
);
CREATE INDEX perdure_watch_by_target ON perdure_watch (target);
CREATE INDEX perdure_watch_by_watcher ON perdure_watch (watcher) WHERE watcher IS NOT NULL;
CREATE INDEX perdure_watch_by_mailbox ON perdure_watch (mailbox) WHERE mailbox IS NOT NULL;

CREATE TABLE perdure_mailbox (
    mailbox text COLLATE "C" PRIMARY KEY,
    until bigint NOT NULL
);

CREATE TABLE perdure_mail (
    id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    mailbox text NOT NULL,
    event bytea NOT NULL
);
CREATE INDEX perdure_mail_by_mailbox ON perdure_mail (mailbox);

-- Search attributes: text, numbers and booleans, compared as JSON compares them.
CREATE TABLE perdure_attr (
    namespace text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    value jsonb NOT NULL,
    run bigint NOT NULL,
    form bigint,
    PRIMARY KEY (namespace, key, value, run)
);
CREATE INDEX perdure_attr_by_run ON perdure_attr (run, key);

CREATE TABLE perdure_definition (
    name text COLLATE "C" NOT NULL,
    version text COLLATE "C" NOT NULL,
    code text NOT NULL,
    source text NOT NULL,
    queue text NOT NULL,
    is_active bigint NOT NULL,
    registered_at bigint NOT NULL,
    id text,
    PRIMARY KEY (name, version)
);

CREATE TABLE perdure_limit (
    workflow text COLLATE "C" PRIMARY KEY,
    max_open bigint NOT NULL,
    max_per_key bigint NOT NULL,
    on_limit text NOT NULL,
    pool text NOT NULL,
    pool_max bigint NOT NULL
);

CREATE TABLE perdure_slot (
    execution bigint PRIMARY KEY,
    workflow text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    priority bigint NOT NULL,
    since bigint NOT NULL,
    deadline bigint,
    place bigint NOT NULL
) WITH (fillfactor = 50);
CREATE INDEX perdure_slot_by_workflow ON perdure_slot (workflow, place, key);
CREATE INDEX perdure_slot_ready ON perdure_slot (workflow, priority DESC, since, execution) WHERE place = 1;
CREATE INDEX perdure_slot_of_key ON perdure_slot (workflow, key, place, priority DESC, since, execution)
    WHERE place IN (0, 1);
CREATE INDEX perdure_slot_delayed ON perdure_slot (since) WHERE place = 3;

CREATE TABLE perdure_sweep (
    workflow text COLLATE "C" NOT NULL,
    scope text COLLATE "C" NOT NULL,
    code text NOT NULL,
    began_at bigint NOT NULL,
    since bigint NOT NULL,
    after bigint NOT NULL,
    worker bigint NOT NULL,
    PRIMARY KEY (workflow, scope)
);

CREATE TABLE perdure_question (
    id text COLLATE "C" PRIMARY KEY,
    execution bigint NOT NULL,
    name text NOT NULL,
    args bytea NOT NULL,
    deadline bigint NOT NULL,
    update_id text NOT NULL,
    answer bytea
);
CREATE INDEX perdure_question_by_deadline ON perdure_question (deadline);

CREATE TABLE perdure_beat (
    run bigint NOT NULL,
    activity bigint NOT NULL,
    details bytea NOT NULL,
    PRIMARY KEY (run, activity)
);

CREATE TABLE perdure_open_tx (
    run bigint NOT NULL,
    activity bigint NOT NULL,
    attempt bigint NOT NULL,
    PRIMARY KEY (run, activity, attempt)
);

CREATE TABLE perdure_fork (
    run bigint PRIMARY KEY,
    origin bigint NOT NULL,
    event bigint NOT NULL,
    how text NOT NULL
);
CREATE INDEX perdure_fork_by_origin ON perdure_fork (origin);

CREATE TABLE perdure_human_task (
    id text COLLATE "C" PRIMARY KEY,
    namespace text NOT NULL,
    run bigint,
    execution bigint,
    event bigint,
    status smallint NOT NULL,
    name text NOT NULL,
    title text NOT NULL,
    description text NOT NULL,
    role text,
    assignee text,
    priority bigint NOT NULL,
    form text,
    data text,
    created_at bigint NOT NULL,
    due_at bigint,
    remind_at bigint,
    claimed_by text,
    claimed_at bigint,
    claimed_until bigint,
    closed_at bigint,
    closed_by text,
    value text,
    comment text NOT NULL DEFAULT ''
);
CREATE INDEX perdure_human_task_by_run ON perdure_human_task (run, event);
CREATE INDEX perdure_human_task_open ON perdure_human_task (coalesce(due_at, 9223372036854775807), id)
    WHERE status IN (0, 1);
CREATE INDEX perdure_human_task_open_by_role
    ON perdure_human_task (role, coalesce(due_at, 9223372036854775807), id) WHERE status IN (0, 1);
CREATE INDEX perdure_human_task_open_by_assignee
    ON perdure_human_task (assignee, coalesce(due_at, 9223372036854775807), id) WHERE status IN (0, 1);

CREATE TABLE perdure_log (
    id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    run bigint NOT NULL,
    number bigint NOT NULL,
    at bigint NOT NULL,
    level bigint NOT NULL,
    message text NOT NULL,
    data text,
    step text NOT NULL,
    attempt bigint NOT NULL
);
CREATE UNIQUE INDEX perdure_log_by_run ON perdure_log (run, number);

CREATE TABLE perdure_copy (
    run bigint PRIMARY KEY,
    event bigint NOT NULL
);

CREATE TABLE perdure_journal (
    deleted_to bigint NOT NULL
);
INSERT INTO perdure_journal (deleted_to) VALUES (0);
