"""Human tasks in the kernel: asked for, decided, expired, given up; and replayed alike."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest
from tests.unit.drive import NOON, SECOND, Run

from perdure import errors, human, workflow
from perdure.values import events as ev
from perdure.values import payload

HOUR = 3_600 * SECOND


@dataclass
class Approval:
    approved: bool


@workflow.define
async def asking(options: dict[str, Any]) -> list[Any]:
    got = await human.request("Refund?", form=Approval, **options)
    value = got.value.approved if got.is_completed else None
    return [got.outcome, value, got.by, got.comment, got.at.isoformat()]


def decided(run: Run, value: Any = None, **fields: Any) -> ev.HumanTaskDecided:
    """Return the decision of the oldest human task that is open."""
    fields.setdefault("outcome", "completed")
    return ev.HumanTaskDecided(
        opened=next(iter(run.instance.human_tasks)),
        value=payload.encode(value),
        at=run.time,
        asked_by=run.started.run_id,
        **fields,
    )


def test_what_is_asked_stands_in_the_command():
    run = Run(asking, {"role": "finance", "due": "2h", "remind": "1h", "data": [1], "name": "ok"})
    asked, due, remind = run.commands
    assert (asked.title, asked.name, asked.role, asked.data) == ("Refund?", "ok", "finance", b"[1]")
    assert payload.decode(asked.form)["$ref"] == "#/$defs/Approval"
    assert (asked.due, asked.remind) == (NOON + 2 * HOUR, NOON + HOUR)
    assert (due.due, remind.due) == (asked.due, asked.remind)
    assert run.instance.waits().people == [("Refund?", "finance", None, asked.due)]


def test_ids_are_uuids_that_cannot_be_guessed_and_replay_alike():
    first, second = Run(asking, {}), Run(asking, {}, seed=bytes(16))
    ids = [run.commands[0].id for run in (first, second)]
    assert ids[0] != ids[1]
    assert all(len(id) == 36 and id[14] == "7" for id in ids)


def test_a_decision_is_what_the_wait_returns_and_ends_its_timers():
    run = Run(asking, {"due": "2h", "remind": "1h"})
    run.turn(decided(run, {"approved": True}, by="ada", comment="fine"))
    assert run.asked[:2] == ["timer_cancelled #3", "timer_cancelled #4"]
    assert run.result == ["completed", True, "ada", "fine", "2025-06-15T15:06:40+00:00"]


@pytest.mark.parametrize("outcome", ["rejected", "cancelled"])
def test_other_outcomes_have_no_value(outcome: str):
    run = Run(asking, {})
    run.turn(decided(run, {"approved": True}, outcome=outcome, by="ada"))
    assert run.result[:3] == [outcome, None, "ada"]


def test_what_is_due_expires():
    run = Run(asking, {"due": "2h"})
    run.fire()
    assert run.asked[0] == "human_task_closed #2 expired"
    assert run.result[:3] == ["expired", None, ""]


def test_a_decision_in_the_turn_in_which_it_is_due_is_not_too_late():
    run = Run(asking, {"due": "2h"})
    run.time += 2 * HOUR
    run.turn(*run.instance.due_timers(run.time), decided(run, {"approved": False}, by="ada"))
    assert run.asked[0] == "run_completed"
    assert run.result[:3] == ["completed", False, "ada"]


def test_a_decision_that_was_recorded_while_the_run_was_stopped_is_not_too_late():
    run = Run(asking, {"due": "2h"})
    run.blind(ev.RunPaused(), decided(run, {"approved": True}, by="ada"))
    run.time += 3 * HOUR
    run.turn(*run.instance.due_timers(run.time), ev.RunResumed())
    assert run.result[:3] == ["completed", True, "ada"]


def test_a_reminder_is_told_once_and_not_again_by_a_replay():
    run = Run(asking, {"remind": "1h"})
    run.fire()
    [(name, asked)] = run.instance.effects
    assert (name, asked.event.title) == ("workflow.task.reminder", "Refund?")
    assert run.commands == []
    replica = run.replayed()
    assert replica.effects == []
    replica.evict()


def test_a_reminder_in_the_turn_of_the_decision_is_not_told():
    run = Run(asking, {"remind": "1h"})
    run.time += HOUR
    run.turn(*run.instance.due_timers(run.time), decided(run, {"approved": True}))
    assert run.instance.effects == []


def test_a_decision_for_the_run_before_is_not_this_ones():
    run = Run(asking, {})
    run.turn(ev.HumanTaskDecided(opened=2, outcome="rejected", asked_by="another run"))
    assert run.closed is None
    run.turn(decided(run, {"approved": True}))
    assert run.result[0] == "completed"


def test_a_value_that_does_not_fit_the_type_fails_where_it_is_awaited():
    run = Run(asking, {})
    run.turn(decided(run, {"approved": "maybe"}))
    assert run.failure.kind == "Invalid"
    assert "Approval.approved" in run.failure.message


@workflow.define
async def giving_up() -> str:
    try:
        async with asyncio.timeout(60):
            await human.request("Anybody?", due="1h", remind="1m")
    except TimeoutError:
        await workflow.call("note")
    return "gave up"


def test_a_wait_that_is_cancelled_says_so_before_its_timers():
    run = Run(giving_up)
    run.fire()
    assert run.asked[:3] == [
        "human_task_closed #3 cancelled",
        "timer_cancelled #4",
        "timer_cancelled #5",
    ]
    assert run.instance.waits().people == []


def test_a_cancel_of_the_run_gives_it_up():
    run = Run(asking, {"due": "1h"})
    run.cancel()
    assert run.asked[:2] == ["human_task_closed #2 cancelled", "timer_cancelled #3"]


def test_a_decision_and_a_cancel_in_one_turn_leave_nothing_to_give_up():
    run = Run(asking, {})
    run.turn(decided(run, {"approved": True}), ev.CancelRequested(reason="enough"))
    assert run.asked == ["run_cancelled"]


@workflow.define
async def two() -> list[str]:
    async def ask(name: str) -> str:
        return (await human.request(name)).by

    return list(await asyncio.gather(ask("a"), ask("b")))


def test_several_are_open_at_once_and_decided_in_any_order():
    run = Run(two)
    first, second = run.instance.human_tasks
    run.turn(ev.HumanTaskDecided(opened=second, outcome="completed", by="grace"))
    run.turn(ev.HumanTaskDecided(opened=first, outcome="completed", by="ada"))
    assert run.result == ["ada", "grace"]


def test_a_copy_asks_under_ids_of_its_own():
    run, same = Run(asking, {}), Run(asking, {})
    old = run.commands[0].id
    mark = ev.Forked(seed=b"the copy's seed.", origin="o", workflow_id="c", run_id="run-of-copy")
    run.turn(mark)
    same.turn(mark)
    [asked], [again] = run.instance.human_tasks.values(), same.instance.human_tasks.values()
    assert old != asked.id == again.id
    run.cancel()
    assert run.commands[0].id == asked.id


def test_a_query_may_not_ask():
    @workflow.define
    async def wf() -> None:
        @workflow.query("q")
        def q() -> None:
            human.request("Really?").send(None)

        await workflow.sleep(60)

    run = Run(wf)
    with pytest.raises(errors.UsageError, match="query handler or validator"):
        run.query("q")


def test_a_title_may_change_and_a_name_may_not():
    def wf(title: str, name: str) -> Any:
        @workflow.define(name="wf")
        async def made() -> None:
            await human.request(title, name=name)

        return made

    run = Run(wf("Refund?", "refund"))
    run.replayed(wf("Pay it back?", "refund")).evict()
    with pytest.raises(errors.NondeterminismError, match="human_task_opened 'Refund\\?'"):
        run.replayed(wf("Refund?", "another"))


@workflow.define
async def patient(options: dict[str, Any]) -> list[Any]:
    decided = await human.request("Fine?", due="2h", **options)
    return [decided.outcome, decided.value]


def test_what_never_expires_is_told_of_when_it_is_due_and_waits_on():
    run = Run(patient, {"expires": "never"})
    run.fire()
    [(name, asked)] = run.instance.effects
    assert (name, asked.event.title) == ("workflow.task.overdue", "Fine?")
    assert (run.commands, run.closed) == ([], None)
    replica = run.replayed()
    assert replica.effects == []
    replica.evict()
    run.turn(decided(run, True))
    assert run.result == ["completed", True]


def test_what_expires_later_than_it_is_due_is_told_of_first():
    run = Run(patient, {"expires": "3h"})
    run.fire()
    assert [name for name, _ in run.instance.effects] == ["workflow.task.overdue"]
    run.fire()
    assert run.result == ["expired", None]


def test_what_expires_when_it_is_due_has_one_timer_as_without_saying_so():
    run = Run(patient, {"expires": "2h"})
    assert len(run.instance.timers) == 1
    run.fire()
    assert run.result == ["expired", None]


@pytest.mark.parametrize("expires", ["1h", "soon"])
def test_what_would_be_over_before_it_is_due_is_refused(expires: str):
    run = Run(patient, {"expires": expires})
    assert run.failure.message.startswith("expires: ")
