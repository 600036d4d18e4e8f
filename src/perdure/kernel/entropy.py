"""Chance for workflow code, derived from the run's secret seed (R4).

Draw ``n`` of a domain is ``blake2b(key=seed, domain ‖ n)``: no generator state to save, no
algorithm of ``random`` that a Python release may change. The seed is recorded in event 1 and never
shown: ids and tokens drawn from it cannot be computed by somebody who knows the run's id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from perdure.values.facts import KeptKey

SEED_BYTES = 16


class Entropy:
    """A counter over a seed. ``reseed`` starts a fork's own sequence."""

    __slots__ = ("_drawn", "_ids", "_seed")

    def __init__(self, seed: bytes) -> None:
        self._seed = self._ids = seed
        self._drawn = 0

    def reseed(self, seed: bytes) -> None:
        """Draw from ``seed`` from here on."""
        self._seed = self._ids = seed
        self._drawn = 0

    def reseed_ids(self, seed: bytes) -> None:
        """Derive from ``seed`` from here on; draws go on as they were."""
        self._ids = seed

    def draw(self, size: int) -> bytes:
        """Return the next ``size`` bytes."""
        self._drawn += 1
        out = bytearray()
        block = 0
        while len(out) < size:
            data = b"draw:%d:%d" % (self._drawn, block)
            out += hashlib.blake2b(data, key=self._seed, digest_size=64).digest()
            block += 1
        return bytes(out[:size])

    def derive(self, what: str, size: int) -> bytes:
        """Return ``size`` bytes (at most 64) that belong to ``what``; not a draw."""
        return hashlib.blake2b(what.encode(), key=self._ids, digest_size=size).digest()

    def fraction(self) -> float:
        """Return the next number in [0, 1): 53 bits, as ``random.random`` has."""
        return (int.from_bytes(self.draw(7), "big") >> 3) / (1 << 53)


def idempotency_key(seed: bytes, activity: int) -> str:
    """Return the key all attempts of an activity share; 32 hex digits, not guessable."""
    return hashlib.blake2b(b"activity:%d" % activity, key=seed, digest_size=16).hexdigest()


class Keys:
    """The idempotency keys of a run's activities."""

    __slots__ = ("_anew", "_given", "_since", "kept")

    def __init__(self) -> None:
        self._since: list[tuple[int, bytes]] = []
        self._anew: dict[int, bytes] = {}
        self._given: dict[int, str] = {}
        self.kept: dict[tuple[str, str], list[str]] = {}
        """Keys that calls, by name and arguments, have from the run this one was copied from."""

    def begin(self, event: int, seed: bytes) -> None:
        """Let what is scheduled from ``event`` on have keys from ``seed``."""
        self._since.append((event, seed))

    def begin_anew(self, activities: Iterable[int], seed: bytes) -> None:
        """Give these activities, scheduled before, keys from ``seed``."""
        for activity in activities:
            self._anew[activity] = seed
            self._given.pop(activity, None)

    def keep(self, keys: Iterable[KeptKey], *, goes_on: bool) -> None:
        """Let calls that are made again have the keys they had; ``goes_on``: besides those that
        were kept before.
        """
        if not goes_on:
            self.kept = {}
        for kept in keys:
            waiting = self.kept.setdefault((kept.name, kept.args), [])
            if kept.key not in waiting:
                waiting.append(kept.key)

    def take(self, activity: int, name: str, args: bytes) -> None:
        """Give a call its kept key, if there is one; the first call gets the first key."""
        waiting = self.kept.get((name, digest(args)))
        if waiting:
            self._given[activity] = waiting.pop(0)

    def key(self, activity: int) -> str:
        """Return the key of an activity."""
        source = self.source(activity)
        return source if isinstance(source, str) else idempotency_key(source, activity)

    def source(self, activity: int) -> str | bytes:
        """Return the key of an activity if it was given, else the seed that it comes from."""
        if not (self._given or self._anew) and len(self._since) == 1:
            return self._since[0][1]
        if activity in self._given:
            return self._given[activity]
        if activity in self._anew:
            return self._anew[activity]
        return next((seed for since, seed in reversed(self._since) if since <= activity), b"")


def digest(args: bytes) -> str:
    """Return what stands for the arguments of a call."""
    return hashlib.blake2b(args, digest_size=8).hexdigest()
