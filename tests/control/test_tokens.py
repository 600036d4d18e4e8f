"""Tokens of others: what is accepted, as whom, and all that is refused."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwk, jwt
from tests.control.world import World

from perdure.control import (
    Authenticator,
    Grant,
    Kind,
    Power,
    Principal,
    Tokens,
    discover,
    fetch_jwks,
)
from perdure.errors import Invalid, PermissionDenied, Unauthenticated, Unavailable

ISSUER, AUDIENCE, NOW = "https://id.example", "perdure", 1_000_000
KEY = jwk.ECKey.generate_key("P-256", {"kid": "one"}, private=True)
OTHER = jwk.ECKey.generate_key("P-256", {"kid": "two"}, private=True)
RSA = jwk.RSAKey.generate_key(2048, {"kid": "rsa"}, private=True)
JWKS: dict[str, Any] = {"keys": [KEY.as_dict(private=False), RSA.as_dict(private=False)]}


def token(key: Any = KEY, alg: str = "ES256", header: Any = None, **claims: Any) -> str:
    fields = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "exp": NOW + 60, **claims}
    fields = {name: it for name, it in fields.items() if it is not ...}
    return jwt.encode({"alg": alg, "kid": key.kid, **(header or {})}, fields, key, [alg])


def tokens(keys: Any = JWKS, **options: Any) -> Tokens:
    options.setdefault("clock", lambda: NOW)
    return Tokens(keys, issuer=ISSUER, audience=AUDIENCE, **options)


async def who(world: World, text: str, **options: Any) -> Principal:
    return await Authenticator(world.client, tokens(**options)).of(f"Bearer {text}")


async def test_a_token_says_who_shows_it_and_its_claims_are_kept(world: World):
    found = await who(world, token(name="Ada", team={"n": 1}, scope="read write"))
    assert (found.id, found.name, found.kind, found.roles) == ("ada", "Ada", Kind.USER, ())
    assert found.scopes == ("read", "write")
    assert found.claims["team"] == {"n": 1}
    assert (await who(world, token(RSA, "RS256"))).scopes is None


async def test_a_stored_user_has_its_roles_and_is_found_by_its_external_id(world: World):
    await world.identity.roles.create("finance")
    await world.identity.users.create(
        "ada", name="A", roles=["finance"], tenant="acme", external_id="x-1"
    )
    for subject in ("ada", "x-1"):
        found = await who(world, token(sub=subject))
        assert (found.id, found.name, found.tenant) == ("ada", "A", "acme")
        assert found.grants == (Grant("finance"),)
    await world.identity.users.update("ada", disabled=True)
    with pytest.raises(PermissionDenied):
        await who(world, token())


async def test_roles_and_tenant_may_come_from_claims(world: World):
    text = token(realm={"roles": ["finance", "admin"]}, org="acme", id="7")
    found = await who(world, text, roles="realm.roles", tenant="org", subject="id")
    assert (found.id, found.tenant) == ("7", "acme")
    assert found.grants == (Grant("finance"), Grant("admin", Power.ADMIN))
    assert (await who(world, token(r="finance"), roles="r")).grants == (Grant("finance"),)
    for wrong in ({"a": 1}, [1], 7):
        with pytest.raises(Unauthenticated, match="no list of text"):
            await who(world, token(r=wrong), roles="r")
    with pytest.raises(Unauthenticated, match="not known"):
        await who(world, token(), only_known=True)


async def test_scopes_are_a_text_or_a_list_wherever_they_stand(world: World):
    assert (await who(world, token(scope=["read"]))).scopes == ("read",)
    assert (await who(world, token(scope=""))).scopes == ()
    assert (await who(world, token(scp=["read"]), scopes="scp")).scopes == ("read",)
    assert (await who(world, token(scp="a b"), scopes="scp")).scopes == ("a", "b")
    assert (await who(world, token(scope="a"), scopes="")).scopes is None
    for wrong in ({"a": 1}, [1], 7, True):
        with pytest.raises(Unauthenticated, match="'scope' is no list of text"):
            await who(world, token(scope=wrong))


async def test_where_tenants_come_from_a_claim_nobody_without_one_is_of_all(world: World):
    for nothing in (..., "", None):
        with pytest.raises(Unauthenticated, match="no claim 'org'"):
            await who(world, token(org=nothing), tenant="org")
    for wrong in (["acme"], 7, False):
        with pytest.raises(Unauthenticated, match="'org' is no text"):
            await who(world, token(org=wrong), tenant="org")
    await world.identity.users.create("ada", tenant="globex")
    assert (await who(world, token(), tenant="org")).tenant == "globex"
    assert (await who(world, token(org="acme"), tenant="org")).tenant == "acme"
    await world.identity.users.update("ada", tenant="")
    assert (await who(world, token(), tenant="org")).tenant == ""


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://else.example"},
        {"iss": ...},
        {"aud": "other"},
        {"aud": ["other", "more"]},
        {"aud": ...},
        {"exp": NOW - 31},
        {"exp": ...},
        {"exp": "soon"},
        {"nbf": NOW + 31},
        {"iat": NOW + 31},
        {"sub": ...},
        {"sub": ""},
        {"sub": 7},
        {"sub": "a\0b"},
        {"sub": "x" * 1_001},
        {"name": "x" * 1_001},
        {"scope": ["x" * 1_001]},
    ],
)
async def test_a_token_whose_claims_do_not_fit_is_refused(world: World, claims: dict[str, Any]):
    with pytest.raises(Unauthenticated, match="not accepted"):
        await who(world, token(**claims))


@pytest.mark.parametrize(
    "claims", [{"exp": NOW - 29}, {"nbf": NOW + 29}, {"aud": ["other", AUDIENCE]}]
)
async def test_clocks_may_differ_a_little_and_there_may_be_several_audiences(
    world: World, claims: dict[str, Any]
):
    assert (await who(world, token(**claims))).id == "ada"


def _part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def forged() -> Iterator[str]:
    head, body, signature = token().split(".")
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "eve", "exp": NOW + 60}
    yield f"{head}.{_part(claims)}.{signature}"
    yield f"{_part({'alg': 'none'})}.{_part(claims)}."
    yield f"{head}.{body}."
    yield f"{head}.{body}"
    yield "x"
    yield "a.b.c"
    yield token(OTHER)
    yield token(OTHER, header={"kid": "one"})
    # A public key taken for a shared secret.
    public = jwk.OctKey.import_key(json.dumps(JWKS["keys"][0]), {"kid": "one"})
    yield jwt.encode({"alg": "HS256", "kid": "one"}, claims, public, ["HS256"])


@pytest.mark.parametrize("text", list(forged()), ids=range(9))
async def test_a_forged_token_is_refused(world: World, text: str):
    with pytest.raises(Unauthenticated, match="not accepted"):
        await who(world, text)
    with pytest.raises(Unauthenticated):
        await who(world, text, algorithms=["ES256", "HS256"])


async def test_shared_secrets_must_be_asked_for(world: World):
    secret = jwk.OctKey.generate_key(256, {"kid": "s"})
    keys = {"keys": [secret.as_dict(private=True)]}
    with pytest.raises(Unauthenticated):
        await who(world, token(secret, "HS256"), keys=keys)
    assert (await who(world, token(secret, "HS256"), keys=keys, algorithms=["HS256"])).id == "ada"


@pytest.mark.parametrize(
    "options", [{"algorithms": ["none"]}, {"algorithms": "ES256"}, {"algorithms": []}]
)
def test_what_would_accept_anything_is_refused(options: dict[str, Any]):
    with pytest.raises(Invalid):
        tokens(**options)


async def test_without_tokens_none_is_accepted(world: World):
    with pytest.raises(Unauthenticated, match="not accepted here"):
        await world.authenticator.of(f"Bearer {token()}")


# -- where keys come from ------------------------------------------------------------------------


async def test_keys_may_stand_in_a_file(world: World, tmp_path: Path):
    file = tmp_path / "keys.json"
    with pytest.raises(Unavailable, match="cannot be read"):
        await who(world, token(), keys=file)
    file.write_text(json.dumps(JWKS))
    assert (await who(world, token(), keys=str(file))).id == "ada"


class Provider(HTTPServer):
    """An OIDC provider on this machine."""

    keys = JWKS
    issuer = ""
    asked = 0
    is_down = False


class _Answers(BaseHTTPRequestHandler):
    server: Provider

    def do_GET(self) -> None:
        server = self.server
        if server.is_down:
            self.send_error(503)
            return
        document = server.keys
        if self.path == "/.well-known/openid-configuration":
            document = {"issuer": server.issuer, "jwks_uri": f"{_url(server)}/keys"}
        else:
            server.asked += 1
        data = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _url(server: Provider) -> str:
    return f"http://127.0.0.1:{server.server_port}"


@pytest.fixture
def provider() -> Iterator[Provider]:
    server = Provider(("127.0.0.1", 0), _Answers)
    server.issuer = _url(server)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


async def test_keys_are_fetched_kept_and_fetched_again_for_a_key_that_is_new(
    world: World, provider: Provider
):
    now = float(NOW)
    known = tokens(fetch_jwks(f"{_url(provider)}/keys"), clock=lambda: now)
    authenticator = Authenticator(world.client, known)

    async def shown(key: Any = KEY) -> str:
        return (await authenticator.of(f"Bearer {token(key, exp=NOW + 10_000)}")).id

    assert [await shown(), await shown()] == ["ada", "ada"]
    assert provider.asked == 1
    provider.keys = {"keys": [OTHER.as_dict(private=False)]}
    with pytest.raises(Unauthenticated):  # fetched a moment ago
        await shown(OTHER)
    assert provider.asked == 1
    now += 31
    assert await shown(OTHER) == "ada"
    assert provider.asked == 2
    with pytest.raises(Unauthenticated):
        await shown(KEY)
    provider.is_down = True
    now += 601
    assert await shown(OTHER) == "ada"  # with those of before
    provider.is_down = False
    provider.keys = JWKS
    now += 31
    assert await shown(KEY) == "ada"


async def test_keys_are_found_by_the_issuer(world: World, provider: Provider):
    issuer = _url(provider)
    known = Tokens(discover(issuer), issuer=issuer, audience=AUDIENCE, clock=lambda: NOW)
    text = token(iss=issuer)
    assert (await Authenticator(world.client, known).of(f"Bearer {text}")).id == "ada"
    provider.issuer = "https://else.example"
    other = Tokens(discover(issuer), issuer=issuer, audience=AUDIENCE, clock=lambda: NOW)
    with pytest.raises(Unavailable, match="issuer"):
        await Authenticator(world.client, other).of(f"Bearer {text}")


@pytest.mark.parametrize(
    "url", ["http://id.example/keys", "ftp://127.0.0.1/keys", "file:///etc/passwd", "keys.json"]
)
def test_keys_are_fetched_by_https_but_from_this_machine(url: str):
    for make in (fetch_jwks, discover):
        with pytest.raises(Invalid, match="https"):
            make(url)
