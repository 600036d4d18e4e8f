"""What a run leaves to people by ending: see ``human/escalation.py``.

Most ends are none of its business: a look at the kind of the end, and for one word in the result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from perdure.engine import beside
from perdure.engine.limits import SYSTEM
from perdure.human import escalation
from perdure.store.port import TurnWrite
from perdure.values import endings
from perdure.values import events as ev

if TYPE_CHECKING:
    from perdure.engine.core import Core
    from perdure.engine.runs import Run


def add(core: Core, run: Run, closing: ev.Event, write: TurnWrite) -> None:
    """Let the commit that ends a run start what asks people, if its end is an escalation."""
    started = run.started
    if started is None or run.workflow.startswith(SYSTEM):
        return
    if isinstance(closing, ev.RunCompleted):
        asked = escalation.returned(closing.result, started.input)
    elif isinstance(closing, ev.RunFailed) and not endings.followed_by(closing):
        asked = escalation.raised(closing.failure.root, closing.text, started.input)
    else:
        return
    if asked is None:
        return
    given = {
        "workflow": run.workflow,
        "workflow_id": run.workflow_id,
        "run_id": run.run_id,
        "input": msgspec.Raw(started.input),
        "terms": msgspec.structs.replace(started.terms, start_delay=0, cron=""),
        "places": started.places,
        **asked.fields,
    }
    request = beside.begin(
        core,
        run,
        escalation.companion,
        escalation.id_for(run.workflow_id, run.run_id),
        msgspec.json.encode(given),
        write.time,
        context=started.context,
    )
    beside.inherit(run, request)
    request.search = {**asked.search, escalation.SEARCH: run.workflow_id}
    write.children = [*write.children, request]
