"""Seed 4's database layer: an engine that shares the database of a SQLAlchemy session, and models
and repositories over Perdure's own tables. Needs the extra ``perdure[sqlalchemy]``.

There is one truth. The models read what Perdure wrote and cannot be written; what a repository
changes goes through the engine, as a command that obeys the state tables.
"""

from __future__ import annotations

try:
    from perdure.contrib.sqlalchemy.engine import PersistentExecutionEngine
    from perdure.contrib.sqlalchemy.models import (
        HumanTaskModel,
        StepExecutionModel,
        WorkflowDefinitionModel,
        WorkflowInstanceModel,
    )
    from perdure.contrib.sqlalchemy.opening import open_with
    from perdure.contrib.sqlalchemy.repositories import (
        HumanTaskRepository,
        StepExecutionRepository,
        WorkflowDefinitionRepository,
        WorkflowInstanceRepository,
    )
except ModuleNotFoundError as exc:
    missing = (exc.name or "").partition(".")[0]
    if missing not in ("advanced_alchemy", "sqlalchemy"):
        raise
    said = f"perdure.contrib.sqlalchemy needs {missing}: install perdure[sqlalchemy]"
    raise ModuleNotFoundError(said, name=missing) from exc

__all__ = [
    "HumanTaskModel",
    "HumanTaskRepository",
    "PersistentExecutionEngine",
    "StepExecutionModel",
    "StepExecutionRepository",
    "WorkflowDefinitionModel",
    "WorkflowDefinitionRepository",
    "WorkflowInstanceModel",
    "WorkflowInstanceRepository",
    "open_with",
]
