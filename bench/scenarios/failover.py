"""Two workers on one file; one is killed in the middle of its work."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from harness import BenchError, Figure, database, scenario, spawn, until
from perdure import Engine, Retry, activity, workflow

RUNS = 10
FOREVER = 100_000
LEASE_SECONDS = 3


@activity.define(retry=Retry(interval="10ms"))
async def tick(folder: str) -> None:
    """Note who ran this and when, by a clock that all processes share."""
    line = f"{activity.info().workflow_id} {time.monotonic()}\n"
    with (Path(folder) / f"{os.getpid()}.ticks").open("a") as file:
        file.write(line)
    await asyncio.sleep(0.01)


@workflow.define
async def ticking(folder: str) -> None:
    """Tick without end."""
    for _ in range(FOREVER):
        await tick(folder)


def _engine(folder: Path) -> Engine:
    return Engine(database(folder), definitions=[ticking], lease=LEASE_SECONDS)


async def holder(folder: Path) -> dict[str, float]:
    """Start the runs and serve them until killed."""
    async with _engine(folder) as engine:
        for number in range(RUNS):
            await engine.client.start(ticking, str(folder), id=f"run-{number}")
        await asyncio.Event().wait()
    return {}


async def stand_by(folder: Path) -> dict[str, float]:
    """Serve what there is to serve until killed."""
    async with _engine(folder):
        (folder / "standing-by").touch()
        await asyncio.Event().wait()
    return {}


def _ticks(folder: Path, pid: int) -> Iterator[tuple[str, float]]:
    """Yield (workflow id, time) of a process's ticks so far."""
    file = folder / f"{pid}.ticks"
    for line in file.read_text().splitlines() if file.exists() else ():
        name, _, moment = line.partition(" ")
        if moment:
            yield name, float(moment)


@scenario(
    Figure("until all go on", "s", at_most=1.0),
    # There a dead worker is known by its lease alone.
    postgres=[Figure("until all go on", "s", at_most=LEASE_SECONDS + 1)],
)
async def failover(folder: Path) -> dict[str, float]:
    """From SIGKILL of a worker until each of its 10 runs has gone on in another process."""
    other = spawn("scenarios.failover:stand_by", folder)
    try:
        await until(lambda: _is_standing_by(folder, other))
        victim = spawn("scenarios.failover:holder", folder)
        try:
            await until(lambda: _all_tick(folder, victim))
            await asyncio.sleep(0.5)
        finally:
            killed = time.monotonic()
            victim.send_signal(signal.SIGKILL)
            victim.wait()
        await until(lambda: _all_tick(folder, other))
        moved: dict[str, float] = {}
        for name, moment in _ticks(folder, other.pid):
            moved.setdefault(name, moment)
        return {"until all go on": max(moved.values()) - killed}
    finally:
        other.kill()
        other.wait()


async def _is_standing_by(folder: Path, process: subprocess.Popen[str]) -> bool:
    _check(process)
    return await asyncio.to_thread((folder / "standing-by").exists)


async def _all_tick(folder: Path, process: subprocess.Popen[str]) -> bool:
    _check(process)
    return len({name for name, _ in _ticks(folder, process.pid)}) == RUNS


def _check(process: subprocess.Popen[str]) -> None:
    """Raise what ended the process, if something did."""
    if process.poll() is not None:
        raise BenchError(process.communicate()[1])
