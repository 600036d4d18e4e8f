"""The table of events: names, payload keys, order, and what is told of failures and waits."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.engine.support import engine_on, until_status
from tests.seed3.test_machines import Order, order_flow

from perdure import ApplicationError, Engine, Retry, activity, workflow
from perdure.engine.release import Release
from perdure.errors import WorkflowCancelled, WorkflowFailed, WorkflowTimedOut
from perdure.graph import branch, flow
from perdure.named import NamedEvent
from perdure.store.port import Batch, Committed
from perdure.values.states import Status

WHO = {"instance_id", "workflow_name"}
KEYS = {
    "workflow.started": {"input"},
    "workflow.progress": {"progress", "current_step", "completed_steps", "total_steps"},
    "workflow.completed": {"output"},
    "workflow.failed": {"error"},
    "workflow.cancelled": set[str](),
    "workflow.step.started": {"step_name", "step_type"},
    "workflow.step.completed": {"step_name", "output"},
    "workflow.step.failed": {"step_name", "error", "attempts"},
    "workflow.step.retry": {"step_name", "attempt", "max_attempts", "delay", "error"},
    "workflow.step.poll": {"step_name", "poll_count", "done", "result"},
    "workflow.step.loop": {"step_name", "loop_count", "target"},
    "workflow.event": {"event", "data"},
}


class Heard:
    """What an engine's listener was told, and that the store tells the same."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.events: list[NamedEvent] = []
        engine.events.on("workflow.*", self.events.append)

    @property
    def names(self) -> list[str]:
        """Names of the events, without the part that all share; of steps, with the step's."""
        names: list[str] = []
        for event in self.events:
            name = event.name.removeprefix("workflow.")
            names.append(f"{name} {event.data['step_name']}" if "step_name" in event.data else name)
        return names

    def of(self, name: str) -> list[dict[str, Any]]:
        """Payloads of the events of a name, without the keys that all share."""
        return [
            {key: value for key, value in event.data.items() if key not in WHO}
            for event in self.events
            if event.name == f"workflow.{name}"
        ]

    async def check(self, name: str, id: str) -> None:
        """Look at the keys, at who they name, and hold what was heard against what is stored."""
        for event in self.events:
            assert (event.data["instance_id"], event.data["workflow_name"]) == (id, name)
            if event.name in KEYS:
                assert set(event.data) - {"status"} == KEYS[event.name] | WHO
        stored = [event async for event in self._engine.client.events(follow=False)]
        assert [(it.name, it.data, it.at, it.run_id) for it in stored] == [
            (it.name, it.data, it.at, it.run_id) for it in self.events
        ]
        assert len({event.id for event in stored}) == len(stored)


async def test_the_quick_start_tells_its_events_in_order(tmp_path: Path):
    order = order_flow()
    async with engine_on(tmp_path, order) as engine:
        heard = Heard(engine)
        result = await engine.client.execute(order, Order("A-1"), id="A-1")
        assert heard.names == [
            "started",
            "step.started validate",
            "step.completed validate",
            "progress",
            "step.started check-inventory",
            "step.completed check-inventory",
            "progress",
            "step.skipped backorder",
            "step.started fulfill",
            "step.started ship",
            "step.started notify",
            *sorted(
                [
                    it
                    for it in heard.names
                    if it in ("step.completed ship", "step.completed notify")
                ],
                key=heard.names.index,
            ),
            "step.completed fulfill",
            "progress",
            "step.started complete",
            "step.completed complete",
            "progress",
            "completed",
        ]
        await heard.check("process-order", "A-1")
    assert heard.of("started") == [{"input": {"order_id": "A-1", "in_stock": True}}]
    assert heard.of("completed") == [{"output": result}]
    kinds = {it["step_name"]: it["step_type"] for it in heard.of("step.started")}
    assert kinds == {
        "validate": "task",
        "check-inventory": "choice",
        "fulfill": "parallel",
        "ship": "task",
        "notify": "task",
        "complete": "pass",
    }
    outputs = {it["step_name"]: it["output"] for it in heard.of("step.completed")}
    assert outputs["ship"] == {"shipped": "A-1"}
    assert outputs["check-inventory"] == {"chosen": "fulfill"}
    assert outputs["fulfill"] == outputs["complete"] == result
    assert [it["progress"] for it in heard.of("progress")] == [20, 40, 80, 100]
    assert heard.of("step.skipped") == [
        {"step_name": "backorder", "step_type": "task", "reason": "not_chosen"}
    ]
    assert heard.of("progress")[0] == {
        "progress": 20,
        "current_step": "validate",
        "completed_steps": 1,
        "total_steps": 5,
    }


async def test_a_step_that_fails_tells_its_retries_and_its_attempts(tmp_path: Path):
    async def charge() -> None:
        raise ApplicationError("card declined", kind="Declined")

    retry = Retry(max_attempts=3, interval="1ms", backoff=2.0)
    paying = flow("paying").task("charge", charge, retry=retry).build()
    async with engine_on(tmp_path, paying) as engine:
        heard = Heard(engine)
        handle = await engine.client.start(paying, id="p")
        with pytest.raises(WorkflowFailed):
            await handle.result("20s")
        await heard.check("paying", "p")
    assert heard.names[:2] == ["started", "step.started charge"]
    retries = heard.of("step.retry")
    assert retries == [
        {
            "step_name": "charge",
            "attempt": number,
            "max_attempts": 3,
            "delay": 0.001 * number,
            "error": "card declined",
        }
        for number in (1, 2)
    ]
    assert heard.of("step.failed") == [
        {"step_name": "charge", "error": "card declined", "attempts": 3}
    ]
    assert heard.of("failed") == [{"error": 'Step "charge" failed: card declined'}]


async def test_a_step_without_an_activity_tells_its_own_mistake(tmp_path: Path):
    choosing = flow("choosing").choice("which", [(lambda c: False, "end")]).end().build()
    async with engine_on(tmp_path, choosing) as engine:
        heard = Heard(engine)
        handle = await engine.client.start(choosing, id="c")
        with pytest.raises(WorkflowFailed):
            await handle.result("20s")
        await heard.check("choosing", "c")
    text = "No choice condition matched and no default specified"
    assert heard.of("step.failed") == [{"step_name": "which", "error": text, "attempts": 1}]


async def test_polls_and_loops_tell_each_round(tmp_path: Path):
    asked: list[int] = []

    async def check() -> dict[str, Any]:
        asked.append(1)
        return {"done": len(asked) == 2, "result": {"after": len(asked)}}

    def count(input: Any) -> dict[str, int]:
        return {"n": (input or {}).get("n", 0) + 1}

    around = (
        flow("around")
        .task("count", count)
        .loop("again", condition=lambda c: c.steps["count"]["n"] < 2, target="count", timeout="30s")
        .poll("ask", check, interval="1ms", max_attempts=9)
        .build()
    )
    async with engine_on(tmp_path, around) as engine:
        heard = Heard(engine)
        await engine.client.execute(around, id="a")
        await heard.check("around", "a")
    assert heard.of("step.loop") == [{"step_name": "again", "loop_count": 1, "target": "count"}]
    assert heard.of("step.poll") == [
        {"step_name": "ask", "poll_count": 1, "done": False, "result": {"after": 1}},
        {"step_name": "ask", "poll_count": 2, "done": True, "result": {"after": 2}},
    ]
    outputs = [it["output"] for it in heard.of("step.completed") if it["step_name"] == "ask"]
    assert outputs == [{"after": 2}]
    assert heard.names[-2:] == ["progress", "completed"]


async def test_what_handlers_and_workflows_emit_is_told_once(tmp_path: Path):
    attempts: list[int] = []

    async def report(input: Any, ctx: Any) -> dict[str, Any]:
        attempts.append(1)
        await ctx.emit("progress", {"stage": "fetch"})
        if len(attempts) == 1:
            raise ApplicationError("again")
        await ctx.emit("progress", {"stage": "write"})
        return {"data": 1}

    reporting = (
        flow("reporting").task("run", report, retry=Retry(max_attempts=2, interval="1ms")).build()
    )
    async with engine_on(tmp_path, reporting) as engine:
        heard = Heard(engine)
        await engine.client.execute(reporting, id="r")
        await heard.check("reporting", "r")
    assert heard.of("event") == [
        {"event": "progress", "data": {"stage": "fetch"}},
        {"event": "progress", "data": {"stage": "write"}},
    ]
    assert heard.names[2:6] == ["step.retry run", "event", "event", "step.completed run"]


async def test_a_job_and_a_skipped_step_tell_their_ends(tmp_path: Path):
    from perdure.graph import BaseMachineStep, Edge, WorkflowDefinition
    from perdure.graph.steps import JobStep

    @activity.define
    async def price(order: Any) -> dict[str, Any]:
        return {"changes": "of prices", "output": 7}

    class Never(BaseMachineStep):
        name = "never"

        async def can_execute(self, context: Any) -> bool:
            return False

    steps = [JobStep("cost", "price"), Never()]
    graph = WorkflowDefinition("priced", steps=steps, edges=[Edge("cost", "never")])
    async with engine_on(tmp_path, graph, price) as engine:
        heard = Heard(engine)
        await engine.client.execute(graph, {}, id="g")
        await heard.check("priced", "g")
    assert heard.names == [
        "started",
        "step.started cost",
        "step.completed cost",
        "progress",
        "step.started never",
        "step.skipped never",
        "progress",
        "completed",
    ]
    outputs = [it["output"] for it in heard.of("step.completed")]
    assert outputs == [{"changes": "of prices", "output": 7}], "as the activity gave it"


async def test_an_output_without_a_form_does_not_fail_the_run(tmp_path: Path):
    odd = flow("odd").pass_("make", transform=lambda c: object()).pass_("drop", result=1).build()
    async with engine_on(tmp_path, odd) as engine:
        heard = Heard(engine)
        assert await engine.client.execute(odd, id="o") == 1
        await heard.check("odd", "o")
    assert [it["output"] for it in heard.of("step.completed")] == ["<object>", 1]


async def test_fail_fast_tells_which_steps_were_cancelled(tmp_path: Path):
    began = asyncio.Event()

    async def slow() -> None:
        began.set()
        await asyncio.Event().wait()

    async def fail() -> None:
        await began.wait()
        raise ApplicationError("no", retryable=False)

    both = (
        flow("both")
        .parallel("two", [branch("a").task("slow", slow), branch("b").task("fail", fail)])
        .build()
    )
    async with engine_on(tmp_path, both) as engine:
        heard = Heard(engine)
        handle = await engine.client.start(both, id="b")
        with pytest.raises(WorkflowFailed):
            await handle.result("20s")
        await heard.check("both", "b")
    ends = [it for it in heard.names if not it.startswith(("started", "step.started"))]
    assert ends == ["step.failed fail", "step.cancelled slow", "step.failed two", "failed"]


# -- functions, and ends of all kinds --------------------------------------------------------------


@activity.define(retry=Retry(max_attempts=2, interval="1ms"))
async def fragile(fails: bool) -> str:
    if fails and activity.info().attempt == 1:
        raise ValueError("at first")
    return "done"


@workflow.define
async def function(fails: bool) -> str:
    await workflow.emit("hello", {"n": 1})
    await workflow.progress(1, 2, "half")
    return await fragile(fails)


async def test_activities_are_the_steps_of_a_function(tmp_path: Path):
    async with engine_on(tmp_path, function, fragile) as engine:
        heard = Heard(engine)
        await engine.client.execute(function, True, id="f")
        await heard.check("function", "f")
    assert heard.names == [
        "started",
        "event",
        "progress",
        "step.started fragile",
        "step.retry fragile",
        "step.completed fragile",
        "completed",
    ]
    assert heard.of("event") == [{"event": "hello", "data": {"n": 1}}]
    assert heard.of("progress") == [
        {"progress": 50, "current_step": "half", "completed_steps": 1.0, "total_steps": 2.0}
    ]
    assert heard.of("step.started") == [{"step_name": "fragile", "step_type": "activity"}]
    assert heard.of("step.completed") == [{"step_name": "fragile", "output": "done"}]


@workflow.define
async def waiter() -> None:
    await workflow.inbox().receive()


@pytest.mark.parametrize(
    ("how", "name", "more"),
    [
        ("cancel", "cancelled", {}),
        ("terminate", "cancelled", {"status": "terminated"}),
        ("time", "failed", {"error": "the run timeout passed", "status": "timed_out"}),
    ],
)
async def test_ends_from_outside_are_told(
    tmp_path: Path, how: str, name: str, more: dict[str, Any]
):
    async with engine_on(tmp_path, waiter) as engine:
        heard = Heard(engine)
        options = {"run_timeout": "1ms"} if how == "time" else {}
        handle = await engine.client.start(waiter, id="w", **options)
        if how != "time":
            await getattr(handle, how)()
        with pytest.raises((WorkflowCancelled, WorkflowTimedOut, Exception)):
            await handle.result("20s")
        await heard.check("waiter", "w")
    assert heard.names == ["started", name]
    assert heard.of(name) == [more]


@workflow.define
async def greeter() -> None:
    workflow.logger.info("waiting")
    await workflow.inbox().receive()


async def test_a_start_is_told_though_a_look_at_the_store_was_faster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    acknowledged, looked = Release.committed, list[int]()

    def late(self: Release, batch: Batch, result: Committed) -> None:
        for started in result.started:
            self._core.take_up(started.run)
            looked.append(started.run)
        acknowledged(self, batch, result)

    monkeypatch.setattr(Release, "committed", late)
    caplog.set_level("INFO", "perdure.workflow")
    async with engine_on(tmp_path, greeter) as engine:
        heard = Heard(engine)
        lines: list[NamedEvent] = []
        engine.events.on("log.workflow", lines.append)
        handle = await engine.client.start(greeter, id="w")
        await handle.send("go")
        await handle.result("20s")
        await heard.check("greeter", "w")
    assert len(looked) == 1
    assert heard.names == ["started", "completed"]
    assert [line.data["message"] for line in lines] == ["waiting"]
    assert [it.getMessage() for it in caplog.records] == ["[w] waiting"]


async def test_a_pause_and_what_follows_it_is_told(tmp_path: Path):
    async with engine_on(tmp_path, waiter) as engine:
        heard = Heard(engine)
        handle = await engine.client.start(waiter, id="w")
        await handle.pause()
        await until_status(handle, Status.PAUSED)
        await handle.resume()
        await handle.send("any")
        await handle.result("20s")
        await heard.check("waiter", "w")
    assert heard.names == ["started", "paused", "resumed", "completed"]


@workflow.define
async def again(left: int) -> str:
    if left:
        await workflow.continue_as_new(left - 1)
    return "over"


async def test_a_continuation_names_the_next_run(tmp_path: Path):
    async with engine_on(tmp_path, again) as engine:
        heard = Heard(engine)
        await engine.client.execute(again, 1, id="a")
        await heard.check("again", "a")
    assert heard.names == ["started", "continued", "started", "completed"]
    assert heard.events[1].data["run_id"] == heard.events[2].run_id == heard.events[3].run_id
