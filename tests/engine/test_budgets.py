"""Budgets: what activities spend, who shares it, and what is left after a worker has died."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.engine.support import engine_on

from perdure import Retry, activity, workflow
from perdure.errors import ActivityFailed, ChildFailed, Invalid, WorkflowFailed
from perdure.testing.simulator import SimulatedWorker, Simulation
from perdure.values.meters import BudgetRow

Main = Callable[[SimulatedWorker], Coroutine[Any, Any, Any]]


@activity.define(retry=Retry(max_attempts=3, interval="1s"))
async def ask(tokens: int) -> str:
    await activity.spend("tokens", tokens)
    return "answer"


@activity.define(retry=Retry(max_attempts=3, interval="1s"))
async def careful(most: int, used: int | None, how: str = "") -> str:
    async with activity.reserve(tokens=most) as held:
        if used is not None:
            held.used(tokens=used)
        if how == "fail" and activity.info().attempt == 1:
            raise ValueError("no answer")
        if how == "hang" and activity.info().attempt == 1:
            await asyncio.Event().wait()
    return "answer"


@activity.define
def plain(tokens: int) -> str:
    activity.spend("tokens", tokens)
    with activity.reserve(tokens=10) as held:
        held.used(tokens=1)
    return "answer"


@activity.define(retry=Retry(max_attempts=3, interval="1s"))
async def flaky() -> int:
    if activity.info().attempt < 3:
        raise ValueError("again")
    return activity.info().attempt


@workflow.define
async def asks(amounts: list[int]) -> int:
    for tokens in amounts:
        await ask(tokens)
    return len(amounts)


@workflow.define
async def reserves(how: str) -> str:
    return await careful(60, 20 if how != "silent" else None, how)


@workflow.define
async def asks_plainly(tokens: int) -> str:
    return await plain(tokens)


@workflow.define
async def calls(_: str) -> int:
    return await flaky()


@workflow.define
async def family(amounts: list[int]) -> int:
    await ask(amounts[0])
    return await workflow.execute(asks, amounts[1:])


@workflow.define
async def parent_with_pocket_money(amounts: list[int]) -> int:
    return await workflow.execute(asks, amounts, budget={"tokens": 50})


@workflow.define
async def many(count: int) -> list[str]:
    told: list[str] = []
    for _ in range(count):
        try:
            await workflow.execute(asks, [])
            told.append("ran")
        except ChildFailed as error:
            told.append(f"{error.kind} {error.cause}")
    return told


@workflow.define
async def smuggler(_: str) -> int:
    return await workflow.execute(asks, [1], context={"budget": []})


@workflow.define
async def on_and_on(left: int) -> str:
    await ask(30)
    if left:
        await workflow.continue_as_new(left - 1)
    return "done"


ALL = (
    asks,
    reserves,
    asks_plainly,
    calls,
    family,
    parent_with_pocket_money,
    many,
    smuggler,
    on_and_on,
)


def run(main: Main) -> Any:
    async def story(sim: Simulation) -> Any:
        worker = sim.worker("a", list(ALL))
        await worker.start()
        return await worker.spawn(main(worker))

    with Simulation(seed=1, limit_seconds=20_000) as sim:
        return sim.run(story(sim))


async def row(worker: SimulatedWorker, key: str, unit: str = "tokens") -> BudgetRow:
    rows = await worker.client.door.read(lambda store: store.budgets([key]))
    return next(one for one in rows if one.unit == unit)


def used(found: BudgetRow) -> tuple[float, float]:
    return found.used / 1_000_000, found.reserved / 1_000_000


def test_activities_spend_up_to_the_amount_and_the_one_too_many_fails_without_a_retry():
    async def main(worker: SimulatedWorker) -> Any:
        handle = await worker.client.start(asks, [60, 30, 20], budget={"tokens": 100})
        with pytest.raises(WorkflowFailed) as failed:
            await handle.result()
        return failed.value, used(await row(worker, handle.run_id))

    error, spent = run(main)
    assert spent == (90, 0)
    assert isinstance(error.cause, ActivityFailed)
    assert (error.kind, error.retryable) == ("RateLimited", False)
    assert "20 tokens" in str(error.cause.cause)
    assert "10 are left" in str(error.cause.cause)


def test_without_a_budget_nothing_is_counted():
    async def main(worker: SimulatedWorker) -> Any:
        return await worker.client.execute(asks, [60, 30, 20])

    assert run(main) == 3


def test_a_unit_that_the_budget_does_not_count_is_free():
    async def main(worker: SimulatedWorker) -> Any:
        return await worker.client.execute(asks, [60, 30, 20], budget={"usd": 5})

    assert run(main) == 3


def test_an_execution_says_what_is_left_of_its_budgets_and_of_those_above_it():
    async def main(worker: SimulatedWorker) -> Any:
        handle = await worker.client.start(asks, [60, 30], budget={"tokens": 100, "usd": "0.5"})
        await handle.result()
        free = await worker.client.start(asks, [1])
        return (await handle.describe()).budgets, (await free.describe()).budgets

    [tokens, usd], none = run(main)
    assert none == ()
    assert (tokens.unit, tokens.amount, tokens.used, tokens.reserved, tokens.left) == (
        "tokens",
        100,
        90,
        0,
        10,
    )
    assert (usd.unit, usd.left) == ("usd", Decimal("0.5"))


def test_what_was_used_of_a_unit_that_was_not_reserved_is_refused_and_not_lost():
    held = activity.reserve(tokens=5)
    with pytest.raises(Invalid, match=r"used: 'token' was not reserved here \(tokens was\)"):
        held.used(token=3)


def test_a_plain_function_spends_without_await(tmp_path: Path):
    async def main() -> Any:
        async with engine_on(tmp_path, *ALL) as engine:
            handle = await engine.client.start(asks_plainly, 40, budget={"tokens": 100})
            await handle.result()
            return await engine.client.door.read(lambda store: store.budgets([handle.run_id]))

    [found] = asyncio.run(main())
    assert used(found) == (41, 0)


@pytest.mark.parametrize(
    ("how", "expected"),
    [("said", (20, 0)), ("silent", (60, 0)), ("fail", (40, 0))],
    ids=["what was used", "nothing was said", "an attempt that failed, and the next"],
)
def test_what_was_reserved_and_not_used_is_given_back(how: str, expected: tuple[float, float]):
    async def main(worker: SimulatedWorker) -> Any:
        handle = await worker.client.start(reserves, how, budget={"tokens": 200})
        await handle.result()
        return used(await row(worker, handle.run_id))

    assert run(main) == expected


def test_children_spend_from_the_budget_of_who_started_them():
    async def main(worker: SimulatedWorker) -> Any:
        handle = await worker.client.start(family, [60, 30, 20], budget={"tokens": 100})
        with pytest.raises(WorkflowFailed):
            await handle.result()
        return used(await row(worker, handle.run_id))

    assert run(main) == (90, 0)


def test_a_child_with_a_budget_of_its_own_spends_from_both():
    async def main(worker: SimulatedWorker) -> Any:
        budget = {"tokens": 100}
        handle = await worker.client.start(parent_with_pocket_money, [30, 30], budget=budget)
        with pytest.raises(WorkflowFailed) as failed:
            await handle.result()
        return failed.value.kind, used(await row(worker, handle.run_id))

    assert run(main) == ("RateLimited", (30, 0))


def test_each_attempt_is_a_call_and_pays_before_it_begins():
    async def main(worker: SimulatedWorker) -> Any:
        enough = await worker.client.execute(calls, "", budget={"calls": 3})
        handle = await worker.client.start(calls, "", budget={"calls": 2})
        with pytest.raises(WorkflowFailed) as failed:
            await handle.result()
        return enough, failed.value.kind, used(await row(worker, handle.run_id, "calls"))

    assert run(main) == (3, "RateLimited", (2, 0))


def test_each_child_is_a_run_and_one_too_many_is_not_started():
    async def main(worker: SimulatedWorker) -> Any:
        handle = await worker.client.start(many, 3, budget={"runs": 2})
        told = await handle.result()
        return told, used(await row(worker, handle.run_id, "runs")), await worker.client.count()

    told, spent, count = run(main)
    assert told[:2] == ["ran", "ran"]
    assert told[2].startswith("RateLimited")
    assert "has not enough runs left" in told[2]
    assert (spent, int(count)) == ((2, 0), 3)


def test_the_runs_of_one_execution_share_its_budget():
    async def main(worker: SimulatedWorker) -> Any:
        handle = await worker.client.start(on_and_on, 5, budget={"tokens": 100})
        first = handle.run_id
        with pytest.raises(WorkflowFailed):
            await handle.result()
        return used(await row(worker, first))

    assert run(main) == (90, 0)


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        ({"tokens": -1}, "budget.tokens: -1 is not between 0"),
        ({"tokens": "many"}, "budget.tokens: 'many' is no amount"),
        ({"to kens": 1}, "'to kens' is no unit"),
        ({}, "is no mapping of units to amounts"),
        (5, "is no mapping of units to amounts"),
    ],
)
def test_a_budget_that_cannot_be_meant_is_refused(budget: Any, said: str):
    async def main(worker: SimulatedWorker) -> None:
        with pytest.raises(Invalid, match=said):
            await worker.client.start(asks, [], budget=budget)

    run(main)


def test_nobody_sets_the_budget_through_the_context():
    async def main(worker: SimulatedWorker) -> str:
        with pytest.raises(Invalid, match="'budget' is where budgets travel"):
            await worker.client.start(asks, [], context={"budget": []})
        with pytest.raises(WorkflowFailed) as failed:
            await worker.client.execute(smuggler, "")
        return str(failed.value.cause)

    assert "'budget' is where budgets travel" in run(main)


def test_outside_a_run_an_activity_spends_nothing():
    assert asyncio.run(ask(5)) == "answer"
    assert asyncio.run(careful(5, 3)) == "answer"
    assert plain.fn(5) == "answer"


def test_what_a_lost_attempt_has_reserved_counts_as_used_when_the_run_ends():
    async def story(sim: Simulation) -> Any:
        first = sim.worker("a", list(ALL))
        await first.start()
        handle = await first.spawn(first.client.start(reserves, "hang", budget={"tokens": 200}))
        await asyncio.sleep(5)  # sleep: virtual time
        before = used(await first.spawn(row(first, handle.run_id)))
        first.kill()
        second = sim.worker("b", list(ALL))
        await second.start()
        await second.spawn(second.client.get(handle.id).result())
        return before, used(await second.spawn(row(second, handle.run_id)))

    with Simulation(seed=1, limit_seconds=20_000) as sim:
        assert sim.run(story(sim)) == ((0, 60), (80, 0))
