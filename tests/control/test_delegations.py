"""Delegations: somebody lets another act in their place, with less and for a while."""

from __future__ import annotations

from typing import Any

import pytest
from tests.control.world import World

from perdure.control import Grant, Principal
from perdure.errors import Invalid, NotFound, PermissionDenied, Unauthenticated

MINUTE = 60_000_000
on_each_store = pytest.mark.parametrize("world", ["file", "postgres"], indirect=True)


async def test_a_delegation_acts_for_somebody_with_less_and_for_a_while(world: World):
    await world.identity.roles.create("finance")
    await world.identity.users.create("ada", roles=["finance"], tenant="acme")
    ada = Principal("ada", scopes=["read", "write"], tenant="acme", claims={"n": 1})
    made = await world.identity.delegations.create(ada, "bob", scopes=["read"])
    who = await world.of(made.text)
    assert (who.id, who.initiated_by, who.scopes, who.tenant) == ("ada", "bob", ("read",), "acme")
    assert who.grants == (Grant("finance"),)  # those of now
    assert who.claims == {"n": 1, "delegation": made.delegation.id}
    world.ahead += 5 * MINUTE
    with pytest.raises(Unauthenticated, match="over"):
        await world.of(made.text)


@on_each_store
async def test_a_delegation_reaches_no_other_tenant_and_has_no_other_roles_than_a_token(
    world: World,
):
    identity = world.identity
    await identity.roles.create("finance")
    await identity.roles.create("viewer")
    await identity.users.create("ada", roles=["finance"])  # of no tenant: sees all
    ada = Principal("ada", roles=["viewer"], tenant="acme", claims={"org": "acme"})
    made = await identity.delegations.create(ada, "bob")
    who = await world.of(made.text)
    assert (who.tenant, who.grants) == ("acme", (Grant("viewer"),))
    stored = Principal("ada", roles=["finance"], claims={"org": ""})
    made = await identity.delegations.create(stored, "bob")
    await identity.users.update("ada", roles=[], tenant="acme")
    who = await world.of(made.text)
    assert (who.tenant, who.grants) == ("acme", ())


@on_each_store
async def test_no_delegation_outlives_who_is_deleted_while_it_is_given(world: World):
    identity, delegations = world.identity, world.identity.delegations
    real = delegations._over  # pyright: ignore[reportPrivateUsage] - between reading and writing

    for gone in ("ada", "bob"):
        await identity.users.create("ada")
        await identity.users.create("bob")

        async def over(now: int, gone: str = gone) -> Any:
            await identity.users.delete(gone)
            return await real(now)

        delegations._over = over
        made = await delegations.create(Principal("ada"), "bob")
        world.ahead += 1
        for _ in range(2):
            with pytest.raises(Unauthenticated, match=f"{gone!r} is no more"):
                await world.of(made.text)
            if await identity.users.find(gone) is None:
                await identity.users.create(gone)
        for name in ("ada", "bob"):
            await identity.users.delete(name)


async def test_a_delegation_is_never_wider_nor_longer_nor_given_on(world: World):
    create = world.identity.delegations.create
    narrow = Principal("ada", scopes=["read"])
    with pytest.raises(PermissionDenied, match="no scope write"):
        await create(narrow, "bob", scopes=["read", "write"])
    assert (await world.of((await create(narrow, "bob")).text)).scopes == ("read",)
    for expires in ("61m", "0s"):
        with pytest.raises(Invalid, match="an hour"):
            await create(narrow, "bob", expires=expires)
    made = await create(Principal("ada"), "bob", expires="1h")
    with pytest.raises(PermissionDenied, match="delegation of a delegation"):
        await create(await world.of(made.text), "eve")


@on_each_store
async def test_a_delegation_ends_when_it_is_revoked_or_who_gave_it_is_disabled(world: World):
    await world.identity.users.create("ada")
    await world.identity.users.create("bob")
    create = world.identity.delegations.create
    first, second, third = [await create(Principal("ada"), "bob") for _ in range(3)]
    await world.identity.delegations.revoke(first.delegation.id)
    await world.identity.delegations.revoke(first.delegation.id)
    with pytest.raises(Unauthenticated):
        await world.of(first.text)
    await world.identity.users.update("bob", disabled=True)
    with pytest.raises(PermissionDenied):
        await world.of(second.text)
    await world.identity.users.update("bob", disabled=False)
    await world.identity.users.update("ada", disabled=True)
    with pytest.raises(PermissionDenied):
        await world.of(third.text)
    told = await world.told(action="delegation.*")
    assert told == ["delegation.create"] * 3 + ["delegation.revoke"]


async def test_delegations_that_were_over_long_ago_are_taken_away(world: World):
    create = world.identity.delegations.create
    old = await create(Principal("ada"), "bob")
    world.ahead += 120 * MINUTE
    await create(Principal("ada"), "bob")
    with pytest.raises(NotFound):
        await world.identity.delegations.revoke(old.delegation.id)
