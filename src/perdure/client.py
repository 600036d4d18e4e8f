"""The client: starts executions and talks to them."""

from __future__ import annotations

import asyncio
import time
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Generic, TypeVar, overload


from perdure import errors, views
from perdure.definition import Workflow
from perdure.door import Door, StoreDoor, decode_answer
from perdure.store.desk import open_desk
from perdure.store.port import Filter, Question, RunRow, StartRequest
from perdure.values import events as ev
from perdure.values import failures, ids, limits, payload
from perdure.values.duration import Duration, microseconds, optional_microseconds
from perdure.values.states import Status
from perdure.views import Execution, HistoryEvent, Page
from perdure.workflow import check_search, encode_message, recorded_messages

In = TypeVar("In")
Out = TypeVar("Out")
T = TypeVar("T")

CONFLICT = ("use_existing", "fail", "terminate_existing")
REUSE = ("allow_duplicate", "allow_duplicate_failed_only", "reject_duplicate")
_OPTIONS = frozenset(
    {
        "id",
        "name",
        "version",
        "task_queue",
        "id_conflict_policy",
        "id_reuse_policy",
        "error_when_already_started",
        "memo",
        "search",
        "search_attributes",
        "namespace",
        "messages",
        "context",
        "correlation_id",
        "tags",
        "tenant",
        "created_by",
        "eager",
    }
)
_QUESTION_TIMEOUT = 10_000_000


class Client:
    """Starts executions and talks to them. ``async with Client("sqlite:///orders.db") as client``.

    A client of its own runs nothing: workers (an :class:`~perdure.Engine` in some process) do.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        door: Door | None = None,
        namespace: str = "default",
        max_payload: int = limits.MAX_PAYLOAD,
        read_only: bool = False,
    ) -> None:
        if (url is None) == (door is None):
            raise errors.UsageError("Client: give a database url")
        self._url = url
        self._own = door
        self._read_only = read_only
        self._namespace = namespace
        self._max_payload = max_payload
        self._sender = ""
        self._seq = 0

    async def __aenter__(self) -> Client:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        """Open the database (``async with`` does)."""
        if self._own is None:
            assert self._url is not None
            desk = open_desk(self._url, readonly=self._read_only)
            now = time.time_ns() // 1000
            await desk.write(lambda store: store.migrate(now))
            self._own = StoreDoor(desk, lambda: time.time_ns() // 1000, os.urandom)

    async def close(self) -> None:
        """Close what :meth:`open` opened."""
        if self._url is not None and self._own is not None:
            door, self._own = self._own, None
            await door.close()

    # -- starting ----------------------------------------------------------------------------

    @overload
    async def start(
        self, workflow: Workflow[In, Out], input: In = ..., **options: Any
    ) -> Handle[Out]: ...
    @overload
    async def start(self, workflow: str, input: Any = None, **options: Any) -> Handle[Any]: ...
    async def start(self, workflow: Any, input: Any = None, **options: Any) -> Handle[Any]:
        """Start an execution; it is on disk when this returns.

        Args:
            workflow: a definition, or the name of one.
            input: what the workflow function takes.
            **options: ``id`` (default: a new UUIDv7), ``version``, ``task_queue``,
                ``id_conflict_policy`` (``use_existing``, the default with an id; ``fail``),
                ``id_reuse_policy``, ``error_when_already_started``, ``memo``, ``search``,
                ``messages``, ``context``, ``correlation_id``, ``tags``, ``tenant``, ``created_by``,
                ``namespace``.

        Raises:
            NotFound: no such workflow is registered.
            Invalid: a bad option, or input that does not fit (the message has the field's path).
            AlreadyExists: the id is taken and the policy says ``fail``.
        """
        if unknown := set(options) - _OPTIONS:
            raise errors.Invalid(f"start: unknown option {', '.join(sorted(unknown))}")
        definition = await self._definition(workflow, options)
        request, started = self._request(workflow, definition, input, options)
        answer = await self._door.start(request, started, definition)
        if answer.refused:
            raise errors.AlreadyExists(
                f"an execution with id {answer.workflow_id!r} exists and is {answer.status}",
                details={"run_id": answer.run_id, "status": str(answer.status)},
            )
        read = definition.read_result if definition is not None else payload.decode
        handle: Handle[Any] = Handle(self, answer.workflow_id, answer.run_id, read)
        handle._follow_from(answer.run)  # noqa: SLF001 - a handle is the client's own
        return handle

    @overload
    async def execute(
        self, workflow: Workflow[In, Out], input: In = ..., **options: Any
    ) -> Out: ...
    @overload
    async def execute(self, workflow: str, input: Any = None, **options: Any) -> Any: ...
    async def execute(self, workflow: Any, input: Any = None, **options: Any) -> Any:
        """Start an execution and wait for its result; see :meth:`start` and :meth:`Handle.result`."""
        return await (await self.start(workflow, input, **options)).result()

    def get(self, workflow_id: str, run_id: str | None = None) -> Handle[Any]:
        """Return a handle on an execution; the first call through it finds out whether it exists."""
        return Handle(self, ids.check_workflow_id(workflow_id), run_id or "", payload.decode)

    # -- looking -----------------------------------------------------------------------------

    async def list(
        self,
        *,
        limit: int = limits.LIST_DEFAULT,
        cursor: str | None = None,
        **filters: Any,
    ) -> Page:
        """List executions, newest first.

        Args:
            limit: at most this many, 1 to 1000.
            cursor: ``page.cursor`` of the page before.
            **filters: ``workflow``, ``workflow_id``, ``status`` (one or several), ``search``,
                ``tags``, ``correlation_id``, ``tenant``, ``created_by``, ``started_after``,
                ``started_before`` (aware datetimes), ``namespace``.
        """
        if not 1 <= limit <= limits.LIST_MAX:
            raise errors.Invalid(f"limit: {limit} is not from 1 to {limits.LIST_MAX}")
        where = self._filter(filters)
        before = views.decode_cursor(cursor) if cursor else None
        rows = await self._door.read(lambda store: store.list(where, limit=limit + 1, before=before))
        items = [views.execution(row) for row in rows[:limit]]
        more = len(rows) > limit
        return Page(items, views.encode_cursor(rows[limit - 1].run) if more else None)

    async def count(self, *, exact: bool = False, **filters: Any) -> int:
        """Count executions; stops at 10,000 unless ``exact``."""
        where = self._filter(filters)
        limit = None if exact else limits.COUNT_MAX
        return await self._door.read(lambda store: store.count(where, limit=limit))

    async def workers(self) -> Sequence[views.WorkerView]:
        """Return the workers that have not left."""
        now = self._door.now()
        workers = await self._door.read(lambda store: store.workers())
        return [views.worker(row, now) for row in workers]

    async def find(self, text: str) -> Sequence[Execution]:
        """Return executions by workflow id, run id, or a prefix of either."""
        namespace = self._namespace
        row = await self._door.read(lambda store: store.find(text, namespace=namespace))
        if row is not None:
            return [views.execution(row)]
        rows = await self._door.read(lambda store: store.prefix(text, namespace=namespace))
        return [views.execution(row) for row in rows]

    # -- inside ------------------------------------------------------------------------------

    @property
    def _door(self) -> Door:
        if self._own is None:
            raise errors.UsageError("the client is not open; use `async with Client(…)`")
        return self._own

    async def _definition(self, workflow: Any, options: dict[str, Any]) -> Workflow[Any, Any] | None:
        if isinstance(workflow, Workflow):
            return workflow
        if not isinstance(workflow, str):
            raise errors.Invalid(f"start: {workflow!r} is neither a workflow nor a name")
        version = options.get("version") or ""
        found = self._door.definition(workflow, version)
        if found is not None:
            return found
        known = await self._door.read(lambda store: store.definitions())
        if not any(d.name == workflow and (not version or d.version == version) for d in known):
            raise views.unknown_workflow(workflow, version, [d.name for d in known])
        return None

    def _request(
        self,
        workflow: Any,
        definition: Workflow[Any, Any] | None,
        value: Any,
        options: dict[str, Any],
    ) -> tuple[StartRequest, ev.RunStarted]:
        name = definition.name if definition is not None else workflow
        data = payload.encode(value, what=f"input of {name}")
        payload.limit(data, self._max_payload, what=f"input of {name}")
        if definition is not None:
            definition.check_input(data)
        door = self._door
        now = door.now()
        run_id = ids.uuid7(now // 1000, door.chance(10))
        explicit = options.get("id", options.get("name"))
        workflow_id = run_id if explicit is None else ids.check_workflow_id(explicit)
        search = options.get("search", options.get("search_attributes")) or {}
        queue = options.get("task_queue") or (definition.task_queue if definition else "default")
        context = options.get("context")
        started = ev.RunStarted(
            workflow=name,
            version=options.get("version") or (definition.version if definition else ""),
            workflow_id=workflow_id,
            run_id=run_id,
            seed=door.chance(16),
            input=data,
            code=definition.code if definition else "",
            queue=queue,
            namespace=options.get("namespace") or self._namespace,
            context=payload.encode(dict(context), what="context") if context else None,
            messages=recorded_messages(options.get("messages") or (), "", now),
            started_at=now,
            first_started_at=now,
        )
        request = StartRequest(
            workflow=name,
            workflow_id=workflow_id,
            run_id=run_id,
            event=b"",
            version=started.version,
            namespace=started.namespace,
            queue=queue,
            conflict=_conflict(explicit is not None, options),
            reuse=_one_of("id_reuse_policy", options.get("id_reuse_policy"), REUSE),
            created_by=options.get("created_by"),
            correlation_id=options.get("correlation_id"),
            tenant=options.get("tenant"),
            tags=tuple(options.get("tags") or ()),
            memo=payload.encode(dict(options["memo"])) if options.get("memo") else None,
            search=check_search(search),
        )
        return request, started

    def _filter(self, given: dict[str, Any]) -> Filter:
        allowed = set(Filter.__struct_fields__)
        if unknown := set(given) - allowed:
            raise errors.Invalid(f"list: unknown filter {', '.join(sorted(unknown))}")
        values = {key: value for key, value in given.items() if value is not None}
        status = values.get("status", ())
        several = [status] if isinstance(status, str) else list(status)
        try:
            values["status"] = tuple(Status(one) for one in several)
        except ValueError as exc:
            names = ", ".join(Status)
            raise errors.Invalid(f"status: {exc}; use {names}") from exc
        if isinstance(values.get("workflow"), Workflow):
            values["workflow"] = values["workflow"].name
        if isinstance(values.get("tags"), str):
            values["tags"] = (values["tags"],)
        for key in ("started_after", "started_before"):
            if isinstance(values.get(key), datetime):
                values[key] = views.from_datetime(values[key])
        values["tags"] = tuple(values.get("tags", ()))
        return Filter(**{"namespace": self._namespace, **values})

    def _next_seq(self) -> tuple[str, int]:
        if not self._sender:
            self._sender = f"@client/{self._door.chance(12).hex()}"
        self._seq += 1
        return self._sender, self._seq


class Handle(Generic[T]):
    """One execution. ``await handle`` is ``await handle.result()``."""

    def __init__(
        self, client: Client, workflow_id: str, run_id: str, read: Callable[[bytes], Any]
    ) -> None:
        self._client = client
        self.id = workflow_id
        self.run_id = run_id
        self._read = read
        self._pinned = bool(run_id)
        self._run = 0

    def __await__(self) -> Any:
        return self.result().__await__()

    def __repr__(self) -> str:
        return f"<Handle {self.id!r}>"

    async def result(self, timeout: Duration | None = None) -> T:
        """Wait for the result, following continue-as-new.

        Raises:
            WorkflowFailed, WorkflowCancelled, WorkflowTerminated, WorkflowTimedOut: it ended so.
            NotFound: there is no such execution.
            TimeoutError: it has not ended within ``timeout``.
        """
        if timeout is None:
            return await self._result()
        async with asyncio.timeout(microseconds(timeout, what="timeout") / 1_000_000):
            return await self._result()

    async def status(self) -> Status:
        """Return the status."""
        return (await self._row()).status

    async def describe(self) -> Execution:
        """Return everything lists and details show, input and output included."""
        row = await self._row()
        first = await self._door.read(lambda store: store.history(row.run, limit=1))
        last = await self._door.read(lambda store: store.last_turn(row.run))
        attributes = await self._door.read(lambda store: store.attributes(row.run))
        return views.execution(row, first=first, last=last, search=attributes)

    async def history(self) -> list[HistoryEvent]:
        """Return the events of the run, decoded to plain data, seeds left out."""
        row = await self._row()
        turns = await _all_turns(self._door, row.run)
        return views.history(turns)

    async def export(self, *, with_seed: bool = False) -> dict[str, Any]:
        """Return the run as plain JSON data; turn boundaries are kept."""
        row = await self._row()
        turns = await _all_turns(self._door, row.run)
        return views.export(row, turns, with_seed=with_seed)

    async def why(self) -> str:
        """Return one sentence: what the run waits for, or why it cannot go on."""
        row = await self._row()
        turns = await _all_turns(self._door, row.run)
        workers = await self._door.read(lambda store: store.workers())
        return views.why(row, turns, workers, self._door.now())

    async def follow(self, after: int = 0) -> AsyncIterator[HistoryEvent]:
        """Yield events as they are committed, from the one after id ``after``, until the end."""
        row = await self._row()
        while True:
            turns = await _all_turns(self._door, row.run, after=after)
            for event in views.history(turns):
                if event.id > after:
                    after = event.id
                    yield event
            row = await self._row_of(row.run)
            if row.status.is_terminal and after >= row.length:
                return
            await asyncio.sleep(0.05)

    # -- acting ------------------------------------------------------------------------------

    async def send(self, topic: str, payload: Any = None) -> None:
        """Send a message; it is durable when this returns, and received once.

        Raises:
            NotFound: there is no such execution.
            Closed: it has ended.
            Invalid: a bad topic, a payload that cannot be encoded or is too large.
        """
        client = self._client
        data = encode_message(topic, payload, client._max_payload)  # noqa: SLF001
        sender, seq = client._next_seq()  # noqa: SLF001
        message = ev.Message(topic, data, sender, f"{sender}/{seq}", self._door.now())
        await self._post(ev.MessageReceived(message=message), sender, seq)

    async def cancel(self, reason: str = "", deadline: Duration | None = None) -> bool:
        """Ask the execution to end; after ``deadline`` it is terminated. False if it had ended."""
        limit = optional_microseconds(deadline, what="deadline")
        due = self._door.now() + limit if limit is not None else 0
        return await self._end(ev.CancelRequested(reason=reason, deadline=due, by="client"))

    async def terminate(self, reason: str = "") -> bool:
        """End the execution at once, without its code. False if it had ended."""
        return await self._end(ev.RunTerminated(reason=reason, by="client"))

    async def unpark(self) -> bool:
        """Let a parked run try again. False if it is not parked."""
        row = await self._row()
        if row.status is not Status.PARKED:
            return False
        return await self._end(ev.RunUnparked(by="client"))

    async def query(self, name: str, *args: Any, timeout: Duration = "10s") -> Any:
        """Ask a query handler of the workflow; ended runs answer too.

        Raises:
            NotFound: no such execution or query.
            Unavailable: no worker answered in time.
        """
        return await self._ask("query:" + name, args, timeout, "")

    async def update(
        self, name: str, *args: Any, id: str | None = None, timeout: Duration = "10s"
    ) -> Any:
        """Run an update handler of the workflow and return its answer.

        ``id`` makes a repeated call return the first outcome.

        Raises:
            NotFound: no such execution or update.
            Closed: the execution has ended, or ended first.
            Unavailable: no answer in time; an accepted update goes on.
        """
        update_id = id or self._door.chance(12).hex()
        return await self._ask("update:" + name, args, timeout, update_id)

    # -- inside ------------------------------------------------------------------------------

    def _follow_from(self, run: int) -> None:
        """Begin with run number ``run`` and go on with whatever continues it."""
        self._run = run
        self._pinned = False

    @property
    def _door(self) -> Door:
        return self._client._door  # noqa: SLF001 - a handle is the client's own

    async def _result(self) -> T:
        run = self._run or (await self._row()).run
        while True:
            closing = await self._door.ended(run)
            if not isinstance(closing, ev.RunContinued):
                return self._outcome(closing)
            if self._pinned:
                raise errors.Closed(
                    f"this run of {self.id!r} continued as new in run {closing.run_id}; "
                    "ask without a run_id to follow"
                )
            next_run_id = closing.run_id
            row = await self._find(next_run_id)
            run = row.run

    def _outcome(self, closing: ev.Event) -> T:
        name = self.id
        if isinstance(closing, ev.RunCompleted):
            return self._read(closing.result)
        if isinstance(closing, ev.RunFailed):
            message = f"workflow {name!r} failed: {closing.failure.root.message}"
            raise failures.wrap(errors.WorkflowFailed, message, closing.failure)
        if isinstance(closing, ev.RunCancelled):
            raise errors.WorkflowCancelled(f"workflow {name!r} was cancelled: {closing.reason}")
        if isinstance(closing, ev.RunTerminated):
            raise errors.WorkflowTerminated(f"workflow {name!r} was terminated: {closing.reason}")
        raise errors.WorkflowTimedOut(f"workflow {name!r} timed out")

    async def _post(self, fact: ev.Event, sender: str, seq: int) -> None:
        row = await self._row()
        posted = await self._door.post(row, fact, sender, seq)
        if posted.outcome == "not_found":
            raise errors.NotFound(f"there is no workflow {self.id!r}")
        if posted.outcome == "closed":
            raise errors.Closed(f"workflow {self.id!r} has ended")
        if posted.outcome == "full":
            raise errors.Unavailable(
                f"the inbox of {self.id!r} is full ({limits.INBOX_PER_EXECUTION} messages)"
            )
        if posted.outcome not in ("delivered", "duplicate"):
            raise errors.Unavailable(f"the message to {self.id!r} could not be stored")

    async def _end(self, fact: ev.Event) -> bool:
        row = await self._row()
        if row.status.is_terminal:
            return False
        sender, seq = self._client._next_seq()  # noqa: SLF001
        try:
            await self._post(fact, sender, seq)
        except errors.Closed:
            return False
        return True

    async def _ask(
        self, name: str, args: tuple[Any, ...], timeout: Duration, question_id: str
    ) -> Any:
        row = await self._row()
        data = payload.encode(list(args), what=f"arguments of {name}")
        question = Question(
            id=question_id or self._door.chance(12).hex(),
            execution=row.execution,
            name=name,
            args=data,
            deadline=self._door.now() + microseconds(timeout, what="timeout"),
            run=row.run,
        )
        return payload.decode(decode_answer(await self._door.ask(row, question)))

    async def _row(self) -> RunRow:
        if self._run and self._pinned:
            return await self._row_of(self._run)
        return await self._find(self.run_id if self._pinned else "")

    async def _row_of(self, run: int) -> RunRow:
        rows = await self._door.read(lambda store: store.rows([run]))
        if not rows:
            raise errors.NotFound(f"there is no workflow {self.id!r}")
        return rows[0]

    async def _find(self, run_id: str) -> RunRow:
        name = self.id
        namespace = self._client._namespace  # noqa: SLF001
        row = await self._door.read(
            lambda store: store.find(name, namespace=namespace, run_id=run_id)
        )
        if row is None:
            raise errors.NotFound(f"there is no workflow {self.id!r}")
        return row


async def _all_turns(door: Door, run: int, after: int = 0) -> list[Any]:
    turns: list[Any] = []
    while True:
        # Pages, so that no read holds a snapshot for long.
        page = await door.read(lambda store: store.history(run, after=after, limit=5_000))
        turns += page
        if len(page) < 5_000:
            return turns
        after = page[-1].first


def _conflict(is_explicit: bool, options: Mapping[str, Any]) -> str:
    policy = options.get("id_conflict_policy")
    if policy is not None:
        return _one_of("id_conflict_policy", policy, CONFLICT)
    if options.get("error_when_already_started"):
        return "fail"
    return "use_existing" if is_explicit else "none"


def _one_of(what: str, value: Any, allowed: tuple[str, ...]) -> str:
    if value is None:
        return allowed[0]
    text = str(value).lower().replace("-", "_")
    if text not in allowed:
        raise errors.Invalid(f"{what}: {value!r}; use one of {', '.join(allowed)}")
    return text


