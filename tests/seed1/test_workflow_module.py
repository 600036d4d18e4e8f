"""Basic implementation, and what a workflow knows and says about itself.

The tests of this folder go heading by heading through Wippy's page about workflows
(https://docs.wippy.ai): what its Lua examples do with processes and messages is done here with
Perdure's functions.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.engine.support import engine_on, until_status
from tests.seed1.virtual import in_virtual_time

from perdure import ApplicationError, Status, activity, workflow
from perdure.errors import ActivityFailed, ChildFailed, Invalid, UsageError
from perdure.testing.simulator import SimulatedWorker


@dataclass
class Order:
    id: str
    total: int
    customer_id: str = "cust-1"
    shipping_address: str = "Main Street 1"


world: list[str] = []
"""What the activities of an order did, outside of any database."""


@pytest.fixture(autouse=True)
def _empty_world() -> Iterator[None]:
    world.clear()
    yield
    world.clear()


@activity.define
async def charge_payment(amount: int, customer: str) -> str:
    if amount > 100:
        raise ApplicationError("card declined", kind="PermissionDenied", retryable=False)
    world.append(f"charged {amount}")
    return f"payment of {customer}"


@activity.define
async def ship_order(order_id: str, address: str) -> str:
    if not address:
        raise ApplicationError("no address", kind="Invalid", retryable=False)
    world.append(f"shipped {order_id}")
    return f"track-{order_id}"


@activity.define
async def refund_payment(payment: str) -> None:
    world.append(f"refunded {payment}")


@workflow.define
async def order_workflow(order: Order) -> dict[str, str]:
    try:
        payment = await charge_payment(order.total, order.customer_id)
    except ActivityFailed as exc:
        return {"status": "failed", "error": str(exc)}
    await workflow.sleep("1h")
    try:
        tracking = await ship_order(order.id, order.shipping_address)
    except ActivityFailed as exc:
        await refund_payment(payment)
        return {"status": "failed", "error": str(exc)}
    return {"status": "completed", "payment_id": payment, "tracking": tracking}


ORDER = (order_workflow, charge_payment, ship_order, refund_payment)


@pytest.mark.parametrize(
    ("order", "status", "done"),
    [
        (Order("7", 42), "completed", ["charged 42", "shipped 7"]),
        (Order("7", 420), "failed", []),
        (Order("7", 42, "ada", ""), "failed", ["charged 42", "refunded payment of ada"]),
    ],
    ids=["all is well", "the card is declined", "it cannot be shipped"],
)
def test_basic_implementation(order: Order, status: str, done: list[str]):
    """An order charges, waits an hour and ships; what fails becomes its answer."""

    async def main(worker: SimulatedWorker) -> dict[str, str]:
        handle = await worker.client.start(order_workflow, order)
        result = await handle
        found = await handle.describe()
        assert found.completed_at is not None
        took = found.completed_at - found.started_at
        assert (took >= timedelta(hours=1)) is bool(done), "the wait is durable time"
        return result

    assert in_virtual_time(main, *ORDER)["status"] == status
    assert world == done


async def test_workflow_info(tmp_path: Path):
    """A workflow knows its ids, type, queue, namespace, attempt and how long its history is."""

    @workflow.define
    async def introspective() -> dict[str, Any]:
        info = workflow.info()
        return {
            "workflow_id": info.workflow_id,
            "run_id": info.run_id,
            "workflow_type": info.workflow_type,
            "task_queue": info.task_queue,
            "namespace": info.namespace,
            "attempt": info.attempt,
            "history": [info.history_length, info.history_size],
        }

    async with engine_on(tmp_path, introspective) as engine:
        handle = await engine.client.start(introspective, id="info-1")
        assert await handle == {
            "workflow_id": "info-1",
            "run_id": handle.run_id,
            "workflow_type": "introspective",
            "task_queue": "default",
            "namespace": "default",
            "attempt": 1,
            "history": [0, 0],  # what is recorded before the turn: nothing yet
        }
    with pytest.raises(UsageError):
        workflow.info()


@workflow.define
async def child_workflow(value: int | None) -> int:
    if value is None:
        return 0
    if value < 0:
        raise ApplicationError("below zero", kind="Invalid", retryable=False)
    return value * 2


async def test_workflow_exec(tmp_path: Path):
    """A child is run in line; its result is returned, its failure is raised. No input is fine."""

    @workflow.define
    async def outer() -> list[Any]:
        doubled = await workflow.execute(child_workflow, 21)
        nothing = await workflow.execute(child_workflow, None)
        try:
            await workflow.execute(child_workflow, -1)
        except ChildFailed as exc:
            return [doubled, nothing, exc.kind, exc.retryable]
        return []

    async with engine_on(tmp_path, outer, child_workflow) as engine:
        assert await engine.client.execute(outer) == [42, 0, "Invalid", False]


@activity.define
async def old_payment() -> str:
    return "old"


@activity.define
async def new_payment() -> str:
    return "new"


async def test_workflow_version(tmp_path: Path):
    """New runs take the new way; a run that had passed the place goes on as it began."""

    @workflow.define(name="two-steps")
    async def before() -> str:
        first = await old_payment()
        await workflow.listen("go").receive()
        return first

    @workflow.define(name="two-steps")
    async def now() -> str:
        is_old = workflow.version("payment-v2", 1, 2) == 1
        first = await (old_payment() if is_old else new_payment())
        await workflow.listen("go").receive()
        return first

    async with engine_on(tmp_path, before) as engine:
        under_way = await engine.client.start(before, id="old")
        await until_status(under_way, Status.WAITING)
    async with engine_on(tmp_path, now) as engine:
        await engine.client.start(now, id="new")
        for id, result in (("old", "old"), ("new", "new")):
            handle = engine.client.get(id)
            await handle.send("go")
            assert await handle.result("20s") == result


async def test_workflow_version_is_consistent_within_a_run(tmp_path: Path):
    """One change id means one version, wherever and however often a run asks."""

    @workflow.define
    async def asking() -> list[int]:
        first = workflow.version("a", 1, 3)
        await workflow.sleep("1ms")
        return [first, workflow.version("a", 1, 3), workflow.version("b", 1, 1)]

    async with engine_on(tmp_path, asking) as engine:
        assert await engine.client.execute(asking) == [3, 3, 1]


async def test_workflow_version_parks_a_run_whose_version_is_no_longer_supported(tmp_path: Path):
    """Outside of the supported range a run waits for code that fits; nothing is skipped."""

    @workflow.define(name="pinned")
    async def supports_both() -> int:
        version = workflow.version("a", 1, 1)
        await workflow.listen("go").receive()
        return version

    @workflow.define(name="pinned")
    async def supports_two_only() -> int:
        version = workflow.version("a", 2, 2)
        await workflow.listen("go").receive()
        return version

    async with engine_on(tmp_path, supports_both) as engine:
        handle = await engine.client.start(supports_both, id="p")
        await until_status(handle, Status.WAITING)
    async with engine_on(tmp_path, supports_two_only) as engine:
        handle = engine.client.get("p")
        await handle.send("go")
        await until_status(handle, Status.PARKED)
        assert "'a'" in await handle.why()
    async with engine_on(tmp_path, supports_both) as engine:
        assert await engine.client.get("p").result("20s") == 1


async def test_workflow_attrs(tmp_path: Path):
    """Search attributes can be searched for, the memo is only shown; ``None`` removes a key."""

    @workflow.define
    async def labelled(total: int) -> None:
        await workflow.attrs(
            search={"status": "processing", "order_total": total, "fragile": True},
            memo={"notes": "Priority customer", "source": "web"},
        )
        await workflow.attrs(search={"status": "done", "fragile": None}, memo={"source": None})
        with pytest.raises(UsageError):
            await workflow.attrs()
        with pytest.raises(Invalid):
            await workflow.attrs(search={"when": object()})

    async with engine_on(tmp_path, labelled) as engine:
        handle = await engine.client.start(labelled, 42, id="l", memo={"from": "start"})
        await handle
        await engine.client.execute(labelled, 43)
        found = await handle.describe()
        assert found.search == {"status": "done", "order_total": 42}
        assert found.memo == {"from": "start", "notes": "Priority customer"}
        page = await engine.client.list(search={"order_total": 42})
        assert [item.id for item in page.items] == ["l"]


async def test_workflow_history_length_and_history_size(tmp_path: Path):
    """Both count what was recorded before the turn; activities, timers and children add to it."""

    @workflow.define
    async def growing() -> list[tuple[int, int]]:
        sizes = [(workflow.history_length(), workflow.history_size())]
        for step in (old_payment, lambda: workflow.sleep("1ms")):
            await step()
            sizes.append((workflow.history_length(), workflow.history_size()))
        await workflow.execute(child_workflow, 1)
        return [*sizes, (workflow.history_length(), workflow.history_size())]

    async with engine_on(tmp_path, growing, child_workflow) as engine:
        sizes = await engine.client.execute(growing)
        for before, after in itertools.pairwise(sizes):
            assert before[0] < after[0] and before[1] < after[1]


async def test_workflow_history_length_bounds_a_long_life(tmp_path: Path):
    """A workflow that would grow without end continues as new when its history is long."""

    @workflow.define
    async def counting(state: dict[str, int]) -> dict[str, int]:
        while state["left"]:
            await workflow.sleep("1ms")
            state["left"] -= 1
            if workflow.history_length() > 20:
                await workflow.continue_as_new({**state, "lives": state["lives"] + 1})
        return {**state, "length": workflow.history_length()}

    async with engine_on(tmp_path, counting) as engine:
        end = await engine.client.execute(counting, {"left": 30, "lives": 1})
        assert end["left"] == 0 and end["lives"] > 1 and end["length"] <= 24
