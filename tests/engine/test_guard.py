"""The watch over turns goes on whatever happens to the watcher."""

from __future__ import annotations

import asyncio
import threading

import pytest

from perdure.engine.guard import TurnGuard
from perdure.errors import TurnTimeout, Unavailable


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_a_turn_is_interrupted_although_the_lease_could_not_be_extended_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
):
    # On a slow machine the guard could end the process of the tests.
    monkeypatch.setattr(TurnGuard, "_give_up", lambda _: None)

    def fail() -> None:
        raise Unavailable("the database is locked")

    guard = TurnGuard(limit=0.3, warn_after=0.1, on_held=fail)
    outcome: list[str] = []
    is_over = threading.Event()

    def spin() -> None:
        while not is_over.is_set():
            pass

    def turn() -> None:
        guard.enter("a turn under test")
        try:
            spin()
        except TurnTimeout:
            guard.arrived()
        outcome.append("interrupted" if guard.leave() else "not noticed")

    guard.start()
    try:
        thread = threading.Thread(target=turn)
        thread.start()
        await asyncio.to_thread(thread.join, 20)
    finally:
        is_over.set()
        guard.stop()
    assert outcome == ["interrupted"]
