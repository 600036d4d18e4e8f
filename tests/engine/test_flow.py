"""Floods and rates: whose run begins, whose activity gets a slot, and when what waits begins."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.engine.support import until

from perdure import Client, Engine, Status, activity, workflow
from perdure.engine import intake, lanes
from perdure.errors import ChildFailed, Invalid, RateLimited, UsageError
from perdure.store.opening import open_store
from perdure.store.port import StartRequest
from perdure.testing.simulator import SimulatedWorker, Simulation
from perdure.values import events as ev
from perdure.values import ids, payload
from perdure.values.terms import Terms

Main = Callable[[SimulatedWorker], Coroutine[Any, Any, Any]]
FLOOD = 20_000


@workflow.define
async def visit(number: int) -> int:
    return number


@workflow.define
async def holder(_: str) -> str:
    await workflow.listen("go").receive()
    return "gone"


def run(main: Main, *definitions: Any, limit: dict[str, Any] | None = None, **options: Any) -> Any:
    """Run ``main`` with a worker in virtual time; ``limit`` is that of ``holder``."""

    async def story(sim: Simulation) -> Any:
        worker = sim.worker("a", list(definitions), **options)
        if limit is not None:
            worker.engine.register(holder, **limit)
        await worker.start()
        return await worker.spawn(main(worker))

    with Simulation(seed=1, limit_seconds=20_000) as sim:
        return sim.run(story(sim))


async def began(worker: SimulatedWorker) -> list[str]:
    """Return who has begun, in the order of the starts."""
    page = await worker.client.list(status=["running", "waiting"])
    return sorted(one.id for one in page.items)


# -- rates ---------------------------------------------------------------------------------------


def test_a_start_too_early_says_when_to_try_again():
    async def main(worker: SimulatedWorker) -> None:
        await worker.client.start(holder, "", id="a")
        with pytest.raises(RateLimited, match=r"rate limit \(6/minute\); try again in") as caught:
            await worker.client.start(holder, "", id="b")
        assert caught.value.kind == "RateLimited"
        assert caught.value.retryable
        assert 9 < caught.value.details["retry_after"] <= 10
        await asyncio.sleep(caught.value.details["retry_after"])  # sleep: virtual time
        await worker.client.start(holder, "", id="b")
        assert await worker.client.count() == 2

    run(main, limit={"rate": "6/minute"})


@pytest.mark.parametrize("is_foreign", [False, True])
def test_what_waits_for_a_rate_begins_at_its_time_and_without_more_looks(is_foreign: bool):
    async def story(sim: Simulation) -> None:
        worker = sim.worker("a", [])
        worker.engine.register(holder, rate="6/minute", on_limit="queue")
        await worker.start()

        async def main() -> None:
            client = worker.client
            if is_foreign:
                _, client = sim.foreign_client("shop")
            now = sim.loop.time()
            handles = [await client.start(holder, "", id=id) for id in "abc"]
            assert await worker.client.count(status="pending") == 2
            for due, ids_ in ((9.9, ["a"]), (11.5, ["a", "b"]), (21.5, ["a", "b", "c"])):
                await asyncio.sleep(now + due - sim.loop.time())  # sleep: virtual time
                assert await began(worker) == ids_
            for handle in handles:
                await handle.send("go")

        await worker.spawn(main())

    with Simulation(seed=1, limit_seconds=200) as sim:
        sim.run(story(sim))


def test_a_queue_behind_a_rate_is_let_in_to_the_second():
    async def main(worker: SimulatedWorker) -> float:
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        await asyncio.gather(*(worker.client.execute(visit, n) for n in range(30)))
        return loop.time() - began_at

    async def story(sim: Simulation) -> Any:
        worker = sim.worker("a", [])
        worker.engine.register(visit, rate="10/s", on_limit="queue")
        await worker.start()
        return await worker.spawn(main(worker))

    with Simulation(seed=1, limit_seconds=200) as sim:
        took = sim.run(story(sim))
    assert 2.899 <= took < 3.2


def test_why_says_for_which_rate_a_run_waits_and_how_long():
    async def main(worker: SimulatedWorker) -> None:
        await worker.client.start(holder, "", id="a")
        await worker.client.start(holder, "", id="b")
        handle = await worker.client.start(holder, "", id="c")
        await worker.client.start(holder, "", id="k1", concurrency_key="k")
        assert await handle.why() == (
            "holder 'c' is pending: it waits for the rate limit of 6/minute: about 20s; "
            "1 run is before it."
        )

    run(main, limit={"rate": "6/minute", "on_limit": "queue"})


def test_why_names_the_key_whose_rate_holds_a_run_back():
    async def main(worker: SimulatedWorker) -> None:
        await worker.client.start(holder, "", id="a", concurrency_key="k")
        handle = await worker.client.start(holder, "", id="b", concurrency_key="k")
        assert "the rate limit of key 'k' of 1/hour: about 1h" in await handle.why()

    run(main, limit={"rate_per_key": "1/hour", "on_limit": "queue"})


def test_a_child_too_early_fails_with_what_its_caller_can_tell():
    @workflow.define
    async def parent(_: None) -> str:
        try:
            await workflow.execute(holder, "child", id="child")
        except ChildFailed as exc:
            return f"{exc.kind}: {exc.cause!r}"
        return "not refused"

    async def main(worker: SimulatedWorker) -> str:
        await worker.client.start(holder, "", id="first")
        return await worker.client.execute(parent, None)

    answer = run(main, parent, limit={"rate": "1/hour"})
    assert answer.startswith("RateLimited: RateLimited(")


def test_a_worker_that_is_killed_takes_no_tokens_along_and_leaves_none():
    async def story(sim: Simulation) -> None:
        def prepare(engine: Engine) -> None:
            engine.register(holder, rate="6/minute", on_limit="queue")

        a = sim.worker("a", [], lease="2s", prepare=prepare)
        await a.start()

        async def starts() -> None:
            for id in "abc":
                await a.client.start(holder, "", id=id)

        now = sim.loop.time()
        await a.spawn(starts())
        a.kill()
        b = sim.worker("b", [], lease="2s", prepare=prepare)
        await b.start()

        async def main() -> None:
            for due, ids_ in ((9.9, ["a"]), (11.5, ["a", "b"]), (21.5, ["a", "b", "c"])):
                await asyncio.sleep(now + due - sim.loop.time())  # sleep: virtual time
                assert await began(b) == ids_

        await b.spawn(main())

    with Simulation(seed=1, limit_seconds=200) as sim:
        sim.run(story(sim))


def test_what_is_no_rate_is_refused_where_it_is_said():
    engine = Engine("memory://")
    with pytest.raises(Invalid, match="rate: '5' is not a rate"):
        engine.register(holder, rate="5")
    with pytest.raises(Invalid, match="rate_per_key: 5 is no text"):
        engine.register(holder, rate_per_key=5)  # type: ignore[arg-type]

    @activity.define
    async def nothing() -> None: ...

    with pytest.raises(UsageError, match="only workflows have limits"):
        engine.register(nothing, rate="5/s")


# -- floods --------------------------------------------------------------------------------------


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        return request.getfixturevalue("postgres_url")
    return f"sqlite:///{tmp_path / 'flow.db'}"


def asked(name: str, number: int, tenant: str, now: int, *, priority: int = 0) -> StartRequest:
    run_id = ids.uuid7(now // 1000, number.to_bytes(10))
    started = ev.RunStarted(
        workflow=name,
        version="",
        workflow_id=f"{tenant}-{number}",
        run_id=run_id,
        seed=bytes(16),
        input=payload.encode(number),
        started_at=now,
        first_started_at=now,
        terms=Terms(priority=priority),
    )
    return StartRequest(
        workflow=name,
        workflow_id=started.workflow_id,
        run_id=run_id,
        event=ev.encode_turn([started]),
        tenant=tenant,
        priority=priority,
        is_eager=False,
    )


@asynccontextmanager
async def engines(url: str, count: int, *definitions: Any, **options: Any) -> AsyncIterator[None]:
    started: list[Engine] = []
    try:
        for number in range(count):
            engine = Engine(url, definitions, name=f"w{number}", **options)
            await engine.start()
            started.append(engine)
        yield
    finally:
        for engine in started:
            await engine.stop("0s")


def begun_between(url: str, workflow_id: str) -> int:
    """Count how many others began after a run was started, and before it began."""
    store: Any = open_store(url)
    try:
        rows = "SELECT h.id FROM perdure_history h JOIN perdure_run r ON r.run = h.run"
        of_it = f"{rows} WHERE r.workflow_id = '{workflow_id}' ORDER BY h.first"
        written, began = [row[0] for row in store.database.ask(of_it, ()).fetchall()][:2]
        count = (
            "SELECT count(*) FROM perdure_history h WHERE h.first = 2 "
            f"AND h.id > {written} AND h.id < {began}"
        )
        return int(store.database.ask(count, ()).fetchone()[0])
    finally:
        store.close()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
async def test_a_flood_of_one_tenant_does_not_hold_up_another(url: str, workers: int):
    store = open_store(url)
    store.migrate(1)
    now = 1_700_000_000_000_000
    for first in range(0, FLOOD, 2_000):
        flood = [asked("visit", n, "many", now) for n in range(first, first + 2_000)]
        store.start(flood, now)
    async with engines(url, workers, visit), Client(url) as client:

        async def has_begun() -> bool:
            return await client.count(status="completed") >= 1_000

        await until(has_begun)
        store.start([asked("visit", FLOOD, "alone", now)], now)
        handle = client.get(f"alone-{FLOOD}")
        assert await handle.result() == FLOOD
        left = await client.count(status="running")
    store.close()
    assert left > 0  # it was not the flood's end that let it in
    assert begun_between(url, f"alone-{FLOOD}") <= workers * (intake.HAND + 2)


@pytest.mark.slow
async def test_the_higher_priority_begins_before_a_flood(url: str):
    store = open_store(url)
    store.migrate(1)
    now = 1_700_000_000_000_000
    store.start([asked("visit", n, "many", now) for n in range(3_000)], now)
    store.start([asked("visit", n, "high", now, priority=9) for n in range(3_000, 3_100)], now)
    async with engines(url, 1, visit), Client(url) as client:

        async def is_over() -> bool:
            return await client.count(status="running") == 0

        await until(is_over)
    order: Any = store
    rows = order.database.ask(
        "SELECT r.tenant FROM perdure_history h JOIN perdure_run r ON r.run = h.run "
        "WHERE h.first = 2 ORDER BY h.id LIMIT 100",
        (),
    ).fetchall()
    store.close()
    assert {row[0] for row in rows} == {"high"}


class Gate:
    """Activities of tenants that begin, and wait until the test lets one go."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.gates: list[asyncio.Event] = []

    async def pass_(self, tenant: str) -> None:
        gate = asyncio.Event()
        self.begun.append(tenant)
        self.gates.append(gate)
        await gate.wait()


@pytest.mark.slow
@pytest.mark.parametrize("is_started_here", [False, True])
async def test_the_activity_of_a_lone_run_gets_the_next_slot(url: str, is_started_here: bool):
    gate = Gate()

    @activity.define
    async def work(number: int) -> int:
        await gate.pass_("alone" if number == FLOOD else "many")
        return number

    @workflow.define(name="flood")
    async def flood(number: int) -> int:
        return await work(number)

    store = open_store(url)
    store.migrate(1)
    now = 1_700_000_000_000_000
    if not is_started_here:
        for first in range(0, FLOOD, 2_000):
            flooding = [asked("flood", n, "many", now) for n in range(first, first + 2_000)]
            store.start(flooding, now)
    async with Engine(url, [flood, work, visit], activity_slots=2) as engine:
        if is_started_here:
            await asyncio.gather(
                *(engine.client.start(flood, n, tenant="many") for n in range(1_000))
            )
        await until(lambda: len(gate.begun) == 2)

        waiting = engine._core.runner._waiting  # pyright: ignore[reportPrivateUsage,reportOptionalMemberAccess]
        await until(lambda: len(waiting) >= lanes.LANE_FULL)
        store.start([asked("flood", FLOOD, "alone", now)], now)
        lone = engine.client.get(f"alone-{FLOOD}")

        # It is in line, beside the many: that its turn is written does not say so yet.
        await until(lambda: len(waiting.lengths()) == 2)
        for n in range(2):
            gate.gates[n].set()
            await until(lambda n=n: len(gate.begun) == 3 + n)
            if "alone" in gate.begun:
                break
        assert "alone" in gate.begun
        gate.gates[gate.begun.index("alone")].set()
        assert await lone.result() == FLOOD
        assert await lone.status() is Status.COMPLETED
        for number in range(FLOOD + 1, FLOOD + 6):  # the worker looks for work for each of them
            store.start([asked("visit", number, "alone", now)], now)
            assert await engine.client.get(f"alone-{number}").result() == number
        assert is_started_here or len(waiting) <= intake.HAND + lanes.LANE_FULL
    store.close()
