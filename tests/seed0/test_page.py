"""What docs/operations.md shows is what happens."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")


def test_the_example_of_the_page_prints_what_the_page_says(tmp_path: Path):
    [code] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    [says] = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
    script = tmp_path / "page.py"
    script.write_text(code, encoding="utf-8")
    found = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=True
    )
    assert found.stdout == says
