"""The page about policies: its tables are those of the code, its program prints what it says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from perdure.policy import OPERATIONS, Request
from perdure.policy.cel import MEMBERS
from perdure.policy.checks import CODES
from perdure.policy.keys import as_table

PAGE = (Path(__file__).parents[2] / "docs" / "policies.md").read_text(encoding="utf-8")


def test_the_keys_of_the_page_are_those_of_the_code():
    begin = "<!-- keys: made by perdure.policy.keys.as_table() -->"
    table = PAGE.partition(begin)[2].partition("<!-- end of keys -->")[0]
    assert table.strip() == as_table().strip()


def test_every_check_operation_field_and_variable_is_on_the_page():
    for name, code in CODES.items():
        assert f"| `{name}` | `{code}` |" in PAGE
    fields = set(Request.__struct_fields__) - {"validate"}
    assert [name for name in (*OPERATIONS, *fields) if f"`{name}`" not in PAGE] == []
    assert [name for name in MEMBERS if f"`{name}." not in PAGE] == []
    assert [name for name in MEMBERS["instance"] if f".{name}`" not in PAGE] == []


def test_the_program_of_the_page_prints_what_the_page_says(tmp_path: Path):
    program = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0]
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
