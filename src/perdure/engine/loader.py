"""Brings runs into memory: reads their history, replays it, finds out what is open.

Requests gather while a read is under way, so that many runs that wake together cost one query. A
loaded run is where the crash left it: its doubts are settled (was the last turn written?), its
inbox is on its inputs, activities that died with a worker are counted as lost, and what is due is
due.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from perdure import errors
from perdure.engine import forks, offers, timeouts
from perdure.engine.replaying import replay
from perdure.engine.rows import cancel_deadline_of, identify, last_parked, started_of
from perdure.engine.runs import Input, Offered, Phase, Run
from perdure.engine.work import Past
from perdure.kernel.instance import Instance, StoredTurn
from perdure.kernel.pending import PendingActivity
from perdure.store.complaints import Complaints
from perdure.store.offers import Offer, Stage
from perdure.store.port import InboxRow, Loaded
from perdure.values import events as ev
from perdure.values.states import ParkReason, Status

if TYPE_CHECKING:
    from perdure.engine.core import Core

_log = logging.getLogger("perdure.engine")
_CHUNK = 200
_SLICE_SECONDS = 0.01
_SUSPICIONS = 2
_OUTCOMES = (ev.ActivityCompleted, ev.ActivityFailed)
_FOUND = (*ev.OF_ATTEMPTS, ev.RunTaken, ev.RunTerminated, ev.RunUnparked, ev.SendResolved)


class Loader:
    """See the module's text."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._wanted: dict[int, Run] = {}
        self._task: asyncio.Task[None] | None = None
        self.loaded = 0
        self._trouble = Complaints(_log, asyncio.get_running_loop().time)

    def request(self, run: Run) -> None:
        """Load ``run``; it takes its turn afterwards."""
        run.phase = Phase.LOADING
        self._wanted[run.key] = run
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._work())

    def forget(self) -> None:
        """Drop all requests."""
        self._wanted.clear()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is being loaded."""
        return self._task is None or self._task.done()

    async def _work(self) -> None:
        alone = 0
        while self._wanted:
            runs = dict(list(self._wanted.items())[: 1 if alone else _CHUNK])
            alone = max(0, alone - 1)
            for key in runs:
                del self._wanted[key]
            keys = list(runs)
            try:
                found = await self._core.desk.read(lambda store, keys=keys: store.load(keys))
            except errors.StoreError as error:
                await self._retry(runs, error)
                continue
            except Exception as exc:  # noqa: BLE001 - whatever is stored there, one run pays
                if len(runs) > 1:
                    self._wanted = {**runs, **self._wanted}
                    alone = len(runs)
                    continue
                [run] = runs.values()
                self._trouble.add("run %d cannot be read: %r", run.key, exc)
                self._core.give_back(run)
                continue
            if any(loaded.is_sealed for loaded in found) and not await self._can_open(runs):
                return
            places = {key: place for place, key in enumerate(keys)}  # they begin in this order
            found.sort(key=lambda loaded, places=places: places[loaded.row.run])
            began = asyncio.get_running_loop().time()
            late = {one.row.run: one.broken for one in found if one.is_unavailable}
            if late:
                why = errors.Unavailable(next(iter(late.values())))
                await self._retry({key: runs.pop(key) for key in late}, why)
            for loaded in found:
                run = None if loaded.row.run in late else runs.pop(loaded.row.run, None)
                if run is not None and run.phase is Phase.LOADING:
                    self._build_safely(run, loaded)
                if asyncio.get_running_loop().time() - began > _SLICE_SECONDS:
                    await asyncio.sleep(0)
                    began = asyncio.get_running_loop().time()
            for run in runs.values():
                _log.error("run %s is not in the store", run.key)
                self._core.give_back(run)

    async def _can_open(self, runs: dict[int, Run]) -> bool:
        """Tell whether this worker has what others seal with; else it takes up nothing more.

        If it has, a row that it cannot open is at fault, and parks its run.
        """
        try:
            await self._core.desk.write(lambda store: store.unlock())
        except errors.Sealed as error:
            self._core.on_sealed(error)
            for run in [*runs.values(), *self._wanted.values()]:
                self._core.give_back(run)
            self._wanted.clear()
            return False
        return True

    async def _retry(self, runs: dict[int, Run], error: errors.StoreError) -> None:
        self._trouble.add("could not load %d runs, will try again: %s", len(runs), error)
        await asyncio.sleep(0.1)
        for key, run in runs.items():
            if run.phase is Phase.LOADING:
                self._wanted[key] = run

    def _build_safely(self, run: Run, loaded: Loaded) -> None:
        """Build a run; an error of ours parks it and touches no other."""
        try:
            self._build(run, loaded)
        except Exception as exc:  # noqa: BLE001 - whatever it is, one run pays
            _log.exception("an internal error while loading %r", run)
            run.phase = Phase.IDLE
            detail = f"internal error while loading: {type(exc).__name__}: {exc}"
            self._core.turns.blind.park(run, [], ParkReason.CORRUPT_HISTORY, detail)

    def _build(self, run: Run, loaded: Loaded) -> None:
        self.loaded += 1
        core, row = self._core, loaded.row
        identify(run, row)
        run.is_owned = row.owner == core.committer.worker
        run.has_lost = row.lost_by is not None and not run.is_owned
        run.phase = Phase.IDLE
        self._settle_doubt(run, loaded)
        if not run.is_owned:
            # Somebody else may have had it meanwhile: what its history leaves open is found anew.
            run.inputs = [
                item
                for item in run.inputs
                if item.inbox or item.done or not isinstance(item.fact, _FOUND)
            ]
        if row.status.is_terminal:
            core.closed_elsewhere(run)
            return
        if row.owner is not None and not run.is_owned:
            core.give_back(run)
            return
        run.definition = core.registry.definition(row.workflow, row.version)
        run.offered = {one.activity: Offered(one.queue, one.created_at) for one in loaded.offers}
        last = loaded.turns[-1] if loaded.turns else None
        is_whole = last is not None and not loaded.broken
        run.length = last.first + last.count - 1 if last and is_whole else row.length
        run.time = last.time if last is not None else 0
        core.listeners.loaded(run, loaded.turns)
        fault = self._take_inbox(run, loaded.inbox)
        if run.status.is_stopped and self._stays_stopped(run, loaded):
            if run.is_out_of_time(core.clock.now()):
                self._find_unread(run, loaded)
            core.turns.wake(run)
            return
        if row.suspected >= _SUSPICIONS:
            detail = f"{row.suspected} workers ended while a turn of this run held them"
            core.turns.blind.park(run, [], ParkReason.SUSPECT, detail)
        elif fault := loaded.broken or fault:
            run.started = forks.became_by(started_of(loaded), loaded.turns)
            core.cannot_replay(run, ParkReason.CORRUPT_HISTORY, fault)
        elif run.definition is None:
            core.give_back(run)  # to a worker that knows it; else it will be parked
        else:
            self._replay(run, loaded)

    def _stays_stopped(self, run: Run, loaded: Loaded) -> bool:
        """Tell whether a stopped run is still not to run its code."""
        core, row = self._core, loaded.row
        run.stop = row.reason or "", row.detail or "", row.unblock or ""
        run.started = forks.became_by(started_of(loaded), loaded.turns)
        if run.started is not None:
            run.started.version = row.version  # it may have been moved since
        run.cancel_deadline = cancel_deadline_of(loaded) if row.wake_at is not None else 0
        now = core.clock.now()
        run.timer_due = row.wake_at is not None and row.wake_at <= now
        if run.status is Status.PENDING:
            return run.in_queue or run.started is None or run.started.not_before > now
        if run.in_queue:
            return True
        if run.status is Status.PAUSED and run.is_kept_from_beginning(now):
            return True
        return run.is_out_of_time(now) or not core.wants_unparked(run, row, last_parked(loaded))

    def _find_unread(self, run: Run, loaded: Loaded) -> None:
        """Replay a stopped run that ends now and is followed by another: unread messages go along.

        If its code does not fit, what it had received before it stopped is not known, and stays.
        """
        core, started = self._core, run.started
        if started is None or not (started.terms.retry or started.terms.cron):
            return
        is_unbegun = run.status is Status.PENDING or run.in_queue or started.resume_by is not None
        if run.definition is None or loaded.broken or is_unbegun:
            return
        found = replay(run.definition, loaded, core.guard, max_payload=core.max_payload)
        if found.misfit is None:
            run.instance, run.blind = found.instance, found.blind

    def _settle_doubt(self, run: Run, loaded: Loaded) -> None:
        """Find the turn whose acknowledgement was lost in the history, or give its inputs back."""
        if run.doubt is None:
            return
        (write, taken), run.doubt = run.doubt, None
        was_written = any(
            turn.first == write.first and turn.payload == write.payload for turn in loaded.turns
        )
        for item in taken:
            run.seen.discard(item.inbox)
            if was_written:
                self._core.note_consumed(item.inbox)
                if item.done is not None:
                    item.done(None)
        if not was_written:
            run.inputs = [item for item in taken if not item.inbox] + run.inputs

    def _take_inbox(self, run: Run, rows: list[InboxRow]) -> str:
        """Make inputs of inbox rows; say what is wrong with one that cannot be read, or ``""``."""
        unreadable = ""
        for row in rows:
            self._core.left_in_inbox.discard(row.id)
            if row.id in run.seen:
                continue
            try:
                if row.fault:
                    raise errors.Corrupt(row.fault)
                fact = ev.decode_fact(row.event)
            except errors.StoreError as error:
                self._core.left_in_inbox.add(row.id)
                unreadable = f"row {row.id} of the inbox (perdure_inbox): {error.message}"
                continue
            run.seen.add(row.id)
            run.inputs.append(Input(fact, row.id))
        committed = {
            item.fact.activity
            for item in run.inputs
            if item.inbox and isinstance(item.fact, ev.ActivityCompleted)
        }
        # Its transaction was first: what this worker had to say about such an attempt is void (I4).
        run.inputs = [
            item
            for item in run.inputs
            if item.transaction is None or item.transaction[0] not in committed
        ]
        return unreadable

    def _replay(self, run: Run, loaded: Loaded) -> None:
        core = self._core
        assert run.definition is not None
        found = replay(run.definition, loaded, core.guard, max_payload=core.max_payload)
        if found.misfit is not None:
            core.cannot_replay(run, found.misfit.reason, found.misfit.detail)
            return
        instance, turns, blind = found.instance, found.turns, found.blind
        run.instance = instance
        run.blind = blind
        if loaded.row.status not in (Status.PARKED, Status.PAUSED):
            run.untold = forks.beginning(turns)
        run.started = forks.became(
            instance.started
            or next((fact for fact in blind if isinstance(fact, ev.RunStarted)), None),
            [*blind, ev.RunResumed()],  # its code is to run: whoever let it begin has done so
        )
        core.answers.settle(run, instance)
        if instance.cancel is not None or blind:
            run.cancel_deadline = forks.last_cancel(blind, instance.cancel)
        if instance.started is None and run.started is not None:
            # It may have been found due by a clock that is ahead of this one.
            run.time = max(run.time, run.started.not_before)
        self._find_open(run, instance, loaded, turns)
        if run.status in (Status.PARKED, Status.PAUSED) and not any(
            isinstance(item.fact, (ev.RunUnparked, ev.RunResumed)) for item in run.inputs
        ):
            is_parked = run.status is Status.PARKED
            by = core.worker_name
            fact = ev.RunUnparked(by=by) if is_parked else ev.RunResumed(by="cancel")
            run.inputs.insert(0, Input(fact))
        if run.status.is_stopped:
            run.status = Status.RUNNING
        due = run.next_due()
        run.timer_due = due is not None and due <= core.clock.now()
        core.turns.wake(run)

    def _find_open(
        self, run: Run, instance: Instance, loaded: Loaded, turns: list[StoredTurn]
    ) -> None:
        core = self._core
        assert run.definition is not None
        has_lost, run.has_lost = run.has_lost, False
        taken = ev.RunTaken(worker=core.worker_name, code=run.definition.code)
        if instance.started is None or forks.is_copy(run.blind):
            timeouts.limit_first_turn(run, loaded.row, taken)
        if instance.started is None:
            run.inputs.insert(0, Input(taken))
            return
        _resolve_sends(run, instance)
        for number in [number for number in run.work if number not in instance.activities]:
            core.runner.cancel(run, number)
        # What came while the cancel of its activity was in doubt comes too late (I4).
        run.inputs = [
            item
            for item in run.inputs
            if item.inbox
            or not isinstance(item.fact, ev.OF_ATTEMPTS)
            or item.fact.activity in instance.activities
        ]
        facts = [item.fact for item in run.inputs]
        told = _told_lost(loaded, facts)
        for number in told:
            run.offered.pop(number, None)
        coming = {fact.activity for fact in facts if isinstance(fact, ev.OF_ATTEMPTS)}
        coming |= {fact.activity for fact in run.blind if isinstance(fact, _OUTCOMES)}
        missing = {
            number: pending
            for number, pending in instance.activities.items()
            if number not in coming
            and number not in run.offered
            and (number not in run.work or run.work[number].is_idle)
        }
        if not missing:
            is_adrift = run.offered and loaded.row.status is Status.RUNNING and not run.inputs
            if forks.is_copy(run.blind) or is_adrift:
                forks.taken_up(run, taken, is_copy=forks.is_copy(run.blind))
            return
        pasts = _pasts(loaded, turns, set(missing))
        renewed = self._renew(run, missing, pasts, told)
        lost_until = (loaded.row.lost_until or core.clock.now()) if has_lost else 0
        facts: list[ev.Event] = []
        parked: ev.RunParked | None = None
        for number, pending in missing.items():
            past = pasts[number]
            lost = core.runner.recover(run, number, pending, past, lost_until=lost_until)
            if lost is None:
                continue
            facts.append(lost)
            work = run.work[number]
            outcome = core.runner.lost_outcome(work, work.attempt, past.lost_in_a_row + 1)
            if isinstance(outcome, ev.RunParked):
                parked = outcome
            elif outcome is not None:
                facts.append(outcome)
        if parked is not None:
            # In one row: the next owner could not tell any more that these attempts were lost.
            inputs = [_decided(run, fact) for fact in facts]
            for number in missing:
                run.work.pop(number, None)  # nothing begins before somebody unparks it
            core.turns.blind.park(run, [], ParkReason.WORKER_LOST, parked.detail, first=inputs)
            return
        run.inputs[:0] = [_decided(run, fact) for fact in facts]
        forks.taken_up(run, taken, is_copy=forks.is_copy(run.blind), offers=renewed)
        for fact in facts:
            if isinstance(fact, ev.ActivityFailed):
                del run.work[fact.activity]

    def _renew(
        self,
        run: Run,
        missing: dict[int, PendingActivity],
        pasts: dict[int, Past],
        told: dict[int, str],
    ) -> list[Offer]:
        """Take out of ``missing`` what is for other task queues, and put it on offer again."""
        renewed: list[Offer] = []
        for number, pending in list(missing.items()):
            queue = told.get(number) or offers.queue_of(self._core, run, pending)
            if not queue:
                continue
            del missing[number]
            found = offers.renewed(self._core, run, number, pending, pasts[number], queue)
            if isinstance(found, Offer):
                renewed.append(found)
            else:
                run.inputs.append(found)
        return renewed


def _resolve_sends(run: Run, instance: Instance) -> None:
    """Answer the sends that were committed by a worker that did not live to say so."""
    # What came while the run was stopped is recorded, and applied by its next turn.
    known = [*run.blind, *(item.fact for item in run.inputs)]
    answers = [fact for fact in known if isinstance(fact, ev.SendResolved)]
    resolved = {fact.send for fact in answers if fact.asked_by == run.run_id}
    for number in instance.sends:
        if number not in resolved:
            run.inputs.append(Input(ev.SendResolved(send=number, asked_by=run.run_id)))


def _told_lost(loaded: Loaded, facts: list[ev.Event]) -> dict[int, str]:
    """Return the queues of activities whose lost attempt was recorded while the run was stopped."""
    coming = {fact.activity for fact in facts if isinstance(fact, ev.AttemptLost)}
    lost = (row for row in loaded.offers if row.stage is Stage.LOST)
    return {row.activity: row.queue for row in lost if row.activity not in coming}


def _decided(run: Run, fact: ev.Event) -> Input:
    """Return the input of a lost attempt or of the failure that follows from it."""
    assert isinstance(fact, (ev.AttemptLost, ev.ActivityFailed))
    work = run.work[fact.activity]
    name = work.event.name
    if not work.event.transactional:
        return Input(fact, name=name)
    if isinstance(fact, ev.ActivityFailed):
        return Input(fact, name=name)  # the lost attempt before it takes the deciding row away
    is_last = not work.policy.allows_after_loss(fact.attempt)
    transaction = (fact.activity, 0 if is_last else fact.attempt + 1)
    return Input(fact, transaction=transaction, name=name)


def _pasts(loaded: Loaded, turns: list[StoredTurn], wanted: set[int]) -> dict[int, Past]:
    """Read from the history what happened to activities that are still open."""
    beats = {beat.activity: beat.details for beat in loaded.beats}
    pasts: dict[int, Past] = {}
    for stored, turn in zip(loaded.turns, turns, strict=True):
        for number, event in enumerate(turn.events, stored.first):
            if isinstance(event, ev.ActivityScheduled):
                if number in wanted:
                    pasts[number] = Past(turn.time, stored.worker)
                    pasts[number].details = beats.get(number)
            elif isinstance(event, (ev.AttemptFailed, ev.AttemptLost)) and event.activity in pasts:
                past = pasts[event.activity]
                past.attempts = event.attempt
                past.worker = stored.worker
                past.details = beats.get(event.activity) or event.heartbeat
                if isinstance(event, ev.AttemptFailed):
                    past.retry_at, past.lost_in_a_row = event.retry_at, 0
                else:
                    past.retry_at = 0
                    past.lost_in_a_row += 0 if event.by_stop else 1
            elif isinstance(event, ev.Forked) and event.run_id:
                # A copy begins what was open anew: attempts and timeouts were the other run's.
                for past in pasts.values():
                    past.attempts = past.retry_at = past.lost_in_a_row = 0
                    past.scheduled_at = turn.time
    return pasts
