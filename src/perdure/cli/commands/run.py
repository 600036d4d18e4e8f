"""``perdure run``: a worker in this process for one execution."""

from __future__ import annotations

import asyncio
import logging
import sys
from contextlib import redirect_stdout
from functools import partial
from types import ModuleType
from typing import Any

import click

from perdure import lint
from perdure.cli import exits, given
from perdure.cli.finding import tell_if_open
from perdure.cli.live import Above, LiveLine
from perdure.cli.loading import load_workflow
from perdure.cli.out import LOG_FORMAT, document, hint, say
from perdure.cli.session import Database, database_option, sealing
from perdure.cli.watchdog import Watchdog
from perdure.definition import Workflow
from perdure.engine.engine import Engine
from perdure.errors import Invalid
from perdure.handle import Handle
from perdure.values.duration import SECOND, microseconds
from perdure.values.states import Status

_LOOK_SECONDS = 0.1
_HELD_SECONDS = 1.0
"""How long the loop may take to notice that --timeout is over."""
_STOP_SECONDS = 10.0
"""A stop after --timeout: the grace of what runs, and what is left to write."""
_PARKED_LOOKS = 10
"""A run that was parked when this worker came gets a second in which the worker tries it anew."""


@click.command("run")
@click.argument("target", metavar="MODULE:WORKFLOW")
@click.argument("items", nargs=-1, metavar="[INPUT] [K=V]...")
@click.option("--input", "document_", metavar="JSON|@FILE|-", help="The input, as an option.")
@click.option("--id", metavar="ID", help="Workflow id; an open execution with it is carried on.")
@click.option(
    "--timeout", metavar="SPAN", help="Wait no longer than this (90s, 5m); exit code 124."
)
@click.option(
    "-o", "--output", type=click.Choice(["json"]), expose_value=False, help="It is always JSON."
)
@database_option
def run_command(
    database: Database,
    target: str,
    items: tuple[str, ...],
    document_: str | None,
    id: str | None,
    timeout: str | None,
) -> int:
    """Run a workflow in this process, to its end; print the result as JSON.

    MODULE is a dotted name, or a path to a .py or a definition file (.yaml, .json). INPUT is JSON,
    plain text, @FILE or - (stdin); K=V sets fields of it; V is JSON where it can be (b=2 is a
    number; text is b='"2"'). What ends this command does not end the run: it goes on when a worker
    serves it again.
    """
    value = given.payload(items, document_)
    with redirect_stdout(sys.stderr):
        module, definition = load_workflow(target)
    running = _Running(database, target, module, definition, items)
    try:
        return asyncio.run(running.run(value, id, timeout))
    except KeyboardInterrupt:
        hint("interrupted" + running.how_to_go_on())
        return exits.INTERRUPTED


class _Running:
    def __init__(
        self,
        database: Database,
        target: str,
        module: ModuleType,
        definition: Workflow[Any, Any],
        items: tuple[str, ...],
    ) -> None:
        self._items = items
        self._database = database
        self._target = target
        self._module = module
        self._definition = definition
        self._handle: Handle[Any] | None = None
        self._has_ended = False

    def how_to_go_on(self) -> str:
        """Return what to type so that the run goes on."""
        if self._handle is None or self._has_ended:
            return ""
        line = self._database.line("run", self._target, "--id", self._handle.id)
        return f"; the run is kept and goes on with: {line}"

    async def run(self, value: Any, id: str | None, timeout: str | None) -> int:
        live = LiveLine()
        above: Any = Above(live)
        logging.basicConfig(level=logging.WARNING, format=LOG_FORMAT, stream=above)
        # Failed attempts and the run's end are told by the live line.
        logging.getLogger("perdure.runs").setLevel(logging.CRITICAL)
        # Of the module's workflows only this one is run here.
        lint.warn(self._definition)
        logging.getLogger("perdure.lint").setLevel(logging.CRITICAL)
        # What user code prints must not get into the result.
        with redirect_stdout(above):
            code, result = await self._run(value, id, timeout, live)
        if code == exits.OK:
            say(document(result))
        return code

    async def _run(
        self, value: Any, id: str | None, timeout: str | None, live: LiveLine
    ) -> tuple[int, Any]:
        async with Engine(
            self._database.url, [self._module, self._definition], **sealing()
        ) as engine:
            options = {} if id is None else {"id": id}
            # Before the start: the run's first turn, and more, may come within it.
            watchdog = Watchdog(exits.TIMED_OUT, partial(self._tell_held, timeout))
            if timeout is not None:
                limit = microseconds(timeout, what="--timeout") / SECOND
                watchdog.set(limit + _HELD_SECONDS)
            asked_at = engine.client.door.now()
            try:
                started = await engine.client.start(self._definition, value, **options)
            except Invalid as exc:
                watchdog.cancel()
                raise given.hint_at_text(exc, self._items) from exc
            # Without the definition's types: a result is printed also if it does not fit them.
            handle = self._handle = engine.client.get(started.id)
            hint(f"{self._definition.name} {handle.id} on {self._database.name}")
            if id is not None:
                await tell_if_open(handle, asked_at)
            outcome = asyncio.create_task(handle.result(timeout=timeout))
            parked = asyncio.create_task(_until_parked(handle))
            showing = asyncio.create_task(live.follow(handle))
            try:
                await asyncio.wait([outcome, parked], return_when=asyncio.FIRST_COMPLETED)
                if not outcome.done():
                    watchdog.cancel()
                    code = await self._gave_up(handle, "parked", exits.FAILED, live)
                elif isinstance(outcome.exception(), TimeoutError):
                    what = f"{timeout} are over"
                    watchdog.set(_STOP_SECONDS)
                    return await self._gave_up(handle, what, exits.TIMED_OUT, live), None
                else:
                    watchdog.cancel()
                    code, self._has_ended = exits.OK, True
                    showing.cancel()
                    await live.tell_rest(handle)
            except asyncio.CancelledError:
                watchdog.cancel()
                live.clear()
                hint("stopping: what runs gets a moment to finish (Ctrl-C again: at once)")
                raise
            finally:
                for part in (outcome, parked, showing):
                    part.cancel()
                await asyncio.gather(outcome, parked, showing, return_exceptions=True)
                live.clear()
            await _let_others_end(engine)
            return code, outcome.result() if self._has_ended else None

    async def _gave_up(self, handle: Handle[Any], what: str, code: int, live: LiveLine) -> int:
        why = (await handle.why()).rstrip(".")
        is_parked = await handle.status() is Status.PARKED
        live.clear()
        # Run again by the same code, it would be parked again.
        hint(f"error: {what}: {why}{self._how_to_see() if is_parked else self.how_to_go_on()}")
        return code

    def _how_to_see(self) -> str:
        if self._handle is None:  # still in its first turn, and perhaps not recorded yet
            return f"; what was recorded, says {self._database.line('list')}"
        return f"; the run is kept; see {self._database.line('why', self._handle.id)}"

    def _tell_held(self, timeout: str | None, place: str) -> None:
        held = f"{place} holds" if place else "something holds"
        hint(
            f"error: {timeout} are over, and {held} the event loop; the process ends at once, and "
            f"what was under way is lost and counts{self._how_to_see()}"
        )


async def _let_others_end(engine: Engine) -> None:
    """Stop, but wait for the attempts under way: they are of other runs, and would be lost."""
    count = engine.under_way
    if count:
        what = "1 activity" if count == 1 else f"{count} activities"
        hint(
            f"waiting for {what} of other runs to end (Ctrl-C cuts off; an attempt cut off counts)"
        )
    try:
        await engine.stop(grace=None)
    except asyncio.CancelledError:
        # The run has ended, and its outcome is still to be told.
        task = asyncio.current_task()
        assert task is not None
        task.uncancel()
        await engine.stop(grace=0)


async def _until_parked(handle: Handle[Any]) -> None:
    """Return when the run is parked and stays so: nothing in this process will change it."""
    looks = 0
    while looks < _PARKED_LOOKS:
        looks = looks + 1 if await handle.status() is Status.PARKED else 0
        await asyncio.sleep(_LOOK_SECONDS)
