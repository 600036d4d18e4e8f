"""What an execution is bound by that a door has let begin; recorded, so it outlives the door."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from perdure.values.context import POLICY_KEY
from perdure.values.terms import Terms


class Bounds(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Given by the door, never by who asks.

    ``policy``: the policies' version. ``places``: keys under which the execution counts while it is
    open, each with how many may. ``max_duration`` of the execution and ``step_timeout`` of an
    attempt of what says nothing, in microseconds; 0 is no limit. ``timeout_action``, ``alerts``:
    see :class:`Terms`.
    """

    policy: str = ""
    places: tuple[tuple[str, int], ...] = ()
    max_duration: int = 0
    step_timeout: int = 0
    timeout_action: str = ""
    alerts: bool = False

    def terms(self, asked: Terms) -> Terms:
        """Return the terms of a start that asks for these."""
        if not (self.max_duration or self.step_timeout or self.timeout_action or self.alerts):
            return asked
        return msgspec.structs.replace(
            asked,
            execution_timeout=_shorter(asked.execution_timeout, self.max_duration),
            activity_timeout=_shorter(asked.activity_timeout, self.step_timeout),
            timeout_action=self.timeout_action,
            alerts=self.alerts,
        )

    def within(self, context: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a context that carries what of this travels with the run."""
        return {**context, POLICY_KEY: self.policy} if self.policy else context


def _shorter(one: int, other: int) -> int:
    return min(filter(None, (one, other)), default=0)
