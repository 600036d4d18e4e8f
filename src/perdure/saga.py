"""Compensations: undo what was done when what follows fails.

Plain workflow code on top of activities; nothing below knows of it.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, ParamSpec, Self

from perdure import errors
from perdure.kernel import traps
from perdure.values import failures, lines

P = ParamSpec("P")


class Saga:
    """Runs the added compensations newest first, each once: on failure, or when asked.

    A compensation that fails does not stop the others. What failed is logged as an error, is a note
    on the failure that began the unwinding, and stands in the end of the run.
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
        failed: list[tuple[str, Exception]] = []
        while self._compensations:
            compensation = self._compensations.pop()
            try:
                await compensation()
            except Exception as exc:  # noqa: BLE001 - the others must run; raised below
                failed.append((_name(compensation), exc))
        if failed:
            told = "; ".join(_told(name, exc) for name, exc in failed)
            raise errors.ApplicationError(
                f"{len(failed)} compensation(s) failed: {told}",
                kind="CompensationFailed",
                retryable=False,
                details=[str(exc) for _, exc in failed],
                cause=failed[0][1],
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
            _tell(failed)


def _name(compensation: Callable[[], Awaitable[Any]]) -> str:
    fn: Any = compensation.func if isinstance(compensation, functools.partial) else compensation
    return str(getattr(fn, "__name__", fn))


def _told(name: str, exc: Exception) -> str:
    is_named = isinstance(exc, (errors.ActivityFailed, errors.ChildFailed))
    return str(exc) if is_named else f"{name}: {type(exc).__name__}: {exc}"


def _tell(failed: errors.ApplicationError) -> None:
    instance = traps.current()
    if instance is None:
        return
    instance.effect("log", lines.make(logging.ERROR, str(failed)))
    instance.not_undone = failures.from_exception(failed)
