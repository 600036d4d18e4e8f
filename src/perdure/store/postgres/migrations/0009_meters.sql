-- What is counted for policies and budgets, for all processes together. What the columns mean is said
-- in the migration of the same name of the SQLite store.

CREATE TABLE perdure_meter (
    key text COLLATE "C" NOT NULL PRIMARY KEY,
    paid_until bigint NOT NULL
) WITH (fillfactor = 50);
CREATE INDEX perdure_meter_over ON perdure_meter (paid_until);

CREATE TABLE perdure_place (
    execution bigint NOT NULL,
    key text COLLATE "C" NOT NULL,
    PRIMARY KEY (execution, key)
);
CREATE INDEX perdure_place_of_key ON perdure_place (key);

CREATE TABLE perdure_budget (
    key text COLLATE "C" NOT NULL,
    unit text COLLATE "C" NOT NULL,
    execution bigint NOT NULL,
    amount bigint NOT NULL,
    used bigint NOT NULL DEFAULT 0,
    reserved bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (key, unit)
) WITH (fillfactor = 50);
CREATE INDEX perdure_budget_by_execution ON perdure_budget (execution);

CREATE TABLE perdure_hold (
    id text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    unit text COLLATE "C" NOT NULL,
    execution bigint NOT NULL,
    amount bigint NOT NULL,
    PRIMARY KEY (id, key, unit)
);
CREATE INDEX perdure_hold_by_execution ON perdure_hold (execution);

ALTER TABLE perdure_identity ADD COLUMN counts bigint NOT NULL DEFAULT 0;
