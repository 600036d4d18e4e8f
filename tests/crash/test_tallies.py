"""Eight processes race for a rate, for places and for a budget, and some are killed on the way."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path

import pytest
from tests.crash.processes import Place, kill
from tests.crash.programs import STEPS

from perdure import Client
from perdure.store.opening import open_store
from perdure.store.port import StartRequest
from perdure.values.meters import BudgetRow

PROCESSES = 8
KILLED = 2
RATE = 25
PLACES = 5
TOKENS = 300
CALLS = 40
OPEN_AT_ONCE = 3
RUNS = 9

RACER = """
import os, signal, sys
from perdure.errors import Unavailable
from perdure.store.opening import open_store
from perdure.store.port import StartRequest
from perdure.values.meters import Charge, Meter, Spend, window_rate

url, me, now, dies, execution = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
store = open_store(url)
print("ready", flush=True)
sys.stdin.readline()

def insist(verb):
    while True:
        try:
            return verb()
        except Unavailable:
            pass

rate = Meter("run:app.billing:0", window_rate("25/minute"))
for n in range(30):
    spent = insist(lambda: store.spend(Spend((rate,)), now))
    if not spent.refused:
        print("spent", flush=True)
    request = StartRequest("order", f"{me}-{n}", f"run-{me}-{n}", b"x", places=(("service:a", 5),))
    [started] = insist(lambda: store.start([request], now))
    print("started" if started.created else started.refused, flush=True)
    call = Spend(charges=(Charge("run-owner", "calls", 1),))
    print("called" if not insist(lambda: store.spend(call, now)).refused else "broke", flush=True)
    hold = f"{me}/{n}"
    charges = (Charge("run-owner", "tokens", 7),)
    held = insist(lambda: store.spend(Spend(charges=charges, hold=hold, execution=execution), now))
    if n == dies:
        os.kill(os.getpid(), signal.SIGKILL)
    if not held.is_refused:
        insist(lambda: store.settle(hold, {"tokens": 5}))
        print("used", flush=True)
print("over", flush=True)
sys.stdin.readline()
"""

WORKER = """
import asyncio, sys
from perdure import Engine
from tests.crash import programs

async def main():
    async with Engine(sys.argv[1], [programs.step, programs.ten_steps]):
        print("ready", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""

pytestmark = pytest.mark.slow


@pytest.fixture(params=["file", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    url = request.getfixturevalue("postgres_url") if request.param == "postgres" else ""
    return Place(tmp_path, url)


def budget(url: str) -> tuple[BudgetRow, BudgetRow]:
    store = open_store(url)
    try:
        calls, tokens = store.budgets(["run-owner"])
        return calls, tokens
    finally:
        store.close()


def owner(url: str, now: int) -> int:
    """Start the execution whose budget is raced for; return its number."""
    store = open_store(url)
    try:
        store.migrate(now)
        both = (("tokens", TOKENS), ("calls", CALLS))
        request = StartRequest("order", "owner", "run-owner", b"x", budget=both)
        return store.start([request], now)[0].execution
    finally:
        store.close()


async def test_no_rate_place_or_budget_is_exceeded_by_processes_that_race(place: Place):
    now = time.time_ns() // 1_000
    execution = owner(place.url, now)
    racers = [
        place.start(RACER, f"p{n}", now, n + 3 if n < KILLED else -1, execution, stdin=True)
        for n in range(PROCESSES)
    ]
    try:
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("go\n")
            racer.stdin.flush()
        lines = await asyncio.gather(
            *(asyncio.to_thread(lambda r=racer: list(iter_lines(r))) for racer in racers)
        )
    finally:
        for racer in racers:
            kill(racer)
    told = Counter(line for of_one in lines for line in of_one)
    assert told["over"] == PROCESSES - KILLED
    assert told["spent"] == RATE
    assert told["started"] == PLACES
    calls, row = budget(place.url)
    assert (told["called"], calls.used) == (CALLS, CALLS)
    lost = KILLED * 7
    assert row.used == told["used"] * 5
    assert row.reserved <= lost
    # They went on until nobody could reserve seven any more.
    assert row.left < 7
    assert row.used + row.reserved <= TOKENS


def iter_lines(racer: object) -> list[str]:
    found: list[str] = []
    stdout = racer.stdout  # pyright: ignore[reportAttributeAccessIssue] - a process with a pipe
    while (line := stdout.readline().strip()) not in ("", "over"):
        found.append(line)
    return [*found, line] if line else found


async def test_killed_workers_leave_no_place_taken_and_no_more_open_than_there_are(place: Place):
    waiting = [f"r{n}" for n in range(RUNS)]
    most = 0
    async with Client(place.url) as client:
        worker = place.start(WORKER)
        try:
            kills = 0
            async with asyncio.timeout(100):
                while waiting:
                    request, started = client._request(
                        "ten_steps", None, waiting[0], {"id": waiting[0]}
                    )
                    request.places = (("service:a", OPEN_AT_ONCE),)
                    answer = await client.door.start(request, started, None)
                    if answer.created:
                        waiting.pop(0)
                    else:
                        assert answer.refused == "place"
                    open_now = await client.count(status=["running", "waiting"], exact=True)
                    most = max(most, int(open_now))
                    if len(place.lines()) > 15 * (kills + 1):
                        kills += 1
                        kill(worker)
                        worker = place.start(WORKER)
                results = [await client.get(f"r{n}").result() for n in range(RUNS)]
        finally:
            kill(worker)
        assert results == [STEPS] * RUNS
        assert most == OPEN_AT_ONCE
        assert kills >= 2
        request, started = client._request("ten_steps", None, "all", {})
        request.places = (("service:a", 1),)
        assert (await client.door.start(request, started, None)).created
