"""A diagram shows every character of names and conditions, and none of them breaks it."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

from hypothesis import example, given
from hypothesis import strategies as st

from perdure.graph.combining import BlockStep
from perdure.graph.mermaid import draw
from perdure.graph.outline import Edge, Outline
from perdure.graph.steps import PassStep

ODD = [
    "say \"hi\" <b>now</b> & `then` #1; %% x\n'y' \\ /z/ [a](b){c}|d|",
    "end",
    "ends at the end",
    "a --> b -.-> c --- d --x e",
    "- 1. **bold** _it_ ~~no~~ $$x$$",
    "1. first",
    "ﬂ°°35¶ß",
    "#quot; &lt;",
    "style x:#a;",
    " \t\0\x85\u2028\ud800",
]
texts = st.one_of(
    st.sampled_from(ODD), st.text(min_size=1), st.text("-.# ;:end1<&\"'[", min_size=1)
)
CODE = re.compile(r"#(\w+);")
PLAIN = re.compile(r"(?:[\w ,.?!=-]|#\w+;)*")
BREAKS = re.compile(r"--|-\.|\bend\b|(?:style|classDef).*:\S*#.*;")


def decoded(label: str) -> str:
    """Return what Mermaid shows: codes with a number are characters, others HTML's entities."""
    return CODE.sub(
        lambda it: chr(int(it[1])) if it[1].isdigit() else html.unescape(f"&{it[1]};"), label
    )


def labels(lines: Sequence[str], shape: str) -> list[str]:
    """Return what stands in the one group of a shape, line by line."""
    return [found[1] for line in lines if (found := re.fullmatch(shape, line))]


@given(texts)
@example("x")
def test_a_label_of_an_edge_is_all_there(text: str):
    found = draw(Outline("g", [PassStep("a"), PassStep("b")], [Edge("a", "b", text)])).split("\n")
    assert len(found) == 4
    (label,) = labels(found, r"    a -->\|(.*)\| b")
    assert decoded(label) == text
    assert PLAIN.fullmatch(label)
    assert not BREAKS.search(label)


@given(texts, texts)
def test_names_of_steps_and_branches_are_all_there(name: str, branch: str):
    inner = Outline(branch, [PassStep("a")])
    found = draw(Outline("g", [BlockStep(name, inner)])).split("\n")
    assert len(found) == 6
    (node,) = labels(found, r"    [\w-]+\[START: (.*)\]")
    spoken = name.replace("_", " ").strip().title()
    assert decoded(node) == (spoken or found[1].strip().partition("[")[0])
    (frame,) = labels(found, r"    subgraph [\w-]+_branch \[(.*)\]")
    assert decoded(frame) == branch
    for label in (node, frame):
        assert PLAIN.fullmatch(label)
        assert not BREAKS.search(label)
