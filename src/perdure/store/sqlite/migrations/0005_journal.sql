-- What a reader of all histories, in the order of commits, must know beside them.
--
-- Up to which event a run's history is a copy: those events are told as the other run's.
CREATE TABLE perdure_copy (
    run INTEGER PRIMARY KEY,
    event INTEGER NOT NULL
);
INSERT INTO perdure_copy (run, event) SELECT run, event FROM perdure_fork;

-- One row: the highest history row that was ever deleted. Whoever deletes histories keeps it.
CREATE TABLE perdure_journal (
    deleted_to INTEGER NOT NULL
);
INSERT INTO perdure_journal (deleted_to) VALUES (0);
