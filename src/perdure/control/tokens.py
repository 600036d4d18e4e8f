"""Bearer tokens of others: signed JWTs, of an OIDC provider say (extra ``server``)."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from perdure.client import Client
from perdure.control.members import Member, check_enabled, find_member
from perdure.engine.clock import SystemClock
from perdure.errors import Invalid, Unauthenticated, Unavailable, UsageError
from perdure.values import limits
from perdure.values.duration import SECOND, Duration, microseconds
from perdure.values.principals import Kind, Principal

_log = logging.getLogger("perdure.control")
Keys = Mapping[str, Any] | str | Path | Callable[[], Awaitable[Mapping[str, Any]]]
"""A JWKS document, a file with one, or what fetches one."""

ALGORITHMS: Final = ("RS256", "PS256", "ES256", "EdDSA", "Ed25519")
"""Those that are accepted unless others are named: with a public key, which is no secret here."""
_FRESH_SECONDS = 600.0
_AGAIN_SECONDS = 30.0
_FETCH_SECONDS = 10.0
_MOST = 1 << 20


class Tokens:
    """Checks tokens and says who shows them.

    Args:
        keys: the issuer's public keys. Fetched ones are kept for ten minutes; a token with a key
            id that is not among them lets them be fetched anew, twice a minute at most.
        issuer: what ``iss`` must be.
        audience: what ``aud`` must be, or hold.
        algorithms: those that are accepted. ``HS256`` and the like take a shared secret: name them
            only where the keys are such.
        leeway: how far clocks may differ, for ``exp``, ``nbf`` and ``iat``.
        subject: the claim that is the principal's id, or the external id of a user.
        roles: where the names of roles stand: ``"roles"``, ``"realm_access.roles"``; ``""``: a
            stored user has its roles, anybody else none. Mind that ``admin`` and ``superadmin``
            are roles too.
        tenant: where the tenant stands. Whoever has none there is refused, unless they are a stored
            user or account, whose tenant it is then; ``""``: a stored user has its tenant, and
            anybody else is of all.
        scopes: where the scopes stand: text with spaces between, or a list (``"scp"``, say); a
            token without any is not narrowed.
        only_known: refuse whoever is no stored user or account.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        keys: Keys,
        *,
        issuer: str,
        audience: str | Sequence[str],
        algorithms: Sequence[str] = ALGORITHMS,
        leeway: Duration = "30s",
        subject: str = "sub",
        roles: str = "",
        tenant: str = "",
        scopes: str = "scope",
        only_known: bool = False,
        clock: Callable[[], float] | None = None,
    ) -> None:
        try:
            import joserfc  # noqa: F401  # pyright: ignore[reportUnusedImport] - is it there?
        except ImportError as exc:
            raise UsageError(
                "Tokens: checking tokens needs the extra `server`: pip install 'perdure[server]'"
            ) from exc
        if not issuer or not audience or isinstance(algorithms, str) or not algorithms:
            raise Invalid("Tokens: issuer, audience and a list of algorithms are needed")
        if any(name.lower() == "none" for name in algorithms):
            raise Invalid("Tokens: algorithms: 'none' is a token that nobody has signed")
        self._source = keys
        self._issuer = issuer
        self._audience = [audience] if isinstance(audience, str) else list(audience)
        self._algorithms = list(algorithms)
        self._leeway = microseconds(leeway, what="leeway") // SECOND
        self._subject, self._roles, self._tenant = subject, roles, tenant
        self._scopes = scopes
        self._only_known = only_known
        self._clock = clock or (lambda: SystemClock().now() / SECOND)
        self._keys: Any = None
        self._fetched = 0.0
        self._fetching = asyncio.Lock()

    async def claims(self, text: str) -> dict[str, Any]:
        """Return the claims of a token that is in order.

        Raises:
            Unauthenticated: it is not; the message says why.
            Unavailable: the keys cannot be had now.
        """
        from joserfc import errors as jose
        from joserfc import jwt

        try:
            try:
                token = jwt.decode(text, await self._key_set(), algorithms=self._algorithms)
            except (jose.InvalidKeyIdError, jose.BadSignatureError):
                if not await self._fetched_anew():
                    raise
                token = jwt.decode(text, self._keys, algorithms=self._algorithms)
            self._rules().validate(token.claims)
        except (jose.JoseError, ValueError, TypeError, KeyError) as exc:
            # One text for what is no token at all, so that nobody learns from it.
            raise Unauthenticated(f"the token is not accepted: {_why(exc)}", cause=exc) from exc
        return token.claims

    async def principal(self, text: str, client: Client) -> Principal:
        """Return who shows a token.

        Raises:
            Unauthenticated: it is not in order, or says nothing of whom it is.
            PermissionDenied: who shows it was disabled.
        """
        claims = await self.claims(text)
        subject = _at(claims, self._subject)
        if not isinstance(subject, str) or not subject:
            raise Unauthenticated(f"the token is not accepted: no claim {self._subject!r}")
        if len(subject) > limits.LABEL or "\0" in subject:
            raise Unauthenticated(f"the token is not accepted: {self._subject!r} is no id")
        member = await find_member(client, subject)
        if member is not None:
            check_enabled(member)
        elif self._only_known:
            raise Unauthenticated(f"{subject!r} is not known here")
        roles = _texts(claims, self._roles)
        if not self._roles and member is not None:
            roles = member.roles
        scope = _at(claims, self._scopes)
        try:
            return Principal(
                subject if member is None else member.id,
                Kind.USER if member is None else member.kind,
                name=str(claims.get("name") or (member.name if member is not None else "")),
                roles=roles or (),
                scopes=scope.split() if isinstance(scope, str) else _texts(claims, self._scopes),
                tenant=self._tenant_of(claims, member),
                claims=claims,
            )
        except Invalid as exc:
            raise Unauthenticated(f"the token is not accepted: {exc.message}") from exc

    def _tenant_of(self, claims: Mapping[str, Any], member: Member | None) -> str:
        """Return whose data it sees: without a claim where one is to be, nobody's."""
        tenant = _at(claims, self._tenant) if self._tenant else None
        if tenant not in (None, "") and not isinstance(tenant, str):
            raise Unauthenticated(f"the token is not accepted: {self._tenant!r} is no text")
        if not tenant and member is None and self._tenant:
            raise Unauthenticated(f"the token is not accepted: no claim {self._tenant!r}")
        return tenant or (member.tenant if member is not None else "")

    def _rules(self) -> Any:
        from joserfc.jwt import JWTClaimsRegistry

        return JWTClaimsRegistry(
            now=int(self._clock()),
            leeway=self._leeway,
            iss={"essential": True, "value": self._issuer},
            aud={"essential": True, "values": self._audience},
            exp={"essential": True},
        )

    async def _key_set(self) -> Any:
        is_stale = self._clock() - self._fetched > _FRESH_SECONDS and callable(self._source)
        if self._keys is None or is_stale:
            async with self._fetching:
                await self._load()
        return self._keys

    async def _fetched_anew(self) -> bool:
        """Fetch the keys again, unless that was a moment ago: the issuer may have a new one."""
        if not callable(self._source):
            return False
        async with self._fetching:
            if self._clock() - self._fetched < _AGAIN_SECONDS:
                return False
            await self._load()
        return True

    async def _load(self) -> None:
        from joserfc import errors as jose
        from joserfc.jwk import KeySet

        source = self._source
        try:
            if callable(source):
                document = await source()
            elif isinstance(source, (str, Path)):
                document = json.loads(await asyncio.to_thread(Path(source).read_text, "utf-8"))
            else:
                document = source
            self._keys = KeySet.import_key_set(cast("Any", document))
        except (jose.JoseError, OSError, ValueError, KeyError, TypeError) as exc:
            said = f"the keys of {self._issuer} cannot be read: {exc}"
            if self._keys is None:
                raise Unavailable(said, cause=exc) from exc
            _log.warning("%s; those of before are used, and it is tried again", said)
            self._fetched = self._clock() - _FRESH_SECONDS + _AGAIN_SECONDS
            return
        self._fetched = self._clock()


def fetch_jwks(url: str) -> Callable[[], Awaitable[Mapping[str, Any]]]:
    """Return what fetches a JWKS document.

    Raises:
        Invalid: the URL is not ``https`` (``http`` is allowed on this machine).
    """
    _check_url(url)

    async def fetch() -> Mapping[str, Any]:
        return await asyncio.to_thread(_get, url)

    return fetch


def discover(issuer: str) -> Callable[[], Awaitable[Mapping[str, Any]]]:
    """Return what fetches the keys of an OIDC provider, found by its ``issuer``.

    Raises:
        Invalid: the URL is not ``https`` (``http`` is allowed on this machine).
    """
    _check_url(issuer)

    async def fetch() -> Mapping[str, Any]:
        where = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
        found = await asyncio.to_thread(_get, where)
        if found.get("issuer") != issuer:
            raise ValueError(f"{where} is of issuer {found.get('issuer')!r}")
        return await fetch_jwks(str(found.get("jwks_uri")))()

    return fetch


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme == "https" or (parts.scheme == "http" and _is_here(parts.hostname or "")):
        return
    raise Invalid(f"{url!r}: keys are fetched by https")


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _get(url: str) -> dict[str, Any]:
    request = Request(url, headers={"Accept": "application/json"})  # noqa: S310 - checked above
    with urlopen(request, timeout=_FETCH_SECONDS) as answer:  # noqa: S310 - checked above
        data = answer.read(_MOST + 1)
    if len(data) > _MOST:
        raise ValueError(f"{url} answers with more than {_MOST} bytes")
    found = json.loads(data)
    if not isinstance(found, dict):
        raise ValueError(f"{url} answers with no JSON object")  # noqa: TRY004 - of what came
    return cast("dict[str, Any]", found)


def _at(claims: Mapping[str, Any], path: str) -> Any:
    """Return a claim by name, or by a path of names with dots."""
    if path in claims:
        return claims[path]
    found: Any = claims
    for name in path.split("."):
        if not isinstance(found, Mapping):
            return None
        found = cast("Mapping[str, Any]", found).get(name)
    return found


def _texts(claims: Mapping[str, Any], path: str) -> Sequence[str] | None:
    """Return what a claim lists; one text is a list of one. ``None``: there is none.

    Raises:
        Unauthenticated: it is something else.
    """
    found = _at(claims, path) if path else None
    texts: Any = [found] if isinstance(found, str) else found
    if texts is None:
        return None
    if not isinstance(texts, (list, tuple)) or not all(
        isinstance(text, str) for text in cast("Sequence[Any]", texts)
    ):
        raise Unauthenticated(f"the token is not accepted: {path!r} is no list of text")
    return cast("Sequence[str]", texts)


def _why(exc: Exception) -> str:
    from joserfc import errors as jose

    if isinstance(exc, jose.ExpiredTokenError):
        return "it is over (exp)"
    if isinstance(exc, (jose.ClaimError, jose.UnsupportedAlgorithmError, jose.BadSignatureError)):
        return str(exc)
    return "it cannot be read, or nobody whom we know has signed it"
