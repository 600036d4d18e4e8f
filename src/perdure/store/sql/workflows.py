"""Which workflows there are: those that workers have defined, and those of runs."""

from __future__ import annotations

from perdure.store.rows import Definition
from perdure.store.sql.database import Database, reading
from perdure.store.sql.encoding import from_json


class WorkflowReader:
    """The verbs that read them."""

    database: Database

    @reading
    def definitions(self) -> list[Definition]:
        found: list[Definition] = []
        for row in self.database.run("definitions").fetchall():
            *facts, is_active, at, triggers = row
            made = Definition(*facts, is_active=bool(is_active), registered_at=at)
            made.triggers = tuple(from_json(triggers))
            found.append(made)
        return found

    @reading
    def workflows_seen(self, *, namespace: str = "default") -> list[str]:
        rows = self.database.run("workflows_seen", namespace).fetchall()
        return [name for (name,) in rows]
