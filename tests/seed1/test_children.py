"""Child workflows: run in line, run beside, their failures, and their place in the family."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.engine.support import engine_on, until, until_status

from perdure import ApplicationError, Retry, Status, activity, workflow
from perdure.errors import ChildFailed, Invalid, WorkflowFailed


@workflow.define
async def child_workflow(given: dict[str, str]) -> dict[str, str]:
    return {"echo": given["message"]}


@workflow.define
async def error_child_workflow(_: None) -> None:
    raise ApplicationError(
        "no such customer", kind="NotFound", retryable=False, details={"customer": 7}
    )


@workflow.define
async def waiting_child(_: None) -> str:
    await workflow.listen("go").receive()
    return "went"


CHILDREN = (child_workflow, error_child_workflow, waiting_child)


async def test_synchronous_child(tmp_path: Path):
    """``execute`` waits in line and gives no notice of the child's end."""

    @workflow.define
    async def parent() -> list[Any]:
        result = await workflow.execute(child_workflow, {"message": "hello"})
        try:
            await workflow.events().receive("10ms")
        except TimeoutError:
            return [result, "no notice"]
        return []

    async with engine_on(tmp_path, parent, *CHILDREN) as engine:
        assert await engine.client.execute(parent) == [{"echo": "hello"}, "no notice"]


async def test_asynchronous_child(tmp_path: Path):
    """``start`` returns at once; the child's end is an Exit on ``events()``, once."""

    @workflow.define
    async def parent() -> dict[str, Any]:
        events = workflow.events()
        child = await workflow.start(child_workflow, {"message": "hello from parent"})
        event = await events.receive()
        try:
            await events.receive("10ms")
        except TimeoutError:
            pass
        else:
            raise AssertionError("a second notice")
        return {
            "kind": event.kind,
            "is from it": event.sender == child.id,
            "result": event.result,
            "error": event.error,
            "awaited": await child,
        }

    async with engine_on(tmp_path, parent, *CHILDREN) as engine:
        assert await engine.client.execute(parent) == {
            "kind": "exit",
            "is from it": True,
            "result": {"echo": "hello from parent"},
            "error": None,
            "awaited": {"echo": "hello from parent"},
        }


async def test_asynchronous_child_whose_input_does_not_fit(tmp_path: Path):
    """By its definition the parent is told where it starts it; by name, when the child fails."""

    @workflow.define
    async def parent() -> list[str]:
        kinds: list[str] = []
        wrong: Any = 7
        for child in (child_workflow, "child_workflow"):
            try:
                await workflow.execute(child, wrong)
            except (Invalid, ChildFailed) as exc:
                kinds.append(f"{type(exc).__name__} {exc.kind}")
        return kinds

    async with engine_on(tmp_path, parent, *CHILDREN) as engine:
        assert await engine.client.execute(parent) == ["Invalid Invalid", "ChildFailed Invalid"]


async def test_error_propagation_from_children(tmp_path: Path):
    """The Exit of a child that failed has its kind, retryable, message and details."""

    @workflow.define
    async def parent() -> list[Any]:
        await workflow.start(error_child_workflow)
        error = (await workflow.events().receive()).error
        assert error is not None
        return [error.kind, error.retryable, error.message, error.details]

    async with engine_on(tmp_path, parent, *CHILDREN) as engine:
        assert await engine.client.execute(parent) == [
            "NotFound",
            False,
            "no such customer",
            {"customer": 7},
        ]


async def test_executing_workflows_synchronously(tmp_path: Path):
    """``client.execute`` starts and waits in one call; no input is an input."""

    @workflow.define
    async def hello_workflow(given: dict[str, str] | None) -> str:
        return f"hello {given['name'] if given else 'nobody'}"

    async with engine_on(tmp_path, hello_workflow, *CHILDREN) as engine:
        assert await engine.client.execute(hello_workflow, {"name": "world"}) == "hello world"
        assert await engine.client.execute("hello_workflow", {"name": "world"}) == "hello world"
        assert await engine.client.execute(hello_workflow, None) == "hello nobody"
        with pytest.raises(WorkflowFailed) as caught:
            await engine.client.execute(error_child_workflow)
        assert (caught.value.kind, caught.value.retryable) == ("NotFound", False)


async def test_many_children_side_by_side(tmp_path: Path):
    """Children run at once; ``gather`` collects results, ``events()`` the order of their ends."""

    @workflow.define
    async def parent(count: int) -> dict[str, Any]:
        children = [await workflow.start(waiting_child, id=f"c{n}") for n in range(count)]
        for child in reversed(children):
            await child.send("go")
            await workflow.events().receive()
        return {"results": await asyncio.gather(*children)}

    async with engine_on(tmp_path, parent, *CHILDREN) as engine:
        result = await engine.client.execute(parent, 5)
        assert result == {"results": ["went"] * 5}


async def test_a_child_knows_its_parent_and_can_talk_to_it(tmp_path: Path):
    @workflow.define
    async def talkative() -> None:
        parent = workflow.info().parent_workflow_id
        assert parent is not None
        await workflow.send(parent, "half", 50)

    @workflow.define
    async def parent() -> int:
        half = workflow.listen("half", int)
        await workflow.start(talkative)
        return await half.receive(timeout="10s")

    async with engine_on(tmp_path, parent, talkative) as engine:
        assert await engine.client.execute(parent) == 50


async def test_a_child_outlives_a_restart_of_everything(tmp_path: Path):
    """Parent and child wait on disk; each finds the other again."""

    @workflow.define
    async def parent() -> str:
        return await workflow.execute(waiting_child, id="child")

    async with engine_on(tmp_path, parent, *CHILDREN) as engine:
        handle = await engine.client.start(parent, id="p")

        async def child_waits() -> bool:
            found = await engine.client.list(workflow_id="child")
            return bool(found.items) and found.items[0].status is Status.WAITING

        await until(child_waits)
        await until_status(handle, Status.WAITING)
    async with engine_on(tmp_path, parent, *CHILDREN) as engine:
        await engine.client.get("child").send("go")
        assert await engine.client.get("p").result("20s") == "went"


async def test_child_options(tmp_path: Path):
    """A child takes the start options: retries, memo, search, startup messages."""

    @workflow.define
    async def stubborn_child(_: None) -> list[Any]:
        note = await workflow.listen("note").receive()
        if workflow.info().attempt < 2:
            raise ApplicationError("not yet")
        return [workflow.info().attempt, note]

    @workflow.define
    async def parent() -> list[Any]:
        return await workflow.execute(
            stubborn_child,
            id="child",
            retry=Retry(max_attempts=3, interval="10ms"),
            memo={"why": "a test"},
            search={"customer": "c-1"},
            messages=[("note", "first"), ("note", "second")],
        )

    async with engine_on(tmp_path, parent, stubborn_child) as engine:
        result = await engine.client.execute(parent)
        assert result[0] == 2
        found = await engine.client.get("child").describe()
        assert (found.memo, found.search) == ({"why": "a test"}, {"customer": "c-1"})


@activity.define
async def undo(what: str) -> None:
    pass


@pytest.mark.parametrize("waits", [False, True], ids=["goes on at once", "waits for the child"])
async def test_wait_for_cancellation(tmp_path: Path, waits: bool):
    """A cancelled parent asks its child to end, and may wait until it has cleaned up."""

    @workflow.define
    async def tidy_child(_: None) -> None:
        try:
            await workflow.listen("never").receive()
        finally:
            await undo("the child's work")

    @workflow.define
    async def parent(wait: bool) -> None:
        try:
            await workflow.execute(
                tidy_child,
                id="child",
                wait_for_cancellation=wait,
                parent_close_policy="abandon",
            )
        finally:
            await workflow.attrs(memo={"cancelled at": workflow.now().isoformat()})

    async with engine_on(tmp_path, parent, tidy_child, undo) as engine:
        handle = await engine.client.start(parent, waits)

        async def child_waits() -> bool:
            found = await engine.client.list(workflow_id="child")
            return bool(found.items) and found.items[0].status is Status.WAITING

        await until(child_waits)
        await handle.cancel()
        await until_status(handle, Status.CANCELLED)
        child = engine.client.get("child")
        if waits:
            assert await child.status() is Status.CANCELLED
        await until_status(child, Status.CANCELLED)
        assert "activity_completed" in [event.kind for event in await child.history()]
