"""What kinds of things go wrong in a world, wherever its database is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from random import Random

from perdure.engine import retention
from perdure.testing.faults import RandomFaults


class Faults(RandomFaults):
    """Verbs that fail, and workers that are killed, stand still or are stopped."""

    kills = 0.0
    freezes = 0.0
    stops = 0.0


def some_faults(world: Random, chance: Random) -> Faults:
    """Choose what kinds of things go wrong in this seed."""
    faults = Faults(chance, lost_hint=world.choice((0.0, 0.1, 0.5, 1.0)))
    level = world.choice((0.0, 0.5, 1.0, 2.0))
    if world.random() < 0.5:
        faults.error = 0.02 * level
    if world.random() < 0.6:
        faults.lost_ack = 0.04 * level
    if world.random() < 0.4:
        faults.death = 0.02 * level
    if world.random() < 0.6:
        faults.slow, faults.slow_seconds = 0.2 * level, world.choice((0.01, 0.05, 0.3))
    if world.random() < 0.25:
        faults.stuck, faults.stuck_seconds = 0.01 * level, 4.0
    if world.random() < 0.4:
        faults.kills = 0.4
    if world.random() < 0.35:
        faults.freezes = 0.3
    if world.random() < 0.3:
        faults.stops = 0.3
    return faults


def early_tidying(chance: Random) -> float | None:
    """Choose after how many seconds workers begin to tidy up; ``None``: after the trouble."""
    return chance.random() if chance.random() < 0.4 else None


@contextmanager
def tidying_after(seconds: float | None) -> Iterator[None]:
    """Let retention begin that long after a worker's start."""
    usual = retention.FIRST_SECONDS
    retention.FIRST_SECONDS = usual if seconds is None else seconds
    try:
        yield
    finally:
        retention.FIRST_SECONDS = usual
