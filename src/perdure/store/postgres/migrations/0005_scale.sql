-- What lists of a million runs and the deletion of old ones are led by.

-- The tags of each run, as `perdure_run.tags` has them.
CREATE TABLE perdure_tag (
    namespace text COLLATE "C" NOT NULL,
    tag text COLLATE "C" NOT NULL,
    run bigint NOT NULL,
    PRIMARY KEY (namespace, tag, run)
);
CREATE INDEX perdure_tag_by_run ON perdure_tag (run);
INSERT INTO perdure_tag
SELECT DISTINCT r.namespace, t, r.run FROM perdure_run r, json_array_elements_text(r.tags::json) t
WHERE r.tags IS NOT NULL;

-- A list is of one namespace: with it, these need no look at the run.
DROP INDEX perdure_run_by_workflow;
DROP INDEX perdure_run_by_correlation_id;
DROP INDEX perdure_run_by_tenant;
-- Of an expression, because in a new database the planner would look for workflow ids in them.
CREATE INDEX perdure_run_by_namespace ON perdure_run ((namespace || ''), run);
CREATE INDEX perdure_run_by_created_at ON perdure_run ((namespace || ''), created_at, run);
CREATE INDEX perdure_run_by_workflow ON perdure_run (workflow, namespace, run);
CREATE INDEX perdure_run_by_correlation_id ON perdure_run (correlation_id, namespace, run)
    WHERE correlation_id IS NOT NULL;
CREATE INDEX perdure_run_by_tenant ON perdure_run (tenant, namespace, run) WHERE tenant IS NOT NULL;
CREATE INDEX perdure_run_by_created_by ON perdure_run (created_by, namespace, run)
    WHERE created_by IS NOT NULL;

CREATE INDEX perdure_state_ended ON perdure_state (closed_at, run) WHERE closed_at IS NOT NULL;

-- Rows that come and go are cleared away before there are many of them; the large tables lose rows when
-- old runs are deleted.
ALTER TABLE perdure_state SET (autovacuum_vacuum_scale_factor = 0.02);
ALTER TABLE perdure_inbox SET (autovacuum_vacuum_scale_factor = 0.02);
ALTER TABLE perdure_slot SET (autovacuum_vacuum_scale_factor = 0.02);
ALTER TABLE perdure_watch SET (autovacuum_vacuum_scale_factor = 0.02);
ALTER TABLE perdure_open_tx SET (autovacuum_vacuum_scale_factor = 0.02);
ALTER TABLE perdure_beat SET (autovacuum_vacuum_scale_factor = 0.02);
ALTER TABLE perdure_mail SET (autovacuum_vacuum_scale_factor = 0.02);
ALTER TABLE perdure_sender SET (autovacuum_vacuum_scale_factor = 0.02);
ALTER TABLE perdure_history SET (autovacuum_vacuum_scale_factor = 0.05);
ALTER TABLE perdure_run SET (autovacuum_vacuum_scale_factor = 0.05);
ALTER TABLE perdure_attr SET (autovacuum_vacuum_scale_factor = 0.05);
ALTER TABLE perdure_tag SET (autovacuum_vacuum_scale_factor = 0.05);
