"""What docs/task-queues.md shows works as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

PAGE = (Path(__file__).parents[2] / "docs" / "task-queues.md").read_text(encoding="utf-8")


async def test_the_example_of_the_page_runs(tmp_path: Path):
    [code] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {"__name__": "the_page"}
    exec(compile(code, "docs/task-queues.md", "exec"), names)
    assert await names["main"](f"sqlite:///{tmp_path / 'page.db'}") == "a.mov.webm"
