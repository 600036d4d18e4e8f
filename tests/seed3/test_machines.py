"""Step machines as the page of seed 3 means them: its examples, step by step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.engine.support import engine_on, events_of

from perdure import ApplicationError, Retry, activity
from perdure.errors import DefinitionError, Invalid, WorkflowFailed
from perdure.graph import branch, flow

done: list[Any] = []


@pytest.fixture(autouse=True)
def _clean():
    done.clear()


@dataclass
class Order:
    order_id: str
    in_stock: bool = True


@dataclass
class Validated:
    valid: bool
    in_stock: bool
    total: int


async def validate(order: Order, ctx: Any) -> dict[str, Any]:
    return {"valid": True, "in_stock": order.in_stock, "total": 5, "order_id": order.order_id}


async def ship(input: dict[str, Any], ctx: Any) -> dict[str, Any]:
    done.append(("ship", input))
    return {"shipped": input["order_id"]}


async def notify(input: dict[str, Any]) -> dict[str, Any]:
    done.append(("notify", input))
    return {"sent": True}


async def backorder(input: dict[str, Any]) -> dict[str, Any]:
    return {"backorder": input}


def order_flow() -> Any:
    return (
        flow("process-order", input=Order)
        .task("validate", validate, output=Validated)
        .choice(
            "check-inventory",
            [(lambda c: c.steps["validate"]["in_stock"], "fulfill")],
            default="backorder",
        )
        .parallel(
            "fulfill",
            [
                branch("shipping").task(
                    "ship", ship, input=lambda prev, _: {"order_id": prev["order_id"]}
                ),
                branch("notification").task(
                    "notify",
                    notify,
                    input=lambda prev, order: {"order_id": order.order_id, "total": prev["total"]},
                ),
            ],
            next="complete",
        )
        .task(
            "backorder",
            backorder,
            input=lambda prev, _: {"order_id": prev["order_id"], "total": prev["total"]},
            next="complete",
        )
        .pass_("complete", end=True)
        .build()
    )


async def test_quick_start_fulfils_an_order_in_two_branches(tmp_path: Path):
    order = order_flow()
    async with engine_on(tmp_path, order) as engine:
        result = await engine.client.execute(order, Order("A-1"))
    assert result == {"shipping": {"shipped": "A-1"}, "notification": {"sent": True}}
    assert sorted(done) == [
        ("notify", {"order_id": "A-1", "total": 5}),
        ("ship", {"order_id": "A-1"}),
    ]


async def test_quick_start_backorders_with_the_output_before_the_choice(tmp_path: Path):
    order = order_flow()
    async with engine_on(tmp_path, order) as engine:
        result = await engine.client.execute(
            "process-order", {"order_id": "A-2", "in_stock": False}
        )
        with pytest.raises(Invalid, match="order_id"):
            await engine.client.start(order, {"in_stock": True})
    assert result == {"backorder": {"order_id": "A-2", "total": 5}}


async def test_the_loop_example_counts_to_three(tmp_path: Path):
    async def increment(input: Any) -> dict[str, int]:
        return {"count": (input or {}).get("count", 0) + 1}

    counting = (
        flow("counting")
        .task("increment", increment)
        .loop(
            "repeat",
            condition=lambda c: c.steps["increment"]["count"] < 3,
            target="increment",
            interval="1ms",
            max_iterations=10,
            timeout="30s",
        )
        .build()
    )
    async with engine_on(tmp_path, counting) as engine:
        assert await engine.client.execute(counting) == {"count": 3}


async def test_a_loop_that_never_ends_fails_at_its_bound_with_its_name(tmp_path: Path):
    endless = (
        flow("endless")
        .task("look", lambda: {"again": True})
        .loop("again", condition=lambda _: True, target="look", max_iterations=3)
        .build()
    )
    async with engine_on(tmp_path, endless) as engine:
        handle = await engine.client.start(endless)
        with pytest.raises(WorkflowFailed, match=r'Step "again" failed: .*maxIterations \(3\)'):
            await handle.result("20s")
        assert len(await events_of(handle, "activity_scheduled")) == 4


async def test_a_poll_asks_after_each_interval_until_it_is_done(tmp_path: Path):
    async def check(input: Any, ctx: Any) -> dict[str, Any]:
        done.append(input)
        return {"done": len(done) == 3, "result": {"after": len(done)}}

    waiting = flow("batch.status").poll("wait", check, interval="1ms", max_attempts=5).build()
    hopeless = flow("hopeless").poll("wait", check, interval="1ms", max_attempts=2).build()
    async with engine_on(tmp_path, waiting, hopeless) as engine:
        assert await engine.client.execute(waiting, {"id": 7}) == {"after": 3}
        assert done == [{"id": 7}] * 3
        with pytest.raises(WorkflowFailed, match=r"exceeded maxAttempts \(2\)"):
            await engine.client.execute(hopeless)


async def test_metadata_is_merged_key_by_key_and_seen_by_later_steps(tmp_path: Path):
    async def one(_: Any, ctx: Any) -> None:
        await ctx.set_metadata("one", {"deep": 1})

    async def two(_: Any, ctx: Any) -> None:
        await ctx.set_metadata("two", 2)

    async def last(_: Any, ctx: Any) -> Any:
        with pytest.raises(TypeError):
            ctx.metadata["three"] = 3
        return {**ctx.metadata, "missing": ctx.get_metadata("three", "no")}

    both = (
        flow("both")
        .parallel("set", [branch("a").task("one", one), branch("b").task("two", two)])
        .task("last", last)
        .build()
    )
    async with engine_on(tmp_path, both) as engine:
        result = await engine.client.execute(both)
    assert result == {"one": {"deep": 1}, "two": 2, "missing": "no"}


async def test_what_a_failed_attempt_has_set_is_forgotten(tmp_path: Path):
    async def shaky(_: Any, ctx: Any) -> Any:
        await ctx.set_metadata(f"attempt {activity.info().attempt}", True)
        if activity.info().attempt < 3:
            raise ApplicationError("not yet", kind="Busy")
        return dict(ctx.metadata)

    retried = (
        flow("retried")
        .default_retry(Retry(max_attempts=3, interval="1ms"))
        .task("shaky", shaky)
        .build()
    )
    async with engine_on(tmp_path, retried) as engine:
        assert await engine.client.execute(retried) == {"attempt 3": True}


async def test_a_step_has_one_attempt_unless_it_says_otherwise_and_retry_on_is_heeded(
    tmp_path: Path,
):
    def fails() -> None:
        done.append("once")
        raise ApplicationError("no luck", kind="Luck")

    once = flow("once").task("try", fails).build()
    other = (
        flow("other")
        .task("try", fails, retry=Retry(max_attempts=3, interval="1ms", retry_on=["Busy"]))
        .build()
    )
    async with engine_on(tmp_path, once, other) as engine:
        with pytest.raises(WorkflowFailed, match='Step "try" failed: no luck') as caught:
            await engine.client.execute(once)
        assert caught.value.kind == "Luck"
        with pytest.raises(WorkflowFailed):
            await engine.client.execute(other)
    assert done == ["once", "once"]


async def test_fail_fast_cancels_the_other_branches_and_wait_all_tells_of_all(tmp_path: Path):
    async def bad(_: Any) -> None:
        raise ApplicationError("bad", kind="Bad")

    async def worse(_: Any) -> None:
        raise ApplicationError("worse", kind="Worse")

    slow = branch("slow").wait("nap", "1h").task("late", notify)
    fast = flow("fast").parallel("p", [slow, branch("b").task("bad", bad)]).build()
    all_ = (
        flow("all")
        .parallel(
            "p",
            [branch("b").task("bad", bad), branch("w").task("worse", worse)],
            on_error="wait-all",
        )
        .build()
    )
    async with engine_on(tmp_path, fast, all_) as engine:
        handle = await engine.client.start(fast)
        with pytest.raises(WorkflowFailed, match="bad"):
            await handle.result("20s")
        assert len(await events_of(handle, "timer_cancelled")) == 1
        with pytest.raises(WorkflowFailed, match=r"Parallel branches failed: .*bad.*, .*worse"):
            await engine.client.execute(all_)
    assert done == []


async def test_a_job_runs_the_activity_of_its_name_between_two_mappers(tmp_path: Path):
    @activity.define(name="my-job-name")
    async def job(data: dict[str, Any]) -> dict[str, Any]:
        return {"data": data}

    legacy = (
        flow("example")
        .task(
            "step-name",
            job="my-job-name",
            input=lambda ctx: {"order": ctx.input["id"]},
            output=lambda result, ctx: {"processed": True, **result},
        )
        .build()
    )
    async with engine_on(tmp_path, legacy, job) as engine:
        result = await engine.client.execute(legacy, {"id": 7})
    assert result == {"processed": True, "data": {"order": 7}}


async def test_map_runs_a_branch_per_item_and_subflow_a_child(tmp_path: Path):
    async def double(n: int) -> int:
        return 2 * n

    child = flow("child").task("double", double).build()
    parent = (
        flow("parent")
        .pass_("items", result=[1, 2, 3])
        .map(
            "each", branch("item").task("double", double).subflow("again", child), max_concurrent=2
        )
        .build()
    )
    async with engine_on(tmp_path, parent, child) as engine:
        assert await engine.client.execute(parent) == [4, 8, 12]


async def test_services_reach_handlers_and_nothing_else(tmp_path: Path):
    async def uses(_: Any, ctx: Any) -> Any:
        return [ctx.services["mail"]("a"), ctx.plugins["mail"]("b")]

    fine = flow("fine").task("uses", uses).build()
    wrong = flow("wrong").pass_("peeks", transform=lambda ctx: ctx.services).build()
    services = {"mail": lambda to: f"mailed {to}"}
    async with engine_on(tmp_path, fine, wrong, services=services) as engine:
        assert await engine.client.execute(fine) == ["mailed a", "mailed b"]
        with pytest.raises(WorkflowFailed, match=r"ctx\.services is for handlers"):
            await engine.client.execute(wrong)


async def test_progress_ends_at_a_hundred_though_a_branch_was_not_taken(tmp_path: Path):
    order = order_flow()
    async with engine_on(tmp_path, order) as engine:
        handle = await engine.client.start(order, Order("A-1"))
        await handle.result("20s")
        told = [
            event.data["progress"]
            async for event in engine.client.events("workflow.progress", follow=False)
        ]
        shown = (await handle.describe()).progress
    assert told == [20, 40, 80, 100]
    assert shown == {"done": 100, "total": 100, "note": "complete"}


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: flow("f"), "at least one step"),
        (lambda: flow("f").task("a", notify, next="b0").task("b", notify), "did you mean 'b'"),
        (lambda: flow("f").task("a", notify).task("a", ship), "more than one step is named 'a'"),
        (lambda: flow("f").task("a", notify, end=True).task("b", notify), "'b' is unreachable"),
        (
            lambda: flow("f").task("a", notify).loop("l", lambda _: True, "a"),
            "'l': a loop needs a bound",
        ),
        (
            lambda: flow("f").task("a", notify).task("b", notify, next="a"),
            "'a', 'b' go round for ever",
        ),
        (lambda: flow("f").choice("c", [(lambda _: True, "nowhere")]), "leads to 'nowhere'"),
        (lambda: flow("f").parallel("p", []), "needs branches"),
        (
            lambda: flow("f").parallel("p", [branch("x").task("a", notify, next="z")]),
            "branch 'x': Step 'a': it leads to 'z', which is no step",
        ),
        (lambda: flow("f").task("a", notify, next="b", end=True), "exclude each other"),
        (lambda: flow("f").task("a"), "give a handler, or job="),
        (lambda: flow("f").choice("c", ["a"]), "a choice is"),
        (lambda: flow("f").task("a", lambda a, b, c: None), "not 3 arguments"),
    ],
)
def test_mistakes_are_found_when_it_is_built_with_their_place(build: Any, says: str):
    with pytest.raises(DefinitionError, match=says):
        build().build()


@pytest.mark.parametrize(
    ("set_it", "says"),
    [
        (lambda ctx: ctx.set_metadata("total", object()), "metadata 'total': cannot be encoded"),
        (lambda ctx: ctx.set_metadata(5, 1), "metadata: 5 is not text"),
        (lambda ctx: ctx.emit("paid", object()), "data of event 'paid': cannot be encoded"),
        (lambda ctx: ctx.emit(5), "event: 5 is not text"),
    ],
)
async def test_what_cannot_be_kept_is_refused_where_a_handler_sets_it(
    tmp_path: Path, set_it: Any, says: str
):
    async def sets(_: Any, ctx: Any) -> str:
        with pytest.raises(Invalid, match=says):
            await set_it(ctx)
        return "refused"

    made = flow("f").task("sets", sets).build()
    async with engine_on(tmp_path, made) as engine:
        assert await engine.client.execute(made) == "refused"


async def test_a_value_of_data_without_a_form_fails_its_step_and_is_not_called_its_output(
    tmp_path: Path,
):
    made = flow("f").task("sets", lambda _, ctx: ctx.set("total", object())).build()
    async with engine_on(tmp_path, made) as engine:
        with pytest.raises(WorkflowFailed, match="step 'sets': its output, or what it has set of"):
            await engine.client.execute(made)
