"""What must be true at the end of a simulated world."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from tests.simulation import rows
from tests.simulation.programs import Effect, fits, play, results
from tests.simulation.workload import Plan
from tests.simulation.world import World

from perdure.testing import checks
from perdure.testing.checks import History
from perdure.testing.clock import EPOCH
from perdure.values import endings, payload
from perdure.values import events as ev
from perdure.values.states import Status


def judge(world: World) -> list[str]:
    """Return what is wrong."""
    read = checks.histories(world.sim.store)
    found = checks.problems(world.sim.store, [play])
    for plan in world.workload.plans:
        found += _ending(world, plan, [h for h in read if h.row.workflow_id == plan.id])
    found += _seen_results(world, read)
    found += _effects(world, read)
    found += _said(world, read)
    found += _watched(world, read)
    found += _paused(world, read)
    found += _booked(world, read)
    found += _journal(world, read)
    found += rows.orphans_at_the_end(world.sim.store)
    owned = [h.name for h in read if h.row.owner is not None]
    found += [f"{name} has an owner though all workers left" for name in owned]
    if world.fleet is not None:
        left = [worker.name for worker in world.sim.store.workers()]
        found += [f"{name} left, and has a row that says it lives" for name in left]
    found += [f"alarm: {text}" for text in world.sim.alarms]
    found += [f"loop: {context.get('exception')!r} {context}" for context in world.sim.loop.errors]
    return found


def _journal(world: World, read: list[History]) -> Iterator[str]:
    """The journal has each row of each history once, in its order."""
    journal = world.sim.store.journal(limit=1_000_000).rows
    ids = [row.id for row in journal]
    if ids != sorted(set(ids)):
        yield "the journal is out of order"
    told: dict[int, list[int]] = {}
    for row in journal:
        told.setdefault(row.run, []).append(row.first)
    for history in read:
        if told.get(history.row.run) != [turn.first for turn in history.turns]:
            yield f"{history.name}: the journal tells {told.get(history.row.run)}"


def _ending(world: World, plan: Plan, chain: list[History]) -> Iterator[str]:
    """Every execution is there once, unless several were asked for, and has ended as it must."""
    if not chain:
        if not plan.is_optional:
            yield f"{plan.id} was never started"
        return
    executions: dict[int, list[History]] = {}
    for history in chain:
        executions.setdefault(history.row.execution, []).append(history)
    is_many = any(
        other.is_many and f"{plan.id}-".startswith(f"{other.id}-") for other in world.workload.plans
    )  # itself, or one that it descends from
    if len(executions) > 1 and not is_many:
        yield f"{plan.id} was started more than once"
    for runs in executions.values():
        for before in runs[:-1]:
            if not endings.next_run(before.events[-1]):
                yield f"{before.name} is {before.row.status} and was continued"
    *earlier, last = executions.values()
    for runs in earlier:
        yield from _made_room(runs[-1], plan)
    yield from _ended_right(last, plan)
    known = {history.row.run_id for history in chain}
    for id, run_id in world.acknowledged:
        if id == plan.id and run_id not in known:
            yield f"the start of {run_id} under {id} was acknowledged, and it does not exist"


def _made_room(history: History, plan: Plan) -> Iterator[str]:
    """An execution before the last of its id had ended, or was ended for the next one."""
    event = history.events[-1]
    if isinstance(event, ev.RunTerminated) and event.by == "terminate_existing":
        return
    if str(history.row.status) not in plan.statuses:
        yield f"{history.name} is {history.row.status} ({history.row.detail})"


def _ended_right(runs: list[History], plan: Plan) -> Iterator[str]:
    last = runs[-1]
    status, event = last.row.status, last.events[-1]
    if str(status) not in plan.statuses:
        yield f"{plan.id} is {status} ({last.row.detail}); right would be {sorted(plan.statuses)}"
        return
    if isinstance(event, ev.RunCompleted):
        result, wanted = payload.decode(event.result), plan.results
        if plan.is_many:  # which of its programs that was
            started = runs[0].events[0]
            assert isinstance(started, ev.RunStarted)
            wanted = results(payload.decode(started.input)["parts"])
        if not fits(result, wanted):
            yield f"{plan.id} returned {result}; right would be {wanted}"
    if isinstance(event, ev.RunFailed) and event.failure.root.message != plan.error:
        yield f"{plan.id} failed with {event.failure.root.message!r}, not {plan.error!r}"
    if status is Status.PARKED and last.row.reason != plan.reason:
        yield f"{plan.id} is parked for {last.row.reason}, not {plan.reason}: {last.row.detail}"


def _seen_results(world: World, read: list[History]) -> Iterator[str]:
    """What a client was told is what is recorded, of the last execution or of one it replaced.

    A start that was not acknowledged may come late, after the result was taken.
    """
    ended: dict[str, list[History]] = {}
    for history in read:
        ended.setdefault(history.row.workflow_id, []).append(history)
    many = {plan.id for plan in world.workload.plans if plan.is_many}
    for id, result in world.seen_results:
        histories = ended[id] if id in many else ended[id][-1:]
        if not any(_tells(history.events[-1], result) for history in histories):
            brief = ", ".join(history.events[-1].brief() for history in histories)
            yield f"the client of {id} heard {result!r}; recorded is {brief}"


_KINDS: dict[str, type[ev.Event]] = {
    "WorkflowFailed": ev.RunFailed,
    "WorkflowCancelled": ev.RunCancelled,
    "WorkflowTerminated": ev.RunTerminated,
    "WorkflowTimedOut": ev.RunTimedOut,
}


def _tells(event: ev.Event, result: Any) -> bool:
    if isinstance(result, Exception):
        return isinstance(event, _KINDS[type(result).__name__])
    return isinstance(event, ev.RunCompleted) and payload.decode(event.result) == result


def _effects(world: World, read: list[History]) -> Iterator[str]:
    """I3, I4, I13: effects against what had been committed when they happened."""
    runs = {history.row.run_id: history for history in read}
    written: dict[int, list[tuple[int, int]]] = {}
    for row in world.rows:
        written.setdefault(row.run, []).append((row.first, row.tick))
    begun: dict[tuple[str, int, int], list[Effect]] = {}
    for effect in world.effects:
        if not effect.is_end:
            begun.setdefault((effect.run_id, effect.activity, effect.attempt), []).append(effect)
    for history in runs.values():
        ticks = sorted(written.get(history.row.run, []))
        yield from _effects_of(world, history, ticks, begun)
    keys: dict[str, tuple[str, int]] = {}
    for effect in world.effects:
        call = effect.run_id, effect.activity
        if keys.setdefault(effect.key, call) != call:
            yield f"{call} and {keys[effect.key]} share an idempotency key"


def _effects_of(
    world: World,
    history: History,
    ticks: list[tuple[int, int]],
    begun: dict[tuple[str, int, int], list[Effect]],
) -> Iterator[str]:
    def tick_of(event: int) -> int:
        """When the row that holds the event was written."""
        return max((tick for first, tick in ticks if first <= event), default=0)

    recorded: dict[tuple[int, int], tuple[int, Any]] = {}
    outcome: dict[int, tuple[int, Any]] = {}
    for number, event in history.all(
        ev.AttemptFailed, ev.AttemptLost, ev.ActivityCompleted, ev.ActivityFailed
    ):
        recorded.setdefault((event.activity, event.attempt), (number, event))
    for number, event in history.all(ev.ActivityCompleted, ev.ActivityFailed, ev.ActivityCancelled):
        outcome.setdefault(event.activity, (number, event))
    for number, scheduled in history.all(ev.ActivityScheduled):
        attempts = {
            attempt: effects
            for (run_id, activity, attempt), effects in sorted(begun.items())
            if run_id == history.row.run_id and activity == number
        }
        what = f"{history.name}, activity {number} ({scheduled.name})"
        final = outcome.get(number)
        closed = final[1] if final is not None else None
        if isinstance(closed, ev.ActivityCompleted) and closed.attempt not in attempts:
            yield f"{what} completed without an effect of attempt {closed.attempt}"
        for attempt, effects in attempts.items():
            first, who = effects[0], [effect.worker for effect in effects]
            if first.tick < tick_of(number):
                yield f"{what} began before its schedule was committed (I3)"
            if attempt > 1:
                before = recorded.get((number, attempt - 1))
                yield from _came_after(f"{what}, attempt {attempt}", first, before, tick_of)
            if len(effects) > 1:
                yield f"{what}: attempt {attempt} began {len(effects)} times, on {who} (I13)"
            is_open = not history.row.status.is_terminal and history.row.status != Status.PARKED
            if final is None and is_open and (number, attempt) not in recorded:
                yield f"{what}: attempt {attempt} began and is not in the history (I13)"
            if final is None:
                continue
            for effect in effects:
                # A worker that was taken over and does not know it yet may begin what it had.
                if world.is_zombie(effect.worker, effect.tick):
                    continue
                # A cancel's commit and the beginning of an attempt may cross.
                if effect.tick > tick_of(final[0]) and not isinstance(closed, ev.ActivityCancelled):
                    yield f"{what}: attempt {attempt} began after {final[1].brief()} (I4)"
                if isinstance(closed, ev.ActivityCompleted) and attempt > closed.attempt:
                    yield f"{what}: attempt {attempt} was not counted (I13)"


def _came_after(
    what: str,
    effect: Effect,
    before: tuple[int, Any] | None,
    tick_of: Callable[[int], int],
) -> Iterator[str]:
    """An attempt begins when the end of the one before is committed, and its pause is over."""
    if before is None or effect.tick < tick_of(before[0]):
        yield f"{what} began before the end of the one before was committed (I3)"
    elif isinstance(before[1], ev.AttemptFailed):
        at = round(effect.time * 1_000_000) + EPOCH
        if at < before[1].retry_at:
            yield f"{what} began {before[1].retry_at - at} µs early"


def _said(world: World, read: list[History]) -> Iterator[str]:
    """I7: what was acknowledged to a client was received once, in the order it was sent."""
    places: dict[str, list[tuple[int, int]]] = {}
    for history in read:
        for number, event in history.messages():
            value = payload.decode(event.message.payload)
            if isinstance(value, dict) and "token" in value:
                places.setdefault(value["token"], []).append((history.row.run, number))
    last: dict[str, tuple[tuple[int, int], str]] = {}
    for said in world.said:
        found = places.get(said.token, [])
        if len(found) > 1:
            yield f"message {said.token} was received {len(found)} times: {found}"
        if not said.is_acknowledged:
            continue
        if not found:
            yield f"message {said.token} to {said.target} was acknowledged and is lost"
            continue
        if said.sender in last and found[0] < last[said.sender][0]:
            yield f"message {said.token} overtook {last[said.sender][1]}"
        last[said.sender] = found[0], said.token


def _watched(world: World, read: list[History]) -> Iterator[str]:
    """A watch that stood when its target ended gives a notice, if the watcher went on to its end.

    That none gives two is said by ``checks``.
    """
    ended: dict[str, list[tuple[int, History]]] = {}
    over: dict[int, int] = {}
    chains: dict[int, list[History]] = {}
    for history in read:
        chains.setdefault(history.row.execution, []).append(history)
        if history.row.status.is_terminal and not endings.next_run(history.events[-1]):
            tick = _tick_of_the_end(world, history)
            over[history.row.execution] = tick
            ended.setdefault(history.row.workflow_id, []).append((tick, history))
    for history in read:
        answers = {e.send: (n, e) for n, e in history.all(ev.SendResolved)}
        dropped = [(e.target, e.way, n) for n, e in history.all(ev.WatchDropped)]
        runs = chains[history.row.execution]
        heard = {
            event.watch
            for run in runs
            for _, event in run.all(ev.ExecutionEnded)
            if event.asked_by == history.row.run_id
        }
        last = runs[-1].events[-1]
        was_cut = not isinstance(last, (ev.RunCompleted, ev.RunFailed, ev.RunCancelled))
        for number, watch in history.all(ev.WatchSet):
            _, answer = answers.get(number, (0, None))
            if answer is None or answer.failure is not None or number in heard or was_cut:
                continue
            if any(d[:2] == (watch.target, watch.way) and d[2] > number for d in dropped):
                continue
            set_at = _tick_of(world, history, number)
            end = next((t for t, _ in ended.get(watch.target, ()) if t > set_at), None)
            if end is None:
                end = set_at  # it had ended before
            if end < over.get(history.row.execution, 0):
                yield (
                    f"{history.name} watched {watch.target!r} (event {number}, {watch.way}) "
                    "and never heard of its end"
                )


def _tick_of(world: World, history: History, event: int) -> int:
    """When the row that holds an event was written."""
    ticks = (row.tick for row in world.rows if row.run == history.row.run and row.first <= event)
    return max(ticks, default=0)


def _tick_of_the_end(world: World, history: History) -> int:
    event = history.events[-1]
    if isinstance(event, ev.RunTerminated) and event.by == "terminate_existing":
        following = (row for row in world.rows if row.first == 1 and row.run > history.row.run)
        return min((row.tick for row in following), default=0)
    return _tick_of(world, history, len(history.events))


def _paused(world: World, read: list[History]) -> Iterator[str]:
    """A paused run takes no turn."""
    names = {history.row.run: history.name for history in read}
    for run, begun, ended in world.pauses:
        for row in world.rows:
            if row.run == run and row.is_applied and begun < row.tick < ended:
                yield f"{names[run]} took the turn at {row.first} while it was paused"


def _booked(world: World, read: list[History]) -> Iterator[str]:
    """What a transactional activity wrote stands exactly if its outcome does."""
    written = rows.booked(world.sim.store)
    recorded: dict[tuple[str, int], str] = {}
    for history in read:
        scheduled = {n for n, event in history.all(ev.ActivityScheduled) if event.name == "book"}
        for _, event in history.all(ev.ActivityCompleted):
            if event.activity in scheduled:
                recorded[history.row.run_id, event.activity] = history.name
        if history.row.status.is_terminal:
            # What its inbox held when it was cut off was written, and is in no history.
            for number in scheduled:
                if (history.row.run_id, number) in written:
                    recorded.setdefault((history.row.run_id, number), history.name)
    for call, name in recorded.items():
        if written.get(call) != 1:
            yield f"{name}: activity {call[1]} wrote {written.get(call, 0)} rows"
    for call in written.keys() - recorded.keys():
        yield f"{call} wrote a row, and its outcome is not recorded"
