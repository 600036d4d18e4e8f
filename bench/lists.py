# ruff: noqa: E501 - a case a line reads like a table
"""How long lists and counts take in a large database.

    python bench/lists.py sqlite:////tmp/large.db       (or postgresql://…), filled by population.py

Every case is asked many times through a client, each time with other values and from other places:
values that are common, rare, only found among the oldest runs, and found nowhere.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from perdure import Client
from perdure.store.port import Place
from perdure.views import encode_cursor, to_datetime
from population import PEOPLE, REGIONS, SECOND, TENANTS, WORKFLOWS

CALLS = 60
LIMIT_MS = 150.0

Draw = Callable[[random.Random], dict[str, Any]]


class Cases:
    """Filters by name. ``first``, ``last``: of the database's runs; ``began``, ``until``: their times."""

    def __init__(self, runs: int, began: int, until: int) -> None:
        self.runs, self.began, self.until = runs, began, until

    def at(self, chance: random.Random) -> Any:
        """Return a time at which runs were started."""
        return to_datetime(chance.randrange(self.began, self.until))

    def cases(self) -> dict[str, Draw]:
        """Return what is asked."""
        batch = lambda c: f"batch-{c.randrange(1_000)}"  # noqa: E731
        return {
            "nothing": lambda _: {},
            "namespace": lambda c: {"namespace": c.choice(["default", "other", "rare", "none"])},
            "workflow": lambda c: {"workflow": c.choice([*WORKFLOWS, "shop.retired", "none"])},
            "workflow, retired": lambda _: {"workflow": "shop.retired"},
            "workflow_id": lambda c: {"workflow_id": c.choice(["nightly", f"shop.workflow_0-{c.randrange(self.runs)}"])},
            "status": lambda c: {"status": c.choice(["completed", "failed", "waiting", "parked", "paused", "pending", "running"])},
            "status, several": lambda c: {"status": c.sample(["completed", "failed", "waiting", "parked", "timed_out"], 3)},
            "tag, common": lambda c: {"tags": c.choice(["eu", "us"])},
            "tag, rare": lambda c: {"tags": c.choice([batch(c), "vip", "none"])},
            "tags": lambda c: {"tags": c.choice([["eu", "vip"], ["eu", batch(c)], ["us", "none"]])},
            "tags, never together": lambda _: {"tags": ["eu", "us"]},
            "text": lambda c: {"search": {"region": c.choice([*REGIONS, "nowhere"])}},
            "number": lambda c: {"search": {"amount": c.choice([100, 101, 150, 777, 5_000, 99_999_999])}},
            "boolean": lambda c: {"search": {"express": c.random() < 0.5}},
            "attributes": lambda c: {"search": {"region": c.choice(REGIONS), "express": c.random() < 0.5, "amount": c.choice([100, 101, 300, 4_242])}},
            "correlation_id": lambda c: {"correlation_id": f"order-{c.randrange(self.runs)}"},
            "tenant": lambda c: {"tenant": c.choice([*TENANTS, "none"])},
            "tenant, big": lambda c: {"tenant": c.choice(TENANTS[:5])},
            "created_by": lambda c: {"created_by": c.choice([*PEOPLE, "nobody"])},
            "started_after": lambda c: {"started_after": self.at(c)},
            "started_before": lambda c: {"started_before": self.at(c)},
            "times": lambda c: {"started_after": (at := self.at(c)), "started_before": at + timedelta(hours=c.randrange(1, 100))},
            "times, before all": lambda _: {"started_before": to_datetime(self.began - SECOND)},
            "tenant, status": lambda c: {"tenant": c.choice(TENANTS), "status": c.choice(["failed", "completed", "waiting"])},
            "workflow, status": lambda c: {"workflow": c.choice([*WORKFLOWS, "shop.retired"]), "status": c.choice(["failed", "completed", "parked", "pending"])},
            "workflow, tenant": lambda c: {"workflow": c.choice(WORKFLOWS), "tenant": c.choice(TENANTS)},
            "workflow, time": lambda c: {"workflow": c.choice([*WORKFLOWS, "shop.retired"]), "started_before": self.at(c)},
            "status, time": lambda c: {"status": c.choice(["failed", "completed", "parked"]), "started_after": self.at(c)},
            "tenant, time": lambda c: {"tenant": c.choice(TENANTS), "started_after": (at := self.at(c)), "started_before": at + timedelta(days=3)},
            "rare tag, status": lambda c: {"tags": batch(c), "status": "completed"},
            "common tag, tenant, status": lambda c: {"tags": "eu", "tenant": c.choice(TENANTS[:20]), "status": c.choice(["failed", "completed"])},
            "text, status, workflow": lambda c: {"search": {"region": c.choice(REGIONS)}, "status": c.choice(["failed", "completed"]), "workflow": c.choice(WORKFLOWS[:4])},
            "retired workflow, common tag": lambda _: {"workflow": "shop.retired", "tags": "eu"},
            "namespace, workflow, person": lambda c: {"namespace": "other", "workflow": c.choice(WORKFLOWS), "created_by": c.choice(PEOPLE)},
            "five common ones": lambda _: {"workflow": WORKFLOWS[0], "tenant": TENANTS[0], "status": "completed", "tags": "eu", "search": {"region": "north"}},
            "boolean, tag, time": lambda c: {"search": {"express": False}, "tags": "us", "started_before": self.at(c)},
        }  # fmt: skip


async def measure(
    url: str, *, calls: int = CALLS, only: str = ""
) -> dict[str, tuple[float, float]]:
    """Return (median, 95th percentile) in milliseconds by case: ``list …`` and ``count …``."""
    found: dict[str, tuple[float, float]] = {}
    async with Client(url) as client:
        newest = (await client.list(limit=1)).items[0]
        row = await client.door.read(lambda store: store.find("", run_id=newest.run_id))
        assert row is not None
        oldest = row.created_at - 25 * 86_400 * SECOND
        for name, draw in Cases(row.run, oldest, row.created_at).cases().items():
            if only not in name:
                continue
            for kind in ("list", "list from a place", "count"):
                chance = random.Random(f"{kind} {name}")
                times: list[float] = []
                for _ in range(calls):
                    filters = draw(chance)
                    place = chance.random()
                    at = int(oldest + place * (row.created_at - oldest))
                    cursor = encode_cursor(Place(int(row.run * place), at))
                    begin = time.perf_counter()
                    if kind == "count":
                        await client.count(**filters)
                    elif kind == "list":
                        await client.list(**filters)
                    else:
                        await client.list(cursor=cursor, **filters)
                    times.append((time.perf_counter() - begin) * 1_000)
                found[f"{kind}: {name}"] = (
                    statistics.median(times),
                    statistics.quantiles(times, n=20)[-1],
                )
    return found


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--only", default="")
    parser.add_argument("--calls", type=int, default=CALLS)
    given = parser.parse_args()
    found = asyncio.run(measure(given.url, calls=given.calls, only=given.only))
    for name, (middle, high) in sorted(found.items(), key=lambda each: -each[1][1]):
        mark = "  MISSED" if high > LIMIT_MS else ""
        print(f"{name:<50} {middle:8.1f} ms  p95 {high:8.1f} ms{mark}")


if __name__ == "__main__":
    main()
