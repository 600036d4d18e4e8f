"""What human tasks add to a turn's write: rows of those that it asks for, or gives up."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from perdure.kernel.people import id_in_copy
from perdure.store.port import HumanTaskWrite, TurnWrite
from perdure.values import events as ev
from perdure.values.people import HumanTaskStatus

if TYPE_CHECKING:
    from perdure.engine.core import Core
    from perdure.engine.runs import Run


def _opened(core: Core, run: Run, number: int, event: ev.HumanTaskOpened, write: TurnWrite) -> None:
    write.asks = [*write.asks, HumanTaskWrite(event.id, number, event)]


def _closed(core: Core, run: Run, number: int, event: ev.HumanTaskClosed, write: TurnWrite) -> None:
    write.gives_up = (*write.gives_up, (event.id, HumanTaskStatus(event.outcome)))


PREPARE: dict[type[ev.Event], Callable[[Any, Any, int, Any, TurnWrite], None]] = {
    ev.HumanTaskOpened: _opened,
    ev.HumanTaskClosed: _closed,
}


def open_in(run: Run) -> tuple[tuple[int, ev.HumanTaskOpened], ...]:
    """Return what a copied run waits for, by the commands that asked.

    Not what was decided before the place where it was copied, and is only not applied yet.
    """
    instance = run.instance
    assert instance is not None
    asked_by = "" if instance.started is None else instance.started.run_id
    decided = {
        fact.opened
        for fact in run.blind
        if isinstance(fact, ev.HumanTaskDecided) and fact.asked_by in ("", asked_by)
    }
    asked = instance.human_tasks.items()
    return tuple((number, it.event) for number, it in asked if number not in decided)


def ask_anew(run: Run, asked: tuple[tuple[int, ev.HumanTaskOpened], ...], write: TurnWrite) -> None:
    """Open the human tasks of a copy: those of the run it was copied from are that run's.

    The turn that does it is the one in which the kernel gave them their ids, from the same words.
    What it gives up at once is among its commands.
    """
    instance = run.instance
    assert instance is not None
    derive = instance.entropy.derive
    write.asks = [
        HumanTaskWrite(id_in_copy(number, instance.time, derive), number, event)
        for number, event in asked
    ]
