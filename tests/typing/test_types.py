"""Pyright, strict, accepts what users write, knows its types, and refuses what is wrong."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PYRIGHT = ROOT / ".venv/bin/pyright"
EXPECTED = re.compile(r"# error: ([\w, ]+)$", re.MULTILINE)

pytestmark = pytest.mark.skipif(
    not PYRIGHT.exists(), reason="pyright is in the project's own .venv"
)


def errors_of(folder: Path) -> dict[str, list[tuple[int, str, str]]]:
    """Return line, rule and message of every error, by file."""
    command = [PYRIGHT, "--outputjson", "--project", folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    report = json.loads(done.stdout)
    assert report["summary"]["filesAnalyzed"] > 0, done.stdout + done.stderr
    found: dict[str, list[tuple[int, str, str]]] = {}
    for one in report["generalDiagnostics"]:
        line = one["range"]["start"]["line"] + 1
        name = Path(one["file"]).name
        found.setdefault(name, []).append((line, one.get("rule", "syntax"), one["message"]))
    return found


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[tuple[int, str, str]]]:
    """Check copies, under a configuration that a user might have."""
    folder = tmp_path_factory.mktemp("typing")
    shutil.copy(HERE / "accepted.py", folder / "accepted.py")
    shutil.copy(HERE / "rejected.txt", folder / "rejected.py")
    config = {
        "typeCheckingMode": "strict",
        "pythonVersion": "3.11",
        "venvPath": str(ROOT),
        "venv": ".venv",
        "extraPaths": [str(ROOT / "src")],
    }
    (folder / "pyrightconfig.json").write_text(json.dumps(config))
    return errors_of(folder)


def test_what_users_write_is_accepted_and_its_types_are_known(checked):
    assert checked.get("accepted.py", []) == []


def test_what_is_wrong_is_refused_where_it_is_wrong_and_nowhere_else(checked):
    text = (HERE / "rejected.txt").read_text()
    expected = {
        (number, rule)
        for number, line in enumerate(text.splitlines(), 1)
        if (match := EXPECTED.search(line))
        for rule in match[1].split(", ")
    }
    assert {(line, rule) for line, rule, _ in checked["rejected.py"]} == expected
    assert len(expected) > 10
