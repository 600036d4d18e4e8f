"""What the clock does to human tasks: they go to the next role, expire, and are reminded of.

Those that a run asked for expire and remind by timers of the run; here they only escalate. Whoever
looks finds what is due by ``HumanTaskRow.next_at``, and writes what :func:`tick` gives with the row
locked.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from perdure.values.people import (
    HumanTaskRow,
    HumanTaskStatus,
    LogEntry,
    escalated_to,
    upcoming,
)


def tick(task: HumanTaskRow, now: int) -> tuple[HumanTaskRow, Sequence[LogEntry]]:
    """Return the human task as it is at ``now``, and what the log says of it; nothing if it has
    ended or its time has not come.

    After a pause of all workers several steps may be due: each is told, the last one counts.
    """
    if not task.status.is_open or task.next_at is None or task.next_at > now:
        return task, ()
    after = msgspec.structs.replace(task)
    told: list[LogEntry] = []
    ends = task.ends_at
    until = now if ends is None else min(now, ends - 1)
    while after.chain and after.chain[0][1] <= until:
        (role, _), *rest = after.chain
        told.append(LogEntry(now, "", "escalated", {"from": after.role, "role": role}))
        escalated_to(after, role, tuple(rest))
    if task.run is None and ends is not None and ends <= now:
        after.status = HumanTaskStatus.EXPIRED
        after.claimed_by = after.claimed_at = after.claimed_until = after.next_at = None
        after.closed_at = now
        told.append(LogEntry(now, "", "expired"))
        return after, told
    if task.run is None:
        due = task.due_at if task.due_at != ends else None
        for verb, at in (("reminded", task.remind_at), ("overdue", due)):
            if at is not None and task.next_at <= at <= now:
                told.append(LogEntry(now, "", verb))
    if after.chain and after.chain[0][1] <= now:
        after.chain = ()  # behind its end
    after.next_at = upcoming(after, now + 1)
    return after, told
