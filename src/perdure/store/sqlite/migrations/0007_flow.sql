-- Who is next where many wait, and how many may begin in a time.
--
-- `lane`: whose a run is when runs take turns: its tenant, else its concurrency key, else ''.
ALTER TABLE perdure_state ADD COLUMN lane TEXT NOT NULL DEFAULT '';
ALTER TABLE perdure_state ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;
UPDATE perdure_state AS state SET lane = (SELECT r.tenant FROM perdure_run r WHERE r.run = state.run)
WHERE status < 5 AND EXISTS (SELECT 1 FROM perdure_run r WHERE r.run = state.run AND r.tenant IS NOT NULL);
-- Runs that wait for a worker: a worker takes some of each lane.
DROP INDEX perdure_state_claimable;
CREATE INDEX perdure_state_claimable ON perdure_state (priority, lane, run) WHERE status = 1 AND owner IS NULL;

-- `rank` and `turn`: where one stands that is ready, among those of its priority (store/sql/ranks.py);
-- a rank of -1: it was not ready yet.
ALTER TABLE perdure_slot ADD COLUMN lane TEXT NOT NULL DEFAULT '';
ALTER TABLE perdure_slot ADD COLUMN rank INTEGER NOT NULL DEFAULT -1;
ALTER TABLE perdure_slot ADD COLUMN turn INTEGER NOT NULL DEFAULT 0;
UPDATE perdure_slot SET lane = coalesce((SELECT r.tenant FROM perdure_run r WHERE r.run = execution), key);
UPDATE perdure_slot SET rank = found.rank, turn = found.turn
FROM (
    SELECT
        execution, rank,
        row_number() OVER (PARTITION BY workflow, priority, rank ORDER BY since, execution) - 1 AS turn
    FROM (
        SELECT
            execution, workflow, priority, since,
            row_number() OVER (PARTITION BY workflow, priority, lane ORDER BY since, execution) - 1 AS rank
        FROM perdure_slot WHERE place = 1
    )
) AS found
WHERE perdure_slot.execution = found.execution;
DROP INDEX perdure_slot_ready;
CREATE INDEX perdure_slot_ready ON perdure_slot (workflow, priority DESC, rank, turn, execution) WHERE place = 1;
CREATE INDEX perdure_slot_of_lane ON perdure_slot (workflow, priority, lane, rank) WHERE place = 1;

-- Rates as text, such as '100/minute'; '' is none.
ALTER TABLE perdure_limit ADD COLUMN rate TEXT NOT NULL DEFAULT '';
ALTER TABLE perdure_limit ADD COLUMN rate_per_key TEXT NOT NULL DEFAULT '';

-- How far ahead of their rate a workflow (key '') and its keys are: until `paid_until` those that began
-- are paid for; a row is gone when that is over. `held_until`: somebody waits for the rate until then.
CREATE TABLE perdure_rate (
    workflow TEXT NOT NULL,
    key TEXT NOT NULL,
    paid_until INTEGER NOT NULL,
    held_until INTEGER,
    PRIMARY KEY (workflow, key)
) WITHOUT ROWID;
CREATE INDEX perdure_rate_over ON perdure_rate (paid_until) WHERE held_until IS NULL;
CREATE INDEX perdure_rate_held ON perdure_rate (held_until) WHERE held_until IS NOT NULL;
