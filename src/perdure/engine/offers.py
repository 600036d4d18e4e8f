"""Activities of another task queue than their run's: what the run's own worker does about them.

Such an activity is put on offer by the commit of the turn that schedules it (``TurnWrite.offers``),
and carried out by any worker that serves the queue and knows the activity (``engine/carrier.py``).
What comes of it comes in by the inbox, so a run that only waits for such has no owner. The one
thing that the run decides is what follows a lost attempt: another one, the end of the activity, or
a parked run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from perdure.engine import forks
from perdure.engine.runs import Input, Run
from perdure.engine.work import Past, limited, lost_outcome, resolved
from perdure.errors import Corrupt
from perdure.kernel.entropy import idempotency_key
from perdure.kernel.instance import Instance
from perdure.kernel.pending import PendingActivity
from perdure.store.offers import Offer
from perdure.store.port import TurnWrite
from perdure.values import events as ev
from perdure.values.duration import soonest
from perdure.values.retry import ACTIVITY_DEFAULT
from perdure.values.states import ParkReason
from perdure.values.terms import NO_TERMS, Terms

if TYPE_CHECKING:
    from perdure.engine.core import Core


class Call(msgspec.Struct, gc=False, array_like=True):
    """What a worker needs to carry an activity out. ``scheduled_at``: when its timeouts began;
    ``terms``: what the run's say of timeouts.
    """

    event: ev.ActivityScheduled
    scheduled_at: int
    key: str
    context: bytes | None = None
    terms: Terms = NO_TERMS

    def due(self, attempt: int) -> int:
        """Return when it fails if nobody carries it out by then; 0 for never."""
        event, since = self.event, self.scheduled_at
        queued = since + event.queue_timeout if event.queue_timeout is not None else 0
        closed = since + event.schedule_timeout if event.schedule_timeout is not None else 0
        return soonest(queued if attempt == 1 else 0, closed)

    def passed(self, attempt: int, now: int) -> tuple[str, int] | None:
        """Return the name and the length of the timeout that has passed, if one has."""
        event, since = self.event, self.scheduled_at
        if event.schedule_timeout is not None and now >= since + event.schedule_timeout:
            return "schedule", event.schedule_timeout
        if attempt == 1 and event.queue_timeout is not None and now >= since + event.queue_timeout:
            return "queue", event.queue_timeout
        return None


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Call).decode


def decode(data: bytes) -> Call:
    """Decode a call.

    Raises:
        Corrupt: the bytes are none.
    """
    try:
        return _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise Corrupt(f"the activity on offer cannot be read: {exc}") from exc


def queue_of(core: Core, run: Run, pending: PendingActivity) -> str:
    """Return the task queue that an activity goes to, or ``""``: this worker carries it out."""
    definition = pending.definition
    if definition is not None and definition.is_step:
        return ""  # it is made of the run's own state, which others do not have
    event = pending.event
    if definition is None:
        event = resolved(pending, core.registry.activity(event.name))
    elsewhere = event.queue and event.queue != run.queue
    return event.queue if elsewhere and not event.transactional else ""


def schedule(core: Core, run: Run, number: int, write: TurnWrite) -> bool:
    """Put an activity that a turn schedules on offer, if its queue is another; tell whether."""
    assert run.instance is not None
    pending = run.instance.activities.get(number)
    queue = queue_of(core, run, pending) if pending is not None else ""
    if pending is None or not queue:
        return False
    offer = _offer(core, run, number, pending, queue, scheduled_at=run.instance.time)
    write.offers = [*write.offers, offer]
    run.offer(number, queue, run.instance.time)
    return True


def withdraw(run: Run, number: int, write: TurnWrite) -> None:
    """Take back what the code wants no more; one of this very turn has never been on offer."""
    if run.offered.pop(number, None) is None:
        return
    kept = [offer for offer in write.offers if offer.activity != number]
    if len(kept) == len(write.offers):
        write.withdraws = (*write.withdraws, number)
    write.offers = kept


def withdraw_all(run: Run, write: TurnWrite) -> None:
    """Take back what is on offer of a run that ends with this turn."""
    if run.offered:
        write.offers = ()
        write.withdraws = tuple(dict.fromkeys((*write.withdraws, *run.offered)))


def settled(run: Run, facts: list[ev.Event]) -> None:
    """Forget the offers that have come to an end."""
    for fact in facts:
        if isinstance(fact, (ev.ActivityCompleted, ev.ActivityFailed)):
            run.offered.pop(fact.activity, None)


def is_busy(run: Run, instance: Instance) -> bool:
    """Tell whether this worker has work of the run in flight."""
    if instance.sends or not run.offered:
        return bool(instance.activities or instance.sends)
    return not run.offered.keys() >= instance.activities.keys()


def awaited(run: Run, instance: Instance) -> list[tuple[str, str]]:
    """Return name and queue of the activities that others are to carry out."""
    return [
        (pending.event.name, run.offered[number].queue)
        for number, pending in instance.activities.items()
        if number in run.offered
    ]


def renewed(
    core: Core, run: Run, number: int, pending: PendingActivity, past: Past, queue: str
) -> Input | Offer:
    """Return the next offer of an activity that is open and on no offer, or the input that ends it.

    It was lost while the run was stopped; or a copy has it open, or a history from before there
    were offers.
    """
    event = _resolved(core, pending)
    policy = event.retry or ACTIVITY_DEFAULT
    if past.lost_in_a_row and not policy.allows_after_loss(past.attempts):
        outcome = lost_outcome(number, event.name, policy, past.attempts, 0)
        assert outcome is not None
        item = Input(outcome, name=event.name)
        item.offering = ((number, None),)
        return item
    run.offer(number, queue, past.scheduled_at)
    return _offer(
        core,
        run,
        number,
        pending,
        queue,
        scheduled_at=past.scheduled_at,
        attempt=past.attempts + 1,
        not_before=past.retry_at,
        lost=past.lost_in_a_row,
    )


def decide(core: Core, run: Run) -> bool:
    """Decide what follows attempts that were lost with their workers; False: the run is parked."""
    assert run.instance is not None
    for item in list(run.inputs):
        fact = item.fact
        if not isinstance(fact, ev.AttemptLost) or not item.inbox or item.offering:
            continue
        pending = run.instance.activities.get(fact.activity)
        offered = run.offered.get(fact.activity)
        if pending is None or offered is None:
            continue
        event = _resolved(core, pending)
        item.name = event.name
        policy = event.retry or ACTIVITY_DEFAULT
        outcome = lost_outcome(fact.activity, event.name, policy, fact.attempt, fact.in_a_row)
        if isinstance(outcome, ev.RunParked):
            run.inputs.remove(item)
            core.turns.blind.park(run, [], ParkReason.WORKER_LOST, outcome.detail, first=[item])
            return False
        if outcome is not None:
            item.offering = ((fact.activity, None),)
            run.inputs.append(Input(outcome, name=event.name))
            continue
        offer = _offer(
            core,
            run,
            fact.activity,
            pending,
            offered.queue,
            scheduled_at=offered.scheduled_at,
            attempt=fact.attempt + 1,
            lost=fact.in_a_row,
        )
        item.offering = ((fact.activity, offer),)
    return True


def _resolved(core: Core, pending: PendingActivity) -> ev.ActivityScheduled:
    return resolved(pending, core.registry.activity(pending.event.name))


def _offer(
    core: Core,
    run: Run,
    number: int,
    pending: PendingActivity,
    queue: str,
    *,
    scheduled_at: int,
    attempt: int = 1,
    not_before: int = 0,
    lost: int = 0,
) -> Offer:
    started = run.started
    event = limited(_resolved(core, pending), started)
    source = forks.key_source(run, number)
    key = source if isinstance(source, str) else idempotency_key(source, number)
    context = started.context if started is not None else None
    terms = started.terms if started is not None else NO_TERMS
    of_time = NO_TERMS
    if terms.timeout_action:
        limit, action = terms.activity_timeout, terms.timeout_action
        of_time = Terms(activity_timeout=limit, timeout_action=action)
    call = Call(event, scheduled_at, key, context, of_time)
    return Offer(
        number,
        queue,
        event.name,
        _encode(call),
        lane=run.tenant or terms.key,
        priority=terms.priority,
        attempt=attempt,
        scheduled_at=scheduled_at,
        not_before=not_before,
        due=call.due(attempt),
        lost=lost,
    )
