"""Exactly once, where it can be: an activity that writes to the same database as the history.

    perdure run examples/transactional.py:transfer source=ada target=grace amount=30

What a transactional activity writes through `activity.connection()` commits together with its
outcome. Either both are on disk or neither is: no idempotency key is needed.
"""

from __future__ import annotations

from dataclasses import dataclass

from perdure import ApplicationError, activity, workflow


@dataclass
class Transfer:
    source: str
    target: str
    amount: int


@activity.define(transactional=True)
def open_accounts(names: list[str], balance: int) -> None:
    database = activity.connection()
    database.execute("CREATE TABLE IF NOT EXISTS account (name TEXT PRIMARY KEY, balance INTEGER)")
    for name in names:
        database.execute(
            "INSERT INTO account VALUES (?, ?) ON CONFLICT DO NOTHING", (name, balance)
        )


@activity.define(transactional=True)
def move(order: Transfer) -> dict[str, int]:
    database = activity.connection()
    taken = database.execute(
        "UPDATE account SET balance = balance - :amount WHERE name = :name AND balance >= :amount",
        {"name": order.source, "amount": order.amount},
    )
    if taken.rowcount == 0:
        # Raising rolls everything back; only the failure is recorded.
        raise ApplicationError(f"{order.source} is short of money", kind="Short", retryable=False)
    database.execute(
        "UPDATE account SET balance = balance + ? WHERE name = ?", (order.amount, order.target)
    )
    return dict(database.execute("SELECT name, balance FROM account ORDER BY name").fetchall())


@workflow.define
async def transfer(order: Transfer) -> dict[str, int]:
    await open_accounts([order.source, order.target], 100)
    return await move(order)
