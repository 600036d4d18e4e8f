"""Moves a run to another version of its definition.

Somebody asks (a question, like a query); a worker that defines the version replays the run's
history with it. If it fits, the fact ``run_moved`` and the run's new version are written in one
commit, which claims the run at the length that was replayed: a run that has grown meanwhile is
looked at again. If it does not fit, whoever asked hears where, and nothing is changed.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from perdure import errors
from perdure.door import encode_answer
from perdure.engine.replaying import replay
from perdure.engine.rows import identify
from perdure.engine.runs import Input, Phase, Run
from perdure.store.port import Loaded, Question, RunRow, StateWrite, TurnWrite
from perdure.values import events as ev
from perdure.values.states import Status

if TYPE_CHECKING:
    from perdure.definition import Workflow
    from perdure.engine.core import Core

_AGAIN_SECONDS = 0.01


async def move(core: Core, question: Question, version: str) -> bytes:
    """Move a run; return the encoded answer whether that changed anything.

    Raises:
        Unavailable: this worker cannot: it does not define the version, or time is over.
        NondeterminismError, Conflict, Closed, Corrupt: it cannot be moved.
    """
    is_changed = False
    while core.clock.now() < question.deadline:
        found = await core.desk.read(lambda store: store.load([question.run]))
        if not found:
            raise errors.NotFound("there is no such run")
        loaded, row = found[0], found[0].row
        target = core.registry.version(row.workflow, version)
        if target is None:
            raise errors.Unavailable(
                f"no running worker answered that defines {row.workflow!r} {version}"
            )
        if row.version == target.version:
            if row.status is Status.PARKED:
                if not is_changed:
                    _check_fit(core, loaded, target)
                unpark = Input(ev.RunUnparked(by="move"), done=_nobody_waits)
                core.post_back(_run_of(row), [unpark])
                is_changed = True
            return encode_answer(b"true" if is_changed else b"false", None)
        _check_rest(row)
        _check_fit(core, loaded, target)
        is_changed = await _write(core, loaded, target)
        if not is_changed:
            await asyncio.sleep(_AGAIN_SECONDS)
    raise errors.Unavailable("the run was busy all the time; try again")


def _check_rest(row: RunRow) -> None:
    """Refuse to move a run that is at work or has ended."""
    if row.status.is_terminal:
        raise errors.Closed("the workflow has ended")
    if row.owner is not None or row.status is Status.RUNNING:
        raise errors.Conflict(
            f"workflow {row.workflow_id!r} has work in flight; move it when it waits, or pause it"
        )


def _check_fit(core: Core, loaded: Loaded, target: Workflow[Any, Any]) -> None:
    """Refuse to let a run go by code that does not fit its history."""
    row = loaded.row
    if loaded.broken:
        raise errors.Corrupt(loaded.broken)
    found = replay(target, loaded, core.guard, max_payload=core.max_payload)
    if found.misfit is not None:
        raise errors.NondeterminismError(
            f"version {target.version} does not fit {row.workflow_id!r}: {found.misfit.detail}",
            details=found.misfit.place,
        )
    found.instance.evict()


async def _write(core: Core, loaded: Loaded, target: Workflow[Any, Any]) -> bool:
    """Commit the move; False if it was not tried: the run is busy here, or has moved on."""
    row = loaded.row
    run = core.runs.get(row.run)
    if run is None:
        run = core.runs[row.run] = _run_of(row)
    is_busy = run.is_queued or run.inputs or run.is_owned or run.work or run.updates
    if run.phase is not Phase.IDLE or is_busy or run.length != row.length:
        return False
    run.drop_instance()
    idle: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    run.on_idle = (*run.on_idle, lambda: None if idle.done() else idle.set_result(None))
    fact = ev.RunMoved(version=target.version, by="client")
    time = max(core.clock.now(), loaded.turns[-1].time if loaded.turns else 0)
    write = TurnWrite(
        run=row.run,
        execution=row.execution,
        first=row.length + 1,
        count=1,
        time=time,
        payload=ev.encode_turn([fact]),
        applied=False,
        claim=row.length,
        version=target.version,
        state=StateWrite(
            status=row.status,
            owned=False,
            length=row.length + 1,
            wake_at=row.wake_at,
            reason=row.reason,
            detail=row.detail,
            unblock=row.unblock,
            waits=row.waits,
            since=time,
            unread=row.unread,
        ),
    )
    # Without the fact as an input: should it not be written, the next look at the row decides.
    core.turns.hand_in(run, write, [], None)
    await idle
    return True


def _run_of(row: RunRow) -> Run:
    run = Run(row.run)
    identify(run, row)
    run.length = row.length
    return run


def _nobody_waits(_error: BaseException | None) -> None:
    """The answer was given: the run is moved, and parked runs are tried by later workers too."""
