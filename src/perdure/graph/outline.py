"""The shape of a graph: steps, the edges between them, where it begins and where it ends."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

from perdure.graph.conditions import holds

if TYPE_CHECKING:
    from perdure.graph.steps import BaseStep
    from perdure.values.retry import RetryPolicy

Condition = Callable[[Any], Any]


class Edge:
    """A way from one step to another; taken if its condition holds.

    Args:
        source: name, object or class of the step before.
        target: of the step after.
        condition: a function of the context, a CEL text that names ``context``, or any other text:
            a label, which always holds.
    """

    __slots__ = ("condition", "source", "target")

    def __init__(
        self,
        source: str | BaseStep | type[BaseStep],
        target: str | BaseStep | type[BaseStep],
        condition: str | Condition | None = None,
    ) -> None:
        self.source = name_of(source)
        self.target = name_of(target)
        self.condition = condition

    def get_source_name(self) -> str:
        """Return the name of the step before."""
        return self.source

    def get_target_name(self) -> str:
        """Return the name of the step after."""
        return self.target

    def evaluate_condition(self, context: Any) -> bool:
        """Tell whether it may be taken from what a context says now; a label holds.

        Raises:
            ApplicationError: the condition cannot be evaluated, or is neither true nor false.
            Exception: what the function raises.
        """
        return holds(self, lambda: context)

    @property
    def label(self) -> str:
        """What a diagram writes on it."""
        if self.condition is None:
            return ""
        return self.condition if isinstance(self.condition, str) else "conditional"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Edge) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        condition = f", condition={self.condition!r}" if self.condition is not None else ""
        return f"Edge({self.source!r}, {self.target!r}{condition})"

    def _key(self) -> tuple[str, str, Any]:
        return self.source, self.target, self.condition


Way = Edge | tuple[str, str] | tuple[str, str, str | Condition]
"""An edge, or what makes one: ``("from", "to")``, ``("from", "to", condition)``."""


class Outline:
    """See the module's text. ``edges`` are tried in their order."""

    def __init__(
        self,
        name: str,
        steps: Mapping[str, BaseStep] | Iterable[BaseStep] = (),
        edges: Iterable[Way] = (),
        initial_step: str | BaseStep | type[BaseStep] = "",
        terminal_steps: Iterable[str | BaseStep | type[BaseStep]] = (),
    ) -> None:
        self.name = name
        self.steps = (
            dict(cast("Mapping[str, BaseStep]", steps))
            if isinstance(steps, Mapping)
            else {step.name: step for step in steps}
        )
        self.edges = [_edge(way) for way in edges]
        self.mistakes: list[str] = []
        """What was found wrong while it was written down."""
        self.initial_step = name_of(initial_step) or next(iter(self.steps), "")
        self.terminal_steps = {name_of(step) for step in terminal_steps}
        self._out: dict[str, list[Edge]] = {}
        for edge in self.edges:
            self._out.setdefault(edge.source, []).append(edge)
        self._into: dict[str, int] = {}
        self.decides: set[str] = set()
        """The steps after which not every way has to be taken."""
        for step in self.steps:
            followers = self.followers(step)
            if len(followers) > 1 or any(edge.condition for edge in self.ways_on(step)):
                self.decides.add(step)
            for target in followers:
                self._into[target] = self._into.get(target, 0) + 1
        self.meets = {
            name
            for name, step in self.steps.items()
            if self.ways_to(name) > 1 or step.join not in ("active", "each")
        }
        """Where tokens may have to wait for each other."""
        self._reached: dict[tuple[str, str], bool] = {}
        self._regions: dict[str, frozenset[str]] = {}
        self.loops_within: dict[str, frozenset[str]] = {}
        """What :func:`~perdure.graph.looping.loops_within` has found."""

    def copied(self) -> Outline:
        """Return the same graph with steps of its own."""
        made = copy.copy(self)
        made.steps = {name: step.copied() for name, step in self.steps.items()}
        return made

    def settle(self, path: str, default: RetryPolicy) -> None:
        """Give the steps their places: ``path`` is the graph's, ``default`` their retry policy."""
        for step in self.steps.values():
            step.belong(f"{path}.{step.name}", default)

    def ways_on(self, step: str) -> list[Edge]:
        """Return the edges out of a step, in their order; none out of a terminal one."""
        return [] if step in self.terminal_steps else self._out.get(step, [])

    def ways_to(self, step: str) -> int:
        """Return how many steps lead to a step."""
        return self._into.get(step, 0)

    def followers(self, step: str) -> list[str]:
        """Return where a step may lead: its edges' targets, and where it may jump."""
        jumps = self.steps[step].jumps() if step in self.steps else {}
        return list(dict.fromkeys([*(edge.target for edge in self.ways_on(step)), *jumps]))

    def can_reach(self, start: str, goal: str) -> bool:
        """Tell whether a token that is at ``start`` may still arrive at ``goal``."""
        key = start, goal
        found = self._reached.get(key)
        if found is None:
            found = self._reached[key] = self._search(start, goal)
        return found

    def region(self, step: BaseStep) -> frozenset[str]:
        """Return the steps whose visits a step cancels when it begins."""
        found = self._regions.get(step.name)
        if found is None:
            named = self._before(step.name) if step.cancels == "incoming" else step.cancels
            found = self._regions[step.name] = frozenset(named)
        return found

    def _before(self, step: str) -> set[str]:
        """Return the steps from which a way leads to a step, other than through itself."""
        found: set[str] = set()
        waiting = [step]
        while waiting:
            here = waiting.pop()
            more = {it for it in self.steps if here in self.followers(it)} - found - {step}
            found |= more
            waiting += more
        return found

    def _search(self, start: str, goal: str) -> bool:
        seen: set[str] = set()
        waiting = self.followers(start)
        while waiting:
            step = waiting.pop()
            if step == goal:
                return True
            if step not in seen:
                seen.add(step)
                waiting += self.followers(step)
        return False


def _edge(way: Way) -> Edge:
    if isinstance(way, Edge):
        return way
    source, target, *condition = way
    return Edge(source, target, *condition)


def name_of(step: str | BaseStep | type[BaseStep]) -> str:
    """Return the name of a step given by name, as an object or as a class."""
    if isinstance(step, str):
        return step
    name: Any = getattr(step, "name", "")
    if not name and inspect.isclass(step):
        return step.__name__
    return str(name)
