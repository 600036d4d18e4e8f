"""Chance for workflow code, derived from the run's secret seed (R4).

Draw ``n`` of a domain is ``blake2b(key=seed, domain ‖ n)``: no generator state to save, no
algorithm of ``random`` that a Python release may change. The seed is recorded in event 1 and never
shown: ids and tokens drawn from it cannot be computed by somebody who knows the run's id.
"""

from __future__ import annotations

import hashlib

SEED_BYTES = 16


class Entropy:
    """A counter over a seed. ``reseed`` starts a fork's own sequence."""

    __slots__ = ("_drawn", "_seed")

    def __init__(self, seed: bytes) -> None:
        self._seed = seed
        self._drawn = 0

    def reseed(self, seed: bytes) -> None:
        """Draw from ``seed`` from here on."""
        self._seed = seed
        self._drawn = 0

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
        return hashlib.blake2b(what.encode(), key=self._seed, digest_size=size).digest()

    def fraction(self) -> float:
        """Return the next number in [0, 1): 53 bits, as ``random.random`` has."""
        return (int.from_bytes(self.draw(7), "big") >> 3) / (1 << 53)


def idempotency_key(seed: bytes, activity: int) -> str:
    """Return the key all attempts of an activity share; 32 hex digits, not guessable."""
    return hashlib.blake2b(b"activity:%d" % activity, key=seed, digest_size=16).hexdigest()
