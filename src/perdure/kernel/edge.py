"""What crosses the kernel's edge: what it needs of a workflow, what a turn gives back."""

from __future__ import annotations

import enum
from collections.abc import Coroutine, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from perdure import errors
from perdure.values import events as ev


class Program(Protocol):
    """What the kernel needs of a workflow definition."""

    @property
    def name(self) -> str:
        """The workflow's type name."""
        ...

    def begin(self, input_: bytes) -> Coroutine[Any, Any, Any]:
        """Decode the input and return the coroutine to run.

        Raises:
            Invalid: the input does not fit the annotations.
        """
        ...

    def finish(self, result: Any) -> bytes:
        """Encode the result.

        Raises:
            Invalid: it has no JSON form, or is over the limit.
        """
        ...


class ContinueAsNew(errors.ControlFlow):
    """Ends the run; its execution goes on in a new one."""

    def __init__(self, event: ev.RunContinued) -> None:
        super().__init__()
        self.event = event


class Mode(enum.Enum):
    """What a command means now; see ``traps.py``."""

    IDLE = "idle"
    LIVE = "live"
    READ_ONLY = "read-only"
    EVICTING = "evicting"


class StoredTurn(NamedTuple):
    """A history row, decoded. ``size`` is its payload's length in bytes."""

    events: Sequence[ev.Event]
    time: int
    applied: bool
    size: int = 0


class Turn(msgspec.Struct, gc=False):
    """What one application gave. ``first_id`` is the event id of the first command.

    ``unexpected`` is the exception behind a ``RunFailed`` that no workflow raises on purpose; the
    caller decides whether it fails the run or parks it.
    """

    commands: list[ev.Event]
    first_id: int
    closed: ev.Event | None = None
    unexpected: BaseException | None = None


class Waits(msgspec.Struct, omit_defaults=True):
    """What an instance waits for; stored as JSON for ``why``.

    ``updates`` are under way; ``handlers`` are the updates it would take. ``people`` are human
    tasks: for each (title, role, assignee, due). ``steps``: where the program says that it is.
    ``queues``: activities that are in task queues, for whoever serves these: (name, queue).
    """

    topics: list[str] = []
    activities: list[str] = []
    children: list[str] = []
    timers: int = 0
    next_due: int | None = None
    conditions: int = 0
    updates: int = 0
    handlers: list[str] = []
    where: str = ""
    people: list[tuple[str, str | None, str | None, int]] = []
    steps: list[str] = []
    queues: list[tuple[str, str]] = []
