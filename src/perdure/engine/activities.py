"""Runs attempts of activities: retries, timeouts, heartbeats, cancellation.

An attempt begins only after the commit that scheduled it (I3). Its outcome is an input of the run;
a failure that will be retried is an input too, so that attempts are counted in the history and
survive restarts, and the pause before the next begins when the failure is committed. Whatever
comes for an attempt that is no longer the run's (cancelled, timed out, lost) is dropped: the first
committed outcome has won (I4).
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from perdure import activity, errors
from perdure.engine import budgets, forks, overdue
from perdure.engine.apart import Apart
from perdure.engine.lanes import Lanes
from perdure.engine.runs import Input, Phase, Run
from perdure.engine.threads import Raised, ThreadPool
from perdure.engine.work import (
    FailedElsewhere,
    Past,
    TimedOut,
    Work,
    current_task,
    enter,
    limited,
    lost_outcome,
    misplaced,
    missing,
    resolved,
    timed,
    timed_out,
)
from perdure.kernel.pending import PendingActivity
from perdure.store.port import Beat
from perdure.values import events as ev
from perdure.values import failures, payload

if TYPE_CHECKING:
    from perdure.engine.core import Core

_log = logging.getLogger("perdure.engine")
_SECOND = 1_000_000
_CLEAN_UP_SECONDS = 1.0
_RECORD_SECONDS = 5.0
_NAMED = 10


class Runner:
    """See the module's text."""

    def __init__(self, core: Core, *, slots: int, thread_slots: int) -> None:
        self._core = core
        self._slots = slots
        self._running = 0
        self._waiting: Lanes[Work] = Lanes()
        self.threads = ThreadPool(thread_slots)
        self.apart = Apart(core, self._begin_apart)
        self._waiting_apart: Lanes[Work] = Lanes()
        self.is_stopping = False
        self._is_cutting = False
        self._uncounted: set[tuple[int, int]] = set()
        self._counted = asyncio.Event()
        self._tasks: dict[asyncio.Task[None], Work] = {}

    def dispatch(self, run: Run, number: int, pending: PendingActivity, attempt: int = 1) -> None:
        """Begin an attempt of a scheduled activity."""
        work = self._work(run, number, pending, run.time)
        work.attempt = attempt
        run.work[number] = work
        self.begin(work)

    def recover(
        self, run: Run, number: int, pending: PendingActivity, past: Past, *, lost_until: int
    ) -> ev.Event | None:
        """Take up an activity from before this worker had the run; return what must be recorded
        first, or ``None`` if the next attempt may begin once the run is owned.

        ``lost_until``: how long the worker before may have lived; 0 if it handed the run back.
        """
        work = self._work(run, number, pending, past.scheduled_at)
        work.attempt = past.attempts + 1
        work.left_details = past.details
        work.not_before = past.retry_at
        run.work[number] = work
        if past.retry_at >= min(lost_until, self._core.clock.now()):
            return None  # handed back, or the attempt had not begun
        return ev.AttemptLost(
            activity=number, attempt=work.attempt, worker=str(past.worker), heartbeat=past.details
        )

    def _work(self, run: Run, number: int, pending: PendingActivity, scheduled_at: int) -> Work:
        definition, event = pending.definition, pending.event
        if definition is None:
            definition = self._core.registry.activity(event.name)
            event = resolved(pending, definition)
        work = Work(run, number, limited(event, run.started), definition, scheduled_at)
        work.key_source = forks.key_source(run, number)
        work.logs = self._core.logs
        return work

    def recorded(self, run: Run, fact: ev.Event) -> None:
        """Go on after a fact about attempts was committed."""
        if isinstance(fact, ev.RunTaken):
            # An attempt may have ended while this was being written: that is recorded next.
            facts = (item.fact for item in run.inputs)
            ended = {fact.activity for fact in facts if isinstance(fact, ev.OF_ATTEMPTS)}
            for work in list(run.work.values()):
                if work.is_idle and work.number not in ended:
                    self._begin_at(work, work.not_before)
            return
        assert isinstance(fact, (ev.AttemptFailed, ev.AttemptLost))
        self.is_counted(run, fact.activity)
        work = run.work.get(fact.activity)
        if work is not None:
            work.attempt = fact.attempt + 1
            self._begin_at(work, fact.retry_at if isinstance(fact, ev.AttemptFailed) else 0)

    def lost_outcome(self, work: Work, attempt: int, in_a_row: int) -> ev.Event | None:
        """Return the outcome if a lost attempt was the last one the policy allows."""
        return lost_outcome(work.number, work.event.name, work.policy, attempt, in_a_row)

    def cancel(self, run: Run, number: int) -> None:
        """Stop an activity whose outcome no longer matters."""
        work = run.work.pop(number, None)
        if work is not None:
            self._stop(work)
        self.is_counted(run, number)

    def give_up(self, work: Work) -> None:
        """Stop an attempt for another worker's run that is not this worker's any more."""
        self._stop(work)
        self.is_counted(work.run, work.number)

    def cancel_all(self, run: Run) -> None:
        """Stop everything of a run."""
        works, run.work = run.work, {}
        for work in works.values():
            self._stop(work)
            if run.status.is_terminal:
                self.is_counted(run, work.number)

    def beats(self) -> list[Beat]:
        """Return heartbeat details of attempts under way (written with the lease)."""
        return [
            Beat(work.run.key, work.number, work.details)
            for work in self._works()
            if work.details is not None
        ]

    def _works(self) -> Iterator[Work]:
        """Yield what this worker carries out, for its own runs and for others'."""
        for run in self._core.runs.values():
            yield from run.work.values()
        yield from self._core.carrier.works

    @property
    def under_way(self) -> int:
        """How many attempts run whose outcome counts."""
        return sum(self._is_current(work) for work in self._tasks.values())

    @property
    def lines(self) -> tuple[Lanes[Any], ...]:
        """What waits here for a slot, a subprocess or a thread."""
        return self._waiting, self._waiting_apart, self.threads.waiting

    async def stop(self, grace: float | None, *, counts: bool = True) -> bool:
        """Begin nothing new; give what runs ``grace`` seconds, then cut it off and count it.

        False: an attempt was cut off and could not be recorded, or (``counts``) is not to be.
        """
        self.is_stopping = True
        if self._tasks and grace != 0:
            await asyncio.wait(self._tasks, timeout=grace)
        self._is_cutting = True
        for task, work in list(self._tasks.items()):
            self._cancel(task, work)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_CLEAN_UP_SECONDS)
        await self.apart.close()
        self.threads.close()
        return counts and await self._record_cuts()

    async def _record_cuts(self) -> bool:
        """Record the attempts that were under way as lost: what they did may stand (I13)."""
        cut = [work for work in self._works() if work.has_begun and work.is_cut_off]
        if not cut:
            return True
        names = ", ".join(repr(work) for work in cut[:_NAMED])
        more = f" and {len(cut) - _NAMED} more" if len(cut) > _NAMED else ""
        _log.warning("the stop cut off what was still running; it counts: %s%s", names, more)
        self._uncounted = {(work.run.key, work.number) for work in cut}
        self._counted.clear()
        for work in cut:
            self._cut(work)
        try:
            async with asyncio.timeout(_RECORD_SECONDS):
                await self._counted.wait()
        except TimeoutError:
            _log.error("%d of them could not be recorded", len(self._uncounted))
            return False
        return True

    def _cut(self, work: Work) -> None:
        run = work.run
        work.is_cut = True
        fact = ev.AttemptLost(
            activity=work.number,
            attempt=work.attempt,
            worker=self._core.worker_name,
            heartbeat=work.details or work.left_details,
            by_stop=True,
        )
        if work.tell is not None:
            work.tell(work, fact)
            return
        outcome = self.lost_outcome(work, work.attempt, 0)
        transaction = None
        if work.event.transactional:
            transaction = (work.number, 0 if outcome is not None else work.attempt + 1)
        name = work.event.name
        self._core.turns.put(run, Input(fact, transaction=transaction, name=name))
        if outcome is not None:
            del run.work[work.number]
            self._core.turns.put(run, Input(outcome))

    @property
    def room(self) -> int:
        """How many more attempts could begin now."""
        return max(0, self._slots - self._running - len(self._waiting) - len(self._waiting_apart))

    def is_counted(self, run: Run, number: int) -> None:
        """What was cut off is in the store now."""
        self._uncounted.discard((run.key, number))
        if not self._uncounted:
            self._counted.set()

    # -- attempts ----------------------------------------------------------------------------

    def _begin_at(self, work: Work, due: int) -> None:
        core = self._core
        delay = due - core.clock.now()
        if delay <= 0 and core.clock.now() >= core.lease_until:
            # Whoever took the run over meanwhile may begin it: extend the lease first, or lose it.
            delay = _SECOND // 10
        if delay <= 0:
            self.begin(work)
        else:
            loop = asyncio.get_running_loop()
            work.retry_call = loop.call_later(delay / _SECOND, self._begin_at, work, due)

    def begin(self, work: Work) -> None:
        """Begin an attempt, of this worker's run or of another's."""
        work.retry_call = work.queue = None
        if self.is_stopping or work.run.work.get(work.number) is not work:
            return
        is_apart = self.apart.takes(work)
        is_stuck = (
            not is_apart
            and self.threads.is_exhausted
            and work.definition is not None
            and not work.definition.is_async
        )
        if self._running >= self._slots or is_stuck:
            self._queue(work, self._waiting)
            return
        if is_apart and not self.apart.has_room:
            self._queue(work, self._waiting_apart)
            return
        self._running += 1
        work.has_begun = work.is_entered = False
        if is_apart:
            work.job = self.apart.begin(work)
        if work.patience:
            work.late_call = overdue.expect(self._core, work)
        task = asyncio.get_running_loop().create_task(self._attempt(work))
        work.task = task
        self._tasks[task] = work

    def _cancel(self, task: asyncio.Task[None], work: Work) -> None:
        task.cancel()
        # A coroutine that was cancelled before its first step never runs.
        if task in self._tasks and not work.is_entered:
            if work.job is not None:
                work.job.future.cancel()
            self._left(task)

    def _left(self, task: asyncio.Task[None]) -> None:
        work = self._tasks.pop(task)
        self._running -= 1
        if work.late_call is not None:
            work.late_call.cancel()
        if work.run.work.get(work.number) is not work:
            # A cycle less for the garbage collector, each step.
            work.task = work.call = work.job = None
        # Each at most once: what needs a thread while none is left goes back into the queue.
        for _ in range(len(self._waiting)):
            if self._running >= self._slots:
                break
            self.begin(self._waiting.popleft())
        if self._core.intake.passes_over:
            self._core.intake.look_if_room()

    def _begin_apart(self) -> None:
        while self._waiting_apart and self.apart.has_room:
            self.begin(self._waiting_apart.popleft())

    def _queue(self, work: Work, queue: Lanes[Work]) -> None:
        work.wait_in(queue)
        limit = work.event.queue_timeout
        if limit is not None:
            left = work.scheduled_at + limit - self._core.clock.now()
            loop = asyncio.get_running_loop()
            loop.call_later(max(0, left) / _SECOND, self._queue_timed_out, work, work.attempt)

    def _queue_timed_out(self, work: Work, attempt: int) -> None:
        if work.queue is not None and work.attempt == attempt and self._is_current(work):
            work.leave_queue()
            self._fail(
                work, timed_out("queue", work.event.queue_timeout or 0, work.event.step), final=True
            )

    async def _attempt(self, work: Work) -> None:
        # One coroutine, and `finally` in place of a done callback: each costs its part of a step.
        task, work.is_entered = work.task, True
        assert task is not None
        try:
            event, definition = work.event, work.definition
            if definition is None:
                self._fail(work, missing(event.name), final=True)
                return
            if budgets.has_any(work):
                await budgets.begin(self._core, work)
            if event.transactional:
                if event.queue and event.queue != work.run.queue:
                    self._fail(work, misplaced(event, work.run.queue), final=True)
                    return
                await self._run_transaction(work, definition)
                return
            if work.job is not None:
                job, clock = work.job, self._core.clock
                self._complete(work, await timed(work, job.future, clock, entered=job.entered))
                return
            args = definition.arguments.decode(event.args)
            activity.running.set(self._attempt_context(work))
            if definition.is_async and not work.is_timed:
                result = await enter(work, definition.fn, args)
            else:
                result = await self._run_timed(work, definition, args)
            data = payload.encode(result, what=definition.result_name)
            if len(data) > self._core.max_payload:
                payload.limit(data, self._core.max_payload, what=definition.result_name)
            self._complete(work, data)
        except asyncio.CancelledError:
            if not self._is_current(work) or self._is_cutting:
                raise
            info = failures.FailureInfo(
                "the activity cancelled itself", "Canceled", "CancelledError"
            )
            self._fail(work, info)
        except TimedOut as late:
            self._fail(work, late.info, final=late.is_final or work.gives_up_late)
        except Raised as raised:
            self._fail(work, failures.from_exception(raised.error))
        except FailedElsewhere as exc:
            self._fail(work, exc.failure)
        except Exception as exc:  # noqa: BLE001 - user code may raise anything, and so may ours
            self._fail(work, failures.from_exception(exc))
        finally:
            if current_task() is task:  # else the loop is gone, and closes what it left
                self._left(task)

    async def _run_timed(
        self, work: Work, definition: activity.Activity[Any, Any], args: Sequence[Any]
    ) -> Any:
        """Run an attempt in a task or a thread of its own, which can be given up."""
        if definition.is_async:
            call = asyncio.get_running_loop().create_task(enter(work, definition.fn, args))
            work.call = call
            return await timed(work, call, self._core.clock)
        future = self._in_thread(work, definition.fn, *args)
        try:
            return await timed(work, future, self._core.clock)
        finally:
            if not future.done() or future.cancelled():
                self.threads.abandon(future)

    def _in_thread(self, work: Work, fn: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        lane, priority = work.run.lane, work.run.priority
        return self.threads.submit(fn, *args, on_begin=work.begin, lane=lane, priority=priority)

    async def _run_transaction(self, work: Work, definition: activity.Activity[Any, Any]) -> None:
        """Run a transactional activity: its outcome comes through the inbox, with its writes."""
        event = work.event
        args = definition.arguments.decode(event.args)
        context = self._attempt_context(work)
        worker = self._core.worker_name

        def call(connection: Any) -> Any:
            context.connection = connection
            token = activity.running.set(context)
            try:
                return definition.fn(*args)
            finally:
                activity.running.reset(token)

        def outcome(result: Any) -> bytes:
            data = payload.encode(result, what=f"result of {event.name}")
            fact = ev.ActivityCompleted(
                activity=work.number, result=data, attempt=work.attempt, worker=worker
            )
            return ev.encode_turn([fact])

        run = work.run
        limit = (event.timeout or self._core.transaction_limit) / _SECOND
        try:
            job = functools.partial(
                self._core.desk.transact,
                run.key,
                work.number,
                work.attempt,
                call,
                outcome=outcome,
                time_limit=limit,
                now=self._core.clock.now(),
            )
            _, posted = await self._in_thread(work, job)
        except errors.Superseded:
            _log.info("a transaction of %s was decided elsewhere", event.name)
            return
        run.work.pop(work.number, None)
        self._core.feed(posted, ev.decode_turn(posted.event)[0])

    def _attempt_context(self, work: Work) -> activity.Attempt:
        return work.context(self._core.services, self._core.subjects)

    # -- outcomes ----------------------------------------------------------------------------

    def _is_current(self, work: Work) -> bool:
        run = work.run
        return run.work.get(work.number) is work and run.phase is not Phase.GONE and not work.is_cut

    def _complete(self, work: Work, data: bytes) -> None:
        if not self._is_current(work):
            return
        del work.run.work[work.number]
        fact = ev.ActivityCompleted(
            activity=work.number, result=data, attempt=work.attempt, worker=self._core.worker_name
        )
        if work.tell is not None:
            work.tell(work, fact)
        else:
            self._core.turns.put(work.run, Input(fact))

    def _fail(self, work: Work, info: failures.FailureInfo, *, final: bool = False) -> None:
        if not self._is_current(work):
            return
        run, event, policy, by = work.run, work.event, work.policy, self._core.worker_name
        retry_at = self._core.clock.now() + policy.delay_after(work.attempt)
        runs_out = (
            event.schedule_timeout is not None
            and retry_at >= work.scheduled_at + event.schedule_timeout
        )
        work.task = None
        work.left_details, work.details = work.details or work.left_details, None
        fact: ev.Event
        if final or runs_out or not policy.allows(info, work.attempt):
            del run.work[work.number]
            fact = ev.ActivityFailed(
                activity=work.number, failure=info, attempt=work.attempt, worker=by
            )
        else:
            fact = ev.AttemptFailed(
                activity=work.number,
                attempt=work.attempt,
                failure=info,
                retry_at=retry_at,
                worker=by,
                heartbeat=work.left_details,
            )
        if work.tell is not None:
            work.tell(work, fact)
            return
        following = work.attempt + 1 if isinstance(fact, ev.AttemptFailed) else 0
        transaction = (work.number, following) if event.transactional else None
        self._core.turns.put(run, Input(fact, transaction=transaction, name=event.name))

    def _stop(self, work: Work) -> None:
        if work.retry_call is not None:
            work.retry_call.cancel()
        if work.task is not None:
            self._cancel(work.task, work)
        work.leave_queue()
