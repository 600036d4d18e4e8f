"""Documents that administrators keep: written by compare-and-set, all of one call or none."""

from __future__ import annotations

import pytest
from tests.contract.store_contract import World

from perdure.errors import Conflict, StoreRefused
from perdure.values.audit import AuditFilter, AuditLine
from perdure.values.records import ANY, Amend, Drop, Put, Record


def put(
    world: World, id: str, data: bytes = b"{}", *, replaces: int = 0, kind: str = "role"
) -> int:
    world.now += 1
    amended = world.store.amend(Amend([Put(kind, id, data, replaces)]), world.now)
    return amended.versions[0]


def drop(world: World, id: str, replaces: int = ANY) -> None:
    world.store.amend(Amend(drops=[Drop("role", id, replaces)]), world.now)


def test_a_document_is_read_as_it_was_written(world: World):
    assert put(world, "finance", b'{"a": "\\u0000 \xc3\xbc"}') == 1
    found = world.store.record("role", "finance")
    assert found == Record("role", "finance", 1, b'{"a": "\\u0000 \xc3\xbc"}', world.now)
    assert world.store.record("role", "sales") is None
    assert world.store.record("user", "finance") is None
    assert world.store.record("role", "finance", namespace="elsewhere") is None


def test_versions_grow_by_one(world: World):
    put(world, "a", b"1")
    assert put(world, "a", b"2", replaces=1) == 2
    assert put(world, "a", b"3", replaces=ANY) == 3
    found = world.store.record("role", "a")
    assert found is not None and (found.version, found.data) == (3, b"3")


@pytest.mark.parametrize("replaces", [0, 2, 7])
def test_a_put_that_replaces_another_version_is_refused_and_says_which(world: World, replaces: int):
    put(world, "a", b"1")
    with pytest.raises(Conflict, match="role 'a'") as caught:
        put(world, "a", b"2", replaces=replaces)
    assert caught.value.details == {"kind": "role", "id": "a"}
    found = world.store.record("role", "a")
    assert found is not None and found.data == b"1"


def test_what_is_not_there_cannot_be_replaced_or_dropped(world: World):
    with pytest.raises(Conflict, match="changed or dropped"):
        put(world, "a", replaces=1)
    with pytest.raises(Conflict, match="there is no role 'a'"):
        drop(world, "a")
    assert world.store.record("role", "a") is None


def test_a_document_that_comes_back_is_none_of_its_old_versions(world: World):
    put(world, "a", b"1")
    drop(world, "a", 1)
    assert world.store.record("role", "a") is None
    assert world.store.records("role", limit=9) == []
    for stale in (1, 2):
        with pytest.raises(Conflict):
            put(world, "a", b"2", replaces=stale)
    with pytest.raises(Conflict):
        drop(world, "a")
    assert put(world, "a", b"2") == 3


def test_of_one_call_all_is_written_or_nothing(world: World):
    put(world, "a", b"1")
    puts = [Put("role", "z", b"9"), Put("role", "a", b"2", replaces=5)]
    with pytest.raises(Conflict):
        world.store.amend(Amend(puts, audit=[AuditLine("role.put")]), 7)
    assert world.store.record("role", "z") is None
    assert world.store.audit(AuditFilter(), limit=9) == []
    mixed = [Put("role", "z", b"9"), Put("role", "b", b"8")]
    amended = world.store.amend(
        Amend(mixed, [Drop("role", "a", 1)], [AuditLine("role.put", "ada")]), 7
    )
    assert amended.versions == (1, 1)
    assert [it.id for it in world.store.records("role", limit=9)] == ["b", "z"]
    assert [it.principal for it in world.store.audit(AuditFilter(), limit=9)] == ["ada"]


def test_documents_of_a_kind_are_listed_by_id_page_by_page(world: World):
    for id in ("c", "a", "b", "ä"):
        put(world, id)
    put(world, "aa", kind="user")
    first = world.store.records("role", limit=2)
    assert [it.id for it in first] == ["a", "b"]
    rest = world.store.records("role", limit=9, after=first[-1].id)
    assert [it.id for it in rest] == ["c", "ä"]
    assert world.store.records("role", limit=9, namespace="elsewhere") == []


def test_an_id_that_no_column_can_hold_is_refused(world: World):
    with pytest.raises(StoreRefused, match="NUL"):
        put(world, "a\0b")
