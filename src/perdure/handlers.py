"""Query and update handlers: inner functions of a workflow that the outside can call."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from perdure import errors
from perdure.values import payload


class QueryHandler:
    """Calls a query function with decoded arguments; the answer is encoded."""

    def __init__(self, name: str, fn: Callable[..., Any]) -> None:
        if inspect.iscoroutinefunction(fn):
            raise errors.DefinitionError(
                f"query {name!r}: a query is a plain function; it only reads"
            )
        self._fn = fn
        self._arguments = payload.Arguments(fn, f"query {name}")

    def answer(self, args: bytes) -> bytes:
        """Return the encoded answer.

        Raises:
            Invalid: the arguments do not fit.
        """
        return payload.encode(self._fn(*self._arguments.decode(args)), what="answer")


class UpdateHandler:
    """Validates an update's arguments and runs its function."""

    def __init__(
        self, name: str, fn: Callable[..., Any], validator: Callable[..., object] | None
    ) -> None:
        self._fn = fn
        self._validator = validator
        self._arguments = payload.Arguments(fn, f"update {name}")

    def validate(self, args: bytes) -> None:
        """Refuse by raising.

        Raises:
            Invalid: the arguments do not fit.
        """
        values = self._arguments.decode(args)
        if self._validator is not None:
            self._validator(*values)

    async def run(self, args: bytes) -> bytes:
        """Run the handler and return its encoded answer."""
        result = self._fn(*self._arguments.decode(args))
        if inspect.isawaitable(result):
            result = await result
        return payload.encode(result, what="answer")
