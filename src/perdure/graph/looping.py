"""Loops: which of them go round within another, and which mean nothing: nothing is repeated, or no
time can pass.
"""

from __future__ import annotations

from collections.abc import Iterator

from perdure.graph.deciding import BaseGateway, ChoiceStep, LoopStep, ThreadMerge, ThreadSplit
from perdure.graph.outline import Outline
from perdure.graph.steps import PassStep

_DECIDE = (BaseGateway, ChoiceStep)
_AT_ONCE = (*_DECIDE, LoopStep, PassStep, ThreadMerge, ThreadSplit)


def loops_within(outline: Outline, loop: str) -> frozenset[str]:
    """Return the loops that lie within each round of a loop: each round begins them anew."""
    found = outline.loops_within.get(loop)
    if found is None:
        round_ = _round(outline, loop)
        others = (it for it, step in outline.steps.items() if isinstance(step, LoopStep))
        found = frozenset(it for it in others if _round(outline, it) < round_)
        outline.loops_within[loop] = found
    return found


def _round(outline: Outline, loop: str) -> set[str]:
    """Return the steps on the ways from a loop's target to it on which nothing jumps back."""
    step = outline.steps[loop]
    assert isinstance(step, LoopStep)
    ahead = _ahead(outline, step.target, loop)
    return {it for it in ahead if loop in _ahead(outline, it, loop)}


def _ahead(outline: Outline, start: str, last: str) -> set[str]:
    """Return a step and those it may lead to, not past ``last`` and without loops' jumps."""
    seen, waiting = set[str](), [start]
    while waiting:
        here = waiting.pop()
        if here in seen:
            continue
        seen.add(here)
        if here != last:
            jumps = not isinstance(outline.steps[here], LoopStep)
            waiting += (
                outline.followers(here) if jumps else [it.target for it in outline.ways_on(here)]
            )
    return seen


def idle_loops(outline: Outline, reached: set[str]) -> Iterator[str]:
    """Say which loops and decisions, of those that are reached, repeat nothing, or take no time."""
    for name, step in outline.steps.items():
        if isinstance(step, _DECIDE) and name in reached and name in outline.followers(name):
            yield (
                f"Step '{name}': it leads to itself at once, when nothing can have changed; "
                "lead to the step that is to be done again"
            )
        if not isinstance(step, LoopStep) or not {name, step.target} <= reached:
            continue
        here = f"Step '{name}'"
        if step.target == name and not step.interval:
            yield (
                f"{here}: it loops to itself at once, when nothing can have changed; loop to the "
                "step that is to be done again, or give interval= to ask again after a while"
            )
        elif step.target != name and not outline.can_reach(step.target, name):
            before = [it for it in outline.steps if it != name and outline.can_reach(it, name)]
            yield (
                f"{here}: no way leads from its target '{step.target}' back to it, so it repeats "
                f"nothing; loop to a step before it ({', '.join(before) or 'there is none'}), or "
                "write .choice() for a way that is taken once"
            )
        elif not step.interval and step.max_iterations is None and _is_at_once(outline, step):
            yield (
                f"{here}: it goes round from '{step.target}' without a step that takes time, so "
                "its timeout= cannot pass; give interval= or max_iterations="
            )


def _is_at_once(outline: Outline, loop: LoopStep) -> bool:
    """Tell whether a way leads from a loop's target back to it through steps that take no time."""
    waiting, seen = [loop.target], set[str]()
    while waiting:
        here = waiting.pop()
        if here == loop.name:
            return True
        step = outline.steps.get(here)
        if here not in seen and step is not None and isinstance(step, _AT_ONCE):
            seen.add(here)
            waiting += outline.followers(here)
    return False
