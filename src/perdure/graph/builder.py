"""Step machines written as a chain of calls (seed 3)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self, cast

from perdure import errors
from perdure.graph.calls import Handler
from perdure.graph.combining import BlockStep, ParallelStep, SubflowStep
from perdure.graph.context import WorkflowContext
from perdure.graph.deciding import ChoiceStep, LoopStep
from perdure.graph.definition import WorkflowDefinition
from perdure.graph.instances import MapStep
from perdure.graph.naming import all_names, free_name
from perdure.graph.outline import Condition, Edge, Outline
from perdure.graph.people import BaseHumanStep
from perdure.graph.steps import (
    NOTHING,
    BaseStep,
    EndStep,
    JobStep,
    PassStep,
    TaskStep,
    policy_of,
)
from perdure.graph.waiting import DeferredChoice, PollStep, TimerStep, WebhookStep
from perdure.values.duration import Duration
from perdure.values.retry import Retry

Choices = Sequence[tuple[str | Condition, str] | Mapping[str, Any]]


class Branch:
    """A chain of steps. Each goes on to the one that is added after it, unless it says otherwise.

    ``next=`` names the step to go on to, ``end=True`` ends the chain there.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._steps: dict[str, BaseStep] = {}
        self._edges: list[Edge] = []
        self._ends: set[str] = set()
        self._start = ""
        self._open = ""
        """The step that goes on to whatever is added next."""
        self._mistakes: list[str] = []

    def task(
        self,
        name: str,
        handler: Handler | None = None,
        *,
        job: str | None = None,
        input: Any = None,
        output: Any = None,
        retry: Retry | None = None,
        timeout: Duration | None = None,
        section: str = "",
        next: str | None = None,
        end: bool = False,
    ) -> Self:
        """Add a handler: ``async def handler(input, ctx)``, with the context or without, or plain.

        Args:
            name: of the step, unique in its chain.
            handler: the function; or ``job``, the name of an activity.
            job: then ``input(ctx)`` makes its input and ``output(result, ctx)`` the step's output.
            input: a type or JSON Schema that checks, or a mapper ``(prev, workflow_input)``.
                Without it the step gets the output before it, the first one the workflow's input.
            output: a type that the output must fit.
            retry: attempts and pauses; one attempt if left out.
            timeout: of one attempt.
            section: of all steps with this name here, in whatever branch, one runs at a time.
            next: the step to go on to.
            end: end here.
        """
        if (handler is None) == (job is None):
            raise errors.DefinitionError(f"step {name!r}: give a handler, or job=, and not both")
        if job is not None:
            step: BaseStep = JobStep(
                name,
                job,
                input=input,
                output=output,
                retry=retry,
                timeout=timeout,
                section=section,
            )
        else:
            step = TaskStep(
                name,
                cast("Handler", handler),
                input=input,
                output=output,
                retry=retry,
                timeout=timeout,
                section=section,
            )
        return self.add(step, next=next, end=end)

    def block(
        self,
        name: str,
        branch: Branch | Outline,
        *,
        section: str = "",
        next: str | None = None,
        end: bool = False,
    ) -> Self:
        """Add a chain as one step; ``section`` is then held from its first step to its last."""
        return self.add(
            BlockStep(name, outline_of(branch, name), section=section), next=next, end=end
        )

    def parallel(
        self,
        name: str,
        branches: Sequence[Branch | Outline],
        *,
        on_error: str = "fail-fast",
        next: str | None = None,
        end: bool = False,
    ) -> Self:
        """Add branches that run side by side; the output is ``{branch name: its output}``.

        ``on_error="fail-fast"``: the first error cancels the others. ``"wait-all"``: one error that
        tells of all.
        """
        given: Any = branches
        if isinstance(given, (Branch, Outline, str, Mapping)) or not isinstance(given, Iterable):
            raise errors.DefinitionError(
                f"step {name!r}: branches={_shown(given)} is no list of branches; write "
                f"parallel({name!r}, [branch(name).task(…), branch(name).task(…)])"
            )
        outlines = [outline_of(branch, name) for branch in branches]
        return self.add(ParallelStep(name, outlines, on_error=on_error), next=next, end=end)

    def choice(self, name: str, choices: Choices, *, default: str | None = None) -> Self:
        """Add a decision: ``(condition, step)`` pairs in the order in which they are asked.

        A condition is a function of the context, or CEL: ``"context.steps.check.total > 100"``.
        """
        pairs = [_pair(name, choice) for choice in choices]
        self.add(ChoiceStep(name, pairs, default=default))
        self._open = ""
        return self

    def pass_(
        self,
        name: str,
        *,
        transform: Callable[[WorkflowContext], Any] | None = None,
        result: Any = NOTHING,
        next: str | None = None,
        end: bool = False,
    ) -> Self:
        """Add a step that gives ``result``, what ``transform(ctx)`` makes, or what came before."""
        return self.add(PassStep(name, transform=transform, result=result), next=next, end=end)

    def end(self, name: str = "end", *, cancels_rest: bool = False) -> Self:
        """Add an end. ``cancels_rest``: also of what still runs beside it."""
        return self.add(EndStep(name, cancels_rest=cancels_rest), end=True)

    def poll(
        self,
        name: str,
        check: Handler,
        *,
        interval: Duration,
        timeout: Duration | None = None,
        max_attempts: int | None = None,
        input: Any = None,
        output: Any = None,
        retry: Retry | None = None,
        next: str | None = None,
        end: bool = False,
    ) -> Self:
        """Add a wait for ``check(input, ctx)`` to give ``{"done": True, "result": …}``.

        The first check comes after one interval. A poll is bounded: give ``max_attempts``,
        ``timeout`` (of all of it), or both.
        """
        step = PollStep(
            name,
            check,
            interval=interval,
            poll_timeout=timeout,
            max_attempts=max_attempts,
            input=input,
            output=output,
            retry=retry,
        )
        return self.add(step, next=next, end=end)

    def loop(
        self,
        name: str,
        condition: str | Condition,
        target: str,
        *,
        interval: Duration | None = None,
        max_iterations: int | None = None,
        timeout: Duration | None = None,
        next: str | None = None,
        end: bool = False,
    ) -> Self:
        """Add a jump back to ``target`` while a condition (a function or CEL) holds, bounded."""
        step = LoopStep(
            name,
            condition,
            target,
            interval=interval,
            max_iterations=max_iterations,
            timeout=timeout,
        )
        return self.add(step, next=next, end=end)

    def wait(
        self,
        name: str,
        duration: Duration | Callable[[WorkflowContext], Duration],
        *,
        next: str | None = None,
        end: bool = False,
    ) -> Self:
        """Add a durable wait; what came before goes on."""
        return self.add(TimerStep(name, duration), next=next, end=end)

    def webhook(
        self,
        name: str,
        *,
        topic: str = "",
        timeout: Duration | None = None,
        transient: bool = False,
        next: str | None = None,
        end: bool = False,
    ) -> Self:
        """Add a wait for a message on ``topic`` (the step's name); its payload is the output.

        ``transient``: messages that came before the step began are lost.
        """
        step = WebhookStep(name, topic=topic, timeout=timeout, transient=transient)
        return self.add(step, next=next, end=end)

    def deferred_choice(
        self,
        name: str,
        ways: Mapping[str, str],
        *,
        timeout: Duration | None = None,
        late: str = "",
    ) -> Self:
        """Add a wait for the first message on one of several topics: ``{topic: step to go on at}``.

        Its payload is the output. ``late``: where to go on if none came within ``timeout``.
        """
        self.add(DeferredChoice(name, ways, late=late, timeout=timeout))
        self._open = ""
        return self

    def human(
        self,
        name: str,
        *,
        form: Any = None,
        next: str | None = None,
        end: bool = False,
        **options: Any,
    ) -> Self:
        """Add a step that a person does; what is entered is the output, checked against ``form``.

        Args:
            name: of the step.
            form: a type or a JSON Schema.
            next: the step to go on to.
            end: end here.
            **options: ``title``, ``description``, ``assignee``, ``assignee_key``, ``role`` (or
                ``group``), ``due``, ``remind``, ``priority``, ``data``, ``escalate``,
                ``approvers``, ``not_by``, ``type``, ``form_version``, ``on_reject``,
                ``on_expire``, as attributes of :class:`~perdure.graph.BaseHumanStep`.
        """
        step = BaseHumanStep(name, form_schema=form, **options)
        return self.add(step, next=next, end=end)

    def map(
        self,
        name: str,
        branch: Branch | Outline | Handler,
        *,
        items: Callable[[WorkflowContext], Sequence[Any]] | None = None,
        max_concurrent: int = 0,
        on_error: str = "fail-fast",
        enough: int | Callable[[list[Any]], Any] | None = None,
        rest: str = "cancel",
        more: str | Callable[[Any], Sequence[Any]] | None = None,
        finish: str = "",
        next: str | None = None,
        end: bool = False,
    ) -> Self:
        """Add one branch (or handler) per item of a list; the output is their outputs, in order.

        See :class:`MapStep` for how many are waited for, and how more are added.
        """
        step = MapStep(
            name,
            outline_of(branch, name, {name, *all_names(self._steps.values())}),
            items=items,
            max_concurrent=max_concurrent,
            on_error=on_error,
            enough=enough,
            rest=rest,
            more=more,
            finish=finish,
        )
        return self.add(step, next=next, end=end)

    def subflow(
        self,
        name: str,
        definition: Any,
        *,
        input: Any = None,
        next: str | None = None,
        end: bool = False,
    ) -> Self:
        """Add another workflow, by definition or name, as a child; its result is the output."""
        return self.add(SubflowStep(name, definition, input=input), next=next, end=end)

    def add(self, step: BaseStep, *, next: str | None = None, end: bool = False) -> Self:
        """Add any step."""
        if next is not None and end:
            self._mistakes.append(f"Step '{step.name}': next= and end=True exclude each other")
        given: Any = step.given.get("name", step.name)
        if not given:
            self._mistakes.append(f"a step of {self.name!r} has no name")
        elif not isinstance(given, str):
            self._mistakes.append(f"a step of {self.name!r} is named {given!r}, which is no text")
        if step.name in self._steps:
            free = free_name(step.name, self._steps)
            self._mistakes.append(f"more than one step is named '{step.name}'; call one '{free}'")
        if self._open and self._open != step.name:
            self._edges.append(Edge(self._open, step.name))
        self._steps[step.name] = step
        self._open = ""
        if end:
            self._ends.add(step.name)
        elif next is not None:
            self._edges.append(Edge(step.name, next))
        else:
            self._open = step.name
        return self

    def start_at(self, name: str) -> Self:
        """Begin at another step than the first that was added."""
        self._start = name
        return self

    def outline(self) -> Outline:
        """Return the graph; the checker tells what was wrong with the calls."""
        made = Outline(self.name, self._steps, self._edges, self._start, self._ends)
        made.mistakes = list(dict.fromkeys(self._mistakes))
        return made

    def build(self) -> Any:
        """Return the branch itself: its definition checks it."""
        return self


class Flow(Branch):
    """A workflow as a chain of steps; ``build()`` makes it a definition."""

    def __init__(
        self,
        name: str,
        version: str = "1.0.0",
        *,
        input: Any = Any,
        description: str = "",
        task_queue: str = "default",
        triggers: tuple[str, ...] = (),
    ) -> None:
        super().__init__(name)
        self._options: dict[str, Any] = {
            "version": version,
            "input": input,
            "description": description,
            "task_queue": task_queue,
            "triggers": triggers,
        }

    def default_retry(self, retry: Retry) -> Self:
        """Give steps that name none this policy."""
        self._options["default_retry"] = policy_of(retry, f"default_retry of {self.name!r}")
        return self

    def timeout(self, span: Duration) -> Self:
        """End a run as ``timed_out`` after this, measured from its start."""
        self._options["timeout"] = span
        return self

    def isolated(self, isolated: bool = True) -> Self:
        """Run the handlers in subprocesses, or (``False``) in the engine's process in any case."""
        self._options["isolated"] = isolated
        return self

    def build(self) -> WorkflowDefinition:
        """Return the definition.

        Raises:
            DefinitionError: all mistakes, each with its place.
        """
        outline = self.outline()
        made = WorkflowDefinition(
            self.name,
            steps=outline.steps,
            edges=outline.edges,
            initial_step=outline.initial_step,
            terminal_steps=outline.terminal_steps,
            **self._options,
        )
        made.outline.mistakes = outline.mistakes
        made.demand_valid()
        return made


def flow(name: str, version: str = "1.0.0", **options: Any) -> Flow:
    """Begin a workflow: see :class:`Flow`."""
    return Flow(name, version, **options)


def branch(name: str) -> Branch:
    """Begin a branch of a parallel or a map step."""
    return Branch(name)


def outline_of(given: Branch | Outline | Handler, step: str, taken: Iterable[str] = ()) -> Outline:
    """Return the graph of a branch of a step; a handler alone is a branch of one task, which has
    its name, or one that is not taken.

    Raises:
        DefinitionError: it is neither.
    """
    if isinstance(given, Outline):
        return given
    if isinstance(given, Branch):
        return given.outline().copied()  # it may be used again, elsewhere
    if not callable(given):
        raise errors.DefinitionError(
            f"step {step!r}: {given!r} is no branch: write branch(name).task(…)"
        )
    name = getattr(given, "__name__", "each")
    task = name if name not in taken else free_name(f"{step}-item", taken)
    return Branch(name).task(task, given).outline()


def _shown(given: Any) -> str:
    return f"branch({given.name!r})" if isinstance(given, (Branch, Outline)) else repr(given)


def _pair(step: str, choice: Any) -> tuple[str | Condition, str]:
    if isinstance(choice, Mapping):
        given = cast("Mapping[str, Any]", choice)
        choice = given.get("condition"), given.get("next")
    try:
        condition, target = choice
    except (TypeError, ValueError):
        raise errors.DefinitionError(
            f"step {step!r}: a choice is (condition, step), not {choice!r}"
        ) from None
    if not isinstance(target, str) or not (callable(condition) or isinstance(condition, str)):
        raise errors.DefinitionError(
            f"step {step!r}: a choice is (condition, step), not {choice!r}"
        )
    return condition, target
