"""Users, service accounts, roles, API keys, delegations: what is allowed and what is refused."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.control.world import World
from tests.support.seals import Raw

from perdure import Client, Engine, human, workflow
from perdure.control import Grant, Identity, Kind, Power, Principal, Reach
from perdure.errors import (
    AlreadyExists,
    Conflict,
    Invalid,
    NotFound,
    PermissionDenied,
    Unauthenticated,
)
from perdure.values.audit import Level

MINUTE = 60_000_000
on_each_store = pytest.mark.parametrize("world", ["file", "postgres"], indirect=True)


@on_each_store
async def test_users_and_accounts_are_kept_with_their_roles(world: World):
    identity = world.identity
    await identity.roles.create("finance", "money")
    grant = Grant("finance", Power.ADMIN, Reach.ALL, Reach.SELF)
    await identity.users.create("ada", name="Ada", roles=[grant, "admin"], tenant="acme")
    await identity.accounts.create("robot", roles=["finance"])
    ada = await identity.users.get("ada")
    assert (ada.name, ada.tenant, ada.kind) == ("Ada", "acme", Kind.USER)
    assert ada.roles == (grant, Grant("admin", Power.ADMIN))
    assert ada.principal().is_admin
    robot = await identity.accounts.get("robot")
    assert (robot.kind, robot.roles) == (Kind.SERVICE, (Grant("finance"),))
    with pytest.raises(NotFound):
        await identity.users.get("robot")
    assert [it.id for it in (await identity.users.list()).items] == ["ada"]


async def test_lists_go_on_page_by_page(world: World):
    for n in range(5):
        await world.identity.users.create(f"u{n}")
    first = await world.identity.users.list(limit=2)
    second = await world.identity.users.list(limit=3, cursor=first.cursor)
    assert [it.id for it in (*first.items, *second.items)] == [f"u{n}" for n in range(5)]
    assert second.cursor is None


@pytest.mark.parametrize(
    ("fields", "error", "said"),
    [
        ({"roles": ["nobody"]}, Invalid, "no role 'nobody'"),
        ({"roles": ["No Role"]}, Invalid, "no name of a role"),
        ({"roles": ["finance", "finance"]}, Invalid, "given twice"),
        ({"roles": [Grant("finance", read=Reach.SELF)]}, Invalid, "further than"),
        ({"roles": [Grant("finance", read=Reach.NONE, write=Reach.SELF)]}, Invalid, "further"),
        ({"colour": 1}, Invalid, "unknown field colour"),
        ({"disabled": "yes"}, Invalid, "disabled"),
        ({"external_id": "x-1"}, AlreadyExists, "that of 'there'"),
    ],
)
async def test_what_cannot_be_meant_is_refused(
    world: World, fields: dict[str, Any], error: type[Exception], said: str
):
    await world.identity.roles.create("finance")
    await world.identity.users.create("there", external_id="x-1")
    with pytest.raises(error, match=said):
        await world.identity.users.create("ada", **fields)
    assert await world.identity.users.find("ada") is None
    await world.identity.users.create("ada")
    with pytest.raises(error, match=said):
        await world.identity.users.update("ada", **fields)


async def test_no_id_is_given_twice_nor_to_a_user_and_an_account(world: World):
    await world.identity.users.create("ada")
    for accounts in (world.identity.users, world.identity.accounts):
        with pytest.raises(AlreadyExists, match="user 'ada'"):
            await accounts.create("ada")
    with pytest.raises(Invalid):
        await world.identity.users.create("")


@on_each_store
async def test_an_update_changes_what_it_names_and_nothing_else(world: World):
    users = world.identity.users
    await world.identity.roles.create("finance")
    await users.create("ada", name="Ada", tenant="acme", external_id="x-1", metadata={"a": 1})
    await users.update("ada", external_id="x-2")
    await users.add_role("ada", Grant("finance", Power.ADMIN))
    await users.add_role("ada", "admin")
    await users.add_role("ada", "finance")
    ada = await users.get("ada")
    assert (ada.name, ada.tenant, ada.external_id, ada.metadata) == (
        "Ada",
        "acme",
        "x-2",
        {"a": 1},
    )
    assert ada.roles == (Grant("admin", Power.ADMIN), Grant("finance"))
    await users.remove_role("ada", "admin")
    assert (await users.get("ada")).roles == (Grant("finance"),)
    await users.create("bob", external_id="x-1")  # it is nobody's any more
    await users.delete("bob")
    await users.create("eve", external_id="x-1")
    with pytest.raises(NotFound):
        await users.update("bob", name="B")


async def test_only_a_superadmin_changes_or_deletes_a_superadmin(world: World):
    await world.identity.users.create("sue", roles=["superadmin"])
    made = await world.identity.keys.create("sue")
    admin = Identity(world.client.as_(Principal("ann", roles=["admin"])))
    for change in (
        admin.users.update("sue", disabled=True),
        admin.users.remove_role("sue", "superadmin"),
        admin.users.delete("sue"),
        admin.keys.create("sue"),
        admin.keys.revoke(made.key.id),
    ):
        with pytest.raises(PermissionDenied, match="no superadmin and cannot change 'sue'"):
            await change
    assert not (await world.identity.users.get("sue")).disabled
    assert (await world.identity.keys.principal(made.text)).id == "sue"
    boss = Identity(world.client.as_(Principal("bea", roles=["superadmin"])))
    await boss.users.delete("sue")


async def test_only_a_superadmin_makes_superadmins(world: World):
    await world.identity.users.create("sue", roles=["superadmin"])
    admin = Identity(world.client.as_(Principal("ada", roles=["admin"])))
    with pytest.raises(PermissionDenied, match="no superadmin"):
        await admin.users.create("bob", roles=["superadmin"])
    await admin.users.create("bob")
    with pytest.raises(PermissionDenied):
        await admin.users.add_role("bob", Grant("admin", Power.SUPERADMIN))
    await admin.users.update("sue", name="Sue")  # what she has she may keep


# -- roles ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "A", "1a", "a b", "é", "a/b", "a\n", 7])
async def test_a_role_has_a_plain_name(world: World, name: Any):
    with pytest.raises(Invalid, match="no name of a role"):
        await world.identity.roles.create(name)


async def test_a_role_is_changed_in_part(world: World):
    roles = world.identity.roles
    await roles.create("finance", "money", {"sla": 5, "schema": {"a": 1}})
    with pytest.raises(AlreadyExists):
        await roles.create("finance")
    await roles.update("finance", settings={"sla": 7, "schema": None, "more": True})
    role = await roles.get("finance")
    assert (role.description, role.settings) == ("money", {"sla": 7, "more": True})
    await roles.update("finance", description="")
    assert (await roles.get("finance")).settings == {"sla": 7, "more": True}
    with pytest.raises(Invalid, match="colour"):
        await roles.update("finance", colour=1)
    await roles.ensure(["finance", "sales", "admin"])
    assert [it.name for it in (await roles.list()).items] == ["finance", "sales"]


@on_each_store
async def test_a_role_that_is_used_is_not_deleted(world: World):
    roles = world.identity.roles
    await roles.create("finance")
    await world.identity.accounts.create("robot", roles=["finance"])
    with pytest.raises(Conflict, match="account 'robot'"):
        await roles.delete("finance")
    await world.identity.accounts.delete("robot")
    with pytest.raises(Conflict, match="config 'x'"):
        await roles.delete("finance", used_by=["config 'x'"])
    await roles.delete("finance")
    with pytest.raises(NotFound):
        await roles.delete("finance")


@workflow.define
async def asks(_: None) -> None:
    await human.request("Shall we?", role="finance")


async def test_a_role_for_which_a_human_task_waits_is_not_deleted(tmp_path: Path):
    async with Engine(f"sqlite:///{tmp_path / 'test.db'}", asks) as engine:
        identity = Identity(engine.client)
        await identity.roles.create("finance")
        handle = await engine.client.start(asks)
        while not (await engine.client.human_tasks.list()).items:
            await asyncio.sleep(0.005)  # sleep: polls until the worker has asked
        with pytest.raises(Conflict, match="human task"):
            await identity.roles.delete("finance")
        await handle.terminate()


@on_each_store
async def test_nobody_has_a_role_that_was_deleted_at_the_same_moment(world: World):
    """Many give roles while others delete them: whoever is later sees what was first."""
    names = [f"r{n}" for n in range(4)]
    for name in names:
        await world.identity.roles.create(name)
    done: list[str] = []

    async def give(name: str) -> None:
        async with Client(world.url) as client:
            try:
                await Identity(client).users.create(f"of-{name}", roles=[name])
            except Invalid:
                done.append("no role")

    async def delete(name: str) -> None:
        async with Client(world.url) as client:
            try:
                await Identity(client).roles.delete(name)
            except Conflict:
                done.append("used")

    await asyncio.gather(*(work(name) for name in names for work in (give, delete)))
    left = {role.name for role in (await world.identity.roles.list()).items}
    for user in (await world.identity.users.list()).items:
        assert {grant.role for grant in user.roles} <= left
    assert len(done) == len(names)


# -- keys ----------------------------------------------------------------------------------------


@on_each_store
async def test_a_key_is_shown_once_and_only_its_hash_is_kept(world: World):
    await world.identity.roles.create("finance")
    await world.identity.accounts.create("robot", roles=["finance"], tenant="acme")
    made = await world.identity.keys.create("robot", "ci", scopes=["workflow:invoke"])
    assert made.text.startswith(f"pdk_{made.key.id}_")
    secret = made.text.removeprefix(f"pdk_{made.key.id}_").encode()  # it may have a _ itself
    assert len(made.text) >= 4 + 16 + 1 + 43
    assert Raw(world.url).holding(secret) == set()
    [listed] = await world.identity.keys.list("robot")
    assert (listed.name, listed.hash, listed.used_at) == ("ci", "", 0)
    who = await world.of(made.text)
    assert who == Principal(
        "robot",
        Kind.SERVICE,
        roles=["finance"],
        scopes=["workflow:invoke"],
        tenant="acme",
    )
    assert who.may("workflow:invoke") and not who.may("workflow:cancel")


async def test_when_a_key_was_used_is_kept_now_and_then(world: World):
    await world.identity.users.create("ada")
    made = await world.identity.keys.create("ada")

    async def used() -> int:
        return (await world.identity.keys.list())[0].used_at

    await world.of(made.text)
    first = await used()
    world.ahead += 9 * MINUTE
    await world.of(made.text)
    assert await used() == first > 0
    world.ahead += 2 * MINUTE
    await world.of(made.text)
    assert await used() > first


async def test_a_key_that_is_over_or_revoked_or_whose_owner_is_gone_is_refused(world: World):
    identity = world.identity
    await identity.users.create("ada")
    short, revoked, other = [
        await identity.keys.create("ada", expires=expires) for expires in ("1m", None, None)
    ]
    await world.of(short.text)
    world.ahead += MINUTE
    with pytest.raises(Unauthenticated, match="over"):
        await world.of(short.text)
    await identity.keys.revoke(revoked.key.id)
    await identity.keys.revoke(revoked.key.id)
    with pytest.raises(Unauthenticated, match="revoked"):
        await world.of(revoked.text)
    await identity.users.update("ada", disabled=True)
    with pytest.raises(PermissionDenied, match="disabled"):
        await world.of(other.text)
    await identity.users.delete("ada")
    with pytest.raises(Unauthenticated, match="no such API key"):
        await world.of(other.text)
    with pytest.raises(NotFound):
        await identity.keys.create("ada")
    with pytest.raises(NotFound):
        await identity.keys.revoke("nokey")
    with pytest.raises(Invalid, match="list of text"):
        await identity.keys.create("ada", scopes="all")


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Basic abc",
        "Bearer pdk_",
        "Bearer pdk_x",
        "Bearer pdk_0011223344556677_wrong",
        "Bearer pdd_0011223344556677_wrong",
        "Bearer eyJhbGciOiJub25lIn0.e30.",
        "pdk_0011223344556677_wrong",
        "Bearer pdk_00\0_wrong",
        "Bearer pdk_\ud800_wrong",
        "Bearer pdk_0011223344556677_\xe9\ud800",
    ],
)
@on_each_store
async def test_whoever_shows_nothing_of_ours_is_nobody(world: World, header: str | None):
    with pytest.raises(Unauthenticated):
        await world.authenticator.of(header)


async def test_a_key_with_another_secret_is_refused_as_one_that_is_not_there(world: World):
    await world.identity.users.create("ada")
    made = await world.identity.keys.create("ada")
    wrong = f"{made.text[:-3]}{'xyz' if not made.text.endswith('xyz') else 'abc'}"
    said = set[str]()
    for text in (wrong, f"pdk_{'0' * 16}_x"):
        with pytest.raises(Unauthenticated) as caught:
            await world.of(text)
        said.add(caught.value.message)
    assert len(said) == 1


@on_each_store
async def test_who_gets_the_id_of_somebody_who_is_gone_gets_none_of_their_keys(world: World):
    identity = world.identity
    await identity.users.create("ada")
    await identity.users.create("bob")
    key = await identity.keys.create("ada")
    given = await identity.delegations.create(Principal("ada"), "bob")
    taken = await identity.delegations.create(Principal("bob"), "ada")
    others = await identity.keys.create("bob")
    await identity.users.delete("ada")
    for _ in range(2):
        for made in (key, given, taken):
            with pytest.raises(Unauthenticated):
                await world.of(made.text)
        if await identity.users.find("ada") is None:
            await identity.users.create("ada")
    assert await identity.keys.list("ada") == []
    assert (await world.of(others.text)).id == "bob"


@on_each_store
async def test_roles_that_are_given_and_taken_at_the_same_moment_all_count(world: World):
    users = world.identity.users
    names = [f"r{n}" for n in range(3)]
    for name in ("old", *names):
        await world.identity.roles.create(name)
    await users.create("ada", roles=["old"])
    taken = users.remove_role("ada", "old")
    await asyncio.gather(taken, *(users.add_role("ada", name) for name in names))
    assert {grant.role for grant in (await users.get("ada")).roles} == set(names)


@on_each_store
async def test_no_key_is_made_for_somebody_who_is_deleted_at_the_same_moment(world: World):
    identity = world.identity
    for n in range(5):
        await identity.users.create(f"u{n}")
        made, _ = await asyncio.gather(
            identity.keys.create(f"u{n}"), identity.users.delete(f"u{n}"), return_exceptions=True
        )
        assert await identity.keys.list() == [], made


async def test_what_cannot_be_meant_is_never_kept(world: World):
    identity, world.client.audit_level = world.identity, Level.FULL
    await identity.roles.create("there")
    await identity.users.create("ada")
    bad: Any = object()
    for made in (
        identity.keys.create("ada", scopes=bad),
        identity.keys.create("ada", scopes=[bad]),
        identity.keys.create("ada", expires=0),
        identity.roles.create("r", description=bad),
        identity.roles.create("r", settings=bad),
        identity.roles.create("r", settings={"n": bad}),
        identity.roles.update("there", description=5),
        identity.roles.update("there", settings={"n": bad}),
        identity.users.create("u", metadata={"n": bad}),
        identity.users.create("u", metadata=[1]),
        identity.users.list(limit="1"),
        identity.delegations.create(Principal("ada"), "bob", scopes=[bad]),
        identity.delegations.create(Principal("ada", claims={"n": bad}), "bob"),
    ):
        with pytest.raises(Invalid):
            await made
    assert await identity.keys.list() == []
    assert [role.name for role in (await identity.roles.list()).items] == ["there"]
    assert [user.id for user in (await identity.users.list()).items] == ["ada"]


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "bot"},
        {"name": None},
        {"roles": "admin"},
        {"roles": [5]},
        {"roles": None},
        {"scopes": "read"},
        {"scopes": [1]},
        {"tenant": 5},
        {"tenant": None},
        {"claims": []},
        {"initiated_by": 5},
        {"id": "x" * 1_001},
    ],
)
def test_a_principal_that_cannot_be_meant_is_refused(fields: dict[str, Any]):
    with pytest.raises(Invalid, match="principal: "):
        Principal(**{"id": "ada", **fields})


# -- acting as another ---------------------------------------------------------------------------

ADMIN = Principal("ada", roles=["admin"], scopes=["all"])


@pytest.mark.parametrize(
    ("caller", "request_", "config", "actor"),
    [
        (Principal("bob"), None, None, "bob"),
        (Principal("bob"), None, "robot", "robot"),
        (Principal("bob"), "robot", None, PermissionDenied),
        (Principal("bob"), "robot", "robot", PermissionDenied),
        (Principal("bob", roles=[Grant("finance", Power.ADMIN)]), "robot", None, PermissionDenied),
        (ADMIN, "other", "robot", "other"),
        (ADMIN, None, "robot", "robot"),
        (ADMIN, "boss", None, PermissionDenied),
        (Principal("sue", roles=["superadmin"]), "boss", None, "boss"),
        (Principal("bob"), None, "boss", "boss"),
        (ADMIN, "nobody", None, NotFound),
        (ADMIN, "off", None, PermissionDenied),
        (Principal("tim", roles=["admin"], tenant="acme"), "other", None, NotFound),
        (Principal("tim", roles=["admin"], tenant="acme"), "robot", None, "robot"),
    ],
)
async def test_the_request_comes_before_the_config_and_that_before_the_caller(
    world: World, caller: Principal, request_: str | None, config: str | None, actor: Any
):
    accounts = world.identity.accounts
    await accounts.create("robot")
    await accounts.create("other", tenant="elsewhere")
    await accounts.create("boss", roles=["superadmin"])
    await accounts.create("off", disabled=True)
    if not isinstance(actor, str):
        with pytest.raises(actor):
            await world.identity.resolve_actor(caller, request_, config)
        return
    found = await world.identity.resolve_actor(caller, request_, config)
    assert found.id == actor
    if actor == caller.id:
        assert found is caller
    else:
        assert (found.kind, found.initiated_by) == (Kind.SERVICE, caller.id)
        assert found.scopes == ("workflow:invoke",)
        assert found.tenant == ((await accounts.get(actor)).tenant or caller.tenant)


async def test_who_acted_for_whom_stays_the_person(world: World):
    await world.identity.accounts.create("robot")
    caller = Principal("first", Kind.SERVICE, initiated_by="ada")
    found = await world.identity.resolve_actor(caller, config="robot")
    assert found.initiated_by == "ada"


@on_each_store
async def test_changes_are_told_to_the_audit_without_secrets(world: World):
    from perdure.values.audit import Level

    world.client.audit_level = Level.FULL
    await world.identity.roles.create("finance")
    await world.identity.users.create("ada", roles=["finance"])
    await world.identity.users.update("ada", name="Ada")
    made = await world.identity.keys.create("ada")
    await world.identity.keys.revoke(made.key.id)
    await world.identity.users.delete("ada")
    assert await world.told(principal="root") == [
        "role.create",
        "user.create",
        "user.update",
        "key.create",
        "key.revoke",
        "user.delete",
    ]
    [update] = (await world.client.audit.list(action="user.update")).items
    assert update.detail is not None and update.target == "user/ada"
    assert "name" not in update.detail["before"] and update.detail["after"]["name"] == "Ada"
    [created] = (await world.client.audit.list(action="key.create")).items
    assert created.detail is not None and "hash" not in created.detail["after"]
    assert (await world.client.audit.verify()).holds
