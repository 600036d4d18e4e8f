"""A child with an id of its own, and one of that id that an earlier parent has left behind."""

from __future__ import annotations

from pathlib import Path

from tests.engine.support import engine_on, until, until_status

from perdure import Engine, Status, workflow


@workflow.define
async def patient() -> str:
    return await workflow.listen("go", str).receive()


@workflow.define
async def parent() -> str:
    return await workflow.execute(patient, id="child")


@workflow.define
async def of_two_rounds(turn: int) -> str:
    if turn == 1:
        await workflow.start(patient, id="old")
        await workflow.continue_as_new(2)
    child = await workflow.start(patient, id="new")
    end = await workflow.events().receive()
    assert end.error is not None
    return f"{end.sender}: {end.error.message}; {await child}"


def engine_with_all(folder: Path) -> Engine:
    return engine_on(folder, patient, parent, of_two_rounds)


async def open_child(engine: Engine, id: str, *, but: str = "") -> str:
    """Return the run id of an open child."""
    found: list[str] = []

    async def is_there() -> bool:
        page = await engine.client.list(workflow_id=id, status=["running", "waiting"])
        found[:] = [it.run_id for it in page.items if it.run_id != but]
        return bool(found)

    await until(is_there)
    return found[0]


async def test_a_parent_in_the_place_of_another_has_a_child_of_its_own(tmp_path: Path):
    async with engine_with_all(tmp_path) as engine:
        client = engine.client
        first = await client.start(parent, id="parent")
        old = await open_child(engine, "child")
        second = await client.start(parent, id="parent", id_conflict_policy="terminate_existing")
        await open_child(engine, "child", but=old)
        await client.get("child").send("go", "here")
        assert await second.result("20s") == "here"
        await until_status(client.get("parent", first.run_id), Status.TERMINATED)
        await until_status(client.get("child", old), Status.TERMINATED)


async def test_the_end_of_a_replaced_child_is_not_taken_for_that_of_a_later_runs_child(
    tmp_path: Path,
):
    async with engine_with_all(tmp_path) as engine:
        client = engine.client
        handle = await client.start(of_two_rounds, 1, id="parent")
        await open_child(engine, "new")
        await client.start(patient, id="old", id_conflict_policy="terminate_existing")
        await client.get("new").send("go", "here")
        assert await handle.result("20s") == "old: a new start took its place; here"
