"""The life of a human task: the table is whole, and who may do what, and when."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from perdure import errors
from perdure.values.people import (
    BY_CODE,
    CLOSED,
    CODES,
    OPEN,
    TRANSITIONS,
    VERBS,
    Act,
    HumanTaskRow,
    HumanTaskStatus,
    decision,
    judge,
    may,
)
from perdure.values.principals import Kind, Principal
from perdure.why import awaited

NOW = 10_000_000
HOUR = 3_600_000_000
TASK = HumanTaskRow(
    id="t-1",
    namespace="default",
    run=1,
    execution=1,
    event=2,
    run_id="r",
    workflow_id="w",
    workflow="wf",
    status=HumanTaskStatus.OPEN,
    name="",
    title="Refund?",
    description="",
    role="finance",
    assignee=None,
    priority=2,
    form=None,
    data=None,
    created_at=1,
    due_at=None,
    remind_at=None,
)


def task(**fields: Any) -> HumanTaskRow:
    return msgspec.structs.replace(TASK, **fields)


def held(by: str = "ada", until: int = NOW + HOUR) -> HumanTaskRow:
    return task(
        status=HumanTaskStatus.CLAIMED, claimed_by=by, claimed_at=NOW - 5, claimed_until=until
    )


def act(verb: str, by: str = "ada", **fields: Any) -> Act:
    if verb in ("claim", "extend"):
        fields.setdefault("until", NOW + 2 * HOUR)
    return Act("t-1", verb, by, **fields)


def test_every_status_has_a_row_and_nothing_follows_an_end():
    assert TRANSITIONS.keys() == set(HumanTaskStatus) == OPEN | CLOSED
    assert all(not TRANSITIONS[status] for status in CLOSED)
    assert all(TRANSITIONS[status] >= CLOSED for status in OPEN)
    assert all(may(status, status) == (status in OPEN) for status in HumanTaskStatus)
    assert HumanTaskStatus("canceled") is HumanTaskStatus.CANCELLED


def test_codes_are_those_that_stored_rows_hold():
    assert {status.value: code for status, code in CODES.items()} == {
        "open": 0,
        "claimed": 1,
        "completed": 2,
        "rejected": 3,
        "cancelled": 4,
        "expired": 5,
    }
    assert all(BY_CODE[code] is status for status, code in CODES.items())


@pytest.mark.parametrize("status", sorted(CLOSED))
@pytest.mark.parametrize("verb", sorted(VERBS))
def test_nothing_is_done_to_what_is_closed_and_the_error_says_who_closed_it(
    verb: str, status: HumanTaskStatus
):
    closed = task(status=status, closed_at=NOW - 3 * HOUR, closed_by="grace")
    with pytest.raises(errors.TaskClosed) as caught:
        judge(closed, act(verb), NOW)
    assert caught.value.message == f"human task 'Refund?' (t-1) was {status} 3h ago by 'grace'"
    assert caught.value.details["by"] == "grace"


@pytest.mark.parametrize("verb", ["complete", "reject", "cancel"])
def test_a_decision_says_what_who_and_when_and_ends_the_claim(verb: str):
    after = judge(held(), act(verb, value=b"1", comment="so"), NOW)
    assert after.status is VERBS[verb].after
    assert (after.closed_by, after.closed_at, after.value, after.comment) == (
        "ada",
        NOW,
        b"1",
        "so",
    )
    assert (after.claimed_by, after.claimed_until) == (None, None)


@pytest.mark.parametrize("verb", ["claim", "extend", "release", "complete", "reject"])
def test_while_one_holds_it_others_can_do_nothing_with_it(verb: str):
    with pytest.raises(errors.TaskClaimed, match="claimed by 'ada' for another 1h"):
        judge(held(), act(verb, by="grace"), NOW)


@pytest.mark.parametrize("verb", ["reassign", "cancel"])
def test_it_can_be_taken_from_who_holds_it(verb: str):
    after = judge(held(), act(verb, by="grace", assignee="barbara"), NOW)
    assert after.claimed_by is None


@pytest.mark.parametrize("verb", ["claim", "complete", "reject"])
def test_a_claim_that_is_over_is_none(verb: str):
    over = held(until=NOW)
    assert over.standing(NOW) is HumanTaskStatus.OPEN
    assert over.standing(NOW - 1) is HumanTaskStatus.CLAIMED
    assert judge(over, act(verb, by="grace"), NOW).status is VERBS[verb].after
    with pytest.raises(errors.TaskClaimed, match="that claim is over"):
        judge(over, act("extend"), NOW)


def test_a_claim_anew_by_the_same_person_counts_from_the_first():
    again = judge(held(), act("claim"), NOW)
    assert (again.claimed_at, again.claimed_until) == (NOW - 5, NOW + 2 * HOUR)
    assert judge(held(until=NOW), act("claim"), NOW).claimed_at == NOW


@pytest.mark.parametrize("verb", ["extend", "release"])
def test_there_must_be_a_claim_to_extend_or_release(verb: str):
    with pytest.raises(errors.TaskClaimed, match="not claimed"):
        judge(TASK, act(verb), NOW)


@pytest.mark.parametrize("verb", ["claim", "complete", "reject"])
def test_what_is_assigned_to_somebody_is_for_nobody_else(verb: str):
    with pytest.raises(errors.TaskDenied, match=f"'ada' cannot {verb} it"):
        judge(task(assignee="grace"), act(verb), NOW)
    assert judge(task(assignee="grace"), act(verb, by="grace"), NOW).status is VERBS[verb].after


def test_only_what_is_open_is_overdue():
    assert task(due_at=NOW - 1).is_overdue(NOW)
    assert not task(due_at=NOW).is_overdue(NOW)
    assert not task(due_at=1, status=HumanTaskStatus.EXPIRED).is_overdue(NOW)


def test_what_is_awaited_is_told_with_what_is_known():
    assert awaited(("Refund?", None, None), "") == "a person: 'Refund?'"
    told = awaited(("R", "finance", None), "due in 2h")
    assert told == "a person: 'R' (role 'finance', due in 2h)"
    assert awaited(("R", "finance", "ada"), "") == "a person: 'R' (assigned to 'ada')"


def test_it_takes_as_many_different_people_as_it_needs():
    one = task(approvers=2, assignee="ada")
    first = judge(one, act("complete", value=b"1", comment="fine"), NOW)
    assert (first.status, first.assignee, first.value) == (HumanTaskStatus.OPEN, None, None)
    assert [(it.by, it.value, it.comment) for it in first.approvals] == [("ada", b"1", "fine")]
    for verb in ("claim", "complete", "reject"):
        with pytest.raises(errors.TaskDenied, match="completed by 'ada' already; it takes 2"):
            judge(first, act(verb, value=b"2"), NOW)
    last = judge(first, act("complete", by="grace", value=b"2"), NOW + 1)
    assert (last.status, last.value, last.closed_by) == (
        HumanTaskStatus.COMPLETED,
        b"2",
        "grace",
    )
    assert [it.by for it in decision(last).approvals] == ["ada", "grace"]


def test_one_rejection_rejects_also_after_somebody_has_completed_it():
    first = judge(task(approvers=3), act("complete", value=b"1"), NOW)
    after = judge(first, act("reject", by="grace"), NOW)
    assert after.status is HumanTaskStatus.REJECTED
    assert [it.by for it in after.approvals] == ["ada"]


def test_a_person_behind_two_service_accounts_is_one_person():
    bots = [Principal(f"bot{n}", roles=["finance"], initiated_by="ada") for n in (1, 2)]
    first = judge(task(approvers=2), act("complete", "bot1", who=bots[0], value=b"1"), NOW)
    for name, who in (("bot2", bots[1]), ("ada", None)):
        with pytest.raises(errors.TaskDenied, match="already"):
            judge(first, act("complete", name, who=who, value=b"1"), NOW)


def test_two_people_behind_one_service_account_are_two_people():
    def through(person: str, kind: Kind = Kind.SERVICE) -> Principal:
        return Principal("portal", kind=kind, roles=["finance"], initiated_by=person)

    def done(by: str, who: Principal | None) -> Act:
        return act("complete", by, who=who, value=b"1")

    first = judge(task(approvers=2), done("portal", through("ada")), NOW)
    for who in (through("ada"), through(""), through("grace", Kind.USER)):
        with pytest.raises(errors.TaskDenied, match="already"):
            judge(first, done("portal", who), NOW)
    after = judge(first, done("portal", through("grace")), NOW)
    assert [it.person for it in decision(after).approvals] == ["ada", "grace"]
    unknown = judge(task(approvers=2), done("portal", through("")), NOW)
    with pytest.raises(errors.TaskDenied, match="already"):
        judge(unknown, done("portal", through("grace")), NOW)


@pytest.mark.parametrize("verb", ["claim", "complete", "reject"])
def test_who_is_barred_does_not_decide_nor_through_an_account(verb: str):
    one = task(not_by=("ada",))
    bot = Principal("bot", roles=["finance"], initiated_by="ada")
    for name, who in (("ada", None), ("bot", bot)):
        with pytest.raises(errors.TaskDenied, match="must not be decided by 'ada'"):
            judge(one, act(verb, name, who=who), NOW)
    assert judge(one, act(verb, "grace"), NOW).status is VERBS[verb].after


@pytest.mark.parametrize("verb", ["delegate", "reassign"])
def test_what_somebody_is_barred_from_cannot_become_theirs(verb: str):
    one = held("grace")
    one.not_by = ("ada",)
    with pytest.raises(errors.TaskDenied, match="cannot become theirs"):
        judge(one, act(verb, "grace", assignee="ada"), NOW)


@pytest.mark.parametrize("verb", ["delegate", "reassign"])
def test_what_somebody_has_completed_already_cannot_become_theirs(verb: str):
    first = judge(task(approvers=2), act("complete", value=b"1"), NOW)
    held_by_other = judge(first, act("claim", "grace", until=NOW + HOUR), NOW)
    with pytest.raises(errors.TaskDenied, match="has been completed by 'ada'"):
        judge(held_by_other, act(verb, "grace", assignee="ada"), NOW)
    assert judge(held_by_other, act(verb, "grace", assignee="zoe"), NOW).assignee == "zoe"


def test_whoever_holds_it_gives_it_to_another_and_nobody_else_does():
    for mine in (held(), task(assignee="ada")):
        after = judge(mine, act("delegate", assignee="zoe"), NOW)
        assert (after.assignee, after.claimed_by, after.role) == ("zoe", None, "finance")
        assert after.status is HumanTaskStatus.OPEN
    with pytest.raises(errors.TaskClaimed, match="nothing to delegate"):
        judge(task(), act("delegate", assignee="zoe"), NOW)
    with pytest.raises(errors.TaskClaimed, match="claimed by 'grace'"):
        judge(held("grace"), act("delegate", assignee="zoe"), NOW)
    with pytest.raises(errors.TaskDenied, match="assigned to 'grace'"):
        judge(task(assignee="grace"), act("delegate", assignee="zoe"), NOW)


@pytest.mark.parametrize("verb", ["complete", "reject"])
def test_a_stale_claimer_cannot_submit_and_others_can(verb: str):
    stale = held(until=NOW)
    with pytest.raises(errors.TaskClaimed, match=f"is over.*claim it again to {verb} it"):
        judge(stale, act(verb), NOW)
    assert judge(stale, act(verb, by="grace"), NOW).closed_by == "grace"
    again = judge(stale, act("claim"), NOW)
    assert judge(again, act(verb), NOW).closed_by == "ada"


def test_it_is_escalated_to_a_role_by_hand_and_skips_the_steps_before_it():
    one = held()
    one.chain, one.next_at = (("lead", NOW + 1), ("director", NOW + 2), ("board", NOW + 3)), NOW + 1
    after = judge(one, act("escalate", "grace", role="director"), NOW)
    assert (after.role, after.claimed_by, after.chain) == ("director", None, one.chain[2:])
    assert after.next_at == NOW + 3
    assert judge(one, act("escalate", "grace"), NOW).role == "lead"
    elsewhere = judge(one, act("escalate", "grace", role="legal"), NOW)
    assert (elsewhere.role, elsewhere.chain) == ("legal", one.chain)
    with pytest.raises(errors.Invalid, match="no role that it goes to next"):
        judge(task(), act("escalate"), NOW)


def test_a_comment_changes_nothing_and_nothing_is_said_after_the_end():
    one = held("grace")
    assert judge(one, act("comment", comment="hm"), NOW) is one
    with pytest.raises(errors.TaskClosed):
        judge(judge(one, act("cancel"), NOW), act("comment", comment="hm"), NOW)
