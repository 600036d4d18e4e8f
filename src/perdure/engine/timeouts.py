"""What a definition says about the time of its runs, recorded when a run's first turn is taken.

Event 1 holds what the start asked for. Who starts a run may not know its definition: then the fact
that a worker took it up holds the limit. Either way it is in the history from the first turn on,
and a run keeps it, whatever later code says.
"""

from __future__ import annotations

from typing import Any

from perdure.definition import Workflow
from perdure.engine.runs import Run
from perdure.store.port import RunRow, StartRequest
from perdure.values import events as ev
from perdure.values.duration import soonest


def limit_start(
    definition: Workflow[Any, Any], request: StartRequest, started: ev.RunStarted
) -> None:
    """Give a run that is started here no more time than its definition allows."""
    if definition.timeout:
        limit = (started.not_before or started.started_at) + definition.timeout
        started.run_deadline = soonest(limit, started.run_deadline)
        request.deadline = soonest(limit, request.deadline)


def limit_first_turn(run: Run, row: RunRow, taken: ev.RunTaken) -> None:
    """Give a run that is taken up for its first turn no more time than its definition allows."""
    if run.definition is not None and run.definition.timeout and run.started is not None:
        taken.run_deadline = (row.begins_at or row.created_at) + run.definition.timeout
        run.started = taken.onto(run.started)
