"""The write-ahead log is emptied by one process at a time, and in time."""

import shutil
import sqlite3
import subprocess
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


def turns_without_the_log(tmp_path: Path) -> int:
    """Return how many turns a copy of the database file alone holds.

    None if it has no tables, or if it cannot be read: a page is moved in its last version or not at
    all, so that a file whose log is moved in part may be in no state that ever was.
    """
    copy = tmp_path / "copy.db"
    # In a process of its own: closing the file here would drop this process's locks on it.
    subprocess.run(["cp", tmp_path / "a.db", copy], check=True)
    connection = sqlite3.connect(copy)
    try:
        has_tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        found = "SELECT count(*) FROM perdure_history" if has_tables else "SELECT 0"
        return connection.execute(found).fetchone()[0]
    except sqlite3.DatabaseError as exc:
        assert "malformed" in str(exc)
        return 0
    finally:
        connection.close()


def write(world: World, commits: int) -> None:
    run = world.owned(f"order-{world.now}").run
    for first in range(3, 3 + commits):
        world.commit(turn(run, first=first, payload=b"x" * 2_000))
        world.store.tidy(idle=False)


def test_a_long_log_is_moved_into_the_database_and_used_again(tmp_path: Path, world: World):
    laid_out = log_size(tmp_path)
    write(world, 600)
    # Without checkpoints these 600 commits leave some 10 MB behind.
    assert log_size(tmp_path) == laid_out
    assert (tmp_path / "a.db").stat().st_size > 1_000_000
    assert len(world.payloads(1)) == 601


def test_an_idle_store_moves_the_log_into_the_database(tmp_path: Path, world: World):
    write(world, 3)
    world.store.tidy(idle=True)
    assert turns_without_the_log(tmp_path) == 4


def test_a_log_that_others_made_very_long_is_cut(tmp_path: Path, world: World):
    lock = try_lock(f"{tmp_path}/a.db-checkpoint")
    assert lock is not None
    write(world, 600)
    assert log_size(tmp_path) > 5_000_000
    lock.release(remove=False)
    world.store.tidy(idle=True)
    assert log_size(tmp_path) == 0


def test_the_log_has_its_working_size_when_a_worker_has_joined(tmp_path: Path):
    world = World(open_store(f"sqlite:///{tmp_path}/fresh.db"))
    log = tmp_path / "fresh.db-wal"
    laid_out = log.stat().st_size
    assert laid_out > 4 * 1024 * 1024
    run = world.owned("order").run
    for first in range(3, 103):
        world.commit(turn(run, first=first, payload=b"x" * 2_000))
    assert log.stat().st_size == laid_out
    world.store.close()
    shutil.copyfile(tmp_path / "fresh.db", tmp_path / "a.db")
    assert (tmp_path / "a.db").stat().st_size < 2_000_000
    assert turns_without_the_log(tmp_path) == 101


def test_while_another_process_checkpoints_nobody_else_does(tmp_path: Path, world: World):
    lock = try_lock(f"{tmp_path}/a.db-checkpoint")
    assert lock is not None
    write(world, 200)
    world.store.tidy(idle=True)
    assert turns_without_the_log(tmp_path) < 201
    lock.release(remove=False)
    world.store.tidy(idle=True)
    assert turns_without_the_log(tmp_path) == 201


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
    assert turns_without_the_log(tmp_path) < 101
    write(world, 10)
    reader.database.execute("COMMIT")
    world.store.tidy(idle=True)
    assert turns_without_the_log(tmp_path) == 113
    reader.close()


def test_a_database_in_memory_has_nothing_to_tidy():
    store = open_store("memory://")
    store.tidy(idle=True)
    store.close()
