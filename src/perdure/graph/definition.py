"""A definition: a graph that engines, clients and other workflows start like any workflow.

The builder and the step classes are two ways to write one. Its function interprets the graph
(``graph/interpret.py``).
"""

from __future__ import annotations

import hashlib
import inspect
import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import msgspec

from perdure import errors, places
from perdure.definition import Workflow
from perdure.graph import files, texts
from perdure.graph.adapting import adapted
from perdure.graph.calls import StepCall
from perdure.graph.check import doubts, mistakes
from perdure.graph.conditions import holds, refusal
from perdure.graph.forms import settings_of
from perdure.graph.interpret import interpret
from perdure.graph.kinds import Kind
from perdure.graph.mermaid import draw
from perdure.graph.naming import all_steps
from perdure.graph.outline import Edge, Outline, Way
from perdure.graph.paths import WorkflowGraph
from perdure.graph.steps import STEP_DEFAULT, BaseStep
from perdure.graph.waiting import WebhookStep
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
        steps: by name, or in a list: step objects, their classes, or anything that follows
            :class:`~perdure.graph.Step`.
        edges: in the order in which they are tried.
        initial_step: the name of the first; the first of ``steps`` if left out.
        terminal_steps: names of those that end the run. A step without a way on ends it too.
        input: a type or JSON Schema that the workflow's input must fit.
        default_retry: of steps that give none.
        timeout: of a run, from its start, whoever started it; then it ends ``timed_out``.
        task_queue, triggers: as of any workflow.
        isolated: whether handlers run in subprocesses; as the engine says if left out. Subprocesses
            find the definition under a name at the top level of its module (docs/isolation.md).
    """

    def __init__(  # noqa: PLR0917 - seed 4's order, which its users write
        self,
        name: str,
        version: str = "1.0.0",
        description: str = "",
        steps: Mapping[str, Any] | Iterable[Any] = (),
        edges: Iterable[Way] = (),
        initial_step: str | BaseStep | type[BaseStep] = "",
        terminal_steps: Iterable[str | BaseStep | type[BaseStep]] = (),
        *,
        input: Any = Any,
        default_retry: Retry | RetryPolicy = STEP_DEFAULT,
        timeout: Duration | None = None,
        task_queue: str = "default",
        triggers: tuple[str, ...] = (),
        isolated: bool | None = None,
    ) -> None:
        if isinstance(default_retry, Retry):
            default_retry = default_retry.resolve(STEP_DEFAULT)
        outline = Outline(name, adapted(steps), edges, initial_step, terminal_steps)
        outline.settle(name, default_retry)
        kind = Kind(None if input is Any else input, what=f"{name}(input)")
        given: Any = name
        super().__init__(
            _function(outline, kind.given),
            name="" if given is None else name,  # a function would lend its own
            version=version,
            task_queue=task_queue,
            triggers=triggers,
            description=description,
        )
        if kind.given is not None:
            self._read_input = kind.read
        self.kind = kind
        self.timeout = _limit(timeout, f"timeout of {name!r}")
        self.outline = outline
        self.default_retry = default_retry
        self.input = input
        self.source = msgspec.json.encode(self.describe()).decode()
        self.code = self._fingerprint()
        # Most of what steps were given decides nothing, but a bound or an interval may.
        settings = map(settings_of, all_steps(outline.steps.values()))
        self.parts = (*_functions(outline), *settings)
        _compile(outline)
        self.isolated = _switch(isolated, f"isolated of {name!r}")
        self.calls = {call.name: call for call in _calls(outline)}
        """The handlers' activities, by name."""
        for call in self.calls.values():
            call.home = self
        self._made_in = _caller()
        self._place: places.Place | None = None
        self._is_read = False
        self.is_checked = False
        """Whether engines may take it as it is; else they look for mistakes first."""

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

    def check(self) -> None:
        """Raise what is wrong with a definition that was not built by ``build()``, all at once."""
        if not self.is_checked:
            self._demand()

    def check_place(self) -> None:
        """Make sure that a subprocess finds the definition: see :meth:`place`."""
        self.place()

    def place(self) -> places.Place:
        """Return where a subprocess finds the definition; one that was read from a document may
        be its own place.

        Raises:
            DefinitionError: no module has it under a name.
        """
        if self._place is None:
            module, name = self._made_in, places.named_in(self._made_in, self)
            if not name:
                module, name = places.found_anywhere(self)
            if not name and self._is_read:
                read = f"{WorkflowDefinition.__name__}.{self.from_json.__name__}"
                self._place = places.Place(__name__, read, document=self.to_json())
                return self._place
            if not name:
                raise errors.DefinitionError(
                    f"workflow {self.name!r} is isolated, and a subprocess could not find it: it "
                    f"was made in module {self._made_in!r}, and no module has it under a name. "
                    "Assign it to a name at the top level of a module, or say .isolated(False)"
                )
            self._place = places.place_of(module, name)
        return self._place

    def describe(self) -> dict[str, Any]:
        """Return what it consists of, as plain data: steps by name, edges, beginning and ends.

        ``webhooks``: under which keys of ``data`` its webhooks leave what has come.
        """
        outline = self.outline
        return {
            "name": self.name,
            "version": self.version,
            "description": self.description,
            "steps": list(outline.steps),
            "edges": [
                {"source": edge.source, "target": edge.target, "condition": edge.label or None}
                for edge in outline.edges
            ],
            "initial_step": outline.initial_step,
            "terminal_steps": sorted(outline.terminal_steps),
            "webhooks": {
                step.name: step.callback_key
                for step in all_steps(outline.steps.values())
                if isinstance(step, WebhookStep)
            },
        }

    def get_next_steps(self, step: str, context: Any) -> list[str]:
        """Return the steps whose edges hold, in the order of the edges."""
        return [edge.target for edge in self.outline.ways_on(step) if holds(edge, lambda: context)]

    def get_graph(self) -> WorkflowGraph:
        """Return neighbours, paths and depths."""
        return WorkflowGraph(self.outline)

    def validate(self) -> list[str]:
        """Return what is wrong with the definition; nothing if it can run. Warns of doubts."""
        self._warn(stacklevel=2)
        return self._mistakes()

    def demand_valid(self, source: str = "", *, stacklevel: int = 3) -> None:
        """Raise what :meth:`validate` returns.

        Raises:
            DefinitionError: all mistakes, each with its place; ``source`` is the file.
        """
        self._warn(stacklevel)
        self._demand(source)

    def _demand(self, source: str = "") -> None:
        if found := self._mistakes():
            listed = "".join(f"\n  - {mistake}" for mistake in found)
            where = f"{source}: " if source else ""
            raise errors.DefinitionError(f"{where}workflow {self.name!r} cannot run:{listed}")
        self.is_checked = True

    def _warn(self, stacklevel: int) -> None:
        for doubt in self.warnings():
            warnings.warn(f"workflow {self.name!r}: {doubt}", stacklevel=stacklevel + 1)

    def _mistakes(self) -> list[str]:
        found = [f"Input: {self.kind.problem}"] if self.kind.problem else []
        return [*found, *mistakes(self.outline)]

    def warnings(self) -> list[str]:
        """Return what may not be what was meant: conditions that are labels, which always hold."""
        return doubts(self.outline)

    def to_mermaid(self) -> str:
        """Return a Mermaid diagram."""
        return draw(self.outline)

    def to_mermaid_with_state(
        self,
        current_step: str | Iterable[str] | None = None,
        completed_steps: Iterable[str] = (),
        failed_steps: Iterable[str] = (),
        skipped_steps: Iterable[str] = (),
    ) -> str:
        """Return a Mermaid diagram with the state of a run, by names of steps."""
        return draw(self.outline, current_step, completed_steps, failed_steps, skipped_steps)

    def to_dict(self) -> dict[str, Any]:
        """Return the definition as JSON types.

        Raises:
            DefinitionError: it holds lambdas, inner functions, or conditions that are no texts; the
                message has each step, and what to do.
        """
        return files.write(self)

    def to_json(self) -> str:
        """Return the definition as a JSON document; raises as :meth:`to_dict`."""
        return json.dumps(self.to_dict(), ensure_ascii=False, indent=2, allow_nan=False)

    def to_yaml(self) -> str:
        """Return the definition as a YAML document (extra ``yaml``); raises as :meth:`to_dict`."""
        return texts.write_yaml(self.to_dict())

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return a definition made of what :meth:`to_dict` gives; it is validated.

        The modules that it names are imported, and nothing else is run.

        Raises:
            DefinitionError: the message has every mistake, with its place.
        """
        return cls._read(texts.Read(data, {}))

    @classmethod
    def from_json(cls, text: str | bytes | Path) -> Self:
        """Return the definition in a JSON text, or in a file; see :meth:`from_dict`."""
        return cls._read(texts.read_json(text))

    @classmethod
    def from_yaml(cls, text: str | bytes | Path) -> Self:
        """Return the definition in a YAML text, or in a file; see :meth:`from_dict`.

        Mistakes have their lines.
        """
        return cls._read(texts.read_yaml(text))

    @classmethod
    def _read(cls, found: texts.Read) -> Self:
        options, outline = files.read(found.value, files.place_in(found.lines, found.source))
        made = cls(
            steps=outline.steps,
            edges=outline.edges,
            initial_step=outline.initial_step,
            terminal_steps=outline.terminal_steps,
            **options,
        )
        made.demand_valid(found.source, stacklevel=4)
        made._is_read = True
        return made

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


def _switch(given: Any, what: str) -> bool | None:
    if given is not None and not isinstance(given, bool):
        raise errors.DefinitionError(
            f"{what}: {given!r} is neither True nor False; leave it out for what the engine says"
        )
    return given


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
        [[edge.source, edge.target, edge.label] for edge in _by_step(outline)],
    ]


def _by_step(outline: Outline) -> list[Edge]:
    """Return the edges in the order of their steps: only those of one step are tried in order."""
    places = {name: number for number, name in enumerate(outline.steps)}
    return sorted(outline.edges, key=lambda edge: places.get(edge.source, len(places)))


def _compile(outline: Outline) -> None:
    """Compile what is CEL, so that no run has to; what cannot be is for the checker to say."""
    asked = [edge.condition for edge in outline.edges]
    for step in outline.steps.values():
        asked += step.conditions()
        for inner in step.inner():
            _compile(inner)
    for condition in asked:
        refusal(condition)


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
