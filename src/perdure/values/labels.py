"""What an execution is found by: tags, and the texts that say for whom it is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from perdure.errors import Invalid
from perdure.values import limits, payload


def check_label(given: object, what: str) -> str | None:
    """Return ``given`` if it is ``None`` or text of at most 1,000 characters.

    Raises:
        Invalid: it is not.
    """
    return None if given is None else payload.text(given, what=what, maximum=limits.LABEL)


def check_name(given: object, what: str) -> str:
    """Return ``given`` if it is text of 1 to 1,000 characters.

    Raises:
        Invalid: it is not.
    """
    name = payload.text(given, what=what, maximum=limits.LABEL)
    if not name:
        raise Invalid(f"{what}: it is empty")
    return name


def check_tags(given: object) -> tuple[str, ...]:
    """Return ``given`` if it is a list of at most 100 texts of at most 1,000 characters.

    Raises:
        Invalid: it is not.
    """
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise Invalid(f"tags: {given!r} is not a list of text; write [{given!r}]")
    tags = tuple(cast("Iterable[Any]", given))
    if len(tags) > limits.TAGS:
        raise Invalid(f"tags: {len(tags):,} tags are over the limit of {limits.TAGS}")
    return tuple(payload.text(tag, what="tags", maximum=limits.LABEL) for tag in tags)
