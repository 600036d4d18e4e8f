"""What docs/operations.md shows is what happens."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")


def test_the_examples_of_the_page_print_what_the_page_says(tmp_path: Path):
    codes = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    texts = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
    assert len(codes) == 2
    for code, says in zip(codes, texts, strict=True):
        script = tmp_path / "page.py"
        script.write_text(code, encoding="utf-8")
        found = subprocess.run(
            [sys.executable, str(script)], capture_output=True, text=True, check=True
        )
        assert found.stdout == says
