"""A store that takes nothing: the worker says so once in a while, and tries less and less often."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from pathlib import Path
from typing import Any

import pytest
from tests.engine.support import engine_on, until_status

from perdure import workflow
from perdure.errors import Unavailable
from perdure.store import complaints
from perdure.store.complaints import EVERY_SECONDS, Complaints
from perdure.store.sqlite.store import SqliteStore
from perdure.values.states import Status

FAILURES = 6


@workflow.define
async def waits() -> str:
    return str(await workflow.listen("go").receive())


async def test_a_full_disk_is_tried_less_and_less_often_and_reported_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    tries: list[float] = []
    commit: Any = SqliteStore.commit

    def full(store: SqliteStore, batch: Any) -> Any:
        tries.append(time.monotonic())
        if len(tries) <= FAILURES:
            raise Unavailable("the disk is full")
        return commit(store, batch)

    async with engine_on(tmp_path, waits) as engine:
        handle = await engine.client.start(waits)
        await until_status(handle, Status.WAITING)
        monkeypatch.setattr(complaints, "EVERY_SECONDS", 3_600.0)  # this may take long
        monkeypatch.setattr(SqliteStore, "commit", full)
        _, result = await asyncio.gather(handle.send("go", "on"), handle.result("20s"))
    assert result == "on"
    said = [r.getMessage() for r in caplog.records if "not acknowledged" in r.getMessage()]
    assert len(said) == 1
    pauses = [after - before for before, after in itertools.pairwise(tries)]
    assert pauses[FAILURES - 1] > 0.2, "five failures in a row before it"


def test_a_trouble_is_told_again_after_a_while_with_a_count(caplog: pytest.LogCaptureFixture):
    now = 0.0
    caplog.set_level(logging.INFO)
    told = Complaints(logging.getLogger("a"), lambda: now)
    for _ in range(1_000):
        told.add("it failed: %s", "full")
    now = EVERY_SECONDS
    told.add("it failed: %s", "full")
    told.add("it failed: %s", "full")
    told.over("it works")
    told.over("it works")
    told.add("it failed: %s", "again")
    assert [record.getMessage() for record in caplog.records] == [
        "it failed: full",
        "it failed: full (and 999 times more in the last 5 s)",
        "it works (after 1 more failures)",
        "it failed: again",
    ]
