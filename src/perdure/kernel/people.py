"""The people a run waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from perdure.values import events as ev
from perdure.values import ids


class PendingHumanTask:
    """A human task that nobody has decided yet; ``future`` gets the decision.

    ``id``: what people call it. A copy of the run asks for the same under another one.
    """

    __slots__ = ("event", "future", "id")

    def __init__(
        self, future: asyncio.Future[ev.HumanTaskDecided | None], event: ev.HumanTaskOpened
    ) -> None:
        self.future = future
        self.event = event
        self.id = event.id


class HumanTasks(dict[int, PendingHumanTask]):
    """Those of a run, by the command that asked."""

    def shown(self) -> list[tuple[str, str | None, str | None, int]]:
        """Return (title, role, assignee, due) of each, for ``why``."""
        events = [asked.event for asked in self.values()]
        return [(event.title, event.role, event.assignee, event.due) for event in events]

    def ask_anew(self, time: int, derive: Callable[[str, int], bytes]) -> None:
        """Give each the id that a copy asks under: it is asked once more, and decided apart."""
        for number, asked in self.items():
            asked.id = id_in_copy(number, time, derive)


def id_in_copy(number: int, time: int, derive: Callable[[str, int], bytes]) -> str:
    """Return the id of what command ``number`` of the copied history asked for."""
    return ids.uuid7(time // 1000, derive(f"human:{number}", 10))
