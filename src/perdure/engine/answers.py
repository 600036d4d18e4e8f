"""Answers queries and runs updates: questions from outside to live code."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from perdure import errors
from perdure.door import encode_answer
from perdure.engine.moving import move
from perdure.engine.runs import Input, Phase, Run
from perdure.kernel.instance import Instance, StoredTurn
from perdure.store.port import Loaded, Question, RunRow
from perdure.values import events as ev
from perdure.values import failures
from perdure.values.states import Status

if TYPE_CHECKING:
    from perdure.engine.core import Core

_AGAIN_SECONDS = 0.005


class _Moved(Exception):
    """The run has ended, continued as new or left this worker before it could answer."""


class Answers:
    """Each question gets an encoded answer, or ``Unavailable`` if this worker cannot give one."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def ask(self, question: Question) -> bytes:
        """Answer a question put to the latest run of an execution."""
        kind, _, name = question.name.partition(":")
        if kind == "move":
            return await move(self._core, question, name)
        while True:
            row = await self._row(question.run)
            if self._core.registry.definition(row.workflow, row.version) is None:
                raise errors.Unavailable(f"this worker does not know workflow {row.workflow!r}")
            if row.status is Status.CONTINUED_AS_NEW:
                answer = await self._recorded(question) if kind == "update" else None
                if answer is not None:
                    return answer
                question = msgspec.structs.replace(question, run=await self._next_run(row))
            elif row.status.is_terminal or (row.status is Status.PAUSED and kind == "query"):
                return await self._of_resting(question, kind, name)
            else:
                try:
                    return await self._of_live(question, row, kind, name)
                except _Moved:
                    # A worker that has lost its lease loses runs again and again until it is back.
                    await asyncio.sleep(_AGAIN_SECONDS)

    async def _row(self, run: int) -> RunRow:
        rows = await self._core.desk.read(lambda store: store.rows([run]))
        if not rows:
            raise errors.NotFound("there is no such run")
        return rows[0]

    async def _next_run(self, row: RunRow) -> int:
        """Return the current run of an execution that continued as new."""
        last = await self._core.desk.read(lambda store: store.last_turn(row.run))
        assert last is not None
        continued = ev.decode_turn(last.payload)[-1]
        assert isinstance(continued, ev.RunContinued)
        found = await self._core.desk.read(
            lambda store: store.find("", namespace=row.namespace, run_id=continued.run_id)
        )
        if found is None:
            raise errors.Corrupt(f"run {row.run} was continued by a run that is not there")
        return found.run

    async def _of_live(self, question: Question, row: RunRow, kind: str, name: str) -> bytes:
        core = self._core
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        run = core.take_up(question.run, row.length)
        self._when_idle(run, lambda: self._put(run, question, kind, name, future))
        left = (question.deadline - core.clock.now()) / 1_000_000
        try:
            async with asyncio.timeout(max(0.001, left)):
                return await future
        except TimeoutError:
            raise errors.Unavailable(f"{kind} {name!r} was not answered in time") from None

    def _when_idle(self, run: Run, call: Callable[[], None]) -> None:
        """Call back as a plain callback when the run is at rest (or gone)."""
        run.on_idle = (*run.on_idle, call)
        if run.phase is Phase.IDLE and not run.is_queued:
            if run.instance is None:
                self._core.reload(run)
            else:
                asyncio.get_running_loop().call_soon(self._core.settle, run)

    def _put(
        self, run: Run, question: Question, kind: str, name: str, future: asyncio.Future[bytes]
    ) -> None:
        if future.done():
            return
        instance = run.instance
        guard = self._core.guard
        guard.enter(f"{question.name} of {run.workflow_id!r}", run.key)
        error: Exception | None = None
        try:
            if run.status.is_terminal:
                raise _Moved
            if run.status.is_stopped:
                raise errors.Unavailable(f"workflow {run.workflow_id!r} is {run.status}")
            if run.phase is Phase.GONE or instance is None or instance.started is None:
                raise errors.Unavailable("the run is with another worker")
            if kind == "query":
                answer = instance.query(name, lambda handler: handler.answer(question.args))
                future.set_result(encode_answer(answer, None))
            else:
                self._update(run, instance, question, name, future)
        except errors.TurnTimeout:
            guard.arrived()
        except Exception as exc:  # noqa: BLE001 - user code of a handler may raise anything
            error = exc
        interrupted = guard.leave()
        if interrupted:
            error = errors.Unavailable(f"{question.name} ran longer than the turn limit")
        if instance is not None and (interrupted or instance.is_spoilt):
            run.drop_instance()  # a replay would not be like it
        if error is not None and not future.done():
            future.set_exception(error)
            future.exception()

    def _update(
        self,
        run: Run,
        instance: Instance,
        question: Question,
        name: str,
        future: asyncio.Future[bytes],
    ) -> None:
        def answered(event: ev.UpdateCompleted | None) -> None:
            if future.done():
                return
            if event is None:
                future.set_exception(_Moved())
            else:
                future.set_result(encode_answer(event.result, event.failure))

        done = instance.answered.get(question.update)
        if done is not None:
            answered(done)
            return
        if question.update not in instance.updates and question.update not in run.updates:
            instance.validate_update(name, lambda handler: handler.validate(question.args))
            fact = ev.UpdateAccepted(update=question.update, name=name, args=question.args)
            self._core.turns.put(run, Input(fact))
        run.updates.setdefault(question.update, []).append(answered)

    async def _of_resting(self, question: Question, kind: str, name: str) -> bytes:
        """Answer from a scratch replay of a run that has ended, or is paused."""
        if kind == "update":
            answer = await self._recorded(question)
            if answer is None:
                raise errors.Closed("the workflow has ended")
            return answer
        core = self._core
        loaded = (await core.desk.read(lambda store: store.load([question.run])))[0]
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(self._replay, loaded, question, name, future)
        return await future

    async def _recorded(self, question: Question) -> bytes | None:
        """Return the answer of an update that an ended run completed."""
        loaded = (await self._core.desk.read(lambda store: store.load([question.run])))[0]
        for turn in loaded.turns:
            for event in ev.decode_turn(turn.payload):
                if isinstance(event, ev.UpdateCompleted) and event.update == question.update:
                    return encode_answer(event.result, event.failure)
        return None

    def settle(self, run: Run, instance: Instance) -> None:
        """Answer the updates that a rebuilt run turns out to have completed."""
        for update in [update for update in run.updates if update in instance.answered]:
            for answer in run.updates.pop(update):
                answer(instance.answered[update])

    def _replay(
        self, loaded: Loaded, question: Question, name: str, future: asyncio.Future[bytes]
    ) -> None:
        core = self._core
        definition = core.registry.definition(loaded.row.workflow, loaded.row.version)
        assert definition is not None
        instance = Instance(definition, max_payload=core.max_payload)
        core.guard.enter(f"a query of {loaded.row.workflow_id!r}")
        answer: Any = None
        error: Exception | None = None
        try:
            instance.replay(
                StoredTurn(ev.decode_turn(t.payload), t.time, t.applied, len(t.payload))
                for t in loaded.turns
            )
            if instance.started is None and not loaded.row.status.is_terminal:
                raise errors.Conflict(f"{loaded.row.workflow_id!r} is paused and has not begun")
            answer = instance.query(name, lambda handler: handler.answer(question.args))
        except errors.TurnTimeout:
            core.guard.arrived()
        except Exception as exc:  # noqa: BLE001 - it goes back to whoever asked
            error = exc
        if core.guard.leave():
            error = errors.Unavailable("the replay for the query ran longer than the turn limit")
        instance.evict()
        if future.done():
            return
        if error is not None:
            future.set_result(encode_answer(None, failures.from_exception(error)))
        else:
            future.set_result(encode_answer(answer, None))
