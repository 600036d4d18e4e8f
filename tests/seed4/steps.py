"""Steps and workflows that the tests of seed 4's engines share."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any, ClassVar

from perdure.graph import (
    BaseHumanStep,
    BaseMachineStep,
    Edge,
    WebhookStep,
    Workflow,
    WorkflowDefinition,
)


class Note(BaseMachineStep):
    """Leaves its name in the data."""

    async def execute(self, context: Any) -> str:
        context.set(self.name, True)
        return self.name


class Flaky(BaseMachineStep):
    """Fails as long as it is told to."""

    is_broken = True
    count = 0

    async def execute(self, context: Any) -> dict[str, Any]:
        type(self).count += 1
        if type(self).is_broken:
            raise RuntimeError("the printer is on fire")
        return {"count": type(self).count}


class Gate(BaseMachineStep):
    """Waits until the test lets it go on."""

    name = "gate"
    is_open: asyncio.Event

    async def execute(self, context: Any) -> str:
        await type(self).is_open.wait()
        return "through"


def chain(*steps: Any, name: str = "chain", version: str = "1.0.0") -> WorkflowDefinition:
    """Return a definition of steps, one after the other."""
    edges = [Edge(one.name, other.name) for one, other in itertools.pairwise(steps)]
    return WorkflowDefinition(name, version, steps=steps, edges=edges)


class Payment(Workflow):
    """Waits for a call from outside, half way."""

    name = "payment"
    steps = (Note("order"), WebhookStep("paid"), Note("ship"))
    edges = (Edge("order", "paid"), Edge("paid", "ship"))


class Approval(BaseHumanStep):
    """As the page has it."""

    name = "approval"
    title = "Approval Required"
    description = "Is it right?"
    form_schema: ClassVar[Any] = {
        "type": "object",
        "properties": {"approved": {"type": "boolean"}},
        "required": ["approved"],
    }
    assignee_key = "boss"


class Expense(Workflow):
    """Somebody must approve."""

    name = "expense"
    steps = (Note("submit"), Approval(), Note("pay"))
    edges = (Edge("submit", "approval"), Edge("approval", "pay"))
