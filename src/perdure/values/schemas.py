"""JSON Schemas (draft 2020-12): whether a value fits one, and which fields do not.

The validator is ``jsonschema-rs`` of the extra ``human``: it tells every mistake at once, each with
its path. It is loaded when the first schema is made. References to other documents are not
followed: a schema holds what it refers to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from perdure.errors import Invalid

_SHOWN = 20
_NEEDS = "a JSON Schema needs jsonschema-rs: pip install 'perdure[human]'"


class Mistake(NamedTuple):
    """What does not fit: ``path`` ("/items/0/name") for programs, ``place`` for people."""

    path: str
    place: str
    message: str


class Schema:
    """A schema that was read once.

    Args:
        given: the schema, as JSON types.
        what: whose it is, for messages.

    Raises:
        Invalid: the schema is itself wrong (the message has the place), or nothing is installed
            that reads it.
    """

    def __init__(self, given: Mapping[str, Any], *, what: str = "schema") -> None:
        try:
            import jsonschema_rs
        except ImportError:
            raise Invalid(f"{what}: {_NEEDS}") from None
        try:
            self._validator = jsonschema_rs.validator_for(
                dict(given), offline=True, validate_formats=True
            )
        except ValueError as exc:
            place = _path("schema", getattr(exc, "instance_path", ()))
            reason = str(getattr(exc, "message", exc))
            raise Invalid(f"{what}: the JSON Schema is wrong: {place}: {reason}") from None
        except (TypeError, OverflowError) as exc:
            raise Invalid(f"{what}: the JSON Schema is no JSON: {exc}") from None

    def mistakes(self, value: Any, *, what: str = "value") -> list[str]:
        """Return what does not fit, each with its path below ``what``; ``value``: JSON types."""
        found = self._validator.iter_errors(value)
        return [f"{_path(what, error.instance_path)}: {error.message}" for error in found]

    def errors(self, value: Any) -> list[Mistake]:
        """Return what does not fit, each with its JSON Pointer; ``value``: JSON types."""
        found = self._validator.iter_errors(value)
        return [
            Mistake(
                _pointer(error.instance_path), _path("value", error.instance_path), error.message
            )
            for error in found
        ]

    def check(self, value: Any, *, what: str = "value") -> None:
        """Check a value of JSON types.

        Raises:
            Invalid: it does not fit; the message has the path of each field, up to 20.
        """
        found = self.mistakes(value, what=what)
        if found:
            raise Invalid(listed(found))


def listed(found: Sequence[str]) -> str:
    """Say what does not fit: the first of them, and how many more there are."""
    more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return "; ".join(found[:_SHOWN]) + more


def _pointer(parts: Iterable[str | int]) -> str:
    """Write ``/items/0/name`` (RFC 6901)."""
    return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in parts)


def _path(what: str, parts: Iterable[str | int]) -> str:
    """Write ``order.items[0].name``."""
    text = what
    for part in parts:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if part.isidentifier() else f"[{part!r}]"
    return text
