"""Replays a stored history, and says what came of it, whatever the code does."""

from __future__ import annotations

from typing import Any, NamedTuple

from perdure import errors
from perdure.definition import Workflow
from perdure.engine.guard import NoGuard, TurnGuard
from perdure.engine.interrupts import ends_the_loop
from perdure.engine.parking import reason_of
from perdure.kernel.instance import Instance, StoredTurn
from perdure.store.port import Loaded
from perdure.values import events as ev
from perdure.values.states import ParkReason


class Misfit(NamedTuple):
    """Why a run cannot go on with this code. ``place``: of a divergence: event, expected, actual,
    where.
    """

    reason: ParkReason
    detail: str
    place: dict[str, Any]


class Replayed(NamedTuple):
    """A replay. ``blind``: facts at the end of the history that belong to the next turn.

    With a ``misfit`` the instance is closed; else it is the caller's, to use or to evict.
    """

    instance: Instance
    turns: list[StoredTurn]
    blind: list[ev.Event]
    misfit: Misfit | None


def replay(
    definition: Workflow[Any, Any],
    loaded: Loaded,
    guard: TurnGuard | NoGuard,
    *,
    max_payload: int,
) -> Replayed:
    """Replay a run's history with ``definition``."""
    instance = Instance(definition, max_payload=max_payload)
    row = loaded.row
    guard.enter(f"{row.workflow} {row.workflow_id!r} (replay)", row.run)
    misfit: Misfit | None = None
    turns: list[StoredTurn] = []
    blind: list[ev.Event] = []
    try:
        turns = [
            StoredTurn(ev.decode_turn(t.payload), t.time, t.applied, len(t.payload))
            for t in loaded.turns
        ]
        blind = instance.replay(turns)
    except errors.NondeterminismError as exc:
        misfit = Misfit(reason_of(exc), exc.message, exc.details or {})
    except (errors.Corrupt, errors.SchemaMismatch) as exc:
        misfit = Misfit(ParkReason.CORRUPT_HISTORY, exc.message, {})
    except errors.TurnTimeout:
        guard.arrived()
    except BaseException as exc:  # whatever code does in a replay, it is parked
        if ends_the_loop(exc):
            guard.leave()
            raise
        detail = f"in a replay: {type(exc).__name__}: {exc}"
        misfit = Misfit(ParkReason.UNEXPECTED, detail, {})
    if guard.leave():
        detail = "the replay ran longer than the turn limit"
        misfit = Misfit(ParkReason.TURN_TIMEOUT, detail, {})
    if misfit is not None:
        instance.evict()
    return Replayed(instance, turns, blind, misfit)
