"""Concurrency limits where executions begin as copies: retries, forks and imports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.engine.support import engine_on, until_status

from perdure import Engine, Status, workflow
from perdure.errors import ConcurrencyLimit, NotFound, WorkflowTerminated
from perdure.handle import Handle


@workflow.define
async def holder(name: str) -> str:
    """Keep a slot until told to go."""
    await workflow.listen("go").receive()
    return name


def limited(folder: Path, on_limit: str, **limits: Any) -> Engine:
    engine = engine_on(folder, holder)
    engine.register(holder, on_limit=on_limit, **(limits or {"max_concurrent": 1}))
    return engine


async def started(engine: Engine, id: str, **options: Any) -> Handle[str]:
    handle = await engine.client.start(holder, id, id=id, **options)
    await until_status(handle, Status.WAITING)
    return handle


async def ended(engine: Engine, id: str, **options: Any) -> Handle[str]:
    handle = await started(engine, id, **options)
    assert await handle.terminate()
    with pytest.raises(WorkflowTerminated):
        await handle
    return handle


async def test_a_copy_too_many_is_refused_by_the_limit_and_leaves_nothing(tmp_path: Path):
    async with limited(tmp_path, "reject") as engine:
        old = await ended(engine, "old")
        taken = await started(engine, "taken")
        document = await taken.export(with_seed=True)
        for copy in (
            old.retry,
            lambda: old.retry(id="copy"),
            lambda: taken.fork(after_event=0, id="copy"),
            lambda: engine.client.import_run(document, "copy"),
        ):
            with pytest.raises(ConcurrencyLimit, match=r"'holder' has reached .* \(1\)"):
                await copy()
        with pytest.raises(NotFound):
            await engine.client.get("copy").status()
        assert await engine.client.count() == 2
        await taken.send("go")
        assert await taken == "taken"
        again = await old.retry()
        with pytest.raises(ConcurrencyLimit):
            await engine.client.start(holder, "more")
        await again.send("go")
        assert await again == "old"
        assert await started(engine, "more")


async def test_a_copy_too_many_waits_if_the_limit_says_queue(tmp_path: Path):
    async with limited(tmp_path, "queue") as engine:
        old = await ended(engine, "old")
        last = await started(engine, "taken")
        document = await last.export(with_seed=True)
        queued = [
            await old.retry(),
            await last.fork(after_event=0, id="fork"),
            await engine.client.import_run(document, "import"),
        ]
        for handle in queued:
            assert await handle.status() is Status.PENDING
            assert "slots of workflow 'holder' are taken" in await handle.why()
        for handle in queued:
            await last.send("go")
            await last
            await until_status(handle, Status.WAITING)
            last = handle
        await last.send("go")
        assert [await handle for handle in queued] == ["old", "taken", "taken"]


async def test_a_copy_has_the_key_of_what_it_is_a_copy_of(tmp_path: Path):
    async with limited(tmp_path, "reject", max_concurrent_per_key=1) as engine:
        old = await ended(engine, "old", concurrency_key="k")
        await started(engine, "taken", concurrency_key="k")
        other = await started(engine, "other", concurrency_key="l")
        for copy in (old.retry, lambda: other.fork(after_event=0)):
            with pytest.raises(ConcurrencyLimit, match="key"):
                await copy()


async def test_an_ended_run_that_is_imported_takes_no_slot(tmp_path: Path):
    async with limited(tmp_path, "reject") as engine:
        document = await (await ended(engine, "old")).export()
        await started(engine, "taken")
        copy = await engine.client.import_run(document, "copy")
        assert await copy.status() is Status.TERMINATED
        assert await engine.client.get("taken").terminate()
        await until_status(engine.client.get("taken"), Status.TERMINATED)
        await started(engine, "next")
