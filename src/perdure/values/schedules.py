"""Schedules: when executions begin by the clock, and what each of them begins with.

A schedule's *ticks* are the moments that its spec names; a tick's *due* time is that moment and its
share of the jitter. Both follow from the spec, the schedule's name and the tick alone, so that all
workers agree. What a look at a schedule does is ``firing.py``. Times are microseconds since 1970.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from hashlib import blake2b
from itertools import islice, pairwise
from typing import Any

import msgspec

from perdure.errors import Invalid
from perdure.values import ids
from perdure.values.cron import check_cron, check_zone, names_time, next_tick, zone_of
from perdure.values.duration import SECOND, to_text
from perdure.values.meters import Meter
from perdure.values.terms import NO_TERMS, Terms

LEAST_EVERY = SECOND
LEAST_CRON = 60 * SECOND
DAY = 86_400 * SECOND
CATCH_UP = DAY
"""What is up to a day late is done; see ADR 19."""
_TICKS_LOOKED_AT = 60
MAX_ID = 200
"""Characters of a schedule's id: those of its executions are longer by a time."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LAST = (datetime(9999, 12, 30, tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)
"""Ticks are before: calendars end with the year 9999, in some time zones a day before UTC's."""


class Overlap(StrEnum):
    """What happens to a tick while an execution of the schedule is still open."""

    SKIP = "skip"
    BUFFER_ONE = "buffer_one"
    BUFFER_ALL = "buffer_all"
    ALLOW = "allow"
    CANCEL_OTHER = "cancel_other"
    TERMINATE_OTHER = "terminate_other"


STOPPING = frozenset({Overlap.CANCEL_OTHER, Overlap.TERMINATE_OTHER})


class Spec(msgspec.Struct, frozen=True, omit_defaults=True):
    """When a schedule's ticks are, and what becomes of those that come at a bad time.

    One of ``cron``, ``every`` and ``at``. ``every``: at multiples of it since 1970, and ``offset``
    later. No tick is before ``start``, none at or after ``end``. ``catch_up``: how late a tick may
    still begin. ``max_executions``: how many executions begin in all; 0 is no limit.
    """

    cron: str = ""
    every: int = 0
    offset: int = 0
    at: int = 0
    timezone: str = "UTC"
    overlap: Overlap = Overlap.SKIP
    catch_up: int = CATCH_UP
    jitter: int = 0
    start: int = 0
    end: int = 0
    max_executions: int = 0

    @property
    def text(self) -> str:
        """Say it in a few words."""
        if self.cron:
            return f"{self.cron} ({self.timezone})"
        if self.every:
            later = f", {to_text(self.offset)} later" if self.offset else ""
            return f"every {to_text(self.every)}{later}"
        return f"at {stamp(self.at)}"


class Template(msgspec.Struct, frozen=True, omit_defaults=True):
    """What each execution begins with. ``version``: ``""`` is the highest active one by then;
    ``queue``: ``""`` is that of the definition. ``places``: under which each counts while it is
    open, with how many may be; ``meters``: what each costs of rates. A tick is skipped for which
    there is no place, or which comes too soon.
    """

    workflow: str
    version: str = ""
    queue: str = ""
    input: bytes = b"null"
    context: bytes | None = None
    memo: bytes | None = None
    search: dict[str, Any] = msgspec.field(default_factory=dict[str, Any])
    tags: tuple[str, ...] = ()
    correlation_id: str | None = None
    tenant: str | None = None
    created_by: str | None = None
    terms: Terms = NO_TERMS
    description: str = ""
    places: tuple[tuple[str, int], ...] = ()
    meters: tuple[Meter, ...] = ()


class Upcoming(msgspec.Struct, frozen=True):
    """A tick to come: in UTC, in the schedule's time zone, and what daylight saving does to it."""

    at: datetime
    local: datetime
    note: str = ""


def check_schedule_id(text: object) -> str:
    """Return ``text`` if it can be a schedule's id.

    Raises:
        Invalid: what no execution's id can be, or too long.
    """
    id = ids.check_workflow_id(text)
    if len(id) > MAX_ID:
        raise Invalid(f"id: {len(id)} characters; a schedule's has at most {MAX_ID}")
    return id


def checked(spec: Spec, *, least_cron: int = LEAST_CRON, least_every: int = LEAST_EVERY) -> Spec:
    """Return a spec with its cron text resolved.

    Args:
        spec: as it was asked for.
        least_cron: between two ticks of a cron text.
        least_every: of an interval.

    Raises:
        Invalid: it cannot be.
    """
    if sum(map(bool, (spec.cron, spec.every, spec.at))) != 1:
        raise Invalid("a schedule needs one of cron=, every= and at=")
    for name in ("at", "start"):
        if getattr(spec, name) >= LAST:
            raise Invalid(f"{name}: is too late; calendars end with the year 9999")
    if spec.cron:
        check_zone(spec.timezone)
        spec = msgspec.structs.replace(spec, cron=check_cron(spec.cron))
        _check_gap(spec, least_cron)
    elif spec.timezone != "UTC":
        raise Invalid("timezone: only a cron text is read in a time zone; at= has one of its own")
    if spec.every and spec.every < least_every:
        raise Invalid(f"every: {to_text(spec.every)} is less than {to_text(least_every)}")
    if spec.offset and not spec.every:
        raise Invalid("offset: only goes with every=")
    if spec.every and spec.offset >= spec.every:
        raise Invalid(
            f"offset: {to_text(spec.offset)} is not less than every={to_text(spec.every)}"
        )
    if spec.end and spec.end <= spec.start:
        raise Invalid("end: is not after start")
    if spec.at and (0 < spec.at < spec.start or 0 < spec.end <= spec.at):
        raise Invalid("at: is not from start= on and before end=")
    if spec.max_executions < 0:
        raise Invalid(f"max_executions: {spec.max_executions} is negative")
    return spec


def _check_gap(spec: Spec, least: int) -> None:
    """Cron texts of five fields are at least a minute apart; some want more."""
    if least <= LEAST_CRON:
        return
    gap = least_gap(spec)
    if gap and gap < least:
        raise Invalid(
            f"cron: {spec.cron!r} runs every {to_text(gap)}; at least {to_text(least)} are allowed"
        )


def least_gap(spec: Spec, after: int = 0) -> int:
    """Return the least time between two of the next ticks; 0: there are no two."""
    if spec.every:
        return spec.every
    ticks = islice(ticks_after(Spec(cron=spec.cron, at=spec.at), after), _TICKS_LOOKED_AT)
    return min((b - a for a, b in pairwise(ticks)), default=0)


def tick_after(spec: Spec, after: int) -> int | None:
    """Return the first tick after a time; ``None``: there is none."""
    after = max(after, spec.start - 1)
    if after >= LAST:
        return None
    if spec.at:
        tick: int | None = spec.at if spec.at > after else None
    elif spec.every:
        tick = ((after - spec.offset) // spec.every + 1) * spec.every + spec.offset
    else:
        try:
            tick = next_tick(spec.cron, after, spec.timezone)
        except (StopIteration, OverflowError):
            return None
    return None if tick is None or tick >= min(spec.end or LAST, LAST) else tick


def ticks_after(spec: Spec, after: int) -> Iterator[int]:
    """Yield the ticks after a time."""
    while (tick := tick_after(spec, after)) is not None:
        yield tick
        after = tick


def due_at(spec: Spec, name: str, tick: int) -> int:
    """Return when a tick is due: with jitter by chance that everybody draws alike, and before the
    next one.

    ``name``: of the schedule, namespace included.
    """
    if not spec.jitter:
        return tick
    following = tick_after(spec, tick)
    span = spec.jitter if following is None else min(spec.jitter, following - tick - 1)
    drawn = blake2b(f"{name}\0{tick}".encode(), digest_size=8).digest()
    return tick + int.from_bytes(drawn, "big") % (span + 1)


def upcoming(spec: Spec, after: int, count: int) -> list[Upcoming]:
    """Return the next ticks, with notes."""
    found: list[Upcoming] = []
    for tick in islice(ticks_after(spec, after), count):
        at = to_time(tick)
        local = at.astimezone(zone_of(spec.timezone))
        found.append(Upcoming(at, local, note_of(spec, local)))
    return found


def note_of(spec: Spec, local: datetime) -> str:
    """Say what daylight saving does to a tick, or ``""``."""
    if spec.cron and not names_time(spec.cron, local):
        return f"the clocks skip the time it names; it runs at {local:%H:%M} instead"
    offset, other = _offset(local), _offset(local.replace(fold=1 - local.fold))
    if offset != other:  # a time that comes twice; no tick is at one that does not come
        which = "second" if local.fold else "first"
        return f"{local:%H:%M} comes twice; this is the {which} one"
    change = offset - _offset(local.replace(hour=0, minute=0, second=0, fold=0))
    if not change:
        return ""
    way = "forward" if change > _NO_TIME else "back"
    return f"the clocks were put {way} by {to_text(abs(change) // _MICROSECOND)} before it"


_NO_TIME, _MICROSECOND = timedelta(), timedelta(microseconds=1)


def _offset(local: datetime) -> timedelta:
    return local.utcoffset() or _NO_TIME


def stamp(tick: int) -> str:
    """Write a time in UTC the way ids of executions have it: ``2026-11-22T00:00:00Z``."""
    text = to_time(tick).isoformat(timespec="microseconds" if tick % SECOND else "seconds")
    return text.replace("+00:00", "Z")


def to_time(tick: int) -> datetime:
    """Return a time as an aware datetime in UTC."""
    return _EPOCH + timedelta(microseconds=tick)


def workflow_id_of(id: str, tick: int, by: str) -> str:
    """Return the id of the execution that a tick begins; ``by``: as in ``firing.Start``."""
    return f"{id}-{by}-{stamp(tick)}" if by == "trigger" else f"{id}-{stamp(tick)}"


def run_id_of(namespace: str, workflow_id: str, tick: int) -> str:
    """Return the id of the run that a tick begins: always the same one."""
    drawn = blake2b(f"{namespace}\0{workflow_id}".encode(), digest_size=10).digest()
    return ids.uuid7(tick // 1000, drawn)
