"""``lt.roles``, ``lt.users``, ``lt.accounts``: who there is and what they may, a call an answer.

Writing needs an admin; reading needs somebody, but for roles, whose names are in every list. A
principal of a tenant reaches the users and accounts of its own. What is changed, and that the audit
tells of it, is the business of :class:`~perdure.control.Identity`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import msgspec

from perdure.client import Client
from perdure.control import configs
from perdure.control.access import needs_admin, needs_auth, needs_scope
from perdure.control.accounts import Accounts
from perdure.control.configs import WorkflowConfig
from perdure.control.identity import Identity
from perdure.control.kept import Kept
from perdure.control.keys import ApiKey
from perdure.control.members import Member
from perdure.control.results import ApiResult, answering
from perdure.errors import Invalid, NotFound
from perdure.values.duration import Duration
from perdure.values.principals import Grant, Principal, sees, tenant_for

READ, WRITE = "identity:read", "identity:write"


class Administering:
    """What these calls share. ``auth``: who calls."""

    def __init__(self, client: Client, auth: Principal | None) -> None:
        self._client = client if auth is None else client.as_(auth)
        self._auth = auth
        self._identity = Identity(self._client)

    def _reader(self) -> Principal:
        return needs_scope(needs_auth(self._auth), READ)

    def _writer(self) -> Principal:
        return needs_admin(needs_scope(needs_auth(self._auth), WRITE))


class RoleCalls(Administering):
    """``lt.roles``."""

    @answering
    async def create(
        self, *, name: str, description: str = "", settings: Mapping[str, Any] | None = None
    ) -> ApiResult:
        """Add a role: 201; 409 if there is one of this name."""
        self._writer()
        return ApiResult(201, await self._identity.roles.create(name, description, settings))

    @answering
    async def get(self, *, name: str) -> ApiResult:
        """Return a role."""
        return ApiResult(200, await self._identity.roles.get(name))

    @answering
    async def list(self, **page: Any) -> ApiResult:
        """Return ``roles`` by name, and the ``cursor`` of the next page."""
        found = await self._identity.roles.list(**page)
        return ApiResult(200, {"roles": found.items, "cursor": found.cursor})

    @answering
    async def update(self, *, name: str, **fields: Any) -> ApiResult:
        """Change ``description`` or ``settings`` alone; a setting that is ``None`` goes."""
        self._writer()
        return ApiResult(200, await self._identity.roles.update(name, **fields))

    @answering
    async def delete(self, *, name: str) -> ApiResult:
        """Take a role away; 409 if somebody, a pending escalation or a configuration has it."""
        self._writer()
        known = await Kept(self._client, configs.KIND, WorkflowConfig).all()
        used = [f"configuration {it.workflow_type!r}" for it in known if name in it.named_roles]
        await self._identity.roles.delete(name, used_by=used)
        return ApiResult(200, {"deleted": True, "name": name})


class MemberCalls(Administering):
    """``lt.users`` and ``lt.accounts``. ``word``: what a list calls them."""

    def __init__(self, client: Client, auth: Principal | None, word: str) -> None:
        super().__init__(client, auth)
        self._word = word
        self._members: Accounts = getattr(self._identity, word)
        self.keys = KeyCalls(client, auth, self)

    @answering
    async def create(self, *, id: str, **fields: Any) -> ApiResult:
        """Add one: 201; ``name``, ``roles``, ``tenant``, ``external_id``, ``metadata``."""
        fields["tenant"] = tenant_for(self._writer(), fields.get("tenant")) or ""
        return ApiResult(201, await self._members.create(id, **_read(fields)))

    @answering
    async def get(self, *, id: str) -> ApiResult:
        """Return one."""
        self._reader()
        return ApiResult(200, await self.seen(id))

    @answering
    async def list(self, **page: Any) -> ApiResult:
        """Return them by id, and the ``cursor`` of the next page, which may be a short one."""
        self._reader()
        found = await self._members.list(**page)
        mine = [member for member in found.items if sees(self._auth, member.tenant)]
        return ApiResult(200, {self._word: mine, "cursor": found.cursor})

    @answering
    async def update(self, *, id: str, **fields: Any) -> ApiResult:
        """Change what is named, and leave the rest."""
        caller = self._writer()
        await self.seen(id)
        if "tenant" in fields:
            fields["tenant"] = tenant_for(caller, fields["tenant"]) or ""
        return ApiResult(200, await self._members.update(id, **_read(fields)))

    @answering
    async def add_role(self, *, id: str, role: Grant | Mapping[str, Any] | str) -> ApiResult:
        """Give a role: a name, or a grant; it replaces what they have of that role."""
        self._writer()
        await self.seen(id)
        return ApiResult(200, await self._members.add_role(id, _grant(role)))

    @answering
    async def remove_role(self, *, id: str, role: str) -> ApiResult:
        """Take a role from them."""
        self._writer()
        await self.seen(id)
        return ApiResult(200, await self._members.remove_role(id, role))

    @answering
    async def delete(self, *, id: str) -> ApiResult:
        """Take one away: whatever they show is refused from then on."""
        self._writer()
        await self.seen(id)
        await self._members.delete(id)
        return ApiResult(200, {"deleted": True, "id": id})

    async def seen(self, id: str) -> Member:
        """Return one that the caller reaches.

        Raises:
            NotFound: there is none, or it is of another tenant.
        """
        member = await self._members.get(id)
        if not sees(self._auth, member.tenant):
            raise NotFound(f"there is no {member.kind} {id!r}")
        return member


class KeyCalls(Administering):
    """``lt.users.keys`` and ``lt.accounts.keys``."""

    def __init__(self, client: Client, auth: Principal | None, members: MemberCalls) -> None:
        super().__init__(client, auth)
        self._members = members

    @answering
    async def create(
        self,
        *,
        of: str,
        name: str = "",
        scopes: Sequence[str] | None = None,
        expires: Duration | None = None,
    ) -> ApiResult:
        """Make a key: 201 with ``raw_key``, which nobody can find out later."""
        self._writer()
        await self._members.seen(of)
        made = await self._identity.keys.create(of, name, scopes=scopes, expires=expires)
        return ApiResult(201, {**_shown(made.key), "raw_key": made.text})

    @answering
    async def list(self, *, of: str) -> ApiResult:
        """Return ``keys`` of somebody, without what they are shown as."""
        self._reader()
        await self._members.seen(of)
        found = await self._identity.keys.list(of)
        return ApiResult(200, {"keys": [_shown(key) for key in found]})

    @answering
    async def revoke(self, *, id: str) -> ApiResult:
        """Refuse a key from now on."""
        self._writer()
        found = next((key for key in await self._identity.keys.list() if key.id == id), None)
        if found is None:
            raise NotFound(f"there is no key {id!r}")
        await self._members.seen(found.of)
        return ApiResult(200, _shown(await self._identity.keys.revoke(id)))


def _read(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields with grants where mappings stand for them."""
    roles = fields.get("roles")
    if not isinstance(roles, (list, tuple)):
        return dict(fields)
    return {**fields, "roles": [_grant(role) for role in cast("Sequence[Any]", roles)]}


def _grant(given: Any) -> Any:
    if not isinstance(given, Mapping):
        return given
    try:
        return msgspec.convert(given, Grant)
    except msgspec.ValidationError as exc:
        raise Invalid(f"roles: {exc}") from exc


def _shown(key: ApiKey) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.structs.asdict(key)
    del fields["hash"]
    return fields
