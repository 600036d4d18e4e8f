"""The reading verbs about runs that have ended: how long they are kept, and what is erased."""

from __future__ import annotations

from perdure.store.erasing import Unerased
from perdure.store.port import Prune, Pruned
from perdure.store.sql.database import Database, reading
from perdure.store.sql.pruning import count_prunable


class EndedReader:
    """See the module's text."""

    def __init__(self, database: Database) -> None:
        self.database = database

    @reading
    def prunable(self, prune: Prune) -> Pruned:
        return count_prunable(self.database, prune)

    @reading
    def kept_for(self, execution: int) -> int | None:
        own, others = self.database.run("kept_for", execution).fetchone()
        if own is not None:
            return own
        return int(others) if others else None

    @reading
    def being_erased(self, *, limit: int, after: int = 0) -> list[Unerased]:
        found = self.database.run("being_erased", after, limit).fetchall()
        return [Unerased(*row) for row in found]
