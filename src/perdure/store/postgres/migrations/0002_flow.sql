-- Who is next where many wait, and how many may begin in a time. What the columns mean is said in the
-- migration of the same name of the SQLite store.

ALTER TABLE perdure_state ADD COLUMN lane text COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE perdure_state ADD COLUMN priority bigint NOT NULL DEFAULT 0;
UPDATE perdure_state AS state SET lane = r.tenant
FROM perdure_run r WHERE r.run = state.run AND state.status < 5 AND r.tenant IS NOT NULL;
DROP INDEX perdure_state_claimable;
CREATE INDEX perdure_state_claimable ON perdure_state (priority, lane, run) WHERE status = 1 AND owner IS NULL;

ALTER TABLE perdure_slot ADD COLUMN lane text COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE perdure_slot ADD COLUMN rank bigint NOT NULL DEFAULT -1;
ALTER TABLE perdure_slot ADD COLUMN turn bigint NOT NULL DEFAULT 0;
UPDATE perdure_slot AS slot
SET lane = coalesce((SELECT r.tenant FROM perdure_run r WHERE r.run = slot.execution), slot.key);
UPDATE perdure_slot AS slot SET rank = found.rank, turn = found.turn
FROM (
    SELECT
        execution, rank,
        row_number() OVER (PARTITION BY workflow, priority, rank ORDER BY since, execution) - 1 AS turn
    FROM (
        SELECT
            execution, workflow, priority, since,
            row_number() OVER (PARTITION BY workflow, priority, lane ORDER BY since, execution) - 1 AS rank
        FROM perdure_slot WHERE place = 1
    ) AS ranked
) AS found
WHERE slot.execution = found.execution;
DROP INDEX perdure_slot_ready;
CREATE INDEX perdure_slot_ready ON perdure_slot (workflow, priority DESC, rank, turn, execution) WHERE place = 1;
CREATE INDEX perdure_slot_of_lane ON perdure_slot (workflow, priority, lane, rank) WHERE place = 1;

ALTER TABLE perdure_limit ADD COLUMN rate text NOT NULL DEFAULT '';
ALTER TABLE perdure_limit ADD COLUMN rate_per_key text NOT NULL DEFAULT '';

CREATE TABLE perdure_rate (
    workflow text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    paid_until bigint NOT NULL,
    held_until bigint,
    PRIMARY KEY (workflow, key)
) WITH (fillfactor = 50);
CREATE INDEX perdure_rate_over ON perdure_rate (paid_until) WHERE held_until IS NULL;
CREATE INDEX perdure_rate_held ON perdure_rate (held_until) WHERE held_until IS NOT NULL;
