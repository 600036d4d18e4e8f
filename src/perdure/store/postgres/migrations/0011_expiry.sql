-- When a human task ends if nobody has decided it. What the values mean is said in the migration of the
-- same name of the SQLite store.
ALTER TABLE perdure_human_task ADD COLUMN expires_at bigint;
