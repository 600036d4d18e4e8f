"""A handle on one execution: what a client can ask of it and do to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Generator, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

from perdure import branching, errors, transfer, views, visits, why
from perdure.branching import SAME
from perdure.door import Door, Host, all_turns, decode_answer, is_a, refusal, sound, whole_history
from perdure.explaining import explain
from perdure.store.port import Question, RunRow, Started
from perdure.told import LogLine, lines_of
from perdure.trail import SET_METADATA
from perdure.values import endings, limits, payload
from perdure.values import events as ev
from perdure.values.duration import Duration, microseconds, optional_microseconds
from perdure.values.ids import MAILBOX
from perdure.values.states import GOING, Status
from perdure.views import Execution, HistoryEvent
from perdure.workflow import encode_message

T = TypeVar("T")
_FOLLOW_PAUSE = 0.05
_STATE_SECONDS = 1.0


class Sender(Host, Protocol):
    """What a handle needs of its client: it sends."""

    def next_seq(self) -> tuple[str, int]:
        """Return this client's address and a number it has not used."""
        ...

    async def send_mail(self, address: str, fact: ev.MessageReceived) -> None:
        """Put a message into a mailbox; a closed one drops it."""
        ...


class Handle(Generic[T]):
    """One execution. ``await handle`` is ``await handle.result()``."""

    def __init__(
        self,
        client: Sender,
        workflow_id: str,
        run_id: str,
        read: Callable[[bytes], Any],
        *,
        namespace: str | None = None,
    ) -> None:
        self._client = client
        self.id = workflow_id
        self.namespace = namespace or client.namespace
        self.run_id = run_id
        self._read = read
        self._pinned = bool(run_id)
        self._run = 0

    def __await__(self) -> Generator[Any, None, T]:
        return self.result().__await__()

    def __repr__(self) -> str:
        return f"<Handle {self.id!r}>"

    async def result(self, timeout: Duration | None = None) -> T:
        """Wait for the result, following continue-as-new and workflow retries.

        Raises:
            WorkflowFailed, WorkflowCancelled, WorkflowTerminated, WorkflowTimedOut: it ended so.
            NotFound: there is no such execution.
            TimeoutError: it has not ended within ``timeout``.
        """
        if timeout is None:
            return await self._result()
        limit = asyncio.timeout(microseconds(timeout, what="timeout") / 1_000_000)
        try:
            async with limit:
                return await self._result()
        except TimeoutError:
            if not limit.expired():
                raise
            text = f"workflow {self.id!r} has not ended within {timeout}; {await self._state()}"
            raise TimeoutError(text) from None

    async def status(self) -> Status:
        """Return the status."""
        return (await self._row()).status

    async def describe(self, *, steps: bool = True) -> Execution:
        """Return everything lists and details show, input and output included.

        ``steps``: of a graph also ``step_results`` (the last visit of each step), ``metadata``, and
        the steps under way as ``current_step``; for that a graph's history is read.

        Raises:
            Corrupt: something of it cannot be read (a list shows what can).
        """
        row = sound(await self._row())
        return await visits.described(self._door, row, with_steps=steps)

    async def history(self) -> list[HistoryEvent]:
        """Return the events of the run, decoded to plain data, seeds left out.

        Raises:
            Corrupt: a row is damaged or missing; the message names run and event.
        """
        return views.history(await whole_history(self._door, await self._row()))

    async def logs(self, after: int = 0) -> list[LogLine]:
        """Return what the run has logged, in order; ``after``: from the line after this number."""
        return await lines_of(self._door, (await self._row()).run, after)

    async def export(self, *, with_seed: bool = False) -> dict[str, Any]:
        """Return the run as plain JSON data, for :meth:`Client.import_run`; turns are kept apart.

        ``with_seed``: with the run's secret seed, which an open run needs to go on elsewhere.
        """
        original = await self._original()
        row, turns, search = original
        return transfer.export(row, turns, search, with_seed=with_seed)

    async def why(self) -> str:
        """Return one sentence: what the run waits for, or why it cannot go on."""
        workers = await self._door.read(lambda store: store.workers())
        return await explain(self._door, await self._row(), workers)

    async def follow(self, after: int = 0) -> AsyncIterator[HistoryEvent]:
        """Yield events as they are committed, from the one after id ``after``, until the end."""
        row = await self._row()
        read = 0
        while True:
            # From the row after the last one read: ``after`` may lie inside a row.
            turns = await all_turns(self._door, row.run, after=read)
            read = turns[-1].first if turns else read
            for event in views.history(turns):
                if event.id > after:
                    after = event.id
                    yield event
            row = await self._row_of(row.run)
            if row.status.is_terminal and after >= row.length:
                return
            await asyncio.sleep(_FOLLOW_PAUSE)

    # -- acting ------------------------------------------------------------------------------

    async def send(self, topic: str, payload: Any = None) -> None:
        """Send a message; it is durable when this returns, and received once.

        Raises:
            NotFound: there is no such execution.
            Closed: it has ended; that is a ``NotFound`` too.
            Invalid: a bad topic, a payload that cannot be encoded or is too large.
        """
        sender, seq = self._client.next_seq()
        await self.send_from(sender, seq, topic, payload)

    async def send_from(
        self,
        sender: str,
        seq: int,
        topic: str,
        payload: Any,
        found: Callable[[str], None] | None = None,
    ) -> None:
        """Send a message as ``sender``: its ``seq`` grows with every message it sends.

        ``found`` is called with the execution's workflow id before the message is on its way.
        """
        data = encode_message(topic, payload, self._client.max_payload)
        message = ev.Message(topic, data, sender, f"{sender}/{seq}", self._door.now())
        fact = ev.MessageReceived(message=message)
        if self.id.startswith(MAILBOX):
            await self._client.send_mail(self.id, fact)
            return
        row = await self._row()
        if found is not None:
            found(row.workflow_id)
        while error := refusal(await self._door.post(row, fact, sender, seq), self.id):
            before, row = row, await self._row()
            # Ended since it was found, and another execution has taken its place and its id?
            if not isinstance(error, errors.Closed) or row.execution == before.execution:
                raise error

    async def cancel(self, reason: str = "", deadline: Duration | None = None) -> bool:
        """Ask the execution to end; after ``deadline`` it is terminated. False if it had ended.

        Raises:
            Invalid: the reason is not text of at most 4,096 characters, or a bad deadline.
        """
        reason = payload.text(reason, what="reason", maximum=limits.REASON)
        limit = optional_microseconds(deadline, what="deadline")
        due = self._door.now() + limit if limit is not None else 0
        return await self._end(ev.CancelRequested(reason=reason, deadline=due, by="client"))

    async def terminate(self, reason: str = "") -> bool:
        """End the execution at once, without its code. False if it had ended.

        Raises:
            Invalid: the reason is not text of at most 4,096 characters.
        """
        reason = payload.text(reason, what="reason", maximum=limits.REASON)
        return await self._end(ev.RunTerminated(reason=reason, by="client"))

    async def pause(self) -> bool:
        """Let the run take no turns until :meth:`resume`; what is under way goes on.

        A deadline still ends it, and a cancel resumes it. False if it has ended, is paused, or is
        parked: then it takes none, and unparking it is not to be undone.
        """
        row = await self._row()
        if row.status is Status.PARKED:
            return False
        if row.status is Status.PAUSED and not await self._is_asked(row, ev.RunResumed, *GOING):
            return False
        return await self._end(ev.RunPaused(by="client"))

    async def resume(self) -> bool:
        """Let a paused run go on. False if it is not paused."""
        row = await self._row()
        is_paused = row.status is Status.PAUSED
        if not (is_paused or await self._is_asked(row, ev.RunPaused, Status.PAUSED)):
            return False
        return await self._end(ev.RunResumed(by="client"))

    async def unpark(self) -> bool:
        """Let a parked run try again. False if it is not parked."""
        row = await self._row()
        if row.status is not Status.PARKED:
            return False
        return await self._end(ev.RunUnparked(by="client"))

    async def move(self, version: str = "", timeout: Duration = "10s") -> bool:
        """Let the run go by another version of its definition from here on, and unpark it.

        ``version``: one that a running worker defines; ``""`` is the highest. The run's history is
        replayed with it first. False if the run goes by that version already and is not parked.

        Raises:
            NondeterminismError: the version does not fit the history; nothing was changed.
            Conflict: the run has work in flight: pause it, or try again when it waits.
            Closed: the execution has ended.
            Unavailable: no running worker defines the version, or none answered in time.
        """
        row = await self._row()
        if not row.status.is_terminal and self._door.definition(row.workflow, version) is None:
            workers = await self._door.read(lambda store: store.workers())
            if said := why.no_version(row.workflow, version, workers):
                raise errors.Unavailable(said)
        return await self._ask("move:" + version, (), timeout, "")

    # -- repairing ---------------------------------------------------------------------------

    async def fork(
        self,
        *,
        after_event: int | None = None,
        before_step: str | None = None,
        input: Any = SAME,
        id: str | None = None,
        memo: Mapping[str, Any] | None = SAME,
        search: Mapping[str, Any] | None = SAME,
        tags: Sequence[str] | None = SAME,
    ) -> Handle[T]:
        """Start an execution that shares this run's history up to a point, and goes on from there.

        The point is ``after_event``, or where the code first scheduled the activity or child
        ``before_step``. It snaps down to the nearest place where the code was not in the middle of
        an answer: the end of a turn, or the end of a turn's facts (its first events), which the
        code at hand then answers anew. ``after_event=0`` is the very start, and only there may the
        fork have another ``input``. The event that ended the run is never shared.

        The fork has chance and idempotency keys of its own from there on; steps that the shared
        part left open begin anew, with new keys. Messages, children and sends of the shared part
        are not repeated, timers keep their times, timeouts count anew. It has no parent. ``memo``,
        ``search`` and ``tags`` are those of this run unless given. This run does not change. If the
        client acts for somebody, so does the fork, and not for whom this run does; its tenant
        stays.

        Raises:
            PermissionDenied: the client acts for a principal of another tenant.
            Invalid: no such event or step; or the shared part waits for a child, or for the end of
                another execution, which the fork would not be told.
            AlreadyExists: an execution has the ``id`` (default: a new one).
            ConcurrencyLimit, RateLimited: too many are open, or began lately, and are refused.
        """
        started = await branching.fork(
            self._door,
            await self._original(),
            after_event=after_event,
            before_step=before_step,
            input=input,
            options=branching.Options(id, memo, search, tags),
            max_payload=self._client.max_payload,
            who=self._client.acts_for,
        )
        return self._on(started)

    async def retry(self, *, from_step: str | None = None, id: str | None = None) -> Handle[T]:
        """Start a new run of this execution that keeps what succeeded, and tries the rest again.

        It begins before the failure that led to the end (a cancel: before that; a timeout or a
        terminate: where the run was), or where ``from_step`` was first scheduled or begun. Outcomes
        of steps that succeeded, and messages, are kept; draws and idempotency keys are as before,
        so that a careful callee sees a retried step once. A failed child is started again. Attempts
        and timeouts count anew. With ``id`` the new run is an execution of its own; that works for
        an open (a parked) run too, and it acts for whom the client does; without, the new run acts
        for whom this one does, and the history says who retried it.

        Raises:
            PermissionDenied: the client acts for a principal of another tenant.
            Conflict: the run has not ended, or is not the latest of its execution.
            Invalid: nothing failed, or no such step; or it would wait for a child of the ended run.
            AlreadyExists: an execution has the ``id``.
            ConcurrencyLimit, RateLimited: too many are open, or began lately, and are refused.
        """
        original = await self._original()
        who = self._client.acts_for
        again = branching.retry(self._door, original, from_step=from_step, id=id, who=who)
        return self._on(await again)

    async def query(self, name: str, *args: Any, timeout: Duration = "10s") -> Any:
        """Ask a query handler of the workflow; paused and ended runs answer too.

        Raises:
            NotFound: no such execution or query.
            Conflict: the run is parked, or was paused before it began.
            Invalid: the name is not text, or the arguments do not fit.
            ApplicationError: what else the handler raised.
            Unavailable: no worker answered in time.
        """
        payload.text(name, what="name")
        return await self._ask("query:" + name, args, timeout, "")

    async def update(
        self, name: str, *args: Any, id: str | None = None, timeout: Duration = "10s"
    ) -> Any:
        """Run an update handler of the workflow and return its answer.

        ``id`` makes a repeated call return the first outcome.

        Raises:
            NotFound: no such execution or update.
            Invalid: the name or the id is not text, or the arguments do not fit.
            ApplicationError: what else the handler raised.
            Closed: the execution has ended, or ended first.
            Conflict: the run is paused or parked.
            Unavailable: no answer in time; an accepted update goes on.
        """
        payload.text(name, what="name")
        update_id = payload.text(id or self._door.chance(12).hex(), what="id")
        return await self._ask("update:" + name, args, timeout, update_id)

    async def set_metadata(self, values: Mapping[str, Any], timeout: Duration = "10s") -> None:
        """Set metadata of a graph's run, key by key, for later steps; raises as :meth:`update`."""
        await self.update(SET_METADATA, visits.metadata(values), timeout=timeout)

    # -- inside ------------------------------------------------------------------------------

    def follow_from(self, run: int) -> None:
        """Begin with run number ``run`` and go on with whatever continues it."""
        self._run = run
        self._pinned = False

    @property
    def _door(self) -> Door:
        return self._client.door

    async def _original(self) -> branching.Original:
        row = sound(await self._row())
        turns = await whole_history(self._door, row)
        search = await self._door.read(lambda store: store.attributes(row.run))
        return branching.Original(row, turns, search)

    def _on(self, started: Started) -> Handle[T]:
        id, run_id, namespace = started.workflow_id, started.run_id, self.namespace
        handle: Handle[T] = Handle(self._client, id, run_id, self._read, namespace=namespace)
        handle.follow_from(started.run)
        return handle

    async def _result(self) -> T:
        run = self._run or (await self._row()).run
        while True:
            closing = await self._door.ended(run)
            next_run_id = endings.followed_by(closing)
            if self._pinned and isinstance(closing, ev.RunContinued):
                raise errors.Closed(
                    f"this run of {self.id!r} continued as new in run {closing.run_id}; "
                    "ask without a run_id to follow"
                )
            if self._pinned or not next_run_id:
                error = endings.error_of(closing, self.id)
                if error is not None:
                    raise error
                return self._read(endings.result_of(closing) or payload.NULL)
            row = await self._find(next_run_id)
            run = row.run

    async def _state(self) -> str:
        """Say how the run is, for an error: soon, and whatever happens."""
        try:
            async with asyncio.timeout(_STATE_SECONDS):
                row = await self._row()
        except (errors.PerdureError, TimeoutError):
            return "its status cannot be read now"
        return f"run {row.run_id} is {row.status}"

    async def _post(self, fact: ev.Event, sender: str, seq: int) -> None:
        row = await self._row()
        posted = await self._door.post(row, fact, sender, seq)
        error = refusal(posted, self.id)
        if error is not None:
            raise error

    async def _is_asked(self, row: RunRow, kind: Any, *became: Status) -> bool:
        """Whether somebody has asked for it and no worker has taken note, or it ``became`` so."""
        loaded = (await self._door.read(lambda store: store.load([row.run])))[0]
        return loaded.row.status in became or any(is_a(kind, it.event) for it in loaded.inbox)

    async def _end(self, fact: ev.Event) -> bool:
        row = await self._row()
        if row.status.is_terminal:
            return False
        sender, seq = self._client.next_seq()
        try:
            await self._post(fact, sender, seq)
        except errors.Closed:
            return False
        return True

    async def _ask(
        self, name: str, args: tuple[Any, ...], timeout: Duration, update_id: str
    ) -> Any:
        row = await self._row()
        branching.check_original(row, "asked", None)
        said = why.unanswering(row, name)
        if said and not await self._is_asked(row, ev.GOES_ON, *GOING):
            raise errors.Conflict(said)
        what = f"arguments of {name}"
        data = payload.encode(list(args), what=what)
        payload.limit(data, self._client.max_payload, what=what)
        question = Question(
            id=self._door.chance(12).hex(),
            execution=row.execution,
            name=name,
            args=data,
            deadline=self._door.now() + microseconds(timeout, what="timeout"),
            run=row.run,
            update=update_id,
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
        door, name, home = self._door, self.id, self.namespace
        if run_id:
            row = await door.read(lambda store: store.find(name, namespace=home, run_id=run_id))
        else:
            row = await door.find(name, home)
        if row is None:
            raise errors.NotFound(f"there is no workflow {self.id!r}")
        return row
