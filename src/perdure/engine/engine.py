"""The engine: a worker in this process.

``async with Engine("sqlite:///orders.db", definitions=[orders]) as engine`` joins the database's
workers, takes up what is due, and runs workflows and activities until the block ends; then it
takes no new turns, lets activities finish for a moment, and hands its runs back.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import ModuleType
from typing import Any, Self

from perdure import errors, lint
from perdure.activity import Activity
from perdure.client import Client
from perdure.definition import Workflow
from perdure.engine import audit as io_audit
from perdure.engine import clock as _clock
from perdure.engine import given, interpreter
from perdure.engine.alerts import Alert, by_name, definitions_for
from perdure.engine.clock import Clock, SystemClock
from perdure.engine.commits import Commits
from perdure.engine.core import Core
from perdure.engine.door import EngineDoor
from perdure.engine.draining import drained
from perdure.engine.guard import NoGuard, TurnGuard
from perdure.engine.leases import Leases
from perdure.engine.limits import Limits
from perdure.engine.listeners import Listeners
from perdure.engine.processes.watchdog import Watchdog
from perdure.engine.settings import Settings
from perdure.human.escalation import companion
from perdure.store.blobs import BlobStore
from perdure.store.desk import Desk, open_desk
from perdure.store.sealing import COMPRESS_ABOVE, OFFLOAD_ABOVE, Codec, make_seal
from perdure.values import limits
from perdure.values.audit import Level, level_of
from perdure.values.duration import SECOND, Duration, microseconds, optional_microseconds
from perdure.values.principals import Principal
from perdure.values.sizes import parse_size

_log = logging.getLogger("perdure.engine")
_STOP_GRACE = 5.0
_JOIN_AGAIN_SECONDS = 0.2
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_SAME_SIGNAL_SECONDS = 0.5


class Engine:
    """Runs workflows and activities in this process; see the module's text.

    Args:
        url: ``"sqlite:///file.db"``, ``"sqlite:////absolute.db"``, ``"memory://"`` or
            ``"postgresql://user@host/db"`` (extra ``postgres``).
        definitions: modules, workflows and activities this worker knows.
        task_queues: queues this worker serves: names, how many activities of each it carries out at
            a time (``{"default": 0, "gpu": 2}``), or :class:`TaskQueue` (docs/task-queues.md).
        lease: how long an unreachable worker keeps its runs (a killed one loses them at once).
        max_payload: limit of each payload: bytes, or text like ``"2MiB"``.
        turn_limit: how long one turn of workflow code may hold the loop.
        cache: how many waiting runs are kept live in memory.
        activity_slots: attempts at the same time; ``thread_slots`` of them in threads.
        concurrent_workflows: how many executions of each workflow may be open; 0 is no limit.
        concurrent_workflows_by_name: the same for some of them, before the default;
            :meth:`register` comes before both. One start too many raises ``ConcurrencyLimit``.
        concurrent_total: how many executions of all workflows of this engine may be open together,
            whoever runs them.
        identity: who acts by ``engine.client``, a :class:`Principal` or a name (docs/identity.md).
        audit: what is told of what ``engine.client`` does: ``"none"``, ``"summary"`` or ``"full"``
            (docs/audit.md).
        services: what activities get from ``activity.services()``, and steps as ``ctx.services``. A
            text ``"module:function"`` is called once in each process.
        isolated: run the steps of all graphs in subprocesses, but those of definitions that say
            ``.isolated(False)`` (docs/isolation.md).
        kill_grace: how long a subprocess has to let go of an attempt that timed out or was
            cancelled, and after SIGTERM.
        watchdog: when a subprocess is taken for hung.
        process_slots: how many subprocesses there may be; 0 is one per CPU.
        tune_interpreter: set the process's switch interval and garbage collection for throughput
            while the engine runs (see ``perdure.engine.interpreter``).
        alerts: webhooks for runs that fail: :class:`perdure.engine.alerts.Alert` (docs/audit.md).
        retention: how long ended runs are kept; then they are **deleted**, with all that is theirs
            (docs/retention.md). 0 keeps them for ever.
        retention_interval: how often it is looked what has to go.
        sqlite: pragmas, such as ``{"synchronous": "NORMAL"}``; below FULL only with
            ``allow_data_loss=True``.
        codec: encrypts (or otherwise encodes) what is stored: docs/encryption.md.
        compress_above: size from which on stored data is compressed; 0 or ``None`` is never.
        blobs: where large payloads are kept, ``"file:///path"`` or a :class:`perdure.BlobStore`;
            ``None`` is the database (docs/large-payloads.md).
        offload_above: size from which on a payload, as it is stored, is a large one.

    Raises:
        DefinitionError: two definitions of one name and version.
        Invalid: a duration, size, list of queues or mapping of services that is none.
        UsageError: settings that would lose data.
    """

    _core: Core | None = None
    _on_gone: Callable[[], None] = staticmethod(lambda: None)
    _leases: Leases | None = None
    _client: Client | None = None
    _rejoining: asyncio.Task[None] | None = None
    _gone: errors.StoreGone | errors.Sealed | None = None

    def __init__(
        self,
        url: str = "sqlite:///perdure.db",
        definitions: Sequence[Any] | Workflow[Any, Any] | Activity[..., Any] | ModuleType = (),
        *,
        task_queues: given.Queues = ("default",),
        lease: Duration = "10s",
        max_payload: int | str = limits.MAX_PAYLOAD,
        turn_limit: Duration = "10s",
        cache: int = 10_000,
        activity_slots: int = 10_000,
        thread_slots: int = 32,
        concurrent_workflows: int = 0,
        concurrent_workflows_by_name: Mapping[str, int] | None = None,
        concurrent_total: int = 0,
        services: Mapping[str, Any] | None = None,
        identity: Principal | str = "",
        audit: Level | str = Level.NONE,
        isolated: bool = False,
        kill_grace: Duration = "5s",
        watchdog: Watchdog | None = None,
        process_slots: int = 0,
        alerts: Sequence[Alert] = (),
        retention: Duration = "30d",
        retention_interval: Duration = "1h",
        sqlite: Mapping[str, Any] | None = None,
        allow_data_loss: bool = False,
        codec: Codec | None = None,
        compress_above: int | str | None = COMPRESS_ABOVE,
        blobs: BlobStore | str | None = None,
        offload_above: int | str = OFFLOAD_ABOVE,
        name: str = "",
        tune_interpreter: bool = True,
        desk: Desk | None = None,
        clock: Clock | None = None,
        chance: Callable[[int], bytes] | None = None,
    ) -> None:
        self.url, self.services = url, given.services(services)
        self._definitions, queues = list(given.collect(definitions)), given.queues(task_queues)
        seal = make_seal(codec, compress_above, blobs, offload_above)
        may_lose = given.switch(allow_data_loss, "allow_data_loss")
        self._open = partial(
            open_desk, url, options=dict(sqlite or {}), allow_data_loss=may_lose, seal=seal
        )
        self._limits = Limits(concurrent_workflows, concurrent_workflows_by_name, concurrent_total)
        self._settings = Settings(
            lease=microseconds(lease, what="lease"),
            max_payload=parse_size(max_payload),
            turn_limit_seconds=microseconds(turn_limit, what="turn_limit") / SECOND,
            cache=cache,
            activity_slots=activity_slots,
            thread_slots=thread_slots,
            limits=self._limits,
            services=self.services,
            isolated=given.switch(isolated, "isolated"),
            kill_grace=microseconds(kill_grace, what="kill_grace"),
            watchdog=watchdog,
            process_slots=process_slots,
            task_queues=queues,
            queue_limits=given.limits(task_queues, queues),
            retention=microseconds(retention, what="retention"),
            retention_interval=given.interval(retention_interval),
            seal=seal,
            alerts=by_name(alerts),
        )
        self._name, self._identity, self._audit = name, identity, level_of(audit)
        self._desk, self._clock = desk, clock or SystemClock()
        self._chance, self._is_tuned = chance or _clock.chance, tune_interpreter and desk is None
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def client(self) -> Client:
        """A client that shares this engine's process.

        Raises:
            UsageError: the engine is not running.
        """
        if self._client is None:
            raise errors.UsageError("the engine is not running; use `async with Engine(…)`")
        return self._client

    @property
    def events(self) -> Listeners:
        """Listeners of this process: ``engine.events.on(pattern, handler)``."""
        return self._running.listeners

    @property
    def commits(self) -> Commits:
        """Watchers of this worker's commits."""
        return self._running.commits

    def register(
        self,
        definition: Workflow[Any, Any] | Activity[Any, Any],
        *,
        max_concurrent: int | None = None,
        max_concurrent_per_key: int | None = None,
        rate: str | None = None,
        rate_per_key: str | None = None,
        on_limit: str | None = None,
    ) -> None:
        """Add a definition; for a workflow also its limits (docs/concurrency.md).

        Args:
            definition: a workflow or an activity.
            max_concurrent: how many executions of the workflow may be open; 0 is no limit, not
                even the engine's default.
            max_concurrent_per_key: how many of those with one ``concurrency_key``.
            rate: how many executions of the workflow may begin in a time: ``"100/minute"``,
                ``"10/s burst 20"``.
            rate_per_key: how many of those with one ``concurrency_key``.
            on_limit: ``"reject"`` (a start too many raises ``ConcurrencyLimit``, one too early
                ``RateLimited``) or ``"queue"`` (it is pending until it may begin).

        Raises:
            UsageError: limits of an activity, or of a workflow while the engine runs.
            Invalid: a number below 0, a text that is no rate, or an unknown ``on_limit``.
        """
        given = max_concurrent, max_concurrent_per_key, on_limit
        rates = {"rate": rate, "rate_per_key": rate_per_key}
        if any(one is not None for one in (*given, *rates.values())):
            if not isinstance(definition, Workflow):
                raise errors.UsageError("register: only workflows have limits")
            self._limits.register(definition.name, *given, **rates)
        if self._core is not None and isinstance(definition, Workflow):
            names = {*self._core.registry.names, definition.name}
            if self._limits.of(definition.name, names).limits:
                raise errors.UsageError(
                    f"register: workflow {definition.name!r} has a limit, and limits "
                    "are registered when the engine starts: register it before"
                )
        self._definitions.append(definition)
        if self._core is not None:
            _register(self._core, definition)
            self._core.sweeper.look()
            if isinstance(definition, Workflow):
                self._core.registry.register(companion)
                for one in (definition, companion):
                    self._define(self._core, one)

    async def start(self) -> None:
        """Open the database, join its workers and begin.

        Raises:
            Sealed: what the database holds cannot be opened: the codec, a key of it or the blob
                store is missing.
        """
        if self._core is not None:
            raise errors.UsageError("the engine is running already")
        desk = self._desk or self._open()
        guard = NoGuard() if self._desk is not None else self._guard()
        core = Core(desk, self._clock, self._chance, self._settings, guard=guard)
        io_audit.install()
        try:
            for definition in (*self._definitions, *definitions_for(self._settings.alerts)):
                _register(core, definition)
            core.services = await given.built(self.services)
            core.registry.limits.check(core.registry.names)
            if core.registry.names:
                core.registry.register(companion)
            now = self._clock.now()
            await desk.write(lambda store: store.migrate(now))
            await desk.write(lambda store: store.unlock())
            self._leases = Leases(core, self._name)
            await self._leases.join()
        except BaseException:
            await desk.close()
            raise
        self._core = core
        core.on_fenced = self._rejoin
        core.on_gone, core.on_sealed, self._gone = self._has_gone, self._is_locked_out, None
        desk.on_change = self._changed
        self._client = Client(
            door=EngineDoor(core),
            max_payload=self._settings.max_payload,
            identity=self._identity,
            audit=self._audit,
        )
        guard.start()
        if self._is_tuned:
            interpreter.tune()
        self._begin(core)

    @property
    def under_way(self) -> int:
        """How many attempts of activities run in this process now."""
        return self._core.runner.under_way if self._core is not None else 0

    async def stop(self, grace: Duration | None = _STOP_GRACE) -> None:
        """Stop gracefully: no new turns, activities get ``grace``, runs are handed back.

        ``grace``: ``None`` is as long as they take. An attempt that is cut off counts.
        """
        core, leases = self._core, self._leases
        if core is None or leases is None:
            return
        limit = optional_microseconds(grace, what="grace")
        core.intake.is_stopping = core.sweeper.is_stopping = True
        core.retention.is_stopping = core.schedules.is_stopping = True
        core.intake.look()
        await core.carrier.stop()
        is_gone = isinstance(self._gone, errors.StoreGone)
        if not is_gone:
            is_counted = await core.runner.stop(None if limit is None else limit / SECOND)
            # Not before: what still runs may outlast the lease.
            leases.is_stopping = True
            core.logs.flush()
            is_written = await drained(core)
        else:
            # Nothing can be recorded any more: whoever has the file takes these runs over.
            leases.is_stopping = core.turns.is_stopping = True
            is_counted = is_written = await core.runner.stop(0, counts=False)
        core.watch.close()  # from here on nobody would be answered
        await core.committer.stop(at_once=not is_written)
        if self._rejoining is not None:
            self._tasks.append(self._rejoining)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        became = "nothing was written" if is_written else "it may or may not have been written"
        core.drop(errors.Unavailable(f"this worker has stopped; {became}, try again"))
        if not is_gone:
            await leases.leave(is_clean=is_counted and is_written)
        core.guard.stop()
        if self._is_tuned:
            interpreter.restore()
        self._core = self._client = None
        await core.desk.close()

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then stop gracefully.

        A second signal in the same half second is taken for the same one: a terminal and a
        supervisor may both send it. After that, signals do what they did before.

        Raises:
            StoreGone: the database's file was deleted, moved or replaced; the engine has stopped,
                if it was started here.
            Sealed: others seal what they store with a codec or key that is missing here; the same.
        """
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()

        def ignore_no_more() -> None:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)

        def end() -> None:
            if not ended.is_set():
                ended.set()
                loop.call_later(_SAME_SIGNAL_SECONDS, ignore_no_more)

        for number in _SIGNALS:
            loop.add_signal_handler(number, end)
        started_here = self._core is None
        try:
            if started_here:
                await self.start()
            self._on_gone = ended.set
            if self._gone is None:
                await ended.wait()
            if self._gone is not None:
                raise self._gone
        finally:
            self._on_gone = lambda: None
            if self._gone is not None or not ended.is_set():
                ignore_no_more()
            if started_here:
                await self.stop()

    # -- inside ------------------------------------------------------------------------------

    @property
    def _running(self) -> Core:
        if self._core is None:
            raise errors.UsageError("the engine is not running; use `async with Engine(…)`")
        return self._core

    def _begin(self, core: Core) -> None:
        assert self._leases is not None
        loop = asyncio.get_running_loop()
        parts = core.intake.run(), self._leases.run(), core.sweeper.run(), core.retention.run()
        self._tasks = [loop.create_task(part) for part in parts]
        for task in self._tasks:
            task.add_done_callback(_report)

    def _define(self, core: Core, definition: Workflow[Any, Any]) -> None:
        """Tell the store of a definition that came after the worker had joined."""
        now = self._clock.now()
        row = core.registry.described([definition], now)
        writing = asyncio.ensure_future(core.desk.write(lambda store: store.define(row, now)))
        self._tasks.append(writing)
        writing.add_done_callback(_report)

    def _changed(self) -> None:
        core = self._core
        if core is not None:
            core.intake.look()
            core.watch.look()

    def _has_gone(self, error: errors.StoreGone) -> None:
        """The file is gone: whoever serves hears of it, and a supervisor can start anew."""
        if self._gone is None:
            self._gone = error
            self._on_gone()

    def _is_locked_out(self, error: errors.Sealed) -> None:
        """Others seal what this worker cannot open: it leaves the runs to them."""
        core = self._core
        if core is None or self._gone is not None:
            return
        _log.critical("this worker takes up no more runs: %s", error)
        core.intake.is_stopping = core.sweeper.is_stopping = True
        core.schedules.is_stopping = True
        self._gone = error
        self._on_gone()

    def _rejoin(self) -> None:
        """The lease is gone: come back as a new worker."""
        if self._leases is not None:
            self._leases.worker = None
        if self._rejoining is None or self._rejoining.done():
            self._rejoining = asyncio.get_running_loop().create_task(self._join_again())
            self._rejoining.add_done_callback(_report)

    async def _join_again(self) -> None:
        core, leases = self._core, self._leases
        if core is None or leases is None or leases.is_stopping:
            return
        while not leases.is_stopping:
            try:
                await leases.join()
            except errors.StoreError as error:
                _log.warning("could not join again, will try: %s", error)
                await asyncio.sleep(_JOIN_AGAIN_SECONDS)
            else:
                core.intake.look()
                core.carrier.look()
                core.sweeper.look()
                return

    def _guard(self) -> TurnGuard:
        return TurnGuard(
            limit=self._settings.turn_limit_seconds,
            on_held=lambda: self._leases and self._leases.extend_while_held(),
            on_stuck=lambda run: self._leases and self._leases.suspect(run),
        )


def _register(core: Core, definition: Workflow[Any, Any] | Activity[Any, Any]) -> None:
    core.runner.apart.check(definition)
    core.registry.register(definition)
    if isinstance(definition, Workflow):
        lint.warn(definition)


def _report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.critical("a part of the engine ended unexpectedly", exc_info=error)
