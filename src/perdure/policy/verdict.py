"""What policies are asked, and what they answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from perdure.errors import PolicyDenied
from perdure.policy.keys import STATUSES
from perdure.values.meters import Meter

OPERATIONS = ("run", "signal", "query", "cancel", "get_status", "list", "explain", "trigger")
"""What may be asked for. ``trigger``: let a schedule start a workflow."""
DENIED, ERROR = "POLICY_DENIED", "POLICY_ERROR"
"""A key of the policy says no; a condition of it could not be evaluated, which denies too."""
MAX_RESULTS = 1_000


class Schedule(msgspec.Struct, frozen=True, omit_defaults=True):
    """What ``trigger`` asks for. ``every``: the least number of seconds between two ticks;
    ``executions``: how many it asks for at most; ``days``: how long it lasts; 0 is not said.
    """

    cron: str = ""
    every: int = 0
    executions: int = 0
    days: float = 0
    has_end: bool = False


class Request(msgspec.Struct, frozen=True, omit_defaults=True):
    """One operation that somebody asks for.

    Args:
        service: who asks: ``app.billing``; its namespace is the text before the last dot.
        claims: what is known of the person or program behind it (``request.auth.claims``).
        workflow_id: the definition, with its version, that is to run, be scheduled or asked for.
        name: the definition's name, where that and its ``version`` are known apart: of an instance,
            or at a door whose callers name workflows by their types alone. Then ``workflow_id`` is
            not read, and no form is asked of it.
        instance_id: the instance that a signal, a cancel or ``get_status`` is for.
        instance: what is known of it, for conditions: ``id``, ``status``, …
        input: of ``run`` and ``trigger``. ``input_size``: its encoded bytes; left out, counted.
        validate: raises ``Invalid`` for an input that does not fit the workflow's schema.
        caller: the definition whose instance asks, if one does.
        signal: the signal's name. ``reason``: of a cancel.
        statuses: what a query asks for; none is all. ``limit``: how many it wants.
        schedule: of ``trigger``.
        metadata: more about the call, for conditions (``request.metadata``).
    """

    service: str = ""
    claims: Mapping[str, Any] = {}
    workflow_id: str = ""
    name: str = ""
    version: str = ""
    instance_id: str = ""
    instance: Mapping[str, Any] = {}
    input: Any = None
    input_size: int = -1
    validate: Callable[[Any], object] | None = None
    caller: str = ""
    signal: str = ""
    reason: str = ""
    statuses: Sequence[str] = ()
    limit: int = MAX_RESULTS
    schedule: Schedule = Schedule()
    metadata: Mapping[str, Any] = {}


class Limits(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an allowed operation is bound by: its caller sees to it.

    ``max_results`` and ``statuses`` of a query, both already narrowed to what was asked;
    ``by_row``: each instance that it finds is to be judged, as a query for that one; and each
    workflow that a list finds, as a list of that one.
    ``meters``: to be spent together (``store.spend``) before anything is done. ``places``: for
    ``StartRequest.places``: (key, how many may be open). ``later``: meters of what a schedule
    starts, when it does. ``max_duration`` in seconds;
    ``step_timeout`` in seconds, of steps that say nothing; 0 is no limit. ``timeout_action``: what
    happens when one of them is over: fail, cancel, continue; ``""``: nothing was said. ``audit``:
    none, summary or full. ``alerts``: whether a failure of the workflow raises an alert.
    """

    max_results: int = MAX_RESULTS
    statuses: tuple[str, ...] = STATUSES
    by_row: bool = False
    meters: tuple[Meter, ...] = ()
    later: tuple[Meter, ...] = ()
    places: tuple[tuple[str, int], ...] = ()
    max_duration: float = 0
    step_timeout: float = 0
    timeout_action: str = ""
    audit: str = "summary"
    alerts: bool = False


NO_LIMITS = Limits()


class Verdict(msgspec.Struct, frozen=True, omit_defaults=True):
    """What becomes of an operation. ``rule``: the key, or the check, that denied it; ``version``:
    of the policies that were asked. Of a refusal the ``limits`` say how it is audited.
    """

    allowed: bool
    code: str = ""
    reason: str = ""
    rule: str = ""
    version: str = ""
    limits: Limits = NO_LIMITS

    def require(self) -> Limits:
        """Return the limits.

        Raises:
            PolicyDenied: it is not allowed.
        """
        if not self.allowed:
            raise PolicyDenied(self.code, self.reason, self.rule, version=self.version)
        return self.limits


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one rule says: ``explain`` gives one for each, also behind the first that denies.

    ``value``: what the rule holds, as text. Of what is counted when the operation is done, a rate
    or a place, the ``reason`` says so.
    """

    rule: str
    allowed: bool
    value: str = ""
    code: str = ""
    reason: str = ""


class Caution(msgspec.Struct, frozen=True):
    """Something in a policy that is allowed and hardly meant. ``line`` and ``column``: in the
    text of the condition, from 1; 0: it is in no condition. ``fix``: what to write instead.
    """

    key: str
    line: int
    column: int
    message: str
    fix: str
    where: str = ""

    def __str__(self) -> str:
        place = f"line {self.line}, column {self.column}: " if self.line else ""
        return f"{self.where}{self.key}: {place}{self.message}; write {self.fix}"
