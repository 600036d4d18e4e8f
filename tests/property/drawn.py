"""The same programs and schedules, drawn from a number: alike on every Python."""

from __future__ import annotations

import random
from typing import Any

from tests.property.programs import ACTIVITIES, CHANNELS, SINGLE, TOPICS, Node


class Drawer:
    """Draws programs and schedules from a seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._makers = (
            *[self._act] * 6,
            *[self._within] * 6,
            lambda _: [self._one("sleep", "asleep"), self._number(9)],
            lambda _: [self._one("put", "close", "put"), self._number(CHANNELS - 1)],
            lambda _: ["receive", self._number(CHANNELS - 1), self._maybe(5)],
            lambda _: ["select", self._number(6)],
            lambda _: ["listen", self._one(*TOPICS), self._maybe(5)],
            lambda _: [self._one("cancel", "join"), self._number(5)],
            lambda _: ["reach", 1 + self._number(2), self._maybe(5)],
            lambda _: [self._one("execute", "start", "send", "raise", "version"), self._number(2)],
            lambda _: [self._one(*SINGLE)],
        )

    def program(self) -> list[Node]:
        return [self._node(3) for _ in range(2 + self._number(4))]

    def schedule(self) -> list[list[int]]:
        turns = range(5 + self._number(30))
        return [[self._number(999) for _ in range(1 + self._number(2))] for _ in turns]

    def _node(self, depth: int) -> Node:
        return self._random.choice(self._makers)(depth)

    def _act(self, _depth: int) -> Node:
        return ["act", self._one(*ACTIVITIES)]

    def _within(self, depth: int) -> Node:
        if depth == 0:
            return self._act(0)
        inner = depth - 1
        shape = self._number(3)
        if shape == 0:
            parts = [self._node(inner) for _ in range(2 + self._number(2))]
            return [self._one("seq", "gather", "group", "group", "wait", "as_completed"), parts]
        if shape == 1:
            kind = self._one("spawn", "task", "shield", "lock", "gate", "saga", "agen")
            return [kind, self._node(inner), *([2] if kind == "agen" else [])]
        if shape == 2:
            kind = self._one("timeout", "wait_for", "limit")
            return [kind, self._number(9), self._node(inner)]
        kind = self._one("finally", "except", "branch", "patched")
        return [kind, self._node(inner), self._node(inner)]

    def _one(self, *choices: Any) -> Any:
        return self._random.choice(choices)

    def _number(self, most: int) -> int:
        return self._random.randint(0, most)

    def _maybe(self, most: int) -> int | None:
        return self._number(most) if self._random.random() < 0.5 else None
