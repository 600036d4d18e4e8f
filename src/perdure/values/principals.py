"""Who acts: a principal, and what each of its roles lets it do.

A principal comes from code that is trusted (a server that has checked a token, a program that says
who runs it), never from a payload. It travels with a run in its propagated context, under
:data:`CONTEXT_KEY`, which users cannot set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Final

import msgspec

from perdure.errors import Invalid
from perdure.values.labels import check_label

CONTEXT_KEY: Final = "principal"
"""Where ``workflow.context`` and ``activity.context`` have who started the run."""


class Kind(StrEnum):
    """What a principal is."""

    USER = "user"
    SERVICE = "service"


class Power(StrEnum):
    """What a role is to somebody who has it: one of its people, its admin, or everything."""

    MEMBER = "member"
    ADMIN = "admin"
    SUPERADMIN = "superadmin"


class Reach(StrEnum):
    """What somebody may read, or change, of a role's human tasks."""

    NONE = "none"
    SELF = "self"
    ALL = "all"


class Grant(msgspec.Struct, frozen=True, omit_defaults=True):
    """A role that somebody has. ``write`` never reaches further than ``read``."""

    role: str
    power: Power = Power.MEMBER
    read: Reach = Reach.ALL
    write: Reach = Reach.ALL


class Principal(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who acts.

    ``id``: of a user or a service account. ``roles``: names, or grants; the names ``admin`` and
    ``superadmin`` stand for that power. ``scopes``: what it may do at all, ``("workflow:invoke",)``
    say; ``None`` is everything. ``tenant``: whose data it sees; empty: of all. ``claims``: what a
    token said, for policies. ``initiated_by``: the person for whom a service account acts.

    Raises:
        Invalid: a field that cannot be meant.
    """

    id: str
    kind: Kind = Kind.USER
    name: str = ""
    roles: Sequence[str | Grant] = ()
    scopes: Sequence[str] | None = None
    tenant: str = ""
    claims: Mapping[str, Any] = {}
    initiated_by: str = ""

    def __post_init__(self) -> None:
        if not self.id:
            raise Invalid("principal: id is empty")
        check_label(self.id, "principal: id")
        grants = tuple(_grant(role) for role in self.roles)
        msgspec.structs.force_setattr(self, "roles", grants)
        if self.scopes is not None:
            msgspec.structs.force_setattr(self, "scopes", tuple(self.scopes))

    @property
    def grants(self) -> tuple[Grant, ...]:
        """Its roles, each with what it lets it do."""
        return tuple(_grant(role) for role in self.roles)

    @property
    def is_superadmin(self) -> bool:
        """Whether nothing is closed to it but by its scopes."""
        return any(grant.power is Power.SUPERADMIN for grant in self.grants)

    @property
    def is_admin(self) -> bool:
        """Whether it may configure, act for others and see all human tasks."""
        return any(
            grant.power is Power.SUPERADMIN or grant == Grant("admin", Power.ADMIN)
            for grant in self.grants
        )

    def grant(self, role: str) -> Grant | None:
        """Return what it has of a role, or ``None``."""
        return next((grant for grant in self.grants if grant.role == role), None)

    def may(self, scope: str) -> bool:
        """Tell whether its scopes include one."""
        return self.scopes is None or scope in self.scopes


def _grant(role: str | Grant) -> Grant:
    if isinstance(role, Grant):
        return role
    return Grant(role, Power(role) if role in (Power.ADMIN, Power.SUPERADMIN) else Power.MEMBER)
