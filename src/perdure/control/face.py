"""The face of operations: each group of calls under its name."""

from __future__ import annotations

from typing import Final

from perdure.client import Client
from perdure.control.administration import MemberCalls, RoleCalls
from perdure.control.escalations import Escalations
from perdure.control.trail import AuditCalls
from perdure.control.workflows import Workflows
from perdure.judging import guard_of
from perdure.policy import Guard, Policies
from perdure.values.principals import Principal

SERVICE: Final = "perdure.control"


class Control:
    """What operators and their programs do, for somebody.

    Every call returns an :class:`~perdure.control.ApiResult` and raises nothing that is to be
    expected. ``auth``: who calls; a principal given in process is believed. Without one, what needs
    somebody answers 401.

    ``policies``, or ``guard``: who judges calls, beside roles and scopes; nobody, if left out.
    ``service``: what policies know this door as.
    """

    def __init__(
        self,
        client: Client,
        auth: Principal | None = None,
        *,
        policies: Policies | None = None,
        guard: Guard | None = None,
        service: str = SERVICE,
    ) -> None:
        self.client = client
        self.auth = auth
        self._guard = guard_of(policies, guard)
        self._service = service
        self.workflows = Workflows(client, auth, self._guard, service)
        self.escalations = Escalations(client, auth, self._guard, service)
        self.roles = RoleCalls(client, auth)
        self.users = MemberCalls(client, auth, "users")
        self.accounts = MemberCalls(client, auth, "accounts")
        self.audit = AuditCalls(client, auth)

    def as_(self, auth: Principal | None) -> Control:
        """Return the same for somebody else."""
        return Control(self.client, auth, guard=self._guard, service=self._service)
