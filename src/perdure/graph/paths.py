"""A graph to ask: neighbours, paths, depths (seed 4's ``WorkflowGraph``)."""

from __future__ import annotations

from collections import deque
from typing import Any, Protocol

from perdure import errors
from perdure.graph.check import mistakes
from perdure.graph.conditions import holds
from perdure.graph.outline import Outline


class HasOutline(Protocol):
    """A definition."""

    outline: Outline


class WorkflowGraph:
    """See the module's text. Steps are named.

    ``WorkflowGraph(definition)``, ``WorkflowGraph.from_definition(definition)`` and
    ``definition.get_graph()`` give the same.

    Raises:
        UsageError: it was given no definition.
    """

    def __init__(self, definition: HasOutline | Outline) -> None:
        given: Any = definition
        outline = given if isinstance(given, Outline) else getattr(given, "outline", None)
        if not isinstance(outline, Outline):
            raise errors.UsageError(
                f"WorkflowGraph: {given!r} is no definition; give a WorkflowDefinition: what "
                "flow(…).build() returns, or get_definition() of a workflow class"
            )
        self._outline = outline

    @classmethod
    def from_definition(cls, definition: HasOutline) -> WorkflowGraph:
        """Return the graph of a definition."""
        return cls(definition)

    def get_next_steps(self, step: str, context: Any = None) -> list[str]:
        """Return the steps that may follow; with a context those whose edges hold."""
        if context is None:
            return self._outline.followers(step)
        return [edge.target for edge in self._outline.ways_on(step) if holds(edge, lambda: context)]

    def get_previous_steps(self, step: str) -> list[str]:
        """Return the steps that lead to it."""
        return [it for it in self._outline.steps if step in self._outline.followers(it)]

    def is_terminal(self, step: str) -> bool:
        """Tell whether the run may end there."""
        return step in self._outline.terminal_steps or not self._outline.followers(step)

    def validate(self) -> list[str]:
        """Return what is wrong with the graph."""
        return mistakes(self._outline)

    def to_dict(self) -> dict[str, list[dict[str, Any]]]:
        """Return nodes and edges for whoever draws them.

        A node has ``id``, ``label``, ``type``, ``is_initial``, ``is_terminal``, and the graphs of
        its branches under ``branches``, if it has some; an edge ``source``, ``target`` and, if it
        has one, its ``condition`` (``conditional`` for a function).
        """
        outline = self._outline
        nodes: list[dict[str, Any]] = []
        for name, step in outline.steps.items():
            node: dict[str, Any] = {
                "id": name,
                "label": name.replace("_", " ").title(),
                "type": str(step.step_type),
                "is_initial": name == outline.initial_step,
                "is_terminal": self.is_terminal(name),
            }
            if inner := step.inner():
                node["branches"] = {it.name: type(self)(it).to_dict() for it in inner}
            nodes.append(node)
        edges = [_edge(edge.source, edge.target, edge.label) for edge in outline.edges]
        drawn = {(edge.source, edge.target) for edge in outline.edges}
        for name, step in outline.steps.items():
            jumps = step.jumps().items()
            edges += [_edge(name, it, label) for it, label in jumps if (name, it) not in drawn]
        return {"nodes": nodes, "edges": edges}

    def get_all_paths(self, start: str, end: str, max_paths: int = 100) -> list[list[str]]:
        """Return the ways from ``start`` to ``end`` that pass no step twice, ``max_paths`` at most,
        in the order of the edges.
        """
        found: list[list[str]] = []
        waiting = deque([[start]])
        while waiting and len(found) < max_paths:
            path = waiting.pop()
            if path[-1] == end:
                found.append(path)
                continue
            followers = [it for it in self.get_next_steps(path[-1]) if it not in path]
            waiting.extend([*path, it] for it in reversed(followers))
        return found

    def get_step_depth(self, step: str) -> int:
        """Return how many steps lie before it on the shortest way; -1 if there is none."""
        depths = {self._outline.initial_step: 0}
        waiting = deque(depths)
        while waiting:
            here = waiting.popleft()
            for after in self.get_next_steps(here):
                if after not in depths:
                    depths[after] = depths[here] + 1
                    waiting.append(after)
        return depths.get(step, -1)


def _edge(source: str, target: str, label: str) -> dict[str, Any]:
    found = {"source": source, "target": target}
    return {**found, "condition": label} if label else found
