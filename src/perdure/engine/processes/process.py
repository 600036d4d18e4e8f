"""One subprocess, as the engine sees it: its socket, its attempt, its end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from perdure import errors
from perdure.engine.processes import frames
from perdure.engine.work import FailedElsewhere
from perdure.spending import Purse
from perdure.values import failures
from perdure.values.failures import FailureInfo
from perdure.values.lines import Line

if TYPE_CHECKING:
    from perdure.engine.processes.pool import ProcessPool

_log = logging.getLogger("perdure.engine")
_CODE = "import sys; sys.path.insert(0, sys.argv[1]); from perdure._child import main; main()"
_COMMAND = [sys.executable, "-P", "-c", _CODE, str(Path(__file__).parents[3])]
"""The interpreter's own path need not lead to this package; the engine's comes with the setup."""
_LATE_SECONDS = 1.0


class Listener(Protocol):
    """Who hears what an attempt says of itself."""

    def begin(self) -> None:
        """The attempt was handed to a subprocess: what it does may have happened."""
        ...

    def beaten(self, details: bytes | None) -> None:
        """It sent a heartbeat."""
        ...

    def log(self, line: Line) -> None:
        """It logged a line."""
        ...

    def facts(self) -> dict[str, Any]:
        """Return what events about its process say of it."""
        ...


class Job:
    """An attempt on its way through a subprocess. ``entered``: its function was, or never will;
    ``purse``: of its run, if that has a budget.
    """

    def __init__(self, listener: Listener, purse: Purse | None = None) -> None:
        loop = asyncio.get_running_loop()
        self.listener = listener
        self.purse = purse
        self.entered: asyncio.Future[None] = loop.create_future()
        self.future: asyncio.Future[bytes] = loop.create_future()

    def enter(self) -> None:
        """The function is entered: from here on the attempt's time counts."""
        if not self.entered.done():
            self.entered.set_result(None)


class Subprocess(asyncio.Protocol):
    """See the module's text. ``over``: the process has ended, and all it said is read."""

    def __init__(self, pool: ProcessPool, setup: frames.Setup) -> None:
        self._loop = asyncio.get_running_loop()
        self._pool = pool
        self._reader = frames.Reader()
        self._transport: asyncio.Transport | None = None
        self._outgoing = [frames.encode(setup)]
        self._job: Job | None = None
        self._call: frames.Call | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._asks: set[asyncio.Task[None]] = set()
        self._reason = ""
        self._is_cut = False
        self._code: int | None = None
        self.missed = 0
        self.has_spoken = False
        self.over: asyncio.Future[None] = self._loop.create_future()
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                self._process = _spawn(theirs)
        except OSError as exc:
            ours.close()
            raise errors.Unavailable(f"no subprocess could be started: {exc}", cause=exc) from exc
        self.pid = self._process.pid
        ours.setblocking(False)
        self._opening = self._loop.create_task(self._open(ours))
        threading.Thread(target=self._wait, name=f"perdure-wait-{self.pid}", daemon=True).start()

    # -- what the pool asks ------------------------------------------------------------------

    def take(self, call: frames.Call, job: Job) -> None:
        """Run an attempt; the subprocess is idle."""
        assert self._job is None
        self._job, self._call = job, call
        job.listener.begin()
        self._send(call)

    def given_up(self, job: Job) -> None:
        """Nobody waits for an attempt any more: cancel it, and end the process if it goes on."""
        if self._job is not job or not job.future.cancelled() or self._call is None:
            return
        self._send(frames.Cancel(self._call.number))
        if not self._reason:
            self._later(self._pool.kill_grace, lambda: self.end("unresponsive"))

    def leave(self) -> None:
        """Let the process end in good order, if it is idle."""
        if self._job is None and not self._reason:
            self._reason = "left"
            self._send(frames.Leave())

    def hangs(self) -> None:
        """Nothing was heard for too long: end the process."""
        if self._reason in ("", "left"):
            self._tell("stale", "heartbeat")
            self.end("heartbeat")

    def end(self, reason: str) -> None:
        """End the process, whatever it does."""
        if self._reason not in ("", "left"):
            return
        self._reason = reason
        self._pool.is_leaving(self)
        self._signal(signal.SIGTERM)
        self._later(self._pool.kill_grace, lambda: self._signal(signal.SIGKILL))

    # -- the socket --------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(b"".join(self._outgoing))
        self._outgoing.clear()

    def data_received(self, data: bytes) -> None:
        self.missed, self.has_spoken = 0, True
        for frame in self._reader.feed(data):
            self._heard(frames.read_from_child(frame))

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_cut = True
        if self._code is None and self._reason in ("", "left"):
            # It closed the socket and lives on: nothing of it can be heard any more.
            self._later(_LATE_SECONDS, lambda: self.end("exited"))
        self._settle()

    async def _open(self, stream: socket.socket) -> None:
        await self._loop.create_connection(lambda: self, sock=stream)

    def _send(self, frame: frames.ToChild) -> None:
        data = frames.encode(frame)
        if self._transport is None:
            self._outgoing.append(data)
        elif not self._is_cut:
            self._transport.write(data)

    def _heard(self, frame: frames.FromChild) -> None:
        if isinstance(frame, frames.Pulse):
            return
        if isinstance(frame, frames.Told):
            logger = logging.getLogger(frame.logger)
            if logger.isEnabledFor(frame.line.level):
                logger.log(frame.line.level, "%s", frame.line.message)
            return
        job, call = self._job, self._call
        is_over = job is None or call is None or frame.number != call.number
        if isinstance(frame, frames.Spends | frames.Settles):
            purse = None if is_over or job is None else job.purse
            task = self._loop.create_task(self._pay(purse, frame))
            self._asks.add(task)
            task.add_done_callback(self._asks.discard)
            return
        if is_over or job is None:
            return
        if isinstance(frame, frames.Entered):
            job.enter()
        elif isinstance(frame, frames.Beaten):
            job.listener.beaten(frame.details)
        elif isinstance(frame, frames.Logged):
            job.listener.log(frame.line)
        else:
            self._job = self._call = None
            if not job.future.done():
                if isinstance(frame, frames.Done):
                    job.future.set_result(frame.result)
                else:
                    job.future.set_exception(FailedElsewhere(frame.failure))
            self._cancel_timer()
            if not self._reason:
                self._pool.is_free(self)

    async def _pay(self, purse: Purse | None, frame: frames.Spends | frames.Settles) -> None:
        """Spend or settle for an attempt, and tell it what came of it."""
        hold, failure = "", None
        try:
            if purse is None:
                raise errors.Closed("the attempt has ended, and spends nothing any more")
            if isinstance(frame, frames.Spends):
                hold = await purse.spend(frame.amounts, holds=frame.holds)
            else:
                await purse.settle(frame.hold, frame.used)
        except Exception as exc:  # noqa: BLE001 - whatever it is, the attempt gets it
            failure = failures.from_exception(exc)
        self._send(frames.Answered(frame.ask, hold, failure))

    # -- the end -----------------------------------------------------------------------------

    def _wait(self) -> None:
        """Wait for the process, in a thread: it may end at any time."""
        code = self._process.wait()
        try:
            self._loop.call_soon_threadsafe(self._exited, code)
        except RuntimeError:
            pass  # the loop is closed; nobody waits

    def _exited(self, code: int) -> None:
        self._code = code
        self._cancel_timer()
        self._pool.is_leaving(self)
        if not self._is_cut:
            # What it said before its end is still to be read; a process that it started, and that
            # has the socket too, must not keep the attempt.
            self._later(_LATE_SECONDS, self._cut)
        self._settle()

    def _cut(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _settle(self) -> None:
        """Once the process is gone and nothing more comes, its attempt is lost."""
        if not self._is_cut or self._code is None or self.over.done():
            return
        self._cancel_timer()
        job = self._job
        if job is not None:
            if not self._reason:
                self._reason = "exited"
                self._tell("stale", self._reason)
            if self._reason != "stopped":
                self._tell("killed", self._reason, code=self._code)
            if not job.future.done():
                job.future.set_exception(FailedElsewhere(self._loss()))
        elif self._reason not in ("left", "stopped"):
            _log.warning("idle subprocess %d %s", self.pid, _ending(self._code))
        self._job = self._call = None
        self.over.set_result(None)
        self._pool.is_over(self)

    def _loss(self) -> FailureInfo:
        why = {
            "heartbeat": f"gave no sign of life for {self._pool.watchdog.limit_seconds:g} s and ",
        }.get(self._reason, "")
        return FailureInfo(
            f"lost with its process: subprocess {self.pid} {why}{_ending(self._code or 0)}",
            kind=errors.Kind.WORKER_LOST,
            type="ProcessLost",
        )

    def _tell(self, event: str, reason: str, *, code: int | None = None) -> None:
        job = self._job
        ending = "" if code is None else f"; it {_ending(code)}"
        if job is None:
            _log.warning("idle subprocess %d is %s: %s%s", self.pid, event, reason, ending)
            return
        facts: dict[str, Any] = {**job.listener.facts(), "pid": self.pid, "reason": reason}
        if event == "stale":
            facts["timeout"] = self._pool.watchdog.limit_seconds
        elif code is not None:
            facts["exit_code"] = code
        _log.warning(
            "[%s] subprocess %d of %r is %s: %s%s",
            facts["instance_id"],
            self.pid,
            facts["activity"],
            event,
            reason,
            ending,
        )
        self._pool.tell(f"workflow.watchdog.{event}", facts)

    def _signal(self, number: signal.Signals) -> None:
        if self._process.returncode is None:
            try:
                os.killpg(self.pid, number)
            except ProcessLookupError:
                pass

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        self._cancel_timer()
        self._timer = self._loop.call_later(seconds, call)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _spawn(stream: socket.socket) -> subprocess.Popen[bytes]:
    # The socket is its standard input, so that nothing of what it is told stands in a list of
    # processes. In a session of its own, a terminal's Ctrl-C does not reach it, and whatever it
    # starts ends with it.
    return subprocess.Popen(_COMMAND, stdin=stream.fileno(), start_new_session=True)  # noqa: S603 - our own


def _ending(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
