"""After a change of code, runs that sleep are checked in the background, and nothing else is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tests.engine.deploys import NAPPING, deploy
from tests.engine.support import engine_on, until, until_status

from perdure import Engine, Status
from perdure.engine import sweep
from perdure.engine.core import Core
from perdure.store.opening import open_store
from perdure.store.port import Sweep

SWAPPED = NAPPING.replace("return await one()", "return await two()")
LOGGING = NAPPING.replace("return await one()", "print('a line')\n    return await one()")


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "FIRST_SECONDS", 0.0)
    monkeypatch.setattr(sweep, "LOOK_SECONDS", 0.01)


def core_of(engine: Engine) -> Core:
    core = engine._core
    assert core is not None
    return core


def marks(folder: Path) -> list[Sweep]:
    store = open_store(f"sqlite:///{folder / 'test.db'}")
    found = store.sweeps()
    store.close()
    return found


def mark(folder: Path, **fields: Any) -> None:
    """Write a mark as another worker would."""
    store = open_store(f"sqlite:///{folder / 'test.db'}")
    assert store.sweep(Sweep("napping", '["default"]', **fields), instead=fields.get("worker", 0))
    store.close()


@asynccontextmanager
async def swept(folder: Path, module: ModuleType, **options: Any) -> AsyncGenerator[Engine]:
    """Run an engine on the module; the block begins when its sweep is through."""
    async with engine_on(folder, module, **options) as engine:
        codes = core_of(engine).registry.codes()

        def is_done() -> bool:
            found = {mark.workflow: mark for mark in marks(folder)}
            return all(
                name in found and found[name].code == code and not found[name].worker
                for name, code in codes.items()
            )

        await until(is_done)
        yield engine


async def start_asleep(folder: Path, module: ModuleType, *ids: str) -> None:
    async with swept(folder, module) as engine:
        for name in ids:
            await until_status(await engine.client.start("napping", id=name), Status.WAITING)


async def test_a_sleeping_run_that_the_code_does_not_fit_is_parked_now(tmp_path: Path):
    await start_asleep(tmp_path, deploy(tmp_path, NAPPING), "n-1", "n-2")
    changed = deploy(tmp_path, SWAPPED)
    line = 1 + (tmp_path / "flows.py").read_text().splitlines().index("    return await two()")
    async with swept(tmp_path, changed) as engine:
        for name in ("n-1", "n-2"):
            handle = engine.client.get(name)
            await until_status(handle, Status.PARKED)
            parked = await handle.describe()
            assert parked.reason == "nondeterminism"
            for part in (
                "event 2:",
                "activity_scheduled 'one'",
                "activity_scheduled 'two'",
                f"{tmp_path / 'flows.py'}:{line} in first",
            ):
                assert part in (parked.detail or "")


async def test_the_code_that_fits_again_lets_the_parked_run_sleep_on(tmp_path: Path):
    before = deploy(tmp_path, NAPPING)
    await start_asleep(tmp_path, before, "n-1")
    async with swept(tmp_path, deploy(tmp_path, SWAPPED)) as engine:
        await until_status(engine.client.get("n-1"), Status.PARKED)
    async with swept(tmp_path, deploy(tmp_path, LOGGING)) as engine:
        await until_status(engine.client.get("n-1"), Status.WAITING)


async def test_a_run_that_fits_is_checked_once_and_nothing_of_it_is_written(tmp_path: Path):
    await start_asleep(tmp_path, deploy(tmp_path, NAPPING), "n-1")
    store = open_store(f"sqlite:///{tmp_path / 'test.db'}")
    row = store.find("n-1")
    assert row is not None
    before = store.load([row.run])
    changed = deploy(tmp_path, LOGGING)
    async with swept(tmp_path, changed) as engine:
        assert core_of(engine).sweeper.checked == 1
        assert row.run not in core_of(engine).runs
    assert store.load([row.run]) == before
    store.close()
    async with swept(tmp_path, changed) as engine:
        core = core_of(engine)
        assert (core.sweeper.checked, core.loader.loaded) == (0, 0)


async def test_a_change_outside_the_functions_that_a_workflow_uses_checks_nothing(tmp_path: Path):
    await start_asleep(tmp_path, deploy(tmp_path, NAPPING), "n-1")
    other = f"# a remark\n{NAPPING}\ndef unused() -> None:\n    print('new')\n"
    async with swept(tmp_path, deploy(tmp_path, other)) as engine:
        assert core_of(engine).sweeper.checked == 0


async def test_a_start_does_not_wait_for_the_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    await start_asleep(tmp_path, deploy(tmp_path, NAPPING), *(f"n-{n}" for n in range(20)))
    monkeypatch.setattr(sweep, "FIRST_SECONDS", 3600.0)
    async with engine_on(tmp_path, deploy(tmp_path, LOGGING)) as engine:
        handle = await engine.client.start("napping", id="new")
        await until_status(handle, Status.WAITING)
        core = core_of(engine)
        assert core.sweeper.checked == 0
        assert core.loader.loaded <= 1, "the new run at most, with a replay on every turn"


async def test_a_sweep_pauses_for_what_it_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert sweep.SHARE == 0.1
    await start_asleep(tmp_path, deploy(tmp_path, NAPPING), *(f"n-{n}" for n in range(100)))
    monkeypatch.setattr(sweep, "SHARE", 0.01)  # so that the pauses outweigh everything else
    began = time.monotonic()
    async with swept(tmp_path, deploy(tmp_path, LOGGING)) as engine:
        took, spent = time.monotonic() - began, core_of(engine).sweeper.spent / 1_000_000
        assert core_of(engine).sweeper.checked == 100
        assert spent > 0.01
        assert took > 80 * (spent - 0.005)


async def test_a_sweep_goes_on_where_the_last_worker_stopped(tmp_path: Path):
    await start_asleep(tmp_path, deploy(tmp_path, NAPPING), "n-1", "n-2", "n-3")
    changed = deploy(tmp_path, LOGGING)
    code = core_of_registry(changed)
    mark(tmp_path, code=code, began_at=1, after=2, worker=77)
    async with swept(tmp_path, changed) as engine:
        assert core_of(engine).sweeper.checked == 1


def core_of_registry(module: ModuleType) -> str:
    from perdure.engine.registry import Registry

    registry = Registry(("default",))
    registry.register(module.napping)
    return registry.codes()["napping"]


async def test_a_workflow_that_another_worker_sweeps_is_left_to_it_until_it_is_gone(
    tmp_path: Path,
):
    await start_asleep(tmp_path, deploy(tmp_path, NAPPING), "n-1")
    changed = deploy(tmp_path, LOGGING)
    other = open_store(f"sqlite:///{tmp_path / 'test.db'}")
    far = 1 << 60
    worker = other.join(
        "other", 1, "host", now=1, lease_until=far, workflows=[], queues=[], definitions=[]
    )
    mark(tmp_path, code=core_of_registry(changed), began_at=1, worker=worker.id)
    async with engine_on(tmp_path, changed) as engine:
        core = core_of(engine)
        looks = 0

        def looked() -> bool:
            nonlocal looks
            looks += 1
            return looks > 20

        await until(looked)
        assert core.sweeper.checked == 0
        other.leave(worker.id, worker.epoch, 2)
        await until(lambda: core.sweeper.checked == 1)
    other.close()


async def test_what_an_older_worker_moves_on_meanwhile_is_looked_at_once_more(tmp_path: Path):
    before, after = deploy(tmp_path, NAPPING), deploy(tmp_path, LOGGING)
    async with engine_on(tmp_path, before) as old:
        await until_status(await old.client.start("napping", id="n-1"), Status.WAITING)
        async with engine_on(tmp_path, after) as new:
            await until(lambda: core_of(new).sweeper.checked == 1)
            await until_status(await old.client.start("napping", id="n-2"), Status.WAITING)
            await old.stop()
            await until(lambda: core_of(new).sweeper.checked == 3)
            await until(lambda: not any(mark.worker for mark in marks(tmp_path)))


async def test_a_damaged_run_is_parked_by_the_sweep_and_named(tmp_path: Path):
    await start_asleep(tmp_path, deploy(tmp_path, NAPPING), "n-1")
    store = open_store(f"sqlite:///{tmp_path / 'test.db'}")
    store.database.execute("update perdure_history set payload = zeroblob(5) where first > 1")
    store.close()
    async with swept(tmp_path, deploy(tmp_path, LOGGING)) as engine:
        handle = engine.client.get("n-1")
        await until_status(handle, Status.PARKED)
        assert (await handle.describe()).reason == "corrupt_history"


async def test_runs_of_queues_that_a_worker_does_not_serve_are_not_its_business(tmp_path: Path):
    await start_asleep(tmp_path, deploy(tmp_path, NAPPING), "n-1")
    changed = deploy(tmp_path, SWAPPED)
    async with swept_elsewhere(tmp_path, changed) as engine:
        assert core_of(engine).sweeper.checked == 0
        assert await engine.client.get("n-1").status() is Status.WAITING


@asynccontextmanager
async def swept_elsewhere(folder: Path, module: ModuleType) -> AsyncGenerator[Engine]:
    async with engine_on(folder, module, task_queues=("elsewhere",)) as engine:
        await until(lambda: any(mark.scope == '["elsewhere"]' for mark in marks(folder)))
        await until(lambda: not any(mark.worker for mark in marks(folder)))
        yield engine


async def test_a_definition_that_is_registered_later_is_swept_then(tmp_path: Path):
    await start_asleep(tmp_path, deploy(tmp_path, NAPPING), "n-1")
    async with engine_on(tmp_path) as engine:
        await asyncio.sleep(0)  # sleep: lets the sweep see that there is nothing
        engine.register(deploy(tmp_path, LOGGING).napping)
        await until(lambda: core_of(engine).sweeper.checked == 1)
