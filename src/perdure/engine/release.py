"""After the commit: what a batch made durable is released, and what it did not is put right.

The committer's outcomes (``committer.Outcomes``). Nothing here runs before the store has
acknowledged, or has been asked what became of a batch (I3, I12).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from perdure import errors, logs
from perdure.engine import alerts, telling, writes
from perdure.engine.runs import Input, Phase, Run
from perdure.engine.turns import describe
from perdure.kernel.instance import Instance, Turn
from perdure.store.port import Batch, Committed, LogLine, Started, StartRequest, TurnWrite
from perdure.values import events as ev
from perdure.values.states import ParkReason, Status

if TYPE_CHECKING:
    import asyncio

    from perdure.engine.core import Core

_log = logging.getLogger("perdure.engine")
_user_log = logging.getLogger("perdure.workflow")
_RUNNERS = frozenset({ev.AttemptFailed, ev.AttemptLost, ev.RunTaken})
_FAILURES = frozenset({ev.AttemptFailed, ev.AttemptLost, ev.ActivityFailed})
_NOTABLE = _RUNNERS | _FAILURES | {ev.RunOverdue}
_UNTOLD = frozenset({Status.COMPLETED, Status.CONTINUED_AS_NEW})


class Release:
    """See the module's text."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def committed(self, batch: Batch, result: Committed) -> None:
        """Release what the batch made durable."""
        core = self._core
        fed = [(posted, ev.decode_turn(posted.event)[0]) for posted in result.fed]
        core.note_refusals(fed)
        for request, started in zip(batch.starts, result.started, strict=True):
            self._start_committed(request, started)
        for write in batch.turns:
            entry = core.turns.take_under_way(write)
            if entry is None:
                continue
            run, taken, turn = entry
            if run.key in result.lost:
                self._lost(run, taken)
            elif run.key in result.reopened:
                self._reopened(run, taken, closes=write.closes)
            else:
                self._release_safely(run, write, taken, turn)
        for posted in result.told:
            if posted.run in core.runs:
                fed.append((posted, ev.decode_turn(posted.event)[0]))
            elif core.registry.names:
                core.intake.look()
        core.watch.committed()
        if result.has_mail:
            core.watch.look()
        if result.has_admitted:
            core.intake.look()
        if result.next_at is not None:
            core.intake.admit_at(result.next_at)
        core.intake.go_on()
        if result.is_recalled:
            core.look_at_owned()
        for started in (*result.started, *result.children):
            if started.replaced:
                core.taken_away(started.replaced)
        for started in result.children:
            if started.created and started.status is not Status.PENDING:
                core.take_up(started.run)
            elif started.created:
                core.intake.look()
        # Behind the attempts that begin now: those that end at once are in it.
        core.turns.expect()
        if core.intake.is_behind:
            core.intake.catch_up()
            return
        for posted, fact in fed:
            core.feed(posted, fact)

    def _start_committed(self, request: StartRequest, started: Started) -> None:
        core = self._core
        entry = core.turns.take_under_way(request)
        answer = core.start_waiters.pop(request.run_id, None)
        if entry is not None:
            run, _, turn = entry
            if started.created and not started.is_queued:
                run.key, run.execution = started.run, started.execution
                if run.key in core.runs:
                    # A look was faster than the acknowledgement: the run is being loaded already.
                    if request.first is not None:
                        self._tell_first(run, request.first)
                    run.phase = Phase.GONE
                    run.drop_instance()
                else:
                    core.runs[run.key] = run
                    if request.first is not None:
                        self._release_safely(run, request.first, [], turn)
                    else:
                        core.reload(run)
            else:
                run.phase = Phase.GONE
                run.drop_instance()
        if answer is not None and not answer.done():
            answer.set_result(started)

    def _tell_first(self, run: Run, first: TurnWrite) -> None:
        """Tell what loading, which replays it, tells nobody."""
        assert run.instance is not None
        self._core.listeners.recorded(run, first)
        if run.instance.effects:
            self._release_effects(run, run.instance, first.lines)

    def _release_safely(
        self, run: Run, write: TurnWrite, taken: list[Input], turn: Turn | None
    ) -> None:
        """Release effects; after an error of ours the run is rebuilt, and its neighbours go on."""
        try:
            self._release(run, write, taken, turn)
        except Exception:  # noqa: BLE001 - whatever it is, one run pays
            _log.exception("an internal error after a commit of %r", run)
            if run.key in self._core.runs:
                self._core.reload(run)

    def _release(self, run: Run, write: TurnWrite, taken: list[Input], turn: Turn | None) -> None:
        core = self._core
        run.length = write.first + write.count - 1
        run.time = write.time
        run.phase = Phase.IDLE
        for item in taken:
            if item.inbox:
                run.seen.discard(item.inbox)
                core.note_consumed(item.inbox)
            if item.done is not None:
                item.done(None)
        core.listeners.recorded(run, write)
        if write.offers:
            core.carrier.look()
        state = write.state
        if state is not None:
            run.status = state.status
            run.is_owned = state.owned
            run.wake_at = state.wake_at
            run.waits = state.waits
        else:
            run.is_owned = True
        if turn is not None:
            instance = run.instance
            assert instance is not None
            for number, command in enumerate(turn.commands, turn.first_id):
                release = writes.RELEASE.get(type(command))
                if release is not None:
                    release(core, run, number, command)
            if instance.effects:
                self._release_effects(run, instance, write.lines)
        # Backwards, so that a takeover (always the first) comes last: it begins what the facts
        # about attempts have not begun.
        for item in reversed(taken):
            kind = type(item.fact)
            if kind in _NOTABLE:
                if kind in _FAILURES:
                    telling.tell_failure(run, item, taken)
                elif kind is ev.RunOverdue:
                    telling.tell_overdue(run, item.fact)
                if kind in _RUNNERS:
                    core.runner.recorded(run, item.fact)
        closing: ev.Event | None = None
        if run.status.is_terminal:
            closing = turn.closed if turn is not None else taken[-1].fact
        core.commits.tell(run, write.first, closing)
        if run.status.is_terminal:
            if run.status not in _UNTOLD:
                telling.tell_end(run, closing)
                if closing is not None:
                    alerts.tell_unheard(core, run, closing)
            core.ended(run, write, turn)
        elif run.inputs or run.timer_due:
            core.turns.wake(run)
        else:
            core.settle(run)

    def _release_effects(self, run: Run, instance: Instance, written: Sequence[LogLine]) -> None:
        effects, instance.effects = instance.effects, []
        core = self._core
        lines = iter(written)
        for name, value in effects:
            if name == "log":
                logs.show(_user_log, run.workflow_id, value)
                core.logs.tell(run, next(lines))
            else:
                core.listeners.remind(run, name, value)

    def _lost(self, run: Run, taken: list[Input]) -> None:
        """Another worker has the run: forget it, and send on what came in by hand."""
        core = self._core
        _log.info("run %s belongs to another worker", run.workflow_id)
        core.revival.lost(run.key)
        run.inputs = taken + run.inputs
        core.give_back(run)

    def _reopened(self, run: Run, taken: list[Input], *, closes: bool) -> None:
        """The inbox was not empty when the run wanted to end, say: apply that first."""
        core = self._core
        run.closing_tries += closes
        run.inputs = taken + run.inputs
        core.reload(run)

    def refused(self, batch: Batch, error: errors.StoreError) -> None:
        """The store refused one turn's data: park that run, keep its inputs."""
        core = self._core
        for _, answer in self._drop_starts(batch):
            answer.set_exception(errors.Invalid(f"the store refused the start: {error}"))
        for write in batch.turns:
            entry = core.turns.take_under_way(write)
            if entry is None:
                continue
            run, taken, _ = entry
            run.phase = Phase.IDLE
            if isinstance(error, errors.AlreadyRead):
                # Another worker took a row after this one had heard of it: look again.
                run.inputs = taken + run.inputs
                core.reload(run)
                continue
            if run.status is Status.PARKED or not write.applied:
                _log.error("the store refused to record %s: %s", run, error)
                core.give_back(run)
                continue
            for item in taken:
                if item.done is not None:
                    item.done(errors.Invalid(f"the store refused the turn: {error}"))
            kept = [item for item in taken if item.done is None]
            core.turns.blind.park(run, kept, ParkReason.STORE_REFUSED, describe(error))

    def unresolved(self, batch: Batch, *, was_written: bool) -> None:
        """Rebuild every run of a batch whose acknowledgement was lost; loading settles the rest."""
        core = self._core
        for request, answer in self._drop_starts(batch):
            core.resolve_start(request, answer)
        for write in batch.turns:
            entry = core.turns.take_under_way(write)
            if entry is None:
                continue
            run, taken, _ = entry
            run.doubt = (write, taken)
            core.reload(run)
        if was_written:
            # What it put into inboxes is there, and nothing later may come before it.
            core.intake.catch_up()

    def _drop_starts(self, batch: Batch) -> Iterator[tuple[StartRequest, asyncio.Future[Started]]]:
        """Forget the runs that a batch was to start; give those that somebody still waits for."""
        for request in batch.starts:
            entry = self._core.turns.take_under_way(request)
            if entry is not None:
                entry.run.phase = Phase.GONE
                entry.run.drop_instance()
            answer = self._core.start_waiters.pop(request.run_id, None)
            if answer is not None and not answer.done():
                yield request, answer

    def fenced(self) -> None:
        """Drop everything: another worker took this one's runs over."""
        core = self._core
        core.fenced()
