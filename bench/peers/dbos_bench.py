"""The same scenarios on DBOS, as one JSON object of figures.

Runs in an environment of its own (setup.sh) and imports nothing of Perdure:

    bench/.peers/dbos/bin/python bench/peers/dbos_bench.py --scale 0.2 --only thousand_by_ten

DBOS is used as its documentation shows: async workflows and steps, started in the process that
serves them, with its defaults (it sets no journal mode, so SQLite's own holds: DELETE). Looking for
messages every 10 ms instead of every second made no difference. Each scenario has a SQLite file of
its own, or, if BENCH_DATABASE is set, that database: an empty one in PostgreSQL.
`--scale` makes the scenarios whose figure is a rate smaller; the scale is part of the output.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from pathlib import Path

from dbos import DBOS, DBOSConfig, SetWorkflowID

DATA = Path(__file__).parents[1] / ".data"
Scenario = Callable[[float], Awaitable[float]]


@DBOS.step()
async def step(number: int) -> int:
    """Do nothing, durably."""
    return number


@DBOS.workflow()
async def steps(count: int) -> int:
    """Run ``count`` steps one after the other."""
    for number in range(count):
        await step(number)
    return count


@DBOS.workflow()
async def nap(seconds: float) -> float:
    """Sleep durably."""
    await DBOS.sleep_async(seconds)
    return seconds


@DBOS.workflow()
async def receiver(count: int) -> int:
    """Receive ``count`` messages."""
    total = 0
    for _ in range(count):
        total += await DBOS.recv_async("number", timeout_seconds=60)
    return total


@DBOS.workflow()
async def twice(number: int) -> int:
    """Do next to nothing."""
    return 2 * number


@DBOS.workflow()
async def parent(count: int) -> int:
    """Start ``count`` children at once and add up their results."""
    children = [await DBOS.start_workflow_async(twice, number) for number in range(count)]
    return sum([await child.get_result() for child in children])


@DBOS.workflow()
async def pong(rounds: int) -> int:
    """Send back so many numbers."""
    for _ in range(rounds):
        sender, number = await DBOS.recv_async("ping", timeout_seconds=300)
        await DBOS.send_async(sender, number, "pong")
    return rounds


@DBOS.workflow()
async def ping(target: str, rounds: int) -> int:
    """Send so many numbers to a ``pong``, each when the one before has come back."""
    for number in range(rounds):
        await DBOS.send_async(target, [DBOS.workflow_id, number], "ping")
        assert await DBOS.recv_async("pong", timeout_seconds=300) == number
    return rounds


async def thousand_by_ten(scale: float) -> float:
    """1,000 workflows of 10 steps at once; steps/s."""
    count = round(1_000 * scale)
    begin = time.perf_counter()
    handles = await asyncio.gather(*(DBOS.start_workflow_async(steps, 10) for _ in range(count)))
    await asyncio.gather(*(handle.get_result() for handle in handles))
    return count * 10 / (time.perf_counter() - begin)


async def sequential_hundred(_scale: float) -> float:
    """One workflow of 100 steps; steps/s, the median of three."""
    rates: list[float] = []
    for _ in range(3):
        begin = time.perf_counter()
        handle = await DBOS.start_workflow_async(steps, 100)
        await handle.get_result()
        rates.append(100 / (time.perf_counter() - begin))
    return statistics.median(rates)


async def one_step_p50_ms(_scale: float) -> float:
    """Start to result of a workflow of one step; milliseconds, the median of 50."""
    times: list[float] = []
    for _ in range(50):
        begin = time.perf_counter()
        handle = await DBOS.start_workflow_async(steps, 1)
        await handle.get_result()
        times.append(time.perf_counter() - begin)
    return statistics.median(times) * 1_000


async def messages_per_s(scale: float) -> float:
    """1,000 messages sent at once to one workflow that receives them all; messages/s."""
    count = round(1_000 * scale)
    begin = time.perf_counter()
    handle = await DBOS.start_workflow_async(receiver, count)
    target = handle.get_workflow_id()
    await asyncio.gather(*(DBOS.send_async(target, n, "number") for n in range(count)))
    total = await handle.get_result()
    assert total == count * (count - 1) // 2
    return count / (time.perf_counter() - begin)


async def children_per_s(scale: float) -> float:
    """1,000 workflows that start 10 children each and wait for them; children/s."""
    count = round(1_000 * scale)
    begin = time.perf_counter()
    handles = await asyncio.gather(*(DBOS.start_workflow_async(parent, 10) for _ in range(count)))
    await asyncio.gather(*(handle.get_result() for handle in handles))
    return count * 10 / (time.perf_counter() - begin)


async def ping_pong_per_s(scale: float) -> float:
    """1,000 pairs that send 10 messages to and fro, one at a time; messages/s."""
    count = round(1_000 * scale)
    begin = time.perf_counter()
    pongs = await asyncio.gather(*(DBOS.start_workflow_async(pong, 10) for _ in range(count)))
    handles = await asyncio.gather(
        *(DBOS.start_workflow_async(ping, each.get_workflow_id(), 10) for each in pongs)
    )
    await asyncio.gather(*(handle.get_result() for handle in handles))
    return count * 20 / (time.perf_counter() - begin)


async def sleep_1s_1000(_scale: float) -> float:
    """1,000 workflows that sleep one second, at once; seconds from first start to last result."""
    count = 1_000
    begin = time.perf_counter()
    handles = await asyncio.gather(*(DBOS.start_workflow_async(nap, 1.0) for _ in range(count)))
    await asyncio.gather(*(handle.get_result() for handle in handles))
    return time.perf_counter() - begin


BLOCKED = 1_000


async def recover_blocked_s(_scale: float) -> float:
    """1,000 blocked workflows of a killed process: launch, a message to each, all done; seconds."""
    await asyncio.gather(*(DBOS.send_async(f"blocked-{n}", n, "number") for n in range(BLOCKED)))
    handles = await asyncio.gather(
        *(DBOS.retrieve_workflow_async(f"blocked-{number}") for number in range(BLOCKED))
    )
    await asyncio.gather(*(handle.get_result() for handle in handles))
    return time.perf_counter() - launched


async def block(_scale: float) -> float:
    """Start 1,000 workflows that wait for a message, say so, and wait to be killed."""
    for number in range(BLOCKED):
        with SetWorkflowID(f"blocked-{number}"):
            await DBOS.start_workflow_async(receiver, 1)
    print("blocked", flush=True)
    await asyncio.Event().wait()
    return 0.0


launched = 0.0
SCENARIOS: dict[str, Scenario] = {
    function.__name__: function
    for function in (
        one_step_p50_ms,
        sequential_hundred,
        thousand_by_ten,
        messages_per_s,
        children_per_s,
        ping_pong_per_s,
        sleep_1s_1000,
        recover_blocked_s,
    )
}


def measure(name: str, scale: float) -> float:
    """Run one scenario on a database of its own."""
    with tempfile.TemporaryDirectory(prefix="dbos-", dir=DATA) as folder:
        url = os.environ.get("BENCH_DATABASE") or f"sqlite:///{folder}/dbos.db"
        if name == "recover_blocked_s":
            leave_blocked(url)
        return serve(url, SCENARIOS[name], scale)


def serve(url: str, scenario: Scenario, scale: float) -> float:
    """Launch DBOS, run a scenario, and return its figure."""
    global launched  # noqa: PLW0603 - one scenario asks
    config: DBOSConfig = {"name": "bench", "system_database_url": url, "log_level": "ERROR"}
    DBOS(config=config)
    launched = time.perf_counter()
    DBOS.launch()

    async def run() -> float:
        if scenario not in (recover_blocked_s, block):
            await (await DBOS.start_workflow_async(steps, 3)).get_result()  # warm
        return await scenario(scale)

    try:
        return asyncio.run(run())
    finally:
        DBOS.destroy()


def leave_blocked(url: str) -> None:
    """Let another process block its workflows, and kill it."""
    command = [sys.executable, __file__, "--block"]
    environment = {**os.environ, "BENCH_DATABASE": url}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as other:
        try:
            assert other.stdout is not None
            if "blocked" not in other.stdout.readline():
                raise SystemExit("the process with the blocked workflows has failed")
            time.sleep(2)  # until each waits for its message
        finally:
            other.send_signal(signal.SIGKILL)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", action="append", choices=SCENARIOS)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--block", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    DATA.mkdir(exist_ok=True)
    if arguments.block:
        serve(os.environ["BENCH_DATABASE"], block, 1.0)
        return
    figures = {name: measure(name, arguments.scale) for name in arguments.only or SCENARIOS}
    print(
        json.dumps(
            {"peer": f"dbos {version('dbos')}", "scale": arguments.scale, "figures": figures}
        )
    )


if __name__ == "__main__":
    main()
