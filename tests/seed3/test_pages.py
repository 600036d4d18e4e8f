"""The programs on two pages of the documentation run, and print what they are there for."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_example_of_subprocesses_runs(tmp_path: Path):
    assert printed(tmp_path, "isolation.md") == [
        "[9409, 19405]",
        "6",
        "info count counting {'in': 'r-1'}",
    ]


def test_the_stream_for_a_web_page_goes_on_behind_what_was_seen(tmp_path: Path):
    lines = printed(tmp_path, "events.md")
    ids, texts, ends = lines[::3], lines[1::3], lines[2::3]
    assert [line.partition(" ")[0] for line in ids] == ["id:"] * 3
    assert len(set(ids)) == 3
    assert ends == [""] * 3, "an empty line ends each"
    told = [json.loads(text.removeprefix("data: ")) for text in texts]
    assert [it["name"] for it in told] == [
        "workflow.started",
        "workflow.event",
        "workflow.completed",
    ]
    assert told[1]["data"]["data"] == {"boxes": 2}
    assert told[2]["data"]["output"] == "sent"


def printed(folder: Path, page: str) -> list[str]:
    """Run the page's program as a script, and return the lines that it prints."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)
    [program] = [block for block in blocks if "asyncio.run(" in block]
    (folder / "example.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "example.py"],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()
