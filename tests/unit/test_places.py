"""Where another process finds a definition, and what it is told if it cannot."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from tests.engine import isolated

from perdure import activity, places
from perdure.engine.processes.watchdog import Watchdog
from perdure.errors import DefinitionError, Invalid


def plain() -> int:
    return 1


renamed = activity.define(isolation="process")(plain)
_shadowed = activity.define(isolation="process", name="was")(isolated.note)


def opened(made: activity.Activity[Any, Any]) -> activity.Activity[Any, Any]:
    """Return what a subprocess would make of it; this one is as good as any."""
    remote = made.remote()
    module, _, name = remote.opener.partition(":")
    return getattr(sys.modules[module], name)(remote.payload)


def test_an_activity_is_found_by_its_module_and_name():
    assert opened(isolated.where) is isolated.where
    assert opened(isolated.where.options(timeout="1s")) is isolated.where


def test_an_activity_with_another_name_than_its_function_is_found_by_the_function():
    found = opened(renamed)
    assert (found.name, found.fn) == ("plain", plain)


@pytest.mark.parametrize("kind", ["lambda", "closure"])
def test_what_has_no_name_in_a_module_is_refused_where_it_is_defined(kind: str):
    async def inner() -> None: ...

    fn: Any = inner if kind == "closure" else lambda: None
    with pytest.raises(DefinitionError, match="define it with `def` at the top level of a module"):
        activity.define(isolation="process", name="it")(fn)


def test_a_transaction_cannot_leave_the_process():
    with pytest.raises(DefinitionError, match="exclude each other"):
        activity.define(isolation="process", transactional=True)(plain)


def test_an_unknown_isolation_is_refused_with_those_there_are():
    with pytest.raises(DefinitionError, match="'thread' .plain functions. or 'process'"):
        activity.define(isolation="container")(plain)


def test_a_function_whose_name_means_something_else_is_refused(monkeypatch: pytest.MonkeyPatch):
    made = activity.define(isolation="process")(plain)
    monkeypatch.setattr(sys.modules[__name__], "plain", None)
    with pytest.raises(DefinitionError, match="give it a name of its own there"):
        made.remote()


def test_a_file_that_is_on_no_path_is_loaded_by_its_place(tmp_path: Path):
    file = tmp_path / "far-away.py"
    file.write_text("answer = 42\n")
    place = places.Place("far-away_of_x", "answer", str(file))
    try:
        assert places.load(place, "it") == 42
        assert places.load(place, "it") == 42
    finally:
        sys.modules.pop("far-away_of_x", None)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("import no_such_module_at_all", "No module named 'no_such_module_at_all'"),
        ("1 / 0", "ZeroDivisionError"),
        ("import asyncio; asyncio.run(None)", "TypeError|ValueError"),
    ],
)
def test_a_module_that_cannot_be_imported_is_told_with_the_reason(
    tmp_path: Path, text: str, told: str
):
    file = tmp_path / "broken_module_here.py"
    file.write_text(text)
    place = places.Place("broken_module_here", "answer", str(file))
    with pytest.raises(DefinitionError, match=f"activity 'it': a subprocess cannot .*({told})"):
        places.load(place, "activity 'it'")
    assert "broken_module_here" not in sys.modules


def test_a_name_that_a_module_does_not_have_is_told():
    with pytest.raises(DefinitionError, match="has no 'gone' in a subprocess"):
        places.load(places.Place(__name__, "gone"), "it")


def test_the_watchdog_refuses_what_means_nothing():
    with pytest.raises(Invalid, match="above 0"):
        Watchdog(interval=0)
    with pytest.raises(Invalid, match="missed=0"):
        Watchdog(missed=0)
    with pytest.raises(Invalid, match="enabled='off'"):
        Watchdog(enabled="off")  # pyright: ignore[reportArgumentType]
    assert Watchdog(interval="2s", missed=3).limit_seconds == 6
