"""What a step sees of its run: one context for step machines (seed 3) and graphs (seed 4).

A handler gets a context of its own, made of what was recorded when the step began. What it sets is
recorded with the step's outcome, key by key; so two steps that run side by side lose nothing of
each other's, and an attempt that fails leaves nothing behind.

A context is made for each visit, and most are hardly looked at: what would be a copy becomes one
when somebody asks for it. That rests on one rule: the mappings a context is given are replaced by
their owner, and never changed.
"""

from __future__ import annotations

import copy
import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import msgspec

from perdure import activity, errors
from perdure.graph.states import StepStatus
from perdure.logs import RunLogger
from perdure.values import lines, payload


class StepExecution(msgspec.Struct, omit_defaults=True):
    """One visit of a step; times are aware UTC datetimes."""

    step_name: str
    status: StepStatus
    started_at: datetime | None = None
    completed_at: datetime | None = None
    result: Any = None
    error: str | None = None
    input_data: Any = None
    output_data: Any = None


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
    output before this step. ``data``: seed 4's shared mapping, or what gives it when it is first
    asked for; a step changes its own copy.

    Runs make their own. To try a step by itself, make one with seed 4's arguments: ``workflow_id``,
    ``instance_id``, ``data``, ``metadata``, ``current_step``, ``step_history``, ``started_at``,
    ``user_id`` and ``tenant_id``.
    """

    def __init__(
        self,
        instance: InstanceInfo | None = None,
        *,
        input: Any = None,
        steps: Mapping[str, Any] | None = None,
        prev: Any = None,
        metadata: Mapping[str, Any] | None = None,
        data: dict[str, Any] | Callable[[], dict[str, Any]] | None = None,
        current_step: str = "",
        step_history: Sequence[StepExecution] = (),
        services: Mapping[str, Any] | None = None,
        workflow_id: object = "",
        instance_id: object = "",
        started_at: datetime | None = None,
        user_id: str | None = None,
        tenant_id: str | None = None,
    ) -> None:
        self.instance = instance or InstanceInfo(
            id=str(instance_id),
            instance_id=str(instance_id),
            workflow_name=str(workflow_id),
            version="",
            started_at=started_at or datetime.fromtimestamp(0, UTC),
            user_id=user_id,
            tenant_id=tenant_id,
        )
        self.input = input
        self.prev = prev
        self.current_step = current_step
        self._steps: Mapping[str, Any] = steps or {}
        self._metadata: Mapping[str, Any] = metadata or {}
        self._data: Any = {} if data is None else data
        self._history: Sequence[StepExecution] = step_history
        self._length = len(step_history)  # it goes on growing
        self._visits: list[StepExecution] | None = None
        self._services = services
        self._is_attempt = False
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
    def steps(self) -> Mapping[str, Any]:
        """Outputs of completed steps by name; read-only."""
        return MappingProxyType(self._steps)

    @property
    def data(self) -> dict[str, Any]:
        """Seed 4's shared mapping; what a handler changes in it is recorded with its outcome."""
        if callable(self._data):
            self._data = self._data()
        return self._data

    @data.setter
    def data(self, data: dict[str, Any]) -> None:
        self._data = data

    @property
    def step_history(self) -> list[StepExecution]:
        """The visits of steps up to now, in the order in which they began."""
        if self._visits is None:
            self._visits = [*self._history[: self._length]]
        return self._visits

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
            Invalid: the key is no text, or the value has no JSON form.
        """
        changes = self._writable("set_metadata")
        payload.text(key, what="metadata")
        payload.encode(value, what=f"metadata {key!r}")
        changes.metadata[key] = value
        self._metadata = {**self._metadata, key: value}

    def get_step_result(self, name: str, default: Any = None) -> Any:
        """Return the last output of a step; ``default`` if it has not completed."""
        return self._steps.get(name, default)

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
        _ = self.data, self.step_history
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
    def events(self) -> WorkflowContext:
        """What has :meth:`emit`: ``await ctx.core.events.emit(…)``, as in seed 3."""
        return self

    @property
    def logger(self) -> RunLogger:
        """A logger whose lines name the run and the step, and are kept with the run."""
        id, step = self.instance.id, self.current_step
        extra = {"instance_id": id, "step": step}
        return RunLogger(_logger, activity.current, place=f"{id} {step}", step=step, extra=extra)

    def log(self, level: str, message: str, data: Any = None) -> None:
        """Log a line with data (any payload); it is kept with the run (``handle.logs()``).

        Raises:
            Invalid: there is no such level.
        """
        self.logger.keep(lines.level_number(level), message, data)

    async def emit(self, event: str, data: Any = None) -> None:
        """Tell listeners of ``workflow.event``, when the step's outcome is recorded.

        Raises:
            UsageError: not in a step's handler.
            Invalid: the event's name is no text, or the data has no JSON form.
        """
        changes = self._writable("emit")
        payload.text(event, what="event")
        payload.encode(data, what=f"data of event {event!r}")
        changes.events.append((event, data))

    # -- inside ----------------------------------------------------------------------------------

    def for_attempt(self, services: Mapping[str, Any]) -> WorkflowContext:
        """Return a context for one attempt: its own data, and a place for what it changes."""
        other: WorkflowContext = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._data = functools.partial(copy.deepcopy, self.data)
        other._services = services
        other._is_attempt = True
        return other

    def changes_since(self, before: WorkflowContext) -> Changes | None:
        """Return what this attempt has changed; ``None`` is nothing."""
        if callable(self._data):
            return self._changes
        own, old = self._data, before.data
        data = {
            key: value
            for key, value in own.items()
            if key not in old or (old[key] is not value and old[key] != value)
        }
        dropped = [key for key in old if key not in own]
        if data or dropped:
            self._changes = changes = self._changes or Changes()
            changes.data, changes.dropped = data, dropped
        return self._changes

    def _writable(self, what: str) -> Changes:
        if not self._is_attempt:
            raise errors.UsageError(
                f"ctx.{what} is for handlers: a condition or a mapper only reads, because a replay "
                "calls it again"
            )
        if self._changes is None:
            self._changes = Changes()
        return self._changes


_logger = logging.getLogger("perdure.workflow")
