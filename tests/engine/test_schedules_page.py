"""What docs/schedules.md shows works as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tests.unit.values import dst

PAGE = dst.PAGE.read_text(encoding="utf-8")


async def test_the_example_of_the_page_runs(tmp_path: Path):
    [code] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {"__name__": "the_page"}
    exec(compile(code, "docs/schedules.md", "exec"), names)
    said = await names["main"](f"sqlite:///{tmp_path / 'page.db'}")
    assert len(said) == 3
    assert all(re.fullmatch(r"south: hourly, \d\d:15", one) for one in said)


def test_the_table_of_daylight_saving_is_what_the_code_says():
    assert dst.with_table(PAGE) == PAGE
    assert dst.table() in PAGE
