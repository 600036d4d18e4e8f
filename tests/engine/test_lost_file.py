"""The database's file is deleted or replaced while a worker has it open."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.engine.support import engine_on, until, until_status

from perdure import activity, workflow
from perdure.errors import StoreGone, Unavailable
from perdure.store.opening import open_store
from perdure.store.sqlite.connect import Settings
from perdure.store.sqlite.store import SqliteStore
from perdure.values.states import Status


@workflow.define
async def waits() -> str:
    return str(await workflow.listen("go").receive())


def delete(path: Path) -> None:
    path.unlink()


def move(path: Path) -> None:
    path.rename(path.with_name("moved.db"))


def replace(path: Path) -> None:
    copy = path.with_name("copy.db")
    shutil.copy(path, copy)
    copy.replace(path)


WAYS: list[Callable[[Path], None]] = [delete, move, replace]


@pytest.mark.parametrize("way", WAYS)
async def test_a_worker_notices_within_a_moment_that_its_file_is_gone(
    tmp_path: Path, way: Callable[[Path], None], caplog: pytest.LogCaptureFixture
):
    async with engine_on(tmp_path, waits) as engine:
        handle = await engine.client.start(waits)
        await until_status(handle, Status.WAITING)
        way(tmp_path / "test.db")
        await until(
            lambda: any(record.levelno == logging.CRITICAL for record in caplog.records), seconds=20
        )
        with pytest.raises(Unavailable, match="deleted, moved or replaced"):
            await handle.status()
        sending = asyncio.create_task(handle.send("go"))
        with pytest.raises(Unavailable):
            await asyncio.wait_for(sending, 20)
    critical = [record for record in caplog.records if record.levelno == logging.CRITICAL]
    assert 1 <= len(critical) <= 2, "once for each connection"


@activity.define
async def lasting() -> None:
    activity.heartbeat(1)
    await asyncio.Event().wait()


@workflow.define
async def working() -> None:
    await lasting()


@pytest.mark.parametrize("way", WAYS)
async def test_a_worker_that_serves_ends_with_an_error_when_its_file_is_gone(
    tmp_path: Path, way: Callable[[Path], None]
):
    engine = engine_on(tmp_path, waits, working)
    serving = asyncio.create_task(engine.run())
    await until(lambda: engine._core is not None)
    await until_status(await engine.client.start(waits), Status.WAITING)
    await until_status(await engine.client.start(working), Status.RUNNING)
    way(tmp_path / "test.db")
    with pytest.raises(StoreGone, match="deleted, moved or replaced"):
        await asyncio.wait_for(serving, 20)
    assert engine._core is None, "it has stopped"


async def test_who_serves_an_engine_of_their_own_hears_that_its_file_was_gone_before(
    tmp_path: Path,
):
    async with engine_on(tmp_path, waits) as engine:
        delete(tmp_path / "test.db")
        await until(lambda: engine._gone is not None)
        with pytest.raises(StoreGone):
            await asyncio.wait_for(engine.run(), 20)


def test_a_commit_into_a_file_without_a_name_is_not_acknowledged(tmp_path: Path):
    path = tmp_path / "test.db"
    store = SqliteStore(Settings(str(path)))
    store.migrate(1)
    store.database.begin()
    path.unlink()
    with pytest.raises(Unavailable, match="deleted, moved or replaced"):
        store.database.commit()
    store.close()


def test_a_file_that_is_put_back_is_used_again(tmp_path: Path):
    path = tmp_path / "test.db"
    store = open_store(f"sqlite:///{path}")
    store.migrate(1)
    path.rename(tmp_path / "away.db")
    with pytest.raises(Unavailable):
        store.changed()
    (tmp_path / "away.db").rename(path)
    assert store.changed() is False
    store.close()
