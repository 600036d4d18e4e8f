"""What `perdure why` and `show` say of task queues that nobody serves."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.cli.shell import Shell
from tests.engine.queued import WORKFLOWS, double
from tests.engine.support import engine_on, until_status

from perdure import Status


async def test_why_names_the_queue_of_an_activity_and_of_a_run_that_nobody_serves(
    tmp_path: Path,
):
    shell = Shell(tmp_path, PERDURE_DB=f"sqlite:///{tmp_path / 'test.db'}")

    async def told(id: str) -> str:
        return (await asyncio.to_thread(shell.ok, "why", id)).out

    async with engine_on(tmp_path, *WORKFLOWS) as engine:
        handle = await engine.client.start("doubling", 1, id="a")
        await until_status(handle, Status.WAITING)
        said = await told("a")
        assert "activity 'double', which waits for a worker of task queue 'gpu'" in said
        assert "no live worker serves it" in said
        async with engine_on(tmp_path, task_queues=("gpu",), name="ignorant"):
            said = await told("a")
            assert "'ignorant' serves it but does not know the activity" in said
        await engine.client.start("doubling", 1, id="b", task_queue="nowhere")
        said = await told("b")
        assert "serves task queue 'nowhere'" in said
    assert double.task_queue == "gpu"
