"""An order: reserve, charge, wait for a person, ship; on failure, undo what was done.

    perdure dev examples/orders.py
    perdure start fulfil '{"id": "A-1", "total": 4200}' --id A-1
    perdure send A-1 approval '{"by": "Ada", "ok": true}'
    perdure result A-1

Kill the worker whenever you like and start it again. Each step writes a line to an effects log,
which is not in Perdure's database: it stands for the warehouse, the bank and the carrier.
"""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import dataclass
from pathlib import Path

from perdure import activity, workflow
from perdure.errors import ApplicationError

EFFECTS = Path(os.environ.get("ORDERS_EFFECTS", "effects.log"))


@dataclass
class Order:
    """What is ordered; ``total`` in cents."""

    id: str
    total: int


@dataclass
class Approval:
    """What a person answers."""

    by: str
    ok: bool = True


def effect(step: str, order: Order) -> None:
    """Touch the world: one line in the log, appended in one piece."""
    attempt = activity.info()
    line = {
        "step": step,
        "order": order.id,
        "attempt": attempt.attempt,
        "pid": os.getpid(),
        "key": attempt.idempotency_key,  # the same in each attempt: a bank charges once per key
    }
    with EFFECTS.open("a", encoding="utf-8") as log:
        log.write(json.dumps(line) + "\n")


@activity.define
def reserve(order: Order) -> str:
    """Take the goods off the shelf."""
    effect("reserve", order)
    return f"shelf-7/{order.id}"


@activity.define
async def charge(order: Order) -> str:
    """Charge the card."""
    effect("charge", order)
    await asyncio.sleep(1.5)  # the bank takes its time: kill the worker here
    return f"payment/{order.id}/{order.total}"


@activity.define
def ship(order: Order) -> str:
    """Hand the parcel over."""
    effect("ship", order)
    return f"parcel/{order.id}"


@activity.define
def release(order: Order) -> None:
    """Put the goods back: undoes ``reserve``."""
    effect("release", order)


@activity.define
def refund(order: Order) -> None:
    """Give the money back: undoes ``charge``."""
    effect("refund", order)


@workflow.define
async def fulfil(order: Order) -> dict[str, str]:
    """Carry one order to its end."""
    async with workflow.saga() as undo:
        undo.add(release, order)
        shelf = await reserve(order)
        undo.add(refund, order)
        payment = await charge(order)
        approval = await workflow.listen("approval", Approval).receive(timeout="2d")
        if not approval.ok:
            raise ApplicationError(f"{approval.by} refused order {order.id}", kind="Refused")
        parcel = await ship(order)
    return {"shelf": shelf, "payment": payment, "approved_by": approval.by, "parcel": parcel}
