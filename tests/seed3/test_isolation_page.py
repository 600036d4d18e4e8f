"""The example on the page about subprocesses runs, and prints what it is there for."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_example_runs(tmp_path: Path):
    [example] = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs/isolation.md").read_text(), re.DOTALL
    )
    (tmp_path / "example.py").write_text(example)
    done = subprocess.run(
        [sys.executable, "example.py"],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.splitlines() == [
        "[9409, 19405]",
        "6",
        "info count counting {'in': 'r-1'}",
    ], done.stderr
