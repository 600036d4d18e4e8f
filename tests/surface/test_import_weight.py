"""`perdure --help` answers at once: it loads no engine, no database and none of the extras."""

import re
import subprocess
import sys

import pytest

HEAVY = [
    "asyncio",
    "cel_expr_python",
    "httpx",
    "jsonschema_rs",
    "litestar",
    "perdure.client",
    "perdure.engine",
    "perdure.kernel",
    "perdure.server",
    "perdure.store.sqlite",
    "psycopg",
    "pydantic",
    "rich",
    "sqlalchemy",
    "sqlite3",
    "uvicorn",
    "yaml",
]


@pytest.fixture(scope="module")
def loaded() -> set[str]:
    """Return the modules that `perdure --help` loads."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "perdure", "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Usage:" in done.stdout
    return set(re.findall(r"^import time: .*\| +([\w.]+)$", done.stderr, re.MULTILINE))


def test_the_measurement_sees_modules(loaded: set[str]) -> None:
    assert {"click", "perdure.cli"} <= loaded


@pytest.mark.parametrize("module", HEAVY)
def test_help_does_not_load(module: str, loaded: set[str]) -> None:
    assert {name for name in loaded if name == module or name.startswith(f"{module}.")} == set()
