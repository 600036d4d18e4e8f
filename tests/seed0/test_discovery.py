"""Which types are discovered."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.seed0.test_workflows import ADMIN, engine_at

from perdure.control import Control


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        (None, ["fails", "plain", "planned", "reviewContent", "waits"]),
        (["money"], ["plain", "planned"]),
        (["mail", "none"], ["planned"]),
        (["none"], []),
        ([], []),
    ],
)
async def test_tool_tags_say_which_types_are_discovered(
    tmp_path: Path, tags: list[str] | None, found: list[str]
):
    async with engine_at(tmp_path) as engine:
        lt = Control(engine.client, auth=ADMIN)
        await lt.workflows.invoke(type="waits")
        await lt.workflows.upsert_config(type="planned", tool_tags=["mail", "money"])
        await lt.workflows.upsert_config(type="plain", tool_tags=["money"])
        shown = (await lt.workflows.list_discovered(tool_tags=tags)).data["workflows"]
        assert [it["workflow_type"] for it in shown] == found
        assert (await lt.workflows.list_discovered(tool_tags="mail")).status == 400
