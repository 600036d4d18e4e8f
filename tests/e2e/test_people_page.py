"""The page about people: its program prints what the page says, and it names what there is."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from perdure.people import HumanTasks

PAGE = (Path(__file__).parents[2] / "docs" / "people.md").read_text(encoding="utf-8")


def test_the_program_of_the_page_prints_what_the_page_says(tmp_path: Path):
    [program] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    [printed] = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "page.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "page.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout == printed


def test_every_call_of_the_client_is_on_the_page():
    calls = [name for name in vars(HumanTasks) if not name.startswith("_")]
    assert [name for name in calls if f"`{name}" not in PAGE] == []
