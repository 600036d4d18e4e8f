"""What a run knows and tells: info, history length, conditions, progress, attributes, logs."""

import asyncio
import logging
from typing import Any

import pytest
from tests.unit.drive import NOON, Run

from perdure import errors, workflow
from perdure.kernel.instance import Instance
from perdure.values import events as ev
from perdure.values.lines import Line
from perdure.workflow import call


def test_info_tells_what_event_1_says():
    @workflow.define
    async def wf():
        info = workflow.info()
        return {name: str(getattr(info, name)) for name in info.__struct_fields__}

    parent = ev.Parent(execution=1, workflow_id="p", run_id="pr", child=3)
    run = Run(wf, queue="fast", namespace="n", attempt=2, parent=parent, continued_from="before")
    assert run.result == {
        "workflow_id": "order-7",
        "run_id": run.started.run_id,
        "workflow_type": "wf",
        "version": "1.0.0",
        "task_queue": "fast",
        "namespace": "n",
        "attempt": "2",
        "history_length": "0",
        "history_size": "0",
        "started_at": "2025-06-15 15:06:40+00:00",
        "parent_workflow_id": "p",
        "parent_run_id": "pr",
        "continued_from": "before",
        "first_run_id": run.started.run_id,
        "schedule": "None",
        "scheduled_at": "None",
    }


def test_history_length_and_size_are_those_before_the_turn():
    @workflow.define
    async def wf():
        got = []
        for _ in range(3):
            got.append([workflow.history_length(), workflow.history_size()])
            await call("a")
        return [*got, workflow.info().history_length]

    run = Run(wf)
    sizes = [0]
    for _ in range(3):
        sizes.append(sum(len(data) for data, _, _ in run.rows))
        run.complete("a")
    assert run.result == [[0, 0], [2, sizes[1]], [4, sizes[2]], 6]


def test_now_is_the_turns_time():
    @workflow.define
    async def wf():
        before = workflow.now()
        await call("a")
        return (workflow.now() - before).total_seconds()

    run = Run(wf)
    run.turn(run.completed("a"), after=90)
    assert run.result == 90


def test_the_context_is_a_read_only_mapping():
    @workflow.define
    async def wf():
        context = workflow.context
        return [context["a"], len(context), list(context), context.get("b"), repr(context)]

    assert Run(wf, context=b'{"a":1}').result == [1, 1, ["a"], None, "{'a': 1}"]
    assert not hasattr(workflow.context, "__setitem__")


# -- conditions ----------------------------------------------------------------------------------


def test_a_condition_that_holds_does_not_wait():
    @workflow.define
    async def wf():
        await workflow.wait_condition(lambda: True)
        await workflow.wait_condition(lambda: True, timeout="5s")

    assert "run_completed" in Run(wf).asked


def test_a_condition_is_asked_again_after_every_step():
    @workflow.define
    async def wf():
        got: list[int] = []

        async def reader():
            async for number in workflow.listen("n"):
                got.append(number)

        workflow.spawn(reader())
        await workflow.wait_condition(lambda: len(got) >= 2)
        return got

    run = Run(wf)
    run.message("n", 1)
    assert run.instance.waits().conditions == 1
    run.message("n", 2)
    assert run.result == [1, 2]


def test_a_condition_that_another_makes_true_holds_in_the_same_turn():
    @workflow.define
    async def wf():
        steps = [0]

        async def follow(number: int):
            await workflow.wait_condition(lambda: steps[0] == number)
            steps[0] += 1

        async with asyncio.TaskGroup() as group:
            for number in (3, 2, 1):
                group.create_task(follow(number))
            await call("a")
            steps[0] = 1
        return steps[0]

    run = Run(wf)
    run.complete("a")
    assert run.result == 4


def test_a_condition_gives_up_after_its_timeout():
    @workflow.define
    async def wf():
        try:
            await workflow.wait_condition(lambda: False, timeout="5s")
        except TimeoutError:
            return "late"

    run = Run(wf)
    run.fire()
    assert run.result == "late"
    assert run.instance.conditions == []


@pytest.mark.parametrize("exc", [ZeroDivisionError, asyncio.CancelledError])
def test_a_condition_that_raises_raises_where_it_is_awaited(exc):
    @workflow.define
    async def wf():
        failing: list[int] = []

        def predicate():
            if failing:
                raise exc
            return False

        async def later():
            await call("a")
            failing.append(1)

        workflow.spawn(later())
        try:
            await workflow.wait_condition(predicate)
        except exc:
            return "raised"

    run = Run(wf)
    run.complete("a")
    assert run.result == "raised"


# -- telling -------------------------------------------------------------------------------------


def test_progress_and_attributes_are_commands():
    @workflow.define
    async def wf():
        await workflow.progress(1, 4, "picking")
        await workflow.progress(2)
        await workflow.attrs(search={"city": "Bonn", "old": None, "tags": ["a"]}, memo={"n": [1]})

    assert Run(wf).commands[:-1] == [
        ev.ProgressReported(done=1.0, total=4.0, note="picking"),
        ev.ProgressReported(done=2.0),
        ev.AttributesSet(search=b'{"city":"Bonn","old":null,"tags":["a"]}', memo=b'{"n":[1]}'),
    ]


@pytest.mark.parametrize(
    "make",
    [
        lambda: workflow.attrs(),
        lambda: workflow.attrs(search={"a": {}}),
        lambda: workflow.attrs(search={"a": [1]}),
        lambda: workflow.attrs(memo={"a": object()}),
        lambda: workflow.progress(anything("half")),
        lambda: workflow.progress(1, note="\udce9"),
        lambda: workflow.emit("e", object()),
    ],
)
def test_what_cannot_be_recorded_is_refused_before_it_is_a_command(make):
    @workflow.define
    async def wf():
        with pytest.raises((errors.PerdureError, ValueError)):
            await make()

    assert Run(wf).asked == ["run_completed"]


def test_emitted_events_are_recorded_with_their_data():
    @workflow.define
    async def wf():
        await workflow.emit("picked", {"item": 1})

    [emitted, _] = Run(wf).commands
    assert emitted == ev.Emitted(event="picked", data=b'{"item":1}')


def test_data_over_the_limit_is_refused_where_it_is_emitted():
    @workflow.define
    async def wf():
        await workflow.emit("picked", "x" * 2 * 1024 * 1024)

    assert "data: 2,097,154 bytes are over the limit" in Run(wf).closed.failure.message


def test_log_lines_are_kept_for_after_the_commit():
    @workflow.define
    async def wf():
        workflow.logger.info("picked %d of %s", 1, "two")
        workflow.logger.debug("not asked for")

    with logging_at(logging.INFO):
        run = Run(wf)
    assert run.instance.effects == [("log", Line(logging.INFO, "picked 1 of two"))]


def test_a_logged_exception_has_its_traceback():
    @workflow.define
    async def wf():
        try:
            raise ValueError("bad")
        except ValueError as exc:
            workflow.logger.exception("it went wrong")
            workflow.logger.error("again", exc_info=exc)

    run = Run(wf)
    for _, line in run.instance.effects:
        assert line.message.startswith(("it went wrong\nTraceback", "again\nTraceback"))
        assert line.message.endswith("ValueError: bad")


def test_a_log_line_that_cannot_be_formatted_does_not_stop_the_workflow():
    @workflow.define
    async def wf():
        workflow.logger.warning("%d items", "many")

    run = Run(wf)
    assert run.closed == ev.RunCompleted()
    assert run.instance.effects == [("log", Line(logging.WARNING, "%d items ('many',)"))]


def test_a_replay_tells_nothing_again():
    @workflow.define
    async def wf():
        await workflow.emit("picked")
        workflow.logger.warning("picked")
        await call("a")

    run = Run(wf)
    assert len(run.instance.effects) == 1
    assert run.replayed().effects == []


def test_outside_a_workflow_the_logger_logs(caplog):
    workflow.logger.warning("outside %d", 1)
    assert "outside 1" in caplog.text


def anything(value: Any) -> Any:
    return value


class logging_at:  # noqa: N801 - read like a function
    def __init__(self, level):
        self.logger, self.level = logging.getLogger("perdure.workflow"), level

    def __enter__(self):
        self.before = self.logger.level
        self.logger.setLevel(self.level)

    def __exit__(self, *_exc):
        self.logger.setLevel(self.before)


# -- what it waits for ---------------------------------------------------------------------------


def test_waits_tell_what_a_run_waits_for_and_where():
    @workflow.define
    async def wf():
        await workflow.start("child", id="c1")
        async with asyncio.TaskGroup() as group:
            group.create_task(call("a"))
            group.create_task(workflow.sleep(5))
            group.create_task(workflow.listen("n").receive())
            group.create_task(workflow.inbox().receive())
            group.create_task(workflow.wait_condition(lambda: False))
            await call("b")

    waits = Run(wf).instance.waits()
    assert waits.topics == ["n", "*"]
    assert waits.activities == ["b", "a"]
    assert waits.children == ["c1"]
    assert (waits.timers, waits.next_due, waits.conditions) == (1, NOON + 5_000_000, 1)
    assert waits.where.startswith(f"{__file__}:")
    assert waits.where.endswith("test_waits_tell_what_a_run_waits_for_and_where.<locals>.wf")


def test_a_run_that_has_not_begun_waits_nowhere():
    @workflow.define
    async def wf():
        """Never run."""

    assert Instance(wf).waits().where == ""


def test_due_timers_are_told_by_time_then_by_number():
    @workflow.define
    async def wf():
        await asyncio.gather(*(workflow.sleep(n) for n in (3, 1, 2, 1, 9)))

    run = Run(wf)
    numbers = {due - NOON: number for number, (due, _) in reversed(run.instance.timers.items())}
    assert [fact.timer for fact in run.instance.due_timers(NOON + 3_000_000)] == [
        numbers[1_000_000],
        numbers[1_000_000] + 2,
        numbers[2_000_000],
        numbers[3_000_000],
    ]
