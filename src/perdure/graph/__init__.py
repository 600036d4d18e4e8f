"""Step machines and graphs: two ways to write one kind of definition.

``LocalExecutionEngine`` and ``WorkflowInstanceData`` stand on a higher floor
(``perdure.executing``), and are loaded when they are asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from perdure.graph.builder import Branch, Flow, branch, flow
from perdure.graph.combining import (
    BlockStep,
    ConditionalGroup,
    ParallelGroup,
    SequentialGroup,
    StepGroup,
    SubflowStep,
)
from perdure.graph.context import StepExecution, WorkflowContext
from perdure.graph.deciding import (
    BaseGateway,
    ExclusiveGateway,
    InclusiveGateway,
    LoopStep,
    ParallelGateway,
    ThreadMerge,
    ThreadSplit,
)
from perdure.graph.definition import WorkflowDefinition
from perdure.graph.exceptions import (
    HumanTaskError,
    InstanceNotWaitingError,
    InvalidTransitionError,
    StepExecutionError,
    TaskAlreadyCompletedError,
    TaskNotFoundError,
    UnauthorizedTaskError,
    ValidationError,
    WorkflowAlreadyCompletedError,
    WorkflowInstanceNotFoundError,
    WorkflowNotFoundError,
    WorkflowsError,
    WorkflowValidationError,
)
from perdure.graph.instances import MapStep
from perdure.graph.lifecycle import (
    HumanTaskCompleted,
    HumanTaskCreated,
    HumanTaskReassigned,
    StepCompleted,
    StepFailed,
    StepSkipped,
    StepStarted,
    WorkflowCanceled,
    WorkflowCompleted,
    WorkflowEvent,
    WorkflowFailed,
    WorkflowPaused,
    WorkflowResumed,
    WorkflowStarted,
)
from perdure.graph.outline import Edge
from perdure.graph.paths import WorkflowGraph
from perdure.graph.people import BaseHumanStep
from perdure.graph.protocols import (
    EventBus,
    ExecutionEngine,
    WorkflowInstance,
    WorkflowPersistence,
)
from perdure.graph.registry import Workflow, WorkflowRegistry
from perdure.graph.states import StepStatus, StepType, WorkflowStatus
from perdure.graph.steps import BaseMachineStep, BaseStep, EndStep, PassStep, Step, TaskStep
from perdure.graph.waiting import DeferredChoice, MilestoneStep, TimerStep, WebhookStep

if TYPE_CHECKING:
    from perdure.executing import LocalExecutionEngine, WorkflowInstanceData

_ABOVE = ("LocalExecutionEngine", "WorkflowInstanceData")


def __getattr__(name: str) -> Any:
    if name in _ABOVE:
        return getattr(import_module("perdure.executing"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "BaseGateway",
    "BaseHumanStep",
    "BaseMachineStep",
    "BaseStep",
    "BlockStep",
    "Branch",
    "ConditionalGroup",
    "DeferredChoice",
    "Edge",
    "EndStep",
    "EventBus",
    "ExclusiveGateway",
    "ExecutionEngine",
    "Flow",
    "HumanTaskCompleted",
    "HumanTaskCreated",
    "HumanTaskError",
    "HumanTaskReassigned",
    "InclusiveGateway",
    "InstanceNotWaitingError",
    "InvalidTransitionError",
    "LocalExecutionEngine",
    "LoopStep",
    "MapStep",
    "MilestoneStep",
    "ParallelGateway",
    "ParallelGroup",
    "PassStep",
    "SequentialGroup",
    "Step",
    "StepCompleted",
    "StepExecution",
    "StepExecutionError",
    "StepFailed",
    "StepGroup",
    "StepSkipped",
    "StepStarted",
    "StepStatus",
    "StepType",
    "SubflowStep",
    "TaskAlreadyCompletedError",
    "TaskNotFoundError",
    "TaskStep",
    "ThreadMerge",
    "ThreadSplit",
    "TimerStep",
    "UnauthorizedTaskError",
    "ValidationError",
    "WebhookStep",
    "Workflow",
    "WorkflowAlreadyCompletedError",
    "WorkflowCanceled",
    "WorkflowCompleted",
    "WorkflowContext",
    "WorkflowDefinition",
    "WorkflowEvent",
    "WorkflowFailed",
    "WorkflowGraph",
    "WorkflowInstance",
    "WorkflowInstanceData",
    "WorkflowInstanceNotFoundError",
    "WorkflowNotFoundError",
    "WorkflowPaused",
    "WorkflowPersistence",
    "WorkflowRegistry",
    "WorkflowResumed",
    "WorkflowStarted",
    "WorkflowStatus",
    "WorkflowValidationError",
    "WorkflowsError",
    "branch",
    "flow",
]
