"""The corpus: workflows whose histories are recorded, and what happens to them.

Each case is a workflow and a script that drives one run of it. Histories of released versions are
never edited, so a case, once recorded, stays as it is; what is to be tried anew is a new case.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Any

from tests.unit.drive import NOON, Run, message

from perdure import ApplicationError, Retry, activity, errors, human, workflow
from perdure.kernel import traps
from perdure.kernel.recording import recorded
from perdure.values import events as ev
from perdure.values import failures
from perdure.workflow import Channel, after, call, select

CASES: dict[str, tuple[Any, Callable[[Run], None]]] = {}
"""By name: the workflow, and the script of its run."""


def case(program: Any) -> Callable[[Callable[[Run], None]], Callable[[Run], None]]:
    """Let the decorated function drive a run of ``program``; the case has the function's name."""

    def register(script: Callable[[Run], None]) -> Callable[[Run], None]:
        CASES[script.__name__] = program, script
        return script

    return register


def due_after(run: Run, seconds: int) -> list[ev.TimerFired]:
    """Return the firings of the timers due in so many seconds."""
    return run.instance.due_timers(run.time + seconds * 1_000_000)


def failure(text: str, **options: Any) -> failures.FailureInfo:
    return failures.from_exception(ApplicationError(text, **options))


@dataclass
class Order:
    number: int
    card: str


@activity.define(retry=Retry(max_attempts=3, interval="1s"), timeout="30s")
async def charge(order: Order) -> int:
    """Never run here."""
    return order.number


# -- steps, time, failures -----------------------------------------------------------------------


@workflow.define
async def fulfil(order: dict[str, Any]) -> dict[str, Any]:
    paid = await charge(Order(**order))
    await workflow.sleep("1h")
    try:
        await call("pack", paid)
    except errors.ActivityFailed as exc:
        return {"failed": exc.kind, "at": workflow.now().isoformat()}
    return {"packed": paid}


@case(fulfil)
def steps_with_retries(run: Run) -> None:
    run.blind(
        ev.AttemptFailed(activity=2, attempt=1, failure=failure("busy"), retry_at=run.time + 7)
    )
    run.blind(ev.AttemptLost(activity=2, attempt=2, worker="w1"))
    run.turn(ev.RunTaken(worker="w2"), run.completed("charge", 5), after=3)
    run.fire()
    run.fail("pack", "no box", kind="NoBox", retryable=False, details={"size": 3})


@case(fulfil)
def parked_and_resumed(run: Run) -> None:
    run.blind(ev.RunParked(reason="unknown_workflow", detail="gone", unblock="start a worker"))
    run.blind(run.completed("charge", 5))
    run.turn(ev.RunUnparked(by="w2"), after=60)
    run.fire()
    run.complete("pack")


@case(fulfil)
def moved_to_another_version(run: Run) -> None:
    run.turn(run.completed("charge", 5))
    run.blind(ev.RunMoved(version="2.0.0", by="client"))
    run.fire()
    run.complete("pack")


# -- asyncio: what differs between Pythons -------------------------------------------------------


@workflow.define
async def waiting_in_gather() -> list[Any]:
    async def late() -> str:
        try:
            return await asyncio.wait_for(call("slow"), 5)
        except TimeoutError:
            return "late"

    first = await asyncio.gather(asyncio.wait_for(call("a"), 5), call("b"), late())
    done = asyncio.ensure_future(call("c"))
    await done
    beside = asyncio.create_task(call("d"))
    again = await asyncio.gather(done, asyncio.wait_for(done, 5), return_exceptions=True)
    await call("e")
    return [first, again, await beside]


@case(waiting_in_gather)
def wait_for_inside_gather(run: Run) -> None:
    run.turn(run.completed("b", 2), run.completed("a", 1))
    run.fire()
    run.complete("c", 3)
    run.turn(run.completed("e", 5), run.completed("d", 4))


@workflow.define
async def cancelled_group(times: int) -> str:
    async def member(number: int) -> None:
        try:
            await call(f"step-{number}")
        finally:
            await call(f"undo-{number}")

    try:
        async with asyncio.TaskGroup() as group:
            for number in range(times):
                group.create_task(member(number))
    except* errors.ActivityFailed:
        pass
    await call("after")
    return "went on"


@case(cancelled_group)
def cancel_meets_group_failure(run: Run) -> None:
    run.turn(run.failed("step-0"), ev.CancelRequested(reason="both"))
    finish_undo(run)


@case(cancelled_group)
def group_failure_alone(run: Run) -> None:
    run.turn(run.failed("step-0"))
    finish_undo(run)
    run.complete("after")


@case(cancelled_group)
def group_failure_then_cancel(run: Run) -> None:
    run.turn(run.failed("step-1"))
    run.cancel("later")
    finish_undo(run)


def finish_undo(run: Run) -> None:
    while names := [
        p.event.name for p in run.instance.activities.values() if "undo" in p.event.name
    ]:
        run.complete(names[0])


@case(cancelled_group)
def task_group_abort_order(run: Run) -> None:
    run.turn(run.failed("step-7"), run.failed("step-3"))
    finish_undo(run)
    run.complete("after")


@workflow.define
async def racing_timeouts() -> list[str]:
    got: list[str] = []

    async def race(name: str, seconds: int) -> None:
        try:
            async with asyncio.timeout(seconds):
                got.append(f"{name} {await call(name)}")
        except TimeoutError:
            got.append(f"{name} late")
        await call(f"{name}-end")

    await asyncio.gather(race("a", 5), race("b", 5))
    try:
        async with asyncio.timeout(5):
            try:
                async with asyncio.timeout(5):
                    await call("c")
            finally:
                await call("c-undo")
    except TimeoutError:
        got.append("outer")
    try:
        async with asyncio.timeout(5), asyncio.TaskGroup() as group:
            group.create_task(call("d"))
    except* errors.ActivityFailed:
        got.append("group")
    await call("e")
    return got


@case(racing_timeouts)
def timeout_races(run: Run) -> None:
    due = due_after(run, 5)
    run.turn(run.completed("a", 1), *due, run.completed("b", 2), after=5)
    run.turn(run.completed("b-end"), run.completed("a-end"))
    run.fire()
    run.complete("c-undo")
    due = due_after(run, 5)
    run.turn(run.failed("d"), *due, after=5)
    run.complete("e")


@workflow.define
async def finishing() -> list[Any]:
    got: list[Any] = []
    for one in asyncio.as_completed([call("a"), call("b"), call("c")], timeout=5):
        try:
            got.append(await one)
        except TimeoutError:
            got.append("late")
    tasks = {asyncio.create_task(call(name), name=name) for name in "defghijklm"}
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    got.append([task.get_name() for task in done])
    for task in pending:
        task.cancel()
    await asyncio.wait(pending)
    await call("end")
    return got


@case(finishing)
def as_completed_and_wait(run: Run) -> None:
    run.turn(run.completed("c", 3), run.completed("a", 1))
    run.fire()
    run.turn(*(run.completed(name) for name in "jem"))
    run.complete("end")


@workflow.define
async def guarded() -> list[str]:
    log: list[str] = []
    condition, gate, lock, queue = (
        asyncio.Condition(),
        asyncio.Semaphore(2),
        asyncio.Lock(),
        asyncio.Queue[str](1),
    )

    async def waiter(name: str) -> None:
        async with condition:
            await condition.wait()
        log.append(f"notified {name}")

    async def member(name: str) -> None:
        async with gate, lock:
            await queue.put(name)
            log.append(f"in {name}")

    waiters = [asyncio.create_task(waiter(name)) for name in "xyz"]
    members = [asyncio.create_task(member(name)) for name in "pqrst"]
    await call("a")
    async with condition:
        condition.notify()
    waiters[0].cancel()
    gate.release()
    gate.release()
    members[2].cancel()
    for _ in range(4):
        log.append(f"got {await queue.get()}")
        await call("b")
    waiters[2].cancel()
    await asyncio.wait(waiters)
    return log


@case(guarded)
def conditions_semaphores_and_locks(run: Run) -> None:
    run.complete("a")
    for _ in range(4):
        run.complete("b")


# -- channels, messages, children ----------------------------------------------------------------


@workflow.define
async def selecting() -> list[Any]:
    one, two, moment = Channel[int](), Channel[int](1), after("10s")
    names = {id(one): "one", id(two): "two", id(moment): "moment"}

    async def pass_on(name: str, channel: Channel[int]) -> None:
        await channel.send(await call(name))

    workflow.spawn(pass_on("a", one))
    workflow.spawn(pass_on("b", two))
    got: list[Any] = []
    for _ in range(3):
        chosen, value = await select(one, two, moment)
        got.append([names[id(chosen)], value])
    try:
        await one.receive(timeout="2s")
    except TimeoutError as exc:
        got.append(str(exc))
    one.close()
    return [*got, [value async for value in one]]


@case(selecting)
def channels_and_moments(run: Run) -> None:
    run.turn(run.completed("b", 2), after=3)
    run.turn(run.completed("a", 1), after=3)
    run.fire()
    run.fire()


@workflow.define
async def corresponding() -> list[Any]:
    orders = workflow.listen("order", Order)
    got: list[Any] = [(await orders.receive()).number]
    await workflow.send("order-1", "hello", got)
    try:
        await workflow.handle("order-2").cancel("late", deadline="5s")
    except errors.NotFound as exc:
        got.append(str(exc))
    other = await workflow.inbox().receive()
    await other.reply("thanks", {"for": other.payload})
    await workflow.continue_as_new([*got, other.topic])
    return got


@case(corresponding)
def messages_and_continue_as_new(run: Run) -> None:
    run.message("early", 1)
    run.turn(
        message("order", {"number": 1, "card": "c"}), message("order", {"number": 2, "card": "d"})
    )
    run.turn(ev.SendResolved(send=run.instance.length))
    number = next(iter(run.instance.sends))
    gone = failures.from_exception(errors.NotFound("no execution 'order-2'"))
    run.turn(ev.SendResolved(send=number, failure=gone), message("late", 2), message("last", 3))
    run.turn(ev.SendResolved(send=next(iter(run.instance.sends))))


@workflow.define
async def parenting() -> list[Any]:
    first = await workflow.start(fulfil, {"number": 1, "card": "c"}, id="first", search={"n": 1})
    second = await workflow.start("other", [1], parent_close_policy="abandon")
    got: list[Any] = []
    try:
        got.append(await workflow.execute("third", messages=[("go", 1)]))
    except errors.ChildFailed as exc:
        got.append([exc.kind, exc.message])
    for _ in range(2):
        notice = await workflow.events().receive()
        got.append([notice.sender in (first.id, second.id), notice.result])
    try:
        async with asyncio.timeout(5):
            await workflow.execute("fourth", id="fourth")
    except TimeoutError:
        got.append("gave up")
    return [*got, await second]


@case(parenting)
def children(run: Run) -> None:
    run.turn(run.child_closed(2, status="failed", failure=failure("sunk", kind="Sunk")))
    run.turn(run.child_closed(0, result={"packed": 1}))
    run.message("between")
    run.turn(run.child_closed(0, result="second"))
    run.fire()


# -- updates, versions, chance, compensation -----------------------------------------------------


@workflow.define
async def account() -> int:
    balance = 0

    @workflow.update("deposit")
    async def deposit(amount: int) -> int:
        nonlocal balance
        await call("check", amount)
        if amount > 100:
            raise ApplicationError("too much", kind="Limit")
        balance += amount
        return balance

    try:
        await workflow.wait_condition(lambda: balance >= 10, timeout="1h")
        await workflow.progress(balance, 10, "full")
        await workflow.attrs(search={"balance": balance}, memo={"note": "full"})
        await workflow.wait_condition(lambda: balance < 0)
    except asyncio.CancelledError:
        await call("close")
    return balance


@case(account)
def updates_and_conditions(run: Run) -> None:
    run.update("deposit", 7, id="u1")
    run.update("deposit", 500, id="u2")
    run.turn(run.completed("check"), run.completed("check", nth=1))
    run.update("deposit", 5, id="u3")
    run.complete("check")
    run.update("unknown", id="u4")
    run.update("deposit", 1, id="u5")
    run.cancel("enough")
    run.complete("close")


@workflow.define
async def changing() -> list[Any]:
    got: list[Any] = [workflow.patched("new tax"), workflow.random(), str(workflow.uuid4())]
    await call("a", workflow.random_bytes(4).hex())
    got.append(workflow.version("rounding", 1, 3))
    await call("b")
    return [*got, workflow.patched("new tax"), workflow.random(), workflow.history_length()]


@case(changing)
def versions_and_chance(run: Run) -> None:
    run.complete("a")
    run.turn(ev.Forked(seed=b"seed of the fork", origin="order-6"), run.completed("b"))


@workflow.define
async def travelling() -> str:
    async with workflow.saga() as saga:
        for name in ("hotel", "car", "flight"):
            saga.add(call, f"cancel-{name}", await call(name))
        await asyncio.shield(call("pay"))
    return "booked"


@case(travelling)
def compensation(run: Run) -> None:
    for name in ("hotel", "car"):
        run.complete(name, name.upper())
    run.fail("flight", "full", kind="Full")
    run.fail("cancel-car", "no answer")
    run.complete("cancel-hotel")


@case(travelling)
def compensation_after_a_cancel(run: Run) -> None:
    run.complete("hotel", "H")
    run.cancel("ill")
    run.complete("cancel-hotel")


@workflow.define
async def streaming() -> list[Any]:
    async def numbers() -> AsyncGenerator[Any, None]:
        try:
            for number in range(5):
                yield await call("next", number)
        finally:
            await call("closed")

    got: list[Any] = []
    async for number in numbers():
        got.append(number)
        if number == 1:
            break
    stream = numbers()
    got.append(await anext(stream))
    await stream.aclose()
    try:
        async with asyncio.timeout(5):
            await asyncio.shield(call("kept"))
    except TimeoutError:
        got.append("late")
    return got


@case(streaming)
def generators_and_shield(run: Run) -> None:
    for number in (0, 1, 7):
        run.complete("next", number)
    run.complete("closed")
    run.fire()


@workflow.define
async def generation() -> None:
    before = await workflow.events().receive()
    child = await workflow.start("ship", id="ship-2")
    await workflow.start("ship", id="ship-3")
    ended = await workflow.events().receive()
    assert (before.sender, ended.sender) == ("ship-0", "ship-1")
    await child
    await workflow.continue_as_new()


@case(generation)
def continued_with_notices_and_children(run: Run) -> None:
    run.turn(ev.ChildClosed(child=4, status="completed", result=b"1", at=NOON, asked_by="before"))
    run.turn(run.child_closed(result="sent"))


# -- people --------------------------------------------------------------------------------------


@workflow.define
async def refund() -> list[Any]:
    got: list[Any] = []
    first = await human.request("Refund?", role="finance", due="2h", remind="1h")
    got.append([first.by, first.value, first.comment])
    got.append((await human.request("In time?", due="30m", name="late")).outcome)
    try:
        async with asyncio.timeout(60):
            await human.request("Anybody?", assignee="ada", data={"order": 7}, priority=1)
    except TimeoutError:
        got.append("gave up")
    both = await asyncio.gather(human.request("a"), human.request("b"))
    return [*got, *(decided.outcome for decided in both)]


@case(refund)
def people(run: Run) -> None:
    run.fire()
    run.turn(decided_in(run, "completed", value=b'{"approved":true}', by="ada", comment="fine"))
    run.fire()
    run.fire()
    run.blind(decided_in(run, "rejected", nth=1, by="grace"))
    run.turn(decided_in(run, "cancelled", by="ada"), after=5)


@workflow.define
async def four_eyes() -> list[Any]:
    way: Any = {"escalate": [("lead", "1d")], "approvers": 2, "not_by": ["eve", human.requester()]}
    return [(it.by, it.value) for it in (await human.request("Pay?", **way)).approvals]


@case(four_eyes)
def several_approvers(run: Run) -> None:
    both = ev.Approval("ada", run.time, b"1"), ev.Approval("bot", run.time, b"2", person="g")
    run.turn(decided_in(run, "completed", value=b"2", by="bot", approvals=both))


def decided_in(run: Run, outcome: str, nth: int = 0, **fields: Any) -> ev.HumanTaskDecided:
    fields |= {"opened": list(run.instance.human_tasks)[nth], "asked_by": run.started.run_id}
    return ev.HumanTaskDecided(outcome=outcome, at=run.time, **fields)


# -- what is computed once ---------------------------------------------------------------------


@workflow.define
async def deciding() -> list[bytes]:
    decided = [recorded(traps.here(), f"way {number}", lambda: b"true") for number in range(2)]
    await call("step")
    return [*decided, recorded(traps.here(), "way 0", lambda: b"false")]


@case(deciding)
def values_recorded_by_a_worker_that_knew_the_deadline(run: Run) -> None:
    run.turn(ev.RunTaken(worker="w", run_deadline=NOON), run.completed("step"))


FIELDS: dict[str, dict[str, Any]] = {
    "continued_with_notices_and_children": {
        "notices": (ev.UnreadNotice("exit", "ship-0", NOON, result=b"null"),),
        "children": (ev.OpenChild("ship-1", "before", 4),),
    },
}
INPUTS: dict[str, Any] = {
    "steps_with_retries": {"number": 4, "card": "c"},
    "parked_and_resumed": {"number": 4, "card": "c"},
    "moved_to_another_version": {"number": 4, "card": "c"},
    "overdue_and_going_on": {"number": 4, "card": "c"},
    "cancel_meets_group_failure": 1,
    "group_failure_alone": 2,
    "group_failure_then_cancel": 3,
    "task_group_abort_order": 12,
    "events_and_progress": 2,
    "machine_with_marks": 2,
}


def play(name: str) -> Run:
    """Run a case on this Python; return the run with its rows."""
    program, script = CASES[name]
    run = Run(program, INPUTS.get(name), **FIELDS.get(name, {}))
    script(run)
    return run


from tests.replay import telling as telling  # noqa: E402, PLC0414 - its cases are cases, too
