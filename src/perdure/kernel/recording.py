"""Values that are computed once and read ever after."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from perdure.values import events as ev

if TYPE_CHECKING:
    from perdure.kernel.instance import Instance


def recorded(instance: Instance, name: str, compute: Callable[[], bytes]) -> bytes:
    """Return what ``compute()`` gives, recorded under ``name``; a replay reads what was recorded.

    Where a history has none, because the code did not ask at the time, a replay computes it.
    """
    script = instance.writing("record a value")
    if script is not None:
        found = script.value(name)
        return compute() if found is None else found
    value = compute()
    instance.command(ev.SideEffectRecorded(name=name, value=value))
    return value
