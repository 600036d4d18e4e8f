"""Whose turn it is in a task queue: one activity of each lane, in a circle. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence


def circle(lanes: Sequence[tuple[str, str]], *, is_cut: bool) -> dict[str, list[str]]:
    """Return the activities of each lane, lanes in the order of their turns.

    ``lanes``: (lane, activity), as they follow each other. ``is_cut``: there are more behind the
    last; the last lane's are left out then, unless it is the only one: some of it may be missing.
    """
    found: dict[str, list[str]] = {}
    for lane, name in lanes:
        found.setdefault(lane, []).append(name)
    if is_cut and len(found) > 1:
        found.popitem()
    return found


def pick(
    waiting: Mapping[str, Sequence[int]],
    free: int,
    room: Callable[[str], int],
    *,
    is_cut: bool,
) -> tuple[list[int], str | None]:
    """Take up to ``free`` of what waits, and say which lane had the last turn.

    ``waiting``: what each lane has, oldest first, lanes in the order of their turns. ``room``: how
    many a lane may have. Nobody has a second turn before everybody had one: where some are not
    among them (``is_cut``), there is one round only.
    """
    picked: list[int] = []
    last: str | None = None
    lanes = list(waiting)
    turn = 0
    while lanes and len(picked) < free:
        going: list[str] = []
        for lane in lanes:
            if len(picked) == free:
                break
            if turn < min(len(waiting[lane]), room(lane)):
                picked.append(waiting[lane][turn])
                last = lane
                going.append(lane)
        # Who had no turn in this round has nothing left, or this was the last round.
        lanes = [] if is_cut else going
        turn += 1
    return picked, last
