"""Step machines and graphs: two ways to write one kind of definition."""

from __future__ import annotations

from perdure.graph.builder import Branch, Flow, branch, flow
from perdure.graph.combining import (
    ConditionalGroup,
    ParallelGroup,
    SequentialGroup,
    StepGroup,
)
from perdure.graph.context import StepExecution, WorkflowContext
from perdure.graph.deciding import (
    BaseGateway,
    ExclusiveGateway,
    InclusiveGateway,
    ParallelGateway,
)
from perdure.graph.definition import WorkflowDefinition
from perdure.graph.outline import Edge
from perdure.graph.paths import WorkflowGraph
from perdure.graph.states import StepStatus, StepType, WorkflowStatus
from perdure.graph.steps import BaseMachineStep, BaseStep, Step
from perdure.graph.waiting import TimerStep, WebhookStep

__all__ = [
    "BaseGateway",
    "BaseMachineStep",
    "BaseStep",
    "Branch",
    "ConditionalGroup",
    "Edge",
    "ExclusiveGateway",
    "Flow",
    "InclusiveGateway",
    "ParallelGateway",
    "ParallelGroup",
    "SequentialGroup",
    "Step",
    "StepExecution",
    "StepGroup",
    "StepStatus",
    "StepType",
    "TimerStep",
    "WebhookStep",
    "WorkflowContext",
    "WorkflowDefinition",
    "WorkflowGraph",
    "WorkflowStatus",
    "branch",
    "flow",
]
