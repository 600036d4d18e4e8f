"""The engine's own door: clients in the worker's process skip the inbox."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from perdure import errors
from perdure.definition import Workflow
from perdure.door import BUSY_TRIES, StoreDoor, busy
from perdure.engine.core import Core
from perdure.engine.runs import Input
from perdure.store.port import (
    Act,
    Acted,
    Happened,
    HumanTaskRaise,
    HumanTaskRow,
    LogEntry,
    Posted,
    Question,
    Reader,
    RunRow,
    ScheduleDrop,
    SchedulePut,
    ScheduleRow,
    ScheduleSteer,
    Started,
    StartRequest,
    Store,
)
from perdure.values import events as ev
from perdure.values import failures, limits
from perdure.values.audit import AuditLine
from perdure.values.records import Amend, Amended

T = TypeVar("T")


class EngineDoor:
    """See ``perdure.door.Door``. Facts enter runs as inputs, in the order they were handed in."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.subjects = core.subjects
        self._store_door = StoreDoor(core.desk, core.clock.now, core.chance, watch=core.watch)

    async def start(
        self, request: StartRequest, started: ev.RunStarted, definition: Workflow[Any, Any] | None
    ) -> Started:
        core = self._core
        core.watch.check()
        known = core.registry.definition(request.workflow, request.version)
        if definition is not None and known is not definition:
            raise errors.NotFound(
                f"workflow {definition.name!r} is not among this engine's definitions; "
                "pass it (or its module) in Engine(definitions=[…])"
            )
        is_remote = known is None or request.queue not in core.registry.queues
        if is_remote or known is None or not self._is_eager(request):
            answer = await self._store_door.start(request, started, definition)
            if answer.created and request.state is not None and request.state.wake_at is not None:
                core.timers.add(answer.run, request.state.wake_at)
            core.intake.look()
            return answer
        answer = await core.start(request, started, known)
        for _ in range(BUSY_TRIES):
            if answer.refused != "busy":
                return answer
            answer = await core.start(request, started, known)
        raise busy(request)

    async def find(self, name: str, namespace: str) -> RunRow | None:
        self._core.watch.check()
        return await self._store_door.find(name, namespace)

    def start_within(
        self, connection: object, request: StartRequest, started: ev.RunStarted
    ) -> Started:
        return self._store_door.start_within(connection, request, started)

    def _is_eager(self, request: StartRequest) -> bool:
        is_due = request.not_before <= self._core.clock.now() and not request.is_paused
        return request.is_eager and is_due

    async def start_copy(self, request: StartRequest) -> Started:
        self._core.watch.check()
        answer = await self._store_door.start_copy(request)
        self._core.intake.look()
        return answer

    async def post(
        self, row: RunRow, fact: ev.Event, sender: str, seq: int, audit: AuditLine | None = None
    ) -> Posted:
        core = self._core
        core.watch.check()
        if row.status.is_terminal:
            return Posted("closed")
        if not core.registry.serves(row):
            return await self._store_door.post(row, fact, sender, seq, audit)
        if audit is not None:  # it is written in the transaction that takes the fact
            posted = await self._store_door.post(row, fact, sender, seq, audit)
            core.intake.look()
            return posted
        run = core.take_up(row.run)
        unread = row.unread if run.instance is None else run.instance.unread
        is_message = isinstance(fact, ev.MessageReceived)
        if is_message and unread + len(run.inputs) >= limits.INBOX_PER_EXECUTION:
            return Posted("full")
        future: asyncio.Future[Posted] = asyncio.get_running_loop().create_future()

        def done(error: BaseException | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(Posted("delivered", execution=row.execution, run=row.run))
            elif isinstance(error, errors.Closed):
                future.set_result(Posted("closed"))
            else:
                future.set_exception(error)

        core.turns.put(run, Input(fact, done=done))
        return await future

    async def ask(self, row: RunRow, question: Question) -> bytes:
        self._core.watch.check()
        try:
            return await self._answer(question)
        except errors.Unavailable:
            is_move = question.name.startswith("move:")  # another worker may have the version
            if (
                not is_move
                and self._core.registry.definition(row.workflow, row.version) is not None
                and (row.owner in (None, self._core.committer.worker))
            ):
                raise
            return await self._store_door.ask(row, question)

    async def _answer(self, question: Question) -> bytes:
        try:
            return await self._core.answers.ask(question)
        except errors.PerdureError:
            raise
        except Exception as exc:  # what a handler raised: as a client elsewhere would get it
            raise failures.to_exception(failures.from_exception(exc)) from exc

    async def ended(self, run: int) -> ev.Event:
        core = self._core
        return await core.watch.ended(run)

    async def read(self, verb: Callable[[Reader], T]) -> T:
        self._core.watch.check()
        return await self._core.desk.read(verb)

    async def write(self, verb: Callable[[Store], T]) -> T:
        return await self._core.desk.write(verb)

    async def act(self, act: Act) -> HumanTaskRow:
        self._core.watch.check()
        task = await self._store_door.act(act)
        self._acted([act], [task])
        return task

    async def act_all(
        self, acts: Sequence[Act], *, all_or_none: bool = False
    ) -> list[Acted | errors.PerdureError]:
        self._core.watch.check()
        answers = await self._store_door.act_all(acts, all_or_none=all_or_none)
        done = [
            (act, answer.task)
            for act, answer in zip(acts, answers, strict=True)
            if isinstance(answer, Acted)
        ]
        self._acted([act for act, _ in done], [task for _, task in done])
        return answers

    async def raise_human_task(self, wanted: HumanTaskRaise) -> HumanTaskRow:
        self._core.watch.check()
        return await self._store_door.raise_human_task(wanted)

    def _acted(self, acts: Sequence[Act], tasks: Sequence[HumanTaskRow]) -> None:
        self._core.intake.look()  # a run's inbox may hold a decision
        for act, task in zip(acts, tasks, strict=True):
            if act.verb == "escalate":
                told = LogEntry(self._core.clock.now(), act.by, "escalated", {"role": task.role})
                self._core.escalations.told(task, told)

    async def amend(
        self, amend: Amend, schedules: Sequence[SchedulePut | ScheduleDrop] = ()
    ) -> Amended:
        self._core.watch.check()
        amended = await self._store_door.amend(amend, schedules)
        if schedules:
            self._core.schedules.look()
        return amended

    async def put_schedule(self, put: SchedulePut) -> ScheduleRow:
        self._core.watch.check()
        row = await self._store_door.put_schedule(put)
        self._core.schedules.hear(row.next_at)
        return row

    async def steer_schedule(self, steer: ScheduleSteer) -> Happened:
        self._core.watch.check()
        happened = await self._store_door.steer_schedule(steer)
        self._core.schedules.steered(steer, happened)
        return happened

    def next_change(self) -> asyncio.Future[None]:
        return self._core.watch.next_change()

    def next_commit(self) -> asyncio.Future[None]:
        return self._core.watch.next_commit()

    def now(self) -> int:
        return self._core.clock.now()

    def chance(self, size: int) -> bytes:
        return self._core.chance(size)

    def definition(self, name: str, version: str) -> Workflow[Any, Any] | None:
        found = self._core.registry.definition(name, version)
        # A run may go on under the only version there is; a start gets what it asks for.
        return found if not version or (found and found.version == version) else None

    async def close(self) -> None:
        """The engine closes what it opened."""
