"""A definition: a graph that engines, clients and other workflows start like any workflow.

The builder and the step classes are two ways to write one. Its function interprets the graph
(``graph/interpret.py``).
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import msgspec

from perdure import errors
from perdure.definition import Workflow
from perdure.graph.check import doubts, mistakes
from perdure.graph.conditions import holds, refusal
from perdure.graph.interpret import interpret
from perdure.graph.kinds import Kind
from perdure.graph.mermaid import draw
from perdure.graph.outline import Edge, Outline, Way
from perdure.graph.paths import WorkflowGraph
from perdure.graph.steps import STEP_DEFAULT, BaseStep
from perdure.values.duration import Duration, optional_microseconds
from perdure.values.retry import Retry, RetryPolicy

INTERPRETER = 1
"""Part of each definition's fingerprint: it changes when histories of before do not fit."""


class WorkflowDefinition(Workflow[Any, Any]):
    """See the module's text.

    Args:
        name: unique among the definitions of an engine, together with ``version``.
        version: a semantic version.
        description: for people.
        steps: by name, or in a list.
        edges: in the order in which they are tried.
        initial_step: the name of the first; the first of ``steps`` if left out.
        terminal_steps: names of those that end the run. A step without a way on ends it too.
        input: a type or JSON Schema that the workflow's input must fit.
        default_retry: of steps that give none.
        timeout: of a run, from its start, whoever started it; then it ends ``timed_out``.
        task_queue, triggers: as of any workflow.
    """

    def __init__(  # noqa: PLR0917 - seed 4's order, which its users write
        self,
        name: str,
        version: str = "1.0.0",
        description: str = "",
        steps: Mapping[str, BaseStep] | Iterable[BaseStep] = (),
        edges: Iterable[Way] = (),
        initial_step: str | BaseStep | type[BaseStep] = "",
        terminal_steps: Iterable[str | BaseStep | type[BaseStep]] = (),
        *,
        input: Any = Any,
        default_retry: Retry | RetryPolicy = STEP_DEFAULT,
        timeout: Duration | None = None,
        task_queue: str = "default",
        triggers: tuple[str, ...] = (),
    ) -> None:
        if isinstance(default_retry, Retry):
            default_retry = default_retry.resolve(STEP_DEFAULT)
        outline = Outline(name, steps, edges, initial_step, terminal_steps)
        outline.settle(name, default_retry)
        kind = Kind(None if input is Any else input, what=f"{name}(input)")
        super().__init__(
            _function(outline, kind.given),
            name=name,
            version=version,
            task_queue=task_queue,
            triggers=triggers,
            description=description,
        )
        if kind.given is not None:
            self._read_input = kind.read
        self._kind = kind
        self.timeout = _limit(timeout, f"timeout of {name!r}")
        self.outline = outline
        self.default_retry = default_retry
        self.input = input
        self.source = ""
        self.code = self._fingerprint()
        self.parts = tuple(_functions(outline))
        _compile(outline)

    @property
    def steps(self) -> dict[str, BaseStep]:
        """The steps by name."""
        return self.outline.steps

    @property
    def edges(self) -> list[Edge]:
        """The edges, in the order in which they are tried."""
        return self.outline.edges

    @property
    def initial_step(self) -> str:
        """The name of the first step."""
        return self.outline.initial_step

    @property
    def terminal_steps(self) -> set[str]:
        """Names of the steps that end the run."""
        return self.outline.terminal_steps

    def get_next_steps(self, step: str, context: Any) -> list[str]:
        """Return the steps whose edges hold, in the order of the edges."""
        return [edge.target for edge in self.outline.ways_on(step) if holds(edge, lambda: context)]

    def get_graph(self) -> WorkflowGraph:
        """Return neighbours, paths and depths."""
        return WorkflowGraph(self.outline)

    def validate(self) -> list[str]:
        """Return what is wrong with the definition; nothing if it can run. Warns of doubts."""
        found = [f"Input: {self._kind.problem}"] if self._kind.problem else []
        for doubt in self.warnings():
            warnings.warn(f"workflow {self.name!r}: {doubt}", stacklevel=2)
        return [*found, *mistakes(self.outline)]

    def warnings(self) -> list[str]:
        """Return what may not be what was meant: conditions that are labels, which always hold."""
        return doubts(self.outline)

    def to_mermaid(self) -> str:
        """Return a Mermaid diagram."""
        return draw(self.outline)

    def to_mermaid_with_state(
        self,
        current_step: str | None = None,
        completed_steps: Iterable[str] = (),
        failed_steps: Iterable[str] = (),
    ) -> str:
        """Return a Mermaid diagram with the state of a run."""
        return draw(self.outline, current_step, completed_steps, failed_steps)

    def __repr__(self) -> str:
        return f"<graph {self.name!r} {self.version}>"

    def _fingerprint(self) -> str:
        """Return a hash of what decides the commands: steps and edges, not what handlers do."""
        text = msgspec.json.encode([INTERPRETER, _shape(self.outline)], enc_hook=repr)
        return hashlib.blake2b(text, digest_size=8).hexdigest()


def _limit(timeout: Duration | None, what: str) -> int:
    limit = optional_microseconds(timeout, what=what)
    if limit == 0:
        raise errors.Invalid(f"{what}: {timeout!r} leaves no time; leave it out for no limit")
    return limit or 0


def _function(outline: Outline, kind: Any) -> Callable[..., Any]:
    async def run(input: Any = None) -> Any:
        return await interpret(outline, input)

    if kind is not None:
        run.__defaults__ = None  # an input that must fit something must be given
        run.__annotations__["input"] = Any if isinstance(kind, Mapping) else kind
    return run


def _shape(outline: Outline) -> list[Any]:
    return [
        outline.name,
        outline.initial_step,
        sorted(outline.terminal_steps),
        [
            [name, step.shape(), [_shape(inner) for inner in step.inner()]]
            for name, step in outline.steps.items()
        ],
        [[edge.source, edge.target, edge.label] for edge in outline.edges],
    ]


def _compile(outline: Outline) -> None:
    """Compile what is CEL, so that no run has to; what cannot be is for the checker to say."""
    asked = [edge.condition for edge in outline.edges]
    for step in outline.steps.values():
        asked += step.conditions()
        for inner in step.inner():
            _compile(inner)
    for condition in asked:
        refusal(condition)


def _functions(outline: Outline) -> Iterator[object]:
    """Yield the user's functions that run as workflow code: conditions and mappers."""
    for edge in outline.edges:
        if callable(edge.condition):
            yield edge.condition
    for step in outline.steps.values():
        yield from step.functions()
        for inner in step.inner():
            yield from _functions(inner)
