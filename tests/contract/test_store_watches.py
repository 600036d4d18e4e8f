"""Watches of executions by executions: who is told of an end, and who is not any more."""

import pytest
from tests.contract.store_contract import World, closing, turn

from perdure.store.port import Watch
from perdure.values import events as ev
from perdure.values.failures import FailureInfo
from perdure.values.states import Status

FAILED = ev.encode_turn([ev.RunFailed(failure=FailureInfo("it broke"))])


def told(world: World, run: int) -> list[str]:
    """Return the ways in which a run was told of ends."""
    found = [ev.decode_turn(event)[0] for event in world.inbox(run)]
    return [event.way for event in found if isinstance(event, ev.ExecutionEnded)]


@pytest.mark.parametrize("ends", ["linker", "linked"])
def test_a_link_tells_either_of_the_others_failure(world: World, ends: str):
    linker, linked = world.owned("linker"), world.owned("linked")
    world.commit(turn(linker.run, watches=[Watch("link", "linked", asked_by="r")]))
    over, left = (linker, linked) if ends == "linker" else (linked, linker)
    first = 4 if over is linker else 3
    world.commit(closing(over.run, first=first, status=Status.FAILED, payload=FAILED))
    assert told(world, left.run) == ["linked" if ends == "linker" else "link"]


@pytest.mark.parametrize("ends", ["linker", "linked"])
@pytest.mark.parametrize("by", ["linker", "linked"])
def test_a_link_can_be_taken_back_by_either(world: World, by: str, ends: str):
    linker, linked = world.owned("linker"), world.owned("linked")
    world.commit(turn(linker.run, watches=[Watch("link", "linked", asked_by="r")]))
    lengths = {"linker": 3, "linked": 2}
    dropper, other = (linker, "linked") if by == "linker" else (linked, "linker")
    lengths[by] += 1
    world.commit(turn(dropper.run, first=lengths[by], watches=[Watch("link", other, drop=True)]))
    over, left = (linker, linked) if ends == "linker" else (linked, linker)
    world.commit(closing(over.run, first=lengths[ends] + 1, status=Status.FAILED, payload=FAILED))
    assert told(world, left.run) == []


def test_a_monitor_stays_when_a_link_is_taken_back(world: World):
    watcher, target = world.owned("watcher"), world.owned("target")
    watches = [Watch(way, "target", asked_by="r") for way in ("link", "monitor")]
    world.commit(turn(watcher.run, watches=watches))
    world.commit(turn(target.run, watches=[Watch("link", "watcher", drop=True)]))
    world.commit(closing(target.run, first=4, status=Status.FAILED, payload=FAILED))
    assert told(world, watcher.run) == ["monitor"]


def test_who_has_ended_is_not_told_of_a_later_end(world: World):
    watcher, target = world.owned("watcher"), world.owned("target")
    world.commit(turn(watcher.run, watches=[Watch("monitor", "target", asked_by="r")]))
    world.commit(closing(watcher.run, first=4))
    world.commit(closing(target.run, status=Status.FAILED, payload=FAILED))
    assert world.inbox(watcher.run) == []
