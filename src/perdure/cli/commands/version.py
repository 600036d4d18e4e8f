"""``perdure version``."""

from __future__ import annotations

import click

from perdure import __version__


@click.command("version")
def version_command() -> None:
    """Print the version."""
    click.echo(f"perdure {__version__}")
