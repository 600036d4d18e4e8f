"""Who there is: a user or a service account, and which roles they have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from perdure.client import Client
from perdure.control.kept import Kept
from perdure.errors import PermissionDenied
from perdure.values.principals import Grant, Kind, Power, Principal

KINDS: Final[dict[str, Kind]] = {"user": Kind.USER, "account": Kind.SERVICE}


class Member(msgspec.Struct, frozen=True, omit_defaults=True):
    """A user or a service account.

    ``external_id``: what another directory calls them, unique; a token's ``sub`` may be it.
    ``disabled``: whatever they show is refused. ``created_at``: microseconds since 1970.
    """

    id: str
    kind: Kind = Kind.USER
    name: str = ""
    roles: tuple[Grant, ...] = ()
    tenant: str = ""
    external_id: str = ""
    disabled: bool = False
    metadata: Mapping[str, Any] = {}
    created_at: int = 0

    def principal(self, **more: Any) -> Principal:
        """Return the principal that they are, with scopes and so on from ``more``."""
        fields: dict[str, Any] = {"name": self.name, "roles": self.roles, "tenant": self.tenant}
        return Principal(self.id, self.kind, **(fields | more))


class Alias(msgspec.Struct, frozen=True):
    """Whose an external id is."""

    kind: str
    id: str


async def find_member(client: Client, id: str) -> Member | None:
    """Return the user or service account with an id, or with an external id."""
    for kind in KINDS:
        if (found := await Kept(client, kind, Member).find(id)) is not None:
            return found.value
    alias = await Kept(client, "external", Alias).find(id)
    if alias is None:
        return None
    found = await Kept(client, alias.value.kind, Member).find(alias.value.id)
    return None if found is None else found.value


def check_enabled(member: Member) -> Member:
    """Return a member that may act.

    Raises:
        PermissionDenied: it was disabled.
    """
    if member.disabled:
        raise PermissionDenied(f"{member.id!r} was disabled")
    return member


def check_above(client: Client, member: Member) -> None:
    """Make sure that a member is not above whom the client acts for: only superadmins change a
    superadmin, or make and revoke keys of one.

    Raises:
        PermissionDenied: it is.
    """
    who = client.principal
    is_superadmin = any(grant.power is Power.SUPERADMIN for grant in member.roles)
    if is_superadmin and who is not None and not who.is_superadmin:
        raise PermissionDenied(
            f"{who.id!r} is no superadmin and cannot change {member.id!r}, who is one"
        )
