"""Steps that people do: the classes of seed 4 and the builder's call, on one kind of step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.engine.support import engine_on, until

from perdure import Engine
from perdure.errors import DefinitionError, Invalid, WorkflowFailed
from perdure.graph import (
    BaseHumanStep,
    BaseMachineStep,
    Edge,
    HumanTaskError,
    TaskAlreadyCompletedError,
    TaskNotFoundError,
    UnauthorizedTaskError,
    WorkflowDefinition,
    flow,
)
from perdure.people import HumanTask

APPROVAL = {
    "type": "object",
    "properties": {"approved": {"type": "boolean"}, "comments": {"type": "string"}},
    "required": ["approved"],
}


class Submit(BaseMachineStep):
    name = "submit"

    async def execute(self, context: Any) -> str:
        context.set("boss", "grace")
        return "submitted"


class Review(BaseHumanStep):
    name = "review"
    title = "Review the expense"
    description = "Is it right?"
    form_schema = APPROVAL
    assignee_key = "boss"


class Process(BaseMachineStep):
    name = "process"

    async def execute(self, context: Any) -> list[Any]:
        return [context.get("approved"), context.user_id, context.steps["review"]]


def expense(review: BaseHumanStep | None = None, **attributes: Any) -> WorkflowDefinition:
    steps = [Submit(), review or Review(**attributes), Process()]
    edges = [Edge("submit", "review"), Edge("review", "process")]
    return WorkflowDefinition("expense", steps=steps, edges=edges)


def engine(folder: Path, definition: WorkflowDefinition) -> Engine:
    return engine_on(folder, definition, identity="grace")


async def the_one(e: Engine, but: str = "") -> HumanTask:
    found: list[HumanTask] = []

    async def is_there() -> bool:
        page = await e.client.human_tasks.list()
        found[:] = [task for task in page.items if task.id != but]
        return len(found) == 1

    await until(is_there)
    return found[0]


async def test_a_class_with_attributes_asks_whom_the_data_names_and_goes_on_with_what_they_enter(
    tmp_path: Path,
):
    definition = expense()
    assert definition.validate() == []
    async with engine(tmp_path, definition) as e:
        handle = await e.client.start(definition, {})
        task = await the_one(e)
        assert (task.name, task.title) == ("review", "Review the expense")
        assert (task.description, task.assignee, task.form) == ("Is it right?", "grace", APPROVAL)
        state = await handle.query("graph")
        assert state["current_steps"] == ["review"]
        assert state["step_history"][-1]["status"] == "waiting"
        await e.client.human_tasks.complete(task.id, {"approved": True, "comments": "ok"})
        assert await handle == [True, "grace", {"approved": True, "comments": "ok"}]


async def test_the_page_s_names_of_errors_are_perdures(tmp_path: Path):
    definition = expense()
    async with engine(tmp_path, definition) as e:
        await e.client.start(definition, {})
        people, task = e.client.human_tasks, await the_one(e)
        with pytest.raises(UnauthorizedTaskError):
            await people.complete(task.id, {"approved": True}, by="ada")
        with pytest.raises(TaskNotFoundError):
            await people.complete("nothing", {"approved": True})
        await people.complete(task.id, {"approved": True})
        with pytest.raises(TaskAlreadyCompletedError) as caught:
            await people.complete(task.id, {"approved": True})
        assert isinstance(caught.value, HumanTaskError)


async def test_what_does_not_fit_the_schema_is_refused_with_its_path(tmp_path: Path):
    definition = expense()
    async with engine(tmp_path, definition) as e:
        await e.client.start(definition, {})
        task = await the_one(e)
        for value, says in (
            ({"approved": "yes"}, 'approved: "yes" is not of type "boolean"'),
            ({}, '"approved" is a required property'),
            ({"approved": True, "comments": 5}, "comments: 5 is not of type"),
        ):
            with pytest.raises(Invalid, match=says):
                await e.client.human_tasks.complete(task.id, value)
        assert await e.client.human_tasks.get(task.id) == task


async def test_hooks_say_whose_it_is_and_by_when_and_what_is_wrong(tmp_path: Path):
    class Careful(Review):
        def get_assignee(self, context: Any) -> Any:  # plain, where the base is async
            return None

        async def get_assignee_group(self, context: Any) -> str:
            return f"{context.get('boss')}s people"

        async def get_due_date(self, context: Any) -> datetime:
            return datetime(2100, 1, 2, tzinfo=UTC)

        async def get_reminder_date(self, context: Any) -> datetime:
            return datetime(2100, 1, 1, tzinfo=UTC)

        async def get_description(self, context: Any) -> str:
            return "Look twice."

        async def validate_submission(self, data: Any, context: Any) -> list[str]:
            return [] if data.get("comments") else ["say why"]

    definition = expense(Careful())
    async with engine(tmp_path, definition) as e:
        handle = await e.client.start(definition, {})
        task = await the_one(e)
        assert (task.assignee, task.role) == (None, "graces people")
        assert task.due_at == datetime(2100, 1, 2, tzinfo=UTC)
        assert task.remind_at == datetime(2100, 1, 1, tzinfo=UTC)
        assert task.description == "Look twice."
        await e.client.human_tasks.complete(task.id, {"approved": True})
        again = await the_one(e, but=task.id)
        assert again.description == "Look twice.\n\nWhat grace entered was not taken: say why"
        await e.client.human_tasks.complete(again.id, {"approved": False, "comments": "late"})
        assert (await handle)[0] is False


@pytest.mark.parametrize(
    ("verb", "kind", "says"),
    [
        ("reject", "Rejected", "it was rejected by grace: too much"),
        ("cancel", "Cancelled", "it was cancelled by grace: too much"),
    ],
)
async def test_what_is_not_done_fails_the_step(tmp_path: Path, verb: str, kind: str, says: str):
    definition = expense()
    async with engine(tmp_path, definition) as e:
        handle = await e.client.start(definition, {})
        act: Callable[..., Any] = getattr(e.client.human_tasks, verb)
        await act((await the_one(e)).id, "too much")
        with pytest.raises(WorkflowFailed) as caught:
            await handle
        assert caught.value.kind == kind
        assert f'Step "review" failed: {says}' in caught.value.message


async def test_what_expires_fails_the_step_or_goes_where_on_expire_says(tmp_path: Path):
    failing = expense(due="10ms", expires="20ms")
    async with engine(tmp_path, failing) as e:
        with pytest.raises(WorkflowFailed) as caught:
            await e.client.execute(failing, {})
        assert caught.value.kind == "Expired"
    going_on = expense(due="20ms", on_expire="process")
    (tmp_path / "on").mkdir()
    async with engine(tmp_path / "on", going_on) as e:
        told = {"outcome": "expired", "by": "", "comment": ""}
        assert await e.client.execute(going_on, {}) == [None, None, told]


@dataclass
class Approval:
    approved: bool
    amount: int = 0


async def pay(input: dict[str, Any], ctx: Any) -> list[Any]:
    return [input, ctx.steps["approve"], ctx.user_id]


async def sorry(input: dict[str, Any]) -> str:
    return f"sorry, {input['by']} said: {input['comment']}"


def machine() -> WorkflowDefinition:
    return (
        flow("refund")
        .human(
            "approve",
            title=lambda ctx: f"Refund {ctx.input['order']}?",
            form=Approval,
            role="finance",
            due="2d",
            remind="1d",
            data=lambda ctx: {"order": ctx.input["order"]},
            on_reject="sorry",
        )
        .task("pay", pay, end=True)
        .task("sorry", sorry)
        .build()
    )


async def test_the_builder_asks_with_a_type_for_a_form_and_gives_plain_data_on(tmp_path: Path):
    definition = machine()
    async with engine(tmp_path, definition) as e:
        handle = await e.client.start(definition, {"order": "A-1"})
        task = await the_one(e)
        assert (task.title, task.role, task.data) == ("Refund A-1?", "finance", {"order": "A-1"})
        await e.client.human_tasks.complete(task.id, Approval(True))
        entered = {"approved": True, "amount": 0}
        assert await handle == [entered, entered, "grace"]


async def test_a_rejection_goes_where_on_reject_says_and_says_why(tmp_path: Path):
    definition = machine()
    async with engine(tmp_path, definition) as e:
        handle = await e.client.start(definition, {"order": "A-1"})
        await e.client.human_tasks.reject((await the_one(e)).id, "no receipt")
        assert await handle == "sorry, grace said: no receipt"


async def test_a_human_step_goes_on_after_a_restart(tmp_path: Path):
    definition = machine()
    async with engine(tmp_path, definition) as e:
        handle = await e.client.start(definition, {"order": "A-1"})
        task = await the_one(e)
    async with engine(tmp_path, definition) as e:
        await e.client.human_tasks.complete(task.id, Approval(True, 7))
        assert (await e.client.get(handle.id))[0] == {"approved": True, "amount": 7}


async def test_a_step_asks_several_people_and_escalates_as_functions_do(tmp_path: Path):
    definition = (
        flow("pay")
        .human(
            "approve",
            role="finance",
            approvers=2,
            not_by=lambda ctx: ctx.input["by"],
            escalate=[("lead", "1d")],
            type="payment",
        )
        .build()
    )
    async with engine(tmp_path, definition) as e:
        handle = await e.client.start(definition, {"by": "eve"})
        people, task = e.client.human_tasks, await the_one(e)
        assert ([role for role, _ in task.escalates], task.type) == (["lead"], "payment")
        with pytest.raises(UnauthorizedTaskError, match="must not be decided by 'eve'"):
            await people.complete(task.id, {"n": 1}, by="eve")
        await people.complete(task.id, {"n": 1}, by="ada")
        await people.complete(task.id, {"n": 2}, by="zoe")
        assert await handle == {"n": 2}


def test_the_diagram_has_the_person_s_shape_and_the_ways_out():
    drawn = machine().to_mermaid()
    assert "approve{{START: Approve}}" in drawn
    assert "approve -->|rejected| sorry" in drawn


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"on_reject": "sory"}, "leads to 'sory'"),
        ({"form": {"type": "nothing"}}, "form: the JSON Schema is wrong: schema.type"),
        ({"form": "Approval"}, "form: 'Approval' is neither a type nor a JSON Schema"),
        ({"form": {"$ref": "https://elsewhere.invalid/form"}}, "form: the JSON Schema is wrong"),
        ({"timeout": "1h"}, "timeout= means nothing"),
        ({"approvers": 0}, "approvers: 0 is not a whole number"),
        ({"priority": 9}, "priority: 9 is not a number"),
        ({"role": "a", "group": "b"}, "mean the same"),
        ({"role": 5}, "role: 5 is not text"),
        ({"due": "1h", "remind": "2h"}, "before it is asked"),
        ({"escalate": [("lead", "soon")]}, r"escalate\[0\]: "),
        ({"colour": "red"}, "no attribute 'colour'"),
    ],
    ids=[
        "jump",
        "schema",
        "text",
        "remote",
        "timeout",
        "approvers",
        "priority",
        "two roles",
        "role",
        "remind",
        "escalate",
        "unknown",
    ],
)
def test_mistakes_are_found_when_it_is_built(options: dict[str, Any], says: str):
    with pytest.raises(DefinitionError, match=says):
        flow("f").human("ask", **options).build()


@pytest.mark.parametrize(
    ("attributes", "ends"),
    [
        ({}, None),
        ({"expires": "never", "on_expire": "process"}, None),
        ({"expires": "5h"}, 5),
        ({"on_expire": "process"}, 2),
        ({"escalate": [("lead", "1h")]}, 2),
    ],
    ids=["nothing", "never", "later", "a way on", "roles"],
)
async def test_a_due_date_passes_unless_the_step_says_what_follows(
    tmp_path: Path, attributes: dict[str, Any], ends: int | None
):
    definition = expense(due="2h", **attributes)
    assert definition.validate() == []
    async with engine(tmp_path, definition) as e:
        await e.client.start(definition, {})
        task = await the_one(e)
        assert task.due_at == task.created_at + timedelta(hours=2)
        wanted = None if ends is None else task.created_at + timedelta(hours=ends)
        assert task.expires_at == wanted


async def test_a_step_that_is_late_is_overdue_and_can_still_be_done(tmp_path: Path):
    heard: list[Any] = []
    definition = expense(due="20ms", remind="10ms")
    async with engine(tmp_path, definition) as e:
        e.events.on("workflow.task.*", lambda event: heard.append(event.name))
        handle = await e.client.start(definition, {})
        await until(lambda: len(heard) == 2)
        assert heard == ["workflow.task.reminder", "workflow.task.overdue"]
        [task] = (await e.client.human_tasks.overdue()).items
        await e.client.human_tasks.complete(task.id, {"approved": True})
        assert await handle == [True, "grace", {"approved": True}]


def test_a_step_that_ends_before_it_is_due_is_refused():
    definition = expense(due="2h", expires="1h")
    assert definition.validate() == [
        "Step 'review': expires: 1h is before it is due; it would be over by then"
    ]
