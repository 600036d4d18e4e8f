"""Forms: what a person is to enter, as a JSON Schema that everybody can read.

A form is written as a type (dataclass, msgspec Struct, pydantic model …) or as a JSON Schema. The
schema is recorded with the human task, so that a web page can draw the form and a process without
the workflow's code can check what was entered. A process that knows the type checks by it.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping
from typing import Any, cast

import msgspec

from perdure import errors
from perdure.values import payload
from perdure.values.schemas import Mistake, Schema, listed

_KNOWN_SCHEMAS, _KNOWN_TYPES = 1_000, 10
_known: dict[bytes, dict[Any, payload.Decode]] = {}
"""Types that this process has asked people for, by their schema: several may have the same."""


class Form:
    """What ``form=`` says: ``schema`` (JSON, or ``None``: anything goes) and how to read an answer.

    Raises:
        Invalid: not a type and not a JSON Schema, or nothing is installed that checks one.
    """

    __slots__ = ("read", "schema")

    def __init__(self, given: Any) -> None:
        self.schema: bytes | None = None
        self.read: payload.Decode = payload.decode
        if given is None:
            return
        if isinstance(given, Mapping):
            self.schema = payload.encode(dict(cast("Mapping[str, Any]", given)), what="form")
            _schema(self.schema)
            return
        if isinstance(given, str) or not (callable(given) or hasattr(given, "__origin__")):
            raise errors.Invalid(f"form: {given!r} is neither a type nor a JSON Schema")
        self.read = payload.decoder(given, what=f"form({_name(given)})")
        self.schema = _schema_of(given)
        if self.schema is not None and len(_known) < _KNOWN_SCHEMAS:
            readers = _known.setdefault(self.schema, {})
            if len(readers) < _KNOWN_TYPES:
                readers.setdefault(given, self.read)


def check_entered(schema: bytes | None, value: bytes) -> None:
    """Check what was entered against a form.

    Raises:
        Invalid: it does not fit; ``details["errors"]`` has the path and the message of each field
            that does not, the error's own message the first 20 of them. Or only the extra ``human``
            could tell, and it is not installed.
    """
    if schema is None:
        return
    readers = _known.get(schema)
    if readers is None:
        if found := _schema(schema).errors(payload.decode(value)):
            raise _refused(found)
        return
    # A form says its schema, and not its type: what one of them takes may be meant for that.
    refused: errors.Invalid | None = None
    for read in readers.values():
        try:
            read(value)
        except errors.Invalid as error:
            refused = refused or error
        else:
            return
    assert refused is not None
    raise _told(schema, value, refused) from refused.__cause__


def _told(schema: bytes, value: bytes, error: errors.Invalid) -> errors.Invalid:
    """Return what is wrong: a type tells one mistake, the schema (if it can be read here) all."""
    found: list[Mistake] = []
    with contextlib.suppress(errors.Invalid):
        found = _schema(schema).errors(payload.decode(value))
    if len(found) > 1:
        return _refused(found)
    path = found[0].path if found else ""
    told = {"path": path, "message": found[0].message if found else error.message}
    return errors.Invalid(error.message, details={"errors": [told]})


def _refused(found: list[Mistake]) -> errors.Invalid:
    told = [f"{it.place}: {it.message}" for it in found]
    every = [{"path": it.path, "message": it.message} for it in found]
    return errors.Invalid(f"form: {listed(told)}", details={"errors": every})


@functools.lru_cache(maxsize=256)
def _schema(form: bytes) -> Schema:
    return Schema(payload.decode(form), what="form")


@functools.lru_cache(maxsize=256)
def _schema_of(kind: Any) -> bytes | None:
    own: Callable[[], Any] | None = getattr(kind, "model_json_schema", None)
    try:
        return payload.encode(own() if own is not None else msgspec.json.schema(kind), what="form")
    except TypeError:
        return None  # msgspec has no schema of it: whoever knows the type checks, others cannot


def _name(kind: Any) -> str:
    return getattr(kind, "__name__", str(kind))
