-- The whole life of human tasks. `type`: what kind, in words of users. `approvers`: how many people must
-- complete it, `approvals`: who has so far (JSON); `not_by`: who must not (JSON array of names). `chain`:
-- which roles it still goes to (JSON array of [role, when]); `next_at`: when the clock next does something
-- to it. `created_by` and `tenant`: of those that no run asked for; others have their run's.
ALTER TABLE perdure_human_task ADD COLUMN approvals TEXT;
ALTER TABLE perdure_human_task ADD COLUMN type TEXT NOT NULL DEFAULT '';
ALTER TABLE perdure_human_task ADD COLUMN approvers INTEGER NOT NULL DEFAULT 1;
ALTER TABLE perdure_human_task ADD COLUMN not_by TEXT;
ALTER TABLE perdure_human_task ADD COLUMN chain TEXT;
ALTER TABLE perdure_human_task ADD COLUMN next_at INTEGER;
ALTER TABLE perdure_human_task ADD COLUMN form_version INTEGER NOT NULL DEFAULT 0;
ALTER TABLE perdure_human_task ADD COLUMN created_by TEXT;
ALTER TABLE perdure_human_task ADD COLUMN tenant TEXT;
-- Counts need no look at the rows.
DROP INDEX perdure_human_task_open;
DROP INDEX perdure_human_task_open_by_role;
CREATE INDEX perdure_human_task_open
    ON perdure_human_task (coalesce(due_at, 9223372036854775807), id, namespace, status)
    WHERE status IN (0, 1);
CREATE INDEX perdure_human_task_open_by_role
    ON perdure_human_task (role, coalesce(due_at, 9223372036854775807), id, namespace, status)
    WHERE status IN (0, 1);
CREATE INDEX perdure_human_task_next ON perdure_human_task (next_at)
    WHERE status IN (0, 1) AND next_at IS NOT NULL;
CREATE INDEX perdure_human_task_claimed ON perdure_human_task (claimed_by) WHERE status = 1;
CREATE INDEX perdure_human_task_closed_by_role ON perdure_human_task (role, id) WHERE status > 1;
CREATE INDEX perdure_human_task_closed_by_person ON perdure_human_task (closed_by, id) WHERE status > 1;
CREATE INDEX perdure_human_task_alone ON perdure_human_task (closed_at) WHERE run IS NULL AND status > 1;

-- What was done to each, in order; `who` is empty if the clock did it. `data`: more of it, as JSON.
CREATE TABLE perdure_human_log (
    id INTEGER PRIMARY KEY,
    task TEXT NOT NULL,
    run INTEGER,
    at INTEGER NOT NULL,
    who TEXT NOT NULL,
    verb TEXT NOT NULL,
    data TEXT
);
CREATE INDEX perdure_human_log_by_task ON perdure_human_log (task, id);
CREATE INDEX perdure_human_log_by_run ON perdure_human_log (run) WHERE run IS NOT NULL;
