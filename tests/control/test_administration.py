"""``lt.roles``, ``lt.users``, ``lt.accounts``, ``lt.audit``: who may, and what a call answers."""

from __future__ import annotations

from typing import Any

import pytest
from tests.control.world import World

from perdure.control import ApiResult, Control, Grant, Kind, Principal

ADMIN = Principal("ada", roles=["admin"])
MEMBER = Principal("max", roles=["clerk"])
NARROW = Principal("key", roles=["admin"], scopes=["workflow:invoke"])
OF_ACME = Principal("tess", roles=["admin"], tenant="acme")
OK, CREATED = (200, None), (201, None)
GONE, TAKEN, BAD = (404, "not_found"), (409, "already_exists"), (400, "invalid")
NOBODY, NOT_ADMIN = (401, "unauthenticated"), (403, "not_admin")
NO_SCOPE = (403, "insufficient_scope")
on_each_store = pytest.mark.parametrize("world", ["file", "postgres"], indirect=True)


def said(found: ApiResult) -> tuple[int, str | None]:
    return found.status, found.code


def of(world: World, who: Principal | None = ADMIN) -> Control:
    return Control(world.client, who)


async def called(lt: Control, path: str, given: dict[str, Any]) -> tuple[int, str | None]:
    call: Any = lt
    for name in path.split("."):
        call = getattr(call, name)
    return said(await call(**given))


READS: dict[str, dict[str, Any]] = {
    "users.get": {"id": "ann"},
    "users.list": {},
    "accounts.get": {"id": "bot"},
    "accounts.list": {},
    "users.keys.list": {"of": "ann"},
    "accounts.keys.list": {"of": "bot"},
}
AUDIT: dict[str, dict[str, Any]] = {"audit.list": {}, "audit.verify": {}}
OPEN: dict[str, dict[str, Any]] = {"roles.get": {"name": "clerk"}, "roles.list": {}}
WRITES: dict[str, tuple[dict[str, Any], tuple[int, str | None]]] = {
    "roles.create": ({"name": "lead"}, CREATED),
    "roles.update": ({"name": "clerk", "description": "x"}, OK),
    "users.create": ({"id": "new"}, CREATED),
    "users.update": ({"id": "ann", "name": "Ann"}, OK),
    "users.add_role": ({"id": "ann", "role": "clerk"}, OK),
    "users.remove_role": ({"id": "ann", "role": "clerk"}, OK),
    "users.keys.create": ({"of": "ann"}, CREATED),
    "users.keys.revoke": ({"id": "missing"}, GONE),
    "accounts.create": ({"id": "newbot"}, CREATED),
    "accounts.update": ({"id": "bot", "name": "Bot"}, OK),
    "accounts.add_role": ({"id": "bot", "role": "clerk"}, OK),
    "accounts.remove_role": ({"id": "bot", "role": "clerk"}, OK),
    "accounts.keys.create": ({"of": "bot"}, CREATED),
    "accounts.keys.revoke": ({"id": "missing"}, GONE),
    "accounts.delete": ({"id": "bot"}, OK),
    "users.delete": ({"id": "ann"}, OK),
    "roles.delete": ({"name": "clerk"}, OK),
}


async def some(world: World) -> None:
    await world.identity.roles.create("clerk")
    await world.identity.users.create("ann")
    await world.identity.accounts.create("bot")


@pytest.mark.parametrize(
    ("who", "reads", "audit", "writes"),
    [
        (None, NOBODY, NOBODY, NOBODY),
        (NARROW, NO_SCOPE, NO_SCOPE, NO_SCOPE),
        (MEMBER, OK, NOT_ADMIN, NOT_ADMIN),
        (OF_ACME, None, (403, "other_tenants"), None),
        (ADMIN, OK, OK, None),
    ],
)
async def test_who_may_read_and_who_may_write(
    world: World, who: Principal | None, reads: Any, audit: Any, writes: Any
):
    await some(world)
    lt = of(world, who)
    for path, given in OPEN.items():
        assert await called(lt, path, given) == OK, path
    for path, given in AUDIT.items():
        assert await called(lt, path, given) == audit, path
    for path, given in READS.items():
        if reads is not None:
            assert await called(lt, path, given) == reads, path
    for path, (given, answer) in WRITES.items():
        if who is not OF_ACME:
            assert await called(lt, path, given) == (writes or answer), path


@pytest.mark.parametrize(
    ("path", "given", "answer"),
    [
        ("roles.create", {"name": "clerk"}, TAKEN),
        ("roles.create", {"name": "No Role"}, BAD),
        ("roles.get", {"name": "missing"}, GONE),
        ("roles.update", {"name": "missing"}, GONE),
        ("roles.update", {"name": "clerk", "colour": 1}, BAD),
        ("roles.delete", {"name": "missing"}, GONE),
        ("users.create", {"id": "ann"}, TAKEN),
        ("users.create", {"id": "bot"}, TAKEN),
        ("users.create", {"id": "x", "colour": 1}, BAD),
        ("users.create", {"id": "x", "roles": ["missing"]}, BAD),
        ("users.create", {"id": "x", "roles": [{"role": "clerk", "read": "much"}]}, BAD),
        ("users.create", {"id": "x", "roles": ["superadmin"]}, (403, "permission_denied")),
        ("users.get", {"id": "bot"}, GONE),
        ("users.update", {"id": "missing"}, GONE),
        ("users.add_role", {"id": "ann", "role": "missing"}, BAD),
        ("users.delete", {"id": "missing"}, GONE),
        ("users.keys.create", {"of": "bot"}, GONE),
        ("users.keys.create", {"of": "ann", "scopes": "all"}, BAD),
        ("accounts.keys.list", {"of": "missing"}, GONE),
        ("audit.list", {"colour": 1}, BAD),
    ],
)
async def test_what_is_refused(
    world: World, path: str, given: dict[str, Any], answer: tuple[int, str | None]
):
    await some(world)
    assert await called(of(world), path, given) == answer


@on_each_store
async def test_a_role_that_something_refers_to_is_not_deleted(world: World):
    lt = of(world)
    for name in ("had", "asked", "named", "free"):
        assert (await lt.roles.create(name=name)).status == 201
    await lt.users.create(id="ann", roles=["had"])
    await lt.escalations.create(type="t", role="asked")
    await lt.workflows.upsert_config(type="t", default_role="named")
    for name, user in (("had", "ann"), ("asked", "human task"), ("named", "configuration 't'")):
        refused = await lt.roles.delete(name=name)
        assert said(refused) == (409, "conflict")
        assert refused.error is not None
        assert user in refused.error
    assert (await lt.roles.delete(name="free")).data == {"deleted": True, "name": "free"}
    assert [role.name for role in (await lt.roles.list()).data["roles"]] == [
        "asked",
        "had",
        "named",
    ]


async def test_an_update_leaves_what_it_does_not_name(world: World):
    lt = of(world)
    await lt.roles.create(name="clerk", description="first", settings={"sla": 5})
    await lt.roles.update(name="clerk", settings={"more": 1})
    role = (await lt.roles.get(name="clerk")).data
    assert (role.description, role.settings) == ("first", {"sla": 5, "more": 1})
    grant = {"role": "clerk", "read": "all", "write": "self"}
    await lt.users.create(id="ann", name="Ann", roles=[grant], metadata={"a": 1})
    await lt.users.update(id="ann", external_id="x-1")
    ann = (await lt.users.get(id="ann")).data
    assert (ann.name, ann.metadata, ann.external_id) == ("Ann", {"a": 1}, "x-1")
    assert [(it.role, str(it.write)) for it in ann.roles] == [("clerk", "self")]
    await lt.users.add_role(id="ann", role={"role": "clerk", "write": "all"})
    assert (await lt.users.remove_role(id="ann", role="clerk")).data.roles == ()
    assert (await lt.accounts.create(id="bot")).data.kind is Kind.SERVICE


@on_each_store
async def test_a_key_is_shown_once_and_works_until_it_is_revoked(world: World):
    lt = of(world)
    await lt.roles.create(name="clerk")
    await lt.accounts.create(id="bot", roles=["clerk"])
    made = (await lt.accounts.keys.create(of="bot", name="ci", scopes=["escalation:read"])).data
    who = await world.of(made["raw_key"])
    assert (who.id, who.grants) == ("bot", (Grant("clerk"),))
    assert (await of(world, who).escalations.list()).status == 200
    refused = await of(world, who).escalations.create(type="t", role="clerk")
    assert said(refused) == NO_SCOPE
    [listed] = (await lt.accounts.keys.list(of="bot")).data["keys"]
    assert (listed["name"], listed["of"]) == ("ci", "bot")
    assert not {"raw_key", "hash"} & set(listed)
    revoked = await lt.accounts.keys.revoke(id=made["id"])
    assert revoked.data["revoked_at"] > 0
    with pytest.raises(Exception, match="revoked"):
        await world.of(made["raw_key"])


async def test_an_admin_of_a_tenant_reaches_its_own(world: World):
    await world.identity.users.create("ann", tenant="acme")
    await world.identity.users.create("ole", tenant="other")
    lt = of(world, OF_ACME)
    made = await lt.users.create(id="new")
    assert made.data.tenant == "acme"
    denied = await lt.users.create(id="x", tenant="other")
    assert said(denied) == (403, "permission_denied")
    assert said(await lt.users.update(id="ann", tenant="other")) == (403, "permission_denied")
    assert {user.id for user in (await lt.users.list()).data["users"]} == {"ann", "new"}
    for path, given in (
        ("users.get", {"id": "ole"}),
        ("users.update", {"id": "ole", "name": "x"}),
        ("users.add_role", {"id": "ole", "role": "admin"}),
        ("users.delete", {"id": "ole"}),
        ("users.keys.create", {"of": "ole"}),
        ("users.keys.list", {"of": "ole"}),
    ):
        assert await called(lt, path, given) == GONE, path


async def test_the_audit_names_who_called(world: World):
    lt = of(world)
    await lt.roles.create(name="clerk")
    await lt.users.create(id="ann")
    entries = (await lt.audit.list(principal="ada")).data["entries"]
    assert [entry.action for entry in entries] == ["user.create", "role.create"]
    found = (await lt.audit.verify()).data
    assert found["holds"] is True
    assert found["found"].rows == 2


@pytest.mark.parametrize(
    ("who", "status"),
    [
        (None, 401),
        (Principal("m"), 403),
        (Principal("m", scopes=["identity:read"]), 403),
        (Principal("m", scopes=["audit:read"]), 200),
        (Principal("a", roles=["admin"]), 200),
        (Principal("a", roles=["admin"], scopes=["identity:read"]), 403),
        (Principal("a", roles=["admin"], tenant="acme"), 403),
    ],
)
async def test_the_audit_is_for_admins_and_whoever_was_let_read_it(
    world: World, who: Principal | None, status: int
):
    lt = Control(world.client, who)
    assert (await lt.audit.list()).status == (await lt.audit.verify()).status == status
