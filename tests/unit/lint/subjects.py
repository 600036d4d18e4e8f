"""Workflow code to check. A line with `# finds: CODE` is to be found, any other is not."""

from __future__ import annotations

import asyncio
import datetime as dates
import os
import random
import secrets
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import uuid
from collections import Counter, defaultdict, deque
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime as dt, timedelta
from multiprocessing import Process
from os import environ, getenv
from pathlib import Path, PurePath
from random import randint, shuffle as mix
from time import sleep as nap, time as t  # sleep: code here is read, not run
from uuid import uuid4

from perdure import activity, workflow

CACHE: dict[str, int] = {}
ITEMS: list[str] = ["a"]
SEEN: set[str] = {"a", "b"}
PRIMES = {2, 3, 5}
TOTALS = Counter[str]()
RECENT = deque[str]()
GROUPS = defaultdict[str, list[int]](list)
FOLDER = Path("folder")
CHANCE = random.Random(4)
LIMIT = 5
counter = 0
total = 0


def now() -> int:
    return 4


def open_order(order: str) -> str:
    return order


class Clock:
    @staticmethod
    def time() -> int:
        return 4


clock = Clock()


class Config:
    tags: list[str] = []
    debug = False


@activity.define
async def step(value: object = None) -> str:
    return str(time.time()) + Path("x").read_text()


@activity.define
def plain_step() -> str:
    return str(random.random())


@workflow.define
async def reads_the_clock() -> None:
    time.time()  # finds: clock
    t()  # finds: clock
    time.monotonic_ns()  # finds: clock
    time.perf_counter()  # finds: clock
    dt.now()  # finds: clock
    dt.now(UTC)  # finds: clock
    dt.utcnow()  # finds: clock
    dates.datetime.today()  # finds: clock
    date.today()  # finds: clock
    time.localtime()  # finds: clock
    workflow.wait_condition(time.time)  # finds: clock
    import time as later

    later.time()  # finds: clock
    from datetime import datetime

    datetime.now()  # finds: clock
    workflow.now()
    now()
    clock.time()
    Clock.time()
    dt(2025, 1, 1)
    dt.fromisoformat("2025-01-01")
    date(2025, 1, 1) + timedelta(days=1)
    time.localtime(0)
    time.strptime("2025", "%Y")
    isinstance(LIMIT, dt)
    asyncio.get_running_loop().time()


@workflow.define
async def draws_chance() -> None:
    random.random()  # finds: random
    randint(1, 6)  # finds: random
    mix([1, 2])  # finds: random
    random.choice([1, 2])  # finds: random
    random.Random()  # finds: random
    random.SystemRandom().random()  # finds: random
    CHANCE.random()  # finds: random
    secrets.token_hex()  # finds: random
    secrets.choice("ab")  # finds: random
    uuid.uuid1()  # finds: random
    uuid4()  # finds: random
    os.urandom(8)  # finds: random
    sorted([1, 2], key=lambda _: random.random())  # finds: random
    workflow.random()
    workflow.uuid4()
    uuid.uuid5(uuid.NAMESPACE_DNS, "a")
    uuid.UUID(int=1)
    random.Random(4).random()
    mine = random.Random(4)
    mine.random()
    secrets.compare_digest("a", "b")
    isinstance(mine, random.Random)


@workflow.define
async def reads_the_environment() -> None:
    os.environ["HOME"]  # finds: environment
    os.environ.get("HOME")  # finds: environment
    "HOME" in environ  # finds: environment
    os.getenv("HOME")  # finds: environment
    getenv("HOME")  # finds: environment
    os.path.join("a", "b")
    os.sep
    environ_ = {"HOME": "a"}
    environ_["HOME"]


@workflow.define
async def goes_through_sets(names: list[str]) -> None:
    for _ in {"a", "b"}:  # finds: order
        pass
    for _ in set(names):  # finds: order
        pass
    for _ in frozenset(names):  # finds: order
        pass
    for _ in {name.upper() for name in names}:  # finds: order
        pass
    for _ in SEEN:  # finds: order
        pass
    for _ in set(names) - {"a"}:  # finds: order
        pass
    for _ in CACHE.keys() - names:  # finds: order
        pass
    for _ in set(names).union(names):  # finds: order
        pass

    def inner(given: set[str], numbers: set[int]) -> None:
        for _ in given:  # finds: order
            pass
        for _ in numbers:
            pass

    unique = set(names)
    for _ in unique:  # finds: order
        pass
    grown: set[str] = set()
    grown.add("a")
    for _ in grown:  # finds: order
        pass
    [name for name in unique]  # finds: order
    {name: 1 for name in unique}  # finds: order
    [await step(name) for name in unique]  # finds: order
    {await step(name) for name in unique}  # finds: order
    list(unique)  # finds: order
    tuple({"a", "b"})  # finds: order
    enumerate(unique)  # finds: order
    next(iter(unique))  # finds: order
    ", ".join(unique)  # finds: order
    await asyncio.gather(*{step(name) for name in names})  # finds: order
    [*unique]  # finds: order
    unique.pop()  # finds: order
    for _ in sorted(unique):
        pass
    for _ in {1, 2, 3}:
        pass
    for _ in PRIMES:
        pass
    for _ in names:
        pass
    for _ in {"a": 1}:
        pass
    for _ in CACHE.keys():
        pass
    tasks = {asyncio.create_task(step()) for _ in names}
    for task in tasks:
        await task
    more: set[asyncio.Task[str]] = set()
    more.add(asyncio.create_task(step()))
    for task in more:
        await task
    done, _pending = await asyncio.wait(tasks)
    for task in done:
        task.result()
    "a" in {"a", "b"}
    len(set(names))
    max(unique)
    any(name == "a" for name in unique)
    sorted(name.upper() for name in unique)
    sorted(list(unique))
    sorted(list(name.upper() for name in unique))
    sum(1 for _ in set(names))
    {name.upper() for name in unique}
    {*unique, "c"}
    unique == {"a"}
    unique_ = sorted(unique)
    for _ in unique_:
        pass
    kept = set(names)

    def order() -> None:
        nonlocal kept
        kept = sorted(kept)

    for _ in kept:
        pass
    changed = set(names)
    changed = sorted(changed)
    for _ in changed:
        pass


@workflow.define
async def hashes(id: str) -> None:
    hash("a")  # finds: hash
    sorted([CACHE, CACHE], key=id)
    {"id": id}


@workflow.define
async def uses_an_address() -> None:
    id(CACHE)  # finds: hash


@workflow.define
async def starts_threads() -> None:
    threading.Thread(target=print).start()  # finds: thread
    threading.Timer(1, print)  # finds: thread
    ThreadPoolExecutor()  # finds: thread
    Process(target=print)  # finds: thread
    await asyncio.to_thread(print)  # finds: thread
    asyncio.get_running_loop().run_in_executor(None, print)  # finds: thread
    asyncio.create_task(step())
    workflow.spawn(step())
    isinstance(LIMIT, threading.Thread)


@workflow.define
async def blocks() -> None:
    time.sleep(1)  # sleep: not run  # finds: sleep
    nap(1)  # finds: sleep
    await asyncio.sleep(1)  # sleep: not run
    await workflow.sleep("1s")


@workflow.define
async def touches_the_world() -> None:
    open("a")  # finds: io
    Path("a").read_text()  # finds: io
    (Path("a") / "b").exists()  # finds: io
    FOLDER.mkdir()  # finds: io
    (FOLDER / "a").parent.stat()  # finds: io
    os.listdir(".")  # finds: io
    os.path.exists("a")  # finds: io
    os.getcwd()  # finds: io
    socket.create_connection(("localhost", 1))  # finds: io
    subprocess.run(["true"])  # finds: io
    shutil.rmtree("a")  # finds: io
    tempfile.mkdtemp()  # finds: io
    input()  # finds: io
    await asyncio.open_connection("localhost", 1)  # finds: io
    import sqlite3

    sqlite3.connect("a")  # finds: io
    import requests
    import httpx as web

    requests.get("http://localhost")  # finds: io
    async with web.AsyncClient() as client:  # finds: io
        await client.get("http://localhost")
    try:
        pass
    except (requests.RequestException, socket.timeout, OSError):
        pass
    web.Timeout(5)
    await step(open_order("a"))
    await plain_step()
    PurePath("a") / "b"
    FOLDER.name
    Path("a").suffix
    print("hello")
    workflow.logger.info("hello")
    "a".replace("a", "b")


@workflow.define
async def changes_what_is_shared() -> None:
    global counter, total
    counter += 1  # finds: global
    total = 1  # finds: global
    CACHE["a"] = 1  # finds: global
    CACHE["a"] += 1  # finds: global
    del CACHE["a"]  # finds: global
    CACHE.update(a=1)  # finds: global
    ITEMS.append("a")  # finds: global
    ITEMS[0] = "b"  # finds: global
    SEEN.add("c")  # finds: global
    TOTALS.update(["a"])  # finds: global
    RECENT.appendleft("a")  # finds: global
    GROUPS["a"].append(1)
    Config.tags.append("a")  # finds: global
    Config.debug = True  # finds: global
    dates.limit = 5  # finds: global
    local: dict[str, int] = {}
    local["a"] = 1
    items = list(ITEMS)
    items.append("a")
    items.sort()
    CACHE.get("a")
    ITEMS.count("a")
    sorted(ITEMS)
    total_ = counter + total
    {"ITEMS": ITEMS}["ITEMS"]
    made = Config()
    made.debug = True


def shadowing() -> None: ...


@workflow.define
async def shadows(CACHE: dict[str, int]) -> None:
    CACHE["a"] = 1
    time = Clock()
    time.time()
    ITEMS = ["a"]
    ITEMS.append("b")
    [ITEMS for ITEMS in ([1], [2])]

    def random() -> int:
        return 4

    random()

    def inner() -> None:
        nonlocal ITEMS
        ITEMS = ["c"]
        ITEMS.append("d")
        dt.now()  # finds: clock

    inner()
    (lambda: dt.now())()  # finds: clock
    (lambda dt: dt.now())(Clock)


@workflow.define
async def is_allowed() -> None:
    time.time()  # perdure: allow
    time.time()  # perdure: allow clock
    time.time()  # perdure: allow(clock)
    time.time()  # perdure: allow random, clock
    time.time()  # perdure: allow - it is only logged
    time.time()  # perdure: allow random # finds: clock
    time.time()  # perdure # finds: clock
    print(
        time.time(  # perdure: allow
        )
    )


def first(values: list[str]) -> float:
    return second(values)


def second(values: list[str]) -> float:
    if values:
        return first(values[1:])
    return time.time()  # finds: clock


def unused() -> float:
    return time.time()


def given_away() -> float:
    return random.random()  # finds: random


@workflow.define
async def calls_functions() -> None:
    first(["a"])
    map(given_away, [])
    await step(1)
    await plain_step()


@workflow.define
async def calls_a_workflow() -> None:
    await workflow.execute(blocks)


def made_by(limit: int) -> object:
    seen: list[str] = []

    @workflow.define(name=f"made-{limit}")
    async def made(
        at: str = str(time.time()),
    ) -> None:
        """
        Text at the margin.
        """
        seen.append(at)  # finds: global
        time.time()  # finds: clock
        own: list[str] = []
        own.append(at)

    return made


made = made_by(5)
