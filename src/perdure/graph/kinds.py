"""What ``input=`` and ``output=`` may say: a type or a JSON Schema that a value must fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from perdure import errors
from perdure.values import payload
from perdure.values.schemas import Schema


class Kind:
    """A type, decoded as payloads are, or a JSON Schema, given as a mapping.

    ``given``: what was written. ``problem``: what is wrong with it; empty if it can check.
    """

    def __init__(self, given: Any, *, what: str) -> None:
        self.given = given
        self.problem = ""
        self._what = what
        self._schema: Schema | None = None
        self._read: payload.Decode = payload.decode
        if isinstance(given, Mapping):
            try:
                self._schema = Schema(cast("Mapping[str, Any]", given), what=what)
            except errors.Invalid as exc:
                self.problem = exc.message
        elif isinstance(given, (str, bytes, int, float, list, tuple, set)):
            self.problem = f"{what}: {given!r} is neither a type nor a JSON Schema"
        elif given is not None:
            self._read = payload.decoder(given, what=what)

    def read(self, data: bytes) -> Any:
        """Decode a payload.

        Raises:
            Invalid: it does not fit; the message has the path of the field.
        """
        if self.problem:
            raise errors.Invalid(self.problem)
        value = self._read(data)
        if self._schema is not None:
            root = "input" if self._what.endswith("(input)") else "output"
            try:
                self._schema.check(value, what=root)
            except errors.Invalid as exc:
                raise errors.Invalid(f"{self._what}: {exc.message}") from None
        return value

    def check(self, value: Any) -> None:
        """Check a value that is not encoded yet; raises as :meth:`read`."""
        if self.given is not None:
            self.read(payload.encode(value, what=self._what))
