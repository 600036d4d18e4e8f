"""``perdure lint``: what a replay of workflow code may not repeat."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout

import click

from perdure import errors
from perdure.cli import exits
from perdure.cli.loading import load_module, near, workflows_of
from perdure.cli.out import document, format_option, hint, say
from perdure.lint import check_all


@click.command("lint")
@click.argument("modules", nargs=-1, required=True, metavar="MODULE...")
@format_option("text", "json")
def lint_command(modules: tuple[str, ...], output: str) -> int:
    """Check the workflows of modules for what a replay may not repeat.

    MODULE is a dotted name, or a path to a .py or a definition file (.yaml, .json). Each finding is
    one line: file, line, kind, and what to do instead. A line of code that ends with `# perdure:
    allow` is passed over. The exit code is 1 if there are findings. Nothing is run but the import
    of the modules.
    """
    with redirect_stdout(sys.stderr):
        loaded = [load_module(module) for module in modules]
    workflows = {id(found): found for m in loaded for found in workflows_of(m).values()}
    if not workflows:
        raise errors.UsageError(f"no workflow is defined in {', '.join(modules)}")
    found = [finding._replace(file=near(finding.file)) for finding in check_all(workflows.values())]
    if output == "json":
        say(document([finding._asdict() for finding in found]))
    else:
        for finding in found:
            say(str(finding))
        hint(f"{_count(len(found), 'finding')} in {_count(len(workflows), 'workflow')}")
    return exits.FAILED if found else exits.OK


def _count(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"
