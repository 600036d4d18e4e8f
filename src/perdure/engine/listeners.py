"""Listeners of this engine: told what it records, by name, after each commit, in their order.

Best effort, in this process: a crash between a commit and its telling leaves it untold here.
Whoever must miss nothing asks ``client.events`` (``feed.py``), which reads what was committed.

An event needs what earlier rows of its run say (``named.Past``). While somebody listens that is
kept with the run; of one that was in memory before, the history is read first, and what comes
waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from perdure import errors, named
from perdure.door import Reads, all_turns
from perdure.engine.runs import Run
from perdure.kernel.people import PendingHumanTask
from perdure.named import Head, NamedEvent, Past
from perdure.store.port import TurnRow, TurnWrite
from perdure.values import events as ev
from perdure.views import to_datetime

_log = logging.getLogger("perdure.engine")


class _Row(NamedTuple):
    run: Run
    write: TurnWrite
    events: list[dict[str, Any]]


class Listeners:
    """``engine.events``."""

    def __init__(self, store: Reads) -> None:
        self._store = store
        self._handlers: list[tuple[str, Callable[[NamedEvent], Any]]] = []
        self._tasks: set[asyncio.Future[Any]] = set()
        self._waiting: deque[_Row] = deque()

    def on(self, pattern: str, handler: Callable[[NamedEvent], Any]) -> Callable[[], None]:
        """Call ``handler(event)`` for events whose name matches; return a function that ends it.

        ``*`` matches the rest, dots included. A plain function is called before whoever waits for
        the run's result hears of it; of an ``async`` one a task is made.
        """
        entry = (pattern, handler)
        self._handlers.append(entry)
        return lambda: self._handlers.remove(entry)

    @property
    def has_any(self) -> bool:
        """Whether anybody listens, to whatever."""
        return bool(self._handlers)

    def recorded(self, run: Run, write: TurnWrite) -> None:
        """Tell what a committed row says. Without listeners it costs next to nothing."""
        if not self._handlers:
            run.past = None
            return
        try:
            self._recorded(run, write)
        except Exception:  # noqa: BLE001 - what was committed stands, whether or not it can be told
            _log.exception("what %s recorded cannot be told", run)

    def loaded(self, run: Run, turns: Sequence[TurnRow]) -> None:
        """Take what a history says, while somebody listens: rows by others may be among it."""
        run.past = None
        if self._handlers:
            with contextlib.suppress(errors.Corrupt):
                run.past = named.past_of(turns)

    def _recorded(self, run: Run, write: TurnWrite) -> None:
        if write.first == 1:
            run.past = Past(is_whole=True)
        row = _Row(run, write, ev.decode_plain(write.payload))
        if run.untold is not None:
            (time, began), run.untold = run.untold, None
            events = ev.decode_plain(ev.encode_turn([began]))
            self._tell(run, events, 1, time, Past(is_whole=True))
        past = run.past = run.past or Past(is_whole=False)
        if self._waiting or not past.knows_enough(row.events, write.first):
            self._waiting.append(row)
            if len(self._waiting) == 1:
                self._keep(asyncio.ensure_future(self._look_up()))
        else:
            self._tell(run, row.events, write.first, write.time, past)

    def remind(self, run: Run, name: str, asked: PendingHumanTask) -> None:
        """Tell the listeners of ``name`` that somebody is still waited for."""
        event = asked.event
        self.tell(
            name,
            {
                "instance_id": run.workflow_id,
                "workflow_name": run.workflow,
                "task_id": asked.id,
                "title": event.title,
                "role": event.role,
                "assignee": event.assignee,
                "due_at": to_datetime(event.due) if event.due else None,
            },
        )

    def tell(self, name: str, data: dict[str, Any]) -> None:
        """Call the handlers whose pattern matches."""
        self._call(NamedEvent(name, data))

    def _tell(
        self, run: Run, events: list[dict[str, Any]], first: int, time: int, past: Past
    ) -> None:
        head = Head(run.workflow_id, run.workflow, run.run_id)
        for _, event in named.tell(events, first, time, head, past):
            self._call(event)

    async def _look_up(self) -> None:
        """Tell what waits, row by row, with what the store says of earlier ones."""
        while self._waiting:
            row = self._waiting[0]
            run, first = row.run, row.write.first
            past = run.past or Past(is_whole=False)
            try:
                if not past.knows_enough(row.events, first):
                    past = named.past_of(await all_turns(self._store, run.key), first)
                run.past = past
                self._tell(run, row.events, first, row.write.time, past)
            except errors.PerdureError as error:
                _log.warning("what %s recorded cannot be told: %s", run, error)
            finally:
                self._waiting.popleft()

    def _call(self, event: NamedEvent) -> None:
        for pattern, handler in list(self._handlers):
            if not event.matches(pattern):
                continue
            try:
                result = handler(event)
            except Exception:  # noqa: BLE001 - a listener is user code; its error is logged
                _log.exception("a listener of %r failed", pattern)
                continue
            if inspect.isawaitable(result):
                self._keep(asyncio.ensure_future(result))

    def _keep(self, task: asyncio.Future[Any]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Future[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a listener failed", exc_info=error)
