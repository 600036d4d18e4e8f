"""Human tasks by seed 4's engines and repositories: what is asked, who answers, what is refused."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from tests.engine.support import until
from tests.seed4.database import engine_in, sessions_on, until_is
from tests.seed4.steps import Approval, Expense, Note, chain
from tests.seed4.test_models import compare

from perdure.contrib.sqlalchemy import (
    HumanTaskModel,
    HumanTaskRepository,
    StepExecutionRepository,
)
from perdure.errors import Conflict, HumanTaskError, Invalid, NotFound
from perdure.graph import (
    BaseHumanStep,
    InstanceNotWaitingError,
    InvalidTransitionError,
    LocalExecutionEngine,
    ParallelGroup,
    StepType,
    TaskNotFoundError,
    UnauthorizedTaskError,
    WorkflowContext,
    WorkflowDefinition,
    WorkflowRegistry,
    WorkflowStatus,
    branch,
    flow,
)


async def test_a_human_task_is_completed_by_its_step_and_the_instance_goes_on():
    registry = WorkflowRegistry()
    registry.register(Expense)
    heard: list[Any] = []

    class Bus:
        async def emit(self, event: str, **data: Any) -> None:
            heard.append((event, data.get("step_name")))

    async with LocalExecutionEngine(registry, event_bus=Bus()) as engine:
        instance = await engine.start_workflow("expense", {"amount": 7})
        await until_is(instance, "waiting")
        assert instance.current_step == "approval"
        await engine.complete_human_task(instance.id, "approval", "ada", {"approved": True})
        await until_is(instance, "completed")
        assert instance.context.data == {
            "amount": 7,
            "submit": True,
            "approved": True,
            "pay": True,
        }
        assert instance.context.user_id == "ada"
        done = instance.context.get_last_execution("approval")
        assert done is not None and done.output_data == {"approved": True}
    assert heard[:2] == [("workflow.started", None), ("workflow.waiting", "approval")]
    assert heard[-1] == ("workflow.completed", None)


async def test_a_human_step_may_be_the_last_and_ends_the_instance(tmp_path: Path):
    async with engine_in(tmp_path, chain(Note("submit"), Approval())) as (engine, _):
        instance = await engine.start_workflow("chain")
        await until_is(instance, "waiting")
        await engine.complete_human_task(instance.id, "approval", "ada", {"approved": False})
        await until_is(instance, "completed")
        assert instance.result == {"approved": False}


async def test_a_retry_from_a_human_step_asks_again(tmp_path: Path):
    async with engine_in(tmp_path, Expense) as (engine, session):
        instance = await engine.start_workflow(Expense)
        await until_is(instance, "waiting")
        await engine.complete_human_task(instance.id, "approval", "ada", {"approved": False})
        await until_is(instance, "completed")
        await engine.retry(instance.id, from_step="approval")
        await until_is(instance, "waiting")
        await engine.complete_human_task(instance.id, "approval", "bob", {"approved": True})
        await until_is(instance, "completed")
        assert instance.context.get("approved") is True
        found = await HumanTaskRepository(session=session).find_by_instance(instance.id)
        assert [one.completed_by for one in found] == ["ada", "bob"]


async def test_what_is_not_waited_for_or_does_not_fit_is_refused_and_changes_nothing(
    tmp_path: Path,
):
    async with engine_in(tmp_path, Expense, chain(Note("only"))) as (engine, _):
        done = await engine.start_workflow("chain")
        await until_is(done, "completed")
        says = rf"Instance {done.id} is not waiting \(status: completed\)"
        with pytest.raises(InstanceNotWaitingError, match=says) as caught:
            await engine.complete_human_task(done.id, "approval", "ada", {})
        assert isinstance(caught.value, ValueError)
        assert isinstance(caught.value, HumanTaskError)

        instance = await engine.start_workflow(Expense, {"boss": "grace"})
        await until_is(instance, "waiting")
        with pytest.raises(ValueError, match="is waiting at step 'approval', not 'pay'"):
            await engine.complete_human_task(instance.id, "pay", "grace", {"approved": True})
        with pytest.raises(Invalid, match='approved: "yes" is not of type "boolean"'):
            await engine.complete_human_task(instance.id, "approval", "grace", {"approved": "yes"})
        with pytest.raises(UnauthorizedTaskError, match="assigned to 'grace'"):
            await engine.complete_human_task(instance.id, "approval", "ada", {"approved": True})
        for kind in (KeyError, ValueError, NotFound):
            with pytest.raises(kind):
                await engine.complete_human_task(uuid4(), "approval", "ada", {})
        assert (await engine.get_instance(instance.id)).status is WorkflowStatus.WAITING


async def test_what_a_step_itself_refuses_is_refused_before_it_is_entered(tmp_path: Path):
    class Reasoned(Approval):
        async def validate_submission(self, data: Any, context: WorkflowContext) -> list[str]:
            silent = not data["approved"] and not data.get("why")
            return [f"say why not {context.get('amount')}"] if silent else []

    inside = ParallelGroup(Reasoned("second"), Note("beside"))
    async with engine_in(tmp_path, chain(Reasoned(), inside)) as (engine, session):
        instance = await engine.start_workflow("chain", {"amount": 7})
        for step in ("approval", "second"):
            await until(lambda step=step: step in instance.current_steps)
            await until_is(instance, "waiting")
            with pytest.raises(Invalid, match=f"step '{step}': say why not 7"):
                await engine.complete_human_task(instance.id, step, "ada", {"approved": False})
            with pytest.raises(Invalid, match="value.approved"):
                await engine.complete_human_task(instance.id, step, "ada", {"approved": "no"})
            entered = {"approved": False, "why": "dear"}
            await engine.complete_human_task(instance.id, step, "ada", entered)
        await until_is(instance, "completed")
        asked = await HumanTaskRepository(session=session).find_by_instance(instance.id)
        assert [one.status for one in asked] == ["completed", "completed"]


async def test_of_several_that_a_step_asks_each_answers_what_they_were_asked():
    people = ["ada", None, "bob"]
    ask = BaseHumanStep("ask", title="?", assignee=lambda context: context.prev)
    definition = flow("all").map("each", branch("one").add(ask), items=lambda _: people).build()
    registry = WorkflowRegistry()
    registry.register(definition)
    async with LocalExecutionEngine(registry) as engine:
        instance = await engine.start_workflow(definition)
        tasks = engine.client.human_tasks

        async def are_asked() -> bool:
            return await tasks.count(workflow_id=instance.handle.id) == 3

        await until(are_asked)
        await engine.complete_human_task(instance.id, "ask", "bob", {"by": "bob"})
        await engine.complete_human_task(instance.id, "ask", "eve", {"by": "eve"})
        with pytest.raises(UnauthorizedTaskError, match="'ada'"):
            await engine.complete_human_task(instance.id, "ask", "eve", {})
        await engine.complete_human_task(instance.id, "ask", "ada", {"by": "ada"})
        await instance.ended()
        assert instance.result == [{"by": "ada"}, {"by": "eve"}, {"by": "bob"}]


async def test_a_human_task_outlives_the_engine_that_asked(tmp_path: Path):
    async with engine_in(tmp_path, Expense) as (engine, _):
        instance = await engine.start_workflow(Expense)
        await until_is(instance, "waiting")
    async with sessions_on(tmp_path) as sessions, sessions() as session:
        repository = HumanTaskRepository(session=session)
        [asked] = await repository.find_pending()
        answered = await repository.complete_task(asked.id, "ada", {"approved": True})
        assert answered is not None and answered.completed_by == "ada"
    async with engine_in(tmp_path, Expense) as (engine, session):
        found = await engine.get_instance(instance.id)
        await until_is(found, "completed")
        await compare(engine, session, instance.id)
        step = await StepExecutionRepository(session=session).find_by_step_name(
            instance.id, "approval"
        )
        assert step is not None
        assert (step.step_type, step.completed_by) == (StepType.HUMAN, "ada")
        assert step.id == asked.step_execution_id


class ByGroup(Approval):
    name = "by_group"
    group = "finance"
    assignee_key = ""
    due = timedelta(days=2)
    remind = timedelta(days=1)


async def test_human_tasks_are_found_by_person_group_and_instance(tmp_path: Path):
    first = chain(Approval(), name="first")
    second = chain(ByGroup(), name="second")
    async with engine_in(tmp_path, first, second) as (engine, session):
        mine = await engine.start_workflow("first", {"boss": "ada"})
        free = await engine.start_workflow("first")
        grouped = await engine.start_workflow("second")
        for one in (mine, free, grouped):
            await until_is(one, "waiting")
        repository = HumanTaskRepository(session=session)

        async def found(**filters: Any) -> list[UUID]:
            return [one.instance_id for one in await repository.find_pending(**filters)]

        assert await found() == [grouped.id, mine.id, free.id], "what is due comes first"
        assert await found(assignee_id="ada") == [grouped.id, mine.id, free.id]
        assert await found(assignee_id="bob") == [grouped.id, free.id]
        assert await found(assignee_group="finance") == [grouped.id, mine.id, free.id]
        assert await found(assignee_group="sales") == [mine.id, free.id]
        [task] = await repository.find_by_instance(grouped.id)
        assert (task.step_name, task.title, task.description, task.assignee_group) == (
            "by_group",
            "Approval Required",
            "Is it right?",
            "finance",
        )
        assert task.form_schema == Approval.form_schema
        assert task.due_at is not None and task.reminder_at is not None
        assert task.due_at - task.reminder_at == timedelta(days=1)
        assert (task.status, task.completed_at, task.completed_by) == ("pending", None, None)
        assert await repository.find_overdue() == []
        assert await repository.count(HumanTaskModel.status == "pending") == 3


async def test_what_is_overdue_is_found_while_the_engine_runs_and_can_be_done(tmp_path: Path):
    class Late(Approval):
        due = "10ms"

    async with engine_in(tmp_path, chain(Late())) as (engine, session):
        instance = await engine.start_workflow("chain")
        repository = HumanTaskRepository(session=session)
        found: list[HumanTaskModel] = []

        async def is_late() -> bool:
            found[:] = await repository.find_overdue()
            return bool(found)

        await until(is_late)
        [task] = found
        assert (task.instance_id, task.status) == (instance.id, "pending")
        assert instance.status == "waiting"
        await engine.complete_human_task(instance.id, "approval", "ada", {"approved": True})
        await until_is(instance, "completed")
        assert await repository.find_overdue() == []


async def test_a_human_task_is_closed_once_by_the_engine(tmp_path: Path):
    async with engine_in(tmp_path, Expense) as (engine, session):
        repository = HumanTaskRepository(session=session)
        instance = await engine.start_workflow(Expense)
        other = await engine.start_workflow(Expense)
        for one in (instance, other):
            await until_is(one, "waiting")
        [task] = await repository.find_by_instance(instance.id)
        with pytest.raises(Invalid, match="required property"):
            await repository.complete_task(task.id, "ada", {})
        completed = await repository.complete_task(task.id, "ada", {"approved": True})
        assert completed is not None
        assert (completed.status, completed.completed_by) == ("completed", "ada")
        assert completed.completed_at is not None
        await until_is(instance, "completed")
        says = "Invalid transition from 'completed' to 'canceled'"
        with pytest.raises(InvalidTransitionError, match=says):
            await repository.cancel_task(task.id)
        with pytest.raises(InvalidTransitionError, match="from 'completed' to 'completed'"):
            await repository.complete_task(task.id, "bob", {"approved": True})

        [task] = await repository.find_by_instance(other.id)
        cancelled = await repository.cancel_task(task.id, "ada", "not needed")
        assert cancelled is not None and cancelled.status == "canceled"
        await until_is(other, "failed")
        assert other.error is not None and "cancelled by ada: not needed" in other.error
        assert await repository.complete_task(uuid4(), "ada") is None
        assert await repository.cancel_task(uuid4()) is None
        with pytest.raises(TaskNotFoundError, match="Task 'nobody' not found"):
            await engine.client.human_tasks.get("nobody")


async def test_an_object_of_its_own_may_ask_a_person():
    class Bare:
        name = "bare"
        title = "Do it"
        description = "no base class"
        step_type = StepType.HUMAN
        form_schema: Any = None

        async def execute(self, context: WorkflowContext) -> Any:
            raise AssertionError("a person does it")

        async def can_execute(self, context: WorkflowContext) -> bool:
            return True

        async def on_success(self, context: WorkflowContext, result: Any) -> None: ...

        async def on_failure(self, context: WorkflowContext, error: Exception) -> None: ...

    registry = WorkflowRegistry()
    registry.register_definition(WorkflowDefinition("bare", steps=[Bare()]))
    async with LocalExecutionEngine(registry) as engine:
        instance = await engine.start_workflow("bare")
        await until_is(instance, "waiting")
        [task] = (await engine.client.human_tasks.list()).items
        assert (task.title, task.description) == ("Do it", "no base class")
        await engine.complete_human_task(instance.id, "bare", "ada", {"done": True})
        await until_is(instance, "completed")


async def test_a_session_that_has_written_is_refused_by_the_repository_too(tmp_path: Path):
    async with engine_in(tmp_path, Expense) as (engine, session):
        instance = await engine.start_workflow(Expense)
        await until_is(instance, "waiting")
        repository = HumanTaskRepository(session=session)
        [task] = await repository.find_pending()
        id = task.id
        await session.execute(text("CREATE TABLE orders (id INTEGER)"))
        await session.execute(text("INSERT INTO orders VALUES (1)"))
        with pytest.raises(Conflict, match="open transaction"):
            await repository.complete_task(id, "ada", {"approved": True})
        await session.rollback()
        await repository.complete_task(id, "ada", {"approved": True})
        await until_is(instance, "completed")
