"""Attempts that run apart from the engine: which ones, and how they get to a subprocess.

The pool (``engine/processes``) is made when the first such attempt begins: an engine without
isolated work starts no process and loads none of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from perdure.activity import Activity
from perdure.definition import Workflow
from perdure.engine import budgets
from perdure.values import payload
from perdure.values.duration import SECOND

if TYPE_CHECKING:
    from perdure.engine.core import Core
    from perdure.engine.processes.frames import Call
    from perdure.engine.processes.pool import ProcessPool
    from perdure.engine.processes.process import Job
    from perdure.engine.work import Work


class Apart:
    """See the module's text. ``on_room`` is called when an attempt may find room again."""

    def __init__(self, core: Core, on_room: Callable[[], None]) -> None:
        self._core = core
        self._on_room = on_room
        self._pool: ProcessPool | None = None

    def takes(self, work: Work) -> bool:
        """Tell whether this activity runs in a subprocess."""
        definition = work.definition
        if definition is None:
            return False
        if definition.isolation == "process":
            return True
        return definition.is_step and self._isolates(work.run.definition)

    @property
    def has_room(self) -> bool:
        """Whether an attempt can begin now."""
        return self._pool is None or self._pool.has_room

    @property
    def room(self) -> int:
        """How many attempts can begin now."""
        if self._pool is None:
            return self._core.settings.process_slots or os.cpu_count() or 1
        return self._pool.room

    @property
    def pids(self) -> list[int]:
        """Ids of the subprocesses that there are."""
        return [] if self._pool is None else self._pool.pids

    def begin(self, work: Work) -> Job:
        """Begin an attempt; the job's future gets the encoded result, or what went wrong."""
        from perdure.engine.processes.process import Job

        job = Job(work, budgets.purse_of(self._core, work))
        try:
            self._ready().run(self._call(work, has_budget=job.purse is not None), job)
        except Exception as exc:  # noqa: BLE001 - whatever it is, this attempt fails of it
            job.future.set_exception(exc)
        return job

    def check(self, definition: Workflow[Any, Any] | Activity[Any, Any]) -> None:
        """Make sure that subprocesses will find what they are to run of a definition.

        Raises:
            DefinitionError: they would not find a function, or the definition itself.
            UsageError: a service cannot go there.
        """
        if isinstance(definition, Workflow):
            if not self._isolates(definition):
                return
            definition.check_place()
        elif definition.isolation == "process":
            definition.remote()
        else:
            return
        if self._pool is None:
            from perdure.engine.processes.services import packed

            packed(self._core.settings.services)

    async def close(self) -> None:
        """End the subprocesses."""
        if self._pool is not None:
            await self._pool.close()

    def _isolates(self, definition: Workflow[Any, Any] | None) -> bool:
        """Tell whether the steps of a workflow run in subprocesses."""
        if definition is None:
            return False
        said = definition.isolated
        return self._core.settings.isolated if said is None else said

    def _ready(self) -> ProcessPool:
        if self._pool is None:
            from perdure.engine.processes.pool import ProcessPool

            core, settings = self._core, self._core.settings
            self._pool = ProcessPool(
                settings.process_slots or os.cpu_count() or 1,
                kill_grace=settings.kill_grace / SECOND,
                watchdog=settings.watchdog,
                max_payload=core.max_payload,
                services=settings.services,
            )
            self._pool.tell, self._pool.on_room = core.listeners.tell, self._on_room
        return self._pool

    def _call(self, work: Work, *, has_budget: bool) -> Call:
        from perdure.engine.processes.frames import Call

        definition, started = work.definition, work.run.started
        assert definition is not None
        remote = definition.remote()
        return Call(
            number=0,
            opener=remote.opener,
            payload=remote.payload,
            args=work.event.args,
            info=payload.encode(work.info()),
            context=started.context if started is not None else None,
            has_budget=has_budget,
        )
