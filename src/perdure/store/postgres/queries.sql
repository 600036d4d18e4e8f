-- The store's SQL: the same names, parameters and columns as in the SQLite store. A batch is one JSON
-- array per statement; rows that hold bytes come as one array a column. Questions about a batch answer
-- with one row that holds a JSON array.
-- Status codes: 0 pending, 1 running, 2 waiting, 3 paused, 4 parked, from 5 on ended.

-- Numbers, and texts, of the JSON array $1. As arrays: their index is searched, whatever the planner
-- believes of their size.
-- name: numbers
ARRAY(SELECT e::bigint FROM json_array_elements_text($1::json) e)

-- name: texts
ARRAY(SELECT e FROM json_array_elements_text($1::json) e)

-- The lease counts on the store's clock: what comes is its end and what time the worker thinks it is.
-- name: fence
UPDATE perdure_worker SET last_batch = $3, lease_until = perdure_now() + ($4::bigint - $5::bigint)
WHERE id = $1 AND epoch = $2 AND state = 'live'
RETURNING recalled, EXISTS (SELECT 1 FROM perdure_limit), (SELECT counts FROM perdure_identity);

-- name: draw_runs
SELECT nextval('perdure_run_number') FROM generate_series(1, $1::bigint);

-- name: has_limits
SELECT EXISTS (SELECT 1 FROM perdure_limit), (SELECT counts FROM perdure_identity);

-- Locks (holding.py) ------------------------------------------------------------------------------

-- One lock for all slots; locks for workflow ids, by a number made of each.
-- name: hold_slots
SELECT pg_advisory_xact_lock(hashtext('perdure_limit'), 0);

-- name: hold_places
SELECT pg_advisory_xact_lock(hashtext('perdure_place'), n) FROM (
    SELECT DISTINCT hashtext(e) & 127 AS n
    FROM json_array_elements_text($1::json) e ORDER BY n
) AS keys;

-- name: hold_ids
SELECT pg_advisory_xact_lock(hashtext('perdure_run'), n) FROM (
    SELECT DISTINCT hashtext((v ->> 0) || ' ' || (v ->> 1)) & 127 AS n
    FROM json_array_elements($1::json) v ORDER BY n
) AS ids;

-- Ends transactions whose process has been silent for so long in the middle of a pipeline: it was
-- stopped, or its machine is gone. The server ends those itself that wait between two statements.
-- name: end_silent
SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity
WHERE datname = current_database() AND usename = current_user AND pid <> pg_backend_pid()
    AND application_name = current_setting('application_name')
    AND state = 'active' AND wait_event = 'ClientRead' AND query !~* '^\s*copy'
    AND greatest(xact_start, query_start) < clock_timestamp() - make_interval(secs => $1::bigint);

-- name: hold_workers
SELECT id FROM perdure_worker WHERE id = ANY({numbers}) ORDER BY id FOR NO KEY UPDATE;

-- name: hold_executions
SELECT run FROM perdure_run WHERE run = ANY({numbers}) ORDER BY run FOR NO KEY UPDATE;

-- Where what is addressed by namespace and workflow id goes: each with its execution.
-- name: executions_of_ids
SELECT coalesce(json_agg(json_build_array(r.execution, s.owner, r.parent_execution)), '[]')::text
FROM json_array_elements($1::json) v
JOIN perdure_run r ON r.run = (
    SELECT max(x.run) FROM perdure_run x WHERE x.namespace = v ->> 0 AND x.workflow_id = v ->> 1
)
JOIN perdure_state s ON s.run = r.run;

-- Executions that hear of the end of these: their open children, and who watches them.
-- name: relations
SELECT coalesce(json_agg(DISTINCT e), '[]')::text FROM (
    SELECT c.execution AS e
    FROM perdure_run c JOIN perdure_state s ON s.run = c.run
    WHERE c.parent_execution = ANY({numbers}) AND s.status < 5 AND c.parent_close <> 'abandon'
    UNION ALL
    SELECT w.watcher FROM perdure_watch w WHERE w.target = ANY({numbers}) AND w.watcher IS NOT NULL
) AS found;

-- name: executions_of_human_tasks
SELECT DISTINCT execution FROM perdure_human_task WHERE id = ANY({texts}) AND execution IS NOT NULL;

-- name: hold_human_tasks
SELECT id FROM perdure_human_task WHERE id = ANY({texts}) ORDER BY id FOR NO KEY UPDATE;

-- A batch -----------------------------------------------------------------------------------------

-- Turns whose claim does not hold, or whose run this worker does not own. Code that ran must not have
-- run if its run was put into a queue since it was found.
-- name: lost_claims
SELECT coalesce(json_agg((v ->> 0)::bigint), '[]')::text
FROM json_array_elements($1::json) v LEFT JOIN perdure_state s ON s.run = (v ->> 0)::bigint
WHERE CASE
    WHEN v ->> 1 IS NULL THEN s.owner IS DISTINCT FROM $2
    ELSE s.run IS NULL OR s.owner IS NOT NULL OR s.length <> (v ->> 1)::bigint OR s.status >= 5
        OR v ->> 2 = '1' AND s.status = 0 AND s.reason IS NOT NULL
END;

-- What holds on to executions and runs that are to close: executions with inbox rows that the
-- closing turn has not read, then whether there is any child, watcher, watch of their own, human
-- task, open transaction and heartbeat.
-- name: ties
SELECT json_build_array(
    (
        SELECT coalesce(json_agg(DISTINCT i.execution), '[]')
        FROM perdure_inbox i
        WHERE i.execution = ANY({numbers})
            AND i.id <> ALL(ARRAY(SELECT e::bigint FROM json_array_elements_text($2::json) e))
    ),
    EXISTS (SELECT 1 FROM perdure_run c WHERE c.parent_execution = ANY({numbers})),
    EXISTS (SELECT 1 FROM perdure_watch w WHERE w.target = ANY({numbers})),
    EXISTS (SELECT 1 FROM perdure_watch w WHERE w.watcher = ANY({numbers})),
    EXISTS (SELECT 1 FROM perdure_human_task t WHERE t.run = ANY(ARRAY(SELECT e::bigint FROM json_array_elements_text($3::json) e))),
    EXISTS (SELECT 1 FROM perdure_open_tx o WHERE o.run = ANY(ARRAY(SELECT e::bigint FROM json_array_elements_text($3::json) e))),
    EXISTS (SELECT 1 FROM perdure_beat b WHERE b.run = ANY(ARRAY(SELECT e::bigint FROM json_array_elements_text($3::json) e)))
)::text;

-- Runs with an activity whose deciding row is gone already.
-- name: already_settled
SELECT coalesce(json_agg(DISTINCT (v ->> 0)::bigint), '[]')::text
FROM json_array_elements($1::json) v
WHERE NOT EXISTS (
    SELECT 1 FROM perdure_open_tx o
    WHERE o.run = (v ->> 0)::bigint AND o.activity = (v ->> 1)::bigint
);

-- The latest run of each (namespace, workflow id), and the workflow of its execution's first run.
-- name: latest
SELECT coalesce(json_agg(json_build_array(
    r.namespace, r.workflow_id, r.run, r.execution, r.run_id, s.status,
    coalesce((SELECT f.workflow FROM perdure_run f WHERE f.run = r.execution), r.workflow),
    s.owner,
    s.unread
    + (SELECT count(*) FROM (SELECT 1 FROM perdure_inbox i WHERE i.execution = r.execution LIMIT $2) AS counted),
    r.parent_execution, r.parent_event, r.tenant, s.reason, r.parent_close,
    (
        SELECT p.run_id FROM perdure_run p WHERE p.execution = r.parent_execution AND p.run < r.execution
        ORDER BY p.run DESC LIMIT 1
    )
)), '[]')::text
FROM json_array_elements($1::json) v
JOIN perdure_run r ON r.run = (
    SELECT max(x.run) FROM perdure_run x
    WHERE x.namespace = v ->> 0 AND x.workflow_id = v ->> 1
)
JOIN perdure_state s ON s.run = r.run;

-- Runs that are there already under one of these run ids.
-- name: same_run_id
SELECT coalesce(json_agg(json_build_array(r.run, r.execution, r.run_id, s.status, r.workflow)), '[]')::text
FROM perdure_run r JOIN perdure_state s ON s.run = r.run
WHERE r.run_id = ANY({texts});

-- name: insert_runs
INSERT INTO perdure_run
SELECT
    (v ->> 0)::bigint, v ->> 1, (v ->> 2)::bigint, v ->> 3, v ->> 4, v ->> 5, v ->> 6, v ->> 7,
    (v ->> 8)::bigint,
    coalesce((v ->> 9)::bigint, before.parent_execution),
    coalesce((v ->> 10)::bigint, before.parent_event),
    CASE WHEN v ->> 9 IS NULL AND before.run IS NOT NULL THEN before.parent_close ELSE v ->> 11 END,
    (v ->> 16)::bigint, (v ->> 17)::bigint,
    coalesce(v ->> 12, before.created_by), coalesce(v ->> 13, before.correlation_id),
    coalesce(v ->> 14, before.tenant), coalesce(v ->> 15, before.tags)
FROM json_array_elements($1::json) v
-- A later run of an execution has the parent, the tags and so on of the first.
LEFT JOIN perdure_run AS before
    ON before.run = (v ->> 2)::bigint AND (v ->> 2)::bigint <> (v ->> 0)::bigint;

-- name: insert_tags
INSERT INTO perdure_tag SELECT v ->> 0, v ->> 1, (v ->> 2)::bigint FROM json_array_elements($1::json) v;

-- A later run of an execution has lane and priority of the first.
-- name: insert_states
INSERT INTO perdure_state (
    run, execution, status, owner, wake_at, length, closed_at, reason, detail, unblock, waits, since,
    progress, unread, lane, priority
)
SELECT
    (v ->> 0)::bigint, (v ->> 1)::bigint, (v ->> 2)::smallint, (v ->> 3)::bigint, (v ->> 4)::bigint,
    (v ->> 5)::bigint, (v ->> 6)::bigint, v ->> 7, v ->> 8, v ->> 9, v ->> 10, (v ->> 11)::bigint,
    v ->> 12, (v ->> 13)::bigint,
    coalesce(v ->> 14, (SELECT s.lane FROM perdure_state s WHERE s.run = (v ->> 1)::bigint), ''),
    coalesce(
        (v ->> 15)::bigint, (SELECT s.priority FROM perdure_state s WHERE s.run = (v ->> 1)::bigint), 0
    )
FROM json_array_elements($1::json) v;

-- The next numbers of each run, in the order in which the lines came. An attempt may still log when its run was erased,
-- or deleted.
-- name: insert_lines
INSERT INTO perdure_log (run, number, at, level, message, data, step, attempt)
SELECT
    j.run,
    coalesce((SELECT max(l.number) FROM perdure_log l WHERE l.run = j.run), 0)
        + row_number() OVER (PARTITION BY j.run ORDER BY j.n),
    (j.v ->> 1)::bigint, (j.v ->> 2)::bigint, j.v ->> 3, j.v ->> 4, j.v ->> 5, (j.v ->> 6)::bigint
FROM (
    SELECT (v ->> 0)::bigint AS run, v, n FROM json_array_elements($1::json) WITH ORDINALITY AS a (v, n)
) AS j
WHERE (SELECT coalesce(s.reason, '') FROM perdure_state s WHERE s.run = j.run) NOT IN ('erasing', 'erased')
ORDER BY j.n;

-- name: drop_old_lines
DELETE FROM perdure_log WHERE id IN (
    SELECT l.id
    FROM (SELECT DISTINCT (v ->> 0)::bigint AS run FROM json_array_elements($1::json) v) AS j
    JOIN perdure_log l ON l.run = j.run
        AND l.number <= (SELECT max(m.number) FROM perdure_log m WHERE m.run = j.run) - $2::bigint
);

-- name: log
SELECT run, at, level, message, data, step, attempt, number
FROM perdure_log WHERE run = $1 AND number > $2 ORDER BY number LIMIT $3;

-- name: insert_memos
INSERT INTO perdure_memo
SELECT (v ->> 0)::bigint, v ->> 1 FROM json_array_elements($1::json) v
ON CONFLICT (run) DO UPDATE SET memo = excluded.memo;

-- name: insert_copies
INSERT INTO perdure_copy (run, event)
SELECT (v ->> 0)::bigint, (v ->> 1)::bigint FROM json_array_elements($1::json) v;

-- name: insert_forks
INSERT INTO perdure_fork
SELECT (v ->> 0)::bigint, (v ->> 1)::bigint, (v ->> 2)::bigint, v ->> 3 FROM json_array_elements($1::json) v;

-- name: inherit_memos
INSERT INTO perdure_memo
SELECT (v ->> 0)::bigint, m.memo
FROM json_array_elements($1::json) v JOIN perdure_memo m ON m.run = (v ->> 1)::bigint
ON CONFLICT DO NOTHING;

-- name: inherit_attrs
INSERT INTO perdure_attr (namespace, key, value, run, form)
SELECT a.namespace, a.key, a.value, (v ->> 0)::bigint, a.form
FROM json_array_elements($1::json) v JOIN perdure_attr a ON a.run = (v ->> 1)::bigint
ON CONFLICT DO NOTHING;

-- Tags of its own take the place of those before.
-- name: inherit_tags
INSERT INTO perdure_tag
SELECT t.namespace, t.tag, (v ->> 0)::bigint
FROM json_array_elements($1::json) v JOIN perdure_tag t ON t.run = (v ->> 1)::bigint
WHERE NOT EXISTS (SELECT 1 FROM perdure_tag o WHERE o.run = (v ->> 0)::bigint);

-- name: delete_memos
DELETE FROM perdure_memo WHERE run = ANY({numbers});

-- name: memos
SELECT coalesce(json_agg(json_build_array(m.run, m.memo)), '[]')::text
FROM perdure_memo m WHERE m.run = ANY({numbers});

-- The number of this transaction, with room for a million places in it. Rows of later ones, which
-- may have been committed already, are none of its own.
-- name: insert_history
WITH mine AS (SELECT pg_current_xact_id()::text::bigint << 20 AS low),
last AS (
    SELECT coalesce(
        (
            SELECT max(h.id) FROM perdure_history h
            WHERE h.id >= mine.low AND h.id < mine.low + 1048576
        ),
        mine.low - 1
    ) AS id FROM mine
)
INSERT INTO perdure_history (id, run, first, count, time, applied, worker, crc, payload)
SELECT last.id + u.n, u.run, u.first, u.count, u.time, u.applied, u.worker, u.crc, u.payload
FROM last, unnest(
    $1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bytea[]
) WITH ORDINALITY AS u (run, first, count, time, applied, worker, crc, payload, n);

-- name: update_states
UPDATE perdure_state AS state SET
    status = (v ->> 1)::smallint, owner = (v ->> 2)::bigint, wake_at = (v ->> 3)::bigint,
    length = (v ->> 4)::bigint, closed_at = (v ->> 5)::bigint,
    reason = v ->> 6, detail = v ->> 7, unblock = v ->> 8, waits = v ->> 9, since = (v ->> 10)::bigint,
    progress = coalesce(v ->> 11, progress), unread = (v ->> 12)::bigint,
    lost_by = CASE WHEN (v ->> 13)::boolean THEN lost_by END,
    -- A run that goes on has only been taken over: it may hold this worker as it held the last.
    suspected = CASE (v ->> 1)::smallint WHEN 1 THEN suspected ELSE 0 END
FROM json_array_elements($1::json) v
WHERE state.run = (v ->> 0)::bigint;

-- name: move_runs
UPDATE perdure_run SET version = v ->> 1
FROM json_array_elements($1::json) v
WHERE run = (v ->> 0)::bigint;

-- name: touch_states
UPDATE perdure_state AS state SET
    owner = (v ->> 1)::bigint, progress = coalesce(v ->> 2, progress), lost_by = NULL
FROM json_array_elements($1::json) v
WHERE state.run = (v ->> 0)::bigint;

-- name: set_progress
UPDATE perdure_state AS state SET progress = v ->> 1
FROM json_array_elements($1::json) v
WHERE state.run = (v ->> 0)::bigint;

-- name: end_runs
WITH mine AS (SELECT pg_current_xact_id()::text::bigint << 20 AS low),
last AS (
    SELECT coalesce(
        (
            SELECT max(h.id) FROM perdure_history h
            WHERE h.id >= mine.low AND h.id < mine.low + 1048576
        ),
        mine.low - 1
    ) AS id FROM mine
)
INSERT INTO perdure_history (id, run, first, count, time, applied, worker, crc, payload)
SELECT
    last.id + row_number() OVER (), h.run, h.first + h.count, $6::bigint,
    -- Its last turn may be younger than a batch that had to wait: time does not go back.
    greatest($2::bigint, h.time),
    0, $3::bigint, $4::bigint, $5::bytea
FROM last, unnest({numbers}) AS j (run)
JOIN perdure_history h ON h.run = j.run
    AND h.first = (SELECT max(x.first) FROM perdure_history x WHERE x.run = j.run);

-- What is in the inboxes of these runs' executions.
-- name: unread_of_runs
SELECT r.run, i.event
FROM perdure_run r JOIN perdure_inbox i ON i.execution = r.execution
WHERE r.run = ANY({numbers})
ORDER BY i.id;

-- name: recall
UPDATE perdure_worker SET recalled = recalled + 1
WHERE id IN (SELECT coalesce(s.owner, 0) FROM perdure_state s WHERE s.run = ANY({numbers}));

-- name: end_states
UPDATE perdure_state AS state SET
    status = $3, owner = NULL, wake_at = NULL, waits = NULL,
    closed_at = greatest($2::bigint, since), since = greatest($2::bigint, since),
    length = {real_length}
WHERE run = ANY({numbers});

-- The length of a run in `state` according to its history.
-- name: real_length
(
    SELECT h.first + h.count - 1 FROM perdure_history h
    WHERE h.run = state.run ORDER BY h.first DESC LIMIT 1
)

-- name: consume
DELETE FROM perdure_inbox WHERE id = ANY({numbers});

-- name: empty_inboxes
DELETE FROM perdure_inbox WHERE execution = ANY({numbers});

-- name: delete_open_tx
DELETE FROM perdure_open_tx
WHERE (run, activity) IN (
    SELECT (v ->> 0)::bigint, (v ->> 1)::bigint FROM json_array_elements($1::json) v
);

-- name: delete_open_tx_of_runs
DELETE FROM perdure_open_tx WHERE run = ANY({numbers});

-- name: insert_open_tx
INSERT INTO perdure_open_tx
SELECT (v ->> 0)::bigint, (v ->> 1)::bigint, (v ->> 2)::bigint FROM json_array_elements($1::json) v
ON CONFLICT DO NOTHING;

-- name: delete_attrs
DELETE FROM perdure_attr
WHERE (run, key) IN (SELECT (v ->> 0)::bigint, v ->> 1 FROM json_array_elements($1::json) v);

-- name: insert_attrs
INSERT INTO perdure_attr (namespace, key, value, run, form)
SELECT r.namespace, v ->> 1, (v -> 2)::jsonb, r.run, (v ->> 3)::bigint
FROM json_array_elements($1::json) v JOIN perdure_run r ON r.run = (v ->> 0)::bigint;

-- Where posts go: the current run of an execution, its status, and how full its inbox is.
-- name: targets
WITH wanted AS MATERIALIZED (
    SELECT n - 1 AS n, CASE
        WHEN v ->> 0 IS NOT NULL
        THEN (SELECT max(x.run) FROM perdure_run x WHERE x.execution = (v ->> 0)::bigint)
        ELSE (
            SELECT max(x.run) FROM perdure_run x
            WHERE x.namespace = v ->> 1 AND x.workflow_id = v ->> 2
        )
    END AS run
    FROM json_array_elements($1::json) WITH ORDINALITY AS a (v, n)
)
SELECT coalesce(json_agg(json_build_array(
    w.n, r.execution, r.run, s.status,
    s.unread
    + (SELECT count(*) FROM (SELECT 1 FROM perdure_inbox i WHERE i.execution = r.execution LIMIT $2) AS counted)
)), '[]')::text
FROM wanted w JOIN perdure_run r ON r.run = w.run JOIN perdure_state s ON s.run = w.run;

-- name: senders
SELECT coalesce(json_agg(json_build_array(s.sender, s.seq)), '[]')::text
FROM perdure_sender s WHERE s.sender = ANY({texts});

-- name: upsert_senders
INSERT INTO perdure_sender
SELECT v ->> 0, (v ->> 1)::bigint, $2::bigint FROM json_array_elements($1::json) v
ON CONFLICT (sender) DO UPDATE SET seq = excluded.seq, at = excluded.at;

-- Open children of ended executions.
-- name: children
SELECT coalesce(json_agg(json_build_array(c.run, c.execution, c.parent_close)), '[]')::text
FROM perdure_run c
JOIN perdure_state s ON s.run = c.run
WHERE c.parent_execution = ANY({numbers}) AND s.status < 5 AND c.parent_close <> 'abandon';

-- name: insert_inbox
INSERT INTO perdure_inbox (execution, sender, seq, event, is_control, created_at)
SELECT u.execution, u.sender, u.seq, u.event, u.is_control, u.created_at
FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::bytea[], $5::bigint[], $6::bigint[])
    WITH ORDINALITY AS u (execution, sender, seq, event, is_control, created_at, n)
ORDER BY u.n
RETURNING id;

-- name: find_open_tx
SELECT 1 FROM perdure_open_tx WHERE run = $1 AND activity = $2 AND attempt = $3;

-- name: take_open_tx
DELETE FROM perdure_open_tx WHERE run = $1 AND activity = $2 AND attempt = $3;

-- name: execution_of
SELECT execution FROM perdure_run WHERE run = $1;

-- name: current_run
SELECT max(run) FROM perdure_run WHERE execution = $1;

-- Watches ----------------------------------------------------------------------------------------

-- name: insert_watches
INSERT INTO perdure_watch (target, watcher, mailbox, way, ref, asked_by)
SELECT (v ->> 0)::bigint, (v ->> 1)::bigint, v ->> 2, v ->> 3, (v ->> 4)::bigint, v ->> 5
FROM json_array_elements($1::json) v;

-- Takes (target, watcher, mailbox, way) back.
-- name: delete_watches
DELETE FROM perdure_watch WHERE id IN (
    SELECT w.id
    FROM json_array_elements($1::json) v JOIN perdure_watch w ON w.target = (v ->> 0)::bigint
    WHERE w.watcher IS NOT DISTINCT FROM (v ->> 1)::bigint AND w.mailbox IS NOT DISTINCT FROM v ->> 2
        AND w.way = v ->> 3
);

-- Who watches the ended executions, and with which run each of them is now.
-- name: watchers
SELECT coalesce(json_agg(json_build_array(
    w.target, w.watcher, w.mailbox, w.way, w.ref, w.asked_by,
    (SELECT max(x.run) FROM perdure_run x WHERE x.execution = w.watcher)
) ORDER BY w.id), '[]')::text
FROM perdure_watch w WHERE w.target = ANY({numbers});

-- name: delete_watches_of_ended
DELETE FROM perdure_watch WHERE target = ANY({numbers});

-- name: delete_watches_by_ended
DELETE FROM perdure_watch WHERE watcher = ANY({numbers});

-- The last turn of each execution's current run.
-- name: endings
SELECT r.execution, r.workflow_id, r.run_id, h.time, h.payload
FROM unnest({numbers}) AS j (execution)
JOIN perdure_run r ON r.run = (
    SELECT max(x.run) FROM perdure_run x WHERE x.execution = j.execution
)
JOIN perdure_history h ON h.run = r.run AND h.first = (
    SELECT max(x.first) FROM perdure_history x WHERE x.run = r.run
);

-- Kept open until the mail is in.
-- name: open_mailboxes
SELECT coalesce(json_agg(m.mailbox), '[]')::text FROM (
    SELECT mailbox FROM perdure_mailbox WHERE mailbox = ANY({texts}) ORDER BY mailbox FOR KEY SHARE
) AS m;

-- name: keep_mailboxes
INSERT INTO perdure_mailbox SELECT e, $2::bigint FROM json_array_elements_text($1::json) e
ON CONFLICT (mailbox) DO UPDATE SET until = excluded.until;

-- name: over_mailboxes
SELECT coalesce(json_agg(mailbox ORDER BY mailbox), '[]')::text FROM perdure_mailbox
WHERE until < $2 OR mailbox = ANY({texts});

-- name: close_mailboxes
DELETE FROM perdure_mailbox WHERE mailbox = ANY({texts});

-- name: delete_mail_of_mailboxes
DELETE FROM perdure_mail WHERE mailbox = ANY({texts});

-- name: delete_watches_of_mailboxes
DELETE FROM perdure_watch WHERE mailbox = ANY({texts});

-- name: insert_mail
INSERT INTO perdure_mail (mailbox, event)
SELECT u.mailbox, u.event
FROM unnest($1::text[], $2::bytea[]) WITH ORDINALITY AS u (mailbox, event, n) ORDER BY u.n;

-- Sorted, and not read in the order of an index that has everybody's.
-- name: mail
SELECT m.id, m.mailbox, m.event
FROM perdure_mail m WHERE m.mailbox = ANY({texts})
ORDER BY m.id + 0 LIMIT $2;

-- name: drop_mail
DELETE FROM perdure_mail WHERE id = ANY({numbers});

-- Human tasks ------------------------------------------------------------------------------------

-- name: insert_human_tasks
INSERT INTO perdure_human_task (
    id, namespace, run, execution, event, status, name, title, description, role, assignee, priority,
    form, data, created_at, due_at, remind_at, type, approvers, not_by, chain, next_at, form_version,
    expires_at
)
SELECT
    v ->> 0, r.namespace, (v ->> 1)::bigint, (v ->> 2)::bigint, (v ->> 3)::bigint, 0, v ->> 4, v ->> 5,
    v ->> 6, v ->> 7, v ->> 8, (v ->> 9)::bigint, v ->> 10, v ->> 11, (v ->> 12)::bigint,
    (v ->> 13)::bigint, (v ->> 14)::bigint, v ->> 15, (v ->> 16)::bigint, v ->> 17, v ->> 18,
    (v ->> 19)::bigint, (v ->> 20)::bigint, (v ->> 21)::bigint
FROM json_array_elements($1::json) v JOIN perdure_run r ON r.run = (v ->> 1)::bigint;

-- Runs that give up a human task that is not open any more.
-- name: already_decided
SELECT coalesce(json_agg(DISTINCT (v ->> 0)::bigint), '[]')::text
FROM json_array_elements($1::json) v JOIN perdure_human_task t ON t.id = v ->> 1
WHERE t.status > 1;

-- Not in the words of the partial indexes, which would be read from end to end.
-- name: give_up_human_tasks
UPDATE perdure_human_task SET
    status = (v ->> 1)::smallint, closed_at = (v ->> 2)::bigint,
    claimed_by = NULL, claimed_at = NULL, claimed_until = NULL
FROM json_array_elements($1::json) v
WHERE id = v ->> 0 AND status < 2;

-- As above.
-- name: close_human_tasks_of_runs
UPDATE perdure_human_task SET
    status = 4, closed_at = $2, claimed_by = NULL, claimed_at = NULL, claimed_until = NULL
WHERE run = ANY({numbers}) AND status < 2;

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
SELECT {task_columns} FROM {task_tables} WHERE t.id = $1;

-- name: human_tasks_of_ids
SELECT {task_columns} FROM {task_tables} WHERE t.id = ANY({texts});

-- Each only if it still is as it was when it was judged.
-- name: change_human_tasks
UPDATE perdure_human_task SET
    status = (v ->> 1)::smallint, role = v ->> 2, assignee = v ->> 3, claimed_by = v ->> 4,
    claimed_at = (v ->> 5)::bigint, claimed_until = (v ->> 6)::bigint, closed_at = (v ->> 7)::bigint,
    closed_by = v ->> 8, value = v ->> 9, comment = v ->> 10, approvals = v ->> 11, chain = v ->> 12,
    next_at = (v ->> 13)::bigint
FROM json_array_elements($1::json) v
WHERE id = v ->> 0 AND status = (v ->> 14)::smallint AND claimed_by IS NOT DISTINCT FROM v ->> 15
    AND claimed_until IS NOT DISTINCT FROM (v ->> 16)::bigint;

-- What the clock does; what people wrote is left as it is.
-- name: move_human_tasks
UPDATE perdure_human_task SET
    status = (v ->> 1)::smallint, role = v ->> 2, assignee = v ->> 3, claimed_by = v ->> 4,
    claimed_at = (v ->> 5)::bigint, claimed_until = (v ->> 6)::bigint, closed_at = (v ->> 7)::bigint,
    chain = v ->> 8, next_at = (v ->> 9)::bigint
FROM json_array_elements($1::json) v
WHERE id = v ->> 0 AND status < 2;

-- One that no run asks for.
-- name: insert_human_task
INSERT INTO perdure_human_task (
    id, namespace, status, name, title, description, role, assignee, priority, form, data, created_at,
    due_at, remind_at, type, approvers, not_by, chain, next_at, form_version, expires_at, created_by,
    tenant
)
VALUES (
    $1, $2, 0, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21,
    $22
)
ON CONFLICT (id) DO NOTHING;

-- name: due_human_tasks
SELECT id FROM perdure_human_task WHERE status IN (0, 1) AND next_at IS NOT NULL AND next_at <= $1
ORDER BY next_at LIMIT $2;

-- name: insert_human_log
INSERT INTO perdure_human_log (task, run, at, who, verb, data)
SELECT v ->> 0, (v ->> 1)::bigint, (v ->> 2)::bigint, v ->> 3, v ->> 4, v ->> 5
FROM json_array_elements($1::json) WITH ORDINALITY AS a (v, n) ORDER BY n;

-- name: human_log
SELECT id, at, who, verb, data FROM perdure_human_log WHERE task = $1 AND id > $2 ORDER BY id LIMIT $3;

-- Those that no run asked for, which ended long ago.
-- name: old_human_tasks
SELECT id FROM perdure_human_task WHERE run IS NULL AND status > 1 AND closed_at < $1
ORDER BY closed_at LIMIT $2;

-- name: delete_human_log
DELETE FROM perdure_human_log WHERE task = ANY({texts});

-- name: delete_human_tasks
DELETE FROM perdure_human_task WHERE id = ANY({texts});

-- Workers ----------------------------------------------------------------------------------------

-- name: now
SELECT perdure_now();

-- name: insert_worker
INSERT INTO perdure_worker (
    epoch, state, name, pid, host, started_at, lease_until, workflows, queues, activities
)
VALUES (1, 'live', $1, $2, $3, perdure_now(), perdure_now() + ($5::bigint - $4::bigint), $6, $7, $8)
RETURNING id, started_at, lease_until;

-- name: forget_workers
DELETE FROM perdure_worker WHERE state <> 'live' AND lease_until < $1;

-- name: upsert_definitions
INSERT INTO perdure_definition AS old (
    name, version, code, source, queue, is_active, registered_at, id, triggers
)
SELECT v ->> 0, v ->> 1, v ->> 2, v ->> 3, v ->> 4, (v ->> 5)::bigint, $2::bigint, v ->> 6, v ->> 7
FROM json_array_elements($1::json) v ORDER BY v ->> 0, v ->> 1
ON CONFLICT (name, version) DO UPDATE
SET code = excluded.code, source = excluded.source, queue = excluded.queue, id = excluded.id,
    triggers = excluded.triggers
WHERE (old.code, old.source, old.queue, old.id, old.triggers)
    IS DISTINCT FROM (excluded.code, excluded.source, excluded.queue, excluded.id, excluded.triggers);

-- name: activate
UPDATE perdure_definition SET is_active = $3 WHERE name = $1 AND version = $2;

-- name: extend
UPDATE perdure_worker SET lease_until = perdure_now() + ($3::bigint - $4::bigint)
WHERE id = $1 AND epoch = $2 AND state = 'live' RETURNING recalled, perdure_now();

-- name: leave
UPDATE perdure_worker SET state = 'left', lease_until = perdure_now()
WHERE id = $1 AND epoch = $2 AND state = 'live' AND $3::bigint IS NOT NULL;

-- If it was seen to end ($3), it must have ended on the store's clock.
-- name: take_over
UPDATE perdure_worker SET epoch = epoch + 1, state = 'dead'
WHERE id = $1 AND epoch = $2 AND state = 'live'
    AND ($3::bigint IS NULL OR (lease_until = $3::bigint AND lease_until < perdure_now()));

-- Whoever had work in flight must be looked at again, so a waiting run becomes a running one.
-- name: release_runs
UPDATE perdure_state AS state SET
    owner = NULL, length = {real_length}, status = CASE status WHEN 2 THEN 1 ELSE status END,
    lost_by = $2
WHERE owner = $1;

-- name: beats
SELECT run, activity, details FROM perdure_beat WHERE run = ANY({numbers});

-- name: insert_beats
INSERT INTO perdure_beat (run, activity, details)
SELECT u.run, u.activity, u.details FROM unnest($1::bigint[], $2::bigint[], $3::bytea[]) AS u (run, activity, details)
ON CONFLICT (run, activity) DO UPDATE SET details = excluded.details;

-- A worker may not know yet that its run was ended.
-- name: delete_beats_of_ended
DELETE FROM perdure_beat WHERE run IN (
    SELECT s.run FROM perdure_state s WHERE s.run = ANY({numbers}) AND s.status >= 5
);

-- name: delete_beats_of_runs
DELETE FROM perdure_beat WHERE run = ANY({numbers});

-- name: suspect
UPDATE perdure_state AS state SET suspected = suspected + 1 WHERE run = $1;

-- Waits for whoever is about to commit a batch of this worker.
-- name: resolve
SELECT last_batch FROM perdure_worker WHERE id = $1 AND epoch = $2 AND state = 'live' FOR UPDATE;

-- name: workers
SELECT
    id, epoch, name, pid, host, state, started_at, lease_until, last_batch, workflows, queues, activities
FROM perdure_worker WHERE state = 'live' ORDER BY id;

-- Limits -----------------------------------------------------------------------------------------

-- name: limits
SELECT coalesce(json_agg(json_build_array(
    workflow, max_open, max_per_key, on_limit, pool, pool_max, rate, rate_per_key
)), '[]')::text
FROM perdure_limit;

-- name: upsert_limits
INSERT INTO perdure_limit (
    workflow, max_open, max_per_key, on_limit, pool, pool_max, rate, rate_per_key
)
SELECT
    v ->> 0, (v ->> 1)::bigint, (v ->> 2)::bigint, v ->> 3, v ->> 4, (v ->> 5)::bigint, v ->> 6, v ->> 7
FROM json_array_elements($1::json) v
ON CONFLICT (workflow) DO UPDATE SET
    max_open = excluded.max_open, max_per_key = excluded.max_per_key, on_limit = excluded.on_limit,
    pool = excluded.pool, pool_max = excluded.pool_max, rate = excluded.rate,
    rate_per_key = excluded.rate_per_key;

-- name: delete_limits
DELETE FROM perdure_limit WHERE workflow = ANY({texts});

-- Open executions of workflows that get a limit: those that have begun have a slot.
-- name: adoptable
SELECT
    r.execution, r.workflow, coalesce(r.begins_at, r.created_at),
    CASE WHEN state.status = 0 OR {is_unbegun} THEN 3 WHEN {is_new_paused} THEN 4 ELSE 2 END,
    r.tenant, h.payload, {is_unbegun}
FROM perdure_state AS state
JOIN perdure_run r ON r.run = state.run
JOIN perdure_history h ON h.run = r.run AND h.first = 1
WHERE state.status IN (0, 1, 2, 3, 4) AND r.workflow = ANY({texts});

-- name: is_unbegun
(state.status = 1 AND state.owner IS NULL AND state.length = 1 AND r.run = r.execution)

-- Paused since its start: its history is event 1 alone.
-- name: is_new_paused
(state.status = 3 AND state.length = 1)

-- name: mark_unqueued
UPDATE perdure_state AS state
SET reason = CASE WHEN status = 0 THEN 'delayed' ELSE 'paused_in_queue' END
WHERE status IN (0, 3) AND execution IN (
    SELECT s.execution FROM perdure_slot s
    WHERE s.place = CASE WHEN state.status = 0 THEN 3 ELSE 4 END AND s.workflow = ANY({texts})
);

-- name: unmark_delayed
UPDATE perdure_state AS state SET reason = NULL
WHERE status = 0 AND reason = 'delayed' AND execution IN (
    SELECT s.execution FROM perdure_slot s WHERE s.place = 3 AND s.workflow = ANY({texts})
);

-- name: delete_slots_of_workflows
DELETE FROM perdure_slot WHERE workflow = ANY({texts});

-- name: workflows_with_queue
SELECT coalesce(json_agg(DISTINCT s.workflow), '[]')::text
FROM perdure_slot s WHERE s.place = 1 AND s.workflow = ANY({texts});

-- name: keys_with_queue
SELECT coalesce(json_agg(DISTINCT s.key), '[]')::text
FROM perdure_slot s WHERE s.place IN (0, 1) AND s.workflow = $1;

-- How many slots of each workflow are taken.
-- name: taken
SELECT coalesce(json_agg(json_build_array(e, (
    SELECT count(*) FROM perdure_slot s WHERE s.workflow = e AND s.place = 2
))), '[]')::text
FROM json_array_elements_text($1::json) e;

-- How many slots of each (workflow, key) are taken.
-- name: taken_of_keys
SELECT coalesce(json_agg(json_build_array(v ->> 0, v ->> 1, (
    SELECT count(*) FROM perdure_slot s
    WHERE s.workflow = v ->> 0 AND s.key = v ->> 1 AND s.place = 2
))), '[]')::text
FROM json_array_elements($1::json) v;

-- Which of these executions hold a slot.
-- name: holders
SELECT coalesce(json_agg(json_build_array(s.execution, s.workflow, s.key)), '[]')::text
FROM perdure_slot s WHERE s.execution = ANY({numbers}) AND s.place = 2;

-- name: insert_slots
INSERT INTO perdure_slot (
    execution, workflow, key, priority, since, deadline, place, lane, rank, turn
)
SELECT
    (v ->> 0)::bigint, v ->> 1, v ->> 2, (v ->> 3)::bigint, (v ->> 4)::bigint, (v ->> 5)::bigint,
    (v ->> 6)::bigint, v ->> 7, (v ->> 8)::bigint, (v ->> 9)::bigint
FROM json_array_elements($1::json) v
ON CONFLICT (execution) DO UPDATE SET
    workflow = excluded.workflow, key = excluded.key, priority = excluded.priority,
    since = excluded.since, deadline = excluded.deadline, place = excluded.place,
    lane = excluded.lane, rank = excluded.rank, turn = excluded.turn;

-- name: delete_slots
DELETE FROM perdure_slot WHERE execution = ANY({numbers}) RETURNING workflow, key;

-- (execution, since, deadline) of later runs that begin later, or whose execution has no slot.
-- name: delay_slots
UPDATE perdure_slot AS slot SET
    since = (v ->> 1)::bigint, deadline = (v ->> 2)::bigint, place = 3, rank = -1, turn = 0
FROM json_array_elements($1::json) v
WHERE slot.execution = (v ->> 0)::bigint AND ((v ->> 3)::boolean OR slot.place <> 2)
RETURNING slot.workflow, slot.key, slot.execution;

-- name: pause_slots
UPDATE perdure_slot SET place = 4
WHERE execution = ANY({numbers}) AND place <> 2 RETURNING workflow, key;

-- name: resume_slots
UPDATE perdure_slot SET place = 3
WHERE execution = ANY({numbers}) RETURNING workflow, key, execution;

-- The current runs of these executions wait until they may join the queue.
-- name: delay_states
UPDATE perdure_state AS state SET
    status = 0, owner = NULL, reason = 'delayed',
    wake_at = (SELECT s.since FROM perdure_slot s WHERE s.execution = state.execution)
WHERE run IN (
    SELECT (SELECT max(x.run) FROM perdure_run x WHERE x.execution = j.e) FROM unnest({numbers}) AS j (e)
);

-- name: delayed
SELECT execution, workflow, key, priority, lane, rank, turn FROM perdure_slot
WHERE place = 3 AND since <= $1 ORDER BY since LIMIT $2;

-- name: place_slots
UPDATE perdure_slot AS slot SET
    place = (v ->> 1)::bigint, rank = coalesce((v ->> 2)::bigint, rank),
    turn = coalesce((v ->> 3)::bigint, turn)
FROM json_array_elements($1::json) v WHERE slot.execution = (v ->> 0)::bigint;

-- Not in the words of the index of all that are pending: the queue may be long.
-- name: queue_states
UPDATE perdure_state AS state SET
    reason = 'queued', since = $2,
    wake_at = (SELECT s.deadline FROM perdure_slot s WHERE s.execution = state.execution)
WHERE status + 0 = 0 AND run IN (
    SELECT (SELECT max(x.run) FROM perdure_run x WHERE x.execution = j.e) FROM unnest({numbers}) AS j (e)
);

-- The best of a key in one place: 0 held, 1 ready.
-- name: of_key
SELECT -priority, since, execution, lane FROM perdure_slot
WHERE workflow = $1 AND key = $2 AND place = $3 AND place IN (0, 1)
ORDER BY priority DESC, since, execution LIMIT $4;

-- name: ready
SELECT -priority, rank, turn, execution, key FROM perdure_slot
WHERE workflow = $1 AND place = 1
ORDER BY priority DESC, rank, turn, execution LIMIT $2;

-- For each (workflow, priority, lane): the lowest rank that is ready, and the highest of the lane.
-- name: ranks
SELECT coalesce(json_agg(json_build_array(
    v ->> 0, (v ->> 1)::bigint, v ->> 2,
    (
        SELECT s.rank FROM perdure_slot s
        WHERE s.workflow = v ->> 0 AND s.priority = (v ->> 1)::bigint AND s.place = 1
        ORDER BY s.rank, s.turn, s.execution LIMIT 1
    ),
    (
        SELECT s.rank FROM perdure_slot s
        WHERE s.workflow = v ->> 0 AND s.priority = (v ->> 1)::bigint AND s.place = 1
            -- Not "=": only the index of lanes has this order.
            AND s.lane >= v ->> 2 AND s.lane <= v ->> 2
        ORDER BY s.lane DESC, s.rank DESC LIMIT 1
    )
)), '[]')::text
FROM json_array_elements($1::json) v;

-- The last turn of each (workflow, priority, rank) that is ready.
-- name: turns
SELECT coalesce(json_agg(json_build_array(v ->> 0, (v ->> 1)::bigint, (v ->> 2)::bigint, coalesce((
    SELECT s.turn FROM perdure_slot s
    WHERE s.workflow = v ->> 0 AND s.priority = (v ->> 1)::bigint AND s.rank = (v ->> 2)::bigint
        AND s.place = 1
    ORDER BY s.turn DESC, s.execution DESC LIMIT 1
), -1))), '[]')::text
FROM json_array_elements($1::json) v;

-- Until when is paid of each (workflow, key), and until when somebody waits for the rate.
-- name: rates
SELECT coalesce(json_agg(json_build_array(t.workflow, t.key, t.paid_until, t.held_until)), '[]')::text
FROM json_array_elements($1::json) v
JOIN perdure_rate t ON t.workflow = v ->> 0 AND t.key = v ->> 1;

-- name: upsert_rates
INSERT INTO perdure_rate (workflow, key, paid_until, held_until)
SELECT v ->> 0, v ->> 1, (v ->> 2)::bigint, (v ->> 3)::bigint FROM json_array_elements($1::json) v
ON CONFLICT (workflow, key) DO UPDATE SET
    paid_until = excluded.paid_until, held_until = excluded.held_until;

-- name: delete_rates
DELETE FROM perdure_rate WHERE (workflow, key) IN (
    SELECT t.workflow, t.key FROM perdure_rate t
    WHERE t.paid_until <= $1 AND t.held_until IS NULL ORDER BY t.paid_until LIMIT $2
);

-- The rows of workflows (0) or of their keys (1).
-- name: delete_rates_of
DELETE FROM perdure_rate AS rate USING json_array_elements($1::json) v
WHERE rate.workflow = v ->> 0 AND (rate.key <> '')::int = (v ->> 1)::int;

-- name: held_no_longer
SELECT workflow, key FROM perdure_rate WHERE held_until <= $1 ORDER BY held_until LIMIT $2;

-- Which of these (workflow, key) somebody waits for in a queue; without a key: who is ready.
-- name: queued
SELECT coalesce(json_agg(json_build_array(v ->> 0, v ->> 1)), '[]')::text
FROM json_array_elements($1::json) v
WHERE CASE v ->> 1
    WHEN '' THEN (
        SELECT true FROM perdure_slot s WHERE s.workflow = v ->> 0 AND s.place = 1
        ORDER BY s.priority DESC, s.rank LIMIT 1
    )
    ELSE coalesce(
        (
            SELECT true FROM perdure_slot s WHERE s.workflow = v ->> 0 AND s.key = v ->> 1 AND s.place = 0
            ORDER BY s.priority DESC LIMIT 1
        ),
        (
            SELECT true FROM perdure_slot s WHERE s.workflow = v ->> 0 AND s.key = v ->> 1 AND s.place = 1
            ORDER BY s.priority DESC LIMIT 1
        )
    )
END;

-- name: admit_states
UPDATE perdure_state AS state SET status = 1, reason = NULL, wake_at = NULL, since = $2
WHERE status + 0 = 0 AND run IN (
    SELECT (SELECT max(x.run) FROM perdure_run x WHERE x.execution = j.e) FROM unnest({numbers}) AS j (e)
);

-- Whether somebody may begin whom nobody has admitted.
-- name: is_admissible
(
EXISTS (SELECT 1 FROM perdure_slot WHERE place = 3 AND since <= $4)
OR EXISTS (SELECT 1 FROM perdure_rate WHERE held_until <= $4) OR EXISTS (
    SELECT 1 FROM perdure_limit l
    WHERE (
        SELECT true FROM perdure_slot s WHERE s.workflow = l.workflow AND s.place = 1
        ORDER BY s.priority DESC, s.rank LIMIT 1
    )
    AND NOT EXISTS (
        SELECT 1 FROM perdure_rate t WHERE t.workflow = l.workflow AND t.key = '' AND t.held_until > $4
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
SELECT workflow, key, priority, since, place, rank, turn FROM perdure_slot WHERE execution = $1;

-- How many are ready in the queue of workflow $1 before (priority $2, rank $3, turn $4).
-- name: before
SELECT count(*) FROM perdure_slot s
WHERE s.workflow = $1 AND s.place = 1
    AND (-s.priority, s.rank, s.turn) < (-($2::bigint), $3::bigint, $4::bigint);

-- How many of key $2 are in the queue of workflow $1 before (priority $3, since $4, execution $5).
-- name: before_of_key
SELECT count(*) FROM perdure_slot s
WHERE s.workflow = $1 AND s.key = $2 AND s.place IN (0, 1)
    AND (-s.priority, s.since, s.execution) < (-($3::bigint), $4::bigint, $5::bigint);

-- Meters, places, budgets (store/sql/tallies.py) ---------------------------------------------------

-- Until when is paid of these meters; their rows are held to the commit, also those that are new.
-- name: meters
WITH held AS (
    INSERT INTO perdure_meter (key, paid_until)
    SELECT DISTINCT e, 0 FROM json_array_elements_text($1::json) e ORDER BY e
    ON CONFLICT (key) DO UPDATE SET paid_until = perdure_meter.paid_until
    RETURNING key, paid_until
)
SELECT coalesce(json_agg(json_build_array(key, paid_until)), '[]')::text FROM held;

-- name: upsert_meters
INSERT INTO perdure_meter (key, paid_until)
SELECT v ->> 0, (v ->> 1)::bigint FROM json_array_elements($1::json) v
ON CONFLICT (key) DO UPDATE SET paid_until = excluded.paid_until;

-- name: delete_meters
DELETE FROM perdure_meter WHERE key = ANY(ARRAY(
    SELECT m.key FROM perdure_meter m WHERE m.paid_until <= $1 LIMIT $2 FOR UPDATE SKIP LOCKED
));

-- How many open executions are counted under each of these keys.
-- name: places_taken
SELECT coalesce(json_agg(json_build_array(e, (
    SELECT count(*) FROM perdure_place p WHERE p.key = e
))), '[]')::text
FROM json_array_elements_text($1::json) e;

-- Under which keys these executions are counted.
-- name: places_of
SELECT coalesce(json_agg(json_build_array(p.execution, p.key)), '[]')::text
FROM perdure_place p WHERE p.execution = ANY({numbers});

-- name: note_counted
UPDATE perdure_identity SET counts = counts | $1::bigint WHERE counts & $1::bigint <> $1::bigint;

-- name: insert_places
INSERT INTO perdure_place (execution, key)
SELECT (v ->> 0)::bigint, v ->> 1 FROM json_array_elements($1::json) v
ON CONFLICT (execution, key) DO NOTHING;

-- name: delete_places
DELETE FROM perdure_place WHERE execution = ANY({numbers});

-- name: insert_budgets
INSERT INTO perdure_budget (key, unit, execution, amount)
SELECT v ->> 0, v ->> 1, (v ->> 2)::bigint, (v ->> 3)::bigint FROM json_array_elements($1::json) v
ON CONFLICT (key, unit) DO NOTHING;

-- The rows of these (key, unit), held to the commit.
-- name: hold_budgets
SELECT coalesce(json_agg(json_build_array(key, unit, execution, amount, used, reserved)), '[]')::text
FROM (
    SELECT b.key, b.unit, b.execution, b.amount, b.used, b.reserved
    FROM json_array_elements($1::json) v
    JOIN perdure_budget b ON b.key = v ->> 0 AND b.unit = v ->> 1
    ORDER BY b.key, b.unit FOR UPDATE OF b
) AS held;

-- (key, unit, more used, more reserved).
-- name: change_budgets
UPDATE perdure_budget AS b
SET used = b.used + (v ->> 2)::bigint, reserved = b.reserved + (v ->> 3)::bigint
FROM json_array_elements($1::json) v WHERE b.key = v ->> 0 AND b.unit = v ->> 1;

-- name: budgets
SELECT key, unit, execution, amount, used, reserved FROM perdure_budget
WHERE key = ANY({texts}) ORDER BY key, unit;

-- name: has_hold
SELECT EXISTS (SELECT 1 FROM perdure_hold WHERE id = $1);

-- name: insert_holds
INSERT INTO perdure_hold (id, key, unit, execution, amount)
SELECT v ->> 0, v ->> 1, v ->> 2, (v ->> 3)::bigint, (v ->> 4)::bigint
FROM json_array_elements($1::json) v;

-- name: take_hold
DELETE FROM perdure_hold WHERE id = $1 RETURNING key, unit, amount;

-- name: take_holds_of
DELETE FROM perdure_hold WHERE execution = ANY({numbers}) RETURNING key, unit, amount;

-- name: is_open
SELECT EXISTS (
    SELECT 1 FROM perdure_state s
    WHERE s.run = (SELECT max(x.run) FROM perdure_run x WHERE x.execution = $1) AND s.status < 5
);

-- Task queues ------------------------------------------------------------------------------------

-- name: insert_tasks
INSERT INTO perdure_task (
    run, execution, activity, attempt, queue, name, lane, rank, stage, created_at, not_before, due, lost, call
)
SELECT
    u.run, u.execution, u.activity, u.attempt, u.queue, u.name, u.lane, u.rank, u.stage, u.created_at,
    u.not_before, u.due, u.lost, u.call
FROM unnest(
    $1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::text[], $6::text[], $7::text[], $8::bigint[],
    $9::smallint[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[], $14::bytea[]
) WITH ORDINALITY AS u (
    run, execution, activity, attempt, queue, name, lane, rank, stage, created_at, not_before, due, lost, call, n
)
ORDER BY u.n;

-- name: delete_tasks
DELETE FROM perdure_task
WHERE (run, activity) IN (
    SELECT (v ->> 0)::bigint, (v ->> 1)::bigint FROM json_array_elements($1::json) v
);

-- name: delete_tasks_of_runs
DELETE FROM perdure_task WHERE run = ANY({numbers});

-- Takes away those of (run, activity, attempt) that worker $2 (null: nobody) carries out.
-- name: close_tasks
DELETE FROM perdure_task t
WHERE t.id = ANY(ARRAY(
    SELECT x.id FROM json_array_elements($1::json) v CROSS JOIN LATERAL (
        SELECT o.id FROM perdure_task o
        WHERE o.run = (v ->> 0)::bigint AND o.activity = (v ->> 1)::bigint
            AND o.attempt = (v ->> 2)::bigint LIMIT 1
    ) AS x
)) AND t.owner IS NOT DISTINCT FROM $2::bigint AND t.stage <> 3
RETURNING t.run, t.activity;

-- The same rows get (stage, attempt, not before, due).
-- name: redo_tasks
UPDATE perdure_task t SET
    stage = (v ->> 3)::smallint, attempt = (v ->> 4)::bigint, not_before = (v ->> 5)::bigint,
    due = (v ->> 6)::bigint, lost = CASE (v ->> 3)::smallint WHEN 3 THEN lost ELSE 0 END,
    owner = NULL, claimed_at = NULL
FROM json_array_elements($1::json) v
WHERE t.run = (v ->> 0)::bigint AND t.activity = (v ->> 1)::bigint AND t.attempt = (v ->> 2)::bigint
    AND t.owner = $2::bigint
RETURNING t.run, t.activity;

-- name: hold_worker
SELECT 1 FROM perdure_worker WHERE id = $1 AND epoch = $2 AND state = 'live' FOR NO KEY UPDATE;

-- Those whose pause is over are ready.
-- name: ripen_tasks
UPDATE perdure_task SET stage = 0 WHERE id = ANY(ARRAY(
    SELECT id FROM perdure_task WHERE stage = 1 AND not_before <= $1
    ORDER BY not_before LIMIT $2 FOR UPDATE SKIP LOCKED
));

-- Whoever claims from a queue with limits holds its row.
-- name: queue_limits
SELECT queue, max_open, max_per_key, spacing, burst, arrival FROM perdure_queue
WHERE queue = ANY({texts}) ORDER BY queue FOR UPDATE;

-- name: upsert_queue_limits
INSERT INTO perdure_queue (queue, max_open, max_per_key, spacing, burst)
SELECT v ->> 0, (v ->> 1)::bigint, (v ->> 2)::bigint, (v ->> 3)::bigint, (v ->> 4)::bigint
FROM json_array_elements($1::json) v ORDER BY v ->> 0
ON CONFLICT (queue) DO UPDATE SET
    max_open = excluded.max_open, max_per_key = excluded.max_per_key, spacing = excluded.spacing,
    burst = excluded.burst;

-- name: delete_queue_limits
DELETE FROM perdure_queue WHERE queue = ANY({texts});

-- name: set_arrival
UPDATE perdure_queue SET arrival = $2 WHERE queue = $1;

-- What was taken of a rate and not used.
-- name: return_arrivals
UPDATE perdure_queue SET arrival = arrival - spacing * (v ->> 1)::bigint
FROM json_array_elements($1::json) v WHERE queue = v ->> 0 AND spacing > 0;

-- name: claimed_of_lanes
SELECT lane, count(*) FROM perdure_task WHERE queue = $1 AND stage = 2 GROUP BY lane;

-- The highest priority that waits in a queue, below rank $2.
-- name: task_level
SELECT (
    SELECT rank FROM perdure_task WHERE queue = $1 AND stage = 0 AND rank > $2
    ORDER BY rank, lane, name, id LIMIT 1
);

-- Who waits in queue $1 with rank $2, from lane $3 to $4, in order: lanes that are not among $6, and
-- activities among $5. One step through the index for each, however many wait.
-- name: task_groups
WITH RECURSIVE found (lane, name) AS (
    (
        SELECT t.lane, t.name FROM perdure_task t
        WHERE t.stage = 0 AND t.queue = $1 AND t.rank = $2 AND t.lane >= $3
        ORDER BY t.lane, t.name LIMIT 1
    )
    UNION ALL
    SELECT n.lane, n.name
    FROM found f CROSS JOIN LATERAL (
        SELECT x.lane, x.name FROM perdure_task x
        WHERE x.stage = 0 AND x.queue = $1 AND x.rank = $2 AND (x.lane, x.name) > (f.lane, f.name)
        ORDER BY x.lane, x.name LIMIT 1
    ) AS n
    WHERE f.lane <= $4
)
SELECT lane, name FROM found
WHERE lane <= $4 AND name = ANY(ARRAY(SELECT e FROM json_array_elements_text($5::json) e))
    AND lane <> ALL(ARRAY(SELECT e FROM json_array_elements_text($6::json) e))
LIMIT $7;

-- The oldest $4 of each (lane, activity) that nobody else is about to take.
-- name: task_heads
SELECT t.id, t.lane
FROM json_array_elements($1::json) v CROSS JOIN LATERAL (
    SELECT x.id, x.lane FROM perdure_task x
    WHERE x.stage = 0 AND x.queue = $2 AND x.rank = $3 AND x.lane = v ->> 0 AND x.name = v ->> 1
    ORDER BY x.id LIMIT $4 FOR UPDATE SKIP LOCKED
) AS t;

-- name: claim_tasks
UPDATE perdure_task SET stage = 2, owner = $2, claimed_at = $3 WHERE id = ANY({numbers});

-- name: claimed_tasks
SELECT
    t.run, t.execution, t.activity, t.attempt, t.queue, t.lane, t.lost, t.call, b.details, r.workflow_id,
    r.run_id, r.workflow, r.namespace, -t.rank
FROM perdure_task t
JOIN perdure_run r ON r.run = t.run
LEFT JOIN perdure_beat b ON b.run = t.run AND b.activity = t.activity
WHERE t.id = ANY({numbers})
ORDER BY t.id;

-- name: hand_back_tasks
UPDATE perdure_task t SET stage = 0, owner = NULL, claimed_at = NULL
FROM json_array_elements($1::json) v
WHERE t.run = (v ->> 0)::bigint AND t.activity = (v ->> 1)::bigint AND t.attempt = (v ->> 2)::bigint
    AND t.owner = $2::bigint
RETURNING t.queue;

-- name: release_tasks
UPDATE perdure_task SET stage = 0, owner = NULL, claimed_at = NULL WHERE owner = $1;

-- name: executions_of_tasks
SELECT coalesce(json_agg(DISTINCT execution), '[]')::text FROM perdure_task WHERE owner = $1;

-- name: lose_tasks
UPDATE perdure_task SET stage = 3, owner = NULL, claimed_at = NULL, lost = lost + 1
WHERE owner = $1 RETURNING run, execution, activity, attempt, lost;

-- name: offer_columns
run, execution, activity, attempt, queue, name, stage, created_at, not_before, due, owner, claimed_at, lost

-- name: offers_of_runs
SELECT {offer_columns}, ''::bytea FROM perdure_task
WHERE run = ANY({numbers}) ORDER BY run, activity;

-- name: overdue_offers
SELECT {offer_columns}, call FROM perdure_task
WHERE stage IN (0, 1) AND due > 0 AND due <= $1 ORDER BY due LIMIT $2;

-- name: carried_by
SELECT run, activity, attempt FROM perdure_task WHERE owner = $1;

-- Whether something is ready for a worker that serves the queues $1 and knows the activities $2, and
-- when something is due.
-- name: offers
SELECT
    EXISTS (
        SELECT 1 FROM json_array_elements_text($1::json) q CROSS JOIN json_array_elements_text($2::json) n
        CROSS JOIN LATERAL (
            SELECT 1 FROM perdure_task t WHERE t.queue = q AND t.name = n AND t.stage = 0 LIMIT 1
        ) AS found
    ),
    (SELECT min(not_before) FROM perdure_task WHERE stage = 1),
    (SELECT min(due) FROM perdure_task WHERE stage IN (0, 1) AND due > 0);

-- Deletion of old runs (store/sql/pruning.py) ------------------------------------------------------

-- Runs that ended by $1, behind ($2, $3) in the order of their ends, and how the latest run of each
-- one's execution stands.
-- name: ended
SELECT state.run, state.closed_at, state.execution, state.length, latest.run, latest.status, latest.closed_at,
    kept.execution IS NOT NULL
FROM perdure_state AS state
JOIN perdure_state AS latest
    ON latest.run = (SELECT max(x.run) FROM perdure_run x WHERE x.execution = state.execution)
LEFT JOIN perdure_keep AS kept ON kept.execution = state.execution
WHERE state.closed_at IS NOT NULL AND state.closed_at <= $1 AND (state.closed_at, state.run) > ($2, $3)
ORDER BY state.closed_at, state.run LIMIT $4;

-- name: newest
SELECT (SELECT max(run) FROM perdure_run), (SELECT run FROM perdure_history ORDER BY id DESC LIMIT 1);

-- All runs of these executions.
-- name: family
SELECT r.run, r.execution, s.closed_at
FROM perdure_run r JOIN perdure_state s ON s.run = r.run WHERE r.execution = ANY({numbers});

-- Executions with a retention of their own that are due, with all their runs.
-- name: due_keeps
SELECT kept.execution, kept.keep_for, kept.due, r.run, s.closed_at, s.length
FROM (
    SELECT execution, keep_for, due FROM perdure_keep
    WHERE due IS NOT NULL AND due <= $1 AND (due, execution) > ($2, $3)
    ORDER BY due, execution LIMIT $4
) AS kept
CROSS JOIN LATERAL (
    SELECT x.run FROM perdure_run x WHERE x.execution = kept.execution ORDER BY x.run LIMIT $4
) AS r
JOIN perdure_state s ON s.run = r.run
ORDER BY kept.due, kept.execution, r.run LIMIT $4;

-- name: insert_keeps
INSERT INTO perdure_keep (execution, keep_for, due)
SELECT (v ->> 0)::bigint, (v ->> 1)::bigint, (v ->> 2)::bigint FROM json_array_elements($1::json) v;

-- name: move_keeps
UPDATE perdure_keep AS kept SET due = (v ->> 1)::bigint
FROM json_array_elements($1::json) v WHERE kept.execution = (v ->> 0)::bigint;

-- Whether a column has one of the numbers of a JSON array.
-- name: among
= ANY(ARRAY(SELECT e::bigint FROM json_array_elements_text(?::json) e))

-- name: histories_to_delete
SELECT count(*), max(id + 0) FROM perdure_history WHERE run = ANY({numbers});

-- name: note_deleted
UPDATE perdure_journal SET deleted_to = greatest(deleted_to, $1);

-- name: senders_after
SELECT sender, at FROM perdure_sender WHERE sender > $1 ORDER BY sender LIMIT $2;

-- name: delete_senders
DELETE FROM perdure_sender WHERE sender = ANY({texts}) AND at < $2;

-- Erasing what runs were given and gave (store/sql/erasing.py) --------------------------------------

-- name: runs_to_erase
SELECT r.run, r.run_id, s.status FROM perdure_run r JOIN perdure_state s ON s.run = r.run
WHERE r.execution = $1::bigint ORDER BY r.run;

-- name: set_erased
UPDATE perdure_state SET reason = $2::text, detail = $3::text, waits = NULL, progress = NULL
WHERE run = $1::bigint;

-- name: being_erased
SELECT r.execution, s.run, r.run_id, r.workflow_id, r.namespace
FROM perdure_state AS s JOIN perdure_run r ON r.run = s.run
WHERE s.reason = 'erasing' AND s.run > $1::bigint ORDER BY s.run LIMIT $2::bigint;

-- name: rows_to_erase
SELECT id, first, payload, crc FROM perdure_history
WHERE run = $1::bigint AND first > $2::bigint ORDER BY first LIMIT $3::bigint;

-- Only if it still is what was read.
-- name: erase_row
UPDATE perdure_history SET crc = $3::bigint, payload = $4::bytea WHERE id = $1::bigint AND payload = $2::bytea;

-- name: erase_memos
DELETE FROM perdure_memo WHERE run = ANY({numbers});

-- name: erase_attrs
DELETE FROM perdure_attr WHERE run = ANY({numbers});

-- name: erase_beats
DELETE FROM perdure_beat WHERE run = ANY({numbers});

-- name: erase_offers
DELETE FROM perdure_task WHERE run = ANY({numbers});

-- name: erase_logs
UPDATE perdure_log SET message = $2::text, data = NULL WHERE run = ANY({numbers});

-- name: erase_human_tasks
UPDATE perdure_human_task SET
    title = $2::text, description = CASE description WHEN '' THEN '' ELSE $2::text END,
    comment = CASE comment WHEN '' THEN '' ELSE $2::text END,
    form = CASE WHEN form IS NULL THEN NULL ELSE $3::text END,
    data = CASE WHEN data IS NULL THEN NULL ELSE $3::text END,
    value = CASE WHEN value IS NULL THEN NULL ELSE $3::text END, approvals = NULL
WHERE run = ANY({numbers});

-- name: erase_human_logs
UPDATE perdure_human_log SET data = $2::text WHERE run = ANY({numbers}) AND data IS NOT NULL;

-- Of the audit, what it says of these runs in detail.
-- name: erase_details
UPDATE perdure_audit SET data = NULL WHERE data IS NOT NULL AND number = ANY(ARRAY(
    SELECT a.number FROM perdure_run r JOIN perdure_audit a ON a.namespace = r.namespace AND a.run_id = r.run_id
    WHERE r.run = ANY({numbers})
));

-- name: erase_inbox
DELETE FROM perdure_inbox WHERE execution = $1::bigint;

-- name: erase_questions
DELETE FROM perdure_question WHERE execution = $1::bigint;

-- Questions --------------------------------------------------------------------------------------

-- name: forget_questions
DELETE FROM perdure_question WHERE deadline < $1;

-- name: insert_question
INSERT INTO perdure_question (id, execution, name, args, deadline, update_id)
VALUES ($1, $2, $3, $4, $5, $6);

-- name: answer
UPDATE perdure_question SET answer = $2 WHERE id = $1 AND answer IS NULL;

-- name: reply
SELECT answer FROM perdure_question WHERE id = $1;

-- name: questions
SELECT q.id, q.execution, q.name, q.args, q.deadline, r.run, q.update_id
FROM perdure_question q
JOIN perdure_run r ON r.run = (SELECT max(x.run) FROM perdure_run x WHERE x.execution = q.execution)
WHERE q.deadline > $1 AND q.answer IS NULL
    AND r.workflow = ANY(ARRAY(SELECT e FROM json_array_elements_text($2::json) e))
ORDER BY q.deadline LIMIT $3;

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
SELECT {row_columns} FROM {row_tables} WHERE r.run = $1;

-- name: latest_of_workflow_ids
SELECT place, (SELECT max(r.run) FROM perdure_run r WHERE r.namespace = v ->> 0 AND r.workflow_id = v ->> 1)
FROM json_array_elements($1::json) WITH ORDINALITY t(v, place) ORDER BY place;

-- name: run_by_run_id
SELECT run, execution, namespace, workflow_id FROM perdure_run WHERE run_id = $1;

-- name: run_id_by_number
SELECT run_id FROM perdure_run WHERE run = $1;

-- name: rows
SELECT {row_columns} FROM {row_tables} WHERE r.run = ANY({numbers});

-- name: prefix_of_workflow_id
SELECT max(run) FROM perdure_run
WHERE namespace = $1 AND workflow_id >= $2 AND workflow_id < $3
GROUP BY workflow_id ORDER BY workflow_id LIMIT $4;

-- name: prefix_of_run_id
SELECT run FROM perdure_run WHERE run_id >= $2 AND run_id < $3 AND namespace = $1 ORDER BY run_id LIMIT $4;

-- name: forks
SELECT f.run, r.workflow_id, r.run_id, f.origin, coalesce(o.workflow_id, ''), coalesce(o.run_id, ''), f.event, f.how
FROM (
    SELECT x.* FROM perdure_fork x WHERE x.run = $1 UNION SELECT x.* FROM perdure_fork x WHERE x.origin = $1
) AS f
JOIN perdure_run r ON r.run = f.run LEFT JOIN perdure_run o ON o.run = f.origin ORDER BY f.run;

-- name: kept_for
SELECT (SELECT keep_for FROM perdure_keep WHERE execution = $1),
    (SELECT code FROM perdure_sweep WHERE workflow = '' AND scope = 'retention');

-- What lists are made of (store/sql/listing.py). What leads was chosen by counting, and is written so
-- that it does lead, whatever the planner believes of the tables: a subquery with OFFSET is taken as
-- it stands, and asked for each row.
-- name: join_run
CROSS JOIN LATERAL (SELECT x.* FROM perdure_run x WHERE x.run = {} OFFSET 0) AS r

-- name: join_state
CROSS JOIN LATERAL (SELECT x.status FROM perdure_state x WHERE x.run = {} OFFSET 0) AS s

-- name: for_each
OFFSET 0

-- The words of the index of all runs of a namespace.
-- name: of_namespace
r.namespace || '' = ?

-- Whatever leads, this does not: no index is searched for an expression.
-- name: of_column
r.{} || '' = ?

-- A search attribute, given as JSON.
-- name: json_value
?::jsonb

-- The value itself says which it is.
-- name: is_boolean

-- name: is_number

-- name: history
SELECT {turn_columns}, crc FROM perdure_history WHERE run = $1 AND first > $2 ORDER BY first LIMIT $3;

-- name: journal_columns
h.id, h.run, r.run_id, r.namespace, r.workflow_id, r.workflow, h.first, h.count, h.time, h.payload, h.crc

-- No transaction that is still open, and none that is yet to come, has rows before this.
-- name: settled
(pg_snapshot_xmin(pg_current_snapshot())::text::bigint << 20)

-- name: journal
SELECT {journal_columns}
FROM perdure_history h
JOIN perdure_run r ON r.run = h.run
LEFT JOIN perdure_copy AS copy ON copy.run = h.run
WHERE h.id > $1 AND h.id < {settled} AND h.first > coalesce(copy.event, 0)
ORDER BY h.id LIMIT $2;

-- Led by the few runs of the execution: `id` as it stands would be searched in its own index.
-- name: journal_of
SELECT {journal_columns}
FROM perdure_run r
JOIN perdure_history h ON h.run = r.run
LEFT JOIN perdure_copy AS copy ON copy.run = h.run
WHERE r.namespace = $3 AND r.workflow_id = $4 AND h.id + 0 > $1 AND h.id + 0 < {settled}
    AND h.first > coalesce(copy.event, 0)
ORDER BY h.id LIMIT $2;

-- name: journal_ends
SELECT deleted_to, coalesce((SELECT max(h.id) FROM perdure_history h WHERE h.id < {settled}), deleted_to)
FROM perdure_journal;

-- name: last_turn
SELECT {turn_columns}, crc FROM perdure_history WHERE run = $1 ORDER BY first DESC LIMIT 1;

-- name: histories
SELECT {turn_columns}, crc FROM perdure_history WHERE run = ANY({numbers}) ORDER BY run, first;

-- name: inboxes
SELECT i.id, i.execution, r.run, i.event
FROM perdure_run r JOIN perdure_inbox i ON i.execution = r.execution
WHERE r.run = ANY({numbers})
ORDER BY i.id;

-- Whether a worker that serves the workflows $1 on the queues $2 serves run `r`.
-- name: is_served
(
    r.queue = ANY(ARRAY(SELECT e FROM json_array_elements_text($2::json) e)) AND (
        r.workflow = ANY({texts}) OR r.workflow || ' ' || r.version = ANY({texts})
    )
)

-- Whether anybody may claim `state`; any priority will do, but it leads to the index that has no others.
-- name: is_claimable
(state.status = 1 AND state.owner IS NULL AND state.priority >= -9223372036854775807)

-- The highest priority below $1 of runs that anybody may claim.
-- name: claimable_priority
SELECT (
    SELECT priority FROM perdure_state
    WHERE status = 1 AND owner IS NULL AND priority < $1::bigint ORDER BY priority DESC LIMIT 1
);

-- Up to $5 lanes of priority $3 from lane $4 on, but those in $6; and up to $7 runs of each, oldest
-- first.
-- name: claimable
WITH RECURSIVE lanes (n, lane) AS (
    SELECT 1::bigint, (
        SELECT s.lane FROM perdure_state s
        WHERE s.status = 1 AND s.owner IS NULL AND s.priority = $3::bigint AND s.lane >= $4::text
        ORDER BY s.lane, s.run LIMIT 1
    )
    UNION ALL
    SELECT lanes.n + 1, (
        SELECT s.lane FROM perdure_state s
        WHERE s.status = 1 AND s.owner IS NULL AND s.priority = $3::bigint AND s.lane > lanes.lane
        ORDER BY s.lane, s.run LIMIT 1
    )
    FROM lanes WHERE lanes.lane IS NOT NULL AND lanes.n < $5::bigint
)
SELECT lanes.lane, found.run
FROM lanes CROSS JOIN LATERAL (
    SELECT state.run
    FROM perdure_state AS state
    JOIN perdure_run r ON r.run = state.run
    WHERE state.status = 1 AND state.owner IS NULL AND state.priority = $3::bigint
        AND state.lane = lanes.lane AND {is_served}
    ORDER BY state.run LIMIT $7::bigint
) AS found
WHERE lanes.lane IS NOT NULL
    AND lanes.lane <> ALL(ARRAY(SELECT e FROM json_array_elements_text($6::json) e));

-- name: lane_of
SELECT priority, lane FROM perdure_state WHERE run = $1;

-- Parked runs that nobody served.
-- name: served_again
SELECT state.run
FROM perdure_state AS state
JOIN perdure_run r ON r.run = state.run
WHERE state.status = 4 AND state.reason IN ('unknown_workflow', 'unserved_queue') AND {is_served}
ORDER BY state.run LIMIT $3;

-- Whether none of the services $1 (workflows, queues) serves run `r`.
-- name: is_unserved
NOT EXISTS (
    SELECT 1 FROM json_array_elements($1::json) w
    WHERE r.queue IN (SELECT e FROM json_array_elements_text(w -> 1) e) AND (
        r.workflow IN (SELECT e FROM json_array_elements_text(w -> 0) e)
        OR r.workflow || ' ' || r.version IN (SELECT e FROM json_array_elements_text(w -> 0) e)
    )
)

-- Running runs that nobody serves; and delayed and waiting ones, if they are due by $3.
-- (`+ 0`: else all runs are gone through in their order, and held against the few.)
-- name: unserved
SELECT {row_columns}
FROM (
    (
        SELECT state.run
        FROM perdure_state AS state JOIN perdure_run r ON r.run = state.run
        WHERE {is_claimable} AND {is_unserved}
        ORDER BY state.priority, state.lane, state.run LIMIT $2
    )
    UNION ALL (
        SELECT state.run
        FROM perdure_state AS state JOIN perdure_run r ON r.run = state.run
        WHERE state.owner IS NULL AND state.wake_at IS NOT NULL AND state.status IN (0, 2, 3, 4)
            AND state.wake_at <= $3 AND {is_unserved}
            AND (state.status = 2 OR (state.status = 0 AND state.reason IS NULL))
        ORDER BY state.wake_at, state.run LIMIT $2
    )
) found
JOIN perdure_state AS state ON state.run = found.run
JOIN perdure_run r ON r.run = state.run
LEFT JOIN perdure_memo AS memo ON memo.run = r.run
ORDER BY state.run + 0 LIMIT $2;

-- name: parked
SELECT {row_columns}
FROM perdure_state AS state JOIN perdure_run r ON r.run = state.run
LEFT JOIN perdure_memo AS memo ON memo.run = r.run
WHERE state.status = 4 AND state.run > $2 AND state.reason = ANY({texts})
ORDER BY state.run LIMIT $3;

-- Open runs with one of the statuses $1, from $2 on: at most $3 of each are looked at.
-- In the words of an index: the planner would rather read all runs in their order.
-- name: open_runs
SELECT r.run, r.workflow, r.version, r.queue, s.since
FROM json_array_elements_text($1::json) j
CROSS JOIN LATERAL (
    SELECT x.run, x.since FROM perdure_state x
    WHERE (x.status, x.run) > (j::smallint, $2::bigint)
        AND (x.status, x.run) < ((j::smallint + 1)::smallint, 0::bigint)
    ORDER BY x.status, x.run LIMIT $3
) AS s
JOIN perdure_run r ON r.run = s.run
ORDER BY s.run LIMIT $3;

-- name: sweeps
SELECT workflow, scope, code, began_at, since, after, worker FROM perdure_sweep;

-- name: sweep
INSERT INTO perdure_sweep AS old (workflow, scope, code, began_at, since, after, worker)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (workflow, scope) DO UPDATE SET
    code = excluded.code, began_at = excluded.began_at, since = excluded.since,
    after = excluded.after, worker = excluded.worker
WHERE old.worker IN (0, excluded.worker, $8);

-- name: due
SELECT state.run, state.wake_at
FROM perdure_state AS state JOIN perdure_run r ON r.run = state.run
WHERE state.owner IS NULL AND state.wake_at IS NOT NULL AND state.status IN (0, 2, 3, 4)
    AND state.wake_at <= $3 AND state.wake_at > $5
    AND (state.status IN (3, 4) OR {is_served})
ORDER BY state.wake_at, state.run LIMIT $4;

-- The run that an inbox row `i` goes to.
-- name: of_inbox
JOIN perdure_run r ON r.run = (SELECT max(x.run) FROM perdure_run x WHERE x.execution = i.execution)
JOIN perdure_state AS state ON state.run = r.run

-- Whether inbox row `i` of run `r` is for worker $3, or for anybody like it.
-- name: is_mine
CASE
    WHEN state.owner IS NOT NULL THEN state.owner = $3
    WHEN state.status IN (3, 4) THEN i.is_control = 1
    WHEN state.status = 0 THEN i.is_control = 1 AND {is_served}
    ELSE state.status IN (1, 2) AND {is_served}
END

-- name: inbox
SELECT i.id, i.execution, r.run, i.event
FROM perdure_inbox i {of_inbox} WHERE {is_mine}
ORDER BY i.id LIMIT $4;

-- Pending runs that begin by $3.
-- name: beginning
SELECT state.run, state.wake_at
FROM perdure_state AS state
JOIN perdure_run r ON r.run = state.run
WHERE state.status = 0 AND state.wake_at <= $3 AND {is_served}
ORDER BY state.wake_at, state.run LIMIT $4;

-- One look: whether there is anything for worker $3 at $4 (what begins by $5, too); whether somebody
-- may be let in; which definitions are inactive.
-- name: news
SELECT
    EXISTS (
        SELECT 1 FROM perdure_state AS state JOIN perdure_run r ON r.run = state.run
        WHERE {is_claimable} AND {is_served}
    ) OR EXISTS (
        SELECT 1 FROM perdure_state AS state JOIN perdure_run r ON r.run = state.run
        WHERE state.status = 4 AND state.reason IN ('unknown_workflow', 'unserved_queue') AND {is_served}
    ) OR EXISTS (
        SELECT 1 FROM perdure_state AS state JOIN perdure_run r ON r.run = state.run
        WHERE state.status = 0 AND state.wake_at <= $5 AND {is_served}
    ) OR EXISTS (
        SELECT 1 FROM perdure_inbox i {of_inbox} WHERE {is_mine}
    ) OR EXISTS (
        SELECT 1 FROM perdure_question q WHERE q.deadline > $4 AND q.answer IS NULL
    ) OR EXISTS (
        SELECT 1 FROM perdure_state AS state JOIN perdure_run r ON r.run = state.run
        WHERE state.owner IS NULL AND state.wake_at IS NOT NULL AND state.status IN (0, 2, 3, 4)
            AND state.wake_at <= $4 AND (state.status IN (3, 4) OR {is_served})
    ),
    {is_admissible},
    EXISTS (
        SELECT 1 FROM json_array_elements_text($2::json) q CROSS JOIN json_array_elements_text($6::json) n
        CROSS JOIN LATERAL (
            SELECT 1 FROM perdure_task t WHERE t.queue = q AND t.name = n AND t.stage = 0 LIMIT 1
        ) AS found
    ),
    (SELECT min(t.not_before) FROM perdure_task t WHERE t.stage = 1),
    (SELECT min(t.due) FROM perdure_task t WHERE t.stage IN (0, 1) AND t.due > 0),
    (
        SELECT coalesce(json_agg(json_build_array(d.name, d.version)), '[]')::text
        FROM perdure_definition d WHERE d.is_active = 0
    ),
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
AND EXISTS (SELECT 1 FROM perdure_run r WHERE r.workflow = seen.name AND r.namespace = $1)
ORDER BY name;

-- name: attributes
SELECT key, value::text, form FROM perdure_attr WHERE run = $1 ORDER BY key, form;

-- Schedules --------------------------------------------------------------------------------------

-- name: schedule_columns
p.namespace, p.id, p.workflow, p.spec, p.template, p.note, p.state, p.paused, p.next_at, p.created_at,
p.changed_at, p.revision

-- name: schedule
SELECT {schedule_columns} FROM perdure_schedule p WHERE p.namespace = $1 AND p.id = $2;

-- The same, to be changed.
-- name: schedule_held
SELECT {schedule_columns} FROM perdure_schedule p WHERE p.namespace = $1 AND p.id = $2 FOR UPDATE;

-- Schedules that are due by $1, and those whose execution has ended that they wait for. What another
-- worker is at is left to it.
-- name: due_schedules
SELECT {schedule_columns} FROM perdure_schedule p
WHERE p.next_at IS NOT NULL AND p.next_at <= $1 ORDER BY p.next_at LIMIT $2
FOR UPDATE SKIP LOCKED;

-- name: waiting_schedules
SELECT {schedule_columns} FROM perdure_schedule p
WHERE p.waits_for IS NOT NULL AND {waits_no_more} LIMIT $1
FOR UPDATE SKIP LOCKED;

-- name: waits_no_more
NOT EXISTS (
    SELECT 1 FROM perdure_run r JOIN perdure_state s ON s.run = r.run
    WHERE r.execution = p.waits_for AND s.status < 5
)

-- When the next look at any schedule is due; 0 is now.
-- name: schedules_at
(SELECT CASE
    WHEN EXISTS (
        SELECT 1 FROM perdure_schedule p
        WHERE p.waits_for IS NOT NULL AND {waits_no_more}
    ) THEN 0
    ELSE (SELECT min(next_at) FROM perdure_schedule WHERE next_at IS NOT NULL)
END)

-- name: next_look
SELECT {schedules_at};

-- Those of these executions that are open.
-- name: open_executions
SELECT coalesce(json_agg(e), '[]')::text FROM unnest({numbers}) e WHERE EXISTS (
    SELECT 1 FROM perdure_run r JOIN perdure_state s ON s.run = r.run
    WHERE r.execution = e AND s.status < 5
);

-- name: insert_schedule
INSERT INTO perdure_schedule (
    namespace, id, workflow, spec, template, note, state, paused, next_at, waits_for, created_at,
    changed_at, revision
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, NULL, $10, $10, 1)
ON CONFLICT (namespace, id) DO NOTHING;

-- name: change_schedule
UPDATE perdure_schedule SET
    workflow = $3, spec = $4, template = $5, note = $6, state = $7, paused = $8, next_at = $9,
    waits_for = $10, changed_at = $11, revision = revision + 1
WHERE namespace = $1 AND id = $2;

-- name: moved_schedules
UPDATE perdure_schedule SET
    state = v ->> 2, next_at = (v ->> 3)::bigint, waits_for = (v ->> 4)::bigint, revision = revision + 1
FROM json_array_elements($1::json) v
WHERE namespace = v ->> 0 AND id = v ->> 1;

-- name: delete_schedule
DELETE FROM perdure_schedule WHERE namespace = $1 AND id = $2;

-- Seals ------------------------------------------------------------------------------------------

-- name: identity
SELECT id FROM perdure_identity;

-- name: codecs
SELECT codec, sample FROM perdure_codec;

-- name: insert_codec
INSERT INTO perdure_codec (codec, sample) VALUES ($1::text, $2::bytea);

-- name: delete_codec
DELETE FROM perdure_codec WHERE codec = $1::text AND sample = $2::bytea;

-- name: has_blobs
SELECT EXISTS (SELECT 1 FROM perdure_blob WHERE name > '');

-- name: insert_blobs
INSERT INTO perdure_blob (name, run, first)
SELECT v ->> 0, (v ->> 1)::bigint, (v ->> 2)::bigint FROM json_array_elements($1::json) v;

-- Those of these names that no history row refers to.
-- name: unused_blobs
SELECT coalesce(json_agg(e), '[]')::text
FROM json_array_elements_text($1::json) e
WHERE NOT EXISTS (
    SELECT 1 FROM perdure_blob b JOIN perdure_history h ON h.run = b.run AND h.first = b.first
    WHERE b.name = e
);

-- name: forget_blobs
DELETE FROM perdure_blob WHERE name = ANY({texts});

-- What a history row holds now: it may have been sealed anew since it was read.
-- name: payload_of
SELECT payload, crc FROM perdure_history WHERE run = $1::bigint AND first = $2::bigint;

-- A document, unless it was dropped.
-- name: record
SELECT id, version, changed_at, data FROM perdure_record
WHERE namespace = $1::text AND kind = $2::text AND id = $3::text AND data IS NOT NULL;

-- name: records
SELECT id, version, changed_at, data FROM perdure_record
WHERE namespace = $1::text AND kind = $2::text AND id > $3::text AND data IS NOT NULL
ORDER BY id LIMIT $4::bigint;

-- Writes nothing, and answers nothing, if another version is there: $4, 0 for none, -1 for any.
-- name: put_record
INSERT INTO perdure_record (namespace, kind, id, version, changed_at, data)
SELECT $1::text, $2::text, $3::text, 1, $5::bigint, $6::bytea WHERE $4::bigint <= 0 OR EXISTS (
    SELECT 1 FROM perdure_record r
    WHERE r.namespace = $1::text AND r.kind = $2::text AND r.id = $3::text
)
ON CONFLICT (namespace, kind, id) DO UPDATE SET
    version = perdure_record.version + 1, changed_at = excluded.changed_at, data = excluded.data
WHERE $4::bigint < 0
    OR ($4::bigint = 0 AND perdure_record.data IS NULL)
    OR (perdure_record.version = $4::bigint AND perdure_record.data IS NOT NULL)
RETURNING version;

-- name: drop_record
UPDATE perdure_record SET version = version + 1, changed_at = $5::bigint, data = NULL
WHERE namespace = $1::text AND kind = $2::text AND id = $3::text AND data IS NOT NULL
    AND ($4::bigint < 0 OR version = $4::bigint)
RETURNING version;

-- name: audit_columns
number, at, namespace, action, principal, initiated_by, target, run_id, decision, rule, digest, hash, data

-- name: audit_chain
SELECT {audit_columns} FROM perdure_audit WHERE number > $1::bigint ORDER BY number LIMIT $2::bigint;

-- name: audit_head
SELECT number, hash, cut, cut_hash FROM perdure_audit_head;

-- To the commit: whoever appends meanwhile waits, and then sees where the chain ends.
-- name: hold_audit_head
SELECT number, hash, cut, cut_hash FROM perdure_audit_head FOR UPDATE;

-- name: insert_audit
INSERT INTO perdure_audit (
    number, at, namespace, action, principal, initiated_by, target, run_id, decision, rule, digest, hash, data
)
SELECT
    u.number, u.at, u.namespace, u.action, u.principal, u.initiated_by, u.target, u.run_id, u.decision,
    u.rule, u.digest, u.hash, u.data
FROM unnest(
    $1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
    $9::text[], $10::text[], $11::text[], $12::text[], $13::bytea[]
) WITH ORDINALITY AS u (
    number, at, namespace, action, principal, initiated_by, target, run_id, decision, rule, digest, hash,
    data, n
) ORDER BY u.n;

-- name: move_audit_head
UPDATE perdure_audit_head SET number = $1::bigint, hash = $2::text;

-- name: audit_hash
SELECT hash FROM perdure_audit WHERE number = $1::bigint;

-- name: cut_audit
UPDATE perdure_audit_head SET cut = $1::bigint, cut_hash = $2::text;

-- name: delete_audit
DELETE FROM perdure_audit WHERE number IN (
    SELECT number FROM perdure_audit WHERE number <= (SELECT cut FROM perdure_audit_head)
    ORDER BY number LIMIT $1::bigint
);

-- The digest stays, and with it the chain.
-- name: erase_audit
UPDATE perdure_audit SET data = NULL WHERE namespace = $1::text AND target = $2::text AND data IS NOT NULL;
