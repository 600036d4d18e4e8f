"""Step machines and graphs: two ways to write one kind of definition."""

from __future__ import annotations

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
from perdure.graph.instances import MapStep
from perdure.graph.outline import Edge
from perdure.graph.paths import WorkflowGraph
from perdure.graph.people import (
    BaseHumanStep,
    HumanTaskError,
    TaskAlreadyCompletedError,
    TaskNotFoundError,
    UnauthorizedTaskError,
)
from perdure.graph.states import StepStatus, StepType, WorkflowStatus
from perdure.graph.steps import BaseMachineStep, BaseStep, EndStep, PassStep, Step, TaskStep
from perdure.graph.waiting import DeferredChoice, MilestoneStep, TimerStep, WebhookStep

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
    "ExclusiveGateway",
    "Flow",
    "HumanTaskError",
    "InclusiveGateway",
    "LoopStep",
    "MapStep",
    "MilestoneStep",
    "ParallelGateway",
    "ParallelGroup",
    "PassStep",
    "SequentialGroup",
    "Step",
    "StepExecution",
    "StepGroup",
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
    "WebhookStep",
    "WorkflowContext",
    "WorkflowDefinition",
    "WorkflowGraph",
    "WorkflowStatus",
    "branch",
    "flow",
]
