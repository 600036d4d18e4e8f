"""What runs in a subprocess: one attempt after the other, until the engine says so or is gone.

Theory of operation
-------------------
The engine's end of a socket pair is all that a subprocess has of it: it comes as standard input.
One thread reads frames from it; where it ends, the engine is dead, and the process group ends at
once, whatever it does: another worker has taken the run over, or will. Another thread sends a pulse
every interval, so that a long computation is not taken for a hang. The main thread has an event
loop for async handlers; a plain one gets a thread, so that frames and pulses go on beside it.

Standard output and standard error are the engine's. Python's logging goes to the engine, which
hands records on to its own loggers.
"""

from __future__ import annotations

import asyncio
import contextvars
import ctypes
import functools
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from importlib import import_module
from typing import Any, NoReturn, Protocol, TypeVar

import msgspec

from perdure import activity, spending
from perdure.engine.processes import frames, services
from perdure.engine.threads import Raised
from perdure.values import failures, lines, payload
from perdure.values.budgets import ONE_CALL

T = TypeVar("T")

_PR_SET_PDEATHSIG = 1
_CHUNK = 1 << 18
_read_info = msgspec.json.Decoder(activity.Info).decode
_LOCAL = threading.local()


class _Loader(Protocol):
    def __call__(self, payload: bytes) -> activity.Activity[Any, Any]: ...


class Wire:
    """The socket to the engine; ``send`` may be called from any thread."""

    def __init__(self, stream: socket.socket) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._reader = frames.Reader()
        self._ready: list[bytes] = []

    def send(self, frame: frames.FromChild) -> None:
        """Send a frame; nobody is left to hear it once the engine is gone."""
        data = frames.encode(frame)
        try:
            with self._lock:
                self._stream.sendall(data)
        except OSError:
            _die()

    def receive(self) -> frames.ToChild:
        """Return the next frame; the process ends when there is none any more."""
        while not self._ready:
            try:
                data = self._stream.recv(_CHUNK)
            except OSError:
                data = b""
            if not data:
                _die()
            self._ready.extend(self._reader.feed(data))
        return frames.read_to_child(self._ready.pop(0))


class Child:
    """The subprocess's side of the pool."""

    def __init__(self, wire: Wire, setup: frames.Setup) -> None:
        self._wire = wire
        self._setup = setup
        self._services: Mapping[str, Any] | None = None
        self._task: asyncio.Task[None] | None = None
        self._number = 0
        self._is_cancelled = False
        self._left = asyncio.Event()
        self._asked: dict[int, asyncio.Future[str]] = {}
        self._asks = 0

    async def serve(self) -> None:
        """Run what the engine asks for until it says that this is all."""
        loop = asyncio.get_running_loop()
        threading.Thread(
            target=self._listen, args=(loop,), name="perdure-wire", daemon=True
        ).start()
        threading.Thread(target=self._beat, name="perdure-pulse", daemon=True).start()
        await self._left.wait()

    # -- threads -----------------------------------------------------------------------------

    def _listen(self, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            loop.call_soon_threadsafe(self._heard, self._wire.receive())

    def _beat(self) -> None:
        pause = threading.Event()
        while True:
            self._wire.send(frames.Pulse())
            pause.wait(self._setup.interval)

    # -- in the loop -------------------------------------------------------------------------

    def _heard(self, frame: frames.ToChild) -> None:
        if isinstance(frame, frames.Call):
            self._number, self._is_cancelled = frame.number, False
            self._task = asyncio.get_running_loop().create_task(self._attempt(frame))
        elif isinstance(frame, frames.Answered):
            self._answered(frame)
        elif isinstance(frame, frames.Cancel):
            if frame.number == self._number and self._task is not None:
                self._is_cancelled = True
                self._task.cancel()
        elif isinstance(frame, frames.Leave):
            self._left.set()

    async def _attempt(self, call: frames.Call) -> None:
        try:
            result = await self._run(call)
        except asyncio.CancelledError:
            text = "the activity was cancelled" if self._is_cancelled else _CANCELLED_ITSELF
            self._failed(failures.FailureInfo(text, "Canceled", "CancelledError"))
        except Raised as raised:
            self._failed(failures.from_exception(raised.error))
        except BaseException as exc:  # noqa: BLE001 - it is the handler's, and ends the attempt only
            self._failed(failures.from_exception(exc))
        else:
            self._wire.send(frames.Done(self._number, result))

    async def _run(self, call: frames.Call) -> bytes:
        if call.has_budget:
            purse = Purse(self, call.number)
            spending.purse.set(purse)
            await purse.spend(ONE_CALL, holds=False)
        definition = opened(call)
        if self._services is None:
            self._services = await services.built_elsewhere(self._setup.services, self._setup.main)
        attempt = activity.Attempt(
            lambda: _read_info(call.info),
            beat=functools.partial(self._beaten, call.number),
            context=call.context,
            services=self._services,
            log=functools.partial(self._log, call.number),
        )
        activity.running.set(attempt)
        args = definition.arguments.decode(call.args)
        self._wire.send(frames.Entered(self._number))
        if definition.is_async:
            result = await definition.fn(*args)
        else:
            result = await self._in_thread(definition.fn, args)
        data = payload.encode(result, what=definition.result_name)
        return payload.limit(data, self._setup.max_payload, what=definition.result_name)

    async def _in_thread(self, fn: Callable[..., Any], args: Sequence[Any]) -> Any:
        # A daemon: a function that hangs must not keep the process from its end.
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        context = contextvars.copy_context()

        def settle(result: Any, error: BaseException | None) -> None:
            if error is None:
                future.set_result(result)
            elif isinstance(error, asyncio.CancelledError):
                future.set_exception(error)
            else:
                future.set_exception(Raised(error))

        def work() -> None:
            try:
                result, error = context.run(fn, *args), None
            except BaseException as exc:  # noqa: BLE001 - it is the function's outcome
                result, error = None, exc
            loop.call_soon_threadsafe(settle, result, error)

        threading.Thread(target=work, name="perdure-activity", daemon=True).start()
        while not future.done():
            try:
                await asyncio.shield(future)
            except asyncio.CancelledError:
                # A thread cannot be stopped: if it does not end by itself, the process is ended.
                continue
            except Raised:
                break
        if self._is_cancelled:
            raise asyncio.CancelledError
        return future.result()

    # -- what the attempt asks ---------------------------------------------------------------

    async def ask(self, frame: frames.Spends | frames.Settles) -> str:
        """Ask the engine to spend, or to settle; return what it is reserved under.

        Raises:
            PerdureError: it could not be.
        """
        self._asks += 1
        frame.ask = self._asks
        future = self._asked[frame.ask] = asyncio.get_running_loop().create_future()
        self._wire.send(frame)
        return await future

    def _answered(self, frame: frames.Answered) -> None:
        future = self._asked.pop(frame.ask)
        if future.done():
            return  # it was cancelled meanwhile
        if frame.failure is None:
            future.set_result(frame.hold)
        else:
            future.set_exception(failures.to_exception(frame.failure))

    # -- what the attempt says ---------------------------------------------------------------

    # By number: a task that an attempt leaves behind must not speak for the next one.

    def _beaten(self, number: int, details: Any) -> None:
        data = None if details is None else payload.encode(details, what="heartbeat details")
        self._wire.send(frames.Beaten(number, data))

    def _log(self, number: int, line: lines.Line) -> None:
        self._wire.send(frames.Logged(number, line))

    def _failed(self, failure: failures.FailureInfo) -> None:
        self._wire.send(frames.Failed(self._number, failure))


class Purse:
    """The budgets of an attempt's run, which the engine keeps (``perdure.spending``)."""

    def __init__(self, child: Child, number: int) -> None:
        self._child = child
        self._number = number
        self._loop = asyncio.get_running_loop()

    async def spend(self, amounts: Mapping[str, int], *, holds: bool) -> str:
        return await self._child.ask(frames.Spends(self._number, 0, dict(amounts), holds))

    async def settle(self, hold: str, used: Mapping[str, int]) -> None:
        await self._child.ask(frames.Settles(self._number, 0, hold, dict(used)))

    def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()


def opened(call: frames.Call) -> activity.Activity[Any, Any]:
    """Return the activity that a call is of, made in this process.

    Raises:
        DefinitionError: its module cannot be imported here, or does not have it.
    """
    module, _, name = call.opener.partition(":")
    opener: _Loader = getattr(import_module(module), name)
    return opener(call.payload)


class _ToEngine(logging.Handler):
    """Sends records to the engine's loggers."""

    def __init__(self, wire: Wire) -> None:
        super().__init__()
        self._wire = wire

    def emit(self, record: logging.LogRecord) -> None:
        # What sending a record logs (nothing does today) must not be sent in turn.
        if getattr(_LOCAL, "is_sending", False):
            return
        _LOCAL.is_sending = True
        try:
            text = self.format(record)
            line = lines.make(record.levelno, text)
            self._wire.send(frames.Told(record.name, line))
        except Exception:  # noqa: BLE001 - logging's own way to treat a record that has no text
            self.handleError(record)
        finally:
            _LOCAL.is_sending = False


def main() -> None:
    """Be a subprocess of an engine."""
    stream = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    wire = Wire(stream)
    setup = wire.receive()
    assert isinstance(setup, frames.Setup)
    _end_with(setup.engine)
    sys.path[:] = setup.path
    sys.argv[:] = setup.argv
    root = logging.getLogger()
    root.addHandler(_ToEngine(wire))
    root.setLevel(setup.level)
    asyncio.run(Child(wire, setup).serve())


def _end_with(engine: int) -> None:
    """Let the kernel end this process with the engine, where it can: also while C code holds it."""
    if sys.platform == "linux":
        try:
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        except (OSError, AttributeError):
            pass  # the end of the socket says so too, if not to C code that holds the interpreter
    if os.getppid() != engine:
        _die()


def _die() -> NoReturn:
    """End at once, with whatever the handler started: the session is this process's own."""
    if os.getpgid(0) == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


_CANCELLED_ITSELF = "the activity cancelled itself"
