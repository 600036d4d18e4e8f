"""Transactional activities: the user's writes and the outcome in one commit, or nothing."""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.contract.store_contract import OPENERS, World, closing, turn

from perdure.errors import Superseded, Unavailable, UsageError
from perdure.store.sqlite.store import SqliteStore


@pytest.fixture(params=list(OPENERS))
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    world = World(OPENERS[request.param](tmp_path))
    database = world.store.database  # type: ignore[attr-defined]
    database.execute("CREATE TABLE mine (x)")
    yield world
    world.store.close()


@pytest.fixture
def run(world: World) -> int:
    """A run with one transactional activity: number 3, attempt 1."""
    run = world.owned().run
    world.commit(turn(run, opens=((3, 1),)))
    return run


def transact(
    world: World, run: int, fn: Callable[[Any], Any], *, attempt: int = 1, time_limit: float = 30
) -> Any:
    return world.store.transact(
        run,
        3,
        attempt,
        fn,
        outcome=lambda result: f"outcome {result}".encode(),
        time_limit=time_limit,
        now=7,
    )


def rows(world: World) -> list[Any]:
    assert isinstance(world.store, SqliteStore)
    return [row[0] for row in world.store.database.execute("SELECT x FROM mine ORDER BY x")]


def is_open(world: World, run: int, first: int = 4) -> bool:
    """Tell, by settling it, whether the deciding row is still there."""
    return not world.commit(turn(run, first=first, settles=(3,))).reopened


def insert(connection: sqlite3.Connection, *values: int) -> int:
    connection.executemany("INSERT INTO mine VALUES (?)", [(value,) for value in values])
    return len(values)


def test_the_users_rows_and_the_outcome_come_together(world: World, run: int):
    result, posted = transact(world, run, lambda connection: insert(connection, 1, 2))
    assert result == 2
    assert rows(world) == [1, 2]
    assert world.inbox(run) == [b"outcome 2"]
    assert (posted.run, posted.execution, posted.event) == (run, run, b"outcome 2")
    assert posted.id == world.load(run).inbox[0].id
    assert not is_open(world, run)


def test_an_exception_undoes_everything_and_the_attempt_stays_open(world: World, run: int):
    def fail(connection: sqlite3.Connection) -> None:
        insert(connection, 1)
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        transact(world, run, fail)
    assert (rows(world), world.inbox(run)) == ([], [])
    assert is_open(world, run)


def test_an_outcome_that_cannot_be_encoded_undoes_everything(world: World, run: int):
    def outcome(result: object) -> bytes:
        raise ValueError("no JSON form")

    with pytest.raises(ValueError, match="no JSON form"):
        world.store.transact(
            run,
            3,
            1,
            lambda connection: insert(connection, 1),
            outcome=outcome,
            time_limit=9,
            now=7,
        )
    assert rows(world) == []


@pytest.mark.parametrize("how", ["settled", "closed", "another attempt"])
def test_an_attempt_that_was_decided_elsewhere_does_not_run(world: World, run: int, how: str):
    if how == "settled":
        world.commit(turn(run, first=4, settles=(3,)))
    elif how == "closed":
        world.commit(closing(run, first=4))
    called: list[int] = []
    with pytest.raises(Superseded, match="activity #3"):
        transact(world, run, lambda _: called.append(1), attempt=2 if how[0] == "a" else 1)
    assert called == []


@pytest.mark.parametrize(
    "statement",
    [
        "COMMIT",
        "ROLLBACK",
        "BEGIN",
        "ATTACH ':memory:' AS other",
        "DETACH main",
        "PRAGMA synchronous=OFF",
        "PRAGMA user_version=3",
        "PRAGMA wal_checkpoint",
    ],
)
def test_statements_that_would_leave_the_transaction_are_refused(
    world: World, run: int, statement: str
):
    def leave(connection: sqlite3.Connection) -> None:
        insert(connection, 1)
        connection.execute(statement)

    with pytest.raises(UsageError, match="belongs to Perdure"):
        transact(world, run, leave)
    assert rows(world) == []
    assert is_open(world, run)


@pytest.mark.parametrize(
    "call",
    [
        lambda connection: connection.commit(),
        lambda connection: connection.rollback(),
        lambda connection: connection.close(),
        lambda connection: connection.executescript("SELECT 1"),
        lambda connection: connection.__enter__(),
    ],
)
def test_methods_that_would_leave_the_transaction_are_refused(
    world: World, run: int, call: Callable[[Any], Any]
):
    def leave(connection: sqlite3.Connection) -> None:
        insert(connection, 1)
        call(connection)

    with pytest.raises(UsageError, match="Perdure"):
        transact(world, run, leave)
    assert rows(world) == []


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM perdure_history",
        "UPDATE perdure_state SET status = 1",
        "INSERT INTO PERDURE_inbox (execution) VALUES (1)",
        "REPLACE INTO perdure_worker (id) VALUES (1)",
        "DROP TABLE perdure_run",
        "ALTER TABLE perdure_run ADD COLUMN mine",
        "CREATE INDEX mine_index ON perdure_run (run)",
        "CREATE TRIGGER own AFTER INSERT ON perdure_inbox BEGIN DELETE FROM mine; END",
        "CREATE TEMP TRIGGER own AFTER INSERT ON perdure_inbox BEGIN DELETE FROM mine; END",
        "CREATE TEMP TABLE perdure_inbox (x)",
        "CREATE TEMP VIEW perdure_inbox AS SELECT 1",
        "CREATE TABLE perdure_more (x)",
        "WITH one AS (SELECT 1) DELETE FROM perdure_run",
    ],
)
def test_perdures_own_tables_cannot_be_changed(world: World, run: int, statement: str):
    def change(connection: sqlite3.Connection) -> int:
        insert(connection, 1)
        with pytest.raises(UsageError, match="is Perdure's"):
            connection.execute(statement)
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        transact(world, run, change)
    assert rows(world) == []
    assert is_open(world, run), "Perdure's own statements still work"


def test_perdures_own_tables_cannot_be_changed_by_a_trigger_of_the_user(world: World, run: int):
    assert isinstance(world.store, SqliteStore)
    world.store.database.execute(
        "CREATE TRIGGER own AFTER INSERT ON mine BEGIN DELETE FROM perdure_inbox; END"
    )
    with pytest.raises(UsageError, match="perdure_inbox is Perdure's"):
        transact(world, run, lambda connection: insert(connection, 1))


def test_perdures_own_tables_can_be_read_and_columns_may_have_any_name(world: World, run: int):
    def read(connection: sqlite3.Connection) -> int:
        connection.execute("CREATE TABLE theirs (perdure_run)")
        connection.execute("INSERT INTO theirs SELECT run FROM perdure_run")
        return connection.execute("UPDATE theirs SET perdure_run = 5").rowcount

    assert transact(world, run, read)[0] == 1
    assert world.inbox(run) == [b"outcome 1"]


def test_savepoints_reading_pragmas_and_cursors_work(world: World, run: int):
    def work(connection: sqlite3.Connection) -> list[Any]:
        connection.row_factory = sqlite3.Row
        connection.execute("SAVEPOINT a")
        insert(connection, 1)
        connection.execute("ROLLBACK TO a")
        insert(connection, 2, 3, 4)
        connection.execute("RELEASE a")
        assert connection.execute("SELECT max(x) AS most FROM mine").fetchone()["most"] == 4
        cursor = connection.cursor()
        found = cursor.execute("SELECT x FROM mine ORDER BY x")
        values = [found.fetchone()["x"], *[row["x"] for row in found.fetchmany(1)]]
        values += [row["x"] for row in found]
        assert connection.execute("PRAGMA table_info(mine)").fetchall()
        assert connection.execute("PRAGMA user_version").fetchall()
        return values

    assert transact(world, run, work)[0] == [2, 3, 4]
    assert rows(world) == [2, 3, 4]


def test_a_statement_that_takes_too_long_is_interrupted_and_undone(world: World, run: int):
    def endless(connection: sqlite3.Connection) -> None:
        insert(connection, 1)
        connection.execute(
            "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n"
        ).fetchone()

    with pytest.raises(TimeoutError, match="out of time"):
        transact(world, run, endless, time_limit=0.05)
    assert (rows(world), world.inbox(run)) == ([], [])
    assert is_open(world, run)


@pytest.mark.parametrize("world", ["file"], indirect=True)  # in memory its one thread would hang
def test_code_that_hangs_outside_of_sqlite_loses_the_lock_and_cannot_come_back(
    world: World, run: int
):
    inside, wakes = threading.Event(), threading.Event()
    caught: list[BaseException] = []

    def hang(connection: sqlite3.Connection) -> None:
        insert(connection, 1)
        inside.set()
        wakes.wait(30)
        for call in (lambda: insert(connection, 2), lambda: connection.execute("SELECT 1")):
            try:
                call()
            except TimeoutError as exc:
                caught.append(exc)

    def body() -> None:
        try:
            transact(world, run, hang, time_limit=0.05)
        except TimeoutError as exc:
            caught.append(exc)

    thread = threading.Thread(target=body)
    thread.start()
    inside.wait(30)
    # This commit waits for the token, which comes when the time limit has passed.
    world.store.post([], 1)
    assert is_open(world, run)
    wakes.set()
    thread.join()
    assert len(caught) == 3
    assert rows(world) == []


def test_an_error_after_the_time_limit_is_a_timeout(world: World, run: int):
    def slow(connection: sqlite3.Connection) -> None:
        try:
            connection.execute(
                "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) "
                "SELECT max(x) FROM n"
            ).fetchone()
        except (TimeoutError, sqlite3.Error) as exc:
            seen.append(type(exc))
            raise ValueError("something else") from None

    seen: list[type] = []
    with pytest.raises(TimeoutError):
        transact(world, run, slow, time_limit=0.05)
    assert seen == [TimeoutError]


def test_a_transaction_that_sqlite_undid_is_not_taken_for_done(world: World, run: int):
    def undone(connection: sqlite3.Connection) -> None:
        connection.execute("CREATE TABLE once (x UNIQUE ON CONFLICT ROLLBACK)")
        connection.execute("INSERT INTO once VALUES (1)")
        try:
            connection.execute("INSERT INTO once VALUES (1)")
        except sqlite3.IntegrityError:
            pass

    with pytest.raises(Exception, match="undid"):
        transact(world, run, undone)
    assert is_open(world, run)


def test_a_write_through_the_store_from_inside_is_told_that_it_would_wait_for_itself(
    world: World, run: int
):
    with pytest.raises(UsageError, match="wait for itself"):
        transact(world, run, lambda _: world.store.post([], 1))
    assert is_open(world, run)


def test_the_connection_is_as_new_for_the_next_one(world: World, run: int):
    def spoil(connection: sqlite3.Connection) -> None:
        connection.row_factory = lambda *_: "spoilt"
        connection.text_factory = bytes

    transact(world, run, spoil)
    world.commit(turn(run, first=4, opens=((3, 2),)))
    found = transact(
        world, run, lambda connection: connection.execute("SELECT 'x'").fetchone(), attempt=2
    )
    assert found[0] == ("x",)
    assert world.row(run).workflow_id == "order-1"


def test_a_commit_that_fails_says_that_it_may_have_happened(
    world: World, run: int, monkeypatch: pytest.MonkeyPatch
):
    from perdure.store.sqlite.database import Database

    def lost(self: Database) -> None:
        self.rollback()
        raise Unavailable("may or may not")

    monkeypatch.setattr(Database, "commit", lost)
    with pytest.raises(Unavailable, match="may or may not"):
        transact(world, run, lambda connection: insert(connection, 1))
