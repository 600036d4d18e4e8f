"""What a look at a schedule does: which ticks begin, wait, are skipped or were missed.

Pure. A store reads a schedule with its row locked, finds out which of its executions are still
open, makes a :class:`Look`, starts what that says, tells it what became of the starts and writes
the standing that is left, all in one transaction. So whoever looks next, anywhere, goes on from
there, and no tick begins twice or is forgotten.

One look begins at most ``MOST_STARTS`` executions and passes ``MOST_TICKS`` ticks; the next follows
at once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import islice

import msgspec

from perdure.values.schedules import STOPPING, Overlap, Spec, due_at, tick_after, ticks_after

MOST_STARTS = 100
MOST_TICKS = 500
MOST_BUFFERED = 1_000
MOST_WATCHED = 100
"""Open executions that are known of: only ``allow`` can have more, and forgets the oldest."""
KEPT = 10
"""Of the executions it has begun, these are shown."""


class Waiting(msgspec.Struct, array_like=True, frozen=True):
    """A tick that begins when what is open has ended. ``by``: ``clock`` or ``trigger``.

    ``stops``: how what is open is asked to end; ``None``: not at all.
    """

    tick: int
    by: str = "clock"
    stops: Overlap | None = None


class Backfill(msgspec.Struct, array_like=True):
    """Ticks of the past to begin: those from ``after`` on and before ``before``."""

    after: int
    before: int
    overlap: Overlap


class Begun(msgspec.Struct, frozen=True):
    """An execution that a schedule has begun: by which tick, and when."""

    tick: int
    at: int
    workflow_id: str
    run_id: str
    execution: int
    by: str = "clock"


class Standing(msgspec.Struct, omit_defaults=True):
    """Where a schedule stands.

    ``done``: the last tick that was dealt with, or a time before which none counts. ``open``:
    executions that had not ended when last looked at; ``stopped``: those of them that were asked to
    end. ``counted``: what goes against ``max_executions``. ``finished``: why no tick will come.
    """

    done: int = 0
    open: list[int] = []
    stopped: list[int] = []
    buffer: list[Waiting] = []
    backfills: list[Backfill] = []
    last: list[Begun] = []
    counted: int = 0
    fired: int = 0
    skipped: int = 0
    missed: int = 0
    triggered: int = 0
    finished: str = ""


class Start(msgspec.Struct, frozen=True):
    """An execution to begin. ``by``: ``clock``, ``trigger`` or ``backfill``."""

    tick: int
    by: str


class Passed(msgspec.Struct, frozen=True):
    """Ticks that begin nothing: ``skipped``, ``missed`` or ``buffered``; ``first`` to ``last``."""

    what: str
    number: int
    first: int
    last: int
    why: str = ""


class Look:
    """A look at a schedule with everything that follows from it; see the module's text.

    ``open``: its executions that are open now. ``there``: ticks whose execution is there already.
    """

    def __init__(
        self,
        name: str,
        spec: Spec,
        standing: Standing,
        open: Collection[int],
        now: int,
        *,
        is_paused: bool = False,
        there: Collection[int] = (),
    ) -> None:
        self._name, self._spec, self._now = name, spec, now
        self._is_paused = is_paused
        self._there = there
        self.standing = standing
        standing.open = [one for one in standing.open if one in open]
        standing.stopped = [one for one in standing.stopped if one in open]
        self.starts: list[Start] = []
        self.stops: dict[int, Overlap] = {}
        """Executions that are to be asked to end, and how."""
        self.passed: list[Passed] = []
        self._has_more = False

    def take(self) -> None:
        """Deal with all that is due."""
        if not self._is_paused:
            self._take_buffered()
            self._take_ticks()
        self._take_backfills()
        self._stop_others()

    def trigger(self, overlap: Overlap | None) -> None:
        """Deal with a tick that somebody asks for now."""
        standing = self.standing
        standing.triggered = tick = max(self._now, standing.triggered + 1)
        self._judge(tick, overlap or self._spec.overlap, "trigger")
        self._stop_others()

    def begun(self, start: Start, begun: Begun) -> None:
        """An execution of this look has begun."""
        standing = self.standing
        self.starts.remove(start)
        standing.fired += 1
        standing.counted += start.by == "clock"
        standing.open = [*standing.open, begun.execution][-MOST_WATCHED:]
        standing.last = [*standing.last, begun][-KEPT:]

    def refused(self, start: Start, why: str) -> None:
        """An execution of this look could not begin."""
        self.starts.remove(start)
        self._pass("skipped", [start.tick], why)

    def next_at(self) -> int | None:
        """Return when the next look is due; ``None``: not by the clock.

        Asked when all that this one starts has begun or was refused.
        """
        assert not self.starts
        standing, spec = self.standing, self._spec
        standing.finished = ""
        times: list[int] = []
        if self._is_full:
            standing.finished = "" if self._has_work else "max_executions"
        elif (tick := tick_after(spec, standing.done)) is None:
            standing.finished = "" if self._has_work else "at" if spec.at else "end"
        elif not self._is_paused:
            times.append(due_at(spec, self._name, tick))
        if self._has_more or (self._has_work and self.waits_for() is None):
            times.append(self._now)
        return min(times, default=None)

    def waits_for(self) -> int | None:
        """Return an execution with whose end the next look is due; ``None``: with none."""
        standing = self.standing
        return standing.open[0] if standing.open and self._has_work else None

    # -- inside ------------------------------------------------------------------------------

    @property
    def _has_work(self) -> bool:
        standing = self.standing
        return bool((standing.buffer and not self._is_paused) or standing.backfills)

    @property
    def _is_busy(self) -> bool:
        return bool(self.standing.open or self.starts)

    @property
    def _is_full(self) -> bool:
        """Whether it has begun, or will, as many as it may."""
        most, standing = self._spec.max_executions, self.standing
        waiting = sum(one.by == "clock" for one in (*standing.buffer, *self.starts))
        return bool(most) and standing.counted + waiting >= most

    def _take_buffered(self) -> None:
        standing = self.standing
        may_overlap = self._spec.overlap is Overlap.ALLOW
        while standing.buffer and (may_overlap or not self._is_busy):
            if len(self.starts) >= MOST_STARTS:
                self._has_more = True
                return
            first = standing.buffer.pop(0)
            self.starts.append(Start(first.tick, first.by))

    def _take_ticks(self) -> None:
        spec, overlap = self._spec, self._spec.overlap
        missed: list[int] = []
        replaced: list[int] = []
        for tick, due in self._ticks():
            if self._now - due > spec.catch_up:
                missed.append(tick)
            elif overlap in STOPPING:
                replaced.append(tick)  # only the last one counts: each would end the one before
            else:
                self._judge(tick, overlap, "clock")
        if replaced:
            *others, last = replaced
            self._pass("skipped", others, "the next tick came at once")
            self._judge(last, overlap, "clock")
        late = f"more than {spec.catch_up / 1_000_000:g} s late"
        self._pass("missed", missed, late)

    def _ticks(self) -> Iterator[tuple[int, int]]:
        """Yield due ticks in order; what was yielded is done."""
        spec, standing = self._spec, self.standing
        self._skip_long_missed()
        for _ in range(MOST_TICKS):
            if self._is_full:
                return
            tick = tick_after(spec, standing.done)
            if tick is None or (due := due_at(spec, self._name, tick)) > self._now:
                return
            if len(self.starts) >= MOST_STARTS:
                break
            standing.done = tick
            yield tick, due
        self._has_more = True

    def _skip_long_missed(self) -> None:
        """Count missed ticks of an interval at once: there may be millions."""
        spec, standing = self._spec, self.standing
        if not spec.every or self._is_full:
            return
        first = tick_after(spec, standing.done)
        horizon = self._now - spec.catch_up - spec.jitter - spec.every
        if spec.end:
            horizon = min(horizon, spec.end - 1)
        if first is None or first >= horizon:
            return
        number = (horizon - first) // spec.every + 1
        standing.done = first + (number - 1) * spec.every
        standing.missed += number
        late = f"more than {spec.catch_up / 1_000_000:g} s late"
        self.passed.append(Passed("missed", number, first, standing.done, late))

    def _take_backfills(self) -> None:
        standing = self.standing
        for _ in range(MOST_TICKS):
            if not standing.backfills:
                return
            fill = standing.backfills[0]
            tick = tick_after(self._spec, fill.after - 1)
            if tick is None or tick >= fill.before:
                standing.backfills.pop(0)
                continue
            if tick not in self._there:
                if fill.overlap is Overlap.BUFFER_ALL and self._is_busy:
                    return
                if len(self.starts) >= MOST_STARTS:
                    break
                self._judge(tick, fill.overlap, "backfill")
            fill.after = tick + 1
        self._has_more = True

    def _stop_others(self) -> None:
        """Ask what is open to end, if a tick waits that wants it so."""
        standing = self.standing
        ways = [one.stops for one in standing.buffer if one.stops is not None]
        if not ways or self._is_paused:
            return
        self.stops = {one: ways[-1] for one in standing.open if one not in standing.stopped}
        standing.stopped = [*standing.stopped, *self.stops]
        self._has_more |= bool(self.starts)  # they are to end, too: by the next look

    def _judge(self, tick: int, overlap: Overlap, by: str) -> None:
        standing = self.standing
        if overlap is Overlap.ALLOW or not self._is_busy:
            self.starts.append(Start(tick, by))
        elif overlap is Overlap.SKIP:
            self._pass("skipped", [tick], "the one before is still open")
        elif overlap in STOPPING:
            self._pass("skipped", [one.tick for one in standing.buffer], "a later tick came")
            self._wait(Waiting(tick, by, overlap), replace=True)
        elif overlap is Overlap.BUFFER_ONE and standing.buffer:
            self._pass("skipped", [tick], "one is waiting already")
        elif len(standing.buffer) >= MOST_BUFFERED:
            self._pass("skipped", [tick], f"{MOST_BUFFERED:,} are waiting already")
        else:
            self._wait(Waiting(tick, by))

    def _wait(self, waiting: Waiting, *, replace: bool = False) -> None:
        standing = self.standing
        standing.buffer = [waiting] if replace else [*standing.buffer, waiting]
        self.passed.append(Passed("buffered", 1, waiting.tick, waiting.tick))

    def _pass(self, what: str, ticks: list[int], why: str) -> None:
        if not ticks:
            return
        number = len(ticks)
        if what == "skipped":
            self.standing.skipped += number
        else:
            self.standing.missed += number
        before = self.passed[-1] if self.passed else None
        if before is not None and (before.what, before.why) == (what, why):
            # A row of them is told as one.
            number += before.number
            self.passed[-1] = Passed(what, number, before.first, ticks[-1], why)
        else:
            self.passed.append(Passed(what, number, ticks[0], ticks[-1], why))


def candidates(spec: Spec, standing: Standing) -> list[int]:
    """Return the next ticks that a backfill may begin: their executions may be there already."""
    if not standing.backfills:
        return []
    fill = standing.backfills[0]
    ticks = islice(ticks_after(spec, fill.after - 1), MOST_STARTS)
    return [tick for tick in ticks if tick < fill.before]
