"""Children that are about to end because their parents have: nobody is to join them any more.

A parent's end puts a row into the inbox of each child, and the child's owner ends it as soon as it
comes to that. Whoever joined it in between would only hear that somebody else's parent has ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from perdure.errors import Corrupt, SchemaMismatch, Sealed
from perdure.store.port import Batch
from perdure.store.sql.database import Writing
from perdure.store.sql.encoding import to_json
from perdure.store.sql.starting import USES, Existing, Key, requests_of
from perdure.values import events

_PARENT: Final = "parent"
BY_TERMINATE = events.encode_turn([events.RunTerminated(reason="parent closed", by=_PARENT)])
BY_CANCEL = events.encode_turn([events.CancelRequested(reason="parent closed", by=_PARENT)])


def mark(database: Writing, batch: Batch, latest: Mapping[Key, Existing]) -> None:
    """Mark those of ``latest`` that are leaving, and that a start of the batch would use.

    Only who finds an open child in its way asks for anything.
    """
    wanted = {
        (request.namespace, request.workflow_id)
        for request in requests_of(batch)
        if request.conflict in USES
    }
    children = {
        it.run: it
        for key, it in latest.items()
        if key in wanted
        and it.parent is not None
        and it.parent_close == "terminate"
        and not it.status.is_terminal
    }
    if not children:
        return
    for run, data in database.run("unread_of_runs", to_json(list(children))).fetchall():
        try:
            fact = events.decode_fact(database.seal.open(data))
        except (Corrupt, Sealed, SchemaMismatch):
            continue  # no end of a parent says it so
        if isinstance(fact, events.RunTerminated) and fact.by == _PARENT:
            children[run].is_leaving = True
