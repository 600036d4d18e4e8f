"""The one writer of diagrams (Mermaid flow charts), with or without the state of a run."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator

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
    "skipped": "fill:#F5F5F5,stroke:#999999,stroke-dasharray:4",
    "current": "fill:#FFD700,stroke:#FFA500,stroke-width:3px",
}
_NAMED = {'"': "quot", "<": "lt", ">": "gt", "&": "amp"}
"""Characters with entity codes that people can read; others have their numbers."""
_CODED = re.compile(
    r"""[^\w ,.?!=-]            # what ends a label, or means something within one
    |^[ -]|[ ]$|^\d(?=\d*\.[ ]) # what would be cut off, or begin a list
    |-(?=[-.])|(?<=-)-          # the beginnings of arrows
    |\be(?=nd\b)                # the word that ends a subgraph""",
    re.VERBOSE,
)
_WITHIN = "\0"
"""Between the names of a step, its branch and a step in that."""
_RESERVED = re.compile(
    "call|class|classdef|click|default|direction|end|flowchart|graph|href|linkstyle|style|subgraph",
    re.IGNORECASE,
)
_BEGINS = re.compile(rf"({_RESERVED.pattern})-", re.IGNORECASE)
"""What Mermaid takes for a word of its own and a rest."""


def draw(
    outline: Outline,
    current_step: str | Iterable[str] | None = None,
    completed_steps: Iterable[str] = (),
    failed_steps: Iterable[str] = (),
    skipped_steps: Iterable[str] = (),
) -> str:
    """Return the diagram: nodes by kind, edges with their conditions, styles by state.

    The state is given by names of steps; steps of branches are named as their definition does.
    Whatever the names, each node, edge and style has one line, and labels lose no character.
    """
    lines = ["graph TD"]
    lines += _nodes(outline, "", "    ")
    lines += _ways(outline, "")
    styled = [(name, "completed") for name in completed_steps]
    styled += [(name, "failed") for name in failed_steps]
    styled += [(name, "skipped") for name in skipped_steps]
    current = [current_step] if isinstance(current_step, str) else current_step or ()
    styled += [(name, "current") for name in current]
    nodes = list(_ids(outline, ""))
    for name, state in styled:
        lines += [f"    style {id} {_STYLES[state]}" for node, id in nodes if node == name]
    return "\n".join(lines)


def _nodes(outline: Outline, prefix: str, indent: str) -> Iterable[str]:
    for name, step in outline.steps.items():
        opens, closes = _SHAPES[step.step_type]
        yield f"{indent}{_id(prefix + name)}{opens}{_label(outline, name)}{closes}"
        for inner in step.inner():
            within = _within(prefix, name, inner)
            yield f"{indent}subgraph {_id(within)}_branch [{_coded(inner.name)}]"
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
            within = _within(prefix, name, inner)
            yield _way(prefix + name, within + inner.initial_step, "")
            yield from _ways(inner, within)


def _way(source: str, target: str, label: str, *, arrow: str = "-->") -> str:
    text = _coded(label)
    return f"    {_id(source)} {arrow}{f'|{text}|' if text else ''} {_id(target)}"


def _label(outline: Outline, name: str) -> str:
    spoken = name.replace("_", " ").strip().title()
    text = (_coded(spoken) or _id(name)) + _options(outline.steps[name])
    if name == outline.initial_step:
        return f"START: {text}"
    ends = name in outline.terminal_steps or not outline.followers(name)
    return f"END: {text}" if ends else text


def _options(step: BaseStep) -> str:
    """Return what decides when a step begins and is no edge."""
    said = [f"join {step.join}"] if step.join in ("each", "first", "all") else []
    said += [f"join of {step.join}"] if isinstance(step.join, int) else []
    said += ["cancels what is before it"] if step.cancels == "incoming" else []
    said += [f"section {_coded(step.section)}"] if step.section else []
    return f" / {', '.join(said)}" if said else ""


def _coded(text: str) -> str:
    """Return text of which a diagram shows every character: those that would end the label, the
    line or the diagram, or mean something there, are entity codes of Mermaid's (``#quot;``).
    """
    return _CODED.sub(lambda it: f"#{_NAMED.get(it[0]) or ord(it[0])};", text)


def _within(prefix: str, name: str, inner: Outline) -> str:
    return f"{prefix}{name}{_WITHIN}{inner.name}{_WITHIN}"


def _ids(outline: Outline, prefix: str) -> Iterator[tuple[str, str]]:
    """Yield the name and the id of each node."""
    for name, step in outline.steps.items():
        yield name, _id(prefix + name)
        for inner in step.inner():
            yield from _ids(inner, _within(prefix, name, inner))


def _id(name: str) -> str:
    """Return a name that Mermaid takes as a node's, another one for each step."""
    return "__".join(_word(part) for part in name.split(_WITHIN) if part)


def _word(name: str) -> str:
    """Return a name of letters, digits, ``_`` and ``-`` that is no word of Mermaid's."""
    made = "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "_" for c in name)
    if made == name and _RESERVED.fullmatch(made):
        return f"{made}_"
    is_own = made == name and "--" not in made and not _RESERVED.fullmatch(made.rstrip("_"))
    is_own = is_own and not _BEGINS.match(made)
    made = made if is_own else made.replace("-", "_")
    # What stood for the characters that are gone tells two such names apart.
    told = hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=3).hexdigest()
    return made if is_own else f"{made}_{told}"
