"""A run sees its own context and nothing of its surroundings (R2)."""

import asyncio
import contextvars
import decimal
import sys

import pytest
from tests.unit.drive import Run

from perdure import errors, workflow
from perdure.workflow import call

VAR: contextvars.ContextVar[str] = contextvars.ContextVar("VAR", default="unset")


@workflow.define
async def look():
    before = VAR.get()
    VAR.set("by workflow")
    third = str(decimal.Decimal(1) / decimal.Decimal(3))
    decimal.getcontext().prec = 3
    await call("a")
    return [before, third, VAR.get(), str(decimal.Decimal(1) / decimal.Decimal(3))]


def test_context_variables_of_the_caller_are_not_seen_nor_changed():
    VAR.set("by caller")
    run = Run(look)
    run.complete("a")
    assert run.result[0] == "unset"
    assert VAR.get() == "by caller"


def test_decimal_precision_of_the_caller_is_not_seen_nor_changed():
    with decimal.localcontext(prec=5):
        run = Run(look)
        assert decimal.getcontext().prec == 5
        run.complete("a")
        assert run.result[1] == "0." + "3" * 28
        assert decimal.getcontext().prec == 5


def test_what_the_workflow_set_is_there_in_its_next_turn():
    run = Run(look)
    with decimal.localcontext(prec=7):
        VAR.set("changed outside")
        run.complete("a")
    assert run.result[2:] == ["by workflow", "0.333"]


def test_two_runs_do_not_see_each_other():
    @workflow.define
    async def wf(name: str):
        VAR.set(name)
        await call("a")
        return VAR.get()

    one, two = Run(wf, "one"), Run(wf, "two")
    two.complete("a")
    one.complete("a")
    assert [one.result, two.result] == ["one", "two"]


def test_a_task_inherits_the_context_and_keeps_its_changes_to_itself():
    @workflow.define
    async def wf():
        VAR.set("main")

        async def beside():
            seen = VAR.get()
            VAR.set("beside")
            return seen

        return [await asyncio.create_task(beside()), VAR.get()]

    assert Run(wf).result == ["main", "main"]


def test_a_task_can_be_given_a_context():
    @workflow.define
    async def wf():
        async def beside():
            return VAR.get()

        context = contextvars.Context()
        VAR.set("main")
        return await asyncio.create_task(beside(), context=context)

    assert Run(wf).result == "unset"


def test_the_loop_the_hooks_and_the_mode_are_given_back_after_a_turn():
    async def outside():
        loop, hooks = asyncio.get_running_loop(), sys.get_asyncgen_hooks()
        run = Run(look)
        assert asyncio.get_running_loop() is loop
        assert sys.get_asyncgen_hooks() == hooks
        with pytest.raises(errors.UsageError):
            workflow.now()
        run.complete("a")
        assert asyncio.get_running_loop() is loop

    asyncio.run(outside())


def test_they_are_given_back_after_a_turn_that_raised():
    @workflow.define
    async def wf():
        raise SystemExit(3)

    hooks = sys.get_asyncgen_hooks()
    with pytest.raises(SystemExit):
        Run(wf)
    assert sys.get_asyncgen_hooks() == hooks
    assert asyncio._get_running_loop() is None


def test_eager_task_factories_of_the_real_loop_do_not_apply():
    if sys.version_info < (3, 12):
        pytest.skip("there are none before 3.12")

    @workflow.define
    async def wf():
        order = []

        async def beside():
            order.append("task")

        task = asyncio.create_task(beside())
        order.append("main")
        await task
        return order

    async def outside():
        asyncio.get_running_loop().set_task_factory(vars(asyncio)["eager_task_factory"])
        return Run(wf).result

    assert asyncio.run(outside()) == ["main", "task"]


def test_a_result_is_decoded_by_its_annotation_so_that_nothing_is_shared_with_the_caller():
    @workflow.define
    async def wf():
        first = await call("a")
        first.append("changed")
        await call("b")
        return first

    run = Run(wf)
    given = ["given"]
    run.complete("a", given)
    run.complete("b")
    assert run.result == ["given", "changed"]
    assert given == ["given"]
