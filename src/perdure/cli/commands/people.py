"""Human tasks: what people are asked for, and what they do about it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click
import msgspec

from perdure import errors
from perdure.cli import given, table
from perdure.cli.acting import act_on_one, act_on_several, find, several, who
from perdure.cli.out import compact, document, format_option, hint, moment, say, short
from perdure.cli.pages import page_options, say_page
from perdure.cli.session import Database, client_on, database_option

if TYPE_CHECKING:
    from perdure.people import HumanTask, HumanTasks

_NOT_LISTED = ("form", "data", "value", "approvals")


@click.group("people")
def people_command() -> None:
    """What people are asked for: list it, claim it, decide it.

    An ID is that of a human task, or a unique beginning of it. Who acts is the user of this
    computer, or --by. Where several IDs may stand, - reads them from stdin, a line each.
    """


def _acting(command: Any) -> Any:
    command = click.option(
        "--by", metavar="WHO", help="Who does it.  [default: the user of this computer]"
    )(command)
    return format_option("line", "json")(database_option(command))


# -- looking -------------------------------------------------------------------------------------


@people_command.command("list")
@click.option(
    "-s", "--status", multiple=True, help="With this status; repeat, or separate by commas."
)
@click.option("--role", metavar="ROLE", help="Of this role (a group of people).")
@click.option("--assignee", metavar="WHO", help="Assigned to exactly this person.")
@click.option("--for", "for_person", metavar="WHO", help="Assigned to them, or to nobody.")
@click.option("--mine", is_flag=True, help="The same, for the user of this computer.")
@click.option("-w", "--workflow", metavar="NAME", help="Of this workflow.")
@click.option("--id", "workflow_id", metavar="ID", help="Of exactly this workflow id.")
@click.option("--type", metavar="TYPE", help="Of this kind.")
@click.option(
    "--search", multiple=True, metavar="K=V", help="Of runs with this search attribute; repeat."
)
@click.option("--overdue", is_flag=True, help="Only what is late.")
@page_options
@format_option("table", "json", "jsonl", "ids")
@database_option
def list_command(
    database: Database,
    output: str,
    limit: int,
    cursor: str | None,
    *,
    mine: bool,
    **filters: Any,
) -> None:
    """List what is open, by when it is due; what is closed, newest first."""
    filters["status"] = [part for text in filters["status"] for part in text.split(",")]
    filters["search"] = given.pairs(filters["search"], "--search")
    if mine:
        filters["for_person"] = who(None)
    asyncio.run(_list(database, output, limit, cursor, filters))


async def _list(
    database: Database, output: str, limit: int, cursor: str | None, filters: dict[str, Any]
) -> None:
    async with client_on(database) as client:
        page = await client.human_tasks.list(limit=limit, cursor=cursor, **filters)
    nothing = f"nobody is asked for anything in {database.name}"
    say_page(page, output, listed=_listed, table=_table, nothing=nothing)


def _table(tasks: Sequence[HumanTask]) -> str:
    titles = ["ID", "TITLE", "STATUS", "FOR", "DUE", "WORKFLOW", "WORKFLOW ID"]
    rows = [
        [
            task.id,
            task.title,
            f"{task.status} by {task.claimed_by}" if task.claimed_by else str(task.status),
            task.assignee or task.role or "",
            moment(task.due_at) + (" (overdue)" if task.is_overdue else ""),
            task.workflow,
            task.workflow_id,
        ]
        for task in tasks
    ]
    return table.render(titles, rows, elastic="TITLE")


def _listed(task: HumanTask) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(task)
    return {key: value for key, value in fields.items() if key not in _NOT_LISTED}


@people_command.command("show")
@click.argument("id")
@format_option("table", "json")
@database_option
def show_command(database: Database, id: str, output: str) -> None:
    """Show one: the question, the form, what stands beside it, the decision."""
    asyncio.run(_show(database, id, output))


async def _show(database: Database, id: str, output: str) -> None:
    async with client_on(database) as client:
        task = await find(client.human_tasks, id)
    fields: dict[str, Any] = msgspec.to_builtins(task)
    if output == "json":
        say(document(fields))
        return
    for key, value in fields.items():
        if value not in (None, "", False):
            text = value if isinstance(value, str) else short(value, 200)
            say(f"{key.replace('_', ' '):<14} {table.clean(text)}")
    if task.status.is_open:
        hint(f"decide it with `{database.line('people', 'complete', task.id)}` and the fields, K=V")


# -- acting --------------------------------------------------------------------------------------


@people_command.command("complete")
@click.argument("id")
@click.argument("value", nargs=-1, metavar="[VALUE] [K=V]...")
@click.option("--comment", default="", help="Goes to the run with it.")
@_acting
def complete_command(
    database: Database, id: str, output: str, by: str | None, value: tuple[str, ...], comment: str
) -> None:
    """Do what is asked; the run goes on with VALUE.

    VALUE is JSON, plain text, @FILE or - (stdin). It is checked against the form.
    """
    entered = given.payload(value)

    async def act(people: HumanTasks, task: str, who: str) -> HumanTask:
        try:
            return await people.complete(task, entered, by=who, comment=comment)
        except errors.Invalid as exc:
            raise given.hint_at_text(exc, value) from exc

    act_on_one(database, id, output, by, act)


@people_command.command("reject")
@click.argument("id")
@click.option("--reason", default="", help="Goes to the run with it.")
@_acting
def reject_command(database: Database, id: str, output: str, by: str | None, reason: str) -> None:
    """Refuse what is asked."""
    act_on_one(
        database, id, output, by, lambda people, task, who: people.reject(task, reason, by=who)
    )


@people_command.command("claim")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@click.option("--for", "span", default="30m", metavar="SPAN", help="How long.  [default: 30m]")
@_acting
def claim_command(
    database: Database, ids: tuple[str, ...], output: str, by: str | None, span: str
) -> None:
    """Keep it for oneself for a while; who holds it already gets a new span."""
    act_on_several(
        database,
        ids,
        output,
        by,
        lambda people, task, who: people.claim(task, span, by=who),
        lambda people, tasks, who: people.claim_many(tasks, span, by=who),
    )


@people_command.command("release")
@click.argument("id")
@_acting
def release_command(database: Database, id: str, output: str, by: str | None) -> None:
    """Give a claim back."""
    act_on_one(database, id, output, by, lambda people, task, who: people.release(task, by=who))


@people_command.command("delegate")
@click.argument("id")
@click.option("--to", required=True, metavar="WHO", help="A person.")
@click.option("--reason", default="", help="For its log.")
@_acting
def delegate_command(
    database: Database, id: str, output: str, by: str | None, to: str, reason: str
) -> None:
    """Give what one has claimed, or is assigned, to another person."""
    act_on_one(
        database,
        id,
        output,
        by,
        lambda people, task, who: people.delegate(task, to, reason=reason, by=who),
    )


@people_command.command("reassign")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@click.option("--to", metavar="WHO", help="A person.")
@click.option("--group", metavar="ROLE", help="A group of people (of one human task).")
@_acting
def reassign_command(
    database: Database,
    ids: tuple[str, ...],
    output: str,
    by: str | None,
    to: str | None,
    group: str | None,
) -> None:
    """Make it somebody else's."""
    wanted = several(ids)
    if len(wanted) > 1 and to is None:
        raise click.UsageError("several human tasks become a person's: --to; see also escalate")
    act_on_several(
        database,
        tuple(wanted),
        output,
        by,
        lambda people, task, who: people.reassign(task, to, group=group, by=who),
        lambda people, tasks, who: people.assign_many(tasks, to or "", by=who),
    )


@people_command.command("escalate")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@click.option("--to", metavar="ROLE", help="The role.  [default: the next of its own]")
@click.option("--reason", default="", help="For its log.")
@_acting
def escalate_command(
    database: Database,
    ids: tuple[str, ...],
    output: str,
    by: str | None,
    to: str | None,
    reason: str,
) -> None:
    """Give it to another role now; a claim ends with it."""
    act_on_several(
        database,
        ids,
        output,
        by,
        lambda people, task, who: people.escalate(task, to, reason=reason, by=who),
        lambda people, tasks, who: people.escalate_many(tasks, to, reason=reason, by=who),
    )


@people_command.command("cancel")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@click.option("--reason", default="", help="Goes to the run with it.")
@_acting
def cancel_command(
    database: Database, ids: tuple[str, ...], output: str, by: str | None, reason: str
) -> None:
    """Take it back: nobody has to do it any more."""
    act_on_several(
        database,
        ids,
        output,
        by,
        lambda people, task, who: people.cancel(task, reason, by=who),
        lambda people, tasks, who: people.cancel_many(tasks, reason, by=who),
    )


@people_command.command("comment")
@click.argument("id")
@click.argument("text")
@_acting
def comment_command(database: Database, id: str, output: str, by: str | None, text: str) -> None:
    """Say something about it; its log has it."""
    act_on_one(
        database, id, output, by, lambda people, task, who: people.comment(task, text, by=who)
    )


@people_command.command("attach")
@click.argument("id")
@click.argument("name")
@click.argument("uri")
@click.option("--type", "media_type", default="", metavar="TYPE", help="application/pdf, say.")
@click.option("--digest", default="", help="Of its bytes: sha256:…")
@_acting
def attach_command(
    database: Database,
    id: str,
    output: str,
    by: str | None,
    *,
    name: str,
    uri: str,
    media_type: str,
    digest: str,
) -> None:
    """Refer to a document NAME at URI; it stays where it is."""

    async def act(people: HumanTasks, task: str, who: str) -> HumanTask:
        return await people.attach(task, name, uri, media_type=media_type, digest=digest, by=who)

    act_on_one(database, id, output, by, act)


@people_command.command("create")
@click.argument("title")
@click.argument("data", nargs=-1, metavar="[DATA] [K=V]...")
@click.option("--role", metavar="ROLE", help="Whose it is.")
@click.option("--assignee", metavar="WHO", help="Whose it is in particular.")
@click.option("--type", default="", metavar="TYPE", help="What kind it is.")
@click.option("--description", default="", help="The whole question.")
@click.option("--form", metavar="JSON", help="A JSON Schema of what is entered, or @FILE.")
@click.option("--due", metavar="SPAN", help="By when it is to be done; it expires then.")
@click.option("--expires", metavar="SPAN", help="When it does instead; or `never`.")
@click.option("--priority", type=click.IntRange(1, 4), default=2, help="1 is the most urgent.")
@click.option(
    "--escalate",
    multiple=True,
    metavar="ROLE=SPAN",
    help="Where it goes if nobody decides it, and when; repeat.",
)
@click.option("--approvers", type=int, default=1, help="How many people must complete it.")
@_acting
def create_command(
    database: Database,
    title: str,
    data: tuple[str, ...],
    output: str,
    by: str | None,
    *,
    form: str | None,
    escalate: tuple[str, ...],
    **options: Any,
) -> None:
    """Raise one by hand, that no workflow asks for; DATA is shown beside it."""
    chain = [_step(text) for text in escalate]

    async def run() -> None:
        async with client_on(database, write=True) as client:
            task = await client.human_tasks.create(
                title,
                form=None if form is None else given.value(form),
                payload=given.payload(data) if data else None,
                escalate=chain,
                by=who(by),
                **options,
            )
        say(document(msgspec.to_builtins(task)) if output == "json" else task.id)

    asyncio.run(run())


@people_command.command("log")
@click.argument("id")
@format_option("table", "json", "jsonl")
@database_option
def log_command(database: Database, id: str, output: str) -> None:
    """Show what was done to one, with comments and attachments, oldest first."""

    async def run() -> None:
        async with client_on(database) as client:
            task = await find(client.human_tasks, id)
            entries = await client.human_tasks.log(task.id)
        if output == "json":
            say(document({"items": [msgspec.to_builtins(it) for it in entries]}))
        elif output == "jsonl":
            for entry in entries:
                say(compact(msgspec.to_builtins(entry)))
        else:
            rows = [
                [moment(it.at), it.verb, it.by, short(it.data, 200) if it.data else it.sealed]
                for it in entries
            ]
            say(table.render(["AT", "WHAT", "BY", "MORE"], rows, elastic="MORE"))

    asyncio.run(run())


def _step(text: str) -> tuple[str, str]:
    role, _, span = text.partition("=")
    if not span:
        raise click.UsageError(f"--escalate: {text!r} is not ROLE=SPAN: lead=1d")
    return role, span
