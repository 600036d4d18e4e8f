"""Workflows made of small parts, and what each of them must come to.

``play`` runs a program: a list of parts such as ``["step", "a", 0.1]``. Programs are made by chance
and their results are known beforehand (``expected``), so a simulation can tell a right result from
a wrong one whatever went wrong on the way.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from typing import Any

import msgspec
from tests.simulation.relations import AnyOf, Part, Program, Relations, expectations

from perdure import activity, errors, workflow
from perdure.testing.clock import current_process
from perdure.testing.faults import POISON
from perdure.values.retry import Retry

TARGET_IS_GONE = "gone"


# -- the world outside -----------------------------------------------------------------------------


class Effect(msgspec.Struct, frozen=True):
    """An attempt has begun (or come to its end) in the world outside."""

    tick: int
    time: float
    is_end: bool
    worker: str
    run_id: str
    activity: int
    attempt: int
    key: str
    name: str


log_effect: contextvars.ContextVar[Callable[[activity.Info, str, bool], None]] = (
    contextvars.ContextVar("log_effect")
)


async def _act(seconds: float) -> None:
    process = current_process()
    assert process is not None, "an activity runs in its worker"
    log = log_effect.get()
    info = activity.info()
    log(info, process.name, False)
    if seconds:
        await asyncio.sleep(seconds)  # sleep: virtual time
    log(info, process.name, True)


_QUICKLY = Retry(interval="200ms", backoff=1.5, max_interval="1s")


@activity.define(retry=_QUICKLY)
async def work(tag: str, seconds: float) -> str:
    await _act(seconds)
    return f"did {tag}"


@activity.define(retry=_QUICKLY)
async def flaky(tag: str, failures: int) -> str:
    await _act(0.02)
    if activity.info().attempt <= failures:
        raise ValueError(f"{tag} fails at first")
    return f"did {tag} at last"


@activity.define(retry=_QUICKLY)
async def doomed(tag: str) -> str:
    await _act(0.01)
    raise ValueError(f"{tag} always fails")


@activity.define(retry=_QUICKLY)
async def fatal(tag: str) -> str:
    await _act(0.01)
    raise errors.ApplicationError(f"{tag} must not be tried again", retryable=False)


@activity.define(retry=_QUICKLY, heartbeat_timeout="500ms")
async def beating(tag: str, beats: int) -> str:
    begun = activity.info().heartbeat_details or 0
    await _act(0.0)
    for beat in range(begun, beats):
        activity.heartbeat(beat + 1)
        await asyncio.sleep(0.2)  # sleep: virtual time
    return f"beat {tag}"


@activity.define
async def poison(tag: str) -> str:
    await _act(0.0)
    return POISON.decode()


@activity.define(retry=_QUICKLY, transactional=True)
def book(tag: str, failures: int) -> str:
    """Write a row, in the transaction that records the outcome."""
    process, info = current_process(), activity.info()
    assert process is not None, "an activity runs in its worker"
    log = log_effect.get()
    log(info, process.name, False)
    connection = activity.connection()
    connection.execute("insert into ledger values (?, ?)", (info.run_id, info.activity_id))
    if info.attempt <= failures:
        raise ValueError(f"{tag} fails at first")
    log(info, process.name, True)
    return f"booked {tag}"


ACTIVITIES = [work, flaky, doomed, fatal, beating, poison, book]


# -- the player ------------------------------------------------------------------------------------


class _Player(Relations):
    def __init__(self, program: Program) -> None:
        super().__init__(program)
        self.added: list[str] = []
        self.flags: set[str] = set()

    async def run(self) -> list[Any]:
        program = self.program
        workflow.query("so_far")(lambda: len(program.done))
        workflow.update("add", validator=self._check)(self._add)
        for place, part in enumerate(program.parts):
            if part[0] == "continue":
                await workflow.continue_as_new(Program(program.parts[place + 1 :], program.done))
            await workflow.emit("part", place)
            program.done.append(await self.do(part))
        return program.done

    async def do(self, part: Part) -> Any:
        return await getattr(self, part[0])(*part[1:])

    @staticmethod
    def _check(item: str, slowly: bool = False) -> None:
        if item == "bad":
            raise errors.ApplicationError("a bad item")

    async def _add(self, item: str, slowly: bool = False) -> int:
        if slowly:
            await work(f"update-{item}", 0.05)
        self.added.append(item)
        return len(self.added)

    # parts

    async def step(self, tag: str, seconds: float) -> str:
        return await work(tag, seconds)

    async def book(self, tag: str, failures: int) -> str:
        return await book(tag, failures)

    async def by_name(self, tag: str) -> str:
        return await workflow.call("work", tag, 0.01)

    async def flaky(self, tag: str, failures: int) -> str:
        return await flaky(tag, failures)

    async def doomed(self, tag: str, attempts: int) -> str:
        limited = doomed.options(retry=Retry(max_attempts=attempts))
        return await _failing(limited(tag))

    async def fatal(self, tag: str) -> str:
        return await _failing(fatal(tag))

    async def beating(self, tag: str, beats: int) -> str:
        return await beating(tag, beats)

    async def slow(self, tag: str, attempts: int) -> str:
        """Every attempt is timed out."""
        limited = work.options(timeout="300ms", retry=Retry(max_attempts=attempts))
        return await _failing(limited(tag, 100.0))

    async def late(self, tag: str, seconds: float) -> str:
        """The code gives up on an activity that takes ever so long."""
        try:
            async with asyncio.timeout(seconds):
                return await work(tag, 500.0)
        except TimeoutError:
            return "late"

    async def race(self, tag: str, seconds: float, limit: float) -> str:
        try:
            async with asyncio.timeout(limit):
                return await work(tag, seconds)
        except TimeoutError:
            return "late"

    async def nap(self, seconds: float) -> bool:
        begun = workflow.now()
        await workflow.sleep(seconds)
        return (workflow.now() - begun).total_seconds() >= seconds

    async def chance(self, tag: str) -> str:
        return await work(f"{tag}-{workflow.random()}-{workflow.uuid4()}", 0.0) and tag

    async def gather(self, parts: list[Part]) -> list[Any]:
        return list(await asyncio.gather(*[self.do(part) for part in parts]))

    async def group(self, parts: list[Part]) -> list[Any]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self.do(part)) for part in parts]
        return [task.result() for task in tasks]

    async def spawned(self, flag: str, part: Part) -> str:
        async def raise_flag() -> None:
            await self.do(part)
            self.flags.add(flag)

        workflow.spawn(raise_flag())
        await workflow.wait_condition(lambda: flag in self.flags)
        return f"flag {flag}"

    async def impatient(self, seconds: float) -> str:
        """Waits for a condition that never holds."""
        try:
            await workflow.wait_condition(lambda: False, timeout=seconds)
        except TimeoutError:
            return "never"
        return "?"

    async def receive(self, topic: str, count: int) -> list[str]:
        """Collect ``count`` different messages, whatever comes twice."""
        seen: set[str] = set()
        async for message in workflow.listen(topic):
            seen.add(message["name"])
            if len(seen) == count:
                break
        return sorted(seen)

    async def receive_or_nap(self, topic: str, count: int, pause: float) -> list[str]:
        """The same, waking up between."""
        seen: set[str] = set()
        channel = workflow.listen(topic)
        while len(seen) < count:
            chosen, message = await workflow.select(channel, workflow.after(pause))
            if chosen is channel:
                seen.add(message["name"])
        return sorted(seen)

    async def send(self, target: str, topic: str, count: int) -> str:
        sent = 0
        try:
            for number in range(count):
                await workflow.send(target, topic, {"name": f"extra-{number}"})
                sent += 1
        except errors.NotFound:
            return TARGET_IS_GONE
        return f"sent {sent}"

    async def updates(self, count: int) -> list[str]:
        await workflow.wait_condition(lambda: len(set(self.added)) >= count)
        return sorted(set(self.added))

    async def child(self, id: str, parts: list[Part]) -> list[Any]:
        return await workflow.execute(play, Program(parts), id=id)

    async def leave(self, id: str, parts: list[Part], policy: str) -> str:
        await workflow.start(play, Program(parts), id=id, parent_close_policy=policy)
        return "left"

    async def twin(self, id: str) -> str:
        """Start a child under an id that is taken."""
        child = await workflow.start(play, Program([["nap", 300.0]]), id=id)
        second = await workflow.start(play, Program([]), id=id, id_conflict_policy="fail")
        try:
            await second
        except errors.ChildFailed:
            await child.terminate("enough")
            return "refused"
        return "?"

    async def hear(self, id: str, parts: list[Part]) -> str:
        """Start a child and read of its end among the events."""
        await workflow.start(play, Program(parts), id=id)
        return f"{await self.next_notice(id, 0)} of {id}"

    async def end_other(self, id: str) -> str:
        """Start an endless child, cancel it, and hear of its end."""
        child = await workflow.start(play, Program([["nap", 1_000.0]]), id=id)
        await workflow.sleep(0.3)
        await child.cancel("the parent says so")
        try:
            await child
        except errors.ChildFailed:
            return "ended"
        return "?"

    async def clean_up(self, tag: str) -> str:
        """Wait to be cancelled, then clean up."""
        try:
            await workflow.sleep(100_000)
        finally:
            await work(tag, 0.05)
        return "?"

    async def stubborn(self, tag: str, seconds: float) -> str:
        """Go on in spite of a cancel."""
        try:
            await workflow.sleep(seconds)
        except asyncio.CancelledError:
            await workflow.sleep(seconds)
            return f"{tag} went on"
        return f"{tag} was not cancelled"

    async def fail(self, message: str) -> str:
        raise errors.ApplicationError(message)

    async def bug(self) -> str:
        raise ZeroDivisionError("a bug")

    async def poisoned(self, tag: str) -> str:
        return await poison(tag)


async def _failing(call: Any) -> str:
    try:
        return await call
    except errors.ActivityFailed:
        return "failed"


@workflow.define
async def play(program: Program) -> list[Any]:
    """Run a program; its result is the list of what its parts came to."""
    return await _Player(program).run()


DEFINITIONS = [play, *ACTIVITIES]


# -- what must come of it --------------------------------------------------------------------------


_EXPECTED: dict[str, Callable[..., Any]] = {
    "step": lambda tag, _: f"did {tag}",
    "book": lambda tag, _: f"booked {tag}",
    "by_name": lambda tag: f"did {tag}",
    "flaky": lambda tag, _: f"did {tag} at last",
    "doomed": lambda *_: "failed",
    "fatal": lambda *_: "failed",
    "beating": lambda tag, _: f"beat {tag}",
    "slow": lambda *_: "failed",
    "late": lambda *_: "late",
    "race": lambda tag, *_: AnyOf({f"did {tag}", "late"}),
    "nap": lambda _: True,
    "chance": lambda tag: tag,
    "gather": lambda parts: [expected(part) for part in parts],
    "group": lambda parts: [expected(part) for part in parts],
    "spawned": lambda flag, _: f"flag {flag}",
    "impatient": lambda _: "never",
    "receive": lambda topic, count: sorted(f"{topic}-{n}" for n in range(count)),
    "receive_or_nap": lambda topic, count, _: sorted(f"{topic}-{n}" for n in range(count)),
    "send": lambda _, __, count: AnyOf({TARGET_IS_GONE, f"sent {count}"}),
    "updates": lambda count: sorted(f"u{n}" for n in range(count)),
    "child": lambda _, parts: results(parts),
    "leave": lambda *_: "left",
    "twin": lambda _: "refused",
    "hear": lambda child, _: f"exit of {child}",
    "end_other": lambda _: "ended",
    "stubborn": lambda tag, _: AnyOf({f"{tag} went on", f"{tag} was not cancelled"}),
}


def expected(part: Part) -> Any:
    """Return what a part must come to."""
    return _EXPECTED[part[0]](*part[1:])


def results(parts: list[Part]) -> list[Any]:
    """Return what a program must come to."""
    return [expected(part) for part in parts if part[0] != "continue"]


_EXPECTED.update(expectations(results))


def fits(actual: Any, wanted: Any) -> bool:
    """Tell whether a result is right."""
    if isinstance(wanted, AnyOf):
        return any(fits(actual, each) for each in wanted)
    if isinstance(wanted, list):
        return (
            isinstance(actual, list)
            and len(actual) == len(wanted)
            and all(map(fits, actual, wanted))
        )
    return bool(actual == wanted)
