"""Eight processes at the same human tasks: of those who claim, complete or move one, one wins."""

from __future__ import annotations

import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.crash.processes import Place, kill

from perdure import Client
from perdure.people import HumanTask
from perdure.values.people import HumanTaskStatus

PROCESSES = 8
TASKS = 12

RACE = """
import asyncio, sys
from perdure import Client, errors

async def attempt(verb, id, call):
    try:
        await call
        print(verb, id, flush=True)
    except (errors.TaskClaimed, errors.TaskClosed, errors.TaskDenied) as error:
        print("lost", id, type(error).__name__, flush=True)

async def main():
    url, me, how, *ids = sys.argv[1:]
    async with Client(url, identity=me) as client:
        print("ready", flush=True)
        sys.stdin.readline()
        people = client.human_tasks
        if how == "move":
            while moved := await client.door.write(
                lambda store: store.move_human_tasks(client.door.now(), limit=3)
            ):
                for one in moved:
                    print("moved", one.task.id, flush=True)
        for id in ids:
            if how == "claim":
                await attempt("claimed", id, people.claim(id))
            if how != "move":
                await attempt("completed", id, people.complete(id, f"from {me}"))
    print("over", flush=True)
    sys.stdin.readline()

asyncio.run(main())
"""


@pytest.fixture(params=["sqlite", "postgres"])
def place(tmp_path: Path, request: pytest.FixtureRequest) -> Place:
    url = request.getfixturevalue("postgres_url") if request.param == "postgres" else ""
    return Place(tmp_path, url)


def race(place: Place, how: str, *ids: str) -> dict[str, list[list[str]]]:
    """Let all do the same at once; return what each has said."""
    names = [f"p{number}" for number in range(PROCESSES)]
    racers = {me: place.start(RACE, me, how, *ids, stdin=True) for me in names}
    try:
        for process in racers.values():
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        return {me: _said(process) for me, process in racers.items()}
    finally:
        for process in racers.values():
            kill(process)


def _said(process: subprocess.Popen[str]) -> list[list[str]]:
    assert process.stdout is not None
    found: list[list[str]] = []
    while (line := process.stdout.readline()) and line != "over\n":
        found.append(line.split())
    assert line, "it ended before it was over"
    return found


def winners(said: dict[str, list[list[str]]], verb: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for me, lines in said.items():
        for line in lines:
            if line[0] == verb:
                found.setdefault(line[1], []).append(me)
    return found


async def raised(client: Client, **options: Any) -> list[HumanTask]:
    people = client.human_tasks
    return [await people.create(f"Do {number}", **options) for number in range(TASKS)]


async def test_one_claims_and_only_whoever_holds_it_completes(place: Place):
    async with Client(place.url, identity="boss") as client:
        ids = [task.id for task in await raised(client)]
        said = race(place, "claim", *ids)
        claimed, completed = winners(said, "claimed"), winners(said, "completed")
        assert set(completed) == set(ids)
        for id in ids:
            assert claimed[id] == completed[id]
            assert len(claimed[id]) == 1
            after = await client.human_tasks.get(id)
            assert (after.status, after.closed_by) == (
                HumanTaskStatus.COMPLETED,
                claimed[id][0],
            )
            log = [(it.by, it.verb) for it in await client.human_tasks.log(id)]
            (winner,) = claimed[id]
            assert log == [("boss", "opened"), (winner, "claimed"), (winner, "completed")]


async def test_of_several_who_have_to_complete_it_each_is_another_and_no_more_are_taken(
    place: Place,
):
    async with Client(place.url, identity="boss") as client:
        ids = [task.id for task in await raised(client, approvers=3)]
        completed = winners(race(place, "complete", *ids), "completed")
        for id in ids:
            after = await client.human_tasks.get(id)
            assert sorted(completed[id]) == sorted(it.by for it in after.approvals)
            assert len(set(completed[id])) == 3
            assert after.status is HumanTaskStatus.COMPLETED
            assert after.value == f"from {after.approvals[-1].by}"


async def test_each_is_moved_on_by_one(place: Place):
    async with Client(place.url, identity="boss") as client:
        tasks = await raised(client, due="1us")
        said = race(place, "move")
        moved = Counter(line[1] for lines in said.values() for line in lines)
        assert moved == dict.fromkeys([task.id for task in tasks], 1)
        for task in tasks:
            log = [it.verb for it in await client.human_tasks.log(task.id)]
            assert log == ["opened", "expired"]
