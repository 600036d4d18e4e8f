"""A store behind threads: the asyncio side of the store port.

One thread writes and one reads, each with a connection of its own; an in-memory database has one
connection and therefore one thread for both. Verbs run in the order they were handed in. Between
them the writing thread looks whether another process has committed (every 20 ms on SQLite, where
nothing else would tell), and after a quiet while empties the write-ahead log.

The event loop's thread never waits for the database, and the database's threads never touch the
loop except through ``call_soon_threadsafe``.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from queue import Empty, SimpleQueue
from typing import Any, Generic, Protocol, TypeVar, cast

from perdure.errors import UsageError
from perdure.kernel.loop import DeterministicLoop
from perdure.store.complaints import Complaints
from perdure.store.opening import open_store
from perdure.store.port import Posted, Reader, Started, StartRequest, Store
from perdure.store.sealing import Seal

log = logging.getLogger("perdure.store")

T = TypeVar("T")
R = TypeVar("R")

_running_loop = asyncio._get_running_loop  # pyright: ignore[reportPrivateUsage]
_IN_WORKFLOW = (
    "a client or an engine cannot be used in workflow code: it would not replay. Use it in an "
    "activity, or workflow.start, workflow.send and the like"
)
WRITER = "perdure-write"
"""Name of the thread that writes; of a database in memory, also of that which reads."""
_SOON_SECONDS = 0.002
_IDLE_POLLS = 100
_STILL_THERE_SECONDS = 1.0


class Desk(Protocol):
    """Where the engine and the client hand in store verbs.

    ``on_change`` is called in the event loop's thread when another process has committed.
    """

    on_change: Callable[[], None] | None

    @property
    def look_seconds(self) -> float:
        """How often other workers are looked at."""
        ...

    def write(
        self, verb: Callable[[Store], T], *, then: Callable[[asyncio.Future[T]], None] | None = None
    ) -> Awaitable[T]:
        """Run ``verb`` on the writing connection.

        ``then`` is called with the answer at once when it is there, in the event loop's thread.
        """
        ...

    def read(self, verb: Callable[[Reader], T]) -> Awaitable[T]:
        """Run ``verb`` on the reading connection."""
        ...

    def transact(
        self,
        run: int,
        activity: int,
        attempt: int,
        fn: Callable[[Any], R],
        *,
        outcome: Callable[[R], bytes],
        time_limit: float,
        now: int,
    ) -> tuple[R, Posted]:
        """Run a transactional activity: ``Store.transact``, called from an activity's thread.

        It blocks and must never be called in the event loop's thread. ``fn`` runs in the calling
        thread, or in the store's if the database is in memory. The inbox row that comes back can be
        fed to the run at once, like ``Committed.fed``.
        """
        ...

    def start_within(self, connection: object, request: StartRequest, now: int) -> Started:
        """Start a run in a caller's own transaction: ``Store.start_within``, in this thread."""
        ...

    def write_from_thread(self, verb: Callable[[Store], T]) -> T:
        """Run ``verb`` on the writing connection and wait for it, in a thread that is not the event
        loop's: it works while the loop is held.
        """
        ...

    async def close(self) -> None:
        """Finish what was handed in and close the store."""
        ...


class _Order(Generic[T]):
    """A verb that was handed in, and where its answer goes."""

    __slots__ = ("answer", "error", "future", "loop", "then", "verb")

    def __init__(
        self,
        verb: Callable[[Any], T],
        loop: asyncio.AbstractEventLoop,
        future: asyncio.Future[T],
        then: Callable[[asyncio.Future[T]], None] | None = None,
    ) -> None:
        self.verb = verb
        self.loop = loop
        self.future = future
        self.then = then
        self.answer: T | None = None
        self.error: BaseException | None = None

    def run(self, target: object) -> None:
        try:
            self.answer = self.verb(target)
        except BaseException as exc:  # noqa: BLE001 - it is raised again where it was handed in
            self.error = exc
        _call_in(self.loop, self.resolve)

    def resolve(self) -> None:
        # Kept here, the error would keep this frame and be kept by it.
        error, self.error = self.error, None
        if self.future.done():
            return
        if error is None:
            self.future.set_result(self.answer)  # pyright: ignore[reportArgumentType]
        else:
            self.future.set_exception(error)
        if self.then is not None:
            self.then(self.future)


class _Errand(Generic[T]):
    """A verb of another thread, which waits for it."""

    __slots__ = ("answer", "done", "error", "verb")

    def __init__(self, verb: Callable[[Any], T]) -> None:
        self.verb = verb
        self.done = threading.Event()
        self.answer: T | None = None
        self.error: BaseException | None = None

    def run(self, target: object) -> None:
        try:
            self.answer = self.verb(target)
        except BaseException as exc:  # noqa: BLE001 - it is raised again where it was handed in
            self.error = exc
        self.done.set()


_Queue = SimpleQueue["_Order[Any] | _Errand[Any] | None"]


class ThreadDesk:
    """A desk with one writing and, for files, one reading thread. Bound to the running loop."""

    def __init__(self, store: Any, *, watch: bool) -> None:
        self.on_change: Callable[[], None] | None = None
        self._loop = running_loop()
        self._store = store
        self._watch = watch and not store.is_private
        self._is_closed = False
        self._is_reported = False
        self._blind = Complaints(log, time.monotonic)
        self._untidy = Complaints(log, time.monotonic)
        self._writes: _Queue = SimpleQueue()
        self._reads: _Queue = self._writes
        self._stop_listening: Callable[[], None] | None = None
        if self._watch:
            self._stop_listening = store.listen(self._hear)
        self._threads = [_thread(self._write_loop, WRITER)]
        if not store.is_private:
            reader = store.reader()
            self._reads = SimpleQueue()
            self._threads.append(_thread(lambda: self._read_loop(reader), "perdure-read"))
        for thread in self._threads:
            thread.start()

    @property
    def look_seconds(self) -> float:
        """How often other workers are looked at."""
        return float(self._store.look_seconds)

    def write(
        self, verb: Callable[[Store], T], *, then: Callable[[asyncio.Future[T]], None] | None = None
    ) -> asyncio.Future[T]:
        """Run ``verb`` on the writing connection: see :class:`Desk`.

        Raises:
            UsageError: the desk was closed, or belongs to another event loop.
        """
        return self._hand_in(self._writes, verb, then)

    def read(self, verb: Callable[[Reader], T]) -> asyncio.Future[T]:
        """Run ``verb`` on the reading connection.

        Raises:
            UsageError: the desk was closed, or belongs to another event loop.
        """
        return self._hand_in(self._reads, verb)

    def start_within(self, connection: object, request: StartRequest, now: int) -> Started:
        """Start a run in a caller's own transaction, in the calling thread."""
        self._check_open()
        return self._store.start_within(connection, [request], now)[0]

    def transact(
        self,
        run: int,
        activity: int,
        attempt: int,
        fn: Callable[[Any], R],
        *,
        outcome: Callable[[R], bytes],
        time_limit: float,
        now: int,
    ) -> tuple[R, Posted]:
        """Run a transactional activity: see :class:`Desk`."""
        self._check_open()

        def verb(store: Store) -> tuple[R, Posted]:
            return store.transact(
                run, activity, attempt, fn, outcome=outcome, time_limit=time_limit, now=now
            )

        if not self._store.is_private:
            return verb(self._store)
        return self.write_from_thread(verb)

    def write_from_thread(self, verb: Callable[[Any], T]) -> T:
        """Run ``verb`` on the writing connection: see :class:`Desk`."""
        self._check_open()
        if threading.current_thread() in self._threads:
            raise UsageError("a transactional activity cannot run inside another one")
        errand = _Errand(verb)
        self._writes.put(errand)
        while not errand.done.wait(_STILL_THERE_SECONDS):
            # Handed in while the desk was being closed, it may never be reached.
            if not self._threads[0].is_alive() and not errand.done.is_set():
                raise UsageError("the store was closed")
        if errand.error is not None:
            raise errand.error
        return cast("T", errand.answer)

    async def close(self) -> None:
        """Finish what was handed in and close the store. A second call does nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        await self._loop.run_in_executor(None, self._join)

    def _hand_in(
        self,
        queue: _Queue,
        verb: Callable[[Any], T],
        then: Callable[[asyncio.Future[T]], None] | None = None,
    ) -> asyncio.Future[T]:
        self._check_open()
        check_loop(self._loop)
        future: asyncio.Future[T] = self._loop.create_future()
        queue.put(_Order(verb, self._loop, future, then))
        return future

    def _check_open(self) -> None:
        if self._is_closed:
            raise UsageError("the store was closed")

    def _join(self) -> None:
        if self._stop_listening is not None:
            self._stop_listening()
        # The reader first: the last connection to close empties the log, and must be able to write.
        if self._reads is not self._writes:
            self._reads.put(None)
            self._threads[1].join()
        self._writes.put(None)
        self._threads[0].join()

    # -- in the store's threads ------------------------------------------------------------------

    def _write_loop(self) -> None:
        store, queue = self._store, self._writes
        quiet = 0
        look_at = 0.0 if self._watch else math.inf
        tidy_at = math.inf
        while True:
            now = time.monotonic()
            if now >= look_at:
                look_at = now + store.poll_seconds
                quiet = 0 if self._look() else quiet + 1
                if quiet % _IDLE_POLLS == 0:
                    tidy_at = now + self._tidy(idle=quiet > 0)
            if now >= tidy_at:
                tidy_at = now + self._tidy(idle=False)
            wait = min(look_at, tidy_at) - now
            try:
                order = queue.get(timeout=None if wait == math.inf else max(wait, 0))
            except Empty:
                continue
            if order is None:
                break
            order.run(store)
            del order  # a batch and its answer may be large
            quiet = 0
            now = time.monotonic()
            # Soon: others may have waited for the lock. Not now: it would hold up who was answered.
            look_at = min(look_at, now + _SOON_SECONDS) if self._watch else look_at
            tidy_at = now + self._tidy(idle=False)
        store.close()

    def _read_loop(self, reader: Any) -> None:
        while (order := self._reads.get()) is not None:
            order.run(reader)
            del order
        reader.close()

    def _look(self) -> bool:
        """Report a commit of another process; tell whether one was seen."""
        try:
            if not self._store.changed():
                return False
        except Exception as exc:  # noqa: BLE001 - without this thread no verb would end
            # The next verb meets the same trouble and tells its caller.
            self._blind.add("looking for changes of other processes failed: %s", exc)
            return False
        self._hear()
        return True

    def _hear(self) -> None:
        if not self._is_reported:
            self._is_reported = True
            _call_in(self._loop, self._report)

    def _report(self) -> None:
        self._is_reported = False
        if self.on_change is not None and not self._is_closed:
            self.on_change()

    def _tidy(self, *, idle: bool) -> float:
        """Let the store do its housekeeping; return in how many seconds it wants to go on."""
        try:
            again = self._store.tidy(idle=idle)
        except Exception as exc:  # noqa: BLE001 - without this thread no verb would end
            self._untidy.add("housekeeping of the store failed: %s", exc)
            again = None
        return math.inf if again is None else again


def _thread(target: Callable[[], None], name: str) -> threading.Thread:
    return threading.Thread(target=target, name=name, daemon=True)


def _call_in(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
    try:
        loop.call_soon_threadsafe(callback)
    except RuntimeError:
        # The loop was closed; nobody is left to hear the answer.
        pass
    except Exception:
        log.exception("an answer of the store could not be delivered")


def running_loop() -> asyncio.AbstractEventLoop:
    """Return the running loop, to be bound to it.

    Raises:
        UsageError: workflow code asks.
    """
    loop = asyncio.get_running_loop()
    if isinstance(loop, DeterministicLoop):
        raise UsageError(_IN_WORKFLOW)
    return loop


def check_loop(home: asyncio.AbstractEventLoop) -> None:
    """Make sure that the caller runs in ``home``: an answer could not reach another loop.

    Raises:
        UsageError: it is workflow code, or runs in another loop or thread.
    """
    loop = _running_loop()
    if loop is home:
        return
    if isinstance(loop, DeterministicLoop):
        raise UsageError(_IN_WORKFLOW)
    raise UsageError(
        "a client belongs to the event loop in which it, or its engine, was opened, and was used "
        "from another one or from none. Open a Client(url) where you are, or pass the coroutine to "
        "asyncio.run_coroutine_threadsafe(…, loop) with the loop it belongs to"
    )


def open_desk(
    url: str,
    *,
    options: Mapping[str, Any] | None = None,
    allow_data_loss: bool = False,
    readonly: bool = False,
    watch: bool = True,
    seal: Seal | None = None,
) -> ThreadDesk:
    """Open a store behind threads, bound to the running event loop.

    ``watch``: look for commits of other processes while idle, and call ``on_change``. The other
    arguments and the errors are those of :func:`perdure.store.opening.open_store`.
    """
    running_loop()
    store = open_store(
        url, options=options, allow_data_loss=allow_data_loss, readonly=readonly, seal=seal
    )
    try:
        return ThreadDesk(store, watch=watch)
    except BaseException:
        store.close()
        raise
