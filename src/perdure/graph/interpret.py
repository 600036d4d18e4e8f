"""The interpreter: a workflow function that plays a graph, on the public workflow API.

Theory of operation
-------------------
Tokens move along the edges. A token carries the last output before it (``prev``). A step that a
token reaches is *visited*; what it leaves behind becomes tokens on its ways on. Where several ways
lead to one step, the step's ``join`` says when it begins: by default once, as soon as no token
elsewhere can still arrive, so that a join waits for every branch that is under way and for no
other. The run ends when no token is left; its result is the output of the last step that had one.

As long as there is one token only, no task is made: the main coroutine visits step after step.

Everything is derived from recorded outcomes in their recorded order, so a replay meets the same
state; nothing of it is stored a second time. What listeners are told (``named.py``) is two small
soft commands for each visit, at its beginning and at its end.
"""

from __future__ import annotations

import asyncio
from collections import deque
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from perdure import activity, errors, workflow
from perdure.graph.calls import Callee, Outcome, bound
from perdure.graph.conditions import holds
from perdure.graph.context import Changes, InstanceInfo, StepExecution, WorkflowContext
from perdure.graph.marks import ended, failed
from perdure.graph.outline import Outline
from perdure.graph.states import StepStatus, StepType
from perdure.graph.steps import BaseStep, Left
from perdure.kernel import traps
from perdure.values import events as ev
from perdure.values import payload
from perdure.values.duration import Duration
from perdure.values.retry import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Iterable


class Book:
    """What a run of a graph has gathered: shared by its branches.

    ``steps``, ``metadata`` and ``data`` are replaced and never changed, so that contexts can keep
    them as they are; but for ``data`` once it was lent to workflow code, which may change it.
    """

    def __init__(self, outline: Outline, input: Any) -> None:
        self.host = traps.here()
        self.input = input
        self.steps: dict[str, Any] = {}
        self.metadata: dict[str, Any] = {}
        given = cast("dict[str, Any]", input) if isinstance(input, dict) else {}
        self.data: dict[str, Any] = {**given}
        self._is_lent = False
        self.history: list[StepExecution] = []
        self.current: dict[str, int] = {}
        self.done: set[str] = set()
        self.total = len(outline.steps)
        info = workflow.info()
        self.instance = InstanceInfo(
            id=info.workflow_id,
            instance_id=info.run_id,
            workflow_name=info.workflow_type,
            version=info.version,
            started_at=workflow.now(),
            namespace=info.namespace,
        )
        self._turn = self.host.time, self.instance.started_at

    def now(self) -> datetime:
        """Return the turn's time; a turn ends a visit, begins another, and asks twice."""
        if self._turn[0] != self.host.time:
            self._turn = self.host.time, workflow.now()
        return self._turn[1]

    @property
    def progress(self) -> int:
        """How much of the graph is behind it, in percent."""
        return min(100, round(100 * len(self.done) / max(self.total, 1)))

    def context(self, step: str, prev: Any, *, is_kept: bool) -> WorkflowContext:
        """Return what a step sees. ``is_kept``: as it is now, whatever others set from here on."""
        return WorkflowContext(
            self.instance,
            input=self.input,
            steps=self.steps,
            prev=prev,
            metadata=self.metadata,
            data=self._kept_data() if is_kept else self._lend_data,
            current_step=step,
            step_history=self.history,
        )

    def _lend_data(self) -> dict[str, Any]:
        if not self._is_lent:
            self.data, self._is_lent = {**self.data}, True
        return self.data

    def _kept_data(self) -> dict[str, Any]:
        return {**self.data} if self._is_lent else self.data

    def finish(
        self,
        execution: StepExecution,
        status: StepStatus,
        output: Any = None,
        *,
        error: str | None = None,
    ) -> None:
        """Keep how a visit ended."""
        execution.status, execution.completed_at = status, self.now()
        execution.result = execution.output_data = output
        execution.error = error

    def merge(self, changes: Changes) -> None:
        """Take what a step has set, key by key."""
        if changes.metadata:
            self.metadata = {**self.metadata, **changes.metadata}
        if changes.data or changes.dropped:
            if not self._is_lent:
                self.data = {**self.data}
            self.data.update(changes.data)
            for key in changes.dropped:
                self.data.pop(key, None)


class Token(NamedTuple):
    """Where a branch of the run stands, and the last output on its way. ``source``: from where."""

    step: str
    prev: Any
    source: str = ""


class Visit:
    """One visit of a step: what steps can do and ask for."""

    __slots__ = ("_play", "activity", "has_context", "is_skipped", "step", "value")

    def __init__(self, play: Play, step: BaseStep, prev: Any) -> None:
        self._play = play
        self.step = step
        self.value = prev
        """What the step works on: the output before it."""
        self.is_skipped = False
        """Whether the step said that it cannot be done."""
        self.activity = 0
        """The event that began the last activity of the visit; 0: there was none."""
        self.has_context = True
        """Whether that was a handler of the graph, whose outcome is an ``Outcome``."""

    @property
    def ctx(self) -> WorkflowContext:
        """What conditions and mappers see now."""
        return self._play.book.context(self.step.name, self.value, is_kept=False)

    @property
    def max_payload(self) -> int:
        """How many bytes a recorded value may have."""
        return self._play.book.host.max_payload

    def now(self) -> int:
        """Return the turn's time in microseconds."""
        return self._play.book.host.time

    async def call(self, call: activity.Activity[Any, Any], callee: Callee, value: Any) -> Any:
        """Call a handler; take what it has set, and return its output."""
        book = self._play.book
        host, kept = book.host, book.context(self.step.name, self.value, is_kept=True)
        args = call.arguments.encode((value,), {})
        if len(args) > host.max_payload:
            payload.limit(args, host.max_payload, what=f"arguments of {call.name}")
        made = bound(call, callee, kept)
        found: Outcome = await traps.activity(
            host, call.scheduled(args), call.read_result, made, self._begun
        )
        if found.changes is not None:
            book.merge(found.changes)
        self.is_skipped = found.is_skipped
        return found.output

    async def call_by_name(
        self, name: str, value: Any, policy: RetryPolicy | None, timeout: Duration | None
    ) -> Any:
        """Run the activity of a name."""
        self.has_context = False
        return await activity.by_name(
            name,
            (value,),
            retry=policy,
            timeout=timeout,
            step=self.step.name,
            begun=self._begun,
        )

    def _begun(self, number: int) -> None:
        self.activity = number

    async def play(self, outline: Outline, prev: Any = ...) -> Any:
        """Play a graph within the step; return its result."""
        inner = Play(outline, self._play.book, is_whole=False)
        return await inner.run(self.value if prev is ... else prev)

    async def within(self, step: BaseStep) -> None:
        """Visit a step that is part of this one; its output is ``value`` then."""
        self.value = await self.beside(step)

    async def beside(self, step: BaseStep) -> Any:
        """Visit a step that is part of this one; return its output."""
        inner = Visit(self._play, step, self.value)
        left = await self._play.visit(inner, counts=False)
        return left.output if left.is_output else inner.value

    def tell(self, event: str, data: dict[str, Any], *, path: str | None = None) -> None:
        """Tell listeners that something happened in the step.

        ``path``: what of the last activity's outcome is part of it (``ev.Emitted``).
        """
        of = self.activity if path is not None else 0
        self._play.book.host.tell(
            ev.Emitted(
                name=f"step.{event}",
                step=self.step.name,
                data=payload.encode(data),
                of=of,
                path=path or "output",
            )
        )

    def ways_on(self, *, all: bool = False) -> list[str]:
        """Return where the edges lead; only those that hold, unless ``all``."""
        edges = self._play.outline.ways_on(self.step.name)
        return [
            edge.target
            for edge in edges
            if all or edge.condition is None or holds(edge, lambda: self.ctx)
        ]

    def set_data(self, key: str, value: Any) -> None:
        """Set a value of the run's ``data``."""
        self._play.book.merge(Changes(data={key: value}))

    def end_all(self) -> None:
        """End the graph with this step, whatever else is under way."""
        self._play.is_ending = True

    def loop_state(self) -> tuple[int, int]:
        """Return how often this loop has jumped, and since when it goes round (microseconds)."""
        return self._play.loops.setdefault(self.step.name, (0, self.now()))

    def count_loop(self) -> None:
        """Count a jump."""
        count, since = self.loop_state()
        self._play.loops[self.step.name] = count + 1, since

    def end_loop(self) -> None:
        """Forget the count: the next time round begins anew."""
        self._play.loops.pop(self.step.name, None)


class Play:
    """One graph being played: the whole definition, or a branch within a step of it."""

    def __init__(self, outline: Outline, book: Book, *, is_whole: bool) -> None:
        self.outline = outline
        self.book = book
        self._is_whole = is_whole
        self.loops: dict[str, tuple[int, int]] = {}
        self.is_ending = False
        self._ready: deque[Token] = deque()
        self._arrived: dict[str, list[Token]] = {}
        self._running: dict[asyncio.Task[list[Token]], str] = {}
        self._rounds: dict[str, int] = {}
        self._output: Any = None

    async def run(self, prev: Any) -> Any:
        """Play to the end and return the output of the last step that had one."""
        self._output = prev
        self._ready.append(Token(self.outline.initial_step, prev))
        try:
            while True:
                if self._arrived:
                    self._admit()
                if not self._ready:
                    if not self._running:
                        return self._output
                    await self._wait()
                elif len(self._ready) == 1 and not self._running and not self._arrived:
                    self._take(await self._step(self._ready.popleft()))
                else:
                    while self._ready:
                        token = self._ready.popleft()
                        task = asyncio.ensure_future(self._step(token))
                        self._running[task] = token.step
                if self.is_ending:
                    return self._output
        finally:
            await self._cancel_rest()

    async def visit(self, visit: Visit, *, counts: bool) -> Left:
        """Visit a step and keep the record of it. ``counts``: it is one of the steps in all."""
        book, step = self.book, visit.step
        name, host, current = step.name, book.host, book.current
        status = StepStatus.WAITING if step.step_type in _WAITS else StepStatus.RUNNING
        execution = StepExecution(name, status, book.now(), input_data=visit.value)
        book.history.append(execution)
        current[name] = current.get(name, 0) + 1
        host.tell(step.began)
        try:
            left = await step.visit(visit)
        except asyncio.CancelledError:
            book.finish(execution, StepStatus.CANCELED)
            host.tell(ev.Emitted(name="step.cancelled", step=name))
            raise
        except Exception as exc:
            book.finish(execution, StepStatus.FAILED, error=str(exc))
            if not isinstance(exc, errors.NondeterminismError):
                host.tell(failed(name, exc, visit))
            raise
        finally:
            if current[name] == 1:
                del current[name]
            else:
                current[name] -= 1
        if visit.is_skipped:
            book.finish(execution, StepStatus.SKIPPED)
        else:
            book.finish(execution, StepStatus.SUCCEEDED, left.output)
            if left.is_output:
                book.steps = {**book.steps, name: left.output}
        if counts:
            book.done.add(name)
        if not host.is_replaying:
            done, total = (len(book.done), book.total) if counts else (0, 0)
            host.tell(ended(name, left, visit, done, total))
        return left

    # -- tokens ----------------------------------------------------------------------------------

    async def _step(self, token: Token) -> list[Token]:
        """Visit the step a token has reached; return the tokens it leaves."""
        step = self.outline.steps[token.step]
        visit = Visit(self, step, token.prev)
        try:
            left = await self.visit(visit, counts=self._is_whole)
        except errors.NondeterminismError:
            raise
        except errors.PerdureError as exc:
            raise _failed(step, exc) from exc
        except Exception as exc:
            # A mistake in a mapper or a condition: the engine decides whether it fails the run.
            exc.add_note(f'in step "{step.name}" of {self.outline.name!r}')
            raise
        prev = left.output if left.is_output else token.prev
        if left.is_output:
            self._output = left.output
        targets = visit.ways_on() if left.to is None else left.to
        return [Token(target, prev, step.name) for target in targets]

    def _take(self, tokens: Iterable[Token]) -> None:
        for token in tokens:
            if token.step not in self.outline.steps:
                raise errors.ApplicationError(
                    f'Step "{token.source}" leads to {token.step!r}, which is no step of '
                    f"{self.outline.name!r}",
                    kind="NotFound",
                    retryable=False,
                )
            if self.outline.ways_to(token.step) > 1 and not self._is_alone():
                self._arrived.setdefault(token.step, []).append(token)
            else:
                self._ready.append(token)

    def _is_alone(self) -> bool:
        """Whether nothing else is under way, so that nobody has to be waited for."""
        return not (self._running or self._arrived or self._ready)

    def _admit(self) -> None:
        """Let waiting tokens go on where the step's join allows it."""
        for step in list(self._arrived):
            tokens, join = self._arrived[step], self.outline.steps[step].join
            if join == "each":
                self._ready.extend(self._arrived.pop(step))
            elif isinstance(join, int) or join == "first":
                self._admit_some(step, tokens, 1 if join == "first" else join)
            elif not self._is_awaited(step):
                del self._arrived[step]
                self._ready.append(_joined(tokens))
        if self._arrived and not self._ready and not self._running:
            # Joins that wait for each other: the one that was reached first goes on.
            step, tokens = next(iter(self._arrived.items()))
            del self._arrived[step]
            self._ready.append(_joined(tokens))

    def _admit_some(self, step: str, tokens: list[Token], enough: int) -> None:
        """Begin at the ``enough``-th arrival of a round; drop the rest of the round."""
        seen = self._rounds.get(step, 0)
        while tokens:
            if seen + len(tokens) < enough:
                break
            if seen < enough:
                self._ready.append(_joined(tokens[: enough - seen]))
                tokens[: enough - seen] = []
                seen = enough
            else:
                seen += len(tokens)
                tokens.clear()
        self._rounds[step] = seen
        if not tokens:
            del self._arrived[step]
        if seen >= self.outline.ways_to(step) or not self._is_awaited(step):
            self._rounds.pop(step, None)

    def _is_awaited(self, goal: str) -> bool:
        """Whether a token elsewhere may still arrive at a step."""
        elsewhere = [
            *self._running.values(),
            *(token.step for token in self._ready),
            *(step for step in self._arrived if step != goal),
        ]
        return any(step == goal or self.outline.can_reach(step, goal) for step in elsewhere)

    async def _wait(self) -> None:
        done, _ = await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
        for task in [it for it in self._running if it in done]:
            del self._running[task]
            self._take(task.result())

    async def _cancel_rest(self) -> None:
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running)
            self._running.clear()


async def interpret(outline: Outline, input: Any) -> Any:
    """Run a graph from its first step to its end; return its result."""
    book = Book(outline, input)
    book.host.queries["graph"] = _GraphQuery(book)
    result = await Play(outline, book, is_whole=True).run(input)
    if book.progress < 100:
        last, done = book.history[-1].step_name, len(book.done)
        book.host.tell(ev.Emitted(name="progress", step=last, done=done, total=book.total))
    return result


class _GraphQuery:
    """Answers ``handle.query("graph")``; made for each run, so it is no more than this."""

    def __init__(self, book: Book) -> None:
        self._book = book

    def answer(self, args: bytes) -> bytes:
        book = self._book
        found = {
            "current_steps": list(book.current),
            "steps": book.steps,
            "metadata": book.metadata,
            "data": book.data,
            "progress": book.progress,
            "step_history": book.history,
        }
        return payload.encode(found, what="answer")


_WAITS = frozenset({StepType.HUMAN, StepType.TIMER, StepType.WEBHOOK})


def _joined(tokens: list[Token]) -> Token:
    """Make one token of those that were waited for; ``prev`` is then by the step before."""
    if len(tokens) == 1:
        return tokens[0]
    return Token(tokens[0].step, {token.source: token.prev for token in tokens})


def _failed(step: BaseStep, exc: errors.PerdureError) -> errors.ApplicationError:
    cause = exc.cause if isinstance(exc, errors.ActivityFailed) and exc.cause else exc
    text = cause.message if isinstance(cause, errors.PerdureError) else str(cause)
    return errors.ApplicationError(
        f'Step "{step.name}" failed: {text}',
        kind=exc.kind,
        retryable=False,
        details=exc.details,
        cause=cause,
    )
