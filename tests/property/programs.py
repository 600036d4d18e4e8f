"""Random small workflows: a tree of steps as plain data, and the workflow that carries it out.

The tree is the workflow's input, so that a failing example shows the whole program. What happens is
kept in a log, which is the result: two runs that did the same in another order differ.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

from hypothesis import strategies as st

from perdure import ApplicationError, errors, workflow
from perdure.workflow import Channel, after, call, select

ACTIVITIES = ("a", "b", "c")
TOPICS = ("t0", "t1", "other")
CHANNELS = 2
SINGLE = (
    "inbox",
    "bump",
    "draw",
    "progress",
    "notify",
    "notified",
    "release",
    "collect",
    "collect",
    "notice",
    "set",
    "await_set",
    "again",
    "yield",
)

Node = list[Any]


def nodes_within(inner: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    """Return steps made of other steps."""
    some = st.lists(inner, min_size=1, max_size=3)
    seconds = st.integers(0, 9)
    return st.one_of(
        st.tuples(st.sampled_from(["seq", "gather", "group", "wait", "as_completed"]), some),
        st.tuples(st.sampled_from(["spawn", "task", "shield", "lock", "gate", "saga"]), inner),
        st.tuples(st.sampled_from(["timeout", "wait_for", "limit"]), seconds, inner),
        st.tuples(st.sampled_from(["finally", "except", "branch", "patched"]), inner, inner),
        st.tuples(st.just("agen"), inner, st.integers(1, 3)),
    ).map(list)


acts = st.tuples(st.just("act"), st.sampled_from(ACTIVITIES))
leaves = st.one_of(
    acts,
    acts,
    acts,
    st.tuples(st.sampled_from(["sleep", "asleep"]), st.integers(0, 9)),
    st.tuples(st.sampled_from(["put", "close"]), st.integers(0, CHANNELS - 1)),
    st.tuples(st.just("receive"), st.integers(0, CHANNELS - 1), st.none() | st.integers(0, 5)),
    st.tuples(st.just("select"), st.integers(0, 6)),
    st.tuples(st.just("listen"), st.sampled_from(TOPICS), st.none() | st.integers(0, 5)),
    st.tuples(st.sampled_from(["cancel", "join"]), st.integers(0, 5)),
    st.tuples(st.just("reach"), st.integers(1, 3), st.none() | st.integers(0, 5)),
    st.tuples(st.sampled_from(["execute", "start", "send", "raise", "version"]), st.integers(0, 2)),
    st.sampled_from(SINGLE).map(lambda kind: (kind,)),
).map(list)

programs = st.lists(st.recursive(leaves, nodes_within, max_leaves=10), min_size=2, max_size=6)


def telling(program: list[Node], chance: random.Random) -> list[Node]:
    """Return the program with calls of ``emit`` and ``progress`` strewn in."""
    told: list[Node] = []
    for node in program:
        if chance.random() < 0.5:
            told.append([chance.choice(["emit", "progress"])])
        told.append(["seq", telling(node[1], chance)] if node[0] == "seq" else node)
    return told


class Machine:
    """What the steps of one run share."""

    def __init__(self) -> None:
        self.log: list[Any] = []
        self.channels: list[Channel[Any]] = [Channel(0), Channel(1)]
        self.tasks: list[asyncio.Task[Any]] = []
        self.lock = asyncio.Lock()
        self.gate = asyncio.Semaphore(2)
        self.event = asyncio.Event()
        self.condition = asyncio.Condition()
        self.count = 0
        self.children = 0

    async def run(self, node: Node) -> None:
        """Carry out one step, and log what came of it."""
        kind, *rest = node
        self.log.append(kind)
        try:
            got = await getattr(self, f"do_{kind}")(*rest)
        except BaseException as exc:
            self.log.append([kind, type(exc).__name__])
            raise
        if got is not None:
            self.log.append([kind, got])

    # -- steps made of steps -----------------------------------------------------------------

    async def do_seq(self, parts: list[Node]) -> None:
        for part in parts:
            await self.run(part)

    async def do_gather(self, parts: list[Node]) -> None:
        await asyncio.gather(*(self.run(part) for part in parts))

    async def do_group(self, parts: list[Node]) -> None:
        async with asyncio.TaskGroup() as group:
            for part in parts:
                group.create_task(self.run(part))

    async def do_wait(self, parts: list[Node]) -> list[int]:
        tasks = [asyncio.create_task(self.run(part)) for part in parts]
        self.tasks += tasks
        done, pending = await asyncio.wait(tasks, timeout=3, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            if not task.cancelled():
                task.exception()
        return [tasks.index(task) for task in (*done, *pending)]

    async def do_as_completed(self, parts: list[Node]) -> None:
        for number, one in enumerate(asyncio.as_completed([self.run(part) for part in parts])):
            await one
            self.log.append(number)

    async def do_spawn(self, part: Node) -> None:
        fails = part[0] == "raise"
        self.tasks.append(workflow.spawn(self.run(part) if fails else self.guarded(part)))

    async def do_task(self, part: Node) -> None:
        self.tasks.append(asyncio.create_task(self.guarded(part)))

    async def guarded(self, part: Node) -> None:
        try:
            await self.run(part)
        except Exception as exc:
            self.log.append(["guarded", type(exc).__name__])

    async def do_shield(self, part: Node) -> None:
        await asyncio.shield(self.guarded(part))

    async def do_lock(self, part: Node) -> None:
        async with self.lock:
            await self.run(part)

    async def do_gate(self, part: Node) -> None:
        async with self.gate:
            await self.run(part)

    async def do_saga(self, part: Node) -> None:
        async with workflow.saga() as saga:
            saga.add(call, "undo")
            await self.run(part)

    async def do_timeout(self, seconds: int, part: Node) -> None:
        async with asyncio.timeout(seconds):
            await self.run(part)

    async def do_wait_for(self, seconds: int, part: Node) -> None:
        await asyncio.wait_for(self.run(part), seconds)

    async def do_limit(self, seconds: int, part: Node) -> None:
        try:
            async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
                group.create_task(self.run(part))
        except* Exception as caught:
            self.log.append(len(caught.exceptions))
        await call("a")

    async def do_finally(self, part: Node, cleanup: Node) -> None:
        try:
            await self.run(part)
        finally:
            await self.run(cleanup)

    async def do_except(self, part: Node, instead: Node) -> None:
        try:
            await self.run(part)
        except (Exception, asyncio.CancelledError):
            await self.run(instead)

    async def do_branch(self, one: Node, other: Node) -> None:
        await self.run(one if workflow.random() < 0.5 else other)

    async def do_patched(self, new: Node, old: Node) -> None:
        await self.run(new if workflow.patched(f"patch-{new[0]}") else old)

    async def do_agen(self, part: Node, times: int) -> None:
        async def steps() -> AsyncIterator[int]:
            try:
                while True:
                    await self.run(part)
                    yield times
            finally:
                self.log.append("left")

        async for _ in steps():
            break

    # -- single steps ------------------------------------------------------------------------

    async def do_act(self, name: str) -> Any:
        return await call(name, len(self.log))

    async def do_sleep(self, seconds: int) -> None:
        await workflow.sleep(seconds)

    async def do_asleep(self, seconds: int) -> float:
        await asyncio.sleep(seconds)  # sleep: durable inside a workflow
        return asyncio.get_running_loop().time()

    async def do_put(self, number: int) -> None:
        await self.channels[number].send(len(self.log))

    async def do_close(self, number: int) -> None:
        self.channels[number].close()

    async def do_receive(self, number: int, timeout: int | None) -> Any:
        return await self.channels[number].receive(timeout)

    async def do_select(self, seconds: int) -> Any:
        moment = after(seconds)
        sources = [*self.channels, moment]
        chosen, value = await select(*sources)
        return [sources.index(chosen), value]

    async def do_listen(self, topic: str, timeout: int | None) -> Any:
        return await workflow.listen(topic).receive(timeout)

    async def do_inbox(self) -> Any:
        got = await workflow.inbox().receive(timeout=7)
        return [got.topic, got.payload, got.sender]

    async def do_cancel(self, number: int) -> None:
        if self.tasks:
            self.tasks[number % len(self.tasks)].cancel()

    async def do_join(self, number: int) -> None:
        task = self.tasks[number % len(self.tasks)] if self.tasks else None
        if task is not None and task is not asyncio.current_task():
            async with asyncio.timeout(5):
                await asyncio.shield(task)

    async def do_reach(self, count: int, timeout: int | None) -> None:
        await workflow.wait_condition(lambda: self.count >= count, timeout)

    async def do_bump(self) -> int:
        self.count += 1
        return self.count

    async def do_execute(self, number: int) -> Any:
        return await workflow.execute("child", number)

    async def do_start(self, number: int) -> Any:
        self.children += 1
        child = await workflow.start("child", number, id=f"child-{self.children}")
        return child.id

    async def do_notice(self) -> Any:
        notice = await workflow.events().receive(timeout=4)
        return [notice.sender, notice.result, notice.error and notice.error.kind]

    async def do_send(self, number: int) -> None:
        await workflow.send(f"order-{number}", "hello", number)

    async def do_raise(self, number: int) -> None:
        raise ApplicationError(f"raised {number}", kind="Raised")

    async def do_version(self, number: int) -> int:
        return workflow.version(f"change-{number}", 1, 3)

    async def do_draw(self) -> Any:
        return [workflow.random(), str(workflow.uuid4()), workflow.now().timestamp()]

    async def do_progress(self) -> int:
        await workflow.progress(self.count, note="so far")
        return workflow.history_length()

    async def do_emit(self) -> None:
        """Not among the steps that are drawn: put between them, it changes nothing."""
        await workflow.emit("here", {"events": workflow.history_length()})

    async def do_notify(self) -> None:
        async with self.condition:
            self.condition.notify()

    async def do_notified(self) -> None:
        async with self.condition, asyncio.timeout(3):
            await self.condition.wait()

    async def do_release(self) -> None:
        self.gate.release()

    async def do_collect(self) -> list[Any]:
        others = [task for task in self.tasks[:3] if task is not asyncio.current_task()]
        async with asyncio.timeout(4):
            got = await asyncio.shield(asyncio.gather(*others, return_exceptions=True))
        return [type(one).__name__ for one in got]

    async def do_set(self) -> None:
        self.event.set()

    async def do_await_set(self) -> None:
        async with asyncio.timeout(6):
            await self.event.wait()

    async def do_yield(self) -> None:
        await workflow.sleep(0)

    async def do_again(self) -> None:
        if self.count:
            await workflow.continue_as_new(self.count)


@workflow.define
async def interpret(program: list[Any]) -> list[Any]:
    """Carry out a program; its failures are logged, its end is the log."""
    machine = Machine()

    @workflow.query("log")
    def log() -> list[Any]:
        return machine.log

    @workflow.update("step")
    async def step(part: list[Any]) -> int:
        await machine.run(part)
        return len(machine.log)

    for part in program:
        try:
            await machine.run(part)
        except (Exception, errors.PerdureError) as exc:
            machine.log.append(["main", type(exc).__name__])
    return machine.log
