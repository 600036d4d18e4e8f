"""The one checker of definitions: every mistake at once, each with its place."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable

from perdure.graph.combining import StepGroup
from perdure.graph.conditions import is_label, refusal
from perdure.graph.deciding import BaseGateway, LoopStep
from perdure.graph.looping import idle_loops
from perdure.graph.naming import repeated_names
from perdure.graph.outline import Edge, Outline
from perdure.graph.people import BaseHumanStep
from perdure.graph.spans import no_limit
from perdure.graph.steps import BaseStep

_JOINS = ("active", "each", "first", "all")


def mistakes(outline: Outline) -> list[str]:
    """Return what is wrong with a graph and the graphs inside its steps; nothing if it can run."""
    return [*_of_graph(outline), *_of_sections(outline), *repeated_names(outline)]


def _of_graph(outline: Outline) -> list[str]:
    found = [*outline.mistakes, *_of_steps(outline), *_of_edges(outline)]
    found += [*_of_joins(outline), *_of_groups(outline)]
    return [*found, *_of_ways(outline), *_of_inner(outline)]


def doubts(outline: Outline) -> list[str]:
    """Return what may not be what was meant, in a graph that can run."""
    found = [
        f"{_edge(edge)}: {_of_label(edge.condition)}"
        for edge in outline.edges
        if is_label(edge.condition)
    ]
    for name, step in outline.steps.items():
        labels = [condition for condition in step.conditions() if is_label(condition)]
        found += [f"Step '{name}': {_of_label(label)}" for label in labels]
        for inner in step.inner():
            found += [f"Step '{name}', branch '{inner.name}': {it}" for it in doubts(inner)]
    return found


def _of_label(condition: object) -> str:
    return f"condition {condition!r} is a label, which always holds: it does not name `context`"


def _of_steps(outline: Outline) -> Iterable[str]:
    if not outline.steps:
        yield "Workflow must have at least one step"
        return
    if outline.initial_step not in outline.steps:
        yield f"Initial step '{outline.initial_step}' not found in steps" + _near(
            outline.initial_step, outline
        )
    for name in sorted(outline.terminal_steps - set(outline.steps)):
        yield f"Terminal step '{name}' not found in steps{_near(name, outline)}"
    for name, step in outline.steps.items():
        if step.name != name:
            yield f"Step '{name}': its own name is '{step.name}'"
        yield from (f"Step '{name}': {problem}" for problem in step.problems())
        yield from (f"Step '{name}': {problem}" for problem in _of_functions(step))
        if step.timeout is not None and "timeout" in step.heeds:
            for problem in no_limit("timeout", step.timeout):
                yield f"Step '{name}': {problem}"
        for option in ("retry", "timeout"):
            if getattr(step, option) is not None and option not in step.heeds:
                yield f"Step '{name}': {option}= means nothing to a {type(step).__name__}"
        for hook in () if step.has_hooks else ("can_execute", "on_success", "on_failure"):
            if getattr(type(step), hook) is not getattr(BaseStep, hook):
                yield f"Step '{name}': {hook} is not called of a {_kind(step)}"


def _of_functions(step: BaseStep) -> Iterable[str]:
    """Find async functions where nobody awaits; a condition is told of as one."""
    if isinstance(step, BaseHumanStep):
        return  # its hooks may be async
    own = [getattr(type(step), name, None) for name in ("evaluate", "get_duration")]
    awaited = [*step.conditions(), *own]
    for fn in step.functions():
        if inspect.iscoroutinefunction(fn) and fn not in awaited:
            yield f"{fn.__qualname__} is async: it is workflow code, and only reads"


def _of_edges(outline: Outline) -> Iterable[str]:
    for edge in outline.edges:
        if edge.source not in outline.steps:
            near = _near(edge.source, outline)
            yield f"{_edge(edge)}: it comes from '{edge.source}', which is no step{near}"
        elif edge.target not in outline.steps:
            yield _of_target(edge.source, edge.target, outline)
        if said := refusal(edge.condition):
            yield f"{_edge(edge)}: {said}"
    for name, step in outline.steps.items():
        for target in step.jumps():
            if target not in outline.steps:
                yield _of_target(name, target, outline)


def _of_target(step: str, target: str, outline: Outline) -> str:
    near = _near(target, outline)
    return f"Step '{step}': it leads to '{target}', which is no step{near}"


def _edge(edge: Edge) -> str:
    return f"Edge from '{edge.source}' to '{edge.target}'"


def _of_joins(outline: Outline) -> Iterable[str]:
    for name, step in outline.steps.items():
        join, ways = step.join, outline.ways_to(name)
        if isinstance(join, int):
            if not 1 <= join <= ways or isinstance(join, bool):
                yield f"Step '{name}': join={join}, and {_counted(ways)} to it"
        elif isinstance(join, str) and join not in _JOINS:
            near = difflib.get_close_matches(join, _JOINS, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else f" (there are: {', '.join(_JOINS)})"
            yield f"Step '{name}': join='{join}' is no join{hint}"
        if isinstance(step.cancels, str) and step.cancels not in ("", "incoming"):
            yield f"Step '{name}': cancels='{step.cancels}': give a list of steps, or 'incoming'"
        for other, label in step.mentions().items():
            if other not in outline.steps:
                yield f"Step '{name}': {label}: '{other}' is no step{_near(other, outline)}"
            elif other == name:
                yield f"Step '{name}': {label}: that is the step itself"


def _of_groups(outline: Outline) -> Iterable[str]:
    """Find parts of groups that are not what a part can be: no edge leads to one, or away."""
    for name, step in outline.steps.items():
        if isinstance(step, StepGroup):
            yield from _of_parts(step, f"Step '{name}'")


def _of_parts(group: StepGroup, place: str) -> Iterable[str]:
    for part in group.parts():
        here = f"{place}, part '{part.name}'"
        for option in ("join", "cancels"):
            if getattr(part, option) != getattr(BaseStep, option):
                yield f"{here}: {option}= means nothing within a group"
        if isinstance(part, BaseGateway) or part.jumps():
            yield (
                f"{here}: it decides where to go on, and nothing leads out of the middle of a "
                "group; let it be a step of the graph, or of a branch"
            )
        if isinstance(part, StepGroup):
            yield from _of_parts(part, here)


def _counted(ways: int) -> str:
    return "1 step leads" if ways == 1 else f"{ways} steps lead"


def _of_sections(outline: Outline) -> Iterable[str]:
    """Find critical sections that would wait for each other, or for themselves."""
    within: dict[str, dict[str, str]] = {}
    for name, section, held in _sections(outline.steps.values(), ()):
        for outer in held:
            within.setdefault(outer, {}).setdefault(section, name)
    for outer, inner in within.items():
        for section, name in inner.items():
            if section == outer:
                yield f"Step '{name}': it waits for section '{section}', which it is in"
            elif outer < section and outer in within.get(section, ()):
                yield (
                    f"Step '{name}': section '{section}' within '{outer}', and in step "
                    f"'{within[section][outer]}' the other way round: they wait for each other"
                )


def _sections(
    steps: Iterable[BaseStep], held: tuple[str, ...]
) -> Iterable[tuple[str, str, tuple[str, ...]]]:
    for step in steps:
        if step.section:
            yield step.name, step.section, held
        here = (*held, step.section) if step.section else held
        for inner in step.inner():
            yield from _sections(inner.steps.values(), here)
        if isinstance(step, StepGroup):
            yield from _sections(step.steps, here)


def _of_ways(outline: Outline) -> Iterable[str]:
    if outline.initial_step not in outline.steps:
        return
    reached = {outline.initial_step, *_reached(outline, outline.initial_step)}
    for name in outline.steps:
        if name not in reached:
            yield f"Step '{name}' is unreachable from initial step"
    for name in outline.steps:
        if name in reached and not _can_end(outline, name):
            yield f"Step '{name}': no way leads from it to an end of the workflow"
    yield from _endless(outline, reached)
    yield from idle_loops(outline, reached)


def _endless(outline: Outline, reached: set[str]) -> Iterable[str]:
    """Find cycles of edges that nothing decides about: once in, no condition lets the run out."""
    for name in outline.steps:
        seen: list[str] = []
        here = name
        while here in outline.steps and here not in seen and here in reached:
            seen.append(here)
            step, ways = outline.steps[here], outline.ways_on(here)
            if len(ways) != 1 or ways[0].condition is not None or step.jumps():
                break
            here = ways[0].target
        else:
            if seen and here == name and name == min(seen):
                yield f"Steps {_listed(seen)} go round for ever: none of them decides to leave"


def _of_inner(outline: Outline) -> Iterable[str]:
    for name, step in outline.steps.items():
        for inner in step.inner():
            yield from (f"Step '{name}', branch '{inner.name}': {it}" for it in _of_graph(inner))


def _reached(outline: Outline, start: str) -> set[str]:
    return {name for name in outline.steps if outline.can_reach(start, name)}


def _can_end(outline: Outline, name: str) -> bool:
    ways = [name, *_reached(outline, name)]
    return any(
        it in outline.terminal_steps
        or not outline.followers(it)
        or any(target not in outline.steps for target in outline.followers(it))  # told elsewhere
        or any(edge.condition is not None for edge in outline.ways_on(it))
        or (isinstance(outline.steps[it], LoopStep) and not outline.ways_on(it))
        for it in ways
        if it in outline.steps
    )


def _kind(step: BaseStep) -> str:
    """Return the name of the class of Perdure's that a step is of."""
    own = (cls for cls in type(step).__mro__ if cls.__module__.startswith("perdure.graph"))
    return next(own).__name__


def _near(name: str, outline: Outline) -> str:
    near = difflib.get_close_matches(name, outline.steps, n=1)
    if near:
        return f"; did you mean '{near[0]}'?"
    return f" (there are: {', '.join(outline.steps)})" if len(outline.steps) < 12 else ""


def _listed(names: list[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
