"""What a workflow is told that asked something of an execution which cannot hear it.

Encoded turns of one event, written with the question: the store puts one into the asking run's own
inbox if it must (``store.rows.Post``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from perdure.values import events as ev
from perdure.values import failures

if TYPE_CHECKING:
    from perdure.engine.runs import Run


def unknown(run: Run, number: int, target: str) -> bytes:
    """There is no such execution."""
    return _answer(run, number, f"there is no workflow {target!r}", "NotFound")


def unknown_or_ended(run: Run, number: int, target: str) -> bytes:
    """There is none that could still hear it."""
    return _answer(run, number, f"workflow {target!r} is unknown or has ended", "NotFound")


def had_ended(run: Run, number: int, target: str) -> bytes:
    """There was one."""
    return _answer(run, number, f"workflow {target!r} has ended", "Closed")


def inbox_is_full(run: Run, number: int, target: str) -> bytes:
    """It has as many messages unread as an inbox may hold: try again later."""
    text = f"the inbox of workflow {target!r} is full"
    return _answer(run, number, text, "Unavailable", retryable=True)


def _answer(run: Run, number: int, text: str, kind: str, *, retryable: bool = False) -> bytes:
    info = failures.FailureInfo(text, kind, kind, retryable=retryable)
    return ev.encode_turn([ev.SendResolved(send=number, failure=info, asked_by=run.run_id)])
