"""``perdure check``: does this code fit the runs that are under way?"""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType

import click

from perdure import errors
from perdure.cli import exits, table
from perdure.cli.loading import load_module, near, workflows_of
from perdure.cli.out import document, format_option, hint, say
from perdure.cli.session import Database, client_on, database_option
from perdure.engine.checking import CORRUPT, FITS, MISFIT, UNKNOWN, Checker, Verdict
from perdure.engine.registry import Registry

_WORDS = {
    FITS: "fits",
    MISFIT: "does not fit",
    UNKNOWN: "unknown workflow",
    CORRUPT: "corrupt",
}
_COUNTED = {
    FITS: "fit",
    MISFIT: "do not fit",
    UNKNOWN: "of an unknown workflow",
    CORRUPT: "corrupt",
}
_SEED = "PYTHONHASHSEED"
_RESEEDED = "PERDURE_CHECK_RESEEDED"
_TITLES = ("ID", "WORKFLOW", "VERDICT", "EVENT", "HISTORY HAS", "THE CODE", "AT")


@click.command("check")
@click.argument("modules", nargs=-1, required=True, metavar="MODULE...")
@click.option(
    "-w", "--workflow", "workflows", multiple=True, metavar="NAME", help="Only this one; repeat."
)
@click.option("--limit", type=click.IntRange(1), metavar="N", help="At most the N oldest runs.")
@format_option("table", "json")
@database_option
@click.pass_obj
def check_command(
    is_own_process: bool,
    database: Database,
    modules: tuple[str, ...],
    workflows: tuple[str, ...],
    limit: int | None,
    output: str,
) -> int:
    """Replay every open run against the code of modules, before it is deployed.

    MODULE is a dotted name, or a path to a .py or a definition file (.yaml, .json); name all
    modules whose workflows have runs in the database, or pick some with --workflow. Nothing is
    changed, and workers may run meanwhile. The table lists the runs that do not fit; the exit code
    is 1 if there are any.
    """
    if is_own_process:
        _take_another_seed()
    with redirect_stdout(sys.stderr):
        loaded = [load_module(module) for module in modules]
    registry = _registry(modules, loaded)
    unknown = [name for name in workflows if name not in registry.names]
    if unknown:
        known = ", ".join(sorted(registry.names))
        raise errors.UsageError(
            f"{', '.join(modules)} defines no workflow {unknown[0]!r} (it has: {known})"
        )
    # What workflow code prints in a replay is no data of ours, nor news.
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        verdicts, checker = asyncio.run(_check(database, registry, workflows, limit))
    counts = Counter(verdict.verdict for verdict in verdicts)
    if output == "json":
        say(document(_report(verdicts, counts, checker)))
    else:
        _show(verdicts)
    _sum_up(counts, checker)
    return exits.OK if counts[FITS] == len(verdicts) else exits.FAILED


def _take_another_seed() -> None:
    """Begin anew with a hash seed by chance, if the environment fixes it.

    The worker has the same one, and code that goes through a set would seem to fit.
    """
    is_reseeded = os.environ.pop(_RESEEDED, "")
    if is_reseeded or not os.environ.get(_SEED, "").isdecimal():
        return
    sys.stdout.flush()
    sys.stderr.flush()
    environment = {**os.environ, _SEED: "random", _RESEEDED: "1"}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)  # noqa: S606


def _registry(modules: Sequence[str], loaded: Sequence[ModuleType]) -> Registry:
    registry = Registry(())
    for module in loaded:
        for found in workflows_of(module).values():
            registry.register(found)
    if not registry.names:
        raise errors.UsageError(f"no workflow is defined in {', '.join(modules)}")
    return registry


async def _check(
    database: Database, registry: Registry, workflows: Sequence[str], limit: int | None
) -> tuple[list[Verdict], Checker]:
    async with client_on(database) as client:
        checker = Checker(client.door, registry)
        verdicts = [verdict async for verdict in checker.verdicts(workflows, limit)]
    return verdicts, checker


def _report(
    verdicts: Sequence[Verdict], counts: Counter[str], checker: Checker
) -> dict[str, object]:
    return {
        "checked": len(verdicts),
        "counts": {name: counts[name] for name in _WORDS},
        "left_out": checker.left_out,
        "not_asked_for": dict(checker.elsewhere),
        "runs": verdicts,
    }


def _show(verdicts: Sequence[Verdict]) -> None:
    rows = [_row(verdict) for verdict in verdicts if verdict.verdict != FITS]
    if rows:
        say(table.render(_TITLES, rows))


def _row(verdict: Verdict) -> list[str]:
    where = verdict.where or ""
    if where:
        file, separator, rest = where.rpartition(":")
        where = near(file) + separator + rest if separator else where
    has_place = verdict.expected is not None
    return [
        verdict.id,
        verdict.workflow,
        _WORDS[verdict.verdict],
        "" if verdict.event is None else str(verdict.event),
        verdict.expected or "",
        (verdict.actual or "") if has_place else verdict.message or "",
        where,
    ]


def _sum_up(counts: Counter[str], checker: Checker) -> None:
    total = sum(counts.values())
    parts = [f"{counts[name]} {said}" for name, said in _COUNTED.items() if counts[name]]
    what = f"{total} open run{'' if total == 1 else 's'} checked"
    hint(": ".join([what, ", ".join(parts)]) if parts else what)
    if checker.left_out:
        hint(f"{checker.left_out} more were left out by --limit")
    if checker.elsewhere:
        of = ", ".join(f"{name} ({count})" for name, count in checker.elsewhere.most_common())
        hint(f"not asked for, and not checked: {of}")
    if counts[UNKNOWN]:
        hint("name every module that defines workflows of this database, or pick with --workflow")
