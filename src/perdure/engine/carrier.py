"""Carries out activities that are on offer in the task queues that this worker serves.

*Claim*: as many as there is room for, in one transaction, whenever something is on offer or a slot
gets free. *Carry out*: like an attempt of this worker's own runs (``engine/activities.py``), for a
run that it need not know: the claim brings all that the attempt is told. *Tell*: what came of it
goes with the next batch into the run's inbox, if the offer still is this worker's. What was
withdrawn meanwhile is cancelled: after each commit of others, and whenever the lease is extended,
this worker asks what it still has.

Offers that nobody takes in time are ended by whoever sees it first.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import msgspec

from perdure import errors
from perdure.engine import offers
from perdure.engine.committer import Fate
from perdure.engine.runs import Run
from perdure.engine.work import Work, timed_out
from perdure.store.complaints import Complaints
from perdure.store.offers import Carried, OfferKey, OfferRow, Outcome, Then, Wanted
from perdure.values import events as ev
from perdure.values import failures
from perdure.values.queues import QueueLimit, TaskQueue

if TYPE_CHECKING:
    from perdure.engine.core import Core

_log = logging.getLogger("perdure.engine")
_SECOND = 1_000_000
_AGAIN_SECONDS = 0.5
_PASSED_BY_SECONDS = 0.005
_PASSED_BY = 5
_OVERDUE = 100


class Carrier:
    """See the module's text."""

    def __init__(self, core: Core, queues: Sequence[TaskQueue]) -> None:
        self._core = core
        self._slots = {queue.name: queue.slots for queue in queues}
        self.limits: tuple[QueueLimit, ...] = tuple(core.settings.queue_limits)
        self._after: dict[str, str] = {}
        """The lane of each queue that had the last turn here."""
        self._works: dict[tuple[int, int], Work] = {}
        self._carried: dict[tuple[int, int], Carried] = {}
        self._ending: set[OfferKey] = set()
        """What came to an end here and is not committed yet."""
        self._task: asyncio.Task[None] | None = None
        self._is_wanted = self._is_checking = self._is_in_doubt = False
        self._due = self._passed_by = 0
        self._call: asyncio.TimerHandle | None = None
        self.is_stopping = False
        self._trouble = Complaints(_log, asyncio.get_running_loop().time)

    @property
    def works(self) -> Iterable[Work]:
        """What this worker carries out for the runs of others, and has not come to an end."""
        return self._works.values()

    # -- when to look ------------------------------------------------------------------------

    def look(self) -> None:
        """Claim soon."""
        self._is_wanted = True
        self._go()

    def check(self) -> None:
        """Find out soon what was withdrawn of what this worker carries out."""
        if self._works:
            self._is_checking = True
            self._go()

    def hear(self, due: int | None, *, has_any: bool) -> None:
        """Take what a look at the store has told: whether to claim, and when something is due."""
        if has_any:
            self.look()
        if due is not None:
            self._look_at(due)

    def _look_at(self, due: int) -> None:
        """Look when this time has come, or sooner."""
        now = self._core.clock.now()
        if self._call is not None and now < self._due <= due:
            return
        if self._call is not None:
            self._call.cancel()
        self._due = due
        delay = max(0, due - now) / _SECOND
        self._call = asyncio.get_running_loop().call_later(delay, self._has_come)

    def _has_come(self) -> None:
        self._call = None
        self.look()

    def _go(self) -> None:
        if self.is_stopping or (self._task is not None and not self._task.done()):
            return
        self._task = asyncio.get_running_loop().create_task(self._work())

    async def _work(self) -> None:
        while (self._is_wanted or self._is_checking) and not self.is_stopping:
            try:
                if self._is_checking or self._is_in_doubt:
                    self._is_checking = False
                    await self._check()
                if self._is_wanted:
                    self._is_wanted = False
                    await self._end_overdue()
                    await self._claim()
            except errors.LeaseLost:
                return  # the committer meets the same, and this worker joins again
            except errors.StoreError as error:
                self._trouble.add("could not look for activities, will try again: %s", error)
                asyncio.get_running_loop().call_later(_AGAIN_SECONDS, self.look)
                return
            self._trouble.over("activities can be looked for again")

    # -- claims ------------------------------------------------------------------------------

    async def _claim(self) -> None:
        core = self._core
        names, most = self._takes()
        wanted = self._wanted(most)
        worker, epoch = core.committer.worker, core.committer.epoch
        if not (wanted and names and worker):
            return
        now = core.clock.now()
        try:
            claimed = await core.desk.write(
                lambda store: store.claim(
                    worker, epoch, now=now, wanted=wanted, activities=names, most=most
                )
            )
        except errors.Unavailable:
            self._is_in_doubt = True
            raise
        if worker != core.committer.worker or epoch != core.committer.epoch:
            return  # the lease was lost meanwhile, and what was claimed with it
        self._after.update(claimed.after)
        for carried in claimed.carried:
            self._begin(carried)
        if claimed.again_at:
            self._look_at(claimed.again_at)
        self._passed_by = 0 if claimed.carried else self._passed_by + 1
        if claimed.is_short or len(claimed.carried) == most:
            if not claimed.carried:
                await asyncio.sleep(_PASSED_BY_SECONDS)  # others are at it
            self._is_wanted = self._passed_by < _PASSED_BY

    def _wanted(self, most: int) -> list[Wanted]:
        """Return what there is room for, by queue; queues take turns in coming first."""
        if not most:
            return []
        used = Counter(carried.queue for carried in self._carried.values())
        found: list[Wanted] = []
        for queue, slots in self._slots.items():
            free = min(most, slots - used[queue]) if slots else most
            if free > 0:
                found.append(Wanted(queue, free, self._after.get(queue)))
        if len(self._slots) > 1:
            first = next(iter(self._slots))
            self._slots[first] = self._slots.pop(first)
        return found

    def _takes(self) -> tuple[list[str], int]:
        """Return the names of the activities that could begin now, and how many of each."""
        registry, runner = self._core.registry, self._core.runner
        most = runner.room
        names: list[str] = []
        for name in registry.activities:
            known = registry.activity(name)
            assert known is not None
            room = most
            if known.isolation == "process":
                room = runner.apart.room
            elif not known.is_async:
                room = runner.threads.room
            if room:
                names.append(name)
                most = min(most, room)
        return names, most

    def _begin(self, carried: Carried) -> None:
        core, place = self._core, (carried.run, carried.activity)
        try:
            call = offers.decode(carried.call)
        except errors.Corrupt as error:
            info = failures.FailureInfo(
                error.message, errors.Kind.INTERNAL, "Corrupt", retryable=False
            )
            fact = ev.ActivityFailed(
                activity=carried.activity, failure=info, attempt=carried.attempt
            )
            self._tell(_outcome(carried, fact))
            return
        run = _stand_in(carried, call)
        known = core.registry.activity(call.event.name)
        work = Work(run, carried.activity, call.event, known, call.scheduled_at)
        work.attempt = carried.attempt
        work.left_details = carried.details
        work.key_source = call.key
        work.logs = core.logs
        work.tell = self._has_ended
        run.work[carried.activity] = work
        self._works[place] = work
        self._carried[place] = carried
        passed = call.passed(carried.attempt, core.clock.now())
        if passed is not None:
            self._has_ended(work, _late(carried.activity, carried.attempt, call, passed))
        else:
            core.runner.begin(work)

    # -- what comes of them ------------------------------------------------------------------

    def _has_ended(self, work: Work, fact: ev.Event) -> None:
        """An attempt has come to an end: the run is told with the next batch."""
        place = work.run.key, work.number
        if self._works.get(place) is not work:
            return
        carried = self._carried[place]
        self._forget(place)
        outcome = _outcome(carried, fact)
        if isinstance(fact, ev.AttemptFailed):
            outcome.then, outcome.not_before = Then.AGAIN, fact.retry_at
            outcome.due = offers.decode(carried.call).due(carried.attempt + 1)
            outcome.details = fact.heartbeat
        elif isinstance(fact, ev.AttemptLost):
            outcome.then, outcome.details = Then.LOST, fact.heartbeat
        self._tell(outcome, work)

    def _forget(self, place: tuple[int, int]) -> None:
        work = self._works.pop(place)
        del self._carried[place]
        work.run.work.pop(work.number, None)

    def _tell(self, outcome: Outcome, work: Work | None = None) -> None:
        key = outcome.run, outcome.activity, outcome.attempt
        self._ending.add(key)

        def settled(fate: Fate) -> None:
            if fate is Fate.UNWRITTEN and not self._has_dropped(key):
                self._core.committer.add_outcome(outcome, settled)
                return
            self._ending.discard(key)
            if fate is Fate.REFUSED:
                self._refused(outcome)
            elif fate is Fate.VOID:
                _log.info("what came of activity #%d of run %d came too late", key[1], key[0])
            if work is not None:
                self._core.runner.is_counted(work.run, work.number)
            if outcome.not_before:
                self._look_at(outcome.not_before)
            self.look()

        self._core.committer.add_outcome(outcome, settled)

    def _has_dropped(self, key: OfferKey) -> bool:
        return key not in self._ending

    def _refused(self, outcome: Outcome) -> None:
        """The store cannot take what came of an attempt: the run hears that."""
        fact = ev.decode_fact(outcome.event)
        if isinstance(fact, ev.ActivityFailed):
            return
        info = failures.FailureInfo(
            "the store refused what came of the activity",
            errors.Kind.INVALID,
            "StoreRefused",
            retryable=False,
        )
        failed = ev.ActivityFailed(activity=outcome.activity, failure=info, attempt=outcome.attempt)
        self._tell(
            Outcome(
                outcome.run,
                outcome.execution,
                outcome.activity,
                outcome.attempt,
                ev.encode_turn([failed]),
            )
        )

    async def _end_overdue(self) -> None:
        """End what nobody took in time."""
        now = self._core.clock.now()
        if not self._due or now < self._due:
            return
        rows = await self._core.desk.read(lambda store: store.overdue_offers(now, limit=_OVERDUE))
        if len(rows) < _OVERDUE:
            self._due = 0
        for row in rows:
            if (row.run, row.activity, row.attempt) not in self._ending:
                self._tell(_overdue(row, now))
        if len(rows) == _OVERDUE:
            self._is_wanted = True

    # -- what is taken away ------------------------------------------------------------------

    async def _check(self) -> None:
        """Cancel what this worker no longer has, and hand back what it does not know it has."""
        core = self._core
        worker, epoch = core.committer.worker, core.committer.epoch
        before = {(*place, work.attempt): work for place, work in self._works.items()}
        found = set(await core.desk.read(lambda store: store.carried_by(worker)))
        for key, work in before.items():
            if key not in found and self._works.get(key[:2]) is work:
                self._forget(key[:2])
                core.runner.give_up(work)
        if self._is_in_doubt:
            known = {(*place, work.attempt) for place, work in self._works.items()}
            unknown = sorted(found - known - self._ending)
            if unknown:
                await core.desk.write(lambda store: store.hand_back(worker, epoch, unknown))
            self._is_in_doubt = False

    def drop(self) -> None:
        """Forget everything: the lease is gone, or this worker stops."""
        self._ending.clear()
        for place, work in list(self._works.items()):
            self._forget(place)
            self._core.runner.give_up(work)
        if self._call is not None:
            self._call.cancel()
            self._call = None

    async def stop(self) -> None:
        """Claim nothing more, and hand back what has not begun."""
        self.is_stopping = True
        if self._task is not None:
            await asyncio.wait([self._task])
        core = self._core
        idle = [
            place for place, work in self._works.items() if not work.has_begun and work.task is None
        ]
        keys = [(*place, self._works[place].attempt) for place in idle]
        for place in idle:
            work = self._works[place]
            self._forget(place)
            core.runner.give_up(work)
        if not keys and not self._is_in_doubt:
            return
        worker, epoch = core.committer.worker, core.committer.epoch
        try:
            await core.desk.write(lambda store: store.hand_back(worker, epoch, keys))
        except errors.StoreError as error:
            _log.info("what was not begun is handed back when this worker has left: %s", error)


def _stand_in(carried: Carried, call: offers.Call) -> Run:
    """Return what an attempt needs to know of a run that this worker need not have."""
    run = Run(carried.run)
    run.execution = carried.execution
    run.workflow, run.workflow_id = carried.workflow, carried.workflow_id
    run.run_id, run.namespace, run.queue = carried.run_id, carried.namespace, carried.queue
    run.tenant = carried.lane or None  # or a key, which makes a lane alike
    run.started = ev.RunStarted(
        workflow=carried.workflow,
        version="",
        workflow_id=carried.workflow_id,
        run_id=carried.run_id,
        seed=b"",
        context=call.context,
        terms=msgspec.structs.replace(call.terms, priority=carried.priority),
    )
    return run


def _outcome(carried: Carried, fact: ev.Event) -> Outcome:
    place = (carried.run, carried.execution, carried.activity, carried.attempt)
    return Outcome(*place, ev.encode_turn([fact]))


def _late(
    activity: int, attempt: int, call: offers.Call, passed: tuple[str, int]
) -> ev.ActivityFailed:
    info = timed_out(*passed, call.event.step)
    return ev.ActivityFailed(activity=activity, failure=info, attempt=attempt)


def _overdue(row: OfferRow, now: int) -> Outcome:
    """Return the end of an offer that nobody took in time."""
    try:
        call = offers.decode(row.call)
        fact = _late(row.activity, row.attempt, call, call.passed(row.attempt, now) or ("queue", 0))
    except errors.Corrupt as error:
        info = failures.FailureInfo(error.message, errors.Kind.INTERNAL, "Corrupt", retryable=False)
        fact = ev.ActivityFailed(activity=row.activity, failure=info, attempt=row.attempt)
    place = (row.run, row.execution, row.activity, row.attempt)
    return Outcome(*place, ev.encode_turn([fact]), is_unclaimed=True)
