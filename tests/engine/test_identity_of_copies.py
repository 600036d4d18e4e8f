"""For whom copies act: a fork gives nobody the rights of somebody else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.engine.support import engine_on, events_of, until_status

from perdure import Client, activity, human, workflow
from perdure.errors import ApplicationError, PermissionDenied
from perdure.values.principals import Principal
from perdure.values.states import Status

ADA = Principal("ada", roles=["admin"], tenant="acme")
BOB = Principal("bob", tenant="acme")
ROOT = Principal("root")
EVE = Principal("eve", roles=["superadmin"], tenant="globex")


def _id(found: Principal | None) -> str | None:
    return None if found is None else found.id


@activity.define
async def who() -> str | None:
    return _id(activity.principal())


@workflow.define
async def child(_: None) -> list[Any]:
    return [_id(workflow.principal()), await who()]


@workflow.define
async def telling(fails: bool) -> dict[str, Any]:
    """Tell for whom it acts, before and after a message, and through all that it starts."""
    before = [_id(workflow.principal()), await who()]
    await workflow.listen("go").receive()
    if fails and (await who()) != "nobody":
        raise ApplicationError("no", retryable=False)
    after = [_id(workflow.principal()), await who(), human.requester()]
    return {"before": before, "after": after, "child": await workflow.execute(child, None)}


def for_(id: str | None) -> dict[str, Any]:
    return {"after": [id, id, id or ""], "child": [id, id]}


@pytest.mark.parametrize(
    ("original", "forker", "acts"),
    [(ADA, BOB, "bob"), (ADA, ROOT, "root"), (ADA, None, "ada"), (None, ROOT, "root")],
)
async def test_a_fork_acts_for_whoever_forks(
    tmp_path: Path, original: Principal | None, forker: Principal | None, acts: str
):
    async with engine_on(tmp_path, telling, child, audit="summary") as engine:
        client = engine.client
        first = client if original is None else client.as_(original)
        handle = await first.start(telling, False)
        await until_status(handle, Status.WAITING)
        view = client if forker is None else client.as_(forker)
        length = len(await handle.history())
        fork = await view.get(handle.id).fork(after_event=length, id="fork")
        await fork.send("go")
        began = _id(original)
        assert await fork == {"before": [began, began], **for_(acts)}
        told = await fork.describe()
        assert (told.created_by, told.tenant) == (acts, original and original.tenant)
        marks = await events_of(fork, "run_handed_over")
        assert [mark.data["by"] for mark in marks] == ([forker.id] if forker is not None else [])
        await handle.send("go")
        assert await handle == {"before": [began, began], **for_(began)}
        [line] = (await client.audit.list(action="fork")).items
        assert (line.principal, line.target) == (_id(forker) or "", "fork")
        assert line.detail == {"origin": handle.id, "origin_run": handle.run_id}


async def test_a_fork_from_the_start_has_nothing_of_the_original_principal(tmp_path: Path):
    async with engine_on(tmp_path, telling, child) as engine:
        handle = await engine.client.as_(ADA).start(telling, False)
        fork = await engine.client.as_(BOB).get(handle.id).fork(after_event=0)
        await fork.send("go")
        assert await fork == {"before": ["bob", "bob"], **for_("bob")}


@pytest.mark.parametrize("way", ["fork", "retry", "retry as its own"])
async def test_a_copy_of_a_copy_does_not_fall_back_to_the_very_first(tmp_path: Path, way: str):
    async with engine_on(tmp_path, telling, child) as engine:
        client = engine.client
        handle = await client.as_(ADA).start(telling, True, messages=[("go", None)])
        await until_status(handle, Status.FAILED)
        length = (await events_of(handle, "activity_scheduled"))[1].id
        fork = await client.as_(BOB).get(handle.id).fork(after_event=length, id="fork")
        await until_status(fork, Status.FAILED)
        there = client.get("fork")  # of nobody: a program that is trusted
        if way == "fork":
            copy = await there.fork(after_event=0, input=False)
            await copy.send("go")
            assert await copy == {"before": ["bob", "bob"], **for_("bob")}
            return
        id = "own" if way != "retry" else None
        copy = await there.retry(from_step="who", id=id)
        await until_status(copy, Status.FAILED)
        assert (await copy.describe()).created_by == "bob"
        acted = [one.data["result"] for one in await events_of(copy, "activity_completed")]
        assert acted == ["bob", "bob"]


@pytest.mark.parametrize("importer", [BOB, None])
async def test_a_copy_that_is_imported_acts_for_whoever_imports_it(
    tmp_path: Path, importer: Principal | None
):
    async with engine_on(tmp_path, telling, child) as engine:
        client = engine.client
        handle = await client.as_(ADA).start(telling, False)
        await until_status(handle, Status.WAITING)
        length = len(await handle.history())
        fork = await client.as_(ROOT).get(handle.id).fork(after_event=length, id="fork")
        await until_status(fork, Status.WAITING)
        document = await fork.export(with_seed=True)
        document["tenant"] = None
        view = client if importer is None else client.as_(importer)
        there = await view.import_run(document, id="there")
        assert "'root'" not in str([one.data.get("context") for one in await there.history()])
        await there.send("go")
        told = await there
        told.pop("before")
        assert told == for_(_id(importer))


async def test_a_copy_keeps_its_principal_when_another_process_takes_it_up(tmp_path: Path):
    async with engine_on(tmp_path, telling, child) as engine:
        handle = await engine.client.as_(ADA).start(telling, False)
        await until_status(handle, Status.WAITING)
        fork = await engine.client.as_(BOB).get(handle.id).fork(before_step="who", id="fork")
        await until_status(fork, Status.WAITING)
    async with engine_on(tmp_path, telling, child) as engine:
        fork = engine.client.get("fork")
        await fork.send("go")
        assert await fork == {"before": ["bob", "bob"], **for_("bob")}


async def test_a_retry_does_what_was_asked_and_says_by_whom_it_was_retried(tmp_path: Path):
    async with engine_on(tmp_path, telling, child, audit="summary") as engine:
        client = engine.client
        handle = await client.as_(ADA).start(telling, True, messages=[("go", None)])
        await until_status(handle, Status.FAILED)
        again = await client.as_(BOB).get(handle.id).retry()
        await until_status(again, Status.FAILED)
        told = await again.describe()
        assert (told.created_by, told.tenant) == ("ada", "acme")
        [mark] = await events_of(again, "run_handed_over")
        assert (mark.data["by"], mark.data.get("context")) == ("bob", None)
        [line] = (await client.audit.list(action="retry")).items
        assert (line.principal, line.target, line.run_id) == ("bob", handle.id, again.run_id)
        assert line.detail == {"origin": handle.id, "origin_run": handle.run_id}
        own = await client.as_(BOB).get(handle.id).retry(id="own", from_step="who")
        await until_status(own, Status.FAILED)
        assert (await own.describe()).created_by == "bob"
        acted = [one.data["result"] for one in await events_of(own, "activity_completed")]
        assert acted == ["bob", "bob"]


@pytest.mark.parametrize("way", ["fork", "retry", "retry as its own"])
async def test_nobody_copies_what_is_another_tenants(tmp_path: Path, way: str):
    async with engine_on(tmp_path, telling, child) as engine:
        client: Client = engine.client
        handle = await client.as_(ADA).start(telling, True, messages=[("go", None)])
        await until_status(handle, Status.FAILED)
        there = client.as_(EVE).get(handle.id)
        before = int(await client.count(exact=True))
        with pytest.raises(PermissionDenied, match="not that tenant's"):
            if way == "fork":
                await there.fork(after_event=0)
            else:
                await there.retry(id="own" if way != "retry" else None)
        assert int(await client.count(exact=True)) == before
        assert await handle.status() is Status.FAILED
