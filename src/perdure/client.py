"""The client: starts executions and talks to them."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Self, TypeVar, cast, overload
from uuid import UUID
from weakref import WeakSet

from perdure import branching, errors, views
from perdure.audit import Audit
from perdure.audited import audited
from perdure.definition import Workflow
from perdure.door import Door, StoreDoor, check_started
from perdure.erasing import PersonalData
from perdure.feed import Feed
from perdure.filters import read_filter
from perdure.handle import Handle
from perdure.mailbox import Mailbox
from perdure.named import NamedEvent
from perdure.people import HumanTasks
from perdure.publishing import Publishing
from perdure.schedules import Schedules
from perdure.starts import Starts
from perdure.store.blobs import BlobStore
from perdure.store.desk import open_desk
from perdure.store.opening import is_server, parse_url
from perdure.store.port import Post, Started, StartRequest
from perdure.store.sealing import COMPRESS_ABOVE, OFFLOAD_ABOVE, Codec, make_seal
from perdure.values import events as ev
from perdure.values import ids, limits, payload
from perdure.values.audit import Level, level_of
from perdure.values.granted import NOTHING, Granted
from perdure.values.options import SHARED, canonical
from perdure.values.principals import Principal
from perdure.values.sizes import parse_size
from perdure.versions import version_to_start
from perdure.views import Count, Execution, Page

In = TypeVar("In")
Out = TypeVar("Out")
T = TypeVar("T")

_OPTIONS = SHARED | {
    "connection",
    "correlation_id",
    "created_by",
    "eager",
    "link",
    "monitor",
    "paused",
    "resume_within",
    "sender",
    "tags",
    "tenant",
}


class Client(Publishing):
    """Starts executions and talks to them. ``async with Client("sqlite:///orders.db") as client``.

    A client of its own runs nothing: workers (an :class:`~perdure.Engine` in some process) do. It
    is given the same ``codec``, ``blobs`` and so on as they are. ``identity``: who acts, a
    :class:`Principal` or a name (docs/identity.md). ``audit``: what is told of what it does,
    ``"none"``, ``"summary"`` or ``"full"`` (docs/audit.md).
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        door: Door | None = None,
        namespace: str = "default",
        max_payload: int | str = limits.MAX_PAYLOAD,
        read_only: bool = False,
        identity: Principal | str = "",
        audit: Level | str = Level.NONE,
        codec: Codec | None = None,
        compress_above: int | str | None = COMPRESS_ABOVE,
        blobs: BlobStore | str | None = None,
        offload_above: int | str = OFFLOAD_ABOVE,
    ) -> None:
        if (url is None) == (door is None):
            raise errors.UsageError("Client: give a database url")
        if url is not None and not is_server(url) and parse_url(url) is None:
            raise errors.UsageError(
                f"Client: {url} would be a database of this client alone, which runs nothing; take "
                "`engine.client` of the engine that has it in memory"
            )
        self._url = url
        self._own = door
        self._read_only = read_only
        self.namespace = namespace
        self._act_for(identity)
        self.audit_level = level_of(audit)
        self.granted = NOTHING
        self.max_payload = parse_size(max_payload)
        self.seal = make_seal(codec, compress_above, blobs, offload_above)
        """How what it stores is sealed (of a client of its own)."""
        self._sender = ""
        self._seq = 0
        self._boxes: WeakSet[Mailbox] = WeakSet()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        """Open the database (``async with`` does)."""
        if self._own is None:
            assert self._url is not None
            desk = open_desk(self._url, readonly=self._read_only, seal=self.seal)
            try:
                await desk.write(lambda store: store.migrate(_now()))
                told = await desk.write(lambda store: store.time())
            except BaseException:
                await desk.close()
                raise
            ahead = _now() - told if told else 0  # of the server's clock: all go by that
            self._own = StoreDoor(desk, lambda: _now() - ahead, os.urandom)

    async def close(self) -> None:
        """Close what :meth:`open` opened."""
        if self._url is not None and self._own is not None:
            door, self._own = self._own, None
            await door.close()

    # -- starting ----------------------------------------------------------------------------

    @overload
    async def start(
        self, workflow: Workflow[None, Out], input: None = None, **options: Any
    ) -> Handle[Out]: ...
    @overload
    async def start(
        self, workflow: Workflow[In, Out], input: In, **options: Any
    ) -> Handle[Out]: ...
    @overload
    async def start(self, workflow: str, input: Any = None, **options: Any) -> Handle[Any]: ...
    async def start(self, workflow: Any, input: Any = None, **options: Any) -> Handle[Any]:
        """Start an execution; it is on disk when this returns.

        Args:
            workflow: a definition, or the name of one.
            input: what the workflow function takes.
            **options: ``id`` (default: a new UUIDv7), ``version``, ``task_queue``,
                ``id_conflict_policy`` (``use_existing``, the default with an id; ``fail``;
                ``terminate_existing``), ``id_reuse_policy``, ``error_when_already_started``;
                ``execution_timeout``, ``run_timeout``, ``task_timeout``, ``start_delay``,
                ``retry`` (of the workflow: a new run), ``cron`` (five fields, UTC);
                ``paused=True``: it begins when somebody resumes it, and ends if nobody has
                ``resume_within`` so long;
                ``concurrency_key`` and ``priority`` (higher first) where limits make executions
                wait; ``retention``: how long it is kept after its end, 0 for ever, instead of the
                engine's (docs/retention.md); ``memo``, ``search``, ``messages``, ``context``,
                ``correlation_id``, ``tags``, ``tenant``, ``created_by``, ``budget``,
                ``namespace``; ``eager=False`` leaves it to any worker; ``connection`` (see
                :meth:`start_within`) starts it in the caller's own transaction; ``sender`` (an open
                mailbox) is whom ``messages`` come from, with ``monitor`` and ``link`` as in
                ``Mailbox.start``.

        Raises:
            NotFound: no such workflow is registered.
            Invalid: a bad option, or input that does not fit (the message has the field's path).
            AlreadyExists: the id is taken and the policy says ``fail``, or what has it is an open
                execution of another workflow.
            ConcurrencyLimit, RateLimited: too many are open, or began lately, and are refused.
            Unavailable: the execution that has the id has no room for ``messages``.
        """
        options = canonical(options, _OPTIONS, what="start")
        definition = await self._definition(workflow, options)
        request, started = self._request(workflow, definition, input, options)
        box = self._watch_start(request, options)
        if "connection" in options:
            answer = self.door.start_within(options["connection"], request, started)
        else:
            answer = await self.door.start(request, started, definition)
        handle = self._handle(answer, definition, request.namespace)
        if "connection" not in options:
            handle.follow_from(answer.run)
        if box is not None:
            box.started(request.watches, handle)
        return handle

    def start_within(
        self, connection: Any, workflow: Workflow[In, Out], input: Any = None, **options: Any
    ) -> Handle[Out]:
        """Start an execution in a transaction of the caller's: ``start(connection=…)``, plain.

        For threads, and for transactional activities with ``activity.connection()``. The execution
        stands or falls with what else the transaction writes; a worker takes it up after the
        commit, and the handle finds it from then on.

        Args:
            connection: a ``sqlite3.Connection`` to this client's file, after ``BEGIN IMMEDIATE``;
                or a ``psycopg.Connection`` to its database, in a transaction.
            workflow: a definition.
            input: what the workflow function takes.
            **options: as for :meth:`start`.

        Raises:
            Invalid: the connection is not such a one, or an option or the input is bad.
            Unavailable: the transaction began without the write lock and cannot get it now.
        """
        given = canonical(options, _OPTIONS, what="start_within")
        request, started = self._request(workflow, workflow, input, given)
        answer = self.door.start_within(connection, request, started)
        return self._handle(answer, workflow, request.namespace)

    @overload
    async def execute(
        self, workflow: Workflow[None, Out], input: None = None, **options: Any
    ) -> Out: ...
    @overload
    async def execute(self, workflow: Workflow[In, Out], input: In, **options: Any) -> Out: ...
    @overload
    async def execute(self, workflow: str, input: Any = None, **options: Any) -> Any: ...
    async def execute(self, workflow: Any, input: Any = None, **options: Any) -> Any:
        """Start an execution and wait for its result: see :meth:`start`, :meth:`Handle.result`."""
        return await (await self.start(workflow, input, **options)).result()

    async def import_run(self, data: Mapping[str, Any], id: str | None = None) -> Handle[Any]:
        """Take in a run that :meth:`Handle.export` gave; it is on disk when this returns.

        A run that has ended is there with its history, result and attributes. An open one says so
        in its history and goes on here, with the draws and keys it would have had where it came
        from (end it there first: two must not go on). It has no parent, and messages it had not
        received stay behind. A pause stays. Under another ``id`` it is a copy: with a run id of
        its own and, if it is open, chance and keys of its own.

        Raises:
            Invalid: not an export, damaged (the message has the place); open and without seed, or
                open and waiting for a child.
            AlreadyExists: there is an execution with the id, or the run is here already.
            ConcurrencyLimit: it is open, and one too many.
        """
        home, who = self.namespace, self.acts_for
        answer, read = await branching.imported(self.door, home, data, id, who)
        handle: Handle[Any] = Handle(self, answer.workflow_id, answer.run_id, read)
        handle.follow_from(answer.run)
        return handle

    def get(
        self, workflow_id: str | UUID, run_id: str | None = None, *, namespace: str | None = None
    ) -> Handle[Any]:
        """Return a handle on an execution; its first call finds out whether that exists.

        ``workflow_id`` may also be the run id of the execution's first run (seed 4's instance id).
        ``namespace``: the one that the id is of, if it is not the client's. The address of a
        mailbox is no execution's, and can be sent to.
        """
        name = str(workflow_id) if isinstance(workflow_id, UUID) else workflow_id
        id = name if ids.is_address(name) else ids.check_workflow_id(name)
        return Handle(self, id, run_id or "", payload.decode, namespace=namespace)

    def mailbox(self, *, trap_links: bool = False) -> Mailbox:
        """Return a mailbox to open with ``async with``: an address that gets answers and notices.

        ``trap_links``: a broken link is a notice instead of ``LinkedRunFailed``.
        """
        box = Mailbox(self, self.start, trap_links=trap_links)
        self._boxes.add(box)
        return box

    def as_(self, identity: Principal | str) -> Self:
        """Return a view of this client that acts for somebody, as long as this one is open.

        What it starts is theirs (``workflow.principal()``), and so is what it does to human tasks.
        """
        view = copy.copy(self)
        view._url, view._sender, view._seq = None, "", 0
        view._act_for(identity)
        return view

    def under(self, granted: Granted) -> Self:
        """Return a view of this client whose acts are bound by what was granted: for doors that
        judge before they do anything.
        """
        view = copy.copy(self)
        view._url, view._sender, view._seq = None, "", 0
        view.granted = granted
        return view

    @property
    def audit(self) -> Audit:
        """Who did what: lists, and whether nobody has changed them since."""
        return Audit(self)

    @property
    def human_tasks(self) -> HumanTasks:
        """What people are asked for: lists, claims, decisions."""
        return HumanTasks(self)

    @property
    def personal(self) -> PersonalData:
        """What is of persons: seals it so that it can be erased, and erases it."""
        return PersonalData(self)

    @property
    def schedules(self) -> Schedules:
        """Executions that begin by the clock."""
        return Schedules(self)

    # -- looking -----------------------------------------------------------------------------

    async def events(
        self,
        pattern: str = "*",
        *,
        workflow_id: str | None = None,
        after: str | None = None,
        follow: bool = True,
        namespace: str | None = None,
    ) -> AsyncGenerator[NamedEvent]:
        """Yield events of all runs by name, in the order of their recording (docs/events.md).

        With ``after``, the ``id`` of the last event that was dealt with, nothing is missed and
        nothing comes twice. What a fork, a retry or an import has copied is not told again.

        Args:
            pattern: of names; ``*`` matches the rest, dots included.
            workflow_id: only those of this execution.
            after: an event's ``id``, or ``"now"``; left out, it begins with the first that is kept.
            follow: go on with what is recorded from here on; else end when all is read.
            namespace: of the runs, if it is not the client's.

        Raises:
            Invalid: ``after`` is not the id of an event of this database.
            NotFound: ``after``, or what was told last, is older than what is kept: histories behind
                it were deleted.
            Unavailable: the database cannot be read, or the client was closed.
        """
        home = namespace or self.namespace
        feed = Feed(self.door, namespace=home, pattern=pattern, workflow_id=workflow_id)
        async for event in feed.read(after, follow=follow):
            yield event

    async def list(
        self,
        *,
        limit: int = limits.LIST_DEFAULT,
        cursor: str | None = None,
        **filters: Any,
    ) -> Page[Execution]:
        """List executions, newest first.

        Args:
            limit: at most this many, 1 to 1000.
            cursor: ``page.cursor`` of the page before.
            **filters: ``workflow``, ``workflow_id``, ``status`` (one or several), ``search``,
                ``tags``, ``correlation_id``, ``tenant``, ``created_by``, ``started_after``,
                ``started_before`` (aware datetimes), ``namespace``.
        """
        if not isinstance(cast("Any", limit), int) or not 1 <= limit <= limits.LIST_MAX:
            raise errors.Invalid(f"limit: {limit!r} is not a number from 1 to {limits.LIST_MAX}")
        where = read_filter(filters, self.namespace)
        before = views.decode_cursor(cursor) if cursor else None
        return views.page(await self.door.read(lambda s: s.list(where, limit=limit, before=before)))

    async def count(self, *, exact: bool = False, **filters: Any) -> Count:
        """Count executions. Unless ``exact``, it stops at 10,000, or when it has looked at enough
        of the newest; the number says so (``is_exact``, and as text it is ``10000+``).
        """
        where = read_filter(filters, self.namespace)
        limit = None if exact else limits.COUNT_MAX
        found = await self.door.read(lambda store: store.count(where, limit=limit))
        return Count(found.number, is_exact=found.is_all)

    async def workers(self) -> Sequence[views.WorkerView]:
        """Return the workers that have not left."""
        now = self.door.now()
        workers = await self.door.read(lambda store: store.workers())
        return [views.worker(row, now) for row in workers]

    async def find(self, text: str) -> Sequence[Execution]:
        """Return executions by workflow id, run id, or a prefix of either."""
        namespace = self.namespace
        row = await self.door.read(lambda store: store.find(text, namespace=namespace))
        if row is not None:
            return [views.execution(row)]
        rows = await self.door.read(lambda store: store.prefix(text, namespace=namespace))
        return [views.execution(row) for row in rows]

    # -- inside ------------------------------------------------------------------------------

    @property
    def door(self) -> Door:
        """Where this client's calls go.

        Raises:
            UsageError: the client is not open.
        """
        if self._own is None:
            raise errors.UsageError("the client is not open; use `async with Client(…)`")
        if self.granted is NOTHING and self.audit_level is Level.NONE:
            return self._own
        return audited(self._own, self.acts_for, self.audit_level, self.granted)

    def _act_for(self, identity: Principal | str) -> None:
        self.principal = identity if isinstance(identity, Principal) else None
        """Who acts, with roles and scopes, if that is known."""
        self.identity = identity.id if isinstance(identity, Principal) else identity
        """Who acts, by name, unless a call says so itself (``by=``)."""
        self.acts_for = self.principal or (Principal(self.identity) if identity else None)
        """What runs that this client starts carry with them."""

    async def _definition(
        self, workflow: Any, options: dict[str, Any]
    ) -> Workflow[Any, Any] | None:
        if isinstance(workflow, Workflow):
            return cast("Workflow[Any, Any]", workflow)
        if not isinstance(workflow, str):
            raise errors.Invalid(f"start: {workflow!r} is neither a workflow nor a name")
        version = options.get("version") or ""
        found = self.door.definition(workflow, version)
        if found is not None and version:
            return found
        known = await self.door.read(lambda store: store.definitions())
        # The run keeps the version it began with: the highest there is now, of those known here.
        options["version"] = chosen = version_to_start(
            known, workflow, version, lambda one: self.door.definition(workflow, one)
        )
        return self.door.definition(workflow, chosen)

    def _request(
        self,
        workflow: Any,
        definition: Workflow[Any, Any] | None,
        value: Any,
        options: dict[str, Any],
    ) -> tuple[StartRequest, ev.RunStarted]:
        return Starts(self).request(workflow, definition, value, options)

    def _handle(
        self, answer: Started, definition: Workflow[Any, Any] | None, namespace: str
    ) -> Handle[Any]:
        check_started(answer, self.door.now())
        read = definition.read_result if definition is not None else payload.decode
        handle: Handle[Any] = Handle(self, answer.workflow_id, "", read, namespace=namespace)
        handle.run_id = answer.run_id
        return handle

    def _watch_start(self, request: StartRequest, options: Mapping[str, Any]) -> Mailbox | None:
        """Let the sender's mailbox watch what is started, if it asks so."""
        monitor, link = bool(options.get("monitor")), bool(options.get("link"))
        box = options.get("sender")
        if not monitor and not link:
            return None
        if not isinstance(box, Mailbox):
            raise errors.Invalid("start: monitor= and link= need sender=, an open mailbox")
        request.watches = box.new_watches(monitor=monitor, link=link)
        return box

    def next_seq(self) -> tuple[str, int]:
        """Return this client's address and a number it has not used."""
        if not self._sender:
            self._sender = f"@client/{self.door.chance(12).hex()}"
        self._seq += 1
        return self._sender, self._seq

    async def send_mail(self, address: str, fact: ev.MessageReceived) -> None:
        """Put a message into a mailbox; a closed one drops it."""
        post, now = Post(ev.encode_turn([fact]), address), self.door.now()
        await self.door.write(lambda store: store.post([post], now))
        for box in self._boxes:  # those of other clients see that the file has changed
            if box.id == address:
                box.look()


def _now() -> int:
    return time.time_ns() // 1000  # noqa: TID251 - no engine's clock is at hand
