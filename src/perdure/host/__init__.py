"""The host API: services run, signal, query and cancel workflows, under policies."""

from perdure.host.config import HostConfig
from perdure.host.host import WorkflowHost
from perdure.host.instances import Instances, InstanceStatus, WorkflowInfo, WorkflowInstance
from perdure.host.schedule import HostSchedule
from perdure.policy import Policies, PolicyDenied

__all__ = [
    "HostConfig",
    "HostSchedule",
    "InstanceStatus",
    "Instances",
    "Policies",
    "PolicyDenied",
    "WorkflowHost",
    "WorkflowInfo",
    "WorkflowInstance",
]
