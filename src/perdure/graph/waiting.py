"""Steps that wait: for a time, for a message, for something outside to be done."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, cast

from perdure import errors, workflow
from perdure.graph.calls import Callee, Handler
from perdure.graph.codecs import DURATION, DURATION_OR_FUNCTION, FUNCTION, INPUT, KIND, TEXT
from perdure.graph.forms import Form
from perdure.graph.kinds import Kind
from perdure.graph.spans import no_count, no_limit, no_span
from perdure.graph.states import StepType
from perdure.graph.steps import BaseMachineStep, BaseStep, Input, Left
from perdure.values.duration import Duration, microseconds, optional_microseconds
from perdure.values.retry import Retry

if TYPE_CHECKING:
    from perdure.graph.context import WorkflowContext
    from perdure.graph.interpret import Visit


class PollStep(BaseMachineStep):
    """Waits an interval, asks, and so on until the answer is ``{"done": True, "result": …}``.

    It is bounded, by ``max_attempts`` checks or ``poll_timeout`` from its first visit.
    """

    told_as: ClassVar[str] = "poll"
    form = Form(
        "poll",
        check=FUNCTION,
        interval=DURATION,
        timeout=("poll_timeout", DURATION),
        check_timeout=("timeout", DURATION),
        input=INPUT,
        output=KIND,
    )

    def __init__(
        self,
        name: str,
        check: Handler,
        *,
        interval: Duration,
        poll_timeout: Duration | None = None,
        max_attempts: int | None = None,
        input: Any = None,
        output: Any = None,
        retry: Retry | None = None,
        **attributes: Any,
    ) -> None:
        super().__init__(name, **attributes)
        self.check, self.max_attempts, self.retry = check, max_attempts, retry
        self.input = Input(name, input)
        self.output = output
        self._output = Kind(output, what=f"{name} -> output")
        self.interval = microseconds(interval, what=f"interval of poll {name!r}")
        self.limit = optional_microseconds(poll_timeout, what=f"timeout of poll {name!r}")

    def callee(self, path: str) -> Callee:
        return Callee(self.check, f"step {self.name!r}")

    async def visit(self, visit: Visit) -> Left:
        value, since, count = self.input.of(visit), visit.now(), 0
        while True:
            if self.limit is not None and visit.now() - since >= self.limit:
                raise _poll_error(f'Poll step "{self.name}" timed out', "Timeout")
            if self.max_attempts is not None and count >= self.max_attempts:
                text = f'Poll step "{self.name}" exceeded maxAttempts ({self.max_attempts})'
                raise _poll_error(text, "PollLimit")
            await workflow.sleep(timedelta(microseconds=self.interval))
            count += 1
            answer = await visit.call(self._activity, self._callee, value)
            if not isinstance(answer, dict) or "done" not in answer:
                text = f'Poll step "{self.name}": check gave {answer!r}, not {{"done": …}}'
                raise _poll_error(text, "Invalid")
            found = cast("dict[str, Any]", answer)
            result, is_done = found.get("result"), bool(found["done"])
            visit.tell("poll", {"poll_count": count}, path="output")
            if is_done:
                try:
                    self._output.check(result)
                except errors.Invalid as exc:
                    raise _poll_error(
                        f"Output validation failed: {exc.message}", "Invalid"
                    ) from exc
                return Left(result, source="output.result")

    def functions(self) -> list[object]:
        return self.input.functions()

    def problems(self) -> list[str]:
        found = [*super().problems(), *self.input.problems()]
        found += [self._output.problem] if self._output.problem else []
        if self.max_attempts is not None:
            found += no_count("max_attempts", self.max_attempts, least=1)
        elif self.limit is None:
            found.append("a poll needs a bound: max_attempts= or timeout=")
        if self.limit == 0:
            found += no_limit("timeout", 0)
        return found if self.interval > 0 else [*found, "the interval of a poll must be above zero"]


class TimerStep(BaseStep):
    """Waits: ``duration``, or what a function makes of the context. Gives ``prev`` on."""

    step_type: ClassVar[StepType] = StepType.TIMER
    form = Form("wait", duration=DURATION_OR_FUNCTION)
    duration: Any = None

    def __init__(
        self,
        name: str = "",
        duration: Duration | Callable[[WorkflowContext], Duration] | None = None,
        **attributes: Any,
    ) -> None:
        super().__init__(name, **attributes)
        if duration is not None:
            self.duration = duration

    def get_duration(self, context: WorkflowContext) -> Duration:
        """Return how long to wait."""
        given = self.asking("duration")
        return cast("Duration", given(context) if callable(given) else given)

    async def execute(self, context: WorkflowContext) -> Any:
        """Wait here and now (for a timer that is tried by itself: not durable)."""
        given = await self._duration(context)
        duration = microseconds(given, what=f"duration of {self.name!r}")
        await asyncio.sleep(duration / 1_000_000)

    async def visit(self, visit: Visit) -> Left:
        await workflow.sleep(await self._duration(visit.ctx))
        return Left(visit.value, is_output=False)

    async def _duration(self, context: WorkflowContext) -> Duration:
        given: Any = self.get_duration(context)
        return await given if inspect.isawaitable(given) else given

    def functions(self) -> list[object]:
        if type(self).get_duration is not TimerStep.get_duration:
            return [type(self).get_duration]
        return [self.duration] if callable(self.duration) else []

    def problems(self) -> list[str]:
        if self.duration is None and type(self).get_duration is TimerStep.get_duration:
            return ["a timer needs a duration"]
        if self.duration is None or callable(self.duration):
            return []
        return no_span("duration", self.duration)


class WebhookStep(BaseStep):
    """Waits for a message on ``topic`` (the step's name), no longer than ``timeout``.

    The output is its payload. Messages that came before the step began count; if it is
    ``transient``, they are lost.
    """

    step_type: ClassVar[StepType] = StepType.WEBHOOK
    form = Form("webhook", topic=TEXT, callback_key=TEXT)
    heeds: ClassVar[frozenset[str]] = frozenset({"timeout"})
    callback_key: str = "webhook_data"
    topic: str = ""
    transient: bool = False

    def __init__(
        self, name: str = "", callback_key: str = "", description: str = "", **attributes: Any
    ) -> None:
        super().__init__(name, description, **attributes)
        if callback_key:
            self.callback_key = callback_key

    async def execute(self, context: WorkflowContext) -> Any:
        """Return what has come, as ``data`` has it (for a webhook that is tried by itself)."""
        return context.get(self.callback_key)

    async def visit(self, visit: Visit) -> Left:
        topic = self.topic or self.name
        channel = workflow.listen(topic)
        if self.transient:
            channel.drain()
        try:
            output = await channel.receive(timeout=self.timeout)
        except TimeoutError:
            text = f"no message on {topic!r} came within {self.timeout}"
            raise errors.ApplicationError(text, kind="Timeout", retryable=False) from None
        visit.set_data(self.callback_key, output)
        return Left(output)

    def shape(self) -> list[Any]:
        return [*super().shape(), "transient"] if self.transient else super().shape()


class DeferredChoice(BaseStep):
    """Waits for the first message on one of several topics, which says where to go on.

    The output is its payload. With ``timeout`` the run goes on at ``late`` if none came in time.
    """

    step_type: ClassVar[StepType] = StepType.WEBHOOK
    heeds: ClassVar[frozenset[str]] = frozenset({"timeout"})
    form = Form("deferred-choice", late=TEXT)

    def __init__(
        self, name: str, ways: Mapping[str, str], *, late: str = "", **attributes: Any
    ) -> None:
        super().__init__(name, **attributes)
        self.ways, self.late = dict(ways), late

    async def visit(self, visit: Visit) -> Left:
        topics = {topic: workflow.listen(topic) for topic in self.ways}
        limit = [] if self.timeout is None else [workflow.after(self.timeout)]
        came, payload = await workflow.select(*topics.values(), *limit)
        for topic, channel in topics.items():
            if channel is came:
                return Left(payload, to=[self.ways[topic]])
        return Left(None, is_output=False, to=[self.late])

    def jumps(self) -> dict[str, str]:
        found = {step: topic for topic, step in self.ways.items()}
        return {**found, self.late: "late"} if self.late else found

    def shape(self) -> list[Any]:
        return [*super().shape(), list(self.ways.items()), self.late]

    def problems(self) -> list[str]:
        found = [] if self.ways else ["it waits for no topic"]
        if (self.timeout is None) is bool(self.late):
            found.append("timeout= and late= belong together")
        return found


class MilestoneStep(BaseStep):
    """Goes on between two other steps of the graph: ``reached`` has ended, ``passed`` not begun.

    It waits for ``reached``. If ``passed`` has begun since, or ``reached`` cannot come any more,
    the run goes on at ``late``; without one, this branch ends.
    """

    step_type: ClassVar[StepType] = StepType.GATEWAY
    form = Form("milestone", reached=TEXT, passed=TEXT, late=TEXT)

    def __init__(
        self, name: str, reached: str, passed: str = "", *, late: str = "", **attributes: Any
    ) -> None:
        super().__init__(name, **attributes)
        self.reached, self.passed, self.late = reached, passed, late

    async def visit(self, visit: Visit) -> Left:
        await workflow.wait_condition(
            lambda: visit.times(self.reached)[1] or not visit.is_awaited(self.reached)
        )
        ended, begun = visit.times(self.reached)[1], visit.times(self.passed)[0]
        if ended > begun:
            return Left(None, is_output=False)
        return Left(None, is_output=False, to=[self.late] if self.late else [])

    def jumps(self) -> dict[str, str]:
        return {self.late: "late"} if self.late else {}

    def mentions(self) -> dict[str, str]:
        found = {**super().mentions(), self.reached: "once it has ended"}
        return {**found, self.passed: "until it begins"} if self.passed else found

    def shape(self) -> list[Any]:
        return [*super().shape(), self.reached, self.passed, self.late]


def _poll_error(text: str, kind: str) -> errors.ApplicationError:
    return errors.ApplicationError(text, kind=kind, retryable=False)
