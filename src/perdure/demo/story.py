"""Kills the worker of an order in the middle of a step, and checks that the order does not notice.

Two witnesses are heard: the history in the database, and the effects log, which the steps write
themselves and Perdure knows nothing of. Each claim is checked against them; the caller shows which
hold.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from perdure import errors
from perdure.client import Client
from perdure.engine.clock import monotonic
from perdure.handle import Handle
from perdure.values.states import Status
from perdure.views import HistoryEvent

PROGRAM = "perdure.demo.orders"
ORDER = {"id": "A-1001", "total": 4200}
STEPS = ("reserve", "charge", "ship")
_PATIENCE_SECONDS = 15.0
_LOOK_SECONDS = 0.01


class Effect(msgspec.Struct, frozen=True):
    """One line of the effects log."""

    step: str
    order: str
    attempt: int
    pid: int
    key: str


class Step(msgspec.Struct, frozen=True):
    """What the witnesses say about a step.

    ``attempts`` and ``recorded`` are the history's count, the rest is the effects log's.
    """

    name: str
    recorded: int
    attempts: int
    effects: tuple[Effect, ...]

    @property
    def pids(self) -> tuple[int, ...]:
        """Which processes ran it, in order."""
        return tuple(effect.pid for effect in self.effects)

    @property
    def keys(self) -> tuple[str, ...]:
        """The different idempotency keys under which it ran."""
        return tuple(dict.fromkeys(effect.key for effect in self.effects))


class Claim(msgspec.Struct, frozen=True):
    """Something that must be true, and whether it is."""

    text: str
    holds: bool


class DemoFailed(errors.Failure):
    """The demonstration did not get to its end."""

    code = "demo.failed"


class Demo:
    """One performance in a folder. ``tell`` gets each sentence when it has become true."""

    def __init__(self, folder: Path, tell: Callable[[str], None]) -> None:
        self.database = folder / "perdure.db"
        self.effects_log = folder / "effects.log"
        self.claims: list[Claim] = []
        self.steps: list[Step] = []
        self.killed = 0
        self._folder = folder
        self._tell = tell
        self._workers: list[subprocess.Popen[bytes]] = []

    async def perform(self) -> None:
        """Play it from beginning to end; then ``steps`` and ``claims`` are filled.

        Raises:
            DemoFailed: something that should happen did not.
            Conflict: a worker still serves the database of an earlier performance.
        """
        await self._clear()
        try:
            await self._play()
        finally:
            for worker in self._workers:
                if worker.poll() is None:
                    worker.kill()
                worker.wait()

    # -- the play ----------------------------------------------------------------------------

    async def _play(self) -> None:
        first = await self._worker()
        self._tell(f"worker {first.pid} serves {PROGRAM} on {self.database}")
        async with Client(self._url) as client:
            order = await client.start("fulfil", ORDER, id=ORDER["id"])
            self._tell(f"order {order.id} is started, and was on disk before start() returned")
            await self._until(lambda: self._effects("charge"), "the charge began")
            first.send_signal(signal.SIGKILL)
            first.wait()
            self.killed = first.pid
            self._tell(f"worker {first.pid} is killed (SIGKILL) while the bank charges the card")
            cut_off = await order.history()
            self._tell(f"nobody runs it now, and anybody can ask why: {await order.why()}")
            second = await self._worker()
            await self._until(lambda: len(self._effects("charge")) > 1, "the charge was repeated")
            self._tell(
                f"worker {second.pid} has taken over; of what was done it repeats the charge alone"
            )
            await self._until_waiting(order)
            self._tell(f"the order waits for a person: {(await order.describe()).current_step}")
            await order.send("approval", {"by": "the demo"})
            result = await order.result(timeout=_PATIENCE_SECONDS)
            self._tell(f"approved, shipped, done: {msgspec.json.encode(result).decode()}")
            history, status = await order.history(), await order.status()
        second.send_signal(signal.SIGTERM)
        second.wait(timeout=_PATIENCE_SECONDS)
        self.steps = [self._step(name, history) for name in STEPS]
        self._check(cut_off, history, status, first.pid, second.pid)

    def _check(
        self,
        cut_off: Sequence[HistoryEvent],
        history: Sequence[HistoryEvent],
        status: Status,
        first: int,
        second: int,
    ) -> None:
        reserve, charge, ship = self.steps
        before = _outcomes(cut_off)
        lost = [event.data["attempt"] for event in history if event.kind == "attempt_lost"]
        self._claim(status is Status.COMPLETED, "the order was completed")
        self._claim(
            list(history[: len(cut_off)]) == list(cut_off), "what was recorded stayed as it was"
        )
        self._claim(before == ["reserve"], "at the kill one step was finished, and one in flight")
        self._claim(
            reserve.recorded == 1 and reserve.pids == (first,),
            "the finished step was not run again",
        )
        self._claim(
            charge.recorded == 1 and charge.pids == (first, second) and charge.attempts == 2,
            "the step in flight ran once more, in the other process, and was recorded once",
        )
        self._claim(lost == [1], "the attempt that was cut off is counted")
        self._claim(
            len(charge.keys) == 1,
            "both attempts had the same idempotency key: a bank that heeds it charges once",
        )
        self._claim(
            ship.recorded == 1 and ship.pids == (second,), "what came after the kill ran once"
        )

    def _claim(self, holds: bool, text: str) -> None:
        self.claims.append(Claim(text, holds))

    # -- the witnesses -----------------------------------------------------------------------

    def _effects(self, step: str) -> list[Effect]:
        """Return the complete lines of the effects log about a step."""
        if not self.effects_log.exists():
            return []
        whole = self.effects_log.read_text(encoding="utf-8").rpartition("\n")[0]
        effects = [msgspec.json.decode(line, type=Effect) for line in whole.splitlines()]
        return [effect for effect in effects if effect.step == step]

    def _step(self, name: str, history: Sequence[HistoryEvent]) -> Step:
        ids = {e.id for e in history if e.kind == "activity_scheduled" and e.data["name"] == name}
        outcomes = [
            e for e in history if e.kind == "activity_completed" and e.data["activity"] in ids
        ]
        attempts = max((event.data.get("attempt", 1) for event in outcomes), default=0)
        return Step(name, len(outcomes), attempts, tuple(self._effects(name)))

    # -- the stage ---------------------------------------------------------------------------

    @property
    def _url(self) -> str:
        return f"sqlite:///{self.database.resolve()}"

    async def _clear(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        if self.database.exists():
            await self._refuse_if_busy()
        for pattern in ("perdure.db*", "effects.log", "worker-*.log"):
            for left in self._folder.glob(pattern):
                left.unlink()

    async def _refuse_if_busy(self) -> None:
        try:
            async with Client(self._url, read_only=True) as client:
                live = [worker for worker in await client.workers() if worker.state == "live"]
        except errors.PerdureError:
            # What cannot be read is nobody's any more.
            return
        if live:
            raise errors.Conflict(
                f"worker pid {live[0].pid} serves {self.database} of an earlier demo; stop it first"
            )

    async def _worker(self) -> subprocess.Popen[bytes]:
        """Start `perdure dev` and wait until it serves."""
        log = self._folder / f"worker-{len(self._workers) + 1}.log"
        # -P: no folder of the user's can stand in for the package.
        command = [sys.executable, "-P", "-m", "perdure", "dev", PROGRAM, "--db", self._url]
        environment = {**os.environ, "ORDERS_EFFECTS": str(self.effects_log)}
        with log.open("wb") as stream:
            worker = subprocess.Popen(  # noqa: ASYNC220, S603 - our own command; takes a millisecond
                command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, env=environment
            )
        self._workers.append(worker)

        def is_ready() -> bool:
            said = log.read_text(encoding="utf-8", errors="replace")
            if worker.poll() is not None:
                raise DemoFailed(f"the worker ended at once, saying: {said}")
            return "\nready" in said

        await self._until(is_ready, "the worker was ready")
        return worker

    async def _until(self, happened: Callable[[], Any], what: str) -> None:
        deadline = monotonic() + _PATIENCE_SECONDS
        while not happened():
            if monotonic() > deadline:
                said = f"{self._folder}/worker-*.log"
                raise DemoFailed(f"{_PATIENCE_SECONDS:.0f} s went by before {what}; see {said}")
            await asyncio.sleep(_LOOK_SECONDS)

    async def _until_waiting(self, order: Handle[Any]) -> None:
        deadline = monotonic() + _PATIENCE_SECONDS
        while await order.status() is not Status.WAITING:
            if monotonic() > deadline:
                raise DemoFailed(f"the order does not come to its approval: {await order.why()}")
            await asyncio.sleep(_LOOK_SECONDS)


def _outcomes(history: Sequence[HistoryEvent]) -> list[str]:
    """Return the names of the activities whose outcome is recorded."""
    names = {e.id: e.data["name"] for e in history if e.kind == "activity_scheduled"}
    return [names[e.data["activity"]] for e in history if e.kind == "activity_completed"]
