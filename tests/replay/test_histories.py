"""Histories recorded on every Python are replayed on this one, and recorded again alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.property.programs import interpret
from tests.replay import record
from tests.replay.copies import CASES

from perdure.kernel.instance import Instance, StoredTurn
from perdure.values import events as ev

PYTHONS = sorted(path.name for path in record.HISTORIES.iterdir() if path.is_dir())
FILES = sorted(path for path in record.HISTORIES.glob("*/*.json"))


def name_of(path: Path) -> str:
    return f"{path.parent.name}-{path.stem}"


def turns_of(rows: list[dict[str, Any]]) -> list[StoredTurn]:
    return [
        StoredTurn(ev.decode_turn(data), row["time"], row["applied"], len(data))
        for row in rows
        for data in [bytes.fromhex(row["events"])]
    ]


def last_event(turns: list[StoredTurn]) -> ev.Event:
    return turns[-1].events[-1]


def test_every_supported_python_has_recorded_every_case():
    assert PYTHONS == ["py311", "py312", "py313"]
    for python in PYTHONS:
        recorded = {path.stem for path in FILES if path.parent.name == python}
        assert recorded == set(record.names())


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_recorded_history_is_replayed(path: Path):
    program = interpret if path.stem == "drawn" else CASES[path.stem][0]
    for rows in json.loads(path.read_text(encoding="utf-8")):
        turns = turns_of(rows)
        instance = Instance(program)
        assert instance.replay(turns) == []
        assert instance.length == sum(len(turn.events) for turn in turns)
        if type(last_event(turns)) in ev.CLOSING:
            assert instance.closed is not None
            assert instance.closed == last_event(turns)
        instance.evict()


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_any_prefix_of_a_recorded_history_goes_on_as_recorded(path: Path):
    program = interpret if path.stem == "drawn" else CASES[path.stem][0]
    for rows in json.loads(path.read_text(encoding="utf-8")):
        turns = turns_of(rows)
        for length in range(1, len(turns)):
            instance = Instance(program)
            facts = instance.replay(turns[:length])
            for events, time, is_applied, size in turns[length:]:
                count = ev.split(events)
                facts = [*facts, *events[:count]]
                if is_applied:
                    assert instance.apply(facts, time).commands == events[count:]
                    facts = []
                instance.size += size
            instance.evict()


@pytest.mark.parametrize("name", record.names())
def test_recording_again_gives_the_bytes_that_every_python_recorded(name: str):
    text = record.record(name)
    for python in PYTHONS:
        recorded = (record.HISTORIES / python / f"{name}.json").read_text(encoding="utf-8")
        assert text == recorded, f"{python} recorded something else"


def test_a_history_shows_what_its_bytes_say():
    for path in FILES:
        for rows in json.loads(path.read_text(encoding="utf-8")):
            for row in rows:
                told = [event.brief() for event in ev.decode_turn(bytes.fromhex(row["events"]))]
                assert told == row["told"]


def test_the_whole_corpus_stays_small():
    assert sum(path.stat().st_size for path in FILES) < 700_000
