"""How `perdure people` acts: on one human task, or on several."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import click
import msgspec

from perdure import errors
from perdure.cli.out import document, hint, moment, say
from perdure.cli.session import Database, client_on, user
from perdure.values.people import HumanTaskStatus

if TYPE_CHECKING:
    from perdure.people import HumanTask, HumanTasks, Many


def several(ids: tuple[str, ...]) -> list[str]:
    """Return the ids that were given; ``-``: those on stdin, a line each."""
    if ids != ("-",):
        return list(ids)
    return [line.strip() for line in sys.stdin if line.strip()]


def act_on_several(
    database: Database,
    ids: tuple[str, ...],
    output: str,
    by: str | None,
    one: Callable[[HumanTasks, str, str], Awaitable[HumanTask]],
    many: Callable[[HumanTasks, Sequence[str], str], Awaitable[Many]],
) -> None:
    """Act on one, or on several; whoever is skipped makes the exit code that of a conflict."""
    wanted = several(ids)
    if len(wanted) == 1:
        act_on_one(database, wanted[0], output, by, one)
        return

    async def run() -> Many:
        async with client_on(database, write=True) as client:
            people = client.human_tasks
            found = [(await find(people, text)).id for text in wanted]
            return await many(people, found, who(by))

    done, skipped = asyncio.run(run())
    if output == "json":
        say(document(msgspec.to_builtins({"done": done, "skipped": skipped})))
    else:
        for task in done:
            hint(f"{task.title!r} ({task.id}) is {task.status}")
        for it in skipped:
            hint(f"skipped: {it.reason}")
    if skipped:
        raise errors.Conflict(f"{len(skipped)} of {len(wanted)} were skipped")


def act_on_one(
    database: Database,
    id: str,
    output: str,
    by: str | None,
    act: Callable[[HumanTasks, str, str], Awaitable[HumanTask]],
) -> None:
    """Find a human task, act on it, and say what became of it."""

    async def run() -> None:
        async with client_on(database, write=True) as client:
            task = await find(client.human_tasks, id)
            after = await act(client.human_tasks, task.id, who(by))
        if output == "json":
            say(document(msgspec.to_builtins(after)))
            return
        whose = after.claimed_by or after.closed_by or after.assignee or after.role
        until = f" until {moment(after.claimed_until)}" if after.claimed_until else ""
        said = f"{after.title!r} ({after.id}) is {after.status}"
        hint(f"{said}{f', by {whose}' if whose and not after.status.is_open else ''}{until}")

    asyncio.run(run())


async def find(people: HumanTasks, text: str) -> HumanTask:
    """Return the human task with this id, or the only one whose id begins so.

    Raises:
        TaskNotFound: there is none.
        click.UsageError: several begin so; the message lists them.
    """
    if not text:
        raise errors.Invalid("an id cannot be empty")
    page = await people.list(prefix=text, status=list(HumanTaskStatus), limit=10)
    if not page.items:
        raise errors.TaskNotFound(f"there is no human task {text!r}; see `perdure people list`")
    if len(page.items) > 1:
        lines = [f"{text!r} fits several; write more of the id:"]
        lines += [f"  {task.id}  {task.title}  {task.status}" for task in page.items]
        raise click.UsageError("\n".join(lines))
    return page.items[0]


def who(by: str | None) -> str:
    """Return who acts: who was named, or else who uses this computer.

    Raises:
        UsageError: that has no name.
    """
    found = user() if by is None else by
    if by is None and not found:
        raise errors.UsageError("this user has no name here; say who acts with --by")
    return found
