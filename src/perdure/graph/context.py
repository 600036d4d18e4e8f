"""What a step sees of its run: one context for step machines (seed 3) and graphs (seed 4).

A handler gets a context of its own, made of what was recorded when the step began. What it sets is
recorded with the step's outcome, key by key; so two steps that run side by side lose nothing of
each other's, and an attempt that fails leaves nothing behind.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any

import msgspec

from perdure import activity, errors
from perdure.graph.states import StepStatus
from perdure.logs import RunLogger
from perdure.values import lines


class StepExecution(msgspec.Struct, omit_defaults=True):
    """One visit of a step. ``attempts`` of this visit; times are aware UTC datetimes."""

    step_name: str
    status: StepStatus
    started_at: datetime | None = None
    completed_at: datetime | None = None
    result: Any = None
    error: str | None = None
    input_data: Any = None
    output_data: Any = None
    attempts: int = 0


class InstanceInfo(msgspec.Struct, frozen=True):
    """Which run it is. ``id`` is the execution's id, ``instance_id`` its first run's."""

    id: str
    instance_id: str
    workflow_name: str
    version: str
    started_at: datetime
    namespace: str = "default"
    user_id: str | None = None
    tenant_id: str | None = None


class Changes(msgspec.Struct, omit_defaults=True):
    """What a step has set: merged into the run key by key when its outcome is recorded."""

    metadata: dict[str, Any] = {}
    data: dict[str, Any] = {}
    dropped: list[str] = []
    events: list[tuple[str, Any]] = []


class WorkflowContext:
    """See the module's text.

    ``input``: the workflow's. ``steps``: outputs of completed steps by name. ``prev``: the last
    output before this step. ``data``: seed 4's shared mapping; a step changes its own copy.
    """

    def __init__(
        self,
        instance: InstanceInfo,
        *,
        input: Any = None,
        steps: Mapping[str, Any] | None = None,
        prev: Any = None,
        metadata: Mapping[str, Any] | None = None,
        data: dict[str, Any] | None = None,
        current_step: str = "",
        step_history: list[StepExecution] | None = None,
        services: Mapping[str, Any] | None = None,
    ) -> None:
        self.instance = instance
        self.input = input
        self.steps: Mapping[str, Any] = MappingProxyType(dict(steps or {}))
        self.prev = prev
        self.data = {} if data is None else data
        self.current_step = current_step
        self.step_history = [] if step_history is None else step_history
        self._metadata = dict(metadata or {})
        self._services = services
        self._changes: Changes | None = None

    # -- who it is -------------------------------------------------------------------------------

    @property
    def workflow_id(self) -> str:
        """Name of the definition (as in seed 4)."""
        return self.instance.workflow_name

    @property
    def instance_id(self) -> str:
        """Id of the execution's first run."""
        return self.instance.instance_id

    @property
    def started_at(self) -> datetime:
        """When the run began."""
        return self.instance.started_at

    @property
    def user_id(self) -> str | None:
        """Who did the last step that a person did."""
        return self.instance.user_id

    @property
    def tenant_id(self) -> str | None:
        """For whom it was started."""
        return self.instance.tenant_id

    # -- what it holds ---------------------------------------------------------------------------

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What steps have set for those that come after; read-only."""
        return MappingProxyType(self._metadata)

    def get(self, key: str, default: Any = None) -> Any:
        """Return a value of ``data``."""
        return self.data.get(key, default)

    def set(self, key: str, value: Any) -> None:
        """Set a value of ``data``."""
        self.data[key] = value

    def get_metadata(self, key: str, default: Any = None) -> Any:
        """Return a value of ``metadata``."""
        return self._metadata.get(key, default)

    async def set_metadata(self, key: str, value: Any) -> None:
        """Set a value of ``metadata``, recorded with the step's outcome.

        Raises:
            UsageError: not in a step's handler.
        """
        self._writable("set_metadata").metadata[key] = value
        self._metadata[key] = value

    def get_step_result(self, name: str, default: Any = None) -> Any:
        """Return the last output of a step; ``default`` if it has not completed."""
        return self.steps.get(name, default)

    def get_last_execution(self, step_name: str | None = None) -> StepExecution | None:
        """Return the last visit, of a step or of any."""
        for execution in reversed(self.step_history):
            if step_name is None or execution.step_name == step_name:
                return execution
        return None

    def has_step_executed(self, step_name: str) -> bool:
        """Tell whether a step has succeeded."""
        return any(
            it.step_name == step_name and it.status is StepStatus.SUCCEEDED
            for it in self.step_history
        )

    def with_step(self, name: str) -> WorkflowContext:
        """Return a context for another step that shares this one's data and history."""
        other = copy.copy(self)
        other.current_step = name
        return other

    # -- what it gives ---------------------------------------------------------------------------

    @property
    def services(self) -> Mapping[str, Any]:
        """What was given to the engine (``Engine(services=…)``).

        Raises:
            UsageError: not in a step's handler.
        """
        if self._services is None:
            raise errors.UsageError(
                "ctx.services is for handlers: conditions and mappers are workflow code, which may "
                "not touch the world"
            )
        return self._services

    @property
    def plugins(self) -> Mapping[str, Any]:
        """The same as :attr:`services` (as in seed 3)."""
        return self.services

    @property
    def core(self) -> WorkflowContext:
        """Where seed 3 has ``logger`` and ``events``: here they are the context's own."""
        return self

    @property
    def logger(self) -> RunLogger:
        """A logger whose lines name the run and the step, and are kept with the run."""
        id, step = self.instance.id, self.current_step
        extra = {"instance_id": id, "step": step}
        return RunLogger(_logger, activity.current, place=f"{id} {step}", step=step, extra=extra)

    def log(self, level: str, message: str, data: Any = None) -> None:
        """Log a line with data (any payload); it is kept with the run (``handle.logs()``)."""
        self.logger.keep(lines.level_number(level), message, data)

    async def emit(self, event: str, data: Any = None) -> None:
        """Tell listeners of ``workflow.event``, when the step's outcome is recorded.

        Raises:
            UsageError: not in a step's handler.
        """
        self._writable("emit").events.append((event, data))

    # -- inside ----------------------------------------------------------------------------------

    def as_it_is(self) -> WorkflowContext:
        """Return the context as it is now: what other steps set from here on does not reach it."""
        other = copy.copy(self)
        other.data = dict(self.data)
        other.step_history = list(self.step_history)
        return other

    def for_attempt(self, services: Mapping[str, Any]) -> WorkflowContext:
        """Return a context for one attempt: its own data, and a place for what it changes."""
        other = copy.copy(self)
        other.data = copy.deepcopy(self.data)
        other._metadata = dict(self._metadata)
        other._services = services
        other._changes = Changes()
        return other

    def changes_since(self, before: WorkflowContext) -> Changes:
        """Return what this attempt has changed."""
        assert self._changes is not None
        changes, old = self._changes, before.data
        changes.data = {
            key: value
            for key, value in self.data.items()
            if key not in old or (old[key] is not value and old[key] != value)
        }
        changes.dropped = [key for key in old if key not in self.data]
        return changes

    def _writable(self, what: str) -> Changes:
        if self._changes is None:
            raise errors.UsageError(
                f"ctx.{what} is for handlers: a condition or a mapper only reads, because a replay "
                "calls it again"
            )
        return self._changes


_logger = logging.getLogger("perdure.workflow")
