"""A worker ends in the middle of an activity, an update, a transaction, a pause, a turn."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from tests.crash.processes import Place, kill

from perdure import Client, Status
from perdure.errors import Unavailable
from perdure.handle import Handle
from perdure.values.duration import microseconds

WORKER = """
import asyncio, sys
from perdure import Engine
from tests.crash import lost

async def main():
    _, url, name, lease, limit = sys.argv
    async with Engine(url, [lost], name=name, lease=lease, turn_limit=limit):
        print("ready", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@contextmanager
def _worker(
    place: Place, name: str, *, lease: str = "10s", turn_limit: str = "10s", code: str = WORKER
) -> Iterator[subprocess.Popen[str]]:
    process = place.start(code, name, lease, turn_limit)
    try:
        yield process
    finally:
        kill(process)


async def _lines(place: Place, count: int) -> list[list[str]]:
    async with asyncio.timeout(30):
        while len(place.lines()) < count:
            await asyncio.sleep(0.005)  # sleep: polls a file that another process writes
    return place.lines()


async def _reach(handle: Handle[Any], status: Status) -> None:
    async with asyncio.timeout(30):
        while await handle.status() is not status:
            await asyncio.sleep(0.01)  # sleep: polls what another process writes


async def _ended(process: subprocess.Popen[str]) -> int:
    async with asyncio.timeout(30):
        while process.poll() is None:
            await asyncio.sleep(0.01)  # sleep: polls for the end of another process
    return process.wait()


async def _of_kind(handle: Handle[Any], kind: str) -> list[dict[str, Any]]:
    return [event.data for event in await handle.history() if event.kind == kind]


def _select(place: Place, sql: str) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(place.url.removeprefix("sqlite:///"))
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


# -- activities --------------------------------------------------------------------------------


async def test_heartbeat_details_reach_the_attempts_after_a_kill_until_there_are_newer_ones(
    tmp_path: Path,
):
    place = Place(tmp_path)
    async with Client(place.url) as client:
        with _worker(place, "first", lease="600ms"):
            handle = await client.start("beating", id="b")
            await _lines(place, 1)
            async with asyncio.timeout(20):
                while not _select(place, "select details from perdure_beat"):
                    await asyncio.sleep(0.01)  # sleep: polls what another process writes
        with _worker(place, "second", lease="600ms"):
            await _lines(place, 2)  # this attempt says nothing of itself
        with _worker(place, "third", lease="600ms"):
            assert await handle.result("20s") == "from 7"
        lost = await _of_kind(handle, "attempt_lost")
        assert [(event["attempt"], event["heartbeat"]) for event in lost] == [
            (1, {"at": 7}),
            (2, {"at": 7}),
        ]
    assert [line[:3] for line in place.lines()] == [
        ["beat", "1", "None"],
        ["beat", "2", "7"],
        ["beat", "3", "7"],
    ]


# Where the worker is killed: inside user code, before the commit, after it.
KILLED = {
    "inside": WORKER,
    "before": """
import os, signal
from perdure.store.sqlite import transaction
real = transaction._record

def record(*args):
    real(*args)
    os.kill(os.getpid(), signal.SIGKILL)

transaction._record = record
"""
    + WORKER,
    "after": """
import os, signal
from perdure.store.sqlite.store import SqliteStore
real = SqliteStore.transact

def transact(self, *args, **options):
    real(self, *args, **options)
    os.kill(os.getpid(), signal.SIGKILL)

SqliteStore.transact = transact
"""
    + WORKER,
}


@pytest.mark.parametrize("moment", KILLED)
async def test_a_transaction_that_a_kill_cuts_off_is_written_once_in_the_end(
    tmp_path: Path, moment: str
):
    place = Place(tmp_path)
    async with Client(place.url) as client:
        with _worker(place, "first", code=KILLED[moment]) as first:
            handle = await client.start("booking", moment == "inside", id="b")
            await _lines(place, 1)
            if moment == "inside":
                assert _select(place, "select 1 from sqlite_master where name = 'ledger'") == []
                kill(first)
            await _ended(first)
        is_written = moment == "after"
        tables = _select(place, "select 1 from sqlite_master where name = 'ledger'")
        assert bool(tables) is is_written, "all of it, or nothing"
        assert await _of_kind(handle, "activity_completed") == []
        with _worker(place, "second"):
            attempt = 1 if is_written else 2
            assert await handle.result("20s") == attempt
        assert _select(place, "select attempt from ledger") == [(attempt,)]
        assert _select(place, "select * from perdure_open_tx") == []
        lost = await _of_kind(handle, "attempt_lost")
        assert [event["attempt"] for event in lost] == ([] if is_written else [1])
        assert len(await _of_kind(handle, "activity_completed")) == 1
    assert len(place.lines()) == attempt


DIES_IN_PAUSE = (
    """
import logging, os, signal

class Dies(logging.Handler):
    def emit(self, record):
        if "tried again in" in record.getMessage():
            os.kill(os.getpid(), signal.SIGKILL)

logging.getLogger("perdure.runs").addHandler(Dies())
"""
    + WORKER
)


async def test_a_kill_in_the_pause_before_a_retry_neither_hastens_it_nor_counts(tmp_path: Path):
    # That it does not delay it either: tests/engine/test_handover.py, in virtual time.
    place = Place(tmp_path)
    async with Client(place.url) as client:
        # Its lease ends before the pause: however late the next worker comes, nothing has begun.
        with _worker(place, "first", lease="1s", code=DIES_IN_PAUSE) as first:
            handle = await client.start("retrying", id="r")
            assert await _ended(first) == -9
        [failed] = await _of_kind(handle, "attempt_failed")
        with _worker(place, "second"):
            assert await handle.result("20s") == 2
        assert await _of_kind(handle, "attempt_lost") == []
    lines = place.lines()
    assert [line[1] for line in lines] == ["1", "2"]
    assert lines[0][-1] != lines[1][-1], "another process went on"
    assert failed["retry_at"] <= int(lines[1][2])


async def test_a_retry_that_was_due_after_its_dead_workers_lease_is_not_lost(tmp_path: Path):
    place = Place(tmp_path)
    async with Client(place.url) as client:
        with _worker(place, "first", lease="1s", code=DIES_IN_PAUSE) as first:
            handle = await client.start("retrying", id="r")
            assert await _ended(first) == -9
        [failed] = await _of_kind(handle, "attempt_failed")
        async with asyncio.timeout(20):
            while time.time_ns() // 1000 <= failed["retry_at"]:
                await asyncio.sleep(0.05)  # sleep: nobody runs while the pause goes by
        with _worker(place, "second"):
            # Of two attempts that the policy allows, one has begun.
            assert await handle.result("20s") == 2
        assert await _of_kind(handle, "attempt_lost") == []


# -- questions ---------------------------------------------------------------------------------


async def test_an_update_whose_worker_was_killed_ends_once_and_its_first_answer_stands(
    tmp_path: Path,
):
    place = Place(tmp_path)
    async with Client(place.url) as client:
        with _worker(place, "first"):
            handle = await client.start("account", 5, id="a")
            adding = asyncio.create_task(handle.update("add", 2, id="once", timeout="30s"))
            await _lines(place, 1)
            assert await handle.query("value") == 5
        with pytest.raises(Unavailable):
            await handle.query("value", timeout="100ms")
        assert not adding.done()
        with _worker(place, "second"):
            assert await adding == 7, "whoever asked the first worker hears from the second"
            assert await handle.update("add", 2, id="once") == 7
            assert await handle.update("add", 1, id="another") == 8
            assert await handle.query("value") == 8
        with _worker(place, "third"):
            assert await handle.query("value") == 8
            assert await handle.update("add", 2, id="once") == 7
        for kind in ("update_accepted", "update_completed"):
            events = await _of_kind(handle, kind)
            assert [event["update"] for event in events] == ["once", "another"]
    assert [line[:2] for line in place.lines()] == [["add", "1"], ["add", "2"], ["add", "1"]]


# -- long turns --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lease", "has_company"),
    [
        pytest.param("8s", True, id="8s"),  # it may stand still for five
        pytest.param("600ms", False, id="600ms"),
    ],
)
async def test_a_turn_longer_than_the_lease_does_not_lose_its_run(
    tmp_path: Path, lease: str, has_company: bool
):
    place = Place(tmp_path)
    second = _worker(place, "second", lease="60s") if has_company else nullcontext()
    async with Client(place.url) as client:
        with _worker(place, "first", lease=lease, turn_limit="60s"):
            handle = await client.start("blocking_until_released", id="b")
            await _lines(place, 1)
            with second:
                before = {worker.name: worker.id for worker in await client.workers()}
                await _outlived(place, lease)
                (tmp_path / "release").touch()
                assert await handle.result("20s") == "let go"
                assert {worker.name: worker.id for worker in await client.workers()} == before
        owners = {event.worker for event in await handle.history() if event.id > 1}
        assert owners == {before["first"]}
    assert len(place.lines()) == 1, "the turn was taken once"


async def _outlived(place: Place, lease: str) -> None:
    """Wait until the first worker has got a lease that begins where the one it has ends."""
    sql = "select lease_until from perdure_worker where name = 'first'"
    [(until,)] = _select(place, sql)
    until += microseconds(lease)
    async with asyncio.timeout(60):
        while _select(place, sql) < [(until,)]:
            await asyncio.sleep(0.02)  # sleep: polls what another process writes


@pytest.mark.parametrize(
    "name",
    [
        "blocking_at_once",
        "blocking_later",
    ],
)
async def test_a_turn_that_cannot_be_interrupted_ends_its_worker_and_after_two_it_is_parked(
    tmp_path: Path, name: str
):
    place = Place(tmp_path)
    async with Client(place.url) as client:
        stuck = bystander = None
        for count in (1, 2):
            with _worker(place, f"worker-{count}", turn_limit="500ms") as process:
                if stuck is None or bystander is None:
                    bystander = await client.start("fine", id="bystander")
                    await _reach(bystander, Status.WAITING)
                    stuck = await client.start(name, 60, id="stuck")
                assert await _ended(process) == 70
            suspected = (
                "select workflow_id, suspected from perdure_run join perdure_state using (run)"
            )
            assert dict(_select(place, suspected)) == {"bystander": 0, "stuck": count}
        assert stuck is not None
        assert bystander is not None
        assert len(place.lines()) == 2
        with _worker(place, "worker-3", turn_limit="500ms") as process:
            await _reach(stuck, Status.PARKED)
            described = await stuck.describe()
            assert described.reason == "suspect"
            assert "2 workers ended" in (described.detail or "")
            assert "find out what holds the worker" in await stuck.why()
            await bystander.send("go")
            assert await bystander.result("20s") == 1
            assert process.poll() is None, "this worker goes on"
            assert len(place.lines()) == 2, "the turn was not tried a third time"
            (tmp_path / "release").touch()
            assert await stuck.unpark()
            assert await stuck.result("20s") == "let go"
