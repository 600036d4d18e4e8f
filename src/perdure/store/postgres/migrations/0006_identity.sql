-- Documents that administrators keep, and who did what; see the migration of the SQLite store.
CREATE TABLE perdure_record (
    namespace text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    changed_at bigint NOT NULL,
    data bytea,
    PRIMARY KEY (namespace, kind, id)
);

CREATE TABLE perdure_audit (
    number bigint PRIMARY KEY,
    at bigint NOT NULL,
    namespace text COLLATE "C" NOT NULL,
    action text COLLATE "C" NOT NULL,
    principal text COLLATE "C" NOT NULL,
    initiated_by text COLLATE "C" NOT NULL,
    target text COLLATE "C" NOT NULL,
    run_id text COLLATE "C" NOT NULL,
    decision text NOT NULL,
    rule text NOT NULL,
    digest text NOT NULL,
    hash text NOT NULL,
    data bytea
);
CREATE INDEX perdure_audit_by_time ON perdure_audit (namespace, at, number);
CREATE INDEX perdure_audit_by_principal ON perdure_audit (namespace, principal, at, number);
CREATE INDEX perdure_audit_by_action ON perdure_audit (namespace, action, at, number);
CREATE INDEX perdure_audit_by_target ON perdure_audit (namespace, target, at, number);
CREATE INDEX perdure_audit_by_run ON perdure_audit (namespace, run_id, at, number);

-- Held to the end of each transaction that appends: the chain has no gaps and no branches.
CREATE TABLE perdure_audit_head (
    number bigint NOT NULL,
    hash text NOT NULL,
    cut bigint NOT NULL,
    cut_hash text NOT NULL
);
INSERT INTO perdure_audit_head VALUES (0, '', 0, '');

CREATE FUNCTION perdure_audit_refuse() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS
$$
BEGIN
    IF TG_OP = 'DELETE' THEN
        IF OLD.number <= (SELECT cut FROM perdure_audit_head) THEN
            RETURN OLD;
        END IF;
    END IF;
    RAISE EXCEPTION 'perdure_audit is append-only';
END
$$;
CREATE TRIGGER perdure_audit_stays
BEFORE UPDATE OF number, at, namespace, action, principal, initiated_by, target, run_id, decision, rule, digest, hash
ON perdure_audit FOR EACH ROW EXECUTE FUNCTION perdure_audit_refuse();
CREATE TRIGGER perdure_audit_is_kept BEFORE DELETE ON perdure_audit
FOR EACH ROW EXECUTE FUNCTION perdure_audit_refuse();
CREATE TRIGGER perdure_audit_is_whole BEFORE TRUNCATE ON perdure_audit
FOR EACH STATEMENT EXECUTE FUNCTION perdure_audit_refuse();
