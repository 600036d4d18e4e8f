"""What goes into a store about schedules, and what comes back.

The verbs are ``put_schedule``, ``steer_schedule`` and ``fire`` (``port.py``), ``schedule`` and
``schedules`` (``reader.py``). Each holds the schedule's row from the first look to the commit.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from perdure.store.rows import Started
from perdure.values.audit import AuditLine
from perdure.values.firing import Passed, Standing
from perdure.values.schedules import Overlap, Spec, Template


class ScheduleRow(msgspec.Struct):
    """A schedule. ``next_at``: when it is looked at next; ``revision`` grows with each change.

    As readers return it, ``standing.open`` are those executions that are open now.
    """

    namespace: str
    id: str
    spec: Spec
    template: Template
    note: str
    standing: Standing
    is_paused: bool
    next_at: int | None
    created_at: int
    changed_at: int
    revision: int

    @property
    def name(self) -> str:
        """What its jitter is drawn by."""
        return f"{self.namespace}/{self.id}"


class SchedulePut(msgspec.Struct, frozen=True):
    """Create a schedule, or take another's place.

    One that is exactly the same already is left alone. ``replaces``: one that is different is
    replaced, and keeps its counts, what it has begun and where it stands; with another spec it
    stands at now. ``must_exist``: one is replaced, and none created. ``is_paused``, ``note``:
    ``None`` leaves them as they are. ``audit``: told if something was changed, as
    ``schedule.create`` or ``schedule.update``, whatever action it names. ``sees``: the tenant whose
    schedules alone who asks may replace; empty: all.
    """

    namespace: str
    id: str
    spec: Spec
    template: Template
    is_paused: bool | None = None
    note: str | None = None
    replaces: bool = False
    must_exist: bool = False
    sees: str = ""
    audit: AuditLine | None = None


class ScheduleDrop(msgspec.Struct, frozen=True):
    """Delete a schedule, if there is one."""

    namespace: str
    id: str


class ScheduleSteer(msgspec.Struct, frozen=True):
    """Do something to a schedule: ``pause``, ``resume``, ``trigger``, ``backfill``, ``delete``.

    ``overlap``: of this trigger or backfill; ``after`` and ``before``: of the backfill's ticks.
    ``audit``: told of it; of a trigger, with the run that it began. ``sees``: the tenant whose
    schedules alone who asks may do it to; empty: all.
    """

    namespace: str
    id: str
    verb: str
    note: str | None = None
    overlap: Overlap | None = None
    after: int = 0
    before: int = 0
    sees: str = ""
    audit: AuditLine | None = None


class ScheduleFilter(msgspec.Struct, frozen=True):
    """What a list of schedules selects; empty fields do not filter."""

    namespace: str = "default"
    workflow: str = ""
    prefix: str = ""
    paused: bool | None = None


class Happened(msgspec.Struct):
    """What came of a look at a schedule: executions that began, and ticks that passed."""

    row: ScheduleRow
    started: list[Started]
    passed: list[Passed]


class Fired(msgspec.Struct):
    """What came of ``fire``. ``next_at``: when the next look at any schedule is due; 0: now.

    ``broken``: schedules whose row cannot be read; they are left alone until somebody replaces or
    deletes them.
    """

    happened: list[Happened]
    next_at: int | None
    broken: list[str]


class Scheduling(Protocol):
    """The verbs of the store port that write schedules."""

    def put_schedule(self, put: SchedulePut, now: int) -> ScheduleRow:
        """Create or replace a schedule. It may be repeated.

        Raises:
            AlreadyExists: there is a different one with this id, and it is not to be replaced, or
                it is not of the tenant who asks.
            PermissionDenied: the one that has to exist is not of the tenant who asks.
            ScheduleNotFound: there is none, and it is to be replaced.
            Invalid: no tick would come.
        """
        ...

    def steer_schedule(self, steer: ScheduleSteer, now: int, chance: bytes) -> Happened:
        """Do something to a schedule; ``chance``: 32 random bytes, for what it starts.

        After a lost acknowledgement ``schedule`` says what was written.

        Raises:
            ScheduleNotFound: there is none with this id.
            PermissionDenied: it is not of the tenant who asks.
            Conflict: it has too many backfills to do.
        """
        ...

    def fire(self, now: int, chance: bytes, *, limit: int = 50) -> Fired:
        """Begin the executions of up to ``limit`` schedules that are due, and of as many for whose
        execution they waited; each tick once, whoever asks, and however often.

        ``chance``: as above. Anybody may: it is no worker's business, and what it starts is
        anybody's. Schedules that somebody else is at are left to them.
        """
        ...
