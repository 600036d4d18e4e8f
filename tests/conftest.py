"""What every test shares: hypothesis, async tests, Ctrl-C in what tests start, PostgreSQL."""

import asyncio
import inspect
import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.support.fixtures"]

# Compiled files are told apart by seconds: a program that a test writes, runs and changes at once
# would be run as it was before. So the processes that tests start read such files and write none.
os.environ["PYTHONDONTWRITEBYTECODE"] = "1"

# Time limits per example measure the machine, not the code.
settings.register_profile("here", deadline=None)
# Continuous integration tries the same examples every time: a red build can be repeated.
settings.register_profile(
    "ci",
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("ci" if os.environ.get("CI") else "here")


@pytest.fixture(scope="session", autouse=True)
def ctrl_c() -> Iterator[None]:
    """Take Ctrl-C, also if whoever started the suite ignores it: `nohup`, a script's `pytest &`.

    The processes that tests start would inherit that.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run `async def` tests, each in an event loop of its own."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True
