"""Log lines of runs: with a turn, or with any batch; numbered per run, the newest stay."""

from __future__ import annotations

import pytest
from tests.contract.store_contract import World, closing, request, running, turn, waiting

from perdure.store.port import LogLine
from perdure.values import limits


def line(run: int, message: str = "hello", **rest: object) -> LogLine:
    return LogLine(run, 7, 20, message, **rest)  # type: ignore[arg-type]


def messages(world: World, run: int, **where: int) -> list[str]:
    return [found.message for found in world.store.log(run, **where)]


def test_lines_of_a_batch_are_numbered_in_each_run(world: World):
    one, two = world.owned("a").run, world.owned("b").run
    world.commit(lines=[line(one, "1"), line(two, "2"), line(one, "3")])
    world.commit(lines=[line(one, "4")])
    assert [(found.number, found.message) for found in world.store.log(one)] == [
        (1, "1"),
        (2, "3"),
        (3, "4"),
    ]
    assert [(found.number, found.message) for found in world.store.log(two)] == [(1, "2")]


def test_a_line_comes_back_as_it_went_in(world: World):
    run = world.owned().run
    whole = LogLine(run, 5, 30, 'quotes " \\u0000 and\nlines', b'{"a":[1,null]}', "pay", 3)
    world.commit(lines=[whole, line(run)])
    assert world.store.log(run) == [
        LogLine(run, 5, 30, 'quotes " \\u0000 and\nlines', b'{"a":[1,null]}', "pay", 3, 1),
        LogLine(run, 7, 20, "hello", None, "", 0, 2),
    ]


def test_lines_are_read_in_pages(world: World):
    run = world.owned().run
    world.commit(lines=[line(run, str(n)) for n in range(1, 8)])
    assert messages(world, run, limit=3) == ["1", "2", "3"]
    assert messages(world, run, after=3, limit=3) == ["4", "5", "6"]
    assert messages(world, run, after=7) == []
    assert messages(world, run + 1) == []


def test_lines_of_a_turn_are_written_with_it(world: World):
    run = world.owned().run
    world.commit(turn(run, lines=[line(0, "with the turn")]), lines=[line(run, "before it")])
    assert messages(world, run) == ["before it", "with the turn"]


def test_lines_of_a_first_turn_are_those_of_the_run_that_it_starts(world: World):
    first = turn(0, first=1, count=2, state=running(2), lines=[line(0, "at once")])
    [started] = world.commit(starts=[request("new", first=first)]).started
    assert messages(world, started.run) == ["at once"]


def test_lines_of_a_turn_that_is_dropped_are_dropped_and_those_of_others_stay(world: World):
    run = world.asleep("a").run
    busy = world.owned("b").run
    stale = turn(run, claim=1, state=waiting(3), lines=[line(0, "of nobody")])
    result = world.commit(stale, turn(busy, lines=[line(0, "mine")]), lines=[line(busy, "too")])
    assert result.lost == {run}
    assert messages(world, run) == []
    assert messages(world, busy) == ["too", "mine"]


def test_lines_of_a_run_that_is_not_there_are_left_out(world: World):
    run = world.owned().run
    world.commit(lines=[line(run + 99), line(run)])
    assert messages(world, run) == ["hello"]
    assert messages(world, run + 99) == []


def test_a_run_that_has_ended_keeps_its_lines_and_takes_more(world: World):
    run = world.owned().run
    world.commit(closing(run), lines=[line(run, "before")])
    world.commit(lines=[line(run, "after")])
    assert messages(world, run) == ["before", "after"]


def test_the_newest_lines_of_a_run_stay(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(limits, "LOG_LINES", 5)
    run, other = world.owned("a").run, world.owned("b").run
    world.commit(lines=[line(other, "other")])
    for start in (0, 3, 6):
        world.commit(lines=[line(run, str(n)) for n in range(start, start + 3)])
    assert [(found.number, found.message) for found in world.store.log(run)] == [
        (5, "4"),
        (6, "5"),
        (7, "6"),
        (8, "7"),
        (9, "8"),
    ]
    world.commit(lines=[line(run, f"x{n}") for n in range(20)])
    assert [found.number for found in world.store.log(run)] == [25, 26, 27, 28, 29]
    assert messages(world, other) == ["other"]


def test_a_batch_that_is_fenced_leaves_no_lines(world: World):
    run = world.owned().run
    batch = world.batch(lines=[line(run)])
    world.store.take_over(world.worker.id, world.worker.epoch, world.now)
    with pytest.raises(Exception, match="lease"):
        world.store.commit(batch)
    assert messages(world, run) == []
