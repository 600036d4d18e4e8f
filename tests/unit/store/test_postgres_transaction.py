"""Transactional activities on PostgreSQL: the user's writes and the outcome, or nothing."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row
from tests.contract.store_contract import World, closing, turn

from perdure.errors import StoreRefused, Superseded, Unavailable, UsageError
from perdure.store.opening import open_store
from perdure.store.postgres.store import PostgresStore


@pytest.fixture
def world(postgres_url: str) -> Iterator[World]:
    store = open_store(postgres_url)
    world = World(store)
    with psycopg.connect(postgres_url) as connection:
        connection.execute("CREATE TABLE mine (x int)")
    yield world
    store.close()


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


def ask(world: World, text: str) -> list[Any]:
    assert isinstance(world.store, PostgresStore)
    with psycopg.connect(world.store.settings.url) as connection:
        return [row[0] for row in connection.execute(text.encode()).fetchall()]


def rows(world: World) -> list[Any]:
    return ask(world, "SELECT x FROM mine ORDER BY x")


def is_open(world: World, run: int, first: int = 4) -> bool:
    """Tell, by settling it, whether the deciding row is still there."""
    return not world.commit(turn(run, first=first, settles=(3,))).reopened


def insert(connection: psycopg.Connection[Any], *values: int) -> int:
    connection.cursor().executemany("INSERT INTO mine VALUES (%s)", [(value,) for value in values])
    return len(values)


def test_the_users_rows_and_the_outcome_come_together(world: World, run: int):
    result, posted = transact(world, run, lambda connection: insert(connection, 1, 2))
    assert result == 2
    assert rows(world) == [1, 2]
    assert world.inbox(run) == [b"outcome 2"]
    assert (posted.run, posted.execution, posted.event) == (run, run, b"outcome 2")
    assert posted.id == world.load(run).inbox[0].id
    assert not is_open(world, run)


@pytest.mark.parametrize(
    "error", [KeyError("mine"), OverflowError("mine"), UnicodeError("mine"), StopIteration("mine")]
)
def test_an_exception_undoes_everything_and_comes_as_it_was_raised(
    world: World, run: int, error: Exception
):
    def fail(connection: psycopg.Connection[Any]) -> None:
        insert(connection, 1)
        raise error

    with pytest.raises(type(error), match="mine"):
        transact(world, run, fail)
    assert (rows(world), world.inbox(run)) == ([], [])
    assert is_open(world, run)


def test_what_the_database_refuses_of_the_users_comes_as_the_driver_says_it(world: World, run: int):
    with pytest.raises(psycopg.errors.UndefinedTable):
        transact(world, run, lambda connection: connection.execute("SELECT * FROM nowhere"))
    assert is_open(world, run)


def test_a_constraint_that_is_checked_at_the_commit_undoes_everything(world: World, run: int):
    def late(connection: psycopg.Connection[Any]) -> None:
        connection.execute("CREATE TABLE late (x int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
        connection.execute("INSERT INTO late VALUES (1), (1)")

    with pytest.raises(psycopg.errors.UniqueViolation):
        transact(world, run, late)
    assert world.inbox(run) == []
    assert is_open(world, run)


def test_an_outcome_that_cannot_be_encoded_undoes_everything(world: World, run: int):
    def outcome(result: object) -> bytes:
        raise UnicodeError("no JSON form")

    with pytest.raises(UnicodeError, match="no JSON form"):
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


@pytest.mark.parametrize("how", ["settled", "closed"])
def test_an_attempt_that_is_decided_while_it_runs_leaves_nothing(world: World, run: int, how: str):
    def overtaken(connection: psycopg.Connection[Any]) -> None:
        insert(connection, 1)
        decides = turn(run, first=4, settles=(3,)) if how == "settled" else closing(run, first=4)
        assert not world.commit(decides).reopened

    with pytest.raises(Superseded):
        transact(world, run, overtaken)
    assert (rows(world), world.inbox(run)) == ([], [])


@pytest.mark.parametrize("name", ["commit", "rollback", "close", "__exit__"])
def test_methods_that_would_end_the_transaction_are_refused(world: World, run: int, name: str):
    def leave(connection: psycopg.Connection[Any]) -> None:
        insert(connection, 1)
        if name == "__exit__":
            with connection:
                pass
        else:
            getattr(connection, name)()

    with pytest.raises(UsageError, match="belongs to Perdure"):
        transact(world, run, leave)
    assert rows(world) == []
    assert is_open(world, run)


@pytest.mark.parametrize("statement", ["COMMIT", "ROLLBACK", "COMMIT AND CHAIN", "COMMIT; BEGIN"])
def test_a_statement_that_ends_the_transaction_is_found_out(world: World, run: int, statement: str):
    with pytest.raises(UsageError, match="belongs to Perdure"):
        transact(world, run, lambda connection: connection.execute(statement))
    assert world.inbox(run) == []
    assert is_open(world, run)


def test_an_error_that_the_code_swallows_does_not_make_a_success(world: World, run: int):
    def swallow(connection: psycopg.Connection[Any]) -> None:
        insert(connection, 1)
        try:
            connection.execute("SELECT 1 / 0")
        except psycopg.errors.DivisionByZero:
            pass

    with pytest.raises(StoreRefused, match="savepoint"):
        transact(world, run, swallow)
    assert (rows(world), world.inbox(run)) == ([], [])
    assert is_open(world, run)


def test_savepoints_row_factories_and_prepared_statements_are_the_users_own(world: World, run: int):
    def work(connection: psycopg.Connection[Any]) -> Any:
        connection.row_factory = dict_row
        with connection.transaction(force_rollback=True):
            insert(connection, 1)
        with connection.transaction():
            insert(connection, 2)
        for _ in range(8):
            connection.execute("SELECT x FROM mine WHERE x = %s", [2], prepare=True)
        return connection.execute("SELECT x FROM mine").fetchall()

    assert transact(world, run, work)[0] == [{"x": 2}]
    assert rows(world) == [2]
    assert world.inbox(run) == [b"outcome [{'x': 2}]"]


def test_numbers_and_plans_are_those_that_psycopgs_users_know(world: World, run: int):
    def work(connection: psycopg.Connection[Any]) -> Any:
        settings = ("plan_cache_mode", "enable_hashjoin", "enable_mergejoin", "jit")
        said = [connection.execute(f"SHOW {name}").fetchone() for name in settings]
        day = connection.execute("SELECT (date '2020-01-01' + %s)::text", [1]).fetchone()
        return said, day

    ours = psycopg.connect(world.store.settings.url)  # type: ignore[attr-defined]
    with ours as connection:
        expected = work(connection)
    assert transact(world, run, work)[0] == expected


def test_what_user_code_sets_is_not_there_for_the_next_one(world: World, run: int):
    sessions: list[int] = []
    kept: list[Any] = []

    def spoil(connection: psycopg.Connection[Any]) -> None:
        connection.row_factory = dict_row
        connection.prepare_threshold = 0
        connection.execute("SET search_path = nowhere")
        connection.execute("SET statement_timeout = 7")
        connection.execute("SELECT pg_advisory_lock(4711)")
        connection.execute("CREATE TEMP TABLE theirs (x int)")
        connection.execute("LISTEN them")
        kept.extend([connection, connection.cursor()])
        sessions.append(connection.info.backend_pid)

    def look(connection: psycopg.Connection[Any]) -> None:
        def value(text: str) -> Any:
            return connection.execute(text.encode()).fetchone()[0]  # type: ignore[index]

        assert value("SHOW search_path") != "nowhere"
        assert value("SELECT to_regclass('theirs')") is None
        assert value("SELECT count(*) FROM pg_listening_channels()") == 0
        assert value("SELECT count(*) FROM pg_prepared_statements") == 0
        sessions.append(connection.info.backend_pid)
        for use in (kept[0].execute, kept[1].execute):
            with pytest.raises((UsageError, psycopg.OperationalError)):
                use("INSERT INTO mine VALUES (9)")

    transact(world, run, spoil)
    mine = "database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    assert ask(world, f"SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND {mine}") == [
        0
    ]
    world.commit(turn(run, first=4, opens=((3, 2),)))
    transact(world, run, look, attempt=2)
    assert sessions[0] == sessions[1], "the session is used again: a new one costs more"
    assert rows(world) == []
    assert kept[0].closed


def test_a_session_that_ended_while_nobody_had_it_is_replaced(world: World, run: int):
    def session(connection: psycopg.Connection[Any]) -> int:
        return insert(connection, 1) and connection.info.backend_pid

    pid = transact(world, run, session)[0]
    world.commit(turn(run, first=4, opens=((3, 2),)))
    assert ask(world, f"SELECT pg_terminate_backend({pid}, 5000)") == [True]
    assert transact(world, run, session, attempt=2)[0] != pid
    assert rows(world) == [1, 1]


def test_more_at_once_than_are_kept_all_commit_and_close_closes_all(world: World, run: int):
    count = 8
    world.commit(turn(run, first=4, opens=tuple((3, n) for n in range(2, count + 1))))
    meet = threading.Barrier(count)

    def together(connection: psycopg.Connection[Any]) -> None:
        meet.wait(30)
        insert(connection, 1)

    done: list[Any] = []

    def body(attempt: int) -> None:
        done.append(transact(world, run, together, attempt=attempt))

    threads = [threading.Thread(target=body, args=(n,)) for n in range(1, count + 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == count
    assert rows(world) == [1] * count
    sessions = (
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE application_name = 'perdure' AND datname = current_database()"
    )
    for _ in range(5_000):  # the server may still be about to end those that were closed
        if ask(world, sessions) == [1 + 4]:
            break
    assert ask(world, sessions) == [1 + 4]
    world.store.close()
    with pytest.raises(UsageError, match="was closed"):
        transact(world, run, together)
    for _ in range(5_000):
        if ask(world, sessions) == [0]:
            break
    assert ask(world, sessions) == [0]


def test_a_statement_that_takes_too_long_is_ended_and_undone(world: World, run: int):
    def slow(connection: psycopg.Connection[Any]) -> None:
        insert(connection, 1)
        connection.execute("SELECT pg_sleep(60)")

    with pytest.raises(TimeoutError, match="out of time"):
        transact(world, run, slow, time_limit=0.05)
    assert (rows(world), world.inbox(run)) == ([], [])
    assert is_open(world, run)


@pytest.mark.parametrize("swallows", [True, False])
def test_code_that_lingers_between_two_statements_loses_its_locks(
    world: World, run: int, swallows: bool
):
    inside, wakes = threading.Event(), threading.Event()
    caught: list[BaseException] = []

    def linger(connection: psycopg.Connection[Any]) -> None:
        connection.execute("LOCK TABLE mine")
        connection.execute("SET statement_timeout = 0")
        connection.execute("SET idle_in_transaction_session_timeout = 0")
        inside.set()
        wakes.wait(30)
        try:
            insert(connection, 1)
        except psycopg.Error:
            if not swallows:
                raise

    def body() -> None:
        try:
            transact(world, run, linger, time_limit=0.05)
        except TimeoutError as exc:
            caught.append(exc)

    thread = threading.Thread(target=body)
    thread.start()
    inside.wait(30)
    assert rows(world) == []  # waits for the lock, which goes with the time limit
    assert is_open(world, run)
    wakes.set()
    thread.join()
    assert len(caught) == 1


def test_a_timeout_that_user_code_sets_is_its_own(world: World, run: int):
    def slow(connection: psycopg.Connection[Any]) -> None:
        connection.execute("SET LOCAL statement_timeout = 1")
        connection.execute("SELECT pg_sleep(60)")

    with pytest.raises(psycopg.errors.QueryCanceled):
        transact(world, run, slow)


def test_a_connection_that_is_lost_inside_is_no_success(world: World, run: int):
    def lose(connection: psycopg.Connection[Any]) -> None:
        insert(connection, 1)
        ask(world, f"SELECT pg_terminate_backend({connection.info.backend_pid}, 5000)")

    with pytest.raises(Unavailable, match="nothing was written"):
        transact(world, run, lose)
    assert rows(world) == []
    assert is_open(world, run)


def test_a_commit_that_is_not_acknowledged_says_that_it_may_have_happened(world: World, run: int):
    def cut(connection: psycopg.Connection[Any]) -> None:
        # Runs inside COMMIT: the session ends itself.
        connection.execute(
            "CREATE FUNCTION cut() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$"
        )
        connection.execute(
            "CREATE CONSTRAINT TRIGGER cut AFTER INSERT ON mine INITIALLY DEFERRED "
            "FOR EACH ROW EXECUTE FUNCTION cut()"
        )
        insert(connection, 1)

    with pytest.raises(Unavailable, match="may or may not"):
        transact(world, run, cut)
    assert is_open(world, run)


def test_the_role_and_the_durability_that_user_code_chose_do_not_go_for_the_outcome(
    world: World, run: int
):
    def choose(connection: psycopg.Connection[Any]) -> None:
        connection.execute("SET synchronous_commit = off")
        connection.execute("SET ROLE pg_monitor")

    assert transact(world, run, choose)[1].outcome == "delivered"


def test_a_start_within_stands_and_falls_with_the_activity(world: World, run: int):
    from tests.contract.store_contract import request

    def work(connection: psycopg.Connection[Any]) -> Any:
        connection.row_factory = dict_row
        started = world.store.start_within(connection, [request("other")], 5)[0]
        assert world.store.find("other") is None
        return started.run

    started, _ = transact(world, run, work)
    found = world.store.find("other")
    assert found is not None
    assert found.run == started
