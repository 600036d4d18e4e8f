"""Activities: the functions that touch the world.

An activity runs at least once and its outcome is recorded exactly once. Inside a workflow a call
is durable; anywhere else it is a plain call of the function. Every attempt of one call carries the
same ``activity.info().idempotency_key``: pass it on, and a careful callee sees the call once.
"""

from __future__ import annotations

import asyncio
import contextvars
import copy
import inspect
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from types import MappingProxyType
from typing import Any, Generic, ParamSpec, Self, TypeVar, cast, overload

import msgspec

from perdure import errors, logs, places, spending
from perdure.kernel import traps
from perdure.values import events as ev
from perdure.values import payload
from perdure.values.context import ContextView
from perdure.values.defining import check_options, defined_name, is_name, warn_of_namesake
from perdure.values.duration import Duration, microseconds
from perdure.values.lines import Line
from perdure.values.principals import Principal, principal_in
from perdure.values.retry import ACTIVITY_DEFAULT, Retry, RetryPolicy

P = ParamSpec("P")
R = TypeVar("R")

_OPTIONS = (
    "name",
    "retry",
    "timeout",
    "queue_timeout",
    "schedule_timeout",
    "heartbeat_timeout",
    "task_queue",
    "transactional",
    "isolation",
)
_ISOLATIONS = ("inline", "thread", "process")
_OPENER = f"{__name__}:opened"


class Info(msgspec.Struct, frozen=True):
    """What an attempt knows about itself. ``heartbeat_details`` are what the one before it left."""

    workflow_id: str
    run_id: str
    workflow: str
    activity_id: int
    activity: str
    attempt: int
    idempotency_key: str
    queue: str = "default"
    heartbeat_details: Any = None
    namespace: str = "default"


class Remote(msgspec.Struct, frozen=True):
    """What another process needs to make an activity: ``opener`` (``"module:name"``) is a function
    that makes it of ``payload``.
    """

    opener: str
    payload: bytes


def _drop(_line: Line) -> None:
    """Keep no log lines: the attempt belongs to no run."""


class Attempt:
    """One running attempt, as the engine sees it; user code reaches it through this module."""

    __slots__ = ("_context", "_info", "_log", "_make", "beat", "connection", "keys", "services")

    def __init__(
        self,
        make_info: Callable[[], Info],
        *,
        beat: Callable[[Any], None],
        context: bytes | None = None,
        connection: Any = None,
        services: Mapping[str, Any] = MappingProxyType({}),
        log: Callable[[Line], None] = _drop,
        keys: Any = None,
    ) -> None:
        self._make = make_info
        self._info: Info | None = None
        self._context = context
        self.beat = beat
        self.connection = connection
        self.services = services
        self._log = log
        self.keys = keys  # of persons: see personal.py

    @property
    def place(self) -> str:
        """Whose log lines its lines are, for people."""
        return f"{self.info.workflow_id} {self.info.activity}"

    def keep(self, line: Line) -> None:
        """Keep a log line; from any thread."""
        self._log(line)

    @property
    def info(self) -> Info:
        """Made when first asked for: most attempts never look."""
        if self._info is None:
            self._info = self._make()
        return self._info

    @property
    def context(self) -> Mapping[str, Any]:
        """What was propagated to the run, and from it to the attempt."""
        return payload.decode(self._context) if self._context else {}


running: contextvars.ContextVar[Attempt] = contextvars.ContextVar("perdure_attempt")
"""Set by the engine around each attempt."""


class Activity(Generic[P, R]):
    """A defined activity. ``fn`` is the bare function."""

    def __init__(
        self,
        fn: Callable[..., Any],
        *,
        name: str | None = None,
        retry: RetryPolicy | None = None,
        timeout: int | None = None,
        queue_timeout: int | None = None,
        schedule_timeout: int | None = None,
        heartbeat_timeout: int | None = None,
        task_queue: str = "",
        transactional: bool = False,
        isolation: str = "",
        step: str = "",
    ) -> None:
        self.fn = fn
        self.step = step
        self.name = defined_name(fn, name, "activity")
        self.is_async = inspect.iscoroutinefunction(fn)
        self.isolation = isolation or ("inline" if self.is_async else "thread")
        self.retry = retry
        self.timeout = timeout
        self.queue_timeout = queue_timeout
        self.schedule_timeout = schedule_timeout
        self.heartbeat_timeout = heartbeat_timeout
        self.task_queue = task_queue
        self.transactional = transactional
        self.arguments = payload.Arguments(fn, self.name)
        hints = payload.hints_of(fn)
        hint = hints.get("return", Any)
        self.read_result = payload.decoder(hint, what=f"{self.name} -> result")
        self.result_name = f"result of {self.name}"
        """What errors call a result of it."""
        self.__doc__ = fn.__doc__
        self.__name__ = self.name
        self.__module__ = fn.__module__
        self.__wrapped__ = fn
        self._check()
        payload.warn_of_unresolved(fn, hints, f"activity {self.name!r}")
        warn_of_namesake(fn, Activity, "activity")

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        """Run durably inside a workflow; call the function anywhere else.

        Raises:
            Invalid: in a workflow, at once: the arguments do not fit, or are too large.
        """
        instance = traps.current()
        if instance is None:
            return self._call_directly(args, kwargs)
        data = self.arguments.encode(args, kwargs)
        if len(data) > instance.max_payload:
            payload.limit(data, instance.max_payload, what=f"arguments of {self.name}")
        return traps.activity(instance, self.scheduled(data), self.read_result, self)

    def options(
        self,
        *,
        retry: Retry | None = None,
        timeout: Duration | None = None,
        queue_timeout: Duration | None = None,
        schedule_timeout: Duration | None = None,
        heartbeat_timeout: Duration | None = None,
        task_queue: str | None = None,
    ) -> Activity[P, R]:
        """Return the activity with these options for the calls made through the returned object."""
        other = copy.copy(self)
        if retry is not None:
            other.retry = _policy(retry).resolve(self.retry or ACTIVITY_DEFAULT)
        other.timeout = _or(timeout, self.timeout, "timeout")
        other.queue_timeout = _or(queue_timeout, self.queue_timeout, "queue_timeout")
        other.schedule_timeout = _or(schedule_timeout, self.schedule_timeout, "schedule_timeout")
        other.heartbeat_timeout = _or(
            heartbeat_timeout, self.heartbeat_timeout, "heartbeat_timeout"
        )
        if task_queue is not None:
            other.task_queue = payload.text(task_queue, what="task_queue")
        return other

    @property
    def is_step(self) -> bool:
        """Whether it stands for a part of a workflow's definition, which says where it runs."""
        return False

    def remote(self) -> Remote:
        """Return what a subprocess makes this activity of.

        Raises:
            DefinitionError: a subprocess could not find the function.
        """
        return Remote(_OPENER, msgspec.msgpack.encode((self.name, self._place())))

    def _place(self) -> places.Place:
        module, name = self.fn.__module__, getattr(self.fn, "__qualname__", "")
        found = places.look_up(module, name)
        if isinstance(found, Activity):
            found = cast("Any", found).fn
        if found is not self.fn:
            # Defined by a call: ``charge = activity.define(isolation="process")(charge_card)``.
            name = places.named_in(module, self)
        if not name:
            raise errors.DefinitionError(
                f"activity {self.name!r}: a subprocess could not find the function in module "
                f"{module!r}; give it a name of its own there"
            )
        return places.place_of(module, name)

    def __repr__(self) -> str:
        return f"<activity {self.name!r}>"

    def calling(self, fn: Callable[..., Any]) -> Self:
        """Return the activity with another function behind it, for one call."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__, fn=fn)
        return other

    def scheduled(self, args: bytes) -> ev.ActivityScheduled:
        """Return the command for a call with these arguments."""
        return ev.ActivityScheduled(
            name=self.name,
            args=args,
            retry=self.retry,
            timeout=self.timeout,
            queue_timeout=self.queue_timeout,
            schedule_timeout=self.schedule_timeout,
            heartbeat_timeout=self.heartbeat_timeout,
            queue=self.task_queue,
            transactional=self.transactional,
            step=self.step,
        )

    async def _call_directly(self, args: Any, kwargs: Any) -> R:
        if self.is_async:
            return await self.fn(*args, **kwargs)
        return await asyncio.to_thread(self.fn, *args, **kwargs)

    def _check(self) -> None:
        if not is_name(self.name):
            raise errors.DefinitionError(
                f"activity {self.name!r}: the name must be 1 to 200 characters, in one line"
            )
        if self.isolation not in _ISOLATIONS:
            raise errors.DefinitionError(
                f"activity {self.name!r}: isolation {self.isolation!r}; use 'inline' (async "
                "functions), 'thread' (plain functions) or 'process'"
            )
        if self.isolation == "process":
            self._check_process()
        if self.transactional and self.is_async:
            raise errors.DefinitionError(
                f"activity {self.name!r}: a transactional activity is a plain function, because it "
                "holds the database's write lock while it runs"
            )
        if not self.is_async and self.isolation == "inline":
            raise errors.DefinitionError(
                f"activity {self.name!r}: a plain function cannot run inline: it blocks the loop"
            )

    def _check_process(self) -> None:
        if self.transactional:
            raise errors.DefinitionError(
                f"activity {self.name!r}: transactional=True and isolation='process' exclude each "
                "other: the connection cannot leave the engine's process"
            )
        name = getattr(self.fn, "__qualname__", "")
        if not name or "<" in name:
            what = "a lambda" if name.endswith("<lambda>") else "defined inside another function"
            raise errors.DefinitionError(
                f"activity {self.name!r}: with isolation='process' a subprocess imports the "
                f"function by its module and name, and {name!r} is {what}; define it with `def` at "
                "the top level of a module"
            )


def opened(data: bytes) -> Activity[Any, Any]:
    """Return, in a subprocess, the activity that :meth:`Activity.remote` told of.

    Raises:
        DefinitionError: its module cannot be imported here, or does not have it.
    """
    name, place = _read_remote(data)
    found = places.load(place, f"activity {name!r}")
    if isinstance(found, Activity):
        return cast("Activity[Any, Any]", found)
    return Activity(found, name=name)


_read_remote = msgspec.msgpack.Decoder(tuple[str, places.Place]).decode


@overload
def define(fn: Callable[P, Awaitable[R]], /) -> Activity[P, R]: ...
@overload
def define(fn: Callable[P, R], /) -> Activity[P, R]: ...
@overload
def define(
    *,
    name: str | None = None,
    retry: Retry | None = None,
    timeout: Duration | None = None,
    queue_timeout: Duration | None = None,
    schedule_timeout: Duration | None = None,
    heartbeat_timeout: Duration | None = None,
    task_queue: str = "",
    transactional: bool = False,
    isolation: str = "",
) -> _Decorator: ...
def define(fn: Any = None, /, **options: Any) -> Any:
    """Define an activity; use as ``@activity.define`` or with options.

    Args:
        fn: an ``async`` function, or a plain one, which runs in a thread.
        **options: ``name`` (default: the function's), ``retry``, ``timeout`` (one attempt),
            ``queue_timeout`` (scheduled to started), ``schedule_timeout`` (scheduled to closed, all
            attempts), ``heartbeat_timeout`` (between heartbeats), ``task_queue``,
            ``transactional`` (the function writes to the same database through
            ``activity.connection()`` and commits together with its outcome: exactly once),
            ``isolation`` (``"inline"`` in the event loop, as async functions run; ``"thread"``, as
            plain functions do; ``"process"``, either of them in a subprocess: docs/isolation.md).

    Raises:
        DefinitionError: options that cannot work together.
        Invalid: a bad duration or retry policy.
    """
    decorator = _Decorator(**options)
    return decorator if fn is None else decorator(fn)


class _Decorator:
    def __init__(
        self,
        *,
        retry: Retry | None = None,
        timeout: Duration | None = None,
        queue_timeout: Duration | None = None,
        schedule_timeout: Duration | None = None,
        heartbeat_timeout: Duration | None = None,
        **rest: Any,
    ) -> None:
        check_options({**rest}, _OPTIONS, "activity")
        self._options: dict[str, Any] = {
            "retry": None if retry is None else _policy(retry).resolve(),
            "timeout": _or(timeout, None, "timeout"),
            "queue_timeout": _or(queue_timeout, None, "queue_timeout"),
            "schedule_timeout": _or(schedule_timeout, None, "schedule_timeout"),
            "heartbeat_timeout": _or(heartbeat_timeout, None, "heartbeat_timeout"),
            **rest,
        }

    @overload
    def __call__(self, fn: Callable[P, Awaitable[R]]) -> Activity[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, R]) -> Activity[P, R]: ...
    def __call__(self, fn: Callable[..., Any]) -> Any:
        made: Activity[..., Any] = Activity(fn, **self._options)
        return made


def info() -> Info:
    """Return what this attempt knows about itself.

    Raises:
        UsageError: called outside an activity.
    """
    return _attempt().info


def heartbeat(details: Any = None) -> None:
    """Say that the attempt is alive; ``details`` (any payload) reach the next attempt if it dies.

    Safe from threads. Details are kept by the worker and recorded when the attempt ends or is lost.

    Raises:
        UsageError: called outside an activity.
    """
    _attempt().beat(details)


def connection() -> Any:
    """Return the transaction's database connection inside a transactional activity.

    Raises:
        UsageError: the activity is not transactional.
    """
    found = _attempt().connection
    if found is None:
        raise errors.UsageError(
            "activity.connection() works in activities defined with transactional=True"
        )
    return found


def services() -> Mapping[str, Any]:
    """Return what was given to the engine that runs this attempt (``Engine(services=…)``).

    Raises:
        UsageError: called outside an activity.
    """
    return _attempt().services


def current() -> Attempt | None:
    """Return the attempt that runs here, if there is one."""
    return running.get(None)


logger = logs.RunLogger(logging.getLogger("perdure.activity"), current)
"""Lines that are kept with the run (``handle.logs()``), whatever becomes of the attempt."""


context = ContextView(lambda: _attempt().context)
"""The propagated context, read-only: ``activity.context["tenant"]``."""


spend, reserve = spending.spend, spending.reserve


def principal() -> Principal | None:
    """Return who the run acts for; ``None``: its start named nobody."""
    return principal_in(context)


def by_name(
    name: str,
    args: tuple[Any, ...],
    *,
    retry: RetryPolicy | None = None,
    timeout: Duration | None = None,
    step: str = "",
    begun: Callable[[int], None] | None = None,
) -> Coroutine[Any, Any, Any]:
    """Call an activity by its registered name; see ``workflow.call`` and ``traps.activity``.

    ``step``: the step of a graph that it is called for.
    """
    instance = traps.here()
    payload.text(name, what="activity")
    data = payload.encode(list(args), what=f"arguments of {name}")
    payload.limit(data, instance.max_payload, what=f"arguments of {name}")
    limit = _or(timeout, None, "timeout")
    event = ev.ActivityScheduled(name=name, args=data, retry=retry, timeout=limit, step=step)
    return traps.activity(instance, event, payload.decode, begun=begun)


def _attempt() -> Attempt:
    attempt = running.get(None)
    if attempt is None:
        raise errors.UsageError("this can only be called inside a running activity")
    return attempt


def _or(given: Duration | None, otherwise: int | None, what: str) -> int | None:
    if given is None:
        return otherwise
    limit = microseconds(given, what=what)
    if limit == 0:
        raise errors.Invalid(f"{what}: {given!r} leaves no time at all; None means no limit")
    return limit


def _policy(retry: object) -> Retry:
    if not isinstance(retry, Retry):
        raise errors.DefinitionError(
            f"retry: {retry!r} is not a policy; write Retry(max_attempts=…, interval=…)"
        )
    return retry
