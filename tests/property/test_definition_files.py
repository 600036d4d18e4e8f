"""Whatever is written to a file is read as the same definition."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.seed3 import shop

from perdure import Retry
from perdure.graph import (
    BaseStep,
    Edge,
    InclusiveGateway,
    ParallelGateway,
    TimerStep,
    WebhookStep,
    WorkflowDefinition,
)
from perdure.graph.combining import BlockStep, ParallelStep, SubflowStep
from perdure.graph.deciding import ChoiceStep, LoopStep
from perdure.graph.instances import MapStep
from perdure.graph.outline import Outline
from perdure.graph.steps import EndStep, JobStep, PassStep, TaskStep
from perdure.graph.waiting import DeferredChoice, PollStep

ID = r"(?!(?:end|graph|style|subgraph|class|click|default)\b)[A-Za-z0-9_-]+"
TEXT = r"(?:[^\[\]{}()<>|\"'`;#%\n]|#\w+;)*"
NODE = re.compile(rf"\s+{ID}(\[{TEXT}\]|\{{{TEXT}\}}|\(\[{TEXT}\]\))")
FRAME = re.compile(rf"\s+subgraph {ID} \[{TEXT}\]")
WAY = re.compile(rf"    {ID} -(?:-|\.-)>(\|{TEXT}\|)? {ID}")
STYLE = re.compile(rf"    style {ID} fill:#\w+,stroke:#\w+,stroke-width:\dpx")
# Names and texts that YAML could take for something else.
ODD = [
    "yes",
    "no",
    "on",
    "null",
    "~",
    "1",
    "1.0",
    "1e3",
    "0x1f",
    "2026-11-21",
    "-",
    "a: b",
    "#x",
    "",
]
names = st.one_of(st.sampled_from(ODD[:-1]), st.text("ab_-.: '\"[]{}é😀", min_size=1, max_size=8))
texts = st.one_of(
    st.sampled_from(ODD), st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
)
numbers = st.one_of(st.integers(-(2**53), 2**53), st.floats(allow_nan=False, allow_infinity=False))
values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, texts),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=6,
)
spans = st.one_of(st.integers(1, 10_000), st.sampled_from(["5s", "1h30m", "PT1H", "200ms"]))
retries = st.one_of(
    st.none(),
    st.builds(
        Retry,
        st.integers(0, 9),
        spans,
        st.floats(1, 10),
        retry_on=st.lists(texts, max_size=2),
    ),
)
conditions = st.one_of(
    st.sampled_from(["context.get('n') > 1", "context.prev == null"]),
    texts.filter(lambda text: "context" not in text),
)


@st.composite
def steps(draw: st.DrawFn, name: str, others: list[str], depth: int) -> BaseStep:
    """Return a step of any kind."""
    target = st.sampled_from(others)
    kinds: dict[str, Any] = {
        "task": lambda: TaskStep(
            name,
            draw(st.sampled_from([shop.ship, shop.look])),
            retry=draw(retries),
            timeout=draw(spans),
        ),
        "job": lambda: JobStep(name, draw(texts), input=shop.items),
        "pass": lambda: PassStep(name, result=draw(values), description=draw(texts)),
        "end": lambda: EndStep(name, cancels_rest=draw(st.booleans())),
        "choice": lambda: ChoiceStep(
            name,
            draw(st.lists(st.tuples(conditions, target), min_size=1, max_size=3)),
            default=draw(target),
        ),
        "loop": lambda: LoopStep(
            name, draw(conditions), draw(target), max_iterations=draw(st.integers(1, 9))
        ),
        "poll": lambda: PollStep(name, shop.look, interval=draw(spans), poll_timeout=draw(spans)),
        "wait": lambda: TimerStep(name, draw(st.one_of(spans, st.just(shop.which)))),
        "hook": lambda: WebhookStep(
            name, topic=draw(texts), join=draw(st.sampled_from(["each", 1]))
        ),
        "all": lambda: ParallelGateway(name, draw(st.lists(target, max_size=2))),
        "some": lambda: InclusiveGateway(name),
        "own": lambda: shop.Review(name, limit=draw(st.integers())),
        "child": lambda: SubflowStep(name, draw(names), input=shop.as_order),
        "both": lambda: ParallelStep(
            name,
            [
                draw(outlines(it, depth - 1))
                for it in draw(st.lists(names, max_size=2, unique=True))
            ],
        ),
        "block": lambda: BlockStep(name, draw(outlines("b", depth - 1)), section=draw(texts)),
        "first": lambda: DeferredChoice(
            name,
            draw(st.dictionaries(texts, target, min_size=1, max_size=2)),
            cancels=[draw(target)],
        ),
        "map": lambda: MapStep(name, draw(outlines("each", depth - 1)), items=shop.items),
    }
    plain = [kind for kind in kinds if depth or kind not in ("both", "map", "block")]
    made: BaseStep = kinds[draw(st.sampled_from(plain))]()
    return made


@st.composite
def outlines(draw: st.DrawFn, name: str, depth: int) -> Outline:
    """Return a graph; it need not be able to run."""
    own = draw(st.lists(names, min_size=1, max_size=4, unique=True))
    made = [draw(steps(it, own, depth)) for it in own]
    ends = st.sampled_from(own)
    edges = draw(
        st.lists(st.builds(Edge, ends, ends, st.one_of(st.none(), conditions)), max_size=4)
    )
    return Outline(name, made, edges, draw(ends), draw(st.sets(ends, max_size=2)))


@st.composite
def definitions(draw: st.DrawFn) -> WorkflowDefinition:
    """Return a definition of any such graph."""
    outline = draw(outlines("flow", 2))
    options: dict[str, Any] = {}
    if (retry := draw(retries)) is not None:
        options["default_retry"] = retry
    return WorkflowDefinition(
        "flow",
        draw(st.sampled_from(["1.0.0", "2.10.3"])),
        draw(texts),
        outline.steps,
        outline.edges,
        outline.initial_step,
        outline.terminal_steps,
        timeout=draw(st.one_of(st.none(), spans)),
        triggers=tuple(draw(st.lists(texts, max_size=2))),
        **options,
    )


def read_unchecked(text: str, read: Any) -> WorkflowDefinition:
    """Read a definition that need not be able to run."""
    from perdure.graph import files

    found = read(text)
    options, outline = files.read(found.value, files.place_in(found.lines, ""))
    graph = (outline.steps, outline.edges, outline.initial_step, outline.terminal_steps)
    return WorkflowDefinition(
        options.pop("name"),
        options.pop("version"),
        options.pop("description", ""),
        *graph,
        **options,
    )


@settings(max_examples=60)
@given(definitions())
def test_a_definition_is_read_as_it_was_written(made: WorkflowDefinition):
    from perdure.graph.texts import read_json, read_yaml

    data = made.to_dict()
    for text, read in ((made.to_yaml(), read_yaml), (made.to_json(), read_json)):
        again = read_unchecked(text, read)
        assert again.to_dict() == data
        assert again.code == made.code
        assert again.default_retry == made.default_retry
        assert again.timeout == made.timeout


def drawn(outline: Outline) -> tuple[int, int]:
    """Return how many nodes (with the frames of branches) and ways a graph has."""
    nodes, ways = len(outline.steps), len(outline.edges)
    for name, step in outline.steps.items():
        targets = {edge.target for edge in outline.edges if edge.source == name}
        ways += len(set(step.jumps()) - targets) + len(step.mentions())
        for inner in step.inner():
            more = drawn(inner)
            nodes, ways = nodes + 1 + more[0], ways + 1 + more[1]
    return nodes, ways


@given(definitions())
def test_a_diagram_has_one_line_for_each_node_and_way_whatever_the_names(made: WorkflowDefinition):
    lines = made.to_mermaid_with_state(made.initial_step, made.steps).splitlines()
    assert lines[0] == "graph TD"
    nodes = [line for line in lines[1:] if NODE.fullmatch(line)]
    frames = [line for line in lines if FRAME.fullmatch(line)]
    closed = [line for line in lines if line.strip() == "end"]
    ways = [line for line in lines if WAY.fullmatch(line)]
    styles = [line for line in lines if STYLE.fullmatch(line)]
    assert (len(nodes) + len(frames), len(ways)) == drawn(made.outline)
    assert len(frames) == len(closed)
    assert len(lines) == 1 + len(nodes) + 2 * len(frames) + len(ways) + len(styles)
    ids = [line.split()[0].split("[")[0].split("{")[0].split("(")[0] for line in nodes]
    assert len(set(ids)) == len(ids), "no two nodes are one"
