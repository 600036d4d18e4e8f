"""Steps: what all kinds share, and those that do something themselves.

``visit`` is what a step does when the run comes by; it is workflow code. Tasks and step classes
call handlers, which are activities. Those that decide, wait or combine others are in
``deciding.py``, ``waiting.py`` and ``combining.py``. A new kind is a class with ``visit``.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, Self, runtime_checkable

from perdure import errors
from perdure.graph.calls import SKIPPED, Callee, Handler, StepCall
from perdure.graph.codecs import FUNCTION, INPUT, KIND, TEXT
from perdure.graph.forms import KINDS, Form, given_to
from perdure.graph.kinds import Kind
from perdure.graph.states import StepType
from perdure.values import events as ev
from perdure.values import payload
from perdure.values.duration import Duration, optional_microseconds
from perdure.values.retry import Retry, RetryPolicy

if TYPE_CHECKING:
    from perdure.graph.context import WorkflowContext
    from perdure.graph.interpret import Visit
    from perdure.graph.joins import Join
    from perdure.graph.outline import Condition, Outline

STEP_DEFAULT = RetryPolicy(max_attempts=1, max_interval=30_000_000, forgives_losses=True)
"""What a step's policy leaves out: one attempt, pauses from 1 s, doubled, up to 30 s.

A step that was under way when its worker died is done again, whatever the policy (seed 3)."""
NOTHING: Any = object()
"""Stands for a value that was not given, where ``None`` is one."""


class Left(NamedTuple):
    """How a step is left.

    ``is_output``: the output is the step's, and ``prev`` of what follows; a decision's is not.
    ``to``: where to go on, instead of by the edges. ``source``: where in the outcome of the visit's
    last activity the output stands (``path`` of ``ev.Emitted``), if it does.
    """

    output: Any = None
    is_output: bool = True
    to: Sequence[str] | None = None
    source: str | None = None


@runtime_checkable
class Step(Protocol):
    """What a step class has (seed 4). :class:`BaseStep` has it all."""

    name: str
    description: str

    async def execute(self, context: WorkflowContext) -> Any:
        """Do the step's work and return its output."""
        ...

    async def can_execute(self, context: WorkflowContext) -> bool:
        """Tell whether to do it; else the step is skipped."""
        ...

    async def on_success(self, context: WorkflowContext, result: Any) -> None:
        """Called after the work was done."""
        ...

    async def on_failure(self, context: WorkflowContext, error: Exception) -> None:
        """Called after an attempt failed."""
        ...


class BaseStep:
    """What all kinds share. Attributes are given in the class body or to the constructor.

    ``join``: when the step begins if several steps lead to it. ``"active"``: once, as soon as no
    branch under way can still arrive. ``"each"``: for every arrival. ``"first"``: for the first;
    the others of the same round are dropped. A number: for that many. ``"all"``: for one from each.
    ``cancels``: the steps whose visits are cancelled when this one begins; ``"incoming"``: all from
    which a way leads here, so that a join ends the branches it does not wait for.
    ``section``: a name. Of all steps of a run with the same one, in whatever branch, only one is
    under way at a time.
    """

    name: str = ""
    description: str = ""
    step_type: ClassVar[StepType] = StepType.MACHINE
    join: Join = "active"
    cancels: Sequence[str] = ()
    section: str = ""
    told_as: ClassVar[str] = ""
    """What listeners are told as its type, if not ``step_type``: the builder's word for it."""
    retry: Retry | None = None
    timeout: Duration | None = None
    heeds: ClassVar[frozenset[str]] = frozenset()
    """Which of ``retry`` and ``timeout`` mean something to this kind."""
    has_hooks: ClassVar[bool] = False
    """Whether runs call ``can_execute``, ``on_success`` and ``on_failure`` of this kind."""
    form: ClassVar[Form | None] = None
    """How this kind is written to files; a class of the user's needs none."""
    given: dict[str, Any]
    """What the constructor was given, by the names of its arguments."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        form = vars(cls).get("form")
        if isinstance(form, Form) and cls.__module__.startswith("perdure."):
            KINDS[form.kind] = cls

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        made = super().__new__(cls)
        made.given = given_to(made, args, kwargs)
        return made

    def __init__(self, name: str = "", description: str = "", **attributes: Any) -> None:
        self.is_named = bool(name or self.name)
        """Whether it has a name of its own; else the definition's, or its class's, is taken."""
        self.name = name or self.name or type(self).__name__
        if description:
            self.description = description
        for key, value in attributes.items():
            if not hasattr(type(self), key):
                raise errors.DefinitionError(
                    f"step {self.name!r}: {type(self).__name__} has no attribute {key!r}"
                )
            setattr(self, key, value)
        self.policy: RetryPolicy | None = None

    @property
    def told(self) -> str:
        """What listeners are told as its type."""
        return self.told_as or str(self.step_type)

    def copied(self) -> Self:
        """Return a step like this one, for another definition: place and policy are its own."""
        return copy.copy(self)

    def asking(self, name: str) -> Any:
        """Return an attribute; if it is a function, one of the context alone, also where the class
        body says it as a lambda of the context, which Python takes for a method.
        """
        given = getattr(self, name)
        if not (inspect.ismethod(given) and given.__self__ is self):
            return given
        code = getattr(given.__func__, "__code__", None)
        return given.__func__ if code is not None and code.co_argcount == 1 else given

    def belong(self, path: str, default: RetryPolicy) -> None:
        """Take a place in a definition: ``path`` names the step among all activities."""
        what = f"retry of step {self.name!r}"
        self.policy = default if self.retry is None else policy_of(self.retry, what)
        data = payload.encode({"step_type": self.told})
        self.began = ev.Emitted(name="step.started", step=self.name, data=data)

    async def visit(self, visit: Visit) -> Left:
        """Do what the step does; workflow code."""
        raise NotImplementedError

    async def execute(self, context: WorkflowContext) -> Any:
        """Do the step's work and return its output."""
        raise NotImplementedError(f"{type(self).__name__}.execute")

    async def can_execute(self, context: WorkflowContext) -> bool:
        """Tell whether to do it; else the step is skipped."""
        return True

    async def on_success(self, context: WorkflowContext, result: Any) -> None:
        """Called after the work was done."""

    async def on_failure(self, context: WorkflowContext, error: Exception) -> None:
        """Called after an attempt failed."""

    def jumps(self) -> dict[str, str]:
        """Return the steps it may lead to besides those its edges lead to, with their labels."""
        return {}

    def mentions(self) -> dict[str, str]:
        """Return the steps of the same graph that it names without leading to them, with labels."""
        return {} if isinstance(self.cancels, str) else dict.fromkeys(self.cancels, "cancels")

    def inner(self) -> list[Outline]:
        """Return the graphs inside the step."""
        return []

    def parts(self) -> list[BaseStep]:
        """Return the steps inside the step."""
        return [step for graph in self.inner() for step in graph.steps.values()]

    def functions(self) -> list[object]:
        """Return the user's functions that run as workflow code."""
        return []

    def conditions(self) -> list[str | Condition]:
        """Return the conditions that it asks, besides those of its edges."""
        return []

    def problems(self) -> list[str]:
        """Return what is wrong with the step by itself."""
        return []

    def calls(self) -> list[StepCall]:
        """Return the activities of its handlers."""
        return []

    def shape(self) -> list[Any]:
        """Return what decides the commands it makes."""
        found = [type(self).__name__, self.join, [graph.name for graph in self.inner()]]
        return [*found, self.cancels, self.section] if self.cancels or self.section else found

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"


class BaseMachineStep(BaseStep):
    """An automated step: subclass it and write ``execute``. ``timeout`` is of one attempt."""

    has_hooks: ClassVar[bool] = True
    heeds: ClassVar[frozenset[str]] = frozenset({"retry", "timeout"})

    def belong(self, path: str, default: RetryPolicy) -> None:
        super().belong(path, default)
        assert self.policy is not None
        limit = optional_microseconds(self.timeout, what=f"timeout of step {self.name!r}")
        self._callee = self.callee(path)
        self._activity = self._callee.as_activity(
            path, retry=self.policy, timeout=limit, step=self.name
        )

    def calls(self) -> list[StepCall]:
        return [self._activity]

    def callee(self, path: str) -> Callee:
        """Return what is called."""
        return Callee(self._perform, f"step {self.name!r}", takes="ctx")

    def problems(self) -> list[str]:
        return [*self._callee.problems(), *unawaitable(self)]

    async def visit(self, visit: Visit) -> Left:
        output = await visit.call(self._activity, self._callee, None)
        return Left(output, is_output=not visit.is_skipped, source="output")

    async def _perform(self, context: WorkflowContext) -> Any:
        if not await self.can_execute(context):
            return SKIPPED
        try:
            result = await self.execute(context)
        except Exception as error:
            await self.on_failure(context, error)
            raise
        await self.on_success(context, result)
        return result


class TaskStep(BaseMachineStep):
    """A handler with typed input and output (the builder's ``task``)."""

    told_as: ClassVar[str] = "task"
    form = Form("task", handler=FUNCTION, input=INPUT, output=KIND)

    def __init__(
        self,
        name: str,
        handler: Handler,
        *,
        input: Any = None,
        output: Any = None,
        retry: Retry | None = None,
        timeout: Duration | None = None,
        **attributes: Any,
    ) -> None:
        super().__init__(name, **attributes)
        self.handler = handler
        self.input = Input(name, input)
        self.output = output
        self.retry, self.timeout = retry, timeout

    def callee(self, path: str) -> Callee:
        return Callee(self.handler, f"step {self.name!r}", output=self.output)

    async def visit(self, visit: Visit) -> Left:
        output = await visit.call(self._activity, self._callee, self.input.of(visit))
        return Left(output, source="output")

    def functions(self) -> list[object]:
        return self.input.functions()

    def problems(self) -> list[str]:
        return [*super().problems(), *self.input.problems()]


class JobStep(BaseStep):
    """Runs the activity of a name (seed 3's legacy ``job=``)."""

    told_as: ClassVar[str] = "task"
    heeds: ClassVar[frozenset[str]] = frozenset({"retry", "timeout"})
    form = Form("job", job=TEXT, input=FUNCTION, output=FUNCTION)

    def __init__(
        self,
        name: str,
        job: str,
        *,
        input: Callable[[WorkflowContext], Any] | None = None,
        output: Callable[[Any, WorkflowContext], Any] | None = None,
        retry: Retry | None = None,
        timeout: Duration | None = None,
        **attributes: Any,
    ) -> None:
        super().__init__(name, **attributes)
        self.job, self.input, self.output = job, input, output
        self.retry, self.timeout = retry, timeout

    async def visit(self, visit: Visit) -> Left:
        value = visit.value if self.input is None else self.input(visit.ctx)
        result = await visit.call_by_name(self.job, value, self.policy, self.timeout)
        if self.output is None:
            return Left(result, source="")
        return Left(self.output(result, visit.ctx))

    def functions(self) -> list[object]:
        return [fn for fn in (self.input, self.output) if fn is not None]

    def problems(self) -> list[str]:
        job: Any = self.job
        is_named = isinstance(job, str) and bool(job)
        found = [] if is_named else [f"job={job!r}: give the name of an activity"]
        return found + [
            f"{what}={fn!r} is a type: with job=, write a function ({', '.join(args)})"
            if isinstance(fn, type)
            else problem
            for what, fn, args in (
                ("input", self.input, ["ctx"]),
                ("output", self.output, ["result", "ctx"]),
            )
            for problem in ([""] if isinstance(fn, type) else _problems_of_mapper(what, fn, *args))
        ]

    def shape(self) -> list[Any]:
        return [*super().shape(), self.job]


class PassStep(BaseStep):
    """Gives a value, what a function makes of the context, or ``prev`` on."""

    told_as: ClassVar[str] = "pass"
    form = Form("pass", transform=FUNCTION)

    def __init__(
        self,
        name: str,
        *,
        result: Any = NOTHING,
        transform: Callable[[WorkflowContext], Any] | None = None,
        **attributes: Any,
    ) -> None:
        super().__init__(name, **attributes)
        self.result, self.transform = result, transform

    async def visit(self, visit: Visit) -> Left:
        if self.result is not NOTHING:
            return Left(self.result)
        return Left(visit.value if self.transform is None else self.transform(visit.ctx))

    def functions(self) -> list[object]:
        return [] if self.transform is None else [self.transform]

    def problems(self) -> list[str]:
        found = _problems_of_mapper("transform", self.transform, "ctx")
        if self.transform is not None and self.result is not NOTHING:
            found.append("result= and transform= exclude each other")
        return found


class EndStep(PassStep):
    """Ends the run; with ``cancels_rest`` also what still runs beside it."""

    form = Form("end", transform=FUNCTION)

    def __init__(self, name: str = "end", *, cancels_rest: bool = False, **options: Any) -> None:
        super().__init__(name, **options)
        self.cancels_rest = cancels_rest

    async def visit(self, visit: Visit) -> Left:
        left = await super().visit(visit)
        if self.cancels_rest:
            visit.end_all()
        return left._replace(to=())


def unawaitable(step: Any) -> list[str]:
    """Say which methods of a step class are plain functions, where runs await what they give."""
    found: list[str] = []
    for name in ("execute", "can_execute", "on_success", "on_failure"):
        method: Any = getattr(step, name, None)
        fn = inspect.unwrap(getattr(method, "__func__", method))
        # What is no function may still give something to await, as an object that is called does.
        if inspect.isfunction(fn) and not inspect.iscoroutinefunction(fn):
            place = f"{type(step).__qualname__}.{name}"
            found.append(f"{place} is not async, and is awaited: write it with `async def`")
    return found


def policy_of(given: Any, what: str) -> RetryPolicy:
    """Return the policy of a step that a ``Retry`` stands for.

    Raises:
        DefinitionError: it is none.
    """
    if not isinstance(given, Retry):
        raise errors.DefinitionError(f"{what}: give a Retry, not {given!r}")
    return given.resolve(STEP_DEFAULT)


class Input:
    """A step's ``input=``: a type or JSON Schema that checks, or a mapper that makes it."""

    def __init__(self, step: str, given: Any) -> None:
        is_mapper = inspect.isroutine(given) or isinstance(given, functools.partial)
        self._mapper: Callable[..., Any] | None = given if is_mapper else None
        self._kind = Kind(None if is_mapper else given, what=f"{step}(input)")

    def of(self, visit: Visit) -> Any:
        """Return the input of a visit: ``prev``, or the workflow's input for the first step.

        Raises:
            ApplicationError: it does not fit, or the mapper failed.
        """
        if self._mapper is not None:
            return self._mapper(visit.ctx.prev, visit.ctx.input)
        try:
            self._kind.check(visit.value)
        except errors.Invalid as exc:
            raise errors.ApplicationError(
                f"Input validation failed: {exc.message}", kind="Invalid", retryable=False
            ) from exc
        return visit.value

    def problems(self) -> list[str]:
        """Return what is wrong with it."""
        if self._mapper is not None:
            return _problems_of_mapper("input", self._mapper, "prev", "workflow_input")
        return [self._kind.problem] if self._kind.problem else []

    def functions(self) -> list[object]:
        """Return the mapper, if there is one."""
        return [] if self._mapper is None else [self._mapper]


def _problems_of_mapper(what: str, mapper: Callable[..., Any] | None, *args: str) -> list[str]:
    if mapper is None:
        return []
    called = f"({', '.join(args)})"
    if not callable(mapper):
        return [f"{what}={mapper!r} is no function: it would be called by {called}"]
    try:
        signature = inspect.signature(mapper)
    except (TypeError, ValueError):
        return []
    try:
        signature.bind(*args)
    except TypeError:
        name = getattr(mapper, "__name__", repr(mapper))
        return [f"{what}={name}{signature} is called by {called}"]
    return []
