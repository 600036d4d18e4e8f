"""Waiting for a person: a message with a deadline, and a query that shows the state meanwhile.

    perdure dev examples/approval.py
    perdure start expense id=E-7 who=Ada amount=120 --id E-7
    perdure query E-7 state
    perdure send E-7 decision by=Grace ok=true
    perdure result E-7

While it waits, a run costs a row in the database: no process has to stay up for it.
"""

from __future__ import annotations

from dataclasses import dataclass

from perdure import activity, workflow


@dataclass
class Expense:
    id: str
    who: str
    amount: float
    patience: str = "3d"


@dataclass
class Decision:
    by: str
    ok: bool
    comment: str = ""


@activity.define
async def notify(whom: str, text: str) -> None:
    print(f"to {whom}: {text}", flush=True)


@workflow.define
async def expense(request: Expense) -> str:
    state = "with the manager"

    @workflow.query("state")
    def _() -> str:
        return state

    decisions = workflow.listen("decision", Decision)
    await notify("manager", f"{request.who} asks for {request.amount}")
    try:
        decision = await decisions.receive(timeout=request.patience)
    except TimeoutError:
        # Nobody answered in time. The wait survives restarts, and so does the time it began.
        state = "escalated"
        await notify("director", f"nobody answered {request.who} for {request.patience}")
        decision = await decisions.receive()
    state = "approved" if decision.ok else "refused"
    await notify(request.who, f"{state} by {decision.by}. {decision.comment}")
    return state
