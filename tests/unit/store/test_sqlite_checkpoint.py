"""The write-ahead log is emptied by one process at a time, and in time."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.contract.store_contract import World, turn

from perdure.store.opening import open_store
from perdure.store.sqlite import checkpoint
from perdure.store.sqlite.locks import try_lock
from perdure.store.sqlite.store import SqliteStore


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(checkpoint, "_LIMIT", 256 * 1024)
    world = World(open_store(f"sqlite:///{tmp_path}/a.db"))
    yield world
    world.store.close()


def log_size(tmp_path: Path) -> int:
    return (tmp_path / "a.db-wal").stat().st_size


def write(world: World, commits: int) -> None:
    run = world.owned(f"order-{world.now}").run
    for first in range(3, 3 + commits):
        world.commit(turn(run, first=first, payload=b"x" * 2_000))
        world.store.tidy(idle=False)


def test_a_long_log_is_moved_into_the_database_and_used_again(tmp_path: Path, world: World):
    write(world, 600)
    # Without checkpoints these 600 commits leave some 10 MB behind.
    assert log_size(tmp_path) < 2_000_000
    assert (tmp_path / "a.db").stat().st_size > 1_000_000
    assert len(world.payloads(1)) == 601


def test_an_idle_store_leaves_an_empty_log(tmp_path: Path, world: World):
    write(world, 3)
    assert log_size(tmp_path) > 0
    world.store.tidy(idle=True)
    assert log_size(tmp_path) == 0


def test_while_another_process_checkpoints_nobody_else_does(tmp_path: Path, world: World):
    lock = try_lock(f"{tmp_path}/a.db-checkpoint")
    assert lock is not None
    write(world, 200)
    world.store.tidy(idle=True)
    grown = log_size(tmp_path)
    assert grown > 2_000_000
    lock.release(remove=False)
    world.store.tidy(idle=True)
    assert log_size(tmp_path) == 0


def test_the_token_is_held_and_given_back_by_a_checkpoint(world: World):
    assert isinstance(world.store, SqliteStore)
    database = world.store.database
    seen: list[int] = []

    def trace(sql: str) -> None:
        if "wal_checkpoint" in sql:
            seen.append(database.token._holder)

    database.connection.set_trace_callback(trace)
    write(world, 1)
    world.store.tidy(idle=True)
    assert len(seen) == 1
    assert seen[0] != 0
    assert database.token._holder == 0


def test_growth_by_other_processes_is_seen_by_the_size_of_the_file(tmp_path: Path, world: World):
    other = World(open_store(f"sqlite:///{tmp_path}/a.db"))
    run = other.owned("other").run
    for first in range(3, 203):
        other.commit(turn(run, first=first, payload=b"x" * 4_000))
    assert isinstance(world.store, SqliteStore)
    before = (tmp_path / "a.db").stat().st_size
    assert world.store._checkpointer.watch_size()
    assert (tmp_path / "a.db").stat().st_size > before
    assert not world.store._checkpointer.watch_size()
    other.store.close()


def test_a_reader_that_holds_on_to_a_snapshot_stops_no_writer(tmp_path: Path, world: World):
    assert isinstance(world.store, SqliteStore)
    reader = world.store.reader()
    run = world.owned("kept").run
    reader.database.execute("BEGIN")
    assert reader.last_turn(run) is not None
    write(world, 100)
    world.store.tidy(idle=True)
    assert log_size(tmp_path) > 0
    write(world, 10)
    reader.database.execute("COMMIT")
    world.store.tidy(idle=True)
    assert log_size(tmp_path) == 0
    reader.close()


def test_a_database_in_memory_has_nothing_to_tidy():
    store = open_store("memory://")
    store.tidy(idle=True)
    store.close()
