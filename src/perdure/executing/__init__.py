"""Seed 4's engines: two ways to use Perdure's own, with its instances, events and errors."""

from __future__ import annotations

from perdure.executing.face import GraphEngine
from perdure.executing.instance import WorkflowInstanceData
from perdure.executing.local import LocalExecutionEngine

__all__ = ["GraphEngine", "LocalExecutionEngine", "WorkflowInstanceData"]
