-- Schedules (perdure.values.schedules): what begins executions by the clock.
--
-- `spec` and `state` are JSON of the structs Spec and Standing there and in firing.py; `template` and `note`
-- are sealed. `next_at`: when the schedule is looked at next, for whatever reason; null while the clock
-- brings nothing. `waits_for`: an execution with whose end it is looked at. `revision` grows with each change.
CREATE TABLE perdure_schedule (
    namespace TEXT NOT NULL,
    id TEXT NOT NULL,
    workflow TEXT NOT NULL,
    spec TEXT NOT NULL,
    template BLOB NOT NULL,
    note BLOB,
    state TEXT NOT NULL,
    paused INTEGER NOT NULL,
    next_at INTEGER,
    waits_for INTEGER,
    created_at INTEGER NOT NULL,
    changed_at INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    PRIMARY KEY (namespace, id)
);
CREATE INDEX perdure_schedule_by_workflow ON perdure_schedule (workflow, namespace, id);
CREATE INDEX perdure_schedule_due ON perdure_schedule (next_at) WHERE next_at IS NOT NULL;
CREATE INDEX perdure_schedule_waiting ON perdure_schedule (waits_for) WHERE waits_for IS NOT NULL;

-- What starts a workflow besides a start, as its definition says: `["event:order.paid"]`.
ALTER TABLE perdure_definition ADD COLUMN triggers TEXT NOT NULL DEFAULT '[]';
