"""Who asks: from the header of a request to a principal."""

from __future__ import annotations

from perdure.client import Client
from perdure.control.delegation import PREFIX as DELEGATION
from perdure.control.delegation import Delegations
from perdure.control.keys import PREFIX as KEY
from perdure.control.keys import Keys
from perdure.control.tokens import Tokens
from perdure.errors import Unauthenticated
from perdure.values.principals import Principal


class Authenticator:
    """Knows API keys, delegations and, with ``tokens``, the tokens of others.

    Args:
        client: on the database that has the keys.
        tokens: how bearer tokens are checked; ``None``: they are refused.
    """

    def __init__(self, client: Client, tokens: Tokens | None = None) -> None:
        self._client = client
        self._keys = Keys(client)
        self._delegations = Delegations(client)
        self._tokens = tokens

    async def of(self, header: str | None) -> Principal:
        """Return who asks, by an ``Authorization`` header: ``Bearer`` and a key or token.

        Raises:
            Unauthenticated: nobody who is known (401).
            PermissionDenied: who is known, and was disabled (403).
            Unavailable: the database, or the keys of tokens, cannot be read now.
        """
        scheme, _, text = (header or "").strip().partition(" ")
        text = text.strip()
        if not header or not text:
            raise Unauthenticated("no credentials: send `Authorization: Bearer …`")
        if scheme.lower() != "bearer":
            raise Unauthenticated("these credentials are of another scheme: send Bearer")
        if text.startswith(KEY):
            return await self._keys.principal(text)
        if text.startswith(DELEGATION):
            return await self._delegations.principal(text)
        if self._tokens is None:
            raise Unauthenticated("this is no API key, and tokens are not accepted here")
        return await self._tokens.principal(text, self._client)
