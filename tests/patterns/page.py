"""The code in docs/patterns.md is that of the tests: `python -m tests.patterns.page` writes it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.patterns import (
    test_branching,
    test_cancelling,
    test_instances,
    test_iteration,
    test_joins,
    test_states,
    world,
)
from tests.patterns.world import Pattern

PAGE = Path(__file__).parents[2] / "docs" / "patterns.md"
MODULES = [
    test_branching,
    test_joins,
    test_instances,
    test_states,
    test_cancelling,
    test_iteration,
]
PATTERNS: dict[int, Pattern] = {it.number: it for module in MODULES for it in module.PATTERNS}
BLOCK = re.compile(
    r"^(?P<heading>## (?P<about>\S+) .*?\n)(?P<text>.*?)```python\n(?P<code>.*?)```",
    re.MULTILINE | re.DOTALL,
)


def code_of(about: str) -> str:
    """Return the lines from a pattern's function to its graph; of no number, what both use."""
    if not about.isdigit():
        return _lines(Path(world.__file__), "work", "times")
    name = PATTERNS[int(about)].function.fn.__name__
    module = next(it for it in MODULES if hasattr(it, name))
    return _lines(Path(str(module.__file__)), name, f"{name}_graph")


def blocks(page: str) -> Iterator[tuple[str, str]]:
    """Yield (what it is about, code) of the page's sections."""
    for found in BLOCK.finditer(page):
        yield found["about"], found["code"]


def _lines(file: Path, first: str, last: str) -> str:
    lines, places = file.read_text().splitlines(keepends=True), dict[str, tuple[int, int]]()
    for node in ast.parse("".join(lines)).body:
        assert node.end_lineno is not None
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            begin = min([node.lineno, *(it.lineno for it in node.decorator_list)])
            places[node.name] = begin, node.end_lineno
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            places[node.targets[0].id] = node.lineno, node.end_lineno
    return "".join(lines[places[first][0] - 1 : places[last][1]])


if __name__ == "__main__":
    PAGE.write_text(
        BLOCK.sub(
            lambda it: f"{it['heading']}{it['text']}```python\n{code_of(it['about'])}```",
            PAGE.read_text(),
        )
    )
