"""Who reaches which human task: the matrix of grants, and that what is judged and listed agree."""

from __future__ import annotations

import pytest
from tests.unit.values.test_people import HOUR, NOW, TASK, act, held, task

from perdure import errors
from perdure.values.people import VERBS, Act, HumanTaskStatus, judge
from perdure.values.principals import Grant, Power, Principal, Reach
from perdure.values.reach import readable, writable

N, S, A = Reach.NONE, Reach.SELF, Reach.ALL
TASK_OF = {
    "free": task(),
    "mine": task(assignee="ada"),
    "held": held(),
    "theirs": task(assignee="grace"),
    "held by them": held("grace"),
}
OWN = {"mine", "held"}
FREE = {"free", *OWN}


def ada(read: Reach, write: Reach) -> Principal:
    return Principal("ada", roles=[Grant("finance", read=read, write=write)])


def outcome(principal: Principal, verb: str, which: str) -> int:
    """Return the status that a web page would answer with."""
    asked = act(verb, who=principal, assignee="zoe" if verb == "delegate" else None, role="lead")
    try:
        judge(TASK_OF[which], asked, NOW)
    except errors.TaskNotFound:
        return 404
    except errors.TaskDenied:
        return 403
    except errors.TaskClaimed:
        return 409
    return 200


@pytest.mark.parametrize("which", TASK_OF)
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("write", Reach)
@pytest.mark.parametrize("read", Reach)
def test_the_matrix_of_grants(read: Reach, write: Reach, verb: str, which: str):
    got = outcome(ada(read, write), verb, which)
    if read is N or (read is S and which not in OWN):
        assert got == 404
        return
    is_whole = VERBS[verb].reach is A
    may = (read is A and write is A) if is_whole else write is A or (write is S and which in OWN)
    if write is A and read is S:
        may = not is_whole  # never further than it reads
    if not may:
        assert got == 403
        return
    if not VERBS[verb].by_holder:
        assert got == 200
    elif which == "theirs":
        assert got == 403
    elif which == "held by them" or (verb in ("extend", "release") and which != "held"):
        assert got == 409
    else:
        assert got == (409 if verb == "delegate" and which == "free" else 200)


@pytest.mark.parametrize(
    "roles",
    [["admin"], ["superadmin"], [Grant("finance", Power.ADMIN, read=N)]],
    ids=["admin", "superadmin", "admin of the role"],
)
def test_admins_ignore_the_reach_of_grants_but_not_a_claim(roles: list[Grant]):
    boss = Principal("ada", roles=roles)
    assert outcome(boss, "escalate", "free") == outcome(boss, "complete", "free") == 200
    assert outcome(boss, "complete", "held by them") == 409


def test_who_has_nothing_of_a_role_sees_what_is_assigned_to_them_and_nothing_else():
    stranger = Principal("ada", roles=["legal"])
    got = {which: outcome(stranger, "complete", which) for which in TASK_OF}
    assert got["mine"] == 200
    assert got["free"] == got["theirs"] == got["held by them"] == 404
    assert outcome(stranger, "escalate", "mine") == 403


def test_of_several_grants_of_a_role_the_widest_counts():
    both = Principal("ada", roles=[Grant("finance", read=N), Grant("finance", write=S)])
    assert outcome(both, "claim", "free") == 403
    assert outcome(both, "claim", "mine") == 200


def test_a_claim_that_is_over_gives_no_sight_and_a_decision_keeps_it():
    me = readable(ada(S, S))
    assert me.sees(held(), NOW)
    assert not me.sees(held(), NOW + HOUR)
    assert me.sees(task(status=HumanTaskStatus.COMPLETED, closed_by="ada"), NOW)


def test_a_tenant_sees_its_own_whatever_its_roles():
    boss = Principal("ada", roles=["superadmin"], tenant="acme")
    assert readable(boss).sees(task(tenant="acme"), NOW)
    assert not readable(boss).sees(TASK, NOW)
    with pytest.raises(errors.TaskNotFound):
        judge(TASK, act("claim", who=boss), NOW)


def test_one_of_many_needs_the_whole_role():
    asked = Act("t-1", "claim", "ada", until=NOW + 1, who=ada(A, S), is_bulk=True)
    with pytest.raises(errors.TaskDenied, match="may not claim .* one of many"):
        judge(TASK_OF["mine"], asked, NOW)
    asked.is_bulk = False
    assert judge(TASK_OF["mine"], asked, NOW).claimed_by == "ada"


def test_what_a_principal_may_not_read_sounds_as_if_it_were_not_there():
    with pytest.raises(errors.TaskNotFound) as caught:
        judge(TASK, act("claim", who=ada(N, N)), NOW)
    assert caught.value.message == errors.TaskNotFound("t-1").message
    assert not caught.value.details


def test_to_change_never_reaches_further_than_to_read():
    for read in Reach:
        for write in Reach:
            reads, writes = readable(ada(read, write)), writable(ada(read, write))
            for one in TASK_OF.values():
                assert reads.sees(one, NOW) or not writes.sees(one, NOW)
