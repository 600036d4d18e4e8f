"""Policies: what services may do, judged before they do it (docs/policies.md)."""

from __future__ import annotations

from perdure.errors import PolicyDenied
from perdure.policy.hook import Guard, PolicyGuard
from perdure.policy.policies import Policies
from perdure.policy.trial import Change, record, replay
from perdure.policy.verdict import (
    OPERATIONS,
    Caution,
    Finding,
    Limits,
    Request,
    Schedule,
    Verdict,
)

__all__ = [
    "OPERATIONS",
    "Caution",
    "Change",
    "Finding",
    "Guard",
    "Limits",
    "Policies",
    "PolicyDenied",
    "PolicyGuard",
    "Request",
    "Schedule",
    "Verdict",
    "record",
    "replay",
]
