"""One name, one step: in a whole definition, also in branches, blocks, maps and groups.

What a run tells of its steps, by name, says so of one place: results, events, progress, retries.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from perdure.graph.combining import ConditionalGroup, StepGroup
from perdure.graph.outline import Outline
from perdure.graph.steps import BaseStep


def repeated_names(outline: Outline) -> Iterator[str]:
    """Say which steps have the name of a step elsewhere, and how they could be called."""
    taken = dict.fromkeys(outline.steps, "")
    for name, step in outline.steps.items():
        yield from _within(step, f"Step '{name}'", taken)


def free_name(name: str, taken: Iterable[str]) -> str:
    """Return a name that is not taken: the one given, or that with a number."""
    names, number, free = set(taken), 2, name
    while free in names:
        free, number = f"{name}-{number}", number + 1
    return free


def all_names(steps: Iterable[BaseStep]) -> Iterator[str]:
    """Yield the names of steps, and of all that is inside them."""
    return (step.name for step in all_steps(steps))


def all_steps(steps: Iterable[BaseStep]) -> Iterator[BaseStep]:
    """Yield steps, and all that is inside them."""
    for step in steps:
        yield step
        yield from all_steps(step.parts())


def _within(step: BaseStep, place: str, taken: dict[str, str]) -> Iterator[str]:
    """``taken``: names, and where the steps are; nothing of those of the whole graph."""
    # Of a conditional group only one is done, so two of its own may have one name.
    others = {**taken} if isinstance(step, ConditionalGroup) else taken
    for whose, where, part in _inside(step, place):
        if part.name in others:
            near = free_name(f"{whose}-{part.name}", taken)
            there = f"there is another step of this name{others[part.name]}"
            yield f"{where}: {there}; call it '{near}'"
        else:
            taken[part.name] = f" ({where[0].lower()}{where[1:]})"
        yield from _within(part, where, taken)


def _inside(step: BaseStep, place: str) -> Iterator[tuple[str, str, BaseStep]]:
    """Yield what is directly inside a step: a name to tell it by, its place, and the step."""
    if isinstance(step, StepGroup):
        for part in step.parts():
            yield step.name, f"{place}, part '{part.name}'", part
        return
    for graph in step.inner():
        for part in graph.steps.values():
            yield graph.name, f"{place}, branch '{graph.name}', step '{part.name}'", part
