"""Errors: of activities and children, what they carry, and how what was done is undone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.engine.support import engine_on

from perdure import ApplicationError, Client, Retry, activity, workflow
from perdure.errors import ActivityFailed, ChildFailed, Kind, PerdureError, WorkflowFailed

calls: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_called_yet() -> Iterator[None]:
    calls.clear()
    yield
    calls.clear()


@activity.define
async def risky_activity(order: str) -> str:
    calls.append(order)
    raise ApplicationError(
        f"no order {order}", kind="NotFound", retryable=False, details={"order": order}
    )


async def test_activity_errors(tmp_path: Path):
    """``cause`` is what the activity raised: its kind, whether to retry, message and details."""

    @workflow.define
    async def careful() -> list[Any]:
        try:
            await risky_activity("7")
        except ActivityFailed as exc:
            assert exc.cause is not None
            return [exc.kind, exc.retryable, exc.details, str(exc.cause)]
        return []

    async with engine_on(tmp_path, careful, risky_activity) as engine:
        result = await engine.client.execute(careful)
        assert result == ["NotFound", False, {"order": "7"}, "no order 7"]
    assert calls == ["7"], "an error that says so is not retried"


@activity.define(retry=Retry(interval="1ms"))
async def unreliable_activity(fails: int) -> int:
    calls.append("tried")
    if len(calls) <= fails:
        raise ConnectionError("the line is dead")
    return len(calls)


@pytest.mark.parametrize(
    ("policy", "attempts", "result"),
    [
        (Retry(max_attempts=1), 1, ["Internal", True]),
        (Retry(max_attempts=2), 2, ["Internal", True]),
        (Retry(max_attempts=5), 4, 4),
        (None, 4, 4),
        (Retry(non_retryable=["ConnectionError"]), 1, ["Internal", True]),
    ],
)
async def test_activity_failure_modes(
    tmp_path: Path, policy: Retry | None, attempts: int, result: Any
):
    """How often a call is tried is the caller's choice; without a limit, until it succeeds."""

    @workflow.define
    async def calling() -> Any:
        try:
            return await unreliable_activity.options(retry=policy)(3)
        except ActivityFailed as exc:
            return [exc.kind, exc.retryable]

    async with engine_on(tmp_path, calling, unreliable_activity) as engine:
        assert await engine.client.execute(calling) == result
    assert len(calls) == attempts


async def test_activity_failure_modes_timeout(tmp_path: Path):
    """An attempt that takes too long is of kind Timeout; each attempt has the time anew."""

    @activity.define
    async def slow() -> None:
        calls.append("begun")
        await asyncio.sleep(60)  # sleep: it is cut off long before

    @workflow.define
    async def impatient() -> str:
        call = slow.options(timeout="50ms", retry=Retry(max_attempts=2, interval="1ms"))
        try:
            await call()
        except ActivityFailed as exc:
            return exc.kind
        return "in time"

    async with engine_on(tmp_path, impatient, slow) as engine:
        assert await engine.client.execute(impatient) == "Timeout"
    assert len(calls) == 2


async def test_activity_failure_modes_cancelled(tmp_path: Path):
    """A cancelled call raises ``CancelledError``, as asyncio's own; the workflow goes on."""

    @activity.define
    async def endless() -> None:
        await asyncio.sleep(60)  # sleep: it is cancelled long before

    @workflow.define
    async def fickle() -> str:
        task = asyncio.create_task(endless())
        await workflow.sleep("10ms")
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            return "cancelled"
        return "done"

    async with engine_on(tmp_path, fickle, endless) as engine:
        assert await engine.client.execute(fickle) == "cancelled"


# -- from the activity to the client -------------------------------------------------------------


@activity.define
async def failing_activity(kind: str) -> None:
    raise ApplicationError(f"it is {kind}", kind=kind, retryable=False, details={"at": "activity"})


@workflow.define
async def failing_child(kind: str) -> None:
    await failing_activity(kind)


@workflow.define
async def failing_parent(kind: str) -> None:
    await workflow.execute(failing_child, kind)


ALL = (failing_parent, failing_child, failing_activity)


@pytest.mark.parametrize("kind", [*(str(kind) for kind in Kind), "OutOfStock"])
async def test_child_workflow_errors_of_every_kind(tmp_path: Path, kind: str):
    """Activity → child → parent → client: kind, retryable and details arrive unchanged."""
    async with engine_on(tmp_path, *ALL) as engine, Client(engine.url) as other:
        for client in (engine.client, other):
            handle = await client.start("failing_parent", kind, id="p")
            with pytest.raises(WorkflowFailed) as caught:
                await handle.result("20s")
            exc: Any = caught.value
            assert (exc.kind, exc.retryable, exc.details) == (kind, False, {"at": "activity"})
            while exc.cause is not None:
                exc = exc.cause
                assert exc.kind == kind
            assert isinstance(exc, ApplicationError)
            assert str(exc) == f"it is {kind}"


async def test_child_workflow_errors_in_exit_and_execute_and_mailbox(tmp_path: Path):
    """The three ways to hear of a failed execution tell the same."""

    @workflow.define
    async def hearing() -> list[Any]:
        await workflow.start(failing_child, "RateLimited")
        error = (await workflow.events().receive()).error
        assert error is not None
        heard = [[error.kind, error.retryable, error.details]]
        try:
            await workflow.execute(failing_child, "RateLimited")
        except ChildFailed as exc:
            heard.append([exc.kind, exc.retryable, exc.details])
        return heard

    async with engine_on(tmp_path, hearing, *ALL) as engine, engine.client.mailbox() as box:
        expected = ["RateLimited", False, {"at": "activity"}]
        assert await engine.client.execute(hearing) == [expected, expected]
        await box.start(failing_child, "RateLimited", monitor=True)
        error: Any = (await box.events().receive("20s")).error
        assert [error.kind, error.retryable, error.details] == expected


async def test_child_workflow_errors_that_nobody_raised_on_purpose(tmp_path: Path):
    """An uncaught exception is of kind Internal, and may be tried again; its text is kept."""

    @workflow.define
    async def buggy() -> None:
        raise KeyError("boom")

    @workflow.define
    async def parent() -> list[Any]:
        try:
            await workflow.execute(buggy)
        except ChildFailed as exc:
            return [exc.kind, exc.retryable, str(exc.cause)]
        return []

    async with engine_on(tmp_path, parent, buggy) as engine:
        assert await engine.client.execute(parent) == ["Internal", True, "'boom'"]
        with pytest.raises(WorkflowFailed, match=r"KeyError: 'boom' \(test_errors.py:"):
            await engine.client.execute(buggy)


# -- saga ----------------------------------------------------------------------------------------


@dataclass
class Order:
    items: list[str]
    card: str = "good"
    address: str = "here"


@activity.define
async def reserve_inventory(items: list[str]) -> str:
    if not items:
        raise ApplicationError("nothing to reserve", kind="Invalid", retryable=False)
    calls.append("reserved")
    return "reservation-1"


@activity.define
async def release_inventory(reservation: str) -> None:
    calls.append(f"released {reservation}")


@activity.define
async def charge_payment(card: str) -> str:
    if card != "good":
        raise ApplicationError("card declined", kind="PermissionDenied", retryable=False)
    calls.append("charged")
    return "payment-1"


@activity.define
async def refund_payment(payment: str) -> None:
    calls.append(f"refunded {payment}")


@activity.define
async def ship_order(address: str) -> str:
    if not address:
        raise ApplicationError("no address", kind="Invalid", retryable=False)
    calls.append("shipped")
    return "track-1"


@workflow.define
async def saga_workflow(order: Order) -> dict[str, str]:
    step = "inventory"
    try:
        async with workflow.saga() as done:
            reservation = await reserve_inventory(order.items)
            done.add(release_inventory, reservation)
            step = "payment"
            payment = await charge_payment(order.card)
            done.add(refund_payment, payment)
            step = "shipping"
            tracking = await ship_order(order.address)
    except ActivityFailed as exc:
        return {"status": "failed", "step": step, "error": exc.kind}
    return {"status": "completed", "tracking": tracking}


@pytest.mark.parametrize(
    ("order", "result", "done"),
    [
        (
            Order(["book"]),
            {"status": "completed", "tracking": "track-1"},
            ["reserved", "charged", "shipped"],
        ),
        (Order([]), {"status": "failed", "step": "inventory", "error": "Invalid"}, []),
        (
            Order(["book"], card="bad"),
            {"status": "failed", "step": "payment", "error": "PermissionDenied"},
            ["reserved", "released reservation-1"],
        ),
        (
            Order(["book"], address=""),
            {"status": "failed", "step": "shipping", "error": "Invalid"},
            ["reserved", "charged", "refunded payment-1", "released reservation-1"],
        ),
    ],
    ids=["all is well", "inventory", "payment", "shipping"],
)
async def test_compensation_pattern(
    tmp_path: Path, order: Order, result: dict[str, str], done: list[str]
):
    """What was done is undone newest first, and only that; the answer names the step."""
    definitions = (
        saga_workflow,
        reserve_inventory,
        release_inventory,
        charge_payment,
        refund_payment,
        ship_order,
    )
    async with engine_on(tmp_path, *definitions) as engine:
        assert await engine.client.execute(saga_workflow, order) == result
    assert calls == done


async def test_compensation_pattern_on_cancel(tmp_path: Path):
    """A cancelled order is undone too, before the run ends."""

    @workflow.define
    async def patient_order(_: None) -> None:
        async with workflow.saga() as done:
            done.add(release_inventory, await reserve_inventory(["book"]))
            await workflow.listen("approval").receive()

    async with engine_on(tmp_path, patient_order, reserve_inventory, release_inventory) as engine:
        handle = await engine.client.start(patient_order)
        async with asyncio.timeout(20):
            async for event in handle.follow():
                if event.kind == "activity_completed":
                    break
        await handle.cancel("changed my mind")
        with pytest.raises(PerdureError, match="changed my mind"):
            await handle.result("20s")
    assert calls == ["reserved", "released reservation-1"]


async def test_a_failed_compensation_is_told_wherever_the_end_is_told(tmp_path: Path):
    @activity.define(retry=Retry(max_attempts=1))
    async def cannot() -> None:
        raise ApplicationError("the undo is down")

    @workflow.define
    async def half_undone(_: None) -> None:
        async with workflow.saga() as done:
            done.add(cannot)
            raise ApplicationError("declined")

    async with engine_on(tmp_path, half_undone, cannot) as engine:
        handle = await engine.client.start(half_undone)
        with pytest.raises(PerdureError, match="declined; .*1 compensation.*the undo is down"):
            await handle.result("20s")
        assert "the undo is down" in await handle.why()
