-- Before the first ANALYZE of a table that grows fast, the planner takes whatever index has the first
-- columns. Both that begin with a queue give the next of a lane in order now.
DROP INDEX perdure_task_known;
CREATE INDEX perdure_task_known ON perdure_task (queue, name, rank, lane, id) WHERE stage = 0;
