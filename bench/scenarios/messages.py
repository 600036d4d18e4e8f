"""Messages between processes: how long they take, and what it costs to be ready for them."""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import time
from pathlib import Path

from harness import BenchError, Figure, database, scenario, spawn, until
from perdure import Client, Engine, workflow

MESSAGES = 200
WARM_UP = 5
PAUSE_SECONDS = 0.03
IDLE_RUNS = 1_000
SETTLE_SECONDS = 5.0
IDLE_SECONDS = 10.0


@workflow.define
async def echo(_: None) -> None:
    """Answer every message with itself."""
    async for message in workflow.inbox():
        await message.reply("echo", message.payload)


def _engine(folder: Path) -> Engine:
    return Engine(database(folder), definitions=[echo])


async def serve(folder: Path) -> dict[str, float]:
    """Serve one echo until killed."""
    async with _engine(folder) as engine:
        await engine.client.start(echo, id="echo")
        (folder / "ready").touch()
        await asyncio.Event().wait()
    return {}


@workflow.define
async def arrivals(_: None) -> None:
    """Tell of each number once its receipt is committed."""
    numbers = workflow.listen("number", int)
    while True:
        number = await numbers.receive()
        await workflow.emit("received", number)


async def receive(folder: Path) -> dict[str, float]:
    """Serve one receiver until killed; note its arrivals by a clock that all processes share."""
    file = (folder / "arrivals").open("a", buffering=1)
    async with Engine(database(folder), definitions=[arrivals]) as engine:
        engine.events.on(
            "workflow.event",
            lambda event: file.write(f"{event.data['data']} {time.monotonic()}\n"),
        )
        await engine.client.start(arrivals, id="receiver")
        (folder / "ready").touch()
        await asyncio.Event().wait()
    return {}


BETWEEN = (
    Figure("median", "ms", at_most=50),
    Figure("95th percentile", "ms", at_most=50),
    Figure("slowest", "ms", lower_is_better=True),
    Figure("there and back, median", "ms", lower_is_better=True),
)


@scenario(*BETWEEN, postgres=BETWEEN)
async def message_between_processes(folder: Path) -> dict[str, float]:
    """From send() in one process until the workflow in another has it, committed; 200 messages."""
    one_way = await _one_way(folder)
    figures = {
        "median": statistics.median(one_way),
        "95th percentile": statistics.quantiles(one_way, n=20)[-1],
        "slowest": max(one_way),
    }
    (folder / "ready").unlink()
    return figures | {"there and back, median": statistics.median(await _there_and_back(folder))}


async def _one_way(folder: Path) -> list[float]:
    """Return milliseconds from before a send until after the receiver's commit."""
    other = spawn("scenarios.messages:receive", folder)
    try:
        await until(lambda: _is_ready(folder, other))
        sent: list[float] = []
        async with Client(database(folder)) as client:
            receiver = client.get("receiver")
            for number in range(WARM_UP + MESSAGES):
                sent.append(time.monotonic())
                await receiver.send("number", number)
                await asyncio.sleep(PAUSE_SECONDS)
            await until(lambda: _have_arrived(folder, other, len(sent)))
        arrived = _arrivals(folder)
        return [1000 * (arrived[number] - sent[number]) for number in range(WARM_UP, len(sent))]
    finally:
        other.kill()
        other.wait()


async def _there_and_back(folder: Path) -> list[float]:
    """Return milliseconds from a mailbox's question until it has the answer."""
    other = spawn("scenarios.messages:serve", folder)
    try:
        await until(lambda: _is_ready(folder, other))
        took: list[float] = []
        async with Client(database(folder)) as client, client.mailbox() as box:
            for number in range(WARM_UP + MESSAGES):
                begin = time.monotonic()
                answer = await box.ask("echo", "say", number, reply="echo", timeout="10s")
                took.append(1000 * (time.monotonic() - begin))
                if answer != number:
                    raise BenchError(f"asked {number}, got {answer}")
        return took[WARM_UP:]
    finally:
        other.kill()
        other.wait()


@scenario(
    Figure("CPU of an idle engine", "%", at_most=2.0),
    Figure("CPU of an idle engine with a mailbox", "%", at_most=3.0),
)
async def idle_cpu(folder: Path) -> dict[str, float]:
    """An engine with 1,000 runs that wait for messages and get none; percent of one core."""
    async with _engine(folder) as engine:
        for _ in range(IDLE_RUNS // 100):
            await asyncio.gather(*(engine.client.start(echo) for _ in range(100)))
        await asyncio.sleep(SETTLE_SECONDS)
        alone = await _cpu_percent()
        async with engine.client.mailbox():
            return {
                "CPU of an idle engine": alone,
                "CPU of an idle engine with a mailbox": await _cpu_percent(),
            }


async def _cpu_percent() -> float:
    """Return the processor time of this process over a while in which nothing happens."""
    before, begin = time.process_time(), time.monotonic()
    await asyncio.sleep(IDLE_SECONDS)
    return 100 * (time.process_time() - before) / (time.monotonic() - begin)


def _arrivals(folder: Path) -> dict[int, float]:
    file = folder / "arrivals"
    lines = file.read_text().splitlines() if file.exists() else []
    return {int(number): float(moment) for number, moment in map(str.split, lines)}


async def _have_arrived(folder: Path, process: subprocess.Popen[str], count: int) -> bool:
    _check(process)
    return len(_arrivals(folder)) == count


async def _is_ready(folder: Path, process: subprocess.Popen[str]) -> bool:
    _check(process)
    return await asyncio.to_thread(os.path.exists, folder / "ready")


def _check(process: subprocess.Popen[str]) -> None:
    """Raise what ended the process, if something did."""
    if process.poll() is not None:
        raise BenchError(process.communicate()[1])
