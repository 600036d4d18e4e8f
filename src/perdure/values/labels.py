"""What an execution is found by: tags, and the texts that say for whom it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

from perdure.errors import Invalid
from perdure.values import limits, payload


def check_text(given: object, what: str, maximum: int | None = limits.LABEL) -> str:
    """Return ``given`` if it is text that a column of every database can hold.

    Raises:
        Invalid: it is not: it has a NUL, say, or more than ``maximum`` characters.
    """
    text = payload.text(given, what=what, maximum=maximum)
    if "\0" in text:
        raise Invalid(f"{what}: {text[:80]!r} holds a NUL character")
    return text


def check_label(given: object, what: str) -> str | None:
    """Return ``given`` if it is ``None`` or text of at most 1,000 characters.

    Raises:
        Invalid: it is not.
    """
    return None if given is None else check_text(given, what)


def check_name(given: object, what: str) -> str:
    """Return ``given`` if it is text of 1 to 1,000 characters that an index can hold.

    Raises:
        Invalid: it is not.
    """
    name = check_text(given, what)
    if not name:
        raise Invalid(f"{what}: it is empty")
    if (size := len(name.encode())) > limits.NAME_BYTES:
        raise Invalid(f"{what}: {size:,} bytes are over the limit of {limits.NAME_BYTES:,}")
    return name


def check_tags(given: object) -> tuple[str, ...]:
    """Return ``given`` if it is a list of at most 100 texts of at most 1,000 characters.

    Raises:
        Invalid: it is not.
    """
    tags = check_labels(given, "tags")
    if len(tags) > limits.TAGS:
        raise Invalid(f"tags: {len(tags):,} tags are over the limit of {limits.TAGS}")
    return tags


def check_labels(given: object, what: str) -> tuple[str, ...]:
    """Return ``given`` if it is a list of texts of at most 1,000 characters.

    Raises:
        Invalid: it is not.
    """
    return tuple(check_text(one, what) for one in listed(given, what))


def listed(given: object, what: str) -> Iterable[Any]:
    """Return what is listed in ``given``: one text is no list of its letters.

    Raises:
        Invalid: it is no list.
    """
    if isinstance(given, (str, Mapping)) or not isinstance(given, Iterable):
        raise Invalid(f"{what}: {given!r} is not a list of text; write [{given!r}]")
    return cast("Iterable[Any]", given)
