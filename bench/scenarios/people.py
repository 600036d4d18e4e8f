"""Lists and counts of human tasks, of roles and of what a principal may read."""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import Figure, database, say, scenario
from perdure import Client
from perdure.store.opening import open_store
from perdure.values.principals import Grant, Principal, Reach

OPEN = CLOSED = 100_000
ROLES = tuple(f"role-{number:02}" for number in range(60))
PEOPLE = tuple(f"user-{number}" for number in range(500))
CALLS = 60
CHUNK = 5_000
SECOND = 1_000_000
FIGURES = (
    Figure("slowest list, p95", "ms", at_most=50.0),
    Figure("slowest count, p95", "ms"),
    Figure("list of the largest role, p95", "ms", at_most=50.0),
)


@scenario(*FIGURES, postgres=FIGURES, heavy=True)
async def people(folder: Path) -> dict[str, float]:
    """Lists of 100,000 open human tasks (and as many closed), by role and for principals."""
    url = database(folder)
    await asyncio.to_thread(fill, url)
    async with Client(url) as client:
        tasks = client.human_tasks
        first = (await tasks.list(role=ROLES[0], limit=1000)).cursor
        lists = {
            "role, largest": lambda _: tasks.list(role=ROLES[0]),
            "role, any": lambda c: tasks.list(role=c.choice([*ROLES, "none"])),
            "role, a later page": lambda _: tasks.list(role=ROLES[0], cursor=first),
            "role, closed": lambda c: tasks.list(role=c.choice(ROLES), status="completed"),
            "role and type": lambda c: tasks.list(role=c.choice(ROLES[:5]), type="alert"),
            "role, overdue": lambda c: tasks.list(role=c.choice(ROLES), overdue=True),
            "assignee": lambda c: tasks.list(assignee=c.choice(PEOPLE)),
            "all": lambda _: tasks.list(),
            **{f"for {name}": _listing(tasks, draw) for name, draw in WHO.items()},
        }
        counts = {
            "role": lambda c: tasks.count(role=c.choice(ROLES)),
            **{f"for {name}": _counting(tasks, draw) for name, draw in WHO.items()},
        }
        slow = {name: await measured(call) for name, call in lists.items()}
        counted = {f"count {name}": await measured(call) for name, call in counts.items()}
    for name, (middle, high) in {**slow, **counted}.items():
        say(f"{name:<34} {middle:8.2f} ms  p95 {high:8.2f} ms")
    return {
        "slowest list, p95": max(high for _, high in slow.values()),
        "slowest count, p95": max(high for _, high in counted.values()),
        "list of the largest role, p95": slow["role, largest"][1],
    }


Draw = Callable[[random.Random], Principal]
WHO: dict[str, Draw] = {
    "one role": lambda c: Principal(c.choice(PEOPLE), roles=[c.choice(ROLES)]),
    "three roles": lambda c: Principal(c.choice(PEOPLE), roles=c.sample(ROLES, 3)),
    "forty roles": lambda c: Principal(c.choice(PEOPLE), roles=c.sample(ROLES, 40)),
    "their own": lambda c: Principal(
        c.choice(PEOPLE), roles=[Grant(role, read=Reach.SELF) for role in ROLES]
    ),
    "an admin": lambda c: Principal(c.choice(PEOPLE), roles=["admin"]),
    "nobody": lambda _: Principal("nobody"),
}


def _listing(tasks: Any, draw: Draw) -> Callable[[random.Random], Any]:
    return lambda chance: tasks.list(for_=draw(chance))


def _counting(tasks: Any, draw: Draw) -> Callable[[random.Random], Any]:
    return lambda chance: tasks.count(for_=draw(chance))


async def measured(call: Callable[[random.Random], Any]) -> tuple[float, float]:
    """Return the median and the 95th percentile of many calls, in milliseconds."""
    chance, took = random.Random(1), list[float]()
    for _ in range(CALLS):
        begin = time.perf_counter()
        await call(chance)
        took.append((time.perf_counter() - begin) * 1000)
    return statistics.median(took), statistics.quantiles(took, n=20)[-1]


def fill(url: str) -> None:
    """Write the human tasks past the port, in bulk; few roles have most of them."""
    now, chance = int(time.time()) * SECOND, random.Random(7)
    weights = [1 / (number + 1) for number in range(len(ROLES))]
    store: Any = open_store(url)
    try:
        store.migrate(now)
        database = store.database
        for start in range(0, OPEN + CLOSED, CHUNK):
            rows = [_row(number, now, chance, weights) for number in range(start, start + CHUNK)]
            closed = [(row[0], row[-2]) for row in rows if int(row[0][5:]) >= OPEN]

            def write(rows: list[Any] = rows, closed: list[Any] = closed) -> None:
                for row in rows:
                    database.run("insert_human_task", *row)
                for id, by in closed:
                    text = (
                        "UPDATE perdure_human_task SET status = 2, closed_at = ?, closed_by = ? "
                        "WHERE id = ?"
                    )
                    database.ask(text, (now, by, id))

            database.write(write)
        store.tidy(idle=True)
    finally:
        store.close()


def _row(number: int, now: int, chance: random.Random, weights: list[float]) -> tuple[Any, ...]:
    (role,) = chance.choices(ROLES, weights)
    assignee = chance.choice(PEOPLE) if chance.random() < 0.2 else None
    due = now + chance.randrange(-1_000, 9_000) * SECOND if chance.random() < 0.7 else None
    data = json.dumps({"order": number, "text": "x" * 200})
    return (
        f"task-{number:07}",
        "default",
        "",
        f"Approve order {number}",
        "Somebody has to look at it.",
        role,
        assignee,
        2,
        None,
        data,
        now - number,
        due,
        None,
        chance.choice(["alert", "approval", "review"]),
        1,
        None,
        None,
        None,
        0,
        None,
        chance.choice(PEOPLE),
        None,
    )
