"""Arguments that cannot be recorded are refused where they are given, and nothing happens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.engine.support import engine_on, until_status

from perdure import ApplicationError, Client, Engine, Status, workflow
from perdure.errors import Invalid, UsageError


@workflow.define
async def waiter() -> str:
    await workflow.listen("go").receive()
    return "done"


@workflow.define
async def ender(how: str) -> list[str]:
    """Tries to end another execution for reasons that are none."""
    other, refused = workflow.handle("w"), list[str]()
    end: Any = getattr(other, how)
    for reason in (5, "\ud800", "x" * 4_097):
        try:
            await end(reason=reason)
        except Invalid as exc:
            refused.append(exc.message[:7])
    return refused


@pytest.mark.parametrize("how", ["cancel", "terminate"])
@pytest.mark.parametrize(
    "reason",
    [5, object(), None, "\ud800", "x" * 4_097],
    ids=["number", "object", "none", "surrogate", "long"],
)
async def test_a_reason_that_cannot_be_recorded_is_refused(tmp_path: Path, how: str, reason: Any):
    async with (
        engine_on(tmp_path, waiter) as engine,
        Client(f"sqlite:///{tmp_path / 'test.db'}") as client,
    ):
        await until_status(await engine.client.start(waiter, id="w"), Status.WAITING)
        for handle in (engine.client.get("w"), client.get("w")):
            with pytest.raises(Invalid, match="reason"):
                await getattr(handle, how)(reason=reason)
        await engine.client.get("w").send("go")
        assert await engine.client.get("w").result("10s") == "done"


@pytest.mark.parametrize("how", ["cancel", "terminate"])
async def test_workflow_code_gives_reasons_that_can_be_recorded(tmp_path: Path, how: str):
    async with engine_on(tmp_path, waiter, ender) as engine:
        await engine.client.start(waiter, id="w")
        assert await engine.client.execute(ender, how) == ["reason:"] * 3


@pytest.mark.parametrize("queues", ["default", (5,), 7, ["\ud800"]], ids=repr)
def test_task_queues_are_a_list_of_text(queues: Any):
    with pytest.raises(Invalid, match="task_queues"):
        Engine("memory://", [waiter], task_queues=queues)


@pytest.mark.parametrize("size", [0, -5, "0MiB", "-1KB", "infMB", None, 1.5, True, "lots"])
def test_the_limit_of_payloads_is_a_size_above_0(size: Any):
    with pytest.raises(Invalid, match="size"):
        Engine("memory://", [waiter], max_payload=size)


@workflow.define
async def asked() -> None:
    @workflow.query("broken")
    def broken() -> None:
        raise ValueError("no such colour")

    @workflow.update("refused", validator=broken)
    async def refused() -> None:
        pass

    await workflow.listen("go").receive()


async def test_an_error_of_a_handler_is_the_same_for_every_client(tmp_path: Path):
    async with (
        engine_on(tmp_path, asked) as engine,
        Client(f"sqlite:///{tmp_path / 'test.db'}") as client,
    ):
        await until_status(await engine.client.start(asked, id="a"), Status.WAITING)
        for handle in (engine.client.get("a"), client.get("a")):
            for ask in (handle.query("broken"), handle.update("refused")):
                with pytest.raises(ApplicationError, match="no such colour") as caught:
                    await ask
                assert caught.value.kind == "Internal"


async def test_names_and_ids_of_questions_are_text(tmp_path: Path):
    async with engine_on(tmp_path, asked) as engine:
        handle: Any = await engine.client.start(asked)
        for ask in (handle.query(5), handle.update(5)):
            with pytest.raises(Invalid, match="name: 5 is not text"):
                await ask
        with pytest.raises(Invalid, match="id: 5 is not text"):
            await handle.update("refused", id=5)


async def _random_bytes(size: Any) -> None:
    workflow.random_bytes(size)


Anything: Any = workflow
CALLS: dict[str, Any] = {
    "select: needs": lambda: Anything.select(5),
    "target: 5": lambda: Anything.send(5, "t"),
    "target: None": lambda: Anything.send(None, "t"),
    "wait_condition: 5": lambda: Anything.wait_condition(5),
    "progress: done='a'": lambda: Anything.progress("a"),
    "progress: done=nan": lambda: Anything.progress(float("nan")),
    "progress: total='b'": lambda: Anything.progress(1, "b"),
    "event: 5": lambda: Anything.emit(5),
    "random_bytes: -1": lambda: _random_bytes(-1),
    "random_bytes: 'a'": lambda: _random_bytes("a"),
}


@workflow.define
async def caller(text: str) -> str:
    try:
        await CALLS[text]()
    except (Invalid, UsageError) as exc:
        return exc.message
    return "accepted"


async def test_workflow_code_that_passes_nonsense_is_told_what(tmp_path: Path):
    async with engine_on(tmp_path, caller) as engine:
        for text in CALLS:
            assert text in await engine.client.execute(caller, text)


BIG = "x" * 2_100_000
OVER: dict[str, Any] = {
    "memo: 2,100,008 bytes are over the limit": {"memo": {"a": BIG}},
    "context: 2,100,008 bytes are over the limit": {"context": {"a": BIG}},
    "search: 101 attributes are over the limit of 100": {
        "search": dict.fromkeys(map(str, range(101)), 1)
    },
    "search attribute 'a': 10,001 characters": {"search": {"a": "x" * 10_001}},
    "search attribute 'b': 12,000 characters": {"search": {"b": ["x" * 4_000] * 3}},
    "name of a search attribute: 1,001 characters": {"search": {"x" * 1_001: 1}},
}
LABELS: dict[str, Any] = {
    "tags: 101 tags are over the limit of 100": {"tags": list(map(str, range(101)))},
    "tags: 1,001 characters are over the limit of 1,000": {"tags": ["x" * 1_001]},
    "tags: 5 is not text": {"tags": [5]},
    **{
        f"{name}: 1,001 characters are over the limit of 1,000": {name: "x" * 1_001}
        for name in ("correlation_id", "tenant", "created_by")
    },
    "tenant: 5 is not text": {"tenant": 5},
}


@workflow.define
async def parent(text: str) -> list[str]:
    said = list[str]()
    for call in (lambda **o: workflow.start(waiter, **o), workflow.attrs):
        try:
            await call(**OVER[text])
        except (Invalid, TypeError) as exc:
            said.append(str(exc))
    return said


async def test_what_a_start_says_of_an_execution_has_limits(tmp_path: Path):
    async with engine_on(tmp_path, waiter, parent) as engine:
        for text, options in {**OVER, **LABELS}.items():
            with pytest.raises(Invalid, match=text):
                await engine.client.start(waiter, **options)
        assert await engine.client.count() == 0
        for text in OVER:
            for said in await engine.client.execute(parent, text):
                assert text in said or "keyword argument 'context'" in said


async def test_what_is_at_its_limit_is_accepted(tmp_path: Path):
    async with engine_on(tmp_path, waiter) as engine:
        handle = await engine.client.start(
            waiter,
            tags=["x" * 997 + f"{n:03}" for n in range(100)],
            search={f"a{n}": "x" * 10_000 for n in range(100)},
            tenant="x" * 1_000,
        )
        await handle.send("go")
        assert await handle.result("10s") == "done"


async def test_a_fork_has_the_same_limits(tmp_path: Path):
    async with engine_on(tmp_path, waiter) as engine:
        handle: Any = await engine.client.start(waiter)
        for options in (*(o for o in OVER.values() if "context" not in o), {"tags": ["x" * 1_001]}):
            with pytest.raises(Invalid, match="over the limit"):
                await handle.fork(after_event=0, **options)
