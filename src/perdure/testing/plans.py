"""What goes wrong with the verbs of a store, and when: by chance, or at one place."""

from __future__ import annotations

import enum
from random import Random
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from perdure.testing.faults import FaultyDesk

WRITES = frozenset(
    {
        "act",
        "act_all",
        "activate",
        "admit",
        "amend",
        "answer",
        "ask",
        "claim",
        "close_mailboxes",
        "commit",
        "cut_audit",
        "define",
        "drop_mail",
        "erase",
        "erase_audit",
        "extend",
        "fire",
        "forget",
        "forget_codecs",
        "forget_human_tasks",
        "hand_back",
        "join",
        "keep_mailboxes",
        "leave",
        "move_human_tasks",
        "post",
        "prune",
        "put_schedule",
        "raise_human_task",
        "reseal",
        "settle",
        "spend",
        "start",
        "steer_schedule",
        "suspect",
        "sweep",
        "take_over",
        "transact",
        "unused_blobs",
        "watch",
    }
)


class Fault(enum.Enum):
    """What happens to one verb."""

    NONE = "none"
    ERROR = "error"
    """Unavailable, and nothing was written."""
    LOST_ACK = "lost ack"
    """Unavailable, though it was written."""
    DIE_BEFORE = "die before"
    DIE_AFTER = "die after"


class Plan(Protocol):
    """Decides what goes wrong."""

    def fault(self, desk: FaultyDesk, verb: str) -> Fault:
        """Say what happens to this call of ``verb``."""
        ...

    def delay(self, desk: FaultyDesk) -> float:
        """Return seconds for one half of a verb's way: to the database, or back."""
        ...

    def hint(self, desk: FaultyDesk) -> float | None:
        """Return after how many seconds a foreign commit is noticed; ``None``: never."""
        ...


class Calm:
    """Nothing goes wrong; foreign commits are noticed as a file database would."""

    def fault(self, desk: FaultyDesk, verb: str) -> Fault:
        """Nothing happens."""
        return Fault.NONE

    def delay(self, desk: FaultyDesk) -> float:
        """Verbs take no time."""
        return 0.0

    def hint(self, desk: FaultyDesk) -> float | None:
        """Look every 20 ms."""
        return 0.02


class RandomFaults:
    """Faults by chance; every probability is per verb (deaths: per writing verb)."""

    def __init__(
        self,
        chance: Random,
        *,
        error: float = 0.0,
        lost_ack: float = 0.0,
        death: float = 0.0,
        slow: float = 0.0,
        slow_seconds: float = 0.05,
        stuck: float = 0.0,
        stuck_seconds: float = 3.0,
        lost_hint: float = 0.0,
        hint_seconds: float = 0.04,
    ) -> None:
        self._chance = chance
        self.error = error
        self.lost_ack = lost_ack
        self.death = death
        self.slow = slow
        self.slow_seconds = slow_seconds
        self.stuck = stuck
        self.stuck_seconds = stuck_seconds
        self.lost_hint = lost_hint
        self.hint_seconds = hint_seconds

    def calm(self) -> None:
        """Let nothing go wrong from here on, except that hints still get lost."""
        self.error = self.lost_ack = self.death = self.slow = self.stuck = 0.0

    def fault(self, desk: FaultyDesk, verb: str) -> Fault:
        """Draw what happens."""
        if not (self.error or self.lost_ack or self.death):
            return Fault.NONE
        drawn = self._chance.random()
        if drawn < self.error:
            return Fault.ERROR
        if verb not in WRITES:
            return Fault.NONE
        drawn -= self.error
        if drawn < self.lost_ack:
            return Fault.LOST_ACK
        drawn -= self.lost_ack
        if drawn < self.death and desk.may_die:
            return Fault.DIE_BEFORE if drawn < self.death / 2 else Fault.DIE_AFTER
        return Fault.NONE

    def delay(self, desk: FaultyDesk) -> float:
        """Draw a delay; mostly none."""
        if not (self.slow or self.stuck):
            return 0.0
        drawn = self._chance.random()
        if drawn < self.stuck:
            return self._chance.random() * self.stuck_seconds
        if drawn < self.stuck + self.slow:
            return self._chance.random() * self.slow_seconds
        return 0.0

    def hint(self, desk: FaultyDesk) -> float | None:
        """Draw whether, and when, a foreign commit is noticed."""
        if self._chance.random() < self.lost_hint:
            return None
        return self._chance.random() * self.hint_seconds


class NthCommit:
    """One fault, at the N-th commit of all workers; counts them."""

    def __init__(self, number: int, fault: Fault) -> None:
        self._number = number
        self._fault = fault
        self.commits = 0
        self.has_failed = False

    def fault(self, desk: FaultyDesk, verb: str) -> Fault:
        """Let the N-th commit fail."""
        if verb != "commit":
            return Fault.NONE
        self.commits += 1
        if self.commits != self._number or not desk.may_die:
            return Fault.NONE
        self.has_failed = True
        return self._fault

    def delay(self, desk: FaultyDesk) -> float:
        """Verbs take no time."""
        return 0.0

    def hint(self, desk: FaultyDesk) -> float | None:
        """Look every 20 ms."""
        return 0.02
