"""What is read from the tables themselves, past the port."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from perdure.values.concurrency import Place
from perdure.values.states import CODES, Status

_TWICE_OPEN = """
SELECT r.namespace, r.workflow_id, count(*) FROM perdure_state s JOIN perdure_run r USING (run)
WHERE s.status < 5 GROUP BY r.namespace, r.workflow_id HAVING count(*) > 1
"""
_IS_OPEN = "SELECT s.execution FROM perdure_state s WHERE s.status < 5"
_ORPHANS = {
    "inbox rows": f"SELECT execution, event FROM perdure_inbox WHERE execution NOT IN ({_IS_OPEN})",
    "watches of what has ended": "SELECT target, watcher, mailbox, way FROM perdure_watch "
    f"WHERE target NOT IN ({_IS_OPEN})",
    "watches by what has ended": "SELECT target, watcher, mailbox, way FROM perdure_watch "
    f"WHERE watcher IS NOT NULL AND watcher NOT IN ({_IS_OPEN})",
    "watches of closed mailboxes": "SELECT target, mailbox, way FROM perdure_watch "
    "WHERE mailbox IS NOT NULL AND mailbox NOT IN (SELECT mailbox FROM perdure_mailbox)",
    "mail of closed mailboxes": "SELECT mailbox FROM perdure_mail "
    "WHERE mailbox NOT IN (SELECT mailbox FROM perdure_mailbox)",
    "deciding rows": "SELECT run, activity FROM perdure_open_tx "
    "WHERE run NOT IN (SELECT run FROM perdure_state WHERE status < 5)",
    "heartbeats": "SELECT run, activity FROM perdure_beat "
    "WHERE run NOT IN (SELECT run FROM perdure_state WHERE status < 5)",
}
_BEGUN = ", ".join(str(CODES[it]) for it in (Status.RUNNING, Status.WAITING, Status.PARKED))
_ADMITTED = f"""
SELECT DISTINCT r.workflow_id FROM perdure_state s JOIN perdure_run r USING (run)
LEFT JOIN perdure_slot p ON p.execution = s.execution
WHERE EXISTS (SELECT 1 FROM perdure_limit)
    AND s.status < 5 AND (p.place = {int(Place.TAKEN)} OR s.status IN ({_BEGUN}))
"""
_FAR = 1 << 60


def select(store: Any, sql: str) -> list[tuple[Any, ...]]:
    """Return the rows of a question."""
    return store.database.execute(sql).fetchall()


def make_ledger(store: Any) -> None:
    """Create the table that transactional activities write to."""
    store.database.execute("create table ledger (run_id, activity)")


def booked(store: Any) -> dict[tuple[str, int], int]:
    """Return how many rows each call has written."""
    sql = "select run_id, activity, count(*) from ledger group by run_id, activity"
    return {(run_id, activity): count for run_id, activity, count in select(store, sql)}


def twice_open(store: Any) -> list[str]:
    """Name the workflow ids of which more than one run is open."""
    found = select(store, _TWICE_OPEN)
    return [f"{id!r} has {count} open runs at once" for _, id, count in found]


def admitted(store: Any) -> set[str]:
    """Return the workflow ids of those that a limit has let in, or that run whatever it says.

    Nobody, as long as no worker has come and said what the limits are.
    """
    return {id for (id,) in select(store, _ADMITTED)}


def orphans(store: Any) -> Iterator[str]:
    """Yield what is left of executions that have ended: at no moment is there anything."""
    for what, sql in _ORPHANS.items():
        found = select(store, sql)
        if found:
            yield f"{len(found)} {what} were left: {found[:3]}"


def orphans_at_the_end(store: Any) -> Iterator[str]:
    """The same, when also mailboxes that nobody keeps open are forgotten."""
    store.close_mailboxes([], _FAR)
    yield from orphans(store)
