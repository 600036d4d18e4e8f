"""A machine that has ended goes on at any of its steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.engine.support import engine_on

from perdure.errors import Invalid
from perdure.graph import flow

done: list[str] = []
is_big = False


@pytest.fixture(autouse=True)
def _clean():
    done.clear()


async def weigh(_: Any) -> dict[str, bool]:
    done.append("weigh")
    return {"big": False}


async def note(_: Any, ctx: Any) -> str:
    done.append(ctx.current_step)
    return ctx.current_step


def parcel() -> Any:
    """Weigh it, choose by what the scales say or somebody who knows better, wait for its label."""
    return (
        flow("parcel")
        .task("weigh", weigh)
        .choice("size", [(lambda _: is_big, "lorry")], default="bike")
        .task("bike", note, next="rest")
        .task("lorry", note, next="rest")
        .wait("rest", "1ms")
        .webhook("label", topic="label")
        .task("deliver", note)
        .build()
    )


@pytest.mark.parametrize(
    ("step", "then"),
    [
        ("weigh", ["weigh", "lorry", "deliver"]),
        ("size", ["lorry", "deliver"]),
        ("bike", ["bike", "deliver"]),
        ("rest", ["deliver"]),
        ("label", ["deliver"]),
        ("deliver", ["deliver"]),
    ],
)
async def test_a_machine_goes_on_at_any_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, then: list[str]
):
    made = parcel()
    async with engine_on(tmp_path, made) as engine:
        handle = await engine.client.start(made, messages=[("label", "P-1")])
        assert await handle.result() == "deliver"
        assert done == ["weigh", "bike", "deliver"]
        done.clear()
        monkeypatch.setitem(globals(), "is_big", step in ("weigh", "size"))
        again = await handle.retry(from_step=step)
        assert await again.result() == "deliver"
        assert done == then
        assert (await again.describe()).step_results["rest"]["status"] == "completed"


async def test_a_step_that_was_not_reached_is_refused_with_those_that_were(tmp_path: Path):
    made = parcel()
    async with engine_on(tmp_path, made) as engine:
        handle = await engine.client.start(made, messages=[("label", "P-1")])
        await handle.result()
        with pytest.raises(
            Invalid, match=r"never scheduled a step 'lorry' \(it scheduled: weigh, "
        ):
            await handle.retry(from_step="lorry")
