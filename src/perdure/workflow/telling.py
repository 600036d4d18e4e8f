"""What workflow code tells of itself: progress and events, recorded and then told to listeners.

Both are soft: to add, move or remove such a call strands no run (``SOFT`` in ``values/events.py``).
"""

from __future__ import annotations

import math
from typing import Any

from perdure import errors
from perdure.kernel import traps
from perdure.values import events as ev
from perdure.values import payload


async def progress(done: float, total: float | None = None, note: str = "") -> None:
    """Say how far the run is; shown by ``describe`` and ``perdure show``. Await it.

    Listeners are told ``workflow.progress``.

    Raises:
        Invalid: ``done`` or ``total`` is not a finite number, or the note is not text.
    """
    traps.here().tell(
        ev.ProgressReported(
            done=_finite(done, "done"),
            total=None if total is None else _finite(total, "total"),
            note=payload.text(note, what="note"),
        )
    )


async def emit(event: str, data: Any = None) -> None:
    """Tell listeners of ``workflow.event`` this event and data, which are recorded. Await it.

    They hear of it after the turn is committed, once: a replay tells nothing.

    Raises:
        Invalid: the event's name is not text, or the data cannot be encoded or is too large.
    """
    instance = traps.here()
    name = payload.text(event, what="event")
    encoded = payload.encode(data, what="data")
    payload.limit(encoded, instance.max_payload, what="data")
    instance.tell(ev.Emitted(event=name, data=encoded))


def _finite(given: object, what: str) -> float:
    try:
        number = float(given) if isinstance(given, (int, float)) else math.nan
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise errors.Invalid(f"progress: {what}={given!r:.80} is not a finite number")
    return number
