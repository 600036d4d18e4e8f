"""The style that numbers can hold: sizes of modules and functions, and no waiting in tests."""

import ast
import re
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

MODULE_LINES = 500
TEST_LINES = 600
FUNCTION_LINES = 70
FUNCTION_LINES_P95 = 40
TYPE_IGNORES = 45
"""To fall."""

IGNORE = re.compile(r"# (?:type|pyright): ?ignore")
NAMED_IGNORE = re.compile(r"# (?:type|pyright): ?ignore\[[\w, -]+\]")
SLEEP = re.compile(r"\b(?:time|asyncio)\.sleep\b|\bfrom (?:time|asyncio) import .*\bsleep\b")
# A line may wait if it says why: `asyncio.sleep(1)  # sleep: the durable timer under test`
ALLOWED_SLEEP = re.compile(r"# sleep: \w+")


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def lengths_of_functions(path: Path) -> Iterator[tuple[str, int]]:
    """Yield each function and its lines; docstrings do not count, functions within do."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            lines = node.end_lineno - node.lineno + 1
            first = node.body[0]
            if ast.get_docstring(node) is not None and first.end_lineno is not None:
                lines -= first.end_lineno - first.lineno + 1
            yield f"{relative(path)}:{node.lineno} {node.name}", lines


@pytest.mark.parametrize(
    ("files", "limit"), [(SOURCES, MODULE_LINES), (TESTS, TEST_LINES)], ids=["src", "tests"]
)
def test_no_module_is_too_long(files: list[Path], limit: int) -> None:
    lengths = {relative(path): len(path.read_text().splitlines()) for path in files}
    assert {name: lines for name, lines in lengths.items() if lines > limit} == {}


def test_no_function_is_too_long() -> None:
    lengths = dict(item for path in SOURCES for item in lengths_of_functions(path))
    assert {name: lines for name, lines in lengths.items() if lines > FUNCTION_LINES} == {}


def test_functions_are_short() -> None:
    lengths = [lines for path in SOURCES for _, lines in lengths_of_functions(path)]
    assert statistics.quantiles(lengths, n=20)[-1] <= FUNCTION_LINES_P95


def test_few_lines_are_kept_from_the_type_checker_and_each_says_from_which_rule() -> None:
    ignores = [
        f"{relative(path)}:{number} {line.strip()}"
        for path in SOURCES
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if IGNORE.search(line)
    ]
    assert [line for line in ignores if not NAMED_IGNORE.search(line)] == []
    assert len(ignores) <= TYPE_IGNORES


def test_no_test_waits_by_sleeping() -> None:
    waiting = [
        f"{relative(path)}:{number}"
        for path in TESTS
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if SLEEP.search(line) and not ALLOWED_SLEEP.search(line)
    ]
    assert waiting == [], "wait for an event or use a test clock, or say why: # sleep: <reason>"
