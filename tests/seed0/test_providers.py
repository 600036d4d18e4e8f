"""What a workflow that consumes others finds of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.engine.support import engine_on

from perdure import workflow
from perdure.control import Control, Envelope, Principal

ADMIN = Principal(id="ada", roles=["admin"])


@workflow.define(name="gives")
async def gives(envelope: Envelope) -> Any:
    if envelope.data.get("waits"):
        await workflow.listen("go").receive()
    return envelope.data["n"]


@workflow.define(name="takes")
async def takes(envelope: Envelope) -> Any:
    assert envelope.lt is not None
    return {name: provider.data for name, provider in envelope.lt.providers.items()}


async def _taken(lt: Control, **options: Any) -> Any:
    given = {"originId": "case", "id": "t", **options}
    assert (await lt.workflows.invoke(type="takes", options=given)).status == 202
    home = options.get("namespace")
    return await lt.client.get("t", namespace=home).result("20s")


async def test_a_run_consumes_what_is_of_its_own_namespace(tmp_path: Path):
    async with engine_on(tmp_path, gives, takes) as engine:
        lt = Control(engine.client, ADMIN)
        config = {"invocable": True, "task_queue": "default", "consumes": ["gives"]}
        await lt.workflows.upsert_config(type="takes", **config)
        for number, more in enumerate(({}, {"namespace": "other"})):
            options = {"originId": "case", "id": "g", **more}
            await lt.workflows.invoke(type="gives", data={"n": number}, options=options)
            await lt.client.get("g", **more).result("20s")
        assert await _taken(lt) == {"gives": 0}
        assert await _taken(lt, namespace="other") == {"gives": 1}
        assert await _taken(lt, namespace="third") == {}


async def test_the_latest_output_is_that_of_what_ended_last(tmp_path: Path):
    async with engine_on(tmp_path, gives, takes) as engine:
        lt = Control(engine.client, ADMIN)
        config = {"invocable": True, "task_queue": "default", "consumes": ["gives"]}
        await lt.workflows.upsert_config(type="takes", **config)
        for id, data in (("long", {"n": 1, "waits": True}), ("short", {"n": 2})):
            options = {"originId": "case", "id": id}
            await lt.workflows.invoke(type="gives", data=data, options=options)
        await lt.client.get("short").result("20s")
        await lt.client.get("long").send("go")
        await lt.client.get("long").result("20s")
        assert await _taken(lt) == {"gives": 1}
