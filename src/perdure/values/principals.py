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

from perdure.errors import Invalid, PermissionDenied
from perdure.values import limits, payload
from perdure.values.context import POLICY_KEY, ROLE_KEY
from perdure.values.labels import check_labels, listed

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
        for name in ("id", "name", "tenant", "initiated_by"):
            payload.text(getattr(self, name), what=f"principal: {name}", maximum=limits.LABEL)
        claims: Any = self.claims
        if not isinstance(claims, Mapping):
            raise Invalid(f"principal: claims: {claims!r} is no mapping")
        try:
            msgspec.structs.force_setattr(self, "kind", Kind(self.kind))
        except ValueError:
            raise Invalid(
                f"principal: kind: {self.kind!r} is not one of {', '.join(Kind)}"
            ) from None
        grants = tuple(_grant(role) for role in listed(self.roles, "principal: roles"))
        msgspec.structs.force_setattr(self, "roles", grants)
        if self.scopes is not None:
            scopes = check_labels(self.scopes, "principal: scopes")
            msgspec.structs.force_setattr(self, "scopes", scopes)

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
    payload.text(role, what="principal: roles", maximum=limits.LABEL)
    return Grant(role, Power(role) if role in (Power.ADMIN, Power.SUPERADMIN) else Power.MEMBER)


# -- how it travels ------------------------------------------------------------------------------


def check_context(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a user's context if it does not say who acts.

    Raises:
        Invalid: it does.
    """
    if POLICY_KEY in given:
        raise Invalid(
            f"context: {POLICY_KEY!r} is kept for the policies that let a run begin, and cannot be "
            "given: take another key"
        )
    if ROLE_KEY in given:
        raise Invalid(
            f"context: {ROLE_KEY!r} is kept for the role that the workflow's configuration names, "
            "and cannot be given: take another key"
        )
    if CONTEXT_KEY in given:
        raise Invalid(
            f"context: {CONTEXT_KEY!r} is kept for who acts, and cannot be given: take a client "
            "that acts for somebody, client.as_(…), or another key"
        )
    return given


def carrying(context: Mapping[str, Any], principal: Principal | None) -> Mapping[str, Any]:
    """Return a context that says who acts; what it said before does not count."""
    rest = {key: value for key, value in context.items() if key != CONTEXT_KEY}
    if principal is None:
        return rest
    return {**rest, CONTEXT_KEY: msgspec.to_builtins(principal)}


def principal_in(context: Mapping[str, Any]) -> Principal | None:
    """Return who acts, as a propagated context says it; ``None``: nobody was named."""
    found = context.get(CONTEXT_KEY)
    try:
        return None if found is None else msgspec.convert(found, Principal)
    except (msgspec.ValidationError, Invalid):
        return None  # of a run from before the key was kept for this: it names nobody


def tenant_in(context: bytes | None) -> str:
    """Return the tenant of who acts, as an encoded context says it; ``""``: of all."""
    who = principal_in(msgspec.json.decode(context)) if context else None
    return "" if who is None else who.tenant


def tenant_for(principal: Principal | None, asked: str | None) -> str | None:
    """Return the tenant of what a principal starts: its own, if it has one.

    Raises:
        PermissionDenied: another one was asked for.
    """
    own = principal.tenant if principal is not None else ""
    if own and asked not in (None, "", own):
        raise PermissionDenied(
            f"principal of tenant {own!r}: cannot start anything for tenant {asked!r}"
        )
    return own or asked


def sees(principal: Principal | None, tenant: str | None) -> bool:
    """Tell whether a principal may see what is of a tenant: its own, or it has none itself."""
    return principal is None or principal.tenant in ("", tenant)
