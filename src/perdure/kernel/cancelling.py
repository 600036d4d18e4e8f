"""Requests to cancel: a notice where the code asked for notices, else an interruption, once.

Of several requests the first reason and the soonest deadline hold. A second one does not interrupt
the cleanup that the first began; it may still shorten the time that is left for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from perdure.kernel.watching import Notice
from perdure.values import events as ev
from perdure.values.duration import soonest

if TYPE_CHECKING:
    from perdure.kernel.instance import Instance


def cancel_requested(instance: Instance, event: ev.CancelRequested) -> None:
    """Give a notice, or cancel the main coroutine and every task that nobody awaits."""
    first = instance.cancel or event
    deadline = soonest(first.deadline, event.deadline)
    instance.cancel = msgspec.structs.replace(first, deadline=deadline)
    if instance.traps_cancel:
        notice = Notice("cancel_requested", event.by, instance.time, reason=event.reason)
        instance.notices.offer(notice)
        return
    if instance.is_cancelling:
        return
    instance.is_cancelling = True
    alone = {*instance.spawned, *instance.loop.unawaited_tasks()}
    for task in instance.loop.live_tasks():
        if task is instance.root or task in alone:
            task.cancel(event.reason or "the workflow was cancelled")
