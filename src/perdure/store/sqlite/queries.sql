-- The store's SQL. A batch is one JSON array per statement, so that its cost in calls does not grow
-- with it; questions about a batch answer with one row that holds a JSON array, for the same reason.
-- Status codes: 0 pending, 1 running, 2 waiting, 3 paused, 4 parked, from 5 on ended.

-- name: fence
UPDATE perdure_worker SET last_batch = ?3, lease_until = ?4
WHERE id = ?1 AND epoch = ?2 AND state = 'live'
RETURNING recalled, EXISTS (SELECT 1 FROM perdure_limit), (SELECT counts FROM perdure_identity);

-- name: next_run
SELECT coalesce(max(run), 0) + 1 FROM perdure_run;

-- name: has_limits
SELECT EXISTS (SELECT 1 FROM perdure_limit), (SELECT counts FROM perdure_identity);

-- Turns whose claim does not hold, or whose run this worker does not own. Code that ran must not have
-- run if its run was put into a queue since it was found.
-- name: lost_claims
SELECT json_group_array(j.value ->> 0)
FROM json_each(?1) j LEFT JOIN perdure_state s ON s.run = j.value ->> 0
WHERE CASE
    WHEN j.value ->> 1 IS NULL THEN s.owner IS NOT ?2
    ELSE s.run IS NULL OR s.owner IS NOT NULL OR s.length <> j.value ->> 1 OR s.status >= 5
        OR j.value ->> 2 = 1 AND s.status = 0 AND s.reason IS NOT NULL
END;

-- What holds on to executions and runs that are to close: executions with inbox rows that the
-- closing turn has not read, then whether there is any child, watcher, watch of their own, human
-- task, open transaction and heartbeat.
-- name: ties
SELECT json_array(
    (
        SELECT json(json_group_array(DISTINCT i.execution))
        FROM json_each(?1) e CROSS JOIN perdure_inbox i ON i.execution = e.value
        WHERE i.id NOT IN (SELECT value FROM json_each(?2))
    ),
    EXISTS (SELECT 1 FROM json_each(?1) e CROSS JOIN perdure_run c ON c.parent_execution = e.value),
    EXISTS (SELECT 1 FROM json_each(?1) e CROSS JOIN perdure_watch w ON w.target = e.value),
    EXISTS (SELECT 1 FROM json_each(?1) e CROSS JOIN perdure_watch w ON w.watcher = e.value),
    EXISTS (SELECT 1 FROM json_each(?3) j CROSS JOIN perdure_human_task t ON t.run = j.value),
    EXISTS (SELECT 1 FROM json_each(?3) j CROSS JOIN perdure_open_tx o ON o.run = j.value),
    EXISTS (SELECT 1 FROM json_each(?3) j CROSS JOIN perdure_beat b ON b.run = j.value)
);

-- Runs with an activity whose deciding row is gone already.
-- name: already_settled
SELECT json_group_array(DISTINCT j.value ->> 0)
FROM json_each(?1) j
WHERE NOT EXISTS (
    SELECT 1 FROM perdure_open_tx o WHERE o.run = j.value ->> 0 AND o.activity = j.value ->> 1
);

-- The latest run of each (namespace, workflow id), and the workflow of its execution's first run.
-- name: latest
SELECT json_group_array(json_array(
    r.namespace, r.workflow_id, r.run, r.execution, r.run_id, s.status,
    coalesce((SELECT f.workflow FROM perdure_run f WHERE f.run = r.execution), r.workflow),
    s.owner,
    s.unread
    + (SELECT count(*) FROM (SELECT 1 FROM perdure_inbox i WHERE i.execution = r.execution LIMIT ?2)),
    r.parent_execution, r.parent_event, r.tenant, s.reason, r.parent_close,
    (
        SELECT p.run_id FROM perdure_run p WHERE p.execution = r.parent_execution AND p.run < r.execution
        ORDER BY p.run DESC LIMIT 1
    )
))
FROM json_each(?1) j
CROSS JOIN perdure_run r ON r.run = (
    SELECT max(x.run) FROM perdure_run x
    WHERE x.namespace = j.value ->> 0 AND x.workflow_id = j.value ->> 1
)
CROSS JOIN perdure_state s ON s.run = r.run;

-- Runs that are there already under one of these run ids.
-- name: same_run_id
SELECT json_group_array(json_array(r.run, r.execution, r.run_id, s.status, r.workflow))
FROM json_each(?1) j CROSS JOIN perdure_run r ON r.run_id = j.value CROSS JOIN perdure_state s ON s.run = r.run;

-- name: insert_runs
INSERT INTO perdure_run
SELECT
    v ->> 0, v ->> 1, v ->> 2, v ->> 3, v ->> 4, v ->> 5, v ->> 6, v ->> 7, v ->> 8,
    coalesce(v ->> 9, before.parent_execution),
    coalesce(v ->> 10, before.parent_event),
    CASE WHEN v ->> 9 IS NULL AND before.run IS NOT NULL THEN before.parent_close ELSE v ->> 11 END,
    v ->> 16, v ->> 17, coalesce(v ->> 12, before.created_by), coalesce(v ->> 13, before.correlation_id),
    coalesce(v ->> 14, before.tenant), coalesce(v ->> 15, before.tags)
FROM (SELECT value AS v FROM json_each(?1))
-- A later run of an execution has the parent, the tags and so on of the first.
LEFT JOIN perdure_run AS before ON before.run = v ->> 2 AND v ->> 2 <> v ->> 0;

-- name: insert_tags
INSERT INTO perdure_tag SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?1);

-- A later run of an execution has lane and priority of the first.
-- name: insert_states
INSERT INTO perdure_state (
    run, execution, status, owner, wake_at, length, closed_at, reason, detail, unblock, waits, since,
    progress, unread, lane, priority
)
SELECT
    value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6,
    value ->> 7, value ->> 8, value ->> 9, value ->> 10, value ->> 11, value ->> 12, value ->> 13,
    coalesce(value ->> 14, (SELECT s.lane FROM perdure_state s WHERE s.run = value ->> 1), ''),
    coalesce(value ->> 15, (SELECT s.priority FROM perdure_state s WHERE s.run = value ->> 1), 0)
FROM json_each(?1);

-- The next numbers of each run, in the order in which the lines came. An attempt may still log when its run was erased,
-- or deleted.
-- name: insert_lines
INSERT INTO perdure_log (run, number, at, level, message, data, step, attempt)
SELECT
    j.value ->> 0,
    coalesce((SELECT max(l.number) FROM perdure_log l WHERE l.run = j.value ->> 0), 0)
        + row_number() OVER (PARTITION BY j.value ->> 0 ORDER BY j.key),
    j.value ->> 1, j.value ->> 2, j.value ->> 3, j.value ->> 4, j.value ->> 5, j.value ->> 6
FROM json_each(?1) j
WHERE (SELECT coalesce(s.reason, '') FROM perdure_state s WHERE s.run = j.value ->> 0) NOT IN ('erasing', 'erased')
ORDER BY j.key;

-- name: drop_old_lines
DELETE FROM perdure_log WHERE id IN (
    SELECT l.id
    FROM (SELECT DISTINCT value ->> 0 AS run FROM json_each(?1)) j
    CROSS JOIN perdure_log l ON l.run = j.run
        AND l.number <= (SELECT max(m.number) FROM perdure_log m WHERE m.run = j.run) - ?2
);

-- name: log
SELECT run, at, level, message, data, step, attempt, number
FROM perdure_log WHERE run = ?1 AND number > ?2 ORDER BY number LIMIT ?3;

-- name: insert_memos
INSERT OR REPLACE INTO perdure_memo SELECT value ->> 0, value ->> 1 FROM json_each(?1);

-- name: insert_copies
INSERT INTO perdure_copy (run, event) SELECT value ->> 0, value ->> 1 FROM json_each(?1);

-- name: insert_forks
INSERT INTO perdure_fork
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM json_each(?1);

-- name: inherit_memos
INSERT OR IGNORE INTO perdure_memo
SELECT j.value ->> 0, m.memo FROM json_each(?1) j CROSS JOIN perdure_memo m ON m.run = j.value ->> 1;

-- name: inherit_attrs
INSERT OR IGNORE INTO perdure_attr (namespace, key, value, run, form)
SELECT a.namespace, a.key, a.value, j.value ->> 0, a.form
FROM json_each(?1) j CROSS JOIN perdure_attr a ON a.run = j.value ->> 1;

-- Tags of its own take the place of those before.
-- name: inherit_tags
INSERT INTO perdure_tag
SELECT t.namespace, t.tag, j.value ->> 0 FROM json_each(?1) j CROSS JOIN perdure_tag t ON t.run = j.value ->> 1
WHERE NOT EXISTS (SELECT 1 FROM perdure_tag o WHERE o.run = j.value ->> 0);

-- name: delete_memos
DELETE FROM perdure_memo WHERE run IN (SELECT value FROM json_each(?1));

-- name: memos
SELECT json_group_array(json_array(m.run, m.memo))
FROM json_each(?1) j CROSS JOIN perdure_memo m ON m.run = j.value;

-- name: insert_history
INSERT INTO perdure_history (run, first, count, time, applied, worker, crc, payload) VALUES

-- name: update_states
UPDATE perdure_state AS state SET
    status = v ->> 1, owner = v ->> 2, wake_at = v ->> 3, length = v ->> 4, closed_at = v ->> 5,
    reason = v ->> 6, detail = v ->> 7, unblock = v ->> 8, waits = v ->> 9, since = v ->> 10,
    progress = coalesce(v ->> 11, progress), unread = v ->> 12,
    lost_by = CASE WHEN v ->> 13 THEN lost_by END,
    -- A run that goes on has only been taken over: it may hold this worker as it held the last.
    suspected = CASE v ->> 1 WHEN 1 THEN suspected ELSE 0 END
FROM (SELECT value AS v FROM json_each(?1))
WHERE state.run = v ->> 0;

-- name: move_runs
UPDATE perdure_run SET version = v ->> 1
FROM (SELECT value AS v FROM json_each(?1))
WHERE run = v ->> 0;

-- name: touch_states
UPDATE perdure_state AS state SET
    owner = v ->> 1, progress = coalesce(v ->> 2, progress), lost_by = NULL
FROM (SELECT value AS v FROM json_each(?1))
WHERE state.run = v ->> 0;

-- Apart from the one above, which writes a row's indexes anew.
-- name: set_progress
UPDATE perdure_state AS state SET progress = v ->> 1
FROM (SELECT value AS v FROM json_each(?1))
WHERE state.run = v ->> 0;

-- name: end_runs
INSERT INTO perdure_history (run, first, count, time, applied, worker, crc, payload)
SELECT
    j.value,
    (SELECT max(h.first) FROM perdure_history h WHERE h.run = j.value)
    + (SELECT h.count FROM perdure_history h WHERE h.run = j.value ORDER BY h.first DESC LIMIT 1),
    ?6,
    -- Its last turn may be younger than a batch that had to wait: time does not go back.
    max(?2, (SELECT h.time FROM perdure_history h WHERE h.run = j.value ORDER BY h.first DESC LIMIT 1)),
    0, ?3, ?4, ?5
FROM json_each(?1) j;

-- What is in the inboxes of these runs' executions.
-- name: unread_of_runs
SELECT r.run, i.event
FROM json_each(?1) j
CROSS JOIN perdure_run r ON r.run = j.value
CROSS JOIN perdure_inbox i ON i.execution = r.execution
ORDER BY i.id;

-- name: recall
UPDATE perdure_worker SET recalled = recalled + 1
WHERE id IN (SELECT s.owner FROM json_each(?1) j CROSS JOIN perdure_state s ON s.run = j.value);

-- name: end_states
UPDATE perdure_state AS state SET
    status = ?3, owner = NULL, wake_at = NULL, waits = NULL,
    closed_at = max(?2, since), since = max(?2, since),
    length = {real_length}
WHERE run IN (SELECT value FROM json_each(?1));

-- The length of a run in `state` according to its history.
-- name: real_length
(
    SELECT h.first + h.count - 1 FROM perdure_history h
    WHERE h.run = state.run ORDER BY h.first DESC LIMIT 1
)

-- name: consume
DELETE FROM perdure_inbox WHERE id IN (SELECT value FROM json_each(?1));

-- name: empty_inboxes
DELETE FROM perdure_inbox WHERE execution IN (SELECT value FROM json_each(?1));

-- name: delete_open_tx
DELETE FROM perdure_open_tx
WHERE (run, activity) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?1));

-- name: delete_open_tx_of_runs
DELETE FROM perdure_open_tx WHERE run IN (SELECT value FROM json_each(?1));

-- name: insert_open_tx
INSERT OR REPLACE INTO perdure_open_tx
SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?1);

-- name: delete_attrs
DELETE FROM perdure_attr
WHERE (run, key) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?1));

-- name: insert_attrs
INSERT INTO perdure_attr (namespace, key, value, run, form)
SELECT r.namespace, j.value ->> 1, j.value ->> 2, r.run, j.value ->> 3
FROM json_each(?1) j CROSS JOIN perdure_run r ON r.run = j.value ->> 0;

-- Where posts go: the current run of an execution, its status, and how full its inbox is.
-- name: targets
WITH wanted AS MATERIALIZED (
    SELECT key AS n, CASE
        WHEN value ->> 0 IS NOT NULL
        THEN (SELECT max(x.run) FROM perdure_run x WHERE x.execution = value ->> 0)
        ELSE (
            SELECT max(x.run) FROM perdure_run x
            WHERE x.namespace = value ->> 1 AND x.workflow_id = value ->> 2
        )
    END AS run
    FROM json_each(?1)
)
SELECT json_group_array(json_array(
    w.n, r.execution, r.run, s.status,
    s.unread
    + (SELECT count(*) FROM (SELECT 1 FROM perdure_inbox i WHERE i.execution = r.execution LIMIT ?2))
))
FROM wanted w CROSS JOIN perdure_run r ON r.run = w.run CROSS JOIN perdure_state s ON s.run = w.run;

-- name: senders
SELECT json_group_array(json_array(s.sender, s.seq))
FROM json_each(?1) j CROSS JOIN perdure_sender s ON s.sender = j.value;

-- name: upsert_senders
INSERT OR REPLACE INTO perdure_sender SELECT value ->> 0, value ->> 1, ?2 FROM json_each(?1);

-- Open children of ended executions.
-- name: children
SELECT json_group_array(json_array(c.run, c.execution, c.parent_close))
FROM json_each(?1) j
CROSS JOIN perdure_run c ON c.parent_execution = j.value
CROSS JOIN perdure_state s ON s.run = c.run
WHERE s.status < 5 AND c.parent_close <> 'abandon';

-- name: insert_inbox
INSERT INTO perdure_inbox (execution, sender, seq, event, is_control, created_at) VALUES

-- name: take_open_tx
DELETE FROM perdure_open_tx WHERE run = ?1 AND activity = ?2 AND attempt = ?3;

-- name: execution_of
SELECT execution FROM perdure_run WHERE run = ?1;

-- name: current_run
SELECT max(run) FROM perdure_run WHERE execution = ?1;

-- Watches ----------------------------------------------------------------------------------------

-- name: insert_watches
INSERT INTO perdure_watch (target, watcher, mailbox, way, ref, asked_by)
SELECT
    value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5
FROM json_each(?1);

-- Takes (target, watcher, mailbox, way) back.
-- name: delete_watches
DELETE FROM perdure_watch WHERE id IN (
    SELECT w.id FROM json_each(?1) j CROSS JOIN perdure_watch w ON w.target = j.value ->> 0
    WHERE w.watcher IS j.value ->> 1 AND w.mailbox IS j.value ->> 2 AND w.way = j.value ->> 3
);

-- Who watches the ended executions, and with which run each of them is now.
-- name: watchers
SELECT json_group_array(json_array(
    w.target, w.watcher, w.mailbox, w.way, w.ref, w.asked_by,
    (SELECT max(x.run) FROM perdure_run x WHERE x.execution = w.watcher)
))
FROM json_each(?1) j CROSS JOIN perdure_watch w ON w.target = j.value;

-- name: delete_watches_of_ended
DELETE FROM perdure_watch WHERE target IN (SELECT value FROM json_each(?1));

-- name: delete_watches_by_ended
DELETE FROM perdure_watch WHERE watcher IN (SELECT value FROM json_each(?1));

-- The last turn of each execution's current run.
-- name: endings
SELECT r.execution, r.workflow_id, r.run_id, h.time, h.payload
FROM json_each(?1) j
CROSS JOIN perdure_run r ON r.run = (
    SELECT max(x.run) FROM perdure_run x WHERE x.execution = j.value
)
CROSS JOIN perdure_history h ON h.run = r.run AND h.first = (
    SELECT max(x.first) FROM perdure_history x WHERE x.run = r.run
);

-- name: open_mailboxes
SELECT json_group_array(m.mailbox)
FROM json_each(?1) j CROSS JOIN perdure_mailbox m ON m.mailbox = j.value;

-- name: keep_mailboxes
INSERT OR REPLACE INTO perdure_mailbox SELECT value, ?2 FROM json_each(?1);

-- name: over_mailboxes
SELECT json_group_array(mailbox) FROM perdure_mailbox
WHERE until < ?2 OR mailbox IN (SELECT value FROM json_each(?1));

-- name: close_mailboxes
DELETE FROM perdure_mailbox WHERE mailbox IN (SELECT value FROM json_each(?1));

-- name: delete_mail_of_mailboxes
DELETE FROM perdure_mail WHERE mailbox IN (SELECT value FROM json_each(?1));

-- name: delete_watches_of_mailboxes
DELETE FROM perdure_watch WHERE mailbox IN (SELECT value FROM json_each(?1));

-- name: insert_mail
INSERT INTO perdure_mail (mailbox, event) VALUES

-- name: mail
SELECT m.id, m.mailbox, m.event
FROM json_each(?1) j CROSS JOIN perdure_mail m ON m.mailbox = j.value
ORDER BY m.id LIMIT ?2;

-- name: drop_mail
DELETE FROM perdure_mail WHERE id IN (SELECT value FROM json_each(?1));

-- Human tasks ------------------------------------------------------------------------------------

-- name: insert_human_tasks
INSERT INTO perdure_human_task (
    id, namespace, run, execution, event, status, name, title, description, role, assignee, priority,
    form, data, created_at, due_at, remind_at, type, approvers, not_by, chain, next_at, form_version,
    expires_at
)
SELECT
    v ->> 0, r.namespace, v ->> 1, v ->> 2, v ->> 3, 0, v ->> 4, v ->> 5, v ->> 6, v ->> 7, v ->> 8,
    v ->> 9, v ->> 10, v ->> 11, v ->> 12, v ->> 13, v ->> 14, v ->> 15, v ->> 16, v ->> 17, v ->> 18,
    v ->> 19, v ->> 20, v ->> 21
FROM (SELECT value AS v FROM json_each(?1)) CROSS JOIN perdure_run r ON r.run = v ->> 1;

-- Runs that give up a human task that is not open any more.
-- name: already_decided
SELECT json_group_array(DISTINCT j.value ->> 0)
FROM json_each(?1) j CROSS JOIN perdure_human_task t ON t.id = j.value ->> 1
WHERE t.status > 1;

-- name: give_up_human_tasks
UPDATE perdure_human_task SET
    status = v ->> 1, closed_at = v ->> 2, claimed_by = NULL, claimed_at = NULL, claimed_until = NULL
FROM (SELECT value AS v FROM json_each(?1))
WHERE id = v ->> 0 AND status IN (0, 1);

-- name: close_human_tasks_of_runs
UPDATE perdure_human_task SET
    status = 4, closed_at = ?2, claimed_by = NULL, claimed_at = NULL, claimed_until = NULL
WHERE run IN (SELECT value FROM json_each(?1)) AND status IN (0, 1);

-- name: task_columns
t.id, t.namespace, t.run, t.execution, t.event, coalesce(r.run_id, ''), coalesce(r.workflow_id, ''),
coalesce(r.workflow, ''), t.status, t.name, t.title, t.description, t.role, t.assignee, t.priority, t.form,
t.data, t.created_at, t.due_at, t.remind_at, t.claimed_by, t.claimed_at, t.claimed_until, t.closed_at,
t.closed_by, t.value, t.comment, t.approvals, t.type, t.approvers, t.not_by, t.chain, t.next_at,
t.form_version, coalesce(t.created_by, r.created_by), coalesce(t.tenant, r.tenant, ''),
t.expires_at

-- name: task_tables
perdure_human_task t LEFT JOIN perdure_run r ON r.run = t.run

-- name: human_task
SELECT {task_columns} FROM {task_tables} WHERE t.id = ?1;

-- name: human_tasks_of_ids
SELECT {task_columns} FROM {task_tables} WHERE t.id IN (SELECT value FROM json_each(?1));

-- Each only if it still is as it was when it was judged.
-- name: change_human_tasks
UPDATE perdure_human_task SET
    status = v ->> 1, role = v ->> 2, assignee = v ->> 3, claimed_by = v ->> 4, claimed_at = v ->> 5,
    claimed_until = v ->> 6, closed_at = v ->> 7, closed_by = v ->> 8, value = v ->> 9,
    comment = v ->> 10, approvals = v ->> 11, chain = v ->> 12, next_at = v ->> 13
FROM (SELECT value AS v FROM json_each(?1))
WHERE id = v ->> 0 AND status = v ->> 14 AND claimed_by IS v ->> 15 AND claimed_until IS v ->> 16;

-- What the clock does; what people wrote is left as it is.
-- name: move_human_tasks
UPDATE perdure_human_task SET
    status = v ->> 1, role = v ->> 2, assignee = v ->> 3, claimed_by = v ->> 4, claimed_at = v ->> 5,
    claimed_until = v ->> 6, closed_at = v ->> 7, chain = v ->> 8, next_at = v ->> 9
FROM (SELECT value AS v FROM json_each(?1))
WHERE id = v ->> 0 AND status IN (0, 1);

-- One that no run asks for.
-- name: insert_human_task
INSERT INTO perdure_human_task (
    id, namespace, status, name, title, description, role, assignee, priority, form, data, created_at,
    due_at, remind_at, type, approvers, not_by, chain, next_at, form_version, expires_at, created_by,
    tenant
)
VALUES (
    ?1, ?2, 0, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21,
    ?22
)
ON CONFLICT (id) DO NOTHING;

-- name: due_human_tasks
SELECT id FROM perdure_human_task WHERE status IN (0, 1) AND next_at IS NOT NULL AND next_at <= ?1
ORDER BY next_at LIMIT ?2;

-- name: insert_human_log
INSERT INTO perdure_human_log (task, run, at, who, verb, data)
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5
FROM json_each(?1) ORDER BY key;

-- name: human_log
SELECT id, at, who, verb, data FROM perdure_human_log WHERE task = ?1 AND id > ?2 ORDER BY id LIMIT ?3;

-- Those that no run asked for, which ended long ago.
-- name: old_human_tasks
SELECT id FROM perdure_human_task INDEXED BY perdure_human_task_alone
WHERE run IS NULL AND status > 1 AND closed_at < ?1
ORDER BY closed_at LIMIT ?2;

-- name: delete_human_log
DELETE FROM perdure_human_log WHERE task IN (SELECT value FROM json_each(?1));

-- name: delete_human_tasks
DELETE FROM perdure_human_task WHERE id IN (SELECT value FROM json_each(?1));

-- Workers ----------------------------------------------------------------------------------------

-- name: insert_worker
INSERT INTO perdure_worker (
    epoch, state, name, pid, host, started_at, lease_until, workflows, queues, activities
)
VALUES (1, 'live', ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
RETURNING id, started_at, lease_until;

-- name: forget_workers
DELETE FROM perdure_worker WHERE state <> 'live' AND lease_until < ?1;

-- name: upsert_definitions
INSERT INTO perdure_definition (
    name, version, code, source, queue, is_active, registered_at, id, triggers
)
SELECT
    value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, ?2, value ->> 6,
    value ->> 7
FROM json_each(?1) WHERE true
ON CONFLICT (name, version) DO UPDATE
SET code = excluded.code, source = excluded.source, queue = excluded.queue, id = excluded.id,
    triggers = excluded.triggers
WHERE (code, source, queue, id, triggers)
    IS NOT (excluded.code, excluded.source, excluded.queue, excluded.id, excluded.triggers);

-- name: activate
UPDATE perdure_definition SET is_active = ?3 WHERE name = ?1 AND version = ?2;

-- name: extend
UPDATE perdure_worker SET lease_until = ?3
WHERE id = ?1 AND epoch = ?2 AND state = 'live' RETURNING recalled, NULL;

-- name: leave
UPDATE perdure_worker SET state = 'left', lease_until = ?3
WHERE id = ?1 AND epoch = ?2 AND state = 'live';

-- name: take_over
UPDATE perdure_worker SET epoch = epoch + 1, state = 'dead'
WHERE id = ?1 AND epoch = ?2 AND state = 'live' AND lease_until = coalesce(?3, lease_until);

-- Whoever had work in flight must be looked at again, so a waiting run becomes a running one.
-- name: release_runs
UPDATE perdure_state AS state SET
    owner = NULL, length = {real_length}, status = CASE status WHEN 2 THEN 1 ELSE status END,
    lost_by = ?2
WHERE owner = ?1;

-- name: beats
SELECT run, activity, details FROM perdure_beat WHERE run IN (SELECT value FROM json_each(?1));

-- name: insert_beats
INSERT OR REPLACE INTO perdure_beat (run, activity, details) VALUES

-- A worker may not know yet that its run was ended.
-- name: delete_beats_of_ended
DELETE FROM perdure_beat
WHERE run IN (SELECT value FROM json_each(?1))
    AND run IN (SELECT s.run FROM json_each(?1) j CROSS JOIN perdure_state s ON s.run = j.value WHERE s.status >= 5);

-- name: delete_beats_of_runs
DELETE FROM perdure_beat WHERE run IN (SELECT value FROM json_each(?1));

-- name: suspect
UPDATE perdure_state AS state SET suspected = suspected + 1 WHERE run = ?1;

-- name: resolve
SELECT last_batch FROM perdure_worker WHERE id = ?1 AND epoch = ?2 AND state = 'live';

-- name: workers
SELECT
    id, epoch, name, pid, host, state, started_at, lease_until, last_batch, workflows, queues, activities
FROM perdure_worker WHERE state = 'live' ORDER BY id;

-- Limits -----------------------------------------------------------------------------------------

-- name: limits
SELECT json_group_array(json_array(
    workflow, max_open, max_per_key, on_limit, pool, pool_max, rate, rate_per_key
))
FROM perdure_limit;

-- name: upsert_limits
INSERT OR REPLACE INTO perdure_limit (
    workflow, max_open, max_per_key, on_limit, pool, pool_max, rate, rate_per_key
)
SELECT
    value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7
FROM json_each(?1);

-- name: delete_limits
DELETE FROM perdure_limit WHERE workflow IN (SELECT value FROM json_each(?1));

-- Open executions of workflows that get a limit: those that have begun have a slot.
-- name: adoptable
SELECT r.execution, r.workflow, coalesce(r.begins_at, r.created_at),
    CASE WHEN state.status = 0 OR {is_unbegun} THEN 3 WHEN {is_new_paused} THEN 4 ELSE 2 END,
    r.tenant, h.payload, {is_unbegun}
FROM perdure_state AS state INDEXED BY perdure_state_by_status
CROSS JOIN perdure_run r ON r.run = state.run
CROSS JOIN perdure_history h ON h.run = r.run AND h.first = 1
WHERE state.status IN (0, 1, 2, 3, 4) AND r.workflow IN (SELECT value FROM json_each(?1));

-- name: is_unbegun
(state.status = 1 AND state.owner IS NULL AND state.length = 1 AND r.run = r.execution)

-- Paused since its start: its history is event 1 alone.
-- name: is_new_paused
(state.status = 3 AND state.length = 1)

-- name: mark_unqueued
UPDATE perdure_state AS state SET reason = iif(status = 0, 'delayed', 'paused_in_queue')
WHERE status IN (0, 3) AND execution IN (
    SELECT s.execution FROM perdure_slot s
    WHERE s.place = iif(state.status = 0, 3, 4) AND s.workflow IN (SELECT value FROM json_each(?1))
);

-- name: unmark_delayed
UPDATE perdure_state AS state SET reason = NULL
WHERE status = 0 AND reason = 'delayed' AND execution IN (
    SELECT s.execution FROM perdure_slot s
    WHERE s.place = 3 AND s.workflow IN (SELECT value FROM json_each(?1))
);

-- name: delete_slots_of_workflows
DELETE FROM perdure_slot WHERE workflow IN (SELECT value FROM json_each(?1));

-- name: workflows_with_queue
SELECT json_group_array(DISTINCT s.workflow)
FROM perdure_slot s WHERE s.place = 1 AND s.workflow IN (SELECT value FROM json_each(?1));

-- name: keys_with_queue
SELECT json_group_array(DISTINCT s.key)
FROM perdure_slot s INDEXED BY perdure_slot_of_key WHERE s.place IN (0, 1) AND s.workflow = ?1;

-- How many slots of each workflow are taken.
-- name: taken
SELECT json_group_array(json_array(j.value, (
    SELECT count(*) FROM perdure_slot s WHERE s.workflow = j.value AND s.place = 2
)))
FROM json_each(?1) j;

-- How many slots of each (workflow, key) are taken.
-- name: taken_of_keys
SELECT json_group_array(json_array(j.value ->> 0, j.value ->> 1, (
    SELECT count(*) FROM perdure_slot s
    WHERE s.workflow = j.value ->> 0 AND s.key = j.value ->> 1 AND s.place = 2
)))
FROM json_each(?1) j;

-- Which of these executions hold a slot.
-- name: holders
SELECT json_group_array(json_array(s.execution, s.workflow, s.key))
FROM json_each(?1) j CROSS JOIN perdure_slot s ON s.execution = j.value WHERE s.place = 2;

-- name: insert_slots
INSERT OR REPLACE INTO perdure_slot (
    execution, workflow, key, priority, since, deadline, place, lane, rank, turn
)
SELECT
    value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6,
    value ->> 7, value ->> 8, value ->> 9
FROM json_each(?1);

-- name: delete_slots
DELETE FROM perdure_slot WHERE execution IN (SELECT value FROM json_each(?1)) RETURNING workflow, key;

-- (execution, since, deadline) of later runs that begin later, or whose execution has no slot.
-- name: delay_slots
UPDATE perdure_slot AS slot SET since = v ->> 1, deadline = v ->> 2, place = 3, rank = -1, turn = 0
FROM (SELECT value AS v FROM json_each(?1))
WHERE slot.execution = v ->> 0 AND (v ->> 3 OR slot.place <> 2)
RETURNING workflow, key, execution;

-- name: pause_slots
UPDATE perdure_slot SET place = 4
WHERE execution IN (SELECT value FROM json_each(?1)) AND place <> 2 RETURNING workflow, key;

-- name: resume_slots
UPDATE perdure_slot SET place = 3
WHERE execution IN (SELECT value FROM json_each(?1)) RETURNING workflow, key, execution;

-- The current runs of these executions wait until they may join the queue.
-- name: delay_states
UPDATE perdure_state AS state SET
    status = 0, owner = NULL, reason = 'delayed',
    wake_at = (SELECT s.since FROM perdure_slot s WHERE s.execution = state.execution)
WHERE run IN (
    SELECT (SELECT max(x.run) FROM perdure_run x WHERE x.execution = j.value) FROM json_each(?1) j
);

-- name: delayed
SELECT execution, workflow, key, priority, lane, rank, turn FROM perdure_slot
WHERE place = 3 AND since <= ?1 ORDER BY since LIMIT ?2;

-- name: place_slots
UPDATE perdure_slot AS slot SET
    place = v ->> 1, rank = coalesce(v ->> 2, rank), turn = coalesce(v ->> 3, turn)
FROM (SELECT value AS v FROM json_each(?1)) WHERE slot.execution = v ->> 0;

-- name: queue_states
UPDATE perdure_state AS state SET
    reason = 'queued', since = ?2,
    wake_at = (SELECT s.deadline FROM perdure_slot s WHERE s.execution = state.execution)
WHERE +status = 0 AND run IN (
    SELECT (SELECT max(x.run) FROM perdure_run x WHERE x.execution = j.value) FROM json_each(?1) j
);

-- The best of a key in one place: 0 held, 1 ready.
-- name: of_key
SELECT -priority, since, execution, lane FROM perdure_slot INDEXED BY perdure_slot_of_key
WHERE workflow = ?1 AND key = ?2 AND place = ?3 AND place IN (0, 1)
ORDER BY priority DESC, since, execution LIMIT ?4;

-- name: ready
SELECT -priority, rank, turn, execution, key FROM perdure_slot INDEXED BY perdure_slot_ready
WHERE workflow = ?1 AND place = 1
ORDER BY priority DESC, rank, turn, execution LIMIT ?2;

-- For each (workflow, priority, lane): the lowest rank that is ready, and the highest of the lane.
-- name: ranks
SELECT json_group_array(json_array(
    j.value ->> 0, j.value ->> 1, j.value ->> 2,
    (
        SELECT s.rank FROM perdure_slot s INDEXED BY perdure_slot_ready
        WHERE s.workflow = j.value ->> 0 AND s.priority = j.value ->> 1 AND s.place = 1
        ORDER BY s.rank LIMIT 1
    ),
    (
        SELECT s.rank FROM perdure_slot s INDEXED BY perdure_slot_of_lane
        WHERE s.workflow = j.value ->> 0 AND s.priority = j.value ->> 1 AND s.lane = j.value ->> 2
            AND s.place = 1
        ORDER BY s.rank DESC LIMIT 1
    )
))
FROM json_each(?1) j;

-- The last turn of each (workflow, priority, rank) that is ready.
-- name: turns
SELECT json_group_array(json_array(j.value ->> 0, j.value ->> 1, j.value ->> 2, coalesce((
    SELECT s.turn FROM perdure_slot s INDEXED BY perdure_slot_ready
    WHERE s.workflow = j.value ->> 0 AND s.priority = j.value ->> 1 AND s.rank = j.value ->> 2
        AND s.place = 1
    ORDER BY s.turn DESC LIMIT 1
), -1)))
FROM json_each(?1) j;

-- Until when is paid of each (workflow, key), and until when somebody waits for the rate.
-- name: rates
SELECT json_group_array(json_array(t.workflow, t.key, t.paid_until, t.held_until))
FROM json_each(?1) j
CROSS JOIN perdure_rate t ON t.workflow = j.value ->> 0 AND t.key = j.value ->> 1;

-- name: upsert_rates
INSERT OR REPLACE INTO perdure_rate (workflow, key, paid_until, held_until)
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM json_each(?1);

-- name: delete_rates
DELETE FROM perdure_rate WHERE (workflow, key) IN (
    SELECT t.workflow, t.key FROM perdure_rate t INDEXED BY perdure_rate_over
    WHERE t.paid_until <= ?1 AND t.held_until IS NULL LIMIT ?2
);

-- The rows of workflows (0) or of their keys (1).
-- name: delete_rates_of
DELETE FROM perdure_rate
WHERE (workflow, key <> '') IN (SELECT value ->> 0, value ->> 1 FROM json_each(?1));

-- name: held_no_longer
SELECT workflow, key FROM perdure_rate WHERE held_until <= ?1 ORDER BY held_until LIMIT ?2;

-- Which of these (workflow, key) somebody waits for in a queue; without a key: who is ready.
-- name: queued
SELECT json_group_array(json_array(j.value ->> 0, j.value ->> 1))
FROM json_each(?1) j
WHERE CASE j.value ->> 1
    WHEN '' THEN EXISTS (
        SELECT 1 FROM perdure_slot s INDEXED BY perdure_slot_ready
        WHERE s.workflow = j.value ->> 0 AND s.place = 1
    )
    ELSE EXISTS (
        SELECT 1 FROM perdure_slot s INDEXED BY perdure_slot_of_key
        WHERE s.workflow = j.value ->> 0 AND s.key = j.value ->> 1 AND s.place IN (0, 1)
    )
END;

-- name: admit_states
UPDATE perdure_state AS state SET status = 1, reason = NULL, wake_at = NULL, since = ?2
WHERE +status = 0 AND run IN (
    SELECT (SELECT max(x.run) FROM perdure_run x WHERE x.execution = j.value) FROM json_each(?1) j
);

-- Whether somebody may begin whom nobody has admitted.
-- name: is_admissible
(
EXISTS (SELECT 1 FROM perdure_slot WHERE place = 3 AND since <= ?4)
OR EXISTS (SELECT 1 FROM perdure_rate WHERE held_until <= ?4) OR EXISTS (
    SELECT 1 FROM perdure_limit l
    WHERE EXISTS (SELECT 1 FROM perdure_slot s WHERE s.workflow = l.workflow AND s.place = 1)
    AND NOT EXISTS (
        SELECT 1 FROM perdure_rate t WHERE t.workflow = l.workflow AND t.key = '' AND t.held_until > ?4
    )
    AND (l.max_open = 0 OR l.max_open > (
        SELECT count(*) FROM perdure_slot s WHERE s.workflow = l.workflow AND s.place = 2
    ))
    AND (l.pool_max = 0 OR l.pool_max > (
        SELECT count(*) FROM perdure_limit m
        JOIN perdure_slot s ON s.workflow = m.workflow AND s.place = 2
        WHERE m.pool = l.pool
    ))
)
)

-- name: slot
SELECT workflow, key, priority, since, place, rank, turn FROM perdure_slot WHERE execution = ?1;

-- How many are ready in the queue of workflow ?1 before (priority ?2, rank ?3, turn ?4).
-- name: before
SELECT count(*) FROM perdure_slot s INDEXED BY perdure_slot_ready
WHERE s.workflow = ?1 AND s.place = 1 AND (-s.priority, s.rank, s.turn) < (-?2, ?3, ?4);

-- How many of key ?2 are in the queue of workflow ?1 before (priority ?3, since ?4, execution ?5).
-- name: before_of_key
SELECT count(*) FROM perdure_slot s INDEXED BY perdure_slot_of_key
WHERE s.workflow = ?1 AND s.key = ?2 AND s.place IN (0, 1)
    AND (-s.priority, s.since, s.execution) < (-?3, ?4, ?5);

-- Meters, places, budgets (store/sql/tallies.py) ---------------------------------------------------

-- Until when is paid of these meters.
-- name: meters
SELECT json_group_array(json_array(m.key, m.paid_until))
FROM json_each(?1) j CROSS JOIN perdure_meter m ON m.key = j.value;

-- name: upsert_meters
INSERT OR REPLACE INTO perdure_meter (key, paid_until)
SELECT value ->> 0, value ->> 1 FROM json_each(?1);

-- name: delete_meters
DELETE FROM perdure_meter WHERE key IN (
    SELECT m.key FROM perdure_meter m INDEXED BY perdure_meter_over WHERE m.paid_until <= ?1 LIMIT ?2
);

-- How many open executions are counted under each of these keys.
-- name: places_taken
SELECT json_group_array(json_array(j.value, (
    SELECT count(*) FROM perdure_place p WHERE p.key = j.value
)))
FROM json_each(?1) j;

-- Under which keys these executions are counted.
-- name: places_of
SELECT json_group_array(json_array(p.execution, p.key))
FROM json_each(?1) j CROSS JOIN perdure_place p ON p.execution = j.value;

-- name: note_counted
UPDATE perdure_identity SET counts = counts | ?1 WHERE counts & ?1 <> ?1;

-- name: insert_places
INSERT OR IGNORE INTO perdure_place (execution, key)
SELECT value ->> 0, value ->> 1 FROM json_each(?1);

-- name: delete_places
DELETE FROM perdure_place WHERE execution IN (SELECT value FROM json_each(?1));

-- name: insert_budgets
INSERT OR IGNORE INTO perdure_budget (key, unit, execution, amount)
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM json_each(?1);

-- The rows of these (key, unit), held to the commit.
-- name: hold_budgets
SELECT json_group_array(json_array(b.key, b.unit, b.execution, b.amount, b.used, b.reserved))
FROM json_each(?1) j CROSS JOIN perdure_budget b ON b.key = j.value ->> 0 AND b.unit = j.value ->> 1;

-- (key, unit, more used, more reserved).
-- name: change_budgets
UPDATE perdure_budget AS b SET used = b.used + (v ->> 2), reserved = b.reserved + (v ->> 3)
FROM (SELECT value AS v FROM json_each(?1)) WHERE b.key = v ->> 0 AND b.unit = v ->> 1;

-- name: budgets
SELECT key, unit, execution, amount, used, reserved FROM perdure_budget
WHERE key IN (SELECT value FROM json_each(?1)) ORDER BY key, unit;

-- name: has_hold
SELECT EXISTS (SELECT 1 FROM perdure_hold WHERE id = ?1);

-- name: insert_holds
INSERT INTO perdure_hold (id, key, unit, execution, amount)
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4 FROM json_each(?1);

-- name: take_hold
DELETE FROM perdure_hold WHERE id = ?1 RETURNING key, unit, amount;

-- name: take_holds_of
DELETE FROM perdure_hold WHERE execution IN (SELECT value FROM json_each(?1))
RETURNING key, unit, amount;

-- name: is_open
SELECT EXISTS (
    SELECT 1 FROM perdure_state s
    WHERE s.run = (SELECT max(x.run) FROM perdure_run x WHERE x.execution = ?1) AND s.status < 5
);

-- Task queues ------------------------------------------------------------------------------------

-- name: insert_tasks
INSERT INTO perdure_task (
    run, execution, activity, attempt, queue, name, lane, rank, stage, created_at, not_before, due, lost, call
) VALUES

-- name: delete_tasks
DELETE FROM perdure_task
WHERE (run, activity) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?1));

-- name: delete_tasks_of_runs
DELETE FROM perdure_task WHERE run IN (SELECT value FROM json_each(?1));

-- Takes away those of (run, activity, attempt) that worker ?2 (null: nobody) carries out.
-- name: close_tasks
DELETE FROM perdure_task
WHERE owner IS ?2 AND stage <> 3 AND (run, activity, attempt) IN (
    SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?1)
)
RETURNING run, activity;

-- The same rows get (stage, attempt, not before, due).
-- name: redo_tasks
UPDATE perdure_task SET
    stage = v ->> 3, attempt = v ->> 4, not_before = v ->> 5, due = v ->> 6,
    lost = CASE v ->> 3 WHEN 3 THEN lost ELSE 0 END, owner = NULL, claimed_at = NULL
FROM (SELECT value AS v FROM json_each(?1))
WHERE run = v ->> 0 AND activity = v ->> 1 AND attempt = v ->> 2 AND +owner = ?2
RETURNING run, activity;

-- name: hold_worker
SELECT 1 FROM perdure_worker WHERE id = ?1 AND epoch = ?2 AND state = 'live';

-- Those whose pause is over are ready.
-- name: ripen_tasks
UPDATE perdure_task SET stage = 0 WHERE id IN (
    SELECT id FROM perdure_task WHERE stage = 1 AND not_before <= ?1 ORDER BY not_before LIMIT ?2
);

-- name: queue_limits
SELECT queue, max_open, max_per_key, spacing, burst, arrival FROM perdure_queue
WHERE queue IN (SELECT value FROM json_each(?1)) ORDER BY queue;

-- name: upsert_queue_limits
INSERT INTO perdure_queue (queue, max_open, max_per_key, spacing, burst)
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4 FROM json_each(?1) WHERE true
ON CONFLICT (queue) DO UPDATE SET
    max_open = excluded.max_open, max_per_key = excluded.max_per_key, spacing = excluded.spacing,
    burst = excluded.burst;

-- name: delete_queue_limits
DELETE FROM perdure_queue WHERE queue IN (SELECT value FROM json_each(?1));

-- name: set_arrival
UPDATE perdure_queue SET arrival = ?2 WHERE queue = ?1;

-- What was taken of a rate and not used.
-- name: return_arrivals
UPDATE perdure_queue SET arrival = arrival - spacing * (v ->> 1)
FROM (SELECT value AS v FROM json_each(?1)) WHERE queue = v ->> 0 AND spacing > 0;

-- name: claimed_of_lanes
SELECT lane, count(*) FROM perdure_task WHERE queue = ?1 AND stage = 2 GROUP BY lane;

-- The highest priority that waits in a queue, below rank ?2.
-- name: task_level
SELECT (
    SELECT rank FROM perdure_task WHERE queue = ?1 AND stage = 0 AND rank > ?2 ORDER BY rank LIMIT 1
);

-- Who waits in queue ?1 with rank ?2, from lane ?3 to ?4, in order: lanes that are not among ?6, and
-- activities among ?5. One step through the index for each, however many wait.
-- name: task_groups
WITH RECURSIVE found (lane, name) AS (
    SELECT * FROM (
        SELECT t.lane, t.name FROM perdure_task t
        WHERE t.stage = 0 AND t.queue = ?1 AND t.rank = ?2 AND t.lane >= ?3
        ORDER BY t.lane, t.name LIMIT 1
    )
    UNION ALL
    SELECT n.lane, n.name
    FROM found f CROSS JOIN perdure_task n ON n.id = coalesce(
        (
            SELECT x.id FROM perdure_task x
            WHERE x.stage = 0 AND x.queue = ?1 AND x.rank = ?2 AND x.lane = f.lane AND x.name > f.name
            ORDER BY x.name, x.id LIMIT 1
        ),
        (
            SELECT y.id FROM perdure_task y
            WHERE y.stage = 0 AND y.queue = ?1 AND y.rank = ?2 AND y.lane > f.lane
            ORDER BY y.lane, y.name, y.id LIMIT 1
        )
    )
    WHERE f.lane <= ?4
)
SELECT lane, name FROM found
WHERE lane <= ?4 AND name IN (SELECT value FROM json_each(?5))
    AND lane NOT IN (SELECT value FROM json_each(?6))
LIMIT ?7;

-- The oldest ?4 of each (lane, activity).
-- name: task_heads
SELECT t.id, t.lane
FROM json_each(?1) j CROSS JOIN perdure_task t ON t.id IN (
    SELECT x.id FROM perdure_task x
    WHERE x.stage = 0 AND x.queue = ?2 AND x.rank = ?3 AND x.lane = j.value ->> 0
        AND x.name = j.value ->> 1
    ORDER BY x.id LIMIT ?4
);

-- name: claim_tasks
UPDATE perdure_task SET stage = 2, owner = ?2, claimed_at = ?3
WHERE id IN (SELECT value FROM json_each(?1));

-- name: claimed_tasks
SELECT
    t.run, t.execution, t.activity, t.attempt, t.queue, t.lane, t.lost, t.call, b.details, r.workflow_id,
    r.run_id, r.workflow, r.namespace, -t.rank
FROM json_each(?1) j
CROSS JOIN perdure_task t ON t.id = j.value
CROSS JOIN perdure_run r ON r.run = t.run
LEFT JOIN perdure_beat b ON b.run = t.run AND b.activity = t.activity
ORDER BY t.id;

-- name: hand_back_tasks
UPDATE perdure_task SET stage = 0, owner = NULL, claimed_at = NULL
WHERE +owner = ?2 AND (run, activity, attempt) IN (
    SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?1)
)
RETURNING queue;

-- name: release_tasks
UPDATE perdure_task SET stage = 0, owner = NULL, claimed_at = NULL WHERE owner = ?1;

-- name: executions_of_tasks
SELECT json_group_array(DISTINCT execution) FROM perdure_task WHERE owner = ?1;

-- name: lose_tasks
UPDATE perdure_task SET stage = 3, owner = NULL, claimed_at = NULL, lost = lost + 1
WHERE owner = ?1 RETURNING run, execution, activity, attempt, lost;

-- name: offer_columns
run, execution, activity, attempt, queue, name, stage, created_at, not_before, due, owner, claimed_at, lost

-- name: offers_of_runs
SELECT {offer_columns}, X'' FROM perdure_task
WHERE run IN (SELECT value FROM json_each(?1)) ORDER BY run, activity;

-- name: overdue_offers
SELECT {offer_columns}, call FROM perdure_task
WHERE stage IN (0, 1) AND due > 0 AND due <= ?1 ORDER BY due LIMIT ?2;

-- name: carried_by
SELECT run, activity, attempt FROM perdure_task WHERE owner = ?1;

-- Whether something is ready for a worker that serves the queues ?1 and knows the activities ?2, and
-- when something is due.
-- name: offers
SELECT
    EXISTS (
        SELECT 1 FROM json_each(?1) q CROSS JOIN json_each(?2) k
        CROSS JOIN perdure_task t ON t.queue = q.value AND t.name = k.value WHERE t.stage = 0
    ),
    (SELECT min(not_before) FROM perdure_task WHERE stage = 1),
    (SELECT min(due) FROM perdure_task WHERE stage IN (0, 1) AND due > 0);

-- Deletion of old runs (store/sql/pruning.py) ------------------------------------------------------

-- Runs that ended by ?1, behind (?2, ?3) in the order of their ends, and how the latest run of each
-- one's execution stands.
-- name: ended
SELECT state.run, state.closed_at, state.execution, state.length, latest.run, latest.status, latest.closed_at,
    kept.execution IS NOT NULL
FROM perdure_state AS state INDEXED BY perdure_state_ended
CROSS JOIN perdure_state AS latest
    ON latest.run = (SELECT max(x.run) FROM perdure_run x WHERE x.execution = state.execution)
LEFT JOIN perdure_keep AS kept ON kept.execution = state.execution
WHERE state.closed_at IS NOT NULL AND state.closed_at <= ?1 AND (state.closed_at, state.run) > (?2, ?3)
ORDER BY state.closed_at, state.run LIMIT ?4;

-- name: newest
SELECT (SELECT max(run) FROM perdure_run), (SELECT run FROM perdure_history ORDER BY id DESC LIMIT 1);

-- All runs of these executions.
-- name: family
SELECT r.run, r.execution, s.closed_at
FROM json_each(?1) j CROSS JOIN perdure_run r ON r.execution = j.value CROSS JOIN perdure_state s ON s.run = r.run;

-- Executions with a retention of their own that are due, with all their runs.
-- name: due_keeps
SELECT kept.execution, kept.keep_for, kept.due, r.run, s.closed_at, s.length
FROM perdure_keep AS kept INDEXED BY perdure_keep_due
CROSS JOIN perdure_run r INDEXED BY perdure_run_by_execution ON r.execution = kept.execution
CROSS JOIN perdure_state s ON s.run = r.run
WHERE kept.due IS NOT NULL AND kept.due <= ?1 AND (kept.due, kept.execution) > (?2, ?3)
ORDER BY kept.due, kept.execution, r.run LIMIT ?4;

-- name: insert_keeps
INSERT INTO perdure_keep (execution, keep_for, due)
SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?1);

-- name: move_keeps
UPDATE perdure_keep AS kept SET due = v ->> 1
FROM (SELECT value AS v FROM json_each(?1)) WHERE kept.execution = v ->> 0;

-- Whether a column has one of the numbers of a JSON array.
-- name: among
IN (SELECT value FROM json_each(?))

-- name: histories_to_delete
SELECT count(*), max(id) FROM perdure_history WHERE run IN (SELECT value FROM json_each(?1));

-- name: note_deleted
UPDATE perdure_journal SET deleted_to = max(deleted_to, ?1);

-- name: senders_after
SELECT sender, at FROM perdure_sender WHERE sender > ?1 ORDER BY sender LIMIT ?2;

-- name: delete_senders
DELETE FROM perdure_sender WHERE sender IN (SELECT value FROM json_each(?1)) AND at < ?2;

-- Erasing what runs were given and gave (store/sql/erasing.py) --------------------------------------

-- name: runs_to_erase
SELECT r.run, r.run_id, s.status FROM perdure_run r CROSS JOIN perdure_state s ON s.run = r.run
WHERE r.execution = ?1 ORDER BY r.run;

-- name: set_erased
UPDATE perdure_state SET reason = ?2, detail = ?3, waits = NULL, progress = NULL WHERE run = ?1;

-- name: being_erased
SELECT r.execution, s.run, r.run_id, r.workflow_id, r.namespace
FROM perdure_state AS s INDEXED BY perdure_state_erasing JOIN perdure_run r ON r.run = s.run
WHERE s.reason = 'erasing' AND s.run > ?1 ORDER BY s.run LIMIT ?2;

-- name: rows_to_erase
SELECT id, first, payload, crc FROM perdure_history WHERE run = ?1 AND first > ?2 ORDER BY first LIMIT ?3;

-- Only if it still is what was read.
-- name: erase_row
UPDATE perdure_history SET crc = ?3, payload = ?4 WHERE id = ?1 AND payload = ?2;

-- name: erase_memos
DELETE FROM perdure_memo WHERE run IN (SELECT value FROM json_each(?1));

-- name: erase_attrs
DELETE FROM perdure_attr WHERE run IN (SELECT value FROM json_each(?1));

-- name: erase_beats
DELETE FROM perdure_beat WHERE run IN (SELECT value FROM json_each(?1));

-- name: erase_offers
DELETE FROM perdure_task WHERE run IN (SELECT value FROM json_each(?1));

-- name: erase_logs
UPDATE perdure_log SET message = ?2, data = NULL WHERE run IN (SELECT value FROM json_each(?1));

-- name: erase_human_tasks
UPDATE perdure_human_task SET
    title = ?2, description = CASE description WHEN '' THEN '' ELSE ?2 END,
    comment = CASE comment WHEN '' THEN '' ELSE ?2 END,
    form = CASE WHEN form IS NULL THEN NULL ELSE ?3 END, data = CASE WHEN data IS NULL THEN NULL ELSE ?3 END,
    value = CASE WHEN value IS NULL THEN NULL ELSE ?3 END, approvals = NULL
WHERE run IN (SELECT value FROM json_each(?1));

-- name: erase_human_logs
UPDATE perdure_human_log SET data = ?2
WHERE run IN (SELECT value FROM json_each(?1)) AND data IS NOT NULL;

-- Of the audit, what it says of these runs in detail.
-- name: erase_details
UPDATE perdure_audit SET data = NULL WHERE data IS NOT NULL AND number IN (
    SELECT a.number
    FROM json_each(?1) j CROSS JOIN perdure_run r ON r.run = j.value
    CROSS JOIN perdure_audit a ON a.namespace = r.namespace AND a.run_id = r.run_id
);

-- name: erase_inbox
DELETE FROM perdure_inbox WHERE execution = ?1;

-- name: erase_questions
DELETE FROM perdure_question WHERE execution = ?1;

-- Questions --------------------------------------------------------------------------------------

-- name: forget_questions
DELETE FROM perdure_question WHERE deadline < ?1;

-- name: insert_question
INSERT INTO perdure_question (id, execution, name, args, deadline, update_id)
VALUES (?1, ?2, ?3, ?4, ?5, ?6);

-- name: answer
UPDATE perdure_question SET answer = ?2 WHERE id = ?1 AND answer IS NULL;

-- name: reply
SELECT answer FROM perdure_question WHERE id = ?1;

-- name: questions
SELECT q.id, q.execution, q.name, q.args, q.deadline, r.run, q.update_id
FROM perdure_question q
CROSS JOIN perdure_run r ON r.run = (SELECT max(x.run) FROM perdure_run x WHERE x.execution = q.execution)
WHERE q.deadline > ?1 AND q.answer IS NULL
    AND r.workflow IN (SELECT value FROM json_each(?2))
ORDER BY q.deadline LIMIT ?3;

-- Reads ------------------------------------------------------------------------------------------

-- name: row_columns
r.run, r.execution, r.run_id, r.namespace, r.workflow_id, r.workflow, r.version, r.queue, r.attempt,
r.created_at, r.begins_at, state.status,
CASE WHEN state.owner IS NULL THEN state.length ELSE {real_length} END,
state.owner, state.wake_at, state.closed_at, state.reason, state.detail, state.unblock, state.waits,
state.since, state.progress, r.parent_execution, r.parent_event, r.parent_close, state.lost_by,
state.suspected, state.unread,
r.created_by, r.correlation_id, r.tenant, r.tags, memo.memo,
(SELECT w.lease_until FROM perdure_worker w WHERE w.id = state.lost_by)

-- name: row_tables
perdure_run r JOIN perdure_state AS state ON state.run = r.run LEFT JOIN perdure_memo AS memo ON memo.run = r.run

-- name: turn_columns
run, first, count, time, applied, worker, payload

-- name: run_by_number
SELECT {row_columns} FROM {row_tables} WHERE r.run = ?1;

-- name: latest_of_workflow_ids
SELECT j.key AS place,
    (SELECT max(r.run) FROM perdure_run r WHERE r.namespace = j.value ->> 0 AND r.workflow_id = j.value ->> 1)
FROM json_each(?1) j ORDER BY place;

-- name: run_by_run_id
SELECT run, execution, namespace, workflow_id FROM perdure_run WHERE run_id = ?1;

-- name: run_id_by_number
SELECT run_id FROM perdure_run WHERE run = ?1;

-- name: rows
SELECT {row_columns} FROM {row_tables} WHERE r.run IN (SELECT value FROM json_each(?1));

-- name: prefix_of_workflow_id
SELECT max(run) FROM perdure_run
WHERE namespace = ?1 AND workflow_id >= ?2 AND workflow_id < ?3
GROUP BY workflow_id LIMIT ?4;

-- name: prefix_of_run_id
SELECT run FROM perdure_run WHERE run_id >= ?2 AND run_id < ?3 AND +namespace = ?1 LIMIT ?4;

-- name: forks
SELECT f.run, r.workflow_id, r.run_id, f.origin, coalesce(o.workflow_id, ''), coalesce(o.run_id, ''), f.event, f.how
FROM perdure_fork f JOIN perdure_run r ON r.run = f.run LEFT JOIN perdure_run o ON o.run = f.origin
WHERE f.run = ?1 OR f.origin = ?1 ORDER BY f.run;

-- name: kept_for
SELECT (SELECT keep_for FROM perdure_keep WHERE execution = ?1),
    (SELECT code FROM perdure_sweep WHERE workflow = '' AND scope = 'retention');

-- What lists are made of (store/sql/listing.py). What leads was chosen by counting, and is written so
-- that it does lead: tables are looked up after it, for each of its rows.
-- name: join_run
CROSS JOIN perdure_run r ON r.run = {}

-- name: join_state
CROSS JOIN perdure_state s ON s.run = {}

-- name: for_each
LIMIT 1

-- name: of_namespace
r.namespace = ?

-- The plus keeps SQLite from leading with this column: the leader was chosen by counting.
-- name: of_column
+r.{} = ?

-- A search attribute, given as JSON.
-- name: json_value
json_extract(?, '$')

-- Booleans are stored as numbers.
-- name: is_boolean
AND form = -1

-- name: is_number
AND coalesce(form, 0) <> -1

-- name: history
SELECT {turn_columns}, crc FROM perdure_history WHERE run = ?1 AND first > ?2 ORDER BY first LIMIT ?3;

-- name: journal_columns
h.id, h.run, r.run_id, r.namespace, r.workflow_id, r.workflow, h.first, h.count, h.time, h.payload, h.crc

-- name: journal
SELECT {journal_columns}
FROM perdure_history h
CROSS JOIN perdure_run r ON r.run = h.run
LEFT JOIN perdure_copy AS copy ON copy.run = h.run
WHERE h.id > ?1 AND h.first > coalesce(copy.event, 0)
ORDER BY h.id LIMIT ?2;

-- name: journal_of
SELECT {journal_columns}
FROM perdure_run r
CROSS JOIN perdure_history h ON h.run = r.run
LEFT JOIN perdure_copy AS copy ON copy.run = h.run
WHERE r.namespace = ?3 AND r.workflow_id = ?4 AND h.id > ?1 AND h.first > coalesce(copy.event, 0)
ORDER BY h.id LIMIT ?2;

-- name: journal_ends
SELECT deleted_to, (SELECT coalesce(max(id), deleted_to) FROM perdure_history) FROM perdure_journal;

-- name: last_turn
SELECT {turn_columns}, crc FROM perdure_history WHERE run = ?1 ORDER BY first DESC LIMIT 1;

-- name: histories
SELECT {turn_columns}, crc FROM perdure_history
WHERE run IN (SELECT value FROM json_each(?1)) ORDER BY run, first;

-- name: inboxes
SELECT i.id, i.execution, r.run, i.event
FROM json_each(?1) j
CROSS JOIN perdure_run r ON r.run = j.value
CROSS JOIN perdure_inbox i ON i.execution = r.execution
ORDER BY i.id;

-- Whether a worker that serves the workflows ?1 on the queues ?2 serves run `r`.
-- name: is_served
(
    r.queue IN (SELECT value FROM json_each(?2)) AND (
        r.workflow IN (SELECT value FROM json_each(?1))
        OR r.workflow || ' ' || r.version IN (SELECT value FROM json_each(?1))
    )
)

-- Whether anybody may claim `state`.
-- name: is_claimable
state.status = 1 AND state.owner IS NULL

-- The highest priority below ?1 of runs that anybody may claim.
-- name: claimable_priority
SELECT max(priority) FROM perdure_state INDEXED BY perdure_state_claimable
WHERE status = 1 AND owner IS NULL AND priority < ?1;

-- Up to ?5 lanes of priority ?3 from lane ?4 on, but those in ?6; and up to ?7 runs of each, oldest
-- first.
-- name: claimable
WITH RECURSIVE lanes (n, lane) AS (
    SELECT 1, (
        SELECT min(s.lane) FROM perdure_state s INDEXED BY perdure_state_claimable
        WHERE s.status = 1 AND s.owner IS NULL AND s.priority = ?3 AND s.lane >= ?4
    )
    UNION ALL
    SELECT lanes.n + 1, (
        SELECT min(s.lane) FROM perdure_state s INDEXED BY perdure_state_claimable
        WHERE s.status = 1 AND s.owner IS NULL AND s.priority = ?3 AND s.lane > lanes.lane
    )
    FROM lanes WHERE lanes.lane IS NOT NULL AND lanes.n < ?5
)
SELECT lanes.lane, found.value
FROM lanes CROSS JOIN json_each((
    SELECT json_group_array(page.run) FROM (
        SELECT state.run
        FROM perdure_state AS state INDEXED BY perdure_state_claimable
        CROSS JOIN perdure_run r ON r.run = state.run
        WHERE state.status = 1 AND state.owner IS NULL AND state.priority = ?3
            AND state.lane = lanes.lane AND {is_served}
        ORDER BY state.run LIMIT ?7
    ) page
)) found
WHERE lanes.lane IS NOT NULL AND lanes.lane NOT IN (SELECT value FROM json_each(?6));

-- name: lane_of
SELECT priority, lane FROM perdure_state WHERE run = ?1;

-- Parked runs that nobody served.
-- name: served_again
SELECT state.run
FROM perdure_state AS state INDEXED BY perdure_state_unserved
CROSS JOIN perdure_run r ON r.run = state.run
WHERE state.status = 4 AND state.reason IN ('unknown_workflow', 'unserved_queue') AND {is_served}
ORDER BY state.run LIMIT ?3;

-- Whether none of the services ?1 (workflows, queues) serves run `r`.
-- name: is_unserved
NOT EXISTS (
    SELECT 1 FROM json_each(?1) w
    WHERE r.queue IN (SELECT value FROM json_each(w.value, '$[1]')) AND (
        r.workflow IN (SELECT value FROM json_each(w.value, '$[0]'))
        OR r.workflow || ' ' || r.version IN (SELECT value FROM json_each(w.value, '$[0]'))
    )
)

-- Running runs that nobody serves; and delayed and waiting ones, if they are due by ?3.
-- name: unserved
SELECT {row_columns}
FROM (
    SELECT run FROM (
        SELECT state.run
        FROM perdure_state AS state INDEXED BY perdure_state_claimable CROSS JOIN perdure_run r ON r.run = state.run
        WHERE {is_claimable} AND {is_unserved}
        ORDER BY state.priority, state.lane, state.run LIMIT ?2
    )
    UNION ALL SELECT run FROM (
        SELECT state.run
        FROM perdure_state AS state INDEXED BY perdure_state_due CROSS JOIN perdure_run r ON r.run = state.run
        WHERE state.owner IS NULL AND state.wake_at IS NOT NULL AND state.status IN (0, 2, 3, 4)
            AND state.wake_at <= ?3 AND {is_unserved}
            AND (state.status = 2 OR (state.status = 0 AND state.reason IS NULL))
        ORDER BY state.wake_at, state.run LIMIT ?2
    )
) found
CROSS JOIN perdure_state AS state ON state.run = found.run
CROSS JOIN perdure_run r ON r.run = state.run
LEFT JOIN perdure_memo AS memo ON memo.run = r.run
ORDER BY state.run LIMIT ?2;

-- name: parked
SELECT {row_columns}
FROM perdure_state AS state INDEXED BY perdure_state_by_status CROSS JOIN perdure_run r ON r.run = state.run
LEFT JOIN perdure_memo AS memo ON memo.run = r.run
WHERE state.status = 4 AND state.run > ?2
    AND state.reason IN (SELECT value FROM json_each(?1))
ORDER BY state.run LIMIT ?3;

-- Open runs with one of the statuses ?1, from ?2 on: at most ?3 of each are looked at.
-- name: open_runs
SELECT r.run, r.workflow, r.version, r.queue, state.since
FROM json_each(?1) j
CROSS JOIN perdure_state AS state ON state.run IN (
    SELECT x.run FROM perdure_state x INDEXED BY perdure_state_by_status
    WHERE x.status = j.value AND x.run > ?2 ORDER BY x.run LIMIT ?3
)
CROSS JOIN perdure_run r ON r.run = state.run
ORDER BY state.run LIMIT ?3;

-- name: sweeps
SELECT workflow, scope, code, began_at, since, after, worker FROM perdure_sweep;

-- name: sweep
INSERT INTO perdure_sweep (workflow, scope, code, began_at, since, after, worker)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
ON CONFLICT (workflow, scope) DO UPDATE SET
    code = excluded.code, began_at = excluded.began_at, since = excluded.since,
    after = excluded.after, worker = excluded.worker
WHERE worker IN (0, excluded.worker, ?8);

-- name: due
SELECT state.run, state.wake_at
FROM perdure_state AS state INDEXED BY perdure_state_due CROSS JOIN perdure_run r ON r.run = state.run
WHERE state.owner IS NULL AND state.wake_at IS NOT NULL AND state.status IN (0, 2, 3, 4)
    AND state.wake_at <= ?3 AND state.wake_at > ?5
    AND (state.status IN (3, 4) OR {is_served})
ORDER BY state.wake_at, state.run LIMIT ?4;

-- The run that an inbox row `i` goes to.
-- name: of_inbox
CROSS JOIN perdure_run r ON r.run = (SELECT max(x.run) FROM perdure_run x WHERE x.execution = i.execution)
CROSS JOIN perdure_state AS state ON state.run = r.run

-- Whether inbox row `i` of run `r` is for worker ?3, or for anybody like it.
-- name: is_mine
CASE
    WHEN state.owner IS NOT NULL THEN state.owner = ?3
    WHEN state.status IN (3, 4) THEN i.is_control
    WHEN state.status = 0 THEN i.is_control AND {is_served}
    ELSE state.status IN (1, 2) AND {is_served}
END

-- name: inbox
SELECT i.id, i.execution, r.run, i.event
FROM perdure_inbox i {of_inbox} WHERE {is_mine}
ORDER BY i.id LIMIT ?4;

-- Pending runs that begin by ?3.
-- name: beginning
SELECT state.run, state.wake_at
FROM perdure_state AS state INDEXED BY perdure_state_pending
CROSS JOIN perdure_run r ON r.run = state.run
WHERE state.status = 0 AND state.wake_at <= ?3 AND {is_served}
ORDER BY state.wake_at, state.run LIMIT ?4;

-- One look: whether there is anything for worker ?3 at ?4 (what begins by ?5, too); whether somebody
-- may be let in; which definitions are inactive.
-- name: news
SELECT
    EXISTS (
        SELECT 1 FROM perdure_state AS state INDEXED BY perdure_state_claimable
        CROSS JOIN perdure_run r ON r.run = state.run
        WHERE {is_claimable} AND {is_served}
    ) OR EXISTS (
        SELECT 1 FROM perdure_state AS state INDEXED BY perdure_state_unserved
        CROSS JOIN perdure_run r ON r.run = state.run
        WHERE state.status = 4 AND state.reason IN ('unknown_workflow', 'unserved_queue') AND {is_served}
    ) OR EXISTS (
        SELECT 1 FROM perdure_state AS state INDEXED BY perdure_state_pending
        CROSS JOIN perdure_run r ON r.run = state.run
        WHERE state.status = 0 AND state.wake_at <= ?5 AND {is_served}
    ) OR EXISTS (
        SELECT 1 FROM perdure_inbox i {of_inbox} WHERE {is_mine}
    ) OR EXISTS (
        SELECT 1 FROM perdure_question q WHERE q.deadline > ?4 AND q.answer IS NULL
    ) OR EXISTS (
        SELECT 1 FROM perdure_state AS state INDEXED BY perdure_state_due
        CROSS JOIN perdure_run r ON r.run = state.run
        WHERE state.owner IS NULL AND state.wake_at IS NOT NULL AND state.status IN (0, 2, 3, 4)
            AND state.wake_at <= ?4 AND (state.status IN (3, 4) OR {is_served})
    ),
    {is_admissible},
    EXISTS (
        SELECT 1 FROM json_each(?2) q CROSS JOIN json_each(?6) k
        CROSS JOIN perdure_task t ON t.queue = q.value AND t.name = k.value WHERE t.stage = 0
    ),
    (SELECT min(t.not_before) FROM perdure_task t WHERE t.stage = 1),
    (SELECT min(t.due) FROM perdure_task t WHERE t.stage IN (0, 1) AND t.due > 0),
    (SELECT json_group_array(json_array(d.name, d.version)) FROM perdure_definition d WHERE d.is_active = 0),
    (SELECT min(held_until) FROM perdure_rate WHERE held_until IS NOT NULL),
    (SELECT min(next_at) FROM perdure_human_task WHERE status IN (0, 1) AND next_at IS NOT NULL),
    {schedules_at};

-- name: definitions
SELECT name, version, code, '', queue, is_active, registered_at, triggers FROM perdure_definition
ORDER BY name, registered_at;

-- Every type of which there is a run: from one to the next in the index, however many runs there are.
-- name: workflows_seen
WITH RECURSIVE seen (name) AS (
    SELECT min(workflow) FROM perdure_run
    UNION ALL
    SELECT (SELECT min(r.workflow) FROM perdure_run r WHERE r.workflow > seen.name)
    FROM seen WHERE seen.name IS NOT NULL
)
SELECT name FROM seen
WHERE name IS NOT NULL
AND EXISTS (SELECT 1 FROM perdure_run r WHERE r.workflow = seen.name AND r.namespace = ?1)
ORDER BY name;

-- name: attributes
SELECT key, value, form FROM perdure_attr WHERE run = ?1 ORDER BY key, form;

-- Schedules --------------------------------------------------------------------------------------

-- name: schedule_columns
p.namespace, p.id, p.workflow, p.spec, p.template, p.note, p.state, p.paused, p.next_at, p.created_at,
p.changed_at, p.revision

-- name: schedule
SELECT {schedule_columns} FROM perdure_schedule p WHERE p.namespace = ?1 AND p.id = ?2;

-- The same, to be changed.
-- name: schedule_held
SELECT {schedule_columns} FROM perdure_schedule p WHERE p.namespace = ?1 AND p.id = ?2;

-- Schedules that are due by ?1, and those whose execution has ended that they wait for. What another
-- worker is at is left to it.
-- name: due_schedules
SELECT {schedule_columns} FROM perdure_schedule p
WHERE p.next_at IS NOT NULL AND p.next_at <= ?1 ORDER BY p.next_at LIMIT ?2;

-- name: waiting_schedules
SELECT {schedule_columns} FROM perdure_schedule p INDEXED BY perdure_schedule_waiting
WHERE p.waits_for IS NOT NULL AND {waits_no_more} LIMIT ?1;

-- name: waits_no_more
NOT EXISTS (
    SELECT 1 FROM perdure_run r CROSS JOIN perdure_state s ON s.run = r.run
    WHERE r.execution = p.waits_for AND s.status < 5
)

-- When the next look at any schedule is due; 0 is now.
-- name: schedules_at
(SELECT CASE
    WHEN EXISTS (
        SELECT 1 FROM perdure_schedule p INDEXED BY perdure_schedule_waiting
        WHERE p.waits_for IS NOT NULL AND {waits_no_more}
    ) THEN 0
    ELSE (SELECT min(next_at) FROM perdure_schedule WHERE next_at IS NOT NULL)
END)

-- name: next_look
SELECT {schedules_at};

-- Those of these executions that are open.
-- name: open_executions
SELECT json_group_array(j.value) FROM json_each(?1) j WHERE EXISTS (
    SELECT 1 FROM perdure_run r CROSS JOIN perdure_state s ON s.run = r.run
    WHERE r.execution = j.value AND s.status < 5
);

-- name: insert_schedule
INSERT INTO perdure_schedule (
    namespace, id, workflow, spec, template, note, state, paused, next_at, waits_for, created_at,
    changed_at, revision
)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, NULL, ?10, ?10, 1)
ON CONFLICT (namespace, id) DO NOTHING;

-- name: change_schedule
UPDATE perdure_schedule SET
    workflow = ?3, spec = ?4, template = ?5, note = ?6, state = ?7, paused = ?8, next_at = ?9,
    waits_for = ?10, changed_at = ?11, revision = revision + 1
WHERE namespace = ?1 AND id = ?2;

-- name: moved_schedules
UPDATE perdure_schedule SET state = v ->> 2, next_at = v ->> 3, waits_for = v ->> 4, revision = revision + 1
FROM (SELECT value AS v FROM json_each(?1))
WHERE namespace = v ->> 0 AND id = v ->> 1;

-- name: delete_schedule
DELETE FROM perdure_schedule WHERE namespace = ?1 AND id = ?2;

-- Seals ------------------------------------------------------------------------------------------

-- name: identity
SELECT id FROM perdure_identity;

-- name: codecs
SELECT codec, sample FROM perdure_codec;

-- name: insert_codec
INSERT INTO perdure_codec (codec, sample) VALUES (?1, ?2);

-- name: delete_codec
DELETE FROM perdure_codec WHERE codec = ?1 AND sample = ?2;

-- name: has_blobs
SELECT EXISTS (SELECT 1 FROM perdure_blob WHERE name > '');

-- name: insert_blobs
INSERT INTO perdure_blob (name, run, first)
SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?1);

-- Those of these names that no history row refers to.
-- name: unused_blobs
SELECT json_group_array(j.value)
FROM json_each(?1) j
WHERE NOT EXISTS (
    SELECT 1 FROM perdure_blob b CROSS JOIN perdure_history h ON h.run = b.run AND h.first = b.first
    WHERE b.name = j.value
);

-- name: forget_blobs
DELETE FROM perdure_blob WHERE name IN (SELECT value FROM json_each(?1));

-- What a history row holds now: it may have been sealed anew since it was read.
-- name: payload_of
SELECT payload, crc FROM perdure_history WHERE run = ?1 AND first = ?2;

-- A document, unless it was dropped.
-- name: record
SELECT id, version, changed_at, data FROM perdure_record
WHERE namespace = ?1 AND kind = ?2 AND id = ?3 AND data IS NOT NULL;

-- name: records
SELECT id, version, changed_at, data FROM perdure_record
WHERE namespace = ?1 AND kind = ?2 AND id > ?3 AND data IS NOT NULL ORDER BY id LIMIT ?4;

-- Writes nothing, and answers nothing, if another version is there: ?4, 0 for none, -1 for any.
-- name: put_record
INSERT INTO perdure_record (namespace, kind, id, version, changed_at, data)
SELECT ?1, ?2, ?3, 1, ?5, ?6 WHERE ?4 <= 0 OR EXISTS (
    SELECT 1 FROM perdure_record r WHERE r.namespace = ?1 AND r.kind = ?2 AND r.id = ?3
)
ON CONFLICT (namespace, kind, id) DO UPDATE SET
    version = perdure_record.version + 1, changed_at = excluded.changed_at, data = excluded.data
WHERE ?4 < 0
    OR (?4 = 0 AND perdure_record.data IS NULL)
    OR (perdure_record.version = ?4 AND perdure_record.data IS NOT NULL)
RETURNING version;

-- name: drop_record
UPDATE perdure_record SET version = version + 1, changed_at = ?5, data = NULL
WHERE namespace = ?1 AND kind = ?2 AND id = ?3 AND data IS NOT NULL AND (?4 < 0 OR version = ?4)
RETURNING version;

-- name: audit_columns
number, at, namespace, action, principal, initiated_by, target, run_id, decision, rule, digest, hash, data

-- name: audit_chain
SELECT {audit_columns} FROM perdure_audit WHERE number > ?1 ORDER BY number LIMIT ?2;

-- name: audit_head
SELECT number, hash, cut, cut_hash FROM perdure_audit_head;

-- name: hold_audit_head
SELECT number, hash, cut, cut_hash FROM perdure_audit_head;

-- name: insert_audit
INSERT INTO perdure_audit (
    number, at, namespace, action, principal, initiated_by, target, run_id, decision, rule, digest, hash, data
) VALUES

-- name: move_audit_head
UPDATE perdure_audit_head SET number = ?1, hash = ?2;

-- name: audit_hash
SELECT hash FROM perdure_audit WHERE number = ?1;

-- name: cut_audit
UPDATE perdure_audit_head SET cut = ?1, cut_hash = ?2;

-- name: delete_audit
DELETE FROM perdure_audit WHERE number IN (
    SELECT number FROM perdure_audit WHERE number <= (SELECT cut FROM perdure_audit_head)
    ORDER BY number LIMIT ?1
);

-- The digest stays, and with it the chain.
-- name: erase_audit
UPDATE perdure_audit SET data = NULL WHERE namespace = ?1 AND target = ?2 AND data IS NOT NULL;
