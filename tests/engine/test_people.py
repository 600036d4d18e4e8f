"""Human tasks: what is asked is in the list, a decision reaches the run, and one person wins."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.engine.support import engine_on, events_of, until, until_status

from perdure import ApplicationError, Client, Engine, human, workflow
from perdure.errors import (
    Invalid,
    TaskClaimed,
    TaskClosed,
    TaskDenied,
    TaskNotFound,
    UsageError,
    WorkflowFailed,
)
from perdure.people import HumanTask
from perdure.values.people import HumanTaskStatus
from perdure.values.states import Status


@dataclass
class Approval:
    approved: bool
    amount: int = 0


@workflow.define
async def refund(options: dict[str, Any]) -> dict[str, Any]:
    decided = await human.request("Refund?", form=Approval, **options)
    amount = decided.value.amount if decided.is_completed else None
    return {
        "outcome": decided.outcome,
        "amount": amount,
        "by": decided.by,
        "comment": decided.comment,
    }


@workflow.define
async def hurried() -> str:
    """Ask, but not for long."""
    try:
        async with asyncio.timeout(0.2):
            return (await human.request("Now?")).outcome
    except TimeoutError:
        return "too late"


@workflow.define
async def raced() -> str:
    """Whoever is first: a person or a message."""
    person = asyncio.ensure_future(human.request("Which?"))
    message = asyncio.ensure_future(workflow.listen("go").receive())
    done, rest = await asyncio.wait({person, message}, return_when=asyncio.FIRST_COMPLETED)
    for other in rest:
        other.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
    return "person" if person in done else "message"


@workflow.define
async def endless(rounds: int) -> str:
    asked = asyncio.ensure_future(human.request(f"Round {rounds}"))
    await workflow.listen("on").receive()
    if rounds:
        await workflow.continue_as_new(rounds - 1)
    return "done" if asked.done() else "left"


def engine(folder: Path, **options: Any) -> Engine:
    return engine_on(folder, refund, hurried, raced, endless, identity="ada", **options)


async def the_one(client: Client, **filters: Any) -> HumanTask:
    found: list[HumanTask] = []

    async def is_there() -> bool:
        found[:] = (await client.human_tasks.list(**filters)).items
        return len(found) == 1

    await until(is_there)
    return found[0]


async def test_what_is_asked_is_in_the_list_when_the_start_returns(tmp_path: Path):
    asked = {"role": "finance", "due": "2d", "remind": "1d", "data": {"order": 7}, "priority": 1}
    async with engine(tmp_path) as e:
        handle = await e.client.start(refund, {**asked, "description": "The box was empty."})
        [task] = (await e.client.human_tasks.list()).items
        assert (task.title, task.description) == ("Refund?", "The box was empty.")
        assert (task.role, task.assignee, task.priority) == ("finance", None, 1)
        assert task.data == {"order": 7}
        assert task.form["$defs"]["Approval"]["required"] == ["approved"]
        assert task.due_at is not None and task.remind_at is not None
        assert (task.due_at - task.created_at).days == 2
        assert (task.due_at - task.remind_at).days == 1
        assert (task.workflow, task.workflow_id) == ("refund", handle.id)
        assert await e.client.human_tasks.get(task.id) == task


async def test_a_decision_reaches_the_run_with_its_value_and_who_made_it(tmp_path: Path):
    async with engine(tmp_path) as e:
        handle = await e.client.start(refund, {})
        task = await the_one(e.client)
        value = Approval(True, 40)
        after = await e.client.human_tasks.complete(task.id, value, comment="fine")
        assert (after.status, after.closed_by) == (HumanTaskStatus.COMPLETED, "ada")
        assert after.value == {"approved": True, "amount": 40}
        told = {"outcome": "completed", "amount": 40, "by": "ada", "comment": "fine"}
        assert await handle == told
        assert (await e.client.human_tasks.list()).items == []


async def test_a_rejection_is_a_decision(tmp_path: Path):
    async with engine(tmp_path) as e:
        handle = await e.client.start(refund, {})
        task = await the_one(e.client)
        await e.client.human_tasks.reject(task.id, "no receipt", by="grace")
        told = {"outcome": "rejected", "amount": None, "by": "grace", "comment": "no receipt"}
        assert await handle == told


async def test_what_is_taken_back_is_cancelled_for_the_run(tmp_path: Path):
    async with engine(tmp_path) as e:
        handle = await e.client.start(refund, {})
        await e.client.human_tasks.cancel((await the_one(e.client)).id, "asked twice")
        told = {"outcome": "cancelled", "amount": None, "by": "ada", "comment": "asked twice"}
        assert await handle == told


async def test_a_client_of_another_process_decides_too(tmp_path: Path):
    async with engine(tmp_path) as e, Client(e.url, identity="grace") as other:
        handle = await e.client.start(refund, {})
        await other.human_tasks.complete((await the_one(other)).id, {"approved": True, "amount": 5})
        assert (await handle)["by"] == "grace"


async def test_what_does_not_fit_the_form_is_refused_with_its_path_and_changes_nothing(
    tmp_path: Path,
):
    async with engine(tmp_path) as e:
        handle = await e.client.start(refund, {})
        task = await the_one(e.client)
        with pytest.raises(Invalid, match=r"Approval\.approved"):
            await e.client.human_tasks.complete(task.id, {"approved": "maybe"})
        assert await e.client.human_tasks.get(task.id) == task
        assert await events_of(handle, "human_task_decided") == []


async def test_what_one_of_two_types_of_one_schema_takes_is_not_refused_for_the_other(
    tmp_path: Path,
):
    def form_up_to(most: int) -> Any:
        @dataclass
        class Sum:
            amount: int

            def __post_init__(self) -> None:
                if self.amount > most:
                    raise ValueError(f"{self.amount} is over {most}")

        return Sum

    forms = {"small": form_up_to(10), "large": form_up_to(100)}

    @workflow.define
    async def asks(which: str) -> int:
        decided = await human.request(which, form=forms[which])
        return decided.value.amount

    async with engine_on(tmp_path, asks, identity="ada") as e:
        for which in forms:
            await e.client.start(asks, which, id=which)
        task = await the_one(e.client, workflow_id="large")
        with pytest.raises(Invalid, match="500 is over"):
            await e.client.human_tasks.complete(task.id, {"amount": 500})
        await e.client.human_tasks.complete(task.id, {"amount": 50})
        assert await e.client.get("large") == 50


async def test_only_the_first_of_two_decisions_counts_and_the_second_hears_whose(tmp_path: Path):
    async with engine(tmp_path) as e, Client(e.url, identity="grace") as other:
        handle = await e.client.start(refund, {})
        task = await the_one(e.client)
        calls = [
            e.client.human_tasks.complete(task.id, Approval(True, 1)),
            other.human_tasks.complete(task.id, Approval(True, 2)),
        ]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        [won] = [answer for answer in answers if isinstance(answer, HumanTask)]
        [lost] = [answer for answer in answers if isinstance(answer, TaskClosed)]
        assert "was completed" in lost.message
        assert lost.message.endswith(f"by '{won.closed_by}'")
        assert (await handle)["by"] == won.closed_by
        assert len(await events_of(handle, "human_task_decided")) == 1


async def test_the_log_says_until_when_a_claim_is(tmp_path: Path):
    async with engine(tmp_path) as e:
        people = e.client.human_tasks
        await e.client.start(refund, {})
        task = await people.claim((await the_one(e.client)).id, "1h")
        extended = await people.extend(task.id, "2h")
        told = [(it.verb, it.data.get("until")) for it in await people.log(task.id)]
        assert told == [
            ("opened", None),
            ("claimed", task.claimed_until),
            ("extended", extended.claimed_until),
        ]


async def test_a_claim_keeps_others_out_until_it_is_given_back(tmp_path: Path):
    async with engine(tmp_path) as e:
        await e.client.start(refund, {})
        people = e.client.human_tasks
        task = await the_one(e.client)
        claimed = await people.claim(task.id, "1h")
        assert (claimed.status, claimed.claimed_by) == (HumanTaskStatus.CLAIMED, "ada")
        with pytest.raises(TaskClaimed, match="claimed by 'ada' for another 59m"):
            await people.complete(task.id, Approval(True), by="grace")
        with pytest.raises(TaskClaimed):
            await people.claim(task.id, by="grace")
        with pytest.raises(TaskClaimed):
            await people.release(task.id, by="grace")
        longer = await people.extend(task.id, "2h")
        assert claimed.claimed_until is not None and longer.claimed_until is not None
        assert longer.claimed_until > claimed.claimed_until
        assert (await people.list(status="open")).items == []
        assert (await people.release(task.id)).status is HumanTaskStatus.OPEN
        await people.complete(task.id, Approval(True), by="grace")


async def test_what_is_assigned_to_one_is_for_nobody_else_until_it_is_reassigned(tmp_path: Path):
    async with engine(tmp_path) as e:
        handle = await e.client.start(refund, {"assignee": "grace"})
        people = e.client.human_tasks
        task = await the_one(e.client, for_person="grace")
        assert (await people.list(for_person="ada")).items == []
        with pytest.raises(TaskDenied, match="assigned to 'grace'"):
            await people.complete(task.id, Approval(True))
        assert (await people.reassign(task.id, "ada")).assignee == "ada"
        assert (await people.reassign(task.id, group="finance")).assignee is None
        await the_one(e.client, role="finance")
        await people.complete(task.id, Approval(True))
        assert (await handle)["by"] == "ada"


async def test_nobody_acts_without_a_name(tmp_path: Path):
    async with engine_on(tmp_path, refund) as e:
        await e.client.start(refund, {})
        task = await the_one(e.client)
        with pytest.raises(UsageError, match="say who does it"):
            await e.client.human_tasks.complete(task.id, Approval(True))
        with pytest.raises(TaskNotFound):
            await e.client.human_tasks.complete("nothing", by="ada")


async def test_what_nobody_does_in_time_expires(tmp_path: Path):
    async with engine(tmp_path) as e:
        handle = await e.client.start(refund, {"due": "50ms"})
        assert (await handle)["outcome"] == "expired"
        [task] = (await e.client.human_tasks.list(status="expired")).items
        with pytest.raises(TaskClosed, match="was expired"):
            await e.client.human_tasks.complete(task.id, Approval(True))


async def test_what_is_asked_and_given_up_in_one_turn_is_closed_when_it_is_first_seen(
    tmp_path: Path,
):
    @workflow.define
    async def fickle() -> str:
        asked = asyncio.ensure_future(human.request("Never mind"))
        await asyncio.sleep(0)  # sleep: lets it ask
        asked.cancel()
        await workflow.listen("go").receive()
        return "done"

    async with engine(tmp_path) as e:
        e.register(fickle)
        handle = await e.client.start(fickle)
        [task] = (await e.client.human_tasks.list(status=list(HumanTaskStatus))).items
        assert task.status is HumanTaskStatus.CANCELLED
        await handle.send("go")
        assert await handle == "done"


async def test_a_wait_that_is_given_up_closes_what_it_asked(tmp_path: Path):
    async with engine(tmp_path) as e:
        assert await e.client.execute(hurried) == "too late"
        handle = await e.client.start(raced)
        await handle.send("go")
        assert await handle == "message"
        page = await e.client.human_tasks.list(status=["cancelled"])
        assert sorted(task.title for task in page.items) == ["Now?", "Which?"]
        assert {task.closed_by for task in page.items} == {None}
        with pytest.raises(TaskClosed, match="no longer waits for it"):
            await e.client.human_tasks.complete(page.items[0].id, None)


@pytest.mark.parametrize("end", ["terminated", "cancelled", "replaced"])
async def test_the_end_of_a_run_closes_what_it_asked(tmp_path: Path, end: str):
    async with engine(tmp_path) as e:
        handle = await e.client.start(refund, {}, id="r-1")
        task = await the_one(e.client)
        if end == "replaced":
            await e.client.start(refund, {}, id="r-1", id_conflict_policy="terminate_existing")
        else:
            await (handle.terminate() if end == "terminated" else handle.cancel())
            with pytest.raises(Exception, match="workflow"):
                await handle
        assert (await e.client.human_tasks.get(task.id)).status is HumanTaskStatus.CANCELLED
        assert len((await e.client.human_tasks.list()).items) == (end == "replaced")


async def test_a_failing_run_and_one_that_goes_on_as_new_close_what_they_asked(tmp_path: Path):
    @workflow.define
    async def failing() -> None:
        asyncio.ensure_future(human.request("Anybody?"))
        await workflow.sleep("1ms")
        raise ApplicationError("broken")

    async with engine(tmp_path) as e:
        e.register(failing)
        with pytest.raises(WorkflowFailed):
            await e.client.execute(failing)
        assert (await e.client.human_tasks.list()).items == []
        handle = await e.client.start(endless, 1, id="e-1")
        assert (await the_one(e.client)).title == "Round 1"
        await handle.send("on")
        assert (await the_one(e.client)).title == "Round 0"
        await handle.send("on")
        assert await handle == "left"
        assert (await e.client.human_tasks.list()).items == []


async def test_a_restart_changes_nothing(tmp_path: Path):
    async with engine(tmp_path) as e:
        handle = await e.client.start(refund, {"due": "1d"}, id="r-1")
        task = await the_one(e.client)
    async with Client(e.url, identity="grace") as alone:
        await alone.human_tasks.complete(task.id, {"approved": True, "amount": 9})
        with pytest.raises(TaskClosed):
            await alone.human_tasks.reject(task.id)
    async with engine(tmp_path) as e:
        handle = e.client.get("r-1")
        assert (await handle)["amount"] == 9


async def test_a_paused_run_keeps_the_decision_and_goes_on_with_it(tmp_path: Path):
    async with engine(tmp_path) as e:
        handle = await e.client.start(refund, {})
        task = await the_one(e.client)
        await handle.pause()
        await until_status(handle, Status.PAUSED)
        await e.client.human_tasks.complete(task.id, Approval(True, 3))
        await until(lambda: _has(handle, "human_task_decided"))
        assert await handle.status() is Status.PAUSED
        await handle.resume()
        assert (await handle)["amount"] == 3


async def test_a_decision_stands_in_the_history_of_a_run_that_was_terminated_before_it_knew(
    tmp_path: Path,
):
    async with engine(tmp_path) as e:
        await e.client.start(refund, {}, id="r-1")
        task = await the_one(e.client)
    async with Client(e.url, identity="grace") as alone:
        await alone.human_tasks.complete(task.id, {"approved": True})
        await alone.get("r-1").terminate()
    async with engine(tmp_path) as e:
        handle = e.client.get("r-1")
        await until(lambda: _ended(handle))
        kinds = [event.kind for event in await handle.history()]
        assert "human_task_decided" in kinds or kinds[-1] == "run_completed"


async def _has(handle: Any, kind: str) -> bool:
    return bool(await events_of(handle, kind))


async def _ended(handle: Any) -> bool:
    return (await handle.status()).is_terminal


async def test_why_names_the_person_a_run_waits_for(tmp_path: Path):
    async with engine(tmp_path) as e:
        handle = await e.client.start(refund, {"role": "finance", "due": "2d"})
        said = await handle.why()
        assert "for a person: 'Refund?' (role 'finance', due in 1d23h)" in said
        assert "timer" not in said
        assert (await handle.describe()).current_step == "person: Refund?"


async def test_why_names_whose_it_is_now_and_who_has_claimed_it(tmp_path: Path):
    async with engine(tmp_path) as e:
        handle = await e.client.start(refund, {"role": "finance", "due": "2d"})
        [task] = (await e.client.human_tasks.list()).items
        await e.client.human_tasks.escalate(task.id, "lead", by="ada")
        await e.client.human_tasks.claim(task.id, "30m", by="bob")
        said = await handle.why()
        assert "for a person: 'Refund?' (role 'lead', claimed by 'bob', due in 1d23h)" in said


async def test_a_reminder_is_told_to_listeners_while_it_is_still_open(tmp_path: Path):
    async with engine(tmp_path) as e:
        told: list[Any] = []
        e.events.on("workflow.task.*", told.append)
        handle = await e.client.start(refund, {"remind": "20ms", "role": "finance"})
        task = await the_one(e.client)
        await until(lambda: bool(told))
        assert (told[0].name, told[0].data["task_id"]) == ("workflow.task.reminder", task.id)
        assert (told[0].data["instance_id"], told[0].data["role"]) == (handle.id, "finance")
        await e.client.human_tasks.complete(task.id, Approval(True))
        await handle
        assert len(told) == 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"due": "soon"}, "due: 'soon' is not a duration"),
        ({"due": "1h", "remind": "2h"}, "before it is asked"),
        ({"priority": 9}, "priority: 9"),
        ({"role": "a", "group": "b"}, "mean the same"),
        ({"assignee": 5}, "assignee: 5 is not text"),
    ],
    ids=["due", "remind", "priority", "role", "assignee"],
)
async def test_what_cannot_be_meant_is_refused_where_it_is_asked(
    tmp_path: Path, options: dict[str, Any], says: str
):
    async with engine(tmp_path) as e:
        with pytest.raises(WorkflowFailed, match=says):
            await e.client.execute(refund, options)
        assert (await e.client.human_tasks.list()).items == []


async def test_a_name_that_is_empty_is_nobodys_where_it_is_asked_and_refused_where_it_is_given(
    tmp_path: Path,
):
    async with engine(tmp_path) as e:
        people = e.client.human_tasks
        await e.client.start(refund, {"assignee": "", "role": "", "group": "finance"})
        task = await the_one(e.client)
        assert (task.assignee, task.role) == (None, "finance")
        await people.claim(task.id)
        for wrong in (
            people.delegate(task.id, ""),
            people.reassign(task.id, ""),
            people.reassign(task.id, group=""),
            people.escalate(task.id, ""),
            people.assign_many([task.id], ""),
            people.escalate_many([task.id], ""),
        ):
            with pytest.raises(Invalid, match="it is empty"):
                await wrong
        assert (await people.complete(task.id, {"approved": True})).closed_by == "ada"


async def test_lists_come_in_pages_by_when_they_are_due_those_without_at_last(tmp_path: Path):
    async with engine(tmp_path) as e:
        for number, due in enumerate([None, "3d", "1d", None, "2d"]):
            await e.client.start(refund, {"due": due, "name": f"n{number}"})
        names: list[str] = []
        cursor: str | None = None
        while True:
            page = await e.client.human_tasks.list(limit=2, cursor=cursor)
            names += [task.name for task in page.items]
            if (cursor := page.cursor) is None:
                break
        assert names == ["n2", "n4", "n1", "n0", "n3"]
