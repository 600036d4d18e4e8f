"""Several processes at one database: nobody sees "locked", and the dead are found out."""

import itertools
import logging
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.contract.store_contract import World
from tests.unit.store.processes import Script

from perdure.errors import Unavailable
from perdure.store.opening import open_store
from perdure.store.sqlite import database
from perdure.store.sqlite.connect import Settings
from perdure.store.sqlite.store import SqliteStore

START_MANY = """
import sys, threading, time
from perdure.store.opening import open_store
from tests.contract.store_contract import request
name, url = sys.argv[1], sys.argv[2]
stood = 0

def watch():
    # What this process stood still, which is nobody's fault here.
    global stood
    while True:
        before = time.monotonic()
        time.sleep(0.01)  # sleep: shows when this process stands still
        late = time.monotonic() - before
        stood += late if late > 0.1 else 0

threading.Thread(target=watch, daemon=True).start()
store = open_store(url)
store.migrate(1)
longest = 0
for n in range(200):
    before = time.monotonic()
    store.start([request(f"{name}-{n}")], 1)
    longest = max(longest, time.monotonic() - before)
    store.changed()
print(longest, stood, flush=True)
store.close()
"""

JOIN = """
import sys
from pathlib import Path
from tests.contract.store_contract import OPENERS, World
world = World(OPENERS["file"](Path(sys.argv[1])))
world.owned()
print(world.worker.id, flush=True)
if sys.stdin.readline().strip() == "leave":
    world.store.leave(world.worker.id, world.worker.epoch, 5)
    world.store.close()
"""

HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.readline()
connection.execute("ROLLBACK")
print("free", flush=True)
sys.stdin.readline()
"""

FORK = """
import os, sys
from pathlib import Path
from perdure.errors import UsageError
from tests.contract.store_contract import OPENERS, World
world = World(OPENERS[sys.argv[2]](Path(sys.argv[1])))
world.start()
child = os.fork()
if child == 0:
    said = []
    for verb in (world.store.workers, lambda: world.start("other"), world.store.changed):
        try:
            verb()
        except UsageError as exc:
            said.append("after the fork" in exc.message)
    world.store.close()
    os._exit(0 if said == [True, True, True] else 1)
_, status = os.waitpid(child, 0)
print("refused" if status == 0 else "used")
print("alive" if world.store.workers()[0].alive_for_sure else "dead")
world.start("after")
world.store.close()
"""

FORK_AND_DIE = """
import os, signal, sys
from pathlib import Path
from tests.contract.store_contract import OPENERS, World
world = World(OPENERS["file"](Path(sys.argv[1])))
reading, writing = os.pipe()
child = os.fork()
if child == 0:
    os.close(writing)
    print("forked", flush=True)
    sys.stdin.readline()
    os._exit(0)
sys.stdin.readline()
"""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(open_store(f"sqlite:///{tmp_path}/perdure.db"))
    yield world
    world.store.close()


def test_writers_of_several_processes_never_see_a_lock(tmp_path: Path):
    url = f"sqlite:///{tmp_path}/perdure.db"
    scripts = [Script(START_MANY, name, url) for name in ("one", "two", "three")]
    told = [[float(word) for word in script.finish()] for script in scripts]
    store = open_store(url)
    assert len(store.database.execute("SELECT run FROM perdure_run").fetchall()) == 600
    store.close()
    longest, stood = max(one[0] for one in told), sum(one[1] for one in told)
    assert longest - stood < 2, "one waits for whoever has the file, also if that stands still"


def test_a_worker_that_is_killed_is_dead_for_sure_at_once(tmp_path: Path, world: World):
    with Script(JOIN, tmp_path) as script:
        other = int(script.line())
        alive = {row.id: row.alive_for_sure for row in world.store.workers()}
        assert alive == {world.worker.id: True, other: True}
        script.kill()
        alive = {row.id: row.alive_for_sure for row in world.store.workers()}
        assert alive == {world.worker.id: True, other: False}
    side_file = tmp_path / f"perdure.db-worker-{other}"
    assert side_file.exists()
    assert world.store.take_over(other, 1, world.now)
    assert not side_file.exists()
    assert len(world.store.claimable(["order"], ["default"], limit=9)) == 1


def test_a_worker_whose_lock_file_is_missing_is_dead(tmp_path: Path, world: World):
    other = World(open_store(f"sqlite:///{tmp_path}/perdure.db"))
    (tmp_path / f"perdure.db-worker-{other.worker.id}").unlink()
    assert [row.alive_for_sure for row in world.store.workers()] == [True, False]
    other.store.close()


def test_a_worker_that_leaves_takes_its_lock_file_along(tmp_path: Path, world: World):
    with Script(JOIN, tmp_path) as script:
        other = int(script.line())
        script.tell("leave")
        script.finish()
    assert not (tmp_path / f"perdure.db-worker-{other}").exists()
    assert [row.id for row in world.store.workers()] == [world.worker.id]


def test_a_closed_store_gives_its_locks_back(tmp_path: Path):
    world = World(open_store(f"sqlite:///{tmp_path}/perdure.db"))
    world.store.close()
    assert list(tmp_path.glob("*-worker-*")) == []


def test_a_child_that_outlives_its_parent_does_not_keep_the_parents_lock(
    tmp_path: Path, world: World
):
    with Script(FORK_AND_DIE, tmp_path) as script:
        assert script.line() == "forked"
        script.process.kill()
        script.process.wait()
        other = max(row.id for row in world.store.workers())
        alive = {row.id: row.alive_for_sure for row in world.store.workers()}
        assert alive[other] is False


@pytest.mark.parametrize("kind", ["file", "memory"])
def test_a_store_is_refused_in_a_forked_process_and_goes_on_in_its_own(tmp_path: Path, kind: str):
    with Script(FORK, tmp_path, kind) as script:
        assert script.finish() == ["refused", "alive"]


def test_a_lock_that_is_held_for_long_is_reported_with_its_holder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    path = tmp_path / "perdure.db"
    clock = itertools.count(0, 0.01)  # a real one could leap over the time to warn
    time = SimpleNamespace(monotonic=lambda: next(clock), sleep=lambda _: None)
    monkeypatch.setattr(database, "time", time)
    store = SqliteStore(Settings(str(path), warn_after=0.05, give_up_after=0.3))
    store.migrate(1)
    with Script(HOLD, path) as script:
        assert script.line() == "held"
        script.signal(signal.SIGSTOP)
        with (
            caplog.at_level(logging.WARNING, "perdure.store"),
            pytest.raises(Unavailable, match=rf"pid {script.pid} \(.*, stopped\)"),
        ):
            World(store)
        assert any(f"pid {script.pid}" in record.getMessage() for record in caplog.records)
        script.signal(signal.SIGCONT)
        script.tell()
        assert script.line() == "free"
        assert World(store).start().created
    store.close()


def test_this_process_is_named_when_it_holds_the_lock_itself(tmp_path: Path):
    import sqlite3

    path = tmp_path / "perdure.db"
    store = SqliteStore(Settings(str(path), warn_after=0.05, give_up_after=0.1))
    store.migrate(1)
    own = sqlite3.connect(path, isolation_level=None)
    own.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable, match=r"locked for \d+ s, held by this process"):
        store.post([], 1)
    own.close()
    store.close()


def test_commits_of_others_are_noticed_and_own_ones_are_not(tmp_path: Path, world: World):
    other = World(open_store(f"sqlite:///{tmp_path}/perdure.db"))
    world.store.changed()
    world.start("mine")
    assert world.store.changed() is False
    other.start("theirs")
    assert world.store.changed() is True
    assert world.store.changed() is False
    other.store.close()


def test_run_numbers_do_not_collide_with_those_another_process_gave(tmp_path: Path, world: World):
    other = World(open_store(f"sqlite:///{tmp_path}/perdure.db"))
    runs = [(world if n % 2 else other).owned(f"order-{n}").run for n in range(6)]
    assert len(set(runs)) == 6
    assert [world.row(run).workflow_id for run in runs] == [f"order-{n}" for n in range(6)]
    other.store.close()
