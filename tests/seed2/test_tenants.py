"""What is another tenant's is answered at every door as what is not there, and stays as it was."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.engine.support import engine_on, until, until_status

from perdure import Engine, human, workflow
from perdure.control import Control, Principal
from perdure.control.escalations import Escalations
from perdure.control.workflows import Workflows
from perdure.errors import NotFound
from perdure.host import WorkflowHost
from perdure.policy import Policies
from perdure.values.states import Status


@workflow.define(name="user.approval", version="1.0.0")
async def approval(envelope: dict[str, Any]) -> str:
    """Wait for somebody's word, and then for a message."""
    await human.request("Is it?", role="reviewer", type="approval")
    return str(await workflow.listen("go").receive())


@workflow.define(name="user.returned", version="1.0.0")
async def returned(envelope: dict[str, Any]) -> dict[str, Any]:
    return {"type": "escalation", "message": "Is it?", "role": "reviewer", "data": None}


OWN = Principal("ada", roles=["admin", "reviewer"], tenant="acme")
STRANGER = Principal("eve", roles=["superadmin", "reviewer"], tenant="globex")
NOBODYS = Principal("root", roles=["superadmin"])
STATUSES = ["pending", "resolved", "cancelled", "expired"]
UNKNOWN = "none-of-them"


class World:
    """A run and its escalation, another that has ended with one, and one raised by hand."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.ids: dict[str, str] = {}

    async def make(self) -> None:
        lt = Control(self.engine.client, OWN)
        for name in ("approval", "returned"):
            config = {"invocable": True, "task_queue": "default", "roles": ["reviewer"]}
            assert (await lt.workflows.upsert_config(type=f"user.{name}", **config)).ok
            made = await lt.workflows.invoke(type=f"user.{name}", options={"id": name})
            assert made.ok, made
        ended = self.engine.client.get("returned")
        await until_status(ended, Status.COMPLETED)
        raised = await lt.escalations.create(type="extra", role="reviewer")
        found: dict[str | None, str] = {}

        async def are_there() -> bool:
            page = await lt.escalations.list()
            found.update({one["workflow_id"]: one["id"] for one in page.data["escalations"]})
            return len(found) == 3

        await until(are_there)
        self.ids = {"asked": found["approval"], "ended": found["returned"], "raised": found[None]}
        assert raised.data["id"] == found[None]

    async def standing(self) -> Any:
        """Return all that somebody could have changed."""
        lt = Control(self.engine.client, NOBODYS)
        pages = [await lt.escalations.list(status=STATUSES)]
        runs = (await self.engine.client.list()).items
        histories = [await self.engine.client.get(run.id).history() for run in runs]
        return [page.data for page in pages], [len(history) for history in histories]


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[World]:
    async with engine_on(folder, approval, returned) as engine:
        made = World(engine)
        await made.make()
        yield made


WORKFLOWS = {
    "get_status": {},
    "get_result": {},
    "resume": {},
    "terminate": {"reason": "mine now"},
    "export": {},
}
ESCALATIONS: dict[str, dict[str, Any]] = {
    "get": {},
    "get_log": {},
    "claim": {},
    "extend": {},
    "release": {},
    "resolve": {"payload": {"approved": True}},
    "reject": {"reason": "mine now"},
    "escalate": {"role": "reviewer"},
    "assign": {"assignee": "eve"},
    "cancel": {"reason": "mine now"},
    "comment": {"text": "mine now"},
    "attach": {"name": "mine", "uri": "s3://b/1"},
}
MANY: dict[str, dict[str, Any]] = {
    "bulk_claim": {},
    "bulk_assign": {"assignee": "eve"},
    "bulk_escalate": {"role": "reviewer"},
    "bulk_cancel": {"reason": "mine now"},
    "resolve_all_or_none": {"payload": {"approved": True}},
}
LISTS = ("list", "get_by_workflow_id")
HOST: dict[str, dict[str, Any]] = {
    "signal": {"signal": "go", "payload": "mine now"},
    "get_status": {},
    "cancel": {"reason": "mine now"},
    "explain": {"operation": "cancel"},
}
OTHERS = {"query", "run", "create", "invoke"}
"""They are given no id of what is there, or see to it in other tests."""


def _verbs(of: type, *, but: set[str]) -> set[str]:
    """Return the calls that take the id of something."""
    takes = {"id", "ids", "workflow_id", "instance_id", "asked"}
    calls = inspect.getmembers(of, inspect.isfunction)
    public = [(name, call) for name, call in calls if not name.startswith("_")]
    return {name for name, call in public if takes & {*inspect.signature(call).parameters}} - but


def test_the_tables_have_every_verb_that_takes_an_id():
    assert _verbs(Workflows, but=OTHERS) == {*WORKFLOWS}
    assert _verbs(Escalations, but=OTHERS) == {*ESCALATIONS, *MANY, *LISTS}
    assert _verbs(WorkflowHost, but={*OTHERS, "judge_start"}) == {*HOST}


@pytest.mark.parametrize("is_judged", [False, True], ids=["free", "judged"])
@pytest.mark.parametrize("verb", WORKFLOWS)
async def test_a_workflow_of_another_tenant_is_not_there(
    tmp_path: Path, verb: str, is_judged: bool
):
    async with world(tmp_path) as there:
        before = await there.standing()
        lt = Control(there.engine.client, STRANGER, policies=Policies() if is_judged else None)
        call = getattr(lt.workflows, verb)
        for id in ("approval", "returned"):
            answer = await call(workflow_id=id, **WORKFLOWS[verb])
            nothing = await call(workflow_id=UNKNOWN, **WORKFLOWS[verb])
            assert answer.status == 404
            assert repr(answer) == repr(nothing).replace(UNKNOWN, id)
        assert await there.standing() == before
        mine = await getattr(lt.as_(OWN).workflows, verb)(workflow_id="approval")
        assert mine.ok or (verb, mine.status) == ("resume", 409), "it is there; nobody paused it"


@pytest.mark.parametrize("verb", ESCALATIONS)
async def test_an_escalation_of_another_tenant_is_not_there(tmp_path: Path, verb: str):
    async with world(tmp_path) as there:
        before = await there.standing()
        lt = Control(there.engine.client, STRANGER, policies=Policies())
        call = getattr(lt.escalations, verb)
        for id in there.ids.values():
            answer = await call(id=id, **ESCALATIONS[verb])
            nothing = await call(id=UNKNOWN, **ESCALATIONS[verb])
            assert answer.status == 404
            assert repr(answer) == repr(nothing).replace(UNKNOWN, id)
        assert await there.standing() == before


@pytest.mark.parametrize("verb", MANY)
async def test_many_escalations_of_another_tenant_are_not_there(tmp_path: Path, verb: str):
    async with world(tmp_path) as there:
        before = await there.standing()
        call = getattr(Control(there.engine.client, STRANGER).escalations, verb)
        ids = [*there.ids.values()]
        answer = await call(ids=ids, **MANY[verb])
        nothing = await call(ids=[f"{UNKNOWN}-{n}" for n in range(3)], **MANY[verb])
        said, unsaid = repr(answer), repr(nothing)
        for n, id in enumerate(ids):
            said, unsaid = said.replace(id, f"{n}"), unsaid.replace(f"{UNKNOWN}-{n}", f"{n}")
        assert said == unsaid
        assert await there.standing() == before


@pytest.mark.parametrize("verb", LISTS)
@pytest.mark.parametrize("id", ["approval", "returned"])
async def test_lists_hold_nothing_of_another_tenant(tmp_path: Path, verb: str, id: str):
    async with world(tmp_path) as there:
        lt = Control(there.engine.client, STRANGER)
        answer = await getattr(lt.escalations, verb)(workflow_id=id)
        assert answer.data == {"escalations": [], "cursor": None}
        mine = await getattr(lt.as_(OWN).escalations, verb)(workflow_id=id)
        assert len(mine.data["escalations"]) == 1


async def test_a_start_neither_gives_to_nor_ends_what_is_another_tenants(tmp_path: Path):
    async with world(tmp_path) as there:
        before = await there.standing()
        lt = Control(there.engine.client, STRANGER)
        for way in ("use_existing", "terminate_existing", "fail"):
            options = {"id": "approval", "id_conflict_policy": way, "messages": [("go", "mine")]}
            answer = await lt.workflows.invoke(type="user.approval", options=options)
            assert (answer.status, answer.data) == (409, None)
        assert await there.standing() == before


@pytest.mark.parametrize("verb", HOST)
async def test_a_service_that_acts_for_a_tenant_finds_no_others(tmp_path: Path, verb: str):
    async with world(tmp_path) as there:
        before = await there.standing()
        host = WorkflowHost(there.engine.client.as_(STRANGER), service="user.service")
        with pytest.raises(NotFound) as missed:
            await getattr(host, verb)(instance_id="approval", **HOST[verb])
        with pytest.raises(NotFound) as nothing:
            await getattr(host, verb)(instance_id=UNKNOWN, **HOST[verb])
        assert missed.value.message == nothing.value.message.replace(UNKNOWN, "approval")
        assert await there.standing() == before
        own = WorkflowHost(there.engine.client.as_(OWN), service="user.service")
        await getattr(own, verb)(instance_id="approval", **HOST[verb])


async def test_a_query_of_a_service_that_acts_for_a_tenant_finds_no_others(tmp_path: Path):
    async with world(tmp_path) as there:
        client = there.engine.client
        found = {
            who.id: len((await WorkflowHost(client.as_(who), service="s").query()).instances)
            for who in (OWN, STRANGER)
        }
        assert found == {"ada": 3, "eve": 0}  # with the one that asks for the run that has ended
