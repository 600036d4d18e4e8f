"""The page about people: its program prints what the page says, and it names what there is.

Its table of what people can do is made from the code: ``python -m tests.e2e.test_people_page``.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from perdure.many import Acting
from perdure.people import HumanTasks
from perdure.values.people import TRANSITIONS, VERBS, HumanTaskStatus
from perdure.values.principals import Reach

FILE = Path(__file__).parents[2] / "docs" / "people.md"
PAGE = FILE.read_text(encoding="utf-8")
TABLE = re.compile(r"\| verb \| .*?(?=\n\n)", re.DOTALL)


def table() -> str:
    """Return what people can do, as the code has it."""
    heads = ["verb", "open or claimed becomes", "in the log", "another's claim or assignment"]
    rows = [f"| {' | '.join([*heads, 'a principal needs'])} |", "|---|---|---|---|---|"]
    for name, verb in VERBS.items():
        after = "what it was" if verb.after is None else str(verb.after)
        stands = "in the way" if verb.by_holder else "does not matter"
        needs = "write `all`" if verb.reach is Reach.ALL else "write `self`"
        rows.append(f"| {name} | {after} | {verb.told} | {stands} | {needs} |")
    return "\n".join(rows)


def test_the_table_of_the_page_is_that_of_the_code():
    assert TABLE.findall(PAGE) == [table()]
    ends = [str(one) for one in HumanTaskStatus if not TRANSITIONS[one]]
    assert f"{', '.join(ends[:-1])} and {ends[-1]} are ends" in PAGE


def test_the_program_of_the_page_prints_what_the_page_says(tmp_path: Path):
    [program] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    [printed] = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "page.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "page.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout == printed


def test_every_call_of_the_client_is_on_the_page():
    calls = [name for it in (HumanTasks, Acting) for name in vars(it) if not name.startswith("_")]
    assert [name for name in calls if f"`{name}" not in PAGE] == []


if __name__ == "__main__":
    FILE.write_text(TABLE.sub(lambda _: table(), PAGE), encoding="utf-8")
