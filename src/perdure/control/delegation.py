"""Delegation: somebody lets another act in their place, for a while and for less than they may."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from perdure.client import Client
from perdure.control import secrets
from perdure.control.kept import Kept, until_written, write
from perdure.control.members import Member, check_enabled, find_member
from perdure.errors import Invalid, PermissionDenied, Unauthenticated
from perdure.values.duration import Duration, microseconds
from perdure.values.labels import check_labels
from perdure.values.principals import Principal
from perdure.values.records import Amend, Drop

PREFIX = "pdd_"
_USUAL: Duration = "5m"
_LONGEST = 3_600_000_000
_STORED = ("roles", "tenant")
CLAIM = "delegation"
"""Among the claims of who acts in another's place: the id of the delegation."""


class Delegation(msgspec.Struct, frozen=True, omit_defaults=True):
    """``to`` may act as ``principal`` until ``expires_at`` (microseconds since 1970).

    ``given_by``, ``given_to``: when these two were added, if they are users or accounts: whoever
    has the id later is somebody else. ``fixed``: what of roles and tenant a token said and is not
    what is stored of the principal; it stays as it was.
    """

    id: str
    principal: Principal
    to: str
    scopes: tuple[str, ...] | None
    expires_at: int
    revoked_at: int = 0
    hash: str = ""
    given_by: int = 0
    given_to: int = 0
    fixed: tuple[str, ...] = ()


class Delegated(msgspec.Struct, frozen=True):
    """A delegation that was just made. ``text`` is the token, shown this once."""

    delegation: Delegation
    text: str


class Delegations:
    """The delegations of a namespace."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._kept = Kept(client, "delegation", Delegation, secrets=("hash",))

    async def create(
        self,
        principal: Principal,
        to: str,
        *,
        scopes: Sequence[str] | None = None,
        expires: Duration = _USUAL,
    ) -> Delegated:
        """Let ``to`` act as ``principal``, for 5 minutes unless ``expires`` says otherwise.

        ``scopes``: some of the principal's; all of them if left out.

        Raises:
            Invalid: for longer than an hour, or no time at all.
            PermissionDenied: scopes that the principal has not; or it acts in another's place
                itself, and so cannot give that on.
        """
        span = microseconds(expires, what="expires")
        if not 0 < span <= _LONGEST:
            raise Invalid(f"expires: {expires!r} is not more than 0 and at most an hour")
        if CLAIM in principal.claims:
            raise PermissionDenied(
                f"{to!r} cannot act for {principal.id!r} by a delegation of a delegation"
            )
        door, id = self._client.door, Principal(to).id
        now, made = door.now(), secrets.make(PREFIX, door.chance)
        giver = await find_member(self._client, principal.id)
        taker = await find_member(self._client, id)
        delegation = Delegation(
            made.id,
            principal,
            id,
            _narrowed(principal, scopes),
            now + span,
            hash=made.hash,
            given_by=0 if giver is None else giver.created_at,
            given_to=0 if taker is None else taker.created_at,
            fixed=_fixed(principal, giver),
        )
        put = self._kept.put(made.id, delegation)
        line = self._kept.line("create", f"{made.id} {principal.id} > {id}", None, delegation)

        async def change() -> None:
            await write(self._client, Amend([put], await self._over(now), [line]))

        await until_written(change)
        return Delegated(msgspec.structs.replace(delegation, hash=""), made.text)

    async def revoke(self, id: str) -> None:
        """End a delegation now. It may be repeated.

        Raises:
            NotFound: there is none, or it was over long ago.
        """

        async def change() -> None:
            found, version = await self._kept.get(id)
            after = msgspec.structs.replace(found, revoked_at=self._client.door.now())
            line = self._kept.line("revoke", id, found, after)
            if not found.revoked_at:
                put = self._kept.put(id, after, version)
                await write(self._client, Amend([put], audit=[line]))

        await until_written(change)

    async def drops(self, of: str) -> Sequence[Drop]:
        """Return what takes away all that somebody who goes has given, or was given."""
        home = self._client.namespace
        found = [it.id for it in await self._kept.all() if of in (it.principal.id, it.to)]
        return [Drop(self._kept.kind, id, namespace=home) for id in found]

    async def principal(self, text: str) -> Principal:
        """Return as whom the bearer of a token acts: with ``initiated_by``, to whom it was given.

        Raises:
            Unauthenticated: there is no such token, or it is over or revoked.
            PermissionDenied: who gave it was disabled meanwhile, or to whom.
        """
        id, secret = secrets.parse(PREFIX, text)
        found = await self._kept.find(id)
        if found is None or not secrets.fits(secret, found.value.hash):
            raise Unauthenticated("there is no such delegation")
        it = found.value
        if it.revoked_at or it.expires_at <= self._client.door.now():
            raise Unauthenticated(f"delegation {id} is over")
        who = it.principal
        giver = await self._still(it, who.id, it.given_by)
        await self._still(it, it.to, it.given_to)
        stored: dict[str, Any] = {}
        if giver is not None:  # its roles are those that it has now
            stored = {name: getattr(giver, name) for name in _STORED if name not in it.fixed}
        claims = {**who.claims, CLAIM: id}
        more = {"scopes": it.scopes, "initiated_by": it.to, "claims": claims}
        return msgspec.structs.replace(who, **stored, **more)

    async def _still(self, it: Delegation, name: str, since: int) -> Member | None:
        """Return who has given a delegation, or to whom it was given, if that is still somebody.

        Raises:
            Unauthenticated: they were deleted, maybe while it was being given.
            PermissionDenied: they were disabled.
        """
        member = await find_member(self._client, name)
        if since and (member is None or member.created_at != since):
            raise Unauthenticated(f"delegation {it.id} is over: {name!r} is no more")
        return None if member is None else check_enabled(member)

    async def _over(self, now: int) -> list[Drop]:
        """Return what takes away delegations of which nobody asks any more."""
        page = await self._kept.list(limit=100)
        home = self._client.namespace
        old = [it.id for it in page.items if it.expires_at + _LONGEST < now]
        return [Drop(self._kept.kind, id, namespace=home) for id in old]


def _fixed(principal: Principal, stored: Member | None) -> tuple[str, ...]:
    if stored is None or not principal.claims:
        return ()
    said = {name: getattr(principal, name) for name in _STORED}
    return tuple(name for name, it in said.items() if it and it != getattr(stored, name))


def _narrowed(principal: Principal, scopes: Sequence[str] | None) -> tuple[str, ...] | None:
    if scopes is None:
        return None if principal.scopes is None else tuple(principal.scopes)
    given = check_labels(scopes, "scopes")
    if wider := [scope for scope in given if not principal.may(scope)]:
        raise PermissionDenied(f"{principal.id!r} has no scope {', '.join(wider)} to give on")
    return given
