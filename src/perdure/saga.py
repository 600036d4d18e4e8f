"""Compensations: undo what was done when what follows fails.

Plain workflow code on top of activities; nothing below knows of it.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, ParamSpec, Self

from perdure import errors

P = ParamSpec("P")


class Saga:
    """Runs the added compensations newest first, each once: on failure, or when asked.

    A compensation that fails does not stop the others; what failed is a note on the failure that
    began the unwinding.
    """

    def __init__(self) -> None:
        self._compensations: list[Callable[[], Awaitable[Any]]] = []

    def add(
        self, compensation: Callable[P, Awaitable[Any]], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """Add ``compensation(*args)``, to be awaited on failure."""
        self._compensations.append(functools.partial(compensation, *args, **kwargs))

    async def compensate(self) -> None:
        """Run what was added and not yet run, newest first.

        Raises:
            ApplicationError: compensations failed; the first is its cause, all are in its details.
        """
        failed: list[Exception] = []
        while self._compensations:
            compensation = self._compensations.pop()
            try:
                await compensation()
            except Exception as exc:  # noqa: BLE001 - the others must run; raised below
                failed.append(exc)
        if failed:
            raise errors.ApplicationError(
                f"{len(failed)} compensation(s) failed: {failed[0]}",
                kind="CompensationFailed",
                retryable=False,
                details=[str(exc) for exc in failed],
                cause=failed[0],
            )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if exc is None or isinstance(exc, errors.ControlFlow):
            return
        try:
            await self.compensate()
        except errors.ApplicationError as failed:
            exc.add_note(str(failed))
