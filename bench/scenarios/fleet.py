"""Workers on one PostgreSQL server: what a second one adds, how many wake, what idling costs."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import time
from pathlib import Path
from typing import Any

from harness import BenchError, Figure, database, measure, scenario, spawn, until
from perdure import Engine, workflow
from scenarios.programs import engine_in, steps

RUNS, STEPS = 1_000, 10
WARM_UP = 100
WORKERS = 2
BLOCKED, WOKEN = 100_000, 1_000
AT_ONCE = 1_000
IDLE_RUNS = 1_000
SETTLE_SECONDS = 15.0
"""The first look at what is to be deleted comes 10 s after a start, then once an hour."""
IDLE_SECONDS = 20.0


# -- a second worker -------------------------------------------------------------------------------


async def worker(folder: Path) -> dict[str, float]:
    """Run 1,000 workflows of 10 steps at once when told to; note when, and the processor time."""
    async with engine_in(folder) as engine:
        await asyncio.gather(*(engine.client.execute(steps, STEPS) for _ in range(WARM_UP)))
        (folder / f"{os.getpid()}.ready").touch()
        await until(lambda: _exists(folder / "go"))
        used, busy, begin = time.process_time(), _busy_seconds(), time.monotonic()
        handles = await asyncio.gather(*(engine.client.start(steps, STEPS) for _ in range(RUNS)))
        await asyncio.gather(*(handle.result() for handle in handles))
        return {
            "begin": begin,
            "end": time.monotonic(),
            "busy at begin": busy,
            "busy at end": _busy_seconds(),
            "own": time.process_time() - used,
        }


@scenario(
    postgres=[
        Figure("one worker", "steps/s", at_least=6_000),
        Figure("two workers", "steps/s"),
        Figure("two over one", "ratio", at_least=1.5),
        Figure("cores used by one", "cores", lower_is_better=True),
        Figure("cores used by two", "cores", lower_is_better=True),
        Figure("of these by the workers", "cores", lower_is_better=True),
    ]
)
async def second_worker(folder: Path) -> dict[str, float]:
    """1,000 workflows of 10 steps in one worker process, and in each of two at the same time."""
    alone = await _together(folder, 1)
    both = await _together(folder, WORKERS)
    return {
        "one worker": alone["rate"],
        "two workers": both["rate"],
        "two over one": both["rate"] / alone["rate"],
        "cores used by one": alone["cores"],
        "cores used by two": both["cores"],
        "of these by the workers": both["workers"],
    }


async def _together(folder: Path, count: int) -> dict[str, float]:
    processes = [spawn("scenarios.fleet:worker", folder) for _ in range(count)]
    try:
        for process in processes:
            await until(lambda process=process: _is_ready(folder, process))
        (folder / "go").touch()
        outs = await asyncio.gather(*(asyncio.to_thread(one.communicate) for one in processes))
    finally:
        (folder / "go").unlink(missing_ok=True)
        for process in processes:
            process.kill()
            process.wait()
    found = [json.loads(out.splitlines()[-1]) for out, _ in outs]
    took = max(one["end"] for one in found) - min(one["begin"] for one in found)
    busy = max(one["busy at end"] for one in found) - min(one["busy at begin"] for one in found)
    return {
        "rate": count * RUNS * STEPS / took,
        "cores": busy / took,
        "workers": sum(one["own"] for one in found) / took,
    }


def _busy_seconds() -> float:
    """Return the processor time of the whole machine since it started, idling left out."""
    user, nice, system, *_ = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    return (int(user) + int(nice) + int(system)) / os.sysconf("SC_CLK_TCK")


# -- blocked runs ----------------------------------------------------------------------------------


@workflow.define
async def blocked(_: None) -> int:
    """Wait for one number."""
    return await workflow.listen("number", int).receive()


def _engine(folder: Path) -> Engine:
    return Engine(database(folder), definitions=[blocked, steps])


@scenario(
    postgres=[
        Figure("new worker ready", "s", at_most=1.0),
        Figure("1,000 woken, done", "s", at_most=1.0),
        Figure("from start to 1,000 done", "s", peer="recover_blocked_s", lower_is_better=True),
        Figure("started", "runs/s"),
    ],
    heavy=True,
)
async def hundred_thousand_blocked(folder: Path) -> dict[str, float]:
    """100,000 runs that wait for a message; a new worker, and 1,000 of them woken at once."""
    async with _engine(folder) as engine:
        begin = time.perf_counter()
        for first in range(0, BLOCKED, AT_ONCE):
            await asyncio.gather(
                *(engine.client.start(blocked, id=f"blocked-{first + n}") for n in range(AT_ONCE))
            )
        started = BLOCKED / (time.perf_counter() - begin)
    return {"started": started} | await asyncio.to_thread(
        measure, "scenarios.fleet:wake_blocked", folder
    )


async def wake_blocked(folder: Path) -> dict[str, float]:
    """Be the new worker, in a new process: run one step, then wake 1,000 runs spread over all."""
    chosen = random.Random(7).sample(range(BLOCKED), WOKEN)
    begin = time.perf_counter()
    async with _engine(folder) as engine:
        await engine.client.execute(steps, 1)
        ready = time.perf_counter()
        handles = [engine.client.get(f"blocked-{number}") for number in chosen]
        await asyncio.gather(*(handle.send("number", 7) for handle in handles))
        numbers = await asyncio.gather(*(handle.result() for handle in handles))
        end = time.perf_counter()
    assert set(numbers) == {7}
    return {
        "new worker ready": ready - begin,
        "1,000 woken, done": end - ready,
        "from start to 1,000 done": end - begin,
    }


# -- idling ----------------------------------------------------------------------------------------


@scenario(
    postgres=[
        Figure("queries of one worker", "/s", at_most=2.0),
        Figure("statements with BEGIN and COMMIT", "/s", lower_is_better=True),
        Figure("CPU of the worker", "%", lower_is_better=True),
    ]
)
async def idle_worker(folder: Path) -> dict[str, float]:
    """A worker with 1,000 runs that wait and get nothing, as the server counts its statements."""
    import psycopg

    async with _engine(folder) as engine:
        await asyncio.gather(*(engine.client.start(blocked) for _ in range(IDLE_RUNS)))
        await asyncio.sleep(SETTLE_SECONDS)
        with psycopg.connect(database(folder), autocommit=True) as connection:
            try:
                connection.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
                connection.execute("SELECT pg_stat_statements_reset()")
            except psycopg.Error as exc:
                raise BenchError(f"statements cannot be counted here: {exc}") from exc
            used = time.process_time()
            await asyncio.sleep(IDLE_SECONDS)
            used = time.process_time() - used
            counted = dict(_statements(connection))
    control = sum(calls for text, calls in counted.items() if text.startswith(("BEGIN", "COMMIT")))
    return {
        "queries of one worker": (sum(counted.values()) - control) / IDLE_SECONDS,
        "statements with BEGIN and COMMIT": sum(counted.values()) / IDLE_SECONDS,
        "CPU of the worker": 100 * used / IDLE_SECONDS,
    }


def _statements(connection: Any) -> list[tuple[str, int]]:
    """Return (text, calls) of this database's statements, those of counting left out."""
    return connection.execute(
        "SELECT query, sum(calls)::bigint FROM pg_stat_statements"
        " WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())"
        " AND query NOT LIKE '%pg_stat_statements%' GROUP BY query"
    ).fetchall()


# -- between processes -----------------------------------------------------------------------------


async def _is_ready(folder: Path, process: subprocess.Popen[str]) -> bool:
    if process.poll() is not None:
        raise BenchError(process.communicate()[1])
    return await _exists(folder / f"{process.pid}.ready")


async def _exists(path: Path) -> bool:
    return await asyncio.to_thread(path.exists)
