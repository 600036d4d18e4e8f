"""Lists and counts in a database with a million runs."""

from __future__ import annotations

import asyncio
from pathlib import Path

from harness import Figure, database, say, scenario
from lists import LIMIT_MS, measure
from population import fill

FIGURES = (
    Figure("slowest list or count, p95", "ms", at_most=LIMIT_MS),
    Figure("median of medians", "ms"),
)


@scenario(*FIGURES, postgres=FIGURES, heavy=True)
async def lists(folder: Path) -> dict[str, float]:
    """Every filter of lists and counts with 1,000,000 runs (bench/lists.py has them)."""
    url = database(folder)
    await asyncio.to_thread(fill, url, 1_000_000, say)
    found = await measure(url)
    for name, (middle, high) in found.items():
        say(f"{name:<50} {middle:8.1f} ms  p95 {high:8.1f} ms")
    middles = sorted(middle for middle, _ in found.values())
    return {
        "slowest list or count, p95": max(high for _, high in found.values()),
        "median of medians": middles[len(middles) // 2],
    }
