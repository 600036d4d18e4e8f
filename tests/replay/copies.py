"""Copies of runs, beside the other programs of the corpus."""

from __future__ import annotations

from typing import Any

from tests.replay.programs import CASES, Run, call, case

from perdure import workflow
from perdure.values import events as ev

__all__ = ["CASES"]


@workflow.define
async def acting() -> list[Any]:
    await call("a")
    who = workflow.principal()
    await call("b", who.id if who is not None else None)
    return [await call("c"), workflow.context["kept"]]


@case(acting)
def handed_over(run: Run) -> None:
    run.complete("a")
    context = b'{"kept":1,"principal":{"id":"bob"}}'
    run.turn(
        ev.Forked(seed=b"seed of the fork", origin="order-6"),
        ev.RunHandedOver(by="bob", context=context),
        run.completed("b"),
    )
    run.complete("c")
