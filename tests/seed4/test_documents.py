"""The page of graphs and classes says what the code does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import perdure.graph

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "graphs-and-classes.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
PRINTS = [
    ["42 paid, ada said so"],
    ["1 completed {'who': 'ada'}", "greet succeeded hello ada"],
]


@pytest.mark.parametrize(("code", "prints"), [*zip(EXAMPLES, PRINTS, strict=True)], ids=["1", "2"])
def test_an_example_of_the_page_runs_as_it_stands(tmp_path: Path, code: str, prints: list[str]):
    (tmp_path / "example.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "example.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout.splitlines(), done.stderr) == (prints, "")


def test_the_table_of_names_names_what_is_there():
    table = PAGE.partition("## What is where")[2].partition("## ")[0]
    rows = re.findall(r"^\| (.*?) \|", table, re.MULTILINE)
    named = [name for row in rows for name in re.findall(r"`([A-Z]\w+)", row)]
    assert len(named) > 15
    assert [name for name in named if not hasattr(perdure.graph, name)] == []
