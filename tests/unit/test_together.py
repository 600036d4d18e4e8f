"""Calls that share a transaction."""

from __future__ import annotations

import asyncio

import pytest

from perdure import errors
from perdure.together import Together


class Store:
    """Doubles numbers when it is let; notes what it was asked together."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.is_asked = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.error: errors.PerdureError | None = None

    async def double(self, numbers: list[int]) -> list[int]:
        self.calls.append(numbers)
        self.is_asked.set()
        await self.may_answer.wait()
        if self.error is not None and 13 in numbers:
            raise self.error
        return [2 * number for number in numbers]


async def _asked(together: Together[int, int], *numbers: int) -> list[int | BaseException]:
    return await asyncio.gather(*map(together.ask, numbers), return_exceptions=True)


async def test_questions_that_come_together_are_one_call_and_each_gets_its_own_answer():
    store = Store()
    assert await _asked(Together(store.double), 3, 1, 2) == [6, 2, 4]
    assert store.calls == [[3, 1, 2]]


async def test_what_comes_while_a_call_is_under_way_goes_into_the_next_one():
    store = Store()
    store.may_answer.clear()
    together = Together(store.double)
    first = asyncio.ensure_future(together.ask(1))
    await store.is_asked.wait()
    rest = [asyncio.ensure_future(together.ask(number)) for number in (2, 3)]
    asyncio.get_running_loop().call_soon(store.may_answer.set)  # after they have begun
    assert await asyncio.gather(first, *rest) == [2, 4, 6]
    assert store.calls == [[1], [2, 3]]


async def test_one_call_takes_no_more_than_its_share():
    store = Store()
    answers = await _asked(Together(store.double), *range(1_200))
    assert answers == [2 * number for number in range(1_200)]
    assert [len(call) for call in store.calls] == [500, 500, 200]


async def test_whoever_has_given_up_asks_for_nothing():
    store = Store()
    store.may_answer.clear()
    together = Together(store.double)
    first = asyncio.ensure_future(together.ask(1))
    await store.is_asked.wait()
    second, third = (asyncio.ensure_future(together.ask(number)) for number in (2, 3))
    loop = asyncio.get_running_loop()
    loop.call_soon(second.cancel)  # after it has asked
    loop.call_soon(loop.call_soon, store.may_answer.set)
    assert await asyncio.gather(first, third) == [2, 6]
    assert second.cancelled()
    assert store.calls == [[1], [3]]


async def test_what_is_wrong_with_one_of_them_is_no_harm_to_the_others():
    store = Store()
    store.error = errors.StoreRefused("13 is not acceptable")
    assert await _asked(Together(store.double), 1, 13, 2) == [2, store.error, 4]
    assert store.calls == [[1, 13, 2], [1], [13], [2]]


@pytest.mark.parametrize("error", [errors.Unavailable("away"), errors.UsageError("closed")])
async def test_a_store_that_is_away_is_so_for_all(
    error: errors.PerdureError,
):
    store = Store()
    store.error = error
    together = Together(store.double)
    assert await _asked(together, 1, 13) == [error, error]
    assert store.calls == [[1, 13]]
    assert await together.ask(5) == 10
