"""``perdure policies``: check a policy file, explain what it says, and try it on what was asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import click
import msgspec

from perdure.cli import exits, given
from perdure.cli.out import document, format_option, hint, say
from perdure.errors import Invalid
from perdure.policy import Policies, replay
from perdure.policy.trial import read_request

_FILE = click.argument("file", type=click.Path(path_type=Path))
_ENV = click.option(
    "--env",
    "env",
    metavar="NAME=VALUE",
    multiple=True,
    help="What conditions see as env.NAME; again for another.",
)


@click.group("policies")
def policies_command() -> None:
    """Check policy files, and try them before they are in force (docs/policies.md)."""


@policies_command.command("check")
@_FILE
@_ENV
@format_option("text", "json")
def check_command(file: Path, env: tuple[str, ...], output: str) -> int:
    """Read a policy file, compile its conditions, and say what is hardly meant.

    A mistake is told with line and column, and the exit code is 2. Warnings are on stdout, one a
    line; with any, the exit code is 1.
    """
    policies = _load(file, env)
    found = policies.warnings
    if output == "json":
        told = [msgspec.to_builtins(one) for one in found]
        say(document({"version": policies.version, "warnings": told}))
    else:
        for one in found:
            say(str(one))
        hint(f"{file}: version {policies.version}, {_count(len(found), 'warning')}")
    return exits.FAILED if found else exits.OK


@policies_command.command("test")
@_FILE
@_ENV
@click.option(
    "--against",
    metavar="FILE",
    required=True,
    type=click.Path(path_type=Path),
    help="Recorded decisions, a JSON document a line.",
)
@format_option("text", "json")
def test_command(file: Path, env: tuple[str, ...], against: Path, output: str) -> int:
    """Judge recorded decisions again, and say which would be others under this file.

    With any, the exit code is 1. How decisions are recorded is in docs/policies.md.
    """
    policies = _load(file, env)
    looked_at, changes = 0, list[Any]()
    try:
        with against.open("rb") as lines:
            for change in replay(policies, lines):
                looked_at += 1
                if change is not None:
                    changes.append(change)
    except OSError as exc:
        raise Invalid(f"{against}: it cannot be read: {exc.strerror}") from None
    except Invalid as exc:
        raise Invalid(f"{against}: {exc.message}") from None
    if output == "json":
        told = [
            {**it._asdict(), "before": _told(it.before), "after": _told(it.after)} for it in changes
        ]
        say(document({"decisions": looked_at, "changes": told}))
    else:
        for change in changes:
            say(str(change))
        of = _count(looked_at, "decision")
        hint(f"{len(changes)} of {of} would be another" if looked_at else f"{of} in {against}")
    return exits.FAILED if changes else exits.OK


@policies_command.command("explain")
@_FILE
@_ENV
@click.option(
    "--request",
    "request",
    metavar="JSON|@FILE|-",
    required=True,
    help='What is asked: {"operation": "run", "request": {"service": …, "workflow_id": …}}.',
)
@format_option("text", "json")
def explain_command(file: Path, env: tuple[str, ...], request: str, output: str) -> int:
    """Say what every rule of a file says to a request, and why; the exit code is 1 if it is denied.

    The fields of a request are in docs/policies.md.
    """
    policies = _load(file, env)
    asked = given.value(request)
    if not isinstance(asked, dict):
        raise Invalid("--request: it is no JSON document with operation and request")
    operation, what = read_request(cast("dict[str, Any]", asked))
    verdict = policies.check(operation, what)
    found = policies.explain(operation, what)
    if output == "json":
        rules = [
            {
                "rule": it.rule,
                "allowed": it.allowed,
                "value": it.value,
                "code": it.code,
                "reason": it.reason,
            }
            for it in found
        ]
        say(document({**_told(verdict), "rules": rules}))
    else:
        for it in found:
            why = f": {it.code}: {it.reason}"
            if it.allowed:
                why = it.reason and f" ({it.reason})"
            value = "" if it.value == "always" else f" = {it.value}"
            said = f"{'passes' if it.allowed else 'DENIES'} {it.rule}{value}{why}"
            say(" ".join(said.splitlines()))  # a condition may have several
        hint("allowed" if verdict.allowed else f"denied by {verdict.rule}")
    return exits.OK if verdict.allowed else exits.FAILED


def _load(file: Path, env: tuple[str, ...]) -> Policies:
    values: dict[str, str] = {}
    for item in env:
        name, mark, value = item.partition("=")
        if not mark or not name:
            raise click.UsageError(f"--env: {item!r} is not NAME=VALUE")
        values[name] = value
    return Policies.load(file, env=values)


def _told(verdict: Any) -> dict[str, Any]:
    return {
        "allowed": verdict.allowed,
        "code": verdict.code,
        "rule": verdict.rule,
        "reason": verdict.reason,
        "version": verdict.version,
    }


def _count(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"
