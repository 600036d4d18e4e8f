"""What a deployment says of a service's workflows, beside its policies."""

from __future__ import annotations

from typing import Any, cast

import msgspec

from perdure.errors import Invalid
from perdure.host.reading import check_count
from perdure.values.duration import SECOND, Duration, microseconds, optional_microseconds
from perdure.values.sizes import parse_size

_DAY = 86_400


class HostConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of a service; a policy may be stricter, and never laxer.

    Args:
        max_concurrent_instances: of the service, all its workflows together; 0 is no limit.
        max_instance_duration: of one instance; seconds if it is a number.
        enable_manual_triggers: whether workflows may be run that do not have the trigger
            ``manual``.
        retention_days: how long instances that the service begins are kept after their end, and
            how long ended ones are shown to it; ``None``: as long as the engine keeps others.
        default_timeout: of an attempt of a step that says nothing.
        max_input_size: of an input, in bytes or as text.

    Raises:
        Invalid: a value that cannot be meant.
    """

    max_concurrent_instances: int = 0
    max_instance_duration: Duration | None = None
    enable_manual_triggers: bool = True
    retention_days: int | None = None
    default_timeout: Duration | None = None
    max_input_size: int | str = "1MiB"

    def __post_init__(self) -> None:
        check_count("max_concurrent_instances", self.max_concurrent_instances)
        if not isinstance(cast("Any", self.enable_manual_triggers), bool):
            given = self.enable_manual_triggers
            raise Invalid(f"enable_manual_triggers: {given!r} is neither True nor False")
        if self.retention_days is not None:  # 0 would keep and show nothing
            check_count("retention_days", self.retention_days, least=1)
        _ = self.retention, self.duration, self.step_timeout  # what they cannot read, they refuse
        parse_size(self.max_input_size)

    @property
    def duration(self) -> int:
        """Of an instance, in microseconds; 0 is no limit."""
        return optional_microseconds(self.max_instance_duration, what="max_instance_duration") or 0

    @property
    def retention(self) -> int | None:
        """How long instances are kept after their end, in seconds; ``None``: as all others."""
        if self.retention_days is None:
            return None
        return microseconds(self.retention_days * _DAY, what="retention_days") // SECOND

    @property
    def step_timeout(self) -> int:
        """Of an attempt, in microseconds; 0 is no limit."""
        return optional_microseconds(self.default_timeout, what="default_timeout") or 0
