-- The whole life of human tasks. `type`: what kind, in words of users. `approvers`: how many people must
-- complete it, `approvals`: who has so far (JSON); `not_by`: who must not (JSON array of names). `chain`:
-- which roles it still goes to (JSON array of [role, when]); `next_at`: when the clock next does something
-- to it. `created_by` and `tenant`: of those that no run asked for; others have their run's.
ALTER TABLE perdure_human_task
    ADD COLUMN approvals text,
    ADD COLUMN type text NOT NULL DEFAULT '',
    ADD COLUMN approvers bigint NOT NULL DEFAULT 1,
    ADD COLUMN not_by text,
    ADD COLUMN chain text,
    ADD COLUMN next_at bigint,
    ADD COLUMN form_version bigint NOT NULL DEFAULT 0,
    ADD COLUMN created_by text,
    ADD COLUMN tenant text;
-- Counts need no look at the rows.
DROP INDEX perdure_human_task_open;
DROP INDEX perdure_human_task_open_by_role;
DROP INDEX perdure_human_task_open_by_assignee;
CREATE INDEX perdure_human_task_open
    ON perdure_human_task (coalesce(due_at, 9223372036854775807), id) INCLUDE (namespace, status)
    WHERE status IN (0, 1);
CREATE INDEX perdure_human_task_open_by_role
    ON perdure_human_task (role, coalesce(due_at, 9223372036854775807), id)
    INCLUDE (namespace, status) WHERE status IN (0, 1);
CREATE INDEX perdure_human_task_open_by_assignee
    ON perdure_human_task (assignee, coalesce(due_at, 9223372036854775807), id)
    INCLUDE (namespace, status) WHERE status IN (0, 1);
CREATE INDEX perdure_human_task_next ON perdure_human_task (next_at)
    WHERE status IN (0, 1) AND next_at IS NOT NULL;
CREATE INDEX perdure_human_task_claimed ON perdure_human_task (claimed_by) WHERE status = 1;
CREATE INDEX perdure_human_task_closed_by_role ON perdure_human_task (role, id) WHERE status > 1;
CREATE INDEX perdure_human_task_closed_by_person ON perdure_human_task (closed_by, id) WHERE status > 1;
CREATE INDEX perdure_human_task_alone ON perdure_human_task (closed_at) WHERE run IS NULL AND status > 1;

-- What was done to each, in order; `who` is empty if the clock did it. `data`: more of it, as JSON.
CREATE TABLE perdure_human_log (
    id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    task text COLLATE "C" NOT NULL,
    run bigint,
    at bigint NOT NULL,
    who text NOT NULL,
    verb text NOT NULL,
    data text
);
CREATE INDEX perdure_human_log_by_task ON perdure_human_log (task, id);
CREATE INDEX perdure_human_log_by_run ON perdure_human_log (run) WHERE run IS NOT NULL;
