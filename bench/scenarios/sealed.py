"""What it costs to seal what is stored: compression of large payloads, AES-GCM on everything."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from harness import Figure, scenario
from perdure import Engine, activity, workflow
from perdure.crypto import AesGcm

RUNS = 200
STEPS = 10
SMALL = '{"id": 1}'
LARGE = "".join(
    f'{{"id": {n}, "name": "customer {n % 97}", "total": {n * 31 % 1009}}}' for n in range(400)
)
"""20 KB of JSON, as a program might pass it."""


@activity.define
async def same(text: str) -> str:
    """Give back what it got."""
    return text


@workflow.define
async def passing(text: str) -> None:
    """Pass a text through ten steps."""
    for _ in range(STEPS):
        await same(text)


async def steps_per_second(folder: Path, text: str, **options: Any) -> tuple[float, float]:
    """Return steps per second, and megabytes of the database and its log after them."""
    name = "-".join(options) or "plain"
    path = folder / f"{name}-{len(text)}.db"
    async with Engine(f"sqlite:///{path}", [passing, same], **options) as engine:
        await engine.client.execute(passing, text)
        begin = time.perf_counter()
        await asyncio.gather(*(engine.client.execute(passing, text) for _ in range(RUNS)))
        seconds = time.perf_counter() - begin
    return RUNS * STEPS / seconds, size_of(folder, path.name)


def size_of(folder: Path, name: str) -> float:
    """Return the megabytes of a database and its log."""
    return sum(file.stat().st_size for file in folder.glob(f"{name}*")) / 1_000_000


@scenario(
    Figure("small, plain", "steps/s"),
    Figure("small, AES-GCM", "steps/s"),
    Figure("20 KB, plain", "steps/s"),
    Figure("20 KB, compressed", "steps/s"),
    Figure("20 KB, compressed, AES-GCM", "steps/s"),
    Figure("20 KB, plain: file", "MB"),
    Figure("20 KB, compressed: file", "MB"),
)
async def sealed_steps(folder: Path) -> dict[str, float]:
    """200 runs of 10 steps that pass a text on; small, and of 20 KB."""
    codec = AesGcm({"k": AesGcm.new_key()})
    small, _ = await steps_per_second(folder, SMALL)
    coded, _ = await steps_per_second(folder, SMALL, codec=codec)
    plain, plain_size = await steps_per_second(folder, LARGE, compress_above=None)
    packed, packed_size = await steps_per_second(folder, LARGE)
    both, _ = await steps_per_second(folder, LARGE, codec=codec)
    return {
        "small, plain": small,
        "small, AES-GCM": coded,
        "20 KB, plain": plain,
        "20 KB, compressed": packed,
        "20 KB, compressed, AES-GCM": both,
        "20 KB, plain: file": plain_size,
        "20 KB, compressed: file": packed_size,
    }
