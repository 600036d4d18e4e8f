"""Parts of programs that have to do with other executions: children, watches, messages, terms.

A mixin of the player in ``programs.py``, and what each part must come to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Self

import msgspec

from perdure import errors, workflow
from perdure.values.retry import Retry

Part = list[Any]
GONE = "gone"
FALL = "I fall"


class Program(msgspec.Struct):
    """What to do, what came of the parts before a continue-as-new, and what updates brought."""

    parts: list[Part]
    done: list[Any] = []


class AnyOf(tuple[Any, ...]):
    """Results of which any is right."""

    __slots__ = ()

    def __new__(cls, results: Iterable[Any]) -> Self:
        return super().__new__(cls, results)


class Relations:
    """See the module's text. Children play by name: the player's definition comes later."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.heard: dict[str, list[str]] = {}
        self.is_asked_to_end = False
        self._is_listening = False

    async def _listen(self) -> None:
        async for notice in workflow.events():
            if notice.kind == "cancel_requested":
                self.is_asked_to_end = True
            else:
                self.heard.setdefault(notice.sender, []).append(notice.kind)

    def listen(self) -> None:
        """Take notices from here on."""
        if not self._is_listening:
            self._is_listening = True
            workflow.spawn(self._listen())

    async def next_notice(self, id: str, before: int, timeout: float | None = None) -> str:
        """Return the kind of the next notice of an execution after the first ``before``."""
        self.listen()
        await workflow.wait_condition(lambda: len(self.heard.get(id, ())) > before, timeout)
        got = self.heard[id][before:]
        return got[0] if len(got) == 1 else f"{len(got)} notices"

    def count(self, id: str) -> int:
        """Return how many notices of an execution have come."""
        return len(self.heard.get(id, ()))

    # messages

    async def echo(self, tag: str, count: int) -> list[int]:
        """Send back what comes."""
        got: list[int] = []
        async for message in workflow.listen(f"ping-{tag}", message=True):
            got.append(message.payload)
            try:
                await message.reply(f"pong-{tag}", message.payload)
            except errors.NotFound:
                pass  # whoever asked was ended
            if len(got) == count:
                break
        return got

    async def converse(self, id: str, tag: str, count: int, at_once: bool) -> list[int]:
        """Send a child messages, and take its answers."""
        child = await workflow.start("play", Program([["echo", tag, count]]), id=id)
        answers = workflow.listen(f"pong-{tag}")
        if at_once:
            await asyncio.gather(*[child.send(f"ping-{tag}", n) for n in range(count)])
        got: list[int] = []
        for number in range(count):
            if not at_once:
                await child.send(f"ping-{tag}", number)
            got.append(await answers.receive())
        (read,) = await child
        return got if read == got else [-1, *read]

    async def serve(self, count: int) -> list[str]:
        """Answer questions from mailboxes until so many different ones have come."""
        names: set[str] = set()
        async for message in workflow.listen("ask", message=True):
            await message.reply("answer", message.payload)
            names.add(message.payload["name"])
            if len(names) == count:
                break
        return sorted(names)

    # children

    async def share(self, id: str, parts: list[Part]) -> Any:
        """Use the execution that is there already, or start it."""
        try:
            return ["shared", await workflow.execute("play", Program(parts), id=id)]
        except errors.ChildFailed:
            return "ended"

    async def replace(self, id: str, parts: list[Part], pause: float) -> Any:
        """Start a child in the place of another."""
        first = await workflow.start("play", Program([["nap", 900.0]]), id=id)
        if pause:
            await workflow.sleep(pause)
        second = await workflow.start(
            "play", Program(parts), id=id, id_conflict_policy="terminate_existing"
        )
        try:
            await first
        except errors.ChildFailed:
            return await second
        return "?"

    async def again(self, id: str, tag: str, attempts: int) -> Any:
        """A child that is run again when it fails."""
        retry = Retry(max_attempts=attempts, interval="200ms", backoff=1)
        parts = [["until", tag, attempts]]
        return await workflow.execute("play", Program(parts), id=id, retry=retry)

    async def until(self, tag: str, attempts: int) -> str:
        """Fail in all attempts of this run but the last."""
        await workflow.call("work", tag, 0.01)
        if workflow.info().attempt < attempts:
            raise errors.ApplicationError(f"{tag} at first")
        return f"{tag} in attempt {workflow.info().attempt}"

    async def late_child(self, id: str) -> str:
        """A child that runs out of time."""
        try:
            await workflow.execute("play", Program([["nap", 900.0]]), id=id, run_timeout="400ms")
        except errors.ChildFailed as exc:
            return f"out of time: {exc.kind}"
        return "?"

    async def delayed_child(self, id: str, seconds: float) -> bool:
        """A child that begins later."""
        begun = workflow.now()
        await workflow.execute("play", Program([]), id=id, start_delay=seconds)
        return (workflow.now() - begun).total_seconds() >= seconds

    async def defied(self, id: str) -> str:
        """Cancel a child that does not obey, with a deadline."""
        child = await workflow.start("play", Program([["defy"]]), id=id)
        await workflow.sleep(0.3)
        await child.cancel("the parent says so", deadline="500ms")
        try:
            await child
        except errors.ChildFailed:
            return "ended"
        return "?"

    async def defy(self) -> str:
        while True:
            try:
                await workflow.sleep(900)
            except asyncio.CancelledError:
                pass

    async def asked(self, id: str) -> Any:
        """Cancel a child that takes a cancel as a notice."""
        child = await workflow.start("play", Program([["mind", f"ready-{id}"]]), id=id)
        await workflow.listen(f"ready-{id}").receive()
        await child.cancel("please")
        return await child

    async def mind(self, topic: str) -> str:
        workflow.trap_cancel(True)
        self.listen()
        await workflow.send(workflow.info().parent_workflow_id, topic)
        await workflow.wait_condition(lambda: self.is_asked_to_end)
        return "asked to end"

    async def pull(self, id: str, how: str) -> str:
        """Link a child that outlives this run, and fail."""
        parts = {"endured": [["endure", f"ready-{id}"]], "spared": [["nap", 1.5]]}
        program = Program(parts.get(how, [["nap", 900.0]]))
        child = await workflow.start("play", program, id=id, parent_close_policy="abandon")
        if how == "endured":
            await workflow.listen(f"ready-{id}").receive()
        await workflow.link(child)
        if how == "spared":
            await workflow.unlink(child)
        raise errors.ApplicationError(FALL)

    async def endure(self, topic: str) -> str:
        """Take the end of whoever links itself as a notice."""
        workflow.trap_links(True)
        parent = workflow.info().parent_workflow_id
        assert parent is not None
        await workflow.send(parent, topic)
        return await self.next_notice(parent, 0)

    # watches of executions that are no children

    async def monitor(self, id: str) -> str:
        before = self.count(id)
        try:
            await workflow.monitor(id)
        except errors.NotFound:
            return GONE
        return await self.next_notice(id, before)

    async def monitor_on(self, id: str) -> str:
        """Monitor; a later run of this execution hears of it (``hear_of``)."""
        try:
            await workflow.monitor(id)
        except errors.NotFound:
            return GONE
        return "set"

    async def hear_of(self, id: str) -> str:
        """What came in the turn in which the run before ended was not heard by any code."""
        if self.program.done[-1] == GONE:
            return GONE
        try:
            return await self.next_notice(id, 0, 30.0)
        except TimeoutError:
            return "missed"

    async def fickle(self, id: str) -> str:
        """Monitor, and take it back."""
        self.listen()
        try:
            await workflow.monitor(id)
        except errors.NotFound:
            return GONE
        await asyncio.sleep(0)  # sleep: the listener takes what came with the answer
        await asyncio.sleep(0)  # sleep: the same
        before = self.count(id)
        await workflow.unmonitor(id)
        await workflow.sleep(0.4)
        return "dropped" if self.count(id) == before else "a notice came"

    async def await_end(self, id: str) -> str:
        try:
            await workflow.handle(id)
        except errors.NotFound:
            return GONE
        except errors.Failure:
            return "bad"
        return "good"

    async def linked(self, id: str, traps: bool) -> str:
        workflow.trap_links(traps)
        before = self.count(id)
        try:
            await workflow.link(id)
            return await self.next_notice(id, before)
        except errors.NotFound:
            return GONE
        except errors.LinkedRunFailed:
            return "broken"
        finally:
            workflow.trap_links(False)


def expectations(results: Callable[[list[Part]], list[Any]]) -> dict[str, Callable[..., Any]]:
    """Return what the parts must come to; ``results`` says it of a program."""
    return {
        "echo": lambda _, count: list(range(count)),
        "converse": lambda _, __, count, ___: list(range(count)),
        "serve": lambda count: sorted(f"q{n}" for n in range(count)),
        "share": lambda _, parts: AnyOf(["ended", ["shared", results(parts)]]),
        "replace": lambda _, parts, __: results(parts),
        "again": lambda _, tag, attempts: [f"{tag} in attempt {attempts}"],
        "until": lambda tag, attempts: f"{tag} in attempt {attempts}",
        "late_child": lambda _: "out of time: Timeout",
        "delayed_child": lambda *_: True,
        "defied": lambda _: "ended",
        "asked": lambda _: ["asked to end"],
        "mind": lambda _: "asked to end",
        "endure": lambda _: "link_down",
        "monitor": lambda _: AnyOf([GONE, "exit"]),
        "monitor_on": lambda _: AnyOf([GONE, "set"]),
        "hear_of": lambda _: AnyOf([GONE, "exit", "missed"]),
        "fickle": lambda _: AnyOf([GONE, "dropped"]),
        "await_end": lambda _: AnyOf([GONE, "good", "bad"]),
        "linked": lambda _, traps: AnyOf([GONE, "exit", "link_down" if traps else "broken"]),
    }
