-- Schedules; what the columns mean stands in the migration of the SQLite store.
CREATE TABLE perdure_schedule (
    namespace text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    workflow text COLLATE "C" NOT NULL,
    spec text NOT NULL,
    template bytea NOT NULL,
    note bytea,
    state text NOT NULL,
    paused smallint NOT NULL,
    next_at bigint,
    waits_for bigint,
    created_at bigint NOT NULL,
    changed_at bigint NOT NULL,
    revision bigint NOT NULL,
    PRIMARY KEY (namespace, id)
);
CREATE INDEX perdure_schedule_by_workflow ON perdure_schedule (workflow, namespace, id);
CREATE INDEX perdure_schedule_due ON perdure_schedule (next_at) WHERE next_at IS NOT NULL;
CREATE INDEX perdure_schedule_waiting ON perdure_schedule (waits_for) WHERE waits_for IS NOT NULL;
ALTER TABLE perdure_schedule SET (autovacuum_vacuum_scale_factor = 0.02);

ALTER TABLE perdure_definition ADD COLUMN triggers text NOT NULL DEFAULT '[]';
