-- What is counted for policies and budgets, for all processes together.
--
-- How far ahead of its rate a meter is (values/rates.py): paid until then. A row is gone when that is over.
CREATE TABLE perdure_meter (
    key TEXT NOT NULL PRIMARY KEY,
    paid_until INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX perdure_meter_over ON perdure_meter (paid_until);

-- Open executions that are counted under a key: written with the start, gone with the end.
CREATE TABLE perdure_place (
    execution INTEGER NOT NULL,
    key TEXT NOT NULL,
    PRIMARY KEY (execution, key)
) WITHOUT ROWID;
CREATE INDEX perdure_place_of_key ON perdure_place (key);

-- Budgets, in millionths of their unit. `key`: the run id of the execution's first run. `used` and
-- `reserved` together are never more than `amount`, unless more was used than had been reserved.
CREATE TABLE perdure_budget (
    key TEXT NOT NULL,
    unit TEXT NOT NULL,
    execution INTEGER NOT NULL,
    amount INTEGER NOT NULL,
    used INTEGER NOT NULL DEFAULT 0,
    reserved INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (key, unit)
) WITHOUT ROWID;
CREATE INDEX perdure_budget_by_execution ON perdure_budget (execution);

-- What an attempt has reserved and not settled yet. With the end of its execution it counts as used.
CREATE TABLE perdure_hold (
    id TEXT NOT NULL,
    key TEXT NOT NULL,
    unit TEXT NOT NULL,
    execution INTEGER NOT NULL,
    amount INTEGER NOT NULL,
    PRIMARY KEY (id, key, unit)
) WITHOUT ROWID;
CREATE INDEX perdure_hold_by_execution ON perdure_hold (execution);

-- Whether there ever was a place (1) or a budget (2): ends of executions look after them from then on.
ALTER TABLE perdure_identity ADD COLUMN counts INTEGER NOT NULL DEFAULT 0;
