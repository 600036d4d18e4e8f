"""API keys of users and service accounts."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from perdure.client import Client
from perdure.control import secrets
from perdure.control.kept import Kept, grants_as_they_are, until_written, write
from perdure.control.members import check_above, check_enabled, find_member
from perdure.errors import Conflict, Invalid, NotFound, Unauthenticated
from perdure.values.duration import Duration, optional_microseconds
from perdure.values.labels import check_label, check_labels
from perdure.values.principals import Principal
from perdure.values.records import Amend, Drop

PREFIX = "pdk_"
_USED_EVERY = 600_000_000
"""How exactly it is known when a key was last used: a write per key and ten minutes at most."""


class ApiKey(msgspec.Struct, frozen=True, omit_defaults=True):
    """An API key, without its secret. Times in microseconds since 1970; 0: never.

    ``of``: whose it is. ``scopes``: what it may be used for; ``None``: everything. ``used_at``:
    within ten minutes.
    """

    id: str
    of: str
    name: str = ""
    scopes: tuple[str, ...] | None = None
    created_at: int = 0
    expires_at: int = 0
    revoked_at: int = 0
    used_at: int = 0
    hash: str = ""


class NewKey(msgspec.Struct, frozen=True):
    """A key that was just made. ``text`` is what is shown; nobody can find it out later."""

    key: ApiKey
    text: str


class Keys:
    """The API keys of a namespace."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._kept = Kept(client, "key", ApiKey, secrets=("hash",))

    async def create(
        self,
        of: str,
        name: str = "",
        *,
        scopes: Sequence[str] | None = None,
        expires: Duration | None = None,
    ) -> NewKey:
        """Make a key for a user or service account; its text is shown this once.

        ``expires``: in how long it is over.

        Raises:
            NotFound: there is no such user or account.
            Invalid: scopes that are no list of text, or a key that is over at once.
            PermissionDenied: it is a superadmin's, and the client acts for somebody who is none.
        """
        limit = optional_microseconds(expires, what="expires")
        if limit == 0:
            raise Invalid("expires: in no time at all; leave it out for a key that has no end")
        allowed = None if scopes is None else check_labels(scopes, "scopes")
        label = check_label(name, "name") or ""
        made = secrets.make(PREFIX, self._client.door.chance)

        async def change() -> ApiKey:
            now = self._client.door.now()
            grants = await grants_as_they_are(self._client)  # first: who is deleted loses all keys
            member = await find_member(self._client, of)
            if member is None:
                raise NotFound(f"there is no user and no account {of!r}")
            check_above(self._client, member)
            key = ApiKey(
                made.id,
                member.id,
                label,
                allowed,
                created_at=now,
                expires_at=0 if limit is None else now + limit,
                hash=made.hash,
            )
            line = self._kept.line("create", key.id, None, key)
            await write(self._client, Amend([self._kept.put(key.id, key), grants], audit=[line]))
            return key

        return NewKey(_shown(await until_written(change)), made.text)

    async def list(self, of: str = "") -> list[ApiKey]:
        """Return the keys of somebody, or all, by id."""
        return [_shown(key) for key in await self._kept.all() if of in ("", key.of)]

    async def revoke(self, id: str) -> ApiKey:
        """Refuse a key from now on. It may be repeated.

        Raises:
            NotFound: there is no such key.
            PermissionDenied: it is a superadmin's, and the client acts for somebody who is none.
        """

        async def change() -> ApiKey:
            key, version = await self._kept.get(id)
            member = await find_member(self._client, key.of)
            if member is not None:
                check_above(self._client, member)
            if key.revoked_at:
                return _shown(key)
            after = msgspec.structs.replace(key, revoked_at=self._client.door.now())
            line = self._kept.line("revoke", id, key, after)
            await write(self._client, Amend([self._kept.put(id, after, version)], audit=[line]))
            return _shown(after)

        return await until_written(change)

    async def drops(self, of: str) -> Sequence[Drop]:
        """Return what takes away all keys of somebody who goes: whoever gets the id later is
        somebody else.
        """
        home = self._client.namespace
        return [Drop(self._kept.kind, key.id, namespace=home) for key in await self.list(of)]

    async def principal(self, text: str) -> Principal:
        """Return who shows a key.

        Raises:
            Unauthenticated: there is no such key, or it is over or revoked.
            PermissionDenied: whose it is was disabled.
        """
        id, secret = secrets.parse(PREFIX, text)
        found = await self._kept.find(id)
        now = self._client.door.now()
        # One answer for an unknown key and a wrong secret.
        if found is None or not secrets.fits(secret, found.value.hash):
            raise Unauthenticated("there is no such API key")
        key = found.value
        if key.revoked_at:
            raise Unauthenticated(f"API key {id} was revoked")
        if key.expires_at and key.expires_at <= now:
            raise Unauthenticated(f"API key {id} is over: it had an end")
        member = await find_member(self._client, key.of)
        if member is None:
            raise Unauthenticated(f"API key {id} was that of {key.of!r}, who is no more")
        check_enabled(member)
        if now - key.used_at >= _USED_EVERY:
            await self._note_use(key, found.version, now)
        return member.principal(scopes=key.scopes)

    async def _note_use(self, key: ApiKey, version: int, now: int) -> None:
        put = self._kept.put(key.id, msgspec.structs.replace(key, used_at=now), version)
        try:
            await write(self._client, Amend([put]))
        except Conflict:
            pass  # somebody else has noted it, or revoked the key: its next use is refused


def _shown(key: ApiKey) -> ApiKey:
    return msgspec.structs.replace(key, hash="")
