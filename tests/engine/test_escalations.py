"""Human tasks in a running engine: they escalate and expire by the clock, several people have to
agree, principals act, and some are raised by hand.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.engine.support import engine_on, until

from perdure import Client, Engine, human, workflow
from perdure.errors import (
    Conflict,
    Invalid,
    TaskClosed,
    TaskDenied,
    TaskNotFound,
    WorkflowFailed,
)
from perdure.many import AT_ONCE
from perdure.people import HumanTask
from perdure.values.people import HumanTaskStatus
from perdure.values.principals import Grant, Principal, Reach

FORM = {
    "type": "object",
    "properties": {"limit": {"type": "integer"}, "who": {"type": "string"}},
    "required": ["limit", "who"],
}
FINANCE = Principal("bob", roles=["finance"])


@workflow.define
async def approve(options: dict[str, Any]) -> dict[str, Any]:
    decided = await human.request("Approve?", role="finance", **options)
    return {
        "outcome": decided.outcome,
        "value": decided.value,
        "by": [it.by for it in decided.approvals],
        "values": [it.value for it in decided.approvals],
    }


@workflow.define
async def who_asks() -> str:
    return human.requester()


def engine(folder: Path, **options: Any) -> Engine:
    return engine_on(folder, approve, who_asks, identity="ada", **options)


async def the_one(client: Client, **filters: Any) -> HumanTask:
    [task] = (await client.human_tasks.list(**filters)).items
    return task


async def verbs(client: Client, id: str) -> list[str]:
    return [it.verb for it in await client.human_tasks.log(id)]


async def test_a_human_task_goes_from_role_to_role_and_listeners_hear_of_it(tmp_path: Path):
    heard: list[Any] = []
    async with engine(tmp_path) as e:
        e.events.on("workflow.task.escalated", lambda event: heard.append(event.data))
        chain = [("lead", "10ms"), ("director", "20ms"), ("board", "9d")]
        handle = await e.client.start(approve, {"escalate": chain, "assignee": "ada"})
        await until(lambda: len(heard) == 2)
        task = await the_one(e.client)
        assert (task.role, task.assignee) == ("director", None)
        assert [role for role, _ in task.escalates] == ["board"]
        assert [(it["from_role"], it["role"], it["by"]) for it in heard] == [
            ("finance", "lead", ""),
            ("lead", "director", ""),
        ]
        assert {it["task_id"] for it in heard} == {task.id}
        await e.client.human_tasks.complete(task.id, 1)
        assert (await handle)["by"] == ["ada"]
        assert await verbs(e.client, task.id) == ["opened", "escalated", "escalated", "completed"]


async def test_what_was_due_while_nobody_worked_is_done_by_the_next_worker(tmp_path: Path):
    async with engine(tmp_path) as e:
        handle = await e.client.start(approve, {"escalate": {"lead": "1s"}})
    url = f"sqlite:///{tmp_path / 'test.db'}"
    async with Client(url, identity="ada") as client:
        alone = await client.human_tasks.create("Look", due="10ms")

        async def is_late() -> bool:
            return (await client.human_tasks.get(alone.id)).is_overdue

        await until(is_late)
    async with engine(tmp_path) as e:

        async def is_moved() -> bool:
            found = await e.client.human_tasks.list(role="lead")
            return len(found.items) == 1

        await until(is_moved)

        async def is_over() -> bool:
            return (await e.client.human_tasks.get(alone.id)).status is HumanTaskStatus.EXPIRED

        await until(is_over)
        await e.client.get(handle.id).terminate()


async def test_somebody_escalates_by_hand_and_listeners_hear_who(tmp_path: Path):
    heard: list[Any] = []
    async with engine(tmp_path) as e:
        e.events.on("workflow.task.escalated", lambda event: heard.append(event.data))
        await e.client.start(approve, {"escalate": [("lead", "9d")]})
        people, task = e.client.human_tasks, await the_one(e.client)
        assert (await people.escalate(task.id, reason="too big")).role == "lead"
        assert (await people.escalate(task.id, next_role=lambda role: f"{role} of {role}s")).role
        with pytest.raises(Invalid, match="no role"):
            await people.escalate(task.id, next_role=lambda _: None)
        assert [it["role"] for it in heard] == ["lead", "lead of leads"]
        assert {it["by"] for it in heard} == {"ada"}
        entries = await people.log(task.id)
        assert entries[1].data == {"from": "finance", "role": "lead", "comment": "too big"}


async def test_two_people_have_to_agree_and_the_requester_is_none_of_them(tmp_path: Path):
    async with engine(tmp_path) as e:
        handle = await e.client.start(approve, {"approvers": 2, "not_by": ["zoe"], "form": FORM})
        people, task = e.client.human_tasks, await the_one(e.client)
        with pytest.raises(TaskDenied, match="must not be decided by 'zoe'"):
            await people.complete(task.id, {"limit": 1, "who": "z"}, by="zoe")
        await people.complete(task.id, {"limit": 1, "who": "a"})
        with pytest.raises(TaskDenied, match="already"):
            await people.complete(task.id, {"limit": 2, "who": "a"})
        [seen] = (await people.list()).items
        assert [(it.by, it.value) for it in seen.approvals] == [("ada", {"limit": 1, "who": "a"})]
        await people.complete(task.id, {"limit": 2, "who": "g"}, by="grace")
        got = await handle
        assert got["by"] == ["ada", "grace"]
        assert [it["limit"] for it in got["values"]] == [1, 2]
        assert got["value"] == {"limit": 2, "who": "g"}


async def test_who_asked_is_the_principal_of_the_run(tmp_path: Path):
    async with engine(tmp_path) as e:
        assert await e.client.execute(who_asks) == "ada"
        bot = Principal("bot", initiated_by="grace")
        assert await e.client.as_(bot).execute(who_asks) == "grace"


async def test_a_client_that_acts_for_a_principal_does_what_that_may(tmp_path: Path):
    async with engine(tmp_path) as e:
        task = await e.client.human_tasks.create("Look", role="ops")
        with pytest.raises(TaskNotFound):
            await e.client.as_(FINANCE).human_tasks.claim(task.id)
        ops = e.client.as_(Principal("bob", roles=["ops"]))
        assert (await ops.human_tasks.claim(task.id)).claimed_by == "bob"


async def test_the_audit_is_told_of_what_is_raised_and_of_many_at_once(tmp_path: Path):
    async with engine(tmp_path, audit="full") as e:
        people = e.client.human_tasks
        ids = [(await people.create(f"Do {n}", role="ops")).id for n in range(2)]
        await people.claim_many([*ids, "nobody"])
        await people.complete(ids[0], 1, by="ada")
        told = [(it.action, it.target) for it in (await e.client.audit.list()).items]
    assert told[::-1] == [
        ("people.create", ids[0]),
        ("people.create", ids[1]),
        ("people.claim", ids[0]),
        ("people.claim", ids[1]),
        ("people.complete", ids[0]),
    ]


async def test_a_principal_sees_and_does_what_its_roles_let_it(tmp_path: Path):
    async with engine(tmp_path) as e:
        await e.client.start(approve, {})
        people = e.client.human_tasks
        other = await people.create("Look", role="ops")
        task = await the_one(e.client, for_=FINANCE)
        assert (task.role, await people.count(for_=FINANCE)) == ("finance", 1)
        assert await people.count() == 2
        for call in (people.get(other.id, for_=FINANCE), people.log(other.id, for_=FINANCE)):
            with pytest.raises(TaskNotFound):
                await call
        with pytest.raises(TaskNotFound):
            await people.complete(other.id, by=FINANCE)
        reader = Principal("bob", roles=[Grant("finance", write=Reach.SELF)])
        with pytest.raises(TaskDenied, match="may not complete"):
            await people.complete(task.id, by=reader)
        with pytest.raises(TaskDenied, match="may not raise"):
            await people.create("More", role="finance", by=reader)
        assert (await people.create("More", role="finance", by=FINANCE)).created_by == "bob"
        assert (await people.complete(task.id, by=FINANCE)).closed_by == "bob"


async def test_who_may_not_do_it_is_not_told_what_the_form_wants(tmp_path: Path):
    async with engine(tmp_path) as e:
        task = await e.client.human_tasks.create("Look", role="ops", form=FORM)
        with pytest.raises(TaskNotFound):
            await e.client.human_tasks.complete(task.id, {}, by=FINANCE)


async def test_nor_is_who_completes_many_told_what_the_forms_want_of_those_it_may_not_read(
    tmp_path: Path,
):
    async with engine(tmp_path) as e:
        people = e.client.human_tasks
        hidden = await people.create("Look", role="ops", form=FORM)
        own = await people.create("Look", role="finance", form=FORM)
        done = await people.complete_all([hidden.id, own.id], {}, all_or_none=False, by=FINANCE)
        assert done.done == []
        assert {it.id: it.code for it in done.skipped} == {
            hidden.id: "human_task.not_found",
            own.id: "invalid",
        }


async def test_all_that_is_wrong_is_said_with_its_path(tmp_path: Path):
    async with engine(tmp_path) as e:
        task = await e.client.human_tasks.create("Look", form=FORM, form_version=3)
        assert task.form_version == 3
        with pytest.raises(Invalid, match="limit") as caught:
            await e.client.human_tasks.complete(task.id, {"limit": "much", "who": 7})
        assert [it["path"] for it in caught.value.details["errors"]] == ["/limit", "/who"]
        assert all(it["message"] for it in caught.value.details["errors"])
        many = {"type": "array", "items": {"type": "integer"}}
        task = await e.client.human_tasks.create("Look", form=many)
        with pytest.raises(Invalid, match="; and 10 more") as caught:
            await e.client.human_tasks.complete(task.id, ["x"] * 30)
        assert len(caught.value.details["errors"]) == 30


async def test_an_id_shows_nobody_what_is_not_what_they_raise(tmp_path: Path):
    id = "0199d0f0-0000-7000-8000-000000000001"
    clerk = Principal("carl", roles=["ops"], tenant="acme")
    async with engine(tmp_path) as e:
        people = e.client.human_tasks
        first = await people.create("Disk is full", role="ops", payload="secret", id=id, by=clerk)
        assert await people.create("Disk is full", role="ops", id=id, by=clerk) == first
        other = Principal("olga", roles=["ops"], tenant="globex")
        untold = Principal("max", roles=["sales"], tenant="acme")
        for who, title, role in (
            (other, "Disk is full", "ops"),
            (clerk, "Disk is empty", "ops"),
            (untold, "Disk is full", "sales"),
        ):
            with pytest.raises(Conflict, match="is another one"):
                await people.create(title, role=role, id=id, by=who)
        await people.escalate(id, "lead", by=clerk)
        assert (await people.create("Disk is full", role="ops", id=id, by=clerk)).role == "lead"


async def test_what_is_shown_beside_it_has_one_name(tmp_path: Path):
    async with engine(tmp_path) as e:
        people = e.client.human_tasks
        with pytest.raises(Invalid, match="mean the same"):
            await people.create("Look", payload=1, data=2)
        assert (await people.create("Look", payload=1, data=None)).data == 1
        wrong: Any = "ada"
        with pytest.raises(Invalid, match="for_: 'ada' is no Principal"):
            await people.list(for_=wrong)


async def test_comments_and_references_to_documents_are_in_the_log(tmp_path: Path):
    async with engine(tmp_path) as e:
        people = e.client.human_tasks
        task = await people.create("Look", payload={"host": "a"}, type="alert")
        assert (task.data, task.type, task.created_by) == ({"host": "a"}, "alert", "ada")
        await people.comment(task.id, "I am at it", by="grace")
        await people.attach(task.id, "bill", "s3://b/1", size=7, media_type="application/pdf")
        entries = [(it.by, it.verb, it.data) for it in await people.log(task.id)]
        assert entries == [
            ("ada", "opened", {}),
            ("grace", "commented", {"comment": "I am at it"}),
            (
                "ada",
                "attached",
                {"name": "bill", "uri": "s3://b/1", "media_type": "application/pdf", "size": 7},
            ),
        ]
        for wrong in (people.comment(task.id, ""), people.attach(task.id, "", "x")):
            with pytest.raises(Invalid, match="is empty"):
                await wrong


async def test_a_terminated_run_takes_back_what_it_asked_for_and_the_log_says_so(tmp_path: Path):
    async with engine(tmp_path) as e:
        handle = await e.client.start(approve, {"escalate": [("lead", "1d")]})
        task = await the_one(e.client)
        await e.client.human_tasks.claim(task.id)
        await handle.terminate()

        async def is_closed() -> bool:
            after = await e.client.human_tasks.get(task.id)
            return after.status is HumanTaskStatus.CANCELLED

        await until(is_closed)
        assert await verbs(e.client, task.id) == ["opened", "claimed", "cancelled"]


async def test_many_at_once_are_done_or_skipped_with_a_reason(tmp_path: Path):
    async with engine(tmp_path) as e:
        people = e.client.human_tasks
        ids = [(await people.create(f"Do {n}", role="ops")).id for n in range(130)]
        await people.complete(ids[0])
        done, skipped = await people.claim_many([*ids, ids[1], "nobody"], by="grace")
        assert [it.id for it in done] == ids[1:]
        assert [(it.id, it.code) for it in skipped] == [
            (ids[0], "human_task.closed"),
            ("nobody", "human_task.not_found"),
        ]
        assert {it.claimed_by for it in done} == {"grace"}
        assigned = await people.assign_many(ids[1:3], "zoe")
        assert [it.assignee for it in assigned.done] == ["zoe", "zoe"]
        assert [it.role for it in (await people.escalate_many(ids[1:3], "lead")).done] == [
            "lead"
        ] * 2
        assert len((await people.cancel_many(ids[1:], "enough")).done) == 129
        assert await people.count() == 0


async def test_all_are_completed_or_none(tmp_path: Path):
    async with engine(tmp_path) as e:
        people = e.client.human_tasks
        form = {"type": "integer"}
        ids = [(await people.create(f"Do {n}", role="ops", form=form)).id for n in range(3)]
        await people.claim(ids[2], by="grace")
        with pytest.raises(Conflict, match="none was changed, because of 1") as caught:
            await people.complete_all(ids, 7)
        assert [(it["id"], it["code"]) for it in caught.value.details["failed"]] == [
            (ids[2], "human_task.claimed")
        ]
        with pytest.raises(Conflict) as caught:
            await people.complete_all(ids[:2], "seven")
        assert [it["code"] for it in caught.value.details["failed"]] == ["invalid", "invalid"]
        assert await people.count() == 3
        with pytest.raises(Invalid, match="over the limit of 100"):
            await people.complete_all([f"x{n}" for n in range(101)])
        some = await people.complete_all({ids[0]: 1, ids[1]: "x", ids[2]: 3}, all_or_none=False)
        assert [it.value for it in some.done] == [1]
        assert [it.id for it in some.skipped] == [ids[1], ids[2]] or {
            it.id for it in some.skipped
        } == {ids[1], ids[2]}
        with pytest.raises(TaskClosed):
            await people.complete(ids[0], 1)
        assert len((await people.complete_all(ids[1:], 2, by="grace")).done) == 2


async def test_a_principal_needs_the_whole_of_each_role_for_many_at_once(tmp_path: Path):
    async with engine(tmp_path) as e:
        people = e.client.human_tasks
        ours = await people.create("a", role="finance")
        ops = await people.create("b", role="ops")
        mixed = Principal("bob", roles=["finance", Grant("ops", write=Reach.SELF)])
        with pytest.raises(TaskDenied, match="of these roles: 'ops'"):
            await people.claim_many([ours.id, ops.id], by=mixed)
        assert (await people.get(ours.id)).status is HumanTaskStatus.OPEN
        done, skipped = await people.claim_many([ours.id, ops.id], by=FINANCE)
        assert [it.id for it in done] == [ours.id]
        assert [(it.id, it.code) for it in skipped] == [(ops.id, "human_task.not_found")]


async def test_of_many_nothing_is_done_if_a_late_one_may_not_be(tmp_path: Path):
    async with engine(tmp_path) as e:
        people = e.client.human_tasks
        ids = [(await people.create("a", role="finance")).id for _ in range(AT_ONCE)]
        ids.append((await people.create("b", role="ops")).id)
        mixed = Principal("bob", roles=["finance", Grant("ops", write=Reach.SELF)])
        with pytest.raises(TaskDenied, match="of these roles: 'ops'"):
            await people.claim_many(ids, by=mixed)
        assert await people.count(status="claimed") == 0


async def test_of_no_role_at_all_there_is_nothing(tmp_path: Path):
    async with engine(tmp_path) as e:
        people = e.client.human_tasks
        await people.create("a", role="finance")
        await people.create("b")
        assert await people.count() == 2
        assert (await people.list(roles=[])).items == []
        assert await people.count(roles=()) == 0
        assert await people.tally("role", roles=set()) == {}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"escalate": [("lead", "2d"), ("board", "1d")]},
            r"escalate\[1\]: it goes to 'board' no la",
        ),
        ({"escalate": ["lead"]}, r"escalate\[0\]: 'lead' is not \(role, when\)"),
        ({"escalate": "lead"}, "escalate: 'lead' is no list"),
        ({"escalate": [("", "1d")]}, r"escalate\[0\]: the role is empty"),
        ({"approvers": 0}, "approvers: 0 is not a whole number from 1 to 100"),
        ({"approvers": True}, "approvers: True"),
        ({"not_by": "ada", "assignee": "ada"}, "assignee: 'ada' is among not_by"),
        ({"not_by": 7}, "not_by: 7 is neither a name"),
        ({"form_version": -1}, "form_version: -1"),
        ({"escalate": [("a\0b", "1d")]}, r"escalate\[0\]: 'a.*b' holds a NUL"),
        ({"not_by": "a\0b"}, "not_by: .* holds a NUL"),
        ({"role": "😀" * 501}, "role: 2,004 bytes are over the limit of 2,000"),
        ({"escalate": [("😀" * 501, "1d")]}, r"escalate\[0\]: 2,004 bytes"),
        ({"description": "a\0b"}, "description: .* holds a NUL"),
        ({"role": "a\0b"}, "role: .* holds a NUL"),
        ({"type": "a\0b"}, "type: .* holds a NUL"),
    ],
)
async def test_what_cannot_be_meant_is_refused(tmp_path: Path, wrong: Any, message: str):
    async with engine(tmp_path) as e:
        with pytest.raises(Invalid, match=message):
            await e.client.human_tasks.create("Look", **wrong)


async def test_text_that_no_row_can_hold_is_refused_where_it_is_asked(tmp_path: Path):
    async with engine(tmp_path) as e:
        for wrong in ({"escalate": {"a\0b": "1d"}}, {"description": "a\0b"}):
            with pytest.raises(WorkflowFailed, match="holds a NUL"):
                await e.client.execute(approve, wrong)
        task = await e.client.human_tasks.create("Look")
        with pytest.raises(Invalid, match="text: .* holds a NUL"):
            await e.client.human_tasks.comment(task.id, "a\0b")


async def test_what_does_not_expire_is_overdue_in_lists_counts_and_why(tmp_path: Path):
    heard: list[Any] = []
    async with engine(tmp_path) as e:
        e.events.on("workflow.task.overdue", lambda event: heard.append(event.data["task_id"]))
        people = e.client.human_tasks
        handle = await e.client.start(approve, {"due": "10ms", "expires": "never"})
        alone = await people.create("Look", due="10ms", expires="never")
        await until(lambda: len(heard) == 2)
        assert await people.count(overdue=True) == 2
        late = {task.id for task in (await people.overdue()).items}
        assert late == set(heard) and alone.id in late
        asked = await the_one(e.client, workflow_id=handle.id)
        assert (asked.is_overdue, asked.expires_at) == (True, None)
        assert "(role 'finance', overdue since " in await handle.why()
        assert await verbs(e.client, alone.id) == ["opened", "overdue"]
        await people.complete(asked.id, 1)
        assert (await handle)["outcome"] == "completed"
        await people.complete(alone.id, 1)
        assert await people.count(overdue=True) == 0


async def test_what_is_overdue_still_goes_to_the_next_role(tmp_path: Path):
    heard: list[str] = []
    async with engine(tmp_path) as e:
        e.events.on("workflow.task.*", lambda event: heard.append(event.name))
        options = {"due": "5ms", "escalate": {"lead": "30ms"}, "expires": "9d"}
        await e.client.start(approve, options)
        await until(lambda: len(heard) == 2)
        # In whichever order this process came to it.
        assert sorted(heard) == ["workflow.task.escalated", "workflow.task.overdue"]
        task = await the_one(e.client, overdue=True)
        assert task.role == "lead"


async def test_what_has_a_time_after_it_is_due_expires_then(tmp_path: Path):
    async with engine(tmp_path) as e:
        handle = await e.client.start(approve, {"due": "5ms", "expires": "30ms"})
        assert (await handle)["outcome"] == "expired"
