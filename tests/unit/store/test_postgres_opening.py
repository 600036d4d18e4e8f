"""PostgreSQL: URLs, options, and what a connection that is lost, closed or forked does."""

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from tests.contract.store_contract import World, request, turn

from perdure.errors import Invalid, SchemaMismatch, Unavailable, UsageError
from perdure.store.journal import JournalRow
from perdure.store.opening import open_store
from perdure.store.postgres.connect import read_url
from perdure.store.postgres.store import PostgresStore


@pytest.fixture
def world(postgres_url: str) -> Iterator[World]:
    store = open_store(postgres_url)
    world = World(store)
    yield world
    store.close()


def end_session(url: str, pid: int) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        assert connection.execute("SELECT pg_terminate_backend(%s, 5000)", [pid]).fetchone() == (
            True,
        )


def session(world: World) -> int:
    assert isinstance(world.store, PostgresStore)
    return world.store.database.connection.info.backend_pid


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:geh%eim@h/db",
        "postgresql://u:geh/eim@h/db",
        "postgresql://u:geh?eim@h/db",
        "postgresql://u:geh@eim@h/db",
        "postgresql://u:[geheim@h/db",
        "postgresql://h/db?password=geheim&nonsense",
        "postgresql://h/db?nonsense=1",
        "postgresql://[h/db",
    ],
)
def test_a_url_that_is_none_is_refused_without_the_password(url: str):
    with pytest.raises(Invalid, match="not a PostgreSQL URL") as refused:
        open_store(url)
    for part in ("geheim", "geh", "eim"):
        assert part not in str(refused.value)


@pytest.mark.parametrize("schema", ["", "Big", "a-b", "1a", "a" * 56, 'a"b', "pg_mine"])
def test_a_name_that_is_no_schema_is_refused(schema: str):
    with pytest.raises(Invalid, match="schema"):
        read_url("postgresql://h/db", {"schema": schema})


def test_the_longest_name_of_a_schema_works_to_the_end(postgres_url: str):
    world = World(open_store(postgres_url, options={"schema": "s" * 55}))
    assert world.start().created
    world.store.tidy(idle=True)
    world.store.close()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"cache": 1}, "'cache' is unknown"),
        ({"pooler": "maybe"}, "true or false"),
        ({"synchronous_commit": "sometimes"}, "is not one of"),
        ({"synchronous_commit": "off"}, "allow_data_loss"),
        ({"synchronous_commit": "local"}, "allow_data_loss"),
        ({"statement_timeout": "soon"}, "statement_timeout"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], says: str):
    with pytest.raises((UsageError, Invalid), match=says):
        open_store("postgresql://h/db", options=options)
    text = "&".join(f"{key}={value}" for key, value in options.items())
    with pytest.raises((UsageError, Invalid)):
        open_store(f"postgresql://h/db?{text}")


def test_what_a_connection_is_told(postgres_url: str):
    store = open_store(
        f"{postgres_url}?options=-c%20work_mem%3D5MB&schema=mine",
        options={"statement_timeout": "7s", "synchronous_commit": "off"},
        allow_data_loss=True,
    )

    def show(name: str) -> str:
        return store.database.execute(f"SHOW {name}").fetchone()[0]

    assert (show("statement_timeout"), show("synchronous_commit")) == ("7s", "off")
    assert (show("work_mem"), show("application_name")) == ("5MB", "perdure")
    assert World(store).start().created
    store.close()


def test_two_schemas_in_one_database_do_not_see_each_other(postgres_url: str):
    one, two = (World(open_store(f"{postgres_url}?schema={name}")) for name in ("one", "two"))
    assert one.start().created
    assert two.store.find("order-1") is None
    assert two.start().created
    assert one.worker.id == two.worker.id == 1
    one.store.close()
    two.store.close()


def test_a_connection_that_is_lost_within_a_batch_makes_no_noise_of_the_driver(
    world: World, postgres_url: str, caplog: pytest.LogCaptureFixture
):
    assert isinstance(world.store, PostgresStore)
    database, lost = world.store.database, session(world)

    def verb() -> int:
        if session(world) == lost:
            end_session(postgres_url, lost)
        return int(database.run("now").fetchone()[0])

    with caplog.at_level(logging.DEBUG):
        assert database.write(verb) > 0
    assert session(world) != lost
    assert [record.getMessage() for record in caplog.records if record.name == "psycopg"] == []


def test_a_pooler_is_asked_to_keep_nothing(postgres_url: str):
    world = World(open_store(f"{postgres_url}?pooler=1"))
    run = world.owned().run
    for first in range(3, 9):
        world.commit(turn(run, first=first))
    assert isinstance(world.store, PostgresStore)
    prepared = world.store.database.execute("SELECT count(*) FROM pg_prepared_statements")
    assert prepared.fetchone() == (0,)
    assert world.store.listen(lambda: None) is None
    world.store.close()


def test_nobody_at_the_address_says_where(postgres_url: str):
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1/db"):
        open_store("postgresql://u:geheim@127.0.0.1:1/db")


def test_a_wrong_password_is_said_nowhere(postgres_url: str, caplog: pytest.LogCaptureFixture):
    parts = urlsplit(postgres_url)
    host = f"{parts.hostname}:{parts.port}"
    url = parts._replace(netloc=f"{parts.username}:geheim@{host}").geturl()
    with caplog.at_level(logging.DEBUG), pytest.raises(Unavailable) as refused:
        open_store(url)
    assert "geheim" not in f"{refused.value!r}{refused.value}{refused.value.__cause__!r}"
    assert "geheim" not in caplog.text
    assert "geheim" not in repr(read_url(url, None))


def test_without_the_driver_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch):
    for name in [name for name in sys.modules if name.startswith("perdure.store.postgres")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(UsageError, match=r"pip install 'perdure\[postgres\]'"):
        open_store("postgresql://h/db")


def test_reading_never_makes_tables_and_never_writes(postgres_url: str):
    reader = open_store(postgres_url, readonly=True)
    with pytest.raises(SchemaMismatch, match="no tables of this version yet"):
        reader.migrate(1)
    with psycopg.connect(postgres_url) as connection:
        schemas = connection.execute("SELECT to_regnamespace('perdure')").fetchone()
    assert schemas == (None,)
    writer = open_store(postgres_url)
    run = World(writer).start()
    reader.migrate(1)
    assert reader.rows([run.run])[0].run_id == run.run_id
    with pytest.raises(Unavailable, match="read-only"):
        reader.start([request("new")], 1)
    reader.close()
    writer.close()


def test_a_schema_of_a_newer_version_is_left_alone(world: World, postgres_url: str):
    with psycopg.connect(postgres_url) as connection:
        connection.execute("INSERT INTO perdure.perdure_migration VALUES (9999, 'x', 'y', '99', 1)")
    for readonly in (False, True):
        store = open_store(postgres_url, readonly=readonly)
        with pytest.raises(SchemaMismatch, match="99"):
            store.migrate(1)
        store.close()


def test_a_migration_that_was_edited_is_found_out(world: World, postgres_url: str):
    with psycopg.connect(postgres_url) as connection:
        connection.execute("UPDATE perdure.perdure_migration SET checksum = 'other'")
    store = open_store(postgres_url)
    with pytest.raises(SchemaMismatch):
        store.migrate(1)
    store.close()


def test_a_database_without_tables_asks_to_be_migrated(postgres_url: str):
    store = open_store(postgres_url)
    with pytest.raises(SchemaMismatch, match="a worker makes them"):
        store.find("x")
    store.close()


def test_a_closed_store_says_so_and_may_be_closed_again(world: World):
    world.store.close()
    world.store.close()
    for verb in (lambda: world.store.find("x"), lambda: world.store.post([], 1)):
        with pytest.raises(UsageError, match="was closed"):
            verb()


_FORK = """
import os, sys
from perdure.errors import UsageError
from perdure.store.opening import open_store
store = open_store(sys.argv[1])
store.migrate(1)
if os.fork() == 0:
    said = 0
    for verb in (
        lambda: store.find("x"),
        lambda: store.post([], 1),
        lambda: store.transact(1, 1, 1, print, outcome=bytes, time_limit=9, now=1),
    ):
        try:
            verb()
        except UsageError as exc:
            said += "open it again after the fork" in str(exc)
    store.close()
    os._exit(said)
print(os.waitstatus_to_exitcode(os.wait()[1]), store.find("x"))
"""


def test_a_store_is_not_used_in_a_forked_process(postgres_url: str):
    done = subprocess.run(
        [sys.executable, "-c", _FORK, postgres_url],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ},
    )
    assert done.stdout.split() == ["3", "None"], done


@pytest.mark.parametrize(
    "verb",
    [
        lambda world: world.store.find("order-1").run_id,
        lambda world: world.start("order-2").created,
        lambda world: world.post().outcome,
        lambda world: world.commit(turn(1)).lost,
        lambda world: world.store.resolve(world.worker.id, world.worker.epoch),
    ],
    ids=["find", "start", "post", "commit", "resolve"],
)
def test_a_session_that_ended_while_idle_is_not_noticed(
    world: World, postgres_url: str, verb: Callable[[World], Any]
):
    world.owned()
    before = session(world)
    end_session(postgres_url, before)
    assert verb(world) is not None
    assert session(world) != before


@pytest.mark.parametrize("before", ["INSERT INTO", "COMMIT"])
def test_a_session_that_ends_before_its_commit_has_written_nothing(
    world: World, postgres_url: str, before: str, monkeypatch: pytest.MonkeyPatch
):
    run = world.owned().run
    database = world.store.database  # type: ignore[attr-defined]
    plain = database.execute
    ended: list[int] = []

    def execute(text: str, *args: Any, **kwargs: Any) -> Any:
        is_there = text == before if before == "COMMIT" else before in text
        if is_there and not ended:
            ended.append(session(world))
            database.pipeline.sync()
            end_session(postgres_url, ended[0])
        return plain(text, *args, **kwargs)

    monkeypatch.setattr(database, "execute", execute)
    batch = world.batch(turn(run))
    try:
        world.store.commit(batch)
    except Unavailable as exc:
        assert before == "COMMIT"
        assert "may or may not" in str(exc)
        assert world.store.resolve(world.worker.id, world.worker.epoch) == batch.number - 1
        assert len(world.payloads(run)) == 1
        world.store.commit(batch)
    assert ended
    assert world.store.resolve(world.worker.id, world.worker.epoch) == batch.number
    assert len(world.payloads(run)) == 2


def test_a_commit_whose_acknowledgement_is_lost_stands(
    world: World, postgres_url: str, monkeypatch: pytest.MonkeyPatch
):
    run = world.owned().run
    database = world.store.database  # type: ignore[attr-defined]
    plain = database.execute

    def execute(text: str, *args: Any, **kwargs: Any) -> Any:
        answer = plain(text, *args, **kwargs)
        if text == "COMMIT":
            database.pipeline.sync()
            end_session(postgres_url, session(world))
            plain("SELECT 1")
        return answer

    monkeypatch.setattr(database, "execute", execute)
    batch = world.batch(turn(run))
    with pytest.raises(Unavailable, match="may or may not"):
        world.store.commit(batch)
    monkeypatch.undo()
    assert world.store.resolve(world.worker.id, world.worker.epoch) == batch.number
    assert len(world.payloads(run)) == 2


def journal(world: World, count: int) -> list[JournalRow]:
    """Return the journal once it has that many rows.

    Writers of other databases of the server hold it up as well, and other tests are such.
    """
    found: Sequence[JournalRow] = ()
    for _ in range(20_000):
        found = world.store.journal(limit=9).rows
        if len(found) == count:
            break
    return list(found)


def test_the_journal_never_skips_a_row_of_a_transaction_that_commits_late(
    world: World, postgres_url: str
):
    with psycopg.connect(postgres_url) as early:
        early.execute("SELECT pg_current_xact_id()")
        late = world.start("late")
        store = world.store
        assert store.journal(limit=9).rows == []
        world.store.start_within(early, [request("early")], 5)
        assert store.journal(limit=9).rows == []
        early.commit()
    after_both = world.start("last")
    found = journal(world, 3)
    assert [row.run for row in found] == [late.run + 1, late.run, after_both.run]
    assert [row.id for row in found] == sorted(row.id for row in found)
    assert [row.run for row in store.journal(after=found[0].id, limit=9).rows] in ([], [1, 3])


def test_what_early_transactions_write_late_has_places_of_its_own(world: World, postgres_url: str):
    with psycopg.connect(postgres_url) as one, psycopg.connect(postgres_url) as two:
        for early in (one, two):
            early.execute("SELECT pg_current_xact_id()")
        world.start("late")
        for name, early in (("one", one), ("two", two)):
            world.store.start_within(early, [request(name)], 5)
            world.store.start_within(early, [request(f"{name}-again")], 5)
        two.commit()
        one.commit()
    found = [world.store.rows([row.run])[0] for row in journal(world, 5)]
    ids = [row.workflow_id for row in found]
    assert ids == ["one", "one-again", "two", "two-again", "late"]
