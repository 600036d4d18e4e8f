"""What a copied history is to the code that goes on from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from perdure.values import events as ev

if TYPE_CHECKING:
    from perdure.kernel.instance import Instance


def forked(instance: Instance, event: ev.Forked) -> None:
    """Go on as the run that the event names, with the chance it gives."""
    instance.reseed(event.seed, draws_on=event.keeps_chance)
    instance.keys.keep(event.keys, goes_on=event.keeps_chance)
    if not event.run_id or instance.started is None:
        return
    if not event.keeps_chance:
        instance.keys.begin_anew(instance.activities, event.seed)
    instance.human_tasks.ask_anew(instance.time, instance.entropy.derive)
    instance.started = event.onto(instance.started)
    instance.inherited.clear()  # the original is told of these
    # The code at hand is what this run began under; a cancel's deadline was the other run's.
    instance.code = ""
    if instance.cancel is not None:
        instance.cancel = msgspec.structs.replace(instance.cancel, deadline=0)


def handed_over(instance: Instance, event: ev.RunHandedOver) -> None:
    """Act for somebody else from here on."""
    if instance.started is not None:
        instance.started = event.onto(instance.started)
