-- When a human task ends if nobody has decided it, in microseconds since 1970: 0 for never, NULL for the
-- time when it is due.
ALTER TABLE perdure_human_task ADD COLUMN expires_at INTEGER;
