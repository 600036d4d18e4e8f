"""The one writer of diagrams (Mermaid flow charts), with or without the state of a run."""

from __future__ import annotations

from collections.abc import Iterable

from perdure.graph.outline import Outline
from perdure.graph.states import StepType
from perdure.graph.steps import BaseStep

_SHAPES = {
    StepType.MACHINE: ("[", "]"),
    StepType.HUMAN: ("{{", "}}"),
    StepType.GATEWAY: ("{", "}"),
    StepType.TIMER: ("([", "])"),
    StepType.WEBHOOK: ("[", "]"),
}
_STYLES = {
    "completed": "fill:#90EE90,stroke:#006400,stroke-width:2px",
    "failed": "fill:#FFB6C1,stroke:#8B0000,stroke-width:2px",
    "current": "fill:#FFD700,stroke:#FFA500,stroke-width:3px",
}
_TAKEN_OUT = str.maketrans("", "", "'\"()<>|[]{}")


def draw(
    outline: Outline,
    current_step: str | None = None,
    completed_steps: Iterable[str] = (),
    failed_steps: Iterable[str] = (),
) -> str:
    """Return the diagram: nodes by kind, edges with their conditions, styles by state."""
    lines = ["graph TD"]
    lines += _nodes(outline, "", "    ")
    lines += _ways(outline, "")
    styled = [(name, "completed") for name in completed_steps]
    styled += [(name, "failed") for name in failed_steps]
    styled += [(current_step, "current")] if current_step else []
    lines += [f"    style {_id(name)} {_STYLES[state]}" for name, state in styled]
    return "\n".join(lines)


def _nodes(outline: Outline, prefix: str, indent: str) -> Iterable[str]:
    for name, step in outline.steps.items():
        opens, closes = _SHAPES[step.step_type]
        yield f"{indent}{_id(prefix + name)}{opens}{_label(outline, name)}{closes}"
        for inner in step.inner():
            within = f"{prefix}{name}.{inner.name}."
            yield f"{indent}subgraph {_id(within)}_branch [{_plain(inner.name)}]"
            yield from _nodes(inner, within, indent + "    ")
            yield f"{indent}end"


def _ways(outline: Outline, prefix: str) -> Iterable[str]:
    for edge in outline.edges:
        yield _way(prefix + edge.source, prefix + edge.target, edge.label)
    for name, step in outline.steps.items():
        drawn = {edge.target for edge in outline.edges if edge.source == name}
        for target, label in step.jumps().items():
            if target not in drawn:
                yield _way(prefix + name, prefix + target, label)
        for target, label in step.mentions().items():
            yield _way(prefix + name, prefix + target, label, arrow="-.->")
        for inner in step.inner():
            within = f"{prefix}{name}.{inner.name}."
            yield _way(prefix + name, within + inner.initial_step, "")
            yield from _ways(inner, within)


def _way(source: str, target: str, label: str, *, arrow: str = "-->") -> str:
    text = label.translate(_TAKEN_OUT).strip()
    return f"    {_id(source)} {arrow}{f'|{text}|' if text else ''} {_id(target)}"


def _label(outline: Outline, name: str) -> str:
    text = _plain(name).replace("_", " ").title() + _options(outline.steps[name])
    if name == outline.initial_step:
        return f"START: {text}"
    ends = name in outline.terminal_steps or not outline.followers(name)
    return f"END: {text}" if ends else text


def _options(step: BaseStep) -> str:
    """Return what decides when a step begins and is no edge."""
    said = [f"join {step.join}"] if step.join in ("each", "first", "all") else []
    said += [f"join of {step.join}"] if isinstance(step.join, int) else []
    said += ["cancels what is before it"] if step.cancels == "incoming" else []
    said += [f"section {_plain(step.section)}"] if step.section else []
    return f" / {', '.join(said)}" if said else ""


def _plain(name: str) -> str:
    return name.translate(_TAKEN_OUT)


def _id(name: str) -> str:
    """Return a name that Mermaid takes as a node's: letters, digits, ``_``, ``-``; not ``end``."""
    made = "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "_" for c in name)
    return f"{made}_" if made in ("end", "graph", "subgraph", "style") else made
