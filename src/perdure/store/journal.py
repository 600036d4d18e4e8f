"""History rows of all runs in the order of their commits: what ``Reader.journal`` gives."""

from __future__ import annotations

import msgspec


class JournalRow(msgspec.Struct, gc=False):
    """One history row among those of all runs. ``id`` grows with each commit.

    ``fault``: why its payload cannot be read; empty if it can.
    """

    id: int
    run: int
    run_id: str
    namespace: str
    workflow_id: str
    workflow: str
    first: int
    count: int
    time: int
    payload: bytes
    fault: str = ""


class Journal(msgspec.Struct, gc=False):
    """Some history rows in the order of their commits. ``last``: the newest there is of any run.

    ``deleted_to``: rows up to this one may have been deleted with their runs.
    """

    rows: list[JournalRow]
    last: int
    deleted_to: int = 0
