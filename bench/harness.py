"""What scenarios are made of: the registry, figures with targets, fresh processes, measures.

A scenario is an async function in ``scenarios/*.py``: it gets an empty folder, in which
``database(folder)`` finds its database, and returns its figures by name. It runs in a process of
its own, so nothing is warm or already grown.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
DATA = HERE / ".data"
PROCESS_TIMEOUT_SECONDS = 900

Body = Callable[[Path], Awaitable[dict[str, float]]]


class BenchError(Exception):
    """A scenario could not be measured."""


@dataclass(frozen=True)
class Figure:
    """One number of a scenario: its unit, its target, and the peer's figure to hold beside it.

    ``whose``: the peer's name. ``times_peer``: how many times better than the peer it must be.
    """

    name: str
    unit: str
    at_least: float | None = None
    at_most: float | None = None
    peer: str | None = None
    whose: str = "DBOS"
    times_peer: float | None = None
    lower_is_better: bool = False

    def meets_target(self, value: float, peer: float | None = None) -> bool:
        """Tell whether ``value`` is within the targets; without any everything is."""
        times = None if peer is None else self.times_better(value, peer)
        if times is not None and self.times_peer is not None and times < self.times_peer:
            return False
        too_low = self.at_least is not None and value < self.at_least
        too_high = self.at_most is not None and value > self.at_most
        return not (too_low or too_high)

    def times_better(self, value: float, peer: float) -> float:
        """Return how many times better than the peer's figure ``value`` is."""
        if self.at_most is not None or self.lower_is_better:
            return peer / value
        return value / peer


@dataclass(frozen=True)
class Scenario:
    """A registered scenario: its figures on a SQLite file, and those on PostgreSQL.

    A heavy one is run once, unless asked otherwise.
    """

    name: str
    body: Body
    figures: tuple[Figure, ...]
    on_postgres: tuple[Figure, ...]
    heavy: bool

    @property
    def target(self) -> str:
        """Return ``module:function``, for a fresh process to find."""
        return f"{self.body.__module__}:{self.name}"

    @property
    def title(self) -> str:
        """Return the first line of the function's docstring."""
        return (self.body.__doc__ or "").strip().splitlines()[0]


SCENARIOS: dict[str, Scenario] = {}


def scenario(
    *figures: Figure, postgres: Sequence[Figure] = (), heavy: bool = False
) -> Callable[[Body], Body]:
    """Register the decorated function as a scenario with these figures.

    Without any for one of the two databases it is not run there.
    """

    def register(body: Body) -> Body:
        name = getattr(body, "__name__", "")
        SCENARIOS[name] = Scenario(name, body, figures, tuple(postgres), heavy)
        return body

    return register


def load_scenarios() -> dict[str, Scenario]:
    """Import every module of ``scenarios/`` and return what they registered."""
    for path in sorted((HERE / "scenarios").glob("*.py")):
        importlib.import_module(f"scenarios.{path.stem}")
    return SCENARIOS


# -- databases -------------------------------------------------------------------------------------


def use(url: str, folder: Path) -> None:
    """Let ``database(folder)`` be this one, instead of a SQLite file in the folder."""
    (folder / "url").touch(0o600)  # it may hold a password
    (folder / "url").write_text(url)


def database(folder: Path) -> str:
    """Return the URL of the database that the processes of a scenario share."""
    given = folder / "url"
    return given.read_text() if given.exists() else f"sqlite:///{folder}/bench.db"


# -- processes -------------------------------------------------------------------------------------


@contextlib.contextmanager
def data_folder() -> Generator[Path]:
    """Make a folder on the repository's disk and remove it afterwards."""
    DATA.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="run-", dir=DATA) as folder:
        yield Path(folder)


def spawn(target: str, folder: Path) -> subprocess.Popen[str]:
    """Start ``module:function`` in a fresh process."""
    command = [sys.executable, str(HERE / "run.py"), "--call", target, str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def measure(target: str, folder: Path) -> dict[str, float]:
    """Run ``module:function`` in a fresh process to its end and return its figures.

    Raises:
        BenchError: it failed, or took too long.
    """
    process = spawn(target, folder)
    try:
        out, err = process.communicate(timeout=PROCESS_TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired as exc:
        raise BenchError(f"not done after {PROCESS_TIMEOUT_SECONDS} s") from exc
    finally:
        process.kill()
        process.wait()
    if process.returncode:
        lines = err.strip().splitlines() or [f"exit status {process.returncode}"]
        raise BenchError("\n".join(lines[-12:]))
    return json.loads(out.splitlines()[-1])


def call(target: str, folder: Path) -> None:
    """Be the fresh process: run ``module:function`` and print its figures."""
    module, _, name = target.partition(":")
    body: Body = getattr(importlib.import_module(module), name)
    print(json.dumps(asyncio.run(_await(body(folder)))))


async def _await(figures: Awaitable[dict[str, float]]) -> dict[str, float]:
    return await figures


def say(text: str) -> None:
    """Report progress beside the output."""
    print(text, file=sys.stderr, flush=True)


# -- measures --------------------------------------------------------------------------------------


def rss_mb() -> float:
    """Return this process's resident memory in megabytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


async def settled_rss_mb(*, quiet_seconds: float, limit_seconds: float = 90) -> float:
    """Return resident memory once it has not fallen for ``quiet_seconds``."""
    gc.collect()
    lowest, since = rss_mb(), time.monotonic()
    end = since + limit_seconds
    while time.monotonic() - since < quiet_seconds and time.monotonic() < end:
        await asyncio.sleep(0.25)
        now = rss_mb()
        if now < lowest - 0.5:
            lowest, since = now, time.monotonic()
    return rss_mb()


def seconds_since_process_start() -> float:
    """Return the age of this process, interpreter start and imports included."""
    started_ticks = int(Path("/proc/self/stat").read_text().rpartition(") ")[2].split()[19])
    started = started_ticks / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started


@contextlib.contextmanager
def cpu_bound_thread() -> Iterator[None]:
    """Keep one Python thread busy, and the interpreter lock with it."""
    stop = threading.Event()

    def burn() -> None:
        number = 0
        while not stop.is_set():
            for _ in range(1_000):
                number += 1

    thread = threading.Thread(target=burn, name="burner", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def disk_syncs_per_second(folder: Path) -> float:
    """Return how many small durable writes a second this disk takes: the floor under it all."""
    with (folder / "syncs").open("wb", buffering=0) as file:
        begin = time.perf_counter()
        for _ in range(500):
            file.write(b"\0" * 4096)
            os.fdatasync(file.fileno())
        return 500 / (time.perf_counter() - begin)


def million_additions_per_second() -> float:
    """Return how fast a core runs Python now: on a shared machine that changes by the minute."""
    count, total = 2_000_000, 0
    begin = time.perf_counter()
    for number in range(count):
        total += number
    return count / 1e6 / (time.perf_counter() - begin)


async def until(predicate: Callable[[], Awaitable[Any]], *, limit_seconds: float = 120) -> None:
    """Ask ``predicate`` again and again until it holds.

    Raises:
        BenchError: it did not in time.
    """
    end = time.monotonic() + limit_seconds
    while not await predicate():
        if time.monotonic() > end:
            raise BenchError(f"still not so after {limit_seconds} s")
        await asyncio.sleep(0.02)
