"""A schedule that somebody has called as a configuration would call its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.engine.support import engine_on

from perdure import workflow
from perdure.control import Control, Principal

ADMIN = Principal(id="ada", roles=["admin"])
PLAIN: dict[str, Any] = {"type": "plain", "invocable": True, "task_queue": "default"}


@workflow.define(name="plain")
async def plain(envelope: dict[str, Any]) -> None:
    pass


async def test_a_configuration_leaves_a_schedule_alone_that_is_not_its_own(tmp_path: Path):
    async with engine_on(tmp_path, plain) as engine:
        schedules, lt = engine.client.schedules, Control(engine.client, ADMIN).workflows
        await schedules.create("plain-cron", "plain", {"mine": True}, every="1d")
        assert (await lt.upsert_config(**PLAIN)).status == 200
        refused = await lt.upsert_config(**PLAIN, cron_schedule="@hourly")
        assert (refused.status, refused.code) == (409, "already_exists")
        assert (await lt.get_config(type="plain")).data.cron_schedule is None
        await lt.upsert_config(type="plain", cron_schedule="@hourly")  # has no queue: never begins
        [told] = (await lt.get_cron_status()).data["schedules"]
        assert (told["active"], told["next"]) == (False, [])
        assert (await lt.delete_config(type="plain")).status == 200
        assert (await schedules.get("plain-cron")).every is not None
