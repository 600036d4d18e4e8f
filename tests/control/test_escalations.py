"""``lt.escalations``: who may do what to which, what each call answers, and in which order."""

from __future__ import annotations

from typing import Any

import pytest
from tests.control.world import World

from perdure.control import ApiResult, Control, Grant, Power, Principal, Reach
from perdure.control.escalations import Escalations

MINUTE = 60_000_000
ADMIN = Principal("ada", roles=["admin"])
CLERK = Principal("carl", roles=["clerk"])
OTHER = Principal("otto", roles=["clerk"])
READER = Principal("rita", roles=[Grant("clerk", write=Reach.NONE)])
SELF = Principal("sam", roles=[Grant("clerk", read=Reach.SELF, write=Reach.SELF)])
CAREFUL = Principal("cora", roles=[Grant("clerk", write=Reach.SELF)])
STRANGER = Principal("max", roles=["sales"])
TENANT = Principal("tess", roles=["clerk"], tenant="acme")
KEY = Principal("key", roles=["clerk"], scopes=["workflow:invoke"])
BOSS = Principal("bea", roles=[Grant("clerk", Power.ADMIN)])
on_each_store = pytest.mark.parametrize("world", ["file", "postgres"], indirect=True)
FORM = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}, "at": {"type": "integer"}},
    "required": ["ok"],
}


def lt(world: World, who: Principal | None = ADMIN) -> Any:
    return Control(world.client, who).escalations


async def raised(world: World, **fields: Any) -> str:
    fields = {"type": "review", "role": "clerk", **fields}
    made = await lt(world).create(**fields)
    assert made.status == 201, made.error
    return made.data["id"]


def said(found: ApiResult) -> tuple[int, str | None]:
    return found.status, found.code


VERBS: dict[str, dict[str, Any]] = {
    "list": {},
    "get": {"id": ""},
    "get_by_workflow_id": {"workflow_id": "w"},
    "get_log": {"id": ""},
    "get_stats": {},
    "list_types": {},
    "create": {"type": "review", "role": "clerk"},
    "claim": {"id": ""},
    "extend": {"id": ""},
    "release": {"id": ""},
    "resolve": {"id": "", "payload": {}},
    "reject": {"id": ""},
    "escalate": {"id": "", "role": "lead"},
    "assign": {"id": "", "assignee": "ann"},
    "cancel": {"id": ""},
    "comment": {"id": "", "text": "hm"},
    "attach": {"id": "", "name": "bill", "uri": "s3://b/1"},
    "bulk_claim": {"ids": []},
    "bulk_assign": {"ids": [], "assignee": "ann"},
    "bulk_escalate": {"ids": [], "role": "lead"},
    "bulk_cancel": {"ids": []},
    "resolve_all_or_none": {"ids": [], "payload": {}},
}


def test_every_verb_stands_in_the_table():
    assert {name for name in dir(Escalations) if not name.startswith("_")} == set(VERBS)


async def test_nobody_is_refused_by_every_verb_and_so_is_a_key_without_the_scope(world: World):
    for who, refused in (
        (None, (401, "unauthenticated")),
        (KEY, (403, "insufficient_scope")),
    ):
        for verb, given in VERBS.items():
            assert said(await getattr(lt(world, who), verb)(**given)) == refused, verb


OK, CREATED = (200, None), (201, None)
GONE, DENIED = (404, "not_found"), (403, "permission_denied")


@on_each_store
@pytest.mark.parametrize(
    ("verb", "expected"),
    [
        # ADMIN, BOSS, CLERK, CAREFUL, READER, SELF, STRANGER, TENANT
        ("get", [OK, OK, OK, OK, OK, GONE, GONE, GONE]),
        ("claim", [OK, OK, OK, DENIED, DENIED, GONE, GONE, GONE]),
        ("resolve", [OK, OK, OK, DENIED, DENIED, GONE, GONE, GONE]),
        ("reject", [OK, OK, OK, DENIED, DENIED, GONE, GONE, GONE]),
        ("cancel", [OK, OK, OK, DENIED, DENIED, GONE, GONE, GONE]),
        ("comment", [OK, OK, OK, DENIED, DENIED, GONE, GONE, GONE]),
        ("attach", [OK, OK, OK, DENIED, DENIED, GONE, GONE, GONE]),
        ("escalate", [OK, OK, OK, DENIED, DENIED, GONE, GONE, GONE]),
        ("assign", [OK, OK, OK, DENIED, DENIED, GONE, GONE, GONE]),
        ("create", [CREATED, CREATED, CREATED, DENIED, DENIED, DENIED, DENIED, CREATED]),
        ("bulk_claim", [OK, OK, OK, DENIED, DENIED, OK, OK, OK]),
    ],
)
async def test_who_may_do_what(world: World, verb: str, expected: list[tuple[int, str | None]]):
    callers = [ADMIN, BOSS, CLERK, CAREFUL, READER, SELF, STRANGER, TENANT]
    for who, answer in zip(callers, expected, strict=True):
        id = await raised(world)
        given = {**VERBS[verb], **({"id": id} if "id" in VERBS[verb] else {})}
        if "ids" in given:
            given["ids"] = [id]
        assert said(await getattr(lt(world, who), verb)(**given)) == answer, who.id


async def test_self_is_what_is_assigned(world: World):
    for who in (SELF, CAREFUL):
        id = await raised(world, assignee=who.id)
        mine = lt(world, who)
        assert id in [it["id"] for it in (await mine.list()).data["escalations"]]
        assert said(await mine.resolve(id=id, payload=1)) == OK


@pytest.mark.parametrize(
    ("verb", "expected"),
    [
        ("claim", (409, "claimed_by_other")),
        ("extend", (409, "claimed_by_other")),
        ("release", (409, "claimed_by_other")),
        ("resolve", (409, "claimed_by_other")),
        ("reject", (409, "claimed_by_other")),
        ("escalate", OK),
        ("cancel", OK),
        ("comment", OK),
    ],
)
async def test_what_another_holds(world: World, verb: str, expected: tuple[int, str | None]):
    id = await raised(world)
    assert said(await lt(world, OTHER).claim(id=id)) == OK
    assert said(await getattr(lt(world, CLERK), verb)(**{**VERBS[verb], "id": id})) == expected


@pytest.mark.parametrize(
    ("ending", "word"),
    [("resolve", "resolved"), ("reject", "resolved"), ("cancel", "cancelled")],
)
async def test_what_has_ended_is_refused_with_what_became_of_it(
    world: World, ending: str, word: str
):
    id = await raised(world)
    await getattr(lt(world), ending)(**{**VERBS[ending], "id": id})
    for verb in [name for name in VERBS if "id" in VERBS[name] and not name.startswith("get")]:
        refused = await getattr(lt(world), verb)(**{**VERBS[verb], "id": id})
        assert said(refused) == (409, f"already_{word}"), verb
        assert refused.data == {"id": id, "status": word, "by": "ada"}
    assert (await lt(world).get(id=id)).data["status"] == word


async def test_a_claim_is_held_for_a_while_and_extended_by_its_holder(world: World):
    id, clerk = await raised(world), lt(world, CLERK)
    first = (await clerk.claim(id=id, duration_minutes=10)).data
    assert (first["is_extension"], first["escalation"]["assigned_to"]) == (False, "carl")
    held = first["escalation"]
    assert (held["assigned_until"] - held["claimed_at"]).total_seconds() == pytest.approx(600)
    assert (held["status"], held["outcome"], held["available"]) == ("pending", "claimed", False)
    assert (await clerk.claim(id=id)).data["is_extension"] is True
    assert said(await clerk.extend(id=id, duration_minutes=1)) == OK
    world.ahead += 2 * MINUTE
    for verb, code in (
        ("resolve", "claim_expired"),
        ("reject", "claim_expired"),
        ("extend", "not_claimed"),
        ("release", "not_claimed"),
    ):
        assert said(await getattr(clerk, verb)(**{**VERBS[verb], "id": id})) == (409, code)
    assert (await clerk.get(id=id)).data["available"] is True
    assert (await clerk.claim(id=id)).data["is_extension"] is False
    assert said(await clerk.release(id=id)) == OK
    assert said(await clerk.resolve(id=id, payload=1)) == OK, "nobody need claim before"


async def test_the_checks_of_an_answer_come_in_their_order(world: World):
    id = await raised(world, form=FORM)
    wrong = {"payload": {"at": "x"}, "id": id}
    reader, clerk = lt(world, READER), lt(world, CLERK)
    assert said(await lt(world, None).resolve(id="missing")) == (401, "unauthenticated")
    assert said(await clerk.resolve(id="missing")) == (400, "no_payload")
    assert said(await clerk.resolve(id="missing", payload={})) == GONE
    assert said(await lt(world, STRANGER).resolve(**wrong)) == GONE
    assert said(await reader.resolve(**wrong)) == DENIED
    await lt(world, OTHER).claim(id=id)
    assert said(await clerk.resolve(**wrong)) == (409, "claimed_by_other")
    await lt(world, OTHER).release(id=id)
    refused = await clerk.resolve(**wrong)
    assert said(refused) == (422, "schema_validation")
    told = {one["field"]: one["message"] for one in refused.data["violations"]}
    assert set(told) == {"", "at"}
    assert '"ok" is a required property' in told[""]
    done = await clerk.resolve(id=id, payload={"ok": True})
    assert (said(done), done.data["resumes"]) == (OK, None)
    # What has ended says so before it says who may write, and after who may read.
    assert said(await reader.resolve(**wrong)) == (409, "already_resolved")
    assert said(await lt(world, STRANGER).resolve(**wrong)) == GONE


@pytest.mark.parametrize(
    ("verb", "given", "says"),
    [
        ("create", {"type": ""}, "type"),
        ("create", {"type": "other", "role": None}, "role"),
        ("create", {"role": "No Role"}, "no name of a role"),
        ("create", {"priority": 9}, "priority"),
        ("create", {"metadata": [1]}, "metadata"),
        ("create", {"colour": 1}, "unknown field 'colour'"),
        ("create", {"form": {"type": 5}}, "JSON Schema"),
        ("claim", {"duration_minutes": 0}, "duration_minutes"),
        ("claim", {"duration_minutes": "x"}, "duration_minutes"),
        ("bulk_claim", {"duration_minutes": True}, "duration_minutes"),
        ("list", {"status": "done"}, "status"),
        ("list", {"status": 7}, "status"),
        ("list", {"limit": 0}, "limit"),
        ("list", {"cursor": "missing"}, "cursor"),
        ("list", {"priority": "x"}, "priority"),
        ("list", {"type": 5}, "type: 5 is not text"),
        ("list", {"assigned_to": 5}, "assigned_to: 5 is not text"),
        ("list", {"available": "no"}, "available: 'no'"),
        ("assign", {"assignee": ""}, "it is empty"),
        ("bulk_assign", {"assignee": None}, "to: None is not text"),
        ("escalate", {"role": None}, "no role"),
        ("comment", {"text": ""}, "text"),
        ("attach", {"uri": ""}, "uri: it is empty"),
        ("attach", {"size": -1}, "size: -1"),
    ],
)
async def test_what_cannot_be_meant_is_refused(
    world: World, verb: str, given: dict[str, Any], says: str
):
    id = await raised(world)
    fields = {**VERBS[verb], **({"id": id} if "id" in VERBS[verb] else {}), **given}
    refused = await getattr(lt(world), verb)(**fields)
    assert said(refused) == (400, "invalid")
    assert says in refused.error


async def test_a_record_has_what_it_was_raised_with(world: World):
    made = await lt(world, CLERK).create(
        type="review",
        subtype="page",
        role="clerk",
        priority=1,
        payload={"url": "x"},
        description="Is it all right?\nReally?",
        metadata={"site": "a", "form_schema": FORM},
        due="2d",
    )
    assert made.status == 201
    found = (await lt(world, CLERK).get(id=made.data["id"])).data
    assert found == made.data
    assert (found["type"], found["subtype"], found["role"]) == ("review", "page", "clerk")
    assert (found["title"], found["priority"]) == ("review", 1)
    assert (found["escalation_payload"], found["metadata"]["site"]) == ({"url": "x"}, "a")
    assert (found["status"], found["created_by"], found["form"]) == ("pending", "carl", FORM)
    assert (found["workflow_id"], found["workflow_type"]) == (None, None)
    span = found["due_at"] - found["created_at"]
    assert span.total_seconds() == pytest.approx(2 * 86_400, abs=60)
    await lt(world).comment(id=found["id"], text="I look")
    await lt(world).attach(id=found["id"], name="bill", uri="s3://b/1", size=7)
    await lt(world).resolve(id=found["id"], payload={"ok": True}, comment="fine")
    after = (await lt(world).get(id=found["id"])).data
    assert (after["resolver_payload"], after["resolved_by"]) == ({"ok": True}, "ada")
    assert (after["assigned_to"], after["comment"]) == ("ada", "fine")
    entries = (await lt(world).get_log(id=found["id"])).data["entries"]
    verbs = ["opened", "commented", "attached", "completed"]
    assert [entry.verb for entry in entries] == verbs
    assert entries[2].data == {"name": "bill", "uri": "s3://b/1", "size": 7}


@on_each_store
async def test_lists_and_counts_hold_what_is_asked_for_and_may_be_read(world: World):
    ids: dict[str, str] = {}
    for name, fields in {
        "one": {"priority": 1},
        "two": {"type": "pay", "assignee": "carl"},
        "lead": {"role": "lead"},
        "sold": {"role": "sales"},
        "held": {},
        "done": {},
        "refused": {},
        "gone": {},
    }.items():
        ids[name] = await raised(world, **fields)
    await lt(world, CLERK).claim(id=ids["held"])
    await lt(world, CLERK).resolve(id=ids["done"], payload=1)
    await lt(world).reject(id=ids["refused"])
    await lt(world).cancel(id=ids["gone"])
    names = {id: name for name, id in ids.items()}

    async def listed(who: Principal = ADMIN, **filters: Any) -> set[str]:
        found, cursor = set[str](), None
        while True:
            page = await lt(world, who).list(limit=2, cursor=cursor, **filters)
            assert page.status == 200, page.error
            found |= {names[it["id"]] for it in page.data["escalations"]}
            if (cursor := page.data["cursor"]) is None:
                return found

    pending = {"one", "two", "lead", "sold", "held"}
    assert await listed() == await listed(status="pending") == pending
    assert await listed(status="resolved") == {"done", "refused"}
    assert await listed(status=["canceled", "expired"]) == {"gone"}
    assert await listed(role="lead") == {"lead"}
    assert await listed(roles=["lead", "sales"]) == {"lead", "sold"}
    assert await listed(roles=[]) == set(), "of no role at all"
    assert await listed(CLERK, roles=["lead", "clerk"]) == {"one", "two", "held"}, "narrows"
    assert await listed(CLERK, roles=["lead"]) == await listed(STRANGER, role="clerk") == set()
    assert await listed(type="pay") == {"two"}
    assert await listed(priority=1) == {"one"}
    assert await listed(available=True) == pending - {"held"}
    assert await listed(available=False) == {"held"}
    assert await listed(status="resolved", available=True) == set()
    assert await listed(assigned_to="carl") == {"two", "held"}
    assert await listed(CLERK, assigned_to="carl", role="clerk") == {"two", "held"}
    assert await listed(assigned_to="carl", status=["pending", "resolved"]) == {
        "two",
        "held",
        "done",
    }
    for who in (ADMIN, CLERK, STRANGER, READER):
        stats = (await lt(world, who).get_stats()).data
        assert stats["pending"] == len(await listed(who))
        assert stats["claimed"] == len(await listed(who, available=False))
        for one in stats["by_role"]:
            assert one["pending"] == len(await listed(who, role=one["role"]))
        for one in stats["by_type"]:
            assert one["pending"] == len(await listed(who, type=one["type"]))
        words = ("pending", "claimed", "created", "resolved")
        whole = await listed(who, status=["pending", "resolved", "cancelled", "expired"])
        assert stats["created"] == len(whole)
        assert stats["resolved"] == len(await listed(who, status="resolved"))
        for word in words:
            assert sum(one[word] for one in stats["by_type"]) == stats[word]
        types = (await lt(world, who).list_types()).data["types"]
        assert types == sorted(one["type"] for one in stats["by_type"])


@pytest.mark.parametrize(("hours", "seen"), [(0, {"1h"}), (2, {"24h"}), (50, {"7d"})])
async def test_what_was_created_and_resolved_is_counted_within_a_period(
    world: World, hours: int, seen: set[str]
):
    ids = [await raised(world, role="clerk") for _ in range(3)]
    await lt(world).resolve(id=ids[0], payload=1)
    await lt(world).reject(id=ids[1])
    world.ahead = hours * 3_600_000_000
    periods = ["1h", "24h", "7d", "30d"]
    for period in periods:
        stats = (await lt(world).get_stats(period=period)).data
        is_seen = periods.index(period) >= periods.index(*seen)
        assert (stats["period"], stats["pending"]) == (period, 1)
        assert (stats["created"], stats["resolved"]) == ((3, 2) if is_seen else (0, 0))
        [of_role] = [one for one in stats["by_role"] if one["role"] == "clerk"]
        assert of_role["created"] == stats["created"]


async def test_a_period_that_there_is_not_is_refused(world: World):
    refused = await lt(world).get_stats(period="2h")
    assert (refused.status, refused.code) == (400, "invalid")
    assert "use 1h, 24h, 7d, 30d" in (refused.error or "")


# -- many ------------------------------------------------------------------------------------------


async def test_what_cannot_be_done_to_one_of_many_is_skipped_with_the_reason(world: World):
    ids = [await raised(world) for _ in range(3)]
    await lt(world, OTHER).claim(id=ids[1])
    done = (await lt(world, CLERK).bulk_claim(ids=[*ids, "missing"])).data
    assert done["claimed"] == [ids[0], ids[2]]
    assert {it["id"] for it in done["skipped"]} == {ids[1], "missing"}
    assert (await lt(world).bulk_assign(ids=ids, assignee="ann")).data["assigned"] == ids
    assert (await lt(world).bulk_escalate(ids=ids, role="lead")).data["escalated"] == ids
    assert (await lt(world).bulk_cancel(ids=ids)).data == {"cancelled": ids, "skipped": []}


async def test_all_are_answered_or_none(world: World):
    ids = [await raised(world, form=FORM), await raised(world)]
    refused = await lt(world).resolve_all_or_none(ids=ids, payload={"ok": 1})
    assert said(refused) == (422, "schema_validation")
    assert [one["escalation_id"] for one in refused.data["violations"]] == [ids[0]]
    await lt(world, OTHER).claim(id=ids[1])
    refused = await lt(world).resolve_all_or_none(ids=ids, payload={"ok": True})
    assert said(refused) == (409, "conflict")
    assert [one["id"] for one in refused.data["failed"]] == [ids[1]]
    assert (await lt(world).get_stats()).data["pending"] == 2
    await lt(world, OTHER).release(id=ids[1])
    denied = await lt(world, READER).resolve_all_or_none(ids=ids, payload={"ok": 1})
    assert said(denied) == (403, "permission_denied"), "and is not told what the form wants"
    done = await lt(world).resolve_all_or_none(ids=ids, payload={"ok": True})
    assert done.data == {"resolved": ids, "skipped": []}
