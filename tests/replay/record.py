"""Records the corpus on the Python that runs this: ``python tests/replay/record.py``.

Writes ``histories/py3XX/<case>.json``. A file that is there is kept: histories outlive the code,
and the code must go on fitting them. If a file would differ, that is an error, unless
``--replace`` says that the change is meant (before a release, never after).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
HISTORIES = Path(__file__).parent / "histories"
DRAWN = range(20)
"""Seeds of programs that are drawn (``tests/property/drawn.py``), all in one file."""


def here() -> Path:
    """Return the folder of this Python."""
    return HISTORIES / f"py{sys.version_info.major}{sys.version_info.minor}"


def names() -> list[str]:
    """Return the names of all cases, the drawn ones last."""
    from tests.replay.copies import CASES

    return [*CASES, "drawn"]


def record(name: str) -> str:
    """Run a case; return the text of its file."""
    return as_text(_drawn() if name == "drawn" else [_played(name)])


def as_text(runs: list[list[dict[str, Any]]]) -> str:
    """Write runs the way their files hold them."""
    return json.dumps(runs, indent=1, ensure_ascii=False) + "\n"


def _played(name: str) -> list[dict[str, Any]]:
    from tests.replay.programs import play

    run = play(name)
    run.check_replay()
    run.instance.evict()
    return [_row(*row) for row in run.rows]


def _drawn() -> list[list[dict[str, Any]]]:
    from tests.property.drawn import Drawer
    from tests.property.schedules import Story

    runs: list[list[dict[str, Any]]] = []
    for seed in DRAWN:
        drawer = Drawer(seed)
        program, schedule = drawer.program(), drawer.schedule()
        story = Story(program).follow(schedule)
        story.instance.evict()
        runs.append([_row(data, time, True) for data, time in story.rows])
    return runs


def _row(data: bytes, time: int, is_applied: bool) -> dict[str, Any]:
    from perdure.values import events as ev

    assert b'File "' not in data, "a traceback names files of this machine"
    told = [event.brief() for event in ev.decode_turn(data)]
    return {"time": time, "applied": is_applied, "told": told, "events": data.hex()}


def main() -> int:
    """Write what is missing; tell what differs."""
    sys.path.insert(0, str(ROOT))
    folder, differing = here(), 0
    folder.mkdir(parents=True, exist_ok=True)
    for name in names():
        path, text = folder / f"{name}.json", record(name)
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        if path.exists() and "--replace" not in sys.argv:
            differing += 1
            print(f"differs: {path.relative_to(ROOT)}")
            continue
        path.write_text(text, encoding="utf-8")
        print(f"written: {path.relative_to(ROOT)}")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
