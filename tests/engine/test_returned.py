"""Escalations that workflows return: the run ends, people are asked, and it is started again."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.engine.support import engine_on, until, until_status

from perdure import ApplicationError, Engine, Retry, human, workflow
from perdure.errors import (
    AlreadyExists,
    Invalid,
    NotFound,
    PerdureError,
    RateLimited,
    WorkflowFailed,
)
from perdure.human.escalation import companion
from perdure.people import HumanTask
from perdure.values.granted import Granted
from perdure.values.principals import Principal
from perdure.values.states import Status

CERTIFIED = {"data": {}, "metadata": {"certified": True}}


@workflow.define
async def review(envelope: dict[str, Any]) -> Any:
    """Escalate as often as the data says; then tell all that came back."""
    answers = envelope["data"].get("answers", 1)
    given = envelope.get("resolver")
    if given is None or given != answers:
        if envelope["data"].get("later"):
            await workflow.sleep("1ms")
        return human.Escalation({"page": 7}, "Is this all right?\nPage 7.", "reviewer", priority=1)
    return {**envelope, "who": _id(workflow.principal()), "queue": workflow.info().task_queue}


@workflow.define
async def says(envelope: dict[str, Any]) -> Any:
    """Return what it is told to, or the answer to it."""
    return envelope["resolver"] if "resolver" in envelope else envelope["data"]


@workflow.define
async def fails(envelope: dict[str, Any]) -> Any:
    if "resolver" in envelope:
        return envelope["resolver"]
    raise ApplicationError("the page is torn", kind="Torn", retryable=True)


@workflow.define
async def limited(envelope: dict[str, Any]) -> Any:
    if envelope.get("data") == "hold":
        return await workflow.listen("go").receive()
    return envelope["resolver"] if "resolver" in envelope else human.Escalation()


@workflow.define
async def asks(role: str | None) -> Any:
    return (await human.request("Shall we?", role=role)).by


def _id(found: Principal | None) -> str | None:
    return None if found is None else found.id


def engine(folder: Path, **options: Any) -> Engine:
    options.setdefault("identity", "ada")
    return engine_on(folder, review, says, fails, limited, asks, **options)


async def the_one(running: Engine, **filters: Any) -> HumanTask:
    found: list[HumanTask] = []

    async def is_there() -> bool:
        found[:] = (await running.client.human_tasks.list(**filters)).items
        return len(found) == 1

    await until(is_there)
    return found[0]


async def run_again(running: Engine, task: HumanTask) -> Any:
    """Return the result of the run that an answer has started."""
    id = f"rerun-{task.id}"

    async def is_there() -> bool:
        return bool(await running.client.find(id))

    await until(is_there)
    return await running.client.get(id)


async def asked(running: Engine) -> int:
    """Return how many runs ask for others, once nothing is open but them."""
    return int(await running.client.count(workflow=companion.name))


@pytest.mark.parametrize("data", [{}, {"later": True}], ids=["in its first turn", "later"])
async def test_what_is_returned_is_asked_and_the_answer_starts_the_workflow_again(
    tmp_path: Path, data: dict[str, Any]
):
    async with engine(tmp_path) as running:
        handle = await running.client.start(review, {"data": data}, id="w")
        ended: Any = await handle
        assert (ended["type"], ended["data"]) == ("perdure.escalation", {"page": 7})
        task = await the_one(running)
        assert (task.title, task.description) == ("review asks for a decision", ended["message"])
        assert (task.role, task.priority, task.data) == ("reviewer", 1, {"page": 7})
        assert (task.type, task.name, task.workflow) == ("review", "w", companion.name)
        await running.client.human_tasks.complete(task.id, 1)
        found = await run_again(running, task)
        assert (found["data"], found["resolver"]) == (data, 1)
        assert found["lt"] == {"escalation_id": task.id, "escalation_status": "resolved"}
        await until(lambda: the_end(running))
        assert (await handle.status(), await asked(running)) == (Status.COMPLETED, 1)


async def the_end(running: Engine) -> bool:
    runs = (await running.client.list()).items
    return all(run.status.is_terminal for run in runs)


async def test_all_that_says_for_whom_the_run_was_goes_along(tmp_path: Path):
    who = Principal("grace", tenant="acme", roles=["reviewer"])
    async with engine(tmp_path, task_queues=["default", "slow"]) as running:
        options = {"correlation_id": "case-1", "tags": ["a", "b"], "task_queue": "slow"}
        await running.client.as_(who).start(review, {"data": {}}, id="w", **options)
        task = await the_one(running)
        assert (task.tenant, task.created_by) == ("acme", "grace")
        await running.client.human_tasks.complete(task.id, 1, by="ada")
        found = await run_again(running, task)
        assert (found["who"], found["queue"]) == ("grace", "slow")
        for run in (await running.client.list()).items:
            assert (run.created_by, run.tenant) == ("grace", "acme")
            assert (run.correlation_id, run.tags) == ("case-1", ("a", "b"))
        assert await running.client.count(tags="a") == 3


async def test_a_workflow_that_is_started_again_may_escalate_again(tmp_path: Path):
    async with engine(tmp_path) as running:
        await running.client.start(review, {"data": {"answers": 2}}, id="w")
        first = await the_one(running)
        await running.client.human_tasks.complete(first.id, 1)
        second = await the_one(running)
        assert (second.id, second.name) != (first.id, first.name)
        await running.client.human_tasks.complete(second.id, 2)
        assert (await run_again(running, second))["lt"]["escalation_id"] == second.id


@pytest.mark.parametrize("verb", ["reject", "cancel"])
async def test_nothing_is_started_again_by_a_refusal(tmp_path: Path, verb: str):
    async with engine(tmp_path) as running:
        await running.client.start(review, {"data": {}}, id="w")
        task = await the_one(running)
        await getattr(running.client.human_tasks, verb)(task.id, "no")
        await until(lambda: the_end(running))
        assert {run.id for run in (await running.client.list()).items} == {"w", task.workflow_id}


ASKS = {"type": "escalation", "data": {"n": 1}, "message": "Look", "role": "boss", "priority": 3}


@pytest.mark.parametrize(
    ("result", "metadata", "expected"),
    [
        (ASKS, {"certified": True}, ("Look", "boss", 3)),
        ({"type": "escalation"}, {"certified": True}, ("", None, 2)),
        (
            {"type": "escalation", "role": 7, "priority": 9, "message": None},
            {"certified": True},
            ("", None, 2),
        ),
        ({**ASKS, "type": "perdure.escalation"}, {}, ("Look", "boss", 3)),
        (
            {**ASKS, "role": "a\0b", "message": "a\0b"},
            {"certified": True},
            ("a\ufffdb", None, 3),
        ),
        (ASKS, {}, None),
        (ASKS, {"certified": "yes"}, None),
        (ASKS, {"certified": False}, None),
        ({**ASKS, "type": "return"}, {"certified": True}, None),
        ([ASKS], {"certified": True}, None),
        ('"type":"escalation"', {"certified": True}, None),
    ],
)
async def test_a_mapping_is_an_escalation_only_of_a_certified_run(
    tmp_path: Path, result: Any, metadata: dict[str, Any], expected: Any
):
    async with engine(tmp_path) as running:
        await running.client.execute(says, {"data": result, "metadata": metadata})
        if expected is None:
            assert await asked(running) == 0
            return
        task = await the_one(running)
        assert (task.description, task.role, task.priority) == expected


async def test_a_certified_run_that_fails_asks_people_once_it_is_given_up(tmp_path: Path):
    async with engine(tmp_path) as running:
        retry = Retry(max_attempts=2, interval="1ms")
        handle = await running.client.start(fails, CERTIFIED, id="w", retry=retry)
        await until_status(handle, Status.FAILED)
        task = await the_one(running)
        assert task.description.startswith("Unhandled error: the page is torn")
        assert task.data["kind"] == "Torn"
        assert await asked(running) == 1
        await running.client.human_tasks.complete(task.id, "glued")
        assert await run_again(running, task) == "glued"


async def test_a_run_that_is_not_certified_fails_and_that_is_all(tmp_path: Path):
    async with engine(tmp_path) as running:
        handle = await running.client.start(fails, {"data": {}}, id="w")
        await until_status(handle, Status.FAILED)
        assert await asked(running) == 0


async def test_an_answer_outlives_a_limit_that_refuses_the_start(tmp_path: Path):
    running = engine(tmp_path)
    running.register(limited, max_concurrent=1)
    async with running:
        await running.client.start(limited, {}, id="w")
        task = await the_one(running)
        holder = await running.client.start(limited, {"data": "hold"}, id="h")
        await running.client.human_tasks.complete(task.id, "yes")
        asking = running.client.get(task.workflow_id)

        async def was_refused() -> bool:
            return any("not started again" in line.message for line in await asking.logs())

        await until(was_refused)
        await holder.send("go")
        assert await run_again(running, task) == "yes"


@pytest.mark.parametrize("error", [NotFound, RateLimited, AlreadyExists])
async def test_what_fails_at_once_was_started_all_the_same(
    tmp_path: Path, error: type[PerdureError]
):
    @workflow.define
    async def fragile(envelope: dict[str, Any]) -> Any:
        if "resolver" in envelope:
            raise error("of its own")
        return human.Escalation()

    async with engine_on(tmp_path, fragile, identity="ada") as running:
        await running.client.start(fragile, {}, id="w")
        task = await the_one(running)
        await running.client.human_tasks.complete(task.id, 1)
        await until(lambda: the_end(running))
        assert await running.client.get(task.workflow_id) == f"rerun-{task.id}"
        assert await running.client.get(f"rerun-{task.id}").status() is Status.FAILED
        assert await running.client.count() == 3


async def test_a_start_that_can_never_be_fails_what_asks(tmp_path: Path):
    async with engine(tmp_path) as running:
        await running.client.start(review, {"data": {}}, id="w", budget={"runs": 0})
        task = await the_one(running)
        await running.client.human_tasks.complete(task.id, 1)
        asking = running.client.get(task.workflow_id)
        await until_status(asking, Status.FAILED)
        with pytest.raises(WorkflowFailed, match="budget"):
            await asking


async def test_what_asks_goes_on_after_a_restart(tmp_path: Path):
    async with engine(tmp_path) as running:
        await running.client.execute(review, {"data": {}})
    async with engine(tmp_path) as running:
        task = await the_one(running)
        await running.client.human_tasks.complete(task.id, 1)
        assert (await run_again(running, task))["resolver"] == 1


async def test_an_engine_without_workflows_does_not_offer_to_ask(tmp_path: Path):
    async with engine_on(tmp_path) as running:
        assert [worker.workflows for worker in await running.client.workers()] == [()]
        running.register(says)
        await running.client.execute(says, {"data": {**ASKS, "type": "perdure.escalation"}})
        await the_one(running)


# -- the role that a door grants -----------------------------------------------------------------


@pytest.mark.parametrize(("role", "expected"), [(None, "clerk"), ("boss", "boss")])
async def test_a_request_without_a_role_goes_to_the_one_that_was_granted(
    tmp_path: Path, role: str | None, expected: str
):
    async with engine(tmp_path) as running:
        await running.client.under(Granted(default_role="clerk")).start(asks, role)
        assert (await the_one(running)).role == expected


async def test_the_role_that_was_granted_goes_on_to_what_asks_for_a_run(tmp_path: Path):
    async with engine(tmp_path) as running:
        client = running.client.under(Granted(default_role="clerk"))
        await client.start(says, {"data": {"type": "perdure.escalation"}})
        assert (await the_one(running)).role == "clerk"


async def test_nobody_grants_a_role_by_a_context(tmp_path: Path):
    async with engine(tmp_path) as running:
        with pytest.raises(Invalid, match="default_role"):
            await running.client.start(asks, None, context={"default_role": "clerk"})
        with pytest.raises(Invalid, match="default_role"):
            await running.client.schedules.create(
                "s", asks, every="1h", context={"default_role": "clerk"}
            )


# -- the value -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"priority": 0},
        {"priority": True},
        {"message": 7},
        {"role": 7},
        {"role": "a\0b"},
        {"message": "a\0b"},
        {"search": {"escalation_of": "w"}},
        {"search": {"order": object()}},
        {"search": {"order": 2**63}},
        {"search": {"order": float("nan")}},
        {"search": {"order": "a\0b"}},
        {"search": ["order"]},
    ],
)
def test_an_escalation_that_cannot_be_meant_is_refused(fields: dict[str, Any]):
    with pytest.raises(Invalid, match="escalation|search"):
        human.Escalation(**fields)


async def test_what_is_returned_is_found_by_what_it_says(tmp_path: Path):
    at = datetime(2026, 11, 22, 10, tzinfo=UTC)
    one = human.Escalation(message="eu", search={"order": 7, "at": at, "no": None})
    wrong = {"type": "perdure.escalation", "message": "bad", "search": {"order": 2**70}}
    async with engine(tmp_path) as running:
        await running.client.execute(says, {"data": one})
        await running.client.execute(says, {"data": wrong})
        found = [
            (await the_one(running, search=search)).description
            for search in ({"order": 7}, {"at": at}, {"order": 7, "at": at})
        ]
        assert found == ["eu"] * 3
        people = running.client.human_tasks

        async def are_there() -> bool:
            return await people.count() == 2

        await until(are_there)
        assert await people.count(search={"order": 7}) == 1, "what cannot be meant is left out"


async def test_an_attribute_that_no_database_can_hold_is_refused_where_it_is_set(tmp_path: Path):
    async with engine(tmp_path) as running:
        for value in (2**63, -(2**63) - 1, float("inf"), "a\0b", ["a", "\0"]):
            with pytest.raises(Invalid, match="search attribute 'k'"):
                await running.client.start(says, {"data": 1}, search={"k": value})
        assert await running.client.start(says, {"data": 1}, search={"k": -(2**63)})


async def test_a_long_message_is_cut_where_it_says_so(tmp_path: Path):
    asks = {"type": "perdure.escalation", "message": "x" * 5_000}
    async with engine(tmp_path) as running:
        await running.client.execute(says, {"data": asks})
        description = (await the_one(running)).description
        assert len(description) == 4_096
        assert description.endswith("x … (the result of the run has the rest)")


async def test_what_people_are_shown_is_not_plain_where_payloads_are_not(tmp_path: Path):
    """Titles are: so what a run says, or raises, stands elsewhere."""
    async with engine(tmp_path) as running:
        for id in ("says", "fails"):
            given = CERTIFIED if id == "fails" else {"data": {**ASKS, "type": "perdure.escalation"}}
            await running.client.start(id, given, id=id)
        await until(lambda: both(running))
        titles = {task.title for task in (await running.client.human_tasks.list()).items}
        assert titles == {"says asks for a decision", "fails asks for a decision"}


async def both(running: Engine) -> bool:
    return await running.client.human_tasks.count() == 2


# -- copies --------------------------------------------------------------------------------------


async def test_a_decision_names_the_human_task_also_in_a_copy(tmp_path: Path):
    @workflow.define
    async def named(_: None) -> str:
        return (await human.request("Which?")).id

    async with engine_on(tmp_path, named, identity="ada") as running:
        people = running.client.human_tasks
        original = await running.client.start(named, id="w")
        task = await the_one(running)
        await until_status(original, Status.WAITING)
        copy = await original.fork(after_event=2, id="copy")
        await until(lambda: both(running))
        [other] = (await people.list(workflow_id="copy")).items
        for one in (task, other):
            await people.complete(one.id)
        assert task.id != other.id
        assert (await original, await copy) == (task.id, other.id)
