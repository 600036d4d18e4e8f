"""The page of step machines says what the code does."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.engine.support import engine_on

from perdure.graph import WorkflowDefinition, flow
from perdure.graph.forms import KINDS

PAGE = (Path(__file__).parents[2] / "docs" / "graphs.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The page's Python, in a module of the name that its files use."""
    (tmp_path / "shop.py").write_text("\n".join(blocks("python")), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("shop")
    del sys.modules["shop"]


async def test_the_example_runs(shop: Any, tmp_path: Path):
    async with engine_on(tmp_path, shop.order) as engine:
        assert await engine.client.execute(shop.order, {"name": "Ada", "total": 5}) == {
            "shipping": "shipped to Ada",
            "notification": "mailed",
        }
        assert await engine.client.execute(shop.order, {"name": "Ada", "total": 500}) == {
            "waiting_for": 500
        }


def test_the_file_is_what_the_example_is_written_as(shop: Any):
    assert [shop.text] == blocks("yaml")
    assert shop.again.code == shop.order.code
    assert WorkflowDefinition.from_yaml(blocks("yaml")[0]).to_dict() == shop.order.to_dict()


def test_the_conditions_can_be_compiled(shop: Any):
    choices = [(condition, "end") for condition in shop.examples]
    flow("f").choice("which", choices).end().build()


def test_each_kind_of_step_that_files_have_is_named():
    assert [kind for kind in KINDS if f"`{kind}`" not in PAGE] == []
