"""Calls that share a transaction: what comes while one is under way goes into the next."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from perdure import errors
from perdure.store.desk import check_loop

Q = TypeVar("Q")
A = TypeVar("A")

_MOST = 500
"""So many in one call: whoever else wants the store waits for no more than this."""


class Together(Generic[Q, A]):
    """Hands in questions in the order in which they come, as many at once as have come.

    ``call`` gets a list and answers it item by item. A lone question goes at once. Where a call of
    several fails because of what one of them holds, each is handed in alone.
    """

    def __init__(self, call: Callable[[list[Q]], Awaitable[Sequence[A]]]) -> None:
        self._call = call
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[Q, asyncio.Future[A]]] = deque()
        self._going: asyncio.Task[None] | None = None

    async def ask(self, question: Q) -> A:
        """Return the answer; it was made after this was called.

        Raises:
            UsageError: called in workflow code, or in another loop than its own.
        """
        check_loop(self._loop)
        future: asyncio.Future[A] = self._loop.create_future()
        self._waiting.append((question, future))
        if self._going is None:
            self._going = self._loop.create_task(self._go())
        return await future

    async def _go(self) -> None:
        try:
            while self._waiting:
                count = min(_MOST, len(self._waiting))
                taken = [self._waiting.popleft() for _ in range(count)]
                # Whoever has given up meanwhile asks for nothing.
                wanted = [one for one in taken if not one[1].done()]
                if wanted:
                    await self._hand_in(wanted)
        finally:
            self._going = None
            for _, future in self._waiting:  # only if this was cancelled: the loop ends
                future.cancel()

    async def _hand_in(self, wanted: Sequence[tuple[Q, asyncio.Future[A]]]) -> None:
        try:
            answers = await self._call([question for question, _ in wanted])
        except Exception as exc:  # noqa: BLE001 - it goes to whoever asked
            is_of_one = isinstance(exc, errors.StoreError) and not isinstance(
                exc, errors.Unavailable
            )
            if is_of_one and len(wanted) > 1:
                for one in wanted:
                    await self._hand_in([one])
                return
            for _, future in wanted:
                if not future.done():
                    future.set_exception(exc)
            return
        for (_, future), answer in zip(wanted, answers, strict=True):
            if not future.done():
                future.set_result(answer)
