"""The interpreter: a workflow function that plays a graph, on the public workflow API.

Theory of operation
-------------------
Tokens move along the edges. A token carries the last output before it (``prev``). A step that a
token reaches is *visited*; what it leaves behind becomes tokens on its ways on. Where several ways
lead to one step, the step's ``join`` says when it begins: by default once, as soon as no token
elsewhere can still arrive, so that a join waits for every branch that is under way and for no
other (``graph/joins.py`` knows the rest). The run ends when no token is left; its result is the
output of the last step that had one.

As long as there is one token only, no task is made: the main coroutine visits step after step.

Everything is derived from recorded outcomes in their recorded order, so a replay meets the same
state; nothing of it is stored a second time. What listeners are told (``named.py``) is two small
soft commands for each visit, at its beginning and at its end.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, cast

import msgspec

from perdure import activity, errors
from perdure.graph.book import Book, GraphQuery, MetadataUpdate
from perdure.graph.calls import Callee, Outcome, StepCall, bound
from perdure.graph.conditions import holds
from perdure.graph.context import Changes, StepExecution, WorkflowContext
from perdure.graph.joins import Joins, Token
from perdure.graph.looping import loops_within
from perdure.graph.marks import ended, failed
from perdure.graph.outline import Outline
from perdure.graph.states import StepStatus, StepType
from perdure.graph.steps import BaseStep, Left
from perdure.kernel import traps
from perdure.values import events as ev
from perdure.values import failures, payload
from perdure.values.duration import Duration
from perdure.values.retry import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable


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

    async def call(self, call: StepCall, callee: Callee, value: Any) -> Any:
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

    def pass_over(self, *steps: BaseStep) -> None:
        """Say that steps that are part of this one were not chosen."""
        for step in steps:
            self._play.book.pass_over(step, counts=False)

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

    def set_person(self, name: str) -> None:
        """Say who acts from here on: ``user_id`` of the context."""
        book = self._play.book
        book.instance = msgspec.structs.replace(book.instance, user_id=name)

    def end_all(self) -> None:
        """End the graph with this step, whatever else is under way."""
        self._play.is_ending = True

    def leave(self, rest: Coroutine[Any, Any, None]) -> None:
        """Let something go on when the step is left; the graph ends after it."""
        self._play.left[asyncio.ensure_future(rest)] = self.step.name

    def times(self, step: str) -> tuple[int, int]:
        """Return how often a step of the same graph has begun, and has ended."""
        return self._play.begun.count(step), self._play.ended.count(step)

    def is_awaited(self, step: str) -> bool:
        """Tell whether a token other than those at this step may still come to another step."""
        return self._play.is_awaited(step, besides=self.step.name)

    def loop_state(self) -> tuple[int, int]:
        """Return how often this loop has jumped, and since when it goes round (microseconds)."""
        return self._play.loops.setdefault(self.step.name, (0, self.now()))

    def count_loop(self) -> None:
        """Count a jump, after which the loops within the round begin anew."""
        count, since = self.loop_state()
        loops, name = self._play.loops, self.step.name
        loops[name] = count + 1, since
        if len(loops) > 1:
            for inner in loops_within(self._play.outline, name):
                loops.pop(inner, None)

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
        self._joins = Joins(outline)
        self._running: dict[asyncio.Task[list[Token]], str] = {}
        self.left: dict[asyncio.Task[None], str] = {}
        """What steps have left running behind them; no token comes of it."""
        self.begun: list[str] = []
        self.ended: list[str] = []
        self._ahead = dict.fromkeys(outline.steps)
        """The steps that may still begin for the first time."""
        self._has_decided = False
        self._output: Any = None

    async def run(self, prev: Any) -> Any:
        """Play to the end and return the output of the last step that had one."""
        self._output = prev
        first = self.outline.initial_step
        if first not in self.outline.steps:
            said = f"Step {first!r} not found in definition {self.outline.name!r}"
            raise errors.ApplicationError(said, kind="NotFound", retryable=False)
        self._ready.append(Token(first, prev))
        try:
            while True:
                if self._joins.waiting:
                    self._admit()
                if not self._ready:
                    if not (self._running or self.left):
                        return self._end()
                    await self._wait()
                elif len(self._ready) == 1 and self._is_only():
                    self._take(await self._step(self._ready.popleft()))
                else:
                    while self._ready:
                        token = self._ready.popleft()
                        task = asyncio.ensure_future(self._step(token))
                        self._running[task] = token.step
                if self.is_ending:
                    await self._cancel_rest()
                    return self._end()
        finally:
            await self._cancel_rest()

    async def visit(self, visit: Visit, *, counts: bool) -> Left:
        """Visit a step, once its critical section is free, and keep the record of it.

        ``counts``: it is one of the steps in all.
        """
        if not visit.step.section:
            return await self._visit(visit, counts=counts)
        async with self.book.sections.setdefault(visit.step.section, asyncio.Lock()):
            return await self._visit(visit, counts=counts)

    def is_awaited(self, goal: str, *, besides: str) -> bool:
        """Tell whether a token may still arrive at a step; one at ``besides`` does not count."""
        return self._may_come(
            goal, [it for it in [*self._moving(), *self._joins.waiting] if it != besides]
        )

    # -- tokens ----------------------------------------------------------------------------------

    async def _visit(self, visit: Visit, *, counts: bool) -> Left:
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
            book.told = len(book.done)
        if not host.is_replaying:
            done, total = (book.told, book.total) if counts else (0, 0)
            host.tell(ended(name, left, visit, done, total))
        return left

    async def _step(self, token: Token) -> list[Token]:
        """Visit the step a token has reached; return the tokens it leaves."""
        step = self.outline.steps[token.step]
        if step.cancels:
            await self._withdraw(step)
        self.begun.append(step.name)
        self._ahead.pop(step.name, None)
        visit = Visit(self, step, token.prev)
        try:
            visiting = self.visit if step.section else self._visit
            left = await visiting(visit, counts=self._is_whole)
            if left.is_output:
                visit.value = left.output  # what the conditions of its edges see as `prev`
            targets = visit.ways_on() if left.to is None else left.to
        except errors.NondeterminismError:
            raise
        except errors.PerdureError as exc:
            if not _is_late(exc):
                raise _failed(step, exc) from exc
            await self.book.late(step.name, str(exc))
            if not self.book.goes_on_late:
                raise _failed(step, exc) from exc
            left, targets = Left(is_output=False), visit.ways_on()
        except Exception as exc:
            # A mistake in a mapper or a condition: the engine decides whether it fails the run.
            exc.add_note(failures.in_step(step.name, self.outline.name))
            raise
        self.ended.append(step.name)
        if step.name in self.outline.decides:
            self._has_decided = True
        prev = left.output if left.is_output else token.prev
        if left.is_output:
            self._output = left.output
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
            if token.step in self.outline.meets and self._joins.gathers(
                token.step, is_alone=self._is_alone()
            ):
                self._joins.waiting.setdefault(token.step, []).append(token)
            else:
                self._ready.append(token)
        if self._has_decided:
            self._has_decided = False
            self._pass_over(it for it in [*self._ahead] if not self.is_awaited(it, besides=""))

    def _end(self) -> Any:
        """Pass over what never began, and return the result."""
        self._pass_over([*self._ahead])
        return self._output

    def _pass_over(self, steps: Iterable[str]) -> None:
        """Say of steps that they cannot begin any more."""
        for name in steps:
            del self._ahead[name]
            self.book.pass_over(self.outline.steps[name], counts=self._is_whole)

    def _is_alone(self) -> bool:
        """Whether nothing else is under way, so that nobody has to be waited for."""
        return not (self._running or self._joins.waiting or self._ready)

    def _is_only(self) -> bool:
        """Whether nothing can happen beside the visit of a step."""
        return not (self._running or self._joins.waiting or self.left)

    def _admit(self) -> None:
        """Let waiting tokens go on where the step's join allows it."""
        self._ready.extend(self._joins.admit(self._is_joined_by_more, self._context))
        if self._joins.waiting and not (self._ready or self._running or self.left):
            self._ready.extend(self._joins.break_up())

    def _is_joined_by_more(self, goal: str) -> bool:
        """Whether others may still arrive at a step beside the tokens that wait there."""
        waiting = self._joins.waiting
        return self._may_come(goal, [*self._moving(), *(it for it in waiting if it != goal)])

    def _may_come(self, goal: str, places: Iterable[str]) -> bool:
        return any(it == goal or self.outline.can_reach(it, goal) for it in places)

    def _moving(self) -> list[str]:
        """Return the steps where tokens are that wait for no other."""
        return [*self._running.values(), *(token.step for token in self._ready)]

    def _context(self, token: Token) -> WorkflowContext:
        return Visit(self, self.outline.steps[token.step], token.prev).ctx

    async def _wait(self) -> None:
        under_way = [*self._running, *self.left]
        done, _ = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
        for task in [it for it in self.left if it in done]:
            del self.left[task]
            task.result()
        for task in [it for it in self._running if it in done]:
            del self._running[task]
            self._take(task.result())

    async def _withdraw(self, step: BaseStep) -> None:
        """Cancel what is under way at the steps that a step cancels when it begins."""
        assert not self._ready, "tokens that wait for nothing have been given tasks"
        region = self.outline.region(step)
        self._joins.drop(region)
        if step.cancels == "incoming":
            self._joins.drop([step.name])
        gone = [task for task, at in [*self._running.items(), *self.left.items()] if at in region]
        for task in gone:
            task.cancel()
            self._running.pop(cast("Any", task), None)
            self.left.pop(cast("Any", task), None)
        if gone:
            await asyncio.wait(gone)

    async def _cancel_rest(self) -> None:
        rest = [*self._running, *self.left]
        for task in rest:
            task.cancel()
        if rest:
            await asyncio.wait(rest)
            self._running.clear()
            self.left.clear()


async def interpret(outline: Outline, input: Any) -> Any:
    """Run a graph from its first step to its end; return its result."""
    book = Book(outline, input)
    book.host.queries["graph"] = GraphQuery(book)
    book.host.update_handlers["set_metadata"] = MetadataUpdate(book)
    book.host.steps = book.current
    play = Play(outline, book, is_whole=True)
    result = await play.run(input)
    if book.told < book.total:
        last, done = play.ended[-1], len(book.done)
        book.host.tell(ev.Emitted(name="progress", step=last, done=done, total=book.total))
    return result


_WAITS = frozenset({StepType.HUMAN, StepType.TIMER, StepType.WEBHOOK})


def _is_late(exc: errors.PerdureError) -> bool:
    """Tell whether a step failed because its time was over: that of its activity, or its own."""
    if exc.kind != errors.Kind.TIMEOUT:
        return False
    if isinstance(exc, errors.ActivityFailed):
        details: Any = exc.details
        return isinstance(details, dict) and "timeout_type" in details
    return type(exc) is errors.ApplicationError


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
