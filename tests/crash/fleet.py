"""Workers on one PostgreSQL database, and what must be true of what they leave."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import psycopg
from tests.crash.processes import Place, kill, steps_of
from tests.crash.programs import STEPS

from perdure import Client
from perdure.errors import Unavailable
from perdure.handle import Handle

T = TypeVar("T")
LEASE = 8.0
"""Seconds: longer than a process stands still on a busy machine, with a third of it gone."""

WORKER = """
import asyncio, sys
from perdure import Engine
from tests.crash import programs

async def main():
    url, name, lease, *queues = sys.argv[1:]
    engine = Engine(url, [], name=name, lease=lease, task_queues=queues or ["default"])
    for name in ("step", "ten_steps", "patient", "echo", "faraway"):
        engine.register(getattr(programs, name))
    engine.register(programs.guarded, max_concurrent=50, on_limit="queue")
    async with engine:
        # Said when the signals are listened to.
        asyncio.get_running_loop().call_soon(lambda: print("ready", flush=True))
        await engine.run()

asyncio.run(main())
"""

LEFT_BEHIND = {
    "workers that hold a lease": "SELECT name FROM perdure.perdure_worker WHERE state = 'live'",
    "runs with an owner": "SELECT run FROM perdure.perdure_state WHERE owner IS NOT NULL",
    "slots": "SELECT execution FROM perdure.perdure_slot",
    "inbox rows": "SELECT id FROM perdure.perdure_inbox",
    "heartbeats": "SELECT run FROM perdure.perdure_beat",
    "transactional activities": "SELECT run FROM perdure.perdure_open_tx",
    "runs that have not ended": "SELECT run, reason FROM perdure.perdure_state WHERE status < 5",
}


class Fleet:
    """Worker processes by their names, on one database, with one effects log."""

    def __init__(self, folder: Path, url: str, *, lease: float = LEASE) -> None:
        self.place = Place(folder, url)
        self.folder = folder
        self.url = url
        self.lease = lease
        self.processes: dict[str, subprocess.Popen[str]] = {}

    async def start(
        self, *names: str, url: str = "", queues: Sequence[str] = (), code: str = WORKER
    ) -> None:
        """Start workers at the same time, and return when all have joined."""
        place = Place(self.folder, url or self.url)
        lease = f"{int(self.lease * 1000)}ms"

        def begin(name: str) -> subprocess.Popen[str]:
            return place.start(code, name, lease, *(queue.format(name) for queue in queues))

        found = await asyncio.gather(*(asyncio.to_thread(begin, name) for name in names))
        self.processes.update(zip(names, found, strict=True))

    def signal(self, name: str, number: signal.Signals) -> None:
        self.processes[name].send_signal(number)

    def kill(self, name: str) -> None:
        kill(self.processes.pop(name))

    async def stop(self, *names: str) -> None:
        """SIGTERM these workers, or all; each ends by itself, with code 0."""
        chosen = {name: self.processes.pop(name) for name in names or list(self.processes)}
        for process in chosen.values():
            process.send_signal(signal.SIGTERM)
        await asyncio.gather(*(asyncio.to_thread(one.wait, 60) for one in chosen.values()))
        assert {name: kill(process) for name, process in chosen.items()} == dict.fromkeys(chosen, 0)

    @contextmanager
    def killed_at_the_end(self) -> Iterator[Fleet]:
        """Leave no process behind, whatever happens."""
        try:
            yield self
        finally:
            for process in self.processes.values():
                kill(process)

    def lines(self) -> list[list[str]]:
        return self.place.lines()

    async def lines_come(self, count: int) -> None:
        """Wait for so many more effects; steps then wait for `go_on`, however late we look."""
        count += len(self.lines())
        self.place.limit(count)
        await self.until(lambda: len(self.lines()) >= count)

    def go_on(self) -> None:
        self.place.unlimit()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Poll what other processes do."""
        async with asyncio.timeout(60):
            while not await asyncio.to_thread(holds):
                await asyncio.sleep(0.01)  # sleep: polls what other processes do

    def select(self, sql: str, *parameters: object) -> list[Any]:
        """Ask the database, past any proxy."""
        with psycopg.connect(self.url, autocommit=True, connect_timeout=10) as connection:
            return connection.execute(sql.encode(), parameters or None).fetchall()

    def id_of(self, name: str) -> int:
        """Return the number of the live worker of this name."""
        sql = "SELECT id FROM perdure.perdure_worker WHERE name = %s AND state = 'live'"
        [(found,)] = self.select(sql, name)
        return int(found)

    def has_joined(self, name: str) -> bool:
        """Tell whether there is a live worker of this name."""
        sql = "SELECT id FROM perdure.perdure_worker WHERE name = %s AND state = 'live'"
        return bool(self.select(sql, name))

    def has_no_ghosts(self) -> bool:
        """Tell whether nobody but the processes that are there holds a lease."""
        sql = "SELECT name FROM perdure.perdure_worker WHERE state = 'live'"
        return {name for (name,) in self.select(sql)} <= set(self.processes)

    def is_dead(self, worker: int) -> bool:
        """Tell whether another has taken over the runs of this worker."""
        sql = "SELECT id FROM perdure.perdure_worker WHERE id = %s AND state = 'dead'"
        try:
            return bool(self.select(sql, worker))
        except psycopg.OperationalError:
            return False  # the server is being restarted

    def is_stopped(self, name: str) -> bool:
        """Tell whether the process stands still."""
        done = os.waitid(os.P_PID, self.processes[name].pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT)
        return done is not None and done.si_code == os.CLD_STOPPED

    def owned_by(self, worker: int) -> int:
        """Return how many runs are this worker's."""
        sql = "SELECT count(*) FROM perdure.perdure_state WHERE owner = %s"
        return int(self.select(sql, worker)[0][0])

    def check_nothing_is_left(self) -> None:
        found = {what: rows for what, sql in LEFT_BEHIND.items() if (rows := self.select(sql))}
        assert found == {}, found


async def start_runs(
    client: Client, count: int, *, workflow: str = "ten_steps", prefix: str = "r"
) -> list[Handle[Any]]:
    names = [f"{prefix}{n}" for n in range(count)]
    return list(await asyncio.gather(*(client.start(workflow, each, id=each) for each in names)))


async def results_of(client: Client, handles: Sequence[Handle[Any]], seconds: float) -> list[Any]:
    """Wait for all results. What is parked after three losses in a row is asked to go on."""

    async def unpark() -> None:
        while True:
            try:
                for run in (await client.list(status="parked", limit=1000)).items:
                    assert run.reason == "worker_lost", f"{run.id}: {run.reason} {run.detail}"
                    await client.get(run.id).unpark()
            except Unavailable:
                pass  # the server is being restarted
            await asyncio.sleep(0.2)  # sleep: polls, within the limit of the results

    asking = asyncio.create_task(unpark())
    waiting = asyncio.gather(*(handle.result() for handle in handles))
    async with asyncio.timeout(seconds):
        await asyncio.wait([asking, waiting], return_when=asyncio.FIRST_COMPLETED)
    if not waiting.done():
        waiting.cancel()
        await asking  # it has failed
    asking.cancel()
    return list(await waiting)


async def patiently(call: Callable[[], Awaitable[T]]) -> T:
    """Ask again while the server is away."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await call()
            except Unavailable:
                await asyncio.sleep(0.1)  # sleep: polls until the server is there


async def check_histories(fleet: Fleet, handles: Sequence[Handle[Any]]) -> int:
    """Every step was recorded once, and no attempt began after that; return how many were lost."""
    effects = steps_of(fleet.lines())
    lost = 0
    for handle in handles:
        scheduled: dict[int, int] = {}
        recorded: dict[int, int] = {}
        events = await patiently(handle.history)
        assert [event.id for event in events] == list(range(1, len(events) + 1))
        for event in events:
            if event.kind == "activity_scheduled":
                scheduled[event.id] = event.data["args"][1]
            elif event.kind == "activity_completed":
                number = scheduled[event.data["activity"]]
                assert number not in recorded, "an outcome was recorded twice"
                recorded[number] = event.data.get("attempt", 1)
            lost += event.kind == "attempt_lost"
        assert sorted(recorded) == list(range(STEPS))
        for number, attempt in recorded.items():
            lines = effects[handle.id, number]
            attempts = [int(line[3]) for line in lines]
            assert max(attempts) == attempt, f"{handle.id}: recorded step {number} ran again"
            assert len({line[4] for line in lines}) == 1, "attempts differ in their key"
            assert len(attempts) == len(set(attempts)), f"{handle.id}: an attempt ran twice"
    return lost


def size(name: str, default: float) -> float:
    """Return a size that the environment may change: ``PERDURE_FLEET_`` and its name."""
    return float(os.environ.get(f"PERDURE_FLEET_{name}", default))
