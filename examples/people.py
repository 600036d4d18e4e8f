"""Asking people: a human task with a form, in a function and as a step of a graph.

    perdure dev examples/people.py
    perdure start refund order=A-1 amount=120 --id R-1
    perdure people list
    perdure people complete ID ok=true limit=100      # the ID of the list
    perdure result R-1
    perdure start onboarding name=Ada --id O-1        # the same, as a graph

Until somebody decides, a run costs a row in the database: no process has to stay up for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from perdure import activity, human, workflow
from perdure.graph import flow


@dataclass
class Request:
    order: str
    amount: int
    patience: str = "2d"


@dataclass
class Approval:
    ok: bool
    limit: int = 0


@activity.define
async def pay_back(order: str, amount: int) -> str:
    return f"{amount} for {order}"


@workflow.define
async def refund(request: Request) -> str:
    decided = await human.request(
        f"Refund {request.amount} for {request.order}?",
        form=Approval,
        role="finance",
        due=request.patience,
        data={"order": request.order, "amount": request.amount},
    )
    if decided.outcome == "expired":
        return "nobody answered"
    if not decided.is_completed or not decided.value.ok:
        return f"refused by {decided.by}: {decided.comment or 'no reason given'}"
    paid = await pay_back(request.order, min(request.amount, decided.value.limit))
    return f"{paid}, says {decided.by}"


async def welcome(entered: dict[str, Any], ctx: Any) -> str:
    return f"{ctx.input['name']} sits at {entered['desk']}, says {ctx.user_id}"


async def apologise(entered: dict[str, Any], ctx: Any) -> str:
    return f"no desk for {ctx.input['name']}: {entered['comment']}"


DESK = {"type": "object", "properties": {"desk": {"type": "string"}}, "required": ["desk"]}

onboarding = (
    flow("onboarding")
    .human(
        "find-a-desk",
        title=lambda ctx: f"Find a desk for {ctx.input['name']}",
        form=DESK,  # a JSON Schema needs the extra: perdure[human]
        group="office",
        due="5d",
        remind="1d",
        on_reject="apologise",
    )
    .task("welcome", welcome, end=True)
    .task("apologise", apologise)
    .build()
)
