-- What lists of a million runs and the deletion of old ones are led by.

-- The tags of each run, as `perdure_run.tags` has them.
CREATE TABLE perdure_tag (
    namespace TEXT NOT NULL,
    tag TEXT NOT NULL,
    run INTEGER NOT NULL,
    PRIMARY KEY (namespace, tag, run)
) WITHOUT ROWID;
CREATE INDEX perdure_tag_by_run ON perdure_tag (run);
INSERT OR IGNORE INTO perdure_tag SELECT r.namespace, t.value, r.run
FROM perdure_run r, json_each(CASE WHEN json_valid(r.tags) THEN r.tags ELSE '[]' END) t
WHERE r.tags IS NOT NULL;

-- A list is of one namespace: with it, these need no look at the run.
DROP INDEX perdure_run_by_workflow;
DROP INDEX perdure_run_by_correlation_id;
DROP INDEX perdure_run_by_tenant;
CREATE INDEX perdure_run_by_namespace ON perdure_run (namespace, run);
CREATE INDEX perdure_run_by_created_at ON perdure_run (namespace, created_at, run);
CREATE INDEX perdure_run_by_workflow ON perdure_run (workflow, namespace, run);
CREATE INDEX perdure_run_by_correlation_id ON perdure_run (correlation_id, namespace, run)
    WHERE correlation_id IS NOT NULL;
CREATE INDEX perdure_run_by_tenant ON perdure_run (tenant, namespace, run) WHERE tenant IS NOT NULL;
CREATE INDEX perdure_run_by_created_by ON perdure_run (created_by, namespace, run)
    WHERE created_by IS NOT NULL;

CREATE INDEX perdure_state_ended ON perdure_state (closed_at, run) WHERE closed_at IS NOT NULL;
