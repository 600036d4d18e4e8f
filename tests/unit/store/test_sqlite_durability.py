"""What was acknowledged is there: after a crash, a torn log, a full disk and a lost answer."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.contract.store_contract import World, request, turn, waiting
from tests.unit.store.processes import Script

from perdure.errors import Corrupt, StoreRefused, Unavailable
from perdure.store.opening import open_store
from perdure.store.port import Post
from perdure.store.sqlite.connect import Settings
from perdure.store.sqlite.store import SqliteStore

WRITER = """
import sys
from pathlib import Path
from tests.contract.store_contract import OPENERS, World, turn
world = World(OPENERS["file"](Path(sys.argv[1])))
run = world.owned().run
for first in range(3, 53):
    world.commit(turn(run, first=first, payload=(b"event %d " % first).ljust(300, b"x")))
    print(first, flush=True)
connection = world.store.database.connection
connection.execute("PRAGMA cache_size=10")
connection.execute("BEGIN IMMEDIATE")
for first in range(53, 153):
    connection.execute(
        "INSERT INTO perdure_history (run, first, count, time, applied, worker, crc, payload) "
        "VALUES (?, ?, 1, 1, 1, 1, 1, zeroblob(4000))", (run, first))
print("spilled", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def crashed(tmp_path: Path) -> Path:
    """A database whose writer was killed: 50 acknowledged commits, and half of another."""
    with Script(WRITER, tmp_path) as script:
        acknowledged = [script.line() for _ in range(50)]
        assert acknowledged[-1] == "52"
        assert script.line() == "spilled"
    return tmp_path


def last_event(folder: Path) -> int:
    store = open_store(f"sqlite:///{folder}/perdure.db")
    try:
        store.migrate(1)
        [found] = store.load([1])
        assert found.broken == "" or "checksum" not in found.broken
        [check] = store.database.execute("PRAGMA integrity_check").fetchone()
        assert check == "ok"
        return found.turns[-1].first
    finally:
        store.close()


def test_acknowledged_commits_outlive_a_kill(crashed: Path):
    assert last_event(crashed) == 52


@pytest.mark.parametrize("cut", [1, 24, 2_000, 4_120, 9_999])
def test_a_log_cut_off_in_the_frames_of_an_unfinished_commit_loses_nothing(crashed: Path, cut: int):
    log = crashed / "perdure.db-wal"
    log.write_bytes(log.read_bytes()[:-cut])
    assert last_event(crashed) == 52


@pytest.mark.parametrize("tail", [b"garbage", b"\0" * 5_000, bytes(range(256)) * 40])
def test_garbage_at_the_end_of_the_log_changes_nothing(crashed: Path, tail: bytes):
    log = crashed / "perdure.db-wal"
    log.write_bytes(log.read_bytes() + tail)
    assert last_event(crashed) == 52


def test_a_cut_into_acknowledged_frames_would_be_seen_by_this_test(crashed: Path):
    log = crashed / "perdure.db-wal"
    data = log.read_bytes()
    log.write_bytes(data[: data.index(b"event 30 ")])
    assert last_event(crashed) == 29


class Failing(sqlite3.Connection):
    """Fails statements that begin with ``on``, once, before or after they are carried out."""

    on = ""
    is_done_first = False

    def execute(self, sql: str, *parameters: object) -> sqlite3.Cursor:  # type: ignore[override]
        if Failing.on and sql.startswith(Failing.on):
            Failing.on = ""
            if Failing.is_done_first:
                super().execute(sql, *parameters)  # type: ignore[arg-type]
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR  # type: ignore[misc]
            raise error
        return super().execute(sql, *parameters)  # type: ignore[arg-type]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    Failing.on = ""
    world = World(SqliteStore(Settings(str(tmp_path / "a.db"), factory=Failing)))
    yield world
    Failing.on = ""
    world.store.close()


@pytest.mark.parametrize("was_written", [True, False])
def test_a_commit_whose_answer_is_lost_is_in_doubt_and_can_be_resolved(
    world: World, was_written: bool
):
    run = world.owned().run
    batch = world.batch(turn(run))
    Failing.on, Failing.is_done_first = "COMMIT", was_written
    with pytest.raises(Unavailable, match="may or may not"):
        world.store.commit(batch)
    number = batch.number if was_written else batch.number - 1
    assert world.store.resolve(world.worker.id, world.worker.epoch) == number
    assert len(world.payloads(run)) == (2 if was_written else 1)
    world.commit(turn(run, first=4 if was_written else 3))


def test_a_disk_error_before_the_commit_writes_nothing_and_the_next_verb_works(world: World):
    run = world.owned().run
    before = world.store.database.connection  # type: ignore[attr-defined]
    Failing.on = "INSERT INTO perdure_history"
    with pytest.raises(Unavailable):
        world.commit(turn(run))
    assert len(world.payloads(run)) == 1
    assert world.store.database.connection is not before  # type: ignore[attr-defined]
    world.commit(turn(run))
    assert len(world.payloads(run)) == 2


def test_a_disk_error_while_the_lock_is_taken_is_unavailable(world: World):
    run = world.owned().run
    Failing.on = "BEGIN"
    with pytest.raises(Unavailable):
        world.commit(turn(run))
    world.commit(turn(run))


def test_a_full_disk_is_unavailable_and_writes_nothing(world: World):
    run = world.owned().run
    database = world.store.database  # type: ignore[attr-defined]
    pages = database.execute("PRAGMA page_count").fetchone()[0]
    database.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(Unavailable, match="full"):
        world.commit(turn(run, payload=b"x" * 100_000))
    database.execute("PRAGMA max_page_count=1000000")
    assert len(world.payloads(run)) == 1
    world.commit(turn(run))


def test_a_payload_over_the_databases_limit_is_refused(world: World):
    run = world.owned().run
    connection = world.store.database.connection  # type: ignore[attr-defined]
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 10_000)
    with pytest.raises(StoreRefused):
        world.commit(turn(run, payload=b"x" * 20_000))
    world.commit(turn(run))


def test_a_number_that_no_column_can_hold_is_refused(world: World):
    run = world.owned().run
    with pytest.raises(StoreRefused):
        world.commit(turn(run, time=2**63))
    assert len(world.payloads(run)) == 1


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (
            "UPDATE perdure_history SET payload = x'00' WHERE run = ? AND first = 3",
            "the row of event 3",
        ),
        ("DELETE FROM perdure_history WHERE run = ? AND first = 3", "events 3 to 3 are missing"),
        ("DELETE FROM perdure_history WHERE run = ? AND first = 1", "events 1 to 2 are missing"),
        ("DELETE FROM perdure_history WHERE run = ? AND first = 4", "ends with event 3; 4 events"),
        ("DELETE FROM perdure_history WHERE run = ?", "ends with event 0; 4 events"),
    ],
)
def test_a_damaged_history_is_named_and_the_other_runs_load(world: World, damage: str, says: str):
    bad, good = world.asleep("bad").run, world.asleep("good").run
    world.commit(turn(bad, claim=2, state=waiting(3)))
    world.commit(turn(bad, first=4, claim=3, state=waiting(4)))
    world.store.database.execute(damage, (bad,))  # type: ignore[attr-defined]
    loaded = {found.row.run: found for found in world.store.load([bad, good])}
    assert says in loaded[bad].broken
    assert "run-of-bad" in loaded[bad].broken
    assert loaded[good].broken == ""
    assert len(loaded[good].turns) == 1


def test_a_damaged_file_is_corrupt(tmp_path: Path):
    store = open_store(f"sqlite:///{tmp_path}/a.db")
    world = World(store)
    for n in range(50):
        world.owned(f"order-{n}")
    store.close()
    path = tmp_path / "a.db"
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xa5" * (len(data) - 4096)
    path.write_bytes(bytes(data))
    with pytest.raises(Corrupt, match="Restore a backup"):
        open_store(f"sqlite:///{path}")


def test_a_refused_batch_leaves_the_guess_of_the_next_run_right(world: World):
    world.start("one", run_id="taken")
    with pytest.raises(StoreRefused):
        world.commit(starts=[request("two", run_id="taken")])
    started = world.commit(starts=[request("two")]).started[0]
    assert world.row(started.run).workflow_id == "two"
    assert world.store.post([Post(b"x", "two")], 1)[0].run == started.run
