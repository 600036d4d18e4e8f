"""What the page leaves open, as this engine settles it: attempts, polls, loops, kills, choices."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from tests.engine.support import engine_on, events_of, until

from perdure import ApplicationError, Retry, Status, workflow
from perdure.activity import Activity
from perdure.errors import Invalid, NotFound, WorkflowFailed
from perdure.graph import BaseMachineStep, branch, flow
from perdure.handle import Handle
from perdure.testing.simulator import SimulatedWorker, Simulation

done: list[Any] = []
Story = Callable[[Simulation, SimulatedWorker], Coroutine[Any, Any, None]]


@pytest.fixture(autouse=True)
def _clean():
    done.clear()


def play(story: Story, *definitions: Any) -> None:
    """Run a story with a worker, in virtual time."""

    async def begin(sim: Simulation) -> None:
        worker = sim.worker("a", list(definitions))
        await worker.start()
        await worker.spawn(story(sim, worker))

    with Simulation(seed=1, limit_seconds=50_000) as sim:
        sim.run(begin(sim))


# -- the page's complete example -----------------------------------------------------------------


@dataclass
class SignUp:
    email: str
    name: str
    plan: Literal["free", "pro", "enterprise"]


class Users:
    async def create(self, email: str, name: str) -> str:
        return f"user of {name}"

    async def send(self, to: str, template: str, user_id: str) -> None:
        done.append((to, template, user_id))


async def create_account(input: SignUp, ctx: Any) -> dict[str, str]:
    return {"userId": await ctx.plugins["users"].create(input.email, input.name)}


async def send_welcome_email(input: dict[str, str], ctx: Any) -> dict[str, bool]:
    await ctx.plugins["users"].send(input["to"], input["template"], input["userId"])
    return {"sent": True}


async def set_up(_: Any, ctx: Any) -> dict[str, str]:
    return {"setup": ctx.input.plan, "userId": ctx.steps["create-account"]["userId"]}


def onboarding() -> Any:
    return (
        flow("user-onboarding", input=SignUp)
        .timeout("24h")
        .default_retry(Retry(max_attempts=3))
        .task("create-account", create_account, input=SignUp, output={"required": ["userId"]})
        .task(
            "send-welcome-email",
            send_welcome_email,
            input=lambda prev, sign_up: {
                "to": sign_up.email,
                "template": "welcome",
                "userId": prev["userId"],
            },
        )
        .choice(
            "check-plan",
            [("context.input.plan == 'enterprise'", "enterprise-setup")],
            default="standard-setup",
        )
        .task("enterprise-setup", set_up, next="complete")
        .task("standard-setup", set_up, next="complete")
        .pass_(
            "complete",
            transform=lambda ctx: {
                "userId": ctx.steps["create-account"]["userId"],
                "plan": ctx.input.plan,
                "setupComplete": True,
            },
            end=True,
        )
        .build()
    )


async def test_the_onboarding_example_runs_as_its_text_says(tmp_path: Path):
    made = onboarding()
    async with engine_on(tmp_path, made, services={"users": Users()}) as engine:
        for plan, way in (("enterprise", "enterprise-setup"), ("pro", "standard-setup")):
            handle = await engine.client.start(made, SignUp("a@b.c", "Ada", plan))
            assert await handle.result("20s") == {
                "userId": "user of Ada",
                "plan": plan,
                "setupComplete": True,
            }
            assert way in (await handle.query("graph"))["steps"]
        assert done[0] == ("a@b.c", "welcome", "user of Ada")
        with pytest.raises(Invalid, match="plan"):
            await engine.client.start("user-onboarding", {"email": "", "name": "", "plan": "gold"})


# -- choices -------------------------------------------------------------------------------------


async def test_a_choice_that_nothing_fits_fails_with_its_name(tmp_path: Path):
    made = flow("f").choice("which", [("context.get('n') == 1", "end")]).end().build()
    async with engine_on(tmp_path, made) as engine:
        text = 'Step "which" failed: No choice condition matched and no default specified'
        with pytest.raises(WorkflowFailed, match=text) as caught:
            await engine.client.execute(made, {"n": 2})
        assert caught.value.kind == "NoChoice"


async def test_conditions_are_asked_in_order_and_only_until_one_holds(tmp_path: Path):
    made = (
        flow("f")
        .choice(
            "which",
            [
                ("context.get('n') > 100", "a"),
                ("context.get('n') > 10", "b"),
                ("context.get('n') > 1", "a"),
            ],
        )
        .pass_("a", result="a", end=True)
        .pass_("b", result="b", end=True)
        .build()
    )
    async with engine_on(tmp_path, made) as engine:
        handle = await engine.client.start(made, {"n": 50})
        assert await handle.result("20s") == "b"
        asked = [it.data["name"] for it in await events_of(handle, "side_effect_recorded")]
    assert asked == ["which -> a", "which -> b"]


# -- retries -------------------------------------------------------------------------------------


async def test_attempts_count_for_each_visit_of_a_step(tmp_path: Path):
    def shaky(before: Any) -> dict[str, int]:
        round_ = (before or {}).get("n", 0) + 1
        done.append(round_)
        if done.count(round_) < 3:
            raise ApplicationError("not yet", kind="Busy")
        return {"n": round_}

    made = (
        flow("f")
        .default_retry(Retry(max_attempts=3, interval="1ms"))
        .task("shaky", shaky)
        .loop("again", "context.prev.n < 4", "shaky", max_iterations=9)
        .build()
    )
    async with engine_on(tmp_path, made) as engine:
        assert await engine.client.execute(made) == {"n": 4}
    assert done == [1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4]


async def test_the_retry_of_a_step_replaces_the_default_whole(tmp_path: Path):
    def fails() -> None:
        done.append("attempt")
        raise ApplicationError("no", kind="Busy")

    made = (
        flow("f")
        .default_retry(Retry(max_attempts=9, interval="1ms", retry_on=["Nothing"]))
        .task("a", fails, retry=Retry(max_attempts=2, interval="1ms"))
        .build()
    )
    policy = made.steps["a"].policy
    assert policy is not None
    assert (policy.max_attempts, policy.retry_on, policy.max_interval) == (2, (), 30_000_000)
    async with engine_on(tmp_path, made) as engine:
        with pytest.raises(WorkflowFailed):
            await engine.client.execute(made)
    assert len(done) == 2


async def test_retry_on_takes_texts_of_the_message_and_names_of_classes(tmp_path: Path):
    def fails(what: str) -> None:
        done.append(what)
        raise OSError(f"the {what} is down")

    policy = Retry(max_attempts=3, interval="1ms", retry_on=["line is down"])
    made = flow("f").task("a", fails, retry=policy).build()
    by_class = Retry(max_attempts=2, interval="1ms", retry_on=["OSError"])
    other = flow("g").task("a", fails, retry=by_class).build()
    async with engine_on(tmp_path, made, other) as engine:
        for definition, what in ((made, "line"), (made, "house"), (other, "door")):
            with pytest.raises(WorkflowFailed):
                await engine.client.execute(definition, what)
    assert done == ["line"] * 3 + ["house"] + ["door"] * 2


async def test_retry_on_knows_a_step_that_timed_out_by_the_text_of_its_error(tmp_path: Path):
    async def hang(what: str) -> None:
        done.append(what)
        await asyncio.Event().wait()

    policy = Retry(max_attempts=3, interval="1ms", retry_on=["Step timed out"])
    made = flow("f").task("a", hang, timeout="5ms", retry=policy).build()
    async with engine_on(tmp_path, made) as engine:
        with pytest.raises(WorkflowFailed, match='Step "a" failed: Step timed out') as caught:
            await engine.client.execute(made, "x")
    assert (caught.value.kind, done) == ("Timeout", ["x"] * 3)


# -- what is shown of a run ---------------------------------------------------------------------


async def test_a_description_has_the_steps_their_results_and_the_metadata(tmp_path: Path):
    async def validate(order: dict[str, int], ctx: Any) -> dict[str, Any]:
        await ctx.set_metadata("by", {"name": "validate"})
        return {"total": order["total"], "changes": {"metadata": {"no": "metadata"}}}

    def charge() -> str:
        done.append("charge")
        if len(done) == 1:
            raise OSError("busy")
        return "charged"

    def refuse() -> None:
        raise OSError("no")

    class Skipped(BaseMachineStep):
        name = "skipped"

        async def can_execute(self, context: Any) -> bool:
            return False

    async def passed_on(order: Any) -> Any:
        return order

    made = (
        flow("f")
        .task("validate", validate)
        .task("job", job="passed_on")
        .task("charge", charge, retry=Retry(2, "1ms"))
        .add(Skipped())
        .webhook("paid")
        .pass_("seen", transform=lambda ctx: dict(ctx.metadata))
        .task("refuse", refuse)
        .task("never", charge)
        .build()
    )
    async with engine_on(
        tmp_path, made, Activity(passed_on, name="passed_on", retry=Retry().resolve())
    ) as engine:
        handle = await engine.client.start(made, {"total": 5})
        await until(lambda: _is_at(handle, "paid"))
        await handle.set_metadata({"order": 7})
        shown = await handle.describe()
        assert shown.metadata == {"by": {"name": "validate"}, "order": 7}
        await handle.send("paid", "yes")
        with pytest.raises(WorkflowFailed):
            await handle.result()
        shown = await handle.describe()
    steps = shown.step_results
    assert shown.current_step is None
    assert {name: visit["status"] for name, visit in steps.items()} == {
        "validate": "completed",
        "job": "completed",
        "charge": "completed",
        "skipped": "skipped",
        "paid": "completed",
        "seen": "completed",
        "refuse": "failed",
    }
    assert steps["validate"]["input"] == {"total": 5}
    assert steps["seen"]["output"] == {"by": {"name": "validate"}, "order": 7}
    assert (steps["charge"]["output"], steps["charge"]["attempts"]) == ("charged", 2)
    assert (steps["refuse"]["output"], steps["refuse"]["error"]) == (None, "no")
    assert steps["charge"]["started_at"] <= steps["charge"]["completed_at"]


async def _is_at(handle: Handle[Any], step: str) -> bool:
    return (await handle.describe()).current_step == step


async def test_metadata_that_is_none_is_refused_and_so_is_that_of_a_function(tmp_path: Path):
    @workflow.define(name="waits")
    async def waits() -> None:
        await workflow.listen("go").receive()

    made = flow("f").webhook("go").build()
    async with engine_on(tmp_path, made, waits) as engine:
        handle = await engine.client.start(made)
        for wrong in (5, ["a"], {1: 2}, {"a": object()}):
            with pytest.raises(Invalid):
                await handle.set_metadata(wrong)  # pyright: ignore[reportArgumentType]
        assert (await handle.describe()).metadata == {}
        with pytest.raises(NotFound):
            await (await engine.client.start(waits)).set_metadata({"a": 1})


# -- polls and loops -----------------------------------------------------------------------------


def test_a_poll_is_out_of_time_by_the_clock_of_its_first_visit():
    made = flow("f").poll("wait", lambda: {"done": False}, interval="1m", timeout="10m").build()

    async def story(sim: Simulation, worker: SimulatedWorker) -> None:
        handle = await worker.client.start(made)
        with pytest.raises(WorkflowFailed, match='Poll step "wait" timed out') as caught:
            await handle.result()
        assert caught.value.kind == "Timeout"
        assert len(await events_of(handle, "activity_scheduled")) == 10

    play(story, made)


async def test_a_check_that_raises_is_tried_again_and_counts_as_one_poll(tmp_path: Path):
    def check() -> dict[str, Any]:
        done.append("asked")
        if len(done) == 1:
            raise ApplicationError("not there", kind="Busy")
        return {"done": len(done) == 3}

    made = (
        flow("f").poll("wait", check, interval="1ms", max_attempts=2, retry=Retry(2, "1ms")).build()
    )
    async with engine_on(tmp_path, made) as engine:
        await engine.client.execute(made)
    assert len(done) == 3


def test_polls_and_loops_go_on_counting_after_a_kill():
    def ask() -> dict[str, Any]:
        done.append("asked")
        return {"done": False}

    def look() -> None:
        done.append("looked")

    polls = flow("polls").poll("wait", ask, interval="1m", max_attempts=6).build()
    loops = (
        flow("loops")
        .task("look", look)
        .loop("again", lambda c: True, "look", interval="1m", max_iterations=6)
        .build()
    )

    async def begin(sim: Simulation) -> None:
        worker = sim.worker("a", [polls, loops])
        await worker.start()
        ids = [(await worker.spawn(worker.client.start(it))).id for it in (polls, loops)]
        await sim.until(lambda: done.count("asked") == 2 and done.count("looked") == 3)
        worker.kill()
        other = sim.worker("b", [polls, loops])
        await other.start()
        for id, text in zip(ids, ("maxAttempts", "maxIterations"), strict=True):
            with pytest.raises(WorkflowFailed, match=rf"exceeded {text} \(6\)"):
                await other.spawn(other.client.get(id).result())

    with Simulation(seed=3, limit_seconds=50_000) as sim:
        sim.run(begin(sim))
    assert (done.count("asked"), done.count("looked")) == (6, 7)


def test_a_loop_is_out_of_time_however_often_it_may_jump():
    made = (
        flow("f")
        .task("look", lambda: None)
        .loop("again", lambda c: True, "look", interval="4m", timeout="10m", max_iterations=99)
        .build()
    )

    async def story(sim: Simulation, worker: SimulatedWorker) -> None:
        handle = await worker.client.start(made)
        with pytest.raises(WorkflowFailed, match='Loop step "again" timed out'):
            await handle.result()
        assert len(await events_of(handle, "timer_fired")) == 3

    play(story, made)


# -- ends ----------------------------------------------------------------------------------------


async def test_a_run_that_is_cancelled_in_its_last_step_stays_cancelled(tmp_path: Path):
    begun = asyncio.Event()

    async def last() -> None:
        begun.set()
        await asyncio.Event().wait()

    made = flow("f").task("first", lambda: 1).task("last", last).build()
    async with engine_on(tmp_path, made) as engine:
        handle = await engine.client.start(made)
        async with asyncio.timeout(20):
            await begun.wait()
        assert await handle.cancel("enough")

        async def ended() -> bool:
            return (await handle.status()).is_terminal

        await until(ended)
        assert await handle.status() is Status.CANCELLED
        assert not await handle.cancel("again")


async def test_a_branch_begins_with_the_output_before_and_sees_the_workflow_input(tmp_path: Path):
    inner = branch("b").pass_("both", transform=lambda c: [c.prev, c.input])
    made = flow("f").pass_("before", result="p").parallel("p", [inner]).build()
    async with engine_on(tmp_path, made) as engine:
        assert await engine.client.execute(made, "i") == {"b": ["p", "i"]}


async def test_a_pass_in_the_middle_goes_on(tmp_path: Path):
    made = flow("f").pass_("a", result=1).pass_("b").pass_("c", transform=lambda c: c.prev + 1)
    async with engine_on(tmp_path, built := made.build()) as engine:
        assert await engine.client.execute(built, "input") == 2
