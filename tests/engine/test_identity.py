"""Who acts travels with a run, to all that comes of it, and can only come from a client."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.engine.support import engine_on, until_status

from perdure import Client, Engine, Retry, activity, human, workflow
from perdure.errors import (
    AlreadyExists,
    ApplicationError,
    ChildFailed,
    Invalid,
    PermissionDenied,
)
from perdure.values.principals import CONTEXT_KEY, Grant, Kind, Power, Principal, Reach
from perdure.values.states import Status

ADA = Principal(
    "ada",
    name="Ada",
    roles=["admin", Grant("finance", Power.MEMBER, Reach.SELF, Reach.NONE)],
    scopes=["workflow:invoke"],
    claims={"team": {"n": 1}},
)
ROBOT = Principal("robot", Kind.SERVICE, tenant="acme", initiated_by="ada")
EVE = {"id": "eve", "roles": [{"role": "superadmin", "power": "superadmin"}]}


@activity.define
async def who() -> Any:
    return _id(activity.principal())


@activity.define
def who_in_a_thread() -> Any:
    return _id(activity.principal())


@activity.define(task_queue="elsewhere")
async def who_elsewhere() -> Any:
    return _id(activity.principal())


def _id(found: Principal | None) -> str | None:
    return None if found is None else found.id


@workflow.define
async def grandchild(_: None) -> list[Any]:
    return [_id(workflow.principal()), await who()]


@workflow.define
async def child(_: None) -> list[Any]:
    return [_id(workflow.principal()), *await workflow.execute(grandchild, None)]


@workflow.define
async def family(_: None) -> list[Any]:
    inherited = await workflow.execute(child, None, context={"more": 1})
    return [_id(workflow.principal()), await who_in_a_thread(), await who_elsewhere(), *inherited]


@workflow.define
async def again(left: int) -> Any:
    if left:
        await workflow.continue_as_new(left - 1)
    if workflow.info().attempt == 1:
        raise ApplicationError("once more")
    return _id(workflow.principal())


@workflow.define
async def telling(payload: Any) -> Any:
    message = await workflow.listen("go").receive()
    found = workflow.principal()
    return {
        "who": None if found is None else workflow.context[CONTEXT_KEY],
        "memo": payload,
        "message": message,
    }


@workflow.define
async def collects(_: None) -> list[Any]:
    listening = workflow.listen("go")
    return [_id(workflow.principal()), *[await listening.receive() for _ in range(4)]]


@workflow.define
async def pretends(given: Any) -> str:
    try:
        await workflow.execute(child, None, context={CONTEXT_KEY: given})
    except Invalid as error:
        return error.message
    return "it could"


@workflow.define
async def asks(_: None) -> str:
    decision: Any = await human.request("Shall we?")
    return str(decision.by)


DEFINITIONS = [family, child, grandchild, again, telling, collects, pretends, asks, who_elsewhere]


def engine(folder: Path, **options: Any) -> Engine:
    queues = ("default", "elsewhere")
    return engine_on(folder, *DEFINITIONS, task_queues=queues, **options)


async def test_children_activities_and_other_queues_are_told_who_the_run_acts_for(tmp_path: Path):
    async with engine(tmp_path, identity=ADA) as running:
        assert await running.client.execute(family) == ["ada"] * 6


async def test_a_principal_arrives_whole(tmp_path: Path):
    found: list[Any] = []

    @workflow.define
    async def whole(_: None) -> None:
        found.append(workflow.principal())

    async with engine_on(tmp_path, whole) as running:
        await running.client.as_(ADA).execute(whole)
        await running.client.as_(ROBOT).execute(whole)
        await running.client.execute(whole)
    assert found == [ADA, ROBOT, None]


async def test_runs_that_continue_or_are_retried_act_for_the_same(tmp_path: Path):
    async with engine(tmp_path) as running:
        client, retry = running.client.as_(ADA), Retry(max_attempts=2, interval="1ms")
        assert await client.execute(again, 2, retry=retry) == "ada"


async def test_a_run_is_listed_by_who_started_it_and_is_of_their_tenant(tmp_path: Path):
    async with engine(tmp_path) as running:
        robot = running.client.as_(ROBOT)
        handle = await robot.start(telling, id="t")
        shown = await handle.describe()
        assert (shown.created_by, shown.tenant) == ("robot", "acme")
        by_name = await running.client.start(telling, id="u", created_by="form 7", tenant="other")
        shown = await by_name.describe()
        assert (shown.created_by, shown.tenant) == ("form 7", "other")
        with pytest.raises(PermissionDenied, match="'acme'"):
            await robot.start(telling, tenant="other")
        await robot.start(telling, tenant="acme")


async def test_a_client_of_its_own_acts_for_somebody_too(tmp_path: Path):
    async with engine(tmp_path):
        async with Client(f"sqlite:///{tmp_path / 'test.db'}", identity=ADA) as client:
            assert await client.execute(family) == ["ada"] * 6
            assert client.identity == "ada"
        async with Client(f"sqlite:///{tmp_path / 'test.db'}", identity="bob") as client:
            assert await client.execute(family) == ["bob"] * 6
            assert client.principal is None


async def test_a_view_acts_for_another_and_leaves_its_client_alone(tmp_path: Path):
    async with engine(tmp_path, identity="bob") as running:
        client = running.client
        async with client.as_(ADA) as view:
            handle = await view.start(collects, id="t")
        await client.start(telling, id="b")
        for number, sender in enumerate((client, view, client, view)):  # each has its own numbers
            await sender.get("t").send("go", number)
        assert await handle.result() == ["ada", 0, 1, 2, 3]
        assert (await client.get("b").describe()).created_by == "bob"


async def test_human_tasks_are_decided_by_whom_the_client_acts_for(tmp_path: Path):
    async with engine(tmp_path) as running:
        handle = await running.client.start(asks)
        await until_status(handle, Status.WAITING)
        [task] = (await running.client.human_tasks.list()).items
        await running.client.as_("ada").human_tasks.complete(task.id)
        assert await handle.result() == "ada"


async def test_it_is_the_same_after_a_restart(tmp_path: Path):
    async with engine(tmp_path, identity=ADA) as running:
        handle = await running.client.start(telling, id="t")
        await until_status(handle, Status.WAITING)
    async with engine(tmp_path) as running:
        await running.client.get("t").send("go")
        assert (await running.client.get("t").result())["who"]["id"] == "ada"


# -- no payload says who acts --------------------------------------------------------------------


@pytest.mark.parametrize("identity", ["", ADA])
async def test_the_context_of_a_start_cannot_say_who_acts(tmp_path: Path, identity: Any):
    async with engine(tmp_path, identity=identity) as running:
        with pytest.raises(Invalid, match="who acts"):
            await running.client.start(telling, context={CONTEXT_KEY: EVE})
        with pytest.raises(Invalid, match="who acts"):
            running.client.start_within(object(), telling, context={CONTEXT_KEY: EVE})
        async with running.client.mailbox() as box:
            with pytest.raises(Invalid, match="who acts"):
                await box.start(telling, context={CONTEXT_KEY: None})


async def test_the_context_of_a_child_cannot_say_who_acts(tmp_path: Path):
    async with engine(tmp_path, identity=ADA) as running:
        assert "who acts" in await running.client.execute(pretends, EVE)
        assert "who acts" in await running.client.execute(pretends, None)


async def test_input_memo_messages_and_attributes_say_nothing_of_who_acts(tmp_path: Path):
    claims = {CONTEXT_KEY: EVE, "context": {CONTEXT_KEY: EVE}, "identity": EVE}
    async with engine(tmp_path) as running:
        handle = await running.client.start(
            telling,
            claims,
            memo=claims,
            messages=[("go", claims)],
            search={CONTEXT_KEY: "eve"},
            context={"other": claims},
        )
        told = await handle.result()
        assert (told["who"], told["message"]) == (None, claims)


@pytest.mark.parametrize("importer", [None, ADA])
@pytest.mark.parametrize("claimed", [EVE, "eve", None])
@pytest.mark.parametrize("is_open", [True, False])
async def test_an_imported_document_says_nothing_of_who_acts(
    tmp_path: Path, importer: Principal | None, claimed: Any, *, is_open: bool
):
    async with engine(tmp_path) as running:
        client = running.client
        handle = await client.as_(ROBOT).start(telling, id="t", context={"kept": 1})
        await until_status(handle, Status.WAITING)
        if not is_open:
            await handle.send("go")
            await handle.result()
        document = json.loads(json.dumps(await handle.export(with_seed=True)))
        started = document["turns"][0]["events"][0]
        assert started["context"][CONTEXT_KEY]["id"] == "robot"
        started["context"] = {"kept": 1, **({CONTEXT_KEY: claimed} if claimed else {})}
        for turn in document["turns"]:
            del turn["crc"]
        document["tenant"] = None
        view = client if importer is None else client.as_(importer)
        taken = await view.import_run(document, id="copy")
        context = (await taken.history())[0].data["context"]
        assert context["kept"] == 1
        found = context.get(CONTEXT_KEY)
        assert (found and found["id"]) == (importer and importer.id)
        going = taken if is_open else await taken.fork(after_event=1, id="more")
        await going.send("go")
        told = await going.result()
        assert (told["who"] and told["who"]["id"]) == (importer and importer.id)


async def test_who_imports_for_a_tenant_imports_for_no_other(tmp_path: Path):
    async with engine(tmp_path) as running:
        handle = await running.client.start(telling, messages=[("go", 1)], tenant="other")
        await handle.result()
        document = json.loads(json.dumps(await handle.export()))
        with pytest.raises(PermissionDenied):
            await running.client.as_(ROBOT).import_run(document, id="copy")


@pytest.mark.parametrize(
    "written", ["ada", 7, [], {}, {"id": ""}, {"id": 7}, {"id": "x", "roles": 3}]
)
async def test_what_is_no_principal_names_nobody(written: Any):
    from perdure.values.principals import principal_in

    assert principal_in({CONTEXT_KEY: written}) is None


@workflow.define
async def receives(_: None) -> list[Any]:
    return [await workflow.listen("note").receive()]


@workflow.define
async def intrudes(id: str) -> Any:
    try:
        return await workflow.execute(receives, id=id, messages=[("note", "of a child")])
    except ChildFailed as failed:
        return failed.kind


@workflow.define
async def begets(_: None) -> str:
    child = await workflow.start(receives, id="child", parent_close_policy="abandon")
    return child.id


@pytest.mark.parametrize("whose", [Principal("eve", tenant="globex"), None])
@pytest.mark.parametrize("conflict", ["use_existing", "terminate_existing"])
@pytest.mark.parametrize("remote", [False, True])
async def test_a_start_does_not_reach_executions_of_other_tenants(
    tmp_path: Path, whose: Principal | None, conflict: str, *, remote: bool
):
    async with engine_on(tmp_path, receives) as engine:
        owner = engine.client.as_(whose) if whose is not None else engine.client
        theirs = await owner.start(receives, id="x")
        ada = Principal("ada", tenant="acme")
        url = f"sqlite:///{tmp_path / 'test.db'}"
        async with Client(url, identity=ada) as alone:
            client = alone if remote else engine.client.as_(ada)
            options = {"id": "x", "id_conflict_policy": conflict, "messages": [("note", "ada's")]}
            with pytest.raises(AlreadyExists, match="the id 'x' is taken") as refused:
                await client.start(receives, **options)
            assert refused.value.details is None
            assert theirs.run_id not in str(refused.value)
        await theirs.send("note", "mine")
        assert await theirs.result() == ["mine"]


async def test_a_child_does_not_reach_executions_of_other_tenants(tmp_path: Path):
    async with engine_on(tmp_path, receives, intrudes) as engine:
        theirs = await engine.client.as_(Principal("eve", tenant="globex")).start(receives, id="x")
        ada = engine.client.as_(Principal("ada", tenant="acme"))
        assert await ada.execute(intrudes, "x") == "AlreadyExists"
        await theirs.send("note", "mine")
        assert await theirs.result() == ["mine"]


async def test_a_child_is_of_the_tenant_of_its_parent(tmp_path: Path):
    async with engine_on(tmp_path, receives, begets) as engine:
        ada = engine.client.as_(Principal("ada", tenant="acme"))
        await ada.execute(begets)
        again = await ada.start(begets)  # which finds the child that is open
        assert await again.result() == "child"
        child = engine.client.get("child")
        assert (await child.describe()).tenant == "acme"
