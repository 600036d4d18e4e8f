"""Seed 4's engine in memory: what its page shows, and what its original gets wrong."""

from __future__ import annotations

import asyncio
import itertools
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from tests.engine.support import until
from tests.seed4.steps import Flaky, Gate, Note, Payment, chain

from perdure import Engine, activity, workflow
from perdure.errors import Invalid, NotFound, UsageError
from perdure.graph import (
    BaseMachineStep,
    Edge,
    ExclusiveGateway,
    ExecutionEngine,
    InvalidTransitionError,
    LocalExecutionEngine,
    SequentialGroup,
    StepStatus,
    WorkflowAlreadyCompletedError,
    WorkflowDefinition,
    WorkflowInstance,
    WorkflowInstanceNotFoundError,
    WorkflowNotFoundError,
    WorkflowRegistry,
    WorkflowStatus,
    flow,
)


@pytest.fixture(autouse=True)
def _anew() -> None:
    Flaky.is_broken, Flaky.count = True, 0
    Gate.is_open = asyncio.Event()


def engine_of(*workflows: Any, **options: Any) -> LocalExecutionEngine:
    registry = WorkflowRegistry()
    for one in workflows:
        registry.register(one)
    return LocalExecutionEngine(registry, **options)


async def until_is(instance: Any, status: WorkflowStatus) -> None:
    await until(lambda: instance.status is status)


async def until_at(engine: LocalExecutionEngine, instance: Any, step: str) -> None:
    async def is_there() -> bool:
        return (await engine.get_instance(instance.id)).current_step == step

    await until(is_there)


async def test_an_instance_is_started_by_name_and_follows_its_run():
    engine = engine_of(chain(Note("first"), Gate(), Note("last")))
    instance = await engine.start_workflow("chain", {"given": 1})
    assert isinstance(instance, WorkflowInstance)
    assert isinstance(engine, ExecutionEngine)
    assert isinstance(instance.id, UUID)
    assert (instance.workflow_name, instance.workflow_version) == ("chain", "1.0.0")
    assert instance.status is WorkflowStatus.RUNNING
    assert instance.context.get("given") == 1
    await until_at(engine, instance, "gate")
    assert instance.context.has_step_executed("first")
    assert engine.get_running_instances() == [instance]
    Gate.is_open.set()
    await until_is(instance, WorkflowStatus.COMPLETED)
    assert instance.context.data == {"given": 1, "first": True, "last": True}
    assert [it.step_name for it in instance.context.step_history] == ["first", "gate", "last"]
    assert (instance.current_step, instance.result, instance.progress) == (None, "last", 100)
    assert instance.completed_at is not None and instance.completed_at >= instance.started_at
    assert engine.get_running_instances() == []
    assert engine.get_all_instances() == [instance]
    await engine.aclose()


async def test_it_is_started_by_class_or_definition_too_and_these_need_not_be_registered():
    definition = chain(Note("only"), name="alone")
    async with engine_of() as engine:
        by_class = await engine.start_workflow(Payment)
        by_definition = await engine.start_workflow(definition)
        await until_is(by_definition, WorkflowStatus.COMPLETED)
        await until_is(by_class, WorkflowStatus.WAITING)
        assert engine.registry.has_definition("payment")
        with pytest.raises(WorkflowNotFoundError, match="'nobody' not found"):
            await engine.start_workflow("nobody")


async def test_initial_data_that_is_no_mapping_is_refused():
    async with LocalExecutionEngine(WorkflowRegistry()) as engine:
        with pytest.raises(Invalid, match=r"initial_data: \[1\] is no mapping"):
            await engine.start_workflow("any", [1])  # type: ignore[arg-type]


async def test_the_latest_version_is_taken_unless_one_is_asked_for():
    versions = [chain(Note("only"), version=version) for version in ("2.0.0", "10.0.0")]
    async with engine_of(*versions) as engine:
        assert (await engine.start_workflow("chain")).workflow_version == "10.0.0"
        older = await engine.start_workflow("chain", version="2.0.0")
        assert older.workflow_version == "2.0.0"
        await until_is(older, WorkflowStatus.COMPLETED)


async def test_who_starts_it_and_for_whom_is_seen_by_its_steps():
    class Who(BaseMachineStep):
        name = "who"

        async def execute(self, context: Any) -> Any:
            return [context.user_id, context.tenant_id, context.instance_id]

    async with engine_of(chain(Who())) as engine:
        instance = await engine.start_workflow("chain", created_by="ada", tenant_id="acme")
        await until_is(instance, WorkflowStatus.COMPLETED)
        assert instance.result == ["ada", "acme", str(instance.id)]
        execution = await engine.client.get(instance.id).describe()
        assert (execution.created_by, execution.tenant) == ("ada", "acme")


async def test_an_instance_has_the_id_of_its_first_run_whatever_its_execution_is_called():
    async with engine_of(Payment) as engine:
        instance = await engine.start_workflow(Payment, id="order-7")
        await until_is(instance, WorkflowStatus.WAITING)
        found = await engine.get_instance(instance.id)
        assert found is instance
        assert (await engine.client.get("order-7").describe()).run_id == str(instance.id)
        assert (await engine.client.get(instance.id).describe()).id == "order-7"
        with pytest.raises(WorkflowInstanceNotFoundError, match="not found") as caught:
            await engine.get_instance(uuid4())
        assert isinstance(caught.value, NotFound)
        assert isinstance(caught.value, KeyError)
        assert isinstance(caught.value, ValueError)


@workflow.define
async def going_on(rounds: int) -> list[str]:
    if rounds:
        await workflow.continue_as_new(rounds - 1)
    found = workflow.info()
    return [found.run_id, found.first_run_id]


async def test_a_later_run_knows_the_first_one_and_so_do_its_steps():
    class Who(BaseMachineStep):
        name = "who"

        async def execute(self, context: Any) -> Any:
            return context.instance_id

    async with engine_of(chain(Who())) as engine:
        instance = await engine.start_workflow("chain", id="named")
        assert await instance.handle.result() == str(instance.id)
        await engine.retry(instance.id, from_step="who")
        assert await instance.handle.result() == str(instance.id)
        assert (await instance.handle.describe()).run_id != str(instance.id)
    async with Engine("memory://", [going_on]) as plain:
        handle = await plain.client.start(going_on, 2, id="on")
        last, first = await handle.result()
        assert first == handle.run_id != last
        assert (await plain.client.get(first).describe()).run_id == last


async def test_what_follows_a_join_is_run_and_a_gateway_decides():
    steps = [
        ExclusiveGateway("which", lambda context: context.get("way")),
        *[Note(name) for name in ("a", "b", "left", "right", "join", "end")],
    ]
    edges = [
        Edge("which", "a"),
        Edge("which", "b"),
        Edge("a", "left"),
        Edge("a", "right"),
        Edge("left", "join"),
        Edge("right", "join"),
        Edge("join", "end"),
    ]
    graph = WorkflowDefinition("graph", steps=steps, edges=edges, terminal_steps={"end", "b"})
    async with engine_of(graph) as engine:
        instance = await engine.start_workflow("graph", {"way": "a"})
        await until_is(instance, WorkflowStatus.COMPLETED)
        history = instance.context.step_history
        ran = [it.step_name for it in history if it.status is StepStatus.SUCCEEDED]
        assert sorted(ran) == ["a", "end", "join", "left", "right", "which"]
        assert [it.step_name for it in history if it.status is StepStatus.SKIPPED] == ["b"]
        with pytest.raises(InvalidTransitionError, match="nothing is recorded of step 'b'"):
            await engine.schedule_step(instance.id, "b", timedelta(seconds=9))
        assert ran[-2:] == ["join", "end"]


@pytest.mark.parametrize("others", [[], ["b", "c"]], ids=["alone", "beside others"])
async def test_an_edge_to_a_step_that_is_not_there_fails_the_instance_and_leaves_none_running(
    others: list[str],
):
    edges = [*(Edge("a", name) for name in others), Edge("a", "nowhere")]
    graph = WorkflowDefinition("graph", steps=[Note(n) for n in ["a", *others]], edges=edges)
    async with engine_of(graph) as engine:
        instance = await engine.start_workflow("graph")
        await until_is(instance, WorkflowStatus.FAILED)
        assert instance.error is not None and "'nowhere', which is no step" in instance.error


async def test_what_a_hook_of_a_failure_raises_is_why_the_instance_failed():
    class Wrong(Flaky):
        async def on_failure(self, context: Any, error: Exception) -> None:
            raise OSError("and the telephone too")

    async with engine_of(chain(Wrong("print"))) as engine:
        instance = await engine.start_workflow("chain")
        await until_is(instance, WorkflowStatus.FAILED)
        assert instance.error == 'Step "print" failed: and the telephone too'


async def test_a_failed_instance_says_why_and_goes_on_by_retry():
    async with engine_of(chain(Note("first"), Flaky("print"), Note("last"))) as engine:
        instance = await engine.start_workflow("chain")
        await until_is(instance, WorkflowStatus.FAILED)
        assert instance.error == 'Step "print" failed: the printer is on fire'
        assert instance.completed_at is not None
        Flaky.is_broken = False
        await engine.retry(instance.id)
        await until_is(instance, WorkflowStatus.COMPLETED)
        assert (instance.error, instance.result) == (None, "last")
        assert Flaky.count == 2
        assert (await engine.get_instance(instance.id)) is instance, "it keeps its id"


async def test_a_retry_from_a_step_runs_it_and_what_follows_again():
    async with engine_of(chain(Note("first"), Flaky("print"), Note("last"))) as engine:
        Flaky.is_broken = False
        instance = await engine.start_workflow("chain")
        await until_is(instance, WorkflowStatus.COMPLETED)
        with pytest.raises(InvalidTransitionError, match="nothing failed"):
            await engine.retry(instance.id)
        await engine.retry(instance.id, from_step="print")
        await instance.handle.result()
        await instance.refresh()
        assert instance.context.get_step_result("print") == {"count": 2}


async def test_a_retry_from_a_step_within_a_group():
    group = SequentialGroup(Note("first"), Flaky("print"), name="both")
    async with engine_of(chain(group, Note("last"))) as engine:
        instance = await engine.start_workflow("chain")
        await until_is(instance, WorkflowStatus.FAILED)
        Flaky.is_broken = False
        await engine.retry(instance.id, from_step="print")
        await until_is(instance, WorkflowStatus.COMPLETED)
        assert Flaky.count == 2


async def test_a_retry_of_what_runs_and_from_what_is_no_step_is_refused():
    async with engine_of(Payment) as engine:
        instance = await engine.start_workflow(Payment)
        await until_is(instance, WorkflowStatus.WAITING)
        says = "Invalid transition from 'waiting' to 'running'"
        with pytest.raises(InvalidTransitionError, match=says):
            await engine.retry(instance.id)
        await engine.cancel_workflow(instance.id, "enough")
        with pytest.raises(NotFound, match=r"no step 'ordr' \(it has: order, paid, ship\)"):
            await engine.retry(instance.id, from_step="ordr")
        with pytest.raises(InvalidTransitionError, match="nothing is recorded of step 'ship'"):
            await engine.retry(instance.id, from_step="ship")
        with pytest.raises(WorkflowInstanceNotFoundError):
            await engine.retry(uuid4())


async def test_a_step_may_be_scheduled_for_later():
    async with engine_of(chain(Note("first"), Flaky("print"))) as engine:
        instance = await engine.start_workflow("chain")
        await until_is(instance, WorkflowStatus.FAILED)
        Flaky.is_broken = False
        await engine.schedule_step(instance.id, "print", timedelta(milliseconds=1))
        await until_is(instance, WorkflowStatus.COMPLETED)
        await engine.schedule_step(instance.id, "print")
        await until(lambda: Flaky.count == 3)


async def test_a_cancel_ends_it_and_what_has_ended_stays_as_it_is():
    async with engine_of(Payment, chain(Note("only"))) as engine:
        instance = await engine.start_workflow(Payment)
        await engine.cancel_workflow(instance.id, reason="a change of mind")
        assert instance.status is WorkflowStatus.CANCELED
        assert instance.error == "Canceled: a change of mind"
        with pytest.raises(WorkflowAlreadyCompletedError, match="is already canceled"):
            await engine.cancel_workflow(instance.id, reason="again")
        done = await engine.start_workflow("chain")
        await until_is(done, WorkflowStatus.COMPLETED)
        with pytest.raises(WorkflowAlreadyCompletedError, match="is already completed"):
            await engine.cancel_workflow(done.id, reason="late")
        assert (await engine.get_instance(done.id)).status is WorkflowStatus.COMPLETED


class Ledger:
    """A persistence and an event bus that write down what they are told."""

    def __init__(self, *, is_broken: bool = False) -> None:
        self.is_broken = is_broken
        self.events: list[Any] = []
        self.saved: list[Any] = []

    async def emit(self, event: str, **data: Any) -> None:
        self.events.append((event, data))
        if self.is_broken:
            raise OSError("no bus today")

    async def save_instance(self, instance: Any) -> None:
        self.saved.append((instance.id, instance.status))
        if self.is_broken:
            raise OSError("no disk today")

    async def load_instance(self, instance_id: UUID) -> Any:
        if self.is_broken:
            raise OSError("no disk today")
        return "an old one" if instance_id == UUID(int=1) else None


async def test_persistence_and_event_bus_are_told_of_each_state():
    ledger = Ledger()
    engine = engine_of(Payment, chain(Flaky("print")), persistence=ledger, event_bus=ledger)
    async with engine:
        paid = await engine.start_workflow(Payment)
        await until_is(paid, WorkflowStatus.WAITING)
        await paid.handle.send("paid", {"amount": 7})
        await until_is(paid, WorkflowStatus.COMPLETED)
        failed = await engine.start_workflow("chain")
        await until_is(failed, WorkflowStatus.FAILED)
        stopped = await engine.start_workflow(Payment)
        await until_is(stopped, WorkflowStatus.WAITING)
        await engine.cancel_workflow(stopped.id, "enough")
        assert await engine.get_instance(UUID(int=1)) == "an old one"  # type: ignore[comparison-overlap]
        with pytest.raises(WorkflowInstanceNotFoundError):
            await engine.get_instance(UUID(int=2))
    told = [(name, data) for name, data in ledger.events if data["instance_id"] == paid.id]
    assert told == [
        ("workflow.started", {"instance_id": paid.id}),
        ("workflow.waiting", {"instance_id": paid.id, "step_name": "paid"}),
        ("workflow.completed", {"instance_id": paid.id, "status": "completed"}),
    ]
    assert ("workflow.failed", {"instance_id": failed.id, "status": "failed"}) in ledger.events
    cancelled = {"instance_id": stopped.id, "reason": "enough"}
    assert ledger.events[-1] == ("workflow.canceled", cancelled)
    assert ledger.saved[-1] == (stopped.id, WorkflowStatus.CANCELED)


async def test_a_persistence_that_is_slow_is_shown_each_state_as_it_was():
    class Slow:
        def __init__(self) -> None:
            self.may_go_on = asyncio.Event()
            self.seen: list[tuple[Any, ...]] = []

        async def save_instance(self, instance: Any) -> None:
            await self.may_go_on.wait()
            self.seen.append((instance.status, instance.current_step, {**instance.context.data}))

        async def load_instance(self, instance_id: UUID) -> None:
            return None

    slow = Slow()
    async with engine_of(Payment, persistence=slow) as engine:
        instance = await engine.start_workflow(Payment)
        await until_is(instance, WorkflowStatus.WAITING)
        await instance.handle.send("paid", 7)
        await instance.ended()
        slow.may_go_on.set()
    was = {"order": True}
    seen = [state for state, after in itertools.pairwise([*slow.seen, None]) if state != after]
    assert seen == [
        ("running", "order", {}),
        ("waiting", "paid", was),
        ("running", "ship", was | {"webhook_data": 7}),
        ("completed", None, was | {"webhook_data": 7, "ship": True}),
    ]


async def test_a_listener_that_fails_is_logged_and_breaks_no_run(caplog: pytest.LogCaptureFixture):
    ledger = Ledger(is_broken=True)
    async with engine_of(chain(Note("only")), persistence=ledger, event_bus=ledger) as engine:
        instance = await engine.start_workflow("chain")
        await until_is(instance, WorkflowStatus.COMPLETED)
        with pytest.raises(WorkflowInstanceNotFoundError):
            await engine.get_instance(uuid4())
    assert len(ledger.events) == 2
    assert {"no bus today", "no disk today"} <= {
        str(record.exc_info[1]) for record in caplog.records if record.exc_info
    }


async def test_a_definition_without_its_first_step_fails_and_says_which():
    definition = WorkflowDefinition("wrong", steps=[Note("a")], initial_step="b")
    async with engine_of(definition) as engine:
        instance = await engine.start_workflow("wrong")
        await instance.ended()
        assert instance.status is WorkflowStatus.FAILED
        assert instance.error == "Step 'b' not found in definition 'wrong'"


async def test_what_is_no_condition_does_not_hold():
    ways: Any = [Edge("a", "b", False)]  # type: ignore[arg-type]
    definition = WorkflowDefinition("wrong", steps=[Note("a"), Note("b")], edges=ways)
    async with engine_of(definition) as engine:
        instance = await engine.start_workflow("wrong")
        await instance.ended()
        assert instance.status is WorkflowStatus.FAILED
        assert "condition False is neither a function of the context nor a text" in str(
            instance.error
        )


async def test_activities_and_workflows_that_steps_call_by_name_are_options_of_the_engine():
    @activity.define(name="price")
    async def price(sku: str) -> int:
        return len(sku)

    @workflow.define(name="double")
    async def double(number: int) -> int:
        return 2 * number

    called = (
        flow("called")
        .task("price", job="price", input=lambda ctx: ctx.get("sku"))
        .subflow("double", double)
        .build()
    )
    # What is registered, too, may be named once more.
    async with engine_of(called, definitions=[price, double, called]) as engine:
        instance = await engine.start_workflow("called", {"sku": "abc"})
        await instance.ended()
        assert (instance.error, instance.result) == (None, 6)


async def test_a_database_carries_instances_over_the_end_of_the_engine(tmp_path: Path):
    url = f"sqlite:///{tmp_path / 'app.db'}"
    async with engine_of(Payment, url=url) as engine:
        instance = await engine.start_workflow(Payment, {"number": 7})
        await until_is(instance, WorkflowStatus.WAITING)
    ledger = Ledger()
    async with engine_of(Payment, url=url, event_bus=ledger) as engine:
        again = await engine.get_instance(instance.id)
        assert again is not instance
        assert (again.status, again.current_step) == (WorkflowStatus.WAITING, "paid")
        await again.handle.send("paid", {"amount": 7})
        await until_is(again, WorkflowStatus.COMPLETED)
        assert again.context.get("webhook_data") == {"amount": 7}
        assert again.context.get("number") == 7
    assert [name for name, _ in ledger.events] == ["workflow.completed"]


async def test_listeners_hear_of_instances_that_another_process_began(tmp_path: Path):
    url = f"sqlite:///{tmp_path / 'app.db'}"
    async with engine_of(Payment, url=url) as engine:
        instance = await engine.start_workflow(Payment)
        await until_is(instance, WorkflowStatus.WAITING)
    ledger = Ledger()
    async with engine_of(Payment, url=url, event_bus=ledger) as engine:
        handle = engine.client.get(instance.id)
        await handle.send("paid", {})
        await handle.result()
        await until(lambda: bool(ledger.events))
    assert ledger.events == [
        ("workflow.completed", {"instance_id": instance.id, "status": "completed"})
    ]


async def test_a_closed_engine_refuses_and_says_so():
    engine = engine_of(chain(Note("only")))
    with pytest.raises(UsageError, match="is not open"):
        _ = engine.client
    await engine.open()
    await engine.aclose()
    await engine.aclose()
    with pytest.raises(UsageError, match="the engine is closed"):
        await engine.start_workflow("chain")
    assert engine.get_all_instances() == []


async def test_a_version_that_was_deactivated_in_the_database_is_not_chosen(tmp_path: Path):
    versions = [chain(Note("only"), version=version) for version in ("9.0.0", "10.0.0")]
    url = f"sqlite:///{tmp_path / 'app.db'}"

    async def set_active(engine: LocalExecutionEngine, version: str, *, active: bool) -> None:
        door = engine.client.door
        await door.write(lambda store: store.activate("chain", version, is_active=active))

    async with engine_of(*versions, url=url) as engine:
        assert (await engine.start_workflow("chain")).workflow_version == "10.0.0"
        await set_active(engine, "10.0.0", active=False)
    async with engine_of(*versions, url=url) as engine:
        assert (await engine.start_workflow("chain")).workflow_version == "9.0.0"
        with pytest.raises(WorkflowNotFoundError, match=r"version '10\.0\.0' is deactivated"):
            await engine.start_workflow("chain", version="10.0.0")
        await set_active(engine, "9.0.0", active=False)
        with pytest.raises(WorkflowNotFoundError, match="is deactivated"):
            await engine.start_workflow("chain")
        await set_active(engine, "10.0.0", active=True)
        assert (await engine.start_workflow("chain")).workflow_version == "10.0.0"
