"""The command that erases what runs were given and gave, and the keys of persons."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import click

from perdure import errors
from perdure.cli import exits, given
from perdure.cli.finding import find
from perdure.cli.out import hint, say
from perdure.cli.session import Database, client_on, database_option, user
from perdure.values.states import OPEN


class _How(NamedTuple):
    is_trial: bool
    is_sure: bool


@click.command("erase")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--subject", metavar="WHO", help="The key of a person: see docs/personal-data.md.")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="All that ended with this tag.")
@click.option(
    "--search", multiple=True, metavar="KEY=VALUE", help="All that ended with this attribute."
)
@click.option("--tenant", metavar="NAME", help="All that ended of this tenant.")
@click.option("--correlation-id", metavar="ID", help="All that ended with this one.")
@click.option("--dry-run", "is_trial", is_flag=True, help="Say what, and erase nothing.")
@click.option("--yes", "is_sure", is_flag=True, help="Do not ask.")
@database_option
def erase_command(
    database: Database,
    ids: tuple[str, ...],
    subject: str | None,
    search: tuple[str, ...],
    *,
    is_trial: bool,
    is_sure: bool,
    **filters: Any,
) -> int:
    """Erase, for ever, what users have put into executions that have ended.

    What happened when stays: kinds and order of events, names, ids, times. With a run id it is that
    run alone. Or, with --subject, destroy the key of a person: what was sealed for them can be
    opened by nobody any more.
    """
    filters["search"] = given.pairs(search, "--search")
    chosen = {name: value for name, value in filters.items() if value}
    if sum(map(bool, (ids, subject, chosen))) != 1:
        raise errors.UsageError("name executions, or what they have in common, or --subject")
    how = _How(is_trial, is_sure)
    if subject:
        return asyncio.run(_subject(database, subject, how))
    return asyncio.run(_found(database, chosen, how) if chosen else _named(database, ids, how))


async def _subject(database: Database, subject: str, how: _How) -> int:
    async def erase() -> None:
        is_new = await client.as_(user()).personal.erase(subject)
        hint(f"{subject!r} is erased" if is_new else f"{subject!r} had been erased before")

    async with client_on(database, write=not how.is_trial) as client:
        if not await client.personal.has_key(subject):
            hint(f"there is no key of {subject!r} here: nothing was sealed, or it is erased")
        return await _ask(f"destroy the key of {subject!r}", how, erase)


async def _found(database: Database, filters: dict[str, Any], how: _How) -> int:
    async def erase() -> None:
        done = await client.as_(user()).personal.erase_payloads_of(**filters)
        left = await client.count(**filters, status=[str(status) for status in OPEN])
        still = f"; {left} {'is' if left == 1 else 'are'} open and as before" if left else ""
        hint(f"erased {done} execution{'' if done == 1 else 's'}{still}")

    async with client_on(database, write=not how.is_trial) as client:
        count = await client.count(**filters)
        what = f"erase what has ended of {count} run{'' if count == 1 else 's'}"
        return await _ask(what, how, erase)


async def _named(database: Database, ids: tuple[str, ...], how: _How) -> int:
    async def erase() -> int:
        codes = [exits.OK]
        for handle in handles:
            try:
                await client.as_(user()).personal.erase_payloads(handle.id, handle.run_id)
            except errors.PerdureError as exc:
                if len(ids) == 1:
                    raise
                hint(f"error: {handle.id}: {exits.line_of(exc)}")
                codes.append(exits.code_of(exc))
            else:
                say(handle.id)
        return max(codes)

    async with client_on(database, write=not how.is_trial) as client:
        handles = [await find(client, id) for id in ids]
        names = ", ".join(repr(handle.id) for handle in handles)
        return await _ask(f"erase what {names} had been given and gave", how, erase)


async def _ask(what: str, how: _How, erase: Callable[[], Awaitable[int | None]]) -> int:
    if how.is_trial:
        say(f"would {what}")
        return exits.OK
    if not how.is_sure and not await asyncio.to_thread(
        click.confirm, f"{what}, for ever?", err=True
    ):
        raise errors.UsageError("nothing was erased")
    return await erase() or exits.OK
