"""Users and service accounts: they are added, changed and taken away."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from perdure.client import Client
from perdure.control.delegation import Delegations
from perdure.control.kept import Kept, grants_as_they_are, until_written, write
from perdure.control.keys import Keys
from perdure.control.members import KINDS, Alias, Member, check_above
from perdure.control.roles import ALWAYS, Role, check_role
from perdure.errors import AlreadyExists, Invalid, PermissionDenied
from perdure.values.labels import check_label
from perdure.values.principals import Grant, Power, Principal, Reach
from perdure.values.records import Amend, Drop, Put
from perdure.views import Page

_REACHES = tuple(Reach)
_HARMLESS = frozenset({"name", "metadata"})
_FIELDS = frozenset({"name", "roles", "tenant", "external_id", "disabled", "metadata"})


class Accounts:
    """The users of a namespace, or its service accounts; no id is both."""

    def __init__(self, client: Client, kind: str) -> None:
        self._client = client
        self._kind = kind
        self._kept = Kept(client, kind, Member)
        self._others = [Kept(client, other, Member) for other in KINDS if other != kind]

    async def create(self, id: str, **fields: Any) -> Member:
        """Add one.

        Args:
            id: what it is called, for ever; the id of a principal.
            **fields: ``name``, ``roles`` (names or :class:`Grant`), ``tenant``, ``external_id``,
                ``metadata``, ``disabled``.

        Raises:
            AlreadyExists: the id, or the external id, is somebody's.
            Invalid: an unknown field, no such role, a grant that writes more than it reads.
            PermissionDenied: it would be a superadmin, and the client acts for somebody who is not.
        """
        now = self._client.door.now()
        made = Member(Principal(id).id, KINDS[self._kind], created_at=now)

        async def change() -> Member:
            grants = await grants_as_they_are(self._client)  # first: what follows looks at roles
            after = await self._changed(made, fields)
            for other in (self._kept, *self._others):
                if await other.find(id) is not None:
                    raise AlreadyExists(f"there is {other.kind} {id!r} already")
            puts = [self._kept.put(id, after), grants]
            puts += await self._named(after)
            line = self._kept.line("create", id, None, after)
            await write(self._client, Amend(puts, audit=[line]))
            return after

        return await until_written(change)

    async def get(self, id: str) -> Member:
        """Return one.

        Raises:
            NotFound: there is none with this id.
        """
        return (await self._kept.get(id)).value

    async def find(self, id: str) -> Member | None:
        """Return one, or ``None``."""
        found = await self._kept.find(id)
        return None if found is None else found.value

    async def list(self, **page: Any) -> Page[Member]:
        """List them by id: ``limit``, ``cursor``."""
        return await self._kept.list(**page)

    async def update(self, id: str, **fields: Any) -> Member:
        """Change some fields, and leave the others; raises as :meth:`create`, and ``NotFound``.

        Only a superadmin changes what a superadmin can do, or deletes one (``PermissionDenied``).
        """
        return await self._update(id, lambda _: fields)

    async def _update(self, id: str, changes: Callable[[Member], Mapping[str, Any]]) -> Member:
        """Change what ``changes`` makes of somebody as they are when it is written."""

        async def change() -> Member:
            grants = await grants_as_they_are(self._client)
            before, version = await self._kept.get(id)
            fields = changes(before)
            if not _HARMLESS.issuperset(fields):
                check_above(self._client, before)
            after = await self._changed(before, fields)
            puts = [self._kept.put(id, after, version), grants]
            drops: list[Drop] = []
            if after.external_id != before.external_id:
                puts += await self._named(after)
                drops = self._unnamed(before)
            line = self._kept.line("update", id, before, after)
            await write(self._client, Amend(puts, drops, [line]))
            return after

        return await until_written(change)

    async def add_role(self, id: str, role: Grant | str) -> Member:
        """Give a role, or change what they have of it."""
        grant = _grants([role])[0]
        return await self._update(id, lambda it: {"roles": [*_others(it, grant.role), grant]})

    async def remove_role(self, id: str, role: str) -> Member:
        """Take a role away."""
        return await self._update(id, lambda it: {"roles": _others(it, role)})

    async def delete(self, id: str) -> None:
        """Take one away, with all keys and delegations: whatever they show is refused from then on,
        also if the id is given to somebody else one day.

        Raises:
            NotFound: there is none with this id.
        """

        async def change() -> None:
            grants = await grants_as_they_are(self._client)
            before, version = await self._kept.get(id)
            check_above(self._client, before)
            drops = [Drop(self._kind, id, version, self._client.namespace), *self._unnamed(before)]
            drops += await Keys(self._client).drops(id)
            drops += await Delegations(self._client).drops(id)
            line = self._kept.line("delete", id, before, None)
            await write(self._client, Amend([grants], drops, [line]))

        await until_written(change)

    async def _changed(self, before: Member, fields: Mapping[str, Any]) -> Member:
        if unknown := set(fields) - _FIELDS:
            raise Invalid(f"{self._kind}: unknown field {', '.join(sorted(unknown))}")
        given = dict(fields)
        if "roles" in given:
            given["roles"] = _grants(given["roles"])
            await self._check_grants(given["roles"], before)
        for name in ("name", "tenant", "external_id"):
            if name in given:
                given[name] = check_label(given[name] or "", f"{self._kind}: {name}")
        return msgspec.structs.replace(before, **given)

    async def _check_grants(self, grants: Sequence[Grant], before: Member) -> None:
        roles = Kept(self._client, "role", Role)
        for grant in grants:
            if grant.role not in ALWAYS and await roles.find(check_role(grant.role)) is None:
                raise Invalid(f"roles: there is no role {grant.role!r}; create it first")
            if _REACHES.index(grant.write) > _REACHES.index(grant.read):
                raise Invalid(
                    f"roles: {grant.role!r} would be written ({grant.write}) further than it is "
                    f"read ({grant.read})"
                )
        who = self._client.principal
        had = {it.role for it in before.roles if it.power is Power.SUPERADMIN}
        new = {it.role for it in grants if it.power is Power.SUPERADMIN} - had
        if new and who is not None and not who.is_superadmin:
            raise PermissionDenied(f"{who.id!r} is no superadmin and cannot make anybody one")

    async def _named(self, member: Member) -> list[Put]:
        if not member.external_id:
            return []
        aliases = Kept(self._client, "external", Alias)
        found = await aliases.find(member.external_id)
        if found is not None:
            raise AlreadyExists(f"external id {member.external_id!r} is that of {found.value.id!r}")
        return [aliases.put(member.external_id, Alias(self._kind, member.id))]

    def _unnamed(self, member: Member) -> list[Drop]:
        if not member.external_id:
            return []
        return [Drop("external", member.external_id, namespace=self._client.namespace)]


def _others(member: Member, role: str) -> list[Grant]:
    return [grant for grant in member.roles if grant.role != role]


def _grants(given: Sequence[Grant | str]) -> tuple[Grant, ...]:
    try:
        grants = Principal("x", roles=given).grants
    except (TypeError, ValueError) as exc:
        raise Invalid(f"roles: {exc}") from exc
    names = [grant.role for grant in grants]
    if twice := {name for name in names if names.count(name) > 1}:
        raise Invalid(f"roles: {', '.join(sorted(twice))}: given twice")
    return grants
