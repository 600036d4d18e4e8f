"""Whatever people and the clock do to a human task, in any order: it stays in the table, and nobody
has done what they may not. Each step is judged once more here, by rules said in another way.
"""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import msgspec
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.unit.values.test_people import TASK

from perdure import errors
from perdure.values.overdue import tick
from perdure.values.people import (
    TRANSITIONS,
    VERBS,
    Act,
    HumanTaskRow,
    HumanTaskStatus,
    entry,
    judge,
)
from perdure.values.principals import Grant, Principal, Reach
from perdure.values.reach import readable, writable

OPEN, CLAIMED = HumanTaskStatus.OPEN, HumanTaskStatus.CLAIMED
NAMES = ["ada", "bob", "cyd"]
ROLES = ["finance", "lead", "board"]
people = st.sampled_from(NAMES)
roles = st.sampled_from(ROLES)
reaches = st.sampled_from(list(Reach))
grants = st.builds(Grant, role=roles, read=reaches, write=reaches)
principals = st.builds(
    Principal,
    id=people,
    roles=st.lists(grants | st.sampled_from([*ROLES, "admin"]), max_size=3),
    tenant=st.sampled_from(["", "", "acme", "other"]),
    initiated_by=st.sampled_from(["", "", *NAMES]),
)
acts = st.builds(
    Act,
    id=st.just("t"),
    verb=st.sampled_from(sorted(VERBS)),
    by=people,
    value=st.just(b"1"),
    comment=st.sampled_from(["", "hm"]),
    assignee=people,
    role=st.none() | roles,
    who=st.none() | principals,
    is_bulk=st.booleans(),
)
chains = st.lists(st.tuples(roles, st.integers(1, 60)), max_size=3).map(
    lambda steps: tuple(sorted(steps, key=lambda step: step[1]))
)


class Life(RuleBasedStateMachine):
    """One human task; ``now`` only grows."""

    @initialize(
        chain=chains,
        due=st.none() | st.integers(1, 80),
        expires=st.none() | st.integers(0, 80),
        remind=st.none() | st.integers(1, 80),
        approvers=st.integers(1, 3),
        not_by=st.sets(people, max_size=1),
        assignee=st.none() | people,
        is_alone=st.booleans(),
    )
    def begin(
        self,
        *,
        chain: Any,
        due: int | None,
        expires: int | None,
        remind: int | None,
        approvers: int,
        not_by: set[str],
        assignee: str | None,
        is_alone: bool,
    ) -> None:
        self.now = 0
        number = None if is_alone else 1
        times = [at for _, at in chain[:1]]
        ends = due if expires is None else expires or None
        times += [at for at in (due, remind, ends) if is_alone and at is not None]
        self.task = msgspec.structs.replace(
            TASK,
            run=number,
            execution=number,
            event=number,
            assignee=assignee,
            created_at=0,
            due_at=due,
            expires_at=expires,
            remind_at=remind,
            approvers=approvers,
            not_by=tuple(not_by),
            chain=chain,
            next_at=min(times, default=None),
            tenant="acme",
        )
        self.reminders = self.overdue = 0

    @rule(act=acts, span=st.integers(1, 20))
    def somebody_acts(self, act: Act, span: int) -> None:
        if act.who is not None:
            act.by = act.who.id
        act.until = self.now + span
        before = msgspec.structs.replace(self.task)
        try:
            after = judge(self.task, act, self.now)
        except errors.PerdureError as error:
            assert self.task == before
            self.is_refused_rightly(act, error)
            return
        assert self.task == before, "judge changed what it was given"
        self.was_allowed(before, act, after)
        assert entry(before, act, after, self.now).by == act.by
        self.task = after

    @rule(span=st.integers(0, 30))
    def time_passes(self, span: int) -> None:
        self.now += span

    @rule()
    def the_clock_looks(self) -> None:
        before = msgspec.structs.replace(self.task)
        after, told = tick(self.task, self.now)
        assert self.task == before
        verbs = [one.verb for one in told]
        self.reminders += verbs.count("reminded")
        self.overdue += verbs.count("overdue")
        assert max(self.reminders, self.overdue) <= 1
        assert "expired" not in verbs or (before.ends_at or 99) <= self.now
        assert "overdue" not in verbs or before.is_overdue(self.now + 1)
        assert after.status in {before.status, *TRANSITIONS[before.status]}
        if after.status is not before.status:
            assert after.status in (OPEN, HumanTaskStatus.EXPIRED)
        assert after.next_at is None or after.next_at > self.now
        assert tick(after, self.now) == (after, ())
        self.task = after

    @invariant()
    def it_is_whole(self) -> None:
        task = self.task
        claim = [task.claimed_by, task.claimed_at, task.claimed_until]
        assert all(it is not None for it in claim) == (task.status is CLAIMED)
        assert any(it is not None for it in claim) == (task.status is CLAIMED)
        assert (task.closed_at is not None) == (not task.status.is_open)
        if not task.status.is_open:
            assert task.next_at is None
        done = len({one.person or one.by for one in task.approvals})
        assert done == len(task.approvals) <= task.approvers
        if task.approvers > 1 and task.status is HumanTaskStatus.COMPLETED:
            assert done == task.approvers
        people = {name for one in task.approvals for name in (one.by, one.person)}
        assert not people & set(task.not_by)
        if task.claimed_by is not None:
            assert task.claimed_by not in task.not_by
            assert task.assignee in (None, task.claimed_by)

    def was_allowed(self, before: HumanTaskRow, act: Act, after: HumanTaskRow) -> None:
        assert before.status.is_open
        assert after.status in {before.status, *TRANSITIONS[before.status]}
        is_live = before.claimed_until is not None and before.claimed_until > self.now
        if VERBS[act.verb].by_holder:
            assert not is_live or before.claimed_by == act.by
            assert before.assignee in (None, act.by)
        if act.verb in ("complete", "reject"):
            assert is_live or before.claimed_by != act.by, "a stale claimer has submitted"
        if act.who is not None:
            assert readable(act.who).sees(before, self.now)
            assert writable(act.who).sees(before, self.now)
            if act.is_bulk or act.verb in ("release", "escalate", "reassign"):
                assert writable(act.who).covers(before)
        if act.verb not in ("escalate", "reassign"):
            assert after.role == before.role

    def is_refused_rightly(self, act: Act, error: errors.PerdureError) -> None:
        """A refusal says no more than whoever acts may know."""
        is_unseen = act.who is not None and not readable(act.who).sees(self.task, self.now)
        assert isinstance(error, errors.TaskNotFound) == is_unseen
        if isinstance(error, errors.TaskClosed):
            assert not self.task.status.is_open
        if isinstance(error, errors.Invalid):
            assert act.verb == "escalate"


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=150, stateful_step_count=30)
