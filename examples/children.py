"""Children: in line, side by side, and one whose failure is an answer like any other.

    perdure run examples/children.py:household '["ada", "grace", "barbara"]'
    perdure run examples/children.py:household '["ada", "nobody"]'

Each child is an execution of its own, with a history of its own: `perdure list` shows them.
"""

from __future__ import annotations

import asyncio
from typing import Any

from perdure import ApplicationError, activity, workflow


@activity.define
async def ring(who: str) -> str:
    if who == "nobody":
        raise ApplicationError("nobody lives here", kind="NotFound", retryable=False)
    await asyncio.sleep(0.05)
    return f"{who} ({activity.context.get('asked_by', '?')} asked)"


@workflow.define
async def visit(who: str) -> str:
    return await ring(who)


@workflow.define
async def audit(names: list[str]) -> int:
    return len(names)


@workflow.define
async def household(names: list[str]) -> dict[str, Any]:
    count = await workflow.execute(audit, names)  # in line: its failure would be ours

    started = [
        # Context reaches the child and its activities. If we end first, the children are asked to.
        await workflow.start(
            visit,
            name,
            context={"asked_by": "household"},
            parent_close_policy="request_cancel",
        )
        for name in names
    ]
    by_id = {child.id: name for child, name in zip(started, names, strict=True)}
    home: dict[str, Any] = {}
    away: dict[str, str] = {}
    for _ in started:
        end = await workflow.events().receive()  # one Exit per child, in the order of their ends
        if end.error is None:
            home[by_id[end.sender]] = end.result
        else:
            away[by_id[end.sender]] = end.error.kind
    return {"asked": count, "home": home, "away": away}
