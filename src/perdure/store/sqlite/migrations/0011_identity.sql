-- Small documents that administrators keep: principals, roles, keys, configs. `data` is sealed; without it
-- the document was dropped, and its version goes on if it comes back.
CREATE TABLE perdure_record (
    namespace TEXT NOT NULL,
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    version INTEGER NOT NULL,
    changed_at INTEGER NOT NULL,
    data BLOB,
    PRIMARY KEY (namespace, kind, id)
) WITHOUT ROWID;

-- Who did what. `number` is gapless; `hash` covers the row and the hash before it; `digest` is of `data`,
-- which is sealed, and may be sealed anew or erased.
CREATE TABLE perdure_audit (
    number INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    namespace TEXT NOT NULL,
    action TEXT NOT NULL,
    principal TEXT NOT NULL,
    initiated_by TEXT NOT NULL,
    target TEXT NOT NULL,
    run_id TEXT NOT NULL,
    decision TEXT NOT NULL,
    rule TEXT NOT NULL,
    digest TEXT NOT NULL,
    hash TEXT NOT NULL,
    data BLOB
);
CREATE INDEX perdure_audit_by_time ON perdure_audit (namespace, at, number);
CREATE INDEX perdure_audit_by_principal ON perdure_audit (namespace, principal, at, number);
CREATE INDEX perdure_audit_by_action ON perdure_audit (namespace, action, at, number);
CREATE INDEX perdure_audit_by_target ON perdure_audit (namespace, target, at, number);
CREATE INDEX perdure_audit_by_run ON perdure_audit (namespace, run_id, at, number);

-- The last row's number and hash; and those of the last row that was archived and cut off.
CREATE TABLE perdure_audit_head (
    number INTEGER NOT NULL,
    hash TEXT NOT NULL,
    cut INTEGER NOT NULL,
    cut_hash TEXT NOT NULL
);
INSERT INTO perdure_audit_head VALUES (0, '', 0, '');

CREATE TRIGGER perdure_audit_stays
BEFORE UPDATE OF number, at, namespace, action, principal, initiated_by, target, run_id, decision, rule, digest, hash
ON perdure_audit BEGIN
    SELECT RAISE(ABORT, 'perdure_audit is append-only');
END;
CREATE TRIGGER perdure_audit_is_kept BEFORE DELETE ON perdure_audit
WHEN OLD.number > (SELECT cut FROM perdure_audit_head) BEGIN
    SELECT RAISE(ABORT, 'perdure_audit is append-only');
END;
CREATE TRIGGER perdure_audit_goes_on BEFORE INSERT ON perdure_audit
WHEN NEW.number <= (SELECT number FROM perdure_audit_head) BEGIN
    SELECT RAISE(ABORT, 'perdure_audit is append-only');
END;
