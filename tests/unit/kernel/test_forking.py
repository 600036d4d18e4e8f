"""A copied history is the code's own from where the copy ends: its name, its chance, its keys."""

from __future__ import annotations

from typing import Any

from tests.unit.drive import Run

from perdure import workflow
from perdure.kernel.entropy import digest, idempotency_key
from perdure.values import events as ev

NEW = b"the copy's seed."


def mark(**fields: Any) -> ev.Forked:
    named = {"workflow_id": "copy", "run_id": "run-of-copy", **fields}
    return ev.Forked(seed=NEW, origin="order-7", **named)


@workflow.define
async def steps() -> list[Any]:
    got: list[Any] = [workflow.random()]
    await workflow.call("a", 1)
    got.append(workflow.info().workflow_id)
    await workflow.call("b", 2)
    return [*got, workflow.random(), workflow.info().run_id]


def test_code_learns_the_new_name_only_after_the_copy():
    run = Run(steps)
    run.complete("a")
    run.blind(mark())
    run.complete("b")
    assert run.result[1] == "order-7"
    assert run.result[3] == "run-of-copy"


def test_a_fork_gives_open_calls_new_keys_and_a_retry_does_not():
    forked, retried = Run(steps), Run(steps)
    key = forked.instance.idempotency_key(2)
    forked.turn(mark())
    retried.turn(mark(keeps_chance=True))
    assert forked.instance.idempotency_key(2) == idempotency_key(NEW, 2)
    assert retried.instance.idempotency_key(2) == key


def test_a_retry_draws_on_and_a_fork_draws_anew():
    plain, forked, retried = Run(steps), Run(steps), Run(steps)
    forked.turn(mark())
    retried.turn(mark(keeps_chance=True))
    for run in (plain, forked, retried):
        run.complete("a")
        run.complete("b")
    assert retried.result[:3:2] == plain.result[:3:2]
    assert forked.result[2] != plain.result[2]


def test_a_call_made_again_has_the_key_that_was_kept_for_it_once():
    kept = ev.KeptKey("b", digest(b"[2]"), "the key of before")
    run = Run(steps)
    run.turn(mark(keeps_chance=True, keys=(kept, ev.KeptKey("b", digest(b"[3]"), "another"))))
    run.complete("a")
    [number] = run.open("b")
    assert run.instance.idempotency_key(number) == "the key of before"
    assert run.replayed().idempotency_key(number) == "the key of before"


def test_a_call_with_other_arguments_gets_a_new_key():
    run = Run(steps)
    run.turn(mark(keeps_chance=True, keys=(ev.KeptKey("b", digest(b"[3]"), "another"),)))
    run.complete("a")
    [number] = run.open("b")
    assert run.instance.idempotency_key(number) == idempotency_key(NEW, number)


def test_deadlines_and_parent_are_those_of_the_mark():
    parent = ev.Parent(1, "above", "r", 3)
    run = Run(steps, parent=parent, run_deadline=5, execution_deadline=6)
    run.turn(mark(run_deadline=70))
    assert run.instance.started is not None
    assert run.instance.started.deadline == (70, "run")
    assert run.instance.started.parent is None
    kept = Run(steps, parent=parent)
    kept.turn(mark(keeps_parent=True))
    assert kept.instance.started is not None
    assert kept.instance.started.parent == parent


def test_a_cancels_deadline_was_the_other_runs():
    @workflow.define
    async def stubborn() -> None:
        try:
            await workflow.call("a")
        finally:
            await workflow.call("b")

    run = Run(stubborn)
    run.turn(ev.CancelRequested(deadline=99))
    run.turn(mark())
    assert run.instance.cancel is not None
    assert run.instance.cancel.deadline == 0


def test_what_the_first_worker_of_a_copy_runs_is_what_it_began_under():
    run = Run(steps, code="old")
    run.turn(mark(), ev.RunTaken(code="at hand"))
    assert run.instance.code == "at hand"
