"""Watches over turns: user code that never returns must not take the worker with it (R8).

A thread looks every so often at the turn that is under way. After ``warn_after`` it logs the frame
that holds the loop; at the limit it raises ``TurnTimeout`` in the loop's thread
(``PyThreadState_SetAsyncExc``), and the run is parked. While the loop is held the thread also
extends the lease in its place, up to the limit: a turn of nine seconds must not cost the lease.
Where C code holds on past the limit, the run is recorded as a suspect and the process ends.

Outside of turns the loop can be held too, by an async activity that blocks. The thread leaves a
callback in the loop now and then; one that is not answered within ``warn_after`` is reported with
the stack, and the lease is extended as for a turn. Nothing is interrupted: it is not a turn's code,
and at the limit another worker may take over.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable

from perdure import errors

_log = logging.getLogger("perdure.engine")
_LOOK_EVERY = 0.05
_SECOND = 1_000_000
_ASK_EVERY_LOOKS = 5


class TurnGuard:
    """Times activations. ``enter`` and ``leave`` are called by the loop's thread only."""

    def __init__(
        self,
        *,
        limit: float = 10.0,
        warn_after: float = 1.0,
        on_held: Callable[[], None] = lambda: None,
        on_stuck: Callable[[int], None] = lambda _run: None,
    ) -> None:
        self.limit = limit
        self._warn_after = warn_after
        self._on_held = on_held
        self._on_stuck = on_stuck
        self._lock = threading.Lock()
        self._what: object = ""
        self._run = 0
        self._since = 0.0
        self._limit = limit
        self._warned = False
        self._raised_at = 0.0
        self._has_arrived = False
        self._thread_id = 0
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_answered = True
        self._looks = 0
        self._held = 0.0
        self._is_told = False

    def start(self) -> None:
        """Start the watching thread; the loop it watches is the one that runs here."""
        self._thread_id = threading.get_ident()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._watch, name="perdure-guard", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the watching thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=1)

    def enter(self, what: object, run: int = 0, limit: int = 0) -> None:
        """A turn of ``what`` (run number ``run``) begins in this thread.

        ``what`` is written out only if there is something to say of it. ``limit``: microseconds
        this turn may take, if fewer than the guard's own.
        """
        self._thread_id = threading.get_ident()
        self._what = what
        self._run = run
        self._warned = False
        self._limit = min(limit / _SECOND, self.limit) if limit else self.limit
        self._since = time.monotonic()

    def leave(self) -> bool:
        """The turn is over. True if it was interrupted: its outcome must not be used."""
        with self._lock:
            self._since = 0.0
            interrupted = self._raised_at > 0
        if not interrupted:
            return False
        # The exception is on its way to this thread: take it here, not in the middle of the engine.
        try:
            self._await_interruption()
        except errors.TurnTimeout:
            pass
        self._raised_at, self._has_arrived = 0.0, False
        return True

    def _await_interruption(self) -> None:
        # A frame of its own: on CPython 3.13 the jump back of such a loop is outside the `try`
        # around it.
        deadline = time.monotonic() + 1
        while time.monotonic() < deadline and not self._has_arrived:
            pass

    def arrived(self) -> None:
        """The exception came out of the turn: ``leave`` need not wait for it."""
        with self._lock:
            self._has_arrived = self._raised_at > 0

    def _watch(self) -> None:
        while not self._stop.wait(_LOOK_EVERY):
            since = self._since
            if not since:
                self._watch_loop()
                continue
            held = time.monotonic() - since
            if held >= self._warn_after and not self._warned:
                self._warned = True
                _log.warning(
                    "a turn of %s has held the loop for %.1f s:\n%s",
                    self._what,
                    held,
                    self.held_stack(),
                )
            if held < self._limit:
                self._keep_lease()
            elif not self._raised_at:
                self._interrupt(since)
            elif held > 2 * self.limit:
                self._give_up()

    def _watch_loop(self) -> None:
        """Ask the loop for a sign of life, or see how long it has owed one."""
        if self._loop is None:
            return
        if self._is_answered:
            self._looks += 1
            if self._looks >= _ASK_EVERY_LOOKS:
                self._ask()
            return
        # Counted in looks: while the whole process was stopped, nobody held the loop.
        self._held += _LOOK_EVERY
        if self._held < self._warn_after:
            return
        if not self._is_told:
            self._is_told = True
            _log.warning(
                "%s has held the event loop for %.1f s; nothing else can go on. What blocks "
                "belongs in a plain function, which runs in a thread:\n%s",
                self._holder(),
                self._held,
                self.held_stack(),
            )
        if self._held < self.limit:
            self._keep_lease()

    def _ask(self) -> None:
        self._looks, self._held = 0, 0.0
        self._is_told = self._is_answered = False
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(self._answer)
        except RuntimeError:
            self._stop.set()  # the loop was closed

    def _answer(self) -> None:
        self._is_answered = True

    def _holder(self) -> str:
        try:
            task = asyncio.current_task(self._loop)
        except RuntimeError:
            task = None
        if task is None:
            return "a callback"
        # An attempt has its work at hand; to name every task would cost each of them a text.
        frame = getattr(task.get_coro(), "cr_frame", None)
        work = frame.f_locals.get("work") if frame is not None else None
        return task.get_name() if work is None else f"activity {work!r}"

    def _keep_lease(self) -> None:
        try:
            self._on_held()
        except errors.PerdureError as error:
            _log.info("the lease was not extended while the loop is held: %s", error)

    def held_stack(self) -> str:
        """Return the stack of the thread that holds the loop."""
        frame = sys._current_frames().get(self._thread_id)  # pyright: ignore[reportPrivateUsage] - the documented way to see another thread's stack
        return "".join(traceback.format_stack(frame)[-6:]) if frame else "(no frame)"

    def _interrupt(self, since: float) -> None:
        with self._lock:
            if self._since != since:
                return
            self._raised_at = time.monotonic()
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(self._thread_id), ctypes.py_object(errors.TurnTimeout)
            )
        _log.error("interrupted a turn of %s after %.1f s", self._what, self._limit)

    def _give_up(self) -> None:
        _log.critical(
            "a turn of %s cannot be interrupted (C code holds the loop); this worker ends so that "
            "others can take over. The run is a suspect:\n%s",
            self._what,
            self.held_stack(),
        )
        try:
            self._on_stuck(self._run)
        finally:
            os._exit(70)


class NoGuard:
    """Watches nothing: simulations run turns without threads."""

    def start(self) -> None:
        """Nothing to start."""

    def stop(self) -> None:
        """Nothing to stop."""

    def enter(self, what: object, run: int = 0, limit: int = 0) -> None:
        """Nothing to time."""

    def leave(self) -> bool:
        """Never interrupted."""
        return False

    def arrived(self) -> None:
        """Never interrupted."""
