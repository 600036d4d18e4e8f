"""Edits that do not change what a run asks for strand no run, wherever it is when they come."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from tests.engine.deploys import deploy
from tests.engine.support import engine_on, until, until_status

from perdure import Engine, Status
from perdure.engine import sweep

CODE = '''
import asyncio
from perdure import errors

gate = asyncio.Event

@activity.define
async def slow() -> int:
    await asyncio.Event().wait()
    return 1

async def both() -> int:
    first = await one()
    second = await two()
    return first + second

@workflow.define
async def child() -> int:
    return await workflow.listen("go").receive()

@workflow.define
async def sleeping() -> int:
    """Sleeps."""
    found = await both()
    await workflow.sleep("30d")
    return found

@workflow.define
async def working() -> int:
    found = await both()
    try:
        return found + await slow()
    except errors.ActivityFailed:
        return -found

@workflow.define
async def listening() -> list[int]:
    found = [await both()]
    inbox = workflow.listen("go")
    while len(found) < 4:
        found.append(await inbox.receive())
    return found

@workflow.define
async def parent() -> int:
    started = await workflow.start("child")
    return await both() + await started

@workflow.define
async def versioned() -> int:
    found = await both()
    if workflow.patched("faster"):
        found += await one()
    if workflow.version("rounding", 1, 2) == 2:
        found += await two()
    return found + await workflow.listen("go").receive()
'''
NAMES = ("sleeping", "working", "listening", "parent", "versioned")

EDITS: dict[str, Callable[[str], str]] = {
    "a comment": lambda code: code.replace("    found =", "    # a remark\n    found ="),
    "a print": lambda code: code.replace("    found =", "    print('here')\n    found ="),
    "a log line": lambda code: code.replace(
        "    found =", "    workflow.logger.info('here')\n    found ="
    ),
    "a renamed local variable": lambda code: code.replace("found", "total"),
    "another docstring": lambda code: code.replace('"""Sleeps."""', '"""Sleeps for long."""'),
    "a helper that asks for the same": lambda code: code.replace(
        "    first = await one()\n    second = await two()\n    return first + second",
        "    values = []\n    for step in (one, two):\n        values.append(await step())\n"
        "    return sum(values)",
    ),
    "a helper put in line": lambda code: code.replace("await both()", "await one() + await two()"),
    "another duration and other arguments": lambda code: code.replace("30d", "31d"),
    "lines moved": lambda code: code.replace("async def both", "\n\n\n\nasync def both"),
    "another workflow": lambda code: (
        code + "\n@workflow.define\nasync def new() -> None:\n    pass\n"
    ),
}


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "FIRST_SECONDS", 0.0)
    monkeypatch.setattr(sweep, "LOOK_SECONDS", 0.01)


async def begin(folder: Path, module: ModuleType) -> None:
    async with engine_on(folder, module) as engine:
        client = engine.client
        for name in NAMES:
            await client.start(name, id=name)
        for name in NAMES:
            is_at_work = name == "working"
            await until_status(client.get(name), Status.RUNNING if is_at_work else Status.WAITING)
        await until(lambda: running_slow(engine))
        await client.get("listening").send("go", 1)
        await until_status(client.get("listening"), Status.WAITING)
        await engine.stop("0s")


async def running_slow(engine: Engine) -> bool:
    history = await engine.client.get("working").history()
    return any(event.data.get("name") == "slow" for event in history)


async def finish(engine: Engine) -> None:
    client = engine.client
    await client.get("listening").send("go", 2)
    await client.get("listening").send("go", 3)
    child = next(item for item in (await client.list(workflow="child")).items)
    await client.get(child.id).send("go", 10)
    await client.get("versioned").send("go", 10)
    assert await client.get("listening").result("10s") == [3, 1, 2, 3]
    assert await client.get("parent").result("10s") == 13
    assert await client.get("versioned").result("10s") == 16
    assert await client.get("sleeping").status() is Status.WAITING
    assert await client.get("working").status() is Status.RUNNING
    assert await client.count(status="parked") == 0


@pytest.mark.parametrize("edit", EDITS)
async def test_a_harmless_edit_strands_no_run(tmp_path: Path, edit: str):
    await begin(tmp_path, deploy(tmp_path, CODE))
    edited = EDITS[edit](CODE)
    assert edited != CODE
    async with engine_on(tmp_path, deploy(tmp_path, edited)) as engine:
        core = engine._core
        assert core is not None

        async def is_swept() -> bool:
            found = await core.desk.read(lambda store: store.sweeps())
            done = {mark.workflow: mark.code for mark in found if not mark.worker}
            return core.registry.codes() == {
                name: code for name, code in done.items() if name in core.registry.names
            }

        await until(is_swept)
        await finish(engine)
        await engine.stop("0s")


async def test_a_guarded_change_strands_no_run_and_an_unguarded_one_is_found(tmp_path: Path):
    await begin(tmp_path, deploy(tmp_path, CODE))
    guarded = CODE.replace(
        '    await workflow.sleep("30d")',
        '    if workflow.patched("more"):\n        await two()\n    await workflow.sleep("30d")',
    )
    async with engine_on(tmp_path, deploy(tmp_path, guarded)) as engine:
        core = engine._core
        assert core is not None
        await until(lambda: core.sweeper.checked > 0)
        await finish(engine)
        await engine.stop("0s")
    unguarded = CODE.replace('    await workflow.sleep("30d")', "    await two()")
    async with engine_on(tmp_path, deploy(tmp_path, unguarded)) as engine:
        await until_status(engine.client.get("sleeping"), Status.PARKED)
        await engine.stop("0s")


async def test_a_version_that_the_code_no_longer_supports_is_found_by_the_sweep(tmp_path: Path):
    await begin(tmp_path, deploy(tmp_path, CODE))
    narrowed = CODE.replace(
        'workflow.version("rounding", 1, 2)', 'workflow.version("rounding", 3, 3)'
    )
    async with engine_on(tmp_path, deploy(tmp_path, narrowed)) as engine:
        handle = engine.client.get("versioned")
        await until_status(handle, Status.PARKED)
        assert "change 'rounding'" in ((await handle.describe()).detail or "")
        await engine.stop("0s")
