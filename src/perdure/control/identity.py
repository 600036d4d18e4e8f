"""Who may act in a namespace, and as whom somebody acts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from perdure.client import Client
from perdure.control.accounts import Accounts
from perdure.control.delegation import Delegations
from perdure.control.keys import Keys
from perdure.control.members import check_enabled
from perdure.control.roles import Roles
from perdure.errors import NotFound, PermissionDenied
from perdure.values.principals import Principal

INVOKE: Final = "workflow:invoke"


class Identity:
    """Users, service accounts, roles, API keys and delegations, as records of the database.

    Each change is one transaction and a line of the audit. Who may make it is judged by whoever
    calls (the server, ``perdure.control``); in process a client is trusted.
    """

    def __init__(self, client: Client) -> None:
        self.users = Accounts(client, "user")
        self.accounts = Accounts(client, "account")
        self.roles = Roles(client)
        self.keys = Keys(client)
        self.delegations = Delegations(client)

    async def resolve_actor(
        self,
        principal: Principal,
        request: str | None = None,
        config: str | None = None,
        *,
        scopes: Sequence[str] = (INVOKE,),
    ) -> Principal:
        """Return who acts: the account of the request, or of the config, or the caller.

        An account acts with its own roles and ``scopes``; ``initiated_by`` is the person.

        Args:
            principal: who calls.
            request: the account that the request names (``execute_as``); for admins.
            config: the account that the workflow's config names.
            scopes: what the account may do then.

        Raises:
            PermissionDenied: the request may name none, the account was disabled, or may more than
                an admin who asks for it.
            NotFound: there is no such account, or it is of another tenant.
        """
        if request and not principal.is_admin:
            raise PermissionDenied("execute_as: only an admin can choose as whom a run acts")
        name = request or config
        if not name:
            return principal
        account = await self.accounts.get(name)
        if principal.tenant and account.tenant not in ("", principal.tenant):
            raise NotFound(f"there is no account {name!r}")
        check_enabled(account)
        actor = account.principal(
            scopes=tuple(scopes),
            tenant=account.tenant or principal.tenant,
            initiated_by=principal.initiated_by or principal.id,
        )
        if request and actor.is_superadmin and not principal.is_superadmin:
            raise PermissionDenied(f"execute_as: {name!r} is a superadmin, {principal.id!r} is not")
        return actor
