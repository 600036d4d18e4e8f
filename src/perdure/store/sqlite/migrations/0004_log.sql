-- What workflow code and attempts of activities logged. `number`: from 1 on in each run; the newest
-- stay, so the first number that is left says how many went. `level`: as Python's logging counts;
-- `data`: JSON. `step`: the step or activity, in its `attempt`; both empty for workflow code.
CREATE TABLE perdure_log (
    id INTEGER PRIMARY KEY,
    run INTEGER NOT NULL,
    number INTEGER NOT NULL,
    at INTEGER NOT NULL,
    level INTEGER NOT NULL,
    message TEXT NOT NULL,
    data TEXT,
    step TEXT NOT NULL,
    attempt INTEGER NOT NULL
);
CREATE UNIQUE INDEX perdure_log_by_run ON perdure_log (run, number);
