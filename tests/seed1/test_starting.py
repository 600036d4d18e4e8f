"""Starting workflows: ids, policies, options, children that outlive their parent, context, HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from tests.engine.support import engine_on, until, until_status
from tests.seed1.virtual import in_virtual_time

from perdure import ApplicationError, Client, Retry, Status, activity, workflow
from perdure.errors import AlreadyExists, Invalid, WorkflowTerminated, WorkflowTimedOut
from perdure.testing.simulator import SimulatedWorker

Order = dict[str, Any]


@workflow.define
async def order_workflow(order: Order) -> str:
    await workflow.listen("ship").receive()
    return f"order {order['order_id']} shipped"


async def test_basic_spawn(tmp_path: Path):
    """A start returns at once with a handle: an id that nobody else has, and its run."""
    async with engine_on(tmp_path, order_workflow) as engine:
        one = await engine.client.start(order_workflow, {"order_id": "1"})
        two = await engine.client.start("order_workflow", {"order_id": "2"})
        assert one.id != two.id
        for handle in (one, two):
            await handle.send("ship")
        assert [await one, await two] == ["order 1 shipped", "order 2 shipped"]


async def test_spawn_with_monitoring(tmp_path: Path):
    """A mailbox that starts with ``monitor`` gets one Exit with the result."""
    async with engine_on(tmp_path, order_workflow) as engine, engine.client.mailbox() as box:
        start = {"monitor": True, "messages": [("ship", None)]}
        handle = await box.start(order_workflow, {"order_id": "123"}, **start)
        notice = await box.events().receive(timeout="10s")
        assert (notice.kind, notice.sender, notice.error) == ("exit", handle.id, None)
        assert notice.result == "order 123 shipped"
        with pytest.raises(TimeoutError):
            await box.events().receive(timeout="50ms")


async def test_spawn_with_name(tmp_path: Path):
    """A name makes starts idempotent: the second one finds the running execution."""
    async with engine_on(tmp_path, order_workflow) as engine, engine.client.mailbox() as box:
        first = await box.start(order_workflow, {"order_id": 1}, name="order-1", monitor=True)
        second = await box.start(order_workflow, {"order_id": 999}, name="order-1", monitor=True)
        assert (second.id, second.run_id) == ("order-1", first.run_id)
        await second.send("ship")
        assert await second == "order 1 shipped"
        exits = [await box.events().receive(timeout="10s") for _ in range(2)]
        assert [notice.sender for notice in exits] == ["order-1", "order-1"]


async def test_spawn_with_explicit_workflow_id(tmp_path: Path):
    """The id is the user's own; an empty or endless one is refused."""
    async with engine_on(tmp_path, order_workflow) as engine:
        handle = await engine.client.start(order_workflow, {"order_id": 1}, id="order-1")
        assert handle.id == "order-1"
        assert (await engine.client.get("order-1").describe()).run_id == handle.run_id
        for bad in ("", "x" * 1000):
            with pytest.raises(Invalid):
                await engine.client.start(order_workflow, {"order_id": 1}, id=bad)


async def test_id_conflict_policy_fail(tmp_path: Path):
    """With ``fail`` a taken id is an error with a text and the run that has it."""
    async with engine_on(tmp_path, order_workflow) as engine:
        first = await engine.client.start(order_workflow, {"order_id": 1}, id="order-123")
        with pytest.raises(AlreadyExists, match="'order-123' exists") as caught:
            await engine.client.start(
                order_workflow, {"order_id": 2}, id="order-123", id_conflict_policy="fail"
            )
        assert caught.value.details["run_id"] == first.run_id
        assert not caught.value.retryable


async def test_error_when_already_started(tmp_path: Path):
    """The other way to ask for an error; the long name of the option is understood as well."""
    async with engine_on(tmp_path, order_workflow) as engine:
        await engine.client.start(order_workflow, {"order_id": 1}, id="order-123")
        for option in ("error_when_already_started", "execution_error_when_already_started"):
            with pytest.raises(AlreadyExists):
                await engine.client.start(
                    order_workflow, {"order_id": 1}, id="order-123", **{option: True}
                )


async def test_id_conflict_policy_use_existing(tmp_path: Path):
    """With an explicit id this is the default: the running execution is returned."""
    async with engine_on(tmp_path, order_workflow) as engine:
        first = await engine.client.start(order_workflow, {"order_id": 1}, id="order-123")
        again = await engine.client.start(order_workflow, {"order_id": 2}, id="order-123")
        assert again.run_id == first.run_id


async def test_id_conflict_policy_terminate_existing(tmp_path: Path):
    """The old run is terminated, whoever watched it is told so, and a new run has the id."""
    async with engine_on(tmp_path, order_workflow) as engine, engine.client.mailbox() as box:
        old = await box.start(order_workflow, {"order_id": 1}, id="order-123", monitor=True)
        new = await engine.client.start(
            order_workflow, {"order_id": 2}, id="order-123", id_conflict_policy="terminate_existing"
        )
        assert new.run_id != old.run_id
        notice = await box.events().receive(timeout="10s")
        assert notice.error is not None and notice.error.kind == "Canceled"
        with pytest.raises(WorkflowTerminated):
            await engine.client.get("order-123", old.run_id).result("10s")
        await new.send("ship")
        assert await new.result("10s") == "order 2 shipped"


async def test_an_id_in_use_by_another_workflow_is_never_taken_for_this_one(tmp_path: Path):
    """``use_existing`` returns a run of the workflow that was asked for, or raises."""

    @workflow.define
    async def other(_: Order) -> None:
        await workflow.listen("never").receive()

    async with engine_on(tmp_path, order_workflow, other) as engine:
        await engine.client.start(other, {}, id="x")
        with pytest.raises(AlreadyExists, match="of workflow 'other'"):
            await engine.client.start(order_workflow, {"order_id": 1}, id="x")


# -- options -----------------------------------------------------------------------------------


@workflow.define
async def busy(succeeds_at: int) -> dict[str, Any]:
    info = workflow.info()
    if info.attempt < succeeds_at:
        raise ApplicationError(f"attempt {info.attempt}", kind="Busy")
    return {"attempt": info.attempt, "id": info.workflow_id}


def test_workflow_start_options():
    """All options of the page's example at once; cron alone would never end, so it has its test."""

    async def main(worker: SimulatedWorker) -> None:
        handle = await worker.client.start(
            busy,
            3,
            id="order-123",
            execution_timeout="24h",
            run_timeout="1h",
            task_timeout="30s",
            id_conflict_policy="fail",
            retry=Retry(max_attempts=3, interval=1.0, backoff=2.0, max_interval=300.0),
            search={"customer_id": "cust-123"},
            memo={"source": "api"},
            start_delay="5m",
        )
        assert await handle.status() is Status.PENDING
        assert await handle == {"attempt": 3, "id": "order-123"}
        runs = (await worker.client.list(workflow_id="order-123")).items
        assert [run.attempt for run in runs] == [3, 2, 1]
        described = [await worker.client.get(run.id, run.run_id).describe() for run in runs]
        first = described[-1]
        assert first.started_at - first.created_at == timedelta(minutes=5)
        assert [run.memo for run in described] == [{"source": "api"}] * 3
        assert [run.search for run in described] == [{"customer_id": "cust-123"}] * 3

    in_virtual_time(main, busy)


@pytest.mark.parametrize(
    ("long", "short", "value"),
    [
        ("name", "id", "x"),
        ("retry_policy", "retry", Retry(max_attempts=1)),
        ("cron_schedule", "cron", "0 */6 * * *"),
        ("search_attributes", "search", {"a": 1}),
        ("enable_eager_start", "eager", False),
        ("execution_error_when_already_started", "error_when_already_started", False),
    ],
)
async def test_full_options_reference_longer_names(
    tmp_path: Path, long: str, short: str, value: Any
):
    """The page's names of options mean what ours mean; both at once is a contradiction."""
    async with engine_on(tmp_path, busy) as engine:
        handle = await engine.client.start(busy, 1, **{long: value})
        assert await handle.status()
        with pytest.raises(Invalid, match="two names"):
            await engine.client.start(busy, 1, **{long: value, short: value})
        with pytest.raises(Invalid, match="unknown option"):
            await engine.client.start(busy, 1, **{f"{long}s_": value})


def test_cron_schedule():
    """A cron text of five fields, in UTC, gives a run at every tick until it is cancelled."""

    @workflow.define
    async def report(_: None) -> str:
        return workflow.now().strftime("%M")

    async def main(worker: SimulatedWorker) -> None:
        await worker.client.start(report, id="report", cron_schedule="*/15 * * * *")
        seen = [await worker.client.get("report").result() for _ in range(4)]
        assert sorted(seen) == ["00", "15", "30", "45"]
        assert await worker.client.get("report").cancel()

    in_virtual_time(main, report)


def test_execution_timeout_covers_all_runs_and_run_timeout_one():
    """A run that takes too long is retried; the execution's limit ends them all."""

    @workflow.define
    async def endless() -> None:
        await workflow.sleep("10h")

    async def main(worker: SimulatedWorker) -> int:
        handle = await worker.client.start(
            endless,
            id="e",
            run_timeout="10m",
            execution_timeout="35m",
            retry=Retry(interval="1m", backoff=1.0),
        )
        with pytest.raises(WorkflowTimedOut) as caught:
            await handle
        assert caught.value.kind == "Timeout"
        return len((await worker.client.list(workflow_id="e")).items)

    assert in_virtual_time(main, endless) == 4


async def test_task_queue_and_eager_start(tmp_path: Path):
    """A start goes to the workers of its queue, the caller's own or those of other processes."""
    async with (
        engine_on(tmp_path, busy) as here,
        engine_on(tmp_path, busy, task_queues=("fast",)) as there,
    ):
        options: list[dict[str, Any]] = [{"task_queue": "fast"}, {"eager": False}, {}]
        for option in options:
            handle = await here.client.start(busy, 1, **option)
            assert (await handle.result("20s"))["attempt"] == 1
        assert {worker.queues for worker in await there.client.workers()} == {
            ("default",),
            ("fast",),
        }


async def test_task_queue_of_an_activity(tmp_path: Path):
    """An activity with a queue of its own runs in a worker that serves that queue."""

    @activity.define(name="where", task_queue="gpu")
    async def here() -> str:
        return "the run's worker"

    @activity.define(name="where", task_queue="gpu")
    async def there() -> str:
        return "the queue's worker"

    @workflow.define
    async def asking() -> str:
        return await here()

    async with (
        engine_on(tmp_path, asking, here) as engine,
        engine_on(tmp_path, there, task_queues=("gpu",)),
    ):
        assert await engine.client.execute(asking) == "the queue's worker"


# -- parent close policy -----------------------------------------------------------------------


@workflow.define
async def long_child(_: None) -> str:
    await workflow.listen("finish").receive()
    return "finished"


@workflow.define
async def leaving_parent(policy: str | None) -> None:
    await workflow.start(long_child, id="child", parent_close_policy=policy)
    await workflow.listen("leave").receive()


@pytest.mark.parametrize("how", ["completes", "is terminated"])
@pytest.mark.parametrize(
    ("policy", "end"),
    [
        ("terminate", Status.TERMINATED),
        (None, Status.TERMINATED),
        ("request_cancel", Status.CANCELLED),
        ("abandon", Status.COMPLETED),
    ],
)
async def test_parent_close_policy(tmp_path: Path, policy: str | None, end: Status, how: str):
    """What a parent's end does to its child: end it (the default), ask it to end, or nothing."""
    async with engine_on(tmp_path, leaving_parent, long_child) as engine:
        parent = await engine.client.start(leaving_parent, policy)
        child = engine.client.get("child")

        async def is_there() -> bool:
            return await engine.client.count(workflow_id="child") == 1

        await until(is_there)
        if how == "completes":
            await parent.send("leave")
            await parent
        else:
            await parent.terminate()
        if policy == "abandon":
            await child.send("finish")
        await until_status(child, end)


# -- startup messages --------------------------------------------------------------------------


@workflow.define
async def counter_workflow(start: dict[str, int]) -> int:
    counter = start["initial"]

    async def add() -> None:
        nonlocal counter
        async for message in workflow.listen("increment", message=True):
            counter += message.payload["amount"]
            await message.reply("ok", counter)

    workflow.spawn(add())
    await workflow.listen("finish").receive()
    return counter


def increments(*amounts: int) -> list[tuple[str, Any]]:
    return [("increment", {"amount": amount}) for amount in amounts]


async def test_startup_messages(tmp_path: Path):
    """They come before all others, in order; answers go to the mailbox that started it."""
    async with engine_on(tmp_path, counter_workflow) as engine, engine.client.mailbox() as box:
        handle = await box.start(
            counter_workflow,
            {"initial": 0},
            name="counter-workflow",
            messages=increments(2, 1, 4),
            monitor=True,
        )
        await box.send(handle, "increment", {"amount": 10})
        answers = box.listen("ok", int)
        assert [await answers.receive("10s") for _ in range(4)] == [2, 3, 7, 17]
        await handle.send("finish")
        assert (await box.events().receive("10s")).result == 17


async def test_startup_messages_with_use_existing(tmp_path: Path):
    """A second start with the name is ignored but for its messages, which are delivered."""
    async with engine_on(tmp_path, counter_workflow) as engine, engine.client.mailbox() as box:
        first = await box.start(
            counter_workflow, {"initial": 0}, name="my-counter", messages=increments(3)
        )
        second = await box.start(
            counter_workflow, {"initial": 999}, name="my-counter", messages=increments(2)
        )
        assert (second.id, second.run_id) == (first.id, first.run_id)
        answers = box.listen("ok", int)
        assert [await answers.receive("10s"), await answers.receive("10s")] == [3, 5]
        await first.send("finish")
        assert await first.result("10s") == 5


async def test_startup_messages_of_a_refused_start_are_not_delivered(tmp_path: Path):
    """With ``fail`` the running execution gets nothing of the start that was refused."""
    async with engine_on(tmp_path, counter_workflow) as engine:
        first = await engine.client.start(
            counter_workflow, {"initial": 0}, id="c", messages=increments(1)
        )
        with pytest.raises(AlreadyExists):
            await engine.client.start(
                counter_workflow,
                {"initial": 0},
                id="c",
                messages=increments(50),
                id_conflict_policy="fail",
            )
        await first.send("finish")
        assert await first.result("10s") == 1


async def test_startup_messages_of_a_start_that_takes_the_place_go_to_the_new_run(tmp_path: Path):
    """With ``terminate_existing`` the messages are the new run's alone."""
    async with engine_on(tmp_path, counter_workflow) as engine:
        await engine.client.start(counter_workflow, {"initial": 0}, id="c", messages=increments(1))
        new = await engine.client.start(
            counter_workflow,
            {"initial": 100},
            id="c",
            messages=increments(5),
            id_conflict_policy="terminate_existing",
        )
        await new.send("finish")
        assert await new.result("10s") == 105


# -- context -----------------------------------------------------------------------------------


@activity.define
async def who_pays() -> dict[str, Any]:
    return dict(activity.context)


@workflow.define
async def leaf(_: None) -> dict[str, Any]:
    return {"child": dict(workflow.context), "its activity": await who_pays()}


@workflow.define
async def tenant_workflow(rounds: int) -> dict[str, Any]:
    if rounds:
        await workflow.continue_as_new(rounds - 1)
    return {
        "user": workflow.context["user_id"],
        "all": dict(workflow.context),
        "missing": workflow.context.get("nothing"),
        "activity": await who_pays(),
        "inherited": await workflow.execute(leaf),
        "merged": (await workflow.execute(leaf, context={"tenant": "t-2", "extra": 1}))["child"],
    }


@pytest.mark.parametrize("rounds", [0, 1], ids=["in its first run", "after it continued as new"])
async def test_context_propagation(tmp_path: Path, rounds: int):
    """Context reaches the workflow, its activities and its children; a child's is merged over."""
    given = {"user_id": "user-1", "tenant": "tenant-1", "request_id": "req-abc"}
    async with engine_on(tmp_path, tenant_workflow, leaf, who_pays) as engine:
        got = await engine.client.execute(tenant_workflow, rounds, context=given)
        assert got == {
            "user": "user-1",
            "all": given,
            "missing": None,
            "activity": given,
            "inherited": {"child": given, "its activity": given},
            "merged": {**given, "tenant": "t-2", "extra": 1},
        }
        with pytest.raises(Invalid, match="context"):
            await engine.client.execute(tenant_workflow, 0, context={1: "not text"})


# -- from an HTTP handler ----------------------------------------------------------------------

StartResponse = Callable[[str, list[tuple[str, str]]], Any]


@workflow.define
async def web_order(order: Order) -> dict[str, Any]:
    await workflow.listen("ship").receive()
    return {"order": order["id"], "request": workflow.context.get("request_id")}


def application(url: str) -> Callable[[dict[str, Any], StartResponse], Iterable[bytes]]:
    """Return a WSGI application that starts an order and answers 202, or 409 if it is there."""

    async def begin(order: Order, request_id: str) -> tuple[str, dict[str, str]]:
        async with Client(url) as client:
            try:
                handle = await client.start(
                    "web_order",
                    order,
                    id=f"order-{order['id']}",
                    id_conflict_policy="fail",
                    context={"request_id": request_id},
                )
            except AlreadyExists as exc:
                return "409 Conflict", {"error": str(exc)}
            return "202 Accepted", {"workflow_id": handle.id, "status": "started"}

    def app(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        order = json.loads(environ["wsgi.input"].read())
        status, body = asyncio.run(begin(order, environ.get("HTTP_X_REQUEST_ID", "")))
        start_response(status, [("Content-Type", "application/json")])
        return [json.dumps(body).encode()]

    return app


def post(app: Any, body: Any, request_id: str) -> tuple[str, Any]:
    """Call a WSGI application as its server does."""
    answered: list[str] = []
    environ = {
        "REQUEST_METHOD": "POST",
        "HTTP_X_REQUEST_ID": request_id,
        "wsgi.input": BytesIO(json.dumps(body).encode()),
    }
    chunks = app(environ, lambda status, _headers: answered.append(status))
    return answered[0], json.loads(b"".join(chunks))


async def test_from_http_handlers(tmp_path: Path):
    """The web server's threads have clients of their own; workers are elsewhere."""
    async with engine_on(tmp_path, web_order) as engine:
        app = application(engine.url)
        answers = await asyncio.gather(
            *(asyncio.to_thread(post, app, {"id": 7}, f"req-{number}") for number in range(2))
        )
        codes = {status[:3]: body for status, body in answers}
        assert codes["202"] == {"workflow_id": "order-7", "status": "started"}
        assert "'order-7' exists" in codes["409"]["error"]
        handle = engine.client.get("order-7")
        await handle.send("ship")
        result = await handle.result("10s")
        assert result["order"] == 7 and result["request"] in ("req-0", "req-1")
