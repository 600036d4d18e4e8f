"""Roles: what they are called. What somebody has of one stands with that somebody."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from perdure.client import Client
from perdure.control.kept import Kept, grants_as_they_are, until_written, write
from perdure.control.members import KINDS, Member
from perdure.errors import AlreadyExists, Conflict, Invalid
from perdure.values.people import HumanTaskFilter
from perdure.values.principals import Power
from perdure.values.records import Amend, Drop
from perdure.views import Page
from perdure.workflow import check_mapping

_NAME = re.compile(r"[a-z][a-z0-9_-]*")
ALWAYS = frozenset({str(Power.ADMIN), str(Power.SUPERADMIN)})
"""Roles that are there without anybody having made them."""


class Role(msgspec.Struct, frozen=True, omit_defaults=True):
    """A role. ``settings``: what else is kept with it, by name."""

    name: str
    description: str = ""
    settings: Mapping[str, Any] = {}


def check_role(name: str) -> str:
    """Return a role's name.

    Raises:
        Invalid: it is none.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):  # pyright: ignore[reportUnnecessaryIsInstance] - users' values
        raise Invalid(
            f"role: {name!r} is no name of a role: small letters, digits, _ and -, a letter first"
        )
    return name


class Roles:
    """The roles of a namespace."""

    def __init__(self, client: Client) -> None:
        self._kept = Kept(client, "role", Role)
        self._client = client

    async def create(
        self, name: str, description: str = "", settings: Mapping[str, Any] | None = None
    ) -> Role:
        """Add a role.

        Raises:
            AlreadyExists: there is one of this name.
            Invalid: a field that cannot be meant.
        """
        role = Role(check_role(name), description, check_mapping(settings or {}, "settings"))
        puts = [self._kept.put(name, role)]
        try:
            line = self._kept.line("create", name, None, role)
            await write(self._client, Amend(puts, audit=[line]))
        except Conflict as conflict:
            raise AlreadyExists(f"there is a role {name!r} already") from conflict
        return role

    async def ensure(self, names: Sequence[str]) -> None:
        """Add those of these roles that are not there yet."""
        for name in names:
            if check_role(name) not in ALWAYS and await self._kept.find(name) is None:
                try:
                    await self.create(name)
                except AlreadyExists:
                    continue  # somebody else has, meanwhile

    async def get(self, name: str) -> Role:
        """Return a role.

        Raises:
            NotFound: there is none of this name.
        """
        return (await self._kept.get(name)).value

    async def list(self, **page: Any) -> Page[Role]:
        """List roles by name: ``limit``, ``cursor``."""
        return await self._kept.list(**page)

    async def update(self, name: str, **changes: Any) -> Role:
        """Change some fields, and leave the others; a setting that is ``None`` is taken away.

        Raises:
            NotFound: there is none of this name.
            Invalid: no such field, or one that cannot be meant.
        """
        if unknown := set(changes) - {"description", "settings"}:
            raise Invalid(f"role: unknown field {', '.join(sorted(unknown))}")

        async def change() -> Role:
            role, version = await self._kept.get(name)
            fields = dict(changes)
            if "settings" in fields:
                more = check_mapping(fields["settings"] or {}, "settings")
                merged: dict[str, Any] = {**role.settings, **more}
                fields["settings"] = {key: it for key, it in merged.items() if it is not None}
            after = msgspec.structs.replace(role, **fields)
            put = self._kept.put(name, after, version)
            line = self._kept.line("update", name, role, after)
            await write(self._client, Amend([put], audit=[line]))
            return after

        return await until_written(change)

    async def delete(self, name: str, used_by: Sequence[str] = ()) -> None:
        """Take a role away. ``used_by``: what else refers to it, as the caller knows.

        Raises:
            NotFound: there is none of this name.
            Conflict: somebody has it, an open human task is for it, or ``used_by``.
        """

        async def change() -> None:
            role, version = await self._kept.get(name)
            grants = await grants_as_they_are(self._client)
            if users := [*used_by, *await self._users_of(name)]:
                raise Conflict(f"role {name!r} is used by {', '.join(users)}: it cannot be deleted")
            drop = Drop("role", name, version, self._client.namespace)
            line = self._kept.line("delete", name, role, None)
            await write(self._client, Amend([grants], [drop], [line]))

        await until_written(change)

    async def _users_of(self, name: str) -> list[str]:
        found: list[str] = []
        for kind in KINDS:
            members = await Kept(self._client, kind, Member).all()
            having = [it.id for it in members if any(grant.role == name for grant in it.roles)]
            found += [f"{kind} {id!r}" for id in having[:3]]
            found += [f"{len(having) - 3} more of kind {kind}"] if len(having) > 3 else []
        door, where = self._client.door, HumanTaskFilter(self._client.namespace, role=name)
        now = door.now()
        if await door.read(lambda store: store.human_tasks(where, now, limit=1)):
            found.append("an open human task")
        return found
