"""A definition: a graph that engines, clients and other workflows start like any workflow.

The builder and the step classes are two ways to write one. Its function interprets the graph
(``graph/interpret.py``).
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import msgspec

from perdure import errors, places
from perdure.definition import Workflow
from perdure.graph.calls import StepCall
from perdure.graph.check import mistakes
from perdure.graph.conditions import holds
from perdure.graph.interpret import interpret
from perdure.graph.mermaid import draw
from perdure.graph.outline import Edge, Outline, Way
from perdure.graph.paths import WorkflowGraph
from perdure.graph.steps import STEP_DEFAULT, BaseStep
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
        input: a type that the workflow's input is checked against.
        default_retry: of steps that give none.
        task_queue, triggers: as of any workflow.
        isolated: whether handlers run in subprocesses; as the engine says if left out. Subprocesses
            find the definition under a name at the top level of its module (docs/isolation.md).
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
        task_queue: str = "default",
        triggers: tuple[str, ...] = (),
        isolated: bool | None = None,
    ) -> None:
        if isinstance(default_retry, Retry):
            default_retry = default_retry.resolve(STEP_DEFAULT)
        outline = Outline(name, steps, edges, initial_step, terminal_steps)
        outline.settle(name, default_retry)
        super().__init__(
            _function(outline, input),
            name=name,
            version=version,
            task_queue=task_queue,
            triggers=triggers,
            description=description,
        )
        self.outline = outline
        self.default_retry = default_retry
        self.input = input
        self.source = ""
        self.code = self._fingerprint()
        self.parts = tuple(_functions(outline))
        self.isolated = isolated
        self.calls = {call.name: call for call in _calls(outline)}
        """The handlers' activities, by name."""
        for call in self.calls.values():
            call.home = self
        self._made_in = _caller()
        self._place: places.Place | None = None

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

    def check_place(self) -> None:
        """Make sure that a subprocess finds the definition: see :meth:`place`."""
        self.place()

    def place(self) -> places.Place:
        """Return where a subprocess finds the definition.

        Raises:
            DefinitionError: no module has it under a name.
        """
        if self._place is None:
            module, name = self._made_in, places.named_in(self._made_in, self)
            if not name:
                module, name = places.found_anywhere(self)
            if not name:
                raise errors.DefinitionError(
                    f"workflow {self.name!r} is isolated, and a subprocess could not find it: it "
                    f"was made in module {self._made_in!r}, and no module has it under a name. "
                    "Assign it to a name at the top level of a module, or say .isolated(False)"
                )
            self._place = places.place_of(module, name)
        return self._place

    def get_next_steps(self, step: str, context: Any) -> list[str]:
        """Return the steps whose edges hold, in the order of the edges."""
        return [edge.target for edge in self.outline.ways_on(step) if holds(edge, lambda: context)]

    def get_graph(self) -> WorkflowGraph:
        """Return neighbours, paths and depths."""
        return WorkflowGraph(self.outline)

    def validate(self) -> list[str]:
        """Return what is wrong with the definition; nothing if it can run."""
        return mistakes(self.outline)

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


def _function(outline: Outline, kind: Any) -> Callable[..., Any]:
    async def run(input: Any = None) -> Any:
        return await interpret(outline, input)

    run.__annotations__["input"] = kind
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


def _calls(outline: Outline) -> Iterator[StepCall]:
    """Yield the activities of all handlers."""
    for step in outline.steps.values():
        yield from step.calls()
        for inner in step.inner():
            yield from _calls(inner)


def _caller() -> str:
    """Return the module in which the definition is being made."""
    frame = inspect.currentframe()
    own = __name__.rpartition(".")[0]
    while frame is not None and frame.f_globals.get("__name__", "").startswith(own):
        frame = frame.f_back
    return "" if frame is None else frame.f_globals.get("__name__", "")


def _functions(outline: Outline) -> Iterator[object]:
    """Yield the user's functions that run as workflow code: conditions and mappers."""
    for edge in outline.edges:
        if callable(edge.condition):
            yield edge.condition
    for step in outline.steps.values():
        yield from step.functions()
        for inner in step.inner():
            yield from _functions(inner)
