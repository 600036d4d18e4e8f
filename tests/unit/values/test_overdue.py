"""What the clock does to human tasks."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.values.test_people import act, held, task

from perdure.values.overdue import tick
from perdure.values.people import HumanTaskRow, HumanTaskStatus, judge

EXPIRED = HumanTaskStatus.EXPIRED


def alone(**fields: Any) -> HumanTaskRow:
    return task(run=None, execution=None, event=None, **fields)


def verbs(entries: Any) -> list[str]:
    return [one.verb for one in entries]


def test_nothing_happens_before_its_time_or_after_the_end():
    one = task(chain=(("lead", 50),), next_at=50)
    assert tick(one, 49) == (one, ())
    done = judge(one, act("complete", value=b"1"), 40)
    assert done.next_at is None
    assert tick(done, 50) == (done, ())


def test_it_goes_to_the_next_role_and_nobody_has_it_in_particular():
    one = held()
    one.assignee, one.chain, one.next_at = "ada", (("lead", 50), ("director", 90)), 50
    after, entries = tick(one, 50)
    assert (after.role, after.assignee, after.claimed_by) == ("lead", None, None)
    assert after.claimed_until is after.claimed_at is None
    assert (after.status, after.chain, after.next_at) == (
        HumanTaskStatus.OPEN,
        (("director", 90),),
        90,
    )
    assert [(it.verb, it.by, it.data) for it in entries] == [
        ("escalated", "", {"from": "finance", "role": "lead"})
    ]


def test_after_a_pause_of_all_workers_each_step_is_told_and_the_last_one_counts():
    one = task(chain=(("lead", 50), ("director", 90)), next_at=50)
    after, entries = tick(one, 1_000)
    assert (after.role, after.chain, after.next_at) == ("director", (), None)
    assert [it.data["role"] for it in entries] == ["lead", "director"]


def test_one_that_no_run_asks_for_is_reminded_of_once_and_expires():
    one = alone(remind_at=30, due_at=60, next_at=30, assignee="ada")
    after, entries = tick(one, 35)
    assert (verbs(entries), after.next_at, after.status) == (["reminded"], 60, one.status)
    again, entries = tick(after, 60)
    assert (verbs(entries), again.status, again.closed_at) == (["expired"], EXPIRED, 60)
    assert again.closed_by is None
    assert again.next_at is None


def test_a_reminder_that_is_over_does_not_come_again_when_the_rest_changes():
    one = alone(remind_at=30, due_at=90, chain=(("lead", 60),), next_at=30)
    after, _ = tick(one, 30)
    moved = judge(after, act("escalate", role="lead"), 40)
    assert (moved.chain, moved.next_at) == ((), 90)


def test_one_that_was_escalated_by_hand_is_still_reminded_of():
    one = alone(remind_at=30, due_at=90, chain=(("lead", 60),), next_at=30)
    moved = judge(one, act("escalate"), 10)
    assert (moved.role, moved.next_at) == ("lead", 30)


def test_a_run_keeps_the_time_of_what_it_asked_for():
    one = task(remind_at=30, due_at=60, chain=(("lead", 50),), next_at=50)
    after, entries = tick(one, 70)
    assert (verbs(entries), after.status, after.next_at) == (["escalated"], one.status, None)


@pytest.mark.parametrize("is_alone", [True, False])
def test_what_would_come_after_the_end_does_not(is_alone: bool):
    fields: dict[str, Any] = {"due_at": 60, "chain": (("lead", 60),), "next_at": 60}
    one = alone(**fields) if is_alone else task(**fields)
    after, entries = tick(one, 60)
    assert verbs(entries) == (["expired"] if is_alone else [])
    assert after.role == "finance"
    assert after.next_at is None


def test_one_that_never_expires_is_told_of_when_it_is_due_and_stays():
    one = alone(due_at=60, expires_at=0, next_at=60)
    after, entries = tick(one, 60)
    assert (verbs(entries), after.status, after.next_at) == (["overdue"], one.status, None)
    assert tick(after, 1_000) == (after, ())
    assert after.is_overdue(61)


def test_one_may_expire_later_than_it_is_due():
    one = alone(due_at=60, expires_at=90, remind_at=30, next_at=30)
    after, entries = tick(one, 70)
    assert (verbs(entries), after.next_at) == (["reminded", "overdue"], 90)
    assert verbs(tick(after, 90)[1]) == ["expired"]


@pytest.mark.parametrize("is_alone", [True, False])
def test_what_does_not_end_when_it_is_due_goes_to_roles_after_that(is_alone: bool):
    fields: dict[str, Any] = {"due_at": 40, "expires_at": 90, "next_at": 40 if is_alone else 60}
    fields["chain"] = (("lead", 60), ("director", 90))
    one = alone(**fields) if is_alone else task(**fields)
    after, entries = tick(one, 75)
    assert (after.role, after.next_at) == ("lead", 90)
    assert verbs(entries) == (["escalated", "overdue"] if is_alone else ["escalated"])
    after, _ = tick(after, 95)
    assert after.role == "lead", "the end comes first"
