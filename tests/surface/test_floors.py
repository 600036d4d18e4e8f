"""Imports go down only: the contracts hold, and each of them notices a fault planted against it."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# what is planted: file in the package, text added to it, contracts that must break (no other may)
FAULTS = {
    "an import upwards": ("temporal.py", "from perdure import cli\n", {"floors"}),
    "an import upwards in a function": (
        "temporal.py",
        "def f():\n    import perdure.cli\n",
        {"floors"},
    ),
    "an import along the floor": ("saga.py", "import perdure.handlers\n", {"floors"}),
    "a package without a floor": ("stray.py", "", {"floors"}),
    "the clock in the kernel": ("kernel/planted.py", "import time\n", {"pure"}),
    "chance in the values": ("values/planted.py", "from random import Random\n", {"pure"}),
    "a socket in a function of the kernel": (
        "kernel/planted.py",
        "def f():\n    from socket import socket\n",
        {"pure"},
    ),
    "a database in the engine": ("engine/planted.py", "import sqlite3\n", {"sqlite"}),
    "a database beside its home": ("store/planted.py", "import sqlite3\n", {"sqlite"}),
    "a server's driver beside its home": (
        "store/planted.py",
        "def f():\n    from psycopg import sql\n",
        {"psycopg"},
    ),
    "a store that knows another": (
        "store/postgres/planted.py",
        "from perdure.store.sqlite import locks\n",
        {"dialects"},
    ),
    "a terminal in the engine": ("engine/planted.py", "import click\n", {"click"}),
    "encryption below its home": (
        "store/planted.py",
        "from cryptography.hazmat.primitives import hashes\n",
        {"cryptography"},
    ),
    "tokens read beside their home": (
        "control/planted.py",
        "from joserfc import jwt\n",
        {"joserfc"},
    ),
    "another library's models below": (
        "executing/planted.py",
        "from sqlalchemy import select\n",
        {"sqlalchemy"},
    ),
    "the command line in the store": (
        "store/planted.py",
        "import perdure.cli\n",
        {"floors", "cli", "cycles"},  # it imports the store in turn
    ),
    "the front used inside": ("store/planted.py", "from perdure import __doc__\n", {"front"}),
    "two modules in a circle": (
        "values/planted.py",
        "from perdure.values import planted_too\n",
        {"cycles"},
    ),
}
SECOND_HALF = {
    "two modules in a circle": ("values/planted_too.py", "import perdure.values.planted")
}


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [Path(sys.executable).with_name("lint-imports"), "--no-logo", "--no-cache"]
    return subprocess.run(
        [*command, "--config", ROOT / "pyproject.toml"],
        cwd=folder,  # goes first on the path
        capture_output=True,
        text=True,
        check=False,
    )


def broken_contracts(folder: Path) -> set[str]:
    """Return the ids of the contracts that the package in ``folder`` breaks."""
    done = lint_imports(folder)
    verdicts = dict(re.findall(r"^(.+) (KEPT|BROKEN)\b", done.stdout, re.MULTILINE))
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    ids = {c["name"]: c["id"] for c in config["tool"]["importlinter"]["contracts"]}
    assert verdicts.keys() == ids.keys(), done.stdout + done.stderr
    return {ids[name] for name, verdict in verdicts.items() if verdict == "BROKEN"}


def test_the_floors_hold() -> None:
    done = lint_imports(ROOT / "src")
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_contract_has_a_fault() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    ids = {c["id"] for c in config["tool"]["importlinter"]["contracts"]}
    assert ids == set().union(*(broken for _, _, broken in FAULTS.values()))


@pytest.fixture(scope="module")
def broken_before() -> set[str]:
    return broken_contracts(ROOT / "src")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_breaks_exactly_its_contract(
    fault: str, tmp_path: Path, broken_before: set[str]
) -> None:
    file, text, expected = FAULTS[fault]
    package = tmp_path / "perdure"
    shutil.copytree(ROOT / "src/perdure", package, ignore=shutil.ignore_patterns("__pycache__"))
    for name, addition in filter(None, ((file, text), SECOND_HALF.get(fault))):
        with (package / name).open("a") as target:
            target.write("\n" + addition)
    assert broken_contracts(tmp_path) - broken_before == expected - broken_before
