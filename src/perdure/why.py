"""Why a run does not go on: one sentence, from the same rows as lists and details. Pure."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from perdure import errors
from perdure.store.offers import OfferRow, Stage
from perdure.store.port import RunRow, Standing, TurnRow, Worker
from perdure.values import events as ev
from perdure.values import failures
from perdure.values.concurrency import Queued
from perdure.values.duration import SECOND, to_text
from perdure.values.people import HumanTaskRow
from perdure.values.states import Status
from perdure.views import waits_of


def unknown_workflow(name: str, version: str, known: Sequence[tuple[str, str]]) -> errors.NotFound:
    """Return the error for what nobody registered, with what there is.

    ``known``: names and versions.
    """
    versions = sorted({other for found, other in known if found == name})
    if versions:
        return errors.NotFound(
            f"workflow {name!r} has no version {version!r} (registered: {', '.join(versions)})"
        )
    names = sorted({found for found, _ in known})
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    wanted = f"{name!r} version {version!r}" if version else repr(name)
    registered = ", ".join(names) or "none yet: start a worker that defines it"
    return errors.NotFound(f"workflow {wanted} is not registered{hint} (registered: {registered})")


def no_version(workflow: str, version: str, workers: Sequence[Worker]) -> str:
    """Say that no live worker defines a version of a workflow (``""``: any); ``""`` if one may."""
    keys = {key for w in workers if w.alive_for_sure is not False for key in w.workflows}
    there = {key.removeprefix(workflow + " ") for key in keys if key.startswith(workflow + " ")}
    there.discard("")
    if version in there or (not version and (there or workflow in keys)):
        return ""
    if workflow in keys and not there:
        return ""  # it does not say which version it has
    found = f"there is: {', '.join(sorted(there))}" if there else "there is none of it"
    return f"no running worker defines {f'{workflow} {version}'.rstrip()} ({found})"


def unanswering(row: RunRow, question: str) -> str:
    """Say why a stopped run answers no ``kind:name`` now; ``""`` if nothing speaks against it."""
    kind = question.partition(":")[0]
    name = repr(row.workflow_id)
    if row.status is Status.PAUSED and kind == "update":
        return f"{name} is paused: resume it to update it"
    if row.status is Status.PARKED and kind in ("query", "update"):
        following = f". To go on: {row.unblock}" if row.unblock else ""
        return f"{name} is parked ({row.reason}): {(row.detail or '').rstrip('.')}{following}"
    return ""


# -- why -----------------------------------------------------------------------------------------


def why(
    row: RunRow,
    turns: Sequence[TurnRow],
    workers: Sequence[Worker],
    now: int,
    children: Sequence[str] = (),
    standing: Standing | None = None,
    *,
    arrived: Sequence[str] = (),
    offers: Sequence[OfferRow] = (),
    asked: Sequence[HumanTaskRow] = (),
    is_resumed: bool = False,
) -> str:
    """Return one sentence: what the run waits for, or why it cannot go on.

    ``children``: the same sentences about the children it waits for (:func:`children_of`).
    ``standing``: of a run in the queue of a limit. ``arrived``: what no turn has taken in yet.
    ``offers``: its activities in task queues. ``asked``: its open human tasks. ``is_resumed``:
    whether somebody has resumed a paused one, and no worker has done so yet.
    """
    name = f"{row.workflow} {row.workflow_id!r}"
    said = _queued(row, standing, now) or _standing(
        row, turns, workers, now, arrived, offers, asked=asked, is_resumed=is_resumed
    )
    text = f"{name} {said}"
    return "; ".join([text, *(child.rstrip(".") for child in children)]) + "."


def _queued(row: RunRow, standing: Standing | None, now: int) -> str:
    """Say what a run waits for that a limit holds back; ``""`` if none does."""
    if standing is None or row.reason != Queued.QUEUED:
        return ""
    limit, parts = standing.limit, list[str]()
    if limit.max_open and standing.open >= limit.max_open:
        parts.append(
            f"{standing.open} of {limit.max_open} slots of workflow {standing.workflow!r} are taken"
        )
    if standing.key and limit.max_per_key and standing.open_of_key >= limit.max_per_key:
        parts.append(
            f"{standing.open_of_key} of {limit.max_per_key} slots of key {standing.key!r} are taken"
        )
    if limit.pool_max and standing.open_of_pool >= limit.pool_max:
        parts.append(
            f"{standing.open_of_pool} of {limit.pool_max} slots of all workflows of its engine are "
            "taken"
        )
    if standing.begins_at > now:
        whose = f" of key {standing.key!r}" if standing.rate_is_of_key else ""
        left = _rough(standing.begins_at - now + SECOND - 1)
        parts.append(f"it waits for the rate limit{whose} of {standing.rate}: about {left}")
    taken = " and ".join(parts) or f"a slot of workflow {standing.workflow!r} is free"
    runs = "1 run is" if standing.before == 1 else f"{standing.before} runs are"
    return f"is pending: {taken}; {runs} before it"


def children_of(row: RunRow) -> Sequence[str]:
    """Return the ids of the children that an open run waits for."""
    return [] if row.status.is_terminal else waits_of(row).get("children", [])


def fact_of(event: bytes) -> str:
    """Return what a row of the inbox says, in a few words."""
    try:
        return ev.decode_fact(event).brief()
    except (errors.Corrupt, errors.SchemaMismatch):
        return "a row that cannot be read"


def _standing(
    row: RunRow,
    turns: Sequence[TurnRow],
    workers: Sequence[Worker],
    now: int,
    arrived: Sequence[str],
    offers: Sequence[OfferRow],
    *,
    asked: Sequence[HumanTaskRow],
    is_resumed: bool,
) -> str:
    live = [w for w in workers if w.alive_for_sure is not False]
    unserved = _unserved(row, live)
    worker = f"for a worker: {unserved}. Start one with {serving(row.queue)}" if unserved else ""
    if row.status.is_terminal:
        when = f" {_ago(row.closed_at, now)}" if row.closed_at else ""
        because = f": {row.detail.rstrip('.')}" if row.detail else ""
        return f"ended{when} as {row.status}{because}"
    if row.status is Status.PAUSED and is_resumed:
        return f"is paused, and somebody has resumed it: it waits {worker or 'for a worker'}"
    if row.status in (Status.PARKED, Status.PAUSED):
        detail = (row.detail or "").rstrip(".")
        text = f"is {row.status} since {_ago(row.since, now)} ({row.reason}): {detail}"
        return f"{text}. To go on: {row.unblock}" if row.unblock else text
    if row.status is Status.PENDING and row.wake_at is not None and row.wake_at > now:
        return f"is pending: it begins {_in(row.wake_at, now)}"
    elsewhere = {it.activity: offered(it, live, now) for it in offers}
    waiting = _waiting_for(turns, now, elsewhere, is_served=not unserved)
    if waiting:
        text = f"is {row.status}: it waits for {waiting}"
    elif row.status is Status.WAITING:
        text, is_stuck = _idle(row, now, asked)
        if arrived:
            more = f" and {len(arrived) - 3} more" if len(arrived) > 3 else ""
            what = f"{', '.join(arrived[:3])}{more}"
            text = f"is waiting: what has come in is to be taken up ({what})"
        elif is_stuck:
            return text
    elif unserved:
        return f"waits {worker}"
    else:
        return f"is {row.status}: its next turn has not been recorded yet"
    return f"{text}, and {worker}" if unserved else text


def serving(queue: str) -> str:
    """Return the command that serves a task queue."""
    return f"`perdure dev MODULE{'' if queue == 'default' else f' -q {shlex.quote(queue)}'}`"


def _idle(row: RunRow, now: int, asked: Sequence[HumanTaskRow]) -> tuple[str, bool]:
    """Say what a run without work in flight waits for, and whether that can never come."""
    waits = waits_of(row)
    parts = [_message(topic) for topic in waits.get("topics", ())]
    people = waits.get("people", ())
    if asked:  # their rows know what has become of them since
        parts += [_person(task, now) for task in asked]
    else:
        parts += [awaited(who, _due(due, now)) for *who, due in people]
    known = {due for *_, due in people} | {
        at for it in asked for at in (it.due_at, it.remind_at, it.ends_at)
    }
    if row.wake_at is not None and row.wake_at not in known:
        parts.append(f"a timer that is due {_in(row.wake_at, now)}")
    parts += [f"child {child!r}" for child in waits.get("children", ())]
    if waits.get("conditions"):
        parts.append("a condition of its own")
    if waits.get("updates"):
        parts.append("an update that is under way")
    if not parts:
        parts = [f"update {name!r}" for name in waits.get("handlers", ())]
    where = f" at {waits['where']}" if waits.get("where") else ""
    since = f"since {_ago(row.since, now)}"
    if parts:
        return f"is waiting {since} for {' or '.join(parts)}{where}", False
    text = (
        f"is stuck: nothing can wake it: {since} it waits{where} for something only its own code "
        "could do. To end it: `perdure cancel` or `perdure terminate`"
    )
    return text, True


def _person(task: HumanTaskRow, now: int) -> str:
    is_held = task.claimed_until is not None and task.claimed_until > now
    holder = (task.claimed_by or "") if is_held else ""
    due = _due(task.due_at or 0, now)
    return awaited((task.title, task.role, task.assignee), due, holder)


def _due(at: int, now: int) -> str:
    """Say when a human task is due; ``""``: at no time."""
    if not at:
        return ""
    return f"due {_in(at, now)}" if at >= now else f"overdue since {_ago(at, now)}"


def _unserved(row: RunRow, live: Sequence[Worker]) -> str:
    """Say why no live worker serves the run, or return ``""``."""
    if not live:
        return "no worker is running"
    version = f"{row.workflow} {row.version}"
    knowing = [w for w in live if row.workflow in w.workflows or version in w.workflows]
    if not knowing:
        others = any(key.startswith(row.workflow + " ") for w in live for key in w.workflows)
        which = f" in version {row.version}" if others and row.version else ""
        return f"no worker knows workflow {row.workflow!r}{which}"
    if not any(row.queue in w.queues for w in knowing):
        return f"no worker that knows it serves task queue {row.queue!r}"
    return ""


def offered(offer: OfferRow, live: Sequence[Worker], now: int) -> str:
    """Say how it stands with an activity in a task queue."""
    queue, attempt = offer.queue, offer.attempt
    nth = f", attempt {attempt}" if attempt > 1 else ""
    if offer.stage is Stage.CLAIMED:
        names = [w.name for w in live if w.id == offer.owner]
        who = f"worker {names[0]!r}" if names else f"worker {offer.owner}, which does not live"
        return (
            f"is being carried out by {who} since {_ago(offer.claimed_at, now)}, attempt {attempt}"
        )
    if offer.stage is Stage.LOST:
        return f"lost attempt {attempt} with its worker, and what follows is to be recorded"
    serving_it = [w for w in live if queue in w.queues]
    if not serving_it:
        missing = f"no live worker serves it. Start one with {serving(queue)}"
    elif not any(offer.name in w.activities for w in serving_it):
        names = ", ".join(repr(w.name) for w in serving_it[:3])
        verb = "serves it but does" if len(serving_it) == 1 else "serve it but do"
        missing = f"{names} {verb} not know the activity: register its module (definitions=)"
    else:
        missing = ""
    if offer.stage is Stage.DELAYED:
        text = f"is due for attempt {attempt} {_in(offer.not_before, now)} in task queue {queue!r}"
        return f"{text}; {missing}" if missing else text
    text = f"waits{nth} for a worker of task queue {queue!r} since {_ago(offer.created_at, now)}"
    return (
        f"{text}; {missing or 'those that serve it have no free slot, or its limits are reached'}"
    )


def _waiting_for(
    turns: Sequence[TurnRow], now: int, elsewhere: Mapping[int, str], *, is_served: bool
) -> str:
    """Say which activities are open, from the history; ``elsewhere``: of those in task queues."""
    scheduled: dict[int, tuple[str, int]] = {}
    retrying: dict[int, dict[str, Any]] = {}
    for turn in turns:
        for number, event in enumerate(ev.decode_plain(turn.payload), turn.first):
            kind = event["kind"]
            if kind == "activity_scheduled":
                scheduled[number] = (event["name"], turn.time)
            elif kind in ("activity_completed", "activity_failed", "activity_cancelled"):
                scheduled.pop(event["activity"], None)
            elif kind == "attempt_failed":
                retrying[event["activity"]] = event
    texts: list[str] = []
    for number, (name, since) in list(scheduled.items())[:3]:
        failed = retrying.get(number)
        if number in elsewhere:
            because = (
                f" (attempt {failed['attempt']} failed: {_text(failed['failure'])})"
                if failed
                else ""
            )
            texts.append(f"activity {name!r}, which {elsewhere[number]}{because}")
        elif failed is not None:
            attempt = failed["attempt"] + 1
            is_due = failed["retry_at"] > now or not is_served
            when = f"is due {_in(failed['retry_at'], now)}" if is_due else "runs"
            texts.append(
                f"activity {name!r}, whose attempt {attempt} {when} "
                f"(attempt {attempt - 1} failed: {_text(failed['failure'])})"
            )
        else:
            texts.append(f"activity {name!r}, scheduled {_ago(since, now)}")
    if len(scheduled) > 3:
        texts.append(f"{len(scheduled) - 3} more activities")
    return " and ".join(texts)


def _text(failure: dict[str, Any]) -> str:
    return msgspec.convert(failure, failures.FailureInfo).text


def _message(topic: str) -> str:
    return "any message" if topic == "*" else f"message {topic!r}"


def _ago(then: int | None, now: int) -> str:
    past = now - (then or now)
    return f"{_rough(past)} ago" if past >= SECOND else "just now"


def _in(then: int, now: int) -> str:
    if then <= now:
        return "now"
    return f"in {_rough(then - now)}" if then - now >= SECOND else "in less than a second"


def _rough(microseconds: int) -> str:
    seconds = max(0, microseconds) // 1_000_000
    for least, grain in ((86_400, 3_600), (3_600, 60)):
        if seconds >= least:
            seconds -= seconds % grain
            break
    return to_text(seconds * 1_000_000)


def awaited(asked: Sequence[Any], due: str, holder: str = "") -> str:
    """Say what a run waits for: (title, role, assignee), and ``due``: "due in 2h", say.

    ``holder``: who has claimed it.
    """
    title, role, assignee = asked
    whose = f"assigned to {assignee!r}" if assignee else f"role {role!r}" if role else ""
    claimed = f"claimed by {holder!r}" if holder else ""
    told = ", ".join(part for part in (whose, claimed, due) if part)
    return f"a person: {title!r}{f' ({told})' if told else ''}"
