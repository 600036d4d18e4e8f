"""A live instance of a workflow: facts in, commands out.

Theory of operation
-------------------
``apply(facts, time)`` runs one *turn*: it settles the futures the facts are about, runs the
deterministic loop until nothing is ready, and returns the commands the code made. Facts and then
commands are the events of the turn, and an event's id is its position in the history, so a
command's id is known when it is made. Given ``script``, the recorded commands of the turn, the same
call is a replay: commands are held against the script and take their ids from it.

A live instance stays in memory between turns; a replay is a fresh one to which the stored turns are
applied. Both must be in the same state (I11), which is why everything that crosses this edge is
bytes, why the instance owns one empty ``contextvars.Context`` and runs only inside it, and why
user code never runs outside an activation (I10): tasks and async generators are held strongly, and
``evict`` closes what is left.

What must not be put here: the clock, I/O, the store, retries, knowledge of what an activity does.
"""

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, NoReturn

from perdure import errors
from perdure.kernel import compat, match
from perdure.kernel.apply import APPLY
from perdure.kernel.closing import closing_command
from perdure.kernel.edge import ContinueAsNew, Mode, Program, StoredTurn, Turn, Waits
from perdure.kernel.eviction import close_all, graveyard, hold, leave_alone
from perdure.kernel.loop import NOBODY, DeterministicLoop, OrderedTask
from perdure.kernel.pending import wake_where_true
from perdure.kernel.state import State
from perdure.kernel.updates import handler_named, run_update
from perdure.kernel.watching import Main, awaited_children, inherit
from perdure.values import events as ev
from perdure.values import failures, ids

__all__ = [
    "ContinueAsNew",
    "Instance",
    "Mode",
    "Program",
    "StoredTurn",
    "Turn",
    "Waits",
    "graveyard",
]

compat.install()

_set_running_loop = asyncio._set_running_loop  # pyright: ignore[reportPrivateUsage]
_get_running_loop = asyncio._get_running_loop  # pyright: ignore[reportPrivateUsage]
_SECOND = 1_000_000
in_force: list[None] = []
"""An entry for each activation under way, in whatever thread."""


class Instance(State):
    """See the module's text. Not thread-safe: one activation at a time."""

    __slots__ = ()

    def __init__(self, program: Program, *, max_payload: int = 2 * 1024 * 1024) -> None:
        super().__init__(program, max_payload=max_payload)
        self.loop = DeterministicLoop(self)

    # -- turns -------------------------------------------------------------------------------

    def apply(
        self, facts: Sequence[ev.Event], time: int, script: Sequence[ev.Event] | None = None
    ) -> Turn:
        """Run one turn at recorded time ``time`` (microseconds); with ``script``, replay it.

        Raises:
            NondeterminismError: the code does not follow the script, or has touched the world
                outside (IORefused). The instance is spoilt.
            BaseException: what user code may not be stopped from raising (KeyboardInterrupt,
                SystemExit, MemoryError, TurnTimeout). The instance is spoilt.
        """
        assert self.closed is None, "a closed instance takes no turns"
        assert time >= self.time, "a turn's time never goes back"
        self.time = time
        self.loop.now_seconds = (time - self.origin) / _SECOND if self.started is not None else 0.0
        self._base = self.length + len(facts) + 1
        commands = self._commands = []
        self.is_replaying = script is not None
        self._script = (
            None if script is None else match.Script(script, self._base, self.versions.marked)
        )
        closed, unexpected = self._activate(Mode.LIVE, self._turn, facts)
        if self._divergence is not None:
            raise self._divergence
        if self._script is not None:
            self._script.finish(self.where)
            self.length = self._base - 1 + len(script or ())
            self._script = None
        else:
            self.length = self._base - 1 + len(commands)
        self.is_replaying = False
        self.closed = closed
        return Turn(commands, self._base, closed, unexpected)

    def replay(self, turns: Iterable[StoredTurn]) -> list[ev.Event]:
        """Apply stored turns; return the facts of trailing blind ones: they belong to the next.

        Raises:
            NondeterminismError: the code does not do what the history recorded.
        """
        facts: list[ev.Event] = []
        for turn in turns:
            if turn.applied:
                count = ev.split(turn.events)
                facts.extend(turn.events[:count])
                self.apply(facts, turn.time, turn.events[count:])
                facts = []
            else:
                facts.extend(turn.events)
            self.size += turn.size
        return facts

    def query(self, name: str, call: Callable[[Any], Any]) -> Any:
        """Answer a query: ``call`` gets the handler and runs read-only.

        Raises:
            NotFound: the run has no such query.
        """
        return self._read(call, handler_named("query", name, self.queries))

    def validate_update(self, name: str, call: Callable[[Any], None]) -> None:
        """Run an update's validator read-only.

        Raises:
            NotFound: the run has no such update.
        """
        self._read(call, handler_named("update", name, self.update_handlers))

    def evict(self) -> None:
        """Close every coroutine of the run without recording anything."""
        what = f"workflow {self.program.name!r}"
        self._activate(Mode.EVICTING, close_all, self.loop, what)
        self.mode = Mode.EVICTING
        self._untie()

    def waits(self) -> Waits:
        """Return what the run waits for."""
        return Waits(
            topics=self.mail.awaited() if self.has_mail else [],
            activities=[pending.event.name for pending in self.activities.values()],
            children=awaited_children(self),
            timers=len(self.timers),
            next_due=self.next_due(),
            conditions=len(self.conditions),
            updates=len(self.updates),
            handlers=list(self.update_handlers),
            where=self.where(),
            people=self.human_tasks.shown(),
            steps=list(self.steps),
        )

    @property
    def unread(self) -> int:
        """How many messages the code has not received."""
        return self.mail.kept if self.has_mail else 0

    def next_due(self) -> int | None:
        """Return when the earliest timer is due."""
        return min((timer[0] for timer in self.timers.values()), default=None)

    def due_timers(self, now: int) -> list[ev.TimerFired]:
        """Return firings of the timers due at ``now``, in order of due time, then of creation."""
        due = [(entry[0], number) for number, entry in self.timers.items() if entry[0] <= now]
        return [ev.TimerFired(timer=number) for _, number in sorted(due)]

    def where(self) -> str:
        """Return where the workflow waits: its steps, or its main coroutine's file and line."""
        if self._main is None:
            return ""
        return match.named_steps(self.steps) or match.waiting_place(self._main.coro)

    def idempotency_key(self, activity: int) -> str:
        """Return the key that all attempts of an activity share."""
        return self.keys.key(activity)

    # -- what traps and facts call -----------------------------------------------------------

    def command(self, event: ev.Event, where: Callable[[], str] | None = None) -> int:
        """Record a command (or follow the script) and return its event id.

        ``where`` tells who asks, if not the innermost user code on the stack.
        """
        if self.mode is not Mode.LIVE:
            return self._refuse(event)
        self._commands.append(event)
        script = self._script
        if script is None:
            return self._base + len(self._commands) - 1
        try:
            return script.follow(event, where or functools.partial(match.place_of, self.steps))
        except errors.NondeterminismError as exc:
            self.diverged(exc)
            raise

    def tell(self, event: ev.Event) -> None:
        """Record a soft command. A replay does not: its history has said it, or never will."""
        if self.mode is not Mode.LIVE:
            self._refuse(event)
        elif self._script is None:
            self._commands.append(event)

    def draw(self, size: int) -> bytes:
        """Return the next ``size`` bytes of recorded chance."""
        self.writing("draw random numbers")
        return self.entropy.draw(size)

    def draw_fraction(self) -> float:
        """Return the next number in [0, 1)."""
        self.writing("draw random numbers")
        return self.entropy.fraction()

    def reseed(self, seed: bytes, *, draws_on: bool = False) -> None:
        """Derive ids and keys from ``seed`` from here on; draw from it too, unless ``draws_on``."""
        (self.entropy.reseed_ids if draws_on else self.entropy.reseed)(seed)
        self.keys.begin(self._base, seed)

    def new_run_id(self, role: str) -> str:
        """Return a UUIDv7 for a ``child``, the ``next`` run or, by ``human``, a human task.

        It follows from the id of the event to come, so that a draw more or less strands no run.
        """
        self.writing("ask for ids")
        script = self._script
        number = self._base + len(self._commands) if script is None else script.next_id()
        return ids.uuid7(self.time // 1000, self.entropy.derive(f"{role}:{number}", 10))

    def start_timer(self, seconds: float, fire: Callable[[], None]) -> int:
        """Start a timer for the loop (``asyncio.sleep``, ``timeout``, ``call_later``)."""
        due = max(self.origin + round(seconds * _SECOND), self.time)
        number = self.command(ev.TimerStarted(due=due))
        self.timers[number] = (due, fire)
        return number

    def cancel_timer(self, timer: int) -> None:
        """Cancel a timer unless it has fired."""
        if self.timers.pop(timer, None) is not None:
            self.command(ev.TimerCancelled(timer=timer))

    def loop_failed(self, context: dict[str, Any]) -> None:
        """Take an exception that a callback let out as the workflow's failure."""
        exc = context.get("exception")
        # "exception was never retrieved" reports come from garbage collection, at no fixed time.
        if isinstance(exc, BaseException) and "handle" in context:
            self.fail(exc)

    def fail(self, exc: BaseException) -> None:
        """End the workflow with ``exc``: a spawned task has let it out."""
        if self._failure is None:
            self._failure = exc
            self.loop.stop()

    def refuse(self, error: errors.IORefused) -> NoReturn:
        """Void the turn or query that runs: it ends with ``error``, whatever its code catches."""
        self.diverged(error)
        raise errors.TurnVoid(error)

    @property
    def is_read_only(self) -> bool:
        """Whether a query handler or a validator runs."""
        return self.mode is Mode.READ_ONLY

    def begin(self, started: ev.RunStarted) -> None:
        """Take event 1: start the main coroutine."""
        self.started = started
        self.origin = self.time
        self.reseed(started.seed)
        inherit(self, started)
        try:
            coro = self.program.begin(started.input)
        except errors.Invalid as exc:
            self.fail(exc)
            return
        self._main = Main(coro)
        self.root = self.loop.create_task(self._main, name="main")
        self.root.add_done_callback(self._root_done)

    def spawn(self, coro: Coroutine[Any, Any, Any]) -> OrderedTask:
        """Run a task that ends with the workflow and fails it when it raises."""
        self.writing("spawn tasks")
        task = self.loop.create_task(coro)
        self.spawned.add(task)
        task.add_done_callback(self._spawned_done)
        return task

    def interrupt(self, exc: BaseException) -> None:
        """Throw ``exc`` into the main coroutine where it waits."""
        if self._main is None or self.root is None or self.root.done():
            return
        if self._main.thrown is None:
            self._main.thrown = exc
            self.root.cancel()

    def run_update(self, event: ev.UpdateAccepted) -> None:
        """Start the handler of an accepted update."""
        handler = self.update_handlers.get(event.name)
        self.updates[event.update] = self.loop.create_task(run_update(self, event, handler))

    def effect(self, name: str, value: Any) -> None:
        """Keep something to release after the commit; dropped in a replay and in an eviction."""
        self.writing(f"use {name}")
        if self._script is None and self.mode is Mode.LIVE:
            self.effects.append((name, value))

    def _untie(self) -> None:
        """Drop what refers back to the instance, so that its memory needs no collection.

        Of 100,000 runs that fell asleep in one process, those that waited for a collection took as
        much memory as everything else.
        """
        if self.root is not None:
            self.root.remove_done_callback(self._root_done)
        for task in self.spawned:
            task.remove_done_callback(self._spawned_done)
        self.timers.clear()
        self.loop.tasks.clear()
        self.loop.host = NOBODY

    # -- inside -------------------------------------------------------------------------------

    def _activate(self, mode: Mode, call: Callable[..., Any], *args: Any) -> Any:
        """Run ``call`` with this instance's loop, context, hooks and mode in force."""
        outer_loop = _get_running_loop()
        hooks = sys.get_asyncgen_hooks()
        has_hooks = hooks.firstiter is hold
        outer_mode = self.mode
        self.mode = mode
        in_force.append(None)
        _set_running_loop(self.loop)
        if not has_hooks:
            sys.set_asyncgen_hooks(firstiter=hold, finalizer=leave_alone)
        try:
            return self._context.run(call, *args)
        except errors.TurnVoid as void:
            raise void.error from None
        finally:
            if not has_hooks:
                sys.set_asyncgen_hooks(*hooks)
            _set_running_loop(outer_loop)
            in_force.pop()
            self.mode = outer_mode

    def _read(self, call: Callable[[Any], Any], handler: Any) -> Any:
        """Run ``call`` with traps that refuse; see whether it changed what the loop will do."""
        loop = self.loop
        ready = len(loop.ready)
        loop.is_read_only = True
        try:
            answer = self._activate(Mode.READ_ONLY, call, handler)
        finally:
            loop.is_read_only = False
            woke = len(loop.ready) != ready
            self.is_spoilt |= woke
            refused, self._divergence = self._divergence, None
        if refused is not None:
            raise refused
        if woke:
            raise errors.UsageError(
                "a query handler or validator woke something in the workflow; it may only read"
            )
        return answer

    def _turn(self, facts: Sequence[ev.Event]) -> tuple[ev.Event | None, BaseException | None]:
        for fact in facts:
            APPLY[type(fact)](self, fact)
        loop = self.loop
        loop.run_ready()
        while self.conditions and not loop.is_stopping and wake_where_true(self.conditions):
            loop.run_ready()
        if self._divergence is not None:
            return None, None
        return self._conclude()

    def _conclude(self) -> tuple[ev.Event | None, BaseException | None]:
        """Add the closing command if the workflow has ended."""
        exc = self._failure
        if exc is None:
            root = self.root
            if root is None or not root.done():
                return None, None
            exc = asyncio.CancelledError() if root.cancelled() else root.exception()
        closing, unexpected = closing_command(self, exc)
        for update in self.updates:
            info = failures.from_exception(errors.Closed("the workflow ended first"))
            self.command(ev.UpdateCompleted(update=update, failure=info))
        self.command(closing, lambda: self._ending_place(exc))
        return closing, unexpected

    def _ending_place(self, exc: BaseException | None) -> str:
        raised = match.raising_place(exc) if exc is not None else ""
        if raised or self.root is None:
            return raised
        assert self._main is not None
        coro: Any = self._main.coro
        return match.beginning_place(coro.cr_code)

    def _root_done(self, _root: object) -> None:
        self.loop.stop()

    def _spawned_done(self, task: asyncio.Task[Any]) -> None:
        self.spawned.discard(task)
        if not task.cancelled() and (exc := task.exception()) is not None:
            self.fail(exc)

    def diverged(self, error: errors.NondeterminismError) -> None:
        """Stop the turn: the code does not do what the history says."""
        self._divergence = self._divergence or error
        if self.mode is Mode.LIVE:
            self.loop.stop()

    def _refuse(self, event: ev.Event) -> int:
        if self.mode is Mode.EVICTING:
            return 0
        if self.mode is Mode.READ_ONLY:
            raise errors.UsageError(
                f"a query handler or validator asked for {event.brief()} at {match.place()}; "
                "it may only read"
            )
        raise errors.UsageError(f"{event.brief()} was asked for outside a turn")

    def writing(self, what: str) -> match.Script | None:
        """Refuse to do ``what`` in a query or validator; return the script of a replay."""
        if self.mode is Mode.READ_ONLY:
            raise errors.UsageError(f"a query handler or validator may not {what}")
        return self._script
