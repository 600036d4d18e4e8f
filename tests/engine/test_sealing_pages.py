"""Programs of pages run as they stand there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from perdure.crypto import AesGcm

DOCS = Path(__file__).parents[2] / "docs"
PROGRAM = re.compile(r"<!-- run -->\n```python\n(.*?)```", re.DOTALL)


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ("audit.md", "ada start order-1 7\nTrue\n"),
        ("encryption.md", "Hello, Ada!\n"),
        ("identity.md", "7 charged for billing, started by ada\n"),
        ("large-payloads.md", ""),
        (
            "personal-data.md",
            "['tomorrow: sent, 15 letters', 'today: nobody to write to']\n",
        ),
    ],
)
def test_the_program_of_a_page_runs(
    page: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (code,) = PROGRAM.findall((DOCS / page).read_text())
    (tmp_path / "program.py").write_text(code)
    keys = f'{{"current": "k", "keys": {{"k": "{AesGcm.new_key()}"}}}}'
    monkeypatch.setenv("PERDURE_KEYS", keys)
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, said, "")
