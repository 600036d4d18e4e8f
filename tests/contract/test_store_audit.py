"""The audit: appended in the transaction of what it tells of, in one chain that nobody changes."""

from __future__ import annotations

from typing import Any

import pytest
from tests.contract.store_contract import World, request, turn
from tests.contract.test_store_people import decide, waiting_for

from perdure.errors import Conflict, TaskClosed
from perdure.store.port import Act, Post
from perdure.values import events as ev
from perdure.values.audit import (
    AuditFilter,
    AuditHead,
    AuditLine,
    AuditPlace,
    AuditRow,
    digest_of,
    fault_of,
)
from perdure.values.records import Amend


def note(world: World, action: str = "do", principal: str = "ada", **fields: Any) -> None:
    world.now += 1
    world.store.amend(Amend(audit=[AuditLine(action, principal, **fields)]), world.now)


def rows(world: World, *, limit: int = 99, before: AuditPlace | None = None, **where: Any) -> Any:
    return world.store.audit(AuditFilter(**where), limit=limit, before=before)


def actions(world: World, **where: Any) -> list[str]:
    return [row.action for row in rows(world, **where)]


def faults(chain: list[AuditRow], head: AuditHead | None = None) -> list[str]:
    before, found = head or AuditHead(), list[str]()
    for row in chain:
        found.append(fault_of(row, before))
        before = AuditHead(row.number, row.hash)
    return found


def message(text: str = "x") -> bytes:
    return ev.encode_turn([ev.MessageReceived(message=ev.Message(topic=text, payload=b"1"))])


def test_a_line_is_read_as_it_was_written(world: World):
    line = AuditLine(
        "start",
        "svc",
        "order-1",
        "run-1",
        "ada",
        "shop",
        "allowed",
        "allowedWorkflows",
        b'{"\\u0000":1}',
    )
    world.store.amend(Amend(audit=[line]), 77)
    [row] = rows(world, namespace="shop")
    assert (row.number, row.at, row.digest) == (1, 77, digest_of(line.data))
    for name in AuditLine.__struct_fields__:
        assert getattr(row, name) == getattr(line, name)
    assert world.store.audit_head() == AuditHead(1, row.hash)


def test_the_chain_holds_over_many_transactions_and_lines(world: World):
    for n in range(5):
        lines = [
            AuditLine(f"do-{n}-{k}", data=b"{}" if k else None) for k in range(150 if n == 2 else 2)
        ]
        world.store.amend(Amend(audit=lines), n)
    chain = world.store.audit_chain(limit=1_000)
    assert [row.number for row in chain] == list(range(1, 159))
    assert set(faults(chain)) == {""}
    assert [row.number for row in world.store.audit_chain(after=155, limit=2)] == [156, 157]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"principal": "eve"}, "was changed"),
        ({"at": 5}, "was changed"),
        ({"data": b"other"}, "detail is not the one"),
        ({"digest": ""}, "was changed"),
    ],
)
def test_a_changed_row_is_found(world: World, change: dict[str, Any], said: str):
    for n in range(3):
        note(world, data=b"%d" % n)
    chain = world.store.audit_chain(limit=9)
    for name, value in change.items():
        setattr(chain[1], name, value)
    found = faults(chain)
    assert found[0] == "" and said in found[1]


def test_a_missing_row_is_found_and_an_erased_detail_is_none(world: World):
    for n in range(4):
        note(world, data=b"%d" % n)
    chain = world.store.audit_chain(limit=9)
    assert "row 2 is missing" in faults(chain[:1] + chain[2:])[1]
    assert "row 2 to 3 is missing" in faults([chain[0], chain[3]])[1]
    chain[2].data = None
    assert faults(chain) == [""] * 4


def test_lists_are_newest_first_and_go_on_behind_a_row(world: World):
    for n in range(5):
        note(world, f"a{n}")
    world.store.amend(Amend(audit=[AuditLine("same"), AuditLine("time")]), world.now)
    assert actions(world) == ["time", "same", "a4", "a3", "a2", "a1", "a0"]
    [*_, last] = rows(world, limit=2)
    assert [it.action for it in rows(world, limit=2, before=AuditPlace(last.at, last.number))] == [
        "a4",
        "a3",
    ]


def test_a_list_is_of_a_run_a_principal_an_action_a_target_or_a_time(world: World):
    note(world, "start", "ada", target="o-1", run_id="r-1")
    note(world, "run.send", "bob", target="o-1", run_id="r-1")
    note(world, "run.cancel", "bob", target="o-2", run_id="r-2")
    note(world, "start", "bob", namespace="shop")
    assert actions(world, run_id="r-1") == ["run.send", "start"]
    assert actions(world, principal="bob") == ["run.cancel", "run.send"]
    assert actions(world, principal="bob", run_id="r-1") == ["run.send"]
    assert actions(world, action="start") == ["start"]
    assert actions(world, action="run.*") == ["run.cancel", "run.send"]
    assert actions(world, target="o-2") == ["run.cancel"]
    assert actions(world, namespace="shop") == ["start"]
    since = world.now - 2
    assert actions(world, since=since) == ["run.cancel", "run.send"]
    assert actions(world, until=since) == ["start"]


def test_a_start_is_told_with_it_and_a_refused_one_is_not(world: World):
    def ask(run_id: str, conflict: str) -> str:
        line = AuditLine("start", "ada", "o-1")
        [answer] = world.store.start(
            [request(workflow_id="o-1", run_id=run_id, conflict=conflict, audit=line)], world.now
        )
        return answer.refused

    assert ask("r-1", "fail") == ""
    assert [row.run_id for row in rows(world)] == ["r-1"]
    assert ask("r-1", "fail") == ""  # repeated after a lost acknowledgement
    assert ask("r-2", "fail") == "already_exists"
    assert len(rows(world)) == 1
    assert ask("r-3", "use_existing") == ""
    assert [row.run_id for row in rows(world)] == ["r-1", "r-1"]


def test_a_start_with_its_first_turn_is_told_by_the_batch(world: World):
    first = turn(0, first=1, count=2)
    start = request(first=first, audit=AuditLine("start", "ada"))
    [answer] = world.commit(starts=[start], audit=[AuditLine("else")]).started
    assert [(row.action, row.run_id) for row in rows(world)] == [
        ("start", answer.run_id),
        ("else", ""),
    ]


def test_a_post_is_told_if_it_is_delivered(world: World):
    started = world.owned("o-1")

    def post(to: str, seq: int) -> str:
        line = AuditLine("send", "ada", to)
        sent = Post(message(), to, sender="c", seq=seq, audit=line)
        return world.store.post([sent], world.now)[0].outcome

    assert [post("o-1", 1), post("o-1", 1), post("nobody", 2)] == [
        "delivered",
        "duplicate",
        "not_found",
    ]
    assert [row.target for row in rows(world)] == ["o-1"]
    assert len(world.inbox(started.run)) == 1


def test_what_is_done_to_a_human_task_is_told_with_it(world: World):
    waiting_for(world, "t-1")
    act = Act("t-1", "complete", "ada", audit=AuditLine("people.complete", "ada", "t-1"))
    world.store.act(act, world.now)
    assert [(row.target, row.run_id) for row in rows(world)] == [("t-1", "run-of-of-t-1")]
    with pytest.raises(TaskClosed):
        world.store.act(act, world.now)
    assert len(rows(world)) == 1
    with pytest.raises(TaskClosed):
        decide(world)


def test_what_was_cut_off_is_deleted_and_the_rest_still_holds(world: World):
    for n in range(6):
        note(world, f"a{n}")
    before = world.store.audit_chain(limit=99)
    deleted = world.store.cut_audit(4, [AuditLine("audit.cut", target="4")], world.now, limit=3)
    assert deleted == 3
    assert world.store.cut_audit(4, [AuditLine("audit.cut")], world.now, limit=3) == 1
    assert world.store.cut_audit(3, [AuditLine("audit.cut")], world.now, limit=3) == 0
    head = world.store.audit_head()
    assert (head.number, head.cut, head.cut_hash) == (7, 4, before[3].hash)
    chain = world.store.audit_chain(limit=99)
    assert [row.action for row in chain] == ["a4", "a5", "audit.cut"]
    assert faults(chain, AuditHead(head.cut, head.cut_hash)) == ["", "", ""]


def test_nothing_can_be_cut_off_that_is_not_there(world: World):
    note(world)
    with pytest.raises(Conflict, match="no row 2"):
        world.store.cut_audit(2, [], world.now)
    assert world.store.audit_head().cut == 0


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE perdure_audit SET principal = 'eve' WHERE number = 1",
        "UPDATE perdure_audit SET hash = 'x' WHERE number = 2",
        "DELETE FROM perdure_audit WHERE number = 2",
        "DELETE FROM perdure_audit",
    ],
)
def test_the_database_itself_refuses_to_change_rows(world: World, statement: str):
    note(world)
    note(world)
    database: Any = world.store.database  # type: ignore[attr-defined]
    with pytest.raises(Exception, match="append-only"):
        database.write(lambda: database.ask(statement, ()).rowcount)
    assert faults(world.store.audit_chain(limit=9)) == ["", ""]


def test_details_of_a_target_are_erased_and_the_chain_holds(world: World):
    for n, target in enumerate(("o-1", "o-2", "o-1")):
        note(world, target=target, data=b"%d" % n)
    note(world, target="o-1", data=b"x", namespace="shop")
    line = AuditLine("audit.erase", "ada", "o-1")
    assert world.store.erase_audit("o-1", [line], world.now) == 2
    assert world.store.erase_audit("o-1", [line], world.now) == 0
    chain = world.store.audit_chain(limit=9)
    assert [row.data for row in chain] == [None, b"1", None, b"x", None]
    assert [bool(row.digest) for row in chain] == [True, True, True, True, False]
    assert [row.action for row in chain].count("audit.erase") == 1
    assert set(faults(chain)) == {""}
