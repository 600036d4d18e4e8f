"""The command line.

This module and click are all that ``perdure --help`` loads. A command is a function in
``perdure.cli.commands`` and is imported when it is called; its place and its line of help stand in
the table below. Commands raise what the client raises; ``main`` turns that into one line on stderr
and an exit code (``perdure.cli.exits``).
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Sequence

import click

_INTERRUPTED = 130
_NO_READER = 141
_NOT_WRITTEN = 74
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})

COMMANDS: dict[str, dict[str, tuple[str, str]]] = {
    "Begin": {
        "demo": ("demo", "Kill a worker in the middle of an order; watch the order finish."),
        "dev": ("dev", "Serve workflows of a module in the foreground, until Ctrl-C."),
        "check": ("check", "Replay the open runs against code that is to be deployed."),
        "lint": ("lint", "Check workflow code for what a replay may not repeat."),
        "graph": ("graph", "Draw a step machine or a graph (Mermaid), also with a run's state."),
        "run": ("run", "Run a workflow here, to its end; the exit code is its outcome."),
        "start": ("start", "Start a workflow for the workers to run, and print its id."),
    },
    "Look (works without a worker)": {
        "list": ("look", "List executions, newest first."),
        "show": ("look", "Show one execution: status, input, output, why it waits."),
        "history": ("look", "Show the events of a run."),
        "events": ("events", "Show what happened in all runs, by name; --follow goes on."),
        "logs": ("logs", "Show what a run has logged."),
        "why": ("look", "Say in one sentence what a run waits for."),
        "result": ("result", "Wait for the result and print it."),
        "export": ("repair", "Write a run as one JSON document."),
        "workers": ("look", "List the workers of the database."),
    },
    "Act": {
        "send": ("act", "Send a message to an execution."),
        "query": ("act", "Ask a query handler of a workflow."),
        "update": ("act", "Call an update handler of a workflow and print its answer."),
        "cancel": ("act", "Ask an execution to end; it can clean up."),
        "terminate": ("act", "End an execution at once, without its code."),
        "pause": ("steer", "Let runs take no turns for now."),
        "resume": ("steer", "Let paused runs go on."),
        "unpark": ("steer", "Let parked runs try again."),
        "move": ("steer", "Let runs go on under another version of their definition."),
        "retry": ("repair", "Run an ended execution again; keep what succeeded."),
        "fork": ("repair", "Start an execution that shares a run's history up to a point."),
        "import": ("repair", "Take in a run that `perdure export` wrote."),
        "prune": ("prune", "Delete ended runs, and all that is theirs."),
        "erase": ("erase", "Erase what ended runs were given and gave; keys of persons."),
    },
    "People": {
        "people": ("people", "What people are asked for: list, claim, complete, reject."),
    },
    "Audit": {
        "audit": ("audit", "Who did what: list it, check it, archive and cut it, erase details."),
    },
    "Policies": {
        "policies": ("policies", "Check a policy file, explain it, try it on what was asked."),
    },
    "Time": {
        "schedules": ("schedules", "What begins by the clock: create, list, pause, trigger."),
    },
    "Database": {
        "db": (
            "db",
            "Tables and data: migrate, print the SQL, status, seal anew.",
        ),
    },
    "About": {
        "version": ("version", "Print the version."),
    },
}
"""Section of the help -> command -> (module in ``perdure.cli.commands``, its line of help)."""

_HOMES = {name: entry for section in COMMANDS.values() for name, entry in section.items()}


class LazyGroup(click.Group):
    """Finds commands in the table and imports a command's module when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return list(_HOMES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in _HOMES:
            return None
        from importlib import import_module

        module = import_module(f"perdure.cli.commands.{_HOMES[cmd_name][0]}")
        command: click.Command = getattr(module, cmd_name.replace("-", "_") + "_command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that was asked for; name the nearest one if there is none."""
        if args and not args[0].startswith("-") and args[0] not in _HOMES:
            from difflib import get_close_matches

            near = get_close_matches(args[0], _HOMES, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise click.UsageError(f"there is no command {args[0]!r}{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands by section, from the table: nothing is imported for it."""
        for title, commands in COMMANDS.items():
            with formatter.section(title):
                formatter.write_dl([(name, text) for name, (_, text) in commands.items()])


@click.group(
    cls=LazyGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--db",
    metavar="URL|FILE",
    help="Database of all commands.  [PERDURE_DB, else sqlite:///perdure.db]",
)
@click.option(
    "--codec",
    metavar="MODULE:NAME",
    help="Codec that opens what the workers seal.  [PERDURE_CODEC]",
)
@click.option(
    "--blobs",
    metavar="URL|MODULE:NAME",
    help="Blob store of the workers, like file:///path.  [PERDURE_BLOBS]",
)
@click.option("--version", is_flag=True, help="Print the version and exit.")
@click.pass_context
def perdure(
    ctx: click.Context, db: str | None, codec: str | None, blobs: str | None, *, version: bool
) -> None:
    """Run workflows that outlive crashes, and look at them.

    An ID is a workflow id, a run id or a unique beginning of either; @last is the newest
    execution, @last:WORKFLOW the newest of that workflow. Data goes to stdout, everything else to
    stderr. Exit codes: 0 completed, 1 failed, 2 usage, 3 not found, 4 conflict, 5 cancelled or
    terminated, 6 store or worker unreachable, 124 the wait timed out.
    """
    if version:
        from perdure import __version__

        click.echo(f"perdure {__version__}")
        ctx.exit()
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    _forgive_encoding()
    given = list(sys.argv[1:] if args is None else args)
    try:
        # Not `perdure.main`: it ends with 1 where nobody reads the output, and 1 is a failed run.
        # The object tells whether the process is ours: then a command may begin it anew.
        with perdure.make_context("perdure", given, obj=args is None) as context:
            code = perdure.invoke(context)
        sys.stdout.flush()
    except click.exceptions.Exit as exc:
        code = exc.exit_code
    except BrokenPipeError:
        _silence()
        code = _NO_READER
    except (click.Abort, KeyboardInterrupt):
        code = _INTERRUPTED
    except click.ClickException as exc:
        code = _usage(exc)
    except Exception as exc:  # noqa: BLE001 - the shell gets a code and a line for whatever it was
        code = _not_written(exc) or _ended(exc)
    return code if isinstance(code, int) else 0


def _forgive_encoding() -> None:
    """Let a terminal that cannot show a character show its code instead of a traceback."""
    stream: object = sys.stdout
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")


def _silence() -> None:
    """Send stdout nowhere: Python would complain when it flushes it on its way out."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _not_written(exc: Exception) -> int:
    """Return the exit code if stdout takes no more (a full disk), else 0."""
    # A file that could not be opened or read has a name; stdout has none.
    if not isinstance(exc, OSError) or exc.errno not in _FULL or exc.filename is not None:
        return 0
    _silence()
    click.echo(f"error: the output cannot be written: {exc.strerror}", err=True)
    return _NOT_WRITTEN


def _usage(exc: click.ClickException) -> int:
    context: click.Context | None = getattr(exc, "ctx", None)
    text = exc.format_message().rstrip(".")
    text = text[:1].lower() + text[1:] if text[1:2].islower() else text
    where = f"(see `{context.command_path} --help`)" if context is not None else ""
    # After a list, the hint would be read as a part of its last line.
    where = where and ("\n" if "\n" in text else " ") + where
    click.echo(f"error: {text}{where}", err=True)
    return exc.exit_code


def _ended(exc: Exception) -> int:
    from perdure.cli import exits

    code = exits.code_of(exc)
    if code == exits.DEFECT:
        import traceback

        traceback.print_exception(exc)
        click.echo("error: this is a defect of Perdure; please report it with the above", err=True)
    else:
        click.echo(f"error: {exits.lines_of(exc)}", err=True)
    return code
