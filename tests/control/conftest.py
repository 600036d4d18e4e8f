"""Tests that ask for a world get it opened."""

import asyncio
import inspect
from pathlib import Path

import pytest
from tests.control.world import World


@pytest.fixture
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    if getattr(request, "param", "") == "postgres":
        return World(request.getfixturevalue("postgres_url"))
    return World(f"sqlite:///{tmp_path / 'test.db'}")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Open the world in the event loop of the test."""
    names = pyfuncitem._fixtureinfo.argnames
    if "world" not in names or not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None

    async def within() -> None:
        async with pyfuncitem.funcargs["world"]:
            await pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names})

    asyncio.run(within())
    return True
