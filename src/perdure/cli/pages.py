"""Lists that come in pages: their options, and a page in the format that was asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from perdure.cli.out import compact, document, hint, say
from perdure.values.limits import LIST_DEFAULT, LIST_MAX

if TYPE_CHECKING:
    from perdure.views import Page

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

_limit = click.option(
    "--limit",
    type=click.IntRange(1, LIST_MAX),
    default=LIST_DEFAULT,
    help=f"At most this many.  [default: {LIST_DEFAULT}]",
)
_cursor = click.option("--cursor", help="Go on where the page before ended.")


def page_options(command: F) -> F:
    """Add ``--limit`` and ``--cursor``."""
    return _limit(_cursor(command))


def say_page(
    page: Page[T],
    output: str,
    *,
    listed: Callable[[T], dict[str, Any]],
    table: Callable[[Sequence[T]], str],
    nothing: str,
) -> None:
    """Print a page.

    Args:
        page: what there is.
        output: ``table``, ``json``, ``jsonl``, ``ids``.
        listed: returns the fields of one thing for JSON.
        table: returns the table of what there is; it is never empty.
        nothing: what to say if there is nothing.
    """
    if output == "json":
        items = [listed(item) for item in page.items]
        say(document({"items": items, "cursor": page.cursor}))
    elif output in ("jsonl", "ids"):
        for item in page.items:
            fields = listed(item)
            say(fields["id"] if output == "ids" else compact(fields))
    elif page.items:
        say(table(page.items))
    else:
        hint(nothing)
    if page.cursor is not None:
        hint(f"there are more: add --cursor {page.cursor}")
